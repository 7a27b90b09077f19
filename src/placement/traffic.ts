// What a placement costs on the wires, and how even it is. A token begins on any rank alike (attention is dealt by requests); a copy of its row goes
// to each other rank that holds an expert it chose, whatever the number of experts there, and what they made comes back the same way.
import type { Copies, Load } from './placement.js';

/** Share of each expert's tokens that a rank's replicas take, by rank: [expert, share]. Replicas of an expert share alike. */
export type Holdings = readonly (readonly (readonly [expert: number, share: number])[])[];

/** Holdings of ranks from the expert at each physical place. */
export function holdings(placed: readonly number[], ranks: number): Holdings {
  const count = new Map<number, number>();
  for (const e of placed) count.set(e, (count.get(e) ?? 0) + 1);
  const each = placed.length / ranks;
  return Array.from({ length: ranks }, (_, r) => {
    const here = new Map<number, number>();
    for (const e of placed.slice(r * each, (r + 1) * each)) here.set(e, (here.get(e) ?? 0) + 1 / count.get(e)!);
    return [...here];
  });
}
const grouped = (h: Holdings, parts: number): Holdings =>
  Array.from({ length: parts }, (_, n) => {
    const all = new Map<number, number>();
    for (const rank of h.slice((n * h.length) / parts, ((n + 1) * h.length) / parts))
      for (const [e, share] of rank) all.set(e, (all.get(e) ?? 0) + share);
    return [...all];
  });

export function loadOf(placed: readonly number[], counts: readonly number[], ranks: number, nodes: number): Load {
  const total = counts.reduce((a, b) => a + b, 0);
  const h = holdings(placed, ranks);
  const uneven = (parts: Holdings): number =>
    total === 0 ? 1 : (Math.max(...parts.map(p => p.reduce((n, [e, share]) => n + counts[e]! * share, 0))) * parts.length) / total;
  return { ranks: uneven(h), nodes: uneven(grouped(h, nodes)) };
}

/** Copies, from the ranks and the nodes that a token comes to: its own is one of them with the same chance as any other. */
function split(met: { readonly ranks: number; readonly nodes: number }, ranks: number, nodes: number): Copies {
  const own = met.ranks / ranks;
  const near = met.ranks / nodes - own;
  return { inside: near, between: met.ranks - own - near, betweenOnce: met.nodes - met.nodes / nodes };
}

/** Over sets of experts that tokens chose, topK each. */
export function copiesOfSets(placed: readonly number[], ranks: number, nodes: number, sets: ArrayLike<number>, topK: number): Copies {
  const h = holdings(placed, ranks);
  const maps = [h, grouped(h, nodes)].map(list => {
    const by = new Map<number, (readonly [part: number, share: number])[]>();
    list.forEach((p, i) => {
      for (const [e, share] of p) {
        const known = by.get(e);
        if (known) known.push([i, share]);
        else by.set(e, [[i, share]]);
      }
    });
    return { by, parts: list.length };
  });
  const tokens = sets.length / topK;
  const [byRank, byNode] = maps.map(({ by, parts }) => {
    let met = 0;
    const missed = new Float64Array(parts).fill(1);
    for (let t = 0; t < tokens; t++) {
      const touched = new Set<number>();
      for (let k = 0; k < topK; k++)
        for (const [p, share] of by.get(sets[t * topK + k]!) ?? []) {
          missed[p] = missed[p]! * (1 - share);
          touched.add(p);
        }
      for (const p of touched) {
        met += 1 - missed[p]!;
        missed[p] = 1;
      }
    }
    return met / tokens;
  }) as [number, number];
  return split({ ranks: byRank, nodes: byNode }, ranks, nodes);
}
/** From counts alone, as if a token chose each expert by itself with that expert's share. */
export function copiesOfShares(placed: readonly number[], ranks: number, nodes: number, counts: readonly number[], topK: number): Copies {
  const total = counts.reduce((a, b) => a + b, 0);
  const chosen = counts.map(c => (total === 0 ? topK / counts.length : Math.min(1, (c * topK) / total)));
  const met = (part: Holdings[number]): number => 1 - part.reduce((n, [e, share]) => n * (1 - chosen[e]! * share), 1);
  const h = holdings(placed, ranks);
  const all = (parts: Holdings): number => parts.reduce((n, p) => n + met(p), 0);
  return split({ ranks: all(h), nodes: all(grouped(h, nodes)) }, ranks, nodes);
}
