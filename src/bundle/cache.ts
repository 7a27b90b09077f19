// What was hashed and what was made before: keyed by content, never by path. A source file is known again by its place on the disk, size and times.
import { createHash } from 'node:crypto';
import { mkdirSync, readFileSync, renameSync, statSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';

export const cacheRoot = (): string => process.env.HKGAI_CACHE ?? join(process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'hkgai');

/** Device, inode, size and times of a file: it changes when the file is written. */
export function identity(path: string): string {
  const s = statSync(path, { bigint: true });
  return `${s.dev}:${s.ino}:${s.size}:${s.mtimeNs}`;
}
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
    mkdirSync(dir, { recursive: true });
    const temporary = join(dir, `${name}.${process.pid}`);
    writeFileSync(temporary, JSON.stringify(value));
    renameSync(temporary, join(dir, name));
  } catch {
    // a cache that cannot be written is no cache
  }
}

export interface SourceDigests {
  readonly sha256: string | null;
  readonly tensors: Readonly<Record<string, string>>;
}
export interface Made {
  readonly path: string;
  readonly identity: string;
  readonly result: { readonly sha256: string; readonly bytes: number; readonly [k: string]: unknown };
}
/** Digests of source files, and files made of known content. */
export class Cache {
  readonly #root: string;
  constructor(root = cacheRoot()) {
    this.#root = root;
  }
  source(path: string): SourceDigests | null {
    return read(join(this.#root, 'sources', `${key(identity(path))}.json`));
  }
  keepSource(path: string, was: string, d: SourceDigests): void {
    if (identity(path) === was) write(join(this.#root, 'sources'), `${key(was)}.json`, d);
  }
  /** A file made of this content that is still as it was made; null where there is none. */
  made(content: string): Made | null {
    const m = read<Made>(join(this.#root, 'made', `${content}.json`));
    if (!m) return null;
    try {
      return identity(m.path) === m.identity ? m : null;
    } catch {
      return null;
    }
  }
  keepMade(content: string, path: string, result: Made['result']): void {
    write(join(this.#root, 'made'), `${content}.json`, { path, identity: identity(path), result } satisfies Made);
  }
}
