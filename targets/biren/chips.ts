// The chips of this target, from chips/*.json, and which of the two generations a name belongs to.
import { chipsOf, familyOf } from '../chips.js';

export const chips = chipsOf(import.meta.url, ['br1xx', 'br2xx', 'br106b', 'br106c', 'br106m', 'br110', 'br166']);
export const family = (chip: string): string => familyOf(chips, chip);
