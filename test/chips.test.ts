// Chips as data: every file against the schema, every figure with its source, figures that follow from others, members of a family behave as it
// does, and docs/chips.md (UPDATE=1 npm test -- test/chips.test.ts rewrites it).
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, it } from '@jest/globals';
import { Refusal } from '../ir/problem.js';
import { figuresOf } from '../src/chips.js';
import { type CompileOptions, prepare, resolveTarget, targets } from '../src/compile.js';
import { conform } from '../src/conformance.js';
import { faultsOf, type Schema } from '../targets/chips.js';
import type { Chip, Target } from '../targets/target.js';
import { make, must, wideV3 } from './engine-directory.js';
import { fixtures } from './golden-cases.js';

const here = (f: string): string => fileURLToPath(new URL(`../${f}`, import.meta.url));
const schema = JSON.parse(readFileSync(here('targets/chips.schema.json'), 'utf8')) as Schema;
const work = mkdtempSync(join(tmpdir(), 'hkgai-chips-'));
afterAll(() => rmSync(work, { recursive: true }));
const all: readonly (readonly [Target, Chip])[] = Object.values(targets).flatMap(t => t.chips.map(c => [t, c] as const));
const named = (t: Target, c: Chip): string => `${t.name}:${c.name}`;

describe('the files', () => {
  it('are those that the targets name, each under its own name', () => {
    for (const t of Object.values(targets)) {
      const files = readdirSync(here(`targets/${t.name}/chips`)).map(f => f.replace(/\.json$/, ''));
      expect(files.sort()).toEqual(t.chips.map(c => c.name).sort());
    }
    expect(all.length).toBeGreaterThan(25);
  });
  for (const t of Object.values(targets))
    for (const f of readdirSync(here(`targets/${t.name}/chips`)))
      it(`${t.name}/${f} fits the schema`, () => {
        const v = JSON.parse(readFileSync(here(`targets/${t.name}/chips/${f}`), 'utf8')) as Chip;
        expect(faultsOf(v, schema)).toEqual([]);
        expect(`${v.name}.json`).toBe(f);
      });
  it('are refused field by field', () => {
    const fact = { value: 1, source: 'a page' };
    const link = { name: 'wire', bytesPerSecond: fact, latency: null, joins: null };
    const device = {
      diesPerPackage: fact,
      memory: fact,
      memoryBandwidth: null,
      peak: { bf16: null },
      inNode: [link],
      betweenNodes: [],
      perNode: fact,
      power: null,
      names: { arch: { value: 'x', source: 'a page' } },
    };
    const chip = { name: 'x1', about: 'a chip', device, tileBytes: null };
    const of = (more: object): readonly string[] => faultsOf({ ...chip, device: { ...device, ...more } }, schema);
    expect(faultsOf(chip, schema)).toEqual([]);
    expect(faultsOf({ ...chip, device: null }, schema)).toEqual([]);
    expect(faultsOf([], schema)).toEqual(['the file is an array, not an object']);
    expect(faultsOf({ ...chip, name: 'X 1' }, schema)).toEqual(['name is "X 1", not as ^[a-z0-9][a-z0-9-]*$']);
    expect(faultsOf({ ...chip, bits: 4 }, schema)).toEqual(['bits is no field']);
    expect(faultsOf({ name: 'x1', about: 'a chip', tileBytes: null }, schema)).toEqual(['device is missing']);
    expect(faultsOf({ ...chip, engineOnly: false }, schema)).toEqual(['engineOnly is false, not true']);
    expect(of({ memory: 64e9 })).toEqual(['device.memory is a number, not null or an object']);
    expect(of({ memory: { value: 64e9 } })).toEqual(['device.memory.source is missing']);
    expect(of({ memory: { value: 64e9, source: ' ' } })).toEqual(['device.memory.source is empty']);
    expect(of({ memory: { value: '64', source: 'a page' } })).toEqual(['device.memory.value is a string, not a number']);
    expect(of({ memory: { value: 0, source: 'a page' } })).toEqual(['device.memory.value is 0, not above 0']);
    expect(of({ power: '700' })).toEqual(['device.power is a string, not null or an object']);
    expect(of({ peak: { fp6: null } })).toEqual(['device.peak.fp6 is no field']);
    expect(of({ inNode: [link, { ...link, latency: { value: 1, source: '' } }] })).toEqual(['device.inNode[1].latency.source is empty']);
    expect(of({ names: { arch: { value: '', source: 'a page' } } })).toEqual(['device.names.arch.value is empty']);
  });
});

