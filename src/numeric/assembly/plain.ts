// Casts to bf16 and f16, one value at a time.
import { F_COUNT, F_E2, F_INF, F_MAX_E, F_MAX_X, F_NAN, F_SATURATED, F_X2, F_Y2, add, fromF16, kAbs, sums, toBf16, toF16, usualHigh, usualLow } from './numbers';

/** One value after another, figures in f64: for what does not fill vectors, is not finite, or is too large for sums of f32. */
export function plainSlow(to: i32, x: usize, n: u32, d: usize, figures: usize): void {
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
    mx = max(mx, <f64>abs(v));
    const yb = reinterpret<u32>(y) & 0x7fffffff;
    if (yb >= 0x7f800000) { add(figures + F_SATURATED, 1); continue; }
    const xd = <f64>v, yd = <f64>y, dd = xd - yd;
    x2 += xd * xd; y2 += yd * yd; e2 += dd * dd;
    me = max(me, abs(dd));
  }
  add(figures + F_X2, x2); add(figures + F_E2, e2); add(figures + F_Y2, y2); add(figures + F_COUNT, <f64>n);
  store<f64>(figures + F_MAX_X, mx); store<f64>(figures + F_MAX_E, me);
}
/** bf16 of finite values in the upper halves, nearest, half to even. */
// @ts-ignore: decorator
@inline export function nearBf16(v: v128): v128 {
  return v128.and(i32x4.add(i32x4.add(v, i32x4.splat(0x7fff)), v128.and(i32x4.shr_u(v, 16), i32x4.splat(1))), i32x4.splat(0xffff0000));
}
/** Codes of f16, nearest, half to even, of values below 65520. */
// @ts-ignore: decorator
@inline export function codeF16(v: v128): v128 {
  const a = v128.and(v, i32x4.splat(kAbs)), sign = v128.and(i32x4.shr_u(v, 16), i32x4.splat(0x8000));
  const normal = i32x4.shr_u(i32x4.sub(i32x4.add(i32x4.add(a, i32x4.splat(0xfff)), v128.and(i32x4.shr_u(a, 13), i32x4.splat(1))), i32x4.splat(0x38000000)), 13);
  const low = i32x4.sub(f32x4.add(a, f32x4.splat(0.5)), i32x4.splat(0x3f000000)); // the unit in the last place of 0.5 is 2^-24
  return v128.or(v128.bitselect(low, normal, i32x4.lt_u(a, i32x4.splat(0x38800000))), sign);
}
// @ts-ignore: decorator
@inline export function valueF16(c: v128): v128 {
  const m = f32x4.mul(i32x4.shl(v128.and(c, i32x4.splat(0x7fff)), 13), f32x4.splat(reinterpret<f32>(0x77800000)));
  return v128.or(m, i32x4.shl(v128.and(c, i32x4.splat(0x8000)), 16));
}
// @ts-ignore: decorator
@inline export function plainAs(to: i32, x: usize, n: u32, d: usize, figures: usize): void {
  const abs = i32x4.splat(kAbs), limit = i32x4.splat(to == 1 ? 0x477fefff : usualHigh), few = i32x4.splat(usualLow);
  let sx = i32x4.splat(0), se = sx, sy = sx, sm = sx, ss = sx;
  let mx = i32x4.splat(0);
  let done: u32 = 0;
  const e = x + (<usize>(n & ~7) << 2);
  for (let p = x; p < e; p += 32, d += to == 2 ? 32 : 16) {
    const v = v128.load(p), u = v128.load(p, 16);
    const a = v128.and(v, abs), b = v128.and(u, abs), m = i32x4.max_s(a, b);
    if (v128.any_true(i32x4.gt_s(m, limit)) || (v128.any_true(m) && !v128.any_true(i32x4.gt_s(m, few)))) { plainSlow(to, p, 8, d, figures); continue; }
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
    sx = f32x4.add(sx, f32x4.add(f32x4.mul(v, v), f32x4.mul(u, u)));
    se = f32x4.add(se, f32x4.add(f32x4.mul(r, r), f32x4.mul(s, s)));
    sy = f32x4.add(sy, f32x4.add(f32x4.mul(y, y), f32x4.mul(z, z)));
    sm = i32x4.max_s(sm, i32x4.max_s(v128.and(r, abs), v128.and(s, abs)));
    done += 8;
    if ((done & 2047) == 0) { sums(figures, sx, se, sy, sm, ss); sx = se = sy = sm = ss = i32x4.splat(0); } // sums of f32 stay short
  }
  sums(figures, sx, se, sy, sm, ss);
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
