// A model on devices: bytes of each rank against what is written, full-size plans from config.json alone, deployments that are known, and refusals.
import { copyFileSync, cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, it, jest } from '@jest/globals';
import { Refusal } from '../ir/problem.js';
import { readHeader } from '../src/checkpoint/safetensors.js';
import { openCheckpoint } from '../src/checkpoint/shards.js';
import { run } from '../src/cli/program.js';
import { type CompileOptions, compile } from '../src/compile.js';
import { planMaterial } from '../src/materialise.js';
import { writeHeaders } from '../src/models/header-only.js';
import { equalStages } from '../src/passes/shard-stages.js';
import { usual } from '../src/plan/assumptions.js';
import { ways } from '../src/plan/rows.js';
import { dealStages, rankBytes } from '../src/plan/shard.js';
import { reached } from '../src/plan/time.js';
import { deviceWith, linkFields, parseTopology, peakKinds, ranges, topologyFields } from '../src/plan/topology.js';
import {
  bytesOf,
  checkParallel,
  compareChips,
  type DeploymentPlan,
  deploymentPlan,
  describeModel,
  type PlanOptions,
  parallelAsked,
  parallelOf,
  placed,
  shapeOf,
} from '../src/plan.js';
import type { Parallel } from '../targets/launch.js';
import type { Device } from '../targets/target.js';
import { fixtures, tinyCases } from './golden-cases.js';

const here = (path: string): string => fileURLToPath(new URL(`../${path}`, import.meta.url));
const work = mkdtempSync(join(tmpdir(), 'hkgai-devices-'));
afterAll(() => rmSync(work, { recursive: true }));
const quiet = { step: () => {}, at: () => {} };
const config = (name: string): string => here(`fixtures/configs/${name}.json`);
const asked: PlanOptions = {
  target: 'cuda:h200',
  quantise: null,
  format: null,
  runtime: null,
  mtp: null,
  topology: null,
  devices: null,
  nodes: null,
  parallel: null,
  goal: 'throughput',
  context: null,
  prompt: null,
  batch: null,
  kv: 'bf16',
  redundant: null,
  drafts: null,
  imbalance: null,
  power: [],
  price: [],
};
const refusal = (f: () => unknown): string => {
  try {
    f();
  } catch (e) {
    if (e instanceof Refusal) return e.problems.map(p => [p.code, p.what, p.why, p.next].filter(Boolean).join(' | ')).join('\n');
    throw e;
  }
  return 'not refused';
};

/** What a rank would load of tensors that were written: by their names, as one reads them, and by nothing that the plan made. */
function loaded(
  tensors: Iterable<{ readonly name: string; readonly shape: readonly number[]; readonly bytes: readonly [number, number] }>,
  p: Parallel,
  at: {
    readonly layers: readonly [number, number];
    readonly first: boolean;
    readonly last: boolean;
    readonly expert: number;
    readonly decoder: number;
    readonly tableAgain: boolean;
    readonly kvHeads: number;
    readonly experts: number;
  },
): number {
  let sum = 0;
  for (const t of tensors) {
    const size = t.bytes[1] - t.bytes[0];
    const m = /(?:^|\.)layers\.(\d+)\./.exec(t.name);
    const mtp = /^mtp\.(\d+)\./.exec(t.name);
    const layer = m ? Number(m[1]) : mtp ? at.decoder + Number(mtp[1]) : -1;
    if (layer >= 0 && (layer < at.layers[0] || layer >= at.layers[1])) continue;
    if (layer < 0 && !(/embed/.test(t.name) ? at.first || (at.last && at.tableAgain) : at.last)) continue;
    const base = t.name.replace(/\.(weight(_\w+)?|scale(_bias)?|bias)$/, '').replace(/^.*\./, '');
    const e = /\.experts\.(\d+)\./.exec(t.name);
    const per = p.ep > 1 ? at.experts / p.ep : at.experts;
    if (e && p.ep > 1) {
      if (Math.floor(Number(e[1]) / per) === at.expert) sum += size;
      continue;
    }
    const byInputs = /^(o_proj|wo_b|down_proj|w2)$/.test(base);
    const byOutputs = /^(q_b_proj|q_proj|kv_b_proj|wq_b|wo_a|gate_proj|up_proj|w1|w3|embed_tokens|embed|lm_head|head|attn_sink)$/.test(
      base,
    );
    const rowScale = byInputs && /(scale|offset)$/.test(t.name) && t.shape[1] === 1;
    if (t.name.endsWith('weight_shape') || rowScale || t.name.includes('.indexer.') || t.name.includes('.compressor.')) sum += size;
    else if (/^(k_proj|v_proj)$/.test(base)) sum += size / Math.min(p.tp, at.kvHeads);
    else sum += byInputs || byOutputs ? size / p.tp : size;
  }
  return sum;
}

