// docs/quality.md: what each scheme makes of the trained model, run by the interpreter. See bench/README.md.
//
//   node out/bench/bench/quality.js [--only WORD] [--dir DIR] [--out FILE] [--resume]
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import type { ValueOf } from '../ir/graph.js';
import { gather } from '../src/calibrate.js';
import { openCheckpoint } from '../src/checkpoint/shards.js';
import { loadTokenizer } from '../src/checkpoint/tokenizer.js';
import { roleOf } from '../src/logical.js';
import { buildModel } from '../src/models/index.js';
import { readWeight } from '../src/numeric/decode.js';
import { writeStatistics } from '../src/statistics.js';
import { linearRoles, type Recipe, type Rule } from '../targets/engine.js';
import {
  agreement,
  answers,
  difference,
  divergence,
  openModel,
  originals,
  perplexity,
  type Question,
  type Text,
  type Told,
  tell,
} from './quality-measure.js';
import { makeScheme, nameOf, type Rounded, readerOf, type Scheme } from './quality-schemes.js';

const { values: o } = parseArgs({
  options: {
    only: { type: 'string', default: '' },
    dir: { type: 'string', default: join(tmpdir(), 'hkgai-quality') },
    out: { type: 'string', default: 'docs/quality.md' },
    /** Take rows that an earlier run left in DIR: for a run that was stopped, of the same program. */
    resume: { type: 'boolean', default: false },
  },
});
const model = 'fixtures/hkgai-nano';
const own = 'fixtures/eval';
const lines = <T>(file: string): readonly T[] =>
  readFileSync(file, 'utf8')
    .trim()
    .split('\n')
    .map(l => JSON.parse(l) as T);

// ---- what is asked

const texts = [process.env.HKGAI_EVAL_TEXT, '../shared/nano/eval/text'].find(d => d !== undefined && existsSync(join(d, 'ppl_en.jsonl')));
if (texts === undefined) throw new Error('the evaluation texts are not here: name their directory in HKGAI_EVAL_TEXT');
const languages = ['en', 'zh-Hant', 'yue'] as const;
const held: readonly Text[] = languages.flatMap(language =>
  lines<{ ids: readonly number[] }>(join(texts, `ppl_${language}.jsonl`)).map(r => ({ language, ids: r.ids })),
);
const sums: readonly Question[] = lines<{ prompt_ids: readonly number[]; answer: string }>(join(own, 'skill_addition.jsonl')).map(q => ({
  ids: q.prompt_ids,
  most: 6,
  right: a => a === q.answer,
}));
const capitals: readonly Question[] = lines<{ prompt_ids: readonly number[]; key: string }>(join(own, 'capitals.jsonl')).map(q => ({
  ids: q.prompt_ids,
  most: 24,
  right: a => a.includes(q.key),
}));

// ---- the schemes

