// A model as llama.cpp is to have it, in the making: keys, tensors and the rows they are made of, what is refused and what is left out.
import type { LogicalTensor } from '../engine.js';
import { type GgufTypeName, type GgufValue, ggufTypes } from './gguf.js';

/** Rows of a tensor of the checkpoint, in the order they follow each other in the GGUF. */
export interface GgufPiece {
  /** Logical name. */
  readonly tensor: string;
  /** Rows [from, to); null: all. */
  readonly rows: readonly [from: number, to: number] | null;
  /** The piece [r, c] goes in as [c, r]. */
  readonly transpose: boolean;
  /** Numbers of 64 bits go in as their lower 32. */
  readonly narrow?: true;
  /** Rows of each head from two halves to pairs: row h*d + 2j + i comes from row h*d + i*d/2 + j. */
  readonly permute: null | { readonly heads: number };
}
export interface GgufPlanned {
  readonly name: string;
  /** ne order. */
  readonly dims: readonly number[];
  readonly type: number;
  readonly sources: readonly GgufPiece[];
  /** F32 bytes of a tensor that stands in no checkpoint; then there are no sources. */
  readonly constant: Uint8Array | null;
}
export interface GgufModel {
  readonly kv: readonly (readonly [string, GgufValue])[];
  readonly tensors: readonly GgufPlanned[];
  /** Sentences: what llama.cpp’s architecture cannot hold. With any of these there is no file to write. */
  readonly refused: readonly string[];
  /** Sentences: what is left out of the file, which is whole without it. */
  readonly left: readonly string[];
}
export interface GgufTokenizer {
  readonly tokenizerJson: unknown;
  readonly tokenizerConfig: unknown | null;
  readonly generationConfig: unknown | null;
  readonly chatTemplate: string | null;
}
export interface GgufSubject {
  readonly modelType: string;
  readonly layers: number;
  readonly tensors: readonly LogicalTensor[];
}
export type Json = Readonly<Record<string, unknown>>;
export type Choose = (t: LogicalTensor) => GgufTypeName;

export class Plan {
  readonly kv: [string, GgufValue][] = [];
  readonly tensors: GgufPlanned[] = [];
  readonly refused: string[] = [];
  readonly left: string[] = [];
  arch = '';
  readonly #logical: ReadonlyMap<string, LogicalTensor>;
  readonly #taken = new Set<string>();
  readonly #config: Json;
  readonly #choose: Choose;
  constructor(config: Json, tensors: readonly LogicalTensor[], choose: Choose) {
    this.#config = config;
    this.#logical = new Map(tensors.map(t => [t.name.replace(/^language_model\./, ''), t]));
    this.#choose = choose;
  }
  refuse(sentence: string): void {
    if (!this.refused.includes(sentence)) this.refused.push(sentence);
  }
  string(key: string, value: string): void {
    this.kv.push([key, { type: 'string', value }]);
  }
  bool(key: string, value: boolean): void {
    this.kv.push([key, { type: 'bool', value }]);
  }
  u32(key: string, value: number): void {
    if (Number.isInteger(value) && value >= 0 && value < 2 ** 32) this.kv.push([key, { type: 'u32', value }]);
    else this.refuse(`${key} would be ${value}, which is no u32`);
  }
  f32(key: string, value: number): void {
    this.kv.push([key, { type: 'f32', value }]);
  }
  /** A number of config.json; refused where it is not there and nothing stands in for it. */
  number(field: string, otherwise?: number): number {
    const v = this.#config[field];
    if (typeof v === 'number' && Number.isFinite(v)) return v;
    if ((v === undefined || v === null) && otherwise !== undefined) return otherwise;
    this.refuse(`config.json has no number ${field}`);
    return 0;
  }
  has(name: string): boolean {
    return this.#logical.has(name);
  }
  take(name: string): LogicalTensor | null {
    const t = this.#logical.get(name);
    if (t === undefined) {
      this.refuse(`${this.arch} wants ${name}, which the checkpoint has not`);
      return null;
    }
    this.#taken.add(name);
    return t;
  }
  /** One tensor as it is; `optional` ones may be missing. */
  whole(gguf: string, name: string, more: { readonly optional?: boolean; readonly permute?: number } = {}): void {
    if (more.optional && !this.has(name)) return;
    const t = this.take(name);
    if (t === null) return;
    const permute = more.permute === undefined ? null : { heads: more.permute };
    if (permute && t.shape[0]! % (permute.heads * 2) !== 0)
      this.refuse(`${name} has ${t.shape[0]} rows, which ${permute.heads} heads do not halve`);
    const type = this.type(t);
    const narrow = type === 'I32' ? ({ narrow: true } as const) : {};
    this.add(gguf, [...t.shape].reverse(), type, [{ tensor: t.name, rows: null, transpose: false, permute, ...narrow }]);
  }
  /** Vectors, routers and what mixes streams are F32, and tables I32, whatever is asked for. */
  type(t: LogicalTensor): GgufTypeName {
    if (t.role === 'table') return 'I32';
    return t.shape.length < 2 || ['router', 'router_bias', 'bias', 'hyper'].includes(t.role) ? 'F32' : this.#choose(t);
  }
  /** Blocks lie along the first dim; where it is not a whole number of them the tensor is F16, as in llama.cpp’s converter. */
  add(name: string, dims: readonly number[], asked: GgufTypeName, sources: readonly GgufPiece[], constant: Uint8Array | null = null): void {
    const type = dims[0]! % ggufTypes[asked].elements === 0 ? asked : 'F16';
    this.tensors.push({ name, dims, type: ggufTypes[type].id, sources, constant });
  }
  /** llama.cpp v0.5.0 turns the index's rows by Hadamard matrices; with 16, 32, 96 and 192 columns it stopped at GGML_ASSERT, with 64 and 128 it ran. */
  index(size: number): void {
    if (size < 64 || (size & (size - 1)) !== 0)
      this.left.push(`llama.cpp loads the file but runs no index of ${size} columns: it wants a power of two from 64 on`);
  }
  drop(fits: (t: LogicalTensor) => boolean): number {
    let n = 0;
    for (const [name, t] of this.#logical)
      if (!this.#taken.has(name) && fits(t)) {
        this.#taken.add(name);
        n++;
      }
    return n;
  }
  rest(): void {
    for (const name of this.#logical.keys()) if (!this.#taken.has(name)) this.refuse(`${this.arch} has no place for ${name}`);
  }
}
