// Between the runtime and a generated model: where weights lie, the state of a step.
#pragma once
#include "hkgai.h"
#include "hkgai_pool.h"

/** A safetensors file that the plan was made for. */
struct hk_file { const char *name; uint64_t bytes, header_bytes; uint32_t header_hash; };
/** A stretch of a file. */
struct hk_span { int file; uint64_t offset; };
/** What a member of a layer's struct points to: a span, a table of spans, a state, or a place in the arena. */
struct hk_bind { char kind; uint64_t first; };

struct hkgai {
  struct hk_pool *pool;
  /** Pointers to all spans, in the order of hk_spans. */
  const void **weights;
  char **states;
  char *arena;
  char **maps;
  // the step at hand
  long tokens, wanted;
  int32_t *ids, *next_ids, *positions, *sequences, *wanted_rows;
  int with_mtp;
  /** The generated structs of layers, filled by hk_bind_model. */
  void *plan;
  hkgai_tap tap;
  void *tap_context;
};

// What a generated model says of itself (model.c, weights.c)
extern const hkgai_info hk_info;
extern const int hk_file_count, hk_span_count, hk_state_count;
extern const struct hk_file hk_files[];
extern const struct hk_span hk_spans[];
extern const uint64_t hk_state_sizes[];
/** Offsets of the outputs in the arena. mtp is UINT64_MAX where there is none. */
extern const uint64_t hk_logits_at, hk_mtp_logits_at;
void hk_bind_model(struct hkgai *m);
void hk_forward(struct hkgai *m);

/** Fill `count` pointers from their bindings. */
void hk_bind_members(struct hkgai *m, void *members, const struct hk_bind *binds, int count);
#ifdef HKGAI_TAPS
void hk_tap_value(struct hkgai *m, int layer, const char *name, char element, const void *data, long rows, long columns);
#define HK_TAP(...) hk_tap_value(__VA_ARGS__)
#else
#define HK_TAP(...) ((void)0)
#endif
