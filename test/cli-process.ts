// The built program as a process of its own, and the whole of what it wrote as one digest.
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { filesBelow } from '../src/bundle/directory.js';
import { workPlace } from '../src/bundle/work.js';

export const bin = fileURLToPath(new URL('../bin/hkgai.js', import.meta.url));
export interface Ended {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly out: string;
  readonly err: string;
}
export interface Running {
  readonly kill: (signal: NodeJS.Signals) => void;
  /** True once it has ended. */
  readonly over: () => boolean;
  readonly done: Promise<Ended>;
}
export function start(args: readonly string[], cache: string, command: readonly string[] = [process.execPath, bin]): Running {
  const [program, ...first] = [...command, ...args] as [string, ...string[]];
  const child = spawn(program, first, { stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, HKGAI_CACHE: cache, NO_COLOR: '1' } });
  const text = { out: '', err: '' };
  child.stdout.on('data', (d: Buffer) => void (text.out += d));
  child.stderr.on('data', (d: Buffer) => void (text.err += d));
  let over = false;
  const done = new Promise<Ended>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code, signal) => {
      over = true;
      resolve({ code, signal, ...text });
    });
  });
  return { kill: s => void child.kill(s), over: () => over, done };
}
export const hkgai = (args: readonly string[], cache: string): Promise<Ended> => start(args, cache).done;

/** SHA-256 over the names and bytes of all files. */
export function outputDigest(dir: string): string {
  const h = createHash('sha256');
  for (const f of filesBelow(dir)) {
    const bytes = readFileSync(join(dir, f));
    h.update(`${f} ${bytes.length}\n`).update(bytes);
  }
  return h.digest('hex');
}
export const sleep = (ms: number): Promise<void> => new Promise(resolve => setTimeout(resolve, ms));
/** Files that the journal of an unfinished compile names. */
export function journaled(out: string): number {
  const journal = join(workPlace(out), 'journal.jsonl');
  return existsSync(journal) ? readFileSync(journal, 'utf8').split('\n').length - 2 : 0;
}
/** Wait until something holds, or the process is over. */
export async function until(p: Running, holds: () => boolean): Promise<void> {
  while (!p.over() && !holds()) await sleep(2);
}
/** Numbers in [0, 1), the same for a seed. */
export function random(seed: number): () => number {
  let state = seed >>> 0 || 1;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>>= 0) / 2 ** 32;
  };
}
