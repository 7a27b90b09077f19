// The whole program in SUPA C++ and C, for br1xx: kernels and their launches for brcc, the rest for a plain C compiler.
import type { Program } from '../../ir/program.js';
import { storageName } from '../../ir/storage.js';
import type { Kernel } from '../../ir/tile.js';
import { block, type Code } from '../code.js';
import { emulatorFiles, printDeviceProgram, programFiles } from '../device-program.js';
import { argumentNames, kernelsOf } from '../host-program.js';
import type { Chip, SourceFile, WeightFile } from '../target.js';
import { supa } from './dialect.js';

/** A call takes its arguments by the types they have, so each kernel has its own. */
const starts = (kernels: readonly Kernel[]): Code => [
  '',
  '#include "hkgai_start.suh"',
  '#include "kernels.h"',
  ...kernels.flatMap((k): Code[] => [
    block(`static void start_${k.name}(const void *arguments, unsigned blocks, unsigned threads, suStream_t stream)`, [
      `const ${k.name}_arguments *a = (const ${k.name}_arguments *)arguments;`,
      `suLaunchKernel(${k.name}, dim3(blocks), dim3(threads), 0, stream${argumentNames(k)
        .map(n => `, a->${n}`)
        .join('')});`,
    ]),
  ]),
  block(
    'hk_start *const hk_starts[] =',
    kernels.map(k => `start_${k.name},`),
    '};',
  ),
];

export const printProgram = (p: Program, files: readonly WeightFile[]): readonly SourceFile[] => [
  ...printDeviceProgram(p, files, { dialect: supa, file: 'kernels.su', about: 'The kernels of this model in SUPA C++.', after: starts }),
  ...programFiles(import.meta.url),
];
/** What stands in for the vendor's runtime and the chip: `emulate.sh` builds with it. */
export const emulator = (): readonly SourceFile[] => emulatorFiles(import.meta.url, 'biren');

/** What br1xx has no unit for is not decoded by hand in kernels: such weights are written in another form instead. */
export function refuses(p: Program, chip: Chip): string | null {
  for (const k of kernelsOf(p))
    for (const { name, storage } of k.params)
      if (storage.element === 'f8e4m3' || storage.element === 'f4e2m1' || storage.element === 'i4')
        return `${k.name} reads ${name} as ${storageName(storage)}, and ${chip.name} has no unit for it: --quantise bf16 or int8.`;
  return null;
}
