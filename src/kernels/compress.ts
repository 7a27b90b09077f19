// One entry out of a window of positions: per column, a softmax of scores weighs the values.
import type { Storage } from '../../ir/storage.js';
import {
  add,
  ceildiv,
  define,
  exp,
  type Int,
  i32,
  input,
  type Kernel,
  less,
  load,
  map,
  maximum,
  minus,
  mod,
  mul,
  output,
  over,
  part,
  peek,
  plus,
  ref,
  type Stmt,
  store,
  sub,
  sum,
  sym,
  tile,
  times,
  view,
  when,
} from '../../ir/tile.js';
import { rowsOf, type StateSpec } from './state.js';

export interface CompressSpec {
  readonly ratio: number;
  /** The window before takes part, with columns of its own: [0, width) of kv and score, and this one with [width, 2 width). */
  readonly overlap: boolean;
  readonly width: number;
  readonly ape: Storage;
  readonly state: StateSpec;
  /** Columns a block takes. */
  readonly chunk: number;
}

/** state rows [kv | score], ape [ratio, c * width], positions and sequences i32 [rows] -> y [rows, width], zeros where no window ends. */
export function compress(name: string, { ratio, overlap, width, ape: storage, state: of, chunk }: CompressSpec): Kernel {
  const rows = sym('rows');
  const c = overlap ? 2 : 1;
  const state = input('state', [of.sequences, of.capacity, of.width], of.storage);
  const ape = input('ape', [ratio, c * width], storage);
  const positions = input('positions', [rows], i32);
  const sequences = input('sequences', [rows], i32);
  const y = output('y', [rows, width]);
  const slots = c * ratio;
  const list = tile('list', ratio, 1, 'i32');
  const kv = tile('kv', slots, chunk);
  const score = tile('score', slots, chunk);
  const place = tile('place', slots, chunk);
  const top = tile('top', 1, chunk);
  const all = tile('all', 1, chunk);
  const entry = tile('entry', 1, chunk);
  const t = sym('t');
  const j = times(sym('j'), chunk);
  const p = sym('p');
  /** The window that ends `back` windows ago, into the slots from `slot` on, with columns from `column` on. A row that is not there weighs nothing. */
  const take = (back: number, slot: number, column: Int): readonly Stmt[] => {
    const into = (of_: typeof kv) => part(of_, [slot, 0], [ratio, chunk]);
    const at = (from: Int) => [sym('sequence'), 0, from];
    return [
      map(list, rowsOf(of, sub(add(p, 1), (back + 1) * ratio), add(p, 1))),
      load(into(kv), view(state, at(column), { index: ref(list) })),
      load(into(score), view(state, at(add(column, c * width)), { index: ref(list), pad: -1e30 })),
      load(into(place), view(ape, [0, column])),
    ];
  };
  return {
    name,
    params: [state, ape, positions, sequences, y],
    sizes: ['rows'],
    grid: [
      { name: 't', count: rows },
      { name: 'j', count: ceildiv(width, chunk) },
    ],
    body: [
      define('p', peek(positions, t)),
      define('sequence', peek(sequences, t)),
      map(entry, 0),
      when('ends', less(sub(ratio, 1), add(mod(p, ratio), 1)), [
        ...(overlap ? [...take(1, 0, j), ...take(0, ratio, add(j, width))] : take(0, 0, j)),
        map(score, plus(score, place)),
        maximum(top, [slots, chunk], 0, score),
        map(score, exp(minus(score, top))),
        sum(all, [slots, chunk], 0, score),
        sum(entry, [slots, chunk], 0, mul(score, kv)),
        map(entry, over(entry, all)),
      ]),
      store(view(y, [t, j]), entry),
    ],
  };
}
