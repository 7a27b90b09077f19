// Attention over caches, said plainly: for each sequence of the step, every key that may be seen, a mask, a softmax.
import type { ValueOf } from '../../ir/graph.js';
import { type Matrix, tf } from './backend.js';
import { type Cache, numbersOf, type Rows, type Weight, type Whole } from './values.js';

/** Rows of the step by sequence, in order. */
export function bySequence(
  rows: Rows,
): readonly { readonly sequence: number; readonly at: readonly number[]; readonly positions: readonly number[] }[] {
  const found = new Map<number, number[]>();
  rows.sequences.forEach((s, t) => found.set(s, [...(found.get(s) ?? []), t]));
  return [...found].map(([sequence, at]) => ({ sequence, at, positions: at.map(t => rows.positions[t]!) }));
}

/** Write rows [tokens, width] into a cache. With every = r > 1 only the last position of each r is written, as entry floor(p / r). */
export function append(into: Cache, from: Matrix, rows: Rows, every: number): void {
  const data = numbersOf(from);
  rows.positions.forEach((p, t) => {
    if ((p + 1) % every !== 0) return;
    const entry = Math.floor(p / every);
    into.data.set(
      data.subarray(t * into.width, (t + 1) * into.width),
      (rows.sequences[t]! * into.capacity + (entry % into.capacity)) * into.width,
    );
  });
}
/** Entries of one sequence's cache as [entries, width]. */
function entriesOf(c: Cache, sequence: number, entries: readonly number[]): Matrix {
  const out = new Float32Array(entries.length * c.width);
  entries.forEach((e, i) => {
    const at = (sequence * c.capacity + (e % c.capacity)) * c.width;
    out.set(c.data.subarray(at, at + c.width), i * c.width);
  });
  return tf.tensor2d(out, [entries.length, c.width]);
}
const upTo = (n: number, from = 0): readonly number[] => Array.from({ length: Math.max(0, n - from) }, (_, i) => from + i);
/** 0 where seen, a very small number elsewhere: [rows, keys]. */
function maskOf(rows: number, keys: number, seen: (row: number, key: number) => boolean): Matrix {
  const m = new Float32Array(rows * keys);
  for (let r = 0; r < rows; r++) for (let k = 0; k < keys; k++) if (!seen(r, k)) m[r * keys + k] = -1e30;
  return tf.tensor2d(m, [rows, keys]);
}
/** Put per-sequence results [rows, width] back in the step's order. */
function gatherRows(parts: readonly { readonly at: readonly number[]; readonly result: Matrix }[], tokens: number, width: number): Matrix {
  const out = new Float32Array(tokens * width);
  for (const { at, result } of parts) {
    const data = numbersOf(result);
    at.forEach((t, i) => out.set(data.subarray(i * width, (i + 1) * width), t * width));
  }
  return tf.tensor2d(out, [tokens, width]);
}
/** Entries that each row of a sequence selected. */
const selections = (selected: Whole, at: readonly number[]): readonly ReadonlySet<number>[] =>
  at.map(t => new Set([...selected.data.subarray(t * selected.columns, (t + 1) * selected.columns)].filter(e => e >= 0)));

/** Naive latent attention: keys and values of every position are unrolled from the latent by kv_b. */
export function mla(a: ValueOf<'mla'>['attributes'], q: Matrix, state: Cache, kvB: Weight, rows: Rows, selected: Whole | null): Matrix {
  const latent = state.width - a.rope;
  const each = a.nope + a.v;
  const parts = bySequence(rows).map(({ sequence, at, positions }) => {
    const keys = upTo(Math.max(...positions) + 1);
    const cached = entriesOf(state, sequence, keys);
    const chosen = selected && selections(selected, at);
    const mask = maskOf(at.length, keys.length, (r, k) => k <= positions[r]! && (chosen === null || chosen[r]!.has(k)));
    const unrolled = tf.matMul(kvB.input(tf.slice(cached, [0, 0], [keys.length, latent])), kvB.transposed()); // [keys, heads * (nope + v)]
    const keyRope = tf.slice(cached, [0, latent], [keys.length, a.rope]);
    const mine = tf.gather(q, [...at]) as Matrix;
    const heads = upTo(a.heads).map(h => {
      const width = a.nope + a.rope;
      const qn = tf.slice(mine, [0, h * width], [at.length, a.nope]);
      const qp = tf.slice(mine, [0, h * width + a.nope], [at.length, a.rope]);
      const kn = tf.slice(unrolled, [0, h * each], [keys.length, a.nope]);
      const v = tf.slice(unrolled, [0, h * each + a.nope], [keys.length, a.v]);
      const scores = tf.add(tf.mul(tf.add(tf.matMul(qn, kn, false, true), tf.matMul(qp, keyRope, false, true)), a.scale), mask);
      return tf.matMul(tf.softmax(scores) as Matrix, v);
    });
    return { at, result: tf.concat(heads, 1) as Matrix };
  });
  return gatherRows(parts, rows.positions.length, a.heads * a.v);
}

