// Text to token ids and back: byte-level BPE as tokenizer.json says it. The merging is @huggingface/tokenizers'; what differs between the regex
// engines of JavaScript and of the format (what counts as white space) is spelled out before it sees a pattern. docs/decisions/0002-tokenizer.md.
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Tokenizer as Library } from '@huggingface/tokenizers';
import { type Problem, problem, Refusal } from '../../ir/problem.js';
import { JsonError, lineAt, parseJson } from './json.js';

const tokenizerMissing = (dir: string): Problem =>
  problem('HK3401', `${dir} has no tokenizer.json`, {
    places: [{ file: `${dir}/tokenizer.json` }],
    why: 'Without it text cannot become token ids.',
    next: 'Fetch tokenizer.json, or speak token ids to the native program (model --tokens).',
  });
const tokenizerBroken = (file: string, what: string, line?: number, shows?: string): Problem =>
  problem('HK3402', `${file} cannot be used: ${what}`, {
    places: [{ file, ...(line === undefined ? {} : { line }), ...(shows === undefined ? {} : { shows }) }],
    next: 'Fetch the file again.',
  });
const tokenizerKind = (file: string, what: string, known: string): Problem =>
  problem('HK4401', `${file}: ${what} is not something that hkgai reads`, {
    places: [{ file }],
    why: `Known: ${known}.`,
    next: 'Speak token ids to the native program (model --tokens).',
  });

export interface Tokenizer {
  /** Ids of a text. Added tokens inside it are found; nothing is put around it. */
  encode(text: string): readonly number[];
  /** Text of ids. Bytes that are no UTF-8 become U+FFFD. */
  decode(ids: readonly number[], options?: { readonly skipSpecial?: boolean }): string;
  /** Text as ids come, never half a character: `push` gives what is complete, `end` the rest. */
  stream(): { push(id: number): string; end(): string };
  idOf(token: string): number | null;
  tokenOf(id: number): string | null;
  /** From tokenizer_config.json, with the config's and the generation config's ids. */
  readonly bos: string | null;
  readonly eos: string | null;
  /** Ids that end an answer. */
  readonly stops: readonly number[];
}

// White_Space of Unicode, which is what \s means to the engines that tokenizers were trained with. JavaScript's has U+FEFF and lacks U+0085.
const white = '\\t-\\r \\u0085\\u00a0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000';
/** A pattern with \s and \S spelled out, inside and outside character classes. */
export function spellWhiteSpace(pattern: string): string {
  let out = '';
  let inClass = false;
  for (let i = 0; i < pattern.length; i++) {
    const c = pattern[i] as string;
    if (c === '\\') {
      const next = pattern[++i] ?? '';
      if (next === 's') out += inClass ? white : `[${white}]`;
      else if (next === 'S' && !inClass) out += `[^${white}]`;
      else out += c + next;
    } else {
      if (c === '[') inClass = true;
      if (c === ']') inClass = false;
      out += c;
    }
  }
  return out;
}

interface Raw {
  readonly [key: string]: unknown;
}
function readJson(file: string, name: string): Raw {
  const text = readFileSync(file, 'utf8');
  try {
    parseJson(text); // duplicate keys and places; the plain value comes from the built-in parser
  } catch (e) {
    if (!(e instanceof JsonError)) throw e;
    const { line, shows } = lineAt(text, e.at);
    throw new Refusal([tokenizerBroken(name, e.message, line, shows)]);
  }
  const value = JSON.parse(text) as unknown;
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw new Refusal([tokenizerBroken(name, 'it is not an object')]);
  return value as Raw;
}
const object = (v: unknown): Raw => (typeof v === 'object' && v !== null ? (v as Raw) : {});

