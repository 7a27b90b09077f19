// From a graph to launches: one rule an op, and for each the kernels by number of rows. Tile sizes are candidates, best first; a chip's
// objection passes to the next. States are as large as the limits say, so their capacities are constants of the kernels.
import { type Dim, type Graph, needed, type Value, type ValueOf } from '../../ir/graph.js';
import { isRankOp, type OpName, type RankOp } from '../../ir/ops.js';
import type { Argument, Launch, Program, Variant } from '../../ir/program.js';
import { i32 } from '../../ir/storage.js';
import type { Kernel } from '../../ir/tile.js';
import { absorbQuery } from '../kernels/absorb-query.js';
import { appendRows } from '../kernels/append.js';
import { type AttentionSpec, attention, combineAttention } from '../kernels/attention.js';
import { chooseExperts } from '../kernels/choose-experts.js';
import { concatColumns, sliceColumns } from '../kernels/columns.js';
import { compress } from '../kernels/compress.js';
import { addRows, scaleRows, sigmoidGate } from '../kernels/elementwise.js';
import { expertWeights } from '../kernels/expert-weights.js';
import { type ExpertsSpec, expertsFewDown, expertsFewUp } from '../kernels/experts-few.js';
import { expertLines, expertPlan, expertsCombine, expertsDown, expertsUp } from '../kernels/experts-many.js';
import { fakeQuant } from '../kernels/fake-quant.js';
import { gateUp } from '../kernels/gate-up.js';
import { gatherRows } from '../kernels/gather.js';
import { groupedMatmul, groupedMatmulTransposed } from '../kernels/grouped-matmul.js';
import { hadamard } from '../kernels/hadamard.js';
import { hcExpand, hcMix, hcPost, hcPre, hcSplit } from '../kernels/hyper-connections.js';
import { indexScores } from '../kernels/index-scores.js';
import { layerNorm } from '../kernels/layer-norm.js';
import type { MatmulTiles } from '../kernels/matmul.js';
import { rmsNorm } from '../kernels/rms-norm.js';
import { rope } from '../kernels/rope.js';
import { routerScores } from '../kernels/router-scores.js';
import { swiglu } from '../kernels/swiglu.js';
import { topIndices } from '../kernels/top-indices.js';
import { fuse, partChains } from './fuse.js';
import { chainOf, partsOf, projectionOf } from './fuse-chain.js';
import { launchBest, launchCached, launchLinear, tableOf, turnOf } from './fuse-products.js';
import { launchRoute, launchRows, launchStreamNorm, launchSumNorm, takenBy } from './fuse-rows.js';
import { together } from './fuse-together.js';
import { always, byRows, chunkOf, rowsOf, simple } from './launches.js';
import { DoesNotFit, divisorUpTo, Lowering, type LoweringOptions, storageWord, widthOf } from './lowering.js';

type Rule<K extends OpName> = (v: ValueOf<K>, c: Lowering) => readonly Launch[];
const nothing = (): readonly Launch[] => [];

