// Contractions: into[m][n] += sum over k of a[m][k] * b[n][k], in f32 whatever b is stored as.
//
// Few rows of a: weights are decoded in registers on their way to the sum, so a step costs what reading them costs. Many rows: a piece of b is
// decoded once into f32 and met by blocks of 4 x 4 dot products.
#pragma once

// What is made of a row of a (digits, panels) serves every output of a kernel's call: kernels begin with tile_begin(), and their inputs do not
// change until the next.
static _Thread_local long tile_turn __attribute__((unused)); // 0: nobody says when a call begins, so nothing is kept
static _Thread_local const char *tile_frame __attribute__((unused)); // the kernel's frame, where its tiles are
/** May what is made of this row be kept? What lies on the stack is a tile and may have changed since. */
INLINE int tile_kept(const float *x) {
  const char *here = (const char *)__builtin_frame_address(0), *at = (const char *)x;
  return tile_turn != 0 && !(at >= here && at < tile_frame);
}
#define tile_begin() ((void)(tile_turn = tile_turn + 1, tile_frame = (const char *)__builtin_frame_address(0)))

#include "hkgai_digits.h"
#include "hkgai_neon.h"
#include "hkgai_panel.h"
#include "hkgai_amx.h"
#include "hkgai_bytes.h"
#include "hkgai_pairs.h"

/** Dot products of MB rows x with NB rows of a view, k columns from column c on; to[m * pitch + n] is added to. */
INLINE void tile_dots(int kind, int scale, int MB, int NB, float *to, long pitch, const float *const *x, const tile_view *v, const long *row, long c, long k) {
  const char *w[8];
  for (int n = 0; n < NB; n++) w[n] = tile_row_data(kind, v, row[n]);
  const long ahead = MB == 1 && NB == 4 ? 4 * (w[1] - w[0]) : 0;
  const int bits = tile_width_bits(kind), line = 512 / bits;
  vf total[4][8];
  float rest[4][8];
  for (int m = 0; m < MB; m++)
    for (int n = 0; n < NB; n++) total[m][n] = vf_all(0), rest[m][n] = 0;
  for (long i = 0; i < k;) {
    const long end = scale == SCALE_none ? k : tile_min(k, ((c + i) / v->block_cols + 1) * v->block_cols - c);
    const long start = i;
    vf sum[4][8];
    if (scale != SCALE_none)
      for (int m = 0; m < MB; m++)
        for (int n = 0; n < NB; n++) sum[m][n] = vf_all(0);
    if (tile_whole(kind, c + i)) {
      // one row of x: a line of memory of each row of b in a turn, and the same line of the rows that come next asked for
      if (MB == 1 && NB == 4)
        for (; i + line <= end; i += line)
          for (int n = 0; n < NB; n++) {
            const char *at = w[n] + (c + i) * bits / 8;
            tile_ahead(at + ahead);
            for (int u = 0; u < line; u += VL) {
              const vf xs = vf_load(x[0] + i + u), ws = tile_codes(kind, w[n], c + i + u);
              if (scale == SCALE_none) total[0][n] = vf_fma(xs, ws, total[0][n]);
              else sum[0][n] = vf_fma(xs, ws, sum[0][n]);
            }
          }
      for (; i + VL <= end; i += VL) {
        vf xs[4];
        for (int m = 0; m < MB; m++) xs[m] = vf_load(x[m] + i), vf_keep(&xs[m]);
        for (int n = 0; n < NB; n++) {
          vf ws = tile_codes(kind, w[n], c + i);
          if (MB > 1) vf_keep(&ws);
          for (int m = 0; m < MB; m++) {
            if (scale == SCALE_none) total[m][n] = vf_fma(xs[m], ws, total[m][n]);
            else sum[m][n] = vf_fma(xs[m], ws, sum[m][n]);
          }
        }
      }
    }
    if (scale != SCALE_none)
      for (int n = 0; n < NB; n++) {
        const vf by = vf_all(tile_scale(scale, v, row[n], c + start) * tile_code_unit(kind));
        for (int m = 0; m < MB; m++) total[m][n] = vf_fma(sum[m][n], by, total[m][n]);
      }
    for (; i < end; i++)
      for (int n = 0; n < NB; n++) {
        const float one = tile_code(kind, w[n], c + i) * tile_scale(scale, v, row[n], c + i);
        for (int m = 0; m < MB; m++) rest[m][n] += x[m][i] * one;
      }
  }
  for (int m = 0; m < MB; m++) {
    float *t = to + m * pitch;
    if (NB >= 4)
      for (int n = 0; n + 4 <= NB; n += 4) vf_add_sums4(t + n, total[m][n], total[m][n + 1], total[m][n + 2], total[m][n + 3]);
    else
      for (int n = 0; n < NB; n++) t[n] += vf_sum(total[m][n]);
    for (int n = 0; n < NB; n++) t[n] += rest[m][n];
  }
}
/**
 * One row x with n rows of a view, none of them outside: memory is read in one stream, as a plain reading loop does, four sums in turn. More
 * is asked for ahead: processors' own prefetch stops at the end of a page.
 */
