// The SUPA runtime of br1xx, as much of it as a program of ours uses, over an emulated device, in our own words. Names, orders of arguments and error
// numbers are those of Biren's runtime guide. What it may let pass ends the program here: arguments of other types, memory that is not held.
#pragma once
// SUPA programming documentation, computing properties of BR Arch 1.0; masks of warp primitives are reserved and ignored
#define EMULATED_LIMITS {1024, {1024, 1024, 32}, {1 << 27, 65536, 65536}, 32768, 32768, true}
#define EMULATED_MASKS_IGNORED
#define EMULATED_NO_ASYNC
#include "hkgai_emulated_device.h"
#include <dlfcn.h>

enum suError_t { suSuccess = 0, suErrorInvalidValue = 1, suErrorMemoryAllocation = 2, suErrorInvalidConfiguration = 9, suErrorNoDevice = 100 };
enum suMemcpyKind { suMemcpyHostToHost, suMemcpyHostToDevice, suMemcpyDeviceToHost, suMemcpyDeviceToDevice, suMemcpyDefault };
struct suStream { emulated::line waiting; };
typedef suStream *suStream_t;
struct suDeviceProp { char name[256]; int spcCount, multiProcessorCount, warpSize, maxThreadsPerBlock; size_t sharedMemPerBlock, totalGlobalMem; };

namespace emulated {
inline std::vector<suStream *> streams;
inline suError_t last = suSuccess;
inline bool chosen = false;
inline suError_t result(suError_t e) { if (e != suSuccess) last = e; return e; }
inline bool usable(suStream_t s) { for (suStream *t : streams) if (t == s) return true; return false; }
inline void finish(suStream_t s) { line now; now.swap(s->waiting); for (const work &w : now) run(w); }
inline void at_end() {
  if (emulator::device_bytes) fail("the program ends with %zu bytes of the device's memory that it did not give back", emulator::device_bytes);
  if (!streams.empty()) fail("the program ends with streams that it did not give back");
}
template <class T> void check_argument(const char *name, size_t i, T v) {
  static_assert(sizeof(T) == 8, "arguments of kernels here are addresses and whole numbers of 8 bytes");
  uint64_t bits;
  std::memcpy(&bits, &v, 8);
  const bool held = emulator::on_device((void *)bits, 1);
  if (kind_of<T>::value == 'p' && !held) fail("argument %zu of %s is %p, which is no live address of the device's memory", i, name, (void *)bits);
  if (kind_of<T>::value == 'n' && held) fail("argument %zu of %s is an address where a whole number is expected", i, name);
}
}

inline suError_t suGetDeviceCount(int *count) { *count = 1; return suSuccess; }
inline suError_t suSetDevice(int device) {
  if (device != 0) return emulated::result(suErrorInvalidValue);
  if (!emulated::chosen) std::atexit(emulated::at_end);
  emulated::chosen = true;
  emulator::device_limit = (size_t)8 << 30;
  return suSuccess;
}
inline suError_t suGetDeviceProperties(suDeviceProp *p, int device) {
  if (device != 0 || !p) return emulated::result(suErrorInvalidValue);
  *p = {"emulated device", 16, 64, 32, 1024, 32768, (size_t)8 << 30};
  return suSuccess;
}
inline suError_t suMallocDevice(void **p, size_t bytes) {
  if (!p || !bytes || !emulated::chosen) return emulated::result(suErrorInvalidValue);
  *p = emulator::device_alloc(bytes, nullptr, emulated::alignment);
  return *p ? suSuccess : emulated::result(suErrorMemoryAllocation);
}
inline suError_t suFree(void *p) {
  for (suStream *s : emulated::streams) emulated::finish(s);
  return emulator::device_free(p) ? suSuccess : emulated::result(suErrorInvalidValue);
}
inline suError_t suStreamCreate(suStream_t *s) {
  if (!emulated::chosen) return emulated::result(suErrorInvalidValue);
  emulated::streams.push_back(*s = new suStream());
  return suSuccess;
}
inline suError_t suStreamSynchronize(suStream_t s) {
  if (!emulated::usable(s)) return emulated::result(suErrorInvalidValue);
  emulated::finish(s);
  return suSuccess;
}
inline suError_t suStreamDestroy(suStream_t s) {
  if (suStreamSynchronize(s) != suSuccess) return suErrorInvalidValue;
  for (size_t i = 0; i < emulated::streams.size(); i++) if (emulated::streams[i] == s) emulated::streams.erase(emulated::streams.begin() + (long)i);
  delete s;
  return suSuccess;
}
/** The stream stands before the kind. */
inline suError_t suMemcpyAsync(void *to, const void *from, size_t bytes, suStream_t s = nullptr, suMemcpyKind kind = suMemcpyDefault) {
  if (!emulated::usable(s) || !bytes) return emulated::result(suErrorInvalidValue);
  if (kind == suMemcpyHostToDevice && emulator::on_device(to, bytes) && !emulator::region_at(from)) s->waiting.push_back(emulated::copy(true, to, from, bytes));
  else if (kind == suMemcpyDeviceToHost && emulator::on_device(from, bytes) && !emulator::region_at(to)) s->waiting.push_back(emulated::copy(false, to, from, bytes));
  else return emulated::result(suErrorInvalidValue);
  return suSuccess;
}
inline suError_t suMemsetAsync(void *at, int value, size_t bytes, suStream_t s) {
  if (!emulated::usable(s) || !bytes || !emulator::on_device(at, bytes)) return emulated::result(suErrorInvalidValue);
  s->waiting.push_back(emulated::set(at, value, bytes));
  return suSuccess;
}
inline suError_t suGetLastError() { const suError_t e = emulated::last; emulated::last = suSuccess; return e; }
inline const char *suGetErrorString(suError_t e) {
  switch (e) {
    case suSuccess: return "no error";
    case suErrorInvalidValue: return "an argument is not in the range that is accepted";
    case suErrorMemoryAllocation: return "memory could not be had";
    case suErrorInvalidConfiguration: return "the device cannot start a kernel so";
    default: return "there is no device";
  }
}
/** Every argument has the parameter's own type: the documented call takes the types from the call, and reads what was passed as that. */
template <class... P, class... A> void suLaunchKernel(void (*kernel)(P...), const dim3 &grid, const dim3 &block, unsigned shared, suStream_t s, A... args) {
  static_assert(sizeof...(P) == sizeof...(A), "a launch passes as many arguments as the kernel has parameters");
  if constexpr (sizeof...(P) == sizeof...(A)) {
    static_assert((std::is_same_v<P, A> && ...), "a launch passes every argument as exactly the type of the kernel's parameter");
    if (!emulated::usable(s)) { emulated::result(suErrorInvalidValue); return; }
    Dl_info about = {};
    const char *name = dladdr((void *)kernel, &about) && about.dli_sname ? about.dli_sname : "a kernel";
    size_t i = 0;
    (emulated::check_argument(name, i++, args), ...);
    s->waiting.push_back(emulated::launch(name, grid, block, shared, [=] { kernel(args...); }));
  }
}
