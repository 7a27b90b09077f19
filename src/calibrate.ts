// Statistics of activations: the model is run over a text by the reference interpreter, and the inputs of every linear are summed up.
// For each matrix: the mean square of every input column; for gptq also their second moments. Experts that no token chose take the mean of
// their layer's others.
import { closeSync, openSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Span, Value, ValueOf } from '../ir/graph.js';
import { type Problem, problem, Refusal } from '../ir/problem.js';
import { f32 } from '../ir/storage.js';
import { canonicalName } from './checkpoint/names.js';
import { readAt } from './checkpoint/safetensors.js';
import type { Checkpoint } from './checkpoint/shards.js';
import { loadTokenizer } from './checkpoint/tokenizer.js';
import { buildModel } from './models/index.js';
import { readWeight } from './numeric/decode.js';
import { openReference } from './session.js';

const noText = (file: string): Problem =>
  problem('HK2605', `${file} has no text to run the model over`, {
    places: [{ file }],
    next: 'Name a UTF-8 text file with --calibration.',
  });
const tooLarge = (what: string, bytes: number): Problem =>
  problem('HK5102', `gptq keeps ${(bytes / 2 ** 30).toFixed(1)} GiB of second moments for ${what}`, {
    why: 'It is for models that fit one machine.',
    next: 'Use --search mse, with or without --calibration.',
  });

export interface Statistics {
  /** Mean square of each input column by tensor name; with gptq also `gram:NAME`, [columns, columns]. */
  readonly statistics: Readonly<Record<string, Float32Array>>;
  readonly notes: readonly string[];
}
/** Tokens that are run at most: means settle long before. */
const mostTokens = 8192;

class Sum {
  readonly squares: Float64Array;
  readonly gram: Float64Array | null;
  rows = 0;
  constructor(
    readonly columns: number,
    gram: boolean,
  ) {
    this.squares = new Float64Array(columns);
    this.gram = gram ? new Float64Array(columns * columns) : null;
  }
  add(x: ArrayLike<number>, from: number): void {
    const n = this.columns;
    for (let c = 0; c < n; c++) this.squares[c]! += (x[from + c] as number) ** 2;
    if (this.gram)
      for (let i = 0; i < n; i++) {
        const xi = x[from + i] as number;
        if (xi !== 0) for (let j = 0; j < n; j++) this.gram[i * n + j]! += xi * (x[from + j] as number);
      }
    this.rows++;
  }
}
const widthOf = (v: Value): number => v.type.shape.at(-1) as number;
type Linear = ValueOf<'linear'> | ValueOf<'grouped_linear'>;

/** Run and sum. `gram`: second moments too. */
export async function gather(c: Checkpoint, file: string, gram: boolean, at: (done: number, total: number) => void): Promise<Statistics> {
  const text = readFileSync(file, 'utf8');
  const tokenizer = await loadTokenizer(c.dir);
  const ids = tokenizer.encode(text).slice(0, mostTokens);
  if (ids.length < 2) throw new Refusal([noText(file)]);
  const context = Math.min(c.config.maxPositions, 1024);
  const tokens = Math.min(128, context);
  const options = { limits: { tokens, wanted: tokens, sequences: 1, context }, mtp: false, state: f32, fakeQuant: false };
  const { graph } = buildModel(c.config, c.tensors, options);
  const name = (w: ValueOf<'weight'>, part: number): string =>
    canonicalName(w.origin.parts[part]!.tensor, c.config.family).replace(/\.weight_packed$/, '.weight');
  const linears = graph.values.filter(
    (v): v is Linear =>
      (v.op === 'linear' || v.op === 'grouped_linear') && v.inputs.weight.op === 'weight' && v.inputs.weight.origin.parts.length > 0,
  );
  const experts = graph.values.filter((v): v is ValueOf<'experts'> => v.op === 'experts');
  const sums = new Map<string, Sum>();
  if (gram) {
    const bytes =
      8 *
      (linears.reduce((n, v) => n + widthOf(v.inputs.weight) ** 2, 0) +
        experts.reduce(
          (n, v) =>
            n + (v.inputs.gate as ValueOf<'weight'>).origin.parts.length * (2 * widthOf(v.inputs.gate) ** 2 + widthOf(v.inputs.down) ** 2),
          0,
        ));
    if (bytes > 2 ** 31) throw new Refusal([tooLarge('all its matrices', bytes)]);
  }
  const sumOf = (key: string, columns: number): Sum => {
    const s = sums.get(key) ?? new Sum(columns, gram);
    sums.set(key, s);
    return s;
  };
  const wanted = [...new Set([...linears.map(v => v.inputs.x.name), ...experts.flatMap(v => [v.inputs.x.name, v.inputs.indices.name])])];
  const session = await openReference(c.dir, options);
  const read = (span: Span): Uint8Array => {
    const fd = openSync(join(c.dir, span.file), 'r');
    try {
      const bytes = new Uint8Array(span.bytes[1] - span.bytes[0]);
      readAt(fd, bytes, span.bytes[0]);
      return bytes;
    } finally {
      closeSync(fd);
    }
  };
  try {
    const decoded = new Map<Value, Float32Array>();
    for (const v of experts)
      for (const w of [v.inputs.gate, v.inputs.up]) decoded.set(w, readWeight(w as ValueOf<'weight'>, read) as Float32Array);
    for (let begin = 0; begin < ids.length; begin += context) {
      const sequence = ids.slice(begin, begin + context);
      for (let from = 0; from < sequence.length; from += tokens) {
        const some = sequence.slice(from, from + tokens);
        const got = session.reference.step({ ids: some, positions: some.map((_, i) => from + i), sequences: some.map(() => 0) }, wanted);
        for (const v of linears) {
          const x = got.get(v.inputs.x.name)!.data;
          const columns = widthOf(v.inputs.weight);
          const s = sumOf(name(v.inputs.weight as ValueOf<'weight'>, 0), columns);
          for (let p = 0; p + columns <= x.length; p += columns) s.add(x, p);
        }
        for (const v of experts) sumExperts(v, got.get(v.inputs.x.name)!.data, got.get(v.inputs.indices.name)!.data, decoded, sumOf, name);
        at(begin + from + some.length, ids.length);
      }
    }
  } finally {
    await session.close();
  }
  const notes = [`Activation statistics over ${ids.length} tokens of ${file.replace(/^.*[/\\]/, '')}.`];
  notes.push(...fillUnrouted(experts, sums, name, gram));
  const out: Record<string, Float32Array> = Object.create(null);
  for (const [key, s] of sums) {
    out[key] = Float32Array.from(s.squares, v => v / Math.max(1, s.rows));
    if (s.gram) out[`gram:${key}`] = Float32Array.from(s.gram, v => v / Math.max(1, s.rows));
  }
  return { statistics: out, notes };
}

