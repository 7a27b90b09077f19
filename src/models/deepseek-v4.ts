// V4: several residual streams mixed by hyper-connections; attention over a window and compressed entries with one shared key-value head and
// a sink; hash-routed first layers; clamped SwiGLU experts; an MTP block. (as the release's inference/model.py has them)
import type { Value } from '../../ir/graph.js';
import type { RopeTable } from '../../ir/rope.js';
import type { DeepseekV4Config } from '../checkpoint/config.js';
import { add, append, embedding, linear, logits, type Making, mlp, moe, norms, normWeight, rms, rope, scalingOf, state } from './blocks.js';
import type { Release } from './weights.js';

type M = Making<DeepseekV4Config>;
const mlpNames = ['w1', 'w3', 'w2'] as const; // gate, up, down

/** Layers that see compressed entries turn with another theta and YaRN; window-only ones with the plain table. Never a magnitude. */
function ropeOf(c: DeepseekV4Config, ratio: number): RopeTable {
  return ratio === 0
    ? { theta: c.ropeTheta, dims: c.rope, scaling: { kind: 'none' } }
    : { theta: c.compressTheta, dims: c.rope, scaling: scalingOf(c.ropeScaling, false) };
}

/** What the official kernels round before it is cached or compared; exact where fakeQuant is off. */
function rounded(
  m: M,
  name: string,
  x: Value,
  element: 'f8e4m3' | 'f4e2m1',
  block: number,
  heads: number,
  size: number,
  layer: number,
  hadamard: number,
): Value {
  if (!m.options.fakeQuant) return x;
  const h = hadamard === 0 ? x : m.b.add('hadamard', `${name}_h`, { x }, { width: hadamard }, { layer });
  const least = element === 'f8e4m3' ? 1e-4 : 6 * 2 ** -126;
  return m.b.add('fake_quant', `${name}_q`, { x: h }, { element, block, scale: 'e8m0', least, heads, offset: 0, size }, { layer });
}

/** Entries of `width` values, one every `ratio` positions, in a cache of their own. */
function compressor(m: M, i: number, prefix: string, name: string, x: Value, ratio: number, width: number, forIndex: boolean): Value {
  const { config: c, b, w } = m;
  const overlap = ratio === 4;
  const columns = (overlap ? 2 : 1) * width;
  const kv = linear(m, `${name}.kv`, x, w.matrix(`${prefix}.wkv`, columns, c.hidden, i, 'bf16', 'compress_ratios'), i);
  const score = linear(m, `${name}.score`, x, w.matrix(`${prefix}.wgate`, columns, c.hidden, i, 'bf16', 'compress_ratios'), i);
  const row = m.b.add('concat', `${name}.row`, { a: kv, b: score }, { heads: 1 }, { layer: i });
  const recent = append(m, `${name}.recent`, state(m, `${name}.window`, 2 * columns, i, 'ring', overlap ? 2 * ratio : ratio), row, i);
  const ape = w.plain(`${prefix}.ape`, [ratio, columns], ['F32', 'BF16', 'F16'], i, 'compress_ratios');
  const entry = b.add(
    'compress',
    `${name}.entry`,
    { state: recent, ape, positions: m.inputs.positions, sequences: m.inputs.sequences },
    { ratio, overlap, width },
    { layer: i },
  );
  const normed = rms(m, `${name}.normed`, entry, normWeight(m, `${prefix}.norm.weight`, width, i), i);
  const turned = rope(
    m,
    `${name}.turned`,
    normed,
    ropeOf(c, ratio),
    { heads: 1, offset: width - c.rope, layout: 'interleaved', stride: ratio },
    i,
  );
  const kept = forIndex
    ? rounded(m, `${name}.turned`, turned, 'f4e2m1', 32, 1, width, i, width)
    : rounded(m, `${name}.turned`, turned, 'f8e4m3', 64, 1, width - c.rope, i, 0);
  return append(m, `${name}.cached`, state(m, `${name}.cache`, width, i, 'log', 0, ratio), kept, i, ratio);
}

