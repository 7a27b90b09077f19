// The experts of a model by their placement: what tells the model from others, what is asked for, and what compile writes beside engine/.
import { createHash } from 'node:crypto';
import { closeSync, existsSync, openSync } from 'node:fs';
import { join } from 'node:path';
import { type Problem, problem, Refusal } from '../ir/problem.js';
import type { Runtime } from '../targets/engine.js';
import { devicesOf, type Parallel, parallelName } from '../targets/launch.js';
import type { Target } from '../targets/target.js';
import { canonicalName } from './checkpoint/names.js';
import { readAt } from './checkpoint/safetensors.js';
import type { Checkpoint } from './checkpoint/shards.js';
import { type EnginePlan, type ExpertFiles, outputsOf } from './engine-plan.js';
import { layerOf, sourcesOf } from './logical.js';
import type { Model } from './models/index.js';
import { expertLayers, placedLayer, shardExperts } from './passes/shard-experts.js';
import { type GivenOrders, type ModelIdentity, placementFormat, readCounts } from './placement/counts.js';
import { expertMap, physicalToLogicalMap, readsExpertMap } from './placement/maps.js';
import { type Copies, type ExpertLayer, isIdentity, type Placement, type Topology } from './placement/placement.js';
import { noExperts, notLegalOrder } from './placement/problems.js';
import { orderObjections } from './placement/renumber.js';
import { indexText, type StagedTensor, staging } from './placement/staging.js';
import { type ParallelWish, placed } from './plan/parallel.js';
import { digestOf, parallelAsked } from './plan/saved.js';

const noRanks = (file: string): Problem =>
  problem('HK2729', `--experts ${file} needs ranks to deal them to`, {
    why: 'Which numbering is even depends on how many devices share the experts.',
    next: 'Add --parallel with ep above 1, as --parallel dp=16,ep=16,nodes=2.',
  });

/** The same for a model in any storage; another where its routers hold other values, so where its experts have other numbers. */
export function identityOf(c: Checkpoint, model: Model): ModelIdentity {
  const { tensors } = sourcesOf(c.config, model, c.tensors);
  const names = tensors
    .filter(t => !t.logical.mtp)
    .map(t => `${t.logical.name} [${t.logical.shape.join(',')}]\n`)
    .sort();
  const routers = new Map<number, string[]>();
  for (const t of tensors)
    if (t.logical.role === 'router' || t.logical.role === 'router_bias' || /\.tid2eid$/.test(t.logical.name))
      routers.set(t.logical.layer, [...(routers.get(t.logical.layer) ?? []), t.entry.name]);
  const hashed = [...routers].sort(([a], [b]) => a - b).map(([layer, own]) => [String(layer), routerHash(c, own)] as const);
  return {
    tensors: createHash('sha256').update(names.join('')).digest('hex'),
    routers: c.headersOnly ? {} : Object.fromEntries(hashed),
  };
}
function routerHash(c: Checkpoint, names: readonly string[]): string {
  const hash = createHash('sha256');
  for (const name of [...names].sort((a, b) => (canonicalName(a, c.config.family) < canonicalName(b, c.config.family) ? -1 : 1))) {
    const t = c.tensors.get(name)!;
    const fd = openSync(join(c.dir, t.file), 'r');
    try {
      const bytes = new Uint8Array(t.bytes[1] - t.bytes[0]);
      readAt(fd, bytes, t.bytes[0]);
      hash.update(`${canonicalName(name, c.config.family)} ${t.dtype}\n`).update(bytes);
    } finally {
      closeSync(fd);
    }
  }
  return hash.digest('hex');
}

export interface ExpertWish {
  /** `FILE[:label,…]`: a trace, counts or a placement; null: all experts count alike. */
  readonly experts: string | null;
  /** As --parallel has it. */
  readonly parallel: string | null;
  /** `map`: numbers stay, and only maps say where experts lie. */
  readonly form: 'renumber' | 'map';
  /** Ranks may hold unlike numbers of experts, where no file says how they lie: weight files for ranks take that, and engines do not. */
  readonly uneven: boolean;
}
export interface Experts {
  readonly placement: Placement;
  readonly parallel: Parallel;
  readonly identity: ModelIdentity;
  readonly layers: readonly ExpertLayer[];
  /** Old number of each new one by layer, where any moves. */
  readonly orders: ReadonlyMap<number, readonly number[]>;
  readonly files: ExpertFiles;
}

/** `FILE:label,label`; a file of that whole name goes before. */
export function fileAndLabels(asked: string): readonly [file: string, labels: readonly string[]] {
  const m = existsSync(asked) ? null : /^(.*):([^:/\\]+)$/.exec(asked);
  return m ? [m[1] as string, (m[2] as string).split(',').filter(l => l !== '')] : [asked, []];
}
/** Ranks and nodes of one stage. */
function topologyOf(p: Parallel): Topology {
  const nodes = p.nodes / p.pp;
  return { ranks: p.ep, nodes: Number.isInteger(nodes) && nodes >= 1 ? nodes : 1, redundant: p.redundant };
}
/** What --parallel says for a checkpoint. */
export const wishFor = (c: Checkpoint, text: string): ParallelWish => parallelAsked(text, () => digestOf(c.dir, 'config.json', c.files));
export const parallelFor = (c: Checkpoint, text: string): Parallel => placed(wishFor(c, text), null);
const parts = (experts: number, ranks: number): number => {
  let n = Math.min(experts, ranks);
  while (experts % n) n--;
  return n;
};

