// What a new chip and a new vendor cost, tried: an invented chip of a known target is one file, an invented SIMT vendor (test/new-target/lumen) is a
// folder and two lines. The figures of docs/adding-a-target.md are counted here.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { buildEmulated } from '../src/build.js';
import { openNative } from '../src/session.js';
import { faultsOf, type Schema } from '../targets/chips.js';
import { targets } from '../targets/index.js';
import type { Target } from '../targets/target.js';
import { compareGolden } from './emulated-golden.js';
import { fixtures } from './golden-cases.js';
import { cases, check, prepare } from './kernel-cases.js';
import { lumen } from './new-target/lumen/index.js';
import { Tree } from './new-target/tree.js';
import { type Language, type Result, runPrograms } from './run-program.js';

const root = fileURLToPath(new URL('..', import.meta.url));
const here = join(root, 'test/new-target');
const schema = JSON.parse(readFileSync(join(root, 'targets/chips.schema.json'), 'utf8')) as Schema;
const work = mkdtempSync(join(tmpdir(), 'hkgai-new-target-'));
afterAll(() => rmSync(work, { recursive: true }));
const model = join(fixtures, 'tiny/v3-tiny-bf16');

describe('a new chip of a known vendor', () => {
  let before: Tree;
  let after: Tree;
  beforeAll(() => {
    before = new Tree(join(work, 'before'));
    after = new Tree(join(work, 'after'));
    after.add('targets/cuda/chips/x100.json', join(here, 'x100.json'));
  }, 120_000);
  it('fits the schema', () => expect(faultsOf(JSON.parse(readFileSync(join(here, 'x100.json'), 'utf8')), schema)).toEqual([]));
  it('is no target without its file', () => {
    const r = before.run('targets', 'cuda:x100');
    expect([r.code, r.err]).toEqual([2, expect.stringContaining('HK2201')]);
  });
  it('is one with that file alone: targets shows its figures', () => {
    const one = after.run('targets', 'cuda:x100');
    expect([one.code, one.err]).toEqual([0, '']);
    expect(one.out).toMatch(/memoryBandwidth +5e12 +invented for a test: 5 TB\/s/);
    const all = JSON.parse(after.run('targets', '--json').out) as readonly Target[];
    const was = JSON.parse(before.run('targets', '--json').out) as readonly Target[];
    const names = (list: readonly Target[]): readonly string[] => list.flatMap(t => t.chips.map(c => `${t.name}:${c.name}`));
    expect(names(all).filter(n => !names(was).includes(n))).toEqual(['cuda:x100']);
    // a target alone still means what it meant
    expect(all.map(t => t.chips[0]?.name)).toEqual(was.map(t => t.chips[0]?.name));
  });
  it('plan reckons with its figures', () => {
    const best = (chip: string): { readonly code: number | null; readonly text: string } => {
      const r = after.run('plan', join(root, 'fixtures/configs/DeepSeek-V3.json'), '-t', `cuda:${chip}`, '--devices', '16', '--json');
      return { code: r.code, text: r.out || r.err };
    };
    const ours = best('x100');
    expect([ours.code, ours.text.slice(0, 400)]).toEqual([0, ours.text.slice(0, 400)]);
    expect(ours.text).toContain('x100');
    expect(ours.text.replaceAll('x100', '')).not.toBe(best('h100').text.replaceAll('h100', ''));
  }, 120_000);
  it('compile writes for it what it writes for its family, and verify takes it', () => {
    for (const chip of ['x100', 'generic']) {
      const r = after.run('compile', model, '-t', `cuda:${chip}`, '--quantise', 'w8a8', '-o', join(work, chip));
      expect([chip, r.code, /HK\d.*/s.exec(r.err)?.[0]]).toEqual([chip, 0, undefined]);
    }
    const bytes = (chip: string): readonly (readonly [string, string])[] => {
      const dir = readdirSync(join(work, chip)).find(d => d.startsWith('cuda')) as string;
      const engine = join(work, chip, dir, 'engine');
      return readdirSync(engine)
        .sort()
        .map(f => [f, readFileSync(join(engine, f), 'latin1')] as const);
    };
    expect(bytes('x100').length).toBeGreaterThan(2);
    expect(bytes('x100')).toEqual(bytes('generic'));
    expect(after.run('verify', join(work, 'x100')).code).toBe(0);
  }, 120_000);
});

