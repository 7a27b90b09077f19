// Threads that share the blocks of a launch. A launch is cut into pieces of consecutive blocks and whoever is free takes the next piece, so a thread
// that another program has put aside holds up one piece, not its share of all. Workers spin a while for the next launch, then sleep.
//
// `ticket` says which launch is open and how many of its pieces are taken. A piece is taken by exchanging the ticket, which fails where the launch
// is another one by now, so a worker that comes late never works on what is over. A launch ends when its pieces are done, whoever did them.
//
// Where memory lies on several nodes, every worker stays on a processor of its own, spread over cores and so over nodes, and files that are mapped
// while a pool is opened are laid on all nodes in turn (hk_interleave): every thread reads every weight, so no node's memory should serve them all.
// HKGAI_PIN=0 leaves threads where the system puts them; HKGAI_PIN=1 pins on one node too, which loses where other programs want the same cores.
// A system that does not allow it is no error. What a thread writes first lies on its node by itself. Weights are not copied for each node.
#define _GNU_SOURCE
#include "hkgai_pool.h"
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifdef __linux__
#include <sys/syscall.h>
#include <unistd.h>
#endif

#if defined(__x86_64__)
#define HK_PAUSE() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define HK_PAUSE() __asm__ volatile("yield")
#else
#define HK_PAUSE() ((void)0)
#endif
enum { hk_spins = 20000, hk_pieces_a_thread = 8 };
static const uint64_t hk_launch = (uint64_t)1 << 24, hk_closed = ((uint64_t)1 << 24) - 1; // pieces are counted below, launches above

struct hk_pool {
  int threads, asked;
  atomic_int started;
  pthread_t *workers;
  pthread_mutex_t lock;
  pthread_cond_t wake;
  _Alignas(64) atomic_uint_fast64_t ticket;
  _Alignas(64) atomic_long done;
  _Alignas(64) atomic_long pieces; // of the open launch
  atomic_int sleeping, stop;
  hk_task task;
  const void *arguments;
  long count;
};

// ---- which processor

#ifdef __linux__
/** The first line of a small file of the system; empty where there is none. */
static void hk_line(const char *path, char *to, int n) {
  to[0] = 0;
  FILE *f = fopen(path, "r");
  if (!f) return;
  if (!fgets(to, n, f)) to[0] = 0;
  fclose(f);
}
/** Lists are written 0-3,8: more than one node. */
static int hk_many_nodes(char line[256]) {
  hk_line("/sys/devices/system/node/online", line, 256);
  return strpbrk(line, "-,") != NULL;
}
static int hk_pins(void) {
  const char *said = getenv("HKGAI_PIN");
  char line[256];
  return said && *said ? strcmp(said, "0") != 0 : hk_many_nodes(line);
}
/** The processor of a worker: the first of each core before their siblings, evenly over those that this process may use; -1 is any. */
static int hk_place(int worker, int threads) {
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof allowed, &allowed) != 0 || threads > CPU_COUNT(&allowed)) return -1;
  int processors[CPU_SETSIZE], cores = 0, count = 0;
  for (int sibling = 0; sibling < 2; sibling++)
    for (int c = 0; c < CPU_SETSIZE; c++) {
      if (!CPU_ISSET(c, &allowed)) continue;
      char path[96], line[64];
      snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", c);
      hk_line(path, line, sizeof line);
      const int first = line[0] ? atoi(line) : c;
      if ((first != c && CPU_ISSET(first, &allowed)) != sibling) continue;
      processors[count++] = c;
      cores += !sibling;
    }
  return threads <= cores ? processors[(long)worker * cores / threads] : processors[worker];
}
static void hk_pin(int worker, int threads) {
  const int processor = hk_pins() ? hk_place(worker, threads) : -1;
  if (processor < 0) return;
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(processor, &one);
  sched_setaffinity(0, sizeof one, &one); // where it is not allowed, the system goes on choosing
}
void hk_interleave(int on) {
  char line[256];
  if (!hk_pins() || !hk_many_nodes(line)) return;
  unsigned long nodes[16] = {0}; // as the system writes them: 0-3,8
  for (char *at = line; *at >= '0' && *at <= '9';) {
    const long from = strtol(at, &at, 10), to = *at == '-' ? strtol(at + 1, &at, 10) : from;
    for (long i = from; i <= to && i < (long)sizeof nodes * 8; i++) nodes[i / (8 * (long)sizeof *nodes)] |= 1ul << i % (8 * (long)sizeof *nodes);
    if (*at == ',') at++;
  }
  // MPOL_INTERLEAVE is 3 and MPOL_DEFAULT 0 in linux/mempolicy.h
  if (on) syscall(SYS_set_mempolicy, 3, nodes, sizeof nodes * 8);
  else syscall(SYS_set_mempolicy, 0, NULL, 0);
}
#else
static void hk_pin(int worker, int threads) { (void)worker, (void)threads; }
void hk_interleave(int on) { (void)on; }
#endif

