// (x - mean) * rsqrt(variance + eps) * weight + bias over a row.
import type { Storage } from '../../ir/storage.js';
import { input, type Kernel, load, map, minus, mul, output, plus, rsqrt, store, sum, sym, tile, view } from '../../ir/tile.js';

export interface LayerNormSpec {
  readonly width: number;
  readonly eps: number;
  readonly weight: Storage;
  readonly bias: Storage;
}

/** x [rows, width], weight and bias [1, width] -> y [rows, width]. A row is held whole: the index keys it serves are 128 wide. */
export function layerNorm(name: string, { width, eps, weight, bias }: LayerNormSpec): Kernel {
  const rows = sym('rows');
  const x = input('x', [rows, width]);
  const w = input('weight', [1, width], weight);
  const b = input('bias', [1, width], bias);
  const y = output('y', [rows, width]);
  const xs = tile('xs', 1, width);
  const ws = tile('ws', 1, width);
  const bs = tile('bs', 1, width);
  const mean = tile('mean', 1, 1);
  const r = tile('r', 1, 1);
  const t = sym('t');
  return {
    name,
    params: [x, w, b, y],
    sizes: ['rows'],
    grid: [{ name: 't', count: rows }],
    body: [
      load(xs, view(x, [t, 0])),
      load(ws, view(w, [0, 0])),
      load(bs, view(b, [0, 0])),
      sum(mean, [1, width], 1, xs),
      map(mean, mul(mean, 1 / width)),
      map(xs, minus(xs, mean)),
      sum(r, [1, width], 1, mul(xs, xs)),
      map(r, rsqrt(plus(mul(r, 1 / width), eps))),
      map(xs, plus(mul(mul(xs, r), ws), bs)),
      store(view(y, [t, 0]), xs),
    ],
  };
}
