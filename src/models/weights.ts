// Asks for weights by name and shape. From a config alone it writes down what is expected; with headers it finds the tensors, takes storages
// from their dtypes, and collects everything that is missing, unknown or of another shape before anybody reads a byte.
import type { Builder } from '../../ir/build.js';
import type { Origin, Part, Span, ValueOf } from '../../ir/graph.js';
import type { Place, Problem } from '../../ir/problem.js';
import { bf16, f16, f32, i64, type Plain, type Storage, sameStorage, scaled, scaleShape, storageName } from '../../ir/storage.js';
import type { Family, ModelConfig } from '../checkpoint/config.js';
import { canonicalName, strayReason } from '../checkpoint/names.js';
import * as problems from '../checkpoint/problems.js';
import type { TensorEntry } from '../checkpoint/safetensors.js';

/** A tensor that a model of this config has, with the dtype that DeepSeek's releases give it. */
export interface Expected {
  readonly name: string;
  readonly shape: readonly number[];
  readonly dtype: string;
  /** May be absent: copies of other tensors. */
  readonly optional: boolean;
}
export interface Unused {
  readonly tensor: string;
  readonly reason: string;
}
/** How a linear is stored in the release, where only the config is known. */
export type Release = 'bf16' | 'fp8' | 'fp4';
interface Found {
  readonly storage: Storage;
  readonly part: Part;
}
export type Weight = ValueOf<'weight'>;

const plainOf: Readonly<Record<string, Plain>> = { F32: f32, BF16: bf16, F16: f16 };
const scaleOf: Readonly<Record<string, 'f32' | 'bf16' | 'e8m0'>> = { F32: 'f32', BF16: 'bf16', F8_E8M0: 'e8m0' };
const span = (t: TensorEntry): Span => ({ tensor: t.name, file: t.file, bytes: t.bytes });
const same = (a: readonly number[], b: readonly number[]): boolean => a.length === b.length && a.every((d, i) => d === b[i]);

export class Weights {
  readonly expected: Expected[] = [];
  readonly found: Problem[] = [];
  readonly unused: Unused[] = [];
  readonly #builder: Builder;
  readonly #config: ModelConfig;
  readonly #tensors: ReadonlyMap<string, TensorEntry> | null;
  readonly #used = new Set<string>();
  readonly #made = new Map<string, Weight>();
  /** Suffix of a block scale in this family's spelling. */
  readonly #scale: string;

  constructor(builder: Builder, config: ModelConfig, tensors: ReadonlyMap<string, TensorEntry> | null, zeroOffsets = false) {
    this.#builder = builder;
    this.#config = config;
    this.#scale = config.family === 'deepseek_v4' ? 'scale' : 'weight_scale_inv';
    this.#tensors = tensors === null ? null : this.#byCanonicalName(tensors, config.family, zeroOffsets);
  }

