// Moving columns: a part of each head, or two rows beside each other head by head.
import { type Int, input, type Kernel, load, output, store, sym, tile, view } from '../../ir/tile.js';

export interface SliceSpec {
  readonly heads: number;
  /** Columns of a head in x. */
  readonly width: number;
  readonly from: number;
  readonly size: number;
  /** Heads a block takes. */
  readonly block: number;
}

/** x [rows, heads, width] -> y [rows, heads, size], columns [from, from + size) of each head. */
export function sliceColumns(name: string, { heads, width, from, size, block }: SliceSpec): Kernel {
  const rows = sym('rows');
  const x = input('x', [rows, heads, width]);
  const y = output('y', [rows, heads, size]);
  const piece = tile('piece', block, size);
  const at: readonly [Int, Int] = [sym('t'), { op: '*', a: sym('h'), b: block }];
  return {
    name,
    params: [x, y],
    sizes: ['rows'],
    grid: [
      { name: 't', count: rows },
      { name: 'h', count: Math.ceil(heads / block) },
    ],
    body: [load(piece, view(x, [...at, from])), store(view(y, [...at, 0]), piece)],
  };
}

export interface ConcatSpec {
  readonly heads: number;
  readonly a: number;
  readonly b: number;
  readonly block: number;
}

/** a [rows, heads, a], b [rows, heads, b] -> y [rows, heads, a + b]. */
export function concatColumns(name: string, spec: ConcatSpec): Kernel {
  const { heads, block } = spec;
  const rows = sym('rows');
  const a = input('a', [rows, heads, spec.a]);
  const b = input('b', [rows, heads, spec.b]);
  const y = output('y', [rows, heads, spec.a + spec.b]);
  const left = tile('left', block, spec.a);
  const right = tile('right', block, spec.b);
  const at: readonly [Int, Int] = [sym('t'), { op: '*', a: sym('h'), b: block }];
  return {
    name,
    params: [a, b, y],
    sizes: ['rows'],
    grid: [
      { name: 't', count: rows },
      { name: 'h', count: Math.ceil(heads / block) },
    ],
    body: [
      load(left, view(a, [...at, 0])),
      load(right, view(b, [...at, 0])),
      store(view(y, [...at, 0]), left),
      store(view(y, [...at, spec.a]), right),
    ],
  };
}
