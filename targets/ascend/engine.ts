// What vllm-ascend, SGLang and MindIE load: AscendV1 with its description of every tensor; compressed-tensors on request.
// (vllm-ascend@182b75ea, vllm_ascend/quantization/modelslim_config.py; msmodelslim, core/quant_service/modelslim_v1/save/ascendv1.py:214-227)
import { type CodedForm, coded, type Form, keep, plainForm } from '../../ir/form.js';
import type { Storage } from '../../ir/storage.js';
import { quantizationConfig } from '../compressed-tensors.js';
import { quantisationOf } from '../config.js';
import {
  type EngineFormat,
  type EngineModel,
  type Engines,
  type LogicalTensor,
  linearRoles,
  type Recipe,
  type Rule,
  type Runtime,
  type StoredPiece,
} from '../engine.js';
import {
  baseOf,
  codedIn,
  codedOf,
  compressedTensors,
  expertsAlike,
  keptWide,
  ownSpelling,
  served,
  shapeObjection,
  usualForm,
} from '../tensors.js';
import { checkAscend } from './conformance.js';
import { is310p, is950, modelObjection, nativeObjection, typeObjection } from './schemes.js';

const isCoded = (f: Form): f is CodedForm => f.kind === 'coded';
const codes = (r: Rule): boolean => !['keep', 'bf16', 'f16', 'f32'].includes(r.to);
/** Always FLOAT (vllm-ascend reads these without a quantisation: deepseek_v2.py:666-673; kv_b_proj is absorbed). */
const float = (t: LogicalTensor): string | null => {
  switch (t.role) {
    case 'kv_b':
      return 'kv_b_proj is absorbed at load and must be FLOAT';
    case 'indexer':
      return "the indexer's projections are fused without a quantisation and must be FLOAT";
    case 'router':
    case 'mtp_merge':
    case 'compressor':
      return `${t.role === 'router' ? 'the router' : t.role === 'mtp_merge' ? 'eh_proj' : 'a compressor'} must be FLOAT`;
    default:
      // multiplied group by group as it lies (vllm_ascend/attention/context_parallel/dsa_cp.py:1303-1330, 1461-1473)
      return t.name.endsWith('.wo_a.weight') ? "V4's wo_a is absorbed into a product over groups and must be FLOAT" : null;
  }
};
const no310p =
  '310P has no bf16, in which these checkpoints are stored and computed; it is served from a registry of its own (vllm_ascend/_310p), which is not written for here';

/** The type that a form has in the description. */
export function typeOf(f: Form): string {
  if (!isCoded(f)) return 'FLOAT';
  if (f.element === 'i8') return 'W8A8_DYNAMIC';
  if (f.element === 'i4') return 'W4A8_DYNAMIC';
  return f.element === 'f8e4m3' ? 'W8A8_MXFP8' : 'W4A8_MXFP';
}
const rowsHalf = (t: LogicalTensor): readonly [number, number] => [(t.shape[0] as number) / 2, t.shape[1] as number];

