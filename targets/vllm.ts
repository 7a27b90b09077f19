// vLLM's options by version, and the command that spreads a model: shared by every target whose engine is vLLM or stands on it.
import { Refusal } from '../ir/problem.js';
import { type Arg, type FlagTable, hasFlag, held, versionsOf, type Word } from './flags.js';
import { draftsWith, type LaunchModel, type LaunchOptions, type Parallel, parallelName } from './launch.js';
import { notSpreadSo } from './launch-problems.js';

const args = 'vllm/engine/arg_utils.py';
const cli = 'vllm/entrypoints/openai/cli_args.py';
const at = (old: number | null, v18: number, v23: number, head: number): Readonly<Record<string, number>> => ({
  ...(old === null ? {} : { '0.10': old }),
  '0.18': v18,
  '0.23': v23,
  head,
});
const backends = ['ray', 'mp', 'uni', 'external_launcher'] as const; // vllm/config/parallel.py, DistributedExecutorBackend
const older = [
  'naive',
  'pplx',
  'deepep_high_throughput',
  'deepep_low_latency',
  'nixl_ep',
  'allgather_reducescatter',
  'flashinfer_all2allv',
  'flashinfer_nvlink_two_sided',
  'flashinfer_nvlink_one_sided',
] as const;
/** Commits: v0.10.0; what vllm-ascend v0.18.0 was tested with beside vLLM 0.18.0; the branch of v0.23.0; main of 2026-08-17. */
export const vllmFlags: FlagTable = {
  engine: 'vLLM',
  versions: {
    '0.10': 'vllm-project/vllm@6d8d0a24c02bfd84d46b3016b865a44f048ae84b',
    '0.18': 'vllm-project/vllm@8b6325758cce5f9c36d38f2462edbd368b97a07c',
    '0.23': 'vllm-project/vllm@0fc695fc6d1d82e9a5ac6835ac8e4e1c83703665',
    head: 'vllm-project/vllm@017e9f4448b700e85ee16023287b025693c72b9e',
  },
  usual: ['0.18', '0.23', 'head'],
  file: args,
  flags: {
    MODEL: { takes: 'text', at: { '0.10': 214, '0.18': 325, '0.23': 348, head: 374 }, file: cli },
    '--served-model-name': { takes: 'text', at: at(503, 721, 837, 900) },
    '--host': { takes: 'text', at: at(71, 219, 228, 246), file: cli },
    '--port': { takes: 'whole', at: at(73, 221, 230, 248), file: cli },
    '--headless': { takes: 'switch', at: at(220, 331, 354, 380), file: cli },
    '--max-model-len': { takes: 'whole', at: at(483, 695, 807, 866) },
    '--tensor-parallel-size': { takes: 'whole', at: at(599, 826, 975, 1055) },
    '--pipeline-parallel-size': { takes: 'whole', at: at(597, 813, 951, 1017) },
    '--data-parallel-size': { takes: 'whole', at: at(601, 851, 1000, 1080) },
    '--data-parallel-size-local': { takes: 'whole', at: at(614, 867, 1018, 1098) },
    '--data-parallel-start-rank': { takes: 'whole', at: at(609, 861, 1012, 1092) },
    '--data-parallel-address': { takes: 'text', at: at(619, 873, 1024, 1104) },
    '--data-parallel-rpc-port': { takes: 'whole', at: at(624, 879, 1030, 1110) },
    '--data-parallel-backend': { takes: ['ray', 'mp'], at: at(629, 885, 1036, 1117) },
    '--distributed-executor-backend': { takes: backends, at: at(594, 809, 947, 1013) },
    '--nnodes': { takes: 'whole', at: at(null, 819, 957, 1023) },
    '--node-rank': { takes: 'whole', at: at(null, 820, 958, 1024) },
    '--master-addr': { takes: 'text', at: at(null, 817, 955, 1021) },
    '--master-port': { takes: 'whole', at: at(null, 818, 956, 1022) },
    '--enable-expert-parallel': { takes: 'switch', at: at(639, 902, 1062, 1143) },
    '--enable-ep-weight-filter': { takes: 'switch', at: at(null, 907, 1067, 1148) },
    '--enable-eplb': { takes: 'switch', at: at(641, 933, 1093, 1174) },
    '--eplb-config': { takes: 'json', at: at(null, 934, 1094, 1175) },
    // the words: vllm/config/parallel.py, All2AllBackend
    '--all2all-backend': {
      takes: {
        '0.18': [...older, 'mori'],
        '0.23': [...older, 'mori_high_throughput', 'mori_low_latency'],
        head: [...older, 'mori_high_throughput', 'mori_low_latency', 'deepep_v2'],
      },
      at: at(null, 911, 1071, 1152),
    },
    '--quantization': { takes: 'text', at: at(485, 696, 808, 867) },
    '--speculative-config': { takes: 'json', at: at(745, 1271, 1465, 1623) },
    '--compilation-config': { takes: 'json', at: at(834, 1281, 1481, 1646) },
    '--additional-config': { takes: 'json', at: at(836, 1288, 1489, 1654) },
    '--reasoning-parser': { takes: 'text', at: at(582, 793, 931, 997) },
    '--tool-call-parser': { takes: 'text', at: at(252, 117, 114, 111), file: cli },
    '--enable-auto-tool-choice': { takes: 'switch', at: at(135, 111, 108, 105), file: cli },
  },
};

