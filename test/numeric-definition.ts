// Encoders in plain scalar words, one element after another, in f32 arithmetic where the kernels use it: what the kernels are held against.
import type { CodedForm, ScaleForm } from '../ir/form.js';
import { codedSizes, scaleSize } from '../ir/form.js';

const f = Math.fround;
const bits = new DataView(new ArrayBuffer(8));
export const bitsOf = (x: number): number => {
  bits.setFloat32(0, x);
  return bits.getUint32(0);
};
export const ofBits = (b: number): number => {
  bits.setUint32(0, b);
  return bits.getFloat32(0);
};
/** The nearest of a rising list of exact values, ties to the even index. */
function nearestOf(list: readonly number[], x: number): number {
  let [low, high] = [0, list.length - 1];
  while (high - low > 1) {
    const mid = (low + high) >> 1;
    if (list[mid]! <= x) low = mid;
    else high = mid;
  }
  const [a, b] = [Math.abs(list[low]! - x), Math.abs(list[high]! - x)];
  return a < b || (a === b && low % 2 === 0) ? low : high;
}
export const even = (x: number): number => {
  const d = x - Math.floor(x);
  return d < 0.5 ? Math.floor(x) : d > 0.5 ? Math.ceil(x) : Math.floor(x) % 2 === 0 ? Math.floor(x) : Math.ceil(x);
};
const e4m3 = Array.from({ length: 127 }, (_, c) => (c < 8 ? c * 2 ** -9 : (1 + (c & 7) / 8) * 2 ** ((c >> 3) - 7)));
const e2m1 = [0, 0.5, 1, 1.5, 2, 3, 4, 6];
const exactF16 = Array.from({ length: 0x7c00 }, (_, c) => (c < 1024 ? c * 2 ** -24 : (1 + (c & 1023) / 1024) * 2 ** ((c >> 10) - 15)));
export function f16Code(x: number): number {
  const sign = bitsOf(x) >>> 31 ? 0x8000 : 0;
  if (Number.isNaN(x)) return sign | 0x7e00;
  const a = Math.abs(x);
  if (a >= 65520) return sign | 0x7c00;
  let [low, high] = [0, exactF16.length - 1];
  while (high - low > 1) {
    const mid = (low + high) >> 1;
    if (exactF16[mid]! <= a) low = mid;
    else high = mid;
  }
  const [p, q] = [a - exactF16[low]!, exactF16[high]! - a];
  return sign | (p < q || (p === q && low % 2 === 0) ? low : high);
}
export const f16Value = (c: number): number => (c & 0x8000 ? -1 : 1) * exactF16[c & 0x7fff]!;
export function bf16Code(x: number): number {
  const b = bitsOf(x);
  if (Number.isNaN(x)) return (b >>> 16) | 0x40;
  const [low, rest] = [b >>> 16, b & 0xffff];
  return rest > 0x8000 || (rest === 0x8000 && low % 2 === 1) ? low + 1 : low;
}
function storedScale(s: number, form: ScaleForm): number {
  if (form === 'bf16' || form === 'bf16-in-f32') return ofBits((bf16Code(s) << 16) >>> 0);
  if (form === 'f32') return s;
  for (let e = -127; e <= 127; e++) if (2 ** e >= s) return 2 ** e;
  return 2 ** 127;
}
/** codes, scales (bytes) and zero points one a byte of values [rows, columns] by absmax. */
export function encode(
  values: Float32Array,
  rows: number,
  columns: number,
  form: CodedForm,
): {
  readonly codes: Uint8Array;
  readonly scales: Uint8Array;
  readonly zeros: Uint8Array;
  readonly decoded: Float32Array;
  /** Quotients more than a half outside the codes' range. */
  readonly saturated: number;
} {
  let saturated = 0;
  const z = codedSizes({ ...form, layout: form.layout === 'row-pairs' ? 'bytes' : form.layout }, rows, columns);
  const codes = new Uint8Array(rows * z.pitch).fill(form.element === 'i4' && form.layout === 'packed' ? (form.zero ? 0 : 0x88) : 0);
  const scales = new Uint8Array(z.scales);
  const view = new DataView(scales.buffer);
  const zeros = new Uint8Array(Math.ceil(rows / form.block[0]) * z.across);
  const decoded = new Float32Array(rows * columns);
  const wide = form.block[1] || columns;
  for (let R = 0; R < rows; R += form.block[0])
    for (let C = 0; C < columns; C += wide) {
      const [r1, c1] = [Math.min(rows, R + form.block[0]), Math.min(columns, C + wide)];
      const at = (R / form.block[0]) * z.across + C / wide;
      let [most, low, high] = [0, 0, 0];
      for (let r = R; r < r1; r++)
        for (let c = C; c < c1; c++) {
          const v = values[r * columns + c]!;
          most = Math.max(most, Math.abs(v));
          low = Math.min(low, v);
          high = Math.max(high, v);
        }
      let s: number;
      let zero = 0;
      if (form.zero) {
        s = storedScale(f(f(high - low) / 15), form.scale) || 1;
        zero = Math.max(0, Math.min(15, even(f(-low / s))));
        zeros[at] = zero;
      } else if (most === 0) s = 1;
      else if (form.element === 'f4e2m1') {
        const e = (bitsOf(most) >>> 23) - 2;
        s = 2 ** (Math.max(0, e) - 127);
      } else s = storedScale(f(most / { i8: 127, i4: 7, f8e4m3: 448 }[form.element]), form.scale) || 1;
      switch (scaleSize(form.scale)) {
        case 1:
          scales[at] = Math.max(0, bitsOf(s) >>> 23);
          break;
        case 2:
          view.setUint16(at * 2, bitsOf(s) >>> 16, true);
          break;
        default:
          view.setFloat32(at * 4, s, true);
      }
      for (let r = R; r < r1; r++)
        for (let c = C; c < c1; c++) {
          const t = f(values[r * columns + c]! / s);
          const [bottom, ceiling] = { i8: [-127, 127], i4: form.zero ? [-zero, 15 - zero] : [-8, 7], f8e4m3: [-448, 448], f4e2m1: [-6, 6] }[
            form.element
          ];
          if (t > ceiling! + 0.5 || t < bottom! - 0.5) saturated++;
          let code: number;
          let value: number;
          if (form.element === 'f8e4m3' || form.element === 'f4e2m1') {
            const list = form.element === 'f8e4m3' ? e4m3 : e2m1;
            const n = nearestOf(list, Math.min(list.at(-1)!, Math.abs(t)));
            const negative = bitsOf(t) >>> 31 === 1;
            value = negative ? -list[n]! : list[n]!;
            code = n | (negative ? (form.element === 'f8e4m3' ? 0x80 : 8) : 0);
          } else {
            const [least, top] = form.element === 'i8' ? [-127, 127] : form.zero ? [-zero, 15 - zero] : [-8, 7];
            value = even(Math.max(least!, Math.min(top!, t)));
            code = form.element === 'i8' || form.layout !== 'packed' ? value & 0xff : value + (form.zero ? zero : 8);
          }
          decoded[r * columns + c] = f(value * s);
          if ((form.element === 'i4' && form.layout === 'packed') || form.element === 'f4e2m1') {
            const p = r * z.pitch + (c >> 1);
            codes[p] = c % 2 === 0 ? (codes[p]! & 0xf0) | code : (codes[p]! & 0x0f) | (code << 4);
            if (form.zero && c === columns - 1 && c % 2 === 0) codes[p]! |= zero << 4; // what fills the last byte stands for 0
          } else codes[r * z.pitch + c] = code;
        }
    }
  return { codes, scales, zeros, decoded, saturated };
}
/** ggml's own rule for a row of blocks of 32. */
export function encodeGguf(type: 'Q8_0' | 'Q4_0', x: Float32Array): Uint8Array {
  const size = type === 'Q8_0' ? 34 : 18;
  const out = new Uint8Array((x.length / 32) * size);
  for (let b = 0; b < x.length / 32; b++) {
    const v = x.subarray(b * 32, b * 32 + 32);
    let top = 0;
    for (const a of v) if (Math.abs(a) > Math.abs(top)) top = a;
    const d = type === 'Q8_0' ? f(Math.abs(top) / 127) : f(top / -8);
    const inverse = d === 0 ? 0 : f(1 / d);
    const h = f16Code(d);
    out[b * size] = h & 0xff;
    out[b * size + 1] = h >> 8;
    v.forEach((a, i) => {
      const t = f(a * inverse);
      if (type === 'Q8_0') out[b * size + 2 + i] = (Math.sign(t) * Math.floor(Math.abs(t) + 0.5)) & 0xff;
      else {
        const q = Math.max(0, Math.min(15, Math.trunc(f(t + 8.5))));
        out[b * size + 2 + (i % 16)]! |= i < 16 ? q : q << 4;
      }
    });
  }
  return out;
}
