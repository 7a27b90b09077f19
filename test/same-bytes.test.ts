// The same checkpoint and recipe give the same bytes, whoever makes them: any number of threads, any size of piece, anywhere, from shards in any
// order of tensors. One digest over the whole output.
import { cpSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { Refusal } from '../ir/problem.js';
import { readLedger } from '../src/bundle/ledger.js';
import { type CompileOptions, compile, countTensors, type Prepared, prepare } from '../src/compile.js';
import { threadsFor } from '../src/engine.js';
import type { FileWork } from '../src/numeric/steps.js';
import { outputDigest } from './cli-process.js';
import { fixtures } from './golden-cases.js';
import { writeSynthetic } from './synthetic-checkpoint.js';

const work = mkdtempSync(join(tmpdir(), 'hkgai-same-bytes-'));
afterAll(() => rmSync(work, { recursive: true }));
const base: Omit<CompileOptions, 'out' | 'targets' | 'quantise'> = {
  state: 'f32',
  mtp: 'keep',
  weights: 'copy',
  sequences: 2,
  chunk: 32,
  force: false,
  allowPhantomKeys: false,
  version: 'test',
  noCache: true,
};
const quiet = { step: () => {}, at: () => {} };
const model = join(work, 'model');
beforeAll(() => {
  writeSynthetic(model, { hidden: 256, layers: 2, experts: 8, width: 128, shards: 7 });
});
let outputs = 0;
/** A bound of memory under which threads take pieces of this size; the least that will do where all matrices are smaller than a piece. */
function memoryFor(p: Prepared, jobs: number, piece: number): number {
  const files = p.aims.flatMap(a => a.plan.files);
  const tensors = countTensors(p);
  let least = Number.POSITIVE_INFINITY;
  for (let m = 400 << 20; m > 0; m -= 64 << 10) {
    try {
      if (threadsFor(files, jobs, m, tensors).piece === piece) return m;
    } catch (e) {
      if (e instanceof Refusal) break;
      throw e;
    }
    least = m;
  }
  if (matrices(files) > piece) throw new Error(`no bound gives pieces of ${piece}`);
  return least;
}
/** Bytes of the largest matrix that is converted. */
const matrices = (files: readonly FileWork[]): number =>
  Math.max(0, ...files.flatMap(f => f.steps.map(s => (s.kind === 'matrix' ? s.part.bytes[1] - s.part.bytes[0] : 0))));
async function digestOf(from: string, o: Omit<CompileOptions, 'out'>): Promise<string> {
  const out = join(work, `out ${outputs++}`);
  await compile(from, { ...o, out }, quiet);
  const d = outputDigest(out);
  rmSync(out, { recursive: true });
  return d;
}

for (const [name, more] of [
  ['w8a8 for ascend', { targets: ['ascend'], quantise: 'w8a8' }],
  ['w4a16 for cuda', { targets: ['cuda'], quantise: 'w4a16' }],
  ['w4a16 by mse for cuda', { targets: ['cuda'], quantise: 'w4a16', search: 'mse' }],
  ['q8_0 for cpu', { targets: ['cpu'], quantise: 'q8_0' }],
  ['byte for byte for cpu', { targets: ['cpu'], quantise: 'none' }],
  ['two targets at once', { targets: ['cuda', 'cpu'], quantise: 'bf16' }],
] as const)
  describe(name, () => {
    const o = { ...base, ...more, targets: [...more.targets] };
    it('has one digest for 1, 2 and 7 threads, three sizes of piece, and in another directory', async () => {
      const one = await digestOf(model, { ...o, jobs: 1 });
      const p = await prepare(model, { ...o, out: '' }, quiet);
      const elsewhere = join(work, 'elsewhere', 'under another name');
      mkdirSync(join(work, 'elsewhere'), { recursive: true });
      cpSync(model, elsewhere, { recursive: true });
      const digests = {
        two: await digestOf(elsewhere, { ...o, jobs: 2 }),
        seven: await digestOf(model, { ...o, jobs: 7 }),
        smallPieces: await digestOf(model, { ...o, jobs: 2, maxMemory: memoryFor(p, 2, 1 << 17) }),
        smallestPiecesInThisThread: await digestOf(model, { ...o, jobs: 0, maxMemory: memoryFor(p, 0, 1 << 15) }),
      };
      expect(digests).toEqual(Object.fromEntries(Object.keys(digests).map(k => [k, one])));
    });
  });

describe('shards by other names', () => {
  it('have the same tensors in the output, wherever the shards put them', async () => {
    // nano's shards with their numbers changed over: files come in another order, tensors are the same
    const turned = join(work, 'turned');
    cpSync(join(fixtures, 'hkgai-nano'), turned, { recursive: true });
    rmSync(join(turned, 'model.safetensors.index.json'));
    const shards = readdirSync(turned)
      .filter(f => f.endsWith('.safetensors'))
      .sort();
    renameSync(join(turned, shards[0] as string), join(turned, 'x'));
    renameSync(join(turned, shards[1] as string), join(turned, shards[0] as string));
    renameSync(join(turned, 'x'), join(turned, shards[1] as string));
    const list = async (dir: string, jobs: number): Promise<readonly string[]> => {
      const out = join(work, `order ${outputs++}`);
      await compile(dir, { ...base, out, targets: ['cuda'], quantise: 'w4a16', jobs }, quiet);
      const l = readLedger(join(out, 'cuda'));
      return [
        ...l.sources.map(s => `${s.source} ${s.sha256} ${s.to}`),
        ...l.outputs.map(t => `${t.output} ${t.dtype} ${t.shape} ${JSON.stringify(t.figures)}`),
      ].sort();
    };
    const straight = await list(join(fixtures, 'hkgai-nano'), 2);
    expect(await list(turned, 2)).toEqual(straight);
    expect(straight.length).toBeGreaterThan(500);
  });
});
