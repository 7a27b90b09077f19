// The checker of what vllm-ascend, SGLang and MindIE load, beside the look-ups of the loader told again (ascend-loader.ts): every clean
// directory passes both, one planted fault is found by its rule and by no other.
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { conform } from '../src/conformance.js';
import { ascendCompressedRules, ascendRules } from '../targets/ascend/conformance.js';
import { targets } from '../targets/index.js';
import { load } from './ascend-loader.js';
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
  type Wish,
  wideV3,
} from './engine-directory.js';
import { fixtures } from './golden-cases.js';

const work = mkdtempSync(join(tmpdir(), 'hkgai-ascend-'));
afterAll(() => rmSync(work, { recursive: true }));
const wide = join(work, 'wide');
const tiny = (n: string): string => join(fixtures, 'tiny', n);
const description = 'quant_model_description.json';
const hasDescription = (m: Made): boolean => existsSync(join(m.dir, description));

const made: Record<string, Made> = {};
beforeAll(async () => {
  wideV3(wide);
  const groups = join(work, 'groups-of-128.json');
  const rules = [{ roles: ['expert'], to: 'int4', group: 128 }];
  writeFileSync(groups, JSON.stringify({ format: 'hkgai-recipe-1', name: 'g128', rules, otherwise: 'bf16' }));
  const bases: Readonly<Record<string, readonly [string, Omit<Wish, 'target'>]>> = {
    w8a8: [wide, { quantise: 'w8a8' }],
    w4a8: [wide, { quantise: 'w4a8' }],
    mx: [wide, { quantise: 'mxfp4', chip: '950' }],
    ct8: [wide, { quantise: 'w8a8', format: 'compressed-tensors' }],
    ct4: [wide, { quantise: 'w4a16' }],
    ct128: [wide, { quantise: groups, format: 'compressed-tensors' }],
    plain: [wide, { quantise: 'bf16' }],
    native: [tiny('v4-tiny-fp8fp4'), { quantise: 'none', chip: '950' }],
    v4: [tiny('v4-tiny-fp8fp4'), { quantise: 'w8a8' }],
  };
  for (const [name, [model, w]] of Object.entries(bases))
    made[name] = must(await make(model, { target: 'ascend', ...w }, join(work, name)));
});

const f32 = (v: number): Uint8Array => new Uint8Array(new Float32Array([v]).buffer);
const first = (t: Tensor, bytes: readonly number[] | Uint8Array): void => t.bytes.set(bytes, 0);
const describeAs = (s: Spoilt, fits: RegExp, type: string | null): void =>
  s.json(description, d => {
    for (const k of Object.keys(d)) if (fits.test(k)) type === null ? delete d[k] : (d[k] = type);
  });
