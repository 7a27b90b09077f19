// Whole programs for Biren br1xx: under the emulated runtime against the golden logits.
import { spawnSync } from 'node:child_process';
import { chmodSync, cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { sha256File } from '../src/bundle/directory.js';
import { readManifest } from '../src/bundle/manifest.js';
import { compile } from '../src/compile.js';
import type { Session } from '../src/session.js';
import { verify } from '../src/verify.js';
import { targets } from '../targets/index.js';
import {
  compareGolden,
  emulated,
  type Figures,
  keepFigures,
  openEmulated,
  openPlain,
  tiny,
  withFault,
  wordsOf,
} from './emulated-golden.js';
import { tinyCases } from './golden-cases.js';

const work = mkdtempSync(join(tmpdir(), 'hkgai-biren-native-'));
const cacheBefore = process.env.HKGAI_CACHE;
beforeAll(() => {
  process.env.HKGAI_CACHE = join(work, 'cache');
});
const figures: Figures[] = [];
afterAll(() => {
  if (cacheBefore === undefined) delete process.env.HKGAI_CACHE;
  else process.env.HKGAI_CACHE = cacheBefore;
  keepFigures('biren', figures);
  rmSync(work, { recursive: true, force: true });
});
const open: Session[] = [];
afterEach(async () => {
  for (const s of open.splice(0)) await s.close();
});
const limit = 2e-4;
const gxx = spawnSync('g++', ['--version']).status === 0;

(gxx ? describe : describe.skip)(
  gxx ? 'programs under the emulated runtime' : 'programs under the emulated runtime: skipped, there is no g++ here',
  () => {
    for (const name of tinyCases)
      it(`${name}: a prompt whole and in pieces, single steps`, async () => {
        const built = await emulated(tiny(name), 'biren', join(work, name), { quantise: 'bf16' });
        const session = await openEmulated(built);
        open.push(session);
        // FP8 blocks with scales that are no powers of two are rounded on their way to bf16: the same weights are what to compare with
        const plain = name === 'v3-tiny-fp8' ? await openPlain(built) : null;
        if (plain) open.push(plain);
        const got = await compareGolden(session, tiny(name), name, plain);
        figures.push(got);
        expect(Math.max(got.prompt, got.pieces, got.decode, got.mtp ?? 0)).toBeLessThanOrEqual(limit);
      });
    for (const [name, quantise] of [
      ['v3-tiny-bf16', 'int8'],
      ['v2-lite-tiny', 'int8'],
    ] as const)
      it(`${name} in ${quantise}: what the reference says of the same weights`, async () => {
        const built = await emulated(tiny(name), 'biren', join(work, `${name}-${quantise}`), { quantise, mtp: 'drop' });
        const session = await openEmulated(built);
        const plain = await openPlain(built);
        open.push(session, plain);
        const got = await compareGolden(session, tiny(name), name, plain);
        expect(Math.max(got.prompt, got.pieces, got.decode)).toBeLessThanOrEqual(limit);
      });
  },
);

// Biren's programming guide and runtime API guide (BIRENSUPA, br1xx), read in the snapshots that docs/native.md names: what a program may say
const documented = [
  'suDeviceProp',
  'suError_t',
  'suFree',
  'suGetDeviceCount',
  'suGetDeviceProperties',
  'suGetErrorString',
  'suGetLastError',
  'suLaunchKernel',
  'suMallocDevice',
  'suMemcpyAsync',
  'suMemcpyDeviceToHost',
  'suMemcpyHostToDevice',
  'suMemsetAsync',
  'suSetDevice',
  'suStreamCreate',
  'suStreamDestroy',
  'suStreamSynchronize',
  'suStream_t',
  'suSuccess',
  'SUPA', // in comments
  'SUPA_SDK', // of build.sh
];
const attributes = ['__device__', '__global__', '__shared__', '__syncthreads', '__SUPA__', '__cplusplus', '__VA_ARGS__', '__shfl_xor_sync'];
(gxx ? describe : describe.skip)('the sources of a program', () => {
  let built: Awaited<ReturnType<typeof emulated>>;
  beforeAll(async () => {
    built = await emulated(tiny('llama-distill-tiny'), 'biren', join(work, 'faults'), { quantise: 'bf16' });
  });
  it('say nothing but what is documented', () => {
    expect(wordsOf(built.native, /\b(?:su|SU)[A-Z]\w*/g).filter(w => !documented.includes(w))).toEqual([]);
    expect(wordsOf(built.native, /\b__[A-Za-z]\w*/g).filter(w => !attributes.includes(w))).toEqual([]);
    expect(wordsOf(built.native, /\bsu[A-Z]\w*/g)).toContain('suLaunchKernel');
  });
  it('have no double on the device', () => {
    for (const f of ['kernels.su', 'hkgai_simt.h', 'hkgai_tile.suh'])
      expect(readFileSync(join(built.native, f), 'utf8')).not.toMatch(/\bdouble\b/);
  });
  const broken = (name: string, file: string, from: string, instead: string) =>
    withFault(built.native, built.engine, 'biren', join(work, `fault-${name}`), file, from, instead);
  it('are told by the emulator that the host reads the memory of the device', async () => {
    const got = await broken(
      'host',
      'hkgai_runtime.c',
      'if (logits) hk_device_download(',
      'if (logits) memcpy(logits, m->arena + hk_logits_at, bytes);\n  if (logits) hk_device_download(',
    );
    expect([got.status, got.said]).toEqual([
      2,
      expect.stringMatching(/^emulator: the host.* touches device memory, byte \d+ of allocation \d+: copy it first\n$/),
    ]);
  });
  it('are not built where an argument is passed as another type', async () => {
    const header = readFileSync(join(built.native, 'kernels.h'), 'utf8');
    const struct = /struct \w+_arguments \{[^}]*long rows;[^}]*\}/.exec(header)![0];
    const got = await broken('types', 'kernels.h', struct, struct.replace('long rows;', 'int rows;'));
    expect(got.said).toContain("a launch passes every argument as exactly the type of the kernel's parameter");
  });
  it('are told that an address is none of the device', async () => {
    const got = await broken('address', 'hkgai_runtime.c', 'm->positions = m->next_ids + hk_info.chunk;', 'm->positions = m->rows;');
    expect([got.status, got.said]).toEqual([
      2,
      expect.stringMatching(/argument \d+ of \w+ is 0x[0-9a-f]+, which is no live address of the device's memory/),
    ]);
  });
  it('do not compile where the kind stands before the stream', async () => {
    const got = await broken(
      'order',
      'hkgai_device.su',
      'bytes, d->stream, suMemcpyDeviceToHost',
      'bytes, suMemcpyDeviceToHost, d->stream',
    );
    expect(got.said).toContain('suMemcpyKind');
  });
});
it('a program whose weights the chip has no unit for is not printed, and the notes say why', async () => {
  const out = join(work, 'refused');
  const aim = targets.biren!.chips.find(c => c.name === 'br1xx')!;
  const { manifest } = await compile(
    tiny('llama-distill-tiny'),
    {
      ...{ out, targets: ['biren'], quantise: 'none', state: 'f32', mtp: 'keep', weights: 'auto', context: 224, sequences: 3, chunk: 96 },
      ...{ force: false, allowPhantomKeys: false, version: 'test', noCache: true },
    },
    { step: () => undefined, at: () => undefined },
  );
  expect(manifest.targets[0]!.notes.filter(n => n.startsWith('No native'))).toEqual([]);
  const kernel = {
    name: 'k',
    params: [
      {
        name: 'w',
        access: 'read' as const,
        shape: [8, 128],
        storage: { kind: 'scaled' as const, element: 'f8e4m3' as const, block: [1, 128] as const, scale: 'f32' as const },
      },
    ],
    sizes: [],
    grid: [],
    body: [],
  };
  const launch = { variants: [{ upTo: null, kernel, args: [], sizes: [] }] };
  expect(targets.biren!.refuses!({ launches: [launch] } as never, aim)).toBe(
    'k reads w as f8e4m3[1x128]f32, and br1xx has no unit for it: --quantise bf16 or int8.',
  );
});

