// Memory plans: what shares bytes, what must not, and that the checker sees every broken plan.
import { describe, expect, it } from '@jest/globals';
import { Builder } from '../ir/build.js';
import type { Graph } from '../ir/graph.js';
import type { Buffer, Launch, Program } from '../ir/program.js';
import { f32 } from '../ir/storage.js';
import { input, type Kernel, output } from '../ir/tile.js';
import { lives, planMemory, planObjections } from '../src/passes/plan-memory.js';

const graph: Graph = new Builder().finish('none', { tokens: 1, wanted: 1, sequences: 1, context: 1 }, {});
const buffer = (name: string, bytes: number): Buffer => ({ name, bytes, offset: -1, type: { shape: [bytes / 4], storage: f32 } });
/** A launch that reads some buffers and writes others. */
function launch(reads: readonly string[], writes: readonly string[]): Launch {
  const params = [...reads.map(r => input(r, [1])), ...writes.map(w => output(w, [1]))];
  const kernel: Kernel = { name: 'k', params, sizes: [], grid: [], body: [] };
  const args = [...reads, ...writes].map(b => ({ kind: 'buffer', buffer: b }) as const);
  const value = {
    op: 'input',
    name: writes.join('+'),
    type: { shape: [1], storage: f32 },
    inputs: {},
    attributes: { which: 'ids' },
    origin: { role: '', layer: -1, parts: [], passes: [] },
  } as const;
  return { value, last: true, also: [], layer: -1, rows: 1, variants: [{ upTo: null, kernel, args, sizes: [] }], outputs: [] };
}
const program = (buffers: readonly Buffer[], launches: readonly Launch[], outputs: Record<string, string> = {}): Program => ({
  graph,
  buffers,
  launches,
  outputs,
  arena: 0,
  weights: [],
  states: [],
});
const offsets = (p: Program): Record<string, number> => Object.fromEntries(p.buffers.map(b => [b.name, b.offset]));

/** a -> b -> c -> d, each read once. */
const chain = program(
  ['a', 'b', 'c', 'd'].map(n => buffer(n, 100)),
  [launch([], ['a']), launch(['a'], ['b']), launch(['b'], ['c']), launch(['c'], ['d'])],
  { y: 'd' },
);

describe('plan-memory', () => {
  it('lets a chain live in two places, on multiples of 64', () => {
    const planned = planMemory(chain);
    expect(offsets(planned)).toEqual({ a: 0, b: 128, c: 0, d: 128 });
    expect(planned.arena).toBe(256);
    expect(planObjections(planned)).toEqual([]);
  });
  it('keeps what is asked for to the end', () => {
    const planned = planMemory(chain, { keep: ['a'] });
    expect(lives(chain, { keep: ['a'] }).get('a')).toEqual({ from: 0, to: 4 });
    expect(planned.buffers.filter(b => b.name !== 'a').every(b => b.offset >= 128)).toBe(true);
    expect(planMemory(chain, { keep: 'all' }).arena).toBe(512);
  });
  it('puts a buffer into the smallest gap that holds it', () => {
    // at the last launch wide and narrow are dead: small goes where narrow was, though wide comes first
    const p = program(
      [buffer('wide', 1024), buffer('wall', 512), buffer('narrow', 64), buffer('small', 64), buffer('end', 4)],
      [launch([], ['wide', 'wall', 'narrow']), launch(['wide', 'narrow'], ['end']), launch(['wall', 'end'], ['small'])],
      { y: 'small' },
    );
    expect(offsets(planMemory(p))).toEqual({ wide: 0, wall: 1024, narrow: 1536, small: 1536, end: 1600 });
  });
  it('leaves out buffers that no launch names', () => {
    expect(planMemory(program([buffer('a', 4), buffer('unused', 4)], [launch([], ['a'])])).buffers.map(b => b.name)).toEqual(['a']);
  });
  it('says what is wrong with a broken plan, all of it', () => {
    const planned = planMemory(chain);
    const moved = { ...planned, buffers: planned.buffers.map(b => (b.name === 'b' ? { ...b, offset: 32 } : b)), arena: 200 };
    expect(planObjections(moved)).toEqual([
      'b lies at 32, not at a multiple of 64',
      'd ends at 228, past the arena of 200 bytes',
      'a and b are alive at once and overlap',
      'b and c are alive at once and overlap',
    ]);
    expect(planObjections(planMemory(program([buffer('a', 4), buffer('b', 4)], [launch(['a'], ['b'])])))).toEqual([
      `b reads a before it is written`,
    ]);
  });
  it('never overlaps living buffers in 300 random programs, and never needs more than all side by side', () => {
    let s = 1;
    const roll = (n: number): number => {
      s = (Math.imul(s, 1103515245) + 12345) >>> 0;
      return Math.floor((s / 2 ** 32) * n);
    };
    for (let round = 0; round < 300; round++) {
      const count = 2 + roll(30);
      const buffers = Array.from({ length: count }, (_, i) => buffer(`b${i}`, 4 * (1 + roll(500))));
      const launches = buffers.map((b, i) => launch(i === 0 ? [] : [`b${roll(i)}`, `b${roll(i)}`], [b.name]));
      const keep = buffers.filter(() => roll(8) === 0).map(b => b.name);
      const planned = planMemory(program(buffers, launches, { y: `b${count - 1}` }), { keep });
      expect(planObjections(planned, { keep })).toEqual([]);
      expect(planned.buffers.length).toBe(count);
      expect(planned.arena).toBeLessThanOrEqual(buffers.reduce((n, b) => n + Math.ceil(b.bytes / 64) * 64, 0));
    }
  });
});
