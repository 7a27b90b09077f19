// Graphs at full size from headers alone: built, verified, lowered, printed. What it takes is printed, memory is held to its bound.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, it } from '@jest/globals';
import { printGraph } from '../ir/print.js';
import { Refusal } from '../ir/problem.js';
import { verify } from '../ir/verify.js';
import { openCheckpoint } from '../src/checkpoint/shards.js';
import { writeHeaders } from '../src/models/header-only.js';
import { buildModel } from '../src/models/index.js';

const configs = fileURLToPath(new URL('../fixtures/configs/', import.meta.url));
const work = mkdtempSync(join(tmpdir(), 'hkgai-headers-'));
afterAll(() => rmSync(work, { recursive: true }));

describe('full-size checkpoints of headers', () => {
  for (const name of [
    'DeepSeek-V3',
    'DeepSeek-R1',
    'DeepSeek-V3.1',
    'DeepSeek-V3.2',
    'DeepSeek-V4-Flash',
    'DeepSeek-V4-Pro',
    'Kimi-K2-Instruct',
    'DeepSeek-V2',
    'DeepSeek-V2-Lite',
    'DeepSeek-R1-Distill-Qwen-1.5B',
    'DeepSeek-R1-Distill-Qwen-7B',
    'DeepSeek-R1-Distill-Qwen-14B',
    'DeepSeek-R1-Distill-Qwen-32B',
    'DeepSeek-R1-Distill-Llama-8B',
    'DeepSeek-R1-Distill-Llama-70B',
  ])
    it(name, () => {
      const dir = join(work, name);
      const { tensors } = writeHeaders(join(configs, `${name}.json`), dir);
      expect(() => openCheckpoint(dir)).toThrow(Refusal);
      const start = performance.now();
      const before = process.memoryUsage().rss;
      const c = openCheckpoint(dir, { headersOnly: true });
      const { graph } = buildModel(c.config, c.tensors);
      expect(verify(graph)).toEqual([]);
      const text = printGraph(graph);
      const seconds = (performance.now() - start) / 1000;
      const grown = (process.memoryUsage().rss - before) / 2 ** 20;
      process.stderr.write(
        `    ${name}: ${tensors} tensors, ${graph.values.length} values, ${(text.length / 2 ** 20).toFixed(1)} MiB of text, ${seconds.toFixed(2)} s, ${grown.toFixed(0)} MiB more\n`,
      );
      expect(c.tensors.size).toBe(tensors);
      expect(grown).toBeLessThan(1500);
      rmSync(dir, { recursive: true });
    });
});
