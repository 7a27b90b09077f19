// Writes this call's rows into a state.
import type { Storage } from '../../ir/storage.js';
import {
  add,
  ceildiv,
  div,
  i32,
  input,
  type Kernel,
  less,
  load,
  mod,
  output,
  peek,
  store,
  sub,
  sym,
  tile,
  times,
  view,
  when,
} from '../../ir/tile.js';
import type { StateSpec } from './state.js';

export interface AppendSpec {
  readonly state: StateSpec;
  readonly every: number;
  readonly rows: Storage;
  readonly chunk: number;
}

/**
 * rows [rows, width], positions and sequences i32 [rows] -> state [sequences, capacity, width].
 * Position p lies at row p % capacity; with `every` = r only positions with (p + 1) % r == 0 are written, at row floor(p / r).
 */
export function appendRows(name: string, { state: s, every, rows: storage, chunk }: AppendSpec): Kernel {
  const rows = sym('rows');
  const x = input('x', [rows, s.width], storage);
  const positions = input('positions', [rows], i32);
  const sequences = input('sequences', [rows], i32);
  const state = output('state', [s.sequences, s.capacity, s.width], s.storage);
  const piece = tile('piece', 1, chunk);
  const t = sym('t');
  const j = times(sym('j'), chunk);
  const p = peek(positions, t);
  const row = mod(div(p, every), s.capacity);
  const write = [load(piece, view(x, [t, j])), store(view(state, [peek(sequences, t), row, j]), piece)];
  return {
    name,
    params: [x, positions, sequences, state],
    sizes: ['rows'],
    grid: [
      { name: 't', count: rows },
      { name: 'j', count: ceildiv(s.width, chunk) },
    ],
    // (p + 1) % every == 0 says p % every is every - 1
    body: every === 1 ? write : [when('ends', less(sub(every, 1), add(mod(p, every), 1)), write)],
  };
}
