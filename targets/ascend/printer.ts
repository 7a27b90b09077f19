// AscendC: there is no thread to write. A tile expression becomes one vector call an operator over temporaries of the unified buffer; a fixed number
// of cores walks the grid. Waits stand where the walk of ir/tile-check.ts (each engine apart) wants them. Verbs: header/hkgai_tile_ascend.h.
import {
  add,
  contract,
  type Expr,
  held,
  type Kernel,
  load,
  loop,
  type Mask,
  map,
  type Operand,
  plus,
  type Ref,
  refShape,
  type Shape,
  type Stmt,
  tile,
  times,
  type View,
} from '../../ir/tile.js';
import { placeBarriers, tilesOf } from '../../ir/tile-check.js';
import { block, type Code, float, Names, text } from '../code.js';
import { kindOf, placeOf, pointers, printerLocals, product, tileType, whole } from '../elements.js';
import { axes } from '../simt.js';

const count = ([r, c]: Shape): number => r * c;
/** What a store goes through on its way out: `moved_bytes` of the header. */
const movedBytes = 2048;
/** Vector units compare 256 bytes at a time. */
const rounded = (n: number): number => Math.ceil(n / 64) * 64;
const call = { '+': 'Add', '-': 'Sub', '*': 'Mul', '/': 'Div', max: 'Max', min: 'Min' } as const;
const unary = {
  exp: 'Exp',
  log: 'Ln',
  sqrt: 'Sqrt',
  rsqrt: 'tile_rsqrt',
  abs: 'Abs',
  ceil: 'tile_ceil',
  floor: 'tile_floor',
  sin: 'tile_sin',
  cos: 'tile_cos',
} as const;

