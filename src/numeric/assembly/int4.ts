// Rows in int4 by absmax, blocks of 32, 64 or 128 along the row: what encodeStrip does, with nothing called and nothing kept in memory between
// blocks. The same codes and scales, half as much again as fast.
import { E_I4, F_LEAST, F_MOST, S_F32, bytes16, countBad, kAbs, kMagic, kMagicBits, storeScale, sums, usualHigh, usualLow } from './numbers';
import { encodeRare, pairs, whole } from './encode';

// @ts-ignore: decorator
@inline function code(v: v128, s: v128, g: v128): v128 { return f32x4.sub(f32x4.add(f32x4.div(v, s), g), g); }

// @ts-ignore: decorator
@inline function int4As(bf16: bool, scaleKind: i32, x: usize, cols: u32, block: u32, d: usize, sc: usize, figures: usize): u32 {
  const abs = i32x4.splat(kAbs), g = f32x4.splat(kMagic), gi = i32x4.splat(kMagicBits), eight = i8x16.splat(8);
  const seven = f32x4.splat(7), one = f32x4.splat(1), zero = i32x4.splat(0), rare = i32x4.splat(usualHigh), few = i32x4.splat(usualLow);
  let sx = zero, se = zero, sy = zero, sm = zero, top = zero, low = f32x4.splat(Infinity), high = zero;
  const bytes = <usize>block << 2;
  for (let i: usize = 0, n = <usize>(cols / block); i < n; i++, x += bytes) {
    const e = x + bytes;
    let a = zero, b = zero;
    for (let p = x; p < e; p += 64) {
      a = i32x4.max_s(a, i32x4.max_s(v128.and(abs, v128.load(p)), v128.and(abs, v128.load(p, 16))));
      b = i32x4.max_s(b, i32x4.max_s(v128.and(abs, v128.load(p, 32)), v128.and(abs, v128.load(p, 48))));
    }
    // the largest in every lane, and the scale too: nothing waits for a single number
    a = i32x4.max_s(a, b);
    a = i32x4.max_s(a, i32x4.shuffle(a, a, 2, 3, 0, 1));
    a = i32x4.max_s(a, i32x4.shuffle(a, a, 1, 0, 3, 2));
    let s = f32x4.div(a, seven);
    if (bf16) s = v128.and(i32x4.add(i32x4.add(s, i32x4.splat(0x7fff)), v128.and(i32x4.shr_u(s, 16), i32x4.splat(1))), i32x4.splat(0xffff0000));
    s = v128.bitselect(one, s, f32x4.eq(s, zero));
    if (v128.any_true(v128.or(i32x4.gt_s(a, rare), v128.and(i32x4.lt_s(a, few), i32x4.ne(a, zero))))) {
      if (i32x4.extract_lane(a, 0) >= 0x7f800000) { countBad(x, block, figures); d += block >> 1; continue; }
      const scale = f32x4.extract_lane(s, 0);
      storeScale(scaleKind, sc, i, scale);
      encodeRare(E_I4, x, block, scale, d, figures);
      low = f32x4.min(low, s); high = f32x4.max(high, s); top = i32x4.max_s(top, a);
      d += block >> 1;
      continue;
    }
    storeScale(scaleKind, sc, i, f32x4.extract_lane(s, 0));
    const none = i32x4.eq(a, zero);
    low = f32x4.min(low, v128.bitselect(low, s, none)); high = f32x4.max(high, v128.bitselect(high, s, none)); top = i32x4.max_s(top, a);
    for (let p = x; p < e; p += 64, d += 8) {
      const v0 = v128.load(p), v1 = v128.load(p, 16), v2 = v128.load(p, 32), v3 = v128.load(p, 48);
      const q0 = code(v0, s, g), q1 = code(v1, s, g), q2 = code(v2, s, g), q3 = code(v3, s, g);
      const y0 = f32x4.mul(q0, s), y1 = f32x4.mul(q1, s), y2 = f32x4.mul(q2, s), y3 = f32x4.mul(q3, s);
      const r0 = f32x4.sub(v0, y0), r1 = f32x4.sub(v1, y1), r2 = f32x4.sub(v2, y2), r3 = f32x4.sub(v3, y3);
      sx = f32x4.add(sx, f32x4.add(f32x4.add(f32x4.mul(v0, v0), f32x4.mul(v1, v1)), f32x4.add(f32x4.mul(v2, v2), f32x4.mul(v3, v3))));
      se = f32x4.add(se, f32x4.add(f32x4.add(f32x4.mul(r0, r0), f32x4.mul(r1, r1)), f32x4.add(f32x4.mul(r2, r2), f32x4.mul(r3, r3))));
      sy = f32x4.add(sy, f32x4.add(f32x4.add(f32x4.mul(y0, y0), f32x4.mul(y1, y1)), f32x4.add(f32x4.mul(y2, y2), f32x4.mul(y3, y3))));
      sm = i32x4.max_s(sm, i32x4.max_s(i32x4.max_s(v128.and(r0, abs), v128.and(r1, abs)), i32x4.max_s(v128.and(r2, abs), v128.and(r3, abs))));
      const c = bytes16(whole(q0, g, gi), whole(q1, g, gi), whole(q2, g, gi), whole(q3, g, gi));
      v128.store64_lane(d, pairs(i8x16.add(c, eight)), 0);
    }
    if (i % 64 == 63) { sums(figures, sx, se, sy, sm, zero); sx = se = sy = sm = zero; } // sums of f32 stay short
  }
  sums(figures, sx, se, sy, sm, zero);
  const least = f32x4.extract_lane(low, 0), most = f32x4.extract_lane(high, 0);
  if (most != 0) {
    if (load<f64>(figures + F_LEAST) == 0 || <f64>least < load<f64>(figures + F_LEAST)) store<f64>(figures + F_LEAST, <f64>least);
    if (<f64>most > load<f64>(figures + F_MOST)) store<f64>(figures + F_MOST, <f64>most);
  }
  return i32x4.extract_lane(top, 0);
}
/** One row of `cols` values, whole blocks of a multiple of 16; scales in f32 or bf16. Returns the bits of the largest magnitude. */
export function int4Row(scaleKind: i32, x: usize, cols: u32, block: u32, d: usize, sc: usize, figures: usize): u32 {
  return scaleKind == S_F32 ? int4As(false, scaleKind, x, cols, block, d, sc, figures) : int4As(true, scaleKind, x, cols, block, d, sc, figures);
}
