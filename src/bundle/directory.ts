// The output directory appears whole or not at all: written beside its place, then renamed.
import { createHash } from 'node:crypto';
import {
  closeSync,
  copyFileSync,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readSync,
  realpathSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { basename, dirname, join, relative, resolve, sep } from 'node:path';
import { type Problem, problem, Refusal } from '../../ir/problem.js';

const outputExists = (dir: string, ours: boolean): Problem =>
  problem('HK2101', `${dir} is there already`, {
    why: ours ? 'It holds an earlier bundle.' : 'It holds no bundle of hkgai, so --force does not replace it.',
    next: ours ? 'Name another directory with -o, or replace it with --force.' : 'Name another directory with -o.',
  });
const outputInside = (dir: string, model: string): Problem =>
  problem('HK2102', `${dir} lies inside the model directory ${model}`, { next: 'Name a directory outside it with -o.' });
const outputIsNoDirectory = (dir: string): Problem => problem('HK2103', `${dir} is a file`, { next: 'Name a directory with -o.' });

export interface Staging {
  /** The directory to write into. */
  readonly dir: string;
  /** Put it in place. */
  commit(): void;
  /** Remove all that was written. Safe to call more than once, and after commit. */
  abandon(): void;
}

/** Refuse an output that must not be written, before any work. */
export function checkOutput(out: string, model: string, force: boolean): void {
  const to = resolve(out);
  const inside = relative(resolve(model), to);
  if (inside !== '..' && !inside.startsWith('..' + sep)) throw new Refusal([outputInside(out, model)]);
  if (!existsSync(to)) return;
  if (!lstatSync(to).isDirectory()) throw new Refusal([outputIsNoDirectory(out)]);
  if (readdirSync(to).length === 0) return;
  const ours = existsSync(join(to, 'bundle.json'));
  if (!ours || !force) throw new Refusal([outputExists(out, ours)]);
}

export function stage(out: string): Staging {
  const to = resolve(out);
  mkdirSync(dirname(to), { recursive: true });
  sweep(to);
  const dir = mkdtempSync(join(dirname(to), `.${basename(to)}.partial-${process.pid}-`));
  let open = true;
  return {
    dir,
    commit() {
      if (existsSync(to)) rmSync(to, { recursive: true });
      renameSync(dir, to);
      open = false;
    },
    abandon() {
      if (open) rmSync(dir, { recursive: true, force: true });
      open = false;
    },
  };
}

/** Remove what compiles to the same place left behind when they were killed: their process is gone. */
function sweep(to: string): void {
  const mark = `.${basename(to)}.partial-`;
  for (const name of readdirSync(dirname(to))) {
    const pid = name.startsWith(mark) ? Number(/^\d+/.exec(name.slice(mark.length))?.[0] ?? Number.NaN) : Number.NaN;
    if (Number.isNaN(pid) || alive(pid)) continue;
    rmSync(join(dirname(to), name), { recursive: true, force: true });
  }
}
function alive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (e) {
    return (e as NodeJS.ErrnoException).code === 'EPERM';
  }
}

/** Write a text file, with the directories above it. */
export function writeText(dir: string, path: string, text: string, executable = false): void {
  const to = join(dir, path);
  mkdirSync(dirname(to), { recursive: true });
  writeFileSync(to, text, { mode: executable ? 0o755 : 0o644, flag: 'wx' });
}

/** The same bytes at a second place: a hard link where the file system gives one, else a copy. */
export function linkOrCopy(source: string, to: string, how: 'auto' | 'link' | 'copy'): void {
  const from = realpathSync(source); // a hub's cache holds links: the bundle wants what they lead to
  mkdirSync(dirname(to), { recursive: true });
  if (how !== 'copy') {
    try {
      linkSync(from, to);
      return;
    } catch (e) {
      if (how === 'link') throw e;
    }
  }
  copyFileSync(from, to);
}

/** SHA-256 of a file, read in pieces. */
export function sha256File(path: string): { readonly sha256: string; readonly bytes: number } {
  const hash = createHash('sha256');
  const fd = openSync(path, 'r');
  const buffer = new Uint8Array(1 << 20);
  let bytes = 0;
  try {
    for (let n = readSync(fd, buffer); n > 0; n = readSync(fd, buffer)) {
      hash.update(buffer.subarray(0, n));
      bytes += n;
    }
  } finally {
    closeSync(fd);
  }
  return { sha256: hash.digest('hex'), bytes };
}

/** All files below a directory, sorted, with `/` between names. */
export function filesBelow(dir: string): readonly string[] {
  return readdirSync(dir, { recursive: true, withFileTypes: true })
    .filter(e => e.isFile())
    .map(e => relative(dir, join(e.parentPath, e.name)).split(sep).join('/'))
    .sort();
}
