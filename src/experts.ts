// The experts of a model by their placement: what tells the model from others, what a file asks for, and what compile writes beside engine/.
import { createHash } from 'node:crypto';
import { closeSync, openSync } from 'node:fs';
import { join } from 'node:path';
import { canonicalName } from './checkpoint/names.js';
import { readAt } from './checkpoint/safetensors.js';
import type { Checkpoint } from './checkpoint/shards.js';
import { sourcesOf } from './logical.js';
import type { Model } from './models/index.js';
import type { ModelIdentity } from './placement/counts.js';

/** The same for a model in any storage; another where its routers hold other values, so where its experts have other numbers. */
export function identityOf(c: Checkpoint, model: Model): ModelIdentity {
  const { tensors } = sourcesOf(c.config, model, c.tensors);
  const names = tensors
    .filter(t => !t.logical.mtp)
    .map(t => `${t.logical.name} [${t.logical.shape.join(',')}]\n`)
    .sort();
  const routers = new Map<number, string[]>();
  for (const t of tensors)
    if (t.logical.role === 'router' || t.logical.role === 'router_bias' || /\.tid2eid$/.test(t.logical.name))
      routers.set(t.logical.layer, [...(routers.get(t.logical.layer) ?? []), t.entry.name]);
  const hashed = [...routers].sort(([a], [b]) => a - b).map(([layer, own]) => [String(layer), routerHash(c, own)] as const);
  return {
    tensors: createHash('sha256').update(names.join('')).digest('hex'),
    routers: c.headersOnly ? {} : Object.fromEntries(hashed),
  };
}
function routerHash(c: Checkpoint, names: readonly string[]): string {
  const hash = createHash('sha256');
  for (const name of [...names].sort((a, b) => (canonicalName(a, c.config.family) < canonicalName(b, c.config.family) ? -1 : 1))) {
    const t = c.tensors.get(name)!;
    const fd = openSync(join(c.dir, t.file), 'r');
    try {
      const bytes = new Uint8Array(t.bytes[1] - t.bytes[0]);
      readAt(fd, bytes, t.bytes[0]);
      hash.update(`${canonicalName(name, c.config.family)} ${t.dtype}\n`).update(bytes);
    } finally {
      closeSync(fd);
    }
  }
  return hash.digest('hex');
}
