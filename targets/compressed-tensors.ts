// compressed-tensors in config.json: written from chosen forms, read back as an engine reads it. Shared by the targets whose engines load it.
// (schema: vllm-project/compressed-tensors@ac8e2ba8, quantization/quant_config.py:157-166, quant_args.py:429, quant_scheme.py:96;
// matching: vllm@017e9f44, compressed_tensors/utils.py:66-193; vllm-ascend@182b75ea, quantization/compressed_tensors_config.py)
import type { CodedForm } from '../ir/form.js';
import { isObject, type Json } from './config.js';
import type { Chosen, LogicalTensor, Recipe } from './engine.js';
import { type Findings, type Piece, plainDtypes, textsOf } from './findings.js';
import { baseOf, codedOf } from './tensors.js';

// ---- writing

/** `model.layers.3.mlp.experts.7.up_proj` without its numbers: `mlp.experts.*.up_proj`. */
const tail = (name: string): string => name.replace(/^(?:.*?\.)??(?:layers|mtp)\.\d+\./, '').replace(/\.experts\.\d+\./, '.experts.*.');
const expression = (text: string): string => `${text.replaceAll('.', '\\.').replaceAll('*', '\\d+')}$`;
const inLayer = (name: string): boolean => /(^|\.)(layers|mtp)\.\d+\./.test(name);
/** An MTP block's names begin with this. */
const blockOf = (name: string): string => (/^(?:.*\.)?(?:layers|mtp)\.\d+\./.exec(name) as RegExpExecArray)[0];

/**
 * What stays plain, as expressions from a name's start: shorter than a list of every layer. A last name that is plain everywhere is one
 * expression; a plain MTP block is one, with `model.decoder`, the name under which SGLang builds it (deepseek_nextn.py); others stand alone.
 */
export function ignoreList(chosen: readonly Chosen[]): readonly string[] {
  const linear = chosen.filter(
    c => c.tensor.shape.length === 2 && (c.tensor.matrix || c.tensor.role === 'router' || c.tensor.role === 'indexer'),
  );
  const isCoded = (c: Chosen): boolean => codedOf(c) !== null;
  const plain = linear.filter(c => !isCoded(c));
  const codedTails = new Set(linear.filter(isCoded).map(c => tail(baseOf(c.tensor))));
  const codedBlocks = new Set(linear.filter(c => c.tensor.mtp && isCoded(c)).map(c => blockOf(c.tensor.name)));
  const list = new Set<string>(['lm_head']);
  for (const c of plain) {
    const name = baseOf(c.tensor);
    if (c.tensor.mtp && !codedBlocks.has(blockOf(c.tensor.name))) {
      list.add(`re:${blockOf(c.tensor.name).replaceAll('.', '\\.')}.*`);
      list.add('re:model\\.decoder\\..*');
    } else if (inLayer(name) && !codedTails.has(tail(name))) list.add(`re:.*\\.${expression(tail(name))}`);
    else list.add(name);
  }
  return [...list].sort();
}

const weightArgs = (f: CodedForm): Json => ({
  num_bits: f.element === 'i4' || f.element === 'f4e2m1' ? 4 : 8,
  type: f.element === 'i8' || f.element === 'i4' ? 'int' : 'float',
  symmetric: !f.zero,
  strategy: f.block[0] > 1 ? 'block' : f.block[1] === 0 ? 'channel' : 'group',
  group_size: f.block[0] === 1 && f.block[1] > 0 ? f.block[1] : null,
  dynamic: false,
  actorder: null,
  block_structure: f.block[0] > 1 ? f.block : null,
  ...(f.element === 'f4e2m1' ? { scale_dtype: 'torch.uint8' } : {}),
  observer: 'minmax',
  observer_kwargs: {},
});
const formatOf = (f: CodedForm): string =>
  ({ i8: 'int-quantized', i4: 'pack-quantized', f8e4m3: 'float-quantized', f4e2m1: 'mxfp4-pack-quantized' })[f.element];
const activations = (recipe: Recipe, f: CodedForm): Json | null =>
  recipe.activations === 'int8' && f.element === 'i8'
    ? { num_bits: 8, type: 'int', symmetric: true, strategy: 'token', group_size: null, dynamic: true, observer: null, observer_kwargs: {} }
    : null;
