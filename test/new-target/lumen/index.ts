// The Lumen target: kernels and whole programs in Lumen C++, directories for the vendor's server.
import { printSimt, sharedBytes } from '../../../targets/simt.js';
import type { Target } from '../../../targets/target.js';
import { chips } from './chips.js';
import { lumen as dialect } from './dialect.js';
import { lumenEngines } from './engine.js';
import { emulator, printProgram } from './program.js';

export const lumen: Target = {
  name: 'lumen',
  about: 'Lumen C++ for Lumen cards, which do not exist',
  language: 'Lumen C++',
  chips,
  proved: 'run under an emulator of threads, barriers and shared memory; there is no device',
  objection: (k, chip) => {
    const bytes = sharedBytes(k);
    return chip.tileBytes && bytes > chip.tileBytes.value
      ? `${k.name} needs ${bytes} bytes of near memory; a group of ${chip.name} has ${chip.tileBytes.value}`
      : null;
  },
  print: k => printSimt(k, dialect),
  engines: lumenEngines,
  native: printProgram,
  emulator,
};
