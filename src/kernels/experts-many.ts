// Routed experts for many rows, without atomics: every (row, place) entry is given a line in expert order, each expert's lines padded to
// whole blocks of `m`; a block then belongs to one expert and reads its weights once. Each line and each result has one writer.
import {
  add,
  as,
  ceil,
  ceildiv,
  columnNumber,
  contract,
  eq,
  floor,
  type Int,
  i32,
  input,
  int,
  type Kernel,
  le,
  less,
  load,
  loop,
  lt,
  map,
  minus,
  mul,
  output,
  over,
  peek,
  plus,
  ref,
  rowNumber,
  scan,
  select,
  stacked,
  store,
  stream,
  sum,
  sym,
  tile,
  times,
  view,
  when,
} from '../../ir/tile.js';
import type { ExpertsSpec } from './experts-few.js';
import type { MatmulTiles } from './matmul.js';
import { gated } from './swiglu.js';

interface Spec {
  readonly spec: ExpertsSpec;
  readonly tiles: MatmulTiles;
}
const rows = sym('rows');
/** Blocks of `m` lines: as many as the entries can fill, and one begun by each expert. */
export const blocksOf = (entries: Int, experts: number, m: number): Int => add(ceildiv(entries, m), experts);

export interface PlanSpec {
  readonly experts: number;
  readonly k: number;
  readonly m: number;
  /** Entries looked at in one go. */
  readonly chunk: number;
}

/** Every line starts without an entry: -> entry_of i32 [lines, 1], all -1. */
export function expertLines(name: string, { experts, k, m }: PlanSpec): Kernel {
  const blocks = blocksOf(times(rows, k), experts, m);
  const entryOf = output('entry_of', [times(blocks, m), 1], i32);
  const none = tile('none', m, 1, 'i32');
  return {
    name,
    params: [entryOf],
    sizes: ['rows'],
    grid: [{ name: 'block', count: blocks }],
    body: [map(none, -1), store(view(entryOf, [times(sym('block'), m), 0]), none)],
  };
}

/**
 * indices i32 [rows, k] -> line_of i32 [rows * k, 1]: the line of entry row * k + place; entry_of i32 [lines, 1]: the entry of a line, written
 * where there is one; expert_of i32 [blocks, 1]: the expert of a block, `experts` where nobody uses it.
 */
export function expertPlan(name: string, { experts, k, m, chunk }: PlanSpec): Kernel {
  const entries = times(rows, k);
  const blocks = blocksOf(entries, experts, m);
  const indices = input('indices', [rows, k], i32);
  const lineOf = output('line_of', [entries, 1], i32);
  const entryOf = output('entry_of', [times(blocks, m), 1], i32);
  const expertOf = output('expert_of', [blocks, 1], i32);
  const across = tile('across', 1, chunk, 'i32');
  const down = tile('down', chunk, 1, 'i32');
  const count = tile('count', experts, 1);
  const here = tile('here', experts, 1);
  const room = tile('room', experts, 1);
  const next = tile('next', experts, 1);
  const end = tile('end', experts, 1);
  const passed = tile('passed', 1, chunk);
  const owner = tile('owner', chunk, 1, 'i32');
  const start = tile('start', chunk, 1);
  const before = tile('before', chunk, 1);
  const line = tile('line', chunk, 1, 'i32');
  const entry = tile('entry', chunk, 1, 'i32');
  const turns = ceildiv(entries, chunk);
  // entries of a chunk in a row and in a column; -1 past the last, which equals no expert
  const row = (c: Int) => view(indices, [0, times(c, chunk)], { as: [1, entries], pad: -1 });
  const column = (c: Int) => view(indices, [times(c, chunk), 0], { as: [entries, 1], pad: -1 });
  const counted = sum(here, [experts, chunk], 1, select(eq(across, rowNumber), 1, 0));
  return {
    name,
    params: [indices, lineOf, entryOf, expertOf],
    sizes: ['rows'],
    grid: [{ name: 'one', count: 1 }],
    body: [
      map(count, 0),
      loop('a', turns, a => [load(across, row(a)), counted, map(count, plus(count, here))]),
      map(room, mul(ceil(mul(minus(count, 0.5), 1 / m)), m)), // a count of 0 takes no room
      scan(next, room),
      map(end, plus(next, room)),
      loop('b', ceildiv(blocks, chunk), b => [
        sum(passed, [experts, chunk], 0, select(le(end, mul(plus(columnNumber, int(times(b, chunk))), m)), 1, 0)),
        map(owner, as(passed, chunk, 1)),
        store(view(expertOf, [times(b, chunk), 0]), owner),
      ]),
      loop('c', turns, c => [
        load(across, row(c)),
        load(down, column(c)),
        sum(start, [chunk, experts], 1, select(eq(columnNumber, down), as(next, 1, experts), 0)),
        sum(before, [chunk, chunk], 1, select(eq(across, down), select(lt(columnNumber, rowNumber), 1, 0), 0)),
        map(line, plus(start, before)),
        store(view(lineOf, [times(c, chunk), 0]), line),
        map(line, select(lt(down, 0), -1, line)),
        map(entry, plus(rowNumber, int(times(c, chunk)))),
        store(view(entryOf, [0, 0], { index: ref(line) }), entry),
        counted,
        map(next, plus(next, here)),
      ]),
    ],
  };
}

