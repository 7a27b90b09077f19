// A barrier inside a branch that 40 of 64 threads take.
// Says: 40 of 64 threads wait at __syncthreads() here, but not thread 40, which has ended
__global__ void reverse(float *out, const float *x) {
  __shared__ float s[64];
  const int t = (int)threadIdx.x;
  s[t] = x[t];
#ifdef BROKEN
  if (t < 40) __syncthreads(); // here
#else
  __syncthreads();
#endif
  out[t] = t < 40 ? s[39 - t] : s[t];
}
void run() {
  const float *x = upload<float>("x", 64, some);
  float *out = room<float>("out", 64);
  LAUNCH(reverse, 1, 64, out, x);
  expect(out, 64, [](int i) { return i < 40 ? some(39 - i) : some(i); });
}
