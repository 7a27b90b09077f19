// Room on the disk: what a compile will write beside its output and at it, and whether there is as much.
import { existsSync, readdirSync, statfsSync, statSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { type Problem, problem, Refusal } from '../ir/problem.js';
import type { Cache } from './bundle/cache.js';
import { workPlace } from './bundle/work.js';
import type { Prepared } from './compile.js';
import { contentOf } from './content.js';
import { outputCount } from './engine-plan.js';

const noRoom = (place: string, needed: number, free: number): Problem =>
  problem('HK5104', `The output needs ${mib(needed)}, but ${place} has ${mib(free)} free`, {
    why: 'Nothing was written.',
    next: 'Free some space, or name another disk with -o. hkgai plan says the bytes of each file.',
  });
const mib = (n: number): string => `${Math.ceil(n / 2 ** 20)} MiB`;

/** Of each tensor that is read or written: a line of the ledger, and of the journal until the output is in place. */
const lineBytes = 1 << 10;
/** Printed programs, configs, recipes and the manifest of a target. */
const textBytes = 8 << 20;

/** The directory that exists at or above a path. */
function existing(path: string): string {
  let p = resolve(path);
  while (!existsSync(p) && dirname(p) !== p) p = dirname(p);
  return p;
}
export interface Room {
  /** Bytes of weight files, and of all else: ledgers, journal, programs, tokenizers. */
  readonly weights: number;
  readonly other: number;
  /** Bytes that an unfinished run of the same output has there already. */
  readonly there: number;
  /** null where the system does not say. */
  readonly free: number | null;
  /** Where it was asked. */
  readonly place: string;
}
/** Bytes of files that a cache has of the same content, on the same disk: they are linked, not written. */
function fromBefore(p: Prepared, place: string, cache: Cache, recipe: string): number {
  const known = new Map(p.checkpoint.files.map(f => [f, cache.source(join(p.checkpoint.dir, f))]));
  let bytes = 0;
  for (const a of p.aims)
    for (const f of a.plan.files) {
      const content = f.link ? null : contentOf(f, (file, t) => known.get(file)?.tensors[t] ?? null, recipe);
      const made = content === null ? null : cache.made(content);
      if (made && sameDisk(made.path, place)) bytes += f.size;
    }
  return bytes;
}
/** Refuse what will not go onto the disk, before anything is written. */
export function checkRoom(p: Prepared, out: string, weights: 'auto' | 'link' | 'copy', cache: Cache | null, recipe: string): void {
  const r = roomFor(p, out, weights);
  if (isEnough(r)) return;
  const linked = cache && weights !== 'copy' ? fromBefore(p, r.place, cache, recipe) : 0;
  if (!isEnough({ ...r, there: r.there + linked })) throw new Refusal([noRoom(r.place, r.weights + r.other - r.there, r.free as number)]);
}
export const isEnough = (r: Room): boolean => r.free === null || r.weights + r.other - r.there <= r.free;

export function roomFor(p: Prepared, out: string, weights: 'auto' | 'link' | 'copy'): Room {
  const place = existing(dirname(resolve(out)));
  const linked = weights !== 'copy' && sameDisk(place, p.checkpoint.dir);
  const beside = readdirSync(p.checkpoint.dir)
    .filter(f => /\.(json|jinja|txt|model)$/.test(f))
    .reduce((n, f) => n + statSync(join(p.checkpoint.dir, f)).size, 0);
  let free: number | null = null;
  try {
    const s = statfsSync(place);
    free = s.bavail * s.bsize;
  } catch {
    // a file system that does not say
  }
  const tree = join(workPlace(out), 'tree');
  return {
    weights: p.aims.reduce((n, a) => {
      const ranks = a.material?.ranks.reduce((k, r) => k + r.bytes, 0) ?? 0;
      return n + ranks + (a.plan.linked && linked ? 0 : a.plan.bytes);
    }, 0),
    other: p.aims.reduce((n, a) => n + (2 * p.checkpoint.tensors.size + 2 * outputCount(a.plan)) * lineBytes + textBytes + beside, 0),
    there: p.aims.reduce((n, a) => n + a.plan.files.reduce((k, f) => k + sizeOf(join(tree, a.directory, 'engine', f.path), f.size), 0), 0),
    free,
    place,
  };
}
const sameDisk = (a: string, b: string): boolean => statSync(a).dev === statSync(b).dev;
/** Bytes of the disk that a file has taken, up to its size. */
function sizeOf(path: string, most: number): number {
  try {
    return Math.min(most, statSync(path).blocks * 512);
  } catch {
    return 0;
  }
}
