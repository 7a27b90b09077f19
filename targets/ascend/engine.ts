// What vllm-ascend, SGLang and MindIE load: AscendV1 with its description of every tensor; compressed-tensors W8A8 on request.
// (vllm-ascend@182b75ea, vllm_ascend/quantization/modelslim_config.py; msmodelslim, core/quant_service/modelslim_v1/save/ascendv1.py:214-227)
import { type CodedForm, coded, type Form } from '../../ir/form.js';
import {
  type Chosen,
  type EngineFormat,
  type Engines,
  type LogicalTensor,
  linearRoles,
  type Recipe,
  type Rule,
  type StoredPiece,
} from '../engine.js';
import { baseOf, compressedTensors, shapeObjection, usualForm } from '../tensors.js';
import { checkAscendV1 } from './conformance.js';

const isCoded = (f: Form): f is CodedForm => f.kind === 'coded';
/** Always FLOAT (vllm-ascend reads these without a quantisation: deepseek_v2.py:666-673; kv_b_proj is absorbed). */
const float = (t: LogicalTensor): string | null => {
  switch (t.role) {
    case 'kv_b':
      return 'kv_b_proj is absorbed at load and must be FLOAT';
    case 'indexer':
      return 'the indexer is fused without a quantisation and must be FLOAT';
    case 'router':
    case 'mtp_merge':
    case 'compressor':
      return `${t.role === 'router' ? 'the router' : t.role === 'mtp_merge' ? 'eh_proj' : 'a compressor'} must be FLOAT`;
    default:
      return null;
  }
};
const is950 = (chip: string): boolean => chip.startsWith('950');

/** The type that a form has in the description. */
export function typeOf(f: Form): string {
  if (!isCoded(f)) return 'FLOAT';
  if (f.element === 'i8') return 'W8A8_DYNAMIC';
  if (f.element === 'i4') return 'W4A8_DYNAMIC';
  return f.element === 'f8e4m3' ? 'W8A8_MXFP8' : 'W4A8_MXFP';
}
const rowsHalf = (t: LogicalTensor): readonly [number, number] => [(t.shape[0] as number) / 2, t.shape[1] as number];