/** A matrix made FLOAT, in shards and in the description. */
const float = (s: Spoilt, matrix: RegExp): void => {
  s.plain(matrix);
  describeAs(s, new RegExp(`${matrix.source}\\.(weight_scale|weight_offset|scale_bias)$`), null);
  describeAs(s, new RegExp(`${matrix.source}\\.weight$`), 'FLOAT');
};
const vllm = (version: string | null) => ({ name: 'vllm-ascend', version });
const faults: readonly Fault[] = [
  // the description
  { name: 'the description is a list', of: 'w8a8', rules: 'A1', plant: s => s.file(description, '[]') },
  { name: 'another version', of: 'w8a8', rules: 'A1', plant: s => s.json(description, d => void (d.version = '0.9')) },
  { name: 'no group_size', of: 'w4a8', rules: 'A1', plant: s => s.json(description, d => void delete d.group_size) },
  { name: 'groups of 256', of: 'w4a8', rules: 'A1', plant: s => s.json(description, d => void (d.group_size = 256)) },
  { name: 'MXFP without its group', of: 'mx', rules: 'A1', plant: s => s.json(description, d => void (d.group_size = 0)) },
  { name: 'no model_quant_type', of: 'w8a8', rules: 'A1', plant: s => s.json(description, d => void delete d.model_quant_type) },
  { name: 'a tensor is not described', of: 'w8a8', rules: 'A2', plant: s => describeAs(s, /^model\.norm\.weight$/, null) },
  { name: 'V4 without its trigger', of: 'v4', rules: 'A2', plant: s => describeAs(s, /^hc_head_fn$/, null) },
  { name: 'an MTP tensor is not described', of: 'w8a8', rules: 'A2', plant: s => describeAs(s, /layers\.2\.eh_proj\.weight$/, null) },
  {
    name: 'something is described that is not there',
    of: 'w8a8',
    rules: 'A2',
    plant: s => s.json(description, d => void (d['model.layers.9.mlp.bias'] = 'FLOAT')),
  },
  {
    name: 'a codes-only MTP block',
    of: 'w8a8',
    rules: 'A3',
    plant: s => {
      s.tensors(/layers\.2\.hnorm\.weight$/, () => false);
      describeAs(s, /layers\.2\.hnorm\.weight$/, null);
    },
  },
  {
    name: 'an offset is missing',
    of: 'w8a8',
    rules: 'A3',
    plant: s => {
      s.tensors(/layers\.0\.self_attn\.o_proj\.weight_offset$/, () => false);
      describeAs(s, /layers\.0\.self_attn\.o_proj\.weight_offset$/, null);
    },
  },
  {
    name: 'scale_bias is missing',
    of: 'w4a8',
    rules: 'A3',
    plant: s => {
      s.tensors(/layers\.1\.mlp\.experts\.2\.up_proj\.scale_bias$/, () => false);
      describeAs(s, /layers\.1\.mlp\.experts\.2\.up_proj\.scale_bias$/, null);
    },
  },
  {
    name: 'a tensor too many',
    of: 'w8a8',
    rules: 'A3',
    plant: s => {
      s.tensors('model.norm.weight', () => [{ name: 'model.norm.bias', dtype: 'BF16', shape: [2], bytes: new Uint8Array(4) }]);
      s.json(description, d => void (d['model.norm.bias'] = 'FLOAT'));
    },
  },
  // what the loader allocates
  { name: 'codes turned', of: 'w8a8', rules: 'A4', plant: s => s.tensors(/q_b_proj\.weight$/, t => void t.shape.reverse()) },
  { name: 'codes called U8', of: 'w8a8', rules: 'A4', plant: s => s.tensors(/o_proj\.weight$/, t => void (t.dtype = 'U8')) },
  { name: 'scales in a row', of: 'w8a8', rules: 'A4', plant: s => s.tensors(/o_proj\.weight_scale$/, t => void t.shape.reverse()) },
  { name: 'offsets called I32', of: 'w8a8', rules: 'A4', plant: s => s.tensors(/o_proj\.weight_offset$/, t => void (t.dtype = 'I32')) },
  { name: 'exponents called I8', of: 'mx', rules: 'A4', plant: s => s.tensors(/1\.up_proj\.weight_scale$/, t => void (t.dtype = 'I8')) },
  {
    name: 'scale_bias of a down projection in one part',
    of: 'w4a8',
    rules: 'A4',
    plant: s => s.tensors(/0\.down_proj\.scale_bias$/, t => void (t.shape = [t.shape[0]! * 16, 1])),
  },
  { name: 'bytes are missing', of: 'w8a8', rules: 'A4', cut: /o_proj\.weight_scale$/ },
  // loaded as one
  { name: 'expert 3 is FLOAT', of: 'w8a8', rules: 'A5', plant: s => float(s, /layers\.1\.mlp\.experts\.3\.up_proj/) },
  { name: 'gate is FLOAT, up is not', of: 'w8a8', rules: 'A5', plant: s => float(s, /layers\.0\.mlp\.gate_proj/) },
  { name: 'q_a is FLOAT, kv_a is not', of: 'w8a8', rules: 'A5', plant: s => float(s, /layers\.0\.self_attn\.q_a_proj/) },
  {
    name: 'a scale has another type than its weight',
    of: 'w8a8',
    rules: 'A5',
    plant: s => describeAs(s, /o_proj\.weight_scale$/, 'FLOAT'),
  },
  // types
  { name: 'a type that is not written', of: 'w8a8', rules: 'A6', plant: s => describeAs(s, /^model\.norm\.weight$/, 'W8A16') },
  { name: 'int4 on the 950', of: 'w4a8', rules: 'A6', as: { chip: '950' } },
  { name: 'MXFP on 910B', of: 'mx', rules: 'A6', as: { chip: '910b' } },
  { name: 'W4A8_MXFP in 0.18', of: 'mx', rules: 'A6', as: { runtime: vllm('0.18') } },
  { name: 'MXFP in SGLang', of: 'mx', rules: 'A6', as: { runtime: { name: 'sglang', version: null } } },
  {
    name: 'a FLOAT name begins like a quantised module',
    of: 'w8a8',
    rules: 'A3 A7',
    plant: s => {
      s.tensors(/layers\.0\.self_attn\.o_proj\.weight$/, t => [
        { name: t.name.replace('o_proj', 'o_proj_x'), dtype: 'BF16', shape: [2], bytes: new Uint8Array(4) },
      ]);
      s.json(description, d => void (d['model.layers.0.self_attn.o_proj_x.weight'] = 'FLOAT'));
    },
  },
  {
    name: 'kv_b_proj is quantised',
    of: 'w8a8',
    rules: 'A8',
    plant: s => {
      s.tensors(/layers\.0\.self_attn\.kv_b_proj\.weight$/, t => {
        const [rows, columns] = t.shape as [number, number];
        t.dtype = 'I8';
        t.bytes = new Uint8Array(rows * columns);
        const row = (suffix: string, v: number): Tensor => ({
          name: t.name.replace(/weight$/, suffix),
          dtype: 'F32',
          shape: [rows, 1],
          bytes: new Uint8Array(new Float32Array(rows).fill(v).buffer),
        });
        return [row('weight_scale', 1), row('weight_offset', 0)];
      });
      s.json(description, d => {
        for (const x of ['weight', 'weight_scale', 'weight_offset']) d[`model.layers.0.self_attn.kv_b_proj.${x}`] = 'W8A8_DYNAMIC';
      });
    },
  },
  // config.json
  { name: 'config.json is a list', of: 'w8a8', rules: 'A9', plant: s => s.file('config.json', '[]') },
  {
    name: 'the old quantisation is still said',
    of: 'w8a8',
    rules: 'A9',
    plant: s => s.config(c => void (c.quantization_config = { quant_method: 'fp8' })),
  },
  { name: 'an empty quantisation is said', of: 'w8a8', rules: 'A9', plant: s => s.config(c => void (c.compression_config = {})) },
  {
    name: 'it is said inside text_config',
    of: 'w8a8',
    rules: 'A9',
    plant: s => s.config(c => void (c.text_config = { quantization_config: {} })),
  },
  { name: 'it is computed in float16', of: 'w8a8', rules: 'A9', plant: s => s.config(c => void (c.torch_dtype = 'float16')) },
  {
    name: 'a method that no NPU has',
    of: 'plain',
    rules: 'A9',
    plant: s => s.config(c => void (c.quantization_config = { quant_method: 'gptq' })),
  },
  { name: 'MTP blocks are not counted', of: 'plain', rules: 'A19', plant: s => s.config(c => void (c.num_nextn_predict_layers = 0)) },
  // the index
  { name: 'no index', of: 'plain', rules: 'A10', plant: s => s.remove('model.safetensors.index.json') },
  { name: 'a second index', of: 'w8a8', rules: 'A10', plant: s => s.file('quant_model_weights.safetensors.index.json', '{}') },
  {
    name: 'the index names a shard that is not there',
    of: 'w8a8',
    rules: 'A10',
    plant: s => s.json('model.safetensors.index.json', i => void (i.weight_map['lm_head.weight'] = 'x.safetensors')),
  },
  {
    name: 'a tensor is not in the index',
    of: 'plain',
    rules: 'A10',
    plant: s => s.json('model.safetensors.index.json', i => void delete i.weight_map['lm_head.weight']),
  },
  // numbers
  { name: 'an offset that is not 0', of: 'w8a8', rules: 'A11', plant: s => s.tensors(/o_proj\.weight_offset$/, t => first(t, f32(1))) },
  {
    name: 'a scale that bf16 does not hold',
    of: 'w8a8',
    rules: 'A11',
    plant: s => s.tensors(/o_proj\.weight_scale$/, t => first(t, f32(0.1))),
  },
  { name: 'a scale of 0', of: 'w8a8', rules: 'A11', plant: s => s.tensors(/o_proj\.weight_scale$/, t => first(t, f32(0))) },
  { name: 'a scale that is NaN', of: 'w8a8', rules: 'A11', plant: s => s.tensors(/o_proj\.weight_scale$/, t => first(t, f32(Number.NaN))) },
  { name: 'a code of -128', of: 'w8a8', rules: 'A11', plant: s => s.tensors(/o_proj\.weight$/, t => first(t, [0x80])) },
  { name: 'a NaN among exponents', of: 'mx', rules: 'A11', plant: s => s.tensors(/o_proj\.weight_scale$/, t => first(t, [255])) },
  { name: 'a sum that is off', of: 'w4a8', rules: 'A12', plant: s => s.tensors(/1\.up_proj\.scale_bias$/, t => first(t, f32(123))) },
  {
    name: 'a part of a sum that is off',
    of: 'w4a8',
    rules: 'A12',
    plant: s => s.tensors(/1\.down_proj\.scale_bias$/, t => t.bytes.set(f32(9), 4 * 7)),
  },
  {
    name: 'one code of int4 is another',
    of: 'w4a8',
    rules: 'A12',
    plant: s => s.tensors(/1\.up_proj\.weight$/, t => void (t.bytes[5] = (t.bytes[5] as number) ^ 0x30)),
  },
  {
    name: 'a bf16 router bias',
    of: 'w8a8',
    rules: 'A15',
    plant: s =>
      s.tensors(/e_score_correction_bias$/, t => {
        t.dtype = 'BF16';
        t.bytes = new Uint8Array(t.bytes.length / 2);
      }),
  },
  // plain directories
  { name: 'a matrix is missing', of: 'plain', rules: 'A3', plant: s => s.tensors(/experts\.2\.up_proj\.weight$/, () => false) },
  {
    name: 'a matrix in int8',
    of: 'plain',
    rules: 'A4',
    plant: s =>
      s.tensors(/layers\.0\.self_attn\.o_proj\.weight$/, t => {
        t.dtype = 'I8';
        t.bytes = new Uint8Array(t.bytes.length / 2);
      }),
  },
  { name: 'bf16 for 310P', of: 'plain', rules: 'A18', as: { chip: '310p' } },
  // compressed-tensors
  { name: 'a key of its own', of: 'ct8', rules: 'V2', plant: s => s.quantisation(q => void (q.config_groups.group_0.note = 1)) },
  {
    name: 'int8 in blocks',
    of: 'ct8',
    rules: 'V3',
    plant: s => s.quantisation(q => void (q.config_groups.group_0.weights.strategy = 'block')),
  },
  { name: 'an expression that does not compile', of: 'ct8', rules: 'V4', plant: s => s.quantisation(q => void q.ignore.push('re:(')) },
  {
    name: 'no int8 activations',
    of: 'ct8',
    rules: 'A16',
    plant: s => s.quantisation(q => void (q.config_groups.group_0.input_activations = null)),
  },
  {
    name: 'int4 outside of experts',
    of: 'ct4',
    rules: 'A16 A3',
    plant: s => s.quantisation(q => void (q.ignore = q.ignore.filter((e: string) => !e.includes('q_b_proj')))),
  },
  { name: 'another group at the top', of: 'ct4', rules: 'A17', plant: s => s.quantisation(q => void (q.group_size = 128)) },
  { name: 'groups of 128 that nobody is told of', of: 'ct128', rules: 'A17', plant: s => s.quantisation(q => void delete q.group_size) },
  {
    name: 'kv_b_proj is not ignored',
    of: 'ct8',
    rules: 'A3 A4 A8',
    plant: s => s.quantisation(q => void (q.ignore = q.ignore.filter((e: string) => !e.includes('kv_b')))),
  },
  {
    name: 'a scale that bf16 does not hold, as compressed-tensors',
    of: 'ct8',
    rules: 'A11',
    plant: s => s.tensors(/o_proj\.weight_scale$/, t => first(t, f32(0.1))),
  },
  {
    name: 'one plain expert',
    of: 'ct4',
    rules: 'A5',
    plant: s => {
      s.plain(/layers\.1\.mlp\.experts\.3\.up_proj/);
      s.quantisation(q => void q.ignore.push('model.layers.1.mlp.experts.3.up_proj'));
    },
  },
  { name: 'compressed-tensors for MindIE', of: 'ct8', rules: 'A18', as: { runtime: { name: 'mindie', version: null } } },
  // V4
  { name: 'V4 in 0.18', of: 'v4', rules: 'A18', as: { runtime: vllm('0.18') } },
  { name: 'V4 in MindIE', of: 'v4', rules: 'A18', as: { runtime: { name: 'mindie', version: null } } },
  { name: 'FP8 on 910C', of: 'native', rules: 'A20', as: { chip: '910c' } },
  { name: 'FP8 in SGLang', of: 'native', rules: 'A20', as: { runtime: { name: 'sglang', version: null } } },
  { name: 'fp8 experts', of: 'native', rules: 'A20', plant: s => s.config(c => void (c.expert_dtype = 'fp8')) },
  { name: 'a NaN among block scales', of: 'native', rules: 'A11', plant: s => s.tensors(/attn\.wkv\.scale$/, t => first(t, [255])) },
  { name: 'a type that nothing reads', of: 'w8a8', rules: 'A1', plant: s => s.json(description, d => void (d.model_quant_type = 'W2A2')) },
  { name: 'another family loads it', of: 'w8a8', rules: 'A9', plant: s => s.config(c => void (c.architectures = ['LlamaForCausalLM'])) },
  { name: 'a NaN in a norm', of: 'w8a8', rules: 'A21', plant: s => s.tensors('model.norm.weight', t => first(t, [0xc0, 0x7f])) },
  { name: 'a NaN code of fp8', of: 'native', rules: 'A21', plant: s => s.tensors(/attn\.wkv\.weight$/, t => first(t, [0x7f])) },
  { name: 'a table names an expert that is not there', of: 'v4', rules: 'A22', plant: s => s.tensors(/tid2eid$/, t => first(t, [200])) },
];

