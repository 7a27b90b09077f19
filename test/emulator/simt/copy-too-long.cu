// A copy back that takes more than there is.
// Says: a copy of 132 bytes reads 0 bytes after the end of out of 128 bytes
__global__ void fill(float *out) { out[threadIdx.x] = 7.0f; }
void run() {
  float *out = room<float>("out", 32), host[33];
  LAUNCH(fill, 1, 32, out);
#ifdef BROKEN
  emulator::device_copy(host, out, 33 * sizeof(float), false, true); // here
#else
  emulator::device_copy(host, out, 32 * sizeof(float), false, true);
#endif
  expect(out, 32, [](int) { return 7.0f; });
}
