// Reads the text form of print.ts back into the same graph. Errors say the line, the column and what was expected, with a caret.
import type { Dim, Graph, Limits, Origin, Part, Slice, SymbolName, Type, Value } from './graph.js';
import { inputNames, type OpName, ops } from './ops.js';
import { type Problem, problem, Refusal } from './problem.js';
import { parseStorage } from './storage.js';

const notIr = (file: string, line: number, column: number, text: string, expected: string): Problem =>
  problem('HK3701', `line ${line}, column ${column}: ${expected}`, {
    places: [
      { file, line, shows: text },
      { file: ' '.repeat(file.length), shows: `${' '.repeat(String(line).length + 1 + column - 1)}^` },
    ],
    next: 'Print the graph again with hkgai inspect --ir.',
  });

/** One line with a place in it. */
class Line {
  at = 0;
  readonly text: string;
  readonly #number: number;
  readonly #file: string;
  constructor(text: string, number: number, file: string) {
    this.text = text;
    this.#number = number;
    this.#file = file;
  }
  stop(expected: string): never {
    throw new Refusal([notIr(this.#file, this.#number, this.at + 1, this.text, expected)]);
  }
  space(): void {
    while (this.text[this.at] === ' ') this.at++;
  }
  /** Take what the pattern (sticky) finds; null where it finds nothing. */
  take(pattern: RegExp): string | null {
    this.space();
    const sticky = new RegExp(pattern.source, 'y');
    sticky.lastIndex = this.at;
    const m = sticky.exec(this.text);
    if (m === null) return null;
    this.at += m[0].length;
    return m[0];
  }
  need(pattern: RegExp, expected: string): string {
    return this.take(pattern) ?? this.stop(`${expected} was expected`);
  }
  word(text: string): boolean {
    this.space();
    if (!this.text.startsWith(text, this.at)) return false;
    this.at += text.length;
    return true;
  }
  name(): string {
    return this.need(/[A-Za-z0-9_.*<]+/, 'a name');
  }
  whole(): number {
    return Number(this.need(/\d+/, 'a whole number'));
  }
  string(): string {
    const t = this.need(/"(?:[^"\\]|\\.)*"/, 'a string in quotes');
    return JSON.parse(t) as string;
  }
  end(): void {
    this.space();
    if (this.at < this.text.length) this.stop('the end of the line was expected');
  }
  /** A JSON object on this line. */
  object(): object | null {
    this.space();
    if (this.text[this.at] !== '{') return null;
    let depth = 0;
    let quoted = false;
    for (let i = this.at; i < this.text.length; i++) {
      const c = this.text[i];
      if (quoted) {
        if (c === '\\') i++;
        else if (c === '"') quoted = false;
      } else if (c === '"') quoted = true;
      else if (c === '{') depth++;
      else if (c === '}' && --depth === 0) {
        try {
          const value = JSON.parse(this.text.slice(this.at, i + 1)) as object;
          this.at = i + 1;
          return value;
        } catch {
          return this.stop('attributes as JSON were expected');
        }
      }
    }
    return this.stop('a closing } was expected');
  }
  dim(): Dim {
    const digits = this.take(/\d+/);
    if (digits !== null) return Number(digits);
    const call = this.take(/(ceildiv|min)\(/);
    if (call !== null) {
      const a = this.dim();
      this.need(/,/, ',');
      const b = this.dim();
      this.need(/\)/, ')');
      return { op: call.slice(0, -1) as 'ceildiv' | 'min', a, b };
    }
    if (this.word('(')) {
      const a = this.dim();
      const op = this.need(/[+*]/, '+ or *') as '+' | '*';
      const b = this.dim();
      this.need(/\)/, ')');
      return { op, a, b };
    }
    return { symbol: this.need(/tokens|wanted|sequences|context/, 'a size') as SymbolName };
  }
  /** `[1, 2]` */
  wholes(): readonly number[] {
    this.need(/\[/, '[');
    const out = [this.whole()];
    while (this.word(',')) out.push(this.whole());
    this.need(/\]/, ']');
    return out;
  }
  type(): Type {
    this.need(/\[/, '[');
    const shape: Dim[] = [];
    if (!this.word(']')) {
      do shape.push(this.dim());
      while (this.word(','));
      this.need(/\]/, ']');
    }
    const at = this.at;
    const text = this.need(/[A-Za-z0-9[\]*]+/, 'a storage');
    const storage = parseStorage(text);
    if (storage === null) {
      this.at = at + 1;
      this.stop(`a storage was expected, not ${text}`);
    }
    return { shape, storage };
  }
}

/** A value's line before its inputs are known. */
interface Draft {
  readonly name: string;
  readonly op: OpName;
  readonly inputs: readonly (readonly [key: string, name: string, at: number])[];
  readonly attributes: object;
  readonly type: Type;
  readonly role: string | null;
  readonly passes: readonly string[];
  readonly slice: Slice | null;
  readonly line: Line;
}
function readValue(l: Line): Draft {
  const name = l.name();
  l.need(/=/, '=');
  const at = l.at;
  const op = l.need(/[a-z_]+/, 'an op') as OpName;
  if (!Object.hasOwn(ops, op)) {
    l.at = at + 1;
    l.stop(`an op was expected, and ${op} is none`);
  }
  l.need(/\(/, '(');
  const inputs: (readonly [string, string, number])[] = [];
  if (!l.word(')')) {
    do {
      const key = l.need(/[a-z_]+/, 'the name of an input');
      if (!inputNames(op).some(n => n.name === key)) l.stop(`an input of ${op} was expected, and ${key} is none`);
      l.need(/:/, ':');
      l.space();
      const place = l.at;
      inputs.push([key, l.name(), place]);
    } while (l.word(','));
    l.need(/\)/, ')');
  }
  for (const n of inputNames(op))
    if (!n.optional && !inputs.some(([k]) => k === n.name)) l.stop(`the input ${n.name} of ${op} was expected`);
  const attributes = l.object() ?? {};
  l.need(/:/, ':');
  const type = l.type();
  const role = l.word('role ') ? l.string() : null;
  const passes = l.word('passes ') ? l.need(/[a-z0-9,-]+/, 'names of passes').split(',') : [];
  const of = l.word('of ') ? l.wholes() : null;
  const slice = of && { of, from: l.word('from ') ? l.wholes() : l.stop('from was expected') };
  l.end();
  return { name, op, inputs, attributes, type, role, passes, slice, line: l };
}

const inLayer = (name: string, layer: number): string =>
  layer < 0 ? name : name.replace(/^layers\.\*\./, `layers.${layer}.`).replace(/^layers\.<\./, `layers.${layer - 1}.`);

/** Parse the text form. `file` is what messages call it. */
export function parseGraph(text: string, file = 'graph.ir'): Graph {
  const lines = text.split('\n').map((t, i) => new Line(t, i + 1, file));
  const values: Value[] = [];
  const by = new Map<string, Value>();
  const parts = new Map<string, Part[]>();
  const outputs: Record<string, Value> = {};
  let name = '';
  let limits: Limits | null = null;
  let rank: Graph['rank'] | null = null;
  const finish = (d: Draft, layer: number): void => {
    const own = inLayer(d.name, layer);
    if (by.has(own)) {
      d.line.at = 0;
      d.line.stop(`a new name was expected, and ${own} is taken`);
    }
    const inputs = Object.fromEntries(
      d.inputs.map(([k, n, at]) => {
        const v = by.get(inLayer(n, layer));
        if (!v) d.line.at = at;
        return [k, v ?? d.line.stop(`a value that stands before was expected, and ${inLayer(n, layer)} does not`)];
      }),
    );
    const own_parts: Part[] = [];
    parts.set(own, own_parts);
    const role = inLayer(d.role ?? d.name, layer);
    const origin: Origin = { role, layer, parts: own_parts, ...(d.slice ? { slice: d.slice } : {}), passes: d.passes };
    const v = { op: d.op, name: own, type: d.type, inputs, attributes: d.attributes, origin } as unknown as Value;
    values.push(v);
    by.set(own, v);
  };
  for (let i = 0; i < lines.length; i++) {
    const l = lines[i] as Line;
    l.space();
    if (l.at === l.text.length || l.text.startsWith('//', l.at)) continue;
    if (limits === null) {
      if (!l.word('graph ')) l.stop('graph "name" was expected first');
      name = l.string();
      const limit = (key: string): number => {
        if (!l.word(`${key}=`)) l.stop(`${key}= was expected`);
        return l.whole();
      };
      limits = { tokens: limit('tokens'), wanted: limit('wanted'), sequences: limit('sequences'), context: limit('context') };
      if (l.word('rank=')) {
        const index = l.whole();
        l.need(/\//, '/');
        rank = { index, of: l.whole() };
      }
      l.end();
    } else if (l.word('layers ')) {
      const from = l.whole();
      const to = l.word('..') ? l.whole() : from;
      l.need(/\{/, '{');
      l.end();
      const drafts: Draft[] = [];
      for (i++; ; i++) {
        const inner = lines[i] ?? l.stop('a closing } was expected');
        inner.space();
        if (inner.word('}')) break;
        if (inner.at < inner.text.length) drafts.push(readValue(inner));
      }
      for (let n = from; n <= to; n++) for (const d of drafts) finish(d, n);
    } else if (l.word('output ')) {
      const key = l.name();
      l.need(/=/, '=');
      l.space();
      const v = by.get(l.name());
      if (!v) l.stop('a value was expected');
      outputs[key] = v as Value;
      l.end();
    } else if (l.word('bytes ')) {
      const list = parts.get(l.name()) ?? l.stop('a weight was expected');
      if (l.whole() !== list.length) l.stop(`part ${list.length} was expected`);
      const span = () => ({ tensor: l.string(), file: l.string(), bytes: [l.whole(), l.whole()] as const });
      const codes = span();
      list.push(l.word('scale ') ? { ...codes, scale: span() } : codes);
      l.end();
    } else finish(readValue(l), -1);
  }
  if (limits === null) throw new Refusal([notIr(file, 1, 1, '', 'graph "name" was expected first')]);
  return { name, limits, ...(rank ? { rank } : {}), values, outputs };
}
