// What llama.cpp's loaders want of a GGUF's keys and tensors, told from their side: from keys to tensors, not from a checkpoint.
// ggml-org/llama.cpp@3f545bec src/models/*.cpp (load_arch_hparams, load_arch_tensors), src/llama-model.cpp:1100-1170; deepseek4: @00395eb2 src/models/deepseek4.cpp:18-170.
import type { GgufTypeName, GgufValue } from './gguf.js';

export type Keys = ReadonlyMap<string, GgufValue>;
export type KeyType = 'u32' | 'f32' | 'bool' | 'string' | 'i32[]' | 'f32[]';
export interface WantedKey {
  readonly type: KeyType;
  readonly optional?: true;
  /** What is wrong with a value, as the end of a sentence. */
  readonly bad?: (v: number) => string | null;
}
export interface WantedTensor {
  readonly dims: readonly number[];
  readonly types: readonly GgufTypeName[];
  readonly optional?: true;
}
/** A sentence about keys that do not agree, and which rule they break. */
export interface Disagreement {
  readonly rule: 'L11' | 'L12' | 'L13';
  readonly key: string;
  readonly what: string;
}
export interface Architecture {
  readonly keys: Readonly<Record<string, WantedKey>>;
  readonly disagree: (n: Numbers) => readonly Disagreement[];
  readonly tensors: (n: Numbers) => ReadonlyMap<string, WantedTensor>;
}

const matrix: readonly GgufTypeName[] = ['F32', 'F16', 'BF16', 'Q8_0', 'Q4_0', 'MXFP4'];
const vector: readonly GgufTypeName[] = ['F32'];
const count: WantedKey = { type: 'u32', bad: v => (v >= 1 ? null : 'is to be at least 1') };
const positive: WantedKey = { type: 'f32', bad: v => (v > 0 && Number.isFinite(v) ? null : 'is to be above 0 and finite') };
const finite: WantedKey = { type: 'f32', bad: v => (Number.isFinite(v) ? null : 'is to be finite') };
const any: WantedKey = { type: 'u32' };
const flag: WantedKey = { type: 'bool' };
const maybe = (k: WantedKey): WantedKey => ({ ...k, optional: true });

/** Numbers of an architecture's keys; NaN where one is not there. */
export class Numbers {
  readonly #keys: Keys;
  readonly arch: string;
  constructor(keys: Keys, arch: string) {
    this.#keys = keys;
    this.arch = arch;
  }
  of(key: string, otherwise = Number.NaN): number {
    const v = this.#keys.get(`${this.arch}.${key}`);
    return v !== undefined && typeof v.value === 'number' ? v.value : otherwise;
  }
  has(key: string): boolean {
    return this.#keys.has(`${this.arch}.${key}`);
  }
  text(key: string): string | null {
    const v = this.#keys.get(`${this.arch}.${key}`);
    return v?.type === 'string' ? v.value : null;
  }
  list(key: string): readonly number[] {
    const v = this.#keys.get(`${this.arch}.${key}`);
    return v?.type === 'array' && (v.of === 'i32' || v.of === 'f32') ? v.value : [];
  }
}

const base: Readonly<Record<string, WantedKey>> = {
  vocab_size: count,
  context_length: count,
  embedding_length: count,
  block_count: count,
  'attention.head_count': count,
  'attention.head_count_kv': count,
  'attention.key_length': count,
  'attention.value_length': count,
  'attention.layer_norm_rms_epsilon': positive,
  'rope.dimension_count': count,
  'rope.freq_base': positive,
  'rope.scaling.type': maybe({ type: 'string' }),
  'rope.scaling.factor': maybe(positive),
  'rope.scaling.original_context_length': maybe(count),
  'rope.scaling.yarn_beta_fast': maybe(finite),
  'rope.scaling.yarn_beta_slow': maybe(finite),
};
const experts: Readonly<Record<string, WantedKey>> = {
  expert_count: count,
  expert_used_count: count,
  expert_shared_count: count,
  expert_feed_forward_length: count,
};
const latentKeys: Readonly<Record<string, WantedKey>> = {
  ...base,
  ...experts,
  feed_forward_length: count,
  leading_dense_block_count: any,
  expert_weights_scale: finite,
  expert_weights_norm: flag,
  expert_gating_func: { type: 'u32', bad: v => (v === 1 || v === 2 ? null : 'is to be 1 (softmax) or 2 (sigmoid)') },
  expert_group_count: maybe(count),
  expert_group_used_count: maybe(count),
  'attention.q_lora_rank': maybe(count),
  'attention.kv_lora_rank': count,
  'attention.key_length_mla': count,
  'attention.value_length_mla': count,
  'rope.scaling.yarn_log_multiplier': maybe(finite),
  nextn_predict_layers: maybe(count),
};
const indexKeys: Readonly<Record<string, WantedKey>> = {
  'attention.indexer.head_count': count,
  'attention.indexer.key_length': count,
  'attention.indexer.top_k': count,
};

