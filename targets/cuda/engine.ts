// What vLLM and SGLang load: compressed-tensors, DeepSeek's own FP8 and FP4, and SGLang's int8 by rows and by blocks.
import { type CodedForm, coded, type Form } from '../../ir/form.js';
import type { Storage } from '../../ir/storage.js';
import { ignoreList, quantizationConfig } from '../compressed-tensors.js';
import { quantisationOf } from '../config.js';
import {
  type Chosen,
  type EngineFormat,
  type EngineModel,
  type Engines,
  type LogicalTensor,
  linearRoles,
  type Recipe,
  type Rule,
  type Runtime,
} from '../engine.js';
import {
  baseOf,
  blockInt8,
  codedIn,
  codedOf,
  compressedTensors,
  deepseek,
  expertsAlike,
  keptWide,
  ownSpelling,
  scaleObjection,
  served,
  shapeObjection,
  usualForm,
} from '../tensors.js';
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
const codes = (r: Rule): boolean => !['keep', 'bf16', 'f16', 'f32'].includes(r.to);
const noGguf = 'GGUF is for llama.cpp on the CPU';
/** A kept tensor counts as what it is stored as. */
const effective = (form: Form, source: Storage | undefined): Form => (form.kind === 'keep' && source ? (codedIn(source) ?? form) : form);
const noF16 = (recipe: Recipe): string | null =>
  recipe.otherwise === 'f16' ? 'bf16 is what these checkpoints and engines compute in' : null;
const sglangAlone = (name: string, runtime: Runtime | null): string | null =>
  runtime && runtime.name !== 'sglang' ? `${name} is a method of SGLang; ${runtime.name} does not read it` : null;

const compressed: EngineFormat = {
  name: 'compressed-tensors',
  about: 'int4 and int8 for vLLM, int4 for SGLang',
  readers:
    "vLLM and SGLang (int8 experts and mxfp4: vLLM alone; SGLang reads int8 as w8a8_int8), vllm-ascend, llama.cpp's converter: read in their sources, not run here",
  form: usualForm,
  objection(t, form, _chip, recipe, runtime, source) {
    if (form.kind === 'gguf') return noGguf;
    const f = effective(form, source);
    if (!isCoded(f)) return keptWide(t, form, source);
    if (form.kind === 'keep' && (f.element === 'f8e4m3' || f.element === 'f4e2m1'))
      return recipe.rules.some(codes) ? 'what the source has in FP8 cannot stay so beside compressed-tensors: "otherwise": "bf16"' : null;
    const never = neverQuantised(t);
    if (never) return never;
    const columns = t.shape[1] as number;
    if (f.element === 'f8e4m3') return "fp8 goes out in DeepSeek's own form: --format fp8";
    if (f.element === 'i8') {
      if (f.block[0] !== 1 || f.block[1] !== 0) return 'int8 has one scale a row here; in blocks it is --format blockwise_int8';
      return runtime?.name === 'sglang' && t.role === 'expert'
        ? 'SGLang has int8 experts of compressed-tensors on NPUs alone; on GPUs they are --format w8a8_int8'
        : null;
    }
    if (f.element === 'f4e2m1' && runtime?.name === 'sglang') return 'SGLang has no mxfp4 of compressed-tensors';
    if (f.element === 'i4') {
      if (![0, 32, 64, 128].includes(f.block[1])) return `engines have kernels for groups of 32, 64 and 128, not ${f.block[1]}`;
      if (f.zero && t.role === 'expert') return 'int4 experts are symmetric: zero points have no MoE kernel';
      if (f.block[1] > 0 && columns % f.block[1] !== 0) return expertsAlike(t, `groups of ${f.block[1]} do not divide ${columns} columns`);
    }
    return expertsAlike(t, shapeObjection(t, f));
  },
  refuses: noF16,
  stored: (t, form) => (isCoded(form) ? compressedTensors(t, form) : []),
  files(config, chosen, recipe, modelType) {
    const own = served(config, chosen, modelType);
    if (quantisationOf(own) !== null) return { config: own, extra: [] };
    const q = quantizationConfig(chosen, recipe);
    return { config: q ? { ...own, quantization_config: q } : own, extra: [] };
  },
  check: (dir, model, _chip, runtime) => checkCuda(dir, model, runtime),
};

