// The ops of ir/ops.ts in plain loops over doubles: what lowered programs are held against, op by op. Rows of a state are kept by position, so
// that capacities and rings play no part in the meaning.
import { type Dim, type Graph, sizeOf, type Value, type ValueOf } from '../ir/graph.js';
import type { OpName, RankOp } from '../ir/ops.js';
import { frequencies } from '../ir/rope.js';
import type { Storage } from '../ir/storage.js';
import type { Call } from './run-program.js';

type Numbers = ArrayLike<number>;
const { exp, log, sqrt, max, min, abs, floor } = Math;
const sigmoid = (x: number): number => 1 / (1 + exp(-x));
const sum = (a: readonly number[]): number => a.reduce((x, y) => x + y, 0);
const fill = (n: number, f: (i: number) => number): number[] => Array.from({ length: n }, (_, i) => f(i));
const low = -1e30;

/** One code as a number, by the words of ir/storage.ts. */
export function decode(element: string, bytes: Uint8Array, i: number): number {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const nibble = (): number => ((bytes[i >> 1] as number) >> (4 * (i & 1))) & 15;
  switch (element) {
    case 'f32':
      return view.getFloat32(4 * i, true);
    case 'bf16': {
      const f = new DataView(new ArrayBuffer(4));
      f.setUint16(0, view.getUint16(2 * i, true));
      return f.getFloat32(0);
    }
    case 'i64':
      return Number(view.getBigInt64(8 * i, true));
    case 'i32':
      return view.getInt32(4 * i, true);
    case 'i8':
      return view.getInt8(i);
    case 'i4':
      return nibble() - 8;
    case 'e8m0':
      return 2 ** ((bytes[i] as number) - 127);
    case 'f4e2m1':
      return ([0, 0.5, 1, 1.5, 2, 3, 4, 6][nibble() & 7] as number) * (nibble() & 8 ? -1 : 1);
    case 'f8e4m3': {
      const b = bytes[i] as number;
      const e = (b >> 3) & 15;
      return (e === 0 ? (b & 7) * 2 ** -9 : (1 + (b & 7) / 8) * 2 ** (e - 7)) * (b & 128 ? -1 : 1);
    }
    default:
      throw new Error(element);
  }
}
/** A matrix [rows, columns] as numbers. */
export function decodeMatrix(s: Storage, rows: number, columns: number, codes: Uint8Array, scales?: Uint8Array): number[] {
  if (s.kind === 'plain') return fill(rows * columns, i => decode(s.element, codes, i));
  const across = s.block[1] === 0 ? 1 : Math.ceil(columns / s.block[1]);
  return fill(rows * columns, i => {
    const [r, c] = [floor(i / columns), i % columns];
    return (
      decode(s.element, codes, i) *
      decode(s.scale, scales as Uint8Array, floor(r / s.block[0]) * across + (s.block[1] === 0 ? 0 : floor(c / s.block[1])))
    );
  });
}

const codesOf = {
  f8e4m3: fill(127, i => decode('f8e4m3', Uint8Array.of(i), 0)),
  f4e2m1: [0, 0.5, 1, 1.5, 2, 3, 4, 6],
};
/** The nearest code; of two as near, the one with an even last bit. */
function nearest(x: number, codes: readonly number[]): number {
  let best = 0;
  codes.forEach((c, i) => {
    const [d, e] = [abs(abs(x) - c), abs(abs(x) - (codes[best] as number))];
    if (d < e || (d === e && i % 2 === 0)) best = i;
  });
  return Math.sign(x) * (codes[best] as number);
}

export class Meaning {
  readonly #graph: Graph;
  readonly #weight: (w: ValueOf<'weight'>) => Numbers;
  readonly #states = new Map<string, Map<string, number[]>>();
  #memo = new Map<Value, Numbers>();
  #call: Call = { inputs: {} };

