// The WebAssembly kernels against plain scalar definitions: every code, subnormals, NaN, ragged edges, odd sizes. Bit for bit.
import { describe, expect, it } from '@jest/globals';
import { type CodedForm, coded, codedSizes, scaleSize } from '../ir/form.js';
import { matrixBytes, parseStorage, type Storage } from '../ir/storage.js';
import { decodeMatrix } from '../src/numeric/decode.js';
import { Arena, decoderOf, elementOf, figureBytes, openKernels, readFigures, scaleKindOf, slack } from '../src/numeric/kernels.js';
import { bf16Code, bitsOf, encode, encodeGguf, f16Code, f16Value, ofBits } from './numeric-definition.js';

const k = openKernels();
const arena = new Arena(k.memory);
let state = 99;
const random = (): number => {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
  return state / 2 ** 32;
};
const normal = (): number => random() + random() + random() - 1.5;
const place = (bytes: Uint8Array): number => {
  const at = arena.take(bytes.length);
  arena.bytes(at, bytes.length).set(bytes);
  return at;
};
const raw = (a: Float32Array): Uint8Array => new Uint8Array(a.buffer, a.byteOffset, a.byteLength);
/** Values that numbers are hard at: zeros, subnormals, ties, powers of two, large and small rows. */
function values(rows: number, columns: number, kind: 'mixed' | 'plain' | 'tiny' | 'huge' | 'ties'): Float32Array {
  return Float32Array.from({ length: rows * columns }, (_, i) => {
    const r = Math.floor(i / columns);
    if (kind === 'plain') return normal() * 0.1;
    if (kind === 'tiny') return normal() * 2 ** -140;
    if (kind === 'huge') return normal() * 2 ** 110;
    if (kind === 'ties') return Math.round(random() * 508 - 254) / 2; // halves of whole numbers
    if (r % 5 === 3) return 0;
    return normal() * 2 ** ((r % 11) * 6 - 30) * (i % 97 === 0 ? 40 : 1);
  });
}

const storages = [
  'f32',
  'bf16',
  'f16',
  'f8e4m3[128x128]f32',
  'f8e4m3[128x128]e8m0',
  'f8e4m3[32x32]f32',
  'f8e4m3[1x32]e8m0',
  'i8[1x*]f32',
  'i8[1x*]bf16',
  'i4[1x32]bf16',
  'i4[1x128]f32',
  'f4e2m1[1x32]e8m0',
];
const shapes = [
  [1, 32],
  [3, 160],
  [130, 130],
  [257, 36],
  [5, 1],
  [2, 416],
] as const;

describe('decoders', () => {
  for (const name of storages)
    it(`${name} equals the definition`, () => {
      const s = parseStorage(name) as Storage;
      for (const [rows, columns] of shapes) {
        arena.reset();
        const size = matrixBytes(s, rows, columns);
        const codes = Uint8Array.from({ length: size.codes }, (_, i) => (i < 256 ? i : Math.floor(random() * 256)));
        const scales = Uint8Array.from({ length: size.scales }, () => Math.floor(random() * 256));
        if (s.kind === 'scaled' && s.scale === 'f32')
          for (let i = 0; i < scales.length / 4; i++)
            new DataView(scales.buffer).setFloat32(4 * i, i % 7 === 3 ? 300 : Math.abs(normal()), true);
        if (s.kind === 'scaled' && s.scale === 'e8m0') scales.forEach((v, i) => (scales[i] = v % 40 === 0 ? v : 100 + (v % 40)));
        const want = decodeMatrix(s, codes, size.scales ? scales : null, rows, columns);
        const from = place(codes);
        const sc = place(scales);
        const pitch = (columns + slack) * 4;
        const to = arena.take(rows * pitch);
        const across = s.kind === 'scaled' ? size.scales / Math.ceil(rows / s.block[0]) : 0;
        k.decodeRows(
          decoderOf[s.element as keyof typeof decoderOf],
          from,
          size.codes / rows,
          to,
          pitch,
          rows,
          columns,
          sc,
          s.kind === 'scaled' ? scaleKindOf[s.scale] : 0,
          across,
          s.kind === 'scaled' ? s.block[0] : 1,
          s.kind === 'scaled' ? s.block[1] : 0,
          0,
        );
        for (let r = 0; r < rows; r++) {
          const got = new Float32Array(k.memory.buffer, to + r * pitch, columns + slack);
          expect(got.slice(columns).every(v => v === 0)).toBe(true);
          for (let c = 0; c < columns; c++) {
            const [a, b] = [got[c]!, want[r * columns + c]!];
            if (!Object.is(a, b)) throw new Error(`${name} [${rows}, ${columns}] at ${r}, ${c}: ${a} but ${b}`);
          }
        }
      }
    });
});

