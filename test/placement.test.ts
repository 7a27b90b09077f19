// Placement of experts: numberings that are legal and even, what goes over the wires, the maps that engines read, and files of counts that are refused.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from '@jest/globals';
import { Refusal } from '../ir/problem.js';
import { parseConfig } from '../src/checkpoint/config.js';
import { openCheckpoint } from '../src/checkpoint/shards.js';
import { identityOf } from '../src/experts.js';
import { buildModel } from '../src/models/index.js';
import { expertLayers, shardExperts } from '../src/passes/shard-experts.js';
import { readCounts } from '../src/placement/counts.js';
import { expertMap, physicalToLogicalMap, readsExpertMap } from '../src/placement/maps.js';
import type { Counts, Topology } from '../src/placement/placement.js';
import { orderObjections, rankLoads, renumber } from '../src/placement/renumber.js';
import { copiesOfSets, copiesOfShares, loadOf } from '../src/placement/traffic.js';
import { findRunnable } from '../src/run.js';
import { traceTexts } from '../src/trace.js';
import { fixtures } from './golden-cases.js';

const work = mkdtempSync(join(tmpdir(), 'hkgai-placement-'));
afterAll(() => rmSync(work, { recursive: true }));
const nano = join(fixtures, 'hkgai-nano');
const quiet = { step: () => {}, at: () => {} };
/** Numbers that look random, the same everywhere. */
function made(n: number, seed: number, most = 1000): readonly number[] {
  let state = seed;
  return Array.from({ length: n }, () => {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0;
    const x = (state >>> 8) % most;
    return Math.floor((x * x) / most); // few are chosen often
  });
}
const range = (n: number): readonly number[] => Array.from({ length: n }, (_, i) => i);
const uneven = (loads: readonly number[]): number => (Math.max(...loads) * loads.length) / loads.reduce((a, b) => a + b, 0);
const codeOf = (run: () => unknown): readonly [code: string, text: string] => {
  try {
    run();
  } catch (e) {
    if (e instanceof Refusal) return [e.problems[0]!.code, e.message];
    throw e;
  }
  throw new Error('nothing was refused');
};

describe('a renumbering', () => {
  const shapes = [
    [16, 4, 4, 1],
    [16, 4, 2, 2],
    [16, 4, 8, 2],
    [16, 4, 16, 4],
    [24, 4, 6, 2], // ranks of 4 cut across groups of 6
    [64, 1, 8, 2],
    [160, 8, 16, 2],
    [256, 8, 8, 1],
    [256, 8, 32, 4],
    [256, 8, 2, 2],
    [384, 1, 64, 8],
  ] as const;
  for (const [experts, groups, ranks, nodes] of shapes)
    it(`is legal and no worse: ${experts} experts in ${groups} groups on ${ranks} ranks of ${nodes} nodes`, () => {
      for (const seed of [1, 2, 3]) {
        const w = made(experts, seed);
        const order = renumber(w, { groups, ranks, nodes });
        expect(orderObjections(order, experts, groups)).toEqual([]);
        expect(uneven(rankLoads(order, w, ranks))).toBeLessThanOrEqual(uneven(rankLoads(range(experts), w, ranks)));
        expect(renumber(w, { groups, ranks, nodes })).toEqual(order);
      }
    });
  it('is as even as can be where members move freely', () => {
    const w = made(64, 5);
    const order = renumber(w, { groups: 1, ranks: 8, nodes: 2 });
    expect(uneven(rankLoads(range(64), w, 8))).toBeGreaterThan(1.25);
    expect(uneven(rankLoads(order, w, 8))).toBeLessThan(1.02);
    expect(uneven(rankLoads(order, w, 2))).toBeLessThan(1.02);
  });
  it('finds the best of all legal ones of a small model', () => {
    // 2 groups of 3 on 3 ranks: every exchange inside groups, and of the groups
    const w = [9, 1, 1, 4, 3, 6];
    const all: (readonly number[])[] = [];
    const inside = (g: readonly number[]): readonly (readonly number[])[] =>
      g.length < 2 ? [g] : g.flatMap(e => inside(g.filter(x => x !== e)).map(rest => [e, ...rest]));
    for (const a of inside([0, 1, 2])) for (const b of inside([3, 4, 5])) all.push([...a, ...b], [...b, ...a]);
    const best = Math.min(...all.map(o => Math.max(...rankLoads(o, w, 3))));
    expect(Math.max(...rankLoads(renumber(w, { groups: 2, ranks: 3, nodes: 1 }), w, 3))).toBe(best);
  });
  it('moves nothing where nothing gets better', () => {
    expect(renumber(new Array<number>(64).fill(7), { groups: 8, ranks: 16, nodes: 2 })).toEqual(range(64));
    expect(renumber(made(64, 9), { groups: 8, ranks: 1, nodes: 1 })).toEqual(range(64));
  });
  it('is told from what is none', () => {
    expect(orderObjections([0, 1, 2], 4, 1)).toEqual(['3 experts are named, and there are 4.']);
    expect(orderObjections([0, 1, 2, 2], 4, 1)).toEqual(['It does not name each of 4 experts once.']);
    expect(orderObjections([0, 2, 1, 3], 4, 2)).toEqual([
      'Experts 0 and 2 come into one of 2 groups, and were in two: the router would choose others.',
    ]);
    expect(orderObjections([3, 2, 0, 1], 4, 2)).toEqual([]);
  });
});

