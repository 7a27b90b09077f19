// How bytes stand for numbers. A storage is part of a value's type, so no pass can forget it.

export type PlainElement = 'f32' | 'f16' | 'bf16' | 'i64' | 'i32' | 'i8' | 'u8' | 'f8e4m3' | 'e8m0';
export type ScaledElement = 'i8' | 'i4' | 'f8e4m3' | 'f4e2m1';
export type ScaleElement = 'f32' | 'bf16' | 'e8m0';

/** Each element stands for itself. */
export interface Plain {
  readonly kind: 'plain';
  readonly element: PlainElement;
}

/**
 * value[r, c] = decode(code[r, c]) * scale[floor(r / block[0]), floor(c / block[1])].
 * The last blocks of a row or column are shorter where the block does not divide the shape; a block of 0 columns is the whole row.
 * Codes of half a byte: element 2k in the low nibble of byte k, element 2k + 1 in the high nibble. i4 is stored as code + 8.
 */
export interface Scaled {
  readonly kind: 'scaled';
  readonly element: ScaledElement;
  readonly block: readonly [rows: number, columns: number];
  readonly scale: ScaleElement;
}

export type Storage = Plain | Scaled;

export const f32: Plain = { kind: 'plain', element: 'f32' };
export const bf16: Plain = { kind: 'plain', element: 'bf16' };
export const f16: Plain = { kind: 'plain', element: 'f16' };
export const i32: Plain = { kind: 'plain', element: 'i32' };
export const i64: Plain = { kind: 'plain', element: 'i64' };

export const scaled = (element: ScaledElement, rows: number, columns: number, scale: ScaleElement): Scaled => ({
  kind: 'scaled',
  element,
  block: [rows, columns],
  scale,
});

/** One row an element: bits of a code and what the code means, in plain words. */
export const elements: Readonly<Record<PlainElement | ScaledElement, { readonly bits: number; readonly about: string }>> = {
  f32: { bits: 32, about: 'IEEE 754 binary32' },
  f16: { bits: 16, about: 'IEEE 754 binary16' },
  bf16: { bits: 16, about: 'the upper half of a binary32' },
  i64: { bits: 64, about: "two's complement" },
  i32: { bits: 32, about: "two's complement" },
  i8: { bits: 8, about: "two's complement" },
  u8: { bits: 8, about: 'unsigned' },
  i4: { bits: 4, about: 'code - 8: -8 to 7' },
  f8e4m3: {
    bits: 8,
    about: 'sign, 4 bits of exponent with bias 7, 3 of fraction; no infinity; 0x7f and 0xff are NaN; largest 448; subnormals m * 2^-9',
  },
  f4e2m1: { bits: 4, about: 'sign and one of 0, 0.5, 1, 1.5, 2, 3, 4, 6' },
  e8m0: { bits: 8, about: '2^(code - 127); 255 is NaN' },
};

/** The name that text form, file names and messages use: `bf16`, `f8e4m3[128x128]f32`, `i4[1x32]f32`, `i8[1x*]f32`. */
export function storageName(s: Storage): string {
  if (s.kind === 'plain') return s.element;
  return `${s.element}[${s.block[0]}x${s.block[1] === 0 ? '*' : s.block[1]}]${s.scale}`;
}

/** The inverse of storageName; null where the text names no storage. */
export function parseStorage(text: string): Storage | null {
  if (Object.hasOwn(elements, text) && text !== 'i4' && text !== 'f4e2m1') return { kind: 'plain', element: text as PlainElement };
  const m = /^(i8|i4|f8e4m3|f4e2m1)\[(\d+)x(\d+|\*)\](f32|bf16|e8m0)$/.exec(text);
  if (!m) return null;
  return {
    kind: 'scaled',
    element: m[1] as ScaledElement,
    block: [Number(m[2]), m[3] === '*' ? 0 : Number(m[3])],
    scale: m[4] as ScaleElement,
  };
}

export const sameStorage = (a: Storage, b: Storage): boolean => storageName(a) === storageName(b);

/** Rows and columns of the scales of a matrix [rows, columns]; ragged edges count as whole blocks. */
export function scaleShape(s: Scaled, rows: number, columns: number): readonly [number, number] {
  return [Math.ceil(rows / s.block[0]), s.block[1] === 0 ? 1 : Math.ceil(columns / s.block[1])];
}

/** Bytes of a matrix [rows, columns]: codes and scales. Rows of half-byte codes are whole bytes. */
export function matrixBytes(s: Storage, rows: number, columns: number): { readonly codes: number; readonly scales: number } {
  const codes = rows * Math.ceil((columns * elements[s.element].bits) / 8);
  if (s.kind === 'plain') return { codes, scales: 0 };
  const [r, c] = scaleShape(s, rows, columns);
  return { codes, scales: (r * c * elements[s.scale].bits) / 8 };
}
