// hkgai explain: the page of an error code, from docs/errors.
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { Refusal } from '../../ir/problem.js';
import { unknownCode } from './problems.js';
import { out, print, printJson } from './terminal.js';

function pages(): string | null {
  for (const up of ['../../docs/errors/', '../../../docs/errors/']) {
    const dir = fileURLToPath(new URL(up, import.meta.url));
    if (existsSync(dir)) return dir;
  }
  return null;
}

export async function explainCommand(
  what: string | undefined,
  options: { readonly model?: string; readonly json?: boolean },
): Promise<number> {
  if (what !== undefined && options.model !== undefined)
    return (await import('./explain-tensor.js')).explainTensor(options.model, what, options.json === true);
  const dir = pages();
  const codes =
    dir === null
      ? []
      : readdirSync(dir)
          .filter(f => /^HK\d{4}\.md$/.test(f))
          .map(f => f.slice(0, 6))
          .sort();
  if (what === undefined) {
    const rows = codes.map(c => ({ code: c, title: title(readFileSync(`${dir}${c}.md`, 'utf8')) }));
    if (options.json) printJson(rows);
    else print(rows.map(r => `${out.bold(r.code)}  ${r.title}`).join('\n'));
    return 0;
  }
  const code = what.toUpperCase();
  if (!codes.includes(code)) throw new Refusal([unknownCode(what, codes.filter(c => c.slice(0, 4) === code.slice(0, 4)).slice(0, 6))]);
  const text = readFileSync(`${dir}${code}.md`, 'utf8');
  if (options.json) printJson({ code, title: title(text), text });
  else
    print(
      text
        .trimEnd()
        .replace(/^```\n([\s\S]*?)^```$/gm, (_, t: string) => t.trimEnd().replace(/^/gm, '    '))
        .replace(/^# (.*)$/m, (_, t: string) => out.bold(t))
        .replace(/^## (.*)$/gm, (_, t: string) => out.bold(t)),
    );
  return 0;
}
const title = (text: string): string => /^# HK\d{4}:? *(.*)$/m.exec(text)?.[1] ?? '';
