// compile --materialise: a weight file for each rank, with the parts of the tensors that it holds, and a proof for each tensor: what the ranks hold is read
// back, put together, and hashed against the whole. Engines load engine/ and cut it themselves; these files are for programs of ranks.
import { createHash, type Hash } from 'node:crypto';
import { closeSync, mkdirSync, openSync, readSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import type { Graph, Part, ValueOf } from '../ir/graph.js';
import { type Problem, problem, Refusal } from '../ir/problem.js';
import { elements, type Storage, scaleShape } from '../ir/storage.js';
import { dtypeBytes } from '../targets/engine.js';
import { devicesOf, type Parallel, parallelName } from '../targets/launch.js';
import type { ModelConfig } from './checkpoint/config.js';
import type { TensorEntry } from './checkpoint/safetensors.js';
import { headerBytes } from './engine-plan.js';
import { buildModel } from './models/index.js';
import { shard } from './passes/shard.js';

const cutTwice = (tensor: string, rank: number): Problem =>
  problem('HK2730', `${tensor} cannot be materialised: rank ${rank} holds two parts of it`, {
    why: 'A file of weights has one tensor of a name.',
    next: 'Leave --materialise out: engine/ and the plan of ranks are complete without it.',
  });
export const notMaterial = (why: string): Problem =>
  problem('HK2731', `--materialise cannot be done: ${why}`, {
    next: 'Leave --materialise out: engines cut engine/ as they load it.',
  });

/** A part of a stored tensor in whole bytes: rows [from, to), and in each row bytes [from, to). */
export interface Piece {
  readonly tensor: string;
  readonly entry: TensorEntry;
  /** Of the whole tensor. */
  readonly rows: number;
  readonly pitch: number;
  readonly row: readonly [from: number, to: number];
  readonly byte: readonly [from: number, to: number];
  readonly shape: readonly number[];
  /** In place of bytes of the source: a shape that the part has and the whole has not. */
  readonly instead: Uint8Array | null;
}
const sizeOf = (p: Piece): number => p.instead?.length ?? (p.row[1] - p.row[0]) * (p.byte[1] - p.byte[0]);
const sameRegion = (a: Piece, b: Piece): boolean => regionOf(a) === regionOf(b);
const regionOf = (p: Piece): string => `${p.row.join('-')} ${p.byte.join('-')}`;

/** Pieces of one matrix, or vector, of a weight that a rank holds. */
function piecesOf(v: ValueOf<'weight'>, part: Part, tensors: ReadonlyMap<string, TensorEntry>): readonly Piece[] {
  const shape = v.type.shape as readonly number[];
  const { slice } = v.origin;
  const last = <T>(a: readonly T[], one: T): readonly [T, T] => (a.length < 2 ? [a[0] ?? one, one] : [a.at(-2)!, a.at(-1)!]);
  const [rows, columns] = last(shape, 1);
  const [wholeRows, wholeColumns] = last(slice?.of ?? shape, 1);
  const [r0, c0] = slice ? (slice.of.length < 2 ? [slice.from[0]!, 0] : [slice.from.at(-2)!, slice.from.at(-1)!]) : [0, 0];
  const s: Storage = v.type.storage;
  const all = rows === wholeRows && columns === wholeColumns;
  const of = (name: string): TensorEntry => tensors.get(name) as TensorEntry;
  const piece = (entry: TensorEntry, grid: readonly [number, number], row: Piece['row'], byte: Piece['byte']): Piece => {
    const size = dtypeBytes[entry.dtype] as number;
    const width = (byte[1] - byte[0]) / size;
    if (!Number.isInteger(width) || !Number.isInteger(byte[0]))
      throw new Refusal([notMaterial(`a part of ${entry.name} ends inside a word of ${entry.dtype}`)]);
    const cut = entry.shape.length < 2 ? [row[1] - row[0]] : [row[1] - row[0], width];
    return { tensor: entry.name, entry, rows: grid[0], pitch: grid[1], row, byte, shape: all ? entry.shape : cut, instead: null };
  };
  const bits = elements[s.element].bits;
  const bytes = (c: number): number => (c * bits) / 8;
  const end = c0 + columns === wholeColumns ? Math.ceil(bytes(wholeColumns)) : bytes(c0 + columns);
  const out = [piece(of(part.tensor), [wholeRows, Math.ceil(bytes(wholeColumns))], [r0, r0 + rows], [bytes(c0), end])];
  if (s.kind === 'scaled' && part.scale) {
    const [down, across] = scaleShape(s, wholeRows, wholeColumns);
    const [br, bc] = [s.block[0], s.block[1] === 0 ? wholeColumns : s.block[1]];
    if (r0 % br || c0 % bc) throw new Error(`${part.tensor} is cut inside a block of scales`);
    const unit = elements[s.scale].bits / 8;
    const entry = of(part.scale.tensor);
    const row = [r0 / br, Math.min(down, Math.ceil((r0 + rows) / br))] as const;
    const column = [c0 / bc, Math.min(across, Math.ceil((c0 + columns) / bc))] as const;
    out.push(piece(entry, [down, across * unit], row, [column[0] * unit, column[1] * unit]));
  }
  // packed codes have their shape in a tensor beside them
  const beside = part.tensor.endsWith('weight_packed') ? tensors.get(part.tensor.replace(/weight_packed$/, 'weight_shape')) : undefined;
  if (beside) {
    const size = beside.bytes[1] - beside.bytes[0];
    const words = size === 16 ? BigInt64Array.of(BigInt(rows), BigInt(columns)) : Int32Array.of(rows, columns);
    const whole = piece(beside, [1, size], [0, 1], [0, size]);
    out.push({ ...whole, shape: beside.shape, instead: all ? null : new Uint8Array(words.buffer) });
  }
  return out;
}

/** The ranks of a directory that is not written yet, or is: from its config and its tensors' places. */
export function planMaterial(
  config: ModelConfig,
  tensors: ReadonlyMap<string, TensorEntry>,
  format: string,
  p: Parallel,
  uneven: boolean,
): Material {
  let graph: Graph;
  try {
    graph = buildModel(config, tensors).graph;
  } catch (e) {
    if (!(e instanceof Refusal)) throw e;
    throw new Refusal([notMaterial(`${format} is cut by its engines alone`)]);
  }
  return planRanks(graph, tensors, p, uneven);
}
export interface RankPlan {
  readonly rank: number;
  readonly pieces: readonly Piece[];
  readonly bytes: number;
}
export interface Material {
  readonly parallel: Parallel;
  readonly ranks: readonly RankPlan[];
  /** What is whole on every rank that has it because it cannot be cut, and why. */
  readonly whole: readonly { readonly name: string; readonly why: string }[];
}
/** What each rank holds of the tensors of a graph. Refuses what cannot be dealt. */
export function planRanks(graph: Graph, tensors: ReadonlyMap<string, TensorEntry>, p: Parallel, uneven = false): Material {
  if (p.redundant > 0) throw new Refusal([notMaterial('replicas of experts are made by engines as they load')]);
  const { ranks, whole } = shard(graph, { tp: p.tp, dp: p.dp, pp: p.pp, ep: p.ep }, { uneven });
  return {
    parallel: p,
    whole,
    ranks: ranks.map((g, rank) => {
      const held = new Map<string, Piece>();
      for (const v of g.values)
        if (v.op === 'weight')
          for (const part of v.origin.parts)
            for (const piece of piecesOf(v, part, tensors)) {
              const known = held.get(piece.tensor);
              if (known && !sameRegion(known, piece)) throw new Refusal([cutTwice(piece.tensor, rank)]);
              held.set(piece.tensor, piece);
            }
      // in the order of the source, whole words first: all stays aligned
      const order = (x: Piece): number => dtypeBytes[x.entry.dtype] as number;
      const pieces = [...held.values()].sort(
        (a, b) =>
          order(b) - order(a) || (a.entry.file < b.entry.file ? -1 : a.entry.file > b.entry.file ? 1 : a.entry.bytes[0] - b.entry.bytes[0]),
      );
      return { rank, pieces, bytes: pieces.reduce((n, x) => n + sizeOf(x), 0) };
    }),
  };
}

/** Bytes that are held at once. */
const bandBytes = 4 << 20;
class Files {
  readonly #open = new Map<string, number>();
  read(path: string, at: number, into: Uint8Array): void {
    let fd = this.#open.get(path);
    if (fd === undefined) {
      fd = openSync(path, 'r');
      this.#open.set(path, fd);
    }
    for (let done = 0; done < into.length; ) {
      const n = readSync(fd, into, done, into.length - done, at + done);
      if (n === 0) throw Object.assign(new Error(`${path} ended while it was read`), { code: 'EIO', syscall: 'read', path });
      done += n;
    }
  }
  close(): void {
    for (const fd of this.#open.values()) closeSync(fd);
  }
}
/** Where pieces were written. */
interface Written {
  readonly rank: number;
  readonly path: string;
  readonly at: number;
  readonly piece: Piece;
}
export const rankFile = (rank: number, ranks: number): string => `rank-${String(rank).padStart(String(ranks - 1).length, '0')}.safetensors`;

/** Write `ranks/` from a directory of weights, read it back, and prove it. `at` is told bytes as they are done. */
export async function writeRanks(
  m: Material,
  from: string,
  to: string,
  stop: () => void,
  at: (done: number, total: number) => void,
): Promise<ReadonlyMap<string, { readonly sha256: string; readonly bytes: number }>> {
  const p = m.parallel;
  mkdirSync(to, { recursive: true });
  const files = new Files();
  const known = new Map<string, { readonly sha256: string; readonly bytes: number }>();
  const written = new Map<string, Written[]>();
  const total = 2 * m.ranks.reduce((n, r) => n + r.bytes, 0);
  let done = 0;
  const told = async (bytes: number): Promise<void> => {
    at((done += bytes), total);
    stop();
    await new Promise(resolve => setImmediate(resolve)); // signals are heard
  };
  try {
    for (const r of m.ranks) {
      const path = rankFile(r.rank, devicesOf(p));
      const header = headerBytes(r.pieces.map(x => ({ name: x.tensor, dtype: x.entry.dtype, shape: x.shape, size: sizeOf(x) })));
      const fd = openSync(join(to, path), 'wx');
      const hash = createHash('sha256');
      let place = 0;
      const put = (bytes: Uint8Array): void => {
        for (let n = 0; n < bytes.length; ) n += writeSync(fd, bytes, n, bytes.length - n, place + n);
        hash.update(bytes);
        place += bytes.length;
      };
      try {
        put(header);
        for (const x of r.pieces) {
          const list = written.get(x.tensor) ?? [];
          written.set(x.tensor, [...list, { rank: r.rank, path: join(to, path), at: place, piece: x }]);
          if (x.instead) put(x.instead);
          else for (const band of bandsOf(x, join(from, x.entry.file), files)) put(band);
          await told(sizeOf(x));
        }
      } finally {
        closeSync(fd);
      }
      known.set(path, { sha256: hash.digest('hex'), bytes: place });
    }
    const lines: string[] = [];
    for (const name of [...written.keys()].sort()) {
      lines.push(JSON.stringify(prove(name, written.get(name) as readonly Written[], from, files)));
      await told((written.get(name) as readonly Written[]).reduce((n, w) => n + sizeOf(w.piece), 0));
    }
    writeFileSync(join(to, 'proof.jsonl'), lines.map(l => `${l}\n`).join(''));
    const about = {
      format: 'hkgai-ranks-1',
      about: `What each rank holds for ${parallelName(p)}; proof.jsonl has a line for each tensor: its hash, and the parts that make it again.`,
      parallel: p,
      ranks: m.ranks.map(r => ({ rank: r.rank, file: rankFile(r.rank, devicesOf(p)), tensors: r.pieces.length, bytes: r.bytes })),
      whole: m.whole,
    };
    writeFileSync(join(to, 'ranks.json'), `${JSON.stringify(about, null, 1)}\n`);
    return known;
  } finally {
    files.close();
  }
}

/** The bytes of a piece from the whole, some rows at a time. */
function* bandsOf(p: Piece, path: string, files: Files): Generator<Uint8Array> {
  const width = p.byte[1] - p.byte[0];
  const each = Math.max(1, Math.floor(bandBytes / p.pitch));
  for (let r = p.row[0]; r < p.row[1]; r += each) {
    const n = Math.min(each, p.row[1] - r);
    const rows = new Uint8Array(n * p.pitch);
    files.read(path, p.entry.bytes[0] + r * p.pitch, rows);
    if (width === p.pitch) {
      yield rows;
      continue;
    }
    const cut = new Uint8Array(n * width);
    for (let i = 0; i < n; i++) cut.set(rows.subarray(i * p.pitch + p.byte[0], i * p.pitch + p.byte[1]), i * width);
    yield cut;
  }
}

interface Proof {
  readonly tensor: string;
  /** Of the whole, and of what the parts make. */
  readonly sha256: string;
  readonly bytes: number;
  readonly parts: readonly {
    readonly ranks: readonly number[];
    readonly rows: Piece['row'];
    readonly bytes: Piece['byte'];
    readonly sha256: string;
  }[];
}
/** Read the parts of a tensor back, hold those that are to be equal against each other, put them together, and hash that against the whole. */
function prove(name: string, written: readonly Written[], from: string, files: Files): Proof {
  const { entry } = written[0]!.piece;
  const size = entry.bytes[1] - entry.bytes[0];
  const wrong = (why: string): never => {
    throw new Error(`${name} is not what its parts make: ${why}`);
  };
  const whole = createHash('sha256');
  for (let p = 0; p < size; p += bandBytes) {
    const some = new Uint8Array(Math.min(bandBytes, size - p));
    files.read(join(from, entry.file), entry.bytes[0] + p, some);
    whole.update(some);
  }
  const sha256 = whole.digest('hex');
  // a shape that parts have of their own says what their regions say
  if (written.some(w => w.piece.instead)) return { tensor: name, sha256, bytes: size, parts: [] };
  const regions = new Map<string, { readonly first: Written; readonly ranks: number[]; readonly sha256: string }>();
  for (const w of written) {
    const hash = createHash('sha256');
    const bytes = sizeOf(w.piece);
    for (let p = 0; p < bytes; p += bandBytes) {
      const some = new Uint8Array(Math.min(bandBytes, bytes - p));
      files.read(w.path, w.at + p, some);
      hash.update(some);
    }
    const is = hash.digest('hex');
    const key = regionOf(w.piece);
    const other = regions.get(key);
    if (!other) regions.set(key, { first: w, ranks: [w.rank], sha256: is });
    else {
      if (other.sha256 !== is) wrong(`ranks ${other.ranks[0]} and ${w.rank} hold other bytes of ${key}`);
      other.ranks.push(w.rank);
    }
  }
  const parts = [...regions.values()].sort((a, b) => {
    const [x, y] = [a.first.piece, b.first.piece];
    return x.row[0] - y.row[0] || x.byte[0] - y.byte[0];
  });
  const made = createHash('sha256');
  let row = 0;
  for (let i = 0; i < parts.length; ) {
    const { row: rows, pitch } = parts[i]!.first.piece;
    const side = parts.slice(i).filter(x => x.first.piece.row[0] === rows[0]);
    let byte = 0;
    for (const { first } of side) {
      if (first.piece.row[1] !== rows[1] || first.piece.byte[0] !== byte)
        wrong(`there is a gap or an overlap at row ${rows[0]}, byte ${byte}`);
      byte = first.piece.byte[1];
    }
    if (rows[0] !== row || byte !== pitch) wrong(`there is a gap at row ${row}`);
    joined(
      side.map(x => x.first),
      made,
      files,
    );
    row = rows[1];
    i += side.length;
  }
  if (row !== parts[0]!.first.piece.rows) wrong(`rows from ${row} on are missing`);
  if (made.digest('hex') !== sha256) wrong('its bytes are others');
  return {
    tensor: name,
    sha256,
    bytes: size,
    parts: parts.map(x => ({ ranks: x.ranks, rows: x.first.piece.row, bytes: x.first.piece.byte, sha256: x.sha256 })),
  };
}
/** Parts that lie side by side, row by row. */
function joined(side: readonly Written[], hash: Hash, files: Files): void {
  const { row, pitch } = side[0]!.piece;
  const each = Math.max(1, Math.floor(bandBytes / pitch));
  for (let r = row[0]; r < row[1]; r += each) {
    const n = Math.min(each, row[1] - r);
    const rows = new Uint8Array(n * pitch);
    for (const w of side) {
      const [from, to] = w.piece.byte;
      const some = new Uint8Array(n * (to - from));
      files.read(w.path, w.at + (r - row[0]) * (to - from), some);
      for (let i = 0; i < n; i++) rows.set(some.subarray(i * (to - from), (i + 1) * (to - from)), i * pitch + from);
    }
    hash.update(rows);
  }
}