const gxx = spawnSync('g++', ['--version']).status === 0;
describe('a new SIMT vendor', () => {
  const own = (t: string): string => t.slice(t.indexOf('\n\n') + 2);
  const language: Language = {
    name: lumen.name,
    compiler: [
      ...['g++', '-std=c++17', '-O1', `-I${here}/lumen/header`, `-I${here}/lumen/emulator`],
      ...['simt/header', 'simt/emulator'].map(d => `-I${join(root, 'targets', d)}`),
    ],
    include: '#include "hkgai_lumen.h"',
    print: k => own(lumen.print(k)),
    call: (kernel, args, blocks) => `emulator::run_grid(${blocks}, [&] { ${kernel}(${args.join(', ')}); });`,
  };
  it('prints its own words and nothing of another vendor', () => {
    const seen = new Set<string>();
    for (const [i, c] of cases.entries())
      for (const l of prepare(c, i, { objection: k => lumen.objection(k, lumen.chips[0]!) }).program.launches)
        for (const v of l.variants)
          if (v.kernel && !seen.has(v.kernel.name)) {
            seen.add(v.kernel.name);
            const printed = lumen.print(v.kernel);
            expect(printed).toMatch(/^#include "hkgai_lumen\.h"\n\nextern "C" __entry__ void /);
            expect(printed).not.toMatch(/__syncthreads|__shared__|__global__|blockIdx|cuda/i);
            // the same kernel but for the words
            expect(
              printed.replaceAll('__entry__', '__global__').replaceAll('__near__', '__shared__').replaceAll('lu_meet()', '__syncthreads()'),
            ).toBe(targets.cuda!.print(v.kernel).replace('hkgai_tile.cuh', 'hkgai_lumen.h').replaceAll('blockIdx.x', 'lu_group()'));
          }
    expect(seen.size).toBeGreaterThan(50);
  });
  (gxx ? it : it.skip)(
    gxx ? 'runs every kernel under the emulator, against its meaning' : 'kernels: skipped, there is no g++ here',
    () => {
      const ready = cases.map((c, i) => prepare(c, i, { objection: k => lumen.objection(k, lumen.chips[0]!) }));
      const results = runPrograms(
        ready.map(r => r.run),
        language,
      );
      expect(results.length).toBeGreaterThan(60);
      for (const [i, r] of ready.entries()) check(r, results[i] as readonly Result[], 2e-5);
    },
    300_000,
  );
  it('takes its place in the program: targets, plan, compile, verify', () => {
    const tree = new Tree(join(work, 'vendor'));
    expect(tree.run('targets', 'lumen').code).toBe(2);
    tree.addVendor('lumen', join(here, 'lumen'));
    const shown = tree.run('targets', 'lumen');
    expect([shown.code, shown.err]).toEqual([0, '']);
    expect(shown.out).toContain('lumen:l40');
    const refused = tree.run(
      'compile',
      join(fixtures, 'tiny/v3-tiny-fp8'),
      '-t',
      'lumen',
      '--quantise',
      'none',
      '-o',
      join(work, 'refused'),
    );
    expect([refused.code, refused.err]).toEqual([4, expect.stringContaining('Weights are plain numbers here')]);
    const out = join(work, 'lumen');
    const done = tree.run('compile', join(fixtures, 'tiny/v3-tiny-fp8'), '-t', 'lumen:l40', '-o', out);
    expect([done.code, done.err.includes('HK')]).toEqual([0, false]);
    expect(tree.run('verify', out).code).toBe(0);
    const config = join(root, 'fixtures/configs/DeepSeek-V2-Lite.json');
    const planned = tree.run('plan', config, '-t', 'lumen:l40', '--devices', '4');
    expect([planned.code, planned.out.includes('lumen:l40')]).toEqual([0, true]);
  }, 120_000);
  (gxx ? it : it.skip)(
    gxx ? 'has whole programs, whose logits under the emulator are the recorded ones' : 'whole programs: skipped, there is no g++ here',
    async () => {
      const tree = new Tree(join(work, 'whole'));
      tree.addVendor('lumen', join(here, 'lumen'));
      const out = join(work, 'whole-out');
      const limits = ['--context', '224', '--sequences', '3', '--chunk', '96', '--state', 'f32'];
      const done = tree.run('compile', model, '-t', 'lumen', ...limits, '-o', out);
      expect([done.code, done.err.includes('HK')]).toEqual([0, false]);
      const { program } = await buildEmulated(join(out, 'lumen/native'), lumen.emulator!());
      const session = await openNative(program, join(out, 'lumen/engine'));
      try {
        const got = await compareGolden(session, model, 'v3-tiny-bf16');
        expect(Math.max(got.prompt, got.pieces, got.decode, got.mtp ?? 0)).toBeLessThanOrEqual(2e-4);
        expect(got.prompt).toBeGreaterThan(0);
      } finally {
        await session.close();
      }
    },
    300_000,
  );
});

describe('docs/adding-a-target.md', () => {
  const page = readFileSync(join(root, 'docs/adding-a-target.md'), 'utf8');
  const lines = (path: string): number => readFileSync(path, 'utf8').split('\n').length - 1;
  const files = readdirSync(join(here, 'lumen'), { recursive: true, withFileTypes: true })
    .filter(e => e.isFile())
    .map(e => join(e.parentPath, e.name))
    .sort();
  it('says what the trial cost, file by file', () => {
    const rows = [...page.matchAll(/^\| `targets\/VENDOR\/([^`]+)` \| (\d+) \|/gm)].map(m => [m[1], Number(m[2])]);
    const counted = files.map(f => [relative(join(here, 'lumen'), f).replaceAll('lumen', 'VENDOR').replace('l40', 'CHIP'), lines(f)]);
    expect(rows.sort()).toEqual(counted.sort());
    const total = files.reduce((n, f) => n + lines(f), 0);
    expect(page).toContain(`${files.length} files and ${total} lines`);
    expect(total).toBeLessThan(600);
    expect(page).toContain(`one file of ${lines(join(here, 'x100.json'))} lines`);
  });
});
