// Experts under new numbers, in what is written: each tensor of an expert goes whole under its new name, the rows of routers change places, and tables
// of experts name the new numbers. Values stay what they are, so every storage is exact.
import { type Problem, problem, Refusal } from '../ir/problem.js';
import type { LogicalTensor } from '../targets/engine.js';
import { layerOf, type Moved, movedName, type Sources, type SourceTensor } from './logical.js';
import { inverse, isIdentity } from './placement/placement.js';
import type { Resolution } from './recipe.js';

const stuckRouter = (names: readonly string[]): Problem =>
  problem('HK2728', `Experts cannot be renumbered: ${names[0]}${names.length > 1 ? ` and ${names.length - 1} more` : ''}`, {
    why: 'The tensor belongs to a router or to experts whose numbers change, and what its rows mean is not known.',
    next: 'Leave --experts out, or report the tensor with its model.',
  });

export interface Renumbered {
  readonly sources: Sources;
  readonly resolution: Resolution;
}
/**
 * @param orders the old number of each new one, by decoder layer; layers that are not named stay as they are
 * @param layers decoder layers without MTP blocks
 */
export function renumbered(sources: Sources, r: Resolution, orders: ReadonlyMap<number, readonly number[]>, layers: number): Renumbered {
  const moving = new Map([...orders].filter(([, o]) => !isIdentity(o)).map(([layer, oldOf]) => [layer, { oldOf, newOf: inverse(oldOf) }]));
  if (moving.size === 0) return { sources, resolution: r };
  const stuck: string[] = [];
  const movedOf = (s: SourceTensor): Moved | null => {
    const t = s.logical;
    const m = moving.get(t.layer);
    const none = { was: t.name, expert: null, rows: null, ids: null };
    if (!m) return null;
    if (t.expert !== null) return { ...none, expert: m.newOf[t.expert] as number };
    if (t.name.endsWith('.tid2eid')) return { ...none, ids: m.newOf };
    if (t.role !== 'router' && t.role !== 'router_bias') return null;
    if (s.with.length) stuck.push(`${t.name} is stored with ${s.with[0]!.name}`);
    return { ...none, rows: m.oldOf };
  };
  const chosen = r.chosen.map(x => {
    const moved = movedOf(x.source);
    if (!moved) return x;
    const tensor: LogicalTensor = { ...x.tensor, name: movedName(x.tensor.name, moved.expert), expert: moved.expert };
    const rule = moved.rows || moved.ids ? `${x.rule}; experts renumbered` : x.rule;
    return { ...x, tensor, rule, source: { ...x.source, logical: tensor, moved } };
  });
  // what no program of ours reads goes with its expert
  const carriedAs = new Map<string, string>();
  for (const { name } of sources.carried) {
    const m = moving.get(layerOf(name, layers));
    const expert = /\.experts\.(\d+)\./.exec(name)?.[1];
    if (m && expert !== undefined) carriedAs.set(name, movedName(name, m.newOf[Number(expert)] ?? Number(expert)));
    else if (m && /\.(gate|experts)\./.test(name)) stuck.push(`${name} is not known`);
  }
  if (stuck.length) throw new Refusal([stuckRouter(stuck)]);
  const bySource = new Map(chosen.map(x => [x.source.entry.name, x.source]));
  return {
    sources: { ...sources, tensors: sources.tensors.map(s => bySource.get(s.entry.name) ?? s), carriedAs },
    resolution: { ...r, chosen },
  };
}
