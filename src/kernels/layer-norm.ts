// (x - mean) * rsqrt(variance + eps) * weight + bias over a row.
import type { Storage } from '../../ir/storage.js';
import { input, type Kernel, load, map, minus, mul, output, plus, rsqrt, store, sum, sym, type Tile, tile, view } from '../../ir/tile.js';
import type { RowStep } from './rows.js';

export interface LayerNormSpec {
  readonly width: number;
  readonly eps: number;
  readonly weight: Storage;
  readonly bias: Storage;
}

/** The statements that norm `xs` [1, width] and what they read beside it. `mark` begins their names. */
export function centred(xs: Tile, { width, eps, weight, bias }: LayerNormSpec, mark = ''): RowStep {
  const w = input(`${mark}weight`, [1, width], weight);
  const b = input(`${mark}bias`, [1, width], bias);
  const ws = tile(`${mark}ws`, 1, width);
  const bs = tile(`${mark}bs`, 1, width);
  const mean = tile(`${mark}mean`, 1, 1);
  const r = tile(`${mark}r`, 1, 1);
  return {
    params: [w, b],
    body: [
      load(ws, view(w, [0, 0])),
      load(bs, view(b, [0, 0])),
      sum(mean, [1, width], 1, xs),
      map(mean, mul(mean, 1 / width)),
      map(xs, minus(xs, mean)),
      sum(r, [1, width], 1, mul(xs, xs)),
      map(r, rsqrt(plus(mul(r, 1 / width), eps))),
      map(xs, plus(mul(mul(xs, r), ws), bs)),
    ],
  };
}

/** x [rows, width], weight and bias [1, width] -> y [rows, width]. A row is held whole: the index keys it serves are 128 wide. */
export function layerNorm(name: string, spec: LayerNormSpec): Kernel {
  const rows = sym('rows');
  const x = input('x', [rows, spec.width]);
  const y = output('y', [rows, spec.width]);
  const xs = tile('xs', 1, spec.width);
  const { params, body } = centred(xs, spec);
  const t = sym('t');
  return {
    name,
    params: [x, ...params, y],
    sizes: ['rows'],
    grid: [{ name: 't', count: rows }],
    body: [load(xs, view(x, [t, 0])), ...body, store(view(y, [t, 0]), xs)],
  };
}
