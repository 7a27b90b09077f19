// Programs for Ascend chips, built for an emulated device and run: the vendor's interface as the emulator holds it, and whole models against recorded logits.
import { spawnSync } from 'node:child_process';
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { buildEmulated } from '../src/build.js';
import { writeText } from '../src/bundle/directory.js';
import { openCheckpoint } from '../src/checkpoint/shards.js';
import { buildOptions, compile, plan, weightFiles } from '../src/compile.js';
import { openReference, type Session } from '../src/session.js';
import { verify } from '../src/verify.js';
import { ascend } from '../targets/ascend/index.js';
import { compareGolden, emulated, type Figures, keepFigures, keptFigures, openEmulated, tiny } from './emulated-golden.js';
import { fixtures, recorded, tinyCases, worst } from './golden-cases.js';

const root = fileURLToPath(new URL('..', import.meta.url));
const work = mkdtempSync(join(tmpdir(), 'hkgai-ascend-'));
const cacheBefore = process.env.HKGAI_CACHE;
beforeAll(() => {
  process.env.HKGAI_CACHE = join(work, 'cache');
});
const figures: Figures[] = [];
afterAll(() => {
  if (cacheBefore === undefined) delete process.env.HKGAI_CACHE;
  else process.env.HKGAI_CACHE = cacheBefore;
  if (figures.length > 0) keepFigures('ascend', figures);
  rmSync(work, { recursive: true, force: true });
});
const open: Session[] = [];
afterEach(async () => {
  for (const s of open.splice(0)) await s.close();
});
const limit = 2e-4;
const limits = { state: 'f32', mtp: 'keep', context: 224, sequences: 3, chunk: 96 } as const;
const chipOf = (name: string) => ascend.chips.find(c => c.name === name)!;
const gxx = spawnSync('g++', ['--version']).status === 0;

(gxx ? describe : describe.skip)(gxx ? 'the emulated device' : 'the emulated device: skipped, there is no g++ here', () => {
  const host = join(work, 'host');
  beforeAll(() => {
    const emulator = join(root, 'targets/ascend/emulator');
    const sources = [join(root, 'test/ascend-native/host.cpp'), join(emulator, 'acl_emulator.cpp')];
    const built = spawnSync('g++', ['-std=c++17', '-O1', `-I${emulator}`, ...sources, '-o', host], { encoding: 'utf8' });
    expect([built.status, built.stderr]).toEqual([0, '']);
  });
  const run = (which: string, more: Readonly<Record<string, string>> = {}) =>
    spawnSync(host, [which], { encoding: 'utf8', env: { ...process.env, ...more } });
  const sums = `${Array.from({ length: 32 }, (_, i) => i + 1).join(' ')}\n`;

  it('runs what is legal, whatever the order of blocks and the number of cores', () => {
    for (const more of [{}, { EMULATED_SEED: '1' }, { EMULATED_SEED: '2' }]) {
      const ran = run('nothing', more);
      expect([ran.status, ran.stdout, ran.stderr]).toEqual([0, sums, '']);
    }
  });
  it('gives rows of weights by whole copies as it gives them one by one', () => {
    const program = join(work, 'rows');
    const flags = ['-std=c++17', '-O1', `-I${join(root, 'targets/ascend/emulator')}`, `-I${join(root, 'targets/ascend/header')}`];
    const built = spawnSync('g++', [...flags, join(root, 'test/ascend-native/rows.cpp'), '-o', program], { encoding: 'utf8' });
    expect([built.status, built.stderr]).toEqual([0, '']);
    const ran = spawnSync(program, { encoding: 'utf8' });
    expect([ran.stdout, ran.stderr, ran.status]).toEqual(['0 wrong\n', '', 0]);
  });
  it('has a limit of memory, which is an answer and no fault', () => {
    expect(run('too much memory').stdout).toBe('207001\n');
  });
  it('shows that a block waited for another: other orders give other numbers', () => {
    const orders = Array.from({ length: 12 }, (_, i) => String(i * 1234)).map(
      seed => run('blocks in order', { EMULATED_SEED: seed }).stdout,
    );
    expect(new Set(orders).size).toBeGreaterThan(1);
  });
  for (const [which, sentence] of [
    ['set before init', 'aclrtSetDevice before aclInit'],
    ['memory before set', 'aclrtMalloc before aclrtSetDevice'],
    ['host reads', 'the host touches device memory, byte 0 of allocation 1: copy it first'],
    ['host writes', 'the host writes device memory, byte 0 of allocation 1: copy it first'],
    ['wrong kind', 'the kind is not that of its two places'],
    ['copy too long', 'aclrtMemcpy of 129 bytes into 128'],
    ['room too large', 'aclrtMemcpy of 132 bytes reaches 0 bytes after the end of allocation 1 of 128 bytes'],
    ['freed', 'aclrtMemcpy of 128 bytes reaches byte 0 of allocation 2, which was freed'],
    ['no blocks', 'add is launched with 0 blocks'],
    ['too many blocks', '49 blocks where the device has 48 vector cores'],
    ['host argument', 'argument 1 of add is not in device memory'],
    ['null argument', 'argument 2 of add is a null pointer'],
    ['no stream', 'add: no such stream'],
    ['scalar write', 'kernel by_scalar, core 0 of 1: a scalar writes byte 0 of allocation 2: global memory is written by copies alone'],
    ['past the end', 'kernel past_the_end, core 0 of 1: a copy of 32 bytes writes 0 bytes after the end of allocation 2 of 128 bytes'],
    ['not waited for', 'aclrtMemcpy while a stream has work that was not waited for'],
    ['stream left', 'aclFinalize with a stream left'],
    ['memory left', 'aclFinalize with allocation 1 left'],
  ] as const)
    it(`stops: ${which}`, () => {
      const ran = run(which);
      expect([ran.status, ran.stderr]).toEqual([2, expect.stringContaining(sentence)]);
    });
});

