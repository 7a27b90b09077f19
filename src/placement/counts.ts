// Counts of chosen experts as files: traces with their languages apart, SGLang's recordings, plain lists, and placements made before.
import { readFileSync } from 'node:fs';
import { Refusal } from '../../ir/problem.js';
import { JsonError, parseJson, plainValue } from '../checkpoint/json.js';
import type { Counts, ExpertLayer, LayerCounts } from './placement.js';
import * as problems from './problems.js';

/** What tells one model from another, whatever its storage: its tensors, and what its routers hold. */
export interface ModelIdentity {
  /** SHA-256 of the logical tensors' names and shapes, MTP blocks left out. */
  readonly tensors: string;
  /** SHA-256 of each router's tensors by layer; none where only headers are there. */
  readonly routers: Readonly<Record<string, string>>;
}
export const traceFormat = 'hkgai-routing-1';
export interface TracedLayer {
  readonly layer: number;
  readonly tokens: number;
  /** By expert. */
  readonly counts: readonly number[];
  /** Experts of the first tokens, 16 bits each, little endian, in base64. */
  readonly sample: string;
}
export interface TracedLabel {
  readonly texts: readonly { readonly name: string; readonly sha256: string; readonly tokens: number }[];
  readonly layers: readonly TracedLayer[];
}
export interface Trace {
  readonly format: typeof traceFormat;
  readonly model: ModelIdentity;
  readonly topK: number;
  readonly labels: Readonly<Record<string, TracedLabel>>;
}
export const placementFormat = 'hkgai-placement-1';
/** Numberings made before, as `placement.json` of a bundle keeps them. */
export interface GivenOrders {
  readonly model: ModelIdentity;
  readonly oldOf: ReadonlyMap<number, readonly number[]>;
}

const isObject = (v: unknown): v is Readonly<Record<string, unknown>> => typeof v === 'object' && v !== null && !Array.isArray(v);
const isCount = (v: unknown): v is number => typeof v === 'number' && Number.isSafeInteger(v) && v >= 0;
/** A label, or the name of a text: what a terminal would obey is in none. */
export const isPlain = (v: unknown): v is string => typeof v === 'string' && !/\p{Cc}/u.test(v);
/** Sums of such are finite, in float32 too. */
const mostCounted = 2 ** 53;

/** A JSON file's value. Refuses what is none, and keys that stand twice. */
export function readJson(file: string): unknown {
  try {
    return plainValue(parseJson(new TextDecoder('utf-8', { fatal: true }).decode(readFileSync(file))));
  } catch (e) {
    if (e instanceof JsonError || (e instanceof TypeError && !(e as NodeJS.ErrnoException).syscall))
      throw new Refusal([problems.notCounts(file, e.message)]);
    throw e;
  }
}
/** Sentences: in what a file's model differs. Routers are compared where both are known. */
export function differences(is: ModelIdentity, was: unknown): readonly string[] {
  if (!isObject(was) || typeof was.tensors !== 'string' || !isObject(was.routers)) return ['It does not say of which.'];
  if (was.tensors !== is.tensors) return ['Its tensors have other names or shapes.'];
  const routers = was.routers;
  const other = Object.keys(is.routers).filter(l => routers[l] !== undefined && routers[l] !== is.routers[l]);
  if (other.length === 0) return [];
  return [
    `The routers of layers ${other.slice(0, 4).join(', ')}${other.length > 4 ? ` and ${other.length - 4} more` : ''} hold other values.`,
  ];
}

/** A trace's own shape, for the counts in it see `holesOf`. */
export function asTrace(file: string, v: unknown): Trace {
  const t = v as Partial<Trace>;
  const layers = (x: unknown): boolean =>
    Array.isArray(x) &&
    x.every(l => isObject(l) && isCount(l.layer) && isCount(l.tokens) && Array.isArray(l.counts) && typeof l.sample === 'string');
  if (
    !isObject(t.labels) ||
    !isCount(t.topK) ||
    !Object.values(t.labels).every(l => isObject(l) && Array.isArray(l.texts) && layers(l.layers))
  )
    throw new Refusal([problems.notCounts(file, 'a trace has topK, labels, and in each texts and layers')]);
  const names = Object.entries((t as Trace).labels).flatMap(([label, l]) => [label, ...l.texts.map((x): unknown => x?.name)]);
  if (!names.every(isPlain))
    throw new Refusal([problems.notCounts(file, 'a label, or the name of a text, is no text without control characters')]);
  return t as Trace;
}