describe('bytes of a rank', () => {
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
  const cases: readonly (readonly [model: string, targets: readonly (readonly [string, string])[]])[] = [
    ...tinyCases.map(
      c =>
        [
          `tiny/${c}`,
          [
            ['cuda', 'none'],
            ['ascend', 'w8a8'],
            ['cuda', 'bf16'],
          ],
        ] as const,
    ),
    [
      'hkgai-nano',
      [
        ['cuda', 'none'],
        ['ascend', 'w8a8'],
        ['ascend', 'w4a8'],
        ['cuda', 'w4a16'],
        ['cuda', 'w8a8'],
        ['biren', 'int8'],
        ['biren', 'bf16'],
        ['cuda', 'fp8'],
      ],
    ],
    [
      'hkgai-nano-fp8',
      [
        ['cuda', 'none'],
        ['ascend', 'w8a8'],
        ['biren', 'bf16'],
      ],
    ],
  ];
  for (const [model, all] of cases)
    for (const [target, quantise] of all)
      it(`${model} for ${target} as ${quantise}: within 1 % of what is written, in every legal way`, async () => {
        const out = mkdtempSync(join(work, 'out-'));
        await compile(join(fixtures, model), { ...options, targets: [target], quantise, out }, quiet);
        const engine = join(out, target, 'engine');
        const written = readdirSync(engine)
          .filter(f => f.endsWith('.safetensors'))
          .flatMap(f => [...readHeader(join(engine, f), f).tensors.values()]);
        const d = describeModel(join(fixtures, model));
        const { shape } = shapeOf(d, { ...asked, target, quantise });
        expect(shape.bytes).toBe(written.reduce((n, t) => n + t.bytes[1] - t.bytes[0], 0));
        // the last of several stages has the table of a tied head, and the one that MTP blocks without their own read
        const block = (name: string): boolean =>
          name.startsWith('mtp.') || Number(/layers\.(\d+)\./.exec(name)?.[1] ?? -1) >= d.config.layers;
        const names = written.map(t => t.name);
        const tableAgain =
          !names.some(n => /^(lm_head|head)\.weight$/.test(n)) ||
          (names.some(block) && !names.some(n => block(n) && n.includes('embed_tokens')));
        let compared = 0;
        for (const devices of [1, 2, 4, 8])
          for (const p of ways(shape, devices, 1, 0)) {
            if (checkParallel(shape, p, null).length) continue;
            for (const r of rankBytes(shape, p, 'bf16', 64, false, usual))
              for (let expert = 0; expert < p.ep; expert += Math.max(1, p.ep - 1)) {
                const kv = shape.kinds[0]!.cache;
                const is = loaded(written, p, {
                  layers: [r.stage.from, r.stage.last ? Number.POSITIVE_INFINITY : r.stage.to],
                  first: r.stage.first,
                  last: r.stage.last,
                  expert,
                  decoder: d.config.layers,
                  tableAgain,
                  kvHeads: kv.kind === 'heads' ? kv.kvHeads : 1,
                  experts: shape.routed?.experts ?? 1,
                });
                expect([model, p, Math.abs(r.weights - is) / is < 0.01]).toEqual([model, p, true]);
                compared++;
              }
          }
        expect(compared).toBeGreaterThan(4);
        rmSync(out, { recursive: true });
      });
  it('is what ranks are proved to hold that are cut by their graphs: every recorded case and hkgai-nano, in every way that either takes, to the byte', () => {
    for (const model of [...tinyCases.map(c => `tiny/${c}`), 'hkgai-nano', 'hkgai-nano-fp8']) {
      const c = openCheckpoint(join(fixtures, model));
      const { shape } = shapeOf(describeModel(join(fixtures, model)), { ...asked, target: 'cuda', quantise: 'none' });
      let compared = 0;
      for (const devices of [1, 2, 3, 4, 6, 8])
        for (const p of ways(shape, devices, 1, 0)) {
          let ranks: readonly { readonly bytes: number }[] | null = null;
          try {
            ranks = planMaterial(c.config, c.tensors, 'as it is', p, false).ranks;
          } catch (e) {
            if (!(e instanceof Refusal)) throw e;
          }
          expect([model, p, checkParallel(shape, p, null).length === 0]).toEqual([model, p, ranks !== null]);
          if (!ranks) continue;
          const planned = rankBytes(shape, p, 'bf16', 64, false, usual, equalStages(c.config.layers, p.pp));
          ranks.forEach((r, i) => {
            expect([model, p, i, planned[Math.floor(i / (p.tp * p.dp))]!.weights]).toEqual([model, p, i, r.bytes]);
            compared++;
          });
        }
      expect(compared).toBeGreaterThan(50);
    }
  });
  it('a release of config.json alone has the bytes that the release has', () => {
    // totals of their indexes and headers
    for (const [name, total] of [
      ['DeepSeek-V3', 688_574_839_360],
      ['DeepSeek-V4-Flash', 159_609_485_896],
      ['DeepSeek-V4-Flash-0731', 166_878_536_440],
      ['DeepSeek-V4-Pro', 864_704_792_696],
    ] as const)
      expect([name, shapeOf(describeModel(config(name)), asked).shape.bytes, bytesOf(describeModel(config(name)))]).toEqual([
        name,
        total,
        total,
      ]);
  });
  it('experts that are not alike are looked at one by one', () => {
    const dir = join(work, 'odd');
    writeHeaders(config('DeepSeek-V2-Lite'), dir);
    expect(describeModel(dir).alike).not.toBeNull();
    // an expert fewer in one layer: it is the whole model that is checked, with its message
    const files = readdirSync(dir).filter(f => f.endsWith('.safetensors'));
    for (const f of files) {
      const bytes = readFileSync(join(dir, f));
      const text = bytes.subarray(8).toString('utf8').replaceAll('layers.3.mlp.experts.7.up_proj', 'layers.3.mlp.experts.64.up_proj');
      const length = Buffer.alloc(8);
      length.writeBigUInt64LE(BigInt(Buffer.byteLength(text)));
      writeFileSync(join(dir, f), Buffer.concat([length, Buffer.from(text)]));
    }
    const index = join(dir, 'model.safetensors.index.json');
    writeFileSync(index, readFileSync(index, 'utf8').replaceAll('layers.3.mlp.experts.7.up_proj', 'layers.3.mlp.experts.64.up_proj'));
    const d = describeModel(dir);
    expect(d.alike).toBeNull();
    expect(refusal(() => shapeOf(d, { ...asked, target: 'cuda:h200' }))).toContain('model.layers.3.mlp.experts.7.up_proj.weight');
  });
  it('layers are dealt so that the heaviest stage is as light as can be', () => {
    const stages = (layers: readonly number[], first: number, last: number, n: number): string =>
      dealStages(layers, first, last, n)
        .map(s => `${s.from}-${s.to}`)
        .join(' ');
    expect(stages([1, 1, 1, 1, 1, 1], 0, 0, 3)).toBe('0-2 2-4 4-6');
    expect(stages([1, 1, 1, 1, 1, 1], 2, 2, 2)).toBe('0-3 3-6');
    expect(stages([1, 1, 1, 1, 1, 1], 3, 0, 2)).toMatch(/^0-[12] /);
    expect(stages([9, 1, 1, 1], 0, 0, 4)).toBe('0-1 1-2 2-3 3-4');
    // against every way to cut
    const heaviest = (layers: readonly number[], first: number, last: number, n: number): number => {
      const sum = (from: number, to: number): number => layers.slice(from, to).reduce((a, b) => a + b, 0);
      const rest = (from: number, stages: number): number =>
        stages === 1
          ? sum(from, layers.length) + last
          : Math.min(
              ...Array.from({ length: Math.max(0, layers.length - from - stages + 1) }, (_, i) =>
                Math.max(sum(from, from + i + 1) + (from === 0 ? first : 0), rest(from + i + 1, stages - 1)),
              ),
            );
      return n === 1 ? sum(0, layers.length) + first + last : rest(0, n);
    };
    let state = 7;
    const next = (below: number): number => (state = (state * 48271) % 2147483647) % below;
    for (let i = 0; i < 200; i++) {
      const layers = Array.from({ length: 1 + next(9) }, () => next(5));
      const [first, last, n] = [next(6), next(6), 1 + next(layers.length)];
      const dealt = dealStages(layers, first, last, n);
      const weights = dealt.map(s => layers.slice(s.from, s.to).reduce((a, b) => a + b, 0) + (s.first ? first : 0) + (s.last ? last : 0));
      expect([layers, n, dealt.every(s => s.to > s.from), Math.max(...weights)]).toEqual([
        layers,
        n,
        true,
        heaviest(layers, first, last, n),
      ]);
    }
  });
});

