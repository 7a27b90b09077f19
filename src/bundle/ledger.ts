// The ledger: every source tensor and where it went, every output tensor and what it was made of. It balances or the compile fails.
import { createHash } from 'node:crypto';
import { closeSync, existsSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Problem, problem, Refusal } from '../../ir/problem.js';

export interface Figures {
  readonly count: number;
  readonly relative: number;
  readonly cosine: number;
  readonly largest: number;
  readonly largestError: number;
  readonly saturated: number;
  readonly nan: number;
  readonly infinite: number;
  readonly dead: number;
  readonly scales: readonly [number, number];
}
export interface SourceLine {
  readonly source: string;
  readonly file: string;
  readonly bytes: readonly [number, number];
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly sha256: string;
  /** Output tensors it went into; empty where it was dropped. */
  readonly to: readonly string[];
  readonly dropped?: string;
}
export interface OutputLine {
  readonly output: string;
  readonly file: string;
  readonly bytes: readonly [number, number];
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly from: readonly string[];
  readonly recipe: string;
  /** Of the matrix it belongs to; absent where bytes were passed on. */
  readonly figures?: Figures;
}
export interface Totals {
  readonly totals: {
    readonly source: { readonly tensors: number; readonly bytes: number };
    readonly dropped: { readonly tensors: number; readonly bytes: number };
    readonly output: { readonly tensors: number; readonly bytes: number };
    /** Headers of the output's shards. */
    readonly headers: number;
    readonly files: number;
  };
}
export type Line = SourceLine | OutputLine | Totals;

const unbalanced = (what: readonly string[]): Problem =>
  problem('HK1101', `The ledger does not balance: ${what.slice(0, 3).join('; ')}${what.length > 3 ? ` and ${what.length - 3} more` : ''}`, {
    why: 'A weight would be lost or made up. This is a bug of hkgai; nothing was put in place.',
    next: 'Report it with the command and the config.json.',
  });
const noLedger = (dir: string): Problem => problem('HK3805', `${dir} has no ledger.jsonl`, { next: 'Compile it again with this version.' });
const brokenLedger = (file: string, line: number, why: string): Problem =>
  problem('HK3806', `${file}:${line} cannot be read: ${why}`, { places: [{ file, line }], next: 'Compile the bundle again.' });

export interface Expected {
  /** Every tensor of the checkpoint. */
  readonly sources: ReadonlyMap<string, { readonly bytes: readonly [number, number] }>;
  /** Bytes of every weight file. */
  readonly files: ReadonlyMap<string, number>;
  /** Bytes that tensors are aligned to: fewer may lie between them. 1: none. */
  readonly alignment?: number;
}
/** One JSON text a line, a few hundred kilobytes at a time: a large model's ledger is not held as text. */
function writeLines(path: string, lists: readonly Iterable<Line>[]): void {
  const fd = openSync(path, 'w');
  try {
    let some: string[] = [];
    const put = (): void => {
      if (some.length) writeFileSync(fd, `${some.join('\n')}\n`);
      some = [];
    };
    for (const list of lists)
      for (const l of list) {
        some.push(JSON.stringify(l));
        if (some.length === 1024) put();
      }
    put();
  } finally {
    closeSync(fd);
  }
}
const sizeOf = (x: { readonly bytes: readonly [number, number] }): number => x.bytes[1] - x.bytes[0];
/**
 * Check that all that was read is accounted for, and write. Lines are gone through more than once and not held: a large model has two hundred
 * thousand.
 */
export function writeLedger(path: string, sources: Iterable<SourceLine>, outputs: Iterable<OutputLine>, expected: Expected): Totals {
  const wrong: string[] = [];
  const ids = new Map<string, number>();
  const source = { tensors: 0, bytes: 0 };
  const dropped = { tensors: 0, bytes: 0 };
  for (const s of sources) {
    if (ids.has(s.source)) wrong.push(`${s.source} is there twice`);
    else ids.set(s.source, ids.size);
    const t = expected.sources.get(s.source);
    if (t === undefined) wrong.push(`${s.source} is no tensor of the checkpoint`);
    else if (sizeOf(t) !== sizeOf(s)) wrong.push(`${s.source} has another size`);
    if ((s.to.length === 0) === (s.dropped === undefined))
      wrong.push(`${s.source} is ${s.dropped === undefined ? 'neither used nor dropped' : 'used and dropped'}`);
    if (s.dropped === '') wrong.push(`${s.source} is dropped without a reason`);
    if (!/^[0-9a-f]{64}$/.test(s.sha256)) wrong.push(`${s.source} was not read`);
    source.tensors++;
    source.bytes += sizeOf(s);
    if (s.dropped === undefined) continue;
    dropped.tensors++;
    dropped.bytes += sizeOf(s);
  }
  for (const name of expected.sources.keys()) if (!ids.has(name)) wrong.push(`${name} is not in the ledger`);
  // an arrow from each output to each source that it is made of: of output n they begin at first[n]
  const made = new Map<string, number>();
  const arrows: number[] = [];
  const first: number[] = [];
  const output = { tensors: 0, bytes: 0 };
  const places = new Map<string, Place[]>([...expected.files.keys()].map(f => [f, []]));
  for (const o of outputs) {
    if (made.has(o.output)) wrong.push(`${o.output} is written twice`);
    made.set(o.output, output.tensors++);
    output.bytes += sizeOf(o);
    const place = places.get(o.file);
    if (place) place.push({ name: o.output, from: o.bytes[0], to: o.bytes[1] });
    else wrong.push(`${o.output} is in ${o.file}, which is not written`);
    if (o.recipe === '') wrong.push(`${o.output} has no line of the recipe`);
    first.push(arrows.length);
    for (const f of o.from) {
      const id = ids.get(f);
      if (id === undefined) wrong.push(`${o.output} is made of ${f}, which is no source`);
      arrows.push(id ?? -1);
    }
  }
  first.push(arrows.length);
  const met = new Uint8Array(arrows.length);
  for (const s of sources)
    for (const t of s.to) {
      if (t.startsWith('(')) continue;
      const n = made.get(t);
      const id = ids.get(s.source) as number;
      let found = false;
      if (n !== undefined)
        for (let i = first[n] as number; i < (first[n + 1] as number); i++)
          if (arrows[i] === id) {
            met[i] = 1;
            found = true;
          }
      if (n === undefined) wrong.push(`${s.source} went into ${t}, which is not there`);
      else if (!found) wrong.push(`${s.source} went into ${t}, which is not made of it`);
    }
  if (met.includes(0)) {
    let at = 0;
    for (const o of outputs)
      for (const f of o.from) {
        if (arrows[at] !== -1 && met[at] === 0) wrong.push(`${o.output} is made of ${f}, which did not go into it`);
        at++;
      }
  }
  const headers = checkPlaces(places, expected, wrong);
  if (wrong.length) throw new Refusal([unbalanced(wrong)]);
  const totals: Totals = { totals: { source, dropped, output, headers, files: expected.files.size } };
  writeLines(path, [sources, outputs, [totals]]);
  return totals;
}
interface Place {
  readonly name: string;
  readonly from: number;
  readonly to: number;
}
/** Tensors of each file lie one after another to its end. Returns what lies before the first of each. */
function checkPlaces(places: ReadonlyMap<string, Place[]>, expected: Expected, wrong: string[]): number {
  const gap = (expected.alignment ?? 1) - 1;
  let headers = 0;
  for (const [file, size] of expected.files) {
    const here = (places.get(file) ?? []).sort((a, b) => a.from - b.from);
    let at = here[0]?.from ?? size;
    headers += at;
    for (const o of here) {
      if (o.from < at || o.from > at + gap) wrong.push(`${file} has a gap or an overlap at ${o.name}`);
      at = o.to;
    }
    if (at > size || at + gap < size) wrong.push(`${file} has ${size} bytes, its tensors end at ${at}`);
  }
  return headers;
}