/** How several nodes become one engine: a process of vLLM's own on each, or Ray. */
export type Way = 'mp' | 'ray';
/** vLLM's own ports, save the first, which its document uses (docs/serving/data_parallel_deployment.md:42; vllm/config/parallel.py:242). */
export const vllmPorts = { rpc: 13345, master: 29501, ray: 6379 } as const;

/** Whether replicas lie whole inside nodes, or nodes whole inside replicas. Null: neither. */
export function layoutOf(p: Parallel): 'inside' | 'across' | null {
  const replica = p.tp * p.pp;
  if (p.devicesPerNode % replica === 0) return 'inside';
  return replica % p.devicesPerNode === 0 ? 'across' : null;
}
/** Why vLLM cannot be started so over several nodes; null where it can. */
export function wayObjection(way: Way, p: Parallel, versions: readonly string[], table: FlagTable = vllmFlags): string | null {
  if (p.nodes === 1) return null;
  const layout = layoutOf(p);
  if (layout === null) return `a replica of ${p.tp * p.pp} devices neither fits into a node of ${p.devicesPerNode} nor fills whole nodes`;
  if (way === 'ray')
    return p.dp > 1 && layout === 'across'
      ? 'with Ray, replicas that reach over nodes are not started beside one another here'
      : p.dp > 1 && !hasFlag(table, versions, '--data-parallel-backend')
        ? 'it is not known to take replicas with Ray'
        : null;
  if (p.dp > 1 && layout === 'inside')
    return hasFlag(table, versions, '--data-parallel-start-rank') ? null : 'it is not known to take replicas on several nodes';
  return hasFlag(table, versions, '--nnodes') ? null : 'without --nnodes it needs Ray';
}
/**
 * What each node is told (0.18: vllm/engine/arg_utils.py:1586-1687). The first node's start rank is left out: saying 0 would make every node serve
 * HTTP (vllm/entrypoints/cli/serve.py:75-77).
 */
function spread(way: Way, p: Parallel, leads: boolean, start: Word): readonly Arg[] {
  if (p.nodes === 1) return [];
  const follows: readonly Arg[] = leads ? [] : [{ flag: '--headless', value: null }];
  const local = String(p.devicesPerNode / (p.tp * p.pp));
  if (way === 'ray')
    return p.dp > 1
      ? [
          { flag: '--data-parallel-backend', value: 'ray' },
          { flag: '--data-parallel-size-local', value: local },
          { flag: '--data-parallel-address', value: { ref: 'leader' } },
        ]
      : [{ flag: '--distributed-executor-backend', value: 'ray' }];
  if (p.dp > 1 && layoutOf(p) === 'inside')
    return [
      { flag: '--data-parallel-size-local', value: local },
      { flag: '--data-parallel-address', value: { ref: 'leader' } },
      { flag: '--data-parallel-rpc-port', value: String(vllmPorts.rpc) },
      ...follows,
      ...(leads ? [] : [{ flag: '--data-parallel-start-rank', value: start }]),
    ];
  return [
    { flag: '--distributed-executor-backend', value: 'mp' },
    { flag: '--nnodes', value: String(p.nodes) },
    { flag: '--node-rank', value: { ref: 'rank' } },
    { flag: '--master-addr', value: { ref: 'leader' } },
    { flag: '--master-port', value: String(vllmPorts.master) },
    ...follows,
  ];
}
/** What a target adds to vLLM's command. */
export interface VllmExtras {
  readonly table?: FlagTable;
  readonly quantization?: string;
  readonly compilation?: Readonly<Record<string, unknown>>;
  /** A JSON object. */
  readonly additional?: Word;
  /** Draft with MTP blocks where the model has them; false where the engine is not known to. */
  readonly drafts?: boolean;
  /** vLLM's own balancing of experts; false where the engine has another. */
  readonly balances?: boolean;
  /** The option that names the model, where it does not stand alone. */
  readonly model?: '--model';
  /** Read only the experts of the own rank. */
  readonly filters?: boolean;
}
const whole = (flag: string, n: number): readonly Arg[] => (n > 1 ? [{ flag, value: String(n) }] : []);
const json = (flag: string, v: Readonly<Record<string, unknown>> | undefined): readonly Arg[] =>
  v && Object.keys(v).length ? [{ flag, value: JSON.stringify(v) }] : [];

