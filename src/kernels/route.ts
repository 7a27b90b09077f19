// A router from its logits to the chosen experts and their weights, in one: scores, choice and weighing of one row never leave the block. Where
// experts are fixed by the token, they are looked up in its table instead.
import type { Storage } from '../../ir/storage.js';
import { as, i32, input, type Kernel, load, map, output, peek, plus, type Stmt, store, sym, tile, times, view } from '../../ir/tile.js';
import { choose } from './choose-experts.js';
import { weigh } from './expert-weights.js';
import { score } from './router-scores.js';

export interface RouteSpec {
  readonly experts: number;
  readonly k: number;
  readonly f: 'softmax' | 'sigmoid' | 'sqrtsoftplus';
  readonly groups: number;
  readonly keep: number;
  readonly by: 'max' | 'top2sum';
  readonly bias: Storage | null;
  readonly normalise: boolean;
  readonly scale: number;
  /** Experts are not chosen: `rows` are given, or a table of so many has a row for each token id. */
  readonly given: { readonly rows: true } | { readonly table: number; readonly storage: Storage } | null;
}

/** logits [rows, experts], bias [1, experts] where there is one, or given indices i32 [rows, k], or table [table, k] and ids i32 [rows] -> indices i32 [rows, k] unless they are given, weights [rows, k]. */
export function route(name: string, spec: RouteSpec): Kernel {
  const { experts, k, bias, given } = spec;
  const rows = sym('rows');
  const logits = input('logits', [rows, experts]);
  const b = bias && input('bias', [1, experts], bias);
  const indices = output('indices', [rows, k], i32);
  const weights = output('weights', [rows, k]);
  const s = tile('s', 1, experts);
  const biased = tile('biased', 1, experts);
  const shift = tile('shift', 1, experts);
  const chosen = tile('chosen', 1, k, 'i32');
  const w = tile('w', k, 1);
  const t = sym('t');
  const table = given && 'table' in given ? input('table', [given.table, k], given.storage) : null;
  const ids = input('ids', [rows], i32);
  const known = input('known', [rows, k], i32);
  const found: readonly Stmt[] = table
    ? [load(chosen, view(table, [peek(ids, t), 0]))]
    : given
      ? [load(chosen, view(known, [t, 0]))]
      : [...(b ? [load(shift, view(b, [0, 0])), map(biased, plus(s, shift))] : [map(biased, s)]), ...choose(biased, chosen, spec)];
  const asked = table ? [table, ids] : given ? [known] : b ? [b] : [];
  return {
    name,
    params: [logits, ...asked, ...(given && !table ? [] : [indices]), weights],
    sizes: ['rows'],
    grid: [{ name: 't', count: rows }],
    body: [
      load(s, view(logits, [t, 0])),
      ...score(s, spec),
      ...found,
      ...weigh(s, as(chosen, k, 1), w, spec),
      ...(given && !table ? [] : [store(view(indices, [t, 0]), chosen)]),
      store(view(weights, [times(t, k), 0], { as: [times(rows, k), 1] }), w),
    ],
  };
}
