// Renumbered experts, in every generation and storage: the written model says what the source says, on the native program and on the interpreter;
// every tensor moved whole, the ledger says where to, routers' rows and tables with them.
import { createHash } from 'node:crypto';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from '@jest/globals';
import { Refusal } from '../ir/problem.js';
import { buildNative } from '../src/build.js';
import { readLedger } from '../src/bundle/ledger.js';
import { canonicalName } from '../src/checkpoint/names.js';
import { type Checkpoint, openCheckpoint } from '../src/checkpoint/shards.js';
import { type CompileOptions, compile } from '../src/compile.js';
import { compiler } from '../src/doctor.js';
import { identityOf } from '../src/experts.js';
import { layerOf, sourcesOf } from '../src/logical.js';
import { buildModel, defaultOptions } from '../src/models/index.js';
import { expertLayers } from '../src/passes/shard-experts.js';
import { placementFormat } from '../src/placement/counts.js';
import { inverse, isIdentity } from '../src/placement/placement.js';
import { renumbered } from '../src/renumber.js';
import { openNative, openReference, type Session } from '../src/session.js';
import { Spoilt } from './engine-directory.js';
import { fixtures, recorded, worst } from './golden-cases.js';

const work = mkdtempSync(join(tmpdir(), 'hkgai-renumber-'));
afterAll(() => rmSync(work, { recursive: true }));
const quiet = { step: () => {}, at: () => {} };
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
async function made(model: string, o: Partial<CompileOptions> = {}): Promise<string> {
  const out = join(work, `out-${count++}`);
  await compile(model, { ...base, out, targets: ['cpu'], quantise: 'none', ...o }, quiet);
  return out;
}

interface Orders {
  readonly file: string;
  /** Old number of each new one, by layer. */
  readonly of: ReadonlyMap<number, readonly number[]>;
}
/** A numbering in which every layer's experts move, groups and members: not one that is even. */
function shuffled(model: string): Orders {
  const c = openCheckpoint(model);
  const built = buildModel(c.config, c.tensors);
  let state = 7;
  const next = (n: number): number => {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0;
    return (state >>> 8) % n;
  };
  const shuffle = (list: readonly number[]): readonly number[] => {
    const a = [...list];
    for (let i = a.length - 1; i > 0; i--) {
      const j = next(i + 1);
      [a[i], a[j]] = [a[j]!, a[i]!];
    }
    return a;
  };
  const range = (n: number): readonly number[] => Array.from({ length: n }, (_, i) => i);
  const layers = expertLayers(built.graph).map(({ layer, experts, groups }) => {
    const size = experts / groups;
    let oldOf: readonly number[];
    do oldOf = shuffle(range(groups)).flatMap(g => shuffle(range(size)).map(i => g * size + i));
    while (isIdentity(oldOf));
    return { layer, oldOf };
  });
  const file = join(work, `orders-${count++}.json`);
  writeFileSync(file, JSON.stringify({ format: placementFormat, model: identityOf(c, built), layers }));
  return { file, of: new Map(layers.map(l => [l.layer, l.oldOf])) };
}

/** Programs are built without optimisation: these are small models, and a compiler takes longer than they run. */
async function sessions(dir: string, native: boolean): Promise<readonly Session[]> {
  const c = openCheckpoint(join(dir, 'cpu/engine'));
  const options = {
    ...defaultOptions(c.config),
    limits: { tokens: 32, wanted: 32, sequences: 1, context: Math.min(c.config.maxPositions, 4096) },
  };
  const reference = await openReference(join(dir, 'cpu/engine'), options);
  if (!native || compiler() === null) return [reference];
  return [reference, await openNative((await buildNative(join(dir, 'cpu/native'), '-O0')).program, join(dir, 'cpu/engine'))];
}
/** Logits of recorded sequences, and of the MTP block where there is one. */
async function logits(
  dir: string,
  native: boolean,
  ids: readonly number[],
): Promise<readonly { readonly engine: string; readonly values: Float32Array }[]> {
  const out: { readonly engine: string; readonly values: Float32Array }[] = [];
  for (const s of await sessions(dir, native))
    try {
      const all: number[] = [];
      for (let from = 0; from < ids.length; from += s.chunk) {
        const some = ids.slice(from, from + s.chunk);
        const step = { ids: some, positions: some.map((_, i) => from + i), sequences: some.map(() => 0) };
        const got = await s.step(s.mtp > 0 ? { ...step, nextIds: some.map((_, i) => ids[from + i + 1] ?? 0) } : step);
        for (const v of got.logits) all.push(v);
        if (s.mtp > 0) {
          expect(got.mtp!.length).toBe(got.logits.length);
          for (const v of got.mtp!) all.push(v);
        }
      }
      out.push({ engine: s.engine, values: Float32Array.from(all) });
    } finally {
      await s.close();
    }
  return out;
}
const bytesOf = (c: Checkpoint, name: string): Buffer => {
  const t = c.tensors.get(name)!;
  return readFileSync(join(c.dir, t.file)).subarray(t.bytes[0], t.bytes[1]);
};

