// How a text is cut before merging, checked and put into the words that @huggingface/tokenizers takes exactly. What the library would do
// otherwise than the format is rewritten where that is possible and refused where it is not; docs/decisions/0002-tokenizer.md has the list.

/** Told of a kind that is not exact: what it is, and what would be. */
export type Unknown = (what: string, known: string) => void;

interface Raw {
  readonly [key: string]: unknown;
}
const object = (v: unknown): Raw => (typeof v === 'object' && v !== null ? (v as Raw) : {});

// GPT-2's own cut, which ByteLevel means by use_regex.
const gpt2 = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
const isolate = (regex: string): Raw => ({ type: 'Split', pattern: { Regex: regex }, behavior: 'Isolated', invert: false });

/** The first thing in a pattern that never gives back what it took, which JavaScript has not; null where there is none. */
export function possessive(pattern: string): string | null {
  let depth = 0;
  for (let i = 0; i < pattern.length; i++) {
    const c = pattern[i] as string;
    if (c === '\\') i++;
    else if (c === '[') depth++;
    else if (c === ']') depth = Math.max(0, depth - 1);
    else if (depth === 0) {
      if (pattern.startsWith('(?>', i)) return '(?>';
      if ('+*?'.includes(c) && pattern[i + 1] === '+') return `${c}+`;
    }
  }
  return null;
}

/** A pre-tokenizer of tokenizer.json in words that the library takes exactly. */
export function exactPreTokenizer(pre: unknown, unknown: Unknown): unknown {
  if (pre === null || pre === undefined) return null;
  const p = object(pre);
  switch (p.type) {
    case 'Sequence':
      if (!Array.isArray(p.pretokenizers)) {
        unknown('a Sequence without pretokenizers', 'a list');
        return null;
      }
      return { type: 'Sequence', pretokenizers: p.pretokenizers.map(q => exactPreTokenizer(q, unknown)) };
    case 'Split': {
      const { Regex: regex, String: text } = object(p.pattern);
      const behavior = String(p.behavior);
      if (typeof regex !== 'string' && typeof text !== 'string')
        unknown('a Split whose pattern is neither Regex nor String', 'both of these');
      // the library takes every other behaviour for Isolated, and takes Isolated for Removed where invert is set
      const plain = (behavior === 'Isolated' && p.invert !== true) || behavior === 'Removed';
      if (!plain)
        unknown(`the Split behavior ${behavior}${p.invert === true ? ' with invert' : ''}`, 'Isolated; Removed, also with invert');
      const kept = typeof regex === 'string' ? possessive(regex) : null;
      if (kept !== null) unknown(`${kept} in the pattern ${String(regex)}`, 'patterns that may give back what they took');
      return p;
    }
    case 'Digits': // the library's takes ASCII digits only; the format's takes whatever Unicode calls a number
      return isolate(p.individual_digits === true ? '\\p{N}' : '\\p{N}+');
    case 'ByteLevel': {
      if (p.add_prefix_space === true) unknown('ByteLevel with add_prefix_space', 'ByteLevel without');
      const bytes = { type: 'ByteLevel', add_prefix_space: false, use_regex: false };
      // the library's own pattern has JavaScript's white space, a Split has the format's
      return p.use_regex === false ? bytes : { type: 'Sequence', pretokenizers: [isolate(gpt2), bytes] };
    }
    default:
      unknown(`the pre-tokenizer ${String(p.type)}`, 'Sequence, Split, Digits, ByteLevel');
      return null;
  }
}

/** Normalizers that JavaScript has by itself. */
export function checkNormalizer(normalizer: unknown, unknown: Unknown): void {
  if (normalizer === null || normalizer === undefined) return;
  const n = object(normalizer);
  if (n.type === 'Sequence' && Array.isArray(n.normalizers)) for (const m of n.normalizers) checkNormalizer(m, unknown);
  else if (!['NFC', 'NFD', 'NFKC', 'NFKD'].includes(String(n.type)))
    unknown(`the normalizer ${String(n.type)}`, 'Sequence, NFC, NFD, NFKC, NFKD');
}

/** Whether a pre-tokenizer ends in bytes: without it characters would be looked up as they are. */
export function endsInBytes(pre: unknown): boolean {
  const p = object(pre);
  return p.type === 'ByteLevel' || (p.type === 'Sequence' && Array.isArray(p.pretokenizers) && endsInBytes(p.pretokenizers.at(-1)));
}
