// What rounding does to the trained model, on texts written for this project: the searches lower the error they say they lower, matrix by matrix, and
// int8 weights and activations leave the answers as they were. The table over other people's texts is docs/quality.md (bench/quality.ts).
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { answers, divergence, openModel, originals, type Text, tell } from '../bench/quality-measure.js';
import { makeScheme, nameOf, type Rounded, readerOf } from '../bench/quality-schemes.js';
import type { Figures } from '../src/bundle/ledger.js';
import { gather, type Statistics } from '../src/calibrate.js';
import { openCheckpoint } from '../src/checkpoint/shards.js';
import { loadTokenizer } from '../src/checkpoint/tokenizer.js';
import { buildModel } from '../src/models/index.js';
import { readWeight } from '../src/numeric/decode.js';
import { roundRow } from '../src/reference/inputs.js';
import { writeStatistics } from '../src/statistics.js';
import { linearRoles, type Recipe, type Rule } from '../targets/engine.js';
import { fixtures } from './golden-cases.js';

const work = mkdtempSync(join(tmpdir(), 'hkgai-quality-'));
process.env.HKGAI_CACHE = join(work, 'cache');
afterAll(() => rmSync(work, { recursive: true }));
const nano = join(fixtures, 'hkgai-nano');
const own = join(fixtures, 'eval');
const lines = <T>(file: string): readonly T[] =>
  readFileSync(join(own, file), 'utf8')
    .trim()
    .split('\n')
    .map(l => JSON.parse(l) as T);
/** Zero points have no kernel for experts in the engines that read them. */
const linears = (rule: Omit<Rule, 'roles'>): Omit<Recipe, 'format' | 'name'> => ({
  rules: [{ roles: rule.zero ? linearRoles.filter(r => r !== 'expert') : linearRoles, ...rule }],
  otherwise: 'bf16',
  mtp: 'keep',
  activations: 'none',
});
const source = openCheckpoint(nano);

describe('int8 weights and activations', () => {
  it('keep the sums and stay near bf16', async () => {
    const tokenizer = await loadTokenizer(nano);
    const texts: readonly Text[] = lines<{ prompt_ids: readonly number[]; greedy_ids: readonly number[] }>('prompts.jsonl').map(p => ({
      language: 'own',
      ids: [...p.prompt_ids.slice(1), ...p.greedy_ids],
    }));
    const first = await openModel(source, v => readWeight(v, readerOf(nano)), null);
    const bf16 = originals(first.reference, texts);
    expect(divergence(tell(first.reference, texts, bf16))).toBe(0);
    first.reference.dispose();
    const of = async (activations: Recipe['activations']): Promise<{ kl: number; sums: number }> => {
      const made = await makeScheme(nano, { target: 'cpu', recipe: { ...linears({ to: 'int8' }), activations } }, join(work, 'w8a8'));
      const { reference } = await openModel(made.checkpoint, made.weights, made.inputs);
      const kl = divergence(tell(reference, texts, bf16));
      const sums =
        activations === 'none'
          ? 0
          : answers(
              reference,
              tokenizer,
              lines<{ prompt_ids: readonly number[]; answer: string }>('skill_addition.jsonl')
                .slice(0, 100)
                .map(q => ({
                  ids: q.prompt_ids,
                  most: 6,
                  right: a => a === q.answer,
                })),
            );
      reference.dispose();
      return { kl, sums };
    };
    const both = await of('int8');
    expect(both.sums).toBeGreaterThanOrEqual(0.97);
    expect(both.kl).toBeLessThan(0.005);
    const weights = await of('none');
    expect(weights.kl).toBeGreaterThan(0);
    expect(both.kl).toBeGreaterThan(weights.kl); // activations were rounded too
  });
  it('round a row to 255 codes of one scale, half to even', () => {
    const row = Float32Array.of(127, -127, 0.5, 1.5, -2.5, 3.49, 0);
    roundRow(row);
    expect([...row].map(v => v + 0)).toEqual([127, -127, 0, 2, -2, 3, 0]);
    const small = Float32Array.of(1e-3, -4e-4, 2.6e-4);
    const scale = Math.fround(small[0]! / 127);
    roundRow(small);
    for (const v of small) expect(Math.abs(v / scale - Math.round(v / scale))).toBeLessThan(1e-4);
    const none = new Float32Array(3);
    roundRow(none);
    expect([...none]).toEqual([0, 0, 0]);
  });
});

