// Tile kernels in C17. A kernel becomes a function over a range of its linear blocks, so that threads take ranges:
//
//   void name(pointers ..., long sizes ..., long from, long to)
//
// Tiles are arrays on the stack, map and reduce plain loops that the compiler vectorises, and the verbs are the header's (header/hkgai_tile.h):
//
//   tile_load_<element>_<kind>(to, pitch, rows, columns, view, pad)      a window of a tile := a view, decoded; pad outside
//   tile_store_<kind>_<element>(view, from, pitch, rows, columns)        the part inside; dropped outside
//   tile_contract_<kind>(into, m, n, k, a, b)                            into[m][n] += sum over k of a[m][k] * b[n][k], f32; rows outside are zero
//   tile_contract_held(into, m, n, k, a, b), _heldt                      the same with b a tile; heldt: b is [k][n]
//   tile_topk(best, index, count, from, n, base), tile_scan(to, from, n)
//
// A view is a struct of pointer, scales, row, rows, col, cols, pitch, block, index (targets/elements.ts, placeOf). A held operand a is a view of a tile.
import { type Kernel, type Operand, type Ref, refShape, type Shape, type Stmt, type View } from '../../ir/tile.js';
import { tilesOf } from '../../ir/tile-check.js';
import { block, type Code, float, Names, text } from '../code.js';
import { element, kindOf, placeOf, pointers, printerLocals, product, tileType, whole, write } from '../elements.js';

const over = ([rows, columns]: Shape, body: Code): Code =>
  rows === 1 && columns === 1
    ? block('', ['const long row = 0, col = 0;', '(void)row, (void)col;', body])
    : rows === 1
      ? block('', ['const long row = 0;', '(void)row;', block(`for (long col = 0; col < ${columns}; col++)`, body)])
      : columns === 1
        ? block('', ['const long col = 0;', '(void)col;', block(`for (long row = 0; row < ${rows}; row++)`, body)])
        : block(`for (long row = 0; row < ${rows}; row++)`, block(`for (long col = 0; col < ${columns}; col++)`, body));

/** A window of a tile: pointer to its first element, and the elements from row to row. */
function windowOf(r: Ref, names: Names): { readonly pointer: string; readonly pitch: number } {
  const width = (r.as ?? r.tile.shape)[1];
  const offset = (r.at?.[0] ?? 0) * width + (r.at?.[1] ?? 0);
  const name = names.of('tile', r.tile.name);
  return { pointer: offset === 0 ? name : `${name} + ${offset}`, pitch: width };
}
/** Fields in the order of the header's structs. */
function viewOf(v: View, names: Names, column = ''): string {
  const p = placeOf(v, names);
  const s = v.param.storage;
  const col = column === '' ? p.col : p.col === '0' ? column : `${p.col} + ${column}`;
  const blocks = s.kind === 'scaled' ? `, ${p.scale}, ${s.block[0]}, ${s.block[1] === 0 ? p.cols : s.block[1]}` : '';
  const index = v.index ? windowOf(v.index, names).pointer : '0';
  return `(view_${kindOf(s)}){${p.data}, ${p.row}, ${p.rows}, ${col}, ${p.cols}, ${p.pitch}, ${index}${blocks}}`;
}
function printLoad(s: Extract<Stmt, { s: 'load' }>, names: Names): Code {
  const { pointer, pitch } = windowOf(s.to, names);
  const [rows, columns] = refShape(s.to);
  return `tile_load_${s.to.tile.element}_${kindOf(s.from.param.storage)}(${pointer}, ${pitch}, ${rows}, ${columns}, ${viewOf(s.from, names)}, ${float(s.from.pad ?? 0)});`;
}
function printStore(s: Extract<Stmt, { s: 'store' }>, names: Names): Code {
  const { pointer, pitch } = windowOf(s.from, names);
  const [rows, columns] = refShape(s.from);
  return `tile_store_${kindOf(s.to.param.storage)}_${s.from.tile.element}(${viewOf(s.to, names)}, ${pointer}, ${pitch}, ${rows}, ${columns});`;
}

