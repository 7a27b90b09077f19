import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { Refusal } from '../ir/problem.js';
import { possessive } from '../src/checkpoint/pre-tokenizer.js';
import { loadTokenizer, type Tokenizer } from '../src/checkpoint/tokenizer.js';
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
const dir = mkdtempSync(join(tmpdir(), 'hkgai-tokenizer-'));
afterAll(() => rmSync(dir, { recursive: true }));

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
  it('is exact on the answers of the model', () => {
    for (const p of lines<{ greedy_ids: readonly number[]; greedy_text: string }>(`${own}prompts.jsonl`))
      expect(t.decode(p.greedy_ids)).toBe(p.greedy_text);
  });
  it('gives back text that it never saw', () => {
    const rare = '𠝹喺嘅係咗哋𡃁👩‍👩‍👧 \u0000\u0085\ufeff\uffff e\u0301 \u{10ffff}';
    expect(t.decode(t.encode(rare))).toBe(rare);
  });
  it('puts around what tokenizer_config.json asks for, and leaves out what is special', () => {
    expect(t.encode('23+45=?', { addSpecial: true })).toEqual([0, ...t.encode('23+45=?')]);
    expect(t.decode([0, ...t.encode('<｜User｜>a'), 1], { skipSpecial: true })).toBe('<｜User｜>a');
    expect(t.decode([0, 1])).toBe('<｜begin▁of▁sentence｜><｜end▁of▁sentence｜>');
    const s = t.stream({ skipSpecial: true });
    expect([s.push(0), s.push(t.encode('a')[0] as number), s.push(1), s.end()]).toEqual(['', 'a', '', '']);
  });
  it('finds added tokens inside a text', () => expect(t.encode('a<｜User｜>b').map(i => t.tokenOf(i))).toEqual(['a', '<｜User｜>', 'b']));
  it('knows its tokens', () => {
    expect([t.idOf('</think>'), t.tokenOf(2036), t.idOf('no such token'), t.tokenOf(1_000_000)]).toEqual([2036, '</think>', null, null]);
    expect([t.bos, t.eos, t.stops]).toEqual(['<｜begin▁of▁sentence｜>', '<｜end▁of▁sentence｜>', [1]]);
    expect(t.decode([1_000_000, 2036])).toBe('</think>');
  });
});

// GPT-2's table, made by listing rather than by the rule of the source
const table = [...Array(256).keys()].map(b => String.fromCodePoint(b));
let free = 256;
for (const b of [...Array(33).keys(), ...[...Array(34).keys()].map(i => i + 127), 173]) table[b] = String.fromCodePoint(free++);
const spelt = (bytes: Iterable<number>): string => [...bytes].map(b => table[b]).join('');
const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);
const split = (regex: string): unknown => ({ type: 'Split', pattern: { Regex: regex }, behavior: 'Isolated', invert: false });
const byteLevel = { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: false };

type Json = Record<string, unknown>;
/** A tokenizer.json of the single bytes and the tokens named, in this order. */
function tokenizerJson(tokens: readonly string[], pretokenizers: readonly unknown[], rest: Json = {}, model: Json = {}): Json {
  const vocab = Object.fromEntries([...new Set([...table, ...tokens])].map((t, i) => [t, i]));
  return {
    added_tokens: [],
    normalizer: { type: 'Sequence', normalizers: [] },
    pre_tokenizer: { type: 'Sequence', pretokenizers },
    post_processor: null,
    decoder: { type: 'ByteLevel' },
    model: { type: 'BPE', vocab, merges: [], ...model },
    ...rest,
  };
}
async function load(json: unknown): Promise<Tokenizer> {
  writeFileSync(join(dir, 'tokenizer.json'), typeof json === 'string' ? json : JSON.stringify(json, null, 1));
  return loadTokenizer(dir);
}
/** Where a text is cut, seen through the whole tokenizer: every part of it is a token, so that one id is one piece. */
async function pieces(text: string, pretokenizers: readonly unknown[]): Promise<readonly string[]> {
  const characters = [...text];
  const parts = characters.flatMap((_, i) => characters.slice(i).map((_, n) => spelt(bytes(characters.slice(i, i + n + 1).join('')))));
  const t = await load(tokenizerJson(parts, pretokenizers, {}, { ignore_merges: true }));
  return t.encode(text).map(id => t.decode([id]));
}

