// Many launches of a few blocks each on more threads than there are processors: every block is run once, and all are done when hk_run returns.
#include "hkgai_pool.h"
#include <stdio.h>
#include <stdlib.h>

enum { most = 700 };
struct launch { int *seen; int turn; };
static void mark(const void *arguments, long from, long to) {
  const struct launch *l = arguments;
  for (long i = from; i < to; i++) l->seen[i] = l->seen[i] == l->turn - 1 ? l->turn : -1;
}
int main(int argc, char **argv) {
  const int threads = argc > 1 ? atoi(argv[1]) : 1, launches = argc > 2 ? atoi(argv[2]) : 1000;
  struct hk_pool *pool = hk_pool_open(threads);
  if (!pool) return 2;
  static int seen[most];
  unsigned state = 12345;
  for (int turn = 1; turn <= launches; turn++) {
    state = state * 1664525u + 1013904223u;
    const long count = 1 + (state >> 8) % most;
    for (long i = 0; i < count; i++) seen[i] = turn - 1;
    hk_run(pool, mark, &(struct launch){seen, turn}, count);
    for (long i = 0; i < count; i++)
      if (seen[i] != turn) return printf("launch %d of %ld blocks: block %ld was not run once\n", turn, count, i), 1;
  }
  hk_pool_close(pool);
  printf("%d launches on %d threads\n", launches, threads);
  return 0;
}
