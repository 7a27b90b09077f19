// The verbs of printed kernels in AscendC. Whole rows in f32 move by DataCopyPad where they begin at 32 bytes; what is decoded, gathered or ragged is
// read element by element, which is correct and slow. Global memory is written by copies alone: a scalar's write stays in a core's data cache, whose
// lines of 64 bytes overwrite what other cores wrote (AscendC API reference, GlobalTensor.SetValue and DataCacheCleanAndInvalid). Dense products belong to the Cube and the vendor's operators (native/); the ones here run on the
// vector unit and are their reference.
#pragma once
#include "kernel_operator.h"
using AscendC::LocalTensor;

/** A core's unified buffer, handed out in pieces of 32 bytes. */
struct Arena {
  AscendC::TPipe pipe;
  AscendC::TBuf<AscendC::TPosition::VECCALC> all;
  uint32_t taken = 0;
  __aicore__ inline explicit Arena(uint32_t bytes) {
    pipe.InitBuffer(all, bytes);
    // scalars read what earlier kernels wrote: nothing older may be in the data cache
    AscendC::GlobalTensor<uint8_t> none;
    AscendC::DataCacheCleanAndInvalid<uint8_t, AscendC::CacheLine::ENTIRE_DATA_CACHE, AscendC::DcciDst::CACHELINE_OUT>(none);
  }
  template <class T> __aicore__ inline LocalTensor<T> take(uint32_t n) {
    const uint32_t at = taken;
    taken += (n * (uint32_t)sizeof(T) + 31) / 32 * 32;
    return all.GetWithOffset<T>(n, at);
  }
};
/** Scalars and vectors run on engines of their own: wait on both sides of scalar work. */
#define SCALAR_BEGIN AscendC::PipeBarrier<PIPE_ALL>()
#define SCALAR_END AscendC::PipeBarrier<PIPE_ALL>()

__aicore__ inline int64_t tile_min(int64_t a, int64_t b) { return a < b ? a : b; }
__aicore__ inline int64_t tile_max(int64_t a, int64_t b) { return a > b ? a : b; }
__aicore__ inline int64_t tile_ceildiv(int64_t a, int64_t b) { return (a + b - 1) / b; }
__aicore__ inline float float_of(uint32_t u) { union { uint32_t u; float f; } x = {u}; return x.f; }
__aicore__ inline uint32_t bits_of(float f) { union { float f; uint32_t u; } x = {f}; return x.u; }
__aicore__ inline float from_bf16(uint16_t h) { return float_of((uint32_t)h << 16); }
__aicore__ inline uint16_t to_bf16(float f) { const uint32_t u = bits_of(f); return (uint16_t)((u + 0x7fffu + ((u >> 16) & 1)) >> 16); }
__aicore__ inline float from_f16(uint16_t h) {
  const uint32_t sign = (uint32_t)(h & 0x8000) << 16, m = h & 0x7fff;
  if (m >= 0x7c00) return float_of(sign | 0x7f800000u | (m & 0x3ff) << 13);
  if (m < 0x400) return float_of(sign | bits_of((float)m * 5.9604644775390625e-8f));
  return float_of(sign | ((m << 13) + (112u << 23)));
}
__aicore__ inline uint16_t to_f16(float f) {
  const uint32_t u = bits_of(f), sign = (u >> 16) & 0x8000u, m = u & 0x7fffffffu;
  if (m > 0x7f800000u) return (uint16_t)(sign | 0x7e00);
  if (m >= 0x477ff000u) return (uint16_t)(sign | 0x7c00);
  if (m < 0x38800000u) return (uint16_t)(sign | (bits_of(float_of(m) + 0.5f) - 0x3f000000u)); // 0.5 has the step of f16's subnormals
  return (uint16_t)(sign | ((m - (112u << 23) + 0xfffu + ((m >> 13) & 1)) >> 13));
}
__aicore__ inline float from_f8e4m3(uint8_t b) {
  const uint32_t m = b & 0x7f;
  const float v = m == 0x7f ? float_of(0x7fc00000u) : m < 8 ? (float)m * 0.001953125f : float_of((m << 20) + (120u << 23));
  return b & 0x80 ? -v : v;
}
__aicore__ inline float from_f4e2m1(int n) {
  const int m = n & 7;
  const float v = m < 4 ? 0.5f * (float)m : m == 4 ? 2.0f : m == 5 ? 3.0f : m == 6 ? 4.0f : 6.0f;
  return n & 8 ? -v : v;
}
__aicore__ inline float scale_of(__gm__ const float *s) { return *s; }
__aicore__ inline float scale_of(__gm__ const uint16_t *s) { return from_bf16(*s); }
__aicore__ inline float scale_of(__gm__ const uint8_t *s) { return *s == 255 ? float_of(0x7fc00000u) : *s == 0 ? float_of(0x00400000u) : float_of((uint32_t)*s << 23); }

