// From chosen forms to files: which tensors lie in which shard, at which byte, and the steps that fill them. Nothing is read here but headers.
import { createHash } from 'node:crypto';
import { type CodedForm, type Form, formName, ggufRow, storageOf } from '../ir/form.js';
import { elements, matrixBytes, sameStorage } from '../ir/storage.js';
import { dtypeBytes, type EngineFormat, type PackedTensor, type Packing, type StoredPiece } from '../targets/engine.js';
import { canonicalName } from './checkpoint/names.js';
import type { TensorEntry } from './checkpoint/safetensors.js';
import type { Checkpoint } from './checkpoint/shards.js';
import { movedName, type Sources, type SourceTensor } from './logical.js';
import type { FileWork, MatrixStep, Regions, Step } from './numeric/steps.js';
import type { Resolution } from './recipe.js';

export interface OutputTensor {
  readonly name: string;
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly size: number;
  readonly file: string;
  /** Absolute in the file. */
  readonly at: number;
  /** Source tensors it is made of; empty where it follows from shapes alone. */
  readonly from: readonly string[];
  /** Name of the matrix it belongs to, for figures; null where bytes are passed on. */
  readonly matrix: string | null;
  /** Which line of the recipe, and what it asked for. */
  readonly rule: string;
  /** Bytes passed on; rows or numbers of experts in another order; values cast one by one; codes with scales. */
  readonly kind: 'passed' | 'reordered' | 'cast' | 'coded';
}
/** What a file holds and how it is made. A model has a hundred thousand tensors: this is worked out when it is asked for, and not kept. */
export interface Content {
  readonly steps: readonly Step[];
  readonly outputs: readonly OutputTensor[];
}
export interface PlannedFile extends FileWork {
  /** Made anew at each call. */
  content(): Content;
  /** Output tensors in it. */
  readonly tensors: number;
}
export interface EnginePlan {
  readonly files: readonly PlannedFile[];
  readonly dropped: readonly { readonly tensor: TensorEntry; readonly reason: string }[];
  /** Source shards that go on as whole files. */
  readonly linked: boolean;
  /** Bytes of all weight files. */
  readonly bytes: number;
  /** Tensors whose bytes are passed on, in all. */
  readonly passed: number;
}

interface Piece {
  readonly name: string;
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly size: number;
}
interface Unit {
  readonly pieces: readonly Piece[];
  readonly from: readonly string[];
  readonly matrix: string | null;
  readonly rule: string;
  readonly kind: OutputTensor['kind'];
  /** Where its source lies, for the order of the disk. */
  readonly place: readonly [file: string, offset: number];
  readonly source: number;
  readonly steps: (at: readonly number[]) => readonly Step[];
}
class Planned implements PlannedFile {
  readonly index: number;
  readonly path: string;
  readonly size: number;
  readonly source: number;
  readonly tensors: number;
  readonly link?: true;
  readonly #make: () => Content;
  /** The last one that was asked, since it is asked for several things in a row. */
  static #last: Planned | null = null;
  static #content: Content | null = null;
  constructor(f: Omit<FileWork, 'steps'>, tensors: number, make: () => Content) {
    this.index = f.index;
    this.path = f.path;
    this.size = f.size;
    this.source = f.source;
    this.tensors = tensors;
    if (f.link) this.link = true;
    this.#make = make;
  }
  content(): Content {
    if (Planned.#last !== this || Planned.#content === null) {
      Planned.#content = this.#make();
      Planned.#last = this;
    }
    return Planned.#content;
  }
  get steps(): readonly Step[] {
    return this.content().steps;
  }
}
/** Every output tensor of a plan, file by file. */
export function* outputsOf(p: EnginePlan): Generator<OutputTensor> {
  for (const f of p.files) yield* f.content().outputs;
}
/** Source tensor -> names of what it went into. Each file is shown to `each` on the way. */
export function consumersOf(p: EnginePlan, each: (f: PlannedFile) => void = () => {}): ReadonlyMap<string, readonly string[]> {
  const into = new Map<string, string[]>();
  const read = new Set<string>();
  for (const f of p.files) {
    const { steps, outputs } = f.content();
    each(f);
    for (const o of outputs)
      for (const t of o.from) {
        const list = into.get(t);
        if (list === undefined) into.set(t, [o.name]);
        else list.push(o.name);
      }
    for (const s of steps) if (s.kind === 'digest') read.add(s.source.tensor);
  }
  // what is read for its hash alone follows from headers
  const lost = new Set(p.dropped.map(g => g.tensor.name));
  for (const t of read) if (!into.has(t) && !lost.has(t)) into.set(t, ['(its shape is in the headers)']);
  return into;
}
export const outputCount = (p: EnginePlan): number => p.files.reduce((n, f) => n + f.tensors, 0);
const sizeOf = (dtype: string, shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1) * (dtypeBytes[dtype] as number);
const entrySize = (t: TensorEntry): number => t.bytes[1] - t.bytes[0];

