// One output file: pieces are read straight into the kernels' memory, converted, hashed while they are in cache, and written from there.
import { createHash, type Hash } from 'node:crypto';
import { closeSync, constants, fstatSync, ftruncateSync, mkdirSync, openSync, readSync, rmSync, writeSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { type CodedForm, codedSizes, type GgufForm, ggufRow, type PlainForm, scaleSize } from '../../ir/form.js';
import type { Span } from '../../ir/graph.js';
import { Refusal } from '../../ir/problem.js';
import { elements, type Storage, scaleShape } from '../../ir/storage.js';
import { strictIdentityOf } from '../checkpoint/identity.js';
import { gptqRows } from './gptq.js';
import { Arena, decoderOf, elementOf, figureBytes, type Kernels, openKernels, readFigures, scaleKindOf, slack } from './kernels.js';
import { noExpert, tooWide } from './problems.js';
import {
  type Donor,
  type EarlierStep,
  type FileResult,
  type FileWork,
  Interrupted,
  type MatrixStep,
  type Renumber,
  reads,
  type Step,
  type StepResult,
  writes,
} from './steps.js';

/** Source bytes of a piece: it stays in the second cache with what is made of it. */
const pieceBytes = 1 << 19;

export interface StreamOptions {
  /** Where source files lie, and where output files go. */
  readonly from: string;
  readonly to: string;
  /** Statistics of activations: f32 [columns] by name; `gram:NAME` is f32 [columns, columns]. */
  readonly statistics: (name: string) => Float32Array | null;
  /** True when the run is to stop; asked between pieces. */
  readonly stop: () => boolean;
  /** Told source bytes as they are done. */
  readonly progress: (bytes: number) => void;
  /** Most bytes of a piece; smaller where memory is short. */
  readonly piece?: number;
}
interface Clock {
  read: number;
  convert: number;
  hash: number;
  write: number;
}

/** A file written at any place, hashed in order: what came out of order is read back. */
class Output {
  readonly fd: number;
  readonly #path: string;
  readonly #hash: Hash = createHash('sha256');
  readonly #clock: Clock;
  #hashed = 0;
  constructor(path: string, size: number, clock: Clock) {
    mkdirSync(dirname(path), { recursive: true });
    this.#path = path;
    this.#clock = clock;
    rmSync(path, { force: true }); // an unfinished one may share its bytes with a finished file elsewhere
    this.fd = openSync(path, 'wx+');
    ftruncateSync(this.fd, size);
  }
  write(at: number, bytes: Uint8Array): void {
    const begin = performance.now();
    for (let done = 0; done < bytes.length; ) done += writeSync(this.fd, bytes, done, Math.min(bytes.length - done, 1 << 30), at + done);
    const written = performance.now();
    this.#clock.write += written - begin;
    if (at === this.#hashed) {
      this.#hash.update(bytes);
      this.#hashed += bytes.length;
      this.#clock.hash += performance.now() - written;
    }
  }
  finish(size: number): string {
    const buffer = new Uint8Array(Math.min(1 << 20, size - this.#hashed));
    while (this.#hashed < size) {
      const some = buffer.subarray(0, Math.min(buffer.length, size - this.#hashed));
      readAll(this.fd, some, this.#hashed, this.#path);
      this.#hash.update(some);
      this.#hashed += some.length;
    }
    return this.#hash.digest('hex');
  }
  close(): void {
    closeSync(this.fd);
  }
}
function readAll(fd: number, into: Uint8Array, position: number, path: string): void {
  for (let done = 0; done < into.length; ) {
    const n = readSync(fd, into, done, Math.min(into.length - done, 1 << 30), position + done);
    if (n === 0) throw Object.assign(new Error(`${path} ended while it was read`), { code: 'EIO', syscall: 'read', path });
    done += n;
  }
}

/** An earlier output is not, or is no longer, what was recorded of it. */
class Untrusted extends Error {}
/** Earlier outputs that are read from while one file is made: they are what was recorded when they are opened, and still are at the end. */
class Donors {
  readonly #list: readonly Donor[];
  readonly #open = new Map<number, number>();
  constructor(list: readonly Donor[]) {
    this.#list = list;
  }
  #is(fd: number, d: Donor): boolean {
    return strictIdentityOf(fstatSync(fd, { bigint: true })) === d.identity;
  }
  read(donor: number, into: Uint8Array, position: number): void {
    const d = this.#list[donor] as Donor;
    try {
      let fd = this.#open.get(donor);
      if (fd === undefined) {
        fd = openSync(d.path, constants.O_RDONLY | constants.O_NONBLOCK); // a pipe in its place is not waited for
        this.#open.set(donor, fd);
        if (!this.#is(fd, d)) throw new Untrusted();
      }
      readAll(fd, into, position, d.path);
    } catch {
      throw new Untrusted(d.path); // gone, cut, not to be read: it is made again
    }
  }
  check(): void {
    for (const [i, fd] of this.#open) if (!this.#is(fd, this.#list[i] as Donor)) throw new Untrusted();
  }
  close(): void {
    for (const fd of this.#open.values()) closeSync(fd);
    this.#open.clear();
  }
}

export class Stream {
  readonly #kernels: Kernels = openKernels();
  readonly #arena = new Arena(this.#kernels.memory);
  readonly #open = new Map<string, number>();
  readonly #o: StreamOptions;
  #clock: Clock = { read: 0, convert: 0, hash: 0, write: 0 };
  /** Scales that wait for their turn in the file. */
  readonly #hold = new Uint8Array(1 << 22);
  /** Source bytes told of the file in hand. */
  #told = 0;
  /** Figures so far of a tensor that is made of several runs of rows. */
  #carried: { readonly name: string; readonly figures: Uint8Array } | null = null;
  constructor(options: StreamOptions) {
    this.#o = options;
  }
  close(): void {
    for (const fd of this.#open.values()) closeSync(fd);
    this.#open.clear();
  }

  /** Do one file. Waits for the event loop now and then, so that signals are heard. */
  async file(work: FileWork): Promise<FileResult> {
    this.#told = 0;
    try {
      return await this.#make(work);
    } catch (e) {
      if (!(e instanceof Untrusted)) throw e;
      this.#o.progress(-this.#told);
      const { earlier: _, ...anew } = work;
      return this.#make(anew);
    }
  }
  #tell(bytes: number): void {
    this.#told += bytes;
    this.#o.progress(bytes);
  }
  async #make(work: FileWork): Promise<FileResult> {
    this.#clock = { read: 0, convert: 0, hash: 0, write: 0 };
    this.#carried = null;
    if (work.link) return this.#digests(work);
    const out = new Output(join(this.#o.to, work.path), work.size, this.#clock);
    const donors = new Donors(work.earlier?.donors ?? []);
    try {
      const steps: StepResult[] = [];
      let turn = performance.now();
      for (const [i, step] of work.steps.entries()) {
        const earlier = work.earlier?.steps[i];
        const r = earlier ? this.#again(step, earlier, donors, out) : this.#step(step, out);
        if (r.sources.length || r.name !== null) steps.push(r);
        if (performance.now() - turn > 50) {
          await new Promise(resolve => setImmediate(resolve));
          turn = performance.now();
        }
      }
      donors.check();
      const begin = performance.now();
      const sha256 = out.finish(work.size);
      this.#clock.hash += performance.now() - begin;
      const { read, convert, hash, write } = this.#clock;
      const seconds = { read: read / 1e3, convert: convert / 1e3, hash: hash / 1e3, write: write / 1e3 };
      return { index: work.index, path: work.path, sha256, bytes: work.size, steps, seconds, taken: work.earlier?.tensors ?? 0 };
    } catch (e) {
      rmSync(join(this.#o.to, work.path), { force: true }); // a full disk has room again
      throw e;
    } finally {
      donors.close();
      out.close();
    }
  }

  /** Bytes that were made before, and what was recorded of them. */
  #again(step: Step, earlier: EarlierStep, donors: Donors, out: Output): StepResult {
    this.#arena.reset();
    const { from, result } = earlier;
    if (from !== null) {
      const size = 1 << 20;
      const at = this.#arena.take(size);
      // in the order of the file, so that it is hashed as it is written
      const ranges = writes(step).map(([to, bytes], i) => ({ to, bytes, from: from.at[i] as number }));
      for (const r of ranges.sort((a, b) => a.to - b.to))
        for (let p = 0; p < r.bytes; p += size) {
          if (this.#o.stop()) throw new Interrupted();
          const some = this.#arena.bytes(at, Math.min(size, r.bytes - p));
          const begin = performance.now();
          donors.read(from.donor, some, r.from + p);
          this.#clock.read += performance.now() - begin;
          out.write(r.to + p, some);
        }
    }
    this.#tell(reads(step));
    return result;
  }

  /** A file's hash and its tensors', in one reading. */
  async #digests(work: FileWork): Promise<FileResult> {
    this.#arena.reset();
    const whole = createHash('sha256');
    const steps: StepResult[] = [];
    const buffer = this.#arena.take(1 << 20);
    let turn = performance.now();
    let at = 0;
    const take = async (to: number, hash: Hash | null): Promise<void> => {
      while (at < to) {
        const some = this.#arena.bytes(buffer, Math.min(1 << 20, to - at));
        this.#read(work.path, some, at);
        this.#update(whole, some);
        if (hash) this.#update(hash, some);
        at += some.length;
        this.#tell(some.length);
        if (performance.now() - turn > 50) {
          await new Promise(resolve => setImmediate(resolve));
          turn = performance.now();
        }
      }
    };
    for (const s of work.steps) {
      if (s.kind !== 'digest') throw new Error('a file that goes on whole is only read');
      await take(s.source.bytes[0], null);
      const hash = createHash('sha256');
      await take(s.source.bytes[1], hash);
      steps.push({ sources: [[s.source.tensor, hash.digest('hex')]], name: null, figures: null });
    }
    await take(work.size, null);
    const { read, convert, hash, write } = this.#clock;
    const seconds = { read: read / 1e3, convert: convert / 1e3, hash: hash / 1e3, write: write / 1e3 };
    return { index: work.index, path: work.path, sha256: whole.digest('hex'), bytes: work.size, steps, seconds };
  }

  #fd(file: string): number {
    let fd = this.#open.get(file);
    if (fd === undefined) {
      if (this.#open.size > 64) this.close();
      fd = openSync(join(this.#o.from, file), 'r');
      this.#open.set(file, fd);
    }
    return fd;
  }
  #read(file: string, into: Uint8Array, position: number): void {
    if (this.#o.stop()) throw new Interrupted();
    const begin = performance.now();
    readAll(this.#fd(file), into, position, join(this.#o.from, file));
    this.#clock.read += performance.now() - begin;
  }
  #update(hash: Hash, bytes: Uint8Array): void {
    const begin = performance.now();
    hash.update(bytes);
    this.#clock.hash += performance.now() - begin;
  }

  #step(step: Step, out: Output): StepResult {
    this.#arena.reset();
    switch (step.kind) {
      case 'put':
        out.write(step.out, step.bytes);
        return { sources: [], name: null, figures: null };
      case 'fill': {
        const block = new Uint8Array(Math.min(step.size, 1 << 18)).fill(step.byte);
        for (let p = 0; p < step.size; p += block.length) out.write(step.out + p, block.subarray(0, Math.min(block.length, step.size - p)));
        return { sources: [], name: null, figures: null };
      }
      case 'copy':
      case 'digest':
        return {
          sources: [[step.source.tensor, this.#copy(step.source, step.kind === 'copy' ? step.out : null, out)]],
          name: null,
          figures: null,
        };
      case 'narrow':
        return { sources: [[step.source.tensor, this.#narrow(step.source, step.out, out)]], name: null, figures: null };
      case 'renumber':
        return { sources: [[step.source.tensor, this.#renumber(step, out)]], name: null, figures: null };
      case 'matrix':
        return this.#matrix(step, out);
    }
  }
  #copy(s: Span, to: number | null, out: Output): string {
    const hash = createHash('sha256');
    const size = Math.min(1 << 20, Math.max(1, s.bytes[1] - s.bytes[0]));
    const at = this.#arena.take(size);
    for (let p = s.bytes[0]; p < s.bytes[1]; p += size) {
      const some = this.#arena.bytes(at, Math.min(size, s.bytes[1] - p));
      this.#read(s.file, some, p);
      this.#update(hash, some);
      if (to !== null) out.write(to + p - s.bytes[0], some);
      this.#tell(some.length);
    }
    return hash.digest('hex');
  }

  #renumber({ source: s, out: to, rows, ids, narrow }: Renumber, out: Output): string {
    const size = s.bytes[1] - s.bytes[0];
    const from = this.#arena.take(size);
    const into = this.#arena.take(size);
    const read = this.#arena.bytes(from, size);
    this.#read(s.file, read, s.bytes[0]);
    const hash = createHash('sha256');
    this.#update(hash, read);
    const made = this.#arena.bytes(into, size);
    const pitch = rows ? size / rows.length : size;
    (rows ?? [0]).forEach((old, now) => void made.set(read.subarray(old * pitch, (old + 1) * pitch), now * pitch));
    let length = size;
    if (ids) {
      const words = new Uint32Array(made.buffer, made.byteOffset, size / 4);
      length = narrow ? size / 2 : size;
      for (let i = 0; i < words.length; i += 2) {
        const id = words[i + 1] === 0 ? ids[words[i] as number] : undefined;
        if (id === undefined)
          throw new Refusal([
            noExpert(
              s.tensor,
              (BigInt(words[i + 1] as number) << 32n) | BigInt(words[i] as number),
              ids.length,
              s.file,
              s.bytes[0] + 4 * i,
            ),
          ]);
        words[narrow ? i / 2 : i] = id;
      }
    }
    out.write(to, made.subarray(0, length));
    this.#tell(size);
    return hash.digest('hex');
  }

  #narrow(s: Span, to: number, out: Output): string {
    const hash = createHash('sha256');
    const size = Math.min(1 << 20, Math.max(8, s.bytes[1] - s.bytes[0]));
    const at = this.#arena.take(size);
    for (let p = s.bytes[0]; p < s.bytes[1]; p += size) {
      const some = this.#arena.bytes(at, Math.min(size, s.bytes[1] - p));
      this.#read(s.file, some, p);
      this.#update(hash, some);
      const wide = new Int32Array(some.buffer, some.byteOffset, some.length / 4);
      const narrow = new Int32Array(wide.length / 2);
      for (let i = 0; i < narrow.length; i++) {
        const low = wide[2 * i] as number;
        const high = wide[2 * i + 1] as number;
        if (high !== low >> 31) throw new Refusal([tooWide(s.tensor, (BigInt(high) << 32n) | BigInt(low >>> 0), s.file, p + 8 * i)]);
        narrow[i] = low;
      }
      out.write(to + (p - s.bytes[0]) / 2, new Uint8Array(narrow.buffer));
      this.#tell(some.length);
    }
    return hash.digest('hex');
  }

  #matrix(m: MatrixStep, out: Output): StepResult {
    const figures = this.#arena.take(figureBytes);
    if (this.#carried?.name === m.name) this.#arena.bytes(figures, figureBytes).set(this.#carried.figures);
    else this.#arena.bytes(figures, figureBytes).fill(0);
    const rows = new Rows(this, this.#arena, m, this.#o.piece ?? pieceBytes);
    if (m.turn !== 'none') this.#turned(m, rows, figures, out);
    else if (m.form.kind === 'coded') this.#coded(m, m.form, rows, figures, out);
    else if (m.form.kind === 'plain' || m.form.kind === 'gguf') this.#simple(m, m.form, rows, figures, out);
    else throw new Error('a kept tensor is copied, not converted');
    const all = m.take === null;
    this.#carried = { name: m.name, figures: this.#arena.bytes(figures, figureBytes).slice() };
    return {
      sources: all ? rows.digests() : [],
      name: m.name,
      figures: readFigures(new Float64Array(this.#arena.memory.buffer.slice(figures, figures + figureBytes))),
    };
  }

  /** For Rows: a piece of the source, hashed where all of it is read in order. */
  piece(file: string, at: number, n: number, position: number, hash: Hash | null): void {
    const into = this.#arena.bytes(at, n);
    this.#read(file, into, position);
    if (hash) this.#update(hash, into);
    this.#tell(n);
  }

  #coded(m: MatrixStep, form: CodedForm, rows: Rows, figures: number, out: Output): void {
    if (form.search === 'gptq' && m.statistics !== null && this.#o.statistics(`gram:${m.statistics}`)) {
      this.#gptq(m, form, rows, figures, out);
      return;
    }
    const arena = this.#arena;
    const total = rows.count;
    const [strip, block] = [form.block[0], form.block[1]];
    const z = codedSizes(form, total, m.columns);
    const scaleRow = z.across * scaleSize(form.scale);
    const step = strip > 1 ? strip : form.layout === 'row-pairs' || m.regions.zeros !== null ? 8 : 1;
    const each = rows.pieceRows(step);
    const pitch = (m.columns + slack) * 4;
    const work = arena.take(strip * pitch);
    const scratch = arena.take(Math.max(z.pitch, 256) + 64);
    const codes = arena.take(each * z.pitch);
    const strips = Math.ceil(each / strip);
    const scales = arena.take(strips * scaleRow);
    const zeroRow = form.zero ? z.across : 0;
    const zeros = arena.take(each * zeroRow);
    const packed =
      form.layout === 'row-pairs' || form.zero ? arena.take(Math.max((each / 2) * m.columns, Math.ceil(each / 8) * z.across * 4)) : 0;
    const sums = m.regions.sums ? arena.take(each * m.regions.sums.chunks * 4) : 0;
    const weights = this.#weights(m);
    const element = form.zero
      ? elementOf.i4zero
      : form.element === 'i4' && form.layout !== 'packed'
        ? elementOf.i4bytes
        : elementOf[form.element];
    const search = form.search === 'absmax' ? 0 : 1;
    // scales wait for the end of their codes where they are few: then the file is hashed in order without reading it back
    let held = 0;
    const later: { readonly region: number; readonly from: number; readonly to: number }[] = [];
    const padding = z.pitch * 2 - m.columns; // half bytes behind a row's last code
    for (let first = 0; first < total; first += each) {
      const n = Math.min(each, total - first);
      rows.load(first, n);
      const begin = performance.now();
      if (form.element === 'i4' && form.layout === 'packed' && padding > 1) arena.bytes(codes, n * z.pitch).fill(form.zero ? 0 : 0x88);
      const s = rows.source();
      this.#kernels.convert(
        s.kind,
        s.at,
        s.pitch,
        n,
        m.columns,
        s.scales,
        s.scaleKind,
        s.scalePitch,
        s.blockRows,
        s.blockColumns,
        s.row0,
        element,
        scaleKindOf[form.scale],
        search,
        strip,
        block,
        codes,
        z.pitch,
        scales,
        scaleRow,
        zeros,
        zeroRow,
        weights,
        work,
        pitch,
        scratch,
        figures,
      );
      const scaleBytes = Math.ceil(n / strip) * scaleRow;
      if (m.regions.sums) this.#kernels.codeSums(codes, z.pitch, scales, sums, n, m.columns, m.regions.sums.chunks);
      let codeBytes = arena.bytes(codes, n * z.pitch);
      if (form.layout === 'row-pairs') {
        this.#kernels.packRowPairs(codes, z.pitch, packed, n, m.columns);
        codeBytes = arena.bytes(packed, (n / 2) * m.columns);
      }
      this.#clock.convert += performance.now() - begin;
      out.write(m.regions.codes + (form.layout === 'row-pairs' ? first / 2 : first) * z.pitch, codeBytes);
      const put = (region: number, bytes: Uint8Array): void => {
        if (held + bytes.length > this.#hold.length) out.write(region, bytes);
        else {
          this.#hold.set(bytes, held);
          later.push({ region, from: held, to: (held += bytes.length) });
        }
      };
      put((m.regions.scales as number) + (first / strip) * scaleRow, arena.bytes(scales, scaleBytes));
      if (m.regions.zeros !== null) {
        this.#kernels.packZeros(zeros, packed, n, z.across);
        put(m.regions.zeros + (first / 8) * z.across * 4, arena.bytes(packed, Math.ceil(n / 8) * z.across * 4));
      }
      if (m.regions.sums) put(m.regions.sums.at + first * m.regions.sums.chunks * 4, arena.bytes(sums, n * m.regions.sums.chunks * 4));
    }
    for (const l of later.sort((x, y) => x.region - y.region)) out.write(l.region, this.#hold.subarray(l.from, l.to));
  }

  #weights(m: MatrixStep): number {
    const v = m.statistics === null ? null : this.#o.statistics(m.statistics);
    if (!v) return 0;
    const at = this.#arena.take((m.columns + slack) * 4);
    this.#arena.bytes(at, (m.columns + slack) * 4).fill(0);
    new Float32Array(this.#arena.memory.buffer, at, m.columns).set(v);
    return at;
  }

  /** Plain values and GGUF blocks: row by row from f32. */
  #simple(m: MatrixStep, form: PlainForm | GgufForm, rows: Rows, figures: number, out: Output): void {
    const arena = this.#arena;
    const each = rows.pieceRows(1);
    const pitch = (m.columns + slack) * 4;
    const work = arena.take(each * pitch);
    const rowBytes = form.kind === 'plain' ? (m.columns * elements[form.element].bits) / 8 : ggufRow(form.type, m.columns);
    const codes = arena.take(each * rowBytes);
    const weights = form.kind === 'gguf' ? this.#weights(m) : 0;
    for (let first = 0; first < rows.count; first += each) {
      const n = Math.min(each, rows.count - first);
      rows.load(first, n);
      const begin = performance.now();
      rows.decode(this.#kernels, work, pitch, n);
      this.encodeRows(form, work, pitch, n, m.columns, codes, rowBytes, weights, figures);
      this.#clock.convert += performance.now() - begin;
      out.write(m.regions.codes + first * rowBytes, arena.bytes(codes, n * rowBytes));
    }
  }
  /** Rows of f32 at `work` to their bytes at `codes`. */
  encodeRows(
    form: PlainForm | GgufForm,
    work: number,
    pitch: number,
    n: number,
    columns: number,
    codes: number,
    rowBytes: number,
    weights: number,
    figures: number,
  ): void {
    const k = this.#kernels;
    if (form.kind === 'plain') {
      const to = { bf16: 0, f16: 1, f32: 2 }[form.element];
      for (let r = 0; r < n; r++) k.encodePlain(to, work + r * pitch, columns, codes + r * rowBytes, figures);
    } else if (form.type === 'MXFP4') {
      // 16 bytes in a row's order and a scale, then GGUF's order behind the scale
      const scratch = this.#arena.take(columns + 64);
      const scales = this.#arena.take(columns / 32 + 64);
      for (let r = 0; r < n; r++) {
        k.encodeStrip(
          elementOf.f4e2m1,
          scaleKindOf.e8m0,
          form.search === 'absmax' ? 0 : 1,
          work + r * pitch,
          pitch,
          1,
          columns,
          32,
          scratch,
          columns / 2,
          scales,
          0,
          weights,
          scratch,
          figures,
        );
        const row = new Uint8Array(k.memory.buffer);
        for (let b = 0; b < columns / 32; b++) {
          row[codes + r * rowBytes + b * 17] = row[scales + b] as number;
          k.mxfp4Order(scratch + b * 16, codes + r * rowBytes + b * 17 + 1);
        }
      }
    } else
      for (let r = 0; r < n; r++)
        k.encodeGguf(
          form.type === 'Q8_0' ? 0 : 1,
          form.search === 'absmax' ? 0 : 1,
          work + r * pitch,
          columns,
          codes + r * rowBytes,
          weights,
          figures,
        );
  }

  /** A block of rows turned in memory before it is written: all of it at once. */
  #turned(m: MatrixStep, rows: Rows, figures: number, out: Output): void {
    const form = m.form;
    if (form.kind !== 'plain' && form.kind !== 'gguf') throw new Error('turned blocks are written plain or in GGUF blocks');
    const arena = this.#arena;
    const n = rows.count;
    const [outRows, columns] = m.turn === 'transpose' ? [m.columns, n] : [n, m.columns];
    const pitch = (m.columns + slack) * 4;
    const outPitch = (columns + slack) * 4;
    rows.pieceRows(n);
    const work = arena.take(n * pitch);
    const turned = arena.take(outRows * outPitch);
    const rowBytes = form.kind === 'plain' ? (columns * elements[form.element].bits) / 8 : ggufRow(form.type, columns);
    const codes = arena.take(outRows * rowBytes);
    rows.load(0, n);
    rows.decode(this.#kernels, work, pitch, n);
    const f = new Float32Array(arena.memory.buffer);
    f.fill(0, turned / 4, (turned + outRows * outPitch) / 4);
    for (let r = 0; r < n; r++)
      for (let c = 0; c < m.columns; c++) {
        const v = f[(work + r * pitch) / 4 + c] as number;
        if (m.turn === 'transpose') f[(turned + c * outPitch) / 4 + r] = v;
        else f[(turned + (r < n / 2 ? 2 * r : 2 * (r - n / 2) + 1) * outPitch) / 4 + c] = v;
      }
    // turned over, columns are others than those that were counted
    const weights = form.kind === 'gguf' && m.turn === 'interleave-halves' ? this.#weights(m) : 0;
    this.encodeRows(form, turned, outPitch, outRows, columns, codes, rowBytes, weights, figures);
    out.write(m.regions.codes, arena.bytes(codes, outRows * rowBytes));
  }

  /** Rows whose errors move to the columns that follow; the whole matrix is in memory. */
  #gptq(m: MatrixStep, form: CodedForm, rows: Rows, figures: number, out: Output): void {
    const arena = this.#arena;
    const n = rows.count;
    const pitch = (m.columns + slack) * 4;
    rows.pieceRows(n);
    const work = arena.take(n * pitch);
    rows.load(0, n);
    rows.decode(this.#kernels, work, pitch, n);
    const values = new Float32Array(n * m.columns);
    const f = new Float32Array(arena.memory.buffer);
    for (let r = 0; r < n; r++) values.set(f.subarray((work + r * pitch) / 4, (work + r * pitch) / 4 + m.columns), r * m.columns);
    const done = gptqRows(values, n, m.columns, form, this.#o.statistics(`gram:${m.statistics}`) as Float32Array);
    out.write(m.regions.codes, done.codes);
    out.write(m.regions.scales as number, done.scales);
    new Float64Array(arena.memory.buffer, figures, figureBytes / 8).set(done.figures);
  }
}

/** The source rows of a matrix, loaded a piece at a time. */
class Rows {
  readonly count: number;
  readonly #stream: Stream;
  readonly #arena: Arena;
  readonly #m: MatrixStep;
  readonly #pitch: number;
  readonly #limit: number;
  readonly #codeHash = createHash('sha256');
  readonly #scaleHash: Hash | null;
  #at = 0;
  #scales = 0;
  #loaded = 0;
  #wholeScales = false;
  readonly #scalePitch: number;
  readonly #s: Storage;

  constructor(stream: Stream, arena: Arena, m: MatrixStep, limit: number) {
    this.#stream = stream;
    this.#arena = arena;
    this.#m = m;
    this.#s = m.storage;
    this.#limit = limit;
    const [from, to] = m.take ?? [0, m.rows];
    this.count = to - from;
    this.#pitch = Math.ceil((m.columns * elements[m.storage.element].bits) / 8);
    this.#scaleHash = m.part.scale && m.take === null ? createHash('sha256') : null;
    this.#scalePitch = m.storage.kind === 'scaled' ? (scaleShape(m.storage, 1, m.columns)[1] * elements[m.storage.scale].bits) / 8 : 0;
  }
  /** Rows of a piece: a multiple of `step`, at least that many. Room for them is taken. */
  pieceRows(step: number): number {
    const rows = Math.min(Math.ceil(this.count / step) * step, Math.max(1, Math.floor(this.#limit / this.#pitch / step)) * step);
    this.#at = this.#arena.take(rows * this.#pitch);
    if (this.#s.kind === 'scaled') {
      this.#wholeScales = this.#s.block[0] > 1;
      const down = this.#wholeScales ? Math.ceil(this.#m.rows / this.#s.block[0]) : rows;
      this.#scales = this.#arena.take(down * this.#scalePitch);
      const scale = this.#m.part.scale;
      if (this.#wholeScales && scale)
        this.#stream.piece(scale.file, this.#scales, scale.bytes[1] - scale.bytes[0], scale.bytes[0], this.#scaleHash);
    }
    return rows;
  }
  load(first: number, n: number): void {
    const m = this.#m;
    const row = (m.take?.[0] ?? 0) + first;
    this.#stream.piece(
      m.part.file,
      this.#at,
      n * this.#pitch,
      m.part.bytes[0] + row * this.#pitch,
      m.take === null ? this.#codeHash : null,
    );
    if (m.part.scale && !this.#wholeScales)
      this.#stream.piece(
        m.part.scale.file,
        this.#scales,
        n * this.#scalePitch,
        m.part.scale.bytes[0] + row * this.#scalePitch,
        this.#scaleHash,
      );
    this.#loaded = row;
  }
  source(): {
    readonly kind: number;
    readonly at: number;
    readonly pitch: number;
    readonly scales: number;
    readonly scaleKind: number;
    readonly scalePitch: number;
    readonly blockRows: number;
    readonly blockColumns: number;
    readonly row0: number;
  } {
    const s = this.#s;
    const kind = decoderOf[s.element as keyof typeof decoderOf];
    if (kind === undefined) throw new Error(`${s.element} is not decoded`);
    const common = { kind, at: this.#at, pitch: this.#pitch };
    if (s.kind === 'plain') return { ...common, scales: 0, scaleKind: 0, scalePitch: 0, blockRows: 1, blockColumns: 0, row0: 0 };
    const skipped = this.#wholeScales ? Math.floor(this.#loaded / s.block[0]) : 0;
    return {
      ...common,
      scales: this.#scales + skipped * this.#scalePitch,
      scaleKind: scaleKindOf[s.scale],
      scalePitch: this.#scalePitch,
      blockRows: s.block[0],
      blockColumns: s.block[1],
      row0: this.#wholeScales ? this.#loaded % s.block[0] : 0,
    };
  }
  decode(k: Kernels, work: number, pitch: number, n: number): void {
    const s = this.source();
    k.decodeRows(
      s.kind,
      s.at,
      s.pitch,
      work,
      pitch,
      n,
      this.#m.columns,
      s.scales,
      s.scaleKind,
      s.scalePitch,
      s.blockRows,
      s.blockColumns,
      s.row0,
    );
  }
  digests(): readonly (readonly [string, string])[] {
    const p = this.#m.part;
    const codes = [p.tensor, this.#codeHash.digest('hex')] as const;
    return p.scale && this.#scaleHash ? [codes, [p.scale.tensor, this.#scaleHash.digest('hex')]] : [codes];
  }
}
