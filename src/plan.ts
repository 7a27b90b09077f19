// A model on devices: which ways to spread it are legal, what each rank holds, and how fast it would be. From config.json or headers alone; nothing is
// read of the weights. The arithmetic is in src/plan/.
import { existsSync, readFileSync } from 'node:fs';
import { notThere, type Problem, Refusal } from '../ir/problem.js';
import { devicesOf, type Parallel } from '../targets/launch.js';
import type { Chip, Device, Fact, Link, Target } from '../targets/target.js';
import type { ModelConfig } from './checkpoint/config.js';
import { resolveTarget } from './choice.js';
import { assumptions, usual } from './plan/assumptions.js';
import type { KvStorage } from './plan/cache.js';
import { checkParallel, engineObjections } from './plan/legal.js';
import type { ModelShape } from './plan/model.js';
import { mostDevices, placed } from './plan/parallel.js';
import * as problems from './plan/problems.js';
import { type Demand, deviceCounts, type Goal, type Listed, listRows, order, type Row, rowOf } from './plan/rows.js';
import { type ModelDigest, parallelAsked } from './plan/saved.js';
import { betweenOf, type Drafts } from './plan/time.js';
import { deviceWith, parseTopology, ranges, type Topology } from './plan/topology.js';
import { bytesOf, type Described, shapeOf } from './plan-model.js';

export { resolveTarget } from './choice.js';
export type { KvStorage } from './plan/cache.js';
export { checkParallel } from './plan/legal.js';
export type { ModelShape } from './plan/model.js';
export { type ParallelWish, parallelOf, placed } from './plan/parallel.js';
export { configAlone, needsDevices, optionClash } from './plan/problems.js';
export { type Goal, goals, type Row } from './plan/rows.js';
export { digestOf, type ModelDigest, parallelAsked } from './plan/saved.js';
export { bytesOf, type Described, describeModel, shapeOf } from './plan-model.js';

export interface PlanOptions {
  /** target or target:chip. */
  readonly target: string;
  readonly quantise: string | null;
  readonly format: string | null;
  readonly runtime: string | null;
  readonly mtp: 'keep' | 'quantise' | 'drop' | null;
  /** Topology file. */
  readonly topology: string | null;
  readonly devices: number | null;
  readonly nodes: number | null;
  /** One way alone. */
  readonly parallel: string | null;
  readonly goal: Goal;
  readonly context: number | null;
  readonly prompt: number | null;
  readonly batch: number | null;
  readonly kv: KvStorage;
  readonly redundant: number | null;
  /** Tokens that the MTP block proposes a step and how many are taken, `1:0.7`; null: it is not used. */
  readonly drafts: string | null;
  /** Tokens of the busiest rank of experts over the mean, as a placement says; null: assumed. */
  readonly imbalance: number | null;
  /** Watts of a device, price of an hour: a number, or `target:chip=number` for some. */
  readonly power: readonly string[];
  readonly price: readonly string[];
}
export interface DeploymentPlan {
  readonly format: 'hkgai-plan-1';
  readonly model: {
    readonly name: string;
    readonly family: string;
    readonly digest: ModelDigest;
    readonly bytes: number;
    readonly layers: number;
  };
  readonly target: string;
  readonly engine: string;
  readonly runtime: string | null;
  readonly recipe: string;
  readonly topology: string | null;
  readonly devices: number;
  readonly nodes: number;
  readonly goal: Goal;
  readonly context: number;
  readonly prompt: number;
  readonly kv: KvStorage;
  /** Watts of a device that energy is of, and where they are from; null: not known. */
  readonly power: Fact<number> | null;
  readonly rows: readonly Row[];
  readonly left: Listed['left'];
  readonly assumed: readonly {
    readonly name: string;
    readonly value: number;
    readonly unit: string;
    readonly about: string;
    readonly source: string;
  }[];
  readonly notes: readonly string[];
}

