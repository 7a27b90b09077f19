// Lumen C++'s words: a vendor that does not exist, whose language says the same things otherwise.
import type { Dialect } from '../../../targets/simt.js';

export const lumen: Dialect = {
  include: '#include "hkgai_lumen.h"',
  kernel: 'extern "C" __entry__ void',
  shared: '__near__',
  barrier: 'lu_meet();',
  block: 'lu_group()',
};
