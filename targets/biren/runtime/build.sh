#!/bin/sh
# Builds `model` with Biren's compiler, for br1xx. SUPA_SDK names the SDK's directory (usual: /usr/local/birensupa/sdk/latest); BRCC and CC the compilers;
# HKGAI_ARCH the chip as brcc calls it; HKGAI_OUT is where the executable goes. No device is needed to build, as far as is known.
set -e
here=$(cd "$(dirname "$0")" && pwd)
out=${HKGAI_OUT:-$here/model}
dir=$(cd "$(dirname "$out")" && pwd)
sdk=${SUPA_SDK:-/usr/local/birensupa/sdk/latest}
brcc=${BRCC:-}
if [ -z "$brcc" ]; then
  if command -v brcc >/dev/null 2>&1; then brcc=brcc; else brcc=$sdk/brcc/bin/brcc; fi
fi
if ! command -v "$brcc" >/dev/null 2>&1; then
  echo "build.sh: brcc was not found; install Biren's SDK and name it in SUPA_SDK, or the compiler in BRCC" >&2
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
arch=--supa-gpu-arch=${HKGAI_ARCH:-br100}
work=$dir/build.$$
mkdir "$work"
trap 'rm -rf "$work"' EXIT
cd "$here"
for f in kernels hkgai_device; do
  "$brcc" -std=c++17 -O2 -fPIC "$arch" --supa-path="$sdk/supa" -I"$sdk/supa/include" -I. -c $f.su -o "$work/$f.o"
done
for f in model weights hkgai_runtime main; do
  "$cc" -std=gnu17 -O2 -fPIC ${HKGAI_CFLAGS:-} -I. -c $f.c -o "$work/$f.o"
done
"$brcc" --supa-link "$arch" --supa-path="$sdk/supa" "$work/kernels.o" "$work/hkgai_device.o" "$work/model.o" "$work/weights.o" "$work/hkgai_runtime.o" \
  "$work/main.o" -L"$sdk/supa/lib" -lsupa-runtime -Wl,-rpath,"$sdk/supa/lib" -lm -o "$work/model"
mv "$work/model" "$out"
