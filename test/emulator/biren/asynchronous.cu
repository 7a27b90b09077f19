// An asynchronous copy, which these chips do not have.
// Says: these chips have no asynchronous copies
// Compiles: not
__global__ void copy(float *out, const float *x) {
  __shared__ float s[32];
  const int t = (int)threadIdx.x;
#ifdef BROKEN
  __pipeline_memcpy_async(s + t, x + t, 4); // here
  __pipeline_commit();
  __pipeline_wait_prior(0);
#else
  s[t] = x[t];
#endif
  out[t] = s[t];
}
void run() {
  const float *x = upload<float>("x", 32, some);
  float *out = room<float>("out", 32);
  LAUNCH(copy, 1, 32, out, x);
  expect(out, 32, some);
}
