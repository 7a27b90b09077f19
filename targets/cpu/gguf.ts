// GGUF, version 3: the header's bytes, a reader that takes nothing on trust (ggml-org/ggml@d99724f2 docs/gguf.md), and names of text cuts.

/** A file or a list that is no GGUF. `rule` is a key of ggufRules. */
export class GgufError extends Error {
  readonly rule: string;
  constructor(rule: keyof typeof ggufRules, what: string) {
    super(`${rule}: ${what}`);
    this.name = 'GgufError';
    this.rule = rule;
  }
}
export const ggufRules = {
  G1: 'the first four bytes are GGUF',
  G2: 'the version is 3',
  G3: 'no count, length, dim or offset leads past the end of the file',
  G4: 'types of values are the thirteen that the format has, and no array holds arrays',
  G5: 'keys are 1 to 65535 bytes of ASCII',
  G6: 'no key stands twice',
  G7: 'a bool is 0 or 1',
  G8: 'strings are UTF-8',
  G9: 'general.alignment is a u32, a power of two and at least 8',
  G10: 'a tensor’s name has 1 to 63 bytes: llama.cpp keeps 64 with the end mark',
  G11: 'no tensor’s name stands twice',
  G12: 'a tensor has 1 to 4 dims, each at least 1',
  G13: 'a tensor’s type is one that is known here',
  G14: 'the first dim is a whole number of blocks',
  G15: 'a tensor begins at a multiple of the alignment',
  G16: 'no two tensors share bytes',
  G17: 'a tensor begins where the padding of the one before ends: llama.cpp takes no holes and no other order',
  G18: 'nothing follows the last tensor but its padding',
  G19: 'the bytes that are said of a tensor are those of its type and dims',
  G20: 'a number fits its type',
} as const;

export const numberTypes = { u8: 0, i8: 1, u16: 2, i16: 3, u32: 4, i32: 5, f32: 6, f64: 12 } as const;
export const bigTypes = { u64: 10, i64: 11 } as const;
const boolType = 7;
const stringType = 8;
const arrayType = 9;
export type GgufNumberType = keyof typeof numberTypes;
export type GgufBigType = keyof typeof bigTypes;
/** A value with the type it is written as. */
export type GgufValue =
  | { readonly type: GgufNumberType; readonly value: number }
  | { readonly type: GgufBigType; readonly value: bigint }
  | { readonly type: 'bool'; readonly value: boolean }
  | { readonly type: 'string'; readonly value: string }
  | { readonly type: 'array'; readonly of: GgufNumberType; readonly value: readonly number[] }
  | { readonly type: 'array'; readonly of: GgufBigType; readonly value: readonly bigint[] }
  | { readonly type: 'array'; readonly of: 'bool'; readonly value: readonly boolean[] }
  | { readonly type: 'array'; readonly of: 'string'; readonly value: readonly string[] };

export type GgufTypeName = 'F32' | 'F16' | 'BF16' | 'I32' | 'Q8_0' | 'Q4_0' | 'MXFP4';
/** Number in the file, elements of a block, bytes of a block (ggml.h:390-433, ggml-common.h). */
export const ggufTypes: Readonly<Record<GgufTypeName, { readonly id: number; readonly elements: number; readonly bytes: number }>> = {
  F32: { id: 0, elements: 1, bytes: 4 },
  F16: { id: 1, elements: 1, bytes: 2 },
  Q4_0: { id: 2, elements: 32, bytes: 18 },
  Q8_0: { id: 8, elements: 32, bytes: 34 },
  I32: { id: 26, elements: 1, bytes: 4 },
  BF16: { id: 30, elements: 1, bytes: 2 },
  MXFP4: { id: 39, elements: 32, bytes: 17 },
};
export const ggufTypeName = (id: number): GgufTypeName | null =>
  (Object.keys(ggufTypes) as GgufTypeName[]).find(n => ggufTypes[n].id === id) ?? null;

