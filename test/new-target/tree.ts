// A copy of the program in which a trial may put files where they belong: built from the sources as scripts/build.mjs builds them, without types.
import { spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { transformSync } from '@swc/core';

const root = fileURLToPath(new URL('../..', import.meta.url));
/** TypeScript without its types. */
const plain = (text: string): string =>
  transformSync(text, { jsc: { parser: { syntax: 'typescript' }, target: 'es2022' }, module: { type: 'es6' } }).code;

export class Tree {
  readonly #at: string;
  constructor(at: string) {
    this.#at = at;
    for (const top of ['ir', 'src', 'targets'])
      for (const e of readdirSync(join(root, top), { recursive: true, withFileTypes: true })) {
        if (!e.isFile() || e.name.endsWith('.md') || e.parentPath.endsWith('assembly')) continue;
        const path = join(e.parentPath, e.name);
        this.#put(relative(root, path), path);
      }
    cpSync(join(root, 'bin'), join(at, 'bin'), { recursive: true });
    cpSync(join(root, 'package.json'), join(at, 'package.json'));
    symlinkSync(join(root, 'node_modules'), join(at, 'node_modules'));
  }
  #put(to: string, from: string, turn: (text: string) => string = t => t): void {
    const place = join(this.#at, 'dist', to.replace(/\.ts$/, '.js'));
    mkdirSync(dirname(place), { recursive: true });
    if (to.endsWith('.ts')) writeFileSync(place, plain(turn(readFileSync(from, 'utf8'))));
    else cpSync(from, place);
  }
  /** Puts a file, or all files of a folder, to their place. A vendor's sources import what they would from that place. */
  add(to: string, from: string): void {
    this.#put(to, from);
  }
  addVendor(name: string, from: string): void {
    for (const e of readdirSync(from, { recursive: true, withFileTypes: true }))
      if (e.isFile()) {
        const path = join(e.parentPath, e.name);
        this.#put(join('targets', name, relative(from, path)), path, t =>
          t.replaceAll("'../../../targets/", "'../").replaceAll("'../../../ir/", "'../../ir/"),
        );
      }
    const index = join(root, 'targets/index.ts');
    this.#put('targets/index.ts', index, t =>
      t.replace('import type', `import { ${name} } from './${name}/index.js';\nimport type`).replace(/ \};\n$/, `, ${name} };\n`),
    );
  }
  run(...args: readonly string[]): { readonly code: number | null; readonly out: string; readonly err: string } {
    const env = { ...process.env, NO_COLOR: '1', HKGAI_CACHE: join(this.#at, 'cache') };
    const r = spawnSync(process.execPath, [join(this.#at, 'bin/hkgai.js'), ...args], { encoding: 'utf8', env });
    return { code: r.status, out: r.stdout, err: r.stderr };
  }
}
