// A GGUF taken apart so that a test may change one thing and put it together again, with an alphabet of its own: bytes in, bytes out.
import { readFileSync, writeFileSync } from 'node:fs';

export type Value = number | bigint | boolean | string;
export interface Key {
  /** The format's number of the type; 9: a list of `of`. */
  type: number;
  of: number | null;
  value: Value | Value[];
}
export interface Tensor {
  name: string;
  dims: number[];
  type: number;
  bytes: Uint8Array;
}
export interface Taken {
  keys: Map<string, Key>;
  tensors: Tensor[];
}
/** Numbers of types (ggml docs/gguf.md). */
export const u16 = 2;
export const u32 = 4;
export const i32 = 5;
export const f32 = 6;
export const string = 8;
const list = 9;
/** Elements and bytes of a block, by the type's number (ggml.h). */
const blocks: Readonly<Record<number, readonly [elements: number, bytes: number]>> = {
  0: [1, 4],
  1: [1, 2],
  2: [32, 18],
  8: [32, 34],
  26: [1, 4],
  30: [1, 2],
  39: [32, 17],
};
const sizes: Readonly<Record<number, number>> = { 0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8 };
const pad = (n: number): number => (32 - (n % 32)) % 32;
const bytesOf = (dims: readonly number[], type: number): number => {
  const [e, b] = blocks[type]!;
  return (dims.reduce((a, d) => a * d, 1) / e) * b;
};

export function take(path: string): Taken {
  const b = readFileSync(path);
  let at = 8;
  const number = (type: number): Value => {
    const p = at;
    at += sizes[type]!;
    if (type === 0) return b.readUInt8(p);
    if (type === 1) return b.readInt8(p);
    if (type === 2) return b.readUInt16LE(p);
    if (type === 3) return b.readInt16LE(p);
    if (type === 4) return b.readUInt32LE(p);
    if (type === 5) return b.readInt32LE(p);
    if (type === 6) return b.readFloatLE(p);
    if (type === 7) return b.readUInt8(p) === 1;
    if (type === 10) return b.readBigUInt64LE(p);
    if (type === 11) return b.readBigInt64LE(p);
    return b.readDoubleLE(p);
  };
  const text = (): string => {
    const n = Number(number(10));
    at += n;
    return b.subarray(at - n, at).toString('utf8');
  };
  const one = (type: number): Value => (type === string ? text() : number(type));
  const [tensorCount, keyCount] = [Number(number(10)), Number(number(10))];
  const keys = new Map<string, Key>();
  for (let i = 0; i < keyCount; i++) {
    const name = text();
    const type = Number(number(4));
    if (type !== list) {
      keys.set(name, { type, of: null, value: one(type) });
      continue;
    }
    const of = Number(number(4));
    const n = Number(number(10));
    keys.set(name, { type, of, value: Array.from({ length: n }, () => one(of)) });
  }
  const infos = Array.from({ length: tensorCount }, () => {
    const name = text();
    const dims = Array.from({ length: Number(number(4)) }, () => Number(number(10)));
    return { name, dims, type: Number(number(4)), offset: Number(number(10)) };
  });
  const data = at + pad(at);
  return {
    keys,
    tensors: infos.map(({ name, dims, type, offset }) => ({
      name,
      dims,
      type,
      bytes: new Uint8Array(b.subarray(data + offset, data + offset + bytesOf(dims, type))),
    })),
  };
}

export function put(path: string, t: Taken): void {
  const out: Buffer[] = [];
  let length = 0;
  const raw = (b: Buffer): void => {
    out.push(b);
    length += b.length;
  };
  const number = (type: number, v: Value): void => {
    const b = Buffer.alloc(sizes[type]!);
    if (type === 10) b.writeBigUInt64LE(BigInt(v as number));
    else if (type === 11) b.writeBigInt64LE(BigInt(v as number));
    else if (type === 6) b.writeFloatLE(v as number);
    else if (type === 12) b.writeDoubleLE(v as number);
    else if (type === 4) b.writeUInt32LE(v as number);
    else if (type === 5) b.writeInt32LE(v as number);
    else if (type === 2) b.writeUInt16LE(v as number);
    else if (type === 3) b.writeInt16LE(v as number);
    else b.writeUInt8(Number(v));
    raw(b);
  };
  const text = (s: string): void => {
    const b = Buffer.from(s);
    number(10, b.length);
    raw(b);
  };
  const one = (type: number, v: Value): void => (type === string ? text(v as string) : number(type, v));
  raw(Buffer.from('GGUF\x03\0\0\0', 'latin1'));
  number(10, t.tensors.length);
  number(10, t.keys.size);
  for (const [name, k] of t.keys) {
    text(name);
    number(4, k.type);
    if (k.type !== list) {
      one(k.type, k.value as Value);
      continue;
    }
    number(4, k.of as number);
    number(10, (k.value as Value[]).length);
    for (const v of k.value as Value[]) one(k.of as number, v);
  }
  let offset = 0;
  for (const { name, dims, type, bytes } of t.tensors) {
    text(name);
    number(4, dims.length);
    for (const d of dims) number(10, d);
    number(4, type);
    number(10, offset);
    offset += bytes.length + pad(bytes.length);
  }
  raw(Buffer.alloc(pad(length)));
  for (const { bytes } of t.tensors) {
    raw(Buffer.from(bytes));
    raw(Buffer.alloc(pad(bytes.length)));
  }
  writeFileSync(path, Buffer.concat(out));
}
