// Bytes of each rank: weights, copies made at load, caches of a sequence, buffers. A rank is one device.
import type { Parallel } from '../../targets/launch.js';
import type { Assumptions } from './assumptions.js';
import { type KvStorage, sequenceBytes } from './cache.js';
import type { LayerKind, ModelShape, Part } from './model.js';

/** The shape that one rank holds of a tensor cut by tp. */
export function rankShape(part: Part, tp: number, kvHeads: number): readonly number[] {
  const [rows = 1, columns] = part.shape;
  const along = (n: number, unit: number): number => Math.min(n, Math.ceil(n / unit / tp) * unit);
  switch (part.cut) {
    case 'whole':
      return part.shape;
    case 'rows':
      return columns === undefined ? [along(rows, part.rowUnit)] : [along(rows, part.rowUnit), columns];
    case 'kv-rows': {
      const own = Math.ceil(kvHeads / tp) * (rows / kvHeads);
      return columns === undefined ? [own] : [own, columns];
    }
    case 'columns':
      return columns === undefined ? part.shape : [rows, along(columns, part.columnUnit)];
  }
}
const kvHeadsOf = (m: ModelShape): number => {
  const c = m.kinds[0]?.cache;
  return c?.kind === 'heads' ? c.kvHeads : 1;
};
/** Experts of a layer that one rank holds; cut ones count whole. */
export const expertsOf = (experts: number, p: Parallel): number => (p.ep > 1 ? Math.ceil((experts + p.redundant) / p.ep) : experts);

export interface PartBytes {
  readonly weights: number;
  /** Of the weights, experts that stand elsewhere too. */
  readonly redundant: number;
  /** Copies in 16 bits that engines make at load. */
  readonly absorbed: number;
}
export function partBytes(part: Part, p: Parallel, m: ModelShape): PartBytes {
  if (part.expert && p.ep > 1) {
    const one = part.bytes(part.shape);
    return { weights: expertsOf(part.count, p) * one, redundant: (p.redundant / p.ep) * one, absorbed: 0 };
  }
  const shape = rankShape(part, p.tp, kvHeadsOf(m));
  return {
    weights: part.count * part.bytes(shape),
    redundant: 0,
    absorbed: part.absorbed ? 2 * shape.reduce((n, d) => n * d, 1) : 0,
  };
}
const sum = (parts: readonly PartBytes[]): PartBytes =>
  parts.reduce((a, b) => ({ weights: a.weights + b.weights, redundant: a.redundant + b.redundant, absorbed: a.absorbed + b.absorbed }), {
    weights: 0,
    redundant: 0,
    absorbed: 0,
  });

/** Decoder layers [from, to) of a stage; the first has the embedding, the last MTP blocks and the head. */
export interface Stage {
  readonly from: number;
  readonly to: number;
  readonly first: boolean;
  readonly last: boolean;
}
/** Deal layers to stages in order, so that the heaviest stage is as light as can be. */
export function dealStages(layers: readonly number[], first: number, last: number, stages: number): readonly Stage[] {
  const n = layers.length;
  const upTo = [0];
  for (const w of layers) upTo.push((upTo.at(-1) as number) + w);
  const weight = (from: number, to: number, s: number): number =>
    (upTo[to] as number) - (upTo[from] as number) + (s === 0 ? first : 0) + (s === stages - 1 ? last : 0);
  // best[s][i]: the heaviest of stages 0..s where they hold layers [0, i)
  const best: number[][] = [];
  const cut: number[][] = [];
  for (let s = 0; s < stages; s++) {
    best.push(new Array<number>(n + 1).fill(Number.POSITIVE_INFINITY));
    cut.push(new Array<number>(n + 1).fill(0));
    for (let i = s + 1; i <= n - (stages - 1 - s); i++) {
      // with one layer more the best cut is never earlier
      for (let from = Math.max(s, cut[s]?.[i - 1] as number); from < (s === 0 ? 1 : i); from++) {
        const before = s === 0 ? 0 : (best[s - 1]?.[from] as number);
        // the stages before only grow heavier with more layers
        if (before >= (best[s]?.[i] as number)) break;
        const heaviest = Math.max(before, weight(from, i, s));
        if (heaviest < (best[s]?.[i] as number)) {
          best[s]![i] = heaviest;
          cut[s]![i] = from;
        }
      }
    }
  }
  const out: Stage[] = [];
  for (let s = stages - 1, to = n; s >= 0; s--) {
    const from = cut[s]?.[to] as number;
    out.unshift({ from, to, first: s === 0, last: s === stages - 1 });
    to = from;
  }
  return out;
}

