// The scores of the chosen experts, as the weights of their results.
import {
  columnNumber,
  eq,
  i32,
  input,
  type Kernel,
  load,
  map,
  mul,
  output,
  over,
  plus,
  type Ref,
  ref,
  type Stmt,
  select,
  store,
  sum,
  sym,
  type Tile,
  tile,
  times,
  view,
} from '../../ir/tile.js';

export interface ExpertWeightsSpec {
  readonly experts: number;
  readonly k: number;
  readonly normalise: boolean;
  readonly scale: number;
}

/** The statements that weigh `chosen` i32 [k, 1] by the scores in `s` [1, experts], into `w` [k, 1]. */
export function weigh(s: Tile, chosen: Ref, w: Tile, { experts, k, normalise, scale }: ExpertWeightsSpec): readonly Stmt[] {
  const total = tile('total', 1, 1);
  return [
    sum(w, [k, experts], 1, select(eq(columnNumber, chosen), s, 0)),
    ...(normalise ? [sum(total, [k, 1], 0, w), map(w, over(w, plus(total, 1e-20)))] : []),
    ...(scale === 1 ? [] : [map(w, mul(w, scale))]),
  ];
}

/** scores [rows, experts], indices i32 [rows, k] -> weights [rows, k]. */
export function expertWeights(name: string, spec: ExpertWeightsSpec): Kernel {
  const { experts, k } = spec;
  const rows = sym('rows');
  const scores = input('scores', [rows, experts]);
  const indices = input('indices', [rows, k], i32);
  const weights = output('weights', [rows, k]);
  const s = tile('s', 1, experts);
  const chosen = tile('chosen', k, 1, 'i32');
  const w = tile('w', k, 1);
  const t = sym('t');
  const column = { as: [times(rows, k), 1] };
  return {
    name,
    params: [scores, indices, weights],
    sizes: ['rows'],
    grid: [{ name: 't', count: rows }],
    body: [
      load(s, view(scores, [t, 0])),
      load(chosen, view(indices, [times(t, k), 0], column)),
      ...weigh(s, ref(chosen), w, spec),
      store(view(weights, [times(t, k), 0], column), w),
    ],
  };
}
