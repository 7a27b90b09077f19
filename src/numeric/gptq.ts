// GPTQ: columns in order, each rounded, its error moved to the columns that follow by the inverse of the inputs' second moments.
// (Frantar et al. 2022, arXiv 2210.17323, algorithm 1.) In f64 on the main path of a matrix that fits in memory; groups take their scales
// when they are reached, from the values as they then are.
import { type CodedForm, codedSizes } from '../../ir/form.js';
import { elements } from '../../ir/storage.js';

const round = (x: number): number => {
  const f = Math.floor(x);
  const d = x - f;
  return d < 0.5 ? f : d > 0.5 ? f + 1 : f % 2 === 0 ? f : f + 1;
};
const single = Math.fround;
const view = new DataView(new ArrayBuffer(4));
function toBf16(x: number): number {
  view.setFloat32(0, x);
  const b = view.getUint32(0);
  view.setUint32(0, ((b + 0x7fff + ((b >>> 16) & 1)) >>> 16) << 16);
  return view.getFloat32(0);
}

/** Upper Cholesky factor U of the inverse of H [n, n]: H^-1 = U^T U. Damped by a hundredth of the mean diagonal; unused columns count 1. */
export function inverseFactor(gram: Float32Array, n: number): Float64Array {
  const h = Float64Array.from(gram);
  let mean = 0;
  for (let i = 0; i < n; i++) mean += h[i * n + i]! / n;
  for (let i = 0; i < n; i++) {
    if (h[i * n + i] === 0) h[i * n + i] = mean || 1;
    h[i * n + i]! += 0.01 * (mean || 1);
  }
  cholesky(h, n); // lower L, H = L L^T
  // H^-1 = L^-T L^-1
  const inv = new Float64Array(n * n);
  for (let c = 0; c < n; c++) {
    for (let r = c; r < n; r++) {
      let s = r === c ? 1 : 0;
      for (let k = c; k < r; k++) s -= h[r * n + k]! * inv[k * n + c]!;
      inv[r * n + c] = s / h[r * n + r]!;
    }
  }
  const full = new Float64Array(n * n);
  for (let i = 0; i < n; i++)
    for (let j = 0; j <= i; j++) {
      let s = 0;
      for (let k = i; k < n; k++) s += inv[k * n + i]! * inv[k * n + j]!;
      full[i * n + j] = s;
      full[j * n + i] = s;
    }
  cholesky(full, n);
  const upper = new Float64Array(n * n);
  for (let i = 0; i < n; i++) for (let j = i; j < n; j++) upper[i * n + j] = full[j * n + i]!;
  return upper;
}
/** In place, lower triangle. */
function cholesky(a: Float64Array, n: number): void {
  for (let j = 0; j < n; j++) {
    for (let i = j; i < n; i++) {
      let s = a[i * n + j]!;
      for (let k = 0; k < j; k++) s -= a[i * n + k]! * a[j * n + k]!;
      a[i * n + j] = i === j ? Math.sqrt(Math.max(s, 1e-30)) : s / a[j * n + j]!;
    }
  }
}

/**
 * @param values f32 [rows, columns] @param gram f32 [columns, columns], sums of x x^T over the inputs
 * @returns codes and scales in the form's layout, and the figures' eleven sums
 */
export function gptqRows(
  values: Float32Array,
  rows: number,
  columns: number,
  form: CodedForm,
  gram: Float32Array,
): { readonly codes: Uint8Array; readonly scales: Uint8Array; readonly figures: Float64Array } {
  if ((form.element !== 'i8' && form.element !== 'i4') || form.zero || form.layout !== 'packed' || form.block[0] !== 1)
    throw new Error('gptq rounds to symmetric int8 and int4 along rows');
  const [low, high] = form.element === 'i8' ? [-127, 127] : [-8, 7];
  const group = form.block[1] || columns;
  const z = codedSizes(form, rows, columns);
  const codes = new Uint8Array(rows * z.pitch).fill(form.element === 'i4' ? 0x88 : 0);
  const scaleBits = form.scale === 'bf16' ? 2 : 4;
  const scales = new Uint8Array(rows * z.across * scaleBits);
  const out = new DataView(scales.buffer);
  const u = inverseFactor(gram, columns);
  const figures = new Float64Array(12);
  const w = new Float64Array(columns);
  const half = elements[form.element].bits === 4;
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < columns; c++) w[c] = values[r * columns + c]!;
    let scale = 1;
    let alive = false;
    for (let c = 0; c < columns; c++) {
      if (c % group === 0) {
        scale = bestScale(w, c, Math.min(columns, c + group), high, low, form.scale, u, columns);
        const at = (r * z.across + c / group) * scaleBits;
        if (scaleBits === 2) {
          view.setFloat32(0, scale);
          out.setUint16(at, view.getUint16(0), true);
        } else out.setFloat32(at, scale, true);
        figures[9] = figures[9] === 0 ? scale : Math.min(figures[9]!, scale);
        figures[10] = Math.max(figures[10]!, scale);
      }
      const t = single(single(w[c]!) / scale);
      const q = Math.max(low, Math.min(high, round(t)));
      if (t < low - 0.5 || t > high + 0.5) figures[5]!++;
      const e = (w[c]! - q * scale) / u[c * columns + c]!;
      for (let k = c + 1; k < columns; k++) w[k]! -= e * u[c * columns + k]!;
      if (half) {
        const at = r * z.pitch + (c >> 1);
        codes[at] = c % 2 === 0 ? (codes[at]! & 0xf0) | (q + 8) : (codes[at]! & 0x0f) | ((q + 8) << 4);
      } else codes[r * z.pitch + c] = q & 0xff;
      const x = values[r * columns + c]!;
      const d = x - q * scale;
      figures[0]! += x * x;
      figures[1]! += d * d;
      figures[2]! += q * scale * (q * scale);
      figures[3] = Math.max(figures[3]!, Math.abs(x));
      figures[4] = Math.max(figures[4]!, Math.abs(d));
      if (x !== 0) alive = true;
    }
    if (!alive) figures[8]!++;
  }
  figures[11] = rows * columns;
  return { codes, scales, figures };
}
/** The scale with the least squared error of a group as it stands, columns weighed by how much their error costs. */
function bestScale(
  w: Float64Array,
  from: number,
  to: number,
  high: number,
  low: number,
  storage: CodedForm['scale'],
  u: Float64Array,
  n: number,
): number {
  let most = 0;
  for (let c = from; c < to; c++) most = Math.max(most, Math.abs(w[c]!));
  if (most === 0) return 1;
  const stored = (s: number): number => (storage === 'bf16' || storage === 'bf16-in-f32' ? toBf16(single(s)) : single(s));
  const start = most / high;
  let best = stored(start) || 1;
  let least = Number.POSITIVE_INFINITY;
  for (let i = 0; i < 24; i++) {
    const s = stored(start * (1 - (high === 127 ? 0.0125 : 0.025) * i));
    if (s === 0) break;
    let e = 0;
    for (let c = from; c < to; c++) {
      const d = (w[c]! - Math.max(low, Math.min(high, round(w[c]! / s))) * s) / u[c * n + c]!;
      e += d * d;
    }
    if (e < least) {
      least = e;
      best = s;
    }
  }
  return best;
}