const v3 = [
  split('\\p{N}{1,3}'),
  split('[一-龥぀-ゟ゠-ヿ]+'),
  split(
    '[!"#$%&\'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+',
  ),
  byteLevel,
];
describe("V3's and V4's cuts", () => {
  const cases: readonly (readonly [why: string, expected: readonly string[]])[] = [
    ['digits by three', ['123', '456', '7']],
    ['digits of any script count together', ['12３', '４٣']],
    ['fractions and circled numbers are numbers', ['x', '½①']],
    ['digits between characters', ['香港', '202', '5', '年']],
    ['Cantonese beyond the basic block is no part of a run', ['𠝹', '手']],
    ['in the middle of a sentence', ['佢', '𠵱', '家', '𡃁', '仔', '，', '食緊飯']],
    ['extension A', ['喺度', '䬰']],
    ['the last of the run and the one after it', ['龥', '龦']],
    ['full-width punctuation', ['你好', '，', '世界', '！']],
    ['full-width letters', ['ｈｉ', '！']],
    ['kana with its length mark and Han in one run', ['カタカナーとひらがな漢字']],
    ['a middle dot is of the run, but punctuation to the step after it', ['ア', '・', 'イ']],
    ['half-width kana are letters', ['カナ', 'ｶﾅ']],
    ['Hangul', ['한국어', ' 말']],
    ['a space goes with the word', ['Hello', ' world']],
    ['of two spaces one', ['a', ' ', ' b']],
    ['tabs too', ['a', '\t', '\tb']],
    ['spaces at the end stay together', ['a', '  ']],
    ['newlines with what is before them', ['x', ' \n', ' y']],
    ['newlines, then spaces', ['x', '\n\n', ' ', ' y']],
    ['carriage returns', ['a', '\r\n\r\n', 'b']],
    ['ASCII punctuation takes letters', ['.foo', '(bar', ')']],
    ['an apostrophe', ['don', "'t"]],
    ['an underscore', ['_foo', '_bar']],
    ['two of them do not', ['a', '==', 'b']],
    ['a space before punctuation', ['a', ' ?', 'b']],
    ['punctuation takes newlines', ['?!\n\n', 'x']],
    ['other quotes take no letters', ['“', 'quote', '”']],
    ['a sign before digits', ['$', '5']],
    ['combining marks belong to letters', ['e\u0301a', ' \u0301']],
    ['U+0085 is white space', ['\u0085\n', 'a']],
    ['U+FEFF is not', ['\ufeff', '\n']],
    ['but goes before letters as anything does', ['a', '\ufeffb']],
    ['an ideographic space', ['\u3000', '好']],
    ['emoji with a skin tone', ['👍🏽!']],
    ['joined emoji come apart', ['👩', '\u200d', '👩', '\u200d', '👧']],
    ['a variation selector is a mark', ['❤', '\ufe0f']],
  ];
  for (const [why, expected] of cases)
    it(`${why}: ${JSON.stringify(expected)}`, async () => expect(await pieces(expected.join(''), v3)).toEqual(expected));
});

