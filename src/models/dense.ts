// Decoders with plain grouped-query attention: the R1 distills (Qwen2, Llama), and DeepSeek-MoE-16B, which adds experts to it.
import type { Value } from '../../ir/graph.js';
import type { DeepseekMoeConfig, DenseConfig } from '../checkpoint/config.js';
import { add, append, embedding, linear, logits, type Making, mlp, moe, norms, normWeight, rms, rope, scalingOf, state } from './blocks.js';

type Plain = DenseConfig | DeepseekMoeConfig;

/** Rotary dimensions lie in halves (j, j + d/2), as in every export that came through transformers' rotate_half. */
function attention(m: Making<Plain>, i: number, x: Value): Value {
  const { config: c, b, w } = m;
  const p = `model.layers.${i}.self_attn`;
  const n = `layers.${i}`;
  const project = (name: string, rows: number): Value => {
    const weight = w.matrix(`${p}.${name}_proj`, rows, c.hidden, i, m.release, 'num_attention_heads');
    const biased = 'qkvBias' in c && c.qkvBias;
    return b.add(
      'linear',
      `${n}.${name}`,
      biased ? { x, weight, bias: w.plain(`${p}.${name}_proj.bias`, [rows], norms, i) } : { x, weight },
      {},
      { layer: i },
    );
  };
  const table = { theta: c.ropeTheta, dims: c.headDim, scaling: scalingOf(c.ropeScaling) };
  const q = rope(m, `${n}.q_rope`, project('q', c.heads * c.headDim), table, { heads: c.heads, offset: 0, layout: 'half' }, i);
  const k = rope(m, `${n}.k_rope`, project('k', c.kvHeads * c.headDim), table, { heads: c.kvHeads, offset: 0, layout: 'half' }, i);
  const kv = b.add('concat', `${n}.kv`, { a: k, b: project('v', c.kvHeads * c.headDim) }, { heads: 1 }, { layer: i });
  const cache = append(m, `${n}.cached`, state(m, `${n}.cache`, 2 * c.kvHeads * c.headDim, i), kv, i);
  const o = b.add(
    'attention',
    `${n}.attended`,
    { q, state: cache, positions: m.inputs.positions, sequences: m.inputs.sequences },
    {
      heads: c.heads,
      kvHeads: c.kvHeads,
      width: c.headDim,
      keyOffset: 0,
      valueOffset: c.kvHeads * c.headDim,
      valueWidth: c.headDim,
      scale: 1 / Math.sqrt(c.headDim),
      window: null,
      ratio: 1,
    },
    { layer: i },
  );
  return linear(m, `${n}.attn_out`, o, w.matrix(`${p}.o_proj`, c.hidden, c.heads * c.headDim, i, m.release, 'num_attention_heads'), i);
}

function feedForward(m: Making<Plain>, i: number, x: Value): Value {
  const { config: c } = m;
  const p = `model.layers.${i}.mlp`;
  if (c.family !== 'deepseek' || i < c.firstDense || i % c.moeEvery !== 0)
    return mlp(m, `layers.${i}.mlp`, p, x, c.intermediate, i, 'intermediate_size');
  const routed = moe(
    m,
    i,
    p,
    x,
    { scoring: 'softmax', groups: 1, keep: 1, by: 'max', normalise: c.normTopK, scale: c.routedScale },
    {
      experts: c.experts,
      topK: c.topK,
      inner: c.moeIntermediate,
      limit: null,
      weigh: 'after',
      release: m.release,
      names: ['gate_proj', 'up_proj', 'down_proj'],
    },
    undefined,
  );
  if (c.sharedExperts === 0) return routed;
  return add(
    m,
    `layers.${i}.ffn`,
    routed,
    mlp(m, `layers.${i}.shared`, `${p}.shared_experts`, x, c.moeIntermediate * c.sharedExperts, i, 'moe_intermediate_size'),
    i,
  );
}

export function buildDense(m: Making<Plain>): Readonly<Record<string, Value>> {
  const { config: c, b } = m;
  const table = embedding(m, 'model.embed_tokens.weight');
  let x: Value = b.add('gather', 'embedding', { table, ids: m.inputs.ids }, {});
  for (let i = 0; i < c.layers; i++) {
    const n = `layers.${i}`;
    const a = attention(m, i, rms(m, `${n}.attn_in`, x, normWeight(m, `model.${n}.input_layernorm.weight`, c.hidden, i), i));
    x = add(m, `${n}.mid`, x, a, i);
    const f = feedForward(m, i, rms(m, `${n}.ffn_in`, x, normWeight(m, `model.${n}.post_attention_layernorm.weight`, c.hidden, i), i));
    x = add(m, `${n}.out`, x, f, i);
  }
  const final = rms(m, 'final_norm', x, normWeight(m, 'model.norm.weight', c.hidden, -1), -1);
  const head =
    c.tied && !m.w.has('lm_head.weight')
      ? table
      : c.tied
        ? m.w.copy('lm_head.weight', [c.vocab, c.hidden], table, -1)
        : m.w.matrix('lm_head', c.vocab, c.hidden, -1, 'bf16', 'vocab_size');
  return { logits: logits(m, 'logits', final, head) };
}
