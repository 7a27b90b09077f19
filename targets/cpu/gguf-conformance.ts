// The files of one model, held against the format's rules and against what llama.cpp's loader wants of keys, tensors, vocabulary and values.
import type { EngineDirectory, Finding } from '../engine.js';
import { Findings } from '../findings.js';
import { GgufError, type GgufFile, type GgufTensor, type GgufTypeName, type GgufValue, ggufTypeName, ggufTypes, readGguf } from './gguf.js';
import { type Architecture, architectures, type Keys, type KeyType, Numbers } from './gguf-architectures.js';
import { checkVocabulary } from './gguf-vocabulary.js';

export const llamaRules = {
  L1: 'the files are one .gguf, or all parts of one set, each named -00001-of-0000N.gguf and so on',
  L2: 'split.no and split.count (u16) say which part a file is, and stand in no file that is whole',
  L3: 'split.tensors.count (i32) is the number of tensors in all parts',
  L4: 'parts after the first have no keys but those of the split',
  L5: 'no tensor stands in two parts',
  L6: 'general.architecture is one that is known here',
  L7: 'every key that the architecture wants is there',
  L8: 'a key has the type that it is read with: llama.cpp takes no other',
  L9: 'no key of the architecture, of the vocabulary or of no known group stands there that is not known',
  L10: 'a number is one that its key can have',
  L11: 'keys agree with each other: heads, ranks, experts, groups, layers',
  L12: 'deepseek2 has attention.q_lora_rank exactly where its loader reads it (src/models/deepseek2.cpp:7-14)',
  L13: 'the rotary keys are whole: dims, base, and what the kind of scaling wants',
  L14: 'every tensor that the architecture wants is there',
  L15: 'no tensor is there that the architecture has no place for: llama.cpp counts them',
  L16: 'a tensor has the dims that the keys make',
  L17: 'norms, biases, routers, streams and rope factors are F32, tables I32, matrices of a type that is computed with',
  L18: 'general.file_type is the type that most numbers are in',
  L19: 'general.quantization_version is 2',
  L20: 'the vocabulary is gpt2 with tokens, token_type and merges, or none without them',
  L21: 'there are as many tokens and types as the embedding has rows',
  L22: 'no token stands twice, and none is empty; types are 1 to 6',
  L23: 'a merge is two tokens with a blank between that make a token',
  L24: 'special tokens are in the vocabulary',
  L25: 'the cut before merging is one of llama.cpp’s names',
  L26: 'scales of Q8_0 and Q4_0 are finite',
  L27: 'scales of MXFP4 are not NaN',
  L28: 'plain numbers are finite',
  L29: 'a table names experts that are there',
  L30: 'rope factors are at least 1, and as many as pairs are turned',
} as const;

interface Part {
  readonly name: string;
  readonly file: GgufFile;
}

export function checkGguf(dir: EngineDirectory): readonly Finding[] {
  const c = new Findings();
  const names = dir.files.filter(f => f.endsWith('.gguf')).sort();
  const parts: Part[] = [];
  let whole = true;
  for (const name of names)
    try {
      parts.push({ name, file: readGguf(dir.file(name)) });
    } catch (e) {
      whole = false;
      if (e instanceof GgufError) c.say(e.rule, name, e.message);
      else c.say('L1', name, `${name} cannot be read: ${(e as Error).message}`);
    }
  if (!checkSet(c, names) || !whole) return c.found;
  checkSplit(c, parts);
  const first = parts[0] as Part;
  for (const p of parts.slice(1))
    for (const key of p.file.kv.keys())
      if (!key.startsWith('split.') && key !== 'general.alignment')
        c.say('L4', p.name, `${p.name} has the key ${key}, which the first part has for all`);
  checkModel(c, first, parts);
  for (const p of parts) for (const t of p.file.tensors) checkValues(c, dir, p.name, t, first.file.kv);
  return c.found;
}

