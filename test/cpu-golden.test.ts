// Compiled bundles, built and run as a user runs them, against the golden logits: whole prompts, prompts in pieces, single steps, several
// sequences in one step, one thread and several; taps and routing; int8 and int4 weights as the compiler writes them.
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { buildNative } from '../src/build.js';
import { type CompileOptions, compile } from '../src/compile.js';
import { openNative, type Session } from '../src/session.js';
import { fixtures, recorded, tinyCases, worst } from './golden-cases.js';

const work = mkdtempSync(join(tmpdir(), 'hkgai-cpu-golden-'));
const cacheBefore = process.env.HKGAI_CACHE;
beforeAll(() => {
  process.env.HKGAI_CACHE = join(work, 'cache');
});
afterAll(() => {
  if (cacheBefore === undefined) delete process.env.HKGAI_CACHE;
  else process.env.HKGAI_CACHE = cacheBefore;
  rmSync(work, { recursive: true, force: true });
});
// a session left open by a failed expectation would keep the test running
const open: Session[] = [];
afterEach(async () => {
  for (const s of open.splice(0)) await s.close();
});
const start = async ({ program, engine }: { program: string; engine: string }, threads: number): Promise<Session> => {
  const session = await openNative(program, engine, threads);
  open.push(session);
  return session;
};
const quiet = { step: () => undefined, at: () => undefined };
const limit = 2e-4;

/** Compile and build; built with less optimisation than a user's build, which saves most of this test's time. */
async function bundle(model: string, name: string, more: Partial<CompileOptions> = {}): Promise<{ program: string; engine: string }> {
  const out = join(work, name);
  await compile(
    model,
    {
      ...{ out, targets: ['cpu'], quantise: 'none', state: 'f32', mtp: 'keep', weights: 'auto', context: 224, sequences: 3, chunk: 96 },
      ...{ force: false, allowPhantomKeys: false, version: 'test', noCache: true },
      ...more,
    },
    quiet,
  );
  const { program } = await buildNative(join(out, 'cpu', 'native'), '-O1 -DHKGAI_TAPS');
  return { program, engine: join(out, 'cpu', 'engine') };
}
interface Rows {
  readonly ids: readonly number[];
  readonly from: number;
  readonly to: number;
  readonly slot: number;
}
/** One step with the rows of several sequences, taken in turn; logits by sequence in the order given. */
async function step(session: Session, parts: readonly Rows[], mtp = false): Promise<{ logits: number[][]; mtp: number[][] }> {
  const rows: { id: number; next: number; at: number; slot: number; part: number }[] = [];
  for (let i = 0; i < Math.max(...parts.map(p => p.to - p.from)); i++)
    parts.forEach((p, part) => {
      if (p.from + i < p.to) rows.push({ id: p.ids[p.from + i]!, next: p.ids[p.from + i + 1] ?? 0, at: p.from + i, slot: p.slot, part });
    });
  const base = { ids: rows.map(r => r.id), positions: rows.map(r => r.at), sequences: rows.map(r => r.slot) };
  const got = await session.step(mtp ? { ...base, nextIds: rows.map(r => r.next) } : base);
  const split = (all: Float32Array | null): number[][] =>
    parts.map((_, part) =>
      rows.flatMap((r, i) => (r.part === part && all ? [...all.subarray(i * session.vocabulary, (i + 1) * session.vocabulary)] : [])),
    );
  return { logits: split(got.logits), mtp: split(got.mtp) };
}
async function inPieces(session: Session, ids: readonly number[], slot: number, sizes: readonly number[]): Promise<number[]> {
  const all: number[] = [];
  for (let from = 0, i = 0; from < ids.length; i++) {
    const to = Math.min(ids.length, from + sizes[Math.min(i, sizes.length - 1)]!);
    all.push(...(await step(session, [{ ids, from, to, slot }])).logits[0]!);
    from = to;
  }
  return all;
}
/** name, element, rows, columns and values of each record of a tap file. */
function taps(file: string): ReadonlyMap<string, { readonly columns: number; readonly data: Float32Array | Int32Array }> {
  const bytes = readFileSync(file);
  const out = new Map<string, { columns: number; data: Float32Array | Int32Array }>();
  for (let at = 0; at < bytes.length; ) {
    const end = bytes.indexOf(10, at);
    const [name, element, rows, columns] = bytes.subarray(at, end).toString().split(' ') as [string, string, string, string];
    const size = Number(rows) * Number(columns) * 4;
    const raw = Uint8Array.from(bytes.subarray(end + 1, end + 1 + size)).buffer;
    out.set(name, { columns: Number(columns), data: element === 'i' ? new Int32Array(raw) : new Float32Array(raw) });
    at = end + 1 + size;
  }
  return out;
}

