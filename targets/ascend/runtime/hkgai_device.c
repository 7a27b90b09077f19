// A device by the Ascend Computing Language runtime: <acl/acl.h> and libascendcl of CANN, or the emulator's. Kernels are started by the functions that
// CANN's tools generate for them (launches.cpp). HKGAI_DEVICE is its number where it is not 0.
#define _GNU_SOURCE
#include "hkgai_device.h"
#include "hkgai_launch.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { most_memory = 4096 };
struct hk_device {
  int number, initialised, set;
  aclrtStream stream;
  /** Vector cores: as many as a kernel's blocks can be. They walk the rest of its grid. */
  uint32_t cores;
  /** True while the stream may have work that was not waited for. */
  int pending;
  char name[64];
  void *memory[most_memory];
  int memory_count;
  char failure[1400];
};

/** The first failure is kept: a sentence with what the vendor's runtime says. */
static int hk_right(struct hk_device *d, const char *what, aclError code) {
  if (code == ACL_SUCCESS) return 1;
  if (!d->failure[0]) {
    const char *more = aclGetRecentErrMsg();
    snprintf(d->failure, sizeof d->failure, "%s: error %d of the Ascend runtime%s%.1200s", what, code, more && *more ? ": " : "", more ? more : "");
    for (char *c = d->failure; *c; c++) if (*c == '\n' || *c == '\r') *c = ' ';
  }
  return 0;
}
/** Copies by hand are not in order with the stream: what was started is waited for. */
static void hk_wait(struct hk_device *d) {
  if (d->pending) hk_right(d, "a kernel of the step", aclrtSynchronizeStream(d->stream));
  d->pending = 0;
}
static int hk_start(struct hk_device *d) {
  if (!hk_right(d, "aclInit", aclInit(NULL))) return 0;
  d->initialised = 1;
  if (!hk_right(d, "aclrtSetDevice", aclrtSetDevice(d->number))) return 0;
  d->set = 1;
  const char *soc = aclrtGetSocName();
  snprintf(d->name, sizeof d->name, "%s", soc ? soc : "the device");
  if (!soc || strncmp(soc, hk_soc, strlen(hk_soc)) != 0) {
    snprintf(d->failure, sizeof d->failure, "this program was compiled for %s, and the device is %s", hk_soc, soc ? soc : "unknown");
    return 0;
  }
  int64_t cores = 0;
  if (!hk_right(d, "the number of vector cores", aclGetDeviceCapability((uint32_t)d->number, ACL_DEVICE_INFO_VECTOR_CORE_NUM, &cores))) return 0;
  if (cores < 1 || cores > 65535) { snprintf(d->failure, sizeof d->failure, "%s says that it has %lld vector cores", d->name, (long long)cores); return 0; }
  d->cores = (uint32_t)cores;
  return hk_right(d, "aclrtCreateStream", aclrtCreateStream(&d->stream));
}
struct hk_device *hk_device_open(const char *beside, char *error, size_t n) {
  (void)beside; // kernels are linked in
  struct hk_device *d = calloc(1, sizeof *d);
  if (!d) { snprintf(error, n, "no memory"); return NULL; }
  const char *number = getenv("HKGAI_DEVICE");
  d->number = number ? atoi(number) : 0;
  if (hk_start(d)) return d;
  snprintf(error, n, "%s", d->failure);
  hk_device_close(d);
  return NULL;
}
void hk_device_close(struct hk_device *d) {
  if (d->stream) aclrtSynchronizeStream(d->stream);
  for (int i = 0; i < d->memory_count; i++) aclrtFree(d->memory[i]);
  if (d->stream) aclrtDestroyStream(d->stream);
  if (d->set) aclrtResetDevice(d->number);
  if (d->initialised) aclFinalize();
  free(d);
}
const char *hk_device_name(const struct hk_device *d) { return d->name; }
char *hk_device_memory(struct hk_device *d, uint64_t bytes) {
  void *p = NULL;
  if (d->memory_count == most_memory || aclrtMalloc(&p, (bytes ? bytes : 1) + 255, ACL_MEM_MALLOC_HUGE_FIRST) != ACL_SUCCESS) return NULL;
  d->memory[d->memory_count++] = p;
  return (char *)(((uintptr_t)p + 255) / 256 * 256);
}
void hk_device_zero(struct hk_device *d, void *at, uint64_t bytes) {
  hk_wait(d);
  if (!d->failure[0] && bytes) hk_right(d, "memory could not be cleared", aclrtMemset(at, bytes, 0, bytes));
}
void hk_device_upload(struct hk_device *d, void *to, const void *from, uint64_t bytes) {
  hk_wait(d);
  if (!d->failure[0] && bytes) hk_right(d, "a copy to the device", aclrtMemcpy(to, bytes, from, bytes, ACL_MEMCPY_HOST_TO_DEVICE));
}
void hk_device_download(struct hk_device *d, void *to, const void *from, uint64_t bytes) {
  hk_wait(d);
  if (!d->failure[0] && bytes) hk_right(d, "a copy from the device", aclrtMemcpy(to, bytes, from, bytes, ACL_MEMCPY_DEVICE_TO_HOST));
}
void hk_device_launch(struct hk_device *d, int kernel, const void *arguments, long blocks) {
  if (d->failure[0] || blocks < 1) return;
  const uint32_t cores = blocks < (long)d->cores ? (uint32_t)blocks : d->cores;
  d->pending = 1;
  hk_right(d, hk_kernels[kernel].name, (aclError)hk_starters[kernel](cores, d->stream, arguments));
}
int hk_device_record(struct hk_device *d, uint64_t key) { (void)d, (void)key; return 1; }
void hk_device_recorded(struct hk_device *d, uint64_t key) { (void)d, (void)key; }
const char *hk_device_failure(const struct hk_device *d) { return d->failure[0] ? d->failure : NULL; }
uint64_t hk_device_bytes(struct hk_device *d) {
  (void)d;
  size_t unused = 0, total = 0;
  return aclrtGetMemInfo(ACL_HBM_MEM, &unused, &total) == ACL_SUCCESS ? total : 0;
}
