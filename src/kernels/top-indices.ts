// The columns of the k largest of a row, larger first, then the lower one.
import { i32, input, type Kernel, load, loop, map, output, store, sym, tile, times, topk, view } from '../../ir/tile.js';

export interface TopIndicesSpec {
  readonly k: number;
  readonly columns: number;
  readonly chunk: number;
}

/** scores [rows, columns] -> indices i32 [rows, k]; -1 where a score is -1e30 (nothing passes the -1e30 that the list begins with) or there are fewer. */
export function topIndices(name: string, { k, columns, chunk }: TopIndicesSpec): Kernel {
  const rows = sym('rows');
  const scores = input('scores', [rows, columns]);
  const indices = output('indices', [rows, k], i32);
  const piece = tile('piece', 1, chunk);
  const best = tile('best', 1, k);
  const index = tile('index', 1, k, 'i32');
  const t = sym('t');
  return {
    name,
    params: [scores, indices],
    sizes: ['rows'],
    grid: [{ name: 't', count: rows }],
    body: [
      map(best, -1e30),
      map(index, -1),
      loop('step', Math.ceil(columns / chunk), step => [
        load(piece, view(scores, [t, times(step, chunk)], { pad: -1e30 })),
        topk(best, index, piece, times(step, chunk)),
      ]),
      store(view(indices, [t, 0]), index),
    ],
  };
}