/** i32 [tokens, k]: compressed entries a token attends to. */
function selectEntries(m: M, i: number, x: Value, latentQ: Value, ratio: number): Value {
  const { config: c, b, w } = m;
  const { heads, dim, topK } = c.index;
  const n = `layers.${i}.index`;
  const q = linear(
    m,
    `${n}.wq_b_out`,
    latentQ,
    w.matrix(tensorOf(m, i, 'attn.indexer.wq_b'), heads * dim, c.qLora, i, m.release, 'index_n_heads'),
    i,
  );
  const turned = rounded(
    m,
    `${n}.q`,
    rope(m, `${n}.q`, q, ropeOf(c, ratio), { heads, offset: dim - c.rope, layout: 'interleaved' }, i),
    'f4e2m1',
    32,
    heads,
    dim,
    i,
    dim,
  );
  const cache = compressor(m, i, tensorOf(m, i, 'attn.indexer.compressor'), n, x, ratio, dim, true);
  const raw = linear(
    m,
    `${n}.weights_out`,
    x,
    w.plain(`${tensorOf(m, i, 'attn.indexer.weights_proj')}.weight`, [heads, c.hidden], norms, i, 'index_n_heads'),
    i,
  );
  const weights = b.add('scale', `${n}.weights`, { x: raw }, { by: (1 / Math.sqrt(dim)) * (1 / Math.sqrt(heads)) }, { layer: i });
  const scores = b.add(
    'index_scores',
    `${n}.scores`,
    { q: turned, weights, state: cache, positions: m.inputs.positions, sequences: m.inputs.sequences },
    { heads, width: dim, ratio },
    { layer: i },
  );
  return b.add(
    'top_indices',
    `${n}.selected`,
    { scores },
    { k: Math.max(1, Math.min(topK, Math.floor(m.options.limits.context / ratio))) },
    { layer: i },
  );
}

/** Decoder layers are `layers.{i}`, MTP blocks `mtp.{k}`, counted on from the last layer. */
const tensorOf = (m: M, i: number, name: string): string =>
  i < m.config.layers ? `layers.${i}.${name}` : `mtp.${i - m.config.layers}.${name}`;

function attention(m: M, i: number, x: Value, ratio: number): Value {
  const { config: c, b, w } = m;
  const p = tensorOf(m, i, 'attn');
  const n = `layers.${i}`;
  const project = (name: string, from: Value, rows: number, columns: number, key: string): Value =>
    linear(m, `${n}.${name}`, from, w.matrix(`${p}.${name}`, rows, columns, i, m.release, key), i);
  const table = ropeOf(c, ratio);
  const turn = { heads: c.heads, offset: c.headDim - c.rope, layout: 'interleaved' } as const;
  const latentQ = rms(
    m,
    `${n}.q_latent`,
    project('wq_a', x, c.qLora, c.hidden, 'q_lora_rank'),
    normWeight(m, `${p}.q_norm.weight`, c.qLora, i),
    i,
  );
  const heads = rms(
    m,
    `${n}.q_normed`,
    project('wq_b', latentQ, c.heads * c.headDim, c.qLora, 'num_attention_heads'),
    undefined,
    i,
    c.eps,
    c.headDim,
  );
  const q = rope(m, `${n}.q`, heads, table, turn, i);
  const kvNormed = rms(
    m,
    `${n}.kv_normed`,
    project('wkv', x, c.headDim, c.hidden, 'head_dim'),
    normWeight(m, `${p}.kv_norm.weight`, c.headDim, i),
    i,
  );
  const kv = rounded(
    m,
    `${n}.kv`,
    rope(m, `${n}.kv`, kvNormed, table, { ...turn, heads: 1 }, i),
    'f8e4m3',
    64,
    1,
    c.headDim - c.rope,
    i,
    0,
  );
  const recent = append(m, `${n}.cached`, state(m, `${n}.cache`, c.headDim, i, 'ring', c.window), kv, i);
  const compressed = ratio === 0 ? undefined : compressor(m, i, `${p}.compressor`, `${n}.compressed`, x, ratio, c.headDim, false);
  const selected = ratio === 4 ? selectEntries(m, i, x, latentQ, ratio) : undefined;
  const sink = w.plain(`${p}.attn_sink`, [c.heads], ['F32', 'BF16', 'F16'], i, 'num_attention_heads');
  const o = b.add(
    'attention',
    `${n}.attended`,
    {
      q,
      state: recent,
      positions: m.inputs.positions,
      sequences: m.inputs.sequences,
      ...(compressed ? { compressed } : {}),
      ...(selected ? { selected } : {}),
      sink,
    },
    {
      heads: c.heads,
      kvHeads: 1,
      width: c.headDim,
      keyOffset: 0,
      valueOffset: 0,
      valueWidth: c.headDim,
      scale: 1 / Math.sqrt(c.headDim),
      window: c.window,
      ratio: Math.max(1, ratio),
    },
    { layer: i },
  );
  const back = rope(m, `${n}.unturned`, o, table, { ...turn, inverse: true }, i);
  const wo = w.matrix(`${p}.wo_a`, c.oGroups * c.oLora, (c.heads * c.headDim) / c.oGroups, i, m.release, 'o_groups');
  const z = b.add(
    'grouped_linear',
    `${n}.wo_a_out`,
    { x: back, weight: wo },
    { groups: c.oGroups, stride: c.oLora, from: 0, size: c.oLora, transposed: false },
    { layer: i },
  );
  return linear(m, `${n}.attn_out`, z, w.matrix(`${p}.wo_b`, c.hidden, c.oGroups * c.oLora, i, m.release, 'o_lora_rank'), i);
}

