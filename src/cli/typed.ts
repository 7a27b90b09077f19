// The command line that began this process, as a shell takes it again.
import { realpathSync } from 'node:fs';
import { delimiter, join } from 'node:path';

/** A word that a POSIX shell reads as it is. */
export const quoted = (word: string): string => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`);

/** By its name where the shell finds this program under it, else by the interpreter and the file. */
function program(script: string): readonly string[] {
  for (const dir of (process.env.PATH ?? '').split(delimiter))
    try {
      if (dir !== '' && realpathSync(join(dir, 'hkgai')) === realpathSync(script)) return ['hkgai'];
    } catch {
      // not there
    }
  return [process.argv0, ...process.execArgv, script];
}
export const typed = (): string => [...program(process.argv[1] ?? ''), ...process.argv.slice(2)].map(quoted).join(' ');
