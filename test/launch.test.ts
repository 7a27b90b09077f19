// Launch files: every script is parsed by sh and run with programs that write down what they are given; every option is held against its engine's
// table; every manifest against a schema written from the published types. UPDATE=1 rewrites test/golden/launch.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from '@jest/globals';
import { Ajv2020, type ValidateFunction } from 'ajv/dist/2020.js';
import { parseAllDocuments } from 'yaml';
import { Refusal } from '../ir/problem.js';
import { vllmBrFlags } from '../targets/biren/launch.js';
import type { Runtime } from '../targets/engine.js';
import type { FlagTable } from '../targets/flags.js';
import { targets } from '../targets/index.js';
import {
  type LaunchModel,
  type LaunchOptions,
  launchFiles,
  type ModelSource,
  modelSources,
  type Parallel,
  parallelName,
} from '../targets/launch.js';
import { plainName } from '../targets/nodes.js';
import { sglangFlags } from '../targets/sglang.js';
import { shellWord } from '../targets/shell.js';
import type { Target } from '../targets/target.js';
import { vllmFlags } from '../targets/vllm.js';
import { yaml } from '../targets/yaml.js';
import { kubelet, LaunchPlace, parsed } from './launch-place.js';

const root = fileURLToPath(new URL('..', import.meta.url));
const schema = (name: string): ValidateFunction =>
  new Ajv2020({ allErrors: true, strict: true, strictRequired: false, strictTypes: false }).compile(
    JSON.parse(readFileSync(join(root, 'fixtures', name), 'utf8')) as object,
  );
const manifestSchemas: Readonly<Record<string, ValidateFunction>> = {
  LeaderWorkerSet: schema('kubernetes/leaderworkerset.schema.json'),
  Service: schema('kubernetes/service.schema.json'),
};
const rankSchema = schema('rank-table.schema.json');
const errorsOf = (v: ValidateFunction, value: unknown): readonly string[] =>
  v(value) ? [] : (v.errors ?? []).map(e => `${e.instancePath} ${e.message} ${JSON.stringify(e.params)}`);

const spread = (nodes: number, devicesPerNode: number, tp: number, dp = 1, pp = 1, whole = false, redundant = 0): Parallel => ({
  tp,
  dp,
  pp,
  ep: whole ? tp * dp : 1,
  redundant,
  nodes,
  devicesPerNode,
});
const v3: LaunchModel = {
  name: 'DeepSeek-V3',
  family: 'deepseek_v3',
  contextLength: 32768,
  format: 'compressed-tensors',
  quantisation: 'w4a16',
  hasMtp: true,
  expertMaps: {},
  stages: null,
};
const ascendModel: LaunchModel = { ...v3, format: 'ascendv1', quantisation: 'w8a8' };
const options = (chip: string, more: Partial<LaunchOptions> = {}): LaunchOptions => ({ modelSource: 'image', port: 8000, chip, ...more });

interface Case {
  readonly target: string;
  readonly engine: string;
  readonly chip: string;
  readonly model: LaunchModel;
  readonly table: FlagTable | null;
  readonly versions: readonly string[];
  readonly runtime: Runtime | null;
  readonly ways: readonly Parallel[];
}
const small = (n: number): readonly Parallel[] => [
  spread(1, n, n),
  spread(1, n, n / 2, 2, 1, true),
  spread(2, n, n, 2, 1, true),
  spread(2, n, 2 * n),
  spread(2, n, n / 4, 8, 1, true),
  spread(2, n, n, 1, 2),
  spread(4, n, n, 4, 1, true),
  spread(4, n, n, 1, 4),
  spread(4, n, 2 * n, 2, 1, true),
];
const cases: readonly Case[] = [
  {
    target: 'cuda',
    engine: 'vllm',
    chip: 'generic',
    model: v3,
    table: vllmFlags,
    versions: vllmFlags.usual,
    runtime: null,
    ways: [...small(8), spread(2, 8, 8, 2, 1, true, 16)],
  },
  {
    target: 'cuda',
    engine: 'vllm',
    chip: 'generic',
    model: v3,
    table: vllmFlags,
    versions: ['0.10'],
    runtime: { name: 'vllm', version: '0.10' },
    ways: [spread(1, 8, 8), spread(2, 8, 8, 2, 1, true), spread(2, 8, 8, 1, 2)],
  },
  {
    target: 'cuda',
    engine: 'sglang',
    chip: 'generic',
    model: { ...v3, expertMaps: { sglang: 'experts.json' } },
    table: sglangFlags,
    versions: sglangFlags.usual,
    runtime: { name: 'sglang', version: null },
    ways: [...small(8), spread(2, 8, 8, 2, 1, true, 16)],
  },
  {
    target: 'ascend',
    engine: 'vllm-ascend',
    chip: '910b',
    model: ascendModel,
    table: vllmFlags,
    versions: vllmFlags.usual,
    runtime: { name: 'vllm-ascend', version: null },
    ways: small(8),
  },
  {
    target: 'ascend',
    engine: 'vllm-ascend',
    chip: '910c',
    model: { ...ascendModel, expertMaps: { 'vllm-ascend': 'expert_map.json' } },
    table: vllmFlags,
    versions: ['0.23'],
    runtime: { name: 'vllm-ascend', version: '0.23' },
    ways: [...small(16), spread(2, 16, 16, 2, 1, true, 32)],
  },
  {
    target: 'ascend',
    engine: 'sglang',
    chip: '910b',
    model: ascendModel,
    table: sglangFlags,
    versions: ['head'],
    runtime: { name: 'sglang', version: 'head' },
    ways: small(8),
  },
  {
    target: 'ascend',
    engine: 'mindie',
    chip: '910b',
    model: ascendModel,
    table: null,
    versions: [],
    runtime: { name: 'mindie', version: null },
    ways: [spread(1, 8, 8), spread(2, 8, 8, 2, 1, true), spread(4, 8, 8, 4, 1, true)],
  },
  {
    target: 'ascend',
    engine: 'mindie',
    chip: '910c',
    model: ascendModel,
    table: null,
    versions: [],
    runtime: { name: 'mindie', version: null },
    ways: [spread(1, 16, 16), spread(2, 16, 8, 4, 1, true), spread(4, 16, 16, 4, 1, true)],
  },
  {
    target: 'biren',
    engine: 'vllm-br',
    chip: 'br106m',
    model: { ...v3, format: 'hub', quantisation: 'int8' },
    table: vllmBrFlags,
    versions: ['br1xx'],
    runtime: null,
    ways: [spread(1, 8, 4, 1, 2), spread(1, 8, 4, 1, 2, true), spread(2, 8, 4, 1, 4), spread(4, 8, 4, 1, 8, true)],
  },
  {
    target: 'biren',
    engine: 'vllm-br',
    chip: 'br2xx',
    model: { ...v3, format: 'hub', quantisation: null },
    table: vllmFlags,
    versions: ['head'],
    runtime: { name: 'vllm-br', version: null },
    ways: small(8),
  },
];
const filesOf = (c: Case, p: Parallel, more: Partial<LaunchOptions> = {}) =>
  launchFiles(targets[c.target] as Target, c.model, p, c.runtime, options(c.chip, more));
