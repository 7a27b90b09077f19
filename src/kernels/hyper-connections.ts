// Hyper-connections: a residual of n streams beside each other, mixed per row by weights that the row itself gives.
import type { Storage } from '../../ir/storage.js';
import {
  as,
  ceildiv,
  contract,
  exp,
  type Int,
  input,
  type Kernel,
  load,
  loop,
  map,
  maximum,
  minus,
  mul,
  output,
  over,
  part,
  plus,
  rsqrt,
  type Stmt,
  sigmoid,
  store,
  stream,
  sum,
  sym,
  type Tile,
  tile,
  times,
  view,
} from '../../ir/tile.js';
import type { RowStep } from './rows.js';

export interface StreamsSpec {
  readonly streams: number;
  /** Columns of one stream. */
  readonly width: number;
  readonly chunk: number;
}
const rows = sym('rows');
const t = sym('t');

/** x [rows, width] -> y [rows, streams, width], the same in each. */
export function hcExpand(name: string, { streams, width, chunk }: StreamsSpec): Kernel {
  const x = input('x', [rows, width]);
  const y = output('y', [rows, streams, width]);
  const one = tile('one', 1, chunk);
  const each = tile('each', streams, chunk);
  const j = times(sym('j'), chunk);
  return {
    name,
    params: [x, y],
    sizes: ['rows'],
    grid: [
      { name: 't', count: rows },
      { name: 'j', count: ceildiv(width, chunk) },
    ],
    body: [load(one, view(x, [t, j])), map(each, one), store(view(y, [t, 0, j]), each)],
  };
}

export interface HcMixSpec {
  readonly mixes: number;
  /** The whole row, all streams. */
  readonly width: number;
  readonly eps: number;
  readonly weight: Storage;
  readonly chunk: number;
  /** Mixes a block gives; each block takes the row's mean square again. */
  readonly n: number;
}
/** x [rows, width], w [mixes, width] -> y [rows, mixes] = w x * rsqrt(mean(x^2) + eps). */
export function hcMix(name: string, { mixes, width, eps, weight, chunk, n }: HcMixSpec): Kernel {
  const x = input('x', [rows, width]);
  const w = input('w', [mixes, width], weight);
  const y = output('y', [rows, mixes]);
  const xs = tile('xs', 1, chunk);
  const more = tile('more', 1, 1);
  const r = tile('r', 1, 1);
  const acc = tile('acc', 1, n);
  const j = times(sym('j'), n);
  return {
    name,
    params: [x, w, y],
    sizes: ['rows'],
    grid: [
      { name: 't', count: rows },
      { name: 'j', count: ceildiv(mixes, n) },
    ],
    body: [
      map(r, 0),
      loop('a', Math.ceil(width / chunk), a => [
        load(xs, view(x, [t, times(a, chunk)])),
        sum(more, [1, chunk], 1, mul(xs, xs)),
        map(r, plus(r, more)),
      ]),
      map(r, rsqrt(plus(mul(r, 1 / width), eps))),
      contract(acc, stream(view(x, [t, 0])), stream(view(w, [j, 0])), width, chunk),
      map(acc, mul(acc, r)),
      store(view(y, [t, j]), acc),
    ],
  };
}

