// --calibration: the model runs over a text in the reference interpreter, and what comes into each matrix is summed. The searches then weigh the
// error of a column by how much comes in there. Shares of the text that meet an expert may be small: its sums stand beside those of its peers.
import { closeSync, openSync, readFileSync } from 'node:fs';
import { totalmem } from 'node:os';
import { join } from 'node:path';
import type { Graph, Span, ValueOf } from '../ir/graph.js';
import { inputsOf } from '../ir/graph.js';
import { type Problem, problem, Refusal } from '../ir/problem.js';
import { f32 } from '../ir/storage.js';
import { canonicalName } from './checkpoint/names.js';
import { readAt } from './checkpoint/safetensors.js';
import type { Checkpoint } from './checkpoint/shards.js';
import { loadTokenizer } from './checkpoint/tokenizer.js';
import { sourcesOf } from './logical.js';
import { buildModel } from './models/index.js';
import { readWeight } from './numeric/decode.js';
import type { Moment } from './reference/inputs.js';
import { holdsStatistics, readStatistics, type Statistics, type Wanted } from './statistics.js';

export type { Statistics } from './statistics.js';

const noText = (file: string): Problem =>
  problem('HK2605', `${file} has no text to run the model over`, {
    places: [{ file }],
    next: 'Name a UTF-8 text file with --calibration.',
  });
const tooLarge = (bytes: number, have: number): Problem =>
  problem('HK5102', `gptq keeps ${(bytes / 2 ** 30).toFixed(1)} GiB of second moments for this model`, {
    why: `It is for models that fit one machine; half of this one's memory is ${(have / 2 ** 30).toFixed(1)} GiB.`,
    next: 'Use --search mse, with or without --calibration.',
  });
const notFinite = (name: string): Problem =>
  problem('HK3612', `What comes into ${name} is not finite when the model runs over the text`, {
    why: 'The weights are damaged, or the model overflows float32.',
    next: 'hkgai verify and hkgai inspect say more about the checkpoint.',
  });

/** Tokens that are run at most: means settle long before. */
export const mostTokens = 8192;
/** A sequence: what a small model was trained at, and enough for means. Each begins with the begin-of-sentence token, as prompts do. */
const sequenceLength = 256;
const sequencesAtOnce = 4;
/**
 * An expert's own rows count against this many of the layer's mean: one that few tokens chose takes most of its statistics from its peers, one
 * that none chose all of them.
 */
const peerRows = 32;

/** Statistics from a text, or from a file of statistics. `gram`: second moments too. `memory`: bytes that these may take. */
export async function gather(
  c: Checkpoint,
  file: string,
  gram: boolean,
  at: (done: number, total: number) => void,
  memory = totalmem() / 2,
): Promise<Statistics> {
  if (holdsStatistics(file)) return readStatistics(file, wantedOf(c), gram);
  const bytes = readFileSync(file);
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch {
    throw new Refusal([noText(file)]);
  }
  const tokenizer = await loadTokenizer(c.dir);
  const ids = tokenizer.encode(text).slice(0, mostTokens);
  if (ids.length < 2) throw new Refusal([noText(file)]);
  const first = tokenizer.bos === null ? null : tokenizer.idOf(tokenizer.bos);
  const begin = tokenizer.encode('', { addSpecial: true }).filter(id => id === first);
  return overIds(c, ids, begin, file.replace(/^.*[/\\]/, ''), gram, at, memory);
}

/** The matrices that a recipe may round. */
export function wantedOf(c: Checkpoint): readonly Wanted[] {
  const model = buildModel(c.config, c.tensors);
  return sourcesOf(c.config, model, c.tensors)
    .tensors.filter(t => t.logical.matrix)
    .map(t => ({ name: t.logical.name, columns: t.logical.shape[1] as number }));
}

