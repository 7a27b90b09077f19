// What the vendor's vLLM loads: BF16 on br1xx, and DeepSeek's own FP8 on br2xx. INT8 is experimental: its config is not public.
import type { CodedForm, Form } from '../../ir/form.js';
import { quantisationOf } from '../config.js';
import { type EngineFormat, type Engines, linearRoles } from '../engine.js';
import {
  baseOf,
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
import { checkBiren, is2xx } from './conformance.js';

const isCoded = (f: Form): f is CodedForm => f.kind === 'coded';

const hub: EngineFormat = {
  name: 'hub',
  about: 'plain Hugging Face safetensors for the vendor’s vLLM',
  readers:
    'birensupa-smartinfer-vllm on br1xx in bf16, and vllm-supa on br2xx with FP8: their documentation was read, nothing was run; int8 is experimental, since the config that the vendor’s engine wants for it is not public',
  form: usualForm,
  objection(t, form, chip, _recipe, _runtime, source) {
    if (form.kind === 'gguf') return 'GGUF is for llama.cpp on the CPU';
    const f = form.kind === 'keep' && source ? (codedIn(source) ?? form) : form;
    if (!isCoded(f)) return keptWide(t, form, source, ['f32', 'f16']);
    if (f.element === 'f8e4m3') {
      if (!is2xx(chip)) return `${chip} has no FP8 unit: --quantise bf16 or int8`;
      if (f.block.join() !== '128,128') return 'FP8 is in blocks of 128 x 128 here';
      const scale = scaleObjection(f, ownSpelling(t) ? ['f32', 'e8m0-in-f32', 'e8m0'] : ['f32', 'e8m0-in-f32']);
      if (form.kind === 'keep' || scale) return scale;
      return (linearRoles as readonly string[]).includes(t.role) || t.role === 'kv_b' ? null : 'only linears of attention and MLPs are FP8';
    }
    if (f.element === 'f4e2m1') return `nothing public says that ${chip} reads FP4: --quantise bf16`;
    if (f.element !== 'i8' || f.block[0] !== 1 || f.block[1] !== 0)
      return 'int8 with a scale a row is the only code that the vendor names beside FP8';
    if (!(linearRoles as readonly string[]).includes(t.role)) return 'only linears of attention and MLPs are int8';
    return scaleObjection(f, ['f32', 'bf16-in-f32']) ?? expertsAlike(t, shapeObjection(t, f));
  },
  refuses: recipe => (recipe.otherwise === 'f16' ? 'these checkpoints are computed in bf16' : null),
  stored: (t, form, modelType) =>
    !isCoded(form) ? [] : form.element === 'f8e4m3' ? deepseek(t, form, modelType) : compressedTensors(t, form),
  files(config, chosen, _recipe, modelType) {
    const own = served(config, chosen, modelType);
    const plain = chosen.filter(c => c.tensor.matrix && codedOf(c) === null && c.tensor.role !== 'mtp_merge').map(c => baseOf(c.tensor));
    const fp8 = chosen.some(c => codedOf(c)?.element === 'f8e4m3');
    if (!fp8 || quantisationOf(own) !== null) return { config: own, extra: [] };
    return {
      config: {
        ...own,
        quantization_config: {
          quant_method: 'fp8',
          activation_scheme: 'dynamic',
          fmt: 'e4m3',
          weight_block_size: [128, 128],
          ...(plain.length ? { modules_to_not_convert: plain.sort() } : {}),
        },
      },
      extra: [],
    };
  },
  check: checkBiren,
};
const common = { mtp: 'keep', activations: 'none' } as const;
export const birenEngines: Engines = {
  formats: [hub],
  loadsByClass: true,
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
