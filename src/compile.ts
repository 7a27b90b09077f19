// checkpoint -> graph -> passes -> kernels -> a bundle. The story of the program on one screen; the rest of the file is its sentences.

import { createHash } from 'node:crypto';
import { closeSync, copyFileSync, existsSync, mkdirSync, openSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { type Graph, inputsOf, type Limits, type ValueOf } from '../ir/graph.js';
import { type Problem, problem, Refusal } from '../ir/problem.js';
import type { Program } from '../ir/program.js';
import { bf16, f16, f32 } from '../ir/storage.js';
import { verify } from '../ir/verify.js';
import { targets } from '../targets/index.js';
import type { Target, WeightFile } from '../targets/target.js';
import { checkOutput, linkOrCopy, stage, writeText } from './bundle/directory.js';
import { type Manifest, type TargetEntry, writeManifest } from './bundle/manifest.js';
import type { ModelConfig } from './checkpoint/config.js';
import { readAt } from './checkpoint/safetensors.js';
import { type Checkpoint, openCheckpoint } from './checkpoint/shards.js';
import { type BuildOptions, buildModel, defaultLimits, type Model } from './models/index.js';
import { type Form, type Requantised, rewriteCheckpoint } from './numeric/rewrite.js';
import { lower, type PassOptions } from './passes/index.js';

export { targets } from '../targets/index.js';

export interface CompileOptions {
  readonly out: string;
  /** target or target:chip. */
  readonly targets: readonly string[];
  readonly quantise: 'none' | 'int8' | 'int4';
  readonly state: 'f32' | 'bf16' | 'f16';
  readonly mtp: 'keep' | 'drop';
  readonly weights: 'auto' | 'link' | 'copy';
  readonly context?: number;
  readonly sequences: number;
  readonly chunk: number;
  readonly force: boolean;
  readonly allowPhantomKeys: boolean;
  readonly version: string;
  readonly passes?: PassOptions;
}
export interface Watch {
  step(text: string): void;
  at(done: number, total: number): void;
}

const unknownTarget = (name: string): Problem =>
  problem('HK2201', `${name} is not a target`, {
    why: `Targets: ${Object.values(targets)
      .flatMap(t => t.chips.map(c => `${t.name}:${c.name}`))
      .join(', ')}.`,
    next: 'hkgai targets lists them.',
  });
const noNative = (t: Target): Problem =>
  problem('HK4201', `${t.name} has kernels but no whole program yet`, {
    why: `Its kernels print in ${t.language}; ${t.proved}.`,
    next: 'Compile for cpu.',
  });
const contextTooLong = (asked: number, most: number): Problem =>
  problem('HK2202', `--context ${asked} is longer than the ${most} positions that the model was made for`, { next: 'Ask for less.' });

/** Rows of one call that programs keep lists of on their stacks. */
const mostRows = 8192;
const chunkTooLong = (asked: number): Problem =>
  problem('HK2203', `--chunk ${asked} is more than the ${mostRows} rows that a call may have`, {
    why: 'A longer prompt is read in several calls.',
    next: 'Ask for less.',
  });

/** Compile a checkpoint into a bundle at options.out. Nothing appears there unless all of it does. */
export function compile(modelDir: string, options: CompileOptions, watch: Watch): Manifest {
  const chosen = options.targets.map(resolveTarget);
  checkOutput(options.out, modelDir, options.force);
  watch.step(`read the headers of ${modelDir}`);
  const checkpoint = openCheckpoint(modelDir, { allowPhantomKeys: options.allowPhantomKeys });
  const build = buildOptions(checkpoint.config, options);
  const model = buildModel(checkpoint.config, checkpoint.tensors, build);
  const staging = stage(options.out);
  try {
    const entries: TargetEntry[] = [];
    for (const { target, chip } of chosen) {
      const directory = chip === target.chips[0]?.name ? target.name : `${target.name}-${chip}`;
      const engine = join(staging.dir, directory, 'engine');
      const notes = writeEngine(checkpoint, model, options, engine, watch);
      watch.step(`plan and print the ${target.name} program`);
      const program = plan(engine, options);
      for (const f of (target.native as NonNullable<Target['native']>)(program, weightFiles(engine, program)))
        writeText(join(staging.dir, directory), `native/${f.path}`, f.text, f.executable === true);
      entries.push({
        target: target.name,
        chip,
        directory,
        verified: { reference: null, emulated: null, compiled: null, device: null },
        notes,
      });
    }
    watch.step('hash and record every file');
    const manifest = writeManifest(staging.dir, describe(checkpoint, model, build.limits, options, entries));
    staging.commit();
    return manifest;
  } catch (e) {
    staging.abandon();
    throw e;
  }
}

function resolveTarget(asked: string): { readonly target: Target; readonly chip: string } {
  const [name, chip] = asked.split(':', 2) as [string, string | undefined];
  const target = Object.hasOwn(targets, name) ? targets[name] : undefined;
  const found = chip === undefined ? target?.chips[0] : target?.chips.find(c => c.name === chip);
  if (!target || !found) throw new Refusal([unknownTarget(asked)]);
  if (!target.native) throw new Refusal([noNative(target)]);
  return { target, chip: found.name };
}

export function buildOptions(
  config: ModelConfig,
  o: Pick<CompileOptions, 'context' | 'sequences' | 'chunk' | 'mtp' | 'state'>,
): BuildOptions {
  if (o.context !== undefined && o.context > config.maxPositions) throw new Refusal([contextTooLong(o.context, config.maxPositions)]);
  if (o.chunk > mostRows) throw new Refusal([chunkTooLong(o.chunk)]);
  const context = o.context ?? defaultLimits(config).context;
  const tokens = Math.min(o.chunk, context);
  return {
    limits: { tokens, wanted: tokens, sequences: o.sequences, context },
    mtp: o.mtp === 'keep',
    state: { f32, bf16, f16 }[o.state],
    fakeQuant: false,
  };
}

/** The graph of a checkpoint on disk, through the passes, as launches with places in memory. */
export function plan(
  dir: string,
  options: Pick<CompileOptions, 'context' | 'sequences' | 'chunk' | 'mtp' | 'state' | 'passes' | 'allowPhantomKeys'>,
): Program {
  const c = openCheckpoint(dir, { allowPhantomKeys: options.allowPhantomKeys });
  const { graph } = buildModel(c.config, c.tensors, buildOptions(c.config, options));
  return lower(graph, { verify: g => verify(g), ...options.passes });
}

// ---- engine/: the weights and what belongs to them

const companions = [
  'generation_config.json',
  'tokenizer.json',
  'tokenizer_config.json',
  'special_tokens_map.json',
  'chat_template.jinja',
  'chat_template.json',
  'added_tokens.json',
];
const indexName = 'model.safetensors.index.json';

/** Weights as they are by link or copy, or written again in another storage. Returns notes. */
function writeEngine(c: Checkpoint, model: Model, options: CompileOptions, engine: string, watch: Watch): readonly string[] {
  mkdirSync(engine, { recursive: true });
  for (const f of companions) if (existsSync(join(c.dir, f))) copyFileSync(join(c.dir, f), join(engine, f));
  if (options.quantise === 'none') {
    watch.step('bring the weights, byte for byte');
    for (const f of c.files) linkOrCopy(join(c.dir, f), join(engine, f), options.weights);
    copyFileSync(join(c.dir, 'config.json'), join(engine, 'config.json'));
    if (existsSync(join(c.dir, indexName))) {
      if (options.allowPhantomKeys) writeText(engine, indexName, indexWithout(readFileSync(join(c.dir, indexName), 'utf8'), c.tensors));
      else copyFileSync(join(c.dir, indexName), join(engine, indexName));
    }
    return [];
  }
  const form: Form = options.quantise === 'int8' ? { to: 'int8' } : { to: 'int4', group: 32 };
  const { matrices, kept } = requantised(model.graph, form);
  watch.step(`write ${matrices.size} matrices in ${options.quantise}`);
  const gone = new Set(options.mtp === 'drop' ? model.unused.map(u => u.tensor) : []);
  const tensors = [...c.tensors.values()].filter(t => !gone.has(t.name));
  const { files, bytes } = rewriteCheckpoint(c.dir, engine, tensors, matrices, (done, total) => watch.at(done, total));
  if (files.size > 1 || existsSync(join(c.dir, indexName))) {
    const map = Object.fromEntries(
      [...files].flatMap(([file, list]) => list.map(t => [t.name, file] as const)).sort(([a], [b]) => (a < b ? -1 : 1)),
    );
    writeText(engine, indexName, JSON.stringify({ metadata: { total_size: bytes }, weight_map: map }, null, 2) + '\n');
  }
  writeText(engine, 'config.json', configAfter(readFileSync(join(c.dir, 'config.json'), 'utf8'), options.mtp === 'drop'));
  return kept.length ? [`Left as they are, since int4 wants columns in eights: ${kept.join(', ')}.`] : [];
}

/** An index without the keys that no shard holds: the bundle does not promise what it does not have. */
function indexWithout(source: string, tensors: ReadonlyMap<string, unknown>): string {
  const index = JSON.parse(source) as { weight_map: Record<string, string> };
  return `${JSON.stringify({ ...index, weight_map: Object.fromEntries(Object.entries(index.weight_map).filter(([k]) => tensors.has(k))) }, null, 2)}\n`;
}

/** The large matrices: all but embeddings, heads, router gates, the index's weights and MTP's merge. */
const large = (tensor: string): boolean =>
  /\.weight(_packed)?$/.test(tensor) && !/(^|\.)(embed_tokens|embed|lm_head|head|gate|weights_proj|eh_proj)\.weight$/.test(tensor);
function requantised(graph: Graph, form: Form): { readonly matrices: ReadonlyMap<string, Requantised>; readonly kept: readonly string[] } {
  const matrices = new Map<string, Requantised>();
  const kept: string[] = [];
  const multiplied = new Set(
    graph.values.flatMap(v => (v.op === 'gather' ? [] : inputsOf(v).flatMap(([, i]) => (i.op === 'weight' ? [i.name] : [])))),
  );
  for (const w of graph.values.filter((v): v is ValueOf<'weight'> => v.op === 'weight' && multiplied.has(v.name))) {
    const shape = w.type.shape as readonly number[];
    if (shape.length < 2 || !w.origin.parts.every(p => large(p.tensor))) continue;
    const [rows, columns] = shape.slice(-2) as [number, number];
    if (form.to === 'int4' && columns % 8 !== 0) kept.push(w.name);
    else for (const part of w.origin.parts) matrices.set(part.tensor, { part, storage: w.type.storage, rows, columns, form });
  }
  return { matrices, kept };
}
/** The config of rewritten weights: nothing said of the old storage, and no MTP where it was dropped. */
function configAfter(source: string, noMtp: boolean): string {
  const c = JSON.parse(source) as Record<string, unknown>;
  for (const o of [c, c.text_config as Record<string, unknown> | undefined]) {
    if (!o) continue;
    delete o.quantization_config;
    if (noMtp && 'num_nextn_predict_layers' in o) o.num_nextn_predict_layers = 0;
  }
  return JSON.stringify(c, null, 2) + '\n';
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

function describe(
  c: Checkpoint,
  model: Model,
  limits: Limits,
  o: CompileOptions,
  targetsDone: readonly TargetEntry[],
): Omit<Manifest, 'files' | 'format'> {
  const hash = createHash('sha256').update(readFileSync(join(c.dir, 'config.json')));
  let bytes = 0;
  for (const name of [...c.tensors.keys()].sort()) {
    const t = c.tensors.get(name)!;
    bytes += t.bytes[1] - t.bytes[0];
    hash.update(`${name} ${t.dtype} [${t.shape.join(',')}] ${t.file} ${t.bytes.join('-')}\n`);
  }
  return {
    hkgai: o.version,
    model: { architecture: c.config.modelType, parameters: parameters(model.graph), vocabulary: c.config.vocab },
    source: { digest: hash.digest('hex'), tensors: c.tensors.size, bytes },
    recipe: { quantise: o.quantise, state: o.state, mtp: o.mtp, targets: [...o.targets] },
    limits: { ...limits },
    notes: [...c.notes, ...model.unused.map(u => `${u.tensor} is not used: ${u.reason}.`)],
    targets: targetsDone,
  };
}
