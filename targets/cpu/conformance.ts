// A directory as the project's own program maps it: every tensor once, in a form that it reads, and nothing that it would stumble over. What it
// reads is src/models/weights.ts's to say; this says it again from the directory's side.
import { isObject, type Json, languageConfig, quantisationOf } from '../config.js';
import type { EngineDirectory, EngineModel, Finding, LogicalTensor, StoredTensor } from '../engine.js';
import {
  checkBytes,
  checkIndex,
  checkMtp,
  checkNumbers,
  checkPiece,
  checkTable,
  expertsOf,
  Findings,
  type PieceRules,
  plainDtypes,
} from '../findings.js';

export const cpuRules: Readonly<Record<string, string>> = {
  P1: 'config.json is an object and names its model_type',
  P2: 'every tensor of the model is there',
  P3: 'a tensor stands there once: under one spelling, as a matrix or as packed codes',
  P4: 'nothing else is there but what the program passes over: rope frequencies, the part that sees, a drafter',
  P5: 'a tensor has a dtype that the program reads for it',
  P6: 'a tensor has the shape of the model, in the storage of its dtype',
  P7: 'codes have scales, and plain numbers have none',
  P8: 'scales have a dtype and a shape that go with their codes',
  P9: 'scales are finite and above 0, and those of 8 bits are not NaN',
  P10: 'weight_shape says the shape that the matrix has',
  P11: 'all experts of a layer are stored alike',
  P12: 'the index names exactly the tensors and files that are there, and there is no second index',
  P13: 'bytes of a tensor are those of its dtype and shape',
  P14: 'plain numbers are finite, and FP8 codes are not NaN',
  P15: 'what config.json says of a quantisation is so: its method has codes to speak of, its blocks are those of the scales, expert_dtype is that of the experts',
  P16: 'config.json counts MTP blocks where there are some, and none where there are none',
  P17: 'a table names experts that are there',
};
const pieceRules: PieceRules = { missing: 'P7', dtype: 'P8', shape: 'P8', bytes: 'P13', scale: 'P9', code: 'P14', says: 'P10' };

/** DeepSeek's own spelling and Hugging Face's, part by part (deepseek-ai/DeepSeek-V3, inference/convert.py). */
const spellings: readonly (readonly [native: string, hub: string])[] = [
  ['embed', 'embed_tokens'],
  ['attn_norm', 'input_layernorm'],
  ['ffn_norm', 'post_attention_layernorm'],
  ['wq', 'q_proj'],
  ['wq_a', 'q_a_proj'],
  ['q_norm', 'q_a_layernorm'],
  ['wq_b', 'q_b_proj'],
  ['wkv_a', 'kv_a_proj_with_mqa'],
  ['kv_norm', 'kv_a_layernorm'],
  ['wkv_b', 'kv_b_proj'],
  ['wo', 'o_proj'],
  ['w1', 'gate_proj'],
  ['w2', 'down_proj'],
  ['w3', 'up_proj'],
  ['attn', 'self_attn'],
  ['ffn', 'mlp'],
  ['scale', 'weight_scale_inv'],
];
/** A stored name as the model spells it: V4 in DeepSeek's own way, all others in Hugging Face's. */
function modelsName(name: string, modelType: string): string {
  const bare = name.replace(/^language_model\./, '');
  if (modelType === 'llama' || modelType === 'qwen2') return bare;
  const v4 = modelType === 'deepseek_v4';
  const table = new Map(spellings.map(([native, hub]) => (v4 ? [hub, native] : [native, hub])));
  const parts = bare.split('.');
  if (v4 && parts[0] === 'model') parts.shift();
  if (v4 && parts[0] === 'lm_head') parts[0] = 'head';
  if (!v4 && parts[0] === 'head') parts[0] = 'lm_head';
  if (!v4 && ['embed', 'norm', 'layers'].includes(parts[0] as string)) parts.unshift('model');
  const index = parts.indexOf('indexer');
  return parts
    .map((p, i) => {
      if (v4 && p === 'e_score_correction_bias') return 'bias';
      if (!v4 && p === 'bias' && i === parts.length - 1 && parts[i - 1] === 'gate') return 'e_score_correction_bias';
      // the index's own parts are called alike in both
      if (index >= 0 && i > index && p !== 'scale' && p !== 'weight_scale_inv') return p;
      return table.get(p) ?? p;
    })
    .join('.');
}

