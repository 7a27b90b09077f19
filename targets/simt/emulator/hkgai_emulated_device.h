// Streams, kernels by name and launches on an emulated device: what vendors' interfaces (hkgai_emulated_cuda.cpp, supa.h) have in common.
//
// What is put on a stream happens when the stream is waited for, and a copy reads the host's memory then; until then what is to be copied to the host
// is poison there. A kernel is known by its C++ function, so that number and kinds of its arguments are its own. Memory is the emulator's
// (emulator/hkgai_report.h): closed to the host, poisoned, between pages that nobody has.
#pragma once
#include "hkgai_emulator.h"
#include <string>

namespace emulated {
using emulator::fail;
/** Where allocations begin: what both vendors' documentation promises at least. */
constexpr size_t alignment = 256;

// ---- kernels

template <class T> struct kind_of { static constexpr char value = sizeof(T) == 8 ? 'n' : '?'; };
template <class T> struct kind_of<T *> { static constexpr char value = 'p'; };
/** Whether a kernel takes these arguments: p an address, n a whole number of 8 bytes. */
template <class... A> constexpr bool kinds_are(void (*)(A...), const char *said) {
  constexpr char kinds[] = {kind_of<A>::value..., 0};
  for (size_t i = 0; i <= sizeof...(A); i++) if (kinds[i] != said[i]) return false;
  return true;
}
struct kernel {
  const char *name;
  std::string kinds;
  std::function<void(const uint64_t *)> call;
};
template <class F, class... A, size_t... I> kernel make(const char *name, F f, void (*)(A...), std::index_sequence<I...>) {
  return {name, {kind_of<A>::value...}, [f](const uint64_t *a) { f((A)a[I]...); (void)a; }};
}
template <class... A> kernel known(const char *name, void (*f)(A...)) { return make(name, f, f, std::index_sequence_for<A...>()); }

// ---- what a stream is given

struct work {
  enum { copy_in, copy_out, fill, start } what;
  void *to;
  const void *from;
  size_t bytes;
  int value;
  const char *name;
  dim3 grid, block;
  size_t shared;
  std::function<void()> call;
};
using line = std::vector<work>;

inline work copy(bool in, void *to, const void *from, size_t bytes) {
  if (!in) emulator::poison(to, bytes); // to the host: not there yet
  return {in ? work::copy_in : work::copy_out, to, from, bytes, 0, nullptr, {}, {}, 0, {}};
}
inline work set(void *to, int value, size_t bytes) { return {work::fill, to, nullptr, bytes, value, nullptr, {}, {}, 0, {}}; }
inline void run(const work &w) {
  switch (w.what) {
    case work::copy_in: emulator::device_copy(w.to, w.from, w.bytes, true, false); return;
    case work::copy_out: emulator::device_copy(w.to, w.from, w.bytes, false, true); return;
    case work::fill: {
      const std::vector<char> same(w.bytes, (char)w.value);
      emulator::device_copy(w.to, same.data(), w.bytes, true, false);
      return;
    }
    case work::start: emulator::run_blocks(w.name, w.grid, w.block, w.shared, [](void *with) { ((const work *)with)->call(); }, (void *)&w); return;
  }
}
inline work launch(const char *name, dim3 grid, dim3 block, size_t shared, std::function<void()> call) {
  return {work::start, nullptr, nullptr, 0, 0, name, grid, block, shared, std::move(call)};
}
/** A launch whose arguments are what the kernel's kinds say; ends the program where they are not. */
inline work launch(const kernel &k, dim3 grid, dim3 block, size_t shared, std::vector<uint64_t> arguments) {
  for (size_t i = 0; i < arguments.size(); i++) {
    const bool held = emulator::on_device((void *)arguments[i], 1);
    if (k.kinds[i] == 'p' && !held) fail("argument %zu of %s is %p, which is no live address of the device's memory", i, k.name, (void *)arguments[i]);
    if (k.kinds[i] == 'n' && held) fail("argument %zu of %s is an address where a whole number is expected", i, k.name);
  }
  return launch(k.name, grid, block, shared, [&k, all = std::move(arguments)] { k.call(all.data()); });
}
}
