// Graphs of ranks against the whole model's: every recorded case, dealt in every way, run together by the reference. And what is refused, what the
// ranks hold, and what holds of their exchanges.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from '@jest/globals';
import { Builder } from '../ir/build.js';
import { type Graph, type Limits, tokens, type Value, type ValueOf } from '../ir/graph.js';
import { parseGraph } from '../ir/parse.js';
import { printGraph } from '../ir/print.js';
import { Refusal } from '../ir/problem.js';
import { bf16, f32, matrixBytes, type Storage, scaled, storageName } from '../ir/storage.js';
import { verify } from '../ir/verify.js';
import { verifyRanks } from '../ir/verify-ranks.js';
import { decodeGraph, encodeGraph } from '../src/bundle/graph-proto.js';
import { parseConfig } from '../src/checkpoint/config.js';
import { openCheckpoint } from '../src/checkpoint/shards.js';
import { rankText, spread } from '../src/inspect.js';
import { buildModel, defaultOptions } from '../src/models/index.js';
import { readWeight } from '../src/numeric/decode.js';
import { chooseKernels } from '../src/passes/choose-kernels.js';
import { runPasses } from '../src/passes/index.js';
import { parseParallel, type ShardOptions, shard } from '../src/passes/shard.js';
import { createReference, type Result, type Step } from '../src/reference/index.js';
import { createRanksReference } from '../src/reference/ranks.js';
import { fixtures, recorded, tinyCases, weightsOf, worst } from './golden-cases.js';

/** Largest difference of a value over its largest magnitude. Sums are added in another order; nothing else differs. */
const bound = 2e-5;

type Way = readonly [parallel: string, dispatch?: ShardOptions['dispatch'], passes?: 'before' | 'after'];
const ways: readonly Way[] = [
  ['tp=2'],
  ['tp=2', 'send', 'before'],
  ['tp=2', 'send', 'after'],
  ['tp=3'],
  ['tp=6'],
  ['ep=2,tp=2'],
  ['ep=2'],
  ['ep=2', 'gather'],
  ['ep=4'],
  ['tp=4,ep=4'],
  ['tp=2,ep=4'],
  ['tp=2,ep=4', 'gather', 'before'],
  ['pp=2'],
  ['tp=2,pp=2', 'send', 'before'],
  ['pp=3,ep=2'],
  ['tp=2,pp=2,ep=4'],
];

function graphOf(name: string, tokens = 256): Graph {
  const c = openCheckpoint(join(fixtures, name));
  const limits: Limits = { tokens, wanted: tokens, sequences: 3, context: 512 };
  return buildModel(c.config, c.tensors, { ...defaultOptions(c.config), limits }).graph;
}
const configGraph = (name: string): Graph =>
  buildModel(parseConfig(readFileSync(join(fixtures, 'configs', `${name}.json`), 'utf8'), name), null).graph;

const rowsFrom = (ids: readonly number[], from: number, to: number): Step => ({
  ids: ids.slice(from, to),
  positions: Array.from({ length: to - from }, (_, i) => from + i),
  sequences: Array<number>(to - from).fill(0),
  nextIds: Array.from({ length: to - from }, (_, i) => ids[from + i + 1] ?? 0),
});
/** A prompt and two tokens after it, so that caches are read again. */
const stepsOf = (ids: readonly number[]): readonly Step[] => {
  const n = ids.length;
  return [rowsFrom(ids, 0, n - 2), rowsFrom(ids, n - 2, n - 1), rowsFrom(ids, n - 1, n)];
};
const far = (got: Result, want: Result): number => {
  let most = 0;
  for (const x of want.data) most = Math.max(most, Math.abs(x));
  return worst(got.data, want.data) / most;
};
const routedOf = (graph: Graph): readonly string[] => graph.values.filter(v => /^layers\.\d+\.indices$/.test(v.name)).map(v => v.name);

