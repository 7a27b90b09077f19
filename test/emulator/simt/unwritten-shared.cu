// A border of a shared array that nobody fills.
// Says: of s is read, and nobody wrote it
__global__ void smooth(float *out, const float *x) {
  __shared__ float s[66];
  const int t = (int)threadIdx.x;
  s[t + 1] = x[t];
#ifndef BROKEN
  if (t == 0) s[0] = s[65] = 0.0f;
#endif
  __syncthreads();
  out[t] = s[t] + s[t + 1] + s[t + 2]; // here
}
void run() {
  const float *x = upload<float>("x", 64, some);
  float *out = room<float>("out", 64);
  LAUNCH(smooth, 1, 64, out, x);
  expect(out, 64, [](int i) { return (i ? some(i - 1) : 0) + some(i) + (i < 63 ? some(i + 1) : 0); });
}
