// Which tensor is written as what: a recipe by name or from a file, held against the engine's rules, resolved tensor by tensor.
import { readFileSync } from 'node:fs';
import { type Form, formName, keep, plainForm } from '../ir/form.js';
import { type Problem, problem, Refusal } from '../ir/problem.js';
import type { Chosen, EngineFormat, EngineModel, Engines, LogicalTensor, Recipe, Role, Rule, Runtime } from '../targets/engine.js';
import { JsonError, type JsonNode, lineAt, parseJson } from './checkpoint/json.js';
import type { SourceTensor } from './logical.js';

const unknownRecipe = (name: string, target: string, known: readonly string[]): Problem =>
  problem('HK2601', `${name} is not a recipe of ${target}`, {
    why: `Recipes: ${known.join(', ')}; or a JSON file.`,
    next: 'hkgai targets lists them with what they do.',
  });
const badRecipe = (file: string, what: string, line?: number, shows?: string): Problem =>
  problem('HK2602', `${file}: ${what}`, {
    places: [{ file, ...(line === undefined ? {} : { line }), ...(shows === undefined ? {} : { shows }) }],
    next: 'docs/recipes.md has the fields of a recipe.',
  });
export const notLegal = (target: string, format: string, sentences: readonly string[]): Problem =>
  problem('HK4501', `The recipe cannot be written for ${target} as ${format}`, {
    why: sentences.join(' '),
    next: 'Choose another recipe, format or chip.',
  });
const matchesNothing = (rule: string): Problem =>
  problem('HK2603', `A rule of the recipe fits no tensor of this model: ${rule}`, { next: 'Take the rule out or correct its names.' });

const roles: readonly Role[] = [
  'embedding',
  'head',
  'norm',
  'bias',
  'router',
  'router_bias',
  'attention',
  'kv_b',
  'indexer',
  'compressor',
  'dense_mlp',
  'shared_expert',
  'expert',
  'mtp_merge',
  'hyper',
  'table',
];
const tos = ['keep', 'bf16', 'f16', 'f32', 'int8', 'int4', 'fp8', 'mxfp4', 'mxfp8', 'q8_0', 'q4_0'] as const;
const scales = ['f32', 'bf16', 'e8m0', 'e8m0-in-f32'] as const;
const ruleFields = ['roles', 'tensors', 'to', 'group', 'block', 'scale', 'zero', 'search'];
const recipeFields = ['format', 'name', 'rules', 'otherwise', 'mtp', 'activations', '$schema', 'about'];

/** A recipe's text, checked field by field; unknown fields are errors. */
export function parseRecipe(text: string, file: string): Recipe {
  let root: JsonNode;
  try {
    root = parseJson(text);
  } catch (e) {
    if (!(e instanceof JsonError)) throw e;
    const { line, shows } = lineAt(text, e.at);
    throw new Refusal([badRecipe(file, e.message, line, shows)]);
  }
  const found: Problem[] = [];
  const say = (n: JsonNode, what: string): void => {
    const { line, shows } = lineAt(text, n.key ?? n.at);
    found.push(badRecipe(file, what, line, shows));
  };
  const object = (n: JsonNode): ReadonlyMap<string, JsonNode> | null =>
    n.value instanceof Map ? (n.value as ReadonlyMap<string, JsonNode>) : null;
  const word = <T extends string>(n: JsonNode | undefined, words: readonly T[], name: string, fallback: T): T => {
    if (n === undefined) return fallback;
    if (typeof n.value === 'string' && (words as readonly string[]).includes(n.value)) return n.value as T;
    say(n, `${name} is one of ${words.join(', ')}`);
    return fallback;
  };
  const top = object(root);
  if (!top) throw new Refusal([badRecipe(file, 'a recipe is an object')]);
  for (const [k, n] of top) if (!recipeFields.includes(k)) say(n, `${JSON.stringify(k)} is no field of a recipe`);
  if (top.get('format')?.value !== 'hkgai-recipe-1') found.push(badRecipe(file, 'format is to be "hkgai-recipe-1"'));
  const list = top.get('rules')?.value;
  if (!Array.isArray(list)) throw new Refusal([...found, badRecipe(file, 'rules is to be a list')]);
  const rules = (list as readonly JsonNode[]).map((n): Rule => {
    const r = object(n);
    if (!r) {
      say(n, 'a rule is an object');
      return { to: 'keep' };
    }
    for (const [k, v] of r) if (!ruleFields.includes(k)) say(v, `${JSON.stringify(k)} is no field of a rule`);
    if (!r.has('roles') && !r.has('tensors')) say(n, 'a rule names roles or tensors');
    const named = r.get('roles');
    const whose = Array.isArray(named?.value)
      ? (named.value as readonly JsonNode[]).map(x => word(x, roles, 'a role', 'expert'))
      : undefined;
    if (named && !whose) say(named, 'roles is a list');
    const tensors = r.get('tensors');
    if (tensors && typeof tensors.value !== 'string') say(tensors, 'tensors is a name with * for any run of characters');
    const group = r.get('group');
    if (group && !(Number.isInteger(group.value) && (group.value as number) >= 0))
      say(group, 'group is a whole number of columns; 0 is the whole row');
    const block = r.get('block');
    const sides = Array.isArray(block?.value) ? (block.value as readonly JsonNode[]).map(x => x.value) : undefined;
    if (block && !(sides?.length === 2 && sides.every(x => Number.isInteger(x) && (x as number) > 0)))
      say(block, 'block is [rows, columns]');
    const zero = r.get('zero');
    if (zero && typeof zero.value !== 'boolean') say(zero, 'zero is true or false');
    if (!r.has('to')) say(n, 'a rule says `to`');
    return {
      to: word(r.get('to'), tos, '`to`', 'keep'),
      ...(whose ? { roles: whose } : {}),
      ...(typeof tensors?.value === 'string' ? { tensors: tensors.value } : {}),
      ...(group ? { group: group.value as number } : {}),
      ...(sides ? { block: sides as unknown as readonly [number, number] } : {}),
      ...(r.has('scale') ? { scale: word(r.get('scale'), scales, 'scale', 'f32') } : {}),
      ...(zero ? { zero: zero.value as boolean } : {}),
      ...(r.has('search') ? { search: word(r.get('search'), ['absmax', 'mse', 'gptq'], 'search', 'absmax') } : {}),
    };
  });
  const name = top.get('name');
  if (name && typeof name.value !== 'string') say(name, 'name is text');
  const recipe: Recipe = {
    format: 'hkgai-recipe-1',
    name: typeof name?.value === 'string' ? name.value : file.replace(/^.*[/\\]/, '').replace(/\.json$/, ''),
    rules,
    otherwise: word(top.get('otherwise'), ['keep', 'bf16', 'f16'], 'otherwise', 'bf16'),
    mtp: word(top.get('mtp'), ['keep', 'quantise', 'drop'], 'mtp', 'keep'),
    activations: word(top.get('activations'), ['none', 'int8', 'fp8'], 'activations', 'none'),
  };
  if (found.length) throw new Refusal(found);
  return recipe;
}

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
  else throw new Refusal([unknownRecipe(asked, target, Object.keys(engines.recipes))]);
  return {
    ...recipe,
    ...(wishes.mtp ? { mtp: wishes.mtp } : {}),
    rules: recipe.rules.map(r => (wishes.search && !['keep', 'bf16', 'f16', 'f32'].includes(r.to) ? { ...r, search: wishes.search } : r)),
  };
}

