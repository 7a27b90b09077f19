// What this machine has: what can be built and run here, and what is missing for it.
import { spawnSync } from 'node:child_process';
import { readFileSync, statfsSync } from 'node:fs';
import { arch, availableParallelism, cpus, freemem, platform, release, totalmem } from 'node:os';

export interface Tool {
  readonly name: string;
  /** First line of what it says of its version; null where it is not there. */
  readonly version: string | null;
  /** What it is needed for. */
  readonly use: string;
}
export interface Machine {
  readonly node: string;
  readonly system: string;
  readonly cpu: string;
  readonly cores: number;
  /** Vector units by the names that the CPU target's header knows. */
  readonly vectors: readonly string[];
  readonly memory: { readonly total: number; readonly free: number };
  /** Bytes free where the command was called. */
  readonly disk: number;
  readonly tools: readonly Tool[];
}

const tools: readonly (readonly [name: string, use: string, flag: string])[] = [
  ['cc', 'builds the CPU program', '--version'],
  ['gcc', 'builds the CPU program', '--version'],
  ['clang', 'builds the CPU program', '--version'],
  ['g++', 'runs the emulators of the other chips', '--version'],
  ['nvcc', 'builds CUDA kernels', '--version'],
  ['brcc', 'builds Biren kernels', '--version'],
  ['bisheng', 'builds Ascend kernels', '--version'],
];
// Linux names of cpu flags -> names of the units
const flags: Readonly<Record<string, string>> = {
  avx2: 'AVX2',
  fma: 'FMA',
  f16c: 'F16C',
  avx512f: 'AVX-512F',
  avx512bw: 'AVX-512BW',
  avx512_vnni: 'AVX-512 VNNI',
  avx_vnni: 'AVX VNNI',
  avx512_bf16: 'AVX-512 BF16',
  amx_tile: 'AMX',
  amx_int8: 'AMX INT8',
  amx_bf16: 'AMX BF16',
  asimd: 'NEON',
  asimddp: 'NEON dot product',
  i8mm: 'NEON I8MM',
  sve: 'SVE',
};

/** The first line with a version in it that a tool prints; null where the tool is not there. */
export function toolVersion(name: string, flag = '--version'): string | null {
  const ran = spawnSync(name, [flag], { encoding: 'utf8', timeout: 20_000 });
  if (ran.error || ran.status !== 0) return null;
  const lines = ran.stdout
    .split('\n')
    .map(l => l.trim())
    .filter(l => l !== '');
  return lines.find(l => /\brelease \d|\bV\d+\.\d/.test(l)) ?? lines[0] ?? '';
}

function vectorUnits(): readonly string[] {
  try {
    const text = readFileSync('/proc/cpuinfo', 'utf8');
    const line = /^(?:flags|Features)\s*:\s*(.*)$/m.exec(text)?.[1] ?? '';
    return line.split(/\s+/).flatMap(f => (Object.hasOwn(flags, f) ? [flags[f]!] : []));
  } catch {
    return [];
  }
}

export function examine(directory = '.'): Machine {
  const disk = statfsSync(directory);
  return {
    node: process.version,
    system: `${platform()} ${release()} ${arch()}`,
    cpu: cpus()[0]?.model.trim() ?? 'unknown',
    cores: availableParallelism(),
    vectors: [...new Set(vectorUnits())],
    memory: { total: totalmem(), free: freemem() },
    disk: disk.bavail * disk.bsize,
    tools: tools.map(([name, use, flag]) => ({ name, use, version: toolVersion(name, flag) })),
  };
}

/** The C compiler to build with: $CC, cc, gcc or clang; null where there is none. */
export function compiler(): string | null {
  for (const name of [process.env.CC, 'cc', 'gcc', 'clang']) if (name && toolVersion(name) !== null) return name;
  return null;
}
