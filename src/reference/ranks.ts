// The graphs of all ranks in lock step: each runs until it comes to an exchange, and goes on when every rank of the group has come to it too.
// Caches are each rank's own.
import { type Graph, needed, type Value, type ValueOf } from '../../ir/graph.js';
import { isExchange } from '../../ir/ops.js';
import { tf } from './backend.js';
import { exchange } from './exchange.js';
import { createMachine, type Machine, type Result, type Step, type Waiting } from './index.js';
import type { Held } from './values.js';

export interface RanksReference {
  /**
   * Run a step and give the named values of each rank, those that it has; a name that no rank has is an error.
   * @param steps the call of each rank. Ranks that share their rows (tensor, pipeline) are brought the same.
   */
  step(steps: readonly Step[], names: readonly string[]): readonly ReadonlyMap<string, Result>[];
  /** Forget all caches. */
  reset(): void;
  /** Free memory. */
  dispose(): void;
}

/** The ranks that take part in an exchange besides the one that says it. */
const partners = (v: Value, me: number): readonly number[] => {
  if (v.op === 'send') return [v.attributes.to];
  if (v.op === 'recv') return [v.attributes.from];
  return isExchange(v.op) ? (v as ValueOf<'all_reduce'>).attributes.group.filter(r => r !== me) : [];
};
const channel = (from: number, to: number, name: string): string => `${from} ${to} ${name}`;

/** What each rank must run so that the targets come about: what they need, and what an exchange needs on the other ranks. */
function ordersOf(graphs: readonly Graph[], targets: readonly (readonly Value[])[]): readonly (readonly Value[])[] {
  const named = graphs.map(g => new Map(g.values.map(v => [v.name, v])));
  const sends = new Map(
    graphs.flatMap((g, me) =>
      g.values.flatMap(v => (v.op === 'send' ? [[channel(me, v.attributes.to, v.attributes.channel), v] as const] : [])),
    ),
  );
  const roots = targets.map(t => new Set(t));
  for (;;) {
    const orders = graphs.map((g, r) => needed(g, [...roots[r]!]));
    let more = false;
    const want = (r: number, v: Value | undefined): void => {
      if (v === undefined || roots[r]!.has(v)) return;
      roots[r]!.add(v);
      more = true;
    };
    orders.forEach((order, me) => {
      for (const v of order) {
        if (v.op === 'recv') want(v.attributes.from, sends.get(channel(v.attributes.from, me, v.attributes.channel)));
        else if (v.op !== 'send' && isExchange(v.op)) for (const r of partners(v, me)) want(r, named[r]!.get(v.name));
      }
    });
    if (!more) return orders;
  }
}

/**
 * An interpreter of the graphs of all ranks, rank 0 first.
 * @param weights gives the decoded numbers of a weight of a rank: of a part of a weight, that part
 * @param limit bytes of decoded weights kept in memory, each rank
 */
export async function createRanksReference(
  graphs: readonly Graph[],
  weights: (v: ValueOf<'weight'>) => Float32Array | Int32Array,
  limit = 2 ** 31,
): Promise<RanksReference> {
  const machines: readonly Machine[] = await Promise.all(graphs.map(g => createMachine(g, weights, limit, null)));
  const plans = new Map<string, readonly (readonly Value[])[]>();

  function run(
    orders: readonly (readonly Value[])[],
    targets: readonly (readonly Value[])[],
    steps: readonly Step[],
  ): readonly (readonly Result[])[] {
    const going = machines.map((m, r) => m.run(orders[r]!, targets[r]!, steps[r]!));
    const at: (Waiting | null)[] = graphs.map(() => null);
    const done: (readonly Result[] | null)[] = graphs.map(() => null);
    const mail = new Map<string, Held>();
    const go = (r: number, h?: Held): void => {
      const next = h === undefined ? going[r]!.next() : going[r]!.next(h);
      at[r] = next.done ? null : next.value;
      if (next.done) done[r] = next.value;
    };
    /** True where rank r could go on. */
    const meet = (r: number): boolean => {
      const w = at[r];
      if (!w) return false;
      const v = w.value;
      if (v.op === 'send') {
        const x = w.get(v.inputs.x);
        const copy = (): Held => (x.kind === 'real' ? { kind: 'real', matrix: tf.clone(x.matrix) } : x);
        mail.set(channel(r, v.attributes.to, v.attributes.channel), copy());
        go(r, copy());
        return true;
      }
      if (v.op === 'recv') {
        const key = channel(v.attributes.from, r, v.attributes.channel);
        const came = mail.get(key);
        if (!came) return false;
        mail.delete(key);
        go(r, came);
        return true;
      }
      const { group } = (v as ValueOf<'all_reduce'>).attributes;
      const members = group.map(m => at[m]);
      if (!members.every((m): m is Waiting => m?.value.name === v.name && m.value.op === v.op)) return false;
      const out = exchange(members);
      group.forEach((m, j) => {
        go(m, out[j]!);
      });
      return true;
    };
    for (let r = 0; r < graphs.length; r++) go(r);
    while (done.some(d => d === null)) {
      if (graphs.map((_, r) => meet(r)).some(moved => moved)) continue;
      const stuck = at.flatMap((w, r) => (w ? [`rank ${r} at ${w.value.name}`] : []));
      throw new Error(`the ranks wait for each other: ${stuck.join(', ')}`);
    }
    return done as readonly (readonly Result[])[];
  }
  return {
    step(steps, names) {
      if (steps.length !== graphs.length) throw new Error(`${steps.length} calls for ${graphs.length} ranks`);
      const lost = names.filter(n => machines.every(m => m.find(n) === undefined));
      if (lost.length) throw new Error(`no rank has a value ${lost.join(', ')}`);
      const own = machines.map(m => names.filter(n => m.find(n) !== undefined));
      const targets = machines.map((m, r) => own[r]!.map(n => m.find(n) as Value));
      const key = names.join(' ');
      const orders = plans.get(key) ?? ordersOf(graphs, targets);
      plans.set(key, orders);
      const results = run(orders, targets, steps);
      return own.map((list, r) => new Map(list.map((n, i) => [n, results[r]![i] as Result])));
    },
    reset() {
      for (const m of machines) m.reset();
    },
    dispose() {
      for (const m of machines) m.dispose();
    },
  };
}
