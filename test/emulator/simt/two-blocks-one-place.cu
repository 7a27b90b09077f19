// Blocks that add to one place with no atomic.
// Says: of total is written, which another block of this launch
// Says: of total is read, which another block of this launch wrote
__global__ void sum(float *total, const float *x) {
  float s = 0.0f;
  for (int i = 0; i < 8; i++) s += x[blockIdx.x * 8 + i];
  if (threadIdx.x > 0) return;
#ifdef BROKEN
  *total += s; // here
#else
  atomicAdd(total, s);
#endif
}
void run() {
  const float *x = upload<float>("x", 64, some);
  float *total = upload<float>("total", 1, [](int) { return 0; });
  LAUNCH(sum, 8, 32, total, x);
  expect(total, 1, [](int) { double s = 0; for (int i = 0; i < 64; i++) s += some(i); return s; });
}
