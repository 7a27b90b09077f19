// Whole programs for CUDA: under the emulated driver against the golden logits, by nvcc where it is here.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { cpSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { openCheckpoint } from '../src/checkpoint/shards.js';
import { writeHeaders } from '../src/models/header-only.js';
import { buildModel, defaultOptions } from '../src/models/index.js';
import { lower } from '../src/passes/index.js';
import type { Session } from '../src/session.js';
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
import { fixtures, tinyCases } from './golden-cases.js';

const work = mkdtempSync(join(tmpdir(), 'hkgai-cuda-native-'));
const cacheBefore = process.env.HKGAI_CACHE;
beforeAll(() => {
  process.env.HKGAI_CACHE = join(work, 'cache');
});
const figures: Figures[] = [];
afterAll(() => {
  if (cacheBefore === undefined) delete process.env.HKGAI_CACHE;
  else process.env.HKGAI_CACHE = cacheBefore;
  keepFigures('cuda', figures);
  rmSync(work, { recursive: true, force: true });
});
const open: Session[] = [];
afterEach(async () => {
  for (const s of open.splice(0)) await s.close();
});
const limit = 2e-4;
const gxx = spawnSync('g++', ['--version']).status === 0;

(gxx ? describe : describe.skip)(
  gxx ? 'programs under the emulated driver' : 'programs under the emulated driver: skipped, there is no g++ here',
  () => {
    for (const name of tinyCases)
      it(`${name}: a prompt whole and in pieces, single steps`, async () => {
        const session = await openEmulated(await emulated(tiny(name), 'cuda', join(work, name)));
        open.push(session);
        const got = await compareGolden(session, tiny(name), name);
        figures.push(got);
        expect(Math.max(got.prompt, got.pieces, got.decode, got.mtp ?? 0)).toBeLessThanOrEqual(limit);
      });
    for (const [name, quantise] of [
      ['v3-tiny-bf16', 'w8a8'],
      ['qwen2-distill-tiny', 'int8-rows'],
    ] as const)
      it(`${name} in ${quantise}: what the reference says of the same weights`, async () => {
        const built = await emulated(tiny(name), 'cuda', join(work, `${name}-${quantise}`), { quantise, mtp: 'drop' });
        const session = await openEmulated(built);
        const plain = await openPlain(built);
        open.push(session, plain);
        const got = await compareGolden(session, tiny(name), name, plain);
        expect(Math.max(got.prompt, got.pieces, got.decode)).toBeLessThanOrEqual(limit);
      });
  },
);

