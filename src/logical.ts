// The tensors of a checkpoint by what they are for: names in the family's spelling, roles, and where their bytes lie.
import type { Part } from '../ir/graph.js';
import type { Storage } from '../ir/storage.js';
import type { LogicalTensor, Role } from '../targets/engine.js';
import type { ModelConfig } from './checkpoint/config.js';
import { canonicalName, strayReason } from './checkpoint/names.js';
import type { TensorEntry } from './checkpoint/safetensors.js';
import type { Model } from './models/index.js';

export interface SourceTensor {
  readonly logical: LogicalTensor;
  readonly part: Part;
  readonly storage: Storage;
  /** As the header says it. */
  readonly entry: TensorEntry;
  /** Further tensors that belong to it: scales, shapes. */
  readonly with: readonly TensorEntry[];
  /** What becomes of it where experts are renumbered; absent where it stays as it is. `logical` has its new name then. */
  readonly moved?: Moved;
}
export interface Moved {
  /** Name before: statistics are kept under it. */
  readonly was: string;
  /** Of an expert's tensors: its new number. */
  readonly expert: number | null;
  /** Of a router's rows: the old row of each new one. */
  readonly rows: readonly number[] | null;
  /** Of a table of experts: the new number of each old one. */
  readonly ids: readonly number[] | null;
}
/** A name with the number that its expert has now. */
export const movedName = (name: string, expert: number | null): string =>
  expert === null ? name : name.replace(/\.experts\.\d+\./, `.experts.${expert}.`);
export interface Sources {
  readonly tensors: readonly SourceTensor[];
  /** Tensors that are passed on though no program of ours reads them. */
  readonly carried: readonly TensorEntry[];
  /** Names of carried tensors that belong to renumbered experts. */
  readonly carriedAs?: ReadonlyMap<string, string>;
  readonly dropped: readonly { readonly tensor: TensorEntry; readonly reason: string }[];
}

/** What a tensor is for, by its name in the family's spelling. */
export function roleOf(name: string): Role {
  if (/\.(mlp|ffn)\.gate\.(weight)$/.test(name)) return 'router';
  if (/\.gate\.(e_score_correction_bias|bias)$/.test(name)) return 'router_bias';
  if (/tid2eid$/.test(name)) return 'table';
  if (/(^|\.)hc_/.test(name)) return 'hyper';
  if (/(^|\.)(embed_tokens|embed)\.weight$/.test(name)) return 'embedding';
  if (/(^|\.)(lm_head|head)\.weight$/.test(name)) return 'head';
  if (/(layernorm|norm|enorm|hnorm)\.weight$/.test(name) || /norm\d?\.weight$/.test(name)) return 'norm';
  if (/\.bias$|attn_sink$|\.ape$/.test(name)) return 'bias';
  if (/\.(eh_proj|e_proj|h_proj)\.weight$/.test(name)) return 'mtp_merge';
  if (/\.indexer\./.test(name)) return 'indexer';
  if (/\.compressor\./.test(name)) return 'compressor';
  if (/\.experts\.\d+\./.test(name)) return 'expert';
  if (/\.shared_experts?\./.test(name)) return 'shared_expert';
  if (/\.kv_b_proj\.weight$/.test(name)) return 'kv_b';
  if (/\.(self_attn|attn)\./.test(name)) return 'attention';
  if (/\.(mlp|ffn)\./.test(name)) return 'dense_mlp';
  return 'bias';
}
const matrixRoles: readonly Role[] = ['attention', 'kv_b', 'dense_mlp', 'shared_expert', 'expert', 'indexer', 'compressor', 'mtp_merge'];

/** The number of the decoder layer in a name, MTP blocks of V4 counted on; -1 outside layers. */
export function layerOf(name: string, layers: number): number {
  const mtp = /^mtp\.(\d+)\./.exec(name);
  if (mtp) return layers + Number(mtp[1]);
  const m = /(?:^|\.)layers\.(\d+)\./.exec(name);
  return m ? Number(m[1]) : -1;
}

/** A tensor by its name in the family's spelling. */
export function logicalTensor(name: string, shape: readonly number[], layers: number, optional = false): LogicalTensor {
  const role = roleOf(name);
  const layer = layerOf(name, layers);
  return {
    name,
    shape,
    role,
    layer,
    expert: role === 'expert' ? Number(/\.experts\.(\d+)\./.exec(name)?.[1]) : null,
    matrix: shape.length === 2 && matrixRoles.includes(role) && !name.endsWith('.ape') && !name.endsWith('weights_proj.weight'),
    mtp: layer >= layers,
    ...(optional ? { optional } : {}),
  };
}

export function sourcesOf(config: ModelConfig, model: Model, tensors: ReadonlyMap<string, TensorEntry>): Sources {
  const list: SourceTensor[] = [];
  const seen = new Set<string>();
  for (const v of model.graph.values) {
    if (v.op !== 'weight') continue;
    const shape = v.type.shape as readonly number[];
    const own = shape.length === 3 ? shape.slice(1) : shape;
    for (const part of v.origin.parts) {
      if (seen.has(part.tensor)) continue;
      const entry = tensors.get(part.tensor) as TensorEntry;
      const name = canonicalName(part.tensor, config.family).replace(/\.weight_packed$/, '.weight');
      const beside = part.tensor.replace(/weight_packed$/, 'weight_shape');
      const shapes = beside !== part.tensor ? tensors.get(beside) : undefined;
      const more = [...(part.scale ? [tensors.get(part.scale.tensor) as TensorEntry] : []), ...(shapes ? [shapes] : [])];
      for (const t of [part.tensor, ...more.map(m => m.name)]) seen.add(t);
      list.push({
        logical: logicalTensor(name, own, config.layers),
        part,
        storage: v.type.storage,
        entry,
        with: more,
      });
    }
  }
  const carried: TensorEntry[] = [];
  const dropped: { readonly tensor: TensorEntry; readonly reason: string }[] = [];
  for (const t of tensors.values()) {
    if (seen.has(t.name)) continue;
    const reason = strayReason(t.name);
    if (reason) dropped.push({ tensor: t, reason });
    else carried.push(t);
  }
  return { tensors: list, carried, dropped };
}
