// into[m][n] += sum over k of a[m][k] * b[n][k], in f32 whatever the storages. Two ways:
//
//   one row of a     each row of b is decoded in registers and met once: as fast as memory gives the weights
//   several rows     four rows of b are decoded into a buffer that stays in cache, then met by all rows of a, four by four
//
// Products run along k with partial sums side by side, added up at the end.
#pragma once

#define TILE_DEPTH 1024 // columns of b decoded at a time: four rows are 16 KB

// ---- one row of a: the dot product of a stretch

#define TILE_DOT_PLAIN(kind, type) \
  TILE_INLINE void tile_dot4_##kind(float *s, const float *x, const type *const *w, long n) { \
    vf s0 = {0}, s1 = {0}, s2 = {0}, s3 = {0}, t0 = {0}, t1 = {0}, t2 = {0}, t3 = {0}; \
    long i = 0; \
    for (; i + 2 * TILE_WIDTH <= n; i += 2 * TILE_WIDTH) { \
      const vf x0 = vf_load(x + i), x1 = vf_load(x + i + TILE_WIDTH); \
      s0 += x0 * vf_##kind(w[0] + i); t0 += x1 * vf_##kind(w[0] + i + TILE_WIDTH); \
      s1 += x0 * vf_##kind(w[1] + i); t1 += x1 * vf_##kind(w[1] + i + TILE_WIDTH); \
      s2 += x0 * vf_##kind(w[2] + i); t2 += x1 * vf_##kind(w[2] + i + TILE_WIDTH); \
      s3 += x0 * vf_##kind(w[3] + i); t3 += x1 * vf_##kind(w[3] + i + TILE_WIDTH); } \
    s[0] += vf_sum(s0 + t0); s[1] += vf_sum(s1 + t1); s[2] += vf_sum(s2 + t2); s[3] += vf_sum(s3 + t3); \
    for (; i < n; i++) for (int r = 0; r < 4; r++) { type e; memcpy(&e, w[r] + i, sizeof e); s[r] += x[i] * tile_one_##kind(e); } }
TILE_INLINE float tile_one_f32(float e) { return e; }
TILE_INLINE float tile_one_bf16(uint16_t e) { return tile_from_bf16(e); }
TILE_INLINE float tile_one_f16(uint16_t e) { return tile_from_f16(e); }
TILE_INLINE float tile_one_i8(int8_t e) { return (float)e; }
TILE_INLINE float tile_one_f8e4m3(uint8_t e) { return tile_from_f8e4m3(e); }
TILE_DOT_PLAIN(f32, float)
TILE_DOT_PLAIN(bf16, uint16_t)
TILE_DOT_PLAIN(f16, uint16_t)
TILE_DOT_PLAIN(i8, int8_t)
TILE_DOT_PLAIN(f8e4m3, uint8_t)

/** Four rows of b against x [k]; s gets four sums. */
#define TILE_ROWS_PLAIN(kind, type) \
  TILE_INLINE void tile_rows4_##kind(float *s, const float *x, const float *scratch, view_##kind v, const long *row, long k) { \
    (void)scratch; \
    const type *w[4]; \
    for (int r = 0; r < 4; r++) w[r] = v.data + row[r] * v.pitch + v.col; \
    tile_dot4_##kind(s, x, w, k); }
TILE_ROWS_PLAIN(f32, float)
TILE_ROWS_PLAIN(bf16, uint16_t)
TILE_ROWS_PLAIN(f16, uint16_t)

#define TILE_ROWS_BYTES(kind, code, type, scale_of) \
  TILE_INLINE void tile_rows4_##kind(float *s, const float *x, const float *scratch, view_##kind v, const long *row, long k) { \
    (void)scratch; \
    const long per = (v.pitch + v.block_cols - 1) / v.block_cols; \
    for (long at = v.col, end = v.col + k; at < end;) { \
      const long b = at / v.block_cols, next = tile_min((b + 1) * v.block_cols, end); \
      const type *w[4]; \
      float part[4] = {0, 0, 0, 0}; \
      for (int r = 0; r < 4; r++) w[r] = v.data + row[r] * v.pitch + at; \
      tile_dot4_##code(part, x + (at - v.col), w, next - at); \
      for (int r = 0; r < 4; r++) s[r] += part[r] * scale_of(v.scale + (row[r] / v.block_rows) * per + b); \
      at = next; } }
TILE_ROWS_BYTES(i8_f32, i8, int8_t, tile_scale_f32)
TILE_ROWS_BYTES(i8_bf16, i8, int8_t, tile_scale_bf16)
TILE_ROWS_BYTES(f8e4m3_f32, f8e4m3, uint8_t, tile_scale_f32)
TILE_ROWS_BYTES(f8e4m3_bf16, f8e4m3, uint8_t, tile_scale_bf16)
TILE_ROWS_BYTES(f8e4m3_e8m0, f8e4m3, uint8_t, tile_scale_e8m0)

#define TILE_PAIR (2 * TILE_WIDTH) // codes of half a byte come in pairs of vectors: even ones, odd ones
/** x in the order in which nibbles are decoded: of each pair of vectors the even elements, then the odd ones. */
TILE_INLINE void tile_split(float *to, const float *x, long k) {
  long i = 0;
  for (; i + TILE_PAIR <= k; i += TILE_PAIR)
    for (int j = 0; j < TILE_WIDTH; j++) { to[i + j] = x[i + 2 * j]; to[i + TILE_WIDTH + j] = x[i + 2 * j + 1]; }
  for (; i < k; i++) to[i] = x[i];
}
// Groups that are not whole pairs of vectors, or that begin off a group, take the plain way.
#define TILE_ROWS_NIBBLES(kind, table, stype, scale_of) \
  TILE_INLINE void tile_rows4_##kind(float *s, const float *x, const float *scratch, view_##kind v, const long *row, long k) { \
    const long half = (v.pitch + 1) / 2, per = (v.pitch + v.block_cols - 1) / v.block_cols; \
    long done = 0; \
    if (v.block_cols % TILE_PAIR == 0 && v.col % v.block_cols == 0) { \
      done = k / TILE_PAIR * TILE_PAIR; \
      vf sum[4] = {{0}, {0}, {0}, {0}}; \
      const uint8_t *w[4]; \
      const stype *scale[4]; \
      for (int r = 0; r < 4; r++) { w[r] = v.data + row[r] * half + v.col / 2; scale[r] = v.scale + (row[r] / v.block_rows) * per + v.col / v.block_cols; } \
      for (long at = 0, b = 0; at < done; b++) { \
        const long next = tile_min(at + v.block_cols, done); \
        vf part[4] = {{0}, {0}, {0}, {0}}; \
        for (; at < next; at += TILE_PAIR) { \
          const vf xe = vf_load(scratch + at), xo = vf_load(scratch + at + TILE_WIDTH); \
          for (int r = 0; r < 4; r++) { vf e, o; vf_nibbles(w[r] + at / 2, table, &e, &o); part[r] += xe * e; part[r] += xo * o; } } \
        for (int r = 0; r < 4; r++) sum[r] += part[r] * vf_of(scale_of(scale[r] + b)); } \
      for (int r = 0; r < 4; r++) s[r] += vf_sum(sum[r]); } \
    for (int r = 0; r < 4; r++) \
      for (long i = done; i < k; i++) { \
        const long c = v.col + i; \
        s[r] += x[i] * table[(v.data[row[r] * half + c / 2] >> (c % 2 * 4)) & 15] * scale_of(v.scale + (row[r] / v.block_rows) * per + c / v.block_cols); } }
