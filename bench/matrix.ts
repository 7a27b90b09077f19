// docs/matrix.md: every target, generation and storage, a prompt and single steps held against recorded logits. See bench/README.md.
//
//   node out/bench/bench/matrix.js [--only PART,…] [--again] [--most N] [--dir DIR] [--cells FILE] [--out FILE]
//
// PART is a target, a storage or a model; cells are run that fit a named part of each kind. What is finished is in the file of cells, so that a run that
// was stopped goes on; --again does them anew. Exits with 1 where a cell is beyond its tolerance or failed.
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { Refusal } from '../ir/problem.js';
import { f32 } from '../ir/storage.js';
import { buildEmulated, buildNative } from '../src/build.js';
import { readHeader } from '../src/checkpoint/safetensors.js';
import { compile, targets } from '../src/compile.js';
import type { Step } from '../src/reference/index.js';
import { openNative, openReference, type Session } from '../src/session.js';
import { worst } from '../src/verify.js';
import { linearRoles } from '../targets/engine.js';
import { aims, bad, type Cell, type Cells, keyOf, lastSteps, type Model, modelsIn, page, storages } from './matrix-page.js';

const { values: o } = parseArgs({
  options: {
    only: { type: 'string', default: '' },
    again: { type: 'boolean', default: false },
    /** Cells at most: for a machine that has little time. */
    most: { type: 'string', default: 'Infinity' },
    dir: { type: 'string' },
    cells: { type: 'string', default: 'bench/matrix.json' },
    out: { type: 'string', default: 'docs/matrix.md' },
  },
});
type Storage = (typeof storages)[number];
type Aim = (typeof aims)[number];
const context = 64;

// ---- rows and columns

const models = modelsIn('fixtures');
/** One model of each generation first. */
const first = new Set(models.filter((m, i) => models.findIndex(x => x.family === m.family) === i));
const inOrder = [...models.filter(m => first.has(m)), ...models.filter(m => !first.has(m))];

const within = o.dir ?? tmpdir();
mkdirSync(within, { recursive: true });
const work = mkdtempSync(join(within, 'hkgai-matrix-'));
process.env.HKGAI_CACHE = join(work, 'cache');
/** Recipes that targets have no name for, so that the refusal says why. */
function ownRecipe(to: 'fp8' | 'mxfp4'): string {
  const file = join(work, `linears-${to}.json`);
  writeFileSync(
    file,
    JSON.stringify({
      format: 'hkgai-recipe-1',
      name: `linears-${to}`,
      rules: [{ roles: linearRoles, to }],
      otherwise: 'keep',
      mtp: 'keep',
    }),
  );
  return file;
}
/** Aims and recipes of a cell, tried in turn until one is no refusal. Those of fixtures/recipes are what the recorded columns were rounded by. */
const byRecord = { int8: 'fixtures/recipes/all-int8.json', int4: 'fixtures/recipes/all-int4.json' } as const;
const tries: Readonly<Record<Aim, Readonly<Record<Storage, readonly (readonly [aim: string, recipe: string])[]>>>> = {
  cpu: {
    bf16: [['cpu', 'bf16']],
    int8: [['cpu', byRecord.int8]],
    int4: [['cpu', byRecord.int4]],
    fp8: [['cpu', 'fp8']],
    mxfp4: [['cpu', 'mxfp4']],
  },
  cuda: {
    bf16: [['cuda', 'bf16']],
    int8: [
      ['cuda', byRecord.int8],
      ['cuda', 'w8a8'],
    ],
    int4: [
      ['cuda', byRecord.int4],
      ['cuda', 'w4a16-all'],
    ],
    fp8: [['cuda', 'fp8']],
    mxfp4: [['cuda', 'mxfp4']],
  },
  biren: {
    bf16: [['biren', 'bf16']],
    int8: [
      ['biren', byRecord.int8],
      ['biren', 'int8'],
    ],
    int4: [['biren', byRecord.int4]],
    fp8: [
      ['biren', 'fp8'],
      ['biren:br2xx', 'fp8'],
    ],
    mxfp4: [['biren', ownRecipe('mxfp4')]],
  },
  ascend: {
    bf16: [['ascend', 'bf16']],
    int8: [
      ['ascend', byRecord.int8],
      ['ascend', 'w8a8'],
    ],
    int4: [
      ['ascend', byRecord.int4],
      ['ascend', 'w4a16'],
      ['ascend', 'w4a8'],
    ],
    fp8: [
      ['ascend', ownRecipe('fp8')],
      ['ascend:950', 'mxfp8'],
    ],
    mxfp4: [['ascend:950', 'mxfp4']],
  },
};
const known = [...aims, ...storages, ...models.map(m => m.name)];
const parts = o.only === '' ? [] : o.only.split(',');
for (const p of parts) if (!known.includes(p)) throw new Error(`${p} is none of ${known.join(', ')}`);
const asked = (all: readonly string[], name: string): boolean => !all.some(x => parts.includes(x)) || parts.includes(name);

