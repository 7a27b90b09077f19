// Who may import whom, and which words may stand where.
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from '@jest/globals';

const root = fileURLToPath(new URL('..', import.meta.url));
const files = ['ir', 'src', 'targets'].flatMap(top =>
  readdirSync(join(root, top), { recursive: true, withFileTypes: true }).flatMap(e =>
    e.isFile() && e.name.endsWith('.ts') ? [relative(root, join(e.parentPath, e.name))] : [],
  ),
);
/** A file's place in the rule: its folder, `src` for the stories beside the folders, `targets` for what targets share. */
const placeOf = (file: string): string => {
  const parts = file.split('/');
  if (parts[0] === 'ir') return 'ir';
  if (parts[0] === 'targets') return parts.length === 2 ? 'targets' : `targets/${parts[1]}`;
  return parts.length === 2 ? 'src' : (parts[1] as string);
};
const rule: Readonly<Record<string, readonly string[]>> = {
  ir: [],
  checkpoint: ['ir'],
  models: ['ir', 'checkpoint'],
  kernels: ['ir'],
  placement: ['ir', 'checkpoint'],
  passes: ['ir', 'kernels', 'placement'],
  numeric: ['ir', 'checkpoint'],
  reference: ['ir'],
  bundle: ['ir', 'checkpoint'],
  plan: ['ir', 'checkpoint', 'models', 'targets'],
  targets: ['ir'],
  src: ['ir', 'checkpoint', 'models', 'kernels', 'placement', 'passes', 'numeric', 'reference', 'bundle', 'plan', 'targets'],
  cli: ['ir', 'src'],
};
function imports(file: string): readonly string[] {
  const text = readFileSync(join(root, file), 'utf8');
  return [...text.matchAll(/(?:from|import)\s*\(?\s*'([^']+)'/g)].map(m => m[1] as string);
}

describe('the import rule', () => {
  it('holds in every file', () => {
    const broken = files.flatMap(file => {
      const here = placeOf(file);
      return imports(file).flatMap(i => {
        if (!i.startsWith('.')) return [];
        const target = relative(root, resolve(join(root, dirname(file)), i)).replace(/\.js$/, '.ts');
        const there = placeOf(target);
        if (there === here) return [];
        const inTargets = here.startsWith('targets');
        const allowed = inTargets ? ['ir', 'targets'] : rule[here];
        const table = file === 'targets/index.ts'; // the one table of targets names them all
        return allowed?.includes(there) || (table && there.startsWith('targets/'))
          ? []
          : [`${file} imports ${target}: ${here} may import ${allowed?.join(', ') || 'nothing'}`];
      });
    });
    expect(broken).toEqual([]);
  });
  it('keeps packages in their places', () => {
    const places: Readonly<Record<string, RegExp>> = {
      commander: /^src\/cli\//,
      chalk: /^src\/cli\//,
      ora: /^src\/cli\//,
      '@tensorflow': /^src\/reference\//,
      protobufjs: /^src\/bundle\//,
      '@huggingface': /^src\/checkpoint\//,
    };
    const broken = files.flatMap(file =>
      imports(file).flatMap(i =>
        Object.entries(places).flatMap(([name, place]) => (i.startsWith(name) && !place.test(file) ? [`${file} imports ${i}`] : [])),
      ),
    );
    expect(broken).toEqual([]);
  });
  it("has no chip's name in shared code", () => {
    const shared = files.filter(f => /^(ir|src\/(passes|kernels|numeric|models))\//.test(f));
    const named = shared.filter(f =>
      /\b(ascend|biren|nvidia|910[bc]|br1[0-9]{2}|h100|h200|sm_[0-9]+)\b/i.test(readFileSync(join(root, f), 'utf8')),
    );
    expect(named).toEqual([]);
  });
  it('uses no Math.exp, log or pow where bytes are made', () => {
    const makers = files.filter(f => /^(ir|src\/(passes|kernels|numeric|models|bundle)|targets)\//.test(f) || f === 'src/compile.ts');
    const used = makers.filter(f => /Math\.(exp|log|log2|log10|pow|sin|cos|tan|tanh|cbrt)\b/.test(readFileSync(join(root, f), 'utf8')));
    expect(used).toEqual([]);
  });
});
