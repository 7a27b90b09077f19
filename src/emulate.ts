// verify --emulate: programs for chips that are not here are built with what stands in for them, and their self-tests are run.
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { type Problem, problem, Refusal } from '../ir/problem.js';
import { targets } from '../targets/index.js';
import { buildEmulated } from './build.js';
import type { Manifest, TargetEntry } from './bundle/manifest.js';

const nothingToEmulate = (path: string, has: string): Problem =>
  problem('HK4310', `${path} has no program that can be run without its chip`, {
    why: `It has ${has || 'no targets'}. A program is emulated where its target prints one for a device and the bundle's notes do not say that there is none.`,
    next: 'Compile for a target that has one; hkgai targets names them.',
  });

/** One line of a self-test's result. */
export interface SelfCheck {
  readonly name: string;
  readonly difference: number;
  readonly allowed: number;
  readonly passed: boolean;
}
export interface Emulated {
  readonly directory: string;
  /** What it was built with. */
  readonly compiler: string;
  /** Whether the reference's values were there to compare with. */
  readonly expected: boolean;
  readonly checks: readonly SelfCheck[];
  /** What ended it; null where it ran to its end. */
  readonly ended: string | null;
}
interface Said {
  readonly expected: boolean;
  readonly checks: readonly SelfCheck[];
  readonly problem: string | null;
}

function run(program: string, args: readonly string[]): Promise<{ readonly out: string; readonly err: string; readonly how: string }> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, [...args], { stdio: ['ignore', 'pipe', 'pipe'] });
    let out = '';
    let err = '';
    child.stdout.on('data', d => (out += d));
    child.stderr.on('data', d => (err += d));
    child.on('error', reject);
    child.on('close', (code, signal) => resolve({ out, err, how: signal ?? `exit ${code}` }));
  });
}
async function one(path: string, t: TargetEntry): Promise<Emulated> {
  const native = join(path, t.directory, 'native');
  const built = await buildEmulated(native, targets[t.target]!.emulator!());
  const ran = await run(built.program, ['--weights', join(path, t.directory, 'engine'), '--selftest', join(native, 'selftest.txt')]);
  const about = { directory: t.directory, compiler: built.compiler };
  const silent = { ...about, expected: false, checks: [], ended: ran.err.trim() || ran.how };
  try {
    const said = JSON.parse(ran.out) as Said;
    return { ...about, expected: said.expected, checks: said.checks, ended: said.problem ?? (ran.err.trim() || null) };
  } catch {
    return silent; // a program that is ended does not finish its JSON
  }
}
/** The self-tests of every program of a bundle that can be emulated. */
export async function emulate(path: string, manifest: Manifest, say: (text: string) => void): Promise<readonly Emulated[]> {
  const able = manifest.targets.filter(t => targets[t.target]?.emulator && existsSync(join(path, t.directory, 'native', 'selftest.txt')));
  if (able.length === 0) throw new Refusal([nothingToEmulate(path, manifest.targets.map(t => t.directory).join(', '))]);
  const all: Emulated[] = [];
  for (const t of able) {
    say(`build ${t.directory}/native with its emulator, and run its self-test`);
    all.push(await one(path, t));
  }
  return all;
}
