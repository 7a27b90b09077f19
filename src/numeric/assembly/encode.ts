// Blocks of f32 to codes and scales, with the figures of what was lost.
import { E_F4E2M1, E_F8E4M3, E_I4, E_I4_ASYM, E_I4_BYTES, E_I8, F_COUNT, F_DEAD, F_LEAST, F_MAX_X, F_MOST, S_BF16, S_BF16_AS_F32, S_F32, add, bytes16, count, countBad, kAbs, kMagic, kMagicBits, rounded, storeScale, sums, unusual } from './numbers';
import { decodeRows } from './decode';
import { int4Row } from './int4';
import { absmaxScale, errorAsym, inside, largest, least, most, near, range, rangeHigh, rangeLow, searchedScale } from './search';

export let accX: v128 = i32x4.splat(0), accE: v128 = i32x4.splat(0), accY: v128 = i32x4.splat(0), accM: v128 = i32x4.splat(0), accS: v128 = i32x4.splat(0);

// @ts-ignore: decorator
@inline export function whole(q: v128, g: v128, gi: v128): v128 { return i32x4.sub(f32x4.add(q, g), gi); }
/** Lanes whose value lies more than half a step outside the codes count -1. */
// @ts-ignore: decorator
@inline export function outside(t: v128, c: v128, abs: v128, half: v128): v128 { return f32x4.gt(v128.and(f32x4.sub(t, c), abs), half); }
// @ts-ignore: decorator
@inline export function pairs(b: v128): v128 {
  const p = v128.or(v128.and(b, i16x8.splat(0x0f)), v128.and(i16x8.shr_u(b, 4), i16x8.splat(0xf0)));
  return i8x16.narrow_i16x8_u(p, p);
}

