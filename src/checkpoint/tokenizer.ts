// Text to token ids and back: byte-level BPE as tokenizer.json says it. Cutting and merging are @huggingface/tokenizers'; reading, checking and
// decoding are done here. docs/decisions/0002-tokenizer.md has the reasons and figures.
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Tokenizer as Library } from '@huggingface/tokenizers';
import { type Place, type Problem, Refusal } from '../../ir/problem.js';
import { JsonError, type JsonNode, lineAt, parseJson, plainValue } from './json.js';
import { checkNormalizer, endsInBytes, exactPreTokenizer } from './pre-tokenizer.js';
import { moreBroken, tokenizerBroken, tokenizerKind, tokenizerMissing } from './tokenizer-problems.js';

export interface Tokenizer {
  /**
   * Ids of a text. Added tokens inside it are found. With `addSpecial` the begin and end tokens that tokenizer_config.json asks for are put
   * around it; without, nothing is. A byte that the vocabulary lacks leaves no id, as in the format's own implementation.
   */
  encode(text: string, options?: { readonly addSpecial?: boolean }): readonly number[];
  /** Text of ids. Bytes that are no UTF-8 become U+FFFD; ids without a token (rows that pad the vocabulary) leave nothing. */
  decode(ids: readonly number[], options?: { readonly skipSpecial?: boolean }): string;
  /** Text as ids come, never half a character: `push` gives what is complete, `end` the rest. All pieces together are `decode` of all ids. */
  stream(options?: { readonly skipSpecial?: boolean }): { push(id: number): string; end(): string };
  idOf(token: string): number | null;
  tokenOf(id: number): string | null;
  /** From tokenizer_config.json; where that is silent, by id from generation_config.json or config.json. */
  readonly bos: string | null;
  readonly eos: string | null;
  /** Ids that end an answer: of eos, generation_config.json and config.json. */
  readonly stops: readonly number[];
}

type Members = ReadonlyMap<string, JsonNode>;
interface Document {
  readonly root: JsonNode;
  readonly members: Members;
  at(node: JsonNode | undefined): Place;
}
const membersOf = (n: JsonNode | undefined): Members | null => (n?.value instanceof Map ? (n.value as Members) : null);
const itemsOf = (n: JsonNode | undefined): readonly JsonNode[] | null =>
  Array.isArray(n?.value) ? (n.value as readonly JsonNode[]) : null;

function readDocument(dir: string, name: string): Document {
  const text = readFileSync(join(dir, name), 'utf8');
  let root: JsonNode;
  try {
    root = parseJson(text);
  } catch (e) {
    if (!(e instanceof JsonError)) throw e;
    throw new Refusal([tokenizerBroken(e.message, { file: name, ...lineAt(text, e.at) })]);
  }
  const members = membersOf(root);
  if (members === null) throw new Refusal([tokenizerBroken('it is not an object', { file: name })]);
  return { root, members, at: n => ({ file: name, ...(n === undefined ? {} : lineAt(text, n.key ?? n.at)) }) };
}

