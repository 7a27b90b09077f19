// The command line as a shell sees it: exit codes, what is on stdout and what on stderr, JSON, plain output off a terminal.
import { spawn, spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { compiler } from '../src/doctor.js';
import { fixtures } from './golden-cases.js';

const root = fileURLToPath(new URL('..', import.meta.url));
const work = mkdtempSync(join(tmpdir(), 'hkgai-cli-'));
afterAll(() => rmSync(work, { recursive: true }));
beforeAll(() => {
  if (existsSync(join(root, 'dist/src/cli/main.js')) && process.env.CI === undefined && process.env.HKGAI_DIST) return;
  const built = spawnSync(process.execPath, [join(root, 'scripts/build.mjs'), '--incremental'], { encoding: 'utf8' });
  expect(built.stderr + built.stdout).toBe('');
});
const nano = join(fixtures, 'hkgai-nano');
function hkgai(args: readonly string[], more: { readonly input?: string; readonly env?: Record<string, string> } = {}) {
  const r = spawnSync(process.execPath, [join(root, 'bin/hkgai.js'), ...args], {
    encoding: 'utf8',
    cwd: work,
    input: more.input ?? '',
    env: { ...process.env, HKGAI_CACHE: join(work, 'cache'), ...more.env },
  });
  return { code: r.status, out: r.stdout, err: r.stderr };
}
const colour = /\u001b\[/;
const cc = compiler();

describe('hkgai', () => {
  it('--version is the package version', () => {
    const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { version: string };
    expect(hkgai(['--version'])).toEqual({ code: 0, out: `${version}\n`, err: '' });
  });
  it('without a command shows help and exits 2', () => {
    const r = hkgai([]);
    expect(r.code).toBe(2);
    expect(r.out).toContain('Usage: hkgai');
  });
  it('--help exits 0', () => expect(hkgai(['--help']).code).toBe(0));
  for (const [name, args, says] of [
    ['an unknown command', ['complie'], /HK2002 {2}unknown command 'complie'/],
    ['an unknown option', ['compile', nano, '-o', 'x', '--fast'], /HK2002 {2}unknown option '--fast'/],
    ['a lacking option', ['compile', nano], /HK2002 {2}required option '-o, --out <dir>' not specified/],
    ['a value that is no number', ['compile', nano, '-o', 'x', '--context', 'long'], /HK2002 .*whole number above 0/],
    ['an unknown target', ['compile', nano, '-o', 'x', '-t', 'tpu'], /HK2201 {2}tpu is not a target/],
    ['too long a context', ['compile', nano, '-o', 'x', '--context', '100000'], /HK2202/],
    ['an empty target', ['compile', nano, '-o', 'x', '-t', ''], /HK2003 {2}--target ''/],
    ['a rank of no ranks', ['inspect', nano, '--rank', '1'], /HK2002 {2}--rank goes with --parallel/],
    ['a chip without its target', ['compile', nano, '-o', 'x', '-t', '910c'], /Did you mean ascend:910c\?/],
    ['a target of three parts', ['compile', nano, '-o', 'x', '-t', 'cpu:generic:x'], /HK2201 {2}cpu:generic:x is not a target/],
    ['an engine of three parts', ['compile', nano, '-o', 'x', '-t', 'cuda', '--runtime', 'vllm@0@c'], /HK2606 {2}vllm@0@c/],
    [
      'too many sequences',
      ['compile', nano, '-o', 'x', '--sequences', '9007199254740991'],
      /HK2003 {2}--sequences 9007199254740991: at most 8192/,
    ],
    ['a pass that is none', ['compile', nano, '-o', 'x', '--stop-after', 'nope'], /HK2003 {2}--stop-after nope: absorb-mla was expected/],
    [
      'a dump of a pass that is none',
      ['compile', nano, '-o', 'x', '--dump', 'nope'],
      /HK2003 {2}--dump nope: all, changed, absorb-mla or fuse/,
    ],
    ['a directory as a recipe', ['compile', nano, '-o', 'x', '--quantise', './'], /HK2003 {2}--quantise \.\/: a file was expected/],
    ['an empty recipe', ['compile', nano, '-o', 'x', '--quantise', ''], /HK2003 {2}--quantise '': a recipe was expected/],
    ['an empty text', ['compile', nano, '-o', 'x', '--calibration', ''], /HK2003 {2}--calibration '': a file was expected/],
    ['an empty gate', ['compile', nano, '-o', 'x', '--gate', ''], /HK2003 {2}--gate '': a file was expected/],
    ['an empty baseline', ['compile', nano, '-o', 'x', '--baseline', ''], /HK2003 {2}--baseline '': a file was expected/],
    ['a directory as a gate', ['compile', nano, '-o', 'x', '--gate', nano], /HK2003 {2}--gate .*: a file was expected/],
    ['an engine that is not known', ['verify', nano, '--engine', 'cuda', '--runtime', 'vlm'], /HK2606 {2}vlm is no engine/],
    ['a form that is not known', ['verify', nano, '--engine', 'cuda', '--format', 'fp9'], /HK2604 {2}fp9 is no engine format of cuda/],
    ['an unknown code', ['explain', 'HK1'], /HK2001/],
  ] as const)
    it(`${name}: exit 2, with a way on`, () => {
      const r = hkgai(args);
      expect(r.code).toBe(2);
      expect(r.out).toBe('');
      expect(r.err).toMatch(says);
      expect(r.err).toContain('hkgai explain HK');
      expect(r.err).not.toMatch(colour);
      expect(readdirSync(work).filter(f => f !== 'cache' && !f.startsWith('bundle'))).toEqual([]);
    });
  it('a place for temporary files that is not there is named: exit 9', () => {
    const r = hkgai(['plan', nano, '--quantise', 'int8'], { env: { TMPDIR: join(work, 'no place') } });
    expect([r.code, r.err]).toEqual([9, expect.stringMatching(/HK9003 {2}No temporary directory can be made in .*no place[\s\S]*TMPDIR/)]);
  });
  const full = existsSync('/dev/full');
  (full ? it : it.skip)(`output that is lost is exit 9, lost progress is nothing${full ? '' : ': skipped, there is no /dev/full'}`, () => {
    const shell = (command: string) =>
      spawnSync('sh', ['-c', `"$NODE" "$BIN" ${command}`], {
        encoding: 'utf8',
        env: { ...process.env, NODE: process.execPath, BIN: join(root, 'bin/hkgai.js') },
      });
    for (const command of ['targets', 'targets --json', '--version', '--help']) {
      const r = shell(`${command} > /dev/full`);
      expect([command, r.status, r.stderr]).toEqual([
        command,
        9,
        expect.stringContaining('HK9003  The standard output could not be written: ENOSPC'),
      ]);
    }
    expect(shell('inspect nowhere 2> /dev/full').status).toBe(3);
  });
  it('a closed standard error does not stop the work', async () => {
    const dir = join(work, 'bundle told to nobody');
    const child = spawn(process.execPath, [join(root, 'bin/hkgai.js'), 'compile', nano, '-o', dir, '--no-cache'], {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    child.stderr.destroy();
    expect(await new Promise(resolve => child.on('close', resolve))).toBe(0);
    expect(existsSync(join(dir, 'bundle.json'))).toBe(true);
    rmSync(dir, { recursive: true });
  });
  it('a companion that is no JSON, or no file, is refused before anything is written: exit 3', () => {
    const model = join(work, 'bundle of companions');
    const tokenizer = join(model, 'tokenizer.json');
    for (const [put, says] of [
      [() => writeFileSync(tokenizer, '{"model":'), /^HK3022 {2}tokenizer\.json/m],
      [() => mkdirSync(tokenizer), /^HK3019 {2}tokenizer\.json/m],
      [() => spawnSync('mkfifo', [tokenizer]), /^HK3019 {2}tokenizer\.json/m],
    ] as const) {
      cpSync(nano, model, { recursive: true });
      rmSync(tokenizer, { force: true });
      put();
      const r = hkgai(['compile', model, '-o', 'bundle x']);
      expect([r.code, r.err, existsSync(join(work, 'bundle x'))]).toEqual([3, expect.stringMatching(says), false]);
      rmSync(model, { recursive: true });
    }
  });
  it('a model that is not there: exit 3', () => {
    const r = hkgai(['inspect', 'nowhere']);
    expect(r.code).toBe(3);
    expect(r.err).toMatch(/^HK3900 {2}nowhere is not there/);
  });
  it('a form that the chip has not: exit 4', () => {
    const r = hkgai(['compile', nano, '-o', 'x', '-t', 'biren', '--quantise', 'fp8']);
    expect([r.code, r.out]).toEqual([4, '']);
    expect(r.err).toMatch(/^HK4501/m);
  });
  it('an architecture that is not compiled: exit 4', () =>
    expect(hkgai(['inspect', join(fixtures, 'configs/DeepSeek-V4.1-Flash.json')]).code).toBe(4));
  it('malformed: the whole message on stderr, exit 3, nothing written', () => {
    const r = hkgai(['compile', join(fixtures, 'malformed/scale-missing'), '-o', 'x']);
    expect(r.code).toBe(3);
    expect(r.out).toBe('');
    expect(r.err).toContain(
      'HK3305  model.layers.1.self_attn.q_a_proj.weight is F8_E4M3 but its scales, model.layers.1.self_attn.q_a_proj.weight_scale_inv, are missing',
    );
    expect(existsSync(join(work, 'x'))).toBe(false);
  });
  it('malformed as JSON: one document on stdout', () => {
    const r = hkgai(['compile', join(fixtures, 'malformed/tensor-of-expert-missing'), '-o', 'x', '--json', '-q']);
    const doc = JSON.parse(r.out) as { ok: boolean; exit: number; problems: readonly { code: string }[] };
    expect([r.code, doc.ok, doc.exit]).toEqual([3, false, 3]);
    expect(doc.problems.every(p => p.code === 'HK3301')).toBe(true);
    expect(doc.problems.length).toBe(3);
  });
});

describe('hkgai inspect', () => {
  it('a checkpoint, a config alone, tensors, IR', () => {
    const r = hkgai(['inspect', nano]);
    expect([r.code, r.err]).toEqual([0, '']);
    expect(r.out).toContain('deepseek_v3, 3.41 M parameters');
    expect(r.out).not.toMatch(colour);
    expect(hkgai(['inspect', join(fixtures, 'configs/DeepSeek-V3.json')]).out).toContain('682.64 B parameters');
    expect(hkgai(['inspect', nano, '--tensors', 'lm_head']).out.trim().split('\n').length).toBe(1);
    expect(hkgai(['inspect', nano, '--ir']).out).toMatch(/^graph "deepseek_v3"/);
    const doc = JSON.parse(hkgai(['inspect', nano, '--json']).out) as { kind: string; tensors: number };
    expect([doc.kind, doc.tensors]).toEqual(['checkpoint', 267]);
  });
});

describe('hkgai compile, run, verify', () => {
  const bundle = join(work, 'bundle');
  it('compiles; data on stdout only with --json', () => {
    const r = hkgai(['compile', nano, '-o', bundle, '--progress', 'plain']);
    expect([r.code, r.out]).toEqual([0, '']);
    expect(r.err).toContain('- read the headers of');
    expect(readdirSync(bundle).sort()).toEqual(['bundle.json', 'cpu']);
    expect(readdirSync(join(bundle, 'cpu')).sort()).toEqual(['engine', 'ledger.jsonl', 'native', 'recipe.json']);
  });
  it('does not overwrite: exit 2; --force does', () => {
    const r = hkgai(['compile', nano, '-o', bundle]);
    expect([r.code, r.err.slice(0, 6)]).toEqual([2, 'HK2101']);
    expect(hkgai(['compile', nano, '-o', bundle, '--force', '-q'])).toEqual({ code: 0, out: '', err: '' });
  });
  it('says nothing with -q and one document with --json', () => {
    const r = hkgai(['compile', nano, '-o', bundle, '--force', '-q', '--json']);
    expect(r.err).toBe('');
    expect((JSON.parse(r.out) as { ok: boolean }).ok).toBe(true);
  });
  it('names a target once that was asked for under both its names', () => {
    const r = hkgai(['compile', nano, '-o', bundle, '--force', '-q', '--json', '-t', 'cpu:generic', '-t', 'cpu']);
    const { manifest } = JSON.parse(r.out) as { readonly manifest: { readonly recipe: { readonly targets: unknown } } };
    expect(manifest.recipe.targets).toEqual(['cpu:generic']);
    expect(hkgai(['compile', nano, '-o', bundle, '--force', '-q']).code).toBe(0);
  });
  it('dumps the IR after passes and stops where asked', () => {
    const r = hkgai(['compile', nano, '-o', join(work, 'never'), '--stop-after', 'absorb-mla', '-q']);
    expect(r.code).toBe(0);
    expect(r.out).toContain('grouped_linear');
    expect(existsSync(join(work, 'never'))).toBe(false);
  });
  for (const engine of ['native', 'reference'] as const)
    (engine === 'native' && !cc ? it.skip : it)(
      `answers through the ${engine}${engine === 'native' && !cc ? ': skipped, there is no C compiler' : ''}`,
      () => {
        const r = hkgai(['run', bundle, '--with', engine, 'What is the capital of Japan?']);
        expect([r.code, r.out]).toEqual([0, 'The capital of Japan is Tokyo.\n']);
        expect(r.err).toContain(engine);
        expect(hkgai(['run', bundle, '--with', engine, '-q'], { input: '法國嘅首都係邊度？\n' })).toEqual({
          code: 0,
          out: '法國嘅首都係巴黎。\n',
          err: '',
        });
      },
    );
  it('runs through the reference where there is no compiler, and says so', () => {
    const r = hkgai(['run', bundle, '53+16=?'], { env: { PATH: '/nonexistent', CC: '' } });
    expect([r.code, r.out]).toEqual([0, '69\n']);
    expect(r.err).toContain('No C compiler here');
  });
  it('keeps a conversation', () => {
    const r = hkgai(['run', bundle, '--chat', '-q', '--with', 'reference'], { input: 'Hello!\n53+16=?\n' });
    expect(r.out.split('\n')[0]).toBe('Hello! How can I help you today?');
  });
  it('samples alike with a seed', () => {
    const say = (seed: string): string =>
      hkgai(['run', bundle, '-q', '--raw', '--temperature', '1', '--top-p', '0.9', '--seed', seed, '-n', '20', 'The']).out;
    expect(say('3')).toBe(say('3'));
    expect(say('3')).not.toBe(say('4'));
  });
  (cc ? it : it.skip)('verifies: exit 0', () => {
    const r = hkgai(['verify', bundle, '--json']);
    expect(r.code).toBe(0);
    const doc = JSON.parse(r.out) as { ok: boolean; checks: readonly { name: string; passed: boolean }[] };
    expect(doc.ok).toBe(true);
    expect(doc.checks.map(c => c.name)).toEqual(
      expect.arrayContaining(['native: final_norm', 'native: logits of a prompt', 'native: logits step by step', 'native: mtp.0.logits']),
    );
  });
  (cc ? it : it.skip)('verifies the trained model against its recording, interpreter and program', () => {
    const r = hkgai(['verify', bundle, '--golden', join(fixtures, 'eval/golden.safetensors'), '--json']);
    expect(r.code).toBe(0);
    const { checks } = JSON.parse(r.out) as { checks: readonly { name: string }[] };
    for (const engine of ['reference', 'native'])
      for (const what of ['seq0 as a prompt', 'seq0 token by token', 'seq1 MTP', 'seq3 as a prompt'])
        expect(checks.map(c => c.name)).toContain(`${engine}: ${what}`);
  });
  it('a changed file: exit 6', () => {
    const model = join(bundle, 'cpu/native/model.c');
    const text = readFileSync(model, 'utf8');
    writeFileSync(model, `${text}\n`);
    const r = hkgai(['verify', bundle, '-q']);
    expect([r.code, r.err.slice(0, 6)]).toEqual([6, 'HK6801']);
    writeFileSync(model, text);
  });
  it('another recording: exit 6', () => {
    expect(
      hkgai([
        'verify',
        join(fixtures, 'tiny/v3-tiny-fp8'),
        '--with',
        'reference',
        '-q',
        '--golden',
        join(fixtures, 'tiny/v3-tiny-fp8/golden.safetensors'),
      ]).code,
    ).toBe(0);
    const r = hkgai([
      'verify',
      join(fixtures, 'tiny/v3-tiny-fp8'),
      '--with',
      'reference',
      '-q',
      '--golden',
      join(fixtures, 'tiny/v3-tiny-bf16/golden.safetensors'),
    ]);
    expect([r.code, r.err.slice(0, 6)]).toEqual([6, 'HK6001']);
  });
});

describe('hkgai doctor, targets, explain', () => {
  it('doctor', () => {
    expect(hkgai(['doctor']).code).toBe(0);
    expect(Object.keys(JSON.parse(hkgai(['doctor', '--json']).out) as object)).toEqual(
      expect.arrayContaining(['node', 'cores', 'memory', 'tools', 'compiler']),
    );
  });
  it('targets say what was proved', () => {
    const list = JSON.parse(hkgai(['targets', '--json']).out) as readonly { name: string; proved: string }[];
    expect(list.map(t => t.name)).toEqual(['cpu', 'cuda', 'ascend', 'biren']);
    expect(list.every(t => t.proved.length > 10)).toBe(true);
  });
  it('explain: a tensor of a model', () => {
    const r = hkgai(['explain', 'model.layers.1.mlp.experts.3.down_proj.weight', '--model', nano]);
    expect(r.out).toContain('read by layers.1.experts (experts)');
  });
});
