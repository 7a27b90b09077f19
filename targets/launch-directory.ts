// The launch directory of a target: what its engines say of themselves, as scripts, forms, manifests and a page of steps.
import { Refusal } from '../ir/problem.js';
import type { Engines, Runtime } from './engine.js';
import { type FillEngine, fillScript } from './fill.js';
import { leaderWorkerSet, podBlanks } from './kubernetes.js';
import { devicesOf, type LaunchModel, type LaunchOptions, type Parallel, parallelName } from './launch.js';
import { badLaunchName, noEngineToStart, notSpreadSo, wrongDevices } from './launch-problems.js';
import { fillName, nodeBlanks, nodeFiles } from './nodes.js';
import type { Blank, Env, StartedEngine } from './started.js';
import type { SourceFile } from './target.js';

/** Waits for /health with curl or wget. */
const healthScript = `#!/bin/sh
# Waits until the engine answers:  sh health.sh ADDRESS PORT [SECONDS]
set -eu
[ $# -ge 2 ] || { echo 'sh health.sh ADDRESS PORT [SECONDS]' >&2; exit 64; }
left=\${3:-7200}
ask() {
  if command -v curl >/dev/null 2>&1; then curl -fsS -o /dev/null --max-time 10 "$1" 2>/dev/null; else wget -q -O /dev/null -T 10 "$1"; fi
}
until ask "http://$1:$2/health"; do
  [ "$left" -gt 0 ] || { echo "http://$1:$2/health does not answer" >&2; exit 1; }
  left=$((left - 10))
  sleep 10
done
echo "http://$1:$2 is ready"
`;
const table = (head: readonly string[], rows: readonly (readonly string[])[]): string =>
  [head, head.map(() => '---'), ...rows].map(r => `| ${r.map(c => c.replaceAll('|', '\\|')).join(' | ')} |`).join('\n');

function readme(
  model: LaunchModel,
  p: Parallel,
  runtime: Runtime | null,
  options: LaunchOptions,
  engines: readonly { readonly e: StartedEngine; readonly blanks: readonly Blank[]; readonly files: readonly string[] }[],
): string {
  const many = p.nodes > 1;
  const where = { image: 'an image volume', pvc: 'a PersistentVolumeClaim', hostpath: 'a directory of every host' }[options.modelSource];
  return `# Starting ${model.name}

${parallelName(p)} on ${p.nodes} ${many ? 'nodes' : 'node'} of ${p.devicesPerNode} ${p.devicesPerNode === 1 ? 'device' : 'devices'}${
    runtime ? `, for ${runtime.name}${runtime.version === null ? '' : ` ${runtime.version}`}` : ''
  }. Written from the engines' own options: each was looked up in the version's source.
Only the site knows addresses, interfaces and images: these are blanks, and nothing stands in them that was guessed.
${
  model.contextLength === null
    ? `
No length of a sequence is set: engines take the one of config.json, and vLLM does not start where its caches have no room for one such sequence
(vllm/v1/core/kv_cache_utils.py). \`hkgai compile --context N\` sets it.
`
    : `
A sequence has at most ${model.contextLength} positions, as \`hkgai compile --context\` said.
`
}
## Steps

Commands are for the directory that holds \`launch/\`.

1. Copy the engine directory (\`engine/\` beside this one) to ${many ? 'every node, to the same path' : 'the node'}.${
    many && p.ep > 1
      ? ` A node needs no more than the files that
   \`placement/staging.json\` names for it, with its \`placement/node-K.index.json\` as \`model.safetensors.index.json\`; pods that share a volume need all.`
      : ''
  }
2. Fill in the blanks: \`sh launch/fill.sh NAME=VALUE ...\`. It writes a copy to \`./site\` and leaves the bundle as it is; \`sh launch/fill.sh\` alone says
   which blanks are left. Values given earlier stay.
3. Plain nodes: copy \`./site\` to ${many ? 'all of them' : 'the node'}, then \`sh site/ENGINE/node-K.sh\` on node K${many ? ', in any order; requests go to node 0' : ''}. Kubernetes, with
   LeaderWorkerSet's controller and the vendor's device plugin there: \`kubectl apply -f site/ENGINE/leaderworkerset.yaml\`; the model comes from ${where}.
4. \`sh launch/health.sh ADDRESS ${options.port}\` waits until \`/health\` answers. Reading the weights takes minutes, and the first probe allows two hours.

${engines
  .map(
    ({ e, blanks, files }) => `## ${e.about}

Files: ${files.map(f => `\`${e.name}/${f}\``).join(', ')}.

