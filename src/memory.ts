// Memory given back between the parts of a long run. V8 lets its heap grow far past what is live while there is room; a compile shares the machine
// and has a bound to keep.
import v8 from 'node:v8';
import vm from 'node:vm';

let collector: (() => void) | null = null;
/** Free what no part of the program holds any more. */
export function collect(): void {
  if (collector === null) {
    v8.setFlagsFromString('--expose-gc');
    collector = vm.runInNewContext('gc') as () => void;
  }
  collector();
}