// GPT-2's table: printable bytes stand for themselves, the others for U+0100 and on, in order.
const byteOf: ReadonlyMap<string, number> = (() => {
  const printable = (b: number): boolean => (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
  const table = new Map<string, number>();
  let next = 256;
  for (let b = 0; b < 256; b++) table.set(String.fromCodePoint(printable(b) ? b : next++), b);
  return table;
})();
const utf8 = new TextEncoder();
/** Bytes of a token; one that is not written in the table's characters stands for its own text. */
function bytesOf(token: string): Uint8Array {
  const bytes: number[] = [];
  for (const c of token) {
    const b = byteOf.get(c);
    if (b === undefined) return utf8.encode(token);
    bytes.push(b);
  }
  return Uint8Array.from(bytes);
}

interface Vocabulary {
  readonly ids: ReadonlyMap<string, number>;
  /** Pairs, the first to be merged first. */
  readonly merges: readonly (readonly [string, string])[];
  readonly special: ReadonlySet<number>;
}
const isId = (v: unknown): v is number => Number.isInteger(v) && (v as number) >= 0;

/** Vocabulary, merges and added tokens, each entry checked against the others. */
function readVocabulary(
  d: Document,
  broken: (what: string, n?: JsonNode) => void,
  unknown: (what: string, known: string, n?: JsonNode) => void,
): Vocabulary {
  const ids = new Map<string, number>();
  const owners = new Map<number, string>();
  const pairs: (readonly [string, string])[] = [];
  const special = new Set<number>();
  const model = membersOf(d.members.get('model')) ?? new Map<string, JsonNode>();
  const vocab = membersOf(model.get('vocab'));
  const merges = itemsOf(model.get('merges'));
  if (vocab === null || merges === null) {
    broken('model.vocab or model.merges is missing', d.members.get('model'));
    return { ids, merges: pairs, special };
  }
  for (const [token, n] of vocab) {
    if (!isId(n.value)) broken(`the id of ${JSON.stringify(token)} is not a whole number`, n);
    else if (owners.has(n.value)) broken(`${JSON.stringify(owners.get(n.value))} and ${JSON.stringify(token)} share the id ${n.value}`, n);
    else {
      ids.set(token, n.value);
      owners.set(n.value, token);
    }
  }
  for (const n of merges) {
    const pair = typeof n.value === 'string' ? n.value.split(' ') : itemsOf(n)?.map(i => i.value);
    if (pair?.length !== 2 || !pair.every(t => typeof t === 'string' && t !== '')) {
      broken('a merge is not two tokens', n);
      continue;
    }
    pairs.push(pair as [string, string]);
    const lost = [...pair, pair.join('')].find(t => !vocab.has(t as string));
    if (lost !== undefined) broken(`the merge ${pair.join(' ')} needs ${JSON.stringify(lost)}, which is not in the vocabulary`, n);
  }
  for (const n of itemsOf(d.members.get('added_tokens')) ?? []) {
    const m = membersOf(n);
    const [id, token] = [m?.get('id')?.value, m?.get('content')?.value];
    if (!isId(id) || typeof token !== 'string' || token === '') {
      broken('an added token lacks its id or content', n);
      continue;
    }
    const [known, owner] = [ids.get(token), owners.get(id)];
    if (known !== undefined && known !== id)
      broken(`${JSON.stringify(token)} has the id ${known} in the vocabulary and ${id} among added tokens`, n);
    else if (owner !== undefined && owner !== token) broken(`${JSON.stringify(owner)} and ${JSON.stringify(token)} share the id ${id}`, n);
    for (const flag of ['single_word', 'lstrip', 'rstrip'])
      if (m?.get(flag)?.value === true)
        unknown(`${flag} of the added token ${JSON.stringify(token)}`, 'added tokens that match as they are', n);
    ids.set(token, id);
    owners.set(id, token);
    if (m?.get('special')?.value === true) special.add(id);
  }
  return { ids, merges: pairs, special };
}

/** Whether the model is BPE; what it may say besides, a byte-level vocabulary of this family does not use. */
function checkModel(d: Document, unknown: (what: string, known: string, n?: JsonNode) => void): boolean {
  const node = d.members.get('model');
  const model = membersOf(node);
  const type = model?.get('type');
  if (type !== undefined && type.value !== 'BPE') unknown(`the model ${String(type.value)}`, 'BPE', type);
  for (const key of ['continuing_subword_prefix', 'end_of_word_suffix', 'dropout', 'byte_fallback']) {
    const n = model?.get(key);
    if (n !== undefined && n.value !== null && n.value !== '' && n.value !== 0 && n.value !== false)
      unknown(`${key} of the model`, 'byte-level BPE without it', n);
  }
  const decoder = d.members.get('decoder');
  const kind = membersOf(decoder)?.get('type')?.value;
  if (kind !== 'ByteLevel') unknown(`the decoder ${kind === undefined ? 'null' : String(kind)}`, 'ByteLevel', decoder);
  return type === undefined || type.value === 'BPE';
}

const shown = 8;
/** Read tokenizer.json and what stands beside it. Refuses, with every fault found, what it could not follow exactly. */
export async function loadTokenizer(dir: string): Promise<Tokenizer> {
  if (!existsSync(join(dir, 'tokenizer.json'))) throw new Refusal([tokenizerMissing(dir)]);
  const d = readDocument(dir, 'tokenizer.json');
  const faults: Problem[] = [];
  const kinds: Problem[] = [];
  const broken = (what: string, n?: JsonNode): void => void faults.push(tokenizerBroken(what, d.at(n)));
  const unknown = (what: string, known: string, n?: JsonNode): void => void kinds.push(tokenizerKind(what, known, d.at(n)));
  const bpe = checkModel(d, unknown);
  // another kind of model has another kind of vocabulary, which need not be faulted for that
  const { ids, merges, special } = bpe
    ? readVocabulary(d, broken, unknown)
    : { ids: new Map<string, number>(), merges: [], special: new Set<number>() };
  const json = plainValue(d.root) as Readonly<Record<string, unknown>>;
  const preNode = d.members.get('pre_tokenizer');
  const pre = exactPreTokenizer(json.pre_tokenizer, (what, known) => unknown(what, known, preNode));
  if (pre === null && kinds.length === 0) unknown('a text that is not cut', 'pre-tokenizers that end in ByteLevel', preNode);
  else if (kinds.length === 0 && !endsInBytes(pre))
    unknown('a pre-tokenizer without ByteLevel at its end', 'pre-tokenizers that end in ByteLevel', preNode);
  const normalizer = d.members.get('normalizer');
  checkNormalizer(json.normalizer, (what, known) => unknown(what, known, normalizer));
  if (faults.length + kinds.length > 0) {
    const more = faults.length > shown ? [moreBroken(faults.length - shown, 'tokenizer.json')] : [];
    throw new Refusal([...faults.slice(0, shown), ...more, ...kinds]);
  }

  const { Tokenizer: Make } = await import('@huggingface/tokenizers');
  let library: Library;
  try {
    library = new Make(
      {
        normalizer: null,
        added_tokens: [],
        ...json,
        model: { ...(json.model as object), merges },
        pre_tokenizer: pre,
        post_processor: null,
        decoder: null,
      } as never,
      {} as never, // nothing of tokenizer_config.json may change what tokenizer.json says
    );
  } catch (e) {
    throw new Refusal([tokenizerBroken((e as Error).message, d.at(preNode))]);
  }
  const tokens = new Map([...ids].map(([t, i]) => [i, t]));
  const tokenOf = (id: number): string | null => tokens.get(id) ?? null;
  const idOf = (token: string): number | null => ids.get(token) ?? null;

  const around = settings(dir, tokenOf, idOf);
  const bytes = new Map<number, Uint8Array>();
  const nothing = new Uint8Array(0);
  const piece = (id: number, skipSpecial: boolean): Uint8Array => {
    if (skipSpecial && special.has(id)) return nothing;
    const known = bytes.get(id);
    if (known !== undefined) return known;
    const made = bytesOf(tokens.get(id) ?? '');
    bytes.set(id, made);
    return made;
  };
  const stream: Tokenizer['stream'] = ({ skipSpecial = false } = {}) => {
    const text = new TextDecoder('utf-8', { ignoreBOM: true });
    return { push: id => text.decode(piece(id, skipSpecial), { stream: true }), end: () => text.decode() };
  };
  return {
    encode(text, { addSpecial = false } = {}) {
      const inside = text === '' ? [] : library.encode(text, { add_special_tokens: false }).ids;
      return addSpecial ? [...around.before, ...inside, ...around.after] : inside;
    },
    decode(list, { skipSpecial = false } = {}) {
      const parts = list.map(id => piece(id, skipSpecial));
      return new TextDecoder('utf-8', { ignoreBOM: true }).decode(Buffer.concat(parts));
    },
    stream,
    idOf,
    tokenOf,
    bos: around.bos,
    eos: around.eos,
    stops: around.stops,
  };
}

/** Begin and end tokens, from the files beside tokenizer.json. */
function settings(
  dir: string,
  tokenOf: (id: number) => string | null,
  idOf: (token: string) => number | null,
): Pick<Tokenizer, 'bos' | 'eos' | 'stops'> & { readonly before: readonly number[]; readonly after: readonly number[] } {
  const beside = (name: string): Members => (existsSync(join(dir, name)) ? readDocument(dir, name).members : new Map());
  const own = beside('tokenizer_config.json');
  const byId = [beside('generation_config.json'), beside('config.json')];
  const list = (n: JsonNode | undefined): readonly number[] => (itemsOf(n)?.map(i => i.value) ?? [n?.value]).filter(isId);
  const token = (end: 'bos' | 'eos'): string | null => {
    const n = own.get(`${end}_token`);
    const text = membersOf(n)?.get('content')?.value ?? n?.value;
    if (typeof text === 'string') return text;
    const [id] = byId.flatMap(m => list(m.get(`${end}_token_id`)));
    return id === undefined ? null : tokenOf(id);
  };
  const [bos, eos] = [token('bos'), token('eos')];
  const idsOf = (t: string | null): readonly number[] => {
    const id = t === null ? null : idOf(t);
    return id === null ? [] : [id];
  };
  return {
    bos,
    eos,
    stops: [...new Set([...idsOf(eos), ...byId.flatMap(m => list(m.get('eos_token_id')))])],
    before: own.get('add_bos_token')?.value === true ? idsOf(bos) : [],
    after: own.get('add_eos_token')?.value === true ? idsOf(eos) : [],
  };
}
