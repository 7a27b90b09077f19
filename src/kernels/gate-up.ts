// h = swiglu(x Wg^T, x Wu^T): both projections read the same x, and neither result leaves the block.
import type { Storage } from '../../ir/storage.js';
import { ceildiv, contract, input, type Kernel, map, output, store, stream, sym, tile, times, view } from '../../ir/tile.js';
import type { MatmulTiles } from './matmul.js';
import { gated } from './swiglu.js';

export interface GateUpSpec {
  readonly outputs: number;
  readonly inputs: number;
  readonly gate: Storage;
  readonly up: Storage;
  readonly limit: number | null;
  readonly tiles: MatmulTiles;
}

/** x [rows, inputs], gate and up [outputs, inputs] -> h [rows, outputs]. */
export function gateUp(name: string, { outputs, inputs, gate, up, limit, tiles: { m, n, k } }: GateUpSpec): Kernel {
  const rows = sym('rows');
  const x = input('x', [rows, inputs]);
  const wg = input('gate', [outputs, inputs], gate);
  const wu = input('up', [outputs, inputs], up);
  const h = output('h', [rows, outputs]);
  const g = tile('g', m, n);
  const u = tile('u', m, n);
  const i = times(sym('i'), m);
  const j = times(sym('j'), n);
  return {
    name,
    params: [x, wg, wu, h],
    sizes: ['rows'],
    grid: [
      { name: 'i', count: ceildiv(rows, m) },
      { name: 'j', count: ceildiv(outputs, n) },
    ],
    body: [
      contract(g, stream(view(x, [i, 0])), stream(view(wg, [j, 0])), inputs, k),
      contract(u, stream(view(x, [i, 0])), stream(view(wu, [j, 0])), inputs, k),
      map(g, gated(g, u, limit)),
      store(view(h, [i, j]), g),
    ],
  };
}
