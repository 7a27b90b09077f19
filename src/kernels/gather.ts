// Rows of a table by number: embeddings, wanted rows, experts fixed by token id.
import type { Storage } from '../../ir/storage.js';
import { ceildiv, i32, input, type Kernel, load, output, peek, store, sym, tile, times, view } from '../../ir/tile.js';

export interface GatherSpec {
  /** Rows of the table: a number, or null where they are the rows of the call. */
  readonly from: number | null;
  readonly width: number;
  readonly table: Storage;
  /** Whole numbers stay whole. */
  readonly whole: boolean;
  readonly chunk: number;
}

/** table [from, width], ids i32 [rows] -> y [rows, width]: row t is table row ids[t]. A table of the call's rows has its number as the size `from`. */
export function gatherRows(name: string, { from, width, table, whole, chunk }: GatherSpec): Kernel {
  const rows = sym('rows');
  const x = input('table', [from ?? sym('from'), width], table);
  const ids = input('ids', [rows], i32);
  const y = whole ? output('y', [rows, width], i32) : output('y', [rows, width]);
  const piece = whole ? tile('piece', 1, chunk, 'i32') : tile('piece', 1, chunk);
  const t = sym('t');
  const j = times(sym('j'), chunk);
  return {
    name,
    params: [x, ids, y],
    sizes: from === null ? ['rows', 'from'] : ['rows'],
    grid: [
      { name: 't', count: rows },
      { name: 'j', count: ceildiv(width, chunk) },
    ],
    body: [load(piece, view(x, [peek(ids, t), j])), store(view(y, [t, j]), piece)],
  };
}
