// The checker of what Biren's vLLM loads: every clean directory passes, one planted fault is found by its rule and by no other.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { conform } from '../src/conformance.js';
import { birenRules } from '../targets/biren/conformance.js';
import { targets } from '../targets/index.js';
import {
  check,
  type Fault,
  findings,
  type Made,
  make,
  must,
  rulesOf,
  type Spoilt,
  type Tensor,
  type Wish,
  wideV3,
} from './engine-directory.js';
import { fixtures } from './golden-cases.js';

const work = mkdtempSync(join(tmpdir(), 'hkgai-biren-'));
afterAll(() => rmSync(work, { recursive: true }));
const wide = join(work, 'wide');
const tiny = (n: string): string => join(fixtures, 'tiny', n);

const made: Record<string, Made> = {};
beforeAll(async () => {
  wideV3(wide);
  const bases: Readonly<Record<string, readonly [string, Omit<Wish, 'target'>]>> = {
    bf16: [wide, { quantise: 'bf16' }],
    int8: [wide, { quantise: 'int8' }],
    fp8: [tiny('v3-tiny-fp8'), { quantise: 'none', chip: 'br2xx' }],
    made: [wide, { quantise: 'fp8', chip: 'br2xx' }],
    v4: [tiny('v4-tiny'), { quantise: 'bf16' }],
  };
  for (const [name, [model, w]] of Object.entries(bases)) made[name] = must(await make(model, { target: 'biren', ...w }, join(work, name)));
});

const f32 = (v: number): Uint8Array => new Uint8Array(new Float32Array([v]).buffer);
const first = (t: Tensor, bytes: readonly number[] | Uint8Array): void => t.bytes.set(bytes, 0);
const dtype = (s: Spoilt, fits: RegExp, name: string, bytesEach: number): void =>
  s.tensors(fits, t => {
    t.dtype = name;
    t.bytes = new Uint8Array(t.shape.reduce((a, b) => a * b, 1) * bytesEach);
  });
