// Which ways to spread a model are legal: for its heads and experts, for the storages of its weights, and for the machine.
import type { Problem } from '../../ir/problem.js';
import { devicesOf, type Parallel, parallelName } from '../../targets/launch.js';
import type { Device } from '../../targets/target.js';
import type { ModelShape } from './model.js';
import { devicesDiffer, notLegalHere } from './problems.js';

/** How much slower than the fastest link of a node a link may be for ranks that share each matrix to work over it. */
const slowest = 0.5;
/** Devices of a node that fast links join: all of them where nothing says otherwise. */
export function meshOf(device: Device, devicesPerNode: number): number {
  const rates = device.inNode.map(l => l.bytesPerSecond?.value ?? 0);
  const fastest = Math.max(0, ...rates);
  const joined = device.inNode.filter((_, i) => (rates[i] as number) >= slowest * fastest).map(l => l.joins?.value ?? devicesPerNode);
  return joined.length ? Math.min(devicesPerNode, Math.max(...joined)) : devicesPerNode;
}

/** Sentences: why a way to spread is none for this model; empty where it is. */
export function objections(m: ModelShape, p: Parallel): readonly string[] {
  const found: string[] = [];
  const { tp } = p;
  if (m.heads % tp !== 0) found.push(`${m.heads} attention heads cannot be dealt to ${tp} ranks: tp is to divide them.`);
  const kv = m.kinds[0]?.cache;
  if (kv?.kind === 'heads' && kv.kvHeads % tp !== 0 && tp % kv.kvHeads !== 0)
    found.push(`${kv.kvHeads} key-value heads are neither dealt nor copied evenly to ${tp} ranks.`);
  if (m.outputGroups !== null && m.outputGroups % tp !== 0)
    found.push(`${m.outputGroups} groups of outputs cannot be dealt to ${tp} ranks: tp is to divide them.`);
  if (p.pp > m.layers) found.push(`${m.layers} layers cannot fill ${p.pp} stages.`);
  if (p.ep > 1) {
    if (!m.routed) found.push('it has no routed experts: ep is 1.');
    else if ((m.routed.experts + p.redundant) % p.ep !== 0)
      found.push(
        `${m.routed.experts} experts${p.redundant ? ` and ${p.redundant} replicas` : ''} cannot be dealt evenly to ${p.ep} ranks: redundant=${p.ep - (m.routed.experts % p.ep)} would do.`,
      );
    else if (m.routed.experts + p.redundant > m.routed.experts * p.ep)
      found.push(
        `${p.redundant} replicas are more than ${p.ep} ranks have room for, each expert once on each: ${m.routed.experts * (p.ep - 1)} would be all.`,
      );
    if (p.ep !== p.tp * p.dp) found.push(`experts are dealt to all ranks of a stage: ep is ${p.tp * p.dp}, not ${p.ep}.`);
  } else if (p.redundant > 0) found.push('redundant experts need experts that are dealt whole: ep above 1.');
  return tp === 1 ? found : [...found, ...uncut(m, tp, p.ep > 1)];
}
/** By model and numbers: a plan asks for thousands of ways. */
const known = new WeakMap<ModelShape, Map<string, readonly string[]>>();
/** Sentences: parts of the model that cannot be cut by tp. `dealt`: experts are whole on their ranks. */
function uncut(m: ModelShape, tp: number, dealt: boolean): readonly string[] {
  const ways = known.get(m) ?? new Map<string, readonly string[]>();
  known.set(m, ways);
  const key = `${tp} ${dealt}`;
  const there = ways.get(key);
  if (there) return there;
  const seen = new Set<string>();
  for (const part of [...m.first, ...m.last, ...m.kinds.flatMap(k => k.parts)]) {
    // the vocabulary is filled up by engines; heads were said above
    if ((part.expert && dealt) || part.cut === 'whole' || part.cut === 'kv-rows' || part.role === 'embedding' || part.role === 'head')
      continue;
    const size = part.cut === 'rows' ? (part.shape[0] as number) : (part.shape[1] ?? 1);
    const unit = part.cut === 'rows' ? part.rowUnit : part.columnUnit;
    const what = part.role.replaceAll('_', ' ');
    const side = part.cut === 'rows' ? 'outputs' : 'inputs';
    if (size % tp !== 0) seen.add(`the ${size} ${side} of ${what} cannot be cut into ${tp} equal parts.`);
    else if ((size / tp) % unit !== 0)
      seen.add(
        `${what} cut by ${tp} has ${size / tp} ${side} a rank, which are no whole ${unit === 1 ? '' : `runs of ${unit} `}in ${part.form}.`,
      );
  }
  ways.set(key, [...seen]);
  return [...seen];
}
/**
 * Why engines do otherwise than such a way says; empty where they do not. Drafts: targets/launch.ts. vLLM: docs/serving/data_parallel_deployment.md, experts form a group of
 * dp times tp without --enable-expert-parallel. SGLang: python/sglang/srt/distributed/parallel_state.py, moe_tp_size, its tp being tp times dp.
 */
export const engineObjections = (m: ModelShape, p: Parallel, drafting: boolean): readonly string[] => [
  ...(drafting && p.pp > 1 ? ['no engine drafts with MTP blocks where layers are dealt to stages.'] : []),
  ...(m.routed && p.dp > 1 && p.ep === 1
    ? ['with ep=1 engines cut each expert by tp times dp, not by tp, where dp is above 1: that is not planned.']
    : []),
];
/** Why the machine does not take it; empty where it does. */
export function placeObjections(p: Parallel, device: Device | null): readonly string[] {
  const n = p.devicesPerNode;
  if (p.tp > n && p.tp % n !== 0) return [`tp ${p.tp} covers no whole nodes of ${n} devices.`];
  if (p.tp <= n && n % p.tp !== 0) return [`tp ${p.tp} does not divide the ${n} devices of a node.`];
  const mesh = device ? meshOf(device, n) : n;
  return mesh < n && (p.tp > mesh || mesh % p.tp !== 0)
    ? [`tp ${p.tp} would leave the ${mesh} devices that fast links join: what is beyond is reached more slowly.`]
    : [];
}
/** The same as problems, for a way that was asked for. */
export function checkParallel(m: ModelShape, p: Parallel, device: Device | null): readonly Problem[] {
  const name = parallelName(p);
  if (devicesOf(p) !== p.nodes * p.devicesPerNode) return [devicesDiffer(name, devicesOf(p), p.nodes * p.devicesPerNode, p.nodes)];
  const next = 'hkgai plan MODEL --devices N lists the ways that do.';
  return [...objections(m, p), ...placeObjections(p, device)].map(why => notLegalHere(name, why.replace(/\.$/, ''), next));
}
