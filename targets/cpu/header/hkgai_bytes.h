// Many rows of a against weights of a byte or half of one, as byte dot products: panels as in hkgai_panel.h, with activations in three digits of 8 bits,
//
//   x = unit * (d0 * 2^16 + d1 * 2^8 + d2),  digits in -128..127,  unit = largest |x| of a row's stretch of 256 columns / 8355328
//
// so that x is kept to 24 bits below the largest of its stretch, and the sums of a stretch are exact integers. A dot product is off by at most
// 2^-24 * largest |x| * sum |w| of each stretch, beside what sums of f32 lose. An instruction meets four columns where one of f32 meets one: with three
// digits that is a third more.
//
// A column of four is a vector of 16 rows, three digits beside each other: also what tiles of AMX read (hkgai_amx.h).
#pragma once
#if TILE_DIGITS

/** Digits of an activation; columns that share a unit. */
enum { TILE_BYTE_DIGITS = 3, TILE_BYTE_STRETCH = TILE_PANEL_DEEP, TILE_BYTE_OUTPUTS = 8 };
/** Sums of digits are kept for every 32 columns: what is subtracted where codes are not centred on 0. */
enum { TILE_BYTE_GROUP = 32 };

struct tile_byte_panels {
  long turn, rows, columns;
  const float *x[TILE_PANEL_MOST];
  _Alignas(64) int8_t digits[TILE_PANEL_ROOM * TILE_BYTE_DIGITS];                    // [panel][column / 4][digit][row][4]
  _Alignas(64) int32_t sums[TILE_PANEL_ROOM / TILE_BYTE_GROUP * TILE_BYTE_DIGITS];   // [panel][column / 32][digit][row]
  _Alignas(64) float units[TILE_PANEL_ROOM / TILE_BYTE_STRETCH];                     // [panel][column / 256][row]
};
static _Thread_local struct tile_byte_panels tile_byte_panels_of __attribute__((unused));

