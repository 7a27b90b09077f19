// The pass list and its order, absorbed latent attention against its meaning, and what lowering promises.
import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from '@jest/globals';
import { Builder } from '../ir/build.js';
import { type Graph, inputsOf } from '../ir/graph.js';
import { f32 } from '../ir/storage.js';
import { parseConfig } from '../src/checkpoint/config.js';
import { buildModel } from '../src/models/index.js';
import { absorbMla } from '../src/passes/absorb-mla.js';
import { lower, orderObjections, type Pass, passes, runPasses } from '../src/passes/index.js';
import { Meaning } from './meaning.js';
import type { Call } from './run-program.js';

/** Two heads of 6 + 4 over latents of 8, values of 5; rows choose what they see where `selected` is said. */
function latentGraph(selected: boolean): Graph {
  const b = new Builder();
  const positions = b.add('input', 'positions', {}, { which: 'positions' });
  const sequences = b.add('input', 'sequences', {}, { which: 'sequences' });
  const weight = (name: string, shape: readonly number[]) => b.declare('weight', name, { shape, storage: f32 }, {}, {});
  const state = b.declare('state', 's', { shape: [1, 16, 12], storage: f32 }, {}, { kind: 'log', window: 0, every: 1 });
  const cached = b.add('append', 'cached', { state, rows: weight('rows', [3, 12]), positions, sequences }, { every: 1 });
  const inputs = { q: weight('q', [3, 20]), state: cached, kv_b: weight('kv_b', [22, 8]), positions, sequences };
  const y = b.add('mla', 'y', selected ? { ...inputs, selected: weight('chosen', [3, 2]) } : inputs, {
    heads: 2,
    nope: 6,
    rope: 4,
    v: 5,
    scale: 0.4,
  });
  const after = b.add('scale', 'after', { x: y }, { by: 2 });
  return b.finish('latent', { tokens: 3, wanted: 1, sequences: 1, context: 16 }, { logits: after });
}
const numbers = (name: string, n: number): number[] =>
  name === 'chosen' ? [0, -1, 1, 0, 2, 1] : Array.from({ length: n }, (_, i) => ((i * 37 + name.length * 11) % 23) / 11 - 1);

describe('absorb-mla', () => {
  for (const selected of [false, true])
    it(`means what the plain form means${selected ? ', over chosen positions' : ''}`, () => {
      const plain = latentGraph(selected);
      const absorbed = absorbMla(plain);
      expect(absorbed.values.map(v => `${v.name} ${v.op}`).slice(-7)).toEqual([
        'y.q_nope slice',
        'y.q_latent grouped_linear',
        'y.q_rope slice',
        'y.q_absorbed concat',
        'y.latent attention',
        'y grouped_linear',
        'after scale',
      ]);
      const call: Call = { inputs: { positions: [0, 1, 2], sequences: [0, 0, 0], wanted: [] } };
      const [before, after] = [plain, absorbed].map(g => {
        const m = new Meaning(g, w =>
          numbers(
            w.name,
            (w.type.shape as number[]).reduce((a, b) => a * b, 1),
          ),
        );
        return Array.from(m.call(call)('after'));
      }) as [number[], number[]];
      expect(before.length).toBe(30);
      before.forEach((x, i) => {
        expect(after[i]).toBeCloseTo(x, 10);
      });
    });
  it('leaves a graph without latent attention as it is, the same object', () => {
    const b = new Builder();
    const x = b.declare('weight', 'x', { shape: [1, 2], storage: f32 }, {}, {});
    const g = b.finish('g', { tokens: 1, wanted: 1, sequences: 1, context: 1 }, { y: b.add('scale', 'y', { x }, { by: 2 }) });
    expect(absorbMla(g)).toBe(g);
  });
  it('keeps the order: inputs before users, names once, outputs pointed at the new values', () => {
    const g = absorbMla(latentGraph(false));
    const seen = new Set<unknown>();
    for (const v of g.values) {
      for (const [, i] of inputsOf(v)) expect(seen.has(i)).toBe(true);
      seen.add(v);
    }
    expect(new Set(g.values.map(v => v.name)).size).toBe(g.values.length);
    expect(seen.has(g.outputs.logits)).toBe(true);
    expect(g.values.find(v => v.name === 'y')?.origin.passes).toEqual(['absorb-mla']);
  });
});

const pass = (name: string, run: Pass['run'] = g => g, after: Pass['after'] = {}): Pass => ({ name, about: '', after, run });
describe('the pass list', () => {
  it('stands in an order that its reasons allow', () => {
    expect(orderObjections(passes)).toEqual([]);
    expect(orderObjections([pass('b', undefined, { a: 'b reads what a makes', z: 'of old' }), pass('a')])).toEqual([
      'b must stand after a: b reads what a makes',
      'b stands after z (of old), but there is no such pass',
    ]);
  });
  const g = latentGraph(false);
  const list = [pass('same'), pass('absorb', absorbMla), pass('later')];
  const dumped = (dump: string, stopAfter?: string): readonly string[] => {
    const seen: string[] = [];
    runPasses(
      g,
      { dump, ...(stopAfter ? { stopAfter } : {}), onDump: (p, _, changed) => seen.push(`${p.name}${changed ? '' : ' (unchanged)'}`) },
      list,
    );
    return seen;
  };
  it('dumps all, the changed, or one', () => {
    expect(dumped('all')).toEqual(['same (unchanged)', 'absorb', 'later (unchanged)']);
    expect(dumped('changed')).toEqual(['absorb']);
    expect(dumped('later')).toEqual(['later (unchanged)']);
    expect(dumped('all', 'absorb')).toEqual(['same (unchanged)', 'absorb']);
    expect(() => dumped('none')).toThrow('there is no pass none; there are same, absorb, later');
  });
  it('names the pass whose graph does not verify', () => {
    const verify = (x: Graph): readonly string[] => (x.values.some(v => v.op === 'mla') ? [] : ['y is gone']);
    expect(() => runPasses(g, { verify }, list)).toThrow('the graph after absorb does not verify:\ny is gone');
  });
});

const configs = fileURLToPath(new URL('../fixtures/configs/', import.meta.url));
describe('every release lowers', () => {
  for (const name of readdirSync(configs).filter(n => n.endsWith('.json') && n !== 'DeepSeek-V4.1-Flash.json'))
    it(name, () => {
      const { graph } = buildModel(parseConfig(readFileSync(`${configs}${name}`, 'utf8'), name), null);
      const program = lower(graph);
      // one kernel a name, and every launch bound as its kernel says
      const kernels = new Map<string, unknown>();
      for (const { variants } of program.launches)
        for (const { kernel, args, sizes } of variants) {
          if (!kernel) continue;
          expect(kernels.get(kernel.name) ?? kernel).toBe(kernel);
          kernels.set(kernel.name, kernel);
          expect([args.length, sizes.length]).toEqual([kernel.params.length, kernel.sizes.length]);
          args.forEach((a, i) => {
            if (a.kind === 'weight') expect(kernel.params[i]?.storage).toEqual(a.weight.type.storage);
          });
        }
      expect(Object.keys(program.outputs)).toEqual(Object.keys(graph.outputs));
    });
});
