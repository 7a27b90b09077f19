// A compare of 60 elements: the vector unit takes 256 bytes at a time.
// Says: CompareScalar of 60 elements: it takes whole 256-byte pieces
void positive(float *out, const float *x) {
  TPipe pipe;
  TBuf<TPosition::VECCALC> values, bits;
  pipe.InitBuffer(values, 256);
  pipe.InitBuffer(bits, 32);
  LocalTensor<float> a = values.Get<float>();
  LocalTensor<uint8_t> mask = bits.Get<uint8_t>();
  DataCopyPad(a, global(x, 60), DataCopyExtParams{1, 240, 0, 0, 0}, DataCopyPadExtParams<float>{false, 0, 0, 0.0f});
  PipeBarrier<PIPE_ALL>();
#ifdef BROKEN
  CompareScalar(mask, a, 0.0f, CMPMODE::GT, 60); // here
#else
  CompareScalar(mask, a, 0.0f, CMPMODE::GT, 64);
#endif
  Select(a, mask, a, 0.0f, SELMODE::VSEL_TENSOR_SCALAR_MODE, 60);
  PipeBarrier<PIPE_ALL>();
  DataCopyPad(global(out, 60), a, DataCopyExtParams{1, 240, 0, 0, 0});
}
void run() {
  const float *x = upload<float>("x", 60, some);
  float *out = room<float>("out", 60);
  CORE(positive, 1, out, x);
  expect(out, 60, [](int i) { return some(i) > 0 ? some(i) : 0.0f; });
}
