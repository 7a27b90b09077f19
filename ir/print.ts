// The text form. Everything a graph is, one value a line; layers that are equal but for their number and their bytes are said once:
//
//   graph "deepseek_v3" tokens=128 wanted=128 sequences=4 context=4096
//   ids = input() {"which":"ids"} : [tokens] i32
//   layers 1..3 {
//     layers.*.attn_in = rms_norm(x: layers.<.out, weight: layers.*.input_layernorm) {"eps":0.000001,"width":160} : [tokens, 160] f32
//   }
//   output logits = logits
//   bytes layers.1.input_layernorm 0 "model.layers.1.input_layernorm.weight" "model-00001-of-00002.safetensors" 1024 1344
//
// `*` is the layer's number, `<` the one before. `bytes` lines give a weight's parts (and scales) in order. parse.ts reads it back.
// The graph of a rank says `rank=1/4` at the end of its head, and of a weight that it holds a part of ` of [whole shape] from [first places]`.
import { type Graph, inputsOf, type Origin, showDim, type Value } from './graph.js';
import { storageName } from './storage.js';

const within = (name: string, layer: number): string => {
  if (layer < 0) return name;
  for (const [mark, n] of [
    ['*', layer],
    ['<', layer - 1],
  ] as const)
    if (name.startsWith(`layers.${n}.`)) return `layers.${mark}.${name.slice(`layers.${n}.`.length)}`;
  return name;
};
function about(o: Origin, name: string): string {
  const slice = o.slice ? ` of [${o.slice.of.join(', ')}] from [${o.slice.from.join(', ')}]` : '';
  return `${o.role === name ? '' : ` role ${JSON.stringify(o.role)}`}${o.passes.length ? ` passes ${o.passes.join(',')}` : ''}${slice}`;
}
/** One value on one line, names as seen from its layer. */
function line(v: Value): string {
  const layer = v.origin.layer;
  const name = within(v.name, layer);
  const inputs = inputsOf(v).map(([k, i]) => `${k}: ${within(i.name, layer)}`);
  const attributes = JSON.stringify(v.attributes);
  const origin = { ...v.origin, role: within(v.origin.role, layer) };
  return `${name} = ${v.op}(${inputs.join(', ')})${attributes === '{}' ? '' : ` ${attributes}`} : [${v.type.shape.map(showDim).join(', ')}] ${storageName(v.type.storage)}${about(origin, name)}`;
}
interface Run {
  readonly from: number;
  to: number;
  readonly lines: readonly string[];
}

export interface PrintOptions {
  /** Leave out where the bytes lie; the text is then for reading and does not parse back to the same graph. */
  readonly withoutBytes?: boolean;
  /** Print only this layer. For reading. */
  readonly layer?: number;
}

export function printGraph(graph: Graph, options: PrintOptions = {}): string {
  const { limits: l } = graph;
  const out: string[] = [
    `graph ${JSON.stringify(graph.name)} tokens=${l.tokens} wanted=${l.wanted} sequences=${l.sequences} context=${l.context}${
      graph.rank ? ` rank=${graph.rank.index}/${graph.rank.of}` : ''
    }`,
  ];
  const runs: Run[] = [];
  for (let i = 0; i < graph.values.length; ) {
    const layer = graph.values[i]!.origin.layer;
    const lines: string[] = [];
    for (; i < graph.values.length && graph.values[i]!.origin.layer === layer; i++) lines.push(line(graph.values[i]!));
    const before = runs.at(-1);
    if (
      before &&
      layer >= 0 &&
      before.to === layer - 1 &&
      before.lines.length === lines.length &&
      before.lines.every((t, j) => t === lines[j])
    )
      before.to = layer;
    else runs.push({ from: layer, to: layer, lines });
  }
  for (const r of runs) {
    if (options.layer !== undefined && (options.layer < r.from || options.layer > r.to)) continue;
    if (r.from < 0) out.push(...r.lines);
    else out.push(`layers ${r.from === r.to ? r.from : `${r.from}..${r.to}`} {`, ...r.lines.map(t => `  ${t}`), '}');
  }
  for (const [name, v] of Object.entries(graph.outputs)) out.push(`output ${name} = ${v.name}`);
  if (!options.withoutBytes)
    for (const v of graph.values)
      v.origin.parts.forEach((p, i) => {
        const span = (s: { readonly tensor: string; readonly file: string; readonly bytes: readonly [number, number] }): string =>
          `${JSON.stringify(s.tensor)} ${JSON.stringify(s.file)} ${s.bytes[0]} ${s.bytes[1]}`;
        out.push(`bytes ${v.name} ${i} ${span(p)}${p.scale ? ` scale ${span(p.scale)}` : ''}`);
      });
  return `${out.join('\n')}\n`;
}
