#!/bin/sh
# Builds the program of native/ for an emulated device: the same sources by plain compilers, acl_emulator.cpp in place of libascendcl and
# kernel_operator.h in place of AscendC. CC and CXX name the compilers, HKGAI_CFLAGS adds to their flags; HKGAI_OUT is where the executable goes.
set -e
here=$(cd "$(dirname "$0")" && pwd)
native=$here/native
stand=$here/ascend/emulator
out=${HKGAI_OUT:-$here/model}
cc=${CC:-gcc}
cxx=${CXX:-g++}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
exact="-Werror=incompatible-pointer-types -Werror=int-conversion"
for f in model weights hkgai_runtime hkgai_device main; do
  "$cc" -std=gnu17 -O1 $exact ${HKGAI_CFLAGS:-} -I"$native" -I"$stand" -c "$native/$f.c" -o "$work/$f.o"
done
"$cxx" -std=c++17 -O1 -DHKGAI_EMULATED ${HKGAI_CFLAGS:-} -I"$native" -I"$stand" -c "$native/launches.cpp" -o "$work/launches.o"
"$cxx" -std=c++17 -O1 ${HKGAI_CFLAGS:-} -I"$stand" -c "$stand/acl_emulator.cpp" -o "$work/acl_emulator.o"
"$cxx" "$work"/*.o -o "$out.new" -lm
mv "$out.new" "$out"
