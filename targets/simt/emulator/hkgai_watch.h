// Every access of a kernel, watched. A program built with `g++ -g -O1 -fsanitize=thread -fsanitize=alignment,bounds -c` calls a function at each load
// and store; linked by plain g++ those functions are the ones below, not a sanitizer's. They know shared arrays by name (from the program's symbols),
// device memory by allocation, and for every byte who touched it last: races between threads and between blocks, reads of what nobody wrote, of what an
// asynchronous copy has still to bring, and touches outside, of the host's memory or of another thread's. Not seen: what fences and atomics order.
#pragma once
#include <cxxabi.h>
#include <elf.h>
#include <fcntl.h>

extern "C" void *__libc_stack_end;
namespace emulator {
/** Who touched a byte last. */
struct mark {
  int wrote, read, block_wrote, block_read; // phases, and serial numbers of blocks; 0: nobody
  int warp_syncs;
  short writer, reader;
  bool written, coming;
};
struct shared_array { char *begin; size_t bytes; char name[120]; int seen_block, seen_launch; };
/** By address. */
inline shared_array *shared_arrays = nullptr;
inline int shared_count = 0;
inline char *tls_begin = nullptr, *image_begin, *image_end;
inline size_t tls_bytes = 0;
inline mark *tls_marks = nullptr;
inline mark *region_marks[most_regions];
inline bool watch_ready = false;

EMULATOR_QUIET inline mark *new_marks(size_t bytes) {
  return (mark *)mmap(nullptr, bytes * sizeof(mark) + 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
}
EMULATOR_QUIET inline mark *marks_of(const region *r) {
  mark *&marks = region_marks[r - regions];
  if (!marks) marks = new_marks(r->bytes);
  return marks;
}
EMULATOR_QUIET inline int find_image(dl_phdr_info *info, size_t, void *) {
  image_begin = (char *)UINTPTR_MAX;
  image_end = nullptr;
  for (int i = 0; i < info->dlpi_phnum; i++) {
    const ElfW(Phdr) &p = info->dlpi_phdr[i];
    if (p.p_type == PT_LOAD) {
      char *b = (char *)info->dlpi_addr + p.p_vaddr;
      if (b < image_begin) image_begin = b;
      if (b + p.p_memsz > image_end) image_end = b + p.p_memsz;
    }
    if (p.p_type == PT_TLS) tls_bytes = p.p_memsz;
  }
  tls_begin = (char *)info->dlpi_tls_data;
  return 1;
}
EMULATOR_QUIET inline int by_address(const void *a, const void *b) {
  const char *x = ((const shared_array *)a)->begin, *y = ((const shared_array *)b)->begin;
  return x < y ? -1 : x > y;
}
/** Shared arrays are the program's thread_local variables; their names say their kernel. */
EMULATOR_QUIET inline void watch_start() {
  watch_ready = true;
  dl_iterate_phdr(find_image, nullptr);
  if (!tls_begin) return;
  tls_marks = new_marks(tls_bytes);
  const int f = open("/proc/self/exe", O_RDONLY);
  const off_t size = lseek(f, 0, SEEK_END);
  const char *file = (const char *)mmap(nullptr, (size_t)size, PROT_READ, MAP_PRIVATE, f, 0);
  close(f);
  const ElfW(Ehdr) *head = (const ElfW(Ehdr) *)file;
  const ElfW(Shdr) *sections = (const ElfW(Shdr) *)(file + head->e_shoff);
  for (int i = 0; i < head->e_shnum; i++) {
    if (sections[i].sh_type != SHT_SYMTAB) continue;
    const ElfW(Sym) *symbols = (const ElfW(Sym) *)(file + sections[i].sh_offset);
    const char *strings = file + sections[sections[i].sh_link].sh_offset;
    const size_t count = sections[i].sh_size / sizeof *symbols;
    shared_arrays = (shared_array *)mmap(nullptr, count * sizeof(shared_array), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    for (size_t s = 0; s < count; s++) {
      if ((symbols[s].st_info & 15) != STT_TLS || symbols[s].st_size == 0) continue;
      const char *raw = strings + symbols[s].st_name;
      int status = 0;
      char *clear = abi::__cxa_demangle(raw, nullptr, nullptr, &status);
      const char *name = status == 0 && clear ? clear : raw, *last = std::strstr(name, "::") ? std::strrchr(name, ':') + 1 : name;
      shared_array &a = shared_arrays[shared_count++];
      a = {tls_begin + symbols[s].st_value, symbols[s].st_size, "", 0, 0};
      std::snprintf(a.name, sizeof a.name, "%s", last);
      std::free(clear);
    }
    std::qsort(shared_arrays, (size_t)shared_count, sizeof(shared_array), by_address);
  }
}
EMULATOR_QUIET inline shared_array *shared_at(const char *a) {
  static int last = 0;
  if (last < shared_count && a >= shared_arrays[last].begin && a < shared_arrays[last].begin + shared_arrays[last].bytes) return &shared_arrays[last];
  int low = 0, high = shared_count; // the last that begins at a or before
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    if (shared_arrays[middle].begin <= a) low = middle;
    else high = middle;
  }
  if (low < shared_count && a >= shared_arrays[low].begin && a < shared_arrays[low].begin + shared_arrays[low].bytes) return &shared_arrays[last = low];
  return nullptr;
}
/** A block finds its shared arrays poisoned, each when it is first touched; they are counted once a launch. */
EMULATOR_QUIET inline void first_touch(shared_array &a) {
  if (a.seen_launch != launches) {
    a.seen_launch = launches;
    shared_bytes += a.bytes;
    if ((long)shared_bytes > shared_limit) fail("a block declares %zu bytes of shared memory, with %s, and the chip has %ld", shared_bytes, a.name, shared_limit);
  }
  a.seen_block = block_serial;
  poison(a.begin, a.bytes);
  std::memset((void *)(tls_marks + (a.begin - tls_begin)), 0, a.bytes * sizeof(mark));
}
enum access_t { reads, writes, atomically, copy_starts, copy_arrives };
EMULATOR_QUIET inline void check_mark(mark &m, access_t how, const char *name, long at, bool global) {
  const bool ordered_in_warp = m.wrote == phase && m.writer / 32 == thread / 32 && m.warp_syncs < warp_syncs[thread / 32];
  const bool writing = how == writes || how == copy_starts;
  if (how == copy_arrives) m.coming = false;
  if (m.coming) fail("byte %ld of %s is %s before the asynchronous copy to it was waited for", at, name, writing ? "written" : "read");
  if (how == reads && !m.written) fail("byte %ld of %s is read, and nobody wrote it", at, name);
  if (how == reads || writing) {
    if (m.wrote == phase && m.writer != thread && !ordered_in_warp) fail("byte %ld of %s is %s with no barrier after thread %d wrote it", at, name, writing ? "written" : "read", m.writer);
    if (writing && m.read == phase && m.reader != thread) {
      if (m.reader < 0) fail("byte %ld of %s is written with no barrier after several threads read it", at, name);
      if (m.reader / 32 != thread / 32 || m.warp_syncs >= warp_syncs[thread / 32]) fail("byte %ld of %s is written with no barrier after thread %d read it", at, name, m.reader);
    }
    if (global && m.block_wrote >= launch_first_block && m.block_wrote != block_serial) fail("byte %ld of %s is %s, which another block of this launch wrote: nothing orders blocks", at, name, writing ? "written" : "read");
    if (global && writing && m.block_read >= launch_first_block && m.block_read != block_serial) fail("byte %ld of %s is written, which another block of this launch read: nothing orders blocks", at, name);
  }
  if (how == copy_starts) m.coming = true;
  if (how == reads) {
    m.reader = m.read == phase && m.reader != thread ? -1 : (short)thread;
    m.read = phase;
    // the block that would object is kept
    if (m.block_read < launch_first_block || m.block_read == block_serial) m.block_read = block_serial;
  } else if (how == atomically) m.written = true;
  else {
    m.writer = (short)thread;
    m.wrote = phase;
    m.block_wrote = block_serial;
    m.warp_syncs = warp_syncs[thread / 32];
    m.written = how != copy_starts;
  }
  if (how == reads) m.warp_syncs = warp_syncs[thread / 32];
}
EMULATOR_QUIET inline void watch_access(const void *p, size_t bytes, access_t how) {
  if (!watch_ready) watch_start();
  char *a = (char *)p;
  if (tls_begin && a >= tls_begin && a < tls_begin + tls_bytes) {
    shared_array *s = shared_at(a);
    if (!s || a + bytes > s->begin + s->bytes) fail("%s %zu bytes of shared memory that no one array has%s%s", how == reads ? "reads" : "writes", bytes, s ? ", at the end of " : "", s ? s->name : "");
    if (s->seen_block != block_serial) first_touch(*s);
    for (size_t i = 0; i < bytes; i++) check_mark(tls_marks[a - tls_begin + i], how, s->name, a - s->begin + (long)i, false);
    return;
  }
  const char *own = fibers[thread].stack;
  if (a >= own && a < own + stack_bytes) return;
  if (a >= stacks && a < stacks + (size_t)most_threads * stack_bytes) fail("touches what is thread %d's own", (int)((a - stacks) / stack_bytes));
  if (region *r = region_at(a)) {
    if (r->freed || a < r->begin || a + bytes > r->begin + r->bytes) {
      char what[200];
      describe(a < r->begin || a >= r->begin + r->bytes ? a : r->begin + r->bytes, what, sizeof what);
      fail("%s %s", how == reads ? "reads" : "writes", what);
    }
    mark *marks = marks_of(r);
    for (size_t i = 0; i < bytes; i++) check_mark(marks[a - r->begin + (long)i], how, r->name, a - r->begin + (long)i, true);
    return;
  }
  // the program's own constants and variables, and the arguments of a launch, which lie on the host's stack
  if ((a >= image_begin && a < image_end) || (a <= (char *)__libc_stack_end && a > (char *)__libc_stack_end - (1 << 23))) return;
#ifndef EMULATED_HOST_MEMORY // said where a kernel is called on the host's own memory: what is not the device's is then not watched
  fail("%s address %p, which is the host's memory or nobody's", how == reads ? "reads" : "writes", p);
#endif
}
EMULATOR_QUIET inline void watch(const void *p, size_t bytes, access_t how) {
  static bool inside = false;
  if (!in_kernel || inside) return;
  inside = true;
  watch_access(p, bytes, how);
  inside = false;
}
/** A tile keeps count itself; this is for those who read its numbers as an index. */
EMULATOR_QUIET inline void watch_tile(const void *p, size_t bytes) {
  if (!watch_ready) watch_start();
  const char *a = (const char *)p;
  shared_array *s = shared_at(a);
  if (!s) return;
  if (s->seen_block != block_serial) {
    s->seen_block = block_serial;
    s->seen_launch = launches;
    std::memset((void *)(tls_marks + (s->begin - tls_begin)), 0, s->bytes * sizeof(mark));
  }
  for (size_t i = 0; i < bytes; i++) check_mark(tls_marks[a - tls_begin + (long)i], writes, s->name, a - s->begin + (long)i, false);
}
EMULATOR_QUIET inline void watch_atomic(const void *p, size_t n) { watch(p, n, atomically); }
EMULATOR_QUIET inline void watch_async(char *to, const char *from, unsigned bytes, unsigned zeros, bool done) {
  if (tls_begin || !watch_ready) {
    if (!watch_ready) watch_start();
    if (!tls_begin || to < tls_begin || to >= tls_begin + tls_bytes) fail("an asynchronous copy to what is no shared memory");
  }
  if (!region_at(from)) fail("an asynchronous copy from what is no device memory");
  if (done && bytes > zeros) watch(from, bytes - zeros, reads);
  watch(to, bytes, done ? copy_arrives : copy_starts);
}
/** Bytes that the host copied are written; called by its copies. */
EMULATOR_QUIET inline void host_wrote(const void *p, size_t bytes) {
  const region *r = region_at(p);
  if (!r) return;
  for (size_t i = 0; i < bytes; i++) marks_of(r)[(const char *)p - r->begin + (long)i].written = true;
}
/** The first of these bytes that nobody wrote; -1 where all are. */
EMULATOR_QUIET inline long watch_unwritten(const void *p, size_t bytes) {
  const region *r = region_at(p);
  if (!r) return -1;
  const mark *marks = marks_of(r);
  for (size_t i = 0; i < bytes; i++)
    if (!marks[(const char *)p - r->begin + (long)i].written) return (long)i;
  return -1;
}
inline const bool watched = (on_atomic = watch_atomic, on_tile_write = watch_tile, on_async = watch_async, on_host_write = host_wrote, first_unwritten = watch_unwritten, true);
}

// ---- what a compiler calls; names and arguments are GCC's

#define EMULATED_HOOK extern "C" __attribute__((used, noinline, no_sanitize("thread", "undefined"))) inline
#define EMULATED_ACCESS(n) \
  EMULATED_HOOK void __tsan_read##n(void *p) { emulator::watch(p, n, emulator::reads); } \
  EMULATED_HOOK void __tsan_write##n(void *p) { emulator::watch(p, n, emulator::writes); } \
  EMULATED_HOOK void __tsan_unaligned_read##n(void *p) { emulator::watch(p, n, emulator::reads); } \
  EMULATED_HOOK void __tsan_unaligned_write##n(void *p) { emulator::watch(p, n, emulator::writes); } \
  EMULATED_HOOK void __tsan_volatile_read##n(void *p) { emulator::watch(p, n, emulator::reads); } \
  EMULATED_HOOK void __tsan_volatile_write##n(void *p) { emulator::watch(p, n, emulator::writes); }
EMULATED_ACCESS(1) EMULATED_ACCESS(2) EMULATED_ACCESS(4) EMULATED_ACCESS(8) EMULATED_ACCESS(16)
EMULATED_HOOK void __tsan_read_range(void *p, size_t n) { emulator::watch(p, n, emulator::reads); }
EMULATED_HOOK void __tsan_write_range(void *p, size_t n) { emulator::watch(p, n, emulator::writes); }
EMULATED_HOOK void __tsan_init() {}
EMULATED_HOOK void __tsan_func_entry(void *) {}
EMULATED_HOOK void __tsan_func_exit() {}
EMULATED_HOOK void __tsan_vptr_update(void *, void *) {}
EMULATED_HOOK void __tsan_vptr_read(void *) {}
namespace emulator {
struct ubsan_place { const char *file; unsigned line, column; };
struct ubsan_type { uint16_t kind, info; char name[1]; };
struct ubsan_mismatch { ubsan_place at; const ubsan_type *type; unsigned char log_alignment, kind; };
struct ubsan_bounds { ubsan_place at; const ubsan_type *array, *index; };
}
EMULATED_HOOK void __ubsan_handle_type_mismatch_v1(emulator::ubsan_mismatch *d, uintptr_t p) {
  static char what[300];
  std::snprintf(what, sizeof what, "%s of %s at an address that is not a multiple of %d", d->kind == 0 ? "a load" : d->kind == 1 ? "a store" : "a use", d->type->name, 1 << d->log_alignment);
  (void)p;
  emulator::fail_at(d->at.file, (int)d->at.line, what);
}
EMULATED_HOOK void __ubsan_handle_out_of_bounds(emulator::ubsan_bounds *d, uintptr_t i) {
  static char what[300];
  std::snprintf(what, sizeof what, "element %ld of an array %s is touched", (long)i, d->array->name);
  emulator::fail_at(d->at.file, (int)d->at.line, what);
}
