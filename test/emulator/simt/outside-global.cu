// The neighbour of the last element.
// Says: reads 0 bytes after the end of x of 400 bytes
__global__ void steps(float *out, const float *x, int n) {
  const int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);
#ifdef BROKEN
  if (i < n) out[i] = x[i + 1] - x[i]; // here
#else
  if (i < n) out[i] = i + 1 < n ? x[i + 1] - x[i] : 0.0f;
#endif
}
void run() {
  const int n = 100;
  const float *x = upload<float>("x", n, some);
  float *out = room<float>("out", n);
  LAUNCH(steps, 2, 64, out, x, n);
  expect(out, n, [](int i) { return i < 99 ? some(i + 1) - some(i) : 0.0f; });
}