// CUDA Driver API documentation, CUDA 13.0: what the host may call
const documented = [
  'CUDA', // in comments
  'cuCtxSetCurrent',
  'cuDeviceGet',
  'cuDeviceGetAttribute',
  'cuDeviceGetCount',
  'cuDeviceGetName',
  'cuDevicePrimaryCtxRelease',
  'cuDevicePrimaryCtxRelease_v2',
  'cuDevicePrimaryCtxRetain',
  'cuDeviceTotalMem_v2',
  'cuGetErrorString',
  'cuGraphDestroy',
  'cuGraphExecDestroy',
  'cuGraphInstantiate',
  'cuGraphInstantiateWithFlags',
  'cuGraphLaunch',
  'cuInit',
  'cuLaunchKernel',
  'cuMemAlloc_v2',
  'cuMemFree_v2',
  'cuMemcpyDtoHAsync',
  'cuMemcpyDtoHAsync_v2',
  'cuMemcpyHtoDAsync',
  'cuMemcpyHtoDAsync_v2',
  'cuMemsetD8Async',
  'cuModuleGetFunction',
  'cuModuleLoadData',
  'cuModuleUnload',
  'cuStreamBeginCapture',
  'cuStreamBeginCapture_v2',
  'cuStreamCreate',
  'cuStreamDestroy_v2',
  'cuStreamEndCapture',
  'cuStreamSynchronize',
];
(gxx ? describe : describe.skip)('the sources of a program', () => {
  let built: Awaited<ReturnType<typeof emulated>>;
  beforeAll(async () => {
    built = await emulated(tiny('llama-distill-tiny'), 'cuda', join(work, 'faults'));
  });
  it('call nothing but what is documented', () => {
    expect(wordsOf(built.native, /\b(?:cu|CU)[A-Z]\w*/g).filter(w => !documented.includes(w))).toEqual([]);
    expect(wordsOf(built.native, /\bcu[A-Z]\w*/g)).toContain('cuLaunchKernel');
  });
  it('hold no path of a machine, and say the same when they are printed again', async () => {
    const again = join(work, 'again');
    await emulated(tiny('llama-distill-tiny'), 'cuda', again);
    for (const f of readdirSync(built.native)) {
      const text = readFileSync(join(built.native, f), 'utf8');
      expect(readFileSync(join(again, 'cuda/native', f), 'utf8')).toBe(text);
      expect(text).not.toMatch(/\/(home|tmp|root|work)\//);
    }
  });
  const broken = (name: string, file: string, from: string, instead: string) =>
    withFault(built.native, built.engine, 'cuda', join(work, `fault-${name}`), file, from, instead);
  it('are told by the emulator that the host writes the memory of the device', async () => {
    const got = await broken('host', 'hkgai_runtime.c', 'memcpy(m->rows, b->ids, n);', 'memcpy(m->ids, b->ids, n);');
    expect([got.status, got.said]).toEqual([
      2,
      expect.stringMatching(/^emulator: the host.* writes device memory, byte 0 of allocation \d+: copy it first\n$/),
    ]);
  });
  it('are told that an argument is not the one that the kernel takes', async () => {
    const got = await broken(
      'argument',
      'hkgai_device.c',
      '(char *)(uintptr_t)arguments + 8 * i',
      '(char *)(uintptr_t)arguments + 8 * (i ^ 1)',
    );
    expect([got.status, got.said]).toEqual([2, expect.stringMatching(/argument \d+ of \w+ is /)]);
  });
  it('are not built where a kernel takes other arguments than the host passes', async () => {
    const list = readFileSync(join(built.native, 'kernels.h'), 'utf8');
    const line = /^ {2}X\(\w+, "p+n*"\).*$/m.exec(list)![0];
    const got = await broken('kinds', 'kernels.h', line, line.replace('"p', '"n'));
    expect(got.said).toMatch(/the host passes other arguments than \w+ takes/);
  });
  it('are told that a block is not made of whole warps', async () => {
    const got = await broken(
      'warps',
      'hkgai_device.c',
      '#include "hkgai_device.h"',
      '#include "hkgai_device.h"\n#undef HKGAI_THREADS\n#define HKGAI_THREADS 48',
    );
    expect([got.status, got.said]).toEqual([2, expect.stringContaining('48 threads, which is not whole warps of 32')]);
  });
  it('are told that memory was not given back', async () => {
    const got = await broken('free', 'hkgai_device.c', 'd->driver.cuMemFree_v2(d->memory[i]);', '(void)0;');
    expect([got.status, got.said]).toEqual([
      2,
      expect.stringMatching(/the program ends with \d+ bytes of the device's memory that it did not give back/),
    ]);
  });
  it('give no logits where a copy to the host was not waited for', async () => {
    const call =
      'if (done(d, d->driver.cuMemcpyDtoHAsync_v2(to, (driver_address)(uintptr_t)from, bytes, d->stream), "cuMemcpyDtoHAsync"))\n    done(d, d->driver.cuStreamSynchronize(d->stream), "cuStreamSynchronize");';
    const whole = await broken('none', 'hkgai_device.c', call, call);
    const got = await broken('wait', 'hkgai_device.c', call, call.split('\n')[0]!.replace('if (', '(void)(').replace(/$/, ';'));
    expect(whole.status).toBe(0);
    expect(got.ids.split('\n').slice(0, 2)).not.toEqual(whole.ids.split('\n').slice(0, 2));
  });
});

const nvcc = spawnSync('nvcc', ['--version']).status === 0;
(nvcc ? describe : describe.skip)(nvcc ? 'build.sh with nvcc' : 'build.sh with nvcc: skipped, it is not here', () => {
  it('gives code for four architectures and PTX, the same bytes each time and anywhere, and a report of registers', async () => {
    const { native } = await emulated(tiny('llama-distill-tiny'), 'cuda', join(work, 'nvcc'));
    const places = [join(work, 'first'), join(work, 'another', 'deeper')];
    for (const [i, p] of places.entries()) {
      cpSync(native, p, { recursive: true });
      const env = i === 0 ? process.env : { ...process.env, HKGAI_ARCHS: '90', HKGAI_PTX: '80' };
      const ran = spawnSync('sh', [join(p, 'build.sh')], { encoding: 'utf8', env });
      expect([ran.status, ran.stderr]).toEqual([0, '']);
    }
    const made = (p: string): readonly string[] => readdirSync(p).filter(f => /cubin$|ptx$|report|^model$|\.new$/.test(f));
    expect(made(places[0]!)).toEqual([
      'build-report.txt',
      'kernels.compute_80.ptx',
      'kernels.compute_90.ptx',
      'kernels.sm_100.cubin',
      'kernels.sm_120.cubin',
      'kernels.sm_80.cubin',
      'kernels.sm_90.cubin',
      'model',
    ]);
    const digest = (f: string): string => createHash('sha256').update(readFileSync(f)).digest('hex');
    for (const f of ['kernels.sm_90.cubin', 'kernels.compute_80.ptx', 'model'])
      expect([f, digest(join(places[1]!, f))]).toEqual([f, digest(join(places[0]!, f))]);
    const kernels = [...readFileSync(join(native, 'kernels.h'), 'utf8').matchAll(/^ {2}X\((\w+),/gm)].map(m => m[1]);
    const report = readFileSync(join(places[0]!, 'build-report.txt'), 'utf8').trim().split('\n');
    expect(report.length).toBe(4 * kernels.length);
    for (const line of report) {
      const [, name, spilled, shared] =
        /^sm_\d+ (\w+): \d+ registers, (\d+) bytes spilled, \d+ bytes of stack, (\d+) bytes of shared memory$/.exec(line)!;
      expect(kernels).toContain(name);
      expect([name, spilled]).toEqual([name, '0']);
      expect(Number(shared)).toBeLessThanOrEqual(49152);
    }
    if (existsSync('/dev/nvidiactl')) return; // a driver may be here, and then it runs
    const ran = spawnSync(join(places[0]!, 'model'), ['--weights', native, '--tokens', '1', '-n', '1'], { encoding: 'utf8' });
    expect([ran.status, ran.stderr]).toEqual([3, expect.stringContaining('there is no CUDA driver here')]);
  });
});

describe('models of full size', () => {
  for (const [name, aims] of [
    ['DeepSeek-V2-Lite', ['cuda', 'biren']],
    ['DeepSeek-V3', ['cuda', 'biren']],
    ['DeepSeek-V4-Flash', ['cuda']],
  ] as const)
    it(`${name}: kernels fit the blocks of ${aims.join(' and ')}`, () => {
      const dir = join(work, name);
      writeHeaders(join(fixtures, `configs/${name}.json`), dir);
      const c = openCheckpoint(dir, { headersOnly: true });
      const { graph } = buildModel(c.config, c.tensors, { ...defaultOptions(c.config), mtp: false });
      rmSync(dir, { recursive: true });
      for (const aim of aims) {
        const { chips, objection } = targets[aim]!;
        const { launches } = lower(graph, { objection: k => objection(k, chips[0]!) });
        const kernels = launches.flatMap(l => l.variants.flatMap(v => v.kernel ?? []));
        expect(kernels.length).toBeGreaterThan(100);
        expect(kernels.flatMap(k => objection(k, chips[0]!) ?? [])).toEqual([]);
      }
    });
});
