// The recorded cases: tiny checkpoints with float32 results of the official code.
import { closeSync, openSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Span, ValueOf } from '../ir/graph.js';
import { readAt, readHeader } from '../src/checkpoint/safetensors.js';
import { readWeight } from '../src/numeric/decode.js';

export const fixtures = fileURLToPath(new URL('../fixtures', import.meta.url));
export const tinyCases = readdirSync(join(fixtures, 'tiny'))
  .filter(n => n !== 'README.md')
  .sort();

export interface Recorded {
  readonly shape: readonly number[];
  readonly data: Float32Array | Int32Array;
}
/** All tensors of a golden.safetensors: F32 as it is, I64 as i32. */
export function recorded(path: string): ReadonlyMap<string, Recorded> {
  const header = readHeader(path, 'golden.safetensors');
  const fd = openSync(path, 'r');
  try {
    return new Map(
      [...header.tensors.values()].map(t => {
        const bytes = new Uint8Array(t.bytes[1] - t.bytes[0]);
        readAt(fd, bytes, t.bytes[0]);
        const data = t.dtype === 'I64' ? Int32Array.from(new BigInt64Array(bytes.buffer), Number) : new Float32Array(bytes.buffer);
        return [t.name, { shape: t.shape, data }];
      }),
    );
  } finally {
    closeSync(fd);
  }
}
/** Reads weights from a checkpoint directory. */
export function weightsOf(dir: string): (v: ValueOf<'weight'>) => Float32Array | Int32Array {
  return v =>
    readWeight(v, (s: Span) => {
      const fd = openSync(join(dir, s.file), 'r');
      try {
        const bytes = new Uint8Array(s.bytes[1] - s.bytes[0]);
        readAt(fd, bytes, s.bytes[0]);
        return bytes;
      } finally {
        closeSync(fd);
      }
    });
}
/** The largest difference; infinity where one is NaN or the sizes differ. */
export function worst(a: ArrayLike<number>, b: ArrayLike<number>): number {
  if (a.length !== b.length) return Number.POSITIVE_INFINITY;
  let most = 0;
  for (let i = 0; i < a.length; i++) {
    const d = Math.abs((a[i] as number) - (b[i] as number));
    if (!(d <= most)) most = Number.isNaN(d) ? Number.POSITIVE_INFINITY : d;
  }
  return most;
}