/** Where experts go, before a byte is written; null where nothing is asked for, or there are no ranks or no experts to deal. */
export function planExperts(c: Checkpoint, model: Model, wish: ExpertWish): Experts | null {
  if (wish.experts === null && wish.parallel === null) return null;
  const layers = expertLayers(model.graph);
  if (layers.length === 0) {
    if (wish.experts !== null) throw new Refusal([noExperts(c.config.modelType)]);
    return null;
  }
  const [file, labels] = wish.experts === null ? [null, []] : fileAndLabels(wish.experts);
  const parallel = wish.parallel === null ? null : parallelFor(c, wish.parallel);
  if (parallel === null || parallel.ep === 1) {
    if (file !== null) throw new Refusal([noRanks(file)]);
    return null;
  }
  const t = topologyOf(parallel);
  // no placement then: experts keep their numbers, and ranks take runs of them
  if (wish.uneven && file === null && t.redundant === 0 && layers.some(l => l.experts % t.ranks)) return null;
  const identity = identityOf(c, model);
  const counts = file === null ? null : readCounts(file, labels, identity, layers, c.config.layers);
  const placement =
    counts !== null && 'oldOf' in counts
      ? given(file as string, counts, layers, shardExperts(model.graph, null, t, wish.form))
      : shardExperts(model.graph, counts, t, wish.form);
  const moved = placement.layers.filter(l => !isIdentity(l.oldOf));
  const experts = layers[0]!.experts;
  return {
    placement,
    parallel,
    identity,
    layers,
    orders: new Map(moved.map(l => [l.layer, l.oldOf])),
    files: { parts: parts(experts, t.ranks), experts },
  };
}
/** Numberings from a file in place of those that counts would give. */
function given(file: string, g: GivenOrders, layers: readonly ExpertLayer[], uniform: Placement): Placement {
  const wrong = layers.flatMap(l => {
    const oldOf = g.oldOf.get(l.layer);
    return oldOf ? orderObjections(oldOf, l.experts, l.groups).map(s => `Layer ${l.layer}: ${s}`) : [];
  });
  const known = new Set(layers.map(l => l.layer));
  const other = [...g.oldOf.keys()].filter(l => !known.has(l));
  if (other.length) wrong.push(`Layers ${other.slice(0, 4).join(', ')} have no experts in this model.`);
  if (wrong.length) throw new Refusal([notLegalOrder(file, wrong)]);
  return {
    ...uniform,
    from: `${file.replace(/^.*[/\\]/, '')}, loads not known`,
    layers: layers.map(l => placedLayer(l, null, uniform.topology, 'renumber', g.oldOf.get(l.layer))),
  };
}

/** Bytes a value takes out to an expert and back: bf16 both ways. Engines that send fp8 out send less. */
const bytesBothWays = 4;
const figures = (x: { readonly load: unknown; readonly copies: Copies }, hidden: number) => {
  const bytes = (n: number): number => Math.round(n * hidden * bytesBothWays);
  const { inside, between, betweenOnce } = x.copies;
  return { ...x, bytesPerToken: { inside: bytes(inside), between: bytes(between), betweenOnce: bytes(betweenOnce) } };
};
/** Mean over layers, of the model without MTP blocks. */
export function summary(e: Experts, main: number) {
  const of = (which: 'before' | 'after') => {
    const some = e.placement.layers.filter(l => l.layer < main);
    const mean = (f: (l: (typeof some)[number]) => number): number => some.reduce((n, l) => n + f(l), 0) / some.length;
    const bytes = (k: keyof Copies): number =>
      Math.round(some.reduce((n, l) => n + l[which].copies[k] * bytesBothWays * e.layers.find(x => x.layer === l.layer)!.hidden, 0));
    return {
      load: { mean: mean(l => l[which].load.ranks), most: Math.max(...some.map(l => l[which].load.ranks)) },
      bytesPerToken: { inside: bytes('inside'), between: bytes('between'), betweenOnce: bytes('betweenOnce') },
    };
  };
  return { before: of('before'), after: of('after') };
}
/** What a person should know of it. */
export function expertNotes(e: Experts, main: number): readonly string[] {
  const { before, after } = summary(e, main);
  const { placement: p } = e;
  const even = (x: typeof before): string => `${x.load.mean.toFixed(2)} (${x.load.most.toFixed(2)} in the worst layer)`;
  const count = (n: number): string => String(n).replace(/\B(?=(\d{3})+$)/g, ',');
  const sent = ({ bytesPerToken: b }: typeof before): string =>
    `${count(b.inside)} bytes inside ${e.parallel.nodes > 1 ? 'nodes' : 'the node'}${
      e.parallel.nodes > 1 ? `, ${count(b.between)} between them (${count(b.betweenOnce)} by engines that send once a node)` : ''
    }`;
  const moved = e.orders.size ? `Experts of ${e.orders.size} layers are renumbered` : 'Experts keep their numbers';
  if (p.from === 'uniform') return [`${moved}: no counts were given, so all count alike (${parallelName(e.parallel)}).`];
  return [
    `${moved} for ${parallelName(e.parallel)} by ${p.from}: the heaviest rank's load is ${even(after)} times the mean; before ${even(before)}.`,
    `Over all layers a token sends and gets ${sent(after)}; before ${sent(before)}; bf16, ${p.layers.every(l => l.copiesFrom === 'sets') ? 'counted from traced tokens' : 'as if experts were chosen one by one'}.`,
  ];
}

