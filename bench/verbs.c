// How fast the contractions of the CPU header are beside what this machine can do, measured in the same run: reading memory, and f32 multiply-adds.
// Times are processor time of the slowest thread, so that a shared machine gives the same figures.
//   verbs THREADS [roofs]        one line of JSON a measurement; with `roofs` the machine's own figures only
#define _GNU_SOURCE
#include "hkgai_tile.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { OUTPUTS = 65536, INPUTS = 2048, BLOCK = 32 };
static int threads;
static float *x, *y;
static unsigned char *codes, *factors;
/** Processor time of this thread: other programs on the machine do not count. */
static double spent(void) {
  struct timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}
typedef void work(long from, long to, const void *argument);
struct share { work *f; long from, to; const void *argument; double spent; };
static void *start(void *p) {
  struct share *s = p;
  const double t = spent();
  s->f(s->from, s->to, s->argument);
  s->spent = spent() - t;
  return NULL;
}
static double all(work *f, long count, const void *argument) {
  pthread_t ids[256];
  struct share shares[256];
  for (int i = 0; i < threads; i++) shares[i] = (struct share){f, count * i / threads, count * (i + 1) / threads, argument, 0};
  for (int i = 1; i < threads; i++) pthread_create(&ids[i], NULL, start, &shares[i]);
  start(&shares[0]);
  for (int i = 1; i < threads; i++) pthread_join(ids[i], NULL);
  double longest = 0;
  for (int i = 0; i < threads; i++) longest = shares[i].spent > longest ? shares[i].spent : longest;
  return longest;
}
/** Best of so many runs, seconds. */
static double best(int turns, work *f, long count, const void *argument) {
  double s = 1e30;
  for (int i = 0; i < turns; i++) {
    const double d = all(f, count, argument);
    if (d < s) s = d;
  }
  return s;
}
static volatile float sink;
static void read_lines(long from, long to, const void *argument) {
  const float *p = argument;
  vf s[8];
  for (int i = 0; i < 8; i++) s[i] = vf_all(0);
  for (long b = from; b < to; b++)
    for (long i = 0; i < 1024; i += 8 * VL)
      for (int j = 0; j < 8; j++) s[j] += vf_load(p + b * 1024 + i + j * VL);
  for (int i = 1; i < 8; i++) s[0] += s[i];
  sink = vf_sum(s[0]);
}
static void multiply(long from, long to, const void *argument) {
  const vf a = vf_all(*(const float *)argument), b = vf_all(((const float *)argument)[1]);
  vf s[12];
  for (int i = 0; i < 12; i++) s[i] = vf_all((float)i);
  for (long n = from; n < to; n++)
    for (int j = 0; j < 12; j++) s[j] = vf_fma(s[j], a, b);
  for (int i = 1; i < 12; i++) s[0] += s[i];
  sink = vf_sum(s[0]);
}
typedef void contraction(float *, long, long, long, tile_view, tile_view);
struct product { contraction *verb; long rows, b0, b1; int bits; long outputs; };
static void products(long from, long to, const void *argument) {
  const struct product *p = argument;
  const long tiles = p->outputs / BLOCK, m = tile_min(p->rows, 64);
  _Alignas(64) float into[64 * BLOCK];
  tile_begin();
  for (long t = from; t < to; t++) {
    memset(into, 0, sizeof into);
    const long i = t / tiles * m, j = t % tiles * BLOCK;
    p->verb(into, m, BLOCK, INPUTS, (tile_view){x, i, p->rows, 0, INPUTS, INPUTS, 0, 0, 0, 0}, (tile_view){codes, j, OUTPUTS, 0, INPUTS, INPUTS, 0, factors, p->b0, p->b1});
    for (long r = 0; r < m; r++) memcpy(y + (i + r) * OUTPUTS + j, into + r * BLOCK, BLOCK * sizeof *y);
  }
}
int main(int argc, char **argv) {
  threads = argc > 1 ? atoi(argv[1]) : 1;
  const size_t weights = (size_t)OUTPUTS * INPUTS;
  codes = aligned_alloc(64, weights * 4), factors = aligned_alloc(64, weights), x = aligned_alloc(64, 128 * INPUTS * 4), y = aligned_alloc(64, 128 * (size_t)OUTPUTS * 4);
  for (size_t i = 0; i < weights * 4; i++) codes[i] = (unsigned char)(i * 2654435761u >> 13 & 0x3f);
  for (size_t i = 0; i < weights / 4; i++) ((float *)factors)[i] = 0.01f;
  for (size_t i = 0; i < 128 * INPUTS; i++) x[i] = (float)(i % 17) * 0.1f - 0.8f;
  memset(y, 0, 128 * (size_t)OUTPUTS * 4);
  const double read = (double)weights * 4 / best(5, read_lines, (long)(weights / 1024), codes) * 1e-9;
  const float ab[2] = {0.999f, 0.001f};
  const double peak = 2.0 * 12 * VL * 2e7 / best(3, multiply, 20000000, ab) * 1e-9;
  printf("{\"threads\": %d, \"lanes\": %d, \"read_gb_s\": %.2f, \"fma_gflop_s\": %.1f}\n", threads, VL, read, peak);
  if (argc > 2) return 0;
  static const struct { const char *name; struct product p; } kinds[] = {
    {"f32", {tile_contract_f32, 1, 1, 1, 32, 0}}, {"bf16", {tile_contract_bf16, 1, 1, 1, 16, 0}}, {"i8 per row", {tile_contract_i8_f32, 1, 1, INPUTS, 8, 0}},
    {"f8e4m3 128x128", {tile_contract_f8e4m3_f32, 1, 128, 128, 8, 0}}, {"i4 groups of 32", {tile_contract_i4_f32, 1, 1, 32, 4, 0}}, {"i4 groups of 128", {tile_contract_i4_f32, 1, 1, 128, 4, 0}}, {"f4e2m1 groups of 32", {tile_contract_f4e2m1_e8m0, 1, 1, 32, 4, 0}},
  };
  for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
    if (kinds[k].p.verb == tile_contract_f4e2m1_e8m0) memset(factors, 120, weights); // 2^-7: other bytes would be slow subnormals
    for (int few = 0; few < 4; few++) {
      struct product p = kinds[k].p;
      const long rows[] = {1, 4, 16, 128};
      p.rows = rows[few];
      const long part = few < 2 ? OUTPUTS : few == 2 ? OUTPUTS / 4 : OUTPUTS / 16; // of the outputs, so that a run stays short
      p.outputs = part;
      const long blocks = part / BLOCK * tile_ceildiv(p.rows, 64);
      const double s = best(few ? 3 : 8, products, blocks, &p);
      const double scale = p.b1 < INPUTS && p.b1 > 1 ? (p.b0 > 1 ? 0 : (kinds[k].p.verb == tile_contract_f4e2m1_e8m0 ? 8.0 : 32.0) / (double)p.b1) : 0;
      const double gb = (double)part * INPUTS * (p.bits + scale) / 8 / s * 1e-9, flops = 2.0 * (double)part * INPUTS * (double)p.rows / s * 1e-9;
      printf("{\"storage\": \"%s\", \"rows\": %ld, \"weights_gb_s\": %.2f, \"of_read\": %.2f, \"gflop_s\": %.1f, \"of_fma\": %.2f}\n", kinds[k].name, p.rows, gb, gb / read, flops, flops / peak);
    }
  }
  return 0;
}
