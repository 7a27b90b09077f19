// A sum over a warp of which half does not come.
// Says: lane 16 comes
__global__ void sum(float *out, const float *x) {
  float v = x[threadIdx.x];
#ifdef BROKEN
  if (threadIdx.x < 16)
#endif
    for (int by = 16; by > 0; by /= 2) v += __shfl_down_sync(0xffffffff, v, by); // here
  if (threadIdx.x == 0) out[0] = v;
}
void run() {
  const float *x = upload<float>("x", 32, some);
  float *out = room<float>("out", 1);
  LAUNCH(sum, 1, 32, out, x);
  double want = 0;
  for (int i = 0; i < 32; i++) want += some(i);
  expect(out, 1, [=](int) { return want; });
}