describe('ranks give what the whole model gives', () => {
  for (const name of tinyCases)
    it(name, async () => {
      const dir = join(fixtures, 'tiny', name);
      const golden = recorded(join(dir, 'golden.safetensors'));
      const sequences = ['seq0', 'seq1', 'seq2'].map(s => [...golden.get(`${s}.input_ids`)!.data]);
      const graph = graphOf(`tiny/${name}`, Math.max(...sequences.map(ids => ids.length)));
      const names = [...Object.keys(graph.outputs), ...routedOf(graph)];
      const whole = await createReference(graph, weightsOf(dir));
      const want = sequences.map(ids => {
        whole.reset();
        return stepsOf(ids).map(s => whole.step(s, names));
      });
      whole.dispose();
      for (const [text, dispatch = 'send', passes] of ways) {
        const p = parseParallel(text);
        if (p.ep > 1 && routedOf(graph).length === 0) continue;
        const dealt = shard(passes === 'before' ? runPasses(graph) : graph, p, { uneven: true, dispatch }).ranks;
        const ranks = passes === 'after' ? dealt.map(g => runPasses(g)) : dealt;
        expect(verifyRanks(ranks)).toEqual([]);
        const reference = await createRanksReference(ranks, weightsOf(dir));
        // each replica is asked something else
        const replica = (r: number): number => Math.floor(r / p.tp) % p.dp;
        const sequence = (r: number): number => replica(r) % sequences.length;
        for (const i of [0, 1, 2]) {
          const got = reference.step(
            ranks.map((_, r) => stepsOf(sequences[sequence(r)]!)[i]!),
            names,
          );
          const seen = new Set<string>();
          got.forEach((values, r) => {
            for (const [value, result] of values) {
              const right = want[sequence(r)]![i]!.get(value)!;
              seen.add(`${value} of ${replica(r)}`);
              const at = `${text} ${dispatch} ${passes ?? ''}: ${value} of rank ${r}, step ${i}`;
              if (right.data instanceof Int32Array) expect([at, result.data]).toEqual([at, right.data]);
              else expect([at, far(result, right) <= bound]).toEqual([at, true]);
            }
          });
          expect(seen.size).toBe(names.length * p.dp);
        }
        reference.dispose();
      }
    }, 600_000);
});

describe('recorded cases whose blocks are too large to cut', () => {
  /** Places [from, from + size) of numbers of a shape. */
  function part(all: Float32Array, of: readonly number[], from: readonly number[], size: readonly number[]): Float32Array {
    const [a, b, c] = [...Array<number>(3 - of.length).fill(1), ...of] as [number, number, number];
    const [a0, b0, c0] = [...Array<number>(3 - of.length).fill(0), ...from] as [number, number, number];
    const [n, m, k] = [...Array<number>(3 - of.length).fill(1), ...size] as [number, number, number];
    expect([a0 + n <= a, b0 + m <= b, c0 + k <= c]).toEqual([true, true, true]);
    const rows = Array.from({ length: n * m }, (_, i) => ((a0 + Math.floor(i / m)) * b + b0 + (i % m)) * c + c0);
    return Float32Array.from(rows.flatMap(at => [...all.subarray(at, at + k)]));
  }
  for (const name of ['v3-tiny-fp8', 'v3-tiny-fp8-ue8m0', 'v4-tiny-fp8fp4'])
    it(`${name}: the same numbers in f32 are cut everywhere`, async () => {
      const dir = join(fixtures, 'tiny', name);
      const coded = graphOf(`tiny/${name}`, 64);
      const original = new Map(coded.values.map(v => [v.origin.role, v]));
      const now = new Map<Value, Value>();
      for (const v of coded.values) {
        const inputs = Object.fromEntries(Object.entries(v.inputs as Record<string, Value>).map(([k, i]) => [k, now.get(i)!]));
        const type = v.op === 'weight' && v.type.storage.kind === 'scaled' ? { ...v.type, storage: f32 } : v.type;
        now.set(v, { ...v, inputs, type } as unknown as Value);
      }
      const outputs = Object.fromEntries(Object.entries(coded.outputs).map(([n, v]) => [n, now.get(v)!]));
      const graph: Graph = { ...coded, values: [...now.values()], outputs };
      const read = weightsOf(dir);
      const numbers = (v: ValueOf<'weight'>): Float32Array | Int32Array => {
        const whole = original.get(v.origin.role) as ValueOf<'weight'>;
        const all = read(whole);
        const { slice } = v.origin;
        return slice ? part(all as Float32Array, slice.of, slice.from, v.type.shape as readonly number[]) : all;
      };
      const ids = [...recorded(join(dir, 'golden.safetensors')).get('seq0.input_ids')!.data];
      const reference = await createReference(coded, read);
      const names = [...Object.keys(graph.outputs), ...routedOf(graph)];
      const want = stepsOf(ids).map(s => reference.step(s, names));
      reference.dispose();
      for (const text of ['tp=2', 'tp=2,ep=2', 'tp=2,pp=2,ep=4']) {
        const { ranks, whole } = shard(graph, parseParallel(text));
        expect(whole).toEqual([]);
        const together = await createRanksReference(ranks, numbers);
        for (const [i, step] of stepsOf(ids).entries())
          for (const values of together.step(
            ranks.map(() => step),
            names,
          ))
            for (const [value, result] of values) {
              const right = want[i]!.get(value)!;
              if (right.data instanceof Int32Array) expect([text, value, result.data]).toEqual([text, value, right.data]);
              else expect([text, value, far(result, right) <= bound]).toEqual([text, value, true]);
            }
        together.dispose();
      }
    });
});

