// config and headers -> Graph. The one table of generations.
import { Builder } from '../../ir/build.js';
import { type Graph, type Limits, needed, type Value } from '../../ir/graph.js';
import { Refusal } from '../../ir/problem.js';
import { f32 } from '../../ir/storage.js';
import type { DeepseekMlaConfig, DeepseekMoeConfig, DeepseekV4Config, DenseConfig, ModelConfig } from '../checkpoint/config.js';
import type { TensorEntry } from '../checkpoint/safetensors.js';
import { type BuildOptions, type Making, makeInputs, releaseOf } from './blocks.js';
import { buildMla } from './deepseek-v3.js';
import { buildV4 } from './deepseek-v4.js';
import { buildDense } from './dense.js';
import { type Expected, type Unused, Weights } from './weights.js';

export type { BuildOptions } from './blocks.js';
export type { Expected, Unused } from './weights.js';

export interface Model {
  readonly graph: Graph;
  /** Tensors of the checkpoint that the graph does not use, each with its reason. */
  readonly unused: readonly Unused[];
}

/** Limits where nothing else is asked for: a context that fits small machines. */
export function defaultLimits(config: ModelConfig): Limits {
  const context = Math.min(config.maxPositions, 4096);
  return { tokens: Math.min(128, context), wanted: Math.min(128, context), sequences: 4, context };
}
export const defaultOptions = (config: ModelConfig): BuildOptions => ({
  limits: defaultLimits(config),
  mtp: true,
  state: f32,
  fakeQuant: false,
});

function build(
  config: ModelConfig,
  tensors: ReadonlyMap<string, TensorEntry> | null,
  options: BuildOptions,
): { readonly b: Builder; readonly w: Weights; readonly outputs: Readonly<Record<string, Value>> } {
  const b = new Builder();
  const w = new Weights(b, config, tensors, options.zeroOffsets === true);
  const making = <C extends ModelConfig>(c: C): Making<C> => ({ b, w, config: c, options, inputs: makeInputs(b), release: releaseOf(c) });
  switch (config.family) {
    case 'qwen2':
    case 'llama':
    case 'deepseek':
      return { b, w, outputs: buildDense(making<DenseConfig | DeepseekMoeConfig>(config)) };
    case 'deepseek_v2':
    case 'deepseek_v3':
    case 'deepseek_v32':
      return { b, w, outputs: buildMla(making<DeepseekMlaConfig>(config)) };
    case 'deepseek_v4':
      return { b, w, outputs: buildV4(making<DeepseekV4Config>(config)) };
  }
}

/** Every tensor that a release with this config has, from the config alone. */
export function expectedTensors(config: ModelConfig): readonly Expected[] {
  return build(config, null, defaultOptions(config)).w.expected;
}

/**
 * The graph of a model. With tensors, storages come from their headers and anything missing, unknown or of another shape or dtype is a
 * Refusal that lists all of it; without (null), the release's storages are assumed and weights have no bytes.
 */
export function buildModel(
  config: ModelConfig,
  tensors: ReadonlyMap<string, TensorEntry> | null,
  options: BuildOptions = defaultOptions(config),
): Model {
  const { b, w, outputs } = build(config, tensors, options);
  const problems = w.finish();
  if (problems.length) throw new Refusal(problems);
  const kept = options.mtp ? outputs : Object.fromEntries(Object.entries(outputs).filter(([name]) => !name.startsWith('mtp.')));
  const graph = b.finish(plainName(config.modelType), options.limits, kept);
  if (options.mtp) return { graph, unused: w.unused };
  const pruned = prune(graph);
  const used = new Set(pruned.values);
  const dropped = graph.values.flatMap(v =>
    used.has(v)
      ? []
      : v.origin.parts
          .flatMap(p => [p.tensor, ...(p.scale ? [p.scale.tensor] : [])])
          .map(tensor => ({ tensor, reason: 'part of a multi-token prediction block, dropped by --mtp drop' })),
  );
  return { graph: pruned, unused: [...w.unused, ...dropped] };
}

/** A name that may stand in generated code and comments, whatever the config says. */
const plainName = (name: string): string => name.replace(/[^A-Za-z0-9_.-]/g, '_').slice(0, 64);

/** The graph without values that no output needs. */
function prune(graph: Graph): Graph {
  return { ...graph, values: needed(graph, Object.values(graph.outputs)) };
}
