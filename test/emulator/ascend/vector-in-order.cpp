// A sum of what the vector unit has not finished, where the compiler is told to put in no barriers.
// Says: the vector unit reads byte 512 of the unified buffer, which it wrote itself, with no PipeBarrier of its own between
void twice(float *out, const float *x) {
  TPipe pipe;
  TQue<TPosition::VECIN, 2> in;
  TQue<TPosition::VECOUT, 2> to;
  pipe.InitBuffer(in, 2, 256);
  pipe.InitBuffer(to, 2, 256);
  const long at = 64 * GetBlockIdx();
  LocalTensor<float> a = in.AllocTensor<float>();
  DataCopy(a, global(x, 256)[at], 64);
  in.EnQue(a);
  a = in.DeQue<float>();
  LocalTensor<float> b = to.AllocTensor<float>();
  Muls(b, a, 2.0f, 64);
#ifndef BROKEN
  PipeBarrier<PIPE_V>();
#endif
  Adds(b, b, 1.0f, 64); // here
  in.FreeTensor(a);
  to.EnQue(b);
  b = to.DeQue<float>();
  DataCopy(global(out, 256)[at], b, 64);
  to.FreeTensor(b);
}
void run() {
  automatic_vector_barriers = false;
  const float *x = upload<float>("x", 256, some);
  float *out = room<float>("out", 256);
  CORE(twice, 4, out, x);
  expect(out, 256, doubled);
}
