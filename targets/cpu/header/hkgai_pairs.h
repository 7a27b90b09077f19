// Many rows of a against bf16 weights by products of bf16 pairs: panels as in hkgai_panel.h, with an activation as a sum of terms,
//
//   x = t0 + t1 + t2 + rest,  t0 = bf16(x), t1 = bf16(x - t0), t2 = bf16(x - t0 - t1);  |rest| <= 2^-26 |x|
//
// so that a dot product is off by at most 2^-26 * sum |x| |w| beside what sums of f32 lose. Weights are met as they are stored.
//
// Tiles of AMX (hkgai_amx.h) take three terms and are faster than f32 by far. AVX512_BF16 takes as many instructions for two terms as f32 takes, so it
// is used only where fewer terms are asked for: HKGAI_CFLAGS=-DHKGAI_BF16_TERMS=2 leaves a rest of 2^-17 |x|, =1 of 2^-8 |x|: activations rounded to
// bf16. Neither holds recorded logits to 2e-4; bench/README.md has what they cost and gain.
//
// A column of two is a vector of 16 rows, its terms beside each other.
#pragma once
#if TILE_AVX512 && defined(__AVX512BF16__) && (TILE_AMX || defined(HKGAI_BF16_TERMS))
#define TILE_PAIRS 1
#ifdef HKGAI_BF16_TERMS
#define TILE_TERMS HKGAI_BF16_TERMS
#else
#define TILE_TERMS 3
#endif
/** Without tiles three terms are slower than f32. */
INLINE int tile_has_pairs(void) {
#if TILE_AMX
  return TILE_TERMS < 3 || tile_has_amx();
#else
  return 1;
#endif
}

struct tile_pair_panels {
  long turn, rows, columns;
  const float *x[TILE_PANEL_MOST];
  _Alignas(64) uint16_t terms[TILE_PANEL_ROOM * TILE_TERMS]; // [panel][column / 2][term][row][2]
};
static _Thread_local struct tile_pair_panels tile_pair_panels_of __attribute__((unused));

/** 16 rows of two columns as pairs of bf16. */
INLINE __m512i tile_beside(__m512 first, __m512 second) {
  const __m512i both = (__m512i)_mm512_cvtne2ps_pbh(second, first); // the first below
  const __m512i places = _mm512_setr_epi32(0x100000, 0x110001, 0x120002, 0x130003, 0x140004, 0x150005, 0x160006, 0x170007, 0x180008, 0x190009, 0x1a000a, 0x1b000b, 0x1c000c, 0x1d000d,
                                           0x1e000e, 0x1f000f);
  return _mm512_permutexvar_epi16(places, both);
}
/** What is left of x beside its bf16. */
INLINE __m512 tile_beyond(__m512 x) { return _mm512_sub_ps(x, _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(x)), 16))); }
/** Columns padded with zeros to what a tile of AMX holds. */
INLINE long tile_pair_columns(long columns) { return tile_ceildiv(columns, 32) * 32; }
static __attribute__((noinline, unused)) void tile_pair_pack(uint16_t *to, const float *const *x, long rows, long columns) {
  const long whole = tile_pair_columns(columns);
  for (long p = 0; p < rows; p += TILE_PANEL)
    for (long c = 0; c < whole; c += 16) {
      _Alignas(64) float turned[16 * TILE_PANEL];
      const float *from[TILE_PANEL];
      for (long r = 0; r < TILE_PANEL; r++) from[r] = p + r < rows ? x[p + r] : 0;
      if (c + 16 <= columns) tile_turn_16(turned, TILE_PANEL, from, c);
      else
        for (long i = 0; i < 16; i++)
          for (long r = 0; r < TILE_PANEL; r++) turned[i * TILE_PANEL + r] = from[r] && c + i < columns ? from[r][c + i] : 0.0f;
      for (long i = 0; i < 16; i += 2) {
        __m512 a = _mm512_load_ps(turned + i * TILE_PANEL), b = _mm512_load_ps(turned + (i + 1) * TILE_PANEL);
        for (int t = 0; t < TILE_TERMS; t++, to += 2 * TILE_PANEL, a = tile_beyond(a), b = tile_beyond(b)) _mm512_store_si512(to, tile_beside(a, b));
      }
    }
}
INLINE const uint16_t *tile_pair_packed(const float *const *x, long rows, long columns) {
  struct tile_pair_panels *t = &tile_pair_panels_of;
  const size_t bytes = sizeof *x * (size_t)rows;
  if (tile_kept(x[0]) && t->turn == tile_turn && t->rows == rows && t->columns == columns && memcmp(t->x, x, bytes) == 0) return t->terms;
  tile_pair_pack(t->terms, x, rows, columns);
  t->turn = tile_turn, t->rows = rows, t->columns = columns;
  memcpy(t->x, x, bytes);
  return t->terms;
}

