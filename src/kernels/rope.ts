// Rotary position embedding on a window of each head.

import {
  as,
  cos,
  div,
  type Expr,
  type Int,
  i32,
  input,
  int,
  type Kernel,
  type Like,
  load,
  map,
  minus,
  mul,
  output,
  type Param,
  part,
  peek,
  plus,
  type Ref,
  type Stmt,
  sin,
  store,
  sym,
  type Tile,
  tile,
  times,
  view,
} from '../../ir/tile.js';
import type { Within } from './rms-norm.js';
import type { RowStep } from './rows.js';

export interface TurnSpec {
  /** Columns [offset, offset + dims) of a head turn. */
  readonly offset: number;
  readonly dims: number;
  readonly layout: 'interleaved' | 'half';
  readonly inverse: boolean;
  /** Positions are taken down to a multiple of this. */
  readonly stride: number;
  /** cos and sin are multiplied by it. */
  readonly magnitude: number;
}
export interface RopeSpec extends TurnSpec {
  readonly heads: number;
  /** Columns of a head. */
  readonly width: number;
  /** Where x stands in wider rows; one head then. */
  readonly within: Within | null;
  /** Heads a block takes; divides heads. */
  readonly block: number;
}

/** The two members of a pair after the turn, from the two before it and the angle's cosine and sine. */
export const turned = (a: Like, b: Like, c: Like, s: Like, inverse: boolean): readonly [Expr, Expr] =>
  inverse ? [plus(mul(a, c), mul(b, s)), minus(mul(b, c), mul(a, s))] : [minus(mul(a, c), mul(b, s)), plus(mul(b, c), mul(a, s))];

/** The statements that turn columns [offset, offset + dims) of each row of `whole` by row `t`'s position. `mark` begins the names of tiles and table. */
export function turn(whole: Tile, spec: TurnSpec, positions: Param, t: Int, mark = ''): RowStep {
  const { offset, dims, layout, stride, magnitude } = spec;
  const block = whole.shape[0];
  const half = dims / 2;
  const frequencies = input(`${mark}frequencies`, [1, half]);
  const a = tile(`${mark}a`, block, half);
  const b = tile(`${mark}b`, block, half);
  const c = tile(`${mark}c`, 1, half);
  const s = tile(`${mark}s`, 1, half);
  const angle = tile(`${mark}angle`, 1, half);
  const p = peek(positions, t);
  const from = stride === 1 ? p : times(div(p, stride), stride);
  // one member of every pair: a window of the half layout, a column of the interleaved one seen as pairs
  const pairs = tile(`${mark}pairs`, block, dims);
  const columnOf = (which: 0 | 1): Ref => ({ ...as(pairs, block * half, 2), at: [0, which], shape: [block * half, 1] });
  const windowOf = (which: 0 | 1): Ref => part(whole, [0, offset + which * half], [block, half]);
  const take = (to: Tile, which: 0 | 1): Stmt =>
    layout === 'half' ? map(to, windowOf(which)) : map(as(to, block * half, 1), columnOf(which));
  const [one, other] = turned(a, b, c, s, spec.inverse);
  const first = tile(`${mark}first`, block, half);
  const second = tile(`${mark}second`, block, half);
  const put: readonly Stmt[] =
    layout === 'half'
      ? [map(windowOf(0), one), map(windowOf(1), other)]
      : [
          map(first, one),
          map(second, other),
          map(columnOf(0), as(first, block * half, 1)),
          map(columnOf(1), as(second, block * half, 1)),
          map(part(whole, [0, offset], [block, dims]), pairs),
        ];
  return {
    params: [frequencies],
    body: [
      load(angle, view(frequencies, [0, 0])),
      map(angle, mul(angle, int(from))),
      map(c, magnitude === 1 ? cos(angle) : mul(cos(angle), magnitude)),
      map(s, magnitude === 1 ? sin(angle) : mul(sin(angle), magnitude)),
      ...(layout === 'interleaved' ? [map(pairs, part(whole, [0, offset], [block, dims]))] : []),
      take(a, 0),
      take(b, 1),
      ...put,
    ],
  };
}

/** x [rows, heads, width], positions i32 [rows], frequencies [1, dims / 2] in radians a position -> y [rows, heads, width]. */
export function rope(name: string, spec: RopeSpec): Kernel {
  const { heads, width, within, block } = spec;
  const rows = sym('rows');
  const x = input('x', [rows, heads, within?.columns ?? width]);
  const positions = input('positions', [rows], i32);
  const y = output('y', [rows, heads, width]);
  const whole = tile('whole', block, width);
  const { params, body } = turn(whole, spec, positions, sym('t'));
  const at = (column: number) => [sym('t'), times(sym('h'), block), column];
  return {
    name,
    params: [x, positions, ...params, y],
    sizes: ['rows'],
    grid: [
      { name: 't', count: rows },
      { name: 'h', count: heads / block },
    ],
    body: [load(whole, view(x, at(within?.from ?? 0))), ...body, store(view(y, at(0)), whole)],
  };
}