/** A safetensors header: tensors in the order of their bytes, padded with spaces to a multiple of 8. */
export function headerBytes(pieces: readonly Piece[]): Uint8Array {
  let at = 0;
  const entries = pieces.map(
    o => `${JSON.stringify(o.name)}:${JSON.stringify({ dtype: o.dtype, shape: o.shape, data_offsets: [at, (at += o.size)] })}`,
  );
  const json = new TextEncoder().encode(`{"__metadata__":{"format":"pt"}${entries.length ? ',' : ''}${entries.join(',')}}`);
  const header = new Uint8Array(8 + Math.ceil(json.length / 8) * 8).fill(0x20, 8);
  new DataView(header.buffer).setBigUint64(0, BigInt(header.length - 8), true);
  header.set(json, 8);
  return header;
}

const piece = (p: StoredPiece): Piece => ({ name: p.name, dtype: p.dtype, shape: p.shape, size: sizeOf(p.dtype, p.shape) });
const copyStep = (t: TensorEntry, out: number) => ({
  kind: 'copy' as const,
  source: { tensor: t.name, file: t.file, bytes: t.bytes },
  out,
});

/** A source tensor on its way: as it is, or under the new numbers of experts. */
function passStep(s: SourceTensor | null, t: TensorEntry, out: number, narrow = false): Step {
  const moved = s?.moved;
  const { source } = copyStep(t, out);
  if (moved?.rows || moved?.ids) return { kind: 'renumber', source, out, rows: moved.rows, ids: moved.ids, narrow };
  return { kind: narrow ? 'narrow' : 'copy', source, out };
}
/** Rows of a router in their new order: runs of rows that stood side by side before. */
function runsOf(rows: readonly number[]): readonly (readonly [from: number, to: number])[] {
  const runs: [number, number][] = [];
  for (const r of rows) {
    const last = runs.at(-1);
    if (last && last[1] === r) last[1] = r + 1;
    else runs.push([r, r + 1]);
  }
  return runs;
}
/** A router's matrix or vector converted row by row in the new order; it is read for its hash once more. */
function reordered(s: SourceTensor, step: MatrixStep, rows: readonly number[]): readonly Step[] {
  const { form } = step;
  if (form.kind !== 'plain') throw new Error(`${s.logical.name} is no matrix of a linear, and is written in ${formName(form)}`);
  const columns = s.logical.shape.length < 2 ? 1 : step.columns;
  const pitch = (columns * elements[form.element].bits) / 8;
  let out = step.regions.codes;
  return [
    { kind: 'digest', source: copyStep(s.entry, 0).source },
    ...runsOf(rows).map((take): Step => {
      const here = { ...step, rows: rows.length, columns, take, regions: { ...step.regions, codes: out } };
      out += (take[1] - take[0]) * pitch;
      return here;
    }),
  ];
}

