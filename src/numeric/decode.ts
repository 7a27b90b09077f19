// Bytes of a storage to f32: the definition in plain words, one element after another. Exact: no code has more digits than f32.
import type { Span, ValueOf } from '../../ir/graph.js';
import { elements, type Storage, scaleShape } from '../../ir/storage.js';

/** 2^k by exact multiplications: what ends in emitted bytes does not depend on a host's pow. */
function powerOfTwo(k: number): number {
  let p = 1;
  for (let i = 0; i < Math.abs(k); i++) p *= k < 0 ? 0.5 : 2;
  return p;
}
const f4e2m1 = Float32Array.of(0, 0.5, 1, 1.5, 2, 3, 4, 6, -0, -0.5, -1, -1.5, -2, -3, -4, -6);
const e4m3 = Float32Array.from({ length: 256 }, (_, b) => {
  const m = b & 0x7f;
  if (m === 0x7f) return Number.NaN;
  const v = m < 8 ? m * powerOfTwo(-9) : (1 + (m & 7) / 8) * powerOfTwo((m >> 3) - 7);
  return b & 0x80 ? -v : v;
});
const e8m0 = Float32Array.from({ length: 256 }, (_, b) => (b === 255 ? Number.NaN : powerOfTwo(b - 127)));
/** The value of an f16 code. */
export function fromF16(h: number): number {
  const sign = h & 0x8000 ? -1 : 1;
  const e = (h >> 10) & 31;
  const m = h & 0x3ff;
  if (e === 31) return m ? Number.NaN : sign * Number.POSITIVE_INFINITY;
  return sign * (e === 0 ? m * powerOfTwo(-24) : (1 + m / 1024) * powerOfTwo(e - 15));
}

/** Plain numbers in memory order; bytes of any alignment. */
function plain(element: string, bytes: Uint8Array, into: Float32Array): Float32Array {
  const v = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const n = into.length;
  switch (element) {
    case 'f32':
      new Uint8Array(into.buffer, into.byteOffset, n * 4).set(bytes.subarray(0, n * 4));
      return into;
    case 'bf16': {
      const u = new Uint32Array(into.buffer, into.byteOffset, n);
      for (let i = 0; i < n; i++) u[i] = (bytes[2 * i]! << 16) | (bytes[2 * i + 1]! << 24);
      return into;
    }
    case 'f16':
      for (let i = 0; i < n; i++) into[i] = fromF16(v.getUint16(2 * i, true));
      return into;
    case 'i8':
      for (let i = 0; i < n; i++) into[i] = v.getInt8(i);
      return into;
    case 'u8':
      for (let i = 0; i < n; i++) into[i] = bytes[i]!;
      return into;
    case 'i32':
      for (let i = 0; i < n; i++) into[i] = v.getInt32(4 * i, true);
      return into;
    case 'f8e4m3':
      for (let i = 0; i < n; i++) into[i] = e4m3[bytes[i]!]!;
      return into;
    case 'e8m0':
      for (let i = 0; i < n; i++) into[i] = e8m0[bytes[i]!]!;
      return into;
    default:
      throw new Error(`${element} is not decoded to f32`);
  }
}

/**
 * A matrix [rows, columns] as f32. `scales` are those of these rows alone, from the first block on; null for a plain storage.
 * Half-byte codes: rows begin at whole bytes.
 */
export function decodeMatrix(
  s: Storage,
  codes: Uint8Array,
  scales: Uint8Array | null,
  rows: number,
  columns: number,
  into = new Float32Array(rows * columns),
): Float32Array {
  if (s.kind === 'plain') return plain(s.element, codes, into);
  if (scales === null) throw new Error('a scaled storage has scales');
  const [sr, sc] = scaleShape(s, rows, columns);
  const scale = plain(s.scale, scales, new Float32Array(sr * sc));
  const [br, bc] = [s.block[0], s.block[1] === 0 ? columns : s.block[1]];
  const pitch = Math.ceil((columns * elements[s.element].bits) / 8);
  for (let r = 0; r < rows; r++) {
    const row = codes.subarray(r * pitch, (r + 1) * pitch);
    const first = Math.floor(r / br) * sc;
    const at = r * columns;
    for (let c = 0; c < columns; c++) {
      let v: number;
      switch (s.element) {
        case 'i8':
          v = (row[c]! << 24) >> 24;
          break;
        case 'f8e4m3':
          v = e4m3[row[c]!]!;
          break;
        case 'i4':
          v = ((row[c >> 1]! >> ((c & 1) * 4)) & 15) - 8;
          break;
        case 'f4e2m1':
          v = f4e2m1[(row[c >> 1]! >> ((c & 1) * 4)) & 15]!;
          break;
      }
      into[at + c] = v * scale[first + Math.floor(c / bc)]!;
    }
  }
  return into;
}

/** Of a weight that is a part of a whole: each matrix is decoded whole, and its rows and columns are kept. */
function readSlice(v: ValueOf<'weight'>, of: readonly number[], from: readonly number[], read: (span: Span) => Uint8Array): Float32Array {
  const shape = v.type.shape as readonly number[];
  const last = <T>(a: readonly T[], one: T): readonly [T, T] => [a.length < 2 ? one : a.at(-2)!, a.at(-1)!];
  const [rows, columns] = last(shape, 1);
  const [wholeRows, wholeColumns] = last(of, 1);
  const [r0, c0] = last(from, 0);
  const into = new Float32Array(shape.reduce((a, b) => a * b, 1));
  v.origin.parts.forEach((p, i) => {
    const all = decodeMatrix(v.type.storage, read(p), p.scale ? read(p.scale) : null, wholeRows, wholeColumns);
    for (let r = 0; r < rows; r++) {
      const at = (r0 + r) * wholeColumns + c0;
      into.set(all.subarray(at, at + columns), (i * rows + r) * columns);
    }
  });
  return into;
}

/**
 * A weight, stacked parts one after another; of one that is a part of a whole, that part. Tables of whole numbers come as i32; a table entry that
 * does not fit is an error.
 */
export function readWeight(v: ValueOf<'weight'>, read: (span: Span) => Uint8Array): Float32Array | Int32Array {
  const shape = v.type.shape as readonly number[];
  const s = v.type.storage;
  const total = shape.reduce((a, b) => a * b, 1);
  if (s.element === 'i64' || s.element === 'i32') {
    const bytes = read(v.origin.parts[0]!);
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    return Int32Array.from({ length: total }, (_, i) => {
      const n = s.element === 'i64' ? view.getBigInt64(8 * i, true) : BigInt(view.getInt32(4 * i, true));
      if (n < -(2n ** 31n) || n >= 2n ** 31n) throw new Error(`${v.name}: ${n} is no index`);
      return Number(n);
    });
  }
  if (v.origin.slice) return readSlice(v, v.origin.slice.of, v.origin.slice.from, read);
  const columns = shape.at(-1) ?? 1;
  const rows = shape.length < 2 ? 1 : shape.at(-2)!;
  const into = new Float32Array(total);
  const each = rows * columns;
  v.origin.parts.forEach((p, i) => {
    decodeMatrix(s, read(p), p.scale ? read(p.scale) : null, rows, columns, into.subarray(i * each, (i + 1) * each));
  });
  return into;
}
