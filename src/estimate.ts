// What a compile would write, to the byte; what memory and disk it takes; and how long, from a rate measured on some of the model's own tensors.
import { mkdtempSync, rmSync, statfsSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { formName } from '../ir/form.js';
import { type CompileOptions, countTensors, type Prepared, prepare, type Watch } from './compile.js';
import { threadsFor } from './engine.js';
import type { FileWork, Step } from './numeric/steps.js';
import { Stream } from './numeric/stream.js';

export interface Estimate {
  readonly source: number;
  readonly disk: number;
  readonly free: number | null;
  readonly peakMemory: number;
  readonly jobs: number;
  /** Source bytes a second of one thread; null where nothing is converted. */
  readonly rate: number | null;
  readonly sampled: number;
  readonly seconds: number | null;
  readonly targets: readonly {
    readonly directory: string;
    readonly format: string;
    readonly recipe: string;
    readonly files: number;
    readonly bytes: number;
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
/** Source bytes that are converted to learn the rate. */
const sampleBytes = 48 << 20;

export async function estimate(model: string, o: CompileOptions, watch: Watch): Promise<Estimate> {
  const p = await prepare(model, o, watch);
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
  if (all.length) {
    watch.step('measure the rate on some tensors of this model');
    const m = await measure(p, all);
    rate = m.bytes / m.seconds;
    sampled = m.bytes;
  }
  const disk = p.aims.reduce((n, a) => n + (a.plan.linked && o.weights !== 'copy' ? 0 : a.plan.bytes), 0);
  let free: number | null = null;
  try {
    const s = statfsSync(o.out ? join(o.out, '..') : '.');
    free = s.bavail * s.bsize;
  } catch {
    // a place that is not there yet
  }
  return {
    source: [...p.checkpoint.tensors.values()].reduce((n, t) => n + t.bytes[1] - t.bytes[0], 0),
    disk,
    free,
    peakMemory: peak,
    jobs,
    rate,
    sampled,
    seconds: rate === null ? null : source / (rate * Math.max(1, jobs)),
    targets: p.aims.map(a => {
      const sizes = new Map<string, number>();
      for (const t of a.plan.outputs) for (const f of t.from.slice(0, 1)) sizes.set(f, (sizes.get(f) ?? 0) + t.size);
      const forms = new Map<string, { role: string; form: string; tensors: number; bytes: number; weights: number }>();
      for (const x of a.resolution.chosen) {
        const form = x.form.kind === 'keep' ? `${x.source.entry.dtype} as it is` : formName(x.form);
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
        notes: a.notes,
        forms: [...forms.values()]
          .sort((x, y) => y.bytes - x.bytes || (x.role < y.role ? -1 : 1))
          .map(f => ({ role: f.role, form: f.form, tensors: f.tensors, bytes: f.bytes, bits: (8 * f.bytes) / f.weights })),
      };
    }),
  };
}

/** Convert steps from all over the plan into a place that is thrown away. */
async function measure(p: Prepared, files: readonly FileWork[]): Promise<{ readonly bytes: number; readonly seconds: number }> {
  const steps = files.flatMap(f => f.steps.filter(s => s.kind === 'matrix' || s.kind === 'copy'));
  const size = (s: Step): number =>
    s.kind === 'matrix' ? s.part.bytes[1] - s.part.bytes[0] : s.kind === 'copy' ? s.source.bytes[1] - s.source.bytes[0] : 0;
  const chosen: Step[] = [];
  let bytes = 0;
  for (let stride = Math.max(1, Math.floor(steps.length / 64)), i = 0; i < steps.length && bytes < sampleBytes; i += stride) {
    const s = steps[i] as Step;
    if (size(s) > sampleBytes && chosen.length) continue;
    chosen.push(s);
    bytes += size(s);
  }
  const work = mkdtempSync(join(tmpdir(), 'hkgai-plan-'));
  const stream = new Stream({ from: p.checkpoint.dir, to: work, statistics: () => null, stop: () => false, progress: () => {} });
  try {
    const once = async (list: readonly Step[]): Promise<number> => {
      // each step at the start of the file: only the rate counts
      const moved = list.map((s): Step => {
        if (s.kind === 'copy') return { ...s, out: 0 };
        if (s.kind !== 'matrix') return s;
        const r = s.regions;
        const base = Math.min(r.codes, r.scales ?? r.codes, r.zeros ?? r.codes, r.sums?.at ?? r.codes);
        return {
          ...s,
          regions: {
            codes: r.codes - base,
            scales: r.scales === null ? null : r.scales - base,
            zeros: r.zeros === null ? null : r.zeros - base,
            sums: r.sums && { ...r.sums, at: r.sums.at - base },
          },
        };
      });
      const begin = performance.now();
      await stream.file({ index: 0, path: 'sample', size: 0, steps: moved, source: 0 });
      return (performance.now() - begin) / 1e3;
    };
    await once(chosen.slice(0, 1)); // the first call compiles
    return { bytes, seconds: await once(chosen) };
  } finally {
    stream.close();
    rmSync(work, { recursive: true, force: true });
  }
}
