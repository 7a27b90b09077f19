// launch/ of a bundle: written where devices are named, in the manifest, the same from run to run, refused before a byte where it cannot be.
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { Refusal } from '../ir/problem.js';
import { readManifest } from '../src/bundle/manifest.js';
import { openCheckpoint } from '../src/checkpoint/shards.js';
import { type CompileOptions, compile } from '../src/compile.js';
import { digestOf } from '../src/plan/saved.js';

const fixtures = fileURLToPath(new URL('../fixtures/', import.meta.url));
const v3 = join(fixtures, 'tiny', 'v3-tiny-bf16');
let work = '';
beforeAll(() => {
  work = mkdtempSync(join(tmpdir(), 'hkgai-launching-'));
});
afterAll(() => rmSync(work, { recursive: true, force: true }));

const base: Omit<CompileOptions, 'out' | 'targets' | 'quantise'> = {
  state: 'f32',
  mtp: null,
  weights: 'auto',
  sequences: 4,
  chunk: 128,
  force: false,
  allowPhantomKeys: false,
  version: '0',
  noCache: true,
};
const make = (name: string, targets: readonly string[], more: Partial<CompileOptions>) =>
  compile(v3, { ...base, out: join(work, name), targets, quantise: 'bf16', ...more }, { step: () => {}, at: () => {} });
const refused = async (name: string, targets: readonly string[], more: Partial<CompileOptions>): Promise<string> => {
  const e = await make(name, targets, more).catch((x: unknown) => x);
  expect(e).toBeInstanceOf(Refusal);
  expect(existsSync(join(work, name))).toBe(false);
  return (e as Refusal).message;
};
const launch = { servedName: 'our/v3', port: 9001, image: 'registry.local/vllm@sha256:00', modelSource: 'hostpath' } as const;

