// hkgai plan against what compile does: bytes of every file, room on the disk, memory; full-size plans from headers alone.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { filesBelow } from '../src/bundle/directory.js';
import { type CompileOptions, compile } from '../src/compile.js';
import { type Estimate, estimate } from '../src/estimate.js';
import { writeHeaders } from '../src/models/header-only.js';
import { fixtures } from './golden-cases.js';
import { writeSynthetic } from './synthetic-checkpoint.js';

const root = fileURLToPath(new URL('..', import.meta.url));
const bin = join(root, 'bin/hkgai.js');
const work = mkdtempSync(join(tmpdir(), 'hkgai-plan-test-'));
const mounts: string[] = [];
afterAll(() => {
  for (const m of mounts) spawnSync('umount', [m]);
  rmSync(work, { recursive: true });
});
const quiet = { step: () => {}, at: () => {} };
const options: Omit<CompileOptions, 'out' | 'targets' | 'quantise'> = {
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
};
const bytesBelow = (dir: string): number => filesBelow(dir).reduce((n, f) => n + statSync(join(dir, f)).size, 0);

describe('bytes', () => {
  for (const [model, targets, quantise, more] of [
    ['tiny/v3-tiny-fp8', ['cpu', 'cuda', 'ascend', 'biren'], 'bf16', {}],
    ['tiny/v4-tiny-fp8fp4', ['cuda', 'ascend'], 'w8a8', { mtp: 'quantise' }],
    ['tiny/v4-tiny-fp8fp4', ['cuda'], 'mxfp4', {}],
    ['tiny/v32-tiny', ['cpu', 'cuda'], 'fp8', { mtp: 'drop' }],
    ['hkgai-nano', ['cuda', 'ascend'], 'w4a16', {}],
    ['hkgai-nano', ['ascend'], 'w4a8', {}],
    ['hkgai-nano', ['cpu'], 'int4', { search: 'mse' }],
    ['hkgai-nano-fp8', ['cpu', 'cuda'], 'none', {}],
    ['hkgai-nano', ['cpu'], 'q4_0', {}],
    ['tiny/qwen2-distill-tiny', ['cpu'], 'int8', {}],
  ] as const)
    it(`${model} for ${targets.join(', ')}, ${quantise} ${JSON.stringify(more)}: each file as planned, all of it within the room that was said`, async () => {
      const out = join(work, 'out');
      const asked: CompileOptions = { ...options, ...more, targets, quantise, out };
      const e = await estimate(join(fixtures, model), asked, quiet);
      expect(existsSync(out)).toBe(false);
      await compile(join(fixtures, model), asked, quiet);
      for (const t of e.targets) {
        const engine = join(out, t.directory, 'engine');
        const written = readdirSync(engine).filter(f => /\.(safetensors|gguf)$/.test(f));
        expect(t.weightFiles.map(f => [f.path, f.bytes])).toEqual(written.map(f => [f, statSync(join(engine, f)).size]));
        expect(t.bytes).toBe(t.weightFiles.reduce((n, f) => n + f.bytes, 0));
        // every tensor is in one row of the forms
        const held = e.targets.length && t.forms.reduce((n, f) => n + f.bytes, 0);
        expect(held).toBeLessThanOrEqual(t.bytes);
      }
      expect(bytesBelow(out)).toBeLessThanOrEqual(e.disk);
      expect([e.enough, e.headersOnly, (e.free as number) > 0]).toEqual([true, false, true]);
      rmSync(out, { recursive: true });
    });
  it('of a GGUF each role is in the type that the file has, and what is left out is in no row', async () => {
    const e = await estimate(join(fixtures, 'hkgai-nano'), { ...options, targets: ['cpu'], quantise: 'q8_0', out: join(work, 'o') }, quiet);
    const { forms } = e.targets[0]!;
    expect(forms.filter(f => f.role === 'router').map(f => [f.form, f.bits])).toEqual([['F32', 32]]);
    expect(forms.filter(f => f.bytes === 0 || f.bits > 32)).toEqual([]);
  });
  it('linked files take no room on the same disk', async () => {
    const model = join(work, 'linked');
    writeSynthetic(model, { hidden: 256, width: 128, layers: 2, experts: 8, shards: 2 });
    const of = (weights: 'auto' | 'copy'): Promise<Estimate> =>
      estimate(model, { ...options, weights, targets: ['cpu'], quantise: 'none', out: join(work, 'o') }, quiet);
    const [a, b] = [await of('auto'), await of('copy')];
    expect(b.disk - a.disk).toBe(a.targets[0]!.bytes);
    expect([a.rate, a.seconds]).toEqual([null, null]);
  });
  it('the rate is measured, and leaves nothing behind', async () => {
    const before = readdirSync(tmpdir()).filter(f => f.startsWith('hkgai-plan-') && !work.endsWith(f));
    const e = await estimate(join(fixtures, 'hkgai-nano'), { ...options, targets: ['cpu'], quantise: 'int4', out: '' }, quiet);
    expect(e.rate).toBeGreaterThan(1e6);
    expect(e.seconds).toBeCloseTo(e.targets[0]!.bytes >= 0 ? sourceOf(e) / (e.rate as number) : 0, 6);
    expect(e.sampled).toBeGreaterThan(1e6);
    expect(readdirSync(tmpdir()).filter(f => f.startsWith('hkgai-plan-') && !work.endsWith(f))).toEqual(before);
  });
});
/** What a plan that converts reads: all tensors of these models. */
const sourceOf = (e: Estimate): number => e.source;

