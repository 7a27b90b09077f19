// Rows of a product that are copied whole and decoded by the vector unit, against the same rows read one by one: equal to the bit, and taken where they should be.
#include "hkgai_tile_ascend.h"
#include <cstdio>

static int wrong = 0;
template <class V> static void look(const char *name, bool taken, bool should, LocalTensor<float> t, V v, int64_t k) {
  AscendC::PipeBarrier<PIPE_ALL>();
  if (taken != should) { std::printf("%s: taken %d\n", name, taken); wrong++; }
  for (int r = 0; taken && r < 8; r++)
    for (int d = 0; d < 64; d++)
      if (t.GetValue(r * 64 + d) != v.at(r, k + d, 0.0f)) { std::printf("%s: row %d column %d is %g, not %g\n", name, r, d, t.GetValue(r * 64 + d), v.at(r, k + d, 0.0f)); wrong++; return; }
  AscendC::PipeBarrier<PIPE_ALL>();
}
int main() {
  static uint16_t w[64 * 256];
  static float x[64 * 256], scales[64], blocks[16 * 4];
  static int8_t q[64 * 256];
  for (int i = 0; i < 64 * 256; i++) { w[i] = to_bf16((float)(i % 37) - 18.0f); q[i] = (int8_t)(i % 251 - 125); x[i] = (float)(i % 11) * 0.37f; }
  for (int i = 0; i < 64; i++) scales[i] = blocks[i] = 0.01f * (float)(i + 1);
  AscendC::TPipe pipe;
  AscendC::TBuf<AscendC::TPosition::VECCALC> all;
  pipe.InitBuffer(all, 16384);
  auto t = all.GetWithOffset<float>(8 * 64, 0);
  auto raw = all.GetWithOffset<uint8_t>(8 * 64 * 3, 8192);
  // the last rows of a matrix: what is beyond them is 0; columns from 3 on
  const view_bf16 b{w, 60, 64, 3, 256, 256, no_index()};
  const view_f32 a{x, 10, 64, 5, 256, 256, no_index()};
  const view_i8_f32 i{q, 60, 64, 0, 256, 256, no_index(), scales, 1, 256}, g{q, 8, 64, 0, 256, 256, no_index(), blocks, 4, 64};
  look("bf16", tile_rows<8, 64>(t, b, 64, raw), true, t, b, 64);
  look("f32", tile_rows<8, 64>(t, a, 64, raw), true, t, a, 64);
  look("int8, a scale a row", tile_rows<8, 64>(t, i, 64, raw), true, t, i, 64);
  look("int8, a scale a block", tile_rows<8, 64>(t, g, 128, raw), true, t, g, 128);
  look("int8, across two blocks", tile_rows<8, 64>(t, g, 96, raw), false, t, g, 96);
  look("columns beyond the end", tile_rows<8, 64>(t, b, 192, raw), false, t, b, 192);
  look("rows beyond the end", tile_rows<8, 64>(t, view_bf16{w, 64, 64, 0, 256, 256, no_index()}, 0, raw), false, t, b, 0);
  std::printf("%d wrong\n", wrong);
  return wrong != 0;
}
