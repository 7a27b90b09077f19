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
  type Stmt,
  sigmoid,
  sqrt,
  store,
  sum,
  sym,
  type Tile,
  tile,
  view,
} from '../../ir/tile.js';

export interface RouterScoresSpec {
  readonly experts: number;
  readonly f: 'softmax' | 'sigmoid' | 'sqrtsoftplus';
}

/** The statements that turn logits held in `s` [1, experts] into scores. */
export function score(s: Tile, { experts, f }: RouterScoresSpec): readonly Stmt[] {
  const top = tile('top', 1, 1);
  const all = tile('all', 1, 1);
  // log(1 + e^x) = max(x, 0) + log(1 + e^-|x|) never overflows
  const softplus: Expr = plus(larger(s, 0), log(plus(1, exp(neg(abs(s))))));
  switch (f) {
    case 'softmax':
      return [maximum(top, [1, experts], 1, s), map(s, exp(minus(s, top))), sum(all, [1, experts], 1, s), map(s, over(s, all))];
    case 'sigmoid':
      return [map(s, sigmoid(s))];
    case 'sqrtsoftplus':
      return [map(s, sqrt(softplus))];
  }
}

/** logits [rows, experts] -> scores [rows, experts]. */
export function routerScores(name: string, spec: RouterScoresSpec): Kernel {
  const rows = sym('rows');
  const logits = input('logits', [rows, spec.experts]);
  const scores = output('scores', [rows, spec.experts]);
  const s = tile('s', 1, spec.experts);
  const at = [sym('t'), 0];
  return {
    name,
    params: [logits, scores],
    sizes: ['rows'],
    grid: [{ name: 't', count: rows }],
    body: [load(s, view(logits, at)), ...score(s, spec), store(view(scores, at), s)],
  };
}
