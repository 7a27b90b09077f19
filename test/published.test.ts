// bench/published.json: measurements of others that estimates are held against. Each row is whole and fits itself; docs/estimates.md lists them all
// (UPDATE=1 npm test -- test/published.test.ts rewrites its list).
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { expect, it } from '@jest/globals';
import { resolveTarget } from '../src/compile.js';
import { faultsOf, type Schema } from '../targets/chips.js';

interface Measurement {
  readonly id: string;
  readonly model: string;
  /** How the weights stand: fp8 is DeepSeek's own. */
  readonly checkpointForm: string;
  readonly chip: string;
  /** As software counts them: dies where a package shows two. */
  readonly devices: number;
  readonly nodes: number;
  readonly parallel: { readonly tp: number; readonly dp: number; readonly pp: number; readonly ep: number } | null;
  readonly engine: string;
  readonly phase: 'prefill' | 'decode';
  /** Requests at once of one device. */
  readonly batchPerDevice: number | null;
  /** Tokens that a request has in its cache, on average. */
  readonly contextTokens: number | null;
  readonly inputTokens: number | null;
  readonly value: number;
  readonly unit: string;
  /** Whether drafts are in the figure; null where it is not said. */
  readonly mtp: boolean | null;
  readonly confidence: 'high' | 'medium' | 'low';
  readonly source: string;
  /** The figure as it was published, and what was not said with it. */
  readonly note: string;
}
const here = (f: string): string => fileURLToPath(new URL(`../${f}`, import.meta.url));
const all = JSON.parse(readFileSync(here('bench/published.json'), 'utf8')) as readonly Measurement[];
const units: Readonly<Record<string, string>> = {
  'tokens/s/device': 'tokens a second, of one device',
  'tokens/s/user': 'tokens a second that one request gets',
  'tokens/s': 'tokens a second of all devices together',
  'ms/token': 'milliseconds between two tokens of a request',
};

const count: Schema = { type: 'number', exclusiveMinimum: 0 };
const known: Schema = { anyOf: [{ type: 'null' }, count] };
const text: Schema = { type: 'string', minLength: 1 };
const fields: Readonly<Record<keyof Measurement, Schema>> = {
  id: { type: 'string', pattern: '^[a-z0-9-]+$' },
  model: { type: 'string', pattern: '^DeepSeek-' },
  checkpointForm: text,
  chip: text,
  devices: count,
  nodes: count,
  parallel: {
    anyOf: [
      { type: 'null' },
      {
        type: 'object',
        required: ['tp', 'dp', 'pp', 'ep'],
        additionalProperties: false,
        properties: { tp: count, dp: count, pp: count, ep: count },
      },
    ],
  },
  engine: text,
  phase: { anyOf: [{ const: 'prefill' }, { const: 'decode' }] },
  batchPerDevice: known,
  contextTokens: known,
  inputTokens: known,
  value: count,
  unit: { anyOf: Object.keys(units).map(u => ({ const: u })) },
  mtp: { anyOf: [{ type: 'null' }, { type: 'boolean' }] },
  confidence: { anyOf: ['high', 'medium', 'low'].map(c => ({ const: c })) },
  source: text,
  note: text,
};
const schema: Schema = { type: 'object', required: Object.keys(fields), additionalProperties: false, properties: fields };

