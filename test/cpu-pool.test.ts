// The pool of the CPU runtime under many short launches, also with more threads than processors; test/cpu-pool/launches.c has the checks.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
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
});
