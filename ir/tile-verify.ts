// What holds of every tile kernel, whatever prints it. A broken one is a bug of a factory, said in sentences:
//
//   names    parameters, sizes, grid axes, loops and `let`s are said before use; none hides another; parameters are used
//   access   what is loaded, streamed or peeked is read, what is stored is written, and every written parameter is stored to
//   views    as many places as dims; an index is i32 [rows, 1]; a peeked parameter holds whole numbers
//   refs     another shape has as many elements; a window lies inside
//   shapes   every part of an expression has the shape of the whole or 1; reduce, contract, topk and scan as tile.ts says
//
// Not checked: that a view's picked dims are in range, that every element has one writer, that a block fits a chip.
import {
  childrenOf,
  type Expr,
  type Int,
  type Kernel,
  type Operand,
  type Param,
  type Ref,
  refShape,
  refsOf,
  type Shape,
  type Stmt,
  type Tile,
  type View,
} from './tile.js';

/** Sentences; empty where everything holds. */
export function verifyKernel(k: Kernel): readonly string[] {
  const wrong: string[] = [];
  const say = (what: string): void => void wrong.push(`${k.name}: ${what}`);
  const used = new Set<Param>();
  const stored = new Set<Param>();
  const tiles = new Map<string, Tile>();
  const show = (s: readonly unknown[]): string => s.join(' x ');

  const names = [...k.params.map(p => p.name), ...k.sizes, ...k.grid.map(g => g.name)];
  for (const n of new Set(names)) if (names.filter(o => o === n).length > 1) say(`two things are called ${n}`);

  const param = (p: Param, access: Param['access']): void => {
    used.add(p);
    if (!k.params.includes(p)) say(`${p.name} is no parameter`);
    if (p.access !== access)
      say(`${p.name} is to be ${access === 'read' ? 'read' : 'written'}, but it is ${p.access === 'read' ? 'read' : 'written'} only`);
  };
  const int = (i: Int, known: ReadonlySet<string>): void => {
    if (typeof i === 'number') {
      if (!Number.isSafeInteger(i)) say(`${i} is no whole number`);
    } else if ('sym' in i) {
      if (!known.has(i.sym)) say(`${i.sym} is used before it is said`);
    } else if ('peek' in i) {
      param(i.peek, 'read');
      if (i.peek.storage.element !== 'i32') say(`${i.peek.name} is peeked, but holds ${i.peek.storage.element}`);
      if (i.at.length !== i.peek.shape.length) say(`${i.peek.name} has ${i.peek.shape.length} dims, ${i.at.length} were said`);
      for (const a of i.at) int(a, known);
    } else {
      int(i.a, known);
      int(i.b, known);
    }
  };
  const ref = (r: Ref): Shape => {
    const same = tiles.get(r.tile.name);
    if (same && same !== r.tile) say(`two tiles are called ${r.tile.name}`);
    tiles.set(r.tile.name, r.tile);
    const base = r.as ?? r.tile.shape;
    if (base[0] * base[1] !== r.tile.shape[0] * r.tile.shape[1]) say(`${r.tile.name} [${show(r.tile.shape)}] is no [${show(base)}]`);
    const [at, shape] = [r.at ?? [0, 0], refShape(r)];
    if ([0, 1].some(d => (at[d] as number) < 0 || (at[d] as number) + (shape[d] as number) > (base[d] as number)))
      say(`the window [${show(shape)}] at [${at}] leaves ${r.tile.name} [${show(base)}]`);
    return shape;
  };
  const view = (v: View, rows: number, access: Param['access'], known: ReadonlySet<string>): void => {
    param(v.param, access);
    if (access === 'write') stored.add(v.param);
    const shape = v.as ?? v.param.shape;
    if (v.at.length !== shape.length) say(`${v.param.name} has ${shape.length} dims, ${v.at.length} were said`);
    for (const i of [...v.at, ...(v.limit === undefined ? [] : [v.limit]), ...(v.as ?? [])]) int(i, known);
    if (!v.index) return;
    const index = ref(v.index);
    if (v.index.tile.element !== 'i32' || index[0] !== rows || index[1] !== 1)
      say(`${v.param.name} is picked by ${v.index.tile.name} ${v.index.tile.element} [${show(index)}], not i32 [${rows} x 1]`);
  };
  const ints = (e: Expr): readonly Int[] => (e.e === 'int' ? [e.value] : childrenOf(e).flatMap(ints));
  const expr = (e: Expr, shape: Shape, known: ReadonlySet<string>): void => {
    for (const i of ints(e)) int(i, known);
    for (const r of refsOf(e)) {
      const own = ref(r);
      if ([0, 1].some(d => own[d] !== 1 && own[d] !== shape[d])) say(`${r.tile.name} [${show(own)}] does not spread to [${show(shape)}]`);
    }
  };
  /** Rows of an operand, and columns where it is held. */
  const operand = (o: Operand, rows: number, known: ReadonlySet<string>): number | null => {
    if (o.from === 'stream') {
      for (const v of o.views) view(v, rows, 'read', known);
      return null;
    }
    const shape = ref(o.ref);
    const [r, depth] = o.transposed ? [shape[1], shape[0]] : shape;
    if (r !== rows) say(`${o.ref.tile.name} gives ${r} rows to a contraction of ${rows}`);
    return depth;
  };

  const walk = (body: readonly Stmt[], outer: ReadonlySet<string>): void => {
    const known = new Set(outer);
    const define = (name: string): void => {
      if (known.has(name)) say(`${name} hides another ${name}`);
    };
    for (const s of body)
      switch (s.s) {
        case 'load':
          view(s.from, ref(s.to)[0], 'read', known);
          break;
        case 'store':
          view(s.to, ref(s.from)[0], 'write', known);
          break;
        case 'map':
          expr(s.value, ref(s.to), known);
          break;
        case 'reduce': {
          expr(s.value, s.over, known);
          const [to, is] = [s.axis === 1 ? [s.over[0], 1] : [1, s.over[1]], ref(s.to)];
          if (is[0] !== to[0] || is[1] !== to[1]) say(`${s.f} gives [${show(to)}], ${s.to.tile.name} is [${show(is)}]`);
          break;
        }
        case 'contract': {
          const [m, n] = ref({ tile: s.into });
          int(s.k, known);
          const depths = [operand(s.a, m, known), operand(s.b, n, known)].filter(d => d !== null);
          if (depths.some(d => typeof s.k === 'number' && d < s.k))
            say(`${s.into.name} contracts over ${s.k}, an operand holds ${Math.min(...depths)}`);
          break;
        }
        case 'topk': {
          const [best, index] = [ref({ tile: s.best }), ref({ tile: s.index })];
          if (ref({ tile: s.from })[0] !== 1 || best[0] !== 1 || String(best) !== String(index))
            say(`topk of ${s.from.name} wants rows, best and index alike`);
          int(s.base, known);
          break;
        }
        case 'scan': {
          const [from, to] = [ref({ tile: s.from }), ref({ tile: s.to })];
          if (from[1] !== 1 || String(from) !== String(to)) say(`scan of ${s.from.name} wants two columns alike`);
          break;
        }
        case 'let':
          int(s.value, known);
          define(s.name);
          known.add(s.name);
          break;
        case 'for':
          int(s.count, known);
          define(s.name);
          walk(s.body, new Set([...known, s.name]));
          break;
      }
  };
  const sizes = new Set(k.sizes);
  for (const p of k.params) for (const d of p.shape) int(d, sizes);
  for (const g of k.grid) int(g.count, sizes);
  walk(k.body, new Set([...k.sizes, ...k.grid.map(g => g.name)]));
  for (const p of k.params) {
    if (!used.has(p)) say(`${p.name} is never used`);
    else if (p.access === 'write' && !stored.has(p)) say(`${p.name} is never stored to`);
  }
  return wrong;
}
