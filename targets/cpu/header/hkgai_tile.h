// The verbs of printed kernels on a CPU (targets/cpu/printer.ts lists them). A view is a rectangle of a parameter; a row of it may come through an
// index. What lies outside is padded by load, dropped by store, and zero in contract.
#pragma once
#include "hkgai_vector.h"

#define TILE_VIEW(kind, type) typedef struct { const type *data; long row, rows, col, cols, pitch; const int32_t *index; } view_##kind;
TILE_VIEW(f32, float) TILE_VIEW(bf16, uint16_t) TILE_VIEW(f16, uint16_t) TILE_VIEW(i32, int32_t) TILE_VIEW(i64, int64_t)
#define TILE_SCALED_VIEW(kind, type, stype) \
  typedef struct { const type *data; long row, rows, col, cols, pitch; const int32_t *index; const stype *scale; long block_rows, block_cols; } view_##kind;
TILE_SCALED_VIEW(i8_f32, int8_t, float) TILE_SCALED_VIEW(i8_bf16, int8_t, uint16_t)
TILE_SCALED_VIEW(i4_f32, uint8_t, float) TILE_SCALED_VIEW(i4_bf16, uint8_t, uint16_t)
TILE_SCALED_VIEW(f8e4m3_f32, uint8_t, float) TILE_SCALED_VIEW(f8e4m3_bf16, uint8_t, uint16_t) TILE_SCALED_VIEW(f8e4m3_e8m0, uint8_t, uint8_t)
TILE_SCALED_VIEW(f4e2m1_f32, uint8_t, float) TILE_SCALED_VIEW(f4e2m1_e8m0, uint8_t, uint8_t)

/** The parameter's row of a view's row r; -1 where there is none. */
#define TILE_ROW(v, r) ((v).index ? ((v).index[r] < 0 || (v).row + (v).index[r] >= (v).rows ? -1 : (v).row + (v).index[r]) : (v).row + (r) < 0 || (v).row + (r) >= (v).rows ? -1 : (v).row + (r))

// ---- decode: n elements of a row from a column on, into f32. Columns are inside.

#define TILE_DECODE_PLAIN(kind, type, one) \
  TILE_INLINE void tile_decode_##kind(float *to, view_##kind v, long row, long c, long n) { \
    const type *p = v.data + row * v.pitch + c; \
    long i = 0; \
    for (; i + TILE_WIDTH <= n; i += TILE_WIDTH) vf_store(to + i, vf_##kind(p + i)); \
    for (; i < n; i++) { type e; memcpy(&e, p + i, sizeof e); to[i] = one; } \
  }
TILE_DECODE_PLAIN(f32, float, e)
TILE_DECODE_PLAIN(bf16, uint16_t, tile_from_bf16(e))
TILE_DECODE_PLAIN(f16, uint16_t, tile_from_f16(e))

/** Run `body` for each stretch of columns [c, c + n) that shares a scale `s`. */
#define TILE_STRETCHES(v, scale_of, row, c0, count, body) \
  { const long per = ((v).pitch + (v).block_cols - 1) / (v).block_cols; \
    const __typeof__((v).scale) scales = (v).scale + ((row) / (v).block_rows) * per; \
    for (long at = (c0), end = (c0) + (count); at < end;) { \
      const long b = at / (v).block_cols, next = tile_min((b + 1) * (v).block_cols, end), n = next - at; \
      const float s = scale_of(scales + b); \
      body \
      at = next; } }

#define TILE_DECODE_BYTES(kind, code, type, one, scale_of) \
  TILE_INLINE void tile_decode_##kind(float *to, view_##kind v, long row, long c, long count) { \
    const type *p = v.data + row * v.pitch; \
    TILE_STRETCHES(v, scale_of, row, c, count, { \
      float *t = to + (at - c); \
      long i = 0; \
      for (; i + TILE_WIDTH <= n; i += TILE_WIDTH) vf_store(t + i, vf_##code(p + at + i) * vf_of(s)); \
      for (; i < n; i++) t[i] = one(p[at + i]) * s; }) \
  }
