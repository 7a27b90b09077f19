// The verbs of printed kernels where a block's threads share its tiles. A dialect's header says the words THREAD, THREADS, BARRIER, SHARED, DEVICE,
// and the type tile<T, N>, before it includes this one.
//
// Element n of a tile belongs to thread n % THREADS in every verb that says so (each, contract's result); reductions give row r to thread
// (r + 3) % THREADS, on purpose another one: barriers are placed by the printer, not by luck.
#pragma once

DEVICE inline long tile_min(long a, long b) { return a < b ? a : b; }
DEVICE inline long tile_max(long a, long b) { return a > b ? a : b; }
DEVICE inline long tile_ceildiv(long a, long b) { return (a + b - 1) / b; }
DEVICE inline float tile_fmin(float a, float b) { return a < b ? a : b; }
DEVICE inline float tile_fmax(float a, float b) { return a > b ? a : b; }
DEVICE inline float tile_exp(float x) { return expf(x); }
DEVICE inline float tile_log(float x) { return logf(x); }
DEVICE inline float tile_sqrt(float x) { return sqrtf(x); }
DEVICE inline float tile_rsqrt(float x) { return 1.0f / sqrtf(x); }
DEVICE inline float tile_abs(float x) { return fabsf(x); }
DEVICE inline float tile_ceil(float x) { return ceilf(x); }
DEVICE inline float tile_floor(float x) { return floorf(x); }
/**
 * Sine and cosine to 2^-22 for |x| below 2^18, without doubles: pi/2 in three parts of 24 bits is taken k times, the first time exactly; then the
 * series of both at what is left, at most pi/4: what is cut off is below 2^-29.
 */
DEVICE inline float tile_turned(float x, int quarter) {
  const float k = rintf(x * 0.636619772367581343f);
  float r = fmaf(k, -1.5707963705062866f, x);
  r = fmaf(k, 4.371138828673793e-8f, r);
  r = fmaf(k, 1.7151245100058819e-15f, r);
  const float q = r * r;
  const float s = r + r * q * (-1.0f / 6 + q * (1.0f / 120 + q * (-1.0f / 5040 + q * (1.0f / 362880))));
  const float c = 1.0f + q * (-0.5f + q * (1.0f / 24 + q * (-1.0f / 720 + q * (1.0f / 40320 - q * (1.0f / 3628800)))));
  const int n = ((int)k + quarter) & 3;
  const float v = n & 1 ? c : s;
  return n & 2 ? -v : v;
}
DEVICE inline float tile_sin(float x) { return tile_turned(x, 0); }
DEVICE inline float tile_cos(float x) { return tile_turned(x, 1); }

DEVICE inline float tile_bits(uint32_t u) { float f; memcpy(&f, &u, 4); return f; }
DEVICE inline uint32_t tile_bits_of(float f) { uint32_t u; memcpy(&u, &f, 4); return u; }
DEVICE inline float tile_from_bf16(uint16_t h) { return tile_bits((uint32_t)h << 16); }
/** Half to even, whatever the chip's own cast does. */
DEVICE inline uint16_t tile_to_bf16(float f) {
  const uint32_t u = tile_bits_of(f);
  return (uint16_t)((u & 0x7fffffffu) > 0x7f800000u ? (u >> 16) | 0x40 : (u + 0x7fffu + ((u >> 16) & 1)) >> 16);
}
DEVICE inline float tile_from_f16(uint16_t h) {
  const uint32_t sign = (uint32_t)(h & 0x8000) << 16, m = h & 0x7fff;
  if (m >= 0x7c00) return tile_bits(sign | 0x7f800000u | (m & 0x3ff) << 13);
  if (m < 0x400) return tile_bits(sign | tile_bits_of((float)m * 5.9604644775390625e-8f));
  return tile_bits(sign | ((m << 13) + (112u << 23)));
}
DEVICE inline uint16_t tile_to_f16(float f) {
  const uint32_t u = tile_bits_of(f), sign = (u >> 16) & 0x8000u, m = u & 0x7fffffffu;
  if (m > 0x7f800000u) return (uint16_t)(sign | 0x7e00);
  if (m >= 0x477ff000u) return (uint16_t)(sign | 0x7c00);
  if (m < 0x38800000u) return (uint16_t)(sign | (uint32_t)lrintf(tile_bits(m) * 16777216.0f));
  return (uint16_t)(sign | ((m - (112u << 23) + 0xfffu + ((m >> 13) & 1)) >> 13));
}
DEVICE inline float tile_from_f8e4m3(uint8_t b) {
  const uint32_t m = b & 0x7f;
  const float v = m == 0x7f ? NAN : m < 8 ? (float)m * 0.001953125f : tile_bits((m << 20) + (120u << 23));
  return b & 0x80 ? -v : v;
}
DEVICE inline float tile_from_f4e2m1(int n) {
  const int m = n & 7;
  const float v = m < 4 ? 0.5f * (float)m : m == 4 ? 2.0f : m == 5 ? 3.0f : m == 6 ? 4.0f : 6.0f;
  return n & 8 ? -v : v;
}
DEVICE inline float tile_from_e8m0(uint8_t b) { return b == 255 ? NAN : b == 0 ? tile_bits(0x00400000u) : tile_bits((uint32_t)b << 23); }

