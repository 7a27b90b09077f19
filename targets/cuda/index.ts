// The CUDA target: kernels in CUDA C++.
import type { Program } from '../../ir/program.js';
import { printSimt, sharedBytes } from '../simt.js';
import type { SourceFile, Target, WeightFile } from '../target.js';
import { chips } from './chips.js';
import { cuda as dialect } from './dialect.js';
import { cudaEngines } from './engine.js';
import { cudaLaunch } from './launch.js';
import { emulator, printProgram } from './program.js';

export const cuda: Target = {
  name: 'cuda',
  about: 'CUDA C++ for NVIDIA GPUs',
  language: 'CUDA C++',
  chips,
  proved:
    'every kernel compiled by nvcc where it is installed, kernels and whole programs run under an emulator of threads, warps, shared memory and the driver; not on a device',
  objection: (k, chip) => {
    const bytes = sharedBytes(k);
    return chip.tileBytes && bytes > chip.tileBytes.value
      ? `${k.name} needs ${bytes} bytes of shared memory; a block of ${chip.name} has ${chip.tileBytes.value}`
      : null;
  },
  print: k => printSimt(k, dialect),
  engines: cudaEngines,
  native: (program: Program, files: readonly WeightFile[]): readonly SourceFile[] => printProgram(program, files),
  emulator,
  launch: cudaLaunch,
};
