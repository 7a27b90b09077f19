// x * rsqrt(mean(x^2) + eps) (* weight), over each group of columns.
import type { Storage } from '../../ir/storage.js';
import {
  input,
  type Kernel,
  load,
  loop,
  map,
  mul,
  output,
  plus,
  rsqrt,
  type Stmt,
  store,
  sum,
  sym,
  type Tile,
  tile,
  times,
  view,
} from '../../ir/tile.js';
import type { RowStep } from './rows.js';

/** A stretch of columns of wider rows. */
export interface Within {
  readonly columns: number;
  readonly from: number;
}
export interface RmsNormSpec {
  /** Groups of a row, each normed by itself: 1, or heads. */
  readonly groups: number;
  readonly width: number;
  readonly eps: number;
  readonly weight: Storage | null;
  /** Where the rows stand in wider ones: their columns, and the first that counts. One group, held whole. */
  readonly within: Within | null;
  /** Columns held at a time; where a group is wider it is read twice. */
  readonly chunk: number;
}

/** The statements that norm each row of `xs` and what they read beside it. `mark` begins their names. */
export function scaledByRoot(xs: Tile, { eps, weight }: { readonly eps: number; readonly weight: Storage | null }, mark = ''): RowStep {
  const [rows, width] = xs.shape;
  const w = weight && input(`${mark}weight`, [1, width], weight);
  const ws = tile(`${mark}ws`, 1, width);
  const r = tile(`${mark}r`, rows, 1);
  return {
    params: w ? [w] : [],
    body: [
      sum(r, [rows, width], 1, mul(xs, xs)),
      map(r, rsqrt(plus(mul(r, 1 / width), eps))),
      ...(w ? [load(ws, view(w, [0, 0])), map(xs, mul(mul(xs, r), ws))] : [map(xs, mul(xs, r))]),
    ],
  };
}

/** x [rows, groups, width] (or columns of wider rows), weight [1, width] where there is one -> y [rows, groups, width]. */
export function rmsNorm(name: string, { groups, width, eps, weight, within, chunk }: RmsNormSpec): Kernel {
  const rows = sym('rows');
  const x = input('x', [rows, groups, within?.columns ?? width]);
  const w = weight && input('weight', [1, width], weight);
  const y = output('y', [rows, groups, width]);
  const c = Math.min(chunk, width);
  const turns = Math.ceil(width / c);
  const xs = tile('xs', 1, c);
  const ws = tile('ws', 1, c);
  const more = tile('more', 1, 1);
  const r = tile('r', 1, 1);
  const at = (column: ReturnType<typeof times>) => [sym('t'), sym('g'), column];
  const scaled = (column: ReturnType<typeof times>): readonly Stmt[] => [
    ...(w ? [load(ws, view(w, [0, column])), map(xs, mul(mul(xs, r), ws))] : [map(xs, mul(xs, r))]),
    store(view(y, at(column)), xs),
  ];
  const root = map(r, rsqrt(plus(mul(r, 1 / width), eps)));
  return {
    name,
    params: w ? [x, w, y] : [x, y],
    sizes: ['rows'],
    grid: [
      { name: 't', count: rows },
      { name: 'g', count: groups },
    ],
    body:
      turns === 1
        ? [load(xs, view(x, at(within?.from ?? 0))), sum(r, [1, c], 1, mul(xs, xs)), root, ...scaled(0)]
        : [
            map(r, 0),
            loop('a', turns, a => [load(xs, view(x, at(times(a, c)))), sum(more, [1, c], 1, mul(xs, xs)), map(r, plus(r, more))]),
            root,
            loop('b', turns, b => [load(xs, view(x, at(times(b, c)))), ...scaled(times(b, c))]),
          ],
  };
}
