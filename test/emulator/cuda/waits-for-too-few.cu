// Two stages under way; the last one is read where the wait still lets one be under way.
// Says: of s is read before the asynchronous copy to it was waited for
__global__ void sums(float *out, const float *x, int steps) {
  __shared__ __align__(16) float s[2][32];
  const int t = (int)threadIdx.x;
  float sum = 0.0f;
  __pipeline_memcpy_async(&s[0][t], x + t, 4);
  __pipeline_commit();
  for (int i = 0; i < steps; i++) {
    if (i + 1 < steps) {
      __pipeline_memcpy_async(&s[(i + 1) % 2][t], x + 32 * (i + 1) + t, 4);
      __pipeline_commit();
    }
#ifdef BROKEN
    __pipeline_wait_prior(1);
#else
    if (i + 1 < steps) __pipeline_wait_prior(1);
    else __pipeline_wait_prior(0);
#endif
    __syncthreads();
    sum += s[i % 2][31 - t]; // here
    __syncthreads();
  }
  out[t] = sum;
}
void run() {
  const float *x = upload<float>("x", 128, some);
  float *out = room<float>("out", 32);
  LAUNCH(sums, 1, 32, out, x, 4);
  expect(out, 32, [](int t) { double s = 0; for (int i = 0; i < 4; i++) s += some(32 * i + 31 - t); return s; });
}
