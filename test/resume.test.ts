// Long work is safe: real processes, killed, interrupted, out of space, with sources that change under them. The same command goes on, and what
// comes of it in the end is what an undisturbed run writes, byte for byte.
import { spawnSync } from 'node:child_process';
import {
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  renameSync,
  rmSync,
  statfsSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { workPlace } from '../src/bundle/work.js';
import { bin, hkgai, journaled, outputDigest, random, start, until } from './cli-process.js';
import { writeSynthetic } from './synthetic-checkpoint.js';

const work = mkdtempSync(join(tmpdir(), 'hkgai-resume-'));
const mounts: string[] = [];
afterAll(() => {
  for (const m of mounts) spawnSync('umount', [m]);
  rmSync(work, { recursive: true, force: true });
});
const model = join(work, 'model');
const cache = join(work, 'cache');
const command = (out: string, ...more: readonly string[]): readonly string[] => [
  'compile',
  model,
  '-o',
  out,
  ...['-t', 'cuda', '--quantise', 'w4a16', '--search', 'mse', '--no-cache', ...more],
];
let undisturbed = '';
let files: readonly string[] = [];
beforeAll(async () => {
  ({ files } = writeSynthetic(model, { shards: 16, hidden: 512, experts: 16 }));
  const out = join(work, 'undisturbed');
  expect((await hkgai(command(out, '-j', '1'), cache)).code).toBe(0);
  undisturbed = outputDigest(out);
});
const resumedOf = (err: string): number => Number(/(\d+) of \d+ weight files were finished before/.exec(err)?.[1] ?? 0);

describe('a compile killed with SIGKILL', () => {
  it('at twenty and more points goes on with the same command to the same bytes', async () => {
    const next = random(20251);
    let kills = 0;
    const resumed: number[] = [];
    for (let campaign = 0; kills < 20; campaign++) {
      const out = join(work, `killed ${campaign}`, 'out');
      for (let tries = 0; ; tries++) {
        const finished = journaled(out);
        const inPlace = existsSync(out);
        const p = start(command(out, '-j', String(1 + (tries % 2))), cache);
        if (kills < 20 || tries === 0) {
          // by time, by files finished, or in the last part, when all is made but not yet in place
          const at = next();
          const began = Date.now();
          const wait = 900 * next();
          const more = finished + 1 + Math.floor(3 * next());
          await until(p, () =>
            at < 0.3
              ? Date.now() - began > wait
              : at < 0.85
                ? journaled(out) >= more
                : existsSync(join(workPlace(out), 'tree/cuda', at < 0.93 ? 'ledger.jsonl' : '../bundle.json')),
          );
          p.kill('SIGKILL');
        }
        const end = await p.done;
        if (end.signal === 'SIGKILL') {
          kills++;
          expect(existsSync(out) && !existsSync(join(out, 'bundle.json'))).toBe(false);
          continue;
        }
        // killed when all was in place already: then it says so, and what was left is gone
        if (inPlace) expect([end.code, end.err]).toEqual([2, expect.stringContaining('HK2101')]);
        else expect([end.code, end.code === 0 ? '' : end.err]).toEqual([0, '']);
        resumed.push(resumedOf(end.err));
        expect(outputDigest(out)).toBe(undisturbed);
        expect(readdirSync(dirname(out))).toEqual(['out']);
        break;
      }
    }
    expect(kills).toBeGreaterThanOrEqual(20);
    expect(resumed.filter(n => n > 0).length).toBeGreaterThan(0);
  });

  it('while it replaces an earlier output has that output still', async () => {
    const out = join(work, 'replacing', 'out');
    expect((await hkgai(['compile', model, '-o', out, '-t', 'ascend', '--no-cache', '-q'], cache)).code).toBe(0);
    const earlier = outputDigest(out);
    const p = start(command(out, '--force'), cache);
    await until(p, () => journaled(out) >= 3);
    p.kill('SIGKILL');
    expect((await p.done).signal).toBe('SIGKILL');
    // as a kill between the two renames leaves it
    renameSync(out, join(workPlace(out), 'replaced'));
    // a command without --force does not take the place for free, another one is refused; either way the old output is back
    const without = await hkgai(command(out), cache);
    expect([without.code, without.err]).toEqual([2, expect.stringContaining('HK2101')]);
    expect(outputDigest(out)).toBe(earlier);
    renameSync(out, join(workPlace(out), 'replaced'));
    const other = await hkgai(['compile', model, '-o', out, '-t', 'cuda', '--quantise', 'int8-rows', '--force'], cache);
    expect([other.code, other.err]).toEqual([2, expect.stringMatching(/HK2501[\s\S]*It differs in: .*recipe/)]);
    expect(outputDigest(out)).toBe(earlier);
    const last = await hkgai(command(out, '--force'), cache);
    expect([last.code, resumedOf(last.err) >= 3]).toEqual([0, true]);
    expect(outputDigest(out)).toBe(undisturbed);
    expect(readdirSync(dirname(out))).toEqual(['out']);
  });
});

describe('a compile interrupted', () => {
  for (const signal of ['SIGINT', 'SIGTERM'] as const)
    it(`by ${signal} ends with 130 and the command that goes on`, async () => {
      const out = join(work, `it's ${signal}`, 'out');
      const p = start(command(out, '-j', '2'), cache);
      await until(p, () => journaled(out) >= 2);
      p.kill(signal);
      const end = await p.done;
      expect([end.code, end.signal, end.err]).toEqual([
        130,
        null,
        expect.stringContaining('HK9130  Interrupted; what is finished is kept'),
      ]);
      expect(existsSync(out)).toBe(false);
      const again = /Go on with: (.*?) {3}hkgai explain HK9130/.exec(end.err)?.[1] ?? '';
      expect(again).toContain(`compile ${model} -o '${out.replaceAll("'", "'\\''")}' -t cuda`);
      const { status, stderr } = spawnSync('sh', ['-c', again], { encoding: 'utf8', env: { ...process.env, HKGAI_CACHE: cache } });
      expect([status, resumedOf(stderr) >= 2]).toEqual([0, true]);
      expect(outputDigest(out)).toBe(undisturbed);
      expect(readdirSync(dirname(out))).toEqual(['out']);
    });
});

describe('two compiles to one output', () => {
  it('that begin at once: one writes, the other is refused', async () => {
    const out = join(work, 'two', 'out');
    const both = await Promise.all([hkgai(command(out, '-j', '1'), cache), hkgai(command(out, '-j', '1'), cache)]);
    expect(both.map(e => e.code).sort()).toEqual([0, 9]);
    expect(both.find(e => e.code === 9)?.err).toMatch(/HK9101 {2}Another hkgai is writing .*\n.*lock\..*\nProcess \d+ on /);
    expect(outputDigest(out)).toBe(undisturbed);
    expect(readdirSync(dirname(out))).toEqual(['out']);
  });
});

describe('sources that fail or change', () => {
  const own = join(work, 'own model');
  const last = (): string => join(own, files.at(-1) as string);
  const args = (out: string): readonly string[] => command(out, '-j', '1').map(a => (a === model ? own : a));
  it('a shard cut during the run: exit 9, and with the shard back the run goes on', async () => {
    cpSync(model, own, { recursive: true });
    const out = join(work, 'cut', 'out');
    const p = start(args(out), cache);
    await until(p, () => journaled(out) >= 2);
    truncateSync(last(), 100_000);
    const end = await p.done;
    expect([end.code, end.err]).toEqual([9, expect.stringMatching(/HK9003 {2}read failed: EIO/)]);
    expect(existsSync(out)).toBe(false);
    const refused = await hkgai(args(out), cache);
    expect([refused.code, refused.err]).toEqual([3, expect.stringContaining(files.at(-1) as string)]);
    copyFileSync(join(model, files.at(-1) as string), last());
    const again = await hkgai(args(out), cache);
    expect([again.code, resumedOf(again.err) >= 2]).toEqual([0, true]);
    expect(outputDigest(out)).toBe(undisturbed);
  });
  it('a shard written again during the run: refused, and what was made of others is kept', async () => {
    rmSync(own, { recursive: true, force: true });
    cpSync(model, own, { recursive: true });
    const out = join(work, 'changed', 'out');
    const p = start(args(out), cache);
    await until(p, () => journaled(out) >= 2);
    const now = new Date();
    utimesSync(last(), now, now);
    const end = await p.done;
    expect([end.code, end.err]).toEqual([3, expect.stringContaining(`HK3602  ${files.at(-1)} changed while it was read`)]);
    expect(existsSync(out)).toBe(false);
    const again = await hkgai(args(out), cache);
    expect([again.code, resumedOf(again.err)]).toEqual([0, files.length - 1]);
    expect(outputDigest(out)).toBe(undisturbed);
  });
  it('a shard that is another one after a kill: only what was made of it is made again', async () => {
    const out = join(work, 'another', 'out');
    const p = start(args(out), cache);
    await until(p, () => journaled(out) >= 4);
    p.kill('SIGKILL');
    await p.done;
    const finished = journaled(out);
    const now = new Date();
    utimesSync(join(own, files[0] as string), now, now);
    const again = await hkgai(args(out), cache);
    expect([again.code, resumedOf(again.err)]).toEqual([0, finished - 1]);
    expect(outputDigest(out)).toBe(undisturbed);
  });
});

/** A small file system of its own; null where this user may not mount. */
function mount(name: string, options: string): string | null {
  const at = join(work, name);
  mkdirSync(at);
  if (spawnSync('mount', ['-t', 'tmpfs', '-o', options, 'none', at]).status !== 0) return null;
  mounts.push(at);
  return at;
}
const small = process.platform === 'linux' && process.getuid?.() === 0 ? mount('small', 'size=16m') : null;
(small ? describe : describe.skip)(small ? 'a disk of its own' : 'a disk of its own: skipped, only root may mount one', () => {
  const at = small as string;
  const out = join(small ?? '', 'out');
  it('that fills up: exit 9, and with more room the run goes on', async () => {
    for (const jobs of ['1', '2']) {
      expect(spawnSync('mount', ['-o', 'remount,size=100m', at]).status).toBe(0);
      const p = start(command(out, '-j', jobs), cache);
      // someone else's file takes the room that was there when the run began
      await until(p, () => journaled(out) >= 1);
      p.kill('SIGSTOP');
      const { bavail, bsize } = statfsSync(at);
      writeFileSync(join(at, 'filler'), new Uint8Array(bavail * bsize - (1 << 20)));
      p.kill('SIGCONT');
      const end = await p.done;
      expect([end.code, end.err]).toEqual([9, expect.stringContaining('HK9002  The disk is full')]);
      expect(existsSync(out)).toBe(false);
      const finished = journaled(out);
      expect(finished).toBeGreaterThan(0);
      // no room yet: it is said before anything is done, and nothing is lost by trying
      const early = await hkgai(command(out, '-j', jobs), cache);
      expect([early.code, early.err]).toEqual([5, expect.stringContaining('HK5104')]);
      expect(journaled(out)).toBe(finished);
      rmSync(join(at, 'filler'));
      const again = await hkgai(command(out, '-j', jobs), cache);
      expect([again.code, resumedOf(again.err) > 0]).toEqual([0, true]);
      expect(outputDigest(out)).toBe(undisturbed);
      expect(readdirSync(at)).toEqual(['out']);
      rmSync(out, { recursive: true });
    }
  });
  it('that may only be read: exit 9', async () => {
    expect(spawnSync('mount', ['-o', 'remount,ro', at]).status).toBe(0);
    const end = await hkgai(command(out), cache);
    expect(spawnSync('mount', ['-o', 'remount,rw', at]).status).toBe(0);
    expect([end.code, end.err]).toEqual([9, expect.stringMatching(/HK9003 {2}\w+ failed: EROFS/)]);
  });
  it('whose root is named as the output: refused, a directory inside it is not', async () => {
    const end = await hkgai(command(at), cache);
    expect([end.code, end.err]).toEqual([2, expect.stringContaining(`HK2105  ${at} is a mount point`)]);
  });
});

it('is tested on the built program', () => expect(existsSync(join(dirname(dirname(bin)), 'dist/src/cli/main.js'))).toBe(true));