/** Statistics are gathered once from each text, second moments too. */
const gathered = {
  'own text': [join(own, 'calibration_own.txt'), join(o.dir, 'own.safetensors')],
  corpus: [join(texts, 'calibration.txt'), join(o.dir, 'corpus.safetensors')],
} as const;
const variants: Readonly<Record<string, { readonly search: NonNullable<Rule['search']>; readonly calibration?: string }>> = {
  absmax: { search: 'absmax' },
  mse: { search: 'mse' },
  'mse, own text': { search: 'mse', calibration: gathered['own text'][1] },
  'mse, corpus': { search: 'mse', calibration: gathered.corpus[1] },
  'gptq, own text': { search: 'gptq', calibration: gathered['own text'][1] },
  'gptq, corpus': { search: 'gptq', calibration: gathered.corpus[1] },
};
const all = Object.keys(variants);
const two = ['absmax', 'mse'] as const;
const noGptq = all.filter(v => !v.startsWith('gptq'));
interface Family {
  readonly name: string;
  readonly target: string;
  readonly format?: string;
  readonly rules: readonly Rule[];
  readonly activations?: Recipe['activations'];
  readonly variants: readonly string[];
}
const linears = (to: Rule['to'], more: Partial<Rule> = {}): readonly Rule[] => [{ roles: linearRoles, to, ...more }];
/** Zero points have no kernel for experts in the engines that read them. */
const besideExperts = (more: Partial<Rule>): readonly Rule[] => [{ roles: linearRoles.filter(r => r !== 'expert'), to: 'int4', ...more }];
const withKvB = [...linearRoles, 'kv_b'] as const;
const families: readonly Family[] = [
  { name: 'fp8, blocks of 128 x 128', target: 'cpu', rules: linears('fp8'), variants: two },
  { name: 'W8A8: int8 weights, int8 activations', target: 'cpu', rules: linears('int8'), activations: 'int8', variants: all },
  {
    name: 'W8A8 for NPUs: scales in bf16',
    target: 'ascend',
    rules: linears('int8'),
    activations: 'int8',
    variants: ['absmax', 'mse', 'mse, corpus'],
  },
  { name: 'int8 weights alone', target: 'cpu', rules: linears('int8'), variants: two },
  { name: 'W4A16: experts in int4, groups of 32', target: 'cpu', rules: [{ roles: ['expert'], to: 'int4' }], variants: all },
  { name: 'int4, groups of 32', target: 'cpu', rules: linears('int4'), variants: all },
  { name: 'int4, groups of 128', target: 'cpu', rules: linears('int4', { group: 128 }), variants: all },
  { name: 'int4, groups of 32, no experts', target: 'cpu', rules: besideExperts({}), variants: noGptq },
  { name: 'int4, groups of 32, zero points, no experts', target: 'cuda', rules: besideExperts({ zero: true }), variants: noGptq },
  { name: 'mxfp4', target: 'cpu', rules: linears('mxfp4'), variants: noGptq },
  {
    name: 'W4A8 for NPUs: experts in int4 with a scale a row, the rest W8A8',
    target: 'ascend',
    rules: [{ roles: ['expert'], to: 'int4', group: 0 }, ...linears('int8')],
    activations: 'int8',
    variants: noGptq,
  },
  { name: 'Q8_0', target: 'cpu', format: 'gguf', rules: linears('q8_0'), variants: two },
  { name: 'Q4_0', target: 'cpu', format: 'gguf', rules: linears('q4_0'), variants: noGptq },
  { name: 'control: int8 a row, kv_b too', target: 'cpu', rules: [{ roles: withKvB, to: 'int8' }], variants: ['absmax'] },
  {
    name: 'control: int4 groups of 32, kv_b too',
    target: 'cpu',
    rules: [{ roles: withKvB, to: 'int4', scale: 'f32' }],
    variants: ['absmax'],
  },
];

// ---- measuring

interface Row {
  readonly family: string;
  readonly variant: string;
  readonly bits: number;
  /** Mean over matrices of the squared relative error. */
  readonly error: number;
  readonly told: readonly Told[];
  readonly sums: number;
  readonly capitals: number;
}
mkdirSync(o.dir, { recursive: true });
const tokenizer = await loadTokenizer(model);
const source = openCheckpoint(model);
const read = readerOf(model);
const bf16Weights = (v: ValueOf<'weight'>): Float32Array | Int32Array => readWeight(v, read);
const left = join(o.dir, 'rows.json');
const known = new Map<string, Row>(o.resume && existsSync(left) ? JSON.parse(readFileSync(left, 'utf8')) : []);
for (const [text, file] of Object.values(gathered)) {
  if (o.resume && existsSync(file)) continue;
  rmSync(file, { force: true });
  process.stderr.write(`statistics from ${text}\n`);
  writeStatistics(file, await gather(source, text, true, () => undefined));
}
process.stderr.write('bf16\n');
const first = await openModel(source, bf16Weights, null);
const bf16 = originals(first.reference, held);
first.reference.dispose();
async function measured(
  key: string,
  what: Pick<Row, 'family' | 'variant'>,
  make: () => Promise<Pick<Rounded, 'checkpoint' | 'weights' | 'inputs' | 'figures' | 'bits'>>,
  ask: boolean,
): Promise<Row> {
  const before = known.get(key);
  if (before) return before;
  const began = performance.now();
  const made = await make();
  const { reference } = await openModel(made.checkpoint, made.weights, made.inputs);
  const errors = [...made.figures.values()].filter(x => x.relative > 0);
  const row: Row = {
    ...what,
    bits: made.bits,
    error: errors.reduce((n, x) => n + x.relative ** 2, 0) / Math.max(1, errors.length),
    told: tell(reference, held, bf16),
    sums: ask ? answers(reference, tokenizer, sums) : 0,
    capitals: ask ? answers(reference, tokenizer, capitals) : 0,
  };
  reference.dispose();
  known.set(key, row);
  writeFileSync(left, JSON.stringify([...known]));
  process.stderr.write(
    `${what.family}, ${what.variant}: divergence ${divergence(row.told).toFixed(5)}, ${((performance.now() - began) / 1e3).toFixed(0)} s\n`,
  );
  return row;
}
const plainBf16 = { checkpoint: source, weights: bf16Weights, inputs: null, figures: new Map(), bits: 16 };
const base = await measured('bf16', { family: 'bf16', variant: '' }, async () => plainBf16, true);
const rows: Row[] = [base];
for (const f of families)
  for (const variant of f.variants) {
    if (!`${f.name} ${variant}`.includes(o.only)) continue;
    const v = variants[variant]!;
    const scheme: Scheme = {
      target: f.target,
      ...(f.format ? { engineFormat: f.format } : {}),
      ...(v.calibration ? { calibration: v.calibration } : {}),
      recipe: {
        rules: f.rules.map(r => ({ ...r, search: v.search })),
        otherwise: 'bf16',
        mtp: 'keep',
        activations: f.activations ?? 'none',
      },
    };
    rows.push(
      await measured(JSON.stringify(scheme), { family: f.name, variant }, () => makeScheme(model, scheme, join(o.dir, 'scheme')), true),
    );
  }