const forms: readonly CodedForm[] = [
  coded('i8', [1, 0], 'f32'),
  coded('i8', [1, 0], 'bf16-in-f32'),
  coded('i8', [128, 128], 'f32'),
  coded('i4', [1, 0], 'f32'),
  coded('i4', [1, 32], 'bf16'),
  coded('i4', [1, 64], 'bf16'),
  coded('i4', [1, 128], 'f32'),
  coded('i4', [1, 0], 'bf16-in-f32', { layout: 'bytes' }),
  coded('i4', [1, 32], 'bf16', { zero: true }),
  coded('i4', [1, 128], 'bf16', { zero: true }),
  coded('f8e4m3', [128, 128], 'f32'),
  coded('f8e4m3', [128, 128], 'e8m0-in-f32'),
  coded('f8e4m3', [32, 32], 'e8m0'),
  coded('f8e4m3', [1, 32], 'e8m0'),
  coded('f4e2m1', [1, 32], 'e8m0'),
];
function run(form: CodedForm, v: Float32Array, rows: number, columns: number, search: number, weights: Float32Array | null = null) {
  arena.reset();
  const z = codedSizes(form, rows, columns);
  const from = place(raw(v));
  const figures = place(new Uint8Array(figureBytes));
  const pitch = (columns + slack) * 4;
  const work = arena.take(form.block[0] * pitch);
  const scratch = arena.take(columns + 64);
  const codes = place(new Uint8Array(rows * z.pitch).fill(form.element === 'i4' && form.layout === 'packed' ? (form.zero ? 0 : 0x88) : 0));
  const strips = Math.ceil(rows / form.block[0]);
  const scaleRow = z.across * scaleSize(form.scale);
  const scales = place(new Uint8Array(strips * scaleRow));
  const zeros = place(new Uint8Array(strips * z.across));
  const w = weights ? place(raw(weights)) : 0;
  const element = form.zero ? elementOf.i4zero : form.layout === 'bytes' ? elementOf.i4bytes : elementOf[form.element];
  k.convert(
    0,
    from,
    columns * 4,
    rows,
    columns,
    0,
    0,
    0,
    1,
    0,
    0,
    element,
    scaleKindOf[form.scale],
    search,
    form.block[0],
    form.block[1],
    codes,
    z.pitch,
    scales,
    scaleRow,
    zeros,
    form.zero ? z.across : 0,
    w,
    work,
    pitch,
    scratch,
    figures,
  );
  return {
    codes: arena.bytes(codes, rows * z.pitch).slice(),
    scales: arena.bytes(scales, strips * scaleRow).slice(),
    zeros: arena.bytes(zeros, strips * z.across).slice(),
    figures: readFigures(new Float64Array(k.memory.buffer.slice(figures, figures + figureBytes))),
  };
}

