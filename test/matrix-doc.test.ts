// docs/matrix.md is written from bench/matrix.json, whose cells are of models and storages that there are and none of them beyond its tolerance.
// bench/matrix.ts fills both; UPDATE=1 npm test -- test/matrix-doc.test.ts writes the page alone.
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { expect, it } from '@jest/globals';
import { aims, bad, type Cells, keyOf, modelsIn, page, storages, tolerance } from '../bench/matrix-page.js';
import { fixtures } from './golden-cases.js';

const at = (file: string): string => fileURLToPath(new URL(`../${file}`, import.meta.url));
const cells = JSON.parse(readFileSync(at('bench/matrix.json'), 'utf8')) as Cells;
const models = modelsIn(fixtures);

it('the page says what the cells say', () => {
  const want = page(models, cells);
  if (process.env.UPDATE) writeFileSync(at('docs/matrix.md'), want);
  expect(readFileSync(at('docs/matrix.md'), 'utf8')).toBe(want);
});
it('cells are of models, targets and storages that there are', () => {
  const known = new Set(aims.flatMap(a => storages.flatMap(s => models.map(m => keyOf(a, s, m.name)))));
  expect(Object.keys(cells).filter(k => !known.has(k))).toEqual([]);
});
it('no cell failed or is beyond its tolerance', () => {
  expect(bad(cells)).toEqual([]);
});
it('a figure beyond the tolerance, one that is no number and a failure are seen', () => {
  const run = {
    state: 'run',
    aim: 'cpu',
    recipe: 'bf16',
    judge: 'official',
    coded: null,
    prompt: 0,
    steps: tolerance,
    compiler: 'cc',
    node: 'v20',
  } as const;
  const failed = { state: 'failed', aim: 'cpu', recipe: 'bf16', why: 'it ended' } as const;
  const made: Cells = {
    a: run,
    b: { ...run, steps: tolerance * 1.01 },
    c: { ...run, prompt: Number.NaN },
    d: failed,
    e: { state: 'none', why: 'so' },
  };
  expect(bad(made)).toEqual(['b', 'c', 'd']);
});
