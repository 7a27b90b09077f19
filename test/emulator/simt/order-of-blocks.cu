// A running sum that takes the block before it for done.
// Says: of sums is read, which another block of this launch wrote: nothing orders blocks
// Says: of sums is written, which another block of this launch read: nothing orders blocks
// Says: of sums is read, and nobody wrote it
__global__ void sum(float *sums, const float *x) {
  float s = 0.0f;
  for (int i = 0; i < 8; i++) s += x[blockIdx.x * 8 + i];
#ifdef BROKEN
  if (blockIdx.x > 0) s += sums[blockIdx.x - 1]; // here
#endif
  if (threadIdx.x == 0) sums[blockIdx.x] = s; // here
}
__global__ void add(float *sums, int n) {
  if (threadIdx.x == 0)
    for (int i = 1; i < n; i++) sums[i] += sums[i - 1];
}
void run() {
  const float *x = upload<float>("x", 64, some);
  float *sums = room<float>("sums", 8);
  LAUNCH(sum, 8, 32, sums, x);
#ifndef BROKEN
  LAUNCH(add, 1, 32, sums, 8);
#endif
  expect(sums, 8, [](int b) { double s = 0; for (int i = 0; i < 8 * b + 8; i++) s += some(i); return s; });
}