/** A source tensor as it is, with what belongs to it, under the family's names. `as`: under another name. */
function kept(
  s: SourceTensor | null,
  entry: TensorEntry,
  more: readonly TensorEntry[],
  c: Checkpoint,
  rule: string,
  as = entry.name,
): readonly Unit[] {
  const nameOf = (t: TensorEntry): string => (s === null ? as : movedName(canonicalName(t.name, c.config.family), s.moved?.expert ?? null));
  return [entry, ...more].map(t => ({
    pieces: [{ name: nameOf(t), dtype: t.dtype, shape: t.shape, size: entrySize(t) }],
    from: [t.name],
    matrix: null,
    rule,
    kind: t === entry && (s?.moved?.rows || s?.moved?.ids) ? 'reordered' : 'passed',
    place: [t.file, t.bytes[0]] as const,
    source: entrySize(t),
    steps: at => [passStep(s, t, at[0] as number)],
  }));
}

function written(s: SourceTensor, form: Form, format: EngineFormat, modelType: string, rule: string): readonly Unit[] {
  const t = s.logical;
  const [rows, columns] = t.shape.length === 2 ? (t.shape as readonly [number, number]) : [1, t.shape[0] ?? 1];
  const source = entrySize(s.entry) + s.with.reduce((n, w) => n + entrySize(w), 0);
  const from = [s.entry.name, ...(s.part.scale ? [s.part.scale.tensor] : [])];
  const common = { rule, place: [s.entry.file, s.entry.bytes[0]] as const, from };
  // a shape tensor says what the header says: it is read for its hash and made anew where it is wanted
  const digests: readonly Step[] = s.with
    .filter(w => w.name !== s.part.scale?.tensor)
    .map(w => ({ kind: 'digest', source: { tensor: w.name, file: w.file, bytes: w.bytes } }));
  const matrixStep = (regions: Regions): MatrixStep => ({
    kind: 'matrix',
    part: s.part,
    storage: s.storage,
    rows,
    columns,
    take: null,
    turn: 'none',
    form,
    regions,
    name: t.name,
    statistics: s.moved?.was ?? t.name,
  });
  if (form.kind === 'plain') {
    const dtype = { bf16: 'BF16', f16: 'F16', f32: 'F32' }[form.element];
    const only = { name: t.name, dtype, shape: t.shape, size: sizeOf(dtype, t.shape) };
    return [
      {
        ...common,
        pieces: [only],
        matrix: t.name,
        kind: 'cast',
        source,
        steps: at => {
          const step = matrixStep({ codes: at[0] as number, scales: null, zeros: null, sums: null });
          return [...digests, ...(s.moved?.rows ? reordered(s, step, s.moved.rows) : [step])];
        },
      },
    ];
  }
  const stored = format.stored(t, form, modelType);
  const fixed = stored.filter(p => p.what.kind === 'bytes');
  const made = stored.filter(p => p.what.kind !== 'bytes');
  const passes = passesOn(s, form as CodedForm);
  const unit: Unit = {
    ...common,
    pieces: made.map(piece),
    matrix: passes ? null : t.name,
    kind: passes ? 'passed' : 'coded',
    source,
    steps: at => {
      const where = (kind: string): number | null => {
        const i = made.findIndex(p => p.what.kind === kind);
        return i < 0 ? null : (at[i] as number);
      };
      const steps: Step[] = [...digests];
      if (passes) {
        steps.push(copyStep(s.entry, where('codes') as number));
        const scale = s.with.find(w => w.name === s.part.scale?.tensor) as TensorEntry;
        steps.push(copyStep(scale, where('scales') as number));
      } else {
        const sums = made.find(p => p.what.kind === 'sums');
        steps.push(
          matrixStep({
            codes: where('codes') as number,
            scales: where('scales'),
            zeros: where('zeros'),
            sums: sums?.what.kind === 'sums' ? { at: where('sums') as number, chunks: sums.what.chunks } : null,
          }),
        );
      }
      made.forEach((p, i) => {
        if (p.what.kind === 'fill') steps.push({ kind: 'fill', out: at[i] as number, size: piece(p).size, byte: p.what.byte });
      });
      return steps;
    },
  };
  const constants = fixed.map(
    (p): Unit => ({
      ...common,
      pieces: [piece(p)],
      from: [],
      matrix: null,
      kind: 'passed',
      source: 0,
      steps: at => [{ kind: 'put', out: at[0] as number, bytes: (p.what as { readonly bytes: Uint8Array }).bytes }],
    }),
  );
  return [unit, ...constants];
}
/** The source is in the wanted form already: codes and scales go on byte for byte. */
export function passesOn(s: SourceTensor, form: Form): boolean {
  if (form.kind === 'keep') return true;
  const to = storageOf(form);
  return (
    to !== null && sameStorage(to, s.storage) && !(form.kind === 'coded' && (form.scale === 'bf16-in-f32' || form.scale === 'e8m0-in-f32'))
  );
}

