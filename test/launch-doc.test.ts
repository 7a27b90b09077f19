// docs/launch.md is written from the tables of options: UPDATE=1 npm test -- test/launch-doc.test.ts
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { expect, it } from '@jest/globals';
import { vllmBrFlags } from '../targets/biren/launch.js';
import type { Flag, FlagTable } from '../targets/flags.js';
import { sglangFlags } from '../targets/sglang.js';
import { vllmFlags } from '../targets/vllm.js';

const page = fileURLToPath(new URL('../docs/launch.md', import.meta.url));
const table = (head: readonly string[], rows: readonly (readonly string[])[]): string =>
  [head, head.map(() => '---'), ...rows].map(r => `| ${r.map(c => c.replaceAll('|', '\\|')).join(' | ')} |`).join('\n');
const takes = ({ takes: t }: Flag): string =>
  ({ switch: '', whole: 'a whole number', fraction: 'a fraction', text: 'text', json: 'a JSON object' })[t as string] ??
  (Array.isArray(t)
    ? t.join(', ')
    : Object.entries(t)
        .map(([v, words]) => `${v}: ${words.join(', ')}`)
        .join('; '));
const options = (t: FlagTable, title: string): string => {
  const versions = Object.keys(t.versions);
  return `### ${title}

${versions.map(v => `- ${v}: \`${t.versions[v]}\``).join('\n')}

Lines of \`${t.file}\`, unless another file is named.${versions.length > t.usual.length ? ` Without a version: ${t.usual.join(', ')}.` : ''}

${table(
  ['option', 'takes', ...versions],
  Object.entries(t.flags).map(([flag, f]) => [
    flag === 'MODEL' ? 'the model, alone' : `\`${flag}\``,
    takes(f) + (f.file ? ` (\`${f.file}\`)` : ''),
    ...versions.map(v => (f.at[v] === undefined ? 'not there' : String(f.at[v]))),
  ]),
)}`;
};

const written = (): string => `# Launch files

*Written from the tables of options by \`UPDATE=1 npm test -- test/launch-doc.test.ts\`.*

\`TARGET/launch/\` holds what starts the engines of a target with a model spread one way: scripts of POSIX sh for plain nodes, with Ray where the engine
uses it; a LeaderWorkerSet with a Service for Kubernetes; for MindIE HCCL's table of ranks. \`launch/README.md\` there has the steps and every blank.
None of it was run on devices: scripts are run by the tests with programs that write down what they are given, manifests are held against schemas
written from the published types (\`fixtures/kubernetes\`), and options against the tables below.

\`\`\`
launch/README.md                       steps, blanks, what is known of each engine and what is not
launch/fill.sh                         fills in blanks: writes a copy to ./site, the bundle stays as it was hashed
launch/health.sh                       waits until /health answers
launch/ENGINE/node-K.sh                starts node K: in a container, or on the host with HKGAI_RUN=host in site.env
launch/ENGINE/ray-node-K.sh            the same with Ray
launch/ENGINE/site.env                 the form of blanks
launch/ENGINE/leaderworkerset.yaml     a form with @HKGAI_...@ for blanks
launch/mindie/rank-table.json          a form: version 1.0 of Atlas A2, 1.2 of an A3 super pod
\`\`\`

Addresses, interfaces, device addresses, digests and names of a cluster are blanks: nothing stands in them that was guessed. A script with a blank
that it needs ends with 78, and says which one and how to fill it in:

\`\`\`
sh launch/fill.sh NODE0_ADDRESS=10.0.0.1 NODE1_ADDRESS=10.0.0.2 MODEL_PATH=/data/v3 vllm/IMAGE=registry.site/vllm:1
sh site/vllm/node-0.sh        # on node 0, with a copy of site/
sh site/vllm/node-1.sh        # on node 1, with a copy of site/
\`\`\`

Commands are for the directory that holds \`launch/\`. The length of a sequence is that of \`compile --context N\`, a saved plan's is not taken along; without it engines take the one of
config.json, and vLLM does not start where its caches have no room for one such sequence (\`vllm/v1/core/kv_cache_utils.py\`).

\`fill.sh\` needs sh, sed and cp alone. It looks at all values first: letters, digits and \`. _ : / @ , + -\`, so that sh, YAML and JSON take them as they
are, and no \`-\` at the beginning; paths are absolute, without \`:\` and \`,\`; namespaces and claims are names of Kubernetes; an image has one digest, of 64 digits; lists have as many values as there are devices. A form is written once all its blanks are filled, and not before.

## How nodes become one engine

| engine | replicas that fit into nodes | replicas over several nodes |
| --- | --- | --- |
| vLLM, vllm-ascend | \`--data-parallel-size-local\`, \`--data-parallel-start-rank\`; all but node 0 \`--headless\` | \`--nnodes\`, \`--node-rank\`, \`--master-addr\`; 0.10: Ray alone |
| SGLang | \`--dist-init-addr\`, \`--nnodes\`, \`--node-rank\`; \`--tp-size\` is tp times dp, with \`--enable-dp-attention\` | the same |
| MindIE | its table of ranks; tp, dp and experts in its own config.json | the same |
| the vendor's vLLM on Biren (br1xx) | nothing public | Ray, vLLM's own way: nothing public says that it was tried |

Node 0's start rank is left out: with \`--data-parallel-start-rank 0\` vLLM takes every node for one that serves HTTP. In pods the leader is told its own
address (\`POD_IP\`), the others \`LWS_LEADER_ADDRESS\`: a socket is bound to an address, not to a name. Only an engine that is named with \`--runtime\`
stops a compile where it cannot be started so; others are left out, and \`launch/README.md\` says why.

MTP blocks that were kept are drafted with, one token a step, save where layers are dealt to stages: no engine starts with both. Experts that stand twice (\`redundant\`) are vLLM's EPLB, SGLang's
\`--ep-num-redundant-experts\`, and a map of experts for vllm-ascend.

## Kubernetes

One pod a node, \`restartPolicy: RecreateGroupOnPodRestart\`; \`/health\` for all probes, the startup probe with two hours; \`/dev/shm\` in memory. Devices are
\`nvidia.com/gpu\`, \`huawei.com/Ascend910\` (310P: \`huawei.com/Ascend310P\`; 950: a blank, for no public name was found) and \`birentech.com/gpu\` with the
runtime class \`biren\`. The model is mounted read-only at \`/models/NAME\` from an image volume (beta since Kubernetes 1.33), a claim, or a directory of the
host; an image has to be named by its digest. RDMA devices of pods are the cluster's matter and are not in the manifest. The cluster needs the controller of LeaderWorkerSet and the vendor's device plugin. A claim has the engine
directory at its root.

## Options by version

${options(vllmFlags, 'vLLM and vllm-ascend')}

0.18 is the commit that vllm-ascend v0.18.0 was tested with beside vLLM 0.18.0; 0.23 the branch of v0.23.0; head the main branch of 2026-08-17.

${options(sglangFlags, 'SGLang')}

0.5.9 and 0.5.10 are the releases for NPUs, v0.5.9-npu.rc2 and v0.5.10-npu.rc1, of the fork that holds SGLang's own history; head is its main branch of 2026-06-15.

${options(vllmBrFlags, "The vendor's vLLM on Biren")}

Its source is not public: these are the options of published scripts that start it. br2xx takes vLLM's own, on which its plug-in stands.
`;

it('docs/launch.md says what the tables say', () => {
  const text = written();
  if (process.env.UPDATE === '1') writeFileSync(page, text);
  expect(readFileSync(page, 'utf8')).toBe(text);
});
