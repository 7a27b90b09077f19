// The whole program for an Ascend chip: a file of AscendC a kernel, the host's C over a device of a few calls (hkgai_device.c, here by ACL), and how each
// kernel is started. CANN's tools make the launch functions; where CANN is not, emulator/ stands in for all of it.
import type { Program } from '../../ir/program.js';
import type { Kernel } from '../../ir/tile.js';
import { block, type Code, Names, text } from '../code.js';
import { checkedIn, printHost } from '../device-program.js';
import { pointers } from '../elements.js';
import { kernelsOf, notice } from '../host-program.js';
import type { Chip, SourceFile, WeightFile } from '../target.js';
import { family } from './chips.js';
import { printAscend } from './printer.js';

/** What aclrtGetSocName begins with on a family's chips, and its architecture (platform configuration files of CANN, Short_SoC_version and NpuArch: hicann/runtime, src/platform/platform_config). */
const socs: Readonly<Record<string, { readonly soc: string; readonly arch: number }>> = {
  '910b': { soc: 'Ascend910B', arch: 2201 },
  '910c': { soc: 'Ascend910_93', arch: 2201 },
  '950': { soc: 'Ascend950', arch: 3510 },
};

function start(k: Kernel): Code {
  const names = new Names();
  const args = [
    ...k.params.flatMap(p => pointers(p, names).map(([, name]) => `at(a->${name})`)),
    ...k.sizes.map(s => `(int64_t)a->${names.of('int', s)}`),
  ];
  return block(`static uint32_t start_${k.name}(uint32_t cores, aclrtStream stream, const void *arguments)`, [
    `const struct ${k.name}_arguments *a = static_cast<const struct ${k.name}_arguments *>(arguments);`,
    `return ACLRT_LAUNCH_KERNEL(${k.name})(${['cores', 'stream', ...args].join(', ')});`,
  ]);
}
function printLaunches(kernels: readonly Kernel[], { soc, arch }: { readonly soc: string; readonly arch: number }): SourceFile {
  const code: Code = [
    ...notice('How each kernel of this model is started. The functions aclrtlaunch_NAME are made by the tools of CANN from the kernels.'),
    '#include "hkgai_launch.h"',
    '#include "kernels.h"',
    '#ifdef HKGAI_EMULATED',
    `#define EMULATED_NPU_ARCH ${arch}`,
    '#include "emulated_launch.h"',
    ...kernels.map(k => `#include "kernel_${k.name}.cpp"`),
    '#else',
    ...kernels.map(k => `#include "aclrtlaunch_${k.name}.h"`),
    '#endif',
    '',
    '/** A place in the memory of the device, as whatever pointer a launch function takes it. */',
    block('struct place', ['const void *at;', 'template <class T> operator T *() const { return (T *)at; }'], '};'),
    'static place at(const void *p) { return {p}; }',
    ...kernels.map(start),
    '',
    `extern "C" const char *const hk_soc = ${JSON.stringify(soc)};`,
    block(
      'extern "C" const hk_starter hk_starters[] =',
      kernels.map(k => `start_${k.name},`),
      '};',
    ),
  ];
  return { path: 'launches.cpp', text: text(code) };
}

const build = (soc: string | null): string => `#!/bin/sh
# Builds the executable \`model\` beside this script with CANN: bisheng for the kernels, the system's compilers for the host.
#   build.sh [--soc NAME]
# NAME is the chip as CANN calls it${soc === null ? ', as Ascend910B1: this program is for a family, so it must be said' : ` (${soc} where it is not said)`}.
# ASCEND_HOME_PATH is where CANN is: source its set_env.sh first. HKGAI_OUT is where the executable goes.
set -e
here=$(cd "$(dirname "$0")" && pwd)
soc=\${HKGAI_SOC:-${soc ?? ''}}
while [ $# -gt 0 ]; do
  case "$1" in
    --soc) soc=\${2:-}; shift; [ $# -gt 0 ] && shift ;;
    *) echo "build.sh: $1 is no option; it takes --soc NAME" >&2; exit 2 ;;
  esac
done
if [ -z "$soc" ]; then echo "build.sh: say which chip: --soc NAME, as npu-smi and CANN call it (Ascend910B1)" >&2; exit 2; fi
if [ -z "\${ASCEND_HOME_PATH:-}" ]; then echo "build.sh: ASCEND_HOME_PATH is not set; source set_env.sh of CANN" >&2; exit 8; fi
if ! command -v cmake >/dev/null 2>&1; then echo "build.sh: cmake is not here" >&2; exit 8; fi
out=\${HKGAI_OUT:-$here/model}
work=\${HKGAI_WORK:-$here/build}
cmake -S "$here" -B "$work" -DCMAKE_BUILD_TYPE=Release -DRUN_MODE=npu -DSOC_VERSION="$soc" -DASCEND_CANN_PACKAGE_PATH="$ASCEND_HOME_PATH"
cmake --build "$work" --target model -j "\${HKGAI_JOBS:-4}"
cp "$work/model" "$out.new"
mv "$out.new" "$out"
`;

const here = (dir: string): URL => new URL(dir, import.meta.url);
const own = /\.(h|c|cpp|txt)$/;

export function printProgram(p: Program, files: readonly WeightFile[], chip: Chip): readonly SourceFile[] {
  const soc = socs[family(chip.name)];
  if (soc === undefined) throw new Error(`${chip.name} has no program`);
  const kernels = kernelsOf(p);
  const source = (k: Kernel): SourceFile => ({
    path: `kernel_${k.name}.cpp`,
    text: `${notice(`${k.name} in AscendC.`).join('\n')}\n${printAscend(k).text}`,
  });
  return [
    ...printHost(p, files),
    printLaunches(kernels, soc),
    ...kernels.map(source),
    ...checkedIn([here('../runtime/'), here('../simt/runtime/'), here('./header/'), here('./runtime/')], own),
    { path: 'build.sh', text: build(chip.device?.names.soc?.value ?? null), executable: true },
  ];
}
/** What stands in for the chip and CANN: laid beside the directory `native`, in the folders that includes go by; `emulate.sh` builds both. */
export const emulator = (): readonly SourceFile[] =>
  (
    [
      ['emulator', '../emulator/'],
      ['ascend/emulator', './emulator/'],
      ['ascend/emulator/acl', './emulator/acl/'],
    ] as const
  ).flatMap(([folder, dir]) => checkedIn([here(dir)]).map(f => (f.executable ? f : { ...f, path: `${folder}/${f.path}` })));