const o = /layers\.0\.self_attn\.o_proj/;
const of = (suffix: string): RegExp => new RegExp(`${o.source}\\.${suffix}$`);
const faults: readonly Fault[] = [
  { name: 'a matrix is missing', of: 'bf16', rules: 'B1', plant: s => s.tensors(of('weight'), () => false) },
  { name: 'a norm is missing', of: 'bf16', rules: 'B1', plant: s => s.tensors('model.norm.weight', () => false) },
  { name: 'a tensor of an MTP block is missing', of: 'bf16', rules: 'B1', plant: s => s.tensors(/layers\.2\.eh_proj/, () => false) },
  { name: 'an expert is missing', of: 'int8', rules: 'B1 B2', plant: s => s.tensors(/experts\.2\.up_proj\.weight$/, () => false) },
  {
    name: 'a tensor too many',
    of: 'bf16',
    rules: 'B2',
    plant: s => s.tensors('model.norm.weight', () => [{ name: 'model.norm.bias', dtype: 'BF16', shape: [2], bytes: new Uint8Array(4) }]),
  },
  {
    name: 'a scale of a plain matrix',
    of: 'bf16',
    rules: 'B2',
    plant: s =>
      s.tensors(of('weight'), t => [
        { name: t.name.replace(/weight$/, 'weight_scale'), dtype: 'F32', shape: [128, 1], bytes: new Uint8Array(512) },
      ]),
  },
  { name: 'a matrix turned', of: 'bf16', rules: 'B3', plant: s => s.tensors(/q_b_proj\.weight$/, t => void t.shape.reverse()) },
  {
    name: 'a norm with a dimension too many',
    of: 'bf16',
    rules: 'B3',
    plant: s => s.tensors('model.norm.weight', t => void t.shape.unshift(1)),
  },
  { name: 'int8 turned', of: 'int8', rules: 'B3', plant: s => s.tensors(/q_b_proj\.weight$/, t => void t.shape.reverse()) },
  { name: 'a matrix in U8', of: 'bf16', rules: 'B4', plant: s => dtype(s, of('weight'), 'U8', 1) },
  { name: 'a matrix in F64', of: 'bf16', rules: 'B4', plant: s => dtype(s, of('weight'), 'F64', 8) },
  { name: 'a norm in I64', of: 'bf16', rules: 'B4', plant: s => dtype(s, /^model\.norm\.weight$/, 'I64', 8) },
  { name: 'a table in F32', of: 'v4', rules: 'B4', plant: s => dtype(s, /tid2eid$/, 'F32', 4) },
  { name: 'another family loads it', of: 'bf16', rules: 'B11', plant: s => s.config(c => void (c.architectures = ['LlamaForCausalLM'])) },
  { name: 'a NaN in a norm', of: 'bf16', rules: 'B13', plant: s => s.tensors('model.norm.weight', t => first(t, [0xc0, 0x7f])) },
  { name: 'a NaN code of fp8', of: 'made', rules: 'B13', plant: s => s.tensors(of('weight'), t => first(t, [0x7f])) },
  { name: 'a table names an expert that is not there', of: 'v4', rules: 'B14', plant: s => s.tensors(/tid2eid$/, t => first(t, [200])) },
  { name: 'an int8 embedding', of: 'int8', rules: 'B4', plant: s => dtype(s, /^model\.embed_tokens\.weight$/, 'I8', 1) },
  { name: 'int8 kv_b_proj', of: 'int8', rules: 'B4', plant: s => dtype(s, /layers\.0\.self_attn\.kv_b_proj\.weight$/, 'I8', 1) },
  { name: 'FP8 on br1xx', of: 'fp8', rules: 'B5', as: { chip: 'br1xx' } },
  {
    name: 'an FP8 norm',
    of: 'made',
    rules: 'B10 B5',
    plant: s => dtype(s, /^model\.norm\.weight$/, 'F8_E4M3', 1),
  },
  { name: 'a row scale is missing', of: 'int8', rules: 'B6', plant: s => s.tensors(of('weight_scale'), () => false) },
  { name: 'a row scale in BF16', of: 'int8', rules: 'B6', plant: s => dtype(s, of('weight_scale'), 'BF16', 2) },
  { name: 'row scales in a row', of: 'int8', rules: 'B6', plant: s => s.tensors(of('weight_scale'), t => void t.shape.reverse()) },
  { name: 'a row scale of 0', of: 'int8', rules: 'B6', plant: s => s.tensors(of('weight_scale'), t => first(t, f32(0))) },
  { name: 'a row scale below 0', of: 'int8', rules: 'B6', plant: s => s.tensors(of('weight_scale'), t => first(t, f32(-1))) },
  { name: 'a row scale that is NaN', of: 'int8', rules: 'B6', plant: s => s.tensors(of('weight_scale'), t => first(t, f32(Number.NaN))) },
  { name: 'a code of -128', of: 'int8', rules: 'B6', plant: s => s.tensors(of('weight'), t => first(t, [0x80])) },
  {
    name: 'a quantisation that no tensor has',
    of: 'bf16',
    rules: 'B7',
    plant: s => s.config(c => void (c.quantization_config = { quant_method: 'fp8' })),
  },
  { name: 'a quantisation under its older name', of: 'int8', rules: 'B7', plant: s => s.config(c => void (c.compression_config = {})) },
  { name: 'FP8 without a word', of: 'fp8', rules: 'B7', plant: s => s.config(c => void delete c.quantization_config) },
  { name: 'FP8 under another method', of: 'fp8', rules: 'B7', plant: s => s.quantisation(q => void (q.quant_method = 'gptq')) },
  { name: 'FP8 in other blocks', of: 'made', rules: 'B7', plant: s => s.quantisation(q => void (q.weight_block_size = [64, 64])) },
  { name: 'no index', of: 'bf16', rules: 'B8', plant: s => s.remove('model.safetensors.index.json') },
  { name: 'an index that is no JSON', of: 'bf16', rules: 'B8', plant: s => s.file('model.safetensors.index.json', '{') },
  { name: 'a second index', of: 'bf16', rules: 'B8', plant: s => s.file('other.safetensors.index.json', '{}') },
  {
    name: 'the index names a shard that is not there',
    of: 'bf16',
    rules: 'B8',
    plant: s => s.json('model.safetensors.index.json', i => void (i.weight_map['lm_head.weight'] = 'x.safetensors')),
  },
  {
    name: 'a tensor is not in the index',
    of: 'bf16',
    rules: 'B8',
    plant: s => s.json('model.safetensors.index.json', i => void delete i.weight_map['lm_head.weight']),
  },
  { name: 'bytes are missing', of: 'bf16', rules: 'B9', cut: of('weight') },
  { name: 'bytes of a scale are missing', of: 'int8', rules: 'B9', cut: of('weight_scale') },
  { name: 'a block scale is missing', of: 'fp8', rules: 'B10', plant: s => s.tensors(of('weight_scale_inv'), () => false) },
  { name: 'block scales in BF16', of: 'fp8', rules: 'B10', plant: s => dtype(s, of('weight_scale_inv'), 'BF16', 2) },
  {
    name: 'block scales in another shape',
    of: 'fp8',
    rules: 'B10',
    plant: s => s.tensors(/layers\.0\.mlp\.gate_proj\.weight_scale_inv$/, t => void (t.shape = [1, t.bytes.length / 4])),
  },
  {
    name: 'an infinite block scale',
    of: 'made',
    rules: 'B10',
    plant: s => s.tensors(of('weight_scale_inv'), t => first(t, f32(Number.POSITIVE_INFINITY))),
  },
  { name: 'config.json is a list', of: 'bf16', rules: 'B11', plant: s => s.file('config.json', '[]') },
  { name: 'it is computed in float16', of: 'bf16', rules: 'B11', plant: s => s.config(c => void (c.torch_dtype = 'float16')) },
  { name: 'MTP blocks are not counted', of: 'bf16', rules: 'B12', plant: s => s.config(c => void (c.num_nextn_predict_layers = 0)) },
];