function feedForward(m: M, i: number, x: Value): Value {
  const { config: c, b, w } = m;
  const p = tensorOf(m, i, 'ffn');
  const hashed = i < c.hashLayers;
  const chosen = hashed
    ? b.add(
        'gather',
        `layers.${i}.indices`,
        { table: w.plain(`${p}.gate.tid2eid`, [c.vocab, c.topK], ['I64'], i, 'num_hash_layers'), ids: m.inputs.ids },
        {},
        { layer: i },
      )
    : undefined;
  const bias = hashed ? undefined : w.plain(`${p}.gate.bias`, [c.experts], ['F32', 'BF16', 'F16'], i, 'n_routed_experts');
  const release: Release = m.release === 'bf16' ? 'bf16' : c.expertDtype === 'fp8' ? 'fp8' : 'fp4';
  const shape = {
    experts: c.experts,
    topK: c.topK,
    inner: c.moeIntermediate,
    limit: c.swigluLimit,
    weigh: 'before',
    release,
    names: mlpNames,
  } as const;
  const routed = moe(
    m,
    i,
    p,
    x,
    { scoring: 'sqrtsoftplus', groups: 1, keep: 1, by: 'max', normalise: c.normTopK, scale: c.routedScale },
    shape,
    bias,
    chosen,
  );
  if (c.sharedExperts === 0) return routed;
  return add(
    m,
    `layers.${i}.ffn`,
    routed,
    mlp(m, `layers.${i}.shared`, `${p}.shared_experts`, x, c.moeIntermediate * c.sharedExperts, i, 'moe_intermediate_size', c.swigluLimit, [
      ...mlpNames,
    ]),
    i,
  );
}

