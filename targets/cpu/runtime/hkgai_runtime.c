// Mapped weights, caches, and the checks of a step.
#define _GNU_SOURCE
#include "hkgai_runtime.h"
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
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
  madvise(p, f->bytes, MADV_WILLNEED);
  if (hk_hash((const unsigned char *)p, f->header_bytes) != f->header_hash) {
    snprintf(error, n, "the header of %s is not the one that this program was compiled for", path);
    return 0;
  }
  return 1;
}
void hk_bind_members(struct hkgai *m, void *members, const struct hk_bind *binds, int count) {
  const void **to = members;
  for (int i = 0; i < count; i++) {
    switch (binds[i].kind) {
      case 'w': to[i] = m->weights[binds[i].first]; break;
      case 't': to[i] = &m->weights[binds[i].first]; break;
      case 's': to[i] = m->states[binds[i].first]; break;
      default: to[i] = m->arena + binds[i].first; break;
    }
  }
}

void hkgai_close(hkgai *m) {
  if (!m) return;
  hk_pool_close(m->pool);
  for (int i = 0; m->maps && i < hk_file_count; i++) if (m->maps[i]) munmap(m->maps[i], hk_files[i].bytes);
  for (int i = 0; m->states && i < hk_state_count; i++) if (m->states[i]) munmap(m->states[i], hk_state_sizes[i] + 64);
  free(m->states);
  free(m->maps);
  free(m->weights);
  free(m->plan);
  if (m->arena) munmap(m->arena, hk_info.arena_bytes + 64);
  free(m->ids);
  free(m);
}
/** Zeroed memory whose pages are taken when they are first touched; NULL where the system would not promise so much. */
static char *hk_zeroed(uint64_t bytes) {
  void *p = mmap(NULL, bytes + 64, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return p == MAP_FAILED ? NULL : p;
}
hkgai *hkgai_open(const char *weights, int threads, char *error, size_t n) {
  const long processors = sysconf(_SC_NPROCESSORS_ONLN);
  if (threads <= 0) threads = processors > 0 ? (int)processors : 1;
  hkgai *m = calloc(1, sizeof *m);
  if (!m) { snprintf(error, n, "no memory"); return NULL; }
  m->maps = calloc((size_t)hk_file_count + 1, sizeof *m->maps);
  m->weights = calloc((size_t)hk_span_count + 1, sizeof *m->weights);
  m->states = calloc((size_t)hk_state_count + 1, sizeof *m->states);
  m->arena = hk_zeroed(hk_info.arena_bytes);
  m->ids = calloc(5 * (size_t)hk_info.chunk, sizeof *m->ids);
  m->pool = hk_pool_open(threads);
  int ok = m->maps && m->weights && m->states && m->arena && m->ids && m->pool;
  for (int i = 0; ok && i < hk_state_count; i++) ok = (m->states[i] = hk_zeroed(hk_state_sizes[i])) != NULL;
  if (!ok) {
    snprintf(error, n, "%.2f GiB for caches and activations could not be had", (double)(hk_info.state_bytes + hk_info.arena_bytes) / (1 << 30));
    hkgai_close(m);
    return NULL;
  }
  m->next_ids = m->ids + hk_info.chunk;
  m->positions = m->next_ids + hk_info.chunk;
  m->sequences = m->positions + hk_info.chunk;
  m->wanted_rows = m->sequences + hk_info.chunk;
  hk_interleave(1);
  int mapped = 0;
  while (mapped < hk_file_count && hk_map(&hk_files[mapped], weights, &m->maps[mapped], error, n)) mapped++;
  hk_interleave(0);
  if (mapped < hk_file_count) { hkgai_close(m); return NULL; }
  for (int i = 0; i < hk_span_count; i++) m->weights[i] = m->maps[hk_spans[i].file] + hk_spans[i].offset;
  hk_bind_model(m);
  if (!m->plan) { snprintf(error, n, "no memory"); hkgai_close(m); return NULL; }
  return m;
}
hkgai_info hkgai_about(void) { return hk_info; }
void hkgai_set_tap(hkgai *m, hkgai_tap tap, void *context) { m->tap = tap; m->tap_context = context; }
#ifdef HKGAI_TAPS
void hk_tap_value(struct hkgai *m, int layer, const char *name, char element, const void *data, long rows, long columns) {
  if (!m->tap) return;
  char full[160];
  if (layer < 0) snprintf(full, sizeof full, "%s", name);
  else snprintf(full, sizeof full, "layers.%d.%s", layer, name);
  m->tap(m->tap_context, full, element, data, rows, columns);
}
#endif

// ---- what memory gives

enum { hk_probe_block = 1 << 20 };
struct hk_probe { const char *data; uint64_t *sum; };
static void hk_read_blocks(const void *argument, long from, long to) {
  typedef uint64_t lanes __attribute__((vector_size(64), aligned(64)));
  const struct hk_probe *p = argument;
  lanes s[4] = {{0}, {0}, {0}, {0}};
  const lanes *v = (const lanes *)(p->data + from * hk_probe_block), *end = (const lanes *)(p->data + to * hk_probe_block);
  for (; v < end; v += 4) { s[0] ^= v[0]; s[1] ^= v[1]; s[2] ^= v[2]; s[3] ^= v[3]; }
  s[0] ^= s[1] ^ s[2] ^ s[3];
  uint64_t all = 0;
  for (int i = 0; i < 8; i++) all ^= s[0][i];
  __atomic_fetch_xor(p->sum, all, __ATOMIC_RELAXED);
}
double hkgai_bandwidth(hkgai *m) {
  const long blocks = 256;
  void *data = NULL;
  if (posix_memalign(&data, 64, (size_t)blocks * hk_probe_block) != 0) return 0;
  memset(data, 1, (size_t)blocks * hk_probe_block);
  uint64_t sum = 0;
  double best = 0;
  for (int i = 0; i < 5; i++) {
    struct timespec a, b;
    clock_gettime(CLOCK_MONOTONIC, &a);
    hk_run(m->pool, hk_read_blocks, &(struct hk_probe){data, &sum}, blocks);
    clock_gettime(CLOCK_MONOTONIC, &b);
    const double seconds = (double)(b.tv_sec - a.tv_sec) + (double)(b.tv_nsec - a.tv_nsec) * 1e-9;
    if (seconds > 0 && (double)blocks * hk_probe_block / seconds > best) best = (double)blocks * hk_probe_block / seconds;
  }
  free(data);
  return best;
}

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
  const size_t n = (size_t)b->rows * sizeof(int32_t);
  memcpy(m->ids, b->ids, n);
  memcpy(m->positions, b->positions, n);
  memcpy(m->sequences, b->sequences, n);
  if (b->next_ids) memcpy(m->next_ids, b->next_ids, n);
  if (b->wanted) memcpy(m->wanted_rows, b->wanted_rows, (size_t)b->wanted * sizeof(int32_t));
  m->tokens = b->rows;
  m->wanted = b->wanted;
  m->with_mtp = b->next_ids != NULL && hk_info.mtp > 0;
  hk_forward(m);
  const size_t bytes = (size_t)b->wanted * (size_t)hk_info.vocab * sizeof(float);
  if (logits) memcpy(logits, m->arena + hk_logits_at, bytes);
  if (mtp_logits) memcpy(mtp_logits, m->arena + hk_mtp_logits_at, bytes);
  return NULL;
}
