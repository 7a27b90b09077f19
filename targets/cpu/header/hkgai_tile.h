// The verbs of printed kernels on a CPU; targets/cpu/printer.ts says their contract at its head. Views, elements, load, store, topk, scan are
// here, contractions in hkgai_contract.h.
#pragma once
#include <math.h>
#include "hkgai_vector.h"

/** A rectangle of a parameter. Pitch counts elements; rows of half-byte codes are whole bytes. Plain storages leave the last three out. */
typedef struct {
  const void *data;
  long row, rows, col, cols, pitch;
  const int32_t *index; // row r is row + index[r], below 0 is none; or null
  const void *scale;    // [ceil(rows / block_rows), ceil(cols / block_cols)]
  long block_rows, block_cols;
} tile_view;
typedef tile_view view_f32, view_bf16, view_f16, view_i32, view_i64, view_i8, view_u8, view_e8m0;
typedef tile_view view_i8_f32, view_i8_bf16, view_i4_f32, view_i4_bf16, view_f8e4m3_f32, view_f8e4m3_bf16, view_f8e4m3_e8m0, view_f4e2m1_e8m0, view_f4e2m1_f32, view_f4e2m1_bf16;

// Each storage as a constant that the compiler folds away.
enum { KIND_f32, KIND_bf16, KIND_f16, KIND_i32, KIND_i64, KIND_i8, KIND_u8, KIND_i4, KIND_f8e4m3, KIND_f4e2m1 };
enum { SCALE_none, SCALE_f32, SCALE_bf16, SCALE_e8m0 };
/** KINDS(X): every storage that contractions and loads take: name, code, scale. */
#define KINDS(X)                                                                                                                    \
  X(f32, f32, none) X(bf16, bf16, none) X(f16, f16, none) X(i8_f32, i8, f32) X(i8_bf16, i8, bf16) X(i4_f32, i4, f32) X(i4_bf16, i4, bf16)  \
  X(f8e4m3_f32, f8e4m3, f32) X(f8e4m3_bf16, f8e4m3, bf16) X(f8e4m3_e8m0, f8e4m3, e8m0) X(f4e2m1_e8m0, f4e2m1, e8m0)                   \
  X(f4e2m1_f32, f4e2m1, f32) X(f4e2m1_bf16, f4e2m1, bf16)

// ---- whole numbers and elements

INLINE long tile_min(long a, long b) { return a < b ? a : b; }
INLINE long tile_max(long a, long b) { return a > b ? a : b; }
INLINE long tile_ceildiv(long a, long b) { return (a + b - 1) / b; }
INLINE float tile_fmin(float a, float b) { return a < b ? a : b; }
INLINE float tile_fmax(float a, float b) { return a > b ? a : b; }
INLINE float tile_from_bits(uint32_t u) { float f; memcpy(&f, &u, 4); return f; }
INLINE uint32_t tile_bits(float f) { uint32_t u; memcpy(&u, &f, 4); return u; }
INLINE float tile_from_bf16(uint16_t h) { return tile_from_bits((uint32_t)h << 16); }
INLINE uint16_t tile_to_bf16(float f) {
  const uint32_t u = tile_bits(f);
  return (uint16_t)(f != f ? (u >> 16) | 0x40 : (u + 0x7fff + ((u >> 16) & 1)) >> 16);
}
INLINE float tile_from_f16(uint16_t h) {
  const uint32_t m = (uint32_t)(h & 0x7fff) << 13;
  const uint32_t special = m >= (0x1fu << 23) ? 112u << 23 : 0;
  const float v = m < (1u << 23) ? tile_from_bits(m + (113u << 23)) - tile_from_bits(113u << 23) : tile_from_bits(m + (112u << 23) + special);
  return h & 0x8000 ? -v : v;
}
/** Round half to even; beyond the largest f16 is infinity. */
INLINE uint16_t tile_to_f16(float f) {
  const uint32_t u = tile_bits(f), sign = u >> 16 & 0x8000, m = u & 0x7fffffff;
  if (m > 0x7f800000) return (uint16_t)(sign | 0x7e00);
  if (m >= 0x477ff000) return (uint16_t)(sign | 0x7c00);
  if (m < 0x38800000) return (uint16_t)(sign | (tile_bits(tile_from_bits(m) + 0.5f) - 0x3f000000)); // 0.5 has the step of f16's subnormals
  return (uint16_t)(sign | ((m - (112u << 23) + 0xfff + (m >> 13 & 1)) >> 13));
}
INLINE float tile_from_e4m3(uint8_t b) {
  if ((b & 0x7f) == 0x7f) return NAN;
  return tile_from_f16((uint16_t)((b & 0x80) << 8 | (b & 0x7f) << 7)) * 256.0f;
}
INLINE float tile_from_e8m0(uint8_t b) { return b == 255 ? NAN : b == 0 ? tile_from_bits(0x00400000) : tile_from_bits((uint32_t)b << 23); }

