// The whole program in CUDA C++ and C: kernels for nvcc, a host that finds the driver when it starts.
import type { Program } from '../../ir/program.js';
import { emulatorFiles, printDeviceProgram, programFiles } from '../device-program.js';
import type { SourceFile, WeightFile } from '../target.js';
import { cuda } from './dialect.js';

export const printProgram = (p: Program, files: readonly WeightFile[]): readonly SourceFile[] => [
  ...printDeviceProgram(p, files, {
    dialect: cuda,
    file: 'kernels.cu',
    about: 'The kernels of this model in CUDA C++.',
    after: () => [],
  }),
  ...programFiles(import.meta.url),
];
/** What stands in for the driver and the chip: `emulate.sh` builds both. */
export const emulator = (): readonly SourceFile[] => emulatorFiles(import.meta.url, 'cuda');
