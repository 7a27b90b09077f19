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
  for (const t of tensors)
    for (const n of nodes) {
      const of = t.expert === null ? null : (n.wanted.get(t.layer) ?? null);
      if (of === null || of.has(t.expert as number)) n.files.add(t.file);
    }
  return nodes.map(({ node, ranks: own, files }) => ({
    node,
    ranks: own,
    files: [...files].sort(),
    bytes: [...files].reduce((n, f) => n + (sizes.get(f) ?? 0), 0),
  }));
}

/** The index of a node's files, as text: its model.safetensors.index.json. `tensors` in the order of their names. */
export function indexText(files: readonly string[], tensors: readonly StagedTensor[]): string {
  const own = new Set(files);
  const here = tensors.filter(t => own.has(t.file));
  const total = here.reduce((n, t) => n + t.size, 0);
  const map = here.map(t => `    ${JSON.stringify(t.name)}: ${JSON.stringify(t.file)}`);
  return `{\n  "metadata": {\n    "total_size": ${total}\n  },\n  "weight_map": {\n${map.join(',\n')}\n  }\n}\n`;
}
