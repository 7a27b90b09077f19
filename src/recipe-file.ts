// A recipe as a JSON file: every field checked, each fault with its line. src/recipe.schema.json says the same to editors; test/recipe.test.ts holds
// the two together.
import { type Problem, problem, Refusal } from '../ir/problem.js';
import type { Recipe, Role, Rule } from '../targets/engine.js';
import { JsonError, type JsonNode, lineAt, parseJson } from './checkpoint/json.js';

const badRecipe = (file: string, what: string, line?: number, shows?: string): Problem =>
  problem('HK2602', `${file}: ${what}`, {
    places: [{ file, ...(line === undefined ? {} : { line }), ...(shows === undefined ? {} : { shows }) }],
    next: 'docs/recipes.md has the fields of a recipe.',
  });

/** One row a role: what is meant. */
export const roles: Readonly<Record<Role, string>> = {
  embedding: 'token embeddings',
  head: 'lm_head',
  norm: 'weights of norms',
  bias: 'biases, sinks and positions of compressors',
  router: 'the gate of routed experts',
  router_bias: 'the correction bias of the gate',
  attention: "attention's projections, save kv_b_proj",
  kv_b: 'kv_b_proj, which engines absorb',
  indexer: "the indexer's projections (V3.2, V4)",
  compressor: "the compressors' projections (V4)",
  dense_mlp: 'MLPs of layers without experts',
  shared_expert: 'shared experts',
  expert: 'routed experts',
  mtp_merge: 'eh_proj of MTP blocks; e_proj and h_proj of V4',
  hyper: 'hyper-connections (V4)',
  table: 'tables from tokens to experts (V4)',
};
/** What a rule may ask for, and which further fields each takes. */
export const tos: Readonly<Record<Rule['to'], readonly ('group' | 'block' | 'scale' | 'zero' | 'search')[]>> = {
  keep: [],
  bf16: [],
  f16: [],
  f32: [],
  int8: ['group', 'block', 'scale', 'search'],
  int4: ['group', 'scale', 'zero', 'search'],
  fp8: ['block', 'scale', 'search'],
  mxfp4: ['search'],
  mxfp8: ['search'],
  q8_0: ['search'],
  q4_0: ['search'],
};
export const words = {
  scale: ['f32', 'bf16', 'e8m0', 'e8m0-in-f32'],
  search: ['absmax', 'mse', 'gptq'],
  otherwise: ['keep', 'bf16', 'f16'],
  mtp: ['keep', 'quantise', 'drop'],
  activations: ['none', 'int8', 'fp8'],
} as const;
export const ruleFields = ['roles', 'tensors', 'to', 'group', 'block', 'scale', 'zero', 'search'] as const;
/** `resolved` and `left` are what a compile says of its own recipe; they are not read. */
export const recipeFields = [
  '$schema',
  'format',
  'name',
  'about',
  'engine',
  'rules',
  'otherwise',
  'mtp',
  'activations',
  'resolved',
  'left',
] as const;

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
  const word = <T extends string>(n: JsonNode | undefined, of: readonly T[], name: string, fallback: T): T => {
    if (n === undefined) return fallback;
    if (typeof n.value === 'string' && (of as readonly string[]).includes(n.value)) return n.value as T;
    say(n, `${name} is one of ${of.join(', ')}`);
    return fallback;
  };
  const name = (n: JsonNode | undefined, what: string): string | undefined => {
    if (n === undefined || (typeof n.value === 'string' && n.value !== '')) return n?.value as string | undefined;
    say(n, what);
    return undefined;
  };
  const top = object(root);
  if (!top) {
    say(root, 'a recipe is an object');
    throw new Refusal(found);
  }
  for (const [k, n] of top) if (!(recipeFields as readonly string[]).includes(k)) say(n, `${JSON.stringify(k)} is no field of a recipe`);
  const format = top.get('format');
  if (format?.value !== 'hkgai-recipe-1') say(format ?? root, 'format is to be "hkgai-recipe-1"');
  const list = top.get('rules');
  if (!Array.isArray(list?.value)) say(list ?? root, 'rules is to be a list');
  const rules = (Array.isArray(list?.value) ? (list.value as readonly JsonNode[]) : []).map((n): Rule => {
    const r = object(n);
    if (!r) {
      say(n, 'a rule is an object');
      return { to: 'keep' };
    }
    for (const [k, v] of r) if (!(ruleFields as readonly string[]).includes(k)) say(v, `${JSON.stringify(k)} is no field of a rule`);
    if (!r.has('roles') && !r.has('tensors')) say(n, 'a rule names roles or tensors');
    if (!r.has('to')) say(n, 'a rule says `to`');
    const to = word(r.get('to'), Object.keys(tos) as Rule['to'][], '`to`', 'keep');
    for (const k of ['group', 'block', 'scale', 'zero', 'search'] as const) {
      const v = r.get(k);
      if (v && r.get('to')?.value === to && !tos[to].includes(k)) say(v, `${k} says nothing about ${to}`);
    }
    const named = r.get('roles');
    const whose = Array.isArray(named?.value)
      ? (named.value as readonly JsonNode[]).map(x => word(x, Object.keys(roles) as Role[], 'a role', 'expert'))
      : undefined;
    if (named && !whose?.length) say(named, 'roles is a list of roles');
    const tensors = name(r.get('tensors'), 'tensors is a name with * for any run of characters');
    const group = r.get('group');
    if (group && !(Number.isInteger(group.value) && (group.value as number) >= 0))
      say(group, 'group is a whole number of columns; 0 is the whole row');
    const block = r.get('block');
    const sides = Array.isArray(block?.value) ? (block.value as readonly JsonNode[]).map(x => x.value) : undefined;
    if (block && !(sides?.length === 2 && sides.every(x => Number.isInteger(x) && (x as number) > 0)))
      say(block, 'block is [rows, columns], whole numbers above 0');
    if (block && group) say(block, 'a rule has group or block, not both');
    const zero = r.get('zero');
    if (zero && typeof zero.value !== 'boolean') say(zero, 'zero is true or false');
    const scale = r.has('scale') ? word(r.get('scale'), words.scale, 'scale', 'f32') : undefined;
    if (scale?.startsWith('e8m0') && to !== 'fp8')
      say(r.get('scale') as JsonNode, `${scale} is a scale of fp8; whole codes have f32 or bf16`);
    return {
      to,
      ...(whose ? { roles: whose } : {}),
      ...(tensors === undefined ? {} : { tensors }),
      ...(group ? { group: group.value as number } : {}),
      ...(sides ? { block: sides as unknown as readonly [number, number] } : {}),
      ...(scale ? { scale } : {}),
      ...(zero ? { zero: zero.value as boolean } : {}),
      ...(r.has('search') ? { search: word(r.get('search'), words.search, 'search', 'absmax') } : {}),
    };
  });
  name(top.get('about'), 'about is text');
  const called = name(top.get('name'), 'name is text');
  const engine = name(top.get('engine'), 'engine is the name of an engine format');
  const recipe: Recipe = {
    format: 'hkgai-recipe-1',
    name: called ?? file.replace(/^.*[/\\]/, '').replace(/\.json$/, ''),
    ...(engine === undefined ? {} : { engine }),
    rules,
    otherwise: word(top.get('otherwise'), words.otherwise, 'otherwise', 'bf16'),
    mtp: word(top.get('mtp'), words.mtp, 'mtp', 'keep'),
    activations: word(top.get('activations'), words.activations, 'activations', 'none'),
  };
  if (found.length) throw new Refusal(found);
  return recipe;
}
