// The trained model as users meet it: recorded logits, greedy answers, sums, capitals, and perplexity per language against the figures of the
// float32 reference. The program that answers is compiled and built here; the interpreter answers some of the same.
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { buildNative } from '../src/build.js';
import { openCheckpoint } from '../src/checkpoint/shards.js';
import { loadTokenizer } from '../src/checkpoint/tokenizer.js';
import { compile } from '../src/compile.js';
import { compiler } from '../src/doctor.js';
import { defaultOptions } from '../src/models/index.js';
import { openNative, openReference, type Session } from '../src/session.js';
import { evalText } from './eval-text.js';
import { fixtures, recorded, worst } from './golden-cases.js';

const lines = <T>(file: string): readonly T[] =>
  readFileSync(file, 'utf8')
    .trim()
    .split('\n')
    .map(l => JSON.parse(l) as T);
const own = join(fixtures, 'eval');
const reference = JSON.parse(readFileSync(join(own, 'reference.json'), 'utf8')) as {
  readonly ppl: Readonly<Record<string, { readonly ppl: number; readonly tokens: number }>>;
  readonly skill_accuracy: number;
  readonly capitals_accuracy: number;
  readonly quantised: Readonly<
    Record<string, { readonly ppl: Readonly<Record<string, number>>; readonly skill_accuracy: number; readonly capitals_accuracy: number }>
  >;
};
interface Prompt {
  readonly text: string;
  readonly prompt_ids: readonly number[];
  readonly greedy_ids: readonly number[];
  readonly 'stable_prefix_f32_gap_0.01': number;
}
const greedy = async (s: Session, ids: readonly number[], count: number): Promise<readonly number[]> => {
  const out: number[] = [];
  await s.generate({ sequence: 0, position: 0, ids, count, temperature: 0, topP: 1, seed: 1, stops: [1] }, id => out.push(id));
  return out;
};
/** exp of the mean of -log p over all ids of all records, each after its begin-of-sentence token. */
async function perplexity(s: Session, records: readonly (readonly number[])[]): Promise<{ readonly ppl: number; readonly tokens: number }> {
  let sum = 0;
  let tokens = 0;
  for (const ids of records) {
    const all = [0, ...ids];
    for (let from = 0; from < ids.length; from += s.chunk) {
      const to = Math.min(ids.length, from + s.chunk);
      const part = all.slice(from, to);
      const { logits } = await s.step({ ids: part, positions: part.map((_, i) => from + i), sequences: part.map(() => 0) });
      for (let t = 0; t < part.length; t++) {
        const row = logits.subarray(t * s.vocabulary, (t + 1) * s.vocabulary);
        const most = row.reduce((a, b) => Math.max(a, b));
        let total = 0;
        for (const v of row) total += Math.exp(v - most);
        sum += Math.log(total) - (row[all[from + t + 1] as number]! - most);
        tokens++;
      }
    }
  }
  return { ppl: Math.exp(sum / tokens), tokens };
}

const fp8 = reference.quantised['fp8 128x128 block (hkgai-nano-fp8)']!;
const models = [
  {
    name: 'hkgai-nano',
    ppl: Object.fromEntries(Object.entries(reference.ppl).map(([k, v]) => [k, v.ppl])),
    skill: reference.skill_accuracy,
    capitals: reference.capitals_accuracy,
  },
  { name: 'hkgai-nano-fp8', ppl: fp8.ppl, skill: fp8.skill_accuracy, capitals: fp8.capitals_accuracy },
] as const;
const cc = compiler();

