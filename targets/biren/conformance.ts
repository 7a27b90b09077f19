// A directory as the vendor's vLLM would load it. Its loader is not public: these rules say that the model is there, whole, in storages that
// the chip has units for, and that config.json does not say otherwise.
import { isObject, quantisationOf } from '../config.js';
import type { EngineDirectory, EngineModel, Finding, LogicalTensor } from '../engine.js';
import {
  checkArchitecture,
  checkBytes,
  checkComputed,
  checkIndex,
  checkMtp,
  checkPiece,
  checkValues,
  Findings,
  type PieceRules,
  plainDtypes,
} from '../findings.js';
import { baseOf } from '../tensors.js';
import { family } from './chips.js';

export const birenRules: Readonly<Record<string, string>> = {
  B1: 'every tensor of the model is there',
  B2: 'no tensor is there that the model does not have',
  B3: 'shapes are those of the model',
  B4: 'tensors are BF16, F16 or F32, and integers in tables; linears of attention and MLPs may be int8 with a scale a row (experimental)',
  B5: 'FP8 is for br2xx, and for linears alone',
  B6: 'an int8 matrix has codes of -127 to 127 and a scale a row, F32, finite and above 0',
  B7: 'config.json says fp8 with blocks of 128 x 128 exactly where tensors are FP8, and nothing else of a quantisation',
  B8: 'the index names exactly the tensors and files that are there, and there is no second index',
  B9: 'bytes of a tensor are those of its dtype and shape',
  B10: 'an FP8 matrix has a scale a block of 128 x 128, F32, or e8m0 in V4, finite and above 0',
  B11: 'config.json is an object, names the family’s class and computes in bfloat16',
  B12: 'config.json counts MTP blocks where there are some, and none where there are none',
  B13: 'plain numbers are finite, and FP8 codes are not NaN',
  B14: 'a table names experts that are there',
};
const rules = (scale: string, code: string): PieceRules => ({
  missing: scale,
  dtype: scale,
  shape: scale,
  bytes: 'B9',
  scale,
  code,
  says: 'B3',
});
export const is2xx = (chip: string): boolean => family(chip) === 'br2xx';
/** Linears of attention and MLPs. */
const linear = (t: LogicalTensor): boolean => t.matrix && !['mtp_merge', 'indexer', 'compressor', 'kv_b'].includes(t.role);

/** Hold a directory against the rules. Never throws on what it finds. */
export function checkBiren(dir: EngineDirectory, model: EngineModel, chip: string): readonly Finding[] {
  const c = new Findings();
  checkIndex(c, dir, 'B8');
  const known = new Set<string>();
  let fp8 = false;
  for (const t of model.tensors) {
    const s = dir.tensors.get(t.name);
    known.add(t.name);
    if (!s) {
      if (!t.optional) c.say('B1', t.name, `${t.name} is missing${t.mtp ? '; MTP blocks are loaded too' : ''}`);
      continue;
    }
    if (s.shape.join() !== t.shape.join()) c.say('B3', t.name, `${t.name} is [${s.shape.join(', ')}], not [${t.shape.join(', ')}]`);
    const whole = checkBytes(c, s, 'B9');
    const [rows, columns] = [t.shape[0] ?? 0, t.shape[1] ?? 1];
    if (s.dtype === 'I8') {
      if (!linear(t)) {
        c.say('B4', t.name, `${t.name} is int8, and no linear of attention or an MLP`);
        continue;
      }
      const scale = `${baseOf(t)}.weight_scale`;
      known.add(scale);
      if (whole) checkPiece(c, dir, t, { name: t.name, dtypes: ['I8'], shape: s.shape, what: 'int8' }, rules('B6', 'B6'));
      checkPiece(c, dir, t, { name: scale, dtypes: ['F32'], shape: [rows, 1], what: 'scale' }, rules('B6', 'B6'));
    } else if (s.dtype === 'F8_E4M3') {
      fp8 = true;
      const v4 = model.modelType === 'deepseek_v4';
      const scale = `${baseOf(t)}.${v4 ? 'scale' : 'weight_scale_inv'}`;
      known.add(scale);
      if (!is2xx(chip)) c.say('B5', t.name, `${t.name} is FP8, which ${chip} has no unit for`);
      else if (!t.matrix) c.say('B5', t.name, `${t.name} is FP8 and no linear`);
      const shape = [Math.ceil(rows / 128), Math.ceil(columns / 128)];
      checkPiece(c, dir, t, { name: scale, dtypes: v4 ? ['F32', 'F8_E8M0'] : ['F32'], shape, what: 'scale' }, rules('B10', 'B10'));
    } else if (!(t.role === 'table' ? ['I64', 'I32'] : plainDtypes).includes(s.dtype))
      c.say('B4', t.name, `${t.name} is ${s.dtype}, which is not one that is read`);
  }
  for (const name of dir.tensors.keys()) if (!known.has(name)) c.say('B2', name, `${name} belongs to no tensor of the model`);
  checkValues(c, dir, model, 'B13', 'B14');
  checkConfig(c, dir, model, fp8);
  return c.found;
}

function checkConfig(c: Findings, dir: EngineDirectory, model: EngineModel, fp8: boolean): void {
  const config = dir.json('config.json');
  if (!isObject(config)) {
    c.say('B11', 'config.json', 'config.json is missing or no object');
    return;
  }
  checkComputed(c, config, 'B11', ['bfloat16']);
  checkArchitecture(c, config, model, 'B11');
  checkMtp(c, config, model, 'B12');
  const q = quantisationOf(config);
  if (q === null) {
    if (fp8) c.say('B7', 'quantization_config', 'tensors are FP8, and config.json does not say so');
  } else if (!fp8) c.say('B7', 'quantization_config', 'quantization_config is set, but no tensor is FP8');
  else if (!isObject(q) || q.quant_method !== 'fp8' || !Array.isArray(q.weight_block_size) || q.weight_block_size.join() !== '128,128')
    c.say('B7', 'quantization_config', 'quantization_config is not that of fp8 in blocks of 128 x 128');
}
