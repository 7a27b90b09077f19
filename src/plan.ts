import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { type Form, formName, ggufRow } from '../ir/form.js';
import { notThere, type Problem, Refusal } from '../ir/problem.js';
import { elements, matrixBytes, type Storage, storageName } from '../ir/storage.js';
import { dtypeBytes, type EngineFormat, type LogicalTensor, type Recipe, type Runtime } from '../targets/engine.js';
import { devicesOf } from '../targets/launch.js';
import type { Chip, Device, PeakKind, Target } from '../targets/target.js';
import { type ModelConfig, parseConfig } from './checkpoint/config.js';
import { canonicalName } from './checkpoint/names.js';
import { dtypeBits, type TensorEntry } from './checkpoint/safetensors.js';
import { openCheckpoint } from './checkpoint/shards.js';
import { resolveTarget, runtimeNames, runtimeOf, unknownFormat, unknownRuntime } from './compile.js';
import { formatOf } from './conformance.js';
import { logicalTensor, type SourceTensor } from './logical.js';
import { buildModel, expectedTensors } from './models/index.js';
import { assumptions, usual } from './plan/assumptions.js';
import type { KvStorage } from './plan/cache.js';
import { checkParallel } from './plan/legal.js';
import { attentionOf, cacheOf, cutOf, type LayerKind, type ModelShape, type Part } from './plan/model.js';
import { placed } from './plan/parallel.js';
import * as problems from './plan/problems.js';
import { type Demand, deviceCounts, type Goal, type Listed, listRows, order, type Row, rowOf } from './plan/rows.js';
import { digestOf, type ModelDigest, parallelAsked } from './plan/saved.js';
import type { Drafts } from './plan/time.js';
import { deviceWith, parseTopology, type Topology } from './plan/topology.js';
import { findRecipe, resolve } from './recipe.js';

export { resolveTarget } from './compile.js';
export type { KvStorage } from './plan/cache.js';
export { checkParallel } from './plan/legal.js';
export type { ModelShape } from './plan/model.js';
export { type ParallelWish, parallelOf, placed } from './plan/parallel.js';
export { needsDevices, optionClash } from './plan/problems.js';
export { type Goal, goals, type Row } from './plan/rows.js';
export { digestOf, type ModelDigest, parallelAsked } from './plan/saved.js';

export interface Described {
  readonly name: string;
  readonly digest: ModelDigest;
  readonly config: ModelConfig;
  /** By the name in the files. */
  readonly tensors: ReadonlyMap<string, TensorEntry>;
  /** Where config.json lies; null where another file was named. */
  readonly dir: string | null;
  readonly notes: readonly string[];
}

/** A directory with config.json, with or without shards (headers alone will do), or a config.json. */
export function describeModel(path: string, allowPhantomKeys = false): Described {
  if (!existsSync(path)) throw new Refusal([notThere(path)]);
  const isFile = statSync(path).isFile();
  const bare = isFile || !readdirSync(path).some(f => f.endsWith('.safetensors') || f.endsWith('.safetensors.index.json'));
  const dir = isFile ? dirname(path) : path;
  const configFile = isFile ? basename(path) : 'config.json';
  const name = isFile && configFile !== 'config.json' ? configFile.replace(/\.json$/, '') : basename(dir);
  if (!bare || !existsSync(join(dir, configFile))) {
    const c = openCheckpoint(path, { headersOnly: true, allowPhantomKeys });
    return { name, digest: digestOf(dir, configFile, c.files), config: c.config, tensors: c.tensors, dir, notes: [] };
  }
  const config = parseConfig(readFileSync(join(dir, configFile), 'utf8'), configFile);
  const tensors = new Map<string, TensorEntry>();
  let at = 0;
  for (const t of expectedTensors(config)) {
    // releases carry the copies that MTP blocks make of embedding and head, and no copy where the two are one
    if (t.optional && config.tied && t.name === 'lm_head.weight') continue;
    const bytes = t.shape.reduce((n, d) => n * d, dtypeBits[t.dtype as keyof typeof dtypeBits]) / 8;
    tensors.set(t.name, {
      name: t.name,
      dtype: t.dtype as TensorEntry['dtype'],
      shape: t.shape,
      file: configFile,
      bytes: [at, at + bytes],
    });
    at += bytes;
  }
  const notes = ['No weights are there: dtypes are those of the release that config.json speaks of.'];
  return { name, digest: digestOf(dir, configFile, []), config, tensors, dir: configFile === 'config.json' ? dir : null, notes };
}