/** The largest difference from the reference on the same directory: a prompt in two pieces, then single steps. */
async function fromReference(session: Session, engine: string, ids: readonly number[]): Promise<number> {
  const options = { ...buildOptions(openCheckpoint(engine).config, limits), zeroOffsets: true };
  const reference = await openReference(engine, options);
  open.push(reference);
  let most = 0;
  for (let from = 0, n = 0; from < ids.length && n < 5; n++) {
    const to = Math.min(ids.length, from + (n === 0 ? 9 : n === 1 ? 12 : 1));
    const range = Array.from({ length: to - from }, (_, i) => from + i);
    const step = { ids: ids.slice(from, to), positions: range, sequences: range.map(() => 1) };
    most = Math.max(most, worst((await session.step(step)).logits, (await reference.step(step)).logits));
    from = to;
  }
  return most;
}
/** A program for a chip from any directory of weights, built for the emulated device. */
async function printed(engine: string, out: string, chip = '910b'): Promise<{ readonly program: string; readonly engine: string }> {
  const program = plan(engine, { ...limits, allowPhantomKeys: false, objection: k => ascend.objection(k, chipOf(chip)) });
  for (const f of ascend.native!(program, weightFiles(engine, program), chipOf(chip)))
    writeText(out, f.path, f.text, f.executable === true);
  return { program: (await buildEmulated(out, ascend.emulator!())).program, engine };
}

