// The place beside the output where a compile works: a lock against a second writer, finished files, and a journal that says which these are.
// Killed at any point, the same command goes on from there; another command is refused. What the journal names is on the disk, bytes and all:
// it outlasts a crash of the machine too.
import { closeSync, existsSync, openSync, readFileSync, renameSync, rmdirSync, rmSync, statSync, writeSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { type Problem, problem, Refusal } from '../../ir/problem.js';
import { makeDirectory, outputPlace } from './directory.js';
import { flushDirectory, flushFile, flushTree, writeWhole } from './durable.js';
import { lock } from './lock.js';

const otherRun = (dir: string, what: readonly string[]): Problem =>
  problem('HK2501', `${dir} holds the unfinished work of another compile`, {
    why: what.length ? `It differs in: ${what.join('; ')}.` : 'Its journal cannot be read.',
    next: 'Finish it with the command that began it, or discard it with --restart.',
  });

/** A refusal after which finished files are still good: another run goes on with them. */
export class Unfinished extends Refusal {}

/** What a run is made of; runs with equal fingerprints give equal bytes. */
export type Fingerprint = Readonly<Record<string, string>>;
export interface Finished {
  /** Inside the tree, and inside that. */
  readonly directory: string;
  readonly path: string;
  readonly bytes: number;
  readonly sha256: string;
  /** Source files it was made of, with their identities then. */
  readonly sources: Readonly<Record<string, string>>;
  readonly [k: string]: unknown;
}
export interface Work {
  /** The tree that becomes the output. */
  readonly tree: string;
  /** Files that an earlier run finished and that are as it left them, by directory and path. */
  readonly finished: ReadonlyMap<string, Finished>;
  /** Files recorded by now, earlier ones with them. */
  readonly count: () => number;
  /** Bring a finished file to the disk and record it, meanwhile other work goes on. Throws what went wrong with an earlier one. */
  record(f: Finished): void;
  /** Put the tree in place of `out` and end. */
  commit(): Promise<void>;
  /** Leave the work for a later run. */
  leave(): Promise<void>;
  /** Remove everything. Once the tree is whole it is left instead. */
  abandon(): Promise<void>;
}
export const workPlace = (out: string): string => {
  const to = outputPlace(out);
  return join(dirname(to), `.${basename(to)}.hkgai-work`);
};
/** A finished file is known again by its size and times: they change when it is written to. */
const stateOf = (path: string): string => {
  const s = statSync(path, { bigint: true });
  return `${s.size}:${s.mtimeNs}:${s.ctimeNs}`;
};
function shown(was: string | undefined, is: string | undefined): string {
  const short = (v: string | undefined): boolean => v === undefined || (v.length < 100 && !/[0-9a-f]{64}/.test(v));
  return short(was) && short(is) ? ` (${was ?? 'none'} there, ${is ?? 'none'} here)` : '';
}
const isFinished = (f: Partial<Finished> | null): f is Finished & { readonly state: string } =>
  typeof f === 'object' &&
  f !== null &&
  [f.directory, f.path, f.sha256, f.state].every(x => typeof x === 'string') &&
  typeof f.bytes === 'number' &&
  typeof f.sources === 'object';

/** The files of an earlier run of this fingerprint; throws a Refusal where the run was another. */
function readJournal(journal: string, tree: string, place: string, fingerprint: Fingerprint): ReadonlyMap<string, Finished> {
  const finished = new Map<string, Finished>();
  if (!existsSync(journal) || !existsSync(tree)) return finished; // without a tree there is nothing to go on from
  const lines = readFileSync(journal, 'utf8').split('\n');
  let was: Fingerprint | undefined;
  try {
    was = (JSON.parse(lines[0] as string) as { readonly fingerprint?: Fingerprint } | null)?.fingerprint;
  } catch {
    // below
  }
  if (typeof was !== 'object' || was === null) {
    if (lines.length > 1) throw new Refusal([otherRun(place, [])]);
    return finished; // cut in its first line: nothing was recorded
  }
  const names = [...new Set([...Object.keys(was), ...Object.keys(fingerprint)])];
  const differs = names.filter(k => was[k] !== fingerprint[k]);
  if (differs.length)
    throw new Refusal([
      otherRun(
        place,
        differs.map(k => k + shown(was[k], fingerprint[k])),
      ),
    ]);
  for (const line of lines.slice(1)) {
    let f: Partial<Finished> | null;
    try {
      f = JSON.parse(line) as Partial<Finished> | null;
    } catch {
      continue; // cut by a kill
    }
    if (!isFinished(f)) continue;
    try {
      if (stateOf(join(tree, f.directory, f.path)) === f.state) finished.set(`${f.directory}/${f.path}`, f);
    } catch {
      // gone: it is made again
    }
  }
  return finished;
}

/** What a run left that was stopped when its output was in place already: the output it replaced, on its way out. */
export function sweepPlace(out: string): void {
  const place = workPlace(out);
  if (!existsSync(outputPlace(out)) || !existsSync(place) || existsSync(join(place, 'tree'))) return;
  const held = lock(place, out);
  if (!existsSync(join(place, 'tree')) && existsSync(outputPlace(out)))
    for (const f of ['journal.jsonl', 'discarded', 'replaced']) rmSync(join(place, f), { recursive: true, force: true });
  held.release();
  try {
    rmdirSync(place);
  } catch {
    // another process is in it
  }
}
/** Begin or go on. `restart` discards what is there; `check` refuses an output that must not be replaced. */
export function openWork(out: string, fingerprint: Fingerprint, restart: boolean, check: () => void): Work {
  const place = workPlace(out);
  const to = outputPlace(out);
  const held = lock(place, out);
  process.on('exit', held.release);
  const release = (): void => {
    process.off('exit', held.release);
    held.release();
  };
  const tree = join(place, 'tree');
  const journal = join(place, 'journal.jsonl');
  const replaced = join(place, 'replaced');
  const discarded = join(place, 'discarded');
  let finished: ReadonlyMap<string, Finished>;
  let fd: number;
  try {
    // a run that was killed while it replaced an earlier output: before the new one was in place the old one still counts
    rmSync(discarded, { recursive: true, force: true });
    if (existsSync(replaced)) {
      if (existsSync(to)) renameSync(replaced, discarded);
      else renameSync(replaced, to);
      rmSync(discarded, { recursive: true, force: true });
    }
    check();
    if (restart) {
      rmSync(tree, { recursive: true, force: true });
      rmSync(journal, { force: true });
    }
    finished = readJournal(journal, tree, place, fingerprint);
    makeDirectory(tree);
    const lines = [JSON.stringify({ fingerprint }), ...[...finished.values()].map(f => JSON.stringify(f))];
    writeWhole(journal, `${lines.join('\n')}\n`);
    fd = openSync(journal, 'a');
  } catch (e) {
    release();
    try {
      rmdirSync(place); // only where nothing is in it
    } catch {
      // work of a run before
    }
    throw e;
  }
  const recorded = new Set(finished.keys());
  const pending = new Set<Promise<void>>();
  const missed: Finished[] = [];
  let failure: unknown = null;
  let whole = false;
  let open = true;
  const keep = async (f: Finished): Promise<void> => {
    const path = join(tree, f.directory, f.path);
    await flushFile(path);
    await flushDirectory(dirname(path));
    // after a line that a full disk cut, this one begins anew
    const line = Buffer.from(`${failure === null ? '' : '\n'}${JSON.stringify({ ...f, state: stateOf(path) })}\n`);
    for (let done = 0; done < line.length; ) done += writeSync(fd, line, done);
    await flushFile(journal);
    recorded.add(`${f.directory}/${f.path}`);
  };
  const settled = async (): Promise<void> => {
    while (pending.size) await Promise.all(pending);
    if (failure !== null) throw failure;
  };
  const close = (): void => {
    if (open) closeSync(fd);
    open = false;
  };
  /** Remove the place. The lock goes last, and what another process has begun there stays. */
  const end = (): void => {
    close();
    rmSync(journal, { force: true });
    for (const f of [tree, discarded, `${journal}.new`]) rmSync(f, { recursive: true, force: true });
    release();
    try {
      rmdirSync(place);
    } catch {
      // another process waits in it
    }
  };
  const leave = async (): Promise<void> => {
    await settled().catch(() => {});
    // unfinished files are gone by now: on a disk that was full there may be room for a line
    for (const f of missed) await keep(f).catch(() => {}); // else it is made again
    close();
    release();
  };
  return {
    tree,
    finished,
    count: () => recorded.size,
    record(f) {
      if (failure !== null) throw failure;
      const p = keep(f)
        .catch(e => {
          failure ??= e;
          missed.push(f);
        })
        .finally(() => pending.delete(p));
      pending.add(p);
    },
    async commit() {
      await settled();
      whole = true;
      await flushTree(tree);
      check(); // whatever came to stand there meanwhile
      const old = existsSync(to);
      if (old) renameSync(to, replaced);
      try {
        renameSync(tree, to);
      } catch (e) {
        if (old) renameSync(replaced, to);
        throw e;
      }
      await flushDirectory(dirname(to));
      if (old) renameSync(replaced, discarded);
      end();
    },
    leave,
    async abandon() {
      if (whole) return leave();
      await settled().catch(() => {});
      end();
    },
  };
}
