// What a compile would write, to the byte; what memory and disk it takes; and how long, from a rate measured on some of the model's own tensors.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { codedSizes, formName, ggufRow } from '../ir/form.js';
import { elements, matrixBytes } from '../ir/storage.js';
import { type CompileOptions, countTensors, type Prepared, prepare, type Watch } from './compile.js';
import { threadsFor } from './engine.js';
import { outputsOf } from './engine-plan.js';
import type { FileWork, Step } from './numeric/steps.js';
import { Stream } from './numeric/stream.js';
import { isEnough, roomFor } from './room.js';

export interface Estimate {
  /** Bytes of all tensors that are read. */
  readonly source: number;
  /** Shards end after their headers: all but the time is known. */
  readonly headersOnly: boolean;
  /** Bytes of the disk that the compile needs: weight files that are not linked, and ledgers, journal and programs, estimated from above. */
  readonly disk: number;
  /** Free where the output goes; null where the system does not say. */
  readonly free: number | null;
  readonly enough: boolean;
  /** A bound of resident memory. */
  readonly peakMemory: number;
  readonly jobs: number;
  /** Source bytes a second of one thread; null where nothing is converted, or there is nothing to convert yet. */
  readonly rate: number | null;
  readonly sampled: number;
  readonly seconds: number | null;
  readonly targets: readonly {
    readonly directory: string;
    readonly format: string;
    readonly recipe: string;
    readonly files: number;
    /** Of weight files, to the byte. */
    readonly bytes: number;
    readonly weightFiles: readonly { readonly path: string; readonly bytes: number }[];
    readonly notes: readonly string[];
    readonly forms: readonly {
      readonly role: string;
      readonly form: string;
      readonly tensors: number;
      readonly bytes: number;
      readonly bits: number;
    }[];
  }[];
}
/** Source bytes that are converted to learn the rate, and of one tensor. */
const sampleBytes = 48 << 20;
const pieceBytes = 4 << 20;

export async function estimate(model: string, o: CompileOptions, watch: Watch): Promise<Estimate> {
  // a budget is found by measuring: then weights must be there
  const p = await prepare(model, o, watch, !o.budget);
  const { headersOnly } = p.checkpoint;
  const all = p.aims.filter(a => !a.plan.linked).flatMap(a => a.plan.files);
  const { jobs, peak } = threadsFor(
    p.aims.flatMap(a => a.plan.files),
    o.jobs ?? null,
    o.maxMemory ?? null,
    countTensors(p),
  );
  const source = all.reduce((n, f) => n + f.source, 0);
  let rate: number | null = null;
  let sampled = 0;
  if (all.length && !headersOnly) {
    watch.step('measure the rate on some tensors of this model');
    const m = await measure(p, all);
    rate = m.bytes / m.seconds;
    sampled = m.bytes;
  }
  const room = roomFor(p, o.out || 'model', o.weights);
  return {
    source: [...p.checkpoint.tensors.values()].reduce((n, t) => n + t.bytes[1] - t.bytes[0], 0),
    headersOnly,
    disk: room.weights + room.other - room.there,
    free: room.free,
    enough: isEnough(room),
    peakMemory: peak,
    jobs,
    rate,
    sampled,
    seconds: rate === null ? null : source / (rate * Math.max(1, jobs)),
    targets: p.aims.map(a => {
      const sizes = new Map<string, number>();
      for (const t of outputsOf(a.plan)) for (const f of t.from.slice(0, 1)) sizes.set(f, (sizes.get(f) ?? 0) + t.size);
      // a container has its own word for what a tensor gets, and leaves some out
      const packed = a.format.pack ? new Map([...outputsOf(a.plan)].flatMap(t => t.from.map(f => [f, t.dtype] as const))) : null;
      const forms = new Map<string, { role: string; form: string; tensors: number; bytes: number; weights: number }>();
      for (const x of a.resolution.chosen) {
        const own = packed?.get(x.source.entry.name);
        if (packed && own === undefined) continue;
        const kept = `${x.source.entry.dtype} as it is`;
        const form = own === undefined ? (x.form.kind === 'keep' ? kept : formName(x.form)) : own === x.source.entry.dtype ? kept : own;
        const row = forms.get(`${x.tensor.role} ${form}`) ?? { role: x.tensor.role, form, tensors: 0, bytes: 0, weights: 0 };
        row.tensors++;
        row.bytes +=
          (sizes.get(x.source.entry.name) ?? 0) +
          (x.form.kind === 'keep' && x.source.part.scale ? (sizes.get(x.source.part.scale.tensor) ?? 0) : 0);
        row.weights += x.tensor.shape.reduce((n, d) => n * d, 1);
        forms.set(`${x.tensor.role} ${form}`, row);
      }
      return {
        directory: a.directory,
        format: a.format.name,
        recipe: a.recipe.name,
        files: a.plan.files.length,
        bytes: a.plan.bytes,
        weightFiles: a.plan.files.map(f => ({ path: f.path, bytes: f.size })),
        notes: a.notes,
        forms: [...forms.values()]
          .sort((x, y) => y.bytes - x.bytes || (x.role < y.role ? -1 : 1))
          .map(f => ({ role: f.role, form: f.form, tensors: f.tensors, bytes: f.bytes, bits: (8 * f.bytes) / f.weights })),
      };
    }),
  };
}