TILE_ROWS_NIBBLES(i4_f32, tile_i4, float, tile_scale_f32)
TILE_ROWS_NIBBLES(i4_bf16, tile_i4, uint16_t, tile_scale_bf16)
TILE_ROWS_NIBBLES(f4e2m1_f32, tile_f4e2m1, float, tile_scale_f32)
TILE_ROWS_NIBBLES(f4e2m1_e8m0, tile_f4e2m1, uint8_t, tile_scale_e8m0)

// ---- several rows of a: four by four

/** c[i][j] += sum of a[i][..n] * b[j][..n]; b's rows lie `depth` apart. */
TILE_INLINE void tile_block(float *c, long pitch, const float *const *a, int rows, const float *b, long depth, int columns, long n) {
  if (rows == 4 && columns == 4) {
    vf s[16];
    for (int i = 0; i < 16; i++) s[i] = (vf){0};
    long k = 0;
    for (; k + TILE_WIDTH <= n; k += TILE_WIDTH) {
      const vf b0 = vf_load(b + k), b1 = vf_load(b + depth + k), b2 = vf_load(b + 2 * depth + k), b3 = vf_load(b + 3 * depth + k);
#pragma GCC unroll 4
      for (int i = 0; i < 4; i++) {
        const vf x = vf_load(a[i] + k);
        s[4 * i] += x * b0; s[4 * i + 1] += x * b1; s[4 * i + 2] += x * b2; s[4 * i + 3] += x * b3;
      }
    }
    for (int i = 0; i < 4; i++)
      for (int j = 0; j < 4; j++) {
        float t = vf_sum(s[4 * i + j]);
        for (long q = k; q < n; q++) t += a[i][q] * b[j * depth + q];
        c[i * pitch + j] += t;
      }
    return;
  }
  for (int i = 0; i < rows; i++)
    for (int j = 0; j < columns; j++) {
      vf s = {0};
      long k = 0;
      for (; k + TILE_WIDTH <= n; k += TILE_WIDTH) s += vf_load(a[i] + k) * vf_load(b + j * depth + k);
      float t = vf_sum(s);
      for (; k < n; k++) t += a[i][k] * b[j * depth + k];
      c[i * pitch + j] += t;
    }
}

