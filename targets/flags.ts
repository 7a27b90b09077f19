// The options of an engine by version, as data: which there are, what each takes, and where that was read. Nothing else goes into a command.
import { Refusal } from '../ir/problem.js';
import { badFlagValue, noSuchFlag, unknownVersion } from './launch-problems.js';

/** What an option takes. `switch`: nothing; json: an object. Words by version where they differ: the key is the version. */
export type Takes = 'switch' | 'whole' | 'fraction' | 'text' | 'json' | readonly string[] | Readonly<Record<string, readonly string[]>>;
export interface Flag {
  readonly takes: Takes;
  /** Version to the line of the table's source that declares it; a version that is not named has no such option. */
  readonly at: Readonly<Record<string, number>>;
  /** Where the lines are, when not in the table's usual file. */
  readonly file?: string;
}
export interface FlagTable {
  readonly engine: string;
  /** Version to the repository and commit that it was read in. */
  readonly versions: Readonly<Record<string, string>>;
  /** Versions that a command must suit where none is named. */
  readonly usual: readonly string[];
  readonly file: string;
  readonly flags: Readonly<Record<string, Flag>>;
}

/** A value that is known where the command is run: an address, the node's rank. */
export type Ref =
  | { readonly ref: 'model' | 'leader' | 'self' | 'interface' | 'rank' }
  /** The node's rank times so many. */
  | { readonly ref: 'ranks'; readonly each: number }
  /** The directory of the script, and what a blank was filled with: on plain nodes alone. */
  | { readonly ref: 'here' }
  | { readonly ref: 'blank'; readonly name: string };
/** Text with such values in it. */
export type Word = string | Ref | readonly (string | Ref)[];
/** An option with its value; null: a switch, or a word that stands alone where the name has no dashes. */
export interface Arg {
  readonly flag: string;
  readonly value: Word | null;
}

/** Versions that a command is for. */
export function versionsOf(table: FlagTable, version: string | null): readonly string[] {
  if (version === null) return table.usual;
  if (!Object.hasOwn(table.versions, version)) throw new Refusal([unknownVersion(table.engine, version, Object.keys(table.versions))]);
  return [version];
}
export const hasFlag = (table: FlagTable, versions: readonly string[], flag: string): boolean =>
  versions.every(v => table.flags[flag]?.at[v] !== undefined);
/** The words that a value is one of, in a version; null where any will do. */
function choices(takes: Takes, version: string): readonly string[] | null {
  if (typeof takes === 'string') return null;
  return Array.isArray(takes) ? takes : ((takes as Readonly<Record<string, readonly string[]>>)[version] ?? []);
}
/** Why a value does not suit an option, as what it takes; null where it does. */
export function valueObjection(takes: Takes, version: string, value: string | null): string | null {
  if (takes === 'switch') return value === null ? null : 'nothing';
  if (value === null) return 'a value';
  const words = choices(takes, version);
  if (words) return words.includes(value) ? null : words.join(', ');
  switch (takes) {
    case 'whole':
      return /^\d+$/.test(value) ? null : 'a whole number';
    case 'fraction':
      return /^0\.\d+$/.test(value) ? null : 'a number between 0 and 1';
    case 'json':
      try {
        const v: unknown = JSON.parse(value);
        return typeof v === 'object' && v !== null && !Array.isArray(v) ? null : 'a JSON object';
      } catch {
        return 'a JSON object';
      }
    default:
      return value === '' || value.startsWith('-') ? 'text' : null;
  }
}
/** Hold a command against the table: every option in every version, every value that is known here. Throws a Refusal. */
export function held(table: FlagTable, versions: readonly string[], args: readonly Arg[]): readonly Arg[] {
  const found = args.flatMap(({ flag, value }) =>
    versions.flatMap(v => {
      const f = table.flags[flag];
      if (f?.at[v] === undefined) return [noSuchFlag(table.engine, v, flag, Object.keys(f?.at ?? {}))];
      if (value !== null && typeof value !== 'string') return [];
      const takes = valueObjection(f.takes, v, value);
      return takes === null ? [] : [badFlagValue(table.engine, v, flag, value ?? '', takes)];
    }),
  );
  if (found.length) throw new Refusal(found);
  return args;
}
