// The one table of targets.
import { cpu } from './cpu/index.js';
import type { Target } from './target.js';

export const targets: Readonly<Record<string, Target>> = { cpu };
