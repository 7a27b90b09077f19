// Asynchronous copies to shared memory and products of a warp, as chips from sm_80 on have them. A copy happens when it is waited for: until then its
// destination is poison. Names of the copies are the pipeline primitives of the CUDA C++ Programming Guide; the products have no name in C++, so
// theirs are this project's (cuda/header/hkgai_mma.cuh has them in PTX). A dialect whose chips have neither (EMULATED_NO_ASYNC) does not compile them.
#pragma once
namespace emulator {
struct async_copy { char *to; const char *from; unsigned bytes, zeros; const char *file; int line; };
/** A thread's copies, oldest first; `groups` ends each committed one. */
struct async_queue { async_copy copies[64]; int count; int groups[64]; int group_count; int block; };
inline async_queue queues[most_threads];
inline void (*on_async)(char *to, const char *from, unsigned bytes, unsigned zeros, bool done) = nullptr; // hkgai_watch.h
EMULATOR_QUIET inline async_queue &own_queue() {
  async_queue &q = queues[thread];
  if (q.block != block_serial) q.count = q.group_count = 0, q.block = block_serial;
  return q;
}
EMULATOR_QUIET inline void async_start(void *to, const void *from, size_t bytes, size_t zeros, const char *file, int line) {
  static char what[200];
  if ((bytes != 4 && bytes != 8 && bytes != 16) || zeros > bytes) {
    std::snprintf(what, sizeof what, "an asynchronous copy of %zu bytes: 4, 8 and 16 are the sizes", bytes);
    fail_at(file, line, what);
  }
  if ((uintptr_t)to % bytes || (uintptr_t)from % bytes) {
    std::snprintf(what, sizeof what, "an asynchronous copy of %zu bytes %s an address that is not a multiple of that", bytes, (uintptr_t)to % bytes ? "to" : "from");
    fail_at(file, line, what);
  }
  async_queue &q = own_queue();
  if (q.count == 64) fail_at(file, line, "a thread has more than 64 asynchronous copies under way: more than this emulator keeps");
  q.copies[q.count++] = {(char *)to, (const char *)from, (unsigned)bytes, (unsigned)zeros, file, line};
  if (on_async) on_async((char *)to, (const char *)from, (unsigned)bytes, (unsigned)zeros, false);
  poison(to, bytes);
}
EMULATOR_QUIET inline void async_commit() {
  async_queue &q = own_queue();
  if (q.group_count == 64) fail("a thread has more than 64 groups of asynchronous copies under way: more than this emulator keeps");
  q.groups[q.group_count++] = q.count;
}
EMULATOR_QUIET inline void async_wait(size_t left) {
  async_queue &q = own_queue();
  const int done = q.group_count - (int)left;
  if (done <= 0) return;
  const int copies = q.groups[done - 1];
  for (int i = 0; i < copies; i++) {
    const async_copy &c = q.copies[i];
    if (on_async) on_async(c.to, c.from, c.bytes, c.zeros, true);
    std::memcpy(c.to, c.from, c.bytes - c.zeros);
    std::memset(c.to + c.bytes - c.zeros, 0, c.zeros);
  }
  for (int i = copies; i < q.count; i++) q.copies[i - copies] = q.copies[i];
  for (int i = done; i < q.group_count; i++) q.groups[i - done] = q.groups[i] - copies;
  q.count -= copies;
  q.group_count -= done;
}
/** A thread may not end while a copy of its own is under way. */
EMULATOR_QUIET inline void async_end() {
  const async_queue &q = own_queue();
  if (q.count) fail_at(q.copies[0].file, q.copies[0].line, "the thread ends with this asynchronous copy never waited for");
}
inline const bool async_watched = (on_thread_end = async_end, true);

template <class D> EMULATOR_QUIET inline void multiply(warp_op op, const char *call, D *d, const uint32_t *a, const uint32_t *b, const D *c, const char *file, int line) {
  static_assert(sizeof(D) == 4, "accumulators have four bytes");
  fiber &f = fibers[thread];
  if (threads % 32) fail_at(file, line, "a product of a warp in a block that is not whole warps");
  std::memcpy(f.in, a, 16);
  std::memcpy(f.in + 4, b, 8);
  std::memcpy(f.in + 6, c, 16);
  std::memcpy(d, meet(op, call, 0xffffffffu, file, line).out, 16);
}
}
#ifdef EMULATED_NO_ASYNC
template <class... A> void __pipeline_memcpy_async(A...) { static_assert(sizeof...(A) == 99, "these chips have no asynchronous copies"); }
template <class... A> void hkgai_mma_m16n8k16_bf16(A...) { static_assert(sizeof...(A) == 99, "these chips have no product of a warp"); }
template <class... A> void hkgai_mma_m16n8k16_f16(A...) { static_assert(sizeof...(A) == 99, "these chips have no product of a warp"); }
template <class... A> void hkgai_mma_m16n8k32_s8(A...) { static_assert(sizeof...(A) == 99, "these chips have no product of a warp"); }
template <class... A> void hkgai_mma_m16n8k32_e4m3(A...) { static_assert(sizeof...(A) == 99, "these chips have no product of a warp"); }
#else
inline void __pipeline_memcpy_async(void *to, const void *from, size_t bytes, size_t zeros = 0, EMULATED_SITE) { emulator::async_start(to, from, bytes, zeros, file, line); }
inline void __pipeline_commit() { emulator::async_commit(); }
inline void __pipeline_wait_prior(size_t left) { emulator::async_wait(left); }
/** d = a b + c of a warp, 16 x 8 x 16: a lane's 8 values of A, 4 of B, 4 of C and D. */
inline void hkgai_mma_m16n8k16_bf16(float *d, const uint32_t *a, const uint32_t *b, const float *c, EMULATED_SITE) { emulator::multiply(emulator::op_mma_bf16, "hkgai_mma_m16n8k16_bf16", d, a, b, c, file, line); }
inline void hkgai_mma_m16n8k16_f16(float *d, const uint32_t *a, const uint32_t *b, const float *c, EMULATED_SITE) { emulator::multiply(emulator::op_mma_f16, "hkgai_mma_m16n8k16_f16", d, a, b, c, file, line); }
/** 16 x 8 x 32: a lane's 16 values of A, 8 of B. */
inline void hkgai_mma_m16n8k32_s8(int32_t *d, const uint32_t *a, const uint32_t *b, const int32_t *c, EMULATED_SITE) { emulator::multiply(emulator::op_mma_s8, "hkgai_mma_m16n8k32_s8", d, a, b, c, file, line); }
inline void hkgai_mma_m16n8k32_e4m3(float *d, const uint32_t *a, const uint32_t *b, const float *c, EMULATED_SITE) { emulator::multiply(emulator::op_mma_e4m3, "hkgai_mma_m16n8k32_e4m3", d, a, b, c, file, line); }
#endif
