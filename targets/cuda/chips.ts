// The chips of this target, from chips/*.json.
import { chipsOf } from '../chips.js';

export const chips = chipsOf(import.meta.url, [
  'generic',
  'a100-40g',
  'a100-80g',
  'h20',
  'h100',
  'h800',
  'h200',
  'b200',
  'gb200',
  'rtx4090',
]);
