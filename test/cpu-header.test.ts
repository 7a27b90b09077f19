// The verbs of the CPU header, compiled and run against plain double arithmetic: with what this machine has, with AVX2 only, and with no vector
// unit named at all; with activations as one and two terms of bf16; and with tiles of AMX, whose instructions test/cpu-header/amx.h says in plain C.
// test/cpu-header/verbs.c has the checks.
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
const pairs = has('avx512f', 'avx512bw', 'avx512vl', 'avx512dq', 'avx512_vnni', 'avx512_bf16');
const ways: readonly { readonly name: string; readonly flags: readonly string[]; readonly runs: boolean; readonly says?: string }[] = [
  { name: 'this machine', flags: ['-march=native'], runs: true },
  { name: 'AVX2, FMA and F16C', flags: ['-mavx2', '-mfma', '-mf16c'], runs: has('avx2', 'fma', 'f16c') },
  { name: 'no vector unit named', flags: [], runs: true },
  { name: 'bf16 in two terms', flags: ['-march=native', '-DSOME_STORAGES', '-DHKGAI_BF16_TERMS=2'], runs: pairs },
  { name: 'bf16 in one term', flags: ['-march=native', '-DSOME_STORAGES', '-DHKGAI_BF16_TERMS=1'], runs: pairs },
  {
    name: 'tiles of AMX, said in C',
    flags: ['-march=native', '-DSOME_STORAGES', '-include', 'test/cpu-header/amx.h'],
    runs: pairs,
    says: 'tile products: used\n',
  },
];

describe('verbs of the CPU header', () => {
  for (const { name, flags, runs, says } of ways)
    (runs ? it : it.skip)(`agree with plain arithmetic: ${name}`, () => {
      const program = join(work, name.replace(/\W+/g, '-'));
      const common = ['-std=c17', '-O2', '-ffp-contract=fast', '-fopenmp-simd', '-Wall', '-Wextra', '-Werror', '-Itargets/cpu/header'];
      const built = spawnSync('cc', [...common, ...flags, 'test/cpu-header/verbs.c', '-o', program, '-lm'], { encoding: 'utf8' });
      expect({ status: built.status, stderr: built.stderr }).toEqual({ status: 0, stderr: '' });
      const ran = spawnSync(program, [], { encoding: 'utf8' });
      const lines = ran.stdout.trim().split('\n');
      expect(lines.filter(l => !l.endsWith(' ok'))).toEqual([]);
      expect(lines.length).toBeGreaterThanOrEqual(flags.includes('-DSOME_STORAGES') ? 18 : 35);
      expect([ran.status, ran.stderr]).toEqual([0, says ?? '']);
    });
  const target = ['-march=sapphirerapids', '-std=gnu17', '-O2', '-Wall', '-Wextra', '-Werror', '-DSOME_STORAGES', '-Itargets/cpu/header'];
  const known = spawnSync('cc', ['-march=sapphirerapids', '-E', '-x', 'c', '-'], { input: '__AMX_BF16__' }).status === 0;
  (known && process.arch === 'x64' ? it : it.skip)('have tile products where the compiler builds for AMX', () => {
    const built = spawnSync('cc', [...target, '-S', '-o', '-', 'test/cpu-header/verbs.c'], { encoding: 'utf8', maxBuffer: 1 << 28 });
    expect({ status: built.status, stderr: built.stderr }).toEqual({ status: 0, stderr: '' });
    for (const word of ['ldtilecfg', 'tileloadd', 'tdpbusd', 'tdpbf16ps', 'tilestored']) expect(built.stdout).toContain(word);
  });
});