/** Rows that met an expert: x for gate and up, the activation for down. */
function sumExperts(
  v: ValueOf<'experts'>,
  x: ArrayLike<number>,
  indices: ArrayLike<number>,
  decoded: ReadonlyMap<Value, Float32Array>,
  sumOf: (key: string, columns: number) => Sum,
  name: (w: ValueOf<'weight'>, part: number) => string,
): void {
  const d = widthOf(v.inputs.gate);
  const inner = widthOf(v.inputs.down);
  const tokens = x.length / d;
  const k = indices.length / tokens;
  const [gate, up] = [decoded.get(v.inputs.gate)!, decoded.get(v.inputs.up)!];
  const limit = v.attributes.limit;
  const h = new Float64Array(inner);
  for (let t = 0; t < tokens; t++)
    for (let i = 0; i < k; i++) {
      const e = indices[t * k + i] as number;
      sumOf(name(v.inputs.gate as ValueOf<'weight'>, e), d).add(x, t * d);
      sumOf(name(v.inputs.up as ValueOf<'weight'>, e), d).add(x, t * d);
      const base = e * inner * d;
      for (let o = 0; o < inner; o++) {
        let [a, b] = [0, 0];
        for (let c = 0; c < d; c++) {
          const xc = x[t * d + c] as number;
          a += gate[base + o * d + c]! * xc;
          b += up[base + o * d + c]! * xc;
        }
        if (limit !== null) {
          a = Math.min(a, limit);
          b = Math.max(-limit, Math.min(limit, b));
        }
        h[o] = (a / (1 + Math.exp(-a))) * b;
      }
      sumOf(name(v.inputs.down as ValueOf<'weight'>, e), inner).add(h, 0);
    }
}

/** Experts without a token take the mean of the layer's others. */
function fillUnrouted(
  experts: readonly ValueOf<'experts'>[],
  sums: Map<string, Sum>,
  name: (w: ValueOf<'weight'>, part: number) => string,
  gram: boolean,
): readonly string[] {
  const notes: string[] = [];
  for (const v of experts) {
    const missing = new Set<number>();
    for (const which of ['gate', 'up', 'down'] as const) {
      const w = v.inputs[which] as ValueOf<'weight'>;
      const columns = widthOf(w);
      const mean = new Sum(columns, gram);
      w.origin.parts.forEach((_, e) => {
        const s = sums.get(name(w, e));
        if (!s) return;
        s.squares.forEach((q, c) => (mean.squares[c]! += q));
        s.gram?.forEach((q, c) => (mean.gram![c]! += q));
        mean.rows += s.rows;
      });
      w.origin.parts.forEach((_, e) => {
        if (sums.has(name(w, e))) return;
        missing.add(e);
        sums.set(name(w, e), mean);
      });
    }
    if (missing.size)
      notes.push(
        `Layer ${v.origin.layer}: no token of the text chose experts ${[...missing].join(', ')}; they take the mean of the others.`,
      );
  }
  return notes;
}