const digest = `sha256:${'ab'.repeat(32)}`;
/** A value for each blank of a site.env. */
function values(form: string): readonly string[] {
  return [...form.matchAll(/# (.*)\n# {3}.*\nHKGAI_(\w+)=(.*)$/gm)].map(([, about, name, was]) => {
    const list = /: (\d+) with commas between/.exec(about as string);
    const k = Number(/^NODE(\d+)_/.exec(name as string)?.[1] ?? 0);
    if (list)
      return `${name}=${Array.from({ length: Number(list[1]) }, (_, i) => (name?.endsWith('IPS') ? `192.168.${k}.${i + 1}` : String(1000 * k + i))).join()}`;
    if (name?.endsWith('_ADDRESS')) return `${name}=10.0.0.${k + 1}`;
    if (name?.endsWith('_INTERFACE')) return `${name}=bond${k}`;
    switch (name) {
      case 'MODEL_PATH':
        return `${name}=/data/model-7`;
      case 'IMAGE':
        return `${name}=${was || 'registry.site/engine:1'}`;
      case 'IMAGE_DIGEST':
        return `${name}=${digest}`;
      case 'MODEL_IMAGE':
        return `${name}=registry.site/models/v3@${digest}`;
      case 'MODEL_CLAIM':
        return `${name}=models`;
      case 'NAMESPACE':
        return `${name}=serving`;
      case 'MINDIE_CONFIG':
        return `${name}=/data/mindie/config.json`;
      case 'SUPER_POD_ID':
        return `${name}=3`;
      case 'RESOURCE':
        return `${name}=vendor.site/npu`;
      default:
        throw new Error(`no value for ${name}`);
    }
  });
}
const shells = (dir: string): readonly string[] =>
  readdirSync(dir, { recursive: true, withFileTypes: true }).flatMap(e =>
    e.isFile() && e.name.endsWith('.sh') ? [join(e.parentPath, e.name)] : [],
  );
/** What several commands of one engine say together. */
function agree(c: Case, p: Parallel, all: readonly ReadonlyMap<string, string | null>[], ray: boolean): void {
  const of = (flag: string): readonly (string | null | undefined)[] => all.map(a => a.get(flag));
  if (c.table === sglangFlags) {
    expect(new Set(of('--tp-size'))).toEqual(new Set([String(p.tp * p.dp)]));
    if (p.nodes > 1) {
      expect(of('--node-rank')).toEqual(all.map((_, k) => String(k)));
      expect(new Set(of('--nnodes'))).toEqual(new Set([String(p.nodes)]));
    }
    expect(of('--enable-dp-attention').every(x => (x === null) === p.dp > 1)).toBe(true);
    return;
  }
  expect(new Set(of('--tensor-parallel-size'))).toEqual(new Set([String(p.tp)]));
  expect(new Set(of('--pipeline-parallel-size'))).toEqual(new Set([p.pp > 1 ? String(p.pp) : undefined]));
  if (ray) return;
  expect(of('--headless')).toEqual(all.map((_, k) => (k === 0 ? undefined : null)));
  expect(of('--port')).toEqual(all.map((_, k) => (k === 0 ? '8000' : undefined)));
  if (p.nodes === 1) return;
  if (all[0]?.has('--nnodes')) expect(of('--node-rank')).toEqual(all.map((_, k) => String(k)));
  else {
    // every replica is on one node, and none on two
    const local = Number(of('--data-parallel-size-local')[0]);
    expect(local * p.nodes).toBe(p.dp);
    expect(of('--data-parallel-start-rank')).toEqual(all.map((_, k) => (k === 0 ? undefined : String(k * local))));
  }
}

