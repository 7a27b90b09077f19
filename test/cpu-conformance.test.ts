// The checker of what the project's own program maps: clean directories pass, linked ones and other spellings too, and one planted fault is found by
// its rule and by no other.
import { cpSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { targets } from '../src/compile.js';
import { conform } from '../src/conformance.js';
import { cpuRules } from '../targets/cpu/conformance.js';
import {
  check,
  type Fault,
  findings,
  type Made,
  make,
  must,
  readShard,
  rulesOf,
  Spoilt,
  type Tensor,
  writeShard,
} from './engine-directory.js';
import { fixtures, tinyCases } from './golden-cases.js';

const work = mkdtempSync(join(tmpdir(), 'hkgai-cpu-rules-'));
afterAll(() => rmSync(work, { recursive: true }));
const nano = join(fixtures, 'hkgai-nano');
const tiny = (n: string): string => join(fixtures, 'tiny', n);
const wish = (quantise: string) => ({ target: 'cpu', format: 'safetensors', quantise });
const cpu = targets.cpu!;

describe('clean directories', () => {
  const clean = async (checkpoint: string, quantise: string, out: string): Promise<Made> => {
    const m = must(await make(checkpoint, wish(quantise), join(work, out)));
    expect(check(m.dir, m)).toEqual([]);
    // as verify has it, which knows of no checkpoint
    expect(conform(m.dir, cpu, cpu.chips[0]!, 'safetensors', null).problems).toEqual([]);
    return m;
  };
  for (const name of tinyCases)
    for (const quantise of ['none', 'int8', ...(name.startsWith('v4') ? ['fp8'] : ['mxfp4'])])
      it(`${name} as ${quantise}`, async () => {
        const made = await make(tiny(name), wish(quantise), join(work, `${name}-${quantise}`));
        // sizes that a form cannot have are refused before anything is written
        if (typeof made === 'string') expect(made).toMatch(/HK4501|HK45/);
        else {
          expect(check(made.dir, made)).toEqual([]);
          expect(conform(made.dir, cpu, cpu.chips[0]!, 'safetensors', null).problems).toEqual([]);
        }
      });
  it('the forms of hkgai-nano, and what was written compiled again byte for byte', async () => {
    for (const quantise of ['w4a16', 'fp8']) {
      const m = await clean(nano, quantise, `nano-${quantise}`);
      await clean(m.dir, 'none', `again-${quantise}`);
    }
  });
  it('V3 in DeepSeek’s own spelling, linked', async () => {
    const dir = join(work, 'native');
    mkdirSync(dir);
    for (const f of readdirSync(tiny('v3-tiny-fp8')))
      if (/json$|^model.*safetensors$/.test(f)) cpSync(join(tiny('v3-tiny-fp8'), f), join(dir, f));
    rmSync(join(dir, 'model.safetensors.index.json'));
    const native: readonly (readonly [RegExp, string])[] = [
      [/^model\./, ''],
      [/^lm_head/, 'head'],
      [/\bembed_tokens\b/, 'embed'],
      [/\.input_layernorm\./, '.attn_norm.'],
      [/\.post_attention_layernorm\./, '.ffn_norm.'],
      [/\.self_attn\./, '.attn.'],
      [/\.mlp\./, '.ffn.'],
      [/\.q_a_proj\./, '.wq_a.'],
      [/\.q_a_layernorm\./, '.q_norm.'],
      [/\.q_b_proj\./, '.wq_b.'],
      [/\.kv_a_proj_with_mqa\./, '.wkv_a.'],
      [/\.kv_a_layernorm\./, '.kv_norm.'],
      [/\.kv_b_proj\./, '.wkv_b.'],
      [/\.o_proj\./, '.wo.'],
      [/\.gate_proj\./, '.w1.'],
      [/\.down_proj\./, '.w2.'],
      [/\.up_proj\./, '.w3.'],
      [/\.e_score_correction_bias$/, '.bias'],
      [/\.weight_scale_inv$/, '.scale'],
    ];
    const map: Record<string, string> = {};
    for (const f of readdirSync(dir).filter(n => n.endsWith('.safetensors'))) {
      const renamed = readShard(join(dir, f)).map(t => ({ ...t, name: native.reduce((n, [from, to]) => n.replace(from, to), t.name) }));
      for (const t of renamed) map[t.name] = f;
      writeShard(join(dir, f), renamed);
    }
    writeFileSync(join(dir, 'model.safetensors.index.json'), JSON.stringify({ metadata: {}, weight_map: map }));
    const m = must(await make(dir, wish('none'), join(work, 'native-out')));
    expect(check(m.dir, m)).toEqual([]);
    expect(conform(dir, cpu, cpu.chips[0]!, 'safetensors', null).problems).toEqual([]);
  });
  it('a language model beside a part that sees', () => {
    const s = new Spoilt(tiny('llama-distill-tiny'), join(work, 'seeing'));
    rmSync(join(s.dir, 'golden.safetensors'));
    s.tensors(
      /./,
      t => {
        t.name = `language_model.${t.name}`;
        return t.name.endsWith('model.norm.weight')
          ? [{ name: 'vision_tower.norm', dtype: 'F32', shape: [2], bytes: new Uint8Array(8) }]
          : undefined;
      },
      false,
    );
    expect(conform(s.dir, cpu, cpu.chips[0]!, 'safetensors', null).problems).toEqual([]);
  });
});

const made: Record<string, Made> = {};
beforeAll(async () => {
  const bases: Readonly<Record<string, readonly [string, string]>> = {
    bf16: [tiny('v3-tiny-bf16'), 'bf16'],
    fp8: [tiny('v3-tiny-fp8'), 'none'],
    int8: [tiny('v3-tiny-bf16'), 'int8'],
    int4: [nano, 'int4'],
    fp4: [tiny('v4-tiny-fp8fp4'), 'none'],
  };
  for (const [name, [model, quantise]] of Object.entries(bases))
    made[name] = must(await make(model, wish(quantise), join(work, `base-${name}`)));
});

const o = /layers\.0\.self_attn\.o_proj/;
const of = (suffix: string): RegExp => new RegExp(`${o.source}\\.${suffix}$`);
const bytes = (t: Tensor, at: number, ...b: readonly number[]): void => t.bytes.set(b, at);
const f32 = (v: number): number[] => [...new Uint8Array(new Float32Array([v]).buffer)];
const as = (t: Tensor, dtype: string, shape: number[], each: number): void => {
  t.dtype = dtype;
  t.shape = shape;
  t.bytes = new Uint8Array(shape.reduce((a, b) => a * b, 1) * each);
};
const faults: readonly Fault[] = [
  { name: 'no config', of: 'bf16', rules: 'P1', plant: s => s.remove('config.json') },
  { name: 'a config that is a list', of: 'bf16', rules: 'P1', plant: s => s.file('config.json', '[]') },
  { name: 'no model_type', of: 'bf16', rules: 'P1', plant: s => s.config(c => void delete c.model_type) },
  { name: 'a norm is missing', of: 'bf16', rules: 'P2', plant: s => s.tensors('model.norm.weight', () => false) },
  { name: 'an expert is missing', of: 'bf16', rules: 'P2', plant: s => s.tensors(/experts\.2\.up_proj\.weight$/, () => false) },
  { name: 'a matrix is missing, its scales are there', of: 'fp8', rules: 'P2', plant: s => s.tensors(of('weight'), () => false) },
  {
    name: 'a tensor under both spellings',
    of: 'bf16',
    rules: 'P3',
    plant: s => s.tensors('model.norm.weight', t => [{ ...t, name: 'norm.weight' }]),
  },
  {
    name: 'a matrix beside its codes',
    of: 'int4',
    rules: 'P3',
    plant: s =>
      s.tensors(of('weight_packed'), t => [{ name: t.name.replace('_packed', ''), dtype: 'BF16', shape: [2], bytes: new Uint8Array(4) }]),
  },
  {
    name: 'a tensor too many',
    of: 'bf16',
    rules: 'P4',
    plant: s => s.tensors('model.norm.weight', () => [{ name: 'model.norm.bias', dtype: 'F32', shape: [2], bytes: new Uint8Array(8) }]),
  },
  {
    name: 'zero points, which the program does not read',
    of: 'int4',
    rules: 'P4',
    plant: s =>
      s.tensors(of('weight_packed'), t => [
        { name: t.name.replace('packed', 'zero_point'), dtype: 'I32', shape: [1], bytes: new Uint8Array(4) },
      ]),
  },
  {
    name: 'a drafter that config.json does not speak of',
    of: 'fp4',
    rules: 'P4',
    plant: s => s.tensors('norm.weight', t => [{ ...t, name: 'mtp.0.markov.weight' }]),
  },
  { name: 'a norm in whole numbers', of: 'bf16', rules: 'P5', plant: s => s.tensors('model.norm.weight', t => as(t, 'I8', t.shape, 1)) },
  { name: 'a table in 32 bits', of: 'fp4', rules: 'P5', plant: s => s.tensors(/tid2eid$/, t => as(t, 'I32', t.shape, 4)) },
  { name: 'packed codes as bytes', of: 'int4', rules: 'P5', plant: s => s.tensors(of('weight_packed'), t => as(t, 'U8', t.shape, 1)) },
  { name: 'a matrix turned', of: 'bf16', rules: 'P6', plant: s => s.tensors(of('weight'), t => void t.shape.reverse()) },
  {
    name: 'packed codes that are too wide',
    of: 'int4',
    rules: 'P6',
    plant: s => s.tensors(of('weight_packed'), t => as(t, 'I32', [t.shape[0]!, t.shape[1]! * 2], 4)),
  },
  { name: 'codes without scales', of: 'int8', rules: 'P7', plant: s => s.tensors(of('weight_scale'), () => false) },
  {
    name: 'scales beside plain numbers',
    of: 'bf16',
    rules: 'P7',
    plant: s => s.tensors(of('weight'), t => [{ name: `${t.name}_scale_inv`, dtype: 'F32', shape: [1, 1], bytes: new Uint8Array(f32(1)) }]),
  },
  {
    name: 'int8 with a scale for all',
    of: 'int8',
    rules: 'P8',
    plant: s =>
      s.tensors(of('weight_scale'), t => {
        as(t, 'F32', [1, 1], 4);
        bytes(t, 0, ...f32(1));
      }),
  },
  {
    name: 'int4 in groups of 16',
    of: 'int4',
    rules: 'P8',
    plant: s =>
      s.tensors(of('weight_scale'), t => {
        as(t, 'BF16', [t.shape[0]!, t.shape[1]! * 2], 2);
        t.bytes.fill(0x3f);
      }),
  },
  {
    name: 'fp4 in groups of 64',
    of: 'fp4',
    rules: 'P8',
    plant: s =>
      s.tensors(/experts\.0\.w1\.scale$/, t => {
        as(t, t.dtype, [t.shape[0]!, 1], 1);
        t.bytes.fill(127);
      }),
  },
  { name: 'a scale of 0', of: 'int8', rules: 'P9', plant: s => s.tensors(of('weight_scale'), t => bytes(t, 4, ...f32(0))) },
  {
    name: 'an infinite scale',
    of: 'fp8',
    rules: 'P9',
    plant: s => s.tensors(of('weight_scale_inv'), t => bytes(t, 0, ...f32(Number.POSITIVE_INFINITY))),
  },
  { name: 'a NaN scale of 8 bits', of: 'fp4', rules: 'P9', plant: s => s.tensors(/experts\.1\.w2\.scale$/, t => bytes(t, 3, 255)) },
  { name: 'a negative scale in bf16', of: 'int4', rules: 'P9', plant: s => s.tensors(of('weight_scale'), t => bytes(t, 0, 0x80, 0xbf)) },
  { name: 'weight_shape of another', of: 'int4', rules: 'P10', plant: s => s.tensors(of('weight_shape'), t => bytes(t, 0, 1)) },
  { name: 'one expert in bf16', of: 'int8', rules: 'P11', plant: s => s.plain(/layers\.1\.mlp\.experts\.1\.down_proj/) },
  {
    name: 'an index that sends elsewhere',
    of: 'bf16',
    rules: 'P12',
    plant: s => s.json('model.safetensors.index.json', i => void (i.weight_map['model.norm.weight'] = 'model-00009-of-00009.safetensors')),
  },
  {
    name: 'an index without a tensor',
    of: 'bf16',
    rules: 'P12',
    plant: s => s.json('model.safetensors.index.json', i => void delete i.weight_map['model.norm.weight']),
  },
  { name: 'a second index', of: 'bf16', rules: 'P12', plant: s => s.file('other.safetensors.index.json', '{}') },
  { name: 'a matrix of fewer bytes', of: 'bf16', rules: 'P13', cut: of('weight') },
  { name: 'a NaN among plain numbers', of: 'bf16', rules: 'P14', plant: s => s.tensors(of('weight'), t => bytes(t, 6, 0xc0, 0x7f)) },
  { name: 'an infinite number', of: 'bf16', rules: 'P14', plant: s => s.tensors(of('weight'), t => bytes(t, 6, 0x80, 0x7f)) },
  { name: 'a table names an expert that is not there', of: 'fp4', rules: 'P17', plant: s => s.tensors(/tid2eid$/, t => bytes(t, 0, 200)) },
  { name: 'a NaN code of fp8', of: 'fp8', rules: 'P14', plant: s => s.tensors(of('weight'), t => bytes(t, 9, 0xff)) },
  {
    name: 'a quantisation of plain matrices',
    of: 'bf16',
    rules: 'P15',
    plant: s => s.config(c => void (c.quantization_config = { quant_method: 'compressed-tensors' })),
  },
  { name: 'fp8 said of int8', of: 'int8', rules: 'P15', plant: s => s.config(c => void (c.quantization_config = { quant_method: 'fp8' })) },
  {
    name: 'other blocks than the scales’',
    of: 'fp8',
    rules: 'P15',
    plant: s => s.quantisation(q => void (q.weight_block_size = [64, 64])),
  },
  { name: 'experts said to be fp8', of: 'fp4', rules: 'P15', plant: s => s.config(c => void (c.expert_dtype = 'fp8')) },
  { name: 'MTP blocks that are not counted', of: 'bf16', rules: 'P16', plant: s => s.config(c => void (c.num_nextn_predict_layers = 0)) },
];
describe('planted faults', () => {
  for (const f of faults) it(`${f.rules}: ${f.name}`, () => expect(rulesOf(findings(made[f.of]!, f, join(work, 'spoilt')))).toBe(f.rules));
  it('every rule has a fault', () => {
    const planted = new Set(faults.map(f => f.rules));
    expect(Object.keys(cpuRules).filter(r => !planted.has(r))).toEqual([]);
  });
});