function printReduce(s: Extract<Stmt, { s: 'reduce' }>, names: Names): Code {
  const [rows, columns] = s.over;
  const down = s.axis === 0;
  const value = element(s.value, s.over, 'row', 'col', names);
  const [outer, inner, outerCount, innerCount] = down ? ['col', 'row', columns, rows] : ['row', 'col', rows, columns];
  const put = (v: string): string => write(s.to, down ? '0' : 'row', down ? 'col' : '0', v, names);
  const loop = `for (long ${inner} = 0; ${inner} < ${innerCount}; ${inner}++)`;
  if (s.f === 'argmax')
    return block(`for (long ${outer} = 0; ${outer} < ${outerCount}; ${outer}++)`, [
      'float best = -INFINITY;',
      'long where = 0;',
      block(loop, [`const float value = ${value};`, 'if (value > best) { best = value; where = ' + inner + '; }']),
      put('where'),
    ]);
  const start = s.f === 'sum' ? '0.0f' : s.f === 'max' ? '-INFINITY' : 'INFINITY';
  const step = s.f === 'sum' ? `best += ${value};` : `best = tile_f${s.f}(best, ${value});`;
  return block(`for (long ${outer} = 0; ${outer} < ${outerCount}; ${outer}++)`, [
    `float best = ${start};`,
    ...(innerCount >= 8 ? [`#pragma omp simd reduction(${s.f === 'sum' ? '+' : s.f}:best)`] : []),
    block(loop, step),
    put('best'),
  ]);
}

/** The left operand as a view of f32 or bf16 rows. */
function leftOperand(o: Operand, names: Names): string {
  if (o.from === 'stream') return viewOf(o.views[0], names);
  if (o.transposed) throw new Error('the left operand of a contraction is [row, k]');
  const { pointer, pitch } = windowOf(o.ref, names);
  const [rows, columns] = refShape(o.ref);
  return `(view_${o.ref.tile.element}){${pointer}, 0, ${rows}, 0, ${columns}, ${pitch}, 0}`;
}
function printContract(s: Extract<Stmt, { s: 'contract' }>, names: Names): Code {
  const [m, n] = s.into.shape;
  const into = names.of('tile', s.into.name);
  const k = whole(s.k, names);
  const zero = `tile_zero(${into}, ${m * n});`;
  const right = (o: Operand): readonly [verb: string, arg: string] => {
    if (o.from === 'stream') return [kindOf(o.views[0].param.storage), viewOf(o.views[0], names)];
    const { pointer, pitch } = windowOf(o.ref, names);
    const [rows, columns] = refShape(o.ref);
    const arg = `(view_${o.ref.tile.element}){${pointer}, 0, ${rows}, 0, ${columns}, ${pitch}, 0}`;
    return [o.transposed ? `heldt_${o.ref.tile.element}` : o.ref.tile.element, arg];
  };
  const kindLeft = s.a.from === 'stream' ? kindOf(s.a.views[0].param.storage) : s.a.ref.tile.element;
  const round = s.multiply === 'f32' ? '' : `_x${s.multiply}`;
  if ((s.a.from === 'tile' || !s.a.value) && (s.b.from === 'tile' || !s.b.value)) {
    const [verb, arg] = right(s.b);
    return [
      zero,
      `tile_contract_${verb}${kindLeft === 'f32' ? '' : `_${kindLeft}`}${round}(${into}, ${m}, ${n}, ${k},`,
      { inside: [`${leftOperand(s.a, names)},`, `${arg});`] },
    ];
  }
  // a prologue: the operand is computed piece by piece, then multiplied
  if (s.b.from === 'stream' && s.b.value) throw new Error('a prologue on the right operand is spelled out by a pass');
  if (s.a.from !== 'stream' || !s.a.value) throw new Error('unreachable');
  const a = s.a;
  const chunks = a.views.map(
    v => `tile_at_${kindOf(v.param.storage)}(${viewOf(v, names)}, ${placeOf(v, names).rows === '1' ? '0' : 'row'}, k + col)`,
  );
  const b = s.b.from === 'stream' ? ([kindOf(s.b.views[0].param.storage), viewOf(s.b.views[0], names, 'k')] as const) : null;
  if (b === null) throw new Error('a prologue meets a streamed weight');
  return [
    zero,
    block(`for (long k = 0; k < ${k}; k += ${s.depth})`, [
      `const long deep = tile_min(${s.depth}, ${k} - k);`,
      `float left[${m * s.depth}];`,
      block(
        `for (long row = 0; row < ${m}; row++)`,
        block(
          'for (long col = 0; col < deep; col++)',
          `left[row * ${s.depth} + col] = ${element(a.value as NonNullable<typeof a.value>, [m, s.depth], 'row', 'col', names, chunks)};`,
        ),
      ),
      `tile_contract_${b[0]}${round}(${into}, ${m}, ${n}, deep, (view_f32){left, 0, ${m}, 0, deep, ${s.depth}, 0}, ${b[1]});`,
    ]),
  ];
}

