// Launches of products and what ends them: sums, factors, turns, entries of a cache, the best column.
import type { Dim, Value, ValueOf } from '../../ir/graph.js';
import type { Argument, Launch, Variant } from '../../ir/program.js';
import { frequencies } from '../../ir/rope.js';
import { i32 } from '../../ir/storage.js';
import { type EndSpec, turnTile } from '../kernels/epilogue.js';
import { bestOf, type MatmulTiles, matmul } from '../kernels/matmul.js';
import type { TurnSpec } from '../kernels/rope.js';
import type { Projection } from './fuse-chain.js';
import { rowsOf, variantsByRows } from './launches.js';
import { divisorUpTo, type Lowering, storageWord, widthOf } from './lowering.js';

/** What follows a linear in its launch. */
interface After {
  readonly added?: readonly Value[];
  readonly scale?: number;
  readonly turn?: ValueOf<'rope'> | null;
  readonly end?: EndSpec;
}
export const turnOf = (v: ValueOf<'rope'>): TurnSpec => {
  const { offset, layout, inverse, stride, table } = v.attributes;
  const magnitude = table.scaling.kind === 'yarn' ? table.scaling.magnitude : 1;
  return { offset, dims: table.dims, layout, inverse, stride, magnitude };
};
export const tableOf = (v: ValueOf<'rope'>, c: Lowering): Argument => c.table('frequencies', frequencies(v.attributes.table));

/** Kernels of a linear and what follows it; `v` is the value that its launch works towards, `ends` what is written. */
function linearVariants(
  v: Value,
  linear: ValueOf<'linear'>,
  { added = [], scale = 1, turn = null, end = { kind: 'rows' } }: After,
  asks: readonly Argument[],
  ends: readonly Argument[],
  c: Lowering,
): readonly [Variant, ...Variant[]] {
  const { weight, bias } = linear.inputs;
  const { x } = linear.inputs;
  const outputs = widthOf(linear);
  const picked = x.op === 'gather' && c.absorbs(v, x) ? x : null;
  const width = turn ? outputs / turn.attributes.heads : 0;
  const { stride: _, ...turned } = turn ? turnOf(turn) : { stride: 1 };
  const spec = {
    outputs,
    inputs: widthOf(x),
    weight: weight.type.storage,
    picked: picked !== null,
    bias: bias?.type.storage ?? null,
    added: added.length,
    scale,
    turn: turn ? { ...(turned as Omit<TurnSpec, 'stride'>), width } : null,
    end,
  };
  const words = [
    `linear_${spec.outputs}x${spec.inputs}_${storageWord(spec.weight)}`,
    bias ? 'bias' : '',
    added.length ? `add${added.length}` : '',
    scale === 1 ? '' : 'scaled',
    turn ? 'turned' : '',
    picked ? 'picked' : '',
    end.kind === 'rows' ? '' : end.kind === 'state' ? 'cached' : 'best',
  ];
  const name = words.filter(w => w !== '').join('_');
  const reads = [
    ...(picked ? [c.arg(picked.inputs.table), c.arg(picked.inputs.ids)] : [c.arg(x)]),
    ...[weight, bias, ...added].flatMap(i => (i ? [c.arg(i)] : [])),
    ...(turn ? [tableOf(turn, c), c.arg(turn.inputs.positions)] : []),
  ];
  const sizes = [rowsOf(linear), ...(picked ? [picked.inputs.table.type.shape[0] as Dim] : [])];
  // columns of a block hold whole turns, and end where those of a state's part do
  const fitted = ({ m, n, k }: MatmulTiles): MatmulTiles => {
    if (spec.turn) return { m, n: turnTile(spec.turn, n) ?? n, k };
    return { m, n: end.kind === 'state' ? divisorUpTo(outputs, n) : n, k };
  };
  return variantsByRows(c, name, matmul, [...reads, ...asks, ...ends], sizes, tiles => ({ ...spec, tiles: fitted(tiles) }));
}
/** A linear, with what follows in its launch; v is the value that holds the result. */
export const launchLinear = (v: Value, linear: ValueOf<'linear'>, after: After, c: Lowering): readonly Launch[] => [
  c.launch(v, linearVariants(v, linear, after, [], [c.own(v)], c)),
];
/** Products that write their columns of the entries of a state, one launch each. */
export function launchCached(v: ValueOf<'append'>, products: readonly Projection[], c: Lowering): readonly Launch[] {
  const { positions, sequences } = v.inputs;
  const state = c.state(v);
  let from = 0;
  return products.map(({ linear, turn }, i) => {
    const after: After = { turn, end: { kind: 'state', state, from } };
    from += widthOf(linear);
    const asks = [...(turn ? [] : [c.arg(positions)]), c.arg(sequences)];
    const variants = linearVariants(v, linear, after, asks, [c.arg(v)], c);
    return c.launch(v, variants, { last: i === products.length - 1, rows: rowsOf(linear) });
  });
}
/** The largest column of a product: of each block, then of those. */
export function launchBest(v: ValueOf<'top_indices'>, linear: ValueOf<'linear'>, c: Lowering): readonly Launch[] {
  const rows = rowsOf(v);
  const shape = [rows, Math.ceil(widthOf(linear) / 16)];
  const found = [c.scratch(v, 'best', shape), c.scratch(v, 'where', shape, i32)];
  const variants = linearVariants(v, linear, { end: { kind: 'best' } }, [], found, c);
  const [first, ...rest] = variants.map((p): Variant => {
    const blocks = p.kernel?.params.find(q => q.name === 'best')?.shape[1] as number;
    return { upTo: p.upTo, kernel: c.kernel(`best_of_${blocks}`, bestOf, { blocks }), args: [...found, c.own(v)], sizes: [rows] };
  });
  return [c.launch(v, variants, { last: false }), c.launch(v, [first as Variant, ...rest])];
}
