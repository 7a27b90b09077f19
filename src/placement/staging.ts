// What each node needs of the weight files, where experts lie in files by rank: all that lies outside experts, and the experts of its own ranks.
import type { Placement } from './placement.js';

/** A written tensor. */
export interface StagedTensor {
  readonly name: string;
  readonly file: string;
  readonly size: number;
  readonly layer: number;
  /** Number that the engine knows it by; null outside routed experts. */
  readonly expert: number | null;
}
export interface StagedNode {
  readonly node: number;
  /** Expert ranks on it. */
  readonly ranks: readonly number[];
  /** Complete: every tensor that its ranks load is in one of them. Minimal: each holds one that they load. */
  readonly files: readonly string[];
  readonly bytes: number;
  /** Tensor -> file, of all tensors in these files: the node's model.safetensors.index.json. */
  readonly index: Readonly<Record<string, string>>;
}
export interface Machines {
  readonly nodes: number;
  readonly devicesPerNode: number;
  /** Devices of a stage, to which its experts are dealt. */
  readonly ranks: number;
}

/** Ranks of experts on each node: with stages a node may hold a part of one, or several whole ones. */
export function ranksOn(node: number, m: Machines): readonly number[] {
  const here = Array.from({ length: m.devicesPerNode }, (_, i) => (node * m.devicesPerNode + i) % m.ranks);
  return [...new Set(here)].sort((a, b) => a - b);
}

/**
 * @param main decoder layers without MTP blocks: with replicas engines place the experts of those as they like, so a node needs them all
 */
export function staging(
  tensors: Iterable<StagedTensor>,
  sizes: ReadonlyMap<string, number>,
  p: Placement,
  m: Machines,
  main: number,
): readonly StagedNode[] {
  const { ranks } = p.topology;
  const layers = new Map(p.layers.map(l => [l.layer, l]));
  const mapped = p.layers.some(l => l.placed.length !== l.oldOf.length || l.placed.some((e, i) => e !== i));
  const nodes = Array.from({ length: m.nodes }, (_, node) => {
    const own = ranksOn(node, m);
    const wanted = new Map<number, ReadonlySet<number> | null>();
    for (const l of layers.values()) {
      const each = l.placed.length / ranks;
      wanted.set(l.layer, l.layer >= main && mapped ? null : new Set(own.flatMap(r => l.placed.slice(r * each, (r + 1) * each))));
    }
    return { node, ranks: own, wanted, files: new Set<string>() };
  });
  const all: StagedTensor[] = [];
  for (const t of tensors) {
    all.push(t);
    for (const n of nodes) {
      const of = t.expert === null ? null : (n.wanted.get(t.layer) ?? null);
      if (of === null || of.has(t.expert as number)) n.files.add(t.file);
    }
  }
  return nodes.map(({ node, ranks: own, files }) => ({
    node,
    ranks: own,
    files: [...files].sort(),
    bytes: [...files].reduce((n, f) => n + (sizes.get(f) ?? 0), 0),
    index: Object.fromEntries(
      all
        .filter(t => files.has(t.file))
        .map(t => [t.name, t.file] as const)
        .sort(([a], [b]) => (a < b ? -1 : 1)),
    ),
  }));
}
