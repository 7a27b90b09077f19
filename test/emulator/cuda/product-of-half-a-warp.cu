// A product of a warp that half of the warp does.
// Says: hkgai_mma_m16n8k16_bf16 waits for the lanes of mask 0xffffffff, but not lane 16 comes, which has ended
__global__ void product(float *out) {
  const uint32_t ones = 0x3f803f80, a[4] = {ones, ones, ones, ones}, b[2] = {ones, ones};
  const float c[4] = {1.0f, 1.0f, 1.0f, 1.0f};
  float d[4];
#ifdef BROKEN
  if (threadIdx.x >= 16) return;
#endif
  hkgai_mma_m16n8k16_bf16(d, a, b, c); // here
  for (int i = 0; i < 4; i++) out[4 * threadIdx.x + i] = d[i];
}
void run() {
  float *out = room<float>("out", 128);
  LAUNCH(product, 1, 32, out);
  expect(out, 128, [](int) { return 17.0f; });
}
