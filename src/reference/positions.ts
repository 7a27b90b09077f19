// Turning and rounding: rope, the Hadamard rotation, and the rounding that official kernels apply to what they cache.
import type { ValueOf } from '../../ir/graph.js';
import { frequencies } from '../../ir/rope.js';
import { type Matrix, tf } from './backend.js';
import { numbersOf } from './values.js';

/** Angles are f32(position) * f32(frequency), rounded to f32, as torch has them. */
export function rope(a: ValueOf<'rope'>['attributes'], x: Matrix, positions: Int32Array): Matrix {
  const [rows, width] = x.shape;
  const f = frequencies(a.table);
  const magnitude = a.table.scaling.kind === 'yarn' ? a.table.scaling.magnitude : 1;
  const out = Float32Array.from(numbersOf(x));
  const each = width / a.heads;
  const half = a.table.dims / 2;
  for (let t = 0; t < rows; t++) {
    const p = Math.floor(positions[t]! / a.stride) * a.stride;
    for (let j = 0; j < half; j++) {
      const angle = Math.fround(p * f[j]!);
      const cos = Math.fround(Math.cos(angle) * magnitude);
      const sin = Math.fround(Math.sin(angle) * magnitude) * (a.inverse ? -1 : 1);
      for (let h = 0; h < a.heads; h++) {
        const at = t * width + h * each + a.offset;
        const [i, k] = a.layout === 'interleaved' ? [at + 2 * j, at + 2 * j + 1] : [at + j, at + j + half];
        const [u, v] = [out[i]!, out[k]!];
        out[i] = Math.fround(u * cos) - Math.fround(v * sin);
        out[k] = Math.fround(u * sin) + Math.fround(v * cos);
      }
    }
  }
  return tf.tensor2d(out, [rows, width]);
}

/** Each group of n columns times H / sqrt(n), H[i][j] = -1 where i & j has an odd number of ones. */
export function hadamard(n: number, x: Matrix): tf.Tensor {
  const ones = (v: number): number => (v === 0 ? 0 : (v & 1) + ones(v >> 1));
  const h = tf.tensor2d(
    Float32Array.from({ length: n * n }, (_, i) => (ones(Math.floor(i / n) & (i % n)) % 2 ? -1 : 1) / Math.sqrt(n)),
    [n, n],
  );
  return tf.reshape(tf.matMul(tf.reshape(x, [-1, n]) as Matrix, h), x.shape);
}

const e2m1 = [0, 0.5, 1, 1.5, 2, 3, 4, 6];
/** The nearest code's value, half to the even code. */
function roundTo(element: 'f8e4m3' | 'f4e2m1', v: number): number {
  const m = Math.min(Math.abs(v), element === 'f8e4m3' ? 448 : 6);
  const sign = v < 0 || Object.is(v, -0) ? -1 : 1;
  if (element === 'f4e2m1') {
    let best = 0;
    for (let i = 1; i < 8; i++) {
      const d = Math.abs(m - e2m1[i]!) - Math.abs(m - e2m1[best]!);
      if (d < 0 || (d === 0 && i % 2 === 0)) best = i;
    }
    return sign * e2m1[best]!;
  }
  if (m === 0) return 0;
  const exponent = Math.max(Math.floor(Math.log2(m)), -6);
  const step = 2 ** (exponent - 3);
  const q = m / step;
  const down = Math.floor(q);
  const rest = q - down;
  return sign * (rest > 0.5 || (rest === 0.5 && down % 2 === 1) ? down + 1 : down) * step;
}
export function fakeQuant(a: ValueOf<'fake_quant'>['attributes'], x: Matrix): Matrix {
  const [rows, width] = x.shape;
  const out = Float32Array.from(numbersOf(x));
  const most = a.element === 'f8e4m3' ? 448 : 6;
  const each = width / a.heads;
  for (let t = 0; t < rows; t++)
    for (let h = 0; h < a.heads; h++)
      for (let b = 0; b < a.size; b += a.block) {
        const at = t * width + h * each + a.offset + b;
        const block = out.subarray(at, at + a.block);
        const amax = Math.max(a.least, ...block.map(Math.abs));
        const raw = Math.fround(amax / most);
        const scale = a.scale === 'e8m0' ? 2 ** Math.ceil(Math.log2(raw)) : raw;
        for (let i = 0; i < a.block; i++) block[i] = roundTo(a.element, Math.fround(block[i]! / scale)) * scale;
      }
  return tf.tensor2d(out, [rows, width]);
}