/** Patterns of a pre-tokenizer with white space spelled out; refuses kinds that are not known to be exact. */
function spelled(pre: unknown, file: string): unknown {
  const p = object(pre);
  switch (p.type) {
    case 'Sequence':
      return { ...p, pretokenizers: (p.pretokenizers as readonly unknown[]).map(q => spelled(q, file)) };
    case 'Split': {
      const pattern = object(p.pattern);
      return typeof pattern.Regex === 'string' ? { ...p, pattern: { Regex: spellWhiteSpace(pattern.Regex) } } : p;
    }
    case 'ByteLevel':
    case 'Digits':
      return p;
    default:
      throw new Refusal([tokenizerKind(file, `the pre-tokenizer ${String(p.type)}`, 'Sequence, Split, ByteLevel, Digits')]);
  }
}
const tokenText = (v: unknown): string | null =>
  typeof v === 'string' ? v : typeof object(v).content === 'string' ? (object(v).content as string) : null;
const idList = (v: unknown): readonly number[] =>
  typeof v === 'number' ? [v] : Array.isArray(v) ? v.filter((i): i is number => typeof i === 'number') : [];

/** Read tokenizer.json and what stands beside it. */
export async function loadTokenizer(dir: string): Promise<Tokenizer> {
  const file = join(dir, 'tokenizer.json');
  if (!existsSync(file)) throw new Refusal([tokenizerMissing(dir)]);
  const json = readJson(file, 'tokenizer.json');
  const model = object(json.model);
  if (model.type !== 'BPE') throw new Refusal([tokenizerKind('tokenizer.json', `the model ${String(model.type)}`, 'BPE')]);
  if (typeof model.vocab !== 'object' || !Array.isArray(model.merges))
    throw new Refusal([tokenizerBroken('tokenizer.json', 'model.vocab or model.merges is missing')]);
  const beside = (name: string): Raw => (existsSync(join(dir, name)) ? readJson(join(dir, name), name) : {});
  const config = beside('tokenizer_config.json');
  const { Tokenizer: Make } = await import('@huggingface/tokenizers');
  let library: Library;
  try {
    library = new Make(
      { ...json, pre_tokenizer: spelled(json.pre_tokenizer, 'tokenizer.json') } as never,
      { ...config, clean_up_tokenization_spaces: false, add_bos_token: false, add_eos_token: false } as never,
    );
  } catch (e) {
    if (e instanceof Refusal) throw e;
    throw new Refusal([tokenizerBroken('tokenizer.json', (e as Error).message)]);
  }
  const added = Array.isArray(json.added_tokens) ? (json.added_tokens as readonly Raw[]) : [];
  const ids = new Map<string, number>(Object.entries(model.vocab as Record<string, number>));
  for (const a of added) ids.set(String(a.content), Number(a.id));
  const tokens = new Map([...ids].map(([t, i]) => [i, t]));
  const idOf = (token: string): number | null => ids.get(token) ?? null;
  const eos = tokenText(config.eos_token);
  const eosId = eos === null ? null : idOf(eos);
  const stops = [
    ...new Set([
      ...(eosId === null ? [] : [eosId]),
      ...idList(beside('generation_config.json').eos_token_id),
      ...idList(beside('config.json').eos_token_id),
    ]),
  ];
  const decode = (list: readonly number[], options: { readonly skipSpecial?: boolean } = {}): string =>
    list.length === 0
      ? ''
      : library.decode([...list], { skip_special_tokens: options.skipSpecial === true, clean_up_tokenization_spaces: false });
  return {
    encode: text => (text === '' ? [] : library.encode(text, { add_special_tokens: false }).ids),
    decode,
    stream() {
      let waiting: number[] = [];
      return {
        push(id) {
          waiting.push(id);
          const text = decode(waiting);
          // a character has at most four bytes, each of which may be a token; longer than that it is no character
          if (text.endsWith('\ufffd') && waiting.length < 4) return '';
          waiting = [];
          return text;
        },
        end() {
          const text = decode(waiting);
          waiting = [];
          return text;
        },
      };
    },
    idOf,
    tokenOf: id => tokens.get(id) ?? null,
    bos: tokenText(config.bos_token),
    eos,
    stops,
  };
}