// ---- views

/** Rows through a tile of indices, or none. */
struct Index { LocalTensor<int32_t> at; bool is; };
__aicore__ inline Index index_of(LocalTensor<int32_t> t) { return {t, true}; }
__aicore__ inline Index no_index() { return {LocalTensor<int32_t>(), false}; }
struct view_base {
  int64_t row, rows, col, cols, pitch;
  Index index;
  __aicore__ inline int64_t row_of(int64_t r) const {
    if (!index.is) return row + r < 0 || row + r >= rows ? -1 : row + r;
    const int64_t i = index.at.GetValue(r);
    return i < 0 || row + i >= rows ? -1 : row + i;
  }
  __aicore__ inline bool inside(int64_t at, int64_t c) const { return at >= 0 && col + c >= 0 && col + c < cols; }
};
#define VIEW_PLAIN(kind, type, decode, encode)                                                                                               \
  struct view_##kind : view_base {                                                                                                           \
    typedef type element;                                                                                                                    \
    __gm__ const type *data;                                                                                                                 \
    __aicore__ inline view_##kind(__gm__ const type *d, int64_t row, int64_t rows, int64_t col, int64_t cols, int64_t pitch, Index index)    \
        : view_base{row, rows, col, cols, pitch, index}, data(d) {}                                                                          \
    __aicore__ inline float at(int64_t r, int64_t c, float pad) const {                                                                      \
      const int64_t at = row_of(r);                                                                                                          \
      if (!inside(at, c)) return pad;                                                                                                        \
      const type e = data[at * pitch + col + c];                                                                                             \
      return decode;                                                                                                                         \
    }                                                                                                                                        \
    __aicore__ inline type as_stored(float v) const { return encode; }                                                                       \
  };
VIEW_PLAIN(f32, float, e, v)
VIEW_PLAIN(bf16, uint16_t, from_bf16(e), to_bf16(v))
VIEW_PLAIN(f16, uint16_t, from_f16(e), to_f16(v))
VIEW_PLAIN(i32, int32_t, (float)e, (int32_t)v)
VIEW_PLAIN(i64, int64_t, (float)e, (int64_t)v)
#define VIEW_SCALED(kind, type, stype, decode)                                                                                               \
  struct view_##kind : view_base {                                                                                                           \
    __gm__ const type *data;                                                                                                                 \
    __gm__ const stype *scale;                                                                                                               \
    int64_t block_rows, block_cols;                                                                                                          \
    __aicore__ inline view_##kind(__gm__ const type *d, int64_t row, int64_t rows, int64_t col, int64_t cols, int64_t pitch, Index index, __gm__ const stype *s, int64_t br, int64_t bc) \
        : view_base{row, rows, col, cols, pitch, index}, data(d), scale(s), block_rows(br), block_cols(bc) {}                                \
    __aicore__ inline float at(int64_t r, int64_t c, float pad) const {                                                                      \
      const int64_t at = row_of(r);                                                                                                          \
      if (!inside(at, c)) return pad;                                                                                                        \
      const int64_t x = col + c, half = (pitch + 1) / 2;                                                                                     \
      (void)half;                                                                                                                            \
      return (decode)*scale_of(scale + at / block_rows * tile_ceildiv(pitch, block_cols) + x / block_cols);                                  \
    }                                                                                                                                        \
  };
