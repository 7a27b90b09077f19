// Sixteen lanes shuffle among themselves, and read a lane that is not one of them.
// Says: a shuffle reads a lane that its mask does not name
__global__ void turn(float *out, const float *x) {
  const int t = (int)threadIdx.x;
  float v = x[t];
  if (t < 16)
#ifdef BROKEN
    v = __shfl_sync(0x0000ffff, v, t + 1); // here
#else
    v = __shfl_sync(0x0000ffff, v, (t + 1) % 16);
#endif
  out[t] = v;
}
void run() {
  const float *x = upload<float>("x", 32, some);
  float *out = room<float>("out", 32);
  LAUNCH(turn, 1, 32, out, x);
  expect(out, 32, [](int i) { return some(i < 16 ? (i + 1) % 16 : i); });
}
