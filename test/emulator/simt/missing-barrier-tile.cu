// The same in a tile, as printed kernels have them: seen with no help of the compiler.
// Says: of a tile is
__global__ void turn(float *out, const float *x) {
  __shared__ tile<float, 64> s;
  const int t = (int)threadIdx.x;
  s[t] = x[t]; // here
#ifndef BROKEN
  __syncthreads();
#endif
  out[t] = s[(t + 1) % 64]; // here
}
void run() {
  const float *x = upload<float>("x", 64, some);
  float *out = room<float>("out", 64);
  LAUNCH(turn, 1, 64, out, x);
  expect(out, 64, [](int i) { return some((i + 1) % 64); });
}