export interface PlanOptions {
  /** target or target:chip. */
  readonly target: string;
  readonly quantise: string | null;
  readonly format: string | null;
  readonly runtime: string | null;
  readonly mtp: 'keep' | 'quantise' | 'drop' | null;
  /** Topology file. */
  readonly topology: string | null;
  readonly devices: number | null;
  readonly nodes: number | null;
  /** One way alone. */
  readonly parallel: string | null;
  readonly goal: Goal;
  readonly context: number | null;
  readonly prompt: number | null;
  readonly batch: number | null;
  readonly kv: KvStorage;
  readonly redundant: number | null;
  /** Tokens that the MTP block proposes a step and how many are taken, `1:0.7`; null: it is not used. */
  readonly drafts: string | null;
  /** Tokens of the busiest rank of experts over the mean, as a placement says; null: assumed. */
  readonly imbalance: number | null;
  /** Watts of a device, price of an hour: a number, or `target:chip=number` for some. */
  readonly power: readonly string[];
  readonly price: readonly string[];
}
export interface DeploymentPlan {
  readonly format: 'hkgai-plan-1';
  readonly model: {
    readonly name: string;
    readonly family: string;
    readonly digest: ModelDigest;
    readonly bytes: number;
    readonly layers: number;
  };
  readonly target: string;
  readonly engine: string;
  readonly runtime: string | null;
  readonly recipe: string;
  readonly topology: string | null;
  readonly devices: number;
  readonly nodes: number;
  readonly goal: Goal;
  readonly context: number;
  readonly prompt: number;
  readonly kv: KvStorage;
  readonly rows: readonly Row[];
  readonly left: Listed['left'];
  readonly assumed: readonly {
    readonly name: string;
    readonly value: number;
    readonly unit: string;
    readonly about: string;
    readonly source: string;
  }[];
  readonly notes: readonly string[];
}

const assumedOf = (o: Pick<PlanOptions, 'imbalance'>): DeploymentPlan['assumed'] =>
  Object.entries(assumptions).map(([name, a]) =>
    name === 'imbalance' && o.imbalance !== null ? { name, ...a, value: o.imbalance, source: '--imbalance' } : { name, ...a },
  );

// ---- what is written: recipe and format as compile chooses them, and the parts of the model in those forms

interface Written {
  readonly target: Target;
  readonly chip: Chip;
  readonly recipe: Recipe;
  readonly format: EngineFormat;
  readonly runtime: Runtime | null;
}
export type WrittenOptions = Pick<PlanOptions, 'target' | 'quantise' | 'format' | 'runtime' | 'mtp'>;
function writtenAs(d: Described, o: WrittenOptions): Written {
  const { target, chip } = resolveTarget(o.target);
  const { engines } = target;
  const runtime = runtimeOf(target, o.runtime);
  if (o.runtime && runtime === null) throw new Refusal([unknownRuntime(o.runtime, runtimeNames(target))]);
  const reads = runtime ? engines.runtimes[runtime.name] : undefined;
  const usualRecipe = reads?.recipe ?? engines.recipe;
  const recipe = findRecipe(o.quantise ?? usualRecipe, target.name, engines, o.mtp ? { mtp: o.mtp } : {});
  const named = (name: string | undefined): EngineFormat | undefined => engines.formats.find(f => f.name === name);
  const own = named(recipe.engine) ? recipe.engine : undefined;
  const usualFormat = own ?? engines.formatOf[o.quantise ?? usualRecipe];
  const asked = o.format ?? (reads && !reads.formats.includes(usualFormat ?? '') ? reads.formats[0] : usualFormat);
  const passedOn = (): EngineFormat =>
    d.dir !== null
      ? formatOf(d.dir, target)
      : ((d.config.quantisation.kind === 'fp8' ? named('fp8') : undefined) ?? (engines.formats[0] as EngineFormat));
  const format = asked ? named(asked) : recipe.name === 'none' ? passedOn() : engines.formats[0];
  if (!format) throw new Refusal([unknownFormat(target, o.format as string)]);
  if (format.pack) throw new Refusal([problems.notSpread(format.name)]);
  return { target, chip, recipe, format, runtime };
}

