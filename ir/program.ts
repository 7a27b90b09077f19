// What a graph becomes before a target prints it: kernels launched one after another over buffers, weights and states.
import type { Dim, Graph, Type, Value, ValueOf } from './graph.js';
import type { Kernel } from './tile.js';

/** Memory that a launch writes and later ones read. Offsets are set by plan-memory; buffers whose lives do not meet share bytes. */
export interface Buffer {
  readonly name: string;
  readonly type: Type;
  /** Bytes from the start of the arena, a multiple of 64; -1 before plan-memory. */
  readonly offset: number;
  /** Bytes at the limits of the graph. */
  readonly bytes: number;
}

/** What a kernel's parameter is bound to, in the order of Kernel.params. */
export type Argument =
  | { readonly kind: 'buffer'; readonly buffer: string }
  | { readonly kind: 'weight'; readonly weight: ValueOf<'weight'> }
  | { readonly kind: 'state'; readonly state: ValueOf<'state'> }
  | { readonly kind: 'input'; readonly which: ValueOf<'input'>['attributes']['which'] }
  /** A small constant table, such as rope frequencies; equal tables are stored once. */
  | { readonly kind: 'table'; readonly name: string; readonly values: Float32Array };

export interface Variant {
  /** Taken where Launch.rows is at most this; null is the last resort. Variants stand in rising order. */
  readonly upTo: number | null;
  /** null: nothing is to be done at so many rows (another launch of the same value does it); args and sizes are then empty. */
  readonly kernel: Kernel | null;
  /** One for each of Kernel.params. A stacked parameter's weight has one pointer for each part. */
  readonly args: readonly Argument[];
  /** Values of Kernel.sizes, in order. */
  readonly sizes: readonly Dim[];
}

export interface Launch {
  /** The graph value this launch finishes or works towards. */
  readonly value: Value;
  /** True for the launch after which `value`'s buffer is complete. */
  readonly last: boolean;
  /** Other values whose buffers are complete after this launch: a router's indices, written beside its weights. */
  readonly also: readonly Value[];
  /** Other values that are computed on the way, in the graph's order; most have no buffer. With `also` and `value`: the graph that this launch stands for. */
  readonly fused?: readonly Value[];
  readonly layer: number;
  /** What `upTo` is held against: tokens, or wanted where only the rows whose logits are asked for are computed. */
  readonly rows: Dim;
  readonly variants: readonly [Variant, ...Variant[]];
  /** Graph outputs that need this launch; a run that asks for others only may leave it out. */
  readonly outputs: readonly string[];
}

export interface Program {
  readonly graph: Graph;
  readonly launches: readonly Launch[];
  readonly buffers: readonly Buffer[];
  /** Bytes of the arena that holds all buffers. */
  readonly arena: number;
  readonly weights: readonly ValueOf<'weight'>[];
  readonly states: readonly ValueOf<'state'>[];
  /** Where each output lies after a run. */
  readonly outputs: Readonly<Record<string, string>>;
}
