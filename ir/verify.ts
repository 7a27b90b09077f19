// What holds of every graph, asked between passes. A broken one is a bug of a pass or a model, said in sentences:
//
//   names      unique; letters, digits, dots and underscores
//   order      every input stands before its user; outputs are values of the graph
//   inputs     those of the op's row, none missing, none more
//   types      what the op's rule gives; weights and states have fixed sizes but for symbols
//   states     a state is appended to once on the way to any reader; capacities are whole numbers above 0
//   weights    one part for each matrix of a stack; codes and scales have exactly the bytes of shape and storage; scales where the storage has them
//   parts      a part of a weight lies inside the whole; it begins and ends where blocks of scales do, or where the whole ends; its bytes are the whole's
//   ranks      only the graph of a rank has ops of ranks; a rank is in the groups it names, each rank of a group once
//   bytes      inside one file two different tensors do not overlap
//   limits     whole numbers above 0; wanted and tokens no larger than the context
//
// Not checked here: that the graphs of several ranks fit each other (ir/verify-ranks.ts).
// Not checked: that a graph computes what a paper says (the goldens do), attributes' values beyond what type rules read, which files exist.
import { type Dim, type Graph, inputsOf, type Part, sameShape, sizeOf, type Value, type ValueOf } from './graph.js';
import { inputNames, isExchange, isRankOp, opNames, ops, typeOf } from './ops.js';
import { matrixBytes, sameStorage } from './storage.js';

/** Sentences; empty where everything holds. A graph made from a config alone has weights without bytes: `bytes` false leaves them out. */
export function verify(graph: Graph, options: { readonly bytes?: boolean } = {}): readonly string[] {
  const wrong: string[] = [];
  const place = new Map<Value, number>();
  const names = new Set<string>();
  for (const [key, n] of Object.entries(graph.limits)) if (!Number.isSafeInteger(n) || n < 1) wrong.push(`the limit ${key} is ${n}`);
  if (graph.limits.tokens > graph.limits.context || graph.limits.wanted > graph.limits.tokens)
    wrong.push('wanted, tokens and context must rise');
  graph.values.forEach((v, i) => {
    if (!/^[A-Za-z0-9_.]+$/.test(v.name)) wrong.push(`${JSON.stringify(v.name)} is no name`);
    if (names.has(v.name)) wrong.push(`two values are called ${v.name}`);
    names.add(v.name);
    wrong.push(...inputsWrong(v, place), ...typeWrong(v));
    place.set(v, i);
  });
  for (const [name, v] of Object.entries(graph.outputs)) if (!place.has(v)) wrong.push(`the output ${name} is not a value of the graph`);
  const sends = graph.values.some(v => v.op === 'send');
  if (!graph.outputs.logits && !sends) wrong.push('there is no output called logits');
  wrong.push(...ranksWrong(graph), ...slicesWrong(graph));
  wrong.push(...statesWrong(graph));
  if (options.bytes !== false) wrong.push(...weightsWrong(graph), ...overlaps(graph));
  return wrong;
}

