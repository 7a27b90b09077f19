// The runtime of the vendor on a CPU, stricter than the hardware: the host keeps out of the device's memory, a copy's kind and room must be right, work of
// a stream is done when the stream is waited for and not before. What is not legal ends the program with a sentence (emulator/hkgai_report.h); kernels
// run in kernel_operator.h. EMULATED_CORES, EMULATED_MEMORY and EMULATED_SOC in the environment make another device of it.
#include "acl_emulator.h"
#include "../../emulator/hkgai_report.h"
#include <set>

/** The chip that the program was printed for (launches.cpp). */
extern "C" const char *const hk_soc;

namespace {
using emulator::fail;
/** A place that aclrtMalloc gives begins at this; hardware gives more. */
constexpr size_t aligned = 64;
constexpr uint32_t most_blocks = 65535;

struct Stream { std::vector<std::function<void()>> work; };
bool initialised = false;
int device_set = -1;
std::set<Stream *> streams;

size_t memory() { const char *m = std::getenv("EMULATED_MEMORY"); return m ? std::strtoull(m, nullptr, 10) : size_t(1) << 36; }
/** 24 cube cores with two vector cores each (platform configuration of Ascend910B1 and B2). */
int64_t vector_cores() { const char *c = std::getenv("EMULATED_CORES"); return c ? std::atoll(c) : 48; }
/** All bytes are one allocation's, or the end of the program. */
void held(const void *p, size_t bytes, const char *what) {
  char where[200];
  if (emulator::on_device(p, bytes)) return;
  const emulator::region *r = emulator::region_at(p);
  emulator::describe(r && !r->freed && p >= r->begin && p < r->begin + r->bytes ? r->begin + r->bytes : p, where, sizeof where);
  fail("%s of %zu bytes reaches %s", what, bytes, where);
}
void need_device(const char *what) { if (device_set < 0) fail("%s before aclrtSetDevice", what); }
Stream *of(aclrtStream s, const char *what) { Stream *t = static_cast<Stream *>(s); if (!streams.count(t)) fail("%s: no such stream", what); return t; }
void settled(const char *what) { for (Stream *s : streams) if (!s->work.empty()) fail("%s while a stream has work that was not waited for", what); }
}

namespace emulated {
uint32_t launch(aclrtStream stream, uint32_t blocks, const char *kernel, const std::vector<const void *> &pointers, std::function<void()> run) {
  need_device(kernel);
  Stream *s = of(stream, kernel);
  if (blocks < 1 || blocks > most_blocks) fail("%s is launched with %u blocks", kernel, blocks);
  if (blocks > vector_cores()) fail("%s is launched with %u blocks where the device has %lld vector cores", kernel, blocks, (long long)vector_cores());
  int n = 0;
  for (const void *p : pointers) {
    n++;
    if (!emulator::region_at(p)) fail("argument %d of %s is %s", n, kernel, p ? "not in device memory" : "a null pointer");
    held(p, 1, kernel);
  }
  s->work.push_back(std::move(run));
  return 0;
}
}

extern "C" {
aclError aclInit(const char *) { if (initialised) fail("aclInit twice"); initialised = true; return ACL_SUCCESS; }
aclError aclFinalize(void) {
  if (!initialised) fail("aclFinalize before aclInit");
  if (!streams.empty()) fail("aclFinalize with a stream left");
  for (int i = 0; i < emulator::region_count; i++) if (!emulator::regions[i].freed) fail("aclFinalize with %s left", emulator::regions[i].name);
  initialised = false;
  return ACL_SUCCESS;
}
const char *aclGetRecentErrMsg(void) { return ""; }
const char *aclrtGetSocName(void) { const char *s = std::getenv("EMULATED_SOC"); return s ? s : hk_soc; }
aclError aclGetDeviceCapability(uint32_t, aclDeviceInfo what, int64_t *value) {
  if (what != ACL_DEVICE_INFO_VECTOR_CORE_NUM) fail("aclGetDeviceCapability is asked for what is not emulated");
  *value = vector_cores();
  return ACL_SUCCESS;
}
aclError aclrtSetDevice(int32_t device) {
  if (!initialised) fail("aclrtSetDevice before aclInit");
  if (device != 0) return ACL_ERROR_RT_INVALID_DEVICEID;
  emulator::device_limit = memory();
  device_set = device;
  return ACL_SUCCESS;
}
aclError aclrtResetDevice(int32_t device) { if (device != device_set) fail("aclrtResetDevice of a device that is not set"); device_set = -1; return ACL_SUCCESS; }
aclError aclrtGetMemInfo(aclrtMemAttr, size_t *free, size_t *total) { need_device("aclrtGetMemInfo"); *total = memory(); *free = memory() - emulator::device_bytes; return ACL_SUCCESS; }

aclError aclrtCreateStream(aclrtStream *stream) { need_device("aclrtCreateStream"); Stream *s = new Stream; streams.insert(s); *stream = s; return ACL_SUCCESS; }
aclError aclrtDestroyStream(aclrtStream stream) {
  Stream *s = of(stream, "aclrtDestroyStream");
  if (!s->work.empty()) fail("aclrtDestroyStream with work that was not waited for");
  streams.erase(s);
  delete s;
  return ACL_SUCCESS;
}
aclError aclrtSynchronizeStream(aclrtStream stream) {
  Stream *s = of(stream, "aclrtSynchronizeStream");
  for (const auto &work : s->work) work();
  s->work.clear();
  return ACL_SUCCESS;
}

aclError aclrtMalloc(void **devPtr, size_t size, aclrtMemMallocPolicy) {
  need_device("aclrtMalloc");
  if (size == 0) fail("aclrtMalloc of nothing");
  *devPtr = emulator::device_alloc(size, nullptr, aligned);
  return *devPtr ? ACL_SUCCESS : ACL_ERROR_RT_MEMORY_ALLOCATION;
}
aclError aclrtFree(void *devPtr) {
  settled("aclrtFree");
  if (!emulator::device_free(devPtr)) fail("aclrtFree of what aclrtMalloc did not give");
  return ACL_SUCCESS;
}
aclError aclrtMemset(void *devPtr, size_t maxCount, int32_t value, size_t count) {
  settled("aclrtMemset");
  if (count == 0 || count > maxCount) fail("aclrtMemset of %zu bytes in %zu", count, maxCount);
  held(devPtr, maxCount, "aclrtMemset");
  const std::vector<char> bytes(count, (char)value);
  emulator::device_copy(devPtr, bytes.data(), count, true, false);
  return ACL_SUCCESS;
}
aclError aclrtMemcpy(void *dst, size_t destMax, const void *src, size_t count, aclrtMemcpyKind kind) {
  settled("aclrtMemcpy");
  const bool to = kind == ACL_MEMCPY_HOST_TO_DEVICE || kind == ACL_MEMCPY_DEVICE_TO_DEVICE, from = kind == ACL_MEMCPY_DEVICE_TO_HOST || kind == ACL_MEMCPY_DEVICE_TO_DEVICE;
  if (count == 0 || count > destMax) fail("aclrtMemcpy of %zu bytes into %zu", count, destMax);
  if ((emulator::region_at(dst) != nullptr) != to || (emulator::region_at(src) != nullptr) != from) fail("aclrtMemcpy: the kind is not that of its two places");
  if (to) held(dst, destMax, "aclrtMemcpy");
  if (from) held(src, count, "aclrtMemcpy");
  emulator::device_copy(dst, src, count, to, from);
  return ACL_SUCCESS;
}
}
