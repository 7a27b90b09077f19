// Threads of a grid on a CPU, stricter than a chip. Threads are fibers that run to a barrier or a warp's primitive in an order drawn anew each time;
// blocks run in an order that is not theirs. Tiles know who touched each element since the last barrier, so a missing one shows even where values come
// out right; what nobody wrote in this block may not be read. Every fault ends the program with its kernel, block, thread and line (docs/emulators.md).
// A dialect's header says EMULATED_LIMITS, and EMULATED_MASKS_IGNORED where its chips ignore the masks of shuffles, before it includes this one.
// Plain arrays in shared memory, pointers to global memory and alignments are watched too in programs built as hkgai_watch.h says.
#pragma once
#include "../../emulator/hkgai_report.h"
#include <cmath>
#include <cstddef>
#include <csetjmp>
#include <functional>
#include <type_traits>
#include <vector>

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c) {}
};
inline dim3 threadIdx, blockIdx, blockDim, gridDim;

#ifndef EMULATED_THREADS
#define EMULATED_THREADS 7 // of printed kernels: divides nothing, so that nothing comes out right by luck
#endif
#ifndef EMULATED_LIMITS
#define EMULATED_LIMITS {1024, {1024, 1024, 64}, {2147483647, 65535, 65535}, 49152, 49152, false}
#endif
#ifdef EMULATED_MASKS_IGNORED
#define EMULATOR_MASKS_IGNORED true
#else
#define EMULATOR_MASKS_IGNORED false
#endif
namespace emulator {
/** What a launch may ask for; whole_warps where a block must be made of them. */
struct limits_of_launch {
  unsigned threads, block[3], grid[3];
  size_t shared, shared_at_launch;
  bool whole_warps;
};
inline limits_of_launch limits = EMULATED_LIMITS;
/** Bytes that a block may declare. */
inline long shared_limit = (long)limits.shared;
constexpr bool masks_ignored = EMULATOR_MASKS_IGNORED;
constexpr int most_threads = 1024, stack_bytes = 65536;

// ---- threads

enum state_t { ready, at_barrier, at_warp, ended };
enum warp_op { op_shuffle, op_vote, op_sync, op_match, op_mma_bf16, op_mma_f16, op_mma_s8, op_mma_e4m3 };
struct fiber {
  jmp_buf at;
  char *stack;
  bool started;
  state_t state;
  // where it waits, and with what
  const char *file, *call;
  int line;
  warp_op op;
  unsigned mask;
  int source;
  uint32_t in[10], out[4];
};
inline fiber fibers[most_threads];
inline jmp_buf scheduler;
inline ucontext_t first_context;
inline int thread = 0, threads = EMULATED_THREADS;
/** Counts stretches between barriers, over the whole run of the program, and blocks. */
inline int phase = 0, block_first_phase = 0, block_serial = 0, launch_first_block = 0, launches = 0;
inline int warp_syncs[most_threads / 32];
inline long block = 0;
inline size_t shared_bytes = 0;
inline void (*work)(void *);
inline void *work_of;
inline void (*on_block)() = nullptr, (*on_block_end)() = nullptr, (*on_thread_end)() = nullptr; // hkgai_watch.h
inline char *stacks = nullptr;

EMULATOR_QUIET inline void say_thread(char *to, size_t room) {
  if (gridDim.y * gridDim.z > 1) std::snprintf(to, room, "block (%u, %u, %u), thread %d", blockIdx.x, blockIdx.y, blockIdx.z, thread);
  else std::snprintf(to, room, "block %u, thread %d", blockIdx.x, thread);
}
EMULATOR_QUIET inline void park() {
  if (_setjmp(fibers[thread].at) == 0) _longjmp(scheduler, 1);
}
EMULATOR_QUIET inline void run_fiber() {
  for (;;) {
    work(work_of);
    if (on_thread_end) on_thread_end();
    fibers[thread].state = ended;
    park();
  }
}
EMULATOR_QUIET inline void resume(int t) {
  thread = t;
  threadIdx = dim3((unsigned)t % blockDim.x, (unsigned)t / blockDim.x % blockDim.y, (unsigned)t / (blockDim.x * blockDim.y));
  fiber &f = fibers[t];
  if (_setjmp(scheduler) != 0) return;
  if (f.started) _longjmp(f.at, 1);
  f.started = true;
  if (!stacks) {
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    stacks = (char *)mmap(nullptr, (size_t)most_threads * stack_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    for (int i = 0; i < most_threads; i++) mprotect(stacks + (size_t)i * stack_bytes, page, PROT_NONE);
  }
  f.stack = stacks + (size_t)t * stack_bytes;
  getcontext(&first_context);
  first_context.uc_stack.ss_sp = f.stack;
  first_context.uc_stack.ss_size = stack_bytes;
  first_context.uc_link = nullptr;
  makecontext(&first_context, run_fiber, 0);
  setcontext(&first_context);
}
/** A wait of a block's threads for each other. */
EMULATOR_QUIET inline void barrier(const char *file = __builtin_FILE(), int line = __builtin_LINE()) {
  fiber &f = fibers[thread];
  f.state = at_barrier;
  f.call = "__syncthreads()";
  f.file = file;
  f.line = line;
  park();
}

// ---- warps

EMULATOR_QUIET inline int lane() { return thread % 32; }
EMULATOR_QUIET inline void describe_thread(int t, char *to, size_t room) {
  if (t >= threads) { std::snprintf(to, room, "which the block does not have"); return; }
  const fiber &f = fibers[t];
  const char *name = f.file ? (std::strrchr(f.file, '/') ? std::strrchr(f.file, '/') + 1 : f.file) : "";
  if (f.state == ended) std::snprintf(to, room, "which has ended");
  else if (f.state == at_barrier) std::snprintf(to, room, "which waits at __syncthreads() in line %d of %s", f.line, name);
  else std::snprintf(to, room, "which waits in %s with mask 0x%08x in line %d of %s", f.call, f.mask, f.line, name);
}
EMULATOR_QUIET inline float bf16_of(uint32_t h) { const uint32_t u = h << 16; float f; std::memcpy(&f, &u, 4); return f; }
EMULATOR_QUIET inline float f16_of(uint32_t h) {
  const int e = h >> 10 & 31, m = h & 1023;
  const float v = e == 31 ? (m ? NAN : INFINITY) : e ? std::ldexp(1024.0f + (float)m, e - 25) : std::ldexp((float)m, -24);
  return h & 0x8000 ? -v : v;
}
EMULATOR_QUIET inline float e4m3_of(uint32_t b) {
  const int e = b >> 3 & 15, m = b & 7;
  const float v = e == 15 && m == 7 ? NAN : e ? std::ldexp(8.0f + (float)m, e - 10) : std::ldexp((float)m, -9);
  return b & 0x80 ? -v : v;
}
/**
 * D = A B + C of a whole warp. Fragments as PTX ISA 9.2 has them, 9.7.14.5.8 (m16n8k16, 16-bit floats) and 9.7.14.5.10 (m16n8k32, bytes): with
 * g = lane / 4 and t = lane % 4, a register of A holds row g (registers 0 and 2) or g + 8 (1 and 3), and a register of B column g; both hold the
 * columns of k from t * per on, in the second half of k for registers 2 and 3 of A and 1 of B. C and D: rows g and g + 8, columns 2 t and 2 t + 1.
 */
EMULATOR_QUIET inline void multiply_warp(int first, warp_op op) {
  const int per = op == op_mma_bf16 || op == op_mma_f16 ? 2 : 4, depth = 8 * per;
  static float a[16][32], b[32][8];
  static int32_t ai[16][32], bi[32][8];
  for (int l = 0; l < 32; l++) {
    const int g = l / 4, t = l % 4;
    const uint32_t *in = fibers[first + l].in;
    for (int r = 0; r < 6; r++)
      for (int j = 0; j < per; j++) {
        const uint32_t bits = per == 2 ? in[r] >> 16 * j & 0xffff : in[r] >> 8 * j & 0xff;
        const bool left = r < 4;
        const int k = t * per + j + (left ? r / 2 : r - 4) * (depth / 2);
        const float v = op == op_mma_bf16 ? bf16_of(bits) : op == op_mma_f16 ? f16_of(bits) : op == op_mma_e4m3 ? e4m3_of(bits) : 0.0f;
        if (left) a[g + r % 2 * 8][k] = v, ai[g + r % 2 * 8][k] = (int8_t)bits;
        else b[k][g] = v, bi[k][g] = (int8_t)bits;
      }
  }
  for (int l = 0; l < 32; l++) {
    const int g = l / 4, t = l % 4;
    fiber &f = fibers[first + l];
    for (int i = 0; i < 4; i++) {
      const int row = g + i / 2 * 8, col = 2 * t + i % 2;
      if (op == op_mma_s8) {
        int32_t s;
        std::memcpy(&s, &f.in[6 + i], 4);
        for (int k = 0; k < depth; k++) s += ai[row][k] * bi[k][col];
        std::memcpy(&f.out[i], &s, 4);
      } else {
        float s;
        std::memcpy(&s, &f.in[6 + i], 4);
        for (int k = 0; k < depth; k++) s += a[row][k] * b[k][col];
        std::memcpy(&f.out[i], &s, 4);
      }
    }
  }
}
/** Lets go the lanes of a warp that all wait for the same thing; false where none may. */
EMULATOR_QUIET inline bool release_warp(int first) {
  bool released = false;
  for (int l = 0; l < 32 && first + l < threads; l++) {
    fiber &f = fibers[first + l];
    if (f.state != at_warp) continue;
    const unsigned mask = masks_ignored ? 0xffffffffu : f.mask;
    bool all = true;
    for (int m = 0; m < 32 && all; m++)
      if (mask >> m & 1) {
        const int t = first + m;
        all = t < threads && fibers[t].state == at_warp && fibers[t].op == f.op && (masks_ignored ? fibers[t].line == f.line : fibers[t].mask == f.mask);
      }
    if (!all) continue;
    if (f.op >= op_mma_bf16) multiply_warp(first, f.op);
    unsigned votes = 0;
    if (f.op == op_vote)
      for (int m = 0; m < 32; m++)
        if (mask >> m & 1 && fibers[first + m].in[0]) votes |= 1u << m;
    if (f.op == op_sync) warp_syncs[first / 32]++;
    for (int m = 0; m < 32; m++)
      if (mask >> m & 1) {
        fiber &g = fibers[first + m];
        if (g.op == op_shuffle) {
          const fiber &s = fibers[first + g.source];
          if (!(mask >> g.source & 1)) { thread = first + m; fail_at(g.file, g.line, "a shuffle reads a lane that its mask does not name"); }
          g.out[0] = s.in[0], g.out[1] = s.in[1];
        } else if (g.op == op_vote) g.out[0] = votes;
      }
    for (int m = 0; m < 32; m++)
      if (mask >> m & 1) fibers[first + m].state = ready;
    released = true;
  }
  return released;
}
/** Waits for the lanes of a mask, then has what the scheduler made of what they brought. */
EMULATOR_QUIET inline fiber &meet(warp_op op, const char *call, unsigned mask, const char *file, int line) {
  fiber &f = fibers[thread];
  f.call = call;
  f.file = file;
  f.line = line;
  f.op = op;
  f.mask = mask;
  if (!masks_ignored && !(mask >> lane() & 1)) {
    static char what[200];
    std::snprintf(what, sizeof what, "%s with mask 0x%08x, which does not name the calling lane %d", call, mask, lane());
    fail_at(file, line, what);
  }
  f.state = at_warp;
  park();
  return fibers[thread];
}
template <class T> EMULATOR_QUIET inline T shuffle(const char *call, unsigned mask, T v, int source, const char *file, int line) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8, "a shuffle moves 4 or 8 bytes");
  fiber &f = fibers[thread];
  std::memcpy(f.in, &v, sizeof v);
  f.source = source;
  fiber &g = meet(op_shuffle, call, mask, file, line);
  std::memcpy(&v, g.out, sizeof v);
  return v;
}

