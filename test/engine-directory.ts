// Engine directories for tests: compiled by the real compile(), copied, and spoilt in one place.
import { cpSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Refusal } from '../ir/problem.js';
import { runtimeOf } from '../src/choice.js';
import { type CompileOptions, compile, prepare } from '../src/compile.js';
import { openEngineDirectory } from '../src/engine.js';
import type { EngineFormat, EngineModel, Finding, Runtime } from '../targets/engine.js';
import { targets } from '../targets/index.js';

export interface Wish {
  readonly target: string;
  readonly quantise: string;
  readonly format?: string;
  readonly chip?: string;
  readonly runtime?: string;
  readonly mtp?: 'keep' | 'quantise' | 'drop';
  readonly shardBytes?: number;
  readonly jobs?: number;
}
export interface Made {
  /** engine/ of the bundle. */
  readonly dir: string;
  readonly format: EngineFormat;
  readonly model: EngineModel;
  readonly chip: string;
  readonly runtime: Runtime | null;
}
const quiet = { step: () => {}, at: () => {} };
const optionsOf = (w: Wish, out: string): CompileOptions => ({
  out,
  targets: [w.chip ? `${w.target}:${w.chip}` : w.target],
  quantise: w.quantise,
  format: w.format ?? null,
  runtime: w.runtime ?? null,
  state: 'f32',
  mtp: w.mtp ?? null,
  weights: 'copy',
  sequences: 1,
  chunk: 8,
  force: false,
  allowPhantomKeys: false,
  version: 'test',
  noCache: true,
  jobs: w.jobs ?? 0,
  ...(w.shardBytes === undefined ? {} : { shardBytes: w.shardBytes }),
});
/** A compiled directory; or the sentences that it was refused with. */
export async function make(checkpoint: string, w: Wish, out: string): Promise<Made | string> {
  const o = optionsOf(w, out);
  try {
    const p = await prepare(checkpoint, o, quiet);
    const a = p.aims[0]!;
    await compile(checkpoint, o, quiet);
    return {
      dir: join(out, a.directory, 'engine'),
      format: a.format,
      model: { ...p.engineModel, tensors: a.resolution.chosen.map(x => x.tensor) },
      chip: a.chip.name,
      runtime: a.runtime,
    };
  } catch (e) {
    if (!(e instanceof Refusal)) throw e;
    return e.problems.map(x => `${x.code} ${x.what}. ${x.why}`).join('\n');
  }
}
export const must = (m: Made | string): Made => {
  if (typeof m === 'string') throw new Error(m);
  return m;
};

// ---- spoiling

