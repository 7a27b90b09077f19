// Vectors of the width that the compiler was told of, and how codes in memory become f32 in them. GCC's and Clang's vector types carry the
// arithmetic everywhere; where a unit has a better way to decode (AVX-512, AVX2, NEON), it is used and named.
#pragma once
#include <math.h>
#include <stdint.h>
#include <string.h>
#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif
#if defined(__ARM_NEON)
#include <arm_neon.h>
#endif

#define TILE_INLINE static inline __attribute__((always_inline, unused))
#define TILE_CALL static __attribute__((noinline, unused))

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__)
#define TILE_WIDTH 16
#elif defined(__AVX2__)
#define TILE_WIDTH 8
#else
#define TILE_WIDTH 4
#endif
typedef float vf __attribute__((vector_size(4 * TILE_WIDTH), aligned(4), may_alias));
typedef uint32_t vu __attribute__((vector_size(4 * TILE_WIDTH), aligned(4), may_alias));
typedef int32_t vi __attribute__((vector_size(4 * TILE_WIDTH), aligned(4), may_alias));
typedef uint16_t vh __attribute__((vector_size(2 * TILE_WIDTH), aligned(1), may_alias));
typedef int8_t vb __attribute__((vector_size(TILE_WIDTH), aligned(1), may_alias));
typedef uint8_t vub __attribute__((vector_size(TILE_WIDTH), aligned(1), may_alias));

TILE_INLINE vf vf_of(float x) { return x - (vf){0}; }
TILE_INLINE vf vf_load(const float *p) { vf v; memcpy(&v, p, sizeof v); return v; }
TILE_INLINE void vf_store(float *p, vf v) { memcpy(p, &v, sizeof v); }
TILE_INLINE float vf_sum(vf v) {
#if TILE_WIDTH == 16
  return _mm512_reduce_add_ps((__m512)v);
#else
  float s[TILE_WIDTH];
  memcpy(s, &v, sizeof v);
  for (int n = TILE_WIDTH / 2; n > 0; n /= 2) for (int i = 0; i < n; i++) s[i] += s[i + n];
  return s[0];
#endif
}

// ---- one element

TILE_INLINE float tile_bits(uint32_t u) { float f; memcpy(&f, &u, 4); return f; }
TILE_INLINE uint32_t tile_bits_of(float f) { uint32_t u; memcpy(&u, &f, 4); return u; }
TILE_INLINE float tile_from_bf16(uint16_t h) { return tile_bits((uint32_t)h << 16); }
/** Round to nearest, half to even; NaN stays NaN. */
TILE_INLINE uint16_t tile_to_bf16(float f) {
  const uint32_t u = tile_bits_of(f);
  if ((u & 0x7fffffffu) > 0x7f800000u) return (uint16_t)((u >> 16) | 0x40);
  return (uint16_t)((u + 0x7fffu + ((u >> 16) & 1)) >> 16);
}
TILE_INLINE float tile_from_f16(uint16_t h) {
  // exponents move by 112; subnormals are rebuilt by a multiplication
  const uint32_t sign = (uint32_t)(h & 0x8000) << 16, magnitude = h & 0x7fff;
  if (magnitude >= 0x7c00) return tile_bits(sign | 0x7f800000u | (magnitude & 0x3ff) << 13);
  if (magnitude < 0x400) return tile_bits(sign | tile_bits_of((float)magnitude * 0x1p-24f));
  return tile_bits(sign | ((magnitude << 13) + (112u << 23)));
}
TILE_INLINE uint16_t tile_to_f16(float f) {
  const uint32_t u = tile_bits_of(f), sign = (u >> 16) & 0x8000u, magnitude = u & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return (uint16_t)(sign | 0x7e00);
  if (magnitude >= 0x477ff000u) return (uint16_t)(sign | 0x7c00);
  if (magnitude < 0x38800000u) return (uint16_t)(sign | (uint32_t)lrintf(tile_bits(magnitude) * 0x1p24f));
  return (uint16_t)(sign | ((magnitude - (112u << 23) + 0xfffu + ((magnitude >> 13) & 1)) >> 13));
}
TILE_INLINE float tile_from_f8e4m3(uint8_t b) {
  const uint32_t m = b & 0x7f;
  if (m == 0x7f) return NAN;
  const float v = m < 8 ? (float)m * 0x1p-9f : tile_bits((m << 20) + (120u << 23));
  return b & 0x80 ? -v : v;
}
static const float tile_f4e2m1[16] __attribute__((unused)) = {0, .5f, 1, 1.5f, 2, 3, 4, 6, -0.0f, -.5f, -1, -1.5f, -2, -3, -4, -6};
static const float tile_i4[16] __attribute__((unused)) = {-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7};
TILE_INLINE float tile_from_e8m0(uint8_t b) { return b == 255 ? NAN : b == 0 ? 0x1p-127f : tile_bits((uint32_t)b << 23); }
TILE_INLINE float tile_scale_f32(const float *p) { float f; memcpy(&f, p, 4); return f; }
TILE_INLINE float tile_scale_bf16(const uint16_t *p) { uint16_t h; memcpy(&h, p, 2); return tile_from_bf16(h); }
TILE_INLINE float tile_scale_e8m0(const uint8_t *p) { return tile_from_e8m0(*p); }

