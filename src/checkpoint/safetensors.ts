// One safetensors file: [u64 length][JSON header][data]. The checks and their order are those of the format's own reader
// (huggingface/safetensors, safetensors/src/tensor.rs, read_metadata and validate), each with a message of its own.
import { closeSync, fstatSync, openSync, readSync, statSync } from 'node:fs';
import { type Problem, Refusal } from '../../ir/problem.js';
import { JsonError, type JsonNode, parseJson } from './json.js';
import * as problems from './problems.js';

/** Bits of one element of each dtype of the format. */
export const dtypeBits = {
  BOOL: 8,
  F4: 4,
  F6_E2M3: 6,
  F6_E3M2: 6,
  U8: 8,
  I8: 8,
  F8_E5M2: 8,
  F8_E4M3: 8,
  F8_E8M0: 8,
  F8_E4M3FNUZ: 8,
  F8_E5M2FNUZ: 8,
  I16: 16,
  U16: 16,
  F16: 16,
  BF16: 16,
  I32: 32,
  U32: 32,
  F32: 32,
  C64: 64,
  F64: 64,
  I64: 64,
  U64: 64,
} as const;
export type Dtype = keyof typeof dtypeBits;

export interface TensorEntry {
  readonly name: string;
  readonly dtype: Dtype;
  readonly shape: readonly number[];
  /** File name inside the checkpoint directory. */
  readonly file: string;
  /** Absolute byte range in the file. */
  readonly bytes: readonly [from: number, to: number];
}
export interface Header {
  readonly file: string;
  /** Bytes before the data: 8 and the header. */
  readonly data: number;
  readonly size: number;
  readonly tensors: ReadonlyMap<string, TensorEntry>;
  readonly metadata: ReadonlyMap<string, string>;
  /** True where the file ends after its header although its tensors have bytes. */
  readonly headerOnly: boolean;
}

const largestHeader = 100_000_000n;
const mostDimensions = 32;

/** Read `into.length` bytes at a position; false where the file ends before. Any size: the system reads at most 2 GiB at once. */
export function readAt(fd: number, into: Uint8Array, position: number): boolean {
  for (let done = 0; done < into.length; ) {
    const n = readSync(fd, into, done, Math.min(into.length - done, 1 << 30), position + done);
    if (n === 0) return false;
    done += n;
  }
  return true;
}

function badByte(bytes: Uint8Array): number {
  // the longest prefix that decodes, by halving
  const sound = (n: number): boolean => {
    try {
      new TextDecoder('utf-8', { fatal: true }).decode(bytes.subarray(0, n), { stream: true });
      return true;
    } catch {
      return false;
    }
  };
  let low = 0;
  let high = bytes.length;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (sound(middle)) low = middle;
    else high = middle - 1;
  }
  return low;
}

/**
 * Read and check the header of a file.
 * @param path where it lies @param file its name in messages
 * @param headersOnly accept a file that ends after its header
 * @throws Refusal with every problem of the first failing stage: length, text, entries, layout, size.
 */
export function readHeader(path: string, file: string, headersOnly = false): Header {
  if (!statSync(path).isFile()) throw new Refusal([problems.notRegular(file)]); // opening a pipe would wait for a writer
  const fd = openSync(path, 'r');
  try {
    const { size } = fstatSync(fd);
    const head = new Uint8Array(8);
    if (size < 8 || !readAt(fd, head, 0)) throw new Refusal([problems.fileTooSmall(file, size)]);
    const length = new DataView(head.buffer).getBigUint64(0, true);
    if (length > largestHeader) throw new Refusal([problems.headerTooLarge(file, length)]);
    const n = Number(length);
    if (8 + n > size) throw new Refusal([problems.headerPastEnd(file, n, size)]);
    const bytes = new Uint8Array(n);
    readAt(fd, bytes, 8);
    return parseHeader(file, bytes, size, headersOnly);
  } finally {
    closeSync(fd);
  }
}

function parseHeader(file: string, bytes: Uint8Array, size: number, headersOnly: boolean): Header {
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw new Refusal([problems.headerNotUtf8(file, badByte(bytes))]);
  }
  const data = 8 + bytes.length;
  // offsets of characters are offsets of bytes only in ASCII; headers with other characters pay for an exact place
  const ascii = text.length === bytes.length;
  const byteAt = (at: number): number => 8 + (ascii ? at : new TextEncoder().encode(text.slice(0, at)).length);
  if (!text.startsWith('{')) throw new Refusal([problems.headerNotObject(file, JSON.stringify(text.slice(0, 1)))]);
  let root: JsonNode;
  try {
    root = parseJson(text);
  } catch (e) {
    if (e instanceof JsonError) throw new Refusal([problems.headerNotJson(file, e.message, byteAt(e.at))]);
    throw e;
  }
  const found: Problem[] = [];
  const tensors: TensorEntry[] = [];
  let metadata: ReadonlyMap<string, string> = new Map();
  for (const [name, node] of root.value as ReadonlyMap<string, JsonNode>) {
    if (name === '__metadata__') metadata = readMetadata(file, node, byteAt, found);
    else {
      const t = readEntry(file, name, node, text, data, byteAt, found);
      if (t) tensors.push(t);
    }
  }
  if (found.length) throw new Refusal(found);
  const end = checkLayout(file, data, tensors, found);
  if (found.length) throw new Refusal(found);
  const headerOnly = size === data && end > data;
  if (headerOnly && !headersOnly) found.push(problems.dataAbsent(file, size));
  else if (!headerOnly && size < end) found.push(problems.dataTruncated(file, size, end));
  else if (!headerOnly && size > end) found.push(problems.dataTrailing(file, size, end));
  if (found.length) throw new Refusal(found);
  return { file, data, size, tensors: new Map(tensors.map(t => [t.name, t])), metadata, headerOnly };
}

