// hkgai targets: what can be compiled for, and what was proved.
import { targets } from '../compile.js';
import { out, print, printJson } from './terminal.js';

export async function targetsCommand(options: { readonly json?: boolean }): Promise<number> {
  const list = Object.values(targets);
  if (options.json) {
    printJson(
      list.map(t => ({ name: t.name, about: t.about, language: t.language, chips: t.chips, native: t.native !== null, proved: t.proved })),
    );
    return 0;
  }
  for (const t of list) {
    print(`${out.bold(t.name)}  ${t.about}`);
    print(`  ${t.native ? `whole programs in ${t.language}` : `kernels in ${t.language}; whole programs are not there yet`}`);
    print(`  proved: ${t.proved}`);
    for (const c of t.chips) print(`  ${out.cyan(`${t.name}:${c.name}`)}  ${c.about}`);
    print('');
  }
  return 0;
}
