// A model before any device: opened from config.json, headers or a checkpoint, in the forms that it would be written in, and as kinds of layers.
// The same matrix of all experts is looked at once: a full-size model has a hundred thousand of them.
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { type Form, formName, ggufRow } from '../ir/form.js';
import { notThere, Refusal } from '../ir/problem.js';
import { elements, matrixBytes, type PlainElement, type Storage, storageName } from '../ir/storage.js';
import { dtypeBytes, type EngineFormat, type LogicalTensor, type Recipe, type Runtime } from '../targets/engine.js';
import type { Chip, PeakKind, Target } from '../targets/target.js';
import { type ModelConfig, parseConfig } from './checkpoint/config.js';
import { canonicalName, strayReason } from './checkpoint/names.js';
import { dtypeBits, type TensorEntry } from './checkpoint/safetensors.js';
import { type Checkpoint, openCheckpoint } from './checkpoint/shards.js';
import { choose, resolveTarget, runtimeNames, runtimeOf, unknownRuntime } from './choice.js';
import { formatOf } from './conformance.js';
import { logicalTensor, type SourceTensor } from './logical.js';
import { buildModel, type Expected, expectedTensors } from './models/index.js';
import { attentionOf, cacheOf, cutOf, type LayerKind, type ModelShape, type Part } from './plan/model.js';
import { headersNeeded, notSpread } from './plan/problems.js';
import { digestOf, type ModelDigest } from './plan/saved.js';
import { resolve } from './recipe.js';

export interface Described {
  readonly name: string;
  readonly digest: ModelDigest;
  readonly config: ModelConfig;
  /** By the name in the files. */
  readonly tensors: () => ReadonlyMap<string, TensorEntry>;
  /** The model with as few experts as a token chooses, where all are alike; null where there are none, or they are not. */
  readonly alike: Alike | null;
  /** Where config.json lies; null where another file was named. */
  readonly dir: string | null;
  /** No weights are there, and no headers. */
  readonly bare: boolean;
  readonly notes: readonly string[];
}
interface Alike {
  readonly config: ModelConfig;
  readonly tensors: ReadonlyMap<string, TensorEntry>;
  /** Experts, and rows of routers, here and in the whole model. */
  readonly kept: number;
  readonly experts: number;
}
/** The config with as few experts as a token chooses. */
const fewer = (c: ModelConfig): ModelConfig | null =>
  'experts' in c
    ? { ...c, experts: Math.min(c.experts, Math.max(2, c.topK)), ...('groups' in c ? { groups: 1, topGroups: 1 } : {}) }
    : null;
const expertNumber = /\.experts\.(\d+)\./;
const isRouter = (name: string): boolean => /\.gate\.(weight|bias|e_score_correction_bias)$/.test(name);

/** The tensors of a checkpoint with a few experts of each layer; null where experts differ in anything, or some are missing. */
function alikeOf(config: ModelConfig, tensors: ReadonlyMap<string, TensorEntry>): Alike | null {
  const few = fewer(config);
  if (!few || !('experts' in few) || !('experts' in config)) return null;
  const { experts } = config;
  const kept = few.experts;
  const out = new Map<string, TensorEntry>();
  const groups = new Map<string, { readonly one: TensorEntry; count: number }>();
  for (const t of tensors.values()) {
    const m = expertNumber.exec(t.name);
    if (m) {
      const key = t.name.replace(expertNumber, '.experts.*.');
      const there = groups.get(key);
      if (there === undefined) groups.set(key, { one: t, count: 1 });
      else if (there.one.dtype === t.dtype && there.one.shape.join() === t.shape.join()) there.count++;
      else return null;
      if (Number(m[1]) >= experts) return null;
      if (Number(m[1]) < kept) out.set(t.name, t);
    } else if (isRouter(canonicalName(t.name, config.family)) && t.shape[0] === experts) {
      const [from, to] = t.bytes;
      out.set(t.name, { ...t, shape: [kept, ...t.shape.slice(1)], bytes: [from, from + ((to - from) / experts) * kept] });
    } else out.set(t.name, t);
  }
  // numbers below `experts`, each once in a name: as many as there are experts are all of them
  for (const g of groups.values()) if (g.count !== experts) return null;
  return { config: few, tensors: out, kept, experts };
}
/** Bytes of all tensors as they are. */
export function bytesOf(d: Described): number {
  const size = (t: TensorEntry): number => t.bytes[1] - t.bytes[0];
  const { alike } = d;
  if (!alike) return [...d.tensors().values()].reduce((n, t) => n + size(t), 0);
  let once = 0;
  let dealt = 0;
  for (const t of alike.tensors.values())
    if (expertNumber.test(t.name) || isRouter(canonicalName(t.name, d.config.family))) dealt += size(t);
    else once += size(t);
  return once + (dealt * alike.experts) / alike.kept;
}