/** Sentences: layers without counts, rows of another length, entries that are no counts. MTP blocks may have none. */
function holesOf(layers: readonly LayerCounts[], wanted: readonly ExpertLayer[], main: number): readonly string[] {
  const by = new Map(layers.map(l => [l.layer, l]));
  const wrong = wanted.flatMap(w => {
    const l = by.get(w.layer);
    if (!l) return w.layer < main ? [`Layer ${w.layer} is missing.`] : [];
    if (!Array.isArray(l.counts) || l.counts.length !== w.experts)
      return [`Layer ${w.layer} counts ${Array.isArray(l.counts) ? l.counts.length : 'no list of'} experts, and has ${w.experts}.`];
    const bad = l.counts.findIndex(c => typeof c !== 'number' || !(c >= 0 && c <= mostCounted));
    if (bad >= 0) return [`Layer ${w.layer} says ${JSON.stringify(l.counts[bad])} of expert ${bad}.`];
    if (!l.counts.some(c => c > 0)) return [`Layer ${w.layer} counts nothing.`];
    return [];
  });
  const known = new Set(wanted.map(w => w.layer));
  const other = layers.map(l => l.layer).filter(l => !known.has(l));
  const twice = layers.map(l => l.layer).filter((l, i, all) => all.indexOf(l) !== i);
  return [
    ...wrong,
    ...(other.length ? [`Layers ${other.slice(0, 4).join(', ')} have no experts in this model.`] : []),
    ...(twice.length ? [`Layers ${twice.slice(0, 4).join(', ')} are counted more than once.`] : []),
  ];
}

/** Experts of single tokens from base64; what does not fit them is left out. */
function sampleOf(text: string, experts: number, topK: number): Uint16Array {
  const bytes = Buffer.from(text, 'base64');
  const whole = Math.floor(bytes.length / 2 / topK) * topK;
  const out = Uint16Array.from({ length: whole }, (_, i) => bytes.readUInt16LE(2 * i));
  return out.some(e => e >= experts) ? new Uint16Array() : out;
}
export function sampleText(sample: ArrayLike<number>): string {
  const bytes = Buffer.alloc(2 * sample.length);
  for (let i = 0; i < sample.length; i++) bytes.writeUInt16LE(sample[i]!, 2 * i);
  return bytes.toString('base64');
}

/** Counts of several labels taken together: each text as often as it is long. */
function together(labels: readonly TracedLabel[], wanted: readonly ExpertLayer[], topK: number): readonly LayerCounts[] {
  const experts = new Map(wanted.map(w => [w.layer, w.experts]));
  const layers = [...new Set(labels.flatMap(l => l.layers.map(x => x.layer)))].sort((a, b) => a - b);
  return layers.map(layer => {
    const met = labels.flatMap(l => l.layers.filter(x => x.layer === layer));
    const counts = met[0]!.counts.map((_, e) => met.reduce((n, x) => n + (x.counts[e] as number), 0));
    const sets = met.map(x => sampleOf(x.sample, experts.get(layer) ?? 0, topK));
    // as much of each label's sample as is its share of the tokens
    const tokens = met.reduce((n, x) => n + x.tokens, 0);
    const most = Math.min(...met.map((x, i) => (x.tokens > 0 ? (sets[i]!.length / topK / x.tokens) * tokens : Number.POSITIVE_INFINITY)));
    const some = sets.flatMap((s, i) => [...s.subarray(0, topK * Math.floor((most * met[i]!.tokens) / tokens + 1e-9))]);
    return { layer, counts, tokens, sample: some.length ? Uint16Array.from(some) : null };
  });
}

/** The labels of a trace that are asked for; all where none is. */
export function chosenLabels(file: string, t: Trace, asked: readonly string[]): readonly string[] {
  const known = Object.keys(t.labels).sort();
  const lost = asked.find(l => !known.includes(l));
  if (lost !== undefined) throw new Refusal([problems.unknownLabel(file, lost, known)]);
  return asked.length ? asked : known;
}

/**
 * Counts, or numberings, from a file.
 * @param main decoder layers without MTP blocks
 * @param labels of a trace; none: all together
 */
