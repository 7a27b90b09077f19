// The Ascend target: kernels in AscendC, and programs of them.
import type { Program } from '../../ir/program.js';
import type { Chip, Target } from '../target.js';
import { chips } from './chips.js';
import { ascendEngines } from './engine.js';
import { ascendLaunch } from './launch.js';
import { printAscend } from './printer.js';
import { emulator, printProgram } from './program.js';
import { is310p, is950 } from './schemes.js';

/** Why a chip cannot run a program: what its units do not multiply is not decoded by its scalar unit, which would be slow without a word. */
function refuses(p: Program, chip: Chip): string | null {
  if (is310p(chip.name)) return `${chip.name} has no BF16, in which these checkpoints are stored`;
  for (const w of p.weights) {
    const { element } = w.type.storage;
    if ((element === 'f8e4m3' || element === 'f4e2m1') && !is950(chip.name))
      return `${w.name} is in ${element === 'f8e4m3' ? 'FP8' : 'FP4'}, and ${chip.name} has no unit for it: --quantise w8a8 makes int8 of it`;
    if (element === 'i4' && is950(chip.name)) return `${w.name} is in int4, and ${chip.name} has no int4 cube: --quantise mxfp4`;
  }
  return null;
}

export const ascend: Target = {
  name: 'ascend',
  about: 'AscendC for Huawei Ascend NPUs',
  language: 'AscendC',
  chips,
  proved: 'whole programs run under an emulator of the runtime, the vector interface, its alignments, waits and buffer; not on a device',
  objection: (k, chip) => {
    const { bytes } = printAscend(k);
    return chip.tileBytes && bytes > chip.tileBytes.value
      ? `${k.name} needs ${bytes} bytes of the unified buffer; ${chip.name} has ${chip.tileBytes.value}`
      : null;
  },
  print: k => printAscend(k).text,
  engines: ascendEngines,
  native: printProgram,
  refuses,
  emulator,
  launch: ascendLaunch,
};
