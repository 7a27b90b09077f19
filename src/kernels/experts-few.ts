// Routed experts for few rows: each (row, chosen expert) by itself, so only the chosen experts' bytes are read and nothing is sorted.
import type { Storage } from '../../ir/storage.js';
import {
  ceildiv,
  contract,
  i32,
  input,
  type Kernel,
  load,
  loop,
  map,
  mul,
  output,
  peek,
  plus,
  stacked,
  store,
  stream,
  sym,
  tile,
  times,
  view,
} from '../../ir/tile.js';
import { gated } from './swiglu.js';

export interface ExpertsSpec {
  readonly experts: number;
  readonly k: number;
  /** Width of x and y. */
  readonly width: number;
  readonly inner: number;
  readonly gate: Storage;
  readonly up: Storage;
  readonly down: Storage;
  readonly limit: number | null;
  /** The weight meets the activation before `down`, or the result after it. */
  readonly weigh: 'after' | 'before';
}
export interface FewTiles {
  /** Outputs a block gives. */
  readonly n: number;
  readonly k: number;
}

/** x [rows, width], indices i32 [rows, k], weights [rows, k] (weigh before only), gate and up [experts, inner, width] -> h [rows, k, inner]. */
export function expertsFewUp(name: string, { spec, tiles }: { readonly spec: ExpertsSpec; readonly tiles: FewTiles }): Kernel {
  const rows = sym('rows');
  const x = input('x', [rows, spec.width]);
  const indices = input('indices', [rows, spec.k], i32);
  const weights = input('weights', [rows, spec.k]);
  const gate = stacked('gate', [spec.experts, spec.inner, spec.width], spec.gate);
  const up = stacked('up', [spec.experts, spec.inner, spec.width], spec.up);
  const h = output('h', [rows, spec.k, spec.inner]);
  const g = tile('g', 1, tiles.n);
  const u = tile('u', 1, tiles.n);
  const w = tile('w', 1, 1);
  const t = sym('t');
  const place = sym('place');
  const j = times(sym('j'), tiles.n);
  const e = peek(indices, t, place);
  const before = spec.weigh === 'before';
  return {
    name,
    params: before ? [x, indices, weights, gate, up, h] : [x, indices, gate, up, h],
    sizes: ['rows'],
    grid: [
      { name: 't', count: rows },
      { name: 'place', count: spec.k },
      { name: 'j', count: ceildiv(spec.inner, tiles.n) },
    ],
    body: [
      contract(g, stream(view(x, [t, 0])), stream(view(gate, [e, j, 0])), spec.width, tiles.k),
      contract(u, stream(view(x, [t, 0])), stream(view(up, [e, j, 0])), spec.width, tiles.k),
      map(g, gated(g, u, spec.limit)),
      ...(before ? [load(w, view(weights, [t, place])), map(g, mul(g, w))] : []),
      store(view(h, [t, place, j]), g),
    ],
  };
}

/** h [rows, k, inner], indices i32 [rows, k], weights [rows, k] (weigh after only), down [experts, width, inner] -> y [rows, width]. */
export function expertsFewDown(name: string, { spec, tiles }: { readonly spec: ExpertsSpec; readonly tiles: FewTiles }): Kernel {
  const rows = sym('rows');
  const h = input('h', [rows, spec.k, spec.inner]);
  const indices = input('indices', [rows, spec.k], i32);
  const weights = input('weights', [rows, spec.k]);
  const down = stacked('down', [spec.experts, spec.width, spec.inner], spec.down);
  const y = output('y', [rows, spec.width]);
  const acc = tile('acc', 1, tiles.n);
  const all = tile('all', 1, tiles.n);
  const w = tile('w', 1, 1);
  const t = sym('t');
  const j = times(sym('j'), tiles.n);
  const after = spec.weigh === 'after';
  return {
    name,
    params: after ? [h, indices, weights, down, y] : [h, indices, down, y],
    sizes: ['rows'],
    grid: [
      { name: 't', count: rows },
      { name: 'j', count: ceildiv(spec.width, tiles.n) },
    ],
    body: [
      map(all, 0),
      loop('place', spec.k, place => [
        contract(acc, stream(view(h, [t, place, 0])), stream(view(down, [peek(indices, t, place), j, 0])), spec.inner, tiles.k),
        ...(after ? [load(w, view(weights, [t, place])), map(all, plus(all, mul(acc, w)))] : [map(all, plus(all, acc))]),
      ]),
      store(view(y, [t, j]), all),
    ],
  };
}
