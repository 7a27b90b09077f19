// Block-diagonal products: group g of a row meets rows [g * stride + from, + size) of the weight, straight or transposed.
import type { Storage } from '../../ir/storage.js';
import {
  add,
  ceildiv,
  contract,
  held,
  heldT,
  input,
  type Kernel,
  load,
  loop,
  map,
  output,
  plus,
  store,
  stream,
  sym,
  tile,
  times,
  view,
} from '../../ir/tile.js';
import type { MatmulTiles } from './matmul.js';

export interface GroupedMatmulSpec {
  readonly groups: number;
  readonly stride: number;
  readonly from: number;
  readonly size: number;
  readonly columns: number;
  readonly weight: Storage;
  readonly tiles: MatmulTiles;
}

/** y_g = W_g x_g. x [rows, groups, columns], w [groups * stride, columns] -> y [rows, groups, size]. */
export function groupedMatmul(
  name: string,
  { groups, stride, from, size, columns, weight, tiles: { m, n, k } }: GroupedMatmulSpec,
): Kernel {
  const rows = sym('rows');
  const x = input('x', [rows, groups, columns]);
  const w = input('w', [groups * stride, columns], weight);
  const y = output('y', [rows, groups, size]);
  const acc = tile('acc', m, n);
  const i = times(sym('i'), m);
  const g = sym('g');
  const j = times(sym('j'), n);
  const first = add(times(g, stride), from);
  return {
    name,
    params: [x, w, y],
    sizes: ['rows'],
    grid: [
      { name: 'i', count: ceildiv(rows, m) },
      { name: 'g', count: groups },
      { name: 'j', count: ceildiv(size, n) },
    ],
    body: [
      contract(
        acc,
        stream(view(x, [i, g, 0], { rowDim: 0 })),
        stream(view(w, [add(first, j), 0], { limit: add(first, size) })),
        columns,
        k,
      ),
      store(view(y, [i, g, j], { rowDim: 0 }), acc),
    ],
  };
}

/** y_g = W_g^T x_g. x [rows, groups, size], w [groups * stride, columns] -> y [rows, groups, columns]. `k` rows of the weight are held at a time. */
export function groupedMatmulTransposed(
  name: string,
  { groups, stride, from, size, columns, weight, tiles: { m, n, k } }: GroupedMatmulSpec,
): Kernel {
  const rows = sym('rows');
  const x = input('x', [rows, groups, size]);
  const w = input('w', [groups * stride, columns], weight);
  const y = output('y', [rows, groups, columns]);
  const xs = tile('xs', m, k);
  const ws = tile('ws', k, n);
  const more = tile('more', m, n);
  const acc = tile('acc', m, n);
  const i = times(sym('i'), m);
  const g = sym('g');
  const j = times(sym('j'), n);
  const first = add(times(g, stride), from);
  return {
    name,
    params: [x, w, y],
    sizes: ['rows'],
    grid: [
      { name: 'i', count: ceildiv(rows, m) },
      { name: 'g', count: groups },
      { name: 'j', count: ceildiv(columns, n) },
    ],
    body: [
      map(acc, 0),
      loop('step', Math.ceil(size / k), step => [
        load(xs, view(x, [i, g, times(step, k)], { rowDim: 0 })),
        load(ws, view(w, [add(first, times(step, k)), j], { limit: add(first, size) })),
        contract(more, held(xs), heldT(ws), k, k),
        map(acc, plus(acc, more)),
      ]),
      store(view(y, [i, g, j], { rowDim: 0 }), acc),
    ],
  };
}
