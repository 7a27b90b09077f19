// Compiles src/numeric/assembly to src/numeric/kernels.wasm, where the sources are newer. The same sources give the same bytes.
import { existsSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const from = join(root, 'src/numeric/assembly');
const to = join(root, 'src/numeric/kernels.wasm');
export async function buildWasm() {
  const newest = Math.max(
    ...readdirSync(from).map(f => statSync(join(from, f)).mtimeMs),
    statSync(join(root, 'package.json')).mtimeMs,
    statSync(fileURLToPath(import.meta.url)).mtimeMs,
  );
  if (existsSync(to) && statSync(to).mtimeMs > newest) return;
  const { default: asc } = await import('assemblyscript/asc');
  const { error, stderr, binary } = await compile(asc);
  if (error) throw new Error(`${error.message}\n${stderr}`);
  writeFileSync(to, binary);
}
async function compile(asc) {
  let binary;
  const { error, stderr } = await asc.main(
    [
      'index.ts',
      '--outFile',
      'kernels.wasm',
      '-O3',
      '--converge',
      '--noAssert',
      '--runtime',
      'stub',
      '--enable',
      'simd',
      '--importMemory',
      '--memoryBase',
      '1024',
      '--use',
      'abort=',
    ],
    {
      readFile: (name, base) => {
        const path = join(base ?? '.', name);
        const at = join(from, path.startsWith('/') ? path.slice(1) : path);
        return existsSync(at) ? readText(at) : null;
      },
      writeFile: (_, data) => void (binary = data),
      listFiles: () => [],
    },
  );
  return { error, stderr: stderr.toString(), binary };
}

import { readFileSync } from 'node:fs';

const readText = at => readFileSync(at, 'utf8');
if (process.argv[1] === fileURLToPath(import.meta.url)) await buildWasm();
