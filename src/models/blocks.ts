// What several generations share: the inputs of a call, norms, caches, MLPs, experts, the way to the logits.
import type { Builder } from '../../ir/build.js';
import { type Dim, type Graph, type Limits, sequences, type Value, type ValueOf } from '../../ir/graph.js';
import { mscale, type RopeScaling, type RopeTable } from '../../ir/rope.js';
import type { Plain } from '../../ir/storage.js';
import type { ModelConfig, RopeScalingConfig } from '../checkpoint/config.js';
import type { Release, Weight, Weights } from './weights.js';

export interface BuildOptions {
  readonly limits: Limits;
  /** Keep multi-token prediction blocks as outputs of their own. */
  readonly mtp: boolean;
  /** Storage of caches. */
  readonly state: Plain;
  /** Round activations where the official kernels do (V3.2 and V4 index and cache); off where exact arithmetic is wanted. */
  readonly fakeQuant: boolean;
  /** True where every `weight_offset` beside int8 codes is known to be zero, as in directories that were held against their rules. */
  readonly zeroOffsets?: boolean;
}

export interface Inputs {
  readonly ids: Value;
  readonly positions: Value;
  readonly sequences: Value;
  readonly wanted: Value;
}
/** Hands the pieces of a model the same things: where values go, where weights come from, what was asked for. */
export interface Making<C extends ModelConfig> {
  readonly b: Builder;
  readonly w: Weights;
  readonly config: C;
  readonly options: BuildOptions;
  readonly inputs: Inputs;
  /** How the release stores its linears. */
  readonly release: Release;
}

export function makeInputs(b: Builder): Inputs {
  const input = (which: ValueOf<'input'>['attributes']['which']): Value => b.add('input', which, {}, { which });
  return { ids: input('ids'), positions: input('positions'), sequences: input('sequences'), wanted: input('wanted') };
}
export const releaseOf = (c: ModelConfig): Release => (c.quantisation.kind === 'fp8' ? 'fp8' : 'bf16');

export const norms = ['BF16', 'F16', 'F32'] as const;
/** A norm's weight, BF16 in all releases but V3.2. */
export const normWeight = (m: Making<ModelConfig>, name: string, n: number, layer: number): Weight =>
  m.w.plain(name, [n], m.config.family === 'deepseek_v32' ? ['F32', 'BF16', 'F16'] : norms, layer, 'hidden_size');
export function rms(
  m: Making<ModelConfig>,
  name: string,
  x: Value,
  weight: Value | undefined,
  layer: number,
  eps = m.config.eps,
  width?: number,
): Value {
  const w = width ?? (x.type.shape.at(-1) as number);
  return m.b.add('rms_norm', name, weight ? { x, weight } : { x }, { eps, width: w }, { layer });
}
export const linear = (m: Making<ModelConfig>, name: string, x: Value, weight: Value, layer: number): Value =>
  m.b.add('linear', name, { x, weight }, {}, { layer });

/** A cache of every position (or every `every`-th), or of the last `window` and those of one call. */
export function state(
  m: Making<ModelConfig>,
  name: string,
  width: number,
  layer: number,
  kind: 'log' | 'ring' = 'log',
  window = 0,
  every = 1,
): Value {
  const { limits } = m.options;
  const rows =
    kind === 'ring' ? Math.min(window + limits.tokens, Math.max(limits.context, 1)) : Math.max(1, Math.floor(limits.context / every));
  const shape: readonly Dim[] = [sequences, rows, width];
  return m.b.declare('state', name, { shape, storage: m.options.state }, {}, { kind, window, every }, { layer });
}
export function append(m: Making<ModelConfig>, name: string, into: Value, rows: Value, layer: number, every = 1): Value {
  return m.b.add('append', name, { state: into, rows, positions: m.inputs.positions, sequences: m.inputs.sequences }, { every }, { layer });
}

/** Rope's scaling with the magnitude that multiplies cos and sin: mscale(factor, mscale) / mscale(factor, mscale_all_dim). */
export function scalingOf(s: RopeScalingConfig, magnitude = true): RopeScaling {
  if (s.kind !== 'yarn') return s;
  const { factor, original, betaFast, betaSlow } = s;
  return {
    kind: 'yarn',
    factor,
    original,
    betaFast,
    betaSlow,
    magnitude: magnitude ? mscale(factor, s.mscale) / mscale(factor, s.mscaleAllDim) : 1,
  };
}
export interface Turn {
  readonly heads: number;
  readonly offset: number;
  readonly layout: 'interleaved' | 'half';
  readonly inverse?: boolean;
  readonly stride?: number;
}
export function rope(m: Making<ModelConfig>, name: string, x: Value, table: RopeTable, t: Turn, layer: number): Value {
  return m.b.add(
    'rope',
    name,
    { x, positions: m.inputs.positions },
    { heads: t.heads, offset: t.offset, layout: t.layout, inverse: t.inverse ?? false, stride: t.stride ?? 1, table },
    { layer },
  );
}

