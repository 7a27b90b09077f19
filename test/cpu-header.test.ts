// The verbs of the CPU header, compiled and run against plain double arithmetic: with what this machine has, with AVX2 only, and with no vector
// unit named at all. test/cpu-header/verbs.c has the checks.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from '@jest/globals';

const work = mkdtempSync(join(tmpdir(), 'hkgai-verbs-'));
afterAll(() => rmSync(work, { recursive: true, force: true }));

const flagsHere = (() => {
  try {
    return /^(?:flags|Features)\s*:(.*)$/m.exec(readFileSync('/proc/cpuinfo', 'utf8'))?.[1] ?? '';
  } catch {
    return '';
  }
})();
const has = (...names: readonly string[]): boolean => names.every(n => flagsHere.split(/\s+/).includes(n));
const ways: readonly { readonly name: string; readonly flags: readonly string[]; readonly runs: boolean }[] = [
  { name: 'this machine', flags: ['-march=native'], runs: true },
  { name: 'AVX2, FMA and F16C', flags: ['-mavx2', '-mfma', '-mf16c'], runs: has('avx2', 'fma', 'f16c') },
  { name: 'no vector unit named', flags: [], runs: true },
];

describe('verbs of the CPU header', () => {
  for (const { name, flags, runs } of ways)
    (runs ? it : it.skip)(`agree with plain arithmetic: ${name}`, () => {
      const program = join(work, name.replace(/\W+/g, '-'));
      const common = ['-std=c17', '-O2', '-ffp-contract=fast', '-fopenmp-simd', '-Wall', '-Wextra', '-Werror', '-Itargets/cpu/header'];
      const built = spawnSync('cc', [...common, ...flags, 'test/cpu-header/verbs.c', '-o', program, '-lm'], { encoding: 'utf8' });
      expect({ status: built.status, stderr: built.stderr }).toEqual({ status: 0, stderr: '' });
      const ran = spawnSync(program, [], { encoding: 'utf8' });
      const lines = ran.stdout.trim().split('\n');
      expect(lines.filter(l => !l.endsWith(' ok'))).toEqual([]);
      expect(lines.length).toBeGreaterThanOrEqual(35);
      expect(ran.status).toBe(0);
    });
});
