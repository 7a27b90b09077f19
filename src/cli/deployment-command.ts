// hkgai plan MODEL --devices N, and --compare: how a model would stand on devices, as tables.

import { existsSync } from 'node:fs';
import { Refusal } from '../../ir/problem.js';
import {
  type Comparison,
  compareChips,
  configAlone,
  type DeploymentPlan,
  deploymentPlan,
  describeModel,
  type Goal,
  goals,
  type KvStorage,
  needsDevices,
  optionClash,
  type Row,
  resolveTarget,
} from '../plan.js';
import { bytes, displayWidth, grouped, out, print, printJson, table } from './terminal.js';

export interface DeploymentArguments {
  readonly target?: readonly string[];
  readonly compare?: readonly string[];
  readonly quantise?: string;
  readonly runtime?: string;
  readonly format?: string;
  readonly mtp?: 'keep' | 'quantise' | 'drop';
  readonly devices?: number;
  readonly nodes?: number;
  readonly topology?: string;
  readonly parallel?: string;
  readonly goal?: Goal;
  readonly context?: number;
  readonly prompt?: number;
  readonly batch?: number;
  readonly kv?: KvStorage;
  readonly redundant?: number;
  readonly drafts?: string;
  readonly imbalance?: number;
  readonly budget?: number;
  readonly power?: readonly string[];
  readonly price?: readonly string[];
  readonly rows?: number;
  readonly allowPhantomKeys?: boolean;
  readonly json?: boolean;
}
export { goals };
/** Whether the options speak of devices: else a plan is of the compile alone. */
export const ofDevices = (o: DeploymentArguments): boolean =>
  o.devices !== undefined || o.topology !== undefined || o.parallel !== undefined || (o.compare?.length ?? 0) > 0;

/** Options of a plan of devices mean nothing to a plan of the compile, and a config.json is not enough for it. */
export function refuseAlone(model: string, o: DeploymentArguments): void {
  const alone = [
    'nodes',
    'goal',
    'context',
    'prompt',
    'batch',
    'kv',
    'redundant',
    'drafts',
    'imbalance',
    'power',
    'price',
    'rows',
  ] as const;
  const said = alone.filter(k => o[k] !== undefined).map(k => `--${k}`);
  if (said.length) throw new Refusal([needsDevices(said)]);
  if (model.endsWith('.json') && existsSync(model)) throw new Refusal([configAlone(model)]);
}
const common = (o: DeploymentArguments) => ({
  quantise: o.quantise ?? null,
  format: o.format ?? null,
  runtime: o.runtime ?? null,
  mtp: o.mtp ?? null,
  devices: o.devices ?? null,
  nodes: o.nodes ?? null,
  goal: o.goal ?? 'throughput',
  context: o.context ?? null,
  prompt: o.prompt ?? null,
  batch: o.batch ?? null,
  kv: o.kv ?? 'bf16',
  redundant: o.redundant ?? null,
  drafts: o.drafts ?? null,
  imbalance: o.imbalance ?? null,
  power: o.power ?? [],
  price: o.price ?? [],
});

export function deploymentCommand(model: string, o: DeploymentArguments): number {
  const clash = (what: string, next: string): never => {
    throw new Refusal([optionClash(what, next)]);
  };
  if (o.budget !== undefined)
    clash('--budget is found by measuring weights, and a plan of devices reads none', 'Name a recipe with --quantise.');
  if (o.compare?.length && (o.topology ?? o.parallel ?? o.target) !== undefined)
    clash('--compare names its chips itself', 'Leave out --target, --topology and --parallel.');
  if ((o.target?.length ?? 0) > 1) clash('A plan of devices is for one target', 'Put several side by side with --compare.');
  const d = describeModel(model, o.allowPhantomKeys === true);
  if (o.compare?.length) {
    const c = compareChips(
      d,
      o.compare.flatMap(x => x.split(',')).filter(x => x !== ''),
      common(o),
    );
    if (o.json) printJson(c);
    else showComparison(c);
    return c.chips.every(x => x.row === null) ? 5 : 0;
  }
  const p = deploymentPlan(d, { ...common(o), target: o.target?.[0] ?? 'cpu', topology: o.topology ?? null, parallel: o.parallel ?? null });
  if (o.json) printJson(o.rows === undefined ? p : firstRows(p, o.rows));
  else showPlan(p, o.rows ?? 12);
  return p.rows.some(r => r.fits !== false) ? 0 : 5;
}