/** gate, up, SwiGLU, down. `prefix` is the tensors'; names of the three differ by family. */
export function mlp(
  m: Making<ModelConfig>,
  name: string,
  prefix: string,
  x: Value,
  inner: number,
  layer: number,
  key: string,
  limit: number | null = null,
  names = ['gate_proj', 'up_proj', 'down_proj'],
): Value {
  const d = m.config.hidden;
  const gate = linear(m, `${name}.gate`, x, m.w.matrix(`${prefix}.${names[0]}`, inner, d, layer, m.release, key), layer);
  const up = linear(m, `${name}.up`, x, m.w.matrix(`${prefix}.${names[1]}`, inner, d, layer, m.release, key), layer);
  const h = m.b.add('swiglu', `${name}.act`, { gate, up }, { limit }, { layer });
  return linear(m, `${name}.out`, h, m.w.matrix(`${prefix}.${names[2]}`, d, inner, layer, m.release, key), layer);
}

export interface Routing {
  readonly scoring: 'softmax' | 'sigmoid' | 'sqrtsoftplus';
  readonly groups: number;
  readonly keep: number;
  readonly by: 'max' | 'top2sum';
  readonly normalise: boolean;
  readonly scale: number;
}
export interface ExpertShape {
  readonly experts: number;
  readonly topK: number;
  readonly inner: number;
  readonly limit: number | null;
  readonly weigh: 'after' | 'before';
  readonly release: Release;
  readonly names: readonly [gate: string, up: string, down: string];
}
/** Scores, choice (or `chosen`), weights, experts. `layers.{i}.router_logits`, `.indices` and `.expert_weights` are named for checking. */
export function moe(
  m: Making<ModelConfig>,
  layer: number,
  prefix: string,
  x: Value,
  r: Routing,
  e: ExpertShape,
  bias: Value | undefined,
  chosen?: Value,
): Value {
  const at = `layers.${layer}`;
  const d = m.config.hidden;
  const logits = linear(
    m,
    `${at}.router_logits`,
    x,
    m.w.plain(`${prefix}.gate.weight`, [e.experts, d], norms, layer, 'n_routed_experts'),
    layer,
  );
  const scores = m.b.add('router_scores', `${at}.scores`, { logits }, { f: r.scoring }, { layer });
  const indices =
    chosen ??
    m.b.add(
      'choose_experts',
      `${at}.indices`,
      bias ? { scores, bias } : { scores },
      { k: e.topK, groups: r.groups, keep: r.keep, by: r.by },
      { layer },
    );
  const weights = m.b.add(
    'expert_weights',
    `${at}.expert_weights`,
    { scores, indices },
    { normalise: r.normalise, scale: r.scale },
    { layer },
  );
  const stack = (name: string, rows: number, columns: number): Weight =>
    m.w.stack(
      n => `${prefix}.experts.${n}.${name}`,
      `${prefix}.experts.${name}`,
      e.experts,
      rows,
      columns,
      layer,
      e.release,
      'moe_intermediate_size',
    );
  return m.b.add(
    'experts',
    `${at}.experts`,
    { x, indices, weights, gate: stack(e.names[0], e.inner, d), up: stack(e.names[1], e.inner, d), down: stack(e.names[2], d, e.inner) },
    { limit: e.limit, weigh: e.weigh },
    { layer },
  );
}
export const add = (m: Making<ModelConfig>, name: string, a: Value, b: Value, layer: number): Value =>
  m.b.add('add', name, { a, b }, {}, { layer });

/** Rows asked for, then the head: `name` [wanted, vocab]. */
export function logits(m: Making<ModelConfig>, name: string, hidden: Value, head: Value): Value {
  const rows = m.b.add('gather', `${name}.rows`, { table: hidden, ids: m.inputs.wanted }, {});
  return linear(m, name, rows, head, -1);
}
export const embedding = (m: Making<ModelConfig>, name: string): Weight =>
  m.w.plain(name, [m.config.vocab, m.config.hidden], norms, -1, 'vocab_size');
export type { Graph };
