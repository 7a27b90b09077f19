// Rows along y, of which there may be 65535.
// Says: count is launched with a grid of 1 x 65536 x 1 blocks
__global__ void count(int *out) {
  if (threadIdx.x == 0) atomicAdd(out, 1);
}
void run() {
  int *out = upload<int>("out", 1, [](int) { return 0; });
#ifdef BROKEN
  LAUNCH(count, dim3(1, 65536), 32, out); // here
#else
  LAUNCH(count, dim3(65536, 1), 32, out);
#endif
  expect(out, 1, [](int) { return 65536; });
}
