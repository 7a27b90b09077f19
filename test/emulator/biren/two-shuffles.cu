// Both halves of a warp shuffle, in branches of their own: on a chip whose warps go in step that is two shuffles of half a warp.
// Says: __shfl_down_sync takes all 32 lanes of a warp, whatever its mask says, but not lane
__global__ void turn(float *out, const float *x) {
  const int t = (int)threadIdx.x;
  float v = x[t];
#ifdef BROKEN
  if (t < 16) v = __shfl_down_sync(0xffffffff, v, 1); // here
  else v = __shfl_down_sync(0xffffffff, v, 2); // here
#else
  const float one = __shfl_down_sync(0xffffffff, v, 1), two = __shfl_down_sync(0xffffffff, v, 2);
  v = t < 16 ? one : two;
#endif
  out[t] = v;
}
void run() {
  const float *x = upload<float>("x", 32, some);
  float *out = room<float>("out", 32);
  LAUNCH(turn, 1, 32, out, x);
  expect(out, 32, [](int i) { return some(i < 16 ? i + 1 : i + 2 < 32 ? i + 2 : i); });
}
