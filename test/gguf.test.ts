// A GGUF read back by a plain decoder of its own, its splits, turns and pairs undone, and held against the checkpoint number by number.
import { createHash } from 'node:crypto';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from '@jest/globals';
import { check, make, must, readShard, Spoilt, type Tensor as Stored } from './engine-directory.js';
import { type Taken, type Tensor, take } from './gguf-file.js';
import { lite27, moe16, writeMade } from './gguf-made.js';
import { fixtures } from './golden-cases.js';

const work = mkdtempSync(join(tmpdir(), 'hkgai-gguf-read-'));
afterAll(() => rmSync(work, { recursive: true }));

// ---- numbers, each by its definition

const f16 = (h: number): number => {
  const [sign, e, f] = [h >> 15 ? -1 : 1, (h >> 10) & 31, h & 1023];
  return sign * (e === 0 ? f * 2 ** -24 : e === 31 ? (f ? Number.NaN : Number.POSITIVE_INFINITY) : (1024 + f) * 2 ** (e - 25));
};
const e4m3 = (b: number): number => {
  const [sign, e, f] = [b >> 7 ? -1 : 1, (b >> 3) & 15, b & 7];
  return sign * (e === 0 ? f * 2 ** -9 : (8 + f) * 2 ** (e - 10));
};
const fp4 = [0, 0.5, 1, 1.5, 2, 3, 4, 6];
const e2m1 = (n: number): number => (n & 8 ? -1 : 1) * fp4[n & 7]!;

interface Matrix {
  readonly rows: number;
  readonly columns: number;
  readonly values: Float64Array;
}
const { abs, floor } = Math; // globals are slow to reach from a test's own context
const viewOf = (b: Uint8Array): DataView => new DataView(b.buffer, b.byteOffset, b.byteLength);
const word = new DataView(new ArrayBuffer(4));
const bf16 = (h: number): number => {
  word.setUint32(0, h << 16);
  return word.getFloat32(0);
};
const readers: Readonly<Record<string, (v: DataView, i: number) => number>> = {
  F32: (v, i) => v.getFloat32(4 * i, true),
  BF16: (v, i) => bf16(v.getUint16(2 * i, true)),
  I64: (v, i) => Number(v.getBigInt64(8 * i, true)),
  F8_E8M0: (v, i) => 2 ** (v.getUint8(i) - 127),
};
function plain(t: Stored): Float64Array {
  const [v, read] = [viewOf(t.bytes), readers[t.dtype]!];
  const out = new Float64Array(t.shape.reduce((x, y) => x * y, 1));
  for (let i = 0; i < out.length; i++) out[i] = read(v, i);
  return out;
}
/** Tensors of a checkpoint with their scales: plain, FP8 in blocks of 128, FP4 in rows of 32. */
function source(dir: string): (name: string) => Matrix {
  const all = new Map<string, Stored>();
  for (const f of readdirSync(dir).filter(n => n.endsWith('.safetensors') && !n.startsWith('golden')))
    for (const t of readShard(join(dir, f))) all.set(t.name, t);
  return name => {
    const t = all.get(name);
    if (!t) throw new Error(`the checkpoint has no ${name}`);
    const scale = all.get(name.replace(/weight$/, 'scale')) ?? all.get(`${name}_scale_inv`);
    const [rows, width] = t.shape.length < 2 ? [1, t.shape[0] ?? 1] : (t.shape as [number, number]);
    if (t.dtype !== 'I8' && t.dtype !== 'F8_E4M3') return { rows, columns: width, values: plain(t) };
    const fp4s = t.dtype === 'I8';
    const columns = fp4s ? 2 * width : width;
    const [scales, across] = [plain(scale!), scale!.shape[1]!];
    const values = new Float64Array(rows * columns);
    for (let r = 0; r < rows; r++)
      for (let c = 0; c < columns; c++)
        values[r * columns + c] = fp4s
          ? e2m1(t.bytes[r * width + (c >> 1)]! >> (4 * (c & 1))) * scales[r * across + (c >> 5)]!
          : e4m3(t.bytes[r * width + c]!) * scales[(r >> 7) * across + (c >> 7)]!;
    return { rows, columns, values };
  };
}

