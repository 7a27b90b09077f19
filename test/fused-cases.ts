// Values that lower to one launch: every fusion of src/passes/fuse.ts as a graph of its own, beside the ops in kernel-cases.ts.
import type { Value } from '../ir/graph.js';
import type { RopeTable } from '../ir/rope.js';
import { bf16, f32, i32, i64, scaled } from '../ir/storage.js';
import type { Case, Data } from './kernel-cases.js';

const from = (first: number, count: number): readonly number[] => Array.from({ length: count }, (_, i) => first + i);
const table: RopeTable = { theta: 10000, dims: 8, scaling: { kind: 'none' } };
const yarn: RopeTable = {
  theta: 10000,
  dims: 16,
  scaling: { kind: 'yarn', factor: 40, original: 4096, betaFast: 32, betaSlow: 1, magnitude: 1.25 },
};
const turn = (
  d: Data,
  name: string,
  x: Value,
  heads: number,
  offset: number,
  layout: 'interleaved' | 'half',
  of = table,
  inverse = false,
) => d.b.add('rope', name, { x, positions: d.positions }, { heads, offset, layout, inverse, stride: 1, table: of });
const norm = (d: Data, name: string, x: Value, width: number, weight = true) =>
  d.b.add('rms_norm', name, weight ? { x, weight: d.weight(`${name}_w`, [width], bf16) } : { x }, { eps: 1e-6, width });
const linear = (d: Data, name: string, x: Value, outputs: number, bias = false) => {
  const weight = d.weight(`${name}_w`, [outputs, x.type.shape[1] as number], bf16);
  return d.b.add('linear', name, bias ? { x, weight, bias: d.weight(`${name}_b`, [outputs], f32) } : { x, weight }, {});
};
const round = (d: Data, name: string, x: Value, heads: number, size: number) =>
  d.b.add('fake_quant', name, { x }, { element: 'f8e4m3', block: 16, scale: 'e8m0', least: 1e-4, heads, offset: 0, size });
/** What four heads of `width` see of a state. */
const seen = (d: Data, state: Value, rows: number, width: number, valueOffset = 0, valueWidth = width): Value =>
  d.b.add(
    'attention',
    'y',
    { q: d.weight('q', [rows, 4 * width]), state, positions: d.positions, sequences: d.sequences },
    { heads: 4, kvHeads: 1, width, keyOffset: 0, valueOffset, valueWidth, scale: 0.3, window: null, ratio: 1 },
  );
const fives = from(0, 6).map(c => from(5 * c, 5));

