// One device, as the runtime of a program sees it: memory that the host cannot touch, copies, kernels in order on one stream. Behind it stands a
// vendor's interface (hkgai_device.c or .su, beside the target). The first thing that goes wrong is kept, and what follows does nothing.
#pragma once
#include <stddef.h>
#include <stdint.h>
#ifdef __cplusplus
extern "C" {
#endif

/** A kernel's name and its arguments, 8 bytes each in the order of its struct: `p` a device address, `n` a whole number. */
struct hk_kernel { const char *name, *arguments; };
extern const struct hk_kernel hk_kernels[];
extern const int hk_kernel_count;

struct hk_device;
/** The first device of this machine. NULL with a sentence in `error`. @param beside directory of the executable, where kernels lie that were not linked in */
struct hk_device *hk_device_open(const char *beside, char *error, size_t error_size);
void hk_device_close(struct hk_device *d);
/** What it calls itself. */
const char *hk_device_name(const struct hk_device *d);
/** Memory at a multiple of 256 bytes; NULL where there is too little. Nothing is known of what is in it. Freed by hk_device_close. */
char *hk_device_memory(struct hk_device *d, uint64_t bytes);
void hk_device_zero(struct hk_device *d, void *at, uint64_t bytes);
/** The host's bytes are read before this returns. */
void hk_device_upload(struct hk_device *d, void *to, const void *from, uint64_t bytes);
/** Waits for all that was started before. */
void hk_device_download(struct hk_device *d, void *to, const void *from, uint64_t bytes);
/** Start kernel number `kernel` over `blocks` blocks; nothing where there are none. */
void hk_device_launch(struct hk_device *d, int kernel, const void *arguments, long blocks);
/**
 * What follows until hk_device_recorded is the same at every step with this key: begin gives 1 where it must be said (and is kept if the device can),
 * 0 where it was run again from what was kept.
 */
int hk_device_record(struct hk_device *d, uint64_t key);
void hk_device_recorded(struct hk_device *d, uint64_t key);
/** The first thing that went wrong, as a sentence; NULL where nothing did. */
const char *hk_device_failure(const struct hk_device *d);
/** Bytes of memory of the device; 0 where it does not say. */
uint64_t hk_device_bytes(struct hk_device *d);

#ifdef __cplusplus
}
#endif