/** A tensor as the source has it. */
function keptObjection(
  t: LogicalTensor,
  source: Storage | undefined,
  chip: string,
  recipe: Recipe,
  runtime: Runtime | null,
): string | null {
  if (source === undefined) return null;
  if (source.kind === 'plain')
    return source.element === 'bf16' && is310p(chip) ? no310p : keptWide(t, keep, source, is310p(chip) ? ['f32'] : ['f32', 'f16']);
  if (recipe.rules.some(codes)) return 'what the source has in codes cannot stay so beside others: "otherwise": "bf16"';
  const f = codedIn(source) as CodedForm;
  if (f.element === 'f8e4m3' || f.element === 'f4e2m1') return nativeObjection(chip, ownSpelling(t), runtime);
  return compressedObjection(t, f, chip, runtime);
}
/** compressed-tensors on NPUs (vllm_ascend/quantization/compressed_tensors_config.py:340-437; methods/w4a16.py:110). */
function compressedObjection(t: LogicalTensor, f: CodedForm, chip: string, runtime: Runtime | null): string | null {
  if (is310p(chip)) return no310p;
  if (runtime?.name === 'mindie') return 'MindIE reads AscendV1, not compressed-tensors';
  if (ownSpelling(t)) return 'V4 goes out as AscendV1: nothing public says that compressed-tensors of V4 is read on NPUs';
  const must = float(t);
  if (must) return must;
  if (f.element === 'i4') {
    if (t.role !== 'expert') return 'W4A16 is for routed experts alone (vllm_ascend/quantization/methods/w4a16.py:110)';
    if (runtime?.name === 'sglang') return 'SGLang is not known to read int4 of compressed-tensors on NPUs';
    if (is950(chip)) return 'the 950 has no int4 cube, and nothing public says that W4A16 runs on it: --quantise mxfp4';
    if (f.zero || ![32, 64, 128].includes(f.block[1])) return 'int4 comes in symmetric groups of 32, 64 or 128 here';
    const columns = t.shape[1] as number;
    return columns % f.block[1] === 0 ? null : expertsAlike(t, `groups of ${f.block[1]} do not divide ${columns} columns`);
  }
  if (f.element !== 'i8') return 'int8 and int4 are what compressed-tensors holds here';
  return f.block[0] === 1 && f.block[1] === 0 ? null : 'int8 has one scale a row here';
}
const wholeObjection = (recipe: Recipe, model: EngineModel, chip: string, runtime: Runtime | null): string | null => {
  if (is310p(chip) && (recipe.otherwise === 'bf16' || recipe.rules.some(codes))) return no310p;
  if (recipe.otherwise === 'f16') return 'bf16 is what these checkpoints and engines compute in';
  return modelObjection(model.modelType === 'deepseek_v4', runtime);
};

const ascendV1: EngineFormat = {
  name: 'ascendv1',
  about: 'W8A8_DYNAMIC and W4A8_DYNAMIC, MXFP forms on 950, with quant_model_description.json',
  readers:
    'vllm-ascend 0.18, 0.23 and head (V4 and W4A8_MXFP: 0.23 and head), SGLang and MindIE (int8 and int4): read in their sources, not run here',
  form(r: Rule): Form {
    const search = r.search ?? 'absmax';
    // the loader keeps scales in bf16: codes are chosen under the rounded scale
    if (r.to === 'int8') return coded('i8', [1, 0], 'bf16-in-f32', { search });
    if (r.to === 'int4') return coded('i4', [1, 0], 'bf16-in-f32', { search, zero: r.zero ?? false, layout: 'row-pairs' });
    return usualForm(r);
  },
  // routing is computed with it in F32 (facts of 2.7); some releases store it in BF16
  always: (t, source) => (t.role === 'router_bias' && !(source.kind === 'plain' && source.element === 'f32') ? plainForm('f32') : null),
  objection(t, form, chip, recipe, runtime, source) {
    if (form.kind === 'gguf') return 'GGUF is for llama.cpp on the CPU';
    if (form.kind === 'keep') return keptObjection(t, source, chip, recipe, runtime);
    if (form.kind === 'plain') return form.element === 'bf16' && is310p(chip) ? no310p : null;
    const must = float(t);
    if (must) return must;
    if (form.zero) return 'the loaders take symmetric codes';
    const type = typeOf(form);
    const no = typeObjection(type, t.role === 'expert' ? 'moe' : 'linear', chip, ownSpelling(t), runtime);
    if (no) return no;
    switch (form.element) {
      case 'i8':
        return null;
      case 'i4':
        if (form.search === 'gptq') return 'gptq packs along a row; W4A8 wants row pairs, so gptq is not for it';
        if (/\.(down_proj|w2)\.weight$/.test(t.name) && (t.shape[1] as number) % 16 !== 0)
          return expertsAlike(t, `scale_bias of a down projection wants columns in sixteens; this has ${t.shape[1]}`);
        return expertsAlike(t, shapeObjection(t, form));
      case 'f8e4m3':
      case 'f4e2m1':
        if (form.block[0] !== 1) return 'blocks of 128 x 128 are not loaded; mxfp8 is';
        return expertsAlike(t, shapeObjection(t, form));
    }
  },
  refuses: wholeObjection,
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
  files(config, chosen, recipe, modelType) {
    const own = served(config, chosen, modelType);
    const types = chosen.map(c => [c, typeOf(c.form)] as const);
    const any = types.find(([, t]) => t !== 'FLOAT');
    if (!any) {
      // nothing was coded here; what the source has in codes is said as the source says it, or as compressed-tensors
      if (quantisationOf(own) !== null) return { config: own, extra: [] };
      const q = chosen.some(c => codedOf(c) !== null) ? quantizationConfig(chosen, recipe) : null;
      return { config: q ? { ...own, quantization_config: q } : own, extra: [] };
    }
    const has = (t: string): boolean => types.some(([, x]) => x === t);
    const mx = has('W8A8_MXFP8') || has('W4A8_MXFP');
    const head: Record<string, unknown> = {
      version: '1.0.0',
      model_quant_type: has('W8A8_DYNAMIC') ? 'W8A8_DYNAMIC' : any[1],
      group_size: mx ? 32 : 0,
      metadata: {},
      optional: {},
    };
    types.sort(([a], [b]) => (a.tensor.name < b.tensor.name ? -1 : 1));
    // written line by line: it names every tensor
    function* description(): Generator<string> {
      yield JSON.stringify(head, null, 2).replace(/\n\}$/, '');
      for (const [c, type] of types)
        for (const name of type === 'FLOAT' ? [c.tensor.name] : ascendV1.stored(c.tensor, c.form as CodedForm, '').map(p => p.name))
          yield `,\n  ${JSON.stringify(name)}: "${type}"`;
      yield '\n}\n';
    }
    return { config: own, extra: [{ path: 'quant_model_description.json', text: { [Symbol.iterator]: description } }] };
  },
  check: checkAscend,
};

