// What a command line chooses: target and chip, the engine that is to read the result, the recipe, and the form it goes out in.
import { type Problem, problem, Refusal } from '../ir/problem.js';
import type { EngineFormat, Recipe, Runtime } from '../targets/engine.js';
import { targets } from '../targets/index.js';
import type { Chip, Target } from '../targets/target.js';
import { findRecipe, nearTo, type RecipeWishes } from './recipe.js';

function unknownTarget(name: string): Problem {
  const all = Object.values(targets).flatMap(t => t.chips.map(c => `${t.name}:${c.name}`));
  // a chip without its target, or a slip of the pen
  const bare = all.filter(x => x.endsWith(`:${name.toLowerCase()}`));
  const near = bare.length ? bare : nearTo(name, all);
  return problem('HK2201', `${name} is not a target`, {
    why: `Targets: ${all.join(', ')}.`,
    next: near.length ? `Did you mean ${near.join(' or ')}?` : 'hkgai targets lists them.',
  });
}
export const unknownFormat = (target: Target, name: string): Problem =>
  problem('HK2604', `${name} is no engine format of ${target.name}`, {
    why: `Formats: ${target.engines.formats.map(f => f.name).join(', ')}.`,
    next: 'Choose one of these with --format.',
  });
export const unknownRuntime = (asked: string, known: readonly string[]): Problem =>
  problem('HK2606', `${asked} is no engine of the targets asked for`, {
    why: `Engines: ${known.join(', ')}.`,
    next: 'Choose one of these with --runtime.',
  });

export const runtimeNames = (t: Target): readonly string[] =>
  Object.entries(t.engines.runtimes).flatMap(([name, r]) => [name, ...r.versions.map(v => `${name}@${v}`)]);
export const runtimeName = (r: Runtime | null): string | null =>
  r === null ? null : r.version === null ? r.name : `${r.name}@${r.version}`;
/** The engine of a target that `name[@version]` asks for; null where the target has none of that name. */
export function runtimeOf(target: Target, asked: string | null): Runtime | null {
  const [name = '', version, ...more] = (asked ?? '').split('@');
  const known = Object.hasOwn(target.engines.runtimes, name) ? target.engines.runtimes[name] : undefined;
  if (!known) return null;
  if (more.length > 0 || (version !== undefined && !known.versions.includes(version)))
    throw new Refusal([unknownRuntime(asked as string, runtimeNames(target))]);
  return { name, version: version ?? null };
}

/** Each target once, as it was spelled first: a target and its first chip are one. */
export function differentTargets(asked: readonly string[]): readonly string[] {
  const all = asked.map(resolveTarget);
  return asked.filter((_, i) => all.findIndex(x => x.target === all[i]?.target && x.chip === all[i]?.chip) === i);
}

export function resolveTarget(asked: string): { readonly target: Target; readonly chip: Chip } {
  const [name = '', chip, ...more] = asked.split(':');
  const target = Object.hasOwn(targets, name) ? targets[name] : undefined;
  const found = chip === undefined ? target?.chips[0] : target?.chips.find(c => c.name === chip);
  if (!target || !found || more.length > 0) throw new Refusal([unknownTarget(asked)]);
  return { target, chip: found };
}

export interface Wanted extends RecipeWishes {
  /** Name or file of a recipe; null takes the engine's or the target's own. */
  readonly quantise: string | null;
  /** Name of an engine format; null takes the recipe's. */
  readonly format: string | null;
}
export interface Choice {
  readonly recipe: Recipe;
  readonly format: EngineFormat;
}
/** The recipe and the form it goes out in. `as`: the form that a checkpoint is in, for recipes that pass it on. */
export function choose(target: Target, runtime: Runtime | null, w: Wanted, as: () => EngineFormat): Choice {
  const { engines } = target;
  const reads = runtime ? engines.runtimes[runtime.name] : undefined;
  const usual = reads?.recipe ?? engines.recipe;
  const wishes = { ...(w.mtp ? { mtp: w.mtp } : {}), ...(w.search ? { search: w.search } : {}) };
  const recipe = findRecipe(w.quantise ?? usual, target.name, engines, wishes);
  const named = (name: string | undefined): EngineFormat | undefined => engines.formats.find(f => f.name === name);
  const own = named(recipe.engine) ? recipe.engine : undefined;
  const usualFormat = own ?? engines.formatOf[w.quantise ?? usual];
  const asked = w.format ?? (reads && !reads.formats.includes(usualFormat ?? '') ? reads.formats[0] : usualFormat);
  // what is passed on keeps the form it has
  const format = asked ? named(asked) : recipe.name === 'none' ? as() : engines.formats[0];
  if (!format) throw new Refusal([unknownFormat(target, w.format as string)]);
  return { recipe, format };
}
