// Launch files for plain nodes: a script a node and a form of what only the site knows.
import { type Parallel, parallelName } from './launch.js';
import { quoted, shellArgs, shellWord } from './shell.js';
import type { Blank, Env, StartedEngine } from './started.js';
import type { SourceFile } from './target.js';
import { vllmPorts } from './vllm.js';

/** A name that paths, containers and Kubernetes take: small letters, digits, dashes; a letter first; at most 40. */
export function plainName(name: string): string {
  const s = name
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, '-')
    .replace(/^-+/, '')
    .slice(0, 40)
    .replace(/-+$/, '');
  return /^[a-z]/.test(s) ? s : `model${s ? `-${s}` : ''}`.slice(0, 40);
}
export const modelPath = (name: string): string => `/models/${plainName(name)}`;
const addressOf = (k: number): Blank => ({
  name: `NODE${k}_ADDRESS`,
  about: `the address of node ${k} that the other nodes reach`,
  how: 'ip -4 addr',
  form: 'address',
});
const interfaceOf = (k: number, needed: boolean): Blank => ({
  name: `NODE${k}_INTERFACE`,
  about: `the network interface of node ${k} that has this address`,
  how: 'ip -o -4 addr',
  ...(needed ? {} : { optional: true as const }),
});
const modelBlank: Blank = {
  name: 'MODEL_PATH',
  about: 'the directory on every node that holds config.json of this engine directory',
  how: 'where you copied the engine directory to',
  form: 'path',
};
/** Blanks of an engine on plain nodes, and in a manifest. */
export function nodeBlanks(e: StartedEngine, p: Parallel): readonly Blank[] {
  const all = Array.from({ length: p.nodes }, (_, k) => k);
  return [
    ...(p.nodes > 1
      ? all.flatMap(k => [addressOf(k), ...(e.interfaceEnv.names.length ? [interfaceOf(k, e.interfaceEnv.needed)] : [])])
      : []),
    modelBlank,
    imageBlank(e),
    digestBlank,
    ...(e.blanks ?? []),
  ];
}
const imageBlank = (e: StartedEngine): Blank => ({
  name: 'IMAGE',
  own: true,
  about: `the container image of ${e.about}`,
  how: e.image ? `documented: ${e.image.source}` : 'no tag is documented that fits: take the one that your site has loaded',
  ...(e.image ? { value: e.image.value } : {}),
});
const digestBlank: Blank = {
  name: 'IMAGE_DIGEST',
  about: 'the digest that pins the image, as sha256:…',
  how: 'docker image inspect --format "{{index .RepoDigests 0}}" IMAGE',
  optional: true,
  own: true,
  form: 'digest',
};
/** How fill.sh is told of a blank. */
export const fillName = (e: StartedEngine, b: Blank): string => (b.own ? `${e.name}/${b.name}` : b.name);
export function siteEnv(e: StartedEngine, blanks: readonly Blank[]): string {
  return `# What only the site knows, for ${e.about}. A line that ends in = is a blank; nothing here was guessed.
# Fill in:  sh launch/fill.sh NAME=VALUE ...   (NAME without HKGAI_, ${e.name}/IMAGE for the image; it writes a copy below ./site and leaves this file as it is)
HKGAI_RUN=container
# HKGAI_RUN=host starts the engine without a container. HKGAI_CONTAINER is the program that runs containers.
HKGAI_CONTAINER=docker
${blanks
  .map(
    b =>
      `# ${b.about}${b.list ? `: ${b.list} with commas between` : ''}${b.optional ? ' (may stay blank)' : ''}\n#   ${b.how}\nHKGAI_${b.name}=${b.value ?? ''}\n`,
  )
  .join('')}`;
}
const exportsOf = (env: readonly Env[], k: number): readonly string[] => env.map(v => `export ${v.name}=${shellWord(v.value, k)}`);

/** The command of a node with Ray: the leader serves, the others lend their devices. Ray's options: vLLM's multi-node-serving.sh:60, 97. */
export function rayCommand(e: StartedEngine, leader: string, self: string, leads: boolean, serve: readonly string[]): readonly string[] {
  return leads
    ? [
        'sh -c',
        quoted(`ray start --head --port=${vllmPorts.ray} --node-ip-address="$0" && exec "$@"`),
        self,
        ...e.program.map(quoted),
        ...serve,
      ]
    : ['sh -c', quoted(`until ray start --address="$0:${vllmPorts.ray}" --node-ip-address="$1" --block; do sleep 5; done`), leader, self];
}

/** One node's script. */
function script(e: StartedEngine, p: Parallel, model: string, k: number, ray: boolean, blanks: readonly Blank[]): string {
  const leads = k === 0;
  const wanted = new Set(['MODEL_PATH', ...(p.nodes > 1 ? ['NODE0_ADDRESS', `NODE${k}_ADDRESS`] : [])]);
  if (p.nodes > 1 && e.interfaceEnv.needed) wanted.add(`NODE${k}_INTERFACE`);
  for (const b of e.blanks ?? []) if (!b.optional && (!/^NODE\d+_/.test(b.name) || b.name.startsWith(`NODE${k}_`))) wanted.add(b.name);
  const need = (b: Blank): string => `need HKGAI_${b.name} ${fillName(e, b)} ${quoted(b.about)}`;
  const env = [...e.env, ...(ray ? e.rayEnv : [])];
  const names = [...env.map(v => v.name), ...(p.nodes > 1 ? e.interfaceEnv.names : [])];
  const optional = p.nodes > 1 && !e.interfaceEnv.needed && e.interfaceEnv.names.length > 0;
  const serve = shellArgs((ray ? e.ray?.() : e.args?.(leads)) ?? [], k);
  const command = ray
    ? rayCommand(e, '"$HKGAI_NODE0_ADDRESS"', `"$HKGAI_NODE${k}_ADDRESS"`, leads, serve)
    : [...(e.program.length ? [e.program.map(quoted).join(' ')] : []), ...serve];
  return `#!/bin/sh
