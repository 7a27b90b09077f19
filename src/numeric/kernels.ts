// The WebAssembly kernels with a memory of their own. One instance a thread; the memory is not shared.
import { readFileSync } from 'node:fs';

/** Exports of assembly/index.ts; addresses are bytes in `memory`. */
export interface Kernels {
  readonly memory: WebAssembly.Memory;
  decodeRows(
    kind: number,
    source: number,
    sourcePitch: number,
    to: number,
    pitch: number,
    rows: number,
    columns: number,
    scales: number,
    scaleKind: number,
    scalePitch: number,
    blockRows: number,
    blockColumns: number,
    row0: number,
  ): void;
  encodeStrip(
    element: number,
    scaleKind: number,
    search: number,
    x: number,
    pitch: number,
    rows: number,
    columns: number,
    block: number,
    codes: number,
    codePitch: number,
    scales: number,
    zeros: number,
    weights: number,
    scratch: number,
    figures: number,
  ): void;
  convert(
    kind: number,
    source: number,
    sourcePitch: number,
    rows: number,
    columns: number,
    scales: number,
    scaleKind: number,
    scalePitch: number,
    blockRows: number,
    blockColumns: number,
    row0: number,
    element: number,
    outScaleKind: number,
    search: number,
    strip: number,
    block: number,
    codes: number,
    codePitch: number,
    outScales: number,
    scaleRow: number,
    zeros: number,
    zeroRow: number,
    weights: number,
    work: number,
    pitch: number,
    scratch: number,
    figures: number,
  ): void;
  encodePlain(to: number, x: number, n: number, d: number, figures: number): void;
  encodeGguf(kind: number, search: number, x: number, n: number, d: number, weights: number, figures: number): void;
  packRowPairs(source: number, pitch: number, d: number, rows: number, columns: number): void;
  codeSums(source: number, pitch: number, scales: number, d: number, rows: number, columns: number, chunks: number): void;
  mxfp4Order(source: number, d: number): void;
  packZeros(source: number, d: number, rows: number, groups: number): void;
}
export const decoderOf = { f32: 0, bf16: 1, f16: 2, f8e4m3: 3, i8: 4, i4: 5, f4e2m1: 6 } as const;
export const scaleKindOf = { f32: 0, bf16: 1, 'bf16-in-f32': 2, e8m0: 3, f16: 4, 'e8m0-in-f32': 5 } as const;
export const elementOf = { i8: 0, i4: 1, f8e4m3: 2, f4e2m1: 3, i4bytes: 4, i4zero: 5 } as const;
/** Bytes at the start of memory that the module keeps for itself. */
export const reserved = 4096;
/** Zeros that a row of f32 has past its end, in values. */
export const slack = 128;

let compiled: WebAssembly.Module | null = null;
export function openKernels(): Kernels {
  compiled ??= new WebAssembly.Module(new Uint8Array(readFileSync(new URL('./kernels.wasm', import.meta.url))));
  const memory = new WebAssembly.Memory({ initial: 4 });
  const { exports } = new WebAssembly.Instance(compiled, { env: { memory, abort: () => {} } });
  return { ...(exports as unknown as Kernels), memory };
}

/** Places in a memory, one after another, grown as needed. */
export class Arena {
  readonly memory: WebAssembly.Memory;
  #top = reserved;
  constructor(memory: WebAssembly.Memory) {
    this.memory = memory;
  }
  reset(): void {
    this.#top = reserved;
  }
  /** The address of `bytes` bytes on a 64-byte line, 256 more behind them. */
  take(bytes: number): number {
    const at = this.#top;
    this.#top = at + Math.ceil((bytes + 256) / 64) * 64;
    const pages = Math.ceil(this.#top / 65536) - this.memory.buffer.byteLength / 65536;
    if (pages > 0) this.memory.grow(pages);
    return at;
  }
  get used(): number {
    return this.#top;
  }
  bytes(at: number, n: number): Uint8Array {
    return new Uint8Array(this.memory.buffer, at, n);
  }
}

/** What was lost where a tensor was written in another form. All zero where nothing was. */
export interface Figures {
  /** Values that were written. */
  readonly count: number;
  /** Square root of (squared error / squared values). */
  readonly relative: number;
  readonly cosine: number;
  /** Largest magnitude of the source, and the largest error. */
  readonly largest: number;
  readonly largestError: number;
  /** Codes whose value lay more than half a step outside their range. */
  readonly saturated: number;
  readonly nan: number;
  readonly infinite: number;
  /** Rows (or strips of blocks) that are all zero. */
  readonly dead: number;
  /** Scales, those of all-zero blocks aside. */
  readonly scales: readonly [least: number, most: number];
}
export const figureBytes = 96;
export function readFigures(f: Float64Array): Figures {
  const [x2, e2, y2, largest, largestError, saturated, nan, infinite, dead, least, most, count] = f as unknown as number[];
  const dot = (x2! + y2! - e2!) / 2;
  const norm = Math.sqrt(x2!) * Math.sqrt(y2!);
  return {
    count: count!,
    relative: x2! > 0 ? Math.sqrt(e2! / x2!) : 0,
    cosine: e2 === 0 || norm === 0 ? 1 : Math.min(1, dot / norm),
    largest: largest!,
    largestError: largestError!,
    saturated: saturated!,
    nan: nan!,
    infinite: infinite!,
    dead: dead!,
    scales: [least!, most!],
  };
}
