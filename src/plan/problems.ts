// What may be said of topologies, ways to spread a model, and saved plans.
import { type Place, type Problem, problem } from '../../ir/problem.js';

const howParallel = 'Write it as tp=8,dp=2,pp=1,ep=16, with redundant=N and nodes=N where wanted; or take a row of a plan, as PLAN.json#2.';

export const parallelText = (text: string, what: string): Problem =>
  problem('HK2701', `--parallel ${text}: ${what}`, { next: howParallel });
export const devicesDiffer = (name: string, needs: number, devices: number, nodes: number): Problem =>
  problem('HK2702', `${name} is for ${needs} devices, but there are ${devices} on ${nodes} ${nodes === 1 ? 'node' : 'nodes'}`, {
    why: 'A model takes tp times dp times pp devices, the same number on each node.',
    next: 'Change the numbers, or --devices and --nodes.',
  });
export const notLegalHere = (name: string, why: string, next: string): Problem =>
  problem('HK2703', `${name} does not fit this model: ${why}`, { next });
export const topologyBad = (file: string, what: string, place: Omit<Place, 'file'> = {}): Problem =>
  problem('HK2704', `${file}: ${what}`, {
    places: [{ file, ...place }],
    next: 'src/topology.schema.json has the fields of a topology; docs/plan.md shows one.',
  });
/** `known`: chips of the target of which something is. */
export const noDevice = (chip: string, known: readonly string[]): Problem =>
  problem('HK2705', `Nothing is known of ${chip} as a device`, {
    why: `A plan needs its memory at least.${known.length ? ` Chips of this target that are known: ${known.join(', ')}.` : ''}`,
    next: 'Name a chip with --target target:chip (hkgai targets lists them), or say what it is with --topology FILE.',
  });
export const nodesUneven = (devices: number, nodes: number): Problem =>
  problem('HK2706', `${devices} devices cannot stand on ${nodes} equal nodes`, { next: 'Choose --devices as a multiple of --nodes.' });
export const tooMany = (devices: number, most: number): Problem =>
  problem('HK2718', `${devices} devices are more than a plan looks at`, { next: `Ask for ${most} or fewer.` });
/** More nodes, or more devices on one, than a topology has. */
export const beyondTopology = (name: string, what: string, has: number, asked: number): Problem =>
  problem('HK2719', `The topology ${name} has ${has} ${what}, and ${asked} are asked for`, {
    next: 'Ask for fewer with --devices, --nodes or --parallel, or say in the topology what there is.',
  });
export const planUnreadable = (file: string, what: string, place: Omit<Place, 'file'> = {}): Problem =>
  problem('HK2707', `${file} is no saved plan: ${what}`, {
    places: [{ file, ...place }],
    next: 'Write one with hkgai plan MODEL --target … --devices N --json > PLAN.json.',
  });
export const planOfAnother = (file: string, what: string): Problem =>
  problem('HK2708', `${file} is a plan for another checkpoint: ${what}`, {
    places: [{ file }],
    why: 'Bytes and legal ways to spread follow from config.json and the headers.',
    next: 'Plan this model anew with hkgai plan MODEL --devices N --json.',
  });
export const noSuchRow = (file: string, row: string, rows: number): Problem =>
  problem('HK2709', `${file} has no row ${row}`, {
    places: [{ file }],
    why: rows === 0 ? 'It has no rows.' : `Its rows are 1 to ${rows}, in the order of the table.`,
    next: 'Name a row as PLAN.json#2.',
  });
export const nothingLegal = (devices: number, nodes: number, why: readonly string[]): Problem =>
  problem('HK2710', `The model cannot be spread over ${devices} devices on ${nodes} ${nodes === 1 ? 'node' : 'nodes'}`, {
    why: why.join(' '),
    next: 'Choose another number of devices.',
  });
export const optionClash = (what: string, next: string): Problem => problem('HK2711', what, { next });
export const notSpread = (format: string): Problem =>
  problem('HK2712', `${format} is one container for one process: it is not spread over devices`, {
    next: 'Choose another --format or --target.',
  });
export const contextBeyond = (context: number, most: number): Problem =>
  problem('HK2713', `--context ${context} is longer than the ${most} positions that the model was made for`, { next: 'Ask for less.' });
export const needsDevices = (options: readonly string[]): Problem =>
  problem('HK2714', `${options.join(', ')} ${options.length === 1 ? 'is' : 'are'} of a plan of devices`, {
    next: 'Add --devices N, --topology FILE, --parallel or --compare.',
  });
export const headersNeeded = (method: string): Problem =>
  problem('HK2715', `config.json says that weights are in ${method}: how they lie is known from their headers alone`, {
    next: 'Name the checkpoint, headers alone will do; or a --quantise that says what becomes of all linears.',
  });
export const configAlone = (file: string): Problem =>
  problem('HK2716', `${file} has no weights, and a plan of a compile counts theirs`, {
    places: [{ file }],
    next: 'Add --target target:chip and --devices N for a plan of devices, or --compare: a config.json will do for these. Else name the directory of the checkpoint; headers alone will do.',
  });
