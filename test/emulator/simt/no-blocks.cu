// A grid of nothing, where there are no rows.
// Says: fill is launched with a grid of 0 x 1 x 1 blocks
__global__ void fill(float *out) { out[blockIdx.x * blockDim.x + threadIdx.x] = 7.0f; }
void run() {
  float *out = room<float>("out", 64);
  const unsigned rows = 0;
#ifdef BROKEN
  LAUNCH(fill, rows, 32, out); // here
#else
  if (rows) LAUNCH(fill, rows, 32, out);
#endif
  LAUNCH(fill, 2, 32, out);
  expect(out, 64, [](int) { return 7.0f; });
}