/** A tensor that stands for itself, or for the same one of every expert. */
interface Stand extends SourceTensor {
  readonly count: number;
}
function standsOf(d: Described, each: boolean): readonly Stand[] {
  const { graph, unused } = buildModel(d.config, d.tensors);
  const out: Stand[] = [];
  const seen = new Set<string>();
  const put = (tensor: string, shape: readonly number[], storage: Storage, part: SourceTensor['part'], count: number): void => {
    const entry = d.tensors.get(tensor) as TensorEntry;
    const name = canonicalName(tensor, d.config.family).replace(/\.weight_packed$/, '.weight');
    const beside = tensor.endsWith('weight_packed') ? d.tensors.get(tensor.replace(/weight_packed$/, 'weight_shape')) : undefined;
    const scale = part.scale ? d.tensors.get(part.scale.tensor) : undefined;
    const more = [...(scale ? [scale] : []), ...(beside ? [beside] : [])];
    out.push({ logical: logicalTensor(name, shape, d.config.layers), part, storage, entry, with: more, count });
  };
  for (const v of graph.values) {
    if (v.op !== 'weight') continue;
    const shape = v.type.shape as readonly number[];
    const stacked = shape.length === 3;
    const [first, ...others] = v.origin.parts;
    if (!first || seen.has(first.tensor)) continue;
    seen.add(first.tensor);
    const own = stacked ? shape.slice(1) : shape;
    put(first.tensor, own, v.type.storage, first, each ? 1 : 1 + others.length);
    if (each) for (const p of others) put(p.tensor, own, v.type.storage, p, 1);
  }
  // what no program of ours reads goes on all the same: the drafters of some releases
  for (const u of unused) {
    const t = d.tensors.get(u.tensor);
    if (!t || seen.has(t.name)) continue;
    const element = {
      F32: 'f32',
      BF16: 'bf16',
      F16: 'f16',
      I64: 'i64',
      I32: 'i32',
      I8: 'i8',
      U8: 'u8',
      F8_E4M3: 'f8e4m3',
      F8_E8M0: 'e8m0',
    }[t.dtype as string];
    const name = canonicalName(t.name, d.config.family);
    const logical = { ...logicalTensor(name, t.shape, d.config.layers), matrix: false };
    const storage: Storage = { kind: 'plain', element: (element ?? 'u8') as 'u8' };
    out.push({ logical, part: { tensor: t.name, file: t.file, bytes: t.bytes }, storage, entry: t, with: [], count: 1 });
  }
  return out;
}