/** What parts of a model weigh on a rank, and how its layers are dealt by that. */
interface Weighed {
  readonly kinds: readonly PartBytes[];
  readonly first: PartBytes;
  readonly last: PartBytes;
  readonly dealt: () => readonly Stage[];
}
/** By model and way: ways that differ in dp alone weigh the same, and a plan looks at thousands. */
const known = new WeakMap<ModelShape, Map<string, Weighed>>();
function weighed(m: ModelShape, p: Parallel): Weighed {
  const ways = known.get(m) ?? new Map<string, Weighed>();
  known.set(m, ways);
  const key = `${p.tp} ${p.pp} ${p.ep} ${p.redundant}`;
  const there = ways.get(key);
  if (there) return there;
  const kinds = m.kinds.map(k => sum(k.parts.map(x => partBytes(x, p, m))));
  const first = sum(m.first.map(x => partBytes(x, p, m)));
  const last = sum([...m.last, ...(p.pp > 1 ? m.again : [])].map(x => partBytes(x, p, m)));
  const weight = (k: number): number => (kinds[k] as PartBytes).weights + (kinds[k] as PartBytes).absorbed;
  let stages: readonly Stage[] | null = null;
  const dealt = (): readonly Stage[] => {
    const decoder = m.layerKinds.slice(0, m.layers).map(weight);
    const after = m.layerKinds.slice(m.layers).reduce((n, k) => n + weight(k), last.weights);
    return (stages ??= dealStages(decoder, first.weights, after, p.pp));
  };
  const made: Weighed = { kinds, first, last, dealt };
  ways.set(key, made);
  return made;
}

export interface RankBytes {
  readonly stage: Stage;
  readonly weights: number;
  readonly redundant: number;
  readonly absorbed: number;
  /** Caches of one sequence of the planned context. */
  readonly sequence: number;
  /** Activations of a step, at most. */
  readonly activations: number;
  readonly communication: number;
}
/** Without caches. */
export const fixedBytes = (r: RankBytes): number => r.weights + r.absorbed + r.activations + r.communication;

/** Values that a step of `tokens` holds at once on a rank, from above: the stream and its neighbours, the widest inner values, the logits. */
function activationBytes(m: ModelShape, p: Parallel, a: Assumptions, last: boolean): number {
  const tokens = Math.min(a.stepTokens, m.maxPositions * a.mostSequences);
  const inner = (k: LayerKind): number => {
    const dense = k.parts.reduce(
      (n, x) => Math.max(n, x.role === 'dense_mlp' && x.cut === 'rows' ? (2 * (x.shape[0] as number)) / p.tp : 0),
      0,
    );
    const attention = (k.attention.heads / p.tp) * (2 * k.attention.query + k.attention.value);
    // an expert's inputs and inner values, for the tokens that come to this rank
    const share = p.ep > 1 ? (p.dp / p.ep) * a.imbalance : 1 / p.tp;
    const routed =
      m.routed && k.experts
        ? m.routed.topK * (p.ep > 1 ? share * (m.hidden + 2 * m.routed.inner) : m.hidden + 2 * m.routed.inner * share)
        : 0;
    return Math.max(dense, attention, routed);
  };
  const widest = m.kinds.reduce((n, k) => Math.max(n, inner(k)), 0);
  const logits = last ? 4 * a.mostSequences * m.vocab : 0;
  return Math.ceil(2 * tokens * (6 * m.hidden + widest) + logits);
}
/** The library's own, and what an exchange of tokens between experts stages: one byte out and two back for each of a token's experts. */
function communicationBytes(m: ModelShape, p: Parallel, a: Assumptions): number {
  if (p.tp * p.dp * p.pp === 1) return 0;
  const exchange = p.ep > 1 && m.routed ? (a.stepTokens / p.tp) * Math.min(m.routed.topK, p.ep) * m.hidden * 3 : 0;
  return Math.ceil(a.communicationBuffer + exchange);
}

/**
 * Bytes of the ranks of each stage: all ranks of a stage hold as much. `counts` deals decoder layers to stages as they say; else the heaviest stage is as
 * light as can be. MTP blocks go with the last.
 */
export function rankBytes(
  m: ModelShape,
  p: Parallel,
  kv: KvStorage,
  context: number,
  drafting: boolean,
  a: Assumptions,
  counts: readonly number[] | null = null,
): readonly RankBytes[] {
  const { kinds, first, last, dealt } = weighed(m, p);
  const stages = counts ? stagesOf(counts) : dealt();
  const sequences = m.kinds.map(k => sequenceBytes(k.cache, kv, p.tp, context));
  return stages.map(stage => {
    const here = m.layerKinds.slice(stage.from, stage.last ? m.layerKinds.length : stage.to);
    const all = sum([...here.map(k => kinds[k] as PartBytes), ...(stage.first ? [first] : []), ...(stage.last ? [last] : [])]);
    return {
      stage,
      ...all,
      sequence: here.reduce((n, k, i) => n + (stage.from + i < m.layers || drafting ? (sequences[k] as number) : 0), 0),
      activations: activationBytes(m, p, a, stage.last),
      communication: communicationBytes(m, p, a),
    };
  });
}
const stagesOf = (counts: readonly number[]): readonly Stage[] => {
  let at = 0;
  return counts.map((n, i) => ({ from: at, to: (at += n), first: i === 0, last: i === counts.length - 1 }));
};
