// Which experts a token meets, with which weight, and what they make of it.
import type { ValueOf } from '../../ir/graph.js';
import { type Matrix, tf } from './backend.js';
import { numbersOf, type Weight, type Whole } from './values.js';

/** Indices of the k largest, larger first, then lower index. */
export function largest(values: ArrayLike<number>, k: number): readonly number[] {
  return Array.from({ length: values.length }, (_, i) => i)
    .sort((a, b) => (values[b] as number) - (values[a] as number) || a - b)
    .slice(0, k);
}

export function routerScores(f: ValueOf<'router_scores'>['attributes']['f'], logits: Matrix): tf.Tensor {
  switch (f) {
    case 'softmax':
      return tf.softmax(logits);
    case 'sigmoid':
      return tf.sigmoid(logits);
    case 'sqrtsoftplus':
      return tf.sqrt(tf.softplus(logits));
  }
}

export function chooseExperts(a: ValueOf<'choose_experts'>['attributes'], scores: Matrix, bias: Weight | null): Whole {
  const [rows, experts] = scores.shape;
  const ranked = numbersOf(bias ? (tf.add(scores, tf.tensor2d(bias.numbers as Float32Array, [1, experts])) as Matrix) : scores);
  const data = new Int32Array(rows * a.k);
  const size = experts / a.groups;
  for (let t = 0; t < rows; t++) {
    const row = Float32Array.from(ranked.subarray(t * experts, (t + 1) * experts));
    if (a.groups > 1) {
      const worth = Array.from({ length: a.groups }, (_, g) => {
        const members = row.subarray(g * size, (g + 1) * size);
        const best = largest(members, 2).map(i => members[i]!);
        return a.by === 'max' ? best[0]! : Math.fround(best[0]! + (best[1] ?? 0));
      });
      const kept = new Set(largest(worth, a.keep));
      for (let e = 0; e < experts; e++) if (!kept.has(Math.floor(e / size))) row[e] = Number.NEGATIVE_INFINITY;
    }
    data.set(largest(row, a.k), t * a.k);
  }
  return { kind: 'whole', data, rows, columns: a.k };
}

/** Scores at the chosen, normalised where asked, scaled. */
export function expertWeights(a: ValueOf<'expert_weights'>['attributes'], scores: Matrix, indices: Whole): tf.Tensor {
  const experts = scores.shape[1];
  const s = numbersOf(scores);
  const chosen = tf.tensor2d(
    Float32Array.from(indices.data, (e, i) => s[Math.floor(i / indices.columns) * experts + e]!),
    [indices.rows, indices.columns],
  );
  const shares = a.normalise ? tf.div(chosen, tf.add(tf.sum(chosen, 1, true), 1e-20)) : chosen;
  return tf.mul(shares, a.scale);
}

/** silu(gate) * up, clamped first where there is a limit. */
export function swiglu(gate: tf.Tensor, up: tf.Tensor, limit: number | null): tf.Tensor {
  const g = limit === null ? gate : tf.minimum(gate, limit);
  const u = limit === null ? up : tf.clipByValue(up, -limit, limit);
  return tf.mul(tf.mul(g, tf.sigmoid(g)), u);
}

/** Expert by expert: the rows that chose it, through gate, up, SwiGLU and down, back to their rows with their weight. */
export function experts(
  a: ValueOf<'experts'>['attributes'],
  x: Matrix,
  indices: Whole,
  weights: Matrix,
  gate: Weight,
  up: Weight,
  down: Weight,
): Matrix {
  const [tokens, width] = x.shape;
  const w = numbersOf(weights);
  const out = new Float32Array(tokens * width);
  for (const e of [...new Set(indices.data)].filter(i => i >= 0).sort((p, q) => p - q)) {
    const entries = [...indices.data.keys()].filter(i => indices.data[i] === e);
    const rows = entries.map(i => Math.floor(i / indices.columns));
    const share = tf.tensor2d(
      Float32Array.from(entries, i => w[i]!),
      [entries.length, 1],
    );
    const mine = tf.gather(x, rows) as Matrix;
    const h = swiglu(tf.matMul(gate.input(mine, e), gate.transposed(e)), tf.matMul(up.input(mine, e), up.transposed(e)), a.limit);
    const met = down.input((a.weigh === 'before' ? tf.mul(h, share) : h) as Matrix, e);
    const made = tf.matMul(met, down.transposed(e));
    const y = a.weigh === 'before' ? made : tf.mul(made, share);
    const data = numbersOf(y as Matrix);
    rows.forEach((t, i) => {
      for (let c = 0; c < width; c++) out[t * width + c] = out[t * width + c]! + data[i * width + c]!;
    });
  }
  return tf.tensor2d(out, [tokens, width]);
}