/** What a release has, as headers would say it: offsets count on, and mean nothing. */
function released(config: ModelConfig, file: string, expected: readonly Expected[]): ReadonlyMap<string, TensorEntry> {
  const tensors = new Map<string, TensorEntry>();
  let at = 0;
  for (const t of expected) {
    // releases carry the copies that MTP blocks make of embedding and head, and no copy where the two are one
    if (t.optional && config.tied && t.name === 'lm_head.weight') continue;
    const bytes = t.shape.reduce((n, d) => n * d, dtypeBits[t.dtype as keyof typeof dtypeBits]) / 8;
    tensors.set(t.name, { name: t.name, dtype: t.dtype as TensorEntry['dtype'], shape: t.shape, file, bytes: [at, at + bytes] });
    at += bytes;
  }
  return tensors;
}
/** A checkpoint that is open. */
export function describeCheckpoint(c: Checkpoint, name: string, configFile = 'config.json'): Described {
  const { config, tensors, dir } = c;
  return {
    name,
    digest: digestOf(dir, configFile, c.files),
    config,
    tensors: () => tensors,
    alike: alikeOf(config, tensors),
    dir,
    bare: false,
    notes: [],
  };
}
/** A directory with config.json, with or without shards (headers alone will do), or a config.json. */
export function describeModel(path: string, allowPhantomKeys = false): Described {
  if (!existsSync(path)) throw new Refusal([notThere(path)]);
  const isFile = statSync(path).isFile();
  const bare = isFile || !readdirSync(path).some(f => f.endsWith('.safetensors') || f.endsWith('.safetensors.index.json'));
  const dir = isFile ? dirname(path) : path;
  const configFile = isFile ? basename(path) : 'config.json';
  const name = isFile && configFile !== 'config.json' ? configFile.replace(/\.json$/, '') : basename(dir);
  if (!bare || !existsSync(join(dir, configFile)))
    return describeCheckpoint(openCheckpoint(path, { headersOnly: true, allowPhantomKeys }), name, configFile);
  const config = parseConfig(readFileSync(join(dir, configFile), 'utf8'), configFile);
  const few = fewer(config);
  return {
    name,
    digest: digestOf(dir, configFile, []),
    config,
    tensors: () => released(config, configFile, expectedTensors(config)),
    alike:
      few && 'experts' in few && 'experts' in config
        ? { config: few, tensors: released(few, configFile, expectedTensors(few)), kept: few.experts, experts: config.experts }
        : null,
    dir: configFile === 'config.json' ? dir : null,
    bare: true,
    notes: ['No weights are there: dtypes are those of the release that config.json speaks of.'],
  };
}

