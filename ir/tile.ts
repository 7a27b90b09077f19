// One kernel, said in whole tiles. No thread, no pipe, no memory space, no chip's name. docs/decisions has the reasons.
//
// A block of the grid owns its tiles. `load` pads what lies outside a parameter, `store` drops it; dims picked by `at` must be in range, which
// `when` guards. There are no infinities: -1e30 stands for masked. A parameter is read or written in a kernel, never both, and every element
// has one writer, so blocks may run in any order.
import { f32, type Storage } from './storage.js';

/** A whole number that every part of a block agrees on: sizes, places in the grid and in loops, table entries. */
export type Int =
  | number
  | { readonly sym: string }
  | { readonly op: IntOp; readonly a: Int; readonly b: Int }
  /** One whole number of a parameter that is only read: a length, a position, an expert. */
  | { readonly peek: Param; readonly at: readonly Int[] };
/** `<` and `==` give 0 or 1. */
export type IntOp = '+' | '-' | '*' | '/' | '%' | 'ceildiv' | 'min' | 'max' | '<' | '==';

/** A tensor in device memory. A scaled one is codes and scales under one name. */
export interface Param {
  readonly name: string;
  readonly access: 'read' | 'write';
  readonly shape: readonly Int[];
  readonly storage: Storage;
  /** The first dimension picks a pointer from a table: matrices that do not lie one after another, such as the experts of a checkpoint. */
  readonly stacked?: true;
}

export type Shape = readonly [rows: number, columns: number];
/** A block's own array. Where it lives (registers, shared memory, a unified buffer) follows from its uses. */
export interface Tile {
  readonly name: string;
  readonly element: 'f32' | 'bf16' | 'i32';
  readonly shape: Shape;
}
/** A tile, seen in another shape of as many elements (row-major, free), then a window of that. */
export interface Ref {
  readonly tile: Tile;
  readonly as?: Shape;
  readonly at?: Shape;
  readonly shape?: Shape;
}
/** A rectangle of a parameter: columns are its last dim, rows are `rowDim` (the one before); the other dims are picked by `at`. */
export interface View {
  readonly param: Param;
  readonly at: readonly Int[];
  readonly rowDim?: number;
  /** The parameter in another shape, row-major. */
  readonly as?: readonly Int[];
  /** i32 [rows, 1]: row r is at[rowDim] + index[r]; below 0 is none. */
  readonly index?: Ref;
  /** Rows from here on count as outside. */
  readonly limit?: Int;
  /** What `load` finds outside; 0 where it is not said. */
  readonly pad?: number;
}

/** Computed in f32 whatever the tiles hold; a size of 1 spreads. */
export type Expr =
  | { readonly e: 'ref'; readonly ref: Ref }
  /** In an operand of contract: what the i-th view has at this place. */
  | { readonly e: 'chunk'; readonly i: number }
  | { readonly e: 'num'; readonly value: number }
  | { readonly e: 'int'; readonly value: Int }
  /** The number of the row (0) or the column (1). */
  | { readonly e: 'iota'; readonly axis: 0 | 1 }
  | { readonly e: 'un'; readonly f: Unary; readonly a: Expr }
  | { readonly e: 'bin'; readonly f: Binary; readonly a: Expr; readonly b: Expr }
  | { readonly e: 'select'; readonly if: Mask; readonly then: Expr; readonly else: Expr };
export type Unary = 'exp' | 'log' | 'sqrt' | 'rsqrt' | 'neg' | 'abs' | 'ceil' | 'floor' | 'sin' | 'cos';
export type Binary = '+' | '-' | '*' | '/' | 'max' | 'min';
/** True or false for each element; lives only inside `select`. */
export type Mask =
  | { readonly m: '<' | '<=' | '=='; readonly a: Expr; readonly b: Expr }
  | { readonly m: 'and'; readonly a: Mask; readonly b: Mask }
  | { readonly m: 'or'; readonly a: Mask; readonly b: Mask };

/** Said as [row, k]: into[m, n] = sum over k of a[m, k] * b[n, k]. */
export type Operand =
  /** transposed: the tile is [k, row]. */
  | { readonly from: 'tile'; readonly ref: Ref; readonly transposed?: true }
  /** Decoded on load; `value` over the chunks of the views is a prologue. */
  | { readonly from: 'stream'; readonly views: readonly [View, ...View[]]; readonly value?: Expr };