/** True where a window of a tile begins off the 32 bytes that a vector operand begins at: it is then moved element by element. */
function ragged(r: Ref): boolean {
  const width = (r.as ?? r.tile.shape)[1];
  const offset = (r.at?.[0] ?? 0) * width + (r.at?.[1] ?? 0);
  return offset % (r.tile.element === 'bf16' ? 16 : 8) !== 0;
}
/** Calls for one statement's expression; temporaries are taken and given back as a stack. */
class Vector {
  readonly lines: string[] = [];
  readonly #names: Names;
  #next = 0;
  #masks = 0;
  temporaries = 0;
  masks = 0;
  constructor(names: Names) {
    this.#names = names;
  }
  at(r: Ref): string {
    const width = (r.as ?? r.tile.shape)[1];
    const offset = (r.at?.[0] ?? 0) * width + (r.at?.[1] ?? 0);
    const name = this.#names.of('tile', r.tile.name);
    return offset === 0 ? name : `${name}[${offset}]`;
  }
  #scalar(e: Expr): string | null {
    return e.e === 'num' ? float(e.value) : e.e === 'int' ? `(float)(${whole(e.value, this.#names)})` : null;
  }
  #take(): string {
    this.temporaries = Math.max(this.temporaries, ++this.#next);
    return `value${this.#next - 1}`;
  }
  /** The tensor that holds e [shape]; computed into `to` where it is given. */
  value(e: Expr, shape: Shape, to?: string): string {
    const n = count(shape);
    const mark = this.#next;
    const done = (line: (dst: string) => string): string => {
      this.#next = mark;
      const dst = to ?? this.#take();
      this.lines.push(line(dst));
      return dst;
    };
    const s = this.#scalar(e);
    if (s !== null) return done(d => `Duplicate(${d}, ${s}, ${n});`);
    switch (e.e) {
      case 'iota':
        return done(d => `tile_iota_${e.axis === 0 ? 'rows' : 'columns'}<${shape.join(', ')}>(${d});`);
      case 'ref':
        return this.#ref(e.ref, shape, to, done);
      case 'un': {
        const a = this.value(e.a, shape);
        return done(d => (e.f === 'neg' ? `Muls(${d}, ${a}, -1.0f, ${n});` : `${unary[e.f]}(${d}, ${a}, ${n});`));
      }
      case 'bin': {
        const [a, b] = [this.#scalar(e.a), this.#scalar(e.b)];
        if (b !== null && e.f !== '/' && e.f !== '-') {
          const v = this.value(e.a, shape);
          return done(d => `${call[e.f]}s(${d}, ${v}, ${b}, ${n});`);
        }
        if (a !== null && e.f !== '/' && e.f !== '-') {
          const v = this.value(e.b, shape);
          return done(d => `${call[e.f]}s(${d}, ${v}, ${a}, ${n});`);
        }
        const l = this.value(e.a, shape);
        const r = this.value(e.b, shape);
        return done(d => `${call[e.f]}(${d}, ${l}, ${r}, ${n});`);
      }
      case 'select': {
        const first = this.#masks;
        const m = this.#mask(e.if, shape);
        const a = this.value(e.then, shape);
        const scalar = this.#scalar(e.else);
        const b = scalar ?? this.value(e.else, shape);
        this.#masks = first;
        return done(d => `Select(${d}, ${m}, ${a}, ${b}, SELMODE::VSEL_TENSOR_${scalar === null ? 'TENSOR' : 'SCALAR'}_MODE, ${n});`);
      }
      case 'num':
      case 'int':
      case 'chunk':
        throw new Error(`${e.e} is no tensor here`);
    }
  }
  /** A tile as f32 in this shape: cast where it holds something else, spread where a size is 1, gathered where it is a window. */
  #ref(r: Ref, shape: Shape, to: string | undefined, done: (line: (dst: string) => string) => string): string {
    const own = refShape(r);
    const pitch = (r.as ?? r.tile.shape)[1];
    const n = count(own);
    const spread = String(own) !== String(shape);
    const window = (own[1] !== pitch && own[0] !== 1) || ragged(r);
    let from = this.at(r);
    if (!spread && !window && r.tile.element === 'f32') return to === undefined ? from : done(d => `Adds(${d}, ${from}, 0.0f, ${n});`);
    const source = from;
    const gathered = (d: string): string => `tile_window<${own.join(', ')}>(${d}, ${source}, ${pitch});`;
    const cast = (d: string): string => `Cast(${d}, ${source}, RoundMode::CAST_NONE, ${n});`;
    const first = window ? gathered : r.tile.element === 'f32' ? null : cast;
    if (!spread) return done(first as (d: string) => string);
    if (first !== null) {
      // not given back before the result is taken: spreading does not work in place
      from = this.#take();
      this.lines.push(first(from));
      const d = to ?? this.#take();
      this.lines.push(`tile_spread<${shape.join(', ')}, ${own.join(', ')}>(${d}, ${from});`);
      return d;
    }
    return done(d => `tile_spread<${shape.join(', ')}, ${own.join(', ')}>(${d}, ${from});`);
  }
  #mask(m: Mask, shape: Shape): string {
    const name = `mask${this.#masks++}`;
    this.masks = Math.max(this.masks, this.#masks);
    const mark = this.#next;
    const n = rounded(count(shape));
    if (m.m === 'and' || m.m === 'or') {
      const a = this.#mask(m.a, shape);
      const b = this.#mask(m.b, shape);
      this.lines.push(`tile_${m.m}(${name}, ${a}, ${b}, ${n});`);
    } else {
      // what is compared is copied where it begins inside a tile: a compare reads whole 256-byte pieces
      const whole256 = (e: Expr): string => {
        const v = this.value(e, shape);
        if (!v.includes('[')) return v;
        const t = this.#take();
        this.lines.push(`Adds(${t}, ${v}, 0.0f, ${count(shape)});`);
        return t;
      };
      const a = whole256(m.a);
      const s = this.#scalar(m.b);
      const mode = { '<': 'LT', '<=': 'LE', '==': 'EQ' }[m.m];
      this.lines.push(
        s !== null
          ? `CompareScalar(${name}, ${a}, ${s}, CMPMODE::${mode}, ${n});`
          : `Compare(${name}, ${a}, ${whole256(m.b)}, CMPMODE::${mode}, ${n});`,
      );
    }
    this.#next = mark;
    return name;
  }
}