/** Modules of a fused layer that is plain as a whole, under the names that vLLM and SGLang ask with. */
function fusedNames(plain: readonly string[], others: ReadonlySet<string>): readonly string[] {
  const whole = new Set<string>();
  for (const n of plain) {
    const experts = /^(.*\.experts)\.\d+\./.exec(n)?.[1];
    if (experts && !others.has(experts)) whole.add(experts);
    const gate = n.replace(/\.(gate_proj|up_proj|w1|w3)$/, '.gate_up_proj');
    if (gate !== n && !/\.experts\.\d+\./.test(n)) whole.add(gate);
    const a = n.replace(/\.(q_a_proj|kv_a_proj_with_mqa)$/, '');
    if (a !== n) for (const f of ['fused_qkv_a_proj', 'fused_qkv_a_proj_with_mqa']) whole.add(`${a}.${f}`);
  }
  return [...whole];
}
/** Modules that stay plain, by full name, with the fused ones they are part of (vLLM quant_utils.is_layer_skipped; SGLang quantization/utils.py). */
function plainModules(chosen: readonly Chosen[]): readonly string[] {
  const linear = chosen.filter(c => c.tensor.matrix && c.tensor.role !== 'mtp_merge');
  const experts = new Set(linear.filter(c => codedOf(c)).map(c => /^(.*\.experts)\.\d+\./.exec(c.tensor.name)?.[1] ?? ''));
  const plain = linear.filter(c => !codedOf(c)).map(c => baseOf(c.tensor));
  const drafts = linear.filter(c => c.tensor.mtp);
  return [
    ...new Set([
      ...plain,
      ...fusedNames(plain, experts),
      // SGLang's name for a whole MTP block
      ...(drafts.length > 0 && drafts.every(c => !codedOf(c)) ? ['model.decoder'] : []),
    ]),
  ].sort();
}

/** DeepSeek's own: what V3 and V4 are released in. */
const fp8: EngineFormat = {
  ...compressed,
  name: 'fp8',
  about: "DeepSeek's own FP8 blocks, passed on byte for byte where the checkpoint has them",
  readers: 'vLLM, SGLang: read in their sources, not run here',
  objection(t, form, _chip, recipe, _runtime, source) {
    if (form.kind === 'gguf') return noGguf;
    const f = effective(form, source);
    if (!isCoded(f)) return keptWide(t, form, source);
    const v4 = ownSpelling(t);
    if (f.element === 'f4e2m1') {
      if (form.kind === 'keep' && recipe.rules.some(r => r.to === 'fp8'))
        return 'V4 has one dtype for all its experts, and its scales go by it: --mtp quantise, or keep all of them';
      if (!v4) return 'fp4 experts are of V4 alone: --format compressed-tensors has mxfp4';
      return t.role === 'expert' ? expertsAlike(t, shapeObjection(t, f)) : 'fp4 is for routed experts';
    }
    if (f.element !== 'f8e4m3') return 'this format has fp8 blocks and fp4 experts alone';
    if (f.block.join() !== '128,128') return 'fp8 has blocks of 128 x 128 here';
    if (form.kind === 'keep') return null;
    if (!v4 && f.scale === 'e8m0') return 'scales in e8m0 are of V4 alone';
    const scale = scaleObjection(f, ['f32', 'e8m0-in-f32', 'e8m0']);
    if (scale) return scale;
    return t.role === 'router' || t.role === 'mtp_merge' || t.role === 'compressor' ? (neverQuantised(t) as string) : null;
  },
  refuses(recipe, model) {
    // vLLM reads the scales of V4's linears by what its experts are (vllm/models/deepseek_v4/quant_config.py:29-84)
    const experts = recipe.rules.find(r => r.roles?.includes('expert'));
    const others = recipe.rules.filter(r => r.to === 'fp8' && r !== experts);
    if (model.modelType === 'deepseek_v4' && experts?.to === 'mxfp4' && others.some(r => r.scale !== 'e8m0'))
      return 'beside fp4 experts V4 has its fp8 scales in e8m0: add "scale": "e8m0"';
    return noF16(recipe);
  },
  stored: (t, form, modelType) => (isCoded(form) ? deepseek(t, form, modelType) : []),
  files(config, chosen, _recipe, modelType) {
    const own = served(config, chosen, modelType);
    const forms = chosen.map(codedOf).filter(f => f !== null);
    if (quantisationOf(own) !== null || forms.length === 0) return { config: own, extra: [] };
    const plain = plainModules(chosen);
    const experts = chosen.filter(c => c.tensor.role === 'expert').map(codedOf);
    const ue8m0 = forms.some(f => f.element === 'f8e4m3' && (f.scale === 'e8m0-in-f32' || f.scale === 'e8m0'));
    return {
      config: {
        ...own,
        ...(modelType === 'deepseek_v4' ? { expert_dtype: experts.some(f => f?.element === 'f4e2m1') ? 'fp4' : 'fp8' } : {}),
        quantization_config: {
          quant_method: 'fp8',
          activation_scheme: 'dynamic',
          fmt: 'e4m3',
          weight_block_size: [128, 128],
          ...(ue8m0 ? { scale_fmt: 'ue8m0' } : {}),
          ...(plain.length ? { modules_to_not_convert: plain } : {}),
        },
      },
      extra: [],
    };
  },
};

