// GGUF for llama.cpp as an engine format: forms by rule, the packing of a model into files, and the check.
import { type Form, type GgufForm, type PlainForm, plainForm } from '../../ir/form.js';
import type { Chosen, EngineFormat, PackedTensor } from '../engine.js';
import { shapeObjection, usualForm } from '../tensors.js';
import { type GgufTensor, type GgufTypeName, type GgufValue, ggufBytes, ggufHeader, ggufTypeName } from './gguf.js';
import { checkGguf } from './gguf-conformance.js';
import { ggufModel } from './gguf-model.js';
import type { GgufPiece, GgufPlanned } from './gguf-plan.js';

const plain: Readonly<Record<string, GgufTypeName>> = { F32: 'F32', F16: 'F16', BF16: 'BF16' };
/** What a tensor stands in the file as. FP4 that is kept is MXFP4, value for value; codes of other formats are decoded to bf16. */
function typeOf(c: Chosen): GgufTypeName {
  if (c.form.kind === 'gguf') return c.form.type;
  if (c.form.kind === 'plain') return ({ f32: 'F32', f16: 'F16', bf16: 'BF16' } as const)[c.form.element];
  const s = c.source.storage;
  if (s.kind === 'scaled' && s.element === 'f4e2m1' && s.scale === 'e8m0' && s.block[0] === 1 && s.block[1] === 32) return 'MXFP4';
  return plain[c.dtype] ?? 'BF16';
}
/** Words of a table are moved, not converted; what they are called is of no matter. */
const formOf = (type: GgufTypeName, search: GgufForm['search']): PlainForm | GgufForm =>
  type === 'F32' || type === 'F16' || type === 'BF16' || type === 'I32'
    ? plainForm(({ F32: 'f32', F16: 'f16', BF16: 'bf16', I32: 'f32' } as const)[type])
    : { kind: 'gguf', type, search };

/** Rows of a piece in the order of the file; a head at a time where halves become pairs. */
function runs(p: GgufPiece, rows: number): PackedTensor['runs'] {
  if (p.permute) {
    const each = rows / p.permute.heads;
    return Array.from({ length: p.permute.heads }, (_, h) => ({
      tensor: p.tensor,
      rows: [h * each, (h + 1) * each] as const,
      turn: 'interleave-halves' as const,
    }));
  }
  return [{ tensor: p.tensor, rows: p.rows, turn: p.narrow ? 'low-words' : p.transpose ? 'transpose' : 'none' }];
}
const asGguf = (t: PackedTensor & { readonly planned: GgufPlanned }): GgufTensor => ({
  name: t.name,
  dims: t.planned.dims,
  type: t.planned.type,
  bytes: t.size,
});

export const gguf: EngineFormat = {
  name: 'gguf',
  about: 'one file, or several, for llama.cpp; --runtime llama.cpp',
  readers: 'llama.cpp: run with release v0.5.0, see docs/gguf.md',
  form(rule): Form {
    if (rule.to === 'mxfp4') return { kind: 'gguf', type: 'MXFP4', search: rule.search ?? 'absmax' };
    return usualForm(rule);
  },
  objection(t, form) {
    if (form.kind === 'coded') return 'GGUF has q8_0, q4_0, mxfp4 and the plain types here';
    if (form.kind === 'gguf' && form.search === 'gptq') return 'GGUF blocks have no gptq here: absmax or mse';
    return form.kind === 'gguf' && t.shape.length === 2 ? shapeObjection(t, form) : null;
  },
  refuses: () => null,
  stored: () => [],
  files: config => ({ config, extra: [] }),
  pack(side, chosen, model) {
    const byName = new Map(chosen.map(c => [c.tensor.name, c]));
    const made = ggufModel(
      side.config,
      { ...model, tensors: chosen.map(c => c.tensor) },
      {
        tokenizerJson: side.tokenizer,
        tokenizerConfig: side.tokenizerConfig,
        generationConfig: side.generationConfig,
        chatTemplate: side.chatTemplate,
      },
      t => typeOf(byName.get(t.name) as Chosen),
    );
    const tensors = made.tensors.map(p => {
      const first = p.sources[0] && byName.get(p.sources[0].tensor);
      const search = first?.form.kind === 'gguf' ? first.form.search : 'absmax';
      const type = ggufTypeName(p.type) as GgufTypeName;
      return {
        name: p.name,
        dtype: type,
        shape: [...p.dims].reverse(),
        size: ggufBytes(p.name, p.type, p.dims),
        form: formOf(type, search),
        runs: p.sources.flatMap(s => runs(s, (byName.get(s.tensor) as Chosen).tensor.shape[0] as number)),
        constant: p.constant,
        planned: p,
      };
    });
    return {
      refused: made.refused,
      left: made.left,
      tensors,
      file(index, count, some) {
        const number = (n: number): string => String(n).padStart(5, '0');
        // ggml-org/llama.cpp@3f545bec src/llama-model-loader.cpp:540-610: the first file has the model's keys, each its own number
        const split: readonly (readonly [string, GgufValue])[] =
          count === 1
            ? []
            : [
                ['split.no', { type: 'u16', value: index }],
                ['split.count', { type: 'u16', value: count }],
                ['split.tensors.count', { type: 'i32', value: tensors.length }],
              ];
        const own = (some as readonly (PackedTensor & { readonly planned: GgufPlanned })[]).map(asGguf);
        const h = ggufHeader([...(index === 0 ? made.kv : []), ...split], own);
        return {
          path: count === 1 ? 'model.gguf' : `model-${number(index + 1)}-of-${number(count)}.gguf`,
          header: h.bytes,
          at: h.offsets,
          size: h.total,
        };
      },
    };
  },
  check: dir => checkGguf(dir),
};
