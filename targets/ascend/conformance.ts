// A directory held against what vllm-ascend, SGLang and MindIE want, whichever of four kinds it is: AscendV1 with its description,
// compressed-tensors, DeepSeek's own FP8, or plain. Read in vllm-ascend@182b75ea (quantization/*, models/deepseek_v4), v0.18.0 and v0.23.0;
// not run on a device. Not held here: A13, the map of experts to ranks, and A14, bytes a rank against the device's memory; both belong to a
// parallel plan, which a directory does not have.
import { compressedRules, readCompressed, type Scheme, schemePieces, show } from '../compressed-tensors.js';
import { isObject, type Json, languageConfig, quantisationOf } from '../config.js';
import type { EngineDirectory, EngineModel, Finding, LogicalTensor, Runtime, StoredTensor } from '../engine.js';
import {
  checkArchitecture,
  checkComputed,
  checkFused,
  checkIndex,
  checkMtp,
  checkPiece,
  checkValues,
  Findings,
  type Piece,
  type PieceRules,
  plainDtypes,
} from '../findings.js';
import { baseOf } from '../tensors.js';
import { is310p, modelObjection, nativeObjection, typeObjection, types } from './schemes.js';

export const ascendRules: Readonly<Record<string, string>> = {
  A1: 'quant_model_description.json is an object, its version "1.0.0", its group_size 0, or 32 with MXFP types, its model_quant_type one that is written',
  A2: 'the description has an entry for every tensor, and for nothing else but its own keys',
  A3: 'the tensors are exactly those that the model has in these types, MTP blocks too',
  A4: 'dtypes and shapes are those that the loader allocates',
  A5: 'fused layers agree, and so do all experts of a layer: only expert 0 is looked at',
  A6: 'every type is registered in this version, for linears or for experts, and runs on the chip',
  A7: 'no FLOAT name extends the name of a quantised module: the look-up has no dot and would make it float',
  A8: 'norms, router, kv_b_proj, the indexer, wo_a, embeddings, lm_head and the parts of MTP are FLOAT',
  A9: 'beside a description config.json says nothing of a quantisation; torch_dtype is bfloat16, and architectures the family’s class',
  A10: 'the index names exactly the tensors and files that are there, and there is no second index',
  A11: 'offsets are zero; scales are finite, above 0 and exact in bf16; int8 codes are never -128',
  A12: 'scale_bias is eight times the sum of codes times the scale, in 16 parts for down projections',
  A15: 'e_score_correction_bias is F32',
  A16: 'compressed-tensors is W8A8_DYNAMIC on any linear or W4A16 on routed experts (compressed_tensors_config.py:340-437, w4a16.py:110)',
  A17: 'group_size at the top of quantization_config is that of the int4 experts: 32 where it is absent (compressed_tensors_config.py:77)',
  A18: 'the chip has what the directory needs, and the engine that is asked for reads its kind',
  A19: 'config.json counts MTP blocks where there are some, and none where there are none',
  A20: "DeepSeek's own FP8 is of V4 with fp4 experts, and passed on to the 950 (fp8_config.py:24-72)",
  A21: 'plain numbers are finite, and FP8 codes are not NaN',
  A22: 'a table names experts that are there',
};
/** Rules of compressed-tensors hold too where a directory is of that kind. */
export const ascendCompressedRules = compressedRules;

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
const pieceRules: PieceRules = { missing: 'A3', dtype: 'A4', shape: 'A4', bytes: 'A4', scale: 'A11', code: 'A11', says: 'A4' };
const isDown = (name: string): boolean => /\.(down_proj|w2)\.weight$/.test(name);
const mustBeFloat = (t: LogicalTensor): boolean =>
  !t.matrix ||
  ['router', 'kv_b', 'indexer', 'mtp_merge', 'compressor', 'embedding', 'head', 'norm'].includes(t.role) ||
  t.name.endsWith('.wo_a.weight');
const descriptionFile = 'quant_model_description.json';
const spelt = (v: unknown): string => (v === undefined ? 'absent' : JSON.stringify(v));

