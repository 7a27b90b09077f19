// bundle.json: what a bundle is, and the SHA-256 of every file in it. Written last; a directory without one is no bundle.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Problem, problem, Refusal } from '../../ir/problem.js';
import { entriesBelow, filesBelow, sha256File, writeText } from './directory.js';
import type { Totals } from './ledger.js';

/** What was proved of a target's native program, and on what. null: not tried here. */
export interface Verified {
  readonly reference: string | null;
  readonly emulated: string | null;
  readonly compiled: string | null;
  readonly device: string | null;
}
export interface TargetEntry {
  readonly target: string;
  readonly chip: string;
  /** Directory inside the bundle. */
  readonly directory: string;
  /** The directory an engine loads: its form, who reads it, and what the ledger adds up to. */
  readonly engine: {
    readonly format: string;
    readonly recipe: string;
    /** Engine and version that were asked for; null: what all known ones read. */
    readonly runtime: string | null;
    readonly readers: string;
    readonly totals: Totals['totals'];
  };
  readonly verified: Verified;
  readonly notes: readonly string[];
}
export interface Manifest {
  readonly format: 'hkgai-bundle-1';
  readonly hkgai: string;
  readonly model: { readonly architecture: string; readonly parameters: number; readonly vocabulary: number };
  /** SHA-256 over the sorted (name, dtype, shape, place) of all source tensors and the config: which checkpoint this was. */
  readonly source: { readonly digest: string; readonly tensors: number; readonly bytes: number };
  readonly recipe: Readonly<Record<string, unknown>>;
  readonly limits: Readonly<Record<string, number>>;
  readonly notes: readonly string[];
  readonly targets: readonly TargetEntry[];
  readonly files: Readonly<Record<string, { readonly sha256: string; readonly bytes: number }>>;
}

const noBundle = (dir: string): Problem =>
  problem('HK3801', `${dir} is no bundle: it has no bundle.json`, { next: 'Compile one with hkgai compile MODEL -o OUT.' });
const brokenManifest = (file: string, why: string): Problem =>
  problem('HK3802', `${file} cannot be read as a manifest: ${why}`, { places: [{ file }], next: 'Compile the bundle again.' });
const changedFile = (file: string, is: string, was: string): Problem =>
  problem('HK6801', `${file} is not what was compiled`, {
    places: [{ file, shows: `sha256 ${is}, recorded ${was}` }],
    why: 'The file was changed or damaged after the bundle was written.',
    next: 'Copy the bundle again or compile it again.',
  });
const lostFile = (file: string): Problem =>
  problem('HK6802', `${file} is missing from the bundle`, { places: [{ file }], next: 'Copy the bundle again or compile it again.' });
/** Files that are named one by one. */
const mostNamed = 20;
const unknownFiles = (files: readonly string[]): Problem =>
  problem(
    'HK6803',
    files.length === 1 ? 'The bundle has a file that was not compiled' : `The bundle has ${files.length} files that were not compiled`,
    {
      places: files.slice(0, mostNamed).map(file => ({ file: shown(file) })),
      why: `${files.length > mostNamed ? `And ${files.length - mostNamed} more. ` : ''}bundle.json does not name ${files.length === 1 ? 'it' : 'them'}: nothing says where ${files.length === 1 ? 'it is' : 'they are'} from, and what reads the directory may take ${files.length === 1 ? 'it' : 'them'} for a part of the bundle.`,
      next: 'Move what is yours out of the bundle: fill.sh has --to, build.sh has HKGAI_OUT. Else compile it again.',
    },
  );
/** A name as it is, or as JSON has it where it holds control characters. */
const shown = (name: string): string => (/\p{Cc}/u.test(name) ? JSON.stringify(name) : name);

/** Write bundle.json into `dir`, with the hash of every file below; those that are `known` are not read again. */
export function writeManifest(
  dir: string,
  about: Omit<Manifest, 'files' | 'format'>,
  known: ReadonlyMap<string, { readonly sha256: string; readonly bytes: number }> = new Map(),
): Manifest {
  const files = Object.fromEntries(filesBelow(dir).map(f => [f, known.get(f) ?? sha256File(join(dir, f))]));
  const manifest: Manifest = { format: 'hkgai-bundle-1', ...about, files };
  writeText(dir, 'bundle.json', JSON.stringify(manifest, null, 2) + '\n');
  return manifest;
}

export function readManifest(dir: string): Manifest {
  const file = join(dir, 'bundle.json');
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (e) {
    if ((e as NodeJS.ErrnoException).code === 'ENOENT') throw new Refusal([noBundle(dir)]);
    throw e;
  }
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (e) {
    throw new Refusal([brokenManifest(file, (e as Error).message)]);
  }
  const m = value as Partial<Manifest> | null;
  if (m?.format !== 'hkgai-bundle-1') throw new Refusal([brokenManifest(file, 'its format is not hkgai-bundle-1')]);
  if (!Array.isArray(m.targets) || typeof m.files !== 'object' || m.files === null)
    throw new Refusal([brokenManifest(file, 'targets or files are missing')]);
  return m as Manifest;
}

/**
 * Every file against its recorded hash, and nothing beside them: a run or a check of a bundle writes nothing into it (src/build.ts builds in the cache),
 * so that whatever else lies there is somebody's.
 */
export function checkFiles(dir: string, manifest: Manifest): readonly Problem[] {
  const known = new Set(['bundle.json', ...Object.keys(manifest.files)]);
  const unknown = entriesBelow(dir).filter(f => !known.has(f));
  const bad = Object.entries(manifest.files).flatMap(([name, recorded]) => {
    try {
      const now = sha256File(join(dir, name));
      return now.sha256 === recorded.sha256 ? [] : [changedFile(name, now.sha256, recorded.sha256)];
    } catch (e) {
      if ((e as NodeJS.ErrnoException).code === 'ENOENT') return [lostFile(name)];
      throw e;
    }
  });
  return unknown.length ? [...bad, unknownFiles(unknown)] : bad;
}
