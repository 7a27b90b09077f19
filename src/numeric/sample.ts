// What a form loses on some rows of a matrix: read, converted and counted in the kernels' memory, nothing written.
import { closeSync, openSync } from 'node:fs';
import { join } from 'node:path';
import { type CodedForm, codedSizes, type GgufForm, ggufRow } from '../../ir/form.js';
import type { Part } from '../../ir/graph.js';
import { elements, type Storage, scaleShape } from '../../ir/storage.js';
import { readAt } from '../checkpoint/safetensors.js';
import { Arena, decoderOf, elementOf, figureBytes, type Kernels, openKernels, readFigures, scaleKindOf, slack } from './kernels.js';

/** Rows that are looked at: whole blocks of the source and of what is made, from the middle of the matrix. */
const sampleRows = 256;

export class Sample {
  readonly #kernels: Kernels = openKernels();
  readonly #arena = new Arena(this.#kernels.memory);
  readonly #dir: string;
  constructor(dir: string) {
    this.#dir = dir;
  }

  /** Squared error over squared values of rows of a matrix [rows, columns] written as `form`. */
  loss(part: Part, storage: Storage, rows: number, columns: number, form: CodedForm | GgufForm): number {
    const n = Math.min(sampleRows, rows);
    const first = Math.floor((rows - n) / 2 / 128) * 128;
    const a = this.#arena;
    a.reset();
    const pitch = (columns + slack) * 4;
    const work = a.take(n * pitch);
    this.#decode(part, storage, rows, columns, first, n, work, pitch);
    const figures = a.take(figureBytes);
    a.bytes(figures, figureBytes).fill(0);
    if (form.kind === 'gguf') this.#gguf(form, work, pitch, n, columns, figures);
    else this.#coded(form, work, pitch, n, columns, figures);
    return readFigures(new Float64Array(a.memory.buffer.slice(figures, figures + figureBytes))).relative ** 2;
  }

  #decode(part: Part, s: Storage, rows: number, columns: number, first: number, n: number, work: number, pitch: number): void {
    const a = this.#arena;
    const sourcePitch = Math.ceil((columns * elements[s.element].bits) / 8);
    const codes = a.take(n * sourcePitch);
    this.#read(part.file, codes, n * sourcePitch, part.bytes[0] + first * sourcePitch);
    const kind = decoderOf[s.element as keyof typeof decoderOf];
    if (s.kind === 'plain') {
      this.#kernels.decodeRows(kind, codes, sourcePitch, work, pitch, n, columns, 0, 0, 0, 1, 0, 0);
      return;
    }
    const scalePitch = (scaleShape(s, rows, columns)[1] * elements[s.scale].bits) / 8;
    const strip = Math.floor(first / s.block[0]);
    const strips = Math.ceil((first + n) / s.block[0]) - strip;
    const scales = a.take(strips * scalePitch);
    const span = part.scale as NonNullable<Part['scale']>;
    this.#read(span.file, scales, strips * scalePitch, span.bytes[0] + strip * scalePitch);
    this.#kernels.decodeRows(
      kind,
      codes,
      sourcePitch,
      work,
      pitch,
      n,
      columns,
      scales,
      scaleKindOf[s.scale],
      scalePitch,
      s.block[0],
      s.block[1],
      first % s.block[0],
    );
  }
  #read(file: string, at: number, bytes: number, position: number): void {
    const fd = openSync(join(this.#dir, file), 'r');
    try {
      readAt(fd, this.#arena.bytes(at, bytes), position);
    } finally {
      closeSync(fd);
    }
  }
  #coded(form: CodedForm, work: number, pitch: number, n: number, columns: number, figures: number): void {
    const a = this.#arena;
    const [strip] = form.block;
    const z = codedSizes(form, n, columns);
    const codes = a.take(strip * z.pitch);
    const scales = a.take(z.across * 4);
    const zeros = a.take(z.across);
    const scratch = a.take(Math.max(z.pitch, 256) + 64);
    const element = form.zero
      ? elementOf.i4zero
      : form.element === 'i4' && form.layout !== 'packed'
        ? elementOf.i4bytes
        : elementOf[form.element];
    for (let r = 0; r < n; r += strip)
      this.#kernels.encodeStrip(
        element,
        scaleKindOf[form.scale],
        form.search === 'absmax' ? 0 : 1,
        work + r * pitch,
        pitch,
        Math.min(strip, n - r),
        columns,
        form.block[1],
        codes,
        z.pitch,
        scales,
        zeros,
        0,
        scratch,
        figures,
      );
  }
  #gguf(form: GgufForm, work: number, pitch: number, n: number, columns: number, figures: number): void {
    const search = form.search === 'absmax' ? 0 : 1;
    const codes = this.#arena.take(ggufRow(form.type, columns));
    if (form.type === 'MXFP4') {
      const mx = { element: 'f4e2m1', block: [1, 32], scale: 'e8m0', zero: false, layout: 'packed' } as const;
      this.#coded({ kind: 'coded', ...mx, search: form.search }, work, pitch, n, columns, figures);
    } else
      for (let r = 0; r < n; r++)
        this.#kernels.encodeGguf(form.type === 'Q8_0' ? 0 : 1, search, work + r * pitch, columns, codes, 0, figures);
  }
}
