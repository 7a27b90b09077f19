import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from '@jest/globals';
import { parseConfig } from '../src/checkpoint/config.js';
import { openCheckpoint } from '../src/checkpoint/shards.js';
import { buildModel } from '../src/models/index.js';

const fixtures = fileURLToPath(new URL('../fixtures/', import.meta.url));
describe('graphs of the fixtures', () => {
  for (const name of [
    ...readdirSync(`${fixtures}tiny`)
      .filter(n => n !== 'README.md')
      .map(n => `tiny/${n}`),
    'hkgai-nano',
    'hkgai-nano-fp8',
  ])
    it(`${name} builds from its headers`, () => {
      const c = openCheckpoint(`${fixtures}${name}`);
      const { graph, unused } = buildModel(c.config, c.tensors);
      expect(Object.keys(graph.outputs)).toContain('logits');
      expect(unused).toEqual([]);
      const parts = graph.values.flatMap(v => v.origin.parts.flatMap(p => [p.tensor, ...(p.scale ? [p.scale.tensor] : [])]));
      expect(parts.sort()).toEqual([...c.tensors.keys()].sort());
    });
});
describe('graphs from configs alone', () => {
  for (const name of readdirSync(`${fixtures}configs`).filter(n => n.endsWith('.json') && n !== 'DeepSeek-V4.1-Flash.json'))
    it(name, () => {
      const { graph } = buildModel(parseConfig(readFileSync(`${fixtures}configs/${name}`, 'utf8'), name), null);
      expect(graph.outputs.logits?.type.shape[1]).toBe(
        JSON.parse(readFileSync(`${fixtures}configs/${name}`, 'utf8')).vocab_size ??
          JSON.parse(readFileSync(`${fixtures}configs/${name}`, 'utf8')).text_config.vocab_size,
      );
    });
});
describe('names from a config', () => {
  it('cannot break out of generated code', () => {
    const text = JSON.stringify({
      model_type: 'x"\n#include "/etc/passwd"\n//',
      text_config: JSON.parse(readFileSync(`${fixtures}hkgai-nano/config.json`, 'utf8')),
    });
    const { graph } = buildModel(parseConfig(text, 'config.json'), null);
    expect(graph.name).toMatch(/^[A-Za-z0-9_.-]+$/);
  });
});
