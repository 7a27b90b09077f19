// npm run demo: build hkgai, compile the shipped model, and let it answer in three languages.
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const run = (args, quiet = false) => {
  const { status } = spawnSync(process.execPath, args, { cwd: root, stdio: ['ignore', 'inherit', quiet ? 'ignore' : 'inherit'] });
  if (status !== 0) process.exit(status ?? 1);
};
const hkgai = (...args) => {
  console.log(`\n$ hkgai ${args.map(a => (/[^\w./:-]/.test(a) ? `"${a}"` : a)).join(' ')}`);
  run([join(root, 'bin/hkgai.js'), ...args]);
};
if (!existsSync(join(root, 'dist/src/cli/main.js'))) console.log('build hkgai');
run([join(root, 'scripts/build.mjs')]);
hkgai('inspect', 'fixtures/hkgai-nano');
hkgai('compile', 'fixtures/hkgai-nano', '-o', 'out/hkgai-nano', '--force');
for (const prompt of ['What is the capital of Japan?', '日本的首都是哪裏？', '法國嘅首都係邊度？', '53+16=?'])
  hkgai('run', 'out/hkgai-nano', prompt);
// the same weights as FP8, for three vendors' engines at once
const chips = ['-t', 'cuda', '-t', 'ascend:910b', '-t', 'biren:br1xx'];
hkgai('compile', 'fixtures/hkgai-nano-fp8', '-o', 'out/hkgai-nano-chips', ...chips, '--force', '--progress', 'none');
hkgai('verify', 'out/hkgai-nano-chips', '--progress', 'none');
