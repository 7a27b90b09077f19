// GPTQ: columns in order, each rounded, its error made good by the columns that follow, so that the outputs over the inputs seen change least.
// (Frantar et al. 2022, arXiv 2210.17323.) Said here without the inverse of the second moments H: with H = R R^T, R upper triangular, the squared
// error of a row's outputs is |(w - q)^T R|^2, and its term for column j is the last that column j decides:
//   t_j = w_j + (sum over i < j of (w_i - q_i) R_ij) / R_jj,   q_j = the code next to t_j
// which gives the same codes as the updates by the inverse's factor (test/gptq.test.ts holds both against each other). In f64, in one order: the
// same bytes on every machine. A group's scale is found when its first column is reached, from the t of its columns as they then are.
import { type CodedForm, codedSizes } from '../../ir/form.js';
import { elements } from '../../ir/storage.js';

/** Changes when codes may change: files made by another one are not taken for the same. */
export const gptqRevision = 2;

// the functions by names of their own: a look-up through the global object for each value would cost most of the time
const { abs, floor, fround: single, max, min, sqrt } = Math;
const { isFinite: finite, isNaN: nan } = Number;

const round = (x: number): number => {
  const f = floor(x);
  const d = x - f;
  return d < 0.5 ? f : d > 0.5 ? f + 1 : f % 2 === 0 ? f : f + 1;
};
const view = new DataView(new ArrayBuffer(4));
function toBf16(x: number): number {
  view.setFloat32(0, x);
  const b = view.getUint32(0);
  view.setUint32(0, ((b + 0x7fff + ((b >>> 16) & 1)) >>> 16) << 16);
  return view.getFloat32(0);
}
/** A hundredth of the mean diagonal is added to the diagonal, so that directions no input took stay finite. */
const damping = 0.01;

/**
 * The upper triangular R with R R^T = H, H = gram damped; columns that nothing came into count as the mean one, apart from all others.
 * @param gram f32 [n, n], symmetric, no negative eigenvalues but for rounding
 */
export function upperFactor(gram: Float32Array, n: number): Float64Array {
  const r = new Float64Array(n * n);
  let mean = 0;
  for (let i = 0; i < n; i++) mean += gram[i * n + i]! / n;
  if (!(mean > 0)) mean = 1;
  for (let i = 0; i < n; i++) {
    for (let j = i; j < n; j++) r[i * n + j] = gram[i * n + j]!;
    if (r[i * n + i] === 0) r[i * n + i] = mean;
    r[i * n + i]! += damping * mean;
  }
  const wide = 64;
  const deep = 512;
  for (let to = n; to > 0; to -= wide) {
    const from = max(0, to - wide);
    // what columns after these have decided already, in tiles that stay in cache
    for (let k0 = to; k0 < n; k0 += deep) {
      const k1 = min(n, k0 + deep);
      for (let i = 0; i < to; i++) {
        let j = max(from, i);
        for (; j + 4 <= to; j += 4) {
          const ri = i * n;
          const rj = j * n;
          let [a, b, c, d] = [0, 0, 0, 0];
          for (let k = k0; k < k1; k++) {
            const x = r[ri + k]!;
            a += x * r[rj + k]!;
            b += x * r[rj + n + k]!;
            c += x * r[rj + 2 * n + k]!;
            d += x * r[rj + 3 * n + k]!;
          }
          r[ri + j]! -= a;
          r[ri + j + 1]! -= b;
          r[ri + j + 2]! -= c;
          r[ri + j + 3]! -= d;
        }
        for (; j < to; j++) {
          let a = 0;
          for (let k = k0; k < k1; k++) a += r[i * n + k]! * r[j * n + k]!;
          r[i * n + j]! -= a;
        }
      }
    }
    for (let j = to - 1; j >= from; j--) {
      let own = r[j * n + j]!;
      for (let k = j + 1; k < to; k++) own -= r[j * n + k]! * r[j * n + k]!;
      const pivot = sqrt(max(own, 1e-9 * mean)); // damped, it is above; rounding alone could bring it here
      r[j * n + j] = pivot;
      for (let i = 0; i < j; i++) {
        let s = r[i * n + j]!;
        for (let k = j + 1; k < to; k++) s -= r[i * n + k]! * r[j * n + k]!;
        r[i * n + j] = s / pivot;
      }
    }
  }
  return r;
}

export interface GptqResult {
  readonly codes: Uint8Array;
  readonly scales: Uint8Array;
  /** The figures' twelve sums, as the kernels have them. */
  readonly figures: Float64Array;
}
/** Rows taken together: R is read once for all of them. */
const rowsAtOnce = 64;

/**
 * @param values f32 [rows, columns] @param gram f32 [columns, columns], the mean of x x^T over the inputs
 * @returns codes and scales in the form's layout
 */
