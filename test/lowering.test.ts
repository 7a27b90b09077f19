// Whole models, lowered and run as C, against the golden values of the official code.
import { closeSync, openSync, readdirSync, readFileSync, readSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from '@jest/globals';
import type { Span, ValueOf } from '../ir/graph.js';
import { openCheckpoint } from '../src/checkpoint/shards.js';
import { buildModel, defaultOptions } from '../src/models/index.js';
import { lower } from '../src/passes/index.js';
import { type Call, type PartBytes, type Result, runPrograms } from './run-program.js';

const tiny = fileURLToPath(new URL('../fixtures/tiny/', import.meta.url));

function readSpan(directory: string, s: Span): Uint8Array {
  const bytes = new Uint8Array(s.bytes[1] - s.bytes[0]);
  const fd = openSync(join(directory, s.file), 'r');
  readSync(fd, bytes, 0, bytes.length, s.bytes[0]);
  closeSync(fd);
  return bytes;
}
interface Golden {
  readonly names: readonly string[];
  shape(name: string): readonly number[];
  read(name: string): number[];
}
function golden(directory: string): Golden {
  const bytes = readFileSync(join(directory, 'golden.safetensors'));
  const size = Number(bytes.readBigUInt64LE(0));
  const header = JSON.parse(bytes.subarray(8, 8 + size).toString()) as Record<
    string,
    { dtype: string; shape: number[]; data_offsets: [number, number] }
  >;
  const entry = (name: string) => {
    const t = header[name];
    if (!t) throw new Error(`the golden file has no ${name}`);
    return t;
  };
  return {
    names: Object.keys(header),
    shape: name => entry(name).shape,
    read(name) {
      const {
        dtype,
        data_offsets: [from, to],
      } = entry(name);
      const raw = Uint8Array.from(bytes.subarray(8 + size + from, 8 + size + to)).buffer;
      return dtype === 'I64' ? Array.from(new BigInt64Array(raw), Number) : Array.from(new Float32Array(raw));
    },
  };
}
const worst = (a: ArrayLike<number>, b: ArrayLike<number>): number => {
  expect(a.length).toBe(b.length);
  let most = 0;
  for (let i = 0; i < a.length; i++) most = Math.max(most, Number.isNaN(a[i]) ? Infinity : Math.abs((a[i] as number) - (b[i] as number)));
  return most;
};

/** Rows of several sequences in one call, taken in turn; `next` is the token after each, or 0. */
function callOf(
  pieces: readonly { readonly ids: readonly number[]; readonly from: number; readonly to: number; readonly slot: number }[],
): Call {
  const most = Math.max(...pieces.map(p => p.to - p.from));
  const rows = Array.from({ length: most }, (_, i) =>
    pieces.flatMap(({ ids, from, to, slot }) =>
      from + i < to ? [{ id: ids[from + i] as number, next: ids[from + i + 1] ?? 0, at: from + i, slot }] : [],
    ),
  ).flat();
  return {
    inputs: {
      ids: rows.map(r => r.id),
      next_ids: rows.map(r => r.next),
      positions: rows.map(r => r.at),
      sequences: rows.map(r => r.slot),
      wanted: rows.map((_, i) => i),
    },
  };
}
/** The rows of a result that belong to a slot. */
function rowsOf(values: ArrayLike<number>, call: Call, slot: number): number[] {
  const slots = call.inputs.sequences as readonly number[];
  const width = values.length / slots.length;
  return slots.flatMap((s, i) => (s === slot ? Array.from({ length: width }, (_, c) => values[i * width + c] as number) : []));
}

describe('lowered models give the golden logits', () => {
  for (const name of readdirSync(tiny).filter(n => n !== 'README.md'))
    it(name, () => {
      const directory = join(tiny, name);
      const checkpoint = openCheckpoint(directory);
      const want = golden(directory);
      const has = (n: string): boolean => want.names.includes(n);
      const limits = { tokens: 64, wanted: 64, sequences: 3, context: 256 };
      const { graph } = buildModel(checkpoint.config, checkpoint.tensors, {
        ...defaultOptions(checkpoint.config),
        limits,
        mtp: has('seq0.mtp_logits'),
      });
      const taps = graph.values
        .map(v => v.name)
        .filter(n => /^(embedding|final_norm|layers\.\d+\.(out|attn_out|router_logits|indices|expert_weights))$/.test(n));
      const program = lower(graph, { keep: taps });
      const weight = (w: ValueOf<'weight'>): PartBytes[] =>
        w.origin.parts.map(p => ({ codes: readSpan(directory, p), ...(p.scale ? { scales: readSpan(directory, p.scale) } : {}) }));

      const [first, second, third] = [0, 1, 2].map(s => want.read(`seq${s}.input_ids`)) as [number[], number[], number[]];
      // one prompt whole; the same as a short prompt and single steps; two other sequences together in chunks, one of them in a used slot
      const prompt = Math.floor(first.length / 3);
      const whole = callOf([{ ids: first, from: 0, to: first.length, slot: 1 }]);
      const steps = [0, ...first.map((_, i) => i).slice(prompt)].map((from, i) =>
        callOf([{ ids: first, from, to: i === 0 ? prompt : from + 1, slot: 2 }]),
      );
      const chunks = Array.from({ length: Math.ceil(Math.max(second.length, third.length) / 27) }, (_, c) =>
        callOf([
          { ids: second, from: Math.min(27 * c, second.length), to: Math.min(27 * (c + 1), second.length), slot: 0 },
          { ids: third, from: Math.min(27 * c, third.length), to: Math.min(27 * (c + 1), third.length), slot: 1 },
        ]),
      );
      const calls = [whole, ...steps, ...chunks];
      // everything fused that can be, too: the same logits from fewer launches
      const lean = lower(graph);
      expect(lean.launches.length).toBeLessThanOrEqual(program.launches.length);
      const runs = runPrograms([
        { program, weight, calls },
        { program: lean, weight, calls },
      ]);
      for (const results of runs) {
        const at = (from: number, count: number, slot: number): number[] =>
          results.slice(from, from + count).flatMap((r, i) => rowsOf(r('logits'), calls[from + i] as Call, slot));
        expect(worst(at(0, 1, 1), want.read('seq0.logits'))).toBeLessThan(2e-4);
        expect(worst(at(1, steps.length, 2), want.read('seq0.logits'))).toBeLessThan(2e-4);
        expect(worst(at(1 + steps.length, chunks.length, 0), want.read('seq1.logits'))).toBeLessThan(2e-4);
        expect(worst(at(1 + steps.length, chunks.length, 1), want.read('seq2.logits'))).toBeLessThan(2e-4);
      }

      const tap = runs[0]?.[0] as Result;
      expect(worst(tap('final_norm'), want.read('seq0.final_norm'))).toBeLessThan(2e-4);
      let routed = 0;
      for (let l = 0; has(`seq0.hidden.${l + 1}`); l++) {
        expect(worst(tap(`layers.${l}.out`), want.read(`seq0.hidden.${l + 1}`))).toBeLessThan(2e-4);
        expect(worst(tap(`layers.${l}.attn_out`), want.read(`seq0.attn_out.${l}`))).toBeLessThan(2e-4);
        const router = `seq0.router.${l}`;
        if (!has(`${router}.indices`)) continue;
        routed++;
        expect(worst(tap(`layers.${l}.router_logits`), want.read(`${router}.logits`))).toBeLessThan(2e-4);
        // the golden ones are sorted by expert
        const k = want.shape(`${router}.indices`)[1] as number;
        const pairs = [...tap(`layers.${l}.indices`)].map((e, i) => ({
          row: Math.floor(i / k),
          e,
          w: tap(`layers.${l}.expert_weights`)[i] as number,
        }));
        pairs.sort((a, b) => a.row - b.row || a.e - b.e);
        expect(pairs.map(p => p.e)).toEqual(want.read(`${router}.indices`));
        expect(
          worst(
            pairs.map(p => p.w),
            want.read(`${router}.weights`),
          ),
        ).toBeLessThan(2e-5);
      }
      if (!/distill/.test(name)) expect(routed).toBeGreaterThan(0);
      if (has('seq0.mtp_logits')) {
        const mtp = want.read('seq0.mtp_logits');
        expect(worst(tap('mtp.0.logits').slice(0, mtp.length), mtp)).toBeLessThan(2e-4);
      }
    });
});