/** A plan with the best rows alone: their numbers stay. */
const firstRows = (p: DeploymentPlan, most: number): DeploymentPlan =>
  p.rows.length > most
    ? { ...p, rows: p.rows.slice(0, most), notes: [...p.notes, `Of ${p.rows.length} rows these are the first ${most}.`] }
    : p;

/** Three figures that matter: 1234, 45.6, 0.123. */
const figure = (n: number): string =>
  n >= 100 ? grouped(Math.round(n)) : n >= 10 ? n.toFixed(1) : n >= 1 ? n.toFixed(2) : n.toPrecision(2);
const milliseconds = (s: number): string => `${figure(s * 1e3)} ms`;
/** Whether a rank has room, or what it lacks; with `free`, also what is left. */
function room(r: Row, free = false): string {
  if (r.fits === null || r.left === null) return '?';
  return r.fits ? `fits${free ? `, ${bytes(r.left)} free` : ''}` : `too large by ${bytes(-r.left)}`;
}

/** A column of the table. `right`: numbers. `spare`: left out where the terminal is narrow, the lowest first. */
interface Column {
  readonly name: string;
  readonly cell: (r: Row, i: number) => string;
  readonly right?: boolean;
  readonly spare?: number;
}
const devicesOf = (r: Row): number => r.parallel.tp * r.parallel.dp * r.parallel.pp;
const columns: readonly Column[] = [
  { name: '', cell: (_, i) => String(i + 1), right: true },
  { name: 'way', cell: r => r.name },
  { name: 'devices', cell: r => String(devicesOf(r)), right: true },
  { name: 'weights', cell: r => bytes(r.bytes.weights), right: true, spare: 4 },
  { name: 'a sequence', cell: r => bytes(r.bytes.sequence), right: true, spare: 1 },
  { name: 'a rank', cell: r => bytes(r.bytes.total), right: true },
  { name: 'sequences', cell: r => (r.sequences === null ? '?' : grouped(r.sequences)), right: true, spare: 3 },
  { name: 'at once', cell: r => (r.estimate ? grouped(r.estimate.batch) : ''), right: true },
  { name: 'next token', cell: r => (r.estimate ? milliseconds(r.estimate.token) : ''), right: true },
  { name: 'tokens/s', cell: r => (r.estimate ? figure(r.estimate.decode) : ''), right: true },
  { name: 'prefill/s', cell: r => (r.estimate ? figure(r.estimate.prefill) : ''), right: true },
  { name: 'first token', cell: r => (r.estimate ? milliseconds(r.estimate.first) : ''), right: true },
  { name: 'kWh/M', cell: r => (r.energy === null ? '' : figure(r.energy)), right: true },
  { name: 'cost/M', cell: r => (r.cost === null ? '' : figure(r.cost)), right: true },
  { name: '', cell: r => room(r) },
  { name: 'free', cell: r => (r.fits && r.left !== null ? bytes(r.left) : ''), right: true, spare: 2 },
];
/** Rows as a table no wider than the terminal, if leaving out what can be spared helps; --json has it all. */
function rowsTable(rows: readonly Row[], several: boolean): string {
  const width = process.stdout.columns ?? Number.POSITIVE_INFINITY;
  const draw = (list: readonly Column[]): string =>
    table(
      [list.map(c => c.name), ...rows.map((r, i) => list.map(c => c.cell(r, i)))],
      list.flatMap((c, i) => (c.right ? [i] : [])),
    );
  let list = columns.filter(c => (c.name !== 'devices' || several) && rows.some((r, i) => c.cell(r, i) !== ''));
  for (const spare of [1, 2, 3, 4]) {
    if (
      draw(list)
        .split('\n')
        .every(l => displayWidth(l) <= width)
    )
      break;
    list = list.filter(c => c.spare !== spare);
  }
  return draw(list);
}

