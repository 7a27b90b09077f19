// The checker of what vLLM and SGLang load: every clean directory passes, one planted fault is found by its rule and by no other.
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { conform } from '../src/conformance.js';
import { cudaRules } from '../targets/cuda/conformance.js';
import { targets } from '../targets/index.js';
import {
  check,
  type Fault,
  findings,
  type Made,
  make,
  must,
  rulesOf,
  runtime,
  Spoilt,
  type Tensor,
  type Wish,
  wideV3,
  writeShard,
} from './engine-directory.js';
import { fixtures } from './golden-cases.js';

const work = mkdtempSync(join(tmpdir(), 'hkgai-cuda-'));
afterAll(() => rmSync(work, { recursive: true }));
const wide = join(work, 'wide');
const tiny = (n: string): string => join(fixtures, 'tiny', n);

const made: Record<string, Made> = {};
beforeAll(async () => {
  wideV3(wide);
  const bases: Readonly<Record<string, readonly [string, Wish]>> = {
    int4: [wide, { target: 'cuda', quantise: 'w4a16' }],
    uneven: [join(fixtures, 'hkgai-nano'), { target: 'cuda', quantise: 'w4a16' }],
    int8: [wide, { target: 'cuda', quantise: 'w8a8' }],
    mxfp4: [wide, { target: 'cuda', quantise: 'mxfp4' }],
    fp8: [tiny('v3-tiny-fp8'), { target: 'cuda', quantise: 'none' }],
    v4: [tiny('v4-tiny-fp8fp4'), { target: 'cuda', quantise: 'none' }],
    rows: [wide, { target: 'cuda', quantise: 'int8-rows' }],
    blocks: [wide, { target: 'cuda', quantise: 'int8-blocks' }],
  };
  for (const [name, [model, w]] of Object.entries(bases)) made[name] = must(await make(model, w, join(work, name)));
});

