// The passes in their order, with the reasons for it. `checkOrder` holds the list to its reasons when the program starts.
import type { Graph } from '../../ir/graph.js';
import type { Program } from '../../ir/program.js';
import { verify as verifyGraph } from '../../ir/verify.js';
import { absorbMla } from './absorb-mla.js';
import { bestToken } from './best-token.js';
import { chooseKernels } from './choose-kernels.js';
import { launchText } from './fuse-text.js';
import type { LoweringOptions } from './lowering.js';
import { planMemory, planObjections } from './plan-memory.js';

export interface Pass {
  readonly name: string;
  /** One sentence: what is different afterwards. */
  readonly about: string;
  /** Passes that must stand before this one, and why. */
  readonly after: Readonly<Record<string, string>>;
  run(graph: Graph): Graph;
}

export const passes: readonly Pass[] = [
  {
    name: 'absorb-mla',
    about:
      'Latent attention reads the latent itself: the key and value projections move to the query and the output, so no position is unrolled.',
    after: {},
    run: absorbMla,
  },
];

/** A sentence for each reason that the order of the list breaks, and for each that names no pass. */
export function orderObjections(list: readonly Pick<Pass, 'name' | 'after'>[]): readonly string[] {
  const place = new Map(list.map((p, i) => [p.name, i]));
  return list.flatMap((p, i) =>
    Object.entries(p.after).flatMap(([other, reason]) => {
      const at = place.get(other);
      if (at === undefined) return [`${p.name} stands after ${other} (${reason}), but there is no such pass`];
      return at < i ? [] : [`${p.name} must stand after ${other}: ${reason}`];
    }),
  );
}
const broken = orderObjections(passes);
if (broken.length > 0) throw new Error(broken.join('\n'));

export interface PassOptions extends Pick<LoweringOptions, 'unfused'> {
  /** Which graphs `onDump` is given: after every pass, after those that changed something, or after the one named. `fuse` names no graph: see onFuse. */
  readonly dump?: 'all' | 'changed' | (string & {});
  /** Called with the graph after a pass; `changed` false where the pass gave back the same graph. */
  readonly onDump?: (pass: Pass, graph: Graph, changed: boolean) => void;
  /** With `dump` of all, the changed or `fuse`: what is launched for a token before fusing and after, as text. */
  readonly onFuse?: (before: string, after: string) => void;
  /** The program gives the best token of each row that is asked for, `next`, and no logits. */
  readonly bestToken?: boolean;
  /** The name of the last pass to run. */
  readonly stopAfter?: string;
  /** What is wrong with a graph, a sentence each; ir/verify.ts where nothing else is said. Asked of the graph as it came and after each pass that changed it. */
  readonly verify?: (graph: Graph) => readonly string[];
}

/** A graph made from a config alone has no bytes to check. */
const wellFormed = (g: Graph): readonly string[] => verifyGraph(g, { bytes: g.values.some(v => v.origin.parts.length > 0) });

/** Run the passes in order. Throws where a graph does not verify, naming the pass that made it: that is a bug, not an input error. */
export function runPasses(graph: Graph, options: PassOptions = {}, list: readonly Pass[] = passes): Graph {
  const noPass: readonly unknown[] = ['all', 'changed', 'fuse'];
  for (const name of [options.stopAfter, noPass.includes(options.dump) ? undefined : options.dump]) {
    if (name !== undefined && !list.some(p => p.name === name))
      throw new RangeError(`there is no pass ${name}; there are ${list.map(p => p.name).join(', ')}`);
  }
  const hold = (g: Graph, where: string): void => {
    const objections = (options.verify ?? wellFormed)(g);
    if (objections.length > 0) throw new Error(`the graph ${where} does not verify:\n${objections.join('\n')}`);
  };
  hold(graph, 'as built');
  let now = graph;
  for (const pass of list) {
    const next = pass.run(now);
    const changed = next !== now;
    if (changed) hold(next, `after ${pass.name}`);
    now = next;
    if (options.dump === 'all' || options.dump === pass.name || (options.dump === 'changed' && changed))
      options.onDump?.(pass, now, changed);
    if (options.stopAfter === pass.name) break;
  }
  return now;
}

/**
 * A graph as a program: the passes, kernels for every op, places in memory. Values named in `keep` are in buffers of their own after a run.
 * Throws where the plan of the memory does not hold: that is a bug.
 */
export function lower(graph: Graph, options: PassOptions & LoweringOptions = {}): Program {
  const keep = options.keep ?? [];
  const prepared = runPasses(graph, options);
  const passed = options.bestToken ? bestToken(prepared) : prepared;
  const program = planMemory(chooseKernels(passed, options), { keep });
  if (options.onFuse && ['all', 'changed', 'fuse'].includes(options.dump ?? '')) {
    const at = { tokens: 1, context: graph.limits.context };
    options.onFuse(launchText(chooseKernels(passed, { ...options, unfused: 'all' }), at), launchText(program, at));
  }
  const objections = planObjections(program, { keep });
  if (objections.length > 0) throw new Error(`the memory of ${graph.name} is not planned well:\n${objections.join('\n')}`);
  return program;
}
