// No weight is lost, made up or misread: a checkpoint that lacks anything, or has anything that is not what it should be, is refused with the tensor
// and its place before a byte is written. One tensor of every kind of every family is removed, renamed, reshaped and re-typed.
import { cpSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from '@jest/globals';
import { type Problem, Refusal } from '../ir/problem.js';
import { parseConfig } from '../src/checkpoint/config.js';
import { canonicalName } from '../src/checkpoint/names.js';
import { readHeader } from '../src/checkpoint/safetensors.js';
import { compile } from '../src/compile.js';
import { expectedTensors } from '../src/models/index.js';
import { fixtures } from './golden-cases.js';
import { type SyntheticTensor, writeShard } from './synthetic-checkpoint.js';

const work = mkdtempSync(join(tmpdir(), 'hkgai-nothing-lost-'));
afterAll(() => rmSync(work, { recursive: true }));
const indexName = 'model.safetensors.index.json';
const quiet = { step: () => {}, at: () => {} };

/** What comes of compiling for a target: problems, or none. Asserts that nothing was written where there are some. */
async function refused(model: string, target: string): Promise<readonly Problem[]> {
  const place = mkdtempSync(join(work, 'out-'));
  try {
    await compile(
      model,
      {
        out: join(place, 'out'),
        targets: [target],
        quantise: null,
        state: 'f32',
        mtp: null,
        weights: 'auto',
        sequences: 1,
        chunk: 16,
        force: false,
        allowPhantomKeys: false,
        version: 'test',
        noCache: true,
        jobs: 0,
      },
      quiet,
    );
  } catch (e) {
    if (!(e instanceof Refusal)) throw e;
    expect(readdirSync(place)).toEqual([]);
    expect(e.exit).toBe(3);
    return e.problems;
  } finally {
    rmSync(place, { recursive: true });
  }
  return [];
}

/** A copy of a fixture whose shards can be changed and put back. */
class Model {
  readonly dir: string;
  readonly #from: string;
  readonly #read = new Map<string, readonly SyntheticTensor[]>();
  readonly #changed = new Set<string>();
  constructor(fixture: string) {
    this.#from = join(fixtures, fixture);
    this.dir = join(work, fixture.replace('/', '-'));
    cpSync(this.#from, this.dir, { recursive: true });
  }
  get shards(): readonly string[] {
    return readdirSync(this.#from)
      .filter(f => /^model.*\.safetensors$/.test(f))
      .sort();
  }
  tensors(shard: string): readonly SyntheticTensor[] {
    const known = this.#read.get(shard);
    if (known) return known;
    const bytes = readFileSync(join(this.#from, shard));
    const list = [...readHeader(join(this.#from, shard), shard).tensors.values()].map(t => ({
      name: t.name,
      dtype: t.dtype,
      shape: t.shape,
      bytes: bytes.subarray(t.bytes[0], t.bytes[1]),
    }));
    this.#read.set(shard, list);
    return list;
  }
  get names(): readonly string[] {
    return this.shards.flatMap(s => this.tensors(s).map(t => t.name));
  }
  /** Change tensors, and the index with them: null removes one. */
  change(how: (t: SyntheticTensor) => SyntheticTensor | null): void {
    const map: Record<string, string> = {};
    for (const s of this.shards) {
      const was = this.tensors(s);
      const is = was.flatMap(t => how(t) ?? []);
      for (const t of is) map[t.name] = s;
      if (is.length !== was.length || is.some((t, i) => t !== was[i])) this.write(s, is);
    }
    if (existsSync(join(this.#from, indexName)))
      writeFileSync(join(this.dir, indexName), JSON.stringify({ metadata: {}, weight_map: map }));
  }
  write(shard: string, tensors: readonly SyntheticTensor[]): void {
    this.#changed.add(shard);
    writeShard(join(this.dir, shard), tensors);
  }
  remove(shard: string): void {
    this.#changed.add(shard);
    rmSync(join(this.dir, shard));
  }
  /** As the fixture has it. */
  restore(): void {
    for (const f of [...this.#changed, indexName]) {
      rmSync(join(this.dir, f), { force: true });
      if (existsSync(join(this.#from, f))) cpSync(join(this.#from, f), join(this.dir, f));
    }
    this.#changed.clear();
  }
  get config() {
    return parseConfig(readFileSync(join(this.dir, 'config.json'), 'utf8'), 'config.json');
  }
}

/** Another dtype of the same size that a tensor could be taken for. */
const other: Readonly<Record<string, readonly string[]>> = {
  BF16: ['F16', 'I16'],
  F32: ['I32'],
  F8_E4M3: ['F8_E5M2', 'I8'],
  F8_E8M0: ['U8'],
  I8: ['U8', 'F8_E4M3'],
  I64: ['F64'],
};
/** Another shape of the same size. */
function reshaped(shape: readonly number[]): readonly number[] {
  const [a = 1, b] = shape;
  if (b === undefined || a * b === 1) return b === undefined ? [1, a] : [1];
  return a !== b ? [b, a] : [a * 2, b / 2];
}
const kind = (name: string): string => name.replace(/\d+/g, 'N');
const says = (problems: readonly Problem[], name: string): readonly Problem[] =>
  problems.filter(p => `${p.what} `.includes(`${name} `) || p.what.includes(`${name},`));
const targetsTried = ['cpu', 'cuda', 'ascend', 'biren'] as const;

for (const fixture of ['hkgai-nano-fp8', 'tiny/v3-tiny-fp8', 'tiny/v4-tiny-fp8fp4', 'tiny/v32-tiny', 'tiny/v2-tiny'])
  describe(fixture, () => {
    const m = new Model(fixture);
    const all = m.shards.flatMap(s => m.tensors(s));
    const last = new Map(all.map(t => [kind(t.name), t])); // of each kind the one furthest on
    const family = m.config.family;
    const optional = new Set(expectedTensors(m.config).flatMap(t => (t.optional ? [t.name] : [])));
    const mayBeAbsent = (t: SyntheticTensor): boolean => optional.has(canonicalName(t.name, family));
    let turn = 0;
    const target = (): string => targetsTried[turn++ % targetsTried.length] as string;
    const missing = /is missing: |are missing$/;

    it(`has ${last.size} kinds of tensors, each refused when one is removed, renamed, reshaped or re-typed`, async () => {
      expect(last.size).toBeGreaterThan(20);
      const accepted: string[] = [];
      const odd: string[] = [];
      const attempt = async (what: string, t: SyntheticTensor, name: string, how: SyntheticTensor | null, code: RegExp): Promise<void> => {
        m.change(x => (x.name === t.name ? how : x));
        const problems = await refused(m.dir, target());
        m.restore();
        if (problems.length === 0) accepted.push(`${what} ${t.name}`);
        else if (!says(problems, name).some(p => code.test(p.code) && (p.places.length > 0 || p.code === 'HK3301')))
          odd.push(`${what} ${t.name}: ${problems.map(p => `${p.code} ${p.what}`).join('; ')}`);
      };
      // of the larger model one of each pair of kinds: its family is there as a small one too
      const tried = [...last.values()].filter((_, i) => fixture !== 'hkgai-nano-fp8' || i % 2 === 1);
      for (const t of tried) {
        await attempt('removed', t, canonicalName(t.name, family), null, /HK330[15]/);
        await attempt('renamed', t, `${t.name}_`, { ...t, name: `${t.name}_` }, /HK3302/);
        await attempt('reshaped', t, t.name, { ...t, shape: reshaped(t.shape) }, /HK3303/);
        for (const dtype of other[t.dtype] as readonly string[]) {
          // FP8 and I8 differ in what scales they have, so that is what the message speaks of
          const scales = t.dtype === 'F8_E4M3' && dtype === 'I8' && family !== 'deepseek_v4' ? `${t.name}_scale_inv` : t.name;
          await attempt(`now ${dtype}`, t, scales, { ...t, dtype }, /HK330[3-9]/);
        }
      }
      expect(odd).toEqual([]);
      // only what may be absent may be absent; nothing else of what was done is accepted
      expect(accepted).toEqual(tried.filter(mayBeAbsent).map(t => `removed ${t.name}`));
    });

    it('is refused without one whole expert, and the message counts its tensors', async () => {
      const name = m.names.filter(n => /\.experts\.\d+\./.test(n)).at(-1) as string;
      const expert = name.slice(0, name.indexOf('.', name.indexOf('.experts.') + 9) + 1);
      const its = m.names.filter(n => n.startsWith(expert));
      m.change(t => (t.name.startsWith(expert) ? null : t));
      for (const to of targetsTried) {
        const problems = await refused(m.dir, to);
        expect(
          problems.every(
            p => p.code === 'HK3301' && p.what.includes(canonicalName(expert, family).replace(/\.$/, '')) && missing.test(p.what),
          ),
        ).toBe(true);
        expect(problems).toHaveLength(its.filter(n => n.endsWith('.weight')).length);
        expect(problems.every(p => p.places.some(x => x.file === 'config.json'))).toBe(true);
      }
      m.restore();
    });

    it('is refused without a shard, with or without its line in the index', async () => {
      for (const s of m.shards) {
        m.remove(s);
        const problems = await refused(m.dir, target());
        expect(problems.some(p => p.what.includes(s))).toBe(true);
        m.restore();
        const lost = new Set(m.tensors(s).map(t => t.name));
        if (m.shards.length > 1) {
          m.change(t => (lost.has(t.name) ? null : t));
          m.remove(s);
          const unlisted = await refused(m.dir, target());
          for (const n of [...lost].filter(x => x.endsWith('.weight')).slice(0, 5))
            expect([n, says(unlisted, canonicalName(n, family)).length > 0 || optional.has(canonicalName(n, family))]).toEqual([n, true]);
          m.restore();
        }
      }
    });

    it('is refused where the index lacks a key, has one more, or sends one to another shard', async () => {
      const index = JSON.parse(readFileSync(join(m.dir, indexName), 'utf8')) as { readonly weight_map: Record<string, string> };
      const name = Object.keys(index.weight_map)[7] as string;
      const write = (map: Record<string, string | undefined>): void =>
        writeFileSync(join(m.dir, indexName), JSON.stringify({ metadata: {}, weight_map: map }));
      write({ ...index.weight_map, [name]: undefined });
      expect(says(await refused(m.dir, target()), name)).toHaveLength(1);
      write({ ...index.weight_map, 'model.layers.0.made.up.weight': m.shards[0] as string });
      expect(says(await refused(m.dir, target()), 'model.layers.0.made.up.weight')).toHaveLength(1);
      if (m.shards.length > 1) {
        write({ ...index.weight_map, [name]: m.shards.find(s => s !== index.weight_map[name]) as string });
        expect(says(await refused(m.dir, target()), name)).toHaveLength(1);
      }
      m.restore();
    });

    it('is refused where a tensor is there twice', async () => {
      const [a, b] = m.shards;
      if (!a || !b) return;
      const t = m.tensors(a)[3] as SyntheticTensor;
      m.write(b, [...m.tensors(b), t]);
      const problems = await refused(m.dir, target());
      expect(says(problems, t.name).length).toBeGreaterThan(0);
      m.restore();
    });

    const blocks = (n: string): boolean => {
      const c = canonicalName(n, family);
      const layer = /(?:^|\.)layers\.(\d+)\./.exec(c);
      return /^mtp\./.test(c) || (layer !== null && Number(layer[1]) >= m.config.layers);
    };
    const mtp = m.names.filter(blocks);
    (mtp.length ? it : it.skip)(
      `is refused without its MTP block, all of it or part${mtp.length ? '' : ': skipped, it has none'}`,
      async () => {
        const half = new Set(mtp.filter((_, i) => i % 2 === 0));
        for (const lost of [new Set(mtp), half]) {
          m.change(t => (lost.has(t.name) ? null : t));
          for (const to of targetsTried) {
            const problems = await refused(m.dir, to);
            for (const n of [...lost].filter(x => x.endsWith('.weight') && !optional.has(canonicalName(x, family))))
              expect([n, says(problems, canonicalName(n, family)).length > 0]).toEqual([n, true]);
          }
          m.restore();
        }
      },
    );

    it('is accepted as it is, for every target', async () => {
      for (const to of targetsTried) expect([to, await refused(m.dir, to)]).toEqual([to, []]);
    });
  });

describe('one tensor whose header says the other half float', () => {
  it('is refused: its bytes would be other numbers, and nothing else shows it', async () => {
    const m = new Model('hkgai-nano');
    const name = 'model.layers.1.self_attn.o_proj.weight';
    m.change(t => (t.name === name ? { ...t, dtype: 'F16' } : t));
    const problems = await refused(m.dir, 'cpu');
    expect(problems.map(p => p.code)).toEqual(['HK3309']);
    expect(problems[0]?.what).toContain(`${name} is F16, but `);
    expect(problems[0]?.places[0]?.bytes).toBeDefined();
  });
});

describe('a shard that is not there whole', () => {
  it('is refused wherever it ends', async () => {
    const m = new Model('tiny/v32-tiny');
    const s = m.shards[0] as string;
    const bytes = readFileSync(join(m.dir, s));
    for (const end of [0, 7, 8, 100, bytes.length - 1]) {
      writeFileSync(join(m.dir, s), bytes.subarray(0, end));
      expect((await refused(m.dir, 'cpu')).every(p => `${p.what}${JSON.stringify(p.places)}`.includes(s))).toBe(true);
    }
    writeFileSync(join(m.dir, s), Buffer.concat([bytes, Buffer.from('x')]));
    expect(await refused(m.dir, 'cpu')).toHaveLength(1);
  });
});
