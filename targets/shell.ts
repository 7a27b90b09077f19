// POSIX sh as launch files need it: quoting, and values that are known where a script runs.
import type { Arg, Ref, Word } from './flags.js';

/** A word that sh takes for itself. */
export const quoted = (s: string): string => (/^[A-Za-z0-9_./:=,@%+-]+$/.test(s) ? s : `'${s.replaceAll("'", `'\\''`)}'`);
/** A value as sh of node `k` has it. */
function known(r: Ref, k: number): string {
  switch (r.ref) {
    case 'model':
      return '"$model"';
    case 'leader':
      return '"$HKGAI_NODE0_ADDRESS"';
    case 'self':
      return `"$HKGAI_NODE${k}_ADDRESS"`;
    case 'interface':
      return `"$HKGAI_NODE${k}_INTERFACE"`;
    case 'rank':
      return String(k);
    case 'ranks':
      return String(k * r.each);
    case 'here':
      return '"$here"';
    case 'blank':
      return `"$HKGAI_${r.name}"`;
  }
}
export function shellWord(w: Word, k: number): string {
  if (typeof w === 'string') return quoted(w);
  if ('ref' in w) return known(w, k);
  return w.map(x => (typeof x === 'string' ? quoted(x) : known(x, k))).join('');
}
/** Options as a list of sh words, an option and its value together. */
export const shellArgs = (args: readonly Arg[], k: number): readonly string[] =>
  args.map(({ flag, value }) => {
    const name = flag.startsWith('-') ? [flag] : [];
    return [...name, ...(value === null ? [] : [shellWord(value, k)])].join(' ');
  });