class Disagreements {
  readonly all: Disagreement[] = [];
  readonly #arch: string;
  constructor(n: Numbers) {
    this.#arch = n.arch;
  }
  /** Says so unless it holds; a comparison with a key that is not there says nothing. */
  wants(holds: boolean, rule: Disagreement['rule'], key: string, what: string): void {
    if (!holds) this.all.push({ rule, key: `${this.#arch}.${key}`, what: `${this.#arch}.${key} ${what}` });
  }
}
const known = (...v: readonly number[]): boolean => v.every(x => !Number.isNaN(x));

function ropeAgrees(d: Disagreements, n: Numbers, most: number): void {
  const dims = n.of('rope.dimension_count');
  d.wants(!known(dims) || dims % 2 === 0, 'L13', 'rope.dimension_count', `is ${dims}, an odd number`);
  d.wants(!known(dims, most) || dims <= most, 'L13', 'rope.dimension_count', `is ${dims}, more than the ${most} columns of a head`);
  const kind = n.text('rope.scaling.type');
  d.wants(
    kind === null || kind === 'linear' || kind === 'yarn',
    'L13',
    'rope.scaling.type',
    `is ${JSON.stringify(kind)}, not "linear" or "yarn"`,
  );
  const want = (key: string, when: boolean): void =>
    d.wants(n.has(key) === when, 'L13', key, when ? `is wanted with scaling ${JSON.stringify(kind)}` : 'has no place without its scaling');
  want('rope.scaling.factor', kind === 'linear' || kind === 'yarn');
  want('rope.scaling.original_context_length', kind === 'yarn');
  for (const key of ['yarn_beta_fast', 'yarn_beta_slow', 'yarn_log_multiplier']) if (kind !== 'yarn') want(`rope.scaling.${key}`, false);
}
function expertsAgree(d: Disagreements, n: Numbers, main: number): void {
  const [all, used] = [n.of('expert_count'), n.of('expert_used_count')];
  d.wants(!known(all, used) || used <= all, 'L11', 'expert_used_count', `is ${used}, and there are ${all} experts`);
  const dense = n.of('leading_dense_block_count', 0);
  d.wants(!known(main) || dense <= main, 'L11', 'leading_dense_block_count', `is ${dense}, and there are ${main} layers`);
  const [groups, chosen] = [n.of('expert_group_count'), n.of('expert_group_used_count')];
  d.wants(
    n.has('expert_group_count') === n.has('expert_group_used_count'),
    'L11',
    'expert_group_used_count',
    'and expert_group_count stand together or not at all',
  );
  if (!known(groups, chosen)) return;
  d.wants(chosen < groups, 'L11', 'expert_group_used_count', `is ${chosen}, not less than the ${groups} groups`);
  d.wants(
    groups < all && all % groups === 0,
    'L11',
    'expert_group_count',
    `is ${groups}, which does not divide ${all} experts into several each`,
  );
}
const headsAgree = (d: Disagreements, n: Numbers): void => {
  const [heads, kv] = [n.of('attention.head_count'), n.of('attention.head_count_kv')];
  d.wants(!known(heads, kv) || heads % kv === 0, 'L11', 'attention.head_count_kv', `is ${kv}, which does not divide ${heads} heads`);
};