/** Hold a directory against the rules. Never throws on what it finds. */
export function checkAscend(dir: EngineDirectory, model: EngineModel, chip: string, runtime: Runtime | null): readonly Finding[] {
  const c = new Findings();
  checkIndex(c, dir, 'A10');
  checkValues(c, dir, model, 'A21', 'A22');
  const no = modelObjection(model.modelType === 'deepseek_v4', runtime);
  if (no) c.say('A18', 'runtime', no);
  if (is310p(chip)) {
    const bf16 = [...dir.tensors.values()].find(t => t.dtype === 'BF16');
    if (bf16) c.say('A18', bf16.name, `${bf16.name} is BF16, and 310P has no bf16`);
  }
  const config = dir.json('config.json');
  if (!isObject(config)) {
    c.say('A9', 'config.json', 'config.json is missing or no object');
    return c.found;
  }
  checkComputed(c, config, 'A9', ['bfloat16']);
  checkArchitecture(c, config, model, 'A9');
  checkMtp(c, config, model, 'A19');
  const q = quantisationOf(config);
  if (dir.files.includes(descriptionFile)) {
    for (const [where, o] of [
      ['config.json', config],
      ['text_config', languageConfig(config)],
    ] as const)
      for (const k of ['quantization_config', 'compression_config'])
        if (k in o) c.say('A9', k, `${where} still has ${k}: the description would be ignored`);
    checkDescribed(c, dir, model, chip, runtime);
  } else if (q === null) checkStored(c, dir, model, t => [plainPiece(t)]);
  else if (isObject(q) && q.quant_method === 'compressed-tensors') checkCompressed(c, dir, model, q, chip, runtime);
  else if (isObject(q) && q.quant_method === 'fp8') checkNative(c, dir, model, config, chip, runtime);
  else c.say('A9', 'quantization_config', `quant_method ${spelt(isObject(q) ? q.quant_method : q)} is none that is read on NPUs`);
  return c.found;
}

const plainPiece = (t: LogicalTensor): Piece => ({
  name: t.name,
  dtypes: t.role === 'table' ? ['I64', 'I32'] : plainDtypes,
  shape: t.shape,
  what: 'any',
});
/** Every tensor of the model, in the pieces it should have; nothing else. */
function checkStored(c: Findings, dir: EngineDirectory, model: EngineModel, pieces: (t: LogicalTensor) => readonly Piece[]): void {
  const known = new Set<string>();
  for (const t of model.tensors) {
    const all = pieces(t);
    for (const p of all) known.add(p.name);
    if (t.optional && all.every(p => !dir.tensors.has(p.name))) continue;
    if (t.role === 'router_bias') {
      const s = dir.tensors.get(t.name);
      if (s && plainDtypes.includes(s.dtype) && s.dtype !== 'F32') c.say('A15', t.name, `${t.name} is ${s.dtype}, not F32`);
    }
    for (const p of all) checkPiece(c, dir, t, p, pieceRules);
  }
  for (const name of dir.tensors.keys()) if (!known.has(name)) c.say('A3', name, `${name} belongs to no tensor of the model in this type`);
}

// ---- AscendV1

