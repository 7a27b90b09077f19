// Where workers run: with HKGAI_PIN=1 each on one processor, all on different ones; with HKGAI_PIN=0 as the process may; and with "refused" as
// argument the system forbids both calls, and blocks are run all the same. Prints how many workers are held to one processor.
#define _GNU_SOURCE
#include "hkgai_pool.h"
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/** From here on sched_setaffinity and set_mempolicy fail with EPERM, as in a container that does not allow them. */
static int refuse(void) {
  struct sock_filter rules[] = {
    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_sched_setaffinity, 1, 0),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_set_mempolicy, 0, 1),
    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  struct sock_fprog program = {sizeof rules / sizeof *rules, rules};
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}
enum { most = 64 };
static cpu_set_t seen[most];
static long caller;
static void look(const void *arguments, long from, long to) {
  (void)arguments;
  usleep(2000); // so that every thread takes some
  for (long i = from; i < to; i++) {
    CPU_ZERO(&seen[i]);
    if (syscall(SYS_gettid) != caller) sched_getaffinity(0, sizeof seen[i], &seen[i]);
  }
}
int main(int argc, char **argv) {
  const int threads = argc > 1 ? atoi(argv[1]) : 2;
  if (argc > 2 && strcmp(argv[2], "refused") == 0 && !refuse()) return puts("this system has no seccomp"), 3;
  hk_interleave(1);
  hk_interleave(0);
  struct hk_pool *pool = hk_pool_open(threads);
  if (!pool) return 2;
  caller = syscall(SYS_gettid);
  for (int turn = 0; turn < 20; turn++) hk_run(pool, look, NULL, most);
  hk_pool_close(pool);
  int by_workers = 0, held = 0;
  cpu_set_t used;
  CPU_ZERO(&used);
  for (int i = 0; i < most; i++) {
    if (CPU_COUNT(&seen[i]) == 0) continue;
    by_workers++;
    if (CPU_COUNT(&seen[i]) == 1) CPU_OR(&used, &used, &seen[i]), held++;
  }
  if (by_workers == 0) return puts("no worker took a block"), 1;
  if (held != 0 && held != by_workers) return puts("some workers are held and some are not"), 1;
  printf("%d held\n", CPU_COUNT(&used));
  return 0;
}
