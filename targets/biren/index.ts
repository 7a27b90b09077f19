// The Biren target: kernels in SUPA C++.
import type { Program } from '../../ir/program.js';
import { printSimt, sharedBytes } from '../simt.js';
import type { SourceFile, Target, WeightFile } from '../target.js';
import { chips } from './chips.js';
import { supa as dialect } from './dialect.js';
import { birenEngines } from './engine.js';
import { birenLaunch } from './launch.js';
import { emulator, printProgram, refuses } from './program.js';

export const biren: Target = {
  name: 'biren',
  about: 'SUPA C++ for Biren GPUs',
  language: 'SUPA C++',
  chips,
  proved:
    'kernels and whole programs run under an emulator of threads, warps, shared memory and the runtime; neither compiled by brcc nor run on a device',
  objection: (k, chip) => {
    const bytes = sharedBytes(k);
    return chip.tileBytes && bytes > chip.tileBytes.value
      ? `${k.name} needs ${bytes} bytes of shared memory; a block of ${chip.name} has ${chip.tileBytes.value}`
      : null;
  },
  print: k => printSimt(k, dialect),
  engines: birenEngines,
  native: (program: Program, files: readonly WeightFile[]): readonly SourceFile[] => printProgram(program, files),
  refuses,
  emulator,
  launch: birenLaunch,
};
