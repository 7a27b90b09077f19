// What proves a model: a bundle's files against their hashes; the native program against the reference, value by value; either against recorded
// results. Figures are the largest absolute difference.
import { closeSync, existsSync, mkdtempSync, openSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { type Problem, problem, Refusal } from '../ir/problem.js';
import { buildNative } from './build.js';
import { checkFiles, readManifest } from './bundle/manifest.js';
import { readAt, readHeader } from './checkpoint/safetensors.js';
import { resolveTarget, runtimeNames, runtimeOf, unknownFormat, unknownRuntime } from './choice.js';
import { conform } from './conformance.js';
import { compiler } from './doctor.js';
import { type Emulated, emulate } from './emulate.js';
import type { Step } from './reference/index.js';
import { findRunnable } from './run.js';
import { openNative, openReference, readTaps, type Session } from './session.js';

export interface Check {
  readonly name: string;
  /** Largest absolute difference; null where the check is of another kind. */
  readonly difference: number | null;
  readonly tolerance: number | null;
  readonly passed: boolean;
  readonly note: string;
}
export interface Verification {
  readonly path: string;
  /** What was proved, in the words of the manifest. */
  readonly verified: { readonly reference: string | null; readonly emulated: string | null; readonly compiled: string | null };
  readonly checks: readonly Check[];
  readonly problems: readonly Problem[];
}
export interface VerifyOptions {
  readonly golden: string | null;
  readonly tolerance: number;
  readonly with: 'auto' | 'native' | 'reference';
  /** Build the programs for chips that are not here with their emulators and run their self-tests; nothing else is run then. */
  readonly emulate?: boolean;
}

const off = (c: Check): Problem =>
  problem('HK6001', `${c.name} differs by ${c.difference?.toExponential(2)}, more than ${c.tolerance}`, {
    why: c.note,
    next: 'Run hkgai verify with --json for all figures.',
  });
const notABundle = (path: string): Problem =>
  problem('HK4311', `${path} is a checkpoint, and has no programs to emulate`, { next: 'Compile it first, then verify the bundle.' });
const notGolden = (file: string): Problem =>
  problem('HK3501', `${file} holds no recorded sequence`, {
    places: [{ file }],
    why: 'seq0.input_ids and seq0.logits were expected.',
    next: 'Name a golden.safetensors.',
  });
const goldenVocabulary = (file: string, has: number, expected: number): Problem =>
  problem('HK3502', `${file} has logits over ${has} tokens, but the model has ${expected}`, {
    places: [{ file }],
    next: 'Name the recording of this model.',
  });
const goldenTooLong = (file: string, sequence: string, tokens: number, context: number): Problem =>
  problem('HK3503', `${sequence} in ${file} has ${tokens} tokens, but a sequence holds ${context}`, {
    places: [{ file }],
    next: 'Compile with a larger --context.',
  });

/** The largest absolute difference; infinity where one is not a number. */
export function worst(a: ArrayLike<number>, b: ArrayLike<number>): number {
  if (a.length !== b.length) return Number.POSITIVE_INFINITY;
  let most = 0;
  for (let i = 0; i < a.length; i++) {
    const d = Math.abs((a[i] as number) - (b[i] as number));
    if (!(d <= most)) most = Number.isNaN(d) ? Number.POSITIVE_INFINITY : d;
  }
  return most;
}
const within = (name: string, difference: number, tolerance: number, note = ''): Check => ({
  name,
  difference,
  tolerance,
  passed: difference <= tolerance,
  note,
});

const found = (name: string, bad: readonly Problem[], note: string): Check => ({
  name,
  difference: null,
  tolerance: null,
  passed: bad.length === 0,
  note,
});

/** Hold a directory against what an engine wants, and nothing else. */
export function verifyEngine(
  path: string,
  asked: { readonly engine: string; readonly format: string | null; readonly runtime: string | null },
): Verification {
  const { target, chip } = resolveTarget(asked.engine);
  const runtime = runtimeOf(target, asked.runtime);
  if (asked.runtime !== null && runtime === null) throw new Refusal([unknownRuntime(asked.runtime, runtimeNames(target))]);
  if (asked.format !== null && !target.engines.formats.some(f => f.name === asked.format))
    throw new Refusal([unknownFormat(target, asked.format)]);
  const c = conform(path, target, chip, asked.format, runtime);
  const check = found(
    `rules of ${c.format} for ${target.name}:${chip.name}`,
    c.problems,
    `${c.tensors} tensors of the model; ${c.readers}`,
  );
  return { path, verified: { reference: null, emulated: null, compiled: null }, checks: [check], problems: c.problems };
}

/** What self-tests under emulators said, and which of them proved something. */
function selfChecks(all: readonly Emulated[]): { readonly checks: readonly Check[]; readonly said: string | null } {
  const checks = all.flatMap((e): readonly Check[] => [
    ...e.checks.map(c => ({
      name: `${e.directory}, emulated: ${c.name}`,
      difference: c.difference,
      tolerance: c.allowed,
      passed: c.passed,
      note: e.expected ? '' : 'against itself: the model is too large for the reference here',
    })),
    ...(e.ended === null
      ? []
      : [{ name: `${e.directory}, emulated`, difference: null, tolerance: null, passed: false, note: `the program ended: ${e.ended}` }]),
  ]);
  const held = all.filter(e => e.ended === null && e.checks.every(c => c.passed));
  const how = held.map(e => `${e.directory} (${e.compiler}${e.expected ? ', against the reference' : ', against itself'})`);
  return { checks, said: how.length ? `self-test of ${how.join(', ')}` : null };
}

/** Check a bundle or a checkpoint. `say` is told what is being done. */
export async function verify(path: string, o: VerifyOptions, say: (text: string) => void): Promise<Verification> {
  const checks: Check[] = [];
  const problems: Problem[] = [];
  let compiled: string | null = null;
  const manifest = statSync(path).isDirectory() && existsSync(join(path, 'bundle.json')) ? readManifest(path) : null;
  if (manifest) {
    say('hash every file');
    const bad = checkFiles(path, manifest);
    problems.push(...bad);
    checks.push(found(`${Object.keys(manifest.files).length} files`, bad, 'SHA-256 as recorded, and no other files'));
    if (bad.length) return { path, verified: { reference: null, emulated: null, compiled }, checks, problems };
    for (const t of manifest.targets) {
      say(`hold ${t.directory}/engine against the rules of ${t.engine.format}`);
      const { target, chip } = resolveTarget(`${t.target}:${t.chip}`);
      const c = conform(join(path, t.directory, 'engine'), target, chip, t.engine.format, runtimeOf(target, t.engine.runtime));
      problems.push(...c.problems);
      checks.push(found(`${t.directory}/engine: rules of ${c.format}`, c.problems, c.readers));
    }
    if (o.emulate && problems.length === 0) {
      const { checks: own, said } = selfChecks(await emulate(path, manifest, say));
      checks.push(...own);
      problems.push(...own.filter(c => !c.passed && c.difference !== null).map(off));
      return { path, verified: { reference: null, emulated: said, compiled }, checks, problems };
    }
    // without a program of its own there is nothing to run here
    if (problems.length || !manifest.targets.some(t => t.target === 'cpu' && existsSync(join(path, t.directory, 'native'))))
      return { path, verified: { reference: null, emulated: null, compiled }, checks, problems };
  }
  if (o.emulate && !manifest) throw new Refusal([notABundle(path)]);
  const r = findRunnable(path);
  try {
    const wantNative = o.with === 'native' || (o.with === 'auto' && compiler() !== null);
    say('start the reference interpreter');
    const reference = await openReference(r.engineDir, r.options);
    let native: Session | null = null;
    const work = mkdtempSync(join(tmpdir(), 'hkgai-verify-'));
    try {
      if (wantNative) {
        say('build the native program, with taps');
        const built = await buildNative(r.nativeDir(), '-DHKGAI_TAPS');
        native = await openNative(built.program, r.engineDir);
        compiled = `${built.compiler}, run on this machine`;
      }
      if (native && o.with !== 'reference') {
        say('compare the native program with the reference, value by value');
        checks.push(...(await layerByLayer(native, reference, o.tolerance, work)));
      }
      if (o.golden !== null)
        for (const s of native ? [reference, native] : [reference]) {
          say(`compare the ${s.engine} with ${basename(o.golden)}`);
          checks.push(...(await againstGolden(s, o.golden, o.tolerance)));
        }
      if (!native && o.golden === null)
        checks.push({
          name: 'reference',
          difference: null,
          tolerance: null,
          passed: true,
          note: 'nothing to compare with: no C compiler here and no --golden',
        });
    } finally {
      await reference.close();
      await native?.close();
      rmSync(work, { recursive: true, force: true });
    }
  } finally {
    r.dispose();
  }
  problems.push(...checks.filter(c => !c.passed && c.difference !== null).map(off));
  return {
    path,
    verified: {
      reference: checks.some(c => c.name.startsWith('reference:')) ? 'against recorded results' : null,
      emulated: null,
      compiled: checks.some(c => c.name.startsWith('native:')) ? compiled : null,
    },
    checks,
    problems,
  };
}

/** Token ids made up from the model's vocabulary: the same on every machine. */
function madeUp(count: number, vocabulary: number): readonly number[] {
  let state = 12345;
  return Array.from({ length: count }, () => {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0;
    return (state >>> 8) % vocabulary;
  });
}
const rowsFrom = (ids: readonly number[], from: number, to: number): Step => ({
  ids: ids.slice(from, to),
  positions: Array.from({ length: to - from }, (_, i) => from + i),
  sequences: Array<number>(to - from).fill(0),
});

/** A prompt and single steps through both; the prompt's named values one by one. */
async function layerByLayer(
  native: Session,
  reference: Awaited<ReturnType<typeof openReference>>,
  tolerance: number,
  work: string,
): Promise<readonly Check[]> {
  const count = Math.min(24, native.chunk, Math.max(1, native.context - 6));
  const end = count + Math.min(6, native.context - count);
  const ids = madeUp(end + 1, native.vocabulary); // one more, as the token after the last
  const file = join(work, 'taps');
  await native.taps(file);
  const mtp = native.mtp > 0;
  const prompt: Step = { ...rowsFrom(ids, 0, count), ...(mtp ? { nextIds: ids.slice(1, count + 1) } : {}) };
  const got = await native.step(prompt);
  await native.taps(null);
  const taps = readTaps(readFileSync(file));
  const names = [...taps.keys()].filter(n => n !== 'logits' && !n.startsWith('mtp.'));
  const want = reference.reference.step(prompt, [...names, 'logits', ...(mtp ? ['mtp.0.logits'] : [])]);
  const checks = names.map(n => {
    const [a, b] = [taps.get(n)!, want.get(n)!.data];
    // routes may come in another order where weights tie; what counts is which experts
    if (n.endsWith('.indices')) return within(`native: ${n}`, worst(a, b), 0, 'experts chosen');
    return within(`native: ${n}`, worst(a, b), tolerance * 2.5, `${want.get(n)!.shape.join(' x ')}`);
  });
  checks.push(within('native: logits of a prompt', worst(got.logits, want.get('logits')!.data), tolerance, `${count} tokens`));
  if (mtp) checks.push(within('native: mtp.0.logits', worst(got.mtp!, want.get('mtp.0.logits')!.data), tolerance));
  let most = 0;
  for (let i = count; i < end; i++) {
    const step = rowsFrom(ids, i, i + 1);
    most = Math.max(most, worst((await native.step(step)).logits, reference.reference.step(step, ['logits']).get('logits')!.data));
  }
  checks.push(within('native: logits step by step', most, tolerance, `${end - count} tokens after it`));

  return checks;
}
/** Recorded sequences: each as one prompt in chunks, the first also token by token. */
async function againstGolden(s: Session, file: string, tolerance: number): Promise<readonly Check[]> {
  const name = basename(file);
  const header = readHeader(file, name);
  const fd = openSync(file, 'r');
  const read = (tensor: string): Float32Array | readonly number[] => {
    const t = header.tensors.get(tensor)!;
    const bytes = new Uint8Array(t.bytes[1] - t.bytes[0]);
    readAt(fd, bytes, t.bytes[0]);
    return t.dtype === 'I64'
      ? Array.from(new BigInt64Array(bytes.buffer), Number)
      : t.dtype === 'I32'
        ? [...new Int32Array(bytes.buffer)]
        : new Float32Array(bytes.buffer);
  };
  try {
    // `seqN.logits` over all rows, or `seqN.logits.lastK` over the last K
    const found = [...header.tensors.keys()].flatMap(k => {
      const m = /^(.*)\.logits(?:\.last(\d+))?$/.exec(k);
      return m && header.tensors.has(`${m[1]}.input_ids`)
        ? [{ name: m[1] as string, logits: k, last: m[2] === undefined ? null : Number(m[2]) }]
        : [];
    });
    const sequences = found
      .filter(q => q.last === null || !found.some(o => o.name === q.name && o.last === null))
      .sort((a, b) => (a.name < b.name ? -1 : 1));
    if (sequences.length === 0) throw new Refusal([notGolden(name)]);
    const checks: Check[] = [];
    for (const [at, q] of sequences.entries()) {
      const ids = read(`${q.name}.input_ids`) as readonly number[];
      const logits = read(q.logits) as Float32Array;
      const first = ids.length - (q.last ?? ids.length);
      if (logits.length / (ids.length - first) !== s.vocabulary)
        throw new Refusal([goldenVocabulary(name, logits.length / (ids.length - first), s.vocabulary)]);
      if (ids.length > s.context) throw new Refusal([goldenTooLong(name, q.name, ids.length, s.context)]);
      const run = async (prompt: number, each: number): Promise<number> => {
        let most = 0;
        for (let from = 0; from < ids.length; ) {
          const to = Math.min(ids.length, from + (from === 0 ? prompt : each));
          const got = await s.step(rowsFrom(ids, from, to));
          const begin = Math.max(from, first);
          if (begin < to)
            most = Math.max(
              most,
              worst(
                got.logits.subarray((begin - from) * s.vocabulary),
                logits.subarray((begin - first) * s.vocabulary, (to - first) * s.vocabulary),
              ),
            );
          from = to;
        }
        return most;
      };
      checks.push(within(`${s.engine}: ${q.name} as a prompt`, await run(s.chunk, s.chunk), tolerance, `${ids.length} tokens`));
      if (at === 0) {
        const prompt = Math.min(s.chunk, Math.max(5, Math.floor(ids.length / 3)));
        checks.push(
          within(
            `${s.engine}: ${q.name} token by token`,
            await run(prompt, 1),
            tolerance,
            `${ids.length - prompt} steps after a prompt of ${prompt}`,
          ),
        );
      }
      const mtp =
        header.tensors.has(`${q.name}.mtp_logits`) && s.mtp > 0 && ids.length <= s.chunk
          ? (read(`${q.name}.mtp_logits`) as Float32Array)
          : null;
      if (mtp) {
        const got = await s.step({ ...rowsFrom(ids, 0, ids.length), nextIds: [...ids.slice(1), 0] });
        checks.push(
          within(`${s.engine}: ${q.name} MTP`, worst(got.mtp!.subarray(0, mtp.length), mtp), tolerance, `${ids.length - 1} tokens`),
        );
      }
    }
    return checks;
  } finally {
    closeSync(fd);
  }
}
