// Recipes: the file's fields and faults, what no recipe touches by itself, what is saved, and docs/recipes.md (UPDATE=1 rewrites it).
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, it } from '@jest/globals';
import { formName } from '../ir/form.js';
import { Refusal } from '../ir/problem.js';
import { type CompileOptions, compile, prepare, targets } from '../src/compile.js';
import { nearTo } from '../src/recipe.js';
import { parseRecipe, recipeFields, roles, ruleFields, tos, words } from '../src/recipe-file.js';
import type { Recipe } from '../targets/engine.js';
import { fixtures } from './golden-cases.js';
import { writeSynthetic } from './synthetic-checkpoint.js';

const here = (f: string): string => fileURLToPath(new URL(`../${f}`, import.meta.url));
const work = mkdtempSync(join(tmpdir(), 'hkgai-recipe-'));
afterAll(() => rmSync(work, { recursive: true }));
const quiet = { step: () => {}, at: () => {} };
const options: Omit<CompileOptions, 'targets' | 'quantise'> = {
  out: join(work, 'out'),
  state: 'f32',
  mtp: null,
  weights: 'copy',
  context: 32,
  sequences: 1,
  chunk: 16,
  force: true,
  allowPhantomKeys: false,
  version: 'test',
  jobs: 0,
  noCache: true,
};
const file = (recipe: unknown): string => {
  const path = join(work, 'mine.json');
  writeFileSync(path, typeof recipe === 'string' ? recipe : JSON.stringify({ format: 'hkgai-recipe-1', ...(recipe as object) }));
  return path;
};
/** Whole blocks of 128 everywhere. */
const wide = join(work, 'wide');
writeSynthetic(wide, { hidden: 256, width: 128, layers: 2, experts: 8, shards: 2 });
const v3 = join(fixtures, 'tiny/v3-tiny-fp8');
const refused = async (run: Promise<unknown>): Promise<readonly string[]> => {
  const e = await run.then(
    () => null,
    (x: unknown) => x,
  );
  if (!(e instanceof Refusal)) throw e ?? new Error('it was not refused');
  return e.problems.map(p => `${p.code} ${p.what} ${p.why} ${p.next}`);
};

interface Schema {
  readonly description?: string;
  readonly type?: string;
  readonly const?: unknown;
  readonly enum?: readonly unknown[];
  readonly required?: readonly string[];
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly additionalProperties?: boolean | Schema;
  readonly items?: Schema;
  readonly minItems?: number;
  readonly maxItems?: number;
  readonly minLength?: number;
  readonly minimum?: number;
  readonly anyOf?: readonly Schema[];
  readonly $ref?: string;
  readonly $defs?: Readonly<Record<string, Schema>>;
}
const schema = JSON.parse(readFileSync(here('src/recipe.schema.json'), 'utf8')) as Schema;
/** As much of JSON Schema as the file uses. */
function fits(s: Schema, v: unknown): boolean {
  if (s.$ref) return fits(schema.$defs![s.$ref.replace('#/$defs/', '')]!, v);
  if (s.const !== undefined && v !== s.const) return false;
  if (s.enum && !s.enum.includes(v)) return false;
  if (s.anyOf && !s.anyOf.some(x => fits(x, v))) return false;
  if (s.minLength !== undefined && (v as string).length < s.minLength) return false;
  if (s.minimum !== undefined && !((v as number) >= s.minimum)) return false;
  const kind = Array.isArray(v) ? 'array' : Number.isInteger(v) ? 'integer' : typeof v;
  if (s.type && s.type !== kind) return false;
  if (Array.isArray(v))
    return v.length >= (s.minItems ?? 0) && v.length <= (s.maxItems ?? Infinity) && (!s.items || v.every(x => fits(s.items!, x)));
  if (typeof v !== 'object' || v === null) return true;
  if (s.required?.some(k => !(k in v))) return false;
  return Object.entries(v).every(([k, x]) => {
    const known = s.properties?.[k];
    if (known) return fits(known, x);
    return typeof s.additionalProperties === 'object' ? fits(s.additionalProperties, x) : s.additionalProperties !== false;
  });
}

