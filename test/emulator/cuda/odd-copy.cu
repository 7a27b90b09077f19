// An asynchronous copy of 16 bytes from the second float of a row.
// Says: an asynchronous copy of 16 bytes from an address that is not a multiple of that
__global__ void copy(float *out, const float *x, int from) {
  __shared__ __align__(16) float s[128];
  const int t = (int)threadIdx.x;
  __pipeline_memcpy_async(s + 4 * t, x + from + 4 * t, 16); // here
  __pipeline_commit();
  __pipeline_wait_prior(0);
  for (int i = 0; i < 4; i++) out[4 * t + i] = s[4 * t + i];
}
void run() {
  const float *x = upload<float>("x", 140, some);
  float *out = room<float>("out", 128);
#ifdef BROKEN
  const int from = 1;
#else
  const int from = 4;
#endif
  LAUNCH(copy, 1, 32, out, x, from);
  expect(out, 128, [](int i) { return some(i + 4); });
}