const rules: { readonly [K in Exclude<OpName, RankOp>]: Rule<K> } = {
  input: nothing,
  weight: nothing,
  state: nothing,

  gather(v, c) {
    const { table, ids } = v.inputs;
    const from = table.type.shape[0] as Dim;
    const width = widthOf(v);
    const whole = v.type.storage.element === 'i32';
    const spec = { from: typeof from === 'number' ? from : null, width, table: table.type.storage, whole, chunk: chunkOf(width) };
    const kernel = c.kernel(`gather_${width}_${storageWord(table.type.storage)}`, gatherRows, spec);
    const sizes = typeof from === 'number' ? [rowsOf(v)] : [rowsOf(v), from];
    return [c.launch(v, always(kernel, [c.arg(table), c.arg(ids), c.own(v)], sizes))];
  },
  slice(v, c) {
    const { from, size, heads = 1 } = v.attributes;
    const spec = { heads, width: widthOf(v.inputs.x) / heads, from, size, block: divisorUpTo(heads, 16) };
    return simple(c, v, `slice_${heads}x${size}`, sliceColumns, [v.inputs.x], spec);
  },
  concat(v, c) {
    const { heads } = v.attributes;
    const { a, b } = v.inputs;
    if (c.absorbs(v, a) && a.op === 'grouped_linear') return launchQuery(v, a, c);
    if (c.absorbs(v, a) || c.absorbs(v, b)) return launchRows(v, partChains([a, b], v, takenBy(v, c)), null, c);
    const spec = { heads, a: widthOf(a) / heads, b: widthOf(b) / heads, block: divisorUpTo(heads, 16) };
    return simple(c, v, `concat_${heads}x${spec.a}x${spec.b}`, concatColumns, [a, b], spec);
  },
  add(v, c) {
    const terms = termsOf(v, v, c);
    const linear = terms.find(t => c.absorbs(v, t));
    if (linear?.op === 'linear') return launchLinear(v, linear, { added: terms.filter(t => t !== linear) }, c);
    return simple(c, v, `add_${widthOf(v)}`, addRows, terms, { width: widthOf(v), chunk: chunkOf(widthOf(v)) });
  },
  scale(v, c) {
    const { x } = v.inputs;
    const { by } = v.attributes;
    const width = widthOf(v);
    if (c.absorbs(v, x) && x.op === 'linear') return launchLinear(v, x, { scale: by }, c);
    return simple(c, v, `scale_${width}`, scaleRows, [x], { width, chunk: chunkOf(width), by });
  },
  append(v, c) {
    const { rows, positions, sequences } = v.inputs;
    const takes = takenBy(v, c);
    const parts = partsOf(rows, v, takes);
    const by = parts[0] === rows ? v : rows;
    const products = parts.flatMap(p => projectionOf(p, by, takes) ?? []);
    if (products.length === parts.length) return launchCached(v, products, c);
    if (parts.some(takes)) return launchRows(v, partChains(parts, by, takes), v.attributes.every, c);
    const state = c.state(v);
    const spec = { state, every: v.attributes.every, parts: parts.map(r => ({ width: widthOf(r), storage: r.type.storage })) };
    const kernel = c.kernel(`append_${state.width}`, appendRows, spec);
    const args = [...parts, positions, sequences, v].map(i => c.arg(i));
    return [c.launch(v, always(kernel, args, [rowsOf(rows)]), { rows: rowsOf(rows) })];
  },

  rms_norm(v, c) {
    const { width, eps } = v.attributes;
    const { weight } = v.inputs;
    if (c.absorbs(v, v.inputs.x)) {
      if (v.inputs.x.op === 'hc_pre') return launchStreamNorm(v, v.inputs.x, c);
      if (v.inputs.x.op === 'add') return launchSumNorm(v, v.inputs.x, c);
    }
    const chain = chainOf(v, takenBy(v, c));
    if (chain.steps.length > 1) return launchRows(v, [chain], null, c);
    const { x, within } = c.whole(v, v.inputs.x);
    const groups = widthOf(v) / width;
    const spec = { groups, width, eps, weight: weight?.type.storage ?? null, within };
    const candidates = [8192, 1024].map(most => ({ ...spec, chunk: chunkOf(width, most) }));
    return simple(c, v, `rms_norm_${groups}x${width}`, rmsNorm, [x, weight], ...(candidates as [(typeof candidates)[0]]));
  },
  layer_norm(v, c) {
    const { x, weight, bias } = v.inputs;
    const chain = chainOf(v, takenBy(v, c));
    if (chain.steps.length > 1) return launchRows(v, [chain], null, c);
    const spec = { width: widthOf(x), eps: v.attributes.eps, weight: weight.type.storage, bias: bias.type.storage };
    return simple(c, v, `layer_norm_${spec.width}`, layerNorm, [x, weight, bias], spec);
  },
  rope(v, c) {
    const { heads } = v.attributes;
    const from = v.inputs.x;
    if (c.absorbs(v, from) && from.op === 'linear') return launchLinear(v, from, { turn: v }, c);
    if (c.absorbs(v, from) && from.op === 'attention') return launchAttention(from, c, v);
    const chain = chainOf(v, takenBy(v, c));
    if (chain.steps.length > 1) return launchRows(v, [chain], null, c);
    const width = widthOf(v) / heads;
    const { x, within } = c.whole(v, from);
    const spec = { heads, width, ...turnOf(v), within, block: divisorUpTo(heads, 16) };
    return simple(c, v, `rope_${heads}x${width}`, rope, [x, v.inputs.positions, tableOf(v, c)], spec, { ...spec, block: 1 });
  },
  hadamard(v, c) {
    const { width } = v.attributes;
    const chain = chainOf(v, takenBy(v, c));
    if (chain.steps.length > 1) return launchRows(v, [chain], null, c);
    const groups = widthOf(v) / width;
    const spec = { groups, width, block: divisorUpTo(groups, 8) };
    return simple(c, v, `hadamard_${groups}x${width}`, hadamard, [v.inputs.x], spec, { ...spec, block: 1 });
  },
  fake_quant(v, c) {
    const { heads } = v.attributes;
    const chain = chainOf(v, takenBy(v, c));
    if (chain.steps.length > 1) return launchRows(v, [chain], null, c);
    return simple(c, v, `fake_quant_${v.attributes.element}`, fakeQuant, [v.inputs.x], { ...v.attributes, width: widthOf(v) / heads });
  },

  linear: (v, c) => launchLinear(v, v, {}, c),
  grouped_linear(v, c) {
    const { x, weight } = v.inputs;
    const { groups, stride, from, size, transposed } = v.attributes;
    const columns = widthOf(weight);
    const name = `grouped_linear_${groups}x${size}x${columns}${transposed ? '_t' : ''}`;
    const spec = { groups, stride, from, size, columns, weight: weight.type.storage };
    return transposed
      ? byRows(c, v, name, groupedMatmulTransposed, [x, weight], ({ m, n }) => ({
          ...spec,
          tiles: { m: m, n, k: Math.min(size, 128) },
        }))
      : byRows(c, v, name, groupedMatmul, [x, weight], tiles => ({ ...spec, tiles }));
  },
  swiglu(v, c) {
    const { gate, up } = v.inputs;
    const { limit } = v.attributes;
    const width = widthOf(v);
    if (!c.absorbs(v, gate) || gate.op !== 'linear' || up.op !== 'linear')
      return simple(c, v, `swiglu_${width}`, swiglu, [gate, up], { width, limit, chunk: chunkOf(width) });
    const { x, weight: g } = gate.inputs;
    const u = up.inputs.weight;
    const inputs = widthOf(x);
    const name = `gate_up_${width}x${inputs}_${storageWord(g.type.storage)}`;
    return byRows(c, v, name, gateUp, [x, g, u], tiles => ({
      outputs: width,
      inputs,
      gate: g.type.storage,
      up: u.type.storage,
      limit,
      tiles,
    }));
  },

  mla: v => {
    throw new Error(`${v.name}: absorb-mla stands before choose-kernels`);
  },
  attention: (v, c) => launchAttention(v, c),
  compress(v, c) {
    const { state, ape, positions, sequences } = v.inputs;
    const { ratio, overlap, width } = v.attributes;
    const spec = { ratio, overlap, width, ape: ape.type.storage, state: c.state(state) };
    const candidates = [128, 32, 8].map(most => ({ ...spec, chunk: chunkOf(width, most) }));
    return simple(
      c,
      v,
      `compress_${ratio}_${width}`,
      compress,
      [state, ape, positions, sequences],
      ...(candidates as [(typeof candidates)[0]]),
    );
  },
  index_scores(v, c) {
    const { q, weights, state, positions, sequences } = v.inputs;
    const { heads, width, ratio } = v.attributes;
    const spec = { heads, width, ratio, state: c.state(state) };
    const candidates = [64, 16].map(context => ({ ...spec, context }));
    return simple(
      c,
      v,
      `index_scores_${heads}x${width}`,
      indexScores,
      [q, weights, state, positions, sequences],
      ...(candidates as [(typeof candidates)[0]]),
    );
  },
  top_indices(v, c) {
    if (c.absorbs(v, v.inputs.scores) && v.inputs.scores.op === 'linear') return launchBest(v, v.inputs.scores, c);
    const columns = c.limit(v.inputs.scores.type.shape[1] as Dim);
    return simple(c, v, `top_${v.attributes.k}`, topIndices, [v.inputs.scores], {
      k: v.attributes.k,
      columns,
      chunk: chunkOf(columns, 256),
    });
  },

  router_scores: (v, c) =>
    simple(c, v, `router_scores_${v.attributes.f}_${widthOf(v)}`, routerScores, [v.inputs.logits], {
      experts: widthOf(v),
      f: v.attributes.f,
    }),
  choose_experts(v, c) {
    const { scores, bias } = v.inputs;
    const experts = widthOf(scores);
    return simple(c, v, `choose_${v.attributes.k}_of_${experts}`, chooseExperts, [scores, bias], {
      ...v.attributes,
      experts,
      bias: bias?.type.storage ?? null,
    });
  },
  expert_weights(v, c) {
    const { scores, indices } = v.inputs;
    if (c.absorbs(v, scores) && scores.op === 'router_scores') return launchRoute(v, scores, c);
    const spec = { ...v.attributes, experts: widthOf(scores), k: widthOf(indices) };
    return simple(c, v, `expert_weights_${spec.k}_of_${spec.experts}`, expertWeights, [scores, indices], spec);
  },
  experts: launchExperts,

  hc_expand(v, c) {
    const width = widthOf(v.inputs.x);
    const { streams } = v.attributes;
    return simple(c, v, `hc_expand_${streams}x${width}`, hcExpand, [v.inputs.x], { streams, width, chunk: chunkOf(width) });
  },
  hc_mix(v, c) {
    const { x, weight } = v.inputs;
    const width = widthOf(x);
    const spec = { mixes: widthOf(v), width, eps: v.attributes.eps, weight: weight.type.storage, chunk: chunkOf(width), n: 4 };
    return simple(c, v, `hc_mix_${spec.mixes}x${width}`, hcMix, [x, weight], spec);
  },
  hc_split(v, c) {
    const { mix, scale, base } = v.inputs;
    const spec = { ...v.attributes, scale: scale.type.storage, base: base.type.storage };
    return simple(c, v, `hc_split_${v.attributes.streams}`, hcSplit, [mix, scale, base], spec);
  },
  hc_gate(v, c) {
    const { mix, scale, base } = v.inputs;
    const width = widthOf(v);
    const spec = { width, chunk: chunkOf(width), eps: v.attributes.eps, scale: scale.type.storage, base: base.type.storage };
    return simple(c, v, `hc_gate_${width}`, sigmoidGate, [mix, scale, base], spec);
  },
  hc_pre(v, c) {
    const { x, weights } = v.inputs;
    const width = widthOf(v);
    const spec = { streams: v.attributes.streams, width, chunk: chunkOf(width), weights: widthOf(weights) };
    return simple(c, v, `hc_pre_${spec.streams}x${width}`, hcPre, [x, weights], spec);
  },
  hc_post(v, c) {
    const { x, weights, y } = v.inputs;
    const width = widthOf(y);
    const { streams } = v.attributes;
    const spec = { streams, width, chunk: chunkOf(width) };
    return simple(c, v, `hc_post_${streams}x${width}`, hcPost, [x, weights, y], spec, { ...spec, chunk: chunkOf(width, 256) });
  },
};