rmSync(join(o.dir, 'scheme'), { recursive: true, force: true });

/**
 * How much of a difference is chance: the same kind of rounding several times, so that other values fall on other sides of a half. int8 a row by
 * scales a little larger than absmax's; int4 in groups of 32 that begin at other columns. The divergence is held against the squared error of the
 * weights, which differs a little.
 */
async function spread(kind: string, draws: readonly number[], round: (row: Float32Array, draw: number) => void) {
  const ratios: number[] = [];
  const divergences: number[] = [];
  for (const draw of draws) {
    const weights = (v: ValueOf<'weight'>): Float32Array | Int32Array => {
      const x = readWeight(v, read);
      const columns = v.type.shape.at(-1) as number;
      if (v.origin.parts.length === 0 || !(linearRoles as readonly string[]).includes(roleOf(nameOf(source, v, 0)))) return x;
      for (let at = 0; at < x.length; at += columns) round((x as Float32Array).subarray(at, at + columns), draw);
      return x;
    };
    const make = async () => ({ ...plainBf16, weights });
    const row = await measured(`chance ${kind} ${draw}`, { family: `chance, ${kind}`, variant: String(draw) }, make, false);
    let [e, n] = [0, 0];
    for (const v of buildModel(source.config, source.tensors).graph.values) {
      if (v.op !== 'weight' || v.type.shape.length < 2) continue;
      const [x, y] = [bf16Weights(v), weights(v)];
      let [own, all] = [0, 0];
      for (let i = 0; i < x.length; i++) {
        own += (x[i]! - y[i]!) ** 2;
        all += x[i]! ** 2;
      }
      e += own;
      if (own > 0) n += all;
    }
    divergences.push(divergence(row.told));
    ratios.push(divergence(row.told) / (e / n));
  }
  const mean = ratios.reduce((a, b) => a + b, 0) / ratios.length;
  const deviation = Math.sqrt(ratios.reduce((n, x) => n + (x - mean) ** 2, 0) / (ratios.length - 1)) / mean;
  return { deviation, divergences };
}
const blockRound = (row: Float32Array, from: number, to: number, most: number, larger: number): void => {
  let top = 0;
  for (let c = from; c < to; c++) top = Math.max(top, Math.abs(row[c]!));
  const s = (top / most) * larger || 1;
  for (let c = from; c < to; c++) row[c] = Math.round(row[c]! / s) * s;
};
const chance =
  o.only === ''
    ? {
        int8: await spread('int8 a row', [1, 1.01, 1.02, 1.03, 1.04], (row, larger) => blockRound(row, 0, row.length, 127, larger)),
        int4: await spread('int4 in groups of 32', [0, 6, 13, 19, 26], (row, first) => {
          for (let c = first === 0 ? 0 : first - 32; c < row.length; c += 32)
            blockRound(row, Math.max(0, c), Math.min(row.length, c + 32), 7, 1);
        }),
      }
    : null;

