// Activation statistics: against sums said plainly, for every generation; as a file that is read back; and what is refused.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import type { ValueOf } from '../ir/graph.js';
import { Refusal } from '../ir/problem.js';
import { f32 } from '../ir/storage.js';
import { gather, overIds, type Statistics, wantedOf } from '../src/calibrate.js';
import { canonicalName } from '../src/checkpoint/names.js';
import { openCheckpoint } from '../src/checkpoint/shards.js';
import { type CompileOptions, compile } from '../src/compile.js';
import { buildModel } from '../src/models/index.js';
import { createReference } from '../src/reference/index.js';
import { holdsStatistics, readStatistics, writeStatistics } from '../src/statistics.js';
import { fixtures, recorded, tinyCases, weightsOf } from './golden-cases.js';

const work = mkdtempSync(join(tmpdir(), 'hkgai-calibrate-'));
process.env.HKGAI_CACHE = join(work, 'cache');
afterAll(() => rmSync(work, { recursive: true }));
const nano = join(fixtures, 'hkgai-nano');
const own = join(fixtures, 'eval/calibration_own.txt');
const silent = (): void => {};
const codeOf = async (what: () => Promise<unknown>): Promise<string> => {
  try {
    await what();
  } catch (e) {
    if (e instanceof Refusal) return e.problems.map(p => p.code).join(' ');
    throw e;
  }
  return 'nothing was refused';
};
const short = join(work, 'short.txt');
writeFileSync(short, readFileSync(own, 'utf8').slice(0, 1500));

describe('statistics of every generation', () => {
  for (const name of tinyCases)
    it(`${name}: every matrix has them, as wide as its rows`, async () => {
      const c = openCheckpoint(join(fixtures, 'tiny', name));
      const ids = [...recorded(join(c.dir, 'golden.safetensors')).get('seq0.input_ids')!.data];
      const { statistics } = await overIds(c, ids, [], 'the recorded ids', false, silent);
      const wanted = wantedOf(c);
      expect(Object.keys(statistics).sort()).toEqual(wanted.map(w => w.name).sort());
      for (const { name: n, columns } of wanted) {
        expect(statistics[n]!.length).toBe(columns);
        expect(statistics[n]!.every(v => Number.isFinite(v) && v >= 0)).toBe(true);
        expect(statistics[n]!.some(v => v > 0)).toBe(true);
      }
    });
});

