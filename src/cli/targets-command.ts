// hkgai targets: what can be compiled for, what is known of each chip, how each engine wants it, and what was proved.
import { figuresOf } from '../chips.js';
import { resolveTarget, targets } from '../compile.js';
import { bytes, grouped, out, print, printJson, table } from './terminal.js';

type Target = (typeof targets)[string];
type Chip = Target['chips'][number];
type Device = NonNullable<Chip['device']>;

export async function targetsCommand(asked: string | undefined, options: { readonly json?: boolean }): Promise<number> {
  if (asked !== undefined) {
    const { target, chip } = resolveTarget(asked);
    const whole = !asked.includes(':');
    if (options.json) printJson(whole ? described(target) : chip);
    else if (whole) show(target);
    else showChip(target, chip);
    return 0;
  }
  const list = Object.values(targets);
  if (options.json) printJson(list.map(described));
  else for (const t of list) show(t);
  return 0;
}

const described = (t: Target): object => ({
  name: t.name,
  about: t.about,
  language: t.language,
  chips: t.chips,
  native: t.native !== null,
  proved: t.proved,
  formats: t.engines.formats.map(f => ({ name: f.name, about: f.about, readers: f.readers })),
  recipe: t.engines.recipe,
  recipes: Object.entries(t.engines.recipes).map(([name, r]) => ({ name, format: formatFor(t.engines, name), ...r })),
  runtimes: Object.entries(t.engines.runtimes).map(([name, r]) => ({ name, ...r })),
});

function show(t: Target): void {
  print(`${out.bold(t.name)}  ${t.about}`);
  print(`  ${t.native ? `whole programs in ${t.language}` : `kernels in ${t.language}; whole programs are not there yet`}`);
  print(`  proved: ${t.proved}`);
  for (const c of t.chips) print(`  ${out.cyan(`${t.name}:${c.name}`)}  ${c.about}`);
  const known = t.chips.flatMap(c => (c.device ? [[`    ${c.name}`, ...columns(c.device)]] : []));
  if (known.length > 0) {
    print('  a device of each, dense operations a second and bytes a second one way; - is not published, blank is no unit for it');
    print(table([['', 'memory', 'GB/s', ...kinds, 'links in a node', 'between nodes'], ...known], [1, 2, 3, 4, 5, 6]));
  }
  const { formats, recipe, recipes, runtimes } = t.engines;
  print('  --format');
  print(table(formats.map(f => [`    ${f.name}`, f.about])));
  print('  --quantise');
  print(
    table(
      Object.entries(recipes).map(([name, r]) => {
        const format = formatFor(t.engines, name);
        return [
          `    ${name}${name === recipe ? ' (usual)' : ''}`,
          `${r.about}${format === formats[0]?.name || r.about.toLowerCase().includes(format) ? '' : ` (${format})`}`,
        ];
      }),
    ),
  );
  print('  --runtime');
  print(
    table(
      Object.entries(runtimes).map(([name, r]) => [
        `    ${name}`,
        `${r.about}${r.versions.length ? `; @${r.versions.join(', @')}` : ''}: ${r.formats.join(', ')}`,
      ]),
    ),
  );
  print('');
}

const kinds = ['bf16', 'int8', 'fp8', 'fp4'] as const;
/** 3350 of 3.35e12. */
const giga = (n: number): string => String(Number((n / 1e9).toPrecision(4)));
/** 989T of 9.894e14; 4.5P of 4.5e15. */
const peak = (n: number): string => (n >= 1e15 ? `${Number((n / 1e15).toPrecision(3))}P` : `${Number((n / 1e12).toPrecision(3))}T`);
const links = (list: Device['inNode']): string =>
  list
    .map(l => `${l.name} ${l.bytesPerSecond ? `${giga(l.bytesPerSecond.value)} GB/s` : '-'}${l.joins ? ` x${l.joins.value}` : ''}`)
    .join(', ');
const columns = (d: Device): readonly string[] => [
  d.memory ? bytes(d.memory.value) : '-',
  d.memoryBandwidth ? giga(d.memoryBandwidth.value) : '-',
  ...kinds.map(k => {
    const p = d.peak[k];
    return p === undefined ? '' : p === null ? '-' : peak(p.value);
  }),
  links(d.inNode),
  links(d.betweenNodes),
];

/** Every figure of a chip as it stands in its file, with its source. */
function showChip(t: Target, c: Chip): void {
  print(`${out.bold(`${t.name}:${c.name}`)}  ${c.about}`);
  if (c.family) print(`  engines, formats and refusals are those of ${t.name}:${c.family}`);
  if (!c.device) print('  no chip in particular: it has no figures of its own');
  print(
    table(
      figuresOf(c).map(([name, f]) => [
        `  ${name}`,
        f === null ? (name === 'tileBytes' && !c.engineOnly ? 'no limit' : 'not published') : figure(f.value),
        out.dim(f?.source ?? ''),
      ]),
    ),
  );
}
/** 3.35e12 and 85,520,809,984: no digit is lost. */
function figure(v: number | string): string {
  if (typeof v === 'string') return v;
  const short = v.toExponential().replace('e+', 'e');
  return (v >= 1e6 || v < 1e-2) && short.length < 10 ? short : Number.isInteger(v) ? grouped(v) : String(v);
}
/** The format that a recipe goes out in where none is asked for. */
const formatFor = (e: Target['engines'], recipe: string): string => e.formatOf[recipe] ?? (e.formats[0]?.name as string);
