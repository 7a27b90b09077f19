// The weight path as WebAssembly SIMD: rows to f32, blocks to codes and scales, and the figures of what was lost. AssemblyScript.
// No relaxed SIMD, a fixed order of sums, round half to even: the same bytes on every host. test/numeric-kernels.test.ts holds each function
// against plain scalar definitions. Row buffers are f32 with room for 128 values past the end, zeros there.

// ---- constants in globals: engines load these once, v128.const anew each time
export let kMagic: f32 = 12582912.0; // 1.5 * 2^23: adding it leaves the nearest whole number in the low bits
export let kMagicBits: i32 = 0x4b400000;
export let kAbs: i32 = 0x7fffffff;
const fourBitTries: i32 = 16;

// decoders
const D_F32 = 0, D_BF16 = 1, D_F16 = 2, D_F8E4M3 = 3, D_I8 = 4, D_I4 = 5, D_F4E2M1 = 6;
// storages of scales
const S_F32 = 0, S_BF16 = 1, S_BF16_AS_F32 = 2, S_E8M0 = 3, S_F16 = 4, S_POW2_AS_F32 = 5;
// elements of codes
const E_I8 = 0, E_I4 = 1, E_F8E4M3 = 2, E_F4E2M1 = 3, E_I4_BYTES = 4, E_I4_ASYM = 5;

// ---- figures, f64 each, at the address given to `convert`
const F_X2: usize = 0, F_E2: usize = 8, F_Y2: usize = 16, F_MAX_X: usize = 24, F_MAX_E: usize = 32, F_SATURATED: usize = 40;
const F_NAN: usize = 48, F_INF: usize = 56, F_DEAD: usize = 64, F_LEAST: usize = 72, F_MOST: usize = 80, F_COUNT: usize = 88;

// @ts-ignore: decorator
@inline function sum4(v: v128): f64 {
  return <f64>f32x4.extract_lane(v, 0) + <f64>f32x4.extract_lane(v, 1) + (<f64>f32x4.extract_lane(v, 2) + <f64>f32x4.extract_lane(v, 3));
}
// @ts-ignore: decorator
@inline function add(at: usize, v: f64): void { store<f64>(at, load<f64>(at) + v); }

// ---- scalars

/** The value of an f16 code. */
// @ts-ignore: decorator
@inline export function fromF16(h: u32): f32 {
  const sign = (h & 0x8000) << 16;
  const m = h & 0x7fff;
  if (m >= 0x7c00) return reinterpret<f32>(sign | 0x7f800000 | ((m & 0x3ff) << 13));
  return reinterpret<f32>(sign | reinterpret<u32>(reinterpret<f32>(m << 13) * reinterpret<f32>(0x77800000)));
}
/** Nearest f16, half to even; beyond 65504 infinity. */
export function toF16(x: f32): u32 {
  const b = reinterpret<u32>(x);
  const sign = (b >> 16) & 0x8000;
  const a = b & 0x7fffffff;
  if (a > 0x7f800000) return sign | 0x7e00;
  if (a >= 0x477ff000) return sign | 0x7c00;
  if (a < 0x38800000) return sign | (reinterpret<u32>(reinterpret<f32>(a) + 0.5) - 0x3f000000); // subnormal: the unit in the last place of 0.5 is 2^-24
  return sign | ((a + 0xfff + ((a >> 13) & 1) - 0x38000000) >> 13);
}
/** Nearest bf16, half to even; NaN stays NaN. */
// @ts-ignore: decorator
@inline export function toBf16(x: f32): u32 {
  const b = reinterpret<u32>(x);
  if ((b & 0x7fffffff) > 0x7f800000) return (b >> 16) | 0x40;
  return (b + 0x7fff + ((b >> 16) & 1)) >> 16;
}
// @ts-ignore: decorator
@inline function e8m0(code: u32): f32 {
  return code == 0 ? reinterpret<f32>(0x00400000) : code == 255 ? reinterpret<f32>(0x7fc00000) : reinterpret<f32>(code << 23);
}
/** The least power of two not below x, as a code of E8M0. */
// @ts-ignore: decorator
@inline function ceilExponent(x: f32): u32 {
  const b = reinterpret<u32>(x);
  const e = (b >> 23) + ((b & 0x7fffff) != 0 ? 1 : 0);
  return e > 254 ? 254 : b <= 0x00400000 ? 0 : e;
}
// @ts-ignore: decorator
@inline function loadScale(kind: i32, at: usize, i: usize): f32 {
  switch (kind) {
    case S_BF16: return reinterpret<f32>(<u32>load<u16>(at + (i << 1)) << 16);
    case S_E8M0: return e8m0(load<u8>(at + i));
    case S_F16: return fromF16(load<u16>(at + (i << 1)));
    default: return load<f32>(at + (i << 2));
  }
}
/** A scale as its storage can hold it; 0 stays out of emitted scales: an all-zero block has scale 1. */
function rounded(kind: i32, s: f32): f32 {
  switch (kind) {
    case S_BF16: case S_BF16_AS_F32: return reinterpret<f32>(toBf16(s) << 16);
    case S_F16: return fromF16(toF16(s));
    case S_E8M0: case S_POW2_AS_F32: return e8m0(ceilExponent(s));
    default: return s;
  }
}
// @ts-ignore: decorator
@inline function storeScale(kind: i32, at: usize, i: usize, s: f32): void {
  switch (kind) {
    case S_BF16: store<u16>(at + (i << 1), <u16>(reinterpret<u32>(s) >> 16)); break;
    case S_E8M0: { const b = reinterpret<u32>(s); store<u8>(at + i, <u8>(b >> 23)); break; }
    case S_F16: store<u16>(at + (i << 1), <u16>toF16(s)); break;
    default: store<f32>(at + (i << 2), s);
  }
}

// ---- decoding

// @ts-ignore: decorator
@inline function wideLow(x: v128): v128 { return i16x8.shuffle(i16x8.splat(0), x, 0, 8, 1, 9, 2, 10, 3, 11); }
// @ts-ignore: decorator
@inline function wideHigh(x: v128): v128 { return i16x8.shuffle(i16x8.splat(0), x, 4, 12, 5, 13, 6, 14, 7, 15); }

