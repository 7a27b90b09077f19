// A directory as vLLM or SGLang would load it, held against what their loaders want. Read in their sources (vLLM @017e9f44, SGLang @9fec359a,
// compressed-tensors @ac8e2ba8), not run. Every rule has a name; each finding says which rule, where, and what.
import { dtypeBytes, type EngineDirectory, type EngineModel, type Finding, type LogicalTensor, type StoredTensor } from '../engine.js';

export interface CudaProfile {
  readonly engine: 'vllm' | 'sglang';
}
export const cudaRules: Readonly<Record<string, string>> = {
  V1: 'config.json is an object and quantization_config, where it is there, is one with a method that is known',
  V2: 'inside groups and arguments there are no keys but the known ones: the schema forbids extras (compressed-tensors quant_args.py:429)',
  V3: 'formats, bits, types, strategies and group sizes are those of a scheme that exists',
  V4: 'target and ignore entries are names or `re:` expressions that compile',
  V5: 'every tensor that the model and the config call for is there',
  V6: 'no tensor is there that nothing calls for',
  V7: 'dtypes are those of the form',
  V8: 'shapes are those of the form: packed words, groups, blocks',
  V9: 'layers that are fused at load agree: gate and up, q_a and kv_a, all experts of a layer (compressed_tensors/utils.py:66-92)',
  V10: 'router, eh_proj, embeddings, heads, norms, the indexer and kv_b_proj are plain',
  V11: 'scales are finite and above 0',
  V12: 'int8 codes are never -128',
  V13: 'weight_shape says the shape that the tensor has',
  V14: 'the index names exactly the tensors and files that are there, and there is no second index',
  V15: 'groups divide the columns; fp8 blocks want columns in 128s under compressed-tensors',
  V16: 'the quantised experts have a scheme with MoE kernels in this engine',
  V17: 'bytes of a tensor are those of its dtype and shape',
  V18: 'a zero point is there exactly where the scheme is asymmetric',
  V19: 'an fp8 config has blocks and dynamic activations as DeepSeek writes them',
  S1: 'SGLang on GPUs takes int8 as w8a8_int8, not as compressed-tensors',
  S2: 'w8a8_int8 means every linear that is not always plain is int8',
  S3: 'SGLang reads kv_b_proj as .weight in bf16 or fp8 (deepseek_weight_loader.py:501-630)',
};

type Json = Readonly<Record<string, unknown>>;
const isObject = (v: unknown): v is Json => typeof v === 'object' && v !== null && !Array.isArray(v);
const groupKeys = ['targets', 'format', 'weights', 'input_activations', 'output_activations'];
const argKeys = [
  'num_bits',
  'type',
  'symmetric',
  'group_size',
  'strategy',
  'block_structure',
  'dynamic',
  'actorder',
  'scale_dtype',
  'zp_dtype',
  'observer',
  'observer_kwargs',
];
const formats = ['pack-quantized', 'int-quantized', 'float-quantized', 'mxfp4-pack-quantized'];

/** What a matrix is to be stored as. */
type Scheme =
  | { readonly kind: 'plain' }
  | { readonly kind: 'int4'; readonly group: number; readonly zero: boolean }
  | { readonly kind: 'int8' }
  | { readonly kind: 'fp8'; readonly block: readonly [number, number]; readonly suffix: string; readonly scale: readonly string[] }
  | { readonly kind: 'fp4'; readonly suffix: string }
  | { readonly kind: 'mxfp4' };
interface Group {
  readonly targets: readonly string[];
  readonly scheme: Scheme;
}
const plainDtypes = ['BF16', 'F16', 'F32'];
const base = (name: string): string => name.replace(/\.weight$/, '');
const always = (t: LogicalTensor): boolean => ['router', 'mtp_merge', 'indexer', 'compressor'].includes(t.role);
const show = (s: Scheme): string => (s.kind === 'int4' ? `int4 in groups of ${s.group || 'a row'}` : s.kind);

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

/** An expression of `ignore` or `targets`: Python's re.match, anchored at the start. */
function matcher(entry: string): ((name: string) => boolean) | null {
  if (!entry.startsWith('re:')) return name => name === entry;
  try {
    const re = new RegExp(`^(?:${entry.slice(3)})`);
    return name => re.test(name);
  } catch {
    return null;
  }
}

