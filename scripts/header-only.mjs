// node scripts/header-only.mjs CONFIG.json OUT: the headers that a release with this config would have, without any data. Needs npm run build.
import { writeHeaders } from '../dist/src/models/header-only.js';

const [config, out] = process.argv.slice(2);
if (!config || !out) {
  process.stderr.write('usage: node scripts/header-only.mjs CONFIG.json OUT\n');
  process.exit(2);
}
const { tensors, shards } = writeHeaders(config, out);
console.log(`${tensors} tensors in ${shards} shards of headers`);
