// Small checkpoints made here, for architectures and sizes that no recorded case has: a config's tensors with numbers from a fixed sequence.
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseConfig } from '../src/checkpoint/config.js';
import { expectedTensors } from '../src/models/index.js';

const bytesOf: Readonly<Record<string, number>> = { F32: 4, BF16: 2, I64: 8 };
/** Whole numbers of 32 bits, the same each time (xorshift). */
function sequence(seed: number): () => number {
  let s = seed;
  return () => {
    s ^= s << 13;
    s ^= s >>> 17;
    s ^= s << 5;
    return s >>> 0;
  };
}

/** Write a checkpoint of plain tensors for a config into `dir`. `leave` says which optional tensors stay out. */
export function writeMade(
  dir: string,
  config: Readonly<Record<string, unknown>>,
  leave: RegExp = /embed_tokens\.weight$|shared_head\.head/,
): void {
  mkdirSync(dir, { recursive: true });
  const text = JSON.stringify(config, null, 2);
  const parsed = parseConfig(text, 'config.json');
  const all = expectedTensors(parsed).filter(t => !(t.optional && leave.test(t.name)));
  const next = sequence(2463534242);
  const small = (): number => (next() + next() + next() + next()) / 2 ** 31 - 4; // about normal, deviation 1.15
  let at = 0;
  const entries: string[] = [];
  const data: Buffer[] = [];
  for (const t of all) {
    const n = t.shape.reduce((a, b) => a * b, 1);
    const bytes = Buffer.alloc(n * bytesOf[t.dtype]!);
    const columns = t.shape.at(-1)!;
    const norm = /norm\d?\.weight$/.test(t.name);
    const scale = norm || t.shape.length < 2 ? 0.1 : t.name.endsWith('.ape') ? 0.3 : 1 / Math.sqrt(columns);
    for (let i = 0; i < n; i++) {
      if (t.dtype === 'I64') {
        // experts of a token: not the same one twice
        bytes.writeBigInt64LE(BigInt((Math.floor(i / columns) * 3 + (i % columns)) % Number(config.n_routed_experts)), 8 * i);
        continue;
      }
      const v = (norm ? 1 : 0) + scale * small();
      if (t.dtype === 'F32') bytes.writeFloatLE(v, 4 * i);
      else {
        const f = Buffer.alloc(4);
        f.writeFloatLE(v);
        bytes.writeUInt16LE(f.readUInt16LE(2), 2 * i);
      }
    }
    entries.push(
      `${JSON.stringify(t.name)}:{"dtype":"${t.dtype}","shape":[${t.shape.join(',')}],"data_offsets":[${at},${(at += bytes.length)}]}`,
    );
    data.push(bytes);
  }
  const header = Buffer.from(`{${entries.join(',')}}`);
  const padded = Buffer.concat([header, Buffer.alloc((8 - (header.length % 8)) % 8, 0x20)]);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(padded.length));
  writeFileSync(join(dir, 'config.json'), text);
  writeFileSync(join(dir, 'model.safetensors'), Buffer.concat([length, padded, ...data]));
}

/** DeepSeek-MoE-16B in small. */
export const moe16 = {
  architectures: ['DeepseekForCausalLM'],
  model_type: 'deepseek',
  attention_bias: false,
  bos_token_id: 0,
  eos_token_id: 1,
  first_k_dense_replace: 1,
  hidden_act: 'silu',
  hidden_size: 64,
  intermediate_size: 96,
  max_position_embeddings: 512,
  moe_intermediate_size: 32,
  moe_layer_freq: 1,
  n_routed_experts: 8,
  n_shared_experts: 2,
  norm_topk_prob: false,
  num_attention_heads: 4,
  num_experts_per_tok: 3,
  num_hidden_layers: 3,
  num_key_value_heads: 2,
  rms_norm_eps: 1e-6,
  rope_scaling: null,
  rope_theta: 10000,
  scoring_func: 'softmax',
  tie_word_embeddings: false,
  torch_dtype: 'float32',
  vocab_size: 128,
} as const;

/** V2-Lite in small, as many layers as the real one: llama.cpp tells it by them. */
export const lite27 = {
  ...moe16,
  architectures: ['DeepseekV2ForCausalLM'],
  model_type: 'deepseek_v2',
  hidden_size: 32,
  intermediate_size: 32,
  kv_lora_rank: 32,
  moe_intermediate_size: 32,
  n_group: 1,
  n_routed_experts: 4,
  num_attention_heads: 2,
  num_experts_per_tok: 2,
  num_hidden_layers: 27,
  num_key_value_heads: 2,
  q_lora_rank: null,
  qk_nope_head_dim: 32,
  qk_rope_head_dim: 16,
  routed_scaling_factor: 1,
  topk_group: 1,
  topk_method: 'greedy',
  v_head_dim: 32,
} as const;