/** Entries of context from which few rows share it among blocks, and how many a block should take. */
const longContext = 1024;
const splitContext = 512;

/** One block a row and some heads; for few rows over a long context, blocks of their own for parts of it, then one launch that puts them together. */
function launchAttention(asked: ValueOf<'attention'>, c: Lowering, turn: ValueOf<'rope'> | null = null): readonly Launch[] {
  const v: Value = turn ?? asked;
  const { q, state, compressed, positions, sequences, selected, sink } = asked.inputs;
  const { attributes: a } = asked;
  const turned = turn && turnOf(turn);
  const table = turn ? [tableOf(turn, c)] : [];
  const spec = {
    ...a,
    state: c.state(state),
    compressed: compressed ? c.state(compressed) : null,
    selected: selected ? widthOf(selected) : null,
    sink: sink?.type.storage ?? null,
    turned,
  };
  const sizes = [
    [16, 32],
    [16, 16],
    [8, 8],
    [4, 8],
    [4, 4],
    [2, 4],
    [1, 4],
  ] as const;
  const [best, ...rest] = sizes.map(([heads, context]) => ({ heads: divisorUpTo(a.heads / a.kvHeads, heads), context }));
  const candidates = (splits: number): readonly [AttentionSpec, ...AttentionSpec[]] => {
    const of = (tiles: AttentionSpec['tiles']): AttentionSpec => ({ ...spec, splits, tiles });
    return [of(best as AttentionSpec['tiles']), ...rest.map(of)];
  };
  const word = [
    `attention_${a.heads}x${a.width}`,
    a.kvHeads === a.heads ? '' : `kv${a.kvHeads}`,
    compressed ? 'compressed' : '',
    selected ? 'selected' : '',
    turned ? 'turned' : '',
  ];
  const name = word.filter(w => w !== '').join('_');
  const given = [q, state, compressed, positions, sequences, selected, sink].flatMap(i => (i ? [c.arg(i)] : []));
  const rows = rowsOf(v);
  const whole: Variant = {
    upTo: null,
    kernel: c.kernel(name, attention, ...candidates(1)),
    args: [...given, ...table, c.own(v)],
    sizes: [rows],
  };

  const near =
    spec.selected !== null && !spec.compressed ? spec.selected : Math.min(a.window ?? Number.POSITIVE_INFINITY, spec.state.capacity);
  const far = spec.compressed ? (spec.selected ?? spec.compressed.capacity) : 0;
  if (near + far < longContext) return [c.launch(v, [whole])];
  const splits = Math.min(16, Math.ceil((near + far) / splitContext));
  const upTo = 8;
  const shape = [upTo, a.heads, splits];
  const parts = [
    c.scratch(v, 'sums', [...shape, a.valueWidth]),
    c.scratch(v, 'tops', [...shape, 1]),
    c.scratch(v, 'weights', [...shape, 1]),
  ];
  const split = c.kernel(`${name}_by${splits}`, attention, ...candidates(splits));
  const combine = c.kernel(`combine_${a.heads}x${a.valueWidth}_by${splits}${turned ? '_turned' : ''}`, combineAttention, {
    heads: a.heads,
    valueWidth: a.valueWidth,
    splits,
    turned,
  });
  const asks = turn ? [c.arg(positions), ...table] : [];
  return [
    c.launch(v, [{ upTo, kernel: split, args: [...given, ...parts], sizes: [rows] }, whole], { last: false }),
    c.launch(v, [
      { upTo, kernel: combine, args: [...parts, ...asks, c.own(v)], sizes: [rows] },
      { upTo: null, kernel: null, args: [], sizes: [] },
    ]),
  ];
}