(gxx ? describe : describe.skip)(
  gxx ? 'programs on the emulated device' : 'programs on the emulated device: skipped, there is no g++ here',
  () => {
    const coded = tinyCases.filter(name => /fp8/.test(name));
    for (const name of tinyCases.filter(n => !coded.includes(n)))
      it(`${name}: a prompt whole and in pieces, single steps, from the weights as they are`, async () => {
        const session = await openEmulated(await emulated(tiny(name), 'ascend', join(work, name)));
        open.push(session);
        const got = await compareGolden(session, tiny(name), name);
        figures.push(got);
        expect(Math.max(got.prompt, got.pieces, got.decode, got.mtp ?? 0)).toBeLessThanOrEqual(limit);
      });
    for (const [name, quantise] of [
      ...coded.map(n => [n, 'w8a8'] as const),
      ['v3-tiny-fp8', 'bf16'] as const,
      ['qwen2-distill-tiny', 'w8a8'] as const,
      ['v32-tiny', 'w8a8'] as const,
    ])
      it(`${name}: ${quantise} as vLLM reads it, against the reference on the same directory`, async () => {
        const built = await emulated(tiny(name), 'ascend', join(work, `${name}-${quantise}`), { quantise });
        const session = await openEmulated(built);
        open.push(session);
        const ids = [...recorded(join(tiny(name), 'golden.safetensors')).get('seq0.input_ids')!.data];
        expect(await fromReference(session, built.engine, ids)).toBeLessThanOrEqual(limit);
      });
    it('v4-tiny-fp8fp4: MXFP4 experts and MXFP8 linears on the 950, against the reference on the same directory', async () => {
      const name = 'v4-tiny-fp8fp4';
      const built = await emulated(tiny(name), 'ascend:950', join(work, 'mxfp4'), { quantise: 'mxfp4' });
      const session = await openEmulated(built);
      open.push(session);
      const ids = [...recorded(join(tiny(name), 'golden.safetensors')).get('seq0.input_ids')!.data];
      expect(await fromReference(session, built.engine, ids)).toBeLessThanOrEqual(limit);
    });
    it('a bundle is verified by its self-test: layer by layer against the reference, without the chip', async () => {
      const out = join(work, 'verified');
      await emulated(tiny('llama-distill-tiny'), 'ascend:910b2', out, { quantise: 'w8a8' });
      const said = await verify(out, { golden: null, tolerance: limit, with: 'auto', emulate: true }, () => undefined);
      expect([said.problems, said.checks.filter(c => !c.passed)]).toEqual([[], []]);
      expect(said.verified.emulated).toMatch(/^self-test of ascend-910b2 .*against the reference/);
      expect(said.checks.filter(c => /emulated: .*(logits|layers)/.test(c.name)).length).toBeGreaterThan(3);
    });
    it('starts only on the chip it was made for, with memory enough and the files it was made for', async () => {
      const name = 'llama-distill-tiny';
      const built = await printed(tiny(name), join(work, 'starts'));
      const start = (engine: string, more: Readonly<Record<string, string>>) =>
        spawnSync(built.program, ['--tokens', '1,2,3', '-n', '2', '--weights', engine], {
          encoding: 'utf8',
          env: { ...process.env, ...more },
        });
      const whole = start(built.engine, {});
      expect([whole.status, whole.stderr, whole.stdout.trim().split('\n').length]).toEqual([0, '', 3]);
      for (const cores of ['1', '5', '40'])
        expect(start(built.engine, { EMULATED_CORES: cores }).stdout.split('\n').slice(0, 2)).toEqual(whole.stdout.split('\n').slice(0, 2));
      for (const [engine, more, sentence] of [
        [built.engine, { EMULATED_SOC: 'Ascend310P3' }, 'this program was compiled for Ascend910B, and the device is Ascend310P3'],
        [built.engine, { EMULATED_MEMORY: '100000' }, 'weights, caches and activations could not be had'],
        [built.engine, { HKGAI_DEVICE: '3' }, 'aclrtSetDevice: error 107001'],
        [tiny('qwen2-distill-tiny'), {}, 'but this program was compiled for a file of'],
      ] as const) {
        const ran = start(engine, more);
        expect([ran.status, ran.stderr]).toEqual([3, expect.stringContaining(sentence)]);
      }
    });
    it('llama-distill-tiny: int8 with a scale a row in f32, against the golden logits of those codes', async () => {
      const name = 'llama-distill-tiny';
      const out = join(work, 'int8');
      await compile(
        tiny(name),
        {
          ...{ out, targets: ['cpu'], quantise: join(fixtures, 'recipes/all-int8.json'), weights: 'auto', ...limits },
          ...{ force: false, allowPhantomKeys: false, version: 'test', noCache: true },
        },
        { step: () => undefined, at: () => undefined },
      );
      const session = await openEmulated(await printed(join(out, 'cpu/engine'), join(work, 'int8-native')));
      open.push(session);
      const golden = recorded(join(tiny(name), 'golden.safetensors'));
      const ids = [...golden.get('seq0.input_ids')!.data];
      const got = await session.step({ ids, positions: ids.map((_, i) => i), sequences: ids.map(() => 0) });
      expect(worst(got.logits, golden.get('seq0.logits.int8_pc')!.data)).toBeLessThanOrEqual(limit);
    });
  },
);

