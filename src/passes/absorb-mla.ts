// Latent attention without unrolling the cache. With kn = UK c and v = UV c:
//   qn . kn = (UK^T qn) . c      and      sum_s p_s v_s = UV (sum_s p_s c_s)
// so each head asks the latent itself: one kv head of width kl + rope whose first kl columns are also the value. A position costs
// kl + rope values of cache whatever the number of heads, and UK, UV are read once a row, never once a position.
import type { Graph, Origin, Value, ValueOf } from '../../ir/graph.js';
import { type OpName, type Ops, typeOf } from '../../ir/ops.js';
import { replace } from './replace.js';

export const absorbMla = (graph: Graph): Graph => replace(graph, v => (v.op === 'mla' ? absorbed(v) : null));

function absorbed(v: ValueOf<'mla'>): readonly [...Value[], Value] {
  const { q, state, kv_b, positions, sequences, selected } = v.inputs;
  const { heads, nope, rope, v: width, scale } = v.attributes;
  const latent = kv_b.type.shape[1] as number;
  const rows = { groups: heads, stride: nope + width };
  const origin: Origin = { ...v.origin, passes: [...v.origin.passes, 'absorb-mla'] };
  const make = <K extends OpName>(op: K, name: string, inputs: Ops[K]['inputs'], attributes: Ops[K]['attributes']): Value => {
    const type = typeOf(op, inputs as Readonly<Record<string, Value>>, attributes);
    if (typeof type === 'string') throw new Error(`${op} ${name}: ${type}`);
    return { op, name, type, inputs, attributes, origin } as unknown as Value;
  };
  const qNope = make('slice', `${v.name}.q_nope`, { x: q }, { heads, from: 0, size: nope });
  const qLatent = make(
    'grouped_linear',
    `${v.name}.q_latent`,
    { x: qNope, weight: kv_b },
    { ...rows, from: 0, size: nope, transposed: true },
  );
  const qRope = make('slice', `${v.name}.q_rope`, { x: q }, { heads, from: nope, size: rope });
  const asked = make('concat', `${v.name}.q_absorbed`, { a: qLatent, b: qRope }, { heads });
  const read = make(
    'attention',
    `${v.name}.latent`,
    { q: asked, state, positions, sequences, ...(selected ? { selected } : {}) },
    { heads, kvHeads: 1, width: latent + rope, keyOffset: 0, valueOffset: 0, valueWidth: latent, scale, window: null, ratio: 1 },
  );
  const out = make('grouped_linear', v.name, { x: read, weight: kv_b }, { ...rows, from: nope, size: width, transposed: false });
  return [qNope, qLatent, qRope, asked, read, out];
}
