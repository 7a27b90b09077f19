// GPTQ against its textbook form (the inverse, one column eliminated after another), against every choice of codes on tiny rows, and where inputs
// are degenerate.
import { describe, expect, it } from '@jest/globals';
import { type CodedForm, coded, codedSizes, storageOf } from '../ir/form.js';
import { decodeMatrix } from '../src/numeric/decode.js';
import { type GptqResult, gptqRows, upperFactor } from '../src/numeric/gptq.js';
import { encode, even } from './numeric-definition.js';

let state = 7;
/** Uniform in (-1, 1); the same every time. */
const unit = (): number => {
  state ^= state << 13;
  state ^= state >>> 17;
  state ^= state << 5;
  return (state >>> 0) / 2147483648 - 1;
};
const uniform = (n: number): Float32Array => Float32Array.from({ length: n }, unit);
/** The mean of x x^T over inputs whose columns are mixed: neighbours go together. */
function gramOf(samples: number, n: number, dead: readonly number[] = []): Float32Array {
  const g = new Float64Array(n * n);
  for (let s = 0; s < samples; s++) {
    const raw = uniform(n + 2);
    const x = Float64Array.from({ length: n }, (_, i) => (dead.includes(i) ? 0 : (raw[i]! + raw[i + 1]! + raw[i + 2]!) * (1 + (i % 5))));
    for (let i = 0; i < n; i++) for (let j = 0; j < n; j++) g[i * n + j]! += (x[i]! * x[j]!) / samples;
  }
  return Float32Array.from(g);
}
function damped(gram: Float32Array, n: number): Float64Array {
  const h = Float64Array.from(gram);
  let mean = 0;
  for (let i = 0; i < n; i++) mean += h[i * (n + 1)]! / n;
  for (let i = 0; i < n; i++) {
    if (h[i * (n + 1)] === 0) h[i * (n + 1)] = mean;
    h[i * (n + 1)]! += 0.01 * mean;
  }
  return h;
}
function inverse(h: Float64Array, n: number): Float64Array {
  const a = h.slice();
  const inv = new Float64Array(n * n);
  for (let i = 0; i < n; i++) inv[i * (n + 1)] = 1;
  for (let p = 0; p < n; p++) {
    const d = a[p * (n + 1)]!;
    for (let j = 0; j < n; j++) {
      a[p * n + j]! /= d;
      inv[p * n + j]! /= d;
    }
    for (let i = 0; i < n; i++) {
      if (i === p) continue;
      const f = a[i * n + p]!;
      for (let j = 0; j < n; j++) {
        a[i * n + j]! -= f * a[p * n + j]!;
        inv[i * n + j]! -= f * inv[p * n + j]!;
      }
    }
  }
  return inv;
}
/** Codes times scales of a row, as the textbook has it: round a column, make its error good in the others, take it out of the inverse. */
function textbook(row: Float32Array, gram: Float32Array, scales: readonly number[], group: number, low: number, high: number): number[] {
  const n = row.length;
  const inv = inverse(damped(gram, n), n);
  const w = Float64Array.from(row);
  const y: number[] = [];
  for (let c = 0; c < n; c++) {
    const s = scales[Math.floor(c / group)]!;
    const q = Math.max(low, Math.min(high, even(w[c]! / s)));
    y.push(q * s);
    const e = (w[c]! - q * s) / inv[c * (n + 1)]!;
    for (let k = c + 1; k < n; k++) w[k]! -= e * inv[c * n + k]!;
    const line = Float64Array.from({ length: n }, (_, k) => inv[c * n + k]!);
    const d = inv[c * (n + 1)]!;
    for (let i = 0; i < n; i++) for (let j = 0; j < n; j++) inv[i * n + j]! -= (line[i]! * line[j]!) / d;
  }
  return y;
}
function decoded(form: CodedForm, rows: number, columns: number, made: GptqResult): Float32Array {
  // rows of codes are whole words in memory; the definition reads whole bytes
  const { pitch } = codedSizes(form, rows, columns);
  const tight = Math.ceil((columns * (form.element === 'i4' ? 4 : 8)) / 8);
  const codes = new Uint8Array(rows * tight);
  for (let r = 0; r < rows; r++) codes.set(made.codes.subarray(r * pitch, r * pitch + tight), r * tight);
  return decodeMatrix(storageOf(form)!, codes, made.scales, rows, columns);
}
function scalesOf(form: CodedForm, rows: number, columns: number, bytes: Uint8Array): number[][] {
  const { across } = codedSizes(form, rows, columns);
  const v = new DataView(bytes.buffer);
  const bits = new DataView(new ArrayBuffer(4));
  return Array.from({ length: rows }, (_, r) =>
    Array.from({ length: across }, (_, g) => {
      if (form.scale !== 'bf16') return v.getFloat32(4 * (r * across + g), true);
      bits.setUint32(0, v.getUint16(2 * (r * across + g), true) << 16);
      return bits.getFloat32(0);
    }),
  );
}
/** Summed over rows: (w - y)^T H (w - y). */
function loss(w: Float32Array, y: ArrayLike<number>, h: ArrayLike<number>, rows: number, n: number): number {
  let sum = 0;
  for (let r = 0; r < rows; r++)
    for (let i = 0; i < n; i++)
      for (let j = 0; j < n; j++)
        sum += (w[r * n + i]! - (y[r * n + i] as number)) * (h[i * n + j] as number) * (w[r * n + j]! - (y[r * n + j] as number));
  return sum;
}
const forms: readonly (readonly [string, CodedForm, number])[] = [
  ['int4 in groups of 8', coded('i4', [1, 8], 'bf16', { search: 'gptq' }), 32],
  ['int4 in groups of 32, the last one short', coded('i4', [1, 32], 'bf16', { search: 'gptq' }), 72],
  ['int4 in groups of 32, more columns than are done at once', coded('i4', [1, 32], 'f32', { search: 'gptq' }), 320],
  ['int4, a scale a row', coded('i4', [1, 0], 'f32', { search: 'gptq' }), 152],
  ['int8, a scale a row', coded('i8', [1, 0], 'bf16-in-f32', { search: 'gptq' }), 150],
];

