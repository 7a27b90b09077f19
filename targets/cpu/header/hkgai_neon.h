// Few rows of a against int8, int4 and f4e2m1 weights by NEON's byte dot products (sdot), with activations cut into three digits of 7 bits as
// hkgai_digits.h says: unit = largest |x| of a stretch of 32 columns / 2064384, kept to 22 bits below the largest, sums of a stretch exact integers
// (2064384 * 128 * 8 columns of a lane stay below 2^31). A dot product is off by at most 2^-22 * largest |x| * sum |w| of each stretch.
//
// sdot came with ARMv8.2 (HWCAP_ASIMDDP: Linux, arch/arm64/include/uapi/asm/hwcap.h); the functions that use it are built for it whatever the rest is
// built for, and the processor is asked when the program runs. Without it weights are decoded. HKGAI_NO_DIGITS leaves all of it out.
#pragma once
#if defined(__aarch64__) && defined(__linux__) && !defined(HKGAI_NO_DIGITS) && (defined(__ARM_FEATURE_DOTPROD) || (defined(__GNUC__) && !defined(__clang__)))
#define TILE_NEON_DOT 1
#include <sys/auxv.h>
#ifdef __ARM_FEATURE_DOTPROD
#define TILE_DOT_TARGET
#else
#define TILE_DOT_TARGET __attribute__((target("arch=armv8.2-a+dotprod")))
#endif

/** Does this processor have sdot? */
static __attribute__((unused)) int tile_has_dot(void) {
  static int known; // 0 is not asked yet; every thread finds the same
  int k = __atomic_load_n(&known, __ATOMIC_RELAXED);
  if (k == 0) {
    k = getauxval(AT_HWCAP) & (1ul << 20) ? 2 : 1;
    __atomic_store_n(&known, k, __ATOMIC_RELAXED);
  }
  return k == 2;
}

/** Columns whose digits are held at a time; columns of a turn; rows whose digits are kept: as many as a token has experts. */
enum { TILE_DOT_COLUMNS = 8192, TILE_DOT_TURN = 32, TILE_DOT_ROWS = 4, TILE_DOT_SLOTS = 8 };
struct tile_dot_digits {
  const float *x;
  long columns, turn;
  int pairs; // of each 32 columns the 16 even ones first, as nibbles lie
  _Alignas(16) int8_t digits[3 * TILE_DOT_COLUMNS]; // [turn][digit][32]
  float units[TILE_DOT_COLUMNS / TILE_DOT_TURN];
};
static _Thread_local struct tile_dot_digits tile_dot_digits_of[TILE_DOT_SLOTS] __attribute__((unused));
static _Thread_local int tile_dot_next __attribute__((unused));

static __attribute__((noinline, unused)) void tile_dot_cut(struct tile_dot_digits *t, const float *x, long columns, int pairs) {
  t->x = x, t->columns = columns, t->turn = tile_turn, t->pairs = pairs;
  for (long c = 0; c < columns; c += TILE_DOT_TURN) {
    float largest = 1e-30f;
    for (long i = 0; i < TILE_DOT_TURN; i++) largest = tile_fmax(largest, tile_abs(x[c + i]));
    const float unit = largest / 2064384.0f, by = 1.0f / unit;
    t->units[c / TILE_DOT_TURN] = unit;
    for (long i = 0; i < TILE_DOT_TURN; i++) {
      const int32_t q = (int32_t)tile_nearest(x[c + i] * by);
      const int32_t d2 = ((q + 64) & 127) - 64, q1 = (q - d2) >> 7, d1 = ((q1 + 64) & 127) - 64;
      int8_t *to = t->digits + 3 * c + (pairs ? i / 2 + i % 2 * 16 : i);
      to[0] = (int8_t)((q1 - d1) >> 7), to[TILE_DOT_TURN] = (int8_t)d1, to[2 * TILE_DOT_TURN] = (int8_t)d2;
    }
  }
}
INLINE const struct tile_dot_digits *tile_dot_row(const float *x, long columns, int pairs) {
  const int kept = tile_kept(x);
  for (int i = 0; kept && i < TILE_DOT_SLOTS; i++) {
    const struct tile_dot_digits *t = &tile_dot_digits_of[i];
    if (t->turn == tile_turn && t->x == x && t->columns == columns && t->pairs == pairs) return t;
  }
  struct tile_dot_digits *t = &tile_dot_digits_of[tile_dot_next];
  tile_dot_next = (tile_dot_next + 1) % TILE_DOT_SLOTS;
  tile_dot_cut(t, x, columns, pairs);
  return t;
}

