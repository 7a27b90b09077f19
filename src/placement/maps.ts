// Placements as engines read them. All speak of the new numbers where experts were renumbered.
import type { LayerPlacement, Placement } from './placement.js';

/**
 * SGLang's --init-expert-location FILE.json (eplb/expert_location.py:698-737): exactly one key; a row for each of num_hidden_layers, dense ones
 * too, of experts + redundant ids each. MTP blocks have none.
 */
export function physicalToLogicalMap(p: Placement, layers: number): { readonly physical_to_logical_map: readonly (readonly number[])[] } {
  const of = new Map(p.layers.map(l => [l.layer, l.placed]));
  const experts = p.layers[0]!.oldOf.length;
  const trivial = Array.from({ length: experts + p.topology.redundant }, (_, i) => i % experts);
  return { physical_to_logical_map: Array.from({ length: layers }, (_, i) => of.get(i) ?? trivial) };
}

/** The map of vllm-ascend and MindIE. */
export interface ExpertMap {
  readonly moe_layer_count: number;
  readonly layer_list: readonly {
    readonly layer_id: number;
    readonly device_count: number;
    readonly device_list: readonly { readonly device_id: number; readonly device_expert: readonly number[] }[];
  }[];
}
/**
 * `eplb_config.expert_map_path` of vllm-ascend (vllm_ascend/eplb/core/eplb_utils.py:27-43), `expert_map_file` of MindIE. Layers are counted among those
 * with experts, from 0; the MTP block behind them has the default placement and no entry.
 */
export function expertMap(p: Placement, layers: number): ExpertMap {
  const main = p.layers.filter(l => l.layer < layers);
  const { ranks } = p.topology;
  const part = (l: LayerPlacement, r: number): readonly number[] => {
    const each = l.placed.length / ranks;
    return l.placed.slice(r * each, (r + 1) * each);
  };
  return {
    moe_layer_count: main.length,
    layer_list: main.map((l, layer_id) => ({
      layer_id,
      device_count: ranks,
      device_list: Array.from({ length: ranks }, (_, r) => ({ device_id: r, device_expert: part(l, r) })),
    })),
  };
}
/** Whether a version of vllm-ascend reads the map: its release notes take it out in 0.25.1. null: not known which version it is. */
export function readsExpertMap(version: string | null): boolean {
  const m = /^(\d+)\.(\d+)(?:\.(\d+))?$/.exec(version ?? '');
  if (!m) return true;
  const [major, minor, patch] = [Number(m[1]), Number(m[2]), Number(m[3] ?? 0)];
  return major < 1 && (minor < 25 || (minor === 25 && patch < 1));
}