describe('the figures', () => {
  it('each have a source that is more than a word, and say what is estimated', () => {
    let seen = 0;
    for (const [t, c] of all)
      for (const [name, f] of figuresOf(c)) {
        if (f === null) continue;
        seen++;
        expect([named(t, c), name, f.source.length >= 8 && !/\b(todo|unknown|guess)/i.test(f.source)]).toEqual([named(t, c), name, true]);
      }
    expect(seen).toBeGreaterThan(300);
  });
  it('are all listed: as many figures as the files have', () => {
    const count = (v: unknown): number =>
      typeof v !== 'object' || v === null ? 0 : 'source' in v ? 1 : Object.values(v).reduce((n: number, x) => n + count(x), 0);
    for (const [t, c] of all) expect([named(t, c), figuresOf(c).filter(([, f]) => f !== null).length]).toEqual([named(t, c), count(c)]);
  });
  it('that a formula makes are what it makes', () => {
    let seen = 0;
    for (const [t, c] of all)
      for (const [name, f] of figuresOf(c)) {
        const m = /^formula: (\d+) (?:cube )?cores x (\d+) MHz (?:\(base\) )?x (\d+)/.exec(f?.source ?? '');
        if (!m || !f) continue;
        seen++;
        const made = Number(m[1]) * Number(m[2]) * 1e6 * Number(m[3]);
        expect([named(t, c), name, Math.abs(Number(f.value) / made - 1) < 0.01]).toEqual([named(t, c), name, true]);
      }
    expect(seen).toBeGreaterThan(20);
  });
  it('fit each other: narrower kinds are no slower, links go from fast to slow and reach a node', () => {
    for (const [t, c] of all) {
      const d = c.device;
      if (!d) continue;
      const p = (k: keyof typeof d.peak): number | undefined => d.peak[k]?.value;
      for (const [wide, narrow] of [
        ['f32', 'bf16'],
        ['tf32', 'bf16'],
        ['bf16', 'fp8'],
        ['bf16', 'int8'],
        ['fp8', 'fp4'],
        ['int8', 'int4'],
      ] as const) {
        const [a, b] = [p(wide), p(narrow)];
        if (a !== undefined && b !== undefined) expect([named(t, c), wide, narrow, b >= a]).toEqual([named(t, c), wide, narrow, true]);
      }
      expect([named(t, c), d.inNode.length > 0]).toEqual([named(t, c), true]);
      for (const list of [d.inNode, d.betweenNodes]) {
        const rates = list.flatMap(l => (l.bytesPerSecond ? [l.bytesPerSecond.value] : []));
        expect([named(t, c), rates]).toEqual([named(t, c), [...rates].sort((a, b) => b - a)]);
      }
      const reached = d.inNode.at(-1)!.joins;
      if (reached && d.perNode) expect([named(t, c), reached.value >= d.perNode.value]).toEqual([named(t, c), true]);
      // what is in a package has a link of its own or is one device
      if (d.diesPerPackage && d.diesPerPackage.value > 1) expect(d.inNode[0]!.joins?.value).toBe(d.diesPerPackage.value);
    }
  });
  it('of figures that a reader would know', () => {
    const of = (name: string) => resolveTarget(name).chip.device!;
    expect(of('cuda:h20').peak.bf16!.value).toBe(148e12);
    expect(of('cuda:h100').inNode[0]!.bytesPerSecond!.value).toBe(450e9);
    expect(of('cuda:a100-40g').peak).not.toHaveProperty('fp8');
    expect(of('ascend:910b3').peak.bf16!.value).toBe(294.912e12);
    expect(of('ascend:910b3').peak).not.toHaveProperty('fp8');
    expect(of('ascend:950dt').peak).not.toHaveProperty('int4');
    expect(of('ascend:910c').diesPerPackage!.value).toBe(2);
    expect(of('ascend:310p').peak).not.toHaveProperty('bf16');
    // not published, so not known
    for (const c of ['br106b', 'br106c', 'br106m', 'br110', 'br166']) {
      expect(of(`biren:${c}`).memoryBandwidth).toBe(null);
      expect(Object.values(of(`biren:${c}`).peak)).toEqual([null, null, null]);
    }
    expect(of('biren:br106b').inNode[0]!.bytesPerSecond!.value).toBe(96e9);
  });
});