export type Stmt =
  | { readonly s: 'load'; readonly to: Ref; readonly from: View }
  | { readonly s: 'store'; readonly from: Ref; readonly to: View }
  | { readonly s: 'map'; readonly to: Ref; readonly value: Expr }
  /** axis 1: along each row into [rows, 1]; axis 0: down each column into [1, columns]. argmax gives the lowest index of the largest. */
  | {
      readonly s: 'reduce';
      readonly f: 'sum' | 'max' | 'min' | 'argmax';
      readonly axis: 0 | 1;
      readonly over: Shape;
      readonly value: Expr;
      readonly to: Ref;
    }
  /** Starts from zero. `depth` is how much of k is held at a time, `multiply` the element in which products are formed. */
  | {
      readonly s: 'contract';
      readonly into: Tile;
      readonly a: Operand;
      readonly b: Operand;
      readonly k: Int;
      readonly depth: number;
      readonly multiply: Multiply;
    }
  /** best [1, k] := the largest of best and from [1, n], in falling order, lower index first; index i32 follows, from's columns count from `base`. */
  | { readonly s: 'topk'; readonly from: Tile; readonly base: Int; readonly best: Tile; readonly index: Tile }
  /** Running sum down the rows, exclusive. */
  | { readonly s: 'scan'; readonly from: Tile; readonly to: Tile }
  /** A whole number said once. */
  | { readonly s: 'let'; readonly name: string; readonly value: Int }
  | { readonly s: 'for'; readonly name: string; readonly count: Int; readonly body: readonly Stmt[]; readonly when?: true };
export type Multiply = 'f32' | 'bf16' | 'i8';

export interface Kernel {
  readonly name: string;
  readonly params: readonly Param[];
  /** Whole-number arguments after the parameters. */
  readonly sizes: readonly string[];
  /** Independent blocks, in any order. */
  readonly grid: readonly { readonly name: string; readonly count: Int }[];
  readonly body: readonly Stmt[];
}

// ---- words to write kernels with

export { bf16, f16, f32, i32, i64 } from './storage.js';
export const sym = (name: string): Int => ({ sym: name });
const intOp =
  (op: IntOp) =>
  (a: Int, b: Int): Int => ({ op, a, b });
export const add = intOp('+');
export const sub = intOp('-');
export const times = intOp('*');
export const div = intOp('/');
export const mod = intOp('%');
export const ceildiv = intOp('ceildiv');
export const min = intOp('min');
export const max = intOp('max');
export const less = intOp('<');
export const equal = intOp('==');
export const peek = (p: Param, ...at: readonly Int[]): Int => ({ peek: p, at });

export const input = (name: string, shape: readonly Int[], storage: Storage = f32): Param => ({ name, access: 'read', shape, storage });
/** Matrices by a table of pointers: [count, rows, columns]. */
export const stacked = (name: string, shape: readonly Int[], storage: Storage): Param => ({
  name,
  access: 'read',
  shape,
  storage,
  stacked: true,
});
export const output = (name: string, shape: readonly Int[], storage: Storage = f32): Param => ({ name, access: 'write', shape, storage });
export const tile = (name: string, rows: number, columns: number, element: Tile['element'] = 'f32'): Tile => ({
  name,
  element,
  shape: [rows, columns],
});

export type Like = Expr | Tile | Ref | number;
export const ref = (t: Tile | Ref): Ref => ('tile' in t ? t : { tile: t });
export const as = (t: Tile, rows: number, columns: number): Ref => ({ tile: t, as: [rows, columns] });
export const part = (t: Tile, at: Shape, shape: Shape): Ref => ({ tile: t, at, shape });
export const x = (v: Like): Expr => (typeof v === 'number' ? { e: 'num', value: v } : 'e' in v ? v : { e: 'ref', ref: ref(v) });
export const int = (value: Int): Expr => ({ e: 'int', value });
export const rowNumber: Expr = { e: 'iota', axis: 0 };
export const columnNumber: Expr = { e: 'iota', axis: 1 };
export const chunk = (i = 0): Expr => ({ e: 'chunk', i });
const un =
  (f: Unary) =>
  (a: Like): Expr => ({ e: 'un', f, a: x(a) });
const bin =
  (f: Binary) =>
  (a: Like, b: Like): Expr => ({ e: 'bin', f, a: x(a), b: x(b) });
