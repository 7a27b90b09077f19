// Whole programs for CUDA: under the emulated driver against the golden logits, by nvcc where it is here.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import type { Session } from '../src/session.js';
import { compareGolden, emulated, type Figures, keepFigures, openEmulated, openPlain, tiny } from './emulated-golden.js';
import { tinyCases } from './golden-cases.js';

const work = mkdtempSync(join(tmpdir(), 'hkgai-cuda-native-'));
const cacheBefore = process.env.HKGAI_CACHE;
beforeAll(() => {
  process.env.HKGAI_CACHE = join(work, 'cache');
});
const figures: Figures[] = [];
afterAll(() => {
  if (cacheBefore === undefined) delete process.env.HKGAI_CACHE;
  else process.env.HKGAI_CACHE = cacheBefore;
  keepFigures('cuda', figures);
  rmSync(work, { recursive: true, force: true });
});
const open: Session[] = [];
afterEach(async () => {
  for (const s of open.splice(0)) await s.close();
});
const limit = 2e-4;
const gxx = spawnSync('g++', ['--version']).status === 0;

(gxx ? describe : describe.skip)(
  gxx ? 'programs under the emulated driver' : 'programs under the emulated driver: skipped, there is no g++ here',
  () => {
    for (const name of tinyCases)
      it(`${name}: a prompt whole and in pieces, single steps`, async () => {
        const session = await openEmulated(await emulated(tiny(name), 'cuda', join(work, name)));
        open.push(session);
        const got = await compareGolden(session, tiny(name), name);
        figures.push(got);
        expect(Math.max(got.prompt, got.pieces, got.decode, got.mtp ?? 0)).toBeLessThanOrEqual(limit);
      });
    for (const [name, quantise] of [
      ['v3-tiny-bf16', 'w8a8'],
      ['qwen2-distill-tiny', 'int8-rows'],
    ] as const)
      it(`${name} in ${quantise}: what the reference says of the same weights`, async () => {
        const built = await emulated(tiny(name), 'cuda', join(work, `${name}-${quantise}`), { quantise, mtp: 'drop' });
        const session = await openEmulated(built);
        const plain = await openPlain(built);
        open.push(session, plain);
        const got = await compareGolden(session, tiny(name), name, plain);
        expect(Math.max(got.prompt, got.pieces, got.decode)).toBeLessThanOrEqual(limit);
      });
  },
);
