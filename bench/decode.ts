// Tokens per second of the CPU program on a made-up mixture of experts of 1.65 billion parameters (0.65 billion read for a token), beside what this
// machine can do, measured in the same run. See bench/README.md.
//
//   node out/bench/bench/decode.js [--schemes none,int8,int4] [--prompt 128] [--decode 48] [--threads N] [--dir DIR]
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import type { Program } from '../ir/program.js';
import { compile, plan } from '../src/compile.js';
import { writeModel } from './model.js';

const config = {
  architectures: ['DeepseekV2ForCausalLM'],
  model_type: 'deepseek_v2',
  attention_bias: false,
  first_k_dense_replace: 1,
  hidden_act: 'silu',
  hidden_size: 2048,
  intermediate_size: 5632,
  kv_lora_rank: 512,
  max_position_embeddings: 4096,
  moe_intermediate_size: 768,
  moe_layer_freq: 1,
  n_group: 1,
  n_routed_experts: 32,
  n_shared_experts: 1,
  norm_topk_prob: false,
  num_attention_heads: 16,
  num_experts_per_tok: 8,
  num_hidden_layers: 8,
  num_key_value_heads: 16,
  q_lora_rank: null,
  qk_nope_head_dim: 128,
  qk_rope_head_dim: 64,
  v_head_dim: 128,
  rms_norm_eps: 1e-6,
  rope_scaling: null,
  rope_theta: 10000,
  routed_scaling_factor: 1.0,
  scoring_func: 'softmax',
  tie_word_embeddings: false,
  topk_group: 1,
  topk_method: 'greedy',
  torch_dtype: 'bfloat16',
  vocab_size: 102400,
  bos_token_id: 0,
  eos_token_id: 1,
};

interface Work {
  /** Bytes of weights and scales that one token reads. */
  readonly bytes: number;
  /** Multiply-adds of weights for one token of a prompt, in floating-point operations, without the head. */
  readonly flops: number;
  readonly parameters: number;
  readonly active: number;
}
/** What a token costs, from the program itself: chosen experts only, one row of the embedding. */
function workOf(p: Program): Work {
  let bytes = 0;
  let flops = 0;
  let parameters = 0;
  let active = 0;
  for (const w of p.weights) {
    const shape = w.type.shape as readonly number[];
    const count = shape.reduce((a, b) => a * b, 1);
    const stored = w.origin.parts.reduce(
      (n, part) => n + part.bytes[1] - part.bytes[0] + (part.scale ? part.scale.bytes[1] - part.scale.bytes[0] : 0),
      0,
    );
    const embedding = /embed/.test(w.name);
    const share = shape.length === 3 ? config.num_experts_per_tok / (shape[0] as number) : embedding ? 1 / (shape[0] as number) : 1;
    parameters += count;
    active += count * share;
    bytes += stored * share;
    if (shape.length > 1 && !embedding && !/lm_head/.test(w.name)) flops += 2 * count * share;
  }
  return { bytes, flops, parameters, active };
}

const { values: o } = parseArgs({
  options: {
    schemes: { type: 'string', default: 'none,int8,int4' },
    prompt: { type: 'string', default: '128' },
    decode: { type: 'string', default: '48' },
    threads: { type: 'string', default: String(cpus().length) },
    dir: { type: 'string', default: join(tmpdir(), 'hkgai-bench') },
  },
});
const compiler = process.env.CC ?? 'cc';
const here = fileURLToPath(new URL('.', import.meta.url));
const header = fileURLToPath(new URL('../targets/cpu/header', import.meta.url));

mkdirSync(o.dir, { recursive: true });
process.stderr.write(`model and bundles in ${o.dir}\n`);
const model = join(o.dir, 'model');
writeModel(model, config);
const verbs = join(o.dir, 'verbs');
execFileSync(compiler, [
  ...['-std=c17', '-O3', '-march=native', '-ffp-contract=fast', '-fopenmp-simd', `-I${header}`],
  ...[join(here, 'verbs.c'), '-o', verbs, '-lm', '-lpthread'],
]);
const roofs = (): { readonly read: number; readonly fma: number } => {
  const line = execFileSync(verbs, [o.threads, 'roofs'], { encoding: 'utf8' }).split('\n', 1)[0] as string;
  const r = JSON.parse(line) as { readonly read_gb_s: number; readonly fma_gflop_s: number };
  return { read: r.read_gb_s, fma: r.fma_gflop_s };
};
for (const scheme of o.schemes.split(',') as ('none' | 'int8' | 'int4')[]) {
  const out = join(o.dir, scheme);
  const limits = { context: 1024, sequences: 1, chunk: Number(o.prompt) } as const;
  const options = { ...limits, state: 'f32', mtp: 'drop', allowPhantomKeys: false } as const;
  await compile(
    model,
    {
      ...options,
      out,
      targets: ['cpu'],
      quantise: scheme === 'none' ? 'none' : `fixtures/recipes/all-${scheme}.json`,
      weights: 'auto',
      force: true,
      version: 'bench',
    },
    { step: t => process.stderr.write(`${scheme}: ${t}\n`), at: () => undefined },
  );
  const native = join(out, 'cpu', 'native');
  execFileSync('sh', [join(native, 'build.sh')], { stdio: 'inherit' });
  const work = workOf(plan(join(out, 'cpu', 'engine'), options));
  const before = roofs();
  const ran = spawnSync(join(native, 'model'), ['--threads', o.threads, '--bench', o.prompt, o.decode], { encoding: 'utf8' });
  if (ran.status !== 0) throw new Error(`${scheme}: ${ran.stderr}`);
  const after = roofs();
  const measured = JSON.parse(ran.stdout) as { readonly prompt_per_s: number; readonly decode_per_s: number };
  const read = Math.max(before.read, after.read);
  const fma = Math.max(before.fma, after.fma);
  const gb = (measured.decode_per_s * work.bytes) / 1e9;
  const gflop = (measured.prompt_per_s * work.flops) / 1e9;
  process.stdout.write(
    `${JSON.stringify({
      scheme: scheme === 'none' ? 'bf16' : scheme,
      threads: Number(o.threads),
      parameters_b: +(work.parameters / 1e9).toFixed(2),
      active_b: +(work.active / 1e9).toFixed(2),
      decode_tokens_s: measured.decode_per_s,
      weights_gb_s: +gb.toFixed(1),
      read_gb_s: +read.toFixed(1),
      of_read: +(gb / read).toFixed(2),
      prompt_tokens_s: measured.prompt_per_s,
      gflop_s: +gflop.toFixed(1),
      fma_gflop_s: +fma.toFixed(1),
      of_fma: +(gflop / fma).toFixed(2),
    })}\n`,
  );
}
