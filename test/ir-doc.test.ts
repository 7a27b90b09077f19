// docs/ir.md is written from the ops table and the storages: UPDATE=1 npm test -- test/ir-doc.test.ts
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { expect, it } from '@jest/globals';
import { inputNames, isRankOp, type OpName, opNames, ops } from '../ir/ops.js';
import { printGraph } from '../ir/print.js';
import { elements } from '../ir/storage.js';
import { openCheckpoint } from '../src/checkpoint/shards.js';
import { buildModel } from '../src/models/index.js';
import { fixtures } from './golden-cases.js';

const page = fileURLToPath(new URL('../docs/ir.md', import.meta.url));
const described = (names: readonly OpName[]): string =>
  names
    .map(op => {
      const inputs = inputNames(op).map(i => (i.optional ? `[${i.name}]` : i.name));
      return `**${op}**(${inputs.join(', ')})\n${ops[op].about}`;
    })
    .join('\n\n');
function written(): string {
  const c = openCheckpoint(`${fixtures}/hkgai-nano`);
  const sample = printGraph(buildModel(c.config, c.tensors).graph, { withoutBytes: true }).split('\n');
  const from = sample.findIndex(l => l.startsWith('layers 1..2'));
  return `# The IR

*Written from \`ir/ops.ts\` and \`ir/storage.ts\` by \`UPDATE=1 npm test -- test/ir-doc.test.ts\`.*

A **graph** (\`ir/graph.ts\`) is a readonly list of values in order, and named outputs. A **value** is one op with inputs by name, attributes, a **type**
(a shape of dims and a **storage**) and an **origin**: its role and layer, the source parts of a weight (file, tensor, byte range, scales), and every pass that
remade it. Passes return new graphs. Weights are where their bytes are, never arrays; the experts of a layer are one stacked weight with a part for each.

A **dim** is a number, a symbol that a run settles (\`tokens\`: rows of this call over all sequences; \`wanted\`: rows whose logits are asked for; \`sequences\`;
\`context\`), or \`+\`, \`*\`, \`ceildiv\`, \`min\` of these. The graph's limits give each symbol its largest value.

A call brings rows: token, position and sequence of each. **States** (caches) are values: \`state\` is what the call found, \`append\` gives the state with this call's
rows written, and readers take the appended one. Position p of a state lies at row p % capacity; with \`every\` = r, one entry is kept for r positions. A ring's
capacity covers its window and the longest call.

\`ir/verify.ts\` lists every invariant at its head and runs between passes. \`ir/print.ts\` and \`ir/parse.ts\` are the text form, \`ir/bundle.proto\` with
\`src/bundle/graph-proto.ts\` the protocol-buffer form; both give the same graph back.

## Outputs and names

\`logits\` [wanted, vocab], and \`mtp.0.logits\` where the model has a multi-token prediction block (it reads the input \`next_ids\`: the token after each row).
Values that checks look at are named alike in every generation: \`embedding\`, \`layers.{i}.attn_out\`, \`layers.{i}.out\`, \`layers.{i}.router_logits\`,
\`layers.{i}.indices\`, \`layers.{i}.expert_weights\`, \`final_norm\`.

## Text form

Equal layers are said once; \`*\` is the layer's number, \`<\` the one before. Two layers of hkgai-nano:

\`\`\`
${sample.slice(from, from + 12).join('\n')}
  ...
\`\`\`

\`bytes\` lines at the end give each weight's parts. \`hkgai inspect MODEL --ir [--layer N]\` prints it, \`hkgai compile --dump all|changed|PASS\` after passes.

## Storages

Plain elements stand for themselves; a scaled storage is an element with a block shape and a scale: \`f8e4m3[128x128]f32\`, \`i8[1x*]f32\` (a whole row),
\`i4[1x32]f32\`, \`f4e2m1[1x32]e8m0\`. value[r, c] = decode(code[r, c]) * scale[floor(r / rows), floor(c / columns)]; the last blocks may be shorter. Codes of half
a byte: element 2k in the low nibble of byte k.

| element | bits | meaning |
|---|---|---|
${Object.entries(elements)
  .map(([name, e]) => `| ${name} | ${e.bits} | ${e.about} |`)
  .join('\n')}

## Ops

${described(opNames.filter(op => !isRankOp(op)))}

## Ranks

A graph may be one of several that run together, a rank each (\`rank=1/4\` at the end of the text form's head). A weight that a rank holds a part of has the
part's shape, and its origin says the shape of the whole and the first place along each dimension (\`of [8, 16, 96] from [2, 0, 0]\`); its bytes are those of
the whole matrices, so that a reader finds rows and columns where they are; of a stack of experts, only the matrices that are kept have a part. Blocks of
scales are never cut. \`ir/verify-ranks.ts\` says what holds of all ranks together. How a model is dealt to ranks: [sharding.md](sharding.md).

${described(opNames.filter(isRankOp))}
`;
}
it('docs/ir.md is as the tables say (UPDATE=1 rewrites it)', () => {
  if (process.env.UPDATE) writeFileSync(page, written());
  expect(readFileSync(page, 'utf8')).toBe(written());
});
