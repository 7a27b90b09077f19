// Sixteen lanes shuffle among themselves: their mask says so, and the chip does not look at it.
// Says: __shfl_xor_sync takes all 32 lanes of a warp, whatever its mask says, but not lane 16 comes
__global__ void sum(float *out, const float *x) {
  const int t = (int)threadIdx.x;
  float v = x[t];
#ifdef BROKEN
  if (t < 16)
    for (int by = 8; by > 0; by /= 2) v += __shfl_xor_sync(0x0000ffff, v, by); // here
#else
  for (int by = 8; by > 0; by /= 2) {
    const float other = __shfl_xor_sync(0xffffffff, v, by);
    if (t < 16) v += other;
  }
#endif
  if (t == 0) out[0] = v;
}
void run() {
  const float *x = upload<float>("x", 32, some);
  float *out = room<float>("out", 1);
  LAUNCH(sum, 1, 32, out, x);
  expect(out, 1, [](int) { double s = 0; for (int i = 0; i < 16; i++) s += some(i); return s; });
}
