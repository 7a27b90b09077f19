// The living definition: a graph run op by op in float32, nothing fused, nothing quantised but what the graph says. Slow and plain; programs are
// checked against it. Caches stay between steps; a step brings rows of any sequences.
import { type Graph, inputsOf, needed, type Value, type ValueOf } from '../../ir/graph.js';
import { type ExchangeOp, isExchange, type OpName } from '../../ir/ops.js';
import { append, attention, compress, indexScores, mla } from './attention.js';
import { backend, type Matrix, tf } from './backend.js';
import * as hc from './hyper-connections.js';
import type { Inputs } from './inputs.js';
import { fakeQuant, hadamard, rope } from './positions.js';
import { chooseExperts, experts, expertWeights, largest, routerScores, swiglu } from './routing.js';
import { addRows, gatherPart, routes, takeRows } from './rows.js';
import { type Cache, cache, type Held, made, numbersOf, type Rows, real, row, type Weight, weight, whole } from './values.js';

export interface Step {
  readonly ids: readonly number[];
  readonly positions: readonly number[];
  readonly sequences: readonly number[];
  /** The token after each row, where MTP outputs are asked for. */
  readonly nextIds?: readonly number[];
  /** Rows whose logits are wanted; all where it is not said. */
  readonly wanted?: readonly number[];
}
export interface Result {
  readonly shape: readonly [rows: number, columns: number];
  readonly data: Float32Array | Int32Array;
}
export interface Reference {
  /** Run a step and give the named values (outputs, or any value's name). */
  step(step: Step, names: readonly string[]): ReadonlyMap<string, Result>;
  /** Forget all caches. */
  reset(): void;
  /** Free memory. */
  dispose(): void;
}

type Get = (v: Value) => Held;
interface Context {
  readonly rows: Rows;
  readonly get: Get;
  readonly cacheOf: (v: ValueOf<'state'>) => Cache;
  readonly weightOf: (v: ValueOf<'weight'>) => Weight;
}
type Rule<K extends OpName> = (v: ValueOf<K>, c: Context) => Held;

const maybe = <T>(v: Value | undefined, get: Get, as: (h: Held) => T): T | null => (v === undefined ? null : as(get(v)));
/** Columns of each of `heads` equal parts of a row, as [rows * heads, columns]. */
const parts = (x: Matrix, heads: number): Matrix => tf.reshape(x, [x.shape[0] * heads, x.shape[1] / heads]) as Matrix;