#define NIBBLE ((data[at * half + x / 2] >> (x % 2 * 4)) & 15)
VIEW_SCALED(i8_f32, int8_t, float, (float)data[at * pitch + x])
VIEW_SCALED(i8_bf16, int8_t, uint16_t, (float)data[at * pitch + x])
VIEW_SCALED(f8e4m3_f32, uint8_t, float, from_f8e4m3(data[at * pitch + x]))
VIEW_SCALED(f8e4m3_bf16, uint8_t, uint16_t, from_f8e4m3(data[at * pitch + x]))
VIEW_SCALED(f8e4m3_e8m0, uint8_t, uint8_t, from_f8e4m3(data[at * pitch + x]))
VIEW_SCALED(i4_f32, uint8_t, float, (float)(NIBBLE - 8))
VIEW_SCALED(i4_bf16, uint8_t, uint16_t, (float)(NIBBLE - 8))
VIEW_SCALED(f4e2m1_f32, uint8_t, float, from_f4e2m1(NIBBLE))
VIEW_SCALED(f4e2m1_e8m0, uint8_t, uint8_t, from_f4e2m1(NIBBLE))

// ---- load and store

template <class T> __aicore__ inline void put_value(LocalTensor<T> t, int64_t i, float v) { t.SetValue(i, (T)v); }
template <> __aicore__ inline void put_value(LocalTensor<bfloat16_t> t, int64_t i, float v) { t.template ReinterpretCast<uint16_t>().SetValue(i, to_bf16(v)); }
template <class T> __aicore__ inline float get_value(LocalTensor<T> t, int64_t i) { return (float)t.GetValue(i); }
template <> __aicore__ inline float get_value(LocalTensor<bfloat16_t> t, int64_t i) { return from_bf16(t.template ReinterpretCast<uint16_t>().GetValue(i)); }

