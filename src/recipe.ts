// Which tensor is written as what: a recipe by name or from a file, held against the engine's rules, resolved tensor by tensor.
import { readFileSync } from 'node:fs';
import { type Form, formName, keep, plainForm } from '../ir/form.js';
import { type Problem, problem, Refusal } from '../ir/problem.js';
import type { Chosen, EngineFormat, EngineModel, Engines, LogicalTensor, Recipe, Role, Rule, Runtime } from '../targets/engine.js';
import type { SourceTensor } from './logical.js';
import { parseRecipe, ruleFields } from './recipe-file.js';

const unknownRecipe = (name: string, target: string, known: readonly string[], near: readonly string[]): Problem =>
  problem('HK2601', `${name} is not a recipe of ${target}`, {
    why: `Recipes: ${known.join(', ')}; or a JSON file.`,
    next: near.length ? `Did you mean ${near.join(' or ')}?` : 'hkgai targets lists them with what they do.',
  });
export const notLegal = (target: string, format: string, sentences: readonly string[]): Problem =>
  problem('HK4501', `The recipe cannot be written for ${target} as ${format}`, {
    why: sentences.join(' '),
    next: 'Choose another recipe, format or chip.',
  });
const matchesNothing = (rule: string, why: string): Problem =>
  problem('HK2603', `A rule of the recipe fits no tensor of this model: ${rule}`, { why, next: 'Take the rule out or correct its names.' });

/** Slips that make one word of another: a letter more, less, another, or two exchanged. */
function distance(a: string, b: string): number {
  const d = Array.from({ length: a.length + 1 }, (_, i) => Array.from({ length: b.length + 1 }, (_, j) => (i === 0 ? j : j === 0 ? i : 0)));
  const at = (i: number, j: number): number => (d[i] as number[])[j] as number;
  for (let i = 1; i <= a.length; i++)
    for (let j = 1; j <= b.length; j++) {
      const changed = at(i - 1, j - 1) + (a[i - 1] === b[j - 1] ? 0 : 1);
      const exchanged = i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1] ? at(i - 2, j - 2) + 1 : changed;
      (d[i] as number[])[j] = Math.min(at(i - 1, j) + 1, at(i, j - 1) + 1, changed, exchanged);
    }
  return at(a.length, b.length);
}
/** Words that differ from `asked` by a slip or two, the nearest first. */
export const nearTo = (asked: string, known: readonly string[]): readonly string[] =>
  known
    .map(k => [k, distance(asked.toLowerCase(), k.toLowerCase())] as const)
    .filter(([, d]) => d <= Math.max(1, Math.floor(asked.length / 3)))
    .sort((a, b) => a[1] - b[1])
    .slice(0, 2)
    .map(([k]) => k);

export interface RecipeWishes {
  readonly mtp?: 'keep' | 'quantise' | 'drop';
  readonly search?: 'absmax' | 'mse' | 'gptq';
}
/** A recipe by its name for a target, or from a file, with the command line's wishes over it. */
export function findRecipe(asked: string, target: string, engines: Engines, wishes: RecipeWishes): Recipe {
  const known = Object.hasOwn(engines.recipes, asked) ? engines.recipes[asked] : undefined;
  let recipe: Recipe;
  if (known) {
    const { about: _, ...rest } = known;
    recipe = { format: 'hkgai-recipe-1', name: asked, ...rest };
  } else if (/[./\\]/.test(asked)) recipe = parseRecipe(readFileSync(asked, 'utf8'), asked);
  else throw new Refusal([unknownRecipe(asked, target, Object.keys(engines.recipes), nearTo(asked, Object.keys(engines.recipes)))]);
  return {
    ...recipe,
    ...(wishes.mtp ? { mtp: wishes.mtp } : {}),
    rules: recipe.rules.map(r => (wishes.search && coding(r) ? { ...r, search: wishes.search } : r)),
  };
}

const glob = (pattern: string): RegExp => new RegExp(`^${pattern.replace(/[.*+?^${}()|[\]\\]/g, c => (c === '*' ? '.*' : `\\${c}`))}$`);
const coding = (r: Rule): boolean => !['keep', 'bf16', 'f16', 'f32'].includes(r.to);
/** A rule with its pattern made ready. Roles and patterns reach matrices of linears alone; a name written out reaches any tensor. */
function tester(r: Rule): (t: LogicalTensor) => boolean {
  const name = r.tensors === undefined ? null : glob(r.tensors);
  const exact = r.tensors !== undefined && !r.tensors.includes('*');
  return t => (t.matrix || exact) && (r.roles === undefined || r.roles.includes(t.role)) && (name === null || name.test(t.name));
}

