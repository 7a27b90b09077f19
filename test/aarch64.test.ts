// The same program for another processor: built for aarch64 with NEON and dot products, run under qemu, against the recorded logits; and the verbs of
// the header, built for any aarch64, on a processor that has dot products (sdot) and on one that has not.
import { spawnSync } from 'node:child_process';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from '@jest/globals';
import { compile } from '../src/compile.js';
import { openNative } from '../src/session.js';
import { fixtures, recorded, worst } from './golden-cases.js';

const cc = 'aarch64-linux-gnu-gcc';
const there = spawnSync(cc, ['--version']).status === 0 && spawnSync('qemu-aarch64', ['--version']).status === 0;
const work = mkdtempSync(join(tmpdir(), 'hkgai-aarch64-'));
afterAll(() => rmSync(work, { recursive: true, force: true }));

(there ? describe : describe.skip)(there ? 'aarch64 under qemu' : `aarch64: skipped, ${cc} or qemu-aarch64 is not here`, () => {
  for (const [processor, sdot] of [
    ['max', 'used'],
    ['cortex-a72', 'not here'],
  ] as const)
    it(`verbs agree with plain arithmetic on ${processor}: sdot is ${sdot}`, () => {
      const program = join(work, `verbs-${processor}`);
      const flags = ['-std=c17', '-O2', '-ffp-contract=fast', '-fopenmp-simd', '-Wall', '-Wextra', '-Werror', '-Itargets/cpu/header'];
      const built = spawnSync(cc, [...flags, 'test/cpu-header/verbs.c', '-o', program, '-lm'], { encoding: 'utf8' });
      expect({ status: built.status, stderr: built.stderr }).toEqual({ status: 0, stderr: '' });
      const ran = spawnSync('qemu-aarch64', ['-cpu', processor, '-L', '/usr/aarch64-linux-gnu', program], { encoding: 'utf8' });
      const lines = ran.stdout.trim().split('\n');
      expect(lines.filter(l => !l.endsWith(' ok'))).toEqual([]);
      expect(lines.length).toBeGreaterThanOrEqual(35);
      expect([ran.status, ran.stderr]).toEqual([0, `sdot: ${sdot}\n`]);
    });
  for (const [name, quantise] of [
    ['v3-tiny-fp8', 'none'],
    ['v4-tiny-fp8fp4', 'none'],
    ['v2-tiny', 'int8'],
    ['qwen2-distill-tiny', 'int4'],
  ] as const)
    it(`${name}${quantise === 'none' ? '' : `, ${quantise}`}`, async () => {
      const out = join(work, `${name}-${quantise}`);
      await compile(
        join(fixtures, 'tiny', name),
        {
          out,
          targets: ['cpu'],
          quantise: quantise === 'none' ? quantise : join(fixtures, `recipes/all-${quantise}.json`),
          state: 'f32',
          mtp: 'keep',
          weights: 'auto',
          context: 256,
          sequences: 1,
          chunk: 64,
          force: false,
          allowPhantomKeys: false,
          version: 'test',
          noCache: true,
        },
        { step: () => {}, at: () => {} },
      );
      const model = join(out, 'model');
      const built = spawnSync('sh', [join(out, 'cpu/native/build.sh')], {
        encoding: 'utf8',
        env: { ...process.env, CC: cc, HKGAI_MARCH: 'armv8.2-a+dotprod', HKGAI_OUT: model, HKGAI_CFLAGS: '-O1 -w' },
      });
      expect([built.status, built.stderr]).toEqual([0, '']);
      const program = join(out, 'run');
      writeFileSync(program, `#!/bin/sh\nexec qemu-aarch64 -L /usr/aarch64-linux-gnu "${model}" "$@"\n`);
      chmodSync(program, 0o755);
      const s = await openNative(program, join(out, 'cpu/engine'), 2);
      const golden = recorded(join(fixtures, 'tiny', name, 'golden.safetensors'));
      const ids = [...golden.get('seq0.input_ids')!.data];
      const want = golden.get(
        quantise === 'none' ? 'seq0.logits' : quantise === 'int8' ? 'seq0.logits.int8_pc' : 'seq0.logits.int4_g32',
      )!.data;
      const rows = (from: number, to: number) => ({
        ids: ids.slice(from, to),
        positions: Array.from({ length: to - from }, (_, i) => from + i),
        sequences: Array<number>(to - from).fill(0),
      });
      expect(worst((await s.step(rows(0, ids.length))).logits, want)).toBeLessThan(2e-4);
      const steps = [...(await s.step(rows(0, ids.length - 4))).logits];
      for (let i = ids.length - 4; i < ids.length; i++) steps.push(...(await s.step(rows(i, i + 1))).logits);
      expect(worst(steps, want)).toBeLessThan(2e-4);
      await s.close();
    });
});
