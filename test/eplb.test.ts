// EPLB against vectors of the official code (deepseek-ai/EPLB@d52c72d, float32, torch 1.13): places and counts exactly; which of an expert's
// replicas is called the first is left open by its unstable sort, so those are compared as sets.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from '@jest/globals';
import { pack, rebalance, replicate } from '../src/placement/eplb.js';
import { fixtures } from './golden-cases.js';

interface Vector {
  readonly name: string;
  readonly weight: readonly (readonly number[])[];
  readonly num_replicas: number;
  readonly num_groups: number;
  readonly num_nodes: number;
  readonly num_gpus: number;
  readonly phy2log: readonly (readonly number[])[];
  readonly log2phy: readonly (readonly (readonly number[])[])[];
  readonly logcnt: readonly (readonly number[])[];
}
const vectors = JSON.parse(readFileSync(join(fixtures, 'eplb.json'), 'utf8')) as readonly Vector[];
const ascending = (a: readonly number[]): readonly number[] => [...a].sort((x, y) => x - y);

describe('EPLB', () => {
  it('has seven vectors to meet', () => expect(vectors).toHaveLength(7));
  for (const v of vectors)
    it(v.name, () => {
      const b = { replicas: v.num_replicas, groups: v.num_groups, nodes: v.num_nodes, devices: v.num_gpus };
      const got = v.weight.map(w => rebalance(w, b));
      expect(got.map(g => g.physicalToLogical)).toEqual(v.phy2log);
      expect(got.map(g => g.count)).toEqual(v.logcnt);
      expect(got.map(g => g.logicalToPhysical.map(ascending))).toEqual(v.log2phy.map(l => l.map(e => ascending(e.filter(p => p >= 0)))));
      for (const g of got)
        for (const [e, places] of g.logicalToPhysical.entries()) for (const p of places) expect(g.physicalToLogical[p]).toBe(e);
    });
  it('deals equal weights in order, the lower index first', () => {
    expect([...pack([1, 1, 1, 1], 2).pack]).toEqual([0, 1, 0, 1]);
    expect([...pack([1, 2, 3], 3).pack]).toEqual([0, 1, 2]); // one each: as they are
    expect([...replicate([2, 2, 1], 5).of]).toEqual([0, 1, 2, 0, 1]);
  });
  it('counts in float32, as the official code does', () => {
    // 2^24 + 1 is no float32: both experts weigh the same, so the first gets the replica
    expect([...replicate([2 ** 24, 2 ** 24 + 1], 3).of]).toEqual([0, 1, 0]);
  });
  it('refuses packs that cannot be equal', () => expect(() => pack([1, 2, 3], 2)).toThrow('3 items'));
});