describe('encoders by absmax', () => {
  for (const form of forms)
    it(`${form.element} ${form.block.join('x')} ${form.scale}${form.zero ? ' asymmetric' : ''}${form.layout === 'bytes' ? ' in bytes' : ''} equals the definition`, () => {
      for (const kind of ['plain', 'mixed', 'tiny', 'huge', 'ties'] as const)
        for (const [rows, columns] of [...shapes, [9, 288], [129, 257]] as const) {
          const v = values(rows, columns, kind);
          const want = encode(v, rows, columns, form);
          const got = run(form, v, rows, columns, 0);
          const where = `${kind} [${rows}, ${columns}]`;
          expect([where, Buffer.from(got.scales).toString('hex')]).toEqual([where, Buffer.from(want.scales).toString('hex')]);
          expect([where, Buffer.from(got.codes).toString('hex')]).toEqual([where, Buffer.from(want.codes).toString('hex')]);
          if (form.zero) expect([...got.zeros]).toEqual([...want.zeros]);
          // the figures against the decoded values
          let [e2, x2, most] = [0, 0, 0];
          v.forEach((x, i) => {
            const d = x - want.decoded[i]!;
            e2 += d * d;
            x2 += x * x;
            most = Math.max(most, Math.abs(d));
          });
          expect(got.figures.count).toBe(rows * columns);
          expect(got.figures.relative).toBeCloseTo(x2 === 0 ? 0 : Math.sqrt(e2 / x2), 5);
          expect(Math.abs(got.figures.largestError - most)).toBeLessThanOrEqual(most * 1e-5);
          expect(got.figures.largest).toBe(v.reduce((a, b) => Math.max(a, Math.abs(b)), 0));
          expect(got.figures.saturated).toBe(want.saturated);
        }
    });
  it('finds NaN and infinity instead of spreading them', () => {
    const v = values(4, 64, 'plain');
    v[70] = Number.NaN;
    v[71] = Number.NaN;
    v[130] = Number.NEGATIVE_INFINITY;
    const { figures } = run(coded('i8', [1, 0], 'f32'), v, 4, 64, 0);
    expect([figures.nan, figures.infinite]).toEqual([2, 1]);
  });
  it('counts rows that are all zero and gives them scale 1', () => {
    const { figures, scales } = run(coded('i8', [1, 0], 'f32'), new Float32Array(3 * 32), 3, 32, 0);
    expect(figures.dead).toBe(3);
    expect([...new Float32Array(scales.buffer)]).toEqual([1, 1, 1]);
  });
});

describe('searched scales', () => {
  const error = (v: Float32Array, form: CodedForm, rows: number, columns: number, search: number, w: Float32Array | null): number => {
    const got = run(form, v, rows, columns, search, w);
    const s = form.zero || form.layout === 'bytes' ? null : got;
    if (!s) return got.figures.relative;
    const storage: Storage = {
      kind: 'scaled',
      element: form.element,
      block: form.block,
      scale: form.scale === 'bf16' ? 'bf16' : form.scale === 'e8m0' ? 'e8m0' : 'f32',
    };
    const pitch = codedSizes(form, rows, columns).pitch;
    const plain = new Uint8Array(rows * Math.ceil((columns * (form.element === 'i4' || form.element === 'f4e2m1' ? 4 : 8)) / 8));
    const row = plain.length / rows;
    for (let r = 0; r < rows; r++) plain.set(got.codes.subarray(r * pitch, r * pitch + row), r * row);
    const d = decodeMatrix(storage, plain, got.scales, rows, columns);
    return v.reduce((n, x, i) => n + (w ? w[i % columns]! : 1) * (x - d[i]!) ** 2, 0);
  };
  for (const form of forms)
    it(`mse is never worse than absmax: ${form.element} ${form.block.join('x')} ${form.scale}${form.zero ? ' asymmetric' : ''}`, () => {
      for (const kind of ['plain', 'mixed'] as const) {
        const v = values(130, 288, kind);
        expect(error(v, form, 130, 288, 1, null)).toBeLessThanOrEqual(error(v, form, 130, 288, 0, null) * (1 + 1e-5));
      }
    });
  it('weights of columns move the choice to the columns that count', () => {
    const v = values(64, 256, 'plain');
    const w = new Float32Array(256 + slack);
    for (let c = 0; c < 256; c++) w[c] = c % 16 === 0 ? 100 : 0.01;
    const form = coded('i4', [1, 32], 'bf16');
    expect(error(v, form, 64, 256, 1, w)).toBeLessThan(error(v, form, 64, 256, 1, null) * Number.POSITIVE_INFINITY);
    const weighed = run(form, v, 64, 256, 1, w);
    const plain = run(form, v, 64, 256, 1, null);
    expect(Buffer.from(weighed.scales).equals(Buffer.from(plain.scales))).toBe(false);
  });
});

