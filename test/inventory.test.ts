// What a release's config says about its tensors, against inventories checked with published totals: names, shapes, dtypes, bytes.
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from '@jest/globals';
import { parseConfig } from '../src/checkpoint/config.js';
import { expectedTensors } from '../src/models/index.js';

const fixtures = fileURLToPath(new URL('../fixtures/', import.meta.url));
interface Inventory {
  readonly tensors: number;
  readonly bytes: number;
  readonly dtypes: Readonly<Record<string, readonly [tensors: number, bytes: number]>>;
  readonly sha256: string;
}
const releases = JSON.parse(readFileSync(`${fixtures}inventory/releases.json`, 'utf8')) as Readonly<Record<string, Inventory>>;
const size: Readonly<Record<string, number>> = { F32: 4, BF16: 2, F16: 2, F8_E4M3: 1, F8_E8M0: 1, I8: 1, I64: 8 };

describe('expected tensors', () => {
  for (const [name, want] of Object.entries(releases))
    it(`${name}: ${want.tensors} tensors`, () => {
      const all = expectedTensors(parseConfig(readFileSync(`${fixtures}configs/${name}.json`, 'utf8'), 'config.json'));
      const dtypes: Record<string, [number, number]> = {};
      for (const t of all) {
        const row = (dtypes[t.dtype] ??= [0, 0]);
        row[0]++;
        row[1] += t.shape.reduce((a, b) => a * b, 1) * size[t.dtype]!;
      }
      expect(Object.fromEntries(Object.entries(dtypes).sort())).toEqual(want.dtypes);
      const lines = all.map(t => `${t.name} ${t.dtype} [${t.shape.join(',')}]`).sort();
      expect(lines.length).toBe(want.tensors);
      expect(
        createHash('sha256')
          .update(`${lines.join('\n')}\n`)
          .digest('hex'),
      ).toBe(want.sha256);
    });
});