export function gptqRows(values: Float32Array, rows: number, columns: number, form: CodedForm, gram: Float32Array): GptqResult {
  if ((form.element !== 'i8' && form.element !== 'i4') || form.zero || form.layout !== 'packed' || form.block[0] !== 1)
    throw new Error('gptq rounds to symmetric int8 and int4 along rows');
  const [low, high] = form.element === 'i8' ? [-127, 127] : [-8, 7];
  const group = form.block[1] || columns;
  // columns whose effect on all that follow waits until they are done; groups do not straddle them
  const width = group >= columns ? 128 : group * max(1, floor(128 / group));
  const z = codedSizes(form, rows, columns);
  const half = elements[form.element].bits === 4;
  const codes = new Uint8Array(rows * z.pitch).fill(half ? 0x88 : 0);
  const scaleBytes = form.scale === 'bf16' ? 2 : 4;
  const scales = new Uint8Array(rows * z.across * scaleBytes);
  const out = new DataView(scales.buffer);
  const factor = upperFactor(gram, columns);
  const figures = new Float64Array(12);
  const t = new Float64Array(max(group, 1));
  const behind = new Float64Array(rowsAtOnce * columns); // sum of (w - q) R over the columns done, for the columns to come
  const errors = new Float64Array(rowsAtOnce * width);
  const scaleOf = new Float64Array(rowsAtOnce);
  const alive = new Uint8Array(rowsAtOnce);
  for (let r0 = 0; r0 < rows; r0 += rowsAtOnce) {
    const n = min(rowsAtOnce, rows - r0);
    behind.fill(0);
    alive.fill(0);
    for (let c0 = 0; c0 < columns; c0 += width) {
      const c1 = min(columns, c0 + width);
      for (let r = 0; r < n; r++) {
        const sum = r * columns;
        const at = (r0 + r) * columns;
        for (let c = c0; c < c1; c++) {
          if (c % group === 0) {
            const end = min(columns, c + group);
            for (let k = c; k < end; k++) t[k - c] = values[at + k]! + behind[sum + k]! / factor[k * columns + k]!;
            const scale = bestScale(t, end - c, high, low, form.scale, factor, columns, c);
            scaleOf[r] = scale;
            const place = ((r0 + r) * z.across + c / group) * scaleBytes;
            if (scaleBytes === 2) {
              view.setFloat32(0, scale);
              out.setUint16(place, view.getUint16(0), true);
            } else out.setFloat32(place, scale, true);
            figures[9] = figures[9] === 0 ? scale : min(figures[9]!, scale);
            figures[10] = max(figures[10]!, scale);
          }
          const scale = scaleOf[r]!;
          const x = values[at + c]!;
          const wish = single(single(x + behind[sum + c]! / factor[c * columns + c]!) / scale);
          if (wish < low - 0.5 || wish > high + 0.5) figures[5]!++;
          const q = finite(wish) ? max(low, min(high, round(wish))) : 0;
          const y = q * scale;
          const d = x - y;
          errors[r * width + c - c0] = d;
          const line = c * columns;
          for (let k = c + 1; k < c1; k++) behind[sum + k]! += d * factor[line + k]!;
          if (half) {
            const byte = (r0 + r) * z.pitch + (c >> 1);
            codes[byte] = c % 2 === 0 ? (codes[byte]! & 0xf0) | (q + 8) : (codes[byte]! & 0x0f) | ((q + 8) << 4);
          } else codes[(r0 + r) * z.pitch + c] = q & 0xff;
          if (!finite(x)) figures[nan(x) ? 6 : 7]!++;
          if (x !== 0) alive[r] = 1;
          figures[0]! += x * x;
          figures[1]! += d * d;
          figures[2]! += y * y;
          figures[3] = max(figures[3]!, abs(x));
          figures[4] = max(figures[4]!, abs(d));
        }
      }
      spread(behind, errors, factor, n, columns, c0, c1, width);
    }
    for (let r = 0; r < n; r++) if (!alive[r]) figures[8]!++;
  }
  figures[11] = rows * columns;
  return { codes, scales, figures };
}
/** behind[:, c1..] += errors[:, c0..c1] R[c0..c1, c1..]: four rows of R at a time, a stretch of them that stays in cache. */
function spread(
  behind: Float64Array,
  errors: Float64Array,
  factor: Float64Array,
  rows: number,
  columns: number,
  c0: number,
  c1: number,
  width: number,
): void {
  const long = 1024;
  for (let k0 = c1; k0 < columns; k0 += long) {
    const k1 = min(columns, k0 + long);
    let c = c0;
    for (; c + 4 <= c1; c += 4) {
      const f = c * columns;
      for (let r = 0; r < rows; r++) {
        const e = r * width + c - c0;
        const [d0, d1, d2, d3] = [errors[e]!, errors[e + 1]!, errors[e + 2]!, errors[e + 3]!];
        const sum = r * columns;
        for (let k = k0; k < k1; k++)
          behind[sum + k]! +=
            d0 * factor[f + k]! + d1 * factor[f + columns + k]! + (d2 * factor[f + 2 * columns + k]! + d3 * factor[f + 3 * columns + k]!);
      }
    }
    for (; c < c1; c++)
      for (let r = 0; r < rows; r++) {
        const d = errors[r * width + c - c0]!;
        for (let k = k0; k < k1; k++) behind[r * columns + k]! += d * factor[c * columns + k]!;
      }
  }
}
/** The scale with the least squared error of a group as it stands, columns weighed by what their error costs when none follows to make it good. */
function bestScale(
  t: Float64Array,
  count: number,
  high: number,
  low: number,
  storage: CodedForm['scale'],
  factor: Float64Array,
  n: number,
  from: number,
): number {
  let most = 0;
  for (let c = 0; c < count; c++) most = max(most, abs(t[c]!));
  if (!(most > 0) || !finite(most)) return 1;
  const stored = (s: number): number => (storage === 'bf16' || storage === 'bf16-in-f32' ? toBf16(single(s)) : single(s));
  const start = most / high;
  let best = stored(start) || 1;
  let least = Number.POSITIVE_INFINITY;
  for (let i = 0; i < 24; i++) {
    const s = stored(start * (1 - (high === 127 ? 0.0125 : 0.025) * i));
    if (s === 0) break;
    let e = 0;
    for (let c = 0; c < count; c++) {
      const d = (t[c]! - max(low, min(high, round(t[c]! / s))) * s) * factor[(from + c) * (n + 1)]!;
      e += d * d;
    }
    if (e < least) {
      least = e;
      best = s;
    }
  }
  return best;
}
