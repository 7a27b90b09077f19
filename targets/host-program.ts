// A Program as a host's C: weights.c (where every span lies) and model.c (the plan: a struct of pointers and a function for each kind of layer, equal
// layers in a loop). What starts a kernel, and where constant tables lie, is the target's to say.
import type { Dim, Value, ValueOf } from '../ir/graph.js';
import type { Argument, Launch, Program, Variant } from '../ir/program.js';
import { elements } from '../ir/storage.js';
import type { Kernel, Param } from '../ir/tile.js';
import { block, type Code, float, Names, text } from './code.js';
import { memoryType, pointers, product, whole } from './elements.js';
import type { SourceFile, WeightFile } from './target.js';

export const notice = (about: string): readonly string[] => [
  `// ${about}`,
  '// Printed by hkgai from the model; change the model or the kernels, not this file.',
  '',
];

function dim(d: Dim, p: Program): string {
  if (typeof d === 'number') return String(d);
  if ('symbol' in d) return d.symbol === 'tokens' || d.symbol === 'wanted' ? `m->${d.symbol}` : String(p.graph.limits[d.symbol]);
  const a = dim(d.a, p);
  const b = dim(d.b, p);
  return d.op === 'ceildiv' || d.op === 'min' ? `tile_${d.op}(${a}, ${b})` : `(${a} ${d.op} ${b})`;
}
export const limitOf = (d: Dim, p: Program): number => {
  if (typeof d === 'number') return d;
  if ('symbol' in d) return p.graph.limits[d.symbol];
  const a = limitOf(d.a, p);
  const b = limitOf(d.b, p);
  return d.op === '+' ? a + b : d.op === '*' ? a * b : d.op === 'min' ? Math.min(a, b) : Math.ceil(a / b);
};
/** How many blocks a kernel has, as a C expression over its sizes. */
export function blocksC(k: Kernel, spell: (size: string) => string): string {
  const names = new Names();
  const raw = whole(product(k.grid.map(g => g.count)), names);
  return k.sizes.reduce((t, s) => t.replace(new RegExp(`\\b${names.of('int', s)}\\b`, 'g'), spell(s)), raw);
}
/** The kernels that a program launches, each once, by name. */
export function kernelsOf(p: Program): readonly Kernel[] {
  const by = new Map<string, Kernel>();
  for (const l of p.launches)
    for (const v of l.variants) {
      if (v.kernel === null) continue;
      const known = by.get(v.kernel.name);
      if (known !== undefined && known !== v.kernel) throw new Error(`two kernels are called ${v.kernel.name}`);
      by.set(v.kernel.name, v.kernel);
    }
  return [...by.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
}
/** The struct that carries a kernel's arguments: its pointers, then its sizes. */
export function argumentsStruct(k: Kernel): Code {
  const names = new Names();
  return block(
    `struct ${k.name}_arguments`,
    [
      ...k.params.flatMap(q => pointers(q, names).map(([type, name]) => `${type}${name};`)),
      ...k.sizes.map(s => `long ${names.of('int', s)};`),
    ],
    '};',
  );
}
/** The members of that struct, in order. */
export function argumentNames(k: Kernel): readonly string[] {
  const names = new Names();
  return [...k.params.flatMap(q => pointers(q, names).map(([, n]) => n)), ...k.sizes.map(s => names.of('int', s))];
}

/** What a target says its own way. */
export interface HostWords {
  /** A call that starts a kernel on its arguments over so many blocks. */
  start(k: Kernel, args: readonly string[], blocks: string): Code;
  /** A constant table as an argument; `at` is its number among the tables. */
  table(name: string, at: number): string;
  /** One line of the table of spans. */
  span(s: PlacedSpan): string;
  /** What follows the tables in model.c. */
  afterTables(tables: ReadonlyMap<string, Float32Array>): Code;
  /** What weights.c says beside files and spans. */
  afterSpans(spans: Spans): Code;
}
export const stateBytes = (s: ValueOf<'state'>, p: Program): number =>
  s.type.shape.reduce<number>((n, d) => n * limitOf(d, p), elements[s.type.storage.element].bits / 8);

// ---- weights

/** A stretch of a weight file. */
export interface PlacedSpan {
  readonly file: number;
  readonly from: number;
  readonly bytes: number;
  readonly tensor: string;
}
export interface Spans {
  readonly all: readonly PlacedSpan[];
  /** First span of a weight's codes and of its scales; -1 where it has none. */
  readonly codes: ReadonlyMap<string, number>;
  readonly scales: ReadonlyMap<string, number>;
  readonly bytes: number;
}
export function spansOf(p: Program, files: readonly WeightFile[]): Spans {
  const number = new Map(files.map((f, i) => [f.name, i]));
  const all: PlacedSpan[] = [];
  const codes = new Map<string, number>();
  const scales = new Map<string, number>();
  let bytes = 0;
  const push = (s: { readonly file: string; readonly tensor: string; readonly bytes: readonly [number, number] }): void => {
    const file = number.get(s.file);
    if (file === undefined) throw new Error(`${s.tensor} lies in ${s.file}, which is none of the weight files`);
    all.push({ file, from: s.bytes[0], bytes: s.bytes[1] - s.bytes[0], tensor: s.tensor });
    bytes += s.bytes[1] - s.bytes[0];
  };
  for (const w of p.weights) {
    codes.set(w.name, all.length);
    for (const part of w.origin.parts) push(part);
    if (w.type.storage.kind === 'scaled') {
      scales.set(w.name, all.length);
      for (const part of w.origin.parts) {
        if (!part.scale) throw new Error(`${w.name} has no scales`);
        push(part.scale);
      }
    }
  }
  return { all, codes, scales, bytes };
}
export function printWeights(spans: Spans, files: readonly WeightFile[], words: HostWords): SourceFile {
  const hex = (n: number): string => `0x${n.toString(16).padStart(8, '0')}u`;
  return {
    path: 'weights.c',
    text: text([
      ...notice("Where the weights lie: files as they were when the model was compiled, and every tensor's first byte."),
      '#include "hkgai_runtime.h"',
      '',
      `const int hk_file_count = ${files.length};`,
      block(
        'const struct hk_file hk_files[] =',
        files.map(f => `{${JSON.stringify(f.name)}, ${f.bytes}, ${f.headerBytes}, ${hex(f.headerHash)}},`),
        '};',
      ),
      `const int hk_span_count = ${spans.all.length};`,
      block('const struct hk_span hk_spans[] =', spans.all.length ? spans.all.map(s => words.span(s)) : ['{0},'], '};'),
      words.afterSpans(spans),
    ]),
  };
}

// ---- the plan

/** A pointer that a layer's function uses: the same name in all layers of a kind. */
interface Slot {
  readonly key: string;
  readonly name: string;
  readonly type: string;
  readonly about: string;
  readonly bind: { readonly kind: 'w' | 't' | 's' | 'a'; readonly first: number };
}
interface Segment {
  readonly layer: number;
  readonly launches: readonly Launch[];
  readonly slots: readonly Slot[];
  readonly body: Code;
  readonly signature: string;
}
const tapped = new Set(['attn_out', 'out', 'router_logits', 'indices', 'expert_weights', 'final_norm', 'embedding']);

class Plan {
  readonly #p: Program;
  readonly #spans: Spans;
  readonly #states: ReadonlyMap<string, number>;
  readonly #offsets: ReadonlyMap<string, number>;
  readonly #words: HostWords;
  readonly tables = new Map<string, Float32Array>();
  constructor(p: Program, spans: Spans, words: HostWords) {
    this.#words = words;
    this.#p = p;
    this.#spans = spans;
    this.#states = new Map(p.states.map((s, i) => [s.name, i]));
    this.#offsets = new Map(p.buffers.map(b => [b.name, b.offset]));
  }

  segment(layer: number, launches: readonly Launch[]): Segment {
    const names = new Names(['m', 'l', 'layer', 'arena']);
    const slots = new Map<string, Slot>();
    const local = (name: string): string => {
      const own = /^layers\.(\d+)\.(.*)$/.exec(name);
      if (!own) return name;
      return Number(own[1]) === layer ? (own[2] as string) : `before_${own[2]}`;
    };
    const slot = (key: string, name: string, type: string, about: string, bind: Slot['bind']): string => {
      const known = slots.get(key);
      if (known) return known.name;
      const made = { key, name: names.of('slot', `${local(name)}`), type, about, bind };
      slots.set(key, made);
      return made.name;
    };
    const argument = (a: Argument, q: Param): readonly string[] => {
      switch (a.kind) {
        case 'input':
          return [`m->${a.which === 'wanted' ? 'wanted_rows' : a.which}`];
        case 'table':
          this.tables.set(a.name, a.values);
          return [this.#words.table(a.name, [...this.tables.keys()].indexOf(a.name))];
        case 'buffer': {
          const b = this.#p.buffers.find(x => x.name === a.buffer);
          const offset = this.#offsets.get(a.buffer);
          if (!b || offset === undefined || offset < 0) throw new Error(`${a.buffer} has no place`);
          return [slot(`buffer ${a.buffer}`, a.buffer, `${memoryType[q.storage.element]} *`, '', { kind: 'a', first: offset })];
        }
        case 'state':
          return [
            slot(`state ${a.state.name}`, a.state.name, `${memoryType[q.storage.element]} *`, '', {
              kind: 's',
              first: this.#states.get(a.state.name) as number,
            }),
          ];
        case 'weight': {
          const kind = q.stacked ? 't' : 'w';
          const codes = slot(`weight ${kind} ${a.weight.name}`, a.weight.name, pointers(q, new Names())[0]![0], '', {
            kind,
            first: this.#spans.codes.get(a.weight.name) as number,
          });
          if (q.storage.kind === 'plain') return [codes];
          return [
            codes,
            slot(`scale ${kind} ${a.weight.name}`, `${a.weight.name}_scale`, pointers(q, new Names())[1]![0], '', {
              kind,
              first: this.#spans.scales.get(a.weight.name) as number,
            }),
          ];
        }
      }
    };
    const call = (v: Variant): Code => {
      if (v.kernel === null) return ';';
      const k = v.kernel;
      const sizes = new Map(k.sizes.map((s, i) => [s, dim(v.sizes[i] as Dim, this.#p)]));
      const args = [...v.args.flatMap((a, i) => argument(a, k.params[i] as Param)), ...sizes.values()];
      return this.#words.start(
        k,
        args,
        blocksC(k, s => sizes.get(s) as string),
      );
    };
    const body: Code[] = [];
    for (const launch of launches) {
      const rows = dim(launch.rows, this.#p);
      let code: Code;
      if (launch.variants.length === 1) code = call(launch.variants[0]);
      else
        code = launch.variants.map((v, i): Code => {
          const head = v.upTo === null ? 'else' : `${i === 0 ? '' : 'else '}if (${rows} <= ${v.upTo})`;
          return v.kernel === null && i === launch.variants.length - 1 ? [] : block(head, v.kernel === null ? [] : call(v));
        });
      const taps = [...launch.also, ...(launch.last ? [launch.value] : [])].flatMap(v => this.#tap(v, local(v.name), slots));
      const about = `// ${local(launch.value.name)}: ${launch.value.op}`;
      const always = launch.outputs.includes('logits');
      body.push(about, ...(always ? [code, ...taps] : [block('if (m->with_mtp)', [code, ...taps])]));
    }
    const all = [...slots.values()];
    return { layer, launches, slots: all, body, signature: JSON.stringify([text(body), all.map(s => [s.name, s.type, s.bind.kind])]) };
  }
  #tap(v: Value, name: string, slots: ReadonlyMap<string, Slot>): readonly Code[] {
    const inLayer = v.name.startsWith('layers.') && v.origin.layer >= 0;
    const slot = slots.get(`buffer ${v.name}`);
    if (!slot || (!tapped.has(name) && !v.name.startsWith('mtp.'))) return [];
    const columns = limitOf(v.type.shape.at(-1) as Dim, this.#p);
    return [
      `HK_TAP(m, ${inLayer ? 'layer' : '-1'}, ${JSON.stringify(name)}, '${v.type.storage.element === 'i32' ? 'i' : 'f'}', ${slot.name}, ${dim(v.type.shape[0] as Dim, this.#p)}, ${columns});`,
    ];
  }
}

/** Runs of launches of one layer, in order. */
function segments(p: Program, plan: Plan): readonly Segment[] {
  const out: Segment[] = [];
  for (let i = 0; i < p.launches.length; ) {
    const layer = p.launches[i]!.layer;
    let j = i;
    while (j < p.launches.length && p.launches[j]!.layer === layer) j++;
    out.push(plan.segment(layer, p.launches.slice(i, j)));
    i = j;
  }
  return out;
}

interface Kind {
  readonly name: string;
  readonly segments: Segment[];
}

export function printModel(p: Program, spans: Spans, words: HostWords): SourceFile {
  const plan = new Plan(p, spans, words);
  const all = segments(p, plan);
  const kinds: Kind[] = [];
  const order: { readonly kind: Kind; readonly at: number }[] = [];
  for (const s of all) {
    let kind = kinds.find(k => k.segments[0]!.signature === s.signature);
    if (!kind) {
      kind = { name: s.layer < 0 ? `part_${kinds.length}` : `layer_${kinds.length}`, segments: [] };
      kinds.push(kind);
    }
    order.push({ kind, at: kind.segments.length });
    kind.segments.push(s);
  }
  const fixed = (k: Kind, j: number): boolean => {
    const first = k.segments[0]!.slots[j]!.bind;
    return first.kind === 'a' && k.segments.every(s => s.slots[j]!.bind.first === first.first);
  };
  const pieces: Code[] = kinds.flatMap((k): Code[] => {
    const first = k.segments[0] as Segment;
    const members = first.slots.filter((_, j) => !fixed(k, j));
    const where = k.segments.map(s => s.layer);
    const about = first.layer < 0 ? 'Outside the layers.' : `Layer${where.length > 1 ? 's' : ''} ${ranges(where)}.`;
    const binds = k.segments.map(
      s =>
        `{${s.slots
          .filter((_, j) => !fixed(k, j))
          .map(x => `{'${x.bind.kind}', ${x.bind.first}}`)
          .join(', ')}},`,
    );
    const used = first.slots.flatMap((s, j): string[] =>
      fixed(k, j) ? [`${s.type}const ${s.name} = (void *)(m->arena + ${s.bind.first});`] : [`${s.type}const ${s.name} = l->${s.name};`],
    );
    return [
      '',
      `/** ${about} */`,
      block(`struct ${k.name}`, members.length ? members.map(s => `${s.type}${s.name};`) : ['const void *nothing;'], '};'),
      ...(members.length
        ? [block(`static const struct hk_bind ${k.name}_binds[${k.segments.length}][${members.length}] =`, binds, '};')]
        : []),
      block(`static void run_${k.name}(struct hkgai *m, const struct ${k.name} *l, int layer)`, [
        ...used,
        '(void)l, (void)layer;',
        '',
        first.body,
      ]),
    ];
  });
  const calls = order.reduce<{ kind: Kind; from: number; to: number; layer: number }[]>((runs, { kind, at }) => {
    const before = runs.at(-1);
    const layer = kind.segments[at]!.layer;
    if (before && before.kind === kind && before.to === at && before.layer + (at - before.from) === layer) before.to = at + 1;
    else runs.push({ kind, from: at, to: at + 1, layer });
    return runs;
  }, []);
  const forward = calls.map((c): Code => {
    const array = `plan->${c.kind.name}`;
    if (c.to - c.from === 1) return `run_${c.kind.name}(m, &${array}[${c.from}], ${c.layer});`;
    return `for (int i = ${c.from}; i < ${c.to}; i++) run_${c.kind.name}(m, &${array}[i], ${c.layer === c.from ? 'i' : c.layer > c.from ? `i + ${c.layer - c.from}` : `i - ${c.from - c.layer}`});`;
  });
  const limits = p.graph.limits;
  const states = p.states.map(s => stateBytes(s, p));
  const offset = (name: string): string => {
    const b = p.buffers.find(x => x.name === p.outputs[name]);
    return b === undefined ? 'UINT64_MAX' : String(b.offset);
  };
  const vocabulary = limitOf((p.graph.outputs.logits as NonNullable<(typeof p.graph.outputs)['logits']>).type.shape[1] as Dim, p);
  const code: Code = [
    ...notice(`The plan of ${p.graph.name}: which kernel runs on what, in order. Offsets in the arena and all sizes are fixed.`),
    '#include <stdlib.h>',
    '#include "hkgai_runtime.h"',
    'static inline long tile_min(long a, long b) { return a < b ? a : b; }',
    'static inline long tile_max(long a, long b) { return a > b ? a : b; }',
    'static inline long tile_ceildiv(long a, long b) { return (a + b - 1) / b; }',
    '#include "kernels.h"',
    '',
    block(
      'const hkgai_info hk_info =',
      [
        `.name = ${JSON.stringify(p.graph.name)}, .vocab = ${vocabulary},`,
        `.context = ${limits.context}, .sequences = ${limits.sequences}, .chunk = ${limits.tokens}, .mtp = ${Object.keys(p.graph.outputs).filter(n => n.startsWith('mtp.')).length},`,
        `.weight_bytes = ${spans.bytes}, .state_bytes = ${states.reduce((a, b) => a + b, 0)}, .arena_bytes = ${p.arena},`,
      ],
      '};',
    ),
    `const uint64_t hk_logits_at = ${offset('logits')}, hk_mtp_logits_at = ${offset('mtp.0.logits')};`,
    `const int hk_state_count = ${states.length};`,
    block('const uint64_t hk_state_sizes[] =', p.states.length ? p.states.map((s, i) => `${states[i]}, // ${s.name}`) : ['0,'], '};'),
    ...[...plan.tables].flatMap(([name, values]): Code[] => [
      '',
      block(`static const float ${name}[${values.length}] =`, [[...values].map(v => float(v)).join(', ')], '};'),
    ]),
    words.afterTables(plan.tables),
    ...pieces,
    '',
    block(
      'struct plan',
      kinds.map(k => `struct ${k.name} ${k.name}[${k.segments.length}];`),
      '};',
    ),
    block('void hk_bind_model(struct hkgai *m)', [
      'struct plan *plan = m->plan = calloc(1, sizeof *plan);',
      'if (!plan) return;',
      ...kinds.flatMap((k): Code[] => {
        const n = (k.segments[0] as Segment).slots.filter((_, j) => !fixed(k, j)).length;
        return n === 0
          ? []
          : [`for (int i = 0; i < ${k.segments.length}; i++) hk_bind_members(m, &plan->${k.name}[i], ${k.name}_binds[i], ${n});`];
      }),
    ]),
    block('void hk_forward(struct hkgai *m)', ['const struct plan *plan = m->plan;', ...forward]),
  ];
  return { path: 'model.c', text: text(code) };
}
function ranges(numbers: readonly number[]): string {
  const out: string[] = [];
  for (let i = 0; i < numbers.length; ) {
    let j = i;
    while (j + 1 < numbers.length && numbers[j + 1] === numbers[j]! + 1) j++;
    out.push(i === j ? String(numbers[i]) : `${numbers[i]} to ${numbers[j]}`);
    i = j + 1;
  }
  return out.join(', ');
}