describe('headers alone', () => {
  const configs = join(fixtures, 'configs');
  for (const [name, target, quantise, tensors] of [
    // tensors as published, in bytes; V3's MTP block brings copies of embedding and head, which are left out here
    ['DeepSeek-V3', 'ascend', 'w8a8', 688_574_839_360 - 2 * 129_280 * 7_168 * 2],
    ['DeepSeek-V4-Pro', 'cuda', 'w4a16', 864_704_792_696],
    ['DeepSeek-V4-Flash', 'cpu', 'none', 159_609_485_896],
  ] as const)
    it(`${name} for ${target}, ${quantise}: planned to the byte, the time unknown`, () => {
      const dir = join(work, name);
      writeHeaders(join(configs, `${name}.json`), dir);
      const r = spawnSync(process.execPath, [bin, 'plan', dir, '-t', target, '--quantise', quantise, '--json'], {
        encoding: 'utf8',
        maxBuffer: 1 << 26,
      });
      expect([r.status, r.stderr]).toEqual([0, '']);
      const e = JSON.parse(r.stdout) as Estimate;
      expect([e.headersOnly, e.rate, e.seconds, e.sampled]).toEqual([true, null, null, 0]);
      const [t] = e.targets;
      const held = t!.forms.reduce((n, f) => n + f.bytes, 0);
      expect(t!.bytes).toBe(t!.weightFiles.reduce((n, f) => n + f.bytes, 0));
      expect(held).toBeLessThanOrEqual(t!.bytes);
      expect(held).toBeGreaterThan(0.99 * t!.bytes);
      expect(e.source).toBe(tensors);
      if (quantise !== 'none') expect(e.disk).toBeGreaterThan(t!.bytes);
    });
  it('compile wants the weights, and writes nothing', async () => {
    const out = join(work, 'big');
    await expect(compile(join(work, 'DeepSeek-V4-Flash'), { ...options, targets: ['cpu'], quantise: 'none', out }, quiet)).rejects.toThrow(
      /HK30/,
    );
    expect(existsSync(out)).toBe(false);
  });
  it('a budget wants the weights', async () => {
    const asked = { ...options, targets: ['cpu'], quantise: 'none', budget: 5, out: '' };
    await expect(estimate(join(work, 'DeepSeek-V4-Flash'), asked, quiet)).rejects.toThrow(/HK30/);
  });
});

