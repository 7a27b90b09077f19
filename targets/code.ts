// Lines with indentation, and how languages of C's family spell numbers and names. Nothing here knows a chip.

export type Code = string | readonly Code[] | { readonly inside: Code };

export const block = (head: string, body: Code, tail = '}'): Code => [head === '' ? '{' : `${head} {`, { inside: body }, tail];

/** The text of a piece of code, two spaces a level. Empty strings are empty lines. */
export function text(code: Code, depth = 0): string {
  if (typeof code === 'string') return code === '' ? '\n' : `${'  '.repeat(depth)}${code}\n`;
  if ('inside' in code) return text(code.inside, depth + 1);
  return code.map(c => text(c, depth)).join('');
}

/** A float literal that reads back as the nearest f32. */
export function float(v: number): string {
  const f = Math.fround(v);
  if (!Number.isFinite(f)) throw new Error(`${v} has no float literal`);
  if (Object.is(f, -0)) return '-0.0f';
  if (Number.isInteger(f) && Math.abs(f) < 1e7) return `${f}.0f`;
  for (let digits = 1; digits <= 9; digits++) {
    const short = f.toPrecision(digits);
    if (Math.fround(Number(short)) === f) return /[.e]/.test(short) ? `${short}f` : `${short}.0f`;
  }
  return `${f.toPrecision(9)}f`;
}

// C17, C++17 and the words that the printers and headers themselves use
const reserved = new Set(
  (
    'alignas alignof and asm auto bool break case catch char class const constexpr continue decltype default delete do double else enum explicit export extern false float for friend goto if inline int long mutable ' +
    'namespace new noexcept not nullptr operator or private protected public register restrict return short signed sizeof static struct switch template this throw true try typedef typeid typename union unsigned using ' +
    'virtual void volatile while xor main exp log sqrt sin cos floor ceil abs min max index block from to row col'
  ).split(' '),
);

/** One table of names for a printed function: what it is given, it spells so that nothing clashes with the language, the header or another name. */
export class Names {
  readonly #spelled = new Map<string, string>();
  readonly #taken = new Set<string>();
  /** @param locals names the printer itself uses in this function */
  constructor(locals: readonly string[] = []) {
    for (const l of locals) this.#taken.add(l);
  }
  /** The spelling of a name; the same for the same kind and name. */
  of(kind: string, name: string): string {
    const key = `${kind} ${name}`;
    const known = this.#spelled.get(key);
    if (known !== undefined) return known;
    let spelled = name.replace(/[^A-Za-z0-9_]/g, '_').replace(/^(?=\d)/, '_');
    while (reserved.has(spelled) || this.#taken.has(spelled)) spelled += '_';
    this.#taken.add(spelled);
    this.#spelled.set(key, spelled);
    return spelled;
  }
}
