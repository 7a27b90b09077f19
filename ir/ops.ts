// The ops: one row each. The type says inputs and attributes, the row says the type rule and the meaning. A missing row does not compile.
//
// Rows of a call: a call brings `tokens` rows. Row t belongs to sequence `sequences[t]` (a slot number) at position `positions[t]`.
// Rows of one sequence come in rising position. A call may be a prompt's chunk, one step of many sequences, or both mixed.
//
// States (caches) are values: `state` is what the call found, `append` gives the state with this call's rows written. Readers take the
// appended one, so a row sees itself. Position p of a state lies at row p % capacity; with `every` = r, position p is written only where
// (p + 1) % r == 0, at row floor(p / r). The capacity of a ring covers its window and the longest call, so nothing needed is overwritten.
//
// Ranks: a graph may be one of several that run together (docs/sharding.md). Its exchanges name the ranks that meet in one, in order; each of
// them has a value of the same name, op and attributes, and all come to the exchanges of a group in the same order (ir/verify-ranks.ts).
import { type Dim, sameShape, showDim, type Type, tokens, type Value, wanted } from './graph.js';
import type { RopeTable } from './rope.js';
import { f32, i32, type Storage, storageName } from './storage.js';

type Inputs = Readonly<Record<string, Value | undefined>>;
interface Shape<I extends object, A extends object> {
  inputs: Readonly<I>;
  attributes: Readonly<A>;
}
type None = Record<never, never>;
/** The ranks that meet in an exchange, in order. */
type Group = readonly number[];