/** One sublayer between its hyper-connection's halves: streams [tokens, n * D] in and out. */
function connected(m: M, i: number, which: 'attn' | 'ffn', streams: Value, sublayer: (x: Value) => Value): Value {
  const { config: c, b, w } = m;
  const n = c.hc.streams;
  const name = `layers.${i}.hc_${which}`;
  const f32First = ['F32', 'BF16', 'F16'] as const;
  const tensor = (part: string, shape: readonly number[]) => w.plain(tensorOf(m, i, `hc_${which}_${part}`), shape, f32First, i, 'hc_mult');
  const mix = b.add(
    'hc_mix',
    `${name}.mix`,
    { x: streams, weight: tensor('fn', [n * (n + 2), n * c.hidden]) },
    { eps: c.eps },
    { layer: i },
  );
  const weights = b.add(
    'hc_split',
    `${name}.weights`,
    { mix, scale: tensor('scale', [3]), base: tensor('base', [n * (n + 2)]) },
    { streams: n, iterations: c.hc.iterations, eps: c.hc.eps },
    { layer: i },
  );
  const x = b.add('hc_pre', `${name}.pre`, { x: streams, weights }, { streams: n }, { layer: i });
  const y = sublayer(rms(m, `layers.${i}.${which}_in`, x, normWeight(m, `${tensorOf(m, i, `${which}_norm`)}.weight`, c.hidden, i), i));
  return b.add(
    'hc_post',
    which === 'ffn' ? `layers.${i}.out` : `layers.${i}.mid`,
    { x: streams, weights, y },
    { streams: n },
    { layer: i },
  );
}
function block(m: M, i: number, streams: Value): Value {
  const ratio = m.config.compressRatios[i] ?? 0;
  const middle = connected(m, i, 'attn', streams, x => attention(m, i, x, ratio));
  return connected(m, i, 'ffn', middle, x => feedForward(m, i, x));
}
/** Streams to one row, and the last norm. */
function collapse(m: M, prefix: string, name: string, streams: Value, norm: string, layer: number): Value {
  const { config: c, b, w } = m;
  const f32First = ['F32', 'BF16', 'F16'] as const;
  const n = c.hc.streams;
  const mix = b.add(
    'hc_mix',
    `${name}.hc_mix`,
    { x: streams, weight: w.plain(`${prefix}hc_head_fn`, [n, n * c.hidden], f32First, layer, 'hc_mult') },
    { eps: c.eps },
    { layer },
  );
  const weights = b.add(
    'hc_gate',
    `${name}.hc_weights`,
    {
      mix,
      scale: w.plain(`${prefix}hc_head_scale`, [1], f32First, layer, 'hc_mult'),
      base: w.plain(`${prefix}hc_head_base`, [n], f32First, layer, 'hc_mult'),
    },
    { eps: c.hc.eps },
    { layer },
  );
  return rms(
    m,
    name,
    b.add('hc_pre', `${name}.hc_pre`, { x: streams, weights }, { streams: n }, { layer }),
    normWeight(m, norm, c.hidden, layer),
    layer,
  );
}

/** MTP block k: X = e_proj(enorm(embed(next))) in every stream + h_proj(hnorm(stream)) per stream. */
function mtp(m: M, k: number, streams: Value, nextIds: Value, table: Value, head: Value): Value {
  const { config: c, b, w } = m;
  const i = c.layers + k;
  const n = `layers.${i}`;
  const d = c.hidden;
  const e = rms(
    m,
    `${n}.enorm_out`,
    b.add('gather', `${n}.next`, { table, ids: nextIds }, {}, { layer: i }),
    normWeight(m, `mtp.${k}.enorm.weight`, d, i),
    i,
  );
  const token = b.add(
    'hc_expand',
    `${n}.token`,
    { x: linear(m, `${n}.e_proj_out`, e, w.matrix(`mtp.${k}.e_proj`, d, d, i, m.release), i) },
    { streams: c.hc.streams },
    { layer: i },
  );
  const h = rms(m, `${n}.hnorm_out`, streams, normWeight(m, `mtp.${k}.hnorm.weight`, d, i), i, c.eps, d);
  const weight = w.matrix(`mtp.${k}.h_proj`, d, d, i, m.release);
  const projected = Array.from({ length: c.hc.streams }, (_, s) =>
    linear(m, `${n}.h_proj_out.${s}`, b.add('slice', `${n}.stream.${s}`, { x: h }, { from: s * d, size: d }, { layer: i }), weight, i),
  );
  const together = projected.reduce((a, x, s) => b.add('concat', `${n}.streams.${s}`, { a, b: x }, { heads: 1 }, { layer: i }));
  const out = block(m, i, add(m, `${n}.in`, token, together, i));
  return logits(m, `mtp.${k}.logits`, collapse(m, `mtp.${k}.`, `mtp.${k}.final_norm`, out, `mtp.${k}.norm.weight`, i), head);
}

