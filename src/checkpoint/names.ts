// Tensor names: one spelling a family, others through this table. Which dtype a tensor has is the header's to say, never the name's.
import type { Family } from './config.js';

// DeepSeek's own spelling of V3 -> Hugging Face's (deepseek-ai/DeepSeek-V3, inference/convert.py, `mapping`)
const toHub: Readonly<Record<string, string>> = {
  embed: 'embed_tokens',
  attn_norm: 'input_layernorm',
  ffn_norm: 'post_attention_layernorm',
  wq: 'q_proj',
  wq_a: 'q_a_proj',
  q_norm: 'q_a_layernorm',
  wq_b: 'q_b_proj',
  wkv_a: 'kv_a_proj_with_mqa',
  kv_norm: 'kv_a_layernorm',
  wkv_b: 'kv_b_proj',
  wo: 'o_proj',
  w1: 'gate_proj',
  w2: 'down_proj',
  w3: 'up_proj',
  attn: 'self_attn',
  ffn: 'mlp',
  scale: 'weight_scale_inv',
};
const toNative: Readonly<Record<string, string>> = Object.fromEntries(Object.entries(toHub).map(([native, hub]) => [hub, native]));

/**
 * The spelling that the models ask for: Hugging Face's (`model.layers.3.self_attn.q_a_proj.weight`) for all families but V4,
 * DeepSeek's own (`layers.3.attn.wq_a.weight`) for V4. A name of neither kind comes back as it is.
 */
export function canonicalName(name: string, family: Family): string {
  const bare = name.startsWith('language_model.') ? name.slice('language_model.'.length) : name;
  if (family === 'qwen2' || family === 'llama') return bare;
  const parts = bare.split('.');
  if (family === 'deepseek_v4') {
    if (parts[0] === 'model') parts.shift();
    if (parts[0] === 'lm_head') parts[0] = 'head';
    return parts
      .map((p, i) => (p === 'e_score_correction_bias' ? 'bias' : inIndexer(parts, i) ? p : Object.hasOwn(toNative, p) ? toNative[p]! : p))
      .join('.');
  }
  if (parts[0] === 'head') parts[0] = 'lm_head';
  if (parts[0] === 'embed' || parts[0] === 'norm' || parts[0] === 'layers') parts.unshift('model');
  const bias = parts.length > 2 && parts.at(-1) === 'bias' && parts.at(-2) === 'gate';
  if (bias) parts[parts.length - 1] = 'e_score_correction_bias';
  return parts.map((p, i) => (inIndexer(parts, i) && p !== 'scale' ? p : Object.hasOwn(toHub, p) ? toHub[p]! : p)).join('.');
}
/** The indexer's own parts are called wq_b and wk in every spelling. */
const inIndexer = (parts: readonly string[], i: number): boolean =>
  parts.indexOf('indexer') !== -1 && i > parts.indexOf('indexer') && parts[i] !== 'weight_scale_inv' && parts[i] !== 'scale';

/** Why a tensor may be left out: null where it may not. */
export function strayReason(name: string): string | null {
  if (name.endsWith('.rotary_emb.inv_freq')) return 'rope frequencies are computed from the config';
  // Kimi-K2.5 and its like hold a language model beside these (facts: fixtures/configs/Kimi-K2.5.json, vision_config)
  if (/^(vision_tower|mm_projector)\./.test(name)) return 'it is of the part that sees, and the language model is what is compiled';
  return null;
}
