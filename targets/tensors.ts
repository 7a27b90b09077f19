// How matrices are named in files: the spellings that several engines share.
import { type CodedForm, coded, codedSizes, type Form, plainForm } from '../ir/form.js';
import type { Storage } from '../ir/storage.js';
import { servedConfig } from './config.js';
import { type Chosen, type LogicalTensor, linearRoles, type Rule, type StoredPiece } from './engine.js';

export const baseOf = (t: LogicalTensor): string => t.name.replace(/\.weight$/, '');
/** DeepSeek-V4's own spelling: no `model.` before layers. */
export const ownSpelling = (t: LogicalTensor): boolean => /^(layers|mtp)\.\d+\./.test(t.name);
/** Codes and scales that a tensor stands in: the form that was chosen, or that of the source where it is kept. */
export function codedOf(c: Chosen): CodedForm | null {
  return c.form.kind === 'coded' ? c.form : c.form.kind === 'keep' ? codedIn(c.source.storage) : null;
}
export const codedIn = (s: Storage): CodedForm | null => (s.kind === 'scaled' ? coded(s.element, s.block, s.scale) : null);
/** Scales that a loader does not allocate. */
export const scaleObjection = (f: CodedForm, allowed: readonly CodedForm['scale'][]): string | null =>
  allowed.includes(f.scale) ? null : `scales of ${f.element === 'i8' ? 'int8' : 'fp8'} are in ${allowed[0]} here, not in ${f.scale}`;
/** A linear that is kept in a dtype that engines of bf16 do not compute in. */
export const keptWide = (
  t: LogicalTensor,
  form: Form,
  source: Storage | undefined,
  elements: readonly string[] = ['f32'],
): string | null =>
  form.kind === 'keep' &&
  source?.kind === 'plain' &&
  elements.includes(source.element) &&
  (linearRoles as readonly string[]).includes(t.role)
    ? `linears in ${source.element} are computed in bf16 here: "otherwise": "bf16"`
    : null;
/** config.json of what was written for an engine that computes in bf16. */
export const served = (config: Record<string, unknown>, chosen: readonly Chosen[], modelType: string): Record<string, unknown> =>
  servedConfig(
    config,
    modelType,
    chosen.some(c => c.tensor.matrix && c.form.kind === 'plain' && c.form.element === 'bf16'),
  );
const scaleDtype = { f32: 'F32', 'bf16-in-f32': 'F32', 'e8m0-in-f32': 'F32', bf16: 'BF16', e8m0: 'F8_E8M0' } as const;

/** compressed-tensors' names (vllm-project/compressed-tensors@ac8e2ba8, compressors/pack_quantized/base.py:44-110 and its siblings). */
export function compressedTensors(t: LogicalTensor, f: CodedForm): readonly StoredPiece[] {
  const base = baseOf(t);
  const [rows, columns] = t.shape as readonly [number, number];
  const z = codedSizes(f, rows, columns);
  const down = Math.ceil(rows / f.block[0]);
  switch (f.element) {
    case 'i8':
      return [
        { name: `${base}.weight`, dtype: 'I8', shape: [rows, columns], what: { kind: 'codes' } },
        { name: `${base}.weight_scale`, dtype: scaleDtype[f.scale], shape: [down, z.across], what: { kind: 'scales' } },
      ];
    case 'i4':
      return [
        { name: `${base}.weight_packed`, dtype: 'I32', shape: [rows, Math.ceil(columns / 8)], what: { kind: 'codes' } },
        { name: `${base}.weight_scale`, dtype: scaleDtype[f.scale], shape: [rows, z.across], what: { kind: 'scales' } },
        ...(f.zero
          ? [
              {
                name: `${base}.weight_zero_point`,
                dtype: 'I32',
                shape: [Math.ceil(rows / 8), z.across],
                what: { kind: 'zeros' },
              } as const,
            ]
          : []),
        {
          name: `${base}.weight_shape`,
          dtype: 'I64',
          shape: [2],
          what: { kind: 'bytes', bytes: new Uint8Array(BigInt64Array.of(BigInt(rows), BigInt(columns)).buffer) },
        },
      ];
    case 'f4e2m1':
      return [
        { name: `${base}.weight_packed`, dtype: 'U8', shape: [rows, columns / 2], what: { kind: 'codes' } },
        { name: `${base}.weight_scale`, dtype: 'U8', shape: [rows, z.across], what: { kind: 'scales' } },
      ];
    case 'f8e4m3':
      return [
        { name: `${base}.weight`, dtype: 'F8_E4M3', shape: [rows, columns], what: { kind: 'codes' } },
        { name: `${base}.weight_scale`, dtype: scaleDtype[f.scale], shape: [down, z.across], what: { kind: 'scales' } },
      ];
  }
}