/** One int8 method for every linear, experts and MTP blocks too (SGLang builds an MTP block as `model.decoder`, which no list of layers names). */
const int8Throughout = (name: string, recipe: Recipe, model: EngineModel, runtime: Runtime | null): string | null => {
  const other = sglangAlone(name, runtime) ?? noF16(recipe);
  if (other) return other;
  const asked = (role: 'expert' | 'attention') => recipe.rules.find(r => r.roles === undefined || r.roles.includes(role))?.to;
  if (asked(model.tensors.some(t => t.role === 'expert') ? 'expert' : 'attention') !== 'int8')
    return 'this format has int8 linears throughout, experts too';
  if (recipe.mtp === 'keep' && model.tensors.some(t => t.mtp && t.role === 'expert'))
    return 'SGLang loads the MTP block with the same int8 method: --mtp quantise, or --mtp drop';
  return null;
};
const w8a8Int8: EngineFormat = {
  ...compressed,
  name: 'w8a8_int8',
  about: "SGLang's int8 with a scale a row and one a token",
  readers: 'SGLang: read in its source, not run here',
  objection(t, form, _chip, _recipe, _runtime, source) {
    if (form.kind === 'gguf') return noGguf;
    const f = effective(form, source);
    if (!isCoded(f)) return keptWide(t, form, source);
    if (f.element !== 'i8') return 'this format has int8 alone';
    if (f.block[0] !== 1 || f.block[1] !== 0) return 'int8 has one scale a row here; in blocks it is --format blockwise_int8';
    return neverQuantised(t);
  },
  refuses: (recipe, model, _chip, runtime) => int8Throughout('w8a8_int8', recipe, model, runtime),
  // the list is matched as compressed-tensors' is (python/sglang/srt/layers/quantization/w8a8_int8.py, W8A8Int8Config)
  files: (config, chosen, _recipe, modelType) => ({
    config: { ...served(config, chosen, modelType), quantization_config: { quant_method: 'w8a8_int8', ignore: ignoreList(chosen) } },
    extra: [],
  }),
};
const blockwiseInt8: EngineFormat = {
  ...compressed,
  name: 'blockwise_int8',
  about: "SGLang's int8 in blocks of 128 x 128, the scales in F32",
  readers: 'SGLang: read in its source, not run here',
  form(rule) {
    return rule.to === 'int8' ? coded('i8', rule.block ?? [128, 128], 'f32', { search: rule.search ?? 'absmax' }) : usualForm(rule);
  },
  objection(t, form, _chip, _recipe, _runtime, source) {
    if (form.kind === 'gguf') return noGguf;
    const f = effective(form, source);
    if (!isCoded(f)) return keptWide(t, form, source);
    if (f.element !== 'i8' || f.block.join() !== '128,128') return 'this format has int8 in blocks of 128 x 128 alone';
    const never = neverQuantised(t);
    if (never) return never;
    // merged layers share blocks only where each part has whole ones (blockwise_int8.py, create_weights of linears and of experts)
    const [rows, columns] = t.shape as readonly [number, number];
    if (rows % 128 !== 0) {
      if (/\.(gate_proj|up_proj|w1|w3)\.weight$/.test(t.name))
        return expertsAlike(t, `${rows} rows of a merged layer are not whole blocks of 128`);
      // the other part would be quantised alone
      if (/\.(q_proj|k_proj|v_proj|q_a_proj)\.weight$/.test(t.name))
        return `each part of a merged layer is whole blocks of 128 here, and one has ${rows} outputs`;
    }
    return t.role === 'expert' && /\.(down_proj|w2)\.weight$/.test(t.name) && columns % 128 !== 0
      ? expertsAlike(t, `${columns} columns are not whole blocks of 128`)
      : null;
  },
  refuses: (recipe, model, _chip, runtime) => int8Throughout('blockwise_int8', recipe, model, runtime),
  stored: (t, form) => (isCoded(form) ? blockInt8(t, form) : []),
  files(config, chosen, _recipe, modelType) {
    const plain = plainModules(chosen);
    return {
      config: {
        ...served(config, chosen, modelType),
        quantization_config: {
          quant_method: 'blockwise_int8',
          activation_scheme: 'dynamic',
          weight_block_size: [128, 128],
          ...(plain.length ? { ignored_layers: plain } : {}),
        },
      },
      extra: [],
    };
  },
};