/** Byte `digit` of four vectors beside each other. */
INLINE __m512i tile_bytes_beside(const __m512i q[4], int digit) {
  const __m512i low = _mm512_set1_epi32(255);
  const __m512i a = _mm512_and_si512(_mm512_srli_epi32(q[0], 8 * digit), low), b = _mm512_and_si512(_mm512_srli_epi32(q[1], 8 * digit), low);
  const __m512i c = _mm512_and_si512(_mm512_srli_epi32(q[2], 8 * digit), low), d = _mm512_srli_epi32(q[3], 8 * digit);
  return _mm512_or_si512(_mm512_or_si512(a, _mm512_slli_epi32(b, 8)), _mm512_or_si512(_mm512_slli_epi32(c, 16), _mm512_slli_epi32(d, 24)));
}
/** Columns padded with zeros to whole stretches. */
INLINE long tile_byte_columns(long columns) { return tile_ceildiv(columns, TILE_BYTE_STRETCH) * TILE_BYTE_STRETCH; }
static __attribute__((noinline, unused)) void tile_byte_pack(struct tile_byte_panels *t, const float *const *x, long rows, long columns) {
  const long whole = tile_byte_columns(columns);
  const __m512i ones = _mm512_set1_epi8(1), middle = _mm512_set1_epi32(0x8080);
  int8_t *digits = t->digits;
  int32_t *sums = t->sums;
  float *units = t->units;
  for (long p = 0; p < rows; p += TILE_PANEL)
    for (long s = 0; s < whole; s += TILE_BYTE_STRETCH) {
      _Alignas(64) float turned[TILE_BYTE_STRETCH * TILE_PANEL];
      const float *from[TILE_PANEL];
      for (long r = 0; r < TILE_PANEL; r++) from[r] = p + r < rows ? x[p + r] + s : 0;
      const long here = tile_min(TILE_BYTE_STRETCH, columns - s);
      long c = 0;
      for (; c + 16 <= here; c += 16) tile_turn_16(turned + c * TILE_PANEL, TILE_PANEL, from, c);
      for (; c < TILE_BYTE_STRETCH; c++)
        for (long r = 0; r < TILE_PANEL; r++) turned[c * TILE_PANEL + r] = from[r] && c < here ? from[r][c] : 0.0f;
      __m512 largest = _mm512_set1_ps(1e-30f);
      for (c = 0; c < TILE_BYTE_STRETCH; c++) largest = _mm512_max_ps(largest, _mm512_abs_ps(_mm512_load_ps(turned + c * TILE_PANEL)));
      const __m512 unit = _mm512_div_ps(largest, _mm512_set1_ps(8355328.0f)), by = _mm512_div_ps(_mm512_set1_ps(1), unit);
      _mm512_store_ps(units, unit);
      units += TILE_PANEL;
      for (long g = 0; g < TILE_BYTE_STRETCH; g += TILE_BYTE_GROUP) {
        __m512i sum[TILE_BYTE_DIGITS];
        for (int d = 0; d < TILE_BYTE_DIGITS; d++) sum[d] = _mm512_setzero_si512();
        for (c = g; c < g + TILE_BYTE_GROUP; c += 4, digits += 64 * TILE_BYTE_DIGITS) {
          __m512i q[4];
          // every byte but the first is rounded by what lies below it: digits of both signs
          for (int i = 0; i < 4; i++) q[i] = _mm512_xor_si512(_mm512_add_epi32(_mm512_cvtps_epi32(_mm512_mul_ps(_mm512_load_ps(turned + (c + i) * TILE_PANEL), by)), middle), middle);
          for (int d = 0; d < TILE_BYTE_DIGITS; d++) {
            const __m512i four = tile_bytes_beside(q, TILE_BYTE_DIGITS - 1 - d);
            _mm512_store_si512(digits + 64 * d, four);
            sum[d] = _mm512_dpbusd_epi32(sum[d], ones, four);
          }
        }
        for (int d = 0; d < TILE_BYTE_DIGITS; d++, sums += TILE_PANEL) _mm512_store_si512(sums, sum[d]);
      }
    }
}
INLINE const struct tile_byte_panels *tile_byte_packed(const float *const *x, long rows, long columns) {
  struct tile_byte_panels *t = &tile_byte_panels_of;
  const size_t bytes = sizeof *x * (size_t)rows;
  if (tile_kept(x[0]) && t->turn == tile_turn && t->rows == rows && t->columns == columns && memcmp(t->x, x, bytes) == 0) return t;
  tile_byte_pack(t, x, rows, columns);
  t->turn = tile_turn, t->rows = rows, t->columns = columns;
  memcpy(t->x, x, bytes);
  return t;
}

/** Codes of a storage as bytes of 0 .. 255, and what 0 is among them: value = (code - zero) * tile_byte_factor. */
INLINE int tile_byte_zero(int kind) { return kind == KIND_i8 ? 128 : kind == KIND_i4 ? 8 : 12; }
INLINE float tile_byte_factor(int kind) { return kind == KIND_f4e2m1 ? 0.5f : 1.0f; }
/** Columns [c, c + n) of a row as bytes; the rest of the stretch is not read by anyone but digits of 0. */
INLINE void tile_bytes(int kind, uint8_t *to, const char *data, long c, long n) {
  if (kind == KIND_i8) {
    const __m512i half = _mm512_set1_epi8((char)0x80);
    long i = 0;
    for (; i + 64 <= n; i += 64) _mm512_storeu_si512(to + i, _mm512_xor_si512(_mm512_loadu_si512(data + c + i), half));
    if (i < n) {
      const __mmask64 some = ((uint64_t)1 << (n - i)) - 1;
      _mm512_storeu_si512(to + i, _mm512_xor_si512(_mm512_maskz_loadu_epi8(some, data + c + i), half));
    }
    return;
  }
  const __m512i low = _mm512_set1_epi8(15), e2m1 = _mm512_broadcast_i32x4(_mm_setr_epi8(12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0));
  for (long i = 0; i < n; i += 64) {
    const long half = tile_min(32, (n - i + 1) / 2);
    const __mmask32 some = half == 32 ? 0xffffffffu : ((uint32_t)1 << half) - 1;
    const __m512i pairs = _mm512_cvtepu8_epi16(_mm256_maskz_loadu_epi8(some, data + (c + i) / 2));
    __m512i codes = _mm512_and_si512(_mm512_or_si512(pairs, _mm512_slli_epi16(pairs, 4)), low);
    if (kind == KIND_f4e2m1) codes = _mm512_shuffle_epi8(e2m1, codes);
    _mm512_storeu_si512(to + i, codes);
  }
}

