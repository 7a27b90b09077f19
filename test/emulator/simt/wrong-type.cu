// A count passed as size_t to a kernel that takes int: a launch that reads it by the parameter's type reads half of it.
// Says: a launch passes every argument as exactly the type of the kernel's parameter
// Compiles: not
__global__ void fill(float *out, int n) {
  if ((int)threadIdx.x < n) out[threadIdx.x] = 7.0f;
}
void run() {
  float *out = room<float>("out", 32);
  const size_t n = 32;
#ifdef BROKEN
  LAUNCH(fill, 1, 32, out, n); // here
#else
  LAUNCH(fill, 1, 32, out, (int)n);
#endif
  expect(out, 32, [](int) { return 7.0f; });
}
