// Rows of 60 floats of which the copy out takes 56, in whole pieces.
// Says: bytes 224 to 227 of out were never written
void copy(float *out, const float *x) {
  TPipe pipe;
  TBuf<TPosition::VECCALC> values;
  pipe.InitBuffer(values, 256);
  LocalTensor<float> a = values.Get<float>();
  DataCopyPad(a, global(x, 60), DataCopyExtParams{1, 240, 0, 0, 0}, DataCopyPadExtParams<float>{false, 0, 0, 0.0f});
  PipeBarrier<PIPE_ALL>();
#ifdef BROKEN
  DataCopy(global(out, 60), a, 56);
#else
  DataCopyPad(global(out, 60), a, DataCopyExtParams{1, 240, 0, 0, 0});
#endif
}
void run() {
  const float *x = upload<float>("x", 60, some);
  float *out = room<float>("out", 60);
  CORE(copy, 1, out, x);
  expect(out, 60, some); // here
}