function statement(s: Stmt, names: Names): Code {
  switch (s.s) {
    case 'load':
      return printLoad(s, names);
    case 'store':
      return printStore(s, names);
    case 'map':
      return over(refShape(s.to), write(s.to, 'row', 'col', element(s.value, refShape(s.to), 'row', 'col', names), names));
    case 'reduce':
      return printReduce(s, names);
    case 'contract':
      return printContract(s, names);
    case 'topk':
      return `tile_topk(${names.of('tile', s.best.name)}, ${names.of('tile', s.index.name)}, ${s.best.shape[1]}, ${names.of('tile', s.from.name)}, ${s.from.shape[1]}, ${whole(s.base, names)});`;
    case 'scan':
      return `tile_scan(${names.of('tile', s.to.name)}, ${names.of('tile', s.from.name)}, ${s.from.shape[0]});`;
    case 'let':
      return `const long ${names.of('int', s.name)} = ${whole(s.value, names)};`;
    case 'for': {
      const body = s.body.map(t => statement(t, names));
      if (s.when) return block(`if (${whole(s.count, names)})`, body);
      const i = names.of('int', s.name);
      return block(`for (long ${i} = 0; ${i} < ${whole(s.count, names)}; ${i}++)`, body);
    }
  }
}

/** The C prototype of a kernel, without a semicolon. */
export function prototypeC(k: Kernel, names: Names = kernelNames(k)): string {
  const args = [
    ...k.params.flatMap(p => pointers(p, names).map(([type, name]) => `${type}${type.endsWith('*const *') ? '' : 'restrict '}${name}`)),
    ...k.sizes.map(n => `long ${names.of('int', n)}`),
    'long from',
    'long to',
  ];
  return `void ${k.name}(${args.join(', ')})`;
}
/** Parameters first, so that they keep their names. */
function kernelNames(k: Kernel): Names {
  const names = new Names(printerLocals);
  for (const p of k.params) pointers(p, names);
  for (const n of k.sizes) names.of('int', n);
  return names;
}

/** A kernel as a C function. */
export function printC(k: Kernel): string {
  const names = kernelNames(k);
  const prototype = prototypeC(k, names);
  const axes = k.grid.map((g, i) => {
    const after = product(k.grid.slice(i + 1).map(a => a.count));
    const at = whole(after, names);
    const high = at === '1' ? 'block' : `block / ${/^\w+$/.test(at) ? at : `(${at})`}`;
    return `const long ${names.of('int', g.name)} = ${i === 0 ? high : `${high.includes('/') ? `(${high})` : high} % ${whole(g.count, names)}`};`;
  });
  const used = k.grid.map(g => `(void)${names.of('int', g.name)};`);
  const tiles = tilesOf(k.body).map(t => `_Alignas(64) ${tileType(t)} ${names.of('tile', t.name)}[${t.shape[0] * t.shape[1]}];`);
  return text(
    block(
      prototype,
      block('for (long block = from; block < to; block++)', [
        ...axes,
        ...(used.length ? [used.join(' ')] : []),
        ...tiles,
        ...k.body.map(s => statement(s, names)),
      ]),
    ),
  );
}
export { blocksC } from '../host-program.js';
