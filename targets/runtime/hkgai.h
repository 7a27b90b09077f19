// The C interface of a compiled model. One model, several sequences; a step brings rows of any of them.
#pragma once
#include <stddef.h>
#include <stdint.h>
#ifdef __cplusplus
extern "C" {
#endif

typedef struct hkgai hkgai;

typedef struct {
  const char *name;
  int vocab;
  /** Positions a sequence may hold, sequences held at once, rows of one step. */
  int context, sequences, chunk;
  /** Multi-token prediction blocks that can be asked for. */
  int mtp;
  /** Bytes of weights in the files, of caches, of the arena for activations. */
  uint64_t weight_bytes, state_bytes, arena_bytes;
} hkgai_info;

/** Rows of a step: token, position and sequence of each. Rows of one sequence come in rising position, each position once. */
typedef struct {
  int rows;
  const int32_t *ids, *positions, *sequences;
  /** The token after each row, or NULL where no MTP logits are asked for. */
  const int32_t *next_ids;
  /** Rows whose logits are wanted. */
  int wanted;
  const int32_t *wanted_rows;
} hkgai_batch;

/**
 * Open the model's weights. NULL with a sentence in `error` where a file is missing, is not the one compiled for, or memory is short.
 * @param weights directory with the safetensors files @param threads 0 takes the processors at hand
 */
hkgai *hkgai_open(const char *weights, int threads, char *error, size_t error_size);
void hkgai_close(hkgai *m);
hkgai_info hkgai_about(void);

/**
 * Run a step. logits [wanted, vocab] f32; mtp_logits the same for the first MTP block, or NULL.
 * Returns NULL, or a sentence where the batch is not legal; nothing has changed then.
 */
const char *hkgai_step(hkgai *m, const hkgai_batch *batch, float *logits, float *mtp_logits);

/** Bytes per second that all threads together read from memory: the best of five passes over 256 MiB. 0 where memory is short. */
double hkgai_bandwidth(hkgai *m);

/** Called for named values as they are computed, where the program was built with -DHKGAI_TAPS. element: 'f' f32, 'i' i32. */
typedef void (*hkgai_tap)(void *context, const char *name, char element, const void *data, long rows, long columns);
void hkgai_set_tap(hkgai *m, hkgai_tap tap, void *context);

#ifdef __cplusplus
}
#endif
