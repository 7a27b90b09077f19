#!/bin/sh
# Builds `model` and its kernels: code for each architecture, PTX for those to come, and build-report.txt with the registers, spills and shared memory
# of every kernel. NVCC and CC name the compilers; HKGAI_ARCHS the architectures (80 90 100 120), HKGAI_PTX those of PTX (80 90); HKGAI_OUT is where
# the executable goes, kernels beside it. No header and no library of the vendor is needed for the host's part, and no device for any of it.
set -e
here=$(cd "$(dirname "$0")" && pwd)
out=${HKGAI_OUT:-$here/model}
dir=$(cd "$(dirname "$out")" && pwd)
nvcc=${NVCC:-nvcc}
if ! command -v "$nvcc" >/dev/null 2>&1; then
  echo "build.sh: nvcc was not found; install the CUDA toolkit, or name it in NVCC" >&2
  exit 8
fi
cc=${CC:-}
if [ -z "$cc" ]; then
  for c in cc gcc clang; do if command -v "$c" >/dev/null 2>&1; then cc=$c; break; fi; done
fi
if [ -z "$cc" ]; then
  echo "build.sh: no C compiler found; install gcc or clang, or name one in CC" >&2
  exit 8
fi
known=$("$nvcc" --list-gpu-code)
cd "$here" # relative names, so that the same bytes come out in any directory
flags="-std=c++17 -O3 -diag-suppress=177 -I."
: >"$dir/build-report.new"
for a in ${HKGAI_ARCHS:-80 90 100 120}; do
  if ! echo "$known" | grep -qx "sm_$a"; then echo "build.sh: this nvcc does not know sm_$a; it is left out" >&2; continue; fi
  "$nvcc" $flags -arch=sm_$a -cubin --resource-usage kernels.cu -o "$dir/kernels.sm_$a.new" 2>"$dir/build-log.new" || { cat "$dir/build-log.new" >&2; exit 1; }
  mv "$dir/kernels.sm_$a.new" "$dir/kernels.sm_$a.cubin"
  awk -v arch="sm_$a" '
    /Compiling entry function/ { split($0, q, "\047"); name = q[2] }
    /bytes stack frame/ { stack = $1; stores = $5; loads = $9 }
    /Used [0-9]+ registers/ {
      registers = shared = 0
      for (i = 1; i <= NF; i++) { if ($i ~ /^registers/) registers = $(i - 1); if ($i ~ /^smem/) shared = $(i - 2) }
      printf "%s %s: %d registers, %d bytes spilled, %d bytes of stack, %d bytes of shared memory\n", arch, name, registers, stores + loads, stack, shared
    }' "$dir/build-log.new" | LC_ALL=C sort >>"$dir/build-report.new"
done
for a in ${HKGAI_PTX:-80 90}; do
  if ! echo "$known" | grep -qx "sm_$a"; then continue; fi
  "$nvcc" $flags -arch=compute_$a -ptx kernels.cu -o "$dir/kernels.ptx.new"
  mv "$dir/kernels.ptx.new" "$dir/kernels.compute_$a.ptx"
done
rm -f "$dir/build-log.new"
mv "$dir/build-report.new" "$dir/build-report.txt"
"$cc" -std=gnu17 -O2 ${HKGAI_CFLAGS:-} -I. model.c weights.c hkgai_runtime.c hkgai_device.c main.c -o "$out.new" -ldl -lm
mv "$out.new" "$out"
