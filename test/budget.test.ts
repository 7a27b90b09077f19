// --budget: bits counted on what is written, never above what was asked; a larger budget never loses more; what cannot be is refused.
import { spawnSync } from 'node:child_process';
import { cpSync, mkdtempSync, readdirSync, rmSync, truncateSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, it } from '@jest/globals';
import { Refusal } from '../ir/problem.js';
import { budgeted, writtenBytes } from '../src/budget.js';
import { type CompileOptions, compile, prepare, targets } from '../src/compile.js';
import { Sample } from '../src/numeric/sample.js';
import { linearRoles } from '../targets/engine.js';
import { decodeDirectory, storedTensors } from './engine-decode.js';
import { fixtures } from './golden-cases.js';
import { writeSynthetic } from './synthetic-checkpoint.js';

const work = mkdtempSync(join(tmpdir(), 'hkgai-bits-'));
afterAll(() => rmSync(work, { recursive: true }));
const quiet = { step: () => {}, at: () => {} };
const options: Omit<CompileOptions, 'targets' | 'quantise'> = {
  out: join(work, 'out'),
  state: 'f32',
  mtp: null,
  weights: 'copy',
  context: 32,
  sequences: 1,
  chunk: 16,
  force: true,
  allowPhantomKeys: false,
  version: 'test',
  jobs: 0,
  noCache: true,
};
const roles = linearRoles as readonly string[];

