#!/bin/sh
# Builds the program of native/ with a stand-in for the vendor's runtime and the chip, by plain compilers. CC and CXX name them; HKGAI_OUT is where the
# executable goes.
set -e
here=$(cd "$(dirname "$0")" && pwd)
native=$here/native
out=${HKGAI_OUT:-$here/model}
work=$out.objects
cc=${CC:-gcc}
cxx=${CXX:-g++}
mkdir -p "$work"
for f in kernels hkgai_device; do
  "$cxx" -std=c++17 -O1 -DHKGAI_THREADS=32 -I"$native" -I"$here/biren/emulator" -I"$here/simt/emulator" -x c++ -c "$native/$f.su" -o "$work/$f.o"
done
for f in model weights hkgai_runtime main; do
  "$cc" -std=gnu17 -O1 -I"$native" -c "$native/$f.c" -o "$work/$f.o"
done
"$cxx" "$work/kernels.o" "$work/hkgai_device.o" "$work/model.o" "$work/weights.o" "$work/hkgai_runtime.o" "$work/main.o" -rdynamic -o "$out" -ldl -lm
rm -r "$work"
