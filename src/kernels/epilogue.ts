// What follows a product while its block is held [m, n]: a bias, sums, a factor, the turn of rope; and where it ends: rows, a row of a state, or
// only the best of its columns. The statements of one are the same whatever product it follows.
import type { Storage } from '../../ir/storage.js';
import {
  add,
  argmax,
  as,
  columnNumber,
  cos,
  div,
  floor,
  type Int,
  i32,
  input,
  int,
  less,
  load,
  lt,
  map,
  maximum,
  minus,
  mod,
  mul,
  output,
  over,
  type Param,
  part,
  plus,
  type Ref,
  ref,
  type Stmt,
  select,
  sin,
  store,
  sub,
  sym,
  type Tile,
  tile,
  times,
  view,
  when,
} from '../../ir/tile.js';
import { type TurnSpec, turned } from './rope.js';
import type { StateSpec } from './state.js';

/** In this order, those that are there. */
export interface EpilogueSpec {
  readonly bias: Storage | null;
  /** Rows added to the result, such as the residual. */
  readonly added: number;
  readonly scale: number;
  /** Columns are heads of `width`; the turn of one lies in whole blocks, which `turnTiles` gives. */
  readonly turn: (Omit<TurnSpec, 'stride'> & { readonly width: number }) | null;
  readonly end: EndSpec;
}
export type EndSpec =
  | { readonly kind: 'rows' }
  /** Columns [from, from + outputs) of an entry for every position. Blocks end where the columns do. */
  | { readonly kind: 'state'; readonly state: StateSpec; readonly from: number }
  /** The largest of each block's columns and where it is, for `bestOf` to go on with. */
  | { readonly kind: 'best' };
export const plainEnd: EpilogueSpec = { bias: null, added: 0, scale: 1, turn: null, end: { kind: 'rows' } };

/** Entries of all sequences are numbered below this, and positions as well, so that both are exact in f32. */
export const mostEntries = 2 ** 24;
export const mostPositions = 2 ** 20;

const divisor = (a: number, b: number): number => (b === 0 ? a : divisor(b, a % b));
/** Columns of a block, at most n, that hold whole turns; null where there is no such block. */
export function turnTile(
  t: { readonly width: number; readonly offset: number; readonly dims: number; readonly layout: 'interleaved' | 'half' },
  n: number,
): number | null {
  // a half-split pair lies half a turn apart: a block is a head
  if (t.layout === 'half') return t.width <= 128 ? t.width : null;
  const common = divisor(divisor(t.width, t.offset), t.dims);
  for (let d = Math.min(n, common); d >= 8; d--) if (common % d === 0 && d % 2 === 0) return d;
  return null;
}

