// An AscendV1 directory held against what vllm-ascend, SGLang and MindIE want: rules A1 to A12 and A15. Read in vllm-ascend@182b75ea
// (quantization/modelslim_config.py, methods/*), v0.18.0 and v0.23.0; not run on a device.
import { dtypeBytes, type EngineDirectory, type EngineModel, type Finding, type LogicalTensor, type StoredTensor } from '../engine.js';

export interface AscendProfile {
  readonly runtime: 'vllm-ascend' | 'sglang' | 'mindie';
  readonly version: '0.18' | '0.23' | 'head';
  /** 910b, 910c, 310p, 950. */
  readonly chip: string;
}
export const ascendRules: Readonly<Record<string, string>> = {
  A1: 'quant_model_description.json is there, its version "1.0.0", its group_size 0, or 32 with MXFP types',
  A2: 'the description has an entry for every tensor, and for nothing else but its own keys',
  A3: 'the tensors are exactly those that the model has in these types, MTP blocks too',
  A4: 'dtypes and shapes are those that the loader allocates',
  A5: 'fused layers agree, and so do all experts of a layer: only expert 0 is looked at',
  A6: 'every type is registered in this version, for linears or for experts, and runs on the chip',
  A7: 'no FLOAT name extends the name of a quantised module: the look-up has no dot and would make it float',
  A8: 'norms, router, kv_b_proj, the indexer, embeddings, lm_head and the parts of MTP are FLOAT',
  A9: 'config.json says nothing of a quantisation, and torch_dtype is bfloat16',
  A10: 'the index names exactly the tensors and files that are there, and there is no second index',
  A11: 'offsets are zero; scales are finite, above 0 and exact in bf16; int8 codes are never -128',
  A12: 'scale_bias is eight times the sum of codes times the scale, in 16 parts for down projections',
  A15: 'e_score_correction_bias is F32',
};
const metaKeys = [
  'version',
  'model_quant_type',
  'group_size',
  'metadata',
  'optional',
  'kv_cache_type',
  'kv_quant_type',
  'fa_quant_type',
  'indexer_quant_type',
];

type Kind = 'linear' | 'moe';
type Version = AscendProfile['version'];
const always: readonly Version[] = ['0.18', '0.23', 'head'];
/** Who registers a type, by kind (methods/*.py, `@register_scheme`). */
const registered: Readonly<
  Record<string, { readonly linear: readonly Version[]; readonly moe: readonly Version[]; readonly only950: boolean }>
> = {
  W8A8: { linear: always, moe: [], only950: false },
  W8A8_DYNAMIC: { linear: always, moe: always, only950: false },
  W8A8_MIX: { linear: always, moe: ['0.18', '0.23'], only950: false },
  W4A8_DYNAMIC: { linear: ['0.18', '0.23'], moe: always, only950: false },
  W8A16: { linear: always, moe: [], only950: false },
  W4A4_DYNAMIC: { linear: always, moe: [], only950: false },
  W8A8_MXFP8: { linear: always, moe: always, only950: true },
  W4A8_MXFP: { linear: ['0.23', 'head'], moe: ['0.23', 'head'], only950: true },
};
const written = ['FLOAT', 'W8A8_DYNAMIC', 'W4A8_DYNAMIC', 'W8A8_MXFP8', 'W4A8_MXFP'];

type Json = Readonly<Record<string, unknown>>;
const isObject = (v: unknown): v is Json => typeof v === 'object' && v !== null && !Array.isArray(v);
const baseOf = (name: string): string => name.replace(/\.weight$/, '');
const isDown = (name: string): boolean => /\.(down_proj|w2)\.weight$/.test(name);
const mustBeFloat = (t: LogicalTensor): boolean =>
  !t.matrix || ['router', 'kv_b', 'indexer', 'mtp_merge', 'compressor', 'embedding', 'head', 'norm'].includes(t.role);

