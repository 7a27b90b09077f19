// Two copies in to one place, the second of which is meant to win.
// Says: the mover in (MTE2) writes byte 0 of the unified buffer, which it wrote itself, with no PipeBarrier of its own between
void twice(float *out, const float *x) {
  TPipe pipe;
  TQue<TPosition::VECIN, 2> in;
  TQue<TPosition::VECOUT, 2> to;
  pipe.InitBuffer(in, 2, 256);
  pipe.InitBuffer(to, 2, 256);
  const long at = 64 * GetBlockIdx();
  LocalTensor<float> a = in.AllocTensor<float>();
  DataCopy(a, global(x, 256)[192 - at], 64);
#ifndef BROKEN
  PipeBarrier<PIPE_MTE2>();
#endif
  DataCopy(a, global(x, 256)[at], 64); // here
  in.EnQue(a);
  a = in.DeQue<float>();
  LocalTensor<float> b = to.AllocTensor<float>();
  Muls(b, a, 2.0f, 64);
  Adds(b, b, 1.0f, 64);
  in.FreeTensor(a);
  to.EnQue(b);
  b = to.DeQue<float>();
  DataCopy(global(out, 256)[at], b, 64);
  to.FreeTensor(b);
}
void run() {
  const float *x = upload<float>("x", 256, some);
  float *out = room<float>("out", 256);
  CORE(twice, 4, out, x);
  expect(out, 256, doubled);
}