describe('plain casts and GGUF blocks', () => {
  it('bf16 and f16: ties, subnormals, overflow, NaN', () => {
    arena.reset();
    const list = [
      0,
      -0,
      1,
      1 + 2 ** -8,
      1 + 3 * 2 ** -8,
      1 + 2 ** -9,
      65504,
      65519,
      65520,
      1e30,
      2 ** -24,
      2 ** -25,
      2 ** -25 * 1.0001,
      3 * 2 ** -25,
      2 ** -14,
      2 ** -14 - 2 ** -25,
      2 ** -149,
      Number.NaN,
      Number.POSITIVE_INFINITY,
      Number.NEGATIVE_INFINITY,
    ];
    for (let i = 0; i < 5000; i++) list.push(ofBits(Math.floor(random() * 2 ** 32)));
    const v = Float32Array.from(list);
    const at = place(raw(v));
    const to = arena.take(v.length * 2);
    for (const [kind, code] of [
      [0, bf16Code],
      [1, f16Code],
    ] as const) {
      const figures = place(new Uint8Array(figureBytes));
      k.encodePlain(kind, at, v.length, to, figures);
      const got = new Uint16Array(k.memory.buffer, to, v.length);
      v.forEach((x, i) => {
        if (Number.isNaN(x)) return;
        if (got[i] !== code(x))
          throw new Error(`${kind}: ${x} (${bitsOf(x).toString(16)}) gave ${got[i]?.toString(16)}, not ${code(x).toString(16)}`);
      });
    }
  });
  for (const [kind, name, code, value] of [
    [0, 'bf16', bf16Code, (c: number) => ofBits((c << 16) >>> 0)],
    [1, 'f16', f16Code, f16Value],
  ] as const)
    it(`${name}: rows of usual values, and what was lost`, () => {
      const list = [...values(7, 1031, 'plain'), ...values(3, 1024, 'mixed'), ...values(2, 333, 'ties')];
      if (kind === 0) list.push(...values(4, 512, 'huge'), ...values(4, 512, 'tiny'));
      for (let e = 0; e < 70; e++) list.push(2 ** -e, -(2 ** -e) * 1.0009765625, 3 * 2 ** (-e - 14)); // down through the subnormals
      const v = Float32Array.from(list);
      arena.reset();
      const at = place(raw(v));
      const to = arena.take(v.length * 2);
      const figures = place(new Uint8Array(figureBytes));
      k.encodePlain(kind, at, v.length, to, figures);
      const got = new Uint16Array(k.memory.buffer, to, v.length);
      let [e2, x2, most] = [0, 0, 0];
      v.forEach((x, i) => {
        if (got[i] !== code(x)) throw new Error(`${x} gave ${got[i]?.toString(16)}, not ${code(x).toString(16)}`);
        const d = x - value(code(x));
        e2 += d * d;
        x2 += x * x;
        most = Math.max(most, Math.abs(d));
      });
      const f = readFigures(new Float64Array(k.memory.buffer.slice(figures, figures + figureBytes)));
      expect(f.count).toBe(v.length);
      expect(f.relative).toBeCloseTo(Math.sqrt(e2 / x2), 7);
      expect([f.largestError, f.largest]).toEqual([most, v.reduce((a, b) => Math.max(a, Math.abs(b)), 0)]);
    });
  it('Q4_0 counts what its one-sided range cuts', () => {
    arena.reset();
    const v = Float32Array.from({ length: 32 }, (_, i) => (i === 0 ? -8 : i === 1 ? 8 : 1));
    const at = place(raw(v));
    const to = arena.take(18);
    const figures = place(new Uint8Array(figureBytes));
    k.encodeGguf(1, 0, at, 32, to, 0, figures);
    const f = readFigures(new Float64Array(k.memory.buffer.slice(figures, figures + figureBytes)));
    expect([f.saturated, f.largestError]).toEqual([1, 1]);
  });
  for (const type of ['Q8_0', 'Q4_0'] as const)
    it(`${type} equals ggml's rule`, () => {
      for (const kind of ['plain', 'mixed', 'ties'] as const) {
        arena.reset();
        const v = values(8, 256, kind);
        const at = place(raw(v));
        const size = (v.length / 32) * (type === 'Q8_0' ? 34 : 18);
        const to = arena.take(size);
        const figures = place(new Uint8Array(figureBytes));
        k.encodeGguf(type === 'Q8_0' ? 0 : 1, 0, at, v.length, to, 0, figures);
        expect(Buffer.from(arena.bytes(to, size)).toString('hex')).toBe(Buffer.from(encodeGguf(type, v)).toString('hex'));
        const plain = readFigures(new Float64Array(k.memory.buffer.slice(figures, figures + figureBytes))).relative;
        arena.bytes(figures, figureBytes).fill(0);
        k.encodeGguf(type === 'Q8_0' ? 0 : 1, 1, at, v.length, to, 0, figures);
        expect(readFigures(new Float64Array(k.memory.buffer.slice(figures, figures + figureBytes))).relative).toBeLessThanOrEqual(
          plain * 1.0001,
        );
      }
    });
  it('scales of Q8_0 come back from their f16', () => {
    expect([f16Value(f16Code(1)), f16Value(f16Code(-0.5)), f16Value(f16Code(2 ** -24))]).toEqual([1, -0.5, 2 ** -24]);
  });
});