describe('gptq', () => {
  it('factors: R R^T is the damped second moments, R upper triangular', () => {
    for (const n of [1, 5, 64, 150]) {
      const gram = gramOf(3 * n, n);
      const r = upperFactor(gram, n);
      const h = damped(gram, n);
      for (let i = 0; i < n; i++)
        for (let j = i; j < n; j++) {
          let sum = 0;
          for (let k = j; k < n; k++) sum += r[i * n + k]! * r[j * n + k]!;
          expect(Math.abs(sum - h[i * n + j]!)).toBeLessThan(1e-9 * h[i * (n + 1)]! + 1e-9);
        }
    }
  });
  for (const [name, form, columns] of forms)
    it(`${name}: the textbook's values under the same scales, and less error over the inputs than the nearest codes`, () => {
      const rows = 5;
      const gram = gramOf(2 * columns, columns);
      const w = uniform(rows * columns);
      const made = gptqRows(w, rows, columns, form, gram);
      const y = decoded(form, rows, columns, made);
      const scales = scalesOf(form, rows, columns, made.scales);
      const [low, high] = form.element === 'i8' ? [-127, 127] : [-8, 7];
      let other = 0;
      for (let r = 0; r < rows; r++)
        textbook(w.subarray(r * columns, (r + 1) * columns), gram, scales[r]!, form.block[1] || columns, low, high).forEach((v, c) => {
          if (Math.abs(v - y[r * columns + c]!) > 1e-6) other++;
        });
      expect(other).toBe(0);
      const plain = encode(w, rows, columns, { ...form, search: 'absmax' });
      const h = damped(gram, columns);
      expect(loss(w, y, h, rows, columns)).toBeLessThan(0.8 * loss(w, plain.decoded, h, rows, columns));
      // the figures say what was lost
      let squares = 0;
      for (let i = 0; i < w.length; i++) squares += (w[i]! - y[i]!) ** 2;
      expect(Math.abs(made.figures[1]! / squares - 1)).toBeLessThan(1e-4);
      expect(made.figures[11]).toBe(rows * columns);
    });
  it('lies between the best of all codes and the nearest ones', () => {
    const [n, rows] = [4, 40];
    const form = coded('i4', [1, 0], 'f32', { search: 'gptq' });
    const gram = gramOf(30, n);
    const h = damped(gram, n);
    const w = uniform(rows * n);
    const made = gptqRows(w, rows, n, form, gram);
    const y = decoded(form, rows, n, made);
    const scales = scalesOf(form, rows, n, made.scales);
    let [best, mine, nearest] = [0, 0, 0];
    for (let r = 0; r < rows; r++) {
      const row = w.subarray(r * n, (r + 1) * n);
      const s = scales[r]![0]!;
      let least = Number.POSITIVE_INFINITY;
      for (let q = 0; q < 16 ** n; q++)
        least = Math.min(
          least,
          loss(
            row,
            Array.from({ length: n }, (_, i) => (((q >> (4 * i)) & 15) - 8) * s),
            h,
            1,
            n,
          ),
        );
      const own = loss(row, y.subarray(r * n, (r + 1) * n), h, 1, n);
      expect(own).toBeGreaterThanOrEqual(least * (1 - 1e-5));
      best += least;
      mine += own;
      nearest += loss(
        row,
        [...row].map(v => Math.max(-8, Math.min(7, even(v / s))) * s),
        h,
        1,
        n,
      );
    }
    expect(best).toBeLessThan(mine);
    expect(mine).toBeLessThan(nearest);
  });
  it('rounds columns that nothing comes into by themselves', () => {
    const n = 24;
    const dead = [3, 4, 17];
    const form = coded('i4', [1, 0], 'f32', { search: 'gptq' });
    const gram = gramOf(60, n, dead);
    const w = uniform(6 * n);
    const made = gptqRows(w, 6, n, form, gram);
    const y = decoded(form, 6, n, made);
    const scales = scalesOf(form, 6, n, made.scales);
    for (let r = 0; r < 6; r++)
      for (const c of dead) {
        const s = scales[r]![0]!;
        expect(y[r * n + c]).toBe(Math.fround(Math.max(-8, Math.min(7, even(Math.fround(w[r * n + c]! / s)))) * s) + 0);
      }
    // no input at all: the nearest codes everywhere
    const none = gptqRows(w, 6, n, form, new Float32Array(n * n));
    const plain = scalesOf(form, 6, n, none.scales);
    decoded(form, 6, n, none).forEach((v, i) => {
      const s = plain[Math.floor(i / n)]![0]!;
      expect(v + 0).toBe(Math.fround(Math.max(-8, Math.min(7, even(Math.fround(w[i]! / s)))) * s) + 0);
    });
  });
  it('bears fewer inputs than columns', () => {
    const n = 96;
    const form = coded('i4', [1, 32], 'bf16', { search: 'gptq' });
    for (const samples of [1, 5]) {
      const gram = gramOf(samples, n);
      const w = uniform(4 * n);
      const made = gptqRows(w, 4, n, form, gram);
      const y = decoded(form, 4, n, made);
      expect(y.every(Number.isFinite)).toBe(true);
      expect(loss(w, y, gram, 4, n)).toBeLessThan(0.5 * loss(w, encode(w, 4, n, { ...form, search: 'absmax' }).decoded, gram, 4, n));
    }
  });
  it('gives a row the same whatever rows stand beside it, twice the same', () => {
    const [n, rows] = [40, 130];
    const form = coded('i4', [1, 32], 'bf16', { search: 'gptq' });
    const gram = gramOf(80, n);
    const w = uniform(rows * n);
    const all = gptqRows(w, rows, n, form, gram);
    const { pitch, across } = codedSizes(form, rows, n);
    expect(gptqRows(w, rows, n, form, gram)).toEqual(all);
    for (const r of [0, 63, 64, 129]) {
      const one = gptqRows(w.slice(r * n, (r + 1) * n), 1, n, form, gram);
      expect([...one.codes]).toEqual([...all.codes.subarray(r * pitch, (r + 1) * pitch)]);
      expect([...one.scales]).toEqual([...all.scales.subarray(r * across * 2, (r + 1) * across * 2)]);
    }
  });
  it('counts what is no number, and rows of nothing', () => {
    const form = coded('i8', [1, 0], 'f32', { search: 'gptq' });
    const w = uniform(3 * 16);
    w.fill(0, 16, 32);
    w[3] = Number.NaN;
    w[40] = Number.POSITIVE_INFINITY;
    const { figures } = gptqRows(w, 3, 16, form, gramOf(40, 16));
    expect([figures[6], figures[7], figures[8]]).toEqual([1, 1, 1]);
  });
  it('is not for forms with zero points, rows in pairs, or other codes', () => {
    for (const form of [
      coded('i4', [1, 32], 'bf16', { zero: true }),
      coded('i4', [1, 0], 'f32', { layout: 'row-pairs' }),
      coded('f8e4m3', [1, 32], 'e8m0'),
      coded('i8', [4, 0], 'f32'),
    ])
      expect(() => gptqRows(new Float32Array(64), 2, 32, form, new Float32Array(1024))).toThrow('symmetric int8 and int4');
  });
});
