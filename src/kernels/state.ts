// Where a position of a sequence lies in a state [sequences, capacity, width].
import type { Storage } from '../../ir/storage.js';
import { add, type Expr, type Int, int, lt, mod, plus, rowNumber, select } from '../../ir/tile.js';

export interface StateSpec {
  readonly sequences: number;
  readonly capacity: number;
  readonly width: number;
  readonly storage: Storage;
  /** Positions come round again: a run of rows may break at the end. A log holds all of them in a row. */
  readonly ring: boolean;
}

/**
 * Row numbers of the positions from `first` on, one below the other; -1 for those below 0 and from `end` on. At most as many positions as
 * the capacity lie between the two, and `first` is below 0 by no more than that.
 */
export function rowsOf(state: Pick<StateSpec, 'capacity'>, first: Int, end: Int): Expr {
  const base = mod(add(first, state.capacity), state.capacity);
  const row = plus(rowNumber, int(base));
  const round = select(lt(row, state.capacity), row, plus(row, -state.capacity));
  const position = plus(rowNumber, int(first));
  return select(lt(position, 0), -1, select(lt(position, int(end)), round, -1));
}
