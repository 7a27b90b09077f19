// Many rows of a: a real matrix product. Sixteen rows of a lie beside each other, column by column (a panel), and are packed once for all outputs of a
// call; weights are decoded once into rows that stay in the first cache, and every weight meets 16 or 32 rows: no sums across lanes, no decode in the
// inner loop. Everything is f32: no error beyond what sums of f32 lose, whatever b is stored as.
//
// Decoded rows are TILE_PANEL_PITCH apart, not a power of two: rows of 1, 2 or 4 KiB would all fall into the same few places of a cache.
#pragma once

/** Rows of a panel; columns that weights are decoded for at a time; and the room for packed rows, in f32: 64 rows of 2048 columns. */
enum { TILE_PANEL = 16, TILE_PANEL_DEEP = 256, TILE_PANEL_PITCH = 256 + 16, TILE_PANEL_ROOM = 64 * 2048, TILE_PANEL_MOST = 64 };
/** Vectors of a panel's column, and outputs that one panel meets at once; two panels meet half as many. */
enum { TILE_PANEL_VECTORS = TILE_PANEL / VL };
#if TILE_AVX512
enum { TILE_PANEL_OUTPUTS = 16 };
#elif TILE_AVX2 || defined(__aarch64__)
enum { TILE_PANEL_OUTPUTS = 4 };
#else
enum { TILE_PANEL_OUTPUTS = 2 };
#endif

struct tile_panels {
  long turn, rows, columns;
  const float *x[TILE_PANEL_MOST];
  _Alignas(64) float packed[TILE_PANEL_ROOM]; // [panel][column][16]
};
static _Thread_local struct tile_panels tile_panels_of __attribute__((unused));

/** to[c * to_pitch + r] = from[r][c], 16 x 16; missing rows are null and read as 0. */
INLINE void tile_turn_16(float *to, long to_pitch, const float *const *from, long c) {
#if TILE_AVX512
  __m512 r[16], t[16];
  for (int i = 0; i < 16; i++) r[i] = from[i] ? _mm512_loadu_ps(from[i] + c) : _mm512_setzero_ps();
  for (int i = 0; i < 16; i += 2) t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]), t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
  for (int i = 0; i < 16; i += 4) {
    r[i] = (__m512)_mm512_unpacklo_pd((__m512d)t[i], (__m512d)t[i + 2]), r[i + 1] = (__m512)_mm512_unpackhi_pd((__m512d)t[i], (__m512d)t[i + 2]);
    r[i + 2] = (__m512)_mm512_unpacklo_pd((__m512d)t[i + 1], (__m512d)t[i + 3]), r[i + 3] = (__m512)_mm512_unpackhi_pd((__m512d)t[i + 1], (__m512d)t[i + 3]);
  }
  for (int i = 0; i < 4; i++) { // r[4 g + i] has column i of each four in its quarters, rows 4 g ..
    t[i] = _mm512_shuffle_f32x4(r[i], r[i + 4], 0x88), t[i + 4] = _mm512_shuffle_f32x4(r[i], r[i + 4], 0xdd);
    t[i + 8] = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0x88), t[i + 12] = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0xdd);
  }
  for (int i = 0; i < 4; i++) {
    _mm512_storeu_ps(to + i * to_pitch, _mm512_shuffle_f32x4(t[i], t[i + 8], 0x88));
    _mm512_storeu_ps(to + (i + 8) * to_pitch, _mm512_shuffle_f32x4(t[i], t[i + 8], 0xdd));
    _mm512_storeu_ps(to + (i + 4) * to_pitch, _mm512_shuffle_f32x4(t[i + 4], t[i + 12], 0x88));
    _mm512_storeu_ps(to + (i + 12) * to_pitch, _mm512_shuffle_f32x4(t[i + 4], t[i + 12], 0xdd));
  }
#else
  for (int i = 0; i < 16; i++)
    for (int r = 0; r < 16; r++) to[i * to_pitch + r] = from[r] ? from[r][c + i] : 0.0f;