const product = (shape: readonly number[]): number => shape.reduce((n, d) => n * d, 1);
/** Bytes of a tensor of another shape in the same form. */
function bytesIn(s: Stand, form: Form, format: EngineFormat, family: string): (shape: readonly number[]) => number {
  const make = (shape: readonly number[]): number => {
    const [rows, columns] = shape.length === 2 ? (shape as readonly [number, number]) : [1, product(shape)];
    switch (form.kind) {
      case 'keep': {
        const extra = s.with.filter(w => w.name !== s.part.scale?.tensor).reduce((n, w) => n + w.bytes[1] - w.bytes[0], 0);
        if (s.storage.kind === 'plain') return product(shape) * (elements[s.storage.element].bits / 8);
        const b = matrixBytes(s.storage, rows, columns);
        return b.codes + b.scales + extra;
      }
      case 'plain':
        return product(shape) * (elements[form.element].bits / 8);
      case 'gguf':
        return rows * ggufRow(form.type, columns);
      case 'coded':
        return format.stored({ ...s.logical, shape }, form, family).reduce((n, p) => {
          // sums over runs of inputs go with those inputs
          const part = p.what.kind === 'sums' && p.what.chunks > 1 ? columns / (s.logical.shape[1] as number) : 1;
          return n + product(p.shape) * (dtypeBytes[p.dtype] as number) * part;
        }, 0);
    }
  };
  const made = new Map<string, number>();
  return shape => {
    const key = shape.join();
    const there = made.get(key) ?? make(shape);
    made.set(key, there);
    return there;
  };
}
/** What a multiplication by a matrix in this form runs in. */
function multiplyKind(t: LogicalTensor, form: Form, storage: Storage, activations: Recipe['activations']): PeakKind | null {
  if (t.shape.length !== 2 || ['embedding', 'table', 'bias', 'norm', 'hyper', 'router_bias'].includes(t.role)) return null;
  const element = form.kind === 'coded' ? form.element : form.kind === 'keep' && storage.kind === 'scaled' ? storage.element : null;
  switch (element) {
    case null:
      return 'bf16';
    case 'i8':
    case 'i4':
      return activations === 'int8' ? 'int8' : 'bf16';
    // DeepSeek's own kernels and those of engines quantise the activations, fp4 experts' too (facts in docs/estimates.md)
    case 'f8e4m3':
    case 'f4e2m1':
      return 'fp8';
  }
}
/** Rows and columns that stay together when a matrix in this form is cut. */
function unitsOf(form: Form, storage: Storage): readonly [rows: number, columns: number] {
  const block = form.kind === 'coded' ? form.block : form.kind === 'keep' && storage.kind === 'scaled' ? storage.block : null;
  if (!block) return [1, 1];
  const element = form.kind === 'coded' ? form.element : storage.element;
  const pairs = form.kind === 'coded' && form.layout === 'row-pairs';
  const packed = element === 'i4' && !pairs ? 8 : element === 'f4e2m1' ? 2 : 1;
  return [pairs ? 2 : block[0], Math.max(block[1], packed)];
}

/** The model in the forms that it would be written in. */
export function shapeOf(
  d: Described,
  o: WrittenOptions,
): { readonly shape: ModelShape; readonly written: Written; readonly notes: readonly string[] } {
  const w = writtenAs(d, o);
  const c = d.config;
  // a rule that names one expert tells experts apart
  const each = w.recipe.rules.some(r => r.tensors !== undefined && /experts\.[\d*]/.test(r.tensors) && !/experts\.\*\./.test(r.tensors));
  const stands = standsOf(d, each);
  const engineModel = { modelType: c.family, layers: c.layers, tensors: stands.map(s => s.logical) };
  const chosen = resolve(w.recipe, stands, w.format, engineModel, w.target.name, w.chip.name, w.runtime, false);
  const byLayer = new Map<number, { readonly part: Part; readonly key: string }[]>();
  let bytes = 0;
  for (const x of chosen.chosen) {
    const s = x.source as Stand;
    const t = s.logical;
    const written = bytesIn(s, x.form, w.format, c.family);
    const [rowUnit, columnUnit] = unitsOf(x.form, s.storage);
    const form = x.form.kind === 'keep' ? storageName(s.storage) : formName(x.form);
    const part: Part = {
      name: t.name,
      role: t.role,
      shape: t.shape,
      count: s.count,
      expert: t.role === 'expert',
      cut: cutOf(t.role, t.name),
      rowUnit,
      columnUnit,
      form,
      multiply: multiplyKind(t, x.form, s.storage, w.recipe.activations),
      absorbed: t.role === 'kv_b' && unitsOf(x.form, s.storage).some(u => u > 1),
      bytes: written,
    };
    bytes += s.count * written(t.shape);
    const key = `${t.name.replace(/^(model\.)?layers\.\d+\./, '*.').replace(/^mtp\.\d+\./, 'mtp.')} ${t.shape.join('x')} ${s.count} ${form}`;
    byLayer.get(t.layer)?.push({ part, key }) ?? byLayer.set(t.layer, [{ part, key }]);
  }
  const outside = (byLayer.get(-1) ?? []).map(x => x.part);
  const kinds = new Map<string, { readonly index: number; readonly kind: LayerKind }>();
  const layerKinds: number[] = [];
  for (const layer of [...byLayer.keys()].filter(l => l >= 0).sort((a, b) => a - b)) {
    const parts = byLayer.get(layer) ?? [];
    const cache = cacheOf(c, layer);
    const key = `${JSON.stringify(cache)}\n${parts.map(p => p.key).join('\n')}`;
    const there = kinds.get(key) ?? {
      index: kinds.size,
      kind: { parts: parts.map(p => p.part), cache, attention: attentionOf(c), experts: parts.some(p => p.part.expert) },
    };
    kinds.set(key, there);
    layerKinds.push(there.index);
  }
  const grouped = 'groups' in c && c.topkMethod !== 'greedy';
  const shape: ModelShape = {
    family: c.family,
    hidden: c.hidden,
    vocab: c.vocab,
    heads: c.heads,
    maxPositions: c.maxPositions,
    outputGroups: c.family === 'deepseek_v4' ? c.oGroups : null,
    layers: c.layers,
    kinds: [...kinds.values()].map(k => k.kind),
    layerKinds,
    first: outside.filter(p => p.role === 'embedding'),
    last: outside.filter(p => p.role !== 'embedding'),
    routed:
      'experts' in c
        ? {
            experts: c.experts,
            topK: c.topK,
            groups: grouped ? c.groups : 1,
            topGroups: grouped ? c.topGroups : 1,
            inner: c.moeIntermediate,
          }
        : null,
    bytes,
  };
  return { shape, written: w, notes: chosen.notes };
}

