// Rows of any storage to f32.
import { D_BF16, D_F16, D_F32, D_F4E2M1, D_F8E4M3, D_I4, D_I8, fromF16, loadScale } from './numbers';

// @ts-ignore: decorator
@inline export function wideLow(x: v128): v128 { return i16x8.shuffle(i16x8.splat(0), x, 0, 8, 1, 9, 2, 10, 3, 11); }
// @ts-ignore: decorator
@inline export function wideHigh(x: v128): v128 { return i16x8.shuffle(i16x8.splat(0), x, 4, 12, 5, 13, 6, 14, 7, 15); }

export function decodeBf16(s: usize, d: usize, n: u32): void {
  const e = d + (<usize>n << 2);
  for (; d < e; d += 32, s += 16) {
    const x = v128.load(s);
    v128.store(d, wideLow(x));
    v128.store(d, wideHigh(x), 16);
  }
}
export function decodeF16(s: usize, d: usize, n: u32): void {
  for (let i: u32 = 0; i < n; i++, s += 2, d += 4) store<f32>(d, fromF16(load<u16>(s)));
}
/** e4m3 as (magnitude << 20) * 2^120 * scale: exact up to the last product. NaN codes become NaN. */
export function decodeF8(s: usize, d: usize, n: u32, scale: f32): void {
  const k = f32x4.splat(reinterpret<f32>(0x7b800000)), v = f32x4.splat(scale);
  const keep = i16x8.splat(<i16>0x87f0), nan = i8x16.splat(0x7f), z = i8x16.splat(0);
  const e = d + (<usize>n << 2);
  const from = d;
  let bad = z;
  for (; d < e; d += 64, s += 16) {
    const c = v128.load(s);
    bad = v128.or(bad, i8x16.eq(v128.and(c, nan), nan));
    const a = v128.and(i16x8.shr_s(i8x16.shuffle(z, c, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23), 4), keep);
    const b = v128.and(i16x8.shr_s(i8x16.shuffle(z, c, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31), 4), keep);
    v128.store(d, f32x4.mul(f32x4.mul(wideLow(a), k), v));
    v128.store(d, f32x4.mul(f32x4.mul(wideHigh(a), k), v), 16);
    v128.store(d, f32x4.mul(f32x4.mul(wideLow(b), k), v), 32);
    v128.store(d, f32x4.mul(f32x4.mul(wideHigh(b), k), v), 48);
  }
  if (v128.any_true(bad)) {
    s -= <usize>((d - from) >> 2);
    for (let i: u32 = 0; i < n; i++) if ((load<u8>(s + i) & 0x7f) == 0x7f) store<u32>(from + (<usize>i << 2), 0x7fc00000);
  }
}
// @ts-ignore: decorator
@inline export function spread(d: usize, bytes: v128, v: v128): void {
  const a = i16x8.extend_low_i8x16_s(bytes), b = i16x8.extend_high_i8x16_s(bytes);
  v128.store(d, f32x4.mul(f32x4.convert_i32x4_s(i32x4.extend_low_i16x8_s(a)), v));
  v128.store(d, f32x4.mul(f32x4.convert_i32x4_s(i32x4.extend_high_i16x8_s(a)), v), 16);
  v128.store(d, f32x4.mul(f32x4.convert_i32x4_s(i32x4.extend_low_i16x8_s(b)), v), 32);
  v128.store(d, f32x4.mul(f32x4.convert_i32x4_s(i32x4.extend_high_i16x8_s(b)), v), 48);
}
export function decodeI8(s: usize, d: usize, n: u32, scale: f32): void {
  const v = f32x4.splat(scale), e = d + (<usize>n << 2);
  for (; d < e; d += 64, s += 16) spread(d, v128.load(s), v);
}
/** 16 codes of half a byte, low nibble first, from 8 bytes. */
// @ts-ignore: decorator
@inline export function nibbles(s: usize): v128 {
  const x = v128.load64_zero(s), low = i8x16.splat(15);
  return i8x16.shuffle(v128.and(x, low), v128.and(i8x16.shr_u(x, 4), low), 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
}
export function decodeI4(s: usize, d: usize, n: u32, scale: f32): void {
  const v = f32x4.splat(scale), eight = i8x16.splat(8), e = d + (<usize>n << 2);
  for (; d < e; d += 64, s += 8) spread(d, i8x16.sub(nibbles(s), eight), v);
}
/** Codes of e2m1 as twice their value, times half the scale; the sign goes into the bits, so that -0 stays. */
export function decodeF4(s: usize, d: usize, n: u32, scale: f32): void {
  const twice = i8x16(0, 1, 2, 3, 4, 6, 8, 12, 0, 1, 2, 3, 4, 6, 8, 12), v = f32x4.splat(scale), half = f32x4.splat(0.5);
  const e = d + (<usize>n << 2);
  for (; d < e; d += 64, s += 8) {
    const c = nibbles(s);
    const m = i8x16.swizzle(twice, c), g = i8x16.shl(c, 4);
    const a = i16x8.extend_low_i8x16_u(m), b = i16x8.extend_high_i8x16_u(m);
    const z = i8x16.splat(0);
    const p = i8x16.shuffle(z, g, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    const q = i8x16.shuffle(z, g, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
    const sign = i32x4.splat(0x80000000);
    v128.store(d, f32x4.mul(v128.or(f32x4.mul(f32x4.convert_i32x4_u(i32x4.extend_low_i16x8_u(a)), half), v128.and(wideLow(p), sign)), v));
    v128.store(d, f32x4.mul(v128.or(f32x4.mul(f32x4.convert_i32x4_u(i32x4.extend_high_i16x8_u(a)), half), v128.and(wideHigh(p), sign)), v), 16);
    v128.store(d, f32x4.mul(v128.or(f32x4.mul(f32x4.convert_i32x4_u(i32x4.extend_low_i16x8_u(b)), half), v128.and(wideLow(q), sign)), v), 32);
    v128.store(d, f32x4.mul(v128.or(f32x4.mul(f32x4.convert_i32x4_u(i32x4.extend_high_i16x8_u(b)), half), v128.and(wideHigh(q), sign)), v), 48);
  }
}

/**
 * One row of `cols` values to f32 at `d`, zeros up to `padded`. `scales` is the row's first scale; blocks of `block` columns (0: the whole row).
 */
export function decodeRow(kind: i32, s: usize, d: usize, cols: u32, padded: u32, scales: usize, scaleKind: i32, block: u32): void {
  const each = block == 0 ? cols : block;
  for (let c: u32 = 0, i: usize = 0; c < cols; c += each, i++) {
    const n = min(each, cols - c), to = d + (<usize>c << 2);
    switch (kind) {
      case D_F32: memory.copy(to, s + (<usize>c << 2), <usize>n << 2); break;
      case D_BF16: decodeBf16(s + (<usize>c << 1), to, n); break;
      case D_F16: decodeF16(s + (<usize>c << 1), to, n); break;
      case D_F8E4M3: decodeF8(s + c, to, n, loadScale(scaleKind, scales, i)); break;
      case D_I8: decodeI8(s + c, to, n, loadScale(scaleKind, scales, i)); break;
      case D_I4: decodeI4(s + (c >> 1), to, n, loadScale(scaleKind, scales, i)); break;
      case D_F4E2M1: decodeF4(s + (c >> 1), to, n, loadScale(scaleKind, scales, i)); break;
      default: unreachable();
    }
  }
  memory.fill(d + (<usize>cols << 2), 0, <usize>(padded - cols) << 2);
}

/** Decode `rows` rows to f32 at `d`, `pitch` bytes apart. Scales are those of these rows, `scalePitch` bytes a row of blocks, blockRows rows each; row0 is the first row's place in its block. */
export function decodeRows(
  kind: i32, s: usize, sourcePitch: usize, d: usize, pitch: usize, rows: u32, cols: u32,
  scales: usize, scaleKind: i32, scalePitch: usize, blockRows: u32, blockCols: u32, row0: u32,
): void {
  const padded = <u32>(pitch >> 2);
  for (let r: u32 = 0; r < rows; r++)
    decodeRow(kind, s + r * sourcePitch, d + r * pitch, cols, padded, scales + ((row0 + r) / blockRows) * scalePitch, scaleKind, blockCols);
}