const keyOf = (f: CodedForm): string => `${f.element} ${f.block.join('x')} ${f.zero}`;

/** quantization_config of what is coded; null where nothing is. */
export function quantizationConfig(chosen: readonly Chosen[], recipe: Recipe): Record<string, unknown> | null {
  const forms = new Map<string, CodedForm>();
  for (const c of chosen) {
    const f = codedOf(c);
    if (f) forms.set(keyOf(f), f);
  }
  if (forms.size === 0) return null;
  const groups = [...forms].sort(([a], [b]) => (a < b ? -1 : 1));
  const targets = (key: string): readonly string[] => {
    const tails = new Set<string>();
    for (const c of chosen) {
      const f = codedOf(c);
      if (f && keyOf(f) === key) tails.add(tail(baseOf(c.tensor)));
    }
    return [...tails].sort().map(t => `re:.*\\.${expression(t)}`);
  };
  const config_groups = Object.fromEntries(
    groups.map(([key, f], i) => [
      `group_${i}`,
      {
        targets: groups.length === 1 ? ['Linear'] : targets(key),
        format: formatOf(f),
        weights: weightArgs(f),
        input_activations: activations(recipe, f),
        output_activations: null,
      },
    ]),
  );
  const group = groups.find(([, f]) => f.element === 'i4' && f.block[1] > 0)?.[1].block[1];
  return {
    quant_method: 'compressed-tensors',
    version: '0.12.0',
    format: groups.length === 1 ? formatOf((groups[0] as readonly [string, CodedForm])[1]) : 'mixed-precision',
    quantization_status: 'compressed',
    global_compression_ratio: null,
    kv_cache_scheme: null,
    sparsity_config: {},
    transform_config: {},
    ignore: ignoreList(chosen),
    config_groups,
    // read by vllm-ascend for its W4A16 experts, whose default is 32 (quantization/compressed_tensors_config.py:77, methods/w4a16.py)
    ...(group !== undefined && group !== 32 ? { group_size: group } : {}),
  };
}

// ---- reading

/** Rules of the format itself, whichever engine reads it. */
export const compressedRules: Readonly<Record<string, string>> = {
  V2: 'inside groups and arguments there are no keys but the known ones: the schema forbids extras (compressed-tensors quant_args.py:429)',
  V3: 'formats, bits, types, strategies and group sizes are those of a scheme that exists',
  V4: 'target and ignore entries are names or `re:` expressions that compile',
};
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
const formats = ['pack-quantized', 'int-quantized', 'mxfp4-pack-quantized'];

/** What a matrix is to be stored as. */
export type Scheme =
  | { readonly kind: 'plain' }
  | { readonly kind: 'int4'; readonly group: number; readonly zero: boolean }
  /** `suffix` and `block` are not compressed-tensors': SGLang's int8 in blocks. */
  | { readonly kind: 'int8'; readonly activations: boolean; readonly block: readonly [number, number] | null; readonly suffix: string }
  | { readonly kind: 'fp8'; readonly block: readonly [number, number]; readonly suffix: string; readonly scale: readonly string[] }
  | { readonly kind: 'fp4'; readonly suffix: string }
  | { readonly kind: 'mxfp4' };
export const show = (s: Scheme): string => (s.kind === 'int4' ? `int4 in groups of ${s.group || 'a row'}` : s.kind);

/** An expression of `ignore` or `targets`: Python's re.match, anchored at the start only. Null where it does not compile. */
export function matcher(entry: string): ((name: string) => boolean) | null {
  if (!entry.startsWith('re:')) return name => name === entry;
  try {
    const re = new RegExp(`^(?:${entry.slice(3)})`);
    return name => re.test(name);
  } catch {
    return null;
  }
}
/** Matchers of a list; what does not compile is said. */
export function matchers(c: Findings, where: string, list: unknown): readonly ((name: string) => boolean)[] {
  if (list !== undefined && list !== null && !Array.isArray(list)) c.say('V4', where, `${where} is no list`);
  return textsOf(list).flatMap(e => {
    const m = matcher(e);
    if (m === null) c.say('V4', where, `${e} is no expression`);
    return m ?? [];
  });
}