/** A row's block of n values (in sixteens; `d` has room) under a scale; figures go to the accumulators. `clip`: codes may lie outside their range. */
// @ts-ignore: decorator
@inline export function encodeAs(element: i32, clip: bool, x: usize, n: u32, scale: f32, zero: f32, d: usize): void {
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
export function encI8(x: usize, n: u32, s: f32, d: usize): void { encodeAs(E_I8, false, x, n, s, 0, d); }
export function encI8Clip(x: usize, n: u32, s: f32, d: usize): void { encodeAs(E_I8, true, x, n, s, 0, d); }
export function encI4(x: usize, n: u32, s: f32, d: usize): void { encodeAs(E_I4, false, x, n, s, 0, d); }
export function encI4Clip(x: usize, n: u32, s: f32, d: usize): void { encodeAs(E_I4, true, x, n, s, 0, d); }
export function encF8(x: usize, n: u32, s: f32, d: usize): void { encodeAs(E_F8E4M3, true, x, n, s, 0, d); }
export function encF4(x: usize, n: u32, s: f32, d: usize): void { encodeAs(E_F4E2M1, true, x, n, s, 0, d); }
export function encBytes(x: usize, n: u32, s: f32, d: usize): void { encodeAs(E_I4_BYTES, true, x, n, s, 0, d); }
export function encAsym(x: usize, n: u32, s: f32, z: f32, d: usize): void { encodeAs(E_I4_ASYM, true, x, n, s, z, d); }
export function encodeRow(element: i32, clip: bool, x: usize, n: u32, s: f32, zero: f32, d: usize): void {
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
@inline export function codeF8(q: v128): v128 {
  const a = v128.and(q, i32x4.splat(kAbs));
  const normal = i32x4.sub(i32x4.shr_u(a, 20), i32x4.splat(960)); // (127 - 7) << 3
  const low = i32x4.sub(f32x4.add(a, f32x4.splat(24576.0)), i32x4.splat(0x46c00000));
  return v128.or(v128.bitselect(low, normal, f32x4.lt(a, f32x4.splat(0.015625))), v128.and(i32x4.shr_u(q, 24), i32x4.splat(0x80)));
}
/** The code of a value that e2m1 holds exactly. */
// @ts-ignore: decorator
@inline export function codeF4(q: v128): v128 {
  const a = v128.and(q, i32x4.splat(kAbs));
  const normal = i32x4.sub(i32x4.shr_u(a, 22), i32x4.splat(252)); // (127 - 1) << 1
  const low = i32x4.sub(f32x4.add(a, f32x4.splat(6291456.0)), i32x4.splat(0x4ac00000));
  return v128.or(v128.bitselect(low, normal, f32x4.lt(a, f32x4.splat(1.0))), v128.and(i32x4.shr_u(q, 28), i32x4.splat(8)));
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
  let top: u32 = 0;
  if (element == E_I4 && !search && rows == 1 && block != 0 && block % 16 == 0 && cols % block == 0 && (scaleKind == S_F32 || scaleKind == S_BF16 || scaleKind == S_BF16_AS_F32)) top = int4Row(scaleKind, x, cols, block, d, sc, figures);
  else for (let c: u32 = 0, i: usize = 0; c < cols; c += each, i++) {
    const n = min(each, cols - c), n16 = (n + 15) & ~15;
    const at = x + (<usize>c << 2), w = weights == 0 ? 0 : weights + (<usize>c << 2);
    const bits = largest(at, rows, pitch, n16);
    if (bits >= 0x7f800000) {
      for (let r: u32 = 0; r < rows; r++) countBad(at + r * pitch, n, figures);
      continue;
    }
    top = max(top, bits);
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
    if (unusual(bits)) flush(figures);
    for (let r: u32 = 0; r < rows; r++) {
      const row = at + r * pitch, out = to + r * codePitch;
      if (n == n16) encodeRow(element, clip, row, n, scale, zero, out);
      else {
        encodeRow(element, clip, row, n16, scale, zero, scratch);
        memory.copy(out, scratch, bytes);
      }
    }
    if (unusual(bits)) {
      // their squares are not for f32: what was just summed is summed again
      accX = accE = accY = accM = i32x4.splat(0);
      for (let r: u32 = 0; r < rows; r++) countBlock(element, at + r * pitch, n, scale, zero, figures);
    }
    if (rows > 1 || i % 64 == 63) flush(figures); // sums of f32 stay short
  }
  flush(figures);
  if (top == 0) add(figures + F_DEAD, 1);
  store<f64>(figures + F_MAX_X, max(load<f64>(figures + F_MAX_X), <f64>reinterpret<f32>(top)));
  add(figures + F_COUNT, <f64>rows * <f64>cols);
}
/** A row's block of very large or very small values; a scale among the subnormals is coarse, and quotients may lie outside. */
export function encodeRare(element: i32, x: usize, n: u32, scale: f32, d: usize, figures: usize): void {
  accX = accE = accY = accM = accS = i32x4.splat(0);
  encodeRow(element, true, x, n, scale, 0, d);
  accX = accE = accY = accM = i32x4.splat(0);
  flush(figures);
  countBlock(element, x, n, scale, 0, figures);
}
/** The figures of n values under a scale, one after another. */
function countBlock(element: i32, x: usize, n: u32, scale: f32, zero: f32, figures: usize): void {
  const low = f32x4.splat(element == E_I4_ASYM ? -zero : least(element)), high = f32x4.splat(element == E_I4_ASYM ? <f32>15 - zero : most(element)), g = f32x4.splat(kMagic);
  for (let i: u32 = 0; i < n; i++) {
    const v = load<f32>(x + (<usize>i << 2));
    const q = f32x4.extract_lane(near(element, inside(f32x4.splat(v / scale), low, high), g), 0);
    count(figures, <f64>v, <f64>(q * scale));
  }
}
export function flush(figures: usize): void {
  sums(figures, accX, accE, accY, accM, accS);
  accX = accE = accY = accM = accS = i32x4.splat(0);
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
