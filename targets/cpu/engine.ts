// The CPU's directories: safetensors that the project's own program maps, and GGUF for llama.cpp.
import type { Form } from '../../ir/form.js';
import { storageOf } from '../../ir/form.js';
import { type Chosen, type EngineFormat, type Engines, type LogicalTensor, linearRoles, type Rule } from '../engine.js';
import { compressedTensors, deepseek, shapeObjection, usualForm } from '../tensors.js';
import { checkPlain } from './conformance.js';
import { gguf } from './gguf-format.js';

/** V4's config names what its experts are in; a form that it has no word for is not named. */
function withExperts(config: Record<string, unknown>, chosen: readonly Chosen[]): Record<string, unknown> {
  const elements = new Set(
    chosen
      .filter(c => c.tensor.role === 'expert')
      .map(({ form, source: { storage } }) =>
        form.kind === 'coded' ? form.element : form.kind === 'keep' && storage.kind === 'scaled' ? storage.element : 'plain',
      ),
  );
  const [only] = elements;
  const { expert_dtype: _, ...rest } = config;
  if (elements.size !== 1 || (only !== 'f4e2m1' && only !== 'f8e4m3')) return rest;
  return { ...rest, expert_dtype: only === 'f4e2m1' ? 'fp4' : 'fp8' };
}

const safetensors: EngineFormat = {
  name: 'safetensors',
  about: "for the project's own program, which maps the files",
  readers: 'hkgai, run on the machine that tests it',
  form: usualForm,
  objection(t: LogicalTensor, form: Form, _chip, recipe, _runtime, source) {
    if (form.kind === 'keep') return null;
    // one half float of another kind among many is read as a damaged header (HK3309)
    if (
      form.kind === 'plain' &&
      form.element === 'f16' &&
      !t.matrix &&
      !(source?.kind === 'plain' && source.element === 'f16') &&
      !(recipe.otherwise === 'f16' && t.layer < 0)
    )
      return 'the project’s own program takes a lone tensor in f16 for a damaged header: bf16 or f32';
    if (form.kind === 'coded' && t.name.endsWith('.eh_proj.weight'))
      return 'the project’s own program reads eh_proj in plain numbers alone';
    if (form.kind === 'gguf') return 'GGUF blocks are for --runtime llama.cpp';
    if (storageOf(form) === null) return 'the project’s own program reads no zero points';
    if (form.kind === 'coded' && form.element === 'i8' && (form.block[0] !== 1 || form.block[1] !== 0))
      return 'the project’s own program reads int8 with one scale a row';
    if (form.kind === 'coded' && form.element === 'i4' && ![32, 64, 128].includes(form.block[1]))
      return 'the project’s own program reads int4 in groups of 32, 64 and 128';
    if (form.kind === 'coded' && form.element === 'f8e4m3' && form.block.join() !== '128,128')
      return 'the project’s own program reads fp8 in blocks of 128 x 128';
    if (form.kind === 'coded' && (form.element === 'i4' || form.element === 'i8') && form.scale === 'e8m0')
      return 'the project’s own program reads whole codes with scales in f32 or bf16';
    return shapeObjection(t, form);
  },
  refuses: () => null,
  stored: (t, form, modelType) => {
    if (form.kind !== 'coded') return [];
    return form.element === 'f8e4m3' || form.element === 'f4e2m1' ? deepseek(t, form, modelType) : compressedTensors(t, form);
  },
  files: (config, chosen, _recipe, modelType) => ({
    config: modelType === 'deepseek_v4' ? withExperts(config, chosen) : config,
    extra: [],
  }),
  check: (dir, model) => checkPlain(dir, model),
};

const rules = (to: Rule['to'], more: Partial<Rule> = {}): readonly Rule[] => [{ roles: linearRoles, to, ...more }];
const common = { otherwise: 'keep', mtp: 'keep', activations: 'none' } as const;
export const cpuEngines: Engines = {
  formats: [safetensors, gguf],
  formatOf: { q8_0: 'gguf', q4_0: 'gguf' },
  recipe: 'none',
  runtimes: {
    native: { about: "the project's own program", versions: [], formats: ['safetensors'] },
    'llama.cpp': { about: 'llama.cpp', versions: [], formats: ['gguf'], recipe: 'bf16' },
  },
  recipes: {
    none: { ...common, about: 'byte for byte', rules: [] },
    bf16: { ...common, about: 'every matrix in bf16', otherwise: 'bf16', rules: [] },
    f16: { ...common, about: 'every matrix in f16', otherwise: 'f16', rules: [] },
    int8: { ...common, about: 'linears in int8, a scale a row', rules: rules('int8') },
    int4: { ...common, about: 'linears in int4, groups of 32', rules: rules('int4') },
    w4a16: {
      ...common,
      about: 'routed experts in int4, groups of 32; the rest bf16',
      otherwise: 'bf16',
      rules: [{ roles: ['expert'], to: 'int4' }],
    },
    fp8: { ...common, about: 'linears in fp8, blocks of 128 x 128', rules: rules('fp8') },
    mxfp4: { ...common, about: 'linears in mxfp4', rules: rules('mxfp4') },
    q8_0: { ...common, about: 'linears in Q8_0, the rest bf16 (GGUF)', otherwise: 'bf16', rules: rules('q8_0') },
    q4_0: { ...common, about: 'linears in Q4_0, the rest bf16 (GGUF)', otherwise: 'bf16', rules: rules('q4_0') },
  },
};