INLINE float tile_sqrt(float x) { return __builtin_sqrtf(x); }
INLINE float tile_rsqrt(float x) { return 1.0f / __builtin_sqrtf(x); }
INLINE float tile_abs(float x) { return __builtin_fabsf(x); }
INLINE float tile_ceil(float x) { return __builtin_ceilf(x); }
INLINE float tile_floor(float x) { return __builtin_floorf(x); }
/** Nearest whole number for |x| < 2^22, half to even: what is added leaves no room for a fraction. */
INLINE float tile_nearest(float x) { return (x + 12582912.0f) - 12582912.0f; }

/** e^x, error below 1.03 ulp (1.0233 found at 59.2842). 2^k * e^r with |r| <= ln 2 / 2; the power in two factors so that subnormal results round once. */
INLINE float tile_exp(float x) {
  const float held = tile_fmin(tile_fmax(x, -104.0f), 89.0f);
  const float k = tile_nearest(held * 1.44269504f);
  const float r = (held - k * 0.693145752f) - k * 1.42860677e-6f;
  float p = 1.98756888e-4f; // minimax on [-0.347, 0.347]
  p = p * r + 1.39819994e-3f;
  p = p * r + 8.33345205e-3f;
  p = p * r + 4.16657962e-2f;
  p = p * r + 1.66666655e-1f;
  p = p * r + 5.00000000e-1f;
  const float e = (p * r) * r + r + 1.0f;
  const int32_t n = (int32_t)k, half = n >> 1;
  return e * tile_from_bits((uint32_t)(half + 127) << 23) * tile_from_bits((uint32_t)(n - half + 127) << 23);
}
/** Natural logarithm of a positive normal number, error below 1 ulp; 0 gives a number below -87. */
INLINE float tile_log(float x) {
  const uint32_t u = tile_bits(x) - 0x3f3504f3u; // from sqrt(1/2) on
  const float k = (float)((int32_t)u >> 23);
  const double m = (double)tile_from_bits((u & 0x7fffff) + 0x3f3504f3u);
  const double s = (m - 1.0) / (m + 1.0), t = s * s; // |s| <= 0.172
  const double sum = 2.0 * s * (1.0 + t * (1.0 / 3 + t * (1.0 / 5 + t * (1.0 / 7 + t * (1.0 / 9 + t * (1.0 / 11))))));
  return (float)(k * 0.69314718055994531 + sum);
}
/** sin and cos for |x| < 2^20: the turn is taken out in double, what is left is within a quarter of pi. */
INLINE float tile_sine(float x, int32_t turn) {
  const double d = (double)x;
  const double k = (d * 0.63661977236758134 + 6755399441055744.0) - 6755399441055744.0;
  const double r = (d - k * 1.5707963267341256) - k * 6.077100506506192e-11; // the first product is exact: 33 bits by 20
  const double t = r * r;
  const double s = r + r * t * (-1.0 / 6 + t * (1.0 / 120 + t * (-1.0 / 5040 + t * (1.0 / 362880 - t * (1.0 / 39916800)))));
  const double c = 1.0 + t * (-0.5 + t * (1.0 / 24 + t * (-1.0 / 720 + t * (1.0 / 40320 + t * (-1.0 / 3628800 + t * (1.0 / 479001600))))));
  const int32_t q = (int32_t)k + turn;
  const double v = q & 1 ? c : s;
  return (float)(q & 2 ? -v : v);
}
INLINE float tile_sin(float x) { return tile_sine(x, 0); }
INLINE float tile_cos(float x) { return tile_sine(x, 1); }

// ---- views

