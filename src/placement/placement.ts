// Types of the placement of experts: what is asked for, and what came of it for each layer.

/** Devices that routed experts are dealt to. */
export interface Topology {
  /** Devices, each with as many experts as the next. */
  readonly ranks: number;
  /** Machines, each with as many ranks as the next, in the order of ranks. */
  readonly nodes: number;
  /** Replicas beyond one of each expert, a layer. */
  readonly redundant: number;
}
/** A layer with routed experts, as its router sees it. */
export interface ExpertLayer {
  /** Decoder layer; MTP blocks count on from the last. */
  readonly layer: number;
  readonly experts: number;
  readonly topK: number;
  /** Groups that the router picks from first; 1 where it picks from all experts alike. */
  readonly groups: number;
  /** Width of what is sent to an expert and comes back. */
  readonly hidden: number;
  /** Tokens are sent by a table of their ids. */
  readonly hashed: boolean;
}

/** How often each expert of a layer was chosen. */
export interface LayerCounts {
  readonly layer: number;
  readonly counts: readonly number[];
  /** Tokens that were routed; null where it is not known. */
  readonly tokens: number | null;
  /** Experts of single tokens, topK for each: a part of the tokens, or all; null where none were kept. */
  readonly sample: Uint16Array | null;
}
export interface Counts {
  /** What they are of, for people: `trace.json (en, yue)`. */
  readonly called: string;
  readonly layers: readonly LayerCounts[];
}

/** Devices by load: the heaviest against the mean. 1 is even. */
export interface Load {
  readonly ranks: number;
  readonly nodes: number;
}
/** Copies of a token's row that go out to devices other than its own, on average over tokens and over the devices that they begin on. */
export interface Copies {
  /** To other devices of the same node. */
  readonly inside: number;
  /** To devices of other nodes, a copy for each device. */
  readonly between: number;
  /** To other nodes, a copy for each node: engines that send once to a node and pass on inside it. */
  readonly betweenOnce: number;
}
export interface LayerPlacement {
  readonly layer: number;
  /** Renumbering: the old id of each new one. Rank r of R holds the r-th part of the new ids. */
  readonly oldOf: readonly number[];
  /** With redundancy: the (new) id at each physical place, ranks one after another; without it 0, 1, 2, … */
  readonly placed: readonly number[];
  readonly before: { readonly load: Load; readonly copies: Copies };
  readonly after: { readonly load: Load; readonly copies: Copies };
  /** Where `copies` come from: sets of experts that tokens chose, or shares of the experts as if each were chosen by itself. */
  readonly copiesFrom: 'sets' | 'shares';
}
export interface Placement {
  readonly topology: Topology;
  /** What the counts were of; `uniform` without any. */
  readonly from: string;
  readonly layers: readonly LayerPlacement[];
}

export const isIdentity = (order: readonly number[]): boolean => order.every((old, i) => old === i);
/** Where each old id went. */
export function inverse(oldOf: readonly number[]): readonly number[] {
  const newOf = new Array<number>(oldOf.length);
  oldOf.forEach((old, now) => {
    newOf[old] = now;
  });
  return newOf;
}
