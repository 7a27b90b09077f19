// The place beside an output: journal, lock, and the change from an old output to a new one, each met in every state that a kill can leave.
import { spawn, spawnSync } from 'node:child_process';
import {
  appendFileSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { hostname, tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll, describe, expect, it } from '@jest/globals';
import { checkOutput, linkOrCopy } from '../src/bundle/directory.js';
import { type Finished, openWork, sweepPlace, type Work, workPlace } from '../src/bundle/work.js';
import { runPool } from '../src/numeric/pool.js';

const root = mkdtempSync(join(tmpdir(), 'hkgai-work-'));
afterAll(() => rmSync(root, { recursive: true }));
let count = 0;
const fresh = (): string => {
  const dir = join(root, String(count++));
  mkdirSync(dir);
  return join(dir, 'out');
};
const fingerprint = { version: '1', recipe: 'a'.repeat(64), targets: 'x' };
const open = (
  out: string,
  more: { readonly fingerprint?: Record<string, string>; readonly restart?: boolean; readonly force?: boolean } = {},
): Work =>
  openWork(out, { ...fingerprint, ...more.fingerprint }, more.restart === true, () =>
    checkOutput(out, root + '/no-model', more.force === true),
  );
const put = (w: Work, path: string, text = 'weights'): Finished => {
  mkdirSync(join(w.tree, 'd'), { recursive: true });
  writeFileSync(join(w.tree, 'd', path), text);
  return { directory: 'd', path, bytes: text.length, sha256: '0'.repeat(64), sources: {} };
};
/** An unfinished run with these files recorded. */
async function unfinished(out: string, ...paths: readonly string[]): Promise<void> {
  const w = open(out);
  for (const p of paths) w.record(put(w, p));
  await w.leave();
}
const names = async (out: string): Promise<readonly string[]> => {
  const w = open(out);
  await w.leave();
  return [...w.finished.keys()];
};
const journal = (out: string): string => join(workPlace(out), 'journal.jsonl');

describe('the journal', () => {
  it('names what was finished', async () => {
    const out = fresh();
    await unfinished(out, 'a', 'b');
    expect((await names(out)).toSorted()).toEqual(['d/a', 'd/b']);
    expect((await names(out)).toSorted()).toEqual(['d/a', 'd/b']); // and still does when it was written anew
  });
  it('may be cut anywhere in its last line', async () => {
    const out = fresh();
    await unfinished(out, 'a', 'b');
    const whole = readFileSync(journal(out), 'utf8');
    const last = whole.lastIndexOf('\n', whole.length - 2) + 1;
    for (const cut of [last + 1, last + 20, whole.length - 2]) {
      writeFileSync(journal(out), whole.slice(0, cut));
      expect(await names(out)).toHaveLength(1);
    }
  });
  it('may be cut in its first line: then nothing was finished', async () => {
    const out = fresh();
    await unfinished(out, 'a');
    for (const text of ['', '{"finger']) {
      writeFileSync(journal(out), text);
      expect(await names(out)).toEqual([]);
    }
  });
  it('with a first line of another kind is refused, and lines of another kind are passed over', async () => {
    const out = fresh();
    await unfinished(out, 'a');
    appendFileSync(journal(out), 'null\n7\n"x"\n{"directory":"d"}\n{"directory":"../..","path":"etc","bytes":"1"}\n\n');
    expect(await names(out)).toEqual(['d/a']);
    for (const head of ['null', '7', '{}', 'x']) {
      writeFileSync(journal(out), `${head}\n{}\n`);
      expect(() => open(out)).toThrow(/HK2501[\s\S]*Its journal cannot be read/);
    }
  });
  it('of another run is refused with what differs, by value where that says something', async () => {
    const out = fresh();
    await unfinished(out, 'a');
    expect(() => open(out, { fingerprint: { recipe: 'b'.repeat(64) } })).toThrow(/HK2501[\s\S]*It differs in: recipe\.\n/);
    expect(() => open(out, { fingerprint: { version: '2' } })).toThrow(/It differs in: version \(1 there, 2 here\)\./);
    expect(() => open(out, { fingerprint: { budget: '4' } })).toThrow(/It differs in: budget \(none there, 4 here\)\./);
    expect(await names(out)).toEqual(['d/a']); // a refused run takes nothing away
  });
  it('is discarded with --restart', async () => {
    const out = fresh();
    await unfinished(out, 'a');
    const w = open(out, { restart: true, fingerprint: { version: '2' } });
    expect([...w.finished.keys(), ...readdirSync(w.tree)]).toEqual([]);
    await w.abandon();
    expect(readdirSync(dirname(out))).toEqual([]);
  });
  it('does not hold for files that were touched, cut or removed since', async () => {
    const out = fresh();
    await unfinished(out, 'same', 'edited', 'cut', 'gone');
    const at = (f: string): string => join(workPlace(out), 'tree/d', f);
    const { atime, mtime } = statSync(at('edited'));
    writeFileSync(at('edited'), 'WEIGHTS');
    utimesSync(at('edited'), atime, mtime);
    writeFileSync(at('cut'), 'weight');
    rmSync(at('gone'));
    expect(await names(out)).toEqual(['d/same']);
  });
  it('without its tree says nothing', async () => {
    const out = fresh();
    await unfinished(out, 'a');
    rmSync(join(workPlace(out), 'tree'), { recursive: true });
    const w = open(out, { fingerprint: { version: '2' } });
    expect([...w.finished.keys()]).toEqual([]);
    await w.abandon();
  });
  it('that cannot be written fails the run, not silently', async () => {
    const out = fresh();
    const w = open(out);
    w.record({ ...put(w, 'a'), path: 'never written' });
    await expect(w.commit()).rejects.toThrow(/ENOENT/);
    expect(() => w.record(put(w, 'b'))).toThrow(/ENOENT/);
    await w.abandon();
  });
});

describe('the lock', () => {
  const place = (out: string): string => workPlace(out);
  const machine = (): string => (existsSync('/etc/machine-id') ? readFileSync('/etc/machine-id', 'utf8').trim() : '');
  const boot = (): string =>
    existsSync('/proc/sys/kernel/random/boot_id') ? readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim() : '';
  const space = (): string => (existsSync('/proc/self/ns/pid') ? readlinkSync('/proc/self/ns/pid') : '');
  const gone = (): number => spawnSync(process.execPath, ['-e', '']).pid;
  const held = (out: string, more: Record<string, unknown>): string => {
    mkdirSync(place(out), { recursive: true });
    const file = join(place(out), 'lock.other');
    writeFileSync(
      file,
      JSON.stringify({ pid: process.pid, host: hostname(), machine: machine(), boot: boot(), space: space(), began: '', ...more }),
    );
    return file;
  };
  it('is one: the same process is refused too', async () => {
    const out = fresh();
    const w = open(out);
    expect(() => open(out)).toThrow(/HK9101/);
    await w.leave();
    await open(out).abandon();
    expect(readdirSync(dirname(out))).toEqual([]);
  });
  it('of a process that is gone is taken over', async () => {
    const out = fresh();
    held(out, { pid: gone() });
    await open(out).abandon();
    expect(readdirSync(dirname(out))).toEqual([]);
  });
  (existsSync('/proc/self/stat') ? it : it.skip)('of a number that another process has now is taken over', async () => {
    const out = fresh();
    held(out, { began: '1' });
    await open(out).abandon();
    expect(readdirSync(dirname(out))).toEqual([]);
  });
  it('of a living process is not, and the message names the file', () => {
    const out = fresh();
    const file = held(out, { pid: process.ppid });
    expect(() => open(out)).toThrow(new RegExp(`HK9101[\\s\\S]*${file}[\\s\\S]*Process ${process.ppid} on ${hostname()} holds its lock`));
  });
  const proc = existsSync('/proc/self/stat');
  (proc ? it : it.skip)(`of a process that ended unasked for is taken over${proc ? '' : ': skipped, there is no /proc'}`, async () => {
    const out = fresh();
    await unfinished(out);
    // a shell that starts a process and becomes one that never asks after it, before that process ends
    const parent = spawn('sh', ['-c', 'sleep 1 & echo $!; exec sleep 60'], { stdio: ['ignore', 'pipe', 'ignore'] });
    try {
      const pid = await new Promise<number>(resolve => parent.stdout.once('data', (d: Buffer) => resolve(Number(String(d)))));
      const stat = (): string => readFileSync(`/proc/${pid}/stat`, 'utf8').replace(/^.*\) /s, '');
      while (!stat().startsWith('Z')) await new Promise(resolve => setTimeout(resolve, 5));
      held(out, { pid });
      await open(out).abandon();
      expect(readdirSync(dirname(out))).toEqual([]);
    } finally {
      parent.kill();
    }
  });
  it('of before the machine started again is taken over', async () => {
    const out = fresh();
    held(out, { boot: 'an earlier one' });
    await open(out).abandon();
  });
  it('of another host, machine or container is not: nobody can tell', () => {
    for (const more of [{ host: 'elsewhere' }, { machine: 'another' }, { space: 'pid:[1]', pid: gone() }]) {
      const out = fresh();
      held(out, more);
      expect(() => open(out)).toThrow(/HK9101[\s\S]*cannot be seen from here: if it does not, remove the lock file/);
    }
  });
  it('that a crash left empty is none', async () => {
    const out = fresh();
    for (const text of ['', '{', 'null', '{"pid":"x"}']) {
      writeFileSync(held(out, {}), text);
      await open(out).abandon();
    }
  });
});

