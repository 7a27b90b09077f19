// What vLLM and SGLang load: compressed-tensors, DeepSeek's own FP8 and FP4, and SGLang's w8a8_int8.
import type { CodedForm, Form } from '../../ir/form.js';
import {
  type Chosen,
  type EngineFormat,
  type EngineModel,
  type Engines,
  type LogicalTensor,
  linearRoles,
  type Recipe,
  type Rule,
} from '../engine.js';
import { baseOf, compressedTensors, deepseek, shapeObjection, usualForm } from '../tensors.js';
import { checkCuda } from './conformance.js';

const neverQuantised = (t: LogicalTensor): string | null => {
  switch (t.role) {
    case 'kv_b':
      return 'kv_b_proj is absorbed: vLLM keeps a bf16 copy of it anyway and SGLang misreads it quantised';
    case 'router':
      return 'no engine quantises the router';
    case 'mtp_merge':
      return 'no engine quantises eh_proj';
    case 'indexer':
      return "the indexer's projections are fused without a quantisation";
    case 'compressor':
      return 'the compressors stay as they are';
    default:
      return null;
  }
};
const isCoded = (f: Form): f is CodedForm => f.kind === 'coded';

/** Regular expressions, anchored at the start, that cover what stays plain; shorter than a list of every layer. */
function ignoreList(chosen: readonly Chosen[]): readonly string[] {
  const plain = new Set(chosen.filter(c => c.tensor.matrix && !isCoded(c.form)).map(c => baseOf(c.tensor)));
  const coded = new Set(chosen.filter(c => isCoded(c.form)).map(c => baseOf(c.tensor)));
  const list: string[] = [];
  // a last name that is plain everywhere is one expression; others are listed one by one
  const tail = (name: string): string => name.replace(/^.*?\.layers\.\d+\./, '').replace(/\.experts\.\d+\./, '.experts.*.');
  const codedTails = new Set([...coded].map(tail));
  const tails = new Map<string, string[]>();
  for (const name of plain) tails.set(tail(name), [...(tails.get(tail(name)) ?? []), name]);
  for (const [t, names] of tails)
    if (/\.layers\.\d+\./.test(names[0] as string) && !codedTails.has(t))
      list.push(`re:.*\\.${t.replaceAll('.', '\\.').replaceAll('*', '\\d+')}$`);
    else list.push(...names);
  if (!list.includes('lm_head')) list.push('lm_head');
  return [...new Set(list)].sort();
}
interface Args {
  readonly num_bits: number;
  readonly type: 'int' | 'float';
  readonly symmetric: boolean;
  readonly strategy: string;
  readonly group_size: number | null;
  readonly dynamic: boolean;
  readonly block_structure: readonly number[] | null;
  readonly [k: string]: unknown;
}
const weightArgs = (f: CodedForm): Args => ({
  num_bits: f.element === 'i4' || f.element === 'f4e2m1' ? 4 : 8,
  type: f.element === 'i8' || f.element === 'i4' ? 'int' : 'float',
  symmetric: !f.zero,
  strategy: f.block[0] > 1 ? 'block' : f.block[1] === 0 ? 'channel' : 'group',
  group_size: f.block[0] === 1 && f.block[1] > 0 ? f.block[1] : null,
  dynamic: false,
  actorder: null,
  block_structure: f.block[0] > 1 ? f.block : null,
  ...(f.element === 'f4e2m1' ? { scale_dtype: 'torch.uint8' } : {}),
  observer: 'minmax',
  observer_kwargs: {},
});
const formatOf = (f: CodedForm): string =>
  ({ i8: 'int-quantized', i4: 'pack-quantized', f8e4m3: 'float-quantized', f4e2m1: 'mxfp4-pack-quantized' })[f.element];
const activations = (recipe: Recipe, f: CodedForm): Record<string, unknown> | null =>
  recipe.activations === 'int8' && f.element === 'i8'
    ? { num_bits: 8, type: 'int', symmetric: true, strategy: 'token', group_size: null, dynamic: true, observer: null, observer_kwargs: {} }
    : f.element === 'f8e4m3'
      ? {
          num_bits: 8,
          type: 'float',
          symmetric: true,
          strategy: 'group',
          group_size: 128,
          dynamic: true,
          observer: null,
          observer_kwargs: {},
        }
      : null;

