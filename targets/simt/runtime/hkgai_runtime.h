// Between the runtime of a device's program and a generated model: where weights lie, the state of a step. Pointers into the device's memory are
// pointers here too; only the device follows them.
#pragma once
#include "hkgai.h"
#include "hkgai_device.h"

/** A safetensors file that the plan was made for. */
struct hk_file { const char *name; uint64_t bytes, header_bytes; uint32_t header_hash; };
/** A stretch of a file, and where it lies in the device's slab of weights: a multiple of 256, so that rows can be read in wide words. */
struct hk_span { int file; uint64_t offset, bytes, at; };
/** What a member of a layer's struct points to: a span, a table of spans, a state, or a place in the arena. */
struct hk_bind { char kind; uint64_t first; };
/** A constant table that is copied to the device. */
struct hk_table { const float *values; uint64_t count; };

struct hkgai {
  struct hk_device *device;
  /** The slab of weights; pointers to all spans, in the order of hk_spans. */
  char *slab, *pointers;
  char **states;
  char *arena;
  const float **tables;
  // the step at hand, on the device
  long tokens, wanted;
  int32_t *ids, *next_ids, *positions, *sequences, *wanted_rows;
  int with_mtp;
  /** The same numbers on the host, before they are copied. */
  int32_t *rows;
  /** The generated structs of layers, filled by hk_bind_model. */
  void *plan;
  hkgai_tap tap;
  void *tap_context;
};

// What a generated model says of itself (model.c, weights.c)
extern const hkgai_info hk_info;
extern const int hk_file_count, hk_span_count, hk_state_count, hk_table_count;
extern const struct hk_file hk_files[];
extern const struct hk_span hk_spans[];
extern const struct hk_table hk_tables[];
extern const uint64_t hk_state_sizes[];
/** Bytes of the slab of weights. */
extern const uint64_t hk_slab_bytes;
/** Offsets of the outputs in the arena. mtp is UINT64_MAX where there is none. */
extern const uint64_t hk_logits_at, hk_mtp_logits_at;
void hk_bind_model(struct hkgai *m);
void hk_forward(struct hkgai *m);

/** Fill `count` pointers from their bindings. */
void hk_bind_members(struct hkgai *m, void *members, const struct hk_bind *binds, int count);
void hk_tap_value(struct hkgai *m, int layer, const char *name, char element, const void *data, long rows, long columns);
/** Named values are copied from the device only where someone asked for them. */
#define HK_TAP(m, ...) ((m)->tap ? hk_tap_value(m, __VA_ARGS__) : (void)0)
#define hk_launch(m, kernel, arguments, blocks) hk_device_launch((m)->device, kernel, arguments, blocks)
