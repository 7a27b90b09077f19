// The whole program in Lumen C++ and C.
import type { Program } from '../../../ir/program.js';
import type { Kernel } from '../../../ir/tile.js';
import { block, type Code } from '../../../targets/code.js';
import { emulatorFiles, printDeviceProgram, programFiles } from '../../../targets/device-program.js';
import { argumentNames } from '../../../targets/host-program.js';
import type { SourceFile, WeightFile } from '../../../targets/target.js';
import { lumen } from './dialect.js';

/** A launch is a call in the device's language: a function for each kernel, in the order of their numbers. */
const starts = (kernels: readonly Kernel[]): Code => [
  '',
  '#include "kernels.h"',
  ...kernels.map(k =>
    block(`static int start_${k.name}(const void *arguments, unsigned groups, unsigned workers)`, [
      `const ${k.name}_arguments *a = (const ${k.name}_arguments *)arguments;`,
      `return lu_run(${['groups', 'workers', k.name, ...argumentNames(k).map(n => `a->${n}`)].join(', ')});`,
    ]),
  ),
  'typedef int hk_start(const void *arguments, unsigned groups, unsigned workers);',
  block(
    'extern hk_start *const hk_starts[] =',
    kernels.map(k => `start_${k.name},`),
    '};',
  ),
];
export const printProgram = (p: Program, files: readonly WeightFile[]): readonly SourceFile[] => [
  ...printDeviceProgram(p, files, { dialect: lumen, file: 'kernels.cpp', about: 'The kernels of this model in Lumen C++.', after: starts }),
  ...programFiles(import.meta.url),
];
export const emulator = (): readonly SourceFile[] => emulatorFiles(import.meta.url, 'lumen');
