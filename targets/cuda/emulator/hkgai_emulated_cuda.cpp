// CUDA's driver interface, as much of it as a program of ours uses, over an emulated device: built as libcuda.so.1 beside the program, with the
// program's kernels inside. Arguments are checked as the documentation says they must be; what a driver may let pass is an error here.
#include "kernels.cu"
#include "hkgai_emulated_device.h"
#include <map>
#include "kernels.h"

#ifndef EMULATED_CAPABILITY
#define EMULATED_CAPABILITY 80
#endif
using namespace emulated;

#define SIGNATURE(name, kinds) static_assert(kinds_are(name, kinds), "the host passes other arguments than " #name " takes");
HK_EACH_KERNEL(SIGNATURE)
#undef SIGNATURE
static const std::vector<kernel> &kernels() {
#define KNOWN(name, kinds) known(#name, name),
  static const std::vector<kernel> all = {HK_EACH_KERNEL(KNOWN)};
#undef KNOWN
  return all;
}

enum { ok = 0, invalid_value = 1, out_of_memory = 2, not_initialized = 3, invalid_device = 101, invalid_image = 200, invalid_context = 201, not_found = 500, illegal_state = 401 };

struct stream { line waiting, captured; bool capturing; };
struct graph { line all; };
static bool started, retained, current, loaded;
static std::vector<stream *> streams;
static std::vector<graph *> graphs, execs;
template <class T> static bool has(const std::vector<T *> &all, const void *p) { for (T *t : all) if (t == p) return true; return false; }
template <class T> static bool drop(std::vector<T *> &all, void *p) {
  for (size_t i = 0; i < all.size(); i++) if (all[i] == p) { delete all[i]; all.erase(all.begin() + (long)i); return true; }
  return false;
}
static bool usable(void *s) { return current && has(streams, s); }
static void put(stream *s, work w) { (s->capturing ? s->captured : s->waiting).push_back(std::move(w)); }
static void finish(stream *s) {
  line now;
  now.swap(s->waiting);
  for (const work &w : now) run(w);
}