function schemeOf(c: Check, where: string, g: Json, globalFormat: unknown): Scheme | null {
  const w = g.weights;
  if (!isObject(w)) {
    c.say('V3', where, `${where} has no weights`);
    return null;
  }
  for (const [part, v] of [
    ['weights', w],
    ['input_activations', g.input_activations],
    ['output_activations', g.output_activations],
  ] as const)
    if (isObject(v)) {
      for (const k of Object.keys(v))
        if (!argKeys.includes(k)) c.say('V2', `${where}.${part}`, `${JSON.stringify(k)} is no key of ${part}`);
    } else if (v !== null && v !== undefined) c.say('V3', `${where}.${part}`, `${part} is neither an object nor null`);
  const format = g.format ?? globalFormat;
  const group = w.group_size ?? null;
  const a = g.input_activations;
  const bad = (what: string): null => {
    c.say('V3', where, `${where}: ${what}`);
    return null;
  };
  if (!formats.includes(format as string)) return bad(`format ${JSON.stringify(format)} is not one of ${formats.join(', ')}`);
  if (w.dynamic !== false && w.dynamic !== undefined) return bad('weights are never dynamic');
  if (w.actorder !== null && w.actorder !== undefined) return bad('actorder is deprecated and is not written');
  switch (format) {
    case 'pack-quantized':
      if (w.num_bits !== 4 || w.type !== 'int') return bad('pack-quantized is int4 here');
      if (w.strategy === 'group' ? ![32, 64, 128].includes(group as number) : !(w.strategy === 'channel' && group === null))
        return bad(`strategy ${JSON.stringify(w.strategy)} with group_size ${JSON.stringify(group)} has no kernel`);
      if (isObject(a)) return bad('int4 with quantised activations has no kernel on GPUs');
      return { kind: 'int4', group: w.strategy === 'group' ? (group as number) : 0, zero: w.symmetric === false };
    case 'int-quantized':
      if (w.num_bits !== 8 || w.type !== 'int' || w.symmetric !== true) return bad('int-quantized is symmetric int8 here');
      if (w.strategy !== 'channel' || group !== null) return bad('int8 has a scale a row');
      if (
        a !== null &&
        a !== undefined &&
        !(isObject(a) && a.num_bits === 8 && a.type === 'int' && a.strategy === 'token' && a.dynamic === true)
      )
        return bad('activations of int8 are int8 with a dynamic scale a token');
      return { kind: 'int8' };
    case 'float-quantized': {
      const b = w.block_structure;
      if (w.num_bits !== 8 || w.type !== 'float' || w.strategy !== 'block' || !Array.isArray(b) || b.join() !== '128,128')
        return bad('float-quantized is fp8 in blocks of 128 x 128 here');
      return { kind: 'fp8', block: [128, 128], suffix: 'weight_scale', scale: ['F32', 'BF16'] };
    }
    default:
      if (w.num_bits !== 4 || w.type !== 'float' || w.strategy !== 'group' || group !== 32) return bad('mxfp4 is float4 in groups of 32');
      return { kind: 'mxfp4' };
  }
}

interface Wanted {
  readonly of: (t: LogicalTensor) => Scheme;
  /** DeepSeek's own FP8: kv_b_proj is quantised too. */
  readonly native: boolean;
  readonly int8: boolean;
}

function readConfig(c: Check, dir: EngineDirectory, model: EngineModel, profile: CudaProfile): Wanted | null {
  const config = dir.json('config.json');
  if (!isObject(config)) {
    c.say('V1', 'config.json', 'config.json is missing or no object');
    return null;
  }
  const q = config.quantization_config;
  if (q === undefined || q === null) return { of: () => ({ kind: 'plain' }), native: false, int8: false };
  if (!isObject(q)) {
    c.say('V1', 'config.json', 'quantization_config is no object');
    return null;
  }
  const never = (t: LogicalTensor): boolean => !t.matrix || always(t);
  switch (q.quant_method) {
    case 'fp8':
      return native(c, dir, q, model);
    case 'w8a8_int8':
      if (profile.engine !== 'sglang') c.say('V1', 'config.json', 'w8a8_int8 is a method of SGLang alone');
      return {
        of: t =>
          never(t) || t.role === 'kv_b'
            ? { kind: 'plain' }
            : dir.tensors.get(t.name)?.dtype === 'I8'
              ? { kind: 'int8' }
              : { kind: 'plain' },
        native: false,
        int8: true,
      };
    case 'compressed-tensors':
      return compressed(c, q, profile);
    default:
      c.say('V1', 'config.json', `quant_method ${JSON.stringify(q.quant_method)} is not known`);
      return null;
  }
}

