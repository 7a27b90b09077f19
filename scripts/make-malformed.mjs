// Writes fixtures/malformed: small checkpoints, each wrong in one way. The same bytes every time. Expected messages are written by
// UPDATE=1 npm test -- test/malformed.test.ts.
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const out = join(dirname(dirname(fileURLToPath(import.meta.url))), 'fixtures/malformed');
rmSync(out, { recursive: true, force: true });

const size = { F32: 4, BF16: 2, F16: 2, F8_E4M3: 1, F8_E8M0: 1, I8: 1, I32: 4, I64: 8 };
const product = s => s.reduce((a, b) => a * b, 1);
const llama = {
  architectures: ['LlamaForCausalLM'],
  model_type: 'llama',
  hidden_size: 8,
  intermediate_size: 16,
  num_hidden_layers: 1,
  num_attention_heads: 2,
  num_key_value_heads: 1,
  vocab_size: 16,
  rms_norm_eps: 1e-6,
  rope_theta: 10000,
  max_position_embeddings: 64,
  tie_word_embeddings: false,
  bos_token_id: 0,
  eos_token_id: 1,
};
const llamaTensors = () => {
  const l = 'model.layers.0';
  return [
    ['model.embed_tokens.weight', 'BF16', [16, 8]],
    [`${l}.self_attn.q_proj.weight`, 'BF16', [8, 8]],
    [`${l}.self_attn.k_proj.weight`, 'BF16', [4, 8]],
    [`${l}.self_attn.v_proj.weight`, 'BF16', [4, 8]],
    [`${l}.self_attn.o_proj.weight`, 'BF16', [8, 8]],
    [`${l}.mlp.gate_proj.weight`, 'BF16', [16, 8]],
    [`${l}.mlp.up_proj.weight`, 'BF16', [16, 8]],
    [`${l}.mlp.down_proj.weight`, 'BF16', [8, 16]],
    [`${l}.input_layernorm.weight`, 'BF16', [8]],
    [`${l}.post_attention_layernorm.weight`, 'BF16', [8]],
    ['model.norm.weight', 'BF16', [8]],
    ['lm_head.weight', 'BF16', [16, 8]],
  ].map(([name, dtype, shape]) => ({ name, dtype, shape }));
};
const v3 = {
  architectures: ['DeepseekV3ForCausalLM'],
  model_type: 'deepseek_v3',
  hidden_size: 8,
  intermediate_size: 16,
  moe_intermediate_size: 8,
  num_hidden_layers: 2,
  first_k_dense_replace: 1,
  num_attention_heads: 2,
  q_lora_rank: 8,
  kv_lora_rank: 8,
  qk_nope_head_dim: 4,
  qk_rope_head_dim: 4,
  v_head_dim: 4,
  n_routed_experts: 4,
  n_shared_experts: 1,
  num_experts_per_tok: 2,
  n_group: 2,
  topk_group: 1,
  topk_method: 'noaux_tc',
  scoring_func: 'sigmoid',
  norm_topk_prob: true,
  routed_scaling_factor: 2.5,
  num_nextn_predict_layers: 1,
  vocab_size: 16,
  rms_norm_eps: 1e-6,
  rope_theta: 10000,
  max_position_embeddings: 64,
  tie_word_embeddings: false,
  bos_token_id: 0,
  eos_token_id: 1,
  quantization_config: { quant_method: 'fp8', fmt: 'e4m3', activation_scheme: 'dynamic', weight_block_size: [128, 128] },
};
function v3Tensors() {
  const all = [];
  const plain = (name, dtype, ...shape) => all.push({ name, dtype, shape });
  const fp8 = (base, rows, columns) => {
    plain(`${base}.weight`, 'F8_E4M3', rows, columns);
    plain(`${base}.weight_scale_inv`, 'F32', 1, 1);
  };
  const mlp = (p, inner) => {
    fp8(`${p}.gate_proj`, inner, 8);
    fp8(`${p}.up_proj`, inner, 8);
    fp8(`${p}.down_proj`, 8, inner);
  };
  const layer = i => {
    const p = `model.layers.${i}`;
    plain(`${p}.input_layernorm.weight`, 'BF16', 8);
    plain(`${p}.post_attention_layernorm.weight`, 'BF16', 8);
    fp8(`${p}.self_attn.q_a_proj`, 8, 8);
    plain(`${p}.self_attn.q_a_layernorm.weight`, 'BF16', 8);
    fp8(`${p}.self_attn.q_b_proj`, 16, 8);
    fp8(`${p}.self_attn.kv_a_proj_with_mqa`, 12, 8);
    plain(`${p}.self_attn.kv_a_layernorm.weight`, 'BF16', 8);
    fp8(`${p}.self_attn.kv_b_proj`, 16, 8);
    fp8(`${p}.self_attn.o_proj`, 8, 8);
    if (i === 0) return mlp(`${p}.mlp`, 16);
    plain(`${p}.mlp.gate.weight`, 'BF16', 4, 8);
    plain(`${p}.mlp.gate.e_score_correction_bias`, 'F32', 4);
    for (let e = 0; e < 4; e++) mlp(`${p}.mlp.experts.${e}`, 8);
    mlp(`${p}.mlp.shared_experts`, 8);
  };
  plain('model.embed_tokens.weight', 'BF16', 16, 8);
  layer(0);
  layer(1);
  plain('model.norm.weight', 'BF16', 8);
  plain('lm_head.weight', 'BF16', 16, 8);
  const m = 'model.layers.2';
  plain(`${m}.enorm.weight`, 'BF16', 8);
  plain(`${m}.hnorm.weight`, 'BF16', 8);
  plain(`${m}.eh_proj.weight`, 'BF16', 8, 16);
  layer(2);
  plain(`${m}.shared_head.norm.weight`, 'BF16', 8);
  return all;
}