const f32 = (v: number): Uint8Array => new Uint8Array(new Float32Array([v]).buffer);
const first = (t: Tensor, bytes: readonly number[] | Uint8Array): void => t.bytes.set(bytes, 0);
const expert = /mlp\.experts\.1\.up_proj\./;
const plainTensor = (name: string): Tensor => ({ name, dtype: 'BF16', shape: [2], bytes: new Uint8Array(4) });
const faults: readonly Fault[] = [
  // config.json
  { name: 'config.json is a list', of: 'int4', rules: 'V1', plant: s => s.file('config.json', '[]') },
  { name: 'it is computed in float32', of: 'int4', rules: 'V1', plant: s => s.config(c => void (c.torch_dtype = 'float32')) },
  { name: 'the method is unknown', of: 'int4', rules: 'V1', plant: s => s.quantisation(q => void (q.quant_method = 'gptq')) },
  { name: 'quantization_config is a list', of: 'int4', rules: 'V1', plant: s => s.quantisation(() => []) },
  {
    name: 'a group has a key of its own',
    of: 'int4',
    rules: 'V2',
    plant: s => s.quantisation(q => void (q.config_groups.group_0.note = 1)),
  },
  {
    name: 'weights have a key of their own',
    of: 'int4',
    rules: 'V2',
    plant: s => s.quantisation(q => void (q.config_groups.group_0.weights.bits = 4)),
  },
  {
    name: 'activations have a key of their own',
    of: 'int8',
    rules: 'V2',
    plant: s => s.quantisation(q => void (q.config_groups.group_0.input_activations.bits = 8)),
  },
  {
    name: 'a format does not exist',
    of: 'int4',
    rules: 'V3',
    plant: s => s.quantisation(q => void (q.config_groups.group_0.format = 'int4')),
  },
  {
    name: 'groups of 48',
    of: 'int4',
    rules: 'V3',
    plant: s => s.quantisation(q => void (q.config_groups.group_0.weights.group_size = 48)),
  },
  { name: 'no groups', of: 'int4', rules: 'V3', plant: s => s.quantisation(q => void (q.config_groups = {})) },
  { name: 'a group that is text', of: 'int4', rules: 'V3', plant: s => s.quantisation(q => void (q.config_groups.group_0 = 'int4')) },
  {
    name: 'dynamic weights',
    of: 'int4',
    rules: 'V3',
    plant: s => s.quantisation(q => void (q.config_groups.group_0.weights.dynamic = true)),
  },
  {
    name: 'an order of activations',
    of: 'int4',
    rules: 'V3',
    plant: s => s.quantisation(q => void (q.config_groups.group_0.weights.actorder = 'group')),
  },
  { name: 'not compressed', of: 'int4', rules: 'V3', plant: s => s.quantisation(q => void (q.quantization_status = 'frozen')) },
  {
    name: 'activations a tensor',
    of: 'int8',
    rules: 'V3',
    plant: s => s.quantisation(q => void (q.config_groups.group_0.input_activations.strategy = 'tensor')),
  },
  {
    name: 'static activations',
    of: 'int8',
    rules: 'V3',
    plant: s => s.quantisation(q => void (q.config_groups.group_0.input_activations.dynamic = false)),
  },
  {
    name: 'int8 in groups',
    of: 'int8',
    rules: 'V3',
    plant: s => s.quantisation(q => void (q.config_groups.group_0.weights.strategy = 'group')),
  },
  { name: 'an expression that does not compile', of: 'int4', rules: 'V4', plant: s => s.quantisation(q => void q.ignore.push('re:(')) },
  { name: 'an ignore list that is text', of: 'rows', rules: 'V4 V5 V7', plant: s => s.quantisation(q => void (q.ignore = 'lm_head')) },
  {
    name: 'targets that are text',
    of: 'int4',
    rules: 'V4',
    plant: s => s.quantisation(q => void (q.config_groups.group_0.targets = 'Linear')),
  },
  { name: 'MTP blocks are not counted', of: 'int4', rules: 'V21', plant: s => s.config(c => void (c.num_nextn_predict_layers = 0)) },
  // int4
  { name: 'codes are missing', of: 'int4', rules: 'V5', plant: s => s.tensors(/1\.up_proj\.weight_packed$/, () => false) },
  { name: 'a scale is missing', of: 'int4', rules: 'V5', plant: s => s.tensors(/1\.up_proj\.weight_scale$/, () => false) },
  { name: 'a norm is missing', of: 'int4', rules: 'V5', plant: s => s.tensors('model.norm.weight', () => false) },
  { name: 'a tensor of an MTP block is missing', of: 'int4', rules: 'V5', plant: s => s.tensors(/layers\.2\.eh_proj/, () => false) },
  {
    name: 'a tensor too many',
    of: 'int4',
    rules: 'V6',
    plant: s => s.tensors('model.norm.weight', () => [plainTensor('model.norm.bias')]),
  },
  {
    name: 'codes of another dtype',
    of: 'int4',
    rules: 'V7',
    plant: s => s.tensors(/1\.up_proj\.weight_packed$/, t => void (t.dtype = 'F32')),
  },
  { name: 'codes turned', of: 'int4', rules: 'V8', plant: s => s.tensors(/1\.up_proj\.weight_packed$/, t => void t.shape.reverse()) },
  {
    name: 'the config says groups of 64',
    of: 'int4',
    rules: 'V8',
    plant: s => s.quantisation(q => void (q.config_groups.group_0.weights.group_size = 64)),
  },
  {
    name: 'groups that do not divide',
    of: 'uneven',
    rules: 'V15 V8',
    plant: s => s.quantisation(q => void (q.config_groups.group_0.weights.group_size = 64)),
  },
  { name: 'a scale of 0', of: 'int4', rules: 'V11', plant: s => s.tensors(/1\.up_proj\.weight_scale$/, t => first(t, [0, 0])) },
  {
    name: 'a scale that is NaN',
    of: 'int4',
    rules: 'V11',
    plant: s => s.tensors(/1\.up_proj\.weight_scale$/, t => first(t, [0xc0, 0x7f])),
  },
  { name: 'a scale below 0', of: 'int4', rules: 'V11', plant: s => s.tensors(/1\.up_proj\.weight_scale$/, t => first(t, [0x80, 0xbf])) },
  { name: 'weight_shape says less', of: 'int4', rules: 'V13', plant: s => s.tensors(/1\.up_proj\.weight_shape$/, t => first(t, [64])) },
  {
    name: 'asymmetric experts',
    of: 'int4',
    rules: 'V16 V5',
    plant: s => s.quantisation(q => void (q.config_groups.group_0.weights.symmetric = false)),
  },
  {
    name: 'a zero point without need',
    of: 'int4',
    rules: 'V18',
    plant: s =>
      s.tensors(/1\.up_proj\.weight_packed$/, t => [
        { name: t.name.replace(/packed$/, 'zero_point'), dtype: 'I32', shape: [16, 4], bytes: new Uint8Array(256) },
      ]),
  },
  { name: 'bytes are missing', of: 'int4', rules: 'V17', cut: /1\.up_proj\.weight_scale$/ },
  {
    name: 'one expert is plain',
    of: 'int4',
    rules: 'V9',
    plant: s => {
      s.plain(/layers\.1\.mlp\.experts\.3\.up_proj/);
      s.quantisation(q => void q.ignore.push('model.layers.1.mlp.experts.3.up_proj'));
    },
  },
  // the index
  {
    name: 'the index names a shard that is not there',
    of: 'int4',
    rules: 'V14',
    plant: s => s.json('model.safetensors.index.json', i => void (i.weight_map['lm_head.weight'] = 'model-00009.safetensors')),
  },
  {
    name: 'the index names the wrong shard',
    of: 'int4',
    rules: 'V14',
    plant: s => s.json('model.safetensors.index.json', i => void (i.weight_map['lm_head.weight'] = 'model-00001-of-00002.safetensors')),
  },
  {
    name: 'a tensor is not in the index',
    of: 'int4',
    rules: 'V14',
    plant: s => s.json('model.safetensors.index.json', i => void delete i.weight_map['lm_head.weight']),
  },
  { name: 'no index', of: 'int4', rules: 'V14', plant: s => s.remove('model.safetensors.index.json') },
  { name: 'an index without a map', of: 'int4', rules: 'V14', plant: s => s.file('model.safetensors.index.json', '{}') },
  { name: 'a second index', of: 'int4', rules: 'V14', plant: s => s.file('other.safetensors.index.json', '{"weight_map":{}}') },
  // int8
  { name: 'a code of -128', of: 'int8', rules: 'V12', plant: s => s.tensors(/o_proj\.weight$/, t => first(t, [0x80])) },
  { name: 'int8 turned', of: 'int8', rules: 'V8', plant: s => s.tensors(/q_b_proj\.weight$/, t => void t.shape.reverse()) },
  { name: 'codes called U8', of: 'int8', rules: 'V7', plant: s => s.tensors(/o_proj\.weight$/, t => void (t.dtype = 'U8')) },
  {
    name: 'an infinite scale',
    of: 'int8',
    rules: 'V11',
    plant: s => s.tensors(/o_proj\.weight_scale$/, t => first(t, f32(Number.POSITIVE_INFINITY))),
  },
  {
    name: 'no int8 activations',
    of: 'int8',
    rules: 'V16',
    plant: s => s.quantisation(q => void (q.config_groups.group_0.input_activations = null)),
  },
  {
    name: 'q_a is plain, kv_a is not',
    of: 'int8',
    rules: 'V9',
    plant: s => {
      s.plain(/layers\.0\.self_attn\.q_a_proj/);
      s.quantisation(q => void q.ignore.push('model.layers.0.self_attn.q_a_proj'));
    },
  },
  {
    name: 'an expression that matches in the middle alone',
    of: 'int8',
    rules: 'S3 V10 V5 V7',
    // re.match begins at the start of a name
    plant: s => s.quantisation(q => void (q.ignore = q.ignore.map((e: string) => (e.includes('kv_b') ? 're:self_attn\\.kv_b_proj$' : e)))),
  },
  {
    name: 'kv_b_proj is quantised',
    of: 'int8',
    rules: 'S3 V10',
    plant: s => {
      s.quantisation(q => void (q.ignore = q.ignore.filter((e: string) => !e.includes('kv_b'))));
      s.tensors(
        /layers\.[01]\.self_attn\.kv_b_proj\.weight$/,
        t => {
          const [rows, columns] = t.shape as [number, number];
          t.dtype = 'I8';
          t.bytes = new Uint8Array(rows * columns);
          const scale = new Uint8Array(new Float32Array(rows).fill(1).buffer);
          return [{ name: t.name.replace(/weight$/, 'weight_scale'), dtype: 'F32', shape: [rows, 1], bytes: scale }];
        },
        false,
      );
    },
  },
  { name: 'int8 experts for SGLang', of: 'int8', rules: 'S1', as: { runtime: { name: 'sglang', version: null } } },
  { name: 'mxfp4 experts for SGLang', of: 'mxfp4', rules: 'V16', as: { runtime: { name: 'sglang', version: null } } },
  { name: 'a NaN among exponents', of: 'mxfp4', rules: 'V11', plant: s => s.tensors(/1\.up_proj\.weight_scale$/, t => first(t, [255])) },
  // DeepSeek's own
  { name: 'no blocks', of: 'fp8', rules: 'V19', plant: s => s.quantisation(q => void delete q.weight_block_size) },
  { name: 'static fp8', of: 'fp8', rules: 'V19', plant: s => s.quantisation(q => void (q.activation_scheme = 'static')) },
  { name: 'another fp8', of: 'fp8', rules: 'V19', plant: s => s.quantisation(q => void (q.fmt = 'e5m2')) },
  { name: 'a block scale is missing', of: 'fp8', rules: 'V5', plant: s => s.tensors(/o_proj\.weight_scale_inv$/, () => false) },
  {
    name: 'block scales in another shape',
    of: 'fp8',
    rules: 'V8',
    plant: s => s.tensors(/layers\.0\.mlp\.gate_proj\.weight_scale_inv$/, t => void (t.shape = [1, t.bytes.length / 4])),
  },
  {
    name: 'a block scale below 0',
    of: 'fp8',
    rules: 'V11',
    plant: s => s.tensors(/o_proj\.weight_scale_inv$/, t => first(t, f32(-1))),
  },
  { name: 'a plain matrix that no list has', of: 'fp8', rules: 'V5 V7', plant: s => s.plain(/layers\.0\.self_attn\.o_proj/) },
  { name: 'experts are said to be fp8', of: 'v4', rules: 'V19 V7 V8', plant: s => s.config(c => void (c.expert_dtype = 'fp8')) },
  { name: 'a NaN among block scales', of: 'v4', rules: 'V11', plant: s => s.tensors(/attn\.wkv\.scale$/, t => first(t, [255])) },
  {
    name: 'fp4 that is short of a group',
    of: 'v4',
    rules: 'V8',
    plant: s => s.tensors(/experts\.0\.w1\.scale$/, t => void (t.shape = [1, t.bytes.length])),
  },
  { name: 'another family loads it', of: 'int4', rules: 'V1', plant: s => s.config(c => void (c.architectures = ['LlamaForCausalLM'])) },
  { name: 'no class loads it', of: 'int4', rules: 'V1', plant: s => s.config(c => void delete c.architectures) },
  { name: 'weights are sparse', of: 'int4', rules: 'V3', plant: s => s.quantisation(q => void (q.sparsity_config = { format: 'dense' })) },
  {
    name: 'weights are transformed',
    of: 'int4',
    rules: 'V3',
    plant: s => s.quantisation(q => void (q.transform_config = { config_groups: {} })),
  },
  { name: 'a cache has scales', of: 'int4', rules: 'V3', plant: s => s.quantisation(q => void (q.kv_cache_scheme = { num_bits: 8 })) },
  { name: 'a NaN in a norm', of: 'int4', rules: 'V22', plant: s => s.tensors('model.norm.weight', t => first(t, [0xc0, 0x7f])) },
  {
    name: 'an infinite number',
    of: 'int4',
    rules: 'V22',
    plant: s => s.tensors('lm_head.weight', t => t.bytes.set([0x80, 0xff], t.bytes.length - 2)),
  },
  {
    name: 'a NaN code of fp8',
    of: 'fp8',
    rules: 'V22',
    plant: s => s.tensors(/layers\.0\.self_attn\.o_proj\.weight$/, t => first(t, [0xff])),
  },
  { name: 'a table names an expert that is not there', of: 'v4', rules: 'V23', plant: s => s.tensors(/tid2eid$/, t => first(t, [200])) },
  {
    name: 'a shard that the index does not name',
    of: 'int4',
    rules: 'V14',
    plant: s => writeShard(join(s.dir, 'extra.safetensors'), []),
  },
  // SGLang's int8
  { name: 'w8a8_int8 for vLLM', of: 'rows', rules: 'V20', as: { runtime: { name: 'vllm', version: null } } },
  { name: 'blockwise_int8 for vLLM', of: 'blocks', rules: 'V20', as: { runtime: { name: 'vllm', version: null } } },
  {
    name: 'plain experts',
    of: 'rows',
    rules: 'S2',
    plant: s => {
      s.plain(/layers\.1\.mlp\.experts\.\d+\.(gate|up|down)_proj/);
      s.quantisation(q => void q.ignore.push('re:.*layers\\.1\\.mlp\\.experts\\..*'));
    },
  },
  { name: 'a plain linear that no list has', of: 'rows', rules: 'V5 V7', plant: s => s.plain(/layers\.0\.self_attn\.o_proj/) },
  { name: 'kv_b_proj is not excepted', of: 'rows', rules: 'V5 V7', plant: s => s.quantisation(q => void (q.ignore = ['lm_head'])) },
  { name: 'a row scale is missing', of: 'rows', rules: 'V5', plant: s => s.tensors(/o_proj\.weight_scale$/, () => false) },
  { name: 'blocks of another size', of: 'blocks', rules: 'S4', plant: s => s.quantisation(q => void (q.weight_block_size = [64, 64])) },
  { name: 'static blocks', of: 'blocks', rules: 'S4', plant: s => s.quantisation(q => void (q.activation_scheme = 'static')) },
  {
    name: 'block scales called I32',
    of: 'blocks',
    rules: 'V7',
    plant: s => s.tensors(/o_proj\.weight_scale_inv$/, t => void (t.dtype = 'I32')),
  },
  { name: 'a block code of -128', of: 'blocks', rules: 'V12', plant: s => s.tensors(expert, t => first(t, [0x80])) },
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
    expect(Object.keys(cudaRules).filter(r => !hit.has(r))).toEqual([]);
    expect([...hit].filter(r => !Object.hasOwn(cudaRules, r))).toEqual([]);
  });
});

