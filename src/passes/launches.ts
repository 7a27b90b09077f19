// Launches of one kernel, and of a kernel for each range of row counts.
import type { Dim, Value } from '../../ir/graph.js';
import type { Argument, Launch, Variant } from '../../ir/program.js';
import type { Kernel } from '../../ir/tile.js';
import type { MatmulTiles } from '../kernels/matmul.js';
import type { Lowering } from './lowering.js';

/** Row counts at which products change their kernel, and the tiles that may serve each, best first. */
export const products: readonly { readonly upTo: number | null; readonly tiles: readonly [MatmulTiles, ...MatmulTiles[]] }[] = [
  {
    upTo: 1,
    tiles: [
      { m: 1, n: 32, k: 256 },
      { m: 1, n: 16, k: 128 },
    ],
  },
  {
    upTo: 8,
    tiles: [
      { m: 8, n: 32, k: 256 },
      { m: 8, n: 16, k: 64 },
    ],
  },
  {
    upTo: null,
    tiles: [
      { m: 64, n: 64, k: 128 },
      { m: 32, n: 32, k: 64 },
      { m: 16, n: 16, k: 32 },
      { m: 8, n: 16, k: 16 },
    ],
  },
];
export const chunkOf = (width: number, most = 1024): number => Math.min(width, most);

/** One kernel whatever the number of rows. */
export const always = (kernel: Kernel, args: readonly Argument[], sizes: readonly Dim[]): readonly [Variant] => [
  { upTo: null, kernel, args, sizes },
];
export const rowsOf = (v: Value): Dim => v.type.shape[0] as Dim;

/** A launch of one kernel over the rows of its value: inputs in order, then the value. */
export function simple<S>(
  c: Lowering,
  v: Value,
  name: string,
  make: (name: string, spec: S) => Kernel,
  inputs: readonly (Value | Argument | undefined)[],
  ...candidates: readonly [S, ...S[]]
): readonly Launch[] {
  const args = inputs.flatMap(i => (i === undefined ? [] : ['kind' in i ? i : c.arg(i)]));
  return [c.launch(v, always(c.kernel(name, make, ...candidates), [...args, c.own(v)], [rowsOf(v)]))];
}
/** A kernel for each range of row counts. */
export function variantsByRows<S>(
  c: Lowering,
  name: string,
  make: (name: string, spec: S) => Kernel,
  args: readonly Argument[],
  sizes: readonly Dim[],
  spec: (tiles: MatmulTiles) => S,
): readonly [Variant, ...Variant[]] {
  const [first, ...rest] = products.map(({ upTo, tiles: [best, ...others] }): Variant => {
    const kernel = c.kernel(upTo === null ? name : `${name}_upto${upTo}`, make, spec(best), ...others.map(spec));
    return { upTo, kernel, args, sizes };
  });
  return [first as Variant, ...rest];
}
/** A launch with a kernel for each range of row counts. */
export function byRows<S>(
  c: Lowering,
  v: Value,
  name: string,
  make: (name: string, spec: S) => Kernel,
  inputs: readonly (Value | undefined)[],
  spec: (tiles: MatmulTiles) => S,
): readonly Launch[] {
  const args = [...inputs.flatMap(i => (i ? [c.arg(i)] : [])), c.own(v)];
  return [c.launch(v, variantsByRows(c, name, make, args, [rowsOf(v)], spec))];
}