/** Names of the maps in engine/, by the engine that reads each; MindIE reads the one of vllm-ascend. */
export const expertMaps = { sglang: 'sglang-expert-location.json', 'vllm-ascend': 'expert-map.json' } as const;
export interface PlacementFile {
  /** Inside the target's directory: maps that engines read lie beside the weights. */
  readonly path: string;
  readonly text: string;
}
const json = (v: unknown): string => `${JSON.stringify(v, null, 1).replace(/\[[\s\d,]+\]/g, list => list.replace(/\s+/g, ' '))}\n`;
const isMapped = (p: Placement): boolean => p.layers.some(l => l.placed.length !== l.oldOf.length || !isIdentity(l.placed));
/** The maps of experts that a target's engines read, where the order of numbers does not say it all. */
export function engineMaps(e: Experts, layers: number, runtime: Runtime | null, target: Target): readonly PlacementFile[] {
  if (!isMapped(e.placement)) return [];
  const reads = (engine: string): boolean => Object.hasOwn(target.engines.runtimes, engine) && (runtime?.name ?? engine) === engine;
  const file = (engine: keyof typeof expertMaps, map: unknown): PlacementFile => ({
    path: `engine/${expertMaps[engine]}`,
    text: `${JSON.stringify(map)}\n`,
  });
  return [
    ...(reads('sglang') ? [file('sglang', physicalToLogicalMap(e.placement, layers))] : []),
    ...((reads('vllm-ascend') && (runtime === null || readsExpertMap(runtime.version))) || runtime?.name === 'mindie'
      ? [file('vllm-ascend', expertMap(e.placement, layers))]
      : []),
  ];
}
/** placement/, and in engine/ the maps. Maps where they say more than the order of numbers does; staging where weights lie in files by rank. */
export function* placementFiles(
  e: Experts,
  plan: EnginePlan,
  byRank: boolean,
  c: Checkpoint,
  runtime: Runtime | null,
  target: Target,
): Generator<PlacementFile> {
  const main = c.config.layers;
  const { placement: p, parallel } = e;
  const hidden = new Map(e.layers.map(l => [l.layer, l]));
  const mapped = isMapped(p);
  yield {
    path: 'placement/placement.json',
    text: json({
      format: placementFormat,
      model: e.identity,
      parallel,
      from: p.from,
      all: summary(e, main),
      layers: p.layers.map(l => ({
        layer: l.layer,
        groups: hidden.get(l.layer)!.groups,
        oldOf: l.oldOf,
        ...(mapped ? { placed: l.placed } : {}),
        before: figures(l.before, hidden.get(l.layer)!.hidden),
        after: figures(l.after, hidden.get(l.layer)!.hidden),
        copiesFrom: l.copiesFrom,
      })),
    }),
  };
  yield* engineMaps(e, main, runtime, target);
  if (!byRank) return;
  const tensors: StagedTensor[] = [];
  for (const { name, file, size } of outputsOf(plan)) {
    const expert = /\.experts\.(\d+)\./.exec(name)?.[1];
    tensors.push({ name, file, size, layer: layerOf(name, main), expert: expert === undefined ? null : Number(expert) });
  }
  tensors.sort((a, b) => (a.name < b.name ? -1 : 1));
  const machines = { nodes: parallel.nodes, devicesPerNode: devicesOf(parallel) / parallel.nodes, ranks: parallel.ep };
  const nodes = staging(tensors, new Map(plan.files.map(f => [f.path, f.size])), p, machines, main);
  yield {
    path: 'placement/staging.json',
    text: json({
      format: 'hkgai-staging-1',
      about:
        'Each node needs these weight files of engine/, every other file of it but model.safetensors.index.json, and its index under that name.',
      parallel,
      nodes: nodes.map(({ node, ranks, files, bytes }) => ({ node, ranks, files, bytes, index: `node-${node}.index.json` })),
    }),
  };
  for (const n of nodes) yield { path: `placement/node-${n.node}.index.json`, text: indexText(n.files, tensors) };
}