function native(c: Check, dir: EngineDirectory, q: Json, model: EngineModel): Wanted {
  const b = q.weight_block_size;
  const block =
    Array.isArray(b) && b.length === 2 && b.every(n => Number.isInteger(n) && (n as number) > 0) ? (b as [number, number]) : null;
  if (!block) c.say('V19', 'config.json', 'weight_block_size is to be two whole numbers');
  if (q.activation_scheme !== 'dynamic') c.say('V19', 'config.json', 'activation_scheme is to be "dynamic"');
  const v4 = model.modelType === 'deepseek_v4';
  const suffix = v4 ? 'scale' : 'weight_scale_inv';
  const skipped = [...listOf(q.modules_to_not_convert), ...listOf(q.ignored_layers)];
  return {
    native: true,
    int8: false,
    of(t) {
      if (!t.matrix || skipped.includes(base(t.name))) return { kind: 'plain' };
      const s = dir.tensors.get(t.name);
      if (v4 && t.role === 'expert' && s?.dtype === 'I8') return { kind: 'fp4', suffix };
      if (always(t) && s && plainDtypes.includes(s.dtype)) return { kind: 'plain' };
      if (v4 && s && plainDtypes.includes(s.dtype)) return { kind: 'plain' };
      return { kind: 'fp8', block: block ?? [128, 128], suffix, scale: v4 ? ['F8_E8M0', 'F32'] : ['F32'] };
    },
  };
}
const listOf = (v: unknown): readonly string[] => (Array.isArray(v) ? v.filter((x): x is string => typeof x === 'string') : []);

function compressed(c: Check, q: Json, profile: CudaProfile): Wanted | null {
  const groups = q.config_groups;
  if (!isObject(groups) || Object.keys(groups).length === 0) {
    c.say('V3', 'config.json', 'config_groups is missing or empty');
    return null;
  }
  if (q.quantization_status !== undefined && q.quantization_status !== 'compressed')
    c.say('V3', 'config.json', `quantization_status ${JSON.stringify(q.quantization_status)} is not "compressed"`);
  const made: Group[] = [];
  for (const [name, g] of Object.entries(groups)) {
    if (!isObject(g)) {
      c.say('V3', name, `${name} is no object`);
      continue;
    }
    for (const k of Object.keys(g)) if (!groupKeys.includes(k)) c.say('V2', name, `${JSON.stringify(k)} is no key of a group`);
    const targets = listOf(g.targets);
    if (!Array.isArray(g.targets) || targets.length !== g.targets.length || targets.length === 0)
      c.say('V4', name, 'targets is to be a list of names');
    for (const t of targets) if (matcher(t) === null) c.say('V4', name, `${t} is no expression`);
    const scheme = schemeOf(c, name, g, q.format);
    if (scheme) made.push({ targets, scheme });
    if (scheme?.kind === 'int8' && profile.engine === 'sglang')
      c.say('S1', name, 'int8 under compressed-tensors runs on NPUs alone in SGLang');
  }
  if (q.ignore !== undefined && !Array.isArray(q.ignore)) c.say('V4', 'ignore', 'ignore is no list');
  const ignore = listOf(q.ignore);
  for (const i of ignore) if (matcher(i) === null) c.say('V4', 'ignore', `${i} is no expression`);
  const ignores = ignore.map(matcher).filter(m => m !== null);
  const byName = made.flatMap(g => g.targets.filter(t => t !== 'Linear').map(t => ({ test: matcher(t), scheme: g.scheme })));
  const linear = made.find(g => g.targets.includes('Linear'))?.scheme;
  return {
    native: false,
    int8: false,
    of(t) {
      const name = base(t.name);
      if (
        t.role === 'router' ||
        t.role === 'mtp_merge' ||
        t.role === 'embedding' ||
        t.role === 'head' ||
        t.shape.length !== 2 ||
        t.role === 'hyper' ||
        t.role === 'bias'
      )
        return { kind: 'plain' }; // no Linear of the engine, whatever the config says
      if (!t.matrix && t.role !== 'indexer') return { kind: 'plain' };
      if (ignores.some(m => m(name))) return { kind: 'plain' };
      return byName.find(g => g.test?.(name))?.scheme ?? linear ?? { kind: 'plain' };
    },
  };
}

