// What was hashed and what was made before: keyed by content, never by path. A source file is known again by its place on the disk, size and times.
import { createHash } from 'node:crypto';
import { readFileSync, renameSync, statSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { makeDirectory, sha256File } from './directory.js';

/** A variable that is empty is one that is not set. */
export const cacheRoot = (): string => process.env.HKGAI_CACHE || join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'hkgai');

/** Device, inode, size and time of a file: it changes when the file is written, unless somebody sets the time back. */
export function identity(path: string): string {
  const s = statSync(path, { bigint: true });
  return `${s.dev}:${s.ino}:${s.size}:${s.mtimeNs}`;
}
/** With the time of the last change of any kind, which nobody can set back. Each link that is made or removed changes it too. */
export function strictIdentity(path: string): string {
  const s = statSync(path, { bigint: true });
  return `${s.dev}:${s.ino}:${s.size}:${s.mtimeNs}:${s.ctimeNs}`;
}
/** Of a source: strict where the file has one name; bundles that share it by a hard link come and go. */
const sourceIdentity = (path: string): string => (statSync(path).nlink === 1 ? strictIdentity(path) : identity(path));
const key = (text: string): string => createHash('sha256').update(text).digest('hex');

function read<T>(file: string): T | null {
  try {
    return JSON.parse(readFileSync(file, 'utf8')) as T;
  } catch {
    return null; // absent or damaged: it is made anew
  }
}
function write(dir: string, name: string, value: unknown): void {
  try {
    makeDirectory(dir);
    const temporary = join(dir, `${name}.${process.pid}`);
    writeFileSync(temporary, JSON.stringify(value));
    renameSync(temporary, join(dir, name));
  } catch {
    // a cache that cannot be written is no cache
  }
}
const isDigest = (x: unknown): x is string => typeof x === 'string' && /^[0-9a-f]{64}$/.test(x);

export interface SourceDigests {
  readonly sha256: string | null;
  readonly tensors: Readonly<Record<string, string>>;
}
export interface Made {
  readonly path: string;
  readonly result: { readonly sha256: string; readonly bytes: number; readonly [k: string]: unknown };
}
/** On the disk: where the same content was put, newest first. */
interface Kept {
  readonly places: readonly { readonly path: string; readonly identity: string }[];
  readonly result: Made['result'];
}
const mostPlaces = 8;

/** Digests of source files, and files made of known content. */
export class Cache {
  readonly #root: string;
  constructor(root = cacheRoot()) {
    this.#root = root;
  }
  source(path: string): SourceDigests | null {
    const d = read<SourceDigests>(join(this.#root, 'sources', `${key(sourceIdentity(path))}.json`));
    const sound =
      typeof d?.tensors === 'object' &&
      d.tensors !== null &&
      Object.values(d.tensors).every(isDigest) &&
      (d.sha256 === null || isDigest(d.sha256));
    return sound ? d : null;
  }
  /** `was`: the file's identity before it was read. */
  keepSource(path: string, was: string, d: SourceDigests): void {
    try {
      if (identity(path) === was) write(join(this.#root, 'sources'), `${key(sourceIdentity(path))}.json`, d);
    } catch {
      // gone meanwhile
    }
  }
  #kept(content: string): Kept | null {
    const k = read<Kept>(join(this.#root, 'made', `${content}.json`));
    const sound =
      Array.isArray(k?.places) &&
      k.places.every(p => typeof p?.path === 'string' && typeof p.identity === 'string') &&
      isDigest(k.result?.sha256) &&
      typeof k.result.bytes === 'number';
    return sound ? k : null;
  }
  /** A file made of this content that is still as it was made; null where there is none. One that was touched since is hashed again first. */
  made(content: string): Made | null {
    const k = this.#kept(content);
    if (!k) return null;
    const touched: string[] = [];
    for (const p of k.places) {
      try {
        const now = strictIdentity(p.path);
        if (now === p.identity) return { path: p.path, result: k.result };
        if (statSync(p.path).size === k.result.bytes) touched.push(p.path);
      } catch {
        // gone
      }
    }
    for (const path of touched) {
      try {
        if (sha256File(path).sha256 === k.result.sha256) return { path, result: k.result };
      } catch {
        // not to be read
      }
    }
    return null;
  }
  keepMade(content: string, path: string, result: Made['result']): void {
    try {
      const before = this.#kept(content)?.places.filter(p => p.path !== path) ?? [];
      const places = [{ path, identity: strictIdentity(path) }, ...before].slice(0, mostPlaces);
      write(join(this.#root, 'made'), `${content}.json`, { places, result } satisfies Kept);
    } catch {
      // gone meanwhile
    }
  }
}