describe('calls of several sequences', () => {
  /** Rows of two sequences beside each other; the logits of some of them. */
  const mixed = (a: readonly number[], b: readonly number[], from: readonly [number, number]): Step => {
    const rows = [a, b].flatMap((ids, slot) => ids.map((id, i) => ({ id, slot, position: from[slot]! + i, next: ids[i + 1] ?? 0 })));
    return {
      ids: rows.map(r => r.id),
      positions: rows.map(r => r.position),
      sequences: rows.map(r => r.slot),
      nextIds: rows.map(r => r.next),
      wanted: [1, a.length],
    };
  };
  const idle: Step = { ids: [0], positions: [0], sequences: [2], nextIds: [0] };
  for (const name of ['v3-tiny-bf16', 'v32-tiny', 'v4-tiny'])
    for (const dispatch of ['send', 'gather'] as const)
      it(`${name}: one replica has them, the other brings a made-up row (${dispatch})`, async () => {
        const dir = join(fixtures, 'tiny', name);
        const graph = graphOf(`tiny/${name}`, 32);
        const names = Object.keys(graph.outputs);
        const whole = await createReference(graph, weightsOf(dir));
        const { ranks } = shard(graph, parseParallel('tp=2,ep=4'), { uneven: true, dispatch });
        const reference = await createRanksReference(ranks, weightsOf(dir));
        for (const step of [mixed([5, 7, 9, 11, 13, 15, 17], [8, 6, 4], [0, 0]), mixed([19, 21], [2, 3], [7, 3])]) {
          const want = whole.step(step, names);
          for (const busy of [0, 1]) {
            // each replica keeps its own caches, so each is brought the step once
            const got = reference.step(
              ranks.map((_, r) => (Math.floor(r / 2) === busy ? step : idle)),
              names,
            );
            for (const r of [2 * busy, 2 * busy + 1])
              for (const n of names) expect([n, r, far(got[r]!.get(n)!, want.get(n)!) <= bound]).toEqual([n, r, true]);
          }
        }
        whole.dispose();
        reference.dispose();
      });
});

/** A gated MLP on one table, with weights of a storage; bytes are made up, each tensor a file. */
function mlpOf(storage: Storage): { readonly graph: Graph; readonly weights: (v: ValueOf<'weight'>) => Float32Array | Int32Array } {
  const b = new Builder();
  const files = new Map<string, Uint8Array>();
  let seed = 7;
  const made = (size: number, element: string): Uint8Array => {
    const bytes = Uint8Array.from({ length: size }, () => {
      seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
      return seed >>> 24;
    });
    // positive scales near 1 and plain numbers below 2: a sum over many of them stays a number
    if (element === 'f32' || element === 'bf16')
      for (let i = element === 'f32' ? 3 : 1; i < size; i += element === 'f32' ? 4 : 2) bytes[i] = 0x3c;
    if (element === 'e8m0') for (let i = 0; i < size; i++) bytes[i] = 120 + (bytes[i]! & 3);
    if (element === 'f8e4m3') for (let i = 0; i < size; i++) bytes[i] = bytes[i]! & 0xbf;
    return bytes;
  };
  const weight = (name: string, rows: number, columns: number, s: Storage): Value => {
    const { codes, scales } = matrixBytes(s, rows, columns);
    files.set(name, made(codes, s.element));
    if (s.kind === 'scaled') files.set(`${name}.scale`, made(scales, s.scale));
    const span = (tensor: string, size: number) => ({ tensor, file: tensor, bytes: [0, size] as const });
    const part = { ...span(name, codes), ...(s.kind === 'scaled' ? { scale: span(`${name}.scale`, scales) } : {}) };
    return b.declare('weight', name, { shape: [rows, columns], storage: s }, {}, {}, { parts: [part] });
  };
  const [vocab, width, inner] = [64, 256, 512];
  const ids = b.add('input', 'ids', {}, { which: 'ids' });
  const table = weight('table', vocab, width, bf16);
  const x = b.add('gather', 'embedding', { table, ids }, {});
  const layer = { layer: 0 };
  const gate = b.add('linear', 'gate', { x, weight: weight('gate_w', inner, width, storage) }, {}, layer);
  const up = b.add('linear', 'up', { x, weight: weight('up_w', inner, width, storage) }, {}, layer);
  const act = b.add('swiglu', 'act', { gate, up }, { limit: null }, layer);
  const out = b.add('linear', 'out', { x: act, weight: weight('down_w', width, inner, storage) }, {}, layer);
  const normed = b.add('rms_norm', 'normed', { x: out }, { eps: 1e-6, width });
  const logits = b.add('linear', 'logits', { x: normed, weight: table }, {});
  const graph = b.finish('mlp', { tokens: 8, wanted: 8, sequences: 1, context: 8 }, { logits });
  return { graph, weights: v => readWeight(v, s => files.get(s.tensor)!.subarray(s.bytes[0], s.bytes[1])) };
}

