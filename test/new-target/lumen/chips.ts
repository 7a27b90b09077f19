// The chips of this target, from chips/*.json.
import { chipsOf } from '../../../targets/chips.js';

export const chips = chipsOf(import.meta.url, ['l40']);
