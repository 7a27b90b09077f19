// Files over threads: each thread asks for the next one when it is done, so the order is the source's and the result does not depend on who did it.
import { existsSync } from 'node:fs';
import { Worker } from 'node:worker_threads';
import { type Problem, Refusal } from '../../ir/problem.js';
import { type FileResult, type FileWork, Interrupted } from './steps.js';
import { Stream } from './stream.js';
import type { WorkerData } from './worker.js';

export interface PoolOptions {
  readonly from: string;
  readonly to: string;
  /** Threads; 0 does the work in this one. */
  readonly jobs: number;
  readonly statistics: Readonly<Record<string, Float32Array>>;
  readonly piece: number;
  /** The file as it is worked on, asked for when its turn comes: what that takes is held for files in hand alone. */
  readonly ready?: (f: FileWork) => FileWork;
  /** Told each file as it is finished, in the order of finishing. */
  readonly finished: (r: FileResult) => void;
  readonly progress: (bytes: number) => void;
  readonly signal: AbortSignal;
}
/** What a thread says of a file: what came of it, or what went wrong. */
interface Answer {
  readonly result?: FileResult;
  readonly error?: NodeJS.ErrnoException;
  readonly problems?: readonly Problem[] | null;
}
const failureOf = (m: Answer): Error =>
  m.problems
    ? new Refusal(m.problems)
    : m.error?.name === 'Interrupted'
      ? new Interrupted()
      : Object.assign(new Error(m.error?.message), m.error);
/** The worker's compiled file, beside this one or in the build where this one is not compiled. */
function workerFile(): URL {
  const beside = new URL('./worker.js', import.meta.url);
  return existsSync(beside) ? beside : new URL('../../dist/src/numeric/worker.js', import.meta.url);
}

/** Do all files. Throws Interrupted when the signal comes, or the first error; files finished by then were told. */
export async function runPool(files: readonly FileWork[], o: PoolOptions): Promise<void> {
  if (files.length === 0) return;
  const ready = o.ready ?? plain;
  if (o.jobs === 0) {
    let done = 0;
    const stream = new Stream({
      from: o.from,
      to: o.to,
      statistics: name => (Object.hasOwn(o.statistics, name) ? (o.statistics[name] as Float32Array) : null),
      stop: () => o.signal.aborted,
      progress: n => o.progress((done += n)),
      piece: o.piece,
    });
    try {
      for (const f of files) {
        if (o.signal.aborted) throw new Interrupted();
        o.finished(await stream.file(ready(f)));
      }
    } finally {
      stream.close();
    }
    return;
  }
  const jobs = Math.min(o.jobs, files.length);
  const flags = new Int32Array(new SharedArrayBuffer(4));
  const done = new Float64Array(new SharedArrayBuffer(8 * jobs));
  const shared = share(o.statistics);
  let next = 0;
  let failure: unknown = null;
  const stop = (): void => void Atomics.store(flags, 0, 1);
  o.signal.addEventListener('abort', stop);
  if (o.signal.aborted) stop();
  const ticker = setInterval(() => o.progress(done.reduce((a, b) => a + b, 0)), 200);
  try {
    await Promise.all(
      Array.from({ length: jobs }, (_, thread) => {
        const data: WorkerData = { from: o.from, to: o.to, statistics: shared, flags, done, thread, piece: o.piece };
        const worker = new Worker(workerFile(), { workerData: data, resourceLimits: { maxYoungGenerationSizeMb: 8 } });
        return new Promise<void>(resolve => {
          let inHand: FileWork | undefined;
          const feed = (): void => {
            inHand = failure === null && !o.signal.aborted ? files[next++] : undefined;
            try {
              worker.postMessage(inHand ? ready(inHand) : null);
            } catch (e) {
              failure ??= e;
              stop();
              inHand = undefined;
              worker.postMessage(null);
            }
          };
          worker.on('message', (m: Answer) => {
            if (m.result) {
              try {
                o.finished(m.result);
              } catch (e) {
                failure ??= e;
                stop();
              }
            } else {
              failure ??= failureOf(m);
              stop();
            }
            feed();
          });
          worker.on('error', e => {
            failure ??= e;
            stop();
            resolve();
          });
          worker.on('exit', code => {
            if (inHand) {
              failure ??= new Error(`a thread ended with ${code} while it made ${inHand.path}`);
              stop();
            }
            resolve();
          });
          feed();
        });
      }),
    );
  } finally {
    clearInterval(ticker);
    o.signal.removeEventListener('abort', stop);
  }
  if (failure !== null) throw failure;
  if (o.signal.aborted && next < files.length) throw new Interrupted();
}
/** As data: what a plan works out when asked is worked out once. */
export const plain = (f: FileWork): FileWork => ({
  index: f.index,
  path: f.path,
  size: f.size,
  steps: f.steps,
  source: f.source,
  ...(f.link ? { link: true } : {}),
});
/** In memory that threads share; equal arrays once, and what lies there already as it is. */
function share(statistics: Readonly<Record<string, Float32Array>>): Readonly<Record<string, Float32Array>> {
  const made = new Map<Float32Array, Float32Array>();
  return Object.fromEntries(
    Object.entries(statistics).map(([k, v]) => {
      const shared = made.get(v) ?? (v.buffer instanceof SharedArrayBuffer ? v : new Float32Array(new SharedArrayBuffer(v.byteLength)));
      if (shared !== v && !made.has(v)) shared.set(v);
      made.set(v, shared);
      return [k, shared];
    }),
  );
}
