// A model as a deployment sees it: kinds of layers with their matrices, how each is cut over ranks, and what a token leaves in the caches.
import type { PeakKind } from '../../targets/target.js';
import type { ModelConfig } from '../checkpoint/config.js';

/**
 * How a tensor is cut over the ranks that share attention: along its rows (outputs), its columns (inputs), not at all; `kv-rows`: along rows, but
 * key and value heads are never cut, so that ranks beyond their number hold copies.
 */
export type Cut = 'whole' | 'rows' | 'columns' | 'kv-rows';

/** A tensor of a layer, or the same tensor of every expert. */
export interface Part {
  /** In the family's spelling; of experts, that of the first. */
  readonly name: string;
  readonly role: string;
  /** Of one, as the model has it: [out, in] of a matrix. */
  readonly shape: readonly number[];
  /** 1, or the number of routed experts. */
  readonly count: number;
  readonly expert: boolean;
  readonly cut: Cut;
  /** Rows that stay together when it is cut along rows: a block, a pair. */
  readonly rowUnit: number;
  /** Columns that stay together when it is cut along columns: a block, a group. */
  readonly columnUnit: number;
  /** The form it is written in, in short. */
  readonly form: string;
  /** What the multiplication runs in where the device has it; null: no matrix. */
  readonly multiply: PeakKind | null;
  /** Codes are fewer than 16 bits a weight and kv_b is absorbed: engines make a copy in 16 bits at load. */
  readonly absorbed: boolean;
  /** Bytes of one of this shape, as written: codes, scales and whatever goes with them. */
  bytes(shape: readonly number[]): number;
}

/** What one token leaves in the caches of one layer, and what a step reads of it. */
export type Cache =
  | { readonly kind: 'latent'; readonly latent: number; readonly rope: number; readonly index: Index | null }
  | { readonly kind: 'heads'; readonly kvHeads: number; readonly width: number }
  | {
      readonly kind: 'compressed';
      readonly width: number;
      readonly rope: number;
      readonly window: number;
      /** Tokens that one entry stands for; 0: the window alone. */
      readonly ratio: number;
      readonly index: Index | null;
    };
export interface Index {
  readonly heads: number;
  readonly dim: number;
  readonly topK: number;
}
/** Heads and widths of a layer's attention, for its arithmetic. */
export interface AttentionShape {
  readonly heads: number;
  /** Values of one head's query, and of its output. */
  readonly query: number;
  readonly value: number;
}
export interface LayerKind {
  readonly parts: readonly Part[];
  readonly cache: Cache;
  readonly attention: AttentionShape;
  readonly experts: boolean;
}
export interface ModelShape {
  readonly family: string;
  readonly hidden: number;
  readonly vocab: number;
  readonly heads: number;
  readonly maxPositions: number;
  /** Groups that V4's outputs are projected in; null elsewhere. */
  readonly outputGroups: number | null;
  /** Decoder layers; MTP blocks are counted on in `layerKinds`. */
  readonly layers: number;
  readonly kinds: readonly LayerKind[];
  /** Index into `kinds`, a layer. */
  readonly layerKinds: readonly number[];
  /** Before the first layer, and after the last. */
  readonly first: readonly Part[];
  readonly last: readonly Part[];
  /** Of the first, what the last stage has too: the table of a tied head, or that MTP blocks read and have no copy of. */
  readonly again: readonly Part[];
  readonly routed: {
    readonly experts: number;
    readonly topK: number;
    readonly groups: number;
    readonly topGroups: number;
    readonly inner: number;
  } | null;
  /** Bytes of all tensors, as written. */
  readonly bytes: number;
}

/** How a tensor is cut, by its role and name. */
export function cutOf(role: string, name: string): Cut {
  const base = name.replace(/\.(weight|bias)$/, '').replace(/^.*\./, '');
  switch (role) {
    case 'embedding':
    case 'head':
    case 'kv_b':
      return 'rows';
    case 'dense_mlp':
    case 'shared_expert':
    case 'expert':
      return /^(down_proj|w2)$/.test(base) ? 'columns' : 'rows';
    case 'attention':
    case 'bias':
      if (/^(q_b_proj|q_proj|wq_b|wo_a|attn_sink)$/.test(base) && !name.includes('.indexer.')) return 'rows';
      if (/^(k_proj|v_proj)$/.test(base)) return 'kv-rows';
      if (/^(o_proj|wo_b)$/.test(base)) return 'columns';
      return 'whole';
    default:
      return 'whole';
  }
}

/** The cache of a layer; MTP blocks are counted on. */
export function cacheOf(c: ModelConfig, layer: number): Cache {
  switch (c.family) {
    case 'qwen2':
    case 'llama':
    case 'deepseek':
      return { kind: 'heads', kvHeads: c.kvHeads, width: c.headDim };
    case 'deepseek_v2':
    case 'deepseek_v3':
    case 'deepseek_v32':
      return { kind: 'latent', latent: c.kvLora, rope: c.rope, index: c.index };
    case 'deepseek_v4': {
      const ratio = c.compressRatios[layer] ?? 0;
      return { kind: 'compressed', width: c.headDim, rope: c.rope, window: c.window, ratio, index: ratio === 4 ? c.index : null };
    }
  }
}
export function attentionOf(c: ModelConfig): AttentionShape {
  switch (c.family) {
    case 'qwen2':
    case 'llama':
    case 'deepseek':
      return { heads: c.heads, query: c.headDim, value: c.headDim };
    case 'deepseek_v2':
    case 'deepseek_v3':
    case 'deepseek_v32':
      return { heads: c.heads, query: c.nope + c.rope, value: c.v };
    case 'deepseek_v4':
      return { heads: c.heads, query: c.headDim, value: c.headDim };
  }
}
