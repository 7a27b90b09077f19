// Round to nearest, half to even, with the largest magnitude of a row or group on the largest code. Scales stay f32.

/** Round half to even for |x| < 2^22, in f32 arithmetic alone. */
const magic = 12582912; // 1.5 * 2^23: adding it leaves no bits for a fraction
const round = (x: number): number => Math.fround(Math.fround(x + magic) - magic);

function largest(values: Float32Array, from: number, to: number): number {
  let most = 0;
  for (let i = from; i < to; i++) {
    const v = Math.abs(values[i]!);
    if (v > most) most = v;
  }
  return most;
}

/**
 * int8, one scale a row: scale = max|row| / 127, code = round(x / scale).
 * @param values f32 [rows, columns] @returns codes i8 [rows, columns] and scales f32 [rows]
 */
export function int8Rows(
  values: Float32Array,
  rows: number,
  columns: number,
): { readonly codes: Uint8Array; readonly scales: Float32Array } {
  const codes = new Uint8Array(rows * columns);
  const scales = new Float32Array(rows);
  for (let r = 0; r < rows; r++) {
    const scale = Math.fround(largest(values, r * columns, (r + 1) * columns) / 127);
    scales[r] = scale;
    if (scale === 0) continue;
    for (let i = r * columns; i < (r + 1) * columns; i++) codes[i] = round(Math.fround(values[i]! / scale)) & 0xff;
  }
  return { codes, scales };
}

/**
 * int4 in groups along a row: scale = max|group| / 7, code = round(x / scale) + 8, element 2k in the low nibble.
 * Rows are padded with zeros to a multiple of 8 codes, as engines read them in 32-bit words; the last group of a row may be short.
 * @param values f32 [rows, columns] @returns packed [rows, ceil(columns / 8) * 4] bytes and scales f32 [rows, ceil(columns / group)]
 */
export function int4Groups(
  values: Float32Array,
  rows: number,
  columns: number,
  group: number,
): { readonly codes: Uint8Array; readonly scales: Float32Array } {
  const pitch = Math.ceil(columns / 8) * 4;
  const groups = Math.ceil(columns / group);
  const codes = new Uint8Array(rows * pitch).fill(0x88);
  const scales = new Float32Array(rows * groups);
  for (let r = 0; r < rows; r++) {
    for (let g = 0; g < groups; g++) {
      const from = g * group;
      const to = Math.min(from + group, columns);
      const scale = Math.fround(largest(values, r * columns + from, r * columns + to) / 7);
      scales[r * groups + g] = scale;
      if (scale === 0) continue;
      for (let c = from; c < to; c++) {
        const code = round(Math.fround(values[r * columns + c]! / scale)) + 8;
        const at = r * pitch + (c >> 1);
        codes[at] = c % 2 === 0 ? (codes[at]! & 0xf0) | code : (codes[at]! & 0x0f) | (code << 4);
      }
    }
  }
  return { codes, scales };
}