/** sum += pairs of a weight times pairs of rows; said as an instruction so that all sums stay in registers. */
#define TILE_PAIR_DOT(sum, pair, rows) __asm__("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(pair), "v"(rows))
/** sums[n * pitch + r] += weights times `panels` panels that are `apart` from each other; `deep` is a multiple of 32. */
INLINE void tile_pair_step(int outputs, int panels, float *sums, long pitch, const uint16_t *w, const uint16_t *x, long apart, long deep) {
  __m512 sum[TILE_PANEL_OUTPUTS][2];
#pragma GCC unroll 16
  for (int n = 0; n < outputs; n++)
    for (int p = 0; p < panels; p++) sum[n][p] = _mm512_setzero_ps();
  for (long l = 0; l < deep; l += 2, x += TILE_TERMS * 2 * TILE_PANEL) {
    __m512i xs[TILE_TERMS][2];
    for (int t = 0; t < TILE_TERMS; t++)
      for (int p = 0; p < panels; p++) xs[t][p] = _mm512_load_si512(x + p * apart + t * 2 * TILE_PANEL);
#pragma GCC unroll 16
    for (int n = 0; n < outputs; n++) {
      int32_t two;
      memcpy(&two, w + n * TILE_PANEL_PITCH + l, 4);
      const __m512i pair = _mm512_set1_epi32(two);
      for (int t = 0; t < TILE_TERMS; t++)
        for (int p = 0; p < panels; p++) TILE_PAIR_DOT(sum[n][p], pair, xs[t][p]);
    }
  }
#pragma GCC unroll 16
  for (int n = 0; n < outputs; n++)
    for (int p = 0; p < panels; p++) {
      float *to = sums + n * pitch + p * TILE_PANEL;
      _mm512_store_ps(to, _mm512_add_ps(_mm512_load_ps(to), sum[n][p]));
    }
}
#if TILE_AMX
/** sums += 16 outputs times one panel by tiles; `deep` is a multiple of 32, and what is added to it is 0. */
static __attribute__((noinline, unused)) void tile_amx_pair_step(float *sums, long pitch, const uint16_t *w, const uint16_t *x, long deep) {
  _Alignas(64) float out[2][16 * TILE_PANEL];
  TILE_AMX_ZERO(0);
  TILE_AMX_ZERO(1);
  for (long l = 0; l < deep; l += 32, x += 16 * TILE_TERMS * 2 * TILE_PANEL) {
    TILE_AMX_LOAD(2, w + l, 2 * TILE_PANEL_PITCH);
    TILE_AMX_LOAD(3, x, TILE_TERMS * 64);
    TILE_AMX_PAIRS(0, 2, 3);
#if TILE_TERMS > 1
    TILE_AMX_LOAD(4, x + 2 * TILE_PANEL, TILE_TERMS * 64);
    TILE_AMX_PAIRS(1, 2, 4);
#endif
#if TILE_TERMS > 2
    TILE_AMX_LOAD(5, x + 4 * TILE_PANEL, TILE_TERMS * 64);
    TILE_AMX_PAIRS(1, 2, 5);
#endif
  }
  TILE_AMX_STORE(0, out[0], 64);
  TILE_AMX_STORE(1, out[1], 64);
  for (int n = 0; n < 16; n++) {
    float *to = sums + n * pitch;
    const __m512 both = _mm512_add_ps(_mm512_load_ps(out[0] + n * TILE_PANEL), _mm512_load_ps(out[1] + n * TILE_PANEL));
    _mm512_store_ps(to, _mm512_add_ps(_mm512_load_ps(to), both));
  }
}
#endif
static __attribute__((noinline, unused)) void tile_pair_steps(float *sums, long pitch, const uint16_t *w, const uint16_t *x, long apart, long panels, long deep) {
  long p = 0;
#if TILE_AMX
  if (tile_has_amx())
    for (; p < panels; p++) tile_amx_pair_step(sums + p * TILE_PANEL, pitch, w, x + p * apart, deep);
#endif
  for (; p + 2 <= panels; p += 2)
    for (int half = 0; half < 2; half++)
      tile_pair_step(TILE_PANEL_OUTPUTS / 2, 2, sums + half * TILE_PANEL_OUTPUTS / 2 * pitch + p * TILE_PANEL, pitch, w + half * TILE_PANEL_OUTPUTS / 2 * TILE_PANEL_PITCH, x + p * apart, apart, deep);
  for (; p < panels; p++) tile_pair_step(TILE_PANEL_OUTPUTS, 1, sums + p * TILE_PANEL, pitch, w, x + p * apart, apart, deep);
}
/** As tile_by_panels, for bf16 weights. */
INLINE void tile_by_pairs(float *into, const float *const *x, long count, const tile_view *b, const long *rows, long n, long k) {
  _Alignas(64) uint16_t w[TILE_PANEL_OUTPUTS * TILE_PANEL_PITCH];
  _Alignas(64) float sums[TILE_PANEL_OUTPUTS * TILE_PANEL_MOST];
  const long panels = tile_ceildiv(count, TILE_PANEL), pitch = panels * TILE_PANEL;
  const long most = TILE_PANEL_ROOM / pitch / TILE_PANEL_DEEP * TILE_PANEL_DEEP;
  const float *at[TILE_PANEL_MOST];
  for (long from = 0; from < k; from += most) {
    const long columns = tile_min(most, k - from), whole = tile_pair_columns(columns);
    for (long i = 0; i < count; i++) at[i] = x[i] + from;
    const uint16_t *packed = tile_pair_packed(at, count, columns);
    for (long j = 0; j < n; j += TILE_PANEL_OUTPUTS) {
      const uint16_t *data[TILE_PANEL_OUTPUTS], *next[TILE_PANEL_OUTPUTS];
      for (long r = 0; r < TILE_PANEL_OUTPUTS; r++) {
        const long after = j + r + TILE_PANEL_OUTPUTS;
        data[r] = j + r < n && rows[j + r] >= 0 ? (const uint16_t *)(const void *)tile_row_data(KIND_bf16, b, rows[j + r]) + b->col + from : 0;
        next[r] = after < n && rows[after] >= 0 ? (const uint16_t *)(const void *)tile_row_data(KIND_bf16, b, rows[after]) + b->col + from : 0;
      }
      memset(sums, 0, sizeof *sums * (size_t)(TILE_PANEL_OUTPUTS * pitch));
      for (long c = 0; c < columns; c += TILE_PANEL_DEEP) {
        const long deep = tile_min(TILE_PANEL_DEEP, columns - c), padded = tile_pair_columns(deep);
        const int more = c + deep < columns;
        const long ahead = more ? c + deep : 0, some = tile_min(TILE_PANEL_DEEP, columns - ahead);
        for (long r = 0; r < TILE_PANEL_OUTPUTS; r++) {
          uint16_t *to = w + r * TILE_PANEL_PITCH;
          const uint16_t *soon = more ? data[r] : next[r];
          if (soon)
            for (long i = 0; i < some; i += 32) tile_ahead(soon + ahead + i);
          // to a place of its own: rows that are a power of two apart would push each other out of the cache
          if (data[r]) memcpy(to, data[r] + c, sizeof *to * (size_t)deep);
          else memset(to, 0, sizeof *to * (size_t)deep);
          memset(to + deep, 0, sizeof *to * (size_t)(padded - deep));
        }
        tile_pair_steps(sums, pitch, w, packed + c * TILE_TERMS * TILE_PANEL, whole * TILE_TERMS * TILE_PANEL, panels, padded);
      }
      tile_panel_add(into + j, n, sums, pitch, count, tile_min(TILE_PANEL_OUTPUTS, n - j));
    }
  }
}
#endif