/** One line an op; a missing one does not compile. Ops in which ranks meet are in exchange.ts. */
const rules: { readonly [K in Exclude<OpName, ExchangeOp>]: Rule<K> } = {
  input: (v, { rows }) => {
    const all = { ids: rows.ids, positions: rows.positions, sequences: rows.sequences, wanted: rows.wanted, next_ids: rows.nextIds };
    const data = all[v.attributes.which];
    if (data === null) throw new Error('next ids are asked for but were not brought');
    return { kind: 'whole', data, rows: data.length, columns: 1 };
  },
  weight: (v, { weightOf }) => weightOf(v),
  state: (v, { cacheOf }) => cacheOf(v),
  gather: ({ inputs }, { get }) => {
    const ids = whole(get(inputs.ids)).data;
    const table = get(inputs.table);
    if (table.kind === 'real') return made(tf.gather(table.matrix, tf.tensor1d(ids, 'int32')));
    const { numbers, shape } = weight(table);
    const columns = shape[1] as number;
    const pick = <T extends Float32Array | Int32Array>(from: T, out: T): T => {
      ids.forEach((id, i) => out.set(from.subarray(id * columns, (id + 1) * columns), i * columns));
      return out;
    };
    if (numbers instanceof Int32Array)
      return { kind: 'whole', data: pick(numbers, new Int32Array(ids.length * columns)), rows: ids.length, columns };
    return made(tf.tensor2d(pick(numbers, new Float32Array(ids.length * columns)), [ids.length, columns]));
  },
  slice: ({ inputs, attributes: a }, { get }) => {
    const x = real(get(inputs.x));
    const heads = a.heads ?? 1;
    return made(tf.reshape(tf.slice(parts(x, heads), [0, a.from], [x.shape[0] * heads, a.size]), [x.shape[0], heads * a.size]));
  },
  concat: ({ inputs, attributes: { heads } }, { get }) => {
    const [a, b] = [real(get(inputs.a)), real(get(inputs.b))];
    return made(tf.reshape(tf.concat([parts(a, heads), parts(b, heads)], 1), [a.shape[0], a.shape[1] + b.shape[1]]));
  },
  add: ({ inputs }, { get }) => made(tf.add(real(get(inputs.a)), real(get(inputs.b)))),
  scale: ({ inputs, attributes }, { get }) => made(tf.mul(real(get(inputs.x)), attributes.by)),
  append: ({ inputs, attributes }, { get, rows }) => {
    const into = cache(get(inputs.state));
    append(into, real(get(inputs.rows)), rows, attributes.every);
    return into;
  },
  rms_norm: ({ inputs, attributes: { eps, width } }, { get }) => {
    const x = real(get(inputs.x));
    const g = tf.reshape(x, [-1, width]);
    const normed = tf.mul(g, tf.rsqrt(tf.add(tf.mean(tf.square(g), 1, true), eps)));
    return made(tf.reshape(inputs.weight ? tf.mul(normed, row(get(inputs.weight))) : normed, x.shape));
  },
  layer_norm: ({ inputs, attributes: { eps } }, { get }) => {
    const x = real(get(inputs.x));
    const d = tf.sub(x, tf.mean(x, 1, true));
    return made(
      tf.add(tf.mul(tf.mul(d, tf.rsqrt(tf.add(tf.mean(tf.square(d), 1, true), eps))), row(get(inputs.weight))), row(get(inputs.bias))),
    );
  },
  rope: ({ inputs, attributes }, { get, rows }) => made(rope(attributes, real(get(inputs.x)), rows.positions)),
  hadamard: ({ inputs, attributes }, { get }) => made(hadamard(attributes.width, real(get(inputs.x)))),
  fake_quant: ({ inputs, attributes }, { get }) => made(fakeQuant(attributes, real(get(inputs.x)))),
  linear: ({ inputs }, { get }) => {
    const w = weight(get(inputs.weight));
    const y = tf.matMul(w.input(real(get(inputs.x))), w.transposed());
    return made(inputs.bias ? tf.add(y, row(get(inputs.bias))) : y);
  },
  grouped_linear: ({ inputs, attributes: a }, { get }) => {
    const held = weight(get(inputs.weight));
    const t = held.transposed(); // [columns, groups * stride]
    const given = real(get(inputs.x));
    const x = a.transposed ? given : (tf.reshape(held.input(parts(given, a.groups)), given.shape) as Matrix);
    const each = x.shape[1] / a.groups;
    const groups = Array.from({ length: a.groups }, (_, g) => {
      const w = tf.slice(t, [0, g * a.stride + a.from], [t.shape[0], a.size]);
      return tf.matMul(tf.slice(x, [0, g * each], [x.shape[0], each]), w, false, a.transposed);
    });
    return made(tf.concat(groups, 1));
  },
  swiglu: ({ inputs, attributes }, { get }) => made(swiglu(real(get(inputs.gate)), real(get(inputs.up)), attributes.limit)),
  mla: ({ inputs, attributes }, { get, rows }) =>
    made(
      mla(attributes, real(get(inputs.q)), cache(get(inputs.state)), weight(get(inputs.kv_b)), rows, maybe(inputs.selected, get, whole)),
    ),
  attention: ({ inputs, attributes }, { get, rows }) =>
    made(
      attention(
        attributes,
        real(get(inputs.q)),
        cache(get(inputs.state)),
        rows,
        maybe(inputs.compressed, get, cache),
        maybe(inputs.selected, get, whole),
        maybe(inputs.sink, get, weight),
      ),
    ),
  compress: ({ inputs, attributes }, { get, rows }) => made(compress(attributes, cache(get(inputs.state)), weight(get(inputs.ape)), rows)),
  index_scores: ({ inputs, attributes }, { get, rows }) =>
    made(indexScores(attributes, real(get(inputs.q)), real(get(inputs.weights)), cache(get(inputs.state)), rows)),
  top_indices: ({ inputs, attributes: { k } }, { get }) => {
    const scores = real(get(inputs.scores));
    const [rows, columns] = scores.shape;
    const data = numbersOf(scores);
    const out = new Int32Array(rows * k).fill(-1);
    for (let t = 0; t < rows; t++) {
      const line = data.subarray(t * columns, (t + 1) * columns);
      out.set(
        largest(line, k).filter(i => line[i]! > -1e30),
        t * k,
      );
    }
    return { kind: 'whole', data: out, rows, columns: k };
  },
  router_scores: ({ inputs, attributes }, { get }) => made(routerScores(attributes.f, real(get(inputs.logits)))),
  choose_experts: ({ inputs, attributes }, { get }) => chooseExperts(attributes, real(get(inputs.scores)), maybe(inputs.bias, get, weight)),
  expert_weights: ({ inputs, attributes }, { get }) =>
    made(expertWeights(attributes, real(get(inputs.scores)), whole(get(inputs.indices)))),
  experts: ({ inputs: i, attributes }, { get }) =>
    made(
      experts(
        attributes,
        real(get(i.x)),
        whole(get(i.indices)),
        real(get(i.weights)),
        weight(get(i.gate)),
        weight(get(i.up)),
        weight(get(i.down)),
      ),
    ),
  hc_expand: ({ inputs, attributes }, { get }) => made(tf.tile(real(get(inputs.x)), [1, attributes.streams])),
  hc_mix: ({ inputs, attributes }, { get }) => made(hc.mix(attributes.eps, real(get(inputs.x)), weight(get(inputs.weight)))),
  hc_split: ({ inputs, attributes }, { get }) =>
    made(hc.split(attributes, real(get(inputs.mix)), weight(get(inputs.scale)), weight(get(inputs.base)))),
  hc_gate: ({ inputs, attributes }, { get }) =>
    made(hc.gate(attributes.eps, real(get(inputs.mix)), weight(get(inputs.scale)), weight(get(inputs.base)))),
  hc_pre: ({ inputs, attributes }, { get }) => made(hc.pre(attributes.streams, real(get(inputs.x)), real(get(inputs.weights)))),
  hc_post: ({ inputs, attributes }, { get }) =>
    made(hc.post(attributes.streams, real(get(inputs.x)), real(get(inputs.weights)), real(get(inputs.y)))),
  gather_part: ({ inputs, attributes }, { get }) => made(gatherPart(attributes.from, weight(get(inputs.table)), whole(get(inputs.ids)))),
  own_experts: ({ inputs, attributes: { from, size } }, { get }) => {
    const w = whole(get(inputs.indices));
    return { ...w, data: w.data.map(e => (e >= from && e < from + size ? e - from : -1)) };
  },
  route_rows: ({ inputs, attributes }, { get }) => {
    const w = whole(get(inputs.indices));
    const each = Math.min(w.columns, attributes.bounds.length - 1);
    const data = new Int32Array(w.rows * each).fill(-1);
    data.set(routes(attributes, w).flat());
    return { kind: 'whole', data, rows: data.length, columns: 1 };
  },
  route_counts: ({ inputs, attributes }, { get }) => {
    const counts = routes(attributes, whole(get(inputs.indices))).map(r => r.length);
    return { kind: 'whole', data: Int32Array.from(counts), rows: counts.length, columns: 1 };
  },
  take_rows: ({ inputs }, { get }) => takeRows(get(inputs.x), whole(get(inputs.rows)).data),
  add_rows: ({ inputs }, { get, rows }) => made(addRows(real(get(inputs.y)), whole(get(inputs.rows)).data, rows.positions.length)),
};
const apply = (v: Value, c: Context): Held => (rules[v.op as Exclude<OpName, ExchangeOp>] as (v: Value, c: Context) => Held)(v, c);

