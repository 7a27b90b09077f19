// A device by CUDA's driver interface, found when the program starts: no header and no library of the vendor is needed to build this. Names and
// numbers are those of the CUDA Driver API documentation (libcuda.so.1, CUDA 11.4 and later).
#define _GNU_SOURCE
#include "hkgai_device.h"
#include <dlfcn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifndef HKGAI_THREADS
#define HKGAI_THREADS 256
#endif

typedef int driver_result, driver_device;
typedef struct driver_context_ *driver_context;
typedef struct driver_module_ *driver_module;
typedef struct driver_function_ *driver_function;
typedef struct driver_stream_ *driver_stream;
typedef struct driver_graph_ *driver_graph;
typedef struct driver_exec_ *driver_exec;
typedef unsigned long long driver_address;
enum { driver_capability_major = 75, driver_capability_minor = 76, driver_stream_nonblocking = 1, driver_capture_thread_local = 1 };

/** What is used of the library: return type, name in it, arguments. */
#define DRIVER_EACH(X)                                                                                                                       \
  X(cuInit, (unsigned)) X(cuDeviceGetCount, (int *)) X(cuDeviceGet, (driver_device *, int)) X(cuDeviceGetName, (char *, int, driver_device))      \
  X(cuDeviceGetAttribute, (int *, int, driver_device)) X(cuDeviceTotalMem_v2, (size_t *, driver_device))                                          \
  X(cuDevicePrimaryCtxRetain, (driver_context *, driver_device)) X(cuDevicePrimaryCtxRelease_v2, (driver_device)) X(cuCtxSetCurrent, (driver_context))    \
  X(cuModuleLoadData, (driver_module *, const void *)) X(cuModuleUnload, (driver_module)) X(cuModuleGetFunction, (driver_function *, driver_module, const char *)) \
  X(cuMemAlloc_v2, (driver_address *, size_t)) X(cuMemFree_v2, (driver_address))                                                                  \
  X(cuMemcpyHtoDAsync_v2, (driver_address, const void *, size_t, driver_stream)) X(cuMemcpyDtoHAsync_v2, (void *, driver_address, size_t, driver_stream)) \
  X(cuMemsetD8Async, (driver_address, unsigned char, size_t, driver_stream))                                                                      \
  X(cuStreamCreate, (driver_stream *, unsigned)) X(cuStreamDestroy_v2, (driver_stream)) X(cuStreamSynchronize, (driver_stream))                       \
  X(cuLaunchKernel, (driver_function, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, driver_stream, void **, void **))     \
  X(cuStreamBeginCapture_v2, (driver_stream, int)) X(cuStreamEndCapture, (driver_stream, driver_graph *))                                             \
  X(cuGraphInstantiateWithFlags, (driver_exec *, driver_graph, unsigned long long)) X(cuGraphLaunch, (driver_exec, driver_stream))                        \
  X(cuGraphExecDestroy, (driver_exec)) X(cuGraphDestroy, (driver_graph)) X(cuGetErrorString, (driver_result, const char **))
struct driver_library {
#define DRIVER_MEMBER(name, arguments) driver_result (*name) arguments;
  DRIVER_EACH(DRIVER_MEMBER)
#undef DRIVER_MEMBER
};

/** Steps of few rows are kept whole, so that a token costs one start. */
enum { kept_steps = 16, most_memory = 4096 };
struct kept { uint64_t key; driver_exec exec; };
struct hk_device {
  struct driver_library driver;
  void *library;
  driver_device number;
  int retained;
  driver_context context;
  driver_module module;
  driver_stream stream;
  driver_function *functions;
  driver_address memory[most_memory];
  int memory_count;
  struct kept kept[kept_steps];
  int kept_count;
  char name[128], failure[512];
};

static void fail(struct hk_device *d, const char *format, ...) {
  if (d->failure[0]) return;
  va_list a;
  va_start(a, format);
  vsnprintf(d->failure, sizeof d->failure, format, a);
  va_end(a);
}
/** 1 where it went well; else the failure is kept in the library's own words. */
static int done(struct hk_device *d, driver_result r, const char *what) {
  if (r == 0) return 1;
  const char *words = NULL;
  if (d->driver.cuGetErrorString(r, &words) != 0 || !words) words = "unknown error";
  fail(d, "%s: %s (%d)", what, words, r);
  return 0;
}
const char *hk_device_failure(const struct hk_device *d) { return d->failure[0] ? d->failure : NULL; }
const char *hk_device_name(const struct hk_device *d) { return d->name; }
uint64_t hk_device_bytes(struct hk_device *d) {
  size_t bytes = 0;
  return d->driver.cuDeviceTotalMem_v2(&bytes, d->number) == 0 ? bytes : 0;
}