/** Layers of attention with keys and values of their own. */
function plain(arch: 'llama' | 'qwen2' | 'deepseek'): Architecture {
  const moe = arch === 'deepseek';
  const keys = {
    ...base,
    feed_forward_length: count,
    ...(moe ? { ...experts, leading_dense_block_count: any, expert_weights_scale: finite } : {}),
  };
  return {
    keys,
    disagree(n) {
      const d = new Disagreements(n);
      headsAgree(d, n);
      const [k, v] = [n.of('attention.key_length'), n.of('attention.value_length')];
      d.wants(!known(k, v) || k === v, 'L11', 'attention.value_length', `is ${v}, and keys have ${k}`);
      if (moe) expertsAgree(d, n, n.of('block_count'));
      ropeAgrees(d, n, k);
      return d.all;
    },
    tensors(n) {
      const t = new Map<string, WantedTensor>();
      const embed = n.of('embedding_length');
      const [heads, kv, head, value] = [
        'attention.head_count',
        'attention.head_count_kv',
        'attention.key_length',
        'attention.value_length',
      ].map(k => n.of(k)) as [number, number, number, number];
      ends(t, n, arch !== 'deepseek');
      if (arch === 'llama') t.set('rope_freqs.weight', { dims: [n.of('rope.dimension_count') / 2], types: vector, optional: true });
      for (let i = 0; i < n.of('block_count'); i++) {
        const put = putter(t, i);
        put('attn_norm.weight', [embed], vector);
        put('attn_q.weight', [embed, heads * head]);
        put('attn_k.weight', [embed, kv * head]);
        put('attn_v.weight', [embed, kv * value]);
        put('attn_output.weight', [heads * value, embed]);
        if (arch !== 'deepseek') {
          put('attn_q.bias', [heads * head], vector, arch === 'llama');
          put('attn_k.bias', [kv * head], vector, arch === 'llama');
          put('attn_v.bias', [kv * value], vector, arch === 'llama');
          put('attn_output.bias', [embed], vector, true);
        }
        put('ffn_norm.weight', [embed], vector);
        if (moe && i >= n.of('leading_dense_block_count', 0)) routed(put, n, embed);
        else dense(put, n, embed, arch === 'llama');
      }
      return t;
    },
  };
}

type Put = (name: string, dims: readonly number[], types?: readonly GgufTypeName[], optional?: boolean) => void;
const putter =
  (t: Map<string, WantedTensor>, layer: number): Put =>
  (name, dims, types = matrix, optional = false) =>
    t.set(`blk.${layer}.${name}`, { dims, types, ...(optional ? { optional } : {}) });
function ends(t: Map<string, WantedTensor>, n: Numbers, tied: boolean): void {
  const [embed, vocab] = [n.of('embedding_length'), n.of('vocab_size')];
  t.set('token_embd.weight', { dims: [embed, vocab], types: matrix });
  t.set('output_norm.weight', { dims: [embed], types: vector });
  t.set('output.weight', { dims: [embed, vocab], types: matrix, ...(tied ? { optional: true } : {}) });
}
function dense(put: Put, n: Numbers, embed: number, biases: boolean): void {
  const feed = n.of('feed_forward_length');
  for (const part of ['gate', 'up', 'down']) {
    put(`ffn_${part}.weight`, part === 'down' ? [feed, embed] : [embed, feed]);
    if (biases) put(`ffn_${part}.bias`, [part === 'down' ? embed : feed], vector, true);
  }
}
function routed(put: Put, n: Numbers, embed: number): void {
  const [all, feed, shared] = ['expert_count', 'expert_feed_forward_length', 'expert_shared_count'].map(k => n.of(k)) as [
    number,
    number,
    number,
  ];
  put('ffn_gate_inp.weight', [embed, all], vector);
  for (const part of ['gate', 'up', 'down']) {
    const sides = (w: number): readonly [number, number] => (part === 'down' ? [w, embed] : [embed, w]);
    put(`ffn_${part}_exps.weight`, [...sides(feed), all]);
    put(`ffn_${part}_shexp.weight`, sides(feed * shared));
  }
}