/** The command's arguments on one kind of node, held against the table. Throws a Refusal. */
export function vllmArgs(
  model: LaunchModel,
  p: Parallel,
  version: string | null,
  options: LaunchOptions,
  way: Way,
  leads: boolean,
  extras: VllmExtras = {},
): readonly Arg[] {
  const table = extras.table ?? vllmFlags;
  const versions = versionsOf(table, version);
  const no = wayObjection(way, p, versions, table);
  if (no) throw new Refusal([notSpreadSo(table.engine, parallelName(p), no, 'Spread it otherwise, or name another version.')]);
  const eplb = p.redundant > 0 && (extras.balances ?? true);
  // "mtp" stands for every family's blocks since 0.18, and is not there in 0.10 (vllm/config/speculative.py; 0.10: vllm/config.py:2595)
  const method = versions.includes('0.10') ? 'deepseek_mtp' : 'mtp';
  const drafts = draftsWith(model, p) && (extras.drafts ?? true);
  return held(table, versions, [
    { flag: extras.model ?? 'MODEL', value: { ref: 'model' } },
    { flag: '--served-model-name', value: model.name },
    ...(leads
      ? [
          { flag: '--host', value: '0.0.0.0' },
          { flag: '--port', value: String(options.port) },
        ]
      : []),
    { flag: '--tensor-parallel-size', value: String(p.tp) },
    ...whole('--pipeline-parallel-size', p.pp),
    ...whole('--data-parallel-size', p.dp),
    ...spread(way, p, leads, { ref: 'ranks', each: p.devicesPerNode / (p.tp * p.pp) }),
    ...(p.ep > 1 ? [{ flag: '--enable-expert-parallel', value: null }] : []),
    // it does nothing under EPLB (vllm/model_executor/model_loader/ep_weight_filter.py)
    ...(p.ep > 1 && !eplb && extras.filters && hasFlag(table, versions, '--enable-ep-weight-filter')
      ? [{ flag: '--enable-ep-weight-filter', value: null }]
      : []),
    ...(eplb
      ? [
          { flag: '--enable-eplb', value: null },
          { flag: '--eplb-config', value: JSON.stringify({ num_redundant_experts: p.redundant }) },
        ]
      : []),
    ...(options.allToAll === undefined ? [] : [{ flag: '--all2all-backend', value: options.allToAll }]),
    ...(model.contextLength === null ? [] : [{ flag: '--max-model-len', value: String(model.contextLength) }]),
    ...(extras.quantization === undefined ? [] : [{ flag: '--quantization', value: extras.quantization }]),
    ...(drafts ? json('--speculative-config', { method, num_speculative_tokens: 1 }) : []),
    ...json('--compilation-config', extras.compilation),
    ...(extras.additional === undefined ? [] : [{ flag: '--additional-config', value: extras.additional }]),
    ...(model.reasoningParser === undefined ? [] : [{ flag: '--reasoning-parser', value: model.reasoningParser }]),
    ...(model.toolParser === undefined
      ? []
      : [
          { flag: '--enable-auto-tool-choice', value: null },
          { flag: '--tool-call-parser', value: model.toolParser },
        ]),
  ]);
}