const compressed: EngineFormat = {
  ...ascendV1,
  name: 'compressed-tensors',
  about: 'W8A8 with a scale a row and one a token, as on CUDA; int4 groups of 32 for routed experts',
  readers: 'vllm-ascend 0.18, 0.23 and head; SGLang the int8 alone: read in their sources, not run here',
  // loaded as W8A8_DYNAMIC, whose scales are kept in bf16
  form: r => (r.to === 'int8' ? coded('i8', r.block ?? [1, r.group ?? 0], 'bf16-in-f32', { search: r.search ?? 'absmax' }) : usualForm(r)),
  objection(t, form, chip, recipe, runtime, source) {
    if (form.kind === 'keep' && source?.kind === 'scaled') {
      const f = codedIn(source) as CodedForm;
      // int4 experts that were compressed-tensors before may stay beside int8
      return f.element === 'i4' ? compressedObjection(t, f, chip, runtime) : keptObjection(t, source, chip, recipe, runtime);
    }
    return isCoded(form) ? compressedObjection(t, form, chip, runtime) : ascendV1.objection(t, form, chip, recipe, runtime, source);
  },
  refuses(recipe, model, chip, runtime) {
    const whole = wholeObjection(recipe, model, chip, runtime);
    if (whole) return whole;
    if (recipe.activations !== 'int8' && recipe.rules.some(r => r.to === 'int8'))
      return 'int8 is read with int8 activations here: "activations": "int8"';
    return null;
  },
  stored: (t, form) => (isCoded(form) ? compressedTensors(t, form) : []),
  files(config, chosen, recipe: Recipe, modelType) {
    const own = served(config, chosen, modelType);
    if (quantisationOf(own) !== null) return { config: own, extra: [] };
    const q = quantizationConfig(chosen, recipe);
    return { config: q ? { ...own, quantization_config: q } : own, extra: [] };
  },
};

const common = { otherwise: 'bf16', mtp: 'keep', activations: 'none' } as const;
const w8a8: readonly Rule[] = [{ roles: linearRoles, to: 'int8' }];
export const ascendEngines: Engines = {
  formats: [ascendV1, compressed],
  loadsByClass: true,
  formatOf: { w4a16: 'compressed-tensors' },
  recipe: 'w8a8',
  runtimes: {
    'vllm-ascend': {
      about: 'vLLM with its Ascend plug-in',
      versions: ['0.18', '0.23', 'head'],
      formats: ['ascendv1', 'compressed-tensors'],
    },
    sglang: { about: 'SGLang, ModelSlim directories', versions: ['0.5.9', '0.5.10', 'head'], formats: ['ascendv1', 'compressed-tensors'] },
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
