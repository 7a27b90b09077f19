// Every engine form of every model generation: compiled, held against the engine's rules (compile does it), read back by a decoder of its own, and
// compared with the source. What cannot be is refused with a sentence before a byte is written. The whole matrix is a file:
// test/golden/engine-matrix.txt (UPDATE=1 npm test -- test/engine-matrix.test.ts rewrites it).
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statfsSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, it } from '@jest/globals';
import { Refusal } from '../ir/problem.js';
import { readLedger } from '../src/bundle/ledger.js';
import { openCheckpoint } from '../src/checkpoint/shards.js';
import { buildOptions, type CompileOptions, compile, targets } from '../src/compile.js';
import { openReference } from '../src/session.js';
import { check, f16 } from './engine-check.js';
import { type Decoded, decodeDirectory } from './engine-decode.js';
import { fixtures, tinyCases, worst } from './golden-cases.js';
import { writeSynthetic } from './synthetic-checkpoint.js';

const golden = fileURLToPath(new URL('./golden/engine-matrix.txt', import.meta.url));
// hundreds of small directories: in memory where there is a place for files there
const memory = '/dev/shm';
const work = mkdtempSync(
  join(existsSync(memory) && statfsSync(memory).bavail * statfsSync(memory).bsize > 1 << 28 ? memory : tmpdir(), 'hkgai-matrix-'),
);
afterAll(() => rmSync(work, { recursive: true }));
const quiet = { step: () => {}, at: () => {} };
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
/** A V3 whose matrices are whole blocks of 128. */
const wide = join(work, 'wide');
writeSynthetic(wide, { hidden: 256, width: 128, layers: 2, experts: 8, shards: 2 });
const place = (m: string): string => (m === 'wide' ? wide : join(fixtures, m));
const tiny = tinyCases.map(n => `tiny/${n}`);
const generations = ['qwen2-distill-tiny', 'v2-tiny', 'v3-tiny-fp8', 'v32-tiny', 'v4-tiny-fp8fp4'].map(n => `tiny/${n}`);
const larger: Readonly<Record<string, readonly string[]>> = {
  'cpu int4': ['hkgai-nano'],
  'cuda none': ['hkgai-nano-fp8'],
  'cuda w4a16': ['hkgai-nano'],
  'cuda int8-blocks': ['wide'],
  'cuda w4a16-g128': ['wide'],
  'ascend w8a8': ['hkgai-nano-fp8'],
  'ascend w4a8': ['hkgai-nano'],
  'biren bf16': ['hkgai-nano-fp8'],
};
const shortName = (m: string): string => m.replace(/^tiny\//, '');
const sources = new Map<string, ReadonlyMap<string, Decoded>>();
const sourceOf = (m: string): ReadonlyMap<string, Decoded> => {
  const there = sources.get(m);
  if (there) return there;
  const made = decodeDirectory(place(m));
  sources.set(m, made);
  return made;
};
interface Case {
  readonly model: string;
  readonly target: string;
  readonly format: string;
  readonly quantise: string;
  readonly more: Partial<CompileOptions>;
}
const isMtp = (name: string, layers: number): boolean => name.startsWith('mtp.') || new RegExp(`\\.layers\\.${layers}\\.`).test(name);

let cells = 0;
/** One cell of the matrix: what stands in the directory, by form; or why there is none. */
async function cell(c: Case): Promise<string> {
  const out = join(work, `out-${cells++}`);
  const dir = place(c.model);
  try {
    await compile(dir, { ...options, ...c.more, targets: [c.target], quantise: c.quantise, format: c.format, out }, quiet);
  } catch (e) {
    if (!(e instanceof Refusal)) throw e;
    expect(existsSync(out)).toBe(false);
    const [p] = e.problems;
    // a broken rule of the engine is our own fault: what cannot be is known before
    if (!['HK4501', 'HK2605'].includes(p!.code))
      return `!! ${e.problems
        .slice(0, 2)
        .map(x => `${x.code} ${x.what}`)
        .join('; ')}`;
    return `refused: ${p!.why.replace(/ \([^()]*(\.weight|_proj)[^()]*\)/g, '').replace(/\d+(?= columns| inputs| outputs| rows)/g, 'n')}`;
  }
  const target = c.target.split(':')[0]!;
  const at = join(out, JSON.parse(readFileSync(join(out, 'bundle.json'), 'utf8')).targets[0].directory);
  try {
    const config = JSON.parse(readFileSync(join(dir, 'config.json'), 'utf8')) as { num_hidden_layers: number };
    const source = sourceOf(c.model);
    const made = decodeDirectory(join(at, 'engine'));
    const figures = new Map(readLedger(at).outputs.flatMap(o => (o.figures ? [[o.output, o.figures.relative] as const] : [])));
    const count = new Map<string, number>();
    const wrong: string[] = [];
    for (const [name, s] of source) {
      const o = made.get(name);
      if (!o) {
        if (!(c.more.mtp === 'drop' && isMtp(name, config.num_hidden_layers))) wrong.push(`${name} is missing`);
        continue;
      }
      const r = check(name, s, o, c.more.search === 'mse');
      if (typeof r === 'string') {
        wrong.push(r);
        continue;
      }
      // the ledger's figure is the error that is there
      const said = figures.get(o.from[0]!.name);
      if (r.how === 'same bytes' ? said !== undefined : said === undefined || Math.abs(said - r.relative) > 1e-3 * r.relative + 1e-7)
        wrong.push(`${name} has the error ${r.relative}, the ledger says ${said}`);
      const key = r.how === 'same bytes' ? `${o.form} as it was` : o.form;
      count.set(key, (count.get(key) ?? 0) + 1);
    }
    for (const name of made.keys()) if (!source.has(name)) wrong.push(`${name} comes from nowhere`);
    if (wrong.length) return `!! ${wrong.slice(0, 3).join('; ')}${wrong.length > 3 ? ` and ${wrong.length - 3} more` : ''}`;
    if (target === 'ascend' && made.size) sayOfAscend(made);
    return [...count]
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([k, n]) => `${n} ${k}`)
      .join(', ');
  } finally {
    rmSync(out, { recursive: true });
  }
}
/** Scales of AscendV1's integers are read into bf16: they stand there exactly. */
function sayOfAscend(made: ReadonlyMap<string, Decoded>): void {
  const word = new DataView(new ArrayBuffer(4));
  for (const d of made.values())
    if (d.form === 'W8A8_DYNAMIC' || d.form === 'W4A8_DYNAMIC')
      for (const s of d.coded!.scales) {
        word.setFloat32(0, s);
        expect(word.getUint32(0) & 0xffff).toBe(0);
      }
}

