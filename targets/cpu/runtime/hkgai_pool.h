// A pool of threads that runs one launch after another.
#pragma once

struct hk_pool;
typedef void (*hk_task)(const void *arguments, long from, long to);
/** NULL where memory is short; fewer threads than asked for where the system gives no more. */
struct hk_pool *hk_pool_open(int threads);
/** Pages that the calling thread takes from now on lie on all memory nodes in turn, or as the system chooses again. */
void hk_interleave(int on);
void hk_pool_close(struct hk_pool *pool);
/** Run blocks [0, count), in pieces of consecutive blocks on whichever thread is free; returns when all are done. One caller at a time. */
void hk_run(struct hk_pool *pool, hk_task task, const void *arguments, long count);
