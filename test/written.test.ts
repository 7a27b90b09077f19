// What a reader of the output would refuse in its config or its headers is refused before a byte is written.
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from '@jest/globals';
import { Refusal } from '../ir/problem.js';
import { type CompileOptions, compile, prepare } from '../src/compile.js';
import { Spoilt } from './engine-directory.js';
import { fixtures } from './golden-cases.js';

const work = mkdtempSync(join(tmpdir(), 'hkgai-written-'));
afterAll(() => rmSync(work, { recursive: true }));
const model = join(fixtures, 'tiny/v3-tiny-bf16');
const quiet = { step: () => {}, at: () => {} };
const options = (target: string, quantise: string | null): CompileOptions => ({
  out: join(work, 'out'),
  targets: [target],
  quantise,
  state: 'f32',
  mtp: null,
  weights: 'copy',
  sequences: 1,
  chunk: 8,
  force: true,
  allowPhantomKeys: false,
  version: 'test',
  noCache: true,
  jobs: 0,
});
/** Code and sentences of a refusal in prepare; null where there is none, and then the whole compile goes through. */
async function refused(dir: string, target: string, quantise: string | null): Promise<string | null> {
  try {
    await prepare(dir, options(target, quantise), quiet);
  } catch (e) {
    if (!(e instanceof Refusal)) throw e;
    return e.problems.map(p => `${p.code} ${p.what}. ${p.why}`).join('\n');
  }
  await compile(dir, options(target, quantise), quiet);
  return null;
}

describe('a class of another family in config.json', () => {
  const copy = new Spoilt(model, join(work, 'other class'));
  copy.config(c => void (c.architectures = ['LlamaForCausalLM']));
  for (const [target, recipes] of [
    ['cuda', ['none', 'bf16', 'w8a8', 'fp8']],
    ['ascend', ['none', 'w8a8']],
    ['biren', ['none', 'bf16']],
  ] as const)
    for (const recipe of recipes)
      it(`is refused for ${target} as ${recipe}`, async () => {
        expect(await refused(copy.dir, target, recipe)).toBe(
          `HK3114 config.json is of two families: architectures is ["LlamaForCausalLM"], not ["DeepseekV3ForCausalLM"]. ` +
            `Engines of ${target} load a model by the class that architectures names, whatever model_type is.`,
        );
        expect(existsSync(join(work, 'out'))).toBe(false);
      });
  it('is none of the matter of programs that go by model_type', async () => {
    expect(await refused(copy.dir, 'cpu', 'none')).toBe(null);
    rmSync(join(work, 'out'), { recursive: true });
  });
  it('is asked for where config.json names none', async () => {
    const bare = new Spoilt(model, join(work, 'no class'));
    bare.config(c => void delete c.architectures);
    for (const [target, recipe] of [
      ['cuda', 'none'],
      ['ascend', 'none'],
    ] as const)
      expect(await refused(bare.dir, target, recipe)).toMatch(/^HK3114 .*architectures is missing/);
  });
});

describe('a recipe for single tensors', () => {
  const recipe = (rule: object): string => {
    const file = join(work, 'one.json');
    writeFileSync(file, JSON.stringify({ format: 'hkgai-recipe-1', name: 'one', rules: [rule], otherwise: 'keep', mtp: 'keep' }));
    return file;
  };
  for (const [rule, says] of [
    [
      { tensors: 'model.layers.0.self_attn.o_proj.weight', to: 'f16' },
      /^HK4501 .*cpu:generic as safetensors\. model\.layers\.0\.self_attn\.o_proj\.weight is F16, but model\.\S+ and others are BF16\.$/,
    ],
    [{ tensors: 'lm_head.weight', to: 'f16' }, /^HK4501 .*lone tensor in f16 .*lm_head\.weight/],
    [{ tensors: 'model.layers.1.mlp.experts.0.up_proj.weight', to: 'f16' }, /^HK4501 .*experts\.0\.up_proj\.weight/],
    [{ tensors: 'model.layers.1.mlp.experts.0.up_proj.weight', to: 'int8' }, /^HK4501 .*experts/],
    [{ tensors: 'model.layers.0.self_attn.o_proj.weight', to: 'f32' }, null],
    [{ tensors: 'model.layers.0.self_attn.o_proj.weight', to: 'int8' }, null],
    [{ roles: ['expert'], to: 'f16' }, null],
    [{ roles: ['attention'], to: 'f16' }, null],
  ] as const)
    it(`${JSON.stringify(rule)} is ${says === null ? 'compiled' : 'refused before it writes'}`, async () => {
      const said = await refused(model, 'cpu', recipe(rule));
      if (says === null) {
        expect(said).toBe(null);
        expect(readFileSync(join(work, 'out/bundle.json'), 'utf8')).toContain('hkgai-bundle-1');
        rmSync(join(work, 'out'), { recursive: true });
      } else {
        expect(said).toMatch(says);
        expect(existsSync(join(work, 'out'))).toBe(false);
      }
    });
});
