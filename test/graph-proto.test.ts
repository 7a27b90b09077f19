import { describe, expect, it } from '@jest/globals';
import { printGraph } from '../ir/print.js';
import { decodeGraph, encodeGraph } from '../src/bundle/graph-proto.js';
import { openCheckpoint } from '../src/checkpoint/shards.js';
import { buildModel } from '../src/models/index.js';
import { runPasses } from '../src/passes/index.js';
import { fixtures, tinyCases } from './golden-cases.js';

describe('the protocol-buffer form', () => {
  for (const name of [...tinyCases.map(n => `tiny/${n}`), 'hkgai-nano', 'hkgai-nano-fp8'])
    it(`${name} comes back as it was`, () => {
      const c = openCheckpoint(`${fixtures}/${name}`);
      const graph = runPasses(buildModel(c.config, c.tensors).graph);
      const back = decodeGraph(encodeGraph(graph));
      expect(printGraph(back)).toBe(printGraph(graph));
      expect(Buffer.from(encodeGraph(back)).equals(Buffer.from(encodeGraph(graph)))).toBe(true);
    });
  it('refuses what is none', () => {
    expect(() => decodeGraph(Uint8Array.of(10, 200, 1, 1))).toThrow(/HK3711/);
    const c = openCheckpoint(`${fixtures}/hkgai-nano`);
    const bytes = encodeGraph(buildModel(c.config, c.tensors).graph);
    expect(() => decodeGraph(bytes.subarray(0, bytes.length - 7))).toThrow(/HK3711/);
  });
});