/** The first rows of a large step, as a step of its own: whole blocks of the source and of what is made. null where it cannot be cut. */
function cut(s: Step): Step | null {
  if (s.kind === 'copy') {
    const [from, to] = s.source.bytes;
    return { ...s, source: { ...s.source, bytes: [from, Math.min(to, from + pieceBytes)] } };
  }
  if (s.kind !== 'matrix') return null;
  const pitch = Math.ceil((s.columns * elements[s.storage.element].bits) / 8);
  const rows = Math.max(128, Math.floor(pieceBytes / pitch / 128) * 128);
  if (rows >= s.rows || s.take !== null || s.turn !== 'none') return s.rows * pitch <= sampleBytes ? s : null;
  const { scale } = s.part;
  const bytes = matrixBytes(s.storage, rows, s.columns);
  const [from] = s.part.bytes;
  return {
    ...s,
    rows,
    part: {
      ...s.part,
      bytes: [from, from + bytes.codes],
      ...(scale ? { scale: { ...scale, bytes: [scale.bytes[0], scale.bytes[0] + bytes.scales] } } : {}),
    },
  };
}
/** A step whose output begins at a place, and where that ends. */
function placed(s: Step, at: number): readonly [Step, number] {
  if (s.kind === 'copy') return [{ ...s, out: at }, at + s.source.bytes[1] - s.source.bytes[0]];
  if (s.kind !== 'matrix') return [s, at];
  const rows = s.take ? s.take[1] - s.take[0] : s.rows;
  const { form } = s;
  const none = { scales: null, zeros: null, sums: null };
  if (form.kind === 'plain') return [{ ...s, regions: { codes: at, ...none } }, at + (rows * s.columns * elements[form.element].bits) / 8];
  if (form.kind === 'gguf') return [{ ...s, regions: { codes: at, ...none } }, at + rows * ggufRow(form.type, s.columns)];
  if (form.kind === 'keep') return [s, at];
  const z = codedSizes(form, rows, s.columns);
  const scales = at + z.codes;
  const zeros = scales + z.scales;
  const sums = zeros + z.zeros;
  const chunks = s.regions.sums?.chunks ?? 0;
  return [
    { ...s, regions: { codes: at, scales, zeros: s.regions.zeros === null ? null : zeros, sums: chunks ? { at: sums, chunks } : null } },
    sums + rows * chunks * 4,
  ];
}
/** Convert steps from all over the plan into a place that is thrown away. */
async function measure(p: Prepared, files: readonly FileWork[]): Promise<{ readonly bytes: number; readonly seconds: number }> {
  const steps = files.flatMap(f => f.steps.filter(s => s.kind === 'matrix' || s.kind === 'copy'));
  const size = (s: Step): number =>
    s.kind === 'matrix' ? s.part.bytes[1] - s.part.bytes[0] : s.kind === 'copy' ? s.source.bytes[1] - s.source.bytes[0] : 0;
  // as much of what is converted and of what is copied as there is in the whole
  const all = steps.reduce((n, s) => n + size(s), 0);
  const chosen: Step[] = [];
  let bytes = 0;
  for (const kind of ['matrix', 'copy'] as const) {
    const some = steps.filter(s => s.kind === kind);
    const share = (sampleBytes * some.reduce((n, s) => n + size(s), 0)) / all;
    let taken = 0;
    const stride = Math.max(1, Math.floor(some.length / 64));
    for (let i = 0; i < some.length && taken < share; i += stride) {
      const s = cut(some[i] as Step);
      if (!s) continue;
      chosen.push(s);
      taken += size(s);
    }
    bytes += taken;
  }
  const work = mkdtempSync(join(tmpdir(), 'hkgai-plan-'));
  const stream = new Stream({ from: p.checkpoint.dir, to: work, statistics: () => null, stop: () => false, progress: () => {} });
  try {
    const once = async (list: readonly Step[]): Promise<number> => {
      // one after another, as in a file
      let size = 0;
      const moved = list.map(step => {
        const [s, end] = placed(step, size);
        size = end;
        return s;
      });
      const begin = performance.now();
      await stream.file({ index: 0, path: 'sample', size, steps: moved, source: 0 });
      return (performance.now() - begin) / 1e3;
    };
    await once(chosen.slice(0, 1)); // the first call compiles
    return { bytes, seconds: await once(chosen) };
  } finally {
    stream.close();
    rmSync(work, { recursive: true, force: true });
  }
}