/** A row of a as f32 lies in memory already; where it is outside or absent the sum gets nothing. */
#define TILE_CONTRACT(kind) \
  TILE_CALL void tile_contract_##kind(float *into, long m, long n, long depth, view_f32 a, view_##kind b) { \
    const long k = tile_min(tile_min(depth, a.cols - a.col), b.cols - b.col); \
    const float *x[m]; \
    long at[m]; \
    long rows = 0; \
    for (long r = 0; r < m; r++) { \
      const long row = TILE_ROW(a, r); \
      if (row >= 0) { x[rows] = a.data + row * a.pitch + a.col; at[rows++] = r; } } \
    if (rows == 0 || k <= 0) return; \
    float buffer[4 * TILE_DEPTH] __attribute__((aligned(64))); \
    const int split = TILE_NEEDS_SPLIT_##kind; \
    for (long j = 0; j < n; j += 4) { \
      long row[4]; \
      int last = -1; \
      for (int r = 0; r < 4; r++) { row[r] = j + r < n ? TILE_ROW(b, j + r) : -1; if (row[r] >= 0) last = r; } \
      if (last < 0) continue; \
      if (rows == 1) { \
        /* absent rows repeat one that is there, and their sums are dropped */ \
        long there[4]; \
        for (int r = 0; r < 4; r++) there[r] = row[r] >= 0 ? row[r] : row[last]; \
        float s[4] = {0, 0, 0, 0}; \
        if (split) { \
          for (long c = 0; c < k; c += 4 * TILE_DEPTH) { \
            view_##kind v = b; \
            v.col += c; \
            const long part = tile_min(4 * TILE_DEPTH, k - c); \
            if (j == 0 || k > 4 * TILE_DEPTH) tile_split(buffer, x[0] + c, part); \
            tile_rows4_##kind(s, x[0] + c, buffer, v, there, part); } \
        } else tile_rows4_##kind(s, x[0], buffer, b, there, k); \
        for (int r = 0; r < 4; r++) if (row[r] >= 0) into[at[0] * n + j + r] += s[r]; \
        continue; } \
      for (long c = 0; c < k; c += TILE_DEPTH) { \
        const long part = tile_min(TILE_DEPTH, k - c); \
        for (int r = 0; r <= last; r++) { \
          if (row[r] >= 0) tile_decode_##kind(buffer + r * TILE_DEPTH, b, row[r], b.col + c, part); \
          else tile_zero(buffer + r * TILE_DEPTH, part); } \
        for (long i = 0; i < rows; i += 4) { \
          const int high = (int)tile_min(4, rows - i); \
          const float *ak[4]; \
          for (int r = 0; r < high; r++) ak[r] = x[i + r] + c; \
          float sums[16] = {0}; \
          tile_block(sums, 4, ak, high, buffer, TILE_DEPTH, last + 1, part); \
          for (int r = 0; r < high; r++) for (int q = 0; q <= last; q++) into[at[i + r] * n + j + q] += sums[4 * r + q]; } } } }