export interface Resolution {
  readonly chosen: readonly (Chosen & { readonly source: SourceTensor; readonly rule: string })[];
  readonly dropped: readonly { readonly source: SourceTensor; readonly reason: string }[];
  /** Tensors that a rule meant and the engine cannot have in that form; they fall back to `otherwise`. */
  readonly notes: readonly string[];
}
function once<K, V>(map: Map<K, V>, key: K, make: (key: K) => V): V {
  const there = map.get(key);
  if (there !== undefined) return there;
  const made = make(key);
  map.set(key, made);
  return made;
}
const plainDtype = { f32: 'F32', bf16: 'BF16', f16: 'F16' } as const;

/** Every tensor's form. Refuses where the engine cannot have what a rule asks for by role; tensors whose shape is in the way stay plain. */
export function resolve(
  recipe: Recipe,
  sources: readonly SourceTensor[],
  format: EngineFormat,
  model: EngineModel,
  target: string,
  chip: string,
  runtime: Runtime | null,
  strict: boolean,
): Resolution {
  const whole = format.refuses(recipe, model, chip, runtime);
  if (whole) throw new Refusal([notLegal(`${target}:${chip}`, format.name, [sentence(whole)])]);
  const used = new Set<Rule>();
  const tests = recipe.rules.map(r => [r, tester(r)] as const);
  const dropped: { readonly source: SourceTensor; readonly reason: string }[] = [];
  const objections = new Map<string, { readonly tensors: string[]; hard: boolean }>();
  // a model has a hundred thousand tensors: what is equal is one object
  const forms = new Map<Rule, Form>();
  const reasons = new Map<string, string>();
  const plainForms = { bf16: plainForm('bf16'), f16: plainForm('f16') } as const;
  const plainOf = (s: SourceTensor): Form =>
    recipe.otherwise === 'keep' || !s.logical.matrix || (s.storage.kind === 'plain' && s.storage.element === recipe.otherwise)
      ? keep
      : plainForms[recipe.otherwise];
  const chosen = sources.flatMap(s => {
    const t = s.logical;
    if (t.mtp && recipe.mtp === 'drop') {
      dropped.push({ source: s, reason: 'part of a multi-token prediction block, dropped by --mtp drop' });
      return [];
    }
    const rule = t.mtp && recipe.mtp === 'keep' ? undefined : tests.find(([, test]) => test(t))?.[0];
    if (rule) used.add(rule);
    let form: Form = format.always?.(t, s.storage) ?? (rule ? once(forms, rule, () => format.form(rule)) : plainOf(s));
    let because = rule
      ? once(reasons, `${rule.tensors ?? t.role}: ${formName(form)}`, x => x)
      : t.matrix
        ? `otherwise ${recipe.otherwise}`
        : 'no linear';
    if (rule && t.mtp && recipe.mtp === 'keep') because = 'mtp keep';
    const objection = (f: Form): string | null => format.objection(t, f, chip, recipe, runtime, s.storage);
    const no =
      rule && coding(rule) && !t.matrix
        ? 'only matrices of linears are written as codes'
        : rule && form.kind === 'plain' && s.storage.kind === 'plain' && !(s.storage.element in plainDtype)
          ? `a tensor of ${s.entry.dtype} holds no numbers that ${form.element} could stand for: "to": "keep"`
          : objection(form);
    if (no) {
      // nothing to fall back to: the source's own bytes, or what the recipe has for the rest, are what the engine cannot read
      const stuck = form.kind === 'keep' || objection(plainOf(s)) !== null;
      const hard =
        stuck ||
        (rule !== undefined && (strict || !t.matrix || !/columns|rows|absorbed|projections|lm_head/.test(no) || rule.tensors === t.name));
      const seen = objections.get(no) ?? { tensors: [], hard: false };
      seen.hard ||= hard;
      seen.tensors.push(t.name);
      objections.set(no, seen);
      form = plainOf(s);
      because = once(reasons, leftPlain + no, x => x);
    }
    const dtype = form.kind === 'plain' ? plainDtype[form.element] : s.entry.dtype;
    return [{ tensor: t, form, dtype, source: s, rule: because }];
  });
  const hard = [...objections].filter(([, o]) => o.hard);
  if (hard.length)
    throw new Refusal([
      notLegal(
        `${target}:${chip}`,
        format.name,
        hard.map(([no, o]) => sentence(`${no} (${o.tensors[0]}${o.tensors.length > 1 ? ` and ${o.tensors.length - 1} more` : ''})`)),
      ),
    ]);
  for (const [r, test] of tests)
    if (!used.has(r) && r.tensors !== undefined) {
      const met = sources.filter(s => test(s.logical));
      const why = !met.length
        ? r.tensors.includes('*')
          ? 'A pattern reaches matrices of linears alone; another tensor is named in full.'
          : ''
        : met.every(s => s.logical.mtp && recipe.mtp !== 'quantise')
          ? `It names multi-token prediction blocks, and mtp is ${recipe.mtp}.`
          : 'Rules before it fit all that it names.';
      throw new Refusal([matchesNothing(JSON.stringify(r), why)]);
    }
  const notes: string[] = [...objections].map(
    ([no, o]) =>
      `Left plain, since ${no}: ${o.tensors.slice(0, 3).join(', ')}${o.tensors.length > 3 ? ` and ${o.tensors.length - 3} more` : ''}.`,
  );
  for (const [r] of tests)
    if (!used.has(r) && r.tensors === undefined && r.roles) {
      const why = unfit(r.roles, sources, recipe);
      if (why) notes.push(why);
    }
  return { chosen, dropped, notes };
}
/** Why a rule by roles fits nothing; null where the rules before it took all. */
function unfit(roles: readonly Role[], sources: readonly SourceTensor[], recipe: Recipe): string | null {
  const named = roles.join(' or ');
  const met = sources.map(s => s.logical).filter(t => roles.includes(t.role));
  if (met.length === 0) return `No tensor has the role ${named}: a rule of the recipe fits nothing.`;
  if (!met.some(t => t.matrix)) return `Tensors of the role ${named} are no linears: a rule by roles reaches matrices alone.`;
  if (met.every(t => !t.matrix || (t.mtp && recipe.mtp !== 'quantise')))
    return `Matrices of the role ${named} are in multi-token prediction blocks alone, and mtp is ${recipe.mtp}: a rule of the recipe fits nothing.`;
  return null;
}
/** What is saved beside the weights: the recipe with all that was wished on the command line, the engine format it was written for, what it came to by
 *  role, and every tensor that was left plain though a rule meant it. Given back with --quantise it makes the same weights. */