/** Stands in for brcc: knows the options of its guide and no others, and builds with g++ and the emulator's supa.h what brcc would. */
const standIn = (log: string, emulator: string): string => `#!/bin/sh
echo "$*" >> '${log}'
link= compile= out= source= arch= path= library=
for a in "$@"; do
  case "$a" in
    --supa-link) link=1 ;;
    -c) compile=1 ;;
    -std=c++17|-O2|-fPIC|-I*|-L*|-Wl,-rpath,*|-lm|-o) ;;
    --supa-gpu-arch=br100) arch=1 ;;
    --supa-path=*/supa) path=1 ;;
    -lsupa-runtime) library=1 ;;
    *.su) source=$a ;;
    *.o|*/model) out=$a ;;
    *) echo "brcc: unknown argument: $a" >&2; exit 1 ;;
  esac
done
[ -n "$arch" ] && [ -n "$path" ] || { echo "brcc: which device, and where is its library?" >&2; exit 1; }
if [ -n "$link" ]; then
  [ -n "$library" ] || { echo "brcc: no runtime" >&2; exit 1; }
  objects=
  for a in "$@"; do case "$a" in *.o) objects="$objects $a" ;; esac; done
  exec g++ $objects -rdynamic -ldl -lm -o "$out"
fi
[ -n "$compile" ] && [ -n "$source" ] || { echo "brcc: nothing to compile" >&2; exit 1; }
exec g++ -std=c++17 -O1 -I. -I'${emulator}/biren/emulator' -I'${emulator}/simt/emulator' -x c++ -c "$source" -o "$out"
`;
(gxx ? it : it.skip)('build.sh calls brcc as its guide says, and what is built runs: 256 threads a block', async () => {
  const built = await emulated(tiny('llama-distill-tiny'), 'biren', join(work, 'brcc'), { quantise: 'bf16' });
  const place = join(work, 'site');
  const sdk = join(place, 'sdk');
  cpSync(built.native, join(place, 'native'), { recursive: true });
  for (const f of targets.biren!.emulator!()) {
    mkdirSync(join(place, 'emulator', f.path, '..'), { recursive: true });
    writeFileSync(join(place, 'emulator', f.path), f.text);
  }
  mkdirSync(join(sdk, 'brcc/bin'), { recursive: true });
  writeFileSync(join(sdk, 'brcc/bin/brcc'), standIn(join(place, 'log'), join(place, 'emulator')));
  chmodSync(join(sdk, 'brcc/bin/brcc'), 0o755);
  const ran = spawnSync('sh', [join(place, 'native/build.sh')], { encoding: 'utf8', env: { ...process.env, SUPA_SDK: sdk } });
  expect([ran.status, ran.stderr]).toEqual([0, '']);
  const log = readFileSync(join(place, 'log'), 'utf8')
    .replaceAll(sdk, 'SDK')
    .replace(/\S+\/build\.\d+\//g, '')
    .trim()
    .split('\n');
  const common = '-std=c++17 -O2 -fPIC --supa-gpu-arch=br100 --supa-path=SDK/supa -ISDK/supa/include -I. -c';
  expect(log).toEqual([
    `${common} kernels.su -o kernels.o`,
    `${common} hkgai_device.su -o hkgai_device.o`,
    '--supa-link --supa-gpu-arch=br100 --supa-path=SDK/supa kernels.o hkgai_device.o model.o weights.o hkgai_runtime.o main.o -LSDK/supa/lib -lsupa-runtime -Wl,-rpath,SDK/supa/lib -lm -o model',
  ]);
  const said = (program: string): string =>
    spawnSync(program, ['--weights', built.engine, '--tokens', '1,5,9', '-n', '3'], { encoding: 'utf8' }).stdout.replace(/done.*/s, '');
  expect(said(join(place, 'native/model'))).toMatch(/^(\d+\n){3}$/);
  expect(said(join(place, 'native/model'))).toBe(said(built.program));
});
it('build.sh says what is missing', () => {
  const ran = spawnSync('sh', [new URL('../targets/biren/runtime/build.sh', import.meta.url).pathname], {
    encoding: 'utf8',
    env: { PATH: '/usr/bin:/bin', SUPA_SDK: '/nowhere' },
  });
  expect([ran.status, ran.stderr]).toEqual([
    8,
    "build.sh: brcc was not found; install Biren's SDK and name it in SUPA_SDK, or the compiler in BRCC\n",
  ]);
});

(gxx ? describe : describe.skip)('verify --emulate', () => {
  const say = (): void => undefined;
  const options = { golden: null, tolerance: 2e-4, with: 'auto' as const, emulate: true };
  const bundle = async (name: string, aims: readonly string[]): Promise<string> => {
    const out = join(work, name);
    await compile(
      tiny('v3-tiny-bf16'),
      {
        ...{ out, targets: aims, quantise: 'bf16', state: 'f32', mtp: 'keep', weights: 'auto', context: 64, sequences: 2, chunk: 16 },
        ...{ force: false, allowPhantomKeys: false, version: 'test', noCache: true },
      },
      { step: () => undefined, at: () => undefined },
    );
    return out;
  };
  it('runs the self-test of every program that can be emulated, layer by layer, and says what that proves', async () => {
    const out = await bundle('verified', ['cuda', 'biren', 'cpu']);
    const v = await verify(out, options, say);
    expect(v.problems).toEqual([]);
    const names = v.checks.filter(c => c.name.includes('emulated: ')).map(c => c.name);
    const own = [
      ...['layers.0.out', 'layers.1.out', 'layers.2.out', 'final_norm', 'logits are finite', 'logits of the prompt'],
      ...['logits of step 1', 'logits of step 2', 'logits of step 3', 'token by token as in one step', 'the prompt once more, bit for bit'],
    ];
    expect(names).toEqual(['cuda', 'biren'].flatMap(t => own.map(n => `${t}, emulated: ${n}`)));
    expect(v.checks.every(c => c.passed)).toBe(true);
    expect(v.verified.emulated).toMatch(/^self-test of cuda \(.*, against the reference\), biren \(.*, against the reference\)$/);
  });
  it('tells a program that computes something else, and one that is ended', async () => {
    const out = await bundle('wrong', ['cuda', 'biren']);
    const change = (file: string, from: string, to: string): void => {
      const before = readFileSync(join(out, file), 'utf8');
      expect(before.split(from).length).toBe(2);
      writeFileSync(join(out, file), before.replace(from, to));
      const manifest = readManifest(out);
      writeFileSync(
        join(out, 'bundle.json'),
        JSON.stringify({ ...manifest, files: { ...manifest.files, [file]: sha256File(join(out, file)) } }),
      );
    };
    change(
      'cuda/native/hkgai_simt.h',
      'inline float tile_exp(float x) { return expf(x); }',
      'inline float tile_exp(float x) { return expf(x) * 1.01f; }',
    );
    change('biren/native/hkgai_runtime.c', 'memcpy(m->rows, b->ids, n);', 'memcpy(m->ids, b->ids, n);');
    const v = await verify(out, options, say);
    expect(v.verified.emulated).toBeNull();
    const failed = v.checks.filter(c => !c.passed);
    expect(failed.map(c => c.name)).toContain('cuda, emulated: logits of the prompt');
    expect(failed.at(-1)).toMatchObject({ name: 'biren, emulated', note: expect.stringContaining('device memory') });
    expect(v.problems[0]?.exit).toBe(6);
  });
  it('refuses what has no program for a device', async () => {
    await expect(verify(await bundle('plain', ['cpu']), options, say)).rejects.toThrow(
      /HK4310 {2}.* has no program that can be run without its chip/,
    );
    await expect(verify(tiny('v3-tiny-bf16'), options, say)).rejects.toThrow(/HK4311/);
  });
});
