// What is known of a chip, figure by figure.
import type { Chip, Device, Fact } from '../targets/target.js';

/** Every figure of a chip with its path, in the order of the file; null where the file says that it is not published. */
export function figuresOf(chip: Chip): readonly (readonly [string, Fact<number | string> | null])[] {
  const links = (of: 'inNode' | 'betweenNodes', d: Device): readonly (readonly [string, Fact<number> | null])[] =>
    d[of].flatMap(l => (['bytesPerSecond', 'latency', 'joins'] as const).map(f => [`${of}.${l.name}.${f}`, l[f]] as const));
  const d = chip.device;
  return [
    ['tileBytes', chip.tileBytes] as const,
    ...(d
      ? [
          ...(['diesPerPackage', 'memory', 'memoryBandwidth'] as const).map(f => [f, d[f]] as const),
          ...Object.entries(d.peak).map(([kind, f]) => [`peak.${kind}`, f] as const),
          ...links('inNode', d),
          ...links('betweenNodes', d),
          ...(['perNode', 'power'] as const).map(f => [f, d[f]] as const),
          ...Object.entries(d.names).map(([name, f]) => [`names.${name}`, f] as const),
        ]
      : []),
  ];
}