describe('the sums', () => {
  /** Mean squares of rows [rows, columns] that `take` picks, in plain words. */
  const meanSquares = (x: ArrayLike<number>, columns: number, take: (row: number) => boolean): { sum: number[]; rows: number } => {
    const sum = new Array<number>(columns).fill(0);
    let rows = 0;
    for (let t = 0; t * columns < x.length; t++) {
      if (!take(t)) continue;
      rows++;
      for (let c = 0; c < columns; c++) sum[c]! += (x[t * columns + c] as number) ** 2;
    }
    return { sum, rows };
  };
  const close = (got: ArrayLike<number>, want: readonly number[]): void => {
    for (let i = 0; i < want.length; i++) expect(Math.abs((got[i] as number) - want[i]!)).toBeLessThanOrEqual(1e-5 * want[i]! + 1e-12);
  };
  for (const name of ['v3-tiny-bf16', 'v4-tiny'])
    it(`${name}: linears, the grouped ones, and experts by the rows that chose them, the layer's mean beside`, async () => {
      const c = openCheckpoint(join(fixtures, 'tiny', name));
      const ids = [...recorded(join(c.dir, 'golden.safetensors')).get('seq0.input_ids')!.data].slice(0, 40);
      const { statistics } = await overIds(c, ids, [], '', false, silent);
      const rows = ids.length - 1; // the last token is only what follows the one before
      const limits = { tokens: rows, wanted: rows, sequences: 1, context: 256 };
      const { graph } = buildModel(c.config, c.tensors, { limits, mtp: false, state: f32, fakeQuant: false });
      const read = weightsOf(c.dir);
      const reference = await createReference(graph, read);
      const linears = graph.values.filter(
        (v): v is ValueOf<'linear'> | ValueOf<'grouped_linear'> => v.op === 'linear' || v.op === 'grouped_linear',
      );
      const experts = graph.values.filter((v): v is ValueOf<'experts'> => v.op === 'experts');
      expect(experts.length).toBeGreaterThan(0);
      const names = [
        ...linears.map(v => v.inputs.x.name),
        ...experts.flatMap(v => [v.inputs.x.name, v.inputs.indices.name, v.inputs.weights.name]),
      ];
      const got = reference.step(
        { ids: ids.slice(0, rows), positions: Array.from({ length: rows }, (_, i) => i), sequences: Array<number>(rows).fill(0) },
        [...new Set(names)],
      );
      const spelled = (w: ValueOf<'weight'>, part = 0): string => canonicalName(w.origin.parts[part]!.tensor, c.config.family);
      let seen = 0;
      for (const v of linears) {
        const w = v.inputs.weight;
        if (w.op !== 'weight' || statistics[spelled(w)] === undefined) continue;
        const columns = w.type.shape.at(-1) as number;
        const { sum, rows: n } = meanSquares(got.get(v.inputs.x.name)!.data, columns, () => true);
        close(
          statistics[spelled(w)]!,
          sum.map(s => s / n),
        );
        seen++;
      }
      expect(seen).toBeGreaterThan(10);
      for (const v of experts) {
        const [gate, up, down] = [v.inputs.gate, v.inputs.up, v.inputs.down] as [ValueOf<'weight'>, ValueOf<'weight'>, ValueOf<'weight'>];
        const x = got.get(v.inputs.x.name)!.data;
        const shares = got.get(v.inputs.weights.name)!.data;
        const { data: chosen, shape } = got.get(v.inputs.indices.name)!;
        const [count, inner, d] = gate.type.shape as [number, number, number];
        const [g, u] = [read(gate), read(up)];
        const before: { sum: number[]; rows: number }[] = [];
        const behind: { sum: number[]; rows: number }[] = [];
        for (let e = 0; e < count; e++) {
          const slot = (t: number): number => [...chosen.subarray(t * shape[1], (t + 1) * shape[1])].indexOf(e);
          before.push(meanSquares(x, d, t => slot(t) >= 0));
          const h = new Float64Array(rows * inner);
          for (let t = 0; t < rows; t++) {
            if (slot(t) < 0) continue;
            for (let o = 0; o < inner; o++) {
              let [a, b] = [0, 0];
              for (let k = 0; k < d; k++) {
                a += g[(e * inner + o) * d + k]! * (x[t * d + k] as number);
                b += u[(e * inner + o) * d + k]! * (x[t * d + k] as number);
              }
              const limit = v.attributes.limit;
              if (limit !== null) {
                a = Math.min(a, limit);
                b = Math.max(-limit, Math.min(limit, b));
              }
              const weigh = v.attributes.weigh === 'before' ? (shares[t * shape[1] + slot(t)] as number) : 1;
              h[t * inner + o] = (a / (1 + Math.exp(-a))) * b * weigh;
            }
          }
          behind.push(meanSquares(h, inner, t => slot(t) >= 0));
        }
        for (const [w, sums, columns] of [
          [gate, before, d],
          [up, before, d],
          [down, behind, inner],
        ] as const) {
          const all = sums.reduce((n, s) => n + s.rows, 0);
          const mean = Array.from({ length: columns }, (_, k) => sums.reduce((n, s) => n + s.sum[k]!, 0) / all);
          sums.forEach((s, e) => {
            const want = mean.map((m, k) => (s.sum[k]! + 32 * m) / (s.rows + 32));
            const have = statistics[spelled(w, e)]!;
            for (let k = 0; k < columns; k++) expect(Math.abs(have[k]! - want[k]!)).toBeLessThanOrEqual(1e-4 * mean[k]! + 1e-12);
          });
        }
      }
      reference.dispose();
    });
});