// V2's class of letters is longer; the astral range at its end is what needs care
const v2 = [
  split('[\\r\\n]'),
  split('\\s?[A-Za-zµÀ-ÖØ-öø-ƺΑ-ώА-я𐐀-𐑏]+'),
  split('\\s?[!-/:-~！-／：-～‘-‟　-。]+'),
  split('\\s+$'),
  split('[一-龥ࠀ-一가-퟿]+'),
  { type: 'Digits', individual_digits: true },
  byteLevel,
];
describe("V2's cuts", () => {
  const cases: readonly (readonly [why: string, expected: readonly string[]])[] = [
    ['digits one by one', ['a', '1', '2', '3', '4']],
    ['digits of any script', ['１', '２', '٣', '½']],
    ['newlines one by one', ['a', '\n', '\n', 'b', '\r', '\n']],
    ['a space goes with the word', ['Hello', ' world']],
    ['of two spaces one', ['a', ' ', ' b']],
    ['spaces at the end', ['a', '  ']],
    ['spaces at the end of a line', ['a', '  ', '\n', 'b']],
    ['an apostrophe stands alone', ['don', "'", 't']],
    ['letters beyond the basic plane', ['𐐀𐐁', ' x']],
    ['Han, kana and Hangul in one run', ['カナ漢字한글']],
    ['full-width punctuation', ['你好', '，', '世界', '。']],
    ['Cantonese beyond the basic block stays with the space', ['喺度', ' 𠝹']],
    ['U+0085 is white space', ['\u0085a']],
    ['U+FEFF is not', ['\ufeff', 'a']],
  ];
  for (const [why, expected] of cases)
    it(`${why}: ${JSON.stringify(expected)}`, async () => expect(await pieces(expected.join(''), v2)).toEqual(expected));
});

describe('what else a tokenizer.json of this family says', () => {
  it("ByteLevel's own cut has the format's white space", async () => {
    const pre = [{ type: 'ByteLevel', add_prefix_space: false, use_regex: true }];
    expect(await pieces("it's\u0085\u0085x \ufeff٣", pre)).toEqual(['it', "'s", '\u0085', '\u0085', 'x', ' \ufeff', '٣']);
  });
  it('merges in order of rank, the leftmost first', async () => {
    const t = await load(tokenizerJson(['bc', 'ab', 'aa', 'aab'], [byteLevel], {}, { merges: ['b c', 'a b', ['a', 'a'], 'aa b'] }));
    const cut = (text: string): readonly (string | null)[] => t.encode(text).map(t.tokenOf);
    expect(cut('abc')).toEqual(['a', 'bc']);
    expect(cut('aab')).toEqual(['a', 'ab']);
    expect(cut('aaaa')).toEqual(['aa', 'aa']);
    expect(cut('aaa')).toEqual(['aa', 'a']);
  });
  it('merges as the definition does: again and again the pair of lowest rank, the leftmost of them', async () => {
    let seed = 7;
    const below = (n: number): number => {
      seed = (seed * 48271) % 2147483647;
      return seed % n;
    };
    const tokens = ['a', 'b', 'c'];
    const merges: [string, string][] = [];
    while (merges.length < 40) {
      const pair: [string, string] = [tokens[below(tokens.length)] as string, tokens[below(tokens.length)] as string];
      const merged = pair.join('');
      if (merged.length > 6 || tokens.includes(merged)) continue;
      merges.push(pair);
      tokens.push(merged);
    }
    const rank = new Map(merges.map(([x, y], i) => [`${x} ${y}`, i]));
    const byDefinition = (text: string): readonly string[] => {
      let parts = [...text];
      for (;;) {
        const ranks = parts.slice(1).map((p, i) => rank.get(`${parts[i]} ${p}`) ?? Number.POSITIVE_INFINITY);
        const best = Math.min(...ranks);
        if (best === Number.POSITIVE_INFINITY) return parts;
        const at = ranks.indexOf(best);
        parts = [...parts.slice(0, at), `${parts[at]}${parts[at + 1]}`, ...parts.slice(at + 2)];
      }
    };
    const t = await load(tokenizerJson(tokens, [byteLevel], {}, { merges }));
    for (let i = 0; i < 500; i++) {
      const text = Array.from({ length: 1 + below(40) }, () => 'abc'[below(3)]).join('');
      expect(t.encode(text).map(t.tokenOf)).toEqual(byDefinition(text));
    }
  });
  it('merges a long run in less than quadratic time', async () => {
    const t = await load(tokenizerJson(['aa', 'aaaa'], [byteLevel], {}, { merges: ['a a', 'aa aa'] }));
    expect(t.encode('a'.repeat(100_001))).toHaveLength(25_001);
  });
  it('added tokens: the longest that begins first', async () => {
    const added = ['<a>', '<a><b>', 'b><'].map((content, i) => ({ id: 300 + i, content, special: i === 0, normalized: false }));
    const t = await load(tokenizerJson([], [byteLevel], { added_tokens: added }));
    expect(t.encode('<a><b><a>').map(t.tokenOf)).toEqual(['<a><b>', '<a>']);
  });
  it('a normalizer', async () => {
    const t = await load(tokenizerJson([], [byteLevel], { normalizer: { type: 'NFC' } }));
    expect(t.decode(t.encode('e\u0301'))).toBe('\u00e9');
  });
  it('streams tokens that end inside characters and begin in the middle of others', async () => {
    const b = bytes('喺度嘅');
    const cuts = [b.slice(0, 1), b.slice(1, 5), b.slice(5, 9)].map(spelt);
    const t = await load(tokenizerJson(cuts, [byteLevel]));
    const s = t.stream();
    expect(cuts.map(c => s.push(t.idOf(c) as number))).toEqual(['', '喺', '度嘅']);
    expect(s.end()).toBe('');
  });
  it('says at the end that a character was left unfinished', async () => {
    const t = await load(tokenizerJson([], [byteLevel]));
    const s = t.stream();
    expect([...bytes('喺').slice(0, 2)].map(b => s.push(t.idOf(table[b] as string) as number))).toEqual(['', '']);
    expect(s.end()).toBe('\ufffd');
  });
  it('ends of sentences from generation_config.json where tokenizer_config.json is silent', async () => {
    writeFileSync(join(dir, 'generation_config.json'), '{"bos_token_id": 65, "eos_token_id": [66, 67]}');
    const t = await load(tokenizerJson([], [byteLevel]));
    rmSync(join(dir, 'generation_config.json'));
    expect([t.bos, t.eos, t.stops]).toEqual([table[65], table[66], [66, 67]]);
  });
});