function decodeBf16(s: usize, d: usize, n: u32): void {
  const e = d + (<usize>n << 2);
  for (; d < e; d += 32, s += 16) {
    const x = v128.load(s);
    v128.store(d, wideLow(x));
    v128.store(d, wideHigh(x), 16);
  }
}
function decodeF16(s: usize, d: usize, n: u32): void {
  for (let i: u32 = 0; i < n; i++, s += 2, d += 4) store<f32>(d, fromF16(load<u16>(s)));
}
/** e4m3 as (magnitude << 20) * 2^120 * scale: exact up to the last product. NaN codes become NaN. */
function decodeF8(s: usize, d: usize, n: u32, scale: f32): void {
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
@inline function spread(d: usize, bytes: v128, v: v128): void {
  const a = i16x8.extend_low_i8x16_s(bytes), b = i16x8.extend_high_i8x16_s(bytes);
  v128.store(d, f32x4.mul(f32x4.convert_i32x4_s(i32x4.extend_low_i16x8_s(a)), v));
  v128.store(d, f32x4.mul(f32x4.convert_i32x4_s(i32x4.extend_high_i16x8_s(a)), v), 16);
  v128.store(d, f32x4.mul(f32x4.convert_i32x4_s(i32x4.extend_low_i16x8_s(b)), v), 32);
  v128.store(d, f32x4.mul(f32x4.convert_i32x4_s(i32x4.extend_high_i16x8_s(b)), v), 48);
}
function decodeI8(s: usize, d: usize, n: u32, scale: f32): void {
  const v = f32x4.splat(scale), e = d + (<usize>n << 2);
  for (; d < e; d += 64, s += 16) spread(d, v128.load(s), v);
}
/** 16 codes of half a byte, low nibble first, from 8 bytes. */
// @ts-ignore: decorator
@inline function nibbles(s: usize): v128 {
  const x = v128.load64_zero(s), low = i8x16.splat(15);
  return i8x16.shuffle(v128.and(x, low), v128.and(i8x16.shr_u(x, 4), low), 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
}
function decodeI4(s: usize, d: usize, n: u32, scale: f32): void {
  const v = f32x4.splat(scale), eight = i8x16.splat(8), e = d + (<usize>n << 2);
  for (; d < e; d += 64, s += 8) spread(d, i8x16.sub(nibbles(s), eight), v);
}
/** Codes of e2m1 as twice their value, times half the scale; the sign goes into the bits, so that -0 stays. */
function decodeF4(s: usize, d: usize, n: u32, scale: f32): void {
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

// ---- what a block needs: its largest magnitude, and the error of a scale

/** Bits of the largest magnitude of rows x n values (n in fours; zeros beyond do not count). */
function largest(x: usize, rows: u32, pitch: usize, n: u32): u32 {
  const k = i32x4.splat(kAbs);
  let a = i32x4.splat(0), b = a;
  for (let r: u32 = 0; r < rows; r++, x += pitch) {
    const e = x + (<usize>n << 2);
    let p = x;
    for (; p + 32 <= e; p += 32) {
      a = i32x4.max_s(a, v128.and(k, v128.load(p)));
      b = i32x4.max_s(b, v128.and(k, v128.load(p, 16)));
    }
    for (; p < e; p += 16) a = i32x4.max_s(a, v128.and(k, v128.load(p)));
  }
  a = i32x4.max_s(a, b);
  return max(max(i32x4.extract_lane(a, 0), i32x4.extract_lane(a, 1)), max(i32x4.extract_lane(a, 2), i32x4.extract_lane(a, 3)));
}
/** Least and largest value of rows x n values. */
let rangeLow: f32 = 0, rangeHigh: f32 = 0;
function range(x: usize, n: u32): void {
  let lo = v128.load(x), hi = lo;
  const e = x + (<usize>n << 2);
  for (let p = x; p < e; p += 16) { const v = v128.load(p); lo = f32x4.min(lo, v); hi = f32x4.max(hi, v); }
  rangeLow = min(min(f32x4.extract_lane(lo, 0), f32x4.extract_lane(lo, 1)), min(f32x4.extract_lane(lo, 2), f32x4.extract_lane(lo, 3)));
  rangeHigh = max(max(f32x4.extract_lane(hi, 0), f32x4.extract_lane(hi, 1)), max(f32x4.extract_lane(hi, 2), f32x4.extract_lane(hi, 3)));
}

/** Nearest e4m3 of |t| <= 448 as f32; half to even. */
// @ts-ignore: decorator
@inline function nearF8(t: v128): v128 {
  const abs = i32x4.splat(kAbs), a = v128.and(t, abs), sign = v128.andnot(t, abs);
  const u = v128.and(i32x4.add(i32x4.add(a, i32x4.splat(0x7ffff)), v128.and(i32x4.shr_u(a, 20), i32x4.splat(1))), i32x4.splat(0xfff00000));
  const m = f32x4.splat(24576.0 * 0.5); // 1.5 * 2^13: its unit in the last place is 2^-10; see below
  const g = f32x4.add(m, m); // 1.5 * 2^14: unit 2^-9, the step of e4m3's subnormals
  const low = f32x4.sub(f32x4.add(a, g), g);
  const small = f32x4.lt(a, f32x4.splat(0.015625));
  return v128.or(v128.bitselect(low, u, small), sign);
}
/** Nearest e2m1 of |t| <= 6 as f32; half to even. */
// @ts-ignore: decorator
@inline function nearF4(t: v128): v128 {
  const abs = i32x4.splat(kAbs), a = v128.and(t, abs), sign = v128.andnot(t, abs);
  const u = v128.and(i32x4.add(i32x4.add(a, i32x4.splat(0x1fffff)), v128.and(i32x4.shr_u(a, 22), i32x4.splat(1))), i32x4.splat(0xffc00000));
  const g = f32x4.splat(6291456.0); // 1.5 * 2^22: unit 0.5
  const low = f32x4.sub(f32x4.add(a, g), g);
  return v128.or(v128.bitselect(low, u, f32x4.lt(a, f32x4.splat(1.0))), sign);
}
// @ts-ignore: decorator
@inline function least(e: i32): f32 { return e == E_I8 ? -127.0 : e == E_F8E4M3 ? -448.0 : e == E_F4E2M1 ? -6.0 : -8.0; }
// @ts-ignore: decorator
@inline function most(e: i32): f32 { return e == E_I8 ? 127.0 : e == E_F8E4M3 ? 448.0 : e == E_F4E2M1 ? 6.0 : 7.0; }

/** Squared error of rows x n values (n in sixteens) under a scale, each column weighed by w where `weigh`. */
// @ts-ignore: decorator
@inline function errorAs(element: i32, weigh: bool, x: usize, rows: u32, pitch: usize, n: u32, scale: f32, w: usize): f64 {
  const s = f32x4.splat(scale), inv = f32x4.splat(<f32>1.0 / scale), lo = f32x4.splat(least(element)), hi = f32x4.splat(most(element)), g = f32x4.splat(kMagic);
  let total: f64 = 0;
  for (let r: u32 = 0; r < rows; r++, x += pitch) {
    let a = f32x4.splat(0), b = a, c = a, d = a;
    const e = x + (<usize>n << 2);
    let wp = w;
    for (let p = x; p < e; p += 64) {
      const v0 = v128.load(p), v1 = v128.load(p, 16), v2 = v128.load(p, 32), v3 = v128.load(p, 48);
      const e0 = f32x4.sub(v0, f32x4.mul(near(element, inside(f32x4.mul(v0, inv), lo, hi), g), s));
      const e1 = f32x4.sub(v1, f32x4.mul(near(element, inside(f32x4.mul(v1, inv), lo, hi), g), s));
      const e2 = f32x4.sub(v2, f32x4.mul(near(element, inside(f32x4.mul(v2, inv), lo, hi), g), s));
      const e3 = f32x4.sub(v3, f32x4.mul(near(element, inside(f32x4.mul(v3, inv), lo, hi), g), s));
      let d0 = f32x4.mul(e0, e0), d1 = f32x4.mul(e1, e1), d2 = f32x4.mul(e2, e2), d3 = f32x4.mul(e3, e3);
      if (weigh) {
        d0 = f32x4.mul(d0, v128.load(wp)); d1 = f32x4.mul(d1, v128.load(wp, 16)); d2 = f32x4.mul(d2, v128.load(wp, 32)); d3 = f32x4.mul(d3, v128.load(wp, 48));
        wp += 64;
      }
      a = f32x4.add(a, d0); b = f32x4.add(b, d1); c = f32x4.add(c, d2); d = f32x4.add(d, d3);
    }
    total += sum4(f32x4.add(f32x4.add(a, b), f32x4.add(c, d)));
  }
  return total;
}
function errI8(x: usize, rows: u32, pitch: usize, n: u32, s: f32): f64 { return errorAs(E_I8, false, x, rows, pitch, n, s, 0); }
function errI4(x: usize, rows: u32, pitch: usize, n: u32, s: f32): f64 { return errorAs(E_I4, false, x, rows, pitch, n, s, 0); }
function errF8(x: usize, rows: u32, pitch: usize, n: u32, s: f32): f64 { return errorAs(E_F8E4M3, false, x, rows, pitch, n, s, 0); }
function errF4(x: usize, rows: u32, pitch: usize, n: u32, s: f32): f64 { return errorAs(E_F4E2M1, false, x, rows, pitch, n, s, 0); }
function errI8w(x: usize, rows: u32, pitch: usize, n: u32, s: f32, w: usize): f64 { return errorAs(E_I8, true, x, rows, pitch, n, s, w); }
function errI4w(x: usize, rows: u32, pitch: usize, n: u32, s: f32, w: usize): f64 { return errorAs(E_I4, true, x, rows, pitch, n, s, w); }
function errF8w(x: usize, rows: u32, pitch: usize, n: u32, s: f32, w: usize): f64 { return errorAs(E_F8E4M3, true, x, rows, pitch, n, s, w); }
function errF4w(x: usize, rows: u32, pitch: usize, n: u32, s: f32, w: usize): f64 { return errorAs(E_F4E2M1, true, x, rows, pitch, n, s, w); }
function errorOf(element: i32, x: usize, rows: u32, pitch: usize, n: u32, s: f32, w: usize): f64 {
  switch (element) {
    case E_I8: return w == 0 ? errI8(x, rows, pitch, n, s) : errI8w(x, rows, pitch, n, s, w);
    case E_F8E4M3: return w == 0 ? errF8(x, rows, pitch, n, s) : errF8w(x, rows, pitch, n, s, w);
    case E_F4E2M1: return w == 0 ? errF4(x, rows, pitch, n, s) : errF4w(x, rows, pitch, n, s, w);
    default: return w == 0 ? errI4(x, rows, pitch, n, s) : errI4w(x, rows, pitch, n, s, w);
  }
}
/** Squared error of an asymmetric group: codes 0 to 15, value (code - zero) * scale. */
function errorAsym(x: usize, n: u32, scale: f32, zero: f32, w: usize): f64 {
  const s = f32x4.splat(scale), inv = f32x4.splat(<f32>1.0 / scale), z = f32x4.splat(zero), lo = f32x4.splat(0), hi = f32x4.splat(15), g = f32x4.splat(kMagic);
  let a = f32x4.splat(0);
  const e = x + (<usize>n << 2);
  for (let p = x; p < e; p += 16) {
    const v = v128.load(p);
    const q = f32x4.pmin(f32x4.pmax(f32x4.add(f32x4.sub(f32x4.add(f32x4.mul(v, inv), g), g), z), lo), hi);
    const d = f32x4.sub(v, f32x4.mul(f32x4.sub(q, z), s));
    let d2 = f32x4.mul(d, d);
    if (w != 0) { d2 = f32x4.mul(d2, v128.load(w)); w += 16; }
    a = f32x4.add(a, d2);
  }
  return sum4(a);
}

/** The scale of a block by the largest magnitude alone. */
function absmaxScale(element: i32, scaleKind: i32, am: f32): f32 {
  if (am == 0) return 1;
  if (element == E_F4E2M1 && (scaleKind == S_E8M0 || scaleKind == S_POW2_AS_F32)) {
    // the largest power of two whose multiple by 4 is not above: magnitudes up to 8 of it, those above 6 become 6
    const e = <i32>(reinterpret<u32>(am) >> 23) - 2;
    return e8m0(e < 0 ? 0 : <u32>e);
  }
  const top: f32 = element == E_I8 ? 127 : element == E_F8E4M3 ? 448 : element == E_F4E2M1 ? 6 : 7;
  const s = rounded(scaleKind, am / top);
  return s == 0 ? 1 : s;
}
/** The error of what a search of 32 values found. */
let foundError: f32 = 0;
/** errorOf for one row of 32 values of whole codes, which stay in registers while all scales are tried. */
// @ts-ignore: decorator
@inline function search32As(element: i32, weigh: bool, x: usize, scaleKind: i32, start: f32, w: usize): f32 {
  const lo = f32x4.splat(least(element)), hi = f32x4.splat(most(element)), g = f32x4.splat(kMagic);
  const v0 = v128.load(x), v1 = v128.load(x, 16), v2 = v128.load(x, 32), v3 = v128.load(x, 48), v4 = v128.load(x, 64), v5 = v128.load(x, 80), v6 = v128.load(x, 96), v7 = v128.load(x, 112);
  let best = start, found: f32 = Infinity;
  const step: f32 = element == E_I8 ? 0.004 : 0.025, tries = element == E_I8 ? 12 : fourBitTries; // 32 values in eight bits: little is to be cut
  for (let i: i32 = 0; i < tries; i++) {
    let c = start * (<f32>1 - step * <f32>i);
    if (scaleKind != S_F32) {
      c = scaleKind == S_BF16 || scaleKind == S_BF16_AS_F32 ? reinterpret<f32>((reinterpret<u32>(c) + 0x7fff + ((reinterpret<u32>(c) >> 16) & 1)) & 0xffff0000) : rounded(scaleKind, c);
      if (c == 0) break;
    }
    const s = f32x4.splat(c), inv = f32x4.splat(<f32>1 / c);
    const a = f32x4.add(off32(weigh, v0, w, s, inv, lo, hi, g), off32(weigh, v1, w + 16, s, inv, lo, hi, g)), b = f32x4.add(off32(weigh, v2, w + 32, s, inv, lo, hi, g), off32(weigh, v3, w + 48, s, inv, lo, hi, g));
    const d = f32x4.add(off32(weigh, v4, w + 64, s, inv, lo, hi, g), off32(weigh, v5, w + 80, s, inv, lo, hi, g)), f = f32x4.add(off32(weigh, v6, w + 96, s, inv, lo, hi, g), off32(weigh, v7, w + 112, s, inv, lo, hi, g));
    const e = f32x4.add(f32x4.add(a, b), f32x4.add(d, f));
    const t = f32x4.extract_lane(e, 0) + f32x4.extract_lane(e, 1) + (f32x4.extract_lane(e, 2) + f32x4.extract_lane(e, 3));
    if (t < found) { found = t; best = c; }
  }
  foundError = found;
  return best;
}
function search32(x: usize, scaleKind: i32, start: f32): f32 { return search32As(E_I4, false, x, scaleKind, start, 0); }
function search32w(x: usize, scaleKind: i32, start: f32, w: usize): f32 { return search32As(E_I4, true, x, scaleKind, start, w); }
function search32I8(x: usize, start: f32): f32 { return search32As(E_I8, false, x, S_F16, start, 0); }
function search32I8w(x: usize, start: f32, w: usize): f32 { return search32As(E_I8, true, x, S_F16, start, w); }
function search32I4(x: usize, start: f32): f32 { return search32As(E_I4, false, x, S_F16, start, 0); }
function search32I4w(x: usize, start: f32, w: usize): f32 { return search32As(E_I4, true, x, S_F16, start, w); }
// @ts-ignore: decorator
@inline function off32(weigh: bool, v: v128, w: usize, s: v128, inv: v128, lo: v128, hi: v128, g: v128): v128 {
  const d = f32x4.sub(v, f32x4.mul(f32x4.sub(f32x4.add(f32x4.pmin(f32x4.pmax(f32x4.mul(v, inv), lo), hi), g), g), s));
  return weigh ? f32x4.mul(f32x4.mul(d, d), v128.load(w)) : f32x4.mul(d, d);
}
/** Scales tried are absmax's times 1 - step * i, 24 of them, for four bits 16 down to 0.625; powers of two are tried one up and two down. */
function searchedScale(element: i32, scaleKind: i32, x: usize, rows: u32, pitch: usize, n: u32, am: f32, w: usize): f32 {
  const start = absmaxScale(element, scaleKind, am);
  if (am == 0) return start;
  if (element == E_I4 && rows == 1 && n == 32) return w == 0 ? search32(x, scaleKind, start) : search32w(x, scaleKind, start, w);
  let best = start, bestError = errorOf(element, x, rows, pitch, n, start, w);
  if (scaleKind == S_E8M0 || scaleKind == S_POW2_AS_F32) {
    for (let i: i32 = -2; i <= 1; i++) {
      const e = <i32>(reinterpret<u32>(start) >> 23) + i;
      if (i == 0 || e < 1 || e > 254) continue;
      const s = reinterpret<f32>(<u32>e << 23), err = errorOf(element, x, rows, pitch, n, s, w);
      if (err < bestError) { best = s; bestError = err; }
    }
    return best;
  }
  const step: f32 = element == E_I8 ? 0.0125 : element == E_F8E4M3 ? 0.02 : 0.025;
  const tries = element == E_I8 || element == E_F8E4M3 ? 24 : fourBitTries;
  for (let i: i32 = 1; i < tries; i++) {
    const s = rounded(scaleKind, start * (<f32>1 - step * <f32>i));
    if (s == 0) break;
    const err = errorOf(element, x, rows, pitch, n, s, w);
    if (err < bestError) { best = s; bestError = err; }
  }
  return best;
}

// ---- encoding

/** 16 whole numbers to bytes. */
// @ts-ignore: decorator
@inline function bytes16(a: v128, b: v128, c: v128, d: v128): v128 {
  return i8x16.narrow_i16x8_s(i16x8.narrow_i32x4_s(a, b), i16x8.narrow_i32x4_s(c, d));
}
let accX: v128 = i32x4.splat(0), accE: v128 = i32x4.splat(0), accY: v128 = i32x4.splat(0), accM: v128 = i32x4.splat(0), accS: v128 = i32x4.splat(0);

/** t inside the range of codes. */
// @ts-ignore: decorator
@inline function inside(t: v128, lo: v128, hi: v128): v128 { return f32x4.pmin(f32x4.pmax(t, lo), hi); }
/** The value that a code stands for before its scale. */
// @ts-ignore: decorator
@inline function near(element: i32, t: v128, g: v128): v128 {
  return element == E_F8E4M3 ? nearF8(t) : element == E_F4E2M1 ? nearF4(t) : f32x4.sub(f32x4.add(t, g), g);
}
// @ts-ignore: decorator
@inline function whole(q: v128, g: v128, gi: v128): v128 { return i32x4.sub(f32x4.add(q, g), gi); }
/** Lanes whose value lies more than half a step outside the codes count -1. */
// @ts-ignore: decorator
@inline function outside(t: v128, c: v128, abs: v128, half: v128): v128 { return f32x4.gt(v128.and(f32x4.sub(t, c), abs), half); }
// @ts-ignore: decorator
@inline function pairs(b: v128): v128 {
  const p = v128.or(v128.and(b, i16x8.splat(0x0f)), v128.and(i16x8.shr_u(b, 4), i16x8.splat(0xf0)));
  return i8x16.narrow_i16x8_u(p, p);
}

/** A row's block of n values (in sixteens; `d` has room) under a scale; figures go to the accumulators. `clip`: codes may lie outside their range. */
// @ts-ignore: decorator
@inline function encodeAs(element: i32, clip: bool, x: usize, n: u32, scale: f32, zero: f32, d: usize): void {
  const s = f32x4.splat(scale), lo = f32x4.splat(element == E_I4_ASYM ? -zero : least(element)), hi = f32x4.splat(element == E_I4_ASYM ? <f32>15 - zero : most(element));
  const g = f32x4.splat(kMagic), gi = i32x4.splat(kMagicBits), abs = i32x4.splat(kAbs), half = f32x4.splat(0.5);
  const off = i8x16.splat(element == E_I4_ASYM ? <i8>zero : <i8>8);
  let ax = accX, ae = accE, ay = accY, am = accM, bad = accS;
  let bx = i32x4.splat(0), be = bx, by = bx, bm = bx;
  const e = x + (<usize>n << 2);
  for (; x < e; x += 64) {
    const v0 = v128.load(x), v1 = v128.load(x, 16), v2 = v128.load(x, 32), v3 = v128.load(x, 48);
    let t0 = f32x4.div(v0, s), t1 = f32x4.div(v1, s), t2 = f32x4.div(v2, s), t3 = f32x4.div(v3, s);
    if (clip) {
      const c0 = inside(t0, lo, hi), c1 = inside(t1, lo, hi), c2 = inside(t2, lo, hi), c3 = inside(t3, lo, hi);
      bad = i32x4.add(bad, i32x4.add(i32x4.add(outside(t0, c0, abs, half), outside(t1, c1, abs, half)), i32x4.add(outside(t2, c2, abs, half), outside(t3, c3, abs, half))));
      t0 = c0; t1 = c1; t2 = c2; t3 = c3;
    }
    const q0 = near(element, t0, g), q1 = near(element, t1, g), q2 = near(element, t2, g), q3 = near(element, t3, g);
    const y0 = f32x4.mul(q0, s), y1 = f32x4.mul(q1, s), y2 = f32x4.mul(q2, s), y3 = f32x4.mul(q3, s);
    const r0 = f32x4.sub(v0, y0), r1 = f32x4.sub(v1, y1), r2 = f32x4.sub(v2, y2), r3 = f32x4.sub(v3, y3);
    ax = f32x4.add(ax, f32x4.mul(v0, v0)); bx = f32x4.add(bx, f32x4.mul(v1, v1)); ax = f32x4.add(ax, f32x4.mul(v2, v2)); bx = f32x4.add(bx, f32x4.mul(v3, v3));
    ae = f32x4.add(ae, f32x4.mul(r0, r0)); be = f32x4.add(be, f32x4.mul(r1, r1)); ae = f32x4.add(ae, f32x4.mul(r2, r2)); be = f32x4.add(be, f32x4.mul(r3, r3));
    ay = f32x4.add(ay, f32x4.mul(y0, y0)); by = f32x4.add(by, f32x4.mul(y1, y1)); ay = f32x4.add(ay, f32x4.mul(y2, y2)); by = f32x4.add(by, f32x4.mul(y3, y3));
    am = i32x4.max_s(am, v128.and(r0, abs)); bm = i32x4.max_s(bm, v128.and(r1, abs)); am = i32x4.max_s(am, v128.and(r2, abs)); bm = i32x4.max_s(bm, v128.and(r3, abs));
    if (element == E_F8E4M3) {
      v128.store(d, i8x16.narrow_i16x8_u(i16x8.narrow_i32x4_u(codeF8(q0), codeF8(q1)), i16x8.narrow_i32x4_u(codeF8(q2), codeF8(q3))));
      d += 16;
    } else if (element == E_F4E2M1) {
      v128.store64_lane(d, pairs(i8x16.narrow_i16x8_u(i16x8.narrow_i32x4_u(codeF4(q0), codeF4(q1)), i16x8.narrow_i32x4_u(codeF4(q2), codeF4(q3)))), 0);
      d += 8;
    } else {
      const b = bytes16(whole(q0, g, gi), whole(q1, g, gi), whole(q2, g, gi), whole(q3, g, gi));
      if (element == E_I8 || element == E_I4_BYTES) { v128.store(d, b); d += 16; }
      else { v128.store64_lane(d, pairs(i8x16.add(b, off)), 0); d += 8; }
    }
  }
  accX = f32x4.add(ax, bx); accE = f32x4.add(ae, be); accY = f32x4.add(ay, by); accM = i32x4.max_s(am, bm); accS = bad;
}
function encI8(x: usize, n: u32, s: f32, d: usize): void { encodeAs(E_I8, false, x, n, s, 0, d); }
function encI8Clip(x: usize, n: u32, s: f32, d: usize): void { encodeAs(E_I8, true, x, n, s, 0, d); }
function encI4(x: usize, n: u32, s: f32, d: usize): void { encodeAs(E_I4, false, x, n, s, 0, d); }
function encI4Clip(x: usize, n: u32, s: f32, d: usize): void { encodeAs(E_I4, true, x, n, s, 0, d); }
function encF8(x: usize, n: u32, s: f32, d: usize): void { encodeAs(E_F8E4M3, true, x, n, s, 0, d); }
function encF4(x: usize, n: u32, s: f32, d: usize): void { encodeAs(E_F4E2M1, true, x, n, s, 0, d); }
function encBytes(x: usize, n: u32, s: f32, d: usize): void { encodeAs(E_I4_BYTES, true, x, n, s, 0, d); }
function encAsym(x: usize, n: u32, s: f32, z: f32, d: usize): void { encodeAs(E_I4_ASYM, true, x, n, s, z, d); }
function encodeRow(element: i32, clip: bool, x: usize, n: u32, s: f32, zero: f32, d: usize): void {
  switch (element) {
    case E_I8: if (clip) encI8Clip(x, n, s, d); else encI8(x, n, s, d); break;
    case E_I4: if (clip) encI4Clip(x, n, s, d); else encI4(x, n, s, d); break;
    case E_F8E4M3: encF8(x, n, s, d); break;
    case E_F4E2M1: encF4(x, n, s, d); break;
    case E_I4_BYTES: encBytes(x, n, s, d); break;
    case E_I4_ASYM: encAsym(x, n, s, zero, d); break;
    default: unreachable();
  }
}
/** The byte of a value that e4m3 holds exactly. */
// @ts-ignore: decorator
@inline function codeF8(q: v128): v128 {
  const a = v128.and(q, i32x4.splat(kAbs));
  const normal = i32x4.sub(i32x4.shr_u(a, 20), i32x4.splat(960)); // (127 - 7) << 3
  const low = i32x4.sub(f32x4.add(a, f32x4.splat(24576.0)), i32x4.splat(0x46c00000));
  return v128.or(v128.bitselect(low, normal, f32x4.lt(a, f32x4.splat(0.015625))), v128.and(i32x4.shr_u(q, 24), i32x4.splat(0x80)));
}
/** The code of a value that e2m1 holds exactly. */
// @ts-ignore: decorator
@inline function codeF4(q: v128): v128 {
  const a = v128.and(q, i32x4.splat(kAbs));
  const normal = i32x4.sub(i32x4.shr_u(a, 22), i32x4.splat(252)); // (127 - 1) << 1
  const low = i32x4.sub(f32x4.add(a, f32x4.splat(6291456.0)), i32x4.splat(0x4ac00000));
  return v128.or(v128.bitselect(low, normal, f32x4.lt(a, f32x4.splat(1.0))), v128.and(i32x4.shr_u(q, 28), i32x4.splat(8)));
}

/** Count what is not finite in n values. */
function countBad(x: usize, n: u32, figures: usize): void {
  for (let i: u32 = 0; i < n; i++) {
    const b = load<u32>(x + (<usize>i << 2)) & 0x7fffffff;
    if (b > 0x7f800000) add(figures + F_NAN, 1);
    else if (b == 0x7f800000) add(figures + F_INF, 1);
  }
}

/**
 * Rows in f32 at x [rows, pitch/4], zeros up to a multiple of 16 in each row (and of the block), to codes at d and scales at sc.
 * Blocks are `rows` x block columns (0: all of a row): one scale each, the caller gives as many rows as a block has.
 * `zeros`, for asymmetric codes: one byte a block, the zero point 0 to 15. `weights`: f32 [cols] or 0.
 */
export function encodeStrip(
  element: i32, scaleKind: i32, search: i32, x: usize, pitch: usize, rows: u32, cols: u32, block: u32,
  d: usize, codePitch: usize, sc: usize, zeros: usize, weights: usize, scratch: usize, figures: usize,
): void {
  const each = block == 0 ? cols : block;
  accX = accE = accY = accM = accS = i32x4.splat(0);
  let any: u32 = 0;
  for (let c: u32 = 0, i: usize = 0; c < cols; c += each, i++) {
    const n = min(each, cols - c), n16 = (n + 15) & ~15;
    const at = x + (<usize>c << 2), w = weights == 0 ? 0 : weights + (<usize>c << 2);
    const bits = largest(at, rows, pitch, n16);
    if (bits >= 0x7f800000) {
      for (let r: u32 = 0; r < rows; r++) countBad(at + r * pitch, n, figures);
      continue;
    }
    any |= bits;
    const am = reinterpret<f32>(bits);
    let scale: f32, zero: f32 = 0;
    if (element == E_I4_ASYM) {
      range(at, n16);
      const lo0 = min(rangeLow, <f32>0), hi0 = max(rangeHigh, <f32>0);
      scale = rounded(scaleKind, (hi0 - lo0) / 15);
      if (scale == 0) scale = 1;
      zero = min(max(nearest<f32>(-lo0 / scale), <f32>0), <f32>15);
      if (search && am != 0) {
        let best = errorAsym(at, n16, scale, zero, w), s1 = scale, z1 = zero;
        for (let k: i32 = 1; k < 16; k++) {
          const f: f32 = <f32>1 - <f32>0.025 * <f32>k;
          const s = rounded(scaleKind, ((hi0 - lo0) * f) / 15);
          if (s == 0) break;
          const z = min(max(nearest<f32>((-lo0 * f) / s), <f32>0), <f32>15), err = errorAsym(at, n16, s, z, w);
          if (err < best) { best = err; s1 = s; z1 = z; }
        }
        scale = s1; zero = z1;
      }
      store<u8>(zeros + i, <u8>zero);
    } else scale = search ? searchedScale(element, scaleKind, at, rows, pitch, n16, am, w) : absmaxScale(element, scaleKind, am);
    storeScale(scaleKind, sc, i, scale);
    if (am != 0) {
      const sd = <f64>scale;
      if (load<f64>(figures + F_LEAST) == 0 || sd < load<f64>(figures + F_LEAST)) store<f64>(figures + F_LEAST, sd);
      if (sd > load<f64>(figures + F_MOST)) store<f64>(figures + F_MOST, sd);
    }
    const half = element == E_I4 || element == E_I4_ASYM || element == E_F4E2M1;
    const clip = search != 0 || scale < <f32>1e-30; // a scale among the subnormals is coarse: quotients may lie outside
    const bytes = half ? (<usize>n + 1) >> 1 : <usize>n;
    const to = d + (half ? <usize>c >> 1 : <usize>c);
    for (let r: u32 = 0; r < rows; r++) {
      const row = at + r * pitch, out = to + r * codePitch;
      if (n == n16) encodeRow(element, clip, row, n, scale, zero, out);
      else {
        encodeRow(element, clip, row, n16, scale, zero, scratch);
        memory.copy(out, scratch, bytes);
      }
    }
    if (rows > 1 || i % 64 == 63) flush(figures); // sums of f32 stay short
  }
  flush(figures);
  if (any == 0) add(figures + F_DEAD, 1);
  const mx = largest(x, rows, pitch, (cols + 3) & ~3);
  if (mx < 0x7f800000) store<f64>(figures + F_MAX_X, max(load<f64>(figures + F_MAX_X), <f64>reinterpret<f32>(mx)));
  add(figures + F_COUNT, <f64>rows * <f64>cols);
}
function flush(figures: usize): void {
  add(figures + F_X2, sum4(accX));
  add(figures + F_E2, sum4(accE));
  add(figures + F_Y2, sum4(accY));
  const m = max(max(i32x4.extract_lane(accM, 0), i32x4.extract_lane(accM, 1)), max(i32x4.extract_lane(accM, 2), i32x4.extract_lane(accM, 3)));
  store<f64>(figures + F_MAX_E, max(load<f64>(figures + F_MAX_E), <f64>reinterpret<f32>(m)));
  add(figures + F_SATURATED, -<f64>(i32x4.extract_lane(accS, 0) + i32x4.extract_lane(accS, 1) + i32x4.extract_lane(accS, 2) + i32x4.extract_lane(accS, 3)));
  accX = accE = accY = accM = accS = i32x4.splat(0);
}

// ---- a piece: rows decoded and encoded one strip after another

/** Decode `rows` rows to f32 at `d`, `pitch` bytes apart. Scales are those of these rows, `scalePitch` bytes a row of blocks, blockRows rows each; row0 is the first row's place in its block. */
export function decodeRows(
  kind: i32, s: usize, sourcePitch: usize, d: usize, pitch: usize, rows: u32, cols: u32,
  scales: usize, scaleKind: i32, scalePitch: usize, blockRows: u32, blockCols: u32, row0: u32,
): void {
  const padded = <u32>(pitch >> 2);
  for (let r: u32 = 0; r < rows; r++)
    decodeRow(kind, s + r * sourcePitch, d + r * pitch, cols, padded, scales + ((row0 + r) / blockRows) * scalePitch, scaleKind, blockCols);
}

/** Decode and encode `rows` rows, strips of `strip` rows at a time; scale rows follow one another at sc, `scaleRow` bytes each. */
export function convert(
  kind: i32, s: usize, sourcePitch: usize, rows: u32, cols: u32, scales: usize, scaleKind: i32, scalePitch: usize, blockRows: u32, blockCols: u32, row0: u32,
  element: i32, outScaleKind: i32, search: i32, strip: u32, block: u32, d: usize, codePitch: usize, sc: usize, scaleRow: usize, zeros: usize, zeroRow: usize,
  weights: usize, work: usize, pitch: usize, scratch: usize, figures: usize,
): void {
  for (let r: u32 = 0; r < rows; r += strip) {
    const n = min(strip, rows - r);
    decodeRows(kind, s + r * sourcePitch, sourcePitch, work, pitch, n, cols, scales, scaleKind, scalePitch, blockRows, blockCols, row0 + r);
    encodeStrip(element, outScaleKind, search, work, pitch, n, cols, block, d + r * codePitch, codePitch, sc + (r / strip) * scaleRow, zeros + (r / strip) * zeroRow, weights, scratch, figures);
  }
}

// ---- plain targets, and the blocks of GGUF

/** One value after another, figures in f64: for what does not fill vectors, is not finite, or is too large for sums of f32. */
function plainSlow(to: i32, x: usize, n: u32, d: usize, figures: usize): void {
  let x2: f64 = 0, e2: f64 = 0, y2: f64 = 0, mx: f64 = load<f64>(figures + F_MAX_X), me: f64 = load<f64>(figures + F_MAX_E);
  const e = x + (<usize>n << 2);
  for (let p = x; p < e; p += 4) {
    const v = load<f32>(p);
    let y: f32;
    if (to == 0) { const b = toBf16(v); store<u16>(d, <u16>b); d += 2; y = reinterpret<f32>(b << 16); }
    else if (to == 1) { const b = toF16(v); store<u16>(d, <u16>b); d += 2; y = fromF16(b); }
    else { store<f32>(d, v); d += 4; y = v; }
    const bits = reinterpret<u32>(v) & 0x7fffffff;
    if (bits >= 0x7f800000) { add(figures + (bits > 0x7f800000 ? F_NAN : F_INF), 1); continue; }
    const yb = reinterpret<u32>(y) & 0x7fffffff;
    if (yb >= 0x7f800000) { add(figures + F_SATURATED, 1); continue; }
    const xd = <f64>v, yd = <f64>y, dd = xd - yd;
    x2 += xd * xd; y2 += yd * yd; e2 += dd * dd;
    mx = max(mx, abs(xd)); me = max(me, abs(dd));
  }
  add(figures + F_X2, x2); add(figures + F_E2, e2); add(figures + F_Y2, y2); add(figures + F_COUNT, <f64>n);
  store<f64>(figures + F_MAX_X, mx); store<f64>(figures + F_MAX_E, me);
}
/** bf16 of finite values in the upper halves, nearest, half to even. */
// @ts-ignore: decorator
@inline function nearBf16(v: v128): v128 {
  return v128.and(i32x4.add(i32x4.add(v, i32x4.splat(0x7fff)), v128.and(i32x4.shr_u(v, 16), i32x4.splat(1))), i32x4.splat(0xffff0000));
}
/** Codes of f16, nearest, half to even, of values below 65520. */
// @ts-ignore: decorator
@inline function codeF16(v: v128): v128 {
  const a = v128.and(v, i32x4.splat(kAbs)), sign = v128.and(i32x4.shr_u(v, 16), i32x4.splat(0x8000));
  const normal = i32x4.shr_u(i32x4.sub(i32x4.add(i32x4.add(a, i32x4.splat(0xfff)), v128.and(i32x4.shr_u(a, 13), i32x4.splat(1))), i32x4.splat(0x38000000)), 13);
  const low = i32x4.sub(f32x4.add(a, f32x4.splat(0.5)), i32x4.splat(0x3f000000)); // the unit in the last place of 0.5 is 2^-24
  return v128.or(v128.bitselect(low, normal, i32x4.lt_u(a, i32x4.splat(0x38800000))), sign);
}
// @ts-ignore: decorator
@inline function valueF16(c: v128): v128 {
  const m = f32x4.mul(i32x4.shl(v128.and(c, i32x4.splat(0x7fff)), 13), f32x4.splat(reinterpret<f32>(0x77800000)));
  return v128.or(m, i32x4.shl(v128.and(c, i32x4.splat(0x8000)), 16));
}
// @ts-ignore: decorator
@inline function plainAs(to: i32, x: usize, n: u32, d: usize, figures: usize): void {
  const abs = i32x4.splat(kAbs), limit = i32x4.splat(to == 1 ? 0x477fefff : 0x58800000);
  accX = accE = accY = accM = accS = i32x4.splat(0);
  let mx = i32x4.splat(0);
  let done: u32 = 0;
  const e = x + (<usize>(n & ~7) << 2);
  for (let p = x; p < e; p += 32, d += to == 2 ? 32 : 16) {
    const v = v128.load(p), u = v128.load(p, 16);
    const a = v128.and(v, abs), b = v128.and(u, abs), m = i32x4.max_s(a, b);
    if (v128.any_true(i32x4.gt_s(m, limit))) { plainSlow(to, p, 8, d, figures); continue; }
    mx = i32x4.max_s(mx, m);
    let y = v, z = u;
    if (to == 0) {
      y = nearBf16(v); z = nearBf16(u);
      v128.store(d, i16x8.shuffle(y, z, 1, 3, 5, 7, 9, 11, 13, 15));
    } else if (to == 1) {
      const c = codeF16(v), g = codeF16(u);
      v128.store(d, i16x8.shuffle(c, g, 0, 2, 4, 6, 8, 10, 12, 14));
      y = valueF16(c); z = valueF16(g);
    } else { v128.store(d, v); v128.store(d, u, 16); }
    const r = f32x4.sub(v, y), s = f32x4.sub(u, z);
    accX = f32x4.add(accX, f32x4.add(f32x4.mul(v, v), f32x4.mul(u, u)));
    accE = f32x4.add(accE, f32x4.add(f32x4.mul(r, r), f32x4.mul(s, s)));
    accY = f32x4.add(accY, f32x4.add(f32x4.mul(y, y), f32x4.mul(z, z)));
    accM = i32x4.max_s(accM, i32x4.max_s(v128.and(r, abs), v128.and(s, abs)));
    done += 8;
    if ((done & 2047) == 0) flush(figures); // sums of f32 stay short
  }
  flush(figures);
  const top = max(max(i32x4.extract_lane(mx, 0), i32x4.extract_lane(mx, 1)), max(i32x4.extract_lane(mx, 2), i32x4.extract_lane(mx, 3)));
  store<f64>(figures + F_MAX_X, max(load<f64>(figures + F_MAX_X), <f64>reinterpret<f32>(top)));
  add(figures + F_COUNT, <f64>done);
  if (n & 7) plainSlow(to, e, n & 7, d, figures);
}
/** f32 values to bf16 (to 0), f16 (1) or f32 (2); figures as above, values that change are counted as saturated only where they overflow. */
export function encodePlain(to: i32, x: usize, n: u32, d: usize, figures: usize): void {
  switch (to) {
    case 0: plainAs(0, x, n, d, figures); break;
    case 1: plainAs(1, x, n, d, figures); break;
    default: plainAs(2, x, n, d, figures);
  }
}

/** The value of the largest magnitude of 32: the first one where both signs have it. */
function signedMost(x: usize, am: f32): f32 {
  const p = f32x4.splat(am), m = f32x4.splat(-am);
  let above = i32x4.splat(0), below = above;
  for (let i: usize = 0; i < 128; i += 16) {
    const v = v128.load(x + i);
    above = v128.or(above, f32x4.eq(v, p)); below = v128.or(below, f32x4.eq(v, m));
  }
  if (!v128.any_true(below)) return am;
  if (!v128.any_true(above)) return -am;
  for (let i: usize = 0; i < 128; i += 4) { const v = load<f32>(x + i); if (abs(v) == am) return v; }
  return am;
}
/** Four values to codes of a GGUF block as whole numbers in f32. */
// @ts-ignore: decorator
@inline function ggufCode(kind: i32, search: i32, v: v128, inv: v128): v128 {
  const t = f32x4.mul(v, inv);
  if (kind == 0) {
    const abs = i32x4.splat(kAbs);
    const q = search ? f32x4.nearest(t) : v128.or(f32x4.floor(f32x4.add(v128.and(t, abs), f32x4.splat(0.5))), v128.andnot(t, abs)); // ggml: half away from zero
    return inside(q, f32x4.splat(-127), f32x4.splat(127));
  }
  const q = search ? f32x4.nearest(t) : f32x4.sub(f32x4.trunc(f32x4.add(t, f32x4.splat(8.5))), f32x4.splat(8));
  return inside(q, f32x4.splat(-8), f32x4.splat(7));
}
/** -1 where a value lies more than half a step from its code: outside the codes' range. */
// @ts-ignore: decorator
@inline function past(v: v128, q: v128, inv: v128, half: v128): v128 { return f32x4.gt(f32x4.abs(f32x4.sub(f32x4.mul(v, inv), q)), half); }
// @ts-ignore: decorator
@inline function lanes(v: v128): v128 { return i32x4.trunc_sat_f32x4_s(v); }
// @ts-ignore: decorator
@inline function ggufAs(kind: i32, search: i32, x: usize, n: u32, d: usize, weights: usize, figures: usize): void {
  const absolute = i32x4.splat(kAbs);
  accX = accE = accY = accM = accS = i32x4.splat(0);
  for (let c: u32 = 0; c < n; c += 32, x += 128, d += kind == 0 ? 34 : 18) {
    const bits = largest(x, 1, 128, 32);
    if (bits >= 0x7f800000) { countBad(x, 32, figures); continue; }
    const am = reinterpret<f32>(bits);
    let scale: f32 = kind == 0 ? am / <f32>127 : signedMost(x, am) / <f32>-8;
    if (search && am != 0) {
      const w = weights == 0 ? 0 : weights + (<usize>c << 2);
      if (kind == 0) scale = w == 0 ? search32I8(x, am / <f32>127) : search32I8w(x, am / <f32>127, w);
      else {
        // the largest magnitude on code 7, or on code -8 whatever its sign
        const a = w == 0 ? search32I4(x, am / <f32>7) : search32I4w(x, am / <f32>7, w), first = foundError;
        const b = w == 0 ? search32I4(x, scale) : search32I4w(x, scale, w);
        scale = foundError < first ? b : a;
      }
    }
    const inv: f32 = scale != 0 ? <f32>1 / scale : 0;
    const h = toF16(scale), stored = fromF16(h);
    store<u16>(d, <u16>h);
    const k = f32x4.splat(inv), s = f32x4.splat(stored);
    const v0 = v128.load(x), v1 = v128.load(x, 16), v2 = v128.load(x, 32), v3 = v128.load(x, 48), v4 = v128.load(x, 64), v5 = v128.load(x, 80), v6 = v128.load(x, 96), v7 = v128.load(x, 112);
    const q0 = ggufCode(kind, search, v0, k), q1 = ggufCode(kind, search, v1, k), q2 = ggufCode(kind, search, v2, k), q3 = ggufCode(kind, search, v3, k);
    const q4 = ggufCode(kind, search, v4, k), q5 = ggufCode(kind, search, v5, k), q6 = ggufCode(kind, search, v6, k), q7 = ggufCode(kind, search, v7, k);
    const half = f32x4.splat(0.5);
    accS = i32x4.add(accS, i32x4.add(
      i32x4.add(i32x4.add(past(v0, q0, k, half), past(v1, q1, k, half)), i32x4.add(past(v2, q2, k, half), past(v3, q3, k, half))),
      i32x4.add(i32x4.add(past(v4, q4, k, half), past(v5, q5, k, half)), i32x4.add(past(v6, q6, k, half), past(v7, q7, k, half))),
    ));
    const lower = bytes16(lanes(q0), lanes(q1), lanes(q2), lanes(q3)), upper = bytes16(lanes(q4), lanes(q5), lanes(q6), lanes(q7));
    if (kind == 0) { v128.store(d + 2, lower); v128.store(d + 18, upper); }
    else {
      const eight = i8x16.splat(8);
      v128.store(d + 2, v128.or(i8x16.add(lower, eight), i8x16.shl(i8x16.add(upper, eight), 4)));
    }
    const y0 = f32x4.mul(q0, s), y1 = f32x4.mul(q1, s), y2 = f32x4.mul(q2, s), y3 = f32x4.mul(q3, s), y4 = f32x4.mul(q4, s), y5 = f32x4.mul(q5, s), y6 = f32x4.mul(q6, s), y7 = f32x4.mul(q7, s);
    const r0 = f32x4.sub(v0, y0), r1 = f32x4.sub(v1, y1), r2 = f32x4.sub(v2, y2), r3 = f32x4.sub(v3, y3), r4 = f32x4.sub(v4, y4), r5 = f32x4.sub(v5, y5), r6 = f32x4.sub(v6, y6), r7 = f32x4.sub(v7, y7);
    accX = f32x4.add(accX, squares8(v0, v1, v2, v3, v4, v5, v6, v7));
    accY = f32x4.add(accY, squares8(y0, y1, y2, y3, y4, y5, y6, y7));
    accE = f32x4.add(accE, squares8(r0, r1, r2, r3, r4, r5, r6, r7));
    accM = i32x4.max_s(accM, v128.and(absolute, f32x4.max(f32x4.max(f32x4.max(f32x4.abs(r0), f32x4.abs(r1)), f32x4.max(f32x4.abs(r2), f32x4.abs(r3))), f32x4.max(f32x4.max(f32x4.abs(r4), f32x4.abs(r5)), f32x4.max(f32x4.abs(r6), f32x4.abs(r7))))));
    add(figures + F_COUNT, 32);
    store<f64>(figures + F_MAX_X, max(load<f64>(figures + F_MAX_X), <f64>am));
    if (am != 0) {
      const sd = abs(<f64>stored);
      if (load<f64>(figures + F_LEAST) == 0 || sd < load<f64>(figures + F_LEAST)) store<f64>(figures + F_LEAST, sd);
      if (sd > load<f64>(figures + F_MOST)) store<f64>(figures + F_MOST, sd);
    }
    if ((c & 2047) == 2016) flush(figures); // sums of f32 stay short
  }
  flush(figures);
}
// @ts-ignore: decorator
@inline function squares8(a: v128, b: v128, c: v128, d: v128, e: v128, f: v128, g: v128, h: v128): v128 {
  return f32x4.add(
    f32x4.add(f32x4.add(f32x4.mul(a, a), f32x4.mul(b, b)), f32x4.add(f32x4.mul(c, c), f32x4.mul(d, d))),
    f32x4.add(f32x4.add(f32x4.mul(e, e), f32x4.mul(f, f)), f32x4.add(f32x4.mul(g, g), f32x4.mul(h, h))),
  );
}
/** Blocks of 32 as Q8_0 (kind 0: f16 scale, 32 i8) or Q4_0 (1: f16 scale, 16 bytes: element j low, j + 16 high). search 0 is ggml's own rule. */
export function encodeGguf(kind: i32, search: i32, x: usize, n: u32, d: usize, weights: usize, figures: usize): void {
  if (kind == 0) { if (search) ggufAs(0, 1, x, n, d, weights, figures); else ggufAs(0, 0, x, n, d, weights, figures); }
  else if (search) ggufAs(1, 1, x, n, d, weights, figures);
  else ggufAs(1, 0, x, n, d, weights, figures);
}

// ---- packing

/** Rows 2j and 2j + 1 of int4 in bytes (two's complement) to one row: the even row in the low nibbles. rows is even. */
export function packRowPairs(s: usize, pitch: usize, d: usize, rows: u32, cols: u32): void {
  for (let r: u32 = 0; r < rows; r += 2, s += 2 * pitch, d += cols)
    for (let c: u32 = 0; c < cols; c++) store<u8>(d + c, (load<u8>(s + c) & 15) | (load<u8>(s + pitch + c) << 4));
}
/** Sums of a row's codes times its scale times 8, over `chunks` equal parts of the row: f32 [rows, chunks]. */
export function codeSums(s: usize, pitch: usize, scales: usize, d: usize, rows: u32, cols: u32, chunks: u32): void {
  const each = cols / chunks;
  for (let r: u32 = 0; r < rows; r++, s += pitch) {
    const scale = load<f32>(scales + (<usize>r << 2));
    for (let k: u32 = 0; k < chunks; k++) {
      let n: i32 = 0;
      for (let c: u32 = k * each; c < (k + 1) * each; c++) n += load<i8>(s + c);
      store<f32>(d + (<usize>(r * chunks + k) << 2), <f32>8 * (<f32>n * scale));
    }
  }
}
/** e2m1 bytes of 32 values, elements 2k and 2k + 1 in byte k, to GGUF's order: j and j + 16. 16 bytes. */
export function mxfp4Order(s: usize, d: usize): void {
  for (let j: u32 = 0; j < 16; j++) {
    const a = (load<u8>(s + (j >> 1)) >> <u8>((j & 1) << 2)) & 15, k = j + 16;
    const b = (load<u8>(s + (k >> 1)) >> <u8>((k & 1) << 2)) & 15;
    store<u8>(d + j, a | (b << 4));
  }
}
/** Zero points one a byte [rows, groups] to words packed along rows, eight a word: [ceil(rows / 8), groups] i32. */
export function packZeros(s: usize, d: usize, rows: u32, groups: u32): void {
  const words = (rows + 7) / 8;
  memory.fill(d, 0, <usize>words * groups * 4);
  for (let r: u32 = 0; r < rows; r++)
    for (let g: u32 = 0; g < groups; g++) {
      const at = d + (<usize>((r >> 3) * groups + g) << 2);
      store<u32>(at, load<u32>(at) | (<u32>load<u8>(s + <usize>r * groups + g) << ((r & 7) << 2)));
    }
}
