// The command line. The only place for commander, colours and exit codes; each verb loads what it needs.
import { readFileSync } from 'node:fs';
import { Refusal } from '../../ir/problem.js';

/** The version in package.json, found from the built file or the source. */
export function version(): string {
  for (const up of ['../../package.json', '../../../package.json']) {
    try {
      const found = JSON.parse(readFileSync(new URL(up, import.meta.url), 'utf8')) as { name?: string; version?: string };
      if (found.name === 'hkgai' && found.version) return found.version;
    } catch {
      // not at this depth
    }
  }
  return 'unknown';
}

export async function main(args: readonly string[]): Promise<void> {
  let lost: NodeJS.ErrnoException | null = null;
  process.stdout.on('error', (e: NodeJS.ErrnoException) => {
    if (e.code === 'EPIPE') process.exit(0); // the reader of a pipe has seen enough
    if (lost === null)
      void Promise.all([import('./problems.js'), import('./terminal.js')]).then(([p, t]) => t.tellProblem(p.outputLost(e)));
    lost = e;
  });
  process.on('exit', () => {
    if (lost !== null && !process.exitCode) process.exitCode = 9;
  });
  process.stderr.on('error', () => {}); // closed or full: the work goes on, and the exit code still says how it ended
  if (args.length === 1 && (args[0] === '--version' || args[0] === '-V')) {
    process.stdout.write(version() + '\n');
    return;
  }
  try {
    const { run } = await import('./program.js');
    process.exitCode = await run(args, version());
  } catch (error) {
    process.exitCode = await fail(error, args.includes('--json'));
  }
}

/** Say what went wrong and give the exit code. */
async function fail(error: unknown, json: boolean): Promise<number> {
  const { printJson, say, tellProblem } = await import('./terminal.js');
  if (error instanceof Refusal || (error as { name?: string }).name === 'Refusal') {
    const refusal = error as Refusal;
    if (json) printJson({ ok: false, exit: refusal.exit, problems: refusal.problems });
    const shown = refusal.problems.slice(0, 20);
    for (const [i, p] of shown.entries()) {
      if (i > 0) say('');
      tellProblem(p);
    }
    if (refusal.problems.length > shown.length)
      say(`\n… and ${refusal.problems.length - shown.length} more of these; --json lists all of them.`);
    return refusal.exit;
  }
  const io = error as NodeJS.ErrnoException;
  const { fileProblem, internalProblem } = await import('./problems.js');
  const p = io?.syscall && io.code ? fileProblem(io) : internalProblem(error);
  if (json) printJson({ ok: false, exit: p.exit, problems: [p] });
  tellProblem(p);
  if (p.exit === 1 && process.env.HKGAI_DEBUG) say(String((error as Error)?.stack));
  return p.exit;
}
