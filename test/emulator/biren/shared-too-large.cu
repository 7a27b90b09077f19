// 40,000 bytes in a block, where there are 32,768.
// Says: bytes of shared memory, with b, and the chip has 32768
__global__ void copy(float *out, const float *x) {
#ifdef BROKEN
  __shared__ float a[5000], b[5000];
#else
  __shared__ float a[5000], b[3000];
#endif
  const int t = (int)threadIdx.x;
  a[t] = x[t];
  b[t] = 2.0f * x[t]; // here
  __syncthreads();
  out[t] = a[t] + b[t];
}
void run() {
  const float *x = upload<float>("x", 32, some);
  float *out = room<float>("out", 32);
  LAUNCH(copy, 1, 32, out, x);
  expect(out, 32, [](int i) { return 3.0f * some(i); });
}
