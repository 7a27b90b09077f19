// The lightning indexer: how much each row of the call wants each entry of the index state.
import {
  add,
  ceildiv,
  columnNumber,
  contract,
  define,
  div,
  held,
  i32,
  input,
  int,
  type Kernel,
  larger,
  load,
  lt,
  map,
  mul,
  output,
  peek,
  plus,
  select,
  store,
  stream,
  sum,
  sym,
  tile,
  times,
  view,
} from '../../ir/tile.js';
import type { StateSpec } from './state.js';

export interface IndexScoresSpec {
  readonly heads: number;
  readonly width: number;
  readonly ratio: number;
  readonly state: StateSpec;
  /** Entries a block scores. */
  readonly context: number;
}

/** q [rows, heads, width], weights [rows, heads], state, positions and sequences i32 [rows] -> scores [rows, capacity], -1e30 where not visible. */
export function indexScores(name: string, { heads, width, ratio, state: of, context }: IndexScoresSpec): Kernel {
  const rows = sym('rows');
  const q = input('q', [rows, heads, width]);
  const weights = input('weights', [rows, heads]);
  const state = input('state', [of.sequences, of.capacity, of.width], of.storage);
  const positions = input('positions', [rows], i32);
  const sequences = input('sequences', [rows], i32);
  const scores = output('scores', [rows, of.capacity]);
  const asked = tile('asked', heads, width);
  const w = tile('w', heads, 1);
  const s = tile('s', heads, context);
  const total = tile('total', 1, context);
  const t = sym('t');
  const at = times(sym('j'), context);
  const end = sym('end');
  return {
    name,
    params: [q, weights, state, positions, sequences, scores],
    sizes: ['rows'],
    grid: [
      { name: 't', count: rows },
      { name: 'j', count: ceildiv(of.capacity, context) },
    ],
    body: [
      define('end', div(add(peek(positions, t), 1), ratio)),
      define('sequence', peek(sequences, t)),
      map(total, 0),
      {
        s: 'for',
        name: 'visible',
        count: { op: '<', a: at, b: end },
        when: true,
        body: [
          load(asked, view(q, [t, 0, 0])),
          load(w, view(weights, [times(t, heads), 0], { as: [times(rows, heads), 1] })),
          contract(s, held(asked), stream(view(state, [sym('sequence'), at, 0], { limit: end })), width, width),
          sum(total, [heads, context], 0, mul(larger(s, 0), w)),
        ],
      },
      map(total, select(lt(plus(columnNumber, int(at)), int(end)), total, -1e30)),
      store(view(scores, [t, at]), total),
    ],
  };
}
