// The output directory appears whole or not at all: written beside its place, then renamed.
import { createHash } from 'node:crypto';
import {
  closeSync,
  copyFileSync,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readSync,
  realpathSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join, relative, resolve, sep } from 'node:path';
import { type Problem, problem, Refusal } from '../../ir/problem.js';

const outputExists = (dir: string, ours: boolean): Problem =>
  problem('HK2101', `${dir} is there already`, {
    why: ours ? 'It holds an earlier bundle.' : 'It holds no bundle of hkgai, so --force does not replace it.',
    next: ours ? 'Name another directory with -o, or replace it with --force.' : 'Name another directory with -o.',
  });
const outputInside = (dir: string, model: string): Problem =>
  problem('HK2102', `${dir} lies inside the model directory ${model}`, { next: 'Name a directory outside it with -o.' });
const outputIsNoDirectory = (dir: string): Problem => problem('HK2103', `${dir} is a file`, { next: 'Name a directory with -o.' });

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