/** Numbers of a GGUF tensor; how far each may be from the checkpoint's; and how large that one may be. */
interface Decoded {
  readonly values: Float64Array;
  readonly half: Float64Array;
  readonly full: Float64Array;
}
/** Half of the step beside a code of FP4, the larger one; 6 is the end. */
const halfStep = [0.25, 0.25, 0.25, 0.25, 0.5, 0.5, 1, 1];
function decoded(t: Tensor): Decoded {
  const v = viewOf(t.bytes);
  const n = t.dims.reduce((x, y) => x * y, 1);
  const values = new Float64Array(n);
  const half = new Float64Array(n);
  const full = new Float64Array(n).fill(Number.POSITIVE_INFINITY);
  const blocks = floor(n / 32);
  const each = (one: (i: number) => number, off: (value: number) => number): void => {
    for (let i = 0; i < n; i++) {
      values[i] = one(i);
      half[i] = off(abs(values[i]!));
    }
  };
  if (t.type === 0)
    each(
      i => v.getFloat32(4 * i, true),
      () => 0,
    );
  else if (t.type === 26)
    each(
      i => v.getInt32(4 * i, true),
      () => 0,
    );
  else if (t.type === 30)
    each(
      i => bf16(v.getUint16(2 * i, true)),
      x => x * 2 ** -8,
    );
  else if (t.type === 1)
    each(
      i => f16(v.getUint16(2 * i, true)),
      x => x * 2 ** -11 + 2 ** -25,
    );
  else if (t.type === 8)
    for (let b = 0; b < blocks; b++) {
      const d = f16(v.getUint16(34 * b, true));
      for (let j = 0; j < 32; j++) {
        const i = 32 * b + j;
        values[i] = d * v.getInt8(34 * b + 2 + j);
        // the scale is rounded to f16 after the codes are found
        half[i] = d / 2 + abs(values[i]!) * 2 ** -11;
        full[i] = 127.5 * d;
      }
    }
  else if (t.type === 2)
    for (let b = 0; b < blocks; b++) {
      const d = f16(v.getUint16(18 * b, true));
      for (let j = 0; j < 32; j++) {
        const i = 32 * b + j;
        const code = (v.getUint8(18 * b + 2 + (j % 16)) >> (j < 16 ? 0 : 4)) & 15;
        values[i] = d * (code - 8);
        // eight codes on one side and seven on the other: what is above the seventh is cut
        half[i] = (code === 15 ? abs(d) : abs(d) / 2) + abs(values[i]!) * 2 ** -11;
        full[i] = 8.5 * abs(d);
      }
    }
  else if (t.type === 39)
    for (let b = 0; b < blocks; b++) {
      const s = 2 ** (v.getUint8(17 * b) - 127);
      for (let j = 0; j < 32; j++) {
        const i = 32 * b + j;
        const code = (v.getUint8(17 * b + 1 + (j % 16)) >> (j < 16 ? 0 : 4)) & 15;
        values[i] = s * e2m1(code);
        half[i] = s * ((code & 7) === 7 ? 2 : halfStep[code & 7]!);
        full[i] = 8 * s;
      }
    }
  else throw new Error(`type ${t.type}`);
  return { values, half, full };
}

// ---- names, each undone

