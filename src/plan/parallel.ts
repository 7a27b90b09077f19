// What --parallel says, read and completed: ways to spread a model as text.
import { Refusal } from '../../ir/problem.js';
import { devicesOf, type Parallel, parallelName } from '../../targets/launch.js';
import { devicesDiffer, nodesUneven, parallelText, tooMany } from './problems.js';

/** What was said; null: left to follow from the rest. */
export interface ParallelWish {
  readonly tp: number;
  readonly dp: number;
  readonly pp: number;
  readonly ep: number | null;
  readonly redundant: number;
  readonly nodes: number | null;
  /** The plan that it is a row of: for which target, and for sequences of how many positions; null where numbers were said. */
  readonly plan: { readonly target: string; readonly context: number } | null;
}
const fields = ['tp', 'dp', 'pp', 'ep', 'redundant', 'nodes'] as const;
type Field = (typeof fields)[number];
/** More than any machine has: keeps products exact. */
export const mostDevices = 65536;
const most = mostDevices;

/** `ep=16,tp=8,pp=1,dp=2[,nodes=2][,redundant=16]`: what is not said is 1. Throws a Refusal with every fault. */
export function parallelOf(text: string): ParallelWish {
  const found: string[] = [];
  const said = new Map<Field, number>();
  for (const word of text.split(',')) {
    const m = /^\s*([A-Za-z]+)\s*=\s*(\S+)\s*$/.exec(word);
    if (!m) {
      found.push(word.trim() === '' ? 'a word is empty' : `${JSON.stringify(word.trim())} is not name=number`);
      continue;
    }
    const [, name = '', value = ''] = m;
    if (!(fields as readonly string[]).includes(name)) {
      found.push(`${JSON.stringify(name)} is none of ${fields.join(', ')}`);
      continue;
    }
    const n = /^\d+$/.test(value) ? Number(value) : Number.NaN;
    if (said.has(name as Field)) found.push(`${name} is said twice`);
    else if (!(n <= most) || (n === 0 && name !== 'redundant'))
      found.push(`${name} is a whole number from ${name === 'redundant' ? 0 : 1} to ${most}, not ${JSON.stringify(value)}`);
    said.set(name as Field, n);
  }
  const of = (f: Field): number => said.get(f) ?? 1;
  const ep = said.get('ep') ?? null;
  const ranks = of('tp') * of('dp');
  if (found.length === 0) {
    if (ep !== null && ep !== 1 && ep !== ranks)
      found.push(`ep is 1 (each expert cut by tp) or tp times dp, ${ranks} here (experts dealt whole), not ${ep}`);
    if ((said.get('redundant') ?? 0) > 0 && (ep ?? 1) === 1) found.push('redundant experts need experts that are dealt whole: ep above 1');
  }
  if (found.length) throw new Refusal(found.map(f => parallelText(text, f)));
  return {
    tp: of('tp'),
    dp: of('dp'),
    pp: of('pp'),
    ep,
    redundant: said.get('redundant') ?? 0,
    nodes: said.get('nodes') ?? null,
    plan: null,
  };
}

/** The wish on so many devices of a node; nodes follow from the devices where they are not said. Throws a Refusal where they cannot be. */
export function placed(w: ParallelWish, devicesPerNode: number | null, devices: number | null = null): Parallel {
  const needs = w.tp * w.dp * w.pp;
  if (needs > mostDevices) throw new Refusal([tooMany(needs, mostDevices)]);
  const nodes = w.nodes ?? (devicesPerNode === null ? 1 : Math.ceil(needs / devicesPerNode));
  const p: Parallel = {
    tp: w.tp,
    dp: w.dp,
    pp: w.pp,
    ep: w.ep ?? 1,
    redundant: w.redundant,
    nodes,
    devicesPerNode: needs / nodes,
  };
  if (devices !== null && devices !== needs) throw new Refusal([devicesDiffer(parallelName(p), needs, devices, nodes)]);
  if (needs % nodes !== 0) throw new Refusal([nodesUneven(needs, nodes)]);
  if (devicesPerNode !== null && p.devicesPerNode > devicesPerNode)
    throw new Refusal([devicesDiffer(parallelName(p), devicesOf(p), devicesPerNode * nodes, nodes)]);
  return p;
}
