// Compiles the benches with the program they measure to out/bench and puts the C sources beside them.
import { execFileSync } from 'node:child_process';
import { cpSync, mkdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { buildWasm } from '../scripts/wasm.mjs';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const out = join(root, 'out', 'bench');
mkdirSync(out, { recursive: true });
await buildWasm();
execFileSync(process.execPath, [join(root, 'node_modules/typescript/bin/tsc'), '-p', join(root, 'bench'), '--outDir', out], {
  stdio: 'inherit',
});
for (const dir of ['targets/cpu/header', 'targets/cpu/runtime', 'targets/runtime'])
  cpSync(join(root, dir), join(out, dir), { recursive: true });
cpSync(join(root, 'src/numeric/kernels.wasm'), join(out, 'src/numeric/kernels.wasm'));
cpSync(join(root, 'bench/verbs.c'), join(out, 'bench/verbs.c'));