// ---- views: a rectangle of a parameter. `at` pads outside, `put` drops; a call decodes for contract, where outside is zero. `wide` gives `run` elements
// of a row at once: in one load of 16 bytes where they lie so and are all inside, one by one where not.

struct view_base {
  long row, rows, col, cols, pitch;
  const int32_t *index;
  DEVICE long row_of(long r) const { const long at = index ? (index[r] < 0 ? -1 : row + index[r]) : row + r; return at < 0 || at >= rows ? -1 : at; }
  DEVICE bool inside(long at, long c) const { return at >= 0 && col + c >= 0 && col + c < cols; }
};
/** 16 bytes, whatever is in them. */
DEVICE inline bool tile_wide(const void *p, void *to) {
  if ((uintptr_t)p % 16 != 0) return false;
  const float4 v = *(const float4 *)p;
  memcpy(to, &v, 16);
  return true;
}
#define VIEW_PLAIN(kind, type, decode, encode)                                                                                                  \
  struct view_##kind : view_base {                                                                                                              \
    static constexpr int run = 16 / sizeof(type);                                                                                               \
    const type *data;                                                                                                                           \
    DEVICE view_##kind(const type *d, long row, long rows, long col, long cols, long pitch, const int32_t *index) : view_base{row, rows, col, cols, pitch, index}, data(d) {} \
    DEVICE float at(long r, long c, float pad) const { const long at = row_of(r); if (!inside(at, c)) return pad; const type e = data[at * pitch + col + c]; return decode; } \
    DEVICE float operator()(long r, long c) const { return at(r, c, 0.0f); }                                                                    \
    DEVICE void put(long r, long c, float v) const { const long at = row_of(r); if (inside(at, c)) const_cast<type *>(data)[at * pitch + col + c] = encode; } \
    DEVICE void wide(long r, long c, float *to) const {                                                                                         \
      const long at = row_of(r);                                                                                                                \
      type held[run];                                                                                                                           \
      if (inside(at, c) && inside(at, c + run - 1) && tile_wide(data + at * pitch + col + c, held)) {                                           \
        for (int i = 0; i < run; i++) { const type e = held[i]; to[i] = decode; }                                                               \
      } else for (int i = 0; i < run; i++) to[i] = (*this)(r, c + i);                                                                           \
    }                                                                                                                                           \
  };