/** Each tensor of the output is a tensor of the source, whole, under the number that its expert has now; nothing is left over. */
function audit(model: string, out: string, orders: Orders): { readonly moved: number; readonly rows: number } {
  const [a, b] = [openCheckpoint(model), openCheckpoint(join(out, 'cpu/engine'))];
  const ledger = readLedger(join(out, 'cpu'));
  const byOutput = new Map(ledger.outputs.map(o => [o.output, o]));
  const found = { moved: 0, rows: 0 };
  expect(b.tensors.size).toBe(a.tensors.size);
  for (const name of a.tensors.keys()) {
    const canonical = canonicalName(name, a.config.family);
    const layer = layerOf(canonical, a.config.layers);
    const oldOf = orders.of.get(layer);
    const old = /\.experts\.(\d+)\./.exec(canonical)?.[1];
    const to = oldOf && old !== undefined ? canonical.replace(/\.experts\.\d+\./, `.experts.${inverse(oldOf)[Number(old)]}.`) : canonical;
    expect([to, b.tensors.has(to)]).toEqual([to, true]);
    expect(byOutput.get(to)!.from).toEqual([name]);
    const [was, is] = [bytesOf(a, name), bytesOf(b, to)];
    if (oldOf && /\.gate\.(weight|bias|e_score_correction_bias)$/.test(canonical)) {
      const pitch = was.length / oldOf.length;
      expect(is.equals(Buffer.concat(oldOf.map(e => was.subarray(e * pitch, (e + 1) * pitch))))).toBe(true);
      expect(byOutput.get(to)!.recipe).toContain('experts renumbered');
      found.rows++;
    } else if (oldOf && canonical.endsWith('tid2eid')) {
      const newOf = inverse(oldOf);
      for (let i = 0; i < was.length; i += 8) expect(Number(is.readBigInt64LE(i))).toBe(newOf[Number(was.readBigInt64LE(i))]);
      expect(is.equals(was)).toBe(false);
      found.rows++;
    } else {
      expect([name, createHash('sha256').update(is).digest('hex')]).toEqual([name, createHash('sha256').update(was).digest('hex')]);
      if (to !== canonical) found.moved++;
    }
  }
  return found;
}
const parallel = 'dp=2,ep=2';

