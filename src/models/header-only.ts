// A checkpoint of headers: config, index and shards that end after their headers, as large as a release in everything but data. For plans made before
// the weights are there, and for testing at full size.
import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseConfig } from '../checkpoint/config.js';
import { expectedTensors } from './index.js';

const bytesOf: Readonly<Record<string, number>> = { F32: 4, BF16: 2, F16: 2, F8_E4M3: 1, F8_E8M0: 1, I8: 1, I32: 4, I64: 8 };
/** Bytes of tensors in a shard, about what releases have. */
const shardBytes = 4_300_000_000;

/** Write the headers that a release with this config.json would have into `out`. Returns tensors and shards. */
export function writeHeaders(configFile: string, out: string): { readonly tensors: number; readonly shards: number } {
  const config = parseConfig(readFileSync(configFile, 'utf8'), 'config.json');
  const shards: { readonly name: string; readonly dtype: string; readonly shape: readonly number[]; readonly bytes: number }[][] = [[]];
  let size = 0;
  const all = expectedTensors(config).filter(t => !t.optional || !/embed_tokens|shared_head\.head/.test(t.name));
  for (const t of all) {
    const bytes = t.shape.reduce((a, b) => a * b, 1) * bytesOf[t.dtype]!;
    if (size + bytes > shardBytes && shards.at(-1)!.length > 0) {
      shards.push([]);
      size = 0;
    }
    shards.at(-1)!.push({ ...t, bytes });
    size += bytes;
  }
  mkdirSync(out, { recursive: true });
  copyFileSync(configFile, join(out, 'config.json'));
  const map: Record<string, string> = {};
  shards.forEach((list, i) => {
    const file = `model-${String(i + 1).padStart(5, '0')}-of-${String(shards.length).padStart(6, '0')}.safetensors`;
    let at = 0;
    const entries = list.map(t => {
      map[t.name] = file;
      return `${JSON.stringify(t.name)}:{"dtype":"${t.dtype}","shape":[${t.shape.join(',')}],"data_offsets":[${at},${(at += t.bytes)}]}`;
    });
    const header = Buffer.from(`{${entries.join(',')}}`);
    const length = Buffer.alloc(8);
    length.writeBigUInt64LE(BigInt(header.length));
    writeFileSync(join(out, file), Buffer.concat([length, header]));
  });
  writeFileSync(join(out, 'model.safetensors.index.json'), JSON.stringify({ metadata: {}, weight_map: map }, null, 2));
  return { tensors: all.length, shards: shards.length };
}
