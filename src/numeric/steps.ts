// The work of one output file, as data that a thread is sent: what to read, what to make of it, where it goes. Offsets are absolute in the file.
import type { Form } from '../../ir/form.js';
import type { Part, Span } from '../../ir/graph.js';
import type { Storage } from '../../ir/storage.js';
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
  /** Bytes known beforehand. */
  | { readonly kind: 'put'; readonly out: number; readonly bytes: Uint8Array }
  /** One byte over and over. */
  | { readonly kind: 'fill'; readonly out: number; readonly size: number; readonly byte: number }
  /** A source tensor that is read for its hash alone. */
  | { readonly kind: 'digest'; readonly source: Span }
  | MatrixStep;
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
}
/** Thrown between two pieces when the run is to stop. */
export class Interrupted extends Error {
  constructor() {
    super('interrupted');
    this.name = 'Interrupted';
  }
}