describe('hkgai-nano over its own text', () => {
  const c = openCheckpoint(nano);
  let first: Statistics;
  beforeAll(async () => {
    first = await gather(c, short, false, silent);
    writeStatistics(join(work, 'a.safetensors'), first);
  });
  it('gives the same statistics twice, those of the MTP block and of every expert among them', async () => {
    const again = await gather(c, short, false, silent);
    expect(again).toEqual(first);
    expect(first.statistics['model.layers.4.mlp.experts.0.down_proj.weight']).toBeDefined();
    expect(first.statistics['model.layers.0.self_attn.kv_b_proj.weight']!.length).toBe(64);
    // gate and up meet the same rows: one array
    expect(first.statistics['model.layers.0.mlp.gate_proj.weight']).toBe(first.statistics['model.layers.0.mlp.up_proj.weight']);
  });
  it('takes the mean of the others for experts that no token chose, and names them', async () => {
    const few = await overIds(c, [0, 300, 400], [], 'three tokens', false, silent);
    expect(few.notes.join('\n')).toMatch(/Layer 1: no token of the text chose experts \d/);
    const none = /Layer 1: no token of the text chose experts ([\d, ]+);/.exec(few.notes.join('\n'))![1]!.split(', ').map(Number);
    expect(none.length).toBeGreaterThan(5);
    const of = (e: number): Float32Array => few.statistics[`model.layers.1.mlp.experts.${e}.gate_proj.weight`]!;
    for (const e of none) expect([...of(e)]).toEqual([...of(none[0]!)]);
    expect(of(none[0]!).every(v => v > 0)).toBe(true);
  });
  it('refuses a text without text', async () => {
    for (const bytes of ['', Buffer.from([0xff, 0xfe, 0x00])]) {
      writeFileSync(join(work, 'none.txt'), bytes);
      expect(await codeOf(() => gather(c, join(work, 'none.txt'), false, silent))).toBe('HK2605');
    }
  });
  it('refuses second moments that are larger than the memory for them', async () => {
    expect(await codeOf(() => gather(c, short, true, silent, 1 << 20))).toBe('HK5102');
  });
  it('second moments have the mean squares on their diagonal', async () => {
    const { statistics } = await gather(c, short, true, silent);
    const name = 'model.layers.1.mlp.experts.3.down_proj.weight';
    const g = statistics[`gram:${name}`]!;
    const s = statistics[name]!;
    for (let i = 0; i < s.length; i++) expect(Math.abs(g[i * (s.length + 1)]! - s[i]!)).toBeLessThanOrEqual(1e-4 * s[i]!);
    for (let i = 0; i < s.length; i++) for (let j = 0; j < i; j++) expect(g[i * s.length + j]).toBeCloseTo(g[j * s.length + i]!, 4);
  });

  it('comes back from a file as it was, in the same bytes', async () => {
    const [a, b] = [join(work, 'a.safetensors'), join(work, 'b.safetensors')];
    expect(holdsStatistics(a)).toBe(true);
    expect(holdsStatistics(own)).toBe(false);
    const back = readStatistics(a, wantedOf(c), false);
    expect(back.notes).toEqual(first.notes);
    for (const [k, v] of Object.entries(first.statistics)) expect([...back.statistics[k]!]).toEqual([...v]);
    writeStatistics(b, back);
    expect(readFileSync(b).equals(readFileSync(a))).toBe(true);
  });
  it('refuses statistics of another model, and numbers that no mean of squares is', async () => {
    const file = join(work, 'a.safetensors');
    const other = openCheckpoint(join(fixtures, 'tiny/v3-tiny-bf16'));
    expect(await codeOf(() => gather(other, file, false, silent))).toBe('HK3611');
    expect(await codeOf(() => gather(c, file, true, silent))).toBe('HK3611'); // no second moments in it
    for (const bad of [Number.NaN, -1, Number.POSITIVE_INFINITY]) {
      const name = 'model.layers.2.self_attn.o_proj.weight';
      const wrong = { ...first.statistics, [name]: first.statistics[name]!.map((v, i) => (i === 7 ? bad : v)) };
      const path = join(work, `bad${bad}.safetensors`);
      writeStatistics(path, { ...first, statistics: wrong });
      expect(await codeOf(() => gather(c, path, false, silent))).toBe('HK3611');
    }
    expect(await codeOf(() => gather(c, join(nano, 'model-00001-of-00002.safetensors'), false, silent))).toBe('HK3611');
  });

  const options = (out: string, more: Partial<CompileOptions>): CompileOptions => ({
    out: join(work, out),
    targets: ['cpu'],
    quantise: 'int4',
    state: 'f32',
    mtp: 'quantise',
    weights: 'auto',
    sequences: 1,
    chunk: 64,
    force: false,
    allowPhantomKeys: false,
    version: 'test',
    jobs: 0,
    noCache: true,
    ...more,
  });
  const watch = { step: silent, at: silent };
  const weights = (out: string): Buffer => readFileSync(join(work, out, 'cpu/engine/model-00001-of-00002.safetensors'));
  it('is kept in the bundle; compiled from that file, the same bytes come out', async () => {
    for (const search of ['mse', 'gptq'] as const) {
      await compile(nano, options(search, { search, calibration: short }), watch);
      const file = join(work, search, 'calibration.safetensors');
      await compile(nano, options(`${search}2`, { search, calibration: file }), watch);
      expect(weights(`${search}2`).equals(weights(search))).toBe(true);
      expect(readFileSync(join(work, `${search}2`, 'calibration.safetensors')).equals(readFileSync(file))).toBe(true);
    }
    expect(weights('mse').equals(weights('gptq'))).toBe(false);
    await compile(nano, options('plain', { search: 'mse' }), watch);
    expect(weights('plain').equals(weights('mse'))).toBe(false);
  });
  it('leaves absmax as it is, and says so', async () => {
    const { manifest } = await compile(nano, options('absmax', { calibration: short }), watch);
    await compile(nano, options('absmax0', {}), watch);
    expect(weights('absmax').equals(weights('absmax0'))).toBe(true);
    expect(manifest.targets[0]!.notes.join('\n')).toContain('absmax, which the statistics do not change');
  });
  it('refuses gptq without a text, and for forms that it does not round to', async () => {
    const tried = (more: Partial<CompileOptions>): Promise<string> =>
      codeOf(() => compile(nano, options('no', { search: 'gptq', ...more }), watch));
    expect(await tried({})).toBe('HK2611');
    expect(await tried({ targets: ['ascend'], quantise: 'w4a8', calibration: short })).toBe('HK4502');
    expect(await tried({ quantise: 'mxfp4', calibration: short })).toBe('HK4502');
    expect(await tried({ quantise: 'q8_0', calibration: short })).toBe('HK4502');
    expect(await tried({ quantise: 'fp8', calibration: short })).toBe('HK4502');
  });
});
