// Runs programs as C on this machine, without a target's own host code: every kernel printed, launches in order, one thread. Buffers start as
// NaN before every call, so that nothing unwritten is read unnoticed; states keep what calls write.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type Dim, sizeOf, type ValueOf } from '../ir/graph.js';
import type { Argument, Program, Variant } from '../ir/program.js';
import { elements } from '../ir/storage.js';
import type { Kernel } from '../ir/tile.js';
import { blocksC, printC } from '../targets/cpu/printer.js';
import { memoryType } from '../targets/elements.js';

export interface Call {
  readonly inputs: Readonly<Partial<Record<ValueOf<'input'>['attributes']['which'], readonly number[]>>>;
}
/** One part of a weight: a matrix, or a vector. */
export interface PartBytes {
  readonly codes: Uint8Array;
  readonly scales?: Uint8Array;
}
export interface Run {
  /** With memory planned; keep what is to be looked at. */
  readonly program: Program;
  readonly weight: (w: ValueOf<'weight'>) => readonly PartBytes[];
  readonly calls: readonly Call[];
}
/** After one call: the values of a buffer, f32 or i32, as many as the call's rows give. */
export type Result = (buffer: string) => Float32Array | Int32Array;

const header = fileURLToPath(new URL('../targets/cpu/header', import.meta.url));

function dimC(d: Dim, p: Program): string {
  if (typeof d === 'number') return String(d);
  if ('symbol' in d) return d.symbol === 'tokens' || d.symbol === 'wanted' ? `${d.symbol}_rows` : String(p.graph.limits[d.symbol]);
  const [a, b] = [dimC(d.a, p), dimC(d.b, p)];
  return d.op === 'ceildiv' ? `((${a} + ${b} - 1) / ${b})` : d.op === 'min' ? `(${a} < ${b} ? ${a} : ${b})` : `(${a} ${d.op} ${b})`;
}