export interface HcSplitSpec {
  readonly streams: number;
  readonly iterations: number;
  readonly eps: number;
  readonly scale: Storage;
  readonly base: Storage;
}
/** The statements that make pre, post and C of the mixes in `m`, and what they read. */
function splitMixes(m: Tile, { streams: n, iterations, eps, ...of }: HcSplitSpec): RowStep {
  const mixes = n * (n + 2);
  const scale = input('scale', [1, 3], of.scale);
  const base = input('base', [1, mixes], of.base);
  const b = tile('b', 1, mixes);
  const by = tile('by', 1, 3);
  const c = tile('c', n, n);
  const row = tile('row', n, 1);
  const column = tile('column', 1, n);
  const preRef = part(m, [0, 0], [1, n]);
  const postRef = part(m, [0, n], [1, n]);
  const restRef = part(m, [0, 2 * n], [1, n * n]);
  const scaled = (r: typeof preRef, which: number) => mul(r, part(by, [0, which], [1, 1]));
  const shift = (from: number, size: number) => part(b, [0, from], [1, size]);
  const columns = [sum(column, [n, n], 0, c), map(c, over(c, plus(column, eps)))];
  return {
    params: [scale, base],
    body: [
      load(b, view(base, [0, 0])),
      load(by, view(scale, [0, 0])),
      map(preRef, plus(sigmoid(plus(scaled(preRef, 0), shift(0, n))), eps)),
      map(postRef, mul(sigmoid(plus(scaled(postRef, 1), shift(n, n))), 2)),
      map(as(c, 1, n * n), plus(scaled(restRef, 2), shift(2 * n, n * n))),
      maximum(row, [n, n], 1, c),
      map(c, exp(minus(c, row))),
      sum(row, [n, n], 1, c),
      map(c, plus(over(c, row), eps)),
      ...columns,
      loop('turn', iterations - 1, () => [sum(row, [n, n], 1, c), map(c, over(c, plus(row, eps))), ...columns]),
      map(restRef, as(c, 1, n * n)),
    ],
  };
}

/** mix [rows, n (n + 2)], scale [1, 3], base [1, n (n + 2)] -> y [rows, n (n + 2)]: pre, post, and C after Sinkhorn's rounds. */
export function hcSplit(name: string, spec: HcSplitSpec): Kernel {
  const mixes = spec.streams * (spec.streams + 2);
  const mix = input('mix', [rows, mixes]);
  const y = output('y', [rows, mixes]);
  const m = tile('m', 1, mixes);
  const { params, body } = splitMixes(m, spec);
  return {
    name,
    params: [mix, ...params, y],
    sizes: ['rows'],
    grid: [{ name: 't', count: rows }],
    body: [load(m, view(mix, [t, 0])), ...body, store(view(y, [t, 0]), m)],
  };
}

export interface HcNormSpec extends StreamsSpec {
  /** Where the streams' weights come from: mixes that are split (and written, for what follows), mixes of a gate, or rows of weights. */
  readonly weights:
    | ({ readonly by: 'split' } & HcSplitSpec)
    | { readonly by: 'gate'; readonly eps: number; readonly scale: Storage; readonly base: Storage }
    | { readonly by: 'rows'; readonly columns: number };
  readonly eps: number;
  readonly weight: Storage | null;
}
/**
 * The way into a sublayer: x [rows, n, width], mix (or weights) [rows, ..], scale and base of the split or gate, weight [1, width] where the norm
 * has one -> weights [rows, n (n + 2)] of a split, y [rows, width] = norm of the streams' sum. A row that is not held whole is summed twice.
 */
export function hcNorm(name: string, { streams: n, width, chunk, weights: by, eps, weight }: HcNormSpec): Kernel {
  const mixes = by.by === 'split' ? n * (n + 2) : by.by === 'gate' ? n : by.columns;
  const x = input('x', [rows, n, width]);
  const mix = input('mix', [rows, mixes]);
  const split = output('weights', [rows, mixes]);
  const w = weight && input('weight', [1, width], weight);
  const y = output('y', [rows, width]);
  const m = tile('m', 1, mixes);
  const xs = tile('xs', n, chunk);
  const each = tile('each', n, 1);
  const one = tile('one', 1, chunk);
  const ws = tile('ws', 1, chunk);
  const more = tile('more', 1, 1);
  const r = tile('r', 1, 1);
  const known = by.by === 'split' ? splitMixes(m, by) : by.by === 'gate' ? gateMixes(m, by) : { params: [], body: [] };
  const turns = Math.ceil(width / chunk);
  const summed = (column: Int): readonly Stmt[] => [load(xs, view(x, [t, 0, column])), sum(one, [n, chunk], 0, mul(xs, each))];
  const put = (column: Int): readonly Stmt[] => [
    ...(w ? [load(ws, view(w, [0, column])), map(one, mul(mul(one, r), ws))] : [map(one, mul(one, r))]),
    store(view(y, [t, column]), one),
  ];
  const root = map(r, rsqrt(plus(mul(r, 1 / width), eps)));
  return {
    name,
    params: [x, mix, ...known.params, ...(w ? [w] : []), ...(by.by === 'split' ? [split] : []), y],
    sizes: ['rows'],
    grid: [{ name: 't', count: rows }],
    body: [
      load(m, view(mix, [t, 0])),
      ...known.body,
      ...(by.by === 'split' ? [store(view(split, [t, 0]), m)] : []),
      map(as(each, 1, n), part(m, [0, 0], [1, n])),
      ...(turns === 1
        ? [...summed(0), sum(r, [1, chunk], 1, mul(one, one)), root, ...put(0)]
        : [
            map(r, 0),
            loop('a', turns, a => [...summed(times(a, chunk)), sum(more, [1, chunk], 1, mul(one, one)), map(r, plus(r, more))]),
            root,
            loop('b', turns, b => [...summed(times(b, chunk)), ...put(times(b, chunk))]),
          ]),
    ],
  };
}
/** sigmoid(m * scale + base) + eps. */
function gateMixes(m: Tile, of: { readonly eps: number; readonly scale: Storage; readonly base: Storage }): RowStep {
  const [, n] = m.shape;
  const scale = input('scale', [1, 1], of.scale);
  const base = input('base', [1, n], of.base);
  const b = tile('b', 1, n);
  const s = tile('by', 1, 1);
  return {
    params: [scale, base],
    body: [load(b, view(base, [0, 0])), load(s, view(scale, [0, 0])), map(m, plus(sigmoid(plus(mul(m, s), b)), of.eps))],
  };
}