/** One file, or all parts of one. */
function checkSet(c: Findings, names: readonly string[]): boolean {
  if (names.length === 0) {
    c.say('L1', '.', 'there is no .gguf');
    return false;
  }
  const parts = names.map(n => /^(.*)-(\d{5})-of-(\d{5})\.gguf$/.exec(n));
  if (names.length === 1 && parts[0] === null) return true;
  const [prefix, count] = [parts[0]?.[1], Number(parts[0]?.[3])];
  const odd = names.find((_, i) => parts[i] === null || parts[i]?.[1] !== prefix || Number(parts[i]?.[3]) !== count);
  if (odd !== undefined) {
    c.say('L1', odd, `${odd} is no part of the set that ${names[0]} belongs to`);
    return false;
  }
  const have = new Set(parts.map(p => Number(p?.[2])));
  let all = true;
  for (let i = 1; i <= count; i++)
    if (!have.has(i)) {
      all = false;
      c.say('L1', `part ${i}`, `part ${i} of ${count} is missing`);
    }
  const beyond = [...have].find(n => n < 1 || n > count);
  if (beyond !== undefined) c.say('L1', `part ${beyond}`, `there is a part ${beyond} of ${count}`);
  return all && beyond === undefined;
}
function checkSplit(c: Findings, parts: readonly Part[]): void {
  const tensors = parts.reduce((n, p) => n + p.file.tensors.length, 0);
  const named = /-\d{5}-of-\d{5}\.gguf$/.test((parts[0] as Part).name);
  const say = (p: Part, rule: string, key: string, type: string, want: number): void => {
    const v = p.file.kv.get(key);
    if (!named) {
      if (v !== undefined) c.say('L2', key, `${key} stands in a file that is whole`);
    } else if (v === undefined) c.say(rule, p.name, `${p.name} has no ${key}`);
    else if (v.type !== type || v.value !== want) c.say(rule, p.name, `${key} of ${p.name} is not the ${type} ${want}`);
  };
  const seen = new Map<string, string>();
  for (const [i, p] of parts.entries()) {
    say(p, 'L2', 'split.no', 'u16', i);
    say(p, 'L2', 'split.count', 'u16', parts.length);
    say(p, 'L3', 'split.tensors.count', 'i32', tensors);
    for (const t of p.file.tensors) {
      if (seen.has(t.name)) c.say('L5', t.name, `${t.name} stands in ${seen.get(t.name)} and in ${p.name}`);
      seen.set(t.name, p.name);
    }
  }
}

const typeName = (v: GgufValue): string => (v.type === 'array' ? `${v.of}[]` : v.type);
const keyTypes = (t: KeyType): readonly string[] => (t === 'i32[]' ? ['i32[]', 'u32[]'] : [t]);
const generalTypes: Readonly<Record<string, string>> = {
  'general.architecture': 'string',
  'general.type': 'string',
  'general.alignment': 'u32',
  'general.file_type': 'u32',
  'general.quantization_version': 'u32',
};

function checkModel(c: Findings, first: Part, parts: readonly Part[]): void {
  const { kv } = first.file;
  for (const [key, type] of Object.entries(generalTypes)) {
    const v = kv.get(key);
    if (v !== undefined && typeName(v) !== type) c.say('L8', key, `${key} is ${typeName(v)}, not ${type}`);
  }
  checkFileType(c, kv, parts);
  const arch = kv.get('general.architecture');
  const named = arch?.type === 'string' && Object.hasOwn(architectures, arch.value) ? arch.value : null;
  if (named === null) {
    c.say('L6', 'general.architecture', `general.architecture is ${arch === undefined ? 'missing' : JSON.stringify(arch.value)}`);
    return;
  }
  const a = architectures[named] as Architecture;
  checkKeys(c, kv, named, a);
  const n = new Numbers(kv, named);
  for (const d of a.disagree(n)) c.say(d.rule, d.key, d.what);
  const rows = checkTensors(c, a, n, parts);
  checkVocabulary(c, kv, rows);
}

function checkKeys(c: Findings, kv: Keys, arch: string, a: Architecture): void {
  for (const [short, want] of Object.entries(a.keys)) {
    const key = `${arch}.${short}`;
    const v = kv.get(key);
    if (v === undefined) {
      if (!want.optional) c.say('L7', key, `${key} is missing`);
      continue;
    }
    if (!keyTypes(want.type).includes(typeName(v))) {
      c.say('L8', key, `${key} is ${typeName(v)}, not ${want.type}`);
      continue;
    }
    const values = v.type === 'array' ? v.value : [v.value];
    for (const one of values) {
      const bad = typeof one === 'number' ? want.bad?.(one) : null;
      if (bad) c.say('L10', key, `${key} is ${one}; it ${bad}`);
    }
  }
  for (const key of kv.keys()) {
    if (/^(general|split|tokenizer)\./.test(key)) continue;
    if (!key.startsWith(`${arch}.`) || !Object.hasOwn(a.keys, key.slice(arch.length + 1))) c.say('L9', key, `${arch} has no key ${key}`);
  }
}

