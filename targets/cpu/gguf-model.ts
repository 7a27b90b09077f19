// A model as llama.cpp's architectures have it: the keys of a GGUF, its tensors, and which rows of the checkpoint each is made of.
// Keys and names: ggml-org/llama.cpp@3f545bec conversion/deepseek.py:319-450, conversion/base.py:1357-1370, conversion/llama.py, conversion/qwen.py;
// @01a723dc conversion/deepseek.py:75-140 for deepseek. Loaded and run: release v0.5.0 of llama.cpp, as docs/gguf.md says.
import { pow } from '../../ir/elementary.js';
import { type GgufTypeName, ggufTypes, jsonObject as object } from './gguf.js';
import { type Choose, type GgufModel, type GgufPiece, type GgufSubject, type GgufTokenizer, type Json, Plan } from './gguf-plan.js';
import { tokenizer } from './gguf-tokenizer.js';
import { streams } from './gguf-v4.js';

/** Rotary embedding: scaling keys, or llama 3’s factors as a tensor. `head`: rotated columns. Where mscale_all_dim is wanted: `mla`. */
export function rope(p: Plan, config: Json, head: number, mla: boolean): void {
  const scaling = { ...object(config.rope_scaling), ...object(config.rope_parameters) };
  const base = scaling.rope_theta ?? config.rope_theta ?? 10000;
  const at = `${p.arch}.rope`;
  p.u32(`${at}.dimension_count`, head);
  p.f32(`${at}.freq_base`, Number(base));
  const kind = scaling.rope_type ?? scaling.type ?? 'default';
  const number = (field: string, otherwise?: number): number => {
    const v = scaling[field] ?? otherwise;
    if (typeof v === 'number' && Number.isFinite(v)) return v;
    p.refuse(`the rope scaling of config.json has no number ${field}`);
    return 1;
  };
  if (kind === 'default') return;
  if (kind === 'linear' || kind === 'yarn') {
    p.string(`${at}.scaling.type`, kind);
    p.f32(`${at}.scaling.factor`, number('factor'));
  }
  if (kind === 'yarn') {
    p.u32(`${at}.scaling.original_context_length`, number('original_max_position_embeddings'));
    for (const [field, key] of [
      ['beta_fast', 'yarn_beta_fast'],
      ['beta_slow', 'yarn_beta_slow'],
    ] as const)
      if (scaling[field] !== undefined) p.f32(`${at}.scaling.${key}`, number(field));
    const all = scaling.mscale_all_dim;
    if (mla && all !== undefined) p.f32(`${at}.scaling.yarn_log_multiplier`, 0.1 * number('mscale_all_dim'));
    if (all !== undefined && scaling.mscale !== undefined && scaling.mscale !== all)
      p.refuse(`${p.arch} takes mscale for mscale_all_dim; config.json has ${scaling.mscale} and ${all}`);
    for (const field of ['attention_factor', 'attn_factor', 'extrapolation_factor'])
      if (scaling[field] !== undefined && scaling[field] !== null) p.refuse(`the rope scaling has ${field}, which is not written`);
  } else if (kind === 'llama3' && p.arch === 'llama') {
    // The original length is the one beside the factor, not 8192 for all (conversion/llama.py, generate_extra_tensors).
    const factors = llama3Factors(Number(base), head, {
      factor: number('factor', 8),
      low: number('low_freq_factor', 1),
      high: number('high_freq_factor', 4),
      original: number('original_max_position_embeddings', 8192),
    });
    const bytes = new Uint8Array(factors.length * 4);
    const view = new DataView(bytes.buffer);
    for (const [i, f] of factors.entries()) view.setFloat32(i * 4, f, true);
    p.add('rope_freqs.weight', [factors.length], 'F32', [], bytes);
  } else if (kind !== 'linear') p.refuse(`${p.arch} has no rope scaling ${JSON.stringify(kind)}`);
}
/** What llama 3 divides each of head/2 frequencies by. */
export function llama3Factors(
  base: number,
  head: number,
  s: { readonly factor: number; readonly low: number; readonly high: number; readonly original: number },
): readonly number[] {
  return Array.from({ length: head / 2 }, (_, i) => {
    const wave = 2 * Math.PI * pow(base, (2 * i) / head);
    if (wave < s.original / s.high) return 1;
    if (wave > s.original / s.low) return s.factor;
    const smooth = (s.original / wave - s.low) / (s.high - s.low);
    return 1 / ((1 - smooth) / s.factor + smooth);
  });
}