/** Latent attention: deepseek2, and deepseek32 with an index over the entries. */
function latent(arch: 'deepseek2' | 'deepseek32'): Architecture {
  const sparse = arch === 'deepseek32';
  const main = (n: Numbers): number => n.of('block_count') - n.of('nextn_predict_layers', 0);
  return {
    keys: { ...latentKeys, ...(sparse ? indexKeys : {}) },
    disagree(n) {
      const d = new Disagreements(n);
      const [lora, dims] = [n.of('attention.kv_lora_rank'), n.of('rope.dimension_count')];
      const eq = (key: string, want: number, why: string): void =>
        d.wants(!known(n.of(key), want) || n.of(key) === want, 'L11', key, `is ${n.of(key)}, not ${want}: ${why}`);
      eq('attention.head_count_kv', 1, 'all heads share one entry');
      eq('attention.key_length', lora + dims, 'kv_lora_rank and the rotated columns');
      eq('attention.value_length', lora, 'kv_lora_rank');
      const mla = n.of('attention.key_length_mla');
      d.wants(!known(mla, dims) || mla > dims, 'L11', 'attention.key_length_mla', `is ${mla}, and ${dims} of them are rotated`);
      expertsAgree(d, n, main(n));
      d.wants(!known(main(n)) || main(n) >= 1, 'L11', 'nextn_predict_layers', `leaves ${main(n)} layers`);
      // sizes that are loaded without low-rank queries (deepseek2.cpp:7-14)
      const lite = !sparse && ([26, 27].includes(main(n)) || (main(n) === 48 && n.of('vocab_size') === 128256));
      const has = n.has('attention.q_lora_rank');
      d.wants(
        has !== lite,
        'L12',
        'attention.q_lora_rank',
        lite ? `is not read in a model of ${main(n)} layers` : `is wanted in a model of ${main(n)} layers`,
      );
      ropeAgrees(d, n, mla);
      return d.all;
    },
    tensors(n) {
      const t = new Map<string, WantedTensor>();
      const embed = n.of('embedding_length');
      const [heads, lora, q, dims, mla, value] = [
        'attention.head_count',
        'attention.kv_lora_rank',
        'attention.q_lora_rank',
        'rope.dimension_count',
        'attention.key_length_mla',
        'attention.value_length_mla',
      ].map(k => n.of(k)) as [number, number, number, number, number, number];
      ends(t, n, true);
      for (let i = 0; i < n.of('block_count'); i++) {
        const put = putter(t, i);
        put('attn_norm.weight', [embed], vector);
        if (n.has('attention.q_lora_rank')) {
          put('attn_q_a.weight', [embed, q]);
          put('attn_q_a_norm.weight', [q], vector);
          put('attn_q_b.weight', [q, heads * mla]);
        } else put('attn_q.weight', [embed, heads * mla]);
        put('attn_kv_a_mqa.weight', [embed, lora + dims]);
        put('attn_kv_a_norm.weight', [lora], vector);
        put('attn_k_b.weight', [mla - dims, lora, heads]);
        put('attn_v_b.weight', [lora, value, heads]);
        put('attn_output.weight', [heads * value, embed]);
        if (sparse) {
          const [indexHeads, width] = [n.of('attention.indexer.head_count'), n.of('attention.indexer.key_length')];
          put('indexer.attn_q_b.weight', [q, indexHeads * width]);
          put('indexer.attn_k.weight', [embed, width]);
          put('indexer.k_norm.weight', [width], vector);
          put('indexer.k_norm.bias', [width], vector);
          put('indexer.proj.weight', [embed, indexHeads]);
        }
        put('ffn_norm.weight', [embed], vector);
        if (i < n.of('leading_dense_block_count', 0)) dense(put, n, embed, false);
        else {
          routed(put, n, embed);
          put('exp_probs_b.bias', [n.of('expert_count')], vector, true);
        }
        if (i < main(n)) continue;
        put('nextn.eh_proj.weight', [2 * embed, embed]);
        put('nextn.enorm.weight', [embed], vector);
        put('nextn.hnorm.weight', [embed], vector);
        put('nextn.embed_tokens.weight', [embed, n.of('vocab_size')], matrix, true);
        put('nextn.shared_head_head.weight', [embed, n.of('vocab_size')], matrix, true);
        put('nextn.shared_head_norm.weight', [embed], vector, true);
      }
      return t;
    },
  };
}