export function checkPlain(dir: EngineDirectory, model: EngineModel): readonly Finding[] {
  const c = new Findings();
  const config = dir.json('config.json');
  if (!isObject(config)) c.say('P1', 'config.json', 'config.json is missing or no object');
  else if (typeof languageConfig(config).model_type !== 'string' && typeof config.model_type !== 'string')
    c.say('P1', 'config.json', 'config.json has no model_type');
  const said: Json = isObject(config) ? config : {};
  checkIndex(c, dir, 'P12');
  checkMtp(c, said, model, 'P16');

  const there = new Map<string, StoredTensor>();
  for (const t of dir.tensors.values()) {
    const name = modelsName(t.name, model.modelType);
    const other = there.get(name);
    if (other) c.say('P3', name, `${name} is there twice: as ${other.name} and as ${t.name}`);
    else there.set(name, t);
  }
  const asked = new Set<string>();
  const experts = expertsOf(model);
  const forms = new Map<LogicalTensor, string>();
  for (const t of model.tensors) {
    const form = checkTensor(c, dir, t, said, model.modelType, there, asked, experts);
    if (form !== null) forms.set(t, form);
  }
  for (const [name, t] of there)
    if (!asked.has(name) && !passedOver(name, model, said)) c.say('P4', t.name, `${t.name} is asked for by nothing`);
  checkExperts(c, model, forms);
  checkSaid(c, said, model, forms);
  return c.found;
}

/** What the program does not read and lets stand. */
function passedOver(name: string, model: EngineModel, config: Json): boolean {
  if (/\.rotary_emb\.inv_freq$/.test(name) || /^(vision_tower|mm_projector)\./.test(name)) return true;
  return model.modelType === 'deepseek_v4' && name.startsWith('mtp.') && 'dspark_block_size' in languageConfig(config);
}

const scaleDtypes: Readonly<Record<string, readonly string[]>> = {
  fp8: ['F32', 'BF16', 'F8_E8M0'],
  int8: ['F32', 'BF16'],
  int4: ['F32', 'BF16'],
  fp4: ['F8_E8M0'],
};
/** Holds one tensor of the model against what stands under its name. Its storage in a word, null where that is not known. */
function checkTensor(
  c: Findings,
  dir: EngineDirectory,
  t: LogicalTensor,
  config: Json,
  modelType: string,
  there: ReadonlyMap<string, StoredTensor>,
  asked: Set<string>,
  experts: number,
): string | null {
  const base = t.name.replace(/\.weight$/, '');
  const get = (name: string): StoredTensor | undefined => {
    const s = there.get(name);
    if (s) asked.add(name);
    return s;
  };
  const own = get(t.name);
  const packed = t.matrix ? get(`${base}.weight_packed`) : undefined;
  const scaleName = [`${base}.weight_scale`, `${base}.${modelType === 'deepseek_v4' ? 'scale' : 'weight_scale_inv'}`];
  const scale = t.matrix ? (get(scaleName[0] as string) ?? get(scaleName[1] as string)) : undefined;
  const shape = t.matrix ? get(`${base}.weight_shape`) : undefined;
  if (own && packed) c.say('P3', t.name, `${t.name} is there twice: as ${own.name} and as ${packed.name}`);
  const s = packed ?? own;
  if (!s) {
    if (!t.optional) c.say('P2', t.name, `${t.name} is missing${scale ? '; its scales are there' : ''}`);
    return null;
  }
  if (!checkBytes(c, s, 'P13')) return null;
  if (shape)
    checkPiece(
      c,
      dir,
      t,
      { name: shape.name, dtypes: ['I64', 'I32'], shape: [2], what: 'shape' },
      { ...pieceRules, dtype: 'P10', shape: 'P10' },
    );
  const dims = (want: readonly number[]): boolean => {
    if (s.shape.join() === want.join()) return true;
    c.say('P6', s.name, `${s.name} is [${s.shape.join(', ')}], not [${want.join(', ')}]`);
    return false;
  };
  const table = t.role === 'table';
  const coded = !packed && t.matrix && (s.dtype === 'F8_E4M3' || s.dtype === 'I8');
  if (!packed && !coded) {
    const allowed = table ? ['I64'] : plainDtypes;
    if (!allowed.includes(s.dtype)) {
      c.say('P5', s.name, `${s.name} is ${s.dtype}, not ${allowed.join(' or ')}${t.matrix ? ', F8_E4M3 or I8' : ''}`);
      return null;
    }
    dims(t.shape);
    if (scale) c.say('P7', scale.name, `${scale.name} stands beside plain ${s.dtype}`);
    if (table) checkTable(c, dir, s, experts, 'P17');
    else checkNumbers(c, dir, s, 'P14');
    return s.dtype;
  }
  const [rows, columns] = t.shape as readonly [number, number];
  // compressed-tensors' mxfp4: two codes a byte, exponents in bytes
  const micro = packed?.dtype === 'U8' && scale?.dtype === 'U8';
  const kind = micro ? 'fp4' : packed ? 'int4' : s.dtype === 'F8_E4M3' ? 'fp8' : scale?.dtype === 'F8_E8M0' ? 'fp4' : 'int8';
  if (packed && !micro && s.dtype !== 'I32') {
    c.say('P5', s.name, `${s.name} is ${s.dtype}, not I32`);
    return null;
  }
  if (!scale) {
    c.say('P7', s.name, `${s.name} has codes and no scales`);
    return null;
  }
  if (!dims(kind === 'int4' ? [rows, columns / 8] : kind === 'fp4' ? [rows, columns / 2] : [rows, columns])) return null;
  const wanted = scaleShapes(kind, rows, columns, config);
  const fits = wanted.find(w => w.join() === scale.shape.join());
  checkPiece(
    c,
    dir,
    t,
    {
      name: scale.name,
      dtypes: micro ? ['U8'] : (scaleDtypes[kind] as readonly string[]),
      shape: fits ?? (wanted[0] as readonly number[]),
      what: 'scale',
    },
    // a block that config.json names is config.json's to keep
    fits || kind !== 'fp8' || blocksOf(config) === null ? pieceRules : { ...pieceRules, shape: 'P15' },
  );
  if (kind === 'fp8') checkNumbers(c, dir, s, 'P14');
  return fits ? `${kind} with ${scale.dtype} scales [${fits.join(', ')}]` : null;
}
/** Blocks of fp8 that config.json names. */
function blocksOf(config: Json): readonly [number, number] | null {
  const q = quantisationOf(config);
  const b = isObject(q) && q.quant_method === 'fp8' ? q.weight_block_size : null;
  return Array.isArray(b) && b.length === 2 && b.every(n => Number.isInteger(n) && (n as number) > 0) ? (b as [number, number]) : null;
}
function scaleShapes(kind: string, rows: number, columns: number, config: Json): readonly (readonly number[])[] {
  switch (kind) {
    case 'int8':
      return [[rows, 1], [rows]];
    case 'int4':
      return [32, 64, 128].map(g => [rows, Math.ceil(columns / g)]);
    case 'fp4':
      return [[rows, columns / 32]];
    default: {
      const named = blocksOf(config);
      const blocks = named
        ? [named]
        : ([
            [128, 128],
            [32, 32],
          ] as const);
      return blocks.map(([r, k]) => [Math.ceil(rows / r), Math.ceil(columns / k)]);
    }
  }
}

