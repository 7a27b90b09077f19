// A decoded directory held against the decoded source: byte for byte where the form is the same, else element by element within the storage's bound.
import type { Decoded } from './engine-decode.js';

const infinite = Number.POSITIVE_INFINITY;
const { abs, floor, fround, log2, max, sqrt } = Math; // globals are slow to reach from a test's own context

/** Nearest bf16, half to even. */
const word = new DataView(new ArrayBuffer(4));
export function bf16(x: number): number {
  word.setFloat32(0, x);
  const b = word.getUint32(0);
  word.setUint32(0, ((b + 0x7fff + ((b >>> 16) & 1)) & 0xffff0000) >>> 0);
  return word.getFloat32(0);
}
/** Nearest f16, half to even, of a value within its range. */
export function f16(x: number): number {
  const a = abs(x);
  // adding 1.5 * 2^52 units in the last place leaves the nearest whole number of them, half to even
  const e = a < 2 ** -14 ? -24 : floor(log2(a)) - 10;
  const magic = 1.5 * 2 ** (52 + e);
  return x + magic - magic;
}
const bits = (x: number): number => {
  word.setFloat32(0, x);
  return word.getUint32(0);
};
const isBf16 = (x: number): boolean => (bits(x) & 0xffff) === 0;
const isPower = (x: number): boolean => x > 0 && Number.isInteger(log2(x));

export interface Checked {
  /** How the tensor went: `same bytes`, `rounded`, or its form. */
  readonly how: string;
  /** Squared error over squared values. */
  readonly relative: number;
}
const sameBytes = (a: Decoded, b: Decoded): boolean =>
  a.from.length === b.from.length && a.from.every((t, i) => Buffer.from(t.bytes).equals(Buffer.from(b.from[i]!.bytes)));

/** What is wrong, as a sentence; else how it went. `search`: scales were searched, so blocks may be cut at their ends. */
export function check(name: string, source: Decoded, out: Decoded, search: boolean): Checked | string {
  if (source.shape.join() !== out.shape.join()) return `${name} is [${out.shape}], the source [${source.shape}]`;
  const n = source.values.length;
  let [e2, x2] = [0, 0];
  for (let i = 0; i < n; i++) {
    e2 += (source.values[i]! - out.values[i]!) ** 2;
    x2 += source.values[i]! ** 2;
  }
  const relative = x2 === 0 ? 0 : sqrt(e2 / x2);
  const a = source.coded;
  const b = out.coded;
  const alike = (): boolean =>
    a !== null && b !== null && a.codebook === b.codebook && a.block.join() === b.block.join() && !a.zeros && !b.zeros;
  if (!b) {
    if (source.form === out.form) return sameBytes(source, out) ? { how: 'same bytes', relative } : `${name} has other bytes`;
    const round = { BF16: bf16, F16: f16, F32: (x: number) => x }[out.form];
    if (!round) return `${name} went from ${source.form} to ${out.form}`;
    for (let i = 0; i < n; i++)
      if (out.values[i] !== round(fround(source.values[i]!))) return `${name}[${i}] ${source.values[i]} became ${out.values[i]}`;
    return { how: 'rounded', relative };
  }
  const kind = (dtype: string): string => (dtype === 'U8' ? 'F8_E8M0' : dtype); // engines without the dtype keep exponents in bytes
  if (alike() && kind(a!.scaleDtype) === kind(b.scaleDtype) && sameBytes(source, out)) return { how: 'same bytes', relative };
  return codes(name, source, out, search) ?? { how: out.form, relative };
}

function codes(name: string, source: Decoded, out: Decoded, search: boolean): string | null {
  const b = out.coded!;
  const [rows, columns] = out.shape as [number, number];
  const across = Math.ceil(columns / b.block[1]);
  const blocks = b.scales.length;
  const book = b.codebook.values;
  const top = { int8: 127, int4: 7, e4m3: 448, e2m1: 6 }[b.codebook.name];
  const most = new Float64Array(blocks);
  const low = new Float64Array(blocks);
  const high = new Float64Array(blocks);
  const used = new Float64Array(blocks);
  const gaps = Float64Array.from(book, (_, at) => max(1, gap(book, at)) * 0.5 * (1 + (b.zeros ? 2 ** -3 : 2 ** -12)));
  const cuts = !search && b.codebook.name !== 'e2m1';
  for (let r = 0, i = 0; r < rows; r++)
    for (let c = 0; c < columns; c++, i++) {
      const k = floor(r / b.block[0]) * across + floor(c / b.block[1]);
      const x = fround(source.values[i]!);
      const s = b.scales[k]!;
      const zero = b.zeros ? b.zeros[k]! : 0;
      const at = b.codes[i]!;
      const q = book[at]!;
      if (abs(x) > most[k]!) most[k] = abs(x);
      if (x < low[k]!) low[k] = x;
      if (x > high[k]!) high[k] = x;
      if (abs(q - zero) > used[k]!) used[k] = abs(q - zero);
      // nearest under the scale as it is stored: no neighbour lies nearer, beyond what division in f32 leaves open
      const t = x / s + zero;
      const off = abs(t - q) - abs(t) * 2 ** -22;
      const near = off > abs(t - (book[at - 1] ?? infinite)) ? at - 1 : off > abs(t - (book[at + 1] ?? infinite)) ? at + 1 : at;
      if (near !== at) return `${name}[${r}, ${c}] is ${x}, ${t} steps; its code is ${q}, ${book[near]} lies nearer`;
      // nothing is cut at the ends of the codes, save where it pays
      if (cuts && abs(t - q) > gaps[at]!) return `${name}[${r}, ${c}] is ${x}, ${t} steps; its code is ${q}`;
    }
  for (let k = 0; k < blocks; k++) {
    const s = b.scales[k]!;
    if (!(s > 0 && Number.isFinite(s))) return `${name} has the scale ${s}`;
    if (b.scaleDtype === 'BF16' && !isBf16(s)) return `${name} has the scale ${s}`;
    if (most[k] === 0) {
      if (used[k] !== 0) return `${name}: a block of zeros has a code of ${used[k]}`;
      continue;
    }
    if (search) continue;
    // the largest magnitude lies on the largest code, as near as the scale's own storage lets it
    const reach = b.zeros ? (high[k]! - low[k]!) / s / 15 : most[k]! / s / top;
    const power = b.scaleDtype === 'F8_E8M0' || b.scaleDtype === 'U8' || (b.codebook.name === 'e4m3' && isPower(s));
    const [least, largest] = power ? (b.codebook.name === 'e2m1' ? [4 / 6, 8 / 6] : [0.5, 1]) : [1 - 2 ** -7.5, 1 + 2 ** -7.5];
    if (reach < least * (1 - 1e-6) || reach > largest * (1 + 1e-6)) return `${name} block ${k} reaches ${most[k]! / s} of ${top}`;
  }
  return null;
}
const gap = (book: readonly number[], at: number): number =>
  max(book[at]! - (book[at - 1] ?? book[at]!), (book[at + 1] ?? book[at]!) - book[at]!);
