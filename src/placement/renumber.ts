// A new numbering of a layer's experts under which equal runs of ids, one a rank, have loads as even as can be. Where the router picks groups
// first, a group stays a group: whole groups change places, and members change places inside theirs. So the network stays the same function.
import { pack } from './eplb.js';
import { isIdentity } from './placement.js';

export interface Asked {
  readonly groups: number;
  readonly ranks: number;
  readonly nodes: number;
}
const sum = (ids: readonly number[], w: readonly number[]): number => ids.reduce((n, e) => n + w[e]!, 0);
/** Items dealt as EPLB deals them: those of each pack, in rising order. */
function dealt(weights: readonly number[], packs: number): readonly (readonly number[])[] {
  const p = pack(weights, packs);
  const out = Array.from({ length: packs }, () => [] as number[]);
  weights.forEach((_, i) => void out[p.pack[i]!]!.push(i));
  return out;
}

/** Sum of the old ids' weights by rank. */
export function rankLoads(oldOf: readonly number[], w: readonly number[], ranks: number): number[] {
  const each = oldOf.length / ranks;
  return Array.from({ length: ranks }, (_, r) => sum(oldOf.slice(r * each, (r + 1) * each), w));
}

/** The old id of each new one. Nothing moves where nothing gets better. */
export function renumber(w: readonly number[], a: Asked): readonly number[] {
  const first = Array.from({ length: w.length }, (_, i) => i);
  if (a.ranks === 1) return first;
  const better = ordered(settled(begin(w, a), w, a), w, a);
  const [was, is] = [first, better].map(o => {
    const ranks = rankLoads(o, w, a.ranks);
    return [Math.max(...ranks), Math.max(...rankLoads(o, w, a.nodes)), ranks.reduce((n, l) => n + l * l, 0)];
  }) as [number[], number[]];
  const at = is.findIndex((v, i) => v !== was[i]);
  return at >= 0 && is[at]! < was[at]! ? better : first;
}

/** Dealt as EPLB deals without replicas. */
function begin(w: readonly number[], { groups, ranks }: Asked): number[] {
  const size = w.length / groups;
  const members = Array.from({ length: groups }, (_, g) => Array.from({ length: size }, (_, i) => g * size + i));
  const parts = (g: number, n: number): readonly number[] =>
    dealt(
      members[g]!.map(e => w[e]!),
      n,
    ).flatMap(p => p.map(i => members[g]![i]!));
  if (groups === 1) return [...parts(0, ranks)];
  // a rank of whole groups
  if (groups % ranks === 0)
    return dealt(
      members.map(m => sum(m, w)),
      ranks,
    ).flatMap(p => p.flatMap(g => members[g]!));
  // a group of whole ranks
  if (ranks % groups === 0) return members.flatMap((_, g) => parts(g, ranks / groups));
  return members.flat(); // ranks and groups cut across each other: exchanges alone
}

/** Exchanges as long as one makes the heaviest rank lighter without making another as heavy: of two experts of a group, then of two groups. */
function settled(order: number[], w: readonly number[], { groups, ranks }: Asked): number[] {
  const size = w.length / groups;
  const each = w.length / ranks;
  const rankOf = (slot: number): number => Math.floor(slot / each);
  for (let turn = 0; turn < 16 * w.length; turn++) {
    const load = rankLoads(order, w, ranks);
    const top = load.indexOf(Math.max(...load));
    let best = load[top]!;
    let pair: readonly [number, number] | null = null;
    for (let i = top * each; i < (top + 1) * each; i++) {
      const from = Math.floor(i / size) * size;
      for (let j = from; j < from + size; j++) {
        if (rankOf(j) === top) continue;
        const d = w[order[i]!]! - w[order[j]!]!;
        const most = Math.max(load[top]! - d, load[rankOf(j)]! + d);
        if (d > 0 && most < best) {
          best = most;
          pair = [i, j];
        }
      }
    }
    if (pair) {
      const [i, j] = pair;
      [order[i], order[j]] = [order[j]!, order[i]!];
      continue;
    }
    const next = exchangedGroups(order, w, groups, ranks, load[top]!);
    if (!next) break;
    order = next;
  }
  return order;
}
/** The exchange of two whole groups that leaves the heaviest rank lightest; null where none makes it lighter. */
function exchangedGroups(order: readonly number[], w: readonly number[], groups: number, ranks: number, most: number): number[] | null {
  if (groups === 1) return null;
  const size = w.length / groups;
  let best = most;
  let out: number[] | null = null;
  for (let a = 0; a < groups; a++)
    for (let b = a + 1; b < groups; b++) {
      const tried = [...order];
      for (let i = 0; i < size; i++) [tried[a * size + i], tried[b * size + i]] = [order[b * size + i]!, order[a * size + i]!];
      const heaviest = Math.max(...rankLoads(tried, w, ranks));
      if (heaviest < best) {
        best = heaviest;
        out = tried;
      }
    }
  return out;
}

/** What may change places whole without changing a rank's load goes to nodes evenly; inside a rank, and inside a group there, old ids rise. */
function ordered(order: readonly number[], w: readonly number[], { groups, ranks, nodes }: Asked): readonly number[] {
  const size = w.length / groups;
  const each = w.length / ranks;
  const run = Math.min(each, size); // of experts that stand side by side in one rank and one group
  const tidy = Math.max(each, size) % run === 0;
  const runs = tidy ? chunks(order, run).map(r => [...r].sort((a, b) => a - b)) : [[...order]];
  // a rank's whole groups rise too
  const inRank = chunks(runs, tidy && each > run ? each / run : 1).map(r => [...r].sort((a, b) => a[0]! - b[0]!).flat());
  if (!tidy) return inRank.flat();
  const unit = groups === 1 || groups % ranks === 0 ? each : Math.max(each, size);
  const units = chunks(inRank.flat(), unit);
  if (nodes === 1 || units.length % nodes !== 0) return units.flat();
  return dealt(
    units.map(u => sum(u, w)),
    nodes,
  ).flatMap(n => n.flatMap(u => units[u]!));
}
function chunks<T>(list: readonly T[], n: number): T[][] {
  return Array.from({ length: list.length / n }, (_, i) => list.slice(i * n, (i + 1) * n));
}

/** Sentences: why an order is no renumbering of `experts` experts in `groups` groups. */
export function orderObjections(oldOf: readonly number[], experts: number, groups: number): readonly string[] {
  if (oldOf.length !== experts) return [`${oldOf.length} experts are named, and there are ${experts}.`];
  const seen = new Set(oldOf.filter(e => Number.isInteger(e) && e >= 0 && e < experts));
  if (seen.size !== experts) return [`It does not name each of ${experts} experts once.`];
  if (groups === 1 || isIdentity(oldOf)) return [];
  const size = experts / groups;
  const torn = oldOf.findIndex((old, now) => Math.floor(old / size) !== Math.floor(oldOf[now - (now % size)]! / size));
  return torn < 0
    ? []
    : [
        `Experts ${oldOf[torn - (torn % size)]} and ${oldOf[torn]} come into one of ${groups} groups, and were in two: the router would choose others.`,
      ];
}