// ---- tiles

inline void (*on_tile_write)(const void *, size_t) = nullptr; // hkgai_watch.h: what is written here may be read as an index, past the tile
struct stamp { int wrote, read; short writer, reader; };
/** One element of a tile of shared memory. */
template <class T, int N> struct shared_tile;
template <class T, int N> struct reference {
  shared_tile<T, N> *t;
  long i;
  EMULATOR_QUIET operator T() const {
    stamp &s = t->stamps[i];
    if (s.wrote < block_first_phase) fail("element %ld of a tile is read before any thread of the block wrote it", i);
    if (s.wrote == phase && s.writer != thread) fail("element %ld of a tile is read with no barrier after thread %d wrote it", i, s.writer);
    s.reader = s.read == phase && s.reader != thread ? -1 : (short)thread;
    s.read = phase;
    return t->v[i];
  }
  EMULATOR_QUIET const reference &operator=(T x) const {
    stamp &s = t->stamps[i];
    if (s.wrote == phase && s.writer != thread) fail("element %ld of a tile is written with no barrier after thread %d wrote it", i, s.writer);
    if (s.read == phase && s.reader != thread) fail("element %ld of a tile is written with no barrier after %s%d read it", i, s.reader < 0 ? "several threads, not only " : "thread ", s.reader < 0 ? thread : s.reader);
    s.writer = (short)thread;
    s.wrote = phase;
    t->v[i] = x;
    if (on_tile_write) on_tile_write(&t->v[i], sizeof(T));
    return *this;
  }
  EMULATOR_QUIET const reference &operator=(const reference &o) const { return *this = (T)o; }
};
/** A tile of shared memory: no constructor, since a chip's has none; a block finds it unwritten. */
template <class T, int N> struct shared_tile {
  T v[N];
  stamp stamps[N];
  int launch;
  EMULATOR_QUIET reference<T, N> operator[](long i) {
    if (launch != launches) {
      launch = launches;
      shared_bytes += N * sizeof(T);
      if ((long)shared_bytes > shared_limit) fail("a block declares %zu bytes of shared memory, and the chip has %ld", shared_bytes, shared_limit);
    }
    if (i < 0 || i >= N) fail("element %ld of a tile of %d is touched", i, N);
    return {this, i};
  }
  /** A tile's numbers for an index: read as they are. */
  EMULATOR_QUIET const T *data(long from) { return v + from; }
};