const assumedOf = (o: Pick<PlanOptions, 'imbalance'>): DeploymentPlan['assumed'] =>
  Object.entries(assumptions).map(([name, a]) =>
    name === 'imbalance' && o.imbalance !== null ? { name, ...a, value: o.imbalance, source: '--imbalance' } : { name, ...a },
  );

// ---- the plan

/** The most that an hour of a device may cost, in whatever it is counted. */
const mostPrice = 1e9;
/** A number for every chip, or `target:chip=number` for some. */
function perChip(words: readonly string[], chip: string, option: string, known: readonly string[], most: number): number | null {
  let every: number | null = null;
  let own: number | null = null;
  for (const word of words) {
    const [before = '', after, ...more] = word.split('=');
    const text = after ?? before;
    const n = text.trim() === '' ? Number.NaN : Number(text);
    if (!(n >= 0 && n <= most) || more.length)
      throw new Refusal([
        problems.optionClash(
          `${option} ${word}: a number from 0 to ${most}, or target:chip=number, was expected`,
          'Write 0.5, or cuda:h20=0.5.',
        ),
      ]);
    if (after === undefined) every = n;
    else if (before === chip) own = n;
    else if (!known.includes(before))
      throw new Refusal([
        problems.optionClash(`${option} ${word}: the plan is of ${known.join(', ')}, not of ${before}`, 'Name one of these.'),
      ]);
  }
  return own ?? every;
}
/** The recipe of a chip in `--quantise w8a8,cuda:h20=w4a16`: its own, or the one for all; null: its usual one. */
function recipeFor(text: string | null, chip: string, known: readonly string[]): { readonly name: string | null; readonly own: boolean } {
  let every: string | null = null;
  let own: string | null = null;
  // a file's name may have both signs in it
  const words = text === null ? [] : /(^|,)[\w-]+:[\w.-]+=/.test(text) ? text.split(',') : [text];
  for (const word of words) {
    const m = /^([\w-]+:[\w.-]+)=(.*)$/.exec(word);
    if ((m ? m[2] : word) === '')
      throw new Refusal([problems.optionClash(`--quantise ${text} names no recipe`, 'Write w8a8, or cuda:h20=w8a8.')]);
    if (!m) every = word;
    else if (m[1] === chip) own = m[2] as string;
    else if (!known.includes(m[1] as string))
      throw new Refusal([
        problems.optionClash(`--quantise ${word}: the plan is of ${known.join(', ')}, not of ${m[1]}`, 'Name one of these.'),
      ]);
  }
  return { name: own ?? every, own: own !== null };
}
const labelOf = (target: Target, chip: Chip): string => `${target.name}:${chip.name}`;

