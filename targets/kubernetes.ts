// A LeaderWorkerSet for an engine: one pod a node, the model from an image volume, a claim or the host. Fields and their types:
// kubernetes-sigs/lws@060ab4da:api/leaderworkerset/v1/leaderworkerset_types.go, kubernetes/api@10b39a39:core/v1/types.go.
import type { Arg, Ref, Word } from './flags.js';
import { type LaunchModel, type LaunchOptions, type Parallel, parallelName } from './launch.js';
import { modelPath, plainName } from './nodes.js';
import { quoted } from './shell.js';
import type { Blank, StartedEngine } from './started.js';
import { vllmPorts } from './vllm.js';
import { type Yaml, yaml } from './yaml.js';

/** A marker that fill.sh puts the site's value for. */
export const marker = (name: string): string => `@HKGAI_${name}@`;

/** Blanks that the manifest alone has. */
export function podBlanks(e: StartedEngine, options: LaunchOptions): readonly Blank[] {
  return [
    ...(options.modelSource === 'image'
      ? [
          {
            name: 'MODEL_IMAGE',
            about: 'the OCI image that holds the model, with its digest',
            how: 'REGISTRY/NAME@sha256:…, as it was pushed to the registry that the cluster pulls from',
            form: 'pinned' as const,
          },
        ]
      : options.modelSource === 'pvc'
        ? [
            {
              name: 'MODEL_CLAIM',
              about: 'the PersistentVolumeClaim with the engine directory at its root, readable from every node',
              how: 'kubectl get pvc -n NAMESPACE',
              form: 'subdomain' as const,
            },
          ]
        : []),
    { name: 'NAMESPACE', about: 'the namespace that it runs in', how: 'kubectl get namespaces', form: 'label' as const },
    ...(e.pod.resource === null
      ? [
          {
            name: 'RESOURCE',
            about: "the device plugin's name of a device",
            how: "kubectl get nodes -o jsonpath='{.items[*].status.allocatable}'",
          },
        ]
      : []),
  ];
}
/** A value as a pod has it: the kubelet puts variables in (env of the LeaderWorkerSet: leaderworkerset_types.go:69-80). */
function known(r: Ref, leads: boolean, model: string): string {
  switch (r.ref) {
    case 'model':
      return modelPath(model);
    case 'leader': // a socket is bound to an address, not to a name
      return leads ? '$(POD_IP)' : '$(LWS_LEADER_ADDRESS)';
    case 'self':
      return '$(POD_IP)';
    case 'interface': // as in vllm-ascend@182b75ea:docs/source/user_guide/deployment_guide/using_volcano_kthena.md
      return 'eth0';
    case 'rank':
      return leads ? '0' : '$(LWS_WORKER_INDEX)';
    case 'ranks': // sh counts; the kubelet makes one $ of two
      return leads ? '0' : `$$((LWS_WORKER_INDEX * ${r.each}))`;
    case 'here':
    case 'blank':
      throw new Error('a pod has no such value');
  }
}
const word = (w: Word, leads: boolean, model: string): string =>
  typeof w === 'string'
    ? w
    : 'ref' in w
      ? known(w, leads, model)
      : w.map(x => (typeof x === 'string' ? x : known(x, leads, model))).join('');
const counts = (a: Arg): boolean => typeof a.value === 'object' && a.value !== null && 'ref' in a.value && a.value.ref === 'ranks';
const wordsOf = (args: readonly Arg[], leads: boolean, model: string): readonly string[] =>
  args.flatMap(({ flag, value }) => [...(flag.startsWith('-') ? [flag] : []), ...(value === null ? [] : [word(value, leads, model)])]);

/** The command of a pod. */
function commandOf(e: StartedEngine, leads: boolean, model: string): readonly string[] {
  if (e.args === null) {
    const ip = '$(POD_IP)';
    return leads
      ? [
          'sh',
          '-c',
          `ray start --head --port=${vllmPorts.ray} --node-ip-address="$0" && exec "$@"`,
          ip,
          ...e.program,
          ...wordsOf(e.ray?.() ?? [], true, model),
        ]
      : [
          'sh',
          '-c',
          `until ray start --address="$0:${vllmPorts.ray}" --node-ip-address="$1" --block; do sleep 5; done`,
          '$(LWS_LEADER_ADDRESS)',
          ip,
        ];
  }
  const args = e.args(leads);
  const counted = leads ? [] : args.filter(counts);
  const plain = wordsOf(
    args.filter(a => !counted.includes(a)),
    leads,
    model,
  );
  if (counted.length === 0) return [...e.program, ...plain];
  const last = counted.map(a => `${a.flag} "${word(a.value as Word, leads, model)}"`).join(' ');
  return ['sh', '-c', `exec "$0" "$@" ${last}`, ...e.program, ...plain];
}
/** Hundreds of gigabytes may be read before the first answer: two hours. */
const startup = { periodSeconds: 30, failureThreshold: 240, timeoutSeconds: 10 };

