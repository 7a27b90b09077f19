// Each emulator is given sources with one fault each (test/emulator): it must end them with what their heads say, at a line that they mark, under every
// order; the same source without the fault must pass, its results held against plain loops.
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';

const here = fileURLToPath(new URL('emulator/', import.meta.url));
const targets = fileURLToPath(new URL('../targets/', import.meta.url));
const gxx = spawnSync('g++', ['--version']).status === 0;
/** Seeds of the order in which threads and blocks run. */
const seeds = [1, 2, 3, 4, 5];

interface Source {
  readonly path: string;
  readonly name: string;
  /** Words that the message has, one of them. */
  readonly says: readonly string[];
  readonly compiles: boolean;
  /** Lines that the message may name; none where the end of a kernel is at fault, which has no line. */
  readonly lines: readonly number[];
}
function sources(...folders: readonly string[]): readonly Source[] {
  return folders.flatMap(f =>
    readdirSync(join(here, f))
      .filter(n => /\.(cu|cpp)$/.test(n))
      .sort()
      .map(n => {
        const path = join(here, f, n);
        const text = readFileSync(path, 'utf8').split('\n');
        return {
          path,
          name: n.replace(/\.\w+$/, '').replaceAll('-', '_'),
          says: text.flatMap(l => /^\/\/ Says: (.*)/.exec(l)?.[1] ?? []),
          compiles: !text.includes('// Compiles: not'),
          lines: text.flatMap((l, i) => (/\/\/ here$/.test(l) ? [i + 1] : [])),
        };
      }),
  );
}
/** One program of all sources, each twice: whole, and broken. The first argument names one. */
function program(includes: readonly string[], of: readonly Source[]): string {
  const bodies = of.flatMap(s => [
    `namespace whole_${s.name} {\n#include "${s.path}"\n}`,
    ...(s.compiles ? [`#define BROKEN\nnamespace broken_${s.name} {\n#include "${s.path}"\n}\n#undef BROKEN`] : []),
  ]);
  const calls = of.flatMap(s => (s.compiles ? ['whole', 'broken'] : ['whole']).map(w => `${w}_${s.name}`));
  return [
    ...includes.map(i => `#include "${i}"`),
    ...bodies,
    'int main(int count, char **args) {',
    ...calls.map(c => `  if (count > 1 && !std::strcmp(args[1], "${c}")) { ${c}::run(); return 0; }`),
    '  return 9;',
    '}',
    '',
  ].join('\n');
}
const watched = ['-fsanitize=thread', '-fsanitize=alignment,bounds'];
const emulators = [
  {
    name: 'CUDA C++',
    of: sources('simt', 'cuda'),
    includes: ['hkgai_tile.cuh', 'host.h'],
    flags: ['cuda/header', 'simt/header', 'simt/emulator'],
    watch: watched,
  },
  {
    name: 'SUPA C++',
    of: sources('simt', 'biren'),
    includes: ['hkgai_tile.suh', 'host.h'],
    flags: ['biren/header', 'simt/header', 'simt/emulator'],
    watch: watched,
  },
  {
    name: 'AscendC',
    of: sources('ascend'),
    includes: ['kernel_operator.h', 'host.h', 'ascend/frame.h'],
    flags: ['ascend/header', 'ascend/emulator'],
    watch: [],
  },
] as const;

const work = mkdtempSync(join(tmpdir(), 'hkgai-emulators-'));
afterAll(() => rmSync(work, { recursive: true }));

(gxx ? describe : describe.skip)(gxx ? 'warps, under the emulator' : 'warps: skipped, there is no g++ here', () => {
  const folders = ['cuda/header', 'simt/header', 'simt/emulator'].map(f => `-I${targets}${f}`);
  it('multiply, shuffle, vote and copy as plain loops say, watched and under every order', () => {
    const stem = join(work, 'units');
    const flags = ['-x', 'c++', '-std=c++17', '-g', '-O1', ...folders, `-I${here}`];
    execFileSync('g++', [...flags, ...watched, '-c', join(here, 'units/main.cpp'), '-o', `${stem}.o`]);
    execFileSync('g++', [`${stem}.o`, '-o', stem]);
    for (const seed of seeds) {
      const r = spawnSync(stem, { encoding: 'utf8', env: { ...process.env, EMULATED_SEED: String(seed) } });
      expect([seed, r.status, r.stdout, r.stderr]).toEqual([seed, 0, 'done\n', '']);
    }
  }, 300_000);
  const nvcc = spawnSync('nvcc', ['--version']).status === 0;
  (nvcc ? it : it.skip)(
    nvcc ? 'the same products compile for chips' : 'products, by nvcc: skipped, it is not here',
    () => {
      for (const arch of ['sm_80', 'sm_89', 'sm_90']) {
        const args = [
          '-std=c++17',
          `-arch=${arch}`,
          '-cubin',
          ...folders.slice(0, 2),
          join(here, 'units/products.cu'),
          '-o',
          join(work, 'units.cubin'),
        ];
        const r = spawnSync('nvcc', args, { encoding: 'utf8' });
        expect([arch, r.status, r.stderr]).toEqual([arch, 0, '']);
      }
    },
    300_000,
  );
});

