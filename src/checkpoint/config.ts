// config.json: the fields that a model needs, checked one by one, each message with its line. Weights' dtypes are never taken from here.
import { type Place, type Problem, Refusal } from '../../ir/problem.js';
import { JsonError, type JsonNode, lineAt, parseJson, plainValue } from './json.js';
import * as problems from './problems.js';

export type RopeScalingConfig =
  | { readonly kind: 'none' }
  | {
      readonly kind: 'yarn';
      readonly factor: number;
      readonly original: number;
      readonly betaFast: number;
      readonly betaSlow: number;
      readonly mscale: number;
      readonly mscaleAllDim: number;
    }
  | { readonly kind: 'llama3'; readonly factor: number; readonly low: number; readonly high: number; readonly original: number };

/** What the config says of stored weights; a hint for messages and for graphs made without headers. */
export type QuantisationConfig =
  | { readonly kind: 'none' }
  | { readonly kind: 'fp8'; readonly block: readonly [number, number]; readonly scaleFormat: 'f32' | 'ue8m0' }
  | { readonly kind: 'other'; readonly method: string };

interface Common {
  /** model_type as the file says it. */
  readonly modelType: string;
  readonly hidden: number;
  readonly layers: number;
  readonly heads: number;
  readonly vocab: number;
  readonly eps: number;
  readonly ropeTheta: number;
  readonly ropeScaling: RopeScalingConfig;
  readonly maxPositions: number;
  readonly tied: boolean;
  readonly bos: readonly number[];
  readonly eos: readonly number[];
  readonly quantisation: QuantisationConfig;
  /** Where a field stands in the file, for messages. */
  readonly place: (key: string) => Place | null;
}
export interface DenseConfig extends Common {
  readonly family: 'qwen2' | 'llama';
  readonly kvHeads: number;
  readonly headDim: number;
  readonly intermediate: number;
  readonly qkvBias: boolean;
}
interface Experts {
  readonly experts: number;
  readonly sharedExperts: number;
  readonly topK: number;
  readonly moeIntermediate: number;
  readonly normTopK: boolean;
  readonly routedScale: number;
}
/** DeepSeek-MoE-16B: plain attention, softmax routing. */
export interface DeepseekMoeConfig extends Common, Experts {
  readonly family: 'deepseek';
  readonly kvHeads: number;
  readonly headDim: number;
  readonly intermediate: number;
  readonly firstDense: number;
  readonly moeEvery: number;
}
/** V2, V3, R1, V3.1, V3.2, Moonlight, Kimi-K2: multi-head latent attention. */
export interface DeepseekMlaConfig extends Common, Experts {
  readonly family: 'deepseek_v2' | 'deepseek_v3' | 'deepseek_v32';
  /** Rank of the query's down-projection; null where the query is projected at once. */
  readonly qLora: number | null;
  readonly kvLora: number;
  readonly nope: number;
  readonly rope: number;
  readonly v: number;
  readonly intermediate: number;
  readonly firstDense: number;
  readonly moeEvery: number;
  readonly scoring: 'softmax' | 'sigmoid';
  readonly topkMethod: 'greedy' | 'group_limited_greedy' | 'noaux_tc';
  readonly groups: number;
  readonly topGroups: number;
  readonly mtpLayers: number;
  /** V3.2's sparse attention. */
  readonly index: { readonly heads: number; readonly dim: number; readonly topK: number } | null;
}
export interface DeepseekV4Config extends Common, Experts {
  readonly family: 'deepseek_v4';
  readonly headDim: number;
  readonly rope: number;
  readonly qLora: number;
  readonly oLora: number;
  readonly oGroups: number;
  /** One a layer, then one an MTP block: 0 window only, 4 with index, others as they are. */
  readonly compressRatios: readonly number[];
  readonly hashLayers: number;
  readonly window: number;
  readonly swigluLimit: number | null;
  readonly hc: { readonly streams: number; readonly iterations: number; readonly eps: number };
  readonly compressTheta: number;
  readonly index: { readonly heads: number; readonly dim: number; readonly topK: number };
  readonly mtpLayers: number;
  /** fp4 or fp8 where the file says so; the April release does not. */
  readonly expertDtype: 'fp4' | 'fp8' | null;
  readonly dspark: { readonly blocks: number; readonly targets: number; readonly rank: number } | null;
}
export type ModelConfig = DenseConfig | DeepseekMoeConfig | DeepseekMlaConfig | DeepseekV4Config;
export type Family = ModelConfig['family'];

