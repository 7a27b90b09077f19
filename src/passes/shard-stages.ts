// Which stage of a pipeline a value belongs to: layers in order, the embedding before the first, norm, head and multi-token prediction after the last.
import { type Graph, inputsOf, needed, type Value } from '../../ir/graph.js';

/** Decoder layers that the logits need; blocks of multi-token prediction count on from there. */
export const decoderLayers = (graph: Graph): number =>
  1 + needed(graph, [graph.outputs.logits as Value]).reduce((most, v) => Math.max(most, v.origin.layer), -1);

/** Layers of each stage, as near to equal as whole numbers are; later stages have one more where they are not. */
export const equalStages = (layers: number, stages: number): readonly number[] =>
  Array.from({ length: stages }, (_, s) => Math.floor(((s + 1) * layers) / stages) - Math.floor((s * layers) / stages));

/** The stage of each computed value and each state; inputs and weights are wherever they are read. */
export function stagesOf(graph: Graph, counts: readonly number[]): ReadonlyMap<Value, number> {
  const ends = counts.map((_, s) => counts.slice(0, s + 1).reduce((a, b) => a + b, 0));
  const ofLayer = (layer: number): number => {
    const found = ends.findIndex(end => layer < end);
    return found < 0 ? counts.length - 1 : found;
  };
  const stage = new Map<Value, number>();
  for (const v of graph.values) {
    if (v.op === 'input' || v.op === 'weight') continue;
    const before = inputsOf(v).reduce((most, [, i]) => Math.max(most, stage.get(i) ?? 0), 0);
    stage.set(v, Math.max(before, v.origin.layer < 0 ? 0 : ofLayer(v.origin.layer)));
  }
  return stage;
}
