// Rotary position embedding on a window of each head.

import {
  as,
  cos,
  div,
  type Expr,
  i32,
  input,
  int,
  type Kernel,
  load,
  map,
  minus,
  mul,
  output,
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

export interface RopeSpec {
  readonly heads: number;
  /** Columns of a head; [offset, offset + dims) turn. */
  readonly width: number;
  readonly offset: number;
  readonly dims: number;
  readonly layout: 'interleaved' | 'half';
  readonly inverse: boolean;
  /** Positions are taken down to a multiple of this. */
  readonly stride: number;
  /** Where x stands in wider rows; one head then. */
  readonly within: Within | null;
  /** cos and sin are multiplied by it. */
  readonly magnitude: number;
  /** Heads a block takes; divides heads. */
  readonly block: number;
}

/** x [rows, heads, width], positions i32 [rows], frequencies [1, dims / 2] in radians a position -> y [rows, heads, width]. */
export function rope(name: string, spec: RopeSpec): Kernel {
  const { heads, width, offset, dims, layout, stride, within, magnitude, block } = spec;
  const half = dims / 2;
  const rows = sym('rows');
  const x = input('x', [rows, heads, within?.columns ?? width]);
  const positions = input('positions', [rows], i32);
  const frequencies = input('frequencies', [1, half]);
  const y = output('y', [rows, heads, width]);
  const whole = tile('whole', block, width);
  const a = tile('a', block, half);
  const b = tile('b', block, half);
  const c = tile('c', 1, half);
  const s = tile('s', 1, half);
  const angle = tile('angle', 1, half);
  const p = peek(positions, sym('t'));
  const from = stride === 1 ? p : times(div(p, stride), stride);
  const at = (column: number) => [sym('t'), times(sym('h'), block), column];
  // one member of every pair: a window of the half layout, a column of the interleaved one seen as pairs
  const pairs = tile('pairs', block, dims);
  const columnOf = (which: 0 | 1): Ref => ({ ...as(pairs, block * half, 2), at: [0, which], shape: [block * half, 1] });
  const windowOf = (which: 0 | 1): Ref => part(whole, [0, offset + which * half], [block, half]);
  const take = (to: Tile, which: 0 | 1): Stmt =>
    layout === 'half' ? map(to, windowOf(which)) : map(as(to, block * half, 1), columnOf(which));
  const turned: readonly [Expr, Expr] = spec.inverse
    ? [plus(mul(a, c), mul(b, s)), minus(mul(b, c), mul(a, s))]
    : [minus(mul(a, c), mul(b, s)), plus(mul(b, c), mul(a, s))];
  const first = tile('first', block, half);
  const second = tile('second', block, half);
  const put: readonly Stmt[] =
    layout === 'half'
      ? [map(windowOf(0), turned[0]), map(windowOf(1), turned[1])]
      : [
          map(first, turned[0]),
          map(second, turned[1]),
          map(columnOf(0), as(first, block * half, 1)),
          map(columnOf(1), as(second, block * half, 1)),
          map(part(whole, [0, offset], [block, dims]), pairs),
        ];
  return {
    name,
    params: [x, positions, frequencies, y],
    sizes: ['rows'],
    grid: [
      { name: 't', count: rows },
      { name: 'h', count: heads / block },
    ],
    body: [
      load(whole, view(x, at(within?.from ?? 0))),
      load(angle, view(frequencies, [0, 0])),
      map(angle, mul(angle, int(from))),
      map(c, magnitude === 1 ? cos(angle) : mul(cos(angle), magnitude)),
      map(s, magnitude === 1 ? sin(angle) : mul(sin(angle), magnitude)),
      ...(layout === 'interleaved' ? [map(pairs, part(whole, [0, offset], [block, dims]))] : []),
      take(a, 0),
      take(b, 1),
      ...put,
      store(view(y, at(0)), whole),
    ],
  };
}
