// A DeepSeek-V3-like checkpoint of any size: its tensors are those the program itself expects of the config, its bytes pseudo-random and sound.
import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseConfig } from '../src/checkpoint/config.js';
import { expectedTensors } from '../src/models/index.js';
import { dtypeBytes } from '../targets/engine.js';
import { fixtures } from './golden-cases.js';

export interface SyntheticOptions {
  readonly storage: 'fp8' | 'bf16';
  readonly hidden: number;
  readonly layers: number;
  readonly experts: number;
  /** Width of an expert. */
  readonly width: number;
  readonly shards: number;
  readonly seed: number;
}
export const syntheticDefaults: SyntheticOptions = { storage: 'fp8', hidden: 768, layers: 3, experts: 16, width: 512, shards: 24, seed: 1 };

/** Values near 1 for weights and norms, small ones for scales: no NaN, no infinity, whatever the dtype. */
function bytesOf(dtype: string, size: number, next: () => number): Uint8Array {
  const words = new Uint32Array(Math.ceil(size / 4));
  for (let i = 0; i < words.length; i++) words[i] = next();
  const bytes = new Uint8Array(words.buffer, 0, size);
  switch (dtype) {
    case 'F8_E4M3':
      for (let i = 0; i < size; i++) bytes[i] = (bytes[i] as number) & 0xbf; // below 2
      break;
    case 'BF16':
      for (let i = 1; i < size; i += 2) bytes[i] = ((bytes[i] as number) & 0x81) | 0x3c;
      break;
    case 'F32':
      for (let i = 3; i < size; i += 4) bytes[i] = 0x3c; // positive, below 0.04
      break;
    default:
      throw new Error(`no ${dtype} is made here`);
  }
  return bytes;
}

export interface SyntheticTensor {
  readonly name: string;
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly bytes: Uint8Array;
}
/** One safetensors file. */
export function writeShard(path: string, tensors: readonly SyntheticTensor[]): void {
  let at = 0;
  const header = Object.fromEntries(
    tensors.map(t => [t.name, { dtype: t.dtype, shape: t.shape, data_offsets: [at, (at += t.bytes.length)] }]),
  );
  const json = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.length));
  writeFileSync(path, Buffer.concat([length, json, ...tensors.map(t => t.bytes)]));
}

/** Write it; the same options give the same bytes. Returns what it holds, in the order of the files. */
export function writeSynthetic(
  dir: string,
  more: Partial<SyntheticOptions> = {},
): { readonly bytes: number; readonly files: readonly string[] } {
  const o = { ...syntheticDefaults, ...more };
  const base = JSON.parse(readFileSync(join(fixtures, 'tiny/v3-tiny-fp8/config.json'), 'utf8')) as Record<string, unknown>;
  if (o.storage === 'bf16') delete base.quantization_config;
  const nano = join(fixtures, 'hkgai-nano');
  const config = {
    ...base,
    hidden_size: o.hidden,
    intermediate_size: o.hidden * 2,
    kv_lora_rank: 128,
    moe_intermediate_size: o.width,
    n_routed_experts: o.experts,
    num_hidden_layers: o.layers,
    q_lora_rank: 256,
    qk_nope_head_dim: 64,
    qk_rope_head_dim: 32,
    v_head_dim: 64,
    vocab_size: (JSON.parse(readFileSync(join(nano, 'config.json'), 'utf8')) as { readonly vocab_size: number }).vocab_size,
  };
  mkdirSync(dir, { recursive: true });
  writeFileSync(join(dir, 'config.json'), JSON.stringify(config, null, 2));
  for (const f of ['tokenizer.json', 'tokenizer_config.json']) copyFileSync(join(nano, f), join(dir, f));
  let state = (o.seed * 2654435761 + 1) >>> 0 || 1;
  const next = (): number => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>>= 0);
  };
  const expected = expectedTensors(parseConfig(JSON.stringify(config), 'config.json'));
  const size = (t: { readonly dtype: string; readonly shape: readonly number[] }): number =>
    t.shape.reduce((a, b) => a * b, 1) * (dtypeBytes[t.dtype] as number);
  const total = expected.reduce((n, t) => n + size(t), 0);
  const files: string[] = [];
  const map: Record<string, string> = {};
  const pad = (n: number): string => String(n).padStart(5, '0');
  let shard: SyntheticTensor[] = [];
  let held = 0;
  for (const [i, t] of expected.entries()) {
    shard.push({ name: t.name, dtype: t.dtype, shape: t.shape, bytes: bytesOf(t.dtype, size(t), next) });
    held += size(t);
    const name = `model-${pad(files.length + 1)}-of-${pad(o.shards)}.safetensors`;
    map[t.name] = name;
    const last = files.length === o.shards - 1;
    if (expected[i + 1]?.name.endsWith('_scale_inv')) continue; // a weight and its scales stay together
    if (i === expected.length - 1 || (!last && held >= (total * (files.length + 1)) / o.shards)) {
      writeShard(join(dir, name), shard);
      files.push(name);
      shard = [];
    }
  }
  if (files.length !== o.shards) throw new Error(`${expected.length} tensors do not fill ${o.shards} shards`);
  writeFileSync(join(dir, 'model.safetensors.index.json'), JSON.stringify({ metadata: { total_size: total }, weight_map: map }));
  return { bytes: total, files };
}
