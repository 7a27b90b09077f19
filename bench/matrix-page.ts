// docs/matrix.md from the cells that bench/matrix.ts ran.
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { openCheckpoint } from '../src/checkpoint/shards.js';

/** In the order of the page. */
export const aims = ['cpu', 'cuda', 'biren', 'ascend'] as const;

export const storages = ['bf16', 'int8', 'int4', 'fp8', 'mxfp4'] as const;
/** Largest difference of a logit in float32 that the fixtures' README has as criterion. */
export const tolerance = 2e-4;
/** Tokens of the sequence that are fed one by one. */
export const lastSteps = 8;

export interface Model {
  readonly name: string;
  /** model_type of its config. */
  readonly family: string;
  /** How its linears are stored as it is released. */
  readonly released: (typeof storages)[number];
}
export type Cell =
  | {
      readonly state: 'run';
      /** target or target:chip. */
      readonly aim: string;
      readonly recipe: string;
      /** The official code's recorded logits, or the reference interpreter on the same written weights. */
      readonly judge: 'official' | 'reference';
      readonly prompt: number;
      readonly steps: number;
      readonly compiler: string;
      readonly node: string;
    }
  | { readonly state: 'none'; readonly why: string }
  | { readonly state: 'failed'; readonly aim: string; readonly recipe: string; readonly why: string };
export type Cells = Readonly<Record<string, Cell>>;
export const keyOf = (target: string, storage: string, model: string): string => `${target}/${storage}/${model}`;

/** The models of a directory that have recorded logits. */
export const modelsIn = (dir: string): readonly Model[] =>
  readdirSync(dir)
    .filter(n => existsSync(join(dir, n, 'golden.safetensors')))
    .sort()
    .map(name => {
      const c = openCheckpoint(join(dir, name));
      const dtypes = new Set([...c.tensors.values()].map(t => t.dtype));
      // FP4 codes lie in I8, two a byte
      const released = dtypes.has('I8') ? 'mxfp4' : dtypes.has('F8_E4M3') ? 'fp8' : 'bf16';
      return { name, family: c.config.family, released };
    });
const within = (c: Cell): boolean => c.state === 'none' || (c.state === 'run' && Math.max(c.prompt, c.steps) <= tolerance);
/** Cells that failed or are beyond the tolerance. */
export const bad = (cells: Cells): readonly string[] => Object.keys(cells).filter(k => !within(cells[k]!));

const line = (cells: readonly string[]): string => `| ${cells.join(' | ')} |`;
const one = (s: string): string => s.replace(/\s+/g, ' ').replace(/\|/g, '/').trim();
/** A reason without the names of tensors, which are in the refusal itself. */
const short = (s: string): string => one(s.replace(/ \([^()]*\band \d+ more\)/g, '')).replace(/\.$/, '');
function show(c: Cell | undefined): string {
  if (c === undefined) return '*not run*';
  if (c.state === 'none') return `*not supported: ${short(c.why)}*`;
  if (c.state === 'failed') return `**failed** (\`${c.recipe}\`): ${one(c.why).slice(0, 200)}`;
  const figures = `${c.prompt.toExponential(1)}, ${c.steps.toExponential(1)} ${c.judge} \`${c.recipe}\`${c.aim.includes(':') ? ` on ${c.aim}` : ''}`;
  return within(c) ? figures : `**over** ${figures}`;
}

export function page(models: readonly Model[], cells: Cells): string {
  const compilers = (emulated: boolean): string => {
    const names = Object.entries(cells).flatMap(([k, c]) => (c.state === 'run' && k.startsWith('cpu/') !== emulated ? [c.compiler] : []));
    return [...new Set(names)].sort().join('; ') || 'none yet';
  };
  const nodes = [...new Set(Object.values(cells).flatMap(c => (c.state === 'run' ? [c.node] : [])))].sort().join(', ');
  const tables = aims.map(target => {
    const all = models.flatMap(m => storages.map(s => cells[keyOf(target, s, m.name)]));
    const count = (test: (c: Cell | undefined) => boolean): number => all.filter(test).length;
    const held = count(c => c?.state === 'run' && within(c));
    const over = count(c => c !== undefined && !within(c));
    return [
      `## ${target}${target === 'cpu' ? '' : ', emulated'}`,
      '',
      `${all.length} cells: ${held} within the tolerance, ${over} beyond it or failed, ${count(c => c?.state === 'none')} not supported, ${count(c => c === undefined)} not run.`,
      '',
      line(['model', ...storages]),
      line(Array.from({ length: storages.length + 1 }, () => '---')),
      ...models.map(m => line([`${m.name} (\`${m.family}\`)`, ...storages.map(s => show(cells[keyOf(target, s, m.name)]))])),
    ].join('\n');
  });
  return `# Matrix: targets, generations, storages

Written by \`node out/bench/bench/matrix.js\` from bench/matrix.json; bench/README.md says how to build it.

A model of [fixtures/tiny](../fixtures/tiny/README.md) is compiled by a recipe into a bundle without MTP, its program is built and run on the first recorded sequence of
24 or 32 tokens. A cell has two figures: the largest |Δlogit| of the sequence as one prompt, and of its last ${lastSteps} tokens one by one after the rest as a prompt; then who
judges, and the recipe. **Tolerance: ${tolerance.toExponential(0)}**, of both figures. Activations and caches are f32 in all programs; no program rounds activations to int8 or fp8 here.

* **official**: the float32 logits recorded of the official code (golden.safetensors), on the weights as released, or rounded as the fixtures' README says for int8 (a scale a
  row) and int4 (groups of 32): then the recipes are \`all-int8\` and \`all-int4\` of fixtures/recipes.
* **reference**: nothing was recorded for these weights. The reference interpreter, which itself is held against the official logits by test/reference-golden.test.ts, on the
  directory that was written.
* **bf16**: matrices in bf16, what the release has in f32 stays f32. **fp8** and **mxfp4**: as released, passed on byte for byte (\`none\`), where the release has them; else written by the recipe, which
  may code some roles only: [recipes](recipes.md). Of \`v4-tiny-fp8fp4\` the released experts are MXFP4 and the other linears FP8: they stand under mxfp4.
* *not supported*: the compiler refuses, or prints no program, in its own words without the names of tensors. A directory for engines may still be written.
* *not run*: nothing is known of it here.

**Emulated** means: the printed kernels and the whole host program of the target, built by plain compilers at -O1 and run on a CPU against stand-ins for the chip and its vendor's runtime, which
are stricter than hardware ([emulators](emulators.md)). It proves what a program computes, not that the vendor's compiler takes it, nor speed, nor a chip's own rounding. Programs for \`cpu\` are built at
-O1 for the machine they run on.

Compilers: cpu ${compilers(false)}; emulated ${compilers(true)}. Node ${nodes}.

${tables.join('\n\n')}
`;
}