/** Reasons that are printed. */
const mostReasons = 8;
function showPlan(p: DeploymentPlan, most: number): void {
  print(
    `${p.model.name}: ${bytes(p.model.bytes)} as ${p.engine} (${p.recipe}) on ${p.devices} devices of ${p.target}${p.topology ? ` (${p.topology})` : ''}, ${p.nodes} ${p.nodes === 1 ? 'node' : 'nodes'}`,
  );
  print(`context ${grouped(p.context)}, prompts of ${grouped(p.prompt)}, caches in ${p.kv}, for ${p.goal}\n`);
  const several = new Set(p.rows.map(devicesOf)).size > 1;
  const shown = p.rows.slice(0, most);
  print(rowsTable(shown, several));
  if (p.rows.length > most) print(`and ${p.rows.length - most} more: --rows ${p.rows.length}, or --json`);
  if (shown.some(r => r.energy !== null || r.cost !== null)) print('kWh/M, cost/M: of a million generated tokens');
  const unknown = [...new Set(p.rows.flatMap(r => r.missing))];
  if (unknown.length)
    print(`\nWhere no speed stands, this is not known: ${unknown.join(', ')}. --topology FILE can say it (docs/plan.md).`);
  if (p.rows.every(r => r.fits === false))
    print(
      `\nNothing fits. --compare ${p.target} in place of --target and --devices looks for the fewest devices that do; another --quantise (${Object.keys(
        resolveTarget(p.target).target.engines.recipes,
      )
        .filter(n => n !== p.recipe)
        .join(', ')}), a shorter --context or --kv fp8 may take less.`,
    );
  const best = p.rows[0];
  if (best) {
    const b = best.bytes;
    print(
      `\nRow 1, the fullest rank: weights ${bytes(b.weights)}${b.redundant ? ` (${bytes(b.redundant)} of them redundant experts)` : ''}${b.absorbed ? `, copies made at load ${bytes(b.absorbed)}` : ''}, caches ${bytes(b.caches)},`,
    );
    print(
      `  activations up to ${bytes(b.activations)}, communication ${bytes(b.communication)}; of ${best.usable === null ? 'a memory that is not known' : `${bytes(best.usable)} that a plan may fill`}.`,
    );
    if (best.stages.length > 1) {
      const list = best.stages.join(',');
      const even = Math.max(...best.stages) - Math.min(...best.stages) <= 1;
      print(
        `  decoder layers of the stages: ${list}${even ? '' : `; tell the engine, VLLM_PP_LAYER_PARTITION=${list} or SGLANG_PP_LAYER_PARTITION=${list}`}`,
      );
    }
  }
  if (p.left.length) {
    print('\nLeft out:');
    for (const l of p.left.slice(0, mostReasons)) print(`  ${l.ways} ${l.ways === 1 ? 'way' : 'ways'}: ${l.why}`);
    if (p.left.length > mostReasons)
      print(`  and ${p.left.slice(mostReasons).reduce((n, l) => n + l.ways, 0)} more ways: --json has the reasons`);
  }
  for (const n of p.notes) print(n);
  showAssumed(p.assumed, [p.target]);
}
/** What is assumed: name, value and the first phrase of what it is; the rest and the sources are in docs/estimates.md and in --json. */
function showAssumed(assumed: DeploymentPlan['assumed'], chips: readonly string[]): void {
  print('\nEstimates, not measurements: docs/estimates.md holds them against published ones, and says where each of these is from.');
  print(`Figures of a chip, each with its source: ${chips.map(c => `hkgai targets ${c}`).join(', ')}.`);
  print('Assumed:');
  print(
    out.dim(
      table(
        assumed.map(a => [`  ${a.name}`, amount(a.value, a.unit), a.about.replace(/(?:[:;]|, where) .*$/, '')]),
        [1],
      ),
    ),
  );
}
/** 400.0 MiB, 0.005 ms, 8,192 tokens, 0.9. */
const amount = (n: number, unit: string): string =>
  unit === 'bytes'
    ? bytes(n)
    : unit === 's'
      ? `${Number((n * 1e3).toPrecision(3))} ms`
      : `${Number.isInteger(n) ? grouped(n) : n} ${unit}`.trim();

