// Blocks that cover 192 of 200 elements.
// Says: byte 768 of out was never written
__global__ void scale(float *out, const float *x, int n) {
  const int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < n) out[i] = 3.0f * x[i];
}
void run() {
  const int n = 200;
  const float *x = upload<float>("x", n, some);
  float *out = room<float>("out", n);
#ifdef BROKEN
  const int blocks = n / 64;
#else
  const int blocks = (n + 63) / 64;
#endif
  LAUNCH(scale, blocks, 64, out, x, n);
  expect(out, n, [](int i) { return 3.0f * some(i); }); // here
}