describe('a clean directory', () => {
  const models = ['llama-distill-tiny', 'v2-lite-tiny', 'v3-tiny-fp8', 'v32-tiny', 'v4-tiny', 'v4-tiny-fp8fp4', 'wide'];
  const cuda = targets.cuda!;
  for (const m of models)
    it(`of ${m} has no finding, in any recipe, for any engine that is said to read it`, async () => {
      let written = 0;
      const at = m === 'wide' ? wide : tiny(m);
      for (const quantise of Object.keys(cuda.engines.recipes))
        for (const [mtp, name] of [
          [undefined, undefined],
          ['drop', undefined],
          ['quantise', undefined],
          [undefined, 'vllm'],
          [undefined, 'sglang'],
        ] as const) {
          if (mtp && !(['none', 'fp8'].includes(quantise) && ['v3-tiny-fp8', 'v4-tiny-fp8fp4'].includes(m))) continue;
          if (name && !(['w8a8', 'int8-rows'].includes(quantise) && m === 'wide')) continue;
          const out = join(work, `clean-${m}`);
          const x = await make(at, { target: 'cuda', quantise, ...(mtp ? { mtp } : {}), ...(name ? { runtime: name } : {}) }, out);
          if (typeof x === 'string') expect(x).toMatch(/^HK4501/);
          else {
            written++;
            expect([m, quantise, mtp, name, check(x.dir, x)]).toEqual([m, quantise, mtp, name, []]);
            // and as a directory that comes from elsewhere, known by its config alone; without MTP the config says so
            const alone = conform(x.dir, cuda, cuda.chips[0]!, null, runtime('cuda', name ?? 'none'));
            expect([m, quantise, mtp, alone.problems.map(p => p.what)]).toEqual([m, quantise, mtp, []]);
          }
          rmSync(out, { recursive: true, force: true });
        }
      expect(written).toBeGreaterThan(4);
    });
});

