// Every message of the program is a named function here (or in a sibling list that imports `problem`): what, where, why, and a way on.

/** Exit codes of the command line; docs/errors/README.md has one line for each. */
export type ExitCode = 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8 | 9 | 130;

export interface Place {
  /** File as the user knows it: relative to what was named on the command line. */
  readonly file: string;
  /** 1-based line of a text file. */
  readonly line?: number;
  /** Byte range [from, to) of a binary file. */
  readonly bytes?: readonly [from: number, to: number];
  /** What stands there, in the file's own words. */
  readonly shows?: string;
}

export interface Problem {
  /** HKnnnn. The first digit is the exit code it leads to, save 0xxx (internal) and 9130 (interrupted). */
  readonly code: string;
  readonly exit: ExitCode;
  /** One sentence: what is wrong. */
  readonly what: string;
  readonly places: readonly Place[];
  /** Why it matters or what probably happened; may be empty. */
  readonly why: string;
  /** What to do next; may be empty. */
  readonly next: string;
}

/** The one exception type of the program: carries every problem found, never the first alone. */
export class Refusal extends Error {
  readonly problems: readonly Problem[];
  constructor(problems: readonly [Problem, ...Problem[]] | readonly Problem[]) {
    super(problems.map(p => showProblem(p)).join('\n\n'));
    this.name = 'Refusal';
    this.problems = problems;
  }
  get exit(): ExitCode {
    return this.problems[0]?.exit ?? 1;
  }
}

const exits: Readonly<Record<string, ExitCode>> = { '1': 1, '2': 2, '3': 3, '4': 4, '5': 5, '6': 6, '7': 7, '8': 8, '9': 9 };

/** Make a problem; the exit code follows from the code's first digit. */
export function problem(code: `HK${number}`, what: string, rest: { places?: readonly Place[]; why?: string; next?: string } = {}): Problem {
  const exit = exits[code.slice(2, 3)];
  if (exit === undefined) throw new Error(`${code} has no exit code`);
  return { code, exit, what, places: rest.places ?? [], why: rest.why ?? '', next: rest.next ?? '' };
}

export function showPlace(p: Place): string {
  const bytes = p.bytes ? `, bytes ${p.bytes[0]} to ${p.bytes[1]}` : '';
  return `  ${p.file}${p.line === undefined ? '' : `:${p.line}`}${bytes}${p.shows === undefined ? '' : `   ${p.shows}`}`;
}

/** The plain text of a problem; src/cli adds colour. */
export function showProblem(p: Problem): string {
  return [
    `${p.code}  ${p.what}`,
    ...p.places.map(showPlace),
    ...(p.why ? [p.why] : []),
    ...(p.next ? [`${p.next}   hkgai explain ${p.code}`] : [`hkgai explain ${p.code}`]),
  ].join('\n');
}

/** A path that does not exist: said by the command line and by what opens directories. */
export const notThere = (path: string): Problem =>
  problem('HK3900', `${path} is not there`, { places: [{ file: path }], next: 'Check the path.' });