/** Numbers of a weight in memory, transposed matrices kept up to `limit` bytes. */
class WeightStore {
  readonly #decode: (v: ValueOf<'weight'>) => Float32Array | Int32Array;
  readonly #numbers = new Map<string, Float32Array | Int32Array>();
  readonly #matrices = new Map<string, Matrix>();
  readonly #limit: number;
  readonly #inputs: Inputs | null;
  #bytes = 0;
  constructor(decode: (v: ValueOf<'weight'>) => Float32Array | Int32Array, limit: number, inputs: Inputs | null) {
    this.#decode = decode;
    this.#limit = limit;
    this.#inputs = inputs;
  }
  #read(v: ValueOf<'weight'>): Float32Array | Int32Array {
    const known = this.#numbers.get(v.name);
    if (known) return known;
    const numbers = this.#decode(v);
    if (this.#bytes + numbers.byteLength <= this.#limit) {
      this.#numbers.set(v.name, numbers);
      this.#bytes += numbers.byteLength;
    }
    return numbers;
  }
  get(v: ValueOf<'weight'>): Weight {
    const shape = v.type.shape as readonly number[];
    const [rows, columns] = shape.slice(-2) as [number, number];
    const store = this;
    return {
      kind: 'weight',
      shape,
      get numbers() {
        return store.#read(v);
      },
      transposed: (i = 0) => {
        const key = `${v.name} ${i}`;
        const known = store.#matrices.get(key);
        if (known) return known;
        // one matrix is kept transposed alone; a stack's numbers are kept until each of its matrices was met
        const all = (shape.length === 2 ? (store.#numbers.get(v.name) ?? store.#decode(v)) : store.#read(v)) as Float32Array;
        const t = tf.tidy(
          () => tf.transpose(tf.tensor2d(all.subarray(i * rows * columns, (i + 1) * rows * columns), [rows, columns])) as Matrix,
        );
        const bytes = rows * columns * 4;
        if (store.#bytes + bytes <= store.#limit) {
          store.#matrices.set(key, tf.keep(t));
          store.#bytes += bytes;
        }
        return t;
      },
      input: (x, i = 0) => (store.#inputs === null ? x : store.#inputs(v, i, x)),
    };
  }
  dispose(): void {
    for (const m of this.#matrices.values()) m.dispose();
    this.#matrices.clear();
    this.#numbers.clear();
  }
}

/** A graph ready to run: its values one after another, with a stop at each exchange. */
export interface Machine {
  readonly graph: Graph;
  /** The value of this name; undefined where the graph has none. */
  find(name: string): Value | undefined;
  /** Runs values in order and gives the targets. Yields each exchange, with its inputs at hand, and goes on with what it is given. */
  run(order: readonly Value[], targets: readonly Value[], step: Step): Generator<Waiting, readonly Result[], Held>;
  reset(): void;
  dispose(): void;
}
/** An exchange that a machine has come to. */
export interface Waiting {
  readonly value: Value;
  readonly get: Get;
  /** Rows of the machine's call. */
  readonly rows: number;
}

const resultOf = (v: Value, h: Held): Result => {
  if (h.kind === 'whole') return { shape: [h.rows, h.columns], data: h.data };
  if (h.kind === 'real') return { shape: h.matrix.shape, data: Float32Array.from(numbersOf(h.matrix)) };
  throw new Error(`${v.name} is a ${h.kind}, not a computed value`);
};

/** The arguments are createReference's. */
export async function createMachine(
  graph: Graph,
  weights: (v: ValueOf<'weight'>) => Float32Array | Int32Array,
  limit: number,
  inputs: Inputs | null,
): Promise<Machine> {
  await backend();
  const store = new WeightStore(weights, limit, inputs);
  const by = new Map(graph.values.map(v => [v.name, v]));
  let caches = new Map<string, Cache>();
  const cacheOf = (v: ValueOf<'state'>): Cache => {
    const known = caches.get(v.name);
    if (known) return known;
    const [sequences, capacity, width] = v.type.shape.map(d =>
      typeof d === 'number' ? d : 'symbol' in d ? graph.limits[d.symbol] : Number.NaN,
    ) as [number, number, number];
    const fresh: Cache = {
      kind: 'cache',
      data: new Float32Array(sequences * capacity * width),
      capacity,
      width,
      ring: v.attributes.kind === 'ring',
    };
    caches.set(v.name, fresh);
    return fresh;
  };
  return {
    graph,
    find: name => graph.outputs[name] ?? by.get(name),
    *run(order, targets, step) {
      const i32 = (a: readonly number[]): Int32Array => Int32Array.from(a);
      const rows: Rows = {
        ids: i32(step.ids),
        positions: i32(step.positions),
        sequences: i32(step.sequences),
        nextIds: step.nextIds ? i32(step.nextIds) : null,
        wanted: i32(step.wanted ?? step.ids.map((_, t) => t)),
      };
      const held = new Map<Value, Held>();
      const uses = new Map<Value, number>();
      for (const v of order) for (const [, i] of inputsOf(v)) uses.set(i, (uses.get(i) ?? 0) + 1);
      for (const t of targets) uses.set(t, (uses.get(t) ?? 0) + 1);
      const get: Get = v => held.get(v) as Held;
      const context: Context = { rows, get, cacheOf, weightOf: v => store.get(v) };
      const release = (v: Value): void => {
        const left = (uses.get(v) ?? 0) - 1;
        uses.set(v, left);
        const h = held.get(v);
        if (left === 0 && h?.kind === 'real') h.matrix.dispose();
      };
      for (const v of order) {
        if (isExchange(v.op)) held.set(v, yield { value: v, get, rows: rows.positions.length });
        else {
          tf.engine().startScope();
          const h = apply(v, context);
          if (h.kind === 'real') tf.keep(h.matrix);
          tf.engine().endScope();
          held.set(v, h);
        }
        for (const [, i] of inputsOf(v)) release(i);
      }
      const out = targets.map(t => resultOf(t, get(t)));
      for (const t of targets) release(t);
      return out;
    },
    reset() {
      caches = new Map();
    },
    dispose() {
      store.dispose();
      caches = new Map();
    },
  };
}

/**
 * An interpreter of a graph.
 * @param weights gives the decoded numbers of a weight, stacked parts one after another
 * @param limit bytes of decoded weights kept in memory
 * @param inputs what matrices make of the rows that come to them; null: they take them as they are
 */
export async function createReference(
  graph: Graph,
  weights: (v: ValueOf<'weight'>) => Float32Array | Int32Array,
  limit = 2 ** 31,
  inputs: Inputs | null = null,
): Promise<Reference> {
  const machine = await createMachine(graph, weights, limit, inputs);
  const plans = new Map<string, readonly Value[]>();
  return {
    step(step, names) {
      const targets = names.map(n => machine.find(n));
      const lost = names.filter((_, i) => targets[i] === undefined);
      if (lost.length) throw new Error(`the graph has no value ${lost.join(', ')}`);
      const key = names.join(' ');
      const order = plans.get(key) ?? needed(graph, targets as readonly Value[]);
      plans.set(key, order);
      const end = machine.run(order, targets as readonly Value[], step).next();
      if (!end.done) throw new Error(`${end.value.value.name} waits for other ranks: this graph does not run alone`);
      return new Map(names.map((name, i) => [name, end.value[i] as Result]));
    },
    reset: () => machine.reset(),
    dispose: () => machine.dispose(),
  };
}