const counted = existsSync('/proc/self/status');
(counted ? describe : describe.skip)(counted ? 'memory' : 'memory: skipped, this system does not say a process’s peak', () => {
  const model = join(work, 'large');
  const say = join(work, 'say.mjs');
  beforeAll(() => {
    const { bytes } = writeSynthetic(model, { storage: 'bf16', hidden: 1536, width: 768, layers: 3, experts: 16, shards: 4 });
    expect(bytes).toBeGreaterThan(180e6);
    // the most that its own memory held, all threads: getrusage counts what the process was forked from too
    writeFileSync(
      say,
      "import { readFileSync, writeFileSync } from 'node:fs';\nimport { isMainThread } from 'node:worker_threads';\nif (isMainThread) process.on('exit', () => writeFileSync(process.env.SAY, /VmHWM:\\s+(\\d+)/.exec(readFileSync('/proc/self/status', 'utf8'))[1]));\n",
    );
  });
  for (const [jobs, quantise] of [
    ['0', 'int4'],
    ['1', 'fp8'],
    ['1', 'w4a8'],
    ['2', 'int4'],
    ['2', 'f16'],
  ] as const)
    it(`${quantise} with ${jobs} threads stays below what was said`, () => {
      const target = quantise === 'w4a8' ? 'ascend' : 'cpu';
      const args = ['-t', target, '--quantise', quantise, '-j', jobs];
      const plan = spawnSync(process.execPath, [bin, 'plan', model, ...args, '--json'], { encoding: 'utf8' });
      expect(plan.status).toBe(0);
      const e = JSON.parse(plan.stdout) as Estimate;
      expect(e.jobs).toBe(Number(jobs));
      const out = join(work, 'memory');
      const kib = join(work, 'kib');
      const run = spawnSync(
        process.execPath,
        ['--import', `file://${say}`, bin, 'compile', model, ...args, '-o', out, '--no-cache', '-q', '--context', '64'],
        { encoding: 'utf8', env: { ...process.env, SAY: kib } },
      );
      expect([run.status, run.stderr]).toEqual([0, '']);
      rmSync(out, { recursive: true });
      const peak = Number(readFileSync(kib, 'utf8')) * 1024;
      process.stderr.write(`    ${quantise} -j ${jobs}: ${Math.round(peak / 2 ** 20)} of ${Math.round(e.peakMemory / 2 ** 20)} MiB\n`);
      expect(peak).toBeGreaterThan(30e6);
      expect(peak).toBeLessThanOrEqual(e.peakMemory);
    });
});

const small = process.platform === 'linux' && process.getuid?.() === 0 ? mount() : null;
function mount(): string | null {
  const at = join(work, 'small');
  mkdirSync(at);
  if (spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=24m', 'none', at]).status !== 0) return null;
  mounts.push(at);
  return at;
}
(small ? describe : describe.skip)(small ? 'too little room' : 'too little room: skipped, only root may mount a small disk', () => {
  const at = small as string;
  const model = join(work, 'roomy');
  const hkgai = (...args: readonly string[]) =>
    spawnSync(process.execPath, [bin, ...args], {
      encoding: 'utf8',
      env: { ...process.env, HKGAI_CACHE: join(work, 'cache'), NO_COLOR: '1' },
    });
  beforeAll(() => void writeSynthetic(model, { storage: 'bf16', hidden: 512, width: 256, layers: 2, experts: 16, shards: 3 }));
  it('is said by plan, and by --dry-run', () => {
    const r = hkgai('compile', model, '-o', join(at, 'out'), '--weights', 'copy', '--dry-run', '--progress', 'none');
    expect(r.status).toBe(0);
    expect(r.stdout).toContain('not enough room: the compile would be refused before it writes');
    expect(readdirSync(at)).toEqual([]);
  });
  it('is refused by compile before anything is written: exit 5', () => {
    const r = hkgai('compile', model, '-o', join(at, 'out'), '--weights', 'copy', '-q');
    expect([r.status, r.stdout]).toEqual([5, '']);
    expect(r.stderr).toMatch(/^HK5104 {2}The output needs \d+ MiB, but .*small has \d+ MiB free\nNothing was written\./);
    expect(readdirSync(at)).toEqual([]);
  });
});