describe('the file', () => {
  const rule = schema.$defs!.rule!;
  it('has a schema with the fields and words that are read, each described', () => {
    expect(Object.keys(schema.properties!).sort()).toEqual([...recipeFields].sort());
    expect(Object.keys(rule.properties!).sort()).toEqual([...ruleFields].sort());
    expect(rule.properties!.roles!.items!.enum).toEqual(Object.keys(roles));
    expect(rule.properties!.to!.enum).toEqual(Object.keys(tos));
    for (const [k, of] of Object.entries(words)) expect([k, (schema.properties![k] ?? rule.properties![k])!.enum]).toEqual([k, of]);
    for (const p of [...Object.values(schema.properties!), ...Object.values(rule.properties!)]) expect(p.description).toMatch(/\.$/);
  });
  it('every named recipe and every example fits both', () => {
    const all: unknown[] = Object.values(targets).flatMap(t =>
      Object.entries(t.engines.recipes).map(([name, { about: _, ...r }]) => ({ format: 'hkgai-recipe-1', name, ...r })),
    );
    for (const f of readdirSync(here('fixtures/recipes'))) all.push(JSON.parse(readFileSync(here(`fixtures/recipes/${f}`), 'utf8')));
    for (const text of examples()) all.push(JSON.parse(text));
    expect(all.length).toBeGreaterThan(30);
    for (const r of all) {
      expect([JSON.stringify(r), fits(schema, r)]).toEqual([JSON.stringify(r), true]);
      const { about: _, $schema: __, ...bare } = r as Record<string, unknown>;
      expect(parseRecipe(JSON.stringify(r), 'x.json')).toEqual({ otherwise: 'bf16', mtp: 'keep', activations: 'none', name: 'x', ...bare });
    }
  });
  for (const [what, text, says, line, shows] of [
    ['no JSON', '{\n "format": hkgai\n}', 'x.json: hkgai, which JSON does not have', 2, '"format": hkgai'],
    ['a key twice', '{\n"mtp": "keep",\n"mtp": "drop"}', 'x.json: the key "mtp" stands twice in one object', 3, '"mtp": "drop"}'],
    ['no object', '[]', 'x.json: a recipe is an object', 1, '[]'],
    ['no format', '{"rules": []}', 'x.json: format is to be "hkgai-recipe-1"', 1, '{"rules": []}'],
    [
      'another format',
      '{"rules": [],\n"format": "hkgai-recipe-2"}',
      'x.json: format is to be "hkgai-recipe-1"',
      2,
      '"format": "hkgai-recipe-2"}',
    ],
    ['no rules', '{"format": "hkgai-recipe-1"}', 'x.json: rules is to be a list', 1, '{"format": "hkgai-recipe-1"}'],
    ['an unknown field', of({ bits: 4 }), 'x.json: "bits" is no field of a recipe', 2, '"bits": 4,'],
    ['a name that is none', of({ name: '' }), 'x.json: name is text', 2, '"name": "",'],
    ['about that is none', of({ about: 1 }), 'x.json: about is text', 2, '"about": 1,'],
    ['an engine that is none', of({ engine: 1 }), 'x.json: engine is the name of an engine format', 2, '"engine": 1,'],
    ['otherwise', of({ otherwise: 'int8' }), 'x.json: otherwise is one of keep, bf16, f16', 2, '"otherwise": "int8",'],
    ['mtp', of({ mtp: true }), 'x.json: mtp is one of keep, quantise, drop', 2, '"mtp": true,'],
    ['activations', of({ activations: 'int4' }), 'x.json: activations is one of none, int8, fp8', 2, '"activations": "int4",'],
    ['a rule that is none', of({}, 1), 'x.json: a rule is an object', 4, '1'],
    ['a rule without names', of({}, { to: 'int8' }), 'x.json: a rule names roles or tensors', 4, '{'],
    ['a rule without form', of({}, { tensors: 'a' }), 'x.json: a rule says `to`', 4, '{'],
    ['an unknown field of a rule', of({}, { tensors: 'a', to: 'int8', bits: 4 }), 'x.json: "bits" is no field of a rule', 7, '"bits": 4'],
    ['roles', of({}, { roles: 'expert', to: 'int8' }), 'x.json: roles is a list of roles', 5, '"roles": "expert",'],
    ['no roles', of({}, { roles: [], to: 'int8' }), 'x.json: roles is a list of roles', 5, '"roles": [],'],
    ['a role', of({}, { roles: ['experts'], to: 'int8' }), `x.json: a role is one of ${Object.keys(roles).join(', ')}`, 6, '"experts"'],
    ['tensors', of({}, { tensors: ['a'], to: 'int8' }), 'x.json: tensors is a name with * for any run of characters', 5, '"tensors": ['],
    ['to', of({}, { tensors: 'a', to: 'int2' }), `x.json: \`to\` is one of ${Object.keys(tos).join(', ')}`, 6, '"to": "int2"'],
    [
      'group',
      of({}, { tensors: 'a', to: 'int4', group: 1.5 }),
      'x.json: group is a whole number of columns; 0 is the whole row',
      7,
      '"group": 1.5',
    ],
    [
      'block',
      of({}, { tensors: 'a', to: 'fp8', block: [128] }),
      'x.json: block is [rows, columns], whole numbers above 0',
      7,
      '"block": [',
    ],
    [
      'block and group',
      of({}, { tensors: 'a', to: 'int8', group: 0, block: [2, 2] }),
      'x.json: a rule has group or block, not both',
      8,
      '"block": [',
    ],
    [
      'scale',
      of({}, { tensors: 'a', to: 'fp8', scale: 'f16' }),
      'x.json: scale is one of f32, bf16, e8m0, e8m0-in-f32',
      7,
      '"scale": "f16"',
    ],
    [
      'a scale of others',
      of({}, { tensors: 'a', to: 'int8', scale: 'e8m0' }),
      'x.json: e8m0 is a scale of fp8; whole codes have f32 or bf16',
      7,
      '"scale": "e8m0"',
    ],
    ['zero', of({}, { tensors: 'a', to: 'int4', zero: 1 }), 'x.json: zero is true or false', 7, '"zero": 1'],
    [
      'a field of another form',
      of({}, { tensors: 'a', to: 'int8', zero: true }),
      'x.json: zero says nothing about int8',
      7,
      '"zero": true',
    ],
    ['search', of({}, { tensors: 'a', to: 'int4', search: 'best' }), 'x.json: search is one of absmax, mse, gptq', 7, '"search": "best"'],
  ] as const)
    it(`${what}: the sentence, the line, what stands there`, () => {
      let e: unknown;
      try {
        parseRecipe(text, 'x.json');
      } catch (x) {
        e = x;
      }
      const problems = (e as Refusal).problems;
      expect(problems.map(p => [p.code, p.what, p.places[0]?.line, p.places[0]?.shows?.trim()])).toEqual([['HK2602', says, line, shows]]);
      // what is refused here the schema refuses too, save what it cannot say: that a field belongs to another form
      if (!/no JSON|twice|another form|a scale of others|block and group/.test(what)) expect(fits(schema, JSON.parse(text))).toBe(false);
    });
});
function of(more: object, rule?: unknown): string {
  return JSON.stringify(
    { ...(rule === undefined ? more : { name: 'r' }), rules: rule === undefined ? [] : [rule], format: 'hkgai-recipe-1' },
    null,
    1,
  );
}

