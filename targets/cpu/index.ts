// The CPU target: C17 and POSIX threads, built by the system's compiler. The default that runs anywhere.
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Program } from '../../ir/program.js';
import type { SourceFile, Target, WeightFile } from '../target.js';
import { chips } from './chips.js';
import { cpuEngines } from './engine.js';
import { printC } from './printer.js';
import { printProgram } from './program.js';

const here = fileURLToPath(new URL('.', import.meta.url));
/** The checked-in headers and runtime, by their names. */
const checkedIn = (): readonly SourceFile[] =>
  ['header', 'runtime', '../runtime'].flatMap(dir =>
    readdirSync(join(here, dir))
      .filter(f => /\.[ch]$/.test(f))
      .sort()
      .map(f => ({ path: f, text: readFileSync(join(here, dir, f), 'utf8') })),
  );

const build = `#!/bin/sh
# Builds the executable \`model\` beside this script. CC names the compiler; HKGAI_MARCH the processor, where it is not this machine's
# (x86-64-v3, x86-64-v4, armv8.2-a+dotprod, ...); HKGAI_CFLAGS adds to the flags; HKGAI_OUT is where the executable goes.
set -e
here=$(cd "$(dirname "$0")" && pwd)
cc=\${CC:-}
if [ -z "$cc" ]; then
  for c in cc gcc clang; do if command -v "$c" >/dev/null 2>&1; then cc=$c; break; fi; done
fi
if [ -z "$cc" ]; then
  echo "build.sh: no C compiler found; install gcc or clang, or name one in CC" >&2
  exit 8
fi
if [ -n "\${HKGAI_MARCH:-}" ]; then march="-march=$HKGAI_MARCH"; else march="-march=native"; fi
out=\${HKGAI_OUT:-$here/model}
if ! echo 'int main(void) { return 0; }' | "$cc" $march -x c - -o "$out.try" >/dev/null 2>&1; then march=""; fi
rm -f "$out.try"
"$cc" -std=gnu17 -O3 $march -ffp-contract=fast -fno-math-errno -fno-trapping-math -fopenmp-simd -pthread \${HKGAI_CFLAGS:-} -I"$here" \\
  "$here/model.c" "$here/weights.c" "$here/kernels.c" "$here/hkgai_runtime.c" "$here/hkgai_pool.c" "$here/main.c" -o "$out.new" -lm
mv "$out.new" "$out"
`;

export const cpu: Target = {
  name: 'cpu',
  about: 'C17 and POSIX threads for any processor; AVX2, AVX-512 (VNNI, BF16), AMX and NEON (sdot) where the compiler has them',
  language: 'C17',
  chips,
  proved: 'built and run on the machine that tests it, against the reference and recorded logits',
  objection: () => null,
  print: k => `#include "hkgai_tile.h"\n\n${printC(k)}`,
  engines: cpuEngines,
  native: (program: Program, files: readonly WeightFile[]): readonly SourceFile[] => [
    ...printProgram(program, files),
    ...checkedIn(),
    { path: 'build.sh', text: build, executable: true },
  ],
};
