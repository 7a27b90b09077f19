// hkgai plan MODEL --devices N, and --compare: how a model would stand on devices, as tables.

import { Refusal } from '../../ir/problem.js';
import {
  type Comparison,
  compareChips,
  type DeploymentPlan,
  deploymentPlan,
  describeModel,
  type Goal,
  goals,
  type KvStorage,
  needsDevices,
  optionClash,
  type Row,
} from '../plan.js';
import { bytes, grouped, out, print, printJson, table } from './terminal.js';

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

/** Options of a plan of devices mean nothing to a plan of the compile. */
export function refuseAlone(o: DeploymentArguments): void {
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
    const c = compareChips(d, o.compare, common(o));
    if (o.json) printJson(c);
    else showComparison(c);
    return c.chips.every(x => x.row === null) ? 5 : 0;
  }
  const p = deploymentPlan(d, { ...common(o), target: o.target?.[0] ?? 'cpu', topology: o.topology ?? null, parallel: o.parallel ?? null });
  if (o.json) printJson(p);
  else showPlan(p, o.rows ?? 12);
  return p.rows.some(r => r.fits !== false) ? 0 : 5;
}

/** Three figures that matter: 1234, 45.6, 0.123. */
const figure = (n: number): string =>
  n >= 100 ? grouped(Math.round(n)) : n >= 10 ? n.toFixed(1) : n >= 1 ? n.toFixed(2) : n.toPrecision(2);
const milliseconds = (s: number): string => `${figure(s * 1e3)} ms`;
const whyNot = (r: Row): string => (r.missing.length ? `not known: ${r.missing.join(', ')}` : r.fits === false ? '' : '');
/** What a rank has room for, or lacks. */
function room(r: Row): string {
  if (r.fits === null || r.left === null) return '?';
  return r.fits ? `fits, ${bytes(r.left)} free` : `too large by ${bytes(-r.left)}`;
}

/** Reasons that are printed. */
const mostReasons = 8;
function showPlan(p: DeploymentPlan, most: number): void {
  print(
    `${p.model.name}: ${bytes(p.model.bytes)} as ${p.engine} (${p.recipe}) on ${p.devices} devices of ${p.target}${p.topology ? ` (${p.topology})` : ''}, ${p.nodes} ${p.nodes === 1 ? 'node' : 'nodes'}`,
  );
  print(`context ${grouped(p.context)}, prompts of ${grouped(p.prompt)}, caches in ${p.kv}, for ${p.goal}\n`);
  const several = new Set(p.rows.map(r => r.parallel.tp * r.parallel.dp * r.parallel.pp)).size > 1;
  const shown = p.rows.slice(0, most);
  print(
    table(
      [
        [
          '',
          'way',
          ...(several ? ['devices'] : []),
          'weights',
          'a sequence',
          'a rank',
          'sequences',
          'at once',
          'next token',
          'tokens/s',
          'prefill/s',
          'first token',
          '',
        ],
        ...shown.map((r, i) => [
          String(i + 1),
          r.name,
          ...(several ? [String(r.parallel.tp * r.parallel.dp * r.parallel.pp)] : []),
          bytes(r.bytes.weights),
          bytes(r.bytes.sequence),
          bytes(r.bytes.total),
          r.sequences === null ? '?' : grouped(r.sequences),
          r.estimate ? grouped(r.estimate.batch) : '',
          r.estimate ? milliseconds(r.estimate.token) : '',
          r.estimate ? figure(r.estimate.decode) : '',
          r.estimate ? figure(r.estimate.prefill) : '',
          r.estimate ? milliseconds(r.estimate.first) : '',
          [room(r), whyNot(r), money(r)].filter(Boolean).join('; '),
        ]),
      ],
      several ? [0, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11] : [0, 2, 3, 4, 5, 6, 7, 8, 9, 10],
    ),
  );
  if (p.rows.length > most) print(`and ${p.rows.length - most} more: --rows ${p.rows.length}, or --json`);
  const best = p.rows[0];
  if (best) {
    const b = best.bytes;
    print(
      `\nRow 1, the fullest rank: weights ${bytes(b.weights)}${b.redundant ? ` (${bytes(b.redundant)} of them redundant experts)` : ''}, copies made at load ${bytes(b.absorbed)}, caches ${bytes(b.caches)},`,
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
  showAssumed(p.assumed);
}
const money = (r: Row): string =>
  [r.energy === null ? '' : `${figure(r.energy)} kWh`, r.cost === null ? '' : `${figure(r.cost)} to pay`].filter(Boolean).join(', ') +
  (r.energy !== null || r.cost !== null ? ' a million tokens' : '');
function showAssumed(assumed: DeploymentPlan['assumed']): void {
  print('\nEstimates, not measurements; docs/estimates.md compares them with published ones. Assumed:');
  print(
    out.dim(
      table(
        assumed.map(a => [`  ${a.name}`, `${grouped2(a.value)} ${a.unit}`.trim(), `${a.about} (${a.source})`]),
        [1],
      ),
    ),
  );
}
const grouped2 = (n: number): string => (Number.isInteger(n) ? grouped(n) : String(n));

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
    ['', cell(room)],
    ['sequences', cell(r => (r.sequences === null ? '?' : grouped(r.sequences)))],
    ['at once', cell(r => (r.estimate ? grouped(r.estimate.batch) : '?'))],
    ['next token', cell(r => (r.estimate ? milliseconds(r.estimate.token) : '?'))],
    ['tokens/s', cell(r => (r.estimate ? figure(r.estimate.decode) : '?'))],
    ['tokens/s a device', cell(r => (r.estimate ? figure(r.estimate.decode / (r.parallel.tp * r.parallel.dp * r.parallel.pp)) : '?'))],
    ['prefill tokens/s', cell(r => (r.estimate ? figure(r.estimate.prefill) : '?'))],
    ['first token', cell(r => (r.estimate ? milliseconds(r.estimate.first) : '?'))],
    ['kWh a million tokens', cell(r => (r.energy === null ? '?' : figure(r.energy)))],
    ['cost a million tokens', cell(r => (r.cost === null ? '?' : figure(r.cost)))],
  ];
  print(table(lines.map(([name, f]) => [name, ...c.chips.map(f)])));
  for (const x of c.chips) {
    for (const p of x.refused) print(`${x.target}: ${p.what}. ${p.why}`);
    if (x.missing.length) print(`${x.target}: not known: ${x.missing.join(', ')}`);
    for (const n of x.notes) print(`${x.target}: ${n}`);
  }
  if (c.chips.some(x => x.row && (x.row.energy === null || x.row.cost === null)))
    print(
      'Energy and cost are of --power W and --price P an hour and device, where the estimate is known: one for all, or target:chip=number.',
    );
  showAssumed(c.assumed);
}
