// Messages of the command line itself.
import { dirname } from 'node:path';
import { notThere, type Problem, problem } from '../../ir/problem.js';

/** Of one code, whatever the call. */
const failed = (what: string, more: Parameters<typeof problem>[2]): Problem => problem('HK9003', what, more);
/** A system call that failed: exit 9, or 3 where the named input is not there. */
export function fileProblem(e: NodeJS.ErrnoException): Problem {
  const places = e.path === undefined ? [] : [{ file: e.path }];
  // a place for temporary files is of the environment, not of the input
  if (e.syscall === 'mkdtemp' && e.path !== undefined)
    return failed(`No temporary directory can be made in ${dirname(e.path)}: ${e.code}`, {
      places: [{ file: dirname(e.path) }],
      why: 'TMPDIR says where; without it /tmp is taken.',
      next: 'Set TMPDIR to a directory that is there and may be written.',
    });
  switch (e.code) {
    case 'ENOENT':
      return notThere(e.path ?? 'a file');
    case 'EACCES':
    case 'EPERM':
      return problem('HK9001', `${e.path ?? 'a file'} may not be opened by this user`, {
        places,
        why: `The system said ${e.code} to ${e.syscall}.`,
        next: 'Change its permissions or run as its owner.',
      });
    case 'ENOSPC':
    case 'EDQUOT':
      return problem('HK9002', 'The disk is full', {
        places,
        why: 'Nothing is at the output; weight files that were finished are kept beside it.',
        next: 'Free space and run the same command again: it goes on with what is missing.',
      });
    case 'EISDIR':
      return failed(`${e.path ?? 'What was named'} is a directory, where a file is read or written`, {
        places,
        next: 'Name a file.',
      });
    default:
      return failed(`${e.syscall ?? 'A system call'} failed: ${e.code ?? e.message}`, {
        places,
        next: 'Check the disk and its mount, then run the same command again.',
      });
  }
}

/** What was asked for could not be said. */
export const outputLost = (e: NodeJS.ErrnoException): Problem =>
  failed(`The standard output could not be written: ${e.code ?? e.message}`, {
    why: 'What the command had to say is lost or cut; files that it made are in place.',
    next: 'Free space where the standard output goes, or send it elsewhere.',
  });

/** Something the program did not expect: a bug of ours. */
export function internalProblem(e: unknown): Problem {
  const text = e instanceof Error ? e.message : String(e);
  return problem('HK1000', `Internal error: ${text}`, {
    why: 'This is a bug of hkgai, not of your input. Nothing was written to the output directory.',
    next: 'Run again with HKGAI_DEBUG=1 for the stack, and report it with the command.',
  });
}

export const unknownCode = (code: string, near: readonly string[]): Problem =>
  problem('HK2001', `${code} is not an error code or a tensor of a model named here`, {
    why: near.length ? `Codes close to it: ${near.join(', ')}.` : '',
    next: 'hkgai explain lists all codes.',
  });
export const usage = (text: string): Problem =>
  problem('HK2002', text, { next: 'hkgai --help shows the commands; hkgai COMMAND --help its options.' });
