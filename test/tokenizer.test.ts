import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { type Message, renderChat } from '../src/checkpoint/prompt.js';
import { loadTokenizer, spellWhiteSpace, type Tokenizer } from '../src/checkpoint/tokenizer.js';
import { evalText } from './eval-text.js';

const nano = fileURLToPath(new URL('../fixtures/hkgai-nano', import.meta.url));
const own = fileURLToPath(new URL('../fixtures/eval/', import.meta.url));
const lines = <T>(file: string): readonly T[] =>
  readFileSync(file, 'utf8')
    .trim()
    .split('\n')
    .map(l => JSON.parse(l) as T);
interface Vector {
  readonly text: string;
  readonly ids: readonly number[];
  readonly decoded?: string;
}

describe('the tokenizer of hkgai-nano', () => {
  let t: Tokenizer;
  beforeAll(async () => {
    t = await loadTokenizer(nano);
  });
  const check = (vectors: readonly Vector[]): void => {
    expect(vectors.map(v => t.encode(v.text))).toEqual(vectors.map(v => v.ids));
    for (const v of vectors) {
      expect(t.decode(v.ids)).toBe(v.decoded ?? v.text);
      const s = t.stream();
      expect(v.ids.map(id => s.push(id)).join('') + s.end()).toBe(v.decoded ?? v.text);
    }
  };
  it('is exact on its vectors', () => check(lines<Vector>(`${own}tokenizer_golden.jsonl`)));
  const text = evalText('tokenizer_golden_text.jsonl');
  (text === null ? it.skip : it)(text === null ? 'skipped: the evaluation texts are not here' : 'is exact on the evaluation texts', () =>
    check(lines<Vector>(text as string)),
  );
  it('never gives half a character', () => {
    const s = t.stream();
    for (const id of t.encode('𠝹喺嘅係咗哋𡃁👩‍👩‍👧')) expect(s.push(id)).not.toContain('\ufffd');
  });
  it('finds added tokens inside a text', () => expect(t.encode('a<｜User｜>b')).toContain(t.idOf('<｜User｜>')));
  it('knows what ends an answer', () => expect(t.stops).toEqual([1]));
  it('chat template is exact', async () => {
    for (const g of JSON.parse(readFileSync(`${own}chat_template_golden.json`, 'utf8')) as readonly {
      messages: Message[];
      add_generation_prompt: boolean;
      rendered: string;
      ids: number[];
    }[]) {
      const rendered = await renderChat(nano, g.messages, t, { addGenerationPrompt: g.add_generation_prompt });
      expect(rendered).toBe(g.rendered);
      expect(t.encode(rendered)).toEqual(g.ids);
    }
  });
});

/** A tokenizer whose every byte is a token and which merges nothing but what is given: its splits show in what it may merge. */
const v3 = [
  '\\p{N}{1,3}',
  '[一-龥぀-ゟ゠-ヿ]+',
  '[!"#$%&\'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+',
];
/** Pieces that a sequence of isolating patterns leaves, in plain words: what matches stands alone, and so does what is between. */
function pieces(text: string, patterns: readonly string[]): readonly string[] {
  return patterns.reduce<readonly string[]>(
    (parts, p) => {
      const r = new RegExp(spellWhiteSpace(p), 'gu');
      return parts.flatMap(part => {
        const out: string[] = [];
        let at = 0;
        for (const m of part.matchAll(r)) {
          if (m.index > at) out.push(part.slice(at, m.index));
          if (m[0] !== '') out.push(m[0]);
          at = m.index + m[0].length;
        }
        if (at < part.length) out.push(part.slice(at));
        return out;
      });
    },
    [text],
  );
}
describe("V3 and V4's splits", () => {
  const cases: readonly (readonly [string, readonly string[]])[] = [
    ['1234567', ['123', '456', '7']],
    ['香港2025年', ['香港', '202', '5', '年']],
    ['𠝹手', ['𠝹', '手']],
    ['喺度䬰', ['喺度', '䬰']],
    ['Hello world', ['Hello', ' world']],
    ['a  b', ['a', ' ', ' b']],
    ['x\n\n  y', ['x', '\n\n', ' ', ' y']],
    ['.foo(bar)', ['.foo', '(bar', ')']],
    ["don't", ['don', "'t"]],
    ['a\u0085b', ['a', '\u0085b']],
    ['a\ufeffb', ['a', '\ufeffb']],
    ['カタカナと漢字', ['カタカナと漢字']],
    ['é', ['é']],
    ['👍!', ['👍!']],
  ];
  for (const [text, expected] of cases) it(JSON.stringify(text), () => expect(pieces(text, v3)).toEqual(expected));
  it('counts U+0085 and not U+FEFF as white space', () => {
    const r = new RegExp(`^${spellWhiteSpace('\\s')}$`, 'u');
    expect([r.test('\u0085'), r.test('\ufeff'), r.test('\u3000'), r.test('a')]).toEqual([true, false, true, false]);
    expect(new RegExp(`^${spellWhiteSpace('[^\\s]')}$`, 'u').test('\ufeff')).toBe(true);
    expect(new RegExp(`^${spellWhiteSpace('\\S')}$`, 'u').test('\u0085')).toBe(false);
  });
});

describe('a tokenizer that cannot be used', () => {
  const dir = mkdtempSync(join(tmpdir(), 'hkgai-tokenizer-'));
  afterAll(() => rmSync(dir, { recursive: true }));
  const refuses = async (text: string | null, message: RegExp): Promise<void> => {
    if (text === null) rmSync(join(dir, 'tokenizer.json'), { force: true });
    else writeFileSync(join(dir, 'tokenizer.json'), text);
    await expect(loadTokenizer(dir)).rejects.toThrow(message);
  };
  it('is not there', () => refuses(null, /HK3401 {2}.* has no tokenizer.json/));
  it('is no JSON', () =>
    refuses('{"model": }', /HK3402 {2}tokenizer.json cannot be used: "}" where a value was expected\n {2}tokenizer.json:1/));
  it('says a key twice', () => refuses('{"model": {}, "model": {}}', /the key "model" stands twice/));
  it('is another kind of model', () => refuses('{"model": {"type": "Unigram"}}', /HK4401 .*the model Unigram/));
  it('has no merges', () => refuses('{"model": {"type": "BPE", "vocab": {}}}', /model.vocab or model.merges is missing/));
  it('has another pre-tokenizer', () =>
    refuses(
      '{"model": {"type": "BPE", "vocab": {}, "merges": []}, "pre_tokenizer": {"type": "Metaspace"}}',
      /HK4401 .*the pre-tokenizer Metaspace/,
    ));
});