/** Names of a form's layers for a second group: expressions over last names. */
function targetsOf(chosen: readonly Chosen[], key: string): readonly string[] {
  const names = new Set(
    chosen
      .filter(c => isCoded(c.form) && keyOf(c.form) === key)
      .map(c =>
        baseOf(c.tensor)
          .replace(/^.*?\.layers\.\d+\./, '')
          .replace(/\.experts\.\d+\./, '.experts.*.'),
      ),
  );
  return [...names].sort().map(n => `re:.*\\.${n.replaceAll('.', '\\.').replaceAll('*', '\\d+')}$`);
}
const keyOf = (f: CodedForm): string => `${f.element} ${f.block.join('x')} ${f.zero}`;

function quantizationConfig(chosen: readonly Chosen[], recipe: Recipe): Record<string, unknown> | null {
  const forms = new Map<string, CodedForm>();
  for (const c of chosen) if (isCoded(c.form)) forms.set(keyOf(c.form), c.form);
  if (forms.size === 0) return null;
  const groups = [...forms].sort(([a], [b]) => (a < b ? -1 : 1));
  const config_groups = Object.fromEntries(
    groups.map(([key, f], i) => [
      `group_${i}`,
      {
        targets: groups.length === 1 ? ['Linear'] : targetsOf(chosen, key),
        format: formatOf(f),
        weights: weightArgs(f),
        input_activations: activations(recipe, f),
        output_activations: null,
      },
    ]),
  );
  const [only] = groups;
  const group = groups.find(([, f]) => f.element === 'i4' && f.block[1] > 0)?.[1].block[1];
  return {
    quant_method: 'compressed-tensors',
    version: '0.12.0',
    format: groups.length === 1 ? formatOf(only![1]) : 'mixed-precision',
    quantization_status: 'compressed',
    global_compression_ratio: null,
    kv_cache_scheme: null,
    sparsity_config: {},
    transform_config: {},
    ignore: ignoreList(chosen),
    config_groups,
    // read by vllm-ascend for its W4A16 experts, whose default is 32 (vllm_ascend/quantization/compressed_tensors_config.py:77)
    ...(group !== undefined && group !== 32 ? { group_size: group } : {}),
  };
}

const compressed: EngineFormat = {
  name: 'compressed-tensors',
  about: 'int4 and int8 for vLLM, int4 for SGLang',
  readers: "vLLM, SGLang, vllm-ascend, llama.cpp's converter: read in their sources, not run here",
  form: usualForm,
  objection(t, form) {
    if (form.kind === 'gguf') return 'GGUF is for llama.cpp on the CPU';
    if (!isCoded(form)) return null;
    const never = neverQuantised(t);
    if (never) return never;
    const columns = t.shape[1] as number;
    if (form.element === 'i4' && form.block[1] > 0 && columns % form.block[1] !== 0)
      return `groups of ${form.block[1]} do not divide ${columns} columns`;
    if (form.element === 'i4' && ![0, 32, 64, 128].includes(form.block[1]))
      return `engines have kernels for groups of 32, 64 and 128, not ${form.block[1]}`;
    if (form.element === 'i8' && (form.block[0] !== 1 || form.block[1] !== 0)) return 'int8 has one scale a row here';
    if (form.element === 'f8e4m3') return "fp8 goes out in DeepSeek's own form: --format fp8";
    return shapeObjection(t, form);
  },
  refuses: (recipe, _model, _chip) => (recipe.otherwise === 'f16' ? 'bf16 is what these checkpoints and engines compute in' : null),
  stored: (t, form) => (isCoded(form) ? compressedTensors(t, form) : []),
  files(config, chosen, recipe) {
    const q = quantizationConfig(chosen, recipe);
    return { config: q ? { ...config, quantization_config: q } : config, extra: [] };
  },
  check: (dir, model) => checkCuda(dir, model, { engine: 'vllm' }),
};