describe('launch files of a bundle', () => {
  it('stand in the manifest, can be run, and say what was asked for', async () => {
    const { manifest } = await make('a', ['cuda:h200', 'ascend:910b3', 'cpu'], { parallel: 'dp=2,ep=2,nodes=2', launch });
    const files = Object.keys(manifest.files).filter(f => f.includes('/launch/'));
    for (const f of ['vllm/node-0.sh', 'vllm/node-1.sh', 'vllm/leaderworkerset.yaml', 'sglang/node-1.sh', 'fill.sh', 'README.md'])
      expect(files).toContain(`cuda-h200/launch/${f}`);
    expect(files).toContain('ascend-910b3/launch/mindie/rank-table.json');
    expect(files.filter(f => f.startsWith('cpu/'))).toEqual([]);
    const node = join(work, 'a', 'cuda-h200/launch/vllm/node-1.sh');
    expect(statSync(node).mode & 0o111).not.toBe(0);
    const pods = readFileSync(join(work, 'a', 'cuda-h200/launch/vllm/leaderworkerset.yaml'), 'utf8');
    for (const word of ['our/v3', '9001', 'hostPath']) expect(pods).toContain(word);
    expect(readFileSync(node, 'utf8')).toContain('our/v3');
    expect(readFileSync(join(work, 'a', 'cuda-h200/launch/vllm/site.env'), 'utf8')).toContain('registry.local/vllm@sha256:00');
    expect(manifest.targets.map(t => t.notes.find(n => n.startsWith('launch/'))?.slice(0, 48))).toEqual([
      'launch/ starts it on 2 nodes of 1 device (tp=1,d',
      'launch/ starts it on 2 nodes of 1 device (tp=1,d',
      undefined,
    ]);
  });
  it('are the same in another directory', async () => {
    await make('b', ['cuda:h200', 'ascend:910b3', 'cpu'], { parallel: 'dp=2,ep=2,nodes=2', launch, jobs: 1 });
    expect(readManifest(join(work, 'b')).files).toEqual(readManifest(join(work, 'a')).files);
  });
  it('name the maps of replicated experts, each for the engine that reads it', async () => {
    await make('maps', ['cuda:h200', 'ascend:910b3'], { parallel: 'dp=2,ep=2,redundant=2' });
    const at = (f: string): string => join(work, 'maps', f);
    expect(existsSync(at('cuda-h200/engine/sglang-expert-location.json'))).toBe(true);
    expect(existsSync(at('cuda-h200/engine/expert-map.json'))).toBe(false);
    expect(existsSync(at('ascend-910b3/engine/expert-map.json'))).toBe(true);
    expect(readFileSync(at('cuda-h200/launch/sglang/node-0.sh'), 'utf8')).toContain('/sglang-expert-location.json');
    expect(readFileSync(at('cuda-h200/launch/vllm/node-0.sh'), 'utf8')).not.toContain('expert-location');
    expect(readFileSync(at('ascend-910b3/launch/vllm-ascend/node-0.sh'), 'utf8')).toContain('/expert-map.json');
  });
  it('are not of vLLM where it cannot balance experts in such codes', async () => {
    const nano = (name: string, more: Partial<CompileOptions>) =>
      compile(
        join(fixtures, 'hkgai-nano'),
        { ...base, out: join(work, name), targets: ['cuda:h200'], quantise: 'w4a16', ...more },
        { step: () => {}, at: () => {} },
      );
    await nano('int4', { parallel: 'dp=2,ep=2,redundant=2' });
    const page = readFileSync(join(work, 'int4/cuda-h200/launch/README.md'), 'utf8');
    expect(page).toMatch(/## Not written[\s\S]*vLLM cannot be started with tp=1,dp=2,pp=1,ep=2,redundant=2: experts that stand twice/);
    expect(existsSync(join(work, 'int4/cuda-h200/launch/vllm'))).toBe(false);
    await expect(nano('named', { parallel: 'dp=2,ep=2,redundant=2', runtime: 'vllm' })).rejects.toThrow(/HK2751 .*in i4/);
    await nano('once', { parallel: 'dp=2,ep=2' });
    expect(existsSync(join(work, 'once/cuda-h200/launch/vllm/node-0.sh'))).toBe(true);
  });
  it('deal layers to stages as the bytes say, where there are stages', async () => {
    await make('stages', ['cuda:h200', 'ascend:910b3'], { parallel: 'pp=2' });
    const at = (f: string): string => readFileSync(join(work, 'stages', f), 'utf8');
    const layers = JSON.parse(readFileSync(join(v3, 'config.json'), 'utf8')).num_hidden_layers as number;
    const dealt = /VLLM_PP_LAYER_PARTITION="?(\d+),(\d+)/.exec(at('cuda-h200/launch/vllm/node-0.sh'));
    expect(Number(dealt?.[1]) + Number(dealt?.[2])).toBe(layers);
    expect(at('cuda-h200/launch/sglang/node-0.sh')).toContain(
      `SGLANG_PP_LAYER_PARTITION="${dealt?.[1]},${dealt?.[2]}"`.replaceAll('"', ''),
    );
    expect(at('cuda-h200/launch/vllm/leaderworkerset.yaml')).toContain('VLLM_PP_LAYER_PARTITION');
    expect(at('ascend-910b3/launch/vllm-ascend/node-0.sh')).toContain('VLLM_PP_LAYER_PARTITION');
  });
  it('say where nodes are larger than usual ones, and where engines cut experts by more than tp', async () => {
    const notes = async (name: string, parallel: string): Promise<string> =>
      (await make(name, ['cuda:h200'], { parallel })).manifest.targets.flatMap(t => t.notes).join('\n');
    const large = await notes('large', 'dp=16');
    expect(large).toContain('A usual node of cuda:h200 has 8 devices, and one of these 16: --parallel …,nodes=2 says otherwise.');
    expect(large).toContain('With ep=1 engines cut each expert by tp times dp, 16 here, and not by tp: ep=16 deals experts whole.');
    expect(await notes('usual', 'dp=8,ep=8')).not.toMatch(/A usual node|With ep=1/);
    expect(await notes('spread', 'tp=2,dp=4,ep=8,nodes=2')).not.toMatch(/A usual node|With ep=1/);
  });
  it('take the context of the plan that the row is of, and say where it is of another chip', async () => {
    const plan = join(work, 'plan.json');
    const digest = digestOf(v3, 'config.json', openCheckpoint(v3).files);
    const row = { parallel: { tp: 1, dp: 2, pp: 1, ep: 2, redundant: 0, nodes: 1 } };
    const said = { format: 'hkgai-plan-1', model: { digest }, target: 'cuda:h200', context: 640, rows: [row] };
    writeFileSync(plan, JSON.stringify(said));
    const { manifest } = await make('row', ['cuda:h200', 'ascend:910b3'], { parallel: `${plan}#1` });
    const at = (f: string): string => readFileSync(join(work, 'row', f), 'utf8');
    expect(at('cuda-h200/launch/vllm/node-0.sh')).toMatch(/--max-model-len 640\b/);
    expect(manifest.targets.map(t => t.notes.some(n => /The row is of a plan for cuda:h200, not for ascend:910b3/.test(n)))).toEqual([
      false,
      true,
    ]);
    await make('row2', ['cuda:h200'], { parallel: `${plan}#1`, context: 320 });
    expect(readFileSync(join(work, 'row2/cuda-h200/launch/vllm/node-0.sh'), 'utf8')).toMatch(/--max-model-len 320\b/);
    writeFileSync(plan, JSON.stringify({ ...said, context: '640' }));
    expect(await refused('x', ['cuda:h200'], { parallel: `${plan}#1` })).toMatch(/HK2707 .*its context is no whole number above 0/);
  });
  it('are refused where they cannot be, before a byte is written', async () => {
    expect(await refused('x', ['cuda'], { launch })).toMatch(/HK2757 .*--served-name, --port, --image, --model-source are of launch files/);
    expect(await refused('x', ['cuda:h200'], { parallel: 'tp=16' })).toMatch(/HK2703 .*attention heads cannot be dealt to 16 ranks/);
    expect(await refused('x', ['cuda:h200'], { parallel: 'dp=3,ep=3' })).toMatch(/HK27\d\d .*experts/);
    expect(await refused('x', ['biren:br106b'], { parallel: 'dp=2,ep=2,nodes=2' })).toMatch(/HK2751 .*vendor's vLLM/);
    expect(await refused('x', ['cuda'], { parallel: 'tp=1', launch: { ...launch, servedName: 'a\nb' } })).toMatch(/HK2756/);
  });
});
