// y = x W^T, W in any storage: [outputs, inputs] as the files hold it. Rows of x may be picked from a table of rows; what follows the product is
// an epilogue's.
import type { Storage } from '../../ir/storage.js';
import {
  argmax,
  ceildiv,
  columnNumber,
  contract,
  eq,
  i32,
  input,
  type Kernel,
  load,
  lt,
  map,
  maximum,
  output,
  ref,
  select,
  store,
  stream,
  sum,
  sym,
  tile,
  times,
  view,
} from '../../ir/tile.js';
import { type EpilogueSpec, epilogue } from './epilogue.js';

export interface MatmulTiles {
  /** Rows of x a block takes. */
  readonly m: number;
  /** Outputs a block gives. Neighbouring blocks read neighbouring rows of the weight. */
  readonly n: number;
  /** Inputs a step of the contraction holds. */
  readonly k: number;
}
export interface MatmulSpec extends EpilogueSpec {
  readonly outputs: number;
  readonly inputs: number;
  readonly weight: Storage;
  /** Rows of x are picked by number, from the rows of another call size `from`. */
  readonly picked: boolean;
  readonly tiles: MatmulTiles;
}

/** x [rows, inputs] (or [from, inputs] and ids i32 [rows]), w [outputs, inputs], what the epilogue reads -> what it writes. */
export function matmul(name: string, spec: MatmulSpec): Kernel {
  const {
    outputs,
    inputs,
    picked,
    tiles: { m, n, k },
  } = spec;
  const rows = sym('rows');
  const x = input('x', [picked ? sym('from') : rows, inputs]);
  const ids = input('ids', [rows], i32);
  const w = input('w', [outputs, inputs], spec.weight);
  const acc = tile('acc', m, n);
  const row = tile('row', m, 1, 'i32');
  const i = times(sym('i'), m);
  const j = times(sym('j'), n);
  const after = epilogue(acc, spec, outputs, i, j);
  return {
    name,
    params: [x, ...(picked ? [ids] : []), w, ...after.reads, ...after.writes],
    sizes: picked ? ['rows', 'from'] : ['rows'],
    grid: [
      { name: 'i', count: ceildiv(rows, m) },
      { name: 'j', count: ceildiv(outputs, n) },
    ],
    body: [
      ...(picked ? [load(row, view(ids, [i, 0], { as: [rows, 1], pad: -1 }))] : []),
      contract(acc, stream(picked ? view(x, [0, 0], { index: ref(row) }) : view(x, [i, 0])), stream(view(w, [j, 0])), inputs, k),
      ...after.body,
    ],
  };
}

export interface BestSpec {
  /** Blocks whose best columns are known. */
  readonly blocks: number;
}
/** best [rows, blocks], where i32 [rows, blocks] -> index i32 [rows, 1] of the largest, the lower one of equals; -1 where all are -1e30. */
export function bestOf(name: string, { blocks }: BestSpec): Kernel {
  const rows = sym('rows');
  const best = input('best', [rows, blocks]);
  const where = input('where', [rows, blocks], i32);
  const index = output('index', [rows, 1], i32);
  const b = tile('b', 1, blocks);
  const w = tile('w', 1, blocks, 'i32');
  const top = tile('top', 1, 1);
  const block = tile('first', 1, 1, 'i32');
  const found = tile('found', 1, 1);
  const result = tile('result', 1, 1, 'i32');
  const t = sym('t');
  return {
    name,
    params: [best, where, index],
    sizes: ['rows'],
    grid: [{ name: 't', count: rows }],
    body: [
      load(b, view(best, [t, 0])),
      load(w, view(where, [t, 0])),
      maximum(top, [1, blocks], 1, b),
      argmax(block, [1, blocks], 1, b),
      sum(found, [1, blocks], 1, select(eq(columnNumber, block), w, 0)),
      map(result, select(lt(-1e30, top), found, -1)),
      store(view(index, [t, 0]), result),
    ],
  };
}