#define TILE_I8(b) ((float)(b))
TILE_DECODE_BYTES(i8_f32, i8, int8_t, TILE_I8, tile_scale_f32)
TILE_DECODE_BYTES(i8_bf16, i8, int8_t, TILE_I8, tile_scale_bf16)
TILE_DECODE_BYTES(f8e4m3_f32, f8e4m3, uint8_t, tile_from_f8e4m3, tile_scale_f32)
TILE_DECODE_BYTES(f8e4m3_bf16, f8e4m3, uint8_t, tile_from_f8e4m3, tile_scale_bf16)
TILE_DECODE_BYTES(f8e4m3_e8m0, f8e4m3, uint8_t, tile_from_f8e4m3, tile_scale_e8m0)

#define TILE_DECODE_NIBBLES(kind, table, scale_of) \
  TILE_INLINE void tile_decode_##kind(float *to, view_##kind v, long row, long c, long count) { \
    const uint8_t *p = v.data + row * ((v.pitch + 1) / 2); \
    TILE_STRETCHES(v, scale_of, row, c, count, { \
      for (long i = 0; i < n; i++) to[at - c + i] = table[(p[(at + i) / 2] >> ((at + i) % 2 * 4)) & 15] * s; }) \
  }
TILE_DECODE_NIBBLES(i4_f32, tile_i4, tile_scale_f32)
TILE_DECODE_NIBBLES(i4_bf16, tile_i4, tile_scale_bf16)
TILE_DECODE_NIBBLES(f4e2m1_f32, tile_f4e2m1, tile_scale_f32)
TILE_DECODE_NIBBLES(f4e2m1_e8m0, tile_f4e2m1, tile_scale_e8m0)

// ---- load and store

TILE_INLINE void tile_fill(float *to, long n, float v) { for (long i = 0; i < n; i++) to[i] = v; }
TILE_INLINE void tile_zero(float *to, long n) { memset(to, 0, (size_t)n * sizeof *to); }

#define TILE_LOAD(kind) \
  TILE_INLINE void tile_load_f32_##kind(float *to, long pitch, long rows, long columns, view_##kind v, float pad) { \
    const long left = tile_min(tile_max(-v.col, 0), columns), right = tile_max(tile_min(v.cols - v.col, columns), left); \
    for (long r = 0; r < rows; r++) { \
      float *t = to + r * pitch; \
      const long row = TILE_ROW(v, r); \
      if (row < 0) { tile_fill(t, columns, pad); continue; } \
      tile_fill(t, left, pad); \
      tile_decode_##kind(t + left, v, row, v.col + left, right - left); \
      tile_fill(t + right, columns - right, pad); \
    } } \
  TILE_INLINE float tile_at_##kind(view_##kind v, long r, long c) { \
    const long row = TILE_ROW(v, r); \
    float f = 0; \
    if (row >= 0 && v.col + c >= 0 && v.col + c < v.cols) tile_decode_##kind(&f, v, row, v.col + c, 1); \
    return f; }
#define TILE_EACH_KIND(DO) \
  DO(f32) DO(bf16) DO(f16) DO(i8_f32) DO(i8_bf16) DO(i4_f32) DO(i4_bf16) DO(f8e4m3_f32) DO(f8e4m3_bf16) DO(f8e4m3_e8m0) DO(f4e2m1_f32) DO(f4e2m1_e8m0)
TILE_EACH_KIND(TILE_LOAD)

