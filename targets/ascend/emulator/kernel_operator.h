// The part of AscendC that kernels of ours use, on a CPU and stricter than a core. Buffers have the chip's sizes; every engine (scalar, vector, the three
// movers, cube, fix-up) has a clock, and memory knows which engine touched each 32 bytes at which time, so that what one engine does before another was
// waited for shows at once. Copies are whole pieces of 32 bytes, operands begin at 32 bytes, nothing is read that nobody wrote, queues neither lose
// nor invent tensors, global memory is written by copies alone. Every fault ends the program with kernel, core and line (docs/emulators.md).
// Not here: LoadData, Mmad, Fixpipe and the high-level Matmul (they do not compile), waits between cores (SyncAll, CrossCoreSetFlag).
#pragma once
#include "../../emulator/hkgai_report.h"
#include <cmath>
#include <type_traits>
#define __aicore__
#define __gm__
#define __global__
#define GM_ADDR uint8_t *
#ifndef EMULATED_NPU_ARCH
#define EMULATED_NPU_ARCH 2201
#endif
enum pipe_t { PIPE_S, PIPE_V, PIPE_M, PIPE_MTE1, PIPE_MTE2, PIPE_MTE3, PIPE_FIX, PIPE_ALL };
struct bfloat16_t { uint16_t bits; };
struct half { uint16_t bits; };
typedef int32_t event_t;
typedef event_t TEventID;
constexpr event_t EVENT_ID0 = 0, EVENT_ID1 = 1, EVENT_ID2 = 2, EVENT_ID3 = 3, EVENT_ID4 = 4, EVENT_ID5 = 5, EVENT_ID6 = 6, EVENT_ID7 = 7;
enum KernelMetaType { KERNEL_TYPE_AIV_ONLY, KERNEL_TYPE_AIC_ONLY };
/** Which cores a launch takes; blocks are counted in these. The vector cores are what is played here. */
#define KERNEL_TASK_TYPE_DEFAULT(kind) static_assert(kind == KERNEL_TYPE_AIV_ONLY, "a kernel of vector cores alone")
namespace AscendC {
enum class TPosition { GM, VECIN, VECOUT, VECCALC, A1, B1, C1, A2, B2, CO1 };
using QuePosition = TPosition;
enum class RoundMode { CAST_NONE, CAST_RINT, CAST_FLOOR, CAST_CEIL, CAST_ROUND, CAST_TRUNC };
enum class CMPMODE { LT, GT, EQ, LE, GE, NE };
enum class SELMODE { VSEL_CMPMASK_SPR, VSEL_TENSOR_SCALAR_MODE, VSEL_TENSOR_TENSOR_MODE };
enum class HardEvent { MTE2_V, V_MTE2, MTE3_V, V_MTE3, MTE2_MTE3, MTE3_MTE2, V_S, S_V, MTE2_S, S_MTE2, MTE3_S, S_MTE3, MTE2_MTE1, MTE1_MTE2, MTE1_M, M_MTE1, M_FIX, FIX_M };
inline long block_index = 0, block_count = 3;
inline long GetBlockIdx() { return block_index; }
inline long GetBlockNum() { return block_count; }
/** Where copies may write a place of global memory: elsewhere under the host's emulator (acl/acl.h), where a scalar's write is a fault. */
inline void *(*gm_writable)(void *, size_t) = nullptr;

// ---- buffers of a core, and who touched them

enum { most_piece = 1 << 19 };
/** Bytes of each; platform files of the vendor's toolkit, AIC-C-220 (910B and 910_93), AIC-C-310 (950) and AIC-M-200 (310P): ub_size, l1_size, l0_a_size, l0_b_size, l0_c_size. */
inline long ub_limit = EMULATED_NPU_ARCH == 3510 ? 253952 : EMULATED_NPU_ARCH == 2002 ? 262144 : 196608;
inline long l1_limit = EMULATED_NPU_ARCH == 2002 ? 1 << 20 : 1 << 19, l0_limit = 65536, l0c_limit = EMULATED_NPU_ARCH == 2201 ? 131072 : 262144;
enum { engines = PIPE_ALL };
/** Which engine touched 32 bytes, and when by its own clock. */
struct piece { int writer, wrote, read[engines]; };
struct memory_of_core {
  const char *name;
  long *limit;
  char *bytes;
  piece *pieces;
  bool *written;
  long used;
};
inline memory_of_core memories[] = {{"the unified buffer", &ub_limit, 0, 0, 0, 0}, {"L1", &l1_limit, 0, 0, 0, 0}, {"L0A", &l0_limit, 0, 0, 0, 0}, {"L0B", &l0_limit, 0, 0, 0, 0}, {"L0C", &l0c_limit, 0, 0, 0, 0}};
inline memory_of_core &memory_at(TPosition p) {
  return memories[p == TPosition::A1 || p == TPosition::B1 || p == TPosition::C1 ? 1 : p == TPosition::A2 ? 2 : p == TPosition::B2 ? 3 : p == TPosition::CO1 ? 4 : 0];
}
inline const char *engine_names[] = {"the scalar unit", "the vector unit", "the cube", "the mover to L0 (MTE1)", "the mover in (MTE2)", "the mover out (MTE3)", "the fix-up unit"};
/** now[e][f]: what e knows to have happened on f; done[e]: what e knows of its own work to be over. */
inline int now[engines][engines], done[engines];
/**
 * An engine begins its work in order, but may begin before what came earlier is over: same-engine dependencies need a PipeBarrier of it (AscendC API
 * reference of CANN 9.0, PipeBarrier). Compilers put those of the vector unit in themselves unless they are told not to (same page, note on automatic
 * synchronisation: on by default in projects of kernel launches and custom operators); false asks for them in the source. Copies in that overlap need
 * theirs always (cannmirror/asc-devkit, examples/02_features/11_synchronous_control/pipe_barrier/README.md).
 */
inline bool automatic_vector_barriers = true;
inline int serial = 0, launch_first = 1;
inline const char *buffer_name(char *to, const memory_of_core &m, const char *p) { std::snprintf(to, 60, "byte %ld of %s", (long)(p - m.bytes), m.name); return to; }
inline void say_core(char *to, size_t room) { std::snprintf(to, room, "core %ld of %ld", block_index, block_count); }
using emulator::fail;

inline void PipeBarrierOf(pipe_t p) {
  for (int e = 0; e < engines; e++) if (p == e || p == PIPE_ALL) done[e] = now[e][e];
  if (p != PIPE_ALL) return;
  for (int e = 0; e < engines; e++) for (int f = 0; f < engines; f++) now[e][f] = now[f][f];
}
template <pipe_t p> inline void PipeBarrier() {
  static_assert(p != PIPE_S, "PipeBarrier of the scalar unit is an error of the hardware: its work is in order");
  PipeBarrierOf(p);
}
inline void step(pipe_t e) { now[e][e]++; }
inline void join(pipe_t e, const int *seen) { if (done[e] < seen[e]) done[e] = seen[e]; for (int f = 0; f < engines; f++) if (now[e][f] < seen[f]) now[e][f] = seen[f]; }
inline memory_of_core *memory_of(const void *p) {
  for (memory_of_core &m : memories) if (m.bytes && (const char *)p >= m.bytes && (const char *)p < m.bytes + *m.limit) return &m;
  return nullptr;
}
inline void touch(memory_of_core &m, const void *p, long bytes, pipe_t e, bool write) {
  const char *a = (const char *)p;
  char at[60];
  for (long i = (a - m.bytes) / 32; i <= (a - m.bytes + bytes - 1) / 32; i++) {
    piece &q = m.pieces[i];
    if (q.writer >= 0 && q.writer != e && q.wrote > now[e][q.writer])
      fail("%s %s %s before %s, which writes it, was waited for", engine_names[e], write ? "writes" : "reads", buffer_name(at, m, m.bytes + 32 * i), engine_names[q.writer]);
    for (int f = 0; f < engines && write; f++)
      if (f != e && q.read[f] > now[e][f]) fail("%s writes %s before %s, which reads it, was waited for", engine_names[e], buffer_name(at, m, m.bytes + 32 * i), engine_names[f]);
    const bool own_barrier = e == PIPE_MTE2 || (e == PIPE_V && !automatic_vector_barriers);
    if (own_barrier && q.writer == e && q.wrote > done[e] && q.wrote != now[e][e])
      fail("%s %s %s, which it wrote itself, with no PipeBarrier of its own between", engine_names[e], write ? "writes" : "reads", buffer_name(at, m, m.bytes + 32 * i));
    if (!write) { q.read[e] = now[e][e]; continue; }
    q.writer = e;
    q.wrote = now[e][e];
  }
  if (write) std::memset(m.written + (a - m.bytes), 1, (size_t)bytes);
}
inline void expect(memory_of_core &m, const void *p, long bytes, const char *who) {
  const bool *w = m.written + ((const char *)p - m.bytes);
  if (const void *hole = std::memchr(w, 0, (size_t)bytes)) {
    char at[60];
    fail("%s %s, which nobody wrote", who, buffer_name(at, m, (const char *)p + ((const bool *)hole - w)));
  }
}

template <class T> struct LocalTensor {
  T *p = nullptr;
  const char *begin = nullptr, *end = nullptr;
  TPosition position = TPosition::VECCALC;
  LocalTensor operator[](long i) const { LocalTensor t = *this; t.p += i; if ((const char *)t.p > end || (const char *)t.p < begin) fail("a tensor begins %ld elements into a buffer of %ld bytes", i, (long)(end - begin)); return t; }
  uint32_t GetSize() const { return (uint32_t)((end - (const char *)p) / (long)sizeof(T)); }
  memory_of_core &inside(long i) const {
    if (!p) fail("a tensor that no buffer was given to is touched");
    if ((const char *)(p + i) < begin || (const char *)(p + i + 1) > end) fail("a scalar at element %ld is outside its buffer of %ld bytes", i, (long)(end - begin));
    return memory_at(position);
  }
  T GetValue(long i) const {
    memory_of_core &m = inside(i);
    step(PIPE_S);
    touch(m, p + i, sizeof(T), PIPE_S, false);
    expect(m, p + i, sizeof(T), "a scalar reads");
    return p[i];
  }
  void SetValue(long i, T v) const { memory_of_core &m = inside(i); step(PIPE_S); touch(m, p + i, sizeof(T), PIPE_S, true); p[i] = v; }
  template <class U> LocalTensor<U> ReinterpretCast() const { LocalTensor<U> t; t.p = (U *)p; t.begin = begin; t.end = end; t.position = position; return t; }
};
/** An operand of n elements at 32 bytes, inside its buffer. */
template <class T> inline void operand(const char *call, const LocalTensor<T> &t, long n) {
  if (!t.p) fail("%s is given a tensor that no buffer was given to", call);
  if (((const char *)t.p - memory_at(t.position).bytes) % 32 != 0) fail("%s is given an operand that does not begin at 32 bytes but %ld after", call, (long)((const char *)t.p - memory_at(t.position).bytes) % 32);
  if (n < 1 || (const char *)(t.p + n) > t.end) fail("%s of %ld elements is given an operand of %ld", call, n, (long)(t.end - (const char *)t.p) / (long)sizeof(T));
}
template <class T> inline void reads(const char *call, const LocalTensor<T> &t, long n, bool whole = true) {
  operand(call, t, n);
  touch(memory_at(t.position), t.p, n * (long)sizeof(T), PIPE_V, false);
  if (whole) expect(memory_at(t.position), t.p, n * (long)sizeof(T), call);
}
template <class T> inline void writes(const char *call, const LocalTensor<T> &t, long n) {
  operand(call, t, n);
  touch(memory_at(t.position), t.p, n * (long)sizeof(T), PIPE_V, true);
}
/** An engine that works in pieces may read its operand and write the same place; what overlaps by a part is read after it was written. */
template <class T, class U> inline void overlap(const char *call, const LocalTensor<T> &d, const LocalTensor<U> &s, long n) {
  const char *a = (const char *)d.p, *b = (const char *)s.p;
  if (a != b && a < b + n * (long)sizeof(U) && b < a + n * (long)sizeof(T)) fail("%s is given operands that overlap by a part", call);
}

// ---- pipes, buffers, queues

struct queue_base { virtual void finish() = 0; };
/** A kernel's buffers: what they take of each memory together is the chip's at most. Its life is the kernel's. */
struct TPipe {
  TPipe() {
    if (emulator::in_kernel && owner) fail("a kernel makes a second TPipe while one lives");
    owner = this;
    was = emulator::in_kernel;
    emulator::in_kernel = true;
    emulator::say_place = say_core;
    serial++;
    std::memset(now, 0, sizeof now);
    std::memset(done, 0, sizeof done);
    std::memset(flags, 0, sizeof flags);
    for (memory_of_core &m : memories) {
      if (m.used) clear(m, m.used);
      m.used = 0;
    }
  }
  TPipe(const TPipe &) = delete;
  ~TPipe() {
    for (auto &of_event : flags) for (auto &f : of_event) if (f.set) fail("the kernel ends with a flag set that nobody waited for");
    owner = nullptr;
    emulator::in_kernel = was;
  }
  static void clear(memory_of_core &m, long bytes) {
    emulator::poison(m.bytes, (size_t)bytes);
    std::memset(m.written, 0, (size_t)bytes);
    for (long i = 0; i < (bytes + 31) / 32; i++) { m.pieces[i] = {}; m.pieces[i].writer = -1; }
  }
  static char *take(TPosition at, long bytes) {
    memory_of_core &m = memory_at(at);
    if (!m.bytes) {
      m.bytes = (char *)std::aligned_alloc(512, (size_t)most_piece * 2);
      m.written = (bool *)std::calloc((size_t)most_piece * 2, 1);
      m.pieces = (piece *)std::calloc((size_t)most_piece / 16, sizeof(piece));
      clear(m, most_piece * 2);
    }
    const long whole = (bytes + 31) / 32 * 32;
    if (m.used + whole > *m.limit) fail("buffers take %ld bytes of %s, which has %ld", m.used + whole, m.name, *m.limit);
    m.used += whole;
    return m.bytes + m.used - whole;
  }
  template <class B> void InitBuffer(B &b, uint32_t bytes) { b.memory = take(B::at, bytes); b.size = bytes; }
  template <class Q> void InitBuffer(Q &q, uint8_t count, uint32_t bytes) {
    for (int i = 0; i < count; i++) {
      if (q.count == Q::most) fail("a queue is given more than %d buffers", (int)Q::most);
      q.slots[q.count++] = {take(Q::at, bytes), bytes, Q::unused, {}};
    }
  }
  struct flag { bool set; int seen[engines]; };
  static inline flag flags[32][8];
  static inline TPipe *owner = nullptr;
  bool was;
};
template <TPosition P> struct TBuf {
  static constexpr TPosition at = P;
  char *memory = nullptr;
  uint32_t size = 0;
  template <class T> LocalTensor<T> GetWithOffset(uint32_t n, uint32_t from) {
    if (!memory) fail("a TBuf is taken from before InitBuffer");
    if (from + n * sizeof(T) > size) fail("%zu bytes at %u are taken of a buffer of %u", n * sizeof(T), from, size);
    LocalTensor<T> t;
    t.p = (T *)(memory + from);
    t.begin = memory + from;
    t.end = memory + from + n * sizeof(T);
    t.position = P;
    return t;
  }
  template <class T> LocalTensor<T> Get() { return GetWithOffset<T>(size / (uint32_t)sizeof(T), 0); }
  template <class T> LocalTensor<T> Get(uint32_t n) { return GetWithOffset<T>(n, 0); }
};
/** Tensors on their way from one engine to another: EnQue says that the first is done, DeQue has the second wait, and FreeTensor the other way round. */
template <TPosition P, int depth> struct TQue {
  static constexpr TPosition at = P;
  static constexpr pipe_t from = P == TPosition::VECIN || P == TPosition::A1 || P == TPosition::B1 ? PIPE_MTE2 : P == TPosition::A2 || P == TPosition::B2 ? PIPE_MTE1 : P == TPosition::CO1 ? PIPE_M : PIPE_V;
  static constexpr pipe_t to = P == TPosition::VECIN ? PIPE_V : P == TPosition::VECOUT ? PIPE_MTE3 : P == TPosition::A1 || P == TPosition::B1 ? PIPE_MTE1 : P == TPosition::A2 || P == TPosition::B2 ? PIPE_M : P == TPosition::CO1 ? PIPE_FIX : PIPE_V;
  enum { most = 16 };
  enum state { unused, held, queued, taken };
  struct slot { char *memory; uint32_t bytes; state is; int seen[engines]; };
  slot slots[most] = {};
  int count = 0, order[most], waiting = 0;
  ~TQue() { for (int i = 0; i < count; i++) if (slots[i].is != unused) fail("the kernel ends with a tensor of a queue that %s", slots[i].is == queued ? "nobody took (DeQue)" : slots[i].is == held ? "was not put into it (EnQue) or freed" : "was not freed (FreeTensor)"); }
  template <class T> LocalTensor<T> tensor(const slot &s) {
    LocalTensor<T> t;
    t.p = (T *)s.memory;
    t.begin = s.memory;
    t.end = s.memory + s.bytes;
    t.position = P;
    return t;
  }
  template <class T> slot &of(const LocalTensor<T> &t, const char *call) {
    for (int i = 0; i < count; i++) if (slots[i].memory == t.begin) return slots[i];
    fail("%s is given a tensor that is not this queue's", call);
  }
  template <class T> LocalTensor<T> AllocTensor() {
    for (int i = 0; i < count; i++)
      if (slots[i].is == unused) {
        slots[i].is = held;
        join(from, slots[i].seen);
        return tensor<T>(slots[i]);
      }
    fail("AllocTensor: all %d buffers of the queue are in use, so a core would wait for ever", count);
  }
  template <class T> bool EnQue(const LocalTensor<T> &t) {
    slot &s = of(t, "EnQue");
    if (s.is != held) fail("EnQue of a tensor that %s", s.is == queued ? "is in the queue already" : "AllocTensor did not give");
    if (waiting == depth && depth > 0) fail("EnQue: the queue is %d deep and has as many tensors", depth);
    s.is = queued;
    std::memcpy(s.seen, now[from], sizeof s.seen);
    order[waiting++] = (int)(&s - slots);
    return true;
  }
  template <class T> LocalTensor<T> DeQue() {
    if (waiting == 0) fail("DeQue of an empty queue: a core would wait for ever");
    slot &s = slots[order[0]];
    for (int i = 1; i < waiting; i++) order[i - 1] = order[i];
    waiting--;
    s.is = taken;
    join(to, s.seen);
    return tensor<T>(s);
  }
  template <class T> void FreeTensor(const LocalTensor<T> &t) {
    slot &s = of(t, "FreeTensor");
    if (s.is == unused) fail("FreeTensor of a tensor that is free");
    if (s.is == queued) fail("FreeTensor of a tensor that waits in the queue");
    const pipe_t last = s.is == taken ? to : from;
    s.is = unused;
    std::memcpy(s.seen, now[last], sizeof s.seen);
    memory_of_core &m = memory_at(P);
    std::memset(m.written + (s.memory - m.bytes), 0, s.bytes); // the next one finds nothing in it
  }
};
constexpr pipe_t first_of(HardEvent e) {
  switch (e) {
    case HardEvent::MTE2_V: case HardEvent::MTE2_MTE3: case HardEvent::MTE2_S: case HardEvent::MTE2_MTE1: return PIPE_MTE2;
    case HardEvent::MTE3_V: case HardEvent::MTE3_MTE2: case HardEvent::MTE3_S: return PIPE_MTE3;
    case HardEvent::V_MTE2: case HardEvent::V_MTE3: case HardEvent::V_S: return PIPE_V;
    case HardEvent::S_V: case HardEvent::S_MTE2: case HardEvent::S_MTE3: return PIPE_S;
    case HardEvent::MTE1_MTE2: case HardEvent::MTE1_M: return PIPE_MTE1;
    case HardEvent::M_MTE1: case HardEvent::M_FIX: return PIPE_M;
    default: return PIPE_FIX;
  }
}
constexpr pipe_t second_of(HardEvent e) {
  switch (e) {
    case HardEvent::MTE2_V: case HardEvent::MTE3_V: case HardEvent::S_V: return PIPE_V;
    case HardEvent::V_MTE2: case HardEvent::MTE3_MTE2: case HardEvent::S_MTE2: case HardEvent::MTE1_MTE2: return PIPE_MTE2;
    case HardEvent::V_MTE3: case HardEvent::MTE2_MTE3: case HardEvent::S_MTE3: return PIPE_MTE3;
    case HardEvent::V_S: case HardEvent::MTE2_S: case HardEvent::MTE3_S: return PIPE_S;
    case HardEvent::MTE2_MTE1: case HardEvent::M_MTE1: return PIPE_MTE1;
    case HardEvent::M_FIX: return PIPE_FIX;
    default: return PIPE_M;
  }
}
template <HardEvent e> inline void SetFlag(TEventID id) {
  if (id < 0 || id > 7) fail("event %d: there are 0 to 7", id);
  TPipe::flag &f = TPipe::flags[(int)e][id];
  if (f.set) fail("SetFlag of event %d, which is set and was not waited for", id);
  f.set = true;
  std::memcpy(f.seen, now[first_of(e)], sizeof f.seen);
}
template <HardEvent e> inline void WaitFlag(TEventID id) {
  if (id < 0 || id > 7) fail("event %d: there are 0 to 7", id);
  TPipe::flag &f = TPipe::flags[(int)e][id];
  if (!f.set) fail("WaitFlag of event %d, which nobody set: a core would wait for ever", id);
  f.set = false;
  join(second_of(e), f.seen);
}

// ---- global memory

/** Which core of this launch touched a byte of global memory. */
struct gm_mark { int wrote, read, clock; };
inline gm_mark *gm_marks[emulator::most_regions];
/** A copy's side in global memory: inside one allocation where allocations are known, and of no other core's doing. */
inline void touch_gm(const void *p, size_t bytes, bool write) {
  if (emulator::region_count == 0) return;
  const emulator::region *r = emulator::region_at(p);
  char what[200];
  if (!r || !emulator::on_device(p, bytes)) {
    const char *a = (const char *)p;
    emulator::describe(!r || a < r->begin || a >= r->begin + r->bytes || r->freed ? a : r->begin + r->bytes, what, sizeof what);
    fail("a copy of %zu bytes %s %s", bytes, write ? "writes" : "reads", what);
  }
  gm_mark *&marks = gm_marks[r - emulator::regions];
  if (!marks) marks = (gm_mark *)mmap(nullptr, (r->bytes + 1) * sizeof(gm_mark), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  for (size_t i = 0; i < bytes; i++) {
    gm_mark &m = marks[(const char *)p - r->begin + (long)i];
    const long at = (const char *)p - r->begin + (long)i;
    if (m.wrote >= launch_first && m.wrote != serial) fail("byte %ld of %s is %s, which another core of this launch wrote: nothing orders cores", at, r->name, write ? "written" : "read");
    if (write && m.read >= launch_first && m.read != serial) fail("byte %ld of %s is written, which another core of this launch read: nothing orders cores", at, r->name);
    if (!write && m.wrote == serial && m.clock > now[PIPE_MTE2][PIPE_MTE3]) fail("byte %ld of %s is read before the copy out that writes it was waited for", at, r->name);
    if (write) m.wrote = serial, m.clock = now[PIPE_MTE3][PIPE_MTE3];
    else m.read = serial;
  }
}
template <class T> struct GlobalTensor {
  T *p = nullptr;
  uint64_t size = 0; // elements; 0 where it was not said
  void SetGlobalBuffer(T *q, uint64_t n = 0) { p = q; size = n; }
  GlobalTensor operator[](uint64_t i) const {
    if (size && i > size) fail("a tensor begins at element %lu of %lu in global memory", (unsigned long)i, (unsigned long)size);
    GlobalTensor t;
    t.p = p + i;
    t.size = size ? size - i : 0;
    if (size && t.size == 0) t.size = (uint64_t)-1; // nothing is left
    return t;
  }
  T GetValue(uint64_t i) const { inside(i + 1); if (emulator::region_count) touch_gm(p + i, sizeof(T), false); return p[i]; }
  void SetValue(uint64_t, T) const { fail("a scalar writes global memory: it stays in the core's data cache, whose lines overwrite what other cores wrote"); }
  void inside(uint64_t n) const { if (size && (size == (uint64_t)-1 || n > size)) fail("%lu elements of a tensor of %lu in global memory", (unsigned long)n, (unsigned long)(size == (uint64_t)-1 ? 0 : size)); }
};
enum class CacheLine { SINGLE_CACHE_LINE, ENTIRE_DATA_CACHE };
enum class DcciDst { CACHELINE_ALL, CACHELINE_UB, CACHELINE_OUT, CACHELINE_ATOMIC };
template <class T, CacheLine, DcciDst> inline void DataCacheCleanAndInvalid(const GlobalTensor<T> &) {}

inline void write_gm(void *to, const void *from, size_t bytes) {
  touch_gm(to, bytes, true);
  if (gm_writable) to = gm_writable(to, bytes);
  const size_t page = (size_t)sysconf(_SC_PAGESIZE);
  char *first = (char *)((uintptr_t)to / page * page);
  const bool closed = emulator::region_count > 0 && emulator::region_at(to);
  if (closed) mprotect(first, (size_t)((char *)to + bytes - first), PROT_READ | PROT_WRITE);
  std::memcpy(to, from, bytes);
  if (closed) mprotect(first, (size_t)((char *)to + bytes - first), PROT_READ);
}
struct DataCopyParams { uint16_t blockCount, blockLen, srcStride, dstStride; };
struct DataCopyExtParams { uint16_t blockCount; uint32_t blockLen, srcStride, dstStride, rsv; };
template <class T> struct DataCopyPadExtParams { bool isPad; uint8_t leftPadding, rightPadding; T paddingValue; };
/** Rows of `bytes` from one side to the other; a row's end that is no whole 32 bytes leaves poison behind it, or padding. */
template <class T> inline void copy_rows(const char *call, const LocalTensor<T> &l, const GlobalTensor<T> &g, bool in, long rows, long bytes, long local_step, long global_step, const DataCopyPadExtParams<T> *pad) {
  if (rows < 1 || bytes < 1) fail("%s of %ld rows of %ld bytes", call, rows, bytes);
  const pipe_t e = in ? PIPE_MTE2 : PIPE_MTE3;
  memory_of_core &m = memory_at(l.position);
  const long whole = (bytes + 31) / 32 * 32;
  if (!l.p) fail("%s is given a tensor that no buffer was given to", call);
  if (((const char *)l.p - m.bytes) % 32 != 0) fail("%s is given a place that does not begin at 32 bytes but %ld after", call, (long)((const char *)l.p - m.bytes) % 32);
  const long last = (rows - 1) * local_step + bytes;
  if ((const char *)l.p + last > l.end) fail("%s of %ld bytes is given a tensor of %ld", call, last, (long)(l.end - (const char *)l.p));
  g.inside((uint64_t)(((rows - 1) * global_step + bytes) / (long)sizeof(T)));
  step(e);
  for (long r = 0; r < rows; r++) {
    char *a = (char *)l.p + r * local_step, *b = (char *)g.p + r * global_step;
    if (in) {
      touch_gm(b, (size_t)bytes, false);
      touch(m, a, bytes, e, true);
      std::memcpy(a, b, (size_t)bytes);
      const long room = l.end - a < whole ? l.end - a : whole;
      emulator::poison(a + bytes, (size_t)(room > bytes ? room - bytes : 0));
      if (pad && pad->isPad)
        for (long i = 0; i < pad->rightPadding && bytes + (i + 1) * (long)sizeof(T) <= room; i++) {
          std::memcpy(a + bytes + i * (long)sizeof(T), &pad->paddingValue, sizeof(T));
          std::memset(m.written + (a + bytes + i * (long)sizeof(T) - m.bytes), 1, sizeof(T));
        }
    } else {
      touch(m, a, bytes, e, false);
      expect(m, a, bytes, "a copy out takes");
      write_gm(b, a, (size_t)bytes);
    }
  }
}
template <class T> inline void whole_pieces(long bytes) { if (bytes % 32 != 0) fail("a DataCopy of %ld bytes: it moves whole 32-byte pieces (DataCopyPad moves others)", bytes); }
template <class T> inline void DataCopy(const LocalTensor<T> &d, const GlobalTensor<T> &s, uint32_t n) { whole_pieces<T>((long)(n * sizeof(T))); copy_rows<T>("DataCopy", d, s, true, 1, (long)(n * sizeof(T)), 0, 0, nullptr); }
template <class T> inline void DataCopy(const GlobalTensor<T> &d, const LocalTensor<T> &s, uint32_t n) { whole_pieces<T>((long)(n * sizeof(T))); copy_rows<T>("DataCopy", s, d, false, 1, (long)(n * sizeof(T)), 0, 0, nullptr); }
template <class T> inline void DataCopy(const LocalTensor<T> &d, const GlobalTensor<T> &s, const DataCopyParams &p) { copy_rows<T>("DataCopy", d, s, true, p.blockCount, p.blockLen * 32, (p.blockLen + p.dstStride) * 32, (p.blockLen + p.srcStride) * 32, nullptr); }
template <class T> inline void DataCopy(const GlobalTensor<T> &d, const LocalTensor<T> &s, const DataCopyParams &p) { copy_rows<T>("DataCopy", s, d, false, p.blockCount, p.blockLen * 32, (p.blockLen + p.srcStride) * 32, (p.blockLen + p.dstStride) * 32, nullptr); }
template <class T> inline void DataCopyPad(const LocalTensor<T> &d, const GlobalTensor<T> &s, const DataCopyExtParams &p, const DataCopyPadExtParams<T> &pad) {
  if (pad.leftPadding) fail("DataCopyPad with padding on the left is not emulated");
  copy_rows<T>("DataCopyPad", d, s, true, p.blockCount, p.blockLen, ((long)p.blockLen + 31) / 32 * 32 + p.dstStride * 32l, (long)p.blockLen + p.srcStride, &pad);
}
template <class T> inline void DataCopyPad(const GlobalTensor<T> &d, const LocalTensor<T> &s, const DataCopyExtParams &p) {
  copy_rows<T>("DataCopyPad", s, d, false, p.blockCount, p.blockLen, ((long)p.blockLen + 31) / 32 * 32 + p.srcStride * 32l, (long)p.blockLen + p.dstStride, nullptr);
}

// ---- the vector unit

using L = LocalTensor<float>;
inline void Duplicate(L d, float v, long n) { step(PIPE_V); writes("Duplicate", d, n); for (long i = 0; i < n; i++) d.p[i] = v; }
#define UNARY(name, e) inline void name(L d, L s, long n) { step(PIPE_V); reads(#name, s, n); overlap(#name, d, s, n); writes(#name, d, n); for (long i = 0; i < n; i++) { const float a = s.p[i]; d.p[i] = e; } }
#define SCALAR(name, e) inline void name(L d, L s, float b, long n) { step(PIPE_V); reads(#name, s, n); overlap(#name, d, s, n); writes(#name, d, n); for (long i = 0; i < n; i++) { const float a = s.p[i]; d.p[i] = e; } }
#define BINARY(name, e) inline void name(L d, L s, L t, long n) { step(PIPE_V); reads(#name, s, n); reads(#name, t, n); overlap(#name, d, s, n); overlap(#name, d, t, n); writes(#name, d, n); for (long i = 0; i < n; i++) { const float a = s.p[i], b = t.p[i]; d.p[i] = e; } }
UNARY(Exp, std::exp(a)) UNARY(Ln, std::log(a)) UNARY(Sqrt, std::sqrt(a)) UNARY(Abs, std::fabs(a)) UNARY(Reciprocal, 1.0f / a) UNARY(Relu, a > 0 ? a : 0)
SCALAR(Adds, a + b) SCALAR(Muls, a * b) SCALAR(Maxs, a > b ? a : b) SCALAR(Mins, a < b ? a : b)
BINARY(Add, a + b) BINARY(Sub, a - b) BINARY(Mul, a * b) BINARY(Div, a / b) BINARY(Max, a > b ? a : b) BINARY(Min, a < b ? a : b)
inline void ReduceSum(L d, L s, L work, long n) { step(PIPE_V); reads("ReduceSum", s, n); writes("ReduceSum", work, 1); writes("ReduceSum", d, 1); float t = 0; for (long i = 0; i < n; i++) t += s.p[i]; d.p[0] = t; }
inline void ReduceMax(L d, L s, L work, long n, bool = false) { step(PIPE_V); reads("ReduceMax", s, n); writes("ReduceMax", work, 1); writes("ReduceMax", d, 1); float t = s.p[0]; for (long i = 1; i < n; i++) t = s.p[i] > t ? s.p[i] : t; d.p[0] = t; }
inline float rounded_to(float v, RoundMode m) {
  switch (m) {
    case RoundMode::CAST_FLOOR: return std::floor(v);
    case RoundMode::CAST_CEIL: return std::ceil(v);
    case RoundMode::CAST_ROUND: return std::round(v);
    case RoundMode::CAST_TRUNC: return std::trunc(v);
    default: return std::nearbyint(v);
  }
}
inline float value_of(float x) { return x; }
inline float value_of(int32_t x) { return (float)x; }
inline float value_of(int8_t x) { return (float)x; }
inline float value_of(bfloat16_t x) { const uint32_t u = (uint32_t)x.bits << 16; float f; std::memcpy(&f, &u, 4); return f; }
inline float value_of(half x) {
  const int e = x.bits >> 10 & 31, m = x.bits & 1023;
  const float v = e == 31 ? (m ? NAN : INFINITY) : e ? std::ldexp(1024.0f + (float)m, e - 25) : std::ldexp((float)m, -24);
  return x.bits & 0x8000 ? -v : v;
}
inline void put(float &d, float v, RoundMode) { d = v; }
inline void put(int32_t &d, float v, RoundMode m) { d = (int32_t)rounded_to(v, m); }
inline void put(int8_t &d, float v, RoundMode m) { const float r = rounded_to(v, m); d = (int8_t)(r < -128 ? -128 : r > 127 ? 127 : r); }
inline void put(bfloat16_t &d, float v, RoundMode) { uint32_t u; std::memcpy(&u, &v, 4); d.bits = (uint16_t)((u + 0x7fffu + ((u >> 16) & 1)) >> 16); }
/** Half to even, by the spacing of halves around v; what is too large is infinite. */
inline void put(half &d, float v, RoundMode) {
  const uint16_t sign = std::signbit(v) ? 0x8000 : 0;
  const float a = std::fabs(v);
  if (std::isnan(v)) { d.bits = 0x7e00; return; }
  if (a >= 65520.0f) { d.bits = (uint16_t)(sign | 0x7c00); return; }
  int e = 0;
  std::frexp(a, &e);
  e = e - 11 < -24 ? -24 : e - 11;
  const int m = (int)std::nearbyint(std::ldexp(a, -e));
  d.bits = (uint16_t)(sign | (m < 1024 ? m : ((e + 25) << 10) + (m - 1024)));
}
/** The pairs that the vector unit of 910B has, as far as kernels of ours use them. */
template <class D, class S> constexpr bool casts = (std::is_same_v<D, float> && (std::is_same_v<S, int32_t> || std::is_same_v<S, bfloat16_t> || std::is_same_v<S, half>)) || (std::is_same_v<S, float> && (std::is_same_v<D, int32_t> || std::is_same_v<D, bfloat16_t> || std::is_same_v<D, half>)) || (std::is_same_v<D, int8_t> && std::is_same_v<S, half>) || (std::is_same_v<D, half> && std::is_same_v<S, int8_t>);
template <class D, class S> inline void Cast(LocalTensor<D> d, LocalTensor<S> s, RoundMode m, long n) {
  static_assert(casts<D, S>, "the vector unit has no Cast between these types");
  step(PIPE_V);
  reads("Cast", s, n);
  writes("Cast", d, n);
  for (long i = 0; i < n; i++) put(d.p[i], value_of(s.p[i]), m);
}
inline bool compare(CMPMODE m, float a, float b) { return m == CMPMODE::LT ? a < b : m == CMPMODE::LE ? a <= b : m == CMPMODE::GT ? a > b : m == CMPMODE::GE ? a >= b : m == CMPMODE::EQ ? a == b : a != b; }
/** What lies in a piece after the elements that matter may be anything. */
inline void pieces(const char *call, long n) { if (n * 4 % 256 != 0) fail("%s of %ld elements: it takes whole 256-byte pieces", call, n); }
inline void Compare(LocalTensor<uint8_t> d, L a, L b, CMPMODE m, long n) { pieces("Compare", n); step(PIPE_V); reads("Compare", a, n, false); reads("Compare", b, n, false); writes("Compare", d, n / 8); for (long i = 0; i < n; i++) d.p[i / 8] = (uint8_t)((d.p[i / 8] & ~(1 << i % 8)) | compare(m, a.p[i], b.p[i]) << i % 8); }
inline void CompareScalar(LocalTensor<uint8_t> d, L a, float b, CMPMODE m, long n) { pieces("CompareScalar", n); step(PIPE_V); reads("CompareScalar", a, n, false); writes("CompareScalar", d, n / 8); for (long i = 0; i < n; i++) d.p[i / 8] = (uint8_t)((d.p[i / 8] & ~(1 << i % 8)) | compare(m, a.p[i], b) << i % 8); }
inline void Select(L d, LocalTensor<uint8_t> m, L a, L b, SELMODE, long n) { step(PIPE_V); reads("Select", m, (n + 7) / 8); reads("Select", a, n); reads("Select", b, n); writes("Select", d, n); for (long i = 0; i < n; i++) d.p[i] = m.p[i / 8] >> i % 8 & 1 ? a.p[i] : b.p[i]; }
inline void Select(L d, LocalTensor<uint8_t> m, L a, float b, SELMODE, long n) { step(PIPE_V); reads("Select", m, (n + 7) / 8); reads("Select", a, n); writes("Select", d, n); for (long i = 0; i < n; i++) d.p[i] = m.p[i / 8] >> i % 8 & 1 ? a.p[i] : b; }
inline void And(LocalTensor<uint16_t> d, LocalTensor<uint16_t> a, LocalTensor<uint16_t> b, long n) { step(PIPE_V); reads("And", a, n); reads("And", b, n); writes("And", d, n); for (long i = 0; i < n; i++) d.p[i] = a.p[i] & b.p[i]; }
inline void Or(LocalTensor<uint16_t> d, LocalTensor<uint16_t> a, LocalTensor<uint16_t> b, long n) { step(PIPE_V); reads("Or", a, n); reads("Or", b, n); writes("Or", d, n); for (long i = 0; i < n; i++) d.p[i] = a.p[i] | b.p[i]; }
#undef UNARY
#undef SCALAR
#undef BINARY

/** A launch over cores in an order that is not theirs: global memory may be read, and written by copies. The host keeps out of it otherwise. */
template <class... P, class... A> inline void run_cores(const char *name, void (*kernel)(P...), uint32_t cores, A... args) {
  static_assert(sizeof...(P) == sizeof...(A), "a launch passes as many arguments as the kernel has parameters");
  if constexpr (sizeof...(P) == sizeof...(A)) {
    static_assert((std::is_same_v<P, A> && ...), "a launch passes every argument as exactly the type of the kernel's parameter");
    if constexpr ((std::is_same_v<P, A> && ...)) {
      if (cores < 1 || cores > 65535) fail("%s is launched with %u blocks; 1 to 65535 are allowed", name, cores);
      int *order = (int *)std::malloc(cores * sizeof(int));
      for (uint32_t i = 0; i < cores; i++) order[i] = (int)i;
      for (uint32_t i = cores - 1; i > 0; i--) std::swap(order[i], order[emulator::dice() % (i + 1)]);
      emulator::kernel_name = name;
      emulator::say_place = say_core;
      emulator::device_protection = PROT_READ;
      emulator::device_open(true);
      launch_first = serial + 1;
      block_count = cores;
      emulator::in_kernel = true;
      for (uint32_t i = 0; i < cores; i++) {
        block_index = order[i];
        kernel(args...);
      }
      emulator::in_kernel = false;
      emulator::device_open(false);
      emulator::device_protection = PROT_READ | PROT_WRITE;
      emulator::kernel_name = nullptr;
      if (emulator::region_count) emulator::check_margins();
      std::free(order);
    }
  }
}
}
