// One graph to a graph for each rank. Tensor-parallel ranks share attention by heads, MLPs by columns, tables by rows of the vocabulary, and sum
// what comes out; experts are dealt whole, or cut where ep is 1; layers are dealt to stages that send their last value on. Weights of a rank say
// which part of which tensor they are: nothing is copied.
//
// Rank (stage * dp + d) * tp + t is rank t of replica d in its stage. Ranks of a replica are brought the same rows, in every stage; other replicas
// have rows of their own. A value of a rank is whole (the same on each of the replica's ranks in the stage), the rank's units of it, or a term of
// a sum over these ranks, which is added up where all of it is first read. Replicated: norms, latents, routers, the index of sparse attention (its
// choice must be the same on every rank), compressors, hyper-connections.
import type { Graph, Origin, Slice, Type, Value, ValueOf } from '../../ir/graph.js';
import { inputsOf } from '../../ir/graph.js';
import { type OpName, type Ops, typeOf } from '../../ir/ops.js';
import { type Problem, Refusal } from '../../ir/problem.js';
import { type Cuts, evenCuts, nearCuts, type Range } from './shard-cuts.js';
import * as problems from './shard-problems.js';
import { type Region, readersOf, regionsOf } from './shard-regions.js';
import { decoderLayers, equalStages, stagesOf } from './shard-stages.js';

/** A way to spread a graph: tp * dp * pp ranks; ep is 1 or tp * dp. */
export interface Parallel {
  readonly tp: number;
  readonly dp: number;
  readonly pp: number;
  readonly ep: number;
}
export interface ShardOptions {
  /** Shares may differ where equal ones are not to be had, and what cannot be cut stays whole on every rank. Otherwise both are refused. */
  readonly uneven?: boolean;
  /**
   * How rows meet the experts of other replicas (dp > 1): `send` brings each row to the ranks that hold an expert of it and back (all-to-all-v);
   * `gather` brings all rows to all ranks and scatters the sums.
   */
  readonly dispatch?: 'send' | 'gather';
  /** Layers of each stage; as equal as may be where it is not said. */
  readonly stages?: readonly number[];
}
export interface Sharded {
  /** Rank 0 first. */
  readonly ranks: readonly Graph[];
  /** The ranks that exchange: those that share matrices, those that share experts, and the stages of each pipeline. Groups of one are left out. */
  readonly groups: {
    readonly tensor: readonly (readonly number[])[];
    readonly expert: readonly (readonly number[])[];
    readonly pipeline: readonly (readonly number[])[];
  };
  /** What stayed whole on every rank of a group, and why; empty unless parts may be uneven. */
  readonly whole: readonly { readonly name: string; readonly why: string }[];
}

/** `tp=2,dp=1,pp=1,ep=2`; what is not said is 1, and dp follows from ep. A Refusal where it cannot be. */
export function parseParallel(text: string): Parallel {
  const said = new Map<string, number>();
  for (const part of text.split(',')) {
    const m = /^(tp|dp|pp|ep)=(\d{1,6})$/.exec(part.trim());
    if (!m || said.has(m[1] as string)) throw new Refusal([problems.parallelWrong(text, `${JSON.stringify(part)} is not understood`)]);
    said.set(m[1] as string, Number(m[2]));
  }
  const [tp, pp, ep] = [said.get('tp') ?? 1, said.get('pp') ?? 1, said.get('ep') ?? 1];
  const dp = said.get('dp') ?? (tp > 0 && ep % tp === 0 ? Math.max(1, ep / tp) : 1);
  return { tp, dp, pp, ep };
}

/** Where things are dealt, the same for every rank. */
interface Plan {
  readonly graph: Graph;
  readonly parallel: Parallel;
  readonly dispatch: 'send' | 'gather';
  readonly stage: ReadonlyMap<Value, number>;
  readonly readers: ReadonlyMap<Value, readonly Value[]>;
  /** The region of a value that a rank has its units of alone, and of a region's end. */
  readonly cut: ReadonlyMap<Value, { readonly region: Region; readonly cuts: Cuts }>;
  /** Rank j of an expert group holds experts [bounds[j], bounds[j + 1]). */
  readonly bounds: ReadonlyMap<Value, readonly number[]>;
}