describe('one fault', () => {
  for (const [i, f] of faults.entries())
    it(`${f.of}: ${f.name} -> ${f.rules}`, () => {
      const found = findings(made[f.of]!, f, join(work, `fault-${i}`));
      expect([rulesOf(found), found.slice(0, 4)]).toEqual([f.rules, found.slice(0, 4)]);
      for (const x of found) expect(x.what).not.toMatch(/undefined|NaN bytes|\[object/);
    });
  it('is planted for every rule of the table', () => {
    const hit = new Set(faults.flatMap(f => f.rules.split(' ')));
    expect(Object.keys(birenRules).filter(r => !hit.has(r))).toEqual([]);
    expect([...hit].filter(r => !Object.hasOwn(birenRules, r))).toEqual([]);
  });
});

describe('a clean directory', () => {
  const biren = targets.biren!;
  for (const m of ['llama-distill-tiny', 'v2-lite-tiny', 'v3-tiny-fp8', 'v32-tiny', 'v4-tiny-fp8fp4', 'wide'])
    it(`of ${m} has no finding on the generation that has the units for it`, async () => {
      let written = 0;
      for (const quantise of Object.keys(biren.engines.recipes))
        for (const chip of biren.chips.filter(c => c.family === undefined))
          for (const mtp of ['keep', 'drop'] as const) {
            if (mtp === 'drop' && !m.startsWith('v3')) continue;
            const out = join(work, `clean-${m}`);
            const x = await make(m === 'wide' ? wide : tiny(m), { target: 'biren', quantise, chip: chip.name, mtp }, out);
            if (typeof x === 'string') expect(x).toMatch(/^HK4501/);
            else {
              written++;
              expect([m, quantise, chip.name, mtp, check(x.dir, x)]).toEqual([m, quantise, chip.name, mtp, []]);
              const alone = conform(x.dir, biren, chip, null, null);
              expect([m, quantise, chip.name, mtp, alone.problems.map(p => p.what)]).toEqual([m, quantise, chip.name, mtp, []]);
            }
            rmSync(out, { recursive: true, force: true });
          }
      expect(written).toBeGreaterThan(3);
    });
  it('is refused where a chip has no unit, and int8 is said to be experimental', async () => {
    const asked = async (model: string, w: Omit<Wish, 'target'>): Promise<unknown> =>
      make(model, { target: 'biren', ...w }, join(work, 'no'));
    expect(await asked(tiny('v3-tiny-fp8'), { quantise: 'none' })).toMatch(/br1xx has no FP8 unit/);
    expect(await asked(wide, { quantise: 'fp8' })).toMatch(/br1xx has no FP8 unit/);
    expect(await asked(tiny('v4-tiny-fp8fp4'), { quantise: 'none', chip: 'br2xx' })).toMatch(/reads FP4/);
    expect(biren.engines.formats[0]!.readers).toMatch(/int8 is experimental/);
  });
});