interface Written {
  readonly target: Target;
  readonly chip: Chip;
  readonly recipe: Recipe;
  readonly format: EngineFormat;
  readonly runtime: Runtime | null;
}
export type WrittenOptions = {
  /** target or target:chip. */
  readonly target: string;
  readonly quantise: string | null;
  readonly format: string | null;
  readonly runtime: string | null;
  readonly mtp: 'keep' | 'quantise' | 'drop' | null;
  /** The recipe itself, where it is no longer the one that was named. */
  readonly recipe?: Recipe;
};
function writtenAs(d: Described, o: WrittenOptions): Written {
  const { target, chip } = resolveTarget(o.target);
  const runtime = runtimeOf(target, o.runtime);
  if (o.runtime && runtime === null) throw new Refusal([unknownRuntime(o.runtime, runtimeNames(target))]);
  const { formats } = target.engines;
  const as = (): EngineFormat =>
    d.dir !== null
      ? formatOf(d.dir, target)
      : ((d.config.quantisation.kind === 'fp8' ? formats.find(f => f.name === 'fp8') : undefined) ?? (formats[0] as EngineFormat));
  const wanted = { quantise: o.quantise, format: o.format, ...(o.mtp ? { mtp: o.mtp } : {}) };
  const choice = choose(target, runtime, wanted, as);
  const { format } = choice;
  const recipe = o.recipe ?? choice.recipe;
  if (format.pack) throw new Refusal([notSpread(format.name)]);
  return { target, chip, recipe, format, runtime };
}

/** A tensor that stands for itself, or for the same one of every expert. */
interface Stand extends SourceTensor {
  readonly count: number;
}
function standsOf(d: Described, each: boolean): readonly Stand[] {
  const alike = each ? null : d.alike;
  const config = alike?.config ?? d.config;
  const tensors = alike?.tensors ?? d.tensors();
  const { graph, unused } = buildModel(config, tensors);
  const out: Stand[] = [];
  const seen = new Set<string>();
  const put = (tensor: string, shape: readonly number[], storage: Storage, part: SourceTensor['part'], count: number): void => {
    const entry = tensors.get(tensor) as TensorEntry;
    const name = canonicalName(tensor, config.family).replace(/\.weight_packed$/, '.weight');
    const beside = tensor.endsWith('weight_packed') ? tensors.get(tensor.replace(/weight_packed$/, 'weight_shape')) : undefined;
    const scale = part.scale ? tensors.get(part.scale.tensor) : undefined;
    const more = [...(scale ? [scale] : []), ...(beside ? [beside] : [])];
    const own = alike && isRouter(name) ? [alike.experts, ...shape.slice(1)] : shape;
    const logical = logicalTensor(name, own, config.layers);
    out.push({ logical, part, storage, entry, with: more, count: alike && logical.role === 'expert' ? alike.experts : count });
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
    const t = tensors.get(u.tensor);
    if (alike && Number(expertNumber.exec(u.tensor)?.[1] ?? 0) > 0) continue;
    if (!t || seen.has(t.name) || strayReason(t.name) !== null) continue;
    put(t.name, t.shape, { kind: 'plain', element: plainElement[t.dtype] ?? 'u8' }, { tensor: t.name, file: t.file, bytes: t.bytes }, 1);
    const last = out.at(-1) as Stand;
    out[out.length - 1] = { ...last, logical: { ...last.logical, matrix: false } };
  }
  return out;
}
const plainElement: Readonly<Record<string, PlainElement>> = {
  F32: 'f32',
  BF16: 'bf16',
  F16: 'f16',
  I64: 'i64',
  I32: 'i32',
  I8: 'i8',
  U8: 'u8',
  F8_E4M3: 'f8e4m3',
  F8_E8M0: 'e8m0',
};

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
  const { quantisation } = c;
  if (d.bare && quantisation.kind === 'other' && w.recipe.otherwise === 'keep') throw new Refusal([headersNeeded(quantisation.method)]);
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
  const embedding = outside.filter(p => p.role === 'embedding');
  const blocks = [...byLayer].filter(([layer]) => layer >= c.layers).map(([, parts]) => parts);
  const own = outside.some(p => p.role === 'head') && blocks.every(parts => parts.some(p => p.part.role === 'embedding'));
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
    first: embedding,
    last: outside.filter(p => p.role !== 'embedding'),
    again: own ? [] : embedding,
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
