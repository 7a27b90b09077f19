// Memory given back between the parts of a long run. V8 lets its heap grow far past what is live while there is room; a compile shares the machine
// and has a bound to keep.
import v8 from 'node:v8';
import vm from 'node:vm';

let collector: (() => void) | null = null;
/** What was held after the last time, and what may be added before it is worth the time again. */
let held = 0;
const worthIt = 8 << 20;
const used = (): number => {
  const { used_heap_size, external_memory } = v8.getHeapStatistics();
  return used_heap_size + external_memory;
};
/** Keep the heap near what is live: V8 would let it double before it looks. For a run that waits for disks more than it computes here. */
export function keepTight(): void {
  v8.setFlagsFromString('--heap-growing-percent=40');
  v8.setFlagsFromString('--semi-space-growth-factor=1'); // young objects: a megabyte, where three of sixteen would stay
}
/** Free what no part of the program holds any more. */
export function collect(): void {
  if (used() < held + worthIt) return;
  if (collector === null) {
    v8.setFlagsFromString('--expose-gc');
    collector = vm.runInNewContext('gc') as () => void;
  }
  collector();
  held = used();
}