interface Scene {
  readonly device: Device;
  readonly topology: Topology | null;
}
function sceneOf(target: Target, chip: Chip, label: string, topologyFile: string | null): Scene {
  if (topologyFile !== null && !existsSync(topologyFile)) throw new Refusal([notThere(topologyFile)]);
  const topology = topologyFile === null ? null : parseTopology(readFileSync(topologyFile, 'utf8'), topologyFile);
  const device = deviceWith(chip.device ?? null, topology);
  if (!device)
    throw new Refusal([
      problems.noDevice(
        label,
        target.chips.filter(c => c.device).map(c => labelOf(target, c)),
      ),
    ]);
  return { device, topology };
}
function draftsOf(text: string, c: ModelConfig): Drafts {
  const m = /^([1-9]\d?)(?::(\d+(?:\.\d+)?))?$/.exec(text);
  const proposed = Number(m?.[1]);
  const taken = m?.[2] === undefined ? proposed : Number(m[2]);
  if (!m || taken > proposed)
    throw new Refusal([
      problems.optionClash(`--drafts ${text} is not proposed:taken`, 'Write 1:0.7 for one token a step, of which 0.7 are taken.'),
    ]);
  if (!('mtpLayers' in c) || c.mtpLayers === 0)
    throw new Refusal([problems.optionClash('--drafts needs an MTP block, and the model has none', 'Leave it out.')]);
  return { proposed, taken };
}
function demandOf(o: PlanOptions, c: ModelConfig, label: string, device: Device | null, known: readonly string[]): Demand {
  const context = o.context ?? Math.min(8192, c.maxPositions);
  if (o.devices !== null && o.devices > mostDevices) throw new Refusal([problems.tooMany(o.devices, mostDevices)]);
  if (context > c.maxPositions) throw new Refusal([problems.contextBeyond(context, c.maxPositions)]);
  if (o.imbalance !== null && !(o.imbalance >= 1 && o.imbalance <= mostDevices))
    throw new Refusal([
      problems.optionClash(
        `--imbalance ${o.imbalance}: the busiest rank has the mean at least, and at most what all have`,
        `Write a number from 1 to ${mostDevices}.`,
      ),
    ]);
  const watts = perChip(o.power, label, '--power', known, ranges.power.most);
  const prompt = Math.min(o.prompt ?? Math.max(1, Math.floor(context / 2)), context);
  return {
    goal: o.goal,
    context,
    prompt,
    batch: o.batch,
    kv: o.kv,
    drafts: o.drafts === null ? null : draftsOf(o.drafts, c),
    redundant: o.redundant,
    power: watts === null ? (device?.power ?? null) : { value: watts, source: '--power' },
    price: perChip(o.price, label, '--price', known, mostPrice),
    assumed: o.imbalance === null ? usual : { ...usual, imbalance: o.imbalance },
  };
}

/** Every legal way to spread a model over so many devices, best first. */
export function deploymentPlan(d: Described, o: PlanOptions): DeploymentPlan {
  const { shape, written, notes } = shapeOf(d, o);
  const label = labelOf(written.target, written.chip);
  const { device, topology } = sceneOf(written.target, written.chip, label, o.topology);
  const demand = demandOf(o, d.config, label, device, [label]);
  const perNode = topology?.devicesPerNode ?? device.perNode?.value ?? null;
  let listed: Listed;
  let devices: number;
  let nodes: number;
  if (o.parallel !== null) {
    const asked = parallelAsked(o.parallel, () => d.digest);
    const p = placed(o.nodes === null ? asked : { ...asked, nodes: o.nodes }, perNode, o.devices);
    const broken = checkParallel(shape, p, device);
    if (broken.length) throw new Refusal(broken);
    listed = { rows: [rowOf(shape, p, device, label, demand)], left: [] };
    devices = devicesOf(p);
    nodes = p.nodes;
  } else {
    const all = topology?.nodes && topology.devicesPerNode ? topology.nodes * topology.devicesPerNode : null;
    const most = o.devices ?? all;
    if (most === null)
      throw new Refusal([
        problems.optionClash('--devices is missing', 'Say how many devices there are, as --devices 16, or give a --topology that does.'),
      ]);
    if (most > mostDevices) throw new Refusal([problems.tooMany(most, mostDevices)]);
    devices = most;
    nodes = o.nodes ?? (o.devices === null ? topology?.nodes : null) ?? (perNode === null ? 1 : Math.ceil(devices / perNode));
    if (devices % nodes !== 0) throw new Refusal([problems.nodesUneven(devices, nodes)]);
    listed =
      o.goal === 'devices'
        ? fewest(shape, devices, o.nodes === null && perNode !== null ? perNode : devices / nodes, device, label, demand)
        : listRows(shape, devices, nodes, device, label, demand);
    if (listed.rows.length === 0)
      throw new Refusal([
        problems.nothingLegal(
          devices,
          nodes,
          listed.left.map(l => sentenceCase(l.why)),
        ),
      ]);
  }
  if (topology !== null) {
    const beyond = (what: string, has: number | null, asked: number): readonly Problem[] =>
      has !== null && asked > has ? [problems.beyondTopology(topology.name, what, has, asked)] : [];
    const found = [...beyond('nodes', topology.nodes, nodes), ...beyond('devices a node', topology.devicesPerNode, devices / nodes)];
    if (found.length) throw new Refusal(found);
  }
  const alone =
    o.parallel === null ? [] : engineObjections(shape, (listed.rows[0] as Row).parallel, demand.drafts !== null).map(sentenceCase);
  const own =
    perNode !== null && devices / nodes > perNode
      ? [`A usual node of ${label} has ${perNode} devices; these have ${devices / nodes}.`]
      : [];
  return {
    format: 'hkgai-plan-1',
    model: { name: d.name, family: shape.family, digest: d.digest, bytes: shape.bytes, layers: shape.layers },
    target: label,
    engine: written.format.name,
    runtime: written.runtime ? [written.runtime.name, written.runtime.version].filter(x => x !== null).join('@') : null,
    recipe: written.recipe.name,
    topology: topology?.name ?? null,
    devices,
    nodes,
    goal: o.goal,
    context: demand.context,
    prompt: demand.prompt,
    kv: o.kv,
    power: demand.power,
    rows: listed.rows,
    left: listed.left,
    assumed: assumedOf(o),
    notes: [
      ...d.notes,
      ...notes,
      ...own,
      ...alone,
      ...powerNote(demand.power, listed.rows),
      ...(topology?.device.betweenNodes ? [] : linkNote(device, listed.rows.find(r => r.parallel.nodes > 1)?.parallel)),
    ],
  };
}
/** Where the watts are from, if not from the one who asks. */
const powerNote = (power: Fact<number> | null, rows: readonly Row[]): readonly string[] =>
  power !== null && power.source !== '--power' && rows.some(r => r.energy !== null)
    ? [`Energy is of ${power.value} W a device (${power.source}); --power takes another figure.`]
    : [];