function pod(e: StartedEngine, p: Parallel, model: LaunchModel, options: LaunchOptions, leads: boolean): Yaml {
  const answers = leads || e.pod.followersAnswer;
  const health = { httpGet: { path: '/health', port: 'http' } };
  const devices: Yaml = { [e.pod.resource?.value ?? marker('RESOURCE')]: String(p.devicesPerNode) };
  const command = commandOf(e, leads, model.name);
  const env = [...e.env, ...(e.args === null ? e.rayEnv : [])];
  const volume = (h: { readonly path: string }): string => `host${h.path.replace(/[^a-z0-9]+/gi, '-').toLowerCase()}`;
  const source: Yaml =
    options.modelSource === 'image'
      ? { image: { reference: marker('MODEL_IMAGE'), pullPolicy: 'IfNotPresent' } }
      : options.modelSource === 'pvc'
        ? { persistentVolumeClaim: { claimName: marker('MODEL_CLAIM'), readOnly: true } }
        : { hostPath: { path: marker('MODEL_PATH'), type: 'Directory' } };
  return {
    metadata: { labels: { app: plainName(model.name) } },
    spec: {
      runtimeClassName: e.pod.runtimeClass,
      nodeSelector: e.pod.nodeSelector,
      containers: [
        {
          name: e.name,
          image: marker('IMAGE_PINNED'),
          imagePullPolicy: 'IfNotPresent',
          ...(e.keepsEntrypoint ? { args: command } : { command }),
          env: [
            { name: 'POD_IP', valueFrom: { fieldRef: { fieldPath: 'status.podIP' } } },
            ...env.map(v => ({ name: v.name, value: word(v.value, leads, model.name) })),
            ...(p.nodes > 1 && e.interfaceEnv.needed ? e.interfaceEnv.names.map(name => ({ name, value: 'eth0' })) : []),
          ],
          ports: answers ? [{ name: 'http', containerPort: options.port, protocol: 'TCP' }] : undefined,
          startupProbe: answers ? { ...health, ...startup } : undefined,
          readinessProbe: answers ? { ...health, periodSeconds: 10, timeoutSeconds: 10, failureThreshold: 3 } : undefined,
          livenessProbe: answers ? { ...health, periodSeconds: 30, timeoutSeconds: 10, failureThreshold: 10 } : undefined,
          resources: { limits: devices, requests: devices },
          securityContext: {
            privileged: e.pod.privileged,
            capabilities: e.pod.capabilities.length ? { add: e.pod.capabilities } : undefined,
          },
          volumeMounts: [
            { name: 'model', mountPath: modelPath(model.name), readOnly: true, subPath: options.subPath },
            { name: 'shm', mountPath: '/dev/shm' },
            ...e.pod.hostPaths.map(h => ({ name: volume(h), mountPath: h.path, readOnly: true })),
          ],
        },
      ],
      volumes: [
        { name: 'model', ...(source as object) },
        { name: 'shm', emptyDir: { medium: 'Memory', sizeLimit: e.pod.shm } },
        ...e.pod.hostPaths.map(h => ({ name: volume(h), hostPath: { path: h.path, type: h.kind } })),
      ],
    },
  };
}
/** The manifest with markers for blanks. */
export function leaderWorkerSet(e: StartedEngine, p: Parallel, model: LaunchModel, options: LaunchOptions): string {
  const name = `${plainName(model.name)}-${e.name}`.slice(0, 45).replace(/-+$/, '');
  const set = 'leaderworkerset.sigs.k8s.io';
  const where = { name, namespace: marker('NAMESPACE') };
  return yaml(
    [
      `${e.about}, ${parallelName(p)}, on ${p.nodes} ${p.nodes === 1 ? 'node' : 'nodes'} of ${p.devicesPerNode}: a form with @HKGAI_...@ for blanks.`,
      `sh launch/fill.sh NAME=VALUE ... writes it filled in to site/${e.name}/leaderworkerset.yaml; then kubectl apply -f that file.`,
      ...(e.pod.resource ? [`${quoted(e.pod.resource.value)}: ${e.pod.resource.source}`] : []),
    ],
    [
      {
        apiVersion: 'leaderworkerset.x-k8s.io/v1',
        kind: 'LeaderWorkerSet',
        metadata: where,
        spec: {
          replicas: 1,
          startupPolicy: 'LeaderCreated',
          leaderWorkerTemplate: {
            size: p.nodes,
            restartPolicy: 'RecreateGroupOnPodRestart',
            ...(p.nodes > 1 ? { leaderTemplate: pod(e, p, model, options, true) } : {}),
            workerTemplate: pod(e, p, model, options, p.nodes === 1),
          },
        },
      },
      {
        apiVersion: 'v1',
        kind: 'Service',
        // the controller makes a headless one under the set's own name
        metadata: { ...where, name: `${name}-http` },
        spec: {
          type: 'ClusterIP',
          selector: { [`${set}/name`]: name, [`${set}/worker-index`]: '0' },
          ports: [{ name: 'http', port: options.port, targetPort: 'http', protocol: 'TCP' }],
        },
      },
    ],
  );
}