describe('full-size models from config.json alone', () => {
  const golden = here('test/golden/plan-devices.txt');
  it('V3, V3.2, V4-Flash and V4-Pro on four kinds of machine', () => {
    const lines: string[] = [];
    const took: string[] = [];
    for (const model of ['DeepSeek-V3', 'DeepSeek-V3.2', 'DeepSeek-V4-Flash', 'DeepSeek-V4-Pro'])
      for (const [target, devices, quantise] of [
        ['ascend:910c', 16, 'w8a8'],
        ['cuda:h200', 8, 'none'],
        ['cuda:h20', 16, 'none'],
        ['biren:br106b', 32, 'int8'],
      ] as const) {
        const start = performance.now();
        const p = deploymentPlan(describeModel(config(model)), { ...asked, target, devices, quantise });
        took.push(`${model} ${target}: ${((performance.now() - start) / 1e3).toFixed(2)} s`);
        const best = p.rows.reduce((a, b) => (b.bytes.weights < a.bytes.weights ? b : a));
        const fits = p.rows.filter(r => r.fits).length;
        lines.push(
          `${model} as ${p.recipe} on ${devices} ${target}: ${p.model.bytes} bytes; ${p.rows.length} ways, ${fits} fit; least weights a rank ${best.bytes.weights} with ${best.name}`,
        );
      }
    process.stderr.write(`    ${took.join('\n    ')}\n`);
    const text = `${lines.join('\n')}\n`;
    if (process.env.UPDATE) writeFileSync(golden, text);
    expect(text).toBe(readFileSync(golden, 'utf8')); // UPDATE=1 writes it anew
  });
  it('headers say the same as config.json where the release is what they are of', () => {
    const dir = join(work, 'headers');
    writeHeaders(config('DeepSeek-V3.2'), dir);
    const a = deploymentPlan(describeModel(dir), { ...asked, devices: 8 });
    const b = deploymentPlan(describeModel(config('DeepSeek-V3.2')), { ...asked, devices: 8 });
    // the headers that this project makes leave out the copies of embedding and head
    expect(b.model.bytes - a.model.bytes).toBe(2 * 2 * 129280 * 7168);
    expect(a.rows.map(r => r.name).sort()).toEqual(b.rows.map(r => r.name).sort());
    expect(a.model.digest.headers).toMatch(/^[0-9a-f]{64}$/);
    expect(b.model.digest.headers).toBeNull();
  });
});

describe('deployments that are known', () => {
  const fits = (model: string, more: Partial<PlanOptions>): readonly string[] =>
    deploymentPlan(describeModel(config(model)), { ...asked, ...more })
      .rows.filter(r => r.fits)
      .map(r => r.name);
  it('V3 W8A8 of about 690 GB: two nodes of eight 910B, or one of sixteen dies; half of it does not', () => {
    const w8a8 = { quantise: 'w8a8', batch: 16 } as const;
    const two = deploymentPlan(describeModel(config('DeepSeek-V3')), { ...asked, ...w8a8, target: 'ascend:910b3', devices: 16, nodes: 2 });
    expect(two.model.bytes / 1e9).toBeGreaterThan(685);
    expect(two.model.bytes / 1e9).toBeLessThan(705);
    // docs of vLLM Ascend: --data-parallel-size 2 --tensor-parallel-size 8 --enable-expert-parallel
    expect(two.rows.filter(r => r.fits).map(r => r.name)).toContain('tp=8,dp=2,pp=1,ep=16');
    expect(fits('DeepSeek-V3', { ...w8a8, target: 'ascend:910c', devices: 16 })).toContain('tp=8,dp=2,pp=1,ep=16');
    expect(fits('DeepSeek-V3', { ...w8a8, target: 'ascend:910b3', devices: 8 })).toEqual([]);
    expect(fits('DeepSeek-V3', { ...w8a8, target: 'ascend:910c', devices: 8 })).toEqual([]);
  });
  it('V3 in FP8: eight H200, and not four, nor eight H100', () => {
    expect(fits('DeepSeek-V3', { devices: 8 })).toContain('tp=8,dp=1,pp=1,ep=1');
    expect(fits('DeepSeek-V3', { devices: 4 })).toEqual([]);
    expect(fits('DeepSeek-V3', { target: 'cuda:h100', devices: 8 })).toEqual([]);
    expect(fits('DeepSeek-V3', { target: 'cuda:h100', devices: 16 })).toContain('tp=16,dp=1,pp=1,ep=1');
  });
  it('FP8 cannot go to 910C: the refusal of the engine comes first', () => {
    expect(refusal(() => fits('DeepSeek-V3', { target: 'ascend:910c', quantise: 'none', devices: 16 }))).toMatch(/^HK4501/);
  });
  it('int8 on cards of 32 GB: four cards of a mesh share matrices, and 16 cards are too few', () => {
    const names = fits('DeepSeek-V3', { target: 'biren:br106b', quantise: 'int8', devices: 32, batch: 1, mtp: 'drop', context: 4096 });
    expect(names).toContain('tp=4,dp=1,pp=8,ep=4');
    expect(names.filter(n => /tp=(8|16|32)/.test(n))).toEqual([]);
    expect(fits('DeepSeek-V3', { target: 'biren:br106b', quantise: 'int8', devices: 16 })).toEqual([]);
    const p = deploymentPlan(describeModel(config('DeepSeek-V3')), { ...asked, target: 'biren:br106b', quantise: 'int8', devices: 32 });
    expect(p.rows.every(r => r.estimate === null && r.missing.some(m => m === 'memory bandwidth of biren:br106b'))).toBe(true);
    expect(p.left.map(l => l.why).join(' ')).toContain('the 4 devices that fast links join');
  });
});

