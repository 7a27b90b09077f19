// The host reads a result where it lies.
// Says: the host touches device memory, byte 0 of out: copy it first
__global__ void fill(float *out) { out[threadIdx.x] = 7.0f; }
void run() {
  float *out = room<float>("out", 32);
  LAUNCH(fill, 1, 32, out);
#ifdef BROKEN
  std::printf("%g\n", out[0]); // here
#endif
  expect(out, 32, [](int) { return 7.0f; });
}
