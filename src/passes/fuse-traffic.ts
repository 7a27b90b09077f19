// How many kernels a call launches and how many bytes their arguments move: what fusing saves, counted from the program. A byte is counted
// once a launch, however often blocks read it again; of what is picked by number (table rows, experts, cache entries) only what is picked.
import { sizeOf, type Value } from '../../ir/graph.js';
import type { Argument, Launch, Program, Variant } from '../../ir/program.js';
import { elements, matrixBytes, type Storage } from '../../ir/storage.js';
import type { Int, Kernel, Param, View } from '../../ir/tile.js';

/** One call of `tokens` rows of one sequence that holds `context` positions, its own included; logits of the last row. */
export interface At {
  readonly tokens: number;
  readonly context: number;
}
export interface Traffic {
  readonly kernels: number;
  /** Of weights and their scales. */
  readonly weights: number;
  /** Of buffers between launches, of inputs and of small tables. */
  readonly rows: number;
  /** Of caches. */
  readonly states: number;
}
export interface LaunchTraffic extends Traffic {
  readonly launch: Launch;
  readonly kernel: Kernel;
}

/** Each launch that has something to do at so many rows. */
export function trafficOf(p: Program, at: At): readonly LaunchTraffic[] {
  const symbols = { ...p.graph.limits, tokens: at.tokens, wanted: 1 };
  const taken = p.launches.flatMap(launch => {
    const rows = sizeOf(launch.rows, symbols);
    const variant = launch.variants.find(v => v.upTo === null || rows <= v.upTo);
    return variant?.kernel ? [{ launch, variant, kernel: variant.kernel }] : [];
  });
  // where several launches write a state's entry, the last is counted for all
  const writer = new Map<string, Launch>();
  for (const { launch, variant, kernel } of taken)
    kernel.params.forEach((param, i) => {
      const a = variant.args[i] as Argument;
      if (a.kind === 'state' && param.access === 'write') writer.set(a.state.name, launch);
    });
  return taken.map(({ launch, variant, kernel }): LaunchTraffic => {
    const sizes = new Map(kernel.sizes.map((s, i) => [s, sizeOf(variant.sizes[i] ?? 0, symbols)]));
    const counted = { weights: 0, rows: 0, states: 0 };
    kernel.params.forEach((param, i) => {
      const a = variant.args[i] as Argument;
      const kind = a.kind === 'state' ? 'states' : a.kind === 'weight' ? 'weights' : 'rows';
      counted[kind] += bytesOf(param, a, { launch, variant, sizes, at, writer });
    });
    return { launch, kernel, kernels: 1, ...counted };
  });
}
export const totalOf = (all: readonly Traffic[]): Traffic =>
  all.reduce<Traffic>(
    (n, t) => ({ kernels: n.kernels + t.kernels, weights: n.weights + t.weights, rows: n.rows + t.rows, states: n.states + t.states }),
    { kernels: 0, weights: 0, rows: 0, states: 0 },
  );

interface Where {
  readonly launch: Launch;
  readonly variant: Variant;
  readonly sizes: ReadonlyMap<string, number>;
  readonly at: At;
  readonly writer: ReadonlyMap<string, Launch>;
}
function whole(i: Int, sizes: ReadonlyMap<string, number>): number {
  if (typeof i === 'number') return i;
  if ('sym' in i) {
    const n = sizes.get(i.sym);
    if (n === undefined) throw new Error(`${i.sym} is no size`);
    return n;
  }
  if ('peek' in i) throw new Error('a shape does not peek');
  const [a, b] = [whole(i.a, sizes), whole(i.b, sizes)];
  switch (i.op) {
    case '+':
      return a + b;
    case '-':
      return a - b;
    case '*':
      return a * b;
    case 'ceildiv':
      return Math.ceil(a / b);
    case 'min':
      return Math.min(a, b);
    case 'max':
      return Math.max(a, b);
    case '/':
      return Math.floor(a / b);
    case '%':
      return a % b;
    case '<':
      return a < b ? 1 : 0;
    case '==':
      return a === b ? 1 : 0;
  }
}
function storedBytes(s: Storage, rows: number, columns: number): number {
  const { codes, scales } = matrixBytes(s, rows, columns);
  return codes + scales;
}

