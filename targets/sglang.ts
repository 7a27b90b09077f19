// SGLang's options by version, and the command that spreads a model: shared by the targets that it runs on.
import { Refusal } from '../ir/problem.js';
import { type Arg, type FlagTable, held, versionsOf } from './flags.js';
import { draftsWith, type LaunchModel, type LaunchOptions, type Parallel, parallelName } from './launch.js';
import { notSpreadSo } from './launch-problems.js';

const at = (v9: number, v10: number, head: number): Readonly<Record<string, number>> => ({ '0.5.9': v9, '0.5.10': v10, head });
const a2a = ['none', 'deepep', 'mooncake', 'nixl', 'mori', 'ascend_fuseep', 'flashinfer'] as const;
const drafts = ['EAGLE', 'EAGLE3', 'NEXTN', 'STANDALONE', 'NGRAM'] as const;
/** Commits of the fork that holds SGLang's history with the releases for NPUs: v0.5.9-npu.rc2, v0.5.10-npu.rc1, main of 2026-06-15. */
export const sglangFlags: FlagTable = {
  engine: 'SGLang',
  versions: {
    '0.5.9': 'Ascend/sglang@61c384adc67c832e1a90de46de0d7f3a03d087b7',
    '0.5.10': 'Ascend/sglang@9fbb71a517e3458c9b6f05a0ab17b29349dc05b3',
    head: 'Ascend/sglang@bf186cf8fc05b687c9f00e47f283760d2996b244',
  },
  usual: ['0.5.9', '0.5.10', 'head'],
  file: 'python/sglang/srt/server_args.py',
  flags: {
    '--model-path': { takes: 'text', at: at(3561, 3837, 4735) },
    '--served-model-name': { takes: 'text', at: at(4363, 4658, 5654) },
    '--host': { takes: 'text', at: at(3669, 3945, 4872) },
    '--port': { takes: 'whole', at: at(3675, 3951, 4878) },
    '--context-length': { takes: 'whole', at: at(3628, 3904, 4817) },
    '--quantization': { takes: 'text', at: at(3765, 4049, 4976) },
    '--device': { takes: 'text', at: at(4011, 4295, 5245) },
    '--attention-backend': { takes: 'text', at: at(4563, 4867, 5920) },
    '--tp-size': { takes: 'whole', at: at(4018, 4302, 5252) },
    '--pp-size': { takes: 'whole', at: at(4039, 4323, 5273) },
    '--dp-size': { takes: 'whole', at: at(4439, 4734, 5768) },
    '--enable-dp-attention': { takes: 'switch', at: at(5357, 5679, 6993) },
    '--ep-size': { takes: 'whole', at: at(4821, 5143, 6276) },
    // the words: MOE_A2A_BACKEND_CHOICES of the same file
    '--moe-a2a-backend': { takes: { '0.5.9': a2a, '0.5.10': a2a, head: [...a2a, 'megamoe'] }, at: at(4828, 5150, 6283) },
    '--ep-num-redundant-experts': { takes: 'whole', at: at(4866, 5193, 6333) },
    '--init-expert-location': { takes: 'text', at: at(4878, 5205, 6345) },
    '--dist-init-addr': { takes: 'text', at: at(4465, 4760, 5794) },
    '--nnodes': { takes: 'whole', at: at(4471, 4766, 5800) },
    '--node-rank': { takes: 'whole', at: at(4474, 4769, 5803) },
    '--speculative-algorithm': {
      takes: { '0.5.9': drafts, '0.5.10': [...drafts, 'DFLASH'], head: [...drafts, 'DFLASH'] },
      at: at(4667, 4968, 6066),
    },
    '--speculative-num-steps': { takes: 'whole', at: at(4696, 4997, 6098) },
    '--speculative-eagle-topk': { takes: 'whole', at: at(4702, 5003, 6104) },
    '--speculative-num-draft-tokens': { takes: 'whole', at: at(4708, 5009, 6110) },
    '--reasoning-parser': { takes: 'text', at: at(4405, 4700, 5697) },
    '--tool-call-parser': { takes: 'text', at: at(4413, 4708, 5722) },
  },
};
/** The port of its own document for several nodes (kubernetes-sigs/lws@060ab4da:docs/examples/sglang/lws.yaml). */
export const sglangPort = 20000;
/** What a target adds. */
export interface SglangExtras {
  readonly device?: string;
  readonly attention?: string;
  readonly quantization?: string;
}
const whole = (flag: string, n: number): readonly Arg[] => (n > 1 ? [{ flag, value: String(n) }] : []);