VIEW_PLAIN(f32, float, e, v)
VIEW_PLAIN(bf16, uint16_t, tile_from_bf16(e), tile_to_bf16(v))
VIEW_PLAIN(f16, uint16_t, tile_from_f16(e), tile_to_f16(v))
VIEW_PLAIN(i32, int32_t, (float)e, (int32_t)v)
VIEW_PLAIN(i64, int64_t, (float)e, (int64_t)v)
DEVICE inline float scale_of(const float *s) { return *s; }
DEVICE inline float scale_of(const uint16_t *s) { return tile_from_bf16(*s); }
DEVICE inline float scale_of(const uint8_t *s) { return tile_from_e8m0(*s); }
/** Codes of `bits` bits with a scale a block: `decode` gives the number of a code e. */
#define VIEW_SCALED(kind, type, bits, stype, decode)                                                                                            \
  struct view_##kind : view_base {                                                                                                              \
    static constexpr int run = 128 / bits;                                                                                                      \
    const type *data;                                                                                                                           \
    const stype *scale;                                                                                                                         \
    long block_rows, block_cols;                                                                                                                \
    DEVICE view_##kind(const type *d, long row, long rows, long col, long cols, long pitch, const int32_t *index, const stype *s, long br, long bc) \
        : view_base{row, rows, col, cols, pitch, index}, data(d), scale(s), block_rows(br), block_cols(bc) {}                                   \
    DEVICE static float number(const type *codes, long i) {                                                                                     \
      const int e = bits == 8 ? (int)codes[i] : (codes[i / 2] >> (i % 2 * 4)) & 15;                                                             \
      return decode;                                                                                                                            \
    }                                                                                                                                           \
    DEVICE const type *line(long at) const { return data + at * (bits == 8 ? pitch : (pitch + 1) / 2); }                                        \
    DEVICE float scale_at(long at, long x) const { return scale_of(scale + at / block_rows * tile_ceildiv(pitch, block_cols) + x / block_cols); } \
    DEVICE float at(long r, long c, float pad) const {                                                                                          \
      const long at = row_of(r);                                                                                                                \
      return inside(at, c) ? number(line(at), col + c) * scale_at(at, col + c) : pad;                                                           \
    }                                                                                                                                           \
    DEVICE float operator()(long r, long c) const { return at(r, c, 0.0f); }                                                                    \
    DEVICE void wide(long r, long c, float *to) const {                                                                                         \
      const long at = row_of(r), x = col + c;                                                                                                   \
      type held[16];                                                                                                                            \
      if (inside(at, c) && inside(at, c + run - 1) && x % run == 0 && x / block_cols == (x + run - 1) / block_cols && tile_wide(line(at) + x * bits / 8, held)) { \
        const float s = scale_at(at, x);                                                                                                        \
        for (int i = 0; i < run; i++) to[i] = number(held, i) * s;                                                                              \
      } else for (int i = 0; i < run; i++) to[i] = (*this)(r, c + i);                                                                           \
    }                                                                                                                                           \
  };
VIEW_SCALED(i8_f32, int8_t, 8, float, (float)e)
VIEW_SCALED(i8_bf16, int8_t, 8, uint16_t, (float)e)
VIEW_SCALED(f8e4m3_f32, uint8_t, 8, float, tile_from_f8e4m3((uint8_t)e))
VIEW_SCALED(f8e4m3_bf16, uint8_t, 8, uint16_t, tile_from_f8e4m3((uint8_t)e))
VIEW_SCALED(f8e4m3_e8m0, uint8_t, 8, uint8_t, tile_from_f8e4m3((uint8_t)e))
VIEW_SCALED(i4_f32, uint8_t, 4, float, (float)(e - 8))
VIEW_SCALED(i4_bf16, uint8_t, 4, uint16_t, (float)(e - 8))
VIEW_SCALED(f4e2m1_f32, uint8_t, 4, float, tile_from_f4e2m1(e))
VIEW_SCALED(f4e2m1_e8m0, uint8_t, 4, uint8_t, tile_from_f4e2m1(e))

/** Whether an operand of contract is a view, whose elements lie beside each other; else it is a function. */
template <class V, class = void> struct tile_is_view { static constexpr bool value = false; };
template <class V> struct tile_is_view<V, decltype((void)V::run)> { static constexpr bool value = true; };

/** An operand that the block holds in a tile: it is read where it lies. */
template <class F> struct tile_held_t {
  static constexpr bool held = true;
  F f;
  DEVICE float operator()(long r, long k) const { return f(r, k); }
};
template <class F> DEVICE inline tile_held_t<F> tile_held(F f) { return {f}; }
template <class V, class = void> struct tile_is_held { static constexpr bool value = false; };
template <class V> struct tile_is_held<V, decltype((void)V::held)> { static constexpr bool value = true; };

// ---- verbs

template <int R, int C, class F> DEVICE inline void tile_each(F f) {
  for (long n = THREAD; n < R * C; n += THREADS) f(n / C, n % C);
}
/** Whether a block is made of whole warps, whose lanes may then work on one row together. */
#define WARPS (THREADS % 32 == 0)
/** A row's part in each lane, put together: in every lane the same. */
#define TILE_TOGETHER(step)                                                                                                                     \
  for (int by = 16; by > 0; by /= 2) {                                                                                                          \
    const float v = __shfl_xor_sync(0xffffffffu, best, by);                                                                                     \
    const int i = __shfl_xor_sync(0xffffffffu, (int)where, by);                                                                                 \
    step                                                                                                                                        \
  }
