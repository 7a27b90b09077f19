// Which values are computed inside another value's launch instead of one of their own. One row a fusion; every one is composition of what the
// separate kernels do, and the separate ones stay, for values that something else reads or that are to be kept.
import { type Graph, inputsOf, type Value, type ValueOf } from '../../ir/graph.js';
import type { OpName } from '../../ir/ops.js';

/** From an absorbed value to the one whose launch computes it. */
export type Fused = ReadonlyMap<Value, Value>;
/** True where nothing but the given values reads it, it is no output and it is not to be kept. */
type Only = (v: Value, ...readers: readonly Value[]) => boolean;
/** True where every other reader of a value stands after the given one. */
type ReadAfter = (v: Value, by: Value) => boolean;

interface Fusion<K extends OpName> {
  readonly about: string;
  readonly on: K;
  /** The values that v's launch takes in; empty where the fusion does not apply. */
  readonly absorbs: (v: ValueOf<K>, only: Only, readAfter: ReadAfter) => readonly Value[];
}
const fusion = <K extends OpName>(f: Fusion<K>): Fusion<OpName> => f as unknown as Fusion<OpName>;

const narrows = (x: Value): x is ValueOf<'slice'> => x.op === 'slice' && (x.attributes.heads ?? 1) === 1;

const fusions: readonly Fusion<OpName>[] = [
  fusion({
    about: 'gate and up of a SwiGLU are contracted beside each other: neither is written',
    on: 'swiglu',
    absorbs(v, only) {
      const { gate, up } = v.inputs;
      if (gate.op !== 'linear' || up.op !== 'linear' || gate.inputs.x !== up.inputs.x || gate.inputs.bias || up.inputs.bias) return [];
      return only(gate, v) && only(up, v) ? [gate, up] : [];
    },
  }),
  fusion({
    about: 'sums end the last linear that they contain: the residual is added where the product is at hand',
    on: 'add',
    absorbs(v, only) {
      const inner: Value[] = [];
      const terms = (sum: ValueOf<'add'>): readonly Value[] =>
        [sum.inputs.a, sum.inputs.b].flatMap(o => {
          if (o.op !== 'add' || !only(o, sum)) return [o];
          inner.push(o);
          return terms(o);
        });
      const all = terms(v);
      const readers = [v, ...inner] as readonly Value[];
      const linear = all.findLast(t => t.op === 'linear' && all.filter(o => o === t).length === 1 && only(t, ...readers));
      return linear && all.length <= 3 ? [...inner, linear] : [];
    },
  }),
  fusion({
    about: 'scores, choice and weights of a router are one row of one block',
    on: 'expert_weights',
    absorbs(v, only, readAfter) {
      const { scores, indices } = v.inputs;
      if (scores.op !== 'router_scores' || indices.op !== 'choose_experts' || indices.inputs.scores !== scores) return [];
      return only(scores, v, indices) && readAfter(indices, v) ? [scores, indices] : [];
    },
  }),
  fusion({
    about: "absorbed latent attention's query is put together in place",
    on: 'concat',
    absorbs(v, only) {
      const { a, b } = v.inputs;
      if (a.op !== 'grouped_linear' || !a.attributes.transposed || a.attributes.from !== 0 || b.op !== 'slice') return [];
      const nope = a.inputs.x;
      const { heads } = v.attributes;
      if (nope.op !== 'slice' || nope.inputs.x !== b.inputs.x || nope.attributes.from !== 0 || b.attributes.from !== nope.attributes.size)
        return [];
      if (![nope.attributes.heads ?? 1, b.attributes.heads ?? 1, a.attributes.groups].every(n => n === heads)) return [];
      const head = nope.attributes.size + b.attributes.size;
      if (head * heads !== nope.inputs.x.type.shape.at(-1)) return [];
      return only(a, v) && only(b, v) && only(nope, a) ? [nope, a, b] : [];
    },
  }),
  fusion({
    about: 'a norm reads its columns where they stand',
    on: 'rms_norm',
    absorbs: (v, only) => {
      const { x } = v.inputs;
      return narrows(x) && only(x, v) && x.attributes.size === v.attributes.width && x.attributes.size <= 1024 ? [x] : [];
    },
  }),
  fusion({
    about: 'rope reads its columns where they stand',
    on: 'rope',
    absorbs: (v, only) => (narrows(v.inputs.x) && only(v.inputs.x, v) && v.attributes.heads === 1 ? [v.inputs.x] : []),
  }),
  fusion({
    about: 'a row of two parts meets its state part by part',
    on: 'append',
    absorbs: (v, only) =>
      v.inputs.rows.op === 'concat' && v.inputs.rows.attributes.heads === 1 && only(v.inputs.rows, v) ? [v.inputs.rows] : [],
  }),
];

/**
 * All fusions of a graph, users before what they read, so that the longest sums win. Values named in `keep` stay on their own; absorbed
 * indices are still written, by the launch that chooses them.
 */
export function fuse(graph: Graph, keep: readonly string[] | 'all' = []): Fused {
  const readers = new Map<Value, Set<Value>>();
  for (const v of graph.values) for (const [, i] of inputsOf(v)) readers.set(i, (readers.get(i) ?? new Set()).add(v));
  const held = new Set<Value>([...Object.values(graph.outputs), ...graph.values.filter(v => keep === 'all' || keep.includes(v.name))]);
  const only: Only = (v, ...by) => !held.has(v) && [...(readers.get(v) ?? [])].every(r => by.includes(r));
  const place = new Map(graph.values.map((v, i) => [v, i]));
  const at = (v: Value): number => place.get(v) as number;
  const readAfter: ReadAfter = (v, by) => [...(readers.get(v) ?? [])].every(r => at(r) >= at(by));
  const fused = new Map<Value, Value>();
  for (const v of [...graph.values].reverse()) {
    if (fused.has(v)) continue;
    for (const f of fusions) if (f.on === v.op) for (const absorbed of f.absorbs(v as never, only, readAfter)) fused.set(absorbed, v);
  }
  return fused;
}
