// The kernel that most sources of this folder break in one place: out = 2 x + 1, 64 elements a core, by way of two queues.
#pragma once
#define CORE(kernel, cores, ...) AscendC::run_cores(#kernel, kernel, cores, __VA_ARGS__)
using namespace AscendC;
inline GlobalTensor<float> global(const float *p, int n) {
  GlobalTensor<float> t;
  t.SetGlobalBuffer((float *)p, n);
  return t;
}
inline float doubled(int i) { return 2.0f * some(i) + 1.0f; }
