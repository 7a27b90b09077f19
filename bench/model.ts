// Made-up checkpoints of any size for the benches: the tensors that a release with this config.json would have, cut from one stretch of random
// numbers at changing places. The same every time.
import { closeSync, existsSync, mkdirSync, openSync, renameSync, rmSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { openCheckpoint } from '../src/checkpoint/shards.js';
import { expectedTensors } from '../src/models/index.js';

/** Normal numbers in bf16, standard deviation 0.02. */
function randomBf16(count: number): Uint16Array {
  const out = new Uint16Array(count);
  const one = new Float32Array(1);
  const bits = new Uint32Array(one.buffer);
  let s = 2463534242;
  const unit = (): number => {
    s ^= s << 13;
    s ^= s >>> 17;
    s ^= s << 5;
    return ((s >>> 0) + 0.5) / 4294967296;
  };
  for (let i = 0; i < count; i++) {
    one[0] = 0.02 * Math.sqrt(-2 * Math.log(unit())) * Math.cos(2 * Math.PI * unit());
    out[i] = bits[0]! >>> 16;
  }
  return out;
}
/** The same numbers as e4m3, cut off, with 448 at about five standard deviations. */
function toFp8(values: Uint16Array): Uint8Array {
  const one = new Uint32Array(1);
  const float = new Float32Array(one.buffer);
  return Uint8Array.from(values, v => {
    one[0] = v << 16;
    float[0] = Math.max(-448, Math.min(448, (float[0] as number) * 4480));
    const b = one[0] as number;
    const exponent = ((b >>> 23) & 255) - 120; // bias 127 to 7
    return ((b >>> 24) & 0x80) | (exponent <= 0 ? 0 : (exponent << 3) | ((b >>> 20) & 7));
  });
}
const dtypeBytes: Readonly<Record<string, number>> = { F32: 4, BF16: 2, F16: 2, F8_E4M3: 1, F8_E8M0: 1, I8: 1, I64: 8 };

/** Write the checkpoint of `config` into `dir`, in shards of about `shard` bytes, unless it is there. */
export function writeModel(dir: string, config: Readonly<Record<string, unknown>>, shard = 1e9): void {
  if (existsSync(join(dir, 'config.json'))) return;
  const staging = `${dir}.new`;
  rmSync(staging, { recursive: true, force: true });
  mkdirSync(staging, { recursive: true });
  writeFileSync(join(staging, 'config.json'), JSON.stringify(config, null, 2));
  const parsed = openCheckpoint(join(staging, 'config.json'), { headersOnly: true }).config;
  const values = randomBf16(1 << 23);
  const pools: Readonly<Record<string, Uint8Array>> = {
    BF16: new Uint8Array(values.buffer),
    F8_E4M3: toFp8(values),
    // experts by token
    I64: new Uint8Array(BigInt64Array.from({ length: 1 << 16 }, (_, i) => BigInt(i % Number(config.n_routed_experts ?? 1))).buffer),
    F32: new Uint8Array(Float32Array.from({ length: 1 << 16 }, (_, i) => (1 + ((i * 2654435761) % 1024) / 1024) * 2 ** -12).buffer),
  };
  const ones = new Uint8Array(new Uint16Array(1 << 16).fill(0x3f80).buffer);
  const shards: { readonly name: string; readonly dtype: string; readonly shape: readonly number[]; readonly bytes: number }[][] = [[]];
  let size = 0;
  const used = new Set<string>();
  for (const t of expectedTensors(parsed)) {
    if (used.has(t.name)) continue;
    used.add(t.name);
    const bytes = t.shape.reduce((a, b) => a * b, dtypeBytes[t.dtype] as number);
    if (size + bytes > shard && size > 0) {
      shards.push([]);
      size = 0;
    }
    shards.at(-1)!.push({ ...t, bytes });
    size += bytes;
  }
  const map: Record<string, string> = {};
  let turn = 0;
  shards.forEach((tensors, i) => {
    const file = `model-${String(i + 1).padStart(5, '0')}-of-${String(shards.length).padStart(5, '0')}.safetensors`;
    let at = 0;
    const head = Object.fromEntries(
      tensors.map(t => [t.name, { dtype: t.dtype, shape: t.shape, data_offsets: [at, (at += t.bytes)] }] as const),
    );
    const json = Buffer.from(JSON.stringify(head));
    const padded = Buffer.alloc(8 + Math.ceil(json.length / 64) * 64 + 56, 0x20);
    padded.writeBigUInt64LE(BigInt(padded.length - 8));
    json.copy(padded, 8);
    const fd = openSync(join(staging, file), 'w');
    writeSync(fd, padded);
    for (const t of tensors) {
      map[t.name] = file;
      const plain = t.dtype === 'BF16' && t.shape.length === 1;
      const from = plain ? ones : (pools[t.dtype] as Uint8Array);
      for (let left = t.bytes; left > 0; ) {
        const start = plain ? 0 : (turn++ * 4_001_824) % (from.length >> 1);
        const some = Math.min(left, from.length - start);
        left -= writeSync(fd, from, start, some);
      }
    }
    closeSync(fd);
  });
  writeFileSync(join(staging, 'model.safetensors.index.json'), JSON.stringify({ metadata: {}, weight_map: map }));
  renameSync(staging, dir);
}
