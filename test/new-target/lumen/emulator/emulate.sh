#!/bin/sh
# Builds the program of native/ with a stand-in for the vendor's interface and the chip.
set -e
here=$(cd "$(dirname "$0")" && pwd)
out=${HKGAI_OUT:-$here/model}
for f in kernels hkgai_device; do
  "${CXX:-g++}" -std=c++17 -O1 -DHKGAI_THREADS=32 -I"$here/native" -I"$here/lumen/emulator" -I"$here/simt/emulator" -c "$here/native/$f.cpp" -o "$out.$f.o"
done
for f in model weights hkgai_runtime main; do "${CC:-gcc}" -std=gnu17 -O1 -I"$here/native" -c "$here/native/$f.c" -o "$out.$f.o"; done
"${CXX:-g++}" "$out".*.o -lm -o "$out"
rm "$out".*.o