describe('what no recipe of ours touches by itself', () => {
  const safe = [
    'embedding',
    'head',
    'norm',
    'bias',
    'router',
    'router_bias',
    'kv_b',
    'indexer',
    'compressor',
    'mtp_merge',
    'hyper',
    'table',
  ];
  for (const target of Object.values(targets))
    for (const [name] of Object.entries(target.engines.recipes))
      it(`${target.name} ${name}: ${safe.length} roles stay as they are, or plain`, async () => {
        let seen = 0;
        for (const model of [
          ...['v2-tiny', 'v3-tiny-fp8', 'v32-tiny', 'v4-tiny-fp8fp4', 'qwen2-distill-tiny'].map(n => join(fixtures, 'tiny', n)),
          wide,
        ])
          for (const mtp of ['keep', 'quantise'] as const)
            for (const chip of target.chips.slice(0, 3)) {
              let aims: Awaited<ReturnType<typeof prepare>>['aims'];
              try {
                const asked = { ...options, targets: [`${target.name}:${chip.name}`], quantise: name, mtp };
                aims = (await prepare(model, asked, quiet)).aims;
              } catch (e) {
                if (e instanceof Refusal && e.problems[0]!.code === 'HK4501') continue;
                throw e;
              }
              for (const x of aims[0]!.resolution.chosen)
                if (safe.includes(x.tensor.role)) {
                  seen++;
                  expect([x.tensor.name, ['keep', 'plain'].includes(x.form.kind)]).toEqual([x.tensor.name, true]);
                  // and what is no matrix keeps its bytes, save a correction bias that an engine wants in F32
                  if (!x.tensor.matrix && x.tensor.role !== 'router_bias')
                    expect([x.tensor.name, x.form.kind]).toEqual([x.tensor.name, 'keep']);
                } else if (x.tensor.mtp && mtp === 'keep') expect(['keep', 'plain']).toContain(x.form.kind);
            }
        expect(seen).toBeGreaterThan(0);
      });
});

