// The order of codes in the file, where it is not that of the matrix.

/** Rows 2j and 2j + 1 of int4 in bytes (two's complement) to one row: the even row in the low nibbles. rows is even. */
export function packRowPairs(s: usize, pitch: usize, d: usize, rows: u32, cols: u32): void {
  for (let r: u32 = 0; r < rows; r += 2, s += 2 * pitch, d += cols)
    for (let c: u32 = 0; c < cols; c++) store<u8>(d + c, (load<u8>(s + c) & 15) | (load<u8>(s + pitch + c) << 4));
}
/** Sums of a row's codes times its scale times 8, over `chunks` equal parts of the row: f32 [rows, chunks]. */
export function codeSums(s: usize, pitch: usize, scales: usize, d: usize, rows: u32, cols: u32, chunks: u32): void {
  const each = cols / chunks;
  for (let r: u32 = 0; r < rows; r++, s += pitch) {
    const scale = load<f32>(scales + (<usize>r << 2));
    for (let k: u32 = 0; k < chunks; k++) {
      let n: i32 = 0;
      for (let c: u32 = k * each; c < (k + 1) * each; c++) n += load<i8>(s + c);
      store<f32>(d + (<usize>(r * chunks + k) << 2), <f32>8 * (<f32>n * scale));
    }
  }
}
/** e2m1 bytes of 32 values, elements 2k and 2k + 1 in byte k, to GGUF's order: j and j + 16. 16 bytes. */
export function mxfp4Order(s: usize, d: usize): void {
  for (let j: u32 = 0; j < 16; j++) {
    const a = (load<u8>(s + (j >> 1)) >> <u8>((j & 1) << 2)) & 15, k = j + 16;
    const b = (load<u8>(s + (k >> 1)) >> <u8>((k & 1) << 2)) & 15;
    store<u8>(d + j, a | (b << 4));
  }
}
/** Zero points one a byte [rows, groups] to words packed along rows, eight a word: [ceil(rows / 8), groups] i32. */
export function packZeros(s: usize, d: usize, rows: u32, groups: u32): void {
  const words = (rows + 7) / 8;
  memory.fill(d, 0, <usize>words * groups * 4);
  for (let r: u32 = 0; r < rows; r++)
    for (let g: u32 = 0; g < groups; g++) {
      const at = d + (<usize>((r >> 3) * groups + g) << 2);
      store<u32>(at, load<u32>(at) | (<u32>load<u8>(s + <usize>r * groups + g) << ((r & 7) << 2)));
    }
}
