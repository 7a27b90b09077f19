// Both branches have a barrier, but it is not the same one.
// Says: threads wait at __syncthreads() here, but not thread
__global__ void halves(float *out, const float *x) {
  __shared__ float s[64];
  const int t = (int)threadIdx.x;
#ifdef BROKEN
  if (t < 32) {
    s[t] = x[t];
    __syncthreads(); // here
  } else {
    s[t] = 2.0f * x[t];
    __syncthreads(); // here
  }
#else
  s[t] = t < 32 ? x[t] : 2.0f * x[t];
  __syncthreads();
#endif
  out[t] = s[63 - t];
}
void run() {
  const float *x = upload<float>("x", 64, some);
  float *out = room<float>("out", 64);
  LAUNCH(halves, 1, 64, out, x);
  expect(out, 64, [](int i) { return i < 32 ? 2.0f * some(63 - i) : some(63 - i); });
}