const ascendV1: EngineFormat = {
  name: 'ascendv1',
  about: 'W8A8_DYNAMIC and W4A8_DYNAMIC, MXFP forms on 950, with quant_model_description.json',
  readers: 'vllm-ascend 0.18, 0.23 and head, SGLang, MindIE: read in their sources, not run here',
  form(r: Rule): Form {
    const search = r.search ?? 'absmax';
    // the loader keeps scales in bf16: codes are chosen under the rounded scale
    if (r.to === 'int8') return coded('i8', [1, 0], 'bf16-in-f32', { search });
    if (r.to === 'int4') return coded('i4', [1, 0], 'bf16-in-f32', { search, layout: 'row-pairs' });
    return usualForm(r);
  },
  objection(t, form, chip) {
    if (form.kind === 'gguf') return 'GGUF is for llama.cpp on the CPU';
    if (form.kind === 'plain' && form.element === 'bf16' && chip.startsWith('310p')) return '310P has no bf16';
    if (!isCoded(form)) return null;
    const must = float(t);
    if (must) return must;
    if (form.zero) return 'the loaders take symmetric codes';
    switch (form.element) {
      case 'i8':
        return form.search === 'gptq' ? null : shapeObjection(t, form);
      case 'i4':
        if (t.role !== 'expert') return 'W4A8_DYNAMIC is for routed experts: linears lost it after 0.23';
        if (form.search === 'gptq') return 'gptq packs along columns; W4A8 wants row pairs';
        if (/\.(down_proj|w2)\.weight$/.test(t.name) && (t.shape[1] as number) % 16 !== 0)
          return `scale_bias of a down projection wants columns in sixteens; this has ${t.shape[1]}`;
        return shapeObjection(t, form);
      case 'f8e4m3':
      case 'f4e2m1':
        if (!is950(chip)) return `${form.element === 'f8e4m3' ? 'fp8' : 'fp4'} runs on the 950 alone; ${chip} has no such unit`;
        if (form.block[0] !== 1) return 'blocks of 128 x 128 are not loaded; mxfp8 is';
        return shapeObjection(t, form);
    }
  },
  refuses(recipe, _model, chip) {
    if (chip.startsWith('310p') && recipe.name !== 'none') return '310P has no bf16, which these checkpoints are computed in';
    return recipe.otherwise === 'f16' ? 'bf16 is what these checkpoints and engines compute in' : null;
  },
  stored(t: LogicalTensor, form: Form): readonly StoredPiece[] {
    if (!isCoded(form)) return [];
    const base = baseOf(t);
    const [rows, columns] = t.shape as readonly [number, number];
    const codes = { name: `${base}.weight`, what: { kind: 'codes' } } as const;
    const scales = { name: `${base}.weight_scale`, dtype: 'F32', shape: [rows, 1], what: { kind: 'scales' } } as const;
    const offset = { name: `${base}.weight_offset`, dtype: 'F32', shape: [rows, 1], what: { kind: 'fill', byte: 0 } } as const;
    switch (form.element) {
      case 'i8':
        return [{ ...codes, dtype: 'I8', shape: [rows, columns] }, scales, offset];
      case 'i4': {
        const chunks = /\.(down_proj|w2)\.weight$/.test(t.name) ? 16 : 1;
        return [
          { ...codes, dtype: 'I8', shape: rowsHalf(t) },
          scales,
          offset,
          { name: `${base}.scale_bias`, dtype: 'F32', shape: [rows, chunks], what: { kind: 'sums', chunks } },
        ];
      }
      case 'f8e4m3':
        return [
          { ...codes, dtype: 'F8_E4M3', shape: [rows, columns] },
          { name: `${base}.weight_scale`, dtype: 'U8', shape: [rows, columns / 32], what: { kind: 'scales' } },
        ];
      case 'f4e2m1':
        return [
          { ...codes, dtype: 'U8', shape: [rows, columns / 2] },
          { name: `${base}.weight_scale`, dtype: 'U8', shape: [rows, columns / 32], what: { kind: 'scales' } },
        ];
    }
  },
  files(config, chosen) {
    const types = chosen.map(c => [c, typeOf(c.form)] as const);
    const any = types.find(([, t]) => t !== 'FLOAT');
    if (!any) return { config, extra: [] };
    const has = (t: string): boolean => types.some(([, x]) => x === t);
    const mx = has('W8A8_MXFP8') || has('W4A8_MXFP');
    const description: Record<string, unknown> = {
      version: '1.0.0',
      model_quant_type: has('W8A8_DYNAMIC') ? 'W8A8_DYNAMIC' : any[1],
      group_size: mx ? 32 : 0,
      metadata: {},
      optional: {},
    };
    for (const [c, type] of [...types].sort(([a], [b]) => (a.tensor.name < b.tensor.name ? -1 : 1)))
      if (type === 'FLOAT') description[c.tensor.name] = 'FLOAT';
      else for (const p of ascendV1.stored(c.tensor, c.form, '')) description[p.name] = type;
    return { config, extra: [{ path: 'quant_model_description.json', text: `${JSON.stringify(description, null, 2)}\n` }] };
  },
  check: (dir, model, chip) =>
    dir.files.includes('quant_model_description.json') ? checkAscendV1(dir, model, { runtime: 'vllm-ascend', version: '0.23', chip }) : [],
};

