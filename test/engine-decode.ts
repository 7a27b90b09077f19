// What an engine would make of a directory, written once more and plainly: every stored form to f64, one element after another.
// Nothing here comes from src/numeric or targets: names, packing and scales are those of the engines' loaders
// (compressed-tensors@ac8e2ba8 compressors/*; vllm-ascend@182b75ea quantization/methods/*; DeepSeek-V3@9b4e978 inference/kernel.py).
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

const { floor } = Math; // globals are slow to reach from a test's own context

export interface Stored {
  readonly name: string;
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly bytes: Uint8Array;
}
/** Every tensor of every safetensors file of a directory. */
export function storedTensors(dir: string): ReadonlyMap<string, Stored> {
  const all = new Map<string, Stored>();
  for (const f of readdirSync(dir).filter(n => n.endsWith('.safetensors') && n !== 'golden.safetensors')) {
    const b = new Uint8Array(readFileSync(join(dir, f)));
    const n = Number(new DataView(b.buffer).getBigUint64(0, true));
    const header = JSON.parse(new TextDecoder().decode(b.subarray(8, 8 + n))) as Record<
      string,
      { readonly dtype: string; readonly shape: number[]; readonly data_offsets: [number, number] }
    >;
    for (const [name, t] of Object.entries(header)) {
      if (name === '__metadata__') continue;
      if (all.has(name)) throw new Error(`${name} is there twice`);
      all.set(name, { name, dtype: t.dtype, shape: t.shape, bytes: b.subarray(8 + n + t.data_offsets[0], 8 + n + t.data_offsets[1]) });
    }
  }
  return all;
}

/** The values that codes of a kind stand for, in rising order, without scale or zero point. */
export interface Codebook {
  readonly name: 'int8' | 'int4' | 'e4m3' | 'e2m1';
  readonly values: readonly number[];
}
const f4 = [0, 0.5, 1, 1.5, 2, 3, 4, 6];
export const e2m1 = (code: number): number => (code & 8 ? -1 : 1) * f4[code & 7]!;
export function e4m3(code: number): number {
  const e = (code >> 3) & 15;
  const m = code & 7;
  if (e === 15 && m === 7) return Number.NaN;
  return (code & 128 ? -1 : 1) * (e === 0 ? m * 2 ** -9 : (8 + m) * 2 ** (e - 10));
}
/** The place of each code in its codebook. */
const places = (book: Codebook, n: number, of: (code: number) => number): Uint8Array =>
  Uint8Array.from({ length: n }, (_, i) => {
    const at = book.values.indexOf(of(i) + 0);
    return at < 0 ? 255 : at;
  });
const rising = (values: readonly number[]): readonly number[] => [...new Set(values.map(v => v + 0))].sort((a, b) => a - b);
const made = (name: Codebook['name'], values: readonly number[]): Codebook => ({ name, values: rising(values) });
const codes = (n: number, of: (code: number) => number): readonly number[] =>
  Array.from({ length: n }, (_, i) => of(i)).filter(v => !Number.isNaN(v));
export const codebooks = {
  // -128 is never written: kernels negate codes
  int8: made(
    'int8',
    codes(255, i => i - 127),
  ),
  int4: made(
    'int4',
    codes(16, i => i - 8),
  ),
  e4m3: made('e4m3', codes(256, e4m3)),
  e2m1: made('e2m1', codes(16, e2m1)),
} as const;

/** A matrix as it stands: value[r, c] = (code[r, c] - zero) * scale. */
export interface Coded {
  readonly codebook: Codebook;
  /** Places in the codebook, row-major. */
  readonly codes: Uint8Array;
  readonly block: readonly [rows: number, columns: number];
  /** [ceil(rows / block rows), ceil(columns / block columns)]. */
  readonly scales: Float64Array;
  /** As scales; null where codes are symmetric. */
  readonly zeros: Float64Array | null;
  /** How the scale is stored. */
  readonly scaleDtype: string;
}
export interface Decoded {
  /** AscendV1 and the others by one name: `int8`, `int4 packed`, `int4 row pairs`, `fp8`, `fp4`, or the dtype of a plain tensor. */
  readonly form: string;
  readonly shape: readonly number[];
  readonly values: Float64Array;
  readonly coded: Coded | null;
  /** The stored tensors it was read from. */
  readonly from: readonly Stored[];
}

