// The verbs of the CPU header against plain double arithmetic on the same bytes: every storage, ragged shapes, rows through an index, odd columns.
// Prints one line a check: name, worst error over the size of the result, "ok" or "wrong". Returns the number of wrong ones.
#include "hkgai_tile.h"
#include <stdio.h>
#include <stdlib.h>

static uint64_t seed = 88172645463325252ull;
static uint32_t draw(void) {
  seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
  return (uint32_t)(seed >> 32);
}
static float unit(void) { return (float)draw() / 2147483648.0f - 1.0f; }
static int wrong;
static void say(const char *name, double error, double limit) {
  const int ok = error <= limit;
  wrong += !ok;
  printf("%-28s %9.2e %s\n", name, error, ok ? "ok" : "wrong");
}

enum { ROWS = 150, COLS = 330, MOST = 70 };
static unsigned char bytes[ROWS * COLS * 8 + 64], scales[ROWS * COLS * 4 + 64];
static float x[MOST * COLS], into[MOST * MOST];

/** Random codes that decode to ordinary numbers, in a place that is aligned to nothing. */
static void fill(int kind, int scale, unsigned char *codes, unsigned char *factors, long columns, long block_cols) {
  (void)columns, (void)block_cols;
  for (long i = 0; i < (long)ROWS * COLS; i++) {
    const float f = unit();
    const uint32_t r = draw();
    switch (kind) {
      case KIND_f32: memcpy(codes + i * 4, &f, 4); break;
      case KIND_bf16: { const uint16_t h = tile_to_bf16(f); memcpy(codes + i * 2, &h, 2); break; }
      case KIND_f16: { const uint16_t h = tile_to_f16(r % 7 ? f : f * 1e-6f); memcpy(codes + i * 2, &h, 2); break; }
      case KIND_f8e4m3: codes[i] = (unsigned char)((r & 0x7f) == 0x7f ? 0x7e : r); break;
      default: codes[i] = (unsigned char)r; break;
    }
    if (scale == SCALE_f32) { const float s = 0.01f + 0.02f * (float)(r >> 8 & 255) / 256.0f; memcpy(factors + i * 4, &s, 4); }
    if (scale == SCALE_bf16) { const uint16_t s = tile_to_bf16(0.01f + 0.02f * (float)(r >> 8 & 255) / 256.0f); memcpy(factors + i * 2, &s, 2); }
    if (scale == SCALE_e8m0) factors[i] = (unsigned char)(120 + (r >> 8 & 3));
  }
}
/** One element as its definition says, in double, without the header. */
static double plain(int kind, int scale, const tile_view *v, long r, long c) {
  long row = v->index ? v->index[r] : r;
  if (row < 0) return 0;
  row += v->row;
  const long col = v->col + c;
  if (row < 0 || row >= v->rows || col < 0 || col >= v->cols) return 0;
  const unsigned char *p = v->data;
  double d = 0;
  const long at = row * v->pitch + col, half = row * ((v->pitch + 1) / 2) + col / 2;
  const int nibble = col % 2 ? p[half] >> 4 : p[half] & 15;
  static const double e2m1[8] = {0, 0.5, 1, 1.5, 2, 3, 4, 6};
  switch (kind) {
    case KIND_f32: { float f; memcpy(&f, p + at * 4, 4); d = f; break; }
    case KIND_bf16: { uint32_t u = (uint32_t)(p[at * 2] | p[at * 2 + 1] << 8) << 16; float f; memcpy(&f, &u, 4); d = f; break; }
    case KIND_f16: {
      const unsigned h = p[at * 2] | (unsigned)p[at * 2 + 1] << 8, e = h >> 10 & 31, m = h & 1023;
      d = (h & 0x8000 ? -1 : 1) * (e ? ldexp(1024 + m, (int)e - 25) : ldexp(m, -24));
      break;
    }
    case KIND_i8: d = (signed char)p[at]; break;
    case KIND_i4: d = nibble - 8; break;
    case KIND_f8e4m3: { const int e = p[at] >> 3 & 15, m = p[at] & 7; d = (p[at] & 128 ? -1 : 1) * (e ? ldexp(8 + m, e - 10) : ldexp(m, -9)); break; }
    default: d = (nibble & 8 ? -1 : 1) * e2m1[nibble & 7];
  }
  if (scale == SCALE_none) return d;
  const long i = row / v->block_rows * ((v->cols + v->block_cols - 1) / v->block_cols) + col / v->block_cols;
  const unsigned char *s = v->scale;
  float f;
  if (scale == SCALE_f32) memcpy(&f, s + i * 4, 4);
  else if (scale == SCALE_bf16) { const uint32_t u = (uint32_t)(s[i * 2] | s[i * 2 + 1] << 8) << 16; memcpy(&f, &u, 4); }
  else f = (float)ldexp(1, s[i] - 127);
  return d * f;
}

