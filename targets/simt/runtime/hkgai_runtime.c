// The host's side of a device's program: files are mapped, weights copied to the device once, and a step is its rows up, kernels in order, logits down.
#define _GNU_SOURCE
#include "hkgai_runtime.h"
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

// ---- weights

static uint32_t hk_hash(const unsigned char *p, uint64_t n) { // FNV-1a
  uint32_t h = 2166136261u;
  for (uint64_t i = 0; i < n; i++) h = (h ^ p[i]) * 16777619u;
  return h;
}
static int hk_map(const struct hk_file *f, const char *dir, char **map, char *error, size_t n) {
  char path[4096];
  if ((size_t)snprintf(path, sizeof path, "%s/%s", dir, f->name) >= sizeof path) { snprintf(error, n, "the path of %s is too long", f->name); return 0; }
  const int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) { snprintf(error, n, "%s: %s", path, strerror(errno)); return 0; }
  struct stat s;
  if (fstat(fd, &s) != 0 || (uint64_t)s.st_size != f->bytes) {
    snprintf(error, n, "%s has %lld bytes, but this program was compiled for a file of %llu", path, (long long)s.st_size, (unsigned long long)f->bytes);
    close(fd);
    return 0;
  }
  char *p = mmap(NULL, f->bytes, PROT_READ, MAP_SHARED, fd, 0);
  close(fd);
  if (p == MAP_FAILED) { snprintf(error, n, "%s cannot be mapped: %s", path, strerror(errno)); return 0; }
  *map = p;
  madvise(p, f->bytes, MADV_SEQUENTIAL);
  if (hk_hash((const unsigned char *)p, f->header_bytes) != f->header_hash) {
    snprintf(error, n, "the header of %s is not the one that this program was compiled for", path);
    return 0;
  }
  return 1;
}
/** Every span to its place in the slab, file by file; a file is mapped only while it is copied. */
static int hk_copy_weights(struct hkgai *m, const char *dir, char *error, size_t n) {
  for (int f = 0; f < hk_file_count; f++) {
    char *map = NULL;
    const int ok = hk_map(&hk_files[f], dir, &map, error, n);
    for (int i = 0; ok && i < hk_span_count; i++)
      if (hk_spans[i].file == f && hk_spans[i].offset + hk_spans[i].bytes <= hk_files[f].bytes)
        hk_device_upload(m->device, m->slab + hk_spans[i].at, map + hk_spans[i].offset, hk_spans[i].bytes);
    if (map) munmap(map, hk_files[f].bytes);
    if (!ok) return 0;
  }
  return 1;
}
void hk_bind_members(struct hkgai *m, void *members, const struct hk_bind *binds, int count) {
  const void **to = members;
  for (int i = 0; i < count; i++) {
    switch (binds[i].kind) {
      case 'w': to[i] = m->slab + hk_spans[binds[i].first].at; break;
      case 't': to[i] = m->pointers + binds[i].first * sizeof(char *); break;
      case 's': to[i] = m->states[binds[i].first]; break;
      default: to[i] = m->arena + binds[i].first; break;
    }
  }
}

void hkgai_close(hkgai *m) {
  if (!m) return;
  if (m->device) hk_device_close(m->device);
  free(m->states);
  free(m->tables);
  free(m->plan);
  free(m->rows);
  free(m);
}
/** All memory of the device, in one order: weights, pointers, states, arena, rows, tables. */
static int hk_take_memory(struct hkgai *m, char *error, size_t n) {
  uint64_t asked = hk_slab_bytes + hk_info.arena_bytes;
  for (int i = 0; i < hk_state_count; i++) asked += hk_state_sizes[i];
  const uint64_t rows = 5 * (uint64_t)hk_info.chunk * sizeof(int32_t);
  int ok = (m->slab = hk_device_memory(m->device, hk_slab_bytes)) != NULL;
  ok = ok && (m->pointers = hk_device_memory(m->device, (uint64_t)(hk_span_count + 1) * sizeof(char *)));
  for (int i = 0; ok && i < hk_state_count; i++)
    if ((ok = (m->states[i] = hk_device_memory(m->device, hk_state_sizes[i])) != NULL)) hk_device_zero(m->device, m->states[i], hk_state_sizes[i]);
  ok = ok && (m->arena = hk_device_memory(m->device, hk_info.arena_bytes));
  ok = ok && (m->ids = (int32_t *)hk_device_memory(m->device, rows));
  for (int i = 0; ok && i < hk_table_count; i++) {
    const uint64_t bytes = hk_tables[i].count * sizeof(float);
    if ((ok = (m->tables[i] = (const float *)hk_device_memory(m->device, bytes)) != NULL)) hk_device_upload(m->device, (void *)m->tables[i], hk_tables[i].values, bytes);
  }
  if (ok) return 1;
  const char *failure = hk_device_failure(m->device);
  if (failure) snprintf(error, n, "%s", failure);
  else snprintf(error, n, "%s has %.2f GiB, and %.2f GiB for weights, caches and activations could not be had", hk_device_name(m->device), (double)hk_device_bytes(m->device) / (1 << 30), (double)asked / (1 << 30));
  return 0;
}
static const char *hk_directory(char *at, size_t n) {
  const ssize_t length = readlink("/proc/self/exe", at, n - 1);
  if (length <= 0) return ".";
  at[length] = 0;
  return dirname(at);
}
hkgai *hkgai_open(const char *weights, int threads, char *error, size_t n) {
  (void)threads; // the device's own
  char self[4096];
  hkgai *m = calloc(1, sizeof *m);
  if (!m) { snprintf(error, n, "no memory"); return NULL; }
  m->states = calloc((size_t)hk_state_count + 1, sizeof *m->states);
  m->tables = calloc((size_t)hk_table_count + 1, sizeof *m->tables);
  m->rows = calloc(5 * (size_t)hk_info.chunk, sizeof *m->rows);
  const char **pointers = calloc((size_t)hk_span_count + 1, sizeof *pointers);
  if (!m->states || !m->tables || !m->rows || !pointers) snprintf(error, n, "no memory");
  else if ((m->device = hk_device_open(hk_directory(self, sizeof self), error, n)) && hk_take_memory(m, error, n) && hk_copy_weights(m, weights, error, n)) {
    for (int i = 0; i < hk_span_count; i++) pointers[i] = m->slab + hk_spans[i].at;
    hk_device_upload(m->device, m->pointers, pointers, (uint64_t)hk_span_count * sizeof *pointers);
    m->next_ids = m->ids + hk_info.chunk;
    m->positions = m->next_ids + hk_info.chunk;
    m->sequences = m->positions + hk_info.chunk;
    m->wanted_rows = m->sequences + hk_info.chunk;
    hk_bind_model(m);
    const char *failure = m->plan ? hk_device_failure(m->device) : "no memory";
    if (!failure) { free(pointers); return m; }
    snprintf(error, n, "%s", failure);
  }
  free(pointers);
  hkgai_close(m);
  return NULL;
}
hkgai_info hkgai_about(void) { return hk_info; }
void hkgai_set_tap(hkgai *m, hkgai_tap tap, void *context) { m->tap = tap; m->tap_context = context; }
void hk_tap_value(struct hkgai *m, int layer, const char *name, char element, const void *data, long rows, long columns) {
  char full[160];
  if (layer < 0) snprintf(full, sizeof full, "%s", name);
  else snprintf(full, sizeof full, "layers.%d.%s", layer, name);
  const size_t bytes = (size_t)(rows * columns) * 4;
  void *host = malloc(bytes + 4);
  if (!host) return;
  hk_device_download(m->device, host, data, bytes);
  m->tap(m->tap_context, full, element, host, rows, columns);
  free(host);
}
/** Not measured here. */
double hkgai_bandwidth(hkgai *m) { (void)m; return 0; }

