// A topology as a JSON file: every field checked, each fault with its line. src/topology.schema.json says the same to editors; test/plan-devices.test.ts
// holds the two together.
import { type Problem, Refusal } from '../../ir/problem.js';
import type { Device, Fact, Link, PeakKind } from '../../targets/target.js';
import { JsonError, type JsonNode, lineAt, parseJson } from '../checkpoint/json.js';
import { topologyBad } from './problems.js';

export const topologyFields = [
  '$schema',
  'format',
  'name',
  'nodes',
  'devicesPerNode',
  'memory',
  'memoryBandwidth',
  'peak',
  'inNode',
  'betweenNodes',
  'power',
] as const;
export const peakKinds = ['f32', 'tf32', 'f16', 'bf16', 'fp8', 'int8', 'fp4', 'int4'] as const satisfies readonly PeakKind[];
export const linkFields = ['name', 'bytesPerSecond', 'latency', 'joins'] as const;

/** From the smallest to the largest figure that is believed, in the unit of the field: wide, but with none of them does an estimate leave the numbers. */
export const ranges = {
  memory: { unit: 'bytes', least: 1e6, most: 1e15 },
  memoryBandwidth: { unit: 'bytes a second', least: 1e6, most: 1e15 },
  peak: { unit: 'operations a second', least: 1e6, most: 1e21 },
  bytesPerSecond: { unit: 'bytes a second', least: 1e3, most: 1e15 },
  latency: { unit: 'seconds', least: 0, most: 10 },
  power: { unit: 'watts', least: 0.1, most: 1e5 },
} as const;
/** 10, 0.1, 1e15. */
const short = (n: number): string => (n >= 1000 ? n.toExponential().replace('+', '') : String(n));

export interface Topology {
  readonly name: string;
  readonly nodes: number | null;
  readonly devicesPerNode: number | null;
  /** What it says of a device. */
  readonly device: Partial<Device>;
}

/** A topology's text, checked field by field; unknown fields are errors. */
export function parseTopology(text: string, file: string): Topology {
  let root: JsonNode;
  try {
    root = parseJson(text);
  } catch (e) {
    if (!(e instanceof JsonError)) throw e;
    throw new Refusal([topologyBad(file, e.message, lineAt(text, e.at))]);
  }
  const found: Problem[] = [];
  const say = (n: JsonNode, what: string): void => void found.push(topologyBad(file, what, lineAt(text, n.key ?? n.at)));
  const object = (n: JsonNode, fields: readonly string[], what: string): ReadonlyMap<string, JsonNode> => {
    if (!(n.value instanceof Map)) {
      say(n, `${what} is an object`);
      return new Map();
    }
    const map = n.value as ReadonlyMap<string, JsonNode>;
    for (const [k, v] of map) if (!fields.includes(k)) say(v, `${JSON.stringify(k)} is no field of ${what}`);
    return map;
  };
  const fact = <T>(value: T): Fact<T> => ({ value, source: file });
  const amount = (n: JsonNode | undefined, field: keyof typeof ranges, name: string = field): Fact<number> | null => {
    if (n === undefined) return null;
    const v = n.value;
    const { unit, least, most } = ranges[field];
    if (typeof v === 'number' && v >= least && v <= most) return fact(v);
    say(n, `${name} is a number of ${unit} from ${short(least)} to ${short(most)}`);
    return null;
  };
  const whole = (n: JsonNode | undefined, name: string): number | null => {
    if (n === undefined) return null;
    if (Number.isSafeInteger(n.value) && (n.value as number) >= 1 && (n.value as number) <= 65536) return n.value as number;
    say(n, `${name} is a whole number from 1 to 65536`);
    return null;
  };
  const word = (n: JsonNode | undefined, name: string): string | null => {
    if (n === undefined) return null;
    if (typeof n.value === 'string' && n.value !== '' && !/\p{Cc}/u.test(n.value)) return n.value;
    say(n, `${name} is text on one line`);
    return null;
  };
  const links = (n: JsonNode | undefined, name: string): readonly Link[] | null => {
    if (n === undefined) return null;
    if (!Array.isArray(n.value)) {
      say(n, `${name} is a list of links`);
      return null;
    }
    return (n.value as readonly JsonNode[]).map((l): Link => {
      const o = object(l, linkFields, 'a link');
      for (const k of ['name', 'bytesPerSecond'] as const) if (l.value instanceof Map && !o.has(k)) say(l, `a link says ${k}`);
      const joins = whole(o.get('joins'), 'joins');
      return {
        name: word(o.get('name'), 'name') ?? '',
        bytesPerSecond: amount(o.get('bytesPerSecond'), 'bytesPerSecond'),
        latency: amount(o.get('latency'), 'latency'),
        joins: joins === null ? null : fact(joins),
      };
    });
  };
  const top = object(root, topologyFields, 'a topology');
  if (root.value instanceof Map && top.get('format')?.value !== 'hkgai-topology-1')
    say(top.get('format') ?? root, 'format is to be "hkgai-topology-1"');
  const peak = top.get('peak');
  const peaks = peak ? object(peak, peakKinds, 'peak') : null;
  const memory = amount(top.get('memory'), 'memory');
  const memoryBandwidth = amount(top.get('memoryBandwidth'), 'memoryBandwidth');
  const power = amount(top.get('power'), 'power');
  const inNode = links(top.get('inNode'), 'inNode');
  const betweenNodes = links(top.get('betweenNodes'), 'betweenNodes');
  const rates = peaks && Object.fromEntries([...peaks].map(([k, n]) => [k, amount(n, 'peak', k)]));
  word(top.get('$schema'), '$schema');
  const t: Topology = {
    name: word(top.get('name'), 'name') ?? file.replace(/^.*[/\\]/, '').replace(/\.json$/, ''),
    nodes: whole(top.get('nodes'), 'nodes'),
    devicesPerNode: whole(top.get('devicesPerNode'), 'devicesPerNode'),
    device: {
      ...(memory ? { memory } : {}),
      ...(memoryBandwidth ? { memoryBandwidth } : {}),
      ...(power ? { power } : {}),
      ...(inNode ? { inNode } : {}),
      ...(betweenNodes ? { betweenNodes } : {}),
      ...(rates ? { peak: rates } : {}),
    },
  };
  if (found.length) throw new Refusal(found);
  return t;
}

const unknown: Device = {
  diesPerPackage: null,
  memory: null,
  memoryBandwidth: null,
  peak: {},
  inNode: [],
  betweenNodes: [],
  perNode: null,
  power: null,
  names: {},
};
/** The chip's device with what a topology says of it instead. */
export function deviceWith(device: Device | null, t: Topology | null): Device | null {
  if (!t) return device;
  const base = device ?? unknown;
  const peak = t.device.peak ? { ...base.peak, ...t.device.peak } : base.peak;
  return { ...base, ...t.device, peak };
}
