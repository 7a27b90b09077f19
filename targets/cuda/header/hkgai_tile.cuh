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
// CUDA C++ Programming Guide, technical specifications per compute capability: what every device since 3.0 has
#define EMULATED_LIMITS {1024, {1024, 1024, 64}, {2147483647, 65535, 65535}, 49152, 49152, true}
#include "hkgai_emulator.h"
#endif
#include "hkgai_simt.h"