INLINE int tile_width_bits(int kind) {
  return kind == KIND_i64 ? 64 : kind == KIND_f32 || kind == KIND_i32 ? 32 : kind == KIND_bf16 || kind == KIND_f16 ? 16 : kind == KIND_i4 || kind == KIND_f4e2m1 ? 4 : 8;
}
/** The number of row r of a view in its parameter; -1 outside. */
INLINE long tile_row(const tile_view *v, long r) {
  if (v->index) {
    if (v->index[r] < 0) return -1;
    r = v->index[r];
  }
  r += v->row;
  return r >= 0 && r < v->rows ? r : -1;
}
/** Where that row starts. */
INLINE const char *tile_row_data(int kind, const tile_view *v, long row) {
  return (const char *)v->data + row * ((v->pitch * tile_width_bits(kind) + 7) / 8);
}
INLINE float tile_code(int kind, const char *row, long c) {
  switch (kind) {
    case KIND_f32: { float f; memcpy(&f, row + c * 4, 4); return f; }
    case KIND_i32: { int32_t i; memcpy(&i, row + c * 4, 4); return (float)i; }
    case KIND_i64: { int64_t i; memcpy(&i, row + c * 8, 8); return (float)i; }
    case KIND_bf16: { uint16_t h; memcpy(&h, row + c * 2, 2); return tile_from_bf16(h); }
    case KIND_f16: { uint16_t h; memcpy(&h, row + c * 2, 2); return tile_from_f16(h); }
    case KIND_i8: return (float)((const int8_t *)row)[c];
    case KIND_u8: return (float)((const uint8_t *)row)[c];
    case KIND_i4: return (float)((((const uint8_t *)row)[c >> 1] >> ((c & 1) * 4) & 15) - 8);
    case KIND_f8e4m3: return tile_from_e4m3(((const uint8_t *)row)[c]);
    default: {
      static const float table[16] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6, -0.0f, -0.5f, -1, -1.5f, -2, -3, -4, -6};
      return table[((const uint8_t *)row)[c >> 1] >> ((c & 1) * 4) & 15];
    }
  }
}
INLINE vf tile_codes(int kind, const char *row, long c) {
  switch (kind) {
    case KIND_f32: return vf_load((const float *)(const void *)row + c);
    case KIND_bf16: return vf_from_bf16(row + c * 2);
    case KIND_f16: return vf_from_f16(row + c * 2);
    case KIND_i8: return vf_from_i8(row + c);
    case KIND_i4: return vf_from_i4(row + (c >> 1));
    case KIND_f8e4m3: return vf_from_e4m3_256th(row + c);
    case KIND_f4e2m1: return vf_from_e2m1(row + (c >> 1));
    default: {
      vf v;
      for (int i = 0; i < VL; i++) v[i] = tile_code(kind, row, c + i);
      return v;
    }
  }
}
/** What a vector of codes is to be multiplied by besides its scale. */
INLINE float tile_code_unit(int kind) { return kind == KIND_f8e4m3 ? 256.0f : 1.0f; }
/** May a vector of codes start at column c? */
INLINE int tile_whole(int kind, long c) { return !((kind == KIND_i4 || kind == KIND_f4e2m1) && (c & 1)); }
/** Scales of a row of blocks. Divisions cost as much as a line of memory, so many rows ask for this once. */
INLINE long tile_scales_across(int scale, const tile_view *v) { return scale == SCALE_none ? 0 : tile_ceildiv(v->cols, v->block_cols); }
/** Where the scales of a row start, and one of them. */
INLINE const char *tile_scales(int scale, const tile_view *v, long across, long row) {
  if (scale == SCALE_none) return 0;
  return (const char *)v->scale + (v->block_rows == 1 ? row : row / v->block_rows) * across * (scale == SCALE_f32 ? 4 : scale == SCALE_bf16 ? 2 : 1);
}
INLINE float tile_scale_of(int scale, const char *row, long group) {
  if (scale == SCALE_none) return 1.0f;
  if (scale == SCALE_f32) { float f; memcpy(&f, row + group * 4, 4); return f; }
  if (scale == SCALE_bf16) { uint16_t h; memcpy(&h, row + group * 2, 2); return tile_from_bf16(h); }
  return tile_from_e8m0((uint8_t)row[group]);
}
INLINE float tile_scale(int scale, const tile_view *v, long row, long c) {
  if (scale == SCALE_none) return 1.0f;
  return tile_scale_of(scale, tile_scales(scale, v, tile_scales_across(scale, v), row), c / v->block_cols);
}
/** Element (r, c) of a view, decoded; 0 outside. */
INLINE float tile_at(int kind, int scale, const tile_view v, long r, long c) {
  const long row = tile_row(&v, r), col = v.col + c;
  if (row < 0 || col < 0 || col >= v.cols) return 0.0f;
  return tile_code(kind, tile_row_data(kind, &v, row), col) * tile_scale(scale, &v, row, col);
}
#if TILE_AVX512
/** Nibbles times a scale, 32 in a turn, as far as they go: a table of 16 products in a register, whose index is a nibble moved down. */
INLINE long tile_nibbles(int kind, float scale, float *to, const char *data, long n) {
  const __m512 table = _mm512_mul_ps(_mm512_set1_ps(scale), kind == KIND_i4 ? _mm512_setr_ps(-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7)
                                                                            : _mm512_setr_ps(0, 0.5f, 1, 1.5f, 2, 3, 4, 6, -0.0f, -0.5f, -1, -1.5f, -2, -3, -4, -6));
  const __m512i places = _mm512_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28, 0, 4, 8, 12, 16, 20, 24, 28);
  const __m512i first = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1), second = _mm512_add_epi32(first, _mm512_set1_epi32(2));
  long i = 0;
  for (; i + 32 <= n; i += 32) {
    const __m512i codes = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)(const void *)(data + i / 2)));
    _mm512_storeu_ps(to + i, _mm512_permutexvar_ps(_mm512_srlv_epi32(_mm512_permutexvar_epi32(first, codes), places), table));
    _mm512_storeu_ps(to + i + 16, _mm512_permutexvar_ps(_mm512_srlv_epi32(_mm512_permutexvar_epi32(second, codes), places), table));
  }
  return i;
}
#endif
/** Columns [c, c + n) of a row, all inside, decoded, scale by scale, vectors first; c lies in `group`, which has `left` columns from c on. */
INLINE void tile_decode_from(int kind, int scale, float *to, const char *data, const char *scales, long block_cols, long group, long left, long c, long n) {
  for (long i = 0; i < n; group++, left = block_cols) {
    const long end = scale == SCALE_none ? n : tile_min(n, i + left);
    const float s = tile_scale_of(scale, scales, group);
    if (tile_whole(kind, c + i)) {
#if TILE_AVX512
      if (kind == KIND_i4 || kind == KIND_f4e2m1) i += tile_nibbles(kind, s, to + i, data + (c + i) / 2, end - i);
#endif
      const vf by = vf_all(s * tile_code_unit(kind));
      for (; i + VL <= end; i += VL) {
        vf codes = tile_codes(kind, data, c + i);
        if (scale != SCALE_none) codes = codes * by;
        vf_store(to + i, codes);
      }
    }
    for (; i < end; i++) to[i] = tile_code(kind, data, c + i) * s;
  }
}
INLINE void tile_decode(int kind, int scale, float *to, const tile_view *v, long row, long c, long n) {
  const long group = scale == SCALE_none ? 0 : c / v->block_cols, left = scale == SCALE_none ? 0 : (group + 1) * v->block_cols - c;
  tile_decode_from(kind, scale, to, tile_row_data(kind, v, row), tile_scales(scale, v, tile_scales_across(scale, v), row), v->block_cols, group, left, c, n);
}

