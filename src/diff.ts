// Two outputs side by side: bundles (every target of both), or plain model directories. Tensors by name, then files; bytes by hash where hashes are
// known, else read.
import { createHash } from 'node:crypto';
import { closeSync, existsSync, openSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { notThere, Refusal } from '../ir/problem.js';
import { filesBelow, sha256File } from './bundle/directory.js';
import { readLedger } from './bundle/ledger.js';
import { readManifest } from './bundle/manifest.js';
import { readAt, type TensorEntry } from './checkpoint/safetensors.js';
import { openCheckpoint } from './checkpoint/shards.js';
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
interface Side {
  readonly root: string;
  /** By target directory and name. */
  readonly tensors: ReadonlyMap<string, TensorEntry & { readonly dir: string }>;
  readonly figures: ReadonlyMap<string, number>;
  readonly files: ReadonlyMap<string, string>;
}

function side(root: string): Side {
  if (!existsSync(root) || !statSync(root).isDirectory()) throw new Refusal([notThere(root)]);
  const tensors = new Map<string, TensorEntry & { readonly dir: string }>();
  const figures = new Map<string, number>();
  if (existsSync(join(root, 'bundle.json'))) {
    const m = readManifest(root);
    for (const t of m.targets) {
      const dir = join(root, t.directory, 'engine');
      for (const x of openCheckpointLoose(dir)) tensors.set(m.targets.length > 1 ? `${t.directory}: ${x.name}` : x.name, { ...x, dir });
      if (existsSync(join(root, t.directory, 'ledger.jsonl')))
        for (const o of readLedger(join(root, t.directory)).outputs)
          if (o.figures) figures.set(m.targets.length > 1 ? `${t.directory}: ${o.output}` : o.output, o.figures.relative);
    }
    const files = new Map(Object.entries(m.files).map(([f, x]) => [f, x.sha256]));
    return { root, tensors, figures, files };
  }
  for (const x of openCheckpointLoose(root)) tensors.set(x.name, { ...x, dir: root });
  return { root, tensors, figures, files: new Map(filesBelow(root).map(f => [f, sha256File(join(root, f)).sha256])) };
}
/** Tensors of a directory, from its headers. */
const openCheckpointLoose = (dir: string): readonly TensorEntry[] => [...openCheckpoint(dir, { allowPhantomKeys: true }).tensors.values()];

function tensorHash(dir: string, t: TensorEntry): string {
  const hash = createHash('sha256');
  const fd = openSync(join(dir, t.file), 'r');
  try {
    for (let p = t.bytes[0]; p < t.bytes[1]; p += 1 << 20) {
      const some = new Uint8Array(Math.min(1 << 20, t.bytes[1] - p));
      readAt(fd, some, p);
      hash.update(some);
    }
  } finally {
    closeSync(fd);
  }
  return hash.digest('hex');
}
/** Relative difference of two plain tensors of the same shape; null where they are codes. */
function relative(a: TensorEntry & { readonly dir: string }, b: TensorEntry & { readonly dir: string }): number | null {
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
  const size = (s: Side): number => [...s.tensors.values()].reduce((n, t) => n + t.bytes[1] - t.bytes[0], 0);
  const shown = (name: string, t: TensorEntry): Shown => ({ name, dtype: t.dtype, shape: t.shape });
  const onlyA = [...x.tensors].filter(([n]) => !y.tensors.has(n)).map(([n, t]) => shown(n, t));
  const onlyB = [...y.tensors].filter(([n]) => !x.tensors.has(n)).map(([n, t]) => shown(n, t));
  const form: { readonly name: string; readonly a: string; readonly b: string }[] = [];
  const bytesDiffer: { readonly name: string; readonly note: string; readonly relative: number | null }[] = [];
  // files that are equal need no reading of their tensors
  const equalFile = (p: TensorEntry & { readonly dir: string }, q: TensorEntry & { readonly dir: string }): boolean => {
    const key = (s: Side, t: TensorEntry & { readonly dir: string }): string | undefined =>
      s.files.get(join(t.dir, t.file).slice(s.root.replace(/\/$/, '').length + 1));
    const [i, j] = [key(x, p), key(y, q)];
    return i !== undefined && i === j && p.bytes[0] === q.bytes[0];
  };
  for (const [name, t] of x.tensors) {
    const u = y.tensors.get(name);
    if (!u) continue;
    const [fa, fb] = [`${t.dtype} [${t.shape.join(', ')}]`, `${u.dtype} [${u.shape.join(', ')}]`];
    if (fa !== fb) form.push({ name, a: fa, b: fb });
    else if (!equalFile(t, u) && tensorHash(t.dir, t) !== tensorHash(u.dir, u))
      bytesDiffer.push({ name, note: fa, relative: values ? relative(t, u) : null });
  }
  const figures = [...x.figures].flatMap(([name, f]) => {
    const g = y.figures.get(name);
    return g !== undefined && g !== f ? [{ name, a: f, b: g }] : [];
  });
  const weights = (f: string): boolean => f.endsWith('.safetensors') || f === 'bundle.json';
  const files = [...new Set([...x.files.keys(), ...y.files.keys()])]
    .filter(f => !weights(f))
    .sort()
    .flatMap(path => {
      const [i, j] = [x.files.get(path), y.files.get(path)];
      return i === j ? [] : [{ path, what: i === undefined ? 'only in B' : j === undefined ? 'only in A' : 'differs' }];
    });
  const same = onlyA.length + onlyB.length + form.length + bytesDiffer.length + files.length === 0;
  return {
    same,
    tensors: x.tensors.size,
    tensorsB: y.tensors.size,
    bytes: size(x),
    bytesB: size(y),
    onlyA,
    onlyB,
    form,
    bytesDiffer,
    figures,
    files,
  };
}