/** DeepSeek's own: what V3 and V4 are released in. */
const fp8: EngineFormat = {
  ...compressed,
  name: 'fp8',
  about: "DeepSeek's own FP8 blocks, passed on byte for byte where the checkpoint has them",
  readers: 'vLLM, SGLang: read in their sources, not run here',
  objection(t, form) {
    if (form.kind === 'gguf') return 'GGUF is for llama.cpp on the CPU';
    if (!isCoded(form)) return null;
    if (form.element !== 'f8e4m3' && form.element !== 'f4e2m1') return 'this format has fp8 blocks and fp4 experts alone';
    return t.role === 'router' || t.role === 'mtp_merge' ? (neverQuantised(t) as string) : shapeObjection(t, form);
  },
  stored: (t, form, modelType) => (isCoded(form) ? deepseek(t, form, modelType) : []),
  files(config, chosen) {
    const some = chosen.find(c => isCoded(c.form) || c.dtype === 'F8_E4M3');
    if (!some) return { config, extra: [] };
    const plain = chosen
      .filter(c => c.tensor.matrix && !isCoded(c.form) && c.dtype !== 'F8_E4M3' && c.dtype !== 'I8')
      .map(c => baseOf(c.tensor));
    const scale = chosen.find(c => isCoded(c.form))?.form as CodedForm | undefined;
    return {
      config: {
        ...config,
        quantization_config: {
          quant_method: 'fp8',
          activation_scheme: 'dynamic',
          fmt: 'e4m3',
          weight_block_size: [128, 128],
          ...(scale?.scale === 'e8m0-in-f32' || scale?.scale === 'e8m0' ? { scale_fmt: 'ue8m0' } : {}),
          ...(plain.length ? { modules_to_not_convert: plain.sort() } : {}),
        },
      },
      extra: [],
    };
  },
};
const w8a8Int8: EngineFormat = {
  ...compressed,
  name: 'w8a8_int8',
  about: "SGLang's int8 with a scale a row and one a token",
  readers: 'SGLang: read in its source, not run here',
  objection(t, form) {
    if (!isCoded(form)) return form.kind === 'gguf' ? 'GGUF is for llama.cpp on the CPU' : null;
    return form.element === 'i8'
      ? compressed.objection(t, form, '', { activations: 'int8' } as Recipe, null)
      : 'this format has int8 alone';
  },
  refuses: (recipe: Recipe, model: EngineModel) =>
    recipe.rules.some(r => r.roles?.includes('expert') && r.to !== 'int8') && model.tensors.some(t => t.role === 'expert')
      ? 'this format has int8 linears throughout'
      : null,
  files: config => ({ config: { ...config, quantization_config: { quant_method: 'w8a8_int8' } }, extra: [] }),
  check: (dir, model) => checkCuda(dir, model, { engine: 'sglang' }),
};

const common = { otherwise: 'bf16', mtp: 'keep', activations: 'none' } as const;
const all = (to: Rule['to'], more: Partial<Rule> = {}): readonly Rule[] => [{ roles: linearRoles, to, ...more }];
export const cudaEngines: Engines = {
  formats: [compressed, fp8, w8a8Int8],
  formatOf: { fp8: 'fp8' },
  recipe: 'none',
  runtimes: {
    vllm: { about: 'vLLM', versions: [], formats: ['compressed-tensors', 'fp8'] },
    sglang: { about: 'SGLang', versions: [], formats: ['compressed-tensors', 'fp8', 'w8a8_int8'] },
  },
  recipes: {
    none: { ...common, about: "byte for byte: DeepSeek's FP8 and FP4 as released", otherwise: 'keep', rules: [] },
    bf16: { ...common, about: 'every matrix in bf16', rules: [] },
    w4a16: { ...common, about: 'routed experts in int4, groups of 32; the rest bf16', rules: [{ roles: ['expert'], to: 'int4' }] },
    'w4a16-g128': { ...common, about: 'routed experts in int4, groups of 128', rules: [{ roles: ['expert'], to: 'int4', group: 128 }] },
    'w4a16-all': { ...common, about: 'all linears in int4, groups of 32', rules: all('int4') },
    w8a8: { ...common, about: 'linears in int8, a scale a row and one a token', activations: 'int8', rules: all('int8') },
    fp8: { ...common, about: 'linears in fp8 blocks of 128 x 128', activations: 'fp8', otherwise: 'keep', rules: all('fp8') },
    mxfp4: { ...common, about: 'routed experts in mxfp4', rules: [{ roles: ['expert'], to: 'mxfp4' }] },
  },
};