/** Which link between nodes is taken, and which else the chip may have there: it decides much, and is the room's, not the chip's. */
function linkNote(device: Device, p: Parallel | undefined): readonly string[] {
  const link = p && betweenOf(device, p);
  if (!link?.bytesPerSecond) return [];
  const say = (l: Link): string =>
    `${l.name} at ${l.bytesPerSecond ? `${Number((l.bytesPerSecond.value / 1e9).toPrecision(3))} GB/s` : 'an unknown rate'}`;
  const others = device.betweenNodes.filter(l => l !== link);
  return [
    `Between nodes ${say(link)} a device is taken${others.length ? `, not ${others.map(say).join(' or ')}` : ''}: a plan with --topology FILE takes another.`,
  ];
}
const sentenceCase = (s: string): string => s.charAt(0).toUpperCase() + s.slice(1);

/** Rows of all numbers of devices up to `most`, the fewest that fit first. */
function fewest(shape: ModelShape, most: number, perNode: number, device: Device, label: string, demand: Demand): Listed {
  const all = deviceCounts(most, perNode).map(n => listRows(shape, n, Math.ceil(n / perNode), device, label, demand));
  return { rows: all.flatMap(l => l.rows).sort((a, b) => order(a, b, 'devices')), left: all.at(-1)?.left ?? [] };
}

