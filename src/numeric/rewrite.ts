// A checkpoint written again with some matrices in another storage: shard by shard, rows by rows, in bounded memory.
// Everything else passes byte for byte. Names and shapes are compressed-tensors' own: int8 as weight + weight_scale, int4 as
// weight_packed (32-bit words, element 0 lowest, code + 8) + weight_scale + weight_shape.
import { closeSync, fsyncSync, openSync, readSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import type { Part } from '../../ir/graph.js';
import { elements, f32, type Storage } from '../../ir/storage.js';
import { decodeMatrix } from './decode.js';
import { int4Groups, int8Rows } from './quantise.js';

export type Form = { readonly to: 'int8' } | { readonly to: 'int4'; readonly group: number };

/** A tensor as its shard holds it; bytes are absolute in the file. */
export interface SourceTensor {
  readonly name: string;
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly file: string;
  readonly bytes: readonly [from: number, to: number];
}
/** A matrix to be written in another form. */
export interface Requantised {
  readonly part: Part;
  readonly storage: Storage;
  readonly rows: number;
  readonly columns: number;
  readonly form: Form;
}
interface Output {
  readonly name: string;
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly size: number;
}
const piece = 4 << 20; // elements of f32 held at once

/** What a matrix becomes: codes first, then scales, then whatever describes them. */
function outputsOf(m: Requantised): readonly Output[] {
  const base = m.part.tensor.replace(/\.weight$|\.weight_packed$/, '');
  const { rows, columns } = m;
  if (m.form.to === 'int8')
    return [
      { name: `${base}.weight`, dtype: 'I8', shape: [rows, columns], size: rows * columns },
      { name: `${base}.weight_scale`, dtype: 'F32', shape: [rows, 1], size: rows * 4 },
    ];
  const words = Math.ceil(columns / 8);
  const groups = Math.ceil(columns / m.form.group);
  return [
    { name: `${base}.weight_packed`, dtype: 'I32', shape: [rows, words], size: rows * words * 4 },
    { name: `${base}.weight_scale`, dtype: 'F32', shape: [rows, groups], size: rows * groups * 4 },
    { name: `${base}.weight_shape`, dtype: 'I64', shape: [2], size: 16 },
  ];
}

function readAll(fd: number, into: Uint8Array, position: number, file: string): void {
  for (let done = 0; done < into.length; ) {
    const n = readSync(fd, into, done, Math.min(into.length - done, 1 << 30), position + done);
    if (n === 0) throw Object.assign(new Error(`${file} ended while it was read`), { code: 'EIO', syscall: 'read', path: file });
    done += n;
  }
}
function writeAll(fd: number, from: Uint8Array, position: number): void {
  for (let done = 0; done < from.length; ) done += writeSync(fd, from, done, Math.min(from.length - done, 1 << 30), position + done);
}

/** The rows of a matrix in f32, some at a time: whole blocks of rows where scales are shared between rows. */
function* decodedRows(
  dir: string,
  m: Requantised,
): Generator<{ readonly first: number; readonly rows: number; readonly values: Float32Array }> {
  const s = m.storage;
  const step = s.kind === 'scaled' ? s.block[0] : 1;
  const each = Math.max(step, Math.floor(piece / m.columns / step) * step);
  const rowBytes = Math.ceil((m.columns * elements[s.element].bits) / 8);
  const fd = openSync(join(dir, m.part.file), 'r');
  const scaleFd = m.part.scale === undefined ? fd : openSync(join(dir, m.part.scale.file), 'r');
  try {
    const values = new Float32Array(Math.min(each, m.rows) * m.columns);
    for (let first = 0; first < m.rows; first += each) {
      const rows = Math.min(each, m.rows - first);
      const codes = new Uint8Array(rows * rowBytes);
      readAll(fd, codes, m.part.bytes[0] + first * rowBytes, m.part.file);
      let scales: Uint8Array | null = null;
      if (s.kind === 'scaled' && m.part.scale !== undefined) {
        const pitch = (m.part.scale.bytes[1] - m.part.scale.bytes[0]) / Math.ceil(m.rows / step);
        scales = new Uint8Array(Math.ceil(rows / step) * pitch);
        readAll(scaleFd, scales, m.part.scale.bytes[0] + (first / step) * pitch, m.part.scale.file);
      }
      yield { first, rows, values: decodeMatrix(s, codes, scales, rows, m.columns, values.subarray(0, rows * m.columns)) };
    }
  } finally {
    closeSync(fd);
    if (scaleFd !== fd) closeSync(scaleFd);
  }
}

function writeMatrix(dir: string, out: number, m: Requantised, at: ReadonlyMap<string, number>): void {
  const [codes, scales, shape] = outputsOf(m).map(o => at.get(o.name) as number);
  for (const { first, rows, values } of decodedRows(dir, m)) {
    const done = m.form.to === 'int8' ? int8Rows(values, rows, m.columns) : int4Groups(values, rows, m.columns, m.form.group);
    writeAll(out, done.codes, codes! + first * (done.codes.length / rows));
    writeAll(out, new Uint8Array(done.scales.buffer), scales! + first * (done.scales.length / rows) * 4);
  }
  if (shape !== undefined) writeAll(out, new Uint8Array(BigInt64Array.of(BigInt(m.rows), BigInt(m.columns)).buffer), shape);
}

/** A safetensors header: names in the order given, padded with spaces to a multiple of 8. */
export function headerBytes(outputs: readonly Output[]): Uint8Array {
  let at = 0;
  const entries = outputs.map(
    o => `${JSON.stringify(o.name)}:${JSON.stringify({ dtype: o.dtype, shape: o.shape, data_offsets: [at, (at += o.size)] })}`,
  );
  const json = new TextEncoder().encode(`{"__metadata__":{"format":"pt"},${entries.join(',')}}`);
  const header = new Uint8Array(8 + Math.ceil(json.length / 8) * 8).fill(0x20, 8);
  new DataView(header.buffer).setBigUint64(0, BigInt(header.length - 8), true);
  header.set(json, 8);
  return header;
}

const order = new Map(['I64', 'F64', 'F32', 'I32', 'BF16', 'F16', 'I8', 'U8', 'F8_E4M3', 'F8_E8M0'].map((d, i) => [d, i])); // wide ones first: all stay aligned

/**
 * Write the shards again into `out`. Returns the files with their tensors, for an index. `matrices` are keyed by the source tensor's name;
 * scales they used are dropped with them. `progress` is told bytes of source done and in all.
 */
export function rewriteCheckpoint(
  dir: string,
  out: string,
  tensors: readonly SourceTensor[],
  matrices: ReadonlyMap<string, Requantised>,
  progress: (done: number, total: number) => void,
): { readonly files: ReadonlyMap<string, readonly Output[]>; readonly bytes: number } {
  const spent = new Set<string>();
  for (const m of matrices.values()) {
    if (m.part.scale) spent.add(m.part.scale.tensor);
    for (const o of outputsOf(m)) if (o.name.endsWith('.weight_shape')) spent.add(o.name);
  }
  const total = tensors.reduce((n, t) => n + t.bytes[1] - t.bytes[0], 0);
  const files = new Map<string, readonly Output[]>();
  let done = 0;
  let bytes = 0;
  for (const file of [...new Set(tensors.map(t => t.file))].sort()) {
    const here = tensors.filter(t => t.file === file && (!spent.has(t.name) || matrices.has(t.name)));
    const outputs = here
      .flatMap(t => {
        const m = matrices.get(t.name);
        return m === undefined ? [{ name: t.name, dtype: t.dtype, shape: t.shape, size: t.bytes[1] - t.bytes[0] }] : outputsOf(m);
      })
      .sort((a, b) => (order.get(a.dtype) ?? 99) - (order.get(b.dtype) ?? 99) || (a.name < b.name ? -1 : 1));
    const header = headerBytes(outputs);
    const at = new Map<string, number>();
    let position = header.length;
    for (const o of outputs) {
      at.set(o.name, position);
      position += o.size;
    }
    const to = openSync(join(out, file), 'wx');
    const from = openSync(join(dir, file), 'r');
    try {
      writeAll(to, header, 0);
      const buffer = new Uint8Array(1 << 20);
      for (const t of [...here].sort((a, b) => a.bytes[0] - b.bytes[0])) {
        const m = matrices.get(t.name);
        if (m !== undefined) writeMatrix(dir, to, m, at);
        else
          for (let p = t.bytes[0]; p < t.bytes[1]; p += buffer.length) {
            const some = buffer.subarray(0, Math.min(buffer.length, t.bytes[1] - p));
            readAll(from, some, p, file);
            writeAll(to, some, at.get(t.name)! + p - t.bytes[0]);
          }
        done += t.bytes[1] - t.bytes[0];
        progress(done, total);
      }
      fsyncSync(to);
    } finally {
      closeSync(from);
      closeSync(to);
    }
    files.set(file, outputs);
    bytes += outputs.reduce((n, o) => n + o.size, 0);
  }
  return { files, bytes };
}

/** The storage that a form gives the graph's weight. */
export const storageOf = (form: Form): Storage =>
  form.to === 'int8'
    ? { kind: 'scaled', element: 'i8', block: [1, 0], scale: f32.element as 'f32' }
    : { kind: 'scaled', element: 'i4', block: [1, form.group], scale: 'f32' };
