// A checkpoint compiled by a recipe and read back as numbers, whatever form the engine has its matrices in. Forms that the project's program reads go
// through its own reader; zero points, rows in pairs and GGUF blocks are decoded here, in plain words.
import { closeSync, mkdirSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { formName } from '../ir/form.js';
import type { Span, ValueOf } from '../ir/graph.js';
import type { Figures } from '../src/bundle/ledger.js';
import { canonicalName } from '../src/checkpoint/names.js';
import { readAt, readHeader, type TensorEntry } from '../src/checkpoint/safetensors.js';
import { type Checkpoint, openCheckpoint } from '../src/checkpoint/shards.js';
import { type CompileOptions, compile, prepare } from '../src/compile.js';
import { outputsOf } from '../src/engine-plan.js';
import { fromF16, readWeight } from '../src/numeric/decode.js';
import { type Inputs, int8Inputs } from '../src/reference/inputs.js';
import type { Recipe } from '../targets/engine.js';

export interface Scheme {
  readonly target: string;
  readonly recipe: Omit<Recipe, 'format' | 'name'>;
  readonly engineFormat?: string;
  /** Text or file of statistics. */
  readonly calibration?: string;
}
export interface Rounded {
  /** What the graph is built from: the engine directory where the program reads it, else the source. */
  readonly checkpoint: Checkpoint;
  readonly weights: (v: ValueOf<'weight'>) => Float32Array | Int32Array;
  /** What matrices make of what comes in: int8 where the recipe says so. */
  readonly inputs: Inputs | null;
  /** By matrix. */
  readonly figures: ReadonlyMap<string, Figures>;
  /** Forms of the matrices that are coded. */
  readonly forms: readonly string[];
  /** Bits a weight of the coded matrices, scales and zero points included. */
  readonly bits: number;
}

const bytesOf = (file: string, [from, to]: readonly [number, number]): Uint8Array => {
  const fd = openSync(file, 'r');
  try {
    const bytes = new Uint8Array(to - from);
    readAt(fd, bytes, from);
    return bytes;
  } finally {
    closeSync(fd);
  }
};
export const readerOf =
  (dir: string) =>
  (s: Span): Uint8Array =>
    bytesOf(join(dir, s.file), s.bytes);
/** Logical name of a part of a weight. */
export const nameOf = (c: Checkpoint, w: ValueOf<'weight'>, part: number): string =>
  canonicalName(w.origin.parts[part]!.tensor, c.config.family).replace(/\.weight_packed$/, '.weight');

/** int4 with zero points: eight codes a word along columns, eight zero points a word along rows. */
function asymmetric(get: (part: string) => Uint8Array, rows: number, columns: number, group: number): Float32Array {
  const [codes, zeros, scales] = [get('weight_packed'), get('weight_zero_point'), get('weight_scale')];
  const across = Math.ceil(columns / group);
  const [z, s] = [new DataView(zeros.buffer), new DataView(scales.buffer)];
  const pitch = Math.ceil(columns / 8) * 4;
  const word = new DataView(new ArrayBuffer(4));
  const out = new Float32Array(rows * columns);
  for (let r = 0; r < rows; r++)
    for (let g = 0; g < across; g++) {
      const zero = (z.getUint32(4 * ((r >> 3) * across + g), true) >>> (4 * (r & 7))) & 15;
      word.setUint16(0, s.getUint16(2 * (r * across + g), true));
      const scale = word.getFloat32(0);
      for (let c = g * group; c < columns && c < (g + 1) * group; c++)
        out[r * columns + c] = (((codes[r * pitch + (c >> 1)]! >> (4 * (c & 1))) & 15) - zero) * scale;
    }
  return out;
}
/** Signed codes and an F32 scale a row; `pairs`: rows 2j and 2j + 1 in the low and high half of a byte. */
function byRow(get: (part: string) => Uint8Array, rows: number, columns: number, pairs: boolean): Float32Array {
  const [codes, scales] = [get('weight'), get('weight_scale')];
  const s = new DataView(scales.buffer);
  const out = new Float32Array(rows * columns);
  for (let r = 0; r < rows; r++) {
    const scale = s.getFloat32(4 * r, true);
    for (let c = 0; c < columns; c++) {
      const q = pairs ? (codes[(r >> 1) * columns + c]! << (r % 2 ? 24 : 28)) >> 28 : (codes[r * columns + c]! << 24) >> 24;
      out[r * columns + c] = q * scale;
    }
  }
  return out;
}
/** Blocks of 32 with an f16 scale before them; of Q4_0 elements j and j + 16 share a byte, j low. */
function blocks(type: string, bytes: Uint8Array, count: number): Float32Array {
  const size = type === 'Q8_0' ? 34 : 18;
  const out = new Float32Array(count);
  for (let b = 0; b * 32 < count; b++) {
    const at = b * size;
    const scale = fromF16(bytes[at]! | (bytes[at + 1]! << 8));
    for (let j = 0; j < 32; j++) {
      const q = type === 'Q8_0' ? (bytes[at + 2 + j]! << 24) >> 24 : ((bytes[at + 2 + (j & 15)]! >> (j < 16 ? 0 : 4)) & 15) - 8;
      out[b * 32 + j] = q * scale;
    }
  }
  return out;
}

/** Compile into `work`, which is emptied before, and read back. */
export async function makeScheme(model: string, scheme: Scheme, work: string): Promise<Rounded> {
  rmSync(work, { recursive: true, force: true });
  mkdirSync(work, { recursive: true });
  const recipe = join(work, 'recipe.json');
  writeFileSync(recipe, JSON.stringify({ format: 'hkgai-recipe-1', name: 'quality', ...scheme.recipe }));
  const options: CompileOptions = {
    out: join(work, 'out'),
    targets: [scheme.target],
    quantise: recipe,
    format: scheme.engineFormat ?? null,
    calibration: scheme.calibration ?? null,
    state: 'f32',
    mtp: null,
    weights: 'auto',
    sequences: 1,
    chunk: 128,
    force: false,
    allowPhantomKeys: false,
    version: 'quality',
    jobs: 0,
    noCache: true,
  };
  const watch = { step: () => undefined, at: () => undefined };
  const { engines } = await compile(model, options, watch);
  const aim = (await prepare(model, options, watch)).aims[0]!;
  const engine = join(options.out, aim.directory, 'engine');
  const source = openCheckpoint(model);
  const rounded = new Map<string, Float32Array>();
  let [weights, bytes] = [0, 0];
  const chosen = aim.resolution.chosen.filter(x => x.form.kind === 'coded' || x.form.kind === 'gguf');
  const own = aim.format.name === 'safetensors';
  if (aim.format.pack) {
    const side = { config: JSON.parse(readFileSync(join(model, 'config.json'), 'utf8')), ...tokenizerFiles(model) };
    const shapes = new Map(chosen.map(x => [x.tensor.name, x.tensor.shape]));
    const packing = aim.format.pack(side, aim.resolution.chosen, {
      modelType: source.config.family,
      layers: source.config.layers,
      tensors: aim.resolution.chosen.map(x => x.tensor),
    });
    for (const t of packing.tensors) {
      if (t.form.kind !== 'gguf') continue;
      const place = [...outputsOf(aim.plan)].find(o => o.name === t.name)!;
      const all = blocks(
        t.form.type,
        bytesOf(join(engine, place.file), [place.at, place.at + place.size]),
        t.shape.reduce((a, b) => a * b, 1),
      );
      bytes += place.size;
      let at = 0;
      for (const run of t.runs) {
        if (run.turn !== 'none' || run.rows !== null) throw new Error(`${t.name} is turned or cut`);
        const n = shapes.get(run.tensor)!.reduce((a, b) => a * b, 1);
        rounded.set(run.tensor, all.subarray(at, at + n));
        at += n;
      }
      weights += at;
    }
  } else {
    const stored = new Map<string, TensorEntry>();
    for (const f of aim.plan.files) for (const t of readHeader(join(engine, f.path), f.path).tensors.values()) stored.set(t.name, t);
    for (const { tensor, form } of chosen) {
      if (form.kind !== 'coded') continue;
      const base = tensor.name.replace(/\.weight$/, '');
      const [rows, columns] = tensor.shape as readonly [number, number];
      weights += rows * columns;
      for (const [name, t] of stored)
        if (
          /^\.(weight|weight_packed|weight_scale|weight_scale_inv|weight_zero_point|scale_bias)$/.test(
            name.startsWith(base) ? name.slice(base.length) : '',
          )
        )
          bytes += t.bytes[1] - t.bytes[0];
      if (own) continue;
      const get = (part: string): Uint8Array => {
        const t = stored.get(`${base}.${part}`);
        if (!t) throw new Error(`${base}.${part} is not there`);
        return bytesOf(join(engine, t.file), t.bytes);
      };
      rounded.set(
        tensor.name,
        form.zero ? asymmetric(get, rows, columns, form.block[1]) : byRow(get, rows, columns, form.layout === 'row-pairs'),
      );
    }
  }
  const coded = new Set(chosen.map(x => x.tensor.name));
  const made = own ? openCheckpoint(engine) : source;
  const read = readerOf(own ? engine : model);
  return {
    inputs:
      scheme.recipe.activations === 'int8'
        ? int8Inputs((w, part) => w.origin.parts[part] !== undefined && coded.has(nameOf(made, w, part)))
        : null,
    figures: engines[aim.directory]!.figures,
    forms: [...new Set(chosen.map(x => formName(x.form)))],
    bits: weights === 0 ? 16 : (8 * bytes) / weights,
    checkpoint: made,
    weights: own ? v => readWeight(v, read) : v => replaced(source, v, read, rounded),
  };
}
const tokenizerFiles = (model: string) => ({
  tokenizer: JSON.parse(readFileSync(join(model, 'tokenizer.json'), 'utf8')),
  tokenizerConfig: JSON.parse(readFileSync(join(model, 'tokenizer_config.json'), 'utf8')),
  generationConfig: null,
  chatTemplate: null,
});
/** The source's numbers with the rounded matrices in their places. */
function replaced(
  c: Checkpoint,
  v: ValueOf<'weight'>,
  read: (s: Span) => Uint8Array,
  rounded: ReadonlyMap<string, Float32Array>,
): Float32Array | Int32Array {
  const numbers = readWeight(v, read);
  const each = numbers.length / Math.max(1, v.origin.parts.length);
  v.origin.parts.forEach((_, i) => {
    const r = rounded.get(nameOf(c, v, i));
    if (r) (numbers as Float32Array).set(r, i * each);
  });
  return numbers;
}
