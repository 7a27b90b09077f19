import { readdirSync, readFileSync } from 'node:fs';
import { describe, expect, it } from '@jest/globals';
import { parseConfig } from '../src/checkpoint/config.js';

const dir = new URL('../fixtures/configs/', import.meta.url);
describe('config.json', () => {
  for (const file of readdirSync(dir).sort()) {
    it(`reads ${file}`, () => {
      const text = readFileSync(new URL(file, dir), 'utf8');
      if (file === 'DeepSeek-V4.1-Flash.json') expect(() => parseConfig(text, file)).toThrow(/HK4001/);
      else {
        const c = parseConfig(text, file);
        const raw = JSON.parse(text);
        const t = raw.text_config ?? raw;
        expect([c.hidden, c.layers, c.heads, c.vocab]).toEqual([t.hidden_size, t.num_hidden_layers, t.num_attention_heads, t.vocab_size]);
      }
    });
  }
});