it('each row is whole, once, and of a chip that is known', () => {
  expect(all.length).toBeGreaterThan(40);
  expect(new Set(all.map(m => m.id)).size).toBe(all.length);
  for (const m of all) {
    expect([m.id, faultsOf(m, schema)]).toEqual([m.id, []]);
    const d = resolveTarget(m.chip).chip.device;
    expect([m.id, d !== null && d !== undefined]).toEqual([m.id, true]);
  }
});
it('each row fits itself: ranks are devices, nodes hold them, time and rate agree', () => {
  let timed = 0;
  for (const m of all) {
    const per = resolveTarget(m.chip).chip.device?.perNode?.value;
    if (per !== undefined) expect([m.id, Math.ceil(m.devices / per)]).toEqual([m.id, m.nodes]);
    if (m.parallel) {
      expect([m.id, m.parallel.tp * m.parallel.dp * m.parallel.pp]).toEqual([m.id, m.devices]);
      expect([m.id, m.devices % m.parallel.ep]).toEqual([m.id, 0]);
    }
    if (m.unit === 'tokens/s/user') expect([m.id, m.batchPerDevice === null || m.batchPerDevice * m.devices === 1]).toEqual([m.id, true]);
    const ms = /\b(?:at )?(\d+(?:\.\d+)?) ms a token/.exec(m.note)?.[1];
    if (ms !== undefined && m.phase === 'decode' && m.batchPerDevice !== null) {
      timed++;
      const rate = (m.batchPerDevice / Number(ms)) * 1000;
      expect([m.id, Math.abs(rate / m.value - 1) < 0.01]).toEqual([m.id, true]);
    }
  }
  expect(timed).toBeGreaterThan(10);
});
it('covers both phases, several vendors, generations and forms', () => {
  const of = (f: (m: Measurement) => string): number => new Set(all.map(f)).size;
  expect(of(m => m.phase)).toBe(2);
  expect(of(m => m.chip.split(':')[0]!)).toBeGreaterThanOrEqual(3);
  expect(of(m => m.chip)).toBeGreaterThanOrEqual(8);
  expect(of(m => m.model)).toBeGreaterThanOrEqual(6);
  expect(of(m => m.checkpointForm)).toBeGreaterThanOrEqual(5);
});

const page = here('docs/estimates.md');
const [open, close] = ['<!-- published: written from bench/published.json -->', '<!-- /published -->'];
const cell = (v: number | null): string => (v === null ? '' : String(v));
function list(): string {
  const row = (cells: readonly string[]): string => `| ${cells.map(c => c.replaceAll('|', '\\|')).join(' | ')} |`;
  const head = [
    'id',
    'model, weights',
    'devices',
    'tp dp pp ep',
    'engine',
    'requests a device',
    'context',
    'prompt',
    'figure',
    'drafts',
    'trust',
  ];
  const rows = all.map(m => [
    `\`${m.id}\``,
    `${m.model} ${m.checkpointForm}`,
    `${m.devices} x ${m.chip}`,
    m.parallel ? [m.parallel.tp, m.parallel.dp, m.parallel.pp, m.parallel.ep].join(' ') : '',
    m.engine,
    cell(m.batchPerDevice),
    cell(m.contextTokens),
    cell(m.inputTokens),
    `${m.phase} ${m.value} ${m.unit}`,
    m.mtp === null ? 'not said' : m.mtp ? 'yes' : 'no',
    m.confidence,
  ]);
  const notes = all.map(m => `- \`${m.id}\`: ${m.note} (${m.source})`);
  return [open, '', row(head), row(head.map(() => '---')), ...rows.map(row), '', ...notes, '', close].join('\n');
}
it('docs/estimates.md lists them', () => {
  if (process.env.UPDATE) {
    const before = existsSync(page) ? readFileSync(page, 'utf8') : first;
    const [a, b] = [before.indexOf(open), before.indexOf(close)];
    writeFileSync(
      page,
      a < 0 || b < 0 ? `${before.trimEnd()}\n\n${list()}\n` : before.slice(0, a) + list() + before.slice(b + close.length),
    );
  }
  expect(readFileSync(page, 'utf8')).toContain(list()); // UPDATE=1 writes it anew
});
const first = `# Estimates

## Published measurements

What others measured of DeepSeek models, to hold estimates against. The list is written from \`bench/published.json\` by
\`UPDATE=1 npm test -- test/published.test.ts\`; how estimates fare against it is said elsewhere on this page.

A device is what software counts as one: a package of the 910C is two, and its figures are halved. Rates a node are divided by the devices of a node.
Figures: ${Object.entries(units)
  .map(([u, what]) => `\`${u}\` ${what}`)
  .join(
    ', ',
  )}. Blank is not said in the source. Trust is high where the source is the one that measured and says how, medium where a part of how is
missing or the figure is a mean over a service, low where it is a user's report. Figures of one engine at one version: a better engine does better.
`;