describe('a checkpoint in F32', () => {
  const float = join(work, 'float');
  const wishes = [{ target: 'cuda' }, { target: 'ascend' }, { target: 'biren' }] as const;
  beforeAll(() => {
    wideV3(float);
    const s = new Spoilt(float, `${float}-32`);
    s.config(c => void (c.torch_dtype = 'float32'));
    s.config(c => void delete c.architectures);
    const widen = (t: Tensor): void => {
      if (t.dtype !== 'BF16') return;
      const wide = new Uint8Array(2 * t.bytes.length);
      for (let i = 0; i < t.bytes.length; i += 2) wide.set(t.bytes.subarray(i, i + 2), 2 * i + 2);
      t.dtype = 'F32';
      t.bytes = wide;
    };
    s.tensors(/./, widen, false);
  });
  for (const w of wishes)
    it(`is written in bf16 for ${w.target}, and config.json says so; as it is it is refused before`, async () => {
      const m = must(await make(`${float}-32`, { ...w, quantise: 'bf16' }, join(work, `float-${w.target}`)));
      const config = JSON.parse(readFileSync(join(m.dir, 'config.json'), 'utf8'));
      expect([config.torch_dtype, config.architectures]).toEqual(['bfloat16', ['DeepseekV3ForCausalLM']]);
      expect(check(m.dir, m)).toEqual([]);
      expect(await make(`${float}-32`, { ...w, quantise: 'none' }, join(work, 'kept'))).toMatch(
        /^HK4501.*Linears in f32 are computed in bf16/,
      );
    });
});

