// What a rank does with rows: its part of a table, which rows go to which rank, rows picked and added back.
import type { ValueOf } from '../../ir/graph.js';
import { type Matrix, tf } from './backend.js';
import { type Held, made, numbersOf, real, type Weight, type Whole } from './values.js';

/** Rows of a table that begins at row `from` of the whole; zeros for ids that lie outside. */
export function gatherPart(from: number, table: Weight, ids: Whole): Matrix {
  const [rows, columns] = table.shape as [number, number];
  const out = new Float32Array(ids.rows * columns);
  const numbers = table.numbers as Float32Array;
  ids.data.forEach((id, i) => {
    const at = id - from;
    if (at >= 0 && at < rows) out.set(numbers.subarray(at * columns, (at + 1) * columns), i * columns);
  });
  return tf.tensor2d(out, [ids.rows, columns]);
}

/** For each rank, the rows of this share that chose an expert of it. */
export function routes({ bounds, share }: ValueOf<'route_rows'>['attributes'], indices: Whole): readonly (readonly number[])[] {
  return Array.from({ length: bounds.length - 1 }, (_, j) =>
    Array.from({ length: indices.rows }, (_, t) => t).filter(
      t =>
        t % share[1] === share[0] &&
        indices.data.subarray(t * indices.columns, (t + 1) * indices.columns).some(e => e >= bounds[j]! && e < bounds[j + 1]!),
    ),
  );
}

/** Rows picked by number; those below 0 are zeros, or -1 of whole numbers. */
export function takeRows(x: Held, rows: Int32Array): Held {
  if (x.kind === 'whole') {
    const data = new Int32Array(rows.length * x.columns).fill(-1);
    rows.forEach((t, i) => {
      if (t >= 0) data.set(x.data.subarray(t * x.columns, (t + 1) * x.columns), i * x.columns);
    });
    return { kind: 'whole', data, rows: rows.length, columns: x.columns };
  }
  const m = real(x);
  const columns = m.shape[1];
  const from = numbersOf(m);
  const out = new Float32Array(rows.length * columns);
  rows.forEach((t, i) => {
    if (t >= 0) out.set(from.subarray(t * columns, (t + 1) * columns), i * columns);
  });
  return made(tf.tensor2d(out, [rows.length, columns]));
}

/** The sum of the rows that go to each of `tokens` rows. */
export function addRows(y: Matrix, rows: Int32Array, tokens: number): Matrix {
  const columns = y.shape[1];
  const from = numbersOf(y);
  const out = new Float32Array(tokens * columns);
  rows.forEach((t, i) => {
    if (t >= 0) for (let c = 0; c < columns; c++) out[t * columns + c] = out[t * columns + c]! + from[i * columns + c]!;
  });
  return tf.tensor2d(out, [tokens, columns]);
}