describe('a budget', () => {
  for (const [model, target, quantise, budgets, more] of [
    ['hkgai-nano', 'cpu', 'bf16', [16, 9, 8.1, 6, 4.7], {}],
    ['tiny/v4-tiny-fp8fp4', 'cuda', 'bf16', [12, 9.5, 6], {}],
    ['tiny/v3-tiny-fp8', 'ascend', 'w8a8', [15, 12], { mtp: 'quantise' }],
    ['tiny/v2-lite-tiny', 'biren', 'bf16', [14, 11], {}],
    ['hkgai-nano-fp8', 'cpu', 'none', [8.1, 7, 5], { mtp: 'drop' }],
  ] as const)
    it(`${model} for ${target}, ${quantise} ${JSON.stringify(more)}: holds on what is written`, async () => {
      for (const budget of budgets) {
        const asked = { ...options, ...more, targets: [target], quantise, budget };
        const p = await prepare(join(fixtures, model), asked, quiet);
        await compile(join(fixtures, model), asked, quiet);
        const stored = storedTensors(join(work, 'out', target, 'engine'));
        let [bytes, weights] = [0, 0];
        for (const { tensor: t } of p.aims[0]!.resolution.chosen) {
          if (!roles.includes(t.role) || !t.matrix || (t.mtp && p.aims[0]!.recipe.mtp !== 'quantise')) continue;
          weights += t.shape.reduce((a, b) => a * b, 1);
          const base = t.name.replace(/\.weight$/, '');
          for (const [name, s] of stored) if (name.startsWith(`${base}.`)) bytes += s.bytes.length;
        }
        expect(weights).toBeGreaterThan(0);
        expect([budget, (8 * bytes) / weights <= budget]).toEqual([budget, true]);
      }
    });
  it('a larger one never loses more, and is used', async () => {
    const model = join(fixtures, 'hkgai-nano');
    const p = await prepare(model, { ...options, targets: ['cpu'], quantise: 'bf16' }, quiet);
    const target = targets.cpu!;
    const format = target.engines.formats[0]!;
    const sample = new Sample(p.checkpoint.dir);
    let before = { loss: Number.POSITIVE_INFINITY, bits: 0 };
    const names = new Set<string>();
    for (let budget = 4.3; budget < 16.5; budget += 0.4) {
      const r = budgeted(p.checkpoint, p.sources, target, 'generic', format, p.aims[0]!.recipe, null, budget);
      names.add(JSON.stringify(r.rules));
      let [loss, bits, weights] = [0, 0, 0];
      for (const s of p.sources.tensors) {
        const t = s.logical;
        if (!roles.includes(t.role) || !t.matrix || t.mtp) continue;
        const [rows, columns] = t.shape as [number, number];
        const rule = r.rules.find(x => x.roles!.includes(t.role));
        const form = rule ? format.form(rule) : ({ kind: 'keep' } as const);
        weights += rows * columns;
        bits += 8 * writtenBytes(s, form, format, 'deepseek_v3');
        if (form.kind === 'coded') loss += rows * columns * sample.loss(s.part, s.storage, rows, columns, form);
      }
      expect(bits / weights).toBeLessThanOrEqual(budget);
      expect(loss).toBeLessThanOrEqual(before.loss);
      expect(bits / weights).toBeGreaterThanOrEqual(before.bits);
      before = { loss, bits: bits / weights };
    }
    expect(before.loss).toBe(0); // 16 bits: nothing is lost
    expect(names.size).toBeGreaterThan(5);
  });
  it('what a sample loses is what the written matrix has lost', async () => {
    for (const [model, name] of [
      ['tiny/v4-tiny-fp8fp4', 'layers.1.ffn.experts.3.w1.weight'],
      ['tiny/v3-tiny-fp8', 'model.layers.1.self_attn.q_b_proj.weight'],
      ['tiny/v2-tiny', 'model.layers.0.mlp.down_proj.weight'],
    ] as const)
      for (const quantise of ['int4', 'int8', 'fp8'] as const) {
        const dir = join(fixtures, model);
        const p = await prepare(dir, { ...options, targets: ['cpu'], quantise }, quiet);
        const x = p.aims[0]!.resolution.chosen.find(c => c.tensor.name === name)!;
        if (x.form.kind !== 'coded') throw new Error(`${name} is kept`);
        const [rows, columns] = x.tensor.shape as [number, number];
        const loss = new Sample(dir).loss(x.source.part, x.source.storage, rows, columns, x.form);
        await compile(dir, { ...options, targets: ['cpu'], quantise }, quiet);
        const a = decodeDirectory(dir).get(name)!.values;
        const b = decodeDirectory(join(work, 'out/cpu/engine')).get(name)!.values;
        let [e2, x2] = [0, 0];
        a.forEach((v, i) => {
          e2 += (v - b[i]!) ** 2;
          x2 += v ** 2;
        });
        // as many as all of its rows are looked at here; V3's fp8 stays as it is
        const same = e2 === 0 && quantise === 'fp8';
        expect([model, quantise, same || Math.abs(loss - e2 / x2) < 1e-4 * loss + 1e-12]).toEqual([model, quantise, true]);
      }
  });
  it('reads rows, not the model: shards may be cut behind their middles', async () => {
    // 24 MB of experts, of which three matrices of 512 x 768 are looked at
    const dir = join(work, 'rows');
    writeSynthetic(dir, { storage: 'bf16', shards: 1 });
    const p = await prepare(dir, { ...options, targets: ['cpu'], quantise: 'none' }, quiet);
    const s = p.sources.tensors.find(t => t.logical.role === 'expert')!;
    const [rows, columns] = s.logical.shape as [number, number];
    const cut = join(work, 'cut');
    cpSync(dir, cut, { recursive: true });
    truncateSync(join(cut, readdirSync(cut).find(f => f.endsWith('.safetensors'))!), s.part.bytes[0] + 384 * columns * 2);
    const form = { kind: 'coded', element: 'i4', block: [1, 32], scale: 'bf16', zero: false, search: 'absmax', layout: 'packed' } as const;
    expect(rows).toBe(512);
    expect(new Sample(cut).loss(s.part, s.storage, rows, columns, form)).toBe(new Sample(dir).loss(s.part, s.storage, rows, columns, form));
  });
  it('that cannot be met is refused with the least there is, and that is met', async () => {
    const of = (budget: number) => prepare(join(fixtures, 'hkgai-nano'), { ...options, targets: ['cpu'], quantise: 'bf16', budget }, quiet);
    const e = await of(2).then(
      () => null,
      (x: unknown) => x,
    );
    expect(e).toBeInstanceOf(Refusal);
    const [p] = (e as Refusal).problems;
    expect([p!.code, p!.exit]).toEqual(['HK5103', 5]);
    const least = Number(/Ask for at least ([\d.]+)\./.exec(p!.next)![1]);
    expect(least).toBeGreaterThan(4);
    expect((await of(least)).aims[0]!.recipe.rules.length).toBeGreaterThan(0);
    await expect(of(least - 0.02)).rejects.toThrow(/HK5103/);
  });
  it('of a chip without the forms takes those it has', async () => {
    const of = async (target: string, budget: number) =>
      (await prepare(join(fixtures, 'hkgai-nano'), { ...options, targets: [target], quantise: 'bf16', budget }, quiet)).aims[0]!.recipe;
    expect((await of('biren', 12)).rules.every(r => r.to === 'int8')).toBe(true);
    expect(await of('biren', 12)).toMatchObject({ activations: 'int8' });
    expect((await of('ascend:950', 9)).rules.some(r => r.to === 'int4')).toBe(false);
    expect(await of('cuda', 6)).toMatchObject({ mtp: 'keep', otherwise: 'bf16' });
  });
  it('on the command line: bits, as a number or with bpw; what is none is refused with exit 2', () => {
    const plan = (budget: string) =>
      spawnSync(
        process.execPath,
        [
          fileURLToPath(new URL('../bin/hkgai.js', import.meta.url)),
          'plan',
          join(fixtures, 'hkgai-nano'),
          '--quantise',
          'bf16',
          '--json',
          '--budget',
          budget,
        ],
        {
          encoding: 'utf8',
        },
      );
    for (const bad of ['x', '0', '-1', '33', '4.5 bits', 'NaN']) expect([bad, plan(bad).status]).toEqual([bad, 2]);
    const [a, b] = [plan('4'), plan('4bpw')];
    expect([a.status, b.status]).toEqual([5, 5]); // mxfp4 alone takes 4.25
    const e = JSON.parse(plan('6bpw').stdout) as { targets: { recipe: string }[] };
    expect(e.targets[0]!.recipe).toMatch(/^6 bits a weight \(attention .*, expert .*\)$/);
  });
});
