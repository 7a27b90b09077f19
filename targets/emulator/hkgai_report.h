// What every emulator of this project shares: how a fault ends the program, and device memory that only kernels may touch.
// A fault says the kernel, where in the grid, the line of the source where the program was built with -g, and what is wrong; the program ends with 2.
// Device memory lies between pages that nobody may touch, its end at the second one; the host is kept out of it except by the copies below.
#pragma once
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <execinfo.h>
#include <link.h>
#include <signal.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>
#include <utility>

// Code of the emulators themselves is not watched where a program is built to be watched (simt/emulator/hkgai_watch.h).
#ifdef __SANITIZE_THREAD__
#define EMULATOR_QUIET __attribute__((no_sanitize("thread", "undefined"), noinline))
#else
#define EMULATOR_QUIET
#endif

namespace emulator {
inline const char *kernel_name = nullptr; // where a launch gave it; else from the program's own symbols
inline bool in_kernel = false;
inline void (*say_place)(char *to, size_t room) = nullptr; // "block 3, thread 40": each emulator's own words
inline const void *fault_address = nullptr;                // the instruction that a signal came from

/** Where a fault is: function, file and line of the source, as far as the program's own symbols say. */
struct source_place {
  char kernel[200] = "", function[200] = "", file[512] = "";
  int line = 0;
};
EMULATOR_QUIET inline bool own_file(const char *f) { return std::strstr(f, "/emulator/hkgai_") || std::strstr(f, "/emulator/kernel_operator.h") || std::strstr(f, "/emulator/emulated_") || std::strstr(f, "/bits/") || std::strstr(f, "/c++/"); }
EMULATOR_QUIET inline int first_object(dl_phdr_info *info, size_t, void *to) { *(uintptr_t *)to = info->dlpi_addr; return 1; }
/** A line without its end, and no more of it than there is room for; false at the end. */
EMULATOR_QUIET inline bool read_line(char *to, size_t room, FILE *f) {
  size_t n = 0;
  int c;
  while ((c = std::fgetc(f)) != EOF && c != '\n')
    if (n + 1 < room) to[n++] = (char)c;
  to[n] = 0;
  return c != EOF || n > 0;
}
EMULATOR_QUIET inline source_place place_of_stack() {
  source_place at;
  void *frames[64];
  const int count = backtrace(frames, 64);
  uintptr_t base = 0;
  dl_iterate_phdr(first_object, &base);
  static char command[4096];
  char self[512];
  const ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
  if (n <= 0) return at;
  self[n] = 0;
  int used = std::snprintf(command, sizeof command, "addr2line -f -i -C -e '%s'", self);
  for (int i = 0; i < count && used < (int)sizeof command - 40; i++)
    used += std::snprintf(command + used, sizeof command - used, " 0x%lx", (unsigned long)((uintptr_t)frames[i] - base - (frames[i] == fault_address ? 0 : 1)));
  std::snprintf(command + used, sizeof command - used, " 2>/dev/null");
  FILE *f = popen(command, "r");
  if (!f) return at;
  static char function[200], where[512];
  bool inside = false;
  while (read_line(function, sizeof function, f) && read_line(where, sizeof where, f)) {
    if (own_file(where) || !std::strncmp(function, "emulator::", 10) || !std::strncmp(function, "AscendC::", 9) || !std::strncmp(function, "__tsan", 6) || function[0] == '?') {
      if (inside) break;
      continue;
    }
    if (std::strstr(function, "{lambda()#") || !std::strncmp(function, "std::_Function", 14) || (in_kernel && !std::strcmp(function, "main"))) { if (inside) break; continue; }
    char *colon = std::strrchr(where, ':');
    // verbs of the checked-in headers are not what a reader looks for
    if (!inside || std::strstr(at.file, "/header/")) {
      if (colon && where[0] != '?') {
        const char *name = std::strrchr(where, '/');
        *colon = 0;
        std::snprintf(at.file, sizeof at.file, "%s", std::strstr(where, "/header/") ? where : name ? name + 1 : where);
        at.line = std::atoi(colon + 1);
      }
      std::snprintf(at.function, sizeof at.function, "%s", function);
      inside = true;
    }
    char *arguments = std::strchr(function, '(');
    if (arguments) *arguments = 0;
    std::snprintf(at.kernel, sizeof at.kernel, "%s", function);
  }
  pclose(f);
  const char *name = std::strrchr(at.file, '/');
  if (name) std::memmove(at.file, name + 1, std::strlen(name));
  return at;
}
/** Ends the program: what is wrong, where. `file` and `line` where the caller knows them better than the stack does. */
[[noreturn]] EMULATOR_QUIET inline void fail_at(const char *file, int line, const char *what) {
  const source_place at = place_of_stack();
  char where[200] = "";
  if (in_kernel && say_place) say_place(where, sizeof where);
  const char *name = file ? (std::strrchr(file, '/') ? std::strrchr(file, '/') + 1 : file) : at.file;
  const int number = file ? line : at.line;
  const char *kernel = kernel_name ? kernel_name : at.kernel;
  std::fflush(stdout);
  std::fprintf(stderr, "emulator: %s%s%s%s", in_kernel ? "kernel " : "the host", in_kernel ? (*kernel ? kernel : "?") : "", *where ? ", " : "", where);
  if (*name && number) std::fprintf(stderr, ", %s:%d", name, number);
  std::fprintf(stderr, ": %s\n", what);
  std::fflush(stderr);
  _exit(2);
}
[[noreturn]] __attribute__((format(printf, 1, 2))) EMULATOR_QUIET inline void fail(const char *format, ...) {
  static char what[1000];
  va_list args;
  va_start(args, format);
  std::vsnprintf(what, sizeof what, format, args);
  va_end(args);
  fail_at(nullptr, 0, what);
}

// ---- device memory

/** Both halves of a poisoned word are NaN in every 16-bit float, and the word is NaN in f32. */
constexpr uint32_t poison_word = 0xfff5fff5u;
EMULATOR_QUIET inline void poison(void *p, size_t bytes) {
  for (size_t i = 0; i < bytes; i++) ((unsigned char *)p)[i] = ((uintptr_t)p + i) % 2 ? 0xff : 0xf5;
}
struct region {
  char *map, *begin;
  size_t map_bytes, bytes;
  char name[40];
  bool freed;
};
constexpr int most_regions = 8192;
inline region regions[most_regions];
inline int region_count = 0, region_last = 0;
inline bool device_is_open = false;
inline int device_protection = PROT_READ | PROT_WRITE; // while it is open: reading alone where kernels write by copies
inline void (*on_host_write)(const void *, size_t) = nullptr;        // a program that is watched keeps count of what is written
inline long (*first_unwritten)(const void *, size_t) = nullptr;
inline size_t device_bytes = 0, device_limit = (size_t)1 << 40;

/** The region that an address lies in, its guard pages included; null where it is none. */
EMULATOR_QUIET inline region *region_at(const void *p) {
  const char *a = (const char *)p;
  region *last = &regions[region_last];
  if (region_last < region_count && a >= last->map && a < last->map + last->map_bytes) return last;
  for (int i = 0; i < region_count; i++)
    if (a >= regions[i].map && a < regions[i].map + regions[i].map_bytes) return &regions[region_last = i];
  return nullptr;
}
EMULATOR_QUIET inline void protect(const region &r) {
  const size_t page = (size_t)sysconf(_SC_PAGESIZE);
  if (!r.freed) mprotect(r.map + page, r.map_bytes - 2 * page, device_is_open ? device_protection : PROT_NONE);
}
/** Opens device memory to a kernel, or to a copy, and closes it again. */
EMULATOR_QUIET inline void device_open(bool open) {
  if (open == device_is_open) return;
  device_is_open = open;
  for (int i = 0; i < region_count; i++) protect(regions[i]);
}
/** What lies in a region's pages before and after its bytes still has the poison that was put there. */
EMULATOR_QUIET inline void check_margins() {
  const bool was = device_is_open;
  device_open(true);
  const size_t page = (size_t)sysconf(_SC_PAGESIZE);
  for (int i = 0; i < region_count; i++) {
    const region &r = regions[i];
    if (r.freed) continue;
    for (char *p = r.map + page; p < r.map + r.map_bytes - page; p++) {
      if (p == r.begin) p += r.bytes;
      if (p >= r.map + r.map_bytes - page) break;
      if (*(unsigned char *)p != ((uintptr_t)p % 2 ? 0xff : 0xf5)) fail("something was written %ld bytes %s %s of %zu bytes", p < r.begin ? (long)(r.begin - p) : (long)(p - r.begin - (long)r.bytes), p < r.begin ? "before" : "after", r.name, r.bytes);
    }
  }
  device_open(was);
}
/** What an access is to what lies there, as the end of a sentence. */
EMULATOR_QUIET inline void describe(const void *p, char *to, size_t room) {
  const region *r = region_at(p);
  const char *a = (const char *)p;
  if (!r) std::snprintf(to, room, "address %p, which is no device memory", p);
  else if (r->freed) std::snprintf(to, room, "byte %ld of %s, which was freed", (long)(a - r->begin), r->name);
  else if (a < r->begin) std::snprintf(to, room, "%ld bytes before %s of %zu bytes", (long)(r->begin - a), r->name, r->bytes);
  else if (a >= r->begin + r->bytes) std::snprintf(to, room, "%ld bytes after the end of %s of %zu bytes", (long)(a - r->begin - r->bytes), r->name, r->bytes);
  else std::snprintf(to, room, "byte %ld of %s", (long)(a - r->begin), r->name);
}
/** Whether all these bytes are one live region's. */
EMULATOR_QUIET inline bool on_device(const void *p, size_t bytes) {
  const region *r = region_at(p);
  const char *a = (const char *)p;
  return r && !r->freed && a >= r->begin && a + bytes <= r->begin + r->bytes;
}
EMULATOR_QUIET inline void on_signal(int, siginfo_t *info, void *context) {
  char what[200];
  bool writes = false;
#ifdef __x86_64__
  const ucontext_t *u = (const ucontext_t *)context;
  writes = u->uc_mcontext.gregs[REG_ERR] & 2;
  fault_address = (const void *)u->uc_mcontext.gregs[REG_RIP];
#elif defined(__aarch64__)
  fault_address = (const void *)((const ucontext_t *)context)->uc_mcontext.pc;
#endif
  describe(info->si_addr, what, sizeof what);
  const region *r = region_at(info->si_addr);
  if (!in_kernel && r) fail("the host %s device memory, %s: copy it first", writes ? "writes" : "touches", what);
  if (r && writes && on_device(info->si_addr, 1)) fail("a scalar writes %s: global memory is written by copies alone", what);
  fail("%s %s", writes ? "writes" : "reads", what);
}
EMULATOR_QUIET inline void watch_signals() {
  static char stack[65536];
  stack_t s = {};
  s.ss_sp = stack;
  s.ss_size = sizeof stack;
  sigaltstack(&s, nullptr);
  struct sigaction a = {};
  a.sa_sigaction = on_signal;
  a.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
  sigaction(SIGSEGV, &a, nullptr);
  sigaction(SIGBUS, &a, nullptr);
  void *first[1];
  backtrace(first, 1); // loads what it needs now, not in a handler
}
/** Poisoned memory of the device; null where the device has no more. It begins at `align` bytes, and its end, rounded up to that, is a guard page's begin. */
EMULATOR_QUIET inline void *device_alloc(size_t bytes, const char *name = nullptr, size_t align = 32) {
  static bool watched = false;
  if (!watched) watch_signals();
  watched = true;
  if (device_bytes + bytes > device_limit || region_count == most_regions) return nullptr;
  const size_t page = (size_t)sysconf(_SC_PAGESIZE);
  const size_t held = (bytes + align - 1) / align * align, pages = (held + page - 1) / page * page;
  char *map = (char *)mmap(nullptr, pages + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (map == MAP_FAILED) return nullptr;
  region &r = regions[region_count++];
  r = {map, map + page + pages - held, pages + 2 * page, bytes, "", false};
  if (name) std::snprintf(r.name, sizeof r.name, "%s", name);
  else std::snprintf(r.name, sizeof r.name, "allocation %d", region_count);
  mprotect(map + page, pages, PROT_READ | PROT_WRITE);
  poison(map + page, pages);
  protect(r);
  device_bytes += bytes;
  return r.begin;
}
/** False where nothing begins there. Freed memory stays closed for good. */
EMULATOR_QUIET inline bool device_free(void *p) {
  region *r = region_at(p);
  if (!r || r->begin != p || r->freed) return false;
  check_margins();
  r->freed = true;
  device_bytes -= r->bytes;
  mprotect(r->map, r->map_bytes, PROT_NONE);
  madvise(r->map, r->map_bytes, MADV_DONTNEED);
  return true;
}
/** A copy with either side on the device or the host; a side that is said to be the device's must be, all of it. */
EMULATOR_QUIET inline void device_copy(void *to, const void *from, size_t bytes, bool to_device, bool from_device) {
  char what[200];
  for (const auto &[p, device] : {std::pair<const void *, bool>{to, to_device}, std::pair<const void *, bool>{from, from_device}}) {
    if (device && !on_device(p, bytes)) {
      describe(on_device(p, 0) || !region_at(p) ? (const char *)p + (region_at(p) ? region_at(p)->bytes - ((const char *)p - region_at(p)->begin) : 0) : p, what, sizeof what);
      fail("a copy of %zu bytes %s %s", bytes, p == to ? "writes" : "reads", what);
    }
    if (!device && region_at(p)) fail("a copy %s device memory that it takes for the host's: %s", p == to ? "writes" : "reads", region_at(p)->name);
  }
  const bool was = device_is_open;
  device_open(true);
  std::memmove(to, from, bytes);
  if (to_device && on_host_write) on_host_write(to, bytes);
  device_open(was);
}
/** Ends the program where a word of an output is still as it was allocated. */
EMULATOR_QUIET inline void expect_written(const void *p, size_t bytes) {
  const region *r = region_at(p);
  if (!on_device(p, bytes)) fail("an output is not all in device memory");
  const bool was = device_is_open;
  device_open(true);
  const long unwritten = first_unwritten ? first_unwritten(p, bytes) : -1;
  if (unwritten >= 0) fail("byte %ld of %s was never written", (long)((const char *)p - r->begin) + unwritten, r->name);
  for (size_t i = 0; i + 4 <= bytes; i += 4) {
    uint32_t word;
    std::memcpy(&word, (const char *)p + i, 4);
    if (word == poison_word) fail("bytes %zu to %zu of %s were never written", (size_t)((const char *)p - r->begin) + i, (size_t)((const char *)p - r->begin) + i + 3, r->name);
  }
  device_open(was);
}

// ---- order

/** Numbers that every run draws alike; EMULATED_SEED in the environment chooses another order. */
inline uint32_t dice_state = 0;
EMULATOR_QUIET inline uint32_t dice() {
  if (dice_state == 0) {
    const char *seed = std::getenv("EMULATED_SEED");
    dice_state = 1 + 2654435761u * (uint32_t)(seed ? std::atoi(seed) : 1);
  }
  dice_state = dice_state * 1664525u + 1013904223u;
  return dice_state >> 8;
}
}
