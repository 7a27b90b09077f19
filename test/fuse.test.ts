// Fusing: every fused launch of the golden models against its own unfused graph, what fusing counts, and what it leaves alone.
import { closeSync, openSync, readdirSync, readFileSync, readSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from '@jest/globals';
import { Builder } from '../ir/build.js';
import { type Dim, type Graph, inputsOf, type Limits, type Span, sizeOf, type Value, type ValueOf } from '../ir/graph.js';
import type { OpName, Ops } from '../ir/ops.js';
import type { Launch, Program } from '../ir/program.js';
import type { Kernel } from '../ir/tile.js';
import { parseConfig } from '../src/checkpoint/config.js';
import { openCheckpoint } from '../src/checkpoint/shards.js';
import { fusedReport } from '../src/fused.js';
import { buildModel, defaultOptions } from '../src/models/index.js';
import { type FusionName, fusionNames } from '../src/passes/fuse.js';
import { totalOf, trafficOf } from '../src/passes/fuse-traffic.js';
import { lower } from '../src/passes/index.js';
import { fusedCases } from './fused-cases.js';
import { prepare } from './kernel-cases.js';
import { type Call, type PartBytes, type Result, runPrograms } from './run-program.js';

const tiny = fileURLToPath(new URL('../fixtures/tiny/', import.meta.url));
const configs = fileURLToPath(new URL('../fixtures/configs/', import.meta.url));
const limits: Limits = { tokens: 16, wanted: 16, sequences: 2, context: 256 };
const modelOf = (name: string): Graph => {
  const { config, tensors } = openCheckpoint(join(tiny, name));
  return buildModel(config, tensors, { ...defaultOptions(config), limits, mtp: true }).graph;
};

/** What a launch computes, in the graph's order. */
const valuesOf = (l: Launch, g: Graph): readonly Value[] => {
  const own = new Set([...(l.fused ?? []), ...l.also, l.value]);
  return g.values.filter(v => own.has(v));
};

interface Body {
  readonly graph: Graph;
  /** Names of weights that are made up. */
  readonly made: ReadonlySet<string>;
  readonly results: readonly Value[];
}
/** The unfused graph of a launch by itself: what it reads from other launches is made up, what it writes is an output, or read from its state. */
function bodyOf(values: readonly Value[], written: readonly Value[]): Body {
  const b = new Builder();
  const made = new Set<string>();
  const now = new Map<Value, Value>();
  const makeUp = (v: Value): Value => {
    made.add(`${v.name}_in`);
    const x = b.declare('weight', `${v.name}_in`, v.type, {}, {});
    // a buffer that another launch wrote, not a weight
    return v.type.storage.element === 'i32' ? x : b.add('scale', v.name, { x }, { by: 1 });
  };
  const again = (v: Value): Value => {
    const inputs = Object.fromEntries(inputsOf(v).map(([n, i]) => [n, here(i)]));
    return b.declare(v.op as OpName, v.name, v.type, inputs as Ops[OpName]['inputs'], v.attributes as never, v.origin) as Value;
  };
  const here = (v: Value): Value => {
    const known = now.get(v);
    if (known) return known;
    // a state of another launch has this call's rows
    const x =
      values.includes(v) || v.op === 'weight' || v.op === 'input' || v.op === 'state'
        ? again(v)
        : v.op === 'append'
          ? b.add(
              'append',
              v.name,
              {
                state: here(v.inputs.state),
                rows: makeUp(v.inputs.rows),
                positions: here(v.inputs.positions),
                sequences: here(v.inputs.sequences),
              },
              v.attributes,
            )
          : makeUp(v);
    now.set(v, x);
    return x;
  };
  const results = written.map(v => (v.op === 'append' ? readBack(b, v, here(v), made) : here(v)));
  // one output that asks for all of them, as the logits do in a model
  const probes = results.flatMap((y, i) =>
    y.type.storage.element === 'i32'
      ? []
      : [b.add('scale', `probe${i}`, { x: b.add('slice', `column${i}`, { x: y }, { from: 0, size: 1 }) }, { by: 1 })],
  );
  const all = probes.reduce<Value>((sum, p, i) => (i === 0 ? p : b.add('add', `sum${i}`, { a: sum, b: p }, {})), probes[0] as Value);
  return { graph: b.finish('body', limits, { all }), made, results };
}
/** What a state holds, as one head sees it. */
function readBack(b: Builder, v: ValueOf<'append'>, state: Value, made: Set<string>): Value {
  const { positions, sequences } = { positions: 'positions', sequences: 'sequences' } as const;
  const input = (which: 'positions' | 'sequences'): Value => {
    const of = (v.inputs as Readonly<Record<string, Value>>)[which] as Value;
    return inputNamed(b, state, of.name);
  };
  const width = v.type.shape[2] as number;
  const make = (name: string, columns: number): Value => {
    made.add(`${v.name}.${name}`);
    return b.declare(
      'weight',
      `${v.name}.${name}`,
      { shape: [v.inputs.rows.type.shape[0] as Dim, columns], storage: { kind: 'plain', element: 'f32' } },
      {},
      {},
    );
  };
  const places = { positions: input(positions), sequences: input(sequences) };
  const root = rootOf(v);
  if (root.attributes.kind === 'log')
    return b.add(
      'index_scores',
      `${v.name}.read`,
      { q: make('q', width), weights: make('w', 1), state, ...places },
      { heads: 1, width, ratio: v.attributes.every },
    );
  const window = sizeOf(root.type.shape[1] as Dim, limits) - limits.tokens;
  return b.add(
    'attention',
    `${v.name}.read`,
    { q: make('q', width), state, ...places },
    { heads: 1, kvHeads: 1, width, keyOffset: 0, valueOffset: 0, valueWidth: width, scale: 0.3, window: Math.max(1, window), ratio: 1 },
  );
}
function inputNamed(_: Builder, state: Value, name: string): Value {
  const found = inputsOf(state).find(([, i]) => i.name === name);
  if (!found) throw new Error(`${state.name} has no ${name}`);
  return found[1];
}
const rootOf = (v: Value): ValueOf<'state'> => {
  if (v.op === 'append') return rootOf(v.inputs.state);
  if (v.op !== 'state') throw new Error(`${v.name} is no state`);
  return v;
};

const spanOf = (directory: string, s: Span): Uint8Array => {
  const bytes = new Uint8Array(s.bytes[1] - s.bytes[0]);
  const fd = openSync(join(directory, s.file), 'r');
  readSync(fd, bytes, 0, bytes.length, s.bytes[0]);
  closeSync(fd);
  return bytes;
};
/** Numbers in [-1, 1) that every run draws alike; whole numbers are small, and none where there may be none. */
function madeUp(w: ValueOf<'weight'>): PartBytes[] {
  const count = w.type.shape.reduce<number>((n, d) => n * sizeOf(d, limits), 1);
  const columns = w.type.shape.at(-1) as number;
  let s = 1;
  for (const c of w.name) s = (Math.imul(s, 31) + c.charCodeAt(0)) >>> 0;
  const draw = (): number => (s = (Math.imul(s, 1664525) + 1013904223) >>> 0) / 2 ** 31 - 1;
  const values =
    w.type.storage.element === 'i32'
      ? Int32Array.from({ length: count }, (_, i) => (i % columns === 0 ? 0 : (i % columns) % 3))
      : Float32Array.from({ length: count }, draw);
  return [{ codes: new Uint8Array(values.buffer) }];
}

const from = (first: number, count: number): number[] => Array.from({ length: count }, (_, i) => first + i);
/** Enough rows for every variant: many, one, a few. */
/** A graph with made-up weights has no files to check. */
const verify = (): readonly string[] => [];
const calls = [from(0, 15), [15], from(16, 5)].map((positions): Call => {
  const ids = positions.map(p => (p * 7) % 100);
  return {
    inputs: { ids, next_ids: ids, positions, sequences: positions.map(() => 1), wanted: positions.map((_, i) => positions.length - 1 - i) },
  };
});

describe('every fused launch of the golden models gives what its unfused graph gives', () => {
  for (const name of readdirSync(tiny).filter(n => n !== 'README.md'))
    it(name, () => {
      const whole = modelOf(name);
      const program = lower(whole);
      // launches that are alike but for their layer are run once
      const bodies = new Map<string, readonly [values: readonly Value[], written: readonly Value[]]>();
      for (const l of program.launches) {
        const values = valuesOf(l, program.graph);
        if (values.length < 2) continue;
        const word = JSON.stringify(
          values.map(v => [v.op, v.type, v.attributes, inputsOf(v).map(([n, i]) => [n, i.type, values.indexOf(i)])]),
        );
        if (!bodies.has(word)) bodies.set(word, [values, [...l.also, l.value]]);
      }
      expect(bodies.size).toBeGreaterThan(name.includes('distill') ? 3 : 7);
      const directory = join(tiny, name);
      const pairs = [...bodies.values()].map(([values, written]) => {
        const { graph, made, results } = bodyOf(values, written);
        const keep = results.map(v => v.name);
        const weight = (w: ValueOf<'weight'>): PartBytes[] =>
          made.has(w.name)
            ? madeUp(w)
            : w.origin.parts.map(p => ({ codes: spanOf(directory, p), ...(p.scale ? { scales: spanOf(directory, p.scale) } : {}) }));
        const [fused, apart] = [lower(graph, { verify, keep }), lower(graph, { verify, keep, unfused: 'all' })] as [Program, Program];
        expect(fused.launches.length).toBeLessThan(apart.launches.length);
        return { values, results, runs: [fused, apart].map(p => ({ program: p, weight, calls })) };
      });
      const results = runPrograms(pairs.flatMap(p => p.runs));
      pairs.forEach(({ values, results: wanted }, i) => {
        const [fused, apart] = results.slice(2 * i, 2 * i + 2) as [readonly Result[], readonly Result[]];
        const ops = values.map(v => v.op).join(' ');
        for (const { name } of wanted) {
          let largest = 0;
          let worst = 0;
          calls.forEach((_, c) => {
            const [a, b] = [[...fused[c]!(name)], [...apart[c]!(name)]];
            const top = Math.max(...b.map(x => (Math.abs(x) < 1e29 ? Math.abs(x) : 0)));
            largest = Math.max(largest, top);
            worst = Math.max(worst, ...a.map((x, k) => (x === b[k] ? 0 : Math.abs(x - (b[k] as number)) / top)));
          });
          expect([ops, name, worst <= 2e-6]).toEqual([ops, name, true]);
          // entries for more positions than these calls have are not written
          if (!values.some(v => v.op === 'append' && v.attributes.every > 16)) expect([ops, name, largest > 0]).toEqual([ops, name, true]);
        }
      });
    });
});

describe('the best token', () => {
  for (const name of ['v3-tiny-fp8', 'v4-tiny', 'qwen2-distill-tiny'])
    it(`${name}: is the largest logit's, and logits are not written`, () => {
      const directory = join(tiny, name);
      const graph = modelOf(name);
      const weight = (w: ValueOf<'weight'>): PartBytes[] =>
        w.origin.parts.map(p => ({ codes: spanOf(directory, p), ...(p.scale ? { scales: spanOf(directory, p.scale) } : {}) }));
      const [whole, best] = [lower(graph), lower(graph, { bestToken: true })] as [Program, Program];
      expect(Object.keys(best.outputs)).toEqual(Object.keys(whole.outputs).map(o => o.replace('logits', 'next')));
      expect(best.buffers.some(b => /(^|\.)logits$/.test(b.name))).toBe(false);
      const [logits, next] = runPrograms([whole, best].map(program => ({ program, weight, calls }))) as [Result[], Result[]];
      calls.forEach((call, c) => {
        for (const output of Object.keys(whole.outputs)) {
          const rows = logits[c]!(output);
          const width = rows.length / call.inputs.wanted!.length;
          const largest = call.inputs.wanted!.map((_, i) => {
            const row = [...rows.subarray(i * width, (i + 1) * width)];
            return row.indexOf(Math.max(...row));
          });
          expect([...next[c]!(output.replace('logits', 'next'))]).toEqual(largest);
        }
      });
    });
});

describe('where a chip cannot hold a fused kernel', () => {
  const objections: readonly (readonly [what: string, objection: (k: Kernel) => string | null])[] = [
    ['values are launched one by one', k => (/turned|cache|hc_norm|rows_/.test(k.name) ? 'too large' : null)],
    ['launches are beside each other for few rows only', k => (/_and_/.test(k.name) && !/_upto/.test(k.name) ? 'too large' : null)],
  ];
  for (const name of ['llama-distill-tiny', 'v32-tiny', 'v4-tiny'])
    for (const [what, objection] of objections)
      it(`${what}: ${name}`, () => {
        const directory = join(tiny, name);
        const graph = modelOf(name);
        const weight = (w: ValueOf<'weight'>): PartBytes[] =>
          w.origin.parts.map(p => ({ codes: spanOf(directory, p), ...(p.scale ? { scales: spanOf(directory, p.scale) } : {}) }));
        const [held, free, apart] = [lower(graph, { objection }), lower(graph), lower(graph, { unfused: 'all' })] as [
          Program,
          Program,
          Program,
        ];
        for (const l of held.launches) for (const v of l.variants) if (v.kernel) expect(objection(v.kernel)).toBeNull();
        const count = (p: Program, tokens: number): number => totalOf(trafficOf(p, { tokens, context: 100 })).kernels;
        expect(count(held, 15)).toBeGreaterThan(count(free, 15));
        expect(count(held, 15)).toBeLessThan(count(apart, 15));
        if (what.includes('few')) expect(count(held, 1)).toBeLessThan(count(held, 15));
        const [a, b] = runPrograms([held, apart].map(program => ({ program, weight, calls }))) as [Result[], Result[]];
        calls.forEach((_, c) => {
          for (const output of Object.keys(graph.outputs)) {
            const want = b[c]!(output);
            const worst = Math.max(...a[c]!(output).map((x, i) => Math.abs(x - (want[i] as number))));
            expect([output, worst < 2e-5]).toEqual([output, true]);
          }
        });
      });
});

describe('fusing', () => {
  const graphOf = (name: string): Graph => {
    const config = parseConfig(readFileSync(`${configs}${name}.json`, 'utf8'), name);
    return buildModel(config, null).graph;
  };
  it('is in every case that stands for one, and in none with its name left out', () => {
    for (const [i, c] of fusedCases.entries()) {
      const [fused, apart] = [prepare(c, i).program, prepare(c, i, { unfused: 'all' }).program];
      expect([c.name, fused.launches.some(l => l.fused !== undefined || l.also.length > 0)]).toEqual([c.name, true]);
      expect(apart.launches.every(l => l.fused === undefined && l.also.length === 0)).toBe(true);
    }
    // each name is of use: some case has other launches without it
    const said = (c: (typeof fusedCases)[0], i: number, unfused: readonly FusionName[]): string =>
      JSON.stringify(prepare(c, i, { unfused }).program.launches.map(l => l.variants.map(v => v.kernel?.name)));
    const elsewhere = ['gate-up', 'sum', 'query', 'columns'];
    for (const f of fusionNames.filter(n => !elsewhere.includes(n)))
      expect([f, fusedCases.some((c, i) => said(c, i, []) !== said(c, i, [f]))]).toEqual([f, true]);
  });
  it('halves the kernels of a token, and moves fewer bytes between them', () => {
    for (const [name, most] of [
      ['DeepSeek-V3', 0.6],
      ['DeepSeek-V3.2', 0.55],
      ['DeepSeek-V4-Flash', 0.5],
      ['Kimi-K2-Instruct', 0.6],
      ['DeepSeek-R1-Distill-Qwen-7B', 0.6],
    ] as const) {
      const g = graphOf(name);
      const [fused, apart] = [lower(g), lower(g, { unfused: 'all' })].map(p => totalOf(trafficOf(p, { tokens: 1, context: 4096 })));
      expect([name, fused!.kernels / apart!.kernels < most]).toEqual([name, true]);
      expect(fused!.rows).toBeLessThan(apart!.rows);
      // a weight that several products beside each other share is read once
      expect(fused!.weights).toBeLessThanOrEqual(apart!.weights);
      expect(fused!.states).toBe(apart!.states);
    }
  });
  it('counts a token by hand', () => {
    // 28 layers: per layer norm, q k v with their turns and cache entries, attention and its combination, o, norm, gate and up, down; embedding,
    // last norm, head
    const g = graphOf('DeepSeek-R1-Distill-Qwen-7B');
    const all = trafficOf(lower(g), { tokens: 1, context: 1000 });
    expect(totalOf(all).kernels).toBe(28 * 8 + 3);
    // keys and values of 4 heads of 128 in f32: written once, 1000 of them read
    const layer = all.filter(t => t.launch.layer === 3);
    expect(layer.map(t => t.states)).toEqual([0, 4096, 4_096_000, 0, 0, 0, 0, 0].map((n, i) => (layer[i]!.launch.layer === 3 ? n : -1)));
  });
  it('shows launches before and after, and says what they move', () => {
    const g = modelOf('v3-tiny-bf16');
    const shown: string[] = [];
    lower(g, { dump: 'fuse', onFuse: (before, after) => shown.push(before, after) });
    const [before, after] = shown as [string, string];
    const at = { tokens: 1, context: g.limits.context };
    const totals = [lower(g, { unfused: 'all' }), lower(g)].map(p => totalOf(trafficOf(p, at)));
    [before, after].forEach((text, i) =>
      expect(text.split('\n')[0]).toBe(
        `${totals[i]!.kernels} kernels a token, ${totals[i]!.rows} bytes of rows between them at ${at.context} positions`,
      ),
    );
    expect(before).toMatch(/\n {2}rope_4x40 +q\n/);
    expect(after).toMatch(/\n {2}linear_160x40_bf16_turned_upto1 +q_b_proj, q\n/);
    // norm, down-projections, norm and cache entry, query, its latent, attention, values, output; norm, router beside gate and up, choice, two of experts, down
    const layer = after.split('\n').slice(after.split('\n').findIndex(l => l.startsWith('layers 1, 2:')));
    expect(layer[0]).toBe('layers 1, 2: 14 kernels');
    const report = fusedReport(g);
    expect([report.apart.kernels, report.fused.kernels]).toEqual(totals.map(t => t.kernels));
    expect(report.layers.find(l => l.place === 'layers 1, 2')?.launches.map(l => l.kernel)).toEqual(
      layer.slice(1, 15).map(l => l.trim().split(' ')[0]),
    );
    const quiet: string[] = [];
    lower(g, { dump: 'absorb-mla', onFuse: before => quiet.push(before) });
    expect(quiet).toEqual([]);
  });
  it('saves what docs/fusion.md says', () => {
    const text = readFileSync(fileURLToPath(new URL('../docs/fusion.md', import.meta.url)), 'utf8');
    const rows = [...text.matchAll(/^\| ((?:DeepSeek|Kimi)\S+) \|.*$/gm)];
    expect(rows.length).toBe(6);
    const grouped = (n: number): string => String(n).replace(/\B(?=(\d{3})+$)/g, ',');
    for (const [row, name] of rows) {
      const { apart, fused } = fusedReport(graphOf(name as string));
      const mib = [apart, fused].map(t => (t.rows / 2 ** 20).toFixed(1));
      expect(row).toBe(`| ${name} | ${grouped(apart.kernels)} | ${grouped(fused.kernels)} | ${mib.join(' | ')} |`);
    }
    for (const f of fusionNames) expect(text).toContain(`\n| \`${f}\` | `);
  });
  it('leaves what is to be kept in buffers of its own', () => {
    const g = graphOf('DeepSeek-V3');
    const keep = ['layers.5.q', 'layers.5.kv_latent', 'layers.5.shared.gate', 'layers.5.attn_out', 'layers.5.scores'];
    const buffers = new Set(lower(g, { keep }).buffers.map(b => b.name));
    for (const name of keep) expect([name, buffers.has(name)]).toEqual([name, true]);
    expect(lower(g).buffers.some(b => keep.slice(1).includes(b.name))).toBe(false);
  });
});