#endif
}
static __attribute__((noinline, unused)) void tile_pack(float *to, const float *const *x, long rows, long columns) {
  for (long p = 0; p < rows; p += TILE_PANEL, to += columns * TILE_PANEL) {
    const float *from[TILE_PANEL];
    for (long r = 0; r < TILE_PANEL; r++) from[r] = p + r < rows ? x[p + r] : 0;
    long c = 0;
    for (; c + 16 <= columns; c += 16) tile_turn_16(to + c * TILE_PANEL, TILE_PANEL, from, c);
    for (; c < columns; c++)
      for (long r = 0; r < TILE_PANEL; r++) to[c * TILE_PANEL + r] = from[r] ? from[r][c] : 0.0f;
  }
}
/** The panels of rows x: those at hand where they were packed in this call already. */
INLINE const float *tile_packed(const float *const *x, long rows, long columns) {
  struct tile_panels *t = &tile_panels_of;
  const size_t bytes = sizeof *x * (size_t)rows;
  if (tile_kept(x[0]) && t->turn == tile_turn && t->rows == rows && t->columns == columns && memcmp(t->x, x, bytes) == 0) return t->packed;
  tile_pack(t->packed, x, rows, columns);
  t->turn = tile_turn, t->rows = rows, t->columns = columns;
  memcpy(t->x, x, bytes);
  return t->packed;
}

/** sums[n * pitch + r] += rows of decoded weights times `panels` panels that are `apart` from each other. */
INLINE void tile_panel_step(int outputs, int panels, float *sums, long pitch, const float *w, const float *x, long apart, long deep) {
  vf sum[TILE_PANEL_OUTPUTS][2 * TILE_PANEL_VECTORS];
  const int vectors = panels * TILE_PANEL_VECTORS;
#pragma GCC unroll 16
  for (int n = 0; n < outputs; n++)
#pragma GCC unroll 8
    for (int v = 0; v < vectors; v++) sum[n][v] = vf_all(0);
  for (long l = 0; l < deep; l++) {
    vf xs[2 * TILE_PANEL_VECTORS];
#pragma GCC unroll 8
    for (int v = 0; v < vectors; v++) xs[v] = vf_load(x + (v / TILE_PANEL_VECTORS) * apart + l * TILE_PANEL + v % TILE_PANEL_VECTORS * VL);
#pragma GCC unroll 16
    for (int n = 0; n < outputs; n++) {
      const vf one = vf_all(w[n * TILE_PANEL_PITCH + l]);
#pragma GCC unroll 8
      for (int v = 0; v < vectors; v++) sum[n][v] = vf_fma(xs[v], one, sum[n][v]);
    }
  }
#pragma GCC unroll 16
  for (int n = 0; n < outputs; n++)
#pragma GCC unroll 8
    for (int v = 0; v < vectors; v++) vf_store(sums + n * pitch + v * VL, vf_load(sums + n * pitch + v * VL) + sum[n][v]);
}
/** The same for all panels of a group of outputs: a function of its own, one for every storage. */
static __attribute__((noinline, unused)) void tile_panel_steps(float *sums, long pitch, const float *w, const float *x, long apart, long panels, long deep) {
  long p = 0;
#if TILE_AVX512
  for (; p + 2 <= panels; p += 2)
    for (int half = 0; half < 2; half++)
      tile_panel_step(TILE_PANEL_OUTPUTS / 2, 2, sums + half * TILE_PANEL_OUTPUTS / 2 * pitch + p * TILE_PANEL, pitch, w + half * TILE_PANEL_OUTPUTS / 2 * TILE_PANEL_PITCH, x + p * apart, apart, deep);
#endif
  for (; p < panels; p++) tile_panel_step(TILE_PANEL_OUTPUTS, 1, sums + p * TILE_PANEL, pitch, w, x + p * apart, apart, deep);
}

