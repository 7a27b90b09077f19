// A kernel is given memory of the host.
// Says: which is the host's memory or nobody's
__global__ void copy(float *out, const float *x) { out[threadIdx.x] = x[threadIdx.x]; } // here
void run() {
  std::vector<float> host(32, 2.0f);
  float *out = room<float>("out", 32);
#ifdef BROKEN
  const float *x = host.data();
#else
  const float *x = upload<float>("x", 32, [&](int i) { return host[i]; });
#endif
  LAUNCH(copy, 1, 32, out, x);
  expect(out, 32, [](int) { return 2.0f; });
}