describe('rules', () => {
  const chosen = async (recipe: object, model = v3, target = 'cpu'): Promise<ReadonlyMap<string, string>> => {
    const { aims } = await prepare(model, { ...options, targets: [target], quantise: file(recipe) }, quiet);
    return new Map(aims[0]!.resolution.chosen.map(x => [x.tensor.name, formName(x.form)]));
  };
  const q = 'model.layers.1.self_attn.q_b_proj.weight';
  it('the first that fits holds', async () => {
    const got = await chosen({
      rules: [
        { tensors: q, to: 'f32' },
        { tensors: '*q_b_proj*', roles: ['attention'], to: 'int8' },
        { roles: ['attention'], to: 'int4' },
      ],
      otherwise: 'keep',
    });
    expect(got.get(q)).toBe('f32');
    expect(got.get(q.replace('.1.', '.2.'))).toBe('int8 row f32');
    expect(got.get(q.replace('q_b', 'o'))).toBe('int4 g32 bf16');
    expect(got.get('model.layers.0.mlp.up_proj.weight')).toBe('as it is');
  });
  it('a pattern reaches matrices of linears alone', async () => {
    const got = await chosen({ rules: [{ tensors: '*', to: 'int8' }] });
    for (const n of ['model.norm.weight', 'model.embed_tokens.weight', 'lm_head.weight', 'model.layers.1.mlp.gate.weight'])
      expect([n, got.get(n)]).toEqual([n, 'as it is']);
    expect(got.get(q)).toBe('int8 row f32');
  });
  it('a name written out reaches any tensor, but never as codes where it is no linear', async () => {
    expect((await chosen({ rules: [{ tensors: 'lm_head.weight', to: 'f32' }] })).get('lm_head.weight')).toBe('f32');
    const [why] = await refused(chosen({ rules: [{ tensors: 'lm_head.weight', to: 'int8' }] }));
    expect(why).toMatch(/^HK4501 .*Only matrices of linears are written as codes \(lm_head.weight\)\./);
  });
  it('a named tensor whose shape is in the way is refused; by role it stays plain, with a note', async () => {
    const [why] = await refused(chosen({ rules: [{ tensors: q, to: 'mxfp4' }] }));
    expect(why).toMatch(/HK4501 .*wants columns in 32s; this has 40/);
    const { aims } = await prepare(v3, { ...options, targets: ['cpu'], quantise: 'mxfp4' }, quiet);
    expect(aims[0]!.notes.join()).toMatch(/Left plain, since mxfp4 wants columns in 32s; this has 136: model.layers.0/);
  });
  it('a form that the reader of the output would refuse is refused before it is written', async () => {
    const of = async (
      target: string,
      rule: object,
      more: { readonly model?: string; readonly format?: string; readonly mtp?: string } = {},
    ): Promise<string> =>
      (
        await refused(
          prepare(
            more.model ?? v3,
            {
              ...options,
              format: more.format ?? null,
              targets: [target],
              quantise: file({ rules: [rule], ...(more.mtp ? { mtp: more.mtp } : {}) }),
            },
            quiet,
          ),
        )
      ).join();
    const v4 = { model: join(fixtures, 'tiny/v4-tiny') };
    for (const to of ['f32', 'bf16', 'f16'])
      expect(await of('cuda', { tensors: 'layers.0.ffn.gate.tid2eid', to }, v4)).toMatch(/HK4501 .*A tensor of I64 holds no numbers/i);
    expect(await of('cpu', { tensors: 'model.layers.0.input_layernorm.weight', to: 'f16' })).toMatch(/HK4501 .*lone tensor in f16/);
    for (const to of ['int8', 'fp8'])
      expect(await of('cpu', { roles: ['mtp_merge'], to }, { mtp: 'quantise' })).toMatch(/HK4501 .*reads eh_proj in plain numbers/);
    const fp8 = { roles: ['attention'], to: 'fp8', scale: 'bf16' };
    expect(await of('cuda', fp8, { format: 'fp8' })).toMatch(/HK4501 .*Scales of fp8 are in f32 here, not in bf16/);
    expect(await of('biren:br2xx', fp8)).toMatch(/HK4501 .*Scales of fp8 are in f32 here, not in bf16/);
    expect(await of('biren', { roles: ['attention'], to: 'int8', scale: 'bf16' })).toMatch(
      /HK4501 .*Scales of int8 are in f32 here, not in bf16/,
    );
  });
  it('one by roles that fits nothing leaves a note', async () => {
    const notes = async (model: string, rules: readonly object[]): Promise<string> =>
      (await prepare(model, { ...options, targets: ['cpu'], quantise: file({ otherwise: 'keep', rules }) }, quiet)).aims[0]!.notes.join(
        ' ',
      );
    expect(await notes(v3, [{ roles: ['compressor'], to: 'bf16' }])).toContain('No tensor has the role compressor');
    expect(await notes(v3, [{ roles: ['router'], to: 'f32' }])).toContain('Tensors of the role router are no linears');
    expect(await notes(v3, [{ roles: ['mtp_merge'], to: 'f32' }])).toContain('and mtp is keep');
    expect(
      await notes(v3, [
        { roles: ['expert'], to: 'bf16' },
        { roles: ['expert'], to: 'f32' },
      ]),
    ).not.toContain('role');
  });
  it('one that fits nothing is refused with the reason', async () => {
    const of = (rules: readonly object[], mtp = 'keep') => refused(chosen({ rules, mtp }));
    expect(await of([{ tensors: 'model.layers.9.*', to: 'int8' }])).toEqual([
      expect.stringMatching(/^HK2603 A rule of the recipe fits no tensor of this model: \{"to":"int8","tensors":"model.layers.9.\*"\}/),
    ]);
    expect((await of([{ tensors: '*norm*', to: 'bf16' }]))[0]).toContain('A pattern reaches matrices of linears alone');
    expect((await of([{ tensors: 'model.layers.3.mlp.*', to: 'int8' }]))[0]).toContain('multi-token prediction blocks, and mtp is keep');
    expect(
      (
        await of([
          { tensors: '*', to: 'int8' },
          { tensors: q, to: 'int4' },
        ])
      )[0],
    ).toContain('Rules before it fit all that it names.');
    expect((await of([{ tensors: 'model.layers.3.mlp.*', to: 'int8' }], 'drop'))[0]).toContain('mtp is drop');
    // a role that the model does not have is no mistake: recipes are for many models
    expect((await chosen({ rules: [{ roles: ['compressor'], to: 'int8' }] })).size).toBeGreaterThan(0);
  });
  it('wishes of the command line go over it', async () => {
    const asked = { ...options, targets: ['cpu'], quantise: file({ rules: [{ roles: ['expert'], to: 'int4' }], mtp: 'keep' }) };
    const { aims } = await prepare(v3, { ...asked, search: 'mse', mtp: 'drop' }, quiet);
    expect(aims[0]!.recipe).toMatchObject({ mtp: 'drop', rules: [{ search: 'mse' }] });
    expect(aims[0]!.resolution.dropped.length).toBeGreaterThan(0);
    expect(aims[0]!.resolution.chosen.some(x => x.tensor.mtp)).toBe(false);
  });
  it('names: what is close is suggested; a file that is not there is said', async () => {
    const of = (target: string, quantise: string) => refused(prepare(v3, { ...options, targets: [target], quantise }, quiet));
    expect((await of('cuda', 'w4a61'))[0]).toMatch(/^HK2601 w4a61 is not a recipe of cuda .*Did you mean w4a16\b/);
    expect((await of('cpu', 'INT8'))[0]).toContain('Did you mean int8');
    expect((await of('ascend', 'whatever'))[0]).toContain('hkgai targets lists them');
    expect(nearTo('fp-8', ['fp8', 'bf16', 'none'])).toEqual(['fp8']);
    await expect(prepare(v3, { ...options, targets: ['cpu'], quantise: './nowhere.json' }, quiet)).rejects.toMatchObject({
      code: 'ENOENT',
    });
  });
});