  #byCanonicalName(tensors: ReadonlyMap<string, TensorEntry>, family: Family, zeroOffsets: boolean): ReadonlyMap<string, TensorEntry> {
    const out = new Map<string, TensorEntry>();
    for (const t of tensors.values()) {
      const zero = zeroOffsets && t.name.endsWith('.weight_offset');
      const reason = zero ? 'zero: the codes beside it are symmetric' : strayReason(t.name);
      if (reason !== null) {
        this.unused.push({ tensor: t.name, reason });
        continue;
      }
      const name = canonicalName(t.name, family);
      const other = out.get(name);
      if (other) this.found.push(problems.sameTensor(other.name, t.name, name));
      else out.set(name, t);
    }
    return out;
  }
  has(name: string): boolean {
    return this.#tensors === null || this.#tensors.has(name);
  }
  #place(key: string | undefined): Place | null {
    return key === undefined ? null : this.#config.place(key);
  }
  #take(name: string): TensorEntry | undefined {
    const t = this.#tensors?.get(name);
    if (t) this.#used.add(name);
    return t;
  }

  /** A tensor of one of these dtypes, plain. */
  #plain(name: string, shape: readonly number[], dtypes: readonly string[], key: string | undefined): Found | null {
    const t = this.#take(name);
    if (!t) {
      this.found.push(problems.tensorMissing(name, shape, dtypes, this.#place(key)));
      return null;
    }
    if (!dtypes.includes(t.dtype)) this.found.push(problems.tensorDtype(t.name, t.dtype, dtypes, t));
    else if (!same(t.shape, shape)) this.found.push(problems.tensorShape(t.name, t.shape, shape, t, this.#place(key)));
    else return { storage: t.dtype === 'I64' ? i64 : (plainOf[t.dtype] as Plain), part: span(t) };
    return null;
  }

  /** A matrix in whatever storage its header says. `base` has no suffix. */
  #matrix(base: string, rows: number, columns: number, key: string | undefined, release: Release): Found | null {
    const packed = this.#take(`${base}.weight_packed`);
    if (packed) return this.#packed(base, packed, rows, columns, key);
    const t = this.#take(`${base}.weight`);
    if (!t) {
      this.found.push(
        problems.tensorMissing(
          `${base}.weight`,
          [rows, columns],
          release === 'fp8' ? ['F8_E4M3', 'BF16'] : release === 'fp4' ? ['I8', 'F8_E4M3', 'BF16'] : ['BF16', 'F16', 'F32'],
          this.#place(key),
        ),
      );
      for (const s of [`${base}.${this.#scale}`, `${base}.weight_scale`]) this.#take(s); // not unknown: its tensor is what is missing
      return null;
    }
    const scaleName = this.#tensors?.has(`${base}.weight_scale`) ? `${base}.weight_scale` : `${base}.${this.#scale}`;
    const scale = this.#take(scaleName);
    const shape = [rows, columns];
    const wrongShape = (is: readonly number[]): null => {
      this.found.push(problems.tensorShape(t.name, t.shape, is, t, this.#place(key)));
      return null;
    };
    if (Object.hasOwn(plainOf, t.dtype)) {
      if (!same(t.shape, shape)) return wrongShape(shape);
      if (scale) {
        this.found.push(problems.scaleStray(scale.name, t.name, t.dtype, scale));
        return null;
      }
      return { storage: plainOf[t.dtype] as Plain, part: span(t) };
    }
    const micro = scale?.dtype === 'U8' ? this.#micro(t, scale, rows, columns) : null;
    if (micro) return { storage: micro, part: { tensor: t.name, file: t.file, bytes: t.bytes, scale: span(scale as TensorEntry) } };
    if (t.dtype !== 'F8_E4M3' && t.dtype !== 'I8') {
      this.found.push(problems.tensorDtype(t.name, t.dtype, ['BF16', 'F16', 'F32', 'F8_E4M3', 'I8'], t));
      return null;
    }
    if (scale && !Object.hasOwn(scaleOf, scale.dtype)) {
      this.found.push(problems.tensorDtype(scale.name, scale.dtype, ['F32', 'F8_E8M0', 'BF16'], scale));
      return null;
    }
    const half = t.dtype === 'I8' && scale?.dtype === 'F8_E8M0';
    const stored = half || (t.dtype === 'I8' && !scale && release === 'fp4') ? [rows, columns / 2] : shape;
    if (t.dtype === 'I8' && same(t.shape, [rows / 2, columns]) && this.#tensors?.has(`${base}.scale_bias`)) {
      this.found.push(problems.rowPairs(t.name, t));
      return null;
    }
    if (!same(t.shape, stored)) return wrongShape(stored);
    if (!scale) {
      this.found.push(problems.scaleMissing(t.name, scaleName, t.dtype, t));
      return null;
    }
    const storage = this.#scaledStorage(t, scale, rows, columns);
    return storage === null ? null : { storage, part: { tensor: t.name, file: t.file, bytes: t.bytes, scale: span(scale) } };
  }

  /** MXFP8 and MXFP4 with their E8M0 scales in bytes, one for 32 columns; null where the shapes are not theirs. */
  #micro(t: TensorEntry, scale: TensorEntry, rows: number, columns: number): Storage | null {
    if (columns % 32 !== 0 || !same(scale.shape, [rows, columns / 32])) return null;
    if (t.dtype === 'F8_E4M3' && same(t.shape, [rows, columns])) return scaled('f8e4m3', 1, 32, 'e8m0');
    return t.dtype === 'U8' && same(t.shape, [rows, columns / 2]) ? scaled('f4e2m1', 1, 32, 'e8m0') : null;
  }

  #scaledStorage(t: TensorEntry, scale: TensorEntry, rows: number, columns: number): Storage | null {
    const element = scaleOf[scale.dtype];
    if (element === undefined) {
      this.found.push(problems.tensorDtype(scale.name, scale.dtype, ['F32', 'F8_E8M0', 'BF16'], scale));
      return null;
    }
    if (t.dtype === 'I8') {
      if (element !== 'e8m0') {
        if (same(scale.shape, [rows, 1]) || same(scale.shape, [rows])) return scaled('i8', 1, 0, element);
        this.found.push(problems.tensorShape(scale.name, scale.shape, [rows, 1], scale, null));
        return null;
      }
      if (same(scale.shape, [rows, columns / 32])) return scaled('f4e2m1', 1, 32, 'e8m0');
      this.found.push(problems.tensorShape(scale.name, scale.shape, [rows, columns / 32], scale, null));
      return null;
    }
    const q = this.#config.quantisation;
    const blocks: readonly (readonly [number, number])[] =
      q.kind === 'fp8'
        ? [q.block]
        : [
            [128, 128],
            [32, 32],
          ];
    for (const [r, c] of blocks) {
      const s = scaled('f8e4m3', r, c, element);
      if (same(scale.shape, scaleShape(s, rows, columns))) return s;
    }
    const [r, c] = blocks[0] as readonly [number, number];
    this.found.push(
      problems.tensorShape(
        scale.name,
        scale.shape,
        [Math.ceil(rows / r), Math.ceil(columns / c)],
        scale,
        this.#place('quantization_config'),
      ),
    );
    return null;
  }

  #packed(base: string, t: TensorEntry, rows: number, columns: number, key: string | undefined): Found | null {
    const scale = this.#take(`${base}.weight_scale`);
    this.#take(`${base}.weight_shape`);
    const micro = scale?.dtype === 'U8' ? this.#micro(t, scale, rows, columns) : null;
    if (micro) return { storage: micro, part: { tensor: t.name, file: t.file, bytes: t.bytes, scale: span(scale as TensorEntry) } };
    if (t.dtype !== 'I32') this.found.push(problems.tensorDtype(t.name, t.dtype, ['I32'], t));
    else if (columns % 8 !== 0 || !same(t.shape, [rows, columns / 8]))
      this.found.push(problems.tensorShape(t.name, t.shape, [rows, Math.ceil(columns / 8)], t, this.#place(key)));
    else if (!scale) this.found.push(problems.scaleMissing(t.name, `${base}.weight_scale`, 'int4', t));
    else {
      const element = scaleOf[scale.dtype];
      const group = [32, 64, 128].find(g => same(scale.shape, [rows, Math.ceil(columns / g)]));
      if (element === undefined || element === 'e8m0')
        this.found.push(problems.tensorDtype(scale.name, scale.dtype, ['F32', 'BF16'], scale));
      else if (group === undefined)
        this.found.push(problems.tensorShape(scale.name, scale.shape, [rows, Math.ceil(columns / 32)], scale, null));
      else return { storage: scaled('i4', 1, group, element), part: { tensor: t.name, file: t.file, bytes: t.bytes, scale: span(scale) } };
    }
    return null;
  }

  #expect(name: string, shape: readonly number[], dtype: string, optional = false): void {
    this.expected.push({ name, shape, dtype, optional });
  }
  #expectMatrix(base: string, rows: number, columns: number, release: Release): void {
    const scaleDtype = this.#config.family === 'deepseek_v4' ? this.#v4Scale() : 'F32';
    const [br, bc] = this.#config.quantisation.kind === 'fp8' ? this.#config.quantisation.block : [128, 128];
    if (release === 'bf16') this.#expect(`${base}.weight`, [rows, columns], 'BF16');
    else if (release === 'fp8') {
      this.#expect(`${base}.weight`, [rows, columns], 'F8_E4M3');
      this.#expect(`${base}.${this.#scale}`, [Math.ceil(rows / br), Math.ceil(columns / bc)], scaleDtype);
    } else {
      this.#expect(`${base}.weight`, [rows, columns / 2], 'I8');
      this.#expect(`${base}.${this.#scale}`, [rows, columns / 32], scaleDtype);
    }
  }
  /** V4's instruct releases store E8M0 scales; the Base releases (experts in fp8) F32 ones. */
  #v4Scale(): string {
    return this.#config.family === 'deepseek_v4' && this.#config.expertDtype === 'fp8' ? 'F32' : 'F8_E8M0';
  }
  #default(release: Release): Storage {
    if (release === 'bf16') return bf16;
    const scale = this.#config.family === 'deepseek_v4' && this.#v4Scale() === 'F8_E8M0' ? 'e8m0' : 'f32';
    const [br, bc] = this.#config.quantisation.kind === 'fp8' ? this.#config.quantisation.block : [128, 128];
    return release === 'fp8' ? scaled('f8e4m3', br, bc, scale) : scaled('f4e2m1', 1, 32, scale);
  }
  #declare(name: string, shape: readonly number[], storage: Storage, parts: readonly Part[], layer: number): Weight {
    const origin: Partial<Origin> = { role: name, layer, parts };
    return this.#builder.declare('weight', name, { shape, storage }, {}, {}, origin);
  }
  /** Value names leave out `model.` and `.weight`. */
  #valueName(tensor: string): string {
    return tensor.replace(/^model\./, '').replace(/\.weight$/, '');
  }

  /** The matrix of a linear: [rows, columns], in any storage. */
  matrix(base: string, rows: number, columns: number, layer: number, release: Release, key?: string): Weight {
    return this.#once(base, () => {
      if (this.#tensors === null) {
        this.#expectMatrix(base, rows, columns, release);
        return this.#declare(this.#valueName(base), [rows, columns], this.#default(release), [], layer);
      }
      const f = this.#matrix(base, rows, columns, key, release);
      return this.#declare(this.#valueName(base), [rows, columns], f?.storage ?? bf16, f ? [f.part] : [], layer);
    });
  }

  /** The same matrix of every expert, as one stacked weight [experts, rows, columns]. */
  stack(
    base: (expert: number) => string,
    name: string,
    experts: number,
    rows: number,
    columns: number,
    layer: number,
    release: Release,
    key?: string,
  ): Weight {
    if (this.#tensors === null) {
      for (let e = 0; e < experts; e++) this.#expectMatrix(base(e), rows, columns, release);
      return this.#declare(this.#valueName(name), [experts, rows, columns], this.#default(release), [], layer);
    }
    const all = Array.from({ length: experts }, (_, e) => this.#matrix(base(e), rows, columns, key, release));
    const first = all.findIndex(f => f !== null);
    const storage = all[first]?.storage ?? bf16;
    const odd = all.findIndex(f => f !== null && !sameStorage(f.storage, storage));
    if (odd !== -1)
      this.found.push(problems.stackDisagrees(name, base(first), storageName(storage), base(odd), storageName(all[odd]!.storage)));
    return this.#declare(
      this.#valueName(name),
      [experts, rows, columns],
      storage,
      all.flatMap(f => (f ? [f.part] : [])),
      layer,
    );
  }

  /** A plain tensor: norms, biases, tables. The first dtype is the release's. */
  plain(name: string, shape: readonly number[], dtypes: readonly [string, ...string[]], layer: number, key?: string): Weight {
    return this.#once(name, () => {
      if (this.#tensors === null) {
        this.#expect(name, shape, dtypes[0]);
        return this.#declare(this.#valueName(name), shape, dtypes[0] === 'I64' ? i64 : (plainOf[dtypes[0]] as Plain), [], layer);
      }
      const f = this.#plain(name, shape, dtypes, key);
      return this.#declare(this.#valueName(name), shape, f?.storage ?? f32, f ? [f.part] : [], layer);
    });
  }
  /** A copy that the model may carry: itself where it is there, else what it is a copy of. */
  copy(name: string, shape: readonly number[], of: Weight, layer: number): Weight {
    if (this.#tensors === null) {
      this.#expect(name, shape, 'BF16', true);
      return of;
    }
    return this.#tensors.has(name) ? this.plain(name, shape, ['BF16', 'F16', 'F32'], layer) : of;
  }
  /** A tensor that the model has and hkgai does not compile. */
  leave(name: string, shape: readonly number[], dtype: string, reason: string): void {
    if (this.#tensors === null) this.#expect(name, shape, dtype, true);
    else {
      const t = this.#take(name);
      if (t) this.unused.push({ tensor: t.name, reason });
    }
  }
  leaveMatrix(base: string, rows: number, columns: number, release: Release, reason: string): void {
    if (this.#tensors === null) this.#expectMatrix(base, rows, columns, release);
    else
      for (const suffix of ['weight', this.#scale, 'weight_scale', 'weight_packed', 'weight_shape']) {
        const t = this.#take(`${base}.${suffix}`);
        if (t) this.unused.push({ tensor: t.name, reason });
      }
  }
  #once(key: string, make: () => Weight): Weight {
    const made = this.#made.get(key);
    if (made) return made;
    const w = make();
    this.#made.set(key, w);
    return w;
  }
  /** All problems: those found on the way, and every tensor that nobody asked for. */
  finish(): readonly Problem[] {
    const unknown: Problem[] = [];
    for (const [name, t] of this.#tensors ?? [])
      if (!this.#used.has(name)) unknown.push(problems.tensorUnknown(t.name, t.dtype, t.shape, t));
    return [...this.found, ...unknown, ...this.#alone()];
  }
  /**
   * The one half float of another kind among many: the one F16 tensor in a BF16 checkpoint, or among the same tensors of other layers and experts.
   * Both have two bytes, so nothing else shows that a header was edited. Several that differ are somebody's choice.
   */
  #alone(): readonly Problem[] {
    const groups = new Map<string, TensorEntry[]>();
    const put = (group: string, t: TensorEntry): void => void (groups.get(group)?.push(t) ?? groups.set(group, [t]));
    for (const [name, t] of this.#tensors ?? []) {
      if (t.dtype !== 'BF16' && t.dtype !== 'F16') continue;
      const layer = /(?:^|\.)layers\.(\d+)\./.exec(name);
      const block = name.startsWith('mtp.') || (layer !== null && Number(layer[1]) >= this.#config.layers) ? 'mtp ' : '';
      put(block + name.replace(/\d+/g, 'N'), t);
      put('', t);
    }
    const found = new Map<string, Problem>();
    for (const list of groups.values()) {
      const f16 = list.filter(t => t.dtype === 'F16');
      const odd = f16.length === 1 ? f16[0] : list.length - f16.length === 1 ? list.find(t => t.dtype === 'BF16') : undefined;
      const peer = list.find(t => t !== odd);
      if (odd && peer && list.length > 3) found.set(odd.name, problems.dtypeAlone(odd.name, odd.dtype, peer.dtype, peer.name, odd));
    }
    return [...found.values()];
  }
}
