// Where each buffer lies. One arena, offsets fixed before the first run: a buffer holds its bytes from the launch that writes it first to
// the last that reads it, and buffers whose lives do not meet share bytes. Largest first, each into the smallest gap that holds it.
//
// What `planObjections` proves of a plan: every offset is a multiple of 64 and inside the arena; no two buffers alive at one launch
// overlap; nothing is read before it is written. What it does not: that a kernel stays inside its parameters (the emulators do).
import type { Buffer, Launch, Program } from '../../ir/program.js';

export const alignment = 64;

export interface MemoryOptions {
  /** Graph values whose buffers must still hold their values after a run, as `verify` wants; 'all' keeps every one. */
  readonly keep?: readonly string[] | 'all';
}

/** Launch numbers, first and last included. */
export interface Life {
  readonly from: number;
  readonly to: number;
}

/** From the first to the last launch that names a buffer, in any variant; to the end for outputs and kept ones. */
export function lives(program: Pick<Program, 'launches' | 'outputs' | 'buffers'>, options: MemoryOptions = {}): ReadonlyMap<string, Life> {
  const end = program.launches.length;
  const kept = new Set<string>([
    ...Object.values(program.outputs),
    ...(options.keep === 'all' ? program.buffers.map(b => b.name) : (options.keep ?? [])),
  ]);
  const found = new Map<string, Life>();
  program.launches.forEach((launch, at) => {
    for (const name of buffersOf(launch)) found.set(name, { from: found.get(name)?.from ?? at, to: kept.has(name) ? end : at });
  });
  return found;
}

/** The buffers a launch names, in any of its variants, each once. */
export const buffersOf = (launch: Launch): readonly string[] => [
  ...new Set(launch.variants.flatMap(v => v.args.flatMap(a => (a.kind === 'buffer' ? [a.buffer] : [])))),
];

const roundUp = (bytes: number): number => Math.ceil(bytes / alignment) * alignment;
const meet = (a: Life, b: Life): boolean => a.from <= b.to && b.from <= a.to;

/** The program with offsets set. Buffers that no launch names are left out. */
export function planMemory(program: Program, options: MemoryOptions = {}): Program {
  const life = lives(program, options);
  const order = program.buffers
    .filter(b => life.has(b.name))
    .map((buffer, i) => ({ buffer, i, life: life.get(buffer.name) as Life, bytes: roundUp(buffer.bytes) }))
    .sort((a, b) => b.bytes - a.bytes || a.life.from - b.life.from || a.i - b.i);
  const placed: { readonly from: number; readonly to: number; readonly life: Life }[] = [];
  const offsets = new Map<string, number>();
  let arena = 0;
  for (const { buffer, life: mine, bytes } of order) {
    const taken = placed.filter(p => meet(p.life, mine)).sort((a, b) => a.from - b.from);
    const offset = bestGap(taken, bytes);
    placed.push({ from: offset, to: offset + bytes, life: mine });
    offsets.set(buffer.name, offset);
    arena = Math.max(arena, offset + bytes);
  }
  const buffers = program.buffers.flatMap((b): Buffer[] => {
    const offset = offsets.get(b.name);
    return offset === undefined ? [] : [{ ...b, offset }];
  });
  return { ...program, buffers, arena };
}

/** The start of the smallest gap between taken stretches (in order of their start) that holds so many bytes, or the end of the last. */
function bestGap(taken: readonly { readonly from: number; readonly to: number }[], bytes: number): number {
  let best: { readonly at: number; readonly size: number } | null = null;
  let reached = 0;
  for (const t of taken) {
    const size = t.from - reached;
    if (size >= bytes && size > 0 && (best === null || size < best.size)) best = { at: reached, size };
    reached = Math.max(reached, t.to);
  }
  return best?.at ?? reached;
}

/** What is wrong with a plan, a sentence each; empty where it holds. The lives are found again, not taken from the planner. */
export function planObjections(program: Program, options: MemoryOptions = {}): readonly string[] {
  const life = lives(program, options);
  const by = new Map(program.buffers.map(b => [b.name, b]));
  const objections: string[] = [];
  const live = program.buffers.filter(b => life.has(b.name));
  for (const b of live) {
    if (b.offset < 0 || b.offset % alignment !== 0) objections.push(`${b.name} lies at ${b.offset}, not at a multiple of ${alignment}`);
    if (b.offset + b.bytes > program.arena)
      objections.push(`${b.name} ends at ${b.offset + b.bytes}, past the arena of ${program.arena} bytes`);
  }
  live.forEach((a, i) => {
    for (const b of live.slice(i + 1)) {
      const apart = a.offset + a.bytes <= b.offset || b.offset + b.bytes <= a.offset;
      if (!apart && meet(life.get(a.name) as Life, life.get(b.name) as Life))
        objections.push(`${a.name} and ${b.name} are alive at once and overlap`);
    }
  });
  const written = new Set<string>();
  for (const launch of program.launches) {
    const writes: string[] = [];
    for (const v of launch.variants) {
      v.args.forEach((a, i) => {
        if (a.kind !== 'buffer') return;
        if (!by.has(a.buffer)) objections.push(`${launch.value.name} names ${a.buffer}, which is no buffer`);
        if (v.kernel?.params[i]?.access === 'write') writes.push(a.buffer);
        else if (!written.has(a.buffer)) objections.push(`${launch.value.name} reads ${a.buffer} before it is written`);
      });
    }
    for (const w of writes) written.add(w);
  }
  return [...new Set(objections)];
}
