// CUDA C++ and its relatives: a block's threads share its tiles. A dialect is a handful of words; what the verbs do is the header's
// (simt/header/hkgai_simt.h), checked in. Barriers stand where the walk of ir/tile-check.ts wants them and nowhere else.
import { type Kernel, type Operand, type Ref, refShape, type Shape, type Stmt, type View } from '../ir/tile.js';
import { type Marks, placeBarriers, tilesOf } from '../ir/tile-check.js';
import { block, type Code, float, Names, text } from './code.js';
import { element, kindOf, placeOf, pointers, printerLocals, product, read, tileType, whole, write } from './elements.js';

export interface Dialect {
  readonly include: string;
  /** Before a kernel's name. */
  readonly kernel: string;
  readonly shared: string;
  readonly barrier: string;
  readonly block: string;
}

const offsetOf = (r: Ref): number => (r.at?.[0] ?? 0) * (r.as ?? r.tile.shape)[1] + (r.at?.[1] ?? 0);
function viewOf(v: View, names: Names): string {
  const p = placeOf(v, names);
  const s = v.param.storage;
  const index = v.index ? `${names.of('tile', v.index.tile.name)}.data(${offsetOf(v.index)})` : '0';
  const blocks = s.kind === 'scaled' ? `, ${p.scale}, ${s.block[0]}, ${s.block[1] === 0 ? p.cols : s.block[1]}` : '';
  return `view_${kindOf(s)}{${p.data}, ${p.row}, ${p.rows}, ${p.col}, ${p.cols}, ${p.pitch}, ${index}${blocks}}`;
}
const each = ([rows, columns]: Shape, line: string): string => `tile_each<${rows}, ${columns}>([&](long row, long col) { ${line} });`;

function operand(o: Operand, names: Names, rows: number, depth: number): string {
  if (o.from === 'tile') {
    const [row, col] = o.transposed ? ['k', 'row'] : ['row', 'k'];
    return `tile_held([&](long row, long k) { return ${read(o.ref, refShape(o.ref), row, col, names)} + 0.0f; })`;
  }
  if (!o.value) return viewOf(o.views[0], names);
  const chunks = o.views.map(v => `${viewOf(v, names)}(${placeOf(v, names).rows === '1' ? '0' : 'row'}, k)`);
  return `[&](long row, long k) { return ${element(o.value, [rows, depth], 'row', 'k', names, chunks)}; }`;
}

function statement(s: Stmt, names: Names, d: Dialect, marks: Marks): Code {
  const plain = (): Code => {
    switch (s.s) {
      case 'load':
        return each(refShape(s.to), write(s.to, 'row', 'col', `${viewOf(s.from, names)}.at(row, col, ${float(s.from.pad ?? 0)})`, names));
      case 'store':
        return each(refShape(s.from), `${viewOf(s.to, names)}.put(row, col, ${read(s.from, refShape(s.from), 'row', 'col', names)});`);
      case 'map':
        return each(refShape(s.to), write(s.to, 'row', 'col', element(s.value, refShape(s.to), 'row', 'col', names), names));
      case 'reduce': {
        const down = s.axis === 0;
        const value = element(s.value, s.over, 'row', 'col', names);
        return [
          `tile_${s.f}${down ? '_down' : ''}<${s.over[0]}, ${s.over[1]}>([&](long row, long col) { return ${value} + 0.0f; },`,
          {
            inside: `[&](long ${down ? 'col' : 'row'}, ${s.f === 'argmax' ? 'long' : 'float'} value) { ${write(s.to, down ? '0' : 'row', down ? 'col' : '0', 'value', names)} });`,
          },
        ];
      }
      case 'contract': {
        const [m, n] = s.into.shape;
        return [
          `tile_contract<${m}, ${n}, ${s.depth}, ${s.multiply}>(${names.of('tile', s.into.name)}, ${whole(s.k, names)},`,
          { inside: [`${operand(s.a, names, m, s.depth)},`, `${operand(s.b, names, n, s.depth)});`] },
        ];
      }
      case 'topk':
        return `tile_topk(${names.of('tile', s.best.name)}, ${names.of('tile', s.index.name)}, ${s.best.shape[1]}, ${names.of('tile', s.from.name)}, ${s.from.shape[1]}, ${whole(s.base, names)});`;
      case 'scan':
        return `tile_scan(${names.of('tile', s.to.name)}, ${names.of('tile', s.from.name)}, ${s.from.shape[0]});`;
      case 'let':
        return `const long ${names.of('int', s.name)} = ${whole(s.value, names)};`;
      case 'for': {
        const body = s.body.map(t => statement(t, names, d, marks));
        if (s.when) return block(`if (${whole(s.count, names)})`, body);
        const i = names.of('int', s.name);
        return block(`for (long ${i} = 0; ${i} < ${whole(s.count, names)}; ${i}++)`, body);
      }
    }
  };
  return marks.has(s) ? [d.barrier, plain()] : plain();
}