/** Output shards follow the source's, cut where they grow past this. */
export const shardBytes = (total: number): number => Math.max(256 << 20, Math.min(4 * 2 ** 30, Math.ceil(total / 32)));

/** The largest power of two up to 8 that divides n. */
const alignment = (n: number): number => (n % 8 === 0 ? 8 : n % 4 === 0 ? 4 : n % 2 === 0 ? 2 : 1);

const least = (u: Unit): number => u.pieces.reduce((n, p) => Math.min(n, alignment(p.size)), 8);

/** Files by rank: what lies outside routed experts, then each part's experts, as many in each. */
export interface ExpertFiles {
  readonly parts: number;
  readonly experts: number;
}
/** Where a (new) expert's tensors lie. */
export const partOf = (f: ExpertFiles, expert: number): number => Math.floor((expert * f.parts) / f.experts);

export function planEngine(
  c: Checkpoint,
  sources: Sources,
  r: Resolution,
  format: EngineFormat,
  most: (total: number) => number = shardBytes,
  split: ExpertFiles | null = null,
): EnginePlan {
  const modelType = c.config.family;
  const unchanged =
    r.dropped.length === 0 &&
    sources.dropped.length === 0 &&
    r.chosen.every(
      x =>
        x.form.kind === 'keep' &&
        !x.source.moved &&
        [x.source.entry, ...x.source.with].every(t => canonicalName(t.name, c.config.family) === t.name),
    );
  const gone = [
    ...sources.dropped,
    ...r.dropped.flatMap(d => [d.source.entry, ...d.source.with].map(tensor => ({ tensor, reason: d.reason }))),
  ];
  if (unchanged && split === null) return linkedPlan(c, r);
  // the units of one tensor, or of one that is carried
  const unitsOf = (i: number): readonly Unit[] => {
    const x = r.chosen[i];
    if (!x) {
      const t = sources.carried[i - r.chosen.length] as TensorEntry;
      return kept(null, t, [], c, 'carried: no program of ours reads it', sources.carriedAs?.get(t.name));
    }
    return x.form.kind === 'keep'
      ? kept(x.source, x.source.entry, x.source.with, c, x.rule)
      : written(x.source, x.form, format, modelType, `${x.rule}${x.form.kind === 'coded' ? '' : ` (${formName(x.form)})`}`);
  };
  // of each unit a few numbers are held: whose it is, where its source lies, how large it becomes
  const owner: number[] = [];
  const which: number[] = [];
  const order: number[] = [];
  const offset: number[] = [];
  const own: number[] = [];
  const part: number[] = []; // -1 outside experts, and where files are not split
  const fileOrder = new Map(c.files.map((f, i) => [f, i]));
  for (let i = 0; i < r.chosen.length + sources.carried.length; i++)
    for (const [k, u] of unitsOf(i).entries()) {
      owner.push(i);
      which.push(k);
      order.push(fileOrder.get(u.place[0]) ?? 0);
      offset.push(u.place[1]);
      own.push(u.pieces.reduce((n, p) => n + p.size, 0));
      const expert = split === null ? null : (r.chosen[i]?.tensor.expert ?? null);
      part.push(expert === null ? -1 : partOf(split as ExpertFiles, expert));
    }
  const sorted = Uint32Array.from(owner.keys()).sort(
    (a, b) =>
      (part[a] as number) - (part[b] as number) ||
      (order[a] as number) - (order[b] as number) ||
      (offset[a] as number) - (offset[b] as number) ||
      a - b,
  );
  const limit = most(own.reduce((n, x) => n + x, 0));
  const groups: number[][] = [];
  let size = 0;
  for (const u of sorted) {
    const last = groups.at(-1);
    const first = last?.[0] as number;
    const other = split === null ? order[first] !== order[u] : part[first] !== part[u];
    if (!last || (size > 0 && size + (own[u] as number) > limit) || other) {
      groups.push([u]);
      size = own[u] as number;
    } else {
      last.push(u);
      size += own[u] as number;
    }
  }
  const paths =
    split === null
      ? shardNames('model', groups.length)
      : partNames(
          groups.map(g => part[g[0] as number] as number),
          split.parts,
        );
  const make = (path: string, group: readonly number[]): Content & { readonly size: number; readonly source: number } => {
    let last = -1;
    let made: readonly Unit[] = [];
    const g = group.map(u => {
      if (owner[u] !== last) {
        last = owner[u] as number;
        made = unitsOf(last);
      }
      return made[which[u] as number] as Unit;
    });
    // in the order of the source, save that what is not whole words comes last: all stays aligned
    const aligned = [8, 4, 2, 1].flatMap(n => g.filter(u => least(u) === n));
    const header = headerBytes(aligned.flatMap(u => u.pieces));
    const outputs: OutputTensor[] = [];
    const steps: Step[] = [{ kind: 'put', out: 0, bytes: header }];
    let at = header.length;
    for (const u of aligned) {
      const places = u.pieces.map(p => {
        const here = at;
        at += p.size;
        // no spread here: each object would get a hidden class of its own, and there are hundreds of thousands
        outputs.push({
          name: p.name,
          dtype: p.dtype,
          shape: p.shape,
          size: p.size,
          file: path,
          at: here,
          from: u.from,
          matrix: u.matrix,
          rule: u.rule,
          kind: u.kind,
        });
        return here;
      });
      steps.push(...u.steps(places));
    }
    return { steps, outputs, size: at, source: g.reduce((n, u) => n + u.source, 0) };
  };
  const firstCopies = new Map<string, number>();
  const drafts = groups.map((g, index) => {
    const path = paths[index] as string;
    const m = make(path, g);
    for (const s of m.steps) if (s.kind === 'copy' && !firstCopies.has(s.source.file)) firstCopies.set(s.source.file, index);
    return {
      path,
      group: Uint32Array.from(g),
      size: m.size,
      source: m.source,
      tensors: m.outputs.length,
      passed: m.outputs.filter(o => o.matrix === null && o.from.length > 0).length,
    };
  });
  const lost = lostBy(gone, firstCopies);
  return {
    files: drafts.map(({ path, group, size, source, tensors }, index) => {
      const more = lost.get(index) ?? [];
      return new Planned({ index, path, size, source: source + digested(more) }, tensors, () => {
        const { steps, outputs } = make(path, Array.from(group));
        return { steps: [...steps, ...more], outputs };
      });
    }),
    dropped: gone,
    linked: false,
    bytes: drafts.reduce((n, d) => n + d.size, 0),
    passed: drafts.reduce((n, d) => n + d.passed, 0),
  };
}
function shardNames(stem: string, count: number): readonly string[] {
  const digits = Math.max(5, String(count).length);
  const pad = (n: number): string => String(n).padStart(digits, '0');
  return count === 1 && stem === 'model'
    ? ['model.safetensors']
    : Array.from({ length: count }, (_, i) => `${stem}-${pad(i + 1)}-of-${pad(count)}.safetensors`);
}
/** `dense-00001-of-00002.safetensors`, `experts-ep03of16-00001-of-00004.safetensors`: by the part of each file in turn. */
function partNames(parts: readonly number[], all: number): readonly string[] {
  const digits = String(all - 1).length;
  return [...new Set(parts)].flatMap(p =>
    shardNames(p < 0 ? 'dense' : `experts-ep${String(p).padStart(digits, '0')}of${all}`, parts.filter(x => x === p).length),
  );
}
type Digest = Extract<Step, { readonly kind: 'digest' }>;
const digested = (list: readonly Digest[]): number => list.reduce((n, s) => n + s.source.bytes[1] - s.source.bytes[0], 0);
/** What is dropped is read too, so that the ledger says what it was: with the first file that copies from the same shard. */
function lostBy(dropped: EnginePlan['dropped'], firstCopies: ReadonlyMap<string, number>): ReadonlyMap<number, readonly Digest[]> {
  const lost = new Map<number, Digest[]>();
  for (const { tensor } of dropped) {
    const index = firstCopies.get(tensor.file) ?? 0;
    const list = lost.get(index) ?? [];
    list.push({ kind: 'digest', source: { tensor: tensor.name, file: tensor.file, bytes: tensor.bytes } });
    lost.set(index, list);
  }
  return lost;
}

