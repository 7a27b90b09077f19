// Sound files, broken at random: never a crash, never a hang, never an accept of what the format forbids.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, it } from '@jest/globals';
import { Refusal } from '../ir/problem.js';
import { parseConfig } from '../src/checkpoint/config.js';
import { parseJson, plainValue } from '../src/checkpoint/json.js';
import { readHeader } from '../src/checkpoint/safetensors.js';

const fixtures = fileURLToPath(new URL('../fixtures/', import.meta.url));
const work = mkdtempSync(join(tmpdir(), 'hkgai-property-'));
afterAll(() => rmSync(work, { recursive: true }));
function dice(seed: number): (n: number) => number {
  let s = seed >>> 0;
  return n => {
    s = (Math.imul(s, 1664525) + 1013904223) >>> 0;
    return Math.floor((s / 2 ** 32) * n);
  };
}

/** The format's rules said as plainly as can be, by the built-in parser: null where a file keeps them, else the rule it breaks. */
function plainRule(file: Buffer): string | null {
  if (file.length < 8) return 'length';
  const n = file.readBigUInt64LE(0);
  if (n > 100_000_000n || 8 + Number(n) > file.length) return 'header length';
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(file.subarray(8, 8 + Number(n)));
  } catch {
    return 'utf-8';
  }
  if (text[0] !== '{') return 'begins with {';
  let header: Record<string, { dtype: string; shape: number[]; data_offsets: number[] }>;
  try {
    header = JSON.parse(text) as typeof header;
  } catch {
    return 'json';
  }
  const bits: Record<string, number> = {
    F32: 32,
    BF16: 16,
    F16: 16,
    F8_E4M3: 8,
    F8_E8M0: 8,
    I8: 8,
    U8: 8,
    BOOL: 8,
    I16: 16,
    U16: 16,
    I32: 32,
    U32: 32,
    I64: 64,
    U64: 64,
    F64: 64,
    C64: 64,
    F4: 4,
    F6_E2M3: 6,
    F6_E3M2: 6,
    F8_E5M2: 8,
    F8_E4M3FNUZ: 8,
    F8_E5M2FNUZ: 8,
  };
  const whole = (v: unknown): boolean => typeof v === 'number' && Number.isSafeInteger(v) && v >= 0;
  const spans: [number, number][] = [];
  for (const [name, t] of Object.entries(header)) {
    if (name === '__metadata__') continue;
    if (typeof t !== 'object' || t === null || !Array.isArray(t.shape) || !t.shape.every(whole)) return 'entry';
    if (!Array.isArray(t.data_offsets) || t.data_offsets.length !== 2 || !t.data_offsets.every(whole)) return 'offsets';
    const b = Object.hasOwn(bits, t.dtype) ? bits[t.dtype] : undefined;
    if (b === undefined) return 'dtype';
    if ((t.shape.reduce((p, d) => p * d, 1) * b) / 8 !== t.data_offsets[1]! - t.data_offsets[0]!) return 'size';
    spans.push([t.data_offsets[0]!, t.data_offsets[1]!]);
  }
  spans.sort((a, b) => a[0] - b[0] || a[1] - b[1]);
  let end = 0;
  for (const [from, to] of spans) {
    if (from !== end) return 'holes';
    end = to;
  }
  return 8 + Number(n) + end === file.length ? null : 'file length';
}

describe('files broken at random', () => {
  const sound = [
    `${fixtures}tiny/llama-distill-tiny/model-00001-of-00002.safetensors`,
    `${fixtures}tiny/v4-tiny-fp8fp4/model-00001-of-00002.safetensors`,
  ].map(f => readFileSync(f));
  it('are sound before', () => {
    for (const f of sound) expect(plainRule(f)).toBeNull();
  });
  it('are refused, or keep every rule: 3000 mutations of safetensors files', () => {
    const roll = dice(7);
    const path = join(work, 'x.safetensors');
    let refused = 0;
    for (let i = 0; i < 3000; i++) {
      let file = Buffer.from(sound[i % sound.length]!);
      const header = 8 + Number(file.readBigUInt64LE(0));
      for (let times = 1 + roll(3); times > 0; times--) {
        const at = roll(10) < 9 ? roll(header) : roll(file.length);
        switch (roll(6)) {
          case 0:
            file[at] = roll(256);
            break;
          case 1:
            file[at] = '0123456789[]{}",:.-eE'.charCodeAt(roll(21));
            break;
          case 2:
            file = file.subarray(0, roll(file.length + 1)) as typeof file;
            break;
          case 3:
            file = Buffer.concat([file, Buffer.alloc(1 + roll(9), roll(256))]);
            break;
          case 4:
            file = Buffer.concat([file.subarray(0, at), file.subarray(at + 1 + roll(4))]);
            break;
          default:
            if (file.length >= 8) file.writeBigUInt64LE(BigInt(roll(4) === 0 ? roll(2 ** 31) : header - 8 + roll(5) - 2), 0);
        }
        if (file.length < 2) break;
      }
      writeFileSync(path, file);
      let accepted = true;
      try {
        readHeader(path, 'x.safetensors');
      } catch (e) {
        if (!(e instanceof Refusal)) throw new Error(`mutation ${i}: ${String(e)}`);
        accepted = false;
        refused++;
        expect(e.exit).toBe(3);
      }
      if (accepted) expect([i, plainRule(file)]).toEqual([i, null]);
    }
    expect(refused).toBeGreaterThan(1500);
  });
  it('configs: 2000 mutations never crash', () => {
    const roll = dice(11);
    const text = readFileSync(`${fixtures}configs/DeepSeek-V3.json`, 'utf8');
    let refused = 0;
    for (let i = 0; i < 2000; i++) {
      const at = roll(text.length);
      const piece = ['null', '-1', '1e400', '"x"', '[]', '{}', '0', '""', '}', '999999999999999999999', 'NaN', '\u0000'][roll(12)]!;
      const broken = text.slice(0, at) + piece + text.slice(at + roll(6));
      try {
        parseConfig(broken, 'config.json');
      } catch (e) {
        if (!(e instanceof Refusal)) throw new Error(`mutation ${i}: ${String(e)}`);
        refused++;
      }
    }
    expect(refused).toBeGreaterThan(500);
  });
  it('what the strict parser accepts, the built-in one reads the same', () => {
    const roll = dice(13);
    const text = readFileSync(`${fixtures}configs/Kimi-K2.5.json`, 'utf8');
    for (let i = 0; i < 1000; i++) {
      const at = roll(text.length);
      const broken = text.slice(0, at) + ['', ' ', '\\u0041', '1', '"'][roll(5)]! + text.slice(at + roll(3));
      let mine: unknown;
      try {
        mine = plainValue(parseJson(broken));
      } catch {
        continue;
      }
      expect(JSON.stringify(mine)).toBe(JSON.stringify(JSON.parse(broken)));
    }
  });
});