// ---- a step

static const char *hk_check(const hkgai_batch *b) {
  if (b->rows < 1 || b->rows > hk_info.chunk) return "a step has 1 to `chunk` rows";
  if (b->wanted < 0 || b->wanted > b->rows) return "more rows are wanted than there are";
  for (int i = 0; i < b->rows; i++) {
    if (b->ids[i] < 0 || b->ids[i] >= hk_info.vocab) return "a token id is outside the vocabulary";
    if (b->positions[i] < 0 || b->positions[i] >= hk_info.context) return "a position is outside the context";
    if (b->sequences[i] < 0 || b->sequences[i] >= hk_info.sequences) return "a sequence is outside the slots";
    if (b->next_ids && (b->next_ids[i] < 0 || b->next_ids[i] >= hk_info.vocab)) return "a next token id is outside the vocabulary";
    for (int j = 0; j < i; j++)
      if (b->sequences[j] == b->sequences[i] && b->positions[j] >= b->positions[i]) return "rows of a sequence must come in rising position";
  }
  for (int i = 0; i < b->wanted; i++) if (b->wanted_rows[i] < 0 || b->wanted_rows[i] >= b->rows) return "a wanted row is not in the step";
  return NULL;
}
const char *hkgai_step(hkgai *m, const hkgai_batch *b, float *logits, float *mtp_logits) {
  const char *wrong = hk_check(b);
  if (wrong) return wrong;
  if (mtp_logits && (hk_info.mtp == 0 || !b->next_ids)) return "there are no MTP logits to give";
  const size_t n = (size_t)b->rows * sizeof(int32_t), chunk = (size_t)hk_info.chunk;
  memcpy(m->rows, b->ids, n);
  if (b->next_ids) memcpy(m->rows + chunk, b->next_ids, n);
  memcpy(m->rows + 2 * chunk, b->positions, n);
  memcpy(m->rows + 3 * chunk, b->sequences, n);
  if (b->wanted) memcpy(m->rows + 4 * chunk, b->wanted_rows, (size_t)b->wanted * sizeof(int32_t));
  m->tokens = b->rows;
  m->wanted = b->wanted;
  m->with_mtp = b->next_ids != NULL && hk_info.mtp > 0;
  hk_device_upload(m->device, m->ids, m->rows, 5 * chunk * sizeof(int32_t));
  // kernels and their arguments depend on the numbers of rows alone; what stands in the rows, they read on the device
  const uint64_t key = m->tap || m->tokens > 8 ? 0 : ((uint64_t)m->tokens << 32 | (uint64_t)m->wanted << 1 | (uint64_t)m->with_mtp);
  if (!key) hk_forward(m);
  else if (hk_device_record(m->device, key)) { hk_forward(m); hk_device_recorded(m->device, key); }
  const size_t bytes = (size_t)b->wanted * (size_t)hk_info.vocab * sizeof(float);
  if (logits) hk_device_download(m->device, logits, m->arena + hk_logits_at, bytes);
  if (mtp_logits) hk_device_download(m->device, mtp_logits, m->arena + hk_mtp_logits_at, bytes);
  return hk_device_failure(m->device);
}
