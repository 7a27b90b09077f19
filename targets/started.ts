// An engine as its target says it: the command on each node, what it stands in, what it needs of a pod. Scripts and manifests are made of this.
import type { Arg, Word } from './flags.js';
import type { Parallel } from './launch.js';
import type { Fact } from './target.js';

export interface Env {
  readonly name: string;
  readonly value: Word;
}
/** A directory or file of the host that the container has too, at the same path. */
export interface HostPath {
  readonly path: string;
  readonly kind: 'Directory' | 'File';
}
export interface StartedEngine {
  /** Directory below launch/. */
  readonly name: string;
  readonly about: string;
  /** The command before its options. */
  readonly program: readonly string[];
  /** The image's own entry point must stay: it sets what the command needs. */
  readonly keepsEntrypoint?: true;
  /** Options of the leading node, and of the others; null: it cannot be started so without Ray. */
  readonly args: ((leads: boolean) => readonly Arg[]) | null;
  /** Options of the leading node with Ray; null where the engine has nothing of Ray's, or one node alone. */
  readonly ray: (() => readonly Arg[]) | null;
  readonly env: readonly Env[];
  readonly rayEnv: readonly Env[];
  /** Set where the interface of a node is named; null: every node needs one. */
  readonly interfaceEnv: { readonly names: readonly string[]; readonly needed: boolean };
  /** A documented image; null: the site says which. */
  readonly image: Fact<string> | null;
  /** Options of `docker run`, one a line. */
  readonly docker: readonly string[];
  /** Options of `docker run` where a path of the host is there. */
  readonly dockerIf: readonly { readonly path: string; readonly options: string }[];
  readonly pod: {
    /** Kubernetes' name of a device; null: the site says which. */
    readonly resource: Fact<string> | null;
    readonly runtimeClass?: string;
    readonly nodeSelector?: Readonly<Record<string, string>>;
    readonly hostPaths: readonly HostPath[];
    readonly shm: string;
    readonly privileged?: true;
    readonly capabilities: readonly string[];
    /** Nodes that do not lead answer /health too. */
    readonly followersAnswer: boolean;
  };
  /** What a reader should know: facts with sources, and what is not known. */
  readonly notes: readonly string[];
  /** Files of its own beside the scripts. */
  readonly extra?: (p: Parallel) => readonly { readonly path: string; readonly text: string }[];
  /** Blanks of its own. */
  readonly blanks?: readonly Blank[];
  /** Files beside a script that must have been filled in before it starts. */
  readonly needsFiles?: readonly string[];
  /** No manifest for Kubernetes: why. */
  readonly noManifest?: string;
}
/** Something that only the site knows. */
export interface Blank {
  /** Without HKGAI_. */
  readonly name: string;
  /** What it is, as a sentence's beginning. */
  readonly about: string;
  /** How to find it out. */
  readonly how: string;
  /** Where something is known already. */
  readonly value?: string;
  /** May stay blank. */
  readonly optional?: true;
  /** Another for each engine: written as ENGINE/NAME. */
  readonly own?: true;
  /**
   * What a value has to look like: an absolute path; sha256: and 64 digits; a name that ends in @ and such a digest; a DNS label, or subdomain, as names
   * of Kubernetes are; an address or a host's name.
   */
  readonly form?: 'path' | 'digest' | 'pinned' | 'label' | 'subdomain' | 'address';
  /** So many values, with commas between. */
  readonly list?: number;
}