export function savedRecipe(recipe: Recipe, format: EngineFormat, r: Resolution): Readonly<Record<string, unknown>> {
  const count = new Map<string, { readonly role: string; readonly form: string; tensors: number }>();
  const left: Record<string, string[]> = {};
  for (const x of r.chosen) {
    const form = formName(x.form);
    const seen = count.get(`${x.tensor.role} ${form}`) ?? { role: x.tensor.role, form, tensors: 0 };
    seen.tensors++;
    count.set(`${x.tensor.role} ${form}`, seen);
    if (x.rule.startsWith(leftPlain)) (left[x.rule.slice(leftPlain.length)] ??= []).push(x.tensor.name);
  }
  const resolved = [...count.values()].sort((a, b) => (a.role + a.form < b.role + b.form ? -1 : 1));
  // in one order, whether it came from a table or a file
  const rules = recipe.rules.map(r => Object.fromEntries(ruleFields.flatMap(k => (r[k] === undefined ? [] : [[k, r[k]]]))));
  const { name, otherwise, mtp, activations } = recipe;
  return {
    format: recipe.format,
    name,
    engine: format.name,
    rules,
    otherwise,
    mtp,
    activations,
    resolved,
    ...(Object.keys(left).length ? { left } : {}),
  };
}
const leftPlain = 'left plain: ';

/** Names with digits (br1xx, w8a8) stay as they are spelt. */
export const sentence = (s: string): string => `${/^[a-z]+[^a-z0-9]/.test(s) ? s.charAt(0).toUpperCase() : s.charAt(0)}${s.slice(1)}.`;