function bytesOf(param: Param, a: Argument, w: Where): number {
  const shape = param.shape.map(d => whole(d, w.sizes));
  const columns = shape.at(-1) ?? 1;
  const total = shape.reduce((x, y) => x * y, 1);
  if (a.kind === 'state') return (entriesOf(param, a, w) * elements[param.storage.element].bits) / 8;
  if (param.stacked) {
    // a token's experts, each once while there are fewer tokens than experts
    const experts = shape[0] as number;
    const k = chosenOf(w.launch);
    const used = Math.min(experts, w.at.tokens * k);
    return used * storedBytes(param.storage, shape[1] as number, columns);
  }
  if (a.kind === 'weight' && picks(w.variant.kernel as Kernel, param)) return storedBytes(param.storage, w.at.tokens, columns);
  return storedBytes(param.storage, total / columns, columns);
}
/** Experts of a token. */
function chosenOf(l: Launch): number {
  if (l.value.op !== 'experts') throw new Error(`${l.value.name} reads stacked matrices, but has no experts`);
  return l.value.inputs.indices.type.shape.at(-1) as number;
}

/** Whether a parameter's rows are picked one by one: by an index tile, or by a number that is read. */
function picks(k: Kernel, param: Param): boolean {
  const views: View[] = [];
  const walk = (node: unknown): void => {
    if (typeof node !== 'object' || node === null) return;
    if ('param' in node && node.param === param) views.push(node as View);
    for (const x of Object.values(node)) walk(x);
  };
  walk(k.body);
  const peeks = (i: Int | undefined): boolean => typeof i === 'object' && ('peek' in i || ('op' in i && (peeks(i.a) || peeks(i.b))));
  return views.length > 0 && views.every(v => v.index !== undefined || v.at.slice(0, -1).some(peeks));
}

/** Numbers of a state that a call reads or writes. */
function entriesOf(param: Param, a: Argument & { readonly kind: 'state' }, { launch, writer, at: { tokens, context } }: Where): number {
  const width = a.state.type.shape[2] as number;
  const body = [...(launch.fused ?? []), ...launch.also, launch.value];
  const of = (v: Value): boolean => rootOf(v) === a.state;
  if (param.access === 'write') {
    const append = body.find(v => v.op === 'append' && of(v));
    if (append?.op !== 'append') throw new Error(`${launch.value.name} writes ${a.state.name}, but appends nothing`);
    return writer.get(a.state.name) === launch ? (tokens / append.attributes.every) * width : 0;
  }
  const entries = body.reduce((n, v): number => {
    switch (v.op) {
      case 'attention': {
        const { window, ratio } = v.attributes;
        const listed = v.inputs.selected ? (v.inputs.selected.type.shape.at(-1) as number) : Number.POSITIVE_INFINITY;
        if (of(v.inputs.state)) return n + Math.min(context, window ?? context, v.inputs.compressed ? context : listed);
        return v.inputs.compressed && of(v.inputs.compressed) ? n + Math.min(Math.floor(context / ratio), listed) : n;
      }
      case 'index_scores':
        return of(v.inputs.state) ? n + Math.floor(context / v.attributes.ratio) : n;
      case 'compress':
        // a window is read once for all its positions
        return of(v.inputs.state) ? n + (v.attributes.overlap ? 2 : 1) : n;
      default:
        return n;
    }
  }, 0);
  return tokens * entries * width;
}
function rootOf(v: Value): Value {
  return v.op === 'append' ? rootOf(v.inputs.state) : v;
}