describe('estimates', () => {
  it('experts that a batch reaches', () => {
    expect(reached(256, 8, 1)).toBeCloseTo(8, 10);
    expect(reached(256, 8, 10000)).toBeCloseTo(256, 10);
    expect(reached(256, 8, 32)).toBeCloseTo(256 * (1 - (1 - 8 / 256) ** 32), 9);
  });
  it('more of what is scarce is never slower, and more work never faster', () => {
    const d = describeModel(config('DeepSeek-V2-Lite'));
    const step = (more: Partial<PlanOptions>): number =>
      deploymentPlan(d, { ...asked, devices: 8, parallel: 'tp=8', batch: 8, ...more }).rows[0]!.estimate!.token;
    const with_ = (name: string, t: object): string => {
      writeFileSync(join(work, `${name}.json`), JSON.stringify({ format: 'hkgai-topology-1', ...t }));
      return join(work, `${name}.json`);
    };
    expect(step({ topology: with_('fast', { memoryBandwidth: 9.6e12 }) })).toBeLessThan(step({}));
    expect(step({ topology: with_('slow', { peak: { bf16: 1e13 } }) })).toBeGreaterThan(step({}));
    expect(step({ topology: with_('thin', { inNode: [{ name: 'a wire', bytesPerSecond: 1e9 }] }) })).toBeGreaterThan(step({}));
    expect(step({ batch: 64 })).toBeGreaterThan(step({}));
    expect(step({ context: 32768 })).toBeGreaterThan(step({}));
    expect(step({ kv: 'fp8', context: 65536 })).toBeLessThan(step({ context: 65536 }));
  });
  it('goals order rows: latency by the next token, throughput by all tokens, devices by their number', () => {
    const d = describeModel(config('DeepSeek-V4-Flash'));
    const of = (goal: PlanOptions['goal']) => deploymentPlan(d, { ...asked, devices: 8, goal }).rows.filter(r => r.fits);
    const steps = of('latency').map(r => r.estimate!.token);
    expect(steps).toEqual([...steps].sort((a, b) => a - b));
    const rates = of('throughput').map(r => -r.estimate!.decode);
    expect(rates).toEqual([...rates].sort((a, b) => a - b));
    const counts = of('devices').map(r => r.parallel.tp * r.parallel.dp * r.parallel.pp);
    expect(counts).toEqual([...counts].sort((a, b) => a - b));
    expect(counts[0]).toBeLessThan(8);
  });
  it('what nobody says is named, for whatever a way would need, and no speed is made of it', () => {
    const d = describeModel(config('DeepSeek-V2-Lite'));
    const room = (t: object): string => {
      writeFileSync(join(work, 'partial.json'), JSON.stringify({ format: 'hkgai-topology-1', memory: 8e10, devicesPerNode: 4, ...t }));
      return join(work, 'partial.json');
    };
    const all = { memoryBandwidth: 2e12, peak: { bf16: 3e14 }, inNode: [{ name: 'a wire', bytesPerSecond: 1e11 }] };
    const missing = (parallel: string, t: object, nodes = 1): readonly string[] => {
      const [r] = deploymentPlan(d, { ...asked, target: 'cuda', topology: room(t), parallel, nodes }).rows;
      expect(r!.estimate === null).toBe(r!.missing.length > 0);
      if (r!.estimate)
        for (const n of [r!.estimate.token, r!.estimate.prefill, r!.estimate.first]) expect(n > 0 && Number.isFinite(n)).toBe(true);
      return r!.missing;
    };
    for (const way of ['tp=1', 'tp=4', 'pp=4', 'dp=4', 'dp=4,ep=4', 'tp=2,pp=2']) expect(missing(way, all)).toEqual([]);
    expect(missing('tp=4', { ...all, inNode: [] })).toEqual(['rate within a node of cuda:generic']);
    expect(missing('pp=4', { ...all, inNode: [] })).toEqual(['rate within a node of cuda:generic']);
    expect(missing('dp=4,ep=4', { ...all, inNode: [] })).toEqual(['rate within a node of cuda:generic']);
    expect(missing('tp=1', { ...all, inNode: [] })).toEqual([]);
    expect(missing('tp=1', { ...all, peak: {} })).toEqual(['bf16 rate of cuda:generic']);
    expect(missing('tp=1', { ...all, memoryBandwidth: undefined })).toEqual(['memory bandwidth of cuda:generic']);
    expect(missing('tp=4,dp=2', all, 2)).toEqual([]);
    expect(missing('tp=4,dp=2,ep=8', all, 2)).toEqual(['rate between nodes of cuda:generic']);
    expect(missing('tp=4,pp=2', all, 2)).toEqual(['rate between nodes of cuda:generic']);
    expect(missing('tp=2', { ...all, betweenNodes: [{ name: 'a road', bytesPerSecond: 1e10 }] }, 2)).toEqual([]);
  });
  it('energy and cost are of the watts and the price that were given, for a chip or for all', () => {
    const d = describeModel(config('DeepSeek-V2-Lite'));
    const [r] = deploymentPlan(d, { ...asked, devices: 8, parallel: 'tp=8', power: ['700'], price: ['1', 'cuda:h200=3'] }).rows;
    const hours = 1e6 / r!.estimate!.decode / 3600;
    expect(r!.energy).toBeCloseTo(hours * 8 * 0.7, 6);
    expect(r!.cost).toBeCloseTo(hours * 8 * 3, 6);
    expect(deploymentPlan(d, { ...asked, devices: 8, parallel: 'tp=8' }).rows[0]!.cost).toBeNull();
  });
  it('a comparison has each chip with its own recipe, and says what is not known', () => {
    const c = compareChips(describeModel(config('DeepSeek-V3')), ['cuda:h20', 'ascend:910c', 'biren:br106b'], {
      ...asked,
      price: ['cuda:h20=2'],
    });
    expect(c.chips.map(x => [x.target, x.recipe, x.row !== null])).toEqual([
      ['cuda:h20', 'none', true],
      ['ascend:910c', 'w8a8', true],
      ['biren:br106b', 'bf16', true],
    ]);
    expect(c.chips[0]!.row!.cost).toBeGreaterThan(0);
    expect(c.chips[1]!.row!.cost).toBeNull();
    expect(c.chips[2]!.missing).toContain('memory bandwidth of biren:br106b');
    expect(c.chips[2]!.row!.estimate).toBeNull();
  });
});