# ${e.about}, ${parallelName(p)}: node ${k} of ${p.nodes}${ray ? ', with Ray' : ''}${leads ? '; requests come here' : ''}. Start ${
    p.nodes > 1 ? 'all nodes, in any order' : 'it'
  }. site.env beside this file says what only the site knows.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/site.env"

missing=0
need() {
  eval "value=\\\${$1:-}"
  [ -z "$value" ] || return 0
  missing=1
  printf '%s is blank: %s\\n  fill it in:  sh launch/fill.sh %s=...\\n' "$1" "$3" "$2" >&2
}
${blanks
  .filter(b => wanted.has(b.name))
  .map(need)
  .join('\n')}
[ "$HKGAI_RUN" = host ] || ${need(blanks.find(b => b.name === 'IMAGE') as Blank)}
${(e.needsFiles ?? [])
  .map(
    f =>
      `[ -f "$here/${f}" ] || { missing=1; printf '%s is not written: fill in its blanks\\n  sh launch/fill.sh says which are left\\n' ${quoted(f)} >&2; }\n`,
  )
  .join('')}[ "$missing" = 0 ] || exit 78

${exportsOf(env, k).join('\n')}${env.length ? '\n' : ''}${
  e.interfaceEnv.names.length && p.nodes > 1
    ? optional
      ? `if [ -n "\${HKGAI_NODE${k}_INTERFACE:-}" ]; then\n${e.interfaceEnv.names.map(n => `  export ${n}="$HKGAI_NODE${k}_INTERFACE"`).join('\n')}\nfi\n`
      : `${e.interfaceEnv.names.map(n => `export ${n}="$HKGAI_NODE${k}_INTERFACE"`).join('\n')}\n`
    : ''
}model=${quoted(modelPath(model))}
[ "$HKGAI_RUN" != host ] || model=$HKGAI_MODEL_PATH
set -- ${command.join(' \\\n  ')}
[ "$HKGAI_RUN" != host ] || exec "$@"

image=$HKGAI_IMAGE\${HKGAI_IMAGE_DIGEST:+@$HKGAI_IMAGE_DIGEST}
${e.dockerIf.map((d, i) => `also${i}=\nif [ -e ${quoted(d.path)} ]; then also${i}=${quoted(d.options)}; fi\n`).join('')}${
  e.keepsEntrypoint ? '' : 'program=$1\nshift\n'
}# shellcheck disable=SC2086
exec "$HKGAI_CONTAINER" run --rm --name ${quoted(`hkgai-${e.name}-${k}`)} \\
${[...e.docker, ...e.dockerIf.map((_, i) => `$also${i}`), ...names.map(n => `-e ${n}`), '-v "$HKGAI_MODEL_PATH:$model:ro"']
  .map(o => `  ${o} \\\n`)
  .join('')}${e.keepsEntrypoint ? '  "$image" "$@"' : '  --entrypoint "$program" "$image" "$@"'}
`;
}
/** Scripts and the form of one engine; paths below its directory. */
export function nodeFiles(e: StartedEngine, p: Parallel, model: string, blanks: readonly Blank[]): readonly SourceFile[] {
  const all = Array.from({ length: p.nodes }, (_, k) => k);
  const one = (k: number, ray: boolean): SourceFile => ({
    path: `${ray ? 'ray-' : ''}node-${k}.sh`,
    text: script(e, p, model, k, ray, blanks),
    executable: true,
  });
  return [
    ...(e.args === null ? [] : all.map(k => one(k, false))),
    ...(e.ray === null ? [] : all.map(k => one(k, true))),
    { path: 'site.env', text: siteEnv(e, blanks) },
  ];
}
