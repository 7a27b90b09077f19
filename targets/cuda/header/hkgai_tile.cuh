// CUDA's side of the verbs: the words, then the shared ones. Under a plain C++ compiler the emulator stands in for the chip.
#pragma once
#ifdef __CUDACC__
#include <cstdint>
#include <cstring>
#include <cmath>
#define DEVICE __device__
#define SHARED __shared__
#define THREAD ((long)threadIdx.x)
#define THREADS ((long)blockDim.x)
#define BARRIER __syncthreads()
template <class T, int N> struct tile {
  T v[N];
  __device__ T &operator[](long i) { return v[i]; }
  __device__ const T *data(long from) { return v + from; }
};
#else
#include "hkgai_emulator.h"
struct emulated_index { long x_; operator long() const { return emulator::block; } };
static const struct { emulated_index x; } blockIdx = {};
#define __global__
#define __shared__ static
#define __syncthreads() emulator::barrier()
#endif
#include "hkgai_simt.h"
