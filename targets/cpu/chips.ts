// The chips of this target, from chips/*.json. Processors differ in nothing that an engine or the program needs to know before it is built.
import { chipsOf } from '../chips.js';

export const chips = chipsOf(import.meta.url, ['generic', 'xeon', 'epyc', 'kunpeng-920']);
