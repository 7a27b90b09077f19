// Weights of single ranks: what each holds is the part that its graph says, decoded from its own file; together they are the whole, tensor by tensor, which
// the proof says and which is found again here; and a byte that is not right is found.
import { createHash } from 'node:crypto';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from '@jest/globals';
import type { Span } from '../ir/graph.js';
import { Refusal } from '../ir/problem.js';
import { readHeader } from '../src/checkpoint/safetensors.js';
import { openCheckpoint } from '../src/checkpoint/shards.js';
import { type CompileOptions, compile } from '../src/compile.js';
import { planRanks, rankFile, writeRanks } from '../src/materialise.js';
import { buildModel } from '../src/models/index.js';
import { decodeMatrix, readWeight } from '../src/numeric/decode.js';
import { shard } from '../src/passes/shard.js';
import { parallelOf, placed } from '../src/plan/parallel.js';
import { fixtures } from './golden-cases.js';

const work = mkdtempSync(join(tmpdir(), 'hkgai-materialise-'));
afterAll(() => rmSync(work, { recursive: true }));
const quiet = { step: () => {}, at: () => {} };
const base: Omit<CompileOptions, 'out'> = {
  targets: ['cpu'],
  quantise: 'none',
  state: 'f32',
  mtp: null,
  weights: 'auto',
  sequences: 1,
  chunk: 32,
  force: false,
  allowPhantomKeys: false,
  version: 'test',
  noCache: true,
  jobs: 0,
};
const read = new Map<string, Buffer>();
function bytesIn(dir: string, s: Span): Uint8Array {
  const path = join(dir, s.file);
  const all = read.get(path) ?? readFileSync(path);
  read.set(path, all);
  return Uint8Array.from(all.subarray(s.bytes[0], s.bytes[1]));
}
interface ProofLine {
  readonly tensor: string;
  readonly sha256: string;
  readonly parts: readonly {
    readonly ranks: readonly number[];
    readonly rows: readonly [number, number];
    readonly bytes: readonly [number, number];
    readonly sha256: string;
  }[];
}
const proofOf = (dir: string): readonly ProofLine[] =>
  readFileSync(join(dir, 'proof.jsonl'), 'utf8')
    .trim()
    .split('\n')
    .map(l => JSON.parse(l));

/** Every rank's weights from its own file against the parts of the whole; gives how many were parts. */
function audit(dir: string, ranksDir: string, text: string): number {
  const c = openCheckpoint(dir);
  const { graph } = buildModel(c.config, c.tensors);
  const p = placed(parallelOf(text), null);
  const { ranks } = shard(graph, p, { uneven: true });
  let cut = 0;
  ranks.forEach((g, rank) => {
    const file = rankFile(rank, ranks.length);
    const own = readHeader(join(ranksDir, file), file).tensors;
    const bytes = readFileSync(join(ranksDir, file));
    const of = (name: string): Uint8Array => Uint8Array.from(bytes.subarray(...own.get(name)!.bytes));
    for (const v of g.values) {
      if (v.op !== 'weight') continue;
      const shape = v.type.shape as readonly number[];
      const want = readWeight(v, s => bytesIn(dir, s));
      const [rows, columns] = shape.length < 2 ? [1, shape[0] ?? 1] : (shape.slice(-2) as [number, number]);
      v.origin.parts.forEach((part, i) => {
        const here = want.subarray(i * rows * columns, (i + 1) * rows * columns);
        if (v.type.storage.element === 'i64') {
          expect(Int32Array.from(new BigInt64Array(of(part.tensor).buffer), Number)).toEqual(here);
          return;
        }
        const got = decodeMatrix(v.type.storage, of(part.tensor), part.scale ? of(part.scale.tensor) : null, rows, columns);
        expect([
          v.name,
          part.tensor,
          Buffer.from(got.buffer).equals(Buffer.from(Uint8Array.from(new Uint8Array(here.buffer, here.byteOffset, here.byteLength)))),
        ]).toEqual([v.name, part.tensor, true]);
      });
      if (v.origin.slice) cut++;
    }
  });
  return cut;
}

