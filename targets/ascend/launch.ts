// How vllm-ascend, SGLang and MindIE are started on Ascend NPUs. VASC: vllm-project/vllm-ascend@5cb98caa (v0.23.0), docs/source.
import { Refusal } from '../../ir/problem.js';
import { versionsOf } from '../flags.js';
import { draftNotes, type Launch, parallelName } from '../launch.js';
import { launchDirectory, stagesEnv } from '../launch-directory.js';
import { notSpreadSo } from '../launch-problems.js';
import { sglangArgs, sglangFlags } from '../sglang.js';
import type { Env, StartedEngine } from '../started.js';
import type { Fact } from '../target.js';
import { vllmArgs, vllmFlags, wayObjection } from '../vllm.js';
import { family } from './chips.js';
import { ascendEngines } from './engine.js';
import { rankTable, rankTableBlanks } from './rank-table.js';

/** Of the container, by chip: VASC/tutorials/models/DeepSeek-V3.2.md:37-130, DeepSeek-V3.1.md:82-150. */
const mounts = [
  '/usr/local/dcmi',
  '/usr/local/Ascend/driver/tools/hccn_tool',
  '/usr/local/bin/npu-smi',
  '/usr/local/Ascend/driver/lib64',
  '/usr/local/Ascend/driver/version.info',
  '/etc/ascend_install.info',
] as const;
const suffixOf: Readonly<Record<string, string | undefined>> = { '910b': '', '910c': '-a3', '310p': '-310p' };
const releaseOf: Readonly<Record<string, string | undefined>> = { '0.18': 'v0.18.0', '0.23': 'v0.23.0' };
/** Where no version is named, the newest stable one. */
function vllmImage(version: string | null, chip: string): Fact<string> | null {
  const suffix = suffixOf[chip];
  const release = releaseOf[version ?? '0.23'];
  return suffix === undefined || release === undefined
    ? null
    : {
        value: `quay.io/ascend/vllm-ascend:${release}${suffix}`,
        source: 'vllm-project/vllm-ascend, releases; docs/source/tutorials/models/DeepSeek-V3.2.md:45, 89',
      };
}
const kubernetesDoc = 'vllm-project/vllm-ascend@5cb98caa:docs/source/user_guide/deployment_guide/using_volcano_kthena.md:38-40';
const resourceOf = (chip: string): Fact<string> | null =>
  chip === '950'
    ? null
    : {
        value: chip === '310p' ? 'huawei.com/Ascend310P' : 'huawei.com/Ascend910',
        source: `MindCluster's name (${kubernetesDoc}); Huawei's cloud has huawei.com/ascend-310 and huawei.com/ascend-1980`,
      };