/**
 * The command's arguments, alike on every node but for its rank; held against the table. Throws a Refusal.
 * Its tp counts every rank of a stage, replicas of attention too (server_args.py:3524-3531 of head: dp divides tp).
 */
export function sglangArgs(
  model: LaunchModel,
  p: Parallel,
  version: string | null,
  options: LaunchOptions,
  extras: SglangExtras = {},
): readonly Arg[] {
  const versions = versionsOf(sglangFlags, version);
  const next = 'Spread it otherwise.';
  if (p.pp > 1 && p.dp > 1)
    throw new Refusal([notSpreadSo('SGLang', parallelName(p), 'replicas of attention beside stages of layers are not started here', next)]);
  return held(sglangFlags, versions, [
    { flag: '--model-path', value: { ref: 'model' } },
    { flag: '--served-model-name', value: model.name },
    // followers answer /health on it too (python/sglang/srt/entrypoints/engine.py:841 of head, 650 of 0.5.9)
    { flag: '--host', value: '0.0.0.0' },
    { flag: '--port', value: String(options.port) },
    { flag: '--tp-size', value: String(p.tp * p.dp) },
    ...whole('--pp-size', p.pp),
    ...whole('--dp-size', p.dp),
    ...(p.dp > 1 ? [{ flag: '--enable-dp-attention', value: null }] : []),
    ...whole('--ep-size', p.ep),
    ...(options.allToAll === undefined ? [] : [{ flag: '--moe-a2a-backend', value: options.allToAll }]),
    ...(p.redundant > 0 ? [{ flag: '--ep-num-redundant-experts', value: String(p.redundant) }] : []),
    ...(model.expertMaps.sglang === undefined
      ? []
      : [{ flag: '--init-expert-location', value: [{ ref: 'model' as const }, `/${model.expertMaps.sglang}`] }]),
    ...(p.nodes === 1
      ? []
      : [
          { flag: '--dist-init-addr', value: [{ ref: 'leader' as const }, `:${sglangPort}`] },
          { flag: '--nnodes', value: String(p.nodes) },
          { flag: '--node-rank', value: { ref: 'rank' as const } },
        ]),
    ...(model.contextLength === null ? [] : [{ flag: '--context-length', value: String(model.contextLength) }]),
    ...(extras.device === undefined ? [] : [{ flag: '--device', value: extras.device }]),
    ...(extras.attention === undefined ? [] : [{ flag: '--attention-backend', value: extras.attention }]),
    ...(extras.quantization === undefined ? [] : [{ flag: '--quantization', value: extras.quantization }]),
    // one step, one token beside the verified one (docs/platforms/ascend/ascend_npu_best_practice.md:143)
    ...(draftsWith(model, p)
      ? [
          { flag: '--speculative-algorithm', value: 'NEXTN' },
          { flag: '--speculative-num-steps', value: '1' },
          { flag: '--speculative-eagle-topk', value: '1' },
          { flag: '--speculative-num-draft-tokens', value: '2' },
        ]
      : []),
    ...(model.reasoningParser === undefined ? [] : [{ flag: '--reasoning-parser', value: model.reasoningParser }]),
    ...(model.toolParser === undefined ? [] : [{ flag: '--tool-call-parser', value: model.toolParser }]),
  ]);
}
