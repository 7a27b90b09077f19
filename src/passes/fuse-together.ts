// Launches that do not wait for each other, as one: the projections of a row, the norm of one latent and the cache entry of another. A launch
// moves up to an earlier one where nothing between the two writes what it reads, or touches what it writes.
import { sameDim, type Value } from '../../ir/graph.js';
import type { OpName } from '../../ir/ops.js';
import type { Argument, Launch, Variant } from '../../ir/program.js';
import { beside, type Sharing } from '../kernels/beside.js';
import type { Lowering } from './lowering.js';

/** Blocks of one launch should cost about the same, so products stand beside products and rows beside rows. */
type Class = 'product' | 'row' | 'window';
const classes: { readonly [K in OpName]?: Class } = {
  linear: 'product',
  swiglu: 'product',
  rms_norm: 'row',
  layer_norm: 'row',
  rope: 'row',
  hadamard: 'row',
  fake_quant: 'row',
  append: 'row',
  concat: 'row',
  scale: 'row',
  slice: 'row',
  gather: 'row',
  compress: 'window',
};
const bodyOf = (l: Launch): readonly Value[] => [...(l.fused ?? []), ...l.also, l.value];
function classOf(l: Launch): Class | null {
  if (l.variants.some(v => v.kernel === null)) return null;
  const ops = bodyOf(l).map(v => v.op);
  if (ops.includes('linear')) return 'product';
  const known = [...new Set(ops.map(o => classes[o] ?? null))];
  return known.length === 1 && l.value.op !== 'swiglu' ? (known[0] as Class | null) : null;
}

/** Argument as a word: equal words are the same memory. */
function placeOf(a: Argument): string {
  switch (a.kind) {
    case 'buffer':
      return `buffer ${a.buffer}`;
    case 'weight':
      return `weight ${a.weight.name}`;
    case 'state':
      return `state ${a.state.name}`;
    case 'input':
      return `input ${a.which}`;
    case 'table':
      return `table ${a.name}`;
  }
}
interface Touched {
  readonly reads: ReadonlySet<string>;
  readonly writes: ReadonlySet<string>;
  /** Appends that it works towards: two launches of one append write columns of their own. */
  readonly appends: ReadonlySet<Value>;
}
function touched(l: Launch): Touched {
  const reads = new Set<string>();
  const writes = new Set<string>();
  for (const v of l.variants) v.args.forEach((a, i) => (v.kernel?.params[i]?.access === 'write' ? writes : reads).add(placeOf(a)));
  return { reads, writes, appends: new Set(bodyOf(l).filter(v => v.op === 'append')) };
}
const meet = <T>(a: ReadonlySet<T>, b: ReadonlySet<T>): boolean => [...a].some(x => b.has(x));
/** Whether `later` may run beside or before `earlier`. */
const apart = (earlier: Touched, later: Touched): boolean =>
  !meet(earlier.writes, later.reads) &&
  (!meet(earlier.writes, later.writes) || meet(earlier.appends, later.appends)) &&
  !meet(earlier.reads, later.writes);

/** Launches in an order that means the same, with those that may run beside each other as one. */
export function together(launches: readonly Launch[], c: Lowering): readonly Launch[] {
  const touches = new Map(launches.map(l => [l, touched(l)]));
  const of = (l: Launch): Touched => touches.get(l) as Touched;
  const left = [...launches];
  const out: Launch[] = [];
  for (let head = left.shift(); head; head = left.shift()) {
    const kind = classOf(head);
    const group = [head];
    const passed: Launch[] = [];
    for (const l of kind === null ? [] : left) {
      const beyond = l.layer !== head.layer;
      if (beyond) break;
      const fits = classOf(l) === kind && alike(head, l) && [...group, ...passed].every(e => apart(of(e), of(l)));
      if (fits) group.push(l);
      else passed.push(l);
    }
    const one = joined(group, c);
    if (one === null) out.push(head);
    else if (one.variants.every(v => v.kernel)) {
      for (const l of group.slice(1)) left.splice(left.indexOf(l), 1);
      out.push(one);
    } else {
      // at some numbers of rows the chip cannot hold the whole: there each launch stays where it was
      const rest = group.map(l => without(l, one));
      rest.forEach((l, i) => {
        touches.set(l, touched(l));
        if (i > 0) left[left.indexOf(group[i] as Launch)] = l;
      });
      out.push({ ...one, last: false, also: [], fused: c.inOrder([...(one.fused ?? []), ...one.also]) }, rest[0] as Launch);
    }
  }
  return out;
}
/** A launch that has nothing to do where another does it. */
const without = (l: Launch, one: Launch): Launch => ({
  ...l,
  variants: l.variants.map((v, i) => (one.variants[i]?.kernel ? { upTo: v.upTo, kernel: null, args: [], sizes: [] } : v)) as [
    Variant,
    ...Variant[],
  ],
});
const alike = (a: Launch, b: Launch): boolean =>
  sameDim(a.rows, b.rows) &&
  String(a.outputs) === String(b.outputs) &&
  a.variants.length === b.variants.length &&
  a.variants.every((v, i) => {
    const w = b.variants[i] as Variant;
    return v.upTo === w.upTo && v.sizes.length === 1 && w.sizes.length === 1 && sameDim(v.sizes[0]!, w.sizes[0]!);
  });

/** null where there is nothing to join, or the chip objects to all kernels of the whole; those that it objects to are null. */
function joined(group: readonly Launch[], c: Lowering): Launch | null {
  const [head, ...rest] = group as [Launch, ...Launch[]];
  if (rest.length === 0) return null;
  const variants: Variant[] = [];
  for (const [i, v] of head.variants.entries()) {
    const parts = group.map(l => l.variants[i] as Variant);
    const args: Argument[] = [];
    const words: string[] = [];
    const sharing: Sharing = parts.map(p =>
      p.args.map((a, j) => {
        const param = p.kernel!.params[j]!;
        const word = `${placeOf(a)} ${param.access} ${JSON.stringify([param.shape, param.storage, param.stacked])}`;
        const known = words.indexOf(word);
        if (known >= 0) return known;
        args.push(a);
        return words.push(word) - 1;
      }),
    );
    const kernels = parts.map(p => p.kernel!);
    const kernel = c.kernelOrNull(
      `${kernels[0]!.name}_and_${kernels.length - 1}`,
      function besideEachOther(name: string) {
        return beside(name, kernels, sharing);
      },
      { parts: kernels.map(k => k.name), sharing },
    );
    variants.push(kernel ? { ...v, kernel, args } : { upTo: v.upTo, kernel, args: [], sizes: [] });
  }
  if (variants.every(v => v.kernel === null)) return null;
  const done = group.flatMap(l => [...l.also, ...(l.last && l !== head ? [l.value] : [])]);
  const inner = group.flatMap(l => [...(l.fused ?? []), ...(l === head || l.last ? [] : [l.value])]);
  const fused = c.inOrder(inner.filter(v => !done.includes(v) && v !== head.value));
  return {
    ...head,
    also: done,
    ...(fused.length ? { fused } : {}),
    variants: variants as [Variant, ...Variant[]],
  };
}
