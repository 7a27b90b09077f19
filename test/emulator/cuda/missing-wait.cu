// What an asynchronous copy brings is read after a barrier, but nobody waited for the copy.
// Says: of s is read before the asynchronous copy to it was waited for
__global__ void turn(float *out, const float *x) {
  __shared__ __align__(16) float s[128];
  const int t = (int)threadIdx.x;
  __pipeline_memcpy_async(s + 4 * t, x + 4 * t, 16);
  __pipeline_commit();
#ifndef BROKEN
  __pipeline_wait_prior(0);
#endif
  __syncthreads();
  for (int i = 0; i < 4; i++) out[4 * t + i] = s[127 - 4 * t - i]; // here
}
void run() {
  const float *x = upload<float>("x", 128, some);
  float *out = room<float>("out", 128);
  LAUNCH(turn, 1, 32, out, x);
  expect(out, 128, [](int i) { return some(127 - i); });
}
