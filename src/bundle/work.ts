// The place beside the output where a compile works: a lock against a second writer, finished files, and a journal that says which these are.
// Killed at any point, the same command goes on from there; another command is refused.
import { randomUUID } from 'node:crypto';
import {
  appendFileSync,
  existsSync,
  linkSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { hostname } from 'node:os';
import { basename, dirname, join, resolve } from 'node:path';
import { type Problem, problem, Refusal } from '../../ir/problem.js';

const busy = (out: string, pid: number, host: string): Problem =>
  problem('HK9101', `Another hkgai is writing ${out}`, {
    why: `Process ${pid} on ${host} holds its lock.`,
    next: 'Wait for it, or stop it; a lock of a process that is gone is taken over by itself.',
  });
const otherRun = (dir: string, what: readonly string[]): Problem =>
  problem('HK2501', `${dir} holds the unfinished work of another compile`, {
    why: what.length ? `It differs in: ${what.join(', ')}.` : 'Its journal cannot be read.',
    next: 'Finish it with the command that began it, or discard it with --restart.',
  });

/** What a run is made of; runs with equal fingerprints give equal bytes. */
export type Fingerprint = Readonly<Record<string, string>>;
export interface Finished {
  readonly directory: string;
  readonly path: string;
  readonly bytes: number;
  readonly sha256: string;
  readonly [k: string]: unknown;
}
export interface Work {
  /** The tree that becomes the output. */
  readonly tree: string;
  /** Files that an earlier run finished, by directory and path. */
  readonly finished: ReadonlyMap<string, Finished>;
  /** Record a finished file. */
  record(f: Finished): void;
  /** Put the tree in place of `out` and end. */
  commit(): void;
  /** Leave the work for a later run. */
  leave(): void;
  /** Remove everything. */
  abandon(): void;
}
export const workPlace = (out: string): string => join(dirname(resolve(out)), `.${basename(resolve(out))}.hkgai-work`);
/** When a process began, in the system's ticks, so that a number used again is not taken for the same process; empty where unknown. */
function beganAt(pid: number): string {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19] ?? '';
  } catch {
    return '';
  }
}
function alive(pid: number, began: string): boolean {
  try {
    process.kill(pid, 0);
  } catch (e) {
    if ((e as NodeJS.ErrnoException).code !== 'EPERM') return false;
  }
  const now = beganAt(pid);
  return began === '' || now === '' || now === began;
}
const bootId = (): string => {
  try {
    return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
  } catch {
    return '';
  }
};

function lock(place: string, out: string): () => void {
  const file = join(place, 'lock');
  const own = JSON.stringify({ pid: process.pid, host: hostname(), began: beganAt(process.pid), id: randomUUID() });
  const mine = join(place, `lock.${process.pid}.${randomUUID()}`);
  writeFileSync(mine, own);
  try {
    for (let attempt = 0; ; attempt++) {
      try {
        linkSync(mine, file); // appears whole or not at all
        break;
      } catch (e) {
        if ((e as NodeJS.ErrnoException).code !== 'EEXIST' || attempt > 4) throw e;
        let holder: { readonly pid: number; readonly host: string; readonly began: string };
        let text = '';
        try {
          text = readFileSync(file, 'utf8');
          holder = JSON.parse(text);
        } catch {
          if (text === '' && !existsSync(file)) continue; // let go meanwhile
          holder = { pid: 0, host: hostname(), began: '' };
        }
        if (holder.host !== hostname() || (holder.pid > 0 && alive(holder.pid, holder.began)))
          throw new Refusal([busy(out, holder.pid, holder.host)]);
        // gone: move it aside, so that only one who finds it does; look again whether it is the one that was seen
        const aside = `${mine}.stale`;
        try {
          renameSync(file, aside);
        } catch {
          continue;
        }
        if (readFileSync(aside, 'utf8') !== text && !existsSync(file)) renameSync(aside, file);
        else unlinkSync(aside);
      }
    }
  } finally {
    rmSync(mine, { force: true });
  }
  return () => {
    try {
      if (readFileSync(file, 'utf8') === own) unlinkSync(file);
    } catch {
      // gone with its directory
    }
  };
}

/** Begin or go on. `restart` discards what is there. */
export function openWork(out: string, fingerprint: Fingerprint, restart: boolean): Work {
  const place = workPlace(out);
  mkdirSync(place, { recursive: true });
  const unlock = lock(place, out);
  const release = (): void => {
    process.off('exit', unlock);
    unlock();
  };
  process.on('exit', unlock);
  const tree = join(place, 'tree');
  const journal = join(place, 'journal.jsonl');
  const finished = new Map<string, Finished>();
  try {
    if (restart) {
      rmSync(tree, { recursive: true, force: true });
      rmSync(journal, { force: true });
    }
    if (existsSync(journal)) {
      const lines = readFileSync(journal, 'utf8').split('\n');
      let head: { readonly fingerprint?: Fingerprint; readonly boot?: string } = {};
      try {
        head = JSON.parse(lines[0] as string);
      } catch {
        // a journal cut in its first line has nothing to go on from
      }
      const was = head.fingerprint;
      if (!was) {
        if (lines.length > 1) throw new Refusal([otherRun(place, [])]);
      } else {
        const differs = [...new Set([...Object.keys(was), ...Object.keys(fingerprint)])].filter(k => was[k] !== fingerprint[k]);
        if (differs.length) throw new Refusal([otherRun(place, differs)]);
        // after a crash of the machine, files may be there without their bytes: nothing is trusted then
        if (head.boot === bootId())
          for (const line of lines.slice(1)) {
            let f: Finished;
            try {
              f = JSON.parse(line);
            } catch {
              continue; // cut by a kill
            }
            const path = join(tree, f.directory, f.path);
            if (existsSync(path) && statSync(path).size === f.bytes) finished.set(`${f.directory}/${f.path}`, f);
          }
      }
    }
    mkdirSync(tree, { recursive: true });
    const lines = [JSON.stringify({ fingerprint, boot: bootId() }), ...[...finished.values()].map(f => JSON.stringify(f))];
    writeFileSync(`${journal}.new`, `${lines.join('\n')}\n`);
    renameSync(`${journal}.new`, journal);
  } catch (e) {
    release();
    throw e;
  }
  return {
    tree,
    finished,
    record: f => appendFileSync(journal, `${JSON.stringify(f)}\n`),
    commit() {
      const to = resolve(out);
      let old: string | null = null;
      if (existsSync(to)) {
        old = join(place, 'replaced');
        rmSync(old, { recursive: true, force: true });
        renameSync(to, old);
      }
      try {
        renameSync(tree, to);
      } catch (e) {
        if (old) renameSync(old, to);
        throw e;
      }
      process.off('exit', unlock);
      rmSync(place, { recursive: true, force: true });
    },
    leave: release,
    abandon() {
      process.off('exit', unlock);
      rmSync(place, { recursive: true, force: true });
    },
  };
}