INLINE void tile_stream(int kind, int scale, float *to, const float *x, const tile_view *v, const long *row, long n, long c, long k) {
  const int bits = tile_width_bits(kind), line = 512 / bits;
  const long group = scale == SCALE_none ? 0 : c / v->block_cols, left = scale == SCALE_none ? k : (group + 1) * v->block_cols - c;
  const long across = tile_scales_across(scale, v);
  const float unit = tile_code_unit(kind);
  for (long j = 0; j < n; j++) {
    const char *w = tile_row_data(kind, v, row[j]), *scales = tile_scales(scale, v, across, row[j]);
    vf total[4];
    float rest = 0;
    for (int i = 0; i < 4; i++) total[i] = vf_all(0);
    for (long i = 0, g = group, end = tile_min(k, left); i < k; g++, end = tile_min(k, end + v->block_cols)) {
      const float by = tile_scale_of(scale, scales, g);
      vf sum[4];
      if (scale != SCALE_none)
        for (int u = 0; u < 4; u++) sum[u] = vf_all(0);
#define TILE_STREAM(at) \
  if (scale == SCALE_none) total[(at) % 4] = vf_fma(vf_load(x + i + (at) * VL), tile_codes(kind, w, c + i + (at) * VL), total[(at) % 4]); \
  else sum[(at) % 4] = vf_fma(vf_load(x + i + (at) * VL), tile_codes(kind, w, c + i + (at) * VL), sum[(at) % 4])
      for (; i + line <= end; i += line) {
        tile_ahead(w + (c + i) * bits / 8 + TILE_AHEAD);
#pragma GCC unroll 16
        for (int u = 0; u < line / VL; u++) { TILE_STREAM(u); }
      }
      for (; i + VL <= end; i += VL) { TILE_STREAM(0); }
#undef TILE_STREAM
      if (scale != SCALE_none)
        for (int u = 0; u < 4; u++) total[u] = vf_fma(sum[u], vf_all(by * unit), total[u]);
      for (; i < end; i++) rest += x[i] * tile_code(kind, w, c + i) * by;
    }
    to[j] += vf_sum((total[0] + total[1]) + (total[2] + total[3])) + rest;
  }
}
/** The same for any number of rows m of a, n rows of b taken by fours. A row below 0 adds nothing. */
INLINE void tile_few(int kind, int scale, float *into, long width, const float *const *x, long m, const tile_view *b, const long *row, long n, long c, long k) {
  if (m == 1 && tile_width_bits(kind) >= 8) {
    for (long j = 0; j < n;) {
      long some = 0;
      while (j + some < n && row[j + some] >= 0) some++;
      tile_stream(kind, scale, into + j, x[0], b, row + j, some, c, k);
      j += some + 1;
    }
    return;
  }
  for (long j = 0; j < n;) {
    const int four = j + 4 <= n && row[j] >= 0 && row[j + 1] >= 0 && row[j + 2] >= 0 && row[j + 3] >= 0;
    if (!four && row[j] < 0) {
      j++;
      continue;
    }
    for (long i = 0; i < m;) {
      float *to = into + i * width + j;
      if (m - i >= 4) {
        if (four) tile_dots(kind, scale, 4, 4, to, width, x + i, b, row + j, c, k);
        else tile_dots(kind, scale, 4, 1, to, width, x + i, b, row + j, c, k);
        i += 4;
      } else if (m - i >= 2) {
        if (four) tile_dots(kind, scale, 2, 4, to, width, x + i, b, row + j, c, k);
        else tile_dots(kind, scale, 2, 1, to, width, x + i, b, row + j, c, k);
        i += 2;
      } else {
        if (four) tile_dots(kind, scale, 1, 4, to, width, x + i, b, row + j, c, k);
        else tile_dots(kind, scale, 1, 1, to, width, x + i, b, row + j, c, k);
        i += 1;
      }
    }
    j += four ? 4 : 1;
  }
}

enum { TILE_MOST_ROWS = 512 };

/** Rows of a that lie inside: their pointers at column 0 of the view and their places. Outside rows add nothing. */
INLINE long tile_inside_rows(const tile_view *a, long m, const float **x, long *place) {
  long count = 0;
  for (long i = 0; i < m; i++) {
    const long row = tile_row(a, i);
    if (row < 0) continue;
    place[count] = i;
    x[count++] = (const float *)a->data + row * a->pitch + a->col;
  }
  return count;
}