// ---- a vector of elements, from memory of any alignment

TILE_INLINE vf vf_f32(const float *p) { return vf_load(p); }
TILE_INLINE vf vf_bf16(const uint16_t *p) {
  vh h;
  memcpy(&h, p, sizeof h);
  return (vf)(__builtin_convertvector(h, vu) << 16);
}
TILE_INLINE vf vf_f16(const uint16_t *p) {
#if TILE_WIDTH == 16
  return (vf)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
#elif TILE_WIDTH == 8 && defined(__F16C__)
  return (vf)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
#else
  vf v;
  for (int i = 0; i < TILE_WIDTH; i++) { uint16_t h; memcpy(&h, p + i, 2); v[i] = tile_from_f16(h); }
  return v;
#endif
}
TILE_INLINE vf vf_i8(const int8_t *p) {
#if TILE_WIDTH == 16
  return (vf)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p)));
#elif TILE_WIDTH == 8
  return (vf)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p)));
#else
  vb b;
  memcpy(&b, p, sizeof b);
  return __builtin_convertvector(__builtin_convertvector(b, vi), vf);
#endif
}
/** e4m3 as the f16 of the same fraction, 2^8 too small; NaN codes become NaN. */
TILE_INLINE vf vf_f8e4m3(const uint8_t *p) {
#if TILE_WIDTH == 16
  const __m256i b = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)p));
  const __m256i magnitude = _mm256_slli_epi16(_mm256_and_si256(b, _mm256_set1_epi16(0x7f)), 7);
  const __m256i h = _mm256_or_si256(magnitude, _mm256_and_si256(b, _mm256_set1_epi16((short)0x8000)));
  const __mmask16 nan = _mm256_cmpeq_epi16_mask(magnitude, _mm256_set1_epi16(0x7f << 7));
  return (vf)_mm512_mul_ps(_mm512_cvtph_ps(_mm256_mask_mov_epi16(h, nan, _mm256_set1_epi16(0x7e00))), _mm512_set1_ps(256.0f));
#elif TILE_WIDTH == 8 && defined(__F16C__)
  const __m128i b = _mm_cvtepi8_epi16(_mm_loadl_epi64((const __m128i *)p));
  const __m128i magnitude = _mm_slli_epi16(_mm_and_si128(b, _mm_set1_epi16(0x7f)), 7);
  const __m128i nan = _mm_cmpeq_epi16(magnitude, _mm_set1_epi16(0x7f << 7));
  const __m128i h = _mm_or_si128(_mm_or_si128(magnitude, _mm_and_si128(nan, _mm_set1_epi16(0x7e00))), _mm_and_si128(b, _mm_set1_epi16((short)0x8000)));
  return (vf)_mm256_mul_ps(_mm256_cvtph_ps(h), _mm256_set1_ps(256.0f));
#else
  vf v;
  for (int i = 0; i < TILE_WIDTH; i++) v[i] = tile_from_f8e4m3(p[i]);
  return v;
#endif
}

