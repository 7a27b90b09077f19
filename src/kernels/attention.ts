// Softmax attention over the rows of one or two states, a running softmax over steps of the context. One block takes one row of the call and
// some heads of one kv head, so a step's keys are read once for all of them.
import type { Storage } from '../../ir/storage.js';
import {
  add,
  and,
  as,
  ceildiv,
  columnNumber,
  contract,
  define,
  div,
  exp,
  held,
  heldT,
  type Int,
  i32,
  input,
  int,
  type Kernel,
  larger,
  le,
  load,
  loop,
  lt,
  type Mask,
  map,
  max,
  maximum,
  minus,
  mul,
  output,
  over,
  type Param,
  part,
  peek,
  plus,
  ref,
  type Stmt,
  select,
  store,
  sub,
  sum,
  sym,
  tile,
  times,
  view,
} from '../../ir/tile.js';
import { rowsOf, type StateSpec } from './state.js';

export interface AttentionSpec {
  readonly heads: number;
  readonly kvHeads: number;
  readonly width: number;
  readonly keyOffset: number;
  readonly valueOffset: number;
  readonly valueWidth: number;
  readonly scale: number;
  /** Positions seen of `state`, this row's included; null is all up to it. */
  readonly window: number | null;
  readonly state: StateSpec;
  /** A second state of one entry every `ratio` positions. */
  readonly compressed: StateSpec | null;
  readonly ratio: number;
  /** Entries of the list that narrows `compressed`, or else `state`; null is no list. */
  readonly selected: number | null;
  readonly sink: Storage | null;
  /** Heads a block takes, a divisor of heads / kvHeads, and entries a step takes. */
  readonly tiles: { readonly heads: number; readonly context: number };
}

const low = -1e30; // instead of minus infinity: exp(low - low) must not be NaN

/**
 * q [rows, heads, width], state, compressed?, positions and sequences i32 [rows], selected? i32 [rows, k], sink? [heads, 1]
 * -> y [rows, heads, valueWidth].
 */
