// The look-ups of vllm-ascend's loader over a description, told again from what is known of it (vllm-ascend@182b75ea,
// quantization/modelslim_config.py:431-541, 776-808, 960-1031; methods/*.py), apart from the checker: which type a module gets, which
// tensors that type allocates, which of them are never filled, and which tensors find no place.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { openEngineDirectory } from '../src/engine.js';
import type { LogicalTensor } from '../targets/engine.js';
import type { Made } from './engine-directory.js';

const shards: Readonly<Record<string, readonly string[]>> = {
  gate_up_proj: ['gate_proj', 'up_proj'],
  fused_qkv_a_proj: ['q_a_proj', 'kv_a_proj_with_mqa'],
  experts: ['experts.0.gate_proj', 'experts.0.up_proj', 'experts.0.down_proj'],
};
/** Module names as the engine builds them, from a name in the file. */
function engineName(name: string): string {
  let n = name;
  if (!n.startsWith('model') && !n.startsWith('lm_head')) n = `model.${n}`;
  n = n.replace('.attn.', '.self_attn.').replace('.ffn.', '.mlp.');
  n = n.replace('.w1.', '.gate_proj.').replace('.w2.', '.down_proj.').replace('.w3.', '.up_proj.');
  return n.replace('model.head.', 'lm_head.').replace('model.embed.', 'model.embed_tokens.');
}
/** The description with the names that are added: V4's by its trigger, an MTP block's head under the block itself. */
function withAliases(d: Readonly<Record<string, unknown>>): Map<string, unknown> {
  const all = new Map(Object.entries(d));
  if (all.has('hc_head_fn')) for (const [k, v] of [...all]) all.set(engineName(k), v);
  for (const [k, v] of [...all]) if (k.includes('shared_head')) all.set(k.replace('.shared_head.', '.'), v);
  return all;
}
function typeOf(d: ReadonlyMap<string, unknown>, prefix: string): string {
  const last = prefix.split('.').at(-1) as string;
  const parts = shards[last]?.map(s => `${prefix.slice(0, -last.length)}${s}.weight`);
  if (parts) {
    const types = parts.map(k => {
      if (!d.has(k)) throw new Error(`KeyError ${k}`);
      return String(d.get(k));
    });
    if (new Set(types).size > 1) throw new Error(`ValueError ${prefix}: ${types.join(', ')}`);
    return types[0] as string;
  }
  // no dot after the prefix
  for (const [k, v] of d) if (k.startsWith(prefix) && k.endsWith('.weight') && v === 'FLOAT') return 'FLOAT';
  if (!d.has(`${prefix}.weight`)) throw new Error(`KeyError ${prefix}.weight`);
  return String(d.get(`${prefix}.weight`));
}
/** What a type allocates for one matrix [rows, columns] of the file: suffix, dtypes, shape. */
function allocated(type: string, t: LogicalTensor): readonly (readonly [suffix: string, dtypes: string, shape: readonly number[]])[] {
  const [rows, columns] = t.shape as readonly [number, number];
  const down = /\.(down_proj|w2)\.weight$/.test(t.name);
  switch (type) {
    case 'FLOAT':
      return [['weight', 'BF16 F32 F16', t.shape]];
    case 'W8A8_DYNAMIC':
      return [
        ['weight', 'I8', [rows, columns]],
        ['weight_scale', 'F32 BF16', [rows, 1]],
        ['weight_offset', 'F32 BF16', [rows, 1]],
      ];
    case 'W4A8_DYNAMIC':
      return [
        ['weight', 'I8', [rows / 2, columns]],
        ['weight_scale', 'F32', [rows, 1]],
        ['weight_offset', 'F32', [rows, 1]],
        ['scale_bias', 'F32', [rows, down ? 16 : 1]],
      ];
    case 'W8A8_MXFP8':
      return [
        ['weight', 'F8_E4M3', [rows, columns]],
        ['weight_scale', 'U8', [rows, columns / 32]],
      ];
    case 'W4A8_MXFP':
      return [
        ['weight', 'U8', [rows, columns / 2]],
        ['weight_scale', 'U8', [rows, columns / 32]],
      ];
    default:
      throw new Error(`NotImplementedError ${type}`);
  }
}
/** Errors that the loader would raise, parameters it would leave unfilled, tensors without a place. Nothing is quantised: nothing is asked. */
export function load(dir: string, model: Made['model']): readonly string[] {
  const described = withAliases(JSON.parse(readFileSync(join(dir, 'quant_model_description.json'), 'utf8')));
  const d = openEngineDirectory(dir);
  d.close();
  const said: string[] = [];
  const placed = new Set<string>();
  const names = new Set(model.tensors.map(t => t.name));
  for (const t of model.tensors) {
    // an MTP block of V4 is built under names of its own; its tensors are FLOAT
    const module = t.matrix && !t.name.startsWith('mtp.') && t.role !== 'mtp_merge';
    if (!module && t.role !== 'embedding' && t.role !== 'head') {
      if (d.tensors.has(t.name)) placed.add(t.name);
      else if (!t.optional) said.push(`unfilled ${t.name}`);
      if (described.get(t.name) !== 'FLOAT') said.push(`${t.name} is not FLOAT`);
      continue;
    }
    if (t.optional && !d.tensors.has(t.name)) continue;
    let prefix = engineName(t.name)
      .replace(/\.weight$/, '')
      .replace('.shared_head.', '.');
    if (t.role === 'expert') prefix = prefix.replace(/\.experts\..*$/, '.experts');
    else prefix = prefix.replace(/\.(gate_proj|up_proj)$/, '.gate_up_proj');
    if (/\.(q_a_proj|kv_a_proj_with_mqa)$/.test(prefix) && names.has(t.name.replace('kv_a_proj_with_mqa', 'q_a_proj')))
      prefix = prefix.replace(/\.(q_a_proj|kv_a_proj_with_mqa)$/, '.fused_qkv_a_proj');
    try {
      for (const [suffix, dtypes, shape] of allocated(typeOf(described, prefix), t)) {
        const name = t.name.replace(/weight$/, suffix);
        const s = d.tensors.get(name);
        if (!s) said.push(`unfilled ${name}`);
        else {
          placed.add(name);
          if (!dtypes.split(' ').includes(s.dtype) || s.shape.join() !== shape.join())
            said.push(`${name} is ${s.dtype} [${s.shape.join(', ')}], allocated ${dtypes} [${shape.join(', ')}]`);
        }
      }
    } catch (e) {
      said.push((e as Error).message);
    }
  }
  for (const name of d.tensors.keys()) if (!placed.has(name)) said.push(`KeyError ${name}: no parameter`);
  return [...new Set(said)];
}
