// The chips of this target, from chips/*.json, and which of them a name behaves as.
import { chipsOf, familyOf } from '../chips.js';

export const chips = chipsOf(import.meta.url, ['910b', '910c', '950', '310p', '910b1', '910b2', '910b3', '910b4', '950pr', '950dt']);
export const family = (chip: string): string => familyOf(chips, chip);
