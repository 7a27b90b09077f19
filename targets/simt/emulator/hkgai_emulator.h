// A block of threads on a CPU, stricter than a chip. Threads are fibers that run to a barrier in an order that changes every time; their number
// divides nothing; tiles know who touched each element since the last barrier, so a missing one shows even where the values come out right; a barrier
// that some threads do not reach ends the program; what a block declares in shared memory is counted against the chip's limit.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <ucontext.h>
#include <vector>

#ifndef EMULATED_THREADS
#define EMULATED_THREADS 7
#endif
namespace emulator {
inline int thread, threads = EMULATED_THREADS;
inline long block, phase, races, shared_bytes, shared_limit = 1 << 30;
inline ucontext_t scheduler, fibers[64];
inline bool ended[64];
inline const std::function<void()> *work;
inline void wrong(const char *what) { std::printf("emulator: %s\n", what); std::exit(2); }
inline void run_fiber(int t) { (*work)(); ended[t] = true; swapcontext(&fibers[t], &scheduler); }
inline void barrier() { swapcontext(&fibers[thread], &scheduler); }

/** One element of a shared tile. */
template <class T> struct cell { T v; long wrote, read; int writer, reader; };
template <class T> struct reference {
  cell<T> *c;
  operator T() const {
    if (c->wrote == phase && c->writer != thread) races++;
    c->reader = c->read == phase && c->reader != thread ? -1 : thread;
    c->read = phase;
    return c->v;
  }
  const reference &operator=(T x) const {
    if ((c->wrote == phase && c->writer != thread) || (c->read == phase && c->reader != thread)) races++;
    c->writer = thread;
    c->wrote = phase;
    c->v = x;
    return *this;
  }
  const reference &operator=(const reference &o) const { return *this = (T)o; }
};
/** A tile's raw numbers for an index: read as the tile is. */
template <class T, int N> struct shared_tile {
  cell<T> cells[N];
  T raw[N];
  shared_tile() { shared_bytes += N * (long)sizeof(T); if (shared_bytes > shared_limit) wrong("a block declares more shared memory than the chip has"); for (auto &c : cells) c = {T(), -1, -1, 0, 0}; }
  reference<T> operator[](long i) { if (i < 0 || i >= N) wrong("a tile is touched outside"); return {&cells[i]}; }
  const T *data(long from) { for (int i = 0; i < N; i++) raw[i] = cells[i].v; return raw + from; }
};
inline void run_block(long number, const std::function<void()> &f) {
  static std::vector<char> stacks(64 * 262144);
  block = number;
  work = &f;
  for (int t = 0; t < threads; t++) {
    getcontext(&fibers[t]);
    fibers[t].uc_stack.ss_sp = stacks.data() + t * 262144;
    fibers[t].uc_stack.ss_size = 262144;
    fibers[t].uc_link = &scheduler;
    makecontext(&fibers[t], (void (*)())run_fiber, 1, t);
    ended[t] = false;
  }
  static unsigned seed = 1;
  for (int left = threads; left > 0;) {
    phase++;
    seed = seed * 1103515245u + 12345u;
    const int start = (int)(seed >> 16) % threads, step = seed >> 30 & 1 ? 1 : threads - 1;
    int went = 0, finished = 0;
    for (int i = 0; i < threads; i++) {
      const int t = (start + i * step) % threads;
      if (ended[t]) continue;
      went++;
      thread = t;
      swapcontext(&scheduler, &fibers[t]);
      finished += ended[t];
    }
    if (finished && finished != went) wrong("some threads of a block ended while others wait at a barrier");
    left -= finished;
  }
  phase++;
}
/** All blocks, in an order that is not theirs. */
inline void run_grid(long blocks, const std::function<void()> &f) {
  shared_bytes = 0;
  const long step = blocks % 3 ? 3 : blocks % 5 ? 5 : blocks % 7 ? 7 : 1;
  const long before = races;
  for (long i = 0; i < blocks; i++) run_block(i * step % blocks, f);
  if (races != before) wrong("threads of a block touch the same element with no barrier between");
}
}
#define DEVICE
#define SHARED static
#define THREAD emulator::thread
#define THREADS emulator::threads
#define BARRIER emulator::barrier()
template <class T, int N> using tile = emulator::shared_tile<T, N>;