describe('compiled programs give the golden logits', () => {
  for (const name of tinyCases) {
    const model = join(fixtures, 'tiny', name);
    const golden = recorded(join(model, 'golden.safetensors'));
    const ids = [0, 1, 2].map(i => [...golden.get(`seq${i}.input_ids`)!.data]);
    const logits = [0, 1, 2].map(i => golden.get(`seq${i}.logits`)!.data);

    it(`${name}: prompts whole, in pieces and mixed, single steps, taps`, async () => {
      const built = await bundle(model, name);
      for (const threads of [1, 3]) {
        const session = await start(built, threads);
        expect(worst(await inPieces(session, ids[0]!, 0, [96]), logits[0]!)).toBeLessThanOrEqual(limit);
        expect(worst(await inPieces(session, ids[1]!, 1, [7, 1, 1, 2, 5, 31]), logits[1]!)).toBeLessThanOrEqual(limit);
        expect(worst(await inPieces(session, ids[2]!, 2, [5, 1]), logits[2]!)).toBeLessThanOrEqual(limit);
        // the slots again, several sequences in a step: a prompt's piece beside single steps of others
        const half = ids.map(s => Math.min(20, s.length - 3));
        const first = await step(
          session,
          ids.map((s, i) => ({ ids: s, from: 0, to: half[i]!, slot: 2 - i })),
        );
        const rest = await step(
          session,
          ids
            .map((s, i) => ({ ids: s, from: half[i]!, to: i === 1 ? s.length : half[i]! + 1, slot: 2 - i }))
            .map(p => ({ ...p, to: Math.min(p.to, p.from + 60) })),
        );
        first.logits.forEach((l, i) => {
          const got = [...l, ...rest.logits[i]!];
          expect(worst(got, logits[i]!.subarray(0, got.length))).toBeLessThanOrEqual(limit);
        });
      }
      const session = await start(built, 2);
      const file = join(work, `${name}.taps`);
      await session.taps(file);
      const mtp = golden.get('seq0.mtp_logits');
      const got = await step(session, [{ ids: ids[0]!, from: 0, to: ids[0]!.length, slot: 0 }], session.mtp > 0);
      await session.taps(null);
      if (mtp) expect(worst(got.mtp[0]!.slice(0, mtp.data.length), mtp.data)).toBeLessThanOrEqual(limit);
      const seen = taps(file);
      let compared = 0;
      const near = (tap: string, want: string, most: number): void => {
        const a = seen.get(tap);
        const b = golden.get(want);
        if (!a || !b) return;
        compared++;
        expect([tap, worst(a.data, b.data) <= most]).toEqual([tap, true]);
      };
      near('final_norm', 'seq0.final_norm', 5e-4);
      for (let l = 0; golden.has(`seq0.attn_out.${l}`); l++) {
        near(`layers.${l}.attn_out`, `seq0.attn_out.${l}`, 5e-4);
        near(`layers.${l}.out`, `seq0.hidden.${l + 1}`, 5e-4);
        const chosen = seen.get(`layers.${l}.indices`);
        const want = golden.get(`seq0.router.${l}.indices`);
        if (!chosen || !want) continue;
        compared++;
        const k = chosen.columns;
        const sorted = Array.from({ length: chosen.data.length / k }, (_, t) =>
          [...chosen.data.subarray(t * k, t * k + k)].sort((a, b) => a - b),
        ).flat();
        expect(sorted).toEqual([...want.data]);
      }
      expect(compared).toBeGreaterThan(3);
    });

    for (const [quantise, column] of [
      ['int8', 'int8_pc'],
      ['int4', 'int4_g32'],
    ] as const)
      it(`${name}: ${quantise} weights`, async () => {
        const built = await bundle(model, `${name}-${quantise}`, { quantise: join(fixtures, `recipes/all-${quantise}.json`), mtp: 'drop' });
        const session = await start(built, 2);
        const want = golden.get(`seq0.logits.${column}`)!.data;
        expect(worst(await inPieces(session, ids[0]!, 0, [96]), want)).toBeLessThanOrEqual(limit);
        expect(worst(await inPieces(session, ids[0]!, 1, [3, 1]), want)).toBeLessThanOrEqual(limit);
      });
  }
});
