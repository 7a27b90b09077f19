// Every op as a graph of its own, lowered, printed in C and run, against its meaning in plain loops (test/meaning.ts): ragged shapes, each number
// of rows at which kernels change, every storage, ties, rings that have come round.
import { expect } from '@jest/globals';
import { Builder } from '../ir/build.js';
import type { Limits, Value, ValueOf } from '../ir/graph.js';
import type { RopeTable } from '../ir/rope.js';
import { bf16, elements, f32, i32, i64, type Storage, scaled, scaleShape, storageName } from '../ir/storage.js';
import { chooseKernels } from '../src/passes/choose-kernels.js';
import type { LoweringOptions } from '../src/passes/lowering.js';
import { planMemory, planObjections } from '../src/passes/plan-memory.js';
import { fusedCases } from './fused-cases.js';
import { decodeMatrix, Meaning } from './meaning.js';
import type { Call, PartBytes, Result, Run } from './run-program.js';

export const limits: Limits = { tokens: 80, wanted: 8, sequences: 2, context: 64 };

/** Numbers in [0, 1) that every run draws alike. */
function dice(seed: number): () => number {
  let s = seed >>> 0;
  return () => {
    s = (Math.imul(s, 1664525) + 1013904223) >>> 0;
    return s / 2 ** 32;
  };
}

