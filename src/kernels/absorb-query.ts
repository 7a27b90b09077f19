// The query of absorbed latent attention: each head's first columns through UK^T, its rope columns beside them as they are.
import type { Storage } from '../../ir/storage.js';
import {
  add,
  ceildiv,
  contract,
  held,
  heldT,
  input,
  type Kernel,
  less,
  load,
  loop,
  map,
  output,
  plus,
  store,
  sym,
  tile,
  times,
  view,
  when,
} from '../../ir/tile.js';
import type { MatmulTiles } from './matmul.js';

export interface AbsorbQuerySpec {
  readonly heads: number;
  /** Columns of a head that meet the weight, and those that pass. */
  readonly nope: number;
  readonly rope: number;
  /** Rows of the weight a head has; the first `nope` of them are UK. */
  readonly stride: number;
  readonly latent: number;
  readonly weight: Storage;
  readonly tiles: MatmulTiles;
}

/** q [rows, heads, nope + rope], w [heads * stride, latent] -> y [rows, heads, latent + rope]. */
export function absorbQuery(name: string, { heads, nope, rope, stride, latent, weight, tiles: { m, n, k } }: AbsorbQuerySpec): Kernel {
  const rows = sym('rows');
  const q = input('q', [rows, heads, nope + rope]);
  const w = input('w', [heads * stride, latent], weight);
  const y = output('y', [rows, heads, latent + rope]);
  const qs = tile('qs', m, k);
  const ws = tile('ws', k, n);
  const more = tile('more', m, n);
  const acc = tile('acc', m, n);
  const turned = tile('turned', m, rope);
  const i = times(sym('i'), m);
  const g = sym('g');
  const j = times(sym('j'), n);
  const first = times(g, stride);
  const rowDim = { rowDim: 0 };
  return {
    name,
    params: [q, w, y],
    sizes: ['rows'],
    grid: [
      { name: 'i', count: ceildiv(rows, m) },
      { name: 'g', count: heads },
      { name: 'j', count: ceildiv(latent, n) },
    ],
    body: [
      map(acc, 0),
      loop('step', nope / k, step => [
        load(qs, view(q, [i, g, times(step, k)], rowDim)),
        load(ws, view(w, [add(first, times(step, k)), j])),
        contract(more, held(qs), heldT(ws), k, k),
        map(acc, plus(acc, more)),
      ]),
      store(view(y, [i, g, j], rowDim), acc),
      when('once', less(sym('j'), 1), [load(turned, view(q, [i, g, nope], rowDim)), store(view(y, [i, g, latent], rowDim), turned)]),
    ],
  };
}