/**
 * Few rows: two launches over (row, chosen expert). Many: lines in expert order, so that an expert's weights are read once for all its rows.
 * The bound is where half the experts would be read twice if the choices were even.
 */
function launchExperts(v: ValueOf<'experts'>, c: Lowering): readonly Launch[] {
  const { x, indices, weights, gate, up, down } = v.inputs;
  const [experts, inner, width] = gate.type.shape as readonly [number, number, number];
  const k = widthOf(indices);
  const storage = { gate: gate.type.storage, up: up.type.storage, down: down.type.storage };
  const spec: ExpertsSpec = { experts, k, width, inner, ...storage, ...v.attributes };
  const few = Math.max(1, Math.floor(experts / (2 * k)));
  const word = `${experts}x${inner}x${width}_${storageWord(storage.gate)}`;
  const rows = rowsOf(v);
  const before = spec.weigh === 'before';
  const m = 16;
  const entries: Dim = { op: '*', a: rows, b: k };
  const blocks: Dim = { op: '+', a: { op: 'ceildiv', a: entries, b: m }, b: experts };
  const lines: Dim = { op: '*', a: blocks, b: m };

  const fewTiles = [
    { spec, tiles: { n: 32, k: 256 } },
    { spec, tiles: { n: 16, k: 128 } },
  ] as const;
  const manyTiles = [64, 32, 16].map(n => ({ spec, tiles: { m, n, k: 128 } })) as [{ spec: ExpertsSpec; tiles: MatmulTiles }];
  const plan = { experts, k, m, chunk: 64 };
  const [a, w, i, g, u, d, y] = [...[x, weights, indices, gate, up, down].map(n => c.arg(n)), c.own(v)] as [
    Argument,
    Argument,
    Argument,
    Argument,
    Argument,
    Argument,
    Argument,
  ];
  const h1 = c.scratch(v, 'chosen_h', [few, k, inner]);
  const entryOf = c.scratch(v, 'entry_of', [lines, 1], i32);
  const lineOf = c.scratch(v, 'line_of', [entries, 1], i32);
  const expertOf = c.scratch(v, 'expert_of', [blocks, 1], i32);
  const h = c.scratch(v, 'h', [lines, inner]);
  const z = c.scratch(v, 'z', [lines, width]);

  const at = (upTo: number | null, kernel: Kernel | null, ...args: readonly Argument[]): Variant => ({
    upTo,
    kernel,
    args,
    sizes: kernel ? [rows] : [],
  });
  const step = (last: boolean, atFew: Variant, atMany: Variant): Launch => c.launch(v, [atFew, atMany], { last });
  const idle = at(few, null);
  const fewUp = c.kernel(`experts_few_up_${word}`, expertsFewUp, ...fewTiles);
  const fewDown = c.kernel(`experts_few_down_${word}`, expertsFewDown, ...fewTiles);
  const manyUp = c.kernel(`experts_up_${word}`, expertsUp, ...manyTiles);
  const manyDown = c.kernel(`experts_down_${word}`, expertsDown, ...manyTiles);
  const combine = c.kernel(`experts_combine_${word}`, expertsCombine, { spec, m, chunk: chunkOf(width, 512) });
  return [
    step(false, idle, at(null, c.kernel(`expert_lines_${k}_of_${experts}`, expertLines, plan), entryOf)),
    step(false, idle, at(null, c.kernel(`expert_plan_${k}_of_${experts}`, expertPlan, plan), i, lineOf, entryOf, expertOf)),
    step(
      false,
      at(few, fewUp, a, i, ...(before ? [w] : []), g, u, h1),
      at(null, manyUp, a, ...(before ? [w] : []), entryOf, expertOf, g, u, h),
    ),
    step(false, at(few, fewDown, h1, i, ...(before ? [] : [w]), d, y), at(null, manyDown, h, expertOf, d, z)),
    step(true, idle, at(null, combine, z, lineOf, ...(before ? [] : [w]), y)),
  ];
}