/** Entries with offsets one after another. */
function entries(tensors) {
  let at = 0;
  return tensors.map(t => ({ ...t, offsets: t.offsets ?? [at, (at += product(t.shape) * size[t.dtype])] }));
}
const entryText = t => `${JSON.stringify(t.name)}:${JSON.stringify({ dtype: t.dtype, shape: t.shape, data_offsets: t.offsets })}`;
const header = list => `{${list.map(entryText).join(',')}}`;
const dataOf = list => Buffer.alloc(Math.max(0, ...list.map(t => t.offsets[1])), 0x3c);
function file(headerText, data) {
  const h = Buffer.isBuffer(headerText) ? headerText : Buffer.from(headerText, 'utf8');
  const n = Buffer.alloc(8);
  n.writeBigUInt64LE(BigInt(h.length));
  return Buffer.concat([n, h, data]);
}
const sound = tensors => {
  const list = entries(tensors);
  return file(header(list), dataOf(list));
};
const json = o => JSON.stringify(o, null, 2) + '\n';
let made = 0;
function write(name, files) {
  const dir = join(out, name);
  mkdirSync(dir, { recursive: true });
  for (const [f, content] of Object.entries(files)) if (content !== null) writeFileSync(join(dir, f), content);
  made++;
}
const config = json(llama);
const one = (name, bytes) => write(name, { 'config.json': config, 'model.safetensors': bytes });
/** The sound llama with a header changed as text, or by a function on its entries. */
const withHeader = (name, change) => {
  const list = entries(llamaTensors());
  one(name, file(change(header(list)), dataOf(list)));
};
const withEntries = (name, change) => {
  const list = entries(llamaTensors());
  const data = dataOf(list);
  const changed = change(list) ?? list;
  one(name, file(header(changed), data));
};