  constructor(graph: Graph, weight: (w: ValueOf<'weight'>) => Numbers) {
    this.#graph = graph;
    this.#weight = weight;
  }
  /** The values of every value of the graph for the next call. */
  call(call: Call): (name: string) => Numbers {
    this.#call = call;
    this.#memo = new Map();
    for (const v of this.#graph.values)
      if (v.op !== 'state') this.#memo.set(v, (definitions[v.op as Exclude<OpName, RankOp>] as (v: Value, m: Meaning) => Numbers)(v, this));
    return name => this.#memo.get(this.#graph.values.find(v => v.name === name) as Value) as Numbers;
  }
  of(v: Value): Numbers {
    return this.#memo.get(v) as Numbers;
  }
  input(which: keyof Call['inputs']): Numbers {
    return this.#call.inputs[which] as Numbers;
  }
  weight(w: ValueOf<'weight'>): Numbers {
    return this.#weight(w);
  }
  size(d: Dim): number {
    return sizeOf(d, {
      ...this.#graph.limits,
      tokens: this.#call.inputs.positions?.length ?? 0,
      wanted: this.#call.inputs.wanted?.length ?? 0,
    });
  }
  width(v: Value): number {
    return this.size(v.type.shape[v.type.shape.length - 1] as Dim);
  }
  rows(v: Value): number {
    return this.of(v).length / this.width(v);
  }
  row(v: Value, t: number): number[] {
    const w = this.width(v);
    return fill(w, c => this.of(v)[t * w + c] as number);
  }
  /** Row by row. */
  each(x: Value, f: (row: number[], t: number) => readonly number[]): number[] {
    return fill(this.rows(x), t => t).flatMap(t => f(this.row(x, t), t));
  }
  stateRows(v: Value): Map<string, number[]> {
    if (v.op === 'append') return this.stateRows(v.inputs.state);
    const known = this.#states.get(v.name) ?? new Map<string, number[]>();
    this.#states.set(v.name, known);
    return known;
  }
  entry(state: Value, sequence: number, place: number): number[] {
    const row = this.stateRows(state).get(`${sequence} ${place}`);
    if (!row) throw new Error(`${state.name} has no ${place} of ${sequence}`);
    return row;
  }
}

const dot = (a: Numbers, ai: number, b: Numbers, bi: number, n: number): number => {
  let s = 0;
  for (let i = 0; i < n; i++) s += (a[ai + i] as number) * (b[bi + i] as number);
  return s;
};
const groups = (row: readonly number[], n: number): number[][] =>
  fill(n, i => i).map(i => row.slice((i * row.length) / n, ((i + 1) * row.length) / n));
const softmax = (s: readonly number[], sink?: number): number[] => {
  const top = max(...s, ...(sink === undefined ? [] : [sink]));
  const all = sum(s.map(x => exp(x - top))) + (sink === undefined ? 0 : exp(sink - top));
  return s.map(x => exp(x - top) / all);
};
const swiglu = (g: number, u: number, limit: number | null): number => {
  const [gate, up] = limit === null ? [g, u] : [min(g, limit), max(-limit, min(u, limit))];
  return gate * sigmoid(gate) * up;
};
/** Larger first, then the lower index. */
const best = (s: readonly number[], k: number): number[] =>
  s
    .map((x, i) => [x, i] as const)
    .sort((a, b) => b[0] - a[0] || a[1] - b[1])
    .slice(0, k)
    .map(([, i]) => i);

const definitions: { readonly [K in Exclude<OpName, RankOp>]: (v: ValueOf<K>, m: Meaning) => Numbers } = {
  input: (v, m) => m.input(v.attributes.which) ?? [],
  weight: (v, m) => m.weight(v),
  state: () => [],
  gather: ({ inputs: { table, ids } }, m) => Array.from(m.of(ids)).flatMap(i => m.row(table, i)),
  slice: ({ inputs: { x }, attributes: { from, size, heads = 1 } }, m) =>
    m.each(x, r => groups(r, heads).flatMap(h => h.slice(from, from + size))),
  concat: ({ inputs: { a, b }, attributes: { heads } }, m) =>
    m.each(a, (r, t) => {
      const right = groups(m.row(b, t), heads);
      return groups(r, heads).flatMap((h, i) => [...h, ...(right[i] as number[])]);
    }),
  add: ({ inputs: { a, b } }, m) => Array.from(m.of(a), (x, i) => x + (m.of(b)[i] as number)),
  scale: ({ inputs: { x }, attributes: { by } }, m) => Array.from(m.of(x), y => y * by),
  append({ inputs: { state, rows, positions, sequences }, attributes: { every } }, m) {
    Array.from(m.of(positions)).forEach((p, t) => {
      if ((p + 1) % every === 0) m.stateRows(state).set(`${m.of(sequences)[t]} ${floor(p / every)}`, m.row(rows, t));
    });
    return [];
  },
  rms_norm: ({ inputs: { x, weight }, attributes: { eps, width } }, m) =>
    m.each(x, r =>
      groups(r, r.length / width).flatMap(g => {
        const by = 1 / sqrt(sum(g.map(y => y * y)) / width + eps);
        return g.map((y, i) => y * by * (weight ? (m.of(weight)[i] as number) : 1));
      }),
    ),
  layer_norm: ({ inputs: { x, weight, bias }, attributes: { eps } }, m) =>
    m.each(x, r => {
      const mean = sum(r) / r.length;
      const by = 1 / sqrt(sum(r.map(y => (y - mean) ** 2)) / r.length + eps);
      return r.map((y, i) => (y - mean) * by * (m.of(weight)[i] as number) + (m.of(bias)[i] as number));
    }),
  rope: ({ inputs: { x, positions }, attributes: a }, m) =>
    m.each(x, (r, t) => {
      const p = floor((m.of(positions)[t] as number) / a.stride) * a.stride;
      const by = a.table.scaling.kind === 'yarn' ? a.table.scaling.magnitude : 1;
      const half = a.table.dims / 2;
      return groups(r, a.heads).flatMap(h => {
        const out = [...h];
        frequencies(a.table).forEach((f, j) => {
          const angle = Math.fround(p * f) * (a.inverse ? -1 : 1);
          const [i, k] = a.layout === 'half' ? [a.offset + j, a.offset + j + half] : [a.offset + 2 * j, a.offset + 2 * j + 1];
          const [y, z] = [h[i] as number, h[k] as number];
          out[i] = (y * Math.cos(angle) - z * Math.sin(angle)) * by;
          out[k] = (z * Math.cos(angle) + y * Math.sin(angle)) * by;
        });
        return out;
      });
    }),
  hadamard: ({ inputs: { x }, attributes: { width } }, m) => {
    const ones = (n: number): number => (n === 0 ? 0 : (n & 1) + ones(n >> 1));
    return m.each(x, r =>
      groups(r, r.length / width).flatMap(g => g.map((_, i) => sum(g.map((y, j) => (ones(i & j) % 2 ? -y : y))) / sqrt(width))),
    );
  },
  fake_quant: ({ inputs: { x }, attributes: a }, m) =>
    m.each(x, r =>
      groups(r, a.heads).flatMap(h => {
        const out = [...h];
        const codes = codesOf[a.element];
        for (let at = a.offset; at < a.offset + a.size; at += a.block) {
          const block = h.slice(at, at + a.block);
          const exact = Math.fround(max(...block.map(abs), Math.fround(a.least)) / (codes[codes.length - 1] as number));
          let s = exact;
          if (a.scale === 'e8m0') for (s = 2 ** -130; s < exact; ) s *= 2;
          block.forEach((y, i) => {
            out[at + i] = nearest(Math.fround(y / s), codes) * s;
          });
        }
        return out;
      }),
    ),
  linear: ({ inputs: { x, weight, bias } }, m) =>
    m.each(x, r => fill(m.rows(weight), o => dot(r, 0, m.of(weight), o * r.length, r.length) + (bias ? (m.of(bias)[o] as number) : 0))),
  grouped_linear: ({ inputs: { x, weight }, attributes: a }, m) =>
    m.each(x, r =>
      groups(r, a.groups).flatMap((g, i) => {
        const w = fill(a.size, o => i * a.stride + a.from + o).map(o => m.row(weight, o));
        return a.transposed
          ? fill(m.width(weight), c => sum(g.map((y, o) => y * ((w[o] as number[])[c] as number))))
          : w.map(row => dot(row, 0, g, 0, row.length));
      }),
    ),
  swiglu: ({ inputs: { gate, up }, attributes: { limit } }, m) => Array.from(m.of(gate), (g, i) => swiglu(g, m.of(up)[i] as number, limit)),
  mla: ({ inputs: i, attributes: a }, m) =>
    m.each(i.q, (r, t) => {
      const [p, s] = [m.of(i.positions)[t] as number, m.of(i.sequences)[t] as number];
      const seen = i.selected ? m.row(i.selected, t).filter(e => e >= 0) : fill(p + 1, e => e);
      return groups(r, a.heads).flatMap((q, h) => {
        const from = h * (a.nope + a.v);
        const rows = seen.map(e => m.entry(i.state, s, e));
        const latent = m.width(i.kv_b);
        const scores = rows.map(c => {
          const key = [...fill(a.nope, o => dot(m.row(i.kv_b, from + o), 0, c, 0, latent)), ...c.slice(latent)];
          return dot(q, 0, key, 0, a.nope + a.rope) * a.scale;
        });
        const weights = softmax(scores);
        return fill(a.v, o => sum(rows.map((c, e) => (weights[e] as number) * dot(m.row(i.kv_b, from + a.nope + o), 0, c, 0, latent))));
      });
    }),
  attention: ({ inputs: i, attributes: a }, m) =>
    m.each(i.q, (r, t) => {
      const [p, s] = [m.of(i.positions)[t] as number, m.of(i.sequences)[t] as number];
      const list = i.selected ? m.row(i.selected, t).filter(e => e >= 0) : null;
      const near = fill(p + 1, e => e).filter(e => a.window === null || e > p - a.window);
      const far = i.compressed ? (list ?? fill(floor((p + 1) / a.ratio), e => e)) : [];
      const rows = [
        ...(list && !i.compressed ? list : near).map(e => m.entry(i.state, s, e)),
        ...far.map(e => m.entry(i.compressed as Value, s, e)),
      ];
      return groups(r, a.heads).flatMap((q, h) => {
        const kv = floor((h * a.kvHeads) / a.heads);
        const scores = rows.map(row => dot(q, 0, row, a.keyOffset + kv * a.width, a.width) * a.scale);
        const weights = softmax(scores, i.sink ? (m.of(i.sink)[h] as number) : undefined);
        return fill(a.valueWidth, c =>
          sum(rows.map((row, e) => (weights[e] as number) * (row[a.valueOffset + kv * a.valueWidth + c] as number))),
        );
      });
    }),
  compress: ({ inputs: i, attributes: { ratio, overlap, width } }, m) =>
    Array.from(m.of(i.positions)).flatMap((p, t) => {
      if ((p + 1) % ratio !== 0) return fill(width, () => 0);
      const s = m.of(i.sequences)[t] as number;
      const c = overlap ? 2 : 1;
      const place = (at: number): number[] => m.row(i.ape, at % ratio);
      const slots = [
        ...(overlap
          ? fill(ratio, r => p + 1 - 2 * ratio + r)
              .filter(at => at >= 0)
              .map(at => ({ at, from: 0 }))
          : []),
        ...fill(ratio, r => p + 1 - ratio + r).map(at => ({ at, from: overlap ? width : 0 })),
      ];
      return fill(width, col => {
        const weights = softmax(
          slots.map(({ at, from }) => (m.entry(i.state, s, at)[c * width + from + col] as number) + (place(at)[from + col] as number)),
        );
        return sum(slots.map(({ at, from }, n) => (weights[n] as number) * (m.entry(i.state, s, at)[from + col] as number)));
      });
    }),
  index_scores: (v, m) => {
    const { q, weights, state, positions, sequences } = v.inputs;
    const { heads, width, ratio } = v.attributes;
    return m.each(q, (r, t) => {
      const [p, s] = [m.of(positions)[t] as number, m.of(sequences)[t] as number];
      return fill(m.width(v), e =>
        e >= floor((p + 1) / ratio)
          ? low
          : sum(groups(r, heads).map((h, i) => max(0, dot(h, 0, m.entry(state, s, e), 0, width)) * (m.row(weights, t)[i] as number))),
      );
    });
  },
  top_indices: ({ inputs: { scores }, attributes: { k } }, m) =>
    m.each(scores, r => {
      const chosen = best(r, k).map(i => ((r[i] as number) > low ? i : -1));
      return fill(k, i => chosen[i] ?? -1);
    }),
  router_scores: ({ inputs: { logits }, attributes: { f } }, m) =>
    m.each(logits, r => (f === 'softmax' ? softmax(r) : r.map(x => (f === 'sigmoid' ? sigmoid(x) : sqrt(log(1 + exp(x))))))),
  choose_experts: ({ inputs: { scores, bias }, attributes: a }, m) =>
    m.each(scores, r => {
      const s = r.map((x, i) => Math.fround(x + (bias ? (m.of(bias)[i] as number) : 0)));
      const g = groups(s, a.groups);
      const worth = g.map(x => (a.by === 'max' ? max(...x) : Math.fround(sum([...x].sort((y, z) => z - y).slice(0, 2)))));
      const stays = new Set(a.groups > 1 ? best(worth, a.keep) : [0]);
      return best(
        g.flatMap((x, i) => x.map(y => (stays.has(i) ? y : low))),
        a.k,
      );
    }),
  expert_weights: ({ inputs: { scores, indices }, attributes: { normalise, scale } }, m) =>
    m.each(indices, (r, t) => {
      const w = r.map(e => m.row(scores, t)[e] as number);
      return w.map(x => (normalise ? x / (sum(w) + 1e-20) : x) * scale);
    }),
  experts: ({ inputs: i, attributes: { limit, weigh } }, m) =>
    m.each(i.x, (r, t) => {
      const [inner, width] = [m.size(i.gate.type.shape[1] as Dim), r.length];
      const all = fill(width, () => 0);
      m.row(i.indices, t).forEach((e, place) => {
        const w = m.row(i.weights, t)[place] as number;
        const act = fill(inner, o => {
          const at = (e * inner + o) * width;
          return swiglu(dot(m.of(i.gate), at, r, 0, width), dot(m.of(i.up), at, r, 0, width), limit) * (weigh === 'before' ? w : 1);
        });
        for (let o = 0; o < width; o++)
          all[o] = (all[o] as number) + dot(m.of(i.down), (e * width + o) * inner, act, 0, inner) * (weigh === 'after' ? w : 1);
      });
      return all;
    }),
  hc_expand: ({ inputs: { x }, attributes: { streams } }, m) => m.each(x, r => fill(streams, i => i).flatMap(() => r)),
  hc_mix: ({ inputs: { x, weight }, attributes: { eps } }, m) =>
    m.each(x, r => {
      const by = 1 / sqrt(sum(r.map(y => y * y)) / r.length + eps);
      return fill(m.rows(weight), o => dot(r, 0, m.of(weight), o * r.length, r.length) * by);
    }),
  hc_split: ({ inputs: { mix, scale, base }, attributes: { streams: n, iterations, eps } }, m) =>
    m.each(mix, r => {
      const y = (i: number, s: number): number => (r[i] as number) * (m.of(scale)[s] as number) + (m.of(base)[i] as number);
      const pre = fill(n, i => sigmoid(y(i, 0)) + eps);
      const post = fill(n, i => 2 * sigmoid(y(n + i, 1)));
      let c = fill(n, i => i).map(i => softmax(fill(n, j => y(2 * n + i * n + j, 2))).map(x => x + eps));
      const columns = (): void => {
        const all = fill(n, j => sum(c.map(row => row[j] as number)) + eps);
        c = c.map(row => row.map((x, j) => x / (all[j] as number)));
      };
      columns();
      for (let i = 1; i < iterations; i++) {
        c = c.map(row => row.map(x => x / (sum(row) + eps)));
        columns();
      }
      return [...pre, ...post, ...c.flat()];
    }),
  hc_gate: ({ inputs: { mix, scale, base }, attributes: { eps } }, m) =>
    m.each(mix, r => r.map((x, i) => sigmoid(x * (m.of(scale)[0] as number) + (m.of(base)[i] as number)) + eps)),
  hc_pre: ({ inputs: { x, weights }, attributes: { streams } }, m) =>
    m.each(x, (r, t) => {
      const parts = groups(r, streams);
      return fill(r.length / streams, c => sum(parts.map((p, i) => (m.row(weights, t)[i] as number) * (p[c] as number))));
    }),
  hc_post: ({ inputs: { x, weights, y }, attributes: { streams: n } }, m) =>
    m.each(x, (r, t) => {
      const w = m.row(weights, t);
      const parts = groups(r, n);
      return fill(n, k => k).flatMap(k =>
        m.row(y, t).map((z, c) => (w[n + k] as number) * z + sum(parts.map((p, j) => (w[2 * n + j * n + k] as number) * (p[c] as number)))),
      );
    }),
};