/** Places where rows come in: one for each matrix, shared by matrices that meet the same value; name -> place. */
function placesOf(c: Checkpoint, graph: Graph, wanted: ReadonlySet<string>) {
  const nameOf = (w: ValueOf<'weight'>, part: number): string =>
    canonicalName(w.origin.parts[part]!.tensor, c.config.family).replace(/\.weight_packed$/, '.weight');
  const uses = new Map<string, number>();
  for (const v of graph.values) for (const [, i] of inputsOf(v)) if (i.op === 'weight') uses.set(i.name, (uses.get(i.name) ?? 0) + 1);
  const common = new Map<string, string>();
  for (const v of graph.values) {
    if (v.op === 'linear' && uses.get(v.inputs.weight.name) === 1) common.set(v.inputs.weight.name, `value ${v.inputs.x.name}`);
    if (v.op === 'experts') for (const w of [v.inputs.gate, v.inputs.up]) common.set(w.name, `value ${v.name}`);
  }
  const placeOf = (w: ValueOf<'weight'>, part: number): string | null =>
    w.origin.parts[part] !== undefined && wanted.has(nameOf(w, part)) ? `${common.get(w.name) ?? w.name} ${part}` : null;
  const experts = graph.values.filter((v): v is ValueOf<'experts'> => v.op === 'experts');
  const all = new Map<string, string>();
  for (const w of graph.values)
    if (w.op === 'weight')
      w.origin.parts.forEach((_, part) => {
        const place = placeOf(w, part);
        if (place !== null) all.set(nameOf(w, part), place);
      });
  return { placeOf, all, experts };
}

/** Run the model over ids, cut into sequences. */
export async function overIds(
  c: Checkpoint,
  ids: readonly number[],
  begin: readonly number[],
  called: string,
  gram: boolean,
  at: (done: number, total: number) => void,
  memory = totalmem() / 2,
): Promise<Statistics> {
  const { createReference } = await import('./reference/index.js');
  const { Moments } = await import('./reference/inputs.js');
  const length = Math.max(2, Math.min(c.config.maxPositions, sequenceLength));
  const tokens = length * sequencesAtOnce;
  const limits = { tokens, wanted: 1, sequences: sequencesAtOnce, context: length };
  const { graph } = buildModel(c.config, c.tensors, { limits, mtp: true, state: f32, fakeQuant: false });
  const wanted = wantedOf(c);
  const widths = new Map(wanted.map(w => [w.name, w.columns]));
  const { placeOf, all, experts } = placesOf(c, graph, new Set(widths.keys()));
  if (gram) {
    const squares = new Map([...all].map(([name, place]) => [place, 4 * (widths.get(name) as number) ** 2]));
    const bytes = [...squares.values()].reduce((a, b) => a + b, 0);
    if (bytes > memory) throw new Refusal([tooLarge(bytes, memory)]);
  }
  const moments = new Moments(gram, placeOf);
  const open = new Map<string, number>();
  const read = (span: Span): Uint8Array => {
    let fd = open.get(span.file);
    if (fd === undefined) {
      fd = openSync(join(c.dir, span.file), 'r');
      open.set(span.file, fd);
    }
    const bytes = new Uint8Array(span.bytes[1] - span.bytes[0]);
    readAt(fd, bytes, span.bytes[0]);
    return bytes;
  };
  const reference = await createReference(graph, v => readWeight(v, read), 2 ** 31, moments.inputs);
  try {
    // a row knows the token after it, which multi-token prediction wants: the text's last token has none and is only that
    const own = length - begin.length;
    const rows: { id: number; next: number; position: number; sequence: number }[][] = [];
    for (let from = 0, n = 0; from < ids.length - 1; from += own, n++) {
      const some = [...begin, ...ids.slice(from, Math.min(ids.length - 1, from + own))];
      const next = [...some.slice(1), ids[Math.min(ids.length - 1, from + own)] as number];
      const step = some.map((id, i) => ({ id, next: next[i] as number, position: i, sequence: n % sequencesAtOnce }));
      if (n % sequencesAtOnce === 0) rows.push([]);
      rows.at(-1)!.push(...step);
    }
    const outputs = Object.keys(graph.outputs);
    const total = rows.reduce((n, r) => n + r.length, 0);
    let done = 0;
    for (const r of rows) {
      reference.reset();
      reference.step(
        {
          ids: r.map(x => x.id),
          positions: r.map(x => x.position),
          sequences: r.map(x => x.sequence),
          nextIds: r.map(x => x.next),
          wanted: [r.length - 1],
        },
        outputs,
      );
      at((done += r.length), total);
      await new Promise(resolve => setImmediate(resolve)); // signals are heard
    }
    const notes = [`Activation statistics over ${total} tokens of ${called}.`, ...besidePeers(experts, moments.byPlace, placeOf)];
    return { statistics: means(all, moments.byPlace, gram), notes };
  } finally {
    reference.dispose();
    for (const fd of open.values()) closeSync(fd);
  }
}