/** A checkpoint of the same model in F32, from what the decoder of this test reads. */
function writePlain(from: string, to: string): void {
  mkdirSync(to);
  const { quantization_config: _, ...config } = JSON.parse(readFileSync(join(from, 'config.json'), 'utf8')) as Record<string, unknown>;
  writeFileSync(join(to, 'config.json'), JSON.stringify(config));
  const parts: Uint8Array[] = [];
  const header: Record<string, unknown> = {};
  let at = 0;
  for (const [name, d] of decodeDirectory(from)) {
    const bytes = d.form === 'I64' ? d.from[0]!.bytes : new Uint8Array(Float32Array.from(d.values).buffer);
    header[name] = { dtype: d.form === 'I64' ? 'I64' : 'F32', shape: d.shape, data_offsets: [at, at + bytes.length] };
    at += bytes.length;
    parts.push(bytes);
  }
  const json = Buffer.from(JSON.stringify(header));
  const size = Buffer.alloc(8);
  size.writeBigUInt64LE(BigInt(json.length));
  writeFileSync(join(to, 'model.safetensors'), Buffer.concat([size, json, ...parts]));
}
async function logits(dir: string): Promise<Float32Array> {
  const c = openCheckpoint(dir);
  const s = await openReference(dir, buildOptions(c.config, { ...options, mtp: 'keep' }));
  const ids = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5];
  const mtp = s.mtp > 0;
  const got = await s.step({
    ids,
    positions: ids.map((_, i) => i),
    sequences: ids.map(() => 0),
    wanted: ids.map((_, i) => i),
    ...(mtp ? { nextIds: [...ids.slice(1), 7] } : {}),
  });
  await s.close();
  return Float32Array.from([...got.logits, ...(got.mtp ?? [])]);
}

const lines: string[] = [];
async function block(title: string, cases: readonly Case[]): Promise<void> {
  const said = new Map<string, string[]>();
  for (const c of cases) {
    const what = await cell(c);
    said.set(what, [...(said.get(what) ?? []), shortName(c.model)]);
  }
  lines.push(title);
  for (const [what, who] of said) lines.push(`  ${who.length === cases.length && cases.length > 3 ? 'all' : who.join(' ')}`, `    ${what}`);
}

