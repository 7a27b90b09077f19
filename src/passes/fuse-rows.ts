// Launches of rows that go through several steps while they are held: chains, sums and streams with their norm, routers.
import type { Dim, Value, ValueOf } from '../../ir/graph.js';
import type { Argument, Launch } from '../../ir/program.js';
import { f32 } from '../../ir/storage.js';
import { type HcNormSpec, hcNorm } from '../kernels/hyper-connections.js';
import { type RouteSpec, route } from '../kernels/route.js';
import { type PartSpec, type RowsSpec, rowsThrough, type StepSpec } from '../kernels/rows.js';
import type { Chain, RowOp } from './fuse-chain.js';
import { tableOf, turnOf } from './fuse-products.js';
import { always, chunkOf, rowsOf } from './launches.js';
import { divisorUpTo, type Lowering, widthOf } from './lowering.js';

/** What v's launch takes in. */
export const takenBy =
  (v: Value, c: Lowering): ((x: Value) => boolean) =>
  x =>
    c.absorbs(v, x);

/** Rows through their steps, into a buffer of v's or, where an entry is kept for `every` positions, a state. */
export function launchRows(v: Value, chains: readonly Chain[], every: number | null, c: Lowering): readonly Launch[] {
  const parts = chains.map((p): PartSpec => {
    const columns = widthOf(p.source);
    const table = p.gather ? c.limit(p.source.type.shape[0] as Dim) : null;
    const storage = p.source.type.storage;
    const from = p.slice?.attributes.from ?? 0;
    return { columns, from, storage, table, added: false, heads: p.heads, width: p.width, steps: p.steps.map(stepOf) };
  });
  const into = every === null ? null : { state: c.state(v), every };
  const append = v.op === 'append' ? v : null;
  const rope = chains.flatMap(p => p.steps).find(s => s.op === 'rope') as ValueOf<'rope'> | undefined;
  const positions = append?.inputs.positions ?? rope?.inputs.positions;
  const rows = append ? rowsOf(append.inputs.rows) : rowsOf(v);
  const args = [
    ...chains.flatMap(p => [c.arg(p.source), ...(p.gather ? [c.arg(p.gather.inputs.ids)] : []), ...p.steps.flatMap(s => besideStep(s, c))]),
    ...(positions ? [c.arg(positions)] : []),
    ...(append ? [c.arg(append.inputs.sequences)] : []),
    append ? c.arg(append) : c.own(v),
  ];
  const heads = parts[0]?.heads ?? 1;
  const blocks = parts.length > 1 ? [heads] : [divisorUpTo(heads, 16), divisorUpTo(heads, 4), 1];
  const candidates = blocks.map((block): RowsSpec => ({ parts, into, block })) as [RowsSpec, ...RowsSpec[]];
  const word = parts.map(p => `${p.heads}x${p.width}`).join('_');
  const kernel = c.kernel(`${into ? 'cache' : 'rows'}_${word}`, rowsThrough, ...candidates);
  return [c.launch(v, always(kernel, args, [rows]), { rows })];
}
function stepOf(s: RowOp): StepSpec {
  switch (s.op) {
    case 'rms_norm':
      return { step: 'rms_norm', eps: s.attributes.eps, weight: s.inputs.weight?.type.storage ?? null };
    case 'layer_norm':
      return { step: 'layer_norm', eps: s.attributes.eps, weight: s.inputs.weight.type.storage, bias: s.inputs.bias.type.storage };
    case 'rope':
      return { step: 'rope', ...turnOf(s) };
    case 'hadamard':
      return { step: 'hadamard', width: s.attributes.width };
    case 'fake_quant': {
      const { heads: _, ...code } = s.attributes;
      return { step: 'fake_quant', ...code };
    }
  }
}
/** What a step reads beside the row. */
function besideStep(s: RowOp, c: Lowering): readonly Argument[] {
  if (s.op === 'rms_norm') return s.inputs.weight ? [c.arg(s.inputs.weight)] : [];
  if (s.op === 'layer_norm') return [c.arg(s.inputs.weight), c.arg(s.inputs.bias)];
  return s.op === 'rope' ? [tableOf(s, c)] : [];
}

