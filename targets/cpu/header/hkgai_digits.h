// Weights of half a byte against f32 activations with byte dot products: an activation is cut into three digits of 7 bits,
//
//   x = unit * (d0 * 2^14 + d1 * 2^7 + d2),  d0 in -127..127, d1 and d2 in -64..63,  unit = largest |x| of its stretch / 2064384
//
// so that x is kept to 22 bits below the largest of its stretch of 32 columns, and the sums of a stretch are exact integers.
// A dot product is off by at most 2^-22 * largest |x| * sum |w| of each stretch, beside what sums of f32 lose. Three byte products replace a decode
// of four vectors: nibbles are met three times as fast as by decoding, and as fast as memory gives them. (Bytes gain nothing: decoding keeps up.)
// HKGAI_NO_DIGITS leaves all of it out.
//
// The digits of a row serve every output of a kernel's call: a row is cut once until the next tile_begin() (hkgai_contract.h).
#pragma once
#if TILE_AVX512 && defined(__AVX512VNNI__) && !defined(HKGAI_NO_DIGITS)
#define TILE_DIGITS 1

/** Columns whose digits are held at a time, and columns of a turn: 128 nibbles are a vector, its lanes 8 columns, 4 lanes a unit. */
enum { TILE_DIGIT_COLUMNS = 8192, TILE_DIGIT_TURN = 128 };
/** Rows of a that are worth it, and rows whose digits are kept: as many as a token has experts. */
enum { TILE_DIGIT_ROWS = 4, TILE_DIGIT_SLOTS = 8 };

struct tile_digits {
  const float *x;
  long columns, turn;
  // of each 128 columns d0 of the 64 even ones, of the odd ones, then d1, d2
  _Alignas(64) int8_t digits[3 * TILE_DIGIT_COLUMNS];
  // what 1 times the digits gives, and the unit, by lanes
  _Alignas(64) int32_t ones[TILE_DIGIT_COLUMNS / 8];
  _Alignas(64) float units[TILE_DIGIT_COLUMNS / 8];
};
static _Thread_local struct tile_digits tile_digits_of[TILE_DIGIT_SLOTS] __attribute__((unused));
static _Thread_local int tile_next_slot __attribute__((unused));

INLINE __m512i tile_byte_dot(__m512i sum, __m512i codes, const int8_t *digits) { return _mm512_dpbusd_epi32(sum, codes, _mm512_load_si512(digits)); }
/** codes (unsigned) times digits, by lanes of 8 columns: even and odd columns of 128. */
INLINE __m512i tile_nibble_dot(__m512i even, __m512i odd, const int8_t *d) {
  __m512i t = tile_byte_dot(tile_byte_dot(_mm512_setzero_si512(), even, d), odd, d + 64);
  t = tile_byte_dot(tile_byte_dot(_mm512_slli_epi32(t, 7), even, d + 128), odd, d + 192);
  return tile_byte_dot(tile_byte_dot(_mm512_slli_epi32(t, 7), even, d + 256), odd, d + 320);
}
/** Digits of 16 values already divided by their unit, to three places `apart` from each other. */
INLINE void tile_cut(__m512 x, int8_t *to, long apart) {
  const __m512i q = _mm512_cvtps_epi32(x), low = _mm512_set1_epi32(127), half = _mm512_set1_epi32(64);
  const __m512i d2 = _mm512_sub_epi32(_mm512_and_si512(_mm512_add_epi32(q, half), low), half), q1 = _mm512_srai_epi32(_mm512_sub_epi32(q, d2), 7);
  const __m512i d1 = _mm512_sub_epi32(_mm512_and_si512(_mm512_add_epi32(q1, half), low), half), d0 = _mm512_srai_epi32(_mm512_sub_epi32(q1, d1), 7);
  _mm_store_si128((__m128i *)to, _mm512_cvtepi32_epi8(d0));
  _mm_store_si128((__m128i *)(to + apart), _mm512_cvtepi32_epi8(d1));
  _mm_store_si128((__m128i *)(to + 2 * apart), _mm512_cvtepi32_epi8(d2));
}
INLINE float tile_unit(__m512 largest) { return tile_fmax(_mm512_reduce_max_ps(largest), 1e-30f) / 2064384.0f; }
static __attribute__((noinline, unused)) void tile_cut_row(struct tile_digits *t, const float *x, long columns) {
  t->x = x, t->columns = columns, t->turn = tile_turn;
  const __m512i one = _mm512_set1_epi8(1);
  const __m512i evens = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  for (long c = 0; c < columns; c += TILE_DIGIT_TURN) {
    int8_t *to = t->digits + 3 * c;
    float *units = t->units + c / 8;
    for (int i = 0; i < 4; i++) { // 32 columns: 16 even ones, 16 odd ones
      const __m512 a = _mm512_loadu_ps(x + c + 32 * i), b = _mm512_loadu_ps(x + c + 32 * i + 16);
      const float unit = tile_unit(_mm512_max_ps(_mm512_abs_ps(a), _mm512_abs_ps(b)));
      for (int l = 0; l < 4; l++) units[4 * i + l] = unit;
      const __m512 by = _mm512_set1_ps(1.0f / unit);
      tile_cut(_mm512_mul_ps(_mm512_permutex2var_ps(a, evens, b), by), to + 16 * i, 128);
      tile_cut(_mm512_mul_ps(_mm512_permutex2var_ps(a, _mm512_add_epi32(evens, _mm512_set1_epi32(1)), b), by), to + 64 + 16 * i, 128);
    }
    _mm512_store_si512(t->ones + c / 8, tile_nibble_dot(one, one, to));
  }
}
/** The digits of a row: those at hand where it was cut in this call already. */
INLINE const struct tile_digits *tile_row_digits(const float *x, long columns) {
  const int kept = tile_kept(x);
  for (int i = 0; kept && i < TILE_DIGIT_SLOTS; i++) {
    const struct tile_digits *t = &tile_digits_of[i];
    if (t->turn == tile_turn && t->x == x && t->columns == columns) return t;
  }
  struct tile_digits *t = &tile_digits_of[tile_next_slot];
  tile_next_slot = (tile_next_slot + 1) % TILE_DIGIT_SLOTS;
  tile_cut_row(t, x, columns);
  return t;
}

