#!/bin/sh
# Builds the program of native/ with a stand-in for the driver and the chip: `model` and libcuda.so.1 beside it, by plain compilers. CC and CXX name
# them; HKGAI_OUT is where the executable goes.
set -e
here=$(cd "$(dirname "$0")" && pwd)
native=$here/native
out=${HKGAI_OUT:-$here/model}
dir=$(dirname "$out")
cc=${CC:-gcc}
cxx=${CXX:-g++}
"$cxx" -std=c++17 -O1 -fPIC -shared -I"$native" -I"$here/simt/emulator" "$here/cuda/emulator/hkgai_emulated_cuda.cpp" -o "$dir/libcuda.so.1"
host="$native/model.c $native/weights.c $native/hkgai_runtime.c $native/hkgai_device.c"
"$cc" -std=gnu17 -O1 -DHKGAI_THREADS=32 -I"$native" $host "$native/main.c" -Wl,-rpath,'$ORIGIN' -o "$out" -ldl -lm
printf 'a stand-in for a cubin: its kernels are in the emulator\n' >"$dir/kernels.sm_80.cubin"