/** V4: streams mixed by hyper-connections, a window beside compressed entries. */
const streams: Architecture = {
  keys: {
    ...base,
    ...experts,
    ...indexKeys,
    expert_weights_scale: finite,
    expert_weights_norm: flag,
    expert_gating_func: { type: 'u32', bad: v => (v === 4 ? null : 'is to be 4 (sqrtsoftplus)') },
    hash_layer_count: any,
    swiglu_clamp_exp: { type: 'f32[]', bad: v => (v > 0 ? null : 'is to be above 0') },
    'attention.sliding_window': count,
    'attention.q_lora_rank': count,
    'attention.output_lora_rank': count,
    'attention.output_group_count': count,
    'attention.compress_ratios': { type: 'i32[]', bad: v => ([0, 4, 128].includes(v) ? null : 'is to be 0, 4 or 128') },
    'attention.compress_rope_freq_base': positive,
    'hyper_connection.count': { type: 'u32', bad: v => (v === 4 ? null : 'is to be 4') },
    'hyper_connection.sinkhorn_iterations': count,
    'hyper_connection.epsilon': positive,
  },
  disagree(n) {
    const d = new Disagreements(n);
    const layers = n.of('block_count');
    const head = n.of('attention.key_length');
    const eq = (key: string, want: number, why: string): void =>
      d.wants(!known(n.of(key), want) || n.of(key) === want, 'L11', key, `is ${n.of(key)}, not ${want}: ${why}`);
    eq('attention.head_count_kv', 1, 'all heads share one entry');
    eq('attention.value_length', head, 'an entry is key and value');
    for (const key of ['attention.compress_ratios', 'swiglu_clamp_exp'])
      d.wants(!n.has(key) || n.list(key).length === layers, 'L11', key, `has ${n.list(key).length} entries for ${layers} layers`);
    d.wants(
      n.of('hash_layer_count', 0) <= layers,
      'L11',
      'hash_layer_count',
      `is ${n.of('hash_layer_count')}, and there are ${layers} layers`,
    );
    const [heads, groups] = [n.of('attention.head_count'), n.of('attention.output_group_count')];
    d.wants(
      !known(heads, groups) || heads % groups === 0,
      'L11',
      'attention.output_group_count',
      `is ${groups}, which does not divide ${heads} heads`,
    );
    expertsAgree(d, n, layers);
    ropeAgrees(d, n, head);
    return d.all;
  },
  tensors(n) {
    const t = new Map<string, WantedTensor>();
    const embed = n.of('embedding_length');
    const [heads, head, q, groups, outLora, hc] = [
      'attention.head_count',
      'attention.key_length',
      'attention.q_lora_rank',
      'attention.output_group_count',
      'attention.output_lora_rank',
      'hyper_connection.count',
    ].map(k => n.of(k)) as [number, number, number, number, number, number];
    const [indexHeads, width] = [n.of('attention.indexer.head_count'), n.of('attention.indexer.key_length')];
    const mix = (2 + hc) * hc;
    const ratios = n.list('attention.compress_ratios');
    ends(t, n, false);
    t.set('output_hc_fn.weight', { dims: [hc * embed, hc], types: vector });
    t.set('output_hc_base.weight', { dims: [hc], types: vector });
    t.set('output_hc_scale.weight', { dims: [1], types: vector });
    for (let i = 0; i < n.of('block_count'); i++) {
      const put = putter(t, i);
      const ratio = ratios[i] ?? 0;
      put('attn_norm.weight', [embed], vector);
      put('attn_sinks.weight', [heads], vector);
      put('attn_q_a.weight', [embed, q]);
      put('attn_q_a_norm.weight', [q], vector);
      put('attn_q_b.weight', [q, heads * head]);
      put('attn_kv.weight', [embed, head]);
      put('attn_kv_a_norm.weight', [head], vector);
      put('attn_output_a.weight', [(heads * head) / groups, outLora * groups]);
      put('attn_output_b.weight', [outLora * groups, embed]);
      for (const block of ['attn', 'ffn']) {
        put(`hc_${block}_fn.weight`, [hc * embed, mix], vector);
        put(`hc_${block}_base.weight`, [mix], vector);
        put(`hc_${block}_scale.weight`, [3], vector);
      }
      const compressor = (name: string, columns: number, wide: number): void => {
        put(`${name}_kv.weight`, [embed, wide]);
        put(`${name}_gate.weight`, [embed, wide]);
        put(`${name}_ape.weight`, [wide, ratio], vector);
        put(`${name}_norm.weight`, [columns], vector);
      };
      if (ratio !== 0) compressor('attn_compressor', head, ratio === 4 ? 2 * head : head);
      if (ratio === 4) {
        put('indexer.proj.weight', [embed, indexHeads]);
        put('indexer.attn_q_b.weight', [q, indexHeads * width]);
        compressor('indexer_compressor', width, 2 * width);
      }
      put('ffn_norm.weight', [embed], vector);
      routed(put, n, embed);
      if (i < n.of('hash_layer_count', 0)) put('ffn_gate_tid2eid.weight', [n.of('expert_used_count'), n.of('vocab_size')], ['I32']);
      else put('exp_probs_b.bias', [n.of('expert_count')], vector);
    }
    return t;
  },
};

export const architectures: Readonly<Record<string, Architecture>> = {
  llama: plain('llama'),
  qwen2: plain('qwen2'),
  deepseek: plain('deepseek'),
  deepseek2: latent('deepseek2'),
  deepseek32: latent('deepseek32'),
  deepseek4: streams,
};
