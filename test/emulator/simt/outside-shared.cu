// An index that is one too large for its array, in the last thread.
// Says: element 64 of an array 'float [64]' is touched
__global__ void turn(float *out, const float *x) {
  __shared__ float s[64];
  const int t = (int)threadIdx.x;
#ifdef BROKEN
  s[t + 1] = x[t]; // here
#else
  s[(t + 1) % 64] = x[t];
#endif
  __syncthreads();
  out[t] = s[t];
}
void run() {
  const float *x = upload<float>("x", 64, some);
  float *out = room<float>("out", 64);
  LAUNCH(turn, 1, 64, out, x);
  expect(out, 64, [](int i) { return some((i + 63) % 64); });
}
