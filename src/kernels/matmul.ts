// y = x W^T (+ bias, + what else is to be summed), W in any storage: [outputs, inputs] as the files hold it.
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
  /** Rows added to the result, such as the residual. */
  readonly added: number;
  readonly tiles: MatmulTiles;
}

/** x [rows, inputs], w [outputs, inputs], bias [1, outputs] where there is one, added0.. [rows, outputs] -> y [rows, outputs]. */
export function matmul(name: string, { outputs, inputs, weight, bias, added, tiles: { m, n, k } }: MatmulSpec): Kernel {
  const rows = sym('rows');
  const x = input('x', [rows, inputs]);
  const w = input('w', [outputs, inputs], weight);
  const b = bias && input('bias', [1, outputs], bias);
  const others = Array.from({ length: added }, (_, i) => ({ param: input(`added${i}`, [rows, outputs]), held: tile(`other${i}`, m, n) }));
  const y = output('y', [rows, outputs]);
  const acc = tile('acc', m, n);
  const shift = tile('shift', 1, n);
  const i = times(sym('i'), m);
  const j = times(sym('j'), n);
  return {
    name,
    params: [x, w, ...(b ? [b] : []), ...others.map(o => o.param), y],
    sizes: ['rows'],
    grid: [
      { name: 'i', count: ceildiv(rows, m) },
      { name: 'j', count: ceildiv(outputs, n) },
    ],
    body: [
      contract(acc, stream(view(x, [i, 0])), stream(view(w, [j, 0])), inputs, k),
      ...(b ? [load(shift, view(b, [0, j])), map(acc, plus(acc, shift))] : []),
      ...others.flatMap(o => [load(o.held, view(o.param, [i, j])), map(acc, plus(acc, o.held))]),
      store(view(y, [i, j]), acc),
    ],
  };
}