// ---- one cell

const nameOf = (recipe: string): string => recipe.replace(/^.*\/(.*)\.json$/, '$1');
const quiet = { step: () => undefined, at: () => undefined };
const said = (e: unknown): string => {
  if (!(e instanceof Refusal)) return e instanceof Error ? e.message : String(e);
  return [...new Set(e.problems.map(p => (p.code === 'HK4501' ? p.why : p.what)))].join('; ');
};
interface Written {
  readonly directory: string;
  readonly target: string;
  readonly lossy: number;
  readonly forms: readonly string[];
  /** Tensors coded as asked, and those that were left plain though a rule meant them. */
  readonly coded: number;
  readonly left: number;
}
const noneOf = 'writes no tensor of this model in';
/** Compile; or why there is no program with this storage. */
async function write(model: Model, storage: Storage, aim: string, recipe: string): Promise<Written | string> {
  const out = join(work, 'bundle');
  rmSync(out, { recursive: true, force: true });
  try {
    const { manifest, engines } = await compile(
      model.dir,
      {
        ...{ out, targets: [aim], quantise: recipe, state: 'f32', mtp: 'drop', weights: 'auto', context, sequences: 2, chunk: context },
        ...{ force: false, allowPhantomKeys: false, version: 'bench', noCache: true },
      },
      quiet,
    );
    const t = manifest.targets[0]!;
    const directory = join(out, t.directory);
    if (!existsSync(join(directory, 'native')))
      return t.notes.find(n => n.startsWith('No native program'))?.replace(/^No native program/, 'no native program') ?? 'no program';
    const kept = JSON.parse(readFileSync(join(directory, 'recipe.json'), 'utf8')) as {
      readonly resolved: readonly { readonly form: string; readonly tensors: number }[];
      readonly left?: Readonly<Record<string, readonly string[]>>;
    };
    const forms = kept.resolved.map(r => r.form);
    const coded = kept.resolved.reduce((n, r) => n + (/^(int|fp|mxfp)/.test(r.form) ? r.tensors : 0), 0);
    const left = Object.values(kept.left ?? {}).reduce((n, names) => n + names.length, 0);
    if (storage !== 'bf16' && recipe !== 'none' && !forms.some(f => f.startsWith(storage))) {
      const why = Object.keys(kept.left ?? {});
      return why.length ? why.join('; ') : `recipe ${nameOf(recipe)} ${noneOf} ${storage}`;
    }
    return { directory, target: t.target, lossy: engines[t.directory]!.made.lossy, forms, coded, left };
  } catch (e) {
    if (e instanceof Refusal) return said(e);
    throw e;
  }
}
/** What is recorded of the logits that these weights must give; null where nothing is. */
function column(w: Written, model: Model, storage: Storage, recipe: string): string | null {
  if (!model.sequence.ofThis) return null;
  const name = `${model.sequence.name}.logits`;
  if (recipe === 'none' || storage === 'bf16') return w.lossy === 0 ? name : null;
  if (storage !== 'int8' && storage !== 'int4') return null;
  const form = storage === 'int8' ? 'int8 row f32' : 'int4 g32 f32';
  const asRecorded = recipe === byRecord[storage] && w.left === 0 && w.forms.every(f => f === form || f === 'as it is');
  const there = `${name}.${storage === 'int8' ? 'int8_pc' : 'int4_g32'}`;
  return asRecorded && readHeader(model.sequence.file, 'golden.safetensors').tensors.has(there) ? there : null;
}
/** Tensors of a golden.safetensors: F32 or I64. */
function recorded(file: string, name: string): Float32Array | readonly number[] {
  const t = readHeader(file, 'golden.safetensors').tensors.get(name);
  if (!t) throw new Error(`${file} has no ${name}`);
  const bytes = Uint8Array.from(readFileSync(file).subarray(t.bytes[0], t.bytes[1])).buffer;
  return t.dtype === 'I64' ? Array.from(new BigInt64Array(bytes), Number) : new Float32Array(bytes);
}
const rows = (ids: readonly number[], from: number, to: number, sequence: number): Step => ({
  ids: ids.slice(from, to),
  positions: Array.from({ length: to - from }, (_, i) => from + i),
  sequences: Array<number>(to - from).fill(sequence),
});
/** Largest difference of a logit: the sequence as one prompt, and its last tokens one by one after the rest as a prompt. */
async function differences(
  s: Session,
  ids: readonly number[],
  want: Float32Array,
): Promise<{ readonly prompt: number; readonly steps: number }> {
  const v = s.vocabulary;
  const prompt = worst((await s.step(rows(ids, 0, ids.length, 0))).logits, want);
  await s.step(rows(ids, 0, ids.length - lastSteps, 1));
  let steps = 0;
  for (let i = ids.length - lastSteps; i < ids.length; i++)
    steps = Math.max(steps, worst((await s.step(rows(ids, i, i + 1, 1))).logits, want.subarray(i * v, (i + 1) * v)));
  return { prompt, steps };
}
async function run(w: Written, model: Model, storage: Storage, aim: string, recipe: string): Promise<Cell> {
  const about = { aim, recipe: nameOf(recipe) };
  try {
    const native = join(w.directory, 'native');
    const engine = join(w.directory, 'engine');
    const emulator = targets[w.target]!.emulator;
    const built = emulator ? await buildEmulated(native, emulator()) : await buildNative(native, '-O1');
    const golden = model.sequence.file;
    const ids = recorded(golden, `${model.sequence.name}.input_ids`) as readonly number[];
    const from = column(w, model, storage, recipe);
    let want: Float32Array;
    if (from !== null) want = recorded(golden, from) as Float32Array;
    else {
      const limits = { tokens: context, wanted: context, sequences: 2, context };
      const reference = await openReference(engine, { limits, mtp: false, state: f32, fakeQuant: false, zeroOffsets: true });
      want = new Float32Array((await reference.step(rows(ids, 0, ids.length, 0))).logits);
      await reference.close();
    }
    const session = await openNative(built.program, engine, 1);
    try {
      const judge = from === null ? 'reference' : 'official';
      const coded = w.left === 0 ? null : `${w.coded} of ${w.coded + w.left}`;
      return {
        state: 'run',
        ...about,
        judge,
        coded,
        ...(await differences(session, ids, want)),
        compiler: built.compiler,
        node: process.version,
      };
    } finally {
      await session.close();
    }
  } catch (e) {
    return { state: 'failed', ...about, why: said(e) };
  } finally {
    rmSync(process.env.HKGAI_CACHE as string, { recursive: true, force: true });
  }
}
async function fill(target: Aim, storage: Storage, model: Model): Promise<Cell> {
  // what is released so is passed on byte for byte; the rest is written by recipes
  const passed = storage === model.released && storage !== 'bf16';
  const all = [...(passed ? [[target, 'none'] as const] : []), ...tries[target][storage]];
  const why: string[] = [];
  const ofConvention: string[] = [];
  for (const [aim, recipe] of all) {
    const w = await write(model, storage, aim, recipe);
    if (typeof w !== 'string') return run(w, model, storage, aim, recipe);
    (recipe.includes('/') ? ofConvention : why).push(w);
  }
  // a target's own recipes say more than the recorded convention does, unless they mean nothing of this model
  const shown = why.every(x => x.includes(noneOf)) ? [...ofConvention, ...why] : why;
  return { state: 'none', why: [...new Set(shown)].join('; ') };
}

