// Launch files: every script is parsed by sh and run with programs that write down what they are given; every option is held against its engine's
// table; every manifest against a schema written from the published types. UPDATE=1 rewrites test/golden/launch.
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from '@jest/globals';
import { Ajv2020, type ValidateFunction } from 'ajv/dist/2020.js';
import { parseAllDocuments } from 'yaml';
import { vllmBrFlags } from '../targets/biren/launch.js';
import type { Runtime } from '../targets/engine.js';
import type { FlagTable } from '../targets/flags.js';
import { targets } from '../targets/index.js';
import { type LaunchModel, type LaunchOptions, launchFiles, modelSources, type Parallel, parallelName } from '../targets/launch.js';
import { plainName } from '../targets/nodes.js';
import { sglangFlags } from '../targets/sglang.js';
import type { Target } from '../targets/target.js';
import { vllmFlags } from '../targets/vllm.js';
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
  expertMap: null,
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
    model: { ...v3, expertMap: 'experts.json' },
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
    model: { ...ascendModel, expertMap: 'expert_map.json' },
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
  const program = c.engine === 'sglang' ? ['python3', '-m', 'sglang.launch_server'] : ['vllm', 'serve'];
  it.each(c.ways.flatMap(p => modelSources.map(s => [`${p.nodes} nodes, ${parallelName(p)}, ${s}`, p, s] as const)))(
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
          if (all[0] && c.table !== sglangFlags) expect(all[0].get('MODEL')).toBe('/data/model-7');
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