/** The terms of a sum, through the sums that its launch takes in. */
const termsOf = (v: ValueOf<'add'>, top: Value, c: Lowering): readonly Value[] =>
  [v.inputs.a, v.inputs.b].flatMap(t => (t.op === 'add' && c.absorbs(top, t) ? termsOf(t, top, c) : [t]));

/** A head's columns are cut where the tiles end, so tile widths divide them. */
function launchQuery(v: ValueOf<'concat'>, a: ValueOf<'grouped_linear'>, c: Lowering): readonly Launch[] {
  const nope = a.inputs.x;
  if (nope.op !== 'slice') throw new Error(`${nope.name} is no slice`);
  const { groups: heads, stride, size } = a.attributes;
  const { weight } = a.inputs;
  const latent = widthOf(weight);
  const rope = widthOf(v) / heads - latent;
  const spec = { heads, nope: size, rope, stride, latent, weight: weight.type.storage };
  const sized = ({ m, n }: MatmulTiles) => ({
    ...spec,
    tiles: { m: m, n: divisorUpTo(latent, n), k: divisorUpTo(size, 128) },
  });
  return byRows(c, v, `absorb_query_${heads}x${size}x${latent}`, absorbQuery, [nope.inputs.x, weight], sized);
}

/**
 * The program of a graph: launches in the graph's order, buffers without offsets. Values that no output needs are left out. Where a chip cannot
 * hold the kernel of a fused launch, its values are launched one by one.
 */