export interface GgufTensor {
  readonly name: string;
  /** ne order: the fastest first, the reverse of a safetensors shape. */
  readonly dims: readonly number[];
  readonly type: number;
  readonly bytes: number;
}
/** Bytes of a tensor; throws where type or dims are not to be had. */
export function ggufBytes(name: string, type: number, dims: readonly number[]): number {
  if (dims.length < 1 || dims.length > 4 || dims.some(d => !Number.isSafeInteger(d) || d < 1))
    throw new GgufError('G12', `${name} has dims [${dims.join(', ')}]`);
  const known = ggufTypeName(type);
  if (known === null) throw new GgufError('G13', `${name} has type ${type}`);
  const t = ggufTypes[known];
  if (dims[0]! % t.elements !== 0) throw new GgufError('G14', `${name}: ${known} has blocks of ${t.elements}, the first dim is ${dims[0]}`);
  const bytes = dims.reduce((a, b) => a * b, 1 / t.elements) * t.bytes;
  if (!Number.isSafeInteger(bytes)) throw new GgufError('G3', `${name} with dims [${dims.join(', ')}] has more bytes than a file can`);
  return bytes;
}

const alignUp = (n: number, to: number): number => Math.ceil(n / to) * to;
const utf8 = new TextEncoder();
const ascii = /^[\x21-\x7e]+$/;
function checkKey(key: string): void {
  if (!ascii.test(key) || key.length > 65535)
    throw new GgufError('G5', `the key ${JSON.stringify(key.slice(0, 80))} is empty, too long or not ASCII`);
}
function checkName(name: string, bytes: number): void {
  if (bytes < 1 || bytes > 63) throw new GgufError('G10', `the tensor ${JSON.stringify(name.slice(0, 80))} has a name of ${bytes} bytes`);
}
function checkAlignment(n: number): void {
  if (!Number.isInteger(n) || n < 8 || n > 2 ** 31 || (n & (n - 1)) !== 0) throw new GgufError('G9', `an alignment of ${n}`);
}

// ---- writing