/** One chip of a comparison. */
export interface Compared {
  readonly target: string;
  readonly recipe: string;
  readonly engine: string;
  /** Bytes of all weights, as written for it. */
  readonly bytes: number;
  /** The best row; null where nothing fits on `searched` devices. */
  readonly row: Row | null;
  readonly searched: number;
  /** Devices that weights alone would take, where nothing fits or memory is all that is known. */
  readonly missing: readonly string[];
  /** Why the model is not written for it; empty where it is. */
  readonly refused: readonly Problem[];
  readonly notes: readonly string[];
}
export interface Comparison {
  readonly format: 'hkgai-compare-1';
  readonly model: DeploymentPlan['model'];
  readonly goal: Goal;
  readonly context: number;
  readonly prompt: number;
  readonly kv: KvStorage;
  readonly chips: readonly Compared[];
  readonly assumed: DeploymentPlan['assumed'];
}
/** Devices that a comparison looks for a place on, where --devices does not say. */
const mostCompared = 64;
/** Sequences that a comparison wants room for, where --batch does not say: with less a machine serves nobody. */
const leastCompared = 32;
/** The same model on several chips: on so many devices, or on the fewest that hold it. */
export function compareChips(d: Described, chips: readonly string[], o: Omit<PlanOptions, 'target' | 'parallel' | 'topology'>): Comparison {
  const known = chips.map(c => {
    const { target, chip } = resolveTarget(c);
    return labelOf(target, chip);
  });
  const wanted = o.batch ?? leastCompared;
  let context = 0;
  let prompt = 0;
  const rows = chips.map((asked, i): Compared => {
    const label = known[i] as string;
    const { target, chip } = resolveTarget(asked);
    const demand = demandOf({ ...o, target: asked, parallel: null, topology: null }, d.config, label, chip.device ?? null, known);
    context = demand.context;
    prompt = demand.prompt;
    const { runtimes, recipes } = target.engines;
    const runtime = o.runtime && Object.hasOwn(runtimes, o.runtime.split('@')[0] as string) ? o.runtime : null;
    const recipe = recipeFor(o.quantise, label, known);
    // a recipe for all that not every target has under its name is taken where there is one
    const quantise =
      recipe.name !== null && (recipe.own || /[./\\]/.test(recipe.name) || Object.hasOwn(recipes, recipe.name)) ? recipe.name : null;
    let made: ReturnType<typeof shapeOf>;
    try {
      made = shapeOf(d, { ...o, target: asked, runtime, quantise });
    } catch (e) {
      if (!(e instanceof Refusal)) throw e;
      return {
        target: label,
        recipe: quantise ?? '',
        engine: '',
        bytes: 0,
        row: null,
        searched: 0,
        missing: [],
        refused: e.problems,
        notes: [],
      };
    }
    const { shape, written } = made;
    const device = written.chip.device ?? null;
    const most = o.devices ?? mostCompared;
    const notes = [
      ...made.notes,
      ...(recipe.name !== null && quantise === null ? [`${recipe.name} is no recipe of it: its usual one is taken.`] : []),
      ...(o.runtime && !runtime ? [`${o.runtime} is no engine of it.`] : []),
    ];
    const common = {
      target: label,
      recipe: written.recipe.name,
      engine: written.format.name,
      bytes: shape.bytes,
      searched: most,
      refused: [],
      notes,
    };
    if (!device) return { ...common, row: null, missing: [`all of ${label}`] };
    if (!device.memory) return { ...common, row: null, missing: [`memory of ${label}`] };
    const per = device.perNode?.value ?? 8;
    const counts = o.devices === null ? deviceCounts(most, per) : [o.devices];
    const better = (a: Row, b: Row): number => order(a, b, o.goal === 'devices' ? 'throughput' : o.goal);
    for (const n of counts) {
      const nodes = o.nodes ?? Math.ceil(n / per);
      if (n % nodes !== 0) continue;
      const best = [...listRows(shape, n, nodes, device, label, demand).rows].sort(better)[0];
      if (best && best.fits !== false && (o.devices !== null || (best.sequences ?? wanted) >= wanted))
        return {
          ...common,
          row: best,
          missing: best.missing,
          notes: [...notes, ...powerNote(demand.power, [best]), ...linkNote(device, best.parallel)],
        };
    }
    return { ...common, row: null, missing: [] };
  });
  const shapeName = {
    name: d.name,
    family: d.config.family,
    digest: d.digest,
    bytes: bytesOf(d),
    layers: d.config.layers,
  };
  return {
    format: 'hkgai-compare-1',
    model: shapeName,
    goal: o.goal,
    context,
    prompt,
    kv: o.kv,
    chips: rows,
    assumed: assumedOf(o),
  };
}
