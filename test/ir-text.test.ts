import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from '@jest/globals';
import type { Graph, Value } from '../ir/graph.js';
import { parseGraph } from '../ir/parse.js';
import { printGraph } from '../ir/print.js';
import { verify } from '../ir/verify.js';
import { parseConfig } from '../src/checkpoint/config.js';
import { openCheckpoint } from '../src/checkpoint/shards.js';
import { buildModel } from '../src/models/index.js';
import { runPasses } from '../src/passes/index.js';

const fixtures = fileURLToPath(new URL('../fixtures/', import.meta.url));
const checkpoints = [
  ...readdirSync(`${fixtures}tiny`)
    .filter(n => n !== 'README.md')
    .map(n => `tiny/${n}`),
  'hkgai-nano',
  'hkgai-nano-fp8',
];
/** Inputs by name, so that equality is deep but not exponential. */
const flat = (g: Graph): unknown => ({
  ...g,
  outputs: Object.fromEntries(Object.entries(g.outputs).map(([k, v]) => [k, v.name])),
  values: g.values.map(v => ({
    ...v,
    inputs: Object.fromEntries(Object.entries(v.inputs as Record<string, Value>).map(([k, i]) => [k, i.name])),
  })),
});

describe('the text form', () => {
  for (const name of checkpoints)
    it(`${name}: verifies and round-trips, before and after the passes`, () => {
      const c = openCheckpoint(fixtures + name);
      const built = buildModel(c.config, c.tensors).graph;
      for (const graph of [built, runPasses(built)]) {
        expect(verify(graph)).toEqual([]);
        const text = printGraph(graph);
        const back = parseGraph(text);
        expect(flat(back)).toEqual(flat(graph));
        expect(printGraph(back)).toBe(text);
      }
    });
  for (const name of readdirSync(`${fixtures}configs`).filter(n => n.endsWith('.json') && n !== 'DeepSeek-V4.1-Flash.json'))
    it(`${name}: round-trips at full size`, () => {
      const graph = runPasses(buildModel(parseConfig(readFileSync(`${fixtures}configs/${name}`, 'utf8'), name), null).graph);
      expect(verify(graph, { bytes: false })).toEqual([]);
      expect(flat(parseGraph(printGraph(graph)))).toEqual(flat(graph));
    });
  it('says equal layers once', () => {
    const graph = buildModel(parseConfig(readFileSync(`${fixtures}configs/DeepSeek-V3.json`, 'utf8'), 'config.json'), null).graph;
    expect(
      printGraph(graph)
        .split('\n')
        .filter(l => l.startsWith('layers')),
    ).toEqual(['layers 0 {', 'layers 1..2 {', 'layers 3..60 {', 'layers 61 {']);
  });
});

describe('errors of the text form', () => {
  const head = 'graph "g" tokens=1 wanted=1 sequences=1 context=1\n';
  const cases: readonly (readonly [string, string, RegExp])[] = [
    ['no head', 'ids = input() {"which":"ids"} : [tokens] i32', /line 1, column 1: graph "name" was expected first/],
    ['unknown op', `${head}x = frobnicate() : [1] f32`, /line 2, column \d+: an op was expected, and frobnicate is none/],
    [
      'unknown input',
      `${head}ids = input() {"which":"ids"} : [tokens] i32\ny = scale(z: ids) {"by":2} : [tokens] f32`,
      /an input of scale was expected, and z is none/,
    ],
    ['absent input', `${head}y = scale() {"by":2} : [tokens] f32`, /the input x of scale was expected/],
    ['value that does not stand before', `${head}y = scale(x: later) {"by":2} : [tokens] f32`, /later does not/],
    ['name twice', `${head}ids = input() {"which":"ids"} : [tokens] i32\nids = input() {"which":"ids"} : [tokens] i32`, /ids is taken/],
    ['bad storage', `${head}ids = input() {"which":"ids"} : [tokens] f31`, /a storage was expected, not f31/],
    ['open block', `${head}layers 0 {`, /a closing \} was expected/],
    ['trailing', `${head}ids = input() {"which":"ids"} : [tokens] i32 !`, /the end of the line was expected/],
  ];
  for (const [name, text, message] of cases) it(name, () => expect(() => parseGraph(text)).toThrow(message));
});

describe('verify', () => {
  const c = openCheckpoint(`${fixtures}hkgai-nano`);
  const sound = buildModel(c.config, c.tensors).graph;
  const change = (f: (v: Value, i: number) => Value): Graph => ({ ...sound, values: sound.values.map(f) });
  const at = (op: string): number => sound.values.findIndex(v => v.op === op);
  it('names a repeated name', () =>
    expect(verify({ ...sound, values: [...sound.values, sound.values[0]!] })).toContainEqual(
      expect.stringContaining('two values are called'),
    ));
  it('names an input out of order', () =>
    expect(verify({ ...sound, values: [...sound.values].reverse() })).toContainEqual(expect.stringContaining('does not stand before it')));
  it('names a wrong type', () =>
    expect(verify(change((v, i) => (i === at('rms_norm') ? ({ ...v, type: { ...v.type, shape: [1] } } as Value) : v)))).toContainEqual(
      expect.stringContaining('does not have the type that rms_norm gives'),
    ));
  it('names missing bytes', () => {
    const i = at('weight');
    expect(verify(change((v, j) => (i === j ? ({ ...v, origin: { ...v.origin, parts: [] } } as Value) : v)))).toContainEqual(
      expect.stringContaining('0 parts where 1 were expected'),
    );
  });
  it('names bytes of another size', () => {
    const i = at('weight');
    expect(
      verify(
        change((v, j) =>
          i === j
            ? ({
                ...v,
                origin: { ...v.origin, parts: v.origin.parts.map(p => ({ ...p, bytes: [p.bytes[0], p.bytes[1] - 2] as const })) },
              } as Value)
            : v,
        ),
      ),
    ).toContainEqual(expect.stringContaining('has not the'));
  });
  it('names a limit of 0', () =>
    expect(verify({ ...sound, limits: { ...sound.limits, context: 0 } })).toContainEqual('the limit context is 0'));
  it('names a lost output', () => expect(verify({ ...sound, outputs: {} })).toContain('there is no output called logits'));
});
