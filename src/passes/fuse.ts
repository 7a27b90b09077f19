// Which values are computed inside another value's launch instead of one of their own. One row a fusion; every one is composition of what the
// separate kernels do, and the separate ones stay, for values that something else reads or that are to be kept.
import { type Graph, inputsOf, type Limits, sizeOf, type Value, type ValueOf } from '../../ir/graph.js';
import type { OpName } from '../../ir/ops.js';
import { mostEntries, mostPositions, turnTile } from '../kernels/epilogue.js';
import { type Chain, chainOf, mostWidth, narrows, type Projection, partsOf, projectionOf } from './fuse-chain.js';

/** From an absorbed value to the one whose launch computes it. */
export type Fused = ReadonlyMap<Value, Value>;
interface Asked {
  /** True where nothing but the given values reads it, it is no output and it is not to be kept. */
  only(v: Value, ...readers: readonly Value[]): boolean;
  /** True where every other reader of a value stands after the given one; it is written by that one's launch. */
  readAfter(v: Value, by: Value, ...besides: readonly Value[]): boolean;
  readonly limits: Limits;
}

interface Fusion<K extends OpName> {
  readonly name: string;
  readonly about: string;
  readonly on: readonly K[];
  /** The values that v's launch takes in; empty where the fusion does not apply. */
  readonly absorbs: (v: { readonly [P in K]: ValueOf<P> }[K], a: Asked) => readonly Value[];
}
const fusion = <K extends OpName, N extends string>(f: Fusion<K> & { readonly name: N }): Fusion<OpName> & { readonly name: N } =>
  f as unknown as Fusion<OpName> & { readonly name: N };

/** The sums inside a sum of at most three terms, and the last linear among these. */
function endedSum(v: ValueOf<'add'>, only: Asked['only']): readonly Value[] {
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
}
/** Whether a product's block can hold whole turns. */
const turns = ({ attributes: r, type }: ValueOf<'rope'>, limits: Limits): boolean =>
  r.stride === 1 &&
  limits.context <= mostPositions &&
  turnTile({ width: (type.shape.at(-1) as number) / r.heads, offset: r.offset, dims: r.table.dims, layout: r.layout }, 32) !== null;
/** The rows of a product that are picked from others of the call. */
const picks = ({ inputs: { x } }: ValueOf<'linear'>, by: Value, only: Asked['only']): readonly Value[] =>
  x.op === 'gather' && x.inputs.table.op !== 'weight' && x.type.storage.element === 'f32' && only(x, by) ? [x] : [];

/** Products that write their own part of every entry of a state; null where one of the parts is none, or entries cannot be numbered. */
function cachedProjections(v: ValueOf<'append'>, { only, limits }: Asked): readonly Projection[] | null {
  const [sequences, capacity] = v.type.shape.slice(0, 2).map(d => sizeOf(d, limits)) as [number, number];
  if (v.attributes.every !== 1 || sequences * capacity > mostEntries || limits.context > mostPositions) return null;
  const found = partsOf(v.inputs.rows, v, only).map(p => projectionOf(p, p === v.inputs.rows ? v : v.inputs.rows, only));
  const fits = (p: Projection | null): p is Projection =>
    p !== null && (p.turn ? turns(p.turn, limits) : (p.linear.type.shape.at(-1) as number) % 8 === 0);
  return found.every(fits) ? found : null;
}
const held = (c: Chain): boolean => c.width <= mostWidth && c.heads * c.width <= 4 * mostWidth;