describe('parts of weights', () => {
  const storages: readonly Storage[] = [
    f32,
    bf16,
    scaled('f8e4m3', 128, 128, 'f32'),
    scaled('f8e4m3', 128, 128, 'e8m0'),
    scaled('f4e2m1', 1, 32, 'e8m0'),
    scaled('i4', 1, 32, 'bf16'),
    scaled('i8', 1, 0, 'f32'),
  ];
  for (const s of storages)
    it(`${storageName(s)} is cut between blocks, by rows and by columns`, async () => {
      const { graph, weights } = mlpOf(s);
      expect(verify(graph)).toEqual([]);
      const step = rowsFrom([3, 60, 31, 32], 0, 4);
      const whole = await createReference(graph, weights);
      const want = whole.step(step, ['logits']).get('logits')!;
      for (const tp of [2, 4]) {
        const { ranks, whole: kept } = shard(graph, { tp, dp: 1, pp: 1, ep: 1 });
        expect(kept).toEqual([]);
        expect(verifyRanks(ranks)).toEqual([]);
        const down = ranks.map(g => g.values.find(v => v.name === 'down_w')!);
        expect(down.map(v => v.type.shape)).toEqual(ranks.map(() => [256, 512 / tp]));
        expect(down.map(v => v.origin.slice)).toEqual(ranks.map((_, r) => ({ of: [256, 512], from: [0, (r * 512) / tp] })));
        const reference = await createRanksReference(ranks, weights);
        for (const got of reference.step(
          ranks.map(() => step),
          ['logits'],
        ))
          expect(far(got.get('logits')!, want)).toBeLessThanOrEqual(bound);
        reference.dispose();
      }
      whole.dispose();
    });

  it('of all ranks make up the whole, each place as often as the plan says', () => {
    const graph = graphOf('tiny/v4-tiny');
    const { ranks } = shard(graph, parseParallel('tp=2,ep=4,pp=2'));
    const places = (v: Value): number => (v.type.shape as readonly number[]).reduce((a, b) => a * b, 1);
    for (const whole of graph.values.filter(v => v.op === 'weight')) {
      const parts = ranks.flatMap(g => g.values.filter(v => v.op === 'weight' && v.origin.role === whole.origin.role));
      const cut = parts.filter(v => v.origin.slice);
      if (cut.length === 0) continue;
      expect([whole.name, cut.length]).toEqual([whole.name, parts.length]);
      const dim = cut.map(v => (v.type.shape as readonly number[]).findIndex((n, d) => n !== whole.type.shape[d]));
      expect(new Set(dim).size).toBe(1);
      const starts = [...new Set(cut.map(v => v.origin.slice!.from[dim[0]!]!))].sort((a, b) => a - b);
      const once = starts.map(s => cut.find(v => v.origin.slice!.from[dim[0]!] === s)!);
      let at = 0;
      for (const v of once) {
        expect([whole.name, v.origin.slice!.from[dim[0]!]]).toEqual([whole.name, at]);
        at += v.type.shape[dim[0]!] as number;
      }
      expect(at).toBe(whole.type.shape[dim[0]!]);
      expect(once.reduce((n, v) => n + places(v), 0)).toBe(places(whole));
      // experts stand on one rank of the stage; what tp cuts, on each of two replicas
      if (whole.type.shape.length === 3)
        expect(cut.flatMap(v => v.origin.parts.map(p => p.tensor)).sort()).toEqual(whole.origin.parts.map(p => p.tensor).sort());
    }
  });

  it('are refused where they cut a block or lie outside', () => {
    const { graph } = mlpOf(scaled('f8e4m3', 128, 128, 'f32'));
    const rank = shard(graph, { tp: 2, dp: 1, pp: 1, ep: 1 }).ranks[1]!;
    const moved = (from: readonly number[]): Graph => ({
      ...rank,
      values: rank.values.map(v =>
        v.name === 'gate_w' ? ({ ...v, origin: { ...v.origin, slice: { of: [512, 256], from } } } as Value) : v,
      ),
    });
    expect(verify(rank)).toEqual([]);
    expect(verify(moved([64, 0]))).toContain('gate_w: 64 to 320 cuts a block of 128');
    expect(verify(moved([384, 0]))).toContain('gate_w: 384 to 640 does not lie inside 512');
  });
});

describe('text and protocol-buffer forms', () => {
  for (const name of [...tinyCases.map(n => `tiny/${n}`), 'hkgai-nano', 'hkgai-nano-fp8'])
    it(`${name}: each rank comes back as it was`, () => {
      const graph = runPasses(graphOf(name));
      const way = routedOf(graph).length > 0 ? 'tp=2,pp=2,ep=4' : 'tp=2,pp=2';
      for (const rank of shard(graph, parseParallel(way), { uneven: true }).ranks) {
        const text = printGraph(rank);
        const back = parseGraph(text);
        expect(printGraph(back)).toBe(text);
        expect(back.rank).toEqual(rank.rank);
        expect(verify(back)).toEqual([]);
        const decoded = decodeGraph(encodeGraph(rank));
        expect(printGraph(decoded)).toBe(text);
        expect(decoded.values.map(v => v.origin.slice)).toEqual(rank.values.map(v => v.origin.slice));
      }
    });
});