// ---- blocks and grids

EMULATOR_QUIET inline void divergent(int waits) {
  char other[200];
  int t = 0;
  while (t < threads && fibers[t].state == at_barrier && fibers[t].line == fibers[waits].line && fibers[t].file == fibers[waits].file) t++;
  describe_thread(t, other, sizeof other);
  int waiting = 0;
  for (int i = 0; i < threads; i++) waiting += fibers[i].state == at_barrier && fibers[i].line == fibers[waits].line;
  thread = waits;
  static char what[400];
  std::snprintf(what, sizeof what, "%d of %d threads wait at __syncthreads() here, but not thread %d, %s", waiting, threads, t, other);
  fail_at(fibers[waits].file, fibers[waits].line, what);
}
EMULATOR_QUIET inline void stuck(int t) {
  const fiber &f = fibers[t];
  char other[200] = "";
  int missing = 0;
  const unsigned mask = masks_ignored ? 0xffffffffu : f.mask;
  for (; missing < 32; missing++) {
    const int o = t / 32 * 32 + missing;
    if (mask >> missing & 1 && (o >= threads || fibers[o].state != at_warp || fibers[o].op != f.op || (masks_ignored ? fibers[o].line != f.line : fibers[o].mask != f.mask))) break;
  }
  describe_thread(t / 32 * 32 + missing, other, sizeof other);
  thread = t;
  static char what[500];
  if (masks_ignored) std::snprintf(what, sizeof what, "%s takes all 32 lanes of a warp, whatever its mask says, but not lane %d comes, %s", f.call, missing, other);
  else std::snprintf(what, sizeof what, "%s waits for the lanes of mask 0x%08x, but not lane %d comes, %s", f.call, f.mask, missing, other);
  fail_at(f.file, f.line, what);
}
EMULATOR_QUIET inline void run_block(long number) {
  block = number;
  blockIdx = dim3((unsigned)(number % gridDim.x), (unsigned)(number / gridDim.x % gridDim.y), (unsigned)(number / gridDim.x / gridDim.y));
  block_first_phase = ++phase;
  block_serial++;
  if (on_block) on_block();
  for (int t = 0; t < threads; t++) fibers[t].state = ready;
  for (;;) {
    // a step that meets every thread once
    const uint32_t d = dice();
    const int start = (int)(d % (unsigned)threads);
    int step = 1 + (int)(d / 1024 % (unsigned)threads);
    for (int a = step, b = threads; b; ) { const int r = a % b; a = b; b = r; if (!b && a != 1) { a = ++step, b = threads; } }
    for (int i = 0, t = start; i < threads; i++, t = (t + step) % threads)
      if (fibers[t].state == ready) resume(t);
    bool went = false;
    for (int w = 0; w < threads; w += 32) went = release_warp(w) || went;
    if (went) continue;
    int over = 0, waits = -1, warp = -1, waiting = 0;
    for (int t = threads - 1; t >= 0; t--) {
      over += fibers[t].state == ended;
      if (fibers[t].state == at_barrier) waiting++, waits = t;
      if (fibers[t].state == at_warp) warp = t;
    }
    if (warp >= 0) stuck(warp);
    if (over == threads) break;
    for (int t = 0; t < threads && waiting == threads; t++)
      if (fibers[t].line != fibers[waits].line || fibers[t].file != fibers[waits].file) divergent(waits);
    if (waiting != threads) divergent(waits);
    phase++;
    for (int t = 0; t < threads; t++) fibers[t].state = ready;
  }
  if (on_block_end) on_block_end();
}
/** All blocks of a launch, in an order that is not theirs. */
EMULATOR_QUIET inline void run_blocks(const char *name, dim3 grid, dim3 of, size_t shared_at_launch, void (*f)(void *), void *with) {
  const char *outer = kernel_name;
  if (name) kernel_name = name;
  const limits_of_launch &l = limits;
  const long count = (long)of.x * of.y * of.z;
  in_kernel = false;
  if (count < 1 || count > l.threads || of.x > l.block[0] || of.y > l.block[1] || of.z > l.block[2])
    fail("%s is launched with a block of %u x %u x %u threads; %u x %u x %u and %u in all are the most", name ? name : "a kernel", of.x, of.y, of.z, l.block[0], l.block[1], l.block[2], l.threads);
  if (l.whole_warps && name && count % 32) fail("%s is launched with a block of %ld threads, which is not whole warps of 32", name, count);
  if (!grid.x || !grid.y || !grid.z || grid.x > l.grid[0] || grid.y > l.grid[1] || grid.z > l.grid[2])
    fail("%s is launched with a grid of %u x %u x %u blocks; %u x %u x %u are the most, and 1 the least", name ? name : "a kernel", grid.x, grid.y, grid.z, l.grid[0], l.grid[1], l.grid[2]);
  if (shared_at_launch > l.shared_at_launch) fail("%s is launched with %zu bytes of shared memory; a block has %zu", name ? name : "a kernel", shared_at_launch, l.shared_at_launch);
  work = f;
  work_of = with;
  gridDim = grid;
  blockDim = of;
  threads = (int)count;
  say_place = say_thread;
  launches++;
  launch_first_block = block_serial + 1;
  shared_bytes = shared_at_launch;
  device_open(true);
  const long blocks = (long)grid.x * grid.y * grid.z;
  int *order = (int *)std::malloc((size_t)blocks * sizeof(int));
  for (long i = 0; i < blocks; i++) order[i] = (int)i;
  for (long i = blocks - 1; i > 0; i--) {
    const long j = (long)(((uint64_t)dice() << 8 ^ dice()) % (uint64_t)(i + 1));
    const int was = order[i];
    order[i] = order[j];
    order[j] = was;
  }
  in_kernel = true;
  for (long i = 0; i < blocks; i++) run_block(order[i]);
  in_kernel = false;
  std::free(order);
  if (region_count) check_margins();
  device_open(false);
  kernel_name = outer;
}
/** A line of blocks of `threads` threads, EMULATED_THREADS where nobody says another number: how printed kernels are run. */
template <class F> inline void run_grid(long blocks, const F &f) {
  if (blocks < 1) return;
  run_blocks(nullptr, dim3((unsigned)blocks), dim3((unsigned)threads), 0, [](void *with) { (*(const F *)with)(); }, (void *)&f);
}
/** A launch. Every argument has the parameter's own type: vendors' calls read it as that, whatever was passed. */
template <class... P, class... A> inline void launch(const char *name, void (*kernel)(P...), dim3 grid, dim3 of, size_t shared_at_launch, A... args) {
  static_assert(sizeof...(P) == sizeof...(A), "a launch passes as many arguments as the kernel has parameters");
  if constexpr (sizeof...(P) == sizeof...(A)) {
    static_assert((std::is_same_v<P, A> && ...), "a launch passes every argument as exactly the type of the kernel's parameter");
    if constexpr ((std::is_same_v<P, A> && ...)) {
      const auto call = [=] { kernel(args...); };
      using F = decltype(call);
      run_blocks(name, grid, of, shared_at_launch, [](void *with) { (*(F *)with)(); }, (void *)&call);
    }
  }
}
}

