// How a model is spread over devices, and what a launch file is told of it. Every target writes launch files for its engines from these.
import type { Runtime } from './engine.js';
import type { SourceFile, Target } from './target.js';

/** One way to spread a model: devices = tp · dp · pp. A device is what software sees as one: a die where a package holds several. */
export interface Parallel {
  /** Ranks that share each attention and each dense matrix of a layer. */
  readonly tp: number;
  /** Groups of tp ranks that hold attention whole each and serve requests of their own. */
  readonly dp: number;
  /** Stages that layers are dealt to. */
  readonly pp: number;
  /** Ranks of a stage that routed experts are dealt to, whole: 1 where each expert is cut by tp instead, else tp · dp. */
  readonly ep: number;
  /** Replicas of experts beyond one each, a layer; 0 where every expert stands once. */
  readonly redundant: number;
  readonly nodes: number;
  readonly devicesPerNode: number;
}
export const devicesOf = (p: Parallel): number => p.tp * p.dp * p.pp;
export const parallelName = (p: Parallel): string =>
  `tp=${p.tp},dp=${p.dp},pp=${p.pp},ep=${p.ep}${p.redundant ? `,redundant=${p.redundant}` : ''}`;

/** What an engine is told of the model. */
export interface LaunchModel {
  /** The name that requests call it by. */
  readonly name: string;
  /** `model_type` of config.json. */
  readonly family: string;
  /** Tokens; null: the engine's own choice from config.json. */
  readonly contextLength: number | null;
  /** The engine format it was written in: ascendv1, compressed-tensors, fp8. */
  readonly format: string;
  /** The recipe's name where anything stands in codes; null where all is plain. */
  readonly quantisation: string | null;
  /** Elements of the codes that routed experts stand in; absent or empty where they are plain. */
  readonly expertCodes?: readonly string[];
  /** MTP blocks were kept: the engine may draft with them. */
  readonly hasMtp: boolean;
  /** Files of the engine directory that say which rank holds which expert, by the engine that reads each; none where placement is the engine's. */
  readonly expertMaps: Readonly<Partial<Record<'sglang' | 'vllm-ascend', string>>>;
  /** Decoder layers of each stage where there are several; null: the engine deals them by number. */
  readonly stages: readonly number[] | null;
  /** Names that the engine knows these parsers by; absent: requests with tools or thoughts are not taken apart. */
  readonly toolParser?: string;
  readonly reasoningParser?: string;
}
/**
 * Whether an engine is told to draft with MTP blocks: none starts with drafts beside stages of layers. vLLM holds the blocks against the stages too,
 * which they do not take (vllm/config/speculative.py, _verify_args; vllm/model_executor/models/deepseek_mtp.py); SGLang has it in check_server_args
 * (python/sglang/srt/server_args.py).
 */
export const draftsWith = (model: Pick<LaunchModel, 'hasMtp'>, p: Parallel): boolean => model.hasMtp && p.pp === 1;
/** What is said of it. */
export const draftNotes = (model: Pick<LaunchModel, 'hasMtp'>, p: Parallel, method = ''): readonly string[] =>
  draftsWith(model, p)
    ? [`It drafts one token with the MTP block${method}.`]
    : model.hasMtp
      ? ['It does not draft with the MTP block: this engine takes no drafts where layers are dealt to stages.']
      : [];
/** Where a pod finds the model. */
export type ModelSource = 'image' | 'pvc' | 'hostpath';
export const modelSources: readonly ModelSource[] = ['image', 'pvc', 'hostpath'];
export interface LaunchOptions {
  readonly modelSource: ModelSource;
  /** The port of the HTTP server. */
  readonly port: number;
  /** The container image; absent: a documented one, or a blank. */
  readonly image?: string;
  /** The target's name of the chip. */
  readonly chip: string;
  /** Directory inside the image or claim that holds config.json; absent: its root. */
  readonly subPath?: string;
  /** The engine's name for how tokens reach experts; absent: its usual one. */
  readonly allToAll?: string;
}
/** A target's launch files, each path below the target's directory. Refuses with the reason where an engine cannot be started so. */
export type Launch = (model: LaunchModel, parallel: Parallel, runtime: Runtime | null, options: LaunchOptions) => readonly SourceFile[];

/** Launch files of a target; none where its program needs no engine to be started. Throws a Refusal. */
export const launchFiles = (
  target: Target,
  model: LaunchModel,
  parallel: Parallel,
  runtime: Runtime | null,
  options: LaunchOptions,
): readonly SourceFile[] => target.launch?.(model, parallel, runtime, options) ?? [];
