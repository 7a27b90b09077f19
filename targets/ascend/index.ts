// The Ascend target: kernels in AscendC.
import type { Target } from '../target.js';
import { printAscend } from './printer.js';

export const ascend: Target = {
  name: 'ascend',
  about: 'AscendC for Huawei Ascend NPUs',
  language: 'AscendC',
  chips: [
    {
      name: '910b',
      about: 'Atlas A2 (dav-2201): vector cores with a unified buffer of their own',
      tileBytes: { value: 196608, source: 'CANN platform configuration of Ascend910B (AIC-C-220): ub_size 196608' },
    },
  ],
  proved: 'run under an emulator of the vector interface, its alignments and its buffer; not on a device',
  objection: (k, chip) => {
    const { bytes } = printAscend(k);
    return chip.tileBytes && bytes > chip.tileBytes.value
      ? `${k.name} needs ${bytes} bytes of the unified buffer; ${chip.name} has ${chip.tileBytes.value}`
      : null;
  },
  print: k => printAscend(k).text,
  native: null,
};