/** Whole shards as they are. */
function linkedPlan(c: Checkpoint, r: Resolution): EnginePlan {
  const all = [...c.tensors.values()];
  const rules = new Map(r.chosen.flatMap(x => [x.source.entry, ...x.source.with].map(t => [t.name, x.rule] as const)));
  const byFile = new Map(c.files.map(f => [f, [] as TensorEntry[]]));
  for (const t of all) byFile.get(t.file)?.push(t);
  const files = c.files.map((file, index) => {
    const here = (byFile.get(file) as TensorEntry[]).sort((a, b) => a.bytes[0] - b.bytes[0]);
    const end = here.reduce((n, t) => Math.max(n, t.bytes[1]), 0);
    return new Planned({ index, path: file, size: end, link: true, source: end }, here.length, () => ({
      steps: here.map(t => ({ kind: 'digest', source: { tensor: t.name, file, bytes: t.bytes } })),
      outputs: here.map(t => ({
        name: t.name,
        dtype: t.dtype,
        shape: t.shape,
        size: entrySize(t),
        file: t.file,
        at: t.bytes[0],
        from: [t.name],
        matrix: null,
        rule: rules.get(t.name) ?? 'carried: no program of ours reads it',
        kind: 'passed' as const,
      })),
    }));
  });
  return {
    files,
    dropped: [],
    linked: true,
    bytes: files.reduce((n, f) => n + f.size, 0),
    passed: all.length,
  };
}

