// What the terminal shows: colour where it is wanted, progress on stderr, tables, sizes. Data goes to stdout, all else to stderr.
import chalk, { Chalk, type ChalkInstance } from 'chalk';
import { type Problem, showPlace } from '../../ir/problem.js';

export type ProgressStyle = 'auto' | 'tty' | 'plain' | 'json' | 'none';
const plain = new Chalk({ level: 0 });
/** Colours of stdout and of stderr: none off a terminal or with NO_COLOR. */
export const out: ChalkInstance = process.stdout.isTTY ? chalk : plain;
export const err: ChalkInstance = process.stderr.isTTY && process.env.NO_COLOR === undefined ? new Chalk({ level: 1 }) : plain;

/** A control character as JSON has it: 0x7f to 0x9f too, which JSON.stringify leaves. */
const escaped = (c: string): string => (c < ' ' ? JSON.stringify(c).slice(1, -1) : `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`);
/** Names and labels come from files: what a terminal would obey in them is shown and not obeyed. Lines and tabs stay. */
export const inert = (text: string): string => text.replace(/[^\P{Cc}\n\t]/gu, escaped);
/** The same, and the colours that this program makes stay: bold, dim, red, green, yellow, cyan, and their ends. */
const shown = (text: string): string =>
  text.replace(/\u001b\[(?:1|2|22|31|32|33|36|39)m|[^\P{Cc}\n\t]/gu, c => (c.length > 1 ? c : escaped(c)));

export const say = (text: string): void => void process.stderr.write(shown(text) + '\n');
export const print = (text: string): void => void process.stdout.write(shown(text) + '\n');
export const printJson = (value: unknown): void => print(JSON.stringify(value, null, 2));

/** A problem as a person reads it: code and sentence, places, reason, way on. */
export function tellProblem(p: Problem): void {
  say(`${err.red.bold(p.code)}  ${err.bold(inert(p.what))}`);
  for (const place of p.places) say(err.dim(inert(showPlace(place))));
  if (p.why) say(inert(p.why));
  say(p.next ? `${inert(p.next)}   ${err.cyan(`hkgai explain ${p.code}`)}` : err.cyan(`hkgai explain ${p.code}`));
}

/** 1.53 GiB, 12.0 KiB, 17 B. */
export function bytes(n: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let unit = 0;
  let size = n;
  while (size >= 1024 && unit < units.length - 1) {
    size /= 1024;
    unit++;
  }
  return unit === 0 ? `${n} B` : `${size.toFixed(size < 10 ? 2 : 1)} ${units[unit]}`;
}
/** 671.03 B, 3.41 M. */
export function count(n: number): string {
  for (const [size, unit] of [
    [1e12, 'T'],
    [1e9, 'B'],
    [1e6, 'M'],
    [1e3, 'K'],
  ] as const)
    if (n >= size) return `${(n / size).toFixed(2)} ${unit}`;
  return String(n);
}
export const grouped = (n: number): string => String(n).replace(/\B(?=(\d{3})+$)/g, ',');

/** Columns as wide as their widest cell; numbers to the right. */
export function table(rows: readonly (readonly string[])[], right: readonly number[] = []): string {
  const width = (i: number): number => Math.max(...rows.map(r => displayWidth(r[i] ?? '')));
  const widths = (rows[0] ?? []).map((_, i) => width(i));
  return rows
    .map(r =>
      r
        .map((c, i) =>
          right.includes(i)
            ? ' '.repeat(widths[i]! - displayWidth(c)) + c
            : i === r.length - 1
              ? c
              : c + ' '.repeat(widths[i]! - displayWidth(c)),
        )
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}
/** Columns a text takes in a terminal: wide for CJK, none for colour codes. */
export function displayWidth(text: string): number {
  let n = 0;
  for (const c of text.replace(/\u001b\[[0-9;]*m/g, ''))
    n += /[\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6\u{20000}-\u{3ffff}]/u.test(c)
      ? 2
      : 1;
  return n;
}

export interface Progress {
  /** A step begins; the one before is done. */
  step(text: string): void;
  /** Within a step: done of total, in bytes. */
  at(done: number, total: number): void;
  done(text?: string): void;
  stop(): void;
}

/** A spinner on a terminal, a line a step in plain form, a JSON line a step, or nothing. */
export async function progress(style: ProgressStyle): Promise<Progress> {
  const form = style === 'auto' ? (process.stderr.isTTY ? 'tty' : 'plain') : style;
  switch (form) {
    case 'none':
      return { step: () => {}, at: () => {}, done: () => {}, stop: () => {} };
    case 'json': {
      const line = (o: object): void => say(JSON.stringify(o));
      return {
        step: text => line({ step: text }),
        at: (done, total) => line({ done, total }),
        done: text => line({ finished: text ?? '' }),
        stop: () => {},
      };
    }
    case 'plain': {
      let quarter = -1;
      return {
        step: text => {
          quarter = -1;
          say(`- ${text}`);
        },
        at: (done, total) => {
          const now = total > 0 ? Math.floor((4 * done) / total) : 0;
          if (total > 1 << 28 && now > quarter) {
            quarter = now;
            say(`  ${bytes(done)} of ${bytes(total)}`);
          }
        },
        done: text => text && say(`- ${text}`),
        stop: () => {},
      };
    }
    case 'tty': {
      const { default: ora } = await import('ora');
      const spinner = ora({ stream: process.stderr, discardStdin: false });
      let name = '';
      let started = 0;
      return {
        step: text => {
          if (name) spinner.succeed(name);
          name = inert(text);
          started = Date.now();
          spinner.start(name);
        },
        at: (done, total) => {
          const seconds = (Date.now() - started) / 1000;
          const rate = seconds > 0.5 ? `, ${bytes(done / seconds)}/s, ${Math.ceil((total - done) / (done / seconds))} s left` : '';
          spinner.text = `${name}  ${bytes(done)} of ${bytes(total)}${rate}`;
        },
        done: text => {
          if (name) spinner.succeed(text === undefined ? name : inert(text));
          name = '';
        },
        stop: () => void spinner.stop(),
      };
    }
  }
}
