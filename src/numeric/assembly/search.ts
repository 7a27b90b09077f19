// What a block needs: its largest magnitude, the nearest codes, and the scale that loses least.
import { E_F4E2M1, E_F8E4M3, E_I4, E_I8, S_BF16, S_BF16_AS_F32, S_E8M0, S_F16, S_F32, S_POW2_AS_F32, e8m0, fourBitTries, kAbs, kMagic, rounded, sum4 } from './numbers';

/** Bits of the largest magnitude of rows x n values (n in fours; zeros beyond do not count). */
export function largest(x: usize, rows: u32, pitch: usize, n: u32): u32 {
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
export let rangeLow: f32 = 0, rangeHigh: f32 = 0;
export function range(x: usize, n: u32): void {
  let lo = v128.load(x), hi = lo;
  const e = x + (<usize>n << 2);
  for (let p = x; p < e; p += 16) { const v = v128.load(p); lo = f32x4.min(lo, v); hi = f32x4.max(hi, v); }
  rangeLow = min(min(f32x4.extract_lane(lo, 0), f32x4.extract_lane(lo, 1)), min(f32x4.extract_lane(lo, 2), f32x4.extract_lane(lo, 3)));
  rangeHigh = max(max(f32x4.extract_lane(hi, 0), f32x4.extract_lane(hi, 1)), max(f32x4.extract_lane(hi, 2), f32x4.extract_lane(hi, 3)));
}

/** Nearest e4m3 of |t| <= 448 as f32; half to even. */
// @ts-ignore: decorator
@inline export function nearF8(t: v128): v128 {
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
@inline export function nearF4(t: v128): v128 {
  const abs = i32x4.splat(kAbs), a = v128.and(t, abs), sign = v128.andnot(t, abs);
  const u = v128.and(i32x4.add(i32x4.add(a, i32x4.splat(0x1fffff)), v128.and(i32x4.shr_u(a, 22), i32x4.splat(1))), i32x4.splat(0xffc00000));
  const g = f32x4.splat(6291456.0); // 1.5 * 2^22: unit 0.5
  const low = f32x4.sub(f32x4.add(a, g), g);
  return v128.or(v128.bitselect(low, u, f32x4.lt(a, f32x4.splat(1.0))), sign);
}
// @ts-ignore: decorator
@inline export function least(e: i32): f32 { return e == E_I8 ? -127.0 : e == E_F8E4M3 ? -448.0 : e == E_F4E2M1 ? -6.0 : -8.0; }
// @ts-ignore: decorator
@inline export function most(e: i32): f32 { return e == E_I8 ? 127.0 : e == E_F8E4M3 ? 448.0 : e == E_F4E2M1 ? 6.0 : 7.0; }

/** Squared error of rows x n values (n in sixteens) under a scale, each column weighed by w where `weigh`. */
// @ts-ignore: decorator
@inline export function errorAs(element: i32, weigh: bool, x: usize, rows: u32, pitch: usize, n: u32, scale: f32, w: usize): f64 {
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
export function errI8(x: usize, rows: u32, pitch: usize, n: u32, s: f32): f64 { return errorAs(E_I8, false, x, rows, pitch, n, s, 0); }
export function errI4(x: usize, rows: u32, pitch: usize, n: u32, s: f32): f64 { return errorAs(E_I4, false, x, rows, pitch, n, s, 0); }
export function errF8(x: usize, rows: u32, pitch: usize, n: u32, s: f32): f64 { return errorAs(E_F8E4M3, false, x, rows, pitch, n, s, 0); }
export function errF4(x: usize, rows: u32, pitch: usize, n: u32, s: f32): f64 { return errorAs(E_F4E2M1, false, x, rows, pitch, n, s, 0); }
export function errI8w(x: usize, rows: u32, pitch: usize, n: u32, s: f32, w: usize): f64 { return errorAs(E_I8, true, x, rows, pitch, n, s, w); }
export function errI4w(x: usize, rows: u32, pitch: usize, n: u32, s: f32, w: usize): f64 { return errorAs(E_I4, true, x, rows, pitch, n, s, w); }
export function errF8w(x: usize, rows: u32, pitch: usize, n: u32, s: f32, w: usize): f64 { return errorAs(E_F8E4M3, true, x, rows, pitch, n, s, w); }
export function errF4w(x: usize, rows: u32, pitch: usize, n: u32, s: f32, w: usize): f64 { return errorAs(E_F4E2M1, true, x, rows, pitch, n, s, w); }
export function errorOf(element: i32, x: usize, rows: u32, pitch: usize, n: u32, s: f32, w: usize): f64 {
  switch (element) {
    case E_I8: return w == 0 ? errI8(x, rows, pitch, n, s) : errI8w(x, rows, pitch, n, s, w);
    case E_F8E4M3: return w == 0 ? errF8(x, rows, pitch, n, s) : errF8w(x, rows, pitch, n, s, w);
    case E_F4E2M1: return w == 0 ? errF4(x, rows, pitch, n, s) : errF4w(x, rows, pitch, n, s, w);
    default: return w == 0 ? errI4(x, rows, pitch, n, s) : errI4w(x, rows, pitch, n, s, w);
  }
}
/** Squared error of an asymmetric group: codes 0 to 15, value (code - zero) * scale. */
export function errorAsym(x: usize, n: u32, scale: f32, zero: f32, w: usize): f64 {
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
export function absmaxScale(element: i32, scaleKind: i32, am: f32): f32 {
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
export let foundError: f32 = 0;
/** errorOf for one row of 32 values of whole codes, which stay in registers while all scales are tried. */
// @ts-ignore: decorator
@inline export function search32As(element: i32, weigh: bool, x: usize, scaleKind: i32, start: f32, w: usize): f32 {
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
export function search32(x: usize, scaleKind: i32, start: f32): f32 { return search32As(E_I4, false, x, scaleKind, start, 0); }
export function search32w(x: usize, scaleKind: i32, start: f32, w: usize): f32 { return search32As(E_I4, true, x, scaleKind, start, w); }
export function search32I8(x: usize, start: f32): f32 { return search32As(E_I8, false, x, S_F16, start, 0); }
export function search32I8w(x: usize, start: f32, w: usize): f32 { return search32As(E_I8, true, x, S_F16, start, w); }
export function search32I4(x: usize, start: f32): f32 { return search32As(E_I4, false, x, S_F16, start, 0); }
export function search32I4w(x: usize, start: f32, w: usize): f32 { return search32As(E_I4, true, x, S_F16, start, w); }
// @ts-ignore: decorator
@inline export function off32(weigh: bool, v: v128, w: usize, s: v128, inv: v128, lo: v128, hi: v128, g: v128): v128 {
  const d = f32x4.sub(v, f32x4.mul(f32x4.sub(f32x4.add(f32x4.pmin(f32x4.pmax(f32x4.mul(v, inv), lo), hi), g), g), s));
  return weigh ? f32x4.mul(f32x4.mul(d, d), v128.load(w)) : f32x4.mul(d, d);
}
/** Scales tried are absmax's times 1 - step * i, 24 of them, for four bits 16 down to 0.625; powers of two are tried one up and two down. */
export function searchedScale(element: i32, scaleKind: i32, x: usize, rows: u32, pitch: usize, n: u32, am: f32, w: usize): f32 {
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

/** t inside the range of codes. */
// @ts-ignore: decorator
@inline export function inside(t: v128, lo: v128, hi: v128): v128 { return f32x4.pmin(f32x4.pmax(t, lo), hi); }
/** The value that a code stands for before its scale. */
// @ts-ignore: decorator
@inline export function near(element: i32, t: v128, g: v128): v128 {
  return element == E_F8E4M3 ? nearF8(t) : element == E_F4E2M1 ? nearF4(t) : f32x4.sub(f32x4.add(t, g), g);
}
