// 2048 threads in a block.
// Says: fill is launched with a block of 2048 x 1 x 1 threads
__global__ void fill(float *out) { out[blockIdx.x * blockDim.x + threadIdx.x] = 7.0f; }
void run() {
  float *out = room<float>("out", 2048);
#ifdef BROKEN
  LAUNCH(fill, 1, 2048, out); // here
#else
  LAUNCH(fill, 2, 1024, out);
#endif
  expect(out, 2048, [](int) { return 7.0f; });
}