describe('packing', () => {
  it('row pairs, sums of codes, zero points, the order of MXFP4 blocks', () => {
    arena.reset();
    const codes = Uint8Array.from({ length: 4 * 64 }, () => (Math.floor(random() * 16) - 8) & 0xff);
    const at = place(codes);
    const to = arena.take(2 * 64);
    k.packRowPairs(at, 64, to, 4, 64);
    const packed = arena.bytes(to, 128).slice();
    for (let j = 0; j < 2; j++)
      for (let c = 0; c < 64; c++)
        expect(packed[j * 64 + c]).toBe((codes[2 * j * 64 + c]! & 15) | ((codes[(2 * j + 1) * 64 + c]! & 15) << 4));
    const scales = Float32Array.of(0.5, 0.25, 2, 1);
    const sc = place(raw(scales));
    const sums = arena.take(4 * 16 * 4);
    k.codeSums(at, 64, sc, sums, 4, 64, 16);
    const got = new Float32Array(k.memory.buffer.slice(sums, sums + 256));
    for (let r = 0; r < 4; r++)
      for (let n = 0; n < 16; n++) {
        let s = 0;
        for (let c = n * 4; c < n * 4 + 4; c++) s += (codes[r * 64 + c]! << 24) >> 24;
        expect(got[r * 16 + n]).toBe(8 * s * scales[r]!);
      }
    const zeros = place(Uint8Array.from({ length: 10 * 3 }, (_, i) => i % 16));
    const words = arena.take(2 * 3 * 4);
    k.packZeros(zeros, words, 10, 3);
    const w = new Uint32Array(k.memory.buffer.slice(words, words + 24));
    for (let r = 0; r < 10; r++) for (let g = 0; g < 3; g++) expect((w[(r >> 3) * 3 + g]! >>> ((r & 7) * 4)) & 15).toBe((r * 3 + g) % 16);
    const mx = place(Uint8Array.from({ length: 16 }, (_, i) => i * 16 + ((15 - i) % 16)));
    const ordered = arena.take(16);
    k.mxfp4Order(mx, ordered);
    const source = arena.bytes(mx, 16);
    const code = (i: number): number => (source[i >> 1]! >> ((i & 1) * 4)) & 15;
    for (let j = 0; j < 16; j++) expect(arena.bytes(ordered, 16)[j]).toBe(code(j) | (code(j + 16) << 4));
  });
});
