// The kernels of every release hold what ir/tile-verify.ts says and get by with their barriers; broken kernels are told apart.
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from '@jest/globals';
import {
  contract,
  f32,
  held,
  heldT,
  i32,
  input,
  type Kernel,
  load,
  loop,
  map,
  output,
  part,
  peek,
  plus,
  ref,
  type Stmt,
  store,
  sum,
  sym,
  tile,
  view,
} from '../ir/tile.js';
import { missing, placeBarriers } from '../ir/tile-check.js';
import { verifyKernel } from '../ir/tile-verify.js';
import { parseConfig } from '../src/checkpoint/config.js';
import { buildModel, defaultOptions } from '../src/models/index.js';
import { lower } from '../src/passes/index.js';

const configs = fileURLToPath(new URL('../fixtures/configs/', import.meta.url));
describe('kernels of the releases are well formed', () => {
  for (const name of [
    'DeepSeek-V2-Lite',
    'DeepSeek-V3',
    'DeepSeek-V3.2',
    'DeepSeek-V4-Flash',
    'Kimi-K2-Instruct',
    'DeepSeek-R1-Distill-Qwen-7B',
    'DeepSeek-MoE-16B',
  ])
    for (const keep of ['all', []] as const)
      it(`${name}${keep === 'all' ? ', nothing fused' : ''}`, () => {
        const config = parseConfig(readFileSync(`${configs}${name}.json`, 'utf8'), name);
        const { graph } = buildModel(config, null, { ...defaultOptions(config), fakeQuant: true });
        const kernels = new Set(lower(graph, { keep }).launches.flatMap(l => l.variants.flatMap(v => (v.kernel ? [v.kernel] : []))));
        expect(kernels.size).toBeGreaterThan(10);
        expect([...kernels].flatMap(verifyKernel)).toEqual([]);
        for (const k of kernels) expect(missing(k.body, placeBarriers(k))).toBeNull();
      });
});

describe('broken kernels', () => {
  const x = input('x', [4, 8], f32);
  const n = input('n', [4], i32);
  const y = output('y', [4, 8]);
  const a = tile('a', 4, 8);
  const r = tile('r', 4, 1);
  const i = tile('i', 4, 1);
  const of = (...body: readonly Stmt[]): readonly string[] =>
    verifyKernel({
      name: 'k',
      params: [x, n, y],
      sizes: [],
      grid: [{ name: 't', count: peek(n, 0) }],
      body: [...body, load(a, view(x, [0, 0])), store(view(y, [0, 0]), a)],
    } satisfies Kernel);
  it('none', () => expect(of()).toEqual([]));
  it('names', () => {
    expect(of(load(a, view(x, [sym('j'), 0])))).toEqual(['k: j is used before it is said']);
    expect(of(loop('t', 2, () => []))).toEqual(['k: t hides another t']);
    expect(of(map(tile('a', 1, 1), 0))).toEqual(['k: two tiles are called a']);
  });
  it('access', () => {
    expect(of(load(a, view(y, [0, 0])))).toEqual(['k: y is to be read, but it is written only']);
    expect(of(load(r, view(x, [peek(x, 0, 0), 0])))).toEqual(['k: x is peeked, but holds f32']);
    expect(verifyKernel({ name: 'k', params: [x, y], sizes: [], grid: [], body: [] })).toEqual([
      'k: x is never used',
      'k: y is never used',
    ]);
  });
  it('views and refs', () => {
    expect(of(load(a, view(x, [0])))).toEqual(['k: x has 2 dims, 1 were said']);
    expect(of(load(a, view(x, [0, 0], { index: ref(i) })))).toEqual(['k: x is picked by i f32 [4 x 1], not i32 [4 x 1]']);
    expect(of(map(part(a, [0, 4], [4, 8]), 0))).toEqual(['k: the window [4 x 8] at [0,4] leaves a [4 x 8]']);
    expect(of(map({ tile: a, as: [8, 8] }, 0))).toEqual(['k: a [4 x 8] is no [8 x 8]']);
  });
  it('shapes', () => {
    expect(of(map(a, plus(r, tile('b', 1, 4))))).toEqual(['k: b [1 x 4] does not spread to [4 x 8]']);
    expect(of(sum(r, [4, 8], 0, a))).toEqual(['k: sum gives [1 x 8], r is [4 x 1]']);
    expect(of(contract(tile('c', 4, 4), held(a), heldT(a), 8, 8))).toEqual([
      'k: a gives 8 rows to a contraction of 4',
      'k: c contracts over 8, an operand holds 4',
    ]);
  });
});