const common = { otherwise: 'bf16', mtp: 'keep', activations: 'none' } as const;
const all = (to: Rule['to'], more: Partial<Rule> = {}): readonly Rule[] => [{ roles: linearRoles, to, ...more }];
export const cudaEngines: Engines = {
  formats: [compressed, fp8, w8a8Int8, blockwiseInt8],
  loadsByClass: true,
  formatOf: { fp8: 'fp8', 'int8-rows': 'w8a8_int8', 'int8-blocks': 'blockwise_int8' },
  recipe: 'none',
  runtimes: {
    vllm: { about: 'vLLM', versions: ['0.10', '0.18', '0.23', 'head'], formats: ['compressed-tensors', 'fp8'] },
    sglang: {
      about: 'SGLang',
      versions: ['0.5.9', '0.5.10', 'head'],
      formats: ['compressed-tensors', 'fp8', 'w8a8_int8', 'blockwise_int8'],
    },
  },
  recipes: {
    none: { ...common, about: "byte for byte: DeepSeek's FP8 and FP4 as released", otherwise: 'keep', rules: [] },
    bf16: { ...common, about: 'every matrix in bf16', rules: [] },
    w4a16: { ...common, about: 'routed experts in int4, groups of 32; the rest bf16', rules: [{ roles: ['expert'], to: 'int4' }] },
    'w4a16-g128': { ...common, about: 'routed experts in int4, groups of 128', rules: [{ roles: ['expert'], to: 'int4', group: 128 }] },
    'w4a16-all': { ...common, about: 'all linears in int4, groups of 32', rules: all('int4') },
    w8a8: { ...common, about: 'linears in int8, a scale a row and one a token', activations: 'int8', rules: all('int8') },
    'int8-rows': {
      ...common,
      about: "linears in int8, a scale a row, for SGLang's w8a8_int8; MTP blocks too",
      mtp: 'quantise',
      activations: 'int8',
      rules: all('int8'),
    },
    'int8-blocks': {
      ...common,
      about: "linears in int8, blocks of 128 x 128, for SGLang's blockwise_int8; MTP blocks too",
      mtp: 'quantise',
      activations: 'int8',
      rules: all('int8', { block: [128, 128] }),
    },
    fp8: { ...common, about: 'linears in fp8 blocks of 128 x 128', activations: 'fp8', otherwise: 'keep', rules: all('fp8') },
    mxfp4: { ...common, about: 'routed experts in mxfp4', rules: [{ roles: ['expert'], to: 'mxfp4' }] },
  },
};