/** The graphs of all ranks. Throws a Refusal with everything that cannot be dealt. */
export function shard(graph: Graph, parallel: Parallel, options: ShardOptions = {}): Sharded {
  const { tp, dp, pp, ep } = parallel;
  const text = `tp=${tp},dp=${dp},pp=${pp},ep=${ep}`;
  if (![tp, dp, pp, ep].every(n => Number.isSafeInteger(n) && n >= 1))
    throw new Refusal([problems.parallelWrong(text, 'each number is 1 or more')]);
  if (ep !== 1 && ep !== tp * dp) throw new Refusal([problems.parallelWrong(text, `ep is neither 1 nor ${tp * dp}`)]);
  const found: Problem[] = [];
  const whole: { readonly name: string; readonly why: string }[] = [];
  const layers = decoderLayers(graph);
  const counts = options.stages ?? equalStages(layers, pp);
  if (options.stages && (counts.length !== pp || counts.reduce((a, b) => a + b, 0) !== layers))
    found.push(problems.stagesWrong(pp, layers, `${counts.join(' + ')} is not ${layers} in ${pp}`));
  else if (!counts.every(n => Number.isSafeInteger(n) && n >= 1)) found.push(problems.stagesWrong(pp, layers, 'a stage would have none'));
  const plan: Plan = {
    graph,
    parallel,
    dispatch: options.dispatch ?? 'send',
    stage: stagesOf(graph, counts),
    readers: readersOf(graph),
    cut: tp === 1 ? new Map() : dealUnits(graph, parallel, options.uneven ?? false, found, whole),
    bounds: ep === 1 ? new Map() : dealExperts(graph, ep, options.uneven ?? false, found),
  };
  if (found.length > 0) throw new Refusal(found);
  const upTo = (n: number): readonly number[] => Array.from({ length: n }, (_, i) => i);
  const several = (groups: readonly (readonly number[])[]): readonly (readonly number[])[] => groups.filter(g => g.length > 1);
  return {
    ranks: upTo(tp * dp * pp).map(r => new Rank(plan, r).build()),
    groups: {
      tensor: several(upTo(dp * pp).map(g => upTo(tp).map(t => g * tp + t))),
      expert: several(ep === 1 ? [] : upTo(pp).map(s => upTo(tp * dp).map(r => s * tp * dp + r))),
      pipeline: several(upTo(tp * dp).map(r => upTo(pp).map(s => s * tp * dp + r))),
    },
    whole,
  };
}

/** Problems of many layers are said once, of the first. */
class Alike {
  readonly #list = new Map<string, { readonly say: (more: number) => Problem; more: number }>();
  add(name: string, rest: string, say: (more: number) => Problem): void {
    const key = `${name.replace(/(^|\.)layers\.\d+\./, '$1layers.*.')} ${rest}`;
    const known = this.#list.get(key);
    if (known) known.more++;
    else this.#list.set(key, { say, more: 0 });
  }
  all(): readonly Problem[] {
    return [...this.#list.values()].map(({ say, more }) => say(more));
  }
}

function dealUnits(
  graph: Graph,
  { tp, ep }: Parallel,
  uneven: boolean,
  found: Problem[],
  whole: { readonly name: string; readonly why: string }[],
): Plan['cut'] {
  const cut = new Map<Value, { readonly region: Region; readonly cuts: Cuts }>();
  const alike = new Alike();
  const { regions, whole: none } = regionsOf(graph, ep === 1);
  for (const { anchor, why } of none) {
    if (uneven) whole.push({ name: anchor.name, why });
    else alike.add(anchor.name, why.replace(/layers\.\d+\./g, ''), more => problems.notCut(anchor.name, why, tp, more));
  }
  for (const region of regions) {
    const even = evenCuts(region, tp);
    const cuts = 'units' in even ? even : uneven ? nearCuts(region, tp) : null;
    if (cuts) {
      for (const v of region.values.keys()) cut.set(v, { region, cuts });
      cut.set(region.end, { region, cuts });
    } else if ('kind' in even) {
      const o = even;
      const { kind, name, ...rest } = o;
      const say = (more: number): Problem =>
        o.kind === 'uneven'
          ? problems.notEven(o.name, o.count, o.noun, tp, more)
          : problems.blockCut(o.name, o.axis, o.at, o.block, o.storage, tp, more);
      if (uneven) whole.push({ name: region.anchor.name, why: say(0).what });
      else alike.add(name, JSON.stringify([kind, rest]), say);
    }
  }
  found.push(...alike.all());
  return cut;
}

function dealExperts(graph: Graph, ep: number, uneven: boolean, found: Problem[]): Plan['bounds'] {
  const bounds = new Map<Value, readonly number[]>();
  const alike = new Alike();
  for (const v of graph.values) {
    if (v.op !== 'experts') continue;
    const n = v.inputs.gate.type.shape[0] as number;
    if (n < ep || (n % ep !== 0 && !uneven)) alike.add(v.name, String(n), more => problems.expertsUneven(v.name, n, ep, more));
    bounds.set(
      v,
      Array.from({ length: ep + 1 }, (_, j) => Math.floor((j * n) / ep)),
    );
  }
  found.push(...alike.all());
  if (bounds.size === 0) found.push(problems.noExperts(graph.name, ep));
  return bounds;
}

/** whole: all of it; cut: the rank's units; term: of a sum over the ranks of the replica in the stage. */
interface Held {
  readonly value: Value;
  readonly is: 'whole' | 'cut' | 'term';
}

/** Makes the graph of one rank, in the order of the whole graph. */
class Rank {
  readonly #plan: Plan;
  readonly #index: number;
  readonly #stage: number;
  /** Its number among the ranks that share a replica, and the replica's among those of the stage. */
  readonly #t: number;
  readonly #d: number;
  readonly #values: Value[] = [];
  readonly #names = new Set<string>();
  readonly #held = new Map<Value, Held>();
  readonly #parts = new Map<string, Value>();
  readonly #sent: Value[] = [];