/** The matrix unit takes tiles and plain streams: an operand computed on the way is spelled out as load, map, contract. */
export function unstream(k: Kernel): Kernel {
  let made = 0;
  /** An expression with its chunks replaced; what has none is the same object, so tiles stay the tiles they are. */
  const put = (e: Expr, pieces: readonly Expr[]): Expr => {
    switch (e.e) {
      case 'chunk':
        return pieces[e.i] as Expr;
      case 'un':
        return { ...e, a: put(e.a, pieces) };
      case 'bin':
        return { ...e, a: put(e.a, pieces), b: put(e.b, pieces) };
      case 'select':
        return { ...e, then: put(e.then, pieces), else: put(e.else, pieces) };
      default:
        return e;
    }
  };
  const step = (v: View, by: ReturnType<typeof times>): View => ({
    ...v,
    at: v.at.map((x, d) => (d === v.at.length - 1 ? add(x, by) : x)),
  });
  const body = (stmts: readonly Stmt[]): Stmt[] =>
    stmts.flatMap((s): Stmt[] => {
      if (s.s === 'for') return [{ ...s, body: body(s.body) }];
      if (s.s !== 'contract' || s.a.from !== 'stream' || !s.a.value) return [s];
      const { views, value } = s.a;
      const id = made++;
      const rows = s.into.shape[0];
      const names = new Names();
      const sum = tile(`part${id}`, ...s.into.shape);
      const left = tile(`left${id}`, rows, s.depth);
      const pieces = views.map((v, i) => tile(`chunk${id}_${i}`, placeOf(v, names).rows === '1' ? 1 : rows, s.depth));
      const b = s.b;
      return [
        map(s.into, 0),
        loop(`k${id}`, { op: 'ceildiv', a: s.k, b: s.depth }, t => [
          ...views.map((v, i) => load(pieces[i] as (typeof pieces)[0], step(v, times(t, s.depth)))),
          map(
            left,
            put(
              value,
              pieces.map(p => ({ e: 'ref', ref: { tile: p } }) as Expr),
            ),
          ),
          contract(
            sum,
            held(left),
            b.from === 'stream' ? { ...b, views: [step(b.views[0], times(t, s.depth))] } : b,
            s.depth,
            s.depth,
            s.multiply,
          ),
          map(s.into, plus(s.into, sum)),
        ]),
      ];
    });
  return { ...k, body: body(k.body) };
}

/** A table of pointers lies in global memory as what they point to does. */
const inGlobal = (type: string): string => type.replace('*const *', '*__gm__ const *');

/** Floats that ReduceMax and ReduceSum work in for so many: two for each 64, to whole 32 bytes (API reference, ReduceMax: sharedTmpBuffer). */
const reduceWork = (columns: number): number => Math.max(64, Math.ceil((2 * Math.ceil(columns / 64)) / 8) * 8);
/** Floats' worth of an operand's rows as they are stored, where the header decodes them by the vector unit. */
function storedFloats(o: Operand, rows: number, depth: number): number {
  if (o.from !== 'stream') return 0;
  const { element } = o.views[0].param.storage;
  if (element === 'bf16') return depth % 16 === 0 ? (rows * depth) / 2 : 0;
  return element === 'i8' && depth % 32 === 0 ? (rows * depth * 3) / 4 : 0; // the codes, and as f16
}

export interface PrintedAscend {
  readonly text: string;
  /** Bytes of the unified buffer that the kernel takes: tiles, temporaries, masks, what contract stages. */
  readonly bytes: number;
}