// ---- the plan

/** A number for every chip, or `target:chip=number` for some. */
function perChip(words: readonly string[], chip: string, option: string, known: readonly string[]): number | null {
  let every: number | null = null;
  let own: number | null = null;
  for (const word of words) {
    const [before = '', after, ...more] = word.split('=');
    const text = after ?? before;
    const n = text.trim() === '' ? Number.NaN : Number(text);
    if (!(n >= 0) || !Number.isFinite(n) || more.length)
      throw new Refusal([
        problems.optionClash(`${option} ${word}: a number, or target:chip=number, was expected`, 'Write 0.5, or cuda:h20=0.5.'),
      ]);
    if (after === undefined) every = n;
    else if (before === chip) own = n;
    else if (!known.includes(before))
      throw new Refusal([
        problems.optionClash(`${option} ${word}: the plan is of ${known.join(', ')}, not of ${before}`, 'Name one of these.'),
      ]);
  }
  return own ?? every;
}
const labelOf = (target: Target, chip: Chip): string => `${target.name}:${chip.name}`;

interface Scene {
  readonly device: Device;
  readonly topology: Topology | null;
}
function sceneOf(target: Target, chip: Chip, label: string, topologyFile: string | null): Scene {
  if (topologyFile !== null && !existsSync(topologyFile)) throw new Refusal([notThere(topologyFile)]);
  const topology = topologyFile === null ? null : parseTopology(readFileSync(topologyFile, 'utf8'), topologyFile);
  const device = deviceWith(chip.device ?? null, topology);
  if (!device)
    throw new Refusal([
      problems.noDevice(
        label,
        target.chips.filter(c => c.family === chip.name && c.device).map(c => labelOf(target, c)),
      ),
    ]);
  return { device, topology };
}
function draftsOf(text: string, c: ModelConfig): Drafts {
  const m = /^([1-9]\d?)(?::(\d+(?:\.\d+)?))?$/.exec(text);
  const proposed = Number(m?.[1]);
  const taken = m?.[2] === undefined ? proposed : Number(m[2]);
  if (!m || taken > proposed)
    throw new Refusal([
      problems.optionClash(`--drafts ${text} is not proposed:taken`, 'Write 1:0.7 for one token a step, of which 0.7 are taken.'),
    ]);
  if (!('mtpLayers' in c) || c.mtpLayers === 0)
    throw new Refusal([problems.optionClash('--drafts needs an MTP block, and the model has none', 'Leave it out.')]);
  return { proposed, taken };
}
function demandOf(o: PlanOptions, c: ModelConfig, label: string, known: readonly string[]): Demand {
  const context = o.context ?? Math.min(8192, c.maxPositions);
  if (context > c.maxPositions) throw new Refusal([problems.contextBeyond(context, c.maxPositions)]);
  const prompt = Math.min(o.prompt ?? Math.max(1, Math.floor(context / 2)), context);
  return {
    goal: o.goal,
    context,
    prompt,
    batch: o.batch,
    kv: o.kv,
    drafts: o.drafts === null ? null : draftsOf(o.drafts, c),
    redundant: o.redundant,
    power: perChip(o.power, label, '--power', known),
    price: perChip(o.price, label, '--price', known),
    assumed: o.imbalance === null ? usual : { ...usual, imbalance: o.imbalance },
  };
}

