// The parts of a graph that tensor-parallel ranks share. A region is what lies between values that every rank has whole: heads from the projection
// of the query to that of the output, a gated MLP, the experts of a layer, the tables of the vocabulary. It is dealt in units (heads, columns, rows):
// weights before its middle are cut by rows, the one after it by columns, and what comes out is a term of a sum over the ranks.
import { type Graph, inputsOf, type Value, type ValueOf } from '../../ir/graph.js';

/** `units` are the region's own; `kv` the key-value heads that several units share. */
type Unit = 'units' | 'kv';
export interface ValueCut {
  readonly unit: Unit;
  /** Columns a unit has in each segment. */
  readonly per: number;
  /** 2 where a row is keys of all heads, then values of all heads. */
  readonly segments: 1 | 2;
}
export interface WeightCut {
  readonly weight: ValueOf<'weight'>;
  /** The dimension that is cut. */
  readonly dim: number;
  readonly unit: Unit;
  /** Places along the dimension that a unit has. */
  readonly per: number;
}
export interface Region {
  /** The value it is found by. */
  readonly anchor: Value;
  readonly units: number;
  /** What a unit is, in the plural. */
  readonly noun: string;
  /** Key-value heads that the units share; 0 where they share none. */
  readonly kv: number;
  /** Cuts lie between groups of units. */
  readonly groups: readonly { readonly count: number; readonly noun: string }[];
  /** Values of which a rank has its units alone. */
  readonly values: ReadonlyMap<Value, ValueCut>;
  readonly weights: readonly WeightCut[];
  /** sum: each rank's `end` is a term; gather: each rank's is its columns. */
  readonly end: Value;
  readonly by: 'sum' | 'gather';
}

const width = (v: Value): number => v.type.shape.at(-1) as number;
const isWeight = (v: Value): v is ValueOf<'weight'> => v.op === 'weight';

/** Thrown inside this file alone: the reason why a region is none. */
class NotCut extends Error {}