describe('what is saved beside the weights', () => {
  for (const [model, target, quantise, more] of [
    ['tiny/v3-tiny-fp8', 'cpu', 'int4', { search: 'mse' }],
    ['tiny/v3-tiny-bf16', 'cpu', 'mxfp4', {}],
    ['tiny/v32-tiny', 'cuda', 'fp8', { mtp: 'quantise' }],
    ['tiny/v4-tiny-fp8fp4', 'ascend', 'w4a8', { mtp: 'drop' }],
    ['tiny/v2-lite-tiny', 'cpu', 'none', {}],
    ['tiny/v3-tiny-fp8', 'biren', 'int8', {}],
  ] as const)
    it(`${model} for ${target}, ${quantise}: given back, it makes the same files`, async () => {
      const of = async (out: string, recipe: string, wishes: object): Promise<ReadonlyMap<string, Buffer>> => {
        await compile(join(fixtures, model), { ...options, ...wishes, out, targets: [target], quantise: recipe }, quiet);
        const at = join(out, target, 'engine');
        return new Map(readdirSync(at).map(f => [f, readFileSync(join(at, f))]));
      };
      const [a, b] = [join(work, 'a'), join(work, 'b')];
      const first = await of(a, quantise, more);
      const saved = join(a, target, 'recipe.json');
      const second = await of(b, saved, {});
      expect([...second.keys()]).toEqual([...first.keys()]);
      for (const [f, bytes] of first) expect([f, bytes.equals(second.get(f)!)]).toEqual([f, true]);
      // and says the same again, with what was left plain by name
      const text = readFileSync(saved, 'utf8');
      expect(readFileSync(join(b, target, 'recipe.json'), 'utf8')).toBe(text);
      const said = JSON.parse(text) as { resolved: { tensors: number }[]; left?: Record<string, string[]> };
      expect(fits(schema, said)).toBe(true);
      if (quantise === 'mxfp4')
        expect(Object.entries(said.left!)[0]).toEqual([
          expect.stringMatching(/columns in 32s/),
          expect.arrayContaining([expect.stringMatching(/\.weight$/)]),
        ]);
    });
});

