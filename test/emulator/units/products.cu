// Products of a warp against plain loops: a lane loads each of its values by the formulas of the PTX ISA for a_i, b_i and c_i, one at a time.
#include "hkgai_mma.cuh"
template <class T> __device__ uint32_t packed(const T *values) {
  uint32_t u;
  memcpy(&u, values, 4);
  return u;
}
/** Rows of A and columns of B lie one after another; `per` values a register. PTX ISA 9.2, 9.7.14.5.8 (per 2) and 9.7.14.5.10 (per 4). */
template <class T, class D, class F> __device__ void product(D *out, const T *x, const T *y, const D *z, F multiply) {
  constexpr int per = 4 / (int)sizeof(T), depth = 8 * per;
  const int group = (int)threadIdx.x >> 2, in_group = (int)threadIdx.x % 4;
  T a[4 * per], b[2 * per];
  for (int i = 0; i < 4 * per; i++) {
    const int row = i / per % 2 == 0 ? group : group + 8;
    const int col = in_group * per + i % per + (i < 2 * per ? 0 : depth / 2);
    a[i] = x[row * depth + col];
  }
  for (int i = 0; i < 2 * per; i++) {
    const int row = in_group * per + i % per + (i < per ? 0 : depth / 2);
    b[i] = y[group * depth + row];
  }
  uint32_t ra[4], rb[2];
  for (int r = 0; r < 4; r++) ra[r] = packed(a + r * per);
  for (int r = 0; r < 2; r++) rb[r] = packed(b + r * per);
  D c[4], d[4];
  for (int i = 0; i < 4; i++) c[i] = z[(i < 2 ? group : group + 8) * 8 + in_group * 2 + (i & 1)];
  multiply(d, ra, rb, c);
  for (int i = 0; i < 4; i++) out[(i < 2 ? group : group + 8) * 8 + in_group * 2 + (i & 1)] = d[i];
}
__global__ void product_bf16(float *out, const uint16_t *x, const uint16_t *y, const float *z) {
  product(out, x, y, z, [](float *d, const uint32_t *a, const uint32_t *b, const float *c) { hkgai_mma_m16n8k16_bf16(d, a, b, c); });
}
__global__ void product_f16(float *out, const uint16_t *x, const uint16_t *y, const float *z) {
  product(out, x, y, z, [](float *d, const uint32_t *a, const uint32_t *b, const float *c) { hkgai_mma_m16n8k16_f16(d, a, b, c); });
}
__global__ void product_s8(int32_t *out, const int8_t *x, const int8_t *y, const int32_t *z) {
  product(out, x, y, z, [](int32_t *d, const uint32_t *a, const uint32_t *b, const int32_t *c) { hkgai_mma_m16n8k32_s8(d, a, b, c); });
}
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 890
__global__ void product_e4m3(float *out, const uint8_t *x, const uint8_t *y, const float *z) {
  product(out, x, y, z, [](float *d, const uint32_t *a, const uint32_t *b, const float *c) { hkgai_mma_m16n8k32_e4m3(d, a, b, c); });
}
#endif
