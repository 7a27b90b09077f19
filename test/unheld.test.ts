// Values that the written form cannot hold are refused with their tensor: NaN that comes of a damaged scale, casts and scales past their range.
import { cpSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, it } from '@jest/globals';
import { Refusal } from '../ir/problem.js';
import { readLedger } from '../src/bundle/ledger.js';
import { readHeader } from '../src/checkpoint/safetensors.js';
import { type CompileOptions, compile } from '../src/compile.js';
import { fixtures } from './golden-cases.js';

const work = mkdtempSync(join(tmpdir(), 'hkgai-unheld-'));
afterAll(() => rmSync(work, { recursive: true }));
const base: Omit<CompileOptions, 'out' | 'targets' | 'quantise'> = {
  state: 'f32',
  mtp: null,
  weights: 'auto',
  sequences: 1,
  chunk: 16,
  force: false,
  allowPhantomKeys: false,
  version: 'test',
  noCache: true,
  jobs: 0,
};
const quiet = { step: () => {}, at: () => {} };
let made = 0;
/** A fixture with bytes of one tensor overwritten. */
function changed(fixture: string, tensor: string, at: number, bytes: Uint8Array): string {
  const dir = join(work, `model ${made++}`);
  cpSync(join(fixtures, fixture), dir, { recursive: true });
  for (const f of readdirSync(dir).filter(n => n.endsWith('.safetensors'))) {
    const t = readHeader(join(dir, f), f).tensors.get(tensor);
    if (!t) continue;
    const all = readFileSync(join(dir, f));
    all.set(bytes, t.bytes[0] + at);
    writeFileSync(join(dir, f), all);
    return dir;
  }
  throw new Error(`no ${tensor}`);
}
async function refused(model: string, target: string, quantise: string): Promise<readonly string[]> {
  const out = join(work, `out ${made++}`);
  try {
    await compile(model, { ...base, out, targets: [target], quantise }, quiet);
    return [];
  } catch (e) {
    if (!(e instanceof Refusal)) throw e;
    expect(existsSync(out)).toBe(false);
    return e.problems.map(p => `${p.code} ${p.what}`);
  }
}
const bf16 = (x: number, n: number): Uint8Array => {
  const f = new Float32Array([x]);
  const b = new Uint32Array(f.buffer)[0]! >>> 16;
  return new Uint8Array(new Uint16Array(n).fill(b).buffer);
};
const projection = 'model.layers.1.self_attn.o_proj.weight';

for (const target of ['cuda', 'biren', 'cpu'])
  for (const [name, value] of [
    ['NaN', Number.NaN],
    ['infinite', Number.POSITIVE_INFINITY],
  ] as const)
    it(`an FP8 scale that is ${name} is refused where the tensor becomes bf16 for ${target}`, async () => {
      const m = changed('hkgai-nano-fp8', `${projection}_scale_inv`, 0, new Uint8Array(new Float32Array([value]).buffer));
      const [says] = await refused(m, target, 'bf16');
      expect(says).toMatch(new RegExp(`^HK3601 ${projection.replaceAll('.', '\\.')} holds `));
    });
it('a cast past f16 is refused, with how many values', async () => {
  const m = changed('hkgai-nano', projection, 0, bf16(7e4, 32));
  expect(await refused(m, 'cpu', 'f16')).toEqual([
    `HK3601 ${projection} holds 0 NaN and 32 values that are infinite or too large for what it is to be`,
  ]);
  expect(await refused(m, 'cpu', 'int8')).toEqual([]);
});
for (const [quantise, value] of [
  ['q4_0', 6e5],
  ['q8_0', 1e7],
] as const)
  it(`a scale past f16 is refused in ${quantise}`, async () => {
    const m = changed('hkgai-nano', projection, 64, bf16(value, 32));
    const [says] = await refused(m, 'cpu', quantise);
    expect(says).toContain('HK3601 blk.1.attn_output.weight holds 0 NaN and 32 values');
  });
for (const [name, value] of [
  ['1e-30', 1e-30],
  ['1e30', 1e30],
] as const)
  it(`figures are right at ${name}`, async () => {
    const values = new Float32Array(160 * 128).map((_, i) => value * (1 + (i % 97) / 31));
    const b = new Uint16Array(values.length);
    new Uint32Array(values.buffer).forEach((x, i) => (b[i] = x >>> 16));
    const m = changed('hkgai-nano', projection, 0, new Uint8Array(b.buffer));
    const out = join(work, `out ${made++}`);
    await compile(m, { ...base, out, targets: ['cuda'], quantise: 'w8a8' }, quiet);
    const line = readLedger(join(out, 'cuda')).outputs.find(o => o.output === projection);
    expect(line?.figures?.relative).toBeGreaterThan(1e-3);
    expect(line?.figures?.relative).toBeLessThan(5e-3);
    expect(line?.figures?.cosine).toBeGreaterThan(0.9999);
  });
