// The work of one output file, as data that a thread is sent: what to read, what to make of it, where it goes. Offsets are absolute in the file.
import { codedSizes, type Form, ggufRow } from '../../ir/form.js';
import type { Part, Span } from '../../ir/graph.js';
import { elements, type Storage } from '../../ir/storage.js';
import type { Figures } from './kernels.js';

/** Where the pieces of a written matrix go. */
export interface Regions {
  readonly codes: number;
  readonly scales: number | null;
  /** Packed zero points [ceil(rows / 8), groups] i32. */
  readonly zeros: number | null;
  /** 8 * sum of codes * scale over equal parts of a row: f32 [rows, chunks]. */
  readonly sums: { readonly at: number; readonly chunks: number } | null;
}
export type Step =
  /** A source tensor as it is. */
  | { readonly kind: 'copy'; readonly source: Span; readonly out: number }
  /** A source tensor of 64-bit numbers as 32-bit ones; they fit. */
  | { readonly kind: 'narrow'; readonly source: Span; readonly out: number }
  | Renumber
  /** Bytes known beforehand. */
  | { readonly kind: 'put'; readonly out: number; readonly bytes: Uint8Array }
  /** One byte over and over. */
  | { readonly kind: 'fill'; readonly out: number; readonly size: number; readonly byte: number }
  /** A source tensor that is read for its hash alone. */
  | { readonly kind: 'digest'; readonly source: Span }
  | MatrixStep;
/** A source tensor that speaks of experts, under their new numbers; it is held in memory whole. */
export interface Renumber {
  readonly kind: 'renumber';
  readonly source: Span;
  readonly out: number;
  /** The old row of each new one; null: all in their order. */
  readonly rows: readonly number[] | null;
  /** The new number of each old one, which the tensor's 64-bit numbers are; null: they are none. */
  readonly ids: readonly number[] | null;
  /** Numbers become 32-bit ones. */
  readonly narrow: boolean;
}
export interface MatrixStep {
  readonly kind: 'matrix';
  readonly part: Part;
  readonly storage: Storage;
  /** Of the whole source matrix. */
  readonly rows: number;
  readonly columns: number;
  /** Rows taken: all where null. */
  readonly take: readonly [from: number, to: number] | null;
  /** What is done to the taken rows as a block before they are written; they must fit in memory. */
  readonly turn: 'none' | 'transpose' | 'interleave-halves';
  readonly form: Form;
  readonly regions: Regions;
  /** Name of what is written, as the ledger has it. */
  readonly name: string;
  /** Weights of the columns' errors: key of a vector f32 [columns] in the statistics. */
  readonly statistics: string | null;
}
export interface FileWork {
  readonly index: number;
  /** Inside the output directory. */
  readonly path: string;
  readonly size: number;
  readonly steps: readonly Step[];
  /** A source file that goes on whole under its own name: it is read for its hashes, not written. Steps are digests in the order of the file. */
  readonly link?: true;
  /** Source bytes, for progress. */
  readonly source: number;
  /** What need not be made again. */
  readonly earlier?: Earlier;
}
/** An earlier output that bytes are taken from. */
export interface Donor {
  readonly path: string;
  /** Strict: any change since makes it another file. */
  readonly identity: string;
}
/** What of a file was made before. */
export interface Earlier {
  readonly donors: readonly Donor[];
  /** By step: null where it is to be made. */
  readonly steps: readonly (EarlierStep | null)[];
  /** Tensors that are taken. */
  readonly tensors: number;
}
export interface EarlierStep {
  /** Index into the donors, and where in it each range that the step writes begins; null where nothing is written. */
  readonly from: { readonly donor: number; readonly at: readonly number[] } | null;
  readonly result: StepResult;
}
/** The ranges of the output that a step writes from its sources, each with its bytes: codes, scales, zero points, sums. */
export function writes(s: Step): readonly (readonly [at: number, bytes: number])[] {
  if (s.kind === 'copy' || s.kind === 'narrow' || s.kind === 'renumber') {
    const bytes = s.source.bytes[1] - s.source.bytes[0];
    return [[s.out, s.kind === 'narrow' || (s.kind === 'renumber' && s.narrow) ? bytes / 2 : bytes]];
  }
  if (s.kind !== 'matrix') return [];
  const taken = s.take ? s.take[1] - s.take[0] : s.rows;
  const [rows, columns] = s.turn === 'transpose' ? [s.columns, taken] : [taken, s.columns];
  const { codes, scales, zeros, sums } = s.regions;
  if (s.form.kind === 'plain') return [[codes, rows * ((columns * elements[s.form.element].bits) / 8)]];
  if (s.form.kind === 'gguf') return [[codes, rows * ggufRow(s.form.type, columns)]];
  if (s.form.kind !== 'coded') throw new Error('a kept tensor is copied, not converted');
  const z = codedSizes(s.form, rows, columns);
  return [
    [codes, z.codes],
    ...(scales === null ? [] : [[scales, z.scales] as const]),
    ...(zeros === null ? [] : [[zeros, z.zeros] as const]),
    ...(sums === null ? [] : [[sums.at, rows * sums.chunks * 4] as const]),
  ];
}
/** Source bytes that a step reads, scales with them. */
export function reads(s: Step): number {
  const size = (span: Span): number => span.bytes[1] - span.bytes[0];
  if (s.kind === 'copy' || s.kind === 'narrow' || s.kind === 'renumber' || s.kind === 'digest') return size(s.source);
  if (s.kind !== 'matrix') return 0;
  const all = size(s.part) + (s.part.scale ? size(s.part.scale) : 0);
  return s.take ? Math.floor((all / s.rows) * (s.take[1] - s.take[0])) : all;
}
/** What came of a step that read or wrote something worth recording. */
export interface StepResult {
  /** Of the source tensor's bytes, and of its scales'. */
  readonly sources: readonly (readonly [tensor: string, sha256: string])[];
  readonly name: string | null;
  readonly figures: Figures | null;
}
export interface FileResult {
  readonly index: number;
  readonly path: string;
  readonly sha256: string;
  readonly bytes: number;
  readonly steps: readonly StepResult[];
  /** Seconds a thread spent on each kind of work. */
  readonly seconds: { readonly read: number; readonly convert: number; readonly hash: number; readonly write: number };
  /** Tensors that were taken from earlier outputs. */
  readonly taken?: number;
}
/** Thrown between two pieces when the run is to stop. */
export class Interrupted extends Error {
  constructor() {
    super('interrupted');
    this.name = 'Interrupted';
  }
}
