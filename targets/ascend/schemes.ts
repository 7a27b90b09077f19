// Types of a description and who registers them, by version and by kind of layer; which chip has the unit.
// (vllm-ascend v0.18.0, v0.23.0 and 182b75ea, quantization/methods/*.py, `@register_scheme`; SGLang modelslim.py, `moe_quant_schemes`)
import type { Runtime } from '../engine.js';
import { family } from './chips.js';

export type Kind = 'linear' | 'moe';
export type Version = '0.18' | '0.23' | 'head';
const all: readonly Version[] = ['0.18', '0.23', 'head'];
const later: readonly Version[] = ['0.23', 'head'];
export interface Row {
  readonly linear: readonly Version[];
  readonly moe: readonly Version[];
  /** Chips that have no unit for it, with the reason. */
  readonly lacks: (chip: string) => string | null;
  /** SGLang and MindIE are known to read it. */
  readonly elsewhere: boolean;
}
export const is950 = (chip: string): boolean => family(chip) === '950';
export const is310p = (chip: string): boolean => family(chip) === '310p';
const fp8Unit = (type: string) => (chip: string) => (is950(chip) ? null : `${type} runs on the 950 alone: ${chip} has no FP8 or FP4 unit`);
const anyChip = () => null;
const int4Cube = (chip: string): string | null =>
  is950(chip) ? 'W4A8_DYNAMIC needs an int4 cube, which the 950 has not: --quantise mxfp4' : null;
/** Types that are written here. */
export const types: Readonly<Record<string, Row>> = {
  W8A8_DYNAMIC: { linear: all, moe: all, lacks: anyChip, elsewhere: true },
  W4A8_DYNAMIC: { linear: ['0.18', '0.23'], moe: all, lacks: int4Cube, elsewhere: true },
  W8A8_MXFP8: { linear: all, moe: all, lacks: fp8Unit('W8A8_MXFP8'), elsewhere: false },
  W4A8_MXFP: { linear: later, moe: later, lacks: fp8Unit('W4A8_MXFP'), elsewhere: false },
};
/** Versions that can have a model at all: V4 is read from 0.23 on (its first release candidate was 0.20.2). */
const modelVersions = (v4: boolean): readonly Version[] => (v4 ? later : all);

/** Why an engine cannot have the model, whatever its storage. */
export function modelObjection(v4: boolean, runtime: Runtime | null): string | null {
  if (!v4) return null;
  if (runtime?.name === 'mindie') return 'nothing public says that MindIE reads V4';
  return runtime?.name === 'vllm-ascend' && runtime.version === '0.18' ? 'V4 is read by vllm-ascend from 0.23 on, not in 0.18' : null;
}
/** Why a type cannot stand on a kind of layer for these engines and this chip. No version asked for means every one that can have it at all. */
export function typeObjection(type: string, kind: Kind, chip: string, v4: boolean, runtime: Runtime | null): string | null {
  const row = Object.hasOwn(types, type) ? types[type] : undefined;
  if (!row) return `${type} is not a type that is written here`;
  const unit = row.lacks(chip);
  if (unit) return unit;
  if (runtime && runtime.name !== 'vllm-ascend')
    return row.elsewhere && !(type === 'W4A8_DYNAMIC' && kind === 'linear')
      ? null
      : `${runtime.name} is not known to read ${type} on a ${kind} layer`;
  const asked = runtime?.version as Version | null | undefined;
  const versions = asked ? [asked] : modelVersions(v4).filter(v => row.linear.includes(v) || row.moe.includes(v));
  const lacking = versions.filter(v => !row[kind].includes(v));
  return lacking.length === 0 && versions.length > 0
    ? null
    : `${type} is not registered for ${kind === 'moe' ? 'routed experts' : 'linears'} in vllm-ascend ${lacking.join(', ')}`;
}
/** DeepSeek's own codes passed on: vllm-ascend has a method for V4 on the 950 alone (quantization/fp8_config.py:24-72). */
export function nativeObjection(chip: string, v4: boolean, runtime: Runtime | null): string | null {
  if (!is950(chip)) return `${chip} has no FP8 unit, so FP8 and FP4 codes cannot be passed on: --quantise w8a8 makes int8 of them`;
  if (!v4) return 'of DeepSeek’s own FP8 vllm-ascend reads V4 alone: --quantise mxfp8';
  return runtime && runtime.name !== 'vllm-ascend' ? `${runtime.name} is not known to read DeepSeek’s own FP8 on NPUs` : null;
}
