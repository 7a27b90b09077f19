// A bundle with files that it does not name: verify tells of each, and of none that running or checking it may leave.
import { cpSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { compile } from '../src/compile.js';
import { compiler } from '../src/doctor.js';
import { findRunnable, openSession } from '../src/run.js';
import { verify } from '../src/verify.js';
import { fixtures } from './golden-cases.js';

const work = mkdtempSync(join(tmpdir(), 'hkgai-extra-'));
const bundle = join(work, 'bundle');
const before = { ...process.env };
beforeAll(async () => {
  // built anew, and quickly
  Object.assign(process.env, { HKGAI_CACHE: join(work, 'cache'), HKGAI_CFLAGS: '-O0 -w' });
  await compile(
    join(fixtures, 'hkgai-nano'),
    {
      out: bundle,
      targets: ['cpu', 'cuda:h20'],
      quantise: 'bf16',
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
      parallel: 'tp=2',
    },
    { step: () => {}, at: () => {} },
  );
});
afterAll(() => {
  for (const k of ['HKGAI_CACHE', 'HKGAI_CFLAGS'])
    if (before[k] === undefined) delete process.env[k];
    else process.env[k] = before[k];
  rmSync(work, { recursive: true });
});
const check = (path: string) => verify(path, { golden: null, tolerance: 2e-4, with: 'auto' }, () => {});

describe('files that bundle.json does not name', () => {
  for (const [what, file] of [
    ['for an engine', 'cpu/engine/model-00009-of-00009.safetensors'],
    ['among the launch files', 'cuda-h20/launch/vllm/before.sh'],
    ['among the sources', 'cpu/native/extra.c'],
    ['built in place by hand', 'cpu/native/model'],
    ['hidden', '.note'],
    ['in a directory of its own', 'more/inside/it'],
  ] as const)
    it(`${what}: ${file}`, async () => {
      const copy = join(work, what);
      cpSync(bundle, copy, { recursive: true });
      mkdirSync(join(copy, file, '..'), { recursive: true });
      writeFileSync(join(copy, file), 'x');
      const v = await check(copy);
      expect(v.problems.map(p => [p.code, p.exit, ...p.places.map(x => x.file)])).toEqual([['HK6803', 6, file]]);
      expect(v.checks.map(c => c.passed)).toEqual([false]);
    });
  it('links, and names that would write over a terminal', async () => {
    const copy = join(work, 'links');
    cpSync(bundle, copy, { recursive: true });
    symlinkSync('/', join(copy, 'cpu/engine/root'));
    writeFileSync(join(copy, 'a\u001b[2J'), '');
    const [p] = (await check(copy)).problems;
    expect(p?.places.map(x => x.file)).toEqual(['"a\\u001b[2J"', 'cpu/engine/root']);
    expect(p?.what).toBe('The bundle has 2 files that were not compiled');
  });
  it('are named up to twenty, and counted beyond', async () => {
    const copy = join(work, 'many');
    cpSync(bundle, copy, { recursive: true });
    for (let i = 0; i < 23; i++) writeFileSync(join(copy, `more-${i}`), '');
    const [p] = (await check(copy)).problems;
    expect([p?.places.length, p?.why.slice(0, 11)]).toEqual([20, 'And 3 more.']);
  });
  (compiler() ? it : it.skip)('are not left by a run, nor by a check', async () => {
    expect((await check(bundle)).problems).toEqual([]);
    const r = findRunnable(bundle);
    try {
      await (await openSession(r, 'auto', 1, () => {})).session.close();
    } finally {
      r.dispose();
    }
    expect((await check(bundle)).problems).toEqual([]);
  });
});