template <int R, int C, class T, class V> __aicore__ inline void tile_load_each(LocalTensor<T> to, int64_t pitch, V v, float pad) {
  SCALAR_BEGIN;
  for (int64_t r = 0; r < R; r++) for (int64_t c = 0; c < C; c++) put_value(to, r * pitch + c, v.at(r, c, pad));
  SCALAR_END;
}
template <int R, int C, class T, class V> __aicore__ inline void tile_load(LocalTensor<T> to, int64_t pitch, V v, float pad) { tile_load_each<R, C>(to, pitch, v, pad); }
/** f32 rows: a whole row that begins at 32 bytes is one copy. */
template <int R, int C> __aicore__ inline void tile_load(LocalTensor<float> to, int64_t pitch, view_f32 v, float pad) {
  SCALAR_BEGIN;
  for (int64_t r = 0; r < R; r++) {
    const int64_t at = v.row_of(r);
    if (v.inside(at, 0) && v.inside(at, C - 1) && r * pitch % 8 == 0 && C % 8 == 0) {
      AscendC::GlobalTensor<float> from;
      from.SetGlobalBuffer(const_cast<__gm__ float *>(v.data) + at * v.pitch + v.col);
      AscendC::DataCopyPad(to[r * pitch], from, AscendC::DataCopyExtParams{1, (uint32_t)(C * sizeof(float)), 0, 0, 0}, AscendC::DataCopyPadExtParams<float>{false, 0, 0, 0.0f});
    } else for (int64_t c = 0; c < C; c++) to.SetValue(r * pitch + c, v.at(r, c, pad));
  }
  SCALAR_END;
}
/** `bytes` of the unified buffer, from a place of 32 bytes on, to anywhere in global memory. */
__aicore__ inline void copy_out(__gm__ const void *to, LocalTensor<uint8_t> from, int64_t bytes) {
  AscendC::GlobalTensor<uint8_t> out;
  out.SetGlobalBuffer((__gm__ uint8_t *)to);
  AscendC::DataCopyPad(out, from, AscendC::DataCopyExtParams{1, (uint32_t)bytes, 0, 0, 0});
}
enum { moved_bytes = 2048 };
/** One row from column `first` to `last`, in its stored form, by way of `moved`. */
template <class T, class V> __aicore__ inline void tile_store_row(V v, int64_t at, int64_t first, int64_t last, LocalTensor<T> from, int64_t offset, LocalTensor<uint8_t> moved) {
  typedef typename V::element E;
  constexpr int64_t most = moved_bytes / (int64_t)sizeof(E);
  for (int64_t c = first; c < last; c += most) {
    const int64_t n = tile_min(most, last - c);
    LocalTensor<E> to = moved.template ReinterpretCast<E>();
    for (int64_t i = 0; i < n; i++) to.SetValue(i, v.as_stored(get_value(from, offset + c + i)));
    SCALAR_END;
    copy_out(v.data + at * v.pitch + v.col + c, moved, n * (int64_t)sizeof(E));
    SCALAR_BEGIN;
  }
}
template <int R, int C, class T, class V> __aicore__ inline void tile_store_each(V v, LocalTensor<T> from, int64_t pitch, LocalTensor<uint8_t> moved) {
  SCALAR_BEGIN;
  const int64_t first = tile_max(0, -v.col), last = tile_min(C, v.cols - v.col);
  for (int64_t r = 0; r < R; r++) {
    const int64_t at = v.row_of(r);
    if (at >= 0 && first < last) tile_store_row(v, at, first, last, from, r * pitch, moved);
  }
  SCALAR_END;
}
template <int R, int C, class T, class V> __aicore__ inline void tile_store(V v, LocalTensor<T> from, int64_t pitch, LocalTensor<uint8_t> moved) { tile_store_each<R, C>(v, from, pitch, moved); }
/** f32 rows that begin at 32 bytes of their tile go out as they lie. */
template <int R, int C> __aicore__ inline void tile_store(view_f32 v, LocalTensor<float> from, int64_t pitch, LocalTensor<uint8_t> moved) {
  SCALAR_BEGIN;
  const int64_t first = tile_max(0, -v.col), last = tile_min(C, v.cols - v.col);
  for (int64_t r = 0; r < R; r++) {
    const int64_t at = v.row_of(r);
    if (at < 0 || first >= last) continue;
    if (first == 0 && r * pitch % 8 == 0) copy_out(v.data + at * v.pitch + v.col, from[r * pitch].template ReinterpretCast<uint8_t>(), last * (int64_t)sizeof(float));
    else tile_store_row(v, at, first, last, from, r * pitch, moved);
  }
  SCALAR_END;
}

// ---- shapes

// Rows of whole 32 bytes are filled and copied by the vector unit, others element by element.

/** Rows r of C columns, each a number: `e` says it. */
#define FILL_ROWS(e)                                                                                                                         \
  SCALAR_BEGIN;                                                                                                                              \
  for (int r = 0; r < R; r++) {                                                                                                              \
    const float v = e;                                                                                                                       \
    if (C % 8 == 0) AscendC::Duplicate(d[r * C], v, C);                                                                                      \
    else for (int c = 0; c < C; c++) d.SetValue(r * C + c, v);                                                                               \
  }                                                                                                                                          \
  SCALAR_END
