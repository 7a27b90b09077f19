// Every code has a page, every page a code, and a code is one message.
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from '@jest/globals';

const root = fileURLToPath(new URL('..', import.meta.url));
const sources = ['ir', 'src', 'targets'].flatMap(top =>
  readdirSync(join(root, top), { recursive: true, withFileTypes: true }).flatMap(e =>
    e.isFile() && e.name.endsWith('.ts') ? [join(e.parentPath, e.name)] : [],
  ),
);
const uses = sources.flatMap(file => [...readFileSync(file, 'utf8').matchAll(/problem\(\s*'(HK\d{4})'/g)].map(m => m[1] as string));
const pages = readdirSync(join(root, 'docs/errors')).flatMap(f => /^(HK\d{4})\.md$/.exec(f)?.[1] ?? []);

describe('error codes', () => {
  it('are each one message', () => expect(uses.filter((c, i) => uses.indexOf(c) !== i)).toEqual([]));
  it('each have a page, and no page lacks a code', () => expect([...pages].sort()).toEqual([...uses].sort()));
  it('each page says what it is and what to do', () => {
    for (const c of pages) {
      const text = readFileSync(join(root, `docs/errors/${c}.md`), 'utf8');
      expect(text).toMatch(new RegExp(`^# ${c}: \\S`));
      expect(text).toContain('## What to do');
      expect(readFileSync(join(root, 'docs/errors/README.md'), 'utf8')).toContain(`[${c}](${c}.md)`);
    }
  });
});