/** Keys that every architecture has; V4 has no dense layer and no length of one. */
export function common(p: Plan, blocks: number, feed: number | null, kvHeads: number): void {
  p.u32(`${p.arch}.vocab_size`, p.number('vocab_size'));
  p.u32(`${p.arch}.context_length`, p.number('max_position_embeddings'));
  p.u32(`${p.arch}.embedding_length`, p.number('hidden_size'));
  p.u32(`${p.arch}.block_count`, blocks);
  if (feed !== null) p.u32(`${p.arch}.feed_forward_length`, feed);
  p.u32(`${p.arch}.attention.head_count`, p.number('num_attention_heads'));
  p.u32(`${p.arch}.attention.head_count_kv`, kvHeads);
  p.f32(`${p.arch}.attention.layer_norm_rms_epsilon`, p.number('rms_norm_eps', 1e-6));
}
/** Embedding, last norm and head; a tied head is not written: llama.cpp takes the embedding where there is none. */
function ends(p: Plan, config: Json): void {
  p.whole('token_embd.weight', 'model.embed_tokens.weight');
  p.whole('output_norm.weight', 'model.norm.weight');
  if (config.tie_word_embeddings === true) p.drop(t => t.name.endsWith('lm_head.weight'));
  else p.whole('output.weight', 'lm_head.weight');
}

/** Plain attention: llama, qwen2, and deepseek with experts. llama and deepseek rotate neighbours, so that rows of q and k are put in pairs. */
function dense(p: Plan, config: Json, model: GgufSubject): void {
  const heads = p.number('num_attention_heads');
  const kvHeads = p.number('num_key_value_heads', heads);
  const head = p.number('head_dim', heads === 0 ? 0 : p.number('hidden_size') / heads);
  const paired = p.arch !== 'qwen2';
  const firstMoe = p.arch === 'deepseek' ? p.number('first_k_dense_replace', 0) : model.layers;
  const experts = p.arch === 'deepseek' ? p.number('n_routed_experts') : 0;
  if (config.use_sliding_window === true) p.refuse(`${p.arch} has no sliding window`);
  common(p, model.layers, p.number('intermediate_size'), kvHeads);
  p.u32(`${p.arch}.attention.key_length`, head);
  p.u32(`${p.arch}.attention.value_length`, head);
  if (p.arch === 'deepseek') {
    // Its routing is fixed: softmax, the best by themselves, weights as they are (src/models/deepseek.cpp, build_moe_ffn).
    if (config.norm_topk_prob === true) p.refuse('deepseek leaves the weights of the chosen experts as they are; norm_topk_prob is true');
    if ((config.scoring_func ?? 'softmax') !== 'softmax') p.refuse(`deepseek has no expert score ${JSON.stringify(config.scoring_func)}`);
    if (p.number('moe_layer_freq', 1) !== 1) p.refuse(`deepseek has experts in every layer after the dense ones`);
    if (p.number('n_shared_experts', 0) === 0) p.refuse('deepseek wants shared experts, which config.json has not');
    p.u32('deepseek.leading_dense_block_count', firstMoe);
    p.u32('deepseek.expert_feed_forward_length', p.number('moe_intermediate_size'));
    p.u32('deepseek.expert_count', experts);
    p.u32('deepseek.expert_used_count', p.number('num_experts_per_tok'));
    p.u32('deepseek.expert_shared_count', p.number('n_shared_experts', 0));
    p.f32('deepseek.expert_weights_scale', p.number('routed_scaling_factor', 1));
  }
  rope(p, config, head, false);
  ends(p, config);
  for (let i = 0; i < model.layers; i++) {
    const [from, to] = [`model.layers.${i}`, `blk.${i}`];
    p.whole(`${to}.attn_norm.weight`, `${from}.input_layernorm.weight`);
    for (const [name, gguf, permute] of [
      ['q_proj', 'attn_q', heads],
      ['k_proj', 'attn_k', kvHeads],
      ['v_proj', 'attn_v', 0],
      ['o_proj', 'attn_output', 0],
    ] as const) {
      const more = paired && permute > 0 ? { permute } : {};
      p.whole(`${to}.${gguf}.weight`, `${from}.self_attn.${name}.weight`, more);
      if (p.arch !== 'deepseek')
        p.whole(`${to}.${gguf}.bias`, `${from}.self_attn.${name}.bias`, { ...more, optional: paired || name === 'o_proj' });
    }
    p.whole(`${to}.ffn_norm.weight`, `${from}.post_attention_layernorm.weight`);
    if (i >= firstMoe) p.whole(`${to}.ffn_gate_inp.weight`, `${from}.mlp.gate.weight`);
    for (const part of ['gate', 'up', 'down']) {
      if (i >= firstMoe) {
        stack(p, `${to}.ffn_${part}_exps.weight`, e => `${from}.mlp.experts.${e}.${part}_proj.weight`, experts);
        p.whole(`${to}.ffn_${part}_shexp.weight`, `${from}.mlp.shared_experts.${part}_proj.weight`);
        continue;
      }
      p.whole(`${to}.ffn_${part}.weight`, `${from}.mlp.${part}_proj.weight`);
      if (p.arch === 'llama') p.whole(`${to}.ffn_${part}.bias`, `${from}.mlp.${part}_proj.bias`, { optional: true });
    }
  }
}