/** A container's files: cut between tensors, each tensor made of runs of rows in order. */
export function planPacking(sources: Sources, r: Resolution, packing: Packing, most: (total: number) => number = shardBytes): EnginePlan {
  const byName = new Map(r.chosen.map(x => [x.source.logical.name, x]));
  const groups: PackedTensor[][] = [];
  const limit = most(packing.tensors.reduce((n, t) => n + t.size, 0));
  let size = 0;
  for (const t of packing.tensors) {
    const last = groups.at(-1);
    if (!last || size + t.size > limit) {
      groups.push([t]);
      size = t.size;
    } else {
      last.push(t);
      size += t.size;
    }
  }
  const files: (Omit<FileWork, 'steps'> & { readonly steps: Step[]; readonly outputs: readonly OutputTensor[] })[] = [];
  const firstCopies = new Map<string, number>();
  const partly = new Map<string, number>(); // tensors read in parts: their hashes take a reading of their own, in the file of their first part
  for (const [index, group] of groups.entries()) {
    const { path, header, at, size: total } = packing.file(index, groups.length, group);
    const steps: Step[] = [{ kind: 'put', out: 0, bytes: header }];
    const outputs: OutputTensor[] = [];
    let end = header.length;
    let source = 0;
    for (const [i, t] of group.entries()) {
      const begin = at[i] as number;
      if (begin > end) steps.push({ kind: 'fill', out: end, size: begin - end, byte: 0 });
      end = begin + t.size;
      const from = new Set<string>();
      let passes = t.runs.length === 1;
      const narrowed = t.runs.some(x => x.turn === 'low-words');
      let out = begin;
      if (t.constant) steps.push({ kind: 'put', out: begin, bytes: t.constant });
      for (const run of t.runs) {
        const x = byName.get(run.tensor);
        if (!x) throw new Error(`${t.name} is made of ${run.tensor}, which is not chosen`);
        const s = x.source;
        const own = [s.entry, ...s.with.filter(w => w.name === s.part.scale?.tensor)];
        for (const e of own) from.add(e.name);
        for (const w of s.with)
          if (!own.includes(w)) steps.push({ kind: 'digest', source: { tensor: w.name, file: w.file, bytes: w.bytes } });
        const plain = s.storage.kind === 'plain' && t.form.kind === 'plain' && s.storage.element === t.form.element;
        if (plain && run.rows === null && run.turn === 'none') {
          steps.push(passStep(s, s.entry, out));
          out += entrySize(s.entry);
          source += entrySize(s.entry);
          continue;
        }
        if (run.turn === 'low-words') {
          steps.push(passStep(s, s.entry, out, true));
          out += entrySize(s.entry) / 2;
          source += entrySize(s.entry);
          continue;
        }
        passes = false;
        const vector = s.logical.shape.length < 2;
        const turned = vector && run.turn !== 'none';
        const [rows, columns] = vector
          ? turned
            ? [s.logical.shape[0] ?? 1, 1]
            : [1, s.logical.shape[0] ?? 1]
          : (s.logical.shape as readonly [number, number]);
        const taken = run.rows ? run.rows[1] - run.rows[0] : rows;
        if (run.rows !== null && !partly.has(run.tensor)) {
          partly.set(run.tensor, index);
          for (const e of own) steps.push({ kind: 'digest', source: { tensor: e.name, file: e.file, bytes: e.bytes } });
        }
        const step: MatrixStep = {
          kind: 'matrix',
          part: s.part,
          storage: s.storage,
          rows,
          columns,
          take: run.rows,
          turn: run.turn,
          form: t.form,
          regions: { codes: out, scales: null, zeros: null, sums: null },
          name: t.name,
          statistics: s.moved?.was ?? s.logical.name,
        };
        steps.push(...(s.moved?.rows ? reordered(s, step, s.moved.rows) : [step]));
        source += Math.ceil((taken * columns * elements[s.storage.element].bits) / 8);
        const [outRows, outColumns] = run.turn === 'transpose' ? [columns, taken] : [taken, columns];
        out += outRows * (t.form.kind === 'plain' ? (outColumns * elements[t.form.element].bits) / 8 : ggufRow(t.form.type, outColumns));
      }
      if (t.runs.length && out !== end) throw new Error(`${t.name} has ${t.size} bytes, its parts ${out - begin}`);
      const first = t.runs[0] && byName.get(t.runs[0].tensor);
      outputs.push({
        name: t.name,
        dtype: t.dtype,
        shape: t.shape,
        size: t.size,
        file: path,
        at: begin,
        from: [...from],
        matrix: passes || t.constant ? null : t.name,
        rule: first?.rule ?? 'follows from config.json',
        kind: narrowed ? 'cast' : passes || t.constant ? 'passed' : t.form.kind === 'plain' ? 'cast' : 'coded',
      });
    }
    if (total > end) steps.push({ kind: 'fill', out: end, size: total - end, byte: 0 });
    for (const s of steps) if (s.kind === 'copy' && !firstCopies.has(s.source.file)) firstCopies.set(s.source.file, index);
    files.push({ index, path, size: total, steps, outputs, source });
  }
  const used = new Set(packing.tensors.flatMap(t => t.runs.map(x => x.tensor)));
  const why = (s: SourceTensor): string => packing.left.find(l => s.logical.mtp === /MTP/.test(l)) ?? 'the container has no place for it';
  const gone = [
    ...sources.dropped,
    ...sources.carried.map(tensor => ({ tensor, reason: 'the container has no place for it' })),
    ...r.dropped.flatMap(d => [d.source.entry, ...d.source.with].map(tensor => ({ tensor, reason: d.reason }))),
    ...r.chosen
      .filter(x => !used.has(x.source.logical.name))
      .flatMap(x => [x.source.entry, ...x.source.with].map(tensor => ({ tensor, reason: why(x.source) }))),
  ];
  const lost = lostBy(gone, firstCopies);
  return {
    files: files.map(({ steps, outputs, ...f }) => {
      const more = lost.get(f.index) ?? [];
      const content = { steps: [...steps, ...more], outputs };
      return new Planned({ ...f, source: f.source + digested(more) }, outputs.length, () => content);
    }),
    dropped: gone,
    linked: false,
    bytes: files.reduce((n, f) => n + f.size, 0),
    passed: files.reduce((n, f) => n + f.outputs.filter(o => o.matrix === null && o.from.length > 0).length, 0),
  };
}