interface Piece {
  readonly name: string;
  readonly dtypes: readonly string[];
  readonly shape: readonly number[];
  readonly what: 'codes' | 'scale' | 'shape' | 'zeros' | 'plain';
}
function piecesOf(t: LogicalTensor, s: Scheme): readonly Piece[] {
  const b = base(t.name);
  const [rows, columns] = [t.shape[0] ?? 0, t.shape[1] ?? 1];
  switch (s.kind) {
    case 'plain':
      return [{ name: t.name, dtypes: t.role === 'table' ? ['I64', 'I32'] : plainDtypes, shape: t.shape, what: 'plain' }];
    case 'int4': {
      const across = s.group === 0 ? 1 : Math.ceil(columns / s.group);
      return [
        { name: `${b}.weight_packed`, dtypes: ['I32'], shape: [rows, Math.ceil(columns / 8)], what: 'codes' },
        { name: `${b}.weight_scale`, dtypes: ['BF16', 'F16', 'F32'], shape: [rows, across], what: 'scale' },
        { name: `${b}.weight_shape`, dtypes: ['I64', 'I32'], shape: [2], what: 'shape' },
        ...(s.zero
          ? [{ name: `${b}.weight_zero_point`, dtypes: ['I32'], shape: [Math.ceil(rows / 8), across], what: 'zeros' } as const]
          : []),
      ];
    }
    case 'int8':
      return [
        { name: t.name, dtypes: ['I8'], shape: t.shape, what: 'codes' },
        { name: `${b}.weight_scale`, dtypes: ['F32', 'BF16'], shape: [rows, 1], what: 'scale' },
      ];
    case 'fp8':
      return [
        { name: t.name, dtypes: ['F8_E4M3'], shape: t.shape, what: 'codes' },
        {
          name: `${b}.${s.suffix}`,
          dtypes: s.scale,
          shape: [Math.ceil(rows / s.block[0]), Math.ceil(columns / s.block[1])],
          what: 'scale',
        },
      ];
    case 'fp4':
      return [
        { name: t.name, dtypes: ['I8'], shape: [rows, columns / 2], what: 'codes' },
        { name: `${b}.${s.suffix}`, dtypes: ['F8_E8M0'], shape: [rows, columns / 32], what: 'scale' },
      ];
    case 'mxfp4':
      return [
        { name: `${b}.weight_packed`, dtypes: ['U8'], shape: [rows, columns / 2], what: 'codes' },
        { name: `${b}.weight_scale`, dtypes: ['U8'], shape: [rows, columns / 32], what: 'scale' },
      ];
  }
}

/** Scan a tensor's bytes in pieces; `bad` says what is wrong with one, or null. */
function scan(dir: EngineDirectory, s: StoredTensor, bad: (v: DataView) => string | null): string | null {
  const size = s.bytes[1] - s.bytes[0];
  for (let p = 0; p < size; p += 1 << 20) {
    const bytes = dir.read(s, p, Math.min(size, p + (1 << 20)));
    const found = bad(new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength));
    if (found) return found;
  }
  return null;
}
function badScale(dtype: string): (v: DataView) => string | null {
  const test = (x: number): string | null => (x > 0 && x < Number.POSITIVE_INFINITY ? null : `it holds ${x}`);
  return v => {
    if (dtype === 'F32') {
      for (let i = 0; i + 4 <= v.byteLength; i += 4)
        if (!(v.getFloat32(i, true) > 0) || v.getFloat32(i, true) === Number.POSITIVE_INFINITY) return test(v.getFloat32(i, true));
    } else if (dtype === 'BF16' || dtype === 'F16') {
      const top = dtype === 'BF16' ? 0x7f80 : 0x7c00;
      for (let i = 0; i + 2 <= v.byteLength; i += 2) {
        const h = v.getUint16(i, true);
        if (h === 0 || h >= top) return `it holds the code 0x${h.toString(16)}`;
      }
    } else for (let i = 0; i < v.byteLength; i++) if (v.getUint8(i) === 255) return 'it holds a NaN';
    return null;
  };
}

