// Where a block must wait for itself. One walk finds what is missing; placing is asking until nothing is, so inserter and checker are the same.
//
// It rests on two promises that tests hold: `accesses` names every tile a statement touches, and `own` is true only where a verb gives element n of
// a tile to the same thread that every other verb gives it to.
import { type Kernel, type Operand, type Ref, refShape, refsOf, type Shape, type Stmt, type Tile, type View } from './tile.js';

export interface Access {
  readonly tile: Tile;
  readonly write: boolean;
  /** The whole tile in order: its element n is touched by the thread of n only. Accesses of equal `own` need no barrier between. */
  readonly own: string | null;
  /** [top, left, bottom, right) of what is touched; null is anything. */
  readonly window: readonly [number, number, number, number] | null;
}

const ownOf = (r: Ref, shape: Shape): string | null =>
  r.at === undefined && r.as === undefined && String(r.tile.shape) === String(shape) ? String(shape) : null;
function windowOf(r: Ref): Access['window'] {
  if (r.as !== undefined) return null;
  const [h, w] = refShape(r);
  const [top, left] = r.at ?? [0, 0];
  return [top, left, top + h, left + w];
}

/** Every tile a statement touches. */
export function accesses(s: Stmt): readonly Access[] {
  const reads = (r: Ref, shape: Shape | null): Access => ({
    tile: r.tile,
    write: false,
    own: shape && ownOf(r, shape),
    window: windowOf(r),
  });
  const writes = (r: Ref, own = true): Access => ({
    tile: r.tile,
    write: true,
    own: own ? ownOf(r, refShape(r)) : null,
    window: windowOf(r),
  });
  const index = (v: View): readonly Access[] => (v.index ? [reads(v.index, null)] : []);
  const operand = (o: Operand): readonly Access[] =>
    o.from === 'tile' ? [reads(o.ref, null)] : [...o.views.flatMap(index), ...(o.value ? refsOf(o.value).map(r => reads(r, null)) : [])];
  switch (s.s) {
    case 'load':
      return [...index(s.from), writes(s.to)];
    case 'store':
      return [...index(s.to), reads(s.from, refShape(s.from))];
    case 'map':
      return [...refsOf(s.value).map(r => reads(r, refShape(s.to))), writes(s.to)];
    case 'reduce':
      return [...refsOf(s.value).map(r => reads(r, null)), writes(s.to, false)];
    case 'contract':
      return [...operand(s.a), ...operand(s.b), writes({ tile: s.into })];
    case 'topk':
      return [
        reads({ tile: s.from }, null),
        reads({ tile: s.best }, null),
        reads({ tile: s.index }, null),
        writes({ tile: s.best }, false),
        writes({ tile: s.index }, false),
      ];
    case 'scan':
      return [reads({ tile: s.from }, null), writes({ tile: s.to }, false)];
    case 'let':
      return [];
    case 'for':
      return s.body.flatMap(accesses);
  }
}
/** The tiles of a body, each once, in order of first use. */
export const tilesOf = (body: readonly Stmt[]): readonly Tile[] => [...new Set(body.flatMap(accesses).map(a => a.tile))];

/** Statements that a barrier stands before. */
export type Marks = ReadonlySet<Stmt>;
export interface Missing {
  readonly before: Stmt;
  readonly after: Stmt;
  readonly tile: Tile;
}
interface Pending extends Access {
  readonly by: Stmt;
}

const meet = (a: Access['window'], b: Access['window']): boolean =>
  a === null || b === null || (a[0] < b[2] && b[0] < a[2] && a[1] < b[3] && b[1] < a[3]);

/**
 * The first pair of statements that touch the same elements, one of them writing, with no barrier between on some path; null where there is none.
 * `pipes`: engines run apart, so that even an element's own reader must wait, and contract does not wait by itself.
 */
export function missing(body: readonly Stmt[], marks: Marks, pipes = false): Missing | null {
  const numbers = new Map<Stmt, number>();
  const numberOf = (s: Stmt): number => {
    const n = numbers.get(s) ?? numbers.size;
    numbers.set(s, n);
    return n;
  };
  const key = (p: Pending): string => `${numberOf(p.by)} ${p.tile.name} ${p.write} ${p.own} ${p.window}`;
  let found: Missing | null = null;
  const walk = (stmts: readonly Stmt[], start: readonly Pending[]): readonly Pending[] => {
    let pending = start;
    for (const s of stmts) {
      if (s.s === 'for') {
        // any number of turns, none included: to a fixpoint. What is pending before the first turn may still be pending after none.
        let size = -1;
        while (size !== pending.length) {
          size = pending.length;
          pending = [...new Map([...pending, ...walk(s.body, pending)].map(p => [key(p), p])).values()];
        }
        continue;
      }
      const waits = s.s === 'contract' && !pipes; // the verb waits on entry, and has read its operands when it returns
      if (marks.has(s) || waits) pending = [];
      const mine = accesses(s).filter(a => !waits || a.write);
      for (const a of mine)
        for (const p of pending)
          if (p.tile === a.tile && (p.write || a.write) && meet(p.window, a.window) && (pipes || p.own === null || p.own !== a.own))
            found ??= { before: s, after: p.by, tile: a.tile };
      pending = [...pending, ...mine.map(a => ({ ...a, by: s }))];
    }
    return pending;
  };
  walk(body, []);
  return found;
}

/** Barriers enough for the body. */
export function placeBarriers(k: Kernel, pipes = false): Set<Stmt> {
  const marks = new Set<Stmt>();
  for (let m = missing(k.body, marks, pipes); m; m = missing(k.body, marks, pipes)) marks.add(m.before);
  // a later one may have made an earlier one needless
  for (const m of [...marks]) {
    marks.delete(m);
    if (missing(k.body, marks, pipes)) marks.add(m);
  }
  return marks;
}
