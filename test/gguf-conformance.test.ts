// The checker of what llama.cpp loads: every clean directory passes, one planted fault is found by its rule and by no other.
import { copyFileSync, existsSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { targets } from '../src/compile.js';
import { conform } from '../src/conformance.js';
import type { ggufRules } from '../targets/cpu/gguf.js';
import { llamaRules } from '../targets/cpu/gguf-conformance.js';
import { check, type Made, make, must, rulesOf, Spoilt } from './engine-directory.js';
import { f32, i32, type Key, put, string, type Taken, type Tensor, take, u16, u32 } from './gguf-file.js';
import { lite27, moe16, writeMade } from './gguf-made.js';
import { fixtures, tinyCases } from './golden-cases.js';

const work = mkdtempSync(join(tmpdir(), 'hkgai-gguf-'));
afterAll(() => rmSync(work, { recursive: true }));
const nano = join(fixtures, 'hkgai-nano');
const tiny = (n: string): string => join(fixtures, 'tiny', n);
const wish = (quantise: string) => ({ target: 'cpu', runtime: 'llama.cpp', quantise });

/** Recorded cases that llama.cpp's architectures hold, and what is said of the others. */
const refusals: Readonly<Record<string, string>> = {
  'v2-lite-tiny': 'deepseek2 with 3 layers wants a q_lora_rank, which config.json has not',
  'v2-tiny': 'deepseek2 scores a group by its two best experts; "group_limited_greedy" of config.json takes the best alone',
};
describe('clean directories', () => {
  for (const name of tinyCases.filter(n => refusals[n] === undefined))
    for (const quantise of ['none', 'bf16', 'q8_0'])
      it(`${name} as ${quantise}`, async () => {
        const m = must(await make(tiny(name), wish(quantise), join(work, `${name}-${quantise}`)));
        expect(check(m.dir, m)).toEqual([]);
      });
  for (const quantise of ['none', 'f16', 'q8_0', 'q4_0', 'mxfp4'])
    it(`hkgai-nano as ${quantise}`, async () => {
      const m = must(await make(nano, wish(quantise), join(work, `clean-${quantise}`)));
      expect(check(m.dir, m)).toEqual([]);
    });
  for (const [name, config] of Object.entries({ moe16, lite27 }))
    it(`${name}, made here`, async () => {
      writeMade(join(work, name), config);
      const m = must(await make(join(work, name), wish('q8_0'), join(work, `${name}-q8_0`)));
      expect(check(m.dir, m)).toEqual([]);
      // as verify has it, which knows of no checkpoint
      const cpu = targets.cpu!;
      expect(conform(m.dir, cpu, cpu.chips[0]!, null, null)).toMatchObject({ format: 'gguf', problems: [] });
    });
});

describe('refused', () => {
  for (const [name, sentence] of Object.entries(refusals))
    it(name, async () => {
      const out = join(work, `refused-${name}`);
      expect(await make(tiny(name), wish('bf16'), out)).toContain(sentence);
      expect(existsSync(out)).toBe(false);
    });
  const config = (name: string): Record<string, unknown> => JSON.parse(readFileSync(join(tiny(name), 'config.json'), 'utf8'));
  const changed: readonly (readonly [what: string, of: string, change: Record<string, unknown>, sentence: string])[] = [
    [
      'a group that is the only one used',
      'v3-tiny-bf16',
      { topk_group: 4 },
      'deepseek2 wants fewer groups used than there are; these are 4 of 4',
    ],
    [
      'two magnitudes of YaRN',
      'v3-tiny-bf16',
      {
        rope_scaling: {
          type: 'yarn',
          factor: 40,
          original_max_position_embeddings: 32,
          beta_fast: 32,
          beta_slow: 1,
          mscale: 1,
          mscale_all_dim: 0.7,
        },
      },
      'deepseek2 takes mscale for mscale_all_dim; config.json has 1 and 0.7',
    ],
  ];
  for (const [what, of, change, sentence] of changed)
    it(what, async () => {
      const from = join(work, what.replaceAll(' ', '-'));
      new Spoilt(tiny(of), from).file('config.json', JSON.stringify({ ...config(of), ...change }));
      const out = join(work, 'refused');
      expect(await make(from, wish('bf16'), out)).toContain(sentence);
      expect(existsSync(out)).toBe(false);
    });
  it('MoE-16B whose weights are to be normed', async () => {
    writeMade(join(work, 'normed'), { ...moe16, norm_topk_prob: true });
    expect(await make(join(work, 'normed'), wish('bf16'), join(work, 'refused'))).toContain(
      'leaves the weights of the chosen experts as they are; norm_topk_prob is true',
    );
  });
});

// ---- faults

const made: Record<string, Made> = {};
beforeAll(async () => {
  const bases: Readonly<Record<string, readonly [string, string, number?]>> = {
    nano: [nano, 'q8_0'],
    q4: [tiny('llama-distill-tiny'), 'q4_0'],
    fp4: [nano, 'mxfp4'],
    llama: [tiny('llama-distill-tiny'), 'bf16'],
    v3: [tiny('v3-tiny-bf16'), 'bf16'],
    v32: [tiny('v32-tiny'), 'bf16'],
    v4: [tiny('v4-tiny'), 'bf16'],
    split: [tiny('qwen2-distill-tiny'), 'bf16', 60_000],
  };
  for (const [name, [model, quantise, shardBytes]] of Object.entries(bases))
    made[name] = must(await make(model, { ...wish(quantise), ...(shardBytes ? { shardBytes } : {}) }, join(work, `base-${name}`)));
});

interface Planted {
  readonly name: string;
  readonly of: string;
  readonly rule: keyof typeof llamaRules | keyof typeof ggufRules;
  /** Changes the file taken apart. */
  readonly plant?: (t: Taken) => void;
  /** Changes the file's bytes. */
  readonly bytes?: (b: Buffer) => Buffer | undefined;
  /** Changes the directory. */
  readonly files?: (dir: string) => void;
  /** Of several parts: which one; the first where not said. */
  readonly part?: number;
}
const key = (t: Taken, name: string): Key => {
  const k = t.keys.get(name);
  if (!k) throw new Error(`nothing is called ${name}`);
  return k;
};
const set = (name: string, value: Key['value']) => (t: Taken) => void (key(t, name).value = value);
const drop = (name: string) => (t: Taken) => {
  key(t, name);
  t.keys.delete(name);
};
const tensor = (t: Taken, name: string): Tensor => {
  const found = t.tensors.find(x => x.name === name);
  if (!found) throw new Error(`nothing is called ${name}`);
  return found;
};
const without = (name: string) => (t: Taken) => {
  tensor(t, name);
  t.tensors = t.tensors.filter(x => x.name !== name);
};
/** A tensor's bytes as f32 zeros under other dims or another type. */
const zeros = (x: Tensor, type: number, each: number): void => {
  x.type = type;
  x.bytes = new Uint8Array(x.dims.reduce((a, b) => a * b, 1) * each);
};
const words = (name: string, value: (n: number) => void) => (t: Taken) => value(key(t, name).value as number);
const listed = (t: Taken, name: string): (string | number)[] => key(t, `tokenizer.ggml.${name}`).value as (string | number)[];

const faults: readonly Planted[] = [
  // the file
  { name: 'another magic', of: 'v3', rule: 'G1', bytes: b => void b.write('GGML', 0) },
  { name: 'version 2', of: 'v3', rule: 'G2', bytes: b => void b.writeUInt32LE(2, 4) },
  { name: 'more tensors than bytes', of: 'v3', rule: 'G3', bytes: b => void b.writeBigUInt64LE(2n ** 40n, 8) },
  { name: 'a file cut short', of: 'v3', rule: 'G3', bytes: b => b.subarray(0, b.length - 4096) },
  {
    name: 'a value of type 13',
    of: 'v3',
    rule: 'G4',
    plant: t => void (key(t, 'general.file_type').type = 7),
    bytes: b => void typeOf(b, 'general.file_type', 13),
  },
  {
    name: 'a bool of 2',
    of: 'v3',
    rule: 'G7',
    bytes: b => void afterKey(b, 'deepseek2.expert_weights_norm', at => b.writeUInt8(2, at + 4)),
  },
  { name: 'bytes after the last tensor', of: 'v3', rule: 'G18', bytes: b => Buffer.concat([b, Buffer.alloc(64)]) },
  { name: 'a name of 64 bytes', of: 'v3', rule: 'G10', plant: t => void (tensor(t, 'output_norm.weight').name = 'x'.repeat(64)) },
  // the set
  { name: 'a part is missing', of: 'split', rule: 'L1', files: d => rmSync(join(d, part(d, 1))) },
  { name: 'a file of another model', of: 'v3', rule: 'L1', files: d => copyFileSync(join(d, 'model.gguf'), join(d, 'other.gguf')) },
  { name: 'a part under a whole name beside', of: 'split', rule: 'L1', files: d => renameSync(join(d, part(d, 1)), join(d, 'model.gguf')) },
  { name: 'split.no of another part', of: 'split', rule: 'L2', part: 1, plant: set('split.no', 0) },
  { name: 'split.count of fewer', of: 'split', rule: 'L2', plant: set('split.count', 1) },
  { name: 'split.no in a whole file', of: 'v3', rule: 'L2', plant: t => void t.keys.set('split.no', { type: u16, of: null, value: 0 }) },
  {
    name: 'split.tensors.count off by one',
    of: 'split',
    rule: 'L3',
    part: 1,
    plant: words('split.tensors.count', () => {}),
    bytes: b => void afterKey(b, 'split.tensors.count', at => b.writeInt32LE(1, at + 4)),
  },
  {
    name: 'keys of the model in a later part',
    of: 'split',
    rule: 'L4',
    part: 1,
    plant: t => void t.keys.set('general.architecture', { type: string, of: null, value: 'qwen2' }),
  },
  // keys
  { name: 'an unknown architecture', of: 'v3', rule: 'L6', plant: set('general.architecture', 'deepseek9') },
  { name: 'no rank of keys and values', of: 'v3', rule: 'L7', plant: drop('deepseek2.attention.kv_lora_rank') },
  { name: 'no epsilon', of: 'llama', rule: 'L7', plant: drop('llama.attention.layer_norm_rms_epsilon') },
  { name: 'no clamp', of: 'v4', rule: 'L7', plant: drop('deepseek4.swiglu_clamp_exp') },
  { name: 'heads as i32', of: 'llama', rule: 'L8', plant: t => void (key(t, 'llama.attention.head_count').type = i32) },
  { name: 'a base as u32', of: 'v3', rule: 'L8', plant: t => void (key(t, 'deepseek2.rope.freq_base').type = u32) },
  {
    name: 'a key of nobody',
    of: 'v3',
    rule: 'L9',
    plant: t => void t.keys.set('deepseek2.attention.window', { type: u32, of: null, value: 1 }),
  },
  {
    name: 'a key of another architecture',
    of: 'llama',
    rule: 'L9',
    plant: t => void t.keys.set('qwen2.block_count', { type: u32, of: null, value: 1 }),
  },
  { name: 'an epsilon of 0', of: 'v3', rule: 'L10', plant: set('deepseek2.attention.layer_norm_rms_epsilon', 0) },
  { name: 'experts scored in a third way', of: 'v3', rule: 'L10', plant: set('deepseek2.expert_gating_func', 3) },
  { name: 'a clamp below 0', of: 'v4', rule: 'L10', plant: t => void ((key(t, 'deepseek4.swiglu_clamp_exp').value as number[])[0] = -1) },
  { name: 'more experts used than there are', of: 'v3', rule: 'L11', plant: set('deepseek2.expert_used_count', 9) },
  { name: 'as many groups used as there are', of: 'v3', rule: 'L11', plant: set('deepseek2.expert_group_used_count', 4) },
  { name: 'groups without those used', of: 'v3', rule: 'L11', plant: drop('deepseek2.expert_group_used_count') },
  { name: 'a key length that is not rank and rotation', of: 'v3', rule: 'L11', plant: set('deepseek2.attention.key_length', 71) },
  { name: 'a key-value head of its own', of: 'v32', rule: 'L11', plant: set('deepseek32.attention.head_count_kv', 4) },
  {
    name: 'a clamp for fewer layers',
    of: 'v4',
    rule: 'L11',
    plant: t => void (key(t, 'deepseek4.swiglu_clamp_exp').value as number[]).pop(),
  },
  { name: 'low-rank queries not spoken of', of: 'v32', rule: 'L12', plant: t => lowRank(t) },
  { name: 'a scaling that no one has', of: 'v3', rule: 'L13', plant: t => kindOf(t) },
  { name: 'YaRN without its length', of: 'v3', rule: 'L13', plant: drop('deepseek2.rope.scaling.original_context_length') },
  {
    name: 'a factor without a scaling',
    of: 'llama',
    rule: 'L13',
    plant: t => void t.keys.set('llama.rope.scaling.factor', { type: f32, of: null, value: 8 }),
  },
  // tensors
  { name: 'no last norm', of: 'v3', rule: 'L14', plant: without('output_norm.weight') },
  { name: 'no part of the MTP block', of: 'v3', rule: 'L14', plant: without('blk.3.nextn.eh_proj.weight') },
  { name: 'no norm of the index', of: 'v32', rule: 'L14', plant: without('blk.0.indexer.k_norm.bias') },
  {
    name: 'a tensor too many',
    of: 'v3',
    rule: 'L15',
    plant: t => void t.tensors.push({ name: 'blk.0.attn_kv_b.weight', dims: [64, 2], type: 0, bytes: new Uint8Array(512) }),
  },
  { name: 'kv_b’s half the wrong way round', of: 'v3', rule: 'L16', plant: t => void tensor(t, 'blk.0.attn_k_b.weight').dims.reverse() },
  { name: 'experts as a flat matrix', of: 'v3', rule: 'L16', plant: t => flat(tensor(t, 'blk.1.ffn_up_exps.weight')) },
  { name: 'a norm in bf16', of: 'v3', rule: 'L17', plant: t => zeros(tensor(t, 'blk.0.attn_norm.weight'), 30, 2) },
  { name: 'a router in bf16', of: 'v3', rule: 'L17', plant: t => zeros(tensor(t, 'blk.1.ffn_gate_inp.weight'), 30, 2) },
  { name: 'a table of numbers with a point', of: 'v4', rule: 'L17', plant: t => zeros(tensor(t, 'blk.0.ffn_gate_tid2eid.weight'), 0, 4) },
  { name: 'a file type of another', of: 'nano', rule: 'L18', plant: set('general.file_type', 2) },
  { name: 'blocks of version 1', of: 'nano', rule: 'L19', plant: set('general.quantization_version', 1) },
  // vocabulary
  { name: 'no types of tokens', of: 'nano', rule: 'L20', plant: drop('tokenizer.ggml.token_type') },
  {
    name: 'tokens beside none',
    of: 'v3',
    rule: 'L20',
    plant: t => void t.keys.set('tokenizer.ggml.tokens', { type: 9, of: string, value: ['a'] }),
  },
  { name: 'another vocabulary', of: 'nano', rule: 'L20', plant: set('tokenizer.ggml.model', 'llama') },
  { name: 'a type too few', of: 'nano', rule: 'L21', plant: t => void listed(t, 'token_type').pop() },
  { name: 'a token twice', of: 'nano', rule: 'L22', plant: t => void (listed(t, 'tokens')[2047] = '[PAD2046]') },
  { name: 'a type of 7', of: 'nano', rule: 'L22', plant: t => void (listed(t, 'token_type')[5] = 7) },
  { name: 'a merge of three', of: 'nano', rule: 'L23', plant: t => void (listed(t, 'merges')[3] = 'a b c') },
  { name: 'a merge of what is no token', of: 'nano', rule: 'L23', plant: t => void (listed(t, 'merges')[3] = 'zzzq zzzq') },
  { name: 'an end beyond the vocabulary', of: 'nano', rule: 'L24', plant: set('tokenizer.ggml.eos_token_id', 2048) },
  { name: 'a cut that no one knows', of: 'nano', rule: 'L25', plant: set('tokenizer.ggml.pre', 'mine') },
  {
    name: 'a key of the vocabulary that no one knows',
    of: 'nano',
    rule: 'L9',
    plant: t => void t.keys.set('tokenizer.ggml.mine', { type: u32, of: null, value: 0 }),
  },
  // values
  {
    name: 'an infinite scale of Q8_0',
    of: 'nano',
    rule: 'L26',
    plant: t => block(tensor(t, 'blk.0.attn_output.weight'), 34, 3, [0, 0x7c]),
  },
  { name: 'a NaN scale of Q4_0', of: 'q4', rule: 'L26', plant: t => block(tensor(t, 'blk.1.ffn_up.weight'), 18, 5, [1, 0xfe]) },
  { name: 'a NaN scale of MXFP4', of: 'fp4', rule: 'L27', plant: t => block(tensor(t, 'blk.1.ffn_gate_exps.weight'), 17, 7, [255]) },
  { name: 'a NaN in bf16', of: 'v3', rule: 'L28', plant: t => block(tensor(t, 'token_embd.weight'), 2, 9, [0xc0, 0x7f]) },
  { name: 'an infinite norm', of: 'v3', rule: 'L28', plant: t => block(tensor(t, 'output_norm.weight'), 4, 1, [0, 0, 0x80, 0x7f]) },
  {
    name: 'a table that names no expert',
    of: 'v4',
    rule: 'L29',
    plant: t => block(tensor(t, 'blk.0.ffn_gate_tid2eid.weight'), 4, 2, [8, 0, 0, 0]),
  },
  { name: 'a rope factor below 1', of: 'llama', rule: 'L30', plant: t => block(tensor(t, 'rope_freqs.weight'), 4, 0, [0, 0, 0, 0x3f]) },
];
const part = (dir: string, n: number): string =>
  readdirSync(dir)
    .filter(f => f.endsWith('.gguf'))
    .sort()[n]!;
function block(x: Tensor, each: number, n: number, bytes: readonly number[]): void {
  x.bytes.set(bytes, n * each);
}
function flat(x: Tensor): void {
  x.dims = [x.dims[0]!, x.dims[1]! * x.dims[2]!];
}
/** Low-rank queries under the names of plain ones are told by their key alone. */
function lowRank(t: Taken): void {
  drop('deepseek32.attention.q_lora_rank')(t);
  for (const x of t.tensors.filter(y => /attn_q_a(_norm)?\.weight$/.test(y.name))) t.tensors.splice(t.tensors.indexOf(x), 1);
  const n = (name: string): number => key(t, `deepseek32.${name}`).value as number;
  for (const x of t.tensors.filter(y => y.name.endsWith('attn_q_b.weight') && !y.name.includes('indexer'))) {
    x.name = x.name.replace('attn_q_b', 'attn_q');
    x.dims = [n('embedding_length'), n('attention.head_count') * n('attention.key_length_mla')];
    zeros(x, 30, 2);
  }
}
function kindOf(t: Taken): void {
  set('deepseek2.rope.scaling.type', 'longrope')(t);
  for (const k of [...t.keys.keys()].filter(x => /rope\.scaling\.(?!type)/.test(x))) t.keys.delete(k);
}
/** Calls with the place of a key's type. */
function afterKey(b: Buffer, name: string, change: (at: number) => void): void {
  const at = b.indexOf(name);
  if (at < 0) throw new Error(`nothing is called ${name}`);
  change(at + name.length);
}
const typeOf = (b: Buffer, name: string, type: number): void => afterKey(b, name, at => b.writeUInt32LE(type, at));

describe('planted faults', () => {
  for (const f of faults)
    it(`${f.rule}: ${f.name}`, () => {
      const m = made[f.of]!;
      const to = join(work, 'spoilt');
      const { dir } = new Spoilt(m.dir, to);
      const path = join(dir, part(dir, f.part ?? 0));
      if (f.plant) {
        const t = take(path);
        f.plant(t);
        put(path, t);
      }
      if (f.bytes) {
        const b = readFileSync(path);
        writeFileSync(path, f.bytes(b) ?? b);
      }
      f.files?.(dir);
      expect(rulesOf(check(dir, m))).toBe(f.rule);
    });
  it('taking apart and putting together changes nothing', () => {
    for (const m of Object.values(made))
      for (const name of readdirSync(m.dir).filter(f => f.endsWith('.gguf'))) {
        put(join(work, 'same.gguf'), take(join(m.dir, name)));
        expect(readFileSync(join(work, 'same.gguf')).equals(readFileSync(join(m.dir, name)))).toBe(true);
      }
  });
  it('a tensor in two parts', () => {
    const m = made.split!;
    const { dir } = new Spoilt(m.dir, join(work, 'spoilt'));
    const [a, b] = [take(join(dir, part(dir, 0))), take(join(dir, part(dir, 1)))];
    b.tensors[0] = a.tensors[0]!;
    put(join(dir, part(dir, 1)), b);
    // what stood in its place is missing then
    expect(rulesOf(check(dir, m))).toBe('L14 L5');
  });
  it('every rule of the loader has a fault', () => {
    const planted = new Set<string>([...faults.map(f => f.rule), 'L5']);
    expect(Object.keys(llamaRules).filter(r => !planted.has(r))).toEqual([]);
  });
  it('never throws: a file cut anywhere, and any byte of the header changed, is told in findings', () => {
    const m = made.v4!;
    const { dir } = new Spoilt(m.dir, join(work, 'spoilt'));
    const path = join(dir, 'model.gguf');
    const clean = readFileSync(path);
    let silent = 0;
    for (let i = 0; i < 120; i++) {
      const b = Buffer.from(clean);
      const at = 8 + Math.floor((i * 6000) / 120);
      b[at]! ^= 0x41;
      writeFileSync(path, i % 3 === 0 ? b.subarray(0, at) : b);
      if (check(dir, m).length === 0) silent++;
    }
    // a clamp of another size is a clamp still
    expect(silent).toBeLessThan(12);
  });
});
