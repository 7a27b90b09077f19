// A device by Lumen's interface: one queue, in order.
#include "hkgai_device.h"
#include <cstdio>
#include <cstdlib>
#include <lumen.h>

#ifndef HKGAI_THREADS
#define HKGAI_THREADS 256
#endif
static const long most_groups = 65535;
typedef int hk_start(const void *arguments, unsigned groups, unsigned workers);
extern hk_start *const hk_starts[];
struct hk_device {
  void *memory[4096];
  int count;
  char failure[256];
};
static void done(hk_device *d, int error, const char *what) {
  if (error && !d->failure[0]) snprintf(d->failure, sizeof d->failure, "%s: error %d", what, error);
}
const char *hk_device_failure(const hk_device *d) { return d->failure[0] ? d->failure : NULL; }
const char *hk_device_name(const hk_device *) { return "Lumen"; }
uint64_t hk_device_bytes(hk_device *) { return lu_bytes(); }
hk_device *hk_device_open(const char *, char *error, size_t n) {
  hk_device *d = (hk_device *)calloc(1, sizeof(hk_device));
  if (!d || lu_open(0)) {
    snprintf(error, n, "there is no device, or no memory");
    free(d);
    return NULL;
  }
  return d;
}
void hk_device_close(hk_device *d) {
  lu_wait();
  for (int i = 0; i < d->count; i++) lu_give(d->memory[i]);
  free(d);
}
char *hk_device_memory(hk_device *d, uint64_t bytes) {
  void *at = d->failure[0] || d->count == 4096 ? NULL : lu_take(bytes ? bytes : 1);
  if (at) d->memory[d->count++] = at;
  return (char *)at;
}
void hk_device_zero(hk_device *d, void *at, uint64_t bytes) { if (bytes) done(d, lu_fill(at, 0, bytes), "lu_fill"); }
void hk_device_upload(hk_device *d, void *to, const void *from, uint64_t bytes) { if (bytes) done(d, lu_send(to, from, bytes), "lu_send"), done(d, lu_wait(), "lu_wait"); }
void hk_device_download(hk_device *d, void *to, const void *from, uint64_t bytes) { if (bytes) done(d, lu_fetch(to, from, bytes), "lu_fetch"), done(d, lu_wait(), "lu_wait"); }
void hk_device_launch(hk_device *d, int kernel, const void *arguments, long blocks) {
  if (d->failure[0] || blocks <= 0) return;
  done(d, blocks > most_groups ? -1 : hk_starts[kernel](arguments, (unsigned)blocks, HKGAI_THREADS), hk_kernels[kernel].name);
}
int hk_device_record(hk_device *d, uint64_t) { return d->failure[0] ? 0 : 1; }
void hk_device_recorded(hk_device *, uint64_t) {}