/** Scales of a stretch of nibbles by lanes. */
INLINE __m512 tile_nibble_scales(int scale, const char *row, long group, int groups) {
  if (groups == 1) {
    if (scale == SCALE_f32) return _mm512_set1_ps(((const float *)(const void *)row)[group]);
    if (scale == SCALE_bf16) return _mm512_set1_ps(tile_from_bf16(((const uint16_t *)(const void *)row)[group]));
    return _mm512_set1_ps(tile_from_e8m0(((const uint8_t *)row)[group]));
  }
  __m128 four;
  if (scale == SCALE_f32) four = _mm_loadu_ps((const float *)(const void *)(row + 4 * group));
  else if (scale == SCALE_bf16) four = _mm_castsi128_ps(_mm_slli_epi32(_mm_cvtepu16_epi32(_mm_loadl_epi64((const __m128i *)(row + 2 * group))), 16));
  else four = _mm_castsi128_ps(_mm_slli_epi32(_mm_cvtepu8_epi32(_mm_loadu_si32(row + group)), 23));
  return _mm512_permutexvar_ps(_mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3), _mm512_castps128_ps512(four));
}
/** Sixteen scales that follow each other, or four in the first lanes. */
INLINE __m512 tile_nibble_scales_ahead(int scale, const char *at, int count) {
  if (count == 16) {
    if (scale == SCALE_f32) return _mm512_loadu_ps(at);
    if (scale == SCALE_bf16) return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(const void *)at)), 16));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)at)), 23));
  }
  if (scale == SCALE_f32) return _mm512_castps128_ps512(_mm_loadu_ps((const float *)(const void *)at));
  if (scale == SCALE_bf16) return _mm512_castps128_ps512(_mm_castsi128_ps(_mm_slli_epi32(_mm_cvtepu16_epi32(_mm_loadl_epi64((const __m128i *)(const void *)at)), 16)));
  return _mm512_castps128_ps512(_mm_castsi128_ps(_mm_slli_epi32(_mm_cvtepu8_epi32(_mm_loadu_si32(at)), 23)));
}
/** total[n] += 128 columns of four rows times their digits, by[n] the scales by lanes. */
INLINE void tile_nibble_turn(int kind, __m512 total[4], const char *const w[4], long at, const int8_t *digits, const int32_t *ones, const float *units, const __m512 by[4]) {
  const __m512i low = _mm512_set1_epi8(15);
  // twice the value of f4e2m1, and 12
  const __m512i e2m1 = _mm512_broadcast_i32x4(_mm_setr_epi8(12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0));
  const __m512i one = _mm512_load_si512(ones);
  const __m512i eight = _mm512_slli_epi32(one, 3), zero = _mm512_sub_epi32(_mm512_setzero_si512(), kind == KIND_i4 ? eight : _mm512_add_epi32(eight, _mm512_slli_epi32(one, 2)));
  const __m512 unit = _mm512_load_ps(units);
  __m512i d[6];
  for (int i = 0; i < 6; i++) {
    d[i] = _mm512_load_si512(digits + 64 * i);
    __asm__("" : "+v"(d[i])); // held for all four rows: loads are what is short
  }
#pragma GCC unroll 4
  for (int n = 0; n < 4; n++) {
    const __m512i codes = _mm512_loadu_si512(w[n] + at);
    __m512i even = _mm512_and_si512(codes, low), odd = _mm512_and_si512(_mm512_srli_epi16(codes, 4), low);
    if (kind != KIND_i4) even = _mm512_shuffle_epi8(e2m1, even), odd = _mm512_shuffle_epi8(e2m1, odd);
    // three short chains: one long one would fill the processor's window with what waits
    const __m512i t0 = _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(_mm512_setzero_si512(), even, d[0]), odd, d[1]);
    const __m512i t1 = _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(_mm512_setzero_si512(), even, d[2]), odd, d[3]);
    const __m512i t2 = _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(zero, even, d[4]), odd, d[5]);
    const __m512i t = _mm512_add_epi32(_mm512_slli_epi32(_mm512_add_epi32(_mm512_slli_epi32(t0, 7), t1), 7), t2);
    total[n] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(t), _mm512_mul_ps(unit, by[n]), total[n]);
  }
}
/** to[0 .. 3] += four rows of nibbles times the digits; `groups` of 32 a stretch: 4, or 1 where groups are whole stretches. */
INLINE void tile_nibble_rows(int kind, int scale, int groups, float *to, const struct tile_digits *t, const tile_view *v, long across, const long *row, long c) {
  const char *w[4], *scales[4];
  const int bytes = scale == SCALE_f32 ? 4 : scale == SCALE_bf16 ? 2 : 1;
  for (int n = 0; n < 4; n++) w[n] = tile_row_data(kind, v, row[n]) + c / 2, scales[n] = tile_scales(scale, v, across, row[n]);
  const float factor = kind == KIND_i4 ? 1.0f : 0.5f;
  __m512 total[4], by[4];
  for (int n = 0; n < 4; n++) total[n] = _mm512_setzero_ps();
  long i = 0;
  if (groups == 4 || v->block_cols == TILE_DIGIT_TURN) // scales of four turns at once
    for (; i + 4 * TILE_DIGIT_TURN <= t->columns; i += 4 * TILE_DIGIT_TURN) {
      __m512 four[4];
      for (int n = 0; n < 4; n++) {
        const char *at = scales[n] + (c + i) / (groups == 4 ? 32 : TILE_DIGIT_TURN) * bytes;
        four[n] = tile_nibble_scales_ahead(scale, at, 4 * groups);
        if (groups == 4) tile_ahead(at + TILE_AHEAD / 16 * bytes);
      }
      const __m512i first = groups == 4 ? _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3) : _mm512_setzero_si512();
      for (long u = 0; u < 4; u++) {
        const __m512i place = _mm512_add_epi32(first, _mm512_set1_epi32((int)u * groups));
        for (int n = 0; n < 4; n++) by[n] = _mm512_permutexvar_ps(place, four[n]), tile_ahead(w[n] + i / 2 + 64 * u + TILE_AHEAD);
        tile_nibble_turn(kind, total, w, i / 2 + 64 * u, t->digits + 3 * i + 384 * u, t->ones + i / 8 + 16 * u, t->units + i / 8 + 16 * u, by);
      }
    }
  for (; i < t->columns; i += TILE_DIGIT_TURN) {
    const long group = groups == 4 ? (c + i) / 32 : (c + i) / v->block_cols;
    for (int n = 0; n < 4; n++) by[n] = tile_nibble_scales(scale, scales[n], group, groups), tile_ahead(w[n] + i / 2 + TILE_AHEAD);
    tile_nibble_turn(kind, total, w, i / 2, t->digits + 3 * i, t->ones + i / 8, t->units + i / 8, by);
  }
  for (int n = 0; n < 4; n++) total[n] = _mm512_mul_ps(total[n], _mm512_set1_ps(factor));
  vf_add_sums4(to, (vf)total[0], (vf)total[1], (vf)total[2], (vf)total[3]);
}

