// Each thread waited for its own copies, but reads what another one's brings.
// Says: of s is read
__global__ void turn(float *out, const float *x) {
  __shared__ __align__(16) float s[128];
  const int t = (int)threadIdx.x;
  __pipeline_memcpy_async(s + t, x + t, 4); // here
  __pipeline_commit();
  __pipeline_wait_prior(0); // here
#ifndef BROKEN
  __syncthreads();
#endif
  out[t] = s[127 - t]; // here
}
void run() {
  const float *x = upload<float>("x", 128, some);
  float *out = room<float>("out", 128);
  LAUNCH(turn, 1, 128, out, x);
  expect(out, 128, [](int i) { return some(127 - i); });
}
