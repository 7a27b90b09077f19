// Several residual streams, mixed before and after each sublayer. Streams lie one after another in a row.
import type { ValueOf } from '../../ir/graph.js';
import { type Matrix, tf } from './backend.js';
import { row, type Weight } from './values.js';

const streamsOf = (x: Matrix, n: number): tf.Tensor3D => tf.reshape(x, [x.shape[0], n, x.shape[1] / n]) as tf.Tensor3D;

/** weight f * rsqrt(mean(f^2) + eps) */
export const mix = (eps: number, x: Matrix, weight: Weight): tf.Tensor =>
  tf.mul(tf.matMul(x, weight.transposed()), tf.rsqrt(tf.add(tf.mean(tf.square(x), 1, true), eps)));

/** pre, post and the doubly normalised C, in one row: [tokens, 2n + n^2]. */
export function split(a: ValueOf<'hc_split'>['attributes'], m: Matrix, scale: Weight, base: Weight): tf.Tensor {
  const n = a.streams;
  const rows = m.shape[0];
  const scales = scale.numbers as Float32Array;
  const part = (from: number, size: number, s: number): tf.Tensor2D =>
    tf.add(
      tf.mul(tf.slice(m, [0, from], [rows, size]), scales[s]!),
      tf.tensor2d((base.numbers as Float32Array).slice(from, from + size), [1, size]),
    ) as tf.Tensor2D;
  const pre = tf.add(tf.sigmoid(part(0, n, 0)), a.eps);
  const post = tf.mul(tf.sigmoid(part(n, n, 1)), 2);
  let c: tf.Tensor = tf.add(tf.softmax(tf.reshape(part(2 * n, n * n, 2), [rows, n, n])), a.eps);
  c = tf.div(c, tf.add(tf.sum(c, 1, true), a.eps));
  for (let i = 1; i < a.iterations; i++) {
    c = tf.div(c, tf.add(tf.sum(c, 2, true), a.eps));
    c = tf.div(c, tf.add(tf.sum(c, 1, true), a.eps));
  }
  return tf.concat([pre, post, tf.reshape(c, [rows, n * n])], 1);
}
export const gate = (eps: number, m: Matrix, scale: Weight, base: Weight): tf.Tensor =>
  tf.add(tf.sigmoid(tf.add(tf.mul(m, (scale.numbers as Float32Array)[0]!), row(base))), eps);

/** sum_i w_i X_i */
export function pre(n: number, x: Matrix, weights: Matrix): tf.Tensor {
  const w = tf.reshape(tf.slice(weights, [0, 0], [weights.shape[0], n]), [weights.shape[0], n, 1]);
  return tf.sum(tf.mul(streamsOf(x, n), w), 1);
}
/** X'_k = post_k y + sum_j C[j, k] X_j */
export function post(n: number, x: Matrix, weights: Matrix, y: Matrix): tf.Tensor {
  const rows = x.shape[0];
  const add = tf.mul(tf.reshape(tf.slice(weights, [0, n], [rows, n]), [rows, n, 1]), tf.reshape(y, [rows, 1, y.shape[1]]));
  const c = tf.reshape(tf.slice(weights, [0, 2 * n], [rows, n * n]), [rows, n, n]);
  return tf.reshape(tf.add(add, tf.matMul(tf.transpose(c, [0, 2, 1]), streamsOf(x, n))), x.shape);
}
