// What choosing kernels works with: where values lie, kernels by name, scratch memory.
import { type Dim, type Graph, needed, sizeOf, type Type, type Value, type ValueOf } from '../../ir/graph.js';
import type { Argument, Buffer, Launch, Variant } from '../../ir/program.js';
import { elements, f32, type Storage, storageName } from '../../ir/storage.js';
import type { Kernel } from '../../ir/tile.js';
import { verifyKernel } from '../../ir/tile-verify.js';
import type { Within } from '../kernels/rms-norm.js';
import type { StateSpec } from '../kernels/state.js';
import type { Fused, FusionName } from './fuse.js';

export interface LoweringOptions {
  /** Values that must lie in buffers of their own after a run, as `verify` wants: they are not fused into others. plan-memory is told the same. */
  readonly keep?: readonly string[] | 'all';
  /** Why a chip cannot run a kernel, as a sentence; null where it can. The first candidate without an objection is taken. */
  readonly objection?: (kernel: Kernel) => string | null;
  /** Names of fusions that are left out, or 'all': a launch for every value. For tests, benches and targets whose libraries do single ops better. */
  readonly unfused?: readonly FusionName[] | 'all';
}

/** No candidate of a kernel fits the chip. */
export class DoesNotFit extends Error {}

export class Lowering {
  readonly buffers: Buffer[] = [];
  readonly #kernels = new Map<string, Kernel>();
  readonly #names = new Set<string>();
  readonly #tables = new Map<string, Argument & { readonly kind: 'table' }>();
  readonly #needs: readonly (readonly [output: string, values: ReadonlySet<Value>])[];
  readonly #graph: Graph;
  readonly #options: LoweringOptions;
  readonly #fused: Fused;

  constructor(graph: Graph, options: LoweringOptions, fused: Fused) {
    this.#fused = fused;
    this.#graph = graph;
    this.#options = options;
    this.#needs = Object.entries(graph.outputs).map(([name, v]) => [name, new Set(needed(graph, [v]))] as const);
  }

