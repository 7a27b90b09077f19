// DeepSeek-V4 as llama.cpp's deepseek4 has it: hyper-connections, a window beside compressed entries, an index over them, hash-routed layers.
// Keys and tensors: ggml-org/llama.cpp@00395eb2 src/models/deepseek4.cpp:18-170; names of its converter: @01a723dc conversion/deepseek.py:560-870.

import { jsonList as list } from './gguf.js';
import { common, rope, stack } from './gguf-model.js';
import type { GgufSubject, Json, Plan } from './gguf-plan.js';

const parts = [
  ['gate', 'w1'],
  ['up', 'w3'],
  ['down', 'w2'],
] as const;

export function streams(p: Plan, config: Json, model: GgufSubject): void {
  const key = (name: string): string => `deepseek4.${name}`;
  if (p.drop(t => t.mtp) > 0)
    p.left.push('deepseek4 wants the MTP block with one matrix for embedding and state and no head of its own; it stays out of the file');
  const experts = p.number('n_routed_experts');
  const hashed = Math.min(p.number('num_hash_layers', 0), model.layers);
  const ratios = list(config.compress_ratios).slice(0, model.layers).map(Number);
  const clamp = p.number('swiglu_limit', 0);
  if (ratios.length < model.layers)
    p.refuse(`deepseek4 wants a compress ratio for each of ${model.layers} layers; there are ${ratios.length}`);
  for (const r of ratios) if (![0, 4, 128].includes(r)) p.refuse(`deepseek4 has the compress ratios 0, 4 and 128; config.json has ${r}`);
  if (p.number('hc_mult') !== 4) p.refuse(`deepseek4 has four streams; hc_mult is ${config.hc_mult}`);
  if (!(clamp > 0)) p.refuse('deepseek4 wants a swiglu_limit above 0');
  if ((config.scoring_func ?? 'sqrtsoftplus') !== 'sqrtsoftplus')
    p.refuse(`deepseek4 has no expert score ${JSON.stringify(config.scoring_func)}`);
  if (p.number('n_group', 1) > 1) p.refuse('deepseek4 has no groups of experts');

  common(p, model.layers, null, 1);
  const head = p.number('head_dim');
  p.u32(key('attention.key_length'), head);
  p.u32(key('attention.value_length'), head);
  p.u32(key('attention.sliding_window'), p.number('sliding_window'));
  p.u32(key('attention.q_lora_rank'), p.number('q_lora_rank'));
  p.u32(key('attention.output_lora_rank'), p.number('o_lora_rank'));
  p.u32(key('attention.output_group_count'), p.number('o_groups'));
  p.kv.push([key('attention.compress_ratios'), { type: 'array', of: 'i32', value: ratios }]);
  p.f32(key('attention.compress_rope_freq_base'), p.number('compress_rope_theta'));
  p.u32(key('attention.indexer.head_count'), p.number('index_n_heads'));
  p.u32(key('attention.indexer.key_length'), p.number('index_head_dim'));
  p.u32(key('attention.indexer.top_k'), p.number('index_topk'));
  p.index(p.number('index_head_dim'));
  p.u32(key('expert_feed_forward_length'), p.number('moe_intermediate_size'));
  p.u32(key('expert_count'), experts);
  p.u32(key('expert_used_count'), p.number('num_experts_per_tok'));
  p.u32(key('expert_shared_count'), p.number('n_shared_experts'));
  p.f32(key('expert_weights_scale'), p.number('routed_scaling_factor', 1));
  p.bool(key('expert_weights_norm'), config.norm_topk_prob === true);
  p.u32(key('expert_gating_func'), 4);
  p.u32(key('hash_layer_count'), hashed);
  p.kv.push([key('swiglu_clamp_exp'), { type: 'array', of: 'f32', value: ratios.map(() => clamp) }]);
  p.u32(key('hyper_connection.count'), p.number('hc_mult'));
  p.u32(key('hyper_connection.sinkhorn_iterations'), p.number('hc_sinkhorn_iters'));
  p.f32(key('hyper_connection.epsilon'), p.number('hc_eps'));
  rope(p, config, p.number('qk_rope_head_dim'), false);

  p.whole('token_embd.weight', 'embed.weight');
  p.whole('output_norm.weight', 'norm.weight');
  p.whole('output.weight', 'head.weight');
  for (const part of ['fn', 'base', 'scale']) p.whole(`output_hc_${part}.weight`, `hc_head_${part}`);
  for (let i = 0; i < model.layers; i++) {
    const one = (gguf: string, name: string): void => p.whole(`blk.${i}.${gguf}`, `layers.${i}.${name}`);
    one('attn_norm.weight', 'attn_norm.weight');
    one('attn_sinks.weight', 'attn.attn_sink');
    one('attn_q_a.weight', 'attn.wq_a.weight');
    one('attn_q_a_norm.weight', 'attn.q_norm.weight');
    one('attn_q_b.weight', 'attn.wq_b.weight');
    one('attn_kv.weight', 'attn.wkv.weight');
    one('attn_kv_a_norm.weight', 'attn.kv_norm.weight');
    one('attn_output_a.weight', 'attn.wo_a.weight');
    one('attn_output_b.weight', 'attn.wo_b.weight');
    for (const block of ['attn', 'ffn'])
      for (const part of ['fn', 'base', 'scale']) one(`hc_${block}_${part}.weight`, `hc_${block}_${part}`);
    const ratio = ratios[i];
    if (ratio !== 0) compressor('attn_compressor', 'attn.compressor');
    if (ratio === 4) {
      one('indexer.proj.weight', 'attn.indexer.weights_proj.weight');
      one('indexer.attn_q_b.weight', 'attn.indexer.wq_b.weight');
      compressor('indexer_compressor', 'attn.indexer.compressor');
    }
    one('ffn_norm.weight', 'ffn_norm.weight');
    one('ffn_gate_inp.weight', 'ffn.gate.weight');
    if (i < hashed) one('ffn_gate_tid2eid.weight', 'ffn.gate.tid2eid');
    else one('exp_probs_b.bias', 'ffn.gate.bias');
    for (const [part, w] of parts) {
      stack(p, `blk.${i}.ffn_${part}_exps.weight`, e => `layers.${i}.ffn.experts.${e}.${w}.weight`, experts);
      one(`ffn_${part}_shexp.weight`, `ffn.shared_experts.${w}.weight`);
    }
    function compressor(to: string, from: string): void {
      one(`${to}_kv.weight`, `${from}.wkv.weight`);
      one(`${to}_gate.weight`, `${from}.wgate.weight`);
      one(`${to}_ape.weight`, `${from}.ape`);
      one(`${to}_norm.weight`, `${from}.norm.weight`);
    }
  }
}