/** A sum and its norm, both written. */
export function launchSumNorm(v: ValueOf<'rms_norm'>, sum: ValueOf<'add'>, c: Lowering): readonly Launch[] {
  const width = widthOf(v);
  const { weight } = v.inputs;
  const { eps } = v.attributes;
  const { a, b } = sum.inputs;
  const step = { step: 'rms_norm', eps, weight: weight?.type.storage ?? null } as const;
  const part: PartSpec = { columns: width, from: 0, storage: f32, table: null, added: true, heads: 1, width, steps: [step] };
  const kernel = c.kernel(`sum_norm_${width}`, rowsThrough, { parts: [part], into: null, block: 1 });
  const w = weight ? [c.arg(weight)] : [];
  return [c.launch(v, always(kernel, [c.arg(a), c.arg(b), ...w, c.own(sum), c.own(v)], [rowsOf(v)]), { also: [sum] })];
}

/** Streams on their way into a sublayer. */
export function launchStreamNorm(v: ValueOf<'rms_norm'>, pre: ValueOf<'hc_pre'>, c: Lowering): readonly Launch[] {
  const { x, weights } = pre.inputs;
  const width = widthOf(v);
  const { weight } = v.inputs;
  const split = weights.op === 'hc_split' && c.absorbs(v, weights) ? weights : null;
  const gate = weights.op === 'hc_gate' && c.absorbs(v, weights) ? weights : null;
  const from = split ?? gate;
  const storages = from && { scale: from.inputs.scale.type.storage, base: from.inputs.base.type.storage };
  const by: HcNormSpec['weights'] =
    split && storages
      ? { by: 'split', ...split.attributes, ...storages }
      : gate && storages
        ? { by: 'gate', eps: gate.attributes.eps, ...storages }
        : { by: 'rows', columns: widthOf(weights) };
  const { streams } = pre.attributes;
  const spec = { streams, width, weights: by, eps: v.attributes.eps, weight: weight?.type.storage ?? null };
  const candidates = [2048, 512, 128].map(most => ({ ...spec, chunk: chunkOf(width, most) })) as [HcNormSpec, ...HcNormSpec[]];
  const kernel = c.kernel(`hc_norm_${streams}x${width}`, hcNorm, ...candidates);
  const args = [
    c.arg(x),
    ...(from ? [c.arg(from.inputs.mix), c.arg(from.inputs.scale), c.arg(from.inputs.base)] : [c.arg(weights)]),
    ...(weight ? [c.arg(weight)] : []),
    ...(split ? [c.own(split)] : []),
    c.own(v),
  ];
  return [c.launch(v, always(kernel, args, [rowsOf(v)]), split ? { also: [split] } : {})];
}

/** A router: scores, experts chosen or looked up, their weights. */
export function launchRoute(v: ValueOf<'expert_weights'>, scores: ValueOf<'router_scores'>, c: Lowering): readonly Launch[] {
  const { indices } = v.inputs;
  const { logits } = scores.inputs;
  const experts = widthOf(scores);
  const taken = c.absorbs(v, indices);
  const chosen = taken && indices.op === 'choose_experts' ? indices : null;
  const table = taken && indices.op === 'gather' ? indices.inputs.table : null;
  const bias = chosen?.inputs.bias;
  const whole = { groups: 1, keep: 1, by: 'max', k: widthOf(indices) } as const;
  const spec: RouteSpec = {
    ...(chosen?.attributes ?? whole),
    ...v.attributes,
    f: scores.attributes.f,
    experts,
    bias: bias?.type.storage ?? null,
    given: chosen ? null : table ? { table: table.type.shape[0] as number, storage: table.type.storage } : { rows: true },
  };
  const asked = chosen ? (bias ? [bias] : []) : table && indices.op === 'gather' ? [table, indices.inputs.ids] : [indices];
  const name = `${chosen ? 'route' : table ? 'route_by_token' : 'route_given'}_${spec.k}_of_${experts}`;
  const kernel = c.kernel(name, route, spec);
  const args = [...[logits, ...asked].map(n => c.arg(n)), ...(taken ? [c.own(indices)] : []), c.own(v)];
  return [c.launch(v, always(kernel, args, [rowsOf(v)]), taken ? { also: [indices] } : {})];
}