describe('the change to the new output', () => {
  const bundle = (dir: string, text: string): void => {
    mkdirSync(dir, { recursive: true });
    writeFileSync(join(dir, 'bundle.json'), JSON.stringify({ format: 'hkgai-bundle-1', text }));
  };
  it('leaves nothing beside it', async () => {
    const out = fresh();
    const w = open(out);
    w.record(put(w, 'a'));
    await w.commit();
    expect(readdirSync(dirname(out))).toEqual(['out']);
    expect(readFileSync(join(out, 'd/a'), 'utf8')).toBe('weights');
  });
  it('stopped between its two renames gives the old output back before anything else', async () => {
    const out = fresh();
    bundle(out, 'old');
    await expect(async () => open(out)).rejects.toThrow(/HK2101/);
    const w = open(out, { force: true });
    w.record(put(w, 'a'));
    await w.leave();
    renameSync(out, join(workPlace(out), 'replaced'));
    expect(() => open(out)).toThrow(/HK2101/);
    expect(readFileSync(join(out, 'bundle.json'), 'utf8')).toContain('old');
    const again = open(out, { force: true });
    expect([...again.finished.keys()]).toEqual(['d/a']);
    await again.commit();
    expect(readdirSync(out)).toEqual(['d']);
  });
  it('stopped after them is over: what is left goes', async () => {
    for (const left of ['replaced', 'discarded']) {
      const out = fresh();
      bundle(out, 'new');
      bundle(join(workPlace(out), left), 'old');
      writeFileSync(journal(out), '{"fingerprint":{}}\n');
      sweepPlace(out);
      expect(readdirSync(dirname(out))).toEqual(['out']);
      expect(readFileSync(join(out, 'bundle.json'), 'utf8')).toContain('new');
    }
  });
  it('does not touch what came to stand there meanwhile, and keeps the work', async () => {
    const out = fresh();
    const w = open(out);
    w.record(put(w, 'a'));
    mkdirSync(out);
    writeFileSync(join(out, 'thesis.txt'), 'the only copy');
    await expect(w.commit()).rejects.toThrow(/HK2101[\s\S]*no bundle of hkgai/);
    await w.abandon();
    expect(readFileSync(join(out, 'thesis.txt'), 'utf8')).toBe('the only copy');
    rmSync(out, { recursive: true });
    expect(await names(out)).toEqual(['d/a']);
  });
  it('goes to where a link leads, there already or not', async () => {
    for (const there of [true, false]) {
      const out = fresh();
      const real = join(dirname(out), 'real/place');
      mkdirSync(there ? real : dirname(real), { recursive: true });
      symlinkSync('real/place', out);
      const w = open(out);
      w.record(put(w, 'a'));
      await w.commit();
      expect(lstatSync(out).isSymbolicLink()).toBe(true);
      expect(readFileSync(join(real, 'd/a'), 'utf8')).toBe('weights');
      expect(readdirSync(dirname(real))).toEqual(['place']);
    }
  });
});