/** A kernel in AscendC, with what it takes of the unified buffer. */
export function printAscend(source: Kernel): PrintedAscend {
  const k = unstream(source);
  const marks = placeBarriers(k, true);
  const names = new Names([
    ...printerLocals,
    'arena',
    'staged',
    'moved',
    ...['value', 'mask'].flatMap(w => Array.from({ length: 24 }, (_, i) => `${w}${i}`)),
  ]);
  for (const p of k.params) pointers(p, names);
  for (const n of k.sizes) names.of('int', n);
  let temporaries = 0;
  let masks = 0;
  let most = 0;
  let staged = 0;
  let reduced = 0;
  let stores = false;
  const vector = (shape: Shape, use: (v: Vector) => void): Code => {
    const v = new Vector(names);
    use(v);
    if (v.temporaries || v.masks) most = Math.max(most, rounded(count(shape)));
    temporaries = Math.max(temporaries, v.temporaries);
    masks = Math.max(masks, v.masks);
    return v.lines;
  };
  const at = (r: Ref): string => new Vector(names).at(r);
  const view = (v: View): string => {
    const p = placeOf(v, names);
    const s = v.param.storage;
    const blocks = s.kind === 'scaled' ? `, ${p.scale}, ${s.block[0]}, ${s.block[1] === 0 ? p.cols : s.block[1]}` : '';
    return `view_${kindOf(s)}{${p.data}, ${p.row}, ${p.rows}, ${p.col}, ${p.cols}, ${p.pitch}, ${v.index ? `index_of(${at(v.index)})` : 'no_index()'}${blocks}}`;
  };
  const operand = (o: Operand): string => {
    if (o.from === 'stream') return view(o.views[0]);
    return `${o.transposed ? 'columns_of' : 'rows_of'}(${at(o.ref)}, ${(o.ref.as ?? o.ref.tile.shape)[1]})`;
  };
  const plain = (s: Stmt): Code => {
    switch (s.s) {
      case 'load':
        return `tile_load${ragged(s.to) ? '_each' : ''}<${refShape(s.to).join(', ')}>(${at(s.to)}, ${(s.to.as ?? s.to.tile.shape)[1]}, ${view(s.from)}, ${float(s.from.pad ?? 0)});`;
      case 'store':
        stores = true;
        return `tile_store${ragged(s.from) ? '_each' : ''}<${refShape(s.from).join(', ')}>(${view(s.to)}, ${at(s.from)}, ${(s.from.as ?? s.from.tile.shape)[1]}, moved);`;
      case 'map':
        return vector(refShape(s.to), v => {
          const shape = refShape(s.to);
          const pitch = (s.to.as ?? s.to.tile.shape)[1];
          const whole_ = (shape[1] === pitch || shape[0] === 1) && !ragged(s.to);
          if (s.to.tile.element === 'f32' && whole_) v.value(s.value, shape, v.at(s.to));
          else {
            const from = v.value(s.value, shape);
            if (!whole_) v.lines.push(`tile_window_put<${shape.join(', ')}>(${v.at(s.to)}, ${pitch}, ${from});`);
            else
              v.lines.push(
                `Cast(${v.at(s.to)}, ${from}, RoundMode::${s.to.tile.element === 'i32' ? 'CAST_TRUNC' : 'CAST_RINT'}, ${count(shape)});`,
              );
          }
        });
      case 'reduce':
        return vector(s.over, v => {
          const from = v.value(s.value, s.over);
          const [rows, columns] = s.over;
          const whole32 = s.axis === 1 && (s.f === 'sum' || s.f === 'max') && columns % 8 === 0;
          if (whole32) reduced = Math.max(reduced, 8 * rows + reduceWork(columns));
          const more = whole32 ? ', reduced' : '';
          v.lines.push(`tile_${s.f}${s.axis === 0 ? '_down' : ''}<${s.over.join(', ')}>(${v.at(s.to)}, ${from}${more});`);
        });
      case 'contract': {
        const depth = Math.ceil(s.depth / 8) * 8;
        const [m, n] = s.into.shape;
        const raw = Math.max(storedFloats(s.a, m, s.depth), storedFloats(s.b, n, s.depth));
        staged = Math.max(staged, (m + n + 1) * depth + 8 * n + 64 + raw);
        return [
          `tile_contract<${s.into.shape.join(', ')}, ${s.depth}, ${s.multiply}>(${names.of('tile', s.into.name)}, ${whole(s.k, names)},`,
          { inside: [`${operand(s.a)},`, `${operand(s.b)}, staged);`] },
        ];
      }
      case 'topk':
        return `tile_topk(${names.of('tile', s.best.name)}, ${names.of('tile', s.index.name)}, ${s.best.shape[1]}, ${names.of('tile', s.from.name)}, ${s.from.shape[1]}, ${whole(s.base, names)});`;
      case 'scan':
        return `tile_scan(${names.of('tile', s.to.name)}, ${names.of('tile', s.from.name)}, ${s.from.shape[0]});`;
      case 'let':
        return `const int64_t ${names.of('int', s.name)} = ${whole(s.value, names)};`;
      case 'for': {
        const body = s.body.map(stmt);
        if (s.when) return block(`if (${whole(s.count, names)})`, body);
        const i = names.of('int', s.name);
        return block(`for (int64_t ${i} = 0; ${i} < ${whole(s.count, names)}; ${i}++)`, body);
      }
    }
  };
  const stmt = (s: Stmt): Code => (marks.has(s) ? ['PipeBarrier<PIPE_ALL>();', plain(s)] : plain(s));
  const tiles = tilesOf(k.body);
  const body = k.body.map(stmt);
  const args = [
    ...k.params.flatMap(p => pointers(p, names).map(([type, name]) => `__gm__ ${inGlobal(type)}${name}`)),
    ...k.sizes.map(n => `int64_t ${names.of('int', n)}`),
  ];
  const typeOf = (t: (typeof tiles)[0]): string => (t.element === 'bf16' ? 'bfloat16_t' : tileType(t));
  const piece = (bytes: number): number => Math.ceil(bytes / 32) * 32;
  const maskBytes = Math.max(32, most / 8);
  const bytes =
    tiles.reduce((n, t) => n + piece(rounded(count(t.shape)) * (t.element === 'bf16' ? 2 : 4)), 0) +
    temporaries * piece(most * 4) +
    masks * piece(maskBytes) +
    piece(staged * 4) +
    piece(reduced * 4) +
    (stores ? movedBytes : 0);
  const blocks = whole(product(k.grid.map(g => g.count)), names);
  const lines: Code = [
    'KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_AIV_ONLY);',
    `Arena arena(${bytes});`,
    ...tiles.map(t => `LocalTensor<${typeOf(t)}> ${names.of('tile', t.name)} = arena.take<${typeOf(t)}>(${rounded(count(t.shape))});`),
    ...Array.from({ length: temporaries }, (_, i) => `LocalTensor<float> value${i} = arena.take<float>(${most});`),
    ...Array.from({ length: masks }, (_, i) => `LocalTensor<uint8_t> mask${i} = arena.take<uint8_t>(${maskBytes});`),
    ...(staged ? [`LocalTensor<float> staged = arena.take<float>(${staged});`] : []),
    ...(reduced ? [`LocalTensor<float> reduced = arena.take<float>(${reduced});`] : []),
    ...(stores ? ['LocalTensor<uint8_t> moved = arena.take<uint8_t>(moved_bytes);'] : []),
    '// a fixed number of cores walks the grid',
    block(`for (int64_t block = GetBlockIdx(); block < ${blocks}; block += GetBlockNum())`, [
      ...axes(k, names, 'block').map(a => a.replace('const long', 'const int64_t')),
      ...(k.grid.length ? [k.grid.map(g => `(void)${names.of('int', g.name)};`).join(' ')] : []),
      body,
      'PipeBarrier<PIPE_ALL>();',
    ]),
  ];
  const printed = text(block(`extern "C" __global__ __aicore__ void ${k.name}(${args.join(', ')})`, lines)).replaceAll(
    '(long)',
    '(int64_t)',
  );
  return { text: `#include "hkgai_tile_ascend.h"\nusing namespace AscendC;\n\n${printed}`, bytes };
}
