// Programs for Ascend chips, built for an emulated device and run: the vendor's interface as the emulator holds it, and whole models against recorded logits.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';

const root = fileURLToPath(new URL('..', import.meta.url));
const work = mkdtempSync(join(tmpdir(), 'hkgai-ascend-'));
afterAll(() => rmSync(work, { recursive: true, force: true }));
const gxx = spawnSync('g++', ['--version']).status === 0;

(gxx ? describe : describe.skip)(gxx ? 'the emulated device' : 'the emulated device: skipped, there is no g++ here', () => {
  const host = join(work, 'host');
  beforeAll(() => {
    const emulator = join(root, 'targets/ascend/emulator');
    const sources = [join(root, 'test/ascend-native/host.cpp'), join(emulator, 'acl_emulator.cpp')];
    const built = spawnSync('g++', ['-std=c++17', '-O1', `-I${emulator}`, ...sources, '-o', host], { encoding: 'utf8' });
    expect([built.status, built.stderr]).toEqual([0, '']);
  });
  const run = (which: string, more: Readonly<Record<string, string>> = {}) =>
    spawnSync(host, [which], { encoding: 'utf8', env: { ...process.env, ...more } });
  const sums = `${Array.from({ length: 32 }, (_, i) => i + 1).join(' ')}\n`;

  it('runs what is legal, whatever the order of blocks and the number of cores', () => {
    for (const more of [{}, { EMULATED_SEED: '1' }, { EMULATED_SEED: '2' }]) {
      const ran = run('nothing', more);
      expect([ran.status, ran.stdout, ran.stderr]).toEqual([0, sums, '']);
    }
  });
  it('has a limit of memory, which is an answer and no fault', () => {
    expect(run('too much memory').stdout).toBe('207001\n');
  });
  it('shows that a block waited for another: other orders give other numbers', () => {
    const orders = Array.from({ length: 12 }, (_, i) => String(i * 1234)).map(
      seed => run('blocks in order', { EMULATED_SEED: seed }).stdout,
    );
    expect(new Set(orders).size).toBeGreaterThan(1);
  });
  for (const [which, sentence] of [
    ['set before init', 'aclrtSetDevice before aclInit'],
    ['memory before set', 'aclrtMalloc before aclrtSetDevice'],
    ['host reads', 'the host touches device memory, byte 0 of allocation 1: copy it first'],
    ['host writes', 'the host writes device memory, byte 0 of allocation 1: copy it first'],
    ['wrong kind', 'the kind is not that of its two places'],
    ['copy too long', 'aclrtMemcpy of 129 bytes into 128'],
    ['room too large', 'aclrtMemcpy of 132 bytes reaches 0 bytes after the end of allocation 1 of 128 bytes'],
    ['freed', 'aclrtMemcpy of 128 bytes reaches byte 0 of allocation 2, which was freed'],
    ['no blocks', 'add is launched with 0 blocks'],
    ['too many blocks', '49 blocks where the device has 48 vector cores'],
    ['host argument', 'argument 1 of add is not in device memory'],
    ['null argument', 'argument 2 of add is a null pointer'],
    ['no stream', 'add: no such stream'],
    ['scalar write', 'kernel by_scalar, core 0 of 1: a scalar writes byte 0 of allocation 2: global memory is written by copies alone'],
    ['past the end', 'kernel past_the_end, core 0 of 1: a copy of 32 bytes writes 0 bytes after the end of allocation 2 of 128 bytes'],
    ['not waited for', 'aclrtMemcpy while a stream has work that was not waited for'],
    ['stream left', 'aclFinalize with a stream left'],
    ['memory left', 'aclFinalize with allocation 1 left'],
  ] as const)
    it(`stops: ${which}`, () => {
      const ran = run(which);
      expect([ran.status, ran.stderr]).toEqual([2, expect.stringContaining(sentence)]);
    });
});
