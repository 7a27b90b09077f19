// Rows that go through several steps while a block holds them: norm, rope, Hadamard transform, rounding to a code. A kernel is one or more
// parts that end beside each other, in rows of their own or in a state's: a latent and its rope key, written where attention reads them.
import type { Storage } from '../../ir/storage.js';
import {
  add,
  as,
  div,
  type Int,
  i32,
  input,
  type Kernel,
  less,
  load,
  map,
  mod,
  mul,
  output,
  type Param,
  peek,
  plus,
  type Stmt,
  store,
  sym,
  type Tile,
  tile,
  times,
  view,
  when,
} from '../../ir/tile.js';
import { type FakeQuantSpec, throughCode } from './fake-quant.js';
import { transform } from './hadamard.js';
import { centred } from './layer-norm.js';
import { scaledByRoot } from './rms-norm.js';
import { type TurnSpec, turn } from './rope.js';
import type { StateSpec } from './state.js';

/** What a step does to the tile that holds the row, and what it reads beside it. */
export interface RowStep {
  readonly params: readonly Param[];
  readonly body: readonly Stmt[];
}
export type StepSpec =
  | { readonly step: 'rms_norm'; readonly eps: number; readonly weight: Storage | null }
  | { readonly step: 'layer_norm'; readonly eps: number; readonly weight: Storage; readonly bias: Storage }
  | ({ readonly step: 'rope' } & TurnSpec)
  | { readonly step: 'hadamard'; readonly width: number }
  | ({ readonly step: 'fake_quant' } & Omit<FakeQuantSpec, 'heads' | 'width'>)
  | { readonly step: 'scale'; readonly by: number };

export interface PartSpec {
  /** Columns of the rows that it is read from, and the first that counts. */
  readonly columns: number;
  readonly from: number;
  readonly storage: Storage;
  /** Rows of a table that ids pick; null where the rows of the call are read. */
  readonly table: number | null;
  /** A second row is added first, and the sum is written too. */
  readonly added: boolean;
  readonly heads: number;
  readonly width: number;
  readonly steps: readonly StepSpec[];
}
export interface RowsSpec {
  readonly parts: readonly PartSpec[];
  /** Where rows end: a state, of which one entry is kept for `every` positions, or null for rows of their own. */
  readonly into: { readonly state: StateSpec; readonly every: number } | null;
  /** Heads a block takes where there is one part; all of them where there are more. */
  readonly block: number;
}

export const turnsRows = (s: RowsSpec): boolean => s.parts.some(p => p.steps.some(x => x.step === 'rope'));

/**
 * For each part: x [rows, columns] (or a table and ids i32 [rows]), what is added [rows, columns], weights and tables of its steps; then positions
 * and sequences where they are asked for -> the sums [rows, columns] where something is added, then y [rows, all parts] or the state.
 */
export function rowsThrough(name: string, spec: RowsSpec): Kernel {
  const { parts, into } = spec;
  const rows = sym('rows');
  const t = sym('t');
  const lone = parts.length === 1;
  const positions = input('positions', [rows], i32);
  const sequences = input('sequences', [rows], i32);
  const y = into
    ? output('state', [into.state.sequences, into.state.capacity, into.state.width], into.state.storage)
    : output('y', [rows, parts.reduce((n, p) => n + p.heads * p.width, 0)]);
  const p = peek(positions, t);
  const row: readonly Int[] = into ? [peek(sequences, t), mod(div(p, into.every), into.state.capacity)] : [t];
  const params: Param[] = [];
  const sums: Param[] = [];
  let column = 0;
  const body = parts.flatMap((part, i): readonly Stmt[] => {
    const mark = lone ? '' : `p${i}_`;
    const heads = lone ? spec.block : part.heads;
    const size = heads * part.width;
    const skip: Int = heads < part.heads ? times(sym('h'), size) : 0;
    const x = input(`${mark}x`, [part.table ?? rows, part.columns], part.storage);
    const ids = input(`${mark}ids`, [rows], i32);
    const more = input(`${mark}added`, [rows, part.columns]);
    const sum = output(`${mark}sum`, [rows, part.columns]);
    const held = tile(`${mark}held`, heads, part.width);
    const other = tile(`${mark}other`, heads, part.width);
    const from = add(part.from, skip);
    const to = add(column, skip);
    column += part.heads * part.width;
    params.push(x, ...(part.table === null ? [] : [ids]), ...(part.added ? [more] : []));
    const steps = part.steps.map((s, n) => stepOf(held, s, positions, t, part.steps.length === 1 ? mark : `${mark}s${n}_`));
    params.push(...steps.flatMap(s => s.params));
    if (part.added) sums.push(sum);
    return [
      load(as(held, 1, size), view(x, [part.table === null ? t : peek(ids, t), from])),
      ...(part.added
        ? [load(as(other, 1, size), view(more, [t, from])), map(held, plus(held, other)), store(view(sum, [t, from]), as(held, 1, size))]
        : []),
      ...steps.flatMap(s => s.body),
      store(view(y, [...row, to]), as(held, 1, size)),
    ];
  });
  const asked = [...(into || turnsRows(spec) ? [positions] : []), ...(into ? [sequences] : [])];
  const every = into?.every ?? 1;
  return {
    name,
    params: [...params, ...asked, ...sums, y],
    sizes: ['rows'],
    grid: [
      { name: 't', count: rows },
      ...(lone && spec.block < (parts[0] as PartSpec).heads ? [{ name: 'h', count: (parts[0] as PartSpec).heads / spec.block }] : []),
    ],
    // (p + 1) % every == 0 says p % every is every - 1
    body: every === 1 ? body : [when('ends', less(every - 1, add(mod(p, every), 1)), body)],
  };
}

function stepOf(held: Tile, s: StepSpec, positions: Param, t: Int, mark: string): RowStep {
  switch (s.step) {
    case 'rms_norm':
      return scaledByRoot(held, s, mark);
    case 'layer_norm':
      return centred(held, { width: held.shape[1], ...s }, mark);
    case 'rope':
      return turn(held, s, positions, t, mark);
    case 'hadamard':
      return { params: [], body: transform(held, s.width, mark) };
    case 'fake_quant':
      return { params: [], body: throughCode(held, s, mark) };
    case 'scale':
      return { params: [], body: [map(held, mul(held, s.by))] };
  }
}
