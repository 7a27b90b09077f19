// The one table of targets.
import { ascend } from './ascend/index.js';
import { biren } from './biren/index.js';
import { cpu } from './cpu/index.js';
import { cuda } from './cuda/index.js';
import type { Target } from './target.js';

export const targets: Readonly<Record<string, Target>> = { cpu, cuda, ascend, biren };