it('hkgai targets lists formats, recipes and runtimes of each; --json says all of it', () => {
  const run = (...args: readonly string[]): string => {
    const r = spawnSync(process.execPath, [here('bin/hkgai.js'), 'targets', ...args], {
      encoding: 'utf8',
      env: { ...process.env, NO_COLOR: '1' },
    });
    expect([r.status, r.stderr]).toEqual([0, '']);
    return r.stdout;
  };
  const text = run();
  const list = JSON.parse(run('--json')) as readonly {
    name: string;
    formats: { name: string; readers: string }[];
    recipes: { name: string; about: string; format: string; rules: unknown }[];
    runtimes: { name: string; versions: string[] }[];
  }[];
  expect(list.map(t => t.name)).toEqual(Object.keys(targets));
  for (const t of list) {
    const { engines } = targets[t.name]!;
    expect(t.formats.map(f => f.name)).toEqual(engines.formats.map(f => f.name));
    expect(t.recipes.map(r => [r.name, r.rules])).toEqual(Object.entries(engines.recipes).map(([k, r]) => [k, r.rules]));
    expect(t.runtimes.map(r => [r.name, r.versions])).toEqual(Object.entries(engines.runtimes).map(([k, r]) => [k, r.versions]));
    for (const n of [...t.formats, ...t.recipes, ...t.runtimes])
      expect(text).toMatch(new RegExp(`^ {4}${n.name.replaceAll('.', '\\.')}( \\(usual\\))? {2,}\\S`, 'm'));
    for (const r of t.recipes) expect(text).toContain(r.about);
  }
});