describe('what an engine does not read', () => {
  const refused = async (w: Omit<Wish, 'target'>, model = wide): Promise<string> => {
    const x = await make(model, { target: 'cuda', ...w }, join(work, 'refused'));
    return typeof x === 'string' ? x : 'written';
  };
  it('is refused with a sentence before anything is written', async () => {
    expect(await refused({ quantise: 'w8a8', runtime: 'sglang', format: 'compressed-tensors' })).toMatch(/NPUs alone.*w8a8_int8/);
    expect(await refused({ quantise: 'int8-rows', runtime: 'vllm', format: 'w8a8_int8' })).toMatch(/method of SGLang/);
    expect(await refused({ quantise: 'int8-blocks', runtime: 'vllm', format: 'blockwise_int8' })).toMatch(/method of SGLang/);
    expect(await refused({ quantise: 'w8a8', format: 'w8a8_int8' })).toMatch(/--mtp quantise/);
    expect(await refused({ quantise: 'w4a16' }, tiny('v2-lite-tiny'))).toMatch(/all experts of a layer have one form/i);
    expect(await refused({ quantise: 'int8-blocks' }, join(fixtures, 'hkgai-nano'))).toMatch(/not whole blocks of 128/);
    expect(await refused({ quantise: 'mxfp4', format: 'fp8' })).toMatch(/fp4 experts are of V4 alone/);
  });
});
