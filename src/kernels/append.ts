// Writes this call's rows into a state.
import type { Storage } from '../../ir/storage.js';
import { add, div, i32, input, type Kernel, less, load, mod, output, peek, store, sub, sym, tile, view, when } from '../../ir/tile.js';
import type { StateSpec } from './state.js';

export interface AppendSpec {
  readonly state: StateSpec;
  readonly every: number;
  /** The rows, or the parts that stand beside each other in them. */
  readonly parts: readonly { readonly width: number; readonly storage: Storage }[];
}

/**
 * x0 [rows, width] (x1 .. beside it), positions and sequences i32 [rows] -> state [sequences, capacity, width].
 * Position p lies at row p % capacity; with `every` = r only positions with (p + 1) % r == 0 are written, at row floor(p / r).
 */
export function appendRows(name: string, { state: s, every, parts }: AppendSpec): Kernel {
  const rows = sym('rows');
  const positions = input('positions', [rows], i32);
  const sequences = input('sequences', [rows], i32);
  const state = output('state', [s.sequences, s.capacity, s.width], s.storage);
  const t = sym('t');
  const p = peek(positions, t);
  const row = mod(div(p, every), s.capacity);
  const pieces = parts.map(({ width, storage }, i) => ({
    x: input(`x${i}`, [rows, width], storage),
    held: tile(`piece${i}`, 1, width),
    from: parts.slice(0, i).reduce((n, other) => n + other.width, 0),
  }));
  const write = pieces.flatMap(({ x, held, from }) => [
    load(held, view(x, [t, 0])),
    store(view(state, [peek(sequences, t), row, from]), held),
  ]);
  return {
    name,
    params: [...pieces.map(({ x }) => x), positions, sequences, state],
    sizes: ['rows'],
    grid: [{ name: 't', count: rows }],
    // (p + 1) % every == 0 says p % every is every - 1
    body: every === 1 ? write : [when('ends', less(sub(every, 1), add(mod(p, every), 1)), write)],
  };
}
