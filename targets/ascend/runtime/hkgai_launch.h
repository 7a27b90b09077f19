// Between the device of an Ascend program and its printed launches.cpp: how each kernel is started, in the order of hk_kernels.
#pragma once
#include <acl/acl.h>
#ifdef __cplusplus
extern "C" {
#endif
/** Starts a kernel on so many vector cores; what the generated launch function returned. @param arguments the kernel's struct of kernels.h */
typedef uint32_t (*hk_starter)(uint32_t cores, aclrtStream stream, const void *arguments);
extern const hk_starter hk_starters[];
/** What aclrtGetSocName begins with on the chips that the kernels were made for. */
extern const char *const hk_soc;
#ifdef __cplusplus
}
#endif