/** The program holds all experts of a layer as one. */
function checkExperts(c: Findings, model: EngineModel, forms: ReadonlyMap<LogicalTensor, string>): void {
  const first = new Map<string, LogicalTensor>();
  for (const t of model.tensors) {
    const form = forms.get(t);
    if (t.role !== 'expert' || form === undefined) continue;
    const stack = t.name.replace(/\.experts\.\d+\./, '.experts.*.');
    const other = first.get(stack);
    if (!other) first.set(stack, t);
    else if (forms.get(other) !== form)
      c.say('P11', stack, `${t.name} is ${form}, ${other.name} ${forms.get(other)}; they are held as one`);
  }
}

/** What config.json says against what is there. */
function checkSaid(c: Findings, config: Json, model: EngineModel, forms: ReadonlyMap<LogicalTensor, string>): void {
  const q = quantisationOf(config);
  const any = (fits: (form: string, t: LogicalTensor) => boolean): boolean => [...forms].some(([t, form]) => fits(form, t));
  const coded = (form: string): boolean => !plainDtypes.includes(form) && form !== 'I64';
  if (isObject(q) && forms.size > 0) {
    if (!any(coded))
      c.say('P15', 'quantization_config', `quantization_config speaks of ${String(q.quant_method)}, and every matrix is plain`);
    else if (q.quant_method === 'fp8' && !any(f => f.startsWith('fp')))
      c.say('P15', 'quantization_config', 'quantization_config speaks of fp8, and no matrix is in fp8 or fp4');
  }
  if (model.modelType !== 'deepseek_v4') return;
  const expert = languageConfig(config).expert_dtype;
  if (expert === 'fp4' && any((f, t) => t.role === 'expert' && f.startsWith('fp8')))
    c.say('P15', 'expert_dtype', 'expert_dtype is fp4, and experts are in fp8');
  if (expert === 'fp8' && any((f, t) => t.role === 'expert' && f.startsWith('fp4')))
    c.say('P15', 'expert_dtype', 'expert_dtype is fp8, and experts are in fp4');
}
