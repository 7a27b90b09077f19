// What a target is: how to write its language, and what its chips are, as data.
import type { Program } from '../ir/program.js';
import type { Kernel } from '../ir/tile.js';
import type { Engines } from './engine.js';

export interface SourceFile {
  /** Inside the target's native directory, with `/`. */
  readonly path: string;
  readonly text: string;
  readonly executable?: true;
}
/** A weight file as the plan saw it. */
export interface WeightFile {
  readonly name: string;
  readonly bytes: number;
  /** The 8 bytes of length and the header. */
  readonly headerBytes: number;
  /** FNV-1a of those bytes, 32 bits. */
  readonly headerHash: number;
}
/** A figure with where it is from; absent where it is not known. */
export interface Fact<T> {
  readonly value: T;
  readonly source: string;
}
export interface Chip {
  readonly name: string;
  readonly about: string;
  /** Bytes that one block may hold in tiles; null where nothing limits it. */
  readonly tileBytes: Fact<number> | null;
  /** Only directories for engines are written for it yet: no kernels. */
  readonly engineOnly?: true;
}
export interface Target {
  readonly name: string;
  readonly about: string;
  readonly language: string;
  readonly chips: readonly Chip[];
  /** How what this target prints was proved so far, in plain words. */
  readonly proved: string;
  /** Why a kernel cannot run on a chip, as a sentence; null where it can. */
  objection(kernel: Kernel, chip: Chip): string | null;
  /** A kernel in the target's language. */
  print(kernel: Kernel): string;
  /** The directories that existing engines load. */
  readonly engines: Engines;
  /** The whole native program; null where this target has none yet. */
  readonly native: ((program: Program, files: readonly WeightFile[]) => readonly SourceFile[]) | null;
}