/** DeepSeek's own names: `weight_scale_inv`, V4's `scale`, FP4 as I8. */
export function deepseek(t: LogicalTensor, f: CodedForm, modelType: string): readonly StoredPiece[] {
  const base = baseOf(t);
  const [rows, columns] = t.shape as readonly [number, number];
  const z = codedSizes(f, rows, columns);
  const suffix = modelType === 'deepseek_v4' ? 'scale' : 'weight_scale_inv';
  const half = f.element === 'f4e2m1';
  return [
    { name: `${base}.weight`, dtype: half ? 'I8' : 'F8_E4M3', shape: [rows, half ? columns / 2 : columns], what: { kind: 'codes' } },
    { name: `${base}.${suffix}`, dtype: scaleDtype[f.scale], shape: [Math.ceil(rows / f.block[0]), z.across], what: { kind: 'scales' } },
  ];
}

/** SGLang's int8 in blocks (python/sglang/srt/layers/quantization/blockwise_int8.py): `weight_scale_inv`, as FP8 has it. */
export function blockInt8(t: LogicalTensor, f: CodedForm): readonly StoredPiece[] {
  const [rows, columns] = t.shape as readonly [number, number];
  const { across } = codedSizes(f, rows, columns);
  return [
    { name: t.name, dtype: 'I8', shape: [rows, columns], what: { kind: 'codes' } },
    {
      name: `${baseOf(t)}.weight_scale_inv`,
      dtype: scaleDtype[f.scale],
      shape: [Math.ceil(rows / f.block[0]), across],
      what: { kind: 'scales' },
    },
  ];
}

/** What a rule asks for where no engine has a wish of its own. */
export function usualForm(r: Rule): Form {
  const more = { zero: r.zero ?? false, search: r.search ?? 'absmax' };
  switch (r.to) {
    case 'keep':
      return { kind: 'keep' };
    case 'bf16':
    case 'f16':
    case 'f32':
      return plainForm(r.to);
    case 'int8':
      return coded('i8', r.block ?? [1, r.group ?? 0], r.scale ?? 'f32', more);
    case 'int4':
      return coded('i4', [1, r.group ?? 32], r.scale ?? 'bf16', more);
    case 'fp8':
      return coded('f8e4m3', r.block ?? [128, 128], r.scale ?? 'f32', more);
    case 'mxfp4':
      return coded('f4e2m1', [1, 32], 'e8m0', more);
    case 'mxfp8':
      return coded('f8e4m3', [1, 32], 'e8m0', more);
    case 'q8_0':
      return { kind: 'gguf', type: 'Q8_0', search: more.search };
    case 'q4_0':
      return { kind: 'gguf', type: 'Q4_0', search: more.search };
  }
}

/** Shapes that a form cannot have, whoever reads it. */
export function shapeObjection(t: LogicalTensor, f: Form): string | null {
  const [rows, columns] = t.shape as readonly [number, number];
  if (f.kind === 'gguf') return columns % 32 === 0 ? null : `${f.type} wants columns in 32s; this has ${columns}`;
  if (f.kind !== 'coded') return null;
  if (f.element === 'f4e2m1' && columns % 32 !== 0) return `mxfp4 wants columns in 32s; this has ${columns}`;
  if (f.element === 'f8e4m3' && f.block[1] === 32 && f.block[0] === 1 && columns % 32 !== 0)
    return `mxfp8 wants columns in 32s; this has ${columns}`;
  if (f.element === 'i4' && f.layout === 'packed' && columns % 8 !== 0) return `int4 wants columns in eights; this has ${columns}`;
  if (f.layout === 'row-pairs' && rows % 2 !== 0) return `row pairs want an even number of rows; this has ${rows}`;
  return null;
}

/** The experts of a layer are loaded as one: where one cannot have a form none can, so its shape is no reason to leave it plain alone. */
export const expertsAlike = (t: LogicalTensor, objection: string | null): string | null =>
  objection === null || t.role !== 'expert'
    ? objection
    : `all experts of a layer have one form: ${objection.replaceAll('columns', 'inputs').replaceAll('rows', 'outputs')}`;