// ---- load and store

/** A window of f32 := a view, decoded; pad outside. */
INLINE void tile_load_rows(int kind, int scale, float *to, long pitch, long rows, long columns, const tile_view *v, float pad) {
  const long from = tile_min(tile_max(-v->col, 0), columns), until = tile_max(from, tile_min(columns, v->cols - v->col));
  for (long r = 0; r < rows; r++) {
    float *t = to + r * pitch;
    const long row = tile_row(v, r);
    if (row < 0) {
      for (long c = 0; c < columns; c++) t[c] = pad;
      continue;
    }
    for (long c = 0; c < from; c++) t[c] = pad;
    tile_decode(kind, scale, t + from, v, row, v->col + from, until - from);
    for (long c = until; c < columns; c++) t[c] = pad;
  }
}
#define LOADS(name, code, by)                                                                                          \
  FN void tile_load_f32_##name(float *to, long pitch, long rows, long columns, tile_view v, float pad) {               \
    tile_load_rows(KIND_##code, SCALE_##by, to, pitch, rows, columns, &v, pad);                                        \
  }                                                                                                                    \
  FN void tile_load_bf16_##name(uint16_t *to, long pitch, long rows, long columns, tile_view v, float pad) {           \
    const long col = v.col;                                                                                            \
    for (long c = 0; c < columns; c += 64) {                                                                           \
      float piece[64];                                                                                                 \
      const long n = tile_min(64, columns - c);                                                                        \
      for (long r = 0; r < rows; r++) {                                                                                \
        tile_view one = v;                                                                                             \
        one.col = col + c, one.row = v.row + (v.index ? 0 : r), one.index = v.index ? v.index + r : 0;                 \
        tile_load_rows(KIND_##code, SCALE_##by, piece, 64, 1, n, &one, pad);                                           \
        for (long i = 0; i < n; i++) to[r * pitch + c + i] = tile_to_bf16(piece[i]);                                   \
      }                                                                                                                \
    }                                                                                                                  \
  }                                                                                                                    \
  FN float tile_at_##name(tile_view v, long r, long c) { return tile_at(KIND_##code, SCALE_##by, v, r, c); }
