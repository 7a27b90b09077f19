// A thread of the pool: takes files one after another and answers with what came of them.
import { parentPort, workerData } from 'node:worker_threads';
import { Refusal } from '../../ir/problem.js';
import type { FileWork } from './steps.js';
import { Stream } from './stream.js';

export interface WorkerData {
  readonly from: string;
  readonly to: string;
  readonly statistics: Readonly<Record<string, Float32Array>>;
  /** [0] is 1 when the run is to stop. */
  readonly flags: Int32Array;
  /** Source bytes done, one place a thread. */
  readonly done: Float64Array;
  readonly thread: number;
  readonly piece: number;
}
const d = workerData as WorkerData;
const stream = new Stream({
  from: d.from,
  to: d.to,
  statistics: name => (Object.hasOwn(d.statistics, name) ? (d.statistics[name] as Float32Array) : null),
  stop: () => Atomics.load(d.flags, 0) === 1,
  progress: bytes => void (d.done[d.thread]! += bytes),
  piece: d.piece,
});
parentPort!.on('message', async (work: FileWork | null) => {
  if (work === null) {
    stream.close();
    parentPort!.close();
    return;
  }
  try {
    parentPort!.postMessage({ result: await stream.file(work) });
  } catch (e) {
    const { name, message, stack, code, syscall, path } = e as NodeJS.ErrnoException;
    const problems = e instanceof Refusal ? e.problems : null;
    parentPort!.postMessage({ error: { name, message, stack, code, syscall, path }, problems });
  }
});