#define TILE_INSIDE(v, row, c) ((row) >= 0 && (v).col + (c) >= 0 && (v).col + (c) < (v).cols)
#define TILE_LOAD_WHOLE(element, type, kind, ktype) \
  TILE_INLINE void tile_load_##element##_##kind(type *to, long pitch, long rows, long columns, view_##kind v, float pad) { \
    for (long r = 0; r < rows; r++) { \
      const long row = TILE_ROW(v, r); \
      for (long c = 0; c < columns; c++) { \
        ktype e = (ktype)pad; \
        if (TILE_INSIDE(v, row, c)) memcpy(&e, v.data + row * v.pitch + v.col + c, sizeof e); \
        to[r * pitch + c] = (type)e; } } }
TILE_LOAD_WHOLE(i32, int32_t, i32, int32_t)
TILE_LOAD_WHOLE(i32, int32_t, i64, int64_t)
TILE_LOAD_WHOLE(f32, float, i32, int32_t)
#define TILE_LOAD_BF16(kind, type, convert) \
  TILE_INLINE void tile_load_bf16_##kind(uint16_t *to, long pitch, long rows, long columns, view_##kind v, float pad) { \
    for (long r = 0; r < rows; r++) { \
      const long row = TILE_ROW(v, r); \
      for (long c = 0; c < columns; c++) { \
        if (!TILE_INSIDE(v, row, c)) { to[r * pitch + c] = tile_to_bf16(pad); continue; } \
        type e; memcpy(&e, v.data + row * v.pitch + v.col + c, sizeof e); \
        to[r * pitch + c] = convert(e); } } }
#define TILE_SAME(e) (e)
TILE_LOAD_BF16(bf16, uint16_t, TILE_SAME)
TILE_LOAD_BF16(f32, float, tile_to_bf16)

#define TILE_STORE(kind, ktype, element, type, convert) \
  TILE_INLINE void tile_store_##kind##_##element(view_##kind v, const type *from, long pitch, long rows, long columns) { \
    for (long r = 0; r < rows; r++) { \
      const long row = TILE_ROW(v, r); \
      if (row < 0) continue; \
      ktype *to = (ktype *)v.data + row * v.pitch + v.col; \
      const long left = tile_max(-v.col, 0), right = tile_min(v.cols - v.col, columns); \
      for (long c = left; c < right; c++) to[c] = convert(from[r * pitch + c]); } }
#define TILE_TO_I32(e) ((int32_t)(e))
TILE_STORE(f32, float, f32, float, TILE_SAME)
TILE_STORE(bf16, uint16_t, f32, float, tile_to_bf16)
TILE_STORE(f16, uint16_t, f32, float, tile_to_f16)
TILE_STORE(bf16, uint16_t, bf16, uint16_t, TILE_SAME)
TILE_STORE(f32, float, bf16, uint16_t, tile_from_bf16)
TILE_STORE(i32, int32_t, i32, int32_t, TILE_SAME)
TILE_STORE(i32, int32_t, f32, float, TILE_TO_I32)
TILE_STORE(f32, float, i32, int32_t, TILE_SAME)

// ---- choice and running sums

/** best[count] falls, index beside it; a newcomer must be larger to pass, so that the lower index wins. */
TILE_CALL void tile_topk(float *best, int32_t *index, long count, const float *from, long n, long base) {
  for (long i = 0; i < n; i++) {
    const float v = from[i];
    if (!(v > best[count - 1])) continue;
    // binary search: the first place whose value is below v
    long low = 0, high = count - 1;
    while (low < high) {
      const long middle = (low + high) / 2;
      if (best[middle] < v) high = middle; else low = middle + 1;
    }
    memmove(best + low + 1, best + low, (size_t)(count - 1 - low) * sizeof *best);
    memmove(index + low + 1, index + low, (size_t)(count - 1 - low) * sizeof *index);
    best[low] = v;
    index[low] = (int32_t)(base + i);
  }
}
TILE_INLINE void tile_scan(float *to, const float *from, long n) {
  float s = 0;
  for (long i = 0; i < n; i++) { const float v = from[i]; to[i] = s; s += v; }
}
#include "hkgai_contract.h"