export function chooseKernels(graph: Graph, options: LoweringOptions = {}): Program {
  const ofRank = graph.values.find(v => isRankOp(v.op));
  if (ofRank) throw new Error(`${graph.name} is the graph of a rank: there are no launches for ${ofRank.op} (${ofRank.name})`);
  const alone = new Set<Value>();
  for (;;) {
    const refused = new Set<Value>();
    const program = attempt(graph, options, alone, refused);
    if (program) return program;
    for (const v of refused) alone.add(v);
  }
}
/** null where launches were refused: of the values in `refused`, which took others in. */
function attempt(graph: Graph, options: LoweringOptions, alone: ReadonlySet<Value>, refused: Set<Value>): Program | null {
  const fused = fuse(graph, options.keep, options.unfused, alone);
  const takers = new Set(fused.values());
  const c = new Lowering(graph, options, fused);
  const values = needed(graph, Object.values(graph.outputs));
  const single = values
    .filter(v => !fused.has(v))
    .flatMap(v => {
      try {
        return (rules[v.op as Exclude<OpName, RankOp>] as (v: Value, c: Lowering) => readonly Launch[])(v, c);
      } catch (e) {
        if (!(e instanceof DoesNotFit) || !takers.has(v)) throw e;
        refused.add(v);
        return [];
      }
    });
  if (refused.size > 0) return null;
  const apart = options.unfused === 'all' || options.unfused?.includes('together') || options.keep === 'all';
  const launches = apart ? single : together(single, c);
  const weights = values.filter((v): v is ValueOf<'weight'> => v.op === 'weight');
  const states = values.filter((v): v is ValueOf<'state'> => v.op === 'state');
  const outputs = Object.fromEntries(Object.entries(graph.outputs).map(([name, v]) => [name, v.name]));
  return { graph, launches, buffers: c.buffers, arena: 0, weights, states, outputs };
}