describe('what is asked', () => {
  it('a way as text', () => {
    expect(parallelOf('ep=16,tp=8,pp=1,dp=2')).toEqual({ tp: 8, dp: 2, pp: 1, ep: 16, redundant: 0, nodes: null, plan: null });
    expect(parallelOf('tp=8, nodes=2')).toEqual({ tp: 8, dp: 1, pp: 1, ep: null, redundant: 0, nodes: 2, plan: null });
    expect(placed(parallelOf('ep=16,tp=8,dp=2'), 8)).toEqual({ tp: 8, dp: 2, pp: 1, ep: 16, redundant: 0, nodes: 2, devicesPerNode: 8 });
    expect(refusal(() => parallelOf('tp=8,tp=4,ep=x,zp=2,,pp=0'))).toBe(
      [
        'tp is said twice',
        'ep is a whole number from 1 to 65536, not "x"',
        '"zp" is none of tp, dp, pp, ep, redundant, nodes',
        'a word is empty',
        'pp is a whole number from 1 to 65536, not "0"',
      ]
        .map(
          w =>
            `HK2701 | --parallel tp=8,tp=4,ep=x,zp=2,,pp=0: ${w} | Write it as tp=8,dp=2,pp=1,ep=16, with redundant=N and nodes=N where wanted; or take a row of a plan, as PLAN.json#2.`,
        )
        .join('\n'),
    );
    expect(refusal(() => parallelOf('tp=8,dp=2,ep=4'))).toContain(
      'ep is 1 (each expert cut by tp) or tp times dp, 16 here (experts dealt whole), not 4',
    );
    expect(refusal(() => parallelOf('tp=8,redundant=8'))).toContain('redundant experts need experts that are dealt whole');
    expect(refusal(() => placed(parallelOf('tp=8,nodes=3'), 8))).toMatch(/^HK2706 \| 8 devices cannot stand on 3 equal nodes/);
    expect(refusal(() => placed(parallelOf('tp=16,nodes=1'), 8))).toMatch(
      /^HK2702 \| tp=16,dp=1,pp=1,ep=1 is for 16 devices, but there are 8 on 1 node/,
    );
  });
  it('what does not fit the model, each with its reason', () => {
    const { shape } = shapeOf(describeModel(config('DeepSeek-V3')), asked);
    const why = (text: string, device: Device | null = null): string => {
      const found = checkParallel(shape, placed(parallelOf(text), 8), device);
      return found.map(p => `${p.code} ${p.what.replace(/^.* this model: /, '')}`).join('\n');
    };
    expect(why('tp=8')).toBe('');
    expect(why('tp=8,dp=2,ep=16')).toBe('');
    expect(why('tp=3')).toContain('HK2703 128 attention heads cannot be dealt to 3 ranks: tp is to divide them');
    expect(why('tp=32')).toContain('expert cut by 32 has 64 outputs a rank, which are no whole runs of 128 in f8e4m3[128x128]f32');
    expect(why('tp=8,dp=3,ep=24')).toContain('256 experts cannot be dealt evenly to 24 ranks: redundant=8 would do');
    expect(why('tp=8,dp=3,ep=24,redundant=8')).toBe('');
    expect(why('pp=62,nodes=31')).toContain('61 layers cannot fill 62 stages');
    const dense = shapeOf(describeModel(config('DeepSeek-R1-Distill-Llama-70B')), { ...asked, quantise: 'bf16' }).shape;
    const of = (text: string): readonly string[] => checkParallel(dense, placed(parallelOf(text), 8), null).map(p => p.what);
    expect(of('tp=8')).toEqual([]);
    expect(of('tp=2,ep=2')).toEqual(['tp=2,dp=1,pp=1,ep=2 does not fit this model: it has no routed experts: ep is 1']);
    // groups of int4: 2048 / 32 is half a group of 128
    const int4 = shapeOf(describeModel(config('DeepSeek-V3')), { ...asked, quantise: 'w4a16-g128' }).shape;
    expect(
      checkParallel(int4, placed(parallelOf('tp=32'), 8), null)
        .map(p => p.what)
        .join('\n'),
    ).toContain('expert cut by 32 has 64 inputs a rank, which are no whole runs of 128 in int4 g128 bf16');
    const v4 = shapeOf(describeModel(config('DeepSeek-V4-Flash')), asked).shape;
    expect(
      checkParallel(v4, placed(parallelOf('tp=16'), 8), null)
        .map(p => p.what)
        .join('\n'),
    ).toContain('8 groups of outputs cannot be dealt to 16 ranks');
  });
  it('options that cannot be', () => {
    const d = describeModel(config('DeepSeek-V2-Lite'));
    const of = (more: Partial<PlanOptions>): string => refusal(() => deploymentPlan(d, { ...asked, ...more }));
    expect(of({ devices: 9, nodes: 2 })).toMatch(/^HK2706/);
    expect(of({ devices: 127 })).toMatch(/^HK2706|^HK2710/);
    expect(of({ devices: 8, target: 'cuda' })).toMatch(/^HK2705 \| Nothing is known of cuda:generic as a device/);
    // every chip of the target of which something is known, whichever of them was asked for
    for (const target of ['ascend', 'ascend:910b'])
      for (const chip of ['910b1', '910b4', '910c', '310p', '950dt'])
        expect(of({ devices: 8, target, quantise: 'w8a8' })).toMatch(
          new RegExp(`Chips of this target that are known: .*ascend:${chip}[,.]`),
        );
    expect(of({ devices: 8, context: 1e6 })).toMatch(/^HK2713/);
    expect(of({ devices: 8, price: ['cheap'] })).toMatch(/^HK2711 \| --price cheap/);
    expect(of({ devices: 8, price: ['ascend:910c=1'] })).toMatch(/^HK2711 .*the plan is of cuda:h200, not of ascend:910c/);
    expect(of({})).toMatch(/^HK2711 \| --devices is missing/);
    expect(of({ devices: 8, parallel: 'tp=16' })).toMatch(/^HK2702/);
    expect(of({ devices: 8, target: 'cpu', quantise: 'q8_0' })).toMatch(/^HK2712/);
    expect(of({ devices: 8, topology: join(work, 'nowhere.json') })).toMatch(/^HK3900/);
    expect(refusal(() => describeModel(join(work, 'nowhere')))).toMatch(/^HK3900/);
    for (const devices of [65537, 1e9, Number.MAX_SAFE_INTEGER]) expect(of({ devices })).toMatch(/^HK2718 .*more than a plan looks at/);
    expect(refusal(() => compareChips(d, ['cuda:h20'], { ...asked, devices: 1e9 }))).toMatch(/^HK2718/);
    expect(refusal(() => placed(parallelOf('tp=256,dp=257'), null))).toMatch(/^HK2718 \| 65792 devices/);
    for (const price of ['1e308', '-1', 'cuda:h200=1e10'])
      expect(of({ devices: 8, price: [price] })).toMatch(/^HK2711 \| --price .*a number from 0 to/);
    expect(of({ devices: 8, power: ['1e6'] })).toMatch(/^HK2711 \| --power 1e6: a number from 0 to 100000/);
    for (const imbalance of [0, 0.99, 1e300]) expect(of({ devices: 8, imbalance })).toMatch(/^HK2711 \| --imbalance/);
    expect(of({ parallel: 'dp=8,ep=8,redundant=456' })).toMatch(/^HK2703 .*456 replicas are more than 8 ranks have room for/);
    expect(of({ parallel: 'dp=8,ep=8,redundant=448' })).toBe('not refused');
    expect(refusal(() => deploymentPlan(describeModel(config('Kimi-K2.5')), { ...asked, target: 'cuda:h20', devices: 8 }))).toMatch(
      /^HK2715 \| config.json says that weights are in compressed-tensors/,
    );
  });
  it('what engines do otherwise is not listed, and said where it is asked for', () => {
    const d = describeModel(config('DeepSeek-V2-Lite'));
    const p = deploymentPlan(d, { ...asked, devices: 8 });
    expect(p.rows.filter(r => r.parallel.dp > 1 && r.parallel.ep === 1)).toEqual([]);
    expect(p.rows.map(r => r.name)).toContain('tp=1,dp=8,pp=1,ep=8');
    expect(p.left.map(l => l.why).join('\n')).toContain('engines cut each expert by tp times dp');
    const one = deploymentPlan(d, { ...asked, parallel: 'dp=8' });
    expect([one.rows.length, one.notes.filter(n => n.startsWith('With ep=1 engines cut')).length]).toEqual([1, 1]);
    const v3 = describeModel(config('DeepSeek-V3'));
    const drafting = deploymentPlan(v3, { ...asked, devices: 8, drafts: '1:0.7' });
    expect(new Set(drafting.rows.map(r => r.parallel.pp))).toEqual(new Set([1]));
    expect(drafting.left.map(l => l.why)).toContain('no engine drafts with MTP blocks where layers are dealt to stages.');
    // a model without experts is replicated whole
    const dense = deploymentPlan(describeModel(config('DeepSeek-R1-Distill-Llama-8B')), { ...asked, devices: 8 });
    expect(dense.rows.map(r => r.name)).toContain('tp=1,dp=8,pp=1,ep=1');
  });
  it('fewest devices stand on nodes as they were asked for', () => {
    const d = describeModel(config('DeepSeek-V3'));
    const p = deploymentPlan(d, { ...asked, target: 'cuda:h20', devices: 32, nodes: 8, goal: 'devices' });
    expect(new Set(p.rows.map(r => r.parallel.devicesPerNode).filter(n => n > 4))).toEqual(new Set());
  });
  it('a row of a saved plan is for its checkpoint alone', () => {
    const dir = join(work, 'saved');
    cpSync(join(fixtures, 'hkgai-nano'), dir, { recursive: true });
    const d = describeModel(dir);
    const file = join(work, 'plan.json');
    const plan = deploymentPlan(d, { ...asked, quantise: 'bf16', devices: 2 });
    writeFileSync(file, JSON.stringify(plan));
    expect(
      placed(
        parallelAsked(`${file}#2`, () => d.digest),
        8,
      ),
    ).toEqual(plan.rows[1]!.parallel);
    expect(
      placed(
        parallelAsked(file, () => d.digest),
        null,
      ),
    ).toEqual(plan.rows[0]!.parallel);
    const of = (text: string, digest = d.digest): string => refusal(() => parallelAsked(text, () => digest)).replaceAll(work, '');
    expect(of(`${file}#99`)).toBe(
      `HK2709 | /plan.json has no row 99 | Its rows are 1 to ${plan.rows.length}, in the order of the table. | Name a row as PLAN.json#2.`,
    );
    expect(of(`${file}#x`)).toMatch(/^HK2709/);
    expect(of(file, describeModel(join(fixtures, 'hkgai-nano-fp8')).digest)).toMatch(
      /^HK2708 \| \/plan.json is a plan for another checkpoint: its config.json is another/,
    );
    expect(of(file, { ...d.digest, headers: '00' })).toMatch(/^HK2708 .*its shards have other headers/);
    // a plan from config.json alone is one for any weights of that config
    mkdirSync(join(work, 'bare'));
    copyFileSync(join(dir, 'config.json'), join(work, 'bare/config.json'));
    writeFileSync(file, JSON.stringify(deploymentPlan(describeModel(join(work, 'bare')), { ...asked, quantise: 'bf16', devices: 2 })));
    expect(of(file)).toBe('not refused');
    for (const [text, what] of [
      ['{', 'the end where a key was expected'],
      ['{"format":"hkgai-plan-1","format":"hkgai-plan-1"}', 'the key "format" stands twice in one object'],
      [
        JSON.stringify({ ...plan, rows: [] }).replace(
          '"rows":[]',
          '"rows":[{"parallel":{"tp":1,"tp":2,"dp":1,"pp":1,"ep":1,"redundant":0,"nodes":1}}]',
        ),
        'the key "tp" stands twice in one object',
      ],
      [JSON.stringify({ ...plan, target: 'cuda:\u001b[2Jh200' }), 'it does not say which target it is for'],
      ['[]', 'its format is not "hkgai-plan-1"'],
      ['{"format":"hkgai-plan-1"}', 'it has no rows'],
      ['{"format":"hkgai-plan-1","rows":[]}', 'it does not say which model it is of'],
      [JSON.stringify({ ...plan, rows: [{ parallel: { tp: 0 } }] }), 'tp of row 1 is no whole number from 1 to 65536'],
      [
        JSON.stringify({ ...plan, rows: [{ parallel: { tp: 1, dp: 2, pp: 1, ep: 2, redundant: 1e12, nodes: 1 } }] }),
        'redundant of row 1 is no whole number from 0 to 65536',
      ],
    ] as const) {
      writeFileSync(file, text);
      expect(of(file)).toContain(`HK2707 | /plan.json is no saved plan: ${what}`);
    }
  });
});