class Blob {
  readonly #pieces: Uint8Array[] = [];
  length = 0;
  add(bytes: Uint8Array): number {
    const at = this.length;
    const padded = new Uint8Array(Math.ceil(bytes.length / 64) * 64);
    padded.set(bytes);
    this.#pieces.push(padded);
    this.length += padded.length;
    return at;
  }
  bytes(): Buffer {
    return Buffer.concat(this.#pieces);
  }
}
const bytesOf = (a: Float32Array | Int32Array): Uint8Array => new Uint8Array(a.buffer, a.byteOffset, a.byteLength);

/** A language that kernels print in, and how a plain compiler builds and calls them here. */
export interface Language {
  readonly name: string;
  readonly compiler: readonly string[];
  readonly include: string;
  /** A kernel's function, static, without its include. */
  print(k: Kernel): string;
  /** A call over all blocks. */
  call(kernel: string, args: readonly string[], blocks: string): string;
}
export const c: Language = {
  name: 'C',
  compiler: ['gcc', '-std=gnu17', '-O1', '-march=native', '-fopenmp-simd', `-I${header}`],
  include: '#include "hkgai_tile.h"',
  print: k => `static ${printC(k)}`,
  call: (kernel, args, blocks) => `${kernel}(${[...args, '0', blocks].join(', ')});`,
};

/** The C text of one run, its kernels and names marked with `mark`. */
function source(run: Run, mark: string, blob: Blob, language: Language): string {
  const { program: p } = run;
  const lines: string[] = [];
  const tables: string[] = [];
  const fills: string[] = [];
  const renamed = new Map<Kernel, Kernel>();
  const kernelOf = (k: Kernel): Kernel => {
    const known = renamed.get(k);
    if (known) return known;
    const made = { ...k, name: `${mark}_${k.name}` };
    renamed.set(k, made);
    lines.push(language.print(made));
    return made;
  };
  const weights = new Map(
    p.weights.map((w, i) => {
      const parts = run.weight(w).map(part => ({ codes: blob.add(part.codes), scales: part.scales ? blob.add(part.scales) : null }));
      const table = (of: readonly (number | null)[], kind: string): string => {
        if (of.length < 2 || of[0] === null) return '';
        tables.push(`static const void *${mark}_${kind}${i}[${of.length}];`);
        fills.push(...of.map((o, j) => `  ${mark}_${kind}${i}[${j}] = blob + ${o};`));
        return `${mark}_${kind}${i}`;
      };
      return [
        w.name,
        {
          i,
          parts,
          codes: table(
            parts.map(t => t.codes),
            'c',
          ),
          scales: table(
            parts.map(t => t.scales),
            's',
          ),
        },
      ] as const;
    }),
  );
  const typeOf = (param: Kernel['params'][number]): string => `${memoryType[param.storage.element]} `;
  const argument = (a: Argument, param: Kernel['params'][number]): readonly string[] => {
    switch (a.kind) {
      case 'buffer':
        return [`(${typeOf(param)}*)(arena + ${p.buffers.find(b => b.name === a.buffer)?.offset})`];
      case 'state':
        return [`(${typeOf(param)}*)${mark}_state_${p.states.indexOf(a.state)}`];
      case 'input':
        return [a.which];
      case 'table':
        return [`(const ${typeOf(param)}*)(blob + ${blob.add(bytesOf(a.values))})`];
      case 'weight': {
        const w = weights.get(a.weight.name);
        if (!w) throw new Error(`${a.weight.name} is no weight of the program`);
        const one = (table: string, at: number | null | undefined, type: string): string =>
          param.stacked ? `(const ${type} *const *)${table}` : `(const ${type} *)(blob + ${at})`;
        const codes = one(w.codes, w.parts[0]?.codes, memoryType[param.storage.element]);
        return param.storage.kind === 'plain' ? [codes] : [codes, one(w.scales, w.parts[0]?.scales, memoryType[param.storage.scale])];
      }
    }
  };
  const variantC = (v: Variant): string => {
    if (!v.kernel) return ';';
    const k = kernelOf(v.kernel);
    const sizes = v.sizes.map(d => dimC(d, p));
    const args = v.args.flatMap((a, i) => argument(a, k.params[i] as Kernel['params'][number]));
    return language.call(
      k.name,
      [...args, ...sizes],
      blocksC(k, s => sizes[k.sizes.indexOf(s)] as string),
    );
  };
  const launches = p.launches.map(l => {
    const arms = l.variants.map(v => (v.upTo === null ? `{ ${variantC(v)} }` : `if (rows <= ${v.upTo}) { ${variantC(v)} } else`));
    const end = l.variants[l.variants.length - 1]?.upTo === null ? '' : ' {}';
    return `  { const long rows = ${dimC(l.rows, p)}; (void)rows; ${arms.join(' ')}${end} } // ${l.value.name}`;
  });
  const which = ['ids', 'next_ids', 'positions', 'sequences', 'wanted'] as const;
  const calls = run.calls.map(c => {
    const rows = c.inputs.positions?.length ?? c.inputs.ids?.length ?? 0;
    const input = which.map(w =>
      c.inputs[w] ? `(const int32_t *)(blob + ${blob.add(bytesOf(Int32Array.from(c.inputs[w] as number[])))})` : '0',
    );
    return `  memset(arena, 255, ${p.arena}); ${mark}_call(${rows}, ${c.inputs.wanted?.length ?? 0}, ${input.join(', ')}); fwrite(arena, 1, ${p.arena}, out);`;
  });
  const states = p.states.map((s, i) => {
    const bytes = s.type.shape.reduce<number>((n, d) => n * sizeOf(d, p.graph.limits), elements[s.type.storage.element].bits / 8);
    return `  ${mark}_state_${i} = malloc(${bytes}); memset(${mark}_state_${i}, 255, ${bytes});`;
  });
  const held = `static void *${p.states.map((_, i) => `${mark}_state_${i}`).join(', *')};`;
  return [
    ...lines,
    ...tables,
    ...(p.states.length ? [held] : []),
    `static void ${mark}_call(long tokens_rows, long wanted_rows, ${which.map(w => `const int32_t *${w}`).join(', ')}) {`,
    '  (void)tokens_rows, (void)wanted_rows, (void)ids, (void)next_ids, (void)positions, (void)sequences, (void)wanted;',
    ...launches,
    '}',
    `static void ${mark}(FILE *out) {`,
    `  arena = (uint8_t *)aligned_alloc(64, ${Math.max(64, p.arena)});`,
    ...states,
    ...fills,
    ...calls,
    '  free(arena);',
    '}',
  ].join('\n');
}

/** Compile all runs as one file, run them, and give for each the results of its calls. HKGAI_CFLAGS adds to gcc's flags, for example -fsanitize=address. */
export function runPrograms(runs: readonly Run[], language: Language = c): readonly (readonly Result[])[] {
  const directory = mkdtempSync(join(tmpdir(), 'hkgai-run-'));
  try {
    const blob = new Blob();
    const bodies = runs.map((r, i) => source(r, `r${i}`, blob, language));
    const text = [
      language.include,
      '#include <stdio.h>',
      '#include <stdlib.h>',
      'static uint8_t *blob, *arena;',
      ...bodies,
      'int main(int count, char **args) {',
      '  (void)count;',
      `  blob = (uint8_t *)aligned_alloc(64, ${Math.max(64, blob.length)});`,
      '  FILE *in = fopen(args[1], "rb"), *out = fopen(args[2], "wb");',
      `  if (fread(blob, 1, ${blob.length}, in) != ${blob.length}) return 1;`,
      ...runs.map((_, i) => `  r${i}(out);`),
      '  return fclose(out);',
      '}',
      '',
    ].join('\n');
    const [file, exe, input, output] = [language.name === 'C' ? 'run.c' : 'run.cpp', 'run', 'in.bin', 'out.bin'].map(n =>
      join(directory, n),
    ) as [string, string, string, string];
    writeFileSync(file, text);
    writeFileSync(input, blob.bytes());
    const more = (process.env.HKGAI_CFLAGS ?? '').split(' ').filter(f => f !== '');
    const build = spawnSync(language.compiler[0] as string, [...language.compiler.slice(1), '-w', ...more, file, '-o', exe, '-lm'], {
      encoding: 'utf8',
    });
    if (build.status !== 0) {
      if (process.env.HKGAI_KEEP_C) writeFileSync(process.env.HKGAI_KEEP_C, text);
      throw new Error(`${language.compiler[0]}: ${String(build.stderr).slice(0, 4000)}`);
    }
    if (process.env.HKGAI_KEEP_C) writeFileSync(process.env.HKGAI_KEEP_C, text);
    const ran = spawnSync(exe, [input, output], { encoding: 'utf8' });
    if (ran.status !== 0)
      throw new Error(`the program ended with ${ran.status ?? ran.signal}: ${ran.stdout.slice(0, 2000)}${ran.stderr.slice(0, 4000)}`);
    const out = readFileSync(output);
    let at = 0;
    return runs.map(({ program: p, calls }) =>
      calls.map(call => {
        const arena = out.subarray(at, at + p.arena);
        at += p.arena;
        const tokens = call.inputs.positions?.length ?? call.inputs.ids?.length ?? 0;
        const sizes = { ...p.graph.limits, tokens, wanted: call.inputs.wanted?.length ?? 0 };
        return (name: string) => {
          const b = p.buffers.find(x => x.name === name);
          if (!b) throw new Error(`${name} is no buffer`);
          const count = b.type.shape.reduce<number>((n, d) => n * sizeOf(d, sizes), 1);
          const bytes = Uint8Array.from(arena.subarray(b.offset, b.offset + 4 * count)).buffer;
          return b.type.storage.element === 'i32' ? new Int32Array(bytes) : new Float32Array(bytes);
        };
      }),
    );
  } finally {
    rmSync(directory, { recursive: true });
  }
}