extern "C" {
int cuInit(unsigned flags) { if (flags) return invalid_value; started = true; emulator::device_limit = (size_t)8 << 30; return ok; }
int cuDeviceGetCount(int *count) { if (!started) return not_initialized; *count = 1; return ok; }
int cuDeviceGet(int *device, int ordinal) { if (!started) return not_initialized; if (ordinal) return invalid_device; *device = 0; return ok; }
int cuDeviceGetName(char *name, int length, int device) { if (device) return invalid_device; std::snprintf(name, (size_t)length, "emulated device"); return ok; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
  if (device) return invalid_device;
  if (attribute == 75) *value = EMULATED_CAPABILITY / 10;
  else if (attribute == 76) *value = EMULATED_CAPABILITY % 10;
  else return invalid_value;
  return ok;
}
int cuDeviceTotalMem_v2(size_t *bytes, int device) { if (device) return invalid_device; *bytes = (size_t)8 << 30; return ok; }
int cuDevicePrimaryCtxRetain(void **context, int device) { if (!started) return not_initialized; if (device) return invalid_device; retained = true; *context = &retained; return ok; }
int cuDevicePrimaryCtxRelease_v2(int device) {
  if (device || !retained) return invalid_context;
  if (emulator::device_bytes) fail("the program ends with %zu bytes of the device's memory that it did not give back", emulator::device_bytes);
  if (!streams.empty() || !graphs.empty() || !execs.empty()) fail("the program ends with streams or graphs that it did not give back");
  if (loaded) fail("the program ends with a module that it did not unload");
  retained = current = false;
  return ok;
}
int cuCtxSetCurrent(void *context) { if (context != &retained || !retained) return invalid_context; current = true; return ok; }
int cuModuleLoadData(void **module, const void *image) {
  if (!current) return invalid_context;
  if (std::strcmp((const char *)image, "a stand-in for a cubin: its kernels are in the emulator\n") != 0) return invalid_image;
  loaded = true;
  *module = &loaded;
  return ok;
}
int cuModuleUnload(void *module) { if (module != &loaded || !loaded) return invalid_value; loaded = false; return ok; }
int cuModuleGetFunction(const void **function, void *module, const char *name) {
  if (module != &loaded || !loaded) return invalid_value;
  for (const kernel &k : kernels()) if (!std::strcmp(k.name, name)) { *function = &k; return ok; }
  return not_found;
}
int cuMemAlloc_v2(unsigned long long *at, size_t bytes) {
  if (!current) return invalid_context;
  if (bytes == 0) return invalid_value;
  void *p = emulator::device_alloc(bytes, nullptr, alignment);
  *at = (unsigned long long)p;
  return p ? ok : out_of_memory;
}
int cuMemFree_v2(unsigned long long at) {
  for (stream *s : streams) finish(s);
  return emulator::device_free((void *)at) ? ok : invalid_value;
}
int cuMemcpyHtoDAsync_v2(unsigned long long to, const void *from, size_t bytes, void *s) {
  if (!usable(s)) return invalid_context;
  if (!bytes || !emulator::on_device((void *)to, bytes) || emulator::region_at(from)) return invalid_value;
  put((stream *)s, copy(true, (void *)to, from, bytes));
  return ok;
}
int cuMemcpyDtoHAsync_v2(void *to, unsigned long long from, size_t bytes, void *s) {
  if (!usable(s)) return invalid_context;
  if (!bytes || !emulator::on_device((void *)from, bytes) || emulator::region_at(to)) return invalid_value;
  put((stream *)s, copy(false, to, (void *)from, bytes));
  return ok;
}
int cuMemsetD8Async(unsigned long long at, unsigned char value, size_t bytes, void *s) {
  if (!usable(s)) return invalid_context;
  if (!bytes || !emulator::on_device((void *)at, bytes)) return invalid_value;
  put((stream *)s, set((void *)at, value, bytes));
  return ok;
}
int cuStreamCreate(void **s, unsigned flags) {
  if (!current) return invalid_context;
  if (flags > 1) return invalid_value;
  streams.push_back(new stream());
  *s = streams.back();
  return ok;
}
int cuStreamDestroy_v2(void *s) { if (!usable(s)) return invalid_value; finish((stream *)s); return drop(streams, s) ? ok : invalid_value; }
int cuStreamSynchronize(void *s) {
  if (!usable(s)) return invalid_context;
  if (((stream *)s)->capturing) return illegal_state;
  finish((stream *)s);
  return ok;
}
int cuLaunchKernel(const void *f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared, void *s, void **arguments, void **extra) {
  if (!usable(s)) return invalid_context;
  const kernel *k = nullptr;
  for (const kernel &each : kernels()) if (&each == f) k = &each;
  if (!k || extra || !arguments) return invalid_value;
  std::vector<uint64_t> values(k->kinds.size());
  for (size_t i = 0; i < values.size(); i++) std::memcpy(&values[i], arguments[i], 8);
  put((stream *)s, launch(*k, {gx, gy, gz}, {bx, by, bz}, shared, std::move(values)));
  return ok;
}
int cuStreamBeginCapture_v2(void *s, int mode) {
  if (!usable(s) || ((stream *)s)->capturing || mode < 0 || mode > 2) return illegal_state;
  ((stream *)s)->capturing = true;
  ((stream *)s)->captured.clear();
  return ok;
}
int cuStreamEndCapture(void *s, void **g) {
  if (!usable(s) || !((stream *)s)->capturing) return illegal_state;
  ((stream *)s)->capturing = false;
  graphs.push_back(new graph{((stream *)s)->captured});
  *g = graphs.back();
  return ok;
}
int cuGraphInstantiateWithFlags(void **exec, void *g, unsigned long long flags) {
  if (!has(graphs, g) || flags) return invalid_value;
  execs.push_back(new graph{((graph *)g)->all});
  *exec = execs.back();
  return ok;
}
int cuGraphLaunch(void *exec, void *s) {
  if (!usable(s) || !has(execs, exec)) return invalid_value;
  for (const work &w : ((graph *)exec)->all) put((stream *)s, w);
  return ok;
}
int cuGraphExecDestroy(void *exec) { return drop(execs, exec) ? ok : invalid_value; }
int cuGraphDestroy(void *g) { return drop(graphs, g) ? ok : invalid_value; }
int cuGetErrorString(int error, const char **text) {
  static const std::map<int, const char *> words = {{ok, "no error"}, {invalid_value, "invalid argument"}, {out_of_memory, "out of memory"}, {not_initialized, "initialization error"}, {invalid_device, "invalid device ordinal"}, {invalid_image, "device kernel image is invalid"}, {invalid_context, "invalid device context"}, {illegal_state, "the operation cannot be performed in the present state"}, {not_found, "named symbol not found"}};
  const auto found = words.find(error);
  if (found == words.end()) return invalid_value;
  *text = found->second;
  return ok;
}
}
