// Every kernel in all four languages: run under emulators against its meaning, and side by side as text.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { beforeAll, describe, expect, it } from '@jest/globals';
import type { Kernel, Stmt } from '../ir/tile.js';
import { missing, placeBarriers } from '../ir/tile-check.js';
import { supa as supaWords } from '../targets/biren/dialect.js';
import { cuda as cudaWords } from '../targets/cuda/dialect.js';
import { targets } from '../targets/index.js';
import { printSimt } from '../targets/simt.js';
import type { Target } from '../targets/target.js';
import { cases, check, prepare } from './kernel-cases.js';
import { type Language, type Result, runPrograms } from './run-program.js';

const root = fileURLToPath(new URL('../targets/', import.meta.url));
const body = (text: string): string => text.slice(text.indexOf('\n\n') + 2);
const compiler = (dirs: readonly string[], defines: readonly string[] = []): readonly string[] => [
  'g++',
  '-std=c++17',
  '-O1',
  ...defines,
  ...dirs.map(d => `-I${root}${d}`),
];
const simt = (name: string, target: Target, include: string): Language => ({
  name,
  compiler: compiler([`${name}/header`, 'simt/header', 'simt/emulator']),
  include,
  print: k => body(target.print(k)),
  call: (kernel, args, blocks) => `emulator::run_grid(${blocks}, [&] { ${kernel}(${args.join(', ')}); });`,
});
const languages: readonly (readonly [Language, Target])[] = [
  [simt('cuda', targets.cuda!, cudaWords.include), targets.cuda!],
  [simt('biren', targets.biren!, supaWords.include), targets.biren!],
  [
    {
      name: 'ascend',
      compiler: compiler(['ascend/header', 'ascend/emulator']),
      include: '#include "hkgai_tile_ascend.h"\nusing namespace AscendC;',
      print: k => body(targets.ascend!.print(k)),
      call: (kernel, args) =>
        `for (AscendC::block_index = 0; AscendC::block_index < AscendC::block_count; AscendC::block_index++) ${kernel}(${args.join(', ')});`,
    },
    targets.ascend!,
  ],
];
const gxx = spawnSync('g++', ['--version']).status === 0;

for (const [language, target] of languages) {
  const chip = target.chips[0]!;
  (gxx ? describe : describe.skip)(
    gxx ? `${target.language}, under its emulator` : `${target.language}: skipped, there is no g++ here`,
    () => {
      const ready = cases.map((c, i) => prepare(c, i, { objection: k => target.objection(k, chip) }));
      let results: readonly (readonly Result[])[] = [];
      beforeAll(() => {
        results = runPrograms(
          ready.map(r => r.run),
          language,
        );
      });
      for (const [i, r] of ready.entries()) it(r.case.name, () => check(r, results[i] as readonly Result[], 2e-5));
    },
  );
}

/** One kernel of each makings, as the cases lower them for a chip whose blocks are smallest. */
function kernels(): ReadonlyMap<string, Kernel> {
  const found = new Map<string, Kernel>();
  for (const [i, c] of cases.entries())
    for (const l of prepare(c, i, {
      objection: k => targets.biren!.objection(k, targets.biren!.chips[0]!) ?? targets.ascend!.objection(k, targets.ascend!.chips[0]!),
    }).program.launches)
      for (const v of l.variants) if (v.kernel && !found.has(v.kernel.name)) found.set(v.kernel.name, v.kernel);
  return found;
}

const nvcc = spawnSync('nvcc', ['--version']).status === 0;
(nvcc ? describe : describe.skip)(nvcc ? 'CUDA C++, by nvcc' : 'CUDA C++, by nvcc: skipped, it is not here', () => {
  it('every kernel compiles for sm_80', () => {
    const dir = mkdtempSync(join(tmpdir(), 'hkgai-nvcc-'));
    try {
      const text = [cudaWords.include, ...[...kernels().values()].map(k => body(targets.cuda!.print(k)))].join('\n');
      writeFileSync(join(dir, 'all.cu'), text);
      const args = [
        '-std=c++17',
        '-arch=sm_80',
        '-cubin',
        '-diag-suppress=177',
        `-I${root}cuda/header`,
        `-I${root}simt/header`,
        'all.cu',
        '-o',
        'all.cubin',
      ];
      const built = spawnSync('nvcc', args, { cwd: dir, encoding: 'utf8' });
      expect([built.status, built.stderr]).toEqual([0, '']);
    } finally {
      rmSync(dir, { recursive: true });
    }
  });
});

describe('kernels as text', () => {
  const dir = fileURLToPath(new URL('golden/kernels/', import.meta.url));
  const all = kernels();
  const shown = (k: Kernel): string =>
    ['cpu', 'cuda', 'biren', 'ascend'].map(t => `==> ${targets[t]!.language}\n\n${targets[t]!.print(k)}`).join('\n');
  if (process.env.UPDATE) {
    rmSync(dir, { recursive: true, force: true });
    mkdirSync(dir, { recursive: true });
    for (const k of all.values()) writeFileSync(join(dir, `${k.name}.txt`), shown(k));
  }
  it('are as recorded, in four languages side by side (UPDATE=1 rewrites test/golden/kernels)', () => {
    expect(existsSync(dir) ? readdirSync(dir).sort() : []).toEqual([...all.keys()].map(n => `${n}.txt`).sort());
    for (const k of all.values()) expect(shown(k)).toBe(readFileSync(join(dir, `${k.name}.txt`), 'utf8'));
  });
  it('print the same twice', () => {
    const again = kernels();
    for (const [name, k] of all) expect(shown(again.get(name)!)).toBe(shown(k));
  });
  it('every barrier is needed: without any one of them the walk names a pair', () => {
    let barriers = 0;
    const statements = (b: readonly Stmt[]): readonly Stmt[] => b.flatMap(s => (s.s === 'for' ? [s, ...statements(s.body)] : [s]));
    for (const k of all.values())
      for (const pipes of [false, true]) {
        const marks = placeBarriers(k, pipes);
        expect(missing(k.body, marks, pipes)).toBeNull();
        for (const m of marks) {
          barriers++;
          expect(statements(k.body)).toContain(m);
          expect(missing(k.body, new Set([...marks].filter(x => x !== m)), pipes)).not.toBeNull();
        }
      }
    expect(barriers).toBeGreaterThan(100);
  });
  it('no name of a model or a machine is in what is printed', () => {
    for (const k of all.values()) expect(printSimt(k, cudaWords)).not.toMatch(/\/(home|tmp|root|work)\//);
  });
});
