// GGUF's blocks of 32 with their scale before them.
import { F_COUNT, F_INF, F_LEAST, F_MAX_X, F_MOST, add, bytes16, count, countBad, fromF16, kAbs, sums, toF16, unusual } from './numbers';
import { foundError, inside, largest, search32I4, search32I4w, search32I8, search32I8w } from './search';

/** The value of the largest magnitude of 32: the first one where both signs have it. */
export function signedMost(x: usize, am: f32): f32 {
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
@inline export function ggufCode(kind: i32, search: i32, v: v128, inv: v128): v128 {
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
@inline export function past(v: v128, q: v128, inv: v128, half: v128): v128 { return f32x4.gt(f32x4.abs(f32x4.sub(f32x4.mul(v, inv), q)), half); }
// @ts-ignore: decorator
@inline export function lanes(v: v128): v128 { return i32x4.trunc_sat_f32x4_s(v); }
// @ts-ignore: decorator
@inline export function ggufAs(kind: i32, search: i32, x: usize, n: u32, d: usize, weights: usize, figures: usize): void {
  const absolute = i32x4.splat(kAbs);
  let sx = i32x4.splat(0), se = sx, sy = sx, sm = sx, ss = sx;
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
    if ((h & 0x7c00) == 0x7c00) { add(figures + F_INF, 32); continue; } // no f16 stands for such a scale
    store<u16>(d, <u16>h);
    const k = f32x4.splat(inv), s = f32x4.splat(stored);
    const v0 = v128.load(x), v1 = v128.load(x, 16), v2 = v128.load(x, 32), v3 = v128.load(x, 48), v4 = v128.load(x, 64), v5 = v128.load(x, 80), v6 = v128.load(x, 96), v7 = v128.load(x, 112);
    const q0 = ggufCode(kind, search, v0, k), q1 = ggufCode(kind, search, v1, k), q2 = ggufCode(kind, search, v2, k), q3 = ggufCode(kind, search, v3, k);
    const q4 = ggufCode(kind, search, v4, k), q5 = ggufCode(kind, search, v5, k), q6 = ggufCode(kind, search, v6, k), q7 = ggufCode(kind, search, v7, k);
    const half = f32x4.splat(0.5);
    ss = i32x4.add(ss, i32x4.add(
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
    if (unusual(bits)) {
      for (let i: usize = 0; i < 32; i++) {
        const q = kind == 0 ? <f32>load<i8>(d + 2 + i) : <f32>(<i32>(i < 16 ? load<u8>(d + 2 + i) & 15 : load<u8>(d + 2 + i - 16) >> 4) - 8);
        count(figures, <f64>load<f32>(x + (i << 2)), <f64>(q * stored));
      }
    } else {
      sx = f32x4.add(sx, squares8(v0, v1, v2, v3, v4, v5, v6, v7));
      sy = f32x4.add(sy, squares8(y0, y1, y2, y3, y4, y5, y6, y7));
      se = f32x4.add(se, squares8(r0, r1, r2, r3, r4, r5, r6, r7));
      sm = i32x4.max_s(sm, v128.and(absolute, f32x4.max(f32x4.max(f32x4.max(f32x4.abs(r0), f32x4.abs(r1)), f32x4.max(f32x4.abs(r2), f32x4.abs(r3))), f32x4.max(f32x4.max(f32x4.abs(r4), f32x4.abs(r5)), f32x4.max(f32x4.abs(r6), f32x4.abs(r7))))));
    }
    add(figures + F_COUNT, 32);
    store<f64>(figures + F_MAX_X, max(load<f64>(figures + F_MAX_X), <f64>am));
    if (am != 0) {
      const sd = abs(<f64>stored);
      if (load<f64>(figures + F_LEAST) == 0 || sd < load<f64>(figures + F_LEAST)) store<f64>(figures + F_LEAST, sd);
      if (sd > load<f64>(figures + F_MOST)) store<f64>(figures + F_MOST, sd);
    }
    if ((c & 2047) == 2016) { sums(figures, sx, se, sy, sm, ss); sx = se = sy = sm = ss = i32x4.splat(0); } // sums of f32 stay short
  }
  sums(figures, sx, se, sy, sm, ss);
}
// @ts-ignore: decorator
@inline export function squares8(a: v128, b: v128, c: v128, d: v128, e: v128, f: v128, g: v128, h: v128): v128 {
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