/** Columns from the front that digits can take of b's n rows, for rows of a from `x` on; what is left is the caller's. */
INLINE long tile_by_digits(int kind, int scale, float *into, long width, const float *const *x, long m, const tile_view *b, const long *row, long n, long k) {
  if (b->col % TILE_DIGIT_TURN || (b->block_cols != 32 && b->block_cols % TILE_DIGIT_TURN)) return 0;
  const long whole = k - k % TILE_DIGIT_TURN;
  if (whole == 0 || m > TILE_DIGIT_ROWS) return 0;
  for (long j = 0; j < n; j++) if (row[j] < 0) n = j; // rows outside come last
  const long across = tile_scales_across(scale, b);
  for (long c = 0; c < whole; c += TILE_DIGIT_COLUMNS) {
    const long some = tile_min(TILE_DIGIT_COLUMNS, whole - c);
    for (long i = 0; i < m; i++) {
      const struct tile_digits *t = tile_row_digits(x[i] + c, some);
      for (long j = 0; j < n; j += 4) {
        long four[4];
        float sums[4] = {0, 0, 0, 0};
        for (long r = 0; r < 4; r++) four[r] = row[tile_min(j + r, n - 1)];
        if (b->block_cols == 32) tile_nibble_rows(kind, scale, 4, sums, t, b, across, four, b->col + c);
        else tile_nibble_rows(kind, scale, 1, sums, t, b, across, four, b->col + c);
        for (long r = 0; r < 4 && j + r < n; r++) into[i * width + j + r] += sums[r];
      }
    }
  }
  return whole;
}
#endif
