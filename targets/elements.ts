// What C and its relatives say the same way: whole numbers, where a view lies, one element of an expression.
import { type Storage, scaleShape } from '../ir/storage.js';
import { type Expr, type Int, type Mask, type Param, type Ref, refShape, type Shape, type Tile, type View } from '../ir/tile.js';
import { float, type Names } from './code.js';

const fold = (op: string, a: number, b: number): number => {
  switch (op) {
    case '+':
      return a + b;
    case '-':
      return a - b;
    case '*':
      return a * b;
    case '/':
      return Math.trunc(a / b);
    case '%':
      return a % b;
    case 'ceildiv':
      return Math.ceil(a / b);
    case 'min':
      return Math.min(a, b);
    case 'max':
      return Math.max(a, b);
    case '<':
      return a < b ? 1 : 0;
    default:
      return a === b ? 1 : 0;
  }
};
const mul = (a: Int, b: Int): Int =>
  a === 1 ? b : b === 1 ? a : typeof a === 'number' && typeof b === 'number' ? a * b : { op: '*', a, b };
export const product = (s: readonly Int[]): Int => s.reduce(mul, 1);

/** A whole number as an expression of 64-bit integers. Factors of 0 and 1 and sums with 0 are left out. */
export function whole(i: Int, names: Names): string {
  if (typeof i === 'number') return String(i);
  if ('sym' in i) return names.of('int', i.sym);
  if ('peek' in i) return `(long)${names.of('param', i.peek.name)}[${flat(i.at, i.peek.shape, names)}]`;
  const { a, b, op } = i;
  if (typeof a === 'number' && typeof b === 'number') return String(fold(op, a, b));
  const left = whole(a, names);
  const right = whole(b, names);
  if (op === '*' && (left === '0' || right === '0')) return '0';
  if ((op === '*' && right === '1') || ((op === '+' || op === '-') && right === '0')) return left;
  if ((op === '*' && left === '1') || (op === '+' && left === '0')) return right;
  if (op === 'min' || op === 'max' || op === 'ceildiv') return `tile_${op}(${left}, ${right})`;
  return `(${left} ${op} ${right})`;
}
/** The offset of a place in a row-major shape. */
export function flat(at: readonly Int[], shape: readonly Int[], names: Names): string {
  return (
    at
      .map((a, d) => whole(mul(a, product(shape.slice(d + 1))), names))
      .filter(t => t !== '0')
      .join(' + ') || '0'
  );
}

/** Where a view lies: pointer and scale offsets of the dims picked, rows, columns, pitch. */
export interface Place {
  readonly data: string;
  /** Scales; empty for a plain storage. */
  readonly scale: string;
  readonly row: string;
  readonly rows: string;
  readonly col: string;
  readonly cols: string;
  readonly pitch: string;
}
export const halfByte = (s: Storage): boolean => s.element === 'i4' || s.element === 'f4e2m1';
export function placeOf(v: View, names: Names): Place {
  const shape = v.as ?? v.param.shape;
  const last = shape.length - 1;
  const rowDim = v.rowDim ?? last - 1;
  const lone = rowDim < 0; // a vector is one row
  const skip = v.param.stacked ? 1 : 0;
  const picked = v.at.map((a, d) => (d === rowDim || d === last ? 0 : a));
  const base = flat(picked.slice(skip), shape.slice(skip), names);
  const name = names.of('param', v.param.name);
  const s = v.param.storage;
  const stack = v.param.stacked ? `[${whole(v.at[0] as Int, names)}]` : '';
  let scale = '';
  if (s.kind === 'scaled') {
    if (rowDim !== last - 1) throw new Error(`${v.param.name}: rows of a scaled parameter are its last dim but one`);
    const rows = shape[last - 1] as Int;
    const columns = shape[last] as Int;
    if (typeof rows !== 'number' || typeof columns !== 'number')
      throw new Error(`${v.param.name}: a scaled parameter has fixed rows and columns`);
    const [r, c] = scaleShape(s, rows, columns);
    const lead = flat(v.at.slice(skip, rowDim), shape.slice(skip, rowDim), names);
    scale = `${names.of('param', `${v.param.name}_scale`)}${stack}${lead === '0' ? '' : ` + (${lead}) * ${r * c}`}`;
  }
  return {
    data: `${name}${stack}${base === '0' ? '' : halfByte(s) ? ` + (${base}) / 2` : ` + ${base}`}`,
    scale,
    row: lone ? '0' : whole(v.at[rowDim] as Int, names),
    rows: v.limit !== undefined ? whole(v.limit, names) : lone ? '1' : whole(shape[rowDim] as Int, names),
    col: whole(v.at[last] as Int, names),
    cols: whole(shape[last] as Int, names),
    pitch: lone ? '0' : whole(product(shape.slice(rowDim + 1)), names),
  };
}