/** Every legal way to spread a model over so many devices, best first. */
export function deploymentPlan(d: Described, o: PlanOptions): DeploymentPlan {
  const { shape, written, notes } = shapeOf(d, o);
  const label = labelOf(written.target, written.chip);
  const { device, topology } = sceneOf(written.target, written.chip, label, o.topology);
  const demand = demandOf(o, d.config, label, [label]);
  const perNode = topology?.devicesPerNode ?? device.perNode?.value ?? null;
  let listed: Listed;
  let devices: number;
  let nodes: number;
  if (o.parallel !== null) {
    const asked = parallelAsked(o.parallel, () => d.digest);
    const p = placed(o.nodes === null ? asked : { ...asked, nodes: o.nodes }, perNode, o.devices);
    const broken = checkParallel(shape, p, device);
    if (broken.length) throw new Refusal(broken);
    listed = { rows: [rowOf(shape, p, device, label, demand)], left: [] };
    devices = devicesOf(p);
    nodes = p.nodes;
  } else {
    const all = topology?.nodes && topology.devicesPerNode ? topology.nodes * topology.devicesPerNode : null;
    const most = o.devices ?? all;
    if (most === null)
      throw new Refusal([
        problems.optionClash('--devices is missing', 'Say how many devices there are, as --devices 16, or give a --topology that does.'),
      ]);
    devices = most;
    nodes = o.nodes ?? (o.devices === null ? topology?.nodes : null) ?? (perNode === null ? 1 : Math.ceil(devices / perNode));
    if (devices % nodes !== 0) throw new Refusal([problems.nodesUneven(devices, nodes)]);
    listed =
      o.goal === 'devices'
        ? fewest(shape, devices, perNode ?? devices / nodes, device, label, demand)
        : listRows(shape, devices, nodes, device, label, demand);
    if (listed.rows.length === 0)
      throw new Refusal([
        problems.nothingLegal(
          devices,
          nodes,
          listed.left.map(l => sentenceCase(l.why)),
        ),
      ]);
  }
  const own =
    perNode !== null && devices / nodes > perNode
      ? [`A usual node of ${label} has ${perNode} devices; these have ${devices / nodes}.`]
      : [];
  return {
    format: 'hkgai-plan-1',
    model: { name: d.name, family: shape.family, digest: d.digest, bytes: shape.bytes, layers: shape.layers },
    target: label,
    engine: written.format.name,
    runtime: written.runtime ? [written.runtime.name, written.runtime.version].filter(x => x !== null).join('@') : null,
    recipe: written.recipe.name,
    topology: topology?.name ?? null,
    devices,
    nodes,
    goal: o.goal,
    context: demand.context,
    prompt: demand.prompt,
    kv: o.kv,
    rows: listed.rows,
    left: listed.left,
    assumed: assumedOf(o),
    notes: [...d.notes, ...notes, ...own],
  };
}
const sentenceCase = (s: string): string => s.charAt(0).toUpperCase() + s.slice(1);

/** Rows of all numbers of devices up to `most`, the fewest that fit first. */
function fewest(shape: ModelShape, most: number, perNode: number, device: Device, label: string, demand: Demand): Listed {
  const all = deviceCounts(most, perNode).map(n => listRows(shape, n, Math.ceil(n / perNode), device, label, demand));
  return { rows: all.flatMap(l => l.rows).sort((a, b) => order(a, b, 'devices')), left: all.at(-1)?.left ?? [] };
}

