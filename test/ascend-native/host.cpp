// A host on the emulated device of targets/ascend/emulator: what is legal gives the sums, each fault ends it with a sentence. argv[1] names the case.
#include "emulated_launch.h"
#include <cstdio>
#include <cstring>
#include <string>
using namespace AscendC;

extern "C" const char *const hk_soc = "Ascend910B";
/** y = x + by, a block of 8 at a time; `out_of_line` writes by scalars. */
static void add(const float *x, float *y, int64_t by) {
  TPipe pipe;
  TBuf<TPosition::VECCALC> all;
  pipe.InitBuffer(all, 64);
  LocalTensor<float> t = all.GetWithOffset<float>(8, 0);
  for (int64_t block = GetBlockIdx(); block < 4; block += GetBlockNum()) {
    for (int i = 0; i < 8; i++) t.SetValue(i, x[block * 8 + i]);
    PipeBarrier<PIPE_ALL>();
    Adds(t, t, (float)by, 8);
    PipeBarrier<PIPE_ALL>();
    GlobalTensor<float> to;
    to.SetGlobalBuffer(y + block * 8);
    DataCopyPad(to, t, {1, 32, 0, 0, 0});
    PipeBarrier<PIPE_ALL>();
  }
}
static void by_scalar(const float *x, float *y, int64_t) { y[0] = x[0]; }
static void past_the_end(const float *, float *y, int64_t) {
  TPipe pipe;
  TBuf<TPosition::VECCALC> all;
  pipe.InitBuffer(all, 64);
  LocalTensor<float> t = all.GetWithOffset<float>(8, 0);
  for (int i = 0; i < 8; i++) t.SetValue(i, 1.0f);
  PipeBarrier<PIPE_ALL>();
  GlobalTensor<float> to;
  to.SetGlobalBuffer(y + 28);
  DataCopyPad(to, t, {1, 32, 0, 0, 0});
}
/** Each block reads what the one before it wrote: right only in order. */
static void chained(const float *x, float *y, int64_t) {
  TPipe pipe;
  TBuf<TPosition::VECCALC> all;
  pipe.InitBuffer(all, 64);
  LocalTensor<float> t = all.GetWithOffset<float>(8, 0);
  const int64_t block = GetBlockIdx();
  for (int i = 0; i < 8; i++) t.SetValue(i, block == 0 ? x[i] : y[(block - 1) * 8 + i] + 1.0f);
  PipeBarrier<PIPE_ALL>();
  GlobalTensor<float> to;
  to.SetGlobalBuffer(y + block * 8);
  DataCopyPad(to, t, {1, 32, 0, 0, 0});
}

int main(int, char **args) {
  const std::string which = args[1];
  float host[32], back[32];
  for (int i = 0; i < 32; i++) host[i] = (float)i;
  if (which == "set before init") aclrtSetDevice(0);
  aclInit(nullptr);
  if (which == "memory before set") { void *p; aclrtMalloc(&p, 64, ACL_MEM_MALLOC_HUGE_FIRST); }
  aclrtSetDevice(0);
  aclrtStream stream;
  aclrtCreateStream(&stream);
  void *px, *py;
  aclrtMalloc(&px, 128, ACL_MEM_MALLOC_HUGE_FIRST);
  aclrtMalloc(&py, 128, ACL_MEM_MALLOC_HUGE_FIRST);
  float *x = (float *)px, *y = (float *)py;
  if (which == "too much memory") { void *p; std::printf("%d\n", aclrtMalloc(&p, (size_t)1 << 50, ACL_MEM_MALLOC_HUGE_FIRST)); return 0; }
  if (which == "host reads") std::printf("%f\n", x[0]);
  if (which == "host writes") x[0] = 1;
  if (which == "wrong kind") aclrtMemcpy(x, 128, host, 128, ACL_MEMCPY_DEVICE_TO_DEVICE);
  if (which == "copy too long") aclrtMemcpy(x, 128, host, 129, ACL_MEMCPY_HOST_TO_DEVICE);
  if (which == "room too large") aclrtMemcpy(x, 132, host, 128, ACL_MEMCPY_HOST_TO_DEVICE);
  if (which == "freed") { aclrtFree(y); aclrtMemcpy(back, 128, y, 128, ACL_MEMCPY_DEVICE_TO_HOST); }
  aclrtMemcpy(x, 128, host, 128, ACL_MEMCPY_HOST_TO_DEVICE);
  uint32_t code = 0;
  if (which == "no blocks") ACLRT_LAUNCH_KERNEL(add)(0, stream, x, y, 1);
  else if (which == "too many blocks") ACLRT_LAUNCH_KERNEL(add)(49, stream, x, y, 1);
  else if (which == "host argument") ACLRT_LAUNCH_KERNEL(add)(2, stream, host, y, 1);
  else if (which == "null argument") ACLRT_LAUNCH_KERNEL(add)(2, stream, x, nullptr, 1);
  else if (which == "no stream") ACLRT_LAUNCH_KERNEL(add)(2, nullptr, x, y, 1);
  else if (which == "scalar write") ACLRT_LAUNCH_KERNEL(by_scalar)(1, stream, x, y, 1);
  else if (which == "past the end") ACLRT_LAUNCH_KERNEL(past_the_end)(1, stream, x, y, 1);
  else if (which == "blocks in order") ACLRT_LAUNCH_KERNEL(chained)(4, stream, x, y, 1);
  else code = ACLRT_LAUNCH_KERNEL(add)(3, stream, x, y, 1);
  if (code != 0) return 1;
  if (which == "not waited for") { aclrtMemcpy(back, 128, y, 128, ACL_MEMCPY_DEVICE_TO_HOST); return 0; }
  aclrtSynchronizeStream(stream);
  aclrtMemcpy(back, 128, y, 128, ACL_MEMCPY_DEVICE_TO_HOST);
  for (int i = 0; i < 32; i++) std::printf("%g%c", back[i], i == 31 ? '\n' : ' ');
  if (which != "stream left") aclrtDestroyStream(stream);
  if (which != "memory left") { aclrtFree(x); aclrtFree(y); }
  aclrtResetDevice(0);
  aclFinalize();
  return 0;
}
