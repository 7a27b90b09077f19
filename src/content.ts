// What decides about bytes: the keys under which a written file and a written tensor are known again, whatever they are called and wherever they lie.
import { createHash } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { gptqRevision } from './numeric/gptq.js';
import { type FileWork, type Step, writes } from './numeric/steps.js';

/** SHA-256 of a source tensor's bytes, null where nobody hashed them. */
export type Known = (file: string, tensor: string) => string | null;

let kernels: string | null = null;
/** Of everything that decides which bytes come of a step: the kernels, and the code that calls them. */
export function kernelsDigest(): string {
  if (kernels === null) {
    const h = createHash('sha256').update(readFileSync(new URL('./numeric/kernels.wasm', import.meta.url)));
    for (const f of ['stream', 'steps', 'gptq', 'kernels']) {
      const built = new URL(`./numeric/${f}.js`, import.meta.url);
      h.update(readFileSync(existsSync(built) ? built : new URL(`./numeric/${f}.ts`, import.meta.url)));
    }
    kernels = h.digest('hex');
  }
  return kernels;
}

export const stepSources = (s: Step): readonly (readonly [file: string, tensor: string])[] =>
  s.kind === 'copy' || s.kind === 'digest' || s.kind === 'narrow' || s.kind === 'renumber'
    ? [[s.source.file, s.source.tensor]]
    : s.kind === 'matrix'
      ? [[s.part.file, s.part.tensor], ...(s.part.scale ? [[s.part.scale.file, s.part.scale.tensor] as const] : [])]
      : [];

/** What a file is made of, if the content of its sources is known. Their names count too: results name them. */
export function contentOf(f: FileWork, known: Known, recipe: string): string | null {
  const h = createHash('sha256').update(`${kernelsDigest()} ${recipe} ${f.size}\n`);
  const tensor = (file: string, name: string): boolean => {
    const sha = known(file, name);
    if (sha) h.update(`${JSON.stringify(name)} ${sha} `);
    return sha !== null;
  };
  for (const s of f.steps) {
    h.update(`${s.kind} `);
    if (s.kind === 'put') h.update(`${s.out} `).update(s.bytes);
    else if (s.kind === 'fill') h.update(`${s.out} ${s.size} ${s.byte}`);
    else if (s.kind === 'copy' || s.kind === 'digest' || s.kind === 'narrow' || s.kind === 'renumber') {
      if (!tensor(s.source.file, s.source.tensor)) return null;
      if (s.kind !== 'digest') h.update(`${s.out}`);
      if (s.kind === 'renumber') h.update(JSON.stringify([s.rows, s.ids, s.narrow]));
    } else {
      if (!tensor(s.part.file, s.part.tensor)) return null;
      if (s.part.scale && !tensor(s.part.scale.file, s.part.scale.tensor)) return null;
      h.update(JSON.stringify([s.storage, s.rows, s.columns, s.take, s.turn, s.form, s.regions, s.name]));
    }
    h.update('\n');
  }
  return h.digest('hex');
}

/** Steps of a file that are made together or not at all: figures of a tensor that is made in several runs are counted over them all. */
export interface Group {
  /** Indices into the file's steps. */
  readonly steps: readonly number[];
  /** The source file it is looked for under. */
  readonly file: string;
}
export function groupsOf(steps: readonly Step[]): readonly Group[] {
  const groups: { readonly steps: number[]; readonly file: string }[] = [];
  const byName = new Map<string, number[]>();
  steps.forEach((s, i) => {
    if (s.kind === 'copy' || s.kind === 'narrow' || s.kind === 'renumber') groups.push({ steps: [i], file: s.source.file });
    if (s.kind !== 'matrix') return;
    const others = byName.get(s.name);
    if (others) {
      others.push(i);
      return;
    }
    const first = [i];
    byName.set(s.name, first);
    groups.push({ steps: first, file: s.part.file });
  });
  return groups;
}

/** Digests of statistics by name, each array hashed once. */
export function statisticsDigests(statistics: Readonly<Record<string, Float32Array>>): (name: string) => string {
  const digests = new WeakMap<Float32Array, string>();
  return name => {
    const v = Object.hasOwn(statistics, name) ? (statistics[name] as Float32Array) : null;
    if (v === null) return '';
    let d = digests.get(v);
    if (d === undefined) {
      d = createHash('sha256')
        .update(new Uint8Array(v.buffer, v.byteOffset, v.byteLength))
        .digest('hex');
      digests.set(v, d);
    }
    return d;
  };
}
/**
 * What a group's bytes and figures come of: kernels, steps without names and places, the content of the whole source tensors, and the statistics
 * that its columns are weighed by. Null where a source's content is not known.
 */
export function groupKey(steps: readonly Step[], g: Group, known: Known, statistics: (name: string) => string): string | null {
  const h = createHash('sha256').update(`${kernelsDigest()}\n`);
  for (const i of g.steps) {
    const s = steps[i] as Step;
    for (const [file, tensor] of stepSources(s)) {
      const sha = known(file, tensor);
      if (sha === null) return null;
      h.update(`${sha} `);
    }
    h.update(`${s.kind} ${JSON.stringify(writes(s).map(([, bytes]) => bytes))} `);
    if (s.kind === 'renumber') h.update(JSON.stringify([s.rows, s.ids, s.narrow]));
    if (s.kind !== 'matrix') continue;
    const { scales, zeros, sums } = s.regions;
    h.update(
      JSON.stringify([s.storage, s.rows, s.columns, s.take, s.turn, s.form, scales !== null, zeros !== null, sums ? sums.chunks : null]),
    );
    if (s.statistics === null) continue;
    h.update(` ${statistics(s.statistics)}`);
    const gptq = s.form.kind === 'coded' && s.form.search === 'gptq';
    if (gptq) h.update(` ${gptqRevision} ${statistics(`gram:${s.statistics}`)}`);
  }
  return h.digest('hex');
}