// ---- all of them

const cells = new Map<string, Cell>(existsSync(o.cells) ? Object.entries(JSON.parse(readFileSync(o.cells, 'utf8')) as Cells) : []);
const keep = (): void => {
  const sorted = Object.fromEntries([...cells].sort(([a], [b]) => (a < b ? -1 : 1)));
  writeFileSync(o.cells, `${JSON.stringify(sorted, null, 2)}\n`);
  writeFileSync(o.out, page(models, sorted));
};
let left = Number(o.most);
for (const storage of storages)
  for (const set of [inOrder.filter(m => first.has(m)), inOrder.filter(m => !first.has(m))])
    for (const target of aims)
      for (const model of set) {
        const key = keyOf(target, storage, model.name);
        if (!asked(aims, target) || !asked(storages, storage)) continue;
        const names = models.map(m => m.name);
        if (!asked(names, model.name) || (cells.has(key) && !o.again) || left-- <= 0) continue;
        const began = performance.now();
        const cell = await fill(target, storage, model);
        cells.set(key, cell);
        keep();
        const short =
          cell.state === 'run'
            ? `${cell.prompt.toExponential(1)} ${cell.steps.toExponential(1)} ${cell.judge}`
            : `${cell.state}: ${cell.why}`;
        process.stderr.write(`${key}: ${short} (${((performance.now() - began) / 1e3).toFixed(0)} s)\n`);
      }
keep();
rmSync(work, { recursive: true, force: true });
const wrong = bad(Object.fromEntries(cells));
for (const key of wrong) process.stderr.write(`${key} failed or is beyond its tolerance\n`);
if (wrong.length) process.exitCode = 1;
