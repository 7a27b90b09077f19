#!/bin/sh
# Builds `model` with the vendor's compiler, lucc.
set -e
cd "$(dirname "$0")"
out=${HKGAI_OUT:-$PWD/model}
command -v lucc >/dev/null 2>&1 || { echo "build.sh: lucc was not found" >&2; exit 8; }
lucc -O2 kernels.cpp hkgai_device.cpp model.c weights.c hkgai_runtime.c main.c -lm -o "$out"