describe('mse', () => {
  const forms: readonly (readonly [string, string, Omit<Rule, 'roles'>, string?])[] = [
    ['int8', 'cpu', { to: 'int8' }],
    ['int8, scales in bf16', 'ascend', { to: 'int8' }],
    ['int4, groups of 32', 'cpu', { to: 'int4' }],
    ['int4, groups of 128', 'cpu', { to: 'int4', group: 128 }],
    ['int4, groups of 32, zero points', 'cuda', { to: 'int4', zero: true }],
    ['fp8', 'cpu', { to: 'fp8' }],
    ['mxfp4', 'cpu', { to: 'mxfp4' }],
    ['Q8_0', 'cpu', { to: 'q8_0' }, 'gguf'],
    ['Q4_0', 'cpu', { to: 'q4_0' }, 'gguf'],
  ];
  for (const [name, target, rule, engineFormat] of forms)
    it(`${name}: no matrix has more squared error than by absmax, most have less`, async () => {
      const of = async (search: 'absmax' | 'mse'): Promise<ReadonlyMap<string, Figures>> =>
        (
          await makeScheme(
            nano,
            { target, recipe: linears({ ...rule, search }), ...(engineFormat ? { engineFormat } : {}) },
            join(work, 'mse'),
          )
        ).figures;
      const [absmax, mse] = [await of('absmax'), await of('mse')];
      const rounded = [...absmax].filter(([, f]) => f.relative > 0);
      expect(rounded.length).toBeGreaterThan(10);
      // sums are of f32: the last digits of equal errors may differ
      expect(rounded.filter(([k, f]) => mse.get(k)!.relative > f.relative * (1 + 1e-6)).map(([k]) => k)).toEqual([]);
      expect(rounded.filter(([k, f]) => mse.get(k)!.relative < f.relative).length).toBeGreaterThan(rounded.length / 2);
    });
});

describe('what is read back', () => {
  const { graph } = buildModel(source.config, source.tensors);
  const relative = (x: ArrayLike<number>, y: ArrayLike<number>, from: number, to: number): number => {
    let [e, n] = [0, 0];
    for (let i = from; i < to; i++) {
      e += ((x[i] as number) - (y[i] as number)) ** 2;
      n += (x[i] as number) ** 2;
    }
    return Math.sqrt(e / n);
  };
  for (const [name, target, recipe, engineFormat] of [
    ['zero points', 'cuda', linears({ to: 'int4', zero: true })],
    [
      'rows in pairs',
      'ascend',
      {
        ...linears({ to: 'int8' }),
        rules: [
          { roles: ['expert'], to: 'int4', group: 0 },
          { roles: linearRoles, to: 'int8' },
        ],
      },
    ],
    ['Q8_0', 'cpu', linears({ to: 'q8_0' }), 'gguf'],
    ['Q4_0', 'cpu', linears({ to: 'q4_0' }), 'gguf'],
  ] as readonly (readonly [string, string, Omit<Recipe, 'format' | 'name'>, string?])[])
    it(`${name}: differs from the source by what the ledger says, matrix by matrix`, async () => {
      const made = await makeScheme(nano, { target, recipe, ...(engineFormat ? { engineFormat } : {}) }, join(work, 'back'));
      const found: number[] = [];
      for (const v of graph.values) {
        if (v.op !== 'weight' || v.type.storage.element === 'i64') continue;
        const [x, y] = [readWeight(v, readerOf(nano)), made.weights(v)];
        // a stack is one tensor of a GGUF
        const parts = engineFormat === 'gguf' ? 1 : v.origin.parts.length;
        for (let i = 0; i < parts; i++) found.push(relative(x, y, (i * x.length) / parts, ((i + 1) * x.length) / parts));
      }
      const [read, said] = [found, [...made.figures.values()].map(f => f.relative)].map(l =>
        l.filter(v => v > 0).sort((a, b) => a - b),
      ) as [number[], number[]];
      expect(read.length).toBe(said.length);
      expect(read.length).toBeGreaterThan(10);
      read.forEach((r, i) => expect(Math.abs(r / said[i]! - 1)).toBeLessThan(1e-3));
    });
});