describe('engine forms', () => {
  // members of a family are held to it by test/chips.test.ts
  for (const target of Object.values(targets))
    for (const chip of target.chips.filter(c => c.family === undefined))
      for (const format of target.engines.formats.filter(f => !f.pack)) {
        const of = (quantise: string, some: readonly string[], more: Partial<CompileOptions> = {}): readonly Case[] =>
          some.map(model => ({ model, target: `${target.name}:${chip.name}`, format: format.name, quantise, more }));
        // every model for a target's first chip and its main recipes, one a generation for the rest; the larger ones where they differ most
        const first = chip === target.chips[0];
        const usual = (recipe: string): boolean =>
          format === target.engines.formats[0] && ['none', target.engines.recipe, 'int4', 'w8a8', 'int8'].includes(recipe);
        const some = (recipe: string): readonly string[] => [
          ...(first && usual(recipe) ? tiny : chip.name === '910c' ? ['tiny/v3-tiny-fp8'] : generations),
          ...(first ? (larger[`${target.name} ${recipe}`] ?? []) : []),
        ];
        it(`${target.name}:${chip.name} ${format.name}`, async () => {
          for (const recipe of Object.keys(target.engines.recipes))
            await block(`${target.name}:${chip.name} ${format.name} ${recipe}`, of(recipe, some(recipe)));
        }, 600_000);
      }
  it('multi-token prediction kept, written like the rest, and dropped', async () => {
    for (const [target, format, quantise] of [
      ['cpu', 'safetensors', 'int4'],
      ['cpu', 'safetensors', 'none'],
      ['cuda', 'compressed-tensors', 'w8a8'],
      ['cuda', 'fp8', 'fp8'],
      ['ascend', 'ascendv1', 'w8a8'],
      ['biren', 'hub', 'int8'],
    ] as const)
      for (const mtp of ['keep', 'quantise', 'drop'] as const)
        await block(
          `${target} ${format} ${quantise} --mtp ${mtp}`,
          ['tiny/v3-tiny-fp8', 'tiny/v4-tiny-fp8fp4'].map(model => ({ model, target, format, quantise, more: { mtp } })),
        );
  }, 600_000);
  it('searched scales', async () => {
    for (const [target, format, quantise] of [
      ['cpu', 'safetensors', 'int4'],
      ['cpu', 'safetensors', 'mxfp4'],
      ['cpu', 'safetensors', 'fp8'],
      ['cuda', 'compressed-tensors', 'w4a16'],
      ['ascend', 'ascendv1', 'w4a8'],
    ] as const)
      await block(
        `${target} ${format} ${quantise} --search mse`,
        ['tiny/v4-tiny-fp8fp4', 'hkgai-nano'].map(model => ({ model, target, format, quantise, more: { search: 'mse' } })),
      );
  }, 600_000);
  it('rules that no named recipe has', async () => {
    let n = 0;
    const of = async (target: string, format: string, some: readonly string[], rule: object): Promise<void> => {
      const file = join(work, `recipe-${n++}.json`);
      writeFileSync(
        file,
        JSON.stringify({
          format: 'hkgai-recipe-1',
          rules: [{ roles: ['attention', 'dense_mlp', 'shared_expert', ...('zero' in rule ? [] : ['expert'])], ...rule }],
        }),
      );
      await block(
        `${target} ${format} ${JSON.stringify(rule)}`,
        some.map(model => ({ model, target, format, quantise: file, more: {} })),
      );
    };
    for (const group of [0, 32, 64, 128])
      for (const zero of [false, true])
        await of(
          'cuda',
          'compressed-tensors',
          ['tiny/v4-tiny-fp8fp4', 'hkgai-nano'],
          zero ? { to: 'int4', group, zero } : { to: 'int4', group },
        );
    for (const scale of ['f32', 'bf16', 'e8m0'] as const)
      for (const [to, more] of [
        ['int4', { group: 32 }],
        ['int8', {}],
        ['fp8', {}],
        ['fp8', { block: [32, 32] }],
      ] as const)
        if (to === 'fp8' || scale !== 'e8m0')
          await of('cpu', 'safetensors', ['tiny/v3-tiny-bf16', 'tiny/v4-tiny-fp8fp4'], { to, ...more, scale });
    for (const [to, group] of [
      ['int4', 0],
      ['int4', 64],
      ['mxfp8', undefined],
    ] as const)
      await of('cpu', 'safetensors', ['tiny/v3-tiny-bf16'], { to, group });
    for (const scale of ['f32', 'e8m0', 'e8m0-in-f32'])
      await of('cuda', 'fp8', ['tiny/v3-tiny-bf16', 'tiny/v4-tiny'], { to: 'fp8', scale });
  }, 600_000);
  it('DeepSeek-V4 for versions of vllm-ascend', async () => {
    for (const runtime of ['vllm-ascend@0.18', 'vllm-ascend@0.23', 'vllm-ascend@head'])
      await block(
        `ascend ascendv1 w8a8 --runtime ${runtime}`,
        ['tiny/v3-tiny-fp8', 'tiny/v4-tiny-fp8fp4'].map(model => ({
          model,
          target: 'ascend',
          format: 'ascendv1',
          quantise: 'w8a8',
          more: { runtime },
        })),
      );
  }, 600_000);
  describe('what is written for the CPU is what the reference computes with', () => {
    for (const model of ['tiny/v2-lite-tiny', 'tiny/v3-tiny-fp8', 'tiny/v32-tiny', 'tiny/v4-tiny-fp8fp4', 'tiny/qwen2-distill-tiny'])
      it(model, async () => {
        for (const quantise of ['int4', 'int8', 'fp8', 'mxfp4']) {
          const out = join(work, `run-${cells++}`);
          await compile(
            join(fixtures, model),
            { ...options, targets: ['cpu'], quantise, format: 'safetensors', mtp: 'quantise', out },
            quiet,
          );
          const coded = join(out, 'cpu/engine');
          const plain = join(out, 'plain');
          writePlain(coded, plain);
          const [a, b] = [await logits(coded), await logits(plain)];
          expect(a.length).toBeGreaterThan(0);
          expect([quantise, worst(a, b) < 2e-4, a.some(v => v !== 0)]).toEqual([quantise, true, true]);
          rmSync(out, { recursive: true });
        }
      }, 600_000);
  });
  describe('conventions', () => {
    const run = async (
      model: string,
      name: string,
      more: Partial<CompileOptions> & Pick<CompileOptions, 'targets' | 'quantise'>,
    ): Promise<string> => {
      await compile(model, { ...options, ...more, out: join(work, name) }, quiet);
      return join(work, name, more.targets[0] as string);
    };
    it('int4 in groups of 32 is read again, and stands in Q4_0 without a loss: its scales are numbers of f16', async () => {
      const at = await run(join(fixtures, 'hkgai-nano'), 'w4', { targets: ['cuda'], quantise: 'w4a16' });
      const first = decodeDirectory(join(at, 'engine'));
      let seen = 0;
      for (const d of first.values())
        for (const x of d.coded?.scales ?? []) {
          seen++;
          expect(f16(x)).toBe(x);
        }
      expect(seen).toBeGreaterThan(1000);
      const again = await run(join(at, 'engine'), 'w4-again', { targets: ['cpu'], quantise: 'none' });
      for (const [name, d] of decodeDirectory(join(again, 'engine')))
        expect([name, check(name, first.get(name)!, d, false)]).toEqual([name, expect.objectContaining({ how: 'same bytes' })]);
      const q4 = await run(join(at, 'engine'), 'w4-q4', { targets: ['cpu'], quantise: 'q4_0', runtime: 'llama.cpp', search: 'mse' });
      const experts = readLedger(q4).outputs.filter(o => /^blk\.[123]\..*_exps\.weight$/.test(o.output)); // MTP's stay bf16
      expect(experts.length).toBe(9);
      for (const o of experts) expect([o.dtype, o.figures!.relative]).toEqual(['Q4_0', 0]);
    }, 120_000);
    it('scales in powers of two stand in F32 where the family has them so, and config.json says it', async () => {
      const recipe = join(work, 'ue8m0.json');
      writeFileSync(
        recipe,
        JSON.stringify({
          format: 'hkgai-recipe-1',
          engine: 'fp8',
          rules: [{ roles: ['expert', 'attention'], to: 'fp8', scale: 'e8m0-in-f32' }],
          otherwise: 'keep',
        }),
      );
      const at = await run(join(fixtures, 'tiny/v3-tiny-bf16'), 'ue8m0', { targets: ['cuda'], quantise: recipe });
      let seen = 0;
      for (const d of decodeDirectory(join(at, 'engine')).values()) {
        if (!d.coded) continue;
        expect(d.coded.scaleDtype).toBe('F32');
        for (const x of d.coded.scales) {
          seen++;
          expect(Number.isInteger(Math.log2(x))).toBe(true);
        }
      }
      expect(seen).toBeGreaterThan(60);
      const config = JSON.parse(readFileSync(join(at, 'engine/config.json'), 'utf8')) as { quantization_config: { scale_fmt?: string } };
      expect(config.quantization_config.scale_fmt).toBe('ue8m0');
    }, 120_000);
  });
  it('the matrix is as the file says (UPDATE=1 rewrites it)', () => {
    const text = `${lines.join('\n')}\n`;
    if (process.env.UPDATE) writeFileSync(golden, text);
    expect(text.split('\n').filter(l => l.includes('!!'))).toEqual([]);
    expect(text).toBe(readFileSync(golden, 'utf8'));
  });
});
