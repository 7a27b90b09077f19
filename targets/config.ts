// config.json of a model, or of a model with a language model in it.
export type Json = Readonly<Record<string, unknown>>;
export const isObject = (v: unknown): v is Json => typeof v === 'object' && v !== null && !Array.isArray(v);

/** The part that speaks of the language model. */
export const languageConfig = (config: Json): Json => (isObject(config.text_config) ? config.text_config : config);
/** What it says of a quantisation: at the top, in the part of the language model, or under the older name; null where it says nothing. */
export function quantisationOf(config: Json): unknown {
  const text = languageConfig(config);
  return config.quantization_config ?? text.quantization_config ?? config.compression_config ?? text.compression_config ?? null;
}
/** A config of the language model alone, whose tensors are what is written: Kimi-K2.5's text_config brought to the top. */
export function languageModel(config: Record<string, unknown>): Record<string, unknown> {
  const text = languageConfig(config);
  if (text === config) return config;
  const quantisation = quantisationOf(config);
  const { compression_config: _, ...rest } = text;
  const dtype = text.torch_dtype ?? text.dtype ?? config.torch_dtype ?? config.dtype;
  return {
    ...rest,
    ...(dtype === undefined ? {} : { torch_dtype: dtype }),
    ...(quantisation === null ? {} : { quantization_config: quantisation }),
  };
}

/** What the releases of a family call themselves; Kimi-K2 and Moonlight are V3 to an engine. */
export const architectures: Readonly<Record<string, string>> = {
  deepseek: 'DeepseekForCausalLM',
  deepseek_v2: 'DeepseekV2ForCausalLM',
  deepseek_v3: 'DeepseekV3ForCausalLM',
  deepseek_v32: 'DeepseekV32ForCausalLM',
  deepseek_v4: 'DeepseekV4ForCausalLM',
  llama: 'LlamaForCausalLM',
  qwen2: 'Qwen2ForCausalLM',
};
/**
 * How the class that config.json names is not the family's; null where it is, or where the family has none. A model with a language model in it
 * has one of its own around it.
 */
export function classDiffers(config: Json, family: string): string | null {
  const inner = languageConfig(config);
  if (inner !== config && inner.architectures === undefined) return null;
  const own = Object.hasOwn(architectures, family) ? architectures[family] : undefined;
  const said = Array.isArray(inner.architectures) ? inner.architectures : [];
  if (own === undefined || (said.length > 0 && said.every(a => a === own))) return null;
  return `architectures is ${JSON.stringify(inner.architectures) ?? 'missing'}, not ["${own}"]`;
}
/** The config of a language model that is served in bf16: it names the class that loads it, and the dtype that was written. */
export function servedConfig(config: Record<string, unknown>, modelType: string, wrote: boolean): Record<string, unknown> {
  const own = languageModel(config);
  const stays = (v: unknown): boolean => v === undefined || v === null || v === 'auto' || (v === 'float16' && !wrote);
  const dtypes = ['torch_dtype', 'dtype'].filter(k => !stays(own[k])).map(k => [k, 'bfloat16'] as const);
  const named = own.architectures ?? (Object.hasOwn(architectures, modelType) ? [architectures[modelType]] : undefined);
  return { ...own, ...(named === undefined ? {} : { architectures: named }), ...Object.fromEntries(dtypes) };
}
