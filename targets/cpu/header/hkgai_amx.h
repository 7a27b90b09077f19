// Panels of many rows by tiles of AMX (Intel: "Intel Architecture Instruction Set Extensions Programming Reference", chapter on AMX): 16 outputs times
// 64 bytes of columns times 16 rows in one instruction. Weights are read as they lie in the first cache, activations as hkgai_bytes.h and hkgai_pairs.h
// pack them, so errors are those said there. Used where the compiler builds for AMX, the processor has it and the system lends its registers
// (arch_prctl ARCH_REQ_XCOMP_PERM); otherwise the same panels are met by AVX-512. HKGAI_NO_AMX leaves it out.
//
// It was built, and run with the instructions in plain C (test/cpu-header/amx.h); no machine with AMX ran it.
#pragma once
#if TILE_DIGITS && defined(__AVX512BF16__) && !defined(HKGAI_NO_AMX) && (defined(TILE_AMX_STAND_INS) || (defined(__AMX_TILE__) && defined(__AMX_INT8__) && defined(__AMX_BF16__)))
#define TILE_AMX 1
#ifndef TILE_AMX_STAND_INS
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#define TILE_AMX_CONFIGURE(p) _tile_loadconfig(p)
#define TILE_AMX_ZERO(t) _tile_zero(t)
#define TILE_AMX_LOAD(t, p, stride) _tile_loadd(t, p, stride)
#define TILE_AMX_STORE(t, p, stride) _tile_stored(t, p, stride)
#define TILE_AMX_BYTES(sum, codes, digits) _tile_dpbusd(sum, codes, digits)
#define TILE_AMX_PAIRS(sum, weights, rows) _tile_dpbf16ps(sum, weights, rows)
/** CPUID leaf 7: EDX bits 22 (AMX-BF16), 24 (AMX-TILE), 25 (AMX-INT8); then the system's leave for component 18, TILEDATA (linux asm/prctl.h). */
static __attribute__((unused)) int tile_amx_lent(void) {
  unsigned a, b, c, d = 0;
  const unsigned need = 1u << 22 | 1u << 24 | 1u << 25;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & need) == need && syscall(SYS_arch_prctl, 0x1023, 18) == 0;
}
#endif

/** May tiles be used? Asked once; every thread says the shape of its tiles once: 16 rows of 64 bytes each. */
static __attribute__((noinline, unused)) int tile_has_amx(void) {
  static int known; // 0 is not asked yet
  static _Thread_local int ready;
  if (ready) return 1;
  int k = __atomic_load_n(&known, __ATOMIC_RELAXED);
  if (k == 0) {
    k = tile_amx_lent() ? 2 : 1;
    __atomic_store_n(&known, k, __ATOMIC_RELAXED);
  }
  if (k == 1) return 0;
  struct { uint8_t palette, start_row, none[14]; uint16_t bytes[16]; uint8_t rows[16]; } shape = {.palette = 1};
  for (int i = 0; i < 8; i++) shape.bytes[i] = 64, shape.rows[i] = 16;
  TILE_AMX_CONFIGURE(&shape);
  return ready = 1;
}

/** sums[n * pitch + row] += 16 outputs times a group of columns (a multiple of 64) in digits; start is added to each digit's sum. */
static __attribute__((noinline, unused)) void tile_amx_byte_group(float *sums, long pitch, const uint8_t *w, const int8_t *digits, const __m512i start[3], __m512 unit, const float *by, long by_pitch,
                                                                   long columns) {
  _Alignas(64) int32_t out[3][16 * TILE_PANEL];
  TILE_AMX_ZERO(0);
  TILE_AMX_ZERO(1);
  TILE_AMX_ZERO(2);
  for (long c = 0; c < columns; c += 64, digits += 16 * 192) {
    TILE_AMX_LOAD(3, w + c, TILE_PANEL_PITCH);
    TILE_AMX_LOAD(4, digits, 192);
    TILE_AMX_LOAD(5, digits + 64, 192);
    TILE_AMX_LOAD(6, digits + 128, 192);
    TILE_AMX_BYTES(0, 3, 4);
    TILE_AMX_BYTES(1, 3, 5);
    TILE_AMX_BYTES(2, 3, 6);
  }
  TILE_AMX_STORE(0, out[0], 64);
  TILE_AMX_STORE(1, out[1], 64);
  TILE_AMX_STORE(2, out[2], 64);
  const __m512 base = _mm512_set1_ps(256);
  for (int n = 0; n < 16; n++) {
    __m512 all = _mm512_setzero_ps();
    for (int d = 0; d < 3; d++) all = _mm512_fmadd_ps(all, base, _mm512_cvtepi32_ps(_mm512_add_epi32(_mm512_load_si512(out[d] + n * TILE_PANEL), start[d])));
    float *to = sums + n * pitch;
    _mm512_store_ps(to, _mm512_fmadd_ps(all, _mm512_mul_ps(unit, _mm512_set1_ps(by[n * by_pitch])), _mm512_load_ps(to)));
  }
}
#endif