KINDS(LOADS)
LOADS(i32, i32, none)
LOADS(i64, i64, none)
LOADS(i8, i8, none)
LOADS(u8, u8, none)
#undef LOADS

#define LOAD_WHOLE(name, type)                                                                                         \
  FN void tile_load_i32_##name(int32_t *to, long pitch, long rows, long columns, tile_view v, float pad) {             \
    for (long r = 0; r < rows; r++) {                                                                                  \
      const long row = tile_row(&v, r);                                                                                \
      for (long c = 0; c < columns; c++) {                                                                             \
        const long col = v.col + c;                                                                                    \
        type i = (type)pad;                                                                                            \
        if (row >= 0 && col >= 0 && col < v.cols) memcpy(&i, (const type *)v.data + row * v.pitch + col, sizeof i);    \
        to[r * pitch + c] = (int32_t)i;                                                                                \
      }                                                                                                                \
    }                                                                                                                  \
  }
LOAD_WHOLE(i32, int32_t)
LOAD_WHOLE(i64, int64_t)
LOAD_WHOLE(i8, int8_t)
LOAD_WHOLE(u8, uint8_t)
#undef LOAD_WHOLE

/** The part of a window that lies inside a view is written there. */
#define STORE(kind, type, element, tile, convert)                                                                      \
  FN void tile_store_##kind##_##element(tile_view v, const tile *from, long pitch, long rows, long columns) {          \
    const long first = tile_max(-v.col, 0), last = tile_min(columns, v.cols - v.col);                                  \
    for (long r = 0; r < rows; r++) {                                                                                  \
      const long row = tile_row(&v, r);                                                                                \
      if (row < 0) continue;                                                                                           \
      type *to = (type *)(uintptr_t)v.data + row * v.pitch + v.col;                                                    \
      for (long c = first; c < last; c++) to[c] = convert(from[r * pitch + c]);                                        \
    }                                                                                                                  \
  }
STORE(f32, float, f32, float, )
STORE(bf16, uint16_t, f32, float, tile_to_bf16)
STORE(f16, uint16_t, f32, float, tile_to_f16)
STORE(i32, int32_t, f32, float, (int32_t))
STORE(f32, float, bf16, uint16_t, tile_from_bf16)
STORE(bf16, uint16_t, bf16, uint16_t, )
STORE(f32, float, i32, int32_t, (float))
STORE(i32, int32_t, i32, int32_t, )
#undef STORE

// ---- topk and scan

/** best[count] in falling order with index beside it, against from[n], whose columns count from base. An equal one never passes an earlier one. */
FN void tile_topk(float *best, int32_t *index, long count, const float *from, long n, long base) {
  for (long i = 0; i < n; i++) {
    const float v = from[i];
    if (!(v > best[count - 1])) continue;
    long place = 0; // the first one smaller than v, by halving
    for (long end = count - 1; place < end;) {
      const long middle = (place + end) / 2;
      if (best[middle] < v) end = middle;
      else place = middle + 1;
    }
    const size_t after = (size_t)(count - 1 - place);
    memmove(best + place + 1, best + place, after * sizeof *best);
    memmove(index + place + 1, index + place, after * sizeof *index);
    best[place] = v, index[place] = (int32_t)(base + i);
  }
}
#define tile_zero(into, n) memset(into, 0, sizeof *(into) * (size_t)(n))
/** to[i] = sum of from[0 .. i - 1]. */
#define tile_scan(to, from, n)                                  \
  do {                                                          \
    float sum_ = 0;                                             \
    for (long i_ = 0; i_ < (n); i_++) {                         \
      const float v_ = (float)(from)[i_];                       \
      (to)[i_] = sum_;                                          \
      sum_ += v_;                                               \
    }                                                           \
  } while (0)

#include "hkgai_contract.h"