// ---- the language's own words

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __constant__ static
#define __align__(n) __attribute__((aligned(n)))
#ifdef __SANITIZE_THREAD__
#define __shared__ thread_local // memory of its own that hkgai_watch.h knows by name
#else
#define __shared__ static
#endif
#define __syncthreads() emulator::barrier()
#define DEVICE
#define SHARED __shared__
#define THREAD emulator::thread
#define THREADS emulator::threads
#define BARRIER emulator::barrier()
template <class T, int N> using tile = emulator::shared_tile<T, N>;

constexpr int warpSize = 32;
#define EMULATED_SITE const char *file = __builtin_FILE(), int line = __builtin_LINE()
// The PTX ISA's shfl.sync: lanes beyond a segment's end have their own value.
template <class T> inline T __shfl_sync(unsigned mask, T v, int source, int width = 32, EMULATED_SITE) {
  return emulator::shuffle("__shfl_sync", mask, v, (emulator::lane() & ~(width - 1)) | (source & (width - 1)), file, line);
}
template <class T> inline T __shfl_up_sync(unsigned mask, T v, unsigned by, int width = 32, EMULATED_SITE) {
  const int l = emulator::lane(), from = l - (int)by;
  return emulator::shuffle("__shfl_up_sync", mask, v, from < (l & ~(width - 1)) ? l : from, file, line);
}
template <class T> inline T __shfl_down_sync(unsigned mask, T v, unsigned by, int width = 32, EMULATED_SITE) {
  const int l = emulator::lane(), from = l + (int)by;
  return emulator::shuffle("__shfl_down_sync", mask, v, from > (l | (width - 1)) ? l : from, file, line);
}
template <class T> inline T __shfl_xor_sync(unsigned mask, T v, int by, int width = 32, EMULATED_SITE) {
  const int l = emulator::lane(), from = l ^ by;
  return emulator::shuffle("__shfl_xor_sync", mask, v, from > (l | (width - 1)) ? l : from, file, line);
}
namespace emulator {
EMULATOR_QUIET inline unsigned vote(const char *call, unsigned mask, bool v, const char *file, int line) {
  fibers[thread].in[0] = v;
  return meet(op_vote, call, mask, file, line).out[0];
}
}
inline unsigned __ballot_sync(unsigned mask, int v, EMULATED_SITE) { return emulator::vote("__ballot_sync", mask, v != 0, file, line); }
inline int __any_sync(unsigned mask, int v, EMULATED_SITE) { return emulator::vote("__any_sync", mask, v != 0, file, line) != 0; }
inline int __all_sync(unsigned mask, int v, EMULATED_SITE) {
  const unsigned named = emulator::masks_ignored ? 0xffffffffu : mask;
  return emulator::vote("__all_sync", mask, v != 0, file, line) == named;
}
inline void __syncwarp(unsigned mask = 0xffffffffu, EMULATED_SITE) { emulator::meet(emulator::op_sync, "__syncwarp", mask, file, line); }
inline void __threadfence() {}
inline void __threadfence_block() {}
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }

#define EMULATED_VECTOR(type, T, n, align, ...) struct alignas(align) type { T __VA_ARGS__; };
EMULATED_VECTOR(float2, float, 2, 8, x, y)
EMULATED_VECTOR(float4, float, 4, 16, x, y, z, w)
EMULATED_VECTOR(int2, int, 2, 8, x, y)
EMULATED_VECTOR(int4, int, 4, 16, x, y, z, w)
EMULATED_VECTOR(uint2, unsigned, 2, 8, x, y)
EMULATED_VECTOR(uint4, unsigned, 4, 16, x, y, z, w)
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

// Atomics: one at a time, and no race with each other.
namespace emulator {
inline void (*on_atomic)(const void *, size_t) = nullptr;
template <class T, class F> EMULATOR_QUIET inline T atomic(T *p, F f) {
  if (on_atomic) on_atomic(p, sizeof(T));
  const T old = *p;
  *p = f(old);
  return old;
}
}
template <class T> EMULATOR_QUIET inline T atomicAdd(T *p, T v) { return emulator::atomic(p, [v](T o) { return (T)(o + v); }); }
template <class T> EMULATOR_QUIET inline T atomicMax(T *p, T v) { return emulator::atomic(p, [v](T o) { return o > v ? o : v; }); }
template <class T> EMULATOR_QUIET inline T atomicMin(T *p, T v) { return emulator::atomic(p, [v](T o) { return o < v ? o : v; }); }
template <class T> EMULATOR_QUIET inline T atomicExch(T *p, T v) { return emulator::atomic(p, [v](T) { return v; }); }
template <class T> EMULATOR_QUIET inline T atomicCAS(T *p, T c, T v) { return emulator::atomic(p, [c, v](T o) { return o == c ? v : o; }); }
#include "hkgai_async.h"
#ifdef __SANITIZE_THREAD__
#include "hkgai_watch.h"
#endif