const fusions = [
  fusion({
    name: 'gate-up',
    about: 'gate and up of a SwiGLU are contracted beside each other: neither is written',
    on: ['swiglu'],
    absorbs(v, { only }) {
      const { gate, up } = v.inputs;
      if (gate.op !== 'linear' || up.op !== 'linear' || gate.inputs.x !== up.inputs.x || gate.inputs.bias || up.inputs.bias) return [];
      return only(gate, v) && only(up, v) ? [gate, up] : [];
    },
  }),
  fusion({
    name: 'sum',
    about: 'sums end the last linear that they contain: the residual is added where the product is at hand',
    on: ['add'],
    absorbs: (v, { only }) => endedSum(v, only),
  }),
  fusion({
    name: 'route',
    about: 'scores, choice (or look-up) and weights of a router are one row of one block',
    on: ['expert_weights'],
    absorbs(v, { only, readAfter }) {
      const { scores, indices } = v.inputs;
      if (scores.op !== 'router_scores') return [];
      if (indices.op === 'choose_experts' && indices.inputs.scores === scores)
        return only(scores, v, indices) && readAfter(indices, v) ? [scores, indices] : [];
      if (!only(scores, v)) return [];
      const looked = indices.op === 'gather' && indices.inputs.table.op === 'weight' && indices.inputs.ids.op === 'input';
      return looked && readAfter(indices, v) ? [scores, indices] : [scores];
    },
  }),
  fusion({
    name: 'query',
    about: "absorbed latent attention's query is put together in place",
    on: ['concat'],
    absorbs(v, { only }) {
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
    name: 'columns',
    about: 'a norm or a turn reads its columns where they stand',
    on: ['rms_norm', 'rope'],
    absorbs(v, { only }) {
      const { x } = v.inputs;
      if (!narrows(x) || !only(x, v)) return [];
      if (v.op === 'rope') return v.attributes.heads === 1 ? [x] : [];
      return x.attributes.size === v.attributes.width && x.attributes.size <= mostWidth ? [x] : [];
    },
  }),
  fusion({
    name: 'stream-norm',
    about: 'streams are weighed, summed and normed on the way into a sublayer; the split of the mixes is written for the way out',
    on: ['rms_norm'],
    absorbs(v, { only, readAfter }) {
      const { x } = v.inputs;
      if (x.op !== 'hc_pre' || !only(x, v) || v.attributes.width !== x.type.shape.at(-1)) return [];
      const { weights } = x.inputs;
      if (weights.op === 'hc_split' && readAfter(weights, v, x)) return [weights, x];
      return weights.op === 'hc_gate' && only(weights, x) ? [weights, x] : [x];
    },
  }),
  fusion({
    name: 'sum-norm',
    about: 'a sum that ends no product is normed where it is made, and written too',
    on: ['rms_norm'],
    absorbs(v, { only, readAfter }) {
      const { x } = v.inputs;
      const whole = x.op === 'add' && v.attributes.width === x.type.shape.at(-1) && v.attributes.width <= 8 * mostWidth;
      return whole && endedSum(x, only).length === 0 && readAfter(x, v) ? [x] : [];
    },
  }),
  fusion({
    name: 'turn',
    about: 'rope ends the product, or the attention, that it turns',
    on: ['rope'],
    absorbs(v, { only, limits }) {
      const { x } = v.inputs;
      if (!only(x, v)) return [];
      if (x.op === 'linear') return turns(v, limits) ? [x] : [];
      return x.op === 'attention' && x.attributes.heads === v.attributes.heads ? [x] : [];
    },
  }),
  fusion({
    name: 'row',
    about: 'norm, turn, transform and rounding follow each other while the row is held',
    on: ['rms_norm', 'layer_norm', 'rope', 'hadamard', 'fake_quant'],
    absorbs(v, { only }) {
      const c = chainOf(v, only);
      return c.steps.length > 1 && c.width <= mostWidth ? c.absorbed : [];
    },
  }),
  fusion({
    name: 'beside',
    about: 'rows that come to stand beside each other are normed and turned in one block',
    on: ['concat'],
    absorbs(v, { only }) {
      if (v.attributes.heads !== 1) return [];
      const chains = partChains([v.inputs.a, v.inputs.b], v, only);
      return chains.every(held) ? chains.flatMap(c => c.absorbed) : [];
    },
  }),
  fusion({
    name: 'cache',
    about: 'an entry is written where its product ends, or where its rows have gone through their steps: norm, turn, rounding',
    on: ['append'],
    absorbs(v, a) {
      const { only } = a;
      const { rows } = v.inputs;
      const parts = partsOf(rows, v, only);
      const around = parts[0] === rows ? [] : [rows];
      const products = cachedProjections(v, a);
      if (products) return [...around, ...products.flatMap(p => p.absorbed)];
      const chains = partChains(parts, around[0] ?? v, only);
      return [...around, ...(chains.every(held) ? chains.flatMap(c => c.absorbed) : [])];
    },
  }),
  fusion({
    name: 'factor',
    about: 'a factor ends the product that it scales',
    on: ['scale'],
    absorbs: (v, { only }) => (v.inputs.x.op === 'linear' && only(v.inputs.x, v) ? [v.inputs.x] : []),
  }),
  fusion({
    name: 'picked',
    about: 'a product reads the rows that are asked for where they stand',
    on: ['linear'],
    absorbs: (v, { only }) => picks(v, v, only),
  }),
  fusion({
    name: 'best',
    about: 'the largest column of a product is found block by block: the head gives a token, and no logits',
    on: ['top_indices'],
    absorbs(v, { only }) {
      const { scores } = v.inputs;
      if (v.attributes.k !== 1 || scores.op !== 'linear' || scores.inputs.bias || !only(scores, v)) return [];
      return [scores, ...picks(scores, scores, only)];
    },
  }),
] as const;

/** Chains of the parts of a row that `by` puts together: those that are taken in whole. */
export function partChains(parts: readonly Value[], by: Value, takes: Asked['only']): readonly Chain[] {
  return parts.map(p => {
    const plain: Chain = { source: p, steps: [], heads: 1, width: p.type.shape.at(-1) as number, slice: null, gather: null, absorbed: [] };
    if (!takes(p, by)) return plain;
    const c = chainOf(p, takes);
    return c.steps.length === 0 ? plain : { ...c, absorbed: [p, ...c.absorbed] };
  });
}

/** Fusions by name, and `together`: launches that do not wait for each other are one (fuse-together.ts). */
export type FusionName = (typeof fusions)[number]['name'] | 'together';
export const fusionNames: readonly FusionName[] = [...fusions.map(f => f.name), 'together'];

/**
 * All fusions of a graph, users before what they read, so that the longest sums win. Values named in `keep` stay on their own; absorbed
 * indices are still written, by the launch that chooses them. Fusions named in `without` are left out; values in `alone` take in no others.
 */
export function fuse(
  graph: Graph,
  keep: readonly string[] | 'all' = [],
  without: readonly FusionName[] | 'all' = [],
  alone: ReadonlySet<Value> = new Set(),
): Fused {
  const readers = new Map<Value, Set<Value>>();
  for (const v of graph.values) for (const [, i] of inputsOf(v)) readers.set(i, (readers.get(i) ?? new Set()).add(v));
  const kept = new Set<Value>([...Object.values(graph.outputs), ...graph.values.filter(v => keep === 'all' || keep.includes(v.name))]);
  const place = new Map(graph.values.map((v, i) => [v, i]));
  const at = (v: Value): number => place.get(v) as number;
  const asked: Asked = {
    only: (v, ...by) => !kept.has(v) && [...(readers.get(v) ?? [])].every(r => by.includes(r)),
    readAfter: (v, by, ...besides) => [...(readers.get(v) ?? [])].every(r => at(r) >= at(by) || besides.includes(r)),
    limits: graph.limits,
  };
  const fused = new Map<Value, Value>();
  const list = fusions.filter(f => keep !== 'all' && without !== 'all' && !without.includes(f.name));
  for (const v of [...graph.values].reverse()) {
    if (fused.has(v) || alone.has(v)) continue;
    // the first that applies
    for (const f of list) {
      const absorbed = (f.on as readonly string[]).includes(v.op) ? f.absorbs(v as never, asked) : [];
      for (const x of absorbed) fused.set(x, v);
      if (absorbed.length > 0) break;
    }
  }
  return fused;
}
