// What the vendor's vLLM loads: BF16 on br1xx, and DeepSeek's own FP8 on br2xx. INT8 is experimental: its config is not public.
import type { CodedForm, Form } from '../../ir/form.js';
import {
  dtypeBytes,
  type EngineDirectory,
  type EngineFormat,
  type EngineModel,
  type Engines,
  type Finding,
  linearRoles,
} from '../engine.js';
import { baseOf, compressedTensors, deepseek, shapeObjection, usualForm } from '../tensors.js';

const isCoded = (f: Form): f is CodedForm => f.kind === 'coded';

/** Rules B1 to B9: the tensors that the model has, whole and plain; FP8 nowhere on br1xx. */
export const birenRules: Readonly<Record<string, string>> = {
  B1: 'every tensor of the model is there once',
  B2: 'no tensor is there that the model does not have',
  B3: 'shapes are those of the model',
  B4: 'on br1xx tensors are BF16, F16 or F32; int8 with a scale a row is experimental',
  B5: 'FP8 is for br2xx',
  B6: 'an int8 tensor has a scale a row, F32, finite and above 0',
  B7: 'config.json says nothing of a quantisation that the tensors do not have',
  B8: 'the index names exactly the tensors and files that are there',
  B9: 'bytes of a tensor are those of its shape',
};
export function checkBiren(dir: EngineDirectory, model: EngineModel, chip: string): readonly Finding[] {
  const found: Finding[] = [];
  const say = (rule: string, where: string, what: string): void => void found.push({ rule, where, what });
  const expected = new Set<string>();
  for (const t of model.tensors) {
    const s = dir.tensors.get(t.name);
    expected.add(t.name);
    if (!s) {
      say('B1', t.name, `${t.name} is missing`);
      continue;
    }
    if (s.shape.join() !== t.shape.join()) say('B3', t.name, `${t.name} is [${s.shape.join(', ')}], not [${t.shape.join(', ')}]`);
    const base = baseOf(t);
    if (s.dtype === 'I8') {
      const name = `${base}.weight_scale`;
      expected.add(name);
      const scale = dir.tensors.get(name);
      if (!t.matrix) say('B4', t.name, `${t.name} is int8 and no linear`);
      else if (scale?.dtype !== 'F32' || scale.shape.join() !== `${t.shape[0]},1`) say('B6', name, `${name} is not F32 [${t.shape[0]}, 1]`);
      else {
        const bytes = dir.read(scale, 0, scale.bytes[1] - scale.bytes[0]);
        const v = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
        for (let i = 0; i + 4 <= bytes.byteLength; i += 4)
          if (!(v.getFloat32(i, true) > 0) || v.getFloat32(i, true) === Number.POSITIVE_INFINITY) {
            say('B6', name, `${name} holds ${v.getFloat32(i, true)}`);
            break;
          }
      }
    } else if (s.dtype === 'F8_E4M3') {
      expected.add(`${base}.weight_scale_inv`);
      expected.add(`${base}.scale`);
      if (!chip.startsWith('br2')) say('B5', t.name, `${t.name} is FP8, which ${chip} has no unit for`);
    } else if (!['BF16', 'F16', 'F32', 'I64'].includes(s.dtype)) say('B4', t.name, `${t.name} is ${s.dtype}`);
    const size = s.shape.reduce((a, b) => a * b, 1) * (dtypeBytes[s.dtype] ?? 0);
    if (s.bytes[1] - s.bytes[0] !== size) say('B9', t.name, `${t.name} has ${s.bytes[1] - s.bytes[0]} bytes, its shape ${size}`);
  }
  for (const name of dir.tensors.keys()) if (!expected.has(name)) say('B2', name, `${name} belongs to no tensor of the model`);
  const config = dir.json('config.json') as { readonly quantization_config?: unknown } | undefined;
  const coded = [...dir.tensors.values()].some(t => t.dtype === 'F8_E4M3' || t.dtype === 'I8');
  if (config?.quantization_config !== undefined && !coded)
    say('B7', 'config.json', 'quantization_config is set, but every tensor is plain');
  const index = dir.json('model.safetensors.index.json') as { readonly weight_map?: unknown } | undefined;
  if (index !== undefined) {
    const map = index?.weight_map;
    if (typeof map !== 'object' || map === null) say('B8', 'model.safetensors.index.json', 'weight_map is missing');
    else {
      for (const [name, file] of Object.entries(map as Record<string, unknown>))
        if (dir.tensors.get(name)?.file !== file) say('B8', name, `the index sends ${name} to ${String(file)}`);
      for (const name of dir.tensors.keys()) if (!Object.hasOwn(map, name)) say('B8', name, `${name} is not in the index`);
    }
  } else if (new Set([...dir.tensors.values()].map(t => t.file)).size > 1)
    say('B8', 'model.safetensors.index.json', 'there are several shards and no index');
  return found;
}

const hub: EngineFormat = {
  name: 'hub',
  about: 'plain Hugging Face safetensors for the vendor’s vLLM',
  readers: 'birensupa-smartinfer-vllm on br1xx: its documentation was read, nothing was run',
  form: usualForm,
  objection(t, form, chip) {
    if (form.kind === 'gguf') return 'GGUF is for llama.cpp on the CPU';
    if (!isCoded(form)) return null;
    if (form.element === 'f8e4m3') return chip.startsWith('br2') ? null : `${chip} has no FP8 unit: BF16, or INT8`;
    if (form.element !== 'i8' || form.block[0] !== 1 || form.block[1] !== 0)
      return 'int8 with a scale a row is the only code that the vendor names';
    if (!(linearRoles as readonly string[]).includes(t.role)) return 'only linears of attention and MLPs are int8';
    return shapeObjection(t, form);
  },
  refuses: (recipe, _model, _chip) => (recipe.otherwise === 'f16' ? 'these checkpoints are computed in bf16' : null),
  stored: (t, form, modelType) =>
    !isCoded(form) ? [] : form.element === 'f8e4m3' ? deepseek(t, form, modelType) : compressedTensors(t, form),
  files(config, chosen) {
    const fp8 = chosen.some(c => (isCoded(c.form) && c.form.element === 'f8e4m3') || c.dtype === 'F8_E4M3');
    return {
      config: fp8
        ? {
            ...config,
            quantization_config: { quant_method: 'fp8', activation_scheme: 'dynamic', fmt: 'e4m3', weight_block_size: [128, 128] },
          }
        : config,
      extra: [],
    };
  },
  check: checkBiren,
};
const common = { mtp: 'keep', activations: 'none' } as const;
export const birenEngines: Engines = {
  formats: [hub],
  formatOf: {},
  recipe: 'bf16',
  runtimes: { 'vllm-br': { about: "the vendor's vLLM", versions: [], formats: ['hub'] } },
  recipes: {
    none: { ...common, about: 'byte for byte', otherwise: 'keep', rules: [] },
    bf16: { ...common, about: 'every matrix in bf16', otherwise: 'bf16', rules: [] },
    int8: {
      ...common,
      about: 'linears in int8, a scale a row. Experimental: the vendor’s config for it is not public',
      otherwise: 'bf16',
      activations: 'int8',
      rules: [{ roles: linearRoles, to: 'int8' }],
    },
    fp8: {
      ...common,
      about: 'linears in fp8 blocks of 128 x 128, on br2xx',
      otherwise: 'keep',
      rules: [{ roles: linearRoles, to: 'fp8' }],
    },
  },
};
