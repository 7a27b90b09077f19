// What a model with rounded weights still knows: perplexity, divergence from the model it was made of, sums, capitals. The interpreter runs it.
import type { Graph, ValueOf } from '../ir/graph.js';
import { f32 } from '../ir/storage.js';
import type { Checkpoint } from '../src/checkpoint/shards.js';
import type { Tokenizer } from '../src/checkpoint/tokenizer.js';
import { buildModel } from '../src/models/index.js';
import { createReference, type Reference } from '../src/reference/index.js';
import type { Inputs } from '../src/reference/inputs.js';

const { exp, log } = Math;
const atOnce = 16;
/** Questions are short. */
const questionsAtOnce = 64;
const context = 256;
/** An interpreter with room for them. */
export async function openModel(
  c: Checkpoint,
  weights: (v: ValueOf<'weight'>) => Float32Array | Int32Array,
  inputs: Inputs | null,
): Promise<{ readonly reference: Reference; readonly graph: Graph }> {
  const limits = { tokens: atOnce * context, wanted: atOnce * context, sequences: questionsAtOnce, context };
  const { graph } = buildModel(c.config, c.tensors, { limits, mtp: false, state: f32, fakeQuant: false });
  return { reference: await createReference(graph, weights, 2 ** 31, inputs), graph };
}

/** A text: ids without the begin-of-sentence token that goes before them. */
export interface Text {
  readonly language: string;
  readonly ids: readonly number[];
}
/** Log-probabilities [tokens, vocabulary] of each text, each id after those before it. */
export function* logProbabilities(r: Reference, texts: readonly Text[]): Generator<readonly [index: number, logs: Float32Array]> {
  for (let from = 0; from < texts.length; from += atOnce) {
    const some = texts.slice(from, from + atOnce);
    r.reset();
    const rows = some.flatMap((t, s) => [0, ...t.ids.slice(0, -1)].map((id, position) => ({ id, position, s })));
    const { data, shape } = r
      .step({ ids: rows.map(x => x.id), positions: rows.map(x => x.position), sequences: rows.map(x => x.s) }, ['logits'])
      .get('logits')!;
    const logs = data as Float32Array;
    const n = shape[1];
    for (let t = 0; t < shape[0]; t++) {
      const row = logs.subarray(t * n, (t + 1) * n);
      let most = Number.NEGATIVE_INFINITY;
      for (const v of row) if (v > most) most = v;
      let total = 0;
      for (const v of row) total += exp(v - most);
      const less = most + log(total);
      for (let i = 0; i < n; i++) row[i]! -= less;
    }
    let at = 0;
    for (const [s, t] of some.entries()) {
      yield [from + s, logs.subarray(at * n, (at + t.ids.length) * n)];
      at += t.ids.length;
    }
  }
}

/** Sums over the tokens of one text. */
export interface Told {
  readonly language: string;
  readonly tokens: number;
  /** Of -log p of the text's own ids. */
  readonly nll: number;
  /** Of the divergence of the model's distribution from the original's: sum p log(p / q). */
  readonly divergence: number;
  /** Places where both have the same first choice. */
  readonly agree: number;
}
/** Hold a model against the original's log-probabilities, text by text. */
export function tell(r: Reference, texts: readonly Text[], original: readonly Float32Array[] | null): readonly Told[] {
  const out: Told[] = [];
  for (const [i, logs] of logProbabilities(r, texts)) {
    const { ids, language } = texts[i] as Text;
    const p = original?.[i] ?? logs;
    const n = logs.length / ids.length;
    let [nll, divergence, agree] = [0, 0, 0];
    for (let t = 0; t < ids.length; t++) {
      nll -= logs[t * n + (ids[t] as number)]!;
      let [a, b] = [0, 0];
      for (let k = 0; k < n; k++) {
        const [x, y] = [p[t * n + k]!, logs[t * n + k]!];
        divergence += exp(x) * (x - y);
        if (x > p[t * n + a]!) a = k;
        if (y > logs[t * n + b]!) b = k;
      }
      if (a === b) agree++;
    }
    out.push({ language, tokens: ids.length, nll, divergence, agree });
  }
  return out;
}
export const originals = (r: Reference, texts: readonly Text[]): readonly Float32Array[] =>
  [...logProbabilities(r, texts)].map(([, logs]) => logs.slice());

const total = (t: readonly Told[], of: (x: Told) => number): number => t.reduce((n, x) => n + of(x), 0);
export const perplexity = (t: readonly Told[]): number => Math.exp(total(t, x => x.nll) / total(t, x => x.tokens));
export const divergence = (t: readonly Told[]): number => total(t, x => x.divergence) / total(t, x => x.tokens);
export const agreement = (t: readonly Told[]): number => total(t, x => x.agree) / total(t, x => x.tokens);
/** Mean over tokens of the difference in a measure between two models on the same texts, and its standard error with texts as the sample. */
export function difference(
  a: readonly Told[],
  b: readonly Told[],
  of: (x: Told) => number,
): { readonly mean: number; readonly error: number } {
  const tokens = total(a, x => x.tokens);
  const mean = a.reduce((n, x, i) => n + of(x) - of(b[i] as Told), 0) / tokens;
  // of a ratio of sums: residuals of each text's sum from its share
  const square = a.reduce((n, x, i) => n + (of(x) - of(b[i] as Told) - mean * x.tokens) ** 2, 0);
  return { mean, error: Math.sqrt((square * a.length) / (a.length - 1)) / tokens };
}

export interface Question {
  readonly ids: readonly number[];
  /** Tokens that an answer may have. */
  readonly most: number;
  readonly right: (answer: string) => boolean;
}
/** The share of questions whose greedy answer is right. Answers end at the end-of-sentence token 1. */
export function answers(r: Reference, tokenizer: Tokenizer, questions: readonly Question[]): number {
  let right = 0;
  for (let from = 0; from < questions.length; from += questionsAtOnce) {
    const some = questions.slice(from, from + questionsAtOnce);
    r.reset();
    const said: number[][] = some.map(() => []);
    let open = some.map((q, s) => ({ s, ids: q.ids, at: 0 }));
    while (open.length) {
      const rows = open.flatMap(o => o.ids.map((id, i) => ({ id, position: o.at + i, s: o.s })));
      let last = -1;
      const wanted = open.map(o => (last += o.ids.length));
      const { data, shape } = r
        .step({ ids: rows.map(x => x.id), positions: rows.map(x => x.position), sequences: rows.map(x => x.s), wanted }, ['logits'])
        .get('logits')!;
      open = open.flatMap((o, i) => {
        const row = data.subarray(i * shape[1], (i + 1) * shape[1]);
        let best = 0;
        for (let k = 1; k < row.length; k++) if (row[k]! > row[best]!) best = k;
        if (best === 1) return [];
        said[o.s]!.push(best);
        return said[o.s]!.length < some[o.s]!.most ? [{ s: o.s, ids: [best], at: o.at + o.ids.length }] : [];
      });
    }
    some.forEach((q, s) => {
      if (q.right(tokenizer.decode(said[s] as number[]))) right++;
    });
  }
  return right / questions.length;
}
