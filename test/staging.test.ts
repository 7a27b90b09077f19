// What compile writes for devices: weight files by rank, lists and indices by node that are complete and minimal, the maps that engines read; on every
// target whose engines take experts, and in a container that has no files by rank.
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { readLedger } from '../src/bundle/ledger.js';
import { readHeader } from '../src/checkpoint/safetensors.js';
import { openCheckpoint } from '../src/checkpoint/shards.js';
import { type CompileOptions, compile } from '../src/compile.js';
import { fileAndLabels } from '../src/experts.js';
import { ranksOn } from '../src/placement/staging.js';
import { findRunnable } from '../src/run.js';
import { traceTexts } from '../src/trace.js';
import { take } from './gguf-file.js';
import { fixtures } from './golden-cases.js';

const work = mkdtempSync(join(tmpdir(), 'hkgai-staging-'));
afterAll(() => rmSync(work, { recursive: true }));
const quiet = { step: () => {}, at: () => {} };
const nano = join(fixtures, 'hkgai-nano');
const trace = join(work, 'trace.json');
const base: Omit<CompileOptions, 'out' | 'targets' | 'quantise'> = {
  state: 'f32',
  mtp: null,
  weights: 'auto',
  sequences: 1,
  chunk: 32,
  force: false,
  allowPhantomKeys: false,
  version: 'test',
  noCache: true,
  jobs: 0,
};
let count = 0;
async function made(o: Partial<CompileOptions> & { readonly targets: readonly string[] }, model = nano): Promise<string> {
  const out = join(work, `out-${count++}`);
  await compile(model, { ...base, out, quantise: 'none', ...o }, quiet);
  return out;
}
const json = (...path: readonly string[]) => JSON.parse(readFileSync(join(...path), 'utf8'));
const range = (n: number): readonly number[] => Array.from({ length: n }, (_, i) => i);
const expertOf = (name: string): number | null => {
  const m = /\.experts\.(\d+)\./.exec(name);
  return m ? Number(m[1]) : null;
};
const layerOf = (name: string): number => Number(/layers\.(\d+)\./.exec(name)?.[1] ?? -1);
interface Stage {
  readonly node: number;
  readonly ranks: readonly number[];
  readonly files: readonly string[];
  readonly bytes: number;
  readonly index: string;
}

beforeAll(async () => {
  const r = findRunnable(nano);
  const own = readFileSync(join(fixtures, 'eval/calibration_own.txt'), 'utf8').split('\n');
  const texts = [
    { label: 'han', name: 'han', text: own.filter(l => /\p{Script=Han}/u.test(l)).join('\n') },
    { label: 'en', name: 'en', text: own.filter(l => !/\p{Script=Han}/u.test(l)).join('\n') },
  ];
  await traceTexts(r, texts, trace, 'auto', 0, quiet);
  r.dispose();
});

/** Each node's files hold all that its ranks load, and none holds nothing of it; its index names what is in them. */
function audit(target: string, wanted: (node: number, layer: number) => readonly number[]): readonly Stage[] {
  const engine = join(target, 'engine');
  const headers = new Map(
    readdirSync(engine)
      .filter(f => f.endsWith('.safetensors'))
      .map(f => [f, [...readHeader(join(engine, f), f).tensors.keys()]]),
  );
  const staging = json(target, 'placement/staging.json') as { readonly nodes: readonly Stage[] };
  for (const n of staging.nodes) {
    const loads = (name: string): boolean => {
      const e = expertOf(name);
      return e === null || wanted(n.node, layerOf(name)).includes(e);
    };
    for (const [f, names] of headers) expect([n.node, f, n.files.includes(f)]).toEqual([n.node, f, names.some(loads)]);
    const index = json(target, 'placement', n.index) as { readonly metadata: { readonly total_size: number }; readonly weight_map: object };
    const here = n.files.flatMap(f => headers.get(f)!.map(name => [name, f] as const));
    expect(index.weight_map).toEqual(Object.fromEntries(here));
    expect(n.bytes).toBe(n.files.reduce((k, f) => k + readFileSync(join(engine, f)).length, 0));
    const sizes = new Map([...openCheckpoint(engine).tensors.values()].map(t => [t.name, t.bytes[1] - t.bytes[0]]));
    expect(index.metadata.total_size).toBe(here.reduce((k, [name]) => k + sizes.get(name)!, 0));
  }
  return staging.nodes;
}

