// npm test: lint, types, build, then all tests. With arguments: those tests alone.
import { spawnSync } from 'node:child_process';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { buildWasm } from './wasm.mjs';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const args = process.argv.slice(2);
const run = (name, command) => {
  if (name) console.log(`> ${name}`);
  const { status } = spawnSync(process.execPath, command, { cwd: root, stdio: 'inherit' });
  if (status !== 0) process.exit(status ?? 1);
};
if (args.length === 0) {
  run('lint', [join(root, 'node_modules/@biomejs/biome/bin/biome'), 'check', '.']);
  run('types', [join(root, 'node_modules/typescript/bin/tsc'), '--noEmit']);
  run('build', [join(root, 'scripts/build.mjs')]);
}
if (args.length > 0) await buildWasm();
run(args.length === 0 ? 'tests' : '', ['--experimental-vm-modules', '--no-warnings', join(root, 'node_modules/jest/bin/jest.js'), ...args]);