const families: Readonly<Record<string, Family>> = {
  qwen2: 'qwen2',
  llama: 'llama',
  deepseek: 'deepseek',
  deepseek_v2: 'deepseek_v2',
  deepseek_v3: 'deepseek_v3',
  kimi_k2: 'deepseek_v3',
  deepseek_v32: 'deepseek_v32',
  deepseek_v4: 'deepseek_v4',
};
export const modelTypes = Object.keys(families);

const missing = Symbol('missing');
/** Reads fields of one object and collects what is wrong with them. */
class Fields {
  readonly found: Problem[] = [];
  readonly #members: ReadonlyMap<string, JsonNode>;
  readonly #text: string;
  readonly #file: string;
  constructor(members: ReadonlyMap<string, JsonNode>, text: string, file: string, found: Problem[] = []) {
    this.#members = members;
    this.#text = text;
    this.#file = file;
    this.found = found;
  }
  place(key: string): Place | null {
    const n = this.#members.get(key);
    return n === undefined ? null : { file: this.#file, ...lineAt(this.#text, n.key ?? n.at) };
  }
  has(key: string): boolean {
    const n = this.#members.get(key);
    return n !== undefined && n.value !== null;
  }
  wrong(key: string, expected: string): void {
    const p = this.place(key);
    this.found.push(
      p?.line === undefined
        ? problems.configMissing(this.#file, key, expected)
        : problems.configValue(this.#file, key, p.shows ?? '', p.line, expected),
    );
  }
  /** A contradiction between fields, shown at one of them. */
  contradiction(key: string, what: string, why: string): void {
    const p = this.place(key);
    this.found.push(problems.configContradiction(this.#file, what, p?.line ?? 1, p?.shows ?? '', why));
  }
  unsupported(key: string, what: string): void {
    const p = this.place(key);
    this.found.push(problems.featureUnsupported(this.#file, what, p?.line ?? 1, p?.shows ?? ''));
  }
  #value(key: string): JsonNode['value'] | typeof missing {
    const n = this.#members.get(key);
    return n === undefined ? missing : n.value;
  }
  /** A whole number from least to most. */
  whole(key: string, least = 1, most = 2 ** 31 - 1, fallback?: number): number {
    const v = this.#value(key);
    if ((v === missing || v === null) && fallback !== undefined) return fallback;
    if (typeof v === 'number' && Number.isInteger(v) && v >= least && v <= most) return v;
    this.wrong(key, `a whole number from ${least} to ${most}`);
    return Math.max(least, 1);
  }
  real(key: string, test: (v: number) => boolean, expected: string, fallback?: number): number {
    const v = this.#value(key);
    if ((v === missing || v === null) && fallback !== undefined) return fallback;
    if (typeof v === 'number' && test(v)) return v;
    this.wrong(key, expected);
    return 1;
  }
  flag(key: string, fallback?: boolean): boolean {
    const v = this.#value(key);
    if ((v === missing || v === null) && fallback !== undefined) return fallback;
    if (typeof v === 'boolean') return v;
    this.wrong(key, 'true or false');
    return false;
  }
  word<T extends string>(key: string, words: readonly T[], fallback?: T): T {
    const v = this.#value(key);
    if ((v === missing || v === null) && fallback !== undefined) return fallback;
    if (typeof v === 'string' && (words as readonly string[]).includes(v)) return v as T;
    this.wrong(key, words.map(w => JSON.stringify(w)).join(' or '));
    return words[0] as T;
  }
  ids(key: string): readonly number[] {
    const v = this.#value(key);
    if (v === missing || v === null) return [];
    const list = Array.isArray(v) ? (v as readonly JsonNode[]).map(n => n.value) : [v];
    if (list.every(i => typeof i === 'number' && Number.isInteger(i) && i >= 0 && i < 2 ** 31)) return list as readonly number[];
    this.wrong(key, 'a token id or a list of them');
    return [];
  }
  wholes(key: string, expected: string): readonly number[] {
    const v = this.#value(key);
    const list = Array.isArray(v) ? (v as readonly JsonNode[]).map(n => n.value) : [Number.NaN];
    if (list.every(i => typeof i === 'number' && Number.isInteger(i) && i >= 0 && i < 2 ** 31)) return list as readonly number[];
    this.wrong(key, expected);
    return [];
  }
  object(key: string): Fields | null {
    const n = this.#members.get(key);
    if (n === undefined || n.value === null) return null;
    if (n.value instanceof Map) return new Fields(n.value as ReadonlyMap<string, JsonNode>, this.#text, this.#file, this.found);
    this.wrong(key, 'an object');
    return null;
  }
  text(key: string): string | null {
    const v = this.#value(key);
    return typeof v === 'string' ? v : null;
  }
  plain(key: string): unknown {
    const n = this.#members.get(key);
    return n === undefined ? undefined : plainValue(n);
  }
}

const positive = (v: number): boolean => v > 0;
const positives = 'a number above 0';

function ropeScaling(f: Fields): RopeScalingConfig {
  const s = f.object('rope_scaling');
  if (s === null) return { kind: 'none' };
  const key = s.has('rope_type') ? 'rope_type' : 'type';
  const kind = s.text(key);
  if (kind === 'yarn')
    return {
      kind,
      factor: s.real('factor', positive, positives),
      original: s.whole('original_max_position_embeddings'),
      betaFast: s.real('beta_fast', positive, positives, 32),
      betaSlow: s.real('beta_slow', positive, positives, 1),
      mscale: s.real('mscale', v => v >= 0, 'a number of 0 or more', 1),
      mscaleAllDim: s.real('mscale_all_dim', v => v >= 0, 'a number of 0 or more', 0),
    };
  if (kind === 'llama3')
    return {
      kind,
      factor: s.real('factor', positive, positives),
      low: s.real('low_freq_factor', positive, positives),
      high: s.real('high_freq_factor', positive, positives),
      original: s.whole('original_max_position_embeddings'),
    };
  if (kind === 'default') return { kind: 'none' };
  s.wrong(key, '"yarn", "llama3" or "default"');
  return { kind: 'none' };
}

function quantisation(f: Fields): QuantisationConfig {
  const q = f.object('quantization_config') ?? f.object('compression_config');
  if (q === null) return { kind: 'none' };
  const method = q.text('quant_method') ?? q.text('format');
  if (method === null) {
    q.wrong('quant_method', 'the name of a method');
    return { kind: 'none' };
  }
  if (method !== 'fp8') return { kind: 'other', method };
  const block = q.wholes('weight_block_size', 'a pair such as [128, 128]');
  if (block.length !== 2 || block.some(b => b === 0)) q.wrong('weight_block_size', 'a pair such as [128, 128]');
  return { kind: 'fp8', block: [block[0] ?? 128, block[1] ?? 128], scaleFormat: q.text('scale_fmt') === 'ue8m0' ? 'ue8m0' : 'f32' };
}

function experts(f: Fields, scale?: number): Experts {
  const e: Experts = {
    experts: f.whole('n_routed_experts', 1, 65536),
    sharedExperts: f.whole('n_shared_experts', 0, 1024, 0),
    topK: f.whole('num_experts_per_tok', 1, 1024),
    moeIntermediate: f.whole('moe_intermediate_size'),
    normTopK: f.flag('norm_topk_prob', false),
    routedScale: f.real('routed_scaling_factor', positive, positives, scale ?? 1),
  };
  if (e.topK > e.experts)
    f.contradiction('num_experts_per_tok', `${e.topK} experts a token are more than there are`, `n_routed_experts is ${e.experts}.`);
  return e;
}
function even(f: Fields, key: string, n: number): void {
  if (n % 2 !== 0) f.contradiction(key, `${n} dimensions cannot turn in pairs`, 'Rotary dimensions come in pairs.');
}

/** Read config.json. `file` is its name in messages. Throws a Refusal with every field that is wrong. */
export function parseConfig(text: string, file: string): ModelConfig {
  let root: JsonNode;
  try {
    root = parseJson(text);
  } catch (e) {
    if (!(e instanceof JsonError)) throw e;
    const { line, shows } = lineAt(text, e.at);
    throw new Refusal([problems.configNotJson(file, e.message, line, shows)]);
  }
  if (!(root.value instanceof Map))
    throw new Refusal([problems.configNotJson(file, 'it is not an object', 1, lineAt(text, root.at).shows)]);
  const outer = new Fields(root.value as ReadonlyMap<string, JsonNode>, text, file);
  const nested = outer.has('text_config') ? outer.object('text_config') : null;
  if (outer.found.length) throw new Refusal(outer.found);
  const f = nested ?? outer;
  const outerType = outer.text('model_type');
  const type = (nested?.text('model_type') ?? outerType ?? '') || '';
  const family = Object.hasOwn(families, type) ? families[type] : undefined;
  if (family === undefined) {
    const p = (nested?.has('model_type') ? nested : outer).place('model_type') ?? outer.place('architectures');
    if (p === null) throw new Refusal([problems.configMissing(file, 'model_type', `one of ${modelTypes.join(', ')}`)]);
    throw new Refusal([problems.architectureUnknown(file, p.line ?? 1, p.shows ?? '', modelTypes)]);
  }
  const act = f.text('hidden_act');
  if (act !== null && act !== 'silu') f.unsupported('hidden_act', `the activation ${act} is not one that these models use`);
  if (f.has('attention_bias') && f.plain('attention_bias') === true)
    f.unsupported('attention_bias', 'attention_bias is not something that hkgai compiles');
  if (f.has('mlp_bias') && f.plain('mlp_bias') === true) f.unsupported('mlp_bias', 'mlp_bias is not something that hkgai compiles');
  if (f.has('use_mrope') && f.plain('use_mrope') === true)
    f.unsupported('use_mrope', 'multimodal rope is not something that hkgai compiles');
  if (f.has('use_sliding_window') && f.plain('use_sliding_window') === true)
    f.unsupported('use_sliding_window', 'a sliding window in Qwen2 is not something that hkgai compiles');
  const common: Common = {
    modelType: outerType ?? type,
    hidden: f.whole('hidden_size', 1, 1 << 20),
    layers: f.whole('num_hidden_layers', 1, 4096),
    heads: f.whole('num_attention_heads', 1, 65536),
    vocab: f.whole('vocab_size', 1, 1 << 24),
    eps: f.real('rms_norm_eps', v => v > 0 && v < 1, 'a number between 0 and 1', 1e-6),
    ropeTheta: f.real('rope_theta', v => v > 1, 'a number above 1', 10000),
    ropeScaling: ropeScaling(f),
    maxPositions: f.whole('max_position_embeddings'),
    tied: f.flag('tie_word_embeddings', false),
    bos: f.has('bos_token_id') ? f.ids('bos_token_id') : outer.ids('bos_token_id'),
    eos: f.has('eos_token_id') ? f.ids('eos_token_id') : outer.ids('eos_token_id'),
    quantisation: quantisation(f.has('quantization_config') ? f : outer),
    place: key => f.place(key) ?? outer.place(key),
  };
  const config =
    family === 'qwen2' || family === 'llama'
      ? dense(f, common, family)
      : family === 'deepseek'
        ? moe16b(f, common)
        : family === 'deepseek_v4'
          ? v4(f, common)
          : mla(f, common, family);
  const found = [...f.found, ...(outer === f ? [] : outer.found)];
  // a contradiction with a field that could not be read is none
  const unread = found.filter(p => p.code !== 'HK3204');
  if (found.length) throw new Refusal(unread.length ? unread : found);
  return config;
}

function plainHeads(f: Fields, c: Common): { readonly kvHeads: number; readonly headDim: number } {
  const kvHeads = f.whole('num_key_value_heads', 1, 65536, c.heads);
  if (c.heads % kvHeads !== 0)
    f.contradiction(
      'num_key_value_heads',
      `${c.heads} heads cannot share ${kvHeads} key-value heads equally`,
      `num_attention_heads is ${c.heads}.`,
    );
  if (!f.has('head_dim') && c.hidden % c.heads !== 0)
    f.contradiction('hidden_size', `${c.hidden} cannot be divided among ${c.heads} heads`, 'There is no head_dim that says otherwise.');
  const headDim = f.whole('head_dim', 1, 65536, Math.max(1, Math.floor(c.hidden / c.heads)));
  even(f, f.has('head_dim') ? 'head_dim' : 'hidden_size', headDim);
  return { kvHeads, headDim };
}
function dense(f: Fields, c: Common, family: 'qwen2' | 'llama'): DenseConfig {
  return { ...c, family, ...plainHeads(f, c), intermediate: f.whole('intermediate_size'), qkvBias: family === 'qwen2' };
}
function layersSplit(f: Fields, c: Common): { readonly firstDense: number; readonly moeEvery: number; readonly intermediate: number } {
  return {
    firstDense: f.whole('first_k_dense_replace', 0, c.layers, 0),
    moeEvery: f.whole('moe_layer_freq', 1, 4096, 1),
    intermediate: f.whole('intermediate_size'),
  };
}
function moe16b(f: Fields, c: Common): DeepseekMoeConfig {
  return { ...c, family: 'deepseek', ...plainHeads(f, c), ...experts(f), ...layersSplit(f, c) };
}

function index(f: Fields): { readonly heads: number; readonly dim: number; readonly topK: number } {
  return { heads: f.whole('index_n_heads', 1, 65536), dim: f.whole('index_head_dim', 1, 65536), topK: f.whole('index_topk') };
}
function mla(f: Fields, c: Common, family: DeepseekMlaConfig['family']): DeepseekMlaConfig {
  const e = experts(f);
  const v2 = family === 'deepseek_v2';
  const topkMethod = f.word('topk_method', ['greedy', 'group_limited_greedy', 'noaux_tc'], v2 ? 'greedy' : 'noaux_tc');
  const groups = f.whole('n_group', 1, 65536, 1);
  const topGroups = f.whole('topk_group', 1, 65536, 1);
  if (e.experts % groups !== 0)
    f.contradiction('n_group', `${e.experts} experts cannot form ${groups} equal groups`, `n_routed_experts is ${e.experts}.`);
  if (topGroups > groups) f.contradiction('topk_group', `${topGroups} groups cannot be kept of ${groups}`, `n_group is ${groups}.`);
  else if (topkMethod !== 'greedy' && e.experts % groups === 0 && e.topK > (e.experts / groups) * topGroups)
    f.contradiction(
      'num_experts_per_tok',
      `${e.topK} experts cannot be chosen from ${topGroups} groups of ${e.experts / groups}`,
      `topk_group is ${topGroups}.`,
    );
  if (topkMethod === 'noaux_tc' && groups > 1 && e.experts / groups < 2)
    f.contradiction(
      'n_group',
      `groups of ${e.experts / groups} expert have no two best`,
      'noaux_tc ranks a group by its two best experts.',
    );
  const rope = f.whole('qk_rope_head_dim', 2, 65536);
  even(f, 'qk_rope_head_dim', rope);
  const scoring = f.word('scoring_func', ['softmax', 'sigmoid'], v2 ? 'softmax' : 'sigmoid');
  const config: DeepseekMlaConfig = {
    ...c,
    family,
    ...e,
    ...layersSplit(f, c),
    qLora: f.has('q_lora_rank') ? f.whole('q_lora_rank') : null,
    kvLora: f.whole('kv_lora_rank'),
    nope: f.whole('qk_nope_head_dim', 1, 65536),
    rope,
    v: f.whole('v_head_dim', 1, 65536),
    scoring,
    topkMethod,
    groups,
    topGroups,
    mtpLayers: f.whole('num_nextn_predict_layers', 0, 64, 0),
    index: family === 'deepseek_v32' ? index(f) : null,
  };
  if (config.index && config.qLora === null) f.contradiction('index_topk', 'an index needs the query latent', 'q_lora_rank is absent.');
  if (config.index && config.index.dim < rope)
    f.contradiction('index_head_dim', `${config.index.dim} dimensions cannot hold ${rope} rotary ones`, `qk_rope_head_dim is ${rope}.`);
  return config;
}

function v4(f: Fields, c: Common): DeepseekV4Config {
  const mtpLayers = f.whole('num_nextn_predict_layers', 0, 64, 0);
  const rope = f.whole('qk_rope_head_dim', 2, 65536);
  even(f, 'qk_rope_head_dim', rope);
  const headDim = f.whole('head_dim', 2, 65536);
  if (rope > headDim)
    f.contradiction('qk_rope_head_dim', `${rope} rotary dimensions do not fit a head of ${headDim}`, `head_dim is ${headDim}.`);
  const compressRatios = f.wholes('compress_ratios', 'a list with one ratio a layer');
  const targets = f.has('dspark_target_layer_ids') ? f.wholes('dspark_target_layer_ids', 'a list of layers') : null;
  const extra = compressRatios.length - c.layers;
  if (f.has('compress_ratios') && extra < (targets ? 0 : mtpLayers))
    f.contradiction(
      'compress_ratios',
      `${compressRatios.length} ratios for ${c.layers} layers and ${mtpLayers} MTP blocks`,
      'There is one for each.',
    );
  const oGroups = f.whole('o_groups', 1, 65536);
  if (c.heads % oGroups !== 0)
    f.contradiction('o_groups', `${c.heads} heads cannot form ${oGroups} equal groups`, `num_attention_heads is ${c.heads}.`);
  const kv = f.whole('num_key_value_heads', 1, 65536, 1);
  if (kv !== 1)
    f.contradiction(
      'num_key_value_heads',
      `V4 attention has one key-value head, not ${kv}`,
      'Keys and values are one vector for all heads.',
    );
  const q = f.object('quantization_config');
  const expertDtype = f.has('expert_dtype')
    ? f.word('expert_dtype', ['fp4', 'fp8'])
    : q?.has('expert_dtype')
      ? q.word('expert_dtype', ['fp4', 'fp8'])
      : null;
  f.word('scoring_func', ['sqrtsoftplus'], 'sqrtsoftplus');
  const i = index(f);
  if (i.dim < rope)
    f.contradiction('index_head_dim', `${i.dim} dimensions cannot hold ${rope} rotary ones`, `qk_rope_head_dim is ${rope}.`);
  return {
    ...c,
    family: 'deepseek_v4',
    ...experts(f),
    headDim,
    rope,
    oGroups,
    compressRatios,
    mtpLayers,
    expertDtype,
    index: i,
    qLora: f.whole('q_lora_rank'),
    oLora: f.whole('o_lora_rank'),
    hashLayers: f.whole('num_hash_layers', 0, 4096, 0),
    window: f.whole('sliding_window'),
    swigluLimit: f.has('swiglu_limit') ? f.real('swiglu_limit', positive, positives) : null,
    hc: {
      streams: f.whole('hc_mult', 1, 64),
      iterations: f.whole('hc_sinkhorn_iters', 1, 1000),
      eps: f.real('hc_eps', v => v >= 0, 'a number of 0 or more', 1e-6),
    },
    compressTheta: f.real('compress_rope_theta', v => v > 1, 'a number above 1', c.ropeTheta),
    dspark: targets === null ? null : { blocks: Math.max(0, extra), targets: targets.length, rank: f.whole('dspark_markov_rank') },
  };
}