type Find = (name: string) => Matrix;
type Json = Readonly<Record<string, unknown>>;
const mla: Readonly<Record<string, string>> = {
  'attn_norm.weight': 'input_layernorm.weight',
  'attn_q.weight': 'self_attn.q_proj.weight',
  'attn_k.weight': 'self_attn.k_proj.weight',
  'attn_v.weight': 'self_attn.v_proj.weight',
  'attn_q.bias': 'self_attn.q_proj.bias',
  'attn_k.bias': 'self_attn.k_proj.bias',
  'attn_v.bias': 'self_attn.v_proj.bias',
  'attn_q_a.weight': 'self_attn.q_a_proj.weight',
  'attn_q_a_norm.weight': 'self_attn.q_a_layernorm.weight',
  'attn_q_b.weight': 'self_attn.q_b_proj.weight',
  'attn_kv_a_mqa.weight': 'self_attn.kv_a_proj_with_mqa.weight',
  'attn_kv_a_norm.weight': 'self_attn.kv_a_layernorm.weight',
  'attn_output.weight': 'self_attn.o_proj.weight',
  'ffn_norm.weight': 'post_attention_layernorm.weight',
  'ffn_gate_inp.weight': 'mlp.gate.weight',
  'exp_probs_b.bias': 'mlp.gate.e_score_correction_bias',
  'indexer.attn_q_b.weight': 'self_attn.indexer.wq_b.weight',
  'indexer.attn_k.weight': 'self_attn.indexer.wk.weight',
  'indexer.k_norm.weight': 'self_attn.indexer.k_norm.weight',
  'indexer.k_norm.bias': 'self_attn.indexer.k_norm.bias',
  'indexer.proj.weight': 'self_attn.indexer.weights_proj.weight',
  'nextn.eh_proj.weight': 'eh_proj.weight',
  'nextn.enorm.weight': 'enorm.weight',
  'nextn.hnorm.weight': 'hnorm.weight',
  'nextn.embed_tokens.weight': 'embed_tokens.weight',
  'nextn.shared_head_head.weight': 'shared_head.head.weight',
  'nextn.shared_head_norm.weight': 'shared_head.norm.weight',
};
const v4: Readonly<Record<string, string>> = {
  'attn_norm.weight': 'attn_norm.weight',
  'attn_sinks.weight': 'attn.attn_sink',
  'attn_q_a.weight': 'attn.wq_a.weight',
  'attn_q_a_norm.weight': 'attn.q_norm.weight',
  'attn_q_b.weight': 'attn.wq_b.weight',
  'attn_kv.weight': 'attn.wkv.weight',
  'attn_kv_a_norm.weight': 'attn.kv_norm.weight',
  'attn_output_a.weight': 'attn.wo_a.weight',
  'attn_output_b.weight': 'attn.wo_b.weight',
  'attn_compressor_kv.weight': 'attn.compressor.wkv.weight',
  'attn_compressor_gate.weight': 'attn.compressor.wgate.weight',
  'attn_compressor_ape.weight': 'attn.compressor.ape',
  'attn_compressor_norm.weight': 'attn.compressor.norm.weight',
  'indexer.proj.weight': 'attn.indexer.weights_proj.weight',
  'indexer.attn_q_b.weight': 'attn.indexer.wq_b.weight',
  'indexer_compressor_kv.weight': 'attn.indexer.compressor.wkv.weight',
  'indexer_compressor_gate.weight': 'attn.indexer.compressor.wgate.weight',
  'indexer_compressor_ape.weight': 'attn.indexer.compressor.ape',
  'indexer_compressor_norm.weight': 'attn.indexer.compressor.norm.weight',
  'ffn_norm.weight': 'ffn_norm.weight',
  'ffn_gate_inp.weight': 'ffn.gate.weight',
  'ffn_gate_tid2eid.weight': 'ffn.gate.tid2eid',
  'exp_probs_b.bias': 'ffn.gate.bias',
};
const ends: Readonly<Record<string, string>> = {
  'token_embd.weight': 'model.embed_tokens.weight',
  'output_norm.weight': 'model.norm.weight',
  'output.weight': 'lm_head.weight',
};
const v4Ends: Readonly<Record<string, string>> = {
  'token_embd.weight': 'embed.weight',
  'output_norm.weight': 'norm.weight',
  'output.weight': 'head.weight',
  'output_hc_fn.weight': 'hc_head_fn',
  'output_hc_base.weight': 'hc_head_base',
  'output_hc_scale.weight': 'hc_head_scale',
};
const w4: Readonly<Record<string, string>> = { gate: 'w1', up: 'w3', down: 'w2' };

