// One vector of f32 and what the verbs need of it, in four spellings: AVX-512, AVX2 with FMA and F16C, NEON, and plain vector extensions of
// gcc and clang. VL is the number of lanes. Every spelling gives the same values save for the order of sums.
#pragma once
#include <stdint.h>
#include <string.h>
#if defined(__x86_64__) || defined(__i386__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

#define FN static inline __attribute__((unused))
#define INLINE static inline __attribute__((always_inline, unused))

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512DQ__)
#define TILE_AVX512 1
#define VL 16
#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#define TILE_AVX2 1
#define VL 8
#else
#define VL 4
#endif

typedef float vf __attribute__((vector_size(4 * VL), may_alias));
typedef float vf_loose __attribute__((vector_size(4 * VL), may_alias, aligned(4)));
typedef int32_t vi __attribute__((vector_size(4 * VL), may_alias));
typedef uint32_t vu __attribute__((vector_size(4 * VL), may_alias));
typedef uint16_t vu16 __attribute__((vector_size(2 * VL), may_alias));
typedef int8_t vi8 __attribute__((vector_size(VL), may_alias));
typedef uint8_t vu8 __attribute__((vector_size(VL), may_alias));

/** How many bytes of weights ahead of what is met now: a quarter of a microsecond of what memory gives one thread. */
#ifndef TILE_AHEAD
#define TILE_AHEAD 8192
#endif
/** Asks memory for what will be read soon; any address is legal. */
INLINE void tile_ahead(const void *p) { __builtin_prefetch(p, 0, 2); }
INLINE vf vf_load(const float *p) { return *(const vf_loose *)p; }
INLINE void vf_store(float *p, vf v) { *(vf_loose *)p = v; }
INLINE vf vf_all(float x) { return x - (vf){0}; } // a sum with 0 would be one: it is not x for -0
/** Stays in a register: compilers otherwise read it from memory again for every use, and loads are what a block of dot products runs out of. */
INLINE void vf_keep(vf *v) {
#if TILE_AVX512
  __asm__("" : "+v"(*v));
#elif defined(__x86_64__)
  __asm__("" : "+x"(*v));
#elif defined(__aarch64__)
  __asm__("" : "+w"(*v));
#else
  (void)v;
#endif
}
/** a * b + c in one rounding where the machine has it. */
INLINE vf vf_fma(vf a, vf b, vf c) {
#if TILE_AVX512
  return (vf)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif TILE_AVX2
  return (vf)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif defined(__ARM_NEON) && defined(__aarch64__)
  return (vf)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#else
  return a * b + c;
#endif
}
INLINE float vf_sum(vf v) {
#if TILE_AVX512
  return _mm512_reduce_add_ps((__m512)v);
#elif defined(__ARM_NEON) && defined(__aarch64__)
  return vaddvq_f32((float32x4_t)v);
#else
  float s[VL];
  memcpy(s, &v, sizeof s);
  for (int n = VL / 2; n > 0; n /= 2)
    for (int i = 0; i < n; i++) s[i] += s[i + n];
  return s[0];
#endif
}
/** to[i] += sum of v[i] for four vectors. */
INLINE void vf_add_sums4(float *to, vf a, vf b, vf c, vf d) {
#if TILE_AVX512
  const __m512 ab = _mm512_add_ps(_mm512_unpacklo_ps((__m512)a, (__m512)b), _mm512_unpackhi_ps((__m512)a, (__m512)b));
  const __m512 cd = _mm512_add_ps(_mm512_unpacklo_ps((__m512)c, (__m512)d), _mm512_unpackhi_ps((__m512)c, (__m512)d));
  const __m512 all = _mm512_add_ps((__m512)_mm512_unpacklo_pd((__m512d)ab, (__m512d)cd), (__m512)_mm512_unpackhi_pd((__m512d)ab, (__m512d)cd));
  const __m256 two = _mm256_add_ps(_mm512_castps512_ps256(all), _mm512_extractf32x8_ps(all, 1));
  _mm_storeu_ps(to, _mm_add_ps(_mm_loadu_ps(to), _mm_add_ps(_mm256_castps256_ps128(two), _mm256_extractf128_ps(two, 1))));
#else
  to[0] += vf_sum(a), to[1] += vf_sum(b), to[2] += vf_sum(c), to[3] += vf_sum(d);
#endif
}

// ---- VL codes as f32

INLINE vf vf_from_bf16(const void *p) {
#if TILE_AVX512
  return (vf)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p)), 16);
