// How long a step takes, from first principles: bytes over bandwidth, operations over peak, collectives over links. What is not known is named.
import type { Parallel } from '../../targets/launch.js';
import type { Device, Fact, Link, PeakKind } from '../../targets/target.js';
import type { Assumptions } from './assumptions.js';
import { entryBytes, indexBytes, type KvStorage, visible } from './cache.js';
import type { LayerKind, ModelShape, Part } from './model.js';
import { expertsOf, partBytes, rankShape, type Stage } from './shard.js';

export interface Rates {
  /** Bytes a second of memory. */
  readonly memory: number;
  /** Operations a second. */
  readonly peak: (kind: PeakKind) => number;
  /** The link that joins so many ranks next to each other. */
  readonly link: (ranks: number) => { readonly rate: number; readonly latency: number };
  readonly between: { readonly rate: number; readonly latency: number } | null;
}
const wider: Readonly<Partial<Record<PeakKind, PeakKind>>> = {
  fp4: 'fp8',
  int4: 'bf16',
  fp8: 'bf16',
  int8: 'bf16',
  f16: 'bf16',
  bf16: 'f16',
};
/** The kind that a multiplication runs in on a device: the first of a row that it has a unit for. */
export function unitFor(device: Device, kind: PeakKind): PeakKind | null {
  for (let k: PeakKind | undefined = kind, tries = 0; k !== undefined && tries < 4; k = wider[k], tries++) if (k in device.peak) return k;
  return null;
}

/** The link between nodes that is taken: the first that joins so many devices; null on one node. */
export const betweenOf = (device: Device, p: Parallel): Link | null =>
  p.nodes > 1 ? (device.betweenNodes.find(l => (l.joins?.value ?? Number.POSITIVE_INFINITY) >= p.nodes * p.devicesPerNode) ?? null) : null;

/** What the estimates need of a device; or what of it is not known, in words. */
export function ratesOf(
  device: Device,
  m: ModelShape,
  p: Parallel,
  chip: string,
): { readonly rates: Rates | null; readonly missing: readonly string[] } {
  const missing = new Set<string>();
  const known = (f: Fact<number> | null | undefined, what: string): number => {
    if (f) return f.value;
    missing.add(`${what} of ${chip}`);
    return Number.NaN;
  };
  const memory = known(device.memoryBandwidth, 'memory bandwidth');
  const peaks = new Map<PeakKind, number>();
  const kinds = new Set<PeakKind>(['bf16']);
  for (const x of [...m.last, ...m.kinds.flatMap(k => k.parts)]) if (x.multiply) kinds.add(x.multiply);
  for (const k of kinds) {
    const unit = unitFor(device, k);
    if (unit === null) missing.add(`${k} rate of ${chip}`);
    else peaks.set(k, known(device.peak[unit], `${unit} rate`));
  }
  const rateOf = (l: Link | undefined, what: string) => ({
    rate: known(l?.bytesPerSecond, l ? `rate of ${l.name}` : what),
    latency: l?.latency?.value ?? 0,
  });
  // the first that joins enough is the fastest; what reaches further comes later
  const joins = (l: Link): number => l.joins?.value ?? p.devicesPerNode;
  const link = (ranks: number) => rateOf(device.inNode.find(l => joins(l) >= ranks) ?? device.inNode.at(-1), 'rate within a node');
  const ranks = p.tp * p.dp;
  if (Math.min(ranks, p.devicesPerNode) > 1) link(Math.min(ranks, p.devicesPerNode));
  if (p.tp > 1 && p.devicesPerNode > 1) link(Math.min(p.tp, p.devicesPerNode));
  if (p.pp > 1 && p.nodes === 1) link(p.devicesPerNode);
  const across = p.tp > p.devicesPerNode || (p.ep > 1 && ranks > p.devicesPerNode) || p.pp > 1;
  const between = p.nodes > 1 && across ? rateOf(betweenOf(device, p) ?? undefined, 'rate between nodes') : null;
  if (missing.size) return { rates: null, missing: [...missing] };
  return { rates: { memory, peak: k => peaks.get(k) ?? (peaks.get('bf16') as number), link, between }, missing: [] };
}

/** x to the n, n whole: the same on every host. */
function power(x: number, n: number): number {
  let r = 1;
  for (let b = x, e = n; e > 0; e = Math.floor(e / 2), b *= b) if (e % 2 === 1) r *= b;
  return r;
}
/** Of `experts`, how many a batch of tokens reaches that choose `topK` each, evenly. */
export const reached = (experts: number, topK: number, tokens: number): number => experts * (1 - power(1 - topK / experts, tokens));