// ---- docs/recipes.md

/** JSON blocks of the page. */
function examples(): readonly string[] {
  return [...written().matchAll(/```json\n([\s\S]*?)```/g)].map(m => m[1]!);
}
const cell = (text: string): string => text.replaceAll('|', '\\|');
function about(r: Omit<Recipe, 'format' | 'name'>): string {
  return r.rules
    .map(x => {
      const more = [
        x.group === undefined ? '' : x.group === 0 ? 'row' : `g${x.group}`,
        x.block ? x.block.join('x') : '',
        x.scale ?? '',
        x.zero ? 'zero points' : '',
        x.search ?? '',
      ].filter(Boolean);
      return `${x.tensors ?? x.roles!.join(', ')}: ${[x.to, ...more].join(' ')}`;
    })
    .join('; ');
}
function written(): string {
  const fields = (s: Schema, skip: readonly string[]): string =>
    Object.entries(s.properties!)
      .filter(([k]) => !skip.includes(k))
      .map(
        ([k, p]) =>
          `| \`${k}\` | ${cell((p.enum ?? p.items?.enum ?? []).filter(() => k !== 'roles').join(', '))} | ${cell(p.description!)} |`,
      )
      .join('\n');
  return `# Recipes

*The tables are written from \`src/recipe.schema.json\` and the targets' own by \`UPDATE=1 npm test -- test/recipe.test.ts\`.*

A recipe says which tensor is written as what. \`--quantise NAME\` takes one of a target's own, \`--quantise FILE.json\` (a name with a dot or a slash) your own.
The one that was used lies beside the weights as \`recipe.json\`, with the wishes of the command line in it, what it came to by role, and each tensor that a rule
meant and that stayed plain; given back with \`--quantise\`, it makes the same weights.

For each tensor the first rule that fits it holds. Matrices of linears that no rule fits follow \`otherwise\`; everything else stays as it is, byte for byte.

**What stays plain.** No recipe of ours touches norms, embeddings, \`lm_head\`, the router and its bias, \`kv_b_proj\` (engines absorb it), the indexer and the compressors
of V3.2 and V4, \`eh_proj\`, hyper-connections. Rules by role and patterns with \`*\` reach matrices of linears alone; engines say no to more of them, with a sentence. MTP
blocks follow \`mtp\`: \`keep\` applies no rule to them (\`otherwise\` holds), \`quantise\` treats them like the layers, \`drop\` leaves them out.

**What an engine cannot have** is refused (HK4501) before a byte is written, with the reason. Where only a tensor's shape is in the way, it stays plain and the bundle's notes
say so; experts of a layer are loaded as one, so there it is refused. A rule with \`tensors\` that fits nothing is an error (HK2603).

**How scales are found** (\`--search\`, or \`search\` in a rule): \`absmax\` puts the largest magnitude on the largest code; \`mse\` tries scales below it and takes the least squared
error; \`gptq\` moves each column's error to the columns after it and wants \`--calibration\`. Codes are always the nearest under the scale as it is stored.

**\`--budget 4.5\`** chooses the rules: see [below](#a-budget).

## Fields

| field | words | |
|---|---|---|
${fields(schema, [])}

Of a rule:

| field | words | |
|---|---|---|
${fields(schema.$defs!.rule!, [])}

| role | what it is |
|---|---|
${Object.entries(roles)
  .map(([k, v]) => `| \`${k}\` | ${v} |`)
  .join('\n')}