describe('families', () => {
  const members = all.filter(([, c]) => c.family !== undefined);
  const quiet = { step: () => {}, at: () => {} };
  const options: Omit<CompileOptions, 'targets' | 'quantise' | 'format'> = {
    out: join(work, 'none'),
    state: 'f32',
    mtp: null,
    weights: 'copy',
    context: 32,
    sequences: 1,
    chunk: 16,
    force: true,
    allowPhantomKeys: false,
    version: 'test',
    jobs: 0,
    noCache: true,
  };
  /** What a compile would write, or why not, as if it were said of another chip. */
  const asked = async (t: Target, chip: string, as: string, model: string, format: string, quantise: string): Promise<string> => {
    try {
      const { aims } = await prepare(
        join(fixtures, 'tiny', model),
        { ...options, targets: [`${t.name}:${chip}`], format, quantise },
        quiet,
      );
      return JSON.stringify(aims[0]!.resolution.chosen.map(c => [c.tensor.name, c.form]));
    } catch (e) {
      if (!(e instanceof Refusal)) throw e;
      return e.problems.map(p => `${p.code} ${p.what} ${p.why} ${p.next}`.replaceAll(chip, as)).join('\n');
    }
  };
  it('are named by their own chips, which have none themselves', () => {
    expect(members.length).toBeGreaterThan(15);
    for (const [t, c] of members) {
      const head = t.chips.find(x => x.name === c.family);
      expect([named(t, c), head?.name, head?.family, head?.engineOnly]).toEqual([named(t, c), c.family, undefined, c.engineOnly]);
      expect([named(t, c), c.tileBytes?.value]).toEqual([named(t, c), head?.tileBytes?.value]);
    }
  });
  it('every name is a target', () => {
    for (const [t, c] of all) expect(resolveTarget(named(t, c))).toEqual({ target: t, chip: c });
    for (const [name, first] of [
      ['cpu', 'generic'],
      ['cuda', 'generic'],
      ['ascend', '910b'],
      ['biren', 'br1xx'],
    ] as const)
      expect(resolveTarget(name).chip.name).toBe(first);
    for (const old of [
      'ascend:910b',
      'ascend:910c',
      'ascend:950',
      'ascend:310p',
      'biren:br1xx',
      'biren:br2xx',
      'cuda:generic',
      'cpu:generic',
    ])
      expect(resolveTarget(old).chip.name).toBe(old.split(':')[1]);
    expect(() => resolveTarget('cuda:h21')).toThrow(Refusal);
  });
  for (const t of Object.values(targets))
    it(`${t.name}: members are written for, and refused, as their family is`, async () => {
      let written = 0;
      let refused = 0;
      for (const model of ['v3-tiny-fp8', 'v4-tiny-fp8fp4'])
        for (const format of t.engines.formats.filter(f => !f.pack))
          for (const quantise of Object.keys(t.engines.recipes)) {
            const heads = new Map<string, string>();
            for (const [, c] of members.filter(([x]) => x === t)) {
              const head = c.family as string;
              const wanted = heads.get(head) ?? (await asked(t, head, head, model, format.name, quantise));
              heads.set(head, wanted);
              if (wanted.startsWith('[')) written++;
              else refused++;
              expect([c.name, format.name, quantise, await asked(t, c.name, head, model, format.name, quantise)]).toEqual([
                c.name,
                format.name,
                quantise,
                wanted,
              ]);
            }
          }
      expect(written).toBeGreaterThan(0);
      if (t.name !== 'cpu') expect(refused).toBeGreaterThan(0);
    }, 600_000);
  it('a directory is held against the same rules', async () => {
    const wide = join(work, 'wide');
    wideV3(wide);
    for (const [name, quantise, chip, clean] of [
      ['ascend', 'w8a8', '910b', ['clean']],
      ['ascend', 'mxfp8', '950', ['clean', 'faults']],
      ['biren', 'fp8', 'br2xx', ['faults']],
      ['biren', 'bf16', 'br1xx', ['clean']],
    ] as const) {
      const t = targets[name]!;
      const x = must(await make(wide, { target: name, quantise, chip }, join(work, `${name}-${chip}`)));
      const found = (c: Chip, as: string): readonly string[] =>
        conform(x.dir, t, c, null, null).problems.map(p => p.what.replaceAll(c.name, as));
      const states = new Set<string>();
      for (const c of t.chips) {
        const head = t.chips.find(h => h.name === c.family);
        if (!head) continue;
        const wanted = found(head, head.name);
        states.add(wanted.length === 0 ? 'clean' : 'faults');
        expect([quantise, c.name, found(c, head.name)]).toEqual([quantise, c.name, wanted]);
      }
      expect([name, quantise, [...states].sort()]).toEqual([name, quantise, clean]);
    }
  });
});