/** Tokens that an MTP block proposes a step, and how many of them are taken on the mean. */
export interface Drafts {
  readonly proposed: number;
  readonly taken: number;
}
export interface Work {
  /** Tokens of a step in each replica of attention, and the sequences that they are of. */
  readonly tokens: number;
  readonly sequences: number;
  /** Positions that they attend to. */
  readonly context: number;
  /** Prompts are read, in order: a token sees those before it. Else each token is the next of a sequence. */
  readonly prompt: boolean;
}
interface Times {
  memory: number;
  compute: number;
  link: number;
  fixed: number;
  /** Of the link, what exchanges of experts' tokens take: they may run beside the work of another part of the batch. */
  exchange: number;
  /** What they come to: in each section the longer of memory and compute. */
  seconds: number;
}
const none = (): Times => ({ memory: 0, compute: 0, link: 0, fixed: 0, exchange: 0, seconds: 0 });
/** Positions at which a prompt is looked at, for the mean over its tokens. */
const samples = 16;

export interface Setting {
  readonly model: ModelShape;
  readonly parallel: Parallel;
  readonly kv: KvStorage;
  readonly rates: Rates;
  readonly assumed: Assumptions;
}
function section(t: Times, s: Setting, bytes: number, operations: ReadonlyMap<PeakKind, number>): void {
  const memory = bytes / (s.rates.memory * s.assumed.memoryEfficiency);
  let compute = 0;
  for (const [kind, n] of operations) compute += n / (s.rates.peak(kind) * s.assumed.computeEfficiency);
  t.memory += memory;
  t.compute += compute;
  t.seconds += Math.max(memory, compute);
}
/** What multiplications take in and give out goes through memory, and once more through what stands between them: norms, roundings, permutations. */
function values(t: Times, s: Setting, count: number): void {
  const seconds = (2 * s.assumed.passes * count) / (s.rates.memory * s.assumed.memoryEfficiency);
  t.memory += seconds;
  t.seconds += seconds;
}
function collective(t: Times, s: Setting, seconds: number, latency: number): number {
  const all = seconds + latency + s.assumed.collectiveSeconds;
  t.link += all;
  t.seconds += all;
  return all;
}

/** Matrices that each token of a replica goes through. */
function matrices(t: Times, s: Setting, parts: readonly Part[], tokens: number): void {
  const operations = new Map<PeakKind, number>();
  let bytes = 0;
  let through = 0;
  const c = s.model.kinds[0]?.cache;
  const kvHeads = c?.kind === 'heads' ? c.kvHeads : 1;
  for (const x of parts) {
    bytes += partBytes(x, s.parallel, s.model).weights;
    if (x.multiply === null) continue;
    const [rows = 1, columns = 1] = rankShape(x, s.parallel.tp, kvHeads);
    operations.set(x.multiply, (operations.get(x.multiply) ?? 0) + 2 * rows * columns * tokens);
    through += (rows + columns) * tokens;
  }
  section(t, s, bytes, operations);
  values(t, s, through);
}
function routed(t: Times, s: Setting, parts: readonly Part[], tokens: number): void {
  const { parallel: p, model: m, assumed: a } = s;
  if (!m.routed || parts.length === 0) return;
  const { experts, topK } = m.routed;
  const dealt = p.ep > 1;
  const all = dealt ? tokens * p.dp : tokens;
  const busiest = dealt ? a.imbalance : 1;
  const held = expertsOf(experts, p);
  // replicas are places of their own
  const read = Math.min(held, (dealt ? busiest / p.ep : 1) * reached(experts + p.redundant, topK, all));
  const pairs = dealt ? Math.min(all * topK, ((all * topK) / p.ep) * busiest) : all * topK;
  const operations = new Map<PeakKind, number>();
  let bytes = 0;
  let through = 0;
  for (const x of parts) {
    const whole = partBytes(x, p, m).weights / held;
    bytes += whole * read;
    const [rows = 1, columns = 1] = dealt ? x.shape : rankShape(x, p.tp, 1);
    if (x.multiply) operations.set(x.multiply, (operations.get(x.multiply) ?? 0) + 2 * rows * columns * pairs);
    through += (rows + columns) * pairs;
  }
  section(t, s, bytes, operations);
  values(t, s, through);
}
function attend(t: Times, s: Setting, k: LayerKind, w: Work): void {
  const { cache: c, attention } = k;
  const heads = attention.heads / s.parallel.tp;
  const index = c.kind === 'heads' ? null : c.index;
  let entries = 0;
  let keys = 0;
  const at = w.prompt ? samples : 1;
  for (let i = 0; i < at; i++) {
    const v = visible(c, w.prompt ? Math.max(1, Math.round((w.context * (i + 0.5)) / samples)) : w.context);
    entries += v.entries / at;
    keys += v.keys / at;
  }
  // prompts are read with keys and values of each head, save where attention is sparse; a step of decoding stays with the latent
  const absorbed = c.kind === 'latent' && (!w.prompt || c.index !== null);
  const width = absorbed ? 2 * c.latent + c.rope : attention.query + attention.value;
  const operations = new Map<PeakKind, number>([
    ['bf16', 2 * w.tokens * (heads * width * entries + (index ? index.heads * index.dim * keys : 0))],
  ]);
  const entry = entryBytes(c, s.kv, s.parallel.tp);
  const key = indexBytes(c, s.kv);
  // a prompt's own keys come from memory once for a block of its tokens: little beside the arithmetic. Tokens of one sequence read its cache together,
  // save what an index chooses for each.
  const readers = index ? w.tokens : w.sequences;
  const bytes = w.prompt ? w.tokens * (entry + key) : readers * entries * entry + w.sequences * keys * key;
  section(t, s, bytes, operations);
}