function checkPiece(c: Check, dir: EngineDirectory, t: LogicalTensor, p: Piece): void {
  const s = dir.tensors.get(p.name);
  if (!s) {
    c.say('V5', p.name, `${p.name} is missing`);
    return;
  }
  if (!p.dtypes.includes(s.dtype)) c.say('V7', p.name, `${p.name} is ${s.dtype}, not ${p.dtypes.join(' or ')}`);
  if (s.shape.join() !== p.shape.join()) c.say('V8', p.name, `${p.name} is [${s.shape.join(', ')}], not [${p.shape.join(', ')}]`);
  const size = s.shape.reduce((a, b) => a * b, 1) * (dtypeBytes[s.dtype] ?? Number.NaN);
  if (s.bytes[1] - s.bytes[0] !== size) {
    c.say('V17', p.name, `${p.name} has ${s.bytes[1] - s.bytes[0]} bytes, its shape ${size}`);
    return;
  }
  if (!p.dtypes.includes(s.dtype)) return;
  if (p.what === 'scale') {
    const bad = scan(dir, s, badScale(s.dtype));
    if (bad) c.say('V11', p.name, `${p.name} is no scale: ${bad}`);
  } else if (p.what === 'codes' && s.dtype === 'I8' && s.shape.join() === t.shape.join()) {
    const bad = scan(dir, s, v => {
      for (let i = 0; i < v.byteLength; i++) if (v.getInt8(i) === -128) return 'a code is -128';
      return null;
    });
    if (bad) c.say('V12', p.name, `${p.name}: ${bad}`);
  } else if (p.what === 'shape' && size > 0) {
    const bytes = dir.read(s, 0, size);
    const v = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const says = [0, 1].map(i => (s.dtype === 'I64' ? Number(v.getBigInt64(8 * i, true)) : v.getInt32(4 * i, true)));
    if (says.join() !== t.shape.join()) c.say('V13', p.name, `${p.name} says [${says.join(', ')}], the tensor is [${t.shape.join(', ')}]`);
  }
}

/** Hold a directory against the rules. Never throws on what it finds. */
export function checkCuda(dir: EngineDirectory, model: EngineModel, profile: CudaProfile): readonly Finding[] {
  const c = new Check();
  const wanted = readConfig(c, dir, model, profile);
  if (!wanted) return c.found;
  const known = new Set<string>();
  const schemes = new Map<string, Scheme>();
  for (const t of model.tensors) {
    const s = wanted.of(t);
    schemes.set(t.name, s);
    const pieces = piecesOf(t, s);
    for (const p of pieces) known.add(p.name);
    if (s.kind === 'plain' && !dir.tensors.has(t.name) && t.matrix) {
      // stored in a coded form that the config does not speak of
      const other = ['weight_packed', 'weight_scale'].map(x => `${base(t.name)}.${x}`).find(n => dir.tensors.has(n));
      if (other && (always(t) || t.role === 'kv_b')) c.say('V10', t.name, `${t.name} is quantised, and no engine reads it so`);
    }
    if (s.kind !== 'plain' && always(t) && !wanted.native)
      c.say('V10', t.name, `${t.name} is to be plain, but the config does not ignore it`);
    if (s.kind !== 'plain' && t.role === 'kv_b' && !(wanted.native && s.kind === 'fp8')) {
      c.say('V10', t.name, `${t.name} is absorbed: it is to be plain, and ignored`);
      if (profile.engine === 'sglang') c.say('S3', t.name, `${t.name} would be read as if its codes were values`);
    }
    if (wanted.int8 && t.matrix && s.kind === 'plain' && !always(t) && t.role !== 'kv_b' && !t.mtp)
      c.say('S2', t.name, `${t.name} is not int8, but w8a8_int8 has no list of exceptions`);
    const columns = t.shape[1] ?? 0;
    if (s.kind === 'int4' && s.group > 0 && columns % s.group !== 0)
      c.say('V15', t.name, `groups of ${s.group} do not divide ${columns} columns`);
    if (s.kind === 'fp8' && s.suffix === 'weight_scale' && columns % 128 !== 0)
      c.say('V15', t.name, `${columns} columns are not whole blocks of 128`);
    if ((s.kind === 'fp4' || s.kind === 'mxfp4') && columns % 32 !== 0)
      c.say('V15', t.name, `${columns} columns are not whole groups of 32`);
    if (t.role === 'expert' && s.kind === 'int4' && s.zero) c.say('V16', t.name, 'asymmetric int4 has no MoE kernel');
    if (t.role === 'expert' && s.kind === 'mxfp4' && profile.engine === 'sglang')
      c.say('V16', t.name, 'mxfp4 of compressed-tensors has no MoE kernel in SGLang');
    for (const p of pieces) checkPiece(c, dir, t, p);
    const zero = `${base(t.name)}.weight_zero_point`;
    if (dir.tensors.has(zero) && !(s.kind === 'int4' && s.zero)) {
      known.add(zero);
      c.say('V18', zero, `${zero} is there, but the scheme is symmetric`);
    }
  }
  for (const name of dir.tensors.keys()) if (!known.has(name)) c.say('V6', name, `${name} is called for by nothing`);
  checkFused(c, model, schemes);
  checkIndex(c, dir);
  return c.found;
}

