// What the interpreter hands from op to op.
import { type Matrix, tf } from './backend.js';

/** Whole numbers [rows, columns]. */
export interface Whole {
  readonly kind: 'whole';
  readonly data: Int32Array;
  readonly rows: number;
  readonly columns: number;
}
/** f32 [rows, columns]. */
export interface Real {
  readonly kind: 'real';
  readonly matrix: Matrix;
}
/** A cache: f32 [sequences, capacity, width], written in place by append. */
export interface Cache {
  readonly kind: 'cache';
  readonly data: Float32Array;
  readonly capacity: number;
  readonly width: number;
  readonly ring: boolean;
}
/** A weight as it is stored, decoded: shape and numbers; matrices are handed out transposed for matMul. */
export interface Weight {
  readonly kind: 'weight';
  readonly shape: readonly number[];
  readonly numbers: Float32Array | Int32Array;
  /** [columns, rows] of matrix i of a stack (0 where it is one matrix). */
  transposed(i?: number): Matrix;
  /** What matrix i takes of the rows x that come to it. */
  input(x: Matrix, i?: number): Matrix;
}
export type Held = Whole | Real | Cache | Weight;

/** Rows of a step. */
export interface Rows {
  readonly ids: Int32Array;
  readonly positions: Int32Array;
  readonly sequences: Int32Array;
  readonly nextIds: Int32Array | null;
  readonly wanted: Int32Array;
}

export const real = (h: Held): Matrix => {
  if (h.kind === 'real') return h.matrix;
  throw new Error(`a matrix was expected, not a ${h.kind}`);
};
export const whole = (h: Held): Whole => {
  if (h.kind === 'whole') return h;
  throw new Error(`whole numbers were expected, not a ${h.kind}`);
};
export const cache = (h: Held): Cache => {
  if (h.kind === 'cache') return h;
  throw new Error(`a cache was expected, not a ${h.kind}`);
};
export const weight = (h: Held): Weight => {
  if (h.kind === 'weight') return h;
  throw new Error(`a weight was expected, not a ${h.kind}`);
};
/** A weight as a row [1, n], to be added or multiplied. */
export const row = (h: Held): Matrix => {
  const w = weight(h);
  return tf.tensor2d(w.numbers as Float32Array, [1, w.numbers.length]);
};
export const numbersOf = (m: Matrix): Float32Array => m.dataSync() as Float32Array;
export const made = (matrix: tf.Tensor): Real => ({ kind: 'real', matrix: matrix as Matrix });