describe('hkgai plan', () => {
  const said = async (...args: readonly string[]): Promise<readonly [code: number, text: string]> => {
    let text = '';
    const write = jest.spyOn(process.stdout, 'write').mockImplementation(t => {
      text += String(t);
      return true;
    });
    try {
      return [await run(['plan', ...args], 'test'), text];
    } catch (e) {
      if (e instanceof Refusal) return [e.exit, e.problems.map(p => `${p.code} ${p.what}`).join('\n')];
      throw e;
    } finally {
      write.mockRestore();
    }
  };
  const lite = config('DeepSeek-V2-Lite');
  it('with devices prints rows, the fullest rank, what is left out, and what is assumed', async () => {
    const [code, text] = await said(lite, '--target', 'cuda:h20', '--devices', '4', '--rows', '2', '--power', '400', '--price', '2');
    expect(code).toBe(0);
    for (const part of [
      'DeepSeek-V2-Lite: 29.3 GiB as',
      'on 4 devices of cuda:h20, 1 node',
      'next token',
      'kWh/M',
      'cost/M',
      'Row 1, the fullest rank: weights ',
      'Estimates, not measurements',
      'memoryEfficiency',
    ])
      expect(text).toContain(part);
    expect(text.match(/^ ?\d+ {2}tp=/gm)).toHaveLength(2);
    expect(text).toMatch(/and \d+ more: --rows \d+, or --json/);
  });
  it('--json is a plan that --parallel takes; a row of it alone is that row', async () => {
    const [code, text] = await said(lite, '--target', 'cuda:h20', '--devices', '4', '--json');
    expect(code).toBe(0);
    const plan = JSON.parse(text) as DeploymentPlan;
    expect([plan.format, plan.devices, plan.assumed.length]).toEqual(['hkgai-plan-1', 4, Object.keys(usual).length]);
    const file = join(work, 'lite.json');
    writeFileSync(file, text);
    const [, one] = await said(lite, '--target', 'cuda:h20', '--parallel', `${file}#3`, '--json');
    expect((JSON.parse(one) as DeploymentPlan).rows).toEqual([plan.rows[2]]);
  });
  it('--rows limits --json too, and says so; rows keep their numbers', async () => {
    const all = JSON.parse((await said(lite, '-t', 'cuda:h20', '--devices', '8', '--goal', 'devices', '--json'))[1]) as DeploymentPlan;
    const some = JSON.parse(
      (await said(lite, '-t', 'cuda:h20', '--devices', '8', '--goal', 'devices', '--json', '--rows', '3'))[1],
    ) as DeploymentPlan;
    expect(all.rows.length).toBeGreaterThan(10);
    expect(some.rows).toEqual(all.rows.slice(0, 3));
    expect(some.notes).toEqual([...all.notes, `Of ${all.rows.length} rows these are the first 3.`]);
  });
  it('--redundant 0 is none', async () => {
    const rows = (text: string): DeploymentPlan['rows'] => (JSON.parse(text) as DeploymentPlan).rows;
    const [code, text] = await said(lite, '-t', 'cuda:h20', '--devices', '4', '--redundant', '0', '--json');
    expect(code).toBe(0);
    expect(new Set(rows(text).map(r => r.parallel.redundant))).toEqual(new Set([0]));
    expect(rows(text).some(r => r.parallel.ep > 1)).toBe(true);
  });
  it('energy is of --power, else of what the chip or the topology says, else unknown', async () => {
    const plan = async (...args: readonly string[]): Promise<DeploymentPlan> =>
      JSON.parse((await said(lite, '--devices', '2', '--json', ...args))[1]) as DeploymentPlan;
    const of = (p: DeploymentPlan) => [p.power?.value ?? null, p.rows[0]?.energy ?? null, p.notes.filter(n => n.startsWith('Energy is'))];
    const h20 = await plan('-t', 'cuda:h20');
    const watts = h20.power!.value;
    expect(watts).toBeGreaterThan(0);
    expect(h20.rows[0]!.energy).toBeCloseTo((2 * watts * 1e6) / h20.rows[0]!.estimate!.decode / 3.6e6, 9);
    expect(of(h20)[2]).toEqual([`Energy is of ${watts} W a device (${h20.power!.source}); --power takes another figure.`]);
    const own = await plan('-t', 'cuda:h20', '--power', String(2 * watts));
    expect([own.power, of(own)[2]]).toEqual([{ value: 2 * watts, source: '--power' }, []]);
    expect(own.rows[0]!.energy).toBeCloseTo(2 * h20.rows[0]!.energy!, 9);
    const room = join(work, 'power.json');
    writeFileSync(room, '{"format":"hkgai-topology-1","power":123}');
    const there = await plan('-t', 'cuda:h20', '--topology', room);
    expect([there.power, of(there)[2]]).toEqual([
      { value: 123, source: room },
      [`Energy is of 123 W a device (${room}); --power takes another figure.`],
    ]);
    // nothing is published of this one
    expect(of(await plan('-t', 'ascend:910c', '--quantise', 'w8a8'))).toEqual([null, null, []]);
    const [, text] = await said(lite, '--compare', 'cuda:h20', 'ascend:910c', '--power', 'ascend:910c=300');
    expect(text).toContain(`cuda:h20: Energy is of ${watts} W a device`);
    expect(text).not.toContain('ascend:910c: Energy is');
    expect(text).toMatch(/^kWh a million tokens +\d\S* +\d/m);
  });
  it('says by its exit code that nothing fits, and by how much not', async () => {
    const [code, text] = await said(config('DeepSeek-V3'), '--target', 'cuda:h20', '--devices', '2');
    expect(code).toBe(5);
    expect(text).toMatch(/too large by \d/);
  });
  it('says once which link between nodes is taken, what is not known and what to do where nothing fits', async () => {
    const link = /^Between nodes UB \(HCCS\) at 196 GB\/s a device is taken, not RoCE at 25 GB\/s: .*$/gm;
    const v3 = config('DeepSeek-V3');
    expect((await said(v3, '-t', 'ascend:910c', '--devices', '32'))[1].match(link)).toHaveLength(1);
    expect((await said(v3, '-t', 'ascend:910c', '--devices', '16'))[1]).not.toContain('Between nodes');
    const room = join(work, 'link.json');
    writeFileSync(room, JSON.stringify({ format: 'hkgai-topology-1', nodes: 2, betweenNodes: [{ name: 'RoCE', bytesPerSecond: 25e9 }] }));
    expect((await said(v3, '-t', 'ascend:910c', '--devices', '32', '--topology', room))[1]).not.toContain('Between nodes');
    const [code, text] = await said(v3, '-t', 'biren:br106b', '--devices', '32');
    expect(code).toBe(5);
    expect(text.match(/memory bandwidth of biren:br106b/g)).toHaveLength(1);
    expect(text).toContain('Nothing fits. --compare biren:br106b in place of --target and --devices looks for the fewest devices that do');
    expect(text).not.toContain('next token');
  });
  it('compares chips side by side', async () => {
    const [code, text] = await said(lite, '--compare', 'cuda:h20,ascend:910c', 'biren:br106b', 'ascend:910b', '--quantise', 'w8a8');
    expect(code).toBe(0);
    expect(text).toMatch(/^ +cuda:h20 +ascend:910c +biren:br106b +ascend:910b$/m);
    expect(text).toContain('biren:br106b: not known: memory bandwidth of biren:br106b');
    expect(text).toContain('biren:br106b: w8a8 is no recipe of it: its usual one is taken.');
    expect(text).toContain('ascend:910b: not known: all of ascend:910b');
    expect(text).toMatch(/^devices +1 +1 +\d +\?$/m);
  });
  it('compares chips each in a recipe of its own', async () => {
    const two = ['--compare', 'cuda:h20', 'ascend:910c', '--json'];
    const recipes = async (...args: readonly string[]) => {
      const [code, text] = await said(lite, ...two, ...args);
      return code === 0 ? (JSON.parse(text) as { chips: readonly { recipe: string }[] }).chips.map(c => c.recipe) : text;
    };
    expect(await recipes('--quantise', 'cuda:h20=w4a16,ascend:910c=w8a8')).toEqual(['w4a16', 'w8a8']);
    expect(await recipes('--quantise', 'cuda:h20=w4a16', '--quantise', 'w8a8')).toEqual(['w4a16', 'w8a8']);
    expect(await recipes('--quantise', 'w8a8')).toEqual(['w8a8', 'w8a8']);
    expect(await recipes('--quantise', 'biren:br106b=int8')).toBe(
      'HK2711 --quantise biren:br106b=int8: the plan is of cuda:h20, ascend:910c, not of biren:br106b',
    );
    expect(await recipes('--quantise', 'cuda:h20=')).toBe('HK2711 --quantise cuda:h20= names no recipe');
    // one that is asked of a chip by its name is refused where the chip has none of it
    const [, text] = await said(lite, ...two, '--quantise', 'cuda:h20=int9');
    const [h20] = (JSON.parse(text) as { chips: readonly { refused: readonly { what: string }[] }[] }).chips;
    expect(h20!.refused.map(p => p.what).join()).toContain('int9');
  });
  it('refuses options that mean nothing together', async () => {
    expect(await said(lite)).toEqual([2, `HK2716 ${lite} has no weights, and a plan of a compile counts theirs`]);
    expect(await said(lite, '--goal', 'latency')).toEqual([2, 'HK2714 --goal is of a plan of devices']);
    expect(await said(lite, '--devices', '2', '-t', 'cuda:h20', '-t', 'ascend')).toEqual([2, 'HK2711 A plan of devices is for one target']);
    expect(await said(lite, '--compare', 'cuda:h20', '--topology', 'x.json')).toEqual([2, 'HK2711 --compare names its chips itself']);
    expect(await said(lite, '--devices', '2', '--budget', '4')).toEqual([
      2,
      'HK2711 --budget is found by measuring weights, and a plan of devices reads none',
    ]);
    expect(await said(lite, '--devices', '2', '-t', 'cuda:h20', '--drafts', '1:2')).toEqual([
      2,
      'HK2711 --drafts 1:2 is not proposed:taken',
    ]);
    expect(await said(lite, '--devices', '2', '-t', 'cuda:h20', '--drafts', '1')).toEqual([
      2,
      'HK2711 --drafts needs an MTP block, and the model has none',
    ]);
  });
  it('drafts that are taken make tokens faster; uneven experts make them slower', () => {
    const d = describeModel(config('DeepSeek-V3'));
    const one = (more: Partial<PlanOptions>) =>
      deploymentPlan(d, { ...asked, parallel: 'tp=1,dp=8,ep=8', batch: 64, context: 4096, ...more }).rows[0]!.estimate!;
    expect(one({ drafts: '1:0.8' }).token).toBeLessThan(one({}).token);
    expect(one({ drafts: '1:0' }).token).toBeGreaterThan(one({}).token);
    expect(one({ imbalance: 2 }).token).toBeGreaterThan(one({ imbalance: 1 }).token);
  });
});

