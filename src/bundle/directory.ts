// The output directory appears whole or not at all: written beside its place, then renamed.
import { createHash } from 'node:crypto';
import {
  closeSync,
  constants,
  copyFileSync,
  type Dirent,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  openSync,
  promises,
  readdirSync,
  readFileSync,
  readlinkSync,
  readSync,
  realpathSync,
  rmSync,
  statSync,
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
const outputHoldsModel = (dir: string, model: string): Problem =>
  problem('HK2104', `${dir} holds the model directory ${model}`, {
    why: 'Replacing it would remove the weights that are read.',
    next: 'Name a directory beside it with -o.',
  });
const outputIsMount = (dir: string): Problem =>
  problem('HK2105', `${dir} is a mount point`, {
    why: 'The bundle is written beside its place and renamed, which cannot be done to a mount.',
    next: `Name a directory inside it with -o, as ${join(dir, 'bundle')}.`,
  });

/** Where an output really goes: links are followed, to a directory that need not be there yet. */
export function outputPlace(out: string): string {
  let to = resolve(out);
  for (let links = 0; links < 40 && lstatSync(to, { throwIfNoEntry: false })?.isSymbolicLink(); links++)
    to = resolve(dirname(to), readlinkSync(to));
  return realPlace(to);
}
function realPlace(path: string): string {
  if (existsSync(path)) return realpathSync(path);
  const up = dirname(path);
  return up === path ? path : join(realPlace(up), basename(path));
}
/** `path` is `dir` or lies below it; both as outputPlace gives them. */
export const liesWithin = (dir: string, path: string): boolean => {
  const inside = relative(dir, path);
  return inside !== '..' && !inside.startsWith('..' + sep);
};
function isBundle(dir: string): boolean {
  try {
    return (
      (JSON.parse(readFileSync(join(dir, 'bundle.json'), 'utf8')) as { readonly format?: unknown } | null)?.format === 'hkgai-bundle-1'
    );
  } catch {
    return false;
  }
}

/** Refuse an output that must not be written, before any work. */
export function checkOutput(out: string, model: string, force: boolean): void {
  const to = outputPlace(out);
  const from = realPlace(resolve(model));
  if (liesWithin(from, to)) throw new Refusal([outputInside(out, model)]);
  if (liesWithin(to, from)) throw new Refusal([outputHoldsModel(out, model)]);
  if (!existsSync(to)) return;
  if (!statSync(to).isDirectory()) throw new Refusal([outputIsNoDirectory(out)]);
  if (statSync(to).dev !== statSync(dirname(to)).dev) throw new Refusal([outputIsMount(out)]);
  if (readdirSync(to).length === 0) return;
  const ours = isBundle(to);
  if (!ours || !force) throw new Refusal([outputExists(out, ours)]);
}

/** A directory and those above it, one by one: Node's own way never ends below /proc, and says of a file system that is not to be written that it is not there. */
export function makeDirectory(path: string): void {
  const missing: string[] = [];
  for (let at = resolve(path); !existsSync(at); at = dirname(at)) missing.unshift(at);
  for (const at of missing)
    try {
      mkdirSync(at);
    } catch (e) {
      if ((e as NodeJS.ErrnoException).code !== 'EEXIST') throw e; // another process was quicker
    }
}

/** Write a text file of many pieces, with the directories above it: a few hundred kilobytes of it are held at a time. */
export function writePieces(dir: string, path: string, pieces: Iterable<string>): void {
  const to = join(dir, path);
  makeDirectory(dirname(to));
  const fd = openSync(to, 'wx', 0o644);
  try {
    let held = '';
    for (const p of pieces) {
      held += p;
      if (held.length < 1 << 18) continue;
      writeFileSync(fd, held);
      held = '';
    }
    writeFileSync(fd, held);
  } finally {
    closeSync(fd);
  }
}
/** Write a text file, with the directories above it. */
export function writeText(dir: string, path: string, text: string, executable = false): void {
  const to = join(dir, path);
  makeDirectory(dirname(to));
  writeFileSync(to, text, { mode: executable ? 0o755 : 0o644, flag: 'wx' });
}

/**
 * The same bytes at a second place. `auto`: a clone where the file system has them, else a hard link, else a copy. What stands at `to` goes:
 * writing through it could reach a file that shares its bytes.
 */
export async function linkOrCopy(source: string, to: string, how: 'auto' | 'link' | 'copy'): Promise<void> {
  const from = realpathSync(source); // a hub's cache holds links: the bundle wants what they lead to
  makeDirectory(dirname(to));
  rmSync(to, { force: true });
  if (how === 'auto') {
    try {
      copyFileSync(from, to, constants.COPYFILE_FICLONE_FORCE);
      return;
    } catch {
      rmSync(to, { force: true });
    }
  }
  if (how !== 'copy') {
    try {
      linkSync(from, to);
      return;
    } catch (e) {
      if (how === 'link') throw e;
    }
  }
  await promises.copyFile(from, to, constants.COPYFILE_FICLONE);
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
export const filesBelow = (dir: string): readonly string[] => below(dir, e => e.isFile());
/** The same of whatever is no directory: links, pipes and sockets too. */
export const entriesBelow = (dir: string): readonly string[] => below(dir, e => !e.isDirectory());
function below(dir: string, wanted: (e: Dirent) => boolean): readonly string[] {
  return readdirSync(dir, { recursive: true, withFileTypes: true })
    .filter(wanted)
    .map(e => relative(dir, join(e.parentPath, e.name)).split(sep).join('/'))
    .sort();
}