export function readCounts(
  file: string,
  labels: readonly string[],
  model: ModelIdentity,
  wanted: readonly ExpertLayer[],
  main: number,
): Counts | GivenOrders {
  const v = readJson(file);
  if (!isObject(v)) throw new Refusal([problems.notCounts(file, 'it is no object')]);
  const called = file.replace(/^.*[/\\]/, '');
  if (labels.length && v.format !== traceFormat) throw new Refusal([problems.unknownLabel(file, labels[0]!, [])]);
  if (v.format === placementFormat) return givenOrders(file, v, model);
  const holding = (layers: readonly LayerCounts[], name = called): Counts => {
    const wrong = holesOf(layers, wanted, main);
    if (wrong.length) throw new Refusal([problems.holes(file, wrong)]);
    return { called: name, layers };
  };
  if (v.format === traceFormat) {
    const t = asTrace(file, v);
    const other = differences(model, t.model);
    if (other.length) throw new Refusal([problems.otherModel(file, other)]);
    const k = wanted.find(w => w.topK !== t.topK)?.topK;
    if (k !== undefined)
      throw new Refusal([problems.otherModel(file, [`Its tokens choose ${t.topK} experts, and those of this model ${k}.`])]);
    const names = chosenLabels(file, t, labels);
    const some = names.map(n => t.labels[n]!);
    for (const l of some) holding(plainLayers(l));
    return holding(together(some, wanted, t.topK), `${called} (${names.join(', ')})`);
  }
  if (Array.isArray(v.logical_count)) return holding(fromLogicalCount(file, v.logical_count, wanted, main));
  if (Array.isArray(v.moe_layers) && Array.isArray(v.counts)) {
    const counts = v.counts as readonly (readonly number[])[];
    if (!v.moe_layers.every(isCount)) throw new Refusal([problems.notCounts(file, 'moe_layers are no whole numbers')]);
    if (v.moe_layers.length !== counts.length) throw new Refusal([problems.notCounts(file, 'moe_layers and counts are not as many')]);
    return holding(v.moe_layers.map((layer: number, i) => ({ layer, counts: counts[i]!, tokens: null, sample: null })));
  }
  throw new Refusal([
    problems.notCounts(file, v.format === undefined ? 'it has none of the keys' : `format is ${JSON.stringify(v.format)}`),
  ]);
}
const plainLayers = (l: TracedLabel): readonly LayerCounts[] =>
  l.layers.map(x => ({ layer: x.layer, counts: x.counts, tokens: x.tokens, sample: null }));

/** SGLang: a row a decoder layer, dense ones too, or such a list for each of several stretches of time, which are added up. */
function fromLogicalCount(file: string, rows: readonly unknown[], wanted: readonly ExpertLayer[], main: number): readonly LayerCounts[] {
  const stretches = (Array.isArray(rows[0]) && Array.isArray(rows[0][0]) ? rows : [rows]) as readonly (readonly (readonly number[])[])[];
  const short = stretches.find(s => !Array.isArray(s) || s.length !== main);
  if (short) throw new Refusal([problems.holes(file, [`logical_count has ${short.length} layers, and the model ${main}.`])]);
  return wanted
    .filter(w => w.layer < main)
    .map(({ layer, experts }) => {
      const met = stretches.map((s): unknown => s[layer]);
      // what is no row of counts stands as it is, and is said
      const odd = met.findIndex(r => !Array.isArray(r) || r.length !== experts || !r.every(c => typeof c === 'number' && c >= 0));
      const added = Array.from({ length: odd < 0 ? experts : 0 }, (_, e) => (met as (readonly number[])[]).reduce((n, r) => n + r[e]!, 0));
      return { layer, counts: (odd < 0 ? added : met[odd]) as readonly number[], tokens: null, sample: null };
    });
}
function givenOrders(file: string, v: Readonly<Record<string, unknown>>, model: ModelIdentity): GivenOrders {
  const other = differences(model, v.model);
  if (other.length) throw new Refusal([problems.otherModel(file, other)]);
  if (!Array.isArray(v.layers) || !v.layers.every(l => isObject(l) && isCount(l.layer) && Array.isArray(l.oldOf)))
    throw new Refusal([problems.notCounts(file, 'a placement has layers, and in each layer and oldOf')]);
  return { model, oldOf: new Map(v.layers.map((l: { layer: number; oldOf: readonly number[] }) => [l.layer, l.oldOf])) };
}