// ---- docs/chips.md

const page = here('docs/chips.md');
const row = (cells: readonly string[]): string => `| ${cells.map(c => c.replaceAll('|', '\\|')).join(' | ')} |`;
const table = (head: readonly string[], rows: readonly (readonly string[])[]): string =>
  [row(head), row(head.map(() => '---')), ...rows.map(row)].join('\n');
const figure = (v: number | string): string =>
  typeof v === 'string' ? `\`${v}\`` : v >= 1e6 ? v.toExponential().replace('e+', 'e') : v < 0.01 ? v.toExponential() : String(v);
function written(): string {
  return `# Chips

*Written from \`targets/*/chips/*.json\` by \`UPDATE=1 npm test -- test/chips.test.ts\`.*

A chip is one JSON file. \`targets/chips.schema.json\` has its fields, and \`hkgai targets TARGET:CHIP\` shows one with all its figures. Every figure carries
its source: a document and the place in it, \`measured\`, or \`estimated: how\`. A figure that is not published is null here and "not published" there; nothing
is guessed. A device is what software counts as one: a die where a package shows two of them. Rates of links are one direction, of one device, over all its
links of that kind; rates of arithmetic are dense, a multiply-add counted as two. A kind of number that is not in \`peak\` has no unit on the chip.
Memory and tiles are in bytes, rates in bytes or operations a second, latencies in seconds, power in watts; \`joins\` is how many devices a link reaches, \`perNode\` how many stand in a server.

A chip with a family takes that chip's engines, formats and refusals; only its figures are its own. To add a chip: write its file and run the test.

${Object.values(targets)
  .map(
    t => `## ${t.name}

${t.chips
  .map(
    c => `### ${t.name}:${c.name}

${c.about}.${c.family ? ` Family: \`${c.family}\`.` : ''}${c.engineOnly ? ' Directories for engines only: no kernels yet.' : ''}${c.device ? '' : ' No chip in particular: it has no figures of its own.'}
${
  c.device || c.tileBytes
    ? `
${table(
  ['figure', 'value', 'source'],
  figuresOf(c).map(([name, f]) => [
    name,
    f === null ? (name === 'tileBytes' && !c.engineOnly ? 'no limit' : 'not published') : figure(f.value),
    f?.source ?? '',
  ]),
)}
`
    : ''
}`,
  )
  .join('\n')}`,
  )
  .join('\n')}`;
}
it('docs/chips.md says what the files have', () => {
  const now = written();
  if (process.env.UPDATE) writeFileSync(page, now);
  expect(readFileSync(page, 'utf8')).toBe(now); // UPDATE=1 writes it anew
});