describe('at full size', () => {
  const count = (g: Graph, op: string): number => g.values.filter(v => v.op === op).length;
  it('DeepSeek-V3 on 16 ranks: two sums a layer, its heads, columns and experts', () => {
    const { ranks, groups, whole } = shard(runPasses(configGraph('DeepSeek-V3')), parseParallel('tp=8,pp=2,ep=8'));
    expect(whole).toEqual([]);
    expect(verifyRanks(ranks, { bytes: false })).toEqual([]);
    expect(groups.tensor).toEqual([
      [0, 1, 2, 3, 4, 5, 6, 7],
      [8, 9, 10, 11, 12, 13, 14, 15],
    ]);
    expect(groups.expert).toEqual(groups.tensor);
    expect(groups.pipeline[3]).toEqual([3, 11]);
    // 30 layers and the embedding; 31 layers, the block of multi-token prediction and its embedding
    expect(count(ranks[3]!, 'all_reduce')).toBe(2 * 30 + 1);
    expect(count(ranks[11]!, 'all_reduce')).toBe(2 * 32 + 1);
    const shapeOf = (name: string): unknown => ranks[3]!.values.find(v => v.name === name)!.type.shape;
    expect(shapeOf('layers.5.self_attn.q_b_proj')).toEqual([(128 * 192) / 8, 1536]);
    expect(shapeOf('layers.5.self_attn.kv_b_proj')).toEqual([(128 * 256) / 8, 512]);
    expect(shapeOf('layers.5.self_attn.o_proj')).toEqual([7168, (128 * 128) / 8]);
    expect(shapeOf('layers.5.mlp.experts.down_proj')).toEqual([32, 7168, 2048]);
    expect(shapeOf('layers.5.mlp.shared_experts.up_proj')).toEqual([256, 7168]);
    expect(shapeOf('layers.5.mlp.gate')).toEqual([256, 7168]);
  });
  it('DeepSeek-V4-Flash and Kimi-K2 on 8, whole experts over replicas', () => {
    for (const name of ['DeepSeek-V4-Flash', 'Kimi-K2-Instruct'])
      for (const dispatch of ['send', 'gather'] as const) {
        const { ranks, whole } = shard(configGraph(name), parseParallel('tp=2,dp=4,ep=8'), { dispatch });
        expect(whole).toEqual([]);
        expect(verifyRanks(ranks, { bytes: false })).toEqual([]);
      }
  });
});

