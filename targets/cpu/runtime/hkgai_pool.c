// Threads that share the blocks of a launch. A launch is cut into pieces of consecutive blocks and whoever is free takes the next piece, so a thread
// that another program has put aside holds up one piece, not its share of all. Workers spin a while for the next launch, then sleep.
//
// `ticket` says which launch is open and how many of its pieces are taken. A piece is taken by exchanging the ticket, which fails where the launch
// is another one by now, so a worker that comes late never works on what is over. A launch ends when its pieces are done, whoever did them.
#include "hkgai_pool.h"
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>

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
  int threads;
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
  *p = (struct hk_pool){.threads = 1};
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
