// The same input and recipe give the same bytes: in another directory, another process order, and whatever was there before.
import { spawnSync } from 'node:child_process';
import { cpSync, lstatSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from '@jest/globals';
import { filesBelow } from '../src/bundle/directory.js';
import { checkFiles, readManifest } from '../src/bundle/manifest.js';
import { type CompileOptions, compile } from '../src/compile.js';
import { fixtures } from './golden-cases.js';

const work = mkdtempSync(join(tmpdir(), 'hkgai-same-'));
afterAll(() => rmSync(work, { recursive: true }));
const options: Omit<CompileOptions, 'out'> = {
  targets: ['cpu'],
  quantise: 'none',
  state: 'f32',
  mtp: 'keep',
  weights: 'copy',
  sequences: 2,
  chunk: 32,
  force: false,
  allowPhantomKeys: false,
  version: 'test',
  noCache: true,
};
const quiet = { step: () => {}, at: () => {} };

describe('two compiles', () => {
  for (const [model, more] of [
    ['hkgai-nano', {}],
    ['hkgai-nano-fp8', { quantise: 'int8' }],
    ['tiny/v4-tiny-fp8fp4', { quantise: 'int4' }],
    ['tiny/v32-tiny', { mtp: 'drop' }],
  ] as const)
    it(`of ${model} ${JSON.stringify(more)} in different directories are equal byte for byte`, async () => {
      const elsewhere = join(work, 'a model elsewhere', model.replace('/', '-'));
      cpSync(join(fixtures, model), elsewhere, { recursive: true });
      const [a, b] = [join(work, `${model.replace('/', '-')}-a`), join(work, 'deep/er', `${model.replace('/', '-')}-b`)];
      await compile(join(fixtures, model), { ...options, ...more, out: a }, quiet);
      await compile(elsewhere, { ...options, ...more, out: b }, quiet);
      const files = filesBelow(a);
      expect(files).toContain('bundle.json');
      expect(filesBelow(b)).toEqual(files);
      for (const f of files) expect([f, readFileSync(join(a, f)).equals(readFileSync(join(b, f)))]).toEqual([f, true]);
      expect(checkFiles(a, readManifest(a))).toEqual([]);
      for (const f of files.filter(n => /\.(c|h|sh|json)$/.test(n))) expect(readFileSync(join(a, f), 'utf8')).not.toContain(work);
    });
});

describe('a model in a cache of links', () => {
  it('becomes a bundle of files, and pipes are refused', async () => {
    const blobs = join(work, 'blobs');
    cpSync(join(fixtures, 'hkgai-nano'), blobs, { recursive: true });
    const snapshot = join(work, 'snapshots/main');
    mkdirSync(snapshot, { recursive: true });
    for (const f of readdirSync(blobs)) symlinkSync(`../../blobs/${f}`, join(snapshot, f));
    const out = join(work, 'from-links');
    await compile(snapshot, { ...options, weights: 'auto', out }, quiet);
    const engine = join(out, 'cpu/engine');
    for (const f of readdirSync(engine)) expect([f, lstatSync(join(engine, f)).isFile()]).toEqual([f, true]);
    expect(checkFiles(out, readManifest(out))).toEqual([]);
    rmSync(join(snapshot, 'model-00002-of-00002.safetensors'));
    expect(spawnSync('mkfifo', [join(snapshot, 'model-00002-of-00002.safetensors')]).status).toBe(0);
    await expect(compile(snapshot, { ...options, out: join(work, 'from-a-pipe') }, quiet)).rejects.toThrow(/HK3019/);
  });
});
