// A reduction in shared memory with no barrier between its steps.
// Says: of s is
__global__ void sum(float *out, const float *x) {
  __shared__ float s[64];
  const int t = (int)threadIdx.x;
  s[t] = x[blockIdx.x * 64 + t];
  __syncthreads();
  for (int by = 32; by > 0; by /= 2) {
    if (t < by) s[t] += s[t + by]; // here
#ifndef BROKEN
    __syncthreads();
#endif
  }
  if (t == 0) out[blockIdx.x] = s[0]; // here
}
void run() {
  const float *x = upload<float>("x", 256, some);
  float *out = room<float>("out", 4);
  LAUNCH(sum, 4, 64, out, x);
  expect(out, 4, [](int b) { double s = 0; for (int i = 0; i < 64; i++) s += some(b * 64 + i); return s; });
}
