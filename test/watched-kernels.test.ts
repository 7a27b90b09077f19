// Printed kernels with every access watched (docs/emulators.md) and whole warps: what verbs stage in plain shared arrays is held to the same rules as
// tiles are. Every third case, since a watched program takes long to compile; test/printers.test.ts runs them all.
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { expect, it } from '@jest/globals';
import { cuda as words } from '../targets/cuda/dialect.js';
import { targets } from '../targets/index.js';
import { cases, check, prepare } from './kernel-cases.js';
import { type Result, runPrograms } from './run-program.js';

const root = fileURLToPath(new URL('..', import.meta.url));
const gxx = spawnSync('g++', ['--version']).status === 0;
const folders = ['cuda/header', 'simt/header', 'simt/emulator'].map(d => `-I${root}targets/${d}`);

(gxx ? it : it.skip)(
  gxx ? 'kernels of every third case, watched, give what they mean' : 'kernels, watched: skipped, there is no g++ here',
  () => {
    const cuda = targets.cuda!;
    const ready = cases.flatMap((c, i) => (i % 3 === 1 ? [prepare(c, i, { objection: k => cuda.objection(k, cuda.chips[0]!) })] : []));
    const results = runPrograms(
      ready.map(r => r.run),
      {
        name: 'cuda',
        compiler: ['sh', `${root}test/emulator/watched.sh`, '-std=c++17', '-O1', ...folders],
        include: words.include,
        print: k => cuda.print(k).slice(cuda.print(k).indexOf('\n\n') + 2),
        call: (kernel, args, blocks) => `emulator::threads = 32; emulator::run_grid(${blocks}, [&] { ${kernel}(${args.join(', ')}); });`,
      },
    );
    expect(results.length).toBeGreaterThan(25);
    for (const [i, r] of ready.entries()) check(r, results[i] as readonly Result[], 2e-5);
  },
  300_000,
);