// ---- the page

const of = (told: readonly Told[], language: string): readonly Told[] => told.filter(t => t.language === language);
const change = (r: Row): number => Math.exp(difference(r.told, base.told, x => x.nll).mean) - 1;
const percent = (x: number, digits = 1): string => `${(100 * x).toFixed(digits)} %`;
const signed = (x: number, digits = 2): string => `${x < 0 ? '−' : '+'}${Math.abs(100 * x).toFixed(digits)} %`;
const line = (cells: readonly string[]): string => `| ${cells.join(' | ')} |`;
const table = [
  line([
    'weights',
    'scales found by',
    'bits',
    ...languages.map(l => `ppl ${l}`),
    'all three',
    'KL',
    'same first choice',
    'sums',
    'capitals',
    'weight error',
  ]),
  line(Array.from({ length: 12 }, () => '---')),
  ...rows.map((r, i) =>
    line([
      rows[i - 1]?.family === r.family ? '' : r.family,
      r.variant,
      r.bits.toFixed(2),
      ...languages.map(l => perplexity(of(r.told, l)).toFixed(2)),
      r === base ? '' : signed(change(r)),
      r === base ? '0' : divergence(r.told).toFixed(4),
      percent(agreement(r.told)),
      percent(r.sums),
      percent(r.capitals),
      r === base ? '0' : r.error.toExponential(2),
    ]),
  ),
];
const shown = (list: readonly number[] | undefined): string => (list ?? []).map(x => x.toFixed(4)).join(', ');
const worseOrSame: string[] = [];
const better: string[] = [];
for (const f of families) {
  const of = (variant: string): Row | undefined => rows.find(r => r.family === f.name && r.variant === variant);
  const pairs: readonly (readonly [string, string])[] = [
    ...f.variants.slice(1).map(v => [v, 'absmax'] as const),
    ...f.variants.filter(v => v.startsWith('mse,')).map(v => [v, 'mse'] as const),
    ...f.variants.filter(v => v.startsWith('gptq')).map(v => [v, v.replace('gptq', 'mse')] as const),
  ];
  for (const [a, b] of pairs) {
    const [x, y] = [of(a), of(b)];
    if (!x || !y) continue;
    const kl = difference(x.told, y.told, t => t.divergence);
    const loss = difference(x.told, y.told, t => t.nll);
    const sure = kl.mean < -2 * kl.error;
    const says = `${f.name}: ${a} against ${b}: KL ${divergence(y.told).toFixed(4)} → ${divergence(x.told).toFixed(4)} (${signed(kl.mean / divergence(y.told), 0)}, ± ${percent((2 * kl.error) / divergence(y.told), 0)}), perplexity ${signed(Math.exp(loss.mean) - 1)} (± ${percent(2 * loss.error, 2)})`;
    (sure ? better : worseOrSame).push(`* ${says}${sure || kl.mean <= 2 * kl.error ? '' : ': **worse**'}`);
  }
}
const w8a8 = rows.filter(r => r.family.startsWith('W8A8'));
const worst = w8a8.reduce(
  (n, r) => Math.max(n, ...languages.map(l => Math.abs(perplexity(of(r.told, l)) / perplexity(of(base.told, l)) - 1))),
  0,
);
const tokens = base.told.reduce((n, t) => n + t.tokens, 0);
const page = `# Quality: what each form of the weights costs

Written by \`node out/bench/bench/quality.js\`; bench/README.md says how to build it. The numbers are the model's, not a guess from weight errors.

## How it is measured

[hkgai-nano](../fixtures/hkgai-nano) (3.4 million parameters, trained, DeepSeek V3's architecture) is compiled by each recipe. Directories that the project's own
program reads (int8, int4, fp8, mxfp4) are opened as they were written; zero points, row pairs and GGUF blocks are decoded in bench/quality-schemes.ts and stand in the
place of the model's matrices. The reference interpreter then runs it in float32. Coded are the linears of attention (not \`kv_b\`, which engines absorb), dense layers,
shared and routed experts; all else is bf16, as engines have it. W8A8 and W4A8 also round what comes into these matrices, as engines do: symmetric int8, one scale a token
found from it (largest magnitude / 127), the down projections' inputs too.

* **ppl**: per language over held-out texts of 20 KB each (${tokens.toLocaleString('en')} tokens in all); each text after the begin-of-sentence token. *All three*: change over all tokens.
* **KL**: mean over these tokens of the divergence of the next-token distribution from bf16's, in nats. The most sensitive of the figures: every token counts, not the right one alone.
* **same first choice**: where bf16's most probable token is still the most probable.
* **sums**: 200 additions never trained on, greedy. **capitals**: 90 questions of the training data. One sum is 0.5 %; the standard error of these is about 1 %.
* **weight error**: squared error over squared weights, mean over matrices. *bits*: a weight of a coded matrix, scales and zero points included.
* Texts for calibration: *own* is fixtures/eval/calibration_own.txt, all questions and answers as the model is asked; *corpus* is 28 KB of what it was trained on, in the three languages of
  the evaluation. At most 8,192 tokens of either are run.

## The table

${table.join('\n')}

W8A8 stays within ${percent(worst, 2)} of bf16's perplexity in every language and by every search (asked for: 1 %).

The controls code \`kv_b\` as well, which is the convention of the model's own reference figures, made by another program (torch, fixtures/eval/reference.json): int8 a row 55.87 / 87.93 / 62.74,
int4 groups of 32 58.23 / 90.52 / 64.44, fp8 (from its own scales) 56.28 / 88.01 / 62.91, bf16 55.93 / 87.90 / 62.69.

## What the searches do, and what a calibration text changes

* **absmax** puts the largest magnitude of a block on the largest code. Nothing is left to choose, so **activation statistics do not change it**: with \`--calibration\` the same bytes come out, and the compiler says so.
  What statistics could do for absmax would be a different checkpoint (columns scaled up before rounding and down in the norm before them); that changes tensors which are no linears and is not done.
* **mse** tries scales below absmax's and keeps the one with the least squared error of the block. With \`--calibration\` the error of a column is weighed by the mean square of what comes into it: the squared error
  of the outputs where inputs do not go together.
* **gptq** takes the inputs' correlations too: columns are rounded in order, and each one's error is made good by those that follow. It needs \`--calibration\`, rounds to symmetric int8 and int4 along rows, and is for models
  whose second moments fit in half of the machine's memory.
* Experts lean on their peers: 32 rows of the layer's mean stand beside an expert's own; one that no token chose has the mean alone and is named in the bundle's notes.
* The statistics lie in the bundle as \`calibration.safetensors\`. That file after \`--calibration\` gives the same bytes on any machine; running the text again elsewhere need not, since cosines of positions come from
  the host. Statistics of another model are refused (HK3611).

## Where a search is better

Differences are paired over the same texts; ± is two standard errors with texts as the sample. Here the KL falls by more than that.

The ± does not know of another chance: which values fall on which side of a half. Five roundings of one kind, their KL held against their squared errors, differ by
${percent(chance?.int8.deviation ?? 0, 0)} at int8 (scales times 1.00 to 1.04; KL ${shown(chance?.int8.divergences)}) and by ${percent(chance?.int4.deviation ?? 0, 0)} at int4 in groups of 32 (groups that begin at other columns; KL ${shown(chance?.int4.divergences)}),
standard deviations. Two rows that differ by less than about ${percent(2 * Math.SQRT2 * (chance?.int8.deviation ?? 0), 0)} in KL at 8 bits, ${percent(2 * Math.SQRT2 * (chance?.int4.deviation ?? 0), 0)} at 4, may be the same scheme with other luck.

${better.join('\n') || 'Nowhere.'}

## Where it is not

At 8 bits there is little to gain: the squared error of the weights falls by 0.2 to 4 %, less than chance moves the KL. A calibration text that is unlike what the model is asked later (*own* is all
chat, the evaluation is prose and verse) weighs the wrong columns: it can be worse than none.

${worseOrSame.join('\n') || 'Nowhere.'}
`;
if (o.only === '') writeFileSync(o.out, page);
else process.stdout.write(`${table.join('\n')}\n\nbetter\n${better.join('\n')}\n\nnot\n${worseOrSame.join('\n')}\n`);
