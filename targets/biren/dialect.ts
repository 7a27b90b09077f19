// SUPA C++'s words. General mode only: what is shared is a block's, a barrier is a block's, shuffles are a whole warp's (and not used).
import type { Dialect } from '../simt.js';

export const supa: Dialect = {
  include: '#include "hkgai_tile.suh"',
  kernel: 'extern "C" __global__ void',
  shared: '__shared__',
  barrier: '__syncthreads();',
  block: 'blockIdx.x',
};
