// A tensor that was made before of the same bytes in the same way is taken from the earlier output: in a file of another name, size and recipe; and
// an earlier output that is not what was recorded of it is never taken from.
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { strictIdentity } from '../src/checkpoint/identity.js';
import { type CompileOptions, compile, prepare } from '../src/compile.js';
import { groupKey, groupsOf, statisticsDigests } from '../src/content.js';
import { type MatrixStep, type Step, writes } from '../src/numeric/steps.js';
import { Stream } from '../src/numeric/stream.js';
import { bin, type Ended, hkgai, journaled, outputDigest, sleep, start, until } from './cli-process.js';
import { fixtures } from './golden-cases.js';
import { writeSynthetic } from './synthetic-checkpoint.js';

const work = mkdtempSync(join(tmpdir(), 'hkgai-earlier-'));
afterAll(() => rmSync(work, { recursive: true }));
const model = join(work, 'model');
const cache = join(work, 'cache');
/** A copy: tests beside this one link to the fixture's files, which makes them other files to a cache. */
const nano = join(work, 'nano model');
const out = (name: string): string => join(work, name);
let bytes = 0;
/** Every matrix in 8 bits, save what is asked to be otherwise. */
function recipe(name: string, otherwise: Readonly<Record<string, string>> = {}): string {
  const all = ['attention', 'kv_b', 'dense_mlp', 'shared_expert', 'expert'];
  const rules = all.map(r => ({ roles: [r], to: otherwise[r] ?? 'int8' }));
  const file = join(work, `${name}.json`);
  writeFileSync(file, JSON.stringify({ format: 'hkgai-recipe-1', name, rules, otherwise: 'keep', mtp: 'quantise' }));
  return file;
}
const args = (name: string, quantise: string, ...more: readonly string[]): readonly string[] => [
  'compile',
  model,
  '-o',
  out(name),
  '-t',
  'cpu',
  '--quantise',
  quantise,
  '-j',
  '0',
  ...more,
];
const run = (name: string, quantise: string, ...more: readonly string[]): Promise<Ended> => hkgai(args(name, quantise, ...more), cache);
const taken = (e: Ended): readonly number[] => {
  const m = /(\d+) of (\d+) tensors were made before of the same content/.exec(e.err.replaceAll(',', ''));
  return m ? [Number(m[1]), Number(m[2])] : [0, 0];
};
const weights = (name: string): readonly string[] =>
  readdirSync(join(out(name), 'cpu/engine'))
    .filter(f => /\.(safetensors|gguf)$/.test(f))
    .map(f => join(out(name), 'cpu/engine', f));
/** Tensors of the model's headers whose names fit. */
function count(fits: RegExp): number {
  const index = JSON.parse(readFileSync(join(model, 'model.safetensors.index.json'), 'utf8')) as { readonly weight_map: object };
  return Object.keys(index.weight_map).filter(n => fits.test(n)).length;
}
/** The same compile without a cache gives these bytes. */
async function sameAsFresh(name: string, quantise: string, ...more: readonly string[]): Promise<void> {
  const fresh = await run(`${name} fresh`, quantise, ...more, '--no-cache');
  expect([fresh.code, fresh.err]).toEqual([0, fresh.err]);
  expect(outputDigest(out(name))).toBe(outputDigest(out(`${name} fresh`)));
  rmSync(out(`${name} fresh`), { recursive: true });
}
/** Set a byte of a file, times kept as they were. */
function flip(path: string, at: number): void {
  const { atime, mtime } = statSync(path);
  const fd = openSync(path, 'r+');
  const one = new Uint8Array(1);
  readSync(fd, one, 0, 1, at);
  one[0] = (one[0] as number) ^ 1;
  writeSync(fd, one, 0, 1, at);
  utimesSync(path, atime, mtime);
}
const attention = /self_attn\.(q_a_proj|q_b_proj|kv_a_proj_with_mqa|o_proj)\.weight$/;
let base = '';
let all = 0;
beforeAll(async () => {
  ({ bytes } = writeSynthetic(model, { storage: 'bf16', hidden: 384, layers: 2, experts: 16, width: 256, shards: 3 }));
  cpSync(join(fixtures, 'hkgai-nano'), nano, { recursive: true });
  base = recipe('base');
  all = count(/./);
  const e = await run('base', base);
  expect([e.code, e.err, taken(e)]).toEqual([0, e.err, [0, 0]]);
});

