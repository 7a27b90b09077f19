// One thread of the floor: each kind of work of a compile by itself, over this thread's share of the bytes, as fast as Node does it.
import { createHash } from 'node:crypto';
import { closeSync, ftruncateSync, openSync, readdirSync, readSync, statSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { parentPort, workerData } from 'node:worker_threads';
import { type CodedForm, coded, codedSizes, scaleSize } from '../ir/form.js';
import { Arena, decoderOf, elementOf, figureBytes, openKernels, scaleKindOf, slack } from '../src/numeric/kernels.js';

export interface FloorData {
  readonly model: string;
  readonly out: string;
  readonly thread: number;
  readonly jobs: number;
  readonly fp8: boolean;
  readonly to: 'int8' | 'int4g32' | 'int4g128' | 'bf16';
  readonly search: 'absmax' | 'mse';
  /** Bytes of all threads. */
  readonly source: number;
  readonly output: number;
}
/** Seconds. */
export interface FloorTime {
  readonly read: number;
  readonly convert: number;
  readonly hash: number;
  readonly write: number;
}
const d = workerData as FloorData;
const piece = 1 << 19;
const kernels = openKernels();
const arena = new Arena(kernels.memory);
const seconds = (work: () => void): number => {
  const begin = performance.now();
  work();
  return (performance.now() - begin) / 1e3;
};

/** This thread's share of the source files, in pieces, into the kernels' memory. */
function read(): number {
  const at = arena.take(piece);
  const files = readdirSync(d.model).filter(f => f.endsWith('.safetensors'));
  const total = files.reduce((n, f) => n + statSync(join(d.model, f)).size, 0);
  const [from, to] = [(total * d.thread) / d.jobs, (total * (d.thread + 1)) / d.jobs];
  return seconds(() => {
    let before = 0;
    for (const f of files) {
      const size = statSync(join(d.model, f)).size;
      const fd = openSync(join(d.model, f), 'r');
      for (let p = Math.max(0, Math.floor(from - before)); p < Math.min(size, to - before); p += piece)
        readSync(fd, arena.bytes(at, piece), 0, piece, p);
      closeSync(fd);
      before += size;
    }
  });
}
/** The source's bytes through the kernel, the same rows over and over: they are in the cache. */
function convert(): number {
  const columns = 7168;
  const rows = d.fp8 ? 128 : Math.floor(piece / (columns * 2));
  const bytes = rows * columns * (d.fp8 ? 1 : 2);
  const source = arena.take(bytes);
  const view = arena.bytes(source, bytes);
  for (let i = 0; i < bytes; i++) view[i] = d.fp8 ? (i * 37) & 0x7e : i & 1 ? 0x3c : (i * 37) & 255;
  const scales = arena.take(columns);
  new Float32Array(arena.memory.buffer, scales, columns / 4).fill(0.01);
  const times = d.source / d.jobs / bytes;
  const figures = arena.take(figureBytes);
  const pitch = (columns + slack) * 4;
  const [kind, scalePitch, blockRows, blockColumns] = d.fp8
    ? ([decoderOf.f8e4m3, (columns / 128) * 4, 128, 128] as const)
    : ([decoderOf.bf16, 0, 1, 0] as const);
  if (d.to === 'bf16') {
    const work = arena.take(rows * pitch);
    const to = arena.take(rows * columns * 2);
    const once = (): void => {
      kernels.decodeRows(
        kind,
        source,
        columns * (d.fp8 ? 1 : 2),
        work,
        pitch,
        rows,
        columns,
        scales,
        0,
        scalePitch,
        blockRows,
        blockColumns,
        0,
      );
      for (let r = 0; r < rows; r++) kernels.encodePlain(0, work + r * pitch, columns, to + r * columns * 2, figures);
    };
    once();
    return seconds(() => {
      for (let i = 0; i < times; i++) once();
    });
  }
  const form: CodedForm = {
    int8: coded('i8', [1, 0], 'bf16-in-f32'),
    int4g32: coded('i4', [1, 32], 'bf16'),
    int4g128: coded('i4', [1, 128], 'bf16'),
  }[d.to];
  const z = codedSizes(form, rows, columns);
  const [codes, out, work, scratch] = [arena.take(z.codes), arena.take(z.scales), arena.take(pitch), arena.take(columns)];
  const once = (): void =>
    kernels.convert(
      ...([kind, source, columns * (d.fp8 ? 1 : 2), rows, columns, scales, 0, scalePitch, blockRows, blockColumns, 0] as const),
      ...([elementOf[form.element as 'i8'], scaleKindOf[form.scale], d.search === 'mse' ? 1 : 0, 1, form.block[1]] as const),
      ...([codes, z.pitch, out, z.across * scaleSize(form.scale), 0, 0, 0, work, pitch, scratch, figures] as const),
    );
  once();
  return seconds(() => {
    for (let i = 0; i < times; i++) once();
  });
}
function hash(): number {
  const at = arena.take(piece);
  const h = createHash('sha256');
  return seconds(() => {
    for (let left = (d.source + d.output) / d.jobs; left > 0; left -= piece) h.update(arena.bytes(at, Math.min(piece, left)));
  });
}
/** New files of 256 MiB, as the output's are. */
function write(): number {
  const at = arena.take(piece);
  return seconds(() => {
    let left = Math.floor(d.output / d.jobs);
    for (let i = 0; left > 0; i++) {
      const fd = openSync(join(d.out, `${d.thread}-${i}`), 'w');
      const size = Math.min(left, 256 << 20);
      ftruncateSync(fd, size);
      for (let p = 0; p < size; p += piece) writeSync(fd, arena.bytes(at, Math.min(piece, size - p)), 0, Math.min(piece, size - p), p);
      closeSync(fd);
      left -= size;
    }
  });
}
const kinds = { read, convert, hash, write };
parentPort!.on('message', (kind: keyof FloorTime | null) => {
  if (kind === null) parentPort!.close();
  else {
    arena.reset();
    parentPort!.postMessage(kinds[kind]());
  }
});