function readMetadata(file: string, node: JsonNode, byteAt: (at: number) => number, found: Problem[]): ReadonlyMap<string, string> {
  const out = new Map<string, string>();
  if (!(node.value instanceof Map)) {
    found.push(problems.metadataMalformed(file, 'it is not an object', byteAt(node.at)));
    return out;
  }
  for (const [k, v] of node.value as ReadonlyMap<string, JsonNode>) {
    if (typeof v.value === 'string') out.set(k, v.value);
    else found.push(problems.metadataMalformed(file, `the value of ${JSON.stringify(k)} is not a string`, byteAt(v.at)));
  }
  return out;
}

function readEntry(
  file: string,
  name: string,
  node: JsonNode,
  text: string,
  data: number,
  byteAt: (at: number) => number,
  found: Problem[],
): TensorEntry | null {
  const shown = (n: JsonNode): string => (n.end - n.at > 60 ? text.slice(n.at, n.at + 57) + '...' : text.slice(n.at, n.end));
  const bad = (what: string, n: JsonNode): null => {
    found.push(problems.entryMalformed(file, name, what, byteAt(n.at), shown(n)));
    return null;
  };
  if (!(node.value instanceof Map)) return bad('its entry is not an object', node);
  const members = node.value as ReadonlyMap<string, JsonNode>;
  for (const [k, n] of members)
    if (k !== 'dtype' && k !== 'shape' && k !== 'data_offsets') return bad(`${JSON.stringify(k)} is no member of a tensor's entry`, n);
  const dtype = members.get('dtype');
  const shape = members.get('shape');
  const offsets = members.get('data_offsets');
  if (!dtype || !shape || !offsets) return bad(`${!dtype ? 'dtype' : !shape ? 'shape' : 'data_offsets'} is missing`, node);
  if (typeof dtype.value !== 'string') return bad('dtype is not a string', dtype);
  const whole = (n: JsonNode): n is JsonNode & { readonly value: number } =>
    typeof n.value === 'number' && Number.isSafeInteger(n.value) && n.value >= 0 && /^\d+$/.test(text.slice(n.at, n.end));
  if (!Array.isArray(shape.value)) return bad('shape is not a list', shape);
  const dims = shape.value as readonly JsonNode[];
  if (dims.length > mostDimensions) {
    found.push(problems.tooManyDimensions(file, name, dims.length, byteAt(shape.at)));
    return null;
  }
  const oddDim = dims.find(d => !whole(d));
  if (oddDim) return bad('a size is not a whole number of 0 or more', oddDim);
  if (!Array.isArray(offsets.value) || offsets.value.length !== 2) return bad('data_offsets is not a pair', offsets);
  const pair = offsets.value as readonly JsonNode[];
  const oddOffset = pair.find(d => !whole(d));
  if (oddOffset) return bad('an offset is not a whole number of 0 or more', oddOffset);
  if (!Object.hasOwn(dtypeBits, dtype.value)) {
    found.push(problems.unknownDtype(file, name, dtype.value, byteAt(dtype.at + 1), Object.keys(dtypeBits)));
    return null;
  }
  return {
    name: flat(name),
    dtype: known(dtype.value as Dtype),
    shape: sameShape(dims.map(d => d.value as number)),
    file,
    bytes: [data + (pair[0]!.value as number), data + (pair[1]!.value as number)],
  };
}

/** A string of its own: one that was cut out of a text holds the whole text. */
const flat = (s: string): string => Buffer.from(s, 'utf8').toString('utf8');
const dtypes = new Map(Object.keys(dtypeBits).map(d => [d, d as Dtype]));
const known = (d: Dtype): Dtype => dtypes.get(d) as Dtype;
/** Experts of a model have a few shapes between them: equal ones are one list. */
const shapes = new Map<string, readonly number[]>();
const mostShapes = 4096;
function sameShape(dims: readonly number[]): readonly number[] {
  const key = dims.join();
  const there = shapes.get(key);
  if (there) return there;
  if (shapes.size < mostShapes) shapes.set(key, dims);
  return dims;
}

/** No holes, no overlaps, sizes as dtype and shape say. Returns the end of the last tensor. */
function checkLayout(file: string, data: number, tensors: readonly TensorEntry[], found: Problem[]): number {
  let end = data;
  let before = 'the header';
  for (const t of [...tensors].sort((a, b) => a.bytes[0] - b.bytes[0] || a.bytes[1] - b.bytes[1])) {
    const [from, to] = t.bytes;
    if (to < from) found.push(problems.offsetsReversed(file, t.name, from - data, to - data, t.bytes));
    else if (from > end) found.push(problems.offsetsHole(file, t.name, from - data, end - data, data));
    else if (from < end) found.push(problems.offsetsOverlap(file, t.name, before, from - data, end - data, data));
    let elements = 1;
    for (const d of t.shape) elements *= d;
    const zero = t.shape.includes(0);
    const product = t.shape.reduce((p, d) => p * Math.max(d, 1), 1);
    const bits = (zero ? 0 : elements) * dtypeBits[t.dtype];
    if (product * dtypeBits[t.dtype] > Number.MAX_SAFE_INTEGER) found.push(problems.shapeOverflow(file, t.name, t.shape));
    else if (bits % 8 !== 0) found.push(problems.bitsNotWhole(file, t.name, bits));
    else if (to >= from && bits / 8 !== to - from)
      found.push(problems.sizeMismatch(file, t.name, t.dtype, t.shape, to - from, bits / 8, t.bytes));
    if (to > end) {
      end = to;
      before = t.name;
    }
  }
  return end;
}