describe('one fault', () => {
  for (const [i, f] of faults.entries())
    it(`${f.of}: ${f.name} -> ${f.rules}`, () => {
      const found = findings(made[f.of]!, f, join(work, `fault-${i}`));
      expect([rulesOf(found), found.slice(0, 4)]).toEqual([f.rules, found.slice(0, 4)]);
      for (const x of found) expect(x.what).not.toMatch(/undefined|NaN bytes|\[object/);
    });
  it('is planted for every rule of the tables', () => {
    const hit = new Set(faults.flatMap(f => f.rules.split(' ')));
    const rules = { ...ascendRules, ...ascendCompressedRules };
    expect(Object.keys(rules).filter(r => !hit.has(r))).toEqual([]);
    expect([...hit].filter(r => !Object.hasOwn(rules, r))).toEqual([]);
  });
});

describe('the look-ups of the loader', () => {
  const spoilt = (of: string, plant: (s: Spoilt) => void): readonly string[] => {
    const m = made[of]!;
    const s = new Spoilt(m.dir, join(work, 'loaded'));
    plant(s);
    return load(s.dir, m.model);
  };
  it('find every tensor of the bases, and a place for each', () => {
    for (const m of Object.values(made)) if (hasDescription(m)) expect(load(m.dir, m.model)).toEqual([]);
  });
  it('fail where the rules speak', () => {
    expect(spoilt('w8a8', s => describeAs(s, /layers\.0\.self_attn\.o_proj\.weight$/, null))).toContain(
      'KeyError model.layers.0.self_attn.o_proj.weight',
    );
    expect(spoilt('w8a8', s => float(s, /layers\.0\.mlp\.gate_proj/))[0]).toMatch(/^ValueError model\.layers\.0\.mlp\.gate_up_proj/);
    // expert 3 alone is not looked at: the layer is loaded as expert 0 says, and what is there does not fit
    expect(spoilt('w8a8', s => float(s, /layers\.1\.mlp\.experts\.3\.up_proj/)).join('\n')).toMatch(/experts\.3\.up_proj\.weight is BF16/);
    // the prefix without a dot: the module becomes float, its scales find no place
    expect(
      spoilt('w8a8', s => s.json(description, d => void (d['model.layers.0.self_attn.o_proj_x.weight'] = 'FLOAT'))).join('\n'),
    ).toMatch(/o_proj\.weight is I8.*allocated BF16[\s\S]*o_proj\.weight_scale: no parameter/);
    expect(spoilt('v4', s => describeAs(s, /^hc_head_fn$/, null)).filter(x => x.startsWith('KeyError')).length).toBeGreaterThan(5);
  });
});

describe('a clean directory', () => {
  const ascend = targets.ascend!;
  for (const m of ['llama-distill-tiny', 'v2-lite-tiny', 'v3-tiny-fp8', 'v32-tiny', 'v4-tiny-fp8fp4', 'wide'])
    it(`of ${m} has no finding, on the chips that have the units for it, and the loader finds all of it`, async () => {
      let written = 0;
      const at = m === 'wide' ? wide : tiny(m);
      for (const quantise of Object.keys(ascend.engines.recipes))
        for (const format of ['ascendv1', 'compressed-tensors'])
          for (const chip of [quantise.startsWith('mx') || quantise === 'none' ? '950' : '910b', ...(m === 'wide' ? ['310p'] : [])])
            for (const mtp of quantise === 'w8a8' && m === 'wide' ? (['keep', 'quantise', 'drop'] as const) : (['keep'] as const)) {
              const out = join(work, `clean-${m}`);
              const x = await make(at, { target: 'ascend', quantise, format, chip, mtp }, out);
              if (typeof x === 'string') expect(x).toMatch(/^HK4501/);
              else {
                written++;
                expect([m, quantise, format, chip, mtp, check(x.dir, x)]).toEqual([m, quantise, format, chip, mtp, []]);
                if (hasDescription(x)) expect([m, quantise, mtp, load(x.dir, x.model)]).toEqual([m, quantise, mtp, []]);
                const alone = conform(x.dir, ascend, ascend.chips.find(c => c.name === chip)!, null, null);
                expect([m, quantise, mtp, alone.problems.map(p => p.what)]).toEqual([m, quantise, mtp, []]);
              }
              rmSync(out, { recursive: true, force: true });
            }
      expect(written).toBeGreaterThan(3);
    });
});

describe('what a version, an engine or a chip does not have', () => {
  const asked = async (w: Omit<Wish, 'target'>, model = wide): Promise<string> => {
    const out = join(work, 'asked');
    rmSync(out, { recursive: true, force: true });
    const x = await make(model, { target: 'ascend', ...w }, out);
    if (typeof x === 'string') {
      expect(existsSync(out)).toBe(false);
      return x;
    }
    return check(x.dir, x).length === 0 ? 'written' : 'broken';
  };
  it('is refused with a sentence before anything is written', async () => {
    const v4 = tiny('v4-tiny-fp8fp4');
    expect(await asked({ quantise: 'none' }, tiny('v3-tiny-fp8'))).toMatch(/910b has no FP8 unit/);
    expect(await asked({ quantise: 'none', chip: '910c' }, v4)).toMatch(/910c has no FP8 unit/);
    expect(await asked({ quantise: 'none', chip: '950' }, tiny('v3-tiny-fp8'))).toMatch(/reads V4 alone/);
    expect(await asked({ quantise: 'none', chip: '950' }, v4)).toBe('written');
    expect(await asked({ quantise: 'w4a8', chip: '950' })).toMatch(/int4 cube/);
    expect(await asked({ quantise: 'mxfp4' })).toMatch(/950 alone/);
    expect(await asked({ quantise: 'none', chip: '310p' })).toMatch(/310P has no bf16/);
    expect(await asked({ quantise: 'w8a8', chip: '310p' })).toMatch(/310P has no bf16/);
    expect(await asked({ quantise: 'w8a8', runtime: 'vllm-ascend@0.18' }, v4)).toMatch(/from 0.23 on/);
    expect(await asked({ quantise: 'w8a8', runtime: 'vllm-ascend@0.23' }, v4)).toBe('written');
    expect(await asked({ quantise: 'mxfp4', chip: '950', runtime: 'vllm-ascend@0.18' })).toMatch(/W4A8_MXFP is not registered/);
    expect(await asked({ quantise: 'mxfp4', chip: '950' })).toBe('written');
    expect(await asked({ quantise: 'mxfp8', chip: '950', runtime: 'vllm-ascend@0.18' })).toBe('written');
    expect(await asked({ quantise: 'mxfp8', chip: '950', runtime: 'sglang' })).toMatch(/sglang is not known to read/i);
    expect(await asked({ quantise: 'w4a8', runtime: 'sglang' })).toBe('written');
    expect(await asked({ quantise: 'w8a8', runtime: 'mindie', format: 'compressed-tensors' })).toMatch(/MindIE reads AscendV1/);
    expect(await asked({ quantise: 'w8a8', format: 'compressed-tensors' }, v4)).toMatch(/V4 goes out as AscendV1/);
  });
  it('is told of linears in W4A8, which the newest version lost', async () => {
    const file = join(work, 'linears.json');
    const rules = [{ roles: ['attention'], to: 'int4', group: 0 }];
    writeFileSync(file, JSON.stringify({ format: 'hkgai-recipe-1', name: 'x', rules, otherwise: 'bf16', activations: 'int8' }));
    expect(await asked({ quantise: file })).toMatch(/not registered for linears in vllm-ascend head/);
    expect(await asked({ quantise: file, runtime: 'vllm-ascend@0.23' })).toBe('written');
  });
});

describe('a checkpoint as Kimi-K2.5 has it: int4 in a text_config, beside a part that sees, with a bf16 router bias', () => {
  const kimi = join(work, 'kimi');
  beforeAll(async () => {
    const m = must(await make(wide, { target: 'cuda', quantise: 'w4a16', mtp: 'drop' }, join(work, 'kimi-int4')));
    const s = new Spoilt(m.dir, kimi);
    s.tensors(
      /e_score_correction_bias$/,
      t => {
        t.dtype = 'BF16';
        t.bytes = Uint8Array.from({ length: t.bytes.length / 2 }, (_, i) => (i % 2 ? 0x3e : 0x80)); // 0.25
      },
      false,
    );
    s.tensors(/./, t => void (t.name = `language_model.${t.name}`), false);
    s.tensors(/lm_head/, () => [{ name: 'vision_tower.patch_embed.proj.weight', dtype: 'BF16', shape: [2], bytes: new Uint8Array(4) }]);
    s.config(c => ({
      architectures: ['KimiK25ForConditionalGeneration'],
      model_type: 'kimi_k25',
      dtype: 'bfloat16',
      text_config: { ...c, model_type: 'kimi_k2' },
      vision_config: {},
    }));
  });
  for (const [target, quantise, chip] of [
    ['cuda', 'none', undefined],
    ['cuda', 'w4a16', undefined],
    ['cuda', 'w8a8', undefined],
    ['cuda', 'fp8', undefined],
    ['cuda', 'int8-blocks', undefined],
    ['ascend', 'none', undefined],
    ['ascend', 'w4a16', undefined],
    ['ascend', 'w8a8', undefined],
    ['ascend', 'w4a8', undefined],
    ['ascend', 'mxfp4', '950'],
    ['biren', 'bf16', undefined],
    ['biren', 'int8', undefined],
  ] as const)
    it(`becomes ${quantise} for ${target}, a language model alone`, async () => {
      const x = must(await make(kimi, { target, quantise, ...(chip ? { chip } : {}) }, join(work, `kimi-${target}-${quantise}`)));
      expect(check(x.dir, x)).toEqual([]);
      if (hasDescription(x)) expect(load(x.dir, x.model)).toEqual([]);
      const tensors = ['model-00001-of-00002.safetensors', 'model-00002-of-00002.safetensors'].flatMap(f => readShard(join(x.dir, f)));
      expect(tensors.filter(t => /language_model|vision/.test(t.name))).toEqual([]);
      const bias = tensors.find(t => t.name.endsWith('e_score_correction_bias'))!;
      expect(bias.dtype).toBe(target === 'ascend' ? 'F32' : 'BF16');
      if (target === 'ascend') expect([...new Float32Array(bias.bytes.slice().buffer)]).toEqual([0.25, 0.25, 0.25, 0.25]);
    });
});