describe('renumbered experts', () => {
  // each generation as a program too; the other storages on the interpreter
  const generations = ['v2-tiny', 'v3-tiny-fp8', 'v4-tiny-fp8fp4'];
  for (const name of [...generations, 'v2-lite-tiny', 'v3-tiny-bf16', 'v3-tiny-fp8-ue8m0', 'v32-tiny', 'v4-tiny'])
    it(`${name}: the same model`, async () => {
      const native = generations.includes(name);
      const model = join(fixtures, 'tiny', name);
      const orders = shuffled(model);
      const [plain, moved] = [await made(model), await made(model, { experts: orders.file, parallel })];
      const found = audit(model, moved, orders);
      expect(found.moved).toBeGreaterThan(10);
      expect(found.rows).toBeGreaterThanOrEqual(orders.of.size);
      const golden = recorded(join(model, 'golden.safetensors'));
      const ids = [...(golden.get([...golden.keys()].filter(k => k.endsWith('.input_ids')).sort()[0]!)!.data as Int32Array)].slice(0, 64);
      const [want, got] = [await logits(plain, native, ids), await logits(moved, native, ids)];
      expect(got.map(g => g.engine)).toEqual(want.map(w => w.engine));
      want.forEach((w, i) => expect(worst(got[i]!.values, w.values)).toBeLessThan(2e-5));
      // and they are what was recorded of the official code, not only what both builds share
      const key = [...golden.keys()].filter(k => k.endsWith('.logits')).sort()[0]!;
      const s = (await sessions(moved, native)).at(-1)!;
      try {
        const all = [...(golden.get(key.replace('.logits', '.input_ids'))!.data as Int32Array)].slice(0, 32);
        const { logits: first } = await s.step({ ids: all, positions: all.map((_, i) => i), sequences: all.map(() => 0) });
        expect(worst(first, (golden.get(key)!.data as Float32Array).subarray(0, first.length))).toBeLessThan(2e-4);
      } finally {
        await s.close();
      }
    });

  it('an MTP block moves too', async () => {
    const model = join(fixtures, 'tiny/v3-tiny-fp8');
    expect([...shuffled(model).of.keys()]).toEqual([1, 2, 3]); // three decoder layers, the first dense; block 3 is the MTP block
  });

  it('in other storages: what a recipe makes of an expert follows it', async () => {
    const model = join(fixtures, 'hkgai-nano');
    const orders = shuffled(model);
    for (const quantise of ['int8', 'int4']) {
      const [plain, moved] = [await made(model, { quantise }), await made(model, { quantise, experts: orders.file, parallel })];
      const [a, b] = [openCheckpoint(join(plain, 'cpu/engine')), openCheckpoint(join(moved, 'cpu/engine'))];
      let experts = 0;
      for (const name of a.tensors.keys()) {
        const old = /layers\.(\d+)\..*\.experts\.(\d+)\./.exec(name);
        if (!old) continue;
        const to = name.replace(/\.experts\.\d+\./, `.experts.${inverse(orders.of.get(Number(old[1]))!)[Number(old[2])]}.`);
        expect([to, bytesOf(b, to).equals(bytesOf(a, name))]).toEqual([to, true]);
        experts++;
      }
      expect(experts).toBeGreaterThan(200);
    }
  });

  it('with a router that is cast: its rows are cast in their new order', async () => {
    const model = join(fixtures, 'tiny/v3-tiny-bf16');
    const orders = shuffled(model);
    const recipe = join(work, 'router.json');
    const rules = [...orders.of.keys()].flatMap(l => [
      { tensors: `model.layers.${l}.mlp.gate.weight`, to: 'f32' },
      { tensors: `model.layers.${l}.mlp.gate.e_score_correction_bias`, to: 'bf16' },
    ]);
    writeFileSync(
      recipe,
      JSON.stringify({ format: 'hkgai-recipe-1', name: 'router', rules, otherwise: 'keep', mtp: 'quantise', activations: 'none' }),
    );
    const o = { quantise: recipe, mtp: 'quantise' as const };
    const [plain, moved] = [await made(model, o), await made(model, { ...o, experts: orders.file, parallel })];
    const [a, b] = [openCheckpoint(join(plain, 'cpu/engine')), openCheckpoint(join(moved, 'cpu/engine'))];
    for (const [l, oldOf] of orders.of)
      for (const part of ['weight', 'e_score_correction_bias']) {
        const name = `model.layers.${l}.mlp.gate.${part}`;
        expect(a.tensors.get(name)!.dtype).toBe(part === 'weight' ? 'F32' : 'BF16');
        const was = bytesOf(a, name);
        const pitch = was.length / oldOf.length;
        expect(bytesOf(b, name).equals(Buffer.concat(oldOf.map(e => was.subarray(e * pitch, (e + 1) * pitch))))).toBe(true);
      }
    const balanced = readLedger(join(moved, 'cpu'));
    expect(balanced.sources.every(s => /^[0-9a-f]{64}$/.test(s.sha256) && s.to.length === 1)).toBe(true);
  });
  it('without MTP blocks: what is dropped is not looked for', async () => {
    const model = join(fixtures, 'tiny/v3-tiny-bf16');
    const orders = shuffled(model);
    const out = await made(model, { mtp: 'drop', quantise: 'none', experts: orders.file, parallel });
    const c = openCheckpoint(join(out, 'cpu/engine'));
    expect([...c.tensors.keys()].filter(n => n.startsWith('model.layers.3.'))).toEqual([]);
    const name = (e: number): string => `model.layers.1.mlp.experts.${e}.down_proj.weight`;
    orders.of
      .get(1)!
      .forEach((old, now) => void expect(bytesOf(c, name(now)).equals(bytesOf(openCheckpoint(model), name(old)))).toBe(true));
  });
  // which files and lists there are: test/staging.test.ts
  it('says so in the bundle', async () => {
    const model = join(fixtures, 'tiny/v3-tiny-fp8');
    const orders = shuffled(model);
    const out = await made(model, { experts: orders.file, parallel });
    const kept = JSON.parse(readFileSync(join(out, 'cpu/placement/placement.json'), 'utf8'));
    expect(kept.layers.map((l: { oldOf: readonly number[] }) => l.oldOf)).toEqual([...orders.of.values()]);
    expect(existsSync(join(out, 'cpu/engine/expert-map.json'))).toBe(false);
    // the placement in the bundle makes the same bundle again
    const again = await made(model, { experts: join(out, 'cpu/placement/placement.json'), parallel });
    for (const f of readdirSync(join(out, 'cpu/engine')))
      expect([f, readFileSync(join(again, 'cpu/engine', f)).equals(readFileSync(join(out, 'cpu/engine', f)))]).toEqual([f, true]);
    // and is refused for what was made of it: those experts have other numbers
    const e = await made(join(out, 'cpu/engine'), { experts: orders.file, parallel }).catch(x => x);
    expect((e as Refusal).problems?.[0]?.code).toBe('HK2721');
  });

  const refused = async (model: string, o: Partial<CompileOptions>): Promise<readonly [code: string, text: string]> => {
    const e = await made(model, o).catch(x => x);
    if (!(e instanceof Refusal)) throw e instanceof Error ? e : new Error('nothing was refused');
    return [e.problems[0]!.code, e.message];
  };
  it('refuses placements that would make another model', async () => {
    const model = join(fixtures, 'tiny/v3-tiny-fp8');
    const orders = shuffled(model);
    const torn = JSON.parse(readFileSync(orders.file, 'utf8'));
    torn.layers[0].oldOf = [1, 2, 0, 3, 4, 5, 6, 7];
    const file = join(work, 'torn.json');
    const with_ = (v: unknown): string => {
      writeFileSync(file, JSON.stringify(v));
      return file;
    };
    expect(await refused(model, { experts: with_(torn), parallel })).toEqual([
      'HK2727',
      expect.stringContaining('Layer 1: Experts 1 and 2 come into one of 4 groups, and were in two'),
    ]);
    torn.layers[0].oldOf = [0, 0, 1, 2, 3, 4, 5, 6];
    expect((await refused(model, { experts: with_(torn), parallel }))[1]).toContain('does not name each of 8 experts once');
    torn.layers[0] = { layer: 0, oldOf: [0] };
    expect((await refused(model, { experts: with_(torn), parallel }))[1]).toContain('Layers 0 have no experts');
    expect((await refused(model, { experts: orders.file }))[0]).toBe('HK2729');
    expect((await refused(model, { experts: orders.file, parallel: 'tp=2,ep=1' }))[0]).toBe('HK2729');
    expect((await refused(model, { experts: orders.file, parallel: 'dp=3,ep=3' }))[0]).toBe('HK2723');
    expect((await refused(join(fixtures, 'tiny/v32-tiny'), { experts: orders.file, parallel }))[0]).toBe('HK2721');
    expect((await refused(join(fixtures, 'tiny/llama-distill-tiny'), { experts: orders.file, parallel }))[0]).toBe('HK2724');
    expect((await refused(model, { experts: work, parallel }))[0]).toBe('HK2003');
  });
  it('takes along what no program reads but belongs to an expert, and refuses what it does not know', () => {
    const c = openCheckpoint(join(fixtures, 'tiny/v3-tiny-bf16'));
    const sources = sourcesOf(c.config, buildModel(c.config, c.tensors), c.tensors);
    const nothing = { chosen: [], dropped: [], notes: [] };
    const carrying = (name: string) => ({ ...sources, carried: [{ ...[...c.tensors.values()][0]!, name }] });
    const orders = new Map([[1, [1, 0, 2, 3, 4, 5, 6, 7]]]);
    const as = (name: string) => renumbered(carrying(name), nothing, orders, 3).sources.carriedAs?.get(name);
    expect(as('model.layers.1.mlp.experts.0.up_proj.input_scale')).toBe('model.layers.1.mlp.experts.1.up_proj.input_scale');
    expect(as('model.layers.2.mlp.experts.0.up_proj.input_scale')).toBeUndefined();
    for (const name of ['model.layers.1.mlp.gate.bias_vl', 'model.layers.1.mlp.experts.smooth'])
      expect(() => as(name)).toThrow(`HK2728  Experts cannot be renumbered: ${name} is not known`);
  });
});

it('a table that names an expert that is not there is refused with tensor, number and place', async () => {
  const copy = new Spoilt(join(fixtures, 'tiny/v4-tiny'), join(work, 'no such expert'));
  copy.remove('golden.safetensors');
  let name = '';
  copy.tensors(/tid2eid$/, t => {
    name = t.name;
    new DataView(t.bytes.buffer, t.bytes.byteOffset).setBigInt64(24, 77n, true);
  });
  const e = await made(copy.dir, { experts: shuffled(copy.dir).file, parallel: 'dp=2,ep=2' }).catch(x => x);
  expect(e).toBeInstanceOf(Refusal);
  expect((e as Refusal).message).toMatch(new RegExp(`HK3604 .*${name} names expert 77, and there are \\d+`));
});
