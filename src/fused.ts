// What fusing does to a model: kernels and bytes of a token with every op apart and fused, and the launches of each kind of layer.
import type { Graph } from '../ir/graph.js';
import { alike, placeOf, valuesOf } from './passes/fuse-text.js';
import { type Traffic, totalOf, trafficOf } from './passes/fuse-traffic.js';
import { lower } from './passes/index.js';

export interface FusedReport {
  /** Positions that the sequence holds. */
  readonly context: number;
  readonly apart: Traffic;
  readonly fused: Traffic;
  /** Layers that have the same kernels are one entry. */
  readonly layers: readonly {
    readonly place: string;
    readonly launches: readonly (Traffic & { readonly kernel: string; readonly values: string })[];
  }[];
}

/** For one token of one sequence that is half as long as the graph allows, at most 4,096 positions. */
export function fusedReport(graph: Graph): FusedReport {
  const context = Math.max(1, Math.min(4096, Math.floor(graph.limits.context / 2)));
  const at = { tokens: 1, context };
  const program = lower(graph);
  return {
    context,
    apart: totalOf(trafficOf(lower(graph, { unfused: 'all' }), at)),
    fused: totalOf(trafficOf(program, at)),
    layers: alike(program, at).map(a => ({
      place: placeOf(a),
      launches: a.launches.map(({ launch, kernel, kernels, weights, rows, states }) => ({
        kernel: kernel.name,
        values: valuesOf(launch),
        kernels,
        weights,
        rows,
        states,
      })),
    })),
  };
}