export interface Tensor {
  name: string;
  dtype: string;
  shape: number[];
  bytes: Uint8Array;
}
interface Header {
  readonly [name: string]: { readonly dtype: string; readonly shape: number[]; readonly data_offsets: readonly [number, number] };
}
export function readShard(path: string): Tensor[] {
  const all = readFileSync(path);
  const size = Number(all.readBigUInt64LE(0));
  const header = JSON.parse(all.subarray(8, 8 + size).toString()) as Header;
  return Object.entries(header)
    .filter(([name]) => name !== '__metadata__')
    .map(([name, h]) => ({
      name,
      dtype: h.dtype,
      shape: [...h.shape],
      bytes: new Uint8Array(all.subarray(8 + size + h.data_offsets[0], 8 + size + h.data_offsets[1])),
    }));
}
export function writeShard(path: string, tensors: readonly Tensor[]): void {
  let at = 0;
  const header = Object.fromEntries(
    tensors.map(t => [t.name, { dtype: t.dtype, shape: t.shape, data_offsets: [at, (at += t.bytes.length)] }]),
  );
  const text = Buffer.from(JSON.stringify(header));
  const head = Buffer.alloc(8 + Math.ceil(text.length / 8) * 8, ' ');
  head.writeBigUInt64LE(BigInt(head.length - 8), 0);
  text.copy(head, 8);
  writeFileSync(path, Buffer.concat([head, ...tensors.map(t => t.bytes)]));
}
// biome-ignore lint/suspicious/noExplicitAny: a JSON file that is about to be spoilt has whatever shape the test gives it
type Loose = any;
const indexName = 'model.safetensors.index.json';
/** A copy that a test may spoil. */
export class Spoilt {
  readonly dir: string;
  constructor(from: string, to: string) {
    this.dir = to;
    rmSync(to, { recursive: true, force: true });
    mkdirSync(to, { recursive: true });
    cpSync(from, to, { recursive: true });
  }
  /** A JSON file, changed in place. */
  json(file: string, change: (v: Loose) => unknown): void {
    const path = join(this.dir, file);
    const v = JSON.parse(readFileSync(path, 'utf8'));
    const other = change(v);
    writeFileSync(path, JSON.stringify(other === undefined ? v : other));
  }
  config(change: (c: Loose) => unknown): void {
    this.json('config.json', change);
  }
  quantisation(change: (q: Loose) => unknown): void {
    this.config(c => {
      const other = change(c.quantization_config);
      if (other !== undefined) c.quantization_config = other;
    });
  }
  file(name: string, text: string): void {
    writeFileSync(join(this.dir, name), text);
  }
  remove(name: string): void {
    rmSync(join(this.dir, name));
  }
  /** One tensor replaced by plain BF16 zeros, and what belongs to it taken away. */
  plain(matrix: RegExp): void {
    this.tensors(
      new RegExp(`${matrix.source}\\.(weight|weight_packed|weight_scale|weight_scale_inv|weight_shape|weight_offset|scale_bias|scale)$`),
      t => {
        if (!/\.(weight|weight_packed)$/.test(t.name)) return false;
        const columns = (t.shape[1] as number) * (t.name.endsWith('_packed') ? 8 : 1);
        t.name = t.name.replace(/_packed$/, '');
        t.dtype = 'BF16';
        t.shape = [t.shape[0] as number, columns];
        t.bytes = new Uint8Array(2 * (t.shape[0] as number) * columns);
        return undefined;
      },
      false,
    );
  }
  /** Tensors whose names fit, changed; the index follows new and lost names. `change` returns false to drop a tensor, others to add. */
  tensors(fits: RegExp | string, change: (t: Tensor) => unknown, first = true): void {
    let done = 0;
    const map: Record<string, string> = {};
    for (const f of readdirSync(this.dir)
      .filter(n => n.endsWith('.safetensors'))
      .sort()) {
      const out: Tensor[] = [];
      for (const t of readShard(join(this.dir, f))) {
        const fit = typeof fits === 'string' ? t.name === fits : fits.test(t.name);
        if (!fit || (first && done > 0)) {
          out.push(t);
          continue;
        }
        done++;
        const answer = change(t);
        if (answer !== false) out.push(t);
        if (Array.isArray(answer)) out.push(...(answer as Tensor[]));
      }
      writeShard(join(this.dir, f), out);
      for (const t of out) map[t.name] = f;
    }
    if (done === 0) throw new Error(`nothing is called ${String(fits)}`);
    if (readdirSync(this.dir).includes(indexName)) this.json(indexName, i => void (i.weight_map = map));
  }
}
/** Findings of a directory, as checkEngine has them before they become problems. */
export function check(dir: string, m: Omit<Made, 'dir'>): readonly Finding[] {
  const d = openEngineDirectory(dir);
  try {
    return m.format.check(d, m.model, m.chip, m.runtime);
  } finally {
    d.close();
  }
}
/** A fault: what is spoilt, how, and the rules that are to speak, no others. */
export interface Fault {
  readonly name: string;
  readonly of: string;
  readonly rules: string;
  readonly plant?: (s: Spoilt) => void;
  /** Looked at as another engine or another chip. */
  readonly as?: { readonly runtime?: Runtime | null; readonly chip?: string };
  /** A tensor whose bytes are fewer than its shape says; the reader of headers refuses such a file before a rule can. */
  readonly cut?: RegExp;
}
/** Findings of a spoilt copy. */
export function findings(m: Made, f: Fault, to: string): readonly Finding[] {
  const s = new Spoilt(m.dir, to);
  f.plant?.(s);
  const d = openEngineDirectory(s.dir);
  try {
    const tensors = new Map(d.tensors);
    if (f.cut) {
      const t = [...tensors.values()].find(x => f.cut?.test(x.name))!;
      tensors.set(t.name, { ...t, bytes: [t.bytes[0], t.bytes[1] - 2] });
    }
    return m.format.check({ ...d, tensors }, m.model, f.as?.chip ?? m.chip, f.as?.runtime !== undefined ? f.as.runtime : m.runtime);
  } finally {
    d.close();
    rmSync(to, { recursive: true, force: true });
  }
}
export const rulesOf = (found: readonly Finding[]): string => [...new Set(found.map(f => f.rule))].sort().join(' ');
export const runtime = (target: string, name: string): Runtime | null => runtimeOf(targets[target]!, name);

