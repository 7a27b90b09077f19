// A device on a CPU that is stricter than the hardware. Its memory is one file mapped twice: at the addresses that the host is given nothing may be read
// or written, and while kernels run they may only be read; copies write through the second mapping. Fresh memory is 0xff. Work of a stream is done when
// the stream is waited for and not before, blocks of a kernel in shuffled order. What is not legal ends the program with a sentence.
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "acl_emulator.h"
#include <csignal>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <numeric>
#include <set>
#include <sys/mman.h>
#include <unistd.h>

/** The chip that the program was printed for (launches.cpp). */
extern "C" const char *const hk_soc;

namespace {
constexpr size_t page = 4096;
/** A place that aclrtMalloc gives begins at this; hardware gives more. */
constexpr size_t aligned = 64;
/** Addresses of the device; pages are taken when they are first written. */
constexpr size_t space = size_t(1) << 38;
constexpr uint32_t most_blocks = 65535;

struct Stream { std::vector<std::function<void()>> work; };
bool initialised = false;
int device_set = -1;
char *seen = nullptr, *written = nullptr;
size_t taken = 0, in_use = 0;
std::map<char *, size_t> allocations; // by the address that the host is given
std::set<Stream *> streams;
const char *running = nullptr;

[[noreturn]] void wrong(const char *format, ...) {
  va_list list;
  va_start(list, format);
  std::fflush(stdout);
  std::fputs("emulator: ", stderr);
  std::vfprintf(stderr, format, list);
  if (running) std::fprintf(stderr, " (kernel %s)", running);
  std::fputc('\n', stderr);
  va_end(list);
  _exit(2);
}
void say(const char *text) { if (write(2, text, std::strlen(text)) < 0) _exit(2); }
void on_fault(int, siginfo_t *info, void *) {
  const char *at = static_cast<char *>(info->si_addr);
  if (at < seen || at >= seen + space) { say("emulator: memory that is neither the host's nor the device's was touched"); if (running) { say(" by kernel "); say(running); } }
  else if (running) { say("emulator: device memory was written by a scalar, or touched outside its allocation, by kernel "); say(running); }
  else say("emulator: the host touched device memory");
  say("\n");
  _exit(2);
}
size_t memory() { const char *m = std::getenv("HKGAI_EMULATED_MEMORY"); return m ? std::strtoull(m, nullptr, 10) : size_t(1) << 36; }
int64_t vector_cores() { const char *c = std::getenv("HKGAI_EMULATED_CORES"); return c ? std::atoll(c) : 48; }
bool on_device(const void *p) { return seen && p >= seen && p < seen + space; }
/** The allocation that holds [p, p + bytes), or the end of the program. */
void held(const void *p, size_t bytes, const char *what) {
  char *at = static_cast<char *>(const_cast<void *>(p));
  auto next = allocations.upper_bound(at);
  if (next == allocations.begin() || at >= std::prev(next)->first + std::prev(next)->second) wrong("%s: %zu bytes at %p are in no allocation of the device", what, bytes, p);
  const auto &[start, size] = *--next;
  if (at + bytes > start + size) wrong("%s: %zu bytes at %p reach outside their allocation of %zu", what, bytes, p, size);
}
char *through(const void *p) { return written + (static_cast<const char *>(p) - seen); }
void protect(int how) { for (const auto &[start, size] : allocations) { char *first = seen + (start - seen) / page * page; mprotect(first, size_t(start + size - first), how); } }
void need_device(const char *what) { if (device_set < 0) wrong("%s before aclrtSetDevice", what); }
Stream *of(aclrtStream s, const char *what) { Stream *t = static_cast<Stream *>(s); if (!streams.count(t)) wrong("%s: no such stream", what); return t; }
void settled(const char *what) { for (Stream *s : streams) if (!s->work.empty()) wrong("%s while a stream has work that was not waited for", what); }

void check_copy(void *dst, size_t most, const void *src, size_t count, aclrtMemcpyKind kind, const char *what) {
  const bool to = kind == ACL_MEMCPY_HOST_TO_DEVICE || kind == ACL_MEMCPY_DEVICE_TO_DEVICE, from = kind == ACL_MEMCPY_DEVICE_TO_HOST || kind == ACL_MEMCPY_DEVICE_TO_DEVICE;
  if (count == 0 || count > most) wrong("%s of %zu bytes into %zu", what, count, most);
  if (on_device(dst) != to || on_device(src) != from) wrong("%s: the kind is not that of its two places", what);
  if (to) held(dst, most, what);
  if (from) held(src, count, what);
}
void copy(void *dst, const void *src, size_t count) { std::memcpy(on_device(dst) ? through(dst) : dst, on_device(src) ? through(src) : src, count); }
/** The blocks of a launch in an order of their own. */
std::vector<uint32_t> shuffled(uint32_t n) {
  static uint64_t state = [] { const char *s = std::getenv("HKGAI_EMULATED_SEED"); return 88172645463325252ull + (s ? std::strtoull(s, nullptr, 10) * 0x9e3779b97f4a7c15ull : 0); }();
  std::vector<uint32_t> order(n);
  std::iota(order.begin(), order.end(), 0u);
  for (uint32_t i = n; i > 1; i--) {
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    std::swap(order[i - 1], order[state % i]);
  }
  return order;
}
}

