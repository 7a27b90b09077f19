// V2, V3, R1, V3.1, V3.2, Moonlight, Kimi-K2 from embedding to logits, with V3's multi-token prediction as an output of its own.
import type { Value } from '../../ir/graph.js';
import type { DeepseekMlaConfig } from '../checkpoint/config.js';
import { embedding, linear, logits, type Making, norms, normWeight, rms } from './blocks.js';
import { decoderLayer } from './deepseek-v2.js';

export function buildMla(m: Making<DeepseekMlaConfig>): Readonly<Record<string, Value>> {
  const { config: c, b, w } = m;
  const table = embedding(m, 'model.embed_tokens.weight');
  let x: Value = b.add('gather', 'embedding', { table, ids: m.inputs.ids }, {});
  for (let i = 0; i < c.layers; i++) x = decoderLayer(m, i, x);
  const final = rms(m, 'final_norm', x, normWeight(m, 'model.norm.weight', c.hidden, -1), -1);
  const head =
    c.tied && !w.has('lm_head.weight')
      ? table
      : c.tied
        ? w.copy('lm_head.weight', [c.vocab, c.hidden], table, -1)
        : w.matrix('lm_head', c.vocab, c.hidden, -1, 'bf16', 'vocab_size');
  const outputs: Record<string, Value> = { logits: logits(m, 'logits', final, head) };
  if (c.mtpLayers === 0) return outputs;

  // Row t meets the token after it: eh_proj([enorm(embed(next)), hnorm(final_norm)]), a layer with its own cache, then the shared head.
  const nextIds = b.add('input', 'next_ids', {}, { which: 'next_ids' });
  let before: Value = final;
  for (let k = 0; k < c.mtpLayers; k++) {
    const i = c.layers + k;
    const p = `model.layers.${i}`;
    const n = `layers.${i}`;
    const own = w.copy(`${p}.embed_tokens.weight`, [c.vocab, c.hidden], table, i);
    const e = rms(
      m,
      `${n}.enorm_out`,
      b.add('gather', `${n}.next`, { table: own, ids: nextIds }, {}, { layer: i }),
      normWeight(m, `${p}.enorm.weight`, c.hidden, i),
      i,
    );
    const h = rms(m, `${n}.hnorm_out`, before, normWeight(m, `${p}.hnorm.weight`, c.hidden, i), i);
    const both = b.add('concat', `${n}.merge`, { a: e, b: h }, { heads: 1 }, { layer: i });
    const out = decoderLayer(
      m,
      i,
      linear(m, `${n}.in`, both, w.plain(`${p}.eh_proj.weight`, [c.hidden, 2 * c.hidden], norms, i, 'hidden_size'), i),
    );
    before = rms(m, `mtp.${k}.final_norm`, out, normWeight(m, `${p}.shared_head.norm.weight`, c.hidden, i), i);
    outputs[`mtp.${k}.logits`] = logits(m, `mtp.${k}.logits`, before, w.copy(`${p}.shared_head.head.weight`, [c.vocab, c.hidden], head, i));
  }
  return outputs;
}