  /**
   * The first of the candidates that nothing objects to. Equal makings give the same kernel; where two differ but would be called the same,
   * the later one is numbered. Throws with every objection where all are refused, and where a kernel is not well formed, which is a bug.
   */
  kernel<S>(name: string, make: (name: string, spec: S) => Kernel, ...candidates: readonly [S, ...S[]]): Kernel {
    const objections: string[] = [];
    const kernel = this.#first(name, make, candidates, objections);
    if (kernel === null) throw new DoesNotFit(`no tile sizes of ${name} fit:\n${objections.join('\n')}`);
    return kernel;
  }
  /** The same; null where all are refused. */
  kernelOrNull<S>(name: string, make: (name: string, spec: S) => Kernel, ...candidates: readonly [S, ...S[]]): Kernel | null {
    return this.#first(name, make, candidates, []);
  }
  #first<S>(name: string, make: (name: string, spec: S) => Kernel, candidates: readonly S[], objections: string[]): Kernel | null {
    for (const spec of candidates) {
      const key = `${make.name} ${name} ${JSON.stringify(spec)}`;
      const known = this.#kernels.get(key);
      if (known) return known;
      const made = make(this.#freeName(name), spec);
      const broken = verifyKernel(made);
      if (broken.length > 0) throw new Error(broken.join('\n'));
      const objection = this.#options.objection?.(made) ?? null;
      if (objection === null) {
        this.#names.add(made.name);
        this.#kernels.set(key, made);
        return made;
      }
      objections.push(objection);
    }
    return null;
  }
  #freeName(name: string): string {
    if (!this.#names.has(name)) return name;
    let n = 2;
    while (this.#names.has(`${name}_${n}`)) n++;
    return `${name}_${n}`;
  }

  /** Values in the graph's order, each once. */
  inOrder(values: readonly Value[]): readonly Value[] {
    const asked = new Set(values);
    return this.#graph.values.filter(v => asked.has(v));
  }
  /** Whether a value is computed in the launch of another. */
  absorbs(by: Value, v: Value): boolean {
    return this.#fused.get(v) === by;
  }
  /** Where v's input stands: in columns of wider rows, if v takes in the slice. */
  whole(by: Value, x: Value): { readonly x: Value; readonly within: Within | null } {
    if (x.op !== 'slice' || !this.absorbs(by, x)) return { x, within: null };
    return { x: x.inputs.x, within: { columns: widthOf(x.inputs.x), from: x.attributes.from } };
  }

  /** The size of a dimension at the limits: what states and buffers are made for. */
  limit(d: Dim): number {
    return sizeOf(d, this.#graph.limits);
  }

  /** Where a value lies. An appended state is the state itself. */
  arg(v: Value): Argument {
    switch (v.op) {
      case 'weight':
        return { kind: 'weight', weight: v };
      case 'input':
        return { kind: 'input', which: v.attributes.which };
      case 'state':
        return { kind: 'state', state: v };
      case 'append':
        return this.arg(v.inputs.state);
      default:
        return { kind: 'buffer', buffer: v.name };
    }
  }
  /** A constant table; equal ones are one. */
  table(name: string, values: Float32Array): Argument {
    const key = `${name} ${values.join(' ')}`;
    const known = this.#tables.get(key);
    if (known) return known;
    const alike = [...this.#tables.values()].filter(t => t.name.replace(/_\d+$/, '') === name).length;
    const made = { kind: 'table', name: alike === 0 ? name : `${name}_${alike + 1}`, values } as const;
    this.#tables.set(key, made);
    return made;
  }
  /** Memory between the launches of one value. */
  scratch(v: Value, name: string, shape: readonly Dim[], storage: Storage = f32): Argument {
    return this.#buffer(`${v.name}.${name}`, { shape, storage });
  }
  /** The memory of a value. */
  own(v: Value): Argument {
    return this.#buffer(v.name, v.type);
  }
  #buffer(name: string, type: Type): Argument {
    if (!this.buffers.some(b => b.name === name)) {
      const bytes = type.shape.reduce<number>((n, d) => n * this.limit(d), elements[type.storage.element].bits / 8);
      this.buffers.push({ name, type, offset: -1, bytes });
    }
    return { kind: 'buffer', buffer: name };
  }

  /** How a state lies in memory, looked up through its appends. */
  state(v: Value): StateSpec {
    const root = rootState(v);
    const [sequences, capacity, width] = root.type.shape as readonly [Dim, Dim, Dim];
    const sizes = { sequences: this.limit(sequences), capacity: this.limit(capacity), width: this.limit(width) };
    return { ...sizes, storage: root.type.storage, ring: root.attributes.kind === 'ring' };
  }

  launch(
    v: Value,
    variants: readonly [Variant, ...Variant[]],
    more: { readonly last?: boolean; readonly also?: readonly Value[]; readonly rows?: Dim } = {},
  ): Launch {
    const also = more.also ?? [];
    const fused = this.#graph.values.filter(x => this.#fused.get(x) === v && !also.includes(x));
    return {
      value: v,
      last: more.last ?? true,
      also,
      ...(fused.length ? { fused } : {}),
      layer: v.origin.layer,
      rows: more.rows ?? (v.type.shape[0] as Dim),
      variants,
      outputs: this.#needs.filter(([, values]) => values.has(v)).map(([name]) => name),
    };
  }
}

function rootState(v: Value): ValueOf<'state'> {
  if (v.op === 'state') return v;
  if (v.op === 'append') return rootState(v.inputs.state);
  throw new Error(`${v.name} is no state`);
}

/** The columns of a row: the last dimension, a number. */
export function widthOf(v: Value): number {
  const d = v.type.shape[v.type.shape.length - 1];
  if (typeof d !== 'number') throw new Error(`${v.name} has rows of no fixed width`);
  return d;
}
/** A storage as a part of a kernel's name: `bf16`, `f8e4m3_128x128_f32`. */
export const storageWord = (s: Storage): string =>
  storageName(s)
    .replace(/\[(\d+)x(\d+|\*)\]/, '_$1x$2_')
    .replace('*', 'row');
/** The largest divisor of n that is at most `most`. */
export function divisorUpTo(n: number, most: number): number {
  for (let d = Math.min(n, most); d > 1; d--) if (n % d === 0) return d;
  return 1;
}
