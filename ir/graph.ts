// The graph: a readonly list of values in order, and outputs. Weights are where their bytes are, never arrays.
import type { OpName, Ops } from './ops.js';
import type { Storage } from './storage.js';

/**
 * The size of a dimension: a number; a symbol that a run settles, with its largest value; or whole-number arithmetic of these.
 * Symbols: `tokens` (rows of this call, over all sequences), `wanted` (rows whose logits are asked for), `sequences`, `context` (positions a sequence may hold).
 */
export type Dim = number | DimSymbol | DimOp;
export type SymbolName = 'tokens' | 'wanted' | 'sequences' | 'context';
export interface DimSymbol {
  readonly symbol: SymbolName;
}
export interface DimOp {
  readonly op: '+' | '*' | 'ceildiv' | 'min';
  readonly a: Dim;
  readonly b: Dim;
}
/** The largest value of each symbol; fixed when a graph is compiled. */
export type Limits = Readonly<Record<SymbolName, number>>;

export interface Type {
  readonly shape: readonly Dim[];
  readonly storage: Storage;
}

/** A stretch of a file. */
export interface Span {
  /** Tensor name in the file's own spelling. */
  readonly tensor: string;
  /** File name inside the checkpoint directory. */
  readonly file: string;
  /** Absolute byte range [from, to). */
  readonly bytes: readonly [from: number, to: number];
}
/** Where one matrix of a weight comes from. A stacked weight has one part for each of its leading index. */
export interface Part extends Span {
  readonly scale?: Span;
}
/**
 * Where a part of a whole weight lies: the value's own shape, from these places on. The bytes of its parts are those of the whole matrices, so that
 * a reader finds rows and columns where they are; of a stack, only the matrices that are kept have a part.
 */
export interface Slice {
  /** The shape of the whole weight. */
  readonly of: readonly number[];
  /** The first place along each dimension. */
  readonly from: readonly number[];
}
export interface Origin {
  /** Dotted place in the model: `layers.3.mlp.experts.down_proj`, `layers.3.out`. */
  readonly role: string;
  /** Decoder layer, or -1 outside the layers. MTP blocks count on from the last layer. */
  readonly layer: number;
  /** Of weights: the source parts in the order of the leading dimension; empty for what is computed. */
  readonly parts: readonly Part[];
  /** Of weights that a rank holds a part of; absent where it holds the whole. */
  readonly slice?: Slice;
  /** Passes that remade this value, oldest first. */
  readonly passes: readonly string[];
}

interface Common {
  /** Unique in its graph: letters, digits, dots and underscores. */
  readonly name: string;
  readonly type: Type;
  readonly origin: Origin;
}
/** A value is what one op gives: a discriminated union on `op` (rows in ops.ts). */
export type ValueOf<K extends OpName> = Common & {
  readonly op: K;
  readonly inputs: Ops[K]['inputs'];
  readonly attributes: Ops[K]['attributes'];
};
export type Value = { readonly [K in OpName]: ValueOf<K> }[OpName];

export interface Graph {
  /** What the model is called in messages and generated code, for example `deepseek_v3`. */
  readonly name: string;
  readonly limits: Limits;
  /** Of a graph that is one of several which run together: its number, from 0, and how many there are. */
  readonly rank?: { readonly index: number; readonly of: number };
  /** In order: every input stands before its user. */
  readonly values: readonly Value[];
  /** `logits` [wanted, vocab], and where the model has them `mtp.0.logits`. Of a rank also what it sends, and `logits` only in the last stage. */
  readonly outputs: Readonly<Record<string, Value>>;
}

export const tokens: DimSymbol = { symbol: 'tokens' };
export const wanted: DimSymbol = { symbol: 'wanted' };
export const sequences: DimSymbol = { symbol: 'sequences' };
export const context: DimSymbol = { symbol: 'context' };

/** The size of a dimension under given values of the symbols. */
export function sizeOf(d: Dim, of: Readonly<Record<SymbolName, number>>): number {
  if (typeof d === 'number') return d;
  if ('symbol' in d) return of[d.symbol];
  const a = sizeOf(d.a, of);
  const b = sizeOf(d.b, of);
  switch (d.op) {
    case '+':
      return a + b;
    case '*':
      return a * b;
    case 'ceildiv':
      return Math.ceil(a / b);
    case 'min':
      return Math.min(a, b);
  }
}

/** `tokens`, `4096`, `ceildiv(context, 4)`. */
export function showDim(d: Dim): string {
  if (typeof d === 'number') return String(d);
  if ('symbol' in d) return d.symbol;
  return d.op === 'ceildiv' || d.op === 'min' ? `${d.op}(${showDim(d.a)}, ${showDim(d.b)})` : `(${showDim(d.a)} ${d.op} ${showDim(d.b)})`;
}
export const sameDim = (a: Dim, b: Dim): boolean => showDim(a) === showDim(b);
export const sameShape = (a: readonly Dim[], b: readonly Dim[]): boolean =>
  a.length === b.length && a.every((d, i) => sameDim(d, b[i] as Dim));

/** The inputs of a value by name, those that are there. */
export function inputsOf(v: Value): readonly (readonly [name: string, value: Value])[] {
  return Object.entries(v.inputs as Readonly<Record<string, Value | undefined>>).filter((e): e is [string, Value] => e[1] !== undefined);
}

/** The values that the given outputs need, in the graph's order. */
export function needed(graph: Graph, outputs: readonly Value[]): readonly Value[] {
  const seen = new Set<Value>();
  const stack = [...outputs];
  for (let v = stack.pop(); v !== undefined; v = stack.pop()) {
    if (seen.has(v)) continue;
    seen.add(v);
    for (const [, i] of inputsOf(v)) stack.push(i);
  }
  return graph.values.filter(v => seen.has(v));
}
