// What was written for an engine is read again as a source: compressed-tensors' MXFP4, whose codes and exponents stand in bytes.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from '@jest/globals';
import { Refusal } from '../ir/problem.js';
import { readLedger } from '../src/bundle/ledger.js';
import { openCheckpoint } from '../src/checkpoint/shards.js';
import { type CompileOptions, compile } from '../src/compile.js';
import { buildModel, defaultOptions } from '../src/models/index.js';
import { openReference } from '../src/session.js';
import { Spoilt } from './engine-directory.js';
import { fixtures } from './golden-cases.js';

const work = mkdtempSync(join(tmpdir(), 'hkgai-reread-'));
afterAll(() => rmSync(work, { recursive: true }));
const make = async (model: string, name: string, target: string, o: Partial<CompileOptions>): Promise<string> => {
  const base = { state: 'f32', mtp: null, weights: 'auto', sequences: 1, chunk: 32, force: false, allowPhantomKeys: false } as const;
  const out = join(work, name);
  await compile(
    model,
    { ...base, version: 'test', noCache: true, jobs: 0, quantise: 'none', targets: [target], ...o, out },
    { step: () => {}, at: () => {} },
  );
  return out;
};
async function logits(dir: string): Promise<Float32Array> {
  const { config } = openCheckpoint(dir);
  const s = await openReference(dir, {
    ...defaultOptions(config),
    mtp: false,
    limits: { tokens: 32, wanted: 32, sequences: 1, context: 64 },
  });
  const ids = [1, 44, 201, 7, 90, 3];
  const got = await s.step({ ids, positions: ids.map((_, i) => i), sequences: ids.map(() => 0) });
  return got.logits;
}

describe('mxfp4 of compressed-tensors', () => {
  const written = make(join(fixtures, 'hkgai-nano'), 'cuda', 'cuda', { quantise: 'mxfp4' }).then(out => join(out, 'cuda/engine'));
  it('is the storage of the experts', async () => {
    const c = openCheckpoint(await written);
    const { graph } = buildModel(c.config, c.tensors);
    const experts = graph.values.filter(v => v.op === 'weight' && v.type.shape.length === 3 && v.origin.layer < c.config.layers);
    expect(experts.length).toBeGreaterThan(0);
    for (const e of experts) expect(e.type.storage).toEqual({ kind: 'scaled', element: 'f4e2m1', block: [1, 32], scale: 'e8m0' });
  });
  it('goes on byte for byte, and is the same numbers in bf16', async () => {
    const source = await written;
    const passed = await make(source, 'passed', 'cpu', {});
    const { sources, totals } = readLedger(join(passed, 'cpu'));
    expect(totals?.dropped.tensors).toBe(0);
    expect(sources.every(s => s.to.length === 1)).toBe(true);
    const plain = await make(source, 'plain', 'cpu', { quantise: 'bf16' });
    const [a, b] = [await logits(join(passed, 'cpu/engine')), await logits(join(plain, 'cpu/engine'))];
    expect(Math.max(...a.map((x, i) => Math.abs(x - (b[i] as number))))).toBeLessThan(2e-5);
    expect(Math.max(...a.map(Math.abs))).toBeGreaterThan(0.5);
  });
  it('with scales of another shape is refused with the tensor', async () => {
    const copy = new Spoilt(await written, join(work, 'spoilt'));
    copy.tensors(/experts\.3\.up_proj\.weight_scale$/, t => {
      (t as { shape: number[] }).shape = [...t.shape].reverse();
    });
    const e = await make(copy.dir, 'x', 'cpu', {}).catch((x: unknown) => x);
    expect(e).toBeInstanceOf(Refusal);
    expect((e as Refusal).message).toMatch(/experts\.3\.up_proj\.weight_(scale|packed)/);
  });
});