/** Tensors of V3's shape with everything in blocks of 128: 2 layers, 4 experts, an MTP block; numbers from a counter. */
export function wideV3(dir: string): void {
  const [d, ff, moe, experts, vocab, heads, ql, kl, nope, rope, v] = [128, 256, 128, 4, 144, 2, 128, 128, 64, 32, 64] as const;
  let n = 1;
  const bf16 = (name: string, shape: number[]): Tensor => {
    const count = shape.reduce((a, b) => a * b, 1);
    const bytes = new Uint8Array(2 * count);
    const view = new DataView(bytes.buffer);
    for (let i = 0; i < count; i++) {
      n = (Math.imul(n, 1664525) + 1013904223) >>> 0;
      const f = new DataView(new ArrayBuffer(4));
      f.setFloat32(0, (n / 2 ** 32 - 0.5) * 0.1);
      view.setUint16(2 * i, f.getUint16(0), true);
    }
    return { name, dtype: 'BF16', shape, bytes };
  };
  const f32 = (name: string, shape: number[]): Tensor => ({
    name,
    dtype: 'F32',
    shape,
    bytes: new Uint8Array(new Float32Array(shape.reduce((a, b) => a * b, 1)).fill(0.25).buffer),
  });
  const mlp = (p: string, inter: number): Tensor[] => [
    bf16(`${p}.gate_proj.weight`, [inter, d]),
    bf16(`${p}.up_proj.weight`, [inter, d]),
    bf16(`${p}.down_proj.weight`, [d, inter]),
  ];
  const layer = (i: number): Tensor[] => {
    const p = `model.layers.${i}`;
    return [
      bf16(`${p}.input_layernorm.weight`, [d]),
      bf16(`${p}.post_attention_layernorm.weight`, [d]),
      bf16(`${p}.self_attn.q_a_proj.weight`, [ql, d]),
      bf16(`${p}.self_attn.q_a_layernorm.weight`, [ql]),
      bf16(`${p}.self_attn.q_b_proj.weight`, [heads * (nope + rope), ql]),
      bf16(`${p}.self_attn.kv_a_proj_with_mqa.weight`, [kl + rope, d]),
      bf16(`${p}.self_attn.kv_a_layernorm.weight`, [kl]),
      bf16(`${p}.self_attn.kv_b_proj.weight`, [heads * (nope + v), kl]),
      bf16(`${p}.self_attn.o_proj.weight`, [d, heads * v]),
      ...(i === 0
        ? mlp(`${p}.mlp`, ff)
        : [
            bf16(`${p}.mlp.gate.weight`, [experts, d]),
            f32(`${p}.mlp.gate.e_score_correction_bias`, [experts]),
            ...Array.from({ length: experts }, (_, e) => mlp(`${p}.mlp.experts.${e}`, moe)).flat(),
            ...mlp(`${p}.mlp.shared_experts`, moe),
          ]),
    ];
  };
  const m = 'model.layers.2';
  const mtp = [
    bf16(`${m}.embed_tokens.weight`, [vocab, d]),
    bf16(`${m}.enorm.weight`, [d]),
    bf16(`${m}.hnorm.weight`, [d]),
    bf16(`${m}.eh_proj.weight`, [d, 2 * d]),
    ...layer(2),
    bf16(`${m}.shared_head.norm.weight`, [d]),
    bf16(`${m}.shared_head.head.weight`, [vocab, d]),
  ];
  mkdirSync(dir, { recursive: true });
  const shards = [
    [bf16('model.embed_tokens.weight', [vocab, d]), ...layer(0), ...layer(1)],
    [...mtp, bf16('model.norm.weight', [d]), bf16('lm_head.weight', [vocab, d])],
  ];
  const weight_map: Record<string, string> = {};
  for (const [i, tensors] of shards.entries()) {
    const file = `model-0000${i + 1}-of-00002.safetensors`;
    writeShard(join(dir, file), tensors);
    for (const t of tensors) weight_map[t.name] = file;
  }
  writeFileSync(join(dir, indexName), JSON.stringify({ metadata: {}, weight_map }));
  writeFileSync(
    join(dir, 'config.json'),
    JSON.stringify({
      architectures: ['DeepseekV3ForCausalLM'],
      model_type: 'deepseek_v3',
      torch_dtype: 'bfloat16',
      hidden_act: 'silu',
      hidden_size: d,
      intermediate_size: ff,
      moe_intermediate_size: moe,
      first_k_dense_replace: 1,
      moe_layer_freq: 1,
      n_routed_experts: experts,
      n_shared_experts: 1,
      num_experts_per_tok: 2,
      n_group: 2,
      topk_group: 1,
      topk_method: 'noaux_tc',
      scoring_func: 'sigmoid',
      norm_topk_prob: true,
      routed_scaling_factor: 2.5,
      num_attention_heads: heads,
      num_key_value_heads: heads,
      num_hidden_layers: 2,
      num_nextn_predict_layers: 1,
      q_lora_rank: ql,
      kv_lora_rank: kl,
      qk_nope_head_dim: nope,
      qk_rope_head_dim: rope,
      v_head_dim: v,
      rms_norm_eps: 1e-6,
      rope_theta: 10000,
      max_position_embeddings: 256,
      tie_word_embeddings: false,
      vocab_size: vocab,
    }),
  );
}