function latent(p: Plan, config: Json, model: GgufSubject): void {
  const sparse = p.arch === 'deepseek32';
  const blocks = model.tensors.filter(t => t.mtp).reduce((a, t) => Math.max(a, t.layer + 1 - model.layers), 0);
  // deepseek2 drafts with one MTP block, and with low-rank queries alone (v0.5.0: blocks after the last layer, read where
  // nextn_predict_layers counts them); deepseek32 loads what there is.
  const nextn = sparse || (blocks === 1 && p.number('q_lora_rank', 0) > 0) ? blocks : 0;
  if (nextn === 0 && p.drop(t => t.mtp) > 0)
    p.left.push(`${p.arch} takes one MTP block, beside queries of low rank: the ${blocks} of the checkpoint stay out of the file`);
  const [heads, kvLora, ropeDim] = [p.number('num_attention_heads'), p.number('kv_lora_rank'), p.number('qk_rope_head_dim')];
  const [nope, v] = [p.number('qk_nope_head_dim'), p.number('v_head_dim')];
  const qLora = p.number('q_lora_rank', 0);
  const experts = p.number('n_routed_experts');
  const shared = p.number('n_shared_experts', 0);
  const firstMoe = p.number('first_k_dense_replace', 0);
  const key = (name: string): string => `${p.arch}.${name}`;

  // llama.cpp leaves q_lora_rank unread for these sizes and wants it for all others (src/models/deepseek2.cpp:7-14).
  const lite = !sparse && ([26, 27].includes(model.layers) || (model.layers === 48 && config.vocab_size === 128256));
  if (lite && qLora > 0) p.refuse(`${p.arch} with ${model.layers} layers has no q_lora_rank; config.json has ${qLora}`);
  if (!lite && qLora === 0) p.refuse(`${p.arch} with ${model.layers} layers wants a q_lora_rank, which config.json has not`);
  if (shared === 0) p.refuse(`${p.arch} wants shared experts, which config.json has not`);
  if (p.number('moe_layer_freq', 1) !== 1)
    p.refuse(`${p.arch} has experts in every layer after the dense ones; moe_layer_freq is ${config.moe_layer_freq}`);

  common(p, model.layers + nextn, p.number('intermediate_size'), 1);
  p.u32(key('leading_dense_block_count'), firstMoe);
  p.u32(key('expert_feed_forward_length'), p.number('moe_intermediate_size'));
  p.u32(key('expert_count'), experts);
  p.u32(key('expert_used_count'), p.number('num_experts_per_tok'));
  p.u32(key('expert_shared_count'), shared);
  p.f32(key('expert_weights_scale'), p.number('routed_scaling_factor', 1));
  p.bool(key('expert_weights_norm'), config.norm_topk_prob === true);
  const score = config.scoring_func ?? 'softmax';
  if (score !== 'softmax' && score !== 'sigmoid') p.refuse(`${p.arch} has no expert score ${JSON.stringify(score)}`);
  p.u32(key('expert_gating_func'), score === 'sigmoid' ? 2 : 1);
  groups(p, config, experts);
  if (qLora > 0) p.u32(key('attention.q_lora_rank'), qLora);
  p.u32(key('attention.kv_lora_rank'), kvLora);
  p.u32(key('attention.key_length'), kvLora + ropeDim);
  p.u32(key('attention.value_length'), kvLora);
  p.u32(key('attention.key_length_mla'), nope + ropeDim);
  p.u32(key('attention.value_length_mla'), v);
  if (sparse) {
    p.u32(key('attention.indexer.head_count'), p.number('index_n_heads'));
    p.u32(key('attention.indexer.key_length'), p.number('index_head_dim'));
    p.u32(key('attention.indexer.top_k'), p.number('index_topk'));
    p.index(p.number('index_head_dim'));
  }
  if (nextn > 0) p.u32(key('nextn_predict_layers'), nextn);
  rope(p, config, ropeDim, true);
  ends(p, config);
  for (let i = 0; i < model.layers + nextn; i++) {
    const [from, to] = [`model.layers.${i}`, `blk.${i}`];
    const one = (gguf: string, name: string, optional = false): void => p.whole(`${to}.${gguf}`, `${from}.${name}`, { optional });
    one('attn_norm.weight', 'input_layernorm.weight');
    if (qLora > 0) {
      one('attn_q_a.weight', 'self_attn.q_a_proj.weight');
      one('attn_q_a_norm.weight', 'self_attn.q_a_layernorm.weight');
      one('attn_q_b.weight', 'self_attn.q_b_proj.weight');
    } else one('attn_q.weight', 'self_attn.q_proj.weight');
    one('attn_kv_a_mqa.weight', 'self_attn.kv_a_proj_with_mqa.weight');
    one('attn_kv_a_norm.weight', 'self_attn.kv_a_layernorm.weight');
    splitKvB(p, `${from}.self_attn.kv_b_proj.weight`, to, { heads, nope, v, kvLora });
    one('attn_output.weight', 'self_attn.o_proj.weight');
    if (sparse) {
      one('indexer.attn_q_b.weight', 'self_attn.indexer.wq_b.weight');
      one('indexer.attn_k.weight', 'self_attn.indexer.wk.weight');
      one('indexer.k_norm.weight', 'self_attn.indexer.k_norm.weight');
      one('indexer.k_norm.bias', 'self_attn.indexer.k_norm.bias');
      one('indexer.proj.weight', 'self_attn.indexer.weights_proj.weight');
    }
    one('ffn_norm.weight', 'post_attention_layernorm.weight');
    if (i < firstMoe) for (const part of ['gate', 'up', 'down']) one(`ffn_${part}.weight`, `mlp.${part}_proj.weight`);
    else {
      one('ffn_gate_inp.weight', 'mlp.gate.weight');
      one('exp_probs_b.bias', 'mlp.gate.e_score_correction_bias', true);
      for (const part of ['gate', 'up', 'down']) {
        stack(p, `${to}.ffn_${part}_exps.weight`, e => `${from}.mlp.experts.${e}.${part}_proj.weight`, experts);
        one(`ffn_${part}_shexp.weight`, `mlp.shared_experts.${part}_proj.weight`);
      }
    }
    if (i >= model.layers) {
      one('nextn.eh_proj.weight', 'eh_proj.weight');
      one('nextn.enorm.weight', 'enorm.weight');
      one('nextn.hnorm.weight', 'hnorm.weight');
      one('nextn.embed_tokens.weight', 'embed_tokens.weight', true);
      one('nextn.shared_head_head.weight', 'shared_head.head.weight', true);
      one('nextn.shared_head_norm.weight', 'shared_head.norm.weight', true);
    }
  }
}
/** Group-limited routing: llama.cpp sums a group’s two best (src/llama-graph.cpp:2029-2052) and checks the sizes (src/llama-model.cpp:1154-1162). */
function groups(p: Plan, config: Json, experts: number): void {
  const method = config.topk_method ?? 'greedy';
  const n = p.number('n_group', 1);
  if (n <= 1 || method === 'greedy') return;
  const used = p.number('topk_group');
  if (method !== 'noaux_tc')
    p.refuse(`${p.arch} scores a group by its two best experts; ${JSON.stringify(method)} of config.json takes the best alone`);
  if (n >= experts || experts % n !== 0)
    p.refuse(`${p.arch} wants several experts in each group and all groups alike; these are ${n} groups of ${experts} experts`);
  if (used >= n || used < 1) p.refuse(`${p.arch} wants fewer groups used than there are; these are ${used} of ${n}`);
  p.u32(`${p.arch}.expert_group_count`, n);
  p.u32(`${p.arch}.expert_group_used_count`, used);
}
/** kv_b [heads * (nope + v), lora] to k_b [heads, lora, nope] and v_b [heads, v, lora] (conversion/deepseek.py:433-450). */
function splitKvB(
  p: Plan,
  name: string,
  to: string,
  z: { readonly heads: number; readonly nope: number; readonly v: number; readonly kvLora: number },
): void {
  const t = p.take(name);
  if (t === null) return;
  const each = z.nope + z.v;
  if (t.shape[0] !== z.heads * each || t.shape[1] !== z.kvLora) {
    p.refuse(`${name} is [${t.shape.join(', ')}], not the [${z.heads * each}, ${z.kvLora}] that config.json says`);
    return;
  }
  const pieces = (from: number, rows: number, transpose: boolean): readonly GgufPiece[] =>
    Array.from({ length: z.heads }, (_, h) => ({
      tensor: t.name,
      rows: [h * each + from, h * each + from + rows] as const,
      transpose,
      permute: null,
    }));
  p.add(`${to}.attn_k_b.weight`, [z.nope, z.kvLora, z.heads], p.type(t), pieces(0, z.nope, true));
  p.add(`${to}.attn_v_b.weight`, [z.kvLora, z.v, z.heads], p.type(t), pieces(z.nope, z.v, false));
}
/** All experts of a layer in one tensor [experts, out, in]. */
export function stack(p: Plan, gguf: string, name: (expert: number) => string, experts: number): void {
  const all = Array.from({ length: experts }, (_, e) => p.take(name(e)));
  const first = all[0];
  if (!first || all.includes(null)) return;
  const types = new Set(all.map(t => p.type(t!)));
  if (types.size > 1) p.refuse(`${gguf} holds all experts of a layer in one type; these are to be ${[...types].join(' and ')}`);
  if (all.some(t => t!.shape.join() !== first.shape.join())) p.refuse(`${gguf} holds all experts of a layer, which differ in shape`);
  const pieces = all.map(t => ({ tensor: t!.name, rows: null, transpose: false, permute: null }));
  p.add(gguf, [...[...first.shape].reverse(), experts], p.type(first), pieces);
}

