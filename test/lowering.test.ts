// Whole models, lowered and run as C, against the golden logits of the official code: one prompt, then the same by single steps.
import { closeSync, openSync, readdirSync, readFileSync, readSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from '@jest/globals';
import type { Span, ValueOf } from '../ir/graph.js';
import { openCheckpoint } from '../src/checkpoint/shards.js';
import { buildModel, defaultOptions } from '../src/models/index.js';
import { chooseKernels } from '../src/passes/choose-kernels.js';
import { runPasses } from '../src/passes/index.js';
import { planMemory, planObjections } from '../src/passes/plan-memory.js';
import { type Call, type PartBytes, runPrograms } from './run-program.js';

const tiny = fileURLToPath(new URL('../fixtures/tiny/', import.meta.url));

function readSpan(directory: string, s: Span): Uint8Array {
  const bytes = new Uint8Array(s.bytes[1] - s.bytes[0]);
  const fd = openSync(join(directory, s.file), 'r');
  readSync(fd, bytes, 0, bytes.length, s.bytes[0]);
  closeSync(fd);
  return bytes;
}
function golden(directory: string): (name: string) => { readonly shape: readonly number[]; readonly values: number[] } {
  const bytes = readFileSync(join(directory, 'golden.safetensors'));
  const size = Number(bytes.readBigUInt64LE(0));
  const header = JSON.parse(bytes.subarray(8, 8 + size).toString()) as Record<
    string,
    { dtype: string; shape: number[]; data_offsets: [number, number] }
  >;
  return name => {
    const t = header[name];
    if (!t) throw new Error(`the golden file has no ${name}`);
    const raw = Uint8Array.from(bytes.subarray(8 + size + t.data_offsets[0], 8 + size + t.data_offsets[1])).buffer;
    return { shape: t.shape, values: t.dtype === 'I64' ? Array.from(new BigInt64Array(raw), Number) : Array.from(new Float32Array(raw)) };
  };
}
const worst = (a: ArrayLike<number>, b: ArrayLike<number>): number => {
  expect(a.length).toBe(b.length);
  let most = 0;
  for (let i = 0; i < a.length; i++) most = Math.max(most, Number.isNaN(a[i]) ? Infinity : Math.abs((a[i] as number) - (b[i] as number)));
  return most;
};

describe('lowered models give the golden logits', () => {
  for (const name of readdirSync(tiny).filter(n => n !== 'README.md'))
    it(name, () => {
      const directory = join(tiny, name);
      const checkpoint = openCheckpoint(directory);
      const want = golden(directory);
      const options = { ...defaultOptions(checkpoint.config), mtp: false, limits: { tokens: 64, wanted: 64, sequences: 3, context: 96 } };
      const { graph } = buildModel(checkpoint.config, checkpoint.tensors, options);
      const program = planMemory(chooseKernels(runPasses(graph)), { keep: [] });
      expect(planObjections(program)).toEqual([]);
      const weight = (w: ValueOf<'weight'>): PartBytes[] =>
        w.origin.parts.map(p => ({ codes: readSpan(directory, p), ...(p.scale ? { scales: readSpan(directory, p.scale) } : {}) }));
      const ids = want('seq0.input_ids').values;
      const rows = ids.map((_, i) => i);
      const call = (from: number, to: number, sequence: number): Call => {
        const at = rows.slice(from, to);
        return { inputs: { ids: ids.slice(from, to), positions: at, sequences: at.map(() => sequence), wanted: at.map((_, i) => i) } };
      };
      const prompt = Math.floor(ids.length / 3);
      const steps = rows.slice(prompt).map(i => call(i, i + 1, 2));
      const [results] = runPrograms([{ program, weight, calls: [call(0, ids.length, 1), call(0, prompt, 2), ...steps] }]);
      const logits = (results ?? []).map(r => r('logits'));
      const expected = want('seq0.logits').values;
      expect(worst(logits[0] as Float32Array, expected)).toBeLessThan(2e-4);
      expect(
        worst(
          logits.slice(1).flatMap(l => [...l]),
          expected,
        ),
      ).toBeLessThan(2e-4);
    });
});
