// Blocks of 48 threads: their second warp is not whole.
// Says: fill is launched with a block of 48 threads, which is not whole warps of 32
__global__ void fill(float *out) { out[blockIdx.x * blockDim.x + threadIdx.x] = 7.0f; }
void run() {
  float *out = room<float>("out", 192);
#ifdef BROKEN
  LAUNCH(fill, 4, 48, out); // here
#else
  LAUNCH(fill, 3, 64, out);
#endif
  expect(out, 192, [](int) { return 7.0f; });
}
