// What the vendor's server loads: plain safetensors of the hub, in bf16.
import type { EngineDirectory, EngineFormat, EngineModel, Engines, Finding } from '../../../targets/engine.js';
import { checkBytes, checkIndex, checkValues, Findings, plainDtypes } from '../../../targets/findings.js';
import { keptWide, served, usualForm } from '../../../targets/tensors.js';

/** N1: every tensor is there, and no other. N2: its shape. N3: plain numbers. N4: bytes and index. N5: what the numbers are. */
export function checkLumen(dir: EngineDirectory, model: EngineModel): readonly Finding[] {
  const c = new Findings();
  checkIndex(c, dir, 'N4');
  const known = new Set(model.tensors.map(t => t.name));
  for (const t of model.tensors) {
    const s = dir.tensors.get(t.name);
    if (!s) {
      if (!t.optional) c.say('N1', t.name, `${t.name} is missing`);
      continue;
    }
    if (s.shape.join() !== t.shape.join()) c.say('N2', t.name, `${t.name} is [${s.shape.join(', ')}], not [${t.shape.join(', ')}]`);
    if (!(t.role === 'table' ? ['I64', 'I32'] : plainDtypes).includes(s.dtype)) c.say('N3', t.name, `${t.name} is ${s.dtype}`);
    checkBytes(c, s, 'N4');
  }
  for (const name of dir.tensors.keys()) if (!known.has(name)) c.say('N1', name, `${name} belongs to no tensor of the model`);
  checkValues(c, dir, model, 'N5', 'N5');
  return c.found;
}

const hub: EngineFormat = {
  name: 'hub',
  about: 'plain safetensors of the hub',
  readers: 'nobody: the vendor does not exist',
  form: usualForm,
  objection: (t, form, _chip, _recipe, _runtime, source) =>
    form.kind === 'coded' || form.kind === 'gguf' || (form.kind === 'keep' && source?.kind === 'scaled')
      ? 'weights are plain numbers here: --quantise bf16'
      : keptWide(t, form, source, ['f32', 'f16']),
  refuses: () => null,
  stored: () => [],
  files: (config, chosen, _recipe, modelType) => ({ config: served(config, chosen, modelType), extra: [] }),
  check: checkLumen,
};
const common = { mtp: 'keep', activations: 'none', rules: [] } as const;
export const lumenEngines: Engines = {
  formats: [hub],
  formatOf: {},
  recipe: 'bf16',
  runtimes: { 'lumen-serve': { about: "the vendor's server", versions: [], formats: ['hub'] } },
  recipes: {
    none: { ...common, about: 'byte for byte', otherwise: 'keep' },
    bf16: { ...common, about: 'every matrix in bf16', otherwise: 'bf16' },
  },
};