// ---- launches

/** Take and do pieces of the open launch until none is left. */
static void hk_share(struct hk_pool *p) {
  for (;;) {
    uint64_t ticket = atomic_load(&p->ticket);
    const long piece = (long)(ticket & hk_closed), pieces = atomic_load(&p->pieces);
    if (piece >= pieces) return;
    if (!atomic_compare_exchange_weak(&p->ticket, &ticket, ticket + 1)) continue;
    p->task(p->arguments, p->count * piece / pieces, p->count * (piece + 1) / pieces);
    atomic_fetch_add_explicit(&p->done, 1, memory_order_release);
  }
}
static int hk_idle(struct hk_pool *p) { return (long)(atomic_load(&p->ticket) & hk_closed) >= atomic_load(&p->pieces) && !atomic_load(&p->stop); }
static void *hk_work(void *argument) {
  struct hk_pool *p = argument;
  hk_pin(atomic_fetch_add(&p->started, 1) + 1, p->asked);
  while (!atomic_load(&p->stop)) {
    for (int i = 0; i < hk_spins && hk_idle(p); i++) HK_PAUSE();
    if (hk_idle(p)) {
      pthread_mutex_lock(&p->lock);
      atomic_fetch_add(&p->sleeping, 1);
      while (hk_idle(p)) pthread_cond_wait(&p->wake, &p->lock);
      atomic_fetch_sub(&p->sleeping, 1);
      pthread_mutex_unlock(&p->lock);
    }
    hk_share(p);
  }
  return NULL;
}
static void hk_wake(struct hk_pool *p) {
  if (atomic_load(&p->sleeping) == 0) return;
  pthread_mutex_lock(&p->lock);
  pthread_cond_broadcast(&p->wake);
  pthread_mutex_unlock(&p->lock);
}
void hk_run(struct hk_pool *p, hk_task task, const void *arguments, long count) {
  if (count <= 0) return;
  if (p->threads == 1 || count == 1) {
    task(arguments, 0, count);
    return;
  }
  const uint64_t ticket = atomic_load(&p->ticket) | hk_closed; // the last launch takes nobody any more
  atomic_store(&p->ticket, ticket);
  const long most = (long)p->threads * hk_pieces_a_thread, pieces = count < most ? count : most;
  p->task = task;
  p->arguments = arguments;
  p->count = count;
  atomic_store(&p->done, 0);
  atomic_store(&p->pieces, pieces);
  atomic_store(&p->ticket, (ticket & ~hk_closed) + hk_launch);
  hk_wake(p);
  hk_share(p);
  // a worker may have lost its processor to another program: give ours away after a while rather than spin against it
  for (long i = 0; atomic_load_explicit(&p->done, memory_order_acquire) < pieces; i++) {
    if (i < hk_spins) HK_PAUSE();
    else sched_yield();
  }
}
struct hk_pool *hk_pool_open(int threads) {
  struct hk_pool *p = NULL;
  if (posix_memalign((void **)&p, 64, sizeof *p) != 0) return NULL;
  *p = (struct hk_pool){.threads = 1, .asked = threads};
  pthread_mutex_init(&p->lock, NULL);
  pthread_cond_init(&p->wake, NULL);
  atomic_store(&p->ticket, hk_closed);
  p->workers = calloc((size_t)threads, sizeof *p->workers);
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, 16 << 20); // tiles lie on the stack
  for (int i = 1; p->workers && i < threads; i++) {
    if (pthread_create(&p->workers[i], &attributes, hk_work, p) != 0) break;
    p->threads = i + 1;
  }
  pthread_attr_destroy(&attributes);
  return p;
}
void hk_pool_close(struct hk_pool *p) {
  if (!p) return;
  atomic_store(&p->stop, 1);
  pthread_mutex_lock(&p->lock);
  pthread_cond_broadcast(&p->wake);
  pthread_mutex_unlock(&p->lock);
  for (int i = 1; i < p->threads; i++) pthread_join(p->workers[i], NULL);
  pthread_mutex_destroy(&p->lock);
  pthread_cond_destroy(&p->wake);
  free(p->workers);
  free(p);
}
