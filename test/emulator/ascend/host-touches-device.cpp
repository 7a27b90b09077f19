// The host reads a result where it lies.
// Says: the host touches device memory, byte 0 of out: copy it first
void fill(float *out) {
  TPipe pipe;
  TBuf<TPosition::VECCALC> values;
  pipe.InitBuffer(values, 128);
  LocalTensor<float> a = values.Get<float>();
  Duplicate(a, 7.0f, 32);
  PipeBarrier<PIPE_ALL>();
  DataCopy(global(out, 32), a, 32);
}
void run() {
  float *out = room<float>("out", 32);
  CORE(fill, 1, out);
#ifdef BROKEN
  std::printf("%g\n", out[0]); // here
#endif
  expect(out, 32, [](int) { return 7.0f; });
}
