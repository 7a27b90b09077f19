// A DataCopy of 50 floats.
// Says: a DataCopy of 200 bytes: it moves whole 32-byte pieces
void copy(float *out, const float *x) {
  TPipe pipe;
  TQue<TPosition::VECIN, 1> in;
  TQue<TPosition::VECOUT, 1> to;
  pipe.InitBuffer(in, 1, 256);
  pipe.InitBuffer(to, 1, 256);
  LocalTensor<float> a = in.AllocTensor<float>();
#ifdef BROKEN
  DataCopy(a, global(x, 50), 50); // here
#else
  DataCopyPad(a, global(x, 50), DataCopyExtParams{1, 200, 0, 0, 0}, DataCopyPadExtParams<float>{false, 0, 0, 0.0f});
#endif
  in.EnQue(a);
  a = in.DeQue<float>();
  LocalTensor<float> b = to.AllocTensor<float>();
  Muls(b, a, 2.0f, 50);
  in.FreeTensor(a);
  to.EnQue(b);
  b = to.DeQue<float>();
  DataCopyPad(global(out, 50), b, DataCopyExtParams{1, 200, 0, 0, 0});
  to.FreeTensor(b);
}
void run() {
  const float *x = upload<float>("x", 50, some);
  float *out = room<float>("out", 50);
  CORE(copy, 1, out, x);
  expect(out, 50, [](int i) { return 2.0f * some(i); });
}