const as =
  (t: Matrix): ((c: number, r: number) => number) =>
  (c, r) =>
    t.values[r * t.columns + c]!;
/** The number that should stand at a place of a tensor of the file: [i0, i1, i2], fastest first. */
function wanted(name: string, arch: string, config: Json, find: Find): (i0: number, i1: number, i2: number) => number {
  const own = arch === 'deepseek4';
  const m = /^blk\.(\d+)\.(.+)$/.exec(name);
  if (!m) {
    return as(find((own ? v4Ends : ends)[name] as string));
  }
  const prefix = `${own ? '' : 'model.'}layers.${m[1]}.`;
  const short = m[2] as string;
  const half = /^attn_(k|v)_b\.weight$/.exec(short);
  if (half) {
    const t = find(`${prefix}self_attn.kv_b_proj.weight`);
    const [nope, v] = [Number(config.qk_nope_head_dim), Number(config.v_head_dim)];
    const at = as(t);
    return half[1] === 'k' ? (c, r, h) => at(r, h * (nope + v) + c) : (c, r, h) => at(c, h * (nope + v) + nope + r);
  }
  const experts = /^ffn_(gate|up|down)_exps\.weight$/.exec(short);
  if (experts) {
    const part = experts[1] as string;
    const all = Array.from({ length: Number(config.n_routed_experts) }, (_, e) =>
      as(find(own ? `${prefix}ffn.experts.${e}.${w4[part]}.weight` : `${prefix}mlp.experts.${e}.${part}_proj.weight`)),
    );
    return (c, r, e) => all[e]!(c, r);
  }
  const mlp = /^ffn_(gate|up|down)(_shexp)?\.weight$/.exec(short);
  const hyper = /^hc_(attn|ffn)_(fn|base|scale)\.weight$/.exec(short);
  const from = mlp
    ? own
      ? `ffn.shared_experts.${w4[mlp[1] as string]}.weight`
      : `mlp.${mlp[2] ? 'shared_experts.' : ''}${mlp[1]}_proj.weight`
    : hyper
      ? `hc_${hyper[1]}_${hyper[2]}`
      : ((own ? v4 : mla)[short] as string);
  const t = find(prefix + from);
  const turned = /^attn_(q|k)\.(weight|bias)$/.exec(short);
  const at = as(t);
  if (!turned || !['llama', 'deepseek'].includes(arch)) return at;
  // pairs of neighbours come from the halves of a head
  const heads = Number(turned[1] === 'q' ? config.num_attention_heads : config.num_key_value_heads);
  const vector = turned[2] === 'bias';
  const head = (vector ? t.columns : t.rows) / heads;
  const undo = (r: number): number => floor(r / head) * head + (r % 2) * (head / 2) + floor((r % head) / 2);
  return vector ? c => at(undo(c), 0) : (c, r) => at(c, undo(r));
}

