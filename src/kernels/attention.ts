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
  type Expr,
  eq,
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
  min,
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
  type Tile,
  tile,
  times,
  view,
} from '../../ir/tile.js';
import { type TurnSpec, turn } from './rope.js';
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
  /** Parts of the context that blocks of their own take, for combine-attention to put together; 1 is the whole in one block. */
  readonly splits: number;
  /** The turn that results go through before they are written; the whole's, and combine-attention's where the context is split. */
  readonly turned: TurnSpec | null;
  /** Heads a block takes, a divisor of heads / kvHeads, and entries a step takes. */
  readonly tiles: { readonly heads: number; readonly context: number };
}

const low = -1e30; // instead of minus infinity: exp(low - low) must not be NaN

/**
 * q [rows, heads, width], state, compressed?, positions and sequences i32 [rows], selected? i32 [rows, k], sink? [heads, 1], frequencies?
 * -> y [rows, heads, valueWidth]; with splits: sums [rows, heads, splits, valueWidth], and tops and weights [rows, heads, splits, 1] of the running softmax.
 */
export function attention(name: string, spec: AttentionSpec): Kernel {
  const { heads, width, valueWidth, scale, ratio, splits, tiles } = spec;
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
  const sums = output('sums', [rows, heads, splits, valueWidth]);
  const tops = output('tops', [rows, heads, splits, 1]);
  const weights = output('weights', [rows, heads, splits, 1]);
  const split = splits === 1 ? 0 : sym('split');

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

  /** This block's share of `count` steps. */
  const steps = (name: string, count: Int, body: (step: Int) => readonly Stmt[]): readonly Stmt[] => {
    if (splits === 1) return [loop(name, count, body)];
    const share = `${name}_share`;
    const begin = times(split, sym(share));
    return [define(share, ceildiv(count, splits)), loop(name, max(0, min(sym(share), sub(count, begin))), i => body(add(begin, i)))];
  };

  /** The rows of a list; below 0 is none. */
  const listed = (from: Param, selection: Param, k: number): readonly Stmt[] =>
    steps('entry', Math.ceil(k / C), entry => [
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
      ...steps('step', ceildiv(sub(end, sym('first')), C), step => {
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
    ...steps('entry', ceildiv(sym('entries'), C), entry => {
      const at = times(entry, C);
      return [...fetch(from, { row: at, limit: sym('entries') }), ...takeIn(lt(plus(columnNumber, int(at)), int(sym('entries'))))];
    }),
  ];
  const sources: readonly Stmt[] = compressed
    ? [...positionsUpTo(), ...(selected ? listed(compressed, selected, spec.selected as number) : entriesUpTo(compressed))]
    : selected
      ? listed(state, selected, spec.selected as number)
      : positionsUpTo();

  // a sink is a first score that weighs nothing; one block counts it
  const first = (yes: Expr | Tile | number, no: number) => (splits === 1 ? yes : select(eq(int(split), 0), yes, no));
  const began: readonly Stmt[] = sink
    ? [load(next, view(sink, [head, 0])), map(top, first(next, low)), map(all, first(1, 0))]
    : [map(top, low), map(all, 0)];
  const place = { rowDim: 1 };
  const turning = splits === 1 && spec.turned ? turn(sofar, spec.turned, positions, t, 'turn_') : null;
  const ended: readonly Stmt[] =
    splits === 1
      ? [map(sofar, over(sofar, all)), ...(turning?.body ?? []), store(view(y, [t, head, 0]), sofar)]
      : [
          store(view(sums, [t, head, split, 0], place), sofar),
          store(view(tops, [t, head, split, 0], place), top),
          store(view(weights, [t, head, split, 0], place), all),
        ];
  const given = [q, state, compressed, positions, sequences, selected, sink].filter((p): p is Param => p !== null);
  return {
    name,
    params: [...given, ...(turning?.params ?? []), ...(splits === 1 ? [y] : [sums, tops, weights])],
    sizes: ['rows'],
    grid: [{ name: 't', count: rows }, { name: 'h', count: heads / H }, ...(splits === 1 ? [] : [{ name: 'split', count: splits }])],
    body: [
      define('p', peek(positions, t)),
      define('sequence', peek(sequences, t)),
      load(asked, view(q, [t, head, 0])),
      ...began,
      map(sofar, 0),
      ...sources,
      ...ended,
    ],
  };
}

export interface CombineSpec {
  readonly heads: number;
  readonly valueWidth: number;
  readonly splits: number;
  readonly turned: TurnSpec | null;
}

/**
 * What the blocks of a split context found, as one softmax: sums [rows, heads, splits, valueWidth], tops, weights; positions i32 [rows] and
 * frequencies where results are turned -> y [rows, heads, valueWidth].
 */
export function combineAttention(name: string, { heads, valueWidth, splits, turned }: CombineSpec): Kernel {
  const rows = sym('rows');
  const sums = input('sums', [rows, heads, splits, valueWidth]);
  const tops = input('tops', [rows, heads, splits, 1]);
  const weights = input('weights', [rows, heads, splits, 1]);
  const y = output('y', [rows, heads, valueWidth]);
  const o = tile('o', splits, valueWidth);
  const m = tile('m', splits, 1);
  const l = tile('l', splits, 1);
  const top = tile('top', 1, 1);
  const all = tile('all', 1, 1);
  const result = tile('result', 1, valueWidth);
  const [t, h] = [sym('t'), sym('h')];
  const positions = input('positions', [rows], i32);
  const turning = turned && turn(result, turned, positions, t, 'turn_');
  return {
    name,
    params: [sums, tops, weights, ...(turning ? [positions, ...turning.params] : []), y],
    sizes: ['rows'],
    grid: [
      { name: 't', count: rows },
      { name: 'h', count: heads },
    ],
    body: [
      load(o, view(sums, [t, h, 0, 0])),
      load(m, view(tops, [t, h, 0, 0])),
      load(l, view(weights, [t, h, 0, 0])),
      maximum(top, [splits, 1], 0, m),
      map(m, exp(minus(m, top))), // a block that saw nothing: 0
      sum(all, [splits, 1], 0, mul(l, m)),
      sum(result, [splits, valueWidth], 0, mul(o, m)),
      map(result, over(result, all)),
      ...(turning?.body ?? []),
      store(view(y, [t, h, 0]), result),
    ],
  };
}
