// The evaluation texts are other people's and stay outside the repository; tests that use them are skipped where they are not found.
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The path of an evaluation text: in HKGAI_EVAL_TEXT, or beside the repository; null where it is not there. */
export function evalText(name: string): string | null {
  for (const dir of [process.env.HKGAI_EVAL_TEXT, fileURLToPath(new URL('../../shared/nano/eval/text', import.meta.url))])
    if (dir !== undefined && existsSync(join(dir, name))) return join(dir, name);
  return null;
}