// ---- the whole

/** Families of the checkpoint (Kimi-K2 and Moonlight are deepseek_v3) and llama.cpp's names. */
const architectures: Readonly<Record<string, string>> = {
  deepseek: 'deepseek',
  deepseek_v2: 'deepseek2',
  deepseek_v3: 'deepseek2',
  deepseek_v32: 'deepseek32',
  deepseek_v4: 'deepseek4',
  llama: 'llama',
  qwen2: 'qwen2',
};
/** `general.file_type`: the type that most numbers are in (include/llama.h, llama_ftype). */
const fileTypes: Readonly<Record<string, number>> = { F32: 0, F16: 1, Q4_0: 2, Q8_0: 7, BF16: 32, MXFP4: 38 };

export function ggufModel(config: Record<string, unknown>, model: GgufSubject, tok: GgufTokenizer, choose: Choose): GgufModel {
  const own: Json = { ...config, ...object(config.text_config) };
  const p = new Plan(own, model.tensors, choose);
  const arch = architectures[model.modelType];
  if (arch === undefined)
    return { kv: [], tensors: [], refused: [`model_type ${JSON.stringify(model.modelType)} has no architecture here`], left: [] };
  p.arch = arch;
  p.string('general.architecture', arch);
  p.string('general.type', 'model');
  p.u32('general.alignment', 32);
  const before = p.kv.length;
  if (arch === 'deepseek4') streams(p, own, model);
  else if (arch === 'deepseek2' || arch === 'deepseek32') latent(p, own, model);
  else dense(p, own, model);
  p.rest();
  const share = new Map<number, number>();
  for (const t of p.tensors) share.set(t.type, (share.get(t.type) ?? 0) + t.dims.reduce((a, b) => a * b, 1));
  const most = [...share].sort((a, b) => b[1] - a[1])[0]?.[0];
  const name = (Object.keys(ggufTypes) as GgufTypeName[]).find(n => ggufTypes[n].id === most) ?? 'F32';
  p.kv.splice(
    before,
    0,
    ['general.file_type', { type: 'u32', value: fileTypes[name]! }],
    ['general.quantization_version', { type: 'u32', value: 2 }],
  );
  tokenizer(p, own, tok);
  return { kv: p.kv, tensors: p.tensors, refused: p.refused, left: p.left };
}