class Walk {
  readonly values = new Map<Value, ValueCut>();
  readonly weights: WeightCut[] = [];
  readonly groups: { readonly count: number; readonly noun: string }[] = [];
  readonly #count: Readonly<Record<Unit, number>>;
  readonly #readers: ReadonlyMap<Value, readonly Value[]>;
  constructor(units: number, kv: number, readers: ReadonlyMap<Value, readonly Value[]>) {
    this.#count = { units, kv };
    this.#readers = readers;
  }
  #mark(v: Value, unit: Unit, segments: 1 | 2 = 1): void {
    this.values.set(v, { unit, per: width(v) / segments / this.#count[unit], segments });
  }
  cut(weight: Value, dim: number, unit: Unit = 'units'): void {
    if (!isWeight(weight)) throw new NotCut(`${weight.name} is no weight`);
    this.weights.push({ weight, dim, unit, per: (weight.type.shape[dim] as number) / this.#count[unit] });
  }
  #headed(v: Value, heads: number, unit: Unit): void {
    if (heads % this.#count[unit] !== 0) throw new NotCut(`${v.name} has ${heads} parts where there are ${this.#count[unit]}`);
  }
  /** From a value of which each rank has its units, back to the projections that make it. */
  back(v: Value, unit: Unit = 'units'): void {
    if (this.values.has(v)) return;
    this.#mark(v, unit);
    for (const x of this.#before(v, unit)) this.back(x, unit);
  }
  /** The inputs of which a rank needs its units alone; what else v needs is cut. */
  #before(v: Value, unit: Unit): readonly Value[] {
    switch (v.op) {
      case 'linear':
        this.cut(v.inputs.weight, 0, unit);
        if (v.inputs.bias) this.cut(v.inputs.bias, 0, unit);
        return [];
      case 'grouped_linear':
        this.#headed(v, v.attributes.groups, unit);
        this.cut(v.inputs.weight, 0, unit);
        return [v.inputs.x];
      case 'rope':
      case 'fake_quant':
        this.#headed(v, v.attributes.heads, unit);
        return [v.inputs.x];
      case 'slice':
        this.#headed(v, v.attributes.heads ?? 1, unit);
        return [v.inputs.x];
      case 'rms_norm':
      case 'hadamard':
        if ((width(v) / this.#count[unit]) % v.attributes.width !== 0) throw new NotCut(`${v.name} reaches over several parts`);
        return [v.inputs.x];
      case 'scale':
        return [v.inputs.x];
      case 'concat': {
        const { a, b } = v.inputs;
        if (v.attributes.heads === 1 && this.#count[unit] > 1 && width(a) === width(b)) this.#mark(v, unit, 2);
        else this.#headed(v, v.attributes.heads, unit);
        return [a, b];
      }
      default:
        throw new NotCut(`${v.name} is not made by a projection`);
    }
  }
  /** A cache of keys of all heads, then values of all heads. */
  cache(v: Value): void {
    this.#mark(v, 'kv', 2);
    if (v.op === 'state') return;
    if (v.op !== 'append') throw new NotCut(`${v.name} is no cache`);
    this.cache(v.inputs.state);
    this.back(v.inputs.rows, 'kv');
    if (this.values.get(v.inputs.rows)?.segments !== 2) throw new NotCut(`${v.name} does not keep keys beside values`);
  }
  /** From a value of which each rank has its units, on to the projection whose result is a sum over all of them. */
  forward(v: Value): Value {
    this.#mark(v, 'units');
    const [next, ...more] = this.#readers.get(v) ?? [];
    if (next === undefined || more.length > 0) throw new NotCut(`${v.name} is read in ${more.length + (next ? 1 : 0)} places`);
    const n = this.#count.units;
    switch (next.op) {
      case 'linear':
        if (next.inputs.bias || next.inputs.x !== v) throw new NotCut(`${next.name} adds a bias`);
        this.cut(next.inputs.weight, 1);
        return next;
      case 'grouped_linear': {
        const { groups } = next.attributes;
        if (n % groups !== 0 && groups % n !== 0) throw new NotCut(`${next.name} has ${groups} groups where there are ${n} parts`);
        if (groups < n) this.groups.push({ count: groups, noun: 'groups of the output projection' });
        this.cut(next.inputs.weight, 0);
        return this.forward(next);
      }
      case 'rope':
      case 'fake_quant':
        if (next.attributes.heads % n !== 0) throw new NotCut(`${next.name} has ${next.attributes.heads} parts where there are ${n}`);
        return this.forward(next);
      case 'slice':
        if ((next.attributes.heads ?? 1) % n !== 0)
          throw new NotCut(`${next.name} has ${next.attributes.heads ?? 1} parts where there are ${n}`);
        return this.forward(next);
      case 'scale':
        return this.forward(next);
      default:
        throw new NotCut(`${next.name} needs all of ${v.name}`);
    }
  }
  /** Nobody outside reads what a rank has its units of alone. */
  closed(end: Value, outputs: ReadonlySet<Value>): void {
    for (const v of this.values.keys()) {
      if (v === end) continue;
      const other = (this.#readers.get(v) ?? []).find(r => r !== end && !this.values.has(r));
      if (other) throw new NotCut(`${other.name} reads all of ${v.name}`);
      if (outputs.has(v)) throw new NotCut(`${v.name} is an output`);
    }
  }
}

export const readersOf = (graph: Graph): ReadonlyMap<Value, readonly Value[]> => {
  const readers = new Map<Value, Value[]>();
  for (const v of graph.values) for (const i of new Set(inputsOf(v).map(([, i]) => i))) readers.set(i, [...(readers.get(i) ?? []), v]);
  return readers;
};

interface Start {
  readonly units: number;
  readonly noun: string;
  readonly kv: number;
  readonly by: 'sum' | 'gather';
  /** Walks from the anchor and gives the end. */
  readonly walk: (w: Walk) => Value;
}
function startOf(v: Value, outputs: ReadonlySet<Value>, cutExperts: boolean): Start | null {
  switch (v.op) {
    case 'mla': {
      const { q, kv_b } = v.inputs;
      const walk = (w: Walk): Value => {
        w.back(q);
        w.cut(kv_b, 0);
        return w.forward(v);
      };
      return { units: v.attributes.heads, noun: 'heads', kv: 0, by: 'sum', walk };
    }
    case 'attention': {
      const { q, state, sink, compressed } = v.inputs;
      const { heads, kvHeads, width: each, keyOffset, valueOffset, valueWidth } = v.attributes;
      const walk = (w: Walk): Value => {
        w.back(q);
        if (sink) w.cut(sink, 0);
        if (kvHeads > 1) {
          if (keyOffset !== 0 || valueOffset !== kvHeads * each || valueWidth !== each || compressed)
            throw new NotCut(`the cache ${state.name} is laid out otherwise`);
          w.cache(state);
        }
        return w.forward(v);
      };
      return { units: heads, noun: 'heads', kv: kvHeads > 1 ? kvHeads : 0, by: 'sum', walk };
    }
    case 'swiglu': {
      const walk = (w: Walk): Value => {
        w.back(v.inputs.gate);
        w.back(v.inputs.up);
        return w.forward(v);
      };
      return { units: width(v), noun: 'columns', kv: 0, by: 'sum', walk };
    }
    case 'experts': {
      if (!cutExperts) return null;
      const walk = (w: Walk): Value => {
        w.cut(v.inputs.gate, 1);
        w.cut(v.inputs.up, 1);
        w.cut(v.inputs.down, 2);
        return v;
      };
      return { units: width(v.inputs.down), noun: 'columns of an expert', kv: 0, by: 'sum', walk };
    }
    case 'gather': {
      const { table, ids } = v.inputs;
      if (!isWeight(table) || ids.op !== 'input' || v.type.storage.element === 'i32') return null;
      const walk = (w: Walk): Value => {
        w.cut(table, 0);
        return v;
      };
      return { units: table.type.shape[0] as number, noun: 'rows of the vocabulary', kv: 0, by: 'sum', walk };
    }
    case 'linear': {
      if (!outputs.has(v) || v.inputs.bias) return null;
      const walk = (w: Walk): Value => {
        w.back(v);
        return v;
      };
      return { units: width(v), noun: 'rows of the vocabulary', kv: 0, by: 'gather', walk };
    }
    default:
      return null;
  }
}

/** The regions of a graph in its order, and what looks like one and cannot be cut. */
export function regionsOf(
  graph: Graph,
  cutExperts: boolean,
): { readonly regions: readonly Region[]; readonly whole: readonly { readonly anchor: Value; readonly why: string }[] } {
  const readers = readersOf(graph);
  const outputs = new Set(Object.values(graph.outputs));
  const regions: Region[] = [];
  const whole: { readonly anchor: Value; readonly why: string }[] = [];
  for (const anchor of graph.values) {
    const start = startOf(anchor, outputs, cutExperts);
    if (start === null) continue;
    const w = new Walk(start.units, start.kv, readers);
    try {
      const end = start.walk(w);
      w.closed(end, outputs);
      const { units, noun, kv, by } = start;
      regions.push({ anchor, units, noun, kv, groups: w.groups, values: w.values, weights: w.weights, end, by });
    } catch (e) {
      if (!(e instanceof NotCut)) throw e;
      whole.push({ anchor, why: e.message });
    }
  }
  return { regions, whole };
}
