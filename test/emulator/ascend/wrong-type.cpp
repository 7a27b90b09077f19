// A count passed as int to a kernel that takes int64_t.
// Says: a launch passes every argument as exactly the type of the kernel's parameter
// Compiles: not
void fill(float *out, int64_t n) {
  TPipe pipe;
  TBuf<TPosition::VECCALC> values;
  pipe.InitBuffer(values, 128);
  LocalTensor<float> a = values.Get<float>();
  Duplicate(a, 7.0f, n);
  PipeBarrier<PIPE_ALL>();
  DataCopy(global(out, 32), a, (uint32_t)n);
}
void run() {
  float *out = room<float>("out", 32);
#ifdef BROKEN
  CORE(fill, 1, out, 32); // here
#else
  CORE(fill, 1, out, (int64_t)32);
#endif
  expect(out, 32, [](int) { return 7.0f; });
}