template <int R, int C> __aicore__ inline void tile_iota_rows(LocalTensor<float> d) { FILL_ROWS((float)r); }
template <int R, int C> __aicore__ inline void tile_iota_columns(LocalTensor<float> d) {
  constexpr int each = C % 8 == 0 ? 1 : R;
  SCALAR_BEGIN;
  for (int r = 0; r < each; r++) for (int c = 0; c < C; c++) d.SetValue(r * C + c, (float)c);
  SCALAR_END;
  for (int r = each; r < R; r++) AscendC::Adds(d[r * C], d, 0.0f, C);
  SCALAR_END;
}
/** [R0, C0] to [R, C]: sizes of 1 spread. */
template <int R, int C, int R0, int C0> __aicore__ inline void tile_spread(LocalTensor<float> d, LocalTensor<float> s) {
  if (C0 == 1) { FILL_ROWS(s.GetValue(R0 == 1 ? 0 : r)); return; }
  SCALAR_BEGIN;
  for (int r = 0; r < R; r++) {
    if (C % 8 == 0) AscendC::Adds(d[r * C], s[(R0 == 1 ? 0 : r) * C0], 0.0f, C);
    else for (int c = 0; c < C; c++) d.SetValue(r * C + c, s.GetValue((R0 == 1 ? 0 : r) * C0 + c));
  }
  SCALAR_END;
}
template <int R, int C, class T> __aicore__ inline void tile_window(LocalTensor<float> d, LocalTensor<T> s, int64_t pitch) { SCALAR_BEGIN; for (int r = 0; r < R; r++) for (int c = 0; c < C; c++) d.SetValue(r * C + c, get_value(s, r * pitch + c)); SCALAR_END; }
template <int R, int C, class T> __aicore__ inline void tile_window_put(LocalTensor<T> d, int64_t pitch, LocalTensor<float> s) { SCALAR_BEGIN; for (int r = 0; r < R; r++) for (int c = 0; c < C; c++) put_value(d, r * pitch + c, s.GetValue(r * C + c)); SCALAR_END; }
__aicore__ inline void tile_and(LocalTensor<uint8_t> d, LocalTensor<uint8_t> a, LocalTensor<uint8_t> b, int n) { AscendC::And(d.ReinterpretCast<uint16_t>(), a.ReinterpretCast<uint16_t>(), b.ReinterpretCast<uint16_t>(), n / 16); }
__aicore__ inline void tile_or(LocalTensor<uint8_t> d, LocalTensor<uint8_t> a, LocalTensor<uint8_t> b, int n) { AscendC::Or(d.ReinterpretCast<uint16_t>(), a.ReinterpretCast<uint16_t>(), b.ReinterpretCast<uint16_t>(), n / 16); }
#define BY_SCALAR(name, f) __aicore__ inline void tile_##name(LocalTensor<float> d, LocalTensor<float> s, int n) { SCALAR_BEGIN; for (int i = 0; i < n; i++) d.SetValue(i, f(s.GetValue(i))); SCALAR_END; }
__aicore__ inline float floor_of(float x) { const float t = (float)(int64_t)x; return t > x ? t - 1.0f : t; }
/** sin (quadrant 0) and cos (quadrant 1), reduced by quarter turns kept in four f32 parts of pi / 2: cores of this family have no f64. */
__aicore__ inline float turn_of(float x, int quadrant) {
  const float n = floor_of(x * 0.636619772f + 0.5f);
  const float r = ((x - n * 1.5703125f) - n * 4.83751297e-4f) - n * 7.54978942e-8f;
  const float s = r * r;
  const float sine = r + r * s * (-1.6666654611e-1f + s * (8.3321608736e-3f + s * -1.9515295891e-4f));
  const float cosine = 1.0f - 0.5f * s + s * s * (4.166664568298827e-2f + s * (-1.388731625493765e-3f + s * 2.443315711809948e-5f));
  const int64_t q = (int64_t)n + quadrant;
  const float v = q & 1 ? cosine : sine;
  return q & 2 ? -v : v;
}
__aicore__ inline float sin_of(float x) { return turn_of(x, 0); }
__aicore__ inline float cos_of(float x) { return turn_of(x, 1); }
/** By way of whole numbers of 32 bits: what is larger is not asked for. */
__aicore__ inline void tile_floor(LocalTensor<float> d, LocalTensor<float> s, int n) {
  AscendC::Cast(d.ReinterpretCast<int32_t>(), s, AscendC::RoundMode::CAST_FLOOR, n);
  AscendC::Cast(d, d.ReinterpretCast<int32_t>(), AscendC::RoundMode::CAST_NONE, n);
}
__aicore__ inline void tile_ceil(LocalTensor<float> d, LocalTensor<float> s, int n) {
  AscendC::Cast(d.ReinterpretCast<int32_t>(), s, AscendC::RoundMode::CAST_CEIL, n);
  AscendC::Cast(d, d.ReinterpretCast<int32_t>(), AscendC::RoundMode::CAST_NONE, n);
}
BY_SCALAR(sin, sin_of)
BY_SCALAR(cos, cos_of)
__aicore__ inline void tile_rsqrt(LocalTensor<float> d, LocalTensor<float> s, int n) {
  AscendC::Sqrt(d, s, n); // the vector unit's Rsqrt is an approximation
  AscendC::PipeBarrier<PIPE_ALL>();
  SCALAR_BEGIN;
  for (int i = 0; i < n; i++) d.SetValue(i, 1.0f / d.GetValue(i));
  SCALAR_END;
}

