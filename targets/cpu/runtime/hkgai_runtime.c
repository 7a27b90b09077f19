// Threads, mapped weights, caches, and the checks of a step.
#define _GNU_SOURCE
#include "hkgai_runtime.h"
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

// ---- threads: workers spin a while for the next task, then sleep

#if defined(__x86_64__)
#define HK_PAUSE() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define HK_PAUSE() __asm__ volatile("yield")
#else
#define HK_PAUSE() ((void)0)
#endif
enum { hk_spins = 20000 };

struct hk_pool {
  int threads;
  pthread_t *workers;
  pthread_mutex_t lock;
  pthread_cond_t wake;
  atomic_long turn; // counts tasks; a worker has seen a task when its own count equals this
  atomic_int left, sleeping;
  int stop;
  hk_task task;
  const void *arguments;
  long count;
};
struct hk_worker { struct hk_pool *pool; int number; };

static void hk_share(struct hk_pool *p, int number) {
  const long from = p->count * number / p->threads, to = p->count * (number + 1) / p->threads;
  if (from < to) p->task(p->arguments, from, to);
}
static void *hk_work(void *argument) {
  struct hk_worker *w = argument;
  struct hk_pool *p = w->pool;
  const int number = w->number;
  free(w);
  for (long seen = 0;;) {
    for (int i = 0; i < hk_spins && atomic_load_explicit(&p->turn, memory_order_acquire) == seen; i++) HK_PAUSE();
    if (atomic_load(&p->turn) == seen) {
      pthread_mutex_lock(&p->lock);
      atomic_fetch_add(&p->sleeping, 1);
      while (atomic_load(&p->turn) == seen) pthread_cond_wait(&p->wake, &p->lock);
      atomic_fetch_sub(&p->sleeping, 1);
      pthread_mutex_unlock(&p->lock);
    }
    seen++;
    if (p->stop) return NULL;
    hk_share(p, number);
    atomic_fetch_sub_explicit(&p->left, 1, memory_order_release);
  }
}
static void hk_start(struct hk_pool *p) {
  atomic_fetch_add(&p->turn, 1);
  if (atomic_load(&p->sleeping) > 0) {
    pthread_mutex_lock(&p->lock);
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->lock);
  }
}
void hk_run(struct hk_pool *p, hk_task task, const void *arguments, long count) {
  if (count <= 0) return;
  if (p->threads == 1 || count == 1) {
    task(arguments, 0, count);
    return;
  }
  p->task = task;
  p->arguments = arguments;
  p->count = count;
  atomic_store(&p->left, p->threads - 1);
  hk_start(p);
  hk_share(p, 0);
  // a worker may have lost its processor to another program: give ours away after a while rather than spin against it
  for (long i = 0; atomic_load_explicit(&p->left, memory_order_acquire) > 0; i++) {
    if (i < hk_spins) HK_PAUSE();
    else sched_yield();
  }
}
static struct hk_pool *hk_pool_open(int threads) {
  struct hk_pool *p = calloc(1, sizeof *p);
  if (!p) return NULL;
  pthread_mutex_init(&p->lock, NULL);
  pthread_cond_init(&p->wake, NULL);
  p->workers = calloc((size_t)threads, sizeof *p->workers);
  p->threads = 1;
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, 16 << 20); // tiles lie on the stack
  for (int i = 1; p->workers && i < threads; i++) {
    struct hk_worker *w = malloc(sizeof *w);
    if (!w) break;
    *w = (struct hk_worker){p, i};
    if (pthread_create(&p->workers[i], &attributes, hk_work, w) != 0) { free(w); break; }
    p->threads = i + 1;
  }
  pthread_attr_destroy(&attributes);
  return p;
}
static void hk_pool_close(struct hk_pool *p) {
  if (!p) return;
  p->stop = 1;
  hk_start(p);
  for (int i = 1; i < p->threads; i++) pthread_join(p->workers[i], NULL);
  free(p->workers);
  free(p);
}

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
  for (int i = 0; m->states && i < hk_state_count; i++) free(m->states[i]);
  free(m->states);
  free(m->maps);
  free(m->weights);
  free(m->plan);
  free(m->arena);
  free(m->ids);
  free(m);
}
static char *hk_zeroed(uint64_t bytes) {
  void *p = NULL;
  if (posix_memalign(&p, 64, bytes + 64) != 0) return NULL;
  return memset(p, 0, bytes + 64);
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
  for (int i = 0; i < hk_file_count; i++)
    if (!hk_map(&hk_files[i], weights, &m->maps[i], error, n)) { hkgai_close(m); return NULL; }
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