function schemeOf(c: Findings, where: string, g: Json, globalFormat: unknown): Scheme | null {
  const w = g.weights;
  const bad = (what: string): null => {
    c.say('V3', where, `${where}: ${what}`);
    return null;
  };
  if (!isObject(w)) return bad('weights is missing');
  const a = g.input_activations;
  for (const [part, v] of [
    ['weights', w],
    ['input_activations', a],
    ['output_activations', g.output_activations],
  ] as const)
    if (isObject(v)) {
      for (const k of Object.keys(v))
        if (!argKeys.includes(k)) c.say('V2', `${where}.${part}`, `${JSON.stringify(k)} is no key of ${part}`);
    } else if (v !== null && v !== undefined) bad(`${part} is neither an object nor null`);
  const format = g.format ?? globalFormat;
  const group = w.group_size ?? null;
  if (!formats.includes(format as string)) return bad(`format ${JSON.stringify(format)} is not one of ${formats.join(', ')}`);
  if (w.dynamic !== false && w.dynamic !== undefined) return bad('weights are never dynamic');
  if (w.actorder !== null && w.actorder !== undefined) return bad('actorder is deprecated and is not written');
  switch (format) {
    case 'pack-quantized':
      if (w.num_bits !== 4 || w.type !== 'int') return bad('pack-quantized is int4 here');
      if (
        w.strategy === 'group' ? ![32, 64, 128].includes(group as number) : !(w.strategy === 'channel' && (group === null || group === -1))
      )
        return bad(`strategy ${JSON.stringify(w.strategy)} with group_size ${JSON.stringify(group)} has no kernel`);
      if (isObject(a)) return bad('int4 with quantised activations has no kernel on GPUs');
      return { kind: 'int4', group: w.strategy === 'group' ? (group as number) : 0, zero: w.symmetric === false };
    case 'int-quantized':
      if (w.num_bits !== 8 || w.type !== 'int' || w.symmetric !== true) return bad('int-quantized is symmetric int8 here');
      if (w.strategy !== 'channel' || group !== null) return bad('int8 has a scale a row');
      if (isObject(a) && !(a.num_bits === 8 && a.type === 'int' && a.symmetric === true && a.strategy === 'token' && a.dynamic === true))
        return bad('activations of int8 are symmetric int8 with a dynamic scale a token');
      return { kind: 'int8', activations: isObject(a), block: null, suffix: 'weight_scale' };
    default:
      if (w.num_bits !== 4 || w.type !== 'float' || w.strategy !== 'group' || group !== 32) return bad('mxfp4 is float4 in groups of 32');
      return { kind: 'mxfp4' };
  }
}

/** No Linear of an engine, whatever the config says: the router, eh_proj, embeddings, heads, and what is no matrix. */
const noLinear = (t: LogicalTensor): boolean =>
  t.shape.length !== 2 ||
  ['router', 'mtp_merge', 'embedding', 'head', 'hyper', 'bias', 'table', 'norm', 'router_bias'].includes(t.role) ||
  (!t.matrix && t.role !== 'indexer');