const cmake = gxx && spawnSync('cmake', ['--version']).status === 0;
(cmake ? describe : describe.skip)(
  cmake ? 'build.sh, with a stand-in for CANN' : 'build.sh, with a stand-in for CANN: skipped, there is no cmake or g++ here',
  () => {
    const cann = join(work, 'cann');
    const native = join(work, 'built');
    const name = 'llama-distill-tiny';
    const build = (args: readonly string[], env: Readonly<Record<string, string>> = { ASCEND_HOME_PATH: cann }) => {
      const { ASCEND_HOME_PATH: _, ...rest } = process.env;
      return spawnSync('sh', [join(native, 'build.sh'), ...args], { encoding: 'utf8', env: { ...rest, ...env } });
    };
    beforeAll(() => {
      const emulator = join(root, 'targets/ascend/emulator');
      for (const d of ['tools/tikcpp/ascendc_kernel_cmake', 'lib64']) mkdirSync(join(cann, d), { recursive: true });
      symlinkSync(emulator, join(cann, 'include'));
      copyFileSync(join(root, 'test/ascend-native/cann/ascendc.cmake'), join(cann, 'tools/tikcpp/ascendc_kernel_cmake/ascendc.cmake'));
      const library = ['-shared', '-fPIC', join(emulator, 'acl_emulator.cpp'), '-o', join(cann, 'lib64/libascendcl.so')];
      expect(spawnSync('g++', ['-std=c++17', '-O1', `-I${emulator}`, ...library], { encoding: 'utf8' }).stderr).toBe('');
      const chip = chipOf('910b');
      const program = plan(tiny(name), { ...limits, allowPhantomKeys: false, objection: k => ascend.objection(k, chip) });
      for (const f of ascend.native!(program, weightFiles(tiny(name), program), chip))
        writeText(native, f.path, f.text, f.executable === true);
    });
    it('says what is missing before it starts', () => {
      for (const [args, env, code, sentence] of [
        [[], { ASCEND_HOME_PATH: cann }, 2, 'say which chip: --soc NAME'],
        [['--fast'], { ASCEND_HOME_PATH: cann }, 2, '--fast is no option'],
        [['--soc', 'Ascend910B2'], {}, 8, 'ASCEND_HOME_PATH is not set'],
      ] as const) {
        const ran = build(args, env);
        expect([ran.status, ran.stderr]).toEqual([code, expect.stringContaining(sentence)]);
      }
    });
    it('refuses a toolkit that is not whole, and a chip that the tools do not know', () => {
      const hollow = build(['--soc', 'Ascend910B2'], { ASCEND_HOME_PATH: join(work, 'nothing'), HKGAI_WORK: join(work, 'hollow') });
      expect([hollow.status === 0, hollow.stderr.replace(/\s+/g, ' ')]).toEqual([
        false,
        expect.stringContaining('the CANN toolkit is not whole'),
      ]);
      const other = build(['--soc', 'Ascend310P3'], { ASCEND_HOME_PATH: cann, HKGAI_WORK: join(work, 'other') });
      expect([other.status === 0, other.stderr]).toEqual([false, expect.stringContaining('Ascend310P3 is no chip')]);
    });
    it('builds by cmake, launches by the generated functions, and gives the golden logits', async () => {
      const built = build(['--soc', 'Ascend910B2']);
      expect([built.status, built.stderr]).toEqual([0, '']);
      expect(built.stdout).toContain('stand-in: soc Ascend910B2');
      const before = process.env.LD_LIBRARY_PATH;
      process.env.LD_LIBRARY_PATH = join(cann, 'lib64');
      try {
        const session = await openEmulated({ program: join(native, 'model'), engine: tiny(name) });
        open.push(session);
        const got = await compareGolden(session, tiny(name), name);
        expect(Math.max(got.prompt, got.pieces, got.decode)).toBeLessThanOrEqual(limit);
      } finally {
        if (before === undefined) delete process.env.LD_LIBRARY_PATH;
        else process.env.LD_LIBRARY_PATH = before;
      }
    });
  },
);