/** to[0 .. 3] += four rows of weights times the digits; c is the column they begin at. */
TILE_DOT_TARGET INLINE void tile_dot_rows(int kind, int scale, float *to, const struct tile_dot_digits *t, const char *const *w, const char *const *scales, long c, long block_cols) {
  static const int8_t e2m1[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12}; // twice the value
  const int8x16_t table = vld1q_s8(e2m1);
  const uint8x16_t low = vdupq_n_u8(15);
  const float factor = kind == KIND_f4e2m1 ? 0.5f : 1.0f;
  float32x4_t total[4];
  for (int n = 0; n < 4; n++) total[n] = vdupq_n_f32(0);
  long group = c / block_cols, end = (group + 1) * block_cols - c;
  float by[4];
  for (int n = 0; n < 4; n++) by[n] = tile_scale_of(scale, scales[n], group) * factor;
  for (long i = 0; i < t->columns; i += TILE_DOT_TURN) {
    if (i >= end) {
      group++, end += block_cols;
      for (int n = 0; n < 4; n++) by[n] = tile_scale_of(scale, scales[n], group) * factor;
    }
    const int8_t *digits = t->digits + 3 * i;
    const float unit = t->units[i / TILE_DOT_TURN];
    int8x16_t d[3][2];
    for (int j = 0; j < 3; j++) d[j][0] = vld1q_s8(digits + 32 * j), d[j][1] = vld1q_s8(digits + 32 * j + 16);
    for (int n = 0; n < 4; n++) {
      int8x16_t a, b;
      if (kind == KIND_i8) {
        const int8_t *at = (const int8_t *)w[n] + i;
        tile_ahead(at + TILE_AHEAD);
        a = vld1q_s8(at), b = vld1q_s8(at + 16);
      } else {
        const uint8_t *at = (const uint8_t *)w[n] + i / 2;
        tile_ahead(at + TILE_AHEAD);
        const uint8x16_t codes = vld1q_u8(at), even = vandq_u8(codes, low), odd = vshrq_n_u8(codes, 4);
        if (kind == KIND_i4) a = vsubq_s8(vreinterpretq_s8_u8(even), vdupq_n_s8(8)), b = vsubq_s8(vreinterpretq_s8_u8(odd), vdupq_n_s8(8));
        else a = vqtbl1q_s8(table, even), b = vqtbl1q_s8(table, odd);
      }
      int32x4_t s[3];
      for (int j = 0; j < 3; j++) s[j] = vdotq_s32(vdotq_s32(vdupq_n_s32(0), a, d[j][0]), b, d[j][1]);
      const int32x4_t all = vaddq_s32(vshlq_n_s32(vaddq_s32(vshlq_n_s32(s[0], 7), s[1]), 7), s[2]);
      total[n] = vfmaq_n_f32(total[n], vcvtq_f32_s32(all), unit * by[n]);
    }
  }
  for (int n = 0; n < 4; n++) to[n] += vaddvq_f32(total[n]);
}
#define TILE_DOT_KIND(kind, by)                                                                                                                     \
  TILE_DOT_TARGET static __attribute__((noinline, unused)) void tile_dot_##kind##_##by(float *to, const struct tile_dot_digits *t, const char *const *w, \
                                                                                       const char *const *scales, long c, long block_cols) {        \
    tile_dot_rows(KIND_##kind, SCALE_##by, to, t, w, scales, c, block_cols);                                                                         \
  }
#define TILE_DOT_KINDS(X) X(i8, f32) X(i8, bf16) X(i4, f32) X(i4, bf16) X(f4e2m1, f32) X(f4e2m1, bf16) X(f4e2m1, e8m0)
TILE_DOT_KINDS(TILE_DOT_KIND)
#undef TILE_DOT_KIND

/** Columns from the front that digits can take of b's n rows, for rows of a from `x` on; what is left is the caller's. */
INLINE long tile_by_dots(int kind, int scale, float *into, long width, const float *const *x, long m, const tile_view *b, const long *row, long n, long k) {
  if (kind != KIND_i8 && kind != KIND_i4 && kind != KIND_f4e2m1) return 0;
  const int one_block = b->block_cols >= b->cols, pairs = kind != KIND_i8;
  if (scale == SCALE_none || m > TILE_DOT_ROWS || (pairs && b->col % 2) || (!one_block && (b->col % TILE_DOT_TURN || b->block_cols % TILE_DOT_TURN)) || !tile_has_dot()) return 0;
  const long whole = k - k % TILE_DOT_TURN, across = tile_scales_across(scale, b), block_cols = one_block ? b->cols + TILE_DOT_TURN : b->block_cols;
  for (long j = 0; j < n; j++) if (row[j] < 0) n = j; // rows outside come last
  for (long from = 0; from < whole; from += TILE_DOT_COLUMNS) {
    const long some = tile_min(TILE_DOT_COLUMNS, whole - from), c = b->col + from;
    for (long i = 0; i < m; i++) {
      const struct tile_dot_digits *t = tile_dot_row(x[i] + from, some, pairs);
      for (long j = 0; j < n; j += 4) {
        const char *w[4], *scales[4];
        float sums[4] = {0, 0, 0, 0};
        for (long r = 0; r < 4; r++) {
          const long at = row[tile_min(j + r, n - 1)];
          w[r] = tile_row_data(kind, b, at) + c * tile_width_bits(kind) / 8, scales[r] = tile_scales(scale, b, across, at);
        }
#define TILE_DOT_CALL(k_, by_) \
  if (kind == KIND_##k_ && scale == SCALE_##by_) tile_dot_##k_##_##by_(sums, t, w, scales, c, block_cols);
        TILE_DOT_KINDS(TILE_DOT_CALL)
#undef TILE_DOT_CALL
        for (long r = 0; r < 4 && j + r < n; r++) into[i * width + j + r] += sums[r];
      }
    }
  }
  return whole;
}
#endif
