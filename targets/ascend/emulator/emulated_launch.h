// ACLRT_LAUNCH_KERNEL without the vendor's tools: a kernel's own function, with its own argument types, queued on the emulated device. launches.cpp
// includes the kernels after this header, so that one compiler sees them all.
#pragma once
#include "acl_emulator.h"
#include "kernel_operator.h"
#include <type_traits>

namespace emulated {
template <class... Arguments> struct launcher {
  const char *name;
  void (*kernel)(Arguments...);
  uint32_t operator()(uint32_t blocks, aclrtStream stream, Arguments... arguments) const {
    std::vector<const void *> pointers;
    (keep(pointers, arguments), ...);
    return launch(stream, blocks, name, pointers, [=, name = name, kernel = kernel] { AscendC::run_cores(name, kernel, blocks, arguments...); });
  }
  template <class T> static void keep(std::vector<const void *> &pointers, T value) {
    static_assert(std::is_pointer_v<T> || std::is_same_v<T, int64_t>, "a kernel takes addresses and 64-bit whole numbers");
    if constexpr (std::is_pointer_v<T>) pointers.push_back(value);
  }
};
template <class... Arguments> launcher<Arguments...> launcher_of(const char *name, void (*kernel)(Arguments...)) { return {name, kernel}; }
}
#define ACLRT_LAUNCH_KERNEL(kernel) emulated::launcher_of(#kernel, kernel)
