// A tile of which the last elements are never written.
// Says: of a tile is read before any thread of the block wrote it
__global__ void copy(float *out, const float *x) {
  __shared__ tile<float, 64> s;
  const int t = (int)threadIdx.x;
#ifdef BROKEN
  if (t < 60)
#endif
    s[t] = x[t];
  __syncthreads();
  out[t] = s[63 - t]; // here
}
void run() {
  const float *x = upload<float>("x", 64, some);
  float *out = room<float>("out", 64);
  LAUNCH(copy, 1, 64, out, x);
  expect(out, 64, [](int i) { return some(63 - i); });
}