/** All parts of a directory as one. */
function parts(dir: string): Taken {
  const all = readdirSync(dir)
    .filter(f => f.endsWith('.gguf'))
    .sort()
    .map(f => take(join(dir, f)));
  return { keys: all[0]!.keys, tensors: all.flatMap(t => t.tensors) };
}
interface Held {
  /** Numbers that are not the source's, by the file's type. */
  readonly off: Readonly<Record<number, number>>;
  /** Numbers by type. */
  readonly all: Readonly<Record<number, number>>;
}
/** Holds every number of a file against the checkpoint; throws where one is further off than its type lets it. */
function hold(dir: string, checkpoint: string): Held {
  const { keys, tensors } = parts(dir);
  const arch = keys.get('general.architecture')!.value as string;
  const config = JSON.parse(readFileSync(join(checkpoint, 'config.json'), 'utf8')) as Json;
  const find = source(checkpoint);
  const off: Record<number, number> = {};
  const all: Record<number, number> = {};
  for (const t of tensors) {
    if (t.name === 'rope_freqs.weight') continue;
    const want = wanted(t.name, arch, config, find);
    const [n0, n1, n2] = [t.dims[0]!, t.dims[1] ?? 1, t.dims[2] ?? 1];
    const { values, half, full } = decoded(t);
    let [i, differ] = [0, 0];
    for (let i2 = 0; i2 < n2; i2++)
      for (let i1 = 0; i1 < n1; i1++)
        for (let i0 = 0; i0 < n0; i0++, i++) {
          const w = want(i0, i1, i2);
          const value = values[i]!;
          if (value === w) continue;
          differ++;
          if (!(abs(value - w) <= half[i]!) || abs(w) > full[i]!)
            throw new Error(`${t.name} has ${value} at [${i0}, ${i1}, ${i2}], the checkpoint ${w}; ${half[i]} is allowed`);
        }
    all[t.type] = (all[t.type] ?? 0) + i;
    if (differ) off[t.type] = (off[t.type] ?? 0) + differ;
  }
  return { off, all };
}
const wish = (quantise: string) => ({ target: 'cpu', runtime: 'llama.cpp', quantise });

describe('every number of a GGUF is the checkpoint’s', () => {
  const tiny = (n: string): string => join(fixtures, 'tiny', n);
  const nano = join(fixtures, 'hkgai-nano');
  for (const [name, config] of Object.entries({ moe16, lite27 })) writeMade(join(work, name), config);
  // what differs, by type: none of the exact ones
  const cases: readonly (readonly [checkpoint: string, quantise: string, types: readonly number[], inexact: readonly number[]])[] = [
    [tiny('llama-distill-tiny'), 'none', [0, 30], []],
    [tiny('qwen2-distill-tiny'), 'none', [0, 30], []],
    [tiny('v3-tiny-bf16'), 'none', [0, 30], []],
    [tiny('v32-tiny'), 'none', [0, 30], []],
    [tiny('v4-tiny'), 'none', [0, 26, 30], []],
    [join(work, 'moe16'), 'none', [0, 30], []],
    [join(work, 'lite27'), 'none', [0, 30], []],
    // FP8 with a scale of 8 bits times a power of two fits bf16; with any f32 it is rounded
    [tiny('v3-tiny-fp8-ue8m0'), 'none', [0, 30], []],
    [tiny('v3-tiny-fp8'), 'none', [0, 30], [30]],
    // FP4 stays FP4
    [tiny('v4-tiny-fp8fp4'), 'none', [0, 26, 30, 39], []],
    // embedding and head are no linears: they stay as they are
    [nano, 'f16', [0, 1, 30], [1]],
    [nano, 'q8_0', [0, 8, 30], [8]],
    [nano, 'q4_0', [0, 2, 30], [2]],
    [nano, 'mxfp4', [0, 30, 39], [39]],
    [tiny('llama-distill-tiny'), 'q8_0', [0, 8, 30], [8]],
    [join(work, 'moe16'), 'q4_0', [0, 2, 30], [2]],
  ];
  for (const [checkpoint, quantise, types, inexact] of cases)
    it(`${checkpoint.split('/').at(-1)} as ${quantise}`, async () => {
      const out = `${checkpoint.split('/').at(-1)}-${quantise}`;
      const m = must(await make(checkpoint, wish(quantise), join(work, out)));
      const { off, all } = hold(m.dir, checkpoint);
      rmSync(join(work, out), { recursive: true });
      expect(Object.keys(all).map(Number)).toEqual(types);
      expect(Object.keys(off).map(Number)).toEqual(inexact);
    });
});

