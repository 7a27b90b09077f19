// All ways to spread a model over so many devices, each with its bytes and its estimate, and their order for a goal.
import { type Parallel, parallelName } from '../../targets/launch.js';
import type { Device, Fact } from '../../targets/target.js';
import type { Assumptions } from './assumptions.js';
import type { KvStorage } from './cache.js';
import { engineObjections, objections, placeObjections } from './legal.js';
import type { ModelShape } from './model.js';
import { fixedBytes, type RankBytes, rankBytes } from './shard.js';
import { type Drafts, type Estimate, estimate, ratesOf } from './time.js';

export const goals = ['latency', 'throughput', 'devices'] as const;
export type Goal = (typeof goals)[number];
export interface Demand {
  readonly goal: Goal;
  /** Positions of a sequence, and tokens of its prompt. */
  readonly context: number;
  readonly prompt: number;
  /** Sequences at once over all devices; null: one for latency, else as many as fit. */
  readonly batch: number | null;
  readonly kv: KvStorage;
  /** What MTP blocks propose; null: they are not used. */
  readonly drafts: Drafts | null;
  /** Replicas of experts; null: as few as deal evenly. */
  readonly redundant: number | null;
  /** Watts of a device, with where they are from; null: not known. */
  readonly power: Fact<number> | null;
  /** What a device costs an hour; null: not asked for. */
  readonly price: number | null;
  readonly assumed: Assumptions;
}
export interface Row {
  readonly name: string;
  readonly parallel: Parallel;
  /** Decoder layers of each stage; MTP blocks are on the last. */
  readonly stages: readonly number[];
  /** Of the fullest rank. */
  readonly bytes: {
    readonly weights: number;
    readonly redundant: number;
    readonly absorbed: number;
    readonly activations: number;
    readonly communication: number;
    /** Caches of the sequences that this rank serves, as many as `batch` asks for. */
    readonly caches: number;
    /** Of one sequence, and of one token of it on the mean. */
    readonly sequence: number;
    readonly total: number;
  };
  /** Bytes of a device that a plan may fill; null where its memory is not known. */
  readonly usable: number | null;
  readonly fits: boolean | null;
  /** Bytes a rank that are left, below 0 those that are too many. */
  readonly left: number | null;
  /** Sequences of the whole context that fit, over all devices; null where memory is not known. */
  readonly sequences: number | null;
  readonly estimate: Estimate | null;
  /** What of the chip is not known and an estimate would need. */
  readonly missing: readonly string[];
  /** Of a million tokens that are generated. */
  readonly energy: number | null;
  readonly cost: number | null;
}

const divisors = (n: number): readonly number[] => Array.from({ length: n }, (_, i) => i + 1).filter(d => n % d === 0);

/** Every tp, dp, pp and ep whose product is the devices; experts dealt whole or cut. Replicas of experts fill ranks up evenly. */
export function ways(m: ModelShape, devices: number, nodes: number, redundant: number | null): readonly Parallel[] {
  const all: Parallel[] = [];
  const per = devices / nodes;
  for (const tp of divisors(devices))
    for (const pp of divisors(devices / tp)) {
      const dp = devices / tp / pp;
      const ranks = tp * dp;
      const one = { tp, dp, pp, nodes, devicesPerNode: per };
      all.push({ ...one, ep: 1, redundant: 0 });
      if (m.routed && ranks > 1) {
        const least = (ranks - (m.routed.experts % ranks)) % ranks;
        all.push({ ...one, ep: ranks, redundant: redundant ?? least });
      }
    }
  return all;
}