/** All-reduce of a step's tokens among the ranks of tp. */
function reduceTokens(t: Times, s: Setting, tokens: number): void {
  const { tp, devicesPerNode } = s.parallel;
  if (tp === 1) return;
  const bytes = 2 * tokens * s.model.hidden;
  const inside = Math.min(tp, devicesPerNode);
  const nodes = tp / inside;
  const eff = s.assumed.linkEfficiency;
  const near = inside > 1 ? s.rates.link(inside) : { rate: Number.POSITIVE_INFINITY, latency: 0 };
  const far = nodes > 1 ? s.rates.between : null;
  const seconds =
    (2 * ((inside - 1) / inside) * bytes) / (near.rate * eff) +
    (far ? (2 * ((nodes - 1) / nodes) * (bytes / inside)) / (far.rate * eff) : 0);
  collective(t, s, seconds, near.latency + (far ? far.latency + s.assumed.collectiveSeconds : 0));
}
/** Tokens to their experts and back. A token goes to another node once, however many of its experts are there. */
function exchange(t: Times, s: Setting, tokens: number, valueBytes: number): void {
  const { parallel: p, model: m } = s;
  if (!m.routed) return;
  const ranks = p.tp * p.dp;
  const inside = Math.min(ranks, p.devicesPerNode);
  const nodes = Math.ceil(ranks / inside);
  const mine = tokens / p.tp;
  const kept = m.routed.groups > 1 ? Math.min(nodes, m.routed.topGroups) : nodes;
  const others = nodes > 1 ? Math.min(kept, reached(nodes, 1, m.routed.topK)) * ((nodes - 1) / nodes) : 0;
  const row = m.hidden * valueBytes;
  const near = inside > 1 ? s.rates.link(inside) : { rate: Number.POSITIVE_INFINITY, latency: 0 };
  const eff = s.assumed.linkEfficiency;
  const seconds =
    (mine * row * m.routed.topK * (inside - 1)) / inside / (near.rate * eff) +
    (s.rates.between && nodes > 1 ? (mine * row * others) / (s.rates.between.rate * eff) : 0);
  t.exchange += collective(t, s, seconds * s.assumed.imbalance, nodes > 1 && s.rates.between ? s.rates.between.latency : near.latency);
}

const ffn = new Set(['dense_mlp', 'shared_expert', 'router', 'router_bias', 'table']);
/** One layer of one step on the busiest rank. */
function layer(s: Setting, k: LayerKind, w: Work): Times {
  const t = none();
  const { parallel: p } = s;
  matrices(
    t,
    s,
    k.parts.filter(x => !x.expert && !ffn.has(x.role)),
    w.tokens,
  );
  attend(t, s, k, w);
  reduceTokens(t, s, w.tokens);
  matrices(
    t,
    s,
    k.parts.filter(x => !x.expert && ffn.has(x.role)),
    w.tokens,
  );
  if (k.experts) {
    const experts = k.parts.filter(x => x.expert);
    // what goes out is in the codes that experts multiply, what comes back in 16 bits
    const out = experts.some(x => x.multiply === 'int8' || x.multiply === 'fp8') ? 1 : 2;
    if (p.ep > 1) exchange(t, s, w.tokens, out);
    routed(t, s, experts, w.tokens);
    if (p.ep > 1) exchange(t, s, w.tokens, 2);
  }
  reduceTokens(t, s, w.tokens);
  t.fixed += s.assumed.layerSeconds;
  t.seconds += s.assumed.layerSeconds;
  // two parts of a batch take turns: one computes while the other's tokens are under way
  t.seconds -= s.assumed.overlap * Math.min(t.exchange, t.seconds - t.exchange);
  return t;
}

