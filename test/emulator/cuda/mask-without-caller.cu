// A mask of a warp's first 31 lanes, given by all 32.
// Says: __shfl_xor_sync with mask 0x7fffffff, which does not name the calling lane 31
__global__ void swap(float *out, const float *x) {
#ifdef BROKEN
  const unsigned mask = 0x7fffffff;
#else
  const unsigned mask = 0xffffffff;
#endif
  out[threadIdx.x] = __shfl_xor_sync(mask, x[threadIdx.x], 1); // here
}
void run() {
  const float *x = upload<float>("x", 32, some);
  float *out = room<float>("out", 32);
  LAUNCH(swap, 1, 32, out, x);
  expect(out, 32, [](int i) { return some(i ^ 1); });
}