describe('an output that must not be written', () => {
  it('is one that holds the model, lies in it by a link, or is no bundle', () => {
    const out = fresh();
    const dir = dirname(out);
    const model = join(dir, 'up/model');
    mkdirSync(model, { recursive: true });
    expect(() => checkOutput(join(dir, 'up'), model, true)).toThrow(/HK2104/);
    symlinkSync(model, join(dir, 'link'));
    expect(() => checkOutput(join(dir, 'link/out'), model, true)).toThrow(/HK2102/);
    mkdirSync(out);
    writeFileSync(join(out, 'bundle.json'), '{"name":"of a web page"}');
    expect(() => checkOutput(out, model, true)).toThrow(/HK2101[\s\S]*no bundle of hkgai/);
    writeFileSync(join(dir, 'file'), '');
    symlinkSync('file', join(dir, 'to-file'));
    for (const f of ['file', 'to-file']) expect(() => checkOutput(join(dir, f), model, true)).toThrow(/HK2103/);
  });
});

describe('a file that is made', () => {
  const make = (dir: string): Promise<void> =>
    runPool(
      [
        {
          index: 0,
          path: 'made',
          size: 6,
          source: 3,
          steps: [
            { kind: 'put', out: 0, bytes: Buffer.from('new') },
            { kind: 'copy', source: { tensor: 't', file: 'source', bytes: [0, 3] }, out: 3 },
          ],
        },
      ],
      {
        from: dir,
        to: dir,
        jobs: 0,
        statistics: {},
        piece: 1 << 19,
        finished: () => {},
        progress: () => {},
        signal: new AbortController().signal,
      },
    );
  it('where an unfinished run left a link to an earlier one does not write through it', async () => {
    const dir = dirname(fresh());
    writeFileSync(join(dir, 'source'), 'abc');
    writeFileSync(join(dir, 'earlier'), 'precious');
    await linkOrCopy(join(dir, 'earlier'), join(dir, 'made'), 'link');
    await make(dir);
    expect([readFileSync(join(dir, 'earlier'), 'utf8'), readFileSync(join(dir, 'made'), 'utf8')]).toEqual(['precious', 'newabc']);
  });
  it('and fails on the way takes no room', async () => {
    const dir = dirname(fresh());
    writeFileSync(join(dir, 'source'), 'ab');
    await expect(make(dir)).rejects.toMatchObject({ code: 'EIO', syscall: 'read' });
    expect(readdirSync(dir)).toEqual(['source']);
  });
});

describe('a file brought from elsewhere', () => {
  for (const how of ['auto', 'link', 'copy'] as const)
    it(`as ${how} takes the place of what was there without writing through it`, async () => {
      const dir = dirname(fresh());
      const [from, shared, to] = [join(dir, 'from'), join(dir, 'shared'), join(dir, 'to')];
      writeFileSync(from, 'new');
      writeFileSync(shared, 'precious');
      await linkOrCopy(shared, to, 'link');
      await linkOrCopy(from, to, how);
      expect([readFileSync(shared, 'utf8'), readFileSync(to, 'utf8')]).toEqual(['precious', 'new']);
      await linkOrCopy(from, to, how); // once more, onto itself
      expect([readFileSync(from, 'utf8'), readFileSync(to, 'utf8')]).toEqual(['new', 'new']);
    });
});
