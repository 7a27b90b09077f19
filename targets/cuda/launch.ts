// How vLLM and SGLang are started on NVIDIA GPUs.
import { Refusal } from '../../ir/problem.js';
import { versionsOf } from '../flags.js';
import { draftNotes, type Launch, parallelName } from '../launch.js';
import { launchDirectory, stagesEnv } from '../launch-directory.js';
import { notSpreadSo } from '../launch-problems.js';
import { sglangArgs } from '../sglang.js';
import type { StartedEngine } from '../started.js';
import { vllmArgs, vllmFlags, wayObjection } from '../vllm.js';
import { cudaEngines } from './engine.js';

const gpu = {
  value: 'nvidia.com/gpu',
  source: "NVIDIA's device plugin; vllm-project/vllm@8b632575:docs/deployment/frameworks/lws.md",
};
const container = {
  // vllm-project/vllm@8b632575:docs/serving/parallelism_scaling.md, "Enabling GPUDirect RDMA"
  docker: ['--gpus all', '--network host', '--ipc host', '--cap-add IPC_LOCK'],
  dockerIf: [{ path: '/dev/infiniband', options: '--device /dev/infiniband' }],
  interfaceEnv: { names: ['NCCL_SOCKET_IFNAME', 'GLOO_SOCKET_IFNAME'], needed: false },
  rayEnv: [],
  image: null,
} as const;
const rdma =
  'Between nodes NCCL takes InfiniBand or RoCE where it finds it; in pods your cluster has to give RDMA devices, which is not said here.';

export const cudaLaunch: Launch = (model, p, runtime, options) => {
  const pods = {
    resource: gpu,
    hostPaths: [],
    shm: '16Gi',
    capabilities: ['IPC_LOCK'],
  } as const;
  const vllm = (version: string | null): StartedEngine => {
    const versions = versionsOf(vllmFlags, version);
    // supports_eplb of the methods for experts: Marlin's int4 (what GPUs take), int8 and mxfp4 of compressed-tensors have none
    // (vllm/model_executor/layers/quantization/compressed_tensors/compressed_tensors_moe*, in all versions that were read)
    const codes = model.format === 'compressed-tensors' ? (model.expertCodes ?? []).filter(e => e !== 'f8e4m3') : [];
    if (p.redundant > 0 && codes.length)
      throw new Refusal([
        notSpreadSo(
          'vLLM',
          parallelName(p),
          `experts that stand twice are balanced by it, which it does with plain and fp8 ones, and these are in ${codes.join(', ')}`,
          'Spread it without redundant experts, or choose another --quantise or --runtime.',
        ),
      ]);
    const extras = { filters: true } as const;
    const mp = wayObjection('mp', p, versions) === null;
    const ray = p.nodes > 1 && wayObjection('ray', p, versions) === null;
    const args = (leads: boolean) => vllmArgs(model, p, version, options, 'mp', leads, extras);
    const rayArgs = () => vllmArgs(model, p, version, options, 'ray', true, extras);
    // refuses now what neither way can do
    if (mp) args(false);
    if (ray || !mp) rayArgs();
    return {
      ...container,
      name: 'vllm',
      about: 'vLLM',
      program: ['vllm', 'serve'],
      args: mp ? args : null,
      ray: ray ? rayArgs : null,
      // its own address, where a node has several (vllm/envs.py, VLLM_HOST_IP)
      env: [
        ...(p.nodes > 1 ? [{ name: 'VLLM_HOST_IP', value: { ref: 'self' } } as const] : []),
        ...stagesEnv('VLLM_PP_LAYER_PARTITION', model),
      ],
      pod: { ...pods, followersAnswer: false },
      notes: [
        `Options as in ${versions.map(v => `${v} (${vllmFlags.versions[v]})`).join(', ')}.`,
        ...draftNotes(model, p),
        ...(ray ? ['`ray-node-K.sh` starts the same with Ray, which the image has to hold.'] : []),
        ...(mp || p.nodes === 1 ? [] : ['This version spreads a replica over nodes with Ray alone; the manifest does so too.']),
        ...(Object.keys(model.expertMaps).length === 0 ? [] : ['vLLM reads no map of experts: its placement is its own.']),
        ...(p.nodes > 1 ? [rdma] : []),
      ],
    };
  };
  const sglang = (version: string | null): StartedEngine => {
    const args = () => sglangArgs(model, p, version, options);
    args();
    return {
      ...container,
      name: 'sglang',
      about: 'SGLang',
      program: ['python3', '-m', 'sglang.launch_server'],
      args,
      ray: null,
      env: stagesEnv('SGLANG_PP_LAYER_PARTITION', model),
      pod: { ...pods, followersAnswer: true },
      notes: [
        '`--tp-size` counts all ranks of a stage; with `--enable-dp-attention` attention stands whole in groups of them.',
        ...draftNotes(model, p, ' (NEXTN)'),
        ...(p.nodes > 1 ? [rdma] : []),
      ],
    };
  };
  return launchDirectory('cuda', cudaEngines, { vllm, sglang }, model, p, runtime, options);
};