// ---- reductions, contraction, choice

#define REDUCE(name, start, step, result)                                                                                     \
  template <int R, int C, class T> __aicore__ inline void tile_##name(LocalTensor<T> d, LocalTensor<float> s) {               \
    SCALAR_BEGIN;                                                                                                             \
    for (int r = 0; r < R; r++) { float best = start; int where = 0; (void)where; for (int i = 0; i < C; i++) { const float v = s.GetValue(r * C + i); step } put_value(d, r, (float)(result)); } \
    SCALAR_END; }                                                                                                             \
  template <int R, int C, class T> __aicore__ inline void tile_##name##_down(LocalTensor<T> d, LocalTensor<float> s) {        \
    SCALAR_BEGIN;                                                                                                             \
    for (int c = 0; c < C; c++) { float best = start; int where = 0; (void)where; for (int i = 0; i < R; i++) { const float v = s.GetValue(i * C + c); step } put_value(d, c, (float)(result)); } \
    SCALAR_END; }
/** Rows of whole 32 bytes by the vector unit: a value at every 32 bytes of `reduced`, then together; the rest of `reduced` is what the unit works in. */
#define REDUCE_ROWS(name, Call)                                                                                                               \
  template <int R, int C, class T> __aicore__ inline void tile_##name(LocalTensor<T> d, LocalTensor<float> s, LocalTensor<float> reduced) {   \
    static_assert(C % 8 == 0, "rows of whole 32 bytes");                                                                                     \
    for (int r = 0; r < R; r++) AscendC::Call(reduced[8 * r], s[r * C], reduced[8 * R], C);                                                   \
    SCALAR_BEGIN;                                                                                                                             \
    for (int r = 0; r < R; r++) put_value(d, r, reduced.GetValue(8 * r));                                                                     \
    SCALAR_END;                                                                                                                               \
  }
REDUCE_ROWS(sum, ReduceSum)
REDUCE_ROWS(max, ReduceMax)
REDUCE(sum, 0.0f, best += v;, best)
REDUCE(max, -3.4028235e38f, best = v > best ? v : best;, best)
REDUCE(min, 3.4028235e38f, best = v < best ? v : best;, best)
REDUCE(argmax, -3.4028235e38f, if (v > best) { best = v; where = i; }, where)

template <class T> struct Rows { LocalTensor<T> t; int64_t pitch; __aicore__ inline float at(int64_t row, int64_t k, float) const { return get_value(t, row * pitch + k); } };
template <class T> struct Columns { LocalTensor<T> t; int64_t pitch; __aicore__ inline float at(int64_t row, int64_t k, float) const { return get_value(t, k * pitch + row); } };
template <class T> __aicore__ inline Rows<T> rows_of(LocalTensor<T> t, int64_t pitch) { return {t, pitch}; }
template <class T> __aicore__ inline Columns<T> columns_of(LocalTensor<T> t, int64_t pitch) { return {t, pitch}; }
enum multiply_t { f32, bf16, i8 };

