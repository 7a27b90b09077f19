// What is known of an output before its first byte is written: its config and its headers. What its readers would refuse there is refused now.
import { type Problem, problem, Refusal } from '../ir/problem.js';
import { classDiffers } from '../targets/config.js';
import type { Companions, EngineFormat, Recipe } from '../targets/engine.js';
import type { Chip, Target } from '../targets/target.js';
import { parseConfig } from './checkpoint/config.js';
import type { Dtype, TensorEntry } from './checkpoint/safetensors.js';
import type { Checkpoint } from './checkpoint/shards.js';
import { writtenConfig } from './engine.js';
import { type EnginePlan, outputsOf } from './engine-plan.js';
import { type BuildOptions, buildModel } from './models/index.js';
import { notLegal, type Resolution } from './recipe.js';

const otherClass = (target: string, how: string): Problem =>
  problem('HK3114', `config.json is of two families: ${how}`, {
    places: [{ file: 'config.json' }],
    why: `Engines of ${target} load a model by the class that architectures names, whatever model_type is.`,
    next: 'Correct architectures or model_type in config.json, whichever is wrong.',
  });

/** A class of another family in config.json: engines would load the model as what it is not. */
export function refuseOtherClass(
  c: Checkpoint,
  side: Companions,
  plan: EnginePlan,
  r: Resolution,
  target: Target,
  format: EngineFormat,
  recipe: Recipe,
): void {
  const { family } = c.config;
  if (!target.engines.loadsByClass || format.pack || classDiffers(side.config, family) === null) return;
  const how = classDiffers(plan.linked ? side.config : writtenConfig(c, r, format, recipe).config, family);
  if (how !== null) throw new Refusal([otherClass(target.name, how)]);
}

/** A recipe that changes single tensors may leave what the program of the same bundle does not read: experts of two forms, a lone F16 among BF16. */
export function refuseUnread(
  c: Checkpoint,
  plan: EnginePlan,
  r: Resolution,
  target: Target,
  chip: Chip,
  format: EngineFormat,
  recipe: Recipe,
  options: BuildOptions,
): void {
  const single = recipe.rules.some(x => x.tensors !== undefined || x.to === 'f16' || x.to === 'bf16' || x.to === 'f32');
  const reads = Object.hasOwn(target.engines.runtimes, 'native'); // else a directory without a program is whole too
  if (!single || plan.linked || !reads || !target.native || chip.engineOnly || format.pack) return;
  const tensors = new Map<string, TensorEntry>();
  for (const t of outputsOf(plan))
    tensors.set(t.name, { name: t.name, dtype: t.dtype as Dtype, shape: t.shape, file: t.file, bytes: [t.at, t.at + t.size] });
  try {
    buildModel(parseConfig(JSON.stringify(writtenConfig(c, r, format, recipe).config), 'config.json'), tensors, options);
  } catch (e) {
    if (!(e instanceof Refusal)) throw e;
    const said = e.problems.slice(0, 3).map(p => `${p.what}.`);
    const more = e.problems.length > 3 ? [`There are ${e.problems.length - 3} more.`] : [];
    throw new Refusal([notLegal(`${target.name}:${chip.name}`, format.name, [...said, ...more])]);
  }
}
