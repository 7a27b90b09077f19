// A directory as vLLM or SGLang would load it, held against what their loaders want. Read in their sources (vLLM @017e9f44, SGLang @9fec359a,
// compressed-tensors @ac8e2ba8), not run. Every rule has a name; each finding says which rule, where, and what.
import { compressedRules, matchers, readCompressed, type Scheme, schemePieces, show } from '../compressed-tensors.js';
import { isObject, type Json, quantisationOf } from '../config.js';
import type { EngineDirectory, EngineModel, Finding, LogicalTensor, Runtime } from '../engine.js';
import {
  checkArchitecture,
  checkComputed,
  checkFused,
  checkIndex,
  checkMtp,
  checkPiece,
  checkValues,
  Findings,
  type PieceRules,
  plainDtypes,
  textsOf,
} from '../findings.js';
import { baseOf } from '../tensors.js';

export const cudaRules: Readonly<Record<string, string>> = {
  ...compressedRules,
  V1: 'config.json is an object and names the family’s class; it computes in bf16 or f16, and quantization_config, where it is there, has a method that is known',
  V5: 'every tensor that the model and the config call for is there',
  V6: 'no tensor is there that nothing calls for',
  V7: 'dtypes are those of the form',
  V8: 'shapes are those of the form: packed words, groups, blocks',
  V9: 'layers that are fused at load agree: gate and up, q_a and kv_a, all experts of a layer (compressed_tensors/utils.py:66-92)',
  V10: 'the indexer, the compressors and kv_b_proj are plain, and no list of targets takes them in',
  V11: 'scales are finite and above 0',
  V12: 'int8 codes are never -128',
  V13: 'weight_shape says the shape that the tensor has',
  V14: 'the index names exactly the tensors and files that are there, and there is no second index',
  V15: 'groups divide the columns; fp4 wants them in 32s',
  V16: 'the quantised experts have a scheme with MoE kernels in this engine',
  V17: 'bytes of a tensor are those of its dtype and shape',
  V18: 'a zero point is there exactly where the scheme is asymmetric',
  V19: 'an fp8 config has blocks, dynamic activations and, in V4, an expert_dtype that its experts have (vllm/models/deepseek_v4/quant_config.py:29-84)',
  V20: 'the engine that is asked for reads this method',
  V21: 'config.json counts MTP blocks where there are some, and none where there are none',
  V22: 'plain numbers are finite, and FP8 codes are not NaN',
  V23: 'a table names experts that are there',
  S1: 'SGLang on GPUs takes int8 experts as w8a8_int8, not as compressed-tensors',
  S2: 'under w8a8_int8 and blockwise_int8 every expert is int8, in MTP blocks too: no list excepts them',
  S3: 'SGLang reads kv_b_proj as .weight in bf16, fp8 or int8 of its own methods (deepseek_weight_loader.py:501-630)',
  S4: 'blockwise_int8 has blocks of 128 x 128, and the parts of merged layers are whole blocks (blockwise_int8.py, create_weights)',
};
const pieceRules: PieceRules = { missing: 'V5', dtype: 'V7', shape: 'V8', bytes: 'V17', scale: 'V11', code: 'V12', says: 'V13' };

type Method = 'plain' | 'compressed-tensors' | 'fp8' | 'w8a8_int8' | 'blockwise_int8';
interface Wanted {
  readonly method: Method;
  readonly of: (t: LogicalTensor) => Scheme;
}
const plain: Scheme = { kind: 'plain' };
/** Nothing that an engine reads quantised, but for FP8 as DeepSeek has it. */
const always = (t: LogicalTensor): boolean => ['router', 'mtp_merge', 'indexer', 'compressor'].includes(t.role);