/** The storage that a quantization_config of compressed-tensors asks of each tensor; null where it cannot be read. */
export function readCompressed(c: Findings, q: Json): ((t: LogicalTensor) => Scheme) | null {
  const groups = q.config_groups;
  if (!isObject(groups) || Object.keys(groups).length === 0) {
    c.say('V3', 'config_groups', 'config_groups is missing or empty');
    return null;
  }
  if (q.quantization_status !== undefined && q.quantization_status !== 'compressed')
    c.say('V3', 'quantization_status', `quantization_status ${JSON.stringify(q.quantization_status)} is not "compressed"`);
  for (const k of ['sparsity_config', 'transform_config'])
    if (q[k] !== undefined && q[k] !== null && !(isObject(q[k]) && Object.keys(q[k] as Json).length === 0))
      c.say('V3', k, `${k} is to be empty: the weights are neither sparse nor transformed`);
  if (q.kv_cache_scheme !== undefined && q.kv_cache_scheme !== null)
    c.say('V3', 'kv_cache_scheme', 'kv_cache_scheme is to be null: no scales of a cache are written');
  const made: { readonly targets: readonly string[]; readonly scheme: Scheme }[] = [];
  for (const [name, g] of Object.entries(groups)) {
    if (!isObject(g)) {
      c.say('V3', name, `${name} is no object`);
      continue;
    }
    for (const k of Object.keys(g)) if (!groupKeys.includes(k)) c.say('V2', name, `${JSON.stringify(k)} is no key of a group`);
    const targets = textsOf(g.targets);
    if (!Array.isArray(g.targets) || targets.length !== g.targets.length || targets.length === 0) {
      c.say('V4', name, `targets of ${name} is to be a list of names`);
      continue;
    }
    matchers(c, name, targets);
    const scheme = schemeOf(c, name, g, q.format);
    if (scheme) made.push({ targets, scheme });
  }
  const ignores = matchers(c, 'ignore', q.ignore);
  // a group that could not be read has said so; to call every tensor wrong after that would help nobody
  if (made.length < Object.keys(groups).length) return null;
  // names before classes (compressed_tensors/utils.py:113-193)
  const byName = made.flatMap(g => g.targets.filter(t => t !== 'Linear').map(t => ({ test: matcher(t), scheme: g.scheme })));
  const linear = made.find(g => g.targets.includes('Linear'))?.scheme;
  return t => {
    if (noLinear(t)) return { kind: 'plain' };
    const name = baseOf(t);
    if (ignores.some(m => m(name))) return { kind: 'plain' };
    return byName.find(g => g.test?.(name))?.scheme ?? linear ?? { kind: 'plain' };
  };
}

/** The tensors of a scheme. `exact`: scales have to be what bf16 holds. */
export function schemePieces(t: LogicalTensor, s: Scheme, exact = false): readonly Piece[] {
  const b = baseOf(t);
  const [rows, columns] = [t.shape[0] ?? 0, t.shape[1] ?? 1];
  const scale = exact ? 'exact' : 'scale';
  switch (s.kind) {
    case 'plain':
      return [{ name: t.name, dtypes: t.role === 'table' ? ['I64', 'I32'] : plainDtypes, shape: t.shape, what: 'any' }];
    case 'int4': {
      const across = s.group === 0 ? 1 : Math.ceil(columns / s.group);
      return [
        { name: `${b}.weight_packed`, dtypes: ['I32'], shape: [rows, Math.ceil(columns / 8)], what: 'any' },
        { name: `${b}.weight_scale`, dtypes: plainDtypes, shape: [rows, across], what: scale },
        { name: `${b}.weight_shape`, dtypes: ['I64', 'I32'], shape: [2], what: 'shape' },
        ...(s.zero
          ? [{ name: `${b}.weight_zero_point`, dtypes: ['I32'], shape: [Math.ceil(rows / 8), across], what: 'any' } as const]
          : []),
      ];
    }
    case 'int8':
      return [
        { name: t.name, dtypes: ['I8'], shape: t.shape, what: 'int8' },
        s.block
          ? {
              name: `${b}.${s.suffix}`,
              dtypes: ['F32'],
              shape: [Math.ceil(rows / s.block[0]), Math.ceil(columns / s.block[1])],
              what: scale,
            }
          : { name: `${b}.${s.suffix}`, dtypes: ['F32', 'BF16'], shape: [rows, 1], what: scale },
      ];
    case 'fp8':
      return [
        { name: t.name, dtypes: ['F8_E4M3'], shape: t.shape, what: 'any' },
        {
          name: `${b}.${s.suffix}`,
          dtypes: s.scale,
          shape: [Math.ceil(rows / s.block[0]), Math.ceil(columns / s.block[1])],
          what: scale,
        },
      ];
    case 'fp4':
      return [
        { name: t.name, dtypes: ['I8'], shape: [rows, columns / 2], what: 'any' },
        { name: `${b}.${s.suffix}`, dtypes: ['F8_E8M0'], shape: [rows, columns / 32], what: 'scale' },
      ];
    case 'mxfp4':
      return [
        { name: `${b}.weight_packed`, dtypes: ['U8'], shape: [rows, columns / 2], what: 'any' },
        { name: `${b}.weight_scale`, dtypes: ['U8'], shape: [rows, columns / 32], what: 'scale' },
      ];
  }
}
