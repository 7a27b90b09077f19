// hkgai targets: what can be compiled for, how each engine wants it, and what was proved.
import { targets } from '../compile.js';
import { out, print, printJson, table } from './terminal.js';

export async function targetsCommand(options: { readonly json?: boolean }): Promise<number> {
  const list = Object.values(targets);
  if (options.json) {
    printJson(
      list.map(t => ({
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
      })),
    );
    return 0;
  }
  for (const t of list) {
    print(`${out.bold(t.name)}  ${t.about}`);
    print(`  ${t.native ? `whole programs in ${t.language}` : `kernels in ${t.language}; whole programs are not there yet`}`);
    print(`  proved: ${t.proved}`);
    for (const c of t.chips) print(`  ${out.cyan(`${t.name}:${c.name}`)}  ${c.about}`);
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
  return 0;
}
/** The format that a recipe goes out in where none is asked for. */
const formatFor = (e: (typeof targets)[string]['engines'], recipe: string): string => e.formatOf[recipe] ?? (e.formats[0]?.name as string);