describe('another recipe', () => {
  it('converts the matrices of the role that changed, and no other', async () => {
    const changed = recipe('attention', { attention: 'int4' });
    const e = await run('attention', changed);
    expect([e.code, e.err, taken(e)]).toEqual([0, e.err, [all - count(attention), all]]);
    expect(count(attention)).toBeGreaterThan(10);
    await sameAsFresh('attention', changed);
  });
  const counts = existsSync('/proc/self/io');
  (counts ? it : it.skip)(`reads no other source${counts ? '' : ': skipped, this system does not count reads'}`, async () => {
    const counting = `await import(${JSON.stringify(bin)}); console.log((await import('node:fs')).readFileSync('/proc/self/io', 'utf8'));`;
    const reads = async (command: readonly string[]): Promise<number> => {
      const e = await start(command, cache, [process.execPath, '--input-type=module', '-e', counting, bin]).done;
      expect([e.code, e.err]).toEqual([0, e.err]);
      return Number(/rchar: (\d+)/.exec(e.out)?.[1]);
    };
    const changed = recipe('reads', { kv_b: 'bf16' });
    const idle = await reads(args('idle', base)); // what is read of an unchanged compile: headers, the program, companions
    const partly = (await reads(args('reads', changed))) - idle;
    const fresh = (await reads(args('reads fresh', changed, '--no-cache'))) - idle;
    // kv_b from the source, all else from an earlier output: as many bytes as the new output has
    const written = weights('reads').reduce((n, f) => n + statSync(f).size, 0);
    expect(fresh).toBeGreaterThan(0.9 * bytes);
    expect(written).toBeLessThan(0.8 * bytes);
    expect(partly).toBeLessThan(1.05 * written);
    expect(outputDigest(out('reads'))).toBe(outputDigest(out('reads fresh')));
  });
  it('is the same bytes with any number of threads', async () => {
    const changed = recipe('dense', { dense_mlp: 'int4' });
    for (const jobs of ['0', '1', '2']) {
      const from = await run(`dense ${jobs}`, changed, '-j', jobs);
      expect([from.code, taken(from)]).toEqual([0, [all - count(/layers\.0\.mlp\.(gate|up|down)_proj/), all]]);
      await sameAsFresh(`dense ${jobs}`, changed);
      rmSync(out(`dense ${jobs}`), { recursive: true });
    }
  });
  it('without the MTP block reads nothing of it', async () => {
    const e = await run('no mtp', base, '--mtp', 'drop');
    const mtp = count(/^model\.layers\.2\./);
    expect([e.code, e.err, taken(e), mtp > 10]).toEqual([0, e.err, [all - mtp, all - mtp], true]);
    await sameAsFresh('no mtp', base, '--mtp', 'drop');
  });
  it('in another form of one role and back takes all', async () => {
    const e = await run('attention again', recipe('attention and kv_b', { attention: 'int4', kv_b: 'bf16' }));
    expect([e.code, taken(e)]).toEqual([0, [all, all]]); // attention of one earlier output, kv_b of another
    await sameAsFresh('attention again', join(work, 'attention and kv_b.json'));
  });
});

describe('statistics of activations', () => {
  it('count with the tensors that are weighed by them, GPTQ too', async () => {
    const own = readFileSync(join(fixtures, 'eval/calibration_own.txt'), 'utf8');
    const rules = (name: string, expert: string, attention: string): string => {
      const file = join(work, `${name}.json`);
      const list = [
        { roles: ['attention'], to: attention, search: 'mse' },
        { roles: ['dense_mlp', 'shared_expert'], to: 'int4', search: 'gptq' },
        { roles: ['expert'], to: expert },
      ];
      writeFileSync(file, JSON.stringify({ format: 'hkgai-recipe-1', name, rules: list, otherwise: 'keep', mtp: 'keep' }));
      return file;
    };
    const first = rules('calibrated', 'int8', 'int8');
    const second = rules('calibrated anew', 'bf16', 'int8');
    const compiled = async (name: string, quantise: string, text: string, ...more: readonly string[]): Promise<readonly number[]> => {
      const file = join(work, 'text.txt');
      writeFileSync(file, text);
      const e = await hkgai(['compile', nano, '-o', out(name), '-t', 'cpu', '--quantise', quantise, '--calibration', file, ...more], cache);
      expect([e.code, e.err]).toEqual([0, e.err]);
      return taken(e);
    };
    const [a, b] = [own.slice(0, 400), own.slice(400, 900)];
    expect(await compiled('nano', first, a)).toEqual([0, 0]);
    const [same, of] = (await compiled('nano same', second, a)) as [number, number];
    const [other] = (await compiled('nano other', second, b)) as [number, number];
    // experts differ in both; under another text all that is weighed by it too
    expect([same > of / 4, same < of, other < same, other > 0]).toEqual([true, true, true, true]);
    for (const [name, text] of [
      ['nano same', a],
      ['nano other', b],
    ] as const) {
      await compiled(`${name} fresh`, second, text, '--no-cache');
      expect(outputDigest(out(name))).toBe(outputDigest(out(`${name} fresh`)));
    }
  });
});

