// From a router's logits to scores: softmax over the experts, sigmoid, or the root of softplus.
import {
  abs,
  type Expr,
  exp,
  input,
  type Kernel,
  larger,
  load,
  log,
  map,
  maximum,
  minus,
  neg,
  output,
  over,
  plus,
  sigmoid,
  sqrt,
  store,
  sum,
  sym,
  tile,
  view,
} from '../../ir/tile.js';

export interface RouterScoresSpec {
  readonly experts: number;
  readonly f: 'softmax' | 'sigmoid' | 'sqrtsoftplus';
}

/** logits [rows, experts] -> scores [rows, experts]. */
export function routerScores(name: string, { experts, f }: RouterScoresSpec): Kernel {
  const rows = sym('rows');
  const logits = input('logits', [rows, experts]);
  const scores = output('scores', [rows, experts]);
  const s = tile('s', 1, experts);
  const top = tile('top', 1, 1);
  const all = tile('all', 1, 1);
  const at = [sym('t'), 0];
  // log(1 + e^x) = max(x, 0) + log(1 + e^-|x|) never overflows
  const softplus: Expr = plus(larger(s, 0), log(plus(1, exp(neg(abs(s))))));
  const by = {
    softmax: [maximum(top, [1, experts], 1, s), map(s, exp(minus(s, top))), sum(all, [1, experts], 1, s), map(s, over(s, all))],
    sigmoid: [map(s, sigmoid(s))],
    sqrtsoftplus: [map(s, sqrt(softplus))],
  } as const;
  return {
    name,
    params: [logits, scores],
    sizes: ['rows'],
    grid: [{ name: 't', count: rows }],
    body: [load(s, view(logits, at)), ...by[f], store(view(scores, at), s)],
  };
}