describe('a topology', () => {
  const schema = JSON.parse(readFileSync(here('src/topology.schema.json'), 'utf8')) as {
    readonly properties: Readonly<Record<string, { readonly description: string; readonly properties?: object }>>;
    readonly $defs: { readonly link: { readonly properties: object } };
  };
  it('has a schema with the fields that are read, each described', () => {
    expect(Object.keys(schema.properties).sort()).toEqual([...topologyFields].sort());
    expect(Object.keys(schema.properties.peak!.properties!).sort()).toEqual([...peakKinds].sort());
    expect(Object.keys(schema.$defs.link.properties)).toEqual([...linkFields]);
    for (const p of Object.values(schema.properties)) expect(p.description).toMatch(/\.$/);
    type Range = { readonly minimum?: number; readonly maximum?: number };
    const peak = schema.properties.peak!.properties as Readonly<Record<string, Range>>;
    const fields = { ...schema.properties, ...schema.$defs.link.properties } as Readonly<Record<string, Range>>;
    for (const [name, { least, most }] of Object.entries(ranges))
      for (const f of name === 'peak' ? Object.values(peak) : [fields[name]])
        expect([name, f?.minimum, f?.maximum]).toEqual([name, least, most]);
  });
  it('of the page is read', () => {
    const text = /```json\n([\s\S]*?)```/.exec(readFileSync(here('docs/plan.md'), 'utf8'))![1] as string;
    const t = parseTopology(text, 'room.json');
    expect([t.name, t.nodes, t.devicesPerNode, t.device.betweenNodes![0]!.bytesPerSecond!.value]).toEqual([
      'two servers on RoCE',
      2,
      16,
      25e9,
    ]);
  });
  it('stands in place of what is known of the chip, and what it does not say stays', () => {
    const t = parseTopology('{"format":"hkgai-topology-1","memory":1e11,"nodes":2,"devicesPerNode":4,"peak":{"int8":5e14}}', 'room.json');
    const d = deviceWith({ memory: null, peak: { bf16: null }, memoryBandwidth: { value: 7, source: 's' } } as unknown as Device, t)!;
    expect([d.memory!.value, d.memory!.source, d.memoryBandwidth!.value, d.peak]).toEqual([
      1e11,
      'room.json',
      7,
      { bf16: null, int8: { value: 5e14, source: 'room.json' } },
    ]);
    expect(deviceWith(null, t)!.memoryBandwidth).toBeNull();
    writeFileSync(join(work, 'room.json'), '{"format":"hkgai-topology-1","memory":2e11,"nodes":2,"devicesPerNode":4}');
    const p = deploymentPlan(describeModel(config('DeepSeek-V3')), { ...asked, target: 'cuda', topology: join(work, 'room.json') });
    expect([p.devices, p.nodes, p.rows[0]!.fits, p.rows[0]!.estimate]).toEqual([8, 2, true, null]);
    expect(p.rows[0]!.missing).toContain('memory bandwidth of cuda:generic');
  });
  it('at the ends of what is believed gives numbers', () => {
    const room = join(work, 'ends.json');
    for (const end of ['least', 'most'] as const) {
      const { memoryBandwidth, bytesPerSecond, latency, power } = ranges;
      const peak = Object.fromEntries(peakKinds.map(k => [k, ranges.peak[end]]));
      const link = { name: 'x', bytesPerSecond: bytesPerSecond[end], latency: latency[end === 'least' ? 'most' : 'least'] };
      const said = { nodes: 2, devicesPerNode: 4, memory: ranges.memory.most, memoryBandwidth: memoryBandwidth[end], power: power.most };
      writeFileSync(room, JSON.stringify({ format: 'hkgai-topology-1', ...said, peak, inNode: [link], betweenNodes: [link] }));
      const p = deploymentPlan(describeModel(config('DeepSeek-V3')), { ...asked, topology: room, price: ['1e9'] });
      for (const r of p.rows)
        for (const n of [r.energy, r.cost, ...Object.values(r.estimate!).filter(v => typeof v === 'number')])
          expect([r.name, Number.isFinite(n) && (n as number) > 0]).toEqual([r.name, true]);
    }
  });
  it('has no more nodes, and no more devices on one, than it says', () => {
    const room = join(work, 'small-room.json');
    const d = describeModel(config('DeepSeek-V3'));
    const of = (text: string, more: Partial<PlanOptions>): string => {
      writeFileSync(room, `{"format":"hkgai-topology-1",${text}}`);
      return refusal(() => deploymentPlan(d, { ...asked, target: 'cuda:h20', topology: room, ...more }));
    };
    const two = '"name":"two","nodes":2,"devicesPerNode":8';
    expect(of(two, { devices: 16 })).toBe('not refused');
    expect(of(two, { devices: 64 })).toMatch(/^HK2719 \| The topology two has 2 nodes, and 8 are asked for/);
    expect(of(two, { devices: 16, nodes: 4 })).toMatch(/^HK2719 .*2 nodes, and 4/);
    expect(of(two, { devices: 16, nodes: 1 })).toMatch(/^HK2719 .*8 devices a node, and 16/);
    expect(of(two, { parallel: 'dp=32,ep=32' })).toMatch(/^HK2719 .*2 nodes, and 4/);
    expect(of('"nodes":65536,"devicesPerNode":65536', {})).toMatch(/^HK2718 .*more than a plan looks at/);
    expect(of('"name":"a\\u001b[31m"', { devices: 8 })).toMatch(/^HK2704 .*name is text on one line/);
  });
  it('with faults has each with its line', () => {
    const text =
      '{\n"format": "hkgai-topology-2",\n"memory": -1,\n"nodes": 1.5,\n"speed": 3,\n"peak": {"fp9": 1},\n"inNode": [{"name": "x"}]\n}';
    const found = refusal(() => parseTopology(text, 'room.json'));
    for (const what of [
      'format is to be "hkgai-topology-1"',
      'memory is a number of bytes from 1e6 to 1e15',
      'nodes is a whole number from 1 to 65536',
      '"speed" is no field of a topology',
      '"fp9" is no field of peak',
      'a link says bytesPerSecond',
    ])
      expect(found).toContain(`HK2704 | room.json: ${what}`);
    expect(refusal(() => parseTopology('[', 'room.json'))).toMatch(/^HK2704/);
    for (const [field, what] of [
      ['"memory": 1e308', 'memory is a number of bytes from 1e6 to 1e15'],
      ['"memory": 80', 'memory is a number of bytes from 1e6 to 1e15'],
      ['"memoryBandwidth": 1e-300', 'memoryBandwidth is a number of bytes a second from 1e6 to 1e15'],
      ['"peak": {"bf16": 1e300}', 'bf16 is a number of operations a second from 1e6 to 1e21'],
      ['"inNode": [{"name": "x", "bytesPerSecond": 0}]', 'bytesPerSecond is a number of bytes a second from 1e3 to 1e15'],
      ['"inNode": [{"name": "x", "bytesPerSecond": 1e9, "latency": 1e9}]', 'latency is a number of seconds from 0 to 10'],
      ['"power": 1e300', 'power is a number of watts from 0.1 to 1e5'],
    ] as const)
      expect(refusal(() => parseTopology(`{"format":"hkgai-topology-1",${field}}`, 'room.json'))).toBe(
        `HK2704 | room.json: ${what} | src/topology.schema.json has the fields of a topology; docs/plan.md shows one.`,
      );
    expect(refusal(() => parseTopology('7', 'room.json'))).toMatch(/^HK2704 \| room.json: a topology is an object/);
  });
});