/** 2 * TILE_WIDTH elements of half a byte: even ones in *even, odd ones in *odd. `table` gives the value of each code. */
TILE_INLINE void vf_nibbles(const uint8_t *p, const float *table, vf *even, vf *odd) {
#if TILE_WIDTH == 16
  const __m512 t = _mm512_loadu_ps(table); // a permutation looks at the lowest four bits alone
  const __m512i b = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p));
  *even = (vf)_mm512_permutexvar_ps(b, t);
  *odd = (vf)_mm512_permutexvar_ps(_mm512_srli_epi32(b, 4), t);
#elif TILE_WIDTH == 8
  const __m256 low = _mm256_loadu_ps(table), high = _mm256_loadu_ps(table + 8);
  const __m256i b = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p)), o = _mm256_srli_epi32(b, 4);
  *even = (vf)_mm256_blendv_ps(_mm256_permutevar8x32_ps(low, b), _mm256_permutevar8x32_ps(high, b), _mm256_castsi256_ps(_mm256_slli_epi32(b, 28)));
  *odd = (vf)_mm256_blendv_ps(_mm256_permutevar8x32_ps(low, o), _mm256_permutevar8x32_ps(high, o), _mm256_castsi256_ps(_mm256_slli_epi32(o, 28)));
#else
  for (int i = 0; i < TILE_WIDTH; i++) { (*even)[i] = table[p[i] & 15]; (*odd)[i] = table[p[i] >> 4]; }
#endif
}

// ---- functions; the error of each is below 2 units in the last place of f32 in its range

/** e^x; 0 below -87.3, infinity above 88.7. */
TILE_INLINE float tile_exp(float x) {
  const float c = x < -87.3f ? -87.3f : x > 88.7f ? 88.7f : x;
  const float n = rintf(c * 1.44269504088896341f);
  const float r = (c - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  const float y = p * r * r + r + 1.0f;
  const int32_t k = (int32_t)n, half = k / 2; // in two steps: 2^128 is no f32
  const float v = y * tile_bits((uint32_t)(half + 127) << 23) * tile_bits((uint32_t)(k - half + 127) << 23);
  return x < -87.3f ? 0.0f : x > 88.72f ? INFINITY : x != x ? x : v;
}
TILE_INLINE float tile_log(float x) { return logf(x); }
TILE_INLINE float tile_sqrt(float x) { return sqrtf(x); }
TILE_INLINE float tile_rsqrt(float x) { return 1.0f / sqrtf(x); }
TILE_INLINE float tile_abs(float x) { return fabsf(x); }
TILE_INLINE float tile_ceil(float x) { return ceilf(x); }
TILE_INLINE float tile_floor(float x) { return floorf(x); }
TILE_INLINE float tile_fmax(float a, float b) { return a > b ? a : b; }
TILE_INLINE float tile_fmin(float a, float b) { return a < b ? a : b; }
/** sin (quadrant 0) and cos (quadrant 1) of an f32 angle, reduced in f64: exact enough to 2^30 turns. */
TILE_INLINE float tile_turn(float x, int quadrant) {
  const double n = rint((double)x * 0.63661977236758134308); // quarter turns
  const double r = ((double)x - n * 1.57079632679489655800) - n * 6.12323399573676603587e-17;
  const double s = r * r;
  const double sine = r + r * s * (-1.6666666666666632e-01 + s * (8.3333333333224895e-03 + s * (-1.9841269829857949e-04 + s * (2.7557313621385725e-06 + s * -2.5050747762857807e-08))));
  const double cosine = 1.0 - 0.5 * s + s * s * (4.1666666666666602e-02 + s * (-1.3888888888874110e-03 + s * (2.4801587289476728e-05 + s * (-2.7557314351390663e-07 + s * 2.0875723212981748e-09))));
  const long q = (long)n + quadrant;
  const double v = q & 1 ? cosine : sine;
  return (float)(q & 2 ? -v : v);
}
TILE_INLINE float tile_sin(float x) { return tile_turn(x, 0); }
TILE_INLINE float tile_cos(float x) { return tile_turn(x, 1); }

TILE_INLINE long tile_min(long a, long b) { return a < b ? a : b; }
TILE_INLINE long tile_max(long a, long b) { return a > b ? a : b; }
TILE_INLINE long tile_ceildiv(long a, long b) { return (a + b - 1) / b; }