## Recipes of each target

${Object.values(targets)
  .map(
    t => `### ${t.name}

Usual: \`${t.engines.recipe}\`. Engine formats: ${t.engines.formats.map(f => `\`${f.name}\` (${f.about})`).join('; ')}.

| recipe | what it does | rules | otherwise | activations | format |
|---|---|---|---|---|---|
${Object.entries(t.engines.recipes)
  .map(
    ([k, r]) =>
      `| \`${k}\` | ${cell(r.about)} | ${cell(about(r)) || 'none'} | ${r.otherwise} | ${r.activations} | ${t.engines.formatOf[k] ?? t.engines.formats[0]!.name} |`,
  )
  .join('\n')}`,
  )
  .join('\n\n')}

## Examples

Routed experts in int4 with searched scales, everything else as it is:

\`\`\`json
{
  "$schema": "./src/recipe.schema.json",
  "format": "hkgai-recipe-1",
  "name": "experts-int4",
  "rules": [{ "roles": ["expert"], "to": "int4", "group": 32, "search": "mse" }],
  "otherwise": "keep"
}
\`\`\`

W4A8 for Ascend with the first two layers' experts in int8 and MTP blocks like the layers:

\`\`\`json
{
  "format": "hkgai-recipe-1",
  "name": "w4a8-careful",
  "engine": "ascendv1",
  "rules": [
    { "tensors": "model.layers.3.*", "roles": ["expert"], "to": "int8" },
    { "tensors": "model.layers.4.*", "roles": ["expert"], "to": "int8" },
    { "roles": ["expert"], "to": "int4", "group": 0 },
    { "roles": ["attention", "dense_mlp", "shared_expert"], "to": "int8" }
  ],
  "mtp": "quantise",
  "activations": "int8"
}
\`\`\`

FP8 with scales that are powers of two, as DeepSeek-V3.1 stores them:

\`\`\`json
{
  "format": "hkgai-recipe-1",
  "name": "fp8-ue8m0",
  "engine": "fp8",
  "rules": [{ "roles": ["attention", "dense_mlp", "shared_expert", "expert"], "to": "fp8", "scale": "e8m0-in-f32" }],
  "otherwise": "keep",
  "activations": "fp8"
}
\`\`\`

## A budget

\`--budget B\` takes the recipe's \`otherwise\`, \`mtp\` and format, and makes the rules itself. For each role of linears (attention, dense MLPs, shared experts, routed experts) it
measures what the forms of the format lose, as squared error over squared values on 256 rows of the first, the middle and the last matrix: int8, fp8, int4 in groups of 32 and
128 and by rows, mxfp4 and so on; forms that a matrix of the role cannot have are left out. Beginning with everything as \`otherwise\` has it, the step that costs the least loss
for each bit saved is taken until the linears of these roles together take no more than B bits a weight, counted as they are written with scales, zero points and
shapes. MTP blocks are counted where \`mtp\` is \`quantise\`; \`kv_b_proj\`, indexers and what else stays plain are not. The steps do not depend on B, so a larger budget stops earlier and
never loses more. Less than the smallest form is refused (HK5103). Activation statistics are not weighed in. Nothing is written while it measures, and of a large model only these rows are read.
`;
}
it('docs/recipes.md is as the tables say (UPDATE=1 rewrites it)', () => {
  const page = here('docs/recipes.md');
  if (process.env.UPDATE) writeFileSync(page, written());
  expect(readFileSync(page, 'utf8')).toBe(written());
});