const compare =
  (m: '<' | '<=' | '==') =>
  (a: Like, b: Like): Mask => ({ m, a: x(a), b: x(b) });
export const exp = un('exp');
export const log = un('log');
export const sqrt = un('sqrt');
export const rsqrt = un('rsqrt');
export const neg = un('neg');
export const abs = un('abs');
export const ceil = un('ceil');
export const floor = un('floor');
export const sin = un('sin');
export const cos = un('cos');
export const plus = bin('+');
export const minus = bin('-');
export const mul = bin('*');
export const over = bin('/');
export const larger = bin('max');
export const smaller = bin('min');
export const lt = compare('<');
export const le = compare('<=');
export const eq = compare('==');
export const and = (a: Mask, b: Mask): Mask => ({ m: 'and', a, b });
export const or = (a: Mask, b: Mask): Mask => ({ m: 'or', a, b });
export const select = (c: Mask, a: Like, b: Like): Expr => ({ e: 'select', if: c, then: x(a), else: x(b) });
export const sigmoid = (a: Like): Expr => over(1, plus(1, exp(neg(a))));
export const silu = (a: Like): Expr => over(a, plus(1, exp(neg(a))));

export const view = (param: Param, at: readonly Int[], more: Omit<View, 'param' | 'at'> = {}): View => ({ param, at, ...more });
export const load = (to: Tile | Ref, from: View): Stmt => ({ s: 'load', to: ref(to), from });
export const store = (to: View, from: Tile | Ref): Stmt => ({ s: 'store', from: ref(from), to });
export const map = (to: Tile | Ref, value: Like): Stmt => ({ s: 'map', to: ref(to), value: x(value) });
const reduce =
  (f: 'sum' | 'max' | 'min' | 'argmax') =>
  (to: Tile | Ref, shape: Shape, axis: 0 | 1, value: Like): Stmt => ({ s: 'reduce', f, axis, over: shape, value: x(value), to: ref(to) });
export const sum = reduce('sum');
export const maximum = reduce('max');
export const minimum = reduce('min');
export const argmax = reduce('argmax');
export const stream = (v: View, ...more: readonly View[]): Operand => ({ from: 'stream', views: [v, ...more] });
export const streamAs = (value: Expr, v: View, ...more: readonly View[]): Operand => ({ from: 'stream', views: [v, ...more], value });
export const held = (t: Tile | Ref): Operand => ({ from: 'tile', ref: ref(t) });
export const heldT = (t: Tile | Ref): Operand => ({ from: 'tile', ref: ref(t), transposed: true });
export const contract = (into: Tile, a: Operand, b: Operand, k: Int, depth: number, multiply: Multiply = 'f32'): Stmt => ({
  s: 'contract',
  into,
  a,
  b,
  k,
  depth,
  multiply,
});
export const topk = (best: Tile, index: Tile, from: Tile, base: Int): Stmt => ({ s: 'topk', from, base, best, index });
export const scan = (to: Tile, from: Tile): Stmt => ({ s: 'scan', from, to });
export const define = (name: string, value: Int): Stmt => ({ s: 'let', name, value });
export const loop = (name: string, count: Int, body: (i: Int) => readonly Stmt[]): Stmt => ({
  s: 'for',
  name,
  count,
  body: body(sym(name)),
});
/** For what holds or does not: a loop of one turn or none. `holds` is 0 or 1. */
export const when = (name: string, holds: Int, body: readonly Stmt[]): Stmt => ({ s: 'for', name, count: holds, body, when: true });

// ---- what every printer asks

export const refShape = (r: Ref): Shape => r.shape ?? r.as ?? r.tile.shape;
export function childrenOf(e: Expr): readonly Expr[] {
  switch (e.e) {
    case 'un':
      return [e.a];
    case 'bin':
      return [e.a, e.b];
    case 'select':
      return [...ofMask(e.if), e.then, e.else];
    default:
      return [];
  }
}
function ofMask(m: Mask): readonly Expr[] {
  switch (m.m) {
    case 'and':
    case 'or':
      return [...ofMask(m.a), ...ofMask(m.b)];
    default:
      return [m.a, m.b];
  }
}
export const refsOf = (e: Expr): readonly Ref[] => (e.e === 'ref' ? [e.ref] : childrenOf(e).flatMap(refsOf));