function plain(t: Stored): Float64Array {
  const n = t.shape.reduce((a, b) => a * b, 1);
  const v = new DataView(t.bytes.buffer, t.bytes.byteOffset, t.bytes.byteLength);
  const word = new DataView(new ArrayBuffer(4));
  const out = new Float64Array(n);
  switch (t.dtype) {
    case 'F32':
      for (let i = 0; i < n; i++) out[i] = v.getFloat32(4 * i, true);
      return out;
    case 'BF16':
      for (let i = 0; i < n; i++) {
        word.setUint16(0, v.getUint16(2 * i, true));
        out[i] = word.getFloat32(0);
      }
      return out;
    case 'F16':
      for (let i = 0; i < n; i++) {
        const h = v.getUint16(2 * i, true);
        const e = (h >> 10) & 31;
        const m = h & 1023;
        const size = e === 31 ? (m ? Number.NaN : Number.POSITIVE_INFINITY) : e === 0 ? m * 2 ** -24 : (1024 + m) * 2 ** (e - 25);
        out[i] = h & 0x8000 ? -size : size;
      }
      return out;
    case 'I64':
      for (let i = 0; i < n; i++) out[i] = Number(v.getBigInt64(8 * i, true));
      return out;
    case 'F8_E8M0':
      for (let i = 0; i < n; i++) out[i] = v.getUint8(i) === 255 ? Number.NaN : 2 ** (v.getUint8(i) - 127);
      return out;
    default:
      throw new Error(`${t.name} is ${t.dtype}`);
  }
}
/** Exponents that stand as plain bytes in engines without the dtype. */
const exponents = (t: Stored): Float64Array => plain({ ...t, dtype: 'F8_E8M0' });

function matrix(
  form: string,
  shape: readonly [number, number],
  codebook: Codebook,
  codes: Uint8Array,
  scale: { readonly values: Float64Array; readonly dtype: string },
  zeros: Float64Array | null,
  block: readonly [number, number],
  from: readonly Stored[],
): Decoded {
  const [rows, columns] = shape;
  if (codes.length !== rows * columns) throw new Error(`${from[0]!.name} has ${codes.length} codes for ${rows} x ${columns}`);
  const across = Math.ceil(columns / block[1]);
  if (scale.values.length !== Math.ceil(rows / block[0]) * across)
    throw new Error(`${from[0]!.name} has ${scale.values.length} scales for blocks of ${block.join(' x ')}`);
  const values = new Float64Array(rows * columns);
  const { values: book } = codebook;
  for (let r = 0, i = 0; r < rows; r++) {
    const strip = floor(r / block[0]) * across;
    for (let c = 0; c < columns; c++, i++) {
      const b = strip + floor(c / block[1]);
      const at = codes[i]!;
      if (at === 255) throw new Error(`${from[0]!.name}[${r}, ${c}] has a code that stands for nothing`);
      values[i] = (book[at]! - (zeros ? zeros[b]! : 0)) * scale.values[b]!;
    }
  }
  return { form, shape, values, coded: { codebook, codes, block, scales: scale.values, zeros, scaleDtype: scale.dtype }, from };
}
const placeOf = {
  int8: places(codebooks.int8, 256, i => (i << 24) >> 24),
  e4m3: places(codebooks.e4m3, 256, e4m3),
  e2m1: places(codebooks.e2m1, 16, e2m1),
} as const;
/** One code a byte. */
const bytesOf = (t: Stored, places: Uint8Array): Uint8Array => t.bytes.map(b => places[b]!);
/** Half bytes, element 2k low in byte k; rows of their own. */
function halves(t: Stored, rows: number, columns: number): Uint8Array {
  const pitch = t.bytes.length / rows;
  const out = new Uint8Array(rows * columns);
  for (let r = 0; r < rows; r++)
    for (let c = 0; c < columns; c++) {
      const byte = t.bytes[r * pitch + (c >> 1)]!;
      out[r * columns + c] = placeOf.e2m1[c % 2 === 0 ? byte & 15 : byte >> 4]!;
    }
  return out;
}

interface Words {
  readonly quantization_config?: {
    readonly quant_method?: string;
    readonly weight_block_size?: readonly [number, number];
    readonly config_groups?: Readonly<
      Record<
        string,
        { readonly weights: { readonly group_size: number | null; readonly block_structure: readonly [number, number] | null } }
      >
    >;
  };
}
const json = <T>(file: string): T | null => (existsSync(file) ? (JSON.parse(readFileSync(file, 'utf8')) as T) : null);

