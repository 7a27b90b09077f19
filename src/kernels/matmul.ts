// y = x W^T (+ bias), W in any storage: [outputs, inputs] as the files hold it.
import type { Storage } from '../../ir/storage.js';
import { ceildiv, contract, input, type Kernel, load, map, output, plus, store, stream, sym, tile, times, view } from '../../ir/tile.js';

export interface MatmulTiles {
  /** Rows of x a block takes. */
  readonly m: number;
  /** Outputs a block gives. Neighbouring blocks read neighbouring rows of the weight. */
  readonly n: number;
  /** Inputs a step of the contraction holds. */
  readonly k: number;
}
export interface MatmulSpec {
  readonly outputs: number;
  readonly inputs: number;
  readonly weight: Storage;
  readonly bias: Storage | null;
  readonly tiles: MatmulTiles;
}

/** x [rows, inputs], w [outputs, inputs], bias [1, outputs] where there is one -> y [rows, outputs]. */
export function matmul(name: string, { outputs, inputs, weight, bias, tiles: { m, n, k } }: MatmulSpec): Kernel {
  const rows = sym('rows');
  const x = input('x', [rows, inputs]);
  const w = input('w', [outputs, inputs], weight);
  const b = bias && input('bias', [1, outputs], bias);
  const y = output('y', [rows, outputs]);
  const acc = tile('acc', m, n);
  const shift = tile('shift', 1, n);
  const i = times(sym('i'), m);
  const j = times(sym('j'), n);
  return {
    name,
    params: b ? [x, w, b, y] : [x, w, y],
    sizes: ['rows'],
    grid: [
      { name: 'i', count: ceildiv(rows, m) },
      { name: 'j', count: ceildiv(outputs, n) },
    ],
    body: [
      contract(acc, stream(view(x, [i, 0])), stream(view(w, [j, 0])), inputs, k),
      ...(b ? [load(shift, view(b, [0, j])), map(acc, plus(acc, shift))] : []),
      store(view(y, [i, j]), acc),
    ],
  };
}
