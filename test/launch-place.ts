// Launch files on a disk, filled in by their own script, and run with programs that write down what they were given.
import { spawnSync } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { type FlagTable, valueObjection } from '../targets/flags.js';
import type { SourceFile } from '../targets/target.js';

export interface Ran {
  readonly status: number;
  readonly out: string;
  readonly err: string;
}
export interface Started {
  /** The program and its arguments. */
  readonly words: readonly string[];
  readonly env: Readonly<Record<string, string>>;
}
export class LaunchPlace {
  readonly root = mkdtempSync(join(tmpdir(), 'hkgai-launch-'));
  constructor(files: readonly SourceFile[]) {
    for (const f of files) {
      const path = join(this.root, f.path);
      mkdirSync(dirname(path), { recursive: true });
      writeFileSync(path, f.text);
      if (f.executable) chmodSync(path, 0o755);
    }
    mkdirSync(join(this.root, 'bin'));
    for (const name of ['vllm', 'python3', 'ray', 'docker']) {
      const file = join(this.root, 'bin', name);
      // ray's two kinds end at once: the head goes to the background, a lender would stay
      const more =
        name === 'ray' ? 'printf "%s\\0" ray "$@" >>"$RECORD.ray"; exit 0' : 'printf "%s\\0" "$0" "$@" >"$RECORD"; env >"$RECORD.env"';
      writeFileSync(file, `#!/bin/sh\n${more}\n`);
      chmodSync(file, 0o755);
    }
  }
  sh(args: readonly string[], env: Readonly<Record<string, string>> = {}): Ran {
    const record = join(this.root, 'record');
    for (const f of ['', '.env', '.ray']) rmSync(record + f, { force: true });
    const { status, stdout, stderr } = spawnSync('sh', args, {
      cwd: this.root,
      encoding: 'utf8',
      env: { PATH: `${join(this.root, 'bin')}:/usr/bin:/bin`, RECORD: record, ...env },
    });
    return { status: status ?? -1, out: stdout, err: stderr };
  }
  #words(file: string): readonly string[] {
    return readFileSync(join(this.root, file), 'utf8').split('\0').slice(0, -1);
  }
  started(): Started {
    const [program, ...words] = this.#words('record');
    const env = readFileSync(join(this.root, 'record.env'), 'utf8')
      .split('\n')
      .map(l => [l.slice(0, l.indexOf('=')), l.slice(l.indexOf('=') + 1)] as const);
    return { words: [(program as string).replace(/^.*\//, ''), ...words], env: Object.fromEntries(env) };
  }
  ray(): readonly string[] {
    return this.#words('record.ray');
  }
  read(path: string): string {
    return readFileSync(join(this.root, path), 'utf8');
  }
  done(): void {
    rmSync(this.root, { recursive: true, force: true });
  }
}

/** Option to value (null: a switch), held against the table for each version; throws with what is wrong. Words that stand alone are `MODEL`. */
export function parsed(table: FlagTable, versions: readonly string[], words: readonly string[]): ReadonlyMap<string, string | null> {
  const found = new Map<string, string | null>();
  for (let i = 0; i < words.length; i++) {
    const word = words[i] as string;
    const flag = word.startsWith('-') ? word : 'MODEL';
    const known = table.flags[flag];
    if (!known) throw new Error(`${table.engine} has no ${word}`);
    if (found.has(flag)) throw new Error(`${flag} stands there twice`);
    const value = known.takes === 'switch' ? null : flag === 'MODEL' ? word : (words[++i] ?? null);
    for (const v of versions) {
      if (known.at[v] === undefined) throw new Error(`${table.engine} ${v} has no ${flag}`);
      const no = valueObjection(known.takes, v, value);
      if (no) throw new Error(`${table.engine} ${v}: ${flag} takes ${no}, not ${value}`);
    }
    found.set(flag, value);
  }
  return found;
}
/** What the kubelet makes of a word of `command` or `args`: $(NAME) where it is known, $$ as $. */
export const kubelet = (word: string, env: Readonly<Record<string, string>>): string =>
  word.replace(/\$\$|\$\(([A-Za-z_][A-Za-z0-9_]*)\)/g, (all, name: string | undefined) => (name === undefined ? '$' : (env[name] ?? all)));