export interface Ledger {
  readonly sources: readonly SourceLine[];
  readonly outputs: readonly OutputLine[];
  readonly totals: Totals['totals'] | null;
}
export function readLedger(dir: string): Ledger {
  const file = join(dir, 'ledger.jsonl');
  if (!existsSync(file)) throw new Refusal([noLedger(dir)]);
  const sources: SourceLine[] = [];
  const outputs: OutputLine[] = [];
  let totals: Totals['totals'] | null = null;
  readFileSync(file, 'utf8')
    .split('\n')
    .forEach((text, i) => {
      if (text === '') return;
      let l: Line;
      try {
        l = JSON.parse(text);
      } catch (e) {
        throw new Refusal([brokenLedger(file, i + 1, (e as Error).message)]);
      }
      if ('source' in l) sources.push(l);
      else if ('output' in l) outputs.push(l);
      else if ('totals' in l) totals = l.totals;
      else throw new Refusal([brokenLedger(file, i + 1, 'it is no line of a ledger')]);
    });
  return { sources, outputs, totals };
}

// ---- the gate: figures against a committed baseline

export interface Baseline {
  readonly format: 'hkgai-baseline-1';
  /** Relative error by output matrix. */
  readonly relative: Readonly<Record<string, number>>;
}
const worse = (name: string, was: number, is: number): Problem =>
  problem('HK6401', `${name} has relative error ${is.toExponential(3)}; the baseline has ${was.toExponential(3)}`, {
    why: 'More than a hundredth worse.',
    next: 'Find what changed, or commit a new baseline with --baseline.',
  });
const newTensor = (name: string): Problem =>
  problem('HK6402', `${name} has an error figure, but the baseline has none for it`, { next: 'Commit a new baseline with --baseline.' });
const badBaseline = (file: string, why: string): Problem =>
  problem('HK3807', `${file} is no baseline: ${why}`, { places: [{ file }], next: 'Make one with --baseline FILE.' });

export const baselineOf = (figures: ReadonlyMap<string, Figures>): Baseline => ({
  format: 'hkgai-baseline-1',
  relative: Object.fromEntries([...figures].sort(([a], [b]) => (a < b ? -1 : 1)).map(([k, f]) => [k, f.relative])),
});
export function readBaseline(file: string): Baseline {
  let value: unknown;
  try {
    value = JSON.parse(readFileSync(file, 'utf8'));
  } catch (e) {
    if ((e as NodeJS.ErrnoException).code) throw e;
    throw new Refusal([badBaseline(file, (e as Error).message)]);
  }
  const b = value as Partial<Baseline> | null;
  if (
    b?.format !== 'hkgai-baseline-1' ||
    typeof b.relative !== 'object' ||
    b.relative === null ||
    Object.values(b.relative).some(v => typeof v !== 'number')
  )
    throw new Refusal([badBaseline(file, 'format or figures are missing')]);
  return b as Baseline;
}
/** Figures that are more than a hundredth worse, or that the baseline does not know. */
export function gate(figures: ReadonlyMap<string, Figures>, b: Baseline): readonly Problem[] {
  return [...figures].flatMap(([name, f]) => {
    const was = Object.hasOwn(b.relative, name) ? b.relative[name] : undefined;
    if (was === undefined) return f.relative > 0 ? [newTensor(name)] : [];
    return f.relative <= was * 1.01 + 1e-12 ? [] : [worse(name, was, f.relative)]; // what is no number is worse
  });
}
/** SHA-256 of a text. */
export const digest = (text: string): string => createHash('sha256').update(text).digest('hex');