/** Bytes of memory a thread needs for the largest piece of a plan, beside what Node needs for a thread. */
export function workingSet(files: readonly FileWork[], piece: number): number {
  let most = 2 << 20;
  for (const f of files)
    for (const s of f.steps) {
      if (s.kind === 'renumber') most = Math.max(most, 2 * (s.source.bytes[1] - s.source.bytes[0]));
      if (s.kind !== 'matrix') continue;
      const pitch = Math.ceil((s.columns * elements[s.storage.element].bits) / 8);
      const form = s.form;
      const rows = s.take ? s.take[1] - s.take[0] : s.rows;
      const strip = form.kind === 'coded' ? form.block[0] : 1;
      const whole = s.turn !== 'none' || (form.kind === 'coded' && form.search === 'gptq');
      const each = whole
        ? rows
        : Math.max(strip, Math.floor(piece / pitch / strip) * strip, form.kind === 'coded' && form.layout === 'row-pairs' ? 8 : 1);
      const f32 = (whole || form.kind !== 'coded' ? Math.min(each, rows) : strip) * (s.columns + 128) * 4;
      const scales = s.storage.kind === 'scaled' ? matrixBytes(s.storage, s.rows, s.columns).scales : 0;
      const factor = form.kind === 'coded' && form.search === 'gptq' ? 8 * s.columns ** 2 : 0;
      most = Math.max(
        most,
        Math.min(each, rows) * pitch + f32 * (whole ? 4 : 1) + Math.min(each, rows) * s.columns * 2 + Math.min(scales, 8 << 20) + factor,
      );
    }
  return most + (4 << 20); // what is held until it can be written in order
}
/** What a plan does, in one hash: the same work has the same. */
export function planDigest(p: EnginePlan): string {
  const h = createHash('sha256');
  for (const o of outputsOf(p)) h.update(`${o.name} ${o.dtype} [${o.shape.join(',')}] ${o.file} ${o.at} ${o.rule} ${o.from.join(' ')}\n`);
  for (const f of p.files) for (const s of f.steps) if (s.kind === 'put') h.update(s.bytes);
  return h.digest('hex');
}