/** sum += codes (unsigned) times digits, by lanes of four; said as an instruction because gcc 12 otherwise keeps half of 24 sums in memory. */
#define TILE_BYTE_DOT(sum, codes, digits) __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(codes), "v"(digits))
/** sums[n * pitch + row] += 8 outputs times the columns of one group. */
INLINE void tile_byte_group(float *sums, long pitch, const uint8_t *w, const int8_t *digits, const __m512i start[3], __m512 unit, const float *by, long by_pitch, long columns) {
  __m512i a[TILE_BYTE_OUTPUTS][3];
#pragma GCC unroll 8
  for (int n = 0; n < TILE_BYTE_OUTPUTS; n++) a[n][0] = start[0], a[n][1] = start[1], a[n][2] = start[2];
  for (long c = 0; c < columns; c += 4, digits += 192) {
    const __m512i d0 = _mm512_load_si512(digits), d1 = _mm512_load_si512(digits + 64), d2 = _mm512_load_si512(digits + 128);
#pragma GCC unroll 8
    for (int n = 0; n < TILE_BYTE_OUTPUTS; n++) {
      int32_t four;
      memcpy(&four, w + n * TILE_PANEL_PITCH + c, 4);
      const __m512i codes = _mm512_set1_epi32(four);
      TILE_BYTE_DOT(a[n][0], codes, d0);
      TILE_BYTE_DOT(a[n][1], codes, d1);
      TILE_BYTE_DOT(a[n][2], codes, d2);
    }
  }
  const __m512 base = _mm512_set1_ps(256);
#pragma GCC unroll 8
  for (int n = 0; n < TILE_BYTE_OUTPUTS; n++) {
    const __m512 all = _mm512_fmadd_ps(_mm512_fmadd_ps(_mm512_cvtepi32_ps(a[n][0]), base, _mm512_cvtepi32_ps(a[n][1])), base, _mm512_cvtepi32_ps(a[n][2]));
    float *to = sums + n * pitch;
    _mm512_store_ps(to, _mm512_fmadd_ps(all, _mm512_mul_ps(unit, _mm512_set1_ps(by[n * by_pitch])), _mm512_load_ps(to)));
  }
}
/** A stretch of 16 outputs times all panels; by[n * 8 + g] is the scale of output n in its g-th group of `group` columns. */
static __attribute__((noinline, unused)) void tile_byte_steps(float *sums, long pitch, const uint8_t *w, const struct tile_byte_panels *t, long columns, long stretch, long panels, int zero, long group, const float *by) {
  const __m512i minus = _mm512_set1_epi32(-zero);
  for (long p = 0; p < panels; p++) {
    const long at = p * columns + stretch; // a panel's columns before this one
    const __m512 unit = _mm512_load_ps(t->units + at / TILE_BYTE_STRETCH * TILE_PANEL);
    for (long g = 0; g < TILE_BYTE_STRETCH; g += group) {
      __m512i start[3];
      for (int d = 0; d < 3; d++) start[d] = _mm512_setzero_si512();
      for (long s = 0; s < group; s += TILE_BYTE_GROUP)
        for (int d = 0; d < 3; d++) start[d] = _mm512_add_epi32(start[d], _mm512_load_si512(t->sums + ((at + g + s) / TILE_BYTE_GROUP * 3 + d) * TILE_PANEL));
      for (int d = 0; d < 3; d++) start[d] = _mm512_mullo_epi32(start[d], minus);
#if TILE_AMX
      if (group >= 64 && tile_has_amx()) {
        tile_amx_byte_group(sums + p * TILE_PANEL, pitch, w + g, t->digits + (at + g) * (TILE_PANEL * 3), start, unit, by + g / group, 8, group);
        continue;
      }
#endif
      for (int n = 0; n < TILE_PANEL_OUTPUTS; n += TILE_BYTE_OUTPUTS)
        tile_byte_group(sums + n * pitch + p * TILE_PANEL, pitch, w + n * TILE_PANEL_PITCH + g, t->digits + (at + g) * (TILE_PANEL * 3), start, unit, by + n * 8 + g / group, 8, group);
    }
  }
}
/** Columns that share a scale from b->col on: 32, 64, 128 or a stretch; 0 where groups lie otherwise. */
INLINE long tile_byte_groups(int kind, int scale, const tile_view *b) {
  if (kind != KIND_i8 && kind != KIND_i4 && kind != KIND_f4e2m1) return 0;
  if (scale == SCALE_none || (kind != KIND_i8 && b->col % 2)) return 0;
  if (b->block_cols >= b->cols) return TILE_BYTE_STRETCH;
  const long group = b->block_cols % TILE_BYTE_STRETCH == 0 ? TILE_BYTE_STRETCH : b->block_cols;
  if ((group != 32 && group != 64 && group != 128 && group != TILE_BYTE_STRETCH) || b->col % group) return 0;
  return group;
}
/** As tile_by_panels, for groups of columns that tile_byte_groups names. */
INLINE void tile_by_bytes(int kind, int scale, float *into, const float *const *x, long count, const tile_view *b, const long *rows, long n, long k, long group) {
  _Alignas(64) uint8_t w[TILE_PANEL_OUTPUTS * TILE_PANEL_PITCH + 64];
  _Alignas(64) float sums[TILE_PANEL_OUTPUTS * TILE_PANEL_MOST], by[TILE_PANEL_OUTPUTS * 8];
  const int bits = tile_width_bits(kind);
  const long panels = tile_ceildiv(count, TILE_PANEL), pitch = panels * TILE_PANEL;
  const long most = TILE_PANEL_ROOM / pitch / TILE_BYTE_STRETCH * TILE_BYTE_STRETCH;
  const long across = tile_scales_across(scale, b), groups = TILE_BYTE_STRETCH / group;
  const float *at[TILE_PANEL_MOST];
  for (long from = 0; from < k; from += most) {
    const long columns = tile_min(most, k - from), whole = tile_byte_columns(columns);
    for (long i = 0; i < count; i++) at[i] = x[i] + from;
    const struct tile_byte_panels *packed = tile_byte_packed(at, count, columns);
    for (long j = 0; j < n; j += TILE_PANEL_OUTPUTS) {
      const char *data[TILE_PANEL_OUTPUTS], *scales[TILE_PANEL_OUTPUTS], *next[TILE_PANEL_OUTPUTS];
      for (long r = 0; r < TILE_PANEL_OUTPUTS; r++) {
        data[r] = scales[r] = next[r] = 0;
        if (j + r < n && rows[j + r] >= 0) data[r] = tile_row_data(kind, b, rows[j + r]), scales[r] = tile_scales(scale, b, across, rows[j + r]);
        const long after = j + r + TILE_PANEL_OUTPUTS;
        if (after < n && rows[after] >= 0) next[r] = tile_row_data(kind, b, rows[after]);
      }
      memset(sums, 0, sizeof *sums * (size_t)(TILE_PANEL_OUTPUTS * pitch));
      for (long c = 0; c < columns; c += TILE_BYTE_STRETCH) {
        const long deep = tile_min(TILE_BYTE_STRETCH, columns - c), column = b->col + from + c, first = column / b->block_cols;
        const int more = c + deep < columns;
        const long ahead = more ? deep : -c, bytes = tile_min(TILE_BYTE_STRETCH, columns - c - ahead) * bits / 8;
        for (long r = 0; r < TILE_PANEL_OUTPUTS; r++) {
          const char *soon = more ? data[r] : next[r];
          if (soon)
            for (long i = 0; i < bytes; i += 64) tile_ahead(soon + (column + ahead) * bits / 8 + i);
          for (long g = 0; g < groups; g++)
            by[r * 8 + g] = data[r] && g * group < deep ? tile_scale_of(scale, scales[r], group == TILE_BYTE_STRETCH ? first : first + g) * tile_byte_factor(kind) : 0.0f;
          if (data[r]) tile_bytes(kind, w + r * TILE_PANEL_PITCH, data[r], column, deep);
          else memset(w + r * TILE_PANEL_PITCH, 0, TILE_BYTE_STRETCH);
        }
        tile_byte_steps(sums, pitch, w, packed, whole, c, panels, tile_byte_zero(kind), group, by);
      }
      tile_panel_add(into + j, n, sums, pitch, count, tile_min(TILE_PANEL_OUTPUTS, n - j));
    }
  }
}
#endif