#define TILE_NEEDS_SPLIT_f32 0
#define TILE_NEEDS_SPLIT_bf16 0
#define TILE_NEEDS_SPLIT_f16 0
#define TILE_NEEDS_SPLIT_i8_f32 0
#define TILE_NEEDS_SPLIT_i8_bf16 0
#define TILE_NEEDS_SPLIT_f8e4m3_f32 0
#define TILE_NEEDS_SPLIT_f8e4m3_bf16 0
#define TILE_NEEDS_SPLIT_f8e4m3_e8m0 0
#define TILE_NEEDS_SPLIT_i4_f32 1
#define TILE_NEEDS_SPLIT_i4_bf16 1
#define TILE_NEEDS_SPLIT_f4e2m1_f32 1
#define TILE_NEEDS_SPLIT_f4e2m1_e8m0 1
TILE_EACH_KIND(TILE_CONTRACT)

/** The same with b held as [k][n]: into's rows gather rows of b. */
TILE_CALL void tile_contract_heldt_f32(float *into, long m, long n, long depth, view_f32 a, view_f32 b) {
  const long k = tile_min(tile_min(depth, a.cols - a.col), b.rows - b.row);
  for (long r = 0; r < m; r++) {
    const long row = TILE_ROW(a, r);
    if (row < 0) continue;
    const float *x = a.data + row * a.pitch + a.col;
    float *t = into + r * n;
    long c = 0;
    for (; c + 4 * TILE_WIDTH <= n; c += 4 * TILE_WIDTH) {
      vf s0 = vf_load(t + c), s1 = vf_load(t + c + TILE_WIDTH), s2 = vf_load(t + c + 2 * TILE_WIDTH), s3 = vf_load(t + c + 3 * TILE_WIDTH);
      for (long i = 0; i < k; i++) {
        const vf xi = vf_of(x[i]);
        const float *w = b.data + (b.row + i) * b.pitch + b.col + c;
        s0 += xi * vf_load(w); s1 += xi * vf_load(w + TILE_WIDTH); s2 += xi * vf_load(w + 2 * TILE_WIDTH); s3 += xi * vf_load(w + 3 * TILE_WIDTH);
      }
      vf_store(t + c, s0); vf_store(t + c + TILE_WIDTH, s1); vf_store(t + c + 2 * TILE_WIDTH, s2); vf_store(t + c + 3 * TILE_WIDTH, s3);
    }
    for (; c < n; c++) {
      float s = t[c];
      for (long i = 0; i < k; i++) s += x[i] * b.data[(b.row + i) * b.pitch + b.col + c];
      t[c] = s;
    }
  }
}