describe('what goes over the wires', () => {
  it('is counted from sets of experts: each other rank once, half of them begin there', () => {
    // two ranks of two experts; tokens choose two
    const placed = [0, 1, 2, 3];
    // {0, 1}: rank 0 alone; a token that begins on rank 1 sends one copy, one that begins on rank 0 none
    expect(copiesOfSets(placed, 2, 2, [0, 1], 2)).toEqual({ inside: 0, between: 0.5, betweenOnce: 0.5 });
    // {0, 2}: both ranks; one copy wherever it begins
    expect(copiesOfSets(placed, 2, 2, [0, 2], 2)).toEqual({ inside: 0, between: 1, betweenOnce: 1 });
    expect(copiesOfSets(placed, 2, 1, [0, 2], 2)).toEqual({ inside: 1, between: 0, betweenOnce: 0 });
  });
  it('agrees with going through tokens, origins and replicas one by one', () => {
    const [ranks, nodes, topK] = [8, 2, 3];
    const placed = [...range(13), 0, 5, 12]; // 16 places, three experts twice
    const sets = made(150, 4, 13).map((e, i, all) => (all.slice(i - (i % topK), i).includes(e) ? -1 : e));
    const whole = range(50)
      .map(t => sets.slice(t * topK, (t + 1) * topK))
      .filter(s => !s.includes(-1));
    expect(whole.length).toBeGreaterThan(5);
    const want = { inside: 0, between: 0, betweenOnce: 0 };
    for (const s of whole)
      for (let origin = 0; origin < ranks; origin++) {
        // every choice of replicas alike
        const choices = s.reduce<readonly (readonly number[])[]>(
          (all, e) => all.flatMap(c => placed.flatMap((x, at) => (x === e ? [[...c, Math.floor(at / 2)]] : []))),
          [[]],
        );
        for (const c of choices) {
          const share = 1 / (whole.length * ranks * choices.length);
          const to = [...new Set(c)].filter(r => r !== origin);
          const node = (r: number): number => Math.floor(r / 4);
          want.inside += share * to.filter(r => node(r) === node(origin)).length;
          want.between += share * to.filter(r => node(r) !== node(origin)).length;
          want.betweenOnce += share * new Set(to.map(node).filter(n => n !== node(origin))).size;
        }
      }
    const got = copiesOfSets(placed, ranks, nodes, whole.flat(), topK);
    for (const k of ['inside', 'between', 'betweenOnce'] as const) expect(got[k]).toBeCloseTo(want[k], 10);
  });
  it('is estimated from shares where sets were not kept', () => {
    // all experts alike, one each rank, topK of all: everything goes everywhere
    const all = copiesOfShares(range(8), 8, 2, new Array<number>(8).fill(5), 8);
    expect(all).toEqual({ inside: 3, between: 4, betweenOnce: 1 });
    const some = copiesOfShares(range(8), 8, 2, new Array<number>(8).fill(5), 2);
    expect(some.inside + some.between).toBeCloseTo(2 * (7 / 8), 10);
  });
  it('weighs replicas alike', () => {
    expect(loadOf([0, 1, 0, 2], [10, 5, 5], 2, 1).ranks).toBe(1);
    expect(loadOf([0, 1, 2, 3], [30, 10, 10, 10], 2, 2)).toEqual({ ranks: 40 / 30, nodes: 40 / 30 });
  });
});

/** The project's own text by language: Cantonese where a line has a character of its own, else Chinese where it has one at all. */
function languages(): Readonly<Record<'yue' | 'zh-Hant' | 'en', string>> {
  const lines = readFileSync(join(fixtures, 'eval/calibration_own.txt'), 'utf8').split('\n');
  const yue = (l: string): boolean => /[嘅係喺嗰咗唔嘢啲佢邊幾]/.test(l);
  const han = (l: string): boolean => /\p{Script=Han}/u.test(l);
  const of = (test: (l: string) => boolean): string => lines.filter(l => l !== '' && test(l)).join('\n');
  return { yue: of(yue), 'zh-Hant': of(l => han(l) && !yue(l)), en: of(l => !han(l)) };
}

