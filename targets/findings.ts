// What every check of an engine directory needs: findings said once, tensors held against what they should be, the index against the shards.
import { classDiffers, isObject, type Json, languageConfig } from './config.js';
import { dtypeBytes, type EngineDirectory, type EngineModel, type Finding, type LogicalTensor, type StoredTensor } from './engine.js';

export const textsOf = (v: unknown): readonly string[] => (Array.isArray(v) ? v.filter((x): x is string => typeof x === 'string') : []);
export const plainDtypes: readonly string[] = ['BF16', 'F16', 'F32'];

export class Findings {
  readonly found: Finding[] = [];
  readonly #seen = new Set<string>();
  /** Once for a rule and a place. */
  say(rule: string, where: string, what: string): void {
    const key = `${rule} ${where}`;
    if (this.#seen.has(key)) return;
    this.#seen.add(key);
    this.found.push({ rule, where, what });
  }
}

/** A tensor that should be there. */
export interface Piece {
  readonly name: string;
  readonly dtypes: readonly string[];
  readonly shape: readonly number[];
  /**
   * int8: codes of -127 to 127; scale: finite and above 0; exact: a scale that bf16 holds; offset: all zero; shape: says the matrix's shape;
   * any: values are not looked at.
   */
  readonly what: 'any' | 'int8' | 'scale' | 'exact' | 'offset' | 'shape';
}
/** Names of the rules that a piece can break. */
export interface PieceRules {
  readonly missing: string;
  readonly dtype: string;
  readonly shape: string;
  readonly bytes: string;
  readonly scale: string;
  readonly code: string;
  readonly says: string;
}

const sample = 4096;
/** [from, to) of what is looked at of so many bytes. */
export function stretches(size: number, sampled: boolean): readonly (readonly [number, number])[] {
  if (sampled && size > 2 * sample)
    return [
      [0, sample],
      [size - sample - (size % 16), size],
    ];
  const all: [number, number][] = [];
  for (let p = 0; p < size; p += 1 << 20) all.push([p, Math.min(size, p + (1 << 20))]);
  return all;
}
/** A tensor's bytes in pieces; `bad` says what is wrong with one, or null. */
export function scan(dir: EngineDirectory, s: StoredTensor, bad: (v: DataView) => string | null): string | null {
  const size = s.bytes[1] - s.bytes[0];
  for (const [from, to] of stretches(size, dir.sampled)) {
    const b = dir.read(s, from, to);
    const found = bad(new DataView(b.buffer, b.byteOffset, b.byteLength));
    if (found) return found;
  }
  return null;
}
/** A run of a type's bits, wherever it lies. */
const words = <T>(v: DataView, of: new (b: ArrayBuffer, at: number, n: number) => T, each: number): T => {
  const n = Math.floor(v.byteLength / each);
  return v.byteOffset % each === 0
    ? new of(v.buffer as ArrayBuffer, v.byteOffset, n)
    : new of(v.buffer.slice(v.byteOffset, v.byteOffset + n * each) as ArrayBuffer, 0, n);
};
/** What plain numbers and FP8 codes are not. */
function badNumber(dtype: string): (v: DataView) => string | null {
  return v => {
    if (dtype === 'F8_E4M3') {
      const codes = words(v, Uint8Array, 1);
      for (let i = 0; i < codes.length; i++) if (((codes[i] as number) & 0x7f) === 0x7f) return 'a code is NaN';
      return null;
    }
    const bits: Uint16Array | Uint32Array = dtype === 'F32' ? words(v, Uint32Array, 4) : words(v, Uint16Array, 2);
    const top = dtype === 'F32' ? 0x7f800000 : dtype === 'BF16' ? 0x7f80 : 0x7c00;
    const rest = (dtype === 'F32' ? 0x7fffffff : 0x7fff) - top;
    for (let i = 0; i < bits.length; i++) {
      const b = bits[i] as number;
      if ((b & top) === top) return (b & rest) === 0 ? 'a number is infinite' : 'a number is NaN';
    }
    return null;
  };
}
/** Plain numbers are finite, FP8 codes are no NaN. */
export function checkNumbers(c: Findings, dir: EngineDirectory, s: StoredTensor, rule: string): void {
  if (!plainDtypes.includes(s.dtype) && s.dtype !== 'F8_E4M3') return;
  const bad = scan(dir, s, badNumber(s.dtype));
  if (bad) c.say(rule, s.name, `${s.name}: ${bad}`);
}
/** A table names experts that are there; it is small, and read in full. */
export function checkTable(c: Findings, dir: EngineDirectory, s: StoredTensor, experts: number, rule: string): void {
  const each = s.dtype === 'I64' ? 8 : s.dtype === 'I32' ? 4 : 0;
  if (each === 0 || experts === 0) return;
  const b = dir.read(s, 0, s.bytes[1] - s.bytes[0]);
  const v = new DataView(b.buffer, b.byteOffset, b.byteLength);
  for (let at = 0; at + each <= v.byteLength; at += each) {
    const e = each === 8 ? v.getBigInt64(at, true) : v.getInt32(at, true);
    if (e >= 0 && e < experts) continue;
    c.say(rule, s.name, `${s.name} names expert ${e}, and there are ${experts}`);
    return;
  }
}
export const expertsOf = (model: EngineModel): number => model.tensors.reduce((n, t) => Math.max(n, (t.expert ?? -1) + 1), 0);
/** Numbers of every tensor that the model has, and tables of experts. */
export function checkValues(c: Findings, dir: EngineDirectory, model: EngineModel, number: string, table: string): void {
  const experts = expertsOf(model);
  for (const t of model.tensors) {
    const s = dir.tensors.get(t.name);
    if (!s || s.bytes[1] - s.bytes[0] !== sizeOf(s)) continue;
    if (t.role === 'table') checkTable(c, dir, s, experts, table);
    else checkNumbers(c, dir, s, number);
  }
}
function badScale(dtype: string, exact: boolean): (v: DataView) => string | null {
  return v => {
    if (dtype === 'F32') {
      for (let i = 0; i + 4 <= v.byteLength; i += 4) {
        const x = v.getFloat32(i, true);
        if (!(x > 0) || x === Number.POSITIVE_INFINITY) return `a scale is ${x}`;
        if (exact && (v.getUint32(i, true) & 0xffff) !== 0) return `the scale ${x} is not exact in bf16, to which the loader rounds it`;
      }
    } else if (dtype === 'BF16' || dtype === 'F16') {
      const top = dtype === 'BF16' ? 0x7f80 : 0x7c00;
      for (let i = 0; i + 2 <= v.byteLength; i += 2) {
        const h = v.getUint16(i, true);
        if (h === 0 || h >= top) return `a scale has the code 0x${h.toString(16)}`;
      }
    } else for (let i = 0; i < v.byteLength; i++) if (v.getUint8(i) === 255) return 'a scale is NaN';
    return null;
  };
}

/** Hold what a shard has under a name against what should be there. True where its bytes are those of its dtype and shape. */
export function checkPiece(c: Findings, dir: EngineDirectory, t: LogicalTensor, p: Piece, rules: PieceRules): boolean {
  const s = dir.tensors.get(p.name);
  if (!s) {
    c.say(rules.missing, p.name, `${p.name} is missing${t.mtp ? '; MTP blocks are loaded too' : ''}`);
    return false;
  }
  if (!p.dtypes.includes(s.dtype)) c.say(rules.dtype, p.name, `${p.name} is ${s.dtype}, not ${p.dtypes.join(' or ')}`);
  if (s.shape.join() !== p.shape.join()) c.say(rules.shape, p.name, `${p.name} is [${s.shape.join(', ')}], not [${p.shape.join(', ')}]`);
  if (!checkBytes(c, s, rules.bytes) || !p.dtypes.includes(s.dtype)) return false;
  let bad: string | null = null;
  switch (p.what) {
    case 'scale':
    case 'exact':
      bad = scan(dir, s, badScale(s.dtype, p.what === 'exact'));
      if (bad) c.say(rules.scale, p.name, `${p.name}: ${bad}`);
      break;
    case 'offset':
      bad = scan(dir, s, v => {
        for (let i = 0; i < v.byteLength; i++) if (v.getUint8(i) !== 0) return 'an offset is not 0';
        return null;
      });
      if (bad) c.say(rules.scale, p.name, `${p.name}: ${bad}`);
      break;
    case 'int8':
      bad = scan(dir, s, v => (new Int8Array(v.buffer, v.byteOffset, v.byteLength).includes(-128) ? 'a code is -128' : null));
      if (bad) c.say(rules.code, p.name, `${p.name}: ${bad}`);
      break;
    case 'shape': {
      const b = dir.read(s, 0, s.bytes[1] - s.bytes[0]);
      const v = new DataView(b.buffer, b.byteOffset, b.byteLength);
      const each = dtypeBytes[s.dtype] as number;
      const says = Array.from({ length: b.byteLength / each }, (_, i) =>
        each === 8 ? Number(v.getBigInt64(8 * i, true)) : v.getInt32(4 * i, true),
      );
      if (says.join() !== t.shape.join())
        c.say(rules.says, p.name, `${p.name} says [${says.join(', ')}], the tensor is [${t.shape.join(', ')}]`);
    }
  }
  return true;
}
const sizeOf = (s: StoredTensor): number => s.shape.reduce((a, b) => a * b, 1) * (dtypeBytes[s.dtype] ?? Number.NaN);
/** Bytes of a tensor are those of its dtype and shape. */
export function checkBytes(c: Findings, s: StoredTensor, rule: string): boolean {
  const size = sizeOf(s);
  const has = s.bytes[1] - s.bytes[0];
  if (has === size) return true;
  c.say(rule, s.name, `${s.name} has ${has} bytes; its dtype and shape make ${size}`);
  return false;
}

/** The index names exactly what is there, and there is one. */
export function checkIndex(c: Findings, dir: EngineDirectory, rule: string): void {
  const name = 'model.safetensors.index.json';
  for (const f of dir.files) if (f.endsWith('.safetensors.index.json') && f !== name) c.say(rule, f, `${f} is a second index`);
  const index = dir.json(name);
  if (index === undefined) {
    if (dir.files.filter(f => f.endsWith('.safetensors')).length > 1) c.say(rule, name, 'there are several shards and no index');
    return;
  }
  const map = isObject(index) ? index.weight_map : undefined;
  if (!isObject(map)) {
    c.say(rule, name, 'weight_map is missing');
    return;
  }
  // a loader that takes every shard would read it too
  const named = new Set<unknown>();
  for (const t of Object.keys(map)) named.add(map[t]);
  const there = new Set(dir.files);
  for (const f of dir.files)
    if (f.endsWith('.safetensors') && !named.has(f)) c.say(rule, f, `${f} is not in the index, and is loaded with the rest`);
  for (const t of Object.keys(map)) {
    const file = map[t];
    if (!there.has(String(file))) c.say(rule, t, `the index sends ${t} to ${String(file)}, which is not there`);
    else if (dir.tensors.get(t)?.file !== file) c.say(rule, t, `the index sends ${t} to ${String(file)}, which does not hold it`);
  }
  for (const t of dir.tensors.keys()) if (!Object.hasOwn(map, t)) c.say(rule, t, `${t} is not in the index`);
}

/** MTP blocks that the config counts are there, and none that it does not: an engine that drafts with them looks for them by that number. */
export function checkMtp(c: Findings, config: Json, model: EngineModel, rule: string): void {
  const said = languageConfig(config).num_nextn_predict_layers;
  const blocks = new Set(model.tensors.filter(t => t.mtp).map(t => t.layer)).size;
  if (said !== undefined && said !== null && (said === 0) !== (blocks === 0))
    c.say(rule, 'num_nextn_predict_layers', `config.json says ${String(said)} MTP blocks; there are ${blocks}`);
}
/** The dtype that an engine computes in is one that it has. */
export function checkComputed(c: Findings, config: Json, rule: string, allowed: readonly string[]): void {
  const part = languageConfig(config);
  for (const key of ['torch_dtype', 'dtype']) {
    const v = part[key] ?? config[key];
    if (v !== undefined && v !== null && !allowed.includes(v as string))
      c.say(rule, key, `${key} is ${JSON.stringify(v)}, not ${allowed.join(' or ')}`);
  }
}

/** The class that loads it is the family's. */
export function checkArchitecture(c: Findings, config: Json, model: EngineModel, rule: string): void {
  const how = classDiffers(config, model.modelType);
  if (how !== null) c.say(rule, 'architectures', how);
}

/** Layers that loaders read as one: gate and up; q_a and kv_a; q, k and v of plain attention; all experts of a layer. */
export function fusedLayers(model: EngineModel): ReadonlyMap<string, readonly LogicalTensor[]> {
  const sets = new Map<string, LogicalTensor[]>();
  const put = (key: string, t: LogicalTensor): void => {
    const set = sets.get(key);
    if (set) set.push(t);
    else sets.set(key, [t]);
  };
  const plainAttention = model.modelType === 'llama' || model.modelType === 'qwen2' || model.modelType === 'deepseek';
  for (const t of model.tensors) {
    if (t.role === 'expert') put(t.name.replace(/\.experts\..*$/, '.experts'), t);
    else if (/\.(gate_proj|up_proj|w1|w3)\.weight$/.test(t.name))
      put(t.name.replace(/\.(gate_proj|up_proj|w1|w3)\.weight$/, '.gate_up_proj'), t);
    else if (/\.(q_a_proj|kv_a_proj_with_mqa)\.weight$/.test(t.name))
      put(t.name.replace(/\.(q_a_proj|kv_a_proj_with_mqa)\.weight$/, '.fused_qkv_a_proj'), t);
    else if (plainAttention && /\.(q_proj|k_proj|v_proj)\.weight$/.test(t.name))
      put(t.name.replace(/\.(q_proj|k_proj|v_proj)\.weight$/, '.qkv_proj'), t);
  }
  return sets;
}
/** One storage in every fused layer; `show` names a tensor's. */
export function checkFused(c: Findings, model: EngineModel, rule: string, show: (t: LogicalTensor) => string): void {
  for (const [name, all] of fusedLayers(model)) {
    const first = all[0] as LogicalTensor;
    const odd = all.find(t => show(t) !== show(first));
    if (odd) c.say(rule, name, `${odd.name} is ${show(odd)}, ${first.name} ${show(first)}; they are loaded as one`);
  }
}