class Check {
  readonly found: Finding[] = [];
  readonly #seen = new Set<string>();
  say(rule: string, where: string, what: string): void {
    const key = `${rule} ${where}`;
    if (this.#seen.has(key)) return;
    this.#seen.add(key);
    this.found.push({ rule, where, what });
  }
}
interface Piece {
  readonly name: string;
  readonly dtypes: readonly string[];
  readonly shape: readonly number[];
  readonly what: 'plain' | 'codes' | 'scale' | 'offset' | 'bias' | 'exponents';
}
/** What the loader allocates for a type (section by type in vllm_ascend/quantization/methods). */
function piecesOf(t: LogicalTensor, type: string): readonly Piece[] {
  const b = baseOf(t.name);
  const [rows, columns] = [t.shape[0] ?? 0, t.shape[1] ?? 1];
  const scale: Piece = { name: `${b}.weight_scale`, dtypes: ['F32', 'BF16'], shape: [rows, 1], what: 'scale' };
  const offset: Piece = { name: `${b}.weight_offset`, dtypes: ['F32', 'BF16'], shape: [rows, 1], what: 'offset' };
  const exponents: Piece = { name: `${b}.weight_scale`, dtypes: ['U8'], shape: [rows, columns / 32], what: 'exponents' };
  switch (type) {
    case 'W8A8_DYNAMIC':
      return [{ name: t.name, dtypes: ['I8'], shape: t.shape, what: 'codes' }, scale, offset];
    case 'W4A8_DYNAMIC':
      return [
        { name: t.name, dtypes: ['I8'], shape: [rows / 2, columns], what: 'codes' },
        { ...scale, dtypes: ['F32'] },
        { ...offset, dtypes: ['F32'] },
        { name: `${b}.scale_bias`, dtypes: ['F32'], shape: [rows, isDown(t.name) ? 16 : 1], what: 'bias' },
      ];
    case 'W8A8_MXFP8':
      return [{ name: t.name, dtypes: ['F8_E4M3'], shape: t.shape, what: 'codes' }, exponents];
    case 'W4A8_MXFP':
      return [{ name: t.name, dtypes: ['U8'], shape: [rows, columns / 2], what: 'codes' }, exponents];
    default:
      return [
        {
          name: t.name,
          dtypes: t.role === 'router_bias' ? ['F32', 'BF16', 'F16'] : t.role === 'table' ? ['I64', 'I32'] : ['BF16', 'F16', 'F32'],
          shape: t.shape,
          what: 'plain',
        },
      ];
  }
}

/** Hold a directory against the rules. Never throws on what it finds. */
export function checkAscendV1(dir: EngineDirectory, model: EngineModel, profile: AscendProfile): readonly Finding[] {
  const c = new Check();
  const file = 'quant_model_description.json';
  const d = dir.json(file);
  checkConfig(c, dir);
  checkIndex(c, dir);
  if (!isObject(d)) {
    c.say('A1', file, `${file} is missing or no object`);
    return c.found;
  }
  const entries = Object.entries(d).filter(([k]) => !metaKeys.includes(k));
  const types = new Set(entries.map(([, v]) => v));
  const mx = types.has('W8A8_MXFP8') || types.has('W4A8_MXFP');
  if (d.version !== '1.0.0') c.say('A1', 'version', `version is ${JSON.stringify(d.version)}, not "1.0.0"`);
  if (d.group_size !== (mx ? 32 : 0)) c.say('A1', 'group_size', `group_size is ${JSON.stringify(d.group_size)}, not ${mx ? 32 : 0}`);
  if (typeof d.model_quant_type !== 'string') c.say('A1', 'model_quant_type', 'model_quant_type is missing');
  for (const [k, v] of entries) {
    if (!dir.tensors.has(k)) c.say('A2', k, `${k} is described, but no shard holds it`);
    if (!written.includes(v as string)) c.say('A6', k, `${k} is of type ${JSON.stringify(v)}, which is not one that is written`);
  }
  for (const name of dir.tensors.keys())
    if (!Object.hasOwn(d, name) || metaKeys.includes(name)) c.say('A2', name, `${name} has no entry in the description`);
  const typeOf = (name: string): string => {
    const v = Object.hasOwn(d, name) ? d[name] : undefined;
    return typeof v === 'string' && written.includes(v) ? v : 'FLOAT';
  };
  const known = new Set<string>();
  for (const t of model.tensors) {
    const type = typeOf(t.name);
    if (type !== 'FLOAT') {
      if (mustBeFloat(t)) c.say('A8', t.name, `${t.name} must be FLOAT, it is ${type}`);
      const kind: Kind = t.role === 'expert' ? 'moe' : 'linear';
      const row = registered[type]!;
      if (!row[kind].includes(profile.version))
        c.say('A6', t.name, `${type} is not registered for ${kind} in ${profile.runtime} ${profile.version}`);
      if (row.only950 !== profile.chip.startsWith('950') && (row.only950 || type === 'W4A8_DYNAMIC'))
        c.say(
          'A6',
          t.name,
          row.only950 ? `${type} runs on 950 alone, not on ${profile.chip}` : `${type} needs an int4 cube, which 950 has not`,
        );
    }
    if (t.role === 'router_bias') {
      const s = dir.tensors.get(t.name);
      if (s && s.dtype !== 'F32') c.say('A15', t.name, `${t.name} is ${s.dtype}, not F32`);
    }
    for (const p of piecesOf(t, type)) {
      known.add(p.name);
      checkPiece(c, dir, t, p);
      if (Object.hasOwn(d, p.name) && d[p.name] !== type)
        c.say('A5', p.name, `${p.name} is ${JSON.stringify(d[p.name])}, its weight ${type}`);
    }
    if (type === 'W4A8_DYNAMIC') checkBias(c, dir, t);
  }
  for (const name of dir.tensors.keys()) if (!known.has(name)) c.say('A3', name, `${name} belongs to no tensor of the model in this type`);
  checkFused(c, model, typeOf);
  const quantised = model.tensors.filter(t => typeOf(t.name) !== 'FLOAT').map(t => baseOf(t.name));
  checkPrefixes(c, entries, quantised);
  return c.found;
}

function checkConfig(c: Check, dir: EngineDirectory): void {
  const config = dir.json('config.json');
  if (!isObject(config)) {
    c.say('A9', 'config.json', 'config.json is missing or no object');
    return;
  }
  for (const [where, o] of [
    ['config.json', config],
    ['text_config', config.text_config],
  ] as const)
    if (isObject(o))
      for (const k of ['quantization_config', 'compression_config'])
        if (k in o) c.say('A9', k, `${where} still has ${k}: the description would be ignored`);
  const dtype = config.torch_dtype ?? config.dtype;
  if (dtype !== undefined && dtype !== 'bfloat16') c.say('A9', 'torch_dtype', `torch_dtype is ${JSON.stringify(dtype)}, not "bfloat16"`);
}

function checkIndex(c: Check, dir: EngineDirectory): void {
  const name = 'model.safetensors.index.json';
  for (const f of dir.files) if (f.endsWith('.safetensors.index.json') && f !== name) c.say('A10', f, `${f} is a second index`);
  const shards = new Set([...dir.tensors.values()].map(t => t.file));
  const index = dir.json(name);
  if (index === undefined) {
    if (shards.size > 1) c.say('A10', name, 'there are several shards and no index');
    return;
  }
  const map = isObject(index) ? index.weight_map : undefined;
  if (!isObject(map)) {
    c.say('A10', name, 'weight_map is missing');
    return;
  }
  for (const [t, f] of Object.entries(map)) {
    if (!dir.files.includes(String(f))) c.say('A10', t, `the index sends ${t} to ${String(f)}, which is not there`);
    else if (dir.tensors.get(t)?.file !== f) c.say('A10', t, `the index sends ${t} to ${String(f)}, which does not hold it`);
  }
  for (const t of dir.tensors.keys()) if (!Object.hasOwn(map, t)) c.say('A10', t, `${t} is not in the index`);
}

/** Walk a tensor's bytes in pieces; `bad` says what is wrong with one, or null. */
function scan(dir: EngineDirectory, s: StoredTensor, bad: (v: DataView) => string | null): string | null {
  const size = s.bytes[1] - s.bytes[0];
  for (let p = 0; p < size; p += 1 << 20) {
    const b = dir.read(s, p, Math.min(size, p + (1 << 20)));
    const found = bad(new DataView(b.buffer, b.byteOffset, b.byteLength));
    if (found) return found;
  }
  return null;
}
function checkPiece(c: Check, dir: EngineDirectory, t: LogicalTensor, p: Piece): void {
  const s = dir.tensors.get(p.name);
  if (!s) {
    c.say('A3', p.name, `${p.name} is missing${t.mtp ? ': MTP blocks are loaded too' : ''}`);
    return;
  }
  const size = s.shape.reduce((a, b) => a * b, 1) * (dtypeBytes[s.dtype] ?? Number.NaN);
  if (!p.dtypes.includes(s.dtype)) c.say('A4', p.name, `${p.name} is ${s.dtype}, not ${p.dtypes.join(' or ')}`);
  if (s.shape.join() !== p.shape.join()) c.say('A4', p.name, `${p.name} is [${s.shape.join(', ')}], not [${p.shape.join(', ')}]`);
  if (s.bytes[1] - s.bytes[0] !== size) {
    c.say('A4', p.name, `${p.name} has ${s.bytes[1] - s.bytes[0]} bytes, its shape ${size}`);
    return;
  }
  if (!p.dtypes.includes(s.dtype)) return;
  const each = s.dtype === 'BF16' ? 2 : 4;
  const number = (v: DataView, i: number): number => {
    if (each === 4) return v.getFloat32(i, true);
    const w = new DataView(new ArrayBuffer(4));
    w.setUint16(0, v.getUint16(i, true));
    return w.getFloat32(0);
  };
  let bad: string | null = null;
  if (p.what === 'scale')
    bad = scan(dir, s, v => {
      for (let i = 0; i + each <= v.byteLength; i += each) {
        const x = number(v, i);
        if (!(x > 0) || x === Number.POSITIVE_INFINITY) return `a scale is ${x}`;
        if (each === 4 && (v.getUint32(i, true) & 0xffff) !== 0)
          return `the scale ${x} is not exact in bf16, to which the loader rounds it`;
      }
      return null;
    });
  else if (p.what === 'offset')
    bad = scan(dir, s, v => {
      for (let i = 0; i + each <= v.byteLength; i += each) if (number(v, i) !== 0) return `an offset is ${number(v, i)}`;
      return null;
    });
  else if (p.what === 'codes' && s.dtype === 'I8' && s.shape[0] === t.shape[0])
    bad = scan(dir, s, v => {
      for (let i = 0; i < v.byteLength; i++) if (v.getInt8(i) === -128) return 'a code is -128';
      return null;
    });
  else if (p.what === 'exponents')
    bad = scan(dir, s, v => {
      for (let i = 0; i < v.byteLength; i++) if (v.getUint8(i) === 255) return 'a scale is NaN';
      return null;
    });
  if (bad) c.say('A11', p.name, `${p.name}: ${bad}`);
}

/** scale_bias from the packed codes themselves. */
function checkBias(c: Check, dir: EngineDirectory, t: LogicalTensor): void {
  const b = baseOf(t.name);
  const [codes, scale, bias] = [dir.tensors.get(t.name), dir.tensors.get(`${b}.weight_scale`), dir.tensors.get(`${b}.scale_bias`)];
  const [rows, columns] = [t.shape[0] ?? 0, t.shape[1] ?? 1];
  const chunks = isDown(t.name) ? 16 : 1;
  const fits = (s: StoredTensor | undefined, bytes: number): s is StoredTensor => s !== undefined && s.bytes[1] - s.bytes[0] === bytes;
  if (!fits(codes, (rows / 2) * columns) || !fits(scale, rows * 4) || !fits(bias, rows * chunks * 4)) return;
  if (columns % chunks !== 0) {
    c.say('A12', t.name, `${columns} columns do not make ${chunks} equal parts`);
    return;
  }
  const each = Math.max(1, Math.floor((1 << 20) / columns));
  for (let r = 0; r < rows / 2; r += each) {
    const n = Math.min(each, rows / 2 - r);
    const q = dir.read(codes, r * columns, (r + n) * columns);
    const sb = dir.read(scale, 2 * r * 4, 2 * (r + n) * 4);
    const bb = dir.read(bias, 2 * r * chunks * 4, 2 * (r + n) * chunks * 4);
    const sv = new DataView(sb.buffer, sb.byteOffset, sb.byteLength);
    const bv = new DataView(bb.buffer, bb.byteOffset, bb.byteLength);
    for (let i = 0; i < 2 * n; i++)
      for (let k = 0; k < chunks; k++) {
        let sum = 0;
        let most = 0;
        for (let x = (k * columns) / chunks; x < ((k + 1) * columns) / chunks; x++) {
          const byte = q[(i >> 1) * columns + x] as number;
          const nibble = i % 2 === 0 ? byte & 15 : byte >> 4;
          sum += (nibble ^ 8) - 8;
          most += Math.abs((nibble ^ 8) - 8);
        }
        const s = sv.getFloat32(4 * i, true);
        const is = bv.getFloat32(4 * (i * chunks + k), true);
        if (!(Math.abs(is - 8 * sum * s) <= 1e-5 * Math.max(8 * most * Math.abs(s), 1e-30))) {
          c.say('A12', `${b}.scale_bias`, `row ${2 * r + i}, part ${k} is ${is}; the codes give ${8 * sum * s}`);
          return;
        }
      }
  }
}

function checkFused(c: Check, model: EngineModel, typeOf: (name: string) => string): void {
  const sets = new Map<string, LogicalTensor[]>();
  const v4 = model.modelType === 'deepseek_v4';
  const put = (key: string, t: LogicalTensor): void => void sets.set(key, [...(sets.get(key) ?? []), t]);
  for (const t of model.tensors) {
    if (t.role === 'expert') put(t.name.replace(/\.experts\..*$/, '.experts'), t);
    else if (/\.(gate_proj|up_proj|w1|w3)\.weight$/.test(t.name))
      put(t.name.replace(/\.(gate_proj|up_proj|w1|w3)\.weight$/, '.gate_up_proj'), t);
    else if (!v4 && /\.(q_a_proj|kv_a_proj_with_mqa)\.weight$/.test(t.name))
      put(t.name.replace(/\.(q_a_proj|kv_a_proj_with_mqa)\.weight$/, '.fused_qkv_a_proj'), t);
  }
  for (const [name, all] of sets) {
    const first = all[0] as LogicalTensor;
    const odd = all.find(t => typeOf(t.name) !== typeOf(first.name));
    if (odd) c.say('A5', name, `${odd.name} is ${typeOf(odd.name)}, ${first.name} ${typeOf(first.name)}; they are loaded as one`);
  }
}

/** The look-up tests only how a name begins: a FLOAT sibling whose name begins like a quantised module turns that module to float. */
function checkPrefixes(c: Check, entries: readonly (readonly [string, unknown])[], quantised: readonly string[]): void {
  const floats = entries
    .filter(([k, v]) => v === 'FLOAT' && k.endsWith('.weight'))
    .map(([k]) => k)
    .sort();
  for (const q of quantised) {
    let [low, high] = [0, floats.length];
    while (low < high) {
      const mid = (low + high) >> 1;
      if ((floats[mid] as string) < q) low = mid + 1;
      else high = mid;
    }
    const f = floats[low];
    if (f?.startsWith(q)) c.say('A7', f, `${f} is FLOAT and begins with ${q}, which is quantised`);
  }
}
