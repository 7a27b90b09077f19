// A Program as C: kernels.c and kernels.h (the printed kernels and how the pool calls them), and the host's C (targets/host-program.ts), which here
// uses weights where they are mapped.
import type { Program } from '../../ir/program.js';
import { block, type Code, text } from '../code.js';
import { argumentNames, argumentsStruct, type HostWords, kernelsOf, notice, printModel, printWeights, spansOf } from '../host-program.js';
import type { SourceFile, WeightFile } from '../target.js';
import { printC, prototypeC } from './printer.js';

const words: HostWords = {
  start: (k, args, blocks) => [
    `hk_run(m->pool, ${k.name}_task, &(struct ${k.name}_arguments){${args.join(', ')}},`,
    { inside: `${blocks});` },
  ],
  table: name => name,
  span: s => `{${s.file}, ${s.from}}, // ${s.tensor}`,
  afterTables: () => [],
  afterSpans: () => [],
};

// ---- kernels

function printKernels(p: Program): readonly SourceFile[] {
  const kernels = kernelsOf(p);
  const header: Code = [
    ...notice('The kernels of this model. Each runs over a range of its blocks; the pool calls it through its task.'),
    '#pragma once',
    '#include <stdint.h>',
    ...kernels.flatMap((k): Code[] => ['', argumentsStruct(k), `void ${k.name}_task(const void *arguments, long from, long to);`]),
  ];
  const source: Code = [
    ...notice('The kernels of this model in C.'),
    '#include "hkgai_tile.h"',
    '#include "kernels.h"',
    ...kernels.flatMap((k): Code[] => {
      return [
        '',
        `static ${prototypeC(k)};`,
        block(`void ${k.name}_task(const void *arguments, long from, long to)`, [
          `const struct ${k.name}_arguments *a = arguments;`,
          'tile_begin();',
          `${k.name}(${[...argumentNames(k).map(f => `a->${f}`), 'from', 'to'].join(', ')});`,
        ]),
        { raw: `static ${printC(k)}` } as never,
      ];
    }),
  ];
  return [
    { path: 'kernels.h', text: text(header) },
    { path: 'kernels.c', text: raw(source) },
  ];
}
/** Code with texts that are printed already. */
function raw(code: Code): string {
  if (Array.isArray(code)) return (code as readonly Code[]).map(raw).join('');
  if (typeof code === 'object' && 'raw' in code) return (code as unknown as { raw: string }).raw;
  return text(code);
}
/** The generated C of a program; headers and runtime are checked in and come with it. */
export function printProgram(p: Program, files: readonly WeightFile[]): readonly SourceFile[] {
  const spans = spansOf(p, files);
  return [printModel(p, spans, words), printWeights(spans, files, words), ...printKernels(p)];
}
