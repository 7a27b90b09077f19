// The k best experts of a row, optionally of its best groups only. k is small: k times the largest, taken out each time.
import type { Storage } from '../../ir/storage.js';
import {
  argmax,
  as,
  columnNumber,
  eq,
  i32,
  input,
  int,
  type Kernel,
  load,
  loop,
  lt,
  map,
  maximum,
  output,
  plus,
  type Stmt,
  select,
  store,
  sym,
  type Tile,
  tile,
  view,
} from '../../ir/tile.js';

export interface ChooseExpertsSpec {
  readonly experts: number;
  readonly k: number;
  readonly groups: number;
  /** Groups that stay. */
  readonly keep: number;
  readonly by: 'max' | 'top2sum';
  readonly bias: Storage | null;
}

/** Masked and taken. Below any score; above minus infinity, which tiles do not have. */
const low = -1e30;

/** The statements that choose from scores held in `s` [1, experts], bias included, into `chosen` i32 [1, k]. What `s` held is lost. */
export function choose(s: Tile, chosen: Tile, { experts, k, groups, keep, by }: ChooseExpertsSpec): readonly Stmt[] {
  const inGroup = experts / groups;
  const best = tile('best', 1, 1, 'i32');
  const grouped = tile('grouped', groups, inGroup);
  const first = tile('first', groups, 1);
  const at = tile('at', groups, 1, 'i32');
  const second = tile('second', groups, 1);
  const g = tile('g', 1, groups);
  const stays = tile('stays', 1, groups);
  const byGroup = as(s, groups, inGroup);
  const worth: readonly Stmt[] =
    by === 'max'
      ? [maximum(as(g, groups, 1), [groups, inGroup], 1, byGroup)]
      : [
          maximum(first, [groups, inGroup], 1, byGroup),
          argmax(at, [groups, inGroup], 1, byGroup),
          maximum(second, [groups, inGroup], 1, select(eq(columnNumber, at), low, byGroup)),
          map(as(g, groups, 1), plus(first, second)),
        ];
  const narrow: readonly Stmt[] = [
    ...worth,
    map(stays, 0),
    loop('turn', keep, () => [
      argmax(best, [1, groups], 1, g),
      map(stays, select(eq(columnNumber, best), 1, stays)),
      map(g, select(eq(columnNumber, best), low, g)),
    ]),
    map(grouped, select(lt(0, as(stays, groups, 1)), byGroup, low)),
    map(byGroup, grouped),
  ];
  return [
    ...(groups > 1 ? narrow : []),
    map(chosen, 0),
    loop('place', k, place => [
      argmax(best, [1, experts], 1, s),
      map(chosen, select(eq(columnNumber, int(place)), best, chosen)),
      map(s, select(eq(columnNumber, best), 2 * low, s)),
    ]),
  ];
}

/** scores [rows, experts], bias [1, experts] where there is one -> indices i32 [rows, k]. */
export function chooseExperts(name: string, spec: ChooseExpertsSpec): Kernel {
  const { experts, k, bias } = spec;
  const rows = sym('rows');
  const scores = input('scores', [rows, experts]);
  const b = bias && input('bias', [1, experts], bias);
  const indices = output('indices', [rows, k], i32);
  const t = sym('t');
  const s = tile('s', 1, experts);
  const shift = tile('shift', 1, experts);
  const chosen = tile('chosen', 1, k, 'i32');
  return {
    name,
    params: b ? [scores, b, indices] : [scores, indices],
    sizes: ['rows'],
    grid: [{ name: 't', count: rows }],
    body: [
      load(s, view(scores, [t, 0])),
      ...(b ? [load(shift, view(b, [0, 0])), map(s, plus(s, shift))] : []),
      ...choose(s, chosen, spec),
      store(view(indices, [t, 0]), chosen),
    ],
  };
}
