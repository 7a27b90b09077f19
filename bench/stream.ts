// Source bytes a second of `hkgai compile` on made-up checkpoints of several GB, beside the floor: read, decode and encode, hash and write measured
// alone on this machine in the same run, summed over the cores. See bench/README.md.
//
//   node out/bench/bench/stream.js [--cases bf16-int8,…] [--jobs N] [--gb 3.5] [--dir DIR] [--keep]
import { spawnSync } from 'node:child_process';
import { closeSync, existsSync, mkdirSync, openSync, readdirSync, readFileSync, readSync, rmSync, statSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { Worker } from 'node:worker_threads';
import type { FloorData, FloorTime } from './floor.js';
import { writeModel } from './model.js';

/** One layer of V3 with `experts` experts of 2048 x 7168; the whole layer has 256. */
const layer = (experts: number, fp8: boolean): Readonly<Record<string, unknown>> => ({
  architectures: ['DeepseekV3ForCausalLM'],
  model_type: 'deepseek_v3',
  attention_bias: false,
  first_k_dense_replace: 0,
  hidden_act: 'silu',
  hidden_size: 7168,
  intermediate_size: 18432,
  kv_lora_rank: 512,
  max_position_embeddings: 163840,
  moe_intermediate_size: 2048,
  moe_layer_freq: 1,
  n_group: 8,
  n_routed_experts: experts,
  n_shared_experts: 1,
  norm_topk_prob: true,
  num_attention_heads: 128,
  num_experts_per_tok: 8,
  num_hidden_layers: 1,
  num_key_value_heads: 128,
  num_nextn_predict_layers: 0,
  q_lora_rank: 1536,
  qk_nope_head_dim: 128,
  qk_rope_head_dim: 64,
  v_head_dim: 128,
  rms_norm_eps: 1e-6,
  rope_scaling: null,
  rope_theta: 10000,
  routed_scaling_factor: 2.5,
  scoring_func: 'sigmoid',
  tie_word_embeddings: false,
  topk_group: 4,
  topk_method: 'noaux_tc',
  torch_dtype: 'bfloat16',
  vocab_size: 8192,
  bos_token_id: 0,
  eos_token_id: 1,
  ...(fp8
    ? { quantization_config: { quant_method: 'fp8', fmt: 'e4m3', activation_scheme: 'dynamic', weight_block_size: [128, 128] } }
    : {}),
});
interface Case {
  readonly fp8: boolean;
  readonly args: readonly string[];
  /** What the floor converts: source and target of the expert matrices. */
  readonly to: FloorData['to'];
  readonly search?: 'mse';
  /** GB/s that issue and prototype set as the goal on two cores. */
  readonly goal?: number;
  readonly whole?: true;
}
const cases: Readonly<Record<string, Case>> = {
  'bf16-int8': { fp8: false, args: ['-t', 'ascend', '--quantise', 'w8a8'], to: 'int8', goal: 2.0 },
  'bf16-int4': { fp8: false, args: ['-t', 'cuda', '--quantise', 'w4a16-g128'], to: 'int4g128', goal: 2.7 },
  'bf16-int4-g32': { fp8: false, args: ['-t', 'cuda', '--quantise', 'w4a16'], to: 'int4g32' },
  'fp8-int8': { fp8: true, args: ['-t', 'ascend', '--quantise', 'w8a8'], to: 'int8', goal: 1.25 },
  'fp8-int4': { fp8: true, args: ['-t', 'cuda', '--quantise', 'w4a16'], to: 'int4g32' },
  'fp8-bf16': { fp8: true, args: ['-t', 'biren', '--quantise', 'bf16'], to: 'bf16' },
  'bf16-int8-mse': { fp8: false, args: ['-t', 'ascend', '--quantise', 'w8a8', '--search', 'mse'], to: 'int8', search: 'mse' },
  'bf16-int4-mse': { fp8: false, args: ['-t', 'cuda', '--quantise', 'w4a16', '--search', 'mse'], to: 'int4g32', search: 'mse' },
  'layer-w8a8': { fp8: true, args: ['-t', 'ascend', '--quantise', 'w8a8'], to: 'int8', whole: true },
  'layer-w4a16': { fp8: true, args: ['-t', 'cuda', '--quantise', 'w4a16'], to: 'int4g32', whole: true },
};

const { values: o } = parseArgs({
  options: {
    cases: { type: 'string', default: Object.keys(cases).join(',') },
    jobs: { type: 'string', default: String(cpus().length) },
    gb: { type: 'string', default: '3.5' },
    dir: { type: 'string', default: join(tmpdir(), 'hkgai-bench-stream') },
    memory: { type: 'string' },
    runs: { type: 'string', default: '3' },
    keep: { type: 'boolean', default: false },
  },
});
const cli = fileURLToPath(new URL('../../../bin/hkgai.js', import.meta.url));
const usage = fileURLToPath(new URL('./usage.js', import.meta.url));
const sizeOf = (dir: string): number =>
  readdirSync(dir, { recursive: true, withFileTypes: true }).reduce(
    (n, e) => (e.isFile() && e.name.endsWith('.safetensors') ? n + statSync(join(e.parentPath, e.name)).size : n),
    0,
  );

interface Floor {
  /** Seconds, summed over threads. */
  readonly wall: FloorTime;
  /** Processor seconds: other programs on the machine do not count in them. */
  readonly cpu: FloorTime;
}
/** Each kind of work alone, for the bytes of a run, one kind after another on all threads. */
async function floor(c: Case, model: string, source: number, output: number, jobs: number): Promise<Floor> {
  const out = join(o.dir, 'floor');
  mkdirSync(out, { recursive: true });
  const workers = Array.from({ length: jobs }, (_, thread) => {
    const data: FloorData = { model, out, thread, jobs, fp8: c.fp8, to: c.to, search: c.search ?? 'absmax', source, output };
    return new Worker(new URL('./floor.js', import.meta.url), { workerData: data });
  });
  const [wall, cpu]: [Record<string, number>, Record<string, number>] = [{}, {}];
  // writing first: where the last run's files just went away, as it is for every run but the first
  for (const kind of ['write', 'read', 'convert', 'hash'] as const) {
    const before = process.cpuUsage();
    const each = await Promise.all(
      workers.map(
        w =>
          new Promise<number>((resolve, reject) => {
            w.once('message', resolve);
            w.once('error', reject);
            w.postMessage(kind);
          }),
      ),
    );
    const { user, system } = process.cpuUsage(before);
    wall[kind] = each.reduce((a, b) => a + b, 0);
    cpu[kind] = (user + system) / 1e6;
  }
  for (const w of workers) w.postMessage(null);
  rmSync(out, { recursive: true, force: true });
  return { wall: wall as unknown as FloorTime, cpu: cpu as unknown as FloorTime };
}
const sum = (t: FloorTime): number => t.read + t.convert + t.hash + t.write;
const rounded = (t: FloorTime): Record<string, number> => Object.fromEntries(Object.entries(t).map(([k, v]) => [k, +v.toFixed(2)]));

mkdirSync(o.dir, { recursive: true });
for (const name of o.cases.split(',')) {
  const c = cases[name];
  if (!c) throw new Error(`${name} is no case; there are ${Object.keys(cases).join(', ')}`);
  const each = 3 * 2048 * 7168 * (c.fp8 ? 1 : 2);
  const experts = c.whole ? 256 : Math.max(16, Math.round((Number(o.gb) * 1e9) / each / 8) * 8);
  const model = join(o.dir, `${c.fp8 ? 'fp8' : 'bf16'}-${experts}`);
  process.stderr.write(`${name}: model of ${experts} experts in ${model}\n`);
  writeModel(model, layer(experts, c.fp8));
  const source = sizeOf(model);
  const out = join(o.dir, 'out');
  const report = join(o.dir, 'usage.json');
  // once through the source, so that it is in memory where it fits
  const warm = Buffer.alloc(1 << 20);
  for (const f of readdirSync(model).filter(n => n.endsWith('.safetensors'))) readThrough(join(model, f), warm);
  const runs: { wall: number; cpu: number; rss: number; weights: number; check: number }[] = [];
  let output = 0;
  for (let i = 0; i < Number(o.runs); i++) {
    rmSync(out, { recursive: true, force: true });
    const begin = performance.now();
    const ran = spawnSync(
      process.execPath,
      [
        ...['--import', usage, cli, 'compile', model, '-o', out, ...c.args, '--no-cache', '-q', '--json', '--jobs', o.jobs],
        ...(o.memory ? ['--max-memory', o.memory] : []),
      ],
      { encoding: 'utf8', env: { ...process.env, HKGAI_USAGE: report } },
    );
    const wall = (performance.now() - begin) / 1e3;
    if (ran.status !== 0) throw new Error(`${name}: ${ran.stdout}${ran.stderr}`);
    const u = JSON.parse(readFileSync(report, 'utf8')) as { readonly rss: number; readonly cpu: number };
    const { phases } = JSON.parse(ran.stdout) as { readonly phases: { readonly weights: number; readonly check: number } };
    output = sizeOf(out);
    runs.push({ wall, cpu: u.cpu, rss: u.rss, weights: phases.weights, check: phases.check });
  }
  if (!o.keep) rmSync(out, { recursive: true, force: true });
  const f = await floor(c, model, source, output, Math.max(1, Number(o.jobs)));
  const total = sum(f.wall) / Math.max(1, Number(o.jobs));
  const best = runs.reduce((a, b) => (b.wall < a.wall ? b : a));
  process.stdout.write(
    `${JSON.stringify({
      case: name,
      source_gb: +(source / 1e9).toFixed(2),
      output_gb: +(output / 1e9).toFixed(2),
      jobs: Number(o.jobs),
      source_gb_s: +(source / 1e9 / best.wall).toFixed(2),
      weights_gb_s: +(source / 1e9 / best.weights).toFixed(2),
      ...(c.goal === undefined ? {} : { goal_gb_s: c.goal }),
      check_s: +best.check.toFixed(2),
      wall_s: runs.map(r => +r.wall.toFixed(2)),
      cpu_s: +best.cpu.toFixed(2),
      peak_rss_mb: Math.max(...runs.map(r => Math.round(r.rss / 2 ** 20))),
      floor_gb_s: +(source / 1e9 / total).toFixed(2),
      floor_thread_s: rounded(f.wall),
      of_floor: +(total / best.wall).toFixed(2),
      floor_cpu_s: rounded(f.cpu),
      of_floor_cpu: +(sum(f.cpu) / Math.min(...runs.map(r => r.cpu))).toFixed(2),
    })}\n`,
  );
}
if (!o.keep && existsSync(o.dir)) rmSync(o.dir, { recursive: true, force: true });

function readThrough(path: string, buffer: Buffer): void {
  const fd = openSync(path, 'r');
  while (readSync(fd, buffer) > 0);
  closeSync(fd);
}
