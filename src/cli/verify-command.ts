// hkgai verify: what was checked, how far off it is, and what that proves.
import { verify, verifyEngine } from '../verify.js';
import { out, type ProgressStyle, print, printJson, progress, say, table, tellProblem } from './terminal.js';

export interface VerifyArguments {
  readonly golden?: string;
  readonly engine?: string;
  readonly format?: string;
  readonly runtime?: string;
  readonly tolerance: number;
  readonly with: 'auto' | 'native' | 'reference';
  readonly emulate?: boolean;
  readonly json?: boolean;
  readonly quiet?: boolean;
  readonly progress: ProgressStyle;
}

export async function verifyCommand(path: string, o: VerifyArguments): Promise<number> {
  const watch = await progress(o.quiet || o.json ? 'none' : o.progress);
  try {
    const v =
      o.engine === undefined
        ? await verify(path, { golden: o.golden ?? null, tolerance: o.tolerance, with: o.with, emulate: o.emulate === true }, text =>
            watch.step(text),
          )
        : verifyEngine(path, { engine: o.engine, format: o.format ?? null, runtime: o.runtime ?? null });
    watch.done();
    const exit = v.problems[0]?.exit ?? (v.checks.every(c => c.passed) ? 0 : 6);
    if (o.json) printJson({ ok: exit === 0, exit, ...v });
    else {
      if (!o.quiet) {
        const rows = v.checks.map(c => [
          c.passed ? out.green('✓') : out.red('✗'),
          c.name,
          c.difference === null ? '' : c.difference === 0 ? 'equal' : c.difference.toExponential(2),
          c.tolerance ? `of ${c.tolerance}` : '',
          out.dim(c.note),
        ]);
        print(table(rows, [2]));
        const proved = [
          v.verified.reference && `reference ${v.verified.reference}`,
          v.verified.emulated && `under emulators: ${v.verified.emulated}`,
          v.verified.compiled && `built with ${v.verified.compiled}`,
        ].filter(Boolean);
        print(`\n${exit === 0 ? out.green('Verified') : out.red('Not verified')}${proved.length ? `: ${proved.join('; ')}` : ''}.`);
      }
      for (const [i, p] of v.problems.slice(0, 10).entries()) {
        if (i > 0 || !o.quiet) say('');
        tellProblem(p);
      }
      if (v.problems.length > 10) say(`\n… and ${v.problems.length - 10} more of these; --json lists all of them.`);
    }
    return exit;
  } finally {
    watch.stop();
  }
}