describe('shard-experts', () => {
  const c = openCheckpoint(nano);
  const model = buildModel(c.config, c.tensors);
  const layers = expertLayers(model.graph);
  const identity = identityOf(c, model);
  const file = join(work, 'trace.json');
  const read = (labels: readonly string[] = []): Counts => {
    const v = readCounts(file, labels, identity, layers, c.config.layers);
    if (!('layers' in v)) throw new Error('no counts');
    return v;
  };
  const t: Topology = { ranks: 8, nodes: 2, redundant: 0 };

  it('sees every layer with experts, MTP blocks and tables too', () => {
    expect(layers).toEqual([1, 2, 3, 4].map(layer => ({ layer, experts: 16, topK: 4, groups: 4, hidden: 160, hashed: false })));
    const v4 = openCheckpoint(join(fixtures, 'tiny/v4-tiny-fp8fp4'));
    const of = expertLayers(buildModel(v4.config, v4.tensors).graph);
    expect(of.map(l => [l.layer, l.groups, l.hashed])).toEqual([
      [0, 1, true],
      [1, 1, false],
      [2, 1, false],
      [3, 1, false],
    ]);
    const v3 = parseConfig(readFileSync(join(fixtures, 'configs/DeepSeek-V3.json'), 'utf8'), 'config.json');
    expect(expertLayers(buildModel(v3, null).graph)).toHaveLength(59);
  });
  it("makes hkgai-nano's loads more even, for each language and for all", async () => {
    const r = findRunnable(nano);
    const texts = Object.entries(languages()).map(([label, text]) => ({ label, name: `${label}.txt`, text }));
    await traceTexts(r, texts, file, 'auto', 0, quiet);
    r.dispose();
    const found: Record<string, readonly string[]> = {};
    for (const labels of [['en'], ['yue'], ['zh-Hant'], []] as const) {
      const p = shardExperts(model.graph, read(labels), t);
      expect(p.layers.map(l => l.layer)).toEqual([1, 2, 3, 4]);
      for (const l of p.layers) {
        expect(orderObjections(l.oldOf, 16, 4)).toEqual([]);
        expect(l.copiesFrom).toBe('sets');
        expect(l.after.load.ranks).toBeLessThanOrEqual(l.before.load.ranks);
      }
      found[labels[0] ?? 'all'] = p.layers.map(l => `${l.before.load.ranks.toFixed(2)} -> ${l.after.load.ranks.toFixed(2)}`);
    }
    const mean = (of: 'before' | 'after', labels: readonly string[]): number =>
      shardExperts(model.graph, read(labels), t).layers.reduce((n, l) => n + l[of].load.ranks / 4, 0);
    if (process.env.SHOW) console.log(JSON.stringify(found, null, 1));
    for (const l of [['en'], ['yue'], ['zh-Hant'], []]) expect(mean('after', l)).toBeLessThan(mean('before', l) - 0.05);
    // Cantonese loads other experts than English: the placement that is even for one is not for the other
    const yue = shardExperts(model.graph, read(['yue']), t);
    const en = read(['en']);
    const crossed = yue.layers.map((l, i) => loadOf(l.oldOf, en.layers[i]!.counts, t.ranks, t.nodes).ranks);
    const direct = shardExperts(model.graph, en, t).layers.map(l => l.after.load.ranks);
    expect(crossed.reduce((a, b) => a + b, 0)).toBeGreaterThan(direct.reduce((a, b) => a + b, 0) + 0.2);
  });
  it('takes all labels of a trace together, as much of each as there is', () => {
    const [en, yue, zh, all] = [['en'], ['yue'], ['zh-Hant'], []].map(read) as [Counts, Counts, Counts, Counts];
    all.layers.forEach((l, i) => {
      expect(l.counts).toEqual(l.counts.map((_, e) => en.layers[i]!.counts[e]! + yue.layers[i]!.counts[e]! + zh.layers[i]!.counts[e]!));
      expect(l.sample!.length / 4).toBe(l.tokens);
    });
    expect(all.called).toBe('trace.json (en, yue, zh-Hant)');
  });
  it('leaves all where it is when counts are uniform, and adds replicas by EPLB', () => {
    const even = shardExperts(model.graph, null, t);
    expect(even.from).toBe('uniform');
    for (const l of even.layers) expect([l.oldOf, l.placed, l.before.load.ranks, l.after.load.ranks]).toEqual([range(16), range(16), 1, 1]);
    const p = shardExperts(model.graph, read(), { ...t, redundant: 8 });
    for (const l of p.layers) {
      expect(l.placed).toHaveLength(24);
      expect([...new Set(l.placed)].sort((a, b) => a - b)).toEqual(range(16));
      expect(l.after.load.ranks).toBeLessThanOrEqual(
        shardExperts(model.graph, read(), t).layers.find(x => x.layer === l.layer)!.after.load.ranks,
      );
    }
  });
  it('writes the maps that engines read', () => {
    const p = shardExperts(model.graph, read(), { ...t, redundant: 8 });
    const sglang = physicalToLogicalMap(p, 4);
    expect(Object.keys(sglang)).toEqual(['physical_to_logical_map']);
    expect(sglang.physical_to_logical_map.map(r => r.length)).toEqual([24, 24, 24, 24]); // the dense layer too, no MTP block
    expect(sglang.physical_to_logical_map[1]).toEqual(p.layers[0]!.placed);
    const map = expertMap(p, 4);
    expect([map.moe_layer_count, map.layer_list.length]).toEqual([3, 3]);
    map.layer_list.forEach((l, i) => {
      expect([l.layer_id, l.device_count, l.device_list.map(d => d.device_id)]).toEqual([i, 8, range(8)]);
      expect(l.device_list.flatMap(d => d.device_expert)).toEqual(p.layers[i]!.placed);
    });
    expect([null, 'head', '0.18', '0.23', '0.25', '0.25.1', '0.26', '1.0'].map(readsExpertMap)).toEqual([
      true,
      true,
      true,
      true,
      true,
      false,
      false,
      false,
    ]);
  });

  it('refuses experts that do not go onto the devices in equal numbers', () => {
    const [code, text] = codeOf(() => shardExperts(model.graph, null, { ranks: 6, nodes: 2, redundant: 0 }));
    expect(code).toBe('HK2723');
    expect(text).toContain('16 experts do not go onto 6 ranks in equal numbers.');
    expect(text).toContain('Take ep=2, 4, 8, or redundant=2.');
    expect(codeOf(() => shardExperts(model.graph, null, { ranks: 8, nodes: 3, redundant: 0 }))[1]).toContain(
      '8 ranks do not go onto 3 nodes',
    );
    expect(codeOf(() => shardExperts(model.graph, null, { ranks: 8, nodes: 2, redundant: 4 }))[1]).toContain('16 experts and 4 replicas');
    expect(() => shardExperts(model.graph, null, { ranks: 6, nodes: 2, redundant: 2 })).not.toThrow();
    const dense = openCheckpoint(join(fixtures, 'tiny/llama-distill-tiny'));
    expect(codeOf(() => shardExperts(buildModel(dense.config, dense.tensors).graph, null, t))[0]).toBe('HK2724');
  });

  const refusedCounts = (v: unknown, labels: readonly string[] = []): readonly [string, string] => {
    const at = join(work, 'counts.json');
    writeFileSync(at, typeof v === 'string' ? v : JSON.stringify(v));
    return codeOf(() => readCounts(at, labels, identity, layers, c.config.layers));
  };
  const good = { moe_layers: [1, 2, 3], counts: [1, 2, 3].map(s => made(16, s)) };
  it('reads counts as lists, and as SGLang records them', () => {
    const at = join(work, 'lists.json');
    writeFileSync(at, JSON.stringify(good));
    expect((readCounts(at, [], identity, layers, 4) as Counts).layers.map(l => l.counts)).toEqual(good.counts);
    const rows = [new Array<number>(16).fill(0), ...good.counts];
    for (const logical_count of [rows, [rows, rows]]) {
      writeFileSync(at, JSON.stringify({ logical_count }));
      const times = logical_count.length === 2 ? 2 : 1;
      expect((readCounts(at, [], identity, layers, 4) as Counts).layers.map(l => l.counts)).toEqual(
        good.counts.map(l => l.map(n => n * times)),
      );
    }
  });
  it('refuses counts with holes, with each hole', () => {
    const with_ = (layer: number, row: unknown) => ({ ...good, counts: good.counts.map((r, i) => (i === layer ? row : r)) });
    expect(refusedCounts({ moe_layers: [1, 3], counts: [good.counts[0], good.counts[2]] })).toEqual([
      'HK2722',
      expect.stringContaining('Layer 2 is missing.'),
    ]);
    expect(refusedCounts(with_(0, made(15, 1)))[1]).toContain('Layer 1 counts 15 experts, and has 16.');
    expect(refusedCounts(with_(1, [...made(15, 1), null]))[1]).toContain('Layer 2 says null of expert 15.');
    expect(refusedCounts(with_(1, [-1, ...made(15, 1)]))[1]).toContain('Layer 2 says -1 of expert 0.');
    expect(refusedCounts(with_(2, new Array<number>(16).fill(0)))[1]).toContain('Layer 3 counts nothing.');
    expect(refusedCounts(with_(2, 'many'))[1]).toContain('Layer 3 counts no list of experts');
    expect(refusedCounts({ moe_layers: [0, 1, 2, 3], counts: [made(16, 4), ...good.counts] })[1]).toContain('Layers 0 have no experts');
    expect(refusedCounts({ logical_count: good.counts })[1]).toContain('logical_count has 3 layers, and the model 4.');
    expect(refusedCounts({ logical_count: [[], [], [], []] })[0]).toBe('HK2722');
    expect(refusedCounts({ logical_count: [null, null, null, null] })[1]).toContain('Layer 1 counts no list of experts');
    const rows = [new Array<number>(16).fill(0), ...good.counts];
    expect(refusedCounts({ logical_count: [rows, [rows[0], rows[1], null, rows[3]]] })[1]).toContain('Layer 2 counts no list of experts');
    // what float32 does not hold, or adds up to no number
    expect(refusedCounts(with_(0, new Array<number>(16).fill(1e308)))[1]).toContain('Layer 1 says 1e+308 of expert 0.');
    expect(refusedCounts({ moe_layers: [1, 2, 3, 3], counts: [...good.counts, made(16, 9)] })[1]).toContain(
      'Layers 3 are counted more than once.',
    );
  });
  it('refuses what holds no counts, and labels that are not there', () => {
    for (const v of ['{', '[]', '7', 'null', '{}', '{"a": 1, "a": 2}', { format: 'hkgai-routing-2' }, { moe_layers: [1], counts: [] }])
      expect(refusedCounts(v)[0]).toBe('HK2720');
    expect(refusedCounts({ format: 'hkgai-routing-1', model: identity, labels: {} })[0]).toBe('HK2720');
    // names that a terminal would obey, and layers that are none
    const evil = 'a\u001b[2J';
    const named = (label: string, name: unknown) => ({
      format: 'hkgai-routing-1',
      model: identity,
      topK: 4,
      labels: { [label]: { texts: [{ name, sha256: '', tokens: 1 }], layers: [] } },
    });
    for (const v of [named(evil, 'a'), named('a', evil), named('a', 7)])
      expect(refusedCounts(v)).toEqual(['HK2720', expect.stringContaining('is no text without control characters')]);
    expect(refusedCounts(named('a', 'a'))[0]).not.toBe('HK2720');
    for (const layer of [evil, null, -1])
      expect(refusedCounts({ moe_layers: [layer, 2, 3], counts: good.counts })).toEqual([
        'HK2720',
        expect.stringContaining('moe_layers are no whole numbers'),
      ]);
    expect(refusedCounts(readFileSync(file, 'utf8'), ['fr'])).toEqual(['HK2726', expect.stringContaining('Its labels: en, yue, zh-Hant.')]);
    expect(refusedCounts(good, ['en'])[0]).toBe('HK2726');
    expect(refusedCounts(readFileSync(file, 'utf8').replace(/"counts":\[\d+/, '"counts":[-5'))[0]).toBe('HK2722');
  });
  it('refuses the trace of another model', () => {
    const other = openCheckpoint(join(fixtures, 'tiny/v3-tiny-fp8'));
    const otherModel = buildModel(other.config, other.tensors);
    const [code, text] = codeOf(() =>
      readCounts(file, [], identityOf(other, otherModel), expertLayers(otherModel.graph), other.config.layers),
    );
    expect([code, text]).toEqual(['HK2721', expect.stringContaining('Its tensors have other names or shapes.')]);
    const trace = JSON.parse(readFileSync(file, 'utf8'));
    trace.model.routers[2] = '0';
    expect(refusedCounts(trace)).toEqual(['HK2721', expect.stringContaining('The routers of layers 2 hold other values.')]);
    expect(refusedCounts({ ...trace, model: null })[0]).toBe('HK2721');
    const more = { ...JSON.parse(readFileSync(file, 'utf8')), topK: 5 };
    expect(refusedCounts(more)).toEqual(['HK2721', expect.stringContaining('Its tokens choose 5 experts, and those of this model 4.')]);
  });
});
