// Where a region is cut: the units of each rank, so that blocks of scales, groups and key-value heads stay whole.
import { storageName } from '../../ir/storage.js';
import type { Region, WeightCut } from './shard-regions.js';

export type Range = readonly [from: number, to: number];
/** Ranges of each rank: its units, and the key-value heads that they read. */
export interface Cuts {
  readonly units: readonly Range[];
  readonly kv: readonly Range[];
}
/** Why the even cut is none. */
export type Objection =
  | { readonly kind: 'uneven'; readonly name: string; readonly count: number; readonly noun: string }
  | {
      readonly kind: 'block';
      readonly name: string;
      readonly axis: 'row' | 'column';
      readonly at: number;
      readonly block: number;
      readonly storage: string;
    };

/** Places that share a scale along the cut dimension; 1 where any place may be cut. A scale of a whole row holds for each part of the row. */
function blockOf({ weight, dim }: WeightCut): number {
  const s = weight.type.storage;
  if (s.kind === 'plain') return 1;
  const fromEnd = weight.type.shape.length - dim;
  return Math.max(1, fromEnd === 1 ? s.block[1] : fromEnd === 2 ? s.block[0] : 1);
}
const sizeAlong = ({ weight, dim }: WeightCut): number => weight.type.shape[dim] as number;
const cutsBlock = (w: WeightCut, unit: number): boolean => {
  const at = unit * w.per;
  return at % blockOf(w) !== 0 && at !== sizeAlong(w);
};
const kvOf = (r: Region, [from, to]: Range): Range =>
  r.kv === 0 ? [0, 0] : [Math.floor((from * r.kv) / r.units), Math.ceil((to * r.kv) / r.units)];
const rangesOf = (bounds: readonly number[]): readonly Range[] => bounds.slice(1).map((to, i) => [bounds[i] as number, to] as const);
const cutsOf = (r: Region, bounds: readonly number[]): Cuts => {
  const units = rangesOf(bounds);
  return { units, kv: units.map(u => kvOf(r, u)) };
};

function objectionTo(r: Region, bounds: readonly number[]): Objection | null {
  const cuts = cutsOf(r, bounds);
  for (const w of r.weights)
    for (const range of w.unit === 'units' ? cuts.units : cuts.kv)
      for (const at of range)
        if (cutsBlock(w, at)) {
          const axis = w.dim === w.weight.type.shape.length - 1 ? 'column' : 'row';
          return {
            kind: 'block',
            name: w.weight.name,
            axis,
            at: at * w.per,
            block: blockOf(w),
            storage: storageName(w.weight.type.storage),
          };
        }
  return null;
}

/** Equal shares: key-value heads may be held by several ranks where there are fewer of them than ranks. */
export function evenCuts(r: Region, ranks: number): Cuts | Objection {
  const name = r.anchor.name;
  if (r.units % ranks !== 0) return { kind: 'uneven', name, count: r.units, noun: r.noun };
  for (const g of r.groups) if (g.count % ranks !== 0) return { kind: 'uneven', name, ...g };
  if (r.kv % ranks !== 0 && ranks % r.kv !== 0) return { kind: 'uneven', name, count: r.kv, noun: 'key-value heads' };
  const bounds = Array.from({ length: ranks + 1 }, (_, i) => (i * r.units) / ranks);
  return objectionTo(r, bounds) ?? cutsOf(r, bounds);
}

/** Shares as near to equal as blocks, groups and key-value heads let them be; null where there are not enough places to cut. */
export function nearCuts(r: Region, ranks: number): Cuts | null {
  const every = [...r.groups.map(g => r.units / g.count), ...(r.kv > 0 ? [r.units / r.kv] : [])];
  const places: number[] = [];
  for (let u = 0; u <= r.units; u++)
    if (every.every(e => u % e === 0) && r.weights.every(w => w.unit === 'kv' || !cutsBlock(w, u))) places.push(u);
  const bounds = [0];
  for (let i = 1; i < ranks; i++) {
    const want = (i * r.units) / ranks;
    // enough places must be left for the ranks that follow; of two that are equally near, the larger
    const open = places.slice(places.indexOf(bounds[i - 1] as number) + 1, places.length - (ranks - i));
    if (open.length === 0) return null;
    bounds.push(open.reduce((a, b) => (Math.abs(b - want) <= Math.abs(a - want) ? b : a)));
  }
  bounds.push(r.units);
  return objectionTo(r, bounds) === null ? cutsOf(r, bounds) : null;
}