describe('what a chip cannot run is refused with a sentence', () => {
  const planned = (name: string, chip: string) =>
    plan(tiny(name), { ...limits, allowPhantomKeys: false, objection: k => ascend.objection(k, chipOf(chip)) });
  it('FP8 and FP4 on chips without a unit for them; BF16 on the 310P; nothing where all is well', () => {
    expect(ascend.refuses!(planned('v3-tiny-fp8', '910b'), chipOf('910b'))).toMatch(
      /is in FP8, and 910b has no unit for it: --quantise w8a8 makes int8 of it$/,
    );
    expect(ascend.refuses!(planned('v4-tiny-fp8fp4', '910c'), chipOf('910c'))).toMatch(/has no unit for it/);
    expect(ascend.refuses!(planned('llama-distill-tiny', '310p'), chipOf('310p'))).toBe(
      '310p has no BF16, in which these checkpoints are stored',
    );
    expect(ascend.refuses!(planned('llama-distill-tiny', '910b'), chipOf('910b'))).toBeNull();
  });
  it('int4 in pairs of rows: engine/ stands by itself, and the note says why', async () => {
    const { manifest } = await compile(
      tiny('v3-tiny-bf16'),
      {
        ...{ out: join(work, 'w4a8'), targets: ['ascend'], quantise: 'w4a8', weights: 'auto', ...limits },
        ...{ force: false, allowPhantomKeys: false, version: 'test', noCache: true },
      },
      { step: () => undefined, at: () => undefined },
    );
    expect(manifest.targets[0]!.notes.join(' ')).toMatch(
      /No native program for ascend:910b: .* is int4 in pairs of rows, which engines read and programs do not/,
    );
  });
  it('int4 on the 950, which has no int4 cube', async () => {
    const out = join(work, 'int4');
    await compile(
      tiny('llama-distill-tiny'),
      {
        ...{ out, targets: ['cpu'], quantise: join(fixtures, 'recipes/all-int4.json'), weights: 'auto', ...limits },
        ...{ force: false, allowPhantomKeys: false, version: 'test', noCache: true },
      },
      { step: () => undefined, at: () => undefined },
    );
    const program = plan(join(out, 'cpu/engine'), { ...limits, allowPhantomKeys: false });
    expect(ascend.refuses!(program, chipOf('950'))).toMatch(/is in int4, and 950 has no int4 cube: --quantise mxfp4$/);
    expect(ascend.refuses!(program, chipOf('910b'))).toBeNull();
  });
  it('a kernel that does not fit the unified buffer', () => {
    const small = { ...chipOf('910b'), tileBytes: { value: 4096, source: 'this test' } };
    const said = planned('llama-distill-tiny', '910b').launches.flatMap(l =>
      l.variants.flatMap(v => (v.kernel ? [ascend.objection(v.kernel, small)] : [])),
    );
    expect(said.filter(x => x !== null && /needs \d+ bytes of the unified buffer; 910b has 4096$/.test(x)).length).toBeGreaterThan(0);
    expect(
      planned('llama-distill-tiny', '910b')
        .launches.flatMap(l => l.variants.flatMap(v => (v.kernel ? [ascend.objection(v.kernel, chipOf('910b'))] : [])))
        .every(x => x === null),
    ).toBe(true);
  });
});

describe('docs/native-ascend.md', () => {
  it('has the figures that were kept (UPDATE=1 writes test/golden/emulated/ascend.json)', () => {
    const text = readFileSync(join(root, 'docs/native-ascend.md'), 'utf8');
    const shown = (v: number | null): string => (v === null ? '–' : String(v));
    const rows = keptFigures('ascend').map(f => `| ${f.model} | ${[f.prompt, f.pieces, f.decode, f.mtp].map(shown).join(' | ')} |`);
    expect(rows.length).toBe(7);
    for (const row of rows) expect(text).toContain(row);
  });
});
