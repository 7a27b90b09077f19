// What matrices meet: a place where the rows that go into a matrix are looked at (second moments for calibration), or rounded as an engine with
// int8 activations rounds them.
import type { ValueOf } from '../../ir/graph.js';
import { type Matrix, tf } from './backend.js';
import { numbersOf } from './values.js';

/** Called with the rows that are to meet matrix `part` of a weight, before they do; gives the rows that meet it. */
export type Inputs = (w: ValueOf<'weight'>, part: number, x: Matrix) => Matrix;

const { abs, floor, fround, max, min } = Math;
const even = (x: number): number => {
  const down = floor(x);
  const rest = x - down;
  return rest < 0.5 || (rest === 0.5 && down % 2 === 0) ? down : down + 1;
};
/** A row in int8 and back: scale = largest magnitude / 127 in f32, half to even. */
export function roundRow(x: Float32Array): void {
  let most = 0;
  for (const v of x) most = max(most, abs(v));
  const scale = fround(most / 127);
  if (!(scale > 0)) return;
  for (let c = 0; c < x.length; c++) x[c] = even(max(-127, min(127, fround(x[c]! / scale)))) * scale;
}
/** Activations in int8, symmetric, a scale a token, found as they come; for the matrices that `of` names. */
export const int8Inputs =
  (of: (w: ValueOf<'weight'>, part: number) => boolean): Inputs =>
  (w, part, x) => {
    if (!of(w, part)) return x;
    const [rows, columns] = x.shape;
    const data = Float32Array.from(numbersOf(x));
    for (let t = 0; t < rows; t++) roundRow(data.subarray(t * columns, (t + 1) * columns));
    return tf.tensor2d(data, [rows, columns]);
  };

/** Sums over the rows that came to one place. */
export interface Moment {
  readonly columns: number;
  /** Of x^2 by column. */
  readonly squares: Float64Array;
  /** Of x x^T, [columns, columns]; null where it is not wanted. In shared memory: threads read it. */
  readonly gram: Float32Array | null;
  rows: number;
}
export const noMoment = (columns: number, gram: boolean): Moment => ({
  columns,
  squares: new Float64Array(columns),
  gram: gram ? new Float32Array(new SharedArrayBuffer(4 * columns * columns)) : null,
  rows: 0,
});

/** Gathers moments by place: matrices that meet the same rows have one place. */
export class Moments {
  readonly byPlace = new Map<string, Moment>();
  readonly #last = new Map<string, Matrix>();
  readonly #gram: boolean;
  readonly #placeOf: (w: ValueOf<'weight'>, part: number) => string | null;
  constructor(gram: boolean, placeOf: (w: ValueOf<'weight'>, part: number) => string | null) {
    this.#gram = gram;
    this.#placeOf = placeOf;
  }
  readonly inputs: Inputs = (w, part, x) => {
    const place = this.#placeOf(w, part);
    if (place === null || this.#last.get(place) === x) return x; // the second matrix of the place meets the same rows
    this.#last.set(place, x);
    const [rows, columns] = x.shape;
    const m = this.byPlace.get(place) ?? noMoment(columns, this.#gram);
    this.byPlace.set(place, m);
    const data = numbersOf(x);
    for (let t = 0; t < rows; t++)
      for (let c = 0, at = t * columns; c < columns; c++, at++) m.squares[c] = m.squares[c]! + data[at]! * data[at]!;
    if (m.gram) {
      const g = numbersOf(tf.matMul(tf.transpose(x) as Matrix, x));
      for (let i = 0; i < g.length; i++) m.gram[i] = m.gram[i]! + g[i]!;
    }
    m.rows += rows;
    return x;
  };
}