export const fusedCases: readonly Case[] = [
  ...[1, 5, 9].map(
    (n): Case => ({
      name: `a turn ends a product, ${n} rows`,
      build: d => turn(d, 'y', linear(d, 'x', d.weight('r', [n, 40]), 3 * 40), 3, 24, 'interleaved', yarn),
      calls: [from(7, n)],
    }),
  ),
  {
    name: 'a turn of halves ends a product with bias',
    build: d => turn(d, 'y', linear(d, 'x', d.weight('r', [3, 40]), 5 * 16, true), 5, 0, 'half', yarn, true),
    calls: [[0, 7, 4001]],
  },
  {
    name: 'keys and values are cached where their products end',
    build: d => {
      const r = d.weight('r', [5, 40]);
      const k = turn(d, 'k', linear(d, 'kx', r, 16, true), 1, 0, 'half', yarn);
      const row = d.b.add('concat', 'row', { a: k, b: linear(d, 'v', r, 24) }, { heads: 1 });
      return seen(d, d.cache('kv', row, 'log', 64), 5, 16, 16, 24);
    },
    calls: fives,
  },
  {
    name: 'a ring is written where products end',
    build: d => {
      const r = d.weight('r', [5, 40]);
      const row = d.b.add('concat', 'row', { a: linear(d, 'kv', r, 24), b: linear(d, 'score', r, 24) }, { heads: 1 });
      const state = d.cache('recent', row, 'ring', 13);
      const inputs = { state, ape: d.weight('ape', [4, 24]), positions: d.positions, sequences: d.sequences };
      return d.b.add('compress', 'y', inputs, { ratio: 4, overlap: false, width: 24 });
    },
    calls: fives,
  },
  {
    name: 'a latent and its rope key are cached',
    build: d => {
      const x = d.weight('r', [5, 48]);
      const latent = norm(d, 'latent', d.b.add('slice', 'l', { x }, { from: 0, size: 32 }), 32);
      const key = turn(d, 'key', d.b.add('slice', 's', { x }, { from: 32, size: 16 }), 1, 0, 'interleaved', yarn);
      const row = d.b.add('concat', 'row', { a: latent, b: key }, { heads: 1 });
      return seen(d, d.cache('kv', row, 'log', 64), 5, 48, 0, 32);
    },
    calls: fives,
  },
  {
    name: 'norm and turn of heads',
    build: d => turn(d, 'y', norm(d, 'n', d.weight('r', [3, 6 * 24]), 24, false), 6, 16, 'interleaved'),
    calls: [[3, 40, 7]],
  },
  {
    name: 'turn, transform and rounding of heads',
    build: d => {
      const turned = turn(d, 't', d.weight('r', [3, 6 * 32]), 6, 24, 'half');
      return round(d, 'y', d.b.add('hadamard', 'h', { x: turned }, { width: 32 }), 6, 32);
    },
    calls: [[3, 40, 7]],
  },
  {
    name: 'entries are normed, turned and rounded on the way into a state, one every 4 positions',
    build: d => {
      const r = d.weight('r', [5, 40]);
      const b = d.b.add(
        'rope',
        't',
        { x: norm(d, 'n', r, 40), positions: d.positions },
        {
          ...{ heads: 1, offset: 32, layout: 'interleaved', inverse: false, stride: 4, table },
        },
      );
      const inputs = {
        q: d.weight('q', [5, 4 * 40]),
        state: d.cache('near', r, 'ring', 15),
        compressed: d.cache('far', round(d, 'c', b, 1, 32), 'log', 16, 4),
        positions: d.positions,
        sequences: d.sequences,
      };
      return d.b.add('attention', 'y', inputs, {
        ...{ heads: 4, kvHeads: 1, width: 40, keyOffset: 0, valueOffset: 0, valueWidth: 40, scale: 0.3, window: 10, ratio: 4 },
      });
    },
    calls: fives,
  },
  {
    name: 'an index key is centred, turned and cached',
    build: d => {
      const x = d.weight('r', [5, 32]);
      const n = d.b.add('layer_norm', 'n', { x, weight: d.weight('w', [32]), bias: d.weight('b', [32]) }, { eps: 1e-6 });
      return seen(d, d.cache('k', turn(d, 't', n, 1, 0, 'half'), 'log', 64), 5, 32);
    },
    calls: fives,
  },
  {
    name: 'norms come to stand beside each other, one of picked rows',
    build: d => {
      const picked = d.b.add('gather', 'g', { table: d.weight('t', [9, 24], bf16), ids: d.positions }, {});
      const other = d.b.add('gather', 'o', { table: d.weight('r', [9, 24]), ids: d.positions }, {});
      return d.b.add('concat', 'y', { a: norm(d, 'a', picked, 24), b: norm(d, 'b', other, 24) }, { heads: 1 });
    },
    calls: [[8, 0, 3]],
  },
  {
    name: 'a sum and its norm',
    build: d => {
      const sum = d.b.add('add', 's', { a: d.weight('a', [3, 200]), b: d.weight('b', [3, 200]) }, {});
      return d.b.add('swiglu', 'y', { gate: norm(d, 'n', sum, 200), up: sum }, { limit: null });
    },
  },
  ...[48, 2500].map(
    (width): Case => ({
      name: `streams of ${width} into a sublayer, split`,
      build: d => {
        const x = d.weight('r', [3, 4 * width]);
        const weights = d.b.add(
          'hc_split',
          'w',
          { mix: d.weight('m', [3, 24]), scale: d.weight('s', [3]), base: d.weight('b', [24]) },
          { streams: 4, iterations: 20, eps: 1e-6 },
        );
        const y = norm(d, 'n', d.b.add('hc_pre', 'p', { x, weights }, { streams: 4 }), width);
        return d.b.add('hc_post', 'y', { x, weights, y }, { streams: 4 });
      },
    }),
  ),
  {
    name: 'streams into the last norm, by a gate',
    build: d => {
      const inputs = { mix: d.weight('m', [3, 4]), scale: d.weight('s', [1]), base: d.weight('b', [4]) };
      const weights = d.b.add('hc_gate', 'w', inputs, { eps: 1e-6 });
      return norm(d, 'y', d.b.add('hc_pre', 'p', { x: d.weight('r', [3, 4 * 50]), weights }, { streams: 4 }), 50);
    },
  },
  ...[64, 2048].map(
    (capacity): Case => ({
      name: `what attention read is turned back${capacity > 64 ? ', in parts' : ''}`,
      build: d => {
        const inputs = {
          q: d.weight('q', [5, 4 * 24]),
          state: d.cache('kv', d.weight('r', [5, 24]), 'log', capacity),
          positions: d.positions,
          sequences: d.sequences,
        };
        const read = d.b.add('attention', 'read', inputs, {
          ...{ heads: 4, kvHeads: 1, width: 24, keyOffset: 0, valueOffset: 0, valueWidth: 24, scale: 0.3, window: null, ratio: 1 },
        });
        return turn(d, 'y', read, 4, 16, 'interleaved', table, true);
      },
      calls: fives,
    }),
  ),
  ...[true, false].map(
    (byToken): Case => ({
      name: `a router whose experts ${byToken ? 'the token fixes' : 'are given'}`,
      build: d => {
        const logits = byToken ? d.b.add('gather', 'l', { table: d.weight('r', [9, 12]), ids: d.positions }, {}) : d.weight('r', [3, 12]);
        const scores = d.b.add('router_scores', 's', { logits }, { f: 'sqrtsoftplus' });
        const fixed = from(0, 36).map(i => (i * 5) % 12);
        const indices = byToken
          ? d.b.add('gather', 'i', { table: d.given('t', [9, 4], fixed, i64), ids: d.positions }, {})
          : d.given('i', [3, 4], fixed.slice(0, 12), i32);
        return d.b.add('expert_weights', 'y', { scores, indices }, { normalise: true, scale: 1.5 });
      },
      calls: [[8, 2, 5]],
    }),
  ),
  {
    name: 'a router of groups in one',
    build: d => {
      const scores = d.b.add('router_scores', 's', { logits: d.weight('r', [3, 24]) }, { f: 'sigmoid' });
      const indices = d.b.add('choose_experts', 'i', { scores, bias: d.weight('b', [24]) }, { k: 4, groups: 6, keep: 2, by: 'top2sum' });
      return d.b.add('expert_weights', 'y', { scores, indices }, { normalise: true, scale: 2.5 });
    },
    calls: [from(0, 3)],
  },
  {
    name: 'a factor ends a product',
    build: d => d.b.add('scale', 'y', { x: linear(d, 'x', d.weight('r', [3, 40]), 75) }, { by: 0.3 }),
  },
  ...[1, 9].map(
    (n): Case => ({
      name: `a product of ${n} picked rows`,
      build: d => {
        const rows = d.b.add('scale', 'x', { x: d.weight('r', [11, 40]) }, { by: 2 });
        return linear(d, 'y', d.b.add('gather', 'g', { table: rows, ids: d.positions }, {}), 75);
      },
      calls: [from(0, n).map(i => (i * 7) % 11)],
    }),
  ),
  ...[1, 5].map(
    (n): Case => ({
      name: `the best column of a product, ${n} rows`,
      build: d => {
        const weight = d.weight('w', [75, 64], scaled('i4', 1, 32, 'f32'));
        return d.b.add('top_indices', 'y', { scores: d.b.add('linear', 'x', { x: d.weight('r', [n, 64]), weight }, {}) }, { k: 1 });
      },
      calls: [from(0, n)],
    }),
  ),
  ...[1, 9, 70].map(
    (n): Case => ({
      name: `products beside each other, ${n} rows`,
      build: d => {
        const r = d.weight('r', [n, 40]);
        const gate = linear(d, 'g', r, 75, true);
        const up = linear(d, 'u', r, 75, true);
        return d.b.add('swiglu', 'y', { gate, up }, { limit: null });
      },
      calls: [from(0, n)],
    }),
  ),
];
