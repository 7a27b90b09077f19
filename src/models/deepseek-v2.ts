// The latent-attention decoder of V2, V3, R1, V3.1, Moonlight and Kimi-K2: one layer, said once. V3 adds MTP, V3.2 an index.
import type { Value } from '../../ir/graph.js';
import { mscale } from '../../ir/rope.js';
import type { DeepseekMlaConfig } from '../checkpoint/config.js';
import { add, append, linear, type Making, mlp, moe, norms, normWeight, type Routing, rms, rope, scalingOf, state } from './blocks.js';
import { selectPositions } from './deepseek-v32.js';

/** The latent norms' epsilon, whatever rms_norm_eps says (DeepSeek-V3, inference/model.py). */
const latentEps = 1e-6;

export const mainRope = (c: DeepseekMlaConfig) => ({ theta: c.ropeTheta, dims: c.rope, scaling: scalingOf(c.ropeScaling) });

/** (nope + rope)^-0.5, times mscale(factor, mscale_all_dim)^2 under YaRN. */
export function softmaxScale(c: DeepseekMlaConfig): number {
  const s = c.ropeScaling;
  const m = s.kind === 'yarn' ? mscale(s.factor, s.mscaleAllDim) : 1;
  return (1 / Math.sqrt(c.nope + c.rope)) * m * m;
}

function attention(m: Making<DeepseekMlaConfig>, i: number, x: Value): Value {
  const { config: c, b, w } = m;
  const p = `model.layers.${i}.self_attn`;
  const n = `layers.${i}`;
  const width = c.nope + c.rope;
  const project = (name: string, from: Value, rows: number, columns: number, key: string): Value =>
    linear(m, `${n}.${name}`, from, w.matrix(`${p}.${name}`, rows, columns, i, m.release, key), i);
  const latentQ =
    c.qLora === null
      ? null
      : rms(
          m,
          `${n}.q_latent`,
          project('q_a_proj', x, c.qLora, c.hidden, 'q_lora_rank'),
          normWeight(m, `${p}.q_a_layernorm.weight`, c.qLora, i),
          i,
          latentEps,
        );
  const flat =
    latentQ === null
      ? project('q_proj', x, c.heads * width, c.hidden, 'num_attention_heads')
      : project('q_b_proj', latentQ, c.heads * width, c.qLora as number, 'num_attention_heads');
  const q = rope(m, `${n}.q`, flat, mainRope(c), { heads: c.heads, offset: c.nope, layout: 'interleaved' }, i);
  const a = project('kv_a_proj_with_mqa', x, c.kvLora + c.rope, c.hidden, 'kv_lora_rank');
  const part = (name: string, from: number, size: number): Value => b.add('slice', `${n}.${name}`, { x: a }, { from, size }, { layer: i });
  const latent = rms(
    m,
    `${n}.kv_latent`,
    part('kv_a', 0, c.kvLora),
    normWeight(m, `${p}.kv_a_layernorm.weight`, c.kvLora, i),
    i,
    latentEps,
  );
  const key = rope(m, `${n}.k_rope`, part('k_shared', c.kvLora, c.rope), mainRope(c), { heads: 1, offset: 0, layout: 'interleaved' }, i);
  const row = b.add('concat', `${n}.kv`, { a: latent, b: key }, { heads: 1 }, { layer: i });
  const cache = append(m, `${n}.cached`, state(m, `${n}.cache`, c.kvLora + c.rope, i), row, i);
  const selected = c.index === null || latentQ === null ? undefined : selectPositions(m, i, x, latentQ);
  const o = b.add(
    'mla',
    `${n}.attended`,
    {
      q,
      state: cache,
      kv_b: w.matrix(`${p}.kv_b_proj`, c.heads * (c.nope + c.v), c.kvLora, i, m.release, 'kv_lora_rank'),
      positions: m.inputs.positions,
      sequences: m.inputs.sequences,
      ...(selected ? { selected } : {}),
    },
    { heads: c.heads, nope: c.nope, rope: c.rope, v: c.v, scale: softmaxScale(c) },
    { layer: i },
  );
  return linear(m, `${n}.attn_out`, o, w.matrix(`${p}.o_proj`, c.hidden, c.heads * c.v, i, m.release, 'v_head_dim'), i);
}

/** V2 scales what it does not normalise; V3 normalises, then scales (V2: the remote code on its model page; V3: inference/model.py). */
function routing(c: DeepseekMlaConfig): Routing {
  const normalise = c.normTopK && c.topK > 1;
  return {
    scoring: c.scoring,
    groups: c.topkMethod === 'greedy' ? 1 : c.groups,
    keep: c.topkMethod === 'greedy' ? 1 : c.topGroups,
    by: c.topkMethod === 'noaux_tc' ? 'top2sum' : 'max',
    normalise,
    scale: c.family === 'deepseek_v2' && normalise ? 1 : c.routedScale,
  };
}

function feedForward(m: Making<DeepseekMlaConfig>, i: number, x: Value): Value {
  const { config: c, w } = m;
  const p = `model.layers.${i}.mlp`;
  if (i < c.firstDense || i % c.moeEvery !== 0) return mlp(m, `layers.${i}.mlp`, p, x, c.intermediate, i, 'intermediate_size');
  const bias =
    c.topkMethod === 'noaux_tc'
      ? w.plain(`${p}.gate.e_score_correction_bias`, [c.experts], ['F32', 'BF16', 'F16'], i, 'n_routed_experts')
      : undefined;
  const shape = {
    experts: c.experts,
    topK: c.topK,
    inner: c.moeIntermediate,
    limit: null,
    weigh: 'after',
    release: m.release,
    names: ['gate_proj', 'up_proj', 'down_proj'],
  } as const;
  const routed = moe(m, i, p, x, routing(c), shape, bias);
  if (c.sharedExperts === 0) return routed;
  return add(
    m,
    `layers.${i}.ffn`,
    routed,
    mlp(m, `layers.${i}.shared`, `${p}.shared_experts`, x, c.moeIntermediate * c.sharedExperts, i, 'moe_intermediate_size'),
    i,
  );
}

/** Layer i on the residual stream x. */
export function decoderLayer(m: Making<DeepseekMlaConfig>, i: number, x: Value): Value {
  const n = `layers.${i}`;
  const d = m.config.hidden;
  const a = attention(m, i, rms(m, `${n}.attn_in`, x, normWeight(m, `model.${n}.input_layernorm.weight`, d, i), i));
  const middle = add(m, `${n}.mid`, x, a, i);
  const f = feedForward(m, i, rms(m, `${n}.ffn_in`, middle, normWeight(m, `model.${n}.post_attention_layernorm.weight`, d, i), i));
  return add(m, `${n}.out`, middle, f, i);
}
export { norms };