export interface Ops {
  input: Shape<None, { which: 'ids' | 'next_ids' | 'positions' | 'sequences' | 'wanted' }>;
  weight: Shape<None, None>;
  state: Shape<None, { kind: 'log' | 'ring'; window: number; every: number }>;
  gather: Shape<{ table: Value; ids: Value }, None>;
  slice: Shape<{ x: Value }, { from: number; size: number; heads?: number }>;
  concat: Shape<{ a: Value; b: Value }, { heads: number }>;
  add: Shape<{ a: Value; b: Value }, None>;
  scale: Shape<{ x: Value }, { by: number }>;
  append: Shape<{ state: Value; rows: Value; positions: Value; sequences: Value }, { every: number }>;
  rms_norm: Shape<{ x: Value; weight?: Value }, { eps: number; width: number }>;
  layer_norm: Shape<{ x: Value; weight: Value; bias: Value }, { eps: number }>;
  rope: Shape<
    { x: Value; positions: Value },
    { heads: number; offset: number; layout: 'interleaved' | 'half'; inverse: boolean; stride: number; table: RopeTable }
  >;
  hadamard: Shape<{ x: Value }, { width: number }>;
  fake_quant: Shape<
    { x: Value },
    { element: 'f8e4m3' | 'f4e2m1'; block: number; scale: 'f32' | 'e8m0'; least: number; heads: number; offset: number; size: number }
  >;
  linear: Shape<{ x: Value; weight: Value; bias?: Value }, None>;
  grouped_linear: Shape<{ x: Value; weight: Value }, { groups: number; stride: number; from: number; size: number; transposed: boolean }>;
  swiglu: Shape<{ gate: Value; up: Value }, { limit: number | null }>;
  mla: Shape<
    { q: Value; state: Value; kv_b: Value; positions: Value; sequences: Value; selected?: Value },
    { heads: number; nope: number; rope: number; v: number; scale: number }
  >;
  attention: Shape<
    { q: Value; state: Value; positions: Value; sequences: Value; compressed?: Value; selected?: Value; sink?: Value },
    {
      heads: number;
      kvHeads: number;
      width: number;
      keyOffset: number;
      valueOffset: number;
      valueWidth: number;
      scale: number;
      window: number | null;
      ratio: number;
    }
  >;
  compress: Shape<{ state: Value; ape: Value; positions: Value; sequences: Value }, { ratio: number; overlap: boolean; width: number }>;
  index_scores: Shape<
    { q: Value; weights: Value; state: Value; positions: Value; sequences: Value },
    { heads: number; width: number; ratio: number }
  >;
  top_indices: Shape<{ scores: Value }, { k: number }>;
  router_scores: Shape<{ logits: Value }, { f: 'softmax' | 'sigmoid' | 'sqrtsoftplus' }>;
  choose_experts: Shape<{ scores: Value; bias?: Value }, { k: number; groups: number; keep: number; by: 'max' | 'top2sum' }>;
  expert_weights: Shape<{ scores: Value; indices: Value }, { normalise: boolean; scale: number }>;
  experts: Shape<
    { x: Value; indices: Value; weights: Value; gate: Value; up: Value; down: Value },
    { limit: number | null; weigh: 'after' | 'before' }
  >;
  hc_expand: Shape<{ x: Value }, { streams: number }>;
  hc_mix: Shape<{ x: Value; weight: Value }, { eps: number }>;
  hc_split: Shape<{ mix: Value; scale: Value; base: Value }, { streams: number; iterations: number; eps: number }>;
  hc_gate: Shape<{ mix: Value; scale: Value; base: Value }, { eps: number }>;
  hc_pre: Shape<{ x: Value; weights: Value }, { streams: number }>;
  hc_post: Shape<{ x: Value; weights: Value; y: Value }, { streams: number }>;
  all_reduce: Shape<{ x: Value }, { group: Group }>;
  all_gather: Shape<{ x: Value }, { group: Group; along: 'rows' | 'columns'; sizes: readonly number[] }>;
  reduce_scatter: Shape<{ x: Value }, { group: Group; rows: number }>;
  all_to_all_v: Shape<{ x: Value; counts?: Value }, { group: Group; rows: number }>;
  send: Shape<{ x: Value }, { to: number; channel: string }>;
  recv: Shape<None, { from: number; channel: string }>;
  gather_part: Shape<{ table: Value; ids: Value }, { from: number }>;
  own_experts: Shape<{ indices: Value }, { from: number; size: number }>;
  route_rows: Shape<{ indices: Value }, Routes>;
  route_counts: Shape<{ indices: Value }, Routes>;
  take_rows: Shape<{ x: Value; rows: Value }, None>;
  add_rows: Shape<{ y: Value; rows: Value }, None>;
}
/** bounds: rank j of a group holds experts [bounds[j], bounds[j + 1]). share [i, n]: of the rows of the call, those with t % n == i. */
interface Routes {
  bounds: readonly number[];
  share: readonly [index: number, of: number];
}
export type OpName = keyof Ops;
/** Ops in which ranks meet. */
export const exchangeOps = ['all_reduce', 'all_gather', 'reduce_scatter', 'all_to_all_v', 'send', 'recv'] as const;
/** Ops that only the graph of a rank has: exchanges, and what a rank does with its part of a weight or of the rows. */
export const rankOps = [...exchangeOps, 'gather_part', 'own_experts', 'route_rows', 'route_counts', 'take_rows', 'add_rows'] as const;
export type ExchangeOp = (typeof exchangeOps)[number];
export type RankOp = (typeof rankOps)[number];
export const isExchange = (op: OpName): op is ExchangeOp => (exchangeOps as readonly OpName[]).includes(op);
export const isRankOp = (op: OpName): op is RankOp => (rankOps as readonly OpName[]).includes(op);

export interface OpRow<K extends OpName> {
  /** Input names in printing order; a `?` ends those that may be absent. `[]` with `declared` for what has no inputs. */
  readonly inputs: readonly string[];
  /** The meaning, in the words of the field; docs/ir.md is written from it. */
  readonly about: string;
  /** The type that follows, a sentence where the inputs do not fit, or 'declared' where the value itself says its type. */
  type(inputs: Ops[K]['inputs'], attributes: Ops[K]['attributes']): Type | string | 'declared';
}

const last = (v: Value): Dim => v.type.shape[v.type.shape.length - 1] as Dim;
const num = (d: Dim): number => (typeof d === 'number' ? d : Number.NaN);
const widthOf = (v: Value): number => num(last(v));
const withLast = (v: Value, d: Dim, storage: Storage = f32): Type => ({ shape: [...v.type.shape.slice(0, -1), d], storage });
const rows = (d: Dim, storage: Storage = f32): Type => ({ shape: [tokens, d], storage });
const show = (v: Value): string => `${v.name} [${v.type.shape.map(showDim).join(', ')}] ${storageName(v.type.storage)}`;
const wants = (v: Value, what: string): string => `${show(v)} where ${what} was expected`;
const first = (...objections: readonly (string | false)[]): string | null => objections.find((o): o is string => o !== false) ?? null;
const stateWidth = (v: Value, n: number, what: string): string | false =>
  widthOf(v) !== n && wants(v, `a state of ${what}: ${n} values a position`);
