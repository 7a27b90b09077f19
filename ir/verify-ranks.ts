// What holds of the graphs of all ranks together, besides what holds of each (ir/verify.ts). Said in sentences:
//
//   ranks      graph r says that it is rank r of as many as there are
//   limits     the same in all
//   groups     an exchange is in the graph of every rank of its group, under the same name, with the same op and attributes, and brings what the
//              others expect: the same shape of x to a sum, the same width of rows elsewhere
//   channels   what is sent is received: the same ranks, channel and type, each channel once
//   order      the ranks of a group come to its exchanges in the same order, and no ring of ranks waits for itself: all come to their end even
//              where every exchange, send and recv holds a rank until its partners are there
import { type Graph, sameShape, showDim, type Value, type ValueOf } from './graph.js';
import { isExchange } from './ops.js';
import { sameStorage } from './storage.js';
import { verify } from './verify.js';

interface Meeting {
  readonly rank: number;
  readonly value: Value;
}

/** Sentences; empty where everything holds. */
export function verifyRanks(graphs: readonly Graph[], options: { readonly bytes?: boolean } = {}): readonly string[] {
  const wrong = graphs.flatMap((g, r) => [
    ...verify(g, options).map(s => `rank ${r}: ${s}`),
    ...(g.rank?.index === r && g.rank.of === graphs.length ? [] : [`rank ${r} does not say that it is ${r} of ${graphs.length}`]),
    ...(JSON.stringify(g.limits) === JSON.stringify(graphs[0]!.limits) ? [] : [`rank ${r} has other limits than rank 0`]),
  ]);
  if (wrong.length > 0) return wrong;
  const unmatched = [...groupsWrong(graphs), ...channelsWrong(graphs)];
  return unmatched.length > 0 ? unmatched : stuck(graphs);
}

const groupOf = (v: Value): readonly number[] => (v as ValueOf<'all_reduce'>).attributes.group;
const collective = (v: Value): boolean => isExchange(v.op) && v.op !== 'send' && v.op !== 'recv';
const typeText = (v: Value): string => `[${v.type.shape.map(showDim).join(', ')}]`;

function groupsWrong(graphs: readonly Graph[]): readonly string[] {
  const named = graphs.map(g => new Map(g.values.map(v => [v.name, v])));
  return graphs.flatMap((g, me) =>
    g.values.filter(collective).flatMap(v =>
      groupOf(v).flatMap(r => {
        const other = named[r]!.get(v.name);
        if (other?.op !== v.op) return [`rank ${me} comes to ${v.op} ${v.name}, and rank ${r} of its group does not`];
        if (JSON.stringify(other.attributes) !== JSON.stringify(v.attributes))
          return [`ranks ${me} and ${r} come to ${v.name} with other attributes`];
        const [a, b] = [(v as ValueOf<'all_reduce'>).inputs.x, (other as ValueOf<'all_reduce'>).inputs.x];
        const whole = v.op === 'all_reduce' || v.op === 'reduce_scatter';
        const fits =
          sameStorage(a.type.storage, b.type.storage) &&
          (whole
            ? sameShape(a.type.shape, b.type.shape)
            : (v.op === 'all_gather' && v.attributes.along === 'columns') || sameShape(a.type.shape.slice(1), b.type.shape.slice(1)));
        return fits ? [] : [`rank ${me} brings ${typeText(a)} to ${v.name}, and rank ${r} ${typeText(b)}`];
      }),
    ),
  );
}

function channelsWrong(graphs: readonly Graph[]): readonly string[] {
  const wrong: string[] = [];
  const gather = (op: 'send' | 'recv'): ReadonlyMap<string, Meeting> => {
    const found = new Map<string, Meeting>();
    graphs.forEach((g, rank) => {
      for (const v of g.values) {
        if (v.op !== op) continue;
        const [from, to] = v.op === 'send' ? [rank, v.attributes.to] : [v.attributes.from, rank];
        const key = `${from} to ${to}: ${v.attributes.channel}`;
        if (found.has(key)) wrong.push(`there are two of ${op} from rank ${key}`);
        found.set(key, { rank, value: v });
      }
    });
    return found;
  };
  const [sent, received] = [gather('send'), gather('recv')];
  for (const [key, s] of sent) {
    const r = received.get(key);
    if (!r) wrong.push(`nobody receives what goes from rank ${key}`);
    else if (!sameShape(s.value.type.shape, r.value.type.shape) || !sameStorage(s.value.type.storage, r.value.type.storage))
      wrong.push(`from rank ${key} is sent as ${typeText(s.value)} and received as ${typeText(r.value)}`);
  }
  for (const key of received.keys()) if (!sent.has(key)) wrong.push(`nobody sends what is received from rank ${key}`);
  return wrong;
}

/** Walks all ranks through their exchanges; a sentence where none can go on. */
function stuck(graphs: readonly Graph[]): readonly string[] {
  const lists = graphs.map(g => g.values.filter(v => isExchange(v.op)));
  const at = graphs.map(() => 0);
  const here = (r: number): Value | undefined => lists[r]![at[r]!];
  /** The ranks that go on together, where all of them are there. */
  const together = (r: number): readonly number[] | null => {
    const v = here(r);
    if (v === undefined) return null;
    if (v.op === 'send' || v.op === 'recv') {
      const [other, back, channel] =
        v.op === 'send'
          ? ([v.attributes.to, 'recv', v.attributes.channel] as const)
          : ([v.attributes.from, 'send', v.attributes.channel] as const);
      const w = here(other);
      if (w === undefined || w.op !== back || w.attributes.channel !== channel) return null;
      return (w.op === 'send' ? w.attributes.to : w.attributes.from) === r ? [r, other] : null;
    }
    return groupOf(v).every(m => here(m)?.name === v.name) ? groupOf(v) : null;
  };
  for (let moved = true; moved; ) {
    moved = false;
    for (let r = 0; r < graphs.length; r++) {
      const all = together(r);
      for (const m of all ?? []) at[m] = at[m]! + 1;
      moved ||= all !== null;
    }
  }
  const waiting = graphs.flatMap((_, r) => (here(r) ? [`rank ${r} at ${here(r)!.op} ${here(r)!.name}`] : []));
  return waiting.length > 0 ? [`the ranks wait for each other: ${waiting.join(', ')}`] : [];
}
