// Builds a bundle's native program, outside the bundle: what was recorded stays as it is. Built ones are kept by the hash of sources and compiler.
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { homedir, tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { type Problem, problem, Refusal } from '../ir/problem.js';
import type { SourceFile } from '../targets/target.js';
import { makeDirectory, writeText } from './bundle/directory.js';
import { compiler, toolVersion } from './doctor.js';

const noCompiler = (language: 'C' | 'C++'): Problem =>
  problem('HK8001', `There is no ${language} compiler here`, {
    why:
      language === 'C'
        ? 'cc, gcc and clang were looked for; CC may name another.'
        : 'g++ and clang++ were looked for; CXX may name another.',
    next: language === 'C' ? 'Install gcc or clang, or use --with reference.' : 'Install g++, or verify where it is.',
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
  if (cc === null) throw new Refusal([noCompiler('C')]);
  const version = toolVersion(cc) ?? '';
  const hash = createHash('sha256').update(
    `${cc} ${version} ${process.env.HKGAI_MARCH ?? ''} ${process.env.HKGAI_CFLAGS ?? ''} ${flags}\n`,
  );
  for (const f of readdirSync(nativeDir).sort()) if (/\.(c|h|sh)$/.test(f)) hash.update(f).update(readFileSync(join(nativeDir, f)));
  const dir = join(cacheDir(), hash.digest('hex').slice(0, 32));
  const program = join(dir, 'model');
  if (existsSync(program)) return { program, compiler: `${cc} (${version})`, fresh: false };
  makeDirectory(dir);
  await runScript(join(nativeDir, 'build.sh'), {
    CC: cc,
    HKGAI_OUT: program,
    HKGAI_CFLAGS: `${process.env.HKGAI_CFLAGS ?? ''} ${flags}`.trim(),
  });
  return { program, compiler: `${cc} (${version})`, fresh: true };
}
function runScript(script: string, env: Readonly<Record<string, string>>): Promise<void> {
  return new Promise<void>((resolve, reject) => {
    const child = spawn('sh', [script], { env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'pipe'] });
    let output = '';
    child.stdout.on('data', d => (output += d));
    child.stderr.on('data', d => (output += d));
    child.on('error', reject);
    child.on('close', code => {
      const said = Object.entries(env).flatMap(([k, v]) => (k === 'CC' || k === 'CXX' ? [`${k}=${v}`] : []));
      if (code === 0) resolve();
      else reject(new Refusal([buildFailed(`${said.join(' ')} sh ${basename(script)}`, output)]));
    });
  });
}

/** The C++ compiler that emulators are built with: $CXX, g++ or clang++; null where there is none. */
export function emulatingCompiler(): string | null {
  for (const name of [process.env.CXX, 'g++', 'clang++']) if (name && toolVersion(name) !== null) return name;
  return null;
}
/**
 * Build native/ of a target's directory with what stands in for its chip, on this machine. What lies there and `emulator` are laid beside each other
 * in a directory of their own, which the program is started from.
 */
export async function buildEmulated(nativeDir: string, emulator: readonly SourceFile[]): Promise<Built> {
  const cc = compiler();
  const cxx = emulatingCompiler();
  if (cc === null) throw new Refusal([noCompiler('C')]);
  if (cxx === null) throw new Refusal([noCompiler('C++')]);
  const version = toolVersion(cxx) ?? '';
  const name = version.startsWith(cxx) ? version : `${cxx} (${version})`;
  const files: readonly SourceFile[] = [
    ...readdirSync(nativeDir)
      .sort()
      .map(f => ({ path: `native/${f}`, text: readFileSync(join(nativeDir, f), 'utf8') })),
    ...emulator,
  ];
  const hash = createHash('sha256').update(`emulated ${cc} ${toolVersion(cc) ?? ''} ${name}\n`);
  for (const f of files) hash.update(`${f.path} ${f.text.length}\n`).update(f.text);
  const dir = join(cacheDir(), hash.digest('hex').slice(0, 32));
  const program = join(dir, 'model');
  if (existsSync(program)) return { program, compiler: name, fresh: false };
  const work = `${dir}.${process.pid}`;
  rmSync(work, { recursive: true, force: true });
  makeDirectory(work);
  for (const f of files) writeText(work, f.path, f.text, f.executable === true);
  await runScript(join(work, 'emulate.sh'), { CC: cc, CXX: cxx, HKGAI_OUT: join(work, 'model') });
  rmSync(dir, { recursive: true, force: true });
  renameSync(work, dir);
  return { program, compiler: name, fresh: true };
}
