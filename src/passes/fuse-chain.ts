// Steps that a row goes through one after another: which values they are, and where the row comes from. Asked while fusing and again while
// kernels are chosen, so that both see the same.
import type { Value, ValueOf } from '../../ir/graph.js';

export type RowOp = ValueOf<'rms_norm'> | ValueOf<'layer_norm'> | ValueOf<'rope'> | ValueOf<'hadamard'> | ValueOf<'fake_quant'>;
export interface Chain {
  readonly source: Value;
  /** In the order of the row's way; the last is the chain's own value. Empty where the source is it. */
  readonly steps: readonly RowOp[];
  readonly heads: number;
  /** Columns of a head. */
  readonly width: number;
  /** A stretch of columns that the first step reads where they stand, or a table's rows that it picks itself. */
  readonly slice: ValueOf<'slice'> | null;
  readonly gather: ValueOf<'gather'> | null;
  /** All that is taken in, the chain's own value not included. */
  readonly absorbed: readonly Value[];
}
/** Whether `x`, which `by` reads, may be (or is) taken into the chain. */
export type Takes = (x: Value, by: Value) => boolean;

/** Columns of a head that are held whole at most. */
export const mostWidth = 1024;

const isRow = (v: Value): v is RowOp =>
  v.op === 'rms_norm' || v.op === 'layer_norm' || v.op === 'rope' || v.op === 'hadamard' || v.op === 'fake_quant';
const columns = (v: Value): number => v.type.shape.at(-1) as number;
/** Heads that a step sees in a row; null where it does not mind. */
function headsOf(v: RowOp): number | null {
  switch (v.op) {
    case 'rms_norm':
      return columns(v) / v.attributes.width;
    case 'layer_norm':
      return 1;
    case 'rope':
    case 'fake_quant':
      return v.attributes.heads;
    case 'hadamard':
      return null;
  }
}
export const narrows = (x: Value): x is ValueOf<'slice'> => x.op === 'slice' && (x.attributes.heads ?? 1) === 1;

/** The chain that ends in a value. */
export function chainOf(last: Value, takes: Takes): Chain {
  const absorbed: Value[] = [];
  const steps: RowOp[] = [];
  let heads: number | null = null;
  const fits = (v: RowOp): boolean => {
    const h: number | null = headsOf(v);
    const now: number | null = heads ?? h;
    const width = columns(v) / (now ?? 1);
    if (h !== null && heads !== null && h !== heads) return false;
    return [v, ...steps].every(s => s.op !== 'hadamard' || now === null || width % s.attributes.width === 0);
  };
  let source = last;
  while (isRow(source) && fits(source) && (steps.length === 0 || takes(source, steps[0] as RowOp))) {
    if (steps.length > 0) absorbed.push(source);
    heads ??= headsOf(source);
    steps.unshift(source);
    source = source.inputs.x;
  }
  const count = heads ?? 1;
  const first = steps[0] ?? last;
  const found = { steps, heads: count, width: columns(last) / count, slice: null, gather: null };
  if (steps.length > 0 && takes(source, first)) {
    if (narrows(source) && count === 1) return { ...found, source: source.inputs.x, slice: source, absorbed: [...absorbed, source] };
    if (source.op === 'gather' && source.type.storage.element === 'f32' && source.inputs.table.op === 'weight')
      return { ...found, source: source.inputs.table, gather: source, absorbed: [...absorbed, source] };
  }
  return { ...found, source, absorbed };
}

/** The parts of a row that is written somewhere: those of a concatenation that is taken in, or the row itself. */
export const partsOf = (rows: Value, by: Value, takes: Takes): readonly Value[] =>
  rows.op === 'concat' && rows.attributes.heads === 1 && takes(rows, by) ? [rows.inputs.a, rows.inputs.b] : [rows];

/** A product whose block ends as (part of) the value: a linear, or the turn of one. */
export interface Projection {
  readonly linear: ValueOf<'linear'>;
  readonly turn: ValueOf<'rope'> | null;
  /** Both, where they are not `top` itself. */
  readonly absorbed: readonly Value[];
}
export function projectionOf(v: Value, by: Value, takes: Takes): Projection | null {
  if (!takes(v, by)) return null;
  if (v.op === 'linear') return { linear: v, turn: null, absorbed: [v] };
  if (v.op !== 'rope' || v.inputs.x.op !== 'linear' || !takes(v.inputs.x, v)) return null;
  return { linear: v.inputs.x, turn: v, absorbed: [v, v.inputs.x] };
}
