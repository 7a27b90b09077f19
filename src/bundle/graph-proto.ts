// The graph as protocol buffers (ir/bundle.proto): the same graph as the text form, for programs in other languages.
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import protobuf from 'protobufjs';
import type { Dim, Graph, Origin, Part, Span, Type, Value } from '../../ir/graph.js';
import { inputsOf } from '../../ir/graph.js';
import { type Problem, problem, Refusal } from '../../ir/problem.js';
import { parseStorage, storageName } from '../../ir/storage.js';

const notGraph = (what: string): Problem =>
  problem('HK3711', `this is no graph in protocol buffers: ${what}`, { next: 'Write it again with this version of hkgai.' });

let message: protobuf.Type | null = null;
function graphType(): protobuf.Type {
  message ??= protobuf
    .parse(readFileSync(fileURLToPath(new URL('../../ir/bundle.proto', import.meta.url)), 'utf8'), { keepCase: true })
    .root.lookupType('hkgai.Graph');
  return message;
}

interface DimMessage {
  readonly number?: number;
  readonly symbol?: string;
  readonly op?: { readonly op: string; readonly a: DimMessage; readonly b: DimMessage };
}
interface SpanMessage {
  readonly tensor: string;
  readonly file: string;
  readonly from: number;
  readonly to: number;
}
interface ValueMessage {
  readonly name: string;
  readonly op: string;
  readonly inputs: readonly { readonly name: string; readonly value: number }[];
  readonly attributes: string;
  readonly shape: readonly DimMessage[];
  readonly storage: string;
  readonly origin: {
    readonly role: string;
    readonly layer: number;
    readonly parts: readonly { readonly codes: SpanMessage; readonly scale?: SpanMessage | null }[];
    readonly passes: readonly string[];
    readonly slice?: { readonly of: readonly number[]; readonly from: readonly number[] } | null;
  };
}
interface GraphMessage {
  readonly name: string;
  readonly limits: Graph['limits'];
  readonly values: readonly ValueMessage[];
  readonly outputs: readonly { readonly name: string; readonly value: number }[];
  readonly rank?: { readonly index: number; readonly of: number } | null;
}

const dimOut = (d: Dim): DimMessage =>
  typeof d === 'number' ? { number: d } : 'symbol' in d ? { symbol: d.symbol } : { op: { op: d.op, a: dimOut(d.a), b: dimOut(d.b) } };
const spanOut = (s: Span): SpanMessage => ({ tensor: s.tensor, file: s.file, from: s.bytes[0], to: s.bytes[1] });

/** The bytes of a graph. */
export function encodeGraph(graph: Graph): Uint8Array {
  const place = new Map(graph.values.map((v, i) => [v, i]));
  const out: GraphMessage = {
    name: graph.name,
    limits: graph.limits,
    values: graph.values.map(v => ({
      name: v.name,
      op: v.op,
      inputs: inputsOf(v).map(([name, i]) => ({ name, value: place.get(i) as number })),
      attributes: JSON.stringify(v.attributes),
      shape: v.type.shape.map(dimOut),
      storage: storageName(v.type.storage),
      origin: {
        role: v.origin.role,
        layer: v.origin.layer,
        parts: v.origin.parts.map(p => (p.scale ? { codes: spanOut(p), scale: spanOut(p.scale) } : { codes: spanOut(p) })),
        passes: v.origin.passes,
        ...(v.origin.slice ? { slice: v.origin.slice } : {}),
      },
    })),
    outputs: Object.entries(graph.outputs).map(([name, v]) => ({ name, value: place.get(v) as number })),
    ...(graph.rank ? { rank: graph.rank } : {}),
  };
  const type = graphType();
  return type.encode(type.fromObject(out)).finish();
}

function dimIn(d: DimMessage): Dim {
  if (d.op !== undefined) return { op: d.op.op, a: dimIn(d.op.a), b: dimIn(d.op.b) } as Dim;
  if (d.symbol !== undefined) return { symbol: d.symbol } as Dim;
  return d.number ?? 0;
}
const spanIn = (s: SpanMessage): Span => ({ tensor: s.tensor, file: s.file, bytes: [s.from, s.to] });

/** The graph of some bytes. Throws a Refusal where they are none; what the graph means is ir/verify.ts's to check. */
export function decodeGraph(bytes: Uint8Array): Graph {
  const type = graphType();
  let m: GraphMessage;
  try {
    m = type.toObject(type.decode(bytes), { longs: Number, defaults: true, arrays: true, oneofs: false }) as GraphMessage;
  } catch (e) {
    throw new Refusal([notGraph((e as Error).message)]);
  }
  const values: Value[] = [];
  for (const v of m.values) {
    const storage = parseStorage(v.storage);
    if (storage === null) throw new Refusal([notGraph(`${v.name} has the storage ${JSON.stringify(v.storage)}`)]);
    const inputs = Object.fromEntries(
      v.inputs.map(i => {
        const found = values[i.value];
        if (!found) throw new Refusal([notGraph(`an input of ${v.name} does not stand before it`)]);
        return [i.name, found];
      }),
    );
    const shape = v.shape.map(dimIn);
    const valueType: Type = { shape, storage };
    const origin: Origin = {
      role: v.origin.role,
      layer: v.origin.layer,
      parts: v.origin.parts.map((p): Part => (p.scale ? { ...spanIn(p.codes), scale: spanIn(p.scale) } : spanIn(p.codes))),
      ...(v.origin.slice ? { slice: { of: v.origin.slice.of, from: v.origin.slice.from } } : {}),
      passes: v.origin.passes,
    };
    let attributes: unknown;
    try {
      attributes = JSON.parse(v.attributes);
    } catch {
      throw new Refusal([notGraph(`the attributes of ${v.name} are no JSON`)]);
    }
    values.push({ name: v.name, op: v.op, inputs, attributes, type: valueType, origin } as unknown as Value);
  }
  const outputs = Object.fromEntries(
    m.outputs.map(o => {
      const v = values[o.value];
      if (!v) throw new Refusal([notGraph(`the output ${o.name} is no value`)]);
      return [o.name, v];
    }),
  );
  const rank = m.rank ? { rank: { index: m.rank.index, of: m.rank.of } } : {};
  return { name: m.name, limits: { ...m.limits }, ...rank, values, outputs };
}
