// Products of a warp in PTX, by the names that the emulator has for them (simt/emulator/hkgai_async.h). Fragments: PTX ISA 9.2, 9.7.14.5.8 and .10.
// 16-bit floats and bytes from sm_80 on, e4m3 from sm_89 on. A is by rows, B by columns; d may be c.
#pragma once
#include "hkgai_tile.cuh"
#ifdef __CUDACC__
#define HKGAI_MMA(name, shape, types, D, letter)                                                                                    \
  __device__ __forceinline__ void name(D *d, const uint32_t *a, const uint32_t *b, const D *c) {                                    \
    asm volatile("mma.sync.aligned." shape ".row.col." types " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%10, %11, %12, %13};" \
                 : "=" letter(d[0]), "=" letter(d[1]), "=" letter(d[2]), "=" letter(d[3])                                           \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), letter(c[0]), letter(c[1]), letter(c[2]), letter(c[3])); \
  }
HKGAI_MMA(hkgai_mma_m16n8k16_bf16, "m16n8k16", "f32.bf16.bf16.f32", float, "f")
HKGAI_MMA(hkgai_mma_m16n8k16_f16, "m16n8k16", "f32.f16.f16.f32", float, "f")
HKGAI_MMA(hkgai_mma_m16n8k32_s8, "m16n8k32", "s32.s8.s8.s32", int32_t, "r")
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 890
HKGAI_MMA(hkgai_mma_m16n8k32_e4m3, "m16n8k32", "f32.e4m3.e4m3.f32", float, "f")
#endif
#undef HKGAI_MMA
#endif
