// What starts an engine on the devices that --parallel names: launch/ beside engine/, and whether the model can be spread so at all.
import { type Problem, problem, Refusal } from '../ir/problem.js';
import type { Chosen } from '../targets/engine.js';
import { devicesOf, launchFiles, type ModelSource, type Parallel, parallelName } from '../targets/launch.js';
import type { SourceFile } from '../targets/target.js';
import type { Checkpoint } from './checkpoint/shards.js';
import type { Aim, CompileOptions } from './compile.js';
import { expertMaps, type PlacementFile } from './experts.js';
import { usual } from './plan/assumptions.js';
import { checkParallel } from './plan/legal.js';
import type { ModelShape } from './plan/model.js';
import type { ParallelWish } from './plan/parallel.js';
import { rankBytes } from './plan/shard.js';
import { describeCheckpoint, shapeOf } from './plan-model.js';

const needsParallel = (options: readonly string[]): Problem =>
  problem('HK2757', `${options.join(', ')} ${options.length === 1 ? 'is' : 'are'} of launch files, and no devices are named`, {
    next: 'Add --parallel, as --parallel tp=8; hkgai plan MODEL --target … --devices N ranks the ways.',
  });

/** What launch files are told on the command line. */
export interface LaunchWish {
  /** The name that requests call the model by; null: its architecture's. */
  readonly servedName: string | null;
  /** Port of the HTTP server; null: 8000. */
  readonly port: number | null;
  /** Container image; null: a documented one, or a blank. */
  readonly image: string | null;
  /** Where a pod finds the model; null: a claim. */
  readonly modelSource: ModelSource | null;
}
export const noLaunchWish: LaunchWish = { servedName: null, port: null, image: null, modelSource: null };

/** Refuse wishes for launch files where there are none. */
export function refuseIdle(w: LaunchWish, parallel: string | null): void {
  const given = [
    ...(w.servedName === null ? [] : ['--served-name']),
    ...(w.port === null ? [] : ['--port']),
    ...(w.image === null ? [] : ['--image']),
    ...(w.modelSource === null ? [] : ['--model-source']),
  ];
  if (given.length && parallel === null) throw new Refusal([needsParallel(given)]);
}

/**
 * Decoder layers of each stage, dealt so that the heaviest is as light as can be; null where there is one. Refuses a way to spread the model that its
 * heads, experts, storages or devices do not allow, save where parts may be uneven: programs of ranks take that, and engines do not.
 */
export function stagesOf(c: Checkpoint, a: Aim, o: CompileOptions, p: Parallel): readonly number[] | null {
  const { shape, found } = heldAgainst(c, a, o, p);
  if (found.length && o.uneven !== true) throw new Refusal(found);
  return p.pp === 1 || found.length ? null : rankBytes(shape, p, 'bf16', 1, false, usual).map(r => r.stage.to - r.stage.from);
}
/** The model as it is written, and why it cannot be spread so in equal parts. */
function heldAgainst(
  c: Checkpoint,
  a: Aim,
  o: CompileOptions,
  p: Parallel,
): { readonly shape: ModelShape; readonly found: readonly Problem[] } {
  const { shape } = shapeOf(describeCheckpoint(c, c.config.modelType), {
    target: `${a.target.name}:${a.chip.name}`,
    quantise: o.quantise,
    format: a.format.name,
    runtime: o.runtime && a.runtime ? o.runtime : null,
    mtp: o.mtp,
    recipe: a.recipe, // what a budget chose, where there is one
  });
  return { shape, found: checkParallel(shape, p, a.chip.device ?? null) };
}

const inCodes = (x: Chosen): boolean =>
  x.form.kind === 'coded' || x.form.kind === 'gguf' || (x.form.kind === 'keep' && x.source.storage.kind === 'scaled');
const codesOf = (x: Chosen): readonly string[] =>
  x.form.kind === 'coded'
    ? [x.form.element]
    : x.form.kind === 'keep' && x.source.storage.kind === 'scaled'
      ? [x.source.storage.element]
      : [];
/** launch/ of a target: empty where it starts no engine, or none takes parts that are uneven. Refuses where an engine that was named cannot be started so. */
export function launchOf(
  c: Checkpoint,
  a: Aim,
  o: CompileOptions,
  p: Parallel,
  maps: readonly PlacementFile[],
  stages: readonly number[] | null,
  from: ParallelWish['plan'],
): readonly SourceFile[] {
  if (o.uneven && heldAgainst(c, a, o, p).found.length) return [];
  const w = o.launch ?? noLaunchWish;
  const written = new Set(maps.map(f => f.path));
  return launchFiles(
    a.target,
    {
      name: w.servedName ?? c.config.modelType.replaceAll('_', '-'),
      family: c.config.modelType,
      contextLength: o.context ?? (from ? Math.min(from.context, c.config.maxPositions) : null),
      format: a.format.name,
      quantisation: a.resolution.chosen.some(inCodes) ? a.recipe.name : null,
      expertCodes: [...new Set(a.resolution.chosen.flatMap(x => (x.tensor.role === 'expert' ? codesOf(x) : [])))].sort(),
      hasMtp: a.resolution.chosen.some(x => x.tensor.mtp),
      stages,
      expertMaps: Object.fromEntries(Object.entries(expertMaps).filter(([, file]) => written.has(`engine/${file}`))),
    },
    p,
    a.runtime,
    {
      modelSource: w.modelSource ?? 'pvc',
      port: w.port ?? 8000,
      chip: a.chip.name,
      ...(w.image === null ? {} : { image: w.image }),
    },
  );
}
/** Sentences for the summary: what starts it, and what of it may not be what was meant. */
export function launchNotes(
  c: Checkpoint,
  a: Aim,
  files: readonly SourceFile[],
  p: Parallel,
  from: ParallelWish['plan'],
): readonly string[] {
  if (files.length === 0) return [`No launch files for ${parallelName(p)}: no engine of this target is started so.`];
  const own = `${a.target.name}:${a.chip.name}`;
  const perNode = a.chip.device?.perNode?.value ?? null;
  return [
    `launch/ starts it on ${p.nodes === 1 ? 'one node' : `${p.nodes} nodes`} of ${p.devicesPerNode} ${p.devicesPerNode === 1 ? 'device' : 'devices'} (${parallelName(p)}): launch/README.md says how.`,
    ...(from !== null && from.target !== own
      ? [`The row is of a plan for ${from.target}, not for ${own}: whether it fits here was not asked.`]
      : []),
    ...(perNode !== null && p.devicesPerNode > perNode
      ? [
          `A usual node of ${own} has ${perNode} devices, and one of these ${p.devicesPerNode}: --parallel …,nodes=${Math.ceil(devicesOf(p) / perNode)} says otherwise.`,
        ]
      : []),
    ...('experts' in c.config && p.dp > 1 && p.ep === 1
      ? [`With ep=1 engines cut each expert by tp times dp, ${p.tp * p.dp} here, and not by tp: ep=${p.tp * p.dp} deals experts whole.`]
      : []),
  ];
}