  constructor(plan: Plan, index: number) {
    const { tp, dp } = plan.parallel;
    this.#plan = plan;
    this.#index = index;
    this.#stage = Math.floor(index / (tp * dp));
    this.#d = Math.floor(index / tp) % dp;
    this.#t = index % tp;
  }

  build(): Graph {
    const { graph, stage, parallel } = this.#plan;
    const { tp, dp, pp } = parallel;
    const mine = (v: Value): boolean => stage.get(v) === this.#stage;
    for (const v of graph.values) if (v.op === 'input' && this.#readIn(v).has(this.#stage)) this.#here(v);
    for (const v of graph.values) {
      const from = stage.get(v);
      if (from !== undefined && from < this.#stage && this.#readIn(v).has(this.#stage)) this.#receive(v, from);
    }
    for (const v of graph.values) {
      if (!mine(v)) continue;
      this.#held.set(v, this.#make(v));
      for (let to = this.#stage + 1; to < pp; to++) if (this.#readIn(v).has(to)) this.#send(v, to);
    }
    const outputs: Record<string, Value> = {};
    for (const [name, v] of Object.entries(graph.outputs)) if (mine(v)) outputs[name] = this.#whole(v);
    for (const v of this.#sent) outputs[v.name] = v;
    return { name: graph.name, limits: graph.limits, rank: { index: this.#index, of: tp * dp * pp }, values: this.#values, outputs };
  }
  #readIn(v: Value): ReadonlySet<number> {
    return new Set((this.#plan.readers.get(v) ?? []).map(r => this.#plan.stage.get(r) as number));
  }

  /** A value in this rank's graph. */
  #put<K extends OpName>(op: K, name: string, inputs: Ops[K]['inputs'], attributes: Ops[K]['attributes'], of: Value, type?: Type): Value {
    const known = type ?? typeOf(op, inputs as Readonly<Record<string, Value>>, attributes);
    if (typeof known === 'string') throw new Error(`${op} ${name}: ${known}`);
    const role = name === of.name ? of.origin.role : name;
    const origin: Origin = { role, layer: of.origin.layer, parts: [], passes: [...of.origin.passes, 'shard'] };
    return this.#add({ op, name, type: known, inputs, attributes, origin } as unknown as Value);
  }
  #add(v: Value): Value {
    if (this.#names.has(v.name)) throw new Error(`two values are called ${v.name}`);
    this.#names.add(v.name);
    this.#values.push(v);
    return v;
  }
  #is(v: Value, value: Value, is: Held['is'] = 'whole'): void {
    this.#held.set(v, { value, is });
  }

  /** What stands for a value here, made first where it is an input or a weight. */
  #here(v: Value): Held {
    const known = this.#held.get(v);
    if (known) return known;
    if (v.op !== 'input' && v.op !== 'weight') throw new Error(`${v.name} is not in stage ${this.#stage}`);
    const value = v.op === 'weight' ? this.#part(v) : this.#add(v);
    this.#is(v, value);
    return { value, is: 'whole' };
  }
  /** All of a value: a sum is added up where it is first wanted. */
  #whole(v: Value): Value {
    const { value, is } = this.#here(v);
    if (is === 'whole') return value;
    if (is === 'cut') throw new Error(`${v.name} is cut where all of it is read`);
    const sum = this.#put('all_reduce', v.name, { x: value }, { group: this.#replica() }, v);
    this.#is(v, sum);
    return sum;
  }
  /** The ranks of this replica in this stage. */
  #replica(): readonly number[] {
    const { tp } = this.#plan.parallel;
    return Array.from({ length: tp }, (_, t) => this.#index - this.#t + t);
  }
  /** Rank of the same place in another stage. */
  #peer(stage: number): number {
    const { tp, dp } = this.#plan.parallel;
    return this.#index + (stage - this.#stage) * tp * dp;
  }
  #send(v: Value, to: number): void {
    const sent = this.#put('send', `${v.name}.to${to}`, { x: this.#whole(v) }, { to: this.#peer(to), channel: v.name }, v);
    this.#sent.push(sent);
  }
  #receive(v: Value, from: number): void {
    this.#is(v, this.#put('recv', v.name, {}, { from: this.#peer(from), channel: v.name }, v, v.type));
  }

