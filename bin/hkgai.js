#!/usr/bin/env node
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const entry = new URL('../dist/src/cli/main.js', import.meta.url);
if (!existsSync(fileURLToPath(entry))) {
  process.stderr.write('hkgai is not built yet: run `npm ci && npm run build` in its directory.\n');
  process.exit(1);
}
const { main } = await import(entry.href);
await main(process.argv.slice(2));
