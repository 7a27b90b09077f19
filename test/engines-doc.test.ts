// docs/engines.md is written from the targets' formats, engines and rules: UPDATE=1 npm test -- test/engines-doc.test.ts
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { expect, it } from '@jest/globals';
import { ascendRules } from '../targets/ascend/conformance.js';
import { birenRules } from '../targets/biren/conformance.js';
import { cpuRules } from '../targets/cpu/conformance.js';
import { ggufRules } from '../targets/cpu/gguf.js';
import { llamaRules } from '../targets/cpu/gguf-conformance.js';
import { cudaRules } from '../targets/cuda/conformance.js';
import { targets } from '../targets/index.js';

const page = fileURLToPath(new URL('../docs/engines.md', import.meta.url));
const rules: Readonly<Record<string, readonly (readonly [string, Readonly<Record<string, string>>])[]>> = {
  cpu: [
    ['safetensors', cpuRules],
    ['GGUF, the file', ggufRules],
    ['GGUF, the model', llamaRules],
  ],
  cuda: [['all formats', cudaRules]],
  ascend: [['all formats', ascendRules]],
  biren: [['all formats', birenRules]],
};
const table = (head: readonly string[], rows: readonly (readonly string[])[]): string =>
  [head, head.map(() => '---'), ...rows].map(r => `| ${r.map(c => c.replaceAll('|', '\\|')).join(' | ')} |`).join('\n');

function written(): string {
  return `# Engine directories

*Written from \`targets/*/engine.ts\` and \`targets/*/conformance.ts\` by \`UPDATE=1 npm test -- test/engines-doc.test.ts\`.*

\`hkgai compile MODEL -t TARGET[:CHIP] -o OUT\` writes \`OUT/TARGET/engine/\`: config, weights, index, tokenizer and generation config as the engine
finds them on its disk. \`--runtime NAME[@VERSION]\` names the engine; without it the directory is what all known ones read. \`--format\` chooses where an
engine reads several. What is stored as what is a [recipe](recipes.md)'s to say.

Every compile ends by holding the directory against the rules below, as the engine's loader would; values are looked at in samples there. \`hkgai verify
BUNDLE\` does it again over every byte, and \`hkgai verify DIR --engine TARGET[:CHIP] [--runtime NAME]\` does it for any directory, whoever wrote it. The rules
were read in the engines' sources; which of the engines was run is said beside each format. A finding names rule, tensor or file, and what is wrong.

Beside \`engine/\` lie \`ledger.jsonl\` (every source tensor with its hash and where it went or why it was dropped; every output tensor with what it was made
of, the line of the recipe and its error figures; the totals balance or the compile fails) and \`recipe.json\` (the recipe, and what it came to).

${Object.values(targets)
  .map(
    t => `## ${t.name}

${table(
  ['format', 'what it is', 'who reads it'],
  t.engines.formats.map(f => [`\`${f.name}\``, f.about, f.readers]),
)}

${table(
  ['engine', '', 'versions told apart', 'formats'],
  Object.entries(t.engines.runtimes).map(([name, r]) => [
    `\`${name}\``,
    r.about,
    r.versions.join(', ') || '',
    r.formats.map(f => `\`${f}\``).join(', '),
  ]),
)}

${rules[t.name]!.map(([of, list]) => `### Rules: ${of}\n\n${table(['rule', ''], Object.entries(list))}`).join('\n\n')}
`,
  )
  .join('\n')}`;
}
it('docs/engines.md says what the targets have', () => {
  const now = written();
  if (process.env.UPDATE) writeFileSync(page, now);
  expect(readFileSync(page, 'utf8')).toBe(now); // UPDATE=1 writes it anew
});