const compressed: EngineFormat = {
  ...ascendV1,
  name: 'compressed-tensors',
  about: 'W8A8 with a scale a row and one a token, as on CUDA; int4 groups of 32 for routed experts',
  form: usualForm,
  objection(t, form, chip, recipe, runtime) {
    if (!isCoded(form)) return ascendV1.objection(t, form, chip, recipe, runtime);
    const must = float(t);
    if (must) return must;
    if (form.element === 'i4') {
      if (t.role !== 'expert') return 'W4A16 is for routed experts alone (vllm_ascend/quantization/methods/w4a16.py:110)';
      return form.block[1] === 32 && !form.zero ? shapeObjection(t, form) : 'int4 comes in symmetric groups of 32 here';
    }
    return form.element === 'i8' ? shapeObjection(t, form) : 'compressed-tensors holds int8 and int4 here';
  },
  stored: (t, form) => (isCoded(form) ? compressedTensors(t, form) : []),
  files(config, chosen, recipe: Recipe) {
    const coded = chosen.filter((c): c is Chosen & { readonly form: CodedForm } => isCoded(c.form));
    const first = coded[0];
    if (!first) return { config, extra: [] };
    const four = first.form.element === 'i4';
    const config_groups = {
      group_0: {
        targets: ['Linear'],
        format: four ? 'pack-quantized' : 'int-quantized',
        weights: {
          num_bits: four ? 4 : 8,
          type: 'int',
          symmetric: true,
          strategy: four ? 'group' : 'channel',
          group_size: four ? 32 : null,
          dynamic: false,
          actorder: null,
          block_structure: null,
          observer: 'minmax',
          observer_kwargs: {},
        },
        input_activations:
          recipe.activations === 'int8'
            ? {
                num_bits: 8,
                type: 'int',
                symmetric: true,
                strategy: 'token',
                group_size: null,
                dynamic: true,
                observer: null,
                observer_kwargs: {},
              }
            : null,
        output_activations: null,
      },
    };
    const ignore = [...new Set([...chosen.filter(c => c.tensor.matrix && !isCoded(c.form)).map(c => baseOf(c.tensor)), 'lm_head'])].sort();
    return {
      config: {
        ...config,
        quantization_config: {
          quant_method: 'compressed-tensors',
          version: '0.12.0',
          format: config_groups.group_0.format,
          quantization_status: 'compressed',
          global_compression_ratio: null,
          kv_cache_scheme: null,
          sparsity_config: {},
          transform_config: {},
          ignore,
          config_groups,
        },
      },
      extra: [],
    };
  },
  check: () => [],
};

const common = { otherwise: 'bf16', mtp: 'keep', activations: 'none' } as const;
const w8a8: readonly Rule[] = [{ roles: linearRoles, to: 'int8' }];
export const ascendEngines: Engines = {
  formats: [ascendV1, compressed],
  formatOf: { w4a16: 'compressed-tensors' },
  recipe: 'w8a8',
  runtimes: {
    'vllm-ascend': {
      about: 'vLLM with its Ascend plug-in',
      versions: ['0.18', '0.23', 'head'],
      formats: ['ascendv1', 'compressed-tensors'],
    },
    sglang: { about: 'SGLang, ModelSlim directories', versions: [], formats: ['ascendv1'] },
    mindie: { about: 'MindIE', versions: [], formats: ['ascendv1'] },
  },
  recipes: {
    none: { ...common, about: 'byte for byte', otherwise: 'keep', rules: [] },
    bf16: { ...common, about: 'every matrix in bf16', rules: [] },
    w8a8: { ...common, about: 'linears W8A8_DYNAMIC', activations: 'int8', rules: w8a8 },
    w4a8: {
      ...common,
      about: 'routed experts W4A8_DYNAMIC, other linears W8A8_DYNAMIC',
      activations: 'int8',
      rules: [{ roles: ['expert'], to: 'int4', group: 0 }, ...w8a8],
    },
    w4a16: { ...common, about: 'routed experts in int4, groups of 32 (compressed-tensors)', rules: [{ roles: ['expert'], to: 'int4' }] },
    mxfp8: { ...common, about: 'linears W8A8_MXFP8, on 950', activations: 'fp8', rules: [{ roles: linearRoles, to: 'mxfp8' }] },
    mxfp4: {
      ...common,
      about: 'routed experts W4A8_MXFP, other linears W8A8_MXFP8, on 950',
      activations: 'fp8',
      rules: [
        { roles: ['expert'], to: 'mxfp4' },
        { roles: linearRoles, to: 'mxfp8' },
      ],
    },
  },
};