export const ascendLaunch: Launch = (model, p, runtime, options) => {
  const chip = family(options.chip);
  const many = p.nodes > 1;
  const devices = Array.from({ length: p.devicesPerNode }, (_, i) => i);
  const davinci = [...devices.map(i => `--device /dev/davinci${i}`), '--device /dev/davinci_manager'];
  const docker = [
    '--network host',
    '--shm-size 1g',
    ...(chip === '910c' ? ['--privileged=true'] : []),
    ...davinci,
    '--device /dev/devmm_svm',
    '--device /dev/hisi_hdc',
    ...mounts.map(m => `-v ${m}:${m}`),
  ];
  const pod = {
    resource: resourceOf(chip),
    // VASC/developer_guide/contribution/multi_node_test.md: the device plugin's runtime brings the rest
    hostPaths: [{ path: '/usr/local/Ascend/driver/tools', kind: 'Directory' }],
    shm: '15Gi',
    capabilities: [],
  } as const;
  const common: readonly Env[] = [{ name: 'PYTORCH_NPU_ALLOC_CONF', value: 'expandable_segments:True' }];
  const between: readonly Env[] = many ? [{ name: 'HCCL_IF_IP', value: { ref: 'self' } }] : [];
  const ports = 'Devices talk over their own network: `hccn_tool -i 0 -net_health -g` on every node says whether it is up.';

  const vllmAscend = (version: string | null): StartedEngine => {
    const map = model.expertMaps['vllm-ascend'];
    const versions = versionsOf(vllmFlags, version);
    if (p.redundant > 0 && map === undefined)
      throw new Refusal([
        notSpreadSo(
          'vllm-ascend',
          parallelName(p),
          'it takes experts that stand twice from a map alone',
          'Write a map, or spread without them.',
        ),
      ]);
    const extras = {
      balances: false,
      ...(model.format === 'ascendv1' && model.quantisation !== null ? { quantization: 'ascend' } : {}),
      compilation: { cudagraph_mode: 'FULL_DECODE_ONLY' },
      // vllm_ascend/eplb/core/eplb_utils.py:27-43; vllm_ascend/ascend_config.py, eplb_config
      ...(map === undefined ? {} : { additional: ['{"eplb_config":{"expert_map_path":"', { ref: 'model' as const }, `/${map}"}}`] }),
    };
    const mp = wayObjection('mp', p, versions) === null;
    const ray = many && wayObjection('ray', p, versions) === null;
    const args = (leads: boolean) => vllmArgs(model, p, version, options, 'mp', leads, extras);
    const rayArgs = () => vllmArgs(model, p, version, options, 'ray', true, extras);
    if (mp) args(false);
    if (ray || !mp) rayArgs();
    return {
      name: 'vllm-ascend',
      about: 'vllm-ascend',
      program: ['vllm', 'serve'],
      args: mp ? args : null,
      ray: ray ? rayArgs : null,
      // VASC/tutorials/models/DeepSeek-V3.2.md:140-147, 193-205, 295-310
      env: [
        ...stagesEnv('VLLM_PP_LAYER_PARTITION', model),
        { name: 'HCCL_OP_EXPANSION_MODE', value: 'AIV' },
        { name: 'HCCL_BUFFSIZE', value: '200' },
        { name: 'OMP_PROC_BIND', value: 'false' },
        { name: 'OMP_NUM_THREADS', value: '10' },
        ...common,
        ...between,
        ...(many && chip === '910b'
          ? [
              { name: 'HCCL_CONNECT_TIMEOUT', value: '120' },
              { name: 'HCCL_INTRA_PCIE_ENABLE', value: '1' },
              { name: 'HCCL_INTRA_ROCE_ENABLE', value: '0' },
            ]
          : []),
        // the second model runner takes no map (vllm_ascend/platform.py:749-763 of 182b75ea)
        ...(map !== undefined && versions.includes('head') ? [{ name: 'VLLM_USE_V2_MODEL_RUNNER', value: '0' }] : []),
      ],
      // VASC/tutorials/features/ray.md:107-131
      rayEnv: [
        { name: 'RAY_EXPERIMENTAL_NOSET_ASCEND_RT_VISIBLE_DEVICES', value: '1' },
        { name: 'ASCEND_RT_VISIBLE_DEVICES', value: devices.join() },
      ],
      interfaceEnv: { names: ['GLOO_SOCKET_IFNAME', 'TP_SOCKET_IFNAME', 'HCCL_SOCKET_IFNAME'], needed: true },
      image: vllmImage(version, chip),
      docker,
      dockerIf: [],
      pod: { ...pod, followersAnswer: false },
      notes: [
        `Options are those of the vLLM that it stands on: ${versions.map(v => `${v} (${vllmFlags.versions[v]})`).join(', ')}.`,
        ...draftNotes(model, p),
        ...(ray ? ['`ray-node-K.sh` starts the same with Ray.'] : []),
        ...(map === undefined ? [] : ['The map of experts is read by the first model runner alone, and is announced to go.']),
        ...(many ? [ports] : []),
      ],
    };
  };
  const sglang = (version: string | null): StartedEngine => {
    const versions = versionsOf(sglangFlags, version);
    const extras = {
      device: 'npu',
      attention: 'ascend',
      ...(model.format === 'ascendv1' && model.quantisation !== null ? { quantization: 'modelslim' } : {}),
    };
    const args = () => sglangArgs(model, p, version, options, extras);
    args();
    return {
      name: 'sglang',
      about: 'SGLang',
      program: ['python3', '-m', 'sglang.launch_server'],
      args,
      ray: null,
      // docs/platforms/ascend/ascend_npu_deepseek_example.md:10-11
      env: [...stagesEnv('SGLANG_PP_LAYER_PARTITION', model), ...common, { name: 'STREAMS_PER_DEVICE', value: '32' }, ...between],
      rayEnv: [],
      interfaceEnv: { names: ['HCCL_SOCKET_IFNAME', 'GLOO_SOCKET_IFNAME'], needed: true },
      image:
        chip === '910b' || chip === '910c'
          ? {
              value: `quay.io/ascend/sglang:main-cann8.5.0-${chip === '910c' ? 'a3' : '910b'}`,
              source: 'Ascend/sglang@bf186cf8:docs/platforms/ascend/ascend_npu_quick_start.md:14-20; the tag moves, pin it',
            }
          : null,
      // docs/platforms/ascend/ascend_npu_quick_start.md:22-33
      docker: [
        '--privileged',
        '--network host',
        '--ipc host',
        '--shm-size 16g',
        ...davinci,
        '--device /dev/hisi_hdc',
        ...[
          '/usr/local/sbin',
          '/usr/local/Ascend/driver',
          '/usr/local/Ascend/firmware',
          '/etc/ascend_install.info',
          '/var/queue_schedule',
        ].map(m => `-v ${m}:${m}`),
      ],
      dockerIf: [],
      pod: { ...pod, shm: '16Gi', followersAnswer: true },
      notes: [
        `Options as in ${versions.map(v => `${v} (${sglangFlags.versions[v]})`).join(', ')}.`,
        '`--tp-size` counts all ranks of a stage; with `--enable-dp-attention` attention stands whole in groups of them.',
        ...draftNotes(model, p, ' (NEXTN)'),
        ...(many ? [ports] : []),
      ],
    };
  };
  const mindie = (): StartedEngine => {
    const superPod = chip === '910c';
    if (chip !== '910b' && chip !== '910c')
      throw new Refusal([
        notSpreadSo('MindIE', parallelName(p), `nothing public says how it is started on ${chip}`, 'Choose another --runtime or chip.'),
      ]);
    return {
      name: 'mindie',
      about: 'MindIE',
      program: ['sh', '-c', 'cd /usr/local/Ascend/mindie/latest/mindie-service && exec ./bin/mindieservice_daemon'],
      args: () => [],
      ray: null,
      // MindIE 1.0.RC3, installation guide, several machines: MIES_CONTAINER_IP, RANKTABLEFILE and MIES_CONFIG_JSON_PATH; RANK_TABLE_FILE is the later name
      env: [
        { name: 'MIES_CONFIG_JSON_PATH', value: { ref: 'blank', name: 'MINDIE_CONFIG' } },
        ...(many
          ? ([
              { name: 'RANK_TABLE_FILE', value: [{ ref: 'here' }, '/rank-table.json'] },
              { name: 'RANKTABLEFILE', value: [{ ref: 'here' }, '/rank-table.json'] },
              { name: 'MIES_CONTAINER_IP', value: { ref: 'self' } },
            ] as const)
          : []),
      ],
      rayEnv: [],
      interfaceEnv: { names: [], needed: false },
      image: null,
      docker: [
        ...docker,
        '-v "$HKGAI_MINDIE_CONFIG:$HKGAI_MINDIE_CONFIG:ro"',
        ...(many ? ['-v "$here/rank-table.json:$here/rank-table.json:ro"'] : []),
      ],
      dockerIf: [],
      pod: { ...pod, followersAnswer: false },
      ...(many ? { extra: () => [{ path: 'rank-table.json', text: rankTable(p, superPod) }], needsFiles: ['rank-table.json'] } : {}),
      blanks: [
        {
          name: 'MINDIE_CONFIG',
          about: "MindIE's config.json for this node",
          form: 'path',
          how: `copy mindie-service/conf/config.json out of the image; modelName, modelWeightPath (${'/models/…'} in the container), npuDeviceIds, ${
            many ? 'multiNodesInferEnabled: true, ' : ''
          }port`,
        },
        ...(many ? rankTableBlanks(p, superPod) : []),
      ],
      notes: [
        `How tp, dp and experts are spread is said in config.json of your version: ${parallelName(p)} is what was planned.`,
        ...(many
          ? [
              `rank-table.json is the form of version ${superPod ? '1.2, a super pod: every die is a rank' : '1.0'}; MindIE wants it with mode 640, which fill.sh sets.`,
            ]
          : ['On one node no table of ranks is read.']),
        'Its port and its address for health are those of config.json; `health.sh` is not for it.',
      ],
      noManifest: "No manifest: on Kubernetes the table of ranks is written by the cluster's own operator.",
    };
  };
  return launchDirectory('ascend', ascendEngines, { 'vllm-ascend': vllmAscend, sglang, mindie }, model, p, runtime, options);
};
