// Whole programs for a device, run under its emulator against the golden logits: what cuda-native and biren-native tests share. Each gives a row of
// figures, so that a table of them can be written (UPDATE=1 writes test/golden/emulated/TARGET.json).
import { spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { f32 } from '../ir/storage.js';
import { buildEmulated } from '../src/build.js';
import { type CompileOptions, compile } from '../src/compile.js';
import type { Step } from '../src/reference/index.js';
import { openNative, openReference, type Session } from '../src/session.js';
import { targets } from '../targets/index.js';
import { fixtures, recorded, worst } from './golden-cases.js';

export interface Figures {
  readonly model: string;
  /** Largest difference of a logit: a prompt in one step, the same in pieces, single steps after a prompt, MTP; null where the model has none. */
  readonly prompt: number;
  readonly pieces: number;
  readonly decode: number;
  readonly mtp: number | null;
}
const quiet = { step: () => undefined, at: () => undefined };

/** Compile for a target and chip, and build what was printed with the target's emulator. */
export async function emulated(
  model: string,
  aim: string,
  out: string,
  more: Partial<CompileOptions> = {},
): Promise<{ readonly program: string; readonly engine: string; readonly native: string }> {
  const { manifest } = await compile(
    model,
    {
      ...{ out, targets: [aim], quantise: 'none', state: 'f32', mtp: 'keep', weights: 'auto', context: 224, sequences: 3, chunk: 96 },
      ...{ force: false, allowPhantomKeys: false, version: 'test', noCache: true },
      ...more,
    },
    quiet,
  );
  const entry = manifest.targets[0]!;
  const native = join(out, entry.directory, 'native');
  const { program } = await buildEmulated(native, targets[entry.target]!.emulator!());
  return { program, engine: join(out, entry.directory, 'engine'), native };
}

const rowsOf = (ids: readonly number[], from: number, to: number, slot: number, mtp = false): Step => {
  const range = Array.from({ length: to - from }, (_, i) => from + i);
  return {
    ids: ids.slice(from, to),
    positions: range,
    sequences: range.map(() => slot),
    ...(mtp ? { nextIds: range.map(i => ids[i + 1] ?? 0) } : {}),
  };
};
/**
 * The figures of one golden model; steps are few, since every thread is played. With a reference, its logits on the same weights are what is expected:
 * for weights that were rounded on the way.
 */
export async function compareGolden(session: Session, model: string, name: string, reference: Session | null = null): Promise<Figures> {
  const golden = recorded(join(model, 'golden.safetensors'));
  const ids = (i: number): readonly number[] => [...golden.get(`seq${i}.input_ids`)!.data];
  const computed = new Map<number, Float32Array>();
  if (reference)
    for (const i of [0, 1, 2]) computed.set(i, new Float32Array((await reference.step(rowsOf(ids(i), 0, ids(i).length, i))).logits));
  const want = (i: number): Float32Array => computed.get(i) ?? (golden.get(`seq${i}.logits`)!.data as Float32Array);
  const vocabulary = session.vocabulary;
  const run = async (i: number, slot: number, sizes: readonly number[]): Promise<number> => {
    const all = ids(i);
    let most = 0;
    for (let from = 0, n = 0; from < all.length && n < sizes.length; n++) {
      const to = Math.min(all.length, from + sizes[n]!);
      const got = await session.step(rowsOf(all, from, to, slot));
      most = Math.max(most, worst(got.logits, want(i).subarray(from * vocabulary, to * vocabulary)));
      from = to;
    }
    return most;
  };
  const recordedMtp = reference ? undefined : golden.get('seq0.mtp_logits');
  let mtp: number | null = null;
  const first = ids(0);
  const whole = await session.step(rowsOf(first, 0, Math.min(first.length, session.chunk), 0, session.mtp > 0));
  const prompt = worst(whole.logits, want(0).subarray(0, Math.min(first.length, session.chunk) * vocabulary));
  if (recordedMtp && whole.mtp) mtp = worst(whole.mtp.subarray(0, recordedMtp.data.length), recordedMtp.data);
  return {
    model: name,
    prompt,
    pieces: await run(1, 1, [7, 1, 1, 2, 5, 31]),
    decode: await run(2, 2, [Math.max(5, Math.min(20, ids(2).length - 8)), 1, 1, 1, 1, 1, 1]),
    mtp,
  };
}
/** The interpreter on the weights that a bundle has. */
export const openPlain = (built: { readonly engine: string }): Promise<Session> =>
  openReference(built.engine, {
    limits: { tokens: 224, wanted: 224, sequences: 3, context: 224 },
    mtp: true,
    state: f32,
    fakeQuant: false,
  });
export const openEmulated = (built: { readonly program: string; readonly engine: string }): Promise<Session> =>
  openNative(built.program, built.engine);

const table = fileURLToPath(new URL('golden/emulated/', import.meta.url));
/** Figures are written to the first digit upwards, so that another compiler's last bits do not change a file. */
export const bound = (v: number | null): number | null => (v === null ? null : Number((Math.ceil(v * 1e6) / 1e6).toFixed(6)));
export function keepFigures(target: string, all: readonly Figures[]): void {
  if (!process.env.UPDATE) return;
  mkdirSync(table, { recursive: true });
  const rows = all.map(f => ({
    model: f.model,
    prompt: bound(f.prompt),
    pieces: bound(f.pieces),
    decode: bound(f.decode),
    mtp: bound(f.mtp),
  }));
  writeFileSync(join(table, `${target}.json`), `${JSON.stringify(rows, null, 2)}\n`);
}
export const keptFigures = (target: string): readonly Figures[] =>
  JSON.parse(readFileSync(join(table, `${target}.json`), 'utf8')) as readonly Figures[];
export const tiny = (name: string): string => join(fixtures, 'tiny', name);

/** Words of a vendor in the sources of a program, each once: what stands in strings and comments too. */
export function wordsOf(native: string, shape: RegExp): readonly string[] {
  const found = new Set<string>();
  for (const f of readdirSync(native)) for (const m of readFileSync(join(native, f), 'utf8').matchAll(shape)) found.add(m[0]);
  return [...found].sort();
}
/** A copy of a program's sources in which one thing was changed, built with the emulator; what building or running it says. */
export async function withFault(
  native: string,
  engine: string,
  target: string,
  to: string,
  file: string,
  from: string,
  instead: string,
): Promise<{ readonly status: number | null; readonly said: string; readonly ids: string }> {
  cpSync(native, to, { recursive: true });
  const before = readFileSync(join(to, file), 'utf8');
  if (before.split(from).length !== 2) throw new Error(`${file} has not exactly one ${from}`);
  writeFileSync(
    join(to, file),
    before.replace(from, () => instead),
  );
  let program: string;
  try {
    ({ program } = await buildEmulated(to, targets[target]!.emulator!()));
  } catch (e) {
    return { status: null, said: (e as Error).message, ids: '' };
  }
  const ran = spawnSync(program, ['--weights', engine, '--tokens', '1,2,3', '-n', '2'], { encoding: 'utf8' });
  return { status: ran.status, said: ran.stderr, ids: ran.stdout };
}
