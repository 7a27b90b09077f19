// Every op as a graph of its own, lowered, printed in C and run, against its meaning in plain loops.
import { beforeAll, describe, it } from '@jest/globals';
import { cases, check, prepare } from './kernel-cases.js';
import { type Result, runPrograms } from './run-program.js';

describe('kernels', () => {
  const ready = cases.map((c, i) => prepare(c, i));
  let results: readonly (readonly Result[])[] = [];
  beforeAll(() => {
    results = runPrograms(ready.map(r => r.run));
  });
  for (const [i, r] of ready.entries()) it(r.case.name, () => check(r, results[i] as readonly Result[]));
});
