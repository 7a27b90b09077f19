// The pool of the CPU runtime under many short launches, also with more threads than processors, and where its threads run; test/cpu-pool/launches.c
// and pins.c have the checks.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from '@jest/globals';

const work = mkdtempSync(join(tmpdir(), 'hkgai-pool-'));
afterAll(() => rmSync(work, { recursive: true, force: true }));

describe('the pool of the CPU runtime', () => {
  for (const sanitizer of ['', 'thread'])
    it(`runs every block of every launch once${sanitizer && `, under the ${sanitizer} sanitizer`}`, () => {
      const program = join(work, `launches-${sanitizer}`);
      const flags = ['-std=gnu17', '-O2', '-g', '-Wall', '-Wextra', '-Werror', '-pthread', '-Itargets/cpu/runtime'];
      const more = sanitizer ? [`-fsanitize=${sanitizer}`] : [];
      const sources = ['test/cpu-pool/launches.c', 'targets/cpu/runtime/hkgai_pool.c'];
      const built = spawnSync('cc', [...flags, ...more, ...sources, '-o', program], { encoding: 'utf8' });
      expect({ status: built.status, stderr: built.stderr }).toEqual({ status: 0, stderr: '' });
      for (const [threads, launches] of [
        [1, 2000],
        [2, sanitizer ? 1000 : 20000],
        [5, sanitizer ? 300 : 3000],
      ] as const) {
        const ran = spawnSync(program, [String(threads), String(launches)], { encoding: 'utf8' });
        expect({ status: ran.status, out: ran.stdout, err: ran.stderr.slice(0, 2000) }).toEqual({
          status: 0,
          out: `${launches} launches on ${threads} threads\n`,
          err: '',
        });
      }
    });
  const allowed = availableParallelism();
  (process.platform === 'linux' && allowed >= 2 ? it : it.skip)('keeps threads on processors where it is told to and may', () => {
    const program = join(work, 'pins');
    const flags = ['-std=gnu17', '-O2', '-Wall', '-Wextra', '-Werror', '-pthread', '-Itargets/cpu/runtime'];
    const built = spawnSync('cc', [...flags, 'test/cpu-pool/pins.c', 'targets/cpu/runtime/hkgai_pool.c', '-o', program], {
      encoding: 'utf8',
    });
    expect({ status: built.status, stderr: built.stderr }).toEqual({ status: 0, stderr: '' });
    const run = (pin: string, ...args: readonly string[]): string => {
      const ran = spawnSync(program, args, { encoding: 'utf8', env: { ...process.env, HKGAI_PIN: pin } });
      return `${ran.stdout}${ran.stderr}${ran.status}`;
    };
    expect(run('1', '2')).toBe('1 held\n0');
    expect(run('0', '2')).toBe('0 held\n0');
    expect(run('1', String(allowed + 1))).toBe('0 held\n0'); // more threads than processors
    expect(run('1', '2', 'refused')).toMatch(/^(0 held\n0|this system has no seccomp\n3)$/);
  });
});
