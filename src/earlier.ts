// Tensors that were made before: looked up among the files that were made of the same source files, and recorded of those that are made.
import { type Cache, leadLength, type Piece, type Place, type SourceDigests } from './bundle/cache.js';
import { type Group, groupKey, groupsOf, type Known, stepSources } from './content.js';
import { type Donor, type Earlier, type EarlierStep, type FileWork, type Step, type StepResult, writes } from './numeric/steps.js';

/** What is known of a run's sources and statistics. */
export interface Knowledge {
  readonly cache: Cache;
  readonly source: (file: string) => SourceDigests | null;
  readonly known: Known;
  /** Digest of a statistic by name. */
  readonly statistics: (name: string) => string;
}
/** Tensors of a file that are made, or may be taken. */
export const tensorsIn = (f: FileWork): number => groupsOf(f.steps).length;

export const isFigures = (f: unknown): f is NonNullable<StepResult['figures']> => {
  const x = f as StepResult['figures'];
  return typeof x === 'object' && x !== null && typeof x.relative === 'number' && x.scales?.length === 2;
};
/** Index of a step's result among those of its file. */
function resultsOf(steps: readonly Step[]): readonly number[] {
  let next = 0;
  return steps.map(s => (stepSources(s).length ? next++ : -1));
}
/** Source hashes as the step would find them: those of tensors that are read in parts have a step of their own. */
const hashed = (s: Step, known: Known): StepResult['sources'] =>
  s.kind === 'matrix' && s.take !== null ? [] : stepSources(s).map(([file, t]) => [t, known(file, t) as string] as const);

interface Wanted {
  readonly group: Group;
  readonly key: string;
  readonly ranges: readonly number[];
}
type CacheRecord = ReturnType<Cache['pieces']>;
/** Pieces that are remembered: a file by ranks of experts draws on every source file, and each leads to the same few records. */
const mostRemembered = 150_000;
const remembered = new WeakMap<Cache, Map<string, { readonly made: CacheRecord; readonly pieces: number }>>();
/** What a cache has of a file, read once; those that were not asked for the longest are forgotten first. */
function recordOf(cache: Cache, content: string): CacheRecord {
  const records = remembered.get(cache) ?? new Map<string, { readonly made: CacheRecord; readonly pieces: number }>();
  remembered.set(cache, records);
  const there = records.get(content);
  const made = there ? there.made : cache.pieces(content);
  records.delete(content);
  records.set(content, there ?? { made, pieces: made?.pieces.length ?? 1 });
  if (there) return made;
  let all = 0;
  for (const r of records.values()) all += r.pieces;
  for (const [oldest, r] of records) {
    if (all <= mostRemembered || oldest === content) break;
    all -= r.pieces;
    records.delete(oldest);
  }
  return made;
}
/** The file with what of it was made before. */
export function withEarlier(f: FileWork, k: Knowledge): FileWork {
  const { steps } = f;
  const taken: (EarlierStep | null)[] = steps.map(s =>
    s.kind === 'digest' && k.known(s.source.file, s.source.tensor) !== null
      ? { from: null, result: { sources: hashed(s, k.known), name: null, figures: null } }
      : null,
  );
  const wanted = new Map<string, Wanted[]>();
  for (const group of groupsOf(steps)) {
    const key = groupKey(steps, group, k.known, k.statistics);
    if (key === null) continue;
    const w = { group, key, ranges: group.steps.flatMap(i => writes(steps[i] as Step).map(([, bytes]) => bytes)) };
    const list = wanted.get(group.file);
    if (list) list.push(w);
    else wanted.set(group.file, [w]);
  }
  const donors: Donor[] = [];
  let tensors = 0;
  const take = (w: Wanted, p: Piece, of: readonly Partial<StepResult>[], donor: number): void => {
    let range = 0;
    w.group.steps.forEach((i, n) => {
      const s = steps[i] as Step;
      const count = writes(s).length;
      const matrix = s.kind === 'matrix';
      const figures = matrix ? (of[p.results[n] as number] as StepResult).figures : null;
      const result = { sources: hashed(s, k.known), name: matrix ? s.name : null, figures };
      taken[i] = { from: { donor, at: p.at.slice(range, range + count) }, result };
      range += count;
    });
    tensors++;
  };
  for (const [file, list] of wanted) {
    const source = k.source(file);
    let left = list;
    for (const lead of source ? k.cache.leads(source) : []) {
      if (left.length === 0) break;
      const short = new Set(lead.keys.match(new RegExp(`.{${leadLength}}`, 'g')));
      if (!left.some(w => short.has(w.key.slice(0, leadLength)))) continue;
      const made = recordOf(k.cache, lead.content);
      if (!made) continue;
      const of = Array.isArray(made.result.steps) ? (made.result.steps as readonly Partial<StepResult>[]) : [];
      const pieces = new Map(made.pieces.map(p => [p.key, p]));
      const found = left.filter(w => fits(w, pieces.get(w.key), made.result.bytes, of, steps));
      const place: Place | null = found.length ? made.place(found.reduce((n, w) => n + w.ranges.reduce((a, b) => a + b, 0), 0)) : null;
      if (!place) continue;
      donors.push({ path: place.path, identity: place.identity });
      for (const w of found) take(w, pieces.get(w.key) as Piece, of, donors.length - 1);
      const gone = new Set(found);
      left = left.filter(w => !gone.has(w));
    }
  }
  const { index, path, size, source, link } = f;
  const earlier: Earlier = { donors, steps: taken, tensors };
  return { index, path, size, steps, source, ...(link ? { link } : {}), ...(taken.some(t => t !== null) ? { earlier } : {}) };
}
/** A recorded piece has all that the group wants. */
function fits(w: Wanted, p: Piece | undefined, bytes: number, of: readonly Partial<StepResult>[], steps: readonly Step[]): boolean {
  return (
    p !== undefined &&
    p.at.length === w.ranges.length &&
    p.at.every((at, i) => at >= 0 && at + (w.ranges[i] as number) <= bytes) &&
    w.group.steps.every((s, i) => steps[s]?.kind !== 'matrix' || isFigures(of[p.results[i] as number]?.figures))
  );
}

/** What lies in a finished file, to be recorded with it; and what leads to it from the source files that it was made of. */
export function piecesOf(f: FileWork, k: Knowledge): { readonly pieces: readonly Piece[]; readonly leads: ReadonlyMap<string, string> } {
  const { steps } = f;
  const pieces: Piece[] = [];
  const leads = new Map<string, string>();
  const results = resultsOf(steps);
  for (const g of groupsOf(steps)) {
    const key = groupKey(steps, g, k.known, k.statistics);
    if (key === null) continue;
    pieces.push({
      key,
      at: g.steps.flatMap(i => writes(steps[i] as Step).map(([at]) => at)),
      results: g.steps.map(i => results[i] as number),
    });
    leads.set(g.file, (leads.get(g.file) ?? '') + key.slice(0, leadLength));
  }
  return { pieces, leads };
}