/** One chip of a comparison. */
export interface Compared {
  readonly target: string;
  readonly recipe: string;
  readonly engine: string;
  /** Bytes of all weights, as written for it. */
  readonly bytes: number;
  /** The best row; null where nothing fits on `searched` devices. */
  readonly row: Row | null;
  readonly searched: number;
  /** Devices that weights alone would take, where nothing fits or memory is all that is known. */
  readonly missing: readonly string[];
  /** Why the model is not written for it; empty where it is. */
  readonly refused: readonly Problem[];
  readonly notes: readonly string[];
}
export interface Comparison {
  readonly format: 'hkgai-compare-1';
  readonly model: DeploymentPlan['model'];
  readonly goal: Goal;
  readonly context: number;
  readonly prompt: number;
  readonly kv: KvStorage;
  readonly chips: readonly Compared[];
  readonly assumed: DeploymentPlan['assumed'];
}
/** Devices that a comparison looks for a place on, where --devices does not say. */
const mostCompared = 64;
/** Sequences that a comparison wants room for, where --batch does not say: with less a machine serves nobody. */
const leastCompared = 32;
/** The same model on several chips: on so many devices, or on the fewest that hold it. */
export function compareChips(d: Described, chips: readonly string[], o: Omit<PlanOptions, 'target' | 'parallel' | 'topology'>): Comparison {
  const known = chips.map(c => {
    const { target, chip } = resolveTarget(c);
    return labelOf(target, chip);
  });
  const wanted = o.batch ?? leastCompared;
  let context = 0;
  let prompt = 0;
  const rows = chips.map((asked, i): Compared => {
    const label = known[i] as string;
    const demand = demandOf({ ...o, target: asked, parallel: null, topology: null }, d.config, label, known);
    context = demand.context;
    prompt = demand.prompt;
    const runtimes = resolveTarget(asked).target.engines.runtimes;
    const runtime = o.runtime && Object.hasOwn(runtimes, o.runtime.split('@')[0] as string) ? o.runtime : null;
    const recipes = resolveTarget(asked).target.engines.recipes;
    // a recipe that not every target has under its name is taken where there is one
    const quantise = o.quantise && (/[./\\]/.test(o.quantise) || Object.hasOwn(recipes, o.quantise)) ? o.quantise : null;
    let made: ReturnType<typeof shapeOf>;
    try {
      made = shapeOf(d, { ...o, target: asked, runtime, quantise });
    } catch (e) {
      if (!(e instanceof Refusal)) throw e;
      return {
        target: label,
        recipe: quantise ?? '',
        engine: '',
        bytes: 0,
        row: null,
        searched: 0,
        missing: [],
        refused: e.problems,
        notes: [],
      };
    }
    const { shape, written } = made;
    const device = written.chip.device ?? null;
    const most = o.devices ?? mostCompared;
    const notes = [
      ...made.notes,
      ...(o.quantise && !quantise ? [`${o.quantise} is no recipe of it: its usual one is taken.`] : []),
      ...(o.runtime && !runtime ? [`${o.runtime} is no engine of it.`] : []),
    ];
    const common = {
      target: label,
      recipe: written.recipe.name,
      engine: written.format.name,
      bytes: shape.bytes,
      searched: most,
      refused: [],
      notes,
    };
    if (!device) return { ...common, row: null, missing: [`all of ${label}`] };
    const per = device.perNode?.value ?? 8;
    const counts = o.devices === null ? deviceCounts(most, per) : [o.devices];
    const better = (a: Row, b: Row): number => order(a, b, o.goal === 'devices' ? 'throughput' : o.goal);
    for (const n of counts) {
      const nodes = o.nodes ?? Math.ceil(n / per);
      if (n % nodes !== 0) continue;
      const best = [...listRows(shape, n, nodes, device, label, demand).rows].sort(better)[0];
      if (best && best.fits !== false && (o.devices !== null || (best.sequences ?? wanted) >= wanted))
        return { ...common, row: best, missing: best.missing };
    }
    return { ...common, row: null, missing: [] };
  });
  const shapeName = {
    name: d.name,
    family: d.config.family,
    digest: d.digest,
    bytes: [...d.tensors.values()].reduce((n, t) => n + t.bytes[1] - t.bytes[0], 0),
    layers: d.config.layers,
  };
  return {
    format: 'hkgai-compare-1',
    model: shapeName,
    goal: o.goal,
    context,
    prompt,
    kv: o.kv,
    chips: rows,
    assumed: assumedOf(o),
  };
}