// ---- kernels: code for the chip where it was built, else PTX that the driver compiles

static char *read_file(const char *path) {
  FILE *f = fopen(path, "rb");
  if (!f) return NULL;
  fseek(f, 0, SEEK_END);
  const long size = ftell(f);
  rewind(f);
  char *bytes = size < 0 ? NULL : malloc((size_t)size + 1);
  if (bytes && fread(bytes, 1, (size_t)size, f) != (size_t)size) { free(bytes); bytes = NULL; }
  if (bytes) bytes[size] = 0;
  fclose(f);
  return bytes;
}
static int load_kernels(struct hk_device *d, const char *beside) {
  int major = 0, minor = 0;
  if (!done(d, d->driver.cuDeviceGetAttribute(&major, driver_capability_major, d->number), "cuDeviceGetAttribute")) return 0;
  if (!done(d, d->driver.cuDeviceGetAttribute(&minor, driver_capability_minor, d->number), "cuDeviceGetAttribute")) return 0;
  char path[4096], *image = NULL;
  // cubins run on devices of their major version that are not older; PTX on all that are not older
  for (int m = minor; m >= 0 && !image; m--) {
    snprintf(path, sizeof path, "%s/kernels.sm_%d%d.cubin", beside, major, m);
    image = read_file(path);
  }
  for (int v = major * 10 + minor; v >= 50 && !image; v--) {
    snprintf(path, sizeof path, "%s/kernels.compute_%d.ptx", beside, v);
    image = read_file(path);
  }
  if (!image) { fail(d, "%s: there are no kernels beside the program for %s, which is sm_%d%d", beside, d->name, major, minor); return 0; }
  const int ok = done(d, d->driver.cuModuleLoadData(&d->module, image), path);
  free(image);
  for (int i = 0; ok && i < hk_kernel_count; i++)
    if (!done(d, d->driver.cuModuleGetFunction(&d->functions[i], d->module, hk_kernels[i].name), hk_kernels[i].name)) return 0;
  return ok;
}

// ---- the device

