// The ledger of a compile, held against the files themselves: every source tensor hashed again, every output byte accounted for, both ways round;
// and ledgers that lie in one place, each of which must fail the compile.
import { createHash } from 'node:crypto';
import { closeSync, existsSync, mkdtempSync, openSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from '@jest/globals';
import { type Expected, type Ledger, type OutputLine, readLedger, type SourceLine, writeLedger } from '../src/bundle/ledger.js';
import { readAt, readHeader } from '../src/checkpoint/safetensors.js';
import { type CompileOptions, compile } from '../src/compile.js';
import { fixtures } from './golden-cases.js';

const work = mkdtempSync(join(tmpdir(), 'hkgai-ledger-'));
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
const shards = (dir: string): readonly string[] =>
  readdirSync(dir)
    .filter(f => f.endsWith('.safetensors') && f.startsWith('model'))
    .sort();
function bytesOf(file: string, from: number, to: number): Uint8Array {
  const fd = openSync(file, 'r');
  try {
    const bytes = new Uint8Array(to - from);
    expect(readAt(fd, bytes, from)).toBe(true);
    return bytes;
  } finally {
    closeSync(fd);
  }
}
const size = (x: { readonly bytes: readonly [number, number] }): number => x.bytes[1] - x.bytes[0];
const sum = (list: readonly { readonly bytes: readonly [number, number] }[]): number => list.reduce((n, x) => n + size(x), 0);

/** Everything that a ledger says of files that lie there. */
function audit(model: string, target: string, l: Ledger): void {
  const engine = join(target, 'engine');
  // sources: exactly the checkpoint's tensors, as their headers have them, with the hash of their bytes
  const headers = shards(model).flatMap(s => [...readHeader(join(model, s), s).tensors.values()]);
  const byName = new Map(l.sources.map(s => [s.source, s]));
  expect(l.sources).toHaveLength(headers.length);
  for (const h of headers) {
    const s = byName.get(h.name) as SourceLine;
    const sha256 = createHash('sha256')
      .update(bytesOf(join(model, h.file), ...h.bytes))
      .digest('hex');
    expect([h.name, s.file, s.bytes, s.dtype, s.shape, s.sha256]).toEqual([h.name, h.file, h.bytes, h.dtype, h.shape, sha256]);
  }
  // outputs: they fill the files behind their headers, and safetensors' own headers say the same of them
  const files = readdirSync(engine).filter(f => /\.(safetensors|gguf)$/.test(f));
  expect([...new Set(l.outputs.map(o => o.file))].sort()).toEqual([...files].sort());
  let head = 0;
  for (const f of files) {
    const here = l.outputs.filter(o => o.file === f).sort((a, b) => a.bytes[0] - b.bytes[0]);
    let at = here[0]?.bytes[0] as number;
    head += at;
    const gap = f.endsWith('.gguf') ? 31 : 0;
    for (const o of here) {
      expect(o.bytes[0] - at >= 0 && o.bytes[0] - at <= gap).toBe(true);
      if (o.bytes[0] > at) expect(bytesOf(join(engine, f), at, o.bytes[0]).every(b => b === 0)).toBe(true);
      at = o.bytes[1];
    }
    const end = statSync(join(engine, f)).size;
    expect(end - at >= 0 && end - at <= gap).toBe(true);
    if (f.endsWith('.safetensors')) {
      const h = readHeader(join(engine, f), f);
      expect(here[0]?.bytes[0]).toBe(h.data);
      expect(here.map(o => [o.output, o.bytes, o.dtype, o.shape])).toEqual(
        here.map(o => {
          const t = h.tensors.get(o.output);
          return [t?.name, t?.bytes, t?.dtype, t?.shape];
        }),
      );
      expect(h.tensors.size).toBe(here.length);
    }
  }
  // both ways: what a source went into is made of it
  const made = new Map(l.outputs.map(o => [o.output, o]));
  const consumers = new Map<string, Set<string>>();
  for (const o of l.outputs) for (const f of o.from) consumers.set(f, (consumers.get(f) ?? new Set()).add(o.output));
  for (const s of l.sources) {
    if (s.dropped !== undefined) {
      expect([s.source, s.to, s.dropped.length > 10, consumers.has(s.source)]).toEqual([s.source, [], true, false]);
      continue;
    }
    const real = s.to.filter(t => !t.startsWith('('));
    expect([s.source, [...real].sort()]).toEqual([s.source, [...(consumers.get(s.source) ?? [])].sort()]);
    expect([s.source, s.to.length > 0]).toEqual([s.source, true]);
    for (const t of real) expect([t, made.get(t)?.from.includes(s.source)]).toEqual([t, true]);
  }
  // bytes that were passed on are the source's bytes
  for (const o of l.outputs) {
    expect([o.output, o.recipe.length > 0]).toEqual([o.output, true]);
    const s = o.from.length === 1 ? byName.get(o.from[0] as string) : undefined;
    if (o.figures || !s || s.dtype !== o.dtype || size(s) !== size(o)) continue;
    const sha256 = createHash('sha256')
      .update(bytesOf(join(engine, o.file), ...o.bytes))
      .digest('hex');
    expect([o.output, sha256]).toEqual([o.output, s.sha256]);
  }
  const gone = l.sources.filter(s => s.dropped !== undefined);
  expect(l.totals).toEqual({
    source: { tensors: headers.length, bytes: sum(headers) },
    dropped: { tensors: gone.length, bytes: sum(gone) },
    output: { tensors: l.outputs.length, bytes: sum(l.outputs) },
    headers: head,
    files: files.length,
  });
}

describe('the ledger of', () => {
  for (const [fixture, target, quantise, more, dropped] of [
    ['hkgai-nano', 'ascend', 'w8a8', {}, false],
    ['hkgai-nano-fp8', 'cuda', 'w4a16', {}, false],
    ['hkgai-nano-fp8', 'cuda', 'none', { mtp: 'drop' }, true],
    ['hkgai-nano', 'cpu', 'q8_0', {}, false],
    ['hkgai-nano', 'cpu', 'none', {}, false],
    ['tiny/v3-tiny-fp8', 'cpu', 'bf16', { mtp: 'drop' }, true],
    ['tiny/v4-tiny-fp8fp4', 'cpu', 'none', {}, false],
    ['tiny/v4-tiny-fp8fp4', 'cpu', 'bf16', {}, false],
    ['tiny/v32-tiny', 'ascend', 'w8a8', {}, false],
  ] as const)
    it(`${fixture} for ${target}, ${quantise} ${JSON.stringify(more)} is true of its files`, async () => {
      const out = join(work, `${fixture.replace('/', '-')} ${target} ${quantise} ${JSON.stringify(more)}`);
      const model = join(fixtures, fixture);
      await compile(model, { ...base, ...more, out, targets: [target], quantise }, { step: () => {}, at: () => {} });
      const l = readLedger(join(out, target));
      audit(model, join(out, target), l);
      expect(l.sources.some(s => s.dropped !== undefined)).toBe(dropped);
      // every matrix in codes has an error figure that says something
      const coded = l.outputs.filter(o => o.figures && /int|fp|w8a8|w4a16|q8_0/.test(o.recipe));
      for (const o of coded) {
        const f = o.figures as NonNullable<OutputLine['figures']>;
        expect([o.output, f.count > 0, f.relative >= 0 && f.relative < 0.3, f.cosine > 0.95, f.nan + f.infinite]).toEqual([
          o.output,
          true,
          true,
          true,
          0,
        ]);
      }
    });
});

describe('a ledger that lies', () => {
  const sha = 'a'.repeat(64);
  const sources: readonly SourceLine[] = [
    { source: 'x', file: 's', bytes: [100, 200], dtype: 'I8', shape: [100], sha256: sha, to: ['X', 'X.scale'] },
    { source: 'x.scale', file: 's', bytes: [200, 204], dtype: 'F32', shape: [1], sha256: sha, to: ['X', 'X.scale'] },
    { source: 'y', file: 's', bytes: [204, 214], dtype: 'I8', shape: [10], sha256: sha, to: [], dropped: 'nobody wants it' },
    { source: 'shape', file: 's', bytes: [214, 230], dtype: 'I64', shape: [2], sha256: sha, to: ['(its shape is in the headers)'] },
  ];
  const outputs: readonly OutputLine[] = [
    { output: 'X', file: 'f', bytes: [64, 114], dtype: 'U8', shape: [50], from: ['x', 'x.scale'], recipe: 'rule 1' },
    { output: 'X.scale', file: 'f', bytes: [114, 118], dtype: 'F32', shape: [1], from: ['x', 'x.scale'], recipe: 'rule 1' },
    { output: 'made', file: 'g', bytes: [8, 24], dtype: 'I64', shape: [2], from: [], recipe: 'follows from shapes' },
  ];
  const expected: Expected = {
    sources: new Map(sources.map(s => [s.source, s])),
    files: new Map([
      ['f', 118],
      ['g', 24],
    ]),
  };
  const write = (s: readonly SourceLine[], o: readonly OutputLine[], e: Expected = expected): string => {
    const path = join(work, 'ledger.jsonl');
    rmSync(path, { force: true });
    writeLedger(path, s, o, e);
    return path;
  };
  const source = (name: string, more: Partial<SourceLine>): readonly SourceLine[] =>
    sources.map(s => (s.source === name ? { ...s, ...more } : s));
  const output = (name: string, more: Partial<OutputLine>): readonly OutputLine[] =>
    outputs.map(o => (o.output === name ? { ...o, ...more } : o));
  const without = <T>(list: readonly T[], at: number): readonly T[] => list.filter((_, i) => i !== at);

  it('is not this one', () => {
    const lines = readFileSync(write(sources, outputs), 'utf8').trim().split('\n');
    expect(lines).toHaveLength(8);
    expect(JSON.parse(lines[7] as string)).toEqual({
      totals: {
        source: { tensors: 4, bytes: 130 },
        dropped: { tensors: 1, bytes: 10 },
        output: { tensors: 3, bytes: 70 },
        headers: 72,
        files: 2,
      },
    });
  });
  const extra: SourceLine = { source: 'z', file: 's', bytes: [0, 4], dtype: 'F32', shape: [1], sha256: sha, to: ['X'] };
  for (const [what, s, o, e, message] of [
    ['a source is left out', without(sources, 2), outputs, expected, /y is not in the ledger/],
    ['a source is there twice', [...sources, sources[2] as SourceLine], outputs, expected, /y is there twice/],
    ['a source is made up', [...sources, extra], outputs, expected, /z is no tensor of the checkpoint/],
    ['a source has another size', source('y', { bytes: [204, 213] }), outputs, expected, /y has another size/],
    ['a source was never read', source('x', { sha256: '' }), outputs, expected, /x was not read/],
    ['a source is neither used nor dropped', source('x', { to: [] }), outputs, expected, /x is neither used nor dropped/],
    ['a source is used and dropped', source('x', { dropped: 'too' }), outputs, expected, /x is used and dropped/],
    ['a source is dropped without a reason', source('y', { dropped: '' }), outputs, expected, /y is dropped without a reason/],
    [
      'a source goes into what is not there',
      source('x', { to: ['X', 'X.scale', 'Y'] }),
      outputs,
      expected,
      /x went into Y, which is not there/,
    ],
    [
      'a source goes into what is not made of it',
      source('shape', { to: ['made'] }),
      outputs,
      expected,
      /shape went into made, which is not made of it/,
    ],
    [
      'an output is made of what does not go into it',
      source('x', { to: ['X'] }),
      outputs,
      expected,
      /X\.scale is made of x, which did not go into it/,
    ],
    ['a dropped source is in an output', sources, output('made', { from: ['y'] }), expected, /made is made of y, which did not go into it/],
    ['an output is made of what is no source', sources, output('made', { from: ['z'] }), expected, /made is made of z, which is no source/],
    ['an output is there twice', sources, [...outputs, outputs[2] as OutputLine], expected, /made is written twice/],
    ['an output is left out', source('x.scale', { to: ['X'] }), without(outputs, 1), expected, /f has 118 bytes, its tensors end at 114/],
    ['outputs overlap', sources, output('X.scale', { bytes: [113, 117] }), expected, /f has a gap or an overlap at X\.scale/],
    ['outputs leave a gap', sources, output('X.scale', { bytes: [115, 118] }), expected, /f has a gap or an overlap at X\.scale/],
    [
      'a file is longer than its tensors',
      sources,
      outputs,
      { ...expected, files: new Map([...expected.files, ['f', 119]]) },
      /f has 119 bytes/,
    ],
    [
      'a file is shorter than its tensors',
      sources,
      outputs,
      { ...expected, files: new Map([...expected.files, ['f', 117]]) },
      /f has 117 bytes/,
    ],
    ['an output is in a file that is not written', sources, output('made', { file: 'h' }), expected, /made is in h, which is not written/],
    ['an output has no recipe line', sources, output('made', { recipe: '' }), expected, /made has no line of the recipe/],
  ] as const)
    it(`where ${what} fails the compile`, () => {
      expect(() => write(s, o, e)).toThrow(message);
      expect(() => write(s, o, e)).toThrow(/HK1101 {2}The ledger does not balance/);
      expect(existsSync(join(work, 'ledger.jsonl'))).toBe(false);
    });
});