/** The problems that a way of dealing is refused with. */
function refused(graph: Graph, way: string | Parameters<typeof shard>[1], options: ShardOptions = {}): readonly string[] {
  try {
    shard(graph, typeof way === 'string' ? parseParallel(way) : way, options);
  } catch (e) {
    if (e instanceof Refusal) return e.problems.map(p => `${p.code} ${p.what}`);
    throw e;
  }
  return [];
}
describe('what ranks hold', () => {
  it('is said, and a rank is printed', () => {
    const s = spread(configGraph('DeepSeek-V3'), 'tp=2,ep=4', false);
    expect(s.groups.expert).toEqual([[0, 1, 2, 3]]);
    const [first] = s.rows;
    expect(s.rows).toEqual([0, 1, 2, 3].map(rank => ({ ...first, rank })));
    // a latent of 512 + 64 values for each of 62 layers, in f32
    expect(first!.cache).toBe(62 * 576 * 4);
    // half the attention, a quarter of the experts: between a quarter and half of 641 GiB
    expect(first!.weights).toBeGreaterThan(641 * 2 ** 28);
    expect(first!.weights).toBeLessThan(641 * 2 ** 29);
    expect(rankText(s, 3)).toMatch(/^graph "deepseek_v3" tokens=\d+ wanted=\d+ sequences=4 context=\d+ rank=3\/4\n/);
    expect(rankText(s, 3, 4)).toContain('\nlayers 3..60 {\n');
    expect(() => rankText(s, 4)).toThrow(/HK2747 {2}There is no rank 4 of 4/);
  });
});
describe('what cannot be dealt is refused', () => {
  it('numbers that contradict each other', () => {
    const g = graphOf('tiny/v3-tiny-bf16');
    expect(refused(g, { tp: 2, dp: 2, pp: 1, ep: 2 })).toEqual([
      'HK2740 tp=2,dp=2,pp=1,ep=2 is no way to spread a model: ep is neither 1 nor 4',
    ]);
    expect(refused(g, { tp: 0, dp: 1, pp: 1, ep: 1 })).toEqual([
      'HK2740 tp=0,dp=1,pp=1,ep=1 is no way to spread a model: each number is 1 or more',
    ]);
    expect(refused(g, 'tp=two')).toEqual(['HK2740 tp=two is no way to spread a model: "tp=two" is not understood']);
  });
  it('heads', () =>
    expect(refused(graphOf('tiny/v2-tiny'), 'tp=2')).toEqual([
      'HK2741 layers.0.attended: 3 heads cannot be dealt evenly to 2 ranks (and 2 more like it)',
    ]));
  it('key-value heads, and every other thing at once', () =>
    expect(refused(graphOf('tiny/llama-distill-tiny'), 'tp=2,ep=2')).toEqual([
      'HK2741 layers.0.attended: 3 key-value heads cannot be dealt evenly to 2 ranks (and 2 more like it)',
      'HK2745 llama has no routed experts to deal to 2 ranks',
    ]));
  it('groups of the output projection', () =>
    expect(refused(graphOf('tiny/v4-tiny'), 'tp=4')).toContain(
      'HK2741 layers.0.attended: 2 groups of the output projection cannot be dealt evenly to 4 ranks (and 3 more like it)',
    ));
  it('blocks of 128', () =>
    expect(refused(graphOf('tiny/v3-tiny-fp8'), 'tp=2')).toEqual([
      'HK2742 layers.0.self_attn.q_b_proj: a cut for 2 ranks at row 80 runs through a block of 128 (f8e4m3[128x128]f32) (and 3 more like it)',
      'HK2742 layers.0.mlp.gate_proj: a cut for 2 ranks at row 80 runs through a block of 128 (f8e4m3[128x128]f32)',
      'HK2742 layers.1.mlp.experts.gate_proj: a cut for 2 ranks at row 8 runs through a block of 128 (f8e4m3[128x128]f32) (and 2 more like it)',
      'HK2742 layers.1.mlp.shared_experts.gate_proj: a cut for 2 ranks at row 8 runs through a block of 128 (f8e4m3[128x128]f32) (and 2 more like it)',
    ]));
  it('groups of 32', () =>
    expect(refused(graphOf('tiny/v4-tiny-fp8fp4'), 'tp=2')).toContain(
      'HK2742 layers.0.ffn.experts.w2: a cut for 2 ranks at column 16 runs through a block of 32 (f4e2m1[1x32]e8m0) (and 2 more like it)',
    ));
  it('experts', () =>
    expect(refused(graphOf('tiny/v3-tiny-bf16'), 'dp=3,ep=3')).toEqual([
      'HK2743 layers.1.experts: 8 experts cannot be dealt evenly to 3 ranks (and 2 more like it)',
    ]));
  it('more ranks than experts, even where parts may be uneven', () =>
    expect(refused(graphOf('tiny/v3-tiny-bf16'), 'ep=16', { uneven: true })[0]).toMatch(/^HK2743 layers.1.experts: 8 experts .* 16 ranks/));
  it('stages', () => {
    const g = graphOf('tiny/v3-tiny-bf16');
    expect(refused(g, 'pp=4')).toEqual(['HK2744 3 layers cannot be dealt to 4 stages: a stage would have none']);
    expect(refused(g, 'pp=2', { stages: [1, 1] })).toEqual(['HK2744 3 layers cannot be dealt to 2 stages: 1 + 1 is not 3 in 2']);
  });
  it('what lies otherwise in the graph', () => {
    const { graph } = mlpOf(f32);
    const act = graph.values.find(v => v.name === 'act')!;
    expect(refused({ ...graph, outputs: { ...graph.outputs, act } }, 'tp=2')).toEqual([
      'HK2746 act cannot be dealt to 2 ranks: act is an output',
    ]);
  });
  it('and with uneven parts each is dealt, or stays whole with its reason', () => {
    const v2 = shard(graphOf('tiny/v2-tiny'), parseParallel('tp=2'), { uneven: true });
    expect(v2.whole).toEqual([]);
    expect(v2.ranks.map(g => (g.values.find(v => v.name === 'layers.0.attended') as ValueOf<'mla'>).attributes.heads)).toEqual([2, 1]);
    const fp8 = shard(graphOf('tiny/v3-tiny-fp8'), parseParallel('tp=2'), { uneven: true });
    expect(fp8.ranks.map(g => g.values.find(v => v.name === 'layers.0.mlp.down_proj')!.type.shape)).toEqual([
      [136, 128],
      [136, 32],
    ]);
    expect(fp8.whole[0]).toEqual({
      name: 'layers.0.attended',
      why: 'layers.0.self_attn.q_b_proj: a cut for 2 ranks at row 80 runs through a block of 128 (f8e4m3[128x128]f32)',
    });
    const stages = shard(graphOf('tiny/v3-tiny-bf16'), parseParallel('pp=2'), { stages: [2, 1] }).ranks;
    expect(stages.map(g => g.values.filter(v => v.op === 'state').map(v => v.origin.layer))).toEqual([
      [0, 1],
      [2, 3],
    ]);
  });
});

