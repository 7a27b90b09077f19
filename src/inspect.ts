// What a checkpoint, a config or a bundle holds, as data that the command line prints.
import { existsSync, statSync } from 'node:fs';
import { join } from 'node:path';
import type { Graph } from '../ir/graph.js';
import { isExchange } from '../ir/ops.js';
import { printGraph } from '../ir/print.js';
import { Refusal } from '../ir/problem.js';
import { elements, matrixBytes } from '../ir/storage.js';
import { type Manifest, readManifest } from './bundle/manifest.js';
import { type Checkpoint, openCheckpoint } from './checkpoint/shards.js';
import { buildOptions, parameters } from './compile.js';
import { buildModel, expectedTensors, type Model } from './models/index.js';
import { type PassOptions, runPasses } from './passes/index.js';
import { parseParallel, type Sharded, shard } from './passes/shard.js';
import { noRank } from './passes/shard-problems.js';

export interface Inspection {
  readonly kind: 'checkpoint' | 'config' | 'bundle';
  readonly path: string;
  readonly checkpoint: Checkpoint | null;
  readonly model: Model | null;
  readonly manifest: Manifest | null;
  /** Logical parameters. */
  readonly parameters: number;
  /** Bytes and tensors by dtype, as the headers say; from the config alone, as releases have them. */
  readonly dtypes: readonly { readonly dtype: string; readonly tensors: number; readonly bytes: number }[];
  readonly tensors: readonly {
    readonly name: string;
    readonly dtype: string;
    readonly shape: readonly number[];
    readonly file: string | null;
    readonly bytes: number;
  }[];
}

const bytesOf = (dtype: string, shape: readonly number[]): number => {
  const size: Readonly<Record<string, number>> = { F32: 4, BF16: 2, F16: 2, F8_E4M3: 1, F8_E8M0: 1, I8: 1, I64: 8, I32: 4 };
  return shape.reduce((a, b) => a * b, 1) * (size[dtype] ?? 0);
};

/** Look at a path. Throws a Refusal where it is no checkpoint, config or bundle, or is not sound. */
export function inspect(path: string, options: { readonly allowPhantomKeys?: boolean } = {}): Inspection {
  if (statSync(path).isDirectory() && existsSync(join(path, 'bundle.json'))) {
    const manifest = readManifest(path);
    const first = manifest.targets[0];
    const inner = inspect(join(path, first?.directory ?? 'cpu', 'engine'), options);
    return { ...inner, kind: 'bundle', path, manifest };
  }
  const checkpoint = openCheckpoint(path, { headersOnly: true, allowPhantomKeys: options.allowPhantomKeys === true });
  const bare = checkpoint.tensors.size === 0;
  const model = buildModel(checkpoint.config, bare ? null : checkpoint.tensors);
  const tensors = bare
    ? expectedTensors(checkpoint.config).map(t => ({
        name: t.name,
        dtype: t.dtype,
        shape: t.shape,
        file: null,
        bytes: bytesOf(t.dtype, t.shape),
      }))
    : [...checkpoint.tensors.values()].map(t => ({
        name: t.name,
        dtype: t.dtype as string,
        shape: t.shape,
        file: t.file,
        bytes: t.bytes[1] - t.bytes[0],
      }));
  const by = new Map<string, { tensors: number; bytes: number }>();
  for (const t of tensors) {
    const row = by.get(t.dtype) ?? { tensors: 0, bytes: 0 };
    by.set(t.dtype, { tensors: row.tensors + 1, bytes: row.bytes + t.bytes });
  }
  return {
    kind: bare ? 'config' : 'checkpoint',
    path,
    checkpoint,
    model,
    manifest: null,
    parameters: parameters(model.graph),
    dtypes: [...by].map(([dtype, r]) => ({ dtype, ...r })).sort((a, b) => b.bytes - a.bytes),
    tensors,
  };
}

/** Bytes a position of a sequence takes in all caches that keep every position. */
export function cacheBytesPerPosition(graph: Graph): number {
  return graph.values.reduce(
    (n, v) =>
      v.op === 'state' && v.attributes.kind === 'log'
        ? n + ((v.type.shape[2] as number) * elements[v.type.storage.element].bits) / 8 / v.attributes.every
        : n,
    0,
  );
}
/** Bytes of a graph's weights; of a rank's, those of its parts. */
function weightBytes(graph: Graph): number {
  return graph.values.reduce((n, v) => {
    if (v.op !== 'weight') return n;
    const shape = v.type.shape as readonly number[];
    const { codes, scales } = matrixBytes(v.type.storage, shape.length < 2 ? 1 : shape.at(-2)!, shape.at(-1)!);
    return n + (shape.length === 3 ? shape[0]! : 1) * (codes + scales);
  }, 0);
}

export interface Spread extends Sharded {
  readonly rows: readonly { readonly rank: number; readonly weights: number; readonly cache: number; readonly exchanges: number }[];
}
/** A model's graph dealt to ranks, `tp=2,ep=4`, with what each rank holds. */
export function spread(graph: Graph, parallel: string, uneven: boolean): Spread {
  const sharded = shard(graph, parseParallel(parallel), { uneven });
  const rows = sharded.ranks.map((g, rank) => ({
    rank,
    weights: weightBytes(g),
    cache: cacheBytesPerPosition(g),
    exchanges: g.values.filter(v => isExchange(v.op)).length,
  }));
  return { ...sharded, rows };
}
/** The graph of one rank as text. */
export function rankText(s: Spread, rank: number, layer?: number): string {
  const graph = s.ranks[rank];
  if (!graph) throw new Refusal([noRank(rank, s.ranks.length)]);
  return printGraph(graph, { withoutBytes: true, ...(layer === undefined ? {} : { layer }) });
}
export const showGraph = (graph: Graph): string => printGraph(graph);

/** The IR after some passes, as text. */
export function runUntil(
  dir: string,
  options: {
    readonly context?: number;
    readonly sequences: number;
    readonly chunk: number;
    readonly mtp: 'keep' | 'quantise' | 'drop' | null;
    readonly state: 'f32' | 'bf16' | 'f16';
    readonly passes: PassOptions;
  },
): string {
  const c = openCheckpoint(dir, { headersOnly: true });
  const { graph } = buildModel(c.config, c.tensors.size === 0 ? null : c.tensors, buildOptions(c.config, options));
  return showGraph(runPasses(graph, options.passes));
}