export interface MixStreamsSpec extends StreamsSpec {
  /** Columns of a row of weights. */
  readonly weights: number;
}
/** x [rows, streams, width], weights [rows, >= streams] -> y [rows, width] = sum_i weights[i] x_i. */
export function hcPre(name: string, { streams, width, chunk, weights }: MixStreamsSpec): Kernel {
  const x = input('x', [rows, streams, width]);
  const ws = input('weights', [rows, weights]);
  const y = output('y', [rows, width]);
  const xs = tile('xs', streams, chunk);
  const w = tile('w', streams, 1);
  const all = tile('all', 1, chunk);
  const j = times(sym('j'), chunk);
  return {
    name,
    params: [x, ws, y],
    sizes: ['rows'],
    grid: [
      { name: 't', count: rows },
      { name: 'j', count: ceildiv(width, chunk) },
    ],
    body: [
      load(xs, view(x, [t, 0, j])),
      load(w, view(ws, [times(t, weights), 0], { as: [times(rows, weights), 1] })),
      sum(all, [streams, chunk], 0, mul(xs, w)),
      store(view(y, [t, j]), all),
    ],
  };
}

/** x [rows, n, width], weights [rows, n (n + 2)] from hcSplit, z [rows, width] -> y [rows, n, width]: y_k = post_k z + sum_j C[j, k] x_j. */
export function hcPost(name: string, { streams: n, width, chunk }: StreamsSpec): Kernel {
  const mixes = n * (n + 2);
  const x = input('x', [rows, n, width]);
  const ws = input('weights', [rows, mixes]);
  const z = input('z', [rows, width]);
  const y = output('y', [rows, n, width]);
  const m = tile('m', 1, mixes);
  const xs = tile('xs', n, chunk);
  const zs = tile('zs', 1, chunk);
  const by = tile('by', n, 1);
  const out = tile('out', n, chunk);
  const j = times(sym('j'), chunk);
  return {
    name,
    params: [x, ws, z, y],
    sizes: ['rows'],
    grid: [
      { name: 't', count: rows },
      { name: 'j', count: ceildiv(width, chunk) },
    ],
    body: [
      load(m, view(ws, [t, 0])),
      load(xs, view(x, [t, 0, j])),
      load(zs, view(z, [t, j])),
      map(as(by, 1, n), part(m, [0, n], [1, n])),
      map(out, mul(by, zs)),
      // row i of C, stood up, says how much of stream i each stream gets
      ...Array.from({ length: n }, (_, i) => [
        map(as(by, 1, n), part(m, [0, (2 + i) * n], [1, n])),
        map(out, plus(out, mul(by, part(xs, [i, 0], [1, chunk])))),
      ]).flat(),
      store(view(y, [t, 0, j]), out),
    ],
  };
}