describe('experts under other numbers, in files by rank', () => {
  it('are taken by their content: what speaks of their numbers alone is made anew', async () => {
    const command = (name: string, ...more: readonly string[]): Promise<Ended> =>
      hkgai(['compile', nano, '-o', out(name), '-t', 'cpu', '--quantise', 'int8', ...more], cache);
    const dealt = ['--parallel', 'dp=2,ep=2,nodes=1', '--experts', join(fixtures, 'eval/routing_counts_own.json')];
    expect((await command('numbered')).code).toBe(0);
    const e = await command('renumbered', ...dealt);
    const [some, of] = taken(e) as [number, number];
    // the router's rows and its biases, of one layer
    expect([e.code, e.err, of - some]).toEqual([0, e.err, 2]);
    expect((await command('renumbered fresh', ...dealt, '--no-cache')).code).toBe(0);
    expect(outputDigest(out('renumbered'))).toBe(outputDigest(out('renumbered fresh')));
  });
});

describe('a container that is made of runs of several tensors', () => {
  const gguf = (name: string, ...more: readonly string[]): Promise<Ended> => run(name, 'q8_0', '--format', 'gguf', ...more);
  it('takes what one changed source shard has no part in', async () => {
    const first = await gguf('gguf');
    expect([first.code, first.err, weights('gguf').length]).toEqual([0, first.err, 1]);
    const shard = join(model, readdirSync(model).filter(f => f.endsWith('.safetensors'))[1] as string);
    const at = statSync(shard).size - 1001;
    flip(shard, at);
    const e = await gguf('gguf changed');
    const [some, of] = taken(e) as [number, number];
    expect([e.code, e.err, some > of / 3, some < of]).toEqual([0, e.err, true, true]);
    await sameAsFresh('gguf changed', 'q8_0', '--format', 'gguf');
    flip(shard, at);
    // read anew, for its bytes may be others; then all is known again
    const back = await gguf('gguf back');
    expect([back.code, outputDigest(out('gguf back'))]).toEqual([0, outputDigest(out('gguf'))]);
  });
});