/** One way on one device. */
export function rowOf(m: ModelShape, p: Parallel, device: Device, chip: string, d: Demand): Row {
  const ranks = rankBytes(m, p, d.kv, d.context, d.drafts !== null, d.assumed);
  const usable = device.memory ? Math.floor(device.memory.value * d.assumed.usableMemory) : null;
  const devices = p.tp * p.dp * p.pp;
  // of a replica, and of all
  const room =
    usable === null ? null : Math.min(...ranks.map(r => Math.max(0, Math.floor((usable - fixedBytes(r)) / Math.max(1, r.sequence)))));
  const sequences = room === null ? null : room * p.dp;
  const batch =
    d.batch ?? (d.goal === 'latency' || sequences === null ? 1 : Math.max(1, Math.min(sequences, d.assumed.mostSequences * p.dp)));
  const held = Math.ceil(batch / p.dp);
  const total = (r: RankBytes): number => fixedBytes(r) + held * r.sequence;
  const fullest = ranks.reduce((a, b) => (total(b) > total(a) ? b : a));
  const left = usable === null ? null : usable - total(fullest);
  const { rates, missing } = ratesOf(device, m, p, chip);
  const lacks = [...(usable === null ? [`memory of ${chip}`] : []), ...missing];
  const fits = left === null ? null : left >= 0;
  const e =
    rates && fits !== false
      ? estimate(
          { model: m, parallel: p, kv: d.kv, rates, assumed: d.assumed },
          ranks.map(r => r.stage),
          { batch, context: d.context, prompt: d.prompt, drafts: d.drafts },
        )
      : null;
  return {
    name: parallelName(p),
    parallel: p,
    stages: ranks.map(r => r.stage.to - r.stage.from),
    bytes: {
      weights: fullest.weights,
      redundant: fullest.redundant,
      absorbed: fullest.absorbed,
      activations: fullest.activations,
      communication: fullest.communication,
      caches: held * fullest.sequence,
      sequence: fullest.sequence,
      total: total(fullest),
    },
    usable,
    fits,
    left,
    sequences,
    estimate: e,
    missing: lacks,
    energy: e && d.power !== null ? (devices * d.power.value * 1e6) / e.decode / 3.6e6 : null,
    cost: e && d.price !== null ? (devices * d.price * 1e6) / e.decode / 3600 : null,
  };
}

/** Best first: what fits before what does not, then by the goal, then by bytes and name. */
export function order(a: Row, b: Row, goal: Goal): number {
  const standing = (r: Row): number => (r.fits === true ? 0 : r.fits === null ? 1 : 2);
  const by = standing(a) - standing(b);
  if (by) return by;
  const devices = (r: Row): number => r.parallel.tp * r.parallel.dp * r.parallel.pp;
  if (goal === 'devices' && devices(a) !== devices(b)) return devices(a) - devices(b);
  const speed = (r: Row): number =>
    r.estimate === null ? Number.POSITIVE_INFINITY : goal === 'latency' ? r.estimate.token : -r.estimate.decode;
  const known = speed(a) === speed(b) ? 0 : speed(a) - speed(b);
  if (known) return known;
  return a.bytes.total - b.bytes.total || (a.name < b.name ? -1 : a.name > b.name ? 1 : 0);
}

export interface Listed {
  readonly rows: readonly Row[];
  /** Why ways were left out, the first reason of each, with how many. */
  readonly left: readonly { readonly why: string; readonly ways: number }[];
}
export function listRows(m: ModelShape, devices: number, nodes: number, device: Device, chip: string, d: Demand): Listed {
  const left = new Map<string, number>();
  const rows: Row[] = [];
  for (const p of ways(m, devices, nodes, d.redundant)) {
    const why = [...objections(m, p), ...placeObjections(p, device), ...engineObjections(m, p, d.drafts !== null)];
    // the first reason is enough: others mostly follow from it
    if (why[0] !== undefined) left.set(why[0], (left.get(why[0]) ?? 0) + 1);
    else rows.push(rowOf(m, p, device, chip, d));
  }
  return { rows: rows.sort((a, b) => order(a, b, d.goal)), left: [...left].map(([why, n]) => ({ why, ways: n })) };
}
/** Numbers of devices to look at: halves of a node, then whole nodes, then all. */
export function deviceCounts(most: number, perNode: number | null): readonly number[] {
  const per = Math.min(perNode ?? most, most);
  const counts = divisors(per).slice();
  for (let n = 2 * per; n <= most; n += per) counts.push(n);
  if (!counts.includes(most) && most % Math.ceil(most / per) === 0) counts.push(most);
  return counts;
}