function readConfig(c: Findings, dir: EngineDirectory, model: EngineModel, runtime: Runtime | null): Wanted | null {
  const config = dir.json('config.json');
  if (!isObject(config)) {
    c.say('V1', 'config.json', 'config.json is missing or no object');
    return null;
  }
  checkComputed(c, config, 'V1', ['bfloat16', 'float16', 'auto']);
  checkArchitecture(c, config, model, 'V1');
  checkMtp(c, config, model, 'V21');
  const q = quantisationOf(config);
  if (q === null) return { method: 'plain', of: () => plain };
  if (!isObject(q)) {
    c.say('V1', 'quantization_config', 'quantization_config is no object');
    return null;
  }
  const sglangOnly = q.quant_method === 'w8a8_int8' || q.quant_method === 'blockwise_int8';
  if (sglangOnly && runtime && runtime.name !== 'sglang')
    c.say('V20', 'quant_method', `${String(q.quant_method)} is a method of SGLang, not of ${runtime.name}`);
  switch (q.quant_method) {
    case 'fp8':
      return { method: 'fp8', of: native(c, dir, config, q, model) };
    case 'w8a8_int8': {
      const ignored = matchers(c, 'ignore', q.ignore);
      return { method: 'w8a8_int8', of: t => int8(t, null, n => ignored.some(m => m(n))) };
    }
    case 'blockwise_int8': {
      const b = q.weight_block_size;
      if (!Array.isArray(b) || b.join() !== '128,128') c.say('S4', 'weight_block_size', 'weight_block_size is to be [128, 128]');
      if (q.activation_scheme !== 'dynamic') c.say('S4', 'activation_scheme', 'activation_scheme is to be "dynamic"');
      const ignored = new Set(textsOf(q.ignored_layers));
      return { method: 'blockwise_int8', of: t => int8(t, [128, 128], n => ignored.has(n)) };
    }
    case 'compressed-tensors': {
      const of = readCompressed(c, q);
      return of && { method: 'compressed-tensors', of };
    }
    default:
      c.say('V1', 'quant_method', `quant_method ${JSON.stringify(q.quant_method)} is not known`);
      return null;
  }
}
/** SGLang's int8: every linear that is not excepted. */
function int8(t: LogicalTensor, block: readonly [number, number] | null, ignored: (name: string) => boolean): Scheme {
  if (!t.matrix || t.role === 'router' || t.role === 'mtp_merge' || ignored(baseOf(t))) return plain;
  return { kind: 'int8', activations: true, block, suffix: block ? 'weight_scale_inv' : 'weight_scale' };
}

/** DeepSeek's own FP8: every linear that is not excepted; the indexer, compressors and V4's wo_a may be plain without being listed. */
function native(c: Findings, dir: EngineDirectory, config: Json, q: Json, model: EngineModel): (t: LogicalTensor) => Scheme {
  const b = q.weight_block_size;
  const block =
    Array.isArray(b) && b.length === 2 && b.every(n => Number.isInteger(n) && (n as number) > 0) ? (b as [number, number]) : null;
  if (!block) c.say('V19', 'weight_block_size', 'weight_block_size is to be two whole numbers');
  if (q.activation_scheme !== 'dynamic') c.say('V19', 'activation_scheme', 'activation_scheme is to be "dynamic"');
  if (q.fmt !== undefined && q.fmt !== 'e4m3') c.say('V19', 'fmt', `fmt is ${JSON.stringify(q.fmt)}, not "e4m3"`);
  const v4 = model.modelType === 'deepseek_v4';
  const experts = config.expert_dtype ?? 'fp4';
  if (v4 && experts !== 'fp4' && experts !== 'fp8') c.say('V19', 'expert_dtype', `expert_dtype is ${JSON.stringify(experts)}`);
  const suffix = v4 ? 'scale' : 'weight_scale_inv';
  const skipped = new Set([...textsOf(q.modules_to_not_convert), ...textsOf(q.ignored_layers)]);
  const scale = !v4 ? ['F32'] : experts === 'fp4' ? ['F8_E8M0'] : ['F32', 'F8_E8M0'];
  return t => {
    const stored = dir.tensors.get(t.name)?.dtype;
    if (!t.matrix || t.role === 'router' || skipped.has(baseOf(t))) return plain;
    const loose = always(t) || (v4 && t.name.endsWith('.wo_a.weight'));
    if (loose && stored !== undefined && plainDtypes.includes(stored)) return plain;
    if (v4 && t.role === 'expert' && experts === 'fp4') {
      if (stored === 'F8_E4M3') c.say('V19', 'expert_dtype', `expert_dtype is fp4, but ${t.name} is FP8`);
      return { kind: 'fp4', suffix };
    }
    if (v4 && t.role === 'expert' && stored === 'I8') c.say('V19', 'expert_dtype', `expert_dtype is fp8, but ${t.name} is FP4`);
    return { kind: 'fp8', block: block ?? [128, 128], suffix, scale };
  };
}