/** m and n are at most TILE_MOST_ROWS. The columns [0, k) of the views are cut to those inside both. */
INLINE void tile_contract(int kind, int scale, float *into, long m, long n, long k, const tile_view *a, const tile_view *b) {
  if (m > TILE_MOST_ROWS || n > TILE_MOST_ROWS) __builtin_trap();
  const float *x[TILE_MOST_ROWS];
  long place[TILE_MOST_ROWS], rows[TILE_MOST_ROWS];
  k = tile_min(k, tile_min(a->cols - a->col, b->cols - b->col));
  const long count = tile_inside_rows(a, m, x, place);
  if (count == 0 || k <= 0) return;
  const int straight = place[count - 1] == count - 1; // the rows inside are the first ones, so results can be added in place
  long inside = 0;
  for (long j = 0; j < n; j++) inside += (rows[j] = tile_row(b, j)) >= 0;
  if (inside == 0) return;
  if (!straight) { // holes between the rows of a: one at a time
    for (long i = 0; i < count; i++) tile_few(kind, scale, into + place[i] * n, n, x + i, 1, b, rows, n, b->col, k);
    return;
  }
  if (count <= 4 || (kind == KIND_f32 && n < TILE_PANEL)) {
    long done = 0;
#if TILE_DIGITS || TILE_NEON_DOT
    int last = 1; // rows of b outside are the last ones
    for (long j = 1; j < n; j++) last &= !(rows[j - 1] < 0 && rows[j] >= 0);
#if TILE_DIGITS
    if ((kind == KIND_i4 || kind == KIND_f4e2m1) && last && rows[0] >= 0) done = tile_by_digits(kind, scale, into, n, x, count, b, rows, n, k);
#else
    if (last && rows[0] >= 0) done = tile_by_dots(kind, scale, into, n, x, count, b, rows, n, k);
#endif
    for (long i = 0; i < count; i++) x[i] += done;
#endif
    if (done < k) tile_few(kind, scale, into, n, x, count, b, rows, n, b->col + done, k - done);
    return;
  }
#if TILE_DIGITS
  const long group = tile_byte_groups(kind, scale, b);
  for (long i = 0; group && i < count; i += TILE_PANEL_MOST) tile_by_bytes(kind, scale, into + i * n, x + i, tile_min(TILE_PANEL_MOST, count - i), b, rows, n, k, group);
  if (group) return;
#endif
#if TILE_PAIRS
  const int pairs = kind == KIND_bf16 && tile_has_pairs();
  for (long i = 0; pairs && i < count; i += TILE_PANEL_MOST) tile_by_pairs(into + i * n, x + i, tile_min(TILE_PANEL_MOST, count - i), b, rows, n, k);
  if (pairs) return;
#endif
  for (long i = 0; i < count; i += TILE_PANEL_MOST) tile_by_panels(kind, scale, into + i * n, x + i, tile_min(TILE_PANEL_MOST, count - i), b, rows, n, k);
}

/** b is held as [k, n]: sums of rows of b, each times one element of a. */
FN void tile_contract_heldt_f32(float *restrict into, long m, long n, long k, tile_view a, tile_view b) {
  k = tile_min(k, tile_min(a.cols - a.col, b.rows - b.row));
  const long columns = tile_min(n, b.cols - b.col);
  const float *const right = (const float *)b.data + b.row * b.pitch + b.col;
  for (long i = 0; i < m; i += 4) {
    const float *x[4];
    static const float none[1] = {0};
    long step[4];
    for (long r = 0; r < 4; r++) {
      const long row = i + r < m ? tile_row(&a, i + r) : -1;
      x[r] = row < 0 ? none : (const float *)a.data + row * a.pitch + a.col;
      step[r] = row < 0 ? 0 : 1;
    }
    const long live = tile_min(4, m - i);
    long c = 0;
    for (; c + 4 * VL <= columns && live == 4; c += 4 * VL) {
      vf sum[4][4];
      for (int r = 0; r < 4; r++)
        for (int q = 0; q < 4; q++) sum[r][q] = vf_load(into + (i + r) * n + c + q * VL);
      for (long l = 0; l < k; l++) {
        const float *w = right + l * b.pitch + c;
        vf ws[4];
        for (int q = 0; q < 4; q++) ws[q] = vf_load(w + q * VL);
        for (int r = 0; r < 4; r++) {
          const vf xs = vf_all(x[r][l * step[r]]);
          for (int q = 0; q < 4; q++) sum[r][q] = vf_fma(xs, ws[q], sum[r][q]);
        }
      }
      for (int r = 0; r < 4; r++)
        for (int q = 0; q < 4; q++) vf_store(into + (i + r) * n + c + q * VL, sum[r][q]);
    }
    for (long r = 0; r < live; r++) {
      float *to = into + (i + r) * n;
      for (long l = 0; l < k; l++) {
        const float xs = x[r][l * step[r]];
        const float *w = right + l * b.pitch;
        for (long j = c; j < columns; j++) to[j] += xs * w[j];
      }
    }
  }
}

#define CONTRACT(name, code, by)                                                                                       \
  static __attribute__((noinline, unused)) void tile_contract_##name(float *into, long m, long n, long k, tile_view a, tile_view b) { \
    tile_contract(KIND_##code, SCALE_##by, into, m, n, k, &a, &b);                                                     \
  }
KINDS(CONTRACT)
#undef CONTRACT