function showComparison(c: Comparison): void {
  print(
    `${c.model.name}: ${bytes(c.model.bytes)} as it is; context ${grouped(c.context)}, prompts of ${grouped(c.prompt)}, caches in ${c.kv}, for ${c.goal}\n`,
  );
  const cell =
    (f: (r: Row) => string) =>
    (x: Comparison['chips'][number]): string =>
      x.row ? f(x.row) : '';
  const lines: readonly (readonly [string, (x: Comparison['chips'][number]) => string])[] = [
    ['', x => x.target],
    ['written as', x => (x.refused.length ? 'not written for it' : `${x.engine} (${x.recipe})`)],
    ['weights', x => (x.refused.length ? '' : bytes(x.bytes))],
    [
      'devices',
      x =>
        x.row
          ? String(x.row.parallel.tp * x.row.parallel.dp * x.row.parallel.pp)
          : x.refused.length
            ? ''
            : x.missing.length
              ? '?'
              : `more than ${x.searched}`,
    ],
    ['nodes', cell(r => String(r.parallel.nodes))],
    ['way', cell(r => r.name)],
    ['a rank', cell(r => bytes(r.bytes.total))],
    ['', cell(r => room(r, true))],
    ['sequences', cell(r => (r.sequences === null ? '?' : grouped(r.sequences)))],
    ['at once', cell(r => (r.estimate ? grouped(r.estimate.batch) : '?'))],
    ['next token', cell(r => (r.estimate ? milliseconds(r.estimate.token) : '?'))],
    ['tokens/s', cell(r => (r.estimate ? figure(r.estimate.decode) : '?'))],
    ['tokens/s a device', cell(r => (r.estimate ? figure(r.estimate.decode / (r.parallel.tp * r.parallel.dp * r.parallel.pp)) : '?'))],
    ['prefill tokens/s', cell(r => (r.estimate ? figure(r.estimate.prefill) : '?'))],
    ['first token', cell(r => (r.estimate ? milliseconds(r.estimate.first) : '?'))],
    ...(c.chips.some(x => x.row?.energy != null)
      ? [['kWh a million tokens', cell(r => (r.energy === null ? '?' : figure(r.energy)))] as const]
      : []),
    ...(c.chips.some(x => x.row?.cost != null)
      ? [['cost a million tokens', cell(r => (r.cost === null ? '?' : figure(r.cost)))] as const]
      : []),
  ];
  print(table(lines.map(([name, f]) => [name, ...c.chips.map(f)])));
  for (const x of c.chips) {
    for (const p of x.refused) print(`${x.target}: ${p.what}. ${p.why}`);
    if (x.missing.length) print(`${x.target}: not known: ${x.missing.join(', ')}`);
    for (const n of x.notes) print(`${x.target}: ${n}`);
  }
  if (c.chips.some(x => x.row && (x.row.energy === null || x.row.cost === null)))
    print(
      'Energy is of --power WATTS, or of what is known of the chip; cost of --price AMOUNT (a device and hour). A number for all, or target:chip=number with commas between. ? is not said, or not known.',
    );
  showAssumed(
    c.assumed,
    c.chips.map(x => x.target),
  );
}
