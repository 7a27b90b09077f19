// A copy ahead of the last step, which nobody needs and nobody waits for.
// Says: the thread ends with this asynchronous copy never waited for
__global__ void copy(float *out, const float *x) {
  __shared__ float s[64];
  const int t = (int)threadIdx.x;
  __pipeline_memcpy_async(s + t, x + t, 4);
  __pipeline_commit();
#ifdef BROKEN
  __pipeline_memcpy_async(s + 32 + t, x + 32 + t, 4); // here
  __pipeline_commit();
  __pipeline_wait_prior(1);
#else
  __pipeline_wait_prior(0);
#endif
  out[t] = s[t];
}
void run() {
  const float *x = upload<float>("x", 64, some);
  float *out = room<float>("out", 32);
  LAUNCH(copy, 1, 32, out, x);
  expect(out, 32, some);
}
