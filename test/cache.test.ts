// Work that was done is not done again, and work that was not is never taken for done: the cache of digests and of finished files.
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  renameSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { homedir, tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { cacheRoot } from '../src/bundle/cache.js';
import { type Figures, readLedger } from '../src/bundle/ledger.js';
import { checkFiles, readManifest } from '../src/bundle/manifest.js';
import { readHeader } from '../src/checkpoint/safetensors.js';
import { bin, type Ended, hkgai, outputDigest, start } from './cli-process.js';
import { writeSynthetic } from './synthetic-checkpoint.js';

const work = mkdtempSync(join(tmpdir(), 'hkgai-cache-'));
afterAll(() => rmSync(work, { recursive: true }));
const model = join(work, 'model');
const cache = join(work, 'cache');
let files: readonly string[] = [];
let bytes = 0;
const out = (name: string): string => join(work, name);
const args = (name: string, ...more: readonly string[]): readonly string[] => [
  'compile',
  model,
  '-o',
  out(name),
  '-t',
  'cuda',
  '--quantise',
  'w4a16',
  '-j',
  '0',
  ...more,
];
const compile = (name: string, ...more: readonly string[]): Promise<Ended> => hkgai(args(name, ...more), cache);
const engine = (name: string, file: string): string => join(out(name), 'cuda/engine', file);
const shards = (name: string): readonly string[] => readdirSync(engine(name, '')).filter(f => f.endsWith('.safetensors'));
const touched = /nothing changed since it was made before: no weight was read or written/;
const made = (e: Ended): number =>
  touched.test(e.err) ? files.length : Number(/(\d+) were made before of the same content/.exec(e.err)?.[1] ?? 0);
/** Set a byte in the data of a file, times kept as they were. */
function edit(path: string, at: number, by: (was: number) => number): void {
  const { atime, mtime } = statSync(path);
  const fd = openSync(path, 'r+');
  const one = new Uint8Array(1);
  readSync(fd, one, 0, 1, at);
  one[0] = by(one[0] as number);
  writeSync(fd, one, 0, 1, at);
  utimesSync(path, atime, mtime);
}
let first = '';
beforeAll(async () => {
  ({ files, bytes } = writeSynthetic(model, { hidden: 384, layers: 2, experts: 16, width: 256, shards: 9 }));
  const e = await compile('first', '--baseline', join(work, 'baseline.json'));
  expect([e.code, made(e)]).toEqual([0, 0]);
  first = outputDigest(out('first'));
});

describe('the same compile once more', () => {
  const counts = existsSync('/proc/self/io');
  (counts ? it : it.skip)(`reads no weight, and says so${counts ? '' : ': skipped, this system does not count reads'}`, async () => {
    // the program, and then what the system counted of its reads
    const counting = `await import(${JSON.stringify(bin)}); console.log((await import('node:fs')).readFileSync('/proc/self/io', 'utf8'));`;
    const counted = async (command: readonly string[]): Promise<{ readonly e: Ended; readonly read: number }> => {
      const e = await start(command, cache, [process.execPath, '--input-type=module', '-e', counting, bin]).done;
      return { e, read: Number(/rchar: (\d+)/.exec(e.out)?.[1]) };
    };
    const readBy = (name: string, ...more: readonly string[]) => counted(args(name, ...more));
    const idle = await counted(['inspect', model]); // headers alone: plan and --dry-run convert some weights to know their rate
    const again = await readBy('again');
    expect([again.e.code, again.e.err]).toEqual([0, expect.stringMatching(touched)]);
    expect(outputDigest(out('again'))).toBe(first);
    const uncached = await readBy('uncached', '--no-cache');
    expect(outputDigest(out('uncached'))).toBe(first);
    expect(uncached.read - idle.read).toBeGreaterThan(0.8 * bytes); // the count sees weights where they are read
    expect(again.read - idle.read).toBeLessThan(bytes / 4);
  });
  it('in several threads, by another name of the model, is the same', async () => {
    const moved = join(work, 'model moved');
    renameSync(model, moved);
    const e = await hkgai(
      args('moved', '-j', '2').map(a => (a === model ? moved : a)),
      cache,
    );
    renameSync(moved, model);
    expect([e.code, made(e), outputDigest(out('moved'))]).toEqual([0, files.length, first]);
  });
});

describe('a change', () => {
  it('of one source tensor, times set back, makes its file again and no other', async () => {
    const shard = files[3] as string;
    const t = [...readHeader(join(model, shard), shard).tensors.values()].find(x => x.dtype === 'F8_E4M3');
    const at = (t?.bytes[0] ?? 0) + 5;
    edit(join(model, shard), at, b => b ^ 0x80);
    const e = await compile('changed');
    expect([e.code, made(e)]).toEqual([0, files.length - 1]);
    expect(outputDigest(out('changed'))).not.toBe(first);
    const fresh = await compile('changed fresh', '--no-cache');
    expect([fresh.code, outputDigest(out('changed fresh'))]).toEqual([0, outputDigest(out('changed'))]);
    edit(join(model, shard), at, b => b ^ 0x80);
    const back = await compile('back'); // its content is known again, once it was read
    expect([back.code, outputDigest(out('back'))]).toEqual([0, first]);
  });
  it('of the recipe, or of what a search weighs by, takes nothing', async () => {
    const e = await compile('mse', '--search', 'mse');
    // files without a matrix in codes are the same under both
    const same = shards('mse').filter(f => readFileSync(engine('mse', f)).equals(readFileSync(engine('first', f))));
    expect([e.code, made(e)]).toEqual([0, same.length]);
    expect(same.length).toBeLessThan(files.length);
    const fresh = await compile('mse fresh', '--search', 'mse', '--no-cache');
    expect([fresh.code, outputDigest(out('mse fresh'))]).toEqual([0, outputDigest(out('mse'))]);
  });
});

describe('a model of the same bytes under other names', () => {
  it('takes nothing that names the first one, and its ledger balances', async () => {
    const other = join(work, 'other names');
    cpSync(model, other, { recursive: true });
    const rename = (name: string): string => `language_model.${name}`;
    for (const f of files) {
      const old = readFileSync(join(model, f));
      const size = Number(old.readBigUInt64LE(0));
      const header = JSON.parse(old.toString('utf8', 8, 8 + size)) as Record<string, unknown>;
      const text = Buffer.from(
        JSON.stringify(Object.fromEntries(Object.entries(header).map(([k, v]) => [k === '__metadata__' ? k : rename(k), v]))),
      );
      const head = Buffer.alloc(8);
      head.writeBigUInt64LE(BigInt(text.length));
      writeFileSync(join(other, f), Buffer.concat([head, text, old.subarray(8 + size)]));
    }
    const index = join(other, 'model.safetensors.index.json');
    const was = JSON.parse(readFileSync(index, 'utf8')) as { readonly weight_map: Record<string, string> };
    const map = Object.fromEntries(Object.entries(was.weight_map).map(([k, v]) => [rename(k), v]));
    writeFileSync(index, JSON.stringify({ ...was, weight_map: map }));
    const named = (name: string, ...more: readonly string[]): Promise<Ended> =>
      hkgai(
        args(name, ...more).map(a => (a === model ? other : a)),
        cache,
      );
    const fresh = await named('named fresh', '--no-cache');
    expect([fresh.code, fresh.err]).toEqual([0, fresh.err]);
    for (const name of ['named', 'named again']) {
      const e = await named(name);
      expect([e.code, e.err, outputDigest(out(name))]).toEqual([0, e.err, outputDigest(out('named fresh'))]);
    }
    const back = await compile('first names again'); // both are known by now
    expect([back.code, back.err, outputDigest(out('first names again'))]).toEqual([0, back.err, first]);
    for (const name of ['named fresh', 'named', 'named again', 'first names again']) rmSync(out(name), { recursive: true });
  });
});

describe('an earlier output', () => {
  it('that was edited in place, size and times as they were, is not trusted', async () => {
    const all = readdirSync(work).filter(d => existsSync(join(work, d, 'bundle.json')));
    for (const d of all) if (d !== 'first') rmSync(out(d), { recursive: true });
    const victim = shards('first')[2] as string;
    edit(engine('first', victim), statSync(engine('first', victim)).size - 1, b => b ^ 1);
    const e = await compile('after edit');
    expect([e.code, made(e)]).toEqual([0, files.length - 1]);
    expect(outputDigest(out('after edit'))).toBe(first);
    expect(checkFiles(out('after edit'), readManifest(out('after edit')))).toEqual([]);
  });
  it('that was copied to another place and removed is not missed, and touched ones are looked through', async () => {
    for (const f of shards('after edit')) chmodSync(engine('after edit', f), 0o640);
    rmSync(out('first'), { recursive: true });
    const e = await compile('after touch');
    expect([e.code, made(e), outputDigest(out('after touch'))]).toEqual([0, files.length, first]);
  });
  it('that is gone is made again', async () => {
    const gone = shards('after touch')[4] as string;
    rmSync(engine('after touch', gone));
    rmSync(engine('after edit', gone));
    const e = await compile('after loss');
    expect([e.code, made(e), outputDigest(out('after loss'))]).toEqual([0, files.length - 1, first]);
  });
  it('and one made of it do not change with each other when either is made anew', async () => {
    const before = outputDigest(out('after loss'));
    const e = await compile('after touch', '--force', '--search', 'mse', '--no-cache');
    expect([e.code, outputDigest(out('after loss'))]).toEqual([0, before]);
  });
});

describe('the cache itself', () => {
  it('that cannot be written is none', async () => {
    writeFileSync(join(work, 'a file'), '');
    const e = await hkgai(args('no cache'), join(work, 'a file'));
    expect([e.code, made(e), outputDigest(out('no cache'))]).toEqual([0, 0, first]);
  });
  it('that is damaged is made anew', async () => {
    const own = join(work, 'damaged cache');
    for (const damage of [
      '',
      '{}',
      'null',
      '{"tensors":{"x":"y"},"sha256":7}',
      '{"places":7,"result":{}}',
      '{"places":[null],"result":null}',
    ]) {
      rmSync(own, { recursive: true, force: true });
      cpSync(cache, own, { recursive: true });
      for (const part of readdirSync(own)) for (const f of readdirSync(join(own, part))) writeFileSync(join(own, part, f), damage);
      const e = await hkgai(args(`damaged by ${damage.length}`), own);
      expect([e.code, made(e), outputDigest(out(`damaged by ${damage.length}`))]).toEqual([0, 0, first]);
    }
  });
  it('that has an entry whose result is not whole makes that file anew', async () => {
    const own = join(work, 'cut cache');
    cpSync(cache, own, { recursive: true });
    const damage: readonly ((r: Record<string, unknown>) => unknown)[] = [
      r => delete r.steps,
      r => (r.steps = 'many'),
      r => (r.steps = [null]),
      r => (r.steps as { sources: unknown }[]).forEach(s => (s.sources = 7)),
      r => (r.steps as { figures: unknown }[]).forEach(s => (s.figures = 'good')),
      r => delete r.seconds,
      r => (r.sha256 = 1),
    ];
    readdirSync(join(own, 'made')).forEach((f, i) => {
      const entry = JSON.parse(readFileSync(join(own, 'made', f), 'utf8')) as { readonly result: Record<string, unknown> };
      damage[i % damage.length]?.(entry.result);
      writeFileSync(join(own, 'made', f), JSON.stringify(entry));
    });
    const e = await hkgai(args('of a cut cache'), own);
    expect([e.code, made(e), outputDigest(out('of a cut cache'))]).toEqual([0, 0, first]);
  });
  it('that is named by an empty variable is where it is without one', () => {
    const [hkgaiCache, xdg] = [process.env.HKGAI_CACHE, process.env.XDG_CACHE_HOME];
    process.env.HKGAI_CACHE = '';
    process.env.XDG_CACHE_HOME = '';
    expect(cacheRoot()).toBe(join(homedir(), '.cache', 'hkgai'));
    for (const [name, was] of [
      ['HKGAI_CACHE', hkgaiCache],
      ['XDG_CACHE_HOME', xdg],
    ] as const)
      if (was === undefined) delete process.env[name];
      else process.env[name] = was;
  });
  it('keeps figures: they are held against a baseline though nothing is made', async () => {
    const gated = await compile('gated', '--gate', join(work, 'baseline.json'));
    expect([gated.code, made(gated)]).toEqual([0, files.length]);
    const b = JSON.parse(readFileSync(join(work, 'baseline.json'), 'utf8')) as { readonly relative: Record<string, number> };
    const name = Object.keys(b.relative).find(n => (b.relative[n] as number) > 0) as string;
    b.relative[name] = (b.relative[name] as number) / 2;
    writeFileSync(join(work, 'tighter.json'), JSON.stringify(b));
    const refused = await compile('refused', '--gate', join(work, 'tighter.json'));
    expect([refused.code, refused.err]).toEqual([6, expect.stringContaining(`HK6401  ${name} has relative error`)]);
    expect(existsSync(out('refused'))).toBe(false);
    const figures = (dir: string): readonly (Figures | undefined)[] => readLedger(join(out(dir), 'cuda')).outputs.map(o => o.figures);
    expect(figures('gated')).toEqual(figures('no cache'));
  });
  it('is not asked and not written with --no-cache', async () => {
    const own = join(work, 'unused cache');
    const e = await hkgai(args('unasked', '--no-cache'), own);
    expect([e.code, existsSync(own)]).toEqual([0, false]);
  });
});
