// What a target is: how to write its language, and what its chips are, as data.
import type { Program } from '../ir/program.js';
import type { Kernel } from '../ir/tile.js';
import type { Engines } from './engine.js';
import type { Launch } from './launch.js';

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
/** One way that bytes leave a device: a rate of one direction, and how many devices it joins. */
export interface Link {
  /** The vendor's word for it, as NVLink 4, HCCS, BLink, RoCE. */
  readonly name: string;
  /** Bytes a second that one device sends, all its links of this kind together. */
  readonly bytesPerSecond: Fact<number> | null;
  /** Seconds of a message's way; null where not known. */
  readonly latency: Fact<number> | null;
  /** Devices that it joins directly: more are reached through something slower. */
  readonly joins: Fact<number> | null;
}
/** Kinds of number that a matrix unit may multiply. */
export type PeakKind = 'f32' | 'tf32' | 'f16' | 'bf16' | 'fp8' | 'int8' | 'fp4' | 'int4';
/** What a plan needs of a device. A device is one die, as software counts: a package may hold several. Null: not published, never guessed. */
export interface Device {
  readonly diesPerPackage: Fact<number> | null;
  /** Bytes of one die. */
  readonly memory: Fact<number> | null;
  /** Bytes a second of one die. */
  readonly memoryBandwidth: Fact<number> | null;
  /** Dense operations a second of one die (a multiply-add is two), by kind. Absent: it has no unit for it. Null: it has, and its rate is not known. */
  readonly peak: Readonly<Partial<Record<PeakKind, Fact<number> | null>>>;
  /** Within a node, fastest first; the last one is what reaches all its devices. */
  readonly inNode: readonly Link[];
  /** Between nodes. */
  readonly betweenNodes: readonly Link[];
  /** Devices (dies) of a usual server. */
  readonly perNode: Fact<number> | null;
  /** Watts of one die at most. */
  readonly power: Fact<number> | null;
  /** What the vendor's tools and cluster software call it, as `--soc-version` or a Kubernetes resource. */
  readonly names: Readonly<Record<string, Fact<string>>>;
}
export interface Chip {
  readonly name: string;
  readonly about: string;
  /** The chip whose engines, formats and refusals it shares. */
  readonly family?: string;
  /** Null where the name stands for no chip in particular. */
  readonly device?: Device | null;
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
  readonly native: ((program: Program, files: readonly WeightFile[], chip: Chip) => readonly SourceFile[]) | null;
  /** Why a chip cannot run a program, as a sentence; null where it can. Absent: nothing but single kernels is ever refused. */
  refuses?(program: Program, chip: Chip): string | null;
  /** What stands in for the chip and its vendor's interface on any machine: laid beside the native sources, its emulate.sh builds what build.sh builds. */
  readonly emulator?: () => readonly SourceFile[];
  /** Files that start its engines; absent where there is no engine to start. */
  readonly launch?: Launch;
}
