// hkgai diff: bundles, engine directories, GGUF; what is named and in which order; the exit code; no more memory than a piece.
import { spawnSync } from 'node:child_process';
import {
  closeSync,
  cpSync,
  ftruncateSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { type CompileOptions, compile } from '../src/compile.js';
import { diff } from '../src/diff.js';
import { fixtures } from './golden-cases.js';

const work = mkdtempSync(join(tmpdir(), 'hkgai-diff-'));
afterAll(() => rmSync(work, { recursive: true }));
const bin = fileURLToPath(new URL('../bin/hkgai.js', import.meta.url));
const quiet = { step: () => {}, at: () => {} };
const at = (name: string): string => join(work, name);
async function made(
  name: string,
  model: string,
  targets: readonly string[],
  quantise: string,
  more: Partial<CompileOptions> = {},
): Promise<void> {
  const options: CompileOptions = {
    out: at(name),
    targets,
    quantise,
    state: 'f32',
    mtp: null,
    weights: 'copy',
    context: 32,
    sequences: 1,
    chunk: 16,
    force: false,
    allowPhantomKeys: false,
    version: 'test',
    jobs: 0,
    noCache: true,
    ...more,
  };
  await compile(join(fixtures, model), options, quiet);
}
const v3 = 'tiny/v3-tiny-bf16';
beforeAll(async () => {
  await made('int4', v3, ['cpu'], 'int4');
  await made('again', v3, ['cpu'], 'int4');
  await made('mse', v3, ['cpu'], 'int4', { search: 'mse' });
  await made('none', v3, ['cpu'], 'none');
  await made('drop', v3, ['cpu'], 'none', { mtp: 'drop' });
  await made('two', v3, ['cpu', 'ascend'], 'bf16');
  await made('two-w8a8', v3, ['cuda', 'ascend'], 'w8a8');
  await made('q8', 'hkgai-nano', ['cpu'], 'q8_0');
  await made('q8-mse', 'hkgai-nano', ['cpu'], 'q8_0', { search: 'mse' });
  await made('q4', 'hkgai-nano', ['cpu'], 'q4_0');
}, 60_000);
const sorted = (names: readonly { readonly name: string }[]): void => expect(names.map(n => n.name)).toEqual(names.map(n => n.name).sort());

describe('two bundles', () => {
  it('of the same command are the same', () => {
    const d = diff(at('int4'), at('again'), false);
    expect(d).toMatchObject({ same: true, onlyA: [], onlyB: [], form: [], bytesDiffer: [], figures: [], files: [] });
    expect(d.tensors).toBeGreaterThan(100);
    expect([d.tensors, d.bytes]).toEqual([d.tensorsB, d.bytesB]);
  });
  it('of other scales: bytes and figures differ, no form', () => {
    const d = diff(at('int4'), at('mse'), false);
    expect(d).toMatchObject({ same: false, onlyA: [], onlyB: [], form: [] });
    expect(d.bytesDiffer.length).toBeGreaterThan(50);
    expect(d.bytesDiffer.every(t => /_packed$|_scale$/.test(t.name))).toBe(true);
    sorted(d.bytesDiffer);
    expect(d.figures.length).toBeGreaterThan(50);
    for (const f of d.figures) expect(f.b).toBeLessThan(f.a); // what mse is for
    expect(d.files.map(f => f.path)).toEqual(['ledger.jsonl', 'recipe.json']);
  });
  it('of other forms: each tensor once', () => {
    const d = diff(at('none'), at('int4'), false);
    expect(d.onlyA.every(t => /\.weight$/.test(t.name) && t.dtype === 'BF16')).toBe(true);
    expect(d.onlyB.filter(t => t.name.endsWith('.weight_packed')).length).toBe(d.onlyA.length);
    sorted(d.onlyA);
    sorted(d.onlyB);
    expect([d.form, d.bytesDiffer]).toEqual([[], []]);
  });
  it('without its MTP blocks', () => {
    const d = diff(at('none'), at('drop'), false);
    expect(d.onlyA.length).toBeGreaterThan(20);
    expect(d.onlyA.every(t => t.name.startsWith('model.layers.3.'))).toBe(true);
    expect([d.onlyB, d.form, d.bytesDiffer]).toEqual([[], [], []]);
  });
  it('of several targets: told apart by target', () => {
    const d = diff(at('two'), at('two-w8a8'), false);
    expect(d.onlyA.some(t => t.name.startsWith('cpu: '))).toBe(true);
    expect(d.onlyB.some(t => t.name.startsWith('cuda: '))).toBe(true);
    const both = d.form.filter(f => f.name.startsWith('ascend: '));
    expect(both.length).toBeGreaterThan(50);
    expect(both[0]).toMatchObject({ a: expect.stringMatching(/^BF16/), b: expect.stringMatching(/^I8/) });
    expect(diff(at('two'), at('two'), true).same).toBe(true);
  });
  it('of GGUF: files, and figures of the ledger', () => {
    expect(diff(at('q8'), at('q8'), false).same).toBe(true);
    const d = diff(at('q8'), at('q8-mse'), false);
    expect([d.same, d.tensors]).toEqual([false, 0]);
    expect(d.files.map(f => f.path)).toEqual(['engine/model.gguf', 'ledger.jsonl', 'recipe.json']);
    expect(diff(at('q8'), at('q4'), false).figures.length).toBeGreaterThan(10);
  });
});

describe('a model and a bundle, or two directories', () => {
  it('what was passed on is the same, whatever is beside it', () => {
    const model = at('model');
    cpSync(join(fixtures, 'hkgai-nano'), model, { recursive: true });
    const engine = join(at('none'), 'cpu/engine');
    expect(diff(engine, engine, false).same).toBe(true);
    const d = diff(join(fixtures, v3), at('none'), false);
    expect([d.onlyA, d.onlyB, d.form, d.bytesDiffer]).toEqual([[], [], [], []]);
    // recordings and readme are no part of the model
    expect(d.files.every(f => f.what === 'only in A' && /golden|README/.test(f.path))).toBe(true);
  });
  it('values that differ are compared where they are plain', () => {
    const [a, b] = [at('values-a'), at('values-b')];
    for (const d of [a, b]) cpSync(join(at('none'), 'cpu/engine'), d, { recursive: true });
    const shard = readdirSync(b).filter(f => f.endsWith('.safetensors'))[0]!;
    const bytes = readFileSync(join(b, shard));
    const n = Number(bytes.readBigUInt64LE(0));
    const header = JSON.parse(bytes.subarray(8, 8 + n).toString()) as Record<string, { dtype: string; data_offsets: [number, number] }>;
    const name = Object.keys(header).find(k => header[k]!.dtype === 'BF16' && k.endsWith('embed_tokens.weight'))!;
    const [from, to] = header[name]!.data_offsets;
    // every value doubled: the exponent one more
    for (let i = 8 + n + from; i < 8 + n + to; i += 2) {
      const v = bytes.readUInt16LE(i);
      if (v & 0x7fff) bytes.writeUInt16LE(v + 0x80, i);
    }
    writeFileSync(join(b, shard), bytes);
    expect(diff(a, b, false).bytesDiffer).toEqual([{ name, note: expect.stringMatching(/^BF16/), relative: null }]);
    expect(diff(a, b, true).bytesDiffer[0]!.relative).toBeCloseTo(1, 12);
  });
  it('a file that is lacking, more, or other', () => {
    const [a, b] = [at('files-a'), at('files-b')];
    for (const d of [a, b]) cpSync(join(at('none'), 'cpu/engine'), d, { recursive: true });
    writeFileSync(join(a, 'zz.txt'), 'a');
    mkdirSync(join(b, 'sub'));
    writeFileSync(join(b, 'sub/more.txt'), 'b');
    writeFileSync(join(b, 'config.json'), `${readFileSync(join(b, 'config.json'), 'utf8')}\n`);
    expect(diff(a, b, false)).toMatchObject({
      same: false,
      bytesDiffer: [],
      files: [
        { path: 'config.json', what: 'differs' },
        { path: 'sub/more.txt', what: 'only in B' },
        { path: 'zz.txt', what: 'only in A' },
      ],
    });
  });
  it('is read a piece at a time: a large tensor in little memory', () => {
    const [a, b] = [at('big-a'), at('big-b')];
    const size = 1 << 28;
    for (const [d, last] of [
      [a, 1],
      [b, 2],
    ] as const) {
      mkdirSync(d);
      const json = Buffer.from(JSON.stringify({ 'x.weight': { dtype: 'F32', shape: [size / 4], data_offsets: [0, size] } }).padEnd(96));
      const fd = openSync(join(d, 'model.safetensors'), 'w');
      const head = Buffer.alloc(8);
      head.writeBigUInt64LE(BigInt(json.length));
      writeSync(fd, Buffer.concat([head, json]));
      ftruncateSync(fd, 8 + json.length + size); // a hole
      writeSync(fd, Buffer.from([last]), 0, 1, 8 + json.length + size - 1);
      closeSync(fd);
    }
    const before = process.memoryUsage().rss;
    expect(diff(a, b, false).bytesDiffer.map(t => t.name)).toEqual(['x.weight']);
    expect(process.memoryUsage().rss - before).toBeLessThan(100e6);
    rmSync(a, { recursive: true });
    rmSync(b, { recursive: true });
  });
});

describe('hkgai diff', () => {
  const run = (...args: readonly string[]) =>
    spawnSync(process.execPath, [bin, 'diff', ...args], { encoding: 'utf8', maxBuffer: 1 << 26, env: { ...process.env, NO_COLOR: '1' } });
  it('exits 0 where nothing differs', () => {
    const r = run(at('int4'), at('again'));
    expect([r.status, r.stdout, r.stderr]).toEqual([0, expect.stringMatching(/^The same: \d+ tensors, [\d.]+ [KM]iB\.\n$/), '']);
  });
  it('exits 6 where something does, and names it', () => {
    const r = run(at('none'), at('drop'));
    expect([r.status, r.stderr]).toEqual([6, '']);
    expect(r.stdout).toMatch(/^Only in A \(\d+\)\n {2}model\.layers\.3\./);
    expect(r.stdout).toMatch(/\nA \d+ tensors, .*; B \d+ tensors, .*\n$/);
    const j = run(at('none'), at('drop'), '--json');
    expect(j.status).toBe(6);
    expect((JSON.parse(j.stdout) as { onlyA: unknown[] }).onlyA.length).toBeGreaterThan(20);
  });
  it('exits 3 where one is not there', () => {
    const r = run(at('none'), at('nowhere'));
    expect([r.status, r.stdout]).toEqual([3, '']);
    expect(r.stderr).toMatch(/^HK3900/);
  });
});
