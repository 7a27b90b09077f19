// Lumen's side of the verbs: the words, then the shared ones. lumen.h is the vendor's, or the emulator's, which has the words too.
#pragma once
#include <lumen.h>
#ifdef __LUMEN__
#include <cmath>
#include <cstdint>
#include <cstring>
#define DEVICE __on_card__
#define SHARED __near__
#define THREAD ((long)lu_worker())
#define THREADS ((long)lu_workers())
#define BARRIER lu_meet()
template <class T, int N> struct tile {
  T v[N];
  DEVICE T &operator[](long i) { return v[i]; }
  DEVICE const T *data(long from) { return v + from; }
};
#endif
#include "hkgai_simt.h"