describe('another size of files', () => {
  const options = (name: string, more: Partial<CompileOptions>): CompileOptions => ({
    out: out(name),
    targets: ['cpu'],
    quantise: base,
    state: 'f32',
    mtp: null,
    weights: 'copy',
    sequences: 1,
    chunk: 8,
    force: false,
    allowPhantomKeys: false,
    version: 'test',
    jobs: 0,
    ...more,
  });
  const inProcess = async (name: string, more: Partial<CompileOptions>, at: (done: number) => void = () => {}) => {
    const was = process.env.HKGAI_CACHE;
    process.env.HKGAI_CACHE = join(work, 'cache in process');
    try {
      return (await compile(model, options(name, more), { step: () => {}, at })).engines.cpu!;
    } finally {
      if (was === undefined) delete process.env.HKGAI_CACHE;
      else process.env.HKGAI_CACHE = was;
    }
  };
  it('takes every tensor, from few files into many and back', async () => {
    const whole = await inProcess('whole', {});
    expect([whole.taken, whole.tensors, whole.files]).toEqual([0, all, 3]);
    const many = await inProcess('many', { shardBytes: 1 << 20 });
    expect([many.taken, many.cached, many.files > 10]).toEqual([all, 0, true]);
    expect([...many.figures]).toEqual([...whole.figures]);
    await inProcess('many fresh', { shardBytes: 1 << 20, noCache: true });
    expect(outputDigest(out('many'))).toBe(outputDigest(out('many fresh')));
    const before = outputDigest(out('whole'));
    rmSync(out('whole'), { recursive: true });
    const back = await inProcess('whole', {});
    expect([back.taken, back.cached, outputDigest(out('whole'))]).toEqual([all, 0, before]);
  });
  const changes: Readonly<Record<string, (donor: string) => void>> = {
    'is edited, times set back': f => flip(f, statSync(f).size - 100_001),
    'is cut': f => truncateSync(f, 5000),
    'goes away': f => rmSync(f),
    'becomes another file': f => {
      const copy = readFileSync(f);
      rmSync(f);
      writeFileSync(f, copy.fill(0, copy.length / 2));
    },
  };
  for (const [what, change] of Object.entries(changes))
    it(`and an earlier output that ${what} while it is read is given up`, async () => {
      const before = outputDigest(out('many'));
      const saved = join(work, 'saved');
      cpSync(out('whole'), saved, { recursive: true });
      let told = 0;
      let done = false;
      const e = await inProcess('given up', { shardBytes: 2 << 20 }, n => {
        told = n;
        if (n === 0 || done) return;
        done = true;
        for (const d of ['whole', 'many', 'many fresh']) for (const f of weights(d)) change(f);
      });
      expect([done, e.taken < all]).toEqual([true, true]);
      expect(told).toBeLessThanOrEqual(bytes);
      await inProcess('given up fresh', { shardBytes: 2 << 20, noCache: true });
      expect(outputDigest(out('given up'))).toBe(outputDigest(out('given up fresh')));
      for (const d of ['whole', 'many', 'given up', 'given up fresh']) rmSync(out(d), { recursive: true });
      rmSync(saved, { recursive: true });
      for (const [d, shardBytes] of [
        ['whole', {}],
        ['many', { shardBytes: 1 << 20 }],
      ] as const)
        await inProcess(d, shardBytes);
      expect(outputDigest(out('many'))).toBe(before);
    });
  it('is planned without a gap: what steps write are the bytes of the file', async () => {
    const formats = [{}, { format: 'gguf', quantise: 'q4_0' }, { quantise: recipe('mixed', { attention: 'int4', expert: 'fp8' }) }];
    for (const more of [...formats, { targets: ['cuda'], quantise: 'w4a16' }, { targets: ['ascend'], quantise: 'w4a8' }]) {
      const { aims } = await prepare(model, options('planned', more), { step: () => {}, at: () => {} });
      for (const f of aims.flatMap(a => a.plan.files)) {
        const ranges = f.steps.flatMap(s =>
          s.kind === 'put' ? [[s.out, s.bytes.length]] : s.kind === 'fill' ? [[s.out, s.size]] : writes(s),
        ) as readonly (readonly [number, number])[];
        let at = 0;
        for (const [from, size] of [...ranges].sort((a, b) => a[0] - b[0])) {
          expect([f.path, from]).toEqual([f.path, at]);
          at += size;
        }
        expect(at).toBe(f.size);
      }
    }
  });
});

describe('a file that is made of an earlier output', () => {
  const size = 3 << 20;
  const dir = join(work, 'stream');
  const donor = join(dir, 'donor');
  const bytesOf = (seed: number): Uint8Array => Uint8Array.from({ length: 2 * size }, (_, i) => (i * seed) >>> 7);
  const source = bytesOf(2654435761);
  /** Two tensors, copied; the donor has the second one before the first. `meanwhile` is called when the first was taken. */
  async function made(before: () => void, meanwhile: () => void): Promise<{ readonly right: boolean; readonly taken: number }> {
    rmSync(dir, { recursive: true, force: true });
    mkdirSync(dir);
    writeFileSync(join(dir, 'source'), source);
    writeFileSync(donor, Buffer.concat([source.subarray(size), source.subarray(0, size)]));
    const part = (i: number) => ({ tensor: `t${i}`, file: 'source', bytes: [i * size, (i + 1) * size] as const });
    const steps = [0, 1].map(i => ({ kind: 'copy' as const, source: part(i), out: i * size }));
    const taken = steps.map((_, i) => ({
      from: { donor: 0, at: [(1 - i) * size] },
      result: { sources: [[`t${i}`, '0'.repeat(64)] as const], name: null, figures: null },
    }));
    const earlier = { donors: [{ path: donor, identity: strictIdentity(donor) }], steps: taken, tensors: 2 };
    await sleep(20); // times of change are coarse
    before();
    let told = 0;
    let done = false;
    const progress = (n: number): void => {
      told += n;
      if (told < size || done) return;
      done = true;
      meanwhile();
    };
    const stream = new Stream({ from: dir, to: join(dir, 'to'), statistics: () => null, stop: () => false, progress });
    const r = await stream.file({ index: 0, path: 'out', size: 2 * size, steps, source: 2 * size, earlier });
    stream.close();
    expect(told).toBe(2 * size);
    const written = readFileSync(join(dir, 'to/out'));
    expect(r.sha256).toBe(createHash('sha256').update(source).digest('hex'));
    return { right: written.equals(source), taken: r.taken ?? 0 };
  }
  const nothing = (): void => {};
  const changes: Readonly<Record<string, () => void>> = {
    'edited, times set back': () => flip(donor, 100),
    'edited where it was read already': () => flip(donor, size + 100),
    cut: () => truncateSync(donor, size / 2),
    gone: () => rmSync(donor),
    'another file of the same bytes': () => {
      const copy = readFileSync(donor);
      rmSync(donor);
      writeFileSync(donor, copy);
    },
    'a pipe': () => {
      rmSync(donor);
      execFileSync('mkfifo', [donor]);
    },
  };
  it('is made of it where it is as it was', async () => {
    expect(await made(nothing, nothing)).toEqual({ right: true, taken: 2 });
  });
  for (const [what, change] of Object.entries(changes)) {
    it(`is made of its source where the earlier output is ${what}`, async () => {
      expect(await made(change, nothing)).toEqual({ right: true, taken: 0 });
    });
    it(`is made of its source where it is ${what} while it is read`, async () => {
      expect(await made(nothing, change)).toEqual({ right: true, taken: 0 });
    });
  }
});