describe('a tokenizer that cannot be used', () => {
  const refused = async (json: unknown): Promise<string> => {
    try {
      await load(json);
    } catch (e) {
      expect(e).toBeInstanceOf(Refusal);
      return (e as Refusal).message.replaceAll(dir, 'model');
    }
    return 'was accepted';
  };
  it('is not there', async () => {
    rmSync(join(dir, 'tokenizer.json'), { force: true });
    await expect(loadTokenizer(dir)).rejects.toThrow(
      `HK3401  ${dir} has no tokenizer.json\n  ${dir}/tokenizer.json\nWithout it text cannot become token ids.\nFetch tokenizer.json. Speak token ids to the native program (model --tokens).   hkgai explain HK3401`,
    );
  });
  it('is no JSON', async () =>
    expect(await refused('{\n  "model": }')).toBe(
      'HK3402  tokenizer.json cannot be used: "}" where a value was expected\n  tokenizer.json:2   "model": }\nFetch the file again.   hkgai explain HK3402',
    ));
  it('says a key twice', async () =>
    expect(await refused('{"model": {}, "model": {}}')).toBe(
      'HK3402  tokenizer.json cannot be used: the key "model" stands twice in one object\n  tokenizer.json:1   {"model": {}, "model": {}}\nFetch the file again.   hkgai explain HK3402',
    ));
  it('is a list', async () =>
    expect(await refused('[]')).toBe(
      'HK3402  tokenizer.json cannot be used: it is not an object\n  tokenizer.json\nFetch the file again.   hkgai explain HK3402',
    ));
  it('is another kind of model, decoded otherwise', async () =>
    expect(
      await refused(tokenizerJson([], [byteLevel], { decoder: { type: 'Metaspace' } }, { type: 'Unigram', vocab: [], merges: undefined })),
    ).toBe(
      'HK4401  tokenizer.json: the model Unigram is not something that hkgai reads\n  tokenizer.json:23   "type": "Unigram",\nKnown: BPE.\nSpeak token ids to the native program (model --tokens).   hkgai explain HK4401\n\n' +
        'HK4401  tokenizer.json: the decoder Metaspace is not something that hkgai reads\n  tokenizer.json:19   "decoder": {\nKnown: ByteLevel.\nSpeak token ids to the native program (model --tokens).   hkgai explain HK4401',
    ));
  const whats = (text: string): readonly string[] => text.split('\n').filter(l => l.startsWith('HK'));
  it('has no merges', async () =>
    expect(whats(await refused(tokenizerJson([], [byteLevel], {}, { merges: undefined })))).toEqual([
      'HK3402  tokenizer.json cannot be used: model.vocab or model.merges is missing',
    ]));
  it('contradicts itself, everywhere at once', async () => {
    const json = tokenizerJson(['ab'], [byteLevel], {
      added_tokens: [{ id: 7, content: '<x>' }, { id: 400, content: 'ab' }, { content: '<y>' }],
    });
    const model = json.model as { vocab: Record<string, unknown>; merges: unknown[] };
    model.vocab.same = 256;
    model.vocab.half = 0.5;
    model.merges.push('a b', 'a c', 'a', 'a b c', ['x']);
    expect(whats(await refused(json))).toEqual([
      'HK3402  tokenizer.json cannot be used: "ab" and "same" share the id 256',
      'HK3402  tokenizer.json cannot be used: the id of "half" is not a whole number',
      'HK3402  tokenizer.json cannot be used: the merge a c needs "ac", which is not in the vocabulary',
      'HK3402  tokenizer.json cannot be used: a merge is not two tokens',
      'HK3402  tokenizer.json cannot be used: a merge is not two tokens',
      'HK3402  tokenizer.json cannot be used: a merge is not two tokens',
      `HK3402  tokenizer.json cannot be used: ${JSON.stringify(table[7])} and "<x>" share the id 7`,
      'HK3402  tokenizer.json cannot be used: "ab" has the id 256 in the vocabulary and 400 among added tokens',
      'HK3403  tokenizer.json has 1 more of these faults',
    ]);
  });
  it('cuts, normalizes or matches in ways that would not be exact', async () => {
    const merged = { type: 'Split', pattern: { String: ' ' }, behavior: 'MergedWithNext', invert: false };
    const inverted = { type: 'Split', pattern: { Regex: '\\s' }, behavior: 'Isolated', invert: true };
    const json = tokenizerJson(
      [],
      [{ type: 'Metaspace' }, merged, inverted, split('\\p{L}++|[+*]+'), { ...byteLevel, add_prefix_space: true }],
      { normalizer: { type: 'Lowercase' }, added_tokens: [{ id: 300, content: '<x>', lstrip: true }] },
      { byte_fallback: true },
    );
    expect(whats(await refused(json)).map(w => w.replace(' is not something that hkgai reads', ''))).toEqual([
      'HK4401  tokenizer.json: byte_fallback of the model',
      'HK4401  tokenizer.json: lstrip of the added token "<x>"',
      'HK4401  tokenizer.json: the pre-tokenizer Metaspace',
      'HK4401  tokenizer.json: the Split behavior MergedWithNext',
      'HK4401  tokenizer.json: the Split behavior Isolated with invert',
      'HK4401  tokenizer.json: ++ in the pattern \\p{L}++|[+*]+',
      'HK4401  tokenizer.json: ByteLevel with add_prefix_space',
      'HK4401  tokenizer.json: the normalizer Lowercase',
    ]);
  });
  it('does not end in bytes, or is not cut at all', async () => {
    expect(whats(await refused(tokenizerJson([], [split('a')])))).toEqual([
      'HK4401  tokenizer.json: a pre-tokenizer without ByteLevel at its end is not something that hkgai reads',
    ]);
    expect(whats(await refused(tokenizerJson([], [], { pre_tokenizer: null })))).toEqual([
      'HK4401  tokenizer.json: a text that is not cut is not something that hkgai reads',
    ]);
  });
  it('has a pattern that is none', async () =>
    expect(whats(await refused(tokenizerJson([], [split('(a'), byteLevel])))).toEqual([
      'HK3402  tokenizer.json cannot be used: Invalid regular expression: /(a/gu: Unterminated group',
    ]));
  it('possessive quantifiers are told from plus signs in a class', () =>
    expect([possessive('a++'), possessive('[+*?+]+'), possessive('\\++'), possessive('(?>a)'), possessive('a?+b')]).toEqual([
      '++',
      null,
      null,
      '(?>',
      '?+',
    ]));
});