function add(t: Times, one: Times, n: number): void {
  for (const f of ['memory', 'compute', 'link', 'fixed', 'exchange', 'seconds'] as const) t[f] += n * one[f];
}
/**
 * A step of one stage: where a stage ends, its tokens go on to the next. The last one proposes drafts. `layers` keeps what one layer of each kind takes,
 * for other stages of the same setting and work.
 */
export function stageTime(s: Setting, stage: Stage, w: Work, drafts: Drafts | null = null, layers = new Map<number, Times>()): Times {
  const { model: m } = s;
  const t = none();
  const counts = new Map<number, number>();
  for (const k of m.layerKinds.slice(stage.from, Math.min(stage.to, m.layers))) counts.set(k, (counts.get(k) ?? 0) + 1);
  for (const [k, n] of counts) {
    const one = layers.get(k) ?? layer(s, m.kinds[k] as LayerKind, w);
    layers.set(k, one);
    add(t, one, n);
  }
  if (!stage.last) {
    const l = s.parallel.nodes > 1 && s.rates.between ? s.rates.between : s.rates.link(s.parallel.devicesPerNode);
    collective(t, s, (2 * w.tokens * m.hidden) / (l.rate * s.assumed.linkEfficiency), l.latency);
    return t;
  }
  // of a prompt only the last row's logits are wanted
  matrices(t, s, m.last, w.prompt ? w.sequences : w.tokens);
  const block = m.layerKinds[m.layers];
  if (drafts && block !== undefined && !w.prompt) {
    const one = layer(s, m.kinds[block] as LayerKind, { ...w, tokens: w.sequences });
    matrices(one, s, m.last, w.sequences);
    add(t, one, drafts.proposed);
  }
  return t;
}

export interface Estimate {
  readonly batch: number;
  readonly context: number;
  /** Seconds of a step, and of a token of a sequence: less where drafts are taken. */
  readonly step: number;
  readonly token: number;
  /** Tokens a second, of all sequences together. */
  readonly decode: number;
  /** Seconds until the first token of a prompt of `prompt` tokens. */
  readonly first: number;
  /** Tokens of prompts read a second, in full steps. */
  readonly prefill: number;
  readonly prompt: number;
  /** Of a decode step, seconds by what they go to. Memory and compute overlap, and exchanges in part: they sum to more than the step. */
  readonly of: { readonly memory: number; readonly compute: number; readonly link: number; readonly fixed: number };
}
export interface Asked {
  readonly batch: number;
  readonly context: number;
  readonly prompt: number;
  readonly drafts: Drafts | null;
}
export function estimate(s: Setting, stages: readonly Stage[], asked: Asked): Estimate {
  const { parallel: p, assumed: a } = s;
  const { batch, context, prompt, drafts } = asked;
  const replica = Math.ceil(batch / p.dp);
  // stages work on parts of the batch in turn
  const part = Math.ceil(replica / p.pp);
  const turns = Math.ceil(replica / part);
  const rows = 1 + (drafts?.proposed ?? 0);
  const stepOf = (w: Work, proposing: Drafts | null): readonly Times[] => {
    const layers = new Map<number, Times>();
    return stages.map(x => stageTime(s, x, w, proposing, layers));
  };
  const times = stepOf({ tokens: part * rows, sequences: part, context, prompt: false }, drafts);
  const through = times.reduce((n, t) => n + t.seconds, 0);
  const step = Math.max(through, turns * Math.max(...times.map(t => t.seconds))) + a.stepSeconds;
  const token = step / (1 + (drafts?.taken ?? 0));
  const read = (tokens: number): readonly Times[] =>
    stepOf({ tokens, sequences: Math.ceil(tokens / prompt), context: prompt, prompt: true }, null);
  const steps = Math.ceil(prompt / a.stepTokens);
  const one = read(Math.ceil(prompt / steps));
  const full = read(a.stepTokens);
  const all = (f: 'memory' | 'compute' | 'link' | 'fixed'): number => times.reduce((n, t) => n + t[f], 0);
  const slowest = (list: readonly Times[]): number => Math.max(...list.map(t => t.seconds));
  return {
    batch,
    context,
    step,
    token,
    decode: batch / token,
    first: one.reduce((n, t) => n + t.seconds, 0) + (steps - 1) * slowest(one) + a.stepSeconds,
    prefill: (p.dp * a.stepTokens) / (slowest(full) + a.stepSeconds),
    prompt,
    of: { memory: all('memory'), compute: all('compute'), link: all('link'), fixed: all('fixed') + a.stepSeconds },
  };
}
