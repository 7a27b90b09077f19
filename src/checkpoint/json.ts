// JSON with places. The built-in parser hides duplicate keys, forgets where a value stood and treats `__proto__` as a setter; this one refuses,
// remembers and does not.

export interface JsonNode {
  readonly value: null | boolean | number | string | readonly JsonNode[] | ReadonlyMap<string, JsonNode>;
  /** Offset of the value's first character. */
  readonly at: number;
  /** Offset after its last. */
  readonly end: number;
  /** Offset of its key, where it is a member. */
  readonly key?: number;
}

/** What is wrong with a text, and where. */
export class JsonError extends Error {
  readonly at: number;
  constructor(message: string, at: number) {
    super(message);
    this.at = at;
  }
}

const deepest = 64;
const escapes: Readonly<Record<string, string>> = { '"': '"', '\\': '\\', '/': '/', b: '\b', f: '\f', n: '\n', r: '\r', t: '\t' };

/** Parse a whole text. Throws JsonError: not JSON, a key twice in one object, nested deeper than 64, or a number that is not finite. */
export function parseJson(text: string): JsonNode {
  let at = 0;
  const stop = (message: string, where = at): never => {
    throw new JsonError(message, where);
  };
  const space = (): void => {
    for (;;) {
      const c = text.charCodeAt(at);
      if (c === 32 || c === 10 || c === 13 || c === 9) at++;
      else return;
    }
  };
  const found = (): string => (at >= text.length ? 'the end' : JSON.stringify(text[at]));
  function string(): string {
    const from = ++at;
    for (;;) {
      const c = text.charCodeAt(at);
      if (c === 34) return text.slice(from, at++);
      if (c === 92) break;
      if (Number.isNaN(c)) stop('a string without its closing quote', from - 1);
      if (c < 32) stop('a control character inside a string');
      at++;
    }
    const parts = [text.slice(from, at)];
    for (;;) {
      const c = text[at];
      if (c === undefined) stop('a string without its closing quote', from - 1);
      if (c === '"') {
        at++;
        return parts.join('');
      }
      if (c === '\\') {
        const e = text[at + 1] ?? '';
        if (e === 'u') {
          const hex = text.slice(at + 2, at + 6);
          if (!/^[0-9a-fA-F]{4}$/.test(hex)) stop('\\u without four hexadecimal digits');
          parts.push(String.fromCharCode(Number.parseInt(hex, 16)));
          at += 6;
        } else {
          const meant = Object.hasOwn(escapes, e) ? escapes[e] : undefined;
          if (meant === undefined) stop(`\\${e} in a string`);
          parts.push(meant as string);
          at += 2;
        }
        continue;
      }
      const start = at;
      while (at < text.length && text[at] !== '"' && text[at] !== '\\') {
        if (text.charCodeAt(at) < 32) stop('a control character inside a string');
        at++;
      }
      parts.push(text.slice(start, at));
    }
  }
  const number = /-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?/y;
  function value(depth: number, key?: number): JsonNode {
    space();
    const from = at;
    const node = (v: JsonNode['value']): JsonNode =>
      key === undefined ? { value: v, at: from, end: at } : { value: v, at: from, end: at, key };
    switch (text[at]) {
      case '{': {
        if (depth >= deepest) stop(`nested deeper than ${deepest}`);
        const members = new Map<string, JsonNode>();
        at++;
        space();
        if (text[at] === '}') {
          at++;
          return node(members);
        }
        for (;;) {
          space();
          const place = at;
          if (text[at] !== '"') stop(`${found()} where a key was expected`);
          const name = string();
          if (members.has(name)) stop(`the key ${JSON.stringify(name)} stands twice in one object`, place);
          space();
          if (text[at] !== ':') stop(`${found()} where ":" was expected`);
          at++;
          members.set(name, value(depth + 1, place));
          space();
          if (text[at] === ',') at++;
          else if (text[at] === '}') {
            at++;
            return node(members);
          } else stop(`${found()} where "," or "}" was expected`);
        }
      }
      case '[': {
        if (depth >= deepest) stop(`nested deeper than ${deepest}`);
        const items: JsonNode[] = [];
        at++;
        space();
        if (text[at] === ']') {
          at++;
          return node(items);
        }
        for (;;) {
          items.push(value(depth + 1));
          space();
          if (text[at] === ',') at++;
          else if (text[at] === ']') {
            at++;
            return node(items);
          } else stop(`${found()} where "," or "]" was expected`);
        }
      }
      case '"':
        return node(string());
      default: {
        for (const [word, meaning] of [
          ['true', true],
          ['false', false],
          ['null', null],
        ] as const)
          if (text.startsWith(word, at)) {
            at += word.length;
            return node(meaning);
          }
        number.lastIndex = at;
        const m = number.exec(text);
        if (m === null) {
          const word = /^[A-Za-z+-]+/.exec(text.slice(at, at + 20))?.[0];
          return stop(word === undefined ? `${found()} where a value was expected` : `${word}, which JSON does not have`);
        }
        at += m[0].length;
        const n = Number(m[0]);
        if (!Number.isFinite(n)) stop(`${m[0]} is larger than a number can be`, from);
        return node(n);
      }
    }
  }
  const root = value(0);
  space();
  if (at < text.length) stop(`${found()} after the end of the document`);
  return root;
}

/** 1-based line of an offset, and that line's text without its indentation. */
export function lineAt(text: string, at: number): { readonly line: number; readonly shows: string } {
  let line = 1;
  let start = 0;
  for (let i = text.indexOf('\n'); i !== -1 && i < at; i = text.indexOf('\n', i + 1)) {
    line++;
    start = i + 1;
  }
  const end = text.indexOf('\n', at);
  const whole = text.slice(start, end === -1 ? text.length : end).trim();
  return { line, shows: whole.length > 120 ? whole.slice(0, 117) + '...' : whole };
}

/** The plain value, objects as null-prototype records. */
export function plainValue(node: JsonNode): unknown {
  const v = node.value;
  if (v instanceof Map) {
    const o = Object.create(null) as Record<string, unknown>;
    for (const [k, n] of v as ReadonlyMap<string, JsonNode>)
      Object.defineProperty(o, k, { value: plainValue(n), enumerable: true, configurable: true, writable: true });
    return o;
  }
  return Array.isArray(v) ? (v as readonly JsonNode[]).map(plainValue) : v;
}
