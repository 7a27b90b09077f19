// V3.2's index: which positions a token attends to. Its rope is half-split with the rotary dimensions first, unlike the main attention's.
import type { Value } from '../../ir/graph.js';
import type { DeepseekMlaConfig } from '../checkpoint/config.js';
import { append, linear, type Making, norms, rope, scalingOf, state } from './blocks.js';

const keyEps = 1e-6;

/** @param x the layer's normed input @param latentQ the normed query latent @returns i32 [tokens, k]: positions, -1 for none */
export function selectPositions(m: Making<DeepseekMlaConfig>, i: number, x: Value, latentQ: Value): Value {
  const { config: c, b, w } = m;
  const { heads, dim, topK } = c.index as NonNullable<typeof c.index>;
  const p = `model.layers.${i}.self_attn.indexer`;
  const n = `layers.${i}.index`;
  const table = { theta: c.ropeTheta, dims: c.rope, scaling: scalingOf(c.ropeScaling) };
  const rounded = (name: string, v: Value, parts: number): Value => {
    if (!m.options.fakeQuant) return v; // the Hadamard matrix is orthonormal: it cancels where nothing is rounded
    const h = b.add('hadamard', `${name}_h`, { x: v }, { width: dim }, { layer: i });
    return b.add(
      'fake_quant',
      `${name}_f8`,
      { x: h },
      {
        element: 'f8e4m3',
        block: dim,
        scale: c.quantisation.kind === 'fp8' && c.quantisation.scaleFormat === 'ue8m0' ? 'e8m0' : 'f32',
        least: 1e-4,
        heads: parts,
        offset: 0,
        size: dim,
      },
      { layer: i },
    );
  };
  const q = linear(m, `${n}.wq_b_out`, latentQ, w.matrix(`${p}.wq_b`, heads * dim, c.qLora as number, i, m.release, 'index_n_heads'), i);
  const turned = rounded(`${n}.q`, rope(m, `${n}.q`, q, table, { heads, offset: 0, layout: 'half' }, i), heads);
  const k = linear(m, `${n}.wk_out`, x, w.matrix(`${p}.wk`, dim, c.hidden, i, m.release, 'index_head_dim'), i);
  const f32First = ['F32', 'BF16', 'F16'] as const;
  const normed = b.add(
    'layer_norm',
    `${n}.k_normed`,
    {
      x: k,
      weight: w.plain(`${p}.k_norm.weight`, [dim], f32First, i, 'index_head_dim'),
      bias: w.plain(`${p}.k_norm.bias`, [dim], f32First, i, 'index_head_dim'),
    },
    { eps: keyEps },
    { layer: i },
  );
  const key = rounded(`${n}.k`, rope(m, `${n}.k`, normed, table, { heads: 1, offset: 0, layout: 'half' }, i), 1);
  const cache = append(m, `${n}.cached`, state(m, `${n}.cache`, dim, i), key, i);
  const weights = b.add(
    'scale',
    `${n}.weights`,
    { x: linear(m, `${n}.weights_out`, x, w.plain(`${p}.weights_proj.weight`, [heads, c.hidden], norms, i, 'index_n_heads'), i) },
    { by: (1 / Math.sqrt(heads)) * (1 / Math.sqrt(dim)) },
    { layer: i },
  );
  const scores = b.add(
    'index_scores',
    `${n}.scores`,
    { q: turned, weights, state: cache, positions: m.inputs.positions, sequences: m.inputs.sequences },
    { heads, width: dim, ratio: 1 },
    { layer: i },
  );
  return b.add('top_indices', `${n}.selected`, { scores }, { k: Math.min(topK, m.options.limits.context) }, { layer: i });
}
