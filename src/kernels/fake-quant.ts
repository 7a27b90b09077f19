// What a value becomes when it is stored in few bits and read again, in f32 arithmetic alone.
//
// Rounding to a step of 2^q, half to even: (v + m) - m with m = 1.5 * 2^(23 + q), exact for |v| < 2^(22 + q), because f32 has 24 bits and the
// sum's last bit is worth 2^q. The step follows from the binade of |v|. This needs a compiler that does not reassociate sums.
import {
  abs,
  as,
  type Expr,
  input,
  type Kernel,
  type Like,
  larger,
  le,
  load,
  map,
  maximum,
  minus,
  mul,
  output,
  over,
  part,
  plus,
  type Stmt,
  select,
  smaller,
  store,
  sym,
  type Tile,
  tile,
  view,
} from '../../ir/tile.js';

/** Largest code, exponent of the lowest binade that has its own step, and bits of fraction. */
const formats = {
  f8e4m3: { largest: 448, lowest: -6, highest: 8, fraction: 3 },
  f4e2m1: { largest: 6, lowest: 0, highest: 2, fraction: 1 },
} as const;

export interface FakeQuantSpec {
  readonly element: keyof typeof formats;
  readonly block: number;
  readonly scale: 'f32' | 'e8m0';
  /** The block's largest |x| counts as at least this. */
  readonly least: number;
  readonly heads: number;
  readonly width: number;
  readonly offset: number;
  readonly size: number;
}

/** The smallest power of two not below s, for 2^-128 < s < 2^63: from 2^63 down by shrinking steps. */
function powerNotBelow(to: ReturnType<typeof tile>, s: Like): readonly Stmt[] {
  return [
    map(to, 2 ** 63),
    ...[64, 64, 32, 16, 8, 4, 2, 1].map(d => {
      const less = mul(to, 2 ** -d);
      return map(to, select(le(s, less), less, to));
    }),
  ];
}

function rounded(
  v: Like,
  { largest, lowest, highest, fraction }: (typeof formats)[keyof typeof formats],
): (magic: ReturnType<typeof tile>, to: ReturnType<typeof tile>) => readonly Stmt[] {
  const magicOf = (e: number): number => 1.5 * 2 ** (23 + e - fraction);
  let value: Expr | number = magicOf(lowest);
  for (let e = lowest + 1; e <= highest; e++) value = select(le(2 ** e, abs(v)), magicOf(e), value);
  return (magic, to) => [
    map(to, larger(smaller(v, largest), -largest)),
    map(magic, value),
    map(to, plus(to, magic)),
    map(to, minus(to, magic)),
  ];
}

/** The statements that send columns [offset, offset + size) of each row of `whole` through the code and back. `mark` begins the names of their tiles. */
export function throughCode(whole: Tile, spec: Omit<FakeQuantSpec, 'heads' | 'width'>, mark = ''): readonly Stmt[] {
  const { block, offset, size } = spec;
  const heads = whole.shape[0];
  const format = formats[spec.element];
  const blocks = (heads * size) / block;
  const v = tile(`${mark}v`, blocks, block);
  const top = tile(`${mark}top`, blocks, 1);
  const s = tile(`${mark}s`, blocks, 1);
  const magic = tile(`${mark}magic`, blocks, block);
  const q = tile(`${mark}q`, blocks, block);
  const window = part(whole, [0, offset], [heads, size]);
  return [
    map(as(v, heads, size), window),
    maximum(top, [blocks, block], 1, abs(v)),
    map(top, over(larger(top, spec.least), format.largest)),
    ...(spec.scale === 'e8m0' ? powerNotBelow(s, top) : [map(s, top)]),
    map(v, over(v, s)),
    ...rounded(v, format)(magic, q),
    map(q, mul(q, s)),
    map(window, as(q, heads, size)),
  ];
}

/** x [rows, heads, width] -> y [rows, heads, width]; columns [offset, offset + size) of each head go through the code and back. */
export function fakeQuant(name: string, spec: FakeQuantSpec): Kernel {
  const { heads, width } = spec;
  const rows = sym('rows');
  const x = input('x', [rows, heads, width]);
  const y = output('y', [rows, heads, width]);
  const whole = tile('whole', 1, width);
  const at = [sym('t'), sym('h'), 0];
  return {
    name,
    params: [x, y],
    sizes: ['rows'],
    grid: [
      { name: 't', count: rows },
      { name: 'h', count: heads },
    ],
    body: [load(whole, view(x, at)), ...throughCode(whole, spec), store(view(y, at), whole)],
  };
}
