// Launches as text: for each run of layers that are alike, one line a kernel with the values that it computes. What `--dump fuse` and
// `inspect --kernels` print.
import type { Launch, Program } from '../../ir/program.js';
import { type At, type LaunchTraffic, totalOf, trafficOf } from './fuse-traffic.js';

/** The launches of layers that have the same kernels, one layer's in full. */
export interface Alike {
  /** Numbers of the layers, or -1: outside. */
  readonly layers: readonly number[];
  readonly launches: readonly LaunchTraffic[];
}
/** In order; a layer stands where the first like it does. */
export function alike(p: Program, at: At): readonly Alike[] {
  const found = new Map<string, { readonly layers: number[]; readonly launches: readonly LaunchTraffic[] }>();
  const all = trafficOf(p, at);
  for (let i = 0; i < all.length; ) {
    const { layer } = (all[i] as LaunchTraffic).launch;
    let end = i;
    while (end < all.length && (all[end] as LaunchTraffic).launch.layer === layer) end++;
    const launches = all.slice(i, end);
    const word = `${layer < 0 ? i : ''} ${launches.map(l => l.kernel.name).join(' ')}`;
    const known = found.get(word);
    if (known) known.layers.push(layer);
    else found.set(word, { layers: [layer], launches });
    i = end;
  }
  return [...found.values()];
}

/** `q_b_proj, q`: what a launch computes on the way and what it writes, without the layer's name. */
export const valuesOf = (l: Launch): string =>
  [...(l.fused ?? []), ...l.also, l.value].map(v => v.name.replace(/^layers\.\d+\./, '')).join(', ');

/** `3 to 60`, `2, 4, 6`. */
function ranges(numbers: readonly number[]): string {
  const out: string[] = [];
  for (let i = 0; i < numbers.length; ) {
    let j = i;
    while (numbers[j + 1] === (numbers[j] as number) + 1) j++;
    out.push(j > i + 1 ? `${numbers[i]} to ${numbers[j]}` : numbers.slice(i, j + 1).join(', '));
    i = j + 1;
  }
  return out.join(', ');
}
export const placeOf = (a: Alike): string =>
  a.layers[0] === -1 ? 'outside the layers' : `layer${a.layers.length > 1 ? 's' : ''} ${ranges(a.layers)}`;

export const kernels = (n: number): string => `${n} kernel${n === 1 ? '' : 's'}`;

/** All launches of a token. */
export function launchText(p: Program, at: At): string {
  const total = totalOf(trafficOf(p, at));
  const kinds = alike(p, at).map(a => {
    const width = Math.max(...a.launches.map(l => l.kernel.name.length));
    const lines = a.launches.map(l => `  ${l.kernel.name.padEnd(width)}  ${valuesOf(l.launch)}`);
    return [`${placeOf(a)}: ${kernels(a.launches.length)}`, ...lines].join('\n');
  });
  return [`${total.kernels} kernels a token, ${total.rows} bytes of rows between them at ${at.context} positions`, ...kinds].join('\n');
}