class Writer {
  #bytes = new Uint8Array(1 << 16);
  #view = new DataView(this.#bytes.buffer);
  length = 0;
  #at(n: number): number {
    const from = this.length;
    this.length += n;
    if (this.length > this.#bytes.length) {
      const more = new Uint8Array(Math.max(this.length, this.#bytes.length * 2));
      more.set(this.#bytes);
      this.#bytes = more;
      this.#view = new DataView(more.buffer);
    }
    return from;
  }
  raw(b: Uint8Array): void {
    const at = this.#at(b.length);
    this.#bytes.set(b, at);
  }
  pad(to: number): void {
    this.#at(alignUp(this.length, to) - this.length);
  }
  big(v: bigint, signed = false): void {
    if (v !== (signed ? BigInt.asIntN(64, v) : BigInt.asUintN(64, v))) throw new GgufError('G20', `${v} has more than 64 bits`);
    const at = this.#at(8);
    this.#view.setBigUint64(at, BigInt.asUintN(64, v), true);
  }
  text(s: string): void {
    if (/[\ud800-\udfff]/u.test(s)) throw new GgufError('G8', `${JSON.stringify(s.slice(0, 80))} has half a surrogate pair`);
    const b = utf8.encode(s);
    this.big(BigInt(b.length));
    this.raw(b);
  }
  number(type: GgufNumberType, v: number): void {
    const whole = type !== 'f32' && type !== 'f64';
    const bits = Number(type.slice(1));
    const low = type.startsWith('i') ? -(2 ** (bits - 1)) : 0;
    if (whole && !(Number.isInteger(v) && v >= low && v < low + 2 ** bits)) throw new GgufError('G20', `${v} is no ${type}`);
    const at = this.#at(bits / 8);
    if (type === 'f32') this.#view.setFloat32(at, v, true);
    else if (type === 'f64') this.#view.setFloat64(at, v, true);
    else if (bits === 8) this.#view.setUint8(at, v & 0xff);
    else if (bits === 16) this.#view.setUint16(at, v & 0xffff, true);
    else this.#view.setUint32(at, v >>> 0, true);
  }
  bool(v: boolean): void {
    this.number('u8', v ? 1 : 0);
  }
  value(v: GgufValue): void {
    this.number('u32', v.type === 'array' ? arrayType : typeId(v.type));
    if (v.type !== 'array') {
      this.#one(v.type, v.value);
      return;
    }
    this.number('u32', typeId(v.of));
    this.big(BigInt(v.value.length));
    for (const e of v.value) this.#one(v.of, e);
  }
  #one(type: Exclude<GgufValue['type'], 'array'>, v: number | bigint | boolean | string): void {
    if (type === 'string') this.text(v as string);
    else if (type === 'bool') this.bool(v as boolean);
    else if (type === 'u64' || type === 'i64') this.big(v as bigint, type === 'i64');
    else this.number(type, v as number);
  }
  done(): Uint8Array {
    return this.#bytes.slice(0, this.length);
  }
}
const typeId = (t: Exclude<GgufValue['type'], 'array'>): number =>
  t === 'string' ? stringType : t === 'bool' ? boolType : t === 'u64' || t === 'i64' ? bigTypes[t] : numberTypes[t];

/** All bytes up to the data section, where each tensor begins (absolute), and the file's size; each tensor is padded, the last too. */
export function ggufHeader(
  kv: readonly (readonly [string, GgufValue])[],
  tensors: readonly GgufTensor[],
  alignment = 32,
): { readonly bytes: Uint8Array; readonly offsets: readonly number[]; readonly total: number } {
  checkAlignment(alignment);
  const w = new Writer();
  w.raw(utf8.encode('GGUF'));
  w.number('u32', 3);
  w.big(BigInt(tensors.length));
  w.big(BigInt(kv.length));
  const keys = new Set<string>();
  for (const [key, v] of kv) {
    checkKey(key);
    if (keys.has(key)) throw new GgufError('G6', `the key ${key} stands twice`);
    keys.add(key);
    if (key === 'general.alignment' && !(v.type === 'u32' && v.value === alignment))
      throw new GgufError('G9', `general.alignment is not the u32 ${alignment} that the file is written with`);
    w.text(key);
    w.value(v);
  }
  if (alignment !== 32 && !keys.has('general.alignment'))
    throw new GgufError('G9', `an alignment of ${alignment} without general.alignment`);
  const names = new Set<string>();
  const relative: number[] = [];
  let end = 0;
  for (const t of tensors) {
    checkName(t.name, utf8.encode(t.name).length);
    if (names.has(t.name)) throw new GgufError('G11', `the tensor ${t.name} stands twice`);
    names.add(t.name);
    const bytes = ggufBytes(t.name, t.type, t.dims);
    if (bytes !== t.bytes) throw new GgufError('G19', `${t.name} has ${bytes} bytes, not ${t.bytes}`);
    w.text(t.name);
    w.number('u32', t.dims.length);
    for (const d of t.dims) w.big(BigInt(d));
    w.number('u32', t.type);
    w.big(BigInt(end));
    relative.push(end);
    end = alignUp(end + bytes, alignment);
  }
  w.pad(alignment);
  return { bytes: w.done(), offsets: relative.map(o => o + w.length), total: w.length + end };
}

// ---- reading

/** A file that is read in pieces: bytes [from, to). */
export interface GgufSource {
  readonly size: number;
  read(from: number, to: number): Uint8Array;
}
export interface GgufFile {
  readonly kv: ReadonlyMap<string, GgufValue>;
  /** Offsets are absolute. */
  readonly tensors: readonly (GgufTensor & { readonly offset: number })[];
  readonly alignment: number;
  /** Where the data section begins. */
  readonly data: number;
}

const window = 1 << 20;
class Reader {
  at = 0;
  #from = 0;
  #bytes: Uint8Array = new Uint8Array(0);
  readonly #source: GgufSource;
  readonly #strict = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
  constructor(source: GgufSource) {
    this.#source = source;
  }
  take(n: number, what: string): DataView {
    if (n > this.#source.size - this.at) throw new GgufError('G3', `${what} leads past the end, at byte ${this.at}`);
    if (this.at < this.#from || this.at + n > this.#from + this.#bytes.length) {
      this.#from = this.at;
      this.#bytes = this.#source.read(this.at, Math.min(this.#source.size, this.at + Math.max(n, window)));
    }
    const view = new DataView(this.#bytes.buffer, this.#bytes.byteOffset + this.at - this.#from, n);
    this.at += n;
    return view;
  }
  u32(what: string): number {
    return this.take(4, what).getUint32(0, true);
  }
  /** A u64 that counts something in this file: no more than `most`. */
  count(what: string, most = this.#source.size): number {
    const v = this.take(8, what).getBigUint64(0, true);
    if (v > BigInt(most)) throw new GgufError('G3', `${what} says ${v}, and the file ends before that`);
    return Number(v);
  }
  /** n things of at least `each` bytes. */
  many(what: string, each: number): number {
    const n = this.count(what);
    if (n * each > this.#source.size - this.at) throw new GgufError('G3', `${what} says ${n}, and the file ends before that`);
    return n;
  }
  text(what: string): { readonly text: string; readonly bytes: number } {
    const n = this.many(`the length of ${what}`, 1);
    const v = this.take(n, what);
    try {
      return { text: this.#strict.decode(v), bytes: n };
    } catch {
      throw new GgufError('G8', `${what} is no UTF-8`);
    }
  }
  number(type: GgufNumberType, what: string): number {
    const v = this.take(Number(type.slice(1)) / 8, what);
    switch (type) {
      case 'u8':
        return v.getUint8(0);
      case 'i8':
        return v.getInt8(0);
      case 'u16':
        return v.getUint16(0, true);
      case 'i16':
        return v.getInt16(0, true);
      case 'u32':
        return v.getUint32(0, true);
      case 'i32':
        return v.getInt32(0, true);
      case 'f32':
        return v.getFloat32(0, true);
      case 'f64':
        return v.getFloat64(0, true);
    }
  }
  big(type: GgufBigType, what: string): bigint {
    const v = this.take(8, what);
    return type === 'u64' ? v.getBigUint64(0, true) : v.getBigInt64(0, true);
  }
  bool(what: string): boolean {
    const v = this.number('u8', what);
    if (v > 1) throw new GgufError('G7', `${what} is ${v}`);
    return v === 1;
  }
  value(key: string): GgufValue {
    const id = this.u32(`the type of ${key}`);
    if (id !== arrayType) {
      const type = typeOf(id, key);
      if (type === 'string') return { type, value: this.text(key).text };
      if (type === 'bool') return { type, value: this.bool(key) };
      if (type === 'u64' || type === 'i64') return { type, value: this.big(type, key) };
      return { type, value: this.number(type, key) };
    }
    const of = typeOf(this.u32(`the type of ${key}`), key);
    const n = this.many(
      `the length of ${key}`,
      of === 'string' || of === 'u64' || of === 'i64' ? 8 : of === 'bool' ? 1 : Number(of.slice(1)) / 8,
    );
    const all = <T>(one: () => T): readonly T[] => Array.from({ length: n }, one);
    if (of === 'string') return { type: 'array', of, value: all(() => this.text(key).text) };
    if (of === 'bool') return { type: 'array', of, value: all(() => this.bool(key)) };
    if (of === 'u64' || of === 'i64') return { type: 'array', of, value: all(() => this.big(of, key)) };
    return { type: 'array', of, value: all(() => this.number(of, key)) };
  }
}
function typeOf(id: number, key: string): Exclude<GgufValue['type'], 'array'> {
  const t = ([...Object.keys(numberTypes), ...Object.keys(bigTypes), 'bool', 'string'] as Exclude<GgufValue['type'], 'array'>[]).find(
    n => typeId(n) === id,
  );
  if (t === undefined) throw new GgufError('G4', `${key} has a value of type ${id}`);
  return t;
}

/** Reads the header and checks every rule; the tensors' bytes are not read. */
export function readGguf(source: Uint8Array | GgufSource): GgufFile {
  const from: GgufSource = source instanceof Uint8Array ? { size: source.length, read: (a, b) => source.subarray(a, b) } : source;
  const r = new Reader(from);
  const magic = r.take(4, 'the magic');
  if (magic.getUint32(0, false) !== 0x47475546) throw new GgufError('G1', 'the file begins with something else');
  const version = r.u32('the version');
  if (version !== 3) throw new GgufError('G2', `version ${version}`);
  const tensorCount = r.many('the count of tensors', 32);
  const kvCount = r.many('the count of keys', 13);
  const kv = new Map<string, GgufValue>();
  for (let i = 0; i < kvCount; i++) {
    const key = r.text('a key').text;
    checkKey(key);
    if (kv.has(key)) throw new GgufError('G6', `the key ${key} stands twice`);
    kv.set(key, r.value(key));
  }
  const said = kv.get('general.alignment');
  if (said !== undefined && said.type !== 'u32') throw new GgufError('G9', `general.alignment is of type ${said.type}`);
  const alignment = said?.type === 'u32' ? said.value : 32;
  checkAlignment(alignment);
  const infos: (GgufTensor & { readonly offset: number })[] = [];
  const names = new Set<string>();
  for (let i = 0; i < tensorCount; i++) {
    const { text: name, bytes: long } = r.text('a tensor’s name');
    checkName(name, long);
    if (names.has(name)) throw new GgufError('G11', `the tensor ${name} stands twice`);
    names.add(name);
    const n = r.u32(`the number of dims of ${name}`);
    if (n < 1 || n > 4) throw new GgufError('G12', `${name} has ${n} dims`);
    const dims = Array.from({ length: n }, () => r.count(`a dim of ${name}`, Number.MAX_SAFE_INTEGER));
    const type = r.u32(`the type of ${name}`);
    infos.push({ name, dims, type, bytes: ggufBytes(name, type, dims), offset: r.count(`the offset of ${name}`) });
  }
  const data = alignUp(r.at, alignment);
  for (const t of infos) {
    if (t.offset % alignment !== 0)
      throw new GgufError('G15', `${t.name} begins at ${t.offset} of the data; the alignment is ${alignment}`);
    if (data + t.offset + t.bytes > from.size)
      throw new GgufError('G3', `${t.name} ends at ${data + t.offset + t.bytes} of ${from.size} bytes`);
  }
  const sorted = [...infos].sort((a, b) => a.offset - b.offset);
  sorted.forEach((t, i) => {
    const before = sorted[i - 1];
    if (before && before.offset + before.bytes > t.offset) throw new GgufError('G16', `${before.name} and ${t.name} share bytes`);
  });
  let end = 0;
  let last = 0;
  for (const t of infos) {
    if (t.offset !== end) throw new GgufError('G17', `${t.name} begins at ${t.offset} of the data, not at ${end}`);
    last = end + t.bytes;
    end = alignUp(last, alignment);
  }
  if (from.size > data + end || (infos.length > 0 && from.size < data + last))
    throw new GgufError('G18', `the file has ${from.size} bytes, and its tensors end at ${data + end}`);
  return { kv, tensors: infos.map(t => ({ ...t, offset: data + t.offset })), alignment, data };
}

// ---- names

type Json = Readonly<Record<string, unknown>>;
export const jsonObject = (v: unknown): Json => (typeof v === 'object' && v !== null && !Array.isArray(v) ? (v as Json) : {});
export const jsonList = (v: unknown): readonly unknown[] => (Array.isArray(v) ? v : []);

/** Patterns of the cuts that llama.cpp has by name (src/llama-vocab.cpp, llm_tokenizer_bpe); a pattern that ends in … is a beginning. */
const contraction = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+";
const ending = '| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+';
const cuts: Readonly<Record<string, readonly string[]>> = {
  'deepseek-v3': [
    '\\p{N}{1,3}',
    '[一-龥\u3040-ゟ゠-ヿ]+',
    '[!"#$%&\'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*' +
      '|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+',
  ],
  'deepseek-llm': ['[\\r\\n]', '\\s?[A-Za-zµÀ-ÖØ-öø-ƺ…', '\\s?[!-/:-~！-／：-～‘-‟\u3000-。]+', '\\s+$', '[一-龥ࠀ-一가-\ud7ff]+', 'digits'],
  qwen2: [`${contraction}|\\p{N}${ending}`],
  'llama-bpe': [`${contraction}|\\p{N}{1,3}${ending}`],
};
export const ggufPreNames: readonly string[] = Object.keys(cuts);
/** The same pattern is written with line ends as they are or escaped, and with quotes escaped or not. */
const spelled = (regex: string): string =>
  regex
    .replaceAll('\r', '\\r')
    .replaceAll('\n', '\\n')
    .replace(/\\(["'#/])/g, '$1');

/** Name of the cut before merging; null where llama.cpp’s list, as far as it is known here, has none like it. */
export function ggufPre(tokenizerJson: unknown): string | null {
  const model = jsonObject(jsonObject(tokenizerJson).model);
  const pre = jsonObject(jsonObject(tokenizerJson).pre_tokenizer);
  const steps = (pre.type === 'Sequence' ? jsonList(pre.pretokenizers) : [pre]).map(jsonObject);
  const last = steps.at(-1);
  if (last?.type !== 'ByteLevel' || last.use_regex === true || last.add_prefix_space === true) return null;
  const patterns = steps.slice(0, -1).map(s => {
    if (s.type === 'Digits') return s.individual_digits === true ? 'digits' : null;
    const regex = jsonObject(s.pattern).Regex;
    return s.type === 'Split' && s.behavior === 'Isolated' && s.invert !== true && typeof regex === 'string' ? spelled(regex) : null;
  });
  const fits = (want: string, have: string | null | undefined): boolean =>
    want.endsWith('…') ? have?.startsWith(want.slice(0, -1)) === true : have === want;
  const name = Object.keys(cuts).find(n => cuts[n]!.length === patterns.length && cuts[n]!.every((c, i) => fits(c, patterns[i])));
  if (name === undefined) return null;
  // Whole words that are tokens are taken unmerged by llama-bpe alone.
  return (model.ignore_merges === true) === (name === 'llama-bpe') ? name : null;
}
