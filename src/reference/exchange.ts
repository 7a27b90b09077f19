// What ranks give each other where they meet: the exchanges of ir/ops.ts, said plainly over what every member brought.
import type { Value, ValueOf } from '../../ir/graph.js';
import { type Matrix, tf } from './backend.js';
import type { Waiting } from './index.js';
import { type Held, made, numbersOf, real, whole } from './values.js';

/** Rows of numbers, whole or real, and how to make such a value again. */
interface Numbers {
  readonly data: Float32Array | Int32Array;
  readonly rows: number;
  readonly columns: number;
}
const numbers = (h: Held): Numbers => {
  if (h.kind === 'whole') return h;
  const m = real(h);
  return { data: numbersOf(m), rows: m.shape[0], columns: m.shape[1] };
};
/** Rows [rows, columns] filled with zeros, or -1 of whole numbers, then pieces written at rows. */
function filled(
  like: Numbers,
  rows: number,
  columns: number,
  pieces: readonly { readonly at: number; readonly data: Numbers['data'] }[],
): Held {
  if (like.data instanceof Int32Array) {
    const data = new Int32Array(rows * columns).fill(-1);
    for (const p of pieces) data.set(p.data, p.at * columns);
    return { kind: 'whole', data, rows, columns };
  }
  const data = new Float32Array(rows * columns);
  for (const p of pieces) data.set(p.data, p.at * columns);
  return made(tf.tensor2d(data, [rows, columns]));
}
const rowsOf = (n: Numbers, from: number, to: number): Numbers['data'] => n.data.subarray(from * n.columns, to * n.columns);
const before = (sizes: readonly number[], i: number): number => sizes.slice(0, i).reduce((a, b) => a + b, 0);

/** The sum in the group's order, so that every run adds alike. */
const sumOf = (all: readonly Matrix[]): Matrix => all.reduce((a, b) => tf.add(a, b) as Matrix);

type Exchanged<K extends Value['op']> = (members: readonly (Waiting & { readonly value: ValueOf<K> })[]) => readonly Held[];

const allReduce: Exchanged<'all_reduce'> = members => {
  const sum = sumOf(members.map(m => real(m.get(m.value.inputs.x))));
  return members.map(() => made(tf.clone(sum)));
};
const allGather: Exchanged<'all_gather'> = members => {
  const { along, sizes } = members[0]!.value.attributes;
  const all = members.map(m => numbers(m.get(m.value.inputs.x)));
  if (along === 'columns') {
    const row = tf.concat(
      members.map(m => real(m.get(m.value.inputs.x))),
      1,
    );
    return members.map(() => made(tf.clone(row)));
  }
  const odd = all.findIndex((n, j) => n.rows > sizes[j]!);
  if (odd >= 0) throw new Error(`rank ${odd} of ${members[0]!.value.name} has ${all[odd]!.rows} rows, more than ${sizes[odd]}`);
  const pieces = all.map((n, j) => ({ at: before(sizes, j), data: n.data }));
  return members.map(() => filled(all[0]!, before(sizes, sizes.length), all[0]!.columns, pieces));
};
const reduceScatter: Exchanged<'reduce_scatter'> = members => {
  const { rows } = members[0]!.value.attributes;
  const sum = sumOf(members.map(m => real(m.get(m.value.inputs.x))));
  return members.map((m, j) => made(tf.slice(sum, [j * rows, 0], [m.rows, sum.shape[1]])));
};
const allToAllV: Exchanged<'all_to_all_v'> = members => {
  const { rows } = members[0]!.value.attributes;
  const all = members.map(m => numbers(m.get(m.value.inputs.x)));
  const counts = members.map(m => (m.value.inputs.counts ? [...whole(m.get(m.value.inputs.counts)).data] : members.map(() => 1)));
  return members.map((m, me) => {
    let at = 0;
    const pieces = all.map((n, j) => {
      const start = before(counts[j]!, me);
      const piece = { at, data: rowsOf(n, start, start + counts[j]![me]!) };
      at += counts[j]![me]!;
      return piece;
    });
    if (at > rows) throw new Error(`${m.value.name} brings ${at} rows, more than ${rows}`);
    return filled(all[me]!, rows, all[me]!.columns, pieces);
  });
};

/** What each member of a group has after an exchange, in the group's order. Matrices are new; the caller disposes of them. */
export function exchange(members: readonly Waiting[]): readonly Held[] {
  const op = members[0]!.value.op;
  const by = { all_reduce: allReduce, all_gather: allGather, reduce_scatter: reduceScatter, all_to_all_v: allToAllV } as const;
  if (!Object.hasOwn(by, op)) throw new Error(`${op} is no exchange of a group`);
  const run = by[op as keyof typeof by] as (m: readonly Waiting[]) => readonly Held[];
  tf.engine().startScope();
  const out = run(members);
  for (const h of out) if (h.kind === 'real') tf.keep(h.matrix);
  tf.engine().endScope();
  return out;
}