// A long row is a warp's, a short one a thread's; columns are a thread's each, so that neighbours read neighbours.
#define TILE_REDUCE(name, start, step, together, result)                                                                                        \
  template <int R, int C, class F, class P> DEVICE inline void tile_##name(F f, P put) {                                                        \
    if (C >= 32 && WARPS) {                                                                                                                     \
      for (long row = THREAD / 32; row < R; row += THREADS / 32) {                                                                              \
        float best = start; long where = 0;                                                                                                     \
        for (long i = THREAD % 32; i < C; i += 32) { const float v = f(row, i); step }                                                          \
        TILE_TOGETHER(together)                                                                                                                 \
        if (THREAD % 32 == 3) put(row, result); }                                                                                               \
      return;                                                                                                                                   \
    }                                                                                                                                           \
    for (long row = (THREAD + 3) % THREADS; row < R; row += THREADS) {                                                                          \
      float best = start; long where = 0; (void)where;                                                                                          \
      for (long i = 0; i < C; i++) { const float v = f(row, i); step }                                                                          \
      put(row, result); } }                                                                                                                     \
  template <int R, int C, class F, class P> DEVICE inline void tile_##name##_down(F f, P put) {                                                 \
    for (long col = (THREAD + 3) % THREADS; col < C; col += THREADS) {                                                                          \
      float best = start; long where = 0; (void)where;                                                                                          \
      for (long i = 0; i < R; i++) { const float v = f(i, col); step }                                                                          \
      put(col, result); } }
TILE_REDUCE(sum, 0.0f, best += v;, (void)i; best += v;, best)
TILE_REDUCE(max, -INFINITY, best = tile_fmax(best, v);, (void)i; best = tile_fmax(best, v);, best)
TILE_REDUCE(min, INFINITY, best = tile_fmin(best, v);, (void)i; best = tile_fmin(best, v);, best)
TILE_REDUCE(argmax, -INFINITY, if (v > best) { best = v; where = i; }, if (v > best || (v == best && i < where)) { best = v; where = i; }, where)