/** Mean squares and mean products by name; those of one place are one array. */
function means(all: ReadonlyMap<string, string>, byPlace: ReadonlyMap<string, Moment>, gram: boolean): Statistics['statistics'] {
  const made = new Map<string, { readonly squares: Float32Array; readonly gram: Float32Array | null }>();
  const out: Record<string, Float32Array> = Object.create(null);
  for (const [name, place] of all) {
    const m = byPlace.get(place);
    if (!m) throw new Error(`nothing came into ${name}`);
    let mean = made.get(place);
    if (!mean) {
      const squares = Float32Array.from(m.squares, v => v / m.rows);
      if (m.gram) for (let i = 0; i < m.gram.length; i++) m.gram[i] = m.gram[i]! / m.rows;
      if (!squares.every(Number.isFinite)) throw new Refusal([notFinite(name)]);
      mean = { squares, gram: m.gram };
      made.set(place, mean);
    }
    out[name] = mean.squares;
    if (gram) out[`gram:${name}`] = mean.gram as Float32Array;
  }
  return out;
}

/** Add to each expert's sums `peerRows` rows of the layer's mean. Says which experts no token chose. */
function besidePeers(
  experts: readonly ValueOf<'experts'>[],
  byPlace: Map<string, Moment>,
  placeOf: (w: ValueOf<'weight'>, part: number) => string | null,
): readonly string[] {
  const notes: string[] = [];
  for (const v of experts) {
    const missing = new Set<number>();
    for (const w of [v.inputs.gate, v.inputs.down] as ValueOf<'weight'>[]) {
      const places = w.origin.parts.flatMap((_, e) => placeOf(w, e) ?? []);
      const met = places.flatMap(p => byPlace.get(p) ?? []);
      const rows = met.reduce((n, m) => n + m.rows, 0);
      const columns = w.type.shape.at(-1) as number;
      const share = peerRows / rows;
      const squares = new Float64Array(columns);
      for (const m of met) for (let i = 0; i < columns; i++) squares[i] = squares[i]! + m.squares[i]! * share;
      let gram: Float32Array | null = null;
      if (met[0]?.gram) {
        gram = new Float32Array(columns * columns);
        for (const m of met) for (let i = 0; i < gram.length; i++) gram[i] = gram[i]! + m.gram![i]! * share;
      }
      places.forEach((place, e) => {
        const m = byPlace.get(place);
        if (!m) {
          missing.add(e);
          const copy = gram && new Float32Array(new SharedArrayBuffer(gram.byteLength));
          copy?.set(gram as Float32Array);
          byPlace.set(place, { columns, squares: squares.slice(), gram: copy, rows: peerRows });
          return;
        }
        for (let i = 0; i < columns; i++) m.squares[i] = m.squares[i]! + squares[i]!;
        if (m.gram && gram) for (let i = 0; i < gram.length; i++) m.gram[i] = m.gram[i]! + gram[i]!;
        m.rows += peerRows;
      });
    }
    if (missing.size)
      notes.push(
        `Layer ${v.origin.layer}: no token of the text chose experts ${[...missing].join(', ')}; they take the mean of the others.`,
      );
  }
  return notes;
}