/** What the loader allocates for a type (by type in vllm_ascend/quantization/methods). */
function typePieces(t: LogicalTensor, type: string): readonly Piece[] {
  const b = baseOf(t);
  const [rows, columns] = [t.shape[0] ?? 0, t.shape[1] ?? 1];
  const scale: Piece = { name: `${b}.weight_scale`, dtypes: ['F32', 'BF16'], shape: [rows, 1], what: 'exact' };
  const offset: Piece = { name: `${b}.weight_offset`, dtypes: ['F32', 'BF16'], shape: [rows, 1], what: 'offset' };
  const exponents: Piece = { name: `${b}.weight_scale`, dtypes: ['U8'], shape: [rows, columns / 32], what: 'scale' };
  switch (type) {
    case 'W8A8_DYNAMIC':
      return [{ name: t.name, dtypes: ['I8'], shape: t.shape, what: 'int8' }, scale, offset];
    case 'W4A8_DYNAMIC':
      return [
        { name: t.name, dtypes: ['I8'], shape: [rows / 2, columns], what: 'any' },
        { ...scale, dtypes: ['F32'] },
        { ...offset, dtypes: ['F32'] },
        { name: `${b}.scale_bias`, dtypes: ['F32'], shape: [rows, isDown(t.name) ? 16 : 1], what: 'any' },
      ];
    case 'W8A8_MXFP8':
      return [{ name: t.name, dtypes: ['F8_E4M3'], shape: t.shape, what: 'any' }, exponents];
    case 'W4A8_MXFP':
      return [{ name: t.name, dtypes: ['U8'], shape: [rows, columns / 2], what: 'any' }, exponents];
    default:
      return [plainPiece(t)];
  }
}
function checkDescribed(c: Findings, dir: EngineDirectory, model: EngineModel, chip: string, runtime: Runtime | null): void {
  const d = dir.json(descriptionFile);
  if (!isObject(d)) {
    c.say('A1', descriptionFile, `${descriptionFile} is no object`);
    return;
  }
  const described = Object.keys(d).filter(k => !metaKeys.includes(k));
  const said = new Set<unknown>();
  for (const k of described) said.add(d[k]);
  const mx = said.has('W8A8_MXFP8') || said.has('W4A8_MXFP');
  if (d.version !== '1.0.0') c.say('A1', 'version', `version is ${spelt(d.version)}, not "1.0.0"`);
  if (d.group_size !== (mx ? 32 : 0)) c.say('A1', 'group_size', `group_size is ${spelt(d.group_size)}, not ${mx ? 32 : 0}`);
  if (d.model_quant_type !== 'FLOAT' && !Object.hasOwn(types, String(d.model_quant_type)))
    c.say('A1', 'model_quant_type', `model_quant_type is ${spelt(d.model_quant_type)}, which is not one that is written`);
  const isType = (v: unknown): v is string => v === 'FLOAT' || (typeof v === 'string' && Object.hasOwn(types, v));
  for (const k of described) {
    const v = d[k];
    if (!dir.tensors.has(k)) c.say('A2', k, `${k} is described, but no shard holds it`);
    if (!isType(v)) c.say('A6', k, `${k} is of type ${JSON.stringify(v)}, which is not one that is written`);
  }
  for (const name of dir.tensors.keys())
    if (!Object.hasOwn(d, name) || metaKeys.includes(name)) c.say('A2', name, `${name} has no entry in the description`);
  const typeOf = (t: LogicalTensor): string => {
    const v = Object.hasOwn(d, t.name) ? d[t.name] : undefined;
    return isType(v) ? v : 'FLOAT';
  };
  const v4 = model.modelType === 'deepseek_v4';
  for (const t of model.tensors) {
    const type = typeOf(t);
    if (type === 'FLOAT') continue;
    if (mustBeFloat(t)) c.say('A8', t.name, `${t.name} must be FLOAT, it is ${type}`);
    const no = typeObjection(type, t.role === 'expert' ? 'moe' : 'linear', chip, v4, runtime);
    if (no) c.say('A6', t.name, `${t.name}: ${no}`);
    for (const p of typePieces(t, type))
      if (Object.hasOwn(d, p.name) && d[p.name] !== type)
        c.say('A5', p.name, `${p.name} is ${JSON.stringify(d[p.name])}, its weight ${type}`);
    if (type === 'W4A8_DYNAMIC') checkBias(c, dir, t);
  }
  checkStored(c, dir, model, t => typePieces(t, typeOf(t)));
  checkFused(c, model, 'A5', typeOf);
  checkPrefixes(c, d, described, model.tensors.filter(t => typeOf(t) !== 'FLOAT').map(baseOf));
}

/** scale_bias from the packed codes themselves. */
function checkBias(c: Findings, dir: EngineDirectory, t: LogicalTensor): void {
  const b = baseOf(t);
  const [codes, scale, bias] = [dir.tensors.get(t.name), dir.tensors.get(`${b}.weight_scale`), dir.tensors.get(`${b}.scale_bias`)];
  const [rows, columns] = [t.shape[0] ?? 0, t.shape[1] ?? 1];
  const chunks = isDown(t.name) ? 16 : 1;
  const fits = (s: StoredTensor | undefined, bytes: number): s is StoredTensor => s !== undefined && s.bytes[1] - s.bytes[0] === bytes;
  if (!fits(codes, (rows / 2) * columns) || !fits(scale, rows * 4) || !fits(bias, rows * chunks * 4)) return;
  if (columns % chunks !== 0) {
    c.say('A12', t.name, `${columns} columns of ${t.name} do not make ${chunks} equal parts`);
    return;
  }
  const each = dir.sampled ? 1 : Math.max(1, Math.floor((1 << 20) / columns));
  for (let r = 0; r < rows / 2; r += dir.sampled ? Math.max(1, rows / 2 - 1) : each) {
    const n = Math.min(each, rows / 2 - r);
    const q = dir.read(codes, r * columns, (r + n) * columns).slice();
    const sb = dir.read(scale, 2 * r * 4, 2 * (r + n) * 4).slice();
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
          c.say('A12', `${b}.scale_bias`, `row ${2 * r + i}, part ${k} of ${b}.scale_bias is ${is}; the codes give ${8 * sum * s}`);
          return;
        }
      }
  }
}