const stateRows = (v: Value): Dim => v.type.shape[1] as Dim;
/** i32 of i32 and i64, else f32: what picking rows of a value gives. */
const picked = (v: Value): Storage => (v.type.storage.element === 'i64' || v.type.storage.element === 'i32' ? i32 : f32);
const total = (a: readonly number[]): number => a.reduce((x, y) => x + y, 0);

export const ops: { readonly [K in OpName]: OpRow<K> } = {
  input: {
    inputs: [],
    about:
      'What the caller brings, i32. ids [tokens]: token ids. next_ids [tokens]: the token after each (for multi-token prediction). positions [tokens]. sequences [tokens]: slot numbers. wanted [wanted]: the rows whose logits are asked for.',
    type: (_, a) => ({ shape: [a.which === 'wanted' ? wanted : tokens], storage: i32 }),
  },
  weight: {
    inputs: [],
    about: 'A tensor of the checkpoint, or a stack of equal ones; its origin says where the bytes are.',
    type: () => 'declared',
  },
  state: {
    inputs: [],
    about:
      'A cache as the call found it: [sequences, capacity, width]. log: every position (of every `every`) is kept. ring: the last `window` positions and those of this call.',
    type: () => 'declared',
  },
  gather: {
    inputs: ['table', 'ids'],
    about: 'y[t] = table[ids[t]]. Of an i64 table the rows become i32.',
    type: ({ table, ids }) =>
      table.type.shape.length !== 2
        ? wants(table, 'a table [rows, columns]')
        : ids.type.shape.length !== 1
          ? wants(ids, 'one id a row')
          : {
              shape: [ids.type.shape[0] as Dim, table.type.shape[1] as Dim],
              storage: picked(table),
            },
  },
  slice: {
    inputs: ['x'],
    about: 'Columns [from, from + size) of the last dimension; with `heads`, of each of so many equal parts of a row, one after another.',
    type: ({ x }, { from, size, heads = 1 }) =>
      widthOf(x) % heads || from + size > widthOf(x) / heads
        ? wants(x, `${heads} equal parts of at least ${from + size} columns`)
        : withLast(x, heads * size),
  },
  concat: {
    inputs: ['a', 'b'],
    about: 'Beside each other, head by head: each of `heads` equal parts of a row of a is followed by the same part of b.',
    type: ({ a, b }, { heads }) =>
      !sameShape(a.type.shape.slice(0, -1), b.type.shape.slice(0, -1))
        ? wants(b, `rows as ${show(a)}`)
        : widthOf(a) % heads || widthOf(b) % heads
          ? wants(b, `widths divisible by ${heads}`)
          : withLast(a, widthOf(a) + widthOf(b)),
  },
  add: {
    inputs: ['a', 'b'],
    about: 'a + b.',
    type: ({ a, b }) =>
      sameShape(a.type.shape, b.type.shape) ? { shape: a.type.shape, storage: f32 } : wants(b, `the shape of ${show(a)}`),
  },
  scale: { inputs: ['x'], about: 'x * by.', type: ({ x }) => ({ shape: x.type.shape, storage: f32 }) },
  append: {
    inputs: ['state', 'rows', 'positions', 'sequences'],
    about:
      'The state with row t written for position positions[t] of sequence sequences[t]; with `every` = r > 1 only where (position + 1) % r == 0, as entry floor(position / r).',
    type: ({ state, rows: r }) => first(stateWidth(state, widthOf(r), r.name)) ?? state.type,
  },
  rms_norm: {
    inputs: ['x', 'weight?'],
    about: 'Over each group of `width` columns: x * rsqrt(mean(x^2) + eps), times weight [width] where there is one.',
    type: ({ x, weight }, a) =>
      widthOf(x) % a.width
        ? wants(x, `groups of ${a.width} columns`)
        : weight && widthOf(weight) !== a.width
          ? wants(weight, `[${a.width}]`)
          : { shape: x.type.shape, storage: f32 },
  },
  layer_norm: {
    inputs: ['x', 'weight', 'bias'],
    about: '(x - mean) * rsqrt(variance + eps) * weight + bias over the last dimension.',
    type: ({ x, weight, bias }) =>
      first(
        widthOf(weight) !== widthOf(x) && wants(weight, `[${widthOf(x)}]`),
        widthOf(bias) !== widthOf(x) && wants(bias, `[${widthOf(x)}]`),
      ) ?? { shape: x.type.shape, storage: f32 },
  },
  rope: {
    inputs: ['x', 'positions'],
    about:
      "In each of `heads` equal parts of a row, dimensions [offset, offset + table.dims) turn by angle = f32(p) * frequency[j], p = floor(position / stride) * stride; cos and sin times the table's magnitude. interleaved: pairs (2j, 2j+1); half: pairs (j, j + dims/2). inverse: turns back.",
    type: ({ x }, a) =>
      widthOf(x) % a.heads || a.offset + a.table.dims > widthOf(x) / a.heads
        ? wants(x, `${a.heads} heads of at least ${a.offset + a.table.dims}`)
        : { shape: x.type.shape, storage: f32 },
  },
  hadamard: {
    inputs: ['x'],
    about: 'Each group of `width` (a power of two) columns times the Sylvester matrix over sqrt(width).',
    type: ({ x }, a) =>
      widthOf(x) % a.width || (a.width & (a.width - 1)) !== 0
        ? wants(x, `groups of ${a.width}, a power of two`)
        : { shape: x.type.shape, storage: f32 },
  },
  fake_quant: {
    inputs: ['x'],
    about:
      'In each of `heads` equal parts, dimensions [offset, offset + size), in blocks: s = max(|x|, least) / largest code (e8m0: rounded up to a power of two); x becomes decode(encode(x / s)) * s, round half to even, clamped.',
    type: ({ x }, a) =>
      widthOf(x) % a.heads || a.offset + a.size > widthOf(x) / a.heads || a.size % a.block
        ? wants(x, `${a.heads} heads with blocks of ${a.block}`)
        : { shape: x.type.shape, storage: f32 },
  },
  linear: {
    inputs: ['x', 'weight', 'bias?'],
    about: 'y[.., o] = sum_i x[.., i] * weight[o, i] (+ bias[o]), accumulated in f32.',
    type: ({ x, weight, bias }) =>
      weight.type.shape.length !== 2 || widthOf(weight) !== widthOf(x)
        ? wants(weight, `[outputs, ${widthOf(x)}]`)
        : bias && widthOf(bias) !== num(weight.type.shape[0] as Dim)
          ? wants(bias, `[${showDim(weight.type.shape[0] as Dim)}]`)
          : withLast(x, weight.type.shape[0] as Dim),
  },
  grouped_linear: {
    inputs: ['x', 'weight'],
    about:
      'Block-diagonal: group g of x (an equal part of the row) meets rows [g * stride + from, + size) of weight. Plain: y_g = W_g x_g, x_g as wide as weight, y_g of `size`. transposed: y_g = W_g^T x_g, x_g of `size`, y_g as wide as weight.',
    type: ({ x, weight }, a) =>
      num(weight.type.shape[0] as Dim) !== a.groups * a.stride || a.from + a.size > a.stride
        ? wants(weight, `${a.groups} groups of ${a.stride} rows`)
        : widthOf(x) !== a.groups * (a.transposed ? a.size : widthOf(weight))
          ? wants(x, `${a.groups} groups of ${a.transposed ? a.size : widthOf(weight)} columns`)
          : withLast(x, a.groups * (a.transposed ? widthOf(weight) : a.size)),
  },
  swiglu: {
    inputs: ['gate', 'up'],
    about: 'silu(g) * u. With a limit: g = min(gate, limit), u = clamp(up, -limit, limit).',
    type: ({ gate, up }) =>
      sameShape(gate.type.shape, up.type.shape) ? { shape: gate.type.shape, storage: f32 } : wants(up, `the shape of ${show(gate)}`),
  },
  mla: {
    inputs: ['q', 'state', 'kv_b', 'positions', 'sequences', 'selected?'],
    about:
      'Multi-head latent attention, said plainly. A state row is latent c (kv_lora_rank) then the shared rope key kp. Per head h, kv_b rows [h*(nope+v), + nope) give kn = UK c and the next v rows give v = UV c; s = (qn . kn + qp . kp) * scale over positions <= own (of `selected`, where given: entries below 0 are none); y_h = sum softmax(s) v. Softmax in f32.',
    type: ({ q, state, kv_b }, a) =>
      first(
        widthOf(q) !== a.heads * (a.nope + a.rope) && wants(q, `${a.heads} heads of ${a.nope} + ${a.rope}`),
        stateWidth(state, widthOf(kv_b) + a.rope, 'latent and rope key'),
        num(kv_b.type.shape[0] as Dim) !== a.heads * (a.nope + a.v) && wants(kv_b, `${a.heads} heads of ${a.nope} + ${a.v} rows`),
      ) ?? rows(a.heads * a.v),
  },
  attention: {
    inputs: ['q', 'state', 'positions', 'sequences', 'compressed?', 'selected?', 'sink?'],
    about:
      'Softmax attention over state rows. Head h reads kv head floor(h * kvHeads / heads): key = row[keyOffset + kv * width, + width), value = row[valueOffset + kv * valueWidth, + valueWidth). Visible of `state`: positions <= own, and > own - window where a window is given. Of `compressed` (one entry every `ratio` positions): entries w < floor((own + 1) / ratio). `selected` [tokens, k] narrows `compressed` where there is one, else `state`, to those entries; below 0 is none. A sink [heads] stands in the denominator only. Softmax in f32 with the largest score (or sink) taken out.',
    type: ({ q, state, sink }, a) =>
      first(
        widthOf(q) !== a.heads * a.width && wants(q, `${a.heads} heads of ${a.width}`),
        widthOf(state) < Math.max(a.keyOffset + a.kvHeads * a.width, a.valueOffset + a.kvHeads * a.valueWidth) &&
          wants(state, `keys and values of ${a.kvHeads} heads`),
        a.heads % a.kvHeads !== 0 && `${a.heads} heads cannot share ${a.kvHeads} kv heads`,
        sink !== undefined && widthOf(sink) !== a.heads && wants(sink, `[${a.heads}]`),
      ) ?? rows(a.heads * a.valueWidth),
  },
  compress: {
    inputs: ['state', 'ape', 'positions', 'sequences'],
    about:
      'A state row is kv then score, each c * width columns (c = 2 with overlap, else 1). Row t gives an entry where (position + 1) % ratio == 0, zeros elsewhere: over the `ratio` positions of that window (with overlap: those of the window before with columns [0, width), and of this one with [width, 2 width)), per column, softmax of score + ape[position % ratio] weighs kv. The window before the first weighs nothing.',
    type: ({ state, ape }, a) => {
      const c = a.overlap ? 2 : 1;
      return (
        first(
          stateWidth(state, 2 * c * a.width, 'kv and score'),
          widthOf(ape) !== c * a.width && wants(ape, `[${a.ratio}, ${c * a.width}]`),
        ) ?? rows(a.width)
      );
    },
  },
  index_scores: {
    inputs: ['q', 'weights', 'state', 'positions', 'sequences'],
    about:
      'score[t, s] = sum_h weights[t, h] * relu(q[t, h] . state[s]); -1e30 where s is not visible: s <= position with ratio 1, else entries s < floor((position + 1) / ratio).',
    type: ({ q, weights, state }, a) =>
      first(
        widthOf(q) !== a.heads * a.width && wants(q, `${a.heads} heads of ${a.width}`),
        widthOf(weights) !== a.heads && wants(weights, `${a.heads} weights`),
        stateWidth(state, a.width, 'index keys'),
      ) ?? rows(stateRows(state)),
  },
  top_indices: {
    inputs: ['scores'],
    about: 'Columns of the k largest of each row, larger first, then lower index; -1 where a score is -1e30 or there are fewer.',
    type: (_, a) => rows(a.k, i32),
  },
  router_scores: {
    inputs: ['logits'],
    about: 'softmax over the row, sigmoid, or sqrt(log(1 + e^x)), in f32.',
    type: ({ logits }) => ({ shape: logits.type.shape, storage: f32 }),
  },
  choose_experts: {
    inputs: ['scores', 'bias?'],
    about:
      'The k largest of scores + bias, larger first, then lower index. With groups > 1: a group counts by its largest, or the sum of its two largest; the `keep` best groups (then lower index) stay, the others are minus infinity.',
    type: ({ scores }, a) => (widthOf(scores) % a.groups ? wants(scores, `${a.groups} equal groups`) : rows(a.k, i32)),
  },
  expert_weights: {
    inputs: ['scores', 'indices'],
    about: 'scores at the chosen (no bias); normalise: over their sum + 1e-20; then times scale.',
    type: ({ indices }) => ({ shape: indices.type.shape, storage: f32 }),
  },
  experts: {
    inputs: ['x', 'indices', 'weights', 'gate', 'up', 'down'],
    about:
      'y[t] = sum_k of down_e(swiglu(gate_e x, up_e x)) * weights[t, k], e = indices[t, k]; weigh before: the weight meets the activation before down. Limits as in swiglu. Stacked weights [experts, out, in]. In the graph of a rank an index below 0 is no expert.',
    type: ({ x, gate, up, down }) =>
      gate.type.shape.length !== 3 || widthOf(gate) !== widthOf(x)
        ? wants(gate, `[experts, inner, ${widthOf(x)}]`)
        : !sameShape(gate.type.shape, up.type.shape)
          ? wants(up, `the shape of ${show(gate)}`)
          : down.type.shape.length !== 3 ||
              num(down.type.shape[1] as Dim) !== widthOf(x) ||
              !sameShape([last(down)], [gate.type.shape[1] as Dim])
            ? wants(down, `[experts, ${widthOf(x)}, ${showDim(gate.type.shape[1] as Dim)}]`)
            : { shape: x.type.shape, storage: f32 },
  },
  hc_expand: {
    inputs: ['x'],
    about: 'X[t, i] = x[t] for each stream i: [tokens, streams * D], streams one after another.',
    type: ({ x }, a) => withLast(x, widthOf(x) * a.streams),
  },
  hc_mix: {
    inputs: ['x', 'weight'],
    about: 'weight f * rsqrt(mean(f^2) + eps), f the whole row (all streams), in f32.',
    type: ({ x, weight }) =>
      widthOf(weight) !== widthOf(x) ? wants(weight, `[mixes, ${widthOf(x)}]`) : withLast(x, weight.type.shape[0] as Dim),
  },
  hc_split: {
    inputs: ['mix', 'scale', 'base'],
    about:
      'n = streams. pre [n] = sigmoid(m * scale0 + base) + eps; post [n] = 2 sigmoid(m * scale1 + base); C [n, n] = softmax of each row of m * scale2 + base, + eps, then C /= colsum + eps, then (iterations - 1) times C /= rowsum + eps, C /= colsum + eps. Given as pre, post, C: [tokens, 2n + n^2].',
    type: ({ mix }, a) =>
      widthOf(mix) !== a.streams * (a.streams + 2)
        ? wants(mix, `${a.streams * (a.streams + 2)} mixes`)
        : { shape: mix.type.shape, storage: f32 },
  },
  hc_gate: {
    inputs: ['mix', 'scale', 'base'],
    about: 'sigmoid(mix * scale + base) + eps.',
    type: ({ mix }) => ({ shape: mix.type.shape, storage: f32 }),
  },
  hc_pre: {
    inputs: ['x', 'weights'],
    about: 'sum_i weights[t, i] * X[t, i] over the streams; only the first `streams` weights are read.',
    type: ({ x }, a) => withLast(x, widthOf(x) / a.streams),
  },
  hc_post: {
    inputs: ['x', 'weights', 'y'],
    about: "X'[t, k] = post_k * y[t] + sum_j C[j, k] * X[t, j], with post and C from hc_split.",
    type: ({ x, y }, a) =>
      widthOf(y) * a.streams !== widthOf(x) ? wants(y, `[tokens, ${widthOf(x) / a.streams}]`) : { shape: x.type.shape, storage: f32 },
  },
  all_reduce: {
    inputs: ['x'],
    about: 'The sum of x over the ranks of `group`, the same on each: added in the order of the group.',
    type: ({ x }) => ({ shape: x.type.shape, storage: f32 }),
  },
  all_gather: {
    inputs: ['x'],
    about:
      "What the ranks of `group` have, one after another, the same on each. along columns: rank j's row has sizes[j] columns. along rows: rank j's rows lie from the sum of the sizes before it on, and rows that it does not have, up to sizes[j], are zeros (-1 of i32).",
    type: ({ x }, a) =>
      a.sizes.length !== a.group.length
        ? `${a.sizes.length} sizes for ${a.group.length} ranks`
        : a.along === 'columns'
          ? withLast(x, total(a.sizes), picked(x))
          : { shape: [total(a.sizes), ...x.type.shape.slice(1)], storage: picked(x) },
  },
  reduce_scatter: {
    inputs: ['x'],
    about:
      'The sum of x over the ranks of `group`; rank j gets as many rows as its call has, from row j * rows on: what is left where rows were gathered.',
    type: ({ x }, a) =>
      num(x.type.shape[0] as Dim) !== a.group.length * a.rows ? wants(x, `${a.group.length * a.rows} rows`) : rows(last(x)),
  },
  all_to_all_v: {
    inputs: ['x', 'counts?'],
    about:
      'counts [ranks, 1] of the rows of x go to each rank of `group`, in order; without counts one row to each. Gives what came from each rank, in order, and zeros (-1 of i32) up to `rows`.',
    type: ({ x, counts }, a) =>
      counts && num(counts.type.shape[0] as Dim) !== a.group.length
        ? wants(counts, `a count for each of ${a.group.length} ranks`)
        : { shape: [a.rows, ...x.type.shape.slice(1)], storage: picked(x) },
  },
  send: {
    inputs: ['x'],
    about: 'x goes to the rank `to`, which receives it from its channel. x again.',
    type: ({ x }) => x.type,
  },
  recv: {
    inputs: [],
    about: 'What the rank `from` sends into the channel. As many rows as its call has: ranks of one pipeline have the same rows.',
    type: () => 'declared',
  },
  gather_part: {
    inputs: ['table', 'ids'],
    about: 'gather from a table that holds rows [from, from + its rows) of the whole: zeros for the ids of other rows.',
    type: ({ table, ids }) =>
      table.type.shape.length !== 2
        ? wants(table, 'a table [rows, columns]')
        : ids.type.shape.length !== 1
          ? wants(ids, 'one id a row')
          : { shape: [ids.type.shape[0] as Dim, table.type.shape[1] as Dim], storage: f32 },
  },
  own_experts: {
    inputs: ['indices'],
    about: 'index - from where it lies in [from, from + size), else -1: which of its own experts a rank is asked for.',
    type: ({ indices }) => ({ shape: indices.type.shape, storage: i32 }),
  },
  route_rows: {
    inputs: ['indices'],
    about:
      'For each rank in order, the rows t of this share that chose an expert of it, rising, each once; then -1. At most min(k, ranks) for each row: [tokens * that].',
    type: ({ indices }, a) => ({
      shape: [{ op: '*', a: indices.type.shape[0] as Dim, b: Math.min(widthOf(indices), a.bounds.length - 1) }],
      storage: i32,
    }),
  },
  route_counts: {
    inputs: ['indices'],
    about: 'How many rows route_rows has for each rank: [ranks, 1].',
    type: (_, a) => ({ shape: [a.bounds.length - 1, 1], storage: i32 }),
  },
  take_rows: {
    inputs: ['x', 'rows'],
    about: 'y[i] = x[rows[i]]; zeros (-1 of i32) where that is below 0.',
    type: ({ x, rows: r }) =>
      r.type.shape.length !== 1 ? wants(r, 'one row number a row') : { shape: [r.type.shape[0] as Dim, last(x)], storage: picked(x) },
  },
  add_rows: {
    inputs: ['y', 'rows'],
    about: 'x[t] = the sum of y[i] where rows[i] == t, in rising i: [tokens, width]. Zeros where there is none.',
    type: ({ y, rows: r }) => (r.type.shape.length !== 1 ? wants(r, 'one row number a row') : rows(last(y))),
  },
};

export const opNames = Object.keys(ops) as readonly OpName[];
/** The inputs of an op that must be there, and those that may be. */
export function inputNames(op: OpName): readonly { readonly name: string; readonly optional: boolean }[] {
  return ops[op].inputs.map(n => (n.endsWith('?') ? { name: n.slice(0, -1), optional: true } : { name: n, optional: false }));
}
/** The type rule, asked without knowing which op it is. */
export function typeOf(op: OpName, inputs: Inputs, attributes: object): Type | string {
  return (ops[op] as unknown as { type(i: Inputs, a: object): Type | string }).type(inputs, attributes);
}
