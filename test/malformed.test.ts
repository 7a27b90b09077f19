// Checkpoints that are wrong in one way each: the whole message, the exit code, and nothing written.
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, it } from '@jest/globals';
import { Refusal } from '../ir/problem.js';
import { compile } from '../src/compile.js';

const dir = fileURLToPath(new URL('../fixtures/malformed/', import.meta.url));
const work = mkdtempSync(join(tmpdir(), 'hkgai-malformed-'));
afterAll(() => rmSync(work, { recursive: true }));
const options = {
  targets: ['cpu'],
  quantise: 'none',
  state: 'f32',
  mtp: 'keep',
  weights: 'auto',
  sequences: 1,
  chunk: 8,
  force: false,
  allowPhantomKeys: false,
  version: 'test',
  noCache: true,
} as const;

async function refusal(name: string): Promise<Refusal | null> {
  try {
    await compile(join(dir, name), { ...options, out: join(work, 'out') }, { step: () => {}, at: () => {} });
    return null;
  } catch (e) {
    if (e instanceof Refusal) return e;
    throw e;
  }
}
const cases = readdirSync(dir).sort();
describe('malformed checkpoints', () => {
  it('are at least sixty', () => expect(cases.length).toBeGreaterThanOrEqual(60));
  for (const name of cases)
    it(`${name} (UPDATE=1 rewrites expected.txt)`, async () => {
      const r = await refusal(name);
      expect(r).not.toBeNull();
      const message = `exit ${r!.exit}\n\n${r!.message.replaceAll(dir, '')}\n`;
      const expected = join(dir, name, 'expected.txt');
      if (process.env.UPDATE) writeFileSync(expected, message);
      expect(message).toBe(existsSync(expected) ? readFileSync(expected, 'utf8') : '');
      expect(r!.exit).toBe(3);
      expect(readdirSync(work)).toEqual([]);
    });
});

describe('phantom keys that the user allows', () => {
  it('become notes, and the bundle promises what it has', async () => {
    const out = join(work, 'allowed');
    const { manifest } = await compile(
      join(dir, 'index-key-without-tensor'),
      { ...options, out, allowPhantomKeys: true },
      { step: () => {}, at: () => {} },
    );
    expect(manifest.notes.some(n => n.includes('is in the index but in no shard (allowed)'))).toBe(true);
    expect(readFileSync(join(out, 'cpu/engine/model.safetensors.index.json'), 'utf8')).not.toContain('weight_scale_inv');
  });
});