${table(
  ['blank', 'what it is', 'how to find it'],
  blanks.map(b => [
    `\`${fillName(e, b)}\`${b.optional ? ' (may stay blank)' : ''}${b.value ? ` (\`${b.value}\` stands there)` : ''}`,
    `${b.about}${b.list ? `: ${b.list} with commas between` : ''}`,
    b.how,
  ]),
)}

${[...e.notes, ...(e.noManifest ? [e.noManifest] : [])].map(n => `- ${n}`).join('\n')}
`,
  )
  .join('\n')}`;
}

/**
 * The variable that says how many layers each stage has: vLLM's (vllm/envs.py, read by get_pp_indices of distributed/utils.py) or SGLang's
 * (sglang/srt/distributed/utils.py). Nothing where there is one stage.
 */
export const stagesEnv = (name: 'VLLM_PP_LAYER_PARTITION' | 'SGLANG_PP_LAYER_PARTITION', m: LaunchModel): readonly Env[] =>
  m.stages === null ? [] : [{ name, value: m.stages.join(',') }];

/** Holds what no engine can help with. */
function checked(model: LaunchModel, p: Parallel, options: LaunchOptions): void {
  const found = [
    ...(devicesOf(p) === p.nodes * p.devicesPerNode ? [] : [wrongDevices(parallelName(p), devicesOf(p), p.nodes, p.devicesPerNode)]),
    ...(p.ep === 1 || p.ep === p.tp * p.dp
      ? []
      : [
          notSpreadSo(
            'An engine',
            parallelName(p),
            'experts are cut by tp, or dealt whole to all tp times dp ranks',
            `Write ep=1 or ep=${p.tp * p.dp}.`,
          ),
        ]),
    ...(/^[A-Za-z0-9][A-Za-z0-9._/ -]*$/.test(model.name)
      ? []
      : [badLaunchName('The name of the model', model.name, 'letters, digits, dots, dashes and slashes, a letter or digit first')]),
    ...(Number.isInteger(options.port) && options.port > 0 && options.port < 65536
      ? []
      : [badLaunchName('The port', String(options.port), 'a number from 1 to 65535')]),
    ...(options.image === undefined || /^[A-Za-z0-9][A-Za-z0-9._:/@+-]*$/.test(options.image)
      ? []
      : [badLaunchName('The image', options.image, 'REGISTRY/NAME:TAG or REGISTRY/NAME@sha256:…')]),
    ...(options.subPath === undefined || (/^[A-Za-z0-9._/-]+$/.test(options.subPath) && !/^\/|(^|\/)\.\.(\/|$)/.test(options.subPath))
      ? []
      : [badLaunchName('The path inside the volume', options.subPath, 'a relative path without ..')]),
    ...Object.values(model.expertMaps).flatMap(f =>
      /^[A-Za-z0-9._-]+\.json$/.test(f) ? [] : [badLaunchName('The expert map', f, 'the name of a .json file in the engine directory')],
    ),
  ];
  if (found.length) throw new Refusal(found);
}

/** Engines that a launch is for: the one that is named, or all that read the format. */
export type Starters = Readonly<Record<string, (version: string | null) => StartedEngine>>;
export function launchDirectory(
  target: string,
  known: Engines,
  starters: Starters,
  model: LaunchModel,
  p: Parallel,
  runtime: Runtime | null,
  options: LaunchOptions,
): readonly SourceFile[] {
  checked(model, p, options);
  const names = Object.keys(starters).filter(n =>
    runtime === null ? known.runtimes[n]?.formats.includes(model.format) === true : n === runtime.name,
  );
  if (names.length === 0) throw new Refusal([noEngineToStart(target, model.format, Object.keys(starters))]);
  // with none named, an engine that cannot be started so is left out, unless all are
  const refused: Refusal[] = [];
  const engines = names.flatMap(n => {
    try {
      return [(starters[n] as (version: string | null) => StartedEngine)(runtime?.version ?? null)];
    } catch (e) {
      if (!(e instanceof Refusal)) throw e;
      refused.push(e);
      return [];
    }
  });
  if (engines.length === 0 || (runtime !== null && refused.length)) throw new Refusal(refused.flatMap(r => r.problems));
  const rows = engines.map(e => {
    const image = options.image;
    const own: StartedEngine = image === undefined ? e : { ...e, image: { value: image, source: 'as it was asked for' } };
    const manifest = own.noManifest === undefined;
    const blanks = [...nodeBlanks(own, p), ...(manifest ? podBlanks(own, options) : [])];
    const files = [
      ...nodeFiles(own, p, model.name, blanks),
      ...(own.extra?.(p) ?? []),
      ...(manifest ? [{ path: 'leaderworkerset.yaml', text: leaderWorkerSet(own, p, model, options) }] : []),
    ];
    return { e: own, blanks, files };
  });
  const fill: readonly FillEngine[] = rows.map(({ e, files }) => ({
    name: e.name,
    scripts: files.filter(f => f.path.endsWith('.sh')).map(f => f.path),
    forms: files.filter(f => !f.path.endsWith('.sh') && f.path !== 'site.env').map(f => f.path),
  }));
  const all = new Map(rows.flatMap(r => r.blanks.map(b => [b.name, b] as const)));
  const left = refused.flatMap(r => r.problems.map(x => x.what));
  return [
    {
      path: 'launch/README.md',
      text:
        readme(
          model,
          p,
          runtime,
          options,
          rows.map(r => ({ ...r, files: r.files.map(f => f.path) })),
        ) + (left.length ? `\n## Not written\n\n${left.map(x => `- ${x}.`).join('\n')}\n` : ''),
    },
    { path: 'launch/fill.sh', text: fillScript(fill, [...all.values()]), executable: true },
    { path: 'launch/health.sh', text: healthScript, executable: true },
    ...rows.flatMap(r => r.files.map(f => ({ ...f, path: `launch/${r.e.name}/${f.path}` }))),
  ];
}