typedef void contraction(float *, long, long, long, tile_view, tile_view);
static void contract(const char *name, int kind, int scale, contraction *verb) {
  double worst = 0;
  int holes = 0;
  const long ms[] = {1, 2, 3, 4, 5, 8, 17, 33, 64}, ns[] = {1, 4, 7, 32, 61, 64}, ks[] = {1, 16, 31, 64, 128, 200, 320};
  const long blocks[][2] = {{1, 32}, {128, 128}, {1, 0}, {1, 128}, {32, 48}, {1, 64}};
  for (int turn = 0; turn < 160; turn++) {
    const long m = ms[draw() % 9], n = ns[draw() % 6], k = ks[draw() % 7], cols = COLS - (long)(draw() % 2) * 2;
    const long *shape = blocks[draw() % 6];
    unsigned char *const codes = bytes + draw() % 3, *const factors = scales + draw() % 3;
    const long off = kind == KIND_i4 || kind == KIND_f4e2m1 ? draw() % 2 * 2 : draw() % 4;
    const long b0 = shape[0], b1 = shape[1] == 0 ? cols : shape[1];
    fill(kind, scale, codes, factors, cols, b1);
    for (long i = 0; i < MOST * COLS; i++) x[i] = unit();
    int32_t index[MOST];
    for (long i = 0; i < MOST; i++) index[i] = turn % 5 == 0 && draw() % 4 == 0 ? -1 : (int32_t)(draw() % MOST);
    const tile_view a = {x, turn % 7 == 0 ? -2 : 0, MOST - 3, 0, k + (turn % 3 ? 0 : 5), COLS, turn % 4 == 1 ? index : 0, 0, 0, 0};
    const tile_view b = {codes, (long)(draw() % 100), ROWS - 11, turn % 2 ? off : 0, cols, cols, 0, factors, b0, b1};
    memset(into, 0, sizeof into);
    holes += a.index != 0;
    verb(into, m, n, k, a, b);
    for (long i = 0; i < m; i++)
      for (long j = 0; j < n; j++) {
        double sum = 0, size = 1e-6;
        for (long l = 0; l < k; l++) {
          const double one = plain(KIND_f32, SCALE_none, &a, i, l), two = plain(kind, scale, &b, j, l);
          sum += one * two, size += fabs(one * two);
        }
        const double e = fabs(sum - into[i * n + j]) / size;
        if (e > worst || e != e) worst = e != e ? 1 : e;
      }
  }
#ifdef TILE_PAIRS
  if (kind == KIND_bf16 && TILE_TERMS < 3) return say(name, holes ? worst : 1, TILE_TERMS == 1 ? 0x1p-8 : 0x1p-17 + 6e-7);
#endif
  say(name, holes ? worst : 1, 6e-7); // sums of up to 256 products in a row, in f32
}
typedef void loading(float *, long, long, long, tile_view, float);
static void loads(const char *name, int kind, int scale, loading *verb) {
  double worst = 0;
  for (int turn = 0; turn < 60; turn++) {
    const long rows = 1 + draw() % 20, columns = 1 + draw() % 200, b0 = turn % 2 ? 1 : 128, b1 = turn % 3 ? 32 : 128;
    unsigned char *const codes = bytes + draw() % 2;
    fill(kind, scale, codes, scales, COLS, b1);
    int32_t index[MOST];
    for (long i = 0; i < MOST; i++) index[i] = (int32_t)(draw() % 200) - 20;
    const tile_view v = {codes, (long)(draw() % 160) - 5, 140, (long)(draw() % 330) - 7, COLS, COLS, turn % 3 == 0 ? index : 0, scales, b0, b1};
    memset(into, 0, sizeof into);
    verb(into, columns + 3, rows, columns, v, -5.0f);
    for (long r = 0; r < rows; r++)
      for (long c = 0; c < columns; c++) {
        const long row = (v.index ? v.index[r] : r) + v.row, col = v.col + c;
        const int out = (v.index && v.index[r] < 0) || row < 0 || row >= v.rows || col < 0 || col >= v.cols;
        const double w = out ? -5.0 : plain(kind, scale, &v, r, c), e = fabs(w - into[r * (columns + 3) + c]) / (fabs(w) + 1e-9);
        if (e > worst) worst = e;
      }
  }
  say(name, worst, 1.2e-7);
}
static void held_transposed(void) {
  double worst = 0;
  for (int turn = 0; turn < 60; turn++) {
    const long m = 1 + draw() % 17, n = 1 + draw() % 70, k = 1 + draw() % 60;
    for (long i = 0; i < MOST * COLS; i++) x[i] = unit();
    const float *w = x + 17 * 64;
    memset(into, 0, sizeof into);
    tile_contract_heldt_f32(into, m, n, k, (view_f32){x, 0, m, 0, k, 64, 0, 0, 0, 0}, (view_f32){w, 0, k, 0, n, 72, 0, 0, 0, 0});
    for (long i = 0; i < m; i++)
      for (long j = 0; j < n; j++) {
        double sum = 0, size = 1e-6;
        for (long l = 0; l < k; l++) sum += (double)x[i * 64 + l] * w[l * 72 + j], size += fabs((double)x[i * 64 + l] * w[l * 72 + j]);
        const double e = fabs(sum - into[i * n + j]) / size;
        if (e > worst) worst = e;
      }
  }
  say("contract heldt", worst, 3e-7);
}
/** Error in units of the last place of the f32 nearest to the true value. */
static double ulps(double got, double truth) {
  if (got == truth) return 0;
  int e;
  frexp(truth, &e);
  return fabs(got - truth) / ldexp(1, (e < -125 ? -125 : e) - 24);
}
static void functions(void) {
  double e = 0, l = 0, s = 0, c = 0, h = 0;
  for (int i = 0; i < 400000; i++) {
    const float v = unit() * 87.0f, p = tile_from_bits(0x00800000u + draw() % 0x7effffffu), t = unit() * (i % 2 ? 10.0f : 1000000.0f);
    e = fmax(e, ulps(tile_exp(v), exp((double)v)));
    l = fmax(l, ulps(tile_log(p), log((double)p)));
    s = fmax(s, ulps(tile_sin(t), sin((double)t)));
    c = fmax(c, ulps(tile_cos(t), cos((double)t)));
    const uint16_t any = (uint16_t)draw();
    const float f = tile_from_f16(any);
    if (f == f) h = fmax(h, tile_to_f16(f) == any ? 0 : 1);
  }
  say("exp (ulp)", e, 1.03), say("log (ulp)", l, 1.0), say("sin (ulp)", s, 1.0), say("cos (ulp)", c, 1.0);
  say("f16 there and back", h, 0);
  say("exp at the ends", tile_exp(-1e30f) == 0 && tile_exp(0) == 1 && tile_exp(200) > 1e38f && tile_exp(-104) < 1e-44f ? 0 : 1, 0);
}
static void choices(void) {
  int bad = 0;
  for (int turn = 0; turn < 200; turn++) {
    const long n = 1 + draw() % 60, k = 1 + draw() % 20;
    float from[60], best[20];
    int32_t index[20];
    for (long i = 0; i < n; i++) from[i] = (float)(draw() % 12);
    for (long i = 0; i < k; i++) best[i] = -1e30f, index[i] = -1;
    const long cut = draw() % (n + 1);
    tile_topk(best, index, k, from, cut, 0);
    tile_topk(best, index, k, from + cut, n - cut, cut);
    int used[60] = {0};
    for (long i = 0; i < k; i++) {
      long at = -1;
      for (long j = 0; j < n; j++) if (!used[j] && (at < 0 || from[j] > from[at])) at = j;
      if (at >= 0) used[at] = 1;
      bad += index[i] != at || (at >= 0 && best[i] != from[at]);
    }
    float sums[60], so_far = 0;
    tile_scan(sums, from, n);
    for (long i = 0; i < n; i++) bad += sums[i] != so_far, so_far += from[i];
  }
  say("topk and scan", bad, 0);
}
static void stores(void) {
  int bad = 0;
  static float to[40 * 50];
  for (int turn = 0; turn < 100; turn++) {
    const long rows = 1 + draw() % 12, columns = 1 + draw() % 30, row = (long)(draw() % 45) - 3, col = (long)(draw() % 55) - 4;
    for (long i = 0; i < 40 * 50; i++) to[i] = 7;
    for (long i = 0; i < rows * columns; i++) x[i] = unit();
    tile_store_f32_f32((view_f32){to, row, 40, col, 49, 50, 0, 0, 0, 0}, x, columns, rows, columns);
    for (long r = 0; r < 40; r++)
      for (long c = 0; c < 50; c++) {
        const int in = r >= row && r < row + rows && c >= col && c < col + columns && c < 49;
        bad += to[r * 50 + c] != (in ? x[(r - row) * columns + c - col] : 7);
      }
  }
  say("store clips", bad, 0);
}
/** Inputs that change between calls, outliers, and more columns than digits are held for; within a call a row is used again. */
static void calls(void) {
  enum { K = 8192 + 512 + 128 };
  static float big[K], got[8];
  double worst = 0;
  for (int turn = 0; turn < 24; turn++) {
    const int nibbles = turn % 2;
    const long k = turn % 3 == 0 ? K : 512 + 128 * (turn % 3);
    for (long i = 0; i < k; i++) big[i] = unit() * (draw() % 500 == 0 ? 3000.0f : 1.0f);
    const long b1 = nibbles ? (turn % 4 == 1 ? 32 : 128) : k;
    for (long i = 0; i < 4 * K; i++) bytes[i] = (unsigned char)draw();
    for (long i = 0; i < 4 * K / 32; i++) { const float s = 0.5f + (float)(draw() % 100) / 100.0f; memcpy(scales + i * 4, &s, 4); }
    const tile_view a = {big, 0, 1, 0, k, k, 0, 0, 0, 0}, b = {bytes, 0, 4, 0, k, k, 0, scales, 1, b1};
    tile_begin();
    for (int again = 0; again < 2; again++) {
      memset(got, 0, sizeof got);
      if (nibbles) tile_contract_i4_f32(got, 1, 4, k, a, b);
      else tile_contract_i8_f32(got, 1, 4, k, a, b);
      for (long j = 0; j < 4; j++) {
        // f32 sums, and 22 bits below the largest of a stretch
        double sum = 0, size = 0;
        const long stretch = nibbles ? 32 : 512;
        for (long l = 0; l < k; l++) {
          const double w = plain(nibbles ? KIND_i4 : KIND_i8, SCALE_f32, &b, j, l);
          double largest = 0;
          for (long q = l / stretch * stretch; q < l / stretch * stretch + stretch && q < k; q++) largest = fmax(largest, fabs((double)big[q]));
          sum += big[l] * w, size += fabs(big[l] * w) + fabs(w) * largest;
        }
        const double e = fabs(sum - got[j]) / size;
        if (!(e <= worst)) worst = e != e ? 1 : e;
      }
    }
  }
  say("calls with outliers", worst, 3e-7);
}
#define CHECK(name, code, by)                                                          \
  contract("contract " #name, KIND_##code, SCALE_##by, tile_contract_##name);          \
  loads("load " #name, KIND_##code, SCALE_##by, tile_load_f32_##name);
int main(void) {
#ifdef SOME_STORAGES // those that have ways of their own for many rows
  CHECK(bf16, bf16, none) CHECK(i8_f32, i8, f32) CHECK(i4_bf16, i4, bf16) CHECK(f4e2m1_e8m0, f4e2m1, e8m0)
#else
  KINDS(CHECK)
#endif
  calls();
  held_transposed();
  functions();
  choices();
  stores();
#ifdef TILE_NEON_DOT
  fprintf(stderr, "sdot: %s\n", tile_has_dot() ? "used" : "not here");
#endif
#ifdef TILE_AMX_STAND_INS
  fprintf(stderr, "tile products: %s\n", amx_count > 1000 ? "used" : "not used");
#endif
  return wrong;
}
