// docs/estimates.md: how estimates fare against published measurements, written from the estimates themselves (UPDATE=1 npm test -- test/estimates.test.ts).
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from '@jest/globals';
import { Bench, type Compared, median, off, type Skipped } from '../bench/published.js';
import { assumptions, calibratedOn } from '../src/plan/assumptions.js';

const root = fileURLToPath(new URL('..', import.meta.url));
const page = `${root}/docs/estimates.md`;
const [begin, end] = ['<!-- compared: written by test/estimates.test.ts -->', '<!-- /compared -->'];

const bench = new Bench(root);
const all = bench.rows.map(r => bench.compare(r));
const compared = all.filter((c): c is Compared => 'ratio' in c);
const skipped = all.filter((c): c is Skipped => 'why' in c);
const calibrated = compared.filter(c => (calibratedOn as readonly string[]).includes(c.of.id));
const tested = compared.filter(c => !calibrated.includes(c));
const worst = (list: readonly Compared[]): Compared => list.reduce((a, b) => (off(b) > off(a) ? b : a));
const figure = (n: number): string => (n >= 100 ? n.toFixed(0) : n >= 10 ? n.toFixed(1) : n.toFixed(2));
const summary = (name: string, list: readonly Compared[]): string => {
  const w = worst(list);
  const near = list.filter(c => off(c) <= 1.5).length;
  return `| ${name} | ${list.length} | ${median(list.map(off)).toFixed(2)} | ${near} | ${off(w).toFixed(2)} (\`${w.of.id}\`) |`;
};
const kinds = (list: readonly Compared[]): readonly string[] => {
  const names = [...new Set(list.map(c => `${c.of.chip}, ${c.of.phase}`))].sort();
  return names.map(n => {
    const of = list.filter(c => `${c.of.chip}, ${c.of.phase}` === n);
    return `| ${n} | ${of.length} | ${median(of.map(c => c.ratio)).toFixed(2)} | ${median(of.map(off)).toFixed(2)} |`;
  });
};
const text = [
  begin,
  '',
  '| measurements | number | median off by a factor of | within 1.5 | worst |',
  '| --- | --- | --- | --- | --- |',
  summary('calibrated on', calibrated),
  summary('tested on', tested),
  summary('all', compared),
  '',
  'By chip and phase, of all: the median of estimated over measured speed (above 1 is too fast), and of the factor.',
  '',
  '| chip, phase | number | speed | factor |',
  '| --- | --- | --- | --- |',
  ...kinds(compared),
  '',
  'Each, estimated over measured speed:',
  '',
  '| id | measured | estimated | unit | speed | |',
  '| --- | --- | --- | --- | --- | --- |',
  ...compared.map(
    c =>
      `| \`${c.of.id}\` | ${figure(c.of.value)} | ${figure(c.estimated)} | ${c.of.unit} | ${c.ratio.toFixed(2)} | ${calibrated.includes(c) ? 'calibrated on' : ''} |`,
  ),
  '',
  'Not compared:',
  '',
  ...skipped.map(s => `- \`${s.of.id}\`: ${s.why}.`),
  '',
  'The constants:',
  '',
  '| name | value | | from |',
  '| --- | --- | --- | --- |',
  ...Object.entries(assumptions).map(
    ([name, a]) => `| ${name} | ${a.value}${a.unit ? ` ${a.unit}` : ''} | ${a.about} | ${a.source.replace(': docs/estimates.md', '')} |`,
  ),
  '',
  end,
].join('\n');

describe('estimates against published measurements', () => {
  it('are on the page as they are', () => {
    const before = readFileSync(page, 'utf8');
    const from = before.indexOf(begin);
    const to = before.indexOf(end);
    expect([from >= 0, to > from]).toEqual([true, true]);
    const after = before.slice(0, from) + text + before.slice(to + end.length);
    if (process.env.UPDATE) writeFileSync(page, after);
    expect(
      readFileSync(page, 'utf8') === after ? '' : 'docs/estimates.md is out of date: UPDATE=1 npm test -- test/estimates.test.ts',
    ).toBe('');
  });
  it('enough of them, on both sides, and none that is calibrated on is tested', () => {
    expect(tested.length).toBeGreaterThanOrEqual(10);
    expect(calibrated.map(c => c.of.id)).toEqual([...calibratedOn]);
    expect(new Set(compared.map(c => c.of.chip)).size).toBeGreaterThanOrEqual(5);
    for (const c of compared) expect([c.of.id, c.estimated > 0 && Number.isFinite(c.estimated)]).toEqual([c.of.id, true]);
  });
});