describe('statistics', () => {
  let s: Statistics;
  const file = join(work, 'statistics.safetensors');
  beforeAll(async () => {
    const text = join(work, 'text.txt');
    writeFileSync(text, readFileSync(join(own, 'calibration_own.txt'), 'utf8').slice(0, 4000));
    s = await gather(source, text, true, () => {});
    writeStatistics(file, s);
  });
  /** Every matrix that a recipe coded: its source and what it became. */
  function* matrices(made: Rounded): Generator<readonly [name: string, columns: number, x: Float32Array, y: Float32Array]> {
    const graphOf = (c: typeof source) => buildModel(c.config, c.tensors).graph;
    const after = new Map(graphOf(made.checkpoint).values.map(v => [v.name, v]));
    for (const v of graphOf(source).values) {
      const w = after.get(v.name);
      if (v.op !== 'weight' || w?.op !== 'weight' || w.type.storage.kind !== 'scaled') continue;
      const [x, y] = [readWeight(v, readerOf(nano)) as Float32Array, made.weights(w) as Float32Array];
      const each = x.length / v.origin.parts.length;
      for (let i = 0; i < v.origin.parts.length; i++)
        yield [
          nameOf(source, v, i),
          v.type.shape.at(-1) as number,
          x.subarray(i * each, (i + 1) * each),
          y.subarray(i * each, (i + 1) * each),
        ];
    }
  }
  it('make mse lower the error weighed by what comes in, in every matrix', async () => {
    for (const rule of [{ to: 'int4' }, { to: 'mxfp4' }] as const) {
      const weighed = async (calibration?: string): Promise<ReadonlyMap<string, number>> => {
        const made = await makeScheme(
          nano,
          { target: 'cpu', recipe: linears({ ...rule, search: 'mse' }), ...(calibration ? { calibration } : {}) },
          join(work, 'weighed'),
        );
        const out = new Map<string, number>();
        for (const [name, columns, x, y] of matrices(made)) {
          const weight = s.statistics[name]!;
          let sum = 0;
          for (let r = 0; r < x.length; r += columns) for (let c = 0; c < columns; c++) sum += (x[r + c]! - y[r + c]!) ** 2 * weight[c]!;
          out.set(name, sum);
        }
        return out;
      };
      const [plain, calibrated] = [await weighed(), await weighed(file)];
      expect(plain.size).toBeGreaterThan(150);
      const names = [...plain.keys()];
      expect(names.filter(n => calibrated.get(n)! > plain.get(n)! * (1 + 1e-5))).toEqual([]);
      expect(names.filter(n => calibrated.get(n)! < plain.get(n)!).length).toBeGreaterThan(names.length / 2);
    }
  });
  it('make gptq lower the error of the outputs, in every matrix', async () => {
    const outputs = async (search: 'absmax' | 'gptq'): Promise<ReadonlyMap<string, number>> => {
      const made = await makeScheme(
        nano,
        { target: 'cpu', recipe: linears({ to: 'int4', search }), calibration: file },
        join(work, 'outputs'),
      );
      const out = new Map<string, number>();
      for (const [name, n, x, y] of matrices(made)) {
        const g = s.statistics[`gram:${name}`]!;
        let sum = 0;
        const d = new Float64Array(n);
        for (let at = 0; at < x.length; at += n) {
          for (let i = 0; i < n; i++) d[i] = x[at + i]! - y[at + i]!;
          for (let i = 0; i < n; i++) {
            let row = 0;
            for (let j = 0; j < n; j++) row += g[i * n + j]! * d[j]!;
            sum += d[i]! * row;
          }
        }
        out.set(name, sum);
      }
      return out;
    };
    const [absmax, gptq] = [await outputs('absmax'), await outputs('gptq')];
    const names = [...absmax.keys()];
    expect(names.length).toBeGreaterThan(150);
    expect(names.filter(n => gptq.get(n)! >= absmax.get(n)!)).toEqual([]);
    const all = (m: ReadonlyMap<string, number>): number => [...m.values()].reduce((a, b) => a + b, 0);
    expect(all(gptq)).toBeLessThan(0.7 * all(absmax));
  });
});
