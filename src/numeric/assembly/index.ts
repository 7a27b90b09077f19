// The weight path as WebAssembly SIMD: rows to f32, blocks to codes and scales, and the figures of what was lost. AssemblyScript.
// No relaxed SIMD, a fixed order of sums, round half to even: the same bytes on every host. test/numeric-kernels.test.ts holds each function
// against plain scalar definitions. Row buffers are f32 with room for 128 values past the end, zeros there.

export { kAbs, kMagic, kMagicBits, toBf16, toF16, fromF16 } from './numbers';
export { decodeRow, decodeRows } from './decode';
export { convert, encodeStrip } from './encode';
export { encodePlain } from './plain';
export { encodeGguf } from './gguf';
export { codeSums, mxfp4Order, packRowPairs, packZeros } from './pack';
