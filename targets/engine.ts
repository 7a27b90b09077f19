// What an engine directory is: logical tensors, how each is stored, and the directory as an engine finds it. Shared by the targets' engine.ts.

import type { Form, GgufForm, PlainForm } from '../ir/form.js';
import type { Storage } from '../ir/storage.js';

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
  /** May be absent: a copy of another tensor, or one that only some releases have. */
  readonly optional?: true;
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
  /**
   * Values are looked at in samples: the first and last 4 KiB of each tensor. So it is at the end of a compile, which wrote them with encoders that
   * cannot give other ones; names, dtypes, shapes and files are looked at in full, and a check by itself looks at every byte.
   */
  readonly sampled: boolean;
  /** Bytes [from, to) counted from the tensor's first; they may be gone at the next read. */
  read(t: StoredTensor, from: number, to: number): Uint8Array;
  /** A file as bytes: of any kind. */
  file(name: string): { readonly size: number; read(from: number, to: number): Uint8Array };
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

// ---- what a target says of its engines

/** A tensor in the file, and which piece of the written matrix it is. */
export interface StoredPiece {
  readonly name: string;
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly what:
    | { readonly kind: 'codes' | 'scales' | 'zeros' }
    | { readonly kind: 'sums'; readonly chunks: number }
    | { readonly kind: 'bytes'; readonly bytes: Uint8Array }
    | { readonly kind: 'fill'; readonly byte: number };
}
/** A logical tensor and what it is written as. */
export interface Chosen {
  readonly tensor: LogicalTensor;
  readonly form: Form;
  /** What stands in the file in the end: the source's dtype where it is kept. */
  readonly dtype: string;
  readonly source: { readonly storage: Storage };
}
export interface EngineModel {
  readonly modelType: string;
  readonly layers: number;
  readonly tensors: readonly LogicalTensor[];
}
/** A tensor of a container that is not safetensors: rows of logical tensors, one run after another. */
export interface PackedTensor {
  readonly name: string;
  readonly dtype: string;
  /** Row-major, as everywhere here. */
  readonly shape: readonly number[];
  readonly size: number;
  readonly form: PlainForm | GgufForm;
  readonly runs: readonly {
    readonly tensor: string;
    /** Rows [from, to); null: all. */
    readonly rows: readonly [from: number, to: number] | null;
    /** `low-words`: numbers of 64 bits as their lower 32; they fit. */
    readonly turn: 'none' | 'transpose' | 'interleave-halves' | 'low-words';
  }[];
  /** Bytes of a tensor that stands in no checkpoint; it has no runs. */
  readonly constant: Uint8Array | null;
}
/** The JSON files of a checkpoint, parsed; null where absent. */
export interface Companions {
  readonly config: Readonly<Record<string, unknown>>;
  readonly tokenizer: unknown;
  readonly tokenizerConfig: unknown;
  readonly generationConfig: unknown;
  readonly chatTemplate: string | null;
}
export interface Packing {
  /** Sentences: what the container cannot hold. With any of these nothing is written. */
  readonly refused: readonly string[];
  /** Sentences: what is left out, and why. */
  readonly left: readonly string[];
  readonly tensors: readonly PackedTensor[];
  /** One of `count` files: its header, where each tensor begins, its size. Bytes between tensors are zero. */
  file(
    index: number,
    count: number,
    tensors: readonly PackedTensor[],
  ): { readonly path: string; readonly header: Uint8Array; readonly at: readonly number[]; readonly size: number };
}
/** A recipe as data: the first rule that fits a tensor says its form. */
export interface Rule {
  readonly roles?: readonly Role[];
  /** Name with `*` for any run of characters. */
  readonly tensors?: string;
  readonly to: 'keep' | 'bf16' | 'f16' | 'f32' | 'int8' | 'int4' | 'fp8' | 'mxfp4' | 'mxfp8' | 'q8_0' | 'q4_0';
  /** Columns that share a scale; 0: the whole row. int8 and int4. */
  readonly group?: number;
  /** Rows and columns that share a scale: int8 and fp8. */
  readonly block?: readonly [number, number];
  /** `e8m0-in-f32`: powers of two that stand in F32, as DeepSeek-V3.1 has them. */
  readonly scale?: 'f32' | 'bf16' | 'e8m0' | 'e8m0-in-f32';
  readonly zero?: boolean;
  readonly search?: 'absmax' | 'mse' | 'gptq';
}
export interface Recipe {
  readonly format: 'hkgai-recipe-1';
  readonly name: string;
  /** The engine format it was written for; a target without it takes its usual one. */
  readonly engine?: string;
  readonly rules: readonly Rule[];
  /** Matrices that no rule fits. */
  readonly otherwise: 'keep' | 'bf16' | 'f16';
  readonly mtp: 'keep' | 'quantise' | 'drop';
  /** What the engine does to activations. */
  readonly activations: 'none' | 'int8' | 'fp8';
}
/** The engine that is to read a directory; no version means all that are known. */
export interface Runtime {
  readonly name: string;
  readonly version: string | null;
}
/** One way an engine wants its directory. */
export interface EngineFormat {
  readonly name: string;
  readonly about: string;
  /** Who reads it, and that it was read in their source, not run, where so. */
  readonly readers: string;
  /** The form a rule asks for, as this format stores it. */
  form(rule: Rule): Form;
  /** Why a tensor cannot have a form here, as a sentence; null where it can. `chip` is the target's name for it, `source` what `keep` means. */
  objection(t: LogicalTensor, form: Form, chip: string, recipe: Recipe, runtime: Runtime | null, source?: Storage): string | null;
  /** The form that a tensor has here whatever a recipe says; null where it is the recipe's to say. */
  always?(t: LogicalTensor, source: Storage): PlainForm | null;
  /** Why the recipe as a whole is not for this format; null where it is. */
  refuses(recipe: Recipe, model: EngineModel, chip: string, runtime: Runtime | null): string | null;
  /** The tensors a matrix becomes, in the order of the file; a kept or plain tensor is not asked for. */
  stored(t: LogicalTensor, form: Form, modelType: string): readonly StoredPiece[];
  /** config.json and further files. `config` is the source's without what was said of the old storage. */
  files(
    config: Record<string, unknown>,
    chosen: readonly Chosen[],
    recipe: Recipe,
    modelType: string,
  ): {
    readonly config: Record<string, unknown>;
    readonly extra: readonly { readonly path: string; readonly text: string | Iterable<string> }[];
  };
  /** A container of its own instead of safetensors with config and tokenizer beside them. */
  readonly pack?: (side: Companions, chosen: readonly Chosen[], model: EngineModel) => Packing;
  /** Broken rules of the written directory. Tensors of `model` that are `optional` may be absent. Never throws on what it finds. */
  check(dir: EngineDirectory, model: EngineModel, chip: string, runtime: Runtime | null): readonly Finding[];
}
/** The engines of a target: the first format is the default. */
export interface Engines {
  readonly formats: readonly EngineFormat[];
  /** Recipe that is taken where none is asked for; `none` passes the checkpoint on. */
  readonly recipe: string;
  /** They take the class that config.json names, whatever its model_type says. */
  readonly loadsByClass?: true;
  /** The format that a recipe goes out in, where it is not the first. */
  readonly formatOf: Readonly<Record<string, string>>;
  /** The target's own meaning of a recipe's name, and names of its own. */
  readonly recipes: Readonly<Record<string, Omit<Recipe, 'format' | 'name'> & { readonly about: string }>>;
  /** Engines by name: versions that are told apart, newest last; formats they read, the usual one first; recipe where none is asked for. */
  readonly runtimes: Readonly<
    Record<
      string,
      { readonly about: string; readonly versions: readonly string[]; readonly formats: readonly string[]; readonly recipe?: string }
    >
  >;
}

/** Bytes of one element. */
export const dtypeBytes: Readonly<Record<string, number>> = {
  F64: 8,
  I64: 8,
  F32: 4,
  I32: 4,
  U32: 4,
  BF16: 2,
  F16: 2,
  I8: 1,
  U8: 1,
  BOOL: 1,
  F8_E4M3: 1,
  F8_E8M0: 1,
};
export const linearRoles = ['attention', 'dense_mlp', 'shared_expert', 'expert'] as const satisfies readonly Role[];
