// docs/matrix.md from the cells that bench/matrix.ts ran.
import { existsSync, readdirSync } from 'node:fs';
import { basename, join } from 'node:path';
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
  readonly dir: string;
  /** model_type of its config. */
  readonly family: string;
  /** How its linears are stored as it is released. */
  readonly released: (typeof storages)[number];
  /** Token ids, and the logits that the official code gave for them: of this model's weights, or of another form of them. */
  readonly sequence: { readonly file: string; readonly name: string; readonly ofThis: boolean };
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
      /** Matrices that are coded, and those that the recipe means; null where these are the same. */
      readonly coded: string | null;
      readonly compiler: string;
      readonly node: string;
    }
  | { readonly state: 'none'; readonly why: string }
  | { readonly state: 'failed'; readonly aim: string; readonly recipe: string; readonly why: string };
export type Cells = Readonly<Record<string, Cell>>;
export const keyOf = (target: string, storage: string, model: string): string => `${target}/${storage}/${model}`;

/** The models of fixtures that logits were recorded for, and the FP8 form of one of them. */
export function modelsIn(fixtures: string): readonly Model[] {
  const tiny = readdirSync(join(fixtures, 'tiny'))
    .filter(n => existsSync(join(fixtures, 'tiny', n, 'golden.safetensors')))
    .sort()
    .map(n => [`tiny/${n}`, { file: join(fixtures, 'tiny', n, 'golden.safetensors'), name: 'seq0', ofThis: true }] as const);
  const nano = { file: join(fixtures, 'eval/golden.safetensors'), name: 'seq1' };
  return [...tiny, ['hkgai-nano', { ...nano, ofThis: true }] as const, ['hkgai-nano-fp8', { ...nano, ofThis: false }] as const].map(
    ([place, sequence]) => {
      const c = openCheckpoint(join(fixtures, place));
      const dtypes = new Set([...c.tensors.values()].map(t => t.dtype));
      // FP4 codes lie in I8, two a byte
      const released = dtypes.has('I8') ? 'mxfp4' : dtypes.has('F8_E4M3') ? 'fp8' : 'bf16';
      return { name: basename(place), dir: join(fixtures, place), family: c.config.family, released, sequence };
    },
  );
}
const within = (c: Cell): boolean => c.state === 'none' || (c.state === 'run' && Math.max(c.prompt, c.steps) <= tolerance);
/** Cells that failed or are beyond the tolerance. */
export const bad = (cells: Cells): readonly string[] => Object.keys(cells).filter(k => !within(cells[k]!));

const line = (cells: readonly string[]): string => `| ${cells.join(' | ')} |`;
const one = (s: string): string => s.replace(/\s+/g, ' ').replace(/\|/g, '/').trim();
/** A reason without the names of tensors, which are in the refusal itself; what begins like the sentence before it without that beginning. */
function short(s: string): string {
  const sentences = one(s.replace(/ \([^()]*\band \d+ more\)/g, ''))
    .split(/[.;]+ /)
    .map(x => x.replace(/\.$/, ''));
  let last = '';
  return sentences
    .map(x => {
      const head = /^.*?: /.exec(x)?.[0] ?? '';
      if (head !== '' && head === last) return x.slice(head.length);
      if (head !== '') last = head;
      return x;
    })
    .join('; ');
}
function show(c: Cell | undefined): string {
  if (c === undefined) return '*not run*';
  if (c.state === 'none') return `*not supported: ${short(c.why)}*`;
  if (c.state === 'failed') return `**failed** (\`${c.recipe}\`): ${one(c.why).slice(0, 200)}`;
  const figures = `${c.prompt.toExponential(1)}, ${c.steps.toExponential(1)} ${c.judge} \`${c.recipe}\`${c.aim.includes(':') ? ` on ${c.aim}` : ''}${c.coded === null ? '' : `, ${c.coded}`}`;
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

A model is compiled by a recipe into a bundle without MTP, its program is built and run on a recorded sequence. The models are those of [fixtures/tiny](../fixtures/tiny/README.md), sequences
of 24 or 32 tokens, and the trained hkgai-nano in bf16 and FP8, 13 tokens: small matrices of the tiny ones cannot be cut into groups of 32. A cell has two figures: the largest |Δlogit| of the sequence as one prompt, and of its last ${lastSteps} tokens one by one after the rest as a prompt; then who
judges, and the recipe. **Tolerance: ${tolerance.toExponential(0)}**, of both figures. Activations and caches are f32 in all programs; no program rounds activations to int8 or fp8 here.

* **official**: the float32 logits recorded of the official code (golden.safetensors), on the weights as released, or rounded as the fixtures' README says for int8 (a scale a
  row) and int4 (groups of 32): then the recipes are \`all-int8\` and \`all-int4\` of fixtures/recipes.
* **reference**: nothing was recorded for these weights. The reference interpreter, which itself is held against the official logits by test/reference-golden.test.ts, on the
  directory that was written.
* **bf16**: matrices in bf16, what the release has in f32 stays f32. **fp8** and **mxfp4**: as released, passed on byte for byte (\`none\`), where the release has them and the target reads them; else written by the recipe, which
  may code some roles only: [recipes](recipes.md). On Ascend fp8 is MXFP8. Of \`v4-tiny-fp8fp4\` the released experts are MXFP4 and the other linears FP8: they stand under mxfp4.
* *m of n*: so many of the matrices that the recipe means are coded; the others cannot be, for their shape or their reader, and stay as they were or go out in bf16.
* *not supported*: the compiler refuses, or prints no program, in its own words without the names of tensors. A directory for engines may still be written.
* *not run*: nothing is known of it here.

**Emulated** means: the printed kernels and the whole host program of the target, built by plain compilers at -O1 and run on a CPU against stand-ins for the chip and its vendor's runtime, which
are stricter than hardware ([emulators](emulators.md)). It proves what a program computes, not that the vendor's compiler takes it, nor speed, nor a chip's own rounding. Programs for \`cpu\` are built at
-O1 for the machine they run on.

Compilers: cpu ${compilers(false)}; emulated ${compilers(true)}. Node ${nodes}.

${tables.join('\n\n')}
`;
}
