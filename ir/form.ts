// What a weight is written as: the storage it gets, how the scale is found, and how codes are laid out in the file.
import { elements, type ScaledElement, type Storage, scaleShape } from './storage.js';

/** As the source has it, byte for byte. */
export interface Keep {
  readonly kind: 'keep';
}
/** Each value by itself, rounded half to even. */
export interface PlainForm {
  readonly kind: 'plain';
  readonly element: 'f32' | 'bf16' | 'f16';
}
/** How a scale is stored: `bf16-in-f32` and `e8m0-in-f32` are F32 numbers that the shorter storage holds exactly. */
export type ScaleForm = 'f32' | 'bf16' | 'bf16-in-f32' | 'e8m0' | 'e8m0-in-f32';
/** absmax: largest magnitude on the largest code; mse: the least squared error; gptq: errors moved to the columns that follow. */
export type Search = 'absmax' | 'mse' | 'gptq';
export interface CodedForm {
  readonly kind: 'coded';
  readonly element: ScaledElement;
  /** Rows and columns that share a scale; 0 columns: the whole row. */
  readonly block: readonly [rows: number, columns: number];
  readonly scale: ScaleForm;
  /** A zero point a block: int4 alone. */
  readonly zero: boolean;
  readonly search: Search;
  /** `packed`: half bytes low nibble first; `bytes`: one code a byte; `row-pairs`: rows 2j and 2j + 1 in one, the even row low. */
  readonly layout: 'packed' | 'bytes' | 'row-pairs';
}
/** Blocks of 32 with their scale before them, as GGUF has them. */
export interface GgufForm {
  readonly kind: 'gguf';
  readonly type: 'Q8_0' | 'Q4_0' | 'MXFP4';
  readonly search: Search;
}
export type Form = Keep | PlainForm | CodedForm | GgufForm;

export const keep: Keep = { kind: 'keep' };
export const plainForm = (element: PlainForm['element']): PlainForm => ({ kind: 'plain', element });
export const coded = (
  element: ScaledElement,
  block: readonly [number, number],
  scale: ScaleForm,
  more: Partial<Pick<CodedForm, 'zero' | 'search' | 'layout'>> = {},
): CodedForm => ({ kind: 'coded', element, block, scale, zero: false, search: 'absmax', layout: 'packed', ...more });

/** Short name: `int4 g32 bf16 mse`, `int8 row f32`, `fp8 128x128 f32`, `bf16`, `Q8_0`. */
export function formName(f: Form): string {
  switch (f.kind) {
    case 'keep':
      return 'as it is';
    case 'plain':
      return f.element;
    case 'gguf':
      return f.search === 'absmax' ? f.type : `${f.type} ${f.search}`;
    case 'coded': {
      const element = { i8: 'int8', i4: 'int4', f8e4m3: 'fp8', f4e2m1: 'mxfp4' }[f.element];
      const [r, c] = f.block;
      const block = r > 1 ? `${r}x${c}` : c === 0 ? 'row' : `g${c}`;
      return [
        element,
        block,
        f.scale,
        f.zero ? 'asymmetric' : '',
        f.search === 'absmax' ? '' : f.search,
        f.layout === 'packed' ? '' : f.layout,
      ]
        .filter(Boolean)
        .join(' ');
    }
  }
}

/** The storage that the project's own programs read; null where they do not (zero points, other layouts, GGUF). */
export function storageOf(f: Form): Storage | null {
  if (f.kind === 'plain') return { kind: 'plain', element: f.element };
  if (f.kind !== 'coded' || f.zero || (f.layout !== 'packed' && f.element === 'i4')) return null;
  const scale = f.scale === 'bf16' ? 'bf16' : f.scale === 'e8m0' ? 'e8m0' : 'f32';
  return { kind: 'scaled', element: f.element, block: f.block, scale };
}

/** Bytes of what a matrix [rows, columns] becomes. */
export interface Sizes {
  readonly codes: number;
  readonly scales: number;
  /** Packed zero points. */
  readonly zeros: number;
  /** Bytes of a row of codes in memory before row pairs are made. */
  readonly pitch: number;
  /** Scales a strip of block rows has. */
  readonly across: number;
}
const scaleBytes: Readonly<Record<ScaleForm, number>> = { f32: 4, bf16: 2, 'bf16-in-f32': 4, e8m0: 1, 'e8m0-in-f32': 4 };
export function codedSizes(f: CodedForm, rows: number, columns: number): Sizes {
  const [down, across] = scaleShape({ kind: 'scaled', element: f.element, block: f.block, scale: 'f32' }, rows, columns);
  const half = elements[f.element].bits === 4;
  // packed int4 is read in 32-bit words
  const pitch = !half || f.layout !== 'packed' ? columns : f.element === 'i4' ? Math.ceil(columns / 8) * 4 : Math.ceil(columns / 2);
  return {
    codes: f.layout === 'row-pairs' ? (rows / 2) * pitch : rows * pitch,
    scales: down * across * scaleBytes[f.scale],
    zeros: f.zero ? Math.ceil(rows / 8) * across * 4 : 0,
    pitch,
    across,
  };
}
export const scaleSize = (s: ScaleForm): number => scaleBytes[s];

/** Bytes a GGUF row of `columns` values takes; columns in 32s. */
export const ggufRow = (type: GgufForm['type'], columns: number): number => (columns / 32) * { Q8_0: 34, Q4_0: 18, MXFP4: 17 }[type];

/** Bits a weight, scales included, on a matrix [rows, columns]; `source` is what `keep` costs. */
export function bitsPerWeight(f: Form, rows: number, columns: number, source: number): number {
  switch (f.kind) {
    case 'keep':
      return source;
    case 'plain':
      return elements[f.element].bits;
    case 'gguf':
      return (ggufRow(f.type, columns) * 8) / columns;
    case 'coded': {
      const s = codedSizes(f, rows, columns);
      return ((s.codes + s.scales + s.zeros) * 8) / (rows * columns);
    }
  }
}
