// Builds a bundle's native program, outside the bundle: what was recorded stays as it is. Built ones are kept by the hash of sources and compiler.
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { homedir, tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Problem, problem, Refusal } from '../ir/problem.js';
import { makeDirectory } from './bundle/directory.js';
import { compiler, toolVersion } from './doctor.js';

const noCompiler = (): Problem =>
  problem('HK8001', 'There is no C compiler here', {
    why: 'cc, gcc and clang were looked for; CC may name another.',
    next: 'Install gcc or clang, or use --with reference.',
  });
const buildFailed = (command: string, output: string): Problem =>
  problem('HK8002', 'The C compiler did not build the program', {
    places: [{ file: command, shows: output.split('\n').slice(0, 12).join('\n    ') }],
    why: 'The generated C builds with gcc 11 and clang 14 and later.',
    next: 'Name another compiler in CC, or report this.',
  });

/** Where built programs are kept: HKGAI_CACHE, XDG_CACHE_HOME/hkgai, ~/.cache/hkgai, or the temporary directory. */
export function cacheDir(): string {
  for (const dir of [
    process.env.HKGAI_CACHE,
    process.env.XDG_CACHE_HOME && join(process.env.XDG_CACHE_HOME, 'hkgai'),
    join(homedir(), '.cache', 'hkgai'),
    join(tmpdir(), 'hkgai-cache'),
  ]) {
    if (!dir) continue;
    try {
      makeDirectory(dir);
      return dir;
    } catch {
      // not writable: the next one
    }
  }
  throw new Error('no directory can be written for built programs');
}

export interface Built {
  readonly program: string;
  readonly compiler: string;
  /** False where it was there already. */
  readonly fresh: boolean;
}

/** Build native/ of a target's directory. `flags` are added to the compiler's, for example -DHKGAI_TAPS. */
export async function buildNative(nativeDir: string, flags = ''): Promise<Built> {
  const cc = compiler();
  if (cc === null) throw new Refusal([noCompiler()]);
  const version = toolVersion(cc) ?? '';
  const hash = createHash('sha256').update(
    `${cc} ${version} ${process.env.HKGAI_MARCH ?? ''} ${process.env.HKGAI_CFLAGS ?? ''} ${flags}\n`,
  );
  for (const f of readdirSync(nativeDir).sort()) if (/\.(c|h|sh)$/.test(f)) hash.update(f).update(readFileSync(join(nativeDir, f)));
  const dir = join(cacheDir(), hash.digest('hex').slice(0, 32));
  const program = join(dir, 'model');
  if (existsSync(program)) return { program, compiler: `${cc} (${version})`, fresh: false };
  makeDirectory(dir);
  const script = join(nativeDir, 'build.sh');
  await new Promise<void>((resolve, reject) => {
    const child = spawn('sh', [script], {
      env: { ...process.env, CC: cc, HKGAI_OUT: program, HKGAI_CFLAGS: `${process.env.HKGAI_CFLAGS ?? ''} ${flags}`.trim() },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let output = '';
    child.stdout.on('data', d => (output += d));
    child.stderr.on('data', d => (output += d));
    child.on('error', reject);
    child.on('close', code => (code === 0 ? resolve() : reject(new Refusal([buildFailed(`CC=${cc} sh build.sh`, output)]))));
  });
  return { program, compiler: `${cc} (${version})`, fresh: true };
}