it('llama 3’s factors divide the frequencies as transformers does', async () => {
  const dir = join(fixtures, 'tiny/llama-distill-tiny');
  const m = must(await make(dir, wish('bf16'), join(work, 'llama')));
  const config = JSON.parse(readFileSync(join(dir, 'config.json'), 'utf8'));
  const { factor, low_freq_factor: low, high_freq_factor: high, original_max_position_embeddings: length } = config.rope_scaling;
  const t = parts(m.dir).tensors.find(x => x.name === 'rope_freqs.weight')!;
  const head = config.head_dim ?? config.hidden_size / config.num_attention_heads;
  for (let i = 0; i < head / 2; i++) {
    const frequency = config.rope_theta ** ((-2 * i) / head);
    const wave = (2 * Math.PI) / frequency;
    const smooth = (length / wave - low) / (high - low);
    const scaled =
      wave < length / high
        ? frequency
        : wave > length / low
          ? frequency / factor
          : ((1 - smooth) * frequency) / factor + smooth * frequency;
    expect(decoded(t).values[i]!).toBeCloseTo(frequency / scaled, 5);
  }
});

describe('a table from tokens to experts', () => {
  it('that holds a number of more than 32 bits is refused with tensor, value and place, in a thread too', async () => {
    const copy = new Spoilt(join(fixtures, 'tiny/v4-tiny'), join(work, 'wide numbers'));
    copy.remove('golden.safetensors');
    let name = '';
    copy.tensors(/tid2eid$/, t => {
      name = t.name;
      new DataView(t.bytes.buffer, t.bytes.byteOffset).setBigInt64(24, -(2n ** 31n) - 1n, true);
    });
    for (const jobs of [0, 1]) {
      const said = await make(copy.dir, { ...wish('q8_0'), jobs }, join(work, `wide ${jobs}`));
      expect(said).toContain(`HK3603 ${name} holds -2147483649, which does not fit in the 32 bits it is written in`);
    }
    copy.tensors(/tid2eid$/, t => void new DataView(t.bytes.buffer, t.bytes.byteOffset).setBigInt64(24, 1n, true));
    must(await make(copy.dir, { ...wish('q8_0'), jobs: 1 }, join(work, 'wide 1'))); // goes on from what was finished
  });
});

describe('several files', () => {
  const checkpoint = join(fixtures, 'tiny/v3-tiny-bf16');
  it('say the same as one', async () => {
    const one = must(await make(checkpoint, wish('q8_0'), join(work, 'one')));
    const many = must(await make(checkpoint, { ...wish('q8_0'), shardBytes: 90_000 }, join(work, 'many')));
    const names = readdirSync(many.dir).filter(f => f.endsWith('.gguf'));
    expect(names.length).toBeGreaterThan(4);
    expect(names.every(n => n.endsWith(`-of-${String(names.length).padStart(5, '0')}.gguf`))).toBe(true);
    const [a, b] = [parts(one.dir), parts(many.dir)];
    const told = (t: Taken): readonly unknown[] =>
      t.tensors.map(x => [x.name, x.dims, x.type, createHash('sha256').update(x.bytes).digest('hex')]);
    expect(told(b)).toEqual(told(a));
    expect([...b.keys].filter(([k]) => !k.startsWith('split.'))).toEqual([...a.keys]);
    expect(check(many.dir, many)).toEqual([]);
  });
  it('are the same bytes with any number of threads', async () => {
    const hashes = new Set<string>();
    for (const jobs of [0, 1, 2]) {
      const m = must(await make(checkpoint, { ...wish('q4_0'), shardBytes: 90_000, jobs }, join(work, `jobs-${jobs}`)));
      const h = createHash('sha256');
      for (const f of readdirSync(m.dir).sort()) h.update(f).update(readFileSync(join(m.dir, f)));
      hashes.add(h.digest('hex'));
    }
    expect(hashes.size).toBe(1);
  });
});