/** Every logical tensor of a directory, by its name with `.weight`. What belongs to no tensor throws. */
export function decodeDirectory(dir: string): ReadonlyMap<string, Decoded> {
  const stored = storedTensors(dir);
  const config = json<Words>(join(dir, 'config.json'))?.quantization_config;
  const description = json<Record<string, string>>(join(dir, 'quant_model_description.json'));
  const blocks = config?.weight_block_size ?? [128, 128];
  const out = new Map<string, Decoded>();
  const taken = new Set<string>();
  const at = (name: string): Stored | null => {
    const t = stored.get(name);
    if (t) taken.add(name);
    return t ?? null;
  };
  const scaled = (t: Stored, values = plain(t)) => ({ values, dtype: t.dtype });

  for (const name of stored.keys()) {
    const m = /^(.*)\.(weight|weight_packed)$/.exec(name);
    if (!m || taken.has(name)) continue;
    const base = m[1]!;
    const t = at(name)!;
    const scale = at(`${base}.weight_scale`);
    if (m[2] === 'weight_packed') {
      if (!scale) throw new Error(`${name} has no scale`);
      if (t.dtype === 'U8') {
        const [rows, half] = t.shape as [number, number];
        out.set(
          `${base}.weight`,
          matrix(
            'mxfp4-pack',
            [rows, 2 * half],
            codebooks.e2m1,
            halves(t, rows, 2 * half),
            scaled(scale, exponents(scale)),
            null,
            [1, 32],
            [t, scale],
          ),
        );
        continue;
      }
      const shape = at(`${base}.weight_shape`);
      if (t.dtype !== 'I32' || !shape) throw new Error(`${name} is ${t.dtype}, its shape ${shape ? 'there' : 'missing'}`);
      const [rows, columns] = [...plain(shape)] as [number, number];
      const v = new DataView(t.bytes.buffer, t.bytes.byteOffset, t.bytes.byteLength);
      const words = Math.ceil(columns / 8);
      if (t.shape.join() !== `${rows},${words}`) throw new Error(`${name} is [${t.shape}], weight_shape [${rows}, ${columns}]`);
      // element i of a row at bit 4i of its stream, stored as q + 8, which is its place
      const codes = new Uint8Array(rows * columns);
      for (let r = 0; r < rows; r++)
        for (let c = 0; c < columns; c++) codes[r * columns + c] = (v.getUint32(4 * (r * words + (c >> 3)), true) >>> (4 * (c & 7))) & 15;
      const across = scale.shape[1]!;
      const group = groupOf(config, columns, across);
      const zero = at(`${base}.weight_zero_point`);
      let zeros: Float64Array | null = null;
      if (zero) {
        // packed along rows: the word of rows 8j.. holds them from its lowest bits on
        if (zero.shape.join() !== `${Math.ceil(rows / 8)},${across}`) throw new Error(`${zero.name} is [${zero.shape}]`);
        const z = new DataView(zero.bytes.buffer, zero.bytes.byteOffset, zero.bytes.byteLength);
        zeros = Float64Array.from({ length: rows * across }, (_, i) => {
          const [r, g] = [floor(i / across), i % across];
          return ((z.getUint32(4 * ((r >> 3) * across + g), true) >>> (4 * (r & 7))) & 15) - 8;
        });
      }
      out.set(
        `${base}.weight`,
        matrix(
          'pack-quantized',
          [rows, columns],
          codebooks.int4,
          codes,
          scaled(scale),
          zeros,
          [1, group],
          [t, scale, ...(zero ? [zero] : [])],
        ),
      );
      continue;
    }
    const type = description?.[name];
    const own = at(`${base}.weight_scale_inv`) ?? at(`${base}.scale`);
    if (type !== undefined && type !== 'FLOAT') {
      if (!scale) throw new Error(`${name} is ${type} without a scale`);
      if (type === 'W8A8_DYNAMIC' || type === 'W4A8_DYNAMIC') {
        const offset = at(`${base}.weight_offset`);
        if (!offset || plain(offset).some(v => v !== 0)) throw new Error(`${base}.weight_offset is to be zeros`);
        if (scale.shape[1] !== 1) throw new Error(`${scale.name} is [${scale.shape}]`);
      }
      const [rows, columns] = t.shape as [number, number];
      switch (type) {
        case 'W8A8_DYNAMIC':
          out.set(
            name,
            matrix(type, [rows, columns], codebooks.int8, bytesOf(t, placeOf.int8), scaled(scale), null, [1, columns], [t, scale]),
          );
          break;
        case 'W4A8_DYNAMIC': {
          at(`${base}.scale_bias`);
          // byte [j, k]: row 2j low, row 2j + 1 high, two's complement
          const codes = new Uint8Array(2 * rows * columns);
          for (let r = 0; r < 2 * rows; r++)
            for (let c = 0; c < columns; c++) {
              const byte = t.bytes[(r >> 1) * columns + c]!;
              codes[r * columns + c] = ((r % 2 === 0 ? byte : byte >> 4) & 15) ^ 8;
            }
          out.set(name, matrix(type, [2 * rows, columns], codebooks.int4, codes, scaled(scale), null, [1, columns], [t, scale]));
          break;
        }
        case 'W8A8_MXFP8':
          out.set(
            name,
            matrix(
              type,
              [rows, columns],
              codebooks.e4m3,
              bytesOf(t, placeOf.e4m3),
              scaled(scale, exponents(scale)),
              null,
              [1, 32],
              [t, scale],
            ),
          );
          break;
        case 'W4A8_MXFP':
          out.set(
            name,
            matrix(
              type,
              [rows, 2 * columns],
              codebooks.e2m1,
              halves(t, rows, 2 * columns),
              scaled(scale, exponents(scale)),
              null,
              [1, 32],
              [t, scale],
            ),
          );
          break;
        default:
          throw new Error(`${name} is ${type}`);
      }
    } else if (own && t.dtype === 'F8_E4M3') {
      const [rows, columns] = t.shape as [number, number];
      out.set(name, matrix('fp8', [rows, columns], codebooks.e4m3, bytesOf(t, placeOf.e4m3), scaled(own), null, blocks, [t, own]));
    } else if (own && t.dtype === 'I8' && own.dtype === 'F8_E8M0') {
      const [rows, half] = t.shape as [number, number];
      out.set(name, matrix('fp4', [rows, 2 * half], codebooks.e2m1, halves(t, rows, 2 * half), scaled(own), null, [1, 32], [t, own]));
    } else if (own && t.dtype === 'I8') {
      const [rows, columns] = t.shape as [number, number];
      out.set(name, matrix('int8 blocks', [rows, columns], codebooks.int8, bytesOf(t, placeOf.int8), scaled(own), null, blocks, [t, own]));
    } else if (scale && t.dtype === 'I8') {
      const [rows, columns] = t.shape as [number, number];
      out.set(
        name,
        matrix('int-quantized', [rows, columns], codebooks.int8, bytesOf(t, placeOf.int8), scaled(scale), null, [1, columns], [t, scale]),
      );
    } else if (scale && t.dtype === 'F8_E4M3') {
      const [rows, columns] = t.shape as [number, number];
      const b = Object.values(config?.config_groups ?? {})[0]?.weights.block_structure ?? [128, 128];
      out.set(
        name,
        matrix('float-quantized', [rows, columns], codebooks.e4m3, bytesOf(t, placeOf.e4m3), scaled(scale), null, b, [t, scale]),
      );
    } else {
      if (own || scale) throw new Error(`${name} is ${t.dtype} and has a scale`);
      out.set(name, { form: t.dtype, shape: t.shape, values: plain(t), coded: null, from: [t] });
    }
  }
  for (const [name, t] of stored) {
    if (taken.has(name)) continue;
    if (/\.(weight_scale|weight_scale_inv|scale|weight_offset|scale_bias|weight_zero_point|weight_shape)$/.test(name))
      throw new Error(`${name} belongs to no tensor`);
    out.set(name, { form: t.dtype, shape: t.shape, values: plain(t), coded: null, from: [t] });
  }
  return out;
}
/** Columns of a group: what the config says, or what the scales leave no doubt about. */
function groupOf(config: Words['quantization_config'], columns: number, across: number): number {
  if (across === 1) return columns;
  for (const g of Object.values(config?.config_groups ?? {})) {
    const size = g.weights.group_size ?? columns;
    if (Math.ceil(columns / size) === across) return size;
  }
  for (const size of [32, 64, 128]) if (Math.ceil(columns / size) === across) return size;
  return columns;
}
