// CUDA's words.
import type { Dialect } from '../simt.js';

export const cuda: Dialect = {
  include: '#include "hkgai_tile.cuh"',
  kernel: 'extern "C" __global__ void',
  shared: '__shared__',
  barrier: '__syncthreads();',
  block: 'blockIdx.x',
};