describe.each(cases.map(c => [`${c.target} ${c.engine} ${c.chip} ${c.runtime?.version ?? ''}`, c] as const))('%s', (_, c) => {
  const program =
    c.engine === 'sglang'
      ? ['python3', '-m', 'sglang.launch_server']
      : c.table === vllmBrFlags
        ? ['python3', '-m', 'vllm.entrypoints.openai.api_server']
        : ['vllm', 'serve'];
  // every source with one way to spread it a number of nodes, and the other ways with one source each
  const sourcesOf = (p: Parallel, i: number): readonly ModelSource[] =>
    c.ways.findIndex(w => w.nodes === p.nodes) === i ? modelSources : [modelSources[i % 3] as ModelSource];
  it.each(c.ways.flatMap((p, i) => sourcesOf(p, i).map(s => [`${p.nodes} nodes, ${parallelName(p)}, ${s}`, p, s] as const)))(
    '%s',
    (_, p, modelSource) => {
      const place = new LaunchPlace(filesOf(c, p, { modelSource }));
      try {
        const dir = join('launch', c.engine);
        for (const f of shells(join(place.root, 'launch'))) expect(place.sh(['-n', f])).toEqual({ status: 0, out: '', err: '' });
        const scripts = readdirSync(join(place.root, dir)).filter(f => /^(ray-)?node-\d+\.sh$/.test(f));
        const numbers = (r: RegExp): number => scripts.filter(f => r.test(f)).length;
        expect(numbers(/^node-/) === p.nodes || numbers(/^ray-node-/) === p.nodes).toBe(true);
        const form = place.read(join(dir, 'site.env'));
        // a blank form stops every script, and each says what is missing and how to fill it in
        for (const f of scripts) {
          const { status, err } = place.sh([join(dir, f)], { PATH: '/usr/bin:/bin' });
          expect(status).toBe(78);
          expect(err).toContain('HKGAI_MODEL_PATH is blank');
          expect(err).toContain('sh launch/fill.sh MODEL_PATH=');
          if (p.nodes > 1) expect(err).toContain('HKGAI_NODE0_ADDRESS is blank');
        }
        const filled = place.sh(['launch/fill.sh', ...values(form).map(v => (v.startsWith('IMAGE') ? `${c.engine}/${v}` : v))]);
        expect(filled.err).toBe('');
        expect(filled.status).toBe(0);
        expect(
          filled.out.split('\n').filter(l => l.includes('blank') && (l.startsWith(`${c.engine}:`) || l.startsWith(`site/${c.engine}/`))),
        ).toEqual([]);
        const model = `/models/${plainName(c.model.name)}`;
        for (const ray of [false, true]) {
          const names = scripts.filter(f => f.startsWith('ray-') === ray).sort((a, b) => Number(/\d+/.exec(a)) - Number(/\d+/.exec(b)));
          const all = names.flatMap((f, k) => {
            expect(place.sh([join('site', c.engine, f)])).toEqual({ status: 0, out: '', err: '' });
            const { words, env } = place.started();
            expect(words.slice(0, 3)).toEqual(['docker', 'run', '--rm']);
            const image = words.findIndex(w => w.endsWith(`@${digest}`));
            expect(image).toBeGreaterThan(0);
            const entry = words.indexOf('--entrypoint');
            const inside = [...(entry > 0 ? [words[entry + 1] as string] : []), ...words.slice(image + 1)];
            expect(entry > 0).toBe(c.engine !== 'vllm-br');
            for (const w of words.filter((_, i) => words[i - 1] === '-e' && i < image && !words[i]?.includes('=')))
              expect([w, env[w]]).not.toEqual([w, undefined]);
            expect(words).toContain(`/data/model-7:${model}:ro`);
            if (p.nodes > 1 && c.engine !== 'mindie') expect(Object.values(env)).toContain(`bond${k}`);
            if (c.table === null) {
              expect(inside[2]).toContain('mindieservice_daemon');
              return [];
            }
            // and the same on the host
            const site = place.read(join('site', c.engine, 'site.env'));
            writeFileSync(join(place.root, 'site', c.engine, 'site.env'), site.replace('HKGAI_RUN=container', 'HKGAI_RUN=host'));
            const host = place.sh([join('site', c.engine, f)]);
            expect(host).toEqual({ status: 0, out: '', err: '' });
            writeFileSync(join(place.root, 'site', c.engine, 'site.env'), site);
            if (ray && k > 0) {
              expect(place.ray()).toEqual(['ray', 'start', '--address=10.0.0.1:6379', `--node-ip-address=10.0.0.${k + 1}`, '--block']);
              expect(inside.slice(0, 2)).toEqual(['sh', '-c']);
              return [];
            }
            if (ray) expect(place.ray()).toEqual(['ray', 'start', '--head', '--port=6379', '--node-ip-address=10.0.0.1']);
            const outside = place.started().words;
            const served = outside.slice(program.length);
            expect(outside.slice(0, program.length)).toEqual(program);
            // inside, the same command with the path that the container has
            expect(inside.slice(-served.length).join(' ')).toBe(served.join(' ').replaceAll('/data/model-7', model));
            return [parsed(c.table, c.versions, served)];
          });
          if (all.length) agree(c, p, all, ray);
          if (all[0]) expect(all[0].get('MODEL') ?? all[0].get('--model') ?? all[0].get('--model-path')).toBe('/data/model-7');
        }
        if (c.engine === 'mindie') {
          expect(existsSync(join(place.root, dir, 'leaderworkerset.yaml'))).toBe(false);
          if (p.nodes === 1) return;
          const table = JSON.parse(place.read('site/mindie/rank-table.json')) as {
            server_list: readonly { device: readonly { rank_id: string; device_ip: string }[] }[];
          };
          expect(errorsOf(rankSchema, table)).toEqual([]);
          expect(statSync(join(place.root, 'site/mindie/rank-table.json')).mode & 0o777).toBe(0o640);
          const devices = table.server_list.flatMap(s => s.device);
          expect(devices.map(d => Number(d.rank_id))).toEqual(Array.from({ length: p.nodes * p.devicesPerNode }, (_, i) => i));
          expect(new Set(devices.map(d => d.device_ip)).size).toBe(devices.length);
          return;
        }
        // the manifest, as it was filled in
        const documents = parseAllDocuments(place.read(join('site', c.engine, 'leaderworkerset.yaml'))).map(d => d.toJS() as Manifest);
        expect(documents.map(d => d.kind)).toEqual(['LeaderWorkerSet', 'Service']);
        for (const d of documents) expect(errorsOf(manifestSchemas[d.kind] as ValidateFunction, d)).toEqual([]);
        const set = documents[0] as Manifest;
        const group = set.spec.leaderWorkerTemplate;
        expect(group.size).toBe(p.nodes);
        const pods = Array.from({ length: p.nodes }, (_, k) =>
          k === 0 ? (group.leaderTemplate ?? group.workerTemplate) : group.workerTemplate,
        );
        const said = pods.flatMap((pod, k) => {
          const box = pod.spec.containers[0] as Container;
          const volumes = pod.spec.volumes.map(v => v.name);
          expect(box.volumeMounts.map(m => m.name).sort()).toEqual([...volumes].sort());
          expect(Object.values(box.resources.limits)).toEqual([String(p.devicesPerNode)]);
          const source = pod.spec.volumes.find(v => v.name === 'model') as Record<string, unknown>;
          expect(Object.keys(source)).toContain({ image: 'image', pvc: 'persistentVolumeClaim', hostpath: 'hostPath' }[modelSource]);
          // the kubelet's part, then sh
          const known: Record<string, string> = {
            LWS_LEADER_ADDRESS: 'set-0.set.serving',
            LWS_GROUP_SIZE: String(p.nodes),
            LWS_WORKER_INDEX: String(k),
          };
          for (const e of box.env) known[e.name] = e.valueFrom ? `10.1.0.${k + 1}` : kubelet(e.value as string, known);
          const [first, ...rest] = [...(box.command ?? []), ...(box.args ?? [])].map(w => kubelet(w, known));
          expect(place.sh(['-c', 'exec "$0" "$@"', first as string, ...rest], known).status).toBe(0);
          if (!existsSync(join(place.root, 'record'))) {
            expect(place.ray()).toEqual([
              'ray',
              'start',
              '--address=set-0.set.serving:6379',
              `--node-ip-address=10.1.0.${k + 1}`,
              '--block',
            ]);
            return [];
          }
          const { words } = place.started();
          expect(words.slice(0, program.length)).toEqual(program);
          expect(words.join(' ')).not.toMatch(/\$\(|@HKGAI/);
          const a = parsed(c.table as FlagTable, c.versions, words.slice(program.length));
          const answers = a.has('--port');
          expect([box.startupProbe, box.readinessProbe, box.livenessProbe].every(x => (x !== undefined) === answers)).toBe(true);
          if (answers)
            expect((box.startupProbe?.periodSeconds ?? 0) * (box.startupProbe?.failureThreshold ?? 0)).toBeGreaterThanOrEqual(3600);
          return [a];
        });
        agree(c, p, said, said.length < p.nodes);
        expect((documents[1] as Manifest).metadata.name).not.toBe(set.metadata.name);
      } finally {
        place.done();
      }
    },
  );
});
interface Container {
  readonly command?: readonly string[];
  readonly args?: readonly string[];
  readonly env: readonly { readonly name: string; readonly value?: string; readonly valueFrom?: unknown }[];
  readonly resources: { readonly limits: Readonly<Record<string, string>> };
  readonly volumeMounts: readonly { readonly name: string }[];
  readonly startupProbe?: { readonly periodSeconds: number; readonly failureThreshold: number };
  readonly readinessProbe?: unknown;
  readonly livenessProbe?: unknown;
}
interface Pod {
  readonly spec: { readonly containers: readonly Container[]; readonly volumes: readonly { readonly name: string }[] };
}
interface Manifest {
  readonly kind: string;
  readonly metadata: { readonly name: string };
  readonly spec: { readonly leaderWorkerTemplate: { readonly size: number; readonly leaderTemplate?: Pod; readonly workerTemplate: Pod } };
}

const goldens: readonly (readonly [string, Case, Parallel, Partial<LaunchOptions>])[] = [
  ['cuda-vllm-2-nodes', cases[0] as Case, spread(2, 8, 8, 2, 1, true), {}],
  ['cuda-sglang-2-nodes', cases[2] as Case, spread(2, 8, 8, 2, 1, true), { modelSource: 'pvc', subPath: 'cuda/engine' }],
  ['ascend-vllm-ascend-4-nodes', cases[4] as Case, spread(4, 16, 32, 2, 1, true, 32), { modelSource: 'hostpath' }],
  ['ascend-mindie-2-nodes', cases[7] as Case, spread(2, 16, 8, 4, 1, true), {}],
  ['biren-vllm-br-4-nodes', cases[8] as Case, spread(4, 8, 4, 1, 8, true), {}],
];
const golden = join(root, 'test/golden/launch');
const update = process.env.UPDATE === '1';
describe('what is written', () => {
  it.each(goldens)('is as in test/golden/launch/%s', (name, c, p, more) => {
    const files = filesOf(c, p, more);
    const dir = join(golden, name);
    if (update) {
      rmSync(dir, { recursive: true, force: true });
      for (const f of files) {
        mkdirSync(dirname(join(dir, f.path)), { recursive: true });
        writeFileSync(join(dir, f.path), f.text);
      }
    }
    const there = readdirSync(dir, { recursive: true, withFileTypes: true }).flatMap(e =>
      e.isFile() ? [join(e.parentPath, e.name).slice(dir.length + 1)] : [],
    );
    expect(there.sort()).toEqual(files.map(f => f.path).sort());
    for (const f of files) expect([f.path, readFileSync(join(dir, f.path), 'utf8')]).toEqual([f.path, f.text]);
  });
});

const problemsOf = (make: () => unknown): readonly string[] => {
  try {
    make();
  } catch (e) {
    if (e instanceof Refusal) return e.problems.map(p => `${p.code} ${p.what}`);
    throw e;
  }
  return [];
};
const cuda = targets.cuda as Target;
const ascend = targets.ascend as Target;
describe('what cannot be started', () => {
  const vllm = (version: string | null): Runtime => ({ name: 'vllm', version });
  it.each<readonly [string, () => unknown, string]>([
    [
      'devices that are not there',
      () => launchFiles(cuda, v3, spread(2, 8, 8), null, options('generic')),
      'HK2750 tp=8,dp=1,pp=1,ep=1 takes 8 devices; 2 nodes of 8 have 16',
    ],
    [
      'a replica that neither fits into a node nor fills nodes',
      () => launchFiles(cuda, v3, spread(3, 8, 6, 4, 1, true), vllm(null), options('generic')),
      'HK2751 vLLM cannot be started with tp=6,dp=4,pp=1,ep=24: a replica of 6 devices neither fits into a node of 8 nor fills whole nodes',
    ],
    [
      'experts dealt to some of the ranks',
      () => launchFiles(cuda, v3, { ...spread(1, 8, 8), ep: 4 }, null, options('generic')),
      'HK2751 An engine cannot be started with tp=8,dp=1,pp=1,ep=4: experts are cut by tp, or dealt whole to all tp times dp ranks',
    ],
    [
      'stages beside replicas in SGLang',
      () => launchFiles(cuda, v3, spread(2, 8, 4, 2, 2, true), { name: 'sglang', version: null }, options('generic')),
      'HK2751 SGLang cannot be started with tp=4,dp=2,pp=2,ep=8: replicas of attention beside stages of layers are not started here',
    ],
    [
      'experts that stand twice without a map',
      () => launchFiles(ascend, ascendModel, spread(2, 8, 8, 2, 1, true, 16), { name: 'vllm-ascend', version: null }, options('910b')),
      'HK2751 vllm-ascend cannot be started with tp=8,dp=2,pp=1,ep=16,redundant=16: it takes experts that stand twice from a map alone',
    ],
    [
      'what a version has no option for',
      () => launchFiles(cuda, v3, spread(2, 8, 8, 2, 1, true, 16), vllm('0.10'), options('generic')),
      'HK2752 vLLM 0.10 has no --eplb-config',
    ],
    [
      'a word that one version alone knows',
      () => launchFiles(cuda, v3, spread(1, 8, 8, 1, 1, true), vllm('0.18'), options('generic', { allToAll: 'deepep_v2' })),
      'HK2753 vLLM 0.18 does not take "deepep_v2" for --all2all-backend: it takes naive, pplx, deepep_high_throughput, deepep_low_latency, nixl_ep, allgather_reducescatter, flashinfer_all2allv, flashinfer_nvlink_two_sided, flashinfer_nvlink_one_sided, mori',
    ],
    [
      'a version that was not read',
      () => launchFiles(cuda, v3, spread(1, 8, 8), vllm('0.9'), options('generic')),
      'HK2754 The options of vLLM 0.9 are not known',
    ],
    [
      'a format that no started engine reads',
      () => launchFiles(cuda, { ...v3, format: 'gguf' }, spread(1, 8, 8), null, options('generic')),
      'HK2755 No engine of cuda that is started from here reads gguf',
    ],
    [
      'a name that would be an option',
      () => launchFiles(cuda, { ...v3, name: '--help' }, spread(1, 8, 8), null, options('generic')),
      'HK2756 The name of the model is "--help", which cannot stand in a launch file: letters, digits, dots, dashes and slashes, a letter or digit first',
    ],
    [
      'a path that leaves the volume',
      () => launchFiles(cuda, v3, spread(1, 8, 8), null, options('generic', { subPath: 'a/../../etc' })),
      'HK2756 The path inside the volume is "a/../../etc", which cannot stand in a launch file: a relative path without ..',
    ],
  ])('%s', (_, make, what) => expect(problemsOf(make)).toEqual([what]));
  it('an engine that was not named is left out and said', () => {
    const files = launchFiles(cuda, v3, spread(2, 8, 4, 2, 2, true), null, options('generic'));
    expect(files.some(f => f.path.startsWith('launch/sglang/'))).toBe(false);
    expect(files.find(f => f.path === 'launch/README.md')?.text).toContain('SGLang cannot be started with tp=4,dp=2,pp=2,ep=8');
  });
  it('the CPU has no engine to start', () =>
    expect(launchFiles(targets.cpu as Target, v3, spread(1, 1, 1), null, options('generic'))).toEqual([]));
});

describe('what a chip changes on Ascend', () => {
  const of = (chip: string, path: string, runtime: Runtime | null = { name: 'vllm-ascend', version: '0.23' }): string =>
    launchFiles(ascend, ascendModel, spread(2, 8, 8, 2, 1, true), runtime, options(chip)).find(f => f.path === path)?.text ?? '';
  it.each<readonly [string, string, string]>([
    ['910b', 'quay.io/ascend/vllm-ascend:v0.23.0', 'huawei.com/Ascend910: "8"'],
    ['910b4', 'quay.io/ascend/vllm-ascend:v0.23.0', 'huawei.com/Ascend910: "8"'],
    ['910c', 'quay.io/ascend/vllm-ascend:v0.23.0-a3', 'huawei.com/Ascend910: "8"'],
    ['310p', 'quay.io/ascend/vllm-ascend:v0.23.0-310p', 'huawei.com/Ascend310P: "8"'],
    ['950dt', '', '"@HKGAI_RESOURCE@": "8"'],
  ])('%s', (chip, image, devices) => {
    const form = of(chip, 'launch/vllm-ascend/site.env');
    expect(form).toContain(`HKGAI_IMAGE=${image}\n`);
    expect(form.includes('HKGAI_RESOURCE=')).toBe(chip === '950dt');
    expect(of(chip, 'launch/vllm-ascend/leaderworkerset.yaml')).toContain(devices);
    expect(of(chip, 'launch/vllm-ascend/node-0.sh').includes('--privileged=true')).toBe(chip === '910c');
    expect(of(chip, 'launch/vllm-ascend/node-0.sh').includes('HCCL_INTRA_PCIE_ENABLE=1')).toBe(chip.startsWith('910b'));
  });
  it('MindIE is left out, and said, where nothing public says how it is started', () => {
    expect(of('950', 'launch/README.md', null)).toContain(
      'MindIE cannot be started with tp=8,dp=2,pp=1,ep=16: nothing public says how it is started on 950',
    );
    expect(of('950', 'launch/mindie/node-0.sh', null)).toBe('');
  });
  it('no image is named for a version that has no release', () =>
    expect(of('910b', 'launch/vllm-ascend/site.env', { name: 'vllm-ascend', version: 'head' })).toContain('HKGAI_IMAGE=\n'));
  it('an image that was asked for stands there', () =>
    expect(
      launchFiles(ascend, ascendModel, spread(1, 8, 8), { name: 'vllm-ascend', version: null }, options('910b', { image: 'a.b/c:1' })).find(
        f => f.path === 'launch/vllm-ascend/site.env',
      )?.text,
    ).toContain('HKGAI_IMAGE=a.b/c:1\n'));
  it('a draft is made of MTP blocks that were kept alone', () => {
    const script = (hasMtp: boolean, p = spread(1, 8, 8)): string =>
      launchFiles(ascend, { ...ascendModel, hasMtp }, p, null, options('910b'))
        .filter(f => f.path.endsWith('node-0.sh'))
        .map(f => f.text)
        .join('');
    expect(script(true).match(/--speculative-(config|algorithm)/g)).toHaveLength(2);
    expect(script(false)).not.toContain('--speculative');
    // no engine starts with drafts beside stages of layers
    const stages = spread(1, 8, 4, 1, 2);
    expect([stages.pp, script(true, stages).includes('--speculative')]).toEqual([2, false]);
    const page = launchFiles(cuda, v3, stages, null, options('h200')).find(f => f.path === 'launch/README.md')!.text;
    expect(page.match(/It does not draft with the MTP block/g)).toHaveLength(2);
  });
});

describe('the tables of options', () => {
  const tables = [vllmFlags, sglangFlags, vllmBrFlags];
  it.each(tables.map(t => [t.engine, t] as const))('of %s name a commit for each version, and a line for each option', (_, t) => {
    for (const source of Object.values(t.versions)) expect(source).toMatch(/^[\w.-]+\/[\w.-]+@[0-9a-f]{40}$/);
    for (const v of t.usual) expect(Object.keys(t.versions)).toContain(v);
    for (const [flag, f] of Object.entries(t.flags)) {
      expect([flag, Object.keys(f.at).length]).not.toEqual([flag, 0]);
      for (const [v, line] of Object.entries(f.at)) {
        expect(Object.keys(t.versions)).toContain(v);
        expect(line).toBeGreaterThan(0);
        // words by version are there for each version that has the option
        if (typeof f.takes === 'object' && !Array.isArray(f.takes)) expect(Object.keys(f.takes)).toContain(v);
      }
    }
  });
  it('are what commands are held against: a wrong option, value or repetition is found', () => {
    const held =
      (words: readonly string[], versions = ['0.18']) =>
      () =>
        parsed(vllmFlags, versions, words);
    expect(held(['/m', '--port', '8000'])).not.toThrow();
    expect(held(['/m', '--prt', '8000'])).toThrow('vLLM has no --prt');
    expect(held(['/m', '--port', 'http'])).toThrow('--port takes a whole number, not http');
    expect(held(['/m', '--nnodes', '2'], ['0.10'])).toThrow('vLLM 0.10 has no --nnodes');
    expect(held(['/m', '--headless', '1'])).toThrow('MODEL stands there twice');
    expect(held(['/m', '--port', '1', '--port', '2'])).toThrow('--port stands there twice');
    expect(held(['/m', '--eplb-config', '[1]'])).toThrow('a JSON object');
    expect(held(['/m', '--distributed-executor-backend', 'mpi'])).toThrow('ray, mp, uni, external_launcher');
    expect(held(['/m', '--host'])).toThrow('a value');
  });
});

describe('the schemas refuse', () => {
  const place = new LaunchPlace(filesOf(cases[0] as Case, spread(2, 8, 8, 2, 1, true)));
  place.sh(['launch/fill.sh', ...values(place.read('launch/vllm/site.env')).map(v => (v.startsWith('IMAGE') ? `vllm/${v}` : v))]);
  const text = place.read('site/vllm/leaderworkerset.yaml');
  place.done();
  const check = manifestSchemas.LeaderWorkerSet as ValidateFunction;
  const [first] = parseAllDocuments(text);
  const good = (): unknown => structuredClone(first?.toJS() as unknown);
  /** Puts a value at a path; undefined takes it away. */
  const put = (m: unknown, path: string, value: unknown): void => {
    const keys = path.split('/').map(k => k.replace('~', '/'));
    const last = keys.pop() as string;
    const at = keys.reduce<unknown>((o, k) => (o as Record<string, unknown>)[k], m) as Record<string, unknown>;
    if (value === undefined) delete at[last];
    else at[last] = value;
  };
  const group = 'spec/leaderWorkerTemplate';
  const box = `${group}/leaderTemplate/spec/containers/0`;
  const volume = `${group}/workerTemplate/spec/volumes/0`;
  it('nothing of the manifest as it is', () => expect(errorsOf(check, good())).toEqual([]));
  it.each<readonly [string, string, unknown]>([
    ['a field that is not there', `${box}/volumeMount`, []],
    ['a word that is not of the list', 'spec/startupPolicy', 'LeaderFirst'],
    ['a number as text', `${group}/size`, '2'],
    ['text as a number', `${box}/resources/limits/nvidia.com~gpu`, 8],
    ['an environment of two sources', `${box}/env/0/value`, 'x'],
    ['a volume of two sources', `${volume}/hostPath`, { path: '/x' }],
    ['a model without a digest', `${volume}/image/reference`, 'registry.site/v3:1'],
    ['a blank that was not filled in', 'metadata/namespace', '@HKGAI_NAMESPACE@'],
    ['workers without a template', `${group}/workerTemplate`, undefined],
    ['a probe of no port', `${box}/startupProbe/httpGet/port`, undefined],
  ])('%s', (_, path, value) => {
    const m = good();
    put(m, path, value);
    expect(errorsOf(check, m)).not.toEqual([]);
  });
});

describe('fill.sh', () => {
  const hash = (dir: string): string =>
    readdirSync(dir, { recursive: true, withFileTypes: true })
      .filter(e => e.isFile())
      .map(e => join(e.parentPath, e.name))
      .sort()
      .map(f => `${f} ${createHash('sha256').update(readFileSync(f)).digest('hex')}`)
      .join('\n');
  const at = (c: Case, p: Parallel, use: (place: LaunchPlace) => void): void => {
    const place = new LaunchPlace(filesOf(c, p));
    try {
      use(place);
    } finally {
      place.done();
    }
  };
  const mindie = [cases[7] as Case, spread(2, 16, 8, 4, 1, true)] as const;
  it('leaves the bundle as it is, keeps what was filled in, and says what is left', () =>
    at(cases[0] as Case, spread(2, 8, 8, 2, 1, true), place => {
      const before = hash(join(place.root, 'launch'));
      const first = place.sh(['launch/fill.sh', 'NODE0_ADDRESS=10.0.0.1', 'HKGAI_NODE1_ADDRESS=10.0.0.2']);
      expect([first.status, first.err]).toEqual([0, '']);
      expect(first.out).toContain('site/vllm/leaderworkerset.yaml is not written yet; still blank: IMAGE MODEL_IMAGE NAMESPACE');
      expect(first.out).toContain('vllm: MODEL_PATH is blank');
      const second = place.sh(['launch/fill.sh', `MODEL_IMAGE=a/b@${digest}`, 'NAMESPACE=serving', 'vllm/IMAGE=a/vllm:1']);
      expect(second.out).toContain('site/vllm/leaderworkerset.yaml is written');
      expect(second.out).toContain('site/sglang/leaderworkerset.yaml is not written yet; still blank: IMAGE');
      expect(place.read('site/vllm/site.env')).toContain('HKGAI_NODE1_ADDRESS=10.0.0.2');
      expect(place.read('site/vllm/site.env')).toContain('HKGAI_IMAGE=a/vllm:1');
      expect(place.read('site/sglang/site.env')).toContain('HKGAI_IMAGE=\n');
      expect(hash(join(place.root, 'launch'))).toBe(before);
      // another directory, and none at all
      expect(place.sh(['launch/fill.sh', '--to', 'elsewhere/x', 'NAMESPACE=a']).status).toBe(0);
      expect(existsSync(join(place.root, 'elsewhere/x/vllm/site.env'))).toBe(true);
      expect(place.sh(['launch/fill.sh', '--to', 'launch']).err).toContain('choose another');
      expect(hash(join(place.root, 'launch'))).toBe(before);
    }));
  it.each<readonly [string, readonly string[], string]>([
    ['a name that is no blank', ['NODE9_ADDRESS=1'], 'NODE9_ADDRESS is no blank here. These are: NODE0_ADDRESS'],
    ['no value', ['NODE0_ADDRESS='], 'NODE0_ADDRESS has no value'],
    ['no equals sign', ['NODE0_ADDRESS'], 'NODE0_ADDRESS: write it as NAME=VALUE'],
    ['what sh would run', ['NODE0_ADDRESS=$(id)'], 'NODE0_ADDRESS: a value has letters, digits and . _ : / @ , + - alone'],
    ['a space', ['MODEL_PATH=/data/my model'], 'MODEL_PATH: a value has letters'],
    [
      'a path that begins nowhere',
      ['MODEL_PATH=data'],
      'MODEL_PATH wants a path that begins with / and has no : or , in it, which containers take for ends, not data',
    ],
    ['a path that docker would cut', ['MODEL_PATH=/data:/etc'], 'MODEL_PATH wants a path that begins with / and has no : or , in it'],
    ['a path with a comma', ['MODEL_PATH=/data,ro'], 'MODEL_PATH wants a path that begins with / and has no : or , in it'],
    ['a file that docker would cut', ['MINDIE_CONFIG=/a:b.json'], 'MINDIE_CONFIG wants a path that begins with / and has no : or , in it'],
    [
      'what a program would take for an option',
      ['NODE0_ADDRESS=--privileged'],
      'NODE0_ADDRESS: a value does not begin with -, which programs take for an option',
    ],
    ['an image that is an option', ['mindie/IMAGE=-v'], 'IMAGE: a value does not begin with -'],
    ['what is no address', ['NODE0_ADDRESS=10.0.0.1/24'], "NODE0_ADDRESS wants an address or a host's name, not 10.0.0.1/24"],
    ['one option among addresses', [`NODE0_DEVICE_IPS=1.1.1.1${',-x'.repeat(15)}`], 'NODE0_DEVICE_IPS: a value does not begin with -'],
    ['an address that is left out', [`NODE0_DEVICE_IPS=1.1.1.1${','.repeat(15)}`], 'NODE0_DEVICE_IPS has an empty value among its 16'],
    [
      'an image with a digest, and a digest',
      [`mindie/IMAGE=a/b@${digest}`, `mindie/IMAGE_DIGEST=${digest}`],
      `mindie/IMAGE has a digest already, a/b@${digest}: leave it out there, or give no IMAGE_DIGEST`,
    ],
    ['a digest that is none', ['mindie/IMAGE_DIGEST=sha256:12'], 'IMAGE_DIGEST wants sha256: and 64 digits, not sha256:12'],
    ['too few addresses', ['NODE0_DEVICE_IPS=1.1.1.1,1.1.1.2'], 'NODE0_DEVICE_IPS wants 16 values with commas between, and has 2'],
    ['an engine that is not there', ['vllm/IMAGE=a'], 'vllm is no engine here. These are: mindie'],
  ])('refuses %s before anything is written', (_, args, what) =>
    at(...mindie, place => {
      const { status, err } = place.sh(['launch/fill.sh', 'NODE1_ADDRESS=10.0.0.2', ...args]);
      expect([status, err.includes(what) ? what : err]).toEqual([64, what]);
      expect(existsSync(join(place.root, 'site'))).toBe(false);
    }),
  );
  it('takes names of Kubernetes as they are there: a namespace is a DNS label, a claim a subdomain', () => {
    const place = new LaunchPlace(filesOf(cases[0] as Case, spread(2, 8, 8, 2, 1, true), { modelSource: 'pvc' }));
    const says = (pair: string): string => {
      const { status, err } = place.sh(['launch/fill.sh', pair]);
      return status === 0 ? 'written' : err;
    };
    try {
      for (const bad of ['A', 'a_b', 'a.b', 'a-', 'a'.repeat(64), 'ä'])
        expect([bad, says(`NAMESPACE=${bad}`)]).toEqual([
          bad,
          expect.stringMatching(/^NAMESPACE( wants at most 63 small letters|: a value has letters)/),
        ]);
      for (const bad of ['A', 'a..b', '.a', 'a.-b', 'a-.b', 'a.', 'a'.repeat(254)])
        expect([bad, says(`MODEL_CLAIM=${bad}`)]).toEqual([bad, expect.stringMatching(/^MODEL_CLAIM wants at most 253 small letters/)]);
      for (const good of [`NAMESPACE=${'a'.repeat(63)}`, 'NAMESPACE=team-1', 'MODEL_CLAIM=v3.weights-1', `MODEL_CLAIM=${'a'.repeat(253)}`])
        expect([good, says(good)]).toEqual([good, 'written']);
      for (const good of ['NODE0_ADDRESS=::1', 'NODE0_ADDRESS=fe80::1', 'NODE0_ADDRESS=node-0.room_1'])
        expect([good, says(good)]).toEqual([good, 'written']);
    } finally {
      place.done();
    }
  });
  it('refuses a second digest for an image that was filled in before', () =>
    at(...mindie, place => {
      const say = (...pairs: readonly string[]): string => place.sh(['launch/fill.sh', ...pairs]).err;
      expect(say(`IMAGE=a/b@${digest}`)).toBe('');
      expect(say(`IMAGE_DIGEST=${digest}`)).toBe(
        `mindie/IMAGE has a digest already, a/b@${digest}: leave it out there, or give no IMAGE_DIGEST\n`,
      );
      expect(say('IMAGE=a/b:1', `IMAGE_DIGEST=${digest}`)).toBe('');
      expect(say(`IMAGE=c/d@${digest}`)).toContain('has a digest already');
      expect(place.read('site/mindie/site.env')).toContain('HKGAI_IMAGE=a/b:1\n');
    }));
  it('wants to know whose image it is where there are several engines', () =>
    at(cases[0] as Case, spread(1, 8, 8), place =>
      expect(place.sh(['launch/fill.sh', 'IMAGE=a/b:1']).err).toBe(
        'IMAGE is another for each engine: write vllm/IMAGE=... sglang/IMAGE=...\n',
      ),
    ));
  it('writes no table of ranks while an address is missing, and MindIE does not start without it', () =>
    at(...mindie, place => {
      const all = values(place.read('launch/mindie/site.env'));
      const some = place.sh(['launch/fill.sh', ...all.filter(v => !v.startsWith('NODE1_DEVICE_IPS'))]);
      expect(some.out).toContain('site/mindie/rank-table.json is not written yet; still blank: NODE1_DEVICE_IPS');
      const started = place.sh(['site/mindie/node-0.sh']);
      expect(started.status).toBe(78);
      expect(started.err).toContain('rank-table.json is not written');
      place.sh(['launch/fill.sh', ...all]);
      expect(place.sh(['site/mindie/node-0.sh']).status).toBe(0);
      expect(place.started().env.RANK_TABLE_FILE).toBe(join(place.root, 'site/mindie/rank-table.json'));
    }));
});

describe('the languages that are written', () => {
  const odd = [
    '',
    'yes',
    'No',
    'null',
    '~',
    '1',
    '0x1f',
    '1e3',
    '- a',
    'a: b',
    '#',
    '"',
    "'",
    '\\',
    'a\nb',
    '\t',
    '*x',
    '&x',
    '!x',
    '{}',
    '[a]',
    '@x',
    '%',
    'ä',
    'on',
    'a b',
    '$(X)',
    '8000',
    'true',
    '.5',
    '=',
    '<<',
    '2026-01-01',
  ];
  it('YAML is read back as it was, and text stays text', () => {
    const value = {
      ...Object.fromEntries(odd.map((s, i) => [`k${i}`, s])),
      list: odd,
      keys: Object.fromEntries(odd.map(s => [s || 'empty', 1])),
      none: [],
      empty: {},
      deep: [[1, [true]], { a: [{ b: 'c' }] }],
      n: -3,
    };
    for (const version of ['1.1', '1.2'] as const)
      expect(parseAllDocuments(yaml(['a comment'], [value]), { version }).map(d => d.toJS())).toEqual([value]);
  });
  it('sh takes words as they were', () => {
    const words = odd.map(w => shellWord(w, 0)).join(' ');
    const { stdout } = spawnSync('sh', ['-c', `printf '%s\\0' ${words}`], { encoding: 'utf8' });
    expect(stdout.split('\0').slice(0, -1)).toEqual(odd);
  });
  const found = spawnSync('shellcheck', ['--version']).status === 0;
  (found ? it : it.skip)('shellcheck finds nothing', () => {
    for (const [name] of goldens)
      for (const f of shells(join(golden, name)))
        expect(spawnSync('shellcheck', ['-x', '-e', 'SC1091', f], { encoding: 'utf8' }).stdout).toBe('');
  });
});