export function buildV4(m: M): Readonly<Record<string, Value>> {
  const { config: c, b, w } = m;
  const table = embedding(m, 'embed.weight');
  const rows = b.add('gather', 'embedded', { table, ids: m.inputs.ids }, {});
  let x: Value = b.add('hc_expand', 'embedding', { x: rows }, { streams: c.hc.streams });
  for (let i = 0; i < c.layers; i++) x = block(m, i, x);
  const head = w.matrix('head', c.vocab, c.hidden, -1, 'bf16', 'vocab_size');
  const outputs: Record<string, Value> = { logits: logits(m, 'logits', collapse(m, '', 'final_norm', x, 'norm.weight', -1), head) };
  if (c.dspark !== null) leaveDrafter(m);
  else if (c.mtpLayers > 0) {
    const nextIds = b.add('input', 'next_ids', {}, { which: 'next_ids' });
    for (let k = 0; k < c.mtpLayers; k++) outputs[`mtp.${k}.logits`] = mtp(m, k, x, nextIds, table, head);
  }
  return outputs;
}

/** DSpark's drafter proposes tokens and never changes the model's answer; its arithmetic is not public enough to be compiled. */
function leaveDrafter(m: M): void {
  const { config: c, w } = m;
  const { blocks, targets, rank } = c.dspark as NonNullable<typeof c.dspark>;
  const reason = 'part of the DSpark drafter, which is not compiled';
  const d = c.hidden;
  const bf = (name: string, ...shape: number[]): void => w.leave(name, shape, 'BF16', reason);
  const f = (name: string, ...shape: number[]): void => w.leave(name, shape, 'F32', reason);
  const matrix = (name: string, rows: number, columns: number, release = m.release): void =>
    w.leaveMatrix(name, rows, columns, release, reason);
  const hcHead = (p: string): void => {
    f(`${p}hc_head_fn`, c.hc.streams, c.hc.streams * d);
    f(`${p}hc_head_base`, c.hc.streams);
    f(`${p}hc_head_scale`, 1);
  };
  const mixes = c.hc.streams * (c.hc.streams + 2);
  for (let k = 0; k < blocks; k++) {
    const p = `mtp.${k}`;
    bf(`${p}.attn_norm.weight`, d);
    bf(`${p}.ffn_norm.weight`, d);
    for (const s of ['attn', 'ffn']) {
      f(`${p}.hc_${s}_fn`, mixes, c.hc.streams * d);
      f(`${p}.hc_${s}_base`, mixes);
      f(`${p}.hc_${s}_scale`, 3);
    }
    f(`${p}.attn.attn_sink`, c.heads);
    bf(`${p}.attn.q_norm.weight`, c.qLora);
    bf(`${p}.attn.kv_norm.weight`, c.headDim);
    matrix(`${p}.attn.wq_a`, c.qLora, d);
    matrix(`${p}.attn.wq_b`, c.heads * c.headDim, c.qLora);
    matrix(`${p}.attn.wkv`, c.headDim, d);
    matrix(`${p}.attn.wo_a`, c.oGroups * c.oLora, (c.heads * c.headDim) / c.oGroups);
    matrix(`${p}.attn.wo_b`, d, c.oGroups * c.oLora);
    bf(`${p}.ffn.gate.weight`, c.experts, d);
    f(`${p}.ffn.gate.bias`, c.experts);
    const each: readonly (readonly [string, number, number])[] = [
      ['w1', c.moeIntermediate, d],
      ['w2', d, c.moeIntermediate],
      ['w3', c.moeIntermediate, d],
    ];
    for (let e = 0; e < c.experts; e++)
      for (const [name, r, n] of each)
        matrix(`${p}.ffn.experts.${e}.${name}`, r, n, m.release === 'bf16' ? 'bf16' : c.expertDtype === 'fp8' ? 'fp8' : 'fp4');
    for (const [name, r, n] of each)
      matrix(`${p}.ffn.shared_experts.${name}`, name === 'w2' ? r : r * c.sharedExperts, name === 'w2' ? n * c.sharedExperts : n);
  }
  matrix('mtp.0.main_proj', d, targets * d);
  bf('mtp.0.main_norm.weight', d);
  const last = `mtp.${blocks - 1}.`;
  bf(`${last}norm.weight`, d);
  hcHead(last);
  bf(`${last}markov_head.markov_w1.weight`, c.vocab, rank);
  bf(`${last}markov_head.markov_w2.weight`, c.vocab, rank);
  bf(`${last}confidence_head.proj.weight`, 1, d + rank);
}