/** A grid of any rank as one line of blocks. */
export function axes(k: Kernel, names: Names, blockWord: string): readonly string[] {
  return k.grid.map((g, i) => {
    const at = whole(product(k.grid.slice(i + 1).map(a => a.count)), names);
    const high = at === '1' ? blockWord : `${blockWord} / ${/^\w+$/.test(at) ? at : `(${at})`}`;
    return `const long ${names.of('int', g.name)} = ${i === 0 ? high : `${high.includes('/') ? `(${high})` : high} % ${whole(g.count, names)}`};`;
  });
}
export function kernelNames(k: Kernel): Names {
  const names = new Names(printerLocals);
  for (const p of k.params) pointers(p, names);
  for (const n of k.sizes) names.of('int', n);
  return names;
}

/** A kernel in a dialect. `marks` are given only by tests that leave one out. */
export const printSimt = (k: Kernel, d: Dialect, marks: Marks = placeBarriers(k)): string => `${d.include}\n\n${kernelSimt(k, d, marks)}`;

/** The kernel's function alone, for a file of many. */
export function kernelSimt(k: Kernel, d: Dialect, marks: Marks = placeBarriers(k)): string {
  const names = kernelNames(k);
  const args = [
    ...k.params.flatMap(p => pointers(p, names).map(([type, name]) => `${type}${name}`)),
    ...k.sizes.map(n => `long ${names.of('int', n)}`),
  ];
  const tiles = tilesOf(k.body).map(t => `${d.shared} tile<${tileType(t)}, ${t.shape[0] * t.shape[1]}> ${names.of('tile', t.name)};`);
  const grid = axes(k, names, 'block');
  return text(
    block(`${d.kernel} ${k.name}(${args.join(', ')})`, [
      `const long block = ${d.block};`,
      ...grid,
      `(void)block;${k.grid.map(g => ` (void)${names.of('int', g.name)};`).join('')}`,
      ...tiles,
      ...k.body.map(s => statement(s, names, d, marks)),
    ]),
  );
}

/** Rows up to which a contraction reads its weight straight from memory (tile_few of the header). */
const fewRows = 8;
/** Numbers of a row from which a warp takes it together (tile_long of the header). */
const longRow = 64;
/** Bytes of shared memory that a printed kernel declares: its tiles, and what contractions stage; those of one size share it. */
export function sharedBytes(k: Kernel): number {
  const tiles = tilesOf(k.body).reduce((n, t) => n + t.shape[0] * t.shape[1] * (t.element === 'bf16' ? 2 : 4), 0);
  const staged = new Set<number>();
  const walk = (body: readonly Stmt[]): void => {
    for (const s of body) {
      if (s.s === 'for') walk(s.body);
      if (s.s !== 'contract') continue;
      const [m, n] = s.into.shape;
      const [left, right] = [s.a.from === 'tile', s.b.from === 'tile']; // held already
      const few = m <= fewRows && s.b.from === 'stream' && !s.b.value;
      if (few) staged.add(m * s.depth + m * n);
      else if (left && right) staged.add(s.depth >= longRow ? m * n : 0);
      else staged.add(((left ? 0 : m) + (right ? 0 : n)) * s.depth);
    }
  };
  walk(k.body);
  return tiles + [...staged].reduce((n, size) => n + size * 4, 0);
}
