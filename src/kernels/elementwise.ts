// What is computed column by column, each from the same place of its inputs.
import type { Storage } from '../../ir/storage.js';
import {
  ceildiv,
  type Expr,
  input,
  type Kernel,
  load,
  map,
  mul,
  output,
  plus,
  sigmoid,
  store,
  sym,
  type Tile,
  tile,
  times,
  view,
} from '../../ir/tile.js';

/** `row` inputs are [1, width], the same for every row; `one` inputs [1, 1]; others [rows, width]. */
interface Source {
  readonly name: string;
  readonly storage?: Storage;
  readonly spread?: 'row' | 'one';
}

function columnwise(
  name: string,
  width: number,
  chunk: number,
  sources: readonly Source[],
  value: (tiles: readonly Tile[]) => Expr,
): Kernel {
  const rows = sym('rows');
  const t = sym('t');
  const j = times(sym('j'), chunk);
  const y = output('y', [rows, width]);
  const held = sources.map(s => {
    const shape = s.spread === 'one' ? [1, 1] : s.spread === 'row' ? [1, width] : [rows, width];
    const param = s.storage ? input(s.name, shape, s.storage) : input(s.name, shape);
    const at = s.spread === 'one' ? [0, 0] : s.spread === 'row' ? [0, j] : [t, j];
    return { param, at, tile: tile(`${s.name}s`, 1, s.spread === 'one' ? 1 : chunk) };
  });
  const result = tile('result', 1, chunk);
  return {
    name,
    params: [...held.map(h => h.param), y],
    sizes: ['rows'],
    grid: [
      { name: 't', count: rows },
      { name: 'j', count: ceildiv(width, chunk) },
    ],
    body: [...held.map(h => load(h.tile, view(h.param, h.at))), map(result, value(held.map(h => h.tile))), store(view(y, [t, j]), result)],
  };
}

export interface WidthSpec {
  readonly width: number;
  readonly chunk: number;
}

/** a, b [rows, width] -> a + b. */
export const addRows = (name: string, { width, chunk }: WidthSpec): Kernel =>
  columnwise(name, width, chunk, [{ name: 'a' }, { name: 'b' }], ([a, b]) => plus(a as Tile, b as Tile));

/** x [rows, width] -> x * by. */
export const scaleRows = (name: string, { width, chunk, by }: WidthSpec & { readonly by: number }): Kernel =>
  columnwise(name, width, chunk, [{ name: 'x' }], ([x]) => mul(x as Tile, by));

export interface GateSpec extends WidthSpec {
  readonly eps: number;
  readonly scale: Storage;
  readonly base: Storage;
}
/** mix [rows, width], scale [1, 1], base [1, width] -> sigmoid(mix * scale + base) + eps. */
export const sigmoidGate = (name: string, { width, chunk, eps, scale, base }: GateSpec): Kernel =>
  columnwise(
    name,
    width,
    chunk,
    [{ name: 'mix' }, { name: 'scale', storage: scale, spread: 'one' }, { name: 'base', storage: base, spread: 'row' }],
    ([mix, s, b]) => plus(sigmoid(plus(mul(mix as Tile, s as Tile), b as Tile)), eps),
  );
