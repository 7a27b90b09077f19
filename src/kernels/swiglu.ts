// silu(g) * u; with a limit g is held from above and u from both sides before.
import {
  ceildiv,
  type Expr,
  input,
  type Kernel,
  type Like,
  larger,
  load,
  map,
  mul,
  output,
  silu,
  smaller,
  store,
  sym,
  tile,
  times,
  view,
} from '../../ir/tile.js';

/** The expression, for kernels that have gate and up at hand. */
export const gated = (g: Like, u: Like, limit: number | null): Expr =>
  limit === null ? mul(silu(g), u) : mul(silu(smaller(g, limit)), smaller(larger(u, -limit), limit));

export interface SwigluSpec {
  readonly width: number;
  readonly limit: number | null;
  readonly chunk: number;
}

/** gate, up [rows, width] -> y [rows, width]. */
export function swiglu(name: string, { width, limit, chunk }: SwigluSpec): Kernel {
  const rows = sym('rows');
  const gate = input('gate', [rows, width]);
  const up = input('up', [rows, width]);
  const y = output('y', [rows, width]);
  const g = tile('g', 1, chunk);
  const u = tile('u', 1, chunk);
  const at = [sym('t'), times(sym('j'), chunk)];
  return {
    name,
    params: [gate, up, y],
    sizes: ['rows'],
    grid: [
      { name: 't', count: rows },
      { name: 'j', count: ceildiv(width, chunk) },
    ],
    body: [load(g, view(gate, at)), load(u, view(up, at)), map(g, gated(g, u, limit)), store(view(y, at), g)],
  };
}
