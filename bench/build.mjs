// Compiles the benches with the program they measure to out/bench and puts the C sources beside them.
import { execFileSync } from 'node:child_process';
import { cpSync, mkdirSync, readdirSync, rmSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { buildWasm } from '../scripts/wasm.mjs';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const out = join(root, 'out', 'bench');
rmSync(out, { recursive: true, force: true });
mkdirSync(out, { recursive: true });
await buildWasm();
execFileSync(process.execPath, [join(root, 'node_modules/typescript/bin/tsc'), '-p', join(root, 'bench'), '--outDir', out], {
  stdio: 'inherit',
});
// beside the compiled TypeScript, what is read at run time: headers, runtimes, chip facts, schemas
for (const top of ['ir', 'src', 'targets']) {
  for (const entry of readdirSync(join(root, top), { recursive: true, withFileTypes: true })) {
    if (!entry.isFile() || /\.(ts|md)$/.test(entry.name) || entry.parentPath.endsWith('assembly')) continue;
    const from = join(entry.parentPath, entry.name);
    cpSync(from, join(out, relative(root, from)));
  }
}
cpSync(join(root, 'bench/verbs.c'), join(out, 'bench/verbs.c'));