/** Declares weights with bytes; what a case feeds to its op is a weight too. */
export class Data {
  readonly b = new Builder();
  readonly positions = this.b.add('input', 'positions', {}, { which: 'positions' });
  readonly sequences = this.b.add('input', 'sequences', {}, { which: 'sequences' });
  readonly parts = new Map<string, readonly PartBytes[]>();
  readonly numbers = new Map<string, readonly number[]>();
  readonly #random: () => number;
  constructor(seed: number) {
    this.#random = dice(seed);
  }
  #code(storage: Storage, bytes: number): Uint8Array {
    const out = new Uint8Array(bytes);
    const view = new DataView(out.buffer);
    const wide = storage.element === 'f32' ? 4 : storage.element === 'bf16' ? 2 : 0;
    if (wide)
      for (let i = 0; i < bytes; i += wide) {
        const f = new DataView(new ArrayBuffer(4));
        f.setFloat32(0, 2 * this.#random() - 1);
        if (wide === 4) view.setFloat32(i, f.getFloat32(0), true);
        else view.setUint16(i, f.getUint16(0), true);
      }
    else
      for (let i = 0; i < bytes; i++) {
        const byte = Math.floor(this.#random() * 256);
        out[i] = storage.element === 'f8e4m3' ? byte & 0xbf : byte; // below 2, never NaN
      }
    return out;
  }
  #scales(s: Storage & { kind: 'scaled' }, count: number): Uint8Array {
    if (s.scale !== 'e8m0')
      return this.#code({ kind: 'plain', element: s.scale }, count * (elements[s.scale].bits / 8)).map(
        (x, i, a) => (i % (elements[s.scale].bits / 8) === elements[s.scale].bits / 8 - 1 ? x & 0x7f : x) + 0 * a.length,
      );
    return Uint8Array.from({ length: count }, () => 124 + Math.floor(this.#random() * 4));
  }
  /** Random values in a storage; with a leading dimension, a stack of matrices. */
  weight(name: string, shape: readonly number[], storage: Storage = f32): ValueOf<'weight'> {
    const [rows, columns] = shape.length === 1 ? [1, shape[0] as number] : (shape.slice(-2) as [number, number]);
    const count = shape.length === 3 ? (shape[0] as number) : 1;
    const parts = Array.from({ length: count }, (): PartBytes => {
      const codes = this.#code(storage, rows * Math.ceil((columns * elements[storage.element].bits) / 8));
      if (storage.kind === 'plain') return { codes };
      const [r, c] = scaleShape(storage, rows, columns);
      return { codes, scales: this.#scales(storage, r * c) };
    });
    this.numbers.set(
      name,
      parts.flatMap(p => decodeMatrix(storage, rows, columns, p.codes, p.scales)),
    );
    this.parts.set(name, parts);
    return this.b.declare('weight', name, { shape, storage }, {}, {});
  }
  /** Given values, f32 or whole. */
  given(name: string, shape: readonly number[], values: readonly number[], storage: Storage = f32): ValueOf<'weight'> {
    const array =
      storage.element === 'i64'
        ? BigInt64Array.from(values, BigInt)
        : storage.element === 'i32'
          ? Int32Array.from(values)
          : Float32Array.from(values);
    this.parts.set(name, [{ codes: new Uint8Array(array.buffer) }]);
    this.numbers.set(name, Array.from(array, Number));
    return this.b.declare('weight', name, { shape, storage }, {}, {});
  }
  /** A state with `rows` of the call appended. */
  cache(name: string, rows: Value, kind: 'log' | 'ring', capacity: number, every = 1, storage: Storage = f32): Value {
    const shape = [limits.sequences, capacity, rows.type.shape[1] as number];
    const state = this.b.declare('state', `${name}_state`, { shape, storage }, {}, { kind, window: 0, every });
    return this.b.add('append', name, { state, rows, positions: this.positions, sequences: this.sequences }, { every });
  }
}
export interface Case {
  readonly name: string;
  readonly build: (d: Data) => Value;
  /** Positions of the rows of each call, all of sequence 1; none where the op does not ask. */
  readonly calls?: readonly (readonly number[])[];
}

const from = (first: number, count: number): readonly number[] => Array.from({ length: count }, (_, i) => first + i);

const storages: readonly Storage[] = [
  f32,
  bf16,
  scaled('f8e4m3', 128, 128, 'f32'),
  scaled('f8e4m3', 128, 128, 'e8m0'),
  scaled('i8', 1, 0, 'f32'),
  scaled('i4', 1, 32, 'f32'),
  scaled('i4', 1, 32, 'bf16'),
  scaled('f4e2m1', 1, 32, 'e8m0'),
];
const rows = [1, 5, 9, 70];
const plain: RopeTable = { theta: 10000, dims: 8, scaling: { kind: 'none' } };
const yarn: RopeTable = {
  theta: 10000,
  dims: 8,
  scaling: { kind: 'yarn', factor: 40, original: 4096, betaFast: 32, betaSlow: 1, magnitude: 1.25 },
};
const steps = (n: number, of: number): number[] => Array.from({ length: n }, (_, i) => ((i * 7919) % of) / 4);
const withRoom = <T>(values: readonly T[], f: (v: T) => Case): readonly Case[] => values.map(f);

export const cases: readonly Case[] = [
  ...storages.flatMap(s =>
    withRoom(rows, n => ({
      name: `linear ${storageName(s)}, ${n} rows`,
      build: d => d.b.add('linear', 'y', { x: d.weight('x', [n, 160]), weight: d.weight('w', [75, 160], s) }, {}),
    })),
  ),
  ...withRoom(rows, n => ({
    name: `linear with bias, ${n} rows`,
    build: d =>
      d.b.add('linear', 'y', { x: d.weight('x', [n, 24]), weight: d.weight('w', [40, 24], bf16), bias: d.weight('b', [40], bf16) }, {}),
  })),
  ...withRoom(rows, n => ({
    name: `gate, up and SwiGLU in one, ${n} rows`,
    build: d => {
      const x = d.weight('x', [n, 64]);
      const gate = d.b.add('linear', 'gate', { x, weight: d.weight('wg', [50, 64], bf16) }, {});
      const up = d.b.add('linear', 'up', { x, weight: d.weight('wu', [50, 64], scaled('i4', 1, 32, 'f32')) }, {});
      return d.b.add('swiglu', 'y', { gate, up }, { limit: 1.5 });
    },
  })),
  ...[true, false].flatMap(transposed =>
    withRoom(rows, n => ({
      name: `grouped linear${transposed ? ', transposed' : ''}, ${n} rows`,
      build: d => {
        const x = d.weight('x', [n, 3 * (transposed ? 20 : 72)]);
        const weight = d.weight('w', [3 * 52, 72], scaled('f8e4m3', 128, 128, 'f32'));
        return d.b.add('grouped_linear', 'y', { x, weight }, { groups: 3, stride: 52, from: 32, size: 20, transposed });
      },
    })),
  ),
  { name: 'swiglu', build: d => d.b.add('swiglu', 'y', { gate: d.weight('g', [3, 1500]), up: d.weight('u', [3, 1500]) }, { limit: null }) },
  {
    name: 'swiglu with limit',
    build: d => d.b.add('swiglu', 'y', { gate: d.weight('g', [3, 70]), up: d.weight('u', [3, 70]) }, { limit: 0.5 }),
  },
  { name: 'add', build: d => d.b.add('add', 'y', { a: d.weight('a', [3, 1100]), b: d.weight('b', [3, 1100]) }, {}) },
  { name: 'scale', build: d => d.b.add('scale', 'y', { x: d.weight('x', [3, 1100]) }, { by: 0.3 }) },
  { name: 'slice', build: d => d.b.add('slice', 'y', { x: d.weight('x', [3, 60]) }, { from: 7, size: 40 }) },
  { name: 'slice of heads', build: d => d.b.add('slice', 'y', { x: d.weight('x', [3, 60]) }, { from: 3, size: 5, heads: 6 }) },
  { name: 'concat', build: d => d.b.add('concat', 'y', { a: d.weight('a', [3, 30]), b: d.weight('b', [3, 12]) }, { heads: 1 }) },
  { name: 'concat of heads', build: d => d.b.add('concat', 'y', { a: d.weight('a', [3, 34]), b: d.weight('b', [3, 51]) }, { heads: 17 }) },
  {
    name: 'gather bf16',
    build: d => d.b.add('gather', 'y', { table: d.weight('t', [9, 1030], bf16), ids: d.positions }, {}),
    calls: [[8, 0, 3]],
  },
  {
    name: 'gather of an i64 table',
    build: d => d.b.add('gather', 'y', { table: d.given('t', [5, 3], from(100, 15), i64), ids: d.positions }, {}),
    calls: [[4, 0, 4]],
  },
  {
    name: 'rms_norm',
    build: d => d.b.add('rms_norm', 'y', { x: d.weight('x', [3, 700]), weight: d.weight('w', [700], bf16) }, { eps: 1e-6, width: 700 }),
  },
  {
    name: 'rms_norm in pieces',
    build: d => d.b.add('rms_norm', 'y', { x: d.weight('x', [2, 9000]), weight: d.weight('w', [9000], bf16) }, { eps: 1e-6, width: 9000 }),
  },
  { name: 'rms_norm of heads', build: d => d.b.add('rms_norm', 'y', { x: d.weight('x', [3, 60]) }, { eps: 1e-5, width: 12 }) },
  {
    name: 'layer_norm',
    build: d =>
      d.b.add('layer_norm', 'y', { x: d.weight('x', [3, 50]), weight: d.weight('w', [50]), bias: d.weight('b', [50]) }, { eps: 1e-6 }),
  },
  ...(['interleaved', 'half'] as const).flatMap(layout =>
    [false, true].map(
      (inverse): Case => ({
        name: `rope, ${layout}${inverse ? ', inverse' : ''}`,
        build: d =>
          d.b.add(
            'rope',
            'y',
            { x: d.weight('x', [3, 52]), positions: d.positions },
            { heads: 4, offset: 5, layout, inverse, stride: 1, table: inverse ? plain : yarn },
          ),
        calls: [[0, 7, 4001]],
      }),
    ),
  ),
  {
    name: 'rope by stride',
    build: d =>
      d.b.add(
        'rope',
        'y',
        { x: d.weight('x', [3, 8]), positions: d.positions },
        { heads: 1, offset: 0, layout: 'interleaved', inverse: false, stride: 4, table: plain },
      ),
    calls: [[3, 7, 10]],
  },
  { name: 'hadamard', build: d => d.b.add('hadamard', 'y', { x: d.weight('x', [3, 192]) }, { width: 64 }) },
  ...(['f8e4m3', 'f4e2m1'] as const).flatMap(element =>
    (['f32', 'e8m0'] as const).map(
      (scale): Case => ({
        name: `fake_quant ${element} ${scale}`,
        build: d =>
          d.b.add(
            'fake_quant',
            'y',
            { x: d.weight('x', [4, 2 * 76]) },
            { element, block: 32, scale, least: 1e-4, heads: 2, offset: 8, size: 64 },
          ),
      }),
    ),
  ),
  {
    name: 'fake_quant of halves, zeros and large values',
    build: d =>
      d.b.add(
        'fake_quant',
        'y',
        { x: d.given('x', [1, 32], [...from(-12, 25).map(i => i / 4), 0, 0, 6, -6, 5, 3.5, 2.5]) },
        { element: 'f4e2m1', block: 32, scale: 'f32', least: 6 * 2 ** -126, heads: 1, offset: 0, size: 32 },
      ),
  },
  {
    name: 'fake_quant of zeros',
    build: d =>
      d.b.add(
        'fake_quant',
        'y',
        {
          x: d.given(
            'x',
            [1, 32],
            from(0, 32).map(() => 0),
          ),
        },
        { element: 'f4e2m1', block: 32, scale: 'e8m0', least: 6 * 2 ** -126, heads: 1, offset: 0, size: 32 },
      ),
  },
  ...(['softmax', 'sigmoid', 'sqrtsoftplus'] as const).map(
    (f): Case => ({
      name: `router_scores ${f}`,
      build: d =>
        d.b.add(
          'router_scores',
          'y',
          {
            logits: d.given(
              'x',
              [2, 20],
              from(-60, 40).map(i => i * 2.25),
            ),
          },
          { f },
        ),
    }),
  ),
  {
    name: 'choose_experts with ties',
    calls: [from(0, 6)],
    build: d => d.b.add('choose_experts', 'y', { scores: d.given('x', [6, 12], steps(72, 5)) }, { k: 5, groups: 1, keep: 1, by: 'max' }),
  },
  ...(['max', 'top2sum'] as const).map(
    (by): Case => ({
      name: `choose_experts by groups, ${by}, with ties`,
      calls: [from(0, 9)],
      build: d =>
        d.b.add(
          'choose_experts',
          'y',
          { scores: d.given('x', [9, 24], steps(216, 7)), bias: d.given('b', [24], steps(24, 3)) },
          { k: 4, groups: 6, keep: 2, by },
        ),
    }),
  ),
  ...[true, false].map(
    (normalise): Case => ({
      name: `expert_weights${normalise ? ', normalised' : ''}`,
      build: d =>
        d.b.add(
          'expert_weights',
          'y',
          { scores: d.weight('s', [3, 12]), indices: d.given('i', [3, 4], [0, 11, 5, 2, 3, 4, 5, 6, 9, 8, 1, 0], i32) },
          { normalise, scale: 2.5 },
        ),
    }),
  ),
  ...(['after', 'before'] as const).flatMap(weigh =>
    [1, 5, 30].map(
      (n): Case => ({
        name: `experts, weighed ${weigh}, ${n} rows`,
        build: d => {
          const choice = Array.from({ length: n }, (_, t) => [0, 1, 2].map(i => (t * t + 3 * i) % 7)).flat(); // expert 7 is never chosen
          const stack = scaled('i4', 1, 32, 'bf16');
          return d.b.add(
            'experts',
            'y',
            {
              x: d.weight('x', [n, 96]),
              indices: d.given('i', [n, 3], choice, i32),
              weights: d.weight('r', [n, 3]),
              gate: d.weight('wg', [8, 44, 96], stack),
              up: d.weight('wu', [8, 44, 96], stack),
              down: d.weight('wd', [8, 96, 44], scaled('f8e4m3', 128, 128, 'f32')),
            },
            { limit: weigh === 'before' ? 2 : null, weigh },
          );
        },
      }),
    ),
  ),
  {
    name: 'attention, 6 heads on 2, plain log',
    build: d => {
      const state = d.cache('kv', d.weight('kv_rows', [5, 2 * 16 + 2 * 12]), 'log', 64);
      return d.b.add(
        'attention',
        'y',
        { q: d.weight('q', [5, 6 * 16]), state, positions: d.positions, sequences: d.sequences },
        { heads: 6, kvHeads: 2, width: 16, keyOffset: 0, valueOffset: 32, valueWidth: 12, scale: 0.4, window: null, ratio: 1 },
      );
    },
    calls: from(0, 9).map(c => from(5 * c, 5)),
  },
  {
    name: 'attention, latent, bf16 log, 33 heads',
    build: d => {
      const state = d.cache('kv', d.weight('kv_rows', [5, 40], bf16), 'log', 64, 1, bf16);
      return d.b.add(
        'attention',
        'y',
        { q: d.weight('q', [5, 33 * 40]), state, positions: d.positions, sequences: d.sequences },
        { heads: 33, kvHeads: 1, width: 40, keyOffset: 0, valueOffset: 0, valueWidth: 32, scale: 0.2, window: null, ratio: 1 },
      );
    },
    calls: from(0, 9).map(c => from(5 * c, 5)),
  },
  {
    name: 'attention, window in a ring, sink and compressed entries',
    build: d => {
      const r = d.weight('kv_rows', [5, 24]);
      const inputs = {
        q: d.weight('q', [5, 4 * 24]),
        state: d.cache('kv', r, 'ring', 15),
        compressed: d.cache('far', r, 'log', 16, 4),
        positions: d.positions,
        sequences: d.sequences,
        sink: d.weight('sink', [4]),
      };
      return d.b.add('attention', 'y', inputs, {
        heads: 4,
        kvHeads: 1,
        width: 24,
        keyOffset: 0,
        valueOffset: 0,
        valueWidth: 24,
        scale: 0.3,
        window: 10,
        ratio: 4,
      });
    },
    calls: from(0, 12).map(c => from(5 * c, 5)),
  },
  {
    name: 'attention, chosen rows of a log',
    build: d => {
      const state = d.cache('kv', d.weight('kv_rows', [5, 24]), 'log', 64);
      const selected = d.given('chosen', [5, 3], [0, -1, -1, 1, 0, -1, 2, -1, 0, 0, 3, 1, 4, 2, 0], i32);
      return d.b.add(
        'attention',
        'y',
        { q: d.weight('q', [5, 4 * 24]), state, selected, positions: d.positions, sequences: d.sequences },
        { heads: 4, kvHeads: 1, width: 24, keyOffset: 0, valueOffset: 0, valueWidth: 24, scale: 0.3, window: null, ratio: 1 },
      );
    },
    calls: [from(0, 5), from(5, 5)],
  },
  {
    name: 'attention, chosen compressed entries',
    build: d => {
      const r = d.weight('kv_rows', [5, 24]);
      const selected = d.given('chosen', [5, 2], [-1, -1, -1, -1, -1, -1, 0, -1, 0, -1], i32);
      const inputs = {
        q: d.weight('q', [5, 4 * 24]),
        state: d.cache('kv', r, 'ring', 15),
        compressed: d.cache('far', r, 'log', 16, 4),
        selected,
        positions: d.positions,
        sequences: d.sequences,
      };
      return d.b.add('attention', 'y', inputs, {
        heads: 4,
        kvHeads: 1,
        width: 24,
        keyOffset: 0,
        valueOffset: 0,
        valueWidth: 24,
        scale: 0.3,
        window: 10,
        ratio: 4,
      });
    },
    calls: from(0, 6).map(c => from(5 * c, 5)),
  },
  {
    name: 'attention, long log in parts',
    build: d => {
      const state = d.cache('kv', d.weight('kv_rows', [5, 24]), 'log', 2048);
      const inputs = { q: d.weight('q', [5, 4 * 24]), state, positions: d.positions, sequences: d.sequences, sink: d.weight('sink', [4]) };
      return d.b.add('attention', 'y', inputs, {
        heads: 4,
        kvHeads: 1,
        width: 24,
        keyOffset: 0,
        valueOffset: 0,
        valueWidth: 16,
        scale: 0.3,
        window: null,
        ratio: 1,
      });
    },
    calls: from(0, 40).map(c => from(5 * c, 5)),
  },
  {
    name: 'attention, a list in parts',
    build: d => {
      const state = d.cache('kv', d.weight('kv_rows', [5, 24]), 'log', 2048);
      const chosen = [0, 1, 2, 3, 4].flatMap(t => from(0, 1100).map(i => (i < 3 || i % 100 === 50 ? (i * 7 + t) % (t + 1) : -1)));
      const inputs = {
        q: d.weight('q', [5, 2 * 24]),
        state,
        selected: d.given('chosen', [5, 1100], chosen, i32),
        positions: d.positions,
        sequences: d.sequences,
      };
      return d.b.add('attention', 'y', inputs, {
        heads: 2,
        kvHeads: 1,
        width: 24,
        keyOffset: 0,
        valueOffset: 0,
        valueWidth: 16,
        scale: 0.3,
        window: null,
        ratio: 1,
      });
    },
    calls: [from(0, 5)],
  },
  ...[true, false].map(
    (overlap): Case => ({
      name: `compress${overlap ? ' with overlap' : ''}`,
      build: d => {
        const state = d.cache('kv', d.weight('kv_rows', [5, (overlap ? 4 : 2) * 20]), 'ring', 13);
        return d.b.add(
          'compress',
          'y',
          { state, ape: d.weight('ape', [4, (overlap ? 2 : 1) * 20]), positions: d.positions, sequences: d.sequences },
          { ratio: 4, overlap, width: 20 },
        );
      },
      calls: from(0, 6).map(c => from(5 * c, 5)),
    }),
  ),
  ...[1, 4].map(
    (ratio): Case => ({
      name: `index_scores, ratio ${ratio}`,
      build: d => {
        const state = d.cache('k', d.weight('k_rows', [5, 16]), 'log', 64 / ratio, ratio);
        return d.b.add(
          'index_scores',
          'y',
          { q: d.weight('q', [5, 6 * 16]), weights: d.weight('w', [5, 6]), state, positions: d.positions, sequences: d.sequences },
          { heads: 6, width: 16, ratio },
        );
      },
      calls: from(0, 5).map(c => from(5 * c, 5)),
    }),
  ),
  {
    name: 'top_indices with ties and too few',
    calls: [from(0, 3)],
    build: d =>
      d.b.add(
        'top_indices',
        'y',
        {
          scores: d.given(
            's',
            [3, 300],
            from(0, 900).map(i => (i < 300 ? (i * 7919) % 11 : i < 600 ? (i === 410 || i === 333 ? 1 : -1e30) : ((i * 31) % 300) - 150)),
          ),
        },
        { k: 16 },
      ),
  },
  { name: 'hc_expand', build: d => d.b.add('hc_expand', 'y', { x: d.weight('x', [3, 50]) }, { streams: 4 }) },
  { name: 'hc_mix', build: d => d.b.add('hc_mix', 'y', { x: d.weight('x', [3, 1200]), weight: d.weight('w', [24, 1200]) }, { eps: 1e-6 }) },
  {
    name: 'hc_split',
    build: d =>
      d.b.add(
        'hc_split',
        'y',
        { mix: d.weight('m', [3, 24]), scale: d.weight('s', [3]), base: d.weight('b', [24]) },
        { streams: 4, iterations: 20, eps: 1e-6 },
      ),
  },
  {
    name: 'hc_gate',
    build: d => d.b.add('hc_gate', 'y', { mix: d.weight('m', [3, 4]), scale: d.weight('s', [1]), base: d.weight('b', [4]) }, { eps: 1e-6 }),
  },
  {
    name: 'hc_pre',
    build: d => d.b.add('hc_pre', 'y', { x: d.weight('x', [3, 4 * 50]), weights: d.weight('w', [3, 24]) }, { streams: 4 }),
  },
  {
    name: 'hc_post',
    build: d =>
      d.b.add(
        'hc_post',
        'y',
        { x: d.weight('x', [3, 4 * 50]), weights: d.weight('w', [3, 24]), y: d.weight('z', [3, 50]) },
        { streams: 4 },
      ),
  },
  ...fusedCases,
];

/** A case made ready to run: its graph lowered for a chip that objects, or for none. */
export function prepare(c: Case, i: number, options: LoweringOptions = {}) {
  const data = new Data(i + 1);
  const y = c.build(data);
  const graph = data.b.finish('kernels', limits, { y });
  const program = planMemory(chooseKernels(graph, options));
  const calls = (c.calls ?? [[0]]).map((positions): Call => ({ inputs: { positions, sequences: positions.map(() => 1), wanted: [] } }));
  const run: Run = { program, calls, weight: w => data.parts.get(w.name) as readonly PartBytes[] };
  return { case: c, graph, program, calls, data, run };
}
export type Ready = ReturnType<typeof prepare>;

/** Results of a case against its meaning. */
export function check({ graph, program, calls, data }: Ready, results: readonly Result[], tolerance = 1e-5): void {
  expect(planObjections(program)).toEqual([]);
  const meaning = new Meaning(graph, w => data.numbers.get(w.name) as readonly number[]);
  for (const [n, call] of calls.entries()) {
    const want = Array.from(meaning.call(call)('y'));
    const got = [...(results[n] as Result)('y')];
    if (graph.outputs.y?.type.storage.element === 'i32') {
      expect(got).toEqual(want);
      continue;
    }
    expect(got.length).toBe(want.length);
    const scale = Math.max(1e-30, ...want.map(w => (w > -1e29 ? Math.abs(w) : 0)));
    const worst = Math.max(
      ...want.map((w, k) =>
        Number.isNaN(got[k])
          ? Number.POSITIVE_INFINITY
          : w < -1e29 && (got[k] as number) < -1e29
            ? 0
            : Math.abs(w - (got[k] as number)) / scale,
      ),
    );
    expect(worst).toBeLessThan(tolerance);
  }
}