/** The look-up tests only how a name begins: a FLOAT sibling whose name begins like a quantised module turns that module to float. */
function checkPrefixes(c: Findings, d: Json, described: readonly string[], quantised: readonly string[]): void {
  const floats = described.filter(k => d[k] === 'FLOAT' && k.endsWith('.weight')).sort();
  for (const q of quantised) {
    let [low, high] = [0, floats.length];
    while (low < high) {
      const mid = (low + high) >> 1;
      if ((floats[mid] as string) < q) low = mid + 1;
      else high = mid;
    }
    const f = floats[low];
    if (f?.startsWith(q) && f !== `${q}.weight`) c.say('A7', f, `${f} is FLOAT and begins with ${q}, which is quantised`);
  }
}

// ---- the other kinds

function checkCompressed(c: Findings, dir: EngineDirectory, model: EngineModel, q: Json, chip: string, runtime: Runtime | null): void {
  if (runtime?.name === 'mindie') c.say('A18', 'quant_method', 'MindIE reads AscendV1, not compressed-tensors');
  const of = readCompressed(c, q);
  if (!of) return;
  const schemes = new Map<LogicalTensor, Scheme>(model.tensors.map(t => [t, of(t)]));
  for (const [t, s] of schemes) {
    if (s.kind === 'plain') continue;
    if (mustBeFloat(t)) c.say('A8', t.name, `${t.name} must be plain, but the config takes it in as ${show(s)}`);
    else if (s.kind === 'int8') {
      if (!s.activations) c.say('A16', t.name, `${t.name} is int8 without int8 activations, for which there is no scheme`);
      const no = typeObjection('W8A8_DYNAMIC', t.role === 'expert' ? 'moe' : 'linear', chip, model.modelType === 'deepseek_v4', runtime);
      if (no) c.say('A6', t.name, `${t.name}: ${no}`);
    } else if (s.kind === 'int4') {
      if (t.role !== 'expert') c.say('A16', t.name, `${t.name} is int4, but W4A16 is for routed experts alone`);
      if (s.group === 0 || s.zero) c.say('A16', t.name, `${t.name}: W4A16 has symmetric groups`);
      const group = q.group_size ?? 32;
      if (s.group !== group) c.say('A17', 'group_size', `experts are in groups of ${s.group}, group_size says ${JSON.stringify(group)}`);
    } else c.say('A16', t.name, `${t.name} is ${show(s)}, for which there is no scheme`);
  }
  checkStored(c, dir, model, t => schemePieces(t, schemes.get(t) as Scheme, true));
  checkFused(c, model, 'A5', t => show(schemes.get(t) as Scheme));
}

function checkNative(c: Findings, dir: EngineDirectory, model: EngineModel, config: Json, chip: string, runtime: Runtime | null): void {
  const no = nativeObjection(chip, model.modelType === 'deepseek_v4', runtime);
  if (no) {
    c.say('A20', 'quant_method', no);
    return;
  }
  const experts = config.expert_dtype ?? 'fp4';
  if (experts !== 'fp4') c.say('A20', 'expert_dtype', `expert_dtype is ${JSON.stringify(experts)}; vllm-ascend has a method for fp4 alone`);
  checkStored(c, dir, model, t => {
    const stored = dir.tensors.get(t.name)?.dtype ?? '';
    if (!t.matrix) return [plainPiece(t)];
    const loose = ['indexer', 'compressor', 'mtp_merge'].includes(t.role) || t.name.endsWith('.wo_a.weight');
    if (loose && plainDtypes.includes(stored)) return [plainPiece(t)];
    return schemePieces(
      t,
      t.role === 'expert' ? { kind: 'fp4', suffix: 'scale' } : { kind: 'fp8', block: [128, 128], suffix: 'scale', scale: ['F8_E8M0'] },
    );
  });
}
