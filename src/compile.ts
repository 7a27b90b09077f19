// checkpoint -> graph -> passes -> kernels -> a bundle. The story of the program on one screen; the rest of the file is its sentences.

import { createHash } from 'node:crypto';
import { closeSync, existsSync, mkdirSync, openSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { basename, dirname, join, resolve as resolvePath } from 'node:path';
import type { Graph, Limits } from '../ir/graph.js';
import { type Problem, problem, Refusal } from '../ir/problem.js';
import type { Program } from '../ir/program.js';
import { bf16, f16, f32 } from '../ir/storage.js';
import { verify } from '../ir/verify.js';
import type { EngineFormat, EngineModel, Recipe, Runtime } from '../targets/engine.js';
import type { Chip, SourceFile, Target, WeightFile } from '../targets/target.js';
import { Cache } from './bundle/cache.js';
import { checkOutput, liesWithin, makeDirectory, outputPlace, sha256File, writeText } from './bundle/directory.js';
import { baselineOf, digest, type Figures, gate, readBaseline } from './bundle/ledger.js';
import { type Manifest, type TargetEntry, writeManifest } from './bundle/manifest.js';
import { type Fingerprint, openWork, sweepPlace, Unfinished, type Work, workPlace } from './bundle/work.js';
import type { ModelConfig } from './checkpoint/config.js';
import type { Dtype, TensorEntry } from './checkpoint/safetensors.js';
import { readAt } from './checkpoint/safetensors.js';
import { type Checkpoint, openCheckpoint } from './checkpoint/shards.js';
import { choose, differentTargets, resolveTarget, runtimeName, runtimeNames, runtimeOf, unknownRuntime } from './choice.js';
import { formatOf } from './conformance.js';
import { kernelsDigest } from './content.js';
import { tensorsIn } from './earlier.js';
import {
  account,
  checkEngine,
  companionsOf,
  type EngineOptions,
  rememberMade,
  sourceIdentities,
  writeCompanions,
  writeWeights,
} from './engine.js';
import { type EnginePlan, outputCount, outputsOf, planEngine, planPacking } from './engine-plan.js';
import { type Experts, engineMaps, expertNotes, parallelFor, placementFiles, planExperts, wishFor } from './experts.js';
import type { LaunchWish } from './launching.js';
import { type Sources, sourcesOf } from './logical.js';
import { type Material, notMaterial, planMaterial, writeRanks } from './materialise.js';
import { collect, keepTight } from './memory.js';
import { type BuildOptions, buildModel, defaultLimits, type Model } from './models/index.js';
import { gptqRevision } from './numeric/gptq.js';
import { Interrupted } from './numeric/steps.js';
import { lower, type PassOptions, passes } from './passes/index.js';
import { DoesNotFit, type LoweringOptions } from './passes/lowering.js';
import { placed } from './plan/parallel.js';
import { notLegal, type Resolution, resolve, savedRecipe, sentence } from './recipe.js';
import { renumbered } from './renumber.js';
import { checkRoom } from './room.js';
import { selfTest } from './selftest.js';
import { refuseGptqAlone, refuseGptqForms, type Statistics, writeStatistics } from './statistics.js';
import { refuseOtherClass, refuseUnread } from './written.js';

export { targets } from '../targets/index.js';
export { resolveTarget } from './choice.js';

export interface CompileOptions {
  readonly out: string;
  /** target or target:chip. */
  readonly targets: readonly string[];
  /** Name or file of a recipe; null takes each target's own. */
  readonly quantise: string | null;
  /** Name of an engine format; null takes the target's first. */
  readonly format?: string | null;
  /** Engine that is to read the directory, `name[@version]`; null asks for what every known one reads. */
  readonly runtime?: string | null;
  readonly search?: 'absmax' | 'mse' | 'gptq';
  readonly state: 'f32' | 'bf16' | 'f16';
  /** null leaves it to the recipe. */
  readonly mtp: 'keep' | 'quantise' | 'drop' | null;
  readonly weights: 'auto' | 'link' | 'copy';
  readonly context?: number;
  readonly sequences: number;
  readonly chunk: number;
  readonly force: boolean;
  readonly allowPhantomKeys: boolean;
  readonly version: string;
  readonly passes?: PassOptions;
  /** Threads of the numeric core: null chooses, 0 stays in this one. */
  readonly jobs?: number | null;
  /** Bytes of memory that the compile may take. */
  readonly maxMemory?: number | null;
  /** Discard an unfinished run of another command. */
  readonly restart?: boolean;
  /** Text that activation statistics are gathered from. */
  readonly calibration?: string | null;
  /** Bits a weight that all matrices may take on average. */
  readonly budget?: number | null;
  /** Baseline file that error figures are held against. */
  readonly gate?: string | null;
  /** Where to write the error figures as a baseline. */
  readonly baseline?: string | null;
  /** Neither read nor write the cache of digests and files. */
  readonly noCache?: boolean;
  /** Bytes that weight files are cut at; by the size of them all where not given. */
  readonly shardBytes?: number;
  readonly signal?: AbortSignal;
  /** `FILE[:label,…]`: a routing trace, counts or a placement that experts are renumbered by. */
  readonly experts?: string | null;
  /** Devices that experts are dealt to, as `dp=16,ep=16,nodes=2`: files and lists follow them. */
  readonly parallel?: string | null;
  /** What launch files are told, where `parallel` asks for some. */
  readonly launch?: LaunchWish;
  /** A weight file for each rank of `parallel`, with a proof for each tensor. */
  readonly materialise?: boolean;
  /** Shares of ranks may differ, and what cannot be cut is whole on each. */
  readonly uneven?: boolean;
  /** How a placement is said: new numbers for experts, or maps alone. */
  readonly expertsForm?: 'renumber' | 'map';
  /** The command line that asked for this, as one would type it again. */
  readonly command?: string;
}
export interface Watch {
  step(text: string): void;
  at(done: number, total: number): void;
}
/** Tensors by what was done to their values. */
export interface Made {
  readonly passed: number;
  /** Routers and tables whose rows or numbers follow experts that were renumbered. */
  readonly reordered: number;
  readonly cast: number;
  /** Of the casts, those that lost something. */
  readonly lossy: number;
  readonly coded: number;
  /** Codes whose values lay more than half a step outside their range. */
  readonly saturated: number;
}
/** Seconds of a compile's parts. */
export interface Phases {
  /** Headers, graph, recipe, plan. */
  prepare: number;
  /** Source bytes to output bytes. */
  weights: number;
  /** Holding engine directories against their rules. */
  check: number;
  /** Programs, hashes of what is left, putting the bundle in place. */
  rest: number;
}
export interface Compiled {
  readonly manifest: Manifest;
  readonly phases: Readonly<Phases>;
  /** By target directory. */
  readonly engines: Readonly<
    Record<
      string,
      {
        readonly figures: ReadonlyMap<string, Figures>;
        readonly made: Made;
        readonly resumed: number;
        readonly cached: number;
        /** Tensors that are read for what is written of them, and those of them that were taken from earlier outputs. */
        readonly tensors: number;
        readonly taken: number;
        readonly files: number;
        readonly source: number;
      }
    >
  >;
}

const contextTooLong = (asked: number, most: number): Problem =>
  problem('HK2202', `--context ${asked} is longer than the ${most} positions that the model was made for`, { next: 'Ask for less.' });

/** Rows of one call that programs keep lists of on their stacks. */
const mostRows = 8192;
const chunkTooLong = (asked: number): Problem =>
  problem('HK2203', `--chunk ${asked} is more than the ${mostRows} rows that a call may have`, {
    why: 'A longer prompt is read in several calls.',
    next: 'Ask for less.',
  });
/** Sequences that a program is planned for: more has no use, and far more cannot be counted in bytes. */
const mostSequences = 8192;
const badValue = (option: string, value: string | number, expected: string): Problem =>
  problem('HK2003', `${option} ${value}: ${expected} was expected`, { next: 'Change the option.' });
const baselineTaken = (file: string, why: string): Problem =>
  problem('HK2106', `--baseline ${file} cannot be written there`, { places: [{ file }], why, next: 'Name another file with --baseline.' });
const interrupted = (out: string, done: number, all: number, command: string | null): Problem => ({
  ...problem('HK9130', 'Interrupted; what is finished is kept', {
    why: `${done} of ${all} weight files are done and lie beside ${out}.`,
    next: command === null ? 'Run the same command again: it goes on from there.' : `Go on with: ${command}`,
  }),
  exit: 130,
});

/** One target of a compile, before anything is written. */
export interface Aim {
  readonly target: Target;
  readonly chip: Chip;
  /** Inside the bundle. */
  readonly directory: string;
  readonly format: EngineFormat;
  readonly runtime: Runtime | null;
  readonly recipe: Recipe;
  readonly resolution: Resolution;
  readonly plan: EnginePlan;
  /** Weights lie in files by the rank of their experts. */
  readonly byRank: boolean;
  /** What is written for each rank; null where that was not asked for. */
  readonly material: Material | null;
  readonly notes: readonly string[];
  /** What starts engines on several devices; empty where no devices are named. */
  readonly launch: readonly SourceFile[];
}
export interface Prepared {
  readonly checkpoint: Checkpoint;
  readonly model: Model;
  readonly sources: Sources;
  readonly engineModel: EngineModel;
  readonly aims: readonly Aim[];
  /** Where experts go; null where nothing was asked for. */
  readonly experts: Experts | null;
  /** Of the weight files, from before their headers were read. */
  readonly identities: ReadonlyMap<string, string>;
}

/** Headers, graph, recipe and plan of every target: all that can be refused is refused here, before a byte is written. `headersOnly`: shards may end
 *  after their headers. */
export async function prepare(modelDir: string, o: CompileOptions, watch: Watch, headersOnly = false): Promise<Prepared> {
  for (const [option, file] of [
    ['--quantise', o.quantise],
    ['--calibration', o.calibration],
    ['--gate', o.gate],
    ['--experts', o.experts],
    ['--baseline', o.baseline],
  ] as const) {
    if (file === '') throw new Refusal([badValue(option, "''", option === '--quantise' ? 'a recipe' : 'a file')]);
    if (file && (option !== '--quantise' || /[./\\]/.test(file)) && existsSync(file) && statSync(file).isDirectory())
      throw new Refusal([badValue(option, file, 'a file')]);
  }
  if (o.targets.length === 0) throw new Refusal([badValue('--target', "''", 'the name of a target')]);
  const chosen = differentTargets(o.targets).map(resolveTarget);
  watch.step(`read the headers of ${modelDir}`);
  const identities = existsSync(modelDir) ? sourceIdentities(modelDir) : new Map<string, string>();
  const checkpoint = openCheckpoint(modelDir, { allowPhantomKeys: o.allowPhantomKeys, headersOnly });
  buildOptions(checkpoint.config, o); // refuses limits that cannot be
  const model = buildModel(checkpoint.config, checkpoint.tensors);
  const sources = sourcesOf(checkpoint.config, model, checkpoint.tensors);
  const companions = companionsOf(checkpoint.dir);
  const engineModel: EngineModel = {
    modelType: checkpoint.config.family,
    layers: checkpoint.config.layers,
    tensors: sources.tensors.map(t => t.logical),
  };
  const spread = await import('./launching.js');
  spread.refuseIdle(o.launch ?? spread.noLaunchWish, o.parallel ?? null);
  const wish = o.parallel ? wishFor(checkpoint, o.parallel) : null;
  const parallel = wish ? placed(wish, null) : null;
  const from = wish?.plan ?? null;
  const experts = planExperts(checkpoint, model, {
    experts: o.experts ?? null,
    parallel: o.parallel ?? null,
    form: o.expertsForm ?? 'renumber',
    uneven: o.materialise === true && o.uneven === true,
  });
  const aims: Aim[] = [];
  const runtimes = chosen.map(c => runtimeOf(c.target, o.runtime ?? null));
  if (o.runtime && runtimes.every(r => r === null))
    throw new Refusal([unknownRuntime(o.runtime, [...new Set(chosen.flatMap(c => runtimeNames(c.target)))])]);
  for (const [i, { target, chip }] of chosen.entries()) {
    const runtime = runtimes[i] ?? null;
    const wanted = {
      quantise: o.quantise,
      format: o.format ?? null,
      ...(o.mtp ? { mtp: o.mtp } : {}),
      ...(o.search ? { search: o.search } : {}),
    };
    const choice = choose(target, runtime, wanted, () => formatOf(checkpoint.dir, target));
    const { format } = choice;
    let { recipe } = choice;
    if (o.budget) {
      watch.step(`measure what each role can bear, for ${o.budget} bits a weight`);
      const { budgeted } = await import('./budget.js');
      recipe = budgeted(checkpoint, sources, target, chip.name, format, recipe, runtime, o.budget);
    }
    refuseGptqForms(recipe.rules, new Set(sources.tensors.map(t => t.logical.role)), r => format.form(r));
    const named = resolve(recipe, sources.tensors, format, engineModel, target.name, chip.name, runtime, false);
    const renamed = experts ? renumbered(sources, named, experts.orders, checkpoint.config.layers) : { sources, resolution: named };
    const { resolution } = renamed;
    refuseGptqAlone(resolution.chosen, o.calibration ?? null);
    const packing = format.pack?.(companions, resolution.chosen, engineModel);
    if (packing?.refused.length) throw new Refusal([notLegal(`${target.name}:${chip.name}`, format.name, packing.refused.map(sentence))]);
    const limit = o.shardBytes === undefined ? undefined : () => o.shardBytes as number;
    const plan = packing
      ? planPacking(renamed.sources, resolution, packing, limit)
      : planEngine(checkpoint, renamed.sources, resolution, format, limit, experts?.files ?? null);
    refuseOtherClass(checkpoint, companions, plan, resolution, target, format, recipe);
    if (!experts)
      refuseUnread(checkpoint, plan, resolution, target, chip, format, recipe, buildOptions(checkpoint.config, { ...o, mtp: recipe.mtp }));
    const aim: Aim = {
      target,
      chip,
      directory: chip.name === target.chips[0]?.name ? target.name : `${target.name}-${chip.name}`,
      format,
      runtime,
      recipe,
      resolution,
      plan,
      byRank: experts !== null && !packing,
      material: o.materialise ? materialOf(checkpoint, plan, format, o) : null,
      launch: [],
      notes: [
        ...resolution.notes,
        ...(packing?.left.map(sentence) ?? []),
        ...(experts ? expertNotes(experts, checkpoint.config.layers) : []),
      ],
    };
    if (parallel === null || !target.launch) {
      aims.push(aim);
      continue;
    }
    const stages = spread.stagesOf(checkpoint, aim, o, parallel);
    const maps = experts ? engineMaps(experts, checkpoint.config.layers, runtime, target) : [];
    const launch = spread.launchOf(checkpoint, aim, o, parallel, maps, stages, from);
    aims.push({ ...aim, launch, notes: [...aim.notes, ...spread.launchNotes(checkpoint, aim, launch, parallel, from)] });
  }
  return { checkpoint, model, sources, engineModel, aims, experts, identities };
}

/** The ranks of what is going to be written. */
function materialOf(c: Checkpoint, plan: EnginePlan, format: EngineFormat, o: CompileOptions): Material {
  if (!o.parallel) throw new Refusal([notMaterial('it needs ranks; add --parallel')]);
  if (format.pack) throw new Refusal([notMaterial(`${format.name} is one container`)]);
  const tensors = new Map<string, TensorEntry>();
  for (const t of outputsOf(plan))
    tensors.set(t.name, { name: t.name, dtype: t.dtype as Dtype, shape: t.shape, file: t.file, bytes: [t.at, t.at + t.size] });
  return planMaterial(c.config, tensors, format.name, parallelFor(c, o.parallel), o.uneven === true);
}

/** Compile a checkpoint into a bundle at options.out. Nothing appears there unless all of it does. */
export async function compile(modelDir: string, o: CompileOptions, watch: Watch): Promise<Compiled> {
  sweepPlace(o.out);
  checkOutput(o.out, modelDir, o.force);
  const baseline = o.gate && !statSync(o.gate).isDirectory() ? readBaseline(o.gate) : null; // prepare refuses a directory
  if (o.baseline) checkBaselinePlace(o.baseline, o.out, modelDir);
  if (o.baseline) makeDirectory(dirname(resolvePath(o.baseline))); // said now rather than after the work
  keepTight();
  const began = performance.now();
  const phases: Phases = { prepare: 0, weights: 0, check: 0, rest: 0 };
  const p = await prepare(modelDir, o, watch);
  collect();
  phases.prepare = (performance.now() - began) / 1e3;
  checkRoom(p, o.out, o.weights, o.noCache ? null : new Cache(), recipeKey({}));
  const work = openWork(o.out, fingerprint(p, o), o.restart === true, () => checkOutput(o.out, modelDir, o.force));
  try {
    const statistics = o.calibration ? await calibrated(p, o, watch) : noStatistics;
    const done = await build(p, o, statistics, work, watch, phases);
    if (baseline) {
      const worse = gate(figuresOf(done.engines), baseline);
      if (worse.length) throw new Refusal(worse);
    }
    if (o.signal?.aborted) throw new Interrupted();
    await work.commit();
    finish(modelDir, o, done);
    phases.rest = (performance.now() - began) / 1e3 - phases.prepare - phases.weights - phases.check;
    return { manifest: done.manifest, engines: done.engines, phases };
  } catch (e) {
    // what is wrong with the input or the recipe will not be better next time; all else leaves what is finished for the same command
    if (e instanceof Refusal && !(e instanceof Unfinished)) await work.abandon();
    else await work.leave();
    if (!(e instanceof Interrupted)) throw e;
    const all = p.aims.reduce((n, a) => n + a.plan.files.length, 0);
    throw new Refusal([interrupted(o.out, work.count(), all, o.command ?? null)]);
  }
}

/** Tensors that a run reads or writes. */
export const countTensors = (p: Prepared): number => p.checkpoint.tensors.size + p.aims.reduce((n, a) => n + outputCount(a.plan), 0);

interface Built extends Omit<Compiled, 'phases'> {
  readonly remember: readonly (() => void)[];
}
async function build(p: Prepared, o: CompileOptions, gathered: Statistics, work: Work, watch: Watch, phases: Phases): Promise<Built> {
  const took = (phase: 'weights' | 'check', since: number): void => void (phases[phase] += (performance.now() - since) / 1e3);
  const { statistics } = gathered;
  const cache = o.noCache ? null : new Cache();
  const entries: TargetEntry[] = [];
  const known = new Map<string, { readonly sha256: string; readonly bytes: number }>();
  const engines: Record<string, Compiled['engines'][string]> = {};
  const remember: (() => void)[] = [];
  const options: EngineOptions = {
    jobs: o.jobs ?? null,
    maxMemory: o.maxMemory ?? null,
    tensors: countTensors(p),
    statistics,
    weights: o.weights,
    cache,
    identities: p.identities,
    signal: o.signal ?? new AbortController().signal,
  };
  const statisticsFile = join(work.tree, 'calibration.safetensors');
  rmSync(statisticsFile, { force: true }); // an interrupted run's
  if (o.calibration) writeStatistics(statisticsFile, gathered);
  for (const a of p.aims) {
    const at = join(work.tree, a.directory);
    sweep(at, a.plan);
    mkdirSync(join(at, 'engine'), { recursive: true });
    const key = recipeKey(statistics);
    watch.step(
      a.plan.linked
        ? `bring the weights for ${a.target.name}, byte for byte`
        : `write ${a.format.name} for ${a.target.name} (${a.recipe.name})`,
    );
    const writing = performance.now();
    const { results, resumed, cached, taken } = await writeWeights(
      p.checkpoint,
      a.plan,
      work,
      `${a.directory}/engine`,
      key,
      options,
      watch,
    );
    took('weights', writing);
    collect();
    writeCompanions(p.checkpoint, a.plan, a.resolution, a.format, join(at, 'engine'), {
      recipe: a.recipe,
      allowPhantomKeys: o.allowPhantomKeys,
    });
    collect();
    const { totals, figures } = account(p.checkpoint, a.plan, results, join(at, 'ledger.jsonl'));
    writeText(at, 'recipe.json', `${JSON.stringify(savedRecipe(a.recipe, a.format, a.resolution), null, 2)}\n`);
    if (p.experts)
      for (const f of placementFiles(p.experts, a.plan, a.byRank, p.checkpoint, a.runtime, a.target)) writeText(at, f.path, f.text);
    for (const f of a.launch) writeText(at, f.path, f.text, f.executable === true);
    for (const r of results.values()) known.set(`${a.directory}/engine/${r.path}`, { sha256: r.sha256, bytes: r.bytes });
    collect();
    watch.step(`hold ${a.directory}/engine against the rules of ${a.format.name}`);
    const kept = { ...p.engineModel, tensors: a.resolution.chosen.map(x => x.tensor) };
    const checking = performance.now();
    const broken = checkEngine(join(at, 'engine'), a.format, kept, a.chip.name, a.runtime, true);
    took('check', checking);
    if (broken.length) throw new Refusal(broken);
    if (a.material) {
      watch.step(`cut the weights for ${a.material.ranks.length} ranks, and prove that they make the whole`);
      const stop = (): void => {
        if (o.signal?.aborted) throw new Interrupted();
      };
      const written = await writeRanks(a.material, join(at, 'engine'), join(at, 'ranks'), stop, (d, all) => watch.at(d, all));
      for (const [path, x] of written) known.set(`${a.directory}/ranks/${path}`, x);
    }
    const notes = [...a.notes];
    const wanted = a.target.native && !a.chip.engineOnly && !a.format.pack;
    if (wanted) watch.step(`plan and print the ${a.target.name} program`);
    const native = wanted ? await printNative(a, p, join(at, 'engine'), o) : `No native program for ${a.target.name}:${a.chip.name} yet.`;
    if (typeof native !== 'string') for (const f of native) writeText(at, `native/${f.path}`, f.text, f.executable === true);
    if (a.format.pack || !readsItself(a.target)) notes.push(`engine/ is for ${a.format.readers}.`);
    if (typeof native === 'string' && !a.format.pack) notes.push(native);
    entries.push({
      target: a.target.name,
      chip: a.chip.name,
      directory: a.directory,
      engine: { format: a.format.name, recipe: a.recipe.name, runtime: runtimeName(a.runtime), readers: a.format.readers, totals },
      verified: { reference: null, emulated: null, compiled: null, device: null },
      notes,
    });
    engines[a.directory] = {
      figures,
      made: madeOf(a.plan, figures),
      resumed,
      cached,
      taken,
      tensors: a.plan.files.reduce((n, f) => n + tensorsIn(f), 0),
      files: a.plan.files.length,
      source: a.plan.files.reduce((n, f) => n + f.source, 0),
    };
    if (cache) remember.push(() => rememberMade(p.checkpoint, a.plan, join(o.out, a.directory, 'engine'), key, statistics, results, cache));
  }
  watch.step('hash and record every file');
  const limits = buildOptions(p.checkpoint.config, o).limits;
  const manifest = writeManifest(work.tree, describe(p, limits, o, entries), known);
  return { manifest, engines, remember };
}
function madeOf(plan: EnginePlan, figures: ReadonlyMap<string, Figures>): Made {
  const made = { passed: 0, reordered: 0, cast: 0, lossy: 0, coded: 0 };
  let before = '';
  for (const t of outputsOf(plan)) {
    const name = t.matrix ?? t.name;
    if (t.from.length === 0 || name === before) continue; // pieces of a matrix stand side by side
    before = name;
    made[t.kind]++;
    if (t.kind === 'cast' && (figures.get(name)?.relative ?? 0) > 0) made.lossy++;
  }
  return {
    ...made,
    saturated: [...figures.values()].reduce((n, f) => n + f.saturated, 0),
  };
}
/** Figures by tensor; of several targets, with the target before the name. */
const figuresOf = (engines: Compiled['engines']): ReadonlyMap<string, Figures> => {
  const all = Object.entries(engines);
  return new Map(all.flatMap(([at, e]) => [...e.figures].map(([name, f]) => [all.length > 1 ? `${at}: ${name}` : name, f] as const)));
};
/** Where a baseline goes, links followed: nothing is there, or a baseline. */
function checkBaselinePlace(file: string, out: string, modelDir: string): string {
  const to = outputPlace(file);
  for (const [dir, what] of [
    [outputPlace(modelDir), 'the model'],
    [outputPlace(out), 'the output'],
    [workPlace(out), 'the work beside the output'],
  ] as const)
    if (liesWithin(dir, to)) throw new Refusal([baselineTaken(file, `It lies inside ${what}, ${dir}.`)]);
  const there = statSync(to, { throwIfNoEntry: false });
  if (!there) return to;
  if (!there.isFile()) throw new Refusal([baselineTaken(file, 'What stands there is no regular file.')]);
  try {
    readBaseline(to);
  } catch (e) {
    if (!(e instanceof Refusal)) throw e;
    throw new Refusal([baselineTaken(file, 'A file stands there that is no baseline of hkgai: it would be lost.')]);
  }
  return to;
}
/** After the bundle is in place: what its files were made of, and the figures as a baseline. */
function finish(modelDir: string, o: CompileOptions, done: Built): void {
  for (const r of done.remember) r();
  if (o.baseline) {
    const all = figuresOf(done.engines);
    const to = checkBaselinePlace(o.baseline, o.out, modelDir); // whatever came to stand there meanwhile
    rmSync(to, { force: true });
    writeText(dirname(to), basename(to), `${JSON.stringify(baselineOf(all), null, 2)}\n`);
  }
}
/** Remove what an earlier, interrupted run of the same command left besides finished weight files: it is made again. */
function sweep(at: string, plan: EnginePlan): void {
  if (!existsSync(at)) return;
  for (const f of ['recipe.json', 'ledger.jsonl', 'native', 'placement', 'launch', 'ranks'])
    rmSync(join(at, f), { recursive: true, force: true });
  const weights = new Set(plan.files.map(f => f.path));
  for (const f of existsSync(join(at, 'engine')) ? readdirSync(join(at, 'engine')) : [])
    if (!weights.has(f)) rmSync(join(at, 'engine', f), { recursive: true, force: true });
  rmSync(join(at, '..', 'bundle.json'), { force: true });
}
/** What of a run besides its steps changes bytes: the statistics. */
const recipeKey = (statistics: Readonly<Record<string, Float32Array>>): string => {
  const h = createHash('sha256').update(Object.keys(statistics).some(k => k.startsWith('gram:')) ? `gptq ${gptqRevision}` : '');
  for (const k of Object.keys(statistics).sort())
    h.update(k).update(new Uint8Array(statistics[k]!.buffer, statistics[k]!.byteOffset, statistics[k]!.byteLength));
  return h.digest('hex');
};

/** Everything that decides about the output's bytes, by name. */
function fingerprint(p: Prepared, o: CompileOptions): Fingerprint {
  const files = p.checkpoint.files.map(f => {
    return `${f} ${statSync(join(p.checkpoint.dir, f)).size}`; // whether it was written since is asked for each file made of it
  });
  const model = createHash('sha256').update(files.join('\n'));
  for (const t of p.checkpoint.tensors.values()) model.update(`\n${t.name} ${t.dtype} ${t.shape.join()} ${t.file} ${t.bytes.join()}`);
  model.update(readFileSync(join(p.checkpoint.dir, 'config.json'), 'utf8'));
  return {
    version: `${o.version} ${kernelsDigest()}`,
    model: model.digest('hex'),
    targets: p.aims.map(a => `${a.target.name}:${a.chip.name} ${a.format.name} ${runtimeName(a.runtime)}`).join(', '),
    recipe: digest(JSON.stringify(p.aims.map(a => a.recipe))),
    experts: p.experts ? digest(JSON.stringify([o.parallel, p.experts.placement])) : 'none',
    launch: p.aims.some(a => a.launch.length) ? digest(JSON.stringify(p.aims.map(a => a.launch))) : 'none',
    ranks: o.materialise ? `${o.parallel}${o.uneven ? ' uneven' : ''}` : 'none',
    calibration: o.calibration ? sha256File(o.calibration).sha256 : 'none',
    limits: JSON.stringify([o.state, o.context ?? null, o.sequences, o.chunk, o.weights, o.allowPhantomKeys]),
  };
}

const noStatistics: Statistics = { statistics: {}, notes: [] };
async function calibrated(p: Prepared, o: CompileOptions, watch: Watch): Promise<Statistics> {
  const { gather } = await import('./calibrate.js');
  watch.step(`gather activation statistics from ${o.calibration}`);
  const searches = (a: Aim): readonly string[] => a.resolution.chosen.flatMap(x => ('search' in x.form ? x.form.search : []));
  const gram = p.aims.some(a => searches(a).includes('gptq'));
  const s = await gather(p.checkpoint, o.calibration as string, gram, (done, total) => watch.at(done, total), o.maxMemory ?? undefined);
  for (const a of p.aims) {
    (a.notes as string[]).push(...s.notes);
    if (!searches(a).some(x => x !== 'absmax'))
      (a.notes as string[]).push('Scales are found by absmax, which the statistics do not change; --search mse weighs by them.');
  }
  return s;
}

/** What of the options a graph is built with. */
export type Limited = Pick<CompileOptions, 'context' | 'sequences' | 'chunk' | 'mtp' | 'state'>;
export function buildOptions(config: ModelConfig, o: Limited): BuildOptions {
  if (o.context !== undefined && o.context > config.maxPositions) throw new Refusal([contextTooLong(o.context, config.maxPositions)]);
  if (o.chunk > mostRows) throw new Refusal([chunkTooLong(o.chunk)]);
  if (o.sequences > mostSequences) throw new Refusal([badValue('--sequences', o.sequences, `at most ${mostSequences}`)]);
  const context = o.context ?? defaultLimits(config).context;
  const tokens = Math.min(o.chunk, context);
  return {
    limits: { tokens, wanted: tokens, sequences: o.sequences, context },
    mtp: o.mtp !== 'drop',
    state: { f32, bf16, f16 }[o.state],
    fakeQuant: false,
  };
}

/** Refuse names that no pass has. */
export function checkPasses(o: PassOptions): void {
  const names = passes.map(p => p.name);
  const { dump, stopAfter } = o;
  if (stopAfter !== undefined && !names.includes(stopAfter)) throw new Refusal([badValue('--stop-after', stopAfter, names.join(' or '))]);
  const dumps = ['all', 'changed', ...names, 'fuse'];
  if (dump !== undefined && !dumps.includes(dump))
    throw new Refusal([badValue('--dump', dump, dumps.join(', ').replace(/, ([^,]*)$/, ' or $1'))]);
}

/** Whether the program is one of the engines that a target's directory is written for. */
const readsItself = (t: Target): boolean => Object.hasOwn(t.engines.runtimes, 'native');
/** The native program of what was written; a sentence where there is none, which is no fault: engine/ stands by itself. */
async function printNative(a: Aim, p: Prepared, engine: string, o: CompileOptions): Promise<readonly SourceFile[] | string> {
  const without = (why: string): string => `No native program for ${a.target.name}:${a.chip.name}: ${why}`;
  try {
    // the directory was held against its rules: offsets in it are zero
    const program = plan(engine, { ...o, mtp: a.recipe.mtp, objection: k => a.target.objection(k, a.chip), zeroOffsets: true });
    const said = a.target.refuses?.(program, a.chip) ?? null;
    if (said !== null) return without(said);
    const files = a.target.native!(program, weightFiles(engine, program), a.chip);
    // a program that runs where it is compiled is verified there, against the reference itself
    const size = readsItself(a.target) ? Number.POSITIVE_INFINITY : parameters(p.model.graph);
    const shown = program.launches.flatMap(l =>
      l.outputs.includes('logits') ? [...l.also, ...(l.last ? [l.value] : [])].map(v => v.name) : [],
    );
    const options = { ...buildOptions(p.checkpoint.config, { ...o, mtp: a.recipe.mtp }), zeroOffsets: true };
    const test = await selfTest(engine, options, { parameters: size, vocabulary: p.checkpoint.config.vocab }, shown);
    return [...files, { path: 'selftest.txt', text: test }];
  } catch (e) {
    if (readsItself(a.target)) throw e;
    if (e instanceof Refusal) return without(e.problems[0]?.what ?? 'it cannot be planned');
    if (e instanceof DoesNotFit) return without(e.message.split('\n').at(-1) as string);
    throw e;
  }
}

/** The graph of a checkpoint on disk, through the passes, as launches with places in memory. */
export function plan(
  dir: string,
  options: Limited &
    Pick<CompileOptions, 'passes' | 'allowPhantomKeys'> &
    Pick<LoweringOptions, 'objection'> &
    Pick<BuildOptions, 'zeroOffsets'>,
): Program {
  const c = openCheckpoint(dir, { allowPhantomKeys: options.allowPhantomKeys });
  const built = { ...buildOptions(c.config, options), zeroOffsets: options.zeroOffsets === true };
  const { graph } = buildModel(c.config, c.tensors, built);
  return lower(graph, { verify: g => verify(g), ...(options.objection ? { objection: options.objection } : {}), ...options.passes });
}

/** The files a program's weights lie in, with the hash of each header. */
export function weightFiles(dir: string, p: Program): readonly WeightFile[] {
  const names = [...new Set(p.weights.flatMap(w => w.origin.parts.flatMap(x => [x.file, ...(x.scale ? [x.scale.file] : [])])))].sort();
  return names.map(name => {
    const fd = openSync(join(dir, name), 'r');
    try {
      const head = new Uint8Array(8);
      readAt(fd, head, 0);
      const bytes = new Uint8Array(8 + Number(new DataView(head.buffer).getBigUint64(0, true)));
      readAt(fd, bytes, 0);
      let hash = 2166136261;
      for (const b of bytes) hash = Math.imul(hash ^ b, 16777619);
      return { name, bytes: statSync(join(dir, name)).size, headerBytes: bytes.length, headerHash: hash >>> 0 };
    } finally {
      closeSync(fd);
    }
  });
}

// ---- the manifest

/** Logical parameters: every element of every weight once, whatever its storage. */
export const parameters = (graph: Graph): number =>
  graph.values.reduce(
    (n, v) =>
      v.op === 'weight' && v.type.storage.element !== 'i64' ? n + (v.type.shape as readonly number[]).reduce((a, b) => a * b, 1) : n,
    0,
  );

function describe(p: Prepared, limits: Limits, o: CompileOptions, targetsDone: readonly TargetEntry[]): Omit<Manifest, 'files' | 'format'> {
  const c = p.checkpoint;
  const hash = createHash('sha256').update(readFileSync(join(c.dir, 'config.json')));
  let bytes = 0;
  for (const name of [...c.tensors.keys()].sort()) {
    const t = c.tensors.get(name)!;
    bytes += t.bytes[1] - t.bytes[0];
    hash.update(`${name} ${t.dtype} [${t.shape.join(',')}] ${t.file} ${t.bytes.join('-')}\n`);
  }
  const recipes = [...new Set(p.aims.map(a => a.recipe.name))];
  const mtp = [...new Set(p.aims.map(a => a.recipe.mtp))];
  return {
    hkgai: o.version,
    model: { architecture: c.config.modelType, parameters: parameters(p.model.graph), vocabulary: c.config.vocab },
    source: { digest: hash.digest('hex'), tensors: c.tensors.size, bytes },
    recipe: { quantise: recipes.join(', '), state: o.state, mtp: mtp.join(', '), targets: differentTargets(o.targets) },
    limits: { ...limits },
    notes: [...c.notes, ...p.model.unused.map(u => `${u.tensor} is not used: ${u.reason}.`)],
    targets: targetsDone,
  };
}