describe('the key of a tensor', () => {
  const form = { kind: 'coded', element: 'i8', block: [1, 64], scale: 'f32', zero: false, search: 'absmax', layout: 'packed' } as const;
  const step: MatrixStep = {
    kind: 'matrix',
    part: { tensor: 'a', file: 'f', bytes: [0, 64 * 64 * 2] },
    storage: { kind: 'plain', element: 'bf16' },
    rows: 64,
    columns: 64,
    take: null,
    turn: 'none',
    form,
    regions: { codes: 0, scales: 4096, zeros: null, sums: null },
    name: 'a',
    statistics: 'a',
  };
  const sha = (of: string): string => createHash('sha256').update(of).digest('hex');
  const keyOf = (s: Step, statistics: Readonly<Record<string, Float32Array>> = {}, content = 'x'): string =>
    groupKey([s], groupsOf([s])[0]!, () => sha(content), statisticsDigests(statistics)) as string;
  const key = keyOf(step);
  it('is that of bytes and figures: names and places are none of it', () => {
    expect(keyOf({ ...step, name: 'b', statistics: 'b', part: { ...step.part, tensor: 'b', file: 'g', bytes: [64, 64 + 8192] } })).toBe(
      key,
    );
    expect(keyOf({ ...step, regions: { codes: 100, scales: 0, zeros: null, sums: null } })).toBe(key);
  });
  it('is another where anything is that bytes or figures come of', () => {
    const vector = { a: Float32Array.of(1, 2) };
    const gram = (x: number) => ({ ...vector, 'gram:a': Float32Array.of(1, x) });
    const gptq: MatrixStep = { ...step, form: { ...form, search: 'gptq' } };
    const others: Readonly<Record<string, string>> = {
      content: keyOf(step, {}, 'y'),
      element: keyOf({ ...step, form: { ...form, element: 'f8e4m3' } }),
      search: keyOf({ ...step, form: { ...form, search: 'mse' } }),
      block: keyOf({ ...step, form: { ...form, block: [1, 32] } }),
      rows: keyOf({ ...step, take: [0, 32] }),
      'other rows': keyOf({ ...step, take: [32, 64] }),
      sums: keyOf({ ...step, regions: { ...step.regions, sums: { at: 8192, chunks: 2 } } }),
      storage: keyOf({ ...step, storage: { kind: 'plain', element: 'f16' } }),
      statistics: keyOf(step, vector),
      'other statistics': keyOf(step, { a: Float32Array.of(1, 3) }),
      gptq: keyOf(gptq, gram(1)),
      'other gram': keyOf(gptq, gram(2)),
    };
    expect(new Set([key, ...Object.values(others)]).size).toBe(1 + Object.keys(others).length);
    expect(keyOf(step, gram(1))).toBe(keyOf(step, gram(2))); // only GPTQ asks for it
  });
  it('is none where the content of a source is not known', () => {
    expect(
      groupKey(
        [step],
        groupsOf([step])[0]!,
        () => null,
        () => '',
      ),
    ).toBe(null);
  });
});

