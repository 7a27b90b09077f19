// From chosen forms to files: which tensors lie in which shard, at which byte, and the steps that fill them. Nothing is read here but headers.
import { createHash } from 'node:crypto';
import { type CodedForm, type Form, formName, ggufRow, storageOf } from '../ir/form.js';
import { elements, matrixBytes, sameStorage } from '../ir/storage.js';
import { dtypeBytes, type EngineFormat, type PackedTensor, type Packing, type StoredPiece } from '../targets/engine.js';
import { canonicalName } from './checkpoint/names.js';
import type { TensorEntry } from './checkpoint/safetensors.js';
import type { Checkpoint } from './checkpoint/shards.js';
import type { Sources, SourceTensor } from './logical.js';
import type { FileWork, Regions, Step } from './numeric/steps.js';
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
  /** Bytes passed on, values cast one by one, or codes with scales. */
  readonly kind: 'passed' | 'cast' | 'coded';
}
export interface EnginePlan {
  readonly files: readonly FileWork[];
  readonly outputs: readonly OutputTensor[];
  /** Source tensor -> names of what it went into. */
  readonly consumers: ReadonlyMap<string, readonly string[]>;
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

/** A source tensor as it is, with what belongs to it, under the family's names. */
function kept(s: SourceTensor | null, entry: TensorEntry, more: readonly TensorEntry[], c: Checkpoint, rule: string): readonly Unit[] {
  return [entry, ...more].map(t => ({
    pieces: [{ name: s === null ? t.name : canonicalName(t.name, c.config.family), dtype: t.dtype, shape: t.shape, size: entrySize(t) }],
    from: [t.name],
    matrix: null,
    rule,
    kind: 'passed',
    place: [t.file, t.bytes[0]] as const,
    source: entrySize(t),
    steps: at => [copyStep(t, at[0] as number)],
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
  const matrixStep = (regions: Regions): Step => ({
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
    statistics: t.name,
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
        steps: at => [...digests, matrixStep({ codes: at[0] as number, scales: null, zeros: null, sums: null })],
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

export function planEngine(
  c: Checkpoint,
  sources: Sources,
  r: Resolution,
  format: EngineFormat,
  most: (total: number) => number = shardBytes,
): EnginePlan {
  const modelType = c.config.family;
  const consumers = new Map<string, string[]>();
  const unchanged =
    r.dropped.length === 0 &&
    sources.dropped.length === 0 &&
    r.chosen.every(
      x => x.form.kind === 'keep' && [x.source.entry, ...x.source.with].every(t => canonicalName(t.name, c.config.family) === t.name),
    );
  const gone = [
    ...sources.dropped,
    ...r.dropped.flatMap(d => [d.source.entry, ...d.source.with].map(tensor => ({ tensor, reason: d.reason }))),
  ];
  if (unchanged) return linkedPlan(c, r);
  const units: Unit[] = [];
  for (const x of r.chosen)
    units.push(
      ...(x.form.kind === 'keep'
        ? kept(x.source, x.source.entry, x.source.with, c, x.rule)
        : written(x.source, x.form, format, modelType, `${x.rule}${x.form.kind === 'coded' ? '' : ` (${formName(x.form)})`}`)),
    );
  for (const t of sources.carried) units.push(...kept(null, t, [], c, 'carried: no program of ours reads it'));
  const fileOrder = new Map(c.files.map((f, i) => [f, i]));
  const order = new Map(units.map(u => [u, fileOrder.get(u.place[0]) ?? 0]));
  units.sort((a, b) => (order.get(a) as number) - (order.get(b) as number) || a.place[1] - b.place[1]);
  const total = units.reduce((n, u) => n + u.pieces.reduce((k, p) => k + p.size, 0), 0);
  const limit = most(total);
  const groups: Unit[][] = [];
  let size = 0;
  for (const u of units) {
    const own = u.pieces.reduce((k, p) => k + p.size, 0);
    const last = groups.at(-1);
    if (!last || (size > 0 && size + own > limit) || (last[0] as Unit).place[0] !== u.place[0]) {
      groups.push([u]);
      size = own;
    } else {
      last.push(u);
      size += own;
    }
  }
  const digits = Math.max(5, String(groups.length).length);
  const pad = (n: number): string => String(n).padStart(digits, '0');
  const files: FileWork[] = [];
  const outputs: OutputTensor[] = [];
  let bytes = 0;
  for (const [i, g] of groups.entries()) {
    const path = groups.length === 1 ? 'model.safetensors' : `model-${pad(i + 1)}-of-${pad(groups.length)}.safetensors`;
    // in the order of the source, save that what is not whole words comes last: all stays aligned
    const sorted = [8, 4, 2, 1].flatMap(n => g.filter(u => least(u) === n));
    const header = headerBytes(sorted.flatMap(u => u.pieces));
    let at = header.length;
    const steps: Step[] = [{ kind: 'put', out: 0, bytes: header }];
    for (const u of sorted) {
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
      for (const f of u.from) {
        const list = consumers.get(f);
        if (list === undefined)
          consumers.set(
            f,
            u.pieces.map(p => p.name),
          );
        else for (const p of u.pieces) list.push(p.name);
      }
      steps.push(...u.steps(places));
    }
    files.push({ index: i, path, size: at, steps, source: g.reduce((n, u) => n + u.source, 0) });
    bytes += at;
  }
  return withDigests({
    files,
    outputs,
    consumers,
    dropped: gone,
    linked: false,
    bytes,
    passed: outputs.filter(o => o.matrix === null && o.from.length > 0).length,
  });
}

/** Whole shards as they are. */
function linkedPlan(c: Checkpoint, r: Resolution): EnginePlan {
  const all = [...c.tensors.values()];
  const rules = new Map(r.chosen.flatMap(x => [x.source.entry, ...x.source.with].map(t => [t.name, x.rule] as const)));
  const byFile = new Map(c.files.map(f => [f, [] as TensorEntry[]]));
  for (const t of all) byFile.get(t.file)?.push(t);
  const files = c.files.map((file, index): FileWork => {
    const here = (byFile.get(file) as TensorEntry[]).sort((a, b) => a.bytes[0] - b.bytes[0]);
    const end = here.reduce((n, t) => Math.max(n, t.bytes[1]), 0);
    return {
      index,
      path: file,
      size: end,
      link: true,
      steps: here.map(t => ({ kind: 'digest', source: { tensor: t.name, file, bytes: t.bytes } })),
      source: end,
    };
  });
  return {
    files,
    outputs: all.map(t => ({
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
    consumers: new Map(all.map(t => [t.name, [t.name]])),
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
  const consumers = new Map<string, string[]>();
  const outputs: OutputTensor[] = [];
  const files: FileWork[] = [];
  const partly = new Map<string, number>(); // tensors read in parts: their hashes take a reading of their own, in the file of their first part
  const consume = (entry: string, name: string): void => {
    const list = consumers.get(entry) ?? [];
    if (list.at(-1) !== name) consumers.set(entry, [...list, name]);
  };
  for (const [index, group] of groups.entries()) {
    const { path, header, at, size: total } = packing.file(index, groups.length, group);
    const steps: Step[] = [{ kind: 'put', out: 0, bytes: header }];
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
        for (const e of own) {
          from.add(e.name);
          consume(e.name, t.name);
        }
        for (const w of s.with)
          if (!own.includes(w)) steps.push({ kind: 'digest', source: { tensor: w.name, file: w.file, bytes: w.bytes } });
        const plain = s.storage.kind === 'plain' && t.form.kind === 'plain' && s.storage.element === t.form.element;
        if (plain && run.rows === null && run.turn === 'none') {
          steps.push(copyStep(s.entry, out));
          out += entrySize(s.entry);
          source += entrySize(s.entry);
          continue;
        }
        if (run.turn === 'low-words') {
          steps.push({ ...copyStep(s.entry, out), kind: 'narrow' });
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
        steps.push({
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
          statistics: s.logical.name,
        });
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
    files.push({ index, path, size: total, steps, source });
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
  return withDigests({
    files,
    outputs,
    consumers,
    dropped: gone,
    linked: false,
    bytes: files.reduce((n, f) => n + f.size, 0),
    passed: outputs.filter(o => o.matrix === null && o.from.length > 0).length,
  });
}
/** What is dropped is read too, so that the ledger says what it was; what is read for its hash alone follows from headers. */
function withDigests(p: EnginePlan & { readonly files: FileWork[]; readonly consumers: Map<string, readonly string[]> }): EnginePlan {
  const { files, consumers, dropped } = p;
  for (const { tensor } of dropped) {
    const f = files.find(w => w.steps.some(s => s.kind === 'copy' && s.source.file === tensor.file)) ?? files[0];
    if (f)
      files[f.index] = {
        ...f,
        steps: [...f.steps, { kind: 'digest', source: { tensor: tensor.name, file: tensor.file, bytes: tensor.bytes } }],
        source: f.source + entrySize(tensor),
      };
  }
  const lost = new Set(dropped.map(g => g.tensor.name));
  for (const f of files)
    for (const s of f.steps)
      if (s.kind === 'digest' && !consumers.has(s.source.tensor) && !lost.has(s.source.tensor))
        consumers.set(s.source.tensor, ['(its shape is in the headers)']);
  return p;
}

/** Bytes of memory a thread needs for the largest piece of a plan, beside what Node needs for a thread. */
export function workingSet(files: readonly FileWork[], piece: number): number {
  let most = 2 << 20;
  for (const f of files)
    for (const s of f.steps) {
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
  for (const o of p.outputs) h.update(`${o.name} ${o.dtype} [${o.shape.join(',')}] ${o.file} ${o.at} ${o.rule} ${o.from.join(' ')}\n`);
  for (const f of p.files) for (const s of f.steps) if (s.kind === 'put') h.update(s.bytes);
  return h.digest('hex');
}
