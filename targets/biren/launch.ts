// How the vendor's vLLM is started on Biren GPUs. What is known of it publicly is one server: ZihanDong/br-release@baaf3769, infer/llm/vllm.
import { Refusal } from '../../ir/problem.js';
import type { FlagTable } from '../flags.js';
import { type Launch, parallelName } from '../launch.js';
import { launchDirectory, stagesEnv } from '../launch-directory.js';
import { notSpreadSo } from '../launch-problems.js';
import type { StartedEngine } from '../started.js';
import { vllmArgs, vllmFlags, wayObjection } from '../vllm.js';
import { family } from './chips.js';
import { birenEngines } from './engine.js';

const only = (line: number): Readonly<Record<string, number>> => ({ br1xx: line });
/** Options that a published script gives the vendor's vLLM; those of br2xx are vLLM's own (vllm_supa stands on vLLM 0.27). */
export const vllmBrFlags: FlagTable = {
  engine: "the vendor's vLLM",
  versions: { br1xx: 'ZihanDong/br-release@baaf3769490a81ff4ebfaa301844ec418d4bdcd4' },
  usual: ['br1xx'],
  file: 'infer/llm/vllm/vllm_server_pd.sh',
  flags: {
    '--model': { takes: 'text', at: only(210) },
    '--served-model-name': { takes: 'text', at: only(212) },
    '--host': { takes: 'text', at: only(208) },
    '--port': { takes: 'whole', at: only(209) },
    '--max-model-len': { takes: 'whole', at: only(217) },
    '--tensor-parallel-size': { takes: 'whole', at: only(220) },
    '--pipeline-parallel-size': { takes: 'whole', at: only(221) },
    '--data-parallel-size': { takes: 'whole', at: only(222) },
    '--distributed-executor-backend': { takes: ['mp', 'ray'], at: only(224) },
    '--compilation-config': { takes: 'json', at: only(230) },
    '--enable-expert-parallel': { takes: 'switch', at: only(33), file: 'infer/llm/configs/vllm_minimax-m2.5.conf' },
  },
};

export const birenLaunch: Launch = (model, p, runtime, options) => {
  const first = family(options.chip) !== 'br2xx';
  const table = first ? vllmBrFlags : vllmFlags;
  const started = (): StartedEngine => {
    const version = first ? 'br1xx' : 'head';
    const extras = {
      table,
      drafts: !first,
      ...(first ? { model: '--model' as const } : {}),
      compilation: { cudagraph_mode: 'FULL_DECODE_ONLY' },
    } as const;
    const mp = wayObjection('mp', p, [version], table) === null;
    const ray = p.nodes > 1 && wayObjection('ray', p, [version], table) === null;
    if (p.redundant > 0 && first)
      throw new Refusal([
        notSpreadSo(table.engine, parallelName(p), 'it is not known to hold an expert twice', 'Spread it without redundant experts.'),
      ]);
    const args = (leads: boolean) => vllmArgs(model, p, version, options, 'mp', leads, extras);
    const rayArgs = () => vllmArgs(model, p, version, options, 'ray', true, extras);
    if (mp) args(false);
    if (ray || !mp) rayArgs();
    const cards = Array.from({ length: p.devicesPerNode }, (_, i) => i);
    return {
      name: 'vllm-br',
      about: "the vendor's vLLM",
      // infer/llm/vllm/vllm_server_pd.sh:204-210
      program: first ? ['python3', '-m', 'vllm.entrypoints.openai.api_server'] : ['vllm', 'serve'],
      keepsEntrypoint: true,
      args: mp ? args : null,
      ray: ray ? rayArgs : null,
      env: [
        ...stagesEnv('VLLM_PP_LAYER_PARTITION', model),
        ...(first
          ? [
              // infer/llm/vllm/vllm_server.sh:114-116
              { name: 'VLLM_USE_V1', value: '1' },
              { name: 'VLLM_WORKER_MULTIPROC_METHOD', value: 'spawn' },
              { name: 'VLLM_BR_WEIGHT_TYPE', value: 'NUMA' },
            ]
          : []),
        ...(p.nodes > 1 ? [{ name: 'VLLM_HOST_IP', value: { ref: 'self' } as const }] : []),
      ],
      rayEnv: [],
      interfaceEnv: { names: ['SUCCL_SOCKET_IFNAME', 'GLOO_SOCKET_IFNAME'], needed: false },
      image: first
        ? {
            value: 'birensupa-smartinfer-vllm:26.04.rc2-py310-pt2.8.0-br1xx',
            source:
              'ZihanDong/br-release@baaf3769:infer/llm/configs/vllm_qwen3-vl-32b.conf:27; it comes from the vendor as a file for docker load',
          }
        : null,
      // infer/llm/vllm/run_docker.sh:324-334
      docker: [
        '--network host',
        '--shm-size 256g',
        '--cap-add IPC_LOCK',
        '--ulimit memlock=-1',
        '--device /dev/biren-m',
        ...cards.map(i => `--device /dev/biren/card_${i}`),
        `-e BIREN_VISIBLE_DEVICES=${cards.join()}`,
      ],
      dockerIf: [],
      pod: {
        resource: { value: 'birentech.com/gpu', source: 'Project-HAMi/biren-device-plugin, README' },
        runtimeClass: 'biren',
        nodeSelector: { 'birentech.com': 'gpu' },
        hostPaths: [],
        shm: '256Gi',
        capabilities: ['IPC_LOCK'],
        followersAnswer: false,
      },
      notes: [
        'The image keeps its entry point, which sets where libraries are; there is no public registry for it.',
        ...(first ? [] : ['For br2xx no image is published yet; options are those of vLLM that its plug-in stands on.']),
        ...(first && p.nodes > 1
          ? ["Nothing public says how this engine is started on several nodes: this is vLLM's own way with Ray, not tried on its devices."]
          : []),
        ...(first && model.hasMtp ? ['It is not known to draft with MTP blocks: it is not told to.'] : []),
        'No public recipe for DeepSeek on these devices was found: the options are those that other mixtures of experts are served with.',
      ],
    };
  };
  return launchDirectory('biren', birenEngines, { 'vllm-br': started }, model, p, runtime, options);
};