/** into[i][j] += sums[j][i] for `rows` rows and `outputs` outputs. */
INLINE void tile_panel_add(float *into, long width, const float *sums, long pitch, long rows, long outputs) {
#if TILE_AVX512
  _Alignas(64) float turned[TILE_PANEL * 16];
  const float *from[16];
  for (long i = 0; i < 16; i++) from[i] = sums + i * pitch;
  for (long p = 0; p < rows; p += TILE_PANEL) {
    tile_turn_16(turned, 16, from, p);
    const __mmask16 some = (__mmask16)((1u << outputs) - 1);
    for (long i = 0; i < TILE_PANEL && p + i < rows; i++) {
      float *to = into + (p + i) * width;
      _mm512_mask_storeu_ps(to, some, _mm512_add_ps(_mm512_maskz_loadu_ps(some, to), _mm512_load_ps(turned + i * 16)));
    }
  }
#else
  for (long i = 0; i < rows; i++)
    for (long r = 0; r < outputs; r++) into[i * width + r] += sums[r * pitch + i];
#endif
}
/** into += rows x (at most TILE_PANEL_MOST, at their first column) times n rows of b from column b->col on. */
INLINE void tile_by_panels(int kind, int scale, float *into, const float *const *x, long count, const tile_view *b, const long *rows, long n, long k) {
  _Alignas(64) float w[TILE_PANEL_OUTPUTS * TILE_PANEL_PITCH];
  _Alignas(64) float sums[TILE_PANEL_OUTPUTS * TILE_PANEL_MOST];
  const int bits = tile_width_bits(kind);
  const long panels = tile_ceildiv(count, TILE_PANEL), pitch = panels * TILE_PANEL;
  const long most = TILE_PANEL_ROOM / pitch / TILE_PANEL_DEEP * TILE_PANEL_DEEP;
  const long across = tile_scales_across(scale, b);
  const float *at[TILE_PANEL_MOST];
  for (long from = 0; from < k; from += most) {
    const long columns = tile_min(most, k - from);
    for (long i = 0; i < count; i++) at[i] = x[i] + from;
    const float *packed = tile_packed(at, count, columns);
    for (long j = 0; j < n; j += TILE_PANEL_OUTPUTS) {
      const char *data[TILE_PANEL_OUTPUTS], *scales[TILE_PANEL_OUTPUTS], *next[TILE_PANEL_OUTPUTS];
      for (long r = 0; r < TILE_PANEL_OUTPUTS; r++) {
        data[r] = scales[r] = next[r] = 0;
        if (j + r < n && rows[j + r] >= 0) data[r] = tile_row_data(kind, b, rows[j + r]), scales[r] = tile_scales(scale, b, across, rows[j + r]);
        const long after = j + r + TILE_PANEL_OUTPUTS;
        if (after < n && rows[after] >= 0) next[r] = tile_row_data(kind, b, rows[after]);
      }
      memset(sums, 0, sizeof *sums * (size_t)(TILE_PANEL_OUTPUTS * pitch));
      for (long c = 0; c < columns; c += TILE_PANEL_DEEP) {
        const long deep = tile_min(TILE_PANEL_DEEP, columns - c), column = b->col + from + c;
        const long group = scale == SCALE_none ? 0 : column / b->block_cols, left = scale == SCALE_none ? 0 : (group + 1) * b->block_cols - column;
        // the next piece comes from memory while this one is multiplied
        const int more = c + deep < columns;
        const long ahead = more ? deep : -c, bytes = tile_min(TILE_PANEL_DEEP, columns - c - ahead) * bits / 8;
        for (long r = 0; r < TILE_PANEL_OUTPUTS; r++) {
          float *to = w + r * TILE_PANEL_PITCH;
          const char *soon = more ? data[r] : next[r];
          if (soon)
            for (long i = 0; i < bytes; i += 64) tile_ahead(soon + (column + ahead) * bits / 8 + i);
          if (data[r]) tile_decode_from(kind, scale, to, data[r], scales[r], b->block_cols, group, left, column, deep);
          else memset(to, 0, sizeof *to * (size_t)deep);
        }
        tile_panel_steps(sums, pitch, w, packed + c * TILE_PANEL, columns * TILE_PANEL, panels, deep);
      }
      tile_panel_add(into + j, n, sums, pitch, count, tile_min(TILE_PANEL_OUTPUTS, n - j));
    }
  }
}
