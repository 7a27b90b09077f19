// How a launch reaches the emulated device: what the vendor's tools generate for each kernel calls this here.
#pragma once
#include <acl/acl.h>
#include <functional>
#include <vector>

namespace emulated {
/** Queue a kernel: `body` is run for each block of `blocks`, in an order of the emulator's own, when the stream is waited for. `pointers` are its arguments in memory. */
uint32_t launch(aclrtStream stream, uint32_t blocks, const char *kernel, const std::vector<const void *> &pointers, std::function<void(uint32_t block)> body);
/** Where a copy of a running kernel may write `bytes` from a place of device memory on; ends the program where they are not all of one allocation. */
void *writable(void *device, size_t bytes);
}