/** A graph that only exchanges: what each rank brings is its ids. */
function exchanges(rank: number, of: number, build: (b: Builder, ids: Value) => Value): Graph {
  const b = new Builder();
  const ids = b.add('input', 'ids', {}, { which: 'ids' });
  const logits = build(b, ids);
  return { ...b.finish('exchange', { tokens: 4, wanted: 4, sequences: 1, context: 4 }, { logits }), rank: { index: rank, of } };
}
describe('exchanges', () => {
  const group = [0, 1];
  const table = (v: ValueOf<'weight'>): Float32Array => Float32Array.from({ length: (v.type.shape[0] as number) * 2 }, (_, i) => i);
  const step = (ids: readonly number[]): Step => ({ ids, positions: ids.map((_, i) => i), sequences: ids.map(() => 0) });
  const gathered = (b: Builder, ids: Value): Value =>
    b.add('gather', 'x', { table: b.declare('weight', 'table', { shape: [8, 2], storage: f32 }, {}, {}), ids }, {});
  const run = async (
    build: (b: Builder, ids: Value) => Value,
    calls: readonly (readonly number[])[],
    weights = table,
  ): Promise<readonly Result[]> => {
    const graphs = calls.map((_, r) => exchanges(r, calls.length, build));
    expect(verifyRanks(graphs, { bytes: false })).toEqual([]);
    const reference = await createRanksReference(graphs, weights);
    const got = reference.step(calls.map(step), ['logits']).map(m => m.get('logits')!);
    reference.dispose();
    return got;
  };
  it('all_reduce adds', async () => {
    const got = await run(
      (b, ids) => b.add('all_reduce', 'sum', { x: gathered(b, ids) }, { group }),
      [
        [1, 2],
        [3, 0],
      ],
    );
    for (const r of got) expect([...r.data]).toEqual([2 + 6, 3 + 7, 4 + 0, 5 + 1]);
  });
  it('all_gather of rows pads what a rank does not have', async () => {
    const got = await run(
      (b, ids) => b.add('all_gather', 'all', { x: gathered(b, ids) }, { group, along: 'rows', sizes: [2, 3] }),
      [[1], [3, 0]],
    );
    for (const r of got) expect([...r.data]).toEqual([2, 3, 0, 0, 6, 7, 0, 1, 0, 0]);
  });
  it('all_gather of columns lays rows beside each other', async () => {
    const got = await run(
      (b, ids) => b.add('all_gather', 'all', { x: gathered(b, ids) }, { group, along: 'columns', sizes: [2, 2] }),
      [[1], [3]],
    );
    for (const r of got) expect([...r.data]).toEqual([2, 3, 6, 7]);
  });
  it('reduce_scatter gives each rank its rows of the sum', async () => {
    const all = (b: Builder, ids: Value): Value =>
      b.add('all_gather', 'all', { x: gathered(b, ids) }, { group, along: 'rows', sizes: [2, 2] });
    const got = await run((b, ids) => b.add('reduce_scatter', 'own', { x: all(b, ids) }, { group, rows: 2 }), [[1], [3, 0]]);
    expect(got.map(r => [...r.data])).toEqual([
      [4, 6],
      [12, 14, 0, 2],
    ]);
  });
  it('all_to_all_v brings rows to the ranks of their experts, and back', async () => {
    // one expert a row, two experts a rank
    const sent = (b: Builder, ids: Value): { readonly rows: Value; readonly counts: Value; readonly came: Value } => {
      const chosen = b.add(
        'gather',
        'chosen',
        { table: b.declare('weight', 'choice', { shape: [8, 1], storage: { kind: 'plain', element: 'i32' } }, {}, {}), ids },
        {},
      );
      const routes = { bounds: [0, 2, 4], share: [0, 1] } as const;
      const rows = b.add('route_rows', 'rows', { indices: chosen }, routes);
      const counts = b.add('route_counts', 'counts', { indices: chosen }, routes);
      const came = b.add('all_to_all_v', 'came', { x: counts }, { group, rows: 2 });
      return { rows, counts, came };
    };
    const weights = (v: ValueOf<'weight'>): Float32Array =>
      v.name === 'choice' ? (Int32Array.of(0, 1, 2, 3, 3, 2, 1, 0) as unknown as Float32Array) : table(v);
    const there = await run(
      (b, ids) => {
        const { rows, counts } = sent(b, ids);
        const taken = b.add('take_rows', 'taken', { x: gathered(b, ids), rows }, {});
        return b.add('all_to_all_v', 'there', { x: taken, counts }, { group, rows: 5 });
      },
      [
        [2, 0, 3],
        [1, 4],
      ],
      weights,
    );
    // rank 0: ids 0 of rank 0, 1 of rank 1; rank 1: ids 2 and 3 of rank 0, 4 of rank 1
    expect(there.map(r => [...r.data])).toEqual([
      [0, 1, 2, 3, 0, 0, 0, 0, 0, 0],
      [4, 5, 6, 7, 8, 9, 0, 0, 0, 0],
    ]);
    const back = await run(
      (b, ids) => {
        const { rows, counts, came } = sent(b, ids);
        const taken = b.add('take_rows', 'taken', { x: gathered(b, ids), rows }, {});
        const there = b.add('all_to_all_v', 'there', { x: taken, counts }, { group, rows: 5 });
        const again = b.add(
          'all_to_all_v',
          'again',
          { x: b.add('scale', 'made', { x: there }, { by: 10 }), counts: came },
          { group, rows: 4 },
        );
        return b.add('add_rows', 'result', { y: again, rows }, {});
      },
      [
        [2, 0, 3],
        [1, 4],
      ],
      weights,
    );
    expect(back.map(r => [...r.data])).toEqual([
      [40, 50, 0, 10, 60, 70],
      [20, 30, 80, 90],
    ]);
  });

  const two = (f: (r: number) => (b: Builder, ids: Value) => Value): readonly Graph[] => [0, 1].map(r => exchanges(r, 2, f(r)));
  const sum = (b: Builder, name: string, x: Value, g: readonly number[] = group): Value => b.add('all_reduce', name, { x }, { group: g });
  it('that ranks come to in another order are found, and stop the reference', async () => {
    const crossed = two(r => (b, ids) => {
      const x = gathered(b, ids);
      const [one, other] = r === 0 ? ['a', 'b'] : ['b', 'a'];
      return sum(b, other!, sum(b, one!, x));
    });
    const says = 'the ranks wait for each other: rank 0 at all_reduce a, rank 1 at all_reduce b';
    expect(verifyRanks(crossed, { bytes: false })).toEqual([says]);
    const reference = await createRanksReference(crossed, table);
    expect(() => reference.step([step([1]), step([1])], ['logits'])).toThrow(/the ranks wait for each other: rank 0 at a, rank 1 at b/);
  });
  it('that a rank does not come to, or with another shape or other attributes, are found', () => {
    const lacking = two(r => (b, ids) => (r === 0 ? sum(b, 'a', gathered(b, ids)) : gathered(b, ids)));
    expect(verifyRanks(lacking, { bytes: false })).toEqual(['rank 0 comes to all_reduce a, and rank 1 of its group does not']);
    const other = two(r => (b, ids) => sum(b, 'a', gathered(b, ids), r === 0 ? [0, 1] : [1, 0]));
    expect(verifyRanks(other, { bytes: false })).toContain('ranks 0 and 1 come to a with other attributes');
    const shape = two(r => (b, ids) => {
      const x = gathered(b, ids);
      return sum(b, 'a', r === 0 ? x : b.add('slice', 'half', { x }, { from: 0, size: 1 }));
    });
    expect(verifyRanks(shape, { bytes: false })).toContain('rank 0 brings [tokens, 2] to a, and rank 1 [tokens, 1]');
  });
  it('of a pipeline: what is sent is received, once', () => {
    const lost = two(
      r => (b, ids) => (r === 0 ? b.add('send', 'out', { x: gathered(b, ids) }, { to: 1, channel: 'x' }) : gathered(b, ids)),
    );
    expect(verifyRanks(lost, { bytes: false })).toEqual(['nobody receives what goes from rank 0 to 1: x']);
    const both = two(r => (b, ids) => {
      const got = b.declare('recv', 'got', { shape: [tokens, 2], storage: f32 }, {}, { from: 1 - r, channel: 'x' });
      b.add('send', 'out', { x: gathered(b, ids) }, { to: 1 - r, channel: 'x' });
      return got;
    });
    expect(verifyRanks(both, { bytes: false })).toEqual(['the ranks wait for each other: rank 0 at recv got, rank 1 at recv got']);
  });
  it('of a group that its own rank is not in, or of a graph that is no rank, are found', () => {
    const alone = exchanges(0, 2, (b, ids) => sum(b, 'a', gathered(b, ids), [1]));
    expect(verify(alone, { bytes: false })).toEqual(['a: rank 0 cannot meet the ranks 1']);
    const { rank: _, ...none } = alone;
    expect(verify(none, { bytes: false })).toEqual(["a: all_reduce is in a graph that is no rank's"]);
  });
  it('are not run by the reference of one graph, nor lowered', async () => {
    const one = exchanges(0, 2, (b, ids) => sum(b, 'a', gathered(b, ids)));
    const reference = await createReference(one, table);
    expect(() => reference.step(step([1]), ['logits'])).toThrow('a waits for other ranks: this graph does not run alone');
    expect(() => chooseKernels(one)).toThrow('exchange is the graph of a rank: there are no launches for all_reduce (a)');
  });
});
