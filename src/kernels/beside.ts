// Kernels that do not wait for each other, as one: its blocks are the blocks of the first, then those of the second, and so on. What two of them
// read alike is one parameter. Tiles of one shape are shared, since a block belongs to one of them only.
import {
  add,
  define,
  div,
  type Int,
  type Kernel,
  less,
  mod,
  type Param,
  type Stmt,
  sub,
  sym,
  type Tile,
  times,
  when,
} from '../../ir/tile.js';

/** Which parameter of the whole each parameter of each part is: numbers from 0, the first use of each in rising order. */
export type Sharing = readonly (readonly number[])[];

export function beside(name: string, parts: readonly Kernel[], sharing: Sharing): Kernel {
  const params: Param[] = [];
  const names = new Set<string>();
  parts.forEach((k, i) => {
    k.params.forEach((p, j) => {
      const at = (sharing[i] as readonly number[])[j] as number;
      if (at < params.length) return;
      let free = p.name;
      for (let n = 2; names.has(free); n++) free = `${p.name}${n}`;
      names.add(free);
      params.push({ ...p, name: free });
    });
  });
  const sizes = [...new Set(parts.flatMap(k => k.sizes))];
  const tiles = new Pool(new Set([...names, ...sizes]));
  const unit = sym('unit');
  let first: Int = 0;
  const body = parts.map((k, i): Stmt => {
    const own = new Copy(
      new Map(k.params.map((p, j) => [p, params[(sharing[i] as readonly number[])[j] as number] as Param])),
      tiles.next(),
    );
    const count = k.grid.reduce<Int>((n, g) => (n === 1 ? g.count : times(n, g.count)), 1);
    const from = first;
    first = from === 0 ? count : add(from, count);
    const place = from === 0 ? unit : sub(unit, from);
    const axes = k.grid.map((g, d): Stmt => {
      const after = k.grid.slice(d + 1).reduce<Int>((n, o) => (n === 1 ? o.count : times(n, o.count)), 1);
      const high = after === 1 ? place : div(place, after);
      return define(g.name, d === 0 ? high : mod(high, g.count));
    });
    const holds =
      i === 0 ? less(unit, first) : i === parts.length - 1 ? less(sub(from, 1), unit) : times(less(sub(from, 1), unit), less(unit, first));
    return when(`part${i}`, holds, [...axes, ...k.body.map(s => own.of(s))]);
  });
  return { name, params, sizes, grid: [{ name: 'unit', count: first }], body };
}

/** Tiles of the whole: the n-th of a shape in one part is the n-th of that shape in every other. */
class Pool {
  readonly #made = new Map<string, Tile>();
  readonly #taken: Set<string>;
  constructor(taken: Set<string>) {
    this.#taken = taken;
  }
  next(): (t: Tile) => Tile {
    const counts = new Map<string, number>();
    return t => {
      const shape = `${t.element} ${t.shape}`;
      const n = counts.get(shape) ?? 0;
      counts.set(shape, n + 1);
      const known = this.#made.get(`${shape} ${n}`);
      if (known) return known;
      let name = t.name;
      for (let i = 2; this.#taken.has(name); i++) name = `${t.name}${i}`;
      this.#taken.add(name);
      const made = { ...t, name };
      this.#made.set(`${shape} ${n}`, made);
      return made;
    };
  }
}

/** A statement with other parameters and tiles in the places of its own. */
class Copy {
  readonly #params: ReadonlyMap<Param, Param>;
  readonly #tiles = new Map<unknown, Tile>();
  readonly #tile: (t: Tile) => Tile;
  constructor(params: ReadonlyMap<Param, Param>, tile: (t: Tile) => Tile) {
    this.#params = params;
    this.#tile = tile;
  }
  of<T>(node: T): T {
    return this.#copy(node) as T;
  }
  #copy(node: unknown): unknown {
    if (typeof node !== 'object' || node === null) return node;
    const param = this.#params.get(node as Param);
    if (param) return param;
    if (Array.isArray(node)) return node.map(n => this.#copy(n));
    if ('element' in node && 'shape' in node && 'name' in node) {
      const made = this.#tiles.get(node) ?? this.#tile(node as Tile);
      this.#tiles.set(node, made);
      return made;
    }
    return Object.fromEntries(Object.entries(node).map(([key, value]) => [key, this.#copy(value)]));
  }
}