describe('compile --parallel', () => {
  it('puts experts in files by rank, and says what each node needs', async () => {
    const out = join(await made({ targets: ['cpu'], parallel: 'dp=8,ep=8,nodes=2', experts: trace, shardBytes: 1 << 20 }), 'cpu');
    const files = readdirSync(join(out, 'engine')).filter(f => f.endsWith('.safetensors'));
    expect([...new Set(files.map(f => f.replace(/-\d{5}-of-\d{5}/, '')))].sort()).toEqual([
      'dense.safetensors',
      ...range(8).map(r => `experts-ep${r}of8.safetensors`),
    ]);
    for (const f of files) {
      const names = [...readHeader(join(out, 'engine', f), f).tensors.keys()];
      const ranks = new Set(names.map(n => (expertOf(n) === null ? -1 : Math.floor((expertOf(n) as number) / 2))));
      expect([...ranks]).toEqual([f.startsWith('dense') ? -1 : Number(/ep(\d)/.exec(f)![1])]);
    }
    const nodes = audit(out, node => range(8).map(e => node * 8 + e));
    expect(nodes.map(n => n.ranks)).toEqual([
      [0, 1, 2, 3],
      [4, 5, 6, 7],
    ]);
    expect(nodes[0]!.files.filter(f => f.startsWith('experts-ep4'))).toEqual([]);
    // without replicas the order of numbers is the map
    expect(readdirSync(join(out, 'engine')).filter(f => /expert.*json$/.test(f))).toEqual([]);
    const p = json(out, 'placement/placement.json');
    expect(p.from).toBe('trace.json (en, han)');
    expect(p.all.after.load.mean).toBeLessThan(p.all.before.load.mean - 0.05);
    for (const l of p.layers)
      for (const k of ['inside', 'between', 'betweenOnce']) expect(l.after.bytesPerToken[k]).toBe(Math.round(l.after.copies[k] * 160 * 4));
    const manifest = json(out, '../bundle.json');
    expect(manifest.files['cpu/placement/staging.json'].sha256).toMatch(/^[0-9a-f]{64}$/);
    const notes: readonly string[] = manifest.targets[0].notes;
    expect(
      notes.find(n => n.startsWith('Experts of 4 layers are renumbered for tp=1,dp=8,pp=1,ep=8 by trace.json (en, han)')),
    ).toBeDefined();
  });
  it('without counts: nothing moves, files are by rank all the same', async () => {
    const out = join(await made({ targets: ['cpu'], parallel: 'tp=2,ep=2' }), 'cpu');
    expect(
      readdirSync(join(out, 'engine'))
        .filter(f => f.endsWith('.safetensors'))
        .sort(),
    ).toEqual([
      'dense-00001-of-00001.safetensors',
      'experts-ep0of2-00001-of-00001.safetensors',
      'experts-ep1of2-00001-of-00001.safetensors',
    ]);
    expect(json(out, 'placement/placement.json').layers.every((l: { oldOf: readonly number[] }) => l.oldOf.every((e, i) => e === i))).toBe(
      true,
    );
    audit(out, () => range(16));
    for (const o of readLedger(out).outputs) expect(o.from).toEqual([o.output]);
  });
  /** The expert at each place, by layer. */
  const placedIn = (target: string): ReadonlyMap<number, readonly number[]> =>
    new Map(json(target, 'placement/placement.json').layers.map((l: { layer: number; placed: readonly number[] }) => [l.layer, l.placed]));
  it('with replicas: each node the experts that stand on it', async () => {
    const out = join(await made({ targets: ['cpu'], parallel: 'dp=8,ep=8,nodes=4,redundant=8', experts: trace }), 'cpu');
    const placed = placedIn(out);
    expect([...placed.values()].map(r => r.length)).toEqual([24, 24, 24, 24]);
    const nodes = audit(out, (node, layer) => (layer === 4 ? range(16) : placed.get(layer)!.slice(node * 6, node * 6 + 6)));
    expect(nodes).toHaveLength(4);
    // the second copy of an expert takes half of its tokens
    const p = json(out, 'placement/placement.json');
    expect(p.all.after.load.mean).toBeLessThan(p.all.before.load.mean);
    // no engine of this target reads a map
    expect(readdirSync(join(out, 'engine')).filter(f => /expert.*json$/.test(f))).toEqual([]);
  });
  it('by maps alone: numbers stay, the map says where experts lie', async () => {
    const o = { parallel: 'dp=4,ep=4,nodes=2', experts: `${trace}:han`, expertsForm: 'map' as const };
    const out = join(await made({ targets: ['cpu'], ...o }), 'cpu');
    const p = json(out, 'placement/placement.json');
    expect(p.from).toBe('trace.json (han)');
    expect(p.layers.every((l: { oldOf: readonly number[] }) => l.oldOf.every((e, i) => e === i))).toBe(true);
    const placed = placedIn(out);
    expect(placed.get(1)).not.toEqual(range(16));
    expect([...placed.get(1)!].sort((a, b) => a - b)).toEqual(range(16));
    audit(out, (node, layer) => (layer === 4 ? range(16) : placed.get(layer)!.slice(node * 8, node * 8 + 8)));
  });
  it('is read by the engines of every target, with the maps that they read', async () => {
    for (const [target, quantise, runtime, maps] of [
      ['cuda:h20', 'none', 'vllm', []],
      ['cuda:h20', 'w4a16', 'sglang', ['sglang-expert-location.json']],
      ['ascend:910b', 'w8a8', 'vllm-ascend@0.23', ['expert-map.json']],
      ['ascend:910b', 'w8a8', 'mindie', ['expert-map.json']],
      ['biren', 'bf16', null, []],
    ] as const) {
      // compile holds the directory against the engine's rules, and refuses what breaks one
      const model = target === 'cuda:h20' && quantise === 'none' ? join(fixtures, 'hkgai-nano-fp8') : nano;
      // the vendor's vLLM is not known to take several replicas of a model, nor of an expert
      const parallel = target === 'biren' ? 'tp=4,ep=4,nodes=2' : 'dp=4,ep=4,nodes=2,redundant=4';
      const out = await made({ targets: [target], quantise, runtime, parallel, experts: trace }, model);
      const dir = join(out, readdirSync(out).find(f => existsSync(join(out, f, 'engine')))!);
      const engine = readdirSync(join(dir, 'engine'));
      expect([target, runtime, engine.filter(f => /expert.*json$/.test(f))]).toEqual([target, runtime, maps]);
      expect(engine.some(f => f.startsWith('experts-ep3of4-'))).toBe(true);
      expect(json(dir, 'placement/staging.json').nodes).toHaveLength(2);
      if (target === 'biren') continue;
      const placed = placedIn(dir);
      if (runtime === 'sglang') {
        const { physical_to_logical_map: rows } = json(dir, 'engine/sglang-expert-location.json');
        expect(rows).toEqual([[...range(16), ...range(4)], placed.get(1), placed.get(2), placed.get(3)]);
      }
      if (target === 'ascend:910b') {
        const map = json(dir, 'engine/expert-map.json');
        expect([map.moe_layer_count, map.layer_list.map((l: { device_count: number }) => l.device_count)]).toEqual([3, [4, 4, 4]]);
        expect(map.layer_list[1].device_list[2].device_expert).toEqual(placed.get(2)!.slice(10, 15));
      }
    }
  });
  it('in a GGUF: experts and routers in their new order, in one file', async () => {
    const o = { targets: ['cpu'], quantise: 'q8_0', runtime: 'llama.cpp', shardBytes: 1 << 30 };
    const [plain, moved] = [await made(o), await made({ ...o, parallel: 'dp=8,ep=8,nodes=2', experts: trace })];
    const of = (out: string) => take(join(out, 'cpu/engine', readdirSync(join(out, 'cpu/engine')).find(f => f.endsWith('.gguf'))!));
    const [a, b] = [of(plain), of(moved)];
    const orders = new Map<number, readonly number[]>(
      json(moved, 'cpu/placement/placement.json').layers.map((l: { layer: number; oldOf: readonly number[] }) => [l.layer, l.oldOf]),
    );
    expect(existsSync(join(moved, 'cpu/placement/staging.json'))).toBe(false);
    let checked = 0;
    for (const [i, t] of a.tensors.entries()) {
      const is = b.tensors[i]!;
      expect(is.name).toBe(t.name);
      const m = /^blk\.(\d+)\.(ffn_(gate|up|down)_exps|ffn_gate_inp|exp_probs_b)\./.exec(t.name);
      const oldOf = m ? orders.get(Number(m[1])) : undefined;
      if (!oldOf) {
        expect([t.name, Buffer.from(is.bytes).equals(Buffer.from(t.bytes))]).toEqual([t.name, true]);
        continue;
      }
      const pitch = t.bytes.length / 16;
      expect(Buffer.from(is.bytes).equals(Buffer.concat(oldOf.map(e => t.bytes.subarray(e * pitch, (e + 1) * pitch))))).toBe(true);
      checked++;
    }
    expect(checked).toBeGreaterThanOrEqual(15);
  });
  it('takes labels behind the name of a file', () => {
    expect(fileAndLabels(`${trace}:yue,zh-Hant`)).toEqual([trace, ['yue', 'zh-Hant']]);
    expect(fileAndLabels(trace)).toEqual([trace, []]);
  });
});

describe('ranks on a node', () => {
  it('are a part of a stage, a whole one, or several', () => {
    expect(range(4).map(n => ranksOn(n, { nodes: 4, devicesPerNode: 2, ranks: 8 }))).toEqual([
      [0, 1],
      [2, 3],
      [4, 5],
      [6, 7],
    ]);
    expect(range(4).map(n => ranksOn(n, { nodes: 4, devicesPerNode: 2, ranks: 4 }))).toEqual([
      [0, 1],
      [2, 3],
      [0, 1],
      [2, 3],
    ]);
    expect(ranksOn(0, { nodes: 1, devicesPerNode: 8, ranks: 4 })).toEqual([0, 1, 2, 3]);
  });
});
