// The Ascend target: kernels in AscendC.
import type { Target } from '../target.js';
import { ascendEngines } from './engine.js';
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
    {
      name: '910c',
      about: 'Atlas A3 (Ascend910_93): two dies a package, each a device of its own with the cores of 910B',
      tileBytes: { value: 196608, source: 'CANN platform configuration of Ascend910_93 (AIC-C-220): ub_size 196608' },
    },
    {
      name: '950',
      about: 'Ascend 950 (dav-3510): MXFP8 and MXFP4',
      tileBytes: { value: 253952, source: 'CANN platform configuration of Ascend950 (AIC-C-310): ub_size 253952' },
      engineOnly: true,
    },
    {
      name: '310p',
      about: 'Ascend 310P (dav-2002): no bf16',
      tileBytes: { value: 262144, source: 'CANN platform configuration of Ascend310P (AIC-M-200): 256 KiB' },
      engineOnly: true,
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
  engines: ascendEngines,
  native: null,
};