export interface Epilogue {
  /** After the product's own: what is read, then what is written. */
  readonly reads: readonly Param[];
  readonly writes: readonly Param[];
  readonly body: readonly Stmt[];
}
/** For rows [i, i + m) and columns [j, j + n) of `outputs`, held in `acc`. */
export function epilogue(acc: Tile, spec: EpilogueSpec, outputs: number, i: Int, j: Int): Epilogue {
  const [m, n] = acc.shape;
  const rows = sym('rows');
  const reads: Param[] = [];
  const body: Stmt[] = [];
  if (spec.bias) {
    const b = input('bias', [1, outputs], spec.bias);
    const shift = tile('shift', 1, n);
    reads.push(b);
    body.push(load(shift, view(b, [0, j])), map(acc, plus(acc, shift)));
  }
  for (let k = 0; k < spec.added; k++) {
    const param = input(`added${k}`, [rows, outputs]);
    const held = tile(`other${k}`, m, n);
    reads.push(param);
    body.push(load(held, view(param, [i, j])), map(acc, plus(acc, held)));
  }
  if (spec.scale !== 1) body.push(map(acc, mul(acc, spec.scale)));
  const positions = input('positions', [rows], i32);
  const sequences = input('sequences', [rows], i32);
  const at = tile('at', m, 1, 'i32');
  const places: Stmt = load(at, view(positions, [i, 0], { as: [rows, 1], pad: -1 }));
  if (spec.turn) {
    const { params, body: turning } = turnBlock(acc, spec.turn, at, j);
    reads.push(...params, positions);
    body.push(places, ...turning);
  }
  switch (spec.end.kind) {
    case 'rows': {
      const y = output('y', [rows, outputs]);
      return { reads, writes: [y], body: [...body, store(view(y, [i, j]), acc)] };
    }
    case 'state': {
      const { state: s, from } = spec.end;
      const state = output('state', [s.sequences, s.capacity, s.width], s.storage);
      const slot = tile('slot', m, 1, 'i32');
      const line = tile('line', m, 1, 'i32');
      // whole division is exact for positions below 2^20
      const round = s.ring ? minus(at, mul(floor(over(plus(at, 0.5), s.capacity)), s.capacity)) : at;
      return {
        reads: [...reads, ...(spec.turn ? [] : [positions]), sequences],
        writes: [state],
        body: [
          ...body,
          ...(spec.turn ? [] : [places]),
          load(slot, view(sequences, [i, 0], { as: [rows, 1] })),
          map(line, select(lt(at, 0), -1, plus(mul(slot, s.capacity), round))),
          store(view(state, [0, add(from, j)], { as: [s.sequences * s.capacity, s.width], index: ref(line) }), acc),
        ],
      };
    }
    case 'best': {
      const blocks = Math.ceil(outputs / n);
      const best = output('best', [rows, blocks]);
      const where = output('where', [rows, blocks], i32);
      const top = tile('top', m, 1);
      const column = tile('column', m, 1, 'i32');
      const inside = outputs % n === 0 ? acc : select(lt(plus(columnNumber, int(j)), outputs), acc, -1e30);
      return {
        reads,
        writes: [best, where],
        body: [
          ...body,
          maximum(top, [m, n], 1, inside),
          argmax(column, [m, n], 1, inside),
          map(column, plus(column, int(j))),
          store(view(best, [i, sym('j')]), top),
          store(view(where, [i, sym('j')]), column),
        ],
      };
    }
  }
}

/** Turns a block whose columns lie in heads of `width`; those outside the turn stay. */
function turnBlock(
  acc: Tile,
  t: NonNullable<EpilogueSpec['turn']>,
  at: Tile,
  j: Int,
): { readonly params: readonly Param[]; readonly body: readonly Stmt[] } {
  const [m, n] = acc.shape;
  const { width, offset, dims, layout, inverse, magnitude } = t;
  const half = layout === 'half' ? dims / 2 : n / 2;
  const frequencies = input('frequencies', [1, dims / 2]);
  const by = tile('by', 1, half);
  const angle = tile('angle', m, half);
  const c = tile('c', m, half);
  const one = tile('one', m, half);
  const two = tile('two', m, half);
  const column = mod(j, width);
  const member = (which: 0 | 1): Ref =>
    layout === 'half'
      ? part(acc, [0, offset + which * half], [m, half])
      : { ...as(acc, m * half, 2), at: [0, which], shape: [m * half, 1] };
  const like = (x: Tile): Tile | Ref => (layout === 'half' ? x : as(x, m * half, 1));
  const [a, b] = turned(like(one), like(two), like(c), like(angle), inverse);
  const body: readonly Stmt[] = [
    load(by, view(frequencies, [0, layout === 'half' ? 0 : div(sub(column, offset), 2)])),
    map(angle, mul(at, by)),
    map(c, magnitude === 1 ? cos(angle) : mul(cos(angle), magnitude)),
    map(angle, magnitude === 1 ? sin(angle) : mul(sin(angle), magnitude)),
    map(like(one), member(0)),
    map(like(two), member(1)),
    map(member(0), a),
    map(member(1), b),
  ];
  const whole = layout === 'half' || (offset === 0 && dims === width);
  const inside = times(less(offset - 1, column), less(column, offset + dims));
  return { params: [frequencies], body: whole ? body : [when('turns', inside, body)] };
}
