// Does a directory hold what an engine wants? The model is known from its own config.json, so this works where the checkpoint is not.
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { notThere, type Problem, problem, Refusal } from '../ir/problem.js';
import type { EngineFormat, EngineModel, Runtime } from '../targets/engine.js';
import type { Chip, Target } from '../targets/target.js';
import { parseConfig } from './checkpoint/config.js';
import { checkEngine } from './engine.js';
import { logicalTensor } from './logical.js';
import { expectedTensors } from './models/index.js';

const noConfig = (dir: string): Problem =>
  problem('HK3811', `${dir} has no config.json: what it should hold is not known`, {
    next: "Name an engine's directory: the one with config.json and the weights, or with .gguf files.",
  });

/** The tensors that a config.json calls for, before any storage is chosen. */
export function engineModelOf(configText: string): EngineModel {
  const config = parseConfig(configText, 'config.json');
  const scale = /\.(weight_scale_inv|weight_scale|scale|weight_shape)$/;
  const tensors = expectedTensors(config).flatMap(t => {
    if (scale.test(t.name)) return [];
    // two FP4 codes a byte
    const shape = t.dtype === 'I8' ? [...t.shape.slice(0, -1), 2 * (t.shape.at(-1) as number)] : t.shape;
    return [logicalTensor(t.name.replace(/\.weight_packed$/, '.weight'), shape, config.layers, t.optional)];
  });
  return { modelType: config.family, layers: config.layers, tensors };
}

/** The format that a directory is in, by what lies in it: the first of the target where nothing speaks for another. */
export function formatOf(dir: string, target: Target): EngineFormat {
  const { formats } = target.engines;
  const named = (name: unknown): EngineFormat | undefined => formats.find(f => f.name === name);
  const files = readdirSync(dir);
  if (files.some(f => f.endsWith('.gguf'))) return named('gguf') ?? (formats[0] as EngineFormat);
  if (files.includes('quant_model_description.json')) return named('ascendv1') ?? (formats[0] as EngineFormat);
  if (files.includes('config.json'))
    try {
      const config = JSON.parse(readFileSync(join(dir, 'config.json'), 'utf8')) as Record<string, unknown>;
      const q = (config.quantization_config ?? (config.text_config as Record<string, unknown> | undefined)?.quantization_config) as
        | { readonly quant_method?: unknown }
        | undefined;
      return named(q?.quant_method) ?? (formats[0] as EngineFormat);
    } catch {
      // the check says what is wrong with it
    }
  return formats[0] as EngineFormat;
}

export interface Conformance {
  readonly format: string;
  readonly readers: string;
  readonly tensors: number;
  readonly problems: readonly Problem[];
}
/** Hold a directory against an engine's rules, every byte of scales and codes included. */
export function conform(dir: string, target: Target, chip: Chip, format: string | null, runtime: Runtime | null): Conformance {
  if (!existsSync(dir) || !statSync(dir).isDirectory()) throw new Refusal([notThere(dir)]);
  const chosen = target.engines.formats.find(f => f.name === format) ?? formatOf(dir, target);
  const config = join(dir, 'config.json');
  if (!chosen.pack && !existsSync(config)) throw new Refusal([noConfig(dir)]);
  const model = existsSync(config) ? engineModelOf(readFileSync(config, 'utf8')) : { modelType: '', layers: 0, tensors: [] };
  return {
    format: chosen.name,
    readers: chosen.readers,
    tensors: model.tensors.length,
    problems: checkEngine(dir, chosen, model, chip.name, runtime, false),
  };
}