for (const m of models)
  (cc ? describe : describe.skip)(cc ? `${m.name}, compiled` : `${m.name}: skipped, there is no C compiler here`, () => {
    const work = mkdtempSync(join(tmpdir(), 'hkgai-nano-'));
    let s: Session;
    beforeAll(async () => {
      process.env.HKGAI_CACHE = join(work, 'cache');
      await compile(
        join(fixtures, m.name),
        {
          out: join(work, 'out'),
          targets: ['cpu'],
          quantise: 'none',
          state: 'f32',
          mtp: 'keep',
          weights: 'auto',
          sequences: 2,
          chunk: 128,
          force: false,
          allowPhantomKeys: false,
          version: 'test',
          noCache: true,
        },
        { step: () => {}, at: () => {} },
      );
      const { program } = await buildNative(join(work, 'out/cpu/native'));
      s = await openNative(program, join(work, 'out/cpu/engine'), 2);
    });
    afterAll(async () => {
      await s.close();
      rmSync(work, { recursive: true });
    });
    if (m.name === 'hkgai-nano')
      it('gives the recorded logits', async () => {
        const golden = recorded(join(own, 'golden.safetensors'));
        const names = [...golden.keys()].flatMap(k => (k.endsWith('.logits') && golden.has(k.replace('.logits', '.input_ids')) ? [k] : []));
        expect(names.length).toBeGreaterThan(0);
        for (const k of names) {
          const ids = [...golden.get(k.replace('.logits', '.input_ids'))!.data];
          const { logits } = await s.step({ ids, positions: ids.map((_, i) => i), sequences: ids.map(() => 0) });
          expect(worst(logits, golden.get(k)!.data)).toBeLessThan(2e-4);
        }
      });
    if (m.name === 'hkgai-nano')
      it('answers as recorded, as far as answers are stable', async () => {
        for (const p of lines<Prompt>(join(own, 'prompts.jsonl'))) {
          const sure = p['stable_prefix_f32_gap_0.01'];
          expect((await greedy(s, p.prompt_ids, sure)).slice(0, sure)).toEqual(p.greedy_ids.slice(0, sure));
        }
      });
    it('adds and knows capitals as often as the reference', async () => {
      const t = await loadTokenizer(join(fixtures, m.name));
      const say = async (ids: readonly number[], count: number): Promise<string> =>
        t.decode((await greedy(s, ids, count)).filter(i => i !== 1));
      const sums = lines<{ prompt_ids: readonly number[]; answer: string }>(join(own, 'skill_addition.jsonl'));
      let right = 0;
      for (const q of sums) if ((await say(q.prompt_ids, 6)) === q.answer) right++;
      expect(right / sums.length).toBe(m.skill);
      const capitals = lines<{ prompt_ids: readonly number[]; key: string }>(join(own, 'capitals.jsonl'));
      let known = 0;
      for (const q of capitals) if ((await say(q.prompt_ids, 24)).includes(q.key)) known++;
      expect(known / capitals.length).toBe(m.capitals);
    });
    for (const [language, want] of Object.entries(m.ppl)) {
      const file = evalText(`ppl_${language}.jsonl`);
      (file ? it : it.skip)(
        file
          ? `perplexity in ${language} is the reference's within 0.1 %`
          : `perplexity in ${language}: skipped, the evaluation texts are not here`,
        async () => {
          const records = lines<{ ids: readonly number[] }>(file as string).map(r => r.ids);
          const { ppl, tokens } = await perplexity(s, records);
          expect(tokens).toBe(reference.ppl[language]!.tokens);
          expect(Math.abs(ppl / want - 1)).toBeLessThan(1e-3);
        },
      );
    }
  });

describe('hkgai-nano, interpreted', () => {
  it('answers as recorded in three languages', async () => {
    const dir = join(fixtures, 'hkgai-nano');
    const s = await openReference(dir, defaultOptions(openCheckpoint(dir).config));
    for (const p of lines<Prompt>(join(own, 'prompts.jsonl')).slice(0, 4)) {
      const sure = p['stable_prefix_f32_gap_0.01'];
      expect((await greedy(s, p.prompt_ids, sure)).slice(0, sure)).toEqual(p.greedy_ids.slice(0, sure));
    }
    await s.close();
  });
  const file = evalText('ppl_yue.jsonl');
  (file ? it : it.skip)(
    file ? 'gives the same perplexity as the program on the first texts' : 'perplexity: skipped, the evaluation texts are not here',
    async () => {
      const dir = join(fixtures, 'hkgai-nano');
      const s = await openReference(dir, defaultOptions(openCheckpoint(dir).config));
      const { ppl } = await perplexity(
        s,
        lines<{ ids: readonly number[] }>(file as string)
          .map(r => r.ids)
          .slice(0, 4),
      );
      expect(ppl).toBeGreaterThan(20);
      expect(ppl).toBeLessThan(200);
      await s.close();
    },
  );
});
