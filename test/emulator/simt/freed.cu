// A kernel is given what was freed.
// Says: of x, which was freed
__global__ void copy(float *out, const float *x) { out[threadIdx.x] = x[threadIdx.x]; } // here
void run() {
  float *x = upload<float>("x", 32, some), *out = room<float>("out", 32);
#ifdef BROKEN
  emulator::device_free(x);
#endif
  LAUNCH(copy, 1, 32, out, (const float *)x);
  expect(out, 32, some);
}
