// The vendor's language and interface over an emulated device. Work waits until lu_wait.
#pragma once
// invented for a test: workers of a group, its and a grid's dimensions, near memory; masks of shuffles are ignored, nothing is asynchronous
#define EMULATED_LIMITS {512, {512, 1, 1}, {65535, 1, 1}, 40960, 40960, true}
#define EMULATED_MASKS_IGNORED
#define EMULATED_NO_ASYNC
#include "hkgai_emulated_device.h"
#define __entry__
#define __near__ __shared__
#define lu_meet() emulator::barrier()
inline long lu_group() { return emulator::block; }

inline emulated::line lu_queue;
inline uint64_t lu_bytes() { return 48ull << 30; }
inline int lu_open(int device) { return device != 0; }
inline void *lu_take(size_t bytes) { return emulator::device_alloc(bytes, nullptr, emulated::alignment); }
inline int lu_wait() {
  emulated::line now;
  now.swap(lu_queue);
  for (const auto &w : now) emulated::run(w);
  return 0;
}
inline int lu_give(void *at) { lu_wait(); return !emulator::device_free(at); }
inline int lu_send(void *to, const void *from, size_t n) { if (!emulator::on_device(to, n)) return 1; lu_queue.push_back(emulated::copy(true, to, from, n)); return 0; }
inline int lu_fetch(void *to, const void *from, size_t n) { if (!emulator::on_device(from, n)) return 1; lu_queue.push_back(emulated::copy(false, to, from, n)); return 0; }
inline int lu_fill(void *at, int value, size_t n) { if (!emulator::on_device(at, n)) return 1; lu_queue.push_back(emulated::set(at, value, n)); return 0; }
template <class... P, class... A> int lu_run(unsigned groups, unsigned workers, void (*kernel)(P...), A... args) {
  static_assert((std::is_same_v<P, A> && ...), "a launch passes every argument as exactly the type of the kernel's parameter");
  lu_queue.push_back(emulated::launch("a kernel", dim3(groups), dim3(workers), 0, [=] { kernel(args...); }));
  return 0;
}