function inputsWrong(v: Value, place: ReadonlyMap<Value, number>): readonly string[] {
  if (!opNames.includes(v.op)) return [`${v.name}: ${v.op} is no op`];
  const has = inputsOf(v);
  const row = inputNames(v.op);
  return [
    ...row.filter(r => !r.optional && !has.some(([n]) => n === r.name)).map(r => `${v.name}: ${v.op} lacks its input ${r.name}`),
    ...has.filter(([n]) => !row.some(r => r.name === n)).map(([n]) => `${v.name}: ${v.op} has no input ${n}`),
    ...has.filter(([, i]) => !place.has(i)).map(([n, i]) => `${v.name}: its input ${n}, ${i.name}, does not stand before it`),
  ];
}
function typeWrong(v: Value): readonly string[] {
  if (v.type.shape.some(d => typeof d === 'number' && (!Number.isSafeInteger(d) || d < 1)))
    return [`${v.name} has a size that is no whole number above 0`];
  if (!Object.hasOwn(ops, v.op)) return [];
  const rule = typeOf(v.op, v.inputs as Readonly<Record<string, Value>>, v.attributes) as unknown;
  if (rule === 'declared') return [];
  if (typeof rule === 'string') return [`${v.name}: ${rule}`];
  const type = rule as Value['type'];
  return sameShape(type.shape, v.type.shape) && sameStorage(type.storage, v.type.storage)
    ? []
    : [`${v.name} does not have the type that ${v.op} gives`];
}
function statesWrong(graph: Graph): readonly string[] {
  const wrong: string[] = [];
  const appended = new Map<Value, string>();
  for (const v of graph.values) {
    if (v.op === 'state' && (v.type.shape.length !== 3 || !(sizeOf(v.type.shape[1] as Dim, graph.limits) >= 1)))
      wrong.push(`${v.name} has no [sequences, capacity, width]`);
    if (v.op !== 'append') continue;
    const before = appended.get(v.inputs.state);
    if (before !== undefined) wrong.push(`${v.inputs.state.name} is appended to by ${before} and by ${v.name}`);
    appended.set(v.inputs.state, v.name);
    if (v.inputs.state.op !== 'state' && v.inputs.state.op !== 'append')
      wrong.push(`${v.name} appends to ${v.inputs.state.name}, which is no state`);
  }
  return wrong;
}
const length = (bytes: readonly [number, number]): number => bytes[1] - bytes[0];
function weightsWrong(graph: Graph): readonly string[] {
  return graph.values.flatMap(v => {
    if (v.op !== 'weight') return v.origin.parts.length ? [`${v.name} is computed but has parts in files`] : [];
    const own = v.type.shape as readonly number[];
    const stack = own.length === 3 ? (own[0] as number) : 1;
    const shape = v.origin.slice?.of ?? own;
    if (v.origin.parts.length !== stack) return [`${v.name} has ${v.origin.parts.length} parts where ${stack} were expected`];
    const columns = shape.at(-1) ?? 1;
    const rows = shape.length < 2 ? 1 : (shape.at(-2) as number);
    const { codes, scales } = matrixBytes(v.type.storage, rows, columns);
    const odd = (p: Part): boolean =>
      length(p.bytes) !== codes || (scales === 0 ? p.scale !== undefined : p.scale === undefined || length(p.scale.bytes) !== scales);
    const bad = v.origin.parts.find(odd);
    return bad ? [`${v.name}: ${bad.tensor} has not the ${codes} bytes of codes and ${scales} of scales that its type says`] : [];
  });
}
function slicesWrong(graph: Graph): readonly string[] {
  return graph.values.flatMap(v => {
    const { slice } = v.origin;
    if (!slice) return [];
    const shape = v.type.shape as readonly number[];
    if (v.op !== 'weight') return [`${v.name} is no weight but a part of one`];
    if (slice.of.length !== shape.length || slice.from.length !== shape.length)
      return [`${v.name} is a part of another number of dimensions`];
    const s = v.type.storage;
    return shape.flatMap((size, d) => {
      const [from, whole] = [slice.from[d] as number, slice.of[d] as number];
      if (!(from >= 0 && from + size <= whole)) return [`${v.name}: ${from} to ${from + size} does not lie inside ${whole}`];
      const block = s.kind === 'plain' ? 1 : d === shape.length - 1 ? s.block[1] : d === shape.length - 2 ? s.block[0] : 1;
      const cuts = (at: number): boolean => block > 1 && at % block !== 0 && at !== whole;
      return cuts(from) || cuts(from + size) ? [`${v.name}: ${from} to ${from + size} cuts a block of ${block}`] : [];
    });
  });
}
function ranksWrong(graph: Graph): readonly string[] {
  const { rank } = graph;
  if (rank && !(Number.isSafeInteger(rank.index) && rank.index >= 0 && rank.index < rank.of))
    return [`there is no rank ${rank.index} of ${rank.of}`];
  return graph.values.flatMap(v => {
    if (!isRankOp(v.op)) return [];
    if (!rank) return [`${v.name}: ${v.op} is in a graph that is no rank's`];
    const other = v.op === 'send' ? v.attributes.to : v.op === 'recv' ? v.attributes.from : null;
    if (other !== null)
      return other !== rank.index && inRange(other, rank.of) ? [] : [`${v.name}: rank ${rank.index} cannot meet rank ${other}`];
    if (!isExchange(v.op)) return [];
    const { group } = (v as ValueOf<'all_reduce'>).attributes;
    if (!group.every(r => inRange(r, rank.of)) || new Set(group).size !== group.length || !group.includes(rank.index))
      return [`${v.name}: rank ${rank.index} cannot meet the ranks ${group.join(', ')}`];
    const me = group.indexOf(rank.index);
    if (v.op === 'all_gather' && v.attributes.along === 'columns' && v.inputs.x.type.shape.at(-1) !== v.attributes.sizes[me])
      return [`${v.name}: rank ${rank.index} does not bring its ${v.attributes.sizes[me]} columns`];
    return [];
  });
}
const inRange = (r: number, of: number): boolean => Number.isSafeInteger(r) && r >= 0 && r < of;
function overlaps(graph: Graph): readonly string[] {
  const files = new Map<string, { readonly from: number; readonly to: number; readonly tensor: string }[]>();
  for (const v of graph.values)
    for (const p of v.origin.parts)
      for (const s of p.scale ? [p, p.scale] : [p]) {
        const list = files.get(s.file) ?? [];
        list.push({ from: s.bytes[0], to: s.bytes[1], tensor: s.tensor });
        files.set(s.file, list);
      }
  return [...files].flatMap(([file, list]) => {
    list.sort((a, b) => a.from - b.from || a.to - b.to);
    return list.flatMap((s, i) => {
      const before = list[i - 1];
      return before && before.to > s.from && before.tensor !== s.tensor ? [`in ${file}, ${before.tensor} and ${s.tensor} share bytes`] : [];
    });
  });
}