/** What a tensor's scheme may not be. */
function checkScheme(c: Findings, dir: EngineDirectory, t: LogicalTensor, s: Scheme, method: Method, runtime: Runtime | null): void {
  const name = t.name;
  const sglang = runtime?.name === 'sglang';
  const own = method === 'w8a8_int8' || method === 'blockwise_int8';
  if (s.kind === 'plain') {
    if (own && t.role === 'expert') c.say('S2', name, `${name} is excepted, but ${method} has no plain experts`);
    // stored in a coded form that the config does not speak of
    const other = ['weight_packed', 'weight_scale'].some(x => dir.tensors.has(`${baseOf(t)}.${x}`));
    if (!dir.tensors.has(name) && other && (always(t) || t.role === 'kv_b'))
      c.say('V10', name, `${name} is quantised, and no engine reads it so`);
    return;
  }
  if (always(t) && method !== 'fp8') c.say('V10', name, `${name} is to be plain, but the config takes it in`);
  if (t.role === 'kv_b' && method === 'compressed-tensors') {
    c.say('V10', name, `${name} is absorbed: it is to be plain, and ignored`);
    c.say('S3', name, `${name} would be read as if its codes were values`);
  }
  const [rows, columns] = t.shape as readonly [number, number];
  if (s.kind === 'int4' && s.group > 0 && columns % s.group !== 0)
    c.say('V15', name, `groups of ${s.group} do not divide the ${columns} columns of ${name}`);
  if ((s.kind === 'fp4' || s.kind === 'mxfp4') && columns % 32 !== 0)
    c.say('V15', name, `${columns} columns of ${name} are not whole groups of 32`);
  if (t.role === 'expert') {
    if (s.kind === 'int4' && s.zero) c.say('V16', name, 'asymmetric int4 has no MoE kernel');
    if (s.kind === 'mxfp4' && sglang) c.say('V16', name, 'mxfp4 of compressed-tensors has no MoE kernel in SGLang');
    if (s.kind === 'int8' && method === 'compressed-tensors') {
      if (sglang) c.say('S1', name, 'int8 experts under compressed-tensors run on NPUs alone in SGLang');
      if (!s.activations) c.say('V16', name, 'int8 experts without int8 activations are no scheme that is written here');
    }
  }
  if (method === 'blockwise_int8' && /\.(gate_proj|up_proj|w1|w3|q_a_proj|k_proj|v_proj)\.weight$/.test(name) && rows % 128 !== 0)
    c.say('S4', name, `${rows} rows of ${name} are not whole blocks, and it is part of a merged layer`);
}

/** Hold a directory against the rules. Never throws on what it finds. */
export function checkCuda(dir: EngineDirectory, model: EngineModel, runtime: Runtime | null): readonly Finding[] {
  const c = new Findings();
  checkIndex(c, dir, 'V14');
  const wanted = readConfig(c, dir, model, runtime);
  if (!wanted) return c.found;
  const known = new Set<string>();
  const schemes = new Map<LogicalTensor, Scheme>();
  for (const t of model.tensors) {
    const s = wanted.of(t);
    schemes.set(t, s);
    const pieces = schemePieces(t, s);
    for (const p of pieces) known.add(p.name);
    if (t.optional && pieces.every(p => !dir.tensors.has(p.name))) continue;
    checkScheme(c, dir, t, s, wanted.method, runtime);
    for (const p of pieces) checkPiece(c, dir, t, p, pieceRules);
    const zero = `${baseOf(t)}.weight_zero_point`;
    if (dir.tensors.has(zero) && !(s.kind === 'int4' && s.zero)) {
      known.add(zero);
      c.say('V18', zero, `${zero} is there, but the scheme is symmetric`);
    }
  }
  for (const name of dir.tensors.keys()) if (!known.has(name)) c.say('V6', name, `${name} is called for by nothing`);
  checkValues(c, dir, model, 'V22', 'V23');
  checkFused(c, model, 'V9', t => show(schemes.get(t) ?? plain));
  return c.found;
}