/** How many of N rows of a view there are, if D columns from k on of each lie in one stretch; else 0. */
template <int N, int D> __aicore__ inline int64_t whole_rows(const view_base &v, int64_t k) {
  if (v.index.is || v.row < 0 || v.row >= v.rows || v.col + k < 0 || v.col + k + D > v.cols || v.pitch < D) return 0;
  return tile_min(N, v.rows - v.row);
}
/** The same stretch of some rows to `to`, one after the other, by one copy. */
template <int D, class T, class S> __aicore__ inline void copy_rows_in(LocalTensor<T> to, __gm__ const S *from, int64_t rows, int64_t pitch) {
  static_assert(sizeof(T) == sizeof(S) && D * sizeof(T) % 32 == 0, "rows of whole 32 bytes");
  AscendC::GlobalTensor<T> in;
  in.SetGlobalBuffer((__gm__ T *)from);
  AscendC::DataCopyPad(to, in, AscendC::DataCopyExtParams{(uint16_t)rows, (uint32_t)(D * sizeof(T)), (uint32_t)((pitch - D) * (int64_t)sizeof(T)), 0, 0}, AscendC::DataCopyPadExtParams<T>{false, 0, 0, (T)0});
}
template <int N, int D> __aicore__ inline void zero_rows(LocalTensor<float> to, int64_t rows) { if (rows < N) AscendC::Duplicate(to[rows * D], 0.0f, (int)((N - rows) * D)); }
/** N rows of D columns from k on, as f32, by copies and the vector unit; false where the view or D is not for that. `raw` holds them as they are stored. */
template <int N, int D, class V> __aicore__ inline bool tile_rows(LocalTensor<float>, const V &, int64_t, LocalTensor<uint8_t>) { return false; }
template <int N, int D> __aicore__ inline bool tile_rows(LocalTensor<float> to, const view_f32 &v, int64_t k, LocalTensor<uint8_t>) {
  if constexpr (D % 8 == 0) {
    const int64_t rows = whole_rows<N, D>(v, k);
    if (rows == 0) return false;
    copy_rows_in<D>(to, v.data + v.row * v.pitch + v.col + k, rows, v.pitch);
    zero_rows<N, D>(to, rows);
    return true;
  }
  return false;
}
template <int N, int D> __aicore__ inline bool tile_rows(LocalTensor<float> to, const view_bf16 &v, int64_t k, LocalTensor<uint8_t> raw) {
  if constexpr (D % 16 == 0) {
    const int64_t rows = whole_rows<N, D>(v, k);
    if (rows == 0) return false;
    copy_rows_in<D>(raw.template ReinterpretCast<uint16_t>(), v.data + v.row * v.pitch + v.col + k, rows, v.pitch);
    AscendC::PipeBarrier<PIPE_ALL>();
    AscendC::Cast(to, raw.template ReinterpretCast<bfloat16_t>(), AscendC::RoundMode::CAST_NONE, (int)(rows * D));
    zero_rows<N, D>(to, rows);
    return true;
  }
  return false;
}
/** int8 by way of f16, which holds it exactly; a row's scale where the columns have one. */
template <int N, int D, class V> __aicore__ inline bool tile_rows_i8(LocalTensor<float> to, const V &v, int64_t k, LocalTensor<uint8_t> raw) {
  if constexpr (D % 32 == 0) {
    const int64_t rows = whole_rows<N, D>(v, k), column = (v.col + k) / v.block_cols;
    if (rows == 0 || column != (v.col + k + D - 1) / v.block_cols) return false;
    LocalTensor<half> wide = raw[N * D].template ReinterpretCast<half>();
    copy_rows_in<D>(raw.template ReinterpretCast<int8_t>(), v.data + v.row * v.pitch + v.col + k, rows, v.pitch);
    AscendC::PipeBarrier<PIPE_ALL>();
    AscendC::Cast(wide, raw.template ReinterpretCast<int8_t>(), AscendC::RoundMode::CAST_NONE, (int)(rows * D));
    AscendC::Cast(to, wide, AscendC::RoundMode::CAST_NONE, (int)(rows * D));
    const int64_t columns = tile_ceildiv(v.pitch, v.block_cols);
    for (int64_t r = 0; r < rows; r++) AscendC::Muls(to[r * D], to[r * D], scale_of(v.scale + (v.row + r) / v.block_rows * columns + column), D);
    zero_rows<N, D>(to, rows);
    return true;
  }
  return false;
}
template <int N, int D> __aicore__ inline bool tile_rows(LocalTensor<float> to, const view_i8_f32 &v, int64_t k, LocalTensor<uint8_t> raw) { return tile_rows_i8<N, D>(to, v, k, raw); }
template <int N, int D> __aicore__ inline bool tile_rows(LocalTensor<float> to, const view_i8_bf16 &v, int64_t k, LocalTensor<uint8_t> raw) { return tile_rows_i8<N, D>(to, v, k, raw); }
/** Rows of W from k on, what is outside as 0. */
template <int N, int D, multiply_t P, class A> __aicore__ inline void tile_operand(LocalTensor<float> to, A a, int64_t at, int64_t k, LocalTensor<uint8_t> raw) {
  constexpr int W = (D + 7) / 8 * 8;
  if (P != bf16 && at + D <= k && tile_rows<N, D>(to, a, at, raw)) return;
  SCALAR_BEGIN;
  for (int n = 0; n < N; n++) for (int d = 0; d < W; d++) { const float v = d < D && at + d < k ? a.at(n, at + d, 0.0f) : 0.0f; to.SetValue(n * W + d, P == bf16 ? from_bf16(to_bf16(v)) : v); }
}
/** Products along rows of D, eight at least, by Mul and ReduceSum; `staged` holds (M + N + 1) rows, 8 N + 64 more, and rows as they are stored. */
template <int M, int N, int D, multiply_t P, class A, class B> __aicore__ inline void tile_contract(LocalTensor<float> into, int64_t k, A a, B b, LocalTensor<float> staged) {
  constexpr int W = (D + 7) / 8 * 8;
  LocalTensor<float> left = staged, right = staged[M * W], product = staged[(M + N) * W], sum = staged[(M + N + 1) * W], work = sum[8 * N];
  LocalTensor<uint8_t> raw = work[64].template ReinterpretCast<uint8_t>();
  AscendC::Duplicate(into, 0.0f, M * N);
  for (int64_t at = 0; at < k; at += D) {
    tile_operand<M, D, P>(left, a, at, k, raw);
    SCALAR_END;
    tile_operand<N, D, P>(right, b, at, k, raw);
    SCALAR_END;
    for (int m = 0; m < M; m++) {
      for (int n = 0; n < N; n++) {
        AscendC::Mul(product, left[m * W], right[n * W], W);
        AscendC::ReduceSum(sum[8 * n], product, work, W);
      }
      SCALAR_BEGIN;
      for (int n = 0; n < N; n++) into.SetValue(m * N + n, into.GetValue(m * N + n) + sum.GetValue(8 * n));
      SCALAR_END;
    }
  }
}
__aicore__ inline void tile_topk(LocalTensor<float> best, LocalTensor<int32_t> index, int64_t count, LocalTensor<float> from, int64_t n, int64_t base) {
  SCALAR_BEGIN;
  for (int64_t i = 0; i < n; i++) {
    const float v = from.GetValue(i);
    if (!(v > best.GetValue(count - 1))) continue;
    int64_t j = count - 1;
    for (; j > 0 && v > best.GetValue(j - 1); j--) { best.SetValue(j, best.GetValue(j - 1)); index.SetValue(j, index.GetValue(j - 1)); }
    best.SetValue(j, v);
    index.SetValue(j, (int32_t)(base + i));
  }
  SCALAR_END;
}
__aicore__ inline void tile_scan(LocalTensor<float> to, LocalTensor<float> from, int64_t n) {
  SCALAR_BEGIN;
  float s = 0;
  for (int64_t i = 0; i < n; i++) { const float v = from.GetValue(i); to.SetValue(i, s); s += v; }
  SCALAR_END;
}
