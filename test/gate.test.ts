// --baseline and --gate: errors that grow are refused with exit 6, tensor by tensor, and nothing is put in place.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { Refusal } from '../ir/problem.js';
import { type CompileOptions, compile } from '../src/compile.js';
import { fixtures } from './golden-cases.js';

const work = mkdtempSync(join(tmpdir(), 'hkgai-gate-'));
afterAll(() => rmSync(work, { recursive: true }));
const model = join(fixtures, 'tiny/v3-tiny-bf16');
const quiet = { step: () => {}, at: () => {} };
const base = join(work, 'baseline.json');
let n = 0;
async function run(
  more: Partial<CompileOptions>,
): Promise<{ readonly out: string; readonly said: readonly string[]; readonly exit: number }> {
  const out = join(work, `out-${n++}`);
  const options: CompileOptions = {
    out,
    targets: ['cpu'],
    quantise: 'int4',
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
  try {
    await compile(model, options, quiet);
    return { out, said: [], exit: 0 };
  } catch (e) {
    if (!(e instanceof Refusal)) throw e;
    return { out, said: e.problems.map(p => `${p.code} ${p.what}`), exit: e.exit };
  }
}
interface Written {
  readonly format: string;
  readonly relative: Record<string, number>;
}
const read = (file: string): Written => JSON.parse(readFileSync(file, 'utf8')) as Written;
const changed = (change: (b: Written) => unknown): string => {
  const b = read(base);
  const other = change(b) ?? b;
  const file = join(work, `changed-${n++}.json`);
  writeFileSync(file, typeof other === 'string' ? other : JSON.stringify(other));
  return file;
};
beforeAll(async () => expect((await run({ baseline: base })).exit).toBe(0));

describe('a baseline', () => {
  it('has the relative error of every matrix that lost something, by name', () => {
    const b = read(base);
    expect(b.format).toBe('hkgai-baseline-1');
    const names = Object.keys(b.relative);
    expect(names).toEqual([...names].sort());
    expect(names).toContain('model.layers.0.self_attn.o_proj.weight');
    expect(names.length).toBe(69);
    for (const v of Object.values(b.relative)) expect(v > 0 && v < 0.3).toBe(true);
  });
  it('is the same again, and passes', async () => {
    const again = join(work, 'again.json');
    const r = await run({ gate: base, baseline: again });
    expect([r.exit, existsSync(r.out)]).toEqual([0, true]);
    expect(readFileSync(again, 'utf8')).toBe(readFileSync(base, 'utf8'));
  });
  it('passes what is better', async () => {
    expect((await run({ gate: base, search: 'mse' })).exit).toBe(0);
    expect((await run({ gate: base, quantise: 'int8' })).exit).toBe(0);
    expect((await run({ gate: base, quantise: 'none' })).exit).toBe(0);
    expect((await run({ gate: base, mtp: 'drop' })).exit).toBe(0); // tensors that are no more are no worse
  });
});

describe('the place of a baseline', () => {
  it('holds nothing or an earlier baseline: all else is refused before the work, and stays', async () => {
    const notes = join(work, 'notes.json');
    writeFileSync(notes, '{"format":"mine"}');
    const dir = join(work, 'a directory');
    mkdirSync(dir);
    const inModel = join(model, 'baseline.json');
    for (const [file, why] of [
      [notes, 'a file'],
      [dir, 'a directory'],
      [inModel, 'in the model'],
      [join(work, `out-${n + 3}`, 'baseline.json'), 'in the output'],
    ] as const) {
      const r = await run({ baseline: file });
      expect([why, r.exit, r.said, existsSync(r.out)]).toEqual([why, 2, [expect.stringMatching(/^HK2106 /)], false]);
    }
    expect([readFileSync(notes, 'utf8'), existsSync(dir), existsSync(inModel)]).toEqual(['{"format":"mine"}', true, false]);
    const earlier = changed(b => void delete b.relative['model.layers.0.self_attn.o_proj.weight']);
    expect((await run({ baseline: earlier })).exit).toBe(0);
    expect(readFileSync(earlier, 'utf8')).toBe(readFileSync(base, 'utf8'));
  });
});

describe('a gate', () => {
  const o = 'model.layers.0.self_attn.o_proj.weight';
  it('names each tensor that is worse, with both figures; exit 6, nothing in place', async () => {
    const q = 'model.layers.2.mlp.experts.5.up_proj.weight';
    const r = await run({
      gate: changed(b => {
        b.relative[o]! /= 2;
        b.relative[q]! *= 0.98;
      }),
      baseline: join(work, 'never.json'),
    });
    expect(r.exit).toBe(6);
    const b = read(base).relative;
    expect(r.said).toEqual([
      `HK6401 ${o} has relative error ${b[o]!.toExponential(3)}; the baseline has ${(b[o]! / 2).toExponential(3)}`,
      `HK6401 ${q} has relative error ${b[q]!.toExponential(3)}; the baseline has ${(b[q]! * 0.98).toExponential(3)}`,
    ]);
    expect(existsSync(r.out)).toBe(false);
    expect(existsSync(join(work, 'never.json'))).toBe(false);
    expect(readdirSync(work).filter(f => f.startsWith('.'))).toEqual([]);
  });
  it('lets pass what is worse by less than a hundredth', async () => {
    expect((await run({ gate: changed(b => void (b.relative[o]! *= 0.992)) })).exit).toBe(0);
    expect((await run({ gate: changed(b => void (b.relative[o]! *= 0.985)) })).exit).toBe(6);
  });
  it('names tensors that it does not know', async () => {
    const r = await run({ gate: changed(b => void delete b.relative[o]) });
    expect([r.exit, r.said]).toEqual([6, [`HK6402 ${o} has an error figure, but the baseline has none for it`]]);
    // MTP blocks were kept when the baseline was made
    const m = await run({ gate: base, mtp: 'quantise' });
    expect(m.exit).toBe(6);
    expect(m.said.length).toBe(31);
    expect(m.said.every(s => /^HK6402 model\.layers\.3\./.test(s))).toBe(true);
  });
  it('of another recipe refuses what is worse in it', async () => {
    const eight = join(work, 'eight.json');
    expect((await run({ quantise: 'int8', baseline: eight })).exit).toBe(0);
    const r = await run({ gate: eight });
    expect(r.exit).toBe(6);
    expect(r.said.length).toBe(69);
    expect(r.said.every(s => s.startsWith('HK6401 '))).toBe(true);
  });
  it('tells targets apart where there are several', async () => {
    const both = join(work, 'both.json');
    const targets = ['cpu', 'ascend'];
    expect((await run({ targets, quantise: 'bf16', baseline: both })).exit).toBe(0);
    expect(read(both).relative).toEqual({}); // bf16 stays bf16
    const file = join(work, 'w8.json');
    expect((await run({ targets: ['cuda', 'ascend'], quantise: 'w8a8', baseline: file })).exit).toBe(0);
    const { relative } = read(file);
    expect(Object.keys(relative).filter(k => k.startsWith('cuda: ')).length).toBe(69);
    expect(Object.keys(relative).filter(k => k.startsWith('ascend: ')).length).toBe(69);
    expect((await run({ targets: ['cuda', 'ascend'], quantise: 'w8a8', gate: file })).exit).toBe(0);
    writeFileSync(file, JSON.stringify({ format: 'hkgai-baseline-1', relative: { ...relative, [`ascend: ${o}`]: 1e-6 } }));
    const r = await run({ targets: ['cuda', 'ascend'], quantise: 'w8a8', gate: file });
    expect([r.exit, r.said.length, r.said[0]]).toEqual([6, 1, expect.stringContaining(`ascend: ${o} has relative error`)]);
  });
  it('that is no baseline is refused before anything is done: exit 3', async () => {
    for (const change of [
      () => '{',
      () => '[]',
      () => 'null',
      (b: Written) => ({ ...b, format: 'hkgai-baseline-2' }),
      (b: Written) => ({ ...b, relative: null }),
      (b: Written) => ({ ...b, relative: { [o]: '0.1' } }),
    ])
      expect(await run({ gate: changed(change) })).toMatchObject({ exit: 3, said: [expect.stringMatching(/^HK3807 .* is no baseline: /)] });
    await expect(run({ gate: join(work, 'nowhere.json') })).rejects.toMatchObject({ code: 'ENOENT' });
  });
});

it('the command line: exit 6, the tensor on stderr', () => {
  const bin = fileURLToPath(new URL('../bin/hkgai.js', import.meta.url));
  const hkgai = (...args: readonly string[]) =>
    spawnSync(process.execPath, [bin, 'compile', model, '-q', '--quantise', 'int4', '--no-cache', ...args], {
      encoding: 'utf8',
      env: { ...process.env, NO_COLOR: '1' },
    });
  const o = 'model.layers.0.self_attn.o_proj.weight';
  const r = hkgai(
    '-o',
    join(work, 'cli'),
    '--gate',
    changed(b => void (b.relative[o] = 1e-9)),
  );
  expect([r.status, r.stdout]).toEqual([6, '']);
  expect(r.stderr).toMatch(new RegExp(`^HK6401 {2}${o.replaceAll('.', '\\.')} has relative error`));
  expect(existsSync(join(work, 'cli'))).toBe(false);
  expect(hkgai('-o', join(work, 'cli'), '--gate', base).status).toBe(0);
});