/** The word for a storage in verbs' names: `f32`, `bf16`, `f8e4m3_f32`. Blocks are arguments. */
export const kindOf = (s: Storage): string => (s.kind === 'plain' ? s.element : `${s.element}_${s.scale}`);
/** C types of elements as they lie in memory. */
export const memoryType = {
  f32: 'float',
  bf16: 'uint16_t',
  f16: 'uint16_t',
  i32: 'int32_t',
  i64: 'int64_t',
  i8: 'int8_t',
  u8: 'uint8_t',
  f8e4m3: 'uint8_t',
  i4: 'uint8_t',
  f4e2m1: 'uint8_t',
  e8m0: 'uint8_t',
} as const;
export const tileType = (t: Tile): string => ({ f32: 'float', bf16: 'uint16_t', i32: 'int32_t' })[t.element];

/** The pointers of a parameter: type and name. */
export function pointers(p: Param, names: Names): readonly (readonly [type: string, name: string])[] {
  const read = p.access === 'read' ? 'const ' : '';
  const table = p.stacked ? 'const *' : '';
  const codes = [`${read}${memoryType[p.storage.element]} *${table}`, names.of('param', p.name)] as const;
  if (p.storage.kind === 'plain') return [codes];
  return [codes, [`${read}${memoryType[p.storage.scale]} *${table}`, names.of('param', `${p.name}_scale`)]];
}

const plusText = (a: string, n: number): string => (n === 0 ? a : a === '0' ? String(n) : `${a} + ${n}`);
/** Element (row, col) of a ref read where `shape` is computed: sizes of 1 spread. */
export function elementOf(r: Ref, shape: Shape, row: string, col: string, names: Names): string {
  const own = refShape(r);
  const base = r.as ?? r.tile.shape;
  const width = base[1];
  const rr = plusText(own[0] === 1 && shape[0] !== 1 ? '0' : row, r.at?.[0] ?? 0);
  const cc = plusText(own[1] === 1 && shape[1] !== 1 ? '0' : col, r.at?.[1] ?? 0);
  const at =
    base[0] === 1 || rr === '0' ? cc : width === 1 ? rr : `${/^\w+$/.test(rr) ? rr : `(${rr})`} * ${width}${cc === '0' ? '' : ` + ${cc}`}`;
  return `${names.of('tile', r.tile.name)}[${at}]`;
}
/** An element as f32, whatever the tile holds. */
export function read(r: Ref, shape: Shape, row: string, col: string, names: Names): string {
  const e = elementOf(r, shape, row, col, names);
  return r.tile.element === 'bf16' ? `tile_from_bf16(${e})` : r.tile.element === 'i32' ? `(float)${e}` : e;
}
export function write(r: Ref, row: string, col: string, value: string, names: Names): string {
  const e = elementOf(r, refShape(r), row, col, names);
  return `${e} = ${r.tile.element === 'bf16' ? `tile_to_bf16(${value})` : r.tile.element === 'i32' ? `(int32_t)(${value})` : value};`;
}

/** One element of an expression. Functions are the header's: tile_exp, tile_rsqrt, … */
export function element(e: Expr, shape: Shape, row: string, col: string, names: Names, chunks: readonly string[] = []): string {
  const go = (y: Expr): string => element(y, shape, row, col, names, chunks);
  const mask = (m: Mask): string =>
    m.m === 'and' ? `(${mask(m.a)} && ${mask(m.b)})` : m.m === 'or' ? `(${mask(m.a)} || ${mask(m.b)})` : `${go(m.a)} ${m.m} ${go(m.b)}`;
  switch (e.e) {
    case 'num':
      return float(e.value);
    case 'int':
      return `(float)(${whole(e.value, names)})`;
    case 'iota':
      return `(float)${e.axis === 0 ? row : col}`;
    case 'chunk':
      return chunks[e.i] as string;
    case 'ref':
      return read(e.ref, shape, row, col, names);
    case 'un':
      return e.f === 'neg' ? `(-${go(e.a)})` : `tile_${e.f}(${go(e.a)})`;
    case 'bin':
      return e.f === 'max' || e.f === 'min' ? `tile_f${e.f}(${go(e.a)}, ${go(e.b)})` : `(${go(e.a)} ${e.f} ${go(e.b)})`;
    case 'select':
      return `(${mask(e.if)} ? ${go(e.then)} : ${go(e.else)})`;
  }
}
/** Names a kernel brings along, so that the printer's own locals never meet them. */
export const printerLocals = ['block', 'row', 'col', 'k', 'deep', 'best', 'where', 'value', 'left', 'right', 'from', 'to'] as const;
