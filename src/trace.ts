// run --trace: texts go through a model, and which experts their tokens choose is counted, label by label. The native program counts where a compiler is
// here, the reference interpreter where none is; both choose as verify holds them to. Runs over other texts add to the same file.
import { createHash } from 'node:crypto';
import { existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { basename, dirname, resolve } from 'node:path';
import type { ValueOf } from '../ir/graph.js';
import { Refusal } from '../ir/problem.js';
import { makeDirectory } from './bundle/directory.js';
import { openCheckpoint } from './checkpoint/shards.js';
import { loadTokenizer, type Tokenizer } from './checkpoint/tokenizer.js';
import { identityOf } from './experts.js';
import { buildModel } from './models/index.js';
import { expertLayers } from './passes/shard-experts.js';
import {
  asTrace,
  differences,
  isPlain,
  type ModelIdentity,
  readJson,
  sampleText,
  type Trace,
  type TracedLabel,
  traceFormat,
} from './placement/counts.js';
import * as problems from './placement/problems.js';
import { openSession, type Runnable } from './run.js';

/** A text to trace: a file's, or a prompt. */
export interface Text {
  readonly label: string;
  readonly name: string;
  readonly text: string;
}
/** Tokens of a label whose experts are kept one by one, so that what goes over the wires can be counted. */
const sampledTokens = 4096;

/** `FILE[:label]`; a file of that whole name goes before. Its own name without an ending is the label where none is said. */
export function readText(asked: string): Text {
  const m = existsSync(asked) ? null : /^(.*):([^:/\\]+)$/.exec(asked);
  const file = m ? (m[1] as string) : asked;
  const name = basename(file);
  const label = m ? (m[2] as string) : name.replace(/\.[^.]*$/, '');
  if (!isPlain(label)) throw new Refusal([problems.notPlain('The label of a text', label)]);
  if (!isPlain(name)) throw new Refusal([problems.notPlain('The name of a text', name)]);
  try {
    const text = new TextDecoder('utf-8', { fatal: true }).decode(readFileSync(file));
    return { label, name, text };
  } catch (e) {
    if ((e as NodeJS.ErrnoException).syscall) throw e;
    throw new Refusal([problems.noText(file)]);
  }
}

/** Each line that is not empty, after the begin-of-sentence token; a line longer than `most` tokens is cut into several. */
export function sequencesOf(text: string, tokenizer: Tokenizer, most: number): readonly (readonly number[])[] {
  const bos = tokenizer.bos === null ? null : tokenizer.idOf(tokenizer.bos);
  const begin = bos === null ? [] : [bos];
  const own = most - begin.length;
  return text.split(/\r?\n/).flatMap(line => {
    const ids = line === '' ? [] : tokenizer.encode(line);
    return Array.from({ length: Math.ceil(ids.length / own) }, (_, i) => [...begin, ...ids.slice(i * own, (i + 1) * own)]);
  });
}

export interface Traced {
  readonly trace: Trace;
  readonly engine: 'native' | 'reference';
  readonly note: string;
  /** Of this run, by label. */
  readonly tokens: Readonly<Record<string, number>>;
  /** Texts that the file had counted already. */
  readonly again: readonly string[];
}
export interface Watch {
  step(text: string): void;
  at(done: number, total: number): void;
}

/** Count over texts and add to `file`. */
export async function traceTexts(
  r: Runnable,
  texts: readonly Text[],
  file: string,
  engine: 'auto' | 'native' | 'reference',
  threads: number,
  watch: Watch,
): Promise<Traced> {
  const c = openCheckpoint(r.engineDir);
  const built = buildModel(c.config, c.tensors, r.options);
  const { graph } = built;
  const layers = expertLayers(graph);
  if (layers.length === 0) throw new Refusal([problems.noExperts(c.config.modelType)]);
  const names = new Map(
    graph.values.filter((v): v is ValueOf<'experts'> => v.op === 'experts').map(v => [v.origin.layer, v.inputs.indices.name]),
  );
  const topK = layers[0]!.topK;
  const model = identityOf(c, built);
  const before = earlier(file, model, topK);
  makeDirectory(dirname(resolve(file))); // said now rather than after the work
  const tokenizer = await loadTokenizer(r.engineDir);
  const known = new Set(Object.entries(before).flatMap(([label, l]) => l.texts.map(t => `${label} ${t.sha256}`)));
  const sha = (t: Text): string => createHash('sha256').update(t.text).digest('hex');
  const fresh = texts.filter(t => !known.has(`${t.label} ${sha(t)}`));
  const again = texts.filter(t => !fresh.includes(t)).map(t => t.name);
  const opened = await openSession(r, engine, threads, text => watch.step(text), '-DHKGAI_TAPS');
  const { session } = opened;
  try {
    const work = fresh.map(t => ({ t, sequences: sequencesOf(t.text, tokenizer, session.context) }));
    const empty = work.find(w => w.sequences.length === 0);
    if (empty) throw new Refusal([problems.noText(empty.t.name)]);
    const total = work.reduce((n, w) => n + w.sequences.reduce((k, s) => k + s.length, 0), 0);
    watch.step('count chosen experts');
    let done = 0;
    const labels: Record<string, TracedLabel> = { ...before };
    const tokens: Record<string, number> = {};
    for (const { t, sequences } of work) {
      const gathered = new Map(layers.map(l => [l.layer, new Gathered(l.experts, l.topK)]));
      for (let first = 0; first < sequences.length; first += session.sequences) {
        const rows = sequences.slice(first, first + session.sequences).flatMap((ids, sequence) =>
          // the last token has none behind it: what multi-token prediction makes of it is not counted
          ids.map((id, position) => ({ id, position, sequence, next: ids[position + 1] ?? null })),
        );
        for (let from = 0; from < rows.length; from += session.chunk) {
          const some = rows.slice(from, from + session.chunk);
          const step = {
            ids: some.map(x => x.id),
            positions: some.map(x => x.position),
            sequences: some.map(x => x.sequence),
            wanted: [some.length - 1],
            ...(session.mtp > 0 ? { nextIds: some.map(x => x.next ?? 0) } : {}),
          };
          const chosen = await session.values(step, [...names.values()]);
          for (const l of layers) {
            const mine = chosen.get(names.get(l.layer) as string);
            if (!mine && l.layer < c.config.layers)
              throw new Error(`the ${session.engine} engine did not give the experts of layer ${l.layer}`);
            if (!mine) continue; // an MTP block that did not run
            some.forEach((x, i) => {
              if (l.layer < c.config.layers || x.next !== null) gathered.get(l.layer)!.add(mine.subarray(i * l.topK, (i + 1) * l.topK));
            });
          }
          watch.at((done += some.length), total);
          await new Promise(resolve => setImmediate(resolve)); // signals are heard
        }
      }
      const count = sequences.reduce((n, s) => n + s.length, 0);
      tokens[t.label] = (tokens[t.label] ?? 0) + count;
      labels[t.label] = added(labels[t.label], { name: t.name, sha256: sha(t), tokens: count }, gathered, topK);
    }
    const sorted = Object.fromEntries(Object.entries(labels).sort(([a], [b]) => (a < b ? -1 : 1)));
    const trace: Trace = { format: traceFormat, model, topK, labels: sorted };
    writeFileSync(`${file}.part`, `${JSON.stringify(trace)}\n`);
    renameSync(`${file}.part`, file);
    return { trace, engine: session.engine, note: opened.note, tokens, again };
  } finally {
    await session.close();
  }
}

/** Counts and the first tokens' sets of one layer. */
class Gathered {
  readonly counts: number[];
  tokens = 0;
  readonly sample: number[] = [];
  readonly #topK: number;
  constructor(experts: number, topK: number) {
    this.counts = new Array<number>(experts).fill(0);
    this.#topK = topK;
  }
  add(chosen: ArrayLike<number>): void {
    this.tokens++;
    for (let i = 0; i < chosen.length; i++) this.counts[chosen[i]!]!++;
    if (this.sample.length < sampledTokens * this.#topK) this.sample.push(...Array.from(chosen).sort((a, b) => a - b));
  }
}
function added(
  was: TracedLabel | undefined,
  text: TracedLabel['texts'][number],
  gathered: ReadonlyMap<number, Gathered>,
  topK: number,
): TracedLabel {
  const of = new Map(was?.layers.map(l => [l.layer, l]));
  return {
    texts: [...(was?.texts ?? []), text],
    layers: [...gathered]
      .filter(([, g]) => g.tokens > 0)
      .map(([layer, g]) => {
        const old = of.get(layer);
        const bytes = Buffer.from(old?.sample ?? '', 'base64');
        const sets = Array.from({ length: bytes.length / 2 }, (_, i) => bytes.readUInt16LE(2 * i));
        return {
          layer,
          tokens: (old?.tokens ?? 0) + g.tokens,
          counts: g.counts.map((n, e) => n + (old?.counts[e] ?? 0)),
          sample: sampleText([...sets, ...g.sample].slice(0, sampledTokens * topK)),
        };
      }),
  };
}
/** The labels of a trace that is there already; it is of this model or refused. */
function earlier(file: string, model: ModelIdentity, topK: number): Readonly<Record<string, TracedLabel>> {
  if (!existsSync(file)) return {};
  const v = readJson(file) as Partial<Trace> | null;
  if (v?.format !== traceFormat) throw new Refusal([problems.notCounts(file, 'it is no trace that another could be added to')]);
  const t = asTrace(file, v);
  const other = [
    ...differences(model, t.model),
    ...(t.topK === topK ? [] : [`Its tokens choose ${t.topK} experts, this model's ${topK}.`]),
  ];
  if (other.length) throw new Refusal([problems.otherModel(file, other)]);
  return t.labels;
}