const glob = (pattern: string): RegExp => new RegExp(`^${pattern.replace(/[.*+?^${}()|[\]\\]/g, c => (c === '*' ? '.*' : `\\${c}`))}$`);
const fits = (r: Rule, t: LogicalTensor): boolean =>
  (r.roles === undefined || r.roles.includes(t.role)) && (r.tensors === undefined || glob(r.tensors).test(t.name));

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
    const rule = t.mtp && recipe.mtp === 'keep' ? undefined : recipe.rules.find(r => fits(r, t) && (t.matrix || r.tensors !== undefined));
    if (rule) used.add(rule);
    let form: Form = format.always?.(t, s.storage) ?? (rule ? once(forms, rule, () => format.form(rule)) : plainOf(s));
    let because = rule
      ? once(reasons, `${rule.tensors ?? t.role}: ${formName(form)}`, x => x)
      : t.matrix
        ? `otherwise ${recipe.otherwise}`
        : 'no linear';
    if (rule && t.mtp && recipe.mtp === 'keep') because = 'mtp keep';
    const objection = (f: Form): string | null => format.objection(t, f, chip, recipe, runtime, s.storage);
    const no = objection(form);
    if (no) {
      // nothing to fall back to: the source's own bytes, or what the recipe has for the rest, are what the engine cannot read
      const stuck = form.kind === 'keep' || objection(plainOf(s)) !== null;
      const hard =
        stuck || (rule !== undefined && (strict || !/columns|rows|absorbed|projections|lm_head/.test(no) || rule.tensors === t.name));
      const seen = objections.get(no) ?? { tensors: [], hard: false };
      seen.hard ||= hard;
      seen.tensors.push(t.name);
      objections.set(no, seen);
      form = plainOf(s);
      because = once(reasons, `left plain: ${no}`, x => x);
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
  for (const r of recipe.rules) if (!used.has(r) && r.tensors !== undefined) throw new Refusal([matchesNothing(JSON.stringify(r))]);
  const notes = [...objections].map(
    ([no, o]) =>
      `Left plain, since ${no}: ${o.tensors.slice(0, 3).join(', ')}${o.tensors.length > 3 ? ` and ${o.tensors.length - 3} more` : ''}.`,
  );
  return { chosen, dropped, notes };
}
/** Names with digits (br1xx, w8a8) stay as they are spelt. */
export const sentence = (s: string): string => `${/^[a-z]+[^a-z0-9]/.test(s) ? s.charAt(0).toUpperCase() : s.charAt(0)}${s.slice(1)}.`;
