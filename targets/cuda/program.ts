// The whole program in CUDA C++ and C: kernels for nvcc, a host that finds the driver when it starts.
import type { Program } from '../../ir/program.js';
import { checkedIn, printDeviceProgram, sharedDirectories } from '../device-program.js';
import type { SourceFile, WeightFile } from '../target.js';
import { cuda } from './dialect.js';

const here = (dir: string): URL => new URL(dir, import.meta.url);

export const printProgram = (p: Program, files: readonly WeightFile[]): readonly SourceFile[] => [
  ...printDeviceProgram(p, files, {
    dialect: cuda,
    file: 'kernels.cu',
    about: 'The kernels of this model in CUDA C++.',
    after: () => [],
  }),
  ...checkedIn([...sharedDirectories, here('./header/'), here('./runtime/')]),
];
/** What stands in for the driver and the chip: beside the program, `emulate.sh` builds both. */
export const emulatorFiles = (): readonly SourceFile[] => checkedIn([new URL('../simt/emulator/', import.meta.url), here('./emulator/')]);
