// The Ascend target: kernels in AscendC.
import type { Target } from '../target.js';
import { chips } from './chips.js';
import { ascendEngines } from './engine.js';
import { ascendLaunch } from './launch.js';
import { printAscend } from './printer.js';

export const ascend: Target = {
  name: 'ascend',
  about: 'AscendC for Huawei Ascend NPUs',
  language: 'AscendC',
  chips,
  proved: 'run under an emulator of the vector interface, its alignments and its buffer; not on a device',
  objection: (k, chip) => {
    const { bytes } = printAscend(k);
    return chip.tileBytes && bytes > chip.tileBytes.value
      ? `${k.name} needs ${bytes} bytes of the unified buffer; ${chip.name} has ${chip.tileBytes.value}`
      : null;
  },
  print: k => printAscend(k).text,
  engines: ascendEngines,
  native: null,
  launch: ascendLaunch,
};
