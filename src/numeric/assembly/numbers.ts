// Numbers by their bits: constants, kinds of storage, conversions of single values, and where figures are summed.

export let kMagic: f32 = 12582912.0; // 1.5 * 2^23: adding it leaves the nearest whole number in the low bits
export let kMagicBits: i32 = 0x4b400000;
export let kAbs: i32 = 0x7fffffff;
export const fourBitTries: i32 = 16;

// decoders
export const D_F32 = 0, D_BF16 = 1, D_F16 = 2, D_F8E4M3 = 3, D_I8 = 4, D_I4 = 5, D_F4E2M1 = 6;
// storages of scales
export const S_F32 = 0, S_BF16 = 1, S_BF16_AS_F32 = 2, S_E8M0 = 3, S_F16 = 4, S_POW2_AS_F32 = 5;
// elements of codes
export const E_I8 = 0, E_I4 = 1, E_F8E4M3 = 2, E_F4E2M1 = 3, E_I4_BYTES = 4, E_I4_ASYM = 5;

export const F_X2: usize = 0, F_E2: usize = 8, F_Y2: usize = 16, F_MAX_X: usize = 24, F_MAX_E: usize = 32, F_SATURATED: usize = 40;
export const F_NAN: usize = 48, F_INF: usize = 56, F_DEAD: usize = 64, F_LEAST: usize = 72, F_MOST: usize = 80, F_COUNT: usize = 88;

// @ts-ignore: decorator
@inline export function sum4(v: v128): f64 {
  return <f64>f32x4.extract_lane(v, 0) + <f64>f32x4.extract_lane(v, 1) + (<f64>f32x4.extract_lane(v, 2) + <f64>f32x4.extract_lane(v, 3));
}
// @ts-ignore: decorator
@inline export function add(at: usize, v: f64): void { store<f64>(at, load<f64>(at) + v); }

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
@inline export function e8m0(code: u32): f32 {
  return code == 0 ? reinterpret<f32>(0x00400000) : code == 255 ? reinterpret<f32>(0x7fc00000) : reinterpret<f32>(code << 23);
}
/** The least power of two not below x, as a code of E8M0. */
// @ts-ignore: decorator
@inline export function ceilExponent(x: f32): u32 {
  const b = reinterpret<u32>(x);
  const e = (b >> 23) + ((b & 0x7fffff) != 0 ? 1 : 0);
  return e > 254 ? 254 : b <= 0x00400000 ? 0 : e;
}
// @ts-ignore: decorator
@inline export function loadScale(kind: i32, at: usize, i: usize): f32 {
  switch (kind) {
    case S_BF16: return reinterpret<f32>(<u32>load<u16>(at + (i << 1)) << 16);
    case S_E8M0: return e8m0(load<u8>(at + i));
    case S_F16: return fromF16(load<u16>(at + (i << 1)));
    default: return load<f32>(at + (i << 2));
  }
}
/** A scale as its storage can hold it; 0 stays out of emitted scales: an all-zero block has scale 1. */
export function rounded(kind: i32, s: f32): f32 {
  switch (kind) {
    case S_BF16: case S_BF16_AS_F32: return reinterpret<f32>(toBf16(s) << 16);
    case S_F16: return fromF16(toF16(s));
    case S_E8M0: case S_POW2_AS_F32: return e8m0(ceilExponent(s));
    default: return s;
  }
}
// @ts-ignore: decorator
@inline export function storeScale(kind: i32, at: usize, i: usize, s: f32): void {
  switch (kind) {
    case S_BF16: store<u16>(at + (i << 1), <u16>(reinterpret<u32>(s) >> 16)); break;
    case S_E8M0: { const b = reinterpret<u32>(s); store<u8>(at + i, <u8>(b >> 23)); break; }
    case S_F16: store<u16>(at + (i << 1), <u16>toF16(s)); break;
    default: store<f32>(at + (i << 2), s);
  }
}

/** Add what vectors hold to the figures: squares of values, errors and results, the largest error, lanes of -1 for each saturated code. */
export function sums(figures: usize, x: v128, e: v128, y: v128, m: v128, saturated: v128): void {
  add(figures + F_X2, sum4(x));
  add(figures + F_E2, sum4(e));
  add(figures + F_Y2, sum4(y));
  const top = max(max(i32x4.extract_lane(m, 0), i32x4.extract_lane(m, 1)), max(i32x4.extract_lane(m, 2), i32x4.extract_lane(m, 3)));
  store<f64>(figures + F_MAX_E, max(load<f64>(figures + F_MAX_E), <f64>reinterpret<f32>(top)));
  add(figures + F_SATURATED, -<f64>(i32x4.extract_lane(saturated, 0) + i32x4.extract_lane(saturated, 1) + i32x4.extract_lane(saturated, 2) + i32x4.extract_lane(saturated, 3)));
}
/** Magnitudes whose squares f32 holds well: bits of 2^-50 and of 2^50. Blocks outside have their figures summed in f64. */
export const usualLow: u32 = 0x26800000, usualHigh: u32 = 0x58800000;
// @ts-ignore: decorator
@inline export function unusual(bits: u32): bool { return bits != 0 && (bits < usualLow || bits > usualHigh); }
/** One value and what is written for it, in f64. */
export function count(figures: usize, x: f64, y: f64): void {
  const d = x - y;
  add(figures + F_X2, x * x); add(figures + F_E2, d * d); add(figures + F_Y2, y * y);
  store<f64>(figures + F_MAX_E, max(load<f64>(figures + F_MAX_E), abs(d)));
}
/** Count what is not finite in n values. */
export function countBad(x: usize, n: u32, figures: usize): void {
  for (let i: u32 = 0; i < n; i++) {
    const b = load<u32>(x + (<usize>i << 2)) & 0x7fffffff;
    if (b > 0x7f800000) add(figures + F_NAN, 1);
    else if (b == 0x7f800000) add(figures + F_INF, 1);
  }
}

/** 16 whole numbers to bytes. */
// @ts-ignore: decorator
@inline export function bytes16(a: v128, b: v128, c: v128, d: v128): v128 {
  return i8x16.narrow_i16x8_s(i16x8.narrow_i32x4_s(a, b), i16x8.narrow_i32x4_s(c, d));
}