void hk_device_close(struct hk_device *d) {
  if (d->stream) d->driver.cuStreamSynchronize(d->stream);
  for (int i = 0; i < d->kept_count; i++) d->driver.cuGraphExecDestroy(d->kept[i].exec);
  for (int i = 0; i < d->memory_count; i++) d->driver.cuMemFree_v2(d->memory[i]);
  if (d->module) d->driver.cuModuleUnload(d->module);
  if (d->stream) d->driver.cuStreamDestroy_v2(d->stream);
  if (d->retained) d->driver.cuDevicePrimaryCtxRelease_v2(d->number);
  if (d->library) dlclose(d->library);
  free(d->functions);
  free(d);
}
static int open_device(struct hk_device *d, const char *beside) {
  d->library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (!d->library) { fail(d, "there is no CUDA driver here: %s", dlerror()); return 0; }
#define DRIVER_FIND(name, arguments)                                                                    \
  if (!(*(void **)&d->driver.name = dlsym(d->library, #name))) { fail(d, "the CUDA driver has no " #name); return 0; }
  DRIVER_EACH(DRIVER_FIND)
#undef DRIVER_FIND
  int count = 0;
  if (!done(d, d->driver.cuInit(0), "cuInit") || !done(d, d->driver.cuDeviceGetCount(&count), "cuDeviceGetCount")) return 0;
  if (count == 0) { fail(d, "the CUDA driver sees no device"); return 0; }
  if (!done(d, d->driver.cuDeviceGet(&d->number, 0), "cuDeviceGet")) return 0;
  if (!done(d, d->driver.cuDeviceGetName(d->name, sizeof d->name, d->number), "cuDeviceGetName")) return 0;
  if (!done(d, d->driver.cuDevicePrimaryCtxRetain(&d->context, d->number), "cuDevicePrimaryCtxRetain")) return 0;
  d->retained = 1;
  if (!done(d, d->driver.cuCtxSetCurrent(d->context), "cuCtxSetCurrent")) return 0;
  if (!done(d, d->driver.cuStreamCreate(&d->stream, driver_stream_nonblocking), "cuStreamCreate")) return 0;
  return load_kernels(d, beside);
}
struct hk_device *hk_device_open(const char *beside, char *error, size_t n) {
  struct hk_device *d = calloc(1, sizeof *d);
  if (d) d->functions = calloc((size_t)hk_kernel_count + 1, sizeof *d->functions);
  if (!d || !d->functions) { snprintf(error, n, "no memory"); free(d); return NULL; }
  if (open_device(d, beside)) return d;
  snprintf(error, n, "%s", d->failure);
  hk_device_close(d);
  return NULL;
}
char *hk_device_memory(struct hk_device *d, uint64_t bytes) {
  driver_address at = 0;
  if (d->failure[0] || d->memory_count == most_memory) return NULL;
  if (d->driver.cuMemAlloc_v2(&at, bytes ? bytes : 1) != 0) return NULL;
  d->memory[d->memory_count++] = at;
  return (char *)(uintptr_t)at;
}
void hk_device_zero(struct hk_device *d, void *at, uint64_t bytes) {
  if (!d->failure[0] && bytes) done(d, d->driver.cuMemsetD8Async((driver_address)(uintptr_t)at, 0, bytes, d->stream), "cuMemsetD8Async");
}
void hk_device_upload(struct hk_device *d, void *to, const void *from, uint64_t bytes) {
  if (d->failure[0] || !bytes) return;
  if (done(d, d->driver.cuMemcpyHtoDAsync_v2((driver_address)(uintptr_t)to, from, bytes, d->stream), "cuMemcpyHtoDAsync"))
    done(d, d->driver.cuStreamSynchronize(d->stream), "cuStreamSynchronize after a copy to the device");
}
void hk_device_download(struct hk_device *d, void *to, const void *from, uint64_t bytes) {
  if (d->failure[0] || !bytes) return;
  if (done(d, d->driver.cuMemcpyDtoHAsync_v2(to, (driver_address)(uintptr_t)from, bytes, d->stream), "cuMemcpyDtoHAsync"))
    done(d, d->driver.cuStreamSynchronize(d->stream), "cuStreamSynchronize");
}
void hk_device_launch(struct hk_device *d, int kernel, const void *arguments, long blocks) {
  if (d->failure[0] || blocks <= 0) return;
  if (blocks > 0x7fffffffl) { fail(d, "%s would take %ld blocks", hk_kernels[kernel].name, blocks); return; }
  void *each[64];
  const size_t count = strlen(hk_kernels[kernel].arguments);
  if (count > 64) { fail(d, "%s takes %zu arguments", hk_kernels[kernel].name, count); return; }
  for (size_t i = 0; i < count; i++) each[i] = (char *)(uintptr_t)arguments + 8 * i;
  done(d, d->driver.cuLaunchKernel(d->functions[kernel], (unsigned)blocks, 1, 1, HKGAI_THREADS, 1, 1, 0, d->stream, each, NULL), hk_kernels[kernel].name);
}

// ---- steps that are kept

int hk_device_record(struct hk_device *d, uint64_t key) {
  if (d->failure[0]) return 0;
  for (int i = 0; i < d->kept_count; i++)
    if (d->kept[i].key == key) { done(d, d->driver.cuGraphLaunch(d->kept[i].exec, d->stream), "cuGraphLaunch"); return 0; }
  if (d->kept_count < kept_steps) done(d, d->driver.cuStreamBeginCapture_v2(d->stream, driver_capture_thread_local), "cuStreamBeginCapture");
  return 1;
}
void hk_device_recorded(struct hk_device *d, uint64_t key) {
  if (d->failure[0] || d->kept_count == kept_steps) return;
  driver_graph graph = NULL;
  struct kept *k = &d->kept[d->kept_count];
  if (!done(d, d->driver.cuStreamEndCapture(d->stream, &graph), "cuStreamEndCapture")) return;
  if (done(d, d->driver.cuGraphInstantiateWithFlags(&k->exec, graph, 0), "cuGraphInstantiate")) {
    k->key = key;
    d->kept_count++;
    done(d, d->driver.cuGraphLaunch(k->exec, d->stream), "cuGraphLaunch");
  }
  d->driver.cuGraphDestroy(graph);
}
