// hkgai inspect: what a checkpoint holds, in a screen; all of it as JSON, tensors or IR.
import { printGraph } from '../../ir/print.js';
import { Refusal } from '../../ir/problem.js';
import type { FusedReport } from '../fused.js';
import { cacheBytesPerPosition, type Inspection, inspect, rankText, type Spread, spread } from '../inspect.js';
import { describeModel, parallelAsked } from '../plan.js';
import { usage } from './problems.js';
import { bytes, count, grouped, out, print, printJson, table } from './terminal.js';

export interface InspectArguments {
  readonly tensors?: string | true;
  readonly ir?: boolean;
  readonly kernels?: boolean;
  readonly layer?: number;
  readonly parallel?: string;
  readonly rank?: number;
  readonly uneven?: boolean;
  readonly allowPhantomKeys?: boolean;
  readonly json?: boolean;
}

/** Numbers as they are; of a row of a saved plan, `PLAN.json#2`, its numbers. */
function wayOf(model: string, text: string): string {
  if (!/\.json(#|$)/.test(text)) return text;
  const { tp, dp, pp, ep } = parallelAsked(text, () => describeModel(model).digest);
  return `tp=${tp},dp=${dp},pp=${pp},ep=${ep ?? 1}`;
}
export async function inspectCommand(path: string, o: InspectArguments): Promise<number> {
  const alone = [o.rank === undefined ? '' : '--rank', o.uneven ? '--uneven' : ''].filter(x => x !== '');
  if (o.parallel === undefined && alone.length)
    throw new Refusal([usage(`${alone.join(', ')} goes with --parallel, as --parallel tp=2,ep=2`)]);
  const i = inspect(path, { allowPhantomKeys: o.allowPhantomKeys === true });
  if (o.parallel !== undefined) {
    const s = spread(i.model!.graph, wayOf(path, o.parallel), o.uneven === true);
    if (o.rank !== undefined) process.stdout.write(rankText(s, o.rank, o.layer));
    else if (o.json) printJson({ ranks: s.rows, groups: s.groups, whole: s.whole });
    else print(ranksOf(s));
    return 0;
  }
  if (o.kernels) {
    const { fusedReport } = await import('../fused.js');
    const r = fusedReport(i.model!.graph);
    if (o.json) printJson(r);
    else print(kernelsOf(r));
    return 0;
  }
  const listed = o.tensors === undefined ? [] : i.tensors.filter(t => o.tensors === true || t.name.includes(o.tensors as string));
  if (o.json) {
    const { place: _, ...config } = i.checkpoint?.config ?? ({} as Record<string, unknown> & { place?: unknown });
    printJson({
      kind: i.kind,
      path: i.path,
      config,
      parameters: i.parameters,
      bytes: i.dtypes.reduce((n, d) => n + d.bytes, 0),
      tensors: o.tensors === undefined ? i.tensors.length : listed,
      dtypes: i.dtypes,
      outputs: Object.keys(i.model?.graph.outputs ?? {}),
      cacheBytesPerPosition: i.model ? cacheBytesPerPosition(i.model.graph) : null,
      unused: i.model?.unused ?? [],
      notes: i.checkpoint?.notes ?? [],
      bundle: i.manifest,
    });
    return 0;
  }
  if (o.ir) {
    process.stdout.write(printGraph(i.model!.graph, o.layer === undefined ? {} : { layer: o.layer, withoutBytes: true }));
    return 0;
  }
  if (o.tensors !== undefined) {
    print(
      table(
        listed.map(t => [t.name, t.dtype, `[${t.shape.join(', ')}]`, bytes(t.bytes), t.file ?? '']),
        [3],
      ),
    );
    return 0;
  }
  print(summary(i));
  return 0;
}

function kernelsOf(r: FusedReport): string {
  const row = (name: string, t: FusedReport['fused']): string[] => [
    name,
    grouped(t.kernels),
    bytes(t.weights),
    bytes(t.rows),
    bytes(t.states),
  ];
  const head = [`a token at ${grouped(r.context)} positions`, 'kernels', 'weights', 'rows between', 'caches'];
  const kinds = r.layers.flatMap(l => [
    '',
    out.dim(`${l.place}: ${l.launches.length} kernel${l.launches.length === 1 ? '' : 's'}`),
    table(
      l.launches.map(k => [k.kernel, bytes(k.weights + k.rows + k.states), k.values]),
      [1],
    ),
  ]);
  return [table([head, row('every op apart', r.apart), row('fused', r.fused)], [1, 2, 3, 4]), ...kinds].join('\n');
}
function ranksOf(s: Spread): string {
  const rows = s.rows.map(r => [`rank ${r.rank}`, bytes(r.weights), bytes(r.cache), String(r.exchanges)]);
  const groups = Object.entries(s.groups).flatMap(([kind, list]) =>
    list.length === 0 ? [] : [`${out.dim(kind.padEnd(10))}${list.map(g => g.join(' ')).join('   ')}`],
  );
  // said once for layers that are alike
  const alike = new Map<string, { readonly first: string; more: number }>();
  for (const { name, why } of s.whole) {
    const key = `${name} ${why}`.replace(/layers\.\d+\./g, '');
    const known = alike.get(key);
    if (known) known.more++;
    else alike.set(key, { first: `${name} (${why})`, more: 0 });
  }
  const whole = [...alike.values()].map(a => out.yellow(`whole on every rank: ${a.first}${a.more ? ` and ${a.more} more like it` : ''}`));
  const head = ['', 'weights', 'cache a position (f32)', 'exchanges'];
  return [table([head, ...rows], [1, 2, 3]), '', ...groups, ...(whole.length ? ['', ...whole] : [])].join('\n');
}
function summary(i: Inspection): string {
  const c = i.checkpoint!.config;
  const graph = i.model!.graph;
  const rows: (readonly [string, string])[] = [];
  const total = i.dtypes.reduce((n, d) => n + d.bytes, 0);
  rows.push(['model', `${c.modelType}, ${count(i.parameters)} parameters`]);
  if (i.manifest)
    rows.push([
      'bundle',
      `hkgai ${i.manifest.hkgai}, ${i.manifest.targets.map(t => t.directory).join(', ')}, weights ${i.manifest.recipe.quantise === 'none' ? 'as in the source' : String(i.manifest.recipe.quantise)}`,
    ]);
  rows.push([
    'stored',
    `${bytes(total)} in ${grouped(i.tensors.length)} tensors, ${i.kind === 'config' ? 'as releases have them (config alone)' : `${i.checkpoint!.files.length} ${i.checkpoint!.files.length === 1 ? 'file' : 'files'}`}`,
  ]);
  rows.push(['layers', `${c.layers} of ${grouped(c.hidden)}, ${layersOf(i)}`]);
  rows.push(['attention', attentionOf(i)]);
  const e = 'experts' in c ? c : null;
  if (e)
    rows.push([
      'experts',
      `${e.experts} of ${grouped(e.moeIntermediate)}, ${e.topK} a token${e.sharedExperts ? `, ${e.sharedExperts} shared` : ''}${'groups' in e && e.groups > 1 ? `, ${e.topGroups} of ${e.groups} groups` : ''}`,
    ]);
  rows.push(['vocabulary', `${grouped(c.vocab)}${c.tied ? ', head tied to embeddings' : ''}`]);
  rows.push([
    'positions',
    `${grouped(c.maxPositions)}${c.ropeScaling.kind === 'none' ? '' : `, ${c.ropeScaling.kind} x ${c.ropeScaling.factor}`}`,
  ]);
  const cache = cacheBytesPerPosition(graph);
  rows.push(['cache', `${bytes(cache)} a position in f32, ${bytes(cache / 2)} in bf16`]);
  const mtp = Object.keys(graph.outputs).filter(n => n.startsWith('mtp.')).length;
  if (mtp) rows.push(['mtp', `${mtp} ${mtp === 1 ? 'block' : 'blocks'} predict the token after next`]);
  const lines = rows.map(([k, v]) => `${out.dim(k.padEnd(11))}${v}`);
  const dtypes = table(
    i.dtypes.map(d => [d.dtype, grouped(d.tensors), bytes(d.bytes), `${((100 * d.bytes) / total).toFixed(1)} %`]),
    [1, 2, 3],
  );
  const unused = i.model!.unused;
  const notes = [
    ...i.checkpoint!.notes,
    ...(unused.length
      ? [`${grouped(unused.length)} tensors are not compiled: ${[...new Set(unused.map(u => u.reason))].join('; ')}.`]
      : []),
    ...(i.kind === 'checkpoint' && i.checkpoint!.headersOnly ? ['Headers alone: the shards hold no data.'] : []),
  ];
  return [...lines, '', dtypes, ...(notes.length ? ['', ...notes.map(n => out.yellow(n))] : [])].join('\n');
}
function layersOf(i: Inspection): string {
  const c = i.checkpoint!.config;
  if (c.family === 'deepseek_v4') {
    const by = (r: (x: number) => boolean): number => c.compressRatios.slice(0, c.layers).filter(r).length;
    return `${by(x => x === 0)} window, ${by(x => x === 4)} indexed, ${by(x => x > 4)} compressed; ${c.hc.streams} residual streams; first ${c.hashLayers} hash-routed`;
  }
  if ('firstDense' in c) return `first ${c.firstDense} dense`;
  return 'dense';
}
function attentionOf(i: Inspection): string {
  const c = i.checkpoint!.config;
  if (c.family === 'deepseek_v4')
    return `${c.heads} heads of ${c.headDim} on one shared key-value head, window ${c.window}, index top ${c.index.topK}`;
  if ('kvLora' in c)
    return `latent: ${c.heads} heads of ${c.nope} + ${c.rope}, latent ${c.kvLora}${c.qLora ? `, query latent ${c.qLora}` : ''}${c.index ? `, index top ${c.index.topK} by ${c.index.heads} heads` : ''}`;
  return `${c.heads} heads of ${c.headDim} on ${c.kvHeads} key-value heads`;
}
