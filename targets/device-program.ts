// A Program for a device that a host drives: kernels in the device's language in one file, and the host's C (targets/host-program.ts) over a device
// of a few calls (simt/runtime/hkgai_device.h). Weights lie in one slab on the device, every tensor at a multiple of 256 bytes.
import { readdirSync, readFileSync } from 'node:fs';
import type { Program } from '../ir/program.js';
import type { Kernel } from '../ir/tile.js';
import { block, type Code, Names, text } from './code.js';
import { pointers } from './elements.js';
import {
  argumentsStruct,
  type HostWords,
  kernelsOf,
  notice,
  type PlacedSpan,
  printModel,
  printWeights,
  type Spans,
  spansOf,
} from './host-program.js';
import { type Dialect, kernelSimt } from './simt.js';
import type { SourceFile, WeightFile } from './target.js';

/** A multiple of what every device asks of wide loads. */
export const slabAlignment = 256;

/** Where each span lies in the slab, in their order; bytes that two weights share lie there once. */
export function placeInSlab(spans: readonly PlacedSpan[]): { readonly at: readonly number[]; readonly bytes: number } {
  const known = new Map<string, number>();
  let end = 0;
  const at = spans.map(s => {
    const key = `${s.file} ${s.from} ${s.bytes}`;
    const before = known.get(key);
    if (before !== undefined) return before;
    const place = end;
    known.set(key, place);
    end += Math.ceil(s.bytes / slabAlignment) * slabAlignment;
    return place;
  });
  return { at, bytes: end };
}

/** `p` for each pointer, `n` for each whole number: a kernel's arguments as they are passed, 8 bytes each. */
export function argumentKinds(k: Kernel): string {
  const names = new Names();
  return `${k.params.map(q => 'p'.repeat(pointers(q, names).length)).join('')}${'n'.repeat(k.sizes.length)}`;
}

function wordsOf(spans: Spans, kernels: readonly Kernel[]): HostWords {
  const slab = placeInSlab(spans.all);
  const place = new Map(spans.all.map((s, i) => [s, slab.at[i] as number]));
  return {
    start: (k, args, blocks) => [
      `hk_launch(m, kernel_${k.name}, (&(struct ${k.name}_arguments){${args.join(', ')}}),`,
      { inside: `${blocks});` },
    ],
    table: (_, at) => `m->tables[${at}]`,
    span: s => `{${s.file}, ${s.from}, ${s.bytes}, ${place.get(s)}}, // ${s.tensor}`,
    afterSpans: () => `const uint64_t hk_slab_bytes = ${slab.bytes};`,
    afterTables: tables => [
      '',
      `const int hk_table_count = ${tables.size};`,
      block(
        'const struct hk_table hk_tables[] =',
        tables.size ? [...tables].map(([name, values]) => `{${name}, ${values.length}},`) : ['{0, 0},'],
        '};',
      ),
      `const int hk_kernel_count = ${kernels.length};`,
      block(
        'const struct hk_kernel hk_kernels[] =',
        kernels.map(k => `{"${k.name}", "${argumentKinds(k)}"},`),
        '};',
      ),
    ],
  };
}

function printHeader(kernels: readonly Kernel[]): SourceFile {
  const code: Code = [
    ...notice('The kernels of this model: numbers, and arguments as the host passes them.'),
    '#pragma once',
    '#include <stdint.h>',
    block(
      'enum',
      kernels.map(k => `kernel_${k.name},`),
      '};',
    ),
    '/** Every kernel with its arguments: p a device address, n a whole number. */',
    ...(kernels.length
      ? [
          '#define HK_EACH_KERNEL(X) \\',
          ...kernels.map((k, i) => `  X(${k.name}, "${argumentKinds(k)}")${i + 1 < kernels.length ? ' \\' : ''}`),
        ]
      : ['#define HK_EACH_KERNEL(X)']),
    ...kernels.flatMap((k): Code[] => ['', argumentsStruct(k)]),
  ];
  return { path: 'kernels.h', text: text(code) };
}

/** What a target adds to its kernels' file. */
export interface DeviceLanguage {
  readonly dialect: Dialect;
  /** The kernels' file, `kernels.cu`. */
  readonly file: string;
  readonly about: string;
  /** After the kernels, such as calls that the host cannot make in C. */
  after(kernels: readonly Kernel[]): Code;
}

/** The host's side: model.c, weights.c and kernels.h. */
export function printHost(p: Program, files: readonly WeightFile[]): readonly SourceFile[] {
  const spans = spansOf(p, files);
  const kernels = kernelsOf(p);
  const words = wordsOf(spans, kernels);
  return [printModel(p, spans, words), printWeights(spans, files, words), printHeader(kernels)];
}
/** The generated sources of a device's program; headers and runtime are checked in and come with it. */
export function printDeviceProgram(p: Program, files: readonly WeightFile[], language: DeviceLanguage): readonly SourceFile[] {
  const kernels = kernelsOf(p);
  const all = [
    text(notice(language.about)),
    `${language.dialect.include}\n`,
    ...kernels.map(k => `\n${kernelSimt(k, language.dialect)}`),
    text(language.after(kernels)),
  ];
  return [...printHost(p, files), { path: language.file, text: all.join('') }];
}

/** Checked-in sources of the directories given, by their names. */
export const checkedIn = (directories: readonly URL[], wanted = /\.(h|c|cuh|suh|su|cpp|sh)$/): readonly SourceFile[] =>
  directories.flatMap(dir =>
    readdirSync(dir)
      .filter(f => wanted.test(f))
      .sort()
      .map((f): SourceFile => {
        const file = { path: f, text: readFileSync(new URL(f, dir), 'utf8') };
        return f.endsWith('.sh') ? { ...file, executable: true } : file;
      }),
  );
const shared = (dir: string): URL => new URL(dir, import.meta.url);
/** What every program in this language has: the protocol, the runtime, the shared verbs; and what the target has of its own. `here` is its import.meta.url. */
export const programFiles = (here: string): readonly SourceFile[] =>
  checkedIn([
    ...['./runtime/', './simt/runtime/', './simt/header/'].map(shared),
    ...['./header/', './runtime/'].map(d => new URL(d, here)),
  ]);
/** What stands in for a chip: laid beside the directory `native`, in the folders that the emulators' includes go by. */
export const emulatorFiles = (here: string, name: string): readonly SourceFile[] => {
  const below = (folder: string, dir: URL): readonly SourceFile[] =>
    checkedIn([dir]).map(f => (f.executable ? f : { ...f, path: `${folder}/${f.path}` }));
  return [
    ...below('emulator', shared('./emulator/')),
    ...below('simt/emulator', shared('./simt/emulator/')),
    ...below(`${name}/emulator`, new URL('./emulator/', here)),
  ];
};