describe('an earlier output', () => {
  const changed = (): string => recipe('kv', { kv_b: 'bf16' });
  const donors = (): readonly string[] => readdirSync(work).filter(d => existsSync(join(work, d, 'bundle.json')));
  const expected = (): number => all - count(/kv_b_proj/);
  /** Nothing but one output of the base recipe is left. */
  async function alone(): Promise<void> {
    for (const d of donors()) rmSync(out(d), { recursive: true });
    rmSync(cache, { recursive: true, force: true });
    const e = await run('base', base);
    expect(e.code).toBe(0);
  }
  it('that was edited in place, size and times as they were, is not taken from', async () => {
    await alone();
    const victim = weights('base')[1] as string;
    flip(victim, statSync(victim).size - 100_001);
    const e = await run('kv', changed());
    expect([e.code, e.err, taken(e)[0]! > 0, taken(e)[0]! < expected()]).toEqual([0, e.err, true, true]);
    await sameAsFresh('kv', changed());
  });
  it('that was cut, removed, replaced by a directory or by a pipe is not taken from, and nothing waits for it', async () => {
    await alone();
    const [a, b, c] = weights('base') as [string, string, string];
    truncateSync(a, statSync(a).size - 1);
    rmSync(b);
    rmSync(c);
    mkdirSync(c);
    if (process.platform === 'linux') {
      rmSync(b, { force: true });
      execFileSync('mkfifo', [b]);
    }
    const e = await run('kv', changed());
    expect([e.code, e.err, taken(e)]).toEqual([0, e.err, [0, 0]]);
    await sameAsFresh('kv', changed());
  });
  it('that was touched, but has its bytes, is hashed and taken from; a copy of it in its place is not', async () => {
    await alone();
    for (const f of weights('base')) chmodSync(f, 0o640);
    const e = await run('kv', changed());
    expect([e.code, e.err, taken(e)]).toEqual([0, e.err, [expected(), all]]);
    await sameAsFresh('kv', changed());
    await alone();
    cpSync(out('base'), out('elsewhere'), { recursive: true });
    rmSync(out('base'), { recursive: true });
    symlinkSync(out('elsewhere'), out('base'));
    rmSync(out('kv'), { recursive: true, force: true });
    const linked = await run('kv', changed());
    expect([linked.code, linked.err, (taken(linked)[0] as number) < expected()]).toEqual([0, linked.err, true]);
    rmSync(out('base'));
    await sameAsFresh('kv', changed());
  });
  it('whose record was damaged is not taken from', async () => {
    await alone();
    const made = join(cache, 'made');
    for (const f of readdirSync(made)) {
      const text = readFileSync(join(made, f), 'utf8');
      const damaged = text.replace(/"at":\[(\d+)/, (_, n) => `"at":[${Number(n) + 2}`);
      expect(damaged).not.toBe(text);
      writeFileSync(join(made, f), damaged);
    }
    for (const f of readdirSync(join(cache, 'leads')).slice(1)) writeFileSync(join(cache, 'leads', f), '[null,{"content":7}]');
    const e = await run('kv', changed());
    expect([e.code, e.err, taken(e)]).toEqual([0, e.err, [0, 0]]);
    await sameAsFresh('kv', changed());
  });
  it('serves a run that is killed and goes on', async () => {
    await alone();
    rmSync(out('kv'), { recursive: true, force: true });
    let kills = 0;
    let last: Ended | null = null;
    for (let wait = 0; wait < 8; wait++) {
      const p = start(args('kv', changed(), '-j', String(wait % 3)), cache);
      await until(p, () => journaled(out('kv')) > Math.min(2, wait));
      await sleep(wait);
      p.kill('SIGKILL');
      last = await p.done;
      if (last.signal !== 'SIGKILL') break;
      kills++;
    }
    // killed when all was in place already: then it says so
    if (!existsSync(out('kv'))) last = await run('kv', changed(), '-j', '2');
    expect([kills > 0, existsSync(out('kv')), last?.err]).toEqual([true, true, last?.err]);
    await sameAsFresh('kv', changed());
  });
  it('that is the place of the new one is taken from before it goes', async () => {
    await alone();
    const e = await run('base', changed(), '--force');
    expect([e.code, e.err, taken(e)]).toEqual([0, e.err, [expected(), all]]);
    const back = await run('base', base, '--force');
    expect([back.code, back.err, taken(back)]).toEqual([0, back.err, [expected(), all]]);
    await sameAsFresh('base', base);
  });
});