#elif TILE_AVX2
  return (vf)_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p)), 16);
#else
  vu16 h;
  memcpy(&h, p, sizeof h);
  return (vf)(__builtin_convertvector(h, vu) << 16);
#endif
}
/** Bits of f16 as f32, where no instruction does it: subnormals by a difference of normals. */
INLINE vf vf_from_f16_bits(vu h) {
  const vu magnitude = (h & 0x7fff) << 13;
  const vu sign = (h & 0x8000) << 16;
  const vf normal = (vf)(magnitude + (112u << 23));
  const vf small = (vf)(magnitude + (113u << 23)) - (vf)((vu){0} + (113u << 23));
  const vu is_small = (vu)(magnitude < (1u << 23));
  const vu is_special = (vu)(magnitude >= (0x1fu << 23)); // infinity and NaN keep their fraction under the largest exponent
  const vu bits = (is_small & (vu)small) | (~is_small & ((vu)normal + (is_special & (112u << 23))));
  return (vf)(bits | sign);
}
INLINE vf vf_from_f16(const void *p) {
#if TILE_AVX512
  return (vf)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
#elif TILE_AVX2
  return (vf)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
#elif defined(__ARM_NEON) && defined(__aarch64__)
  float16x4_t h;
  memcpy(&h, p, 8);
  return (vf)vcvt_f32_f16(h);
#else
  vu16 h;
  memcpy(&h, p, sizeof h);
  return vf_from_f16_bits(__builtin_convertvector(h, vu));
#endif
}
INLINE vf vf_from_i8(const void *p) {
#if TILE_AVX512
  return (vf)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p)));
#elif TILE_AVX2
  return (vf)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p)));
#else
  vi8 b;
  memcpy(&b, p, sizeof b);
  return __builtin_convertvector(__builtin_convertvector(b, vi), vf);
#endif
}
/** f8e4m3 / 256: sign, exponent and fraction moved to their places in f16, whose bias is 8 larger. The codes of NaN read as 480 / 256. */
INLINE vf vf_from_e4m3_256th(const void *p) {
#if TILE_AVX512
  const __m256i h = _mm256_slli_epi16(_mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)p)), 7);
  return (vf)_mm512_cvtph_ps(_mm256_and_si256(h, _mm256_set1_epi16((short)0xbf80)));
#elif TILE_AVX2
  const __m128i h = _mm_slli_epi16(_mm_cvtepi8_epi16(_mm_loadl_epi64((const __m128i *)p)), 7);
  return (vf)_mm256_cvtph_ps(_mm_and_si128(h, _mm_set1_epi16((short)0xbf80)));
#else
  vu8 b;
  memcpy(&b, p, sizeof b);
  const vu u = __builtin_convertvector(b, vu);
  return vf_from_f16_bits(((u & 0x80) << 8) | ((u & 0x7f) << 7));
#endif
}
/** VL half-byte codes, the low nibble of a byte first, through a table of 16. */
INLINE vf vf_from_nibbles(const void *p, const float table[16]) {
#if TILE_AVX512
  const __m128i b = _mm_loadl_epi64((const __m128i *)p);
  const __m128i codes = _mm_unpacklo_epi8(_mm_and_si128(b, _mm_set1_epi8(15)), _mm_and_si128(_mm_srli_epi16(b, 4), _mm_set1_epi8(15)));
  return (vf)_mm512_permutexvar_ps(_mm512_cvtepu8_epi32(codes), _mm512_loadu_ps(table));
#else
  vf v;
  for (int i = 0; i < VL; i++) v[i] = table[((const uint8_t *)p)[i / 2] >> (i % 2 * 4) & 15];
  return v;
#endif
}
INLINE vf vf_from_i4(const void *p) {
#if TILE_AVX2
  uint32_t four;
  memcpy(&four, p, 4);
  const __m256i codes = _mm256_and_si256(_mm256_srlv_epi32(_mm256_set1_epi32((int)four), _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28)), _mm256_set1_epi32(15));
  return (vf)_mm256_cvtepi32_ps(_mm256_sub_epi32(codes, _mm256_set1_epi32(8)));
#else
  static const float table[16] = {-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7};
  return vf_from_nibbles(p, table);
#endif
}
INLINE vf vf_from_e2m1(const void *p) {
  static const float table[16] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6, -0.0f, -0.5f, -1, -1.5f, -2, -3, -4, -6};
  return vf_from_nibbles(p, table);
}
