// Walsh-Hadamard transform in Sylvester's order: log2(width) rounds of sums and differences, no matrix.
import {
  as,
  input,
  type Kernel,
  load,
  map,
  minus,
  mul,
  output,
  plus,
  type Ref,
  type Stmt,
  store,
  sym,
  type Tile,
  tile,
  times,
  view,
} from '../../ir/tile.js';

export interface HadamardSpec {
  readonly groups: number;
  /** A power of two. */
  readonly width: number;
  /** Groups a block takes; divides groups. */
  readonly block: number;
}

/** The statements that transform each `width` elements of `xs`. `mark` begins the names of their tiles. */
export function transform(xs: Tile, width: number, mark = ''): readonly Stmt[] {
  const size = xs.shape[0] * xs.shape[1];
  const body: Stmt[] = [];
  for (let near = 1; near < width; near *= 2) {
    // [.., 2 * near]: the left half of each row meets the right half
    const runs = size / (2 * near);
    const side = (at: 0 | 1): Ref => ({ ...as(xs, runs, 2 * near), at: [0, at * near], shape: [runs, near] });
    const total = tile(`${mark}total${near}`, runs, near);
    body.push(map(total, plus(side(0), side(1))), map(side(1), minus(side(0), side(1))), map(side(0), total));
  }
  return [...body, map(xs, mul(xs, 1 / Math.sqrt(width)))];
}

/** x [rows, groups, width] -> y [rows, groups, width], each group times H / sqrt(width). */
export function hadamard(name: string, { groups, width, block }: HadamardSpec): Kernel {
  const rows = sym('rows');
  const x = input('x', [rows, groups, width]);
  const y = output('y', [rows, groups, width]);
  const xs = tile('xs', block, width);
  const at = [sym('t'), times(sym('h'), block), 0];
  return {
    name,
    params: [x, y],
    sizes: ['rows'],
    grid: [
      { name: 't', count: rows },
      { name: 'h', count: groups / block },
    ],
    body: [load(xs, view(x, at)), ...transform(xs, width), store(view(y, at), xs)],
  };
}