// one file
one('file-empty', Buffer.alloc(0));
one('file-of-four-bytes', Buffer.from([1, 2, 3, 4]));
one('header-length-largest', Buffer.concat([Buffer.alloc(8, 0xff), Buffer.from('{}')]));
{
  const b = Buffer.alloc(10);
  b.writeBigUInt64LE(100000001n);
  one('header-length-over-limit', b);
}
{
  const b = Buffer.alloc(12, 0x20);
  b.writeBigUInt64LE(64n);
  one('header-past-the-end', b);
}
one('header-of-no-bytes', Buffer.alloc(8));
one('header-not-utf8', file(Buffer.from([0x7b, 0x22, 0xff, 0xfe, 0x22, 0x7d]), Buffer.alloc(0)));
one('header-a-list', file('[]', Buffer.alloc(0)));
withHeader('header-begins-with-a-space', h => ` ${h}`);
withHeader('header-cut-off', h => h.slice(0, -20));
withHeader('header-with-text-behind', h => `${h}garbage`);
withHeader('header-with-nan', h => h.replace('[16,8]', '[NaN,8]'));
withHeader('header-with-bad-escape', h => h.replace('model.norm', 'model\\xnorm'));
withHeader('header-with-control-character', h => h.replace('model.norm', 'model\nnorm'));
withHeader('header-with-trailing-comma', h => h.replace(/\}\}$/, '},}'));
one('header-nested-deep', file(`{"a":${'['.repeat(100)}${']'.repeat(100)}}`, Buffer.alloc(0)));
withHeader('tensor-name-twice', h => h.replace('"model.norm.weight"', '"lm_head.weight"'));
withHeader('entry-key-twice', h => h.replace('"dtype":"BF16",', '"dtype":"BF16","dtype":"F32",'));
withHeader('tensor-called-proto', h => h.replace('"model.norm.weight"', '"__proto__"'));
withHeader('entry-a-number', h => h.replace(/"model\.norm\.weight":\{[^}]*\}/, '"model.norm.weight":7'));
withHeader('entry-without-dtype', h => h.replace('"dtype":"BF16",', ''));
withHeader('entry-without-shape', h => h.replace('"shape":[16,8],', ''));
withHeader('entry-without-offsets', h => h.replace(/,"data_offsets":\[0,256\]/, ''));
withHeader('entry-with-another-member', h => h.replace('"dtype":"BF16",', '"dtype":"BF16","device":"cuda",'));
withHeader('dtype-a-number', h => h.replace('"dtype":"BF16"', '"dtype":16'));
withHeader('dtype-unknown', h => h.replace('"dtype":"BF16"', '"dtype":"BF17"'));
withHeader('dtype-in-small-letters', h => h.replace('"dtype":"BF16"', '"dtype":"bf16"'));
withHeader('shape-a-number', h => h.replace('"shape":[16,8]', '"shape":128'));
withHeader('shape-negative', h => h.replace('"shape":[16,8]', '"shape":[-16,8]'));
withHeader('shape-a-fraction', h => h.replace('"shape":[16,8]', '"shape":[16.5,8]'));
withHeader('shape-in-exponents', h => h.replace('"shape":[16,8]', '"shape":[1.6e1,8]'));
withHeader('shape-of-33-dimensions', h => h.replace('"shape":[16,8]', `"shape":[${Array(33).fill(1).join(',')}]`));
withHeader('shape-too-large-to-count', h => h.replace('"shape":[16,8]', '"shape":[4503599627370496,4503599627370496]'));
withHeader('offsets-one', h => h.replace('"data_offsets":[0,256]', '"data_offsets":[0]'));
withHeader('offsets-negative', h => h.replace('"data_offsets":[0,256]', '"data_offsets":[-256,0]'));
withHeader('offsets-as-text', h => h.replace('"data_offsets":[0,256]', '"data_offsets":["0","256"]'));
withEntries('offsets-reversed', l => {
  l[1].offsets = [l[1].offsets[1], l[1].offsets[0]];
});
withEntries('offsets-with-a-hole', l => {
  l.splice(3, 1);
});
withEntries('offsets-overlapping', l => {
  l[2].offsets = [l[2].offsets[0] - 16, l[2].offsets[1]];
  l[2].shape = [5, 8];
});
withEntries('offsets-first-not-at-zero', l => {
  l.splice(0, 1);
});
withEntries('offsets-of-another-size', l => {
  l[11].shape = [15, 8];
});
one('bits-not-whole-bytes', file('{"x":{"dtype":"F4","shape":[3],"data_offsets":[0,2]}}', Buffer.alloc(2)));
one('data-cut-off', sound(llamaTensors()).subarray(0, -10));
one('data-with-bytes-behind', Buffer.concat([sound(llamaTensors()), Buffer.from('hidden')]));
{
  const l = entries(llamaTensors());
  one('data-absent', file(header(l), Buffer.alloc(0)));
}
withHeader('metadata-a-list', h => h.replace(/^\{/, '{"__metadata__":[],'));
withHeader('metadata-with-a-number', h => h.replace(/^\{/, '{"__metadata__":{"version":1},'));

// index and shards
const half = llamaTensors().slice(0, 6);
const rest = llamaTensors().slice(6);
const [a, b] = ['model-00001-of-00002.safetensors', 'model-00002-of-00002.safetensors'];
const map = Object.fromEntries([...half.map(t => [t.name, a]), ...rest.map(t => [t.name, b])]);
const index = weight_map => json({ metadata: { total_size: 1 }, weight_map });
const sharded = (name, indexText, shards = { [a]: sound(half), [b]: sound(rest) }) =>
  write(name, { 'config.json': config, 'model.safetensors.index.json': indexText, ...shards });
sharded('index-not-json', '{"weight_map": {');
sharded('index-a-list', '[]\n');
sharded('index-without-map', json({ metadata: {} }));
sharded('index-map-a-list', json({ weight_map: [] }));
sharded('index-map-empty', json({ weight_map: {} }));
sharded('index-entry-a-number', index({ ...map, 'lm_head.weight': 2 }));
sharded('index-leads-up', index({ ...map, 'lm_head.weight': `../${b}` }));
sharded('index-leads-to-root', index({ ...map, 'lm_head.weight': '/etc/passwd' }));
sharded('index-leads-back', index({ ...map, 'lm_head.weight': `..\\${b}` }));
sharded('index-to-another-kind-of-file', index({ ...map, 'lm_head.weight': 'pytorch_model.bin' }));
sharded('index-key-twice', index(map).replace('"lm_head.weight"', '"model.norm.weight"'));
sharded('index-key-without-tensor', index({ ...map, 'model.layers.0.self_attn.q_proj.weight_scale_inv': a }));
sharded('index-lacks-a-tensor', index(Object.fromEntries(Object.entries(map).filter(([k]) => k !== 'lm_head.weight'))));
sharded('index-says-another-shard', index({ ...map, 'lm_head.weight': a }));
sharded('shard-missing', index(map), { [a]: sound(half) });
sharded('tensor-in-two-shards', index(map), { [a]: sound([...half, rest[0]]), [b]: sound(rest) });
write('shards-incomplete-without-index', { 'config.json': config, [a]: sound(half) });
write('shards-of-two-models', { 'config.json': config, 'model.safetensors': sound(llamaTensors()), 'other.safetensors': sound(half) });
write('no-weights', { 'config.json': config });
write('no-config', { 'model.safetensors': sound(llamaTensors()) });

// config
const weights = sound(llamaTensors());
const configured = (name, text) => write(name, { 'config.json': text, 'model.safetensors': weights });
configured('config-not-json', '{"model_type": llama}\n');
configured('config-a-list', '[]\n');
configured('config-key-twice', config.replace('"hidden_size": 8,', '"hidden_size": 8,\n  "hidden_size": 16,'));
configured('config-without-type', json({ ...llama, model_type: undefined, architectures: undefined }));
configured('config-lacks-fields', json({ ...llama, hidden_size: undefined, vocab_size: undefined }));
configured('config-field-as-text', json({ ...llama, hidden_size: '8' }));
configured('config-field-negative', json({ ...llama, num_hidden_layers: -1 }));
configured('config-field-a-fraction', json({ ...llama, intermediate_size: 16.5 }));
configured('config-field-zero', json({ ...llama, vocab_size: 0 }));
configured('config-field-nan', config.replace('"rms_norm_eps": 0.000001', '"rms_norm_eps": NaN'));
configured('config-field-too-large', config.replace('"rope_theta": 10000', '"rope_theta": 1e999'));
configured('config-heads-do-not-divide', json({ ...llama, num_attention_heads: 3, num_key_value_heads: 2, head_dim: 4 }));
configured('config-rope-unknown', json({ ...llama, rope_scaling: { type: 'dynamic', factor: 2 } }));
configured('config-flag-a-number', json({ ...llama, tie_word_embeddings: 0 }));
const v3weights = sound(v3Tensors());
const v3configured = (name, c) => write(name, { 'config.json': json(c), 'model.safetensors': v3weights });
v3configured('config-more-chosen-than-experts', { ...v3, num_experts_per_tok: 5 });
v3configured('config-groups-do-not-divide', { ...v3, n_group: 3 });
v3configured('config-more-groups-kept', { ...v3, topk_group: 3 });
v3configured('config-odd-rope', { ...v3, qk_rope_head_dim: 3 });
v3configured('config-block-not-a-pair', { ...v3, quantization_config: { ...v3.quantization_config, weight_block_size: [128] } });
v3configured('config-many-wrong-fields', { ...v3, hidden_size: 0, kv_lora_rank: 'x', scoring_func: 'tanh', norm_topk_prob: 1 });

// tensors against the config
const tensors = (name, list, c = v3) => write(name, { 'config.json': json(c), 'model.safetensors': sound(list) });
const change = (name, f) => v3Tensors().flatMap(t => (t.name === name ? f(t) : [t]));
const q = 'model.layers.1.self_attn.q_a_proj';
const expert = 'model.layers.1.mlp.experts.2.down_proj';
tensors(
  'tensor-missing',
  change('model.norm.weight', () => []),
);
tensors(
  'tensor-of-expert-missing',
  v3Tensors().filter(t => !t.name.startsWith('model.layers.1.mlp.experts.3.')),
);
tensors(
  'tensor-renamed',
  change(`${expert}.weight`, t => [{ ...t, name: `${expert}.wieght` }]),
);
tensors('tensor-unknown', [...v3Tensors(), { name: 'model.layers.9.mlp.gate.weight', dtype: 'BF16', shape: [4, 8] }]);
tensors(
  'tensor-of-another-shape',
  change(`${expert}.weight`, t => [{ ...t, shape: [8, 6] }]),
);
tensors(
  'tensor-of-another-dtype',
  change(`${q}.weight`, t => [{ ...t, dtype: 'I64' }]),
);
tensors(
  'norm-of-another-dtype',
  change('model.norm.weight', t => [{ ...t, dtype: 'I8' }]),
);
tensors(
  'scale-missing',
  change(`${q}.weight_scale_inv`, () => []),
);
tensors(
  'scale-of-another-shape',
  change(`${q}.weight_scale_inv`, t => [{ ...t, shape: [2, 1] }]),
);
tensors(
  'scale-of-another-dtype',
  change(`${q}.weight_scale_inv`, t => [{ ...t, dtype: 'I32' }]),
);
tensors(
  'scale-without-codes',
  change(`${q}.weight`, () => []),
);
tensors(
  'scale-of-a-plain-weight',
  change(`${q}.weight`, t => [{ ...t, dtype: 'BF16' }]),
);
tensors(
  'experts-stored-differently',
  v3Tensors().flatMap(t =>
    t.name === `${expert}.weight` ? [{ ...t, dtype: 'BF16' }] : t.name === `${expert}.weight_scale_inv` ? [] : [t],
  ),
);
tensors(
  'mtp-block-missing',
  v3Tensors().filter(t => !t.name.startsWith('model.layers.2.')),
);
tensors('two-spellings', [...v3Tensors(), { name: 'norm.weight', dtype: 'BF16', shape: [8] }]);
tensors(
  'int8-without-scale',
  change(`${q}.weight`, t => [{ ...t, dtype: 'I8' }]).filter(t => t.name !== `${q}.weight_scale_inv`),
);
tensors(
  'int4-words-of-another-shape',
  v3Tensors().flatMap(t =>
    t.name === `${q}.weight`
      ? [{ name: `${q}.weight_packed`, dtype: 'I32', shape: [8, 2] }]
      : t.name === `${q}.weight_scale_inv`
        ? [{ name: `${q}.weight_scale`, dtype: 'F32', shape: [8, 1] }]
        : [t],
  ),
);
tensors('weights-of-another-model', llamaTensors());
console.log(`${made} cases in fixtures/malformed`);