for (const e of emulators)
  (gxx ? describe : describe.skip)(gxx ? `${e.name}, under its emulator` : `${e.name}: skipped, there is no g++ here`, () => {
    const stem = join(work, e.includes[0].replace(/\W/g, '_'));
    const flags = ['-x', 'c++', '-std=c++17', '-g', '-O1', '-Wall', '-Wextra', ...e.flags.map(f => `-I${targets}${f}`), `-I${here}`];
    beforeAll(() => {
      writeFileSync(`${stem}.cpp`, program(e.includes, e.of));
      // what watches is linked in place of a sanitizer: the second command does not name one
      const warnings = execFileSync('g++', [...flags, ...e.watch, '-c', `${stem}.cpp`, '-o', `${stem}.o`], { encoding: 'utf8' });
      expect(warnings).toBe('');
      execFileSync('g++', [`${stem}.o`, '-o', stem]);
    }, 300_000);
    const run = (which: string, seed: number): ReturnType<typeof spawnSync> & { readonly text: string } => {
      const r = spawnSync(stem, [which], { encoding: 'utf8', env: { ...process.env, EMULATED_SEED: String(seed) } });
      return { ...r, text: `${r.stdout}${r.stderr}` };
    };
    it('is given more than a dozen, as docs/emulators.md says', () => {
      expect(e.of.length).toBeGreaterThanOrEqual(12);
      const page = readFileSync(fileURLToPath(new URL('../docs/emulators.md', import.meta.url)), 'utf8');
      expect(new RegExp(`^\\| ${e.name.replaceAll('+', '\\+')} \\|.*\\| (\\d+) \\|$`, 'm').exec(page)?.[1]).toBe(String(e.of.length));
    });
    for (const s of e.of) {
      it(`${s.name.replaceAll('_', ' ')}: whole, it passes`, () => {
        for (const seed of seeds) {
          const r = run(`whole_${s.name}`, seed);
          expect([seed, r.status, r.text]).toEqual([seed, 0, '']);
        }
      });
      if (s.compiles)
        it(`${s.name.replaceAll('_', ' ')}: broken, it ends with what is wrong and where`, () => {
          expect(s.says.length).toBeGreaterThan(0);
          for (const seed of seeds) {
            const r = run(`broken_${s.name}`, seed);
            const m = /^emulator: (?:kernel (\w+), (?:block \d+, thread \d+|core \d+ of \d+)|the host)(?:, ([\w.-]+):(\d+))?: (.*)\n$/.exec(
              r.text,
            );
            expect([seed, r.status, r.text, m !== null]).toEqual([seed, 2, r.text, true]);
            const [, , file, line, what] = m as RegExpExecArray;
            expect([seed, r.text, s.says.some(w => what?.includes(w))]).toEqual([seed, r.text, true]);
            if (s.lines.length > 0) {
              expect([r.text, file]).toEqual([r.text, basename(s.path)]);
              expect(s.lines).toContain(Number(line));
            }
          }
        });
      else
        it(`${s.name.replaceAll('_', ' ')}: broken, it does not compile, and the compiler says why`, () => {
          const one = `${stem}_${s.name}.cpp`;
          writeFileSync(one, [...e.includes.map(i => `#include "${i}"`), '#define BROKEN', `#include "${s.path}"`, ''].join('\n'));
          const r = spawnSync('g++', [...flags, '-fsyntax-only', one], { encoding: 'utf8' });
          expect(r.status).toBe(1);
          for (const w of s.says) expect(r.stderr).toContain(w);
          // the line of the source is in the compiler's account of how it came there
          expect(s.lines.some(l => r.stderr.includes(`${basename(s.path)}:${l}:`))).toBe(true);
        });
    }
  });
