// Which experts lie on which device: a new numbering of each layer's experts under which equal runs of ids are the balanced placement, and with
// redundancy a map from physical places to experts. The graph stays as it is: tensors stay whole, and change only their numbers when they are written.
import type { Graph, ValueOf } from '../../ir/graph.js';
import { Refusal } from '../../ir/problem.js';
import { rebalance } from '../placement/eplb.js';
import type { Counts, ExpertLayer, LayerCounts, LayerPlacement, Placement, Topology } from '../placement/placement.js';
import { noExperts, unequal } from '../placement/problems.js';
import { renumber } from '../placement/renumber.js';
import { copiesOfSets, copiesOfShares, loadOf } from '../placement/traffic.js';

/** The layers with routed experts, in order. */
export function expertLayers(graph: Graph): readonly ExpertLayer[] {
  return graph.values
    .filter((v): v is ValueOf<'experts'> => v.op === 'experts')
    .map(v => {
      const [experts, , hidden] = v.inputs.gate.type.shape as readonly [number, number, number];
      const chosen = v.inputs.indices;
      return {
        layer: v.origin.layer,
        experts,
        topK: chosen.type.shape[1] as number,
        groups: chosen.op === 'choose_experts' ? chosen.attributes.groups : 1,
        hidden,
        hashed: chosen.op === 'gather',
      };
    })
    .sort((a, b) => a.layer - b.layer);
}

/** Sentences: why experts cannot be dealt so. */
function objections(experts: number, t: Topology): readonly string[] {
  const all = experts + t.redundant;
  const s = (n: number, word: string): string => `${n} ${word}${n === 1 ? '' : 's'}`;
  return [
    ...(t.ranks % t.nodes ? [`${s(t.ranks, 'rank')} do not go onto ${s(t.nodes, 'node')} in equal numbers.`] : []),
    ...(all % t.ranks
      ? [
          `${experts} experts${t.redundant ? ` and ${s(t.redundant, 'replica')}` : ''} do not go onto ${s(t.ranks, 'rank')} in equal numbers.`,
        ]
      : []),
  ];
}
function ways(experts: number, t: Topology): string {
  const fit = Array.from({ length: experts }, (_, i) => i + 1).filter(r => experts % r === 0 && r % t.nodes === 0);
  const near = fit.filter(r => r <= 2 * t.ranks).slice(-3);
  const add = (t.ranks - (experts % t.ranks)) % t.ranks;
  return `Take ep=${near.join(', ') || fit[0] || experts}${add > 0 && t.ranks % t.nodes === 0 ? `, or redundant=${add}` : ''}.`;
}

/**
 * The placement of every layer with experts: new numbers for them, or with `map` old numbers on other ranks.
 * @param counts how often experts were chosen; null: all alike, so nothing moves. Layers that they lack stay as they are.
 */
export function shardExperts(graph: Graph, counts: Counts | null, t: Topology, form: Form = 'renumber'): Placement {
  const layers = expertLayers(graph);
  if (layers.length === 0) throw new Refusal([noExperts(graph.name)]);
  const wrong = [...new Set(layers.map(l => l.experts))].flatMap(e => objections(e, t).map(what => ({ e, what })));
  if (wrong.length)
    throw new Refusal([
      unequal(
        wrong.map(w => w.what),
        ways(wrong[0]!.e, t),
      ),
    ]);
  const of = new Map(counts?.layers.map(l => [l.layer, l]));
  return { topology: t, from: counts?.called ?? 'uniform', layers: layers.map(l => placedLayer(l, of.get(l.layer) ?? null, t, form)) };
}

export type Form = 'renumber' | 'map';
/** Placement of a layer under a numbering that is there already, or the best one. */
export function placedLayer(l: ExpertLayer, c: LayerCounts | null, t: Topology, form: Form, given?: readonly number[]): LayerPlacement {
  const w = c?.counts ?? new Array<number>(l.experts).fill(1);
  const linear = Array.from({ length: l.experts }, (_, i) => i);
  const asked = { groups: l.groups, ranks: t.ranks, nodes: t.nodes };
  const oldOf = given ?? (c === null || form === 'map' || l.experts % t.ranks ? linear : renumber(w, asked));
  const renamed = oldOf.map(e => w[e]!);
  const replicas = l.experts + t.redundant;
  // what an engine does without a map: replicas of the first ids behind them all (vLLM eplb_state.py:306-323)
  const trivial = Array.from({ length: replicas }, (_, i) => i % l.experts);
  const placed =
    t.redundant === 0 && (form === 'renumber' || c === null)
      ? trivial
      : rebalance(renamed, { replicas, groups: l.groups, nodes: t.nodes, devices: t.ranks }).physicalToLogical;
  const sets = c?.sample?.length ? c.sample : null;
  const cost = (old: readonly number[]) => ({
    load: loadOf(old, w, t.ranks, t.nodes),
    copies: sets ? copiesOfSets(old, t.ranks, t.nodes, sets, l.topK) : copiesOfShares(old, t.ranks, t.nodes, w, l.topK),
  });
  return {
    layer: l.layer,
    oldOf,
    placed,
    before: cost(trivial),
    after: cost(placed.map(e => oldOf[e]!)),
    copiesFrom: sets ? 'sets' : 'shares',
  };
}
