// What warps do together, under the emulator, against plain loops: products, shuffles, votes, asynchronous copies.
#include "products.cu"
#include "host.h"

template <class D, class T, class V> void check(const char *name, void (*kernel)(D *, const T *, const T *, const D *), int depth, V value, T (*code)(int)) {
  const T *x = upload<T>("x", 16 * depth, [=](int i) { return code(i); }), *y = upload<T>("y", 8 * depth, [=](int i) { return code(7 * i + 3); });
  const D *z = upload<D>("z", 128, [](int i) { return i % 13 - 6; });
  D *out = room<D>("out", 128);
  emulator::launch(name, kernel, dim3(1), dim3(32), 0, out, x, y, z);
  expect(out, 128, [=](int i) {
    double s = i % 13 - 6;
    for (int k = 0; k < depth; k++) s += (double)value(code(i / 8 * depth + k)) * value(code(7 * (i % 8 * depth + k) + 3));
    return s;
  });
}
__global__ void shuffles(int *out, int width) {
  const int t = (int)threadIdx.x, v = 100 + t;
  int *mine = out + t * 6;
  mine[0] = __shfl_sync(0xffffffff, v, 5, width);
  mine[1] = __shfl_up_sync(0xffffffff, v, 3, width);
  mine[2] = __shfl_down_sync(0xffffffff, v, 2, width);
  mine[3] = __shfl_xor_sync(0xffffffff, v, 6, width);
  mine[4] = (int)__ballot_sync(0xffffffff, t % 3 == 0);
  mine[5] = __any_sync(0xffffffff, t == 40) + 2 * __all_sync(0xffffffff, t < 64);
}
/** Lanes of a mask among themselves: the others go another way and shuffle there. */
__global__ void masks(long long *out) {
  const int t = (int)threadIdx.x % 32;
  const unsigned mask = t < 10 ? 0x000003ffu : 0xfffffc00u;
  long long v = (long long)t << 33;
  if (t < 10) v += __shfl_sync(mask, v, (t + 1) % 10);
  else v += __shfl_sync(mask, v, 10 + (t - 10 + 21) % 22);
  out[threadIdx.x] = v;
}
/** A pipeline of two stages whose last copies bring only a part: the rest is zero. */
__global__ void pipeline(float *out, const float *x, int n) {
  __shared__ __align__(16) float s[2][128];
  const int t = (int)threadIdx.x, steps = (n + 127) / 128;
  const auto fetch = [&](int i) {
    const int left = n - (i * 128 + 4 * t), bytes = left >= 4 ? 16 : left > 0 ? 4 * left : 0;
    __pipeline_memcpy_async(&s[i % 2][4 * t], x + (bytes ? i * 128 + 4 * t : 0), 16, (size_t)(16 - bytes));
    __pipeline_commit();
  };
  fetch(0);
  float sum = 0.0f;
  for (int i = 0; i < steps; i++) {
    if (i + 1 < steps) {
      fetch(i + 1);
      __pipeline_wait_prior(1);
    } else __pipeline_wait_prior(0);
    __syncthreads();
    for (int j = 0; j < 4; j++) sum += s[i % 2][32 * j + t];
    __syncthreads();
  }
  out[t] = sum;
}
/** What lanes of a warp leave each other in shared memory needs no barrier of the block, only of the warp. */
__global__ void in_warp(float *out) {
  __shared__ float s[64];
  const int t = (int)threadIdx.x;
  s[t] = (float)t;
  __syncwarp();
  out[t] = s[t ^ 1];
}
/** A tile's verbs, watched: what contract stages is a plain array. */
__global__ void contract(float *out, const float *x, const float *y) {
  __shared__ tile<float, 48> into;
  tile_contract<6, 8, 4, f32>(into, 10, [&](long m, long k) { return x[m * 10 + k]; }, [&](long n, long k) { return y[n * 10 + k]; });
  tile_each<6, 8>([&](long m, long n) { out[m * 8 + n] = into[m * 8 + n]; });
}
int main() {
  check<float, uint16_t>("product_bf16", product_bf16, 16, tile_from_bf16, [](int i) { return tile_to_bf16(some(i) / 8); });
  check<float, uint16_t>("product_f16", product_f16, 16, tile_from_f16, [](int i) { return tile_to_f16(some(i) / 8); });
  check<int32_t, int8_t>("product_s8", product_s8, 32, [](int8_t v) { return (int)v; }, [](int i) { return (int8_t)(i * 37 % 255 - 127); });
  check<float, uint8_t>("product_e4m3", product_e4m3, 32, tile_from_f8e4m3, [](int i) { return (uint8_t)(i * 53 % 256 & 0xbf); });
  for (int width : {32, 16, 8, 4}) {
    int *out = room<int>("out", 64 * 6);
    LAUNCH(shuffles, 1, 64, out, width);
    expect(out, 64 * 6, [=](int i) -> double {
      const int t = i / 6, lane = t % 32, warp = t - lane, first = lane / width * width, last = first + width - 1;
      unsigned votes = 0;
      for (int l = 0; l < 32; l++) votes |= (unsigned)((warp + l) % 3 == 0) << l;
      switch (i % 6) {
        case 0: return 100 + warp + first + 5 % width;
        case 1: return 100 + warp + (lane - 3 < first ? lane : lane - 3);
        case 2: return 100 + warp + (lane + 2 > last ? lane : lane + 2);
        case 3: return 100 + warp + ((lane ^ 6) > last ? lane : lane ^ 6);
        case 4: return (int)votes;
        default: return (warp == 32) + 2;
      }
    });
  }
  long long *sums = room<long long>("sums", 64);
  LAUNCH(masks, 1, 64, sums);
  expect(sums, 64, [](int i) {
    const int t = i % 32, other = t < 10 ? (t + 1) % 10 : 10 + (t - 10 + 21) % 22;
    return (double)(((long long)t << 33) + ((long long)other << 33));
  });
  for (int n : {512, 300, 129, 3}) {
    const float *x = upload<float>("x", n, some);
    float *out = room<float>("out", 32);
    LAUNCH(pipeline, 1, 32, out, x, n);
    expect(out, 32, [=](int t) {
      double s = 0;
      for (int i = t; i < n; i += 32) s += some(i);
      return s;
    });
  }
  float *turned = room<float>("turned", 64);
  LAUNCH(in_warp, 1, 64, turned);
  expect(turned, 64, [](int t) { return t ^ 1; });
  const float *x = upload<float>("x", 60, some), *y = upload<float>("y", 80, some);
  float *out = room<float>("out", 48);
  LAUNCH(contract, 1, 32, out, x, y);
  expect(out, 48, [](int i) {
    double s = 0;
    for (int k = 0; k < 10; k++) s += (double)some(i / 8 * 10 + k) * some(i % 8 * 10 + k);
    return s;
  });
  std::puts("done");
}
