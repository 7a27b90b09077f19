// Two outputs side by side: bundles (every target of both), or plain model directories. Tensors by name, then files; bytes by hash where hashes are
// known, else read a piece at a time. One target stands against one, or against a model, whatever it is called; more are told apart by name.
import { createHash } from 'node:crypto';
import { closeSync, existsSync, openSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { join, relative as relativePath, sep } from 'node:path';
import { notThere, Refusal } from '../ir/problem.js';
import { filesBelow, sha256File } from './bundle/directory.js';
import { readLedger } from './bundle/ledger.js';
import { readManifest } from './bundle/manifest.js';
import { readAt, readHeader, type TensorEntry } from './checkpoint/safetensors.js';
import { decodeMatrix } from './numeric/decode.js';

export interface Difference {
  readonly same: boolean;
  readonly tensors: number;
  readonly tensorsB: number;
  readonly bytes: number;
  readonly bytesB: number;
  readonly onlyA: readonly Shown[];
  readonly onlyB: readonly Shown[];
  readonly form: readonly { readonly name: string; readonly a: string; readonly b: string }[];
  readonly bytesDiffer: readonly { readonly name: string; readonly note: string; readonly relative: number | null }[];
  readonly figures: readonly { readonly name: string; readonly a: number; readonly b: number }[];
  readonly files: readonly { readonly path: string; readonly what: string }[];
}
interface Shown {
  readonly name: string;
  readonly dtype: string;
  readonly shape: readonly number[];
}
/** A directory of weights: an engine's in a bundle, or a model. */
interface Part {
  /** Target directory in a bundle; null for a model. */
  readonly name: string | null;
  readonly dir: string;
  readonly tensors: ReadonlyMap<string, Placed>;
  readonly figures: ReadonlyMap<string, number>;
}
type Placed = TensorEntry & { readonly dir: string };
interface Side {
  readonly parts: readonly Part[];
  /** Of every file, by its path below the root. */
  readonly files: ReadonlyMap<string, string>;
  readonly root: string;
}

function side(root: string): Side {
  if (!existsSync(root) || !statSync(root).isDirectory()) throw new Refusal([notThere(root)]);
  if (!existsSync(join(root, 'bundle.json'))) {
    const files = new Map(filesBelow(root).map(f => [f, sha256File(join(root, f)).sha256]));
    return { root, files, parts: [{ name: null, dir: root, tensors: tensorsOf(root), figures: new Map() }] };
  }
  const m = readManifest(root);
  const parts = m.targets.map((t): Part => {
    const at = join(root, t.directory);
    const figures = existsSync(join(at, 'ledger.jsonl'))
      ? readLedger(at).outputs.flatMap(o => (o.figures ? [[o.output, o.figures.relative] as const] : []))
      : [];
    return { name: t.directory, dir: join(at, 'engine'), tensors: tensorsOf(join(at, 'engine')), figures: new Map(figures) };
  });
  // hashes as they were recorded: hkgai verify holds the files against them
  return { root, parts, files: new Map(Object.entries(m.files).map(([f, x]) => [f, x.sha256])) };
}
/** Tensors of the safetensors files of a directory, from their headers: those that the index names, where there is one. Other containers are files. */
function tensorsOf(dir: string): ReadonlyMap<string, Placed> {
  const index = join(dir, 'model.safetensors.index.json');
  const named = existsSync(index) ? new Set(Object.values(indexOf(index))) : null;
  const all = readdirSync(dir).filter(f => f.endsWith('.safetensors') && (named === null || named.has(f)));
  return new Map(all.flatMap(f => [...readHeader(join(dir, f), f).tensors.values()].map(t => [t.name, { ...t, dir }] as const)));
}
function indexOf(file: string): Readonly<Record<string, string>> {
  try {
    return (JSON.parse(readFileSync(file, 'utf8')) as { readonly weight_map: Record<string, string> }).weight_map ?? {};
  } catch {
    return {}; // told as a file that differs
  }
}
/** What of a file's path is compared: its place in the target's directory where one target stands against one, in the engine's where a model does. */
function pathsOf(s: Side, alone: boolean, model: boolean): ReadonlyMap<string, string> {
  const [only] = s.parts;
  if (!alone || only?.name === null || only === undefined) return s.files;
  const below = `${only.name}/${model ? 'engine/' : ''}`;
  return new Map([...s.files].flatMap(([f, sha]) => (f.startsWith(below) ? [[f.slice(below.length), sha] as const] : [])));
}

const buffer = new Uint8Array(1 << 20);
function tensorHash(dir: string, t: TensorEntry): string {
  const hash = createHash('sha256');
  const fd = openSync(join(dir, t.file), 'r');
  try {
    for (let p = t.bytes[0]; p < t.bytes[1]; p += 1 << 20) {
      const some = buffer.subarray(0, Math.min(buffer.length, t.bytes[1] - p));
      readAt(fd, some, p);
      hash.update(some);
    }
  } finally {
    closeSync(fd);
  }
  return hash.digest('hex');
}
/** Relative difference of two plain tensors of the same shape; null where they are codes. */
function relative(a: Placed, b: Placed): number | null {
  const element = { F32: 'f32', BF16: 'bf16', F16: 'f16' } as const;
  const [ea, eb] = [element[a.dtype as 'F32'], element[b.dtype as 'F32']];
  if (!ea || !eb || a.shape.join() !== b.shape.join()) return null;
  const [fa, fb] = [openSync(join(a.dir, a.file), 'r'), openSync(join(b.dir, b.file), 'r')];
  try {
    const n = a.shape.reduce((x, y) => x * y, 1);
    const sizes = { f32: 4, bf16: 2, f16: 2 };
    let [e2, x2] = [0, 0];
    for (let i = 0; i < n; i += 1 << 18) {
      const some = Math.min(1 << 18, n - i);
      const [ba, bb] = [new Uint8Array(some * sizes[ea]), new Uint8Array(some * sizes[eb])];
      readAt(fa, ba, a.bytes[0] + i * sizes[ea]);
      readAt(fb, bb, b.bytes[0] + i * sizes[eb]);
      const va = decodeMatrix({ kind: 'plain', element: ea }, ba, null, 1, some);
      const vb = decodeMatrix({ kind: 'plain', element: eb }, bb, null, 1, some);
      for (let k = 0; k < some; k++) {
        e2 += (va[k]! - vb[k]!) ** 2;
        x2 += va[k]! ** 2;
      }
    }
    return x2 === 0 ? Math.sqrt(e2) : Math.sqrt(e2 / x2);
  } finally {
    closeSync(fa);
    closeSync(fb);
  }
}

export function diff(a: string, b: string, values: boolean): Difference {
  const [x, y] = [side(a), side(b)];
  const alone = x.parts.length === 1 && y.parts.length === 1;
  const model = x.parts[0]?.name === null || y.parts[0]?.name === null;
  const named = <T>(s: Side, of: (p: Part) => ReadonlyMap<string, T>): ReadonlyMap<string, T> =>
    new Map(s.parts.flatMap(p => [...of(p)].map(([k, v]) => [alone || p.name === null ? k : `${p.name}: ${k}`, v] as const)).sort(byName));
  const [tx, ty] = [named(x, p => p.tensors), named(y, p => p.tensors)];
  const [fx, fy] = [named(x, p => p.figures), named(y, p => p.figures)];
  const size = (tensors: ReadonlyMap<string, Placed>): number => [...tensors.values()].reduce((n, t) => n + t.bytes[1] - t.bytes[0], 0);
  const shown = (name: string, t: TensorEntry): Shown => ({ name, dtype: t.dtype, shape: t.shape });
  const onlyA = [...tx].filter(([n]) => !ty.has(n)).map(([n, t]) => shown(n, t));
  const onlyB = [...ty].filter(([n]) => !tx.has(n)).map(([n, t]) => shown(n, t));
  const form: { readonly name: string; readonly a: string; readonly b: string }[] = [];
  const bytesDiffer: { readonly name: string; readonly note: string; readonly relative: number | null }[] = [];
  // files that are equal need no reading of their tensors
  const hashOf = (s: Side, t: Placed): string | undefined => s.files.get(relativePath(s.root, join(t.dir, t.file)).split(sep).join('/'));
  const equalFile = (p: Placed, q: Placed): boolean => {
    const [i, j] = [hashOf(x, p), hashOf(y, q)];
    return i !== undefined && i === j && p.bytes[0] === q.bytes[0];
  };
  for (const [name, t] of tx) {
    const u = ty.get(name);
    if (!u) continue;
    const [fa, fb] = [`${t.dtype} [${t.shape.join(', ')}]`, `${u.dtype} [${u.shape.join(', ')}]`];
    if (fa !== fb) form.push({ name, a: fa, b: fb });
    else if (!equalFile(t, u) && tensorHash(t.dir, t) !== tensorHash(u.dir, u))
      bytesDiffer.push({ name, note: fa, relative: values ? relative(t, u) : null });
  }
  const figures = [...fx].flatMap(([name, f]) => {
    const g = fy.get(name);
    return g !== undefined && g !== f ? [{ name, a: f, b: g }] : [];
  });
  // shards are told by their tensors; the manifest holds the hashes of all others
  const told = (f: string): boolean => f.endsWith('.safetensors') || f === 'bundle.json';
  const [px, py] = [pathsOf(x, alone, model), pathsOf(y, alone, model)];
  const files = [...new Set([...px.keys(), ...py.keys()])]
    .filter(f => !told(f))
    .sort()
    .flatMap(path => {
      const [i, j] = [px.get(path), py.get(path)];
      return i === j ? [] : [{ path, what: i === undefined ? 'only in B' : j === undefined ? 'only in A' : 'differs' }];
    });
  return {
    same: onlyA.length + onlyB.length + form.length + bytesDiffer.length + files.length === 0,
    tensors: tx.size,
    tensorsB: ty.size,
    bytes: size(tx),
    bytesB: size(ty),
    onlyA,
    onlyB,
    form,
    bytesDiffer,
    figures,
    files,
  };
}
const byName = ([a]: readonly [string, unknown], [b]: readonly [string, unknown]): number => (a < b ? -1 : a > b ? 1 : 0);