/** Rows of the embedding, where it is there. */
function checkTensors(c: Findings, a: Architecture, n: Numbers, parts: readonly Part[]): number | null {
  const have = new Map(parts.flatMap(p => p.file.tensors.map(t => [t.name, t] as const)));
  const rows = have.get('token_embd.weight')?.dims[1] ?? null;
  // without these nothing can be said of layers
  const layers = n.of('block_count');
  if (!(layers <= 4096)) return rows;
  const wanted = a.tensors(n);
  for (const [name, want] of wanted) {
    const t = have.get(name);
    if (t === undefined) {
      if (!want.optional) c.say('L14', name, `${name} is missing`);
      continue;
    }
    // a dim that hangs on a key that is not there is not judged: L7 has said so
    if (want.dims.every(d => !Number.isNaN(d)) && t.dims.join() !== want.dims.join())
      c.say('L16', name, `${name} has dims [${t.dims.join(', ')}], the keys make [${want.dims.join(', ')}]`);
    const type = ggufTypeName(t.type) as GgufTypeName;
    if (!want.types.includes(type)) c.say('L17', name, `${name} is ${type}, not ${want.types.join(' or ')}`);
  }
  for (const name of have.keys()) if (!wanted.has(name)) c.say('L15', name, `${n.arch} has no place for ${name}`);
  return rows;
}

/** include/llama.h, llama_ftype. */
const fileTypes: Readonly<Record<GgufTypeName, number | null>> = { F32: 0, F16: 1, Q4_0: 2, Q8_0: 7, BF16: 32, MXFP4: 38, I32: null };
function checkFileType(c: Findings, kv: Keys, parts: readonly Part[]): void {
  const share = new Map<GgufTypeName, number>();
  for (const t of parts.flatMap(p => p.file.tensors)) {
    const type = ggufTypeName(t.type) as GgufTypeName;
    share.set(type, (share.get(type) ?? 0) + t.dims.reduce((a, b) => a * b, 1));
  }
  const [most] = [...share].filter(([type]) => fileTypes[type] !== null).sort((a, b) => b[1] - a[1]);
  const said = kv.get('general.file_type');
  if (said?.type !== 'u32') {
    if (said === undefined) c.say('L18', 'general.file_type', 'general.file_type is missing');
  } else if (most && said.value !== fileTypes[most[0]])
    c.say('L18', 'general.file_type', `general.file_type is ${said.value}; most numbers are ${most[0]}, which is ${fileTypes[most[0]]}`);
  const version = kv.get('general.quantization_version');
  if (version === undefined || (version.type === 'u32' && version.value !== 2))
    c.say(
      'L19',
      'general.quantization_version',
      `general.quantization_version is ${version === undefined ? 'missing' : String(version.value)}`,
    );
}

// ---- values

const sample = 4096;
/** What a run of blocks, or of plain numbers, holds that it should not. */
function badValue(type: GgufTypeName, v: DataView, experts: number): readonly [rule: string, what: string] | null {
  const each = ggufTypes[type].bytes;
  for (let at = 0; at + each <= v.byteLength; at += each) {
    if (type === 'MXFP4') {
      if (v.getUint8(at) === 255) return ['L27', 'a scale is NaN'];
    } else if (type === 'I32') {
      const e = v.getInt32(at, true);
      if (e < 0 || e >= experts) return ['L29', `it names expert ${e}, and there are ${experts}`];
    } else if (type === 'F32') {
      if (!Number.isFinite(v.getFloat32(at, true))) return ['L28', `a number is ${v.getFloat32(at, true)}`];
    } else {
      const half = v.getUint16(at, true);
      const top = type === 'BF16' ? 0x7f80 : 0x7c00;
      if ((half & top) === top)
        return [
          type === 'BF16' || type === 'F16' ? 'L28' : 'L26',
          `${type.startsWith('Q') ? 'a scale' : 'a number'} is no finite one: 0x${half.toString(16)}`,
        ];
    }
  }
  return null;
}
function checkValues(c: Findings, dir: EngineDirectory, file: string, t: GgufTensor & { readonly offset: number }, kv: Keys): void {
  const type = ggufTypeName(t.type) as GgufTypeName;
  const each = ggufTypes[type].bytes;
  const source = dir.file(file);
  const arch = kv.get('general.architecture');
  const experts = new Numbers(kv, arch?.type === 'string' ? arch.value : '').of('expert_count', 0);
  const step = each * Math.max(1, Math.floor((dir.sampled ? sample : 1 << 20) / each));
  const begins: number[] = [];
  if (dir.sampled && t.bytes > 2 * step) begins.push(0, t.bytes - step);
  else for (let at = 0; at < t.bytes; at += step) begins.push(at);
  for (const at of begins) {
    const b = source.read(t.offset + at, t.offset + Math.min(t.bytes, at + step));
    const v = new DataView(b.buffer, b.byteOffset, b.byteLength);
    const bad = badValue(type, v, experts);
    if (bad) {
      c.say(bad[0], t.name, `${t.name}: ${bad[1]}`);
      return;
    }
    if (t.name !== 'rope_freqs.weight' || type !== 'F32') continue;
    for (let i = 0; i + 4 <= v.byteLength; i += 4)
      if (!(v.getFloat32(i, true) >= 1)) {
        c.say('L30', t.name, `${t.name}: a factor is ${v.getFloat32(i, true)}`);
        return;
      }
  }
}
