// What the sources of this folder share: arrays on the emulated device, and results held against plain loops.
#pragma once
#include <cstdio>
#include <cstdlib>
#include <vector>

/** An array of n on the device, element i as f(i). */
template <class T, class F> T *upload(const char *name, int n, F f) {
  T *p = (T *)emulator::device_alloc(n * sizeof(T), name);
  std::vector<T> host(n);
  for (int i = 0; i < n; i++) host[i] = (T)f(i);
  emulator::device_copy(p, host.data(), n * sizeof(T), true, false);
  return p;
}
template <class T> T *room(const char *name, int n) { return (T *)emulator::device_alloc(n * sizeof(T), name); }
template <class T, class F> void compare(T *p, int n, F f) {
  std::vector<T> host(n);
  emulator::device_copy(host.data(), p, n * sizeof(T), false, true);
  for (int i = 0; i < n; i++) {
    const double want = f(i), got = host[i];
    if (!(got - want < 1e-4 && want - got < 1e-4)) { std::printf("element %d is %g, not %g\n", i, got, want); std::exit(3); }
  }
}
/** Every element of an array on the device must be written, and near what a function of its number gives. */
#define expect(p, n, ...) (emulator::expect_written(p, (n) * sizeof *(p)), compare(p, n, __VA_ARGS__))
inline float some(int i) { return (float)(i * 37 % 101) - 50.0f; }
#define LAUNCH(kernel, grid, block, ...) emulator::launch(#kernel, kernel, dim3(grid), dim3(block), 0, __VA_ARGS__)
