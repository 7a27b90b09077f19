// How a launch reaches the emulated device: what the vendor's tools generate for each kernel calls this here.
#pragma once
#include <acl/acl.h>
#include <functional>
#include <vector>

namespace emulated {
/** Queue a kernel: `run` is called when the stream is waited for. `pointers` are its arguments in memory. */
uint32_t launch(aclrtStream stream, uint32_t blocks, const char *kernel, const std::vector<const void *> &pointers, std::function<void()> run);
}