export function attention(name: string, spec: AttentionSpec): Kernel {
  const { heads, width, valueWidth, scale, ratio, tiles } = spec;
  const H = tiles.heads;
  const C = tiles.context;
  const rows = sym('rows');
  const stateParam = (param: string, s: StateSpec): Param => input(param, [s.sequences, s.capacity, s.width], s.storage);
  const q = input('q', [rows, heads, width]);
  const state = stateParam('state', spec.state);
  const compressed = spec.compressed && stateParam('compressed', spec.compressed);
  const positions = input('positions', [rows], i32);
  const sequences = input('sequences', [rows], i32);
  const selected = spec.selected === null ? null : input('selected', [rows, spec.selected], i32);
  const sink = spec.sink && input('sink', [heads, 1], spec.sink);
  const y = output('y', [rows, heads, valueWidth]);

  const t = sym('t');
  const p = sym('p');
  const head = times(sym('h'), H);
  const kv = div(head, heads / spec.kvHeads);
  const keyColumn = add(spec.keyOffset, times(kv, width));
  const valueColumn = add(spec.valueOffset, times(kv, valueWidth));
  // a latent row is key and value at once
  const shared = spec.kvHeads === 1 && spec.keyOffset === spec.valueOffset && valueWidth <= width;

  const asked = tile('asked', H, width);
  const keys = tile('keys', C, width);
  const values = tile('values', C, valueWidth);
  const list = tile('list', C, 1, 'i32');
  const s = tile('s', H, C);
  const top = tile('top', H, 1);
  const all = tile('all', H, 1);
  const sofar = tile('sofar', H, valueWidth);
  const next = tile('next', H, 1);
  const rescale = tile('rescale', H, 1);
  const more = tile('more', H, 1);
  const read = tile('read', H, valueWidth);

  /** Scores of a step at hand in `keys`, into the running softmax. */
  const takeIn = (visible: Mask): readonly Stmt[] => [
    contract(s, held(asked), held(keys), width, width),
    map(s, select(visible, mul(s, scale), low)),
    maximum(next, [H, C], 1, s),
    map(next, larger(next, top)),
    map(rescale, exp(minus(top, next))),
    map(top, next),
    map(s, exp(minus(s, top))),
    sum(more, [H, C], 1, s),
    map(all, plus(mul(all, rescale), more)),
    contract(read, held(s), heldT(shared ? part(keys, [0, 0], [C, valueWidth]) : values), C, C),
    map(sofar, plus(mul(sofar, rescale), read)),
  ];
  /** Keys and values of consecutive rows from `row` on, or of the rows in `list`. */
  const fetch = (from: Param, at: { readonly row: Int; readonly limit: Int } | 'list'): readonly Stmt[] => {
    const row = at === 'list' ? 0 : at.row;
    const more = at === 'list' ? { index: ref(list) } : { limit: at.limit };
    const of = (column: Int) => view(from, [sym('sequence'), row, column], more);
    return shared ? [load(keys, of(keyColumn))] : [load(keys, of(keyColumn)), load(values, of(valueColumn))];
  };

  /** The rows of a list; below 0 is none. */
  const listed = (from: Param, selection: Param, k: number): Stmt =>
    loop('entry', Math.ceil(k / C), entry => [
      load(list, view(selection, [add(times(t, k), times(entry, C)), 0], { as: [times(rows, k), 1], limit: times(add(t, 1), k), pad: -1 })),
      ...fetch(from, 'list'),
      ...takeIn(le(0, as(list, 1, C))),
    ]);
  /** The positions up to p, of a window where there is one. Steps over a log begin at multiples of C; over a ring at the window, so that a step goes round once at most. */
  const positionsUpTo = (): readonly Stmt[] => {
    const { window } = spec;
    const opens = window === null ? 0 : max(0, sub(add(p, 1), window));
    const first = spec.state.ring ? opens : times(div(opens, C), C);
    const end = add(p, 1);
    return [
      define('first', first),
      loop('step', ceildiv(sub(end, sym('first')), C), step => {
        const at = add(sym('first'), times(step, C));
        const position = plus(columnNumber, int(at));
        const upTo = le(position, int(p));
        const visible = window === null ? upTo : and(upTo, lt(int(sub(p, window)), position));
        return spec.state.ring
          ? [map(list, rowsOf(spec.state, at, end)), ...fetch(state, 'list'), ...takeIn(visible)]
          : [...fetch(state, { row: at, limit: end }), ...takeIn(visible)];
      }),
    ];
  };
  /** All entries that are complete at p. */
  const entriesUpTo = (from: Param): readonly Stmt[] => [
    define('entries', div(add(p, 1), ratio)),
    loop('entry', ceildiv(sym('entries'), C), entry => {
      const at = times(entry, C);
      return [...fetch(from, { row: at, limit: sym('entries') }), ...takeIn(lt(plus(columnNumber, int(at)), int(sym('entries'))))];
    }),
  ];
  const sources: readonly Stmt[] = compressed
    ? [...positionsUpTo(), ...(selected ? [listed(compressed, selected, spec.selected as number)] : entriesUpTo(compressed))]
    : selected
      ? [listed(state, selected, spec.selected as number)]
      : positionsUpTo();

  return {
    name,
    params: [
      q,
      state,
      ...(compressed ? [compressed] : []),
      positions,
      sequences,
      ...(selected ? [selected] : []),
      ...(sink ? [sink] : []),
      y,
    ],
    sizes: ['rows'],
    grid: [
      { name: 't', count: rows },
      { name: 'h', count: heads / H },
    ],
    body: [
      define('p', peek(positions, t)),
      define('sequence', peek(sequences, t)),
      load(asked, view(q, [t, head, 0])),
      // a sink is a first score that weighs nothing
      ...(sink ? [load(top, view(sink, [head, 0])), map(all, 1)] : [map(top, low), map(all, 0)]),
      map(sofar, 0),
      ...sources,
      map(sofar, over(sofar, all)),
      store(view(y, [t, head, 0]), sofar),
    ],
  };
}