enum multiply_t { f32, bf16, i8 };
template <multiply_t P> DEVICE inline float tile_rounded(float v) { return P == bf16 ? tile_from_bf16(tile_to_bf16(v)) : v; }
/** Memory that a block's contractions stage in: those of the same size share it. */
template <int SIZE> DEVICE inline float *tile_staging() {
  SHARED float all[SIZE];
  return all;
}
/** Rows up to which a product is bound by reading its weight: each weight is then read once, in wide loads, by the lanes of a warp together. */
constexpr int tile_few = 8;
template <int M, int N, int D, multiply_t P, class T, class A, class B> DEVICE inline void tile_contract_few(T &into, long k, A a, B b) {
  constexpr int together = 4; // outputs of a warp at a time
  float *left = tile_staging<M * D + M * N>(), *sums = left + M * D;
  const long lanes = WARPS ? 32 : 1, lane = THREAD % lanes, team = THREAD / lanes, teams = THREADS / lanes;
  for (long first = 0; first < N; first += together * teams) {
    float sum[together][M] = {};
    for (long at = 0; at < k; at += D) {
      const long deep = tile_min(D, k - at);
      BARRIER;
      tile_each<M, D>([&](long m, long d) { left[m * D + d] = d < deep ? tile_rounded<P>((float)a(m, at + d)) : 0.0f; });
      BARRIER;
#pragma unroll
      for (int g = 0; g < together; g++) {
        const long n = first + team * together + g;
        for (long d = lane * B::run; n < N && d < deep; d += lanes * B::run) {
          float w[B::run];
          b.wide(n, at + d, w);
          for (int i = 0; i < B::run; i++) w[i] = D % B::run != 0 && d + i >= D ? 0.0f : tile_rounded<P>(w[i]);
#pragma unroll
          for (int m = 0; m < M; m++)
            for (int i = 0; i < B::run; i++) sum[g][m] += left[m * D + (D % B::run != 0 && d + i >= D ? 0 : d + i)] * w[i];
        }
      }
    }
#pragma unroll
    for (int g = 0; g < together; g++)
#pragma unroll
      for (int m = 0; m < M; m++) {
        float s = sum[g][m];
        if (lanes > 1) for (int by = 16; by > 0; by /= 2) s += __shfl_xor_sync(0xffffffffu, s, by);
        const long n = first + team * together + g;
        if (lane == 0 && n < N) sums[m * N + n] = s;
      }
  }
  BARRIER;
  tile_each<M, N>([&](long m, long n) { into[m * N + n] = sums[m * N + n] + 0.0f; });
  BARRIER;
}
template <int M, int N, int D, multiply_t P, class T, class A, class B> DEVICE inline void tile_contract_many(T &into, long k, A a, B b) {
  constexpr int L = tile_is_held<A>::value ? 0 : M, R = tile_is_held<B>::value ? 0 : N;
  float *left = tile_staging<(L + R) * D>(), *right = left + L * D;
  BARRIER;
  tile_each<M, N>([&](long m, long n) { into[m * N + n] = 0.0f; });
  for (long at = 0; at < k; at += D) {
    const long deep = tile_min(D, k - at);
    BARRIER;
    if constexpr (L > 0) tile_each<M, D>([&](long m, long d) { left[m * D + d] = d < deep ? tile_rounded<P>((float)a(m, at + d)) : 0.0f; });
    if constexpr (R > 0) tile_each<N, D>([&](long n, long d) { right[n * D + d] = d < deep ? tile_rounded<P>((float)b(n, at + d)) : 0.0f; });
    BARRIER;
    tile_each<M, N>([&](long m, long n) {
      float s = into[m * N + n];
      for (long d = 0; d < deep; d++) {
        float x, w;
        if constexpr (L > 0) x = left[m * D + d]; else x = tile_rounded<P>(a(m, at + d));
        if constexpr (R > 0) w = right[n * D + d]; else w = tile_rounded<P>(b(n, at + d));
        s += x * w;
      }
      into[m * N + n] = s;
    });
  }
  BARRIER;
}
/** Numbers of a row from which a warp takes it together. */
constexpr int tile_long = 64;
/** Both operands are held: long rows are a warp's, short ones a thread's. */
template <int M, int N, int D, multiply_t P, class T, class A, class B> DEVICE inline void tile_contract_held(T &into, long k, A a, B b) {
  BARRIER;
  if constexpr (D >= tile_long) {
    float *sums = tile_staging<M * N>();
    const long lanes = WARPS ? 32 : 1, lane = THREAD % lanes;
    for (long n = THREAD / lanes; n < M * N; n += THREADS / lanes) {
      float s = 0.0f;
      for (long d = lane; d < k; d += lanes) s += tile_rounded<P>(a(n / N, d)) * tile_rounded<P>(b(n % N, d));
      if (lanes > 1) for (int by = 16; by > 0; by /= 2) s += __shfl_xor_sync(0xffffffffu, s, by);
      if (lane == 0) sums[n] = s;
    }
    BARRIER;
    tile_each<M, N>([&](long m, long n) { into[m * N + n] = sums[m * N + n] + 0.0f; });
  } else
    tile_each<M, N>([&](long m, long n) {
      float s = 0.0f;
      for (long d = 0; d < k; d++) s += tile_rounded<P>(a(m, d)) * tile_rounded<P>(b(n, d));
      into[m * N + n] = s;
    });
  BARRIER;
}
/** Waits on entry, so that operands are visible; has read them all when it returns. Element n of `into` is written by the thread of n. */
template <int M, int N, int D, multiply_t P, class T, class A, class B> DEVICE inline void tile_contract(T &into, long k, A a, B b) {
  if constexpr (M <= tile_few && tile_is_view<B>::value) tile_contract_few<M, N, D, P>(into, k, a, b);
  else if constexpr (tile_is_held<A>::value && tile_is_held<B>::value) tile_contract_held<M, N, D, P>(into, k, a, b);
  else tile_contract_many<M, N, D, P>(into, k, a, b);
}
/** best[count] falls, index beside it; a newcomer must be larger to pass. */
template <class B, class X, class F> DEVICE inline void tile_topk(B &best, X &index, long count, F &from, long n, long base) {
  if (THREAD != 0) return;
  for (long i = 0; i < n; i++) {
    const float v = from[i];
    if (!(v > best[count - 1])) continue;
    long j = count - 1;
    for (; j > 0 && v > best[j - 1]; j--) { best[j] = best[j - 1] + 0.0f; index[j] = index[j - 1] + 0; }
    best[j] = v;
    index[j] = (int32_t)(base + i);
  }
}
template <class T, class F> DEVICE inline void tile_scan(T &to, F &from, long n) {
  if (THREAD != 0) return;
  float s = 0;
  for (long i = 0; i < n; i++) { const float v = from[i]; to[i] = s; s += v; }
}
