// What was hashed and what was made before: keyed by content, never by path. A source file is known again by its place on the disk, size and times.
import { createHash } from 'node:crypto';
import { readFileSync, renameSync, statSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { identity, strictIdentity, withoutChange } from '../checkpoint/identity.js';
import { makeDirectory, sha256File } from './directory.js';

/** A variable that is empty is one that is not set. */
export const cacheRoot = (): string => process.env.HKGAI_CACHE || join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'hkgai');

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
/** A file's digest, and what was recorded of what it was made of. */
export interface Result {
  readonly sha256: string;
  readonly bytes: number;
  readonly [k: string]: unknown;
}
/** A file of known content, and its strict identity as it was found. */
export interface Place {
  readonly path: string;
  readonly identity: string;
}
export interface Made extends Place {
  readonly result: Result;
}
/** A tensor of a made file: what it is made of, where its ranges begin, and which of the file's results are its own. */
export interface Piece {
  readonly key: string;
  readonly at: readonly number[];
  readonly results: readonly number[];
}
/** On the disk: where the same content was put, newest first, and what lies in it. */
interface Kept {
  readonly places: readonly Place[];
  readonly result: Result;
  readonly pieces: readonly Piece[];
  /** Of result and pieces: a file of a damaged disk is no record. */
  readonly check: string;
}
const checkOf = (result: unknown, pieces: unknown): string => key(JSON.stringify([result, pieces]));
const mostPlaces = 8;
/** A file that was made of a source file, and the first letters of the keys of its pieces, in a row. */
export interface Lead {
  readonly content: string;
  readonly keys: string;
}
/** Letters of a key in a lead; the record that it leads to has the whole of it. */
export const leadLength = 12;
const mostLeads = 256;

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
      typeof k.result.bytes === 'number' &&
      Array.isArray(k.pieces) &&
      k.check === checkOf(k.result, k.pieces);
    return sound ? k : null;
  }
  /** A file made of this content that is still as it was made; null where there is none. One that was touched since is hashed again first. */
  made(content: string): Made | null {
    const k = this.#kept(content);
    if (!k) return null;
    const place = find(k, path => statSync(path).size === k.result.bytes);
    return place && { ...place, result: k.result };
  }
  /** What lies in a file made of this content, and where it is to be found. */
  pieces(content: string): { readonly result: Result; readonly pieces: readonly Piece[]; place(wanted: number): Place | null } | null {
    const k = this.#kept(content);
    if (!k) return null;
    return {
      result: k.result,
      pieces: k.pieces,
      /** `wanted`: bytes to be taken from it. Where links to it came or went it is hashed first, if that is for much of it. */
      place: wanted => find(k, (path, was) => 2 * wanted >= k.result.bytes && identity(path) === withoutChange(was)),
    };
  }
  keepMade(content: string, path: string, result: Result, pieces: readonly Piece[]): void {
    try {
      const before = this.#kept(content)?.places.filter(p => p.path !== path) ?? [];
      const places = [{ path, identity: strictIdentity(path) }, ...before].slice(0, mostPlaces);
      write(join(this.#root, 'made'), `${content}.json`, { places, result, pieces, check: checkOf(result, pieces) } satisfies Kept);
    } catch {
      // gone meanwhile
    }
  }
  /** Files that were made of a source file of this content, newest first. */
  leads(source: SourceDigests): readonly Lead[] {
    const list = read<readonly Lead[]>(join(this.#root, 'leads', `${sourceKey(source)}.json`));
    return Array.isArray(list) ? list.filter(l => isDigest(l?.content) && typeof l.keys === 'string') : [];
  }
  keepLeads(source: SourceDigests, leads: readonly Lead[]): void {
    const now = new Set(leads.map(l => l.content));
    const before = this.leads(source).filter(l => !now.has(l.content));
    write(join(this.#root, 'leads'), `${sourceKey(source)}.json`, [...leads, ...before].slice(0, mostLeads));
  }
}
const sourceKey = (d: SourceDigests): string => key(JSON.stringify(d.tensors));

/** A place whose file is as it was, or one that may be hashed and has the recorded digest still. */
function find(k: Kept, mayHash: (path: string, was: string) => boolean): Place | null {
  const touched: Place[] = [];
  for (const p of k.places) {
    try {
      const now = strictIdentity(p.path);
      if (now === p.identity) return p;
      if (mayHash(p.path, p.identity)) touched.push({ path: p.path, identity: now });
    } catch {
      // gone
    }
  }
  for (const p of touched) {
    try {
      if (sha256File(p.path).sha256 === k.result.sha256 && strictIdentity(p.path) === p.identity) return p;
    } catch {
      // not to be read
    }
  }
  return null;
}
