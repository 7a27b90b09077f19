// The tile instructions of AMX that the CPU header uses, in plain C, so that its AMX path runs where there is none: eight tiles of at most 16 rows of 64
// bytes, as the programming reference says them. A shape that was not configured, or a tile used before it was, ends the program.
#pragma once
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#define TILE_AMX_STAND_INS 1

static struct amx_tile { uint8_t bytes[16][64]; int rows, columns; } amx_tiles[8];
static long amx_count __attribute__((unused));
static inline int tile_amx_lent(void) { return 1; }
/** The 64 bytes of a configuration: palette, start row, then from byte 16 columns in bytes (u16), from byte 48 rows. */
static inline void amx_configure(const void *p) {
  const uint8_t *c = p;
  if (c[0] != 1 || c[1] != 0) abort();
  for (int i = 2; i < 16; i++) if (c[i]) abort();
  for (int t = 0; t < 8; t++) {
    amx_tiles[t].columns = c[16 + 2 * t] | c[17 + 2 * t] << 8, amx_tiles[t].rows = c[48 + t];
    if (amx_tiles[t].columns > 64 || amx_tiles[t].rows > 16) abort();
  }
}
static inline struct amx_tile *amx_tile(int t) { return amx_tiles[t].rows ? &amx_tiles[t] : (abort(), (struct amx_tile *)0); }
static inline void amx_zero(int t) { memset(amx_tile(t)->bytes, 0, sizeof amx_tiles[t].bytes); }
static inline void amx_load(int t, const void *p, long stride) {
  struct amx_tile *to = amx_tile(t);
  amx_zero(t);
  for (int r = 0; r < to->rows; r++) memcpy(to->bytes[r], (const char *)p + r * stride, (size_t)to->columns);
}
static inline void amx_store(int t, void *p, long stride) {
  const struct amx_tile *from = amx_tile(t);
  for (int r = 0; r < from->rows; r++) memcpy((char *)p + r * stride, from->bytes[r], (size_t)from->columns);
}
/** c[m][n] += sum over k and i of 4 of a[m][4 k + i] (unsigned) * b[k][4 n + i] (signed), in 32 bits. */
static inline void amx_bytes(int c, int a, int b) {
  struct amx_tile *s = amx_tile(c);
  const struct amx_tile *x = amx_tile(a), *y = amx_tile(b);
  if (x->columns / 4 != y->rows || s->rows != x->rows || s->columns != y->columns) abort();
  for (int m = 0; m < s->rows; m++)
    for (int n = 0; n < s->columns / 4; n++) {
      int32_t sum;
      memcpy(&sum, s->bytes[m] + 4 * n, 4);
      for (int k = 0; k < y->rows; k++)
        for (int i = 0; i < 4; i++) sum += x->bytes[m][4 * k + i] * (int8_t)y->bytes[k][4 * n + i];
      memcpy(s->bytes[m] + 4 * n, &sum, 4);
    }
  amx_count++;
}
static inline float amx_bf16(const uint8_t *p) {
  const uint32_t u = (uint32_t)(p[0] | p[1] << 8) << 16;
  float f;
  memcpy(&f, &u, 4);
  return f;
}
/** c[m][n] += sum over k and i of 2 of a[m][2 k + i] * b[k][2 n + i], bf16 into f32. */
static inline void amx_pairs(int c, int a, int b) {
  struct amx_tile *s = amx_tile(c);
  const struct amx_tile *x = amx_tile(a), *y = amx_tile(b);
  if (x->columns / 4 != y->rows || s->rows != x->rows || s->columns != y->columns) abort();
  for (int m = 0; m < s->rows; m++)
    for (int n = 0; n < s->columns / 4; n++) {
      float sum;
      memcpy(&sum, s->bytes[m] + 4 * n, 4);
      for (int k = 0; k < y->rows; k++)
        for (int i = 0; i < 2; i++) sum += amx_bf16(x->bytes[m] + 4 * k + 2 * i) * amx_bf16(y->bytes[k] + 4 * n + 2 * i);
      memcpy(s->bytes[m] + 4 * n, &sum, 4);
    }
  amx_count++;
}
#define TILE_AMX_CONFIGURE(p) amx_configure(p)
#define TILE_AMX_ZERO(t) amx_zero(t)
#define TILE_AMX_LOAD(t, p, stride) amx_load(t, p, stride)
#define TILE_AMX_STORE(t, p, stride) amx_store(t, p, stride)
#define TILE_AMX_BYTES(sum, codes, digits) amx_bytes(sum, codes, digits)
#define TILE_AMX_PAIRS(sum, weights, rows) amx_pairs(sum, weights, rows)
