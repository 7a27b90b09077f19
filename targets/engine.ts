// What an engine directory is: logical tensors, how each is stored, and the directory as an engine finds it. Shared by the targets' engine.ts.

/** What a tensor is for; recipes, legality and conformance speak of these. */
export type Role =
  | 'embedding'
  | 'head'
  | 'norm'
  | 'bias'
  | 'router'
  | 'router_bias'
  | 'attention'
  | 'kv_b'
  | 'indexer'
  | 'compressor'
  | 'dense_mlp'
  | 'shared_expert'
  | 'expert'
  | 'mtp_merge'
  | 'hyper'
  | 'table';

/** A tensor of the model before any storage is chosen. */
export interface LogicalTensor {
  /** Full name in the family's spelling: `model.layers.3.mlp.experts.7.gate_proj.weight`; V4: `layers.3.ffn.experts.7.w1.weight`. */
  readonly name: string;
  /** [out, in] of a matrix; no packing. */
  readonly shape: readonly number[];
  readonly role: Role;
  /** Decoder layer, MTP blocks counted on; -1 outside layers. */
  readonly layer: number;
  /** Number of a routed expert. */
  readonly expert: number | null;
  /** A linear's matrix: its storage may change. */
  readonly matrix: boolean;
  /** True in an MTP block. */
  readonly mtp: boolean;
}

/** A tensor as a shard's header has it; bytes are absolute in the file. */
export interface StoredTensor {
  readonly name: string;
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly file: string;
  readonly bytes: readonly [from: number, to: number];
}
/** A directory as an engine finds it. */
export interface EngineDirectory {
  /** Names of all files in it. */
  readonly files: readonly string[];
  readonly tensors: ReadonlyMap<string, StoredTensor>;
  /** A JSON file, parsed; undefined where it is not there. */
  json(file: string): unknown;
  /** Bytes [from, to) counted from the tensor's first. */
  read(t: StoredTensor, from: number, to: number): Uint8Array;
}
/** One broken rule. */
export interface Finding {
  /** Rule's name: A3, V7, S2, B1. */
  readonly rule: string;
  /** One sentence. */
  readonly what: string;
  /** Tensor or file. */
  readonly where: string;
}