describe('ranks', () => {
  const cases = [
    ['v2-tiny', ['tp=2', 'tp=2,dp=2,ep=4']],
    ['v3-tiny-fp8', ['tp=2', 'dp=4,ep=4', 'tp=2,pp=2,ep=2']],
    ['v3-tiny-fp8-ue8m0', ['tp=4,ep=4']],
    ['v32-tiny', ['tp=2']],
    ['v4-tiny-fp8fp4', ['tp=2', 'tp=2,dp=2,ep=4']],
    ['qwen2-distill-tiny', ['tp=2']],
    ['llama-distill-tiny', ['tp=2,pp=2']],
  ] as const;
  for (const [name, ways] of cases)
    for (const way of ways)
      it(`${name}, ${way}: parts that make the whole`, async () => {
        const dir = join(fixtures, 'tiny', name);
        const c = openCheckpoint(dir);
        const { graph } = buildModel(c.config, c.tensors);
        const p = placed(parallelOf(way), null);
        const to = join(work, `${name}-${way}`);
        const m = planRanks(graph, c.tensors, p, true);
        const written = await writeRanks(
          m,
          dir,
          to,
          () => {},
          () => {},
        );
        for (const [f, x] of written)
          expect(
            createHash('sha256')
              .update(readFileSync(join(to, f)))
              .digest('hex'),
          ).toBe(x.sha256);
        expect(audit(dir, to, way)).toBeGreaterThan(0);
        // the proof: each tensor of the graph, with the hash of its bytes; parts tile it, each in the ranks that hold it
        const proof = proofOf(to);
        const used = new Set(
          graph.values.flatMap(v =>
            v.op === 'weight' ? v.origin.parts.flatMap(x => [x.tensor, ...(x.scale ? [x.scale.tensor] : [])]) : [],
          ),
        );
        expect(proof.map(l => l.tensor)).toEqual([...used].sort());
        for (const l of proof) {
          const t = c.tensors.get(l.tensor)!;
          expect(l.sha256).toBe(
            createHash('sha256')
              .update(bytesIn(dir, { tensor: t.name, file: t.file, bytes: t.bytes }))
              .digest('hex'),
          );
          expect(l.parts.reduce((n, x) => n + (x.rows[1] - x.rows[0]) * (x.bytes[1] - x.bytes[0]), 0)).toBe(t.bytes[1] - t.bytes[0]);
          for (const x of l.parts)
            for (const rank of x.ranks) {
              const file = rankFile(rank, m.ranks.length);
              const at = readHeader(join(to, file), file).tensors.get(l.tensor)!;
              expect(
                createHash('sha256')
                  .update(bytesIn(to, { tensor: l.tensor, file, bytes: at.bytes }))
                  .digest('hex'),
              ).toBe(x.sha256);
            }
        }
      });

  it('a part that is not what it should be fails the proof', async () => {
    const dir = join(fixtures, 'tiny/v3-tiny-fp8');
    const c = openCheckpoint(dir);
    const { graph } = buildModel(c.config, c.tensors);
    const p = placed(parallelOf('dp=2,ep=2'), null);
    const m = planRanks(graph, c.tensors, p, true);
    const run = (ranks: typeof m.ranks, name: string) =>
      writeRanks(
        { ...m, ranks },
        dir,
        join(work, name),
        () => {},
        () => {},
      );
    const change = (rank: number, tensor: string, how: (x: (typeof m.ranks)[number]['pieces'][number]) => object) =>
      m.ranks.map(r => (r.rank === rank ? { ...r, pieces: r.pieces.map(x => (x.tensor === tensor ? { ...x, ...how(x) } : x)) } : r));
    const expert = 'model.layers.1.mlp.experts.0.gate_proj.weight';
    const norm = 'model.norm.weight';
    // a part that is short, one way or the other; a copy that differs
    await expect(
      run(
        change(0, expert, x => ({ row: [0, x.row[1] - 1] })),
        'short',
      ),
    ).rejects.toThrow(`${expert} is not what its parts make: rows from 15 on are missing`);
    await expect(
      run(
        change(0, expert, x => ({ row: [1, x.row[1]] })),
        'gap',
      ),
    ).rejects.toThrow('there is a gap at row 0');
    await expect(
      run(
        change(0, expert, x => ({ byte: [0, x.byte[1] - 1] })),
        'narrow',
      ),
    ).rejects.toThrow('there is a gap at row 0');
    await expect(
      run(
        change(1, norm, x => ({ entry: { ...x.entry, bytes: [x.entry.bytes[0] + 2, x.entry.bytes[1] + 2] } })),
        'other',
      ),
    ).rejects.toThrow(`${norm} is not what its parts make: ranks 0 and 1 hold other bytes`);
  });

  it('stand in a bundle beside engine/, hashed as all else', async () => {
    const model = join(fixtures, 'hkgai-nano-fp8');
    const out = join(work, 'bundle');
    await compile(model, { ...base, out, parallel: 'dp=4,ep=4,nodes=2', materialise: true }, quiet);
    const manifest = JSON.parse(readFileSync(join(out, 'bundle.json'), 'utf8'));
    expect(readdirSync(join(out, 'cpu/ranks')).sort()).toEqual([
      'proof.jsonl',
      'rank-0.safetensors',
      'rank-1.safetensors',
      'rank-2.safetensors',
      'rank-3.safetensors',
      'ranks.json',
    ]);
    for (const f of readdirSync(join(out, 'cpu/ranks')))
      expect(manifest.files[`cpu/ranks/${f}`].sha256).toBe(
        createHash('sha256')
          .update(readFileSync(join(out, 'cpu/ranks', f)))
          .digest('hex'),
      );
    expect(audit(join(out, 'cpu/engine'), join(out, 'cpu/ranks'), 'dp=4,ep=4')).toBeGreaterThan(0);
    // int4 in words of 32 bits, with shapes of their own
    const coded = join(work, 'coded');
    await compile(
      join(fixtures, 'hkgai-nano'),
      { ...base, out: coded, targets: ['cuda:h20'], quantise: 'w4a16', runtime: 'vllm', parallel: 'tp=2', materialise: true, uneven: true },
      quiet,
    );
    const [dir] = readdirSync(coded).filter(f => f.startsWith('cuda'));
    expect(audit(join(coded, dir!, 'engine'), join(coded, dir!, 'ranks'), 'tp=2')).toBeGreaterThan(0);
  });
  it('may be uneven where engines take equal parts alone: ranks are written, and no launch files', async () => {
    const out = join(work, 'odd');
    const one = { ...base, targets: ['cuda:h20'], parallel: 'tp=3', materialise: true };
    const { manifest } = await compile(join(fixtures, 'hkgai-nano'), { ...one, out, uneven: true }, quiet);
    expect(readdirSync(join(out, 'cuda-h20/ranks')).filter(f => f.startsWith('rank-'))).toHaveLength(3);
    expect(readdirSync(join(out, 'cuda-h20'))).not.toContain('launch');
    expect(manifest.targets[0]!.notes).toContain('No launch files for tp=3,dp=1,pp=1,ep=1: no engine of this target is started so.');
    await expect(compile(join(fixtures, 'hkgai-nano'), { ...one, out: join(work, 'even') }, quiet)).rejects.toThrow('HK2741');
  });
  it('may hold unlike numbers of experts, which keep their numbers', async () => {
    const out = join(work, 'odd experts');
    const one = { ...base, targets: ['cuda:h20'], parallel: 'tp=5,ep=5', materialise: true };
    const { manifest } = await compile(join(fixtures, 'hkgai-nano'), { ...one, out, uneven: true }, quiet);
    const ranks = join(out, 'cuda-h20/ranks');
    const held = readdirSync(ranks)
      .filter(f => f.startsWith('rank-'))
      .sort()
      .map(
        f => new Set([...readHeader(join(ranks, f), f).tensors.keys()].flatMap(n => /layers\.1\..*\.experts\.(\d+)\./.exec(n)?.[1] ?? [])),
      );
    const all = held.flatMap(s => [...s].map(Number));
    // every expert once, in runs, of two lengths
    expect(all).toEqual(all.map((_, i) => i));
    expect(new Set(held.map(s => s.size))).toEqual(new Set([Math.floor(all.length / 5), Math.ceil(all.length / 5)]));
    expect(audit(join(out, 'cuda-h20/engine'), ranks, 'tp=5,ep=5')).toBeGreaterThan(0);
    expect(Object.keys(manifest.files).filter(f => /placement|launch/.test(f))).toEqual([]);
    await expect(compile(join(fixtures, 'hkgai-nano'), { ...one, out: join(work, 'even') }, quiet)).rejects.toThrow('HK2723');
  });
  it('are refused where they cannot be, before a byte is written', async () => {
    const model = join(fixtures, 'hkgai-nano');
    const refused = async (o: Partial<CompileOptions>): Promise<readonly [string, string]> => {
      const e = await compile(model, { ...base, out: join(work, 'none'), materialise: true, ...o }, quiet).then(
        () => null,
        x => x,
      );
      if (!(e instanceof Refusal)) throw e ?? new Error('nothing was refused');
      return [e.problems[0]!.code, e.message];
    };
    expect(await refused({})).toEqual(['HK2731', expect.stringContaining('it needs ranks; add --parallel')]);
    expect((await refused({ parallel: 'dp=4,ep=4,redundant=4' }))[1]).toContain('replicas of experts are made by engines');
    expect((await refused({ parallel: 'dp=4,ep=4', quantise: 'q8_0', runtime: 'llama.cpp' }))[1]).toContain('gguf is one container');
    expect((await refused({ parallel: 'tp=3' }))[0]).toBe('HK2741');
    expect(readdirSync(work)).not.toContain('none');
  });
});