/** Attention on rows that are keys and values; a window, compressed entries, a selection and a sink where there are. */
export function attention(
  a: ValueOf<'attention'>['attributes'],
  q: Matrix,
  state: Cache,
  rows: Rows,
  compressed: Cache | null,
  selected: Whole | null,
  sink: Weight | null,
): Matrix {
  const parts = bySequence(rows).map(({ sequence, at, positions }) => {
    const last = Math.max(...positions);
    const first = a.window === null ? 0 : Math.max(0, Math.min(...positions) - a.window + 1);
    const near = upTo(last + 1, first);
    const far = compressed === null ? [] : upTo(Math.floor((last + 1) / a.ratio));
    const chosen = selected && selections(selected, at);
    const seen = (r: number, k: number): boolean => {
      const p = positions[r]!;
      if (k < near.length) {
        const position = near[k]!;
        return (
          position <= p &&
          (a.window === null || position > p - a.window) &&
          (chosen === null || compressed !== null || chosen[r]!.has(position))
        );
      }
      const entry = far[k - near.length]!;
      return entry < Math.floor((p + 1) / a.ratio) && (chosen === null || chosen[r]!.has(entry));
    };
    const count = near.length + far.length;
    const mask = maskOf(at.length, count, seen);
    const cached =
      far.length === 0 || compressed === null
        ? entriesOf(state, sequence, near)
        : (tf.concat([entriesOf(state, sequence, near), entriesOf(compressed, sequence, far)], 0) as Matrix);
    const mine = tf.gather(q, [...at]) as Matrix;
    const heads = upTo(a.heads).map(h => {
      const kv = Math.floor((h * a.kvHeads) / a.heads);
      const k = tf.slice(cached, [0, a.keyOffset + kv * a.width], [count, a.width]);
      const v = tf.slice(cached, [0, a.valueOffset + kv * a.valueWidth], [count, a.valueWidth]);
      const scores = tf.add(tf.mul(tf.matMul(tf.slice(mine, [0, h * a.width], [at.length, a.width]), k, false, true), a.scale), mask);
      if (sink === null) return tf.matMul(tf.softmax(scores) as Matrix, v);
      const beside = tf.concat([scores, tf.fill([at.length, 1], (sink.numbers as Float32Array)[h]!)], 1);
      return tf.matMul(tf.slice(tf.softmax(beside) as Matrix, [0, 0], [at.length, count]), v);
    });
    return { at, result: tf.concat(heads, 1) as Matrix };
  });
  return gatherRows(parts, rows.positions.length, a.heads * a.valueWidth);
}

/** sum_h w_h relu(q_h . k): [tokens, capacity of the state]. */
export function indexScores(a: ValueOf<'index_scores'>['attributes'], q: Matrix, weights: Matrix, state: Cache, rows: Rows): Matrix {
  const parts = bySequence(rows).map(({ sequence, at, positions }) => {
    const count = Math.max(1, Math.floor((Math.max(...positions) + 1) / a.ratio));
    const keys = entriesOf(state, sequence, upTo(count));
    const mine = tf.gather(q, [...at]) as Matrix;
    const w = tf.gather(weights, [...at]) as Matrix;
    const sum = upTo(a.heads)
      .map(h =>
        tf.mul(
          tf.relu(tf.matMul(tf.slice(mine, [0, h * a.width], [at.length, a.width]), keys, false, true)),
          tf.slice(w, [0, h], [at.length, 1]),
        ),
      )
      .reduce((x, y) => tf.add(x, y));
    const data = numbersOf(sum as Matrix);
    const out = new Float32Array(at.length * state.capacity).fill(-1e30);
    positions.forEach((p, r) => {
      for (let k = 0; k < Math.floor((p + 1) / a.ratio); k++) out[r * state.capacity + k] = data[r * count + k]!;
    });
    return { at, result: tf.tensor2d(out, [at.length, state.capacity]) };
  });
  return gatherRows(parts, rows.positions.length, state.capacity);
}

/** An entry where a window of `ratio` positions ends, zeros elsewhere. State rows are kv then score. */
export function compress(a: ValueOf<'compress'>['attributes'], state: Cache, ape: Weight, rows: Rows): Matrix {
  const columns = (a.overlap ? 2 : 1) * a.width;
  const out = new Float32Array(rows.positions.length * a.width);
  rows.positions.forEach((p, t) => {
    if ((p + 1) % a.ratio !== 0) return;
    const start = p + 1 - a.ratio;
    const table = tf.tensor2d(ape.numbers as Float32Array, [a.ratio, columns]);
    const slots = (from: number, column: number): { readonly kv: Matrix; readonly score: Matrix } => {
      const r = entriesOf(state, rows.sequences[t]!, upTo(from + a.ratio, from));
      return {
        kv: tf.slice(r, [0, column], [a.ratio, a.width]),
        score: tf.add(tf.slice(r, [0, columns + column], [a.ratio, a.width]), tf.slice(table, [0, column], [a.ratio, a.width])) as Matrix,
      };
    };
    const now = slots(start, a.overlap ? a.width : 0);
    const all = a.overlap && start > 0 ? [slots(start - a.ratio, 0), now] : [now];
    const weights = tf.softmax(
      tf.transpose(
        tf.concat(
          all.map(s => s.score),
          0,
        ),
      ),
    ); // [width, slots]
    out.set(
      numbersOf(
        tf.sum(
          tf.mul(
            tf.transpose(weights),
            tf.concat(
              all.map(s => s.kv),
              0,
            ),
          ),
          0,
        ) as unknown as Matrix,
      ),
      t * a.width,
    );
  });
  return tf.tensor2d(out, [rows.positions.length, a.width]);
}