/** x [rows, width], weights [rows, k] (weigh before only), entry_of, expert_of, gate and up [experts, inner, width] -> h [lines, inner]. */
export function expertsUp(name: string, { spec, tiles: { m, n, k: depth } }: Spec): Kernel {
  const { experts, k, inner, width } = spec;
  const entries = times(rows, k);
  const blocks = blocksOf(entries, experts, m);
  const x = input('x', [rows, width]);
  const weights = input('weights', [rows, k]);
  const entryOf = input('entry_of', [times(blocks, m), 1], i32);
  const expertOf = input('expert_of', [blocks, 1], i32);
  const gate = stacked('gate', [experts, inner, width], spec.gate);
  const up = stacked('up', [experts, inner, width], spec.up);
  const h = output('h', [times(blocks, m), inner]);
  const entry = tile('entry', m, 1, 'i32');
  const row = tile('row', m, 1, 'i32');
  const g = tile('g', m, n);
  const u = tile('u', m, n);
  const w = tile('w', m, 1);
  const block = sym('block');
  const j = times(sym('j'), n);
  const e = peek(expertOf, block, 0);
  const xs = stream(view(x, [0, 0], { index: ref(row) }));
  const before = spec.weigh === 'before';
  return {
    name,
    params: before ? [x, weights, entryOf, expertOf, gate, up, h] : [x, entryOf, expertOf, gate, up, h],
    sizes: ['rows'],
    grid: [
      { name: 'block', count: blocks },
      { name: 'j', count: ceildiv(inner, n) },
    ],
    body: [
      when('used', less(e, experts), [
        load(entry, view(entryOf, [times(block, m), 0])),
        map(row, floor(over(plus(entry, 0.5), k))), // whole division; -1 stays below 0
        contract(g, xs, stream(view(gate, [e, j, 0])), width, depth),
        contract(u, xs, stream(view(up, [e, j, 0])), width, depth),
        map(g, gated(g, u, spec.limit)),
        ...(before ? [load(w, view(weights, [0, 0], { as: [entries, 1], index: ref(entry) })), map(g, mul(g, w))] : []),
        store(view(h, [times(block, m), j]), g),
      ]),
    ],
  };
}

/** h [lines, inner], expert_of, down [experts, width, inner] -> z [lines, width]. */
export function expertsDown(name: string, { spec, tiles: { m, n, k: depth } }: Spec): Kernel {
  const { experts, k, inner, width } = spec;
  const blocks = blocksOf(times(rows, k), experts, m);
  const h = input('h', [times(blocks, m), inner]);
  const expertOf = input('expert_of', [blocks, 1], i32);
  const down = stacked('down', [experts, width, inner], spec.down);
  const z = output('z', [times(blocks, m), width]);
  const acc = tile('acc', m, n);
  const block = sym('block');
  const j = times(sym('j'), n);
  const e = peek(expertOf, block, 0);
  return {
    name,
    params: [h, expertOf, down, z],
    sizes: ['rows'],
    grid: [
      { name: 'block', count: blocks },
      { name: 'j', count: ceildiv(width, n) },
    ],
    body: [
      when('used', less(e, experts), [
        contract(acc, stream(view(h, [times(block, m), 0])), stream(view(down, [e, j, 0])), inner, depth),
        store(view(z, [times(block, m), j]), acc),
      ]),
    ],
  };
}

/** z [lines, width], line_of i32 [rows * k, 1], weights [rows, k] (weigh after only) -> y [rows, width]. */
export function expertsCombine(
  name: string,
  { spec, m, chunk }: { readonly spec: ExpertsSpec; readonly m: number; readonly chunk: number },
): Kernel {
  const { experts, k, width } = spec;
  const entries = times(rows, k);
  const blocks = blocksOf(entries, experts, m);
  const z = input('z', [times(blocks, m), width]);
  const lineOf = input('line_of', [entries, 1], i32);
  const weights = input('weights', [rows, k]);
  const y = output('y', [rows, width]);
  const line = tile('line', k, 1, 'i32');
  const w = tile('w', k, 1);
  const zs = tile('zs', k, chunk);
  const all = tile('all', 1, chunk);
  const t = sym('t');
  const j = times(sym('j'), chunk);
  const after = spec.weigh === 'after';
  return {
    name,
    params: after ? [z, lineOf, weights, y] : [z, lineOf, y],
    sizes: ['rows'],
    grid: [
      { name: 't', count: rows },
      { name: 'j', count: ceildiv(width, chunk) },
    ],
    body: [
      load(line, view(lineOf, [times(t, k), 0])),
      load(zs, view(z, [0, j], { index: ref(line) })),
      ...(after
        ? [load(w, view(weights, [times(t, k), 0], { as: [entries, 1] })), sum(all, [k, chunk], 0, mul(zs, w))]
        : [sum(all, [k, chunk], 0, zs)]),
      store(view(y, [t, j]), all),
    ],
  };
}
