// Storages to numbers: bytes of real files, every code of the small elements, ragged blocks, bytes of any alignment; and back by quantising.
import { describe, expect, it } from '@jest/globals';
import { exp, log, pow } from '../ir/elementary.js';
import { frequencies, mscale } from '../ir/rope.js';
import { matrixBytes, parseStorage, scaled, storageName } from '../ir/storage.js';
import { decodeMatrix, fromF16 } from '../src/numeric/decode.js';

const hex = (s: string): Uint8Array => Uint8Array.from(s.match(/../g) ?? [], b => Number.parseInt(b, 16));

describe('decoding', () => {
  // bytes of a released V4.1 file and their values (facts of the format)
  it('FP8 with an E8M0 scale', () => {
    const v = decodeMatrix(scaled('f8e4m3', 128, 128, 'e8m0'), hex('d871f2797069f0e5'), Uint8Array.of(0x73), 1, 8);
    expect([...v]).toEqual([-0.00390625, 0.03515625, -0.0390625, 0.0703125, 0.03125, 0.017578125, -0.03125, -0.0126953125]);
  });
  it('FP4, low nibble first, with an E8M0 scale', () => {
    const v = decodeMatrix(scaled('f4e2m1', 1, 32, 'e8m0'), hex('a0a8ec4aadaf42aa'), Uint8Array.of(0x78), 1, 16);
    expect([...v]).toEqual([
      0, -0.0078125, -0, -0.0078125, -0.015625, -0.03125, -0.0078125, 0.015625, -0.0234375, -0.0078125, -0.046875, -0.0078125, 0.0078125,
      0.015625, -0.0078125, -0.0078125,
    ]);
  });
  it('all 256 codes of e4m3: 448 at most, no infinity, two NaN, subnormals of 2^-9', () => {
    const v = decodeMatrix(
      { kind: 'plain', element: 'f8e4m3' },
      Uint8Array.from({ length: 256 }, (_, i) => i),
      null,
      1,
      256,
    );
    expect(v.filter(Number.isNaN).length).toBe(2);
    expect(Math.max(...v.filter(x => !Number.isNaN(x)))).toBe(448);
    expect([v[1], v[7], v[8], v[0x38], v[0xb8], v[0x7e]]).toEqual([1 / 512, 7 / 512, 1 / 64, 1, -1, 448]);
    const positive = [...v.subarray(0, 127)];
    expect(positive).toEqual([...positive].sort((a, b) => a - b));
  });
  it('ragged blocks: 576 rows of which the last 64 have a block of their own', () => {
    const codes = new Uint8Array(576 * 130).fill(0x38);
    const scales = Float32Array.from({ length: 10 }, (_, i) => i + 1);
    const v = decodeMatrix(scaled('f8e4m3', 128, 128, 'f32'), codes, new Uint8Array(scales.buffer), 576, 130);
    expect([v[0], v[127], v[128], v[511 * 130], v[512 * 130], v[576 * 130 - 1]]).toEqual([1, 1, 2, 7, 9, 10]);
  });
  it('bytes of any alignment', () => {
    const bytes = new Uint8Array(9);
    new DataView(bytes.buffer).setFloat32(1, 1.5, true);
    new DataView(bytes.buffer).setFloat32(5, -2, true);
    expect([...decodeMatrix({ kind: 'plain', element: 'f32' }, bytes.subarray(1), null, 1, 2)]).toEqual([1.5, -2]);
  });
  it('f16 and bf16', () => {
    expect([fromF16(0x3c00), fromF16(0xc000), fromF16(1), fromF16(0x7bff), fromF16(0x7c00)]).toEqual([
      1,
      -2,
      2 ** -24,
      65504,
      Number.POSITIVE_INFINITY,
    ]);
    expect([...decodeMatrix({ kind: 'plain', element: 'bf16' }, Uint8Array.of(0x80, 0x3f, 0x40, 0xc0), null, 1, 2)]).toEqual([1, -3]);
  });
  it('names and sizes of storages come back', () => {
    for (const s of [
      scaled('i4', 1, 32, 'f32'),
      scaled('i8', 1, 0, 'bf16'),
      scaled('f8e4m3', 32, 32, 'e8m0'),
      { kind: 'plain', element: 'f16' } as const,
    ])
      expect(parseStorage(storageName(s))).toEqual(s);
    expect(matrixBytes(scaled('f8e4m3', 128, 128, 'f32'), 576, 7168)).toEqual({ codes: 576 * 7168, scales: 5 * 56 * 4 });
    expect(matrixBytes(scaled('f4e2m1', 1, 32, 'e8m0'), 4, 64)).toEqual({ codes: 128, scales: 8 });
  });
});

describe('elementary functions', () => {
  it('agree with the built-in ones to 4e-16', () => {
    for (let x = -300; x < 300; x += 7.3) expect(Math.abs(exp(x) / Math.exp(x) - 1)).toBeLessThan(4e-16);
    for (let x = 1e-6; x < 1e9; x *= 3.7) expect(Math.abs(log(x) - Math.log(x))).toBeLessThan(4e-15);
    for (const b of [-0.9, -0.1, 0.5]) expect(Math.abs(pow(10000, b) / 10000 ** b - 1)).toBeLessThan(4e-15);
    expect(() => log(0)).toThrow(RangeError);
  });
  it('give the published softmax scales', () => {
    const scale = (factor: number, m: number): number => 192 ** -0.5 * mscale(factor, m) ** 2;
    expect([scale(40, 0.707), scale(40, 1), scale(32, 1)].map(v => v.toFixed(12))).toEqual([
      '0.114721386793',
      '0.135233778861',
      '0.130860799963',
    ]);
  });
  it('bend frequencies between the dimensions that YaRN says', () => {
    const plain = frequencies({ theta: 10000, dims: 64, scaling: { kind: 'none' } });
    const bent = frequencies({
      theta: 10000,
      dims: 64,
      scaling: { kind: 'yarn', factor: 40, original: 4096, betaFast: 32, betaSlow: 1, magnitude: 1 },
    });
    plain.forEach((f, j) => {
      if (j <= 10) expect(bent[j]).toBe(f);
      if (j >= 23) expect(Math.abs(bent[j]! / (f / 40) - 1)).toBeLessThan(1e-6);
      if (j > 10 && j < 23) expect(bent[j]).toBeLessThan(f);
    });
  });
  it("stretch Llama 3's long waves only", () => {
    const t = { theta: 500000, dims: 128 } as const;
    const plain = frequencies({ ...t, scaling: { kind: 'none' } });
    const stretched = frequencies({ ...t, scaling: { kind: 'llama3', factor: 8, low: 1, high: 4, original: 8192 } });
    expect(stretched[0]).toBe(plain[0]);
    expect(stretched[63]! / plain[63]!).toBeCloseTo(1 / 8, 6);
  });
});