function checkFused(c: Check, model: EngineModel, schemes: ReadonlyMap<string, Scheme>): void {
  const sets = new Map<string, LogicalTensor[]>();
  const put = (key: string, t: LogicalTensor): void => void sets.set(key, [...(sets.get(key) ?? []), t]);
  for (const t of model.tensors) {
    if (t.role === 'expert') put(t.name.replace(/\.experts\..*$/, '.experts'), t);
    else if (/\.(gate_proj|up_proj|w1|w3)\.weight$/.test(t.name))
      put(t.name.replace(/\.(gate_proj|up_proj|w1|w3)\.weight$/, '.gate_up_proj'), t);
    else if (/\.(q_a_proj|kv_a_proj_with_mqa)\.weight$/.test(t.name))
      put(t.name.replace(/\.(q_a_proj|kv_a_proj_with_mqa)\.weight$/, '.fused_qkv_a_proj'), t);
    else if (/\.(q_proj|k_proj|v_proj)\.weight$/.test(t.name) && (model.modelType === 'llama' || model.modelType === 'qwen2'))
      put(t.name.replace(/\.(q_proj|k_proj|v_proj)\.weight$/, '.qkv_proj'), t);
  }
  for (const [name, all] of sets) {
    const first = all[0] as LogicalTensor;
    const odd = all.find(t => show(schemes.get(t.name) as Scheme) !== show(schemes.get(first.name) as Scheme));
    if (odd)
      c.say(
        'V9',
        name,
        `${odd.name} is ${show(schemes.get(odd.name) as Scheme)}, ${first.name} ${show(schemes.get(first.name) as Scheme)}; they are fused`,
      );
  }
}

function checkIndex(c: Check, dir: EngineDirectory): void {
  const indices = dir.files.filter(f => f.endsWith('.safetensors.index.json'));
  for (const f of indices) if (f !== 'model.safetensors.index.json') c.say('V14', f, `${f} is a second index`);
  const shards = new Set([...dir.tensors.values()].map(t => t.file));
  const name = 'model.safetensors.index.json';
  const index = dir.json(name);
  if (index === undefined) {
    if (shards.size > 1) c.say('V14', name, 'there are several shards and no index');
    return;
  }
  const map = isObject(index) ? index.weight_map : undefined;
  if (!isObject(map)) {
    c.say('V14', name, 'weight_map is missing');
    return;
  }
  for (const [t, file] of Object.entries(map)) {
    if (!dir.files.includes(String(file))) c.say('V14', t, `the index sends ${t} to ${String(file)}, which is not there`);
    else if (dir.tensors.get(t)?.file !== file) c.say('V14', t, `the index sends ${t} to ${String(file)}, which does not hold it`);
  }
  for (const t of dir.tensors.keys()) if (!Object.hasOwn(map, t)) c.say('V14', t, `${t} is not in the index`);
}
