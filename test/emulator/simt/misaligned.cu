// Four floats at once, from an address that is no multiple of 16.
// Says: at an address that is not a multiple of 16
__global__ void copy(float *out, const float *x, int from) {
  const int t = (int)threadIdx.x;
  const float4 v = *(const float4 *)(x + from + 4 * t); // here
  out[4 * t] = v.x;
  out[4 * t + 1] = v.y;
  out[4 * t + 2] = v.z;
  out[4 * t + 3] = v.w;
}
void run() {
  const float *x = upload<float>("x", 140, some);
  float *out = room<float>("out", 128);
#ifdef BROKEN
  const int from = 3;
#else
  const int from = 4;
#endif
  LAUNCH(copy, 1, 32, out, x, from);
  expect(out, 128, [](int i) { return some(i + 4); });
}