  /** A weight, or places [from, to) of one of its dimensions. */
  #part(v: Value, dim = 0, range: Range | null = null): Value {
    const whole = v.type.shape as readonly number[];
    const [from, to] = range ?? [0, whole[dim] as number];
    const key = `${v.name} ${dim} ${from} ${to}`;
    const known = this.#parts.get(key);
    if (known) return known;
    const all = from === 0 && to === whole[dim];
    const name = this.#names.has(v.name) ? `${v.name}.part.${dim}_${from}_${to}` : v.name;
    if (v.origin.slice) throw new Error(`${v.name} is a part already`);
    const slice: Slice = { of: whole, from: whole.map((_, d) => (d === dim ? from : 0)) };
    const stacked = whole.length === 3 && dim === 0;
    const value = all
      ? this.#add(name === v.name ? v : ({ ...v, name } as Value))
      : this.#add({
          ...v,
          name,
          type: { ...v.type, shape: whole.map((n, d) => (d === dim ? to - from : n)) },
          origin: {
            ...v.origin,
            parts: stacked ? v.origin.parts.slice(from, to) : v.origin.parts,
            slice,
            passes: [...v.origin.passes, 'shard'],
          },
        } as Value);
    this.#parts.set(key, value);
    return value;
  }

  #make(v: Value): Held {
    const bounds = this.#plan.bounds.get(v);
    if (v.op === 'experts' && bounds) return this.#experts(v, bounds);
    const cut = this.#plan.cut.get(v);
    if (cut) return this.#dealt(v, cut.region, cut.cuts);
    if (v.op === 'add') {
      const [a, b] = [this.#here(v.inputs.a), this.#here(v.inputs.b)];
      // a sum of terms is a term: it is added up once
      if (a.is === 'term' && b.is === 'term')
        return { value: this.#put('add', `${v.name}.term`, { a: a.value, b: b.value }, {}, v), is: 'term' };
    }
    const inputs = inputsOf(v).map(([name, i]) => [name, i, this.#whole(i)] as const);
    const same = inputs.every(([, i, now]) => i === now);
    return {
      value: this.#add(same ? v : ({ ...v, inputs: Object.fromEntries(inputs.map(([n, , i]) => [n, i])) } as unknown as Value)),
      is: 'whole',
    };
  }

  /** A value of a region: the rank's units of it, or its term of the sum at the end. */
  #dealt(v: Value, region: Region, cuts: Cuts): Held {
    const own = region.values.get(v);
    const range = (unit: 'units' | 'kv'): Range => cuts[unit][this.#t] as Range;
    const weightsOf = new Map(region.weights.map(w => [w.weight as Value, w]));
    const take = (i: Value): Value => {
      const w = weightsOf.get(i);
      if (w === undefined) return region.values.has(i) ? this.#here(i).value : this.#whole(i);
      const [from, to] = range(w.unit);
      return this.#part(i, w.dim, [from * w.per, to * w.per]);
    };
    const inputs = Object.fromEntries(inputsOf(v).map(([name, i]) => [name, take(i)]));
    if (v === region.end && region.by === 'sum') {
      const name = `${v.name}.term`;
      if (v.op !== 'gather') return { value: this.#put(v.op, name, inputs as never, v.attributes as never, v), is: 'term' };
      const { table, ids } = inputs as { readonly table: Value; readonly ids: Value };
      const from = table.origin.slice?.from[0] ?? 0;
      return { value: this.#put('gather_part', name, { table, ids }, { from }, v), is: 'term' };
    }
    if (own === undefined) throw new Error(`${v.name} is in no region`);
    if (v === region.end) {
      const x = this.#put(v.op, `${v.name}.part`, inputs as never, v.attributes as never, v);
      const sizes = cuts.units.map(([a, b]) => (b - a) * own.per);
      return { value: this.#put('all_gather', v.name, { x }, { group: this.#replica(), along: 'columns', sizes }, v), is: 'whole' };
    }
    const [from, to] = range(own.unit);
    const type = v.op === 'state' ? { ...v.type, shape: [...v.type.shape.slice(0, 2), (to - from) * own.per * own.segments] } : undefined;
    const attributes = ownAttributes(v, region, to - from, own.unit === 'kv' ? region.kv : region.units, range('kv'), own.segments);
    return { value: this.#put(v.op, v.name, inputs as never, attributes as never, v, type), is: 'cut' };
  }

  /** Experts dealt whole: rows come to the ranks that hold their experts, and what these make of them comes back. */
  #experts(v: ValueOf<'experts'>, bounds: readonly number[]): Held {
    const { tp, dp } = this.#plan.parallel;
    const { tokens } = this.#plan.graph.limits;
    const n = v.name;
    const me = this.#d * tp + this.#t;
    const held: Range = [bounds[me] as number, bounds[me + 1] as number];
    const [x, indices, weights] = [this.#whole(v.inputs.x), this.#whole(v.inputs.indices), this.#whole(v.inputs.weights)];
    const [gate, up, down] = [v.inputs.gate, v.inputs.up, v.inputs.down].map(w => this.#part(w, 0, held)) as [Value, Value, Value];
    /** What this rank's experts make of rows. */
    const own = (name: string, x: Value, indices: Value, weights: Value): Value => {
      const asked = this.#put('own_experts', `${n}.own`, { indices }, { from: held[0], size: held[1] - held[0] }, v);
      return this.#put('experts', name, { x, indices: asked, weights, gate, up, down }, v.attributes, v);
    };
    const term = `${n}.term`;
    if (dp === 1) return { value: own(term, x, indices, weights), is: 'term' };
    const result = tp === 1 ? n : term;
    const is = tp === 1 ? 'whole' : 'term';
    const first = this.#index - me;
    if (this.#plan.dispatch === 'gather') {
      const group = Array.from({ length: dp }, (_, d) => first + d * tp + this.#t);
      const all = (name: string, x: Value): Value =>
        this.#put('all_gather', `${n}.${name}`, { x }, { group, along: 'rows', sizes: group.map(() => tokens) }, v);
      const y = own(`${n}.made`, all('all_rows', x), all('all_indices', indices), all('all_weights', weights));
      return { value: this.#put('reduce_scatter', result, { x: y }, { group, rows: tokens }, v), is };
    }
    const group = Array.from({ length: tp * dp }, (_, r) => first + r);
    const routes = { bounds, share: [this.#t, tp] } as const;
    const rows = this.#put('route_rows', `${n}.rows`, { indices }, routes, v);
    const counts = this.#put('route_counts', `${n}.counts`, { indices }, routes, v);
    const came = this.#put('all_to_all_v', `${n}.came`, { x: counts }, { group, rows: group.length }, v);
    const most = group.length * Math.ceil(tokens / tp);
    const bring = (name: string, x: Value): Value => {
      const taken = this.#put('take_rows', `${n}.sent_${name}`, { x, rows }, {}, v);
      return this.#put('all_to_all_v', `${n}.came_${name}`, { x: taken, counts }, { group, rows: most }, v);
    };
    const y = own(`${n}.made`, bring('rows', x), bring('indices', indices), bring('weights', weights));
    const each = Math.min(indices.type.shape.at(-1) as number, group.length);
    const back = this.#put('all_to_all_v', `${n}.back`, { x: y, counts: came }, { group, rows: tokens * each }, v);
    return { value: this.#put('add_rows', result, { y: back, rows }, {}, v), is };
  }
}

/** Attributes of an op on `n` of `count` units. */
function ownAttributes(v: Value, region: Region, n: number, count: number, [kvFrom, kvTo]: Range, segments: 1 | 2): object {
  switch (v.op) {
    case 'rope':
    case 'fake_quant':
      return { ...v.attributes, heads: (v.attributes.heads * n) / count };
    case 'slice':
      return { ...v.attributes, heads: ((v.attributes.heads ?? 1) * n) / count };
    case 'concat':
      return segments === 2 ? v.attributes : { heads: (v.attributes.heads * n) / count };
    case 'grouped_linear':
      return { ...v.attributes, groups: (v.attributes.groups * n) / count };
    case 'mla':
      return { ...v.attributes, heads: n };
    case 'attention': {
      if (region.kv === 0) return { ...v.attributes, heads: n };
      const kvHeads = kvTo - kvFrom;
      return { ...v.attributes, heads: n, kvHeads, valueOffset: kvHeads * v.attributes.width };
    }
    default:
      return v.attributes;
  }
}
