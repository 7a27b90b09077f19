// What came of the weight files of a compile, in columns: a model has a hundred thousand tensors, and each has digests and figures.
import type { Figures } from './bundle/ledger.js';
import { stepSources } from './content.js';
import type { FileResult, FileWork, Step, StepResult } from './numeric/steps.js';

const fields = ['count', 'relative', 'cosine', 'largest', 'largestError', 'saturated', 'nan', 'infinite', 'dead'] as const;
const width = fields.length + 2;
const digestBytes = 32;

function putFigures(into: Float64Array, at: number, f: Figures): void {
  fields.forEach((k, i) => {
    into[at + i] = f[k];
  });
  into[at + fields.length] = f.scales[0];
  into[at + fields.length + 1] = f.scales[1];
}
function figuresAt(from: Float64Array, at: number): Figures {
  const n = (i: number): number => from[at + i] as number;
  return {
    count: n(0),
    relative: n(1),
    cosine: n(2),
    largest: n(3),
    largestError: n(4),
    saturated: n(5),
    nan: n(6),
    infinite: n(7),
    dead: n(8),
    scales: [n(9), n(10)],
  };
}
/** Sources that a step reads whole, and so has digests of. */
const hashed = (s: Step): ReturnType<typeof stepSources> => (s.kind === 'matrix' && s.take !== null ? [] : stepSources(s));
const worthRecording = (steps: readonly Step[]): readonly Step[] => steps.filter(s => stepSources(s).length > 0);

/** A file's result, its digests and figures in the order of its steps. */
export interface PackedResult extends Omit<FileResult, 'steps'> {
  /** 32 bytes for each source of each step. */
  readonly digests: Uint8Array;
  /** Of each matrix. */
  readonly figures: Float64Array;
}
/** Put a result of a file into columns. It has a step for each of the file's that reads something, naming the same tensors. */
export function packResult(f: FileWork, r: FileResult): PackedResult {
  const steps = worthRecording(f.steps);
  const digests = new Uint8Array(digestBytes * steps.reduce((n, s) => n + hashed(s).length, 0));
  const figures = new Float64Array(width * steps.reduce((n, s) => n + (s.kind === 'matrix' ? 1 : 0), 0));
  let at = 0;
  let row = 0;
  const odd = (): Error => new Error(`the result of ${f.path} is not of its steps`);
  if (r.steps.length !== steps.length) throw odd();
  for (const [i, s] of steps.entries()) {
    const { sources, figures: own } = r.steps[i] as StepResult;
    const named = hashed(s);
    if (sources.length !== named.length || sources.some(([t], k) => t !== named[k]?.[1])) throw odd();
    for (const [, sha] of sources) {
      digests.set(Buffer.from(sha, 'hex'), at);
      at += digestBytes;
    }
    if (s.kind !== 'matrix') continue;
    if (own === null) throw odd();
    putFigures(figures, row, own);
    row += width;
  }
  return { index: r.index, path: r.path, sha256: r.sha256, bytes: r.bytes, seconds: r.seconds, digests, figures };
}
const hexAt = (digests: Uint8Array, at: number): string =>
  Buffer.from(digests.buffer, digests.byteOffset + at, digestBytes).toString('hex');

/** The result that was packed. */
export function unpackResult(f: FileWork, p: PackedResult): FileResult {
  let at = 0;
  let row = 0;
  const steps = worthRecording(f.steps).map((s): StepResult => {
    const sources = hashed(s).map(([, tensor]) => {
      const sha = hexAt(p.digests, at);
      at += digestBytes;
      return [tensor, sha] as const;
    });
    if (s.kind !== 'matrix') return { sources, name: null, figures: null };
    const figures = figuresAt(p.figures, row);
    row += width;
    return { sources, name: s.name, figures };
  });
  return { index: p.index, path: p.path, sha256: p.sha256, bytes: p.bytes, steps, seconds: p.seconds };
}

/** Digests of source tensors by name. */
export class Digests {
  readonly #rows = new Map<string, readonly [Uint8Array, number]>();
  add(steps: readonly Step[], p: PackedResult): void {
    let at = 0;
    for (const s of worthRecording(steps))
      for (const [, tensor] of hashed(s)) {
        this.#rows.set(tensor, [p.digests, at]);
        at += digestBytes;
      }
  }
  get(tensor: string): string | null {
    const row = this.#rows.get(tensor);
    return row === undefined ? null : hexAt(...row);
  }
}

/** Figures by the name of what was written; of a name that several steps write, the last, which counts them all. */
export class FigureTable implements ReadonlyMap<string, Figures> {
  readonly #rows = new Map<string, readonly [Float64Array, number]>();
  add(steps: readonly Step[], p: PackedResult): void {
    let row = 0;
    for (const s of steps)
      if (s.kind === 'matrix') {
        this.#rows.set(s.name, [p.figures, row]);
        row += width;
      }
  }
  get size(): number {
    return this.#rows.size;
  }
  has(name: string): boolean {
    return this.#rows.has(name);
  }
  get(name: string): Figures | undefined {
    const row = this.#rows.get(name);
    return row && figuresAt(...row);
  }
  keys(): MapIterator<string> {
    return this.#rows.keys();
  }
  *values(): Generator<Figures, undefined> {
    for (const [, f] of this) yield f;
  }
  entries(): Generator<[string, Figures], undefined> {
    return this[Symbol.iterator]();
  }
  *[Symbol.iterator](): Generator<[string, Figures], undefined> {
    for (const [name, row] of this.#rows) yield [name, figuresAt(...row)];
  }
  forEach(each: (f: Figures, name: string, map: ReadonlyMap<string, Figures>) => void): void {
    for (const [name, f] of this) each(f, name, this);
  }
}
