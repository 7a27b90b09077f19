// The part of AscendC that printed kernels use, on a CPU and stricter than a core: a unified buffer of 192 KB, operands that begin at 32 bytes, compares
// of whole 256-byte pieces, everything inside its buffer.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#define __aicore__
#define __gm__
#define __global__
enum pipe_t { PIPE_ALL };
struct bfloat16_t { uint16_t bits; };
namespace AscendC {
enum class TPosition { VECCALC };
enum class RoundMode { CAST_NONE, CAST_RINT, CAST_TRUNC };
enum class CMPMODE { LT, LE, EQ };
enum class SELMODE { VSEL_TENSOR_TENSOR_MODE, VSEL_TENSOR_SCALAR_MODE };
inline void wrong(const char *what) { std::printf("emulator: %s\n", what); std::exit(2); }
inline long block_index, block_count = 3, ub_limit = 196608;
inline long GetBlockIdx() { return block_index; }
inline long GetBlockNum() { return block_count; }
template <pipe_t> inline void PipeBarrier() {}

template <class T> struct LocalTensor {
  T *p = nullptr;
  const char *begin = nullptr, *end = nullptr;
  LocalTensor operator[](long i) const { LocalTensor t = *this; t.p += i; if ((const char *)t.p > end) wrong("a tensor begins after its buffer"); return t; }
  void inside(long i) const { if ((const char *)(p + i) < begin || (const char *)(p + i + 1) > end) wrong("a scalar is outside the unified buffer"); }
  T GetValue(long i) const { inside(i); return p[i]; }
  void SetValue(long i, T v) const { inside(i); p[i] = v; }
  template <class U> LocalTensor<U> ReinterpretCast() const { LocalTensor<U> t; t.p = (U *)p; t.begin = begin; t.end = end; return t; }
};
template <class T> inline void vector(const LocalTensor<T> &t, long n) {
  if ((t.p - (T *)nullptr) * (long)sizeof(T) % 32 != 0 && (uintptr_t)t.p % 32 != 0) wrong("a vector operand does not begin at 32 bytes");
  if (n < 1 || (const char *)(t.p + n) > t.end) wrong("a vector operand ends after its buffer");
}
struct TPipe { template <class B> void InitBuffer(B &b, uint32_t n) { if (n > ub_limit) wrong("the unified buffer is too small"); b.memory = (char *)std::aligned_alloc(256, (n + 255) / 256 * 256); std::memset(b.memory, 0xff, n); b.size = n; } };
template <TPosition> struct TBuf {
  char *memory = nullptr;
  uint32_t size = 0;
  ~TBuf() { std::free(memory); }
  template <class T> LocalTensor<T> GetWithOffset(uint32_t n, uint32_t at) { if (at + n * sizeof(T) > size) wrong("more is taken than the buffer has"); LocalTensor<T> t; t.p = (T *)(memory + at); t.begin = memory + at; t.end = memory + at + n * sizeof(T); return t; }
};
template <class T> struct GlobalTensor { T *p = nullptr; void SetGlobalBuffer(T *q) { p = q; } };
/** Where copies may write a place of global memory: elsewhere under the host's emulator (acl/acl.h), where a scalar's write is a fault. */
inline void *(*gm_writable)(void *, size_t) = nullptr;
enum class CacheLine { SINGLE_CACHE_LINE, ENTIRE_DATA_CACHE };
enum class DcciDst { CACHELINE_ALL, CACHELINE_UB, CACHELINE_OUT, CACHELINE_ATOMIC };
template <class T, CacheLine, DcciDst> inline void DataCacheCleanAndInvalid(const GlobalTensor<T> &) {}
struct DataCopyExtParams { uint16_t blockCount; uint32_t blockLen, srcStride, dstStride, rsv; };
template <class T> struct DataCopyPadExtParams { bool isPad; uint8_t left, right; T value; };
inline void DataCopyPad(const LocalTensor<float> &d, const GlobalTensor<float> &s, const DataCopyExtParams &p, const DataCopyPadExtParams<float> &) { vector(d, p.blockLen / 4); std::memcpy(d.p, s.p, p.blockLen); }
template <class T> inline void DataCopyPad(const GlobalTensor<T> &d, const LocalTensor<T> &s, const DataCopyExtParams &p) { vector(s, p.blockLen / (long)sizeof(T)); std::memcpy(gm_writable ? gm_writable(d.p, p.blockLen) : d.p, s.p, p.blockLen); }
using L = LocalTensor<float>;
inline void Duplicate(L d, float v, long n) { vector(d, n); for (long i = 0; i < n; i++) d.p[i] = v; }
#define UNARY(name, e) inline void name(L d, L s, long n) { vector(d, n); vector(s, n); for (long i = 0; i < n; i++) { const float a = s.p[i]; d.p[i] = e; } }
#define SCALAR(name, e) inline void name(L d, L s, float b, long n) { vector(d, n); vector(s, n); for (long i = 0; i < n; i++) { const float a = s.p[i]; d.p[i] = e; } }
#define BINARY(name, e) inline void name(L d, L s, L t, long n) { vector(d, n); vector(s, n); vector(t, n); for (long i = 0; i < n; i++) { const float a = s.p[i], b = t.p[i]; d.p[i] = e; } }
UNARY(Exp, std::exp(a)) UNARY(Ln, std::log(a)) UNARY(Sqrt, std::sqrt(a)) UNARY(Abs, std::fabs(a))
SCALAR(Adds, a + b) SCALAR(Muls, a * b) SCALAR(Maxs, a > b ? a : b) SCALAR(Mins, a < b ? a : b)
BINARY(Add, a + b) BINARY(Sub, a - b) BINARY(Mul, a * b) BINARY(Div, a / b) BINARY(Max, a > b ? a : b) BINARY(Min, a < b ? a : b)
inline void ReduceSum(L d, L s, L, long n) { vector(d, 1); vector(s, n); float t = 0; for (long i = 0; i < n; i++) t += s.p[i]; d.p[0] = t; }
inline void Cast(L d, LocalTensor<int32_t> s, RoundMode, long n) { vector(d, n); vector(s, n); for (long i = 0; i < n; i++) d.p[i] = (float)s.p[i]; }
inline void Cast(LocalTensor<int32_t> d, L s, RoundMode m, long n) { vector(d, n); vector(s, n); for (long i = 0; i < n; i++) d.p[i] = m == RoundMode::CAST_TRUNC ? (int32_t)s.p[i] : (int32_t)std::lrintf(s.p[i]); }
inline void Cast(L d, LocalTensor<bfloat16_t> s, RoundMode, long n) { vector(d, n); vector(s, n); for (long i = 0; i < n; i++) { const uint32_t u = (uint32_t)s.p[i].bits << 16; std::memcpy(&d.p[i], &u, 4); } }
inline void Cast(LocalTensor<bfloat16_t> d, L s, RoundMode, long n) { vector(d, n); vector(s, n); for (long i = 0; i < n; i++) { uint32_t u; std::memcpy(&u, &s.p[i], 4); d.p[i].bits = (uint16_t)((u + 0x7fffu + ((u >> 16) & 1)) >> 16); } }
inline bool compare(CMPMODE m, float a, float b) { return m == CMPMODE::LT ? a < b : m == CMPMODE::LE ? a <= b : a == b; }
inline void pieces(long n) { if (n * 4 % 256 != 0) wrong("a compare is not of whole 256-byte pieces"); }
inline void Compare(LocalTensor<uint8_t> d, L a, L b, CMPMODE m, long n) { pieces(n); vector(d, n / 8); vector(a, n); vector(b, n); for (long i = 0; i < n; i++) d.p[i / 8] = (uint8_t)((d.p[i / 8] & ~(1 << i % 8)) | compare(m, a.p[i], b.p[i]) << i % 8); }
inline void CompareScalar(LocalTensor<uint8_t> d, L a, float b, CMPMODE m, long n) { pieces(n); vector(d, n / 8); vector(a, n); for (long i = 0; i < n; i++) d.p[i / 8] = (uint8_t)((d.p[i / 8] & ~(1 << i % 8)) | compare(m, a.p[i], b) << i % 8); }
inline void Select(L d, LocalTensor<uint8_t> m, L a, L b, SELMODE, long n) { vector(d, n); vector(m, (n + 7) / 8); vector(a, n); vector(b, n); for (long i = 0; i < n; i++) d.p[i] = m.p[i / 8] >> i % 8 & 1 ? a.p[i] : b.p[i]; }
inline void Select(L d, LocalTensor<uint8_t> m, L a, float b, SELMODE, long n) { vector(d, n); vector(m, (n + 7) / 8); vector(a, n); for (long i = 0; i < n; i++) d.p[i] = m.p[i / 8] >> i % 8 & 1 ? a.p[i] : b; }
inline void And(LocalTensor<uint16_t> d, LocalTensor<uint16_t> a, LocalTensor<uint16_t> b, long n) { vector(d, n); for (long i = 0; i < n; i++) d.p[i] = a.p[i] & b.p[i]; }
inline void Or(LocalTensor<uint16_t> d, LocalTensor<uint16_t> a, LocalTensor<uint16_t> b, long n) { vector(d, n); for (long i = 0; i < n; i++) d.p[i] = a.p[i] | b.p[i]; }
}
