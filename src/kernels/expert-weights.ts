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
  select,
  store,
  sum,
  sym,
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

/** scores [rows, experts], indices i32 [rows, k] -> weights [rows, k]. */
export function expertWeights(name: string, { experts, k, normalise, scale }: ExpertWeightsSpec): Kernel {
  const rows = sym('rows');
  const scores = input('scores', [rows, experts]);
  const indices = input('indices', [rows, k], i32);
  const weights = output('weights', [rows, k]);
  const s = tile('s', 1, experts);
  const chosen = tile('chosen', k, 1, 'i32');
  const w = tile('w', k, 1);
  const all = tile('all', 1, 1);
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
      sum(w, [k, experts], 1, select(eq(columnNumber, chosen), s, 0)),
      ...(normalise ? [sum(all, [k, 1], 0, w), map(w, over(w, plus(all, 1e-20)))] : []),
      ...(scale === 1 ? [] : [map(w, mul(w, scale))]),
      store(view(weights, [times(t, k), 0], column), w),
    ],
  };
}