namespace emulated {
uint32_t launch(aclrtStream stream, uint32_t blocks, const char *kernel, const std::vector<const void *> &pointers, std::function<void(uint32_t)> body) {
  need_device(kernel);
  Stream *s = of(stream, kernel);
  if (blocks < 1 || blocks > most_blocks) wrong("%s: launched with %u blocks", kernel, blocks);
  if (blocks > vector_cores()) wrong("%s: %u blocks where the device has %lld vector cores", kernel, blocks, (long long)vector_cores());
  int n = 0;
  for (const void *p : pointers) { n++; if (!on_device(p)) wrong("%s: argument %d is %s", kernel, n, p ? "not in device memory" : "a null pointer"); held(p, 1, kernel); }
  s->work.push_back([=] {
    running = kernel;
    for (uint32_t b : shuffled(blocks)) body(b);
    running = nullptr;
  });
  return 0;
}
void *writable(void *device, size_t bytes) {
  if (!on_device(device)) wrong("a kernel copies to memory that is not the device's");
  held(device, bytes, "copy out");
  return through(device);
}
}

extern "C" {
aclError aclInit(const char *) { if (initialised) wrong("aclInit twice"); initialised = true; return ACL_SUCCESS; }
aclError aclFinalize(void) {
  if (!initialised) wrong("aclFinalize before aclInit");
  if (!streams.empty()) wrong("aclFinalize with a stream left");
  if (!allocations.empty()) wrong("aclFinalize with %zu allocations left", allocations.size());
  initialised = false;
  return ACL_SUCCESS;
}
const char *aclGetRecentErrMsg(void) { return ""; }
const char *aclrtGetSocName(void) { const char *s = std::getenv("HKGAI_EMULATED_SOC"); return s ? s : hk_soc; }
aclError aclGetDeviceCapability(uint32_t, aclDeviceInfo what, int64_t *value) {
  if (what == ACL_DEVICE_INFO_VECTOR_CORE_NUM) *value = vector_cores();
  else if (what == ACL_DEVICE_INFO_AI_CORE_NUM) *value = vector_cores() / 2;
  else wrong("aclGetDeviceCapability is asked for what is not emulated");
  return ACL_SUCCESS;
}
aclError aclrtSetDevice(int32_t device) {
  if (!initialised) wrong("aclrtSetDevice before aclInit");
  if (device != 0) wrong("there is no device %d", device);
  if (!seen) {
    const int file = memfd_create("device", MFD_CLOEXEC);
    if (file < 0 || ftruncate(file, (off_t)space) != 0) wrong("no memory for a device");
    seen = static_cast<char *>(mmap(nullptr, space, PROT_NONE, MAP_SHARED | MAP_NORESERVE, file, 0));
    written = static_cast<char *>(mmap(nullptr, space, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, file, 0));
    if (seen == MAP_FAILED || written == MAP_FAILED) wrong("no addresses for a device");
    close(file);
    struct sigaction action = {};
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO;
    sigaction(SIGSEGV, &action, nullptr);
    sigaction(SIGBUS, &action, nullptr);
  }
  device_set = device;
  return ACL_SUCCESS;
}
aclError aclrtResetDevice(int32_t device) { if (device != device_set) wrong("aclrtResetDevice of a device that is not set"); device_set = -1; return ACL_SUCCESS; }
aclError aclrtGetMemInfo(aclrtMemAttr, size_t *free, size_t *total) { need_device("aclrtGetMemInfo"); *total = memory(); *free = memory() - in_use; return ACL_SUCCESS; }

aclError aclrtCreateStream(aclrtStream *stream) { need_device("aclrtCreateStream"); Stream *s = new Stream; streams.insert(s); *stream = s; return ACL_SUCCESS; }
aclError aclrtDestroyStream(aclrtStream stream) {
  Stream *s = of(stream, "aclrtDestroyStream");
  if (!s->work.empty()) wrong("aclrtDestroyStream with work that was not waited for");
  streams.erase(s);
  delete s;
  return ACL_SUCCESS;
}
aclError aclrtSynchronizeStream(aclrtStream stream) {
  Stream *s = of(stream, "aclrtSynchronizeStream");
  protect(PROT_READ);
  for (const auto &work : s->work) work();
  protect(PROT_NONE);
  s->work.clear();
  return ACL_SUCCESS;
}

aclError aclrtMalloc(void **devPtr, size_t size, aclrtMemMallocPolicy) {
  need_device("aclrtMalloc");
  if (size == 0) wrong("aclrtMalloc of nothing");
  if (size > memory() - in_use) return ACL_ERROR_RT_MEMORY_ALLOCATION;
  // the end lies against a page that nothing may touch
  const size_t whole = (size + aligned - 1) / aligned * aligned, pages = (whole + page - 1) / page * page;
  if (taken + pages + page > space) return ACL_ERROR_RT_MEMORY_ALLOCATION;
  char *p = seen + taken + pages - whole;
  taken += pages + page;
  in_use += size;
  allocations[p] = size;
  std::memset(through(p), 0xff, size);
  *devPtr = p;
  return ACL_SUCCESS;
}
aclError aclrtFree(void *devPtr) {
  settled("aclrtFree");
  const auto found = allocations.find(static_cast<char *>(devPtr));
  if (found == allocations.end()) wrong("aclrtFree of what aclrtMalloc did not give");
  in_use -= found->second;
  std::memset(through(devPtr), 0xff, found->second);
  allocations.erase(found);
  return ACL_SUCCESS;
}
aclError aclrtMemset(void *devPtr, size_t maxCount, int32_t value, size_t count) {
  settled("aclrtMemset");
  if (count == 0 || count > maxCount) wrong("aclrtMemset of %zu bytes in %zu", count, maxCount);
  held(devPtr, maxCount, "aclrtMemset");
  std::memset(through(devPtr), value, count);
  return ACL_SUCCESS;
}
aclError aclrtMemcpy(void *dst, size_t destMax, const void *src, size_t count, aclrtMemcpyKind kind) {
  settled("aclrtMemcpy");
  check_copy(dst, destMax, src, count, kind, "aclrtMemcpy");
  copy(dst, src, count);
  return ACL_SUCCESS;
}
}
