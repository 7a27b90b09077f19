// What fusing saves: kernels and bytes of a token before and after, counted from the program, and the CPU's time of both, measured in turn.
//
//   node out/bench/bench/fusion.js [--models v3,v4] [--prompt 64] [--decode 32] [--runs 9] [--threads N] [--dir DIR]
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { compile, plan } from '../src/compile.js';
import { totalOf, trafficOf } from '../src/passes/fuse-traffic.js';
import { writeModel } from './model.js';

const common = {
  attention_bias: false,
  bos_token_id: 0,
  eos_token_id: 1,
  hidden_act: 'silu',
  hidden_size: 1024,
  max_position_embeddings: 4096,
  moe_intermediate_size: 512,
  n_routed_experts: 16,
  n_shared_experts: 1,
  norm_topk_prob: true,
  num_attention_heads: 16,
  num_experts_per_tok: 4,
  num_hidden_layers: 6,
  q_lora_rank: 512,
  qk_rope_head_dim: 32,
  rms_norm_eps: 1e-6,
  rope_scaling: null,
  rope_theta: 10000,
  routed_scaling_factor: 2.5,
  tie_word_embeddings: false,
  topk_method: 'noaux_tc',
  torch_dtype: 'bfloat16',
  vocab_size: 32768,
};
const configs: Readonly<Record<string, Readonly<Record<string, unknown>>>> = {
  v3: {
    ...common,
    architectures: ['DeepseekV3ForCausalLM'],
    model_type: 'deepseek_v3',
    first_k_dense_replace: 1,
    intermediate_size: 2816,
    kv_lora_rank: 256,
    moe_layer_freq: 1,
    n_group: 4,
    num_key_value_heads: 16,
    num_nextn_predict_layers: 0,
    qk_nope_head_dim: 64,
    scoring_func: 'sigmoid',
    topk_group: 2,
    v_head_dim: 64,
  },
  v4: {
    ...common,
    architectures: ['DeepseekV4ForCausalLM'],
    model_type: 'deepseek_v4',
    compress_ratios: [0, 4, 128, 4, 128, 4],
    compress_rope_theta: 160000,
    hc_eps: 1e-6,
    hc_mult: 4,
    hc_sinkhorn_iters: 20,
    head_dim: 128,
    index_head_dim: 64,
    index_n_heads: 16,
    index_topk: 128,
    num_hash_layers: 1,
    num_key_value_heads: 1,
    num_nextn_predict_layers: 0,
    o_groups: 4,
    o_lora_rank: 256,
    rope_scaling: { type: 'yarn', factor: 16, beta_fast: 32, beta_slow: 1, original_max_position_embeddings: 1024 },
    scoring_func: 'sqrtsoftplus',
    sliding_window: 128,
    swiglu_limit: 10,
  },
};

const { values: o } = parseArgs({
  options: {
    models: { type: 'string', default: Object.keys(configs).join(',') },
    prompt: { type: 'string', default: '64' },
    decode: { type: 'string', default: '32' },
    runs: { type: 'string', default: '9' },
    threads: { type: 'string', default: String(cpus().length) },
    dir: { type: 'string', default: join(tmpdir(), 'hkgai-bench-fusion') },
  },
});
mkdirSync(o.dir, { recursive: true });
process.stderr.write(`models and programs in ${o.dir}\n`);

const ways = [
  ['apart', { unfused: 'all' }],
  ['fused', {}],
] as const;
const row = (cells: readonly (string | number)[]): void => void process.stdout.write(`| ${cells.join(' | ')} |\n`);
const kb = (bytes: number): string => (bytes / 1e3).toFixed(1);
row(['model', '', 'kernels a token', 'weights MB', 'rows KB', 'caches KB', 'decode tokens/s', 'prompt tokens/s', 'processor s of a run']);
row(Array.from({ length: 9 }, () => '---'));
for (const name of o.models.split(',')) {
  const config = configs[name];
  if (!config) throw new Error(`there is no model ${name}; there are ${Object.keys(configs).join(', ')}`);
  const model = join(o.dir, name);
  writeModel(model, config);
  const limits = { context: 1024, sequences: 1, chunk: Number(o.prompt) } as const;
  const options = { ...limits, state: 'f32', mtp: 'drop', allowPhantomKeys: false } as const;
  const programs: string[] = [];
  for (const [way, passes] of ways) {
    const out = join(o.dir, `${name}-${way}`);
    const more = { out, targets: ['cpu'], quantise: 'none', weights: 'auto', force: true, version: 'bench', passes } as const;
    await compile(model, { ...options, ...more }, { step: t => process.stderr.write(`${name} ${way}: ${t}\n`), at: () => undefined });
    execFileSync('sh', [join(out, 'cpu', 'native', 'build.sh')], { stdio: 'inherit' });
    programs.push(join(out, 'cpu', 'native', 'model'));
  }
  // in turn, so that what else the machine does falls on both; the best of each
  const best = ways.map(() => ({ decode: 0, prompt: 0, processor: Number.POSITIVE_INFINITY }));
  for (let i = 0; i < Number(o.runs); i++)
    programs.forEach((program, w) => {
      // the shell's `times` says what processor time its children took, whoever else was running
      const command = `"${program}" --threads ${o.threads} --bench ${o.prompt} ${o.decode} && times`;
      const ran = spawnSync('sh', ['-c', command], { encoding: 'utf8' });
      if (ran.status !== 0) throw new Error(`${program}: ${ran.stderr}`);
      const [line, ...times] = ran.stdout.trim().split('\n') as [string, ...string[]];
      const measured = JSON.parse(line) as { readonly prompt_per_s: number; readonly decode_per_s: number };
      const [minutes, seconds] = (times[1]?.split(/[ms ]+/) ?? []).map(Number) as [number, number];
      const b = best[w] as (typeof best)[0];
      b.decode = Math.max(b.decode, measured.decode_per_s);
      b.prompt = Math.max(b.prompt, measured.prompt_per_s);
      b.processor = Math.min(b.processor, 60 * minutes + seconds);
    });
  ways.forEach(([way, passes], w) => {
    const program = plan(join(o.dir, `${name}-${way}`, 'cpu', 'engine'), { ...options, passes });
    const t = totalOf(trafficOf(program, { tokens: 1, context: Number(o.prompt) + Number(o.decode) }));
    const b = best[w] as (typeof best)[0];
    row([
      name,
      way,
      t.kernels,
      (t.weights / 1e6).toFixed(1),
      kb(t.rows),
      kb(t.states),
      b.decode.toFixed(1),
      b.prompt.toFixed(0),
      b.processor.toFixed(3),
    ]);
  });
}
