// A model that takes steps: the native program in a process of its own, or the reference interpreter. Both say the same things.
import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Span } from '../ir/graph.js';
import { type Problem, problem, Refusal } from '../ir/problem.js';
import { readAt } from './checkpoint/safetensors.js';
import { openCheckpoint } from './checkpoint/shards.js';
import { type BuildOptions, buildModel } from './models/index.js';
import { readWeight } from './numeric/decode.js';
import type { Reference, Step } from './reference/index.js';

export interface GenerateRequest {
  readonly sequence: number;
  readonly position: number;
  readonly ids: readonly number[];
  readonly count: number;
  readonly temperature: number;
  readonly topP: number;
  readonly seed: number;
  readonly stops: readonly number[];
}
export interface Timing {
  readonly promptTokens: number;
  readonly promptSeconds: number;
  readonly decodeTokens: number;
  readonly decodeSeconds: number;
}
export interface Session {
  readonly engine: 'native' | 'reference';
  readonly vocabulary: number;
  readonly context: number;
  readonly sequences: number;
  readonly chunk: number;
  readonly mtp: number;
  /** Logits [wanted, vocabulary]; with next ids those of the first MTP block too. */
  step(step: Step): Promise<{ readonly logits: Float32Array; readonly mtp: Float32Array | null }>;
  /** Ids one by one as they come; gives the timing. */
  generate(request: GenerateRequest, onToken: (id: number) => void): Promise<Timing>;
  /** Bytes per second that memory gives to all threads; null where it is not measured. */
  bandwidth(): Promise<number | null>;
  /** Send named values of the following steps to a file; null stops. */
  taps(file: string | null): Promise<void>;
  /** Take a step and give named values of it, those that were computed; natively of a program built with -DHKGAI_TAPS. */
  values(step: Step, names: readonly string[]): Promise<ReadonlyMap<string, Float32Array | Int32Array>>;
  close(): Promise<void>;
}

const programStopped = (what: string): Problem =>
  problem('HK6901', `The native program stopped: ${what}`, { next: 'Run hkgai verify on the bundle.' });
const programRefused = (what: string): Problem =>
  problem('HK2901', `The native program refused: ${what}`, { next: 'Ask for less, or compile with a larger --context or --sequences.' });

/** Lines and counted bytes from a stream, in order. */
class Reader {
  #chunks: Buffer[] = [];
  #length = 0;
  #waiting: (() => void) | null = null;
  #ended = false;
  constructor(stream: NodeJS.ReadableStream) {
    stream.on('data', (d: Buffer) => {
      this.#chunks.push(d);
      this.#length += d.length;
      this.#wake();
    });
    stream.on('end', () => {
      this.#ended = true;
      this.#wake();
    });
  }
  #wake(): void {
    this.#waiting?.();
    this.#waiting = null;
  }
  async #more(): Promise<boolean> {
    if (this.#ended) return false;
    await new Promise<void>(resolve => {
      this.#waiting = resolve;
    });
    return true;
  }
  #joined(): Buffer {
    if (this.#chunks.length !== 1) this.#chunks = [Buffer.concat(this.#chunks)];
    return this.#chunks[0] as Buffer;
  }
  async line(): Promise<string | null> {
    for (let from = 0; ; ) {
      const all = this.#joined();
      const at = all.indexOf(10, from);
      if (at >= 0) {
        this.#chunks = [all.subarray(at + 1)];
        this.#length -= at + 1;
        return all.subarray(0, at).toString('utf8');
      }
      from = all.length;
      if (!(await this.#more())) return null;
    }
  }
  async bytes(n: number): Promise<Buffer | null> {
    while (this.#length < n) if (!(await this.#more())) return null;
    const all = this.#joined();
    this.#chunks = [all.subarray(n)];
    this.#length -= n;
    return all.subarray(0, n);
  }
}

/** What a native program sent to a file: the last of each name. */
export function readTaps(bytes: Buffer): ReadonlyMap<string, Float32Array | Int32Array> {
  const out = new Map<string, Float32Array | Int32Array>();
  for (let at = 0; at < bytes.length; ) {
    const end = bytes.indexOf(10, at);
    const [name, element, rows, columns] = bytes.subarray(at, end).toString().split(' ') as [string, string, string, string];
    const size = Number(rows) * Number(columns) * 4;
    const data = bytes.buffer.slice(bytes.byteOffset + end + 1, bytes.byteOffset + end + 1 + size);
    out.set(name, element === 'i' ? new Int32Array(data) : new Float32Array(data));
    at = end + 1 + size;
  }
  return out;
}

/** Start a built program on the weights of `engineDir`. */
export async function openNative(program: string, engineDir: string, threads = 0): Promise<Session> {
  const child: ChildProcessWithoutNullStreams = spawn(program, ['--serve', '--weights', engineDir, '--threads', String(threads)]);
  const reader = new Reader(child.stdout);
  let complaint = '';
  child.stderr.on('data', d => (complaint += d));
  child.stdin.on('error', () => {}); // a program that ended is told by its exit
  const exit = new Promise<void>(resolve => {
    child.on('close', () => resolve());
    child.on('error', e => {
      complaint += e.message;
      resolve();
    });
  });
  const stopped = async (): Promise<never> => {
    await exit;
    throw new Refusal([programStopped(complaint.trim() || `exit ${child.exitCode ?? child.signalCode}`)]);
  };
  const next = async (): Promise<string> => {
    const line = (await reader.line()) ?? (await stopped());
    if (line.startsWith('error ')) throw new Refusal([programRefused(line.slice(6))]);
    return line;
  };
  const [word, vocabulary, context, sequences, chunk, mtp] = (await next()).split(' ');
  if (word !== 'ready') await stopped();
  const session: Session = {
    engine: 'native',
    vocabulary: Number(vocabulary),
    context: Number(context),
    sequences: Number(sequences),
    chunk: Number(chunk),
    mtp: Number(mtp),
    async step(s) {
      const want = s.wanted ?? s.ids.map((_, t) => t);
      child.stdin.write(
        `step ${[s.ids.length, want.length, s.nextIds ? 1 : 0, ...s.ids, ...s.positions, ...s.sequences, ...(s.nextIds ?? []), ...want].join(' ')}\n`,
      );
      const [, , , bytes] = (await next()).split(' ');
      const data = (await reader.bytes(Number(bytes))) ?? (await stopped());
      const floats = new Float32Array(data.buffer.slice(data.byteOffset, data.byteOffset + data.length));
      const n = want.length * Number(vocabulary);
      return { logits: floats.subarray(0, n), mtp: s.nextIds ? floats.subarray(n) : null };
    },
    async generate(r, onToken) {
      child.stdin.write(
        `generate ${[r.sequence, r.position, r.count, r.temperature, r.topP, r.seed, r.stops.length, ...r.stops, r.ids.length, ...r.ids].join(' ')}\n`,
      );
      for (;;) {
        const line = await next();
        if (line.startsWith('done ')) {
          const [, p, pu, d, du] = line.split(' ').map(Number) as [number, number, number, number, number];
          return { promptTokens: p, promptSeconds: pu / 1e6, decodeTokens: d, decodeSeconds: du / 1e6 };
        }
        onToken(Number(line));
      }
    },
    async bandwidth() {
      child.stdin.write('bandwidth\n');
      return Number((await next()).split(' ')[1]) || null;
    },
    async taps(file) {
      child.stdin.write(`taps ${file ?? ''}\n`);
      await next();
    },
    async values(s, names) {
      const work = mkdtempSync(join(tmpdir(), 'hkgai-values-'));
      try {
        await session.taps(join(work, 'taps'));
        await session.step(s);
        await session.taps(null);
        return new Map([...readTaps(readFileSync(join(work, 'taps')))].filter(([name]) => names.includes(name)));
      } finally {
        rmSync(work, { recursive: true });
      }
    },
    async close() {
      child.stdin.end('quit\n');
      await exit;
    },
  };
  return session;
}

/** The interpreter on a checkpoint directory. */
export async function openReference(dir: string, options: BuildOptions): Promise<Session & { readonly reference: Reference }> {
  const { createReference } = await import('./reference/index.js');
  const c = openCheckpoint(dir);
  const { graph } = buildModel(c.config, c.tensors, options);
  const open = new Map<string, number>();
  const read = (s: Span): Uint8Array => {
    let fd = open.get(s.file);
    if (fd === undefined) {
      fd = openSync(join(dir, s.file), 'r');
      open.set(s.file, fd);
    }
    const bytes = new Uint8Array(s.bytes[1] - s.bytes[0]);
    readAt(fd, bytes, s.bytes[0]);
    return bytes;
  };
  const reference = await createReference(graph, v => readWeight(v, read));
  const { limits } = options;
  const take = async (s: Step): Promise<{ readonly logits: Float32Array; readonly mtp: Float32Array | null }> => {
    const got = reference.step(s, s.nextIds ? ['logits', 'mtp.0.logits'] : ['logits']);
    return { logits: got.get('logits')!.data as Float32Array, mtp: (got.get('mtp.0.logits')?.data as Float32Array | undefined) ?? null };
  };
  return {
    engine: 'reference',
    reference,
    vocabulary: c.config.vocab,
    context: limits.context,
    sequences: limits.sequences,
    chunk: limits.tokens,
    mtp: Object.keys(graph.outputs).filter(n => n.startsWith('mtp.')).length,
    step: take,
    async generate(r, onToken) {
      const pick = chooser(r);
      let at = r.position;
      const feed = async (ids: readonly number[]): Promise<Float32Array> => {
        let logits = new Float32Array();
        for (let done = 0; done < ids.length; done += limits.tokens) {
          const some = ids.slice(done, done + limits.tokens);
          logits = new Float32Array(
            (
              await take({
                ids: some,
                positions: some.map((_, i) => at + i),
                sequences: some.map(() => r.sequence),
                wanted: [some.length - 1],
              })
            ).logits,
          );
          at += some.length;
        }
        return logits;
      };
      const start = performance.now();
      let logits = await feed(r.ids);
      const prompt = performance.now();
      let made = 0;
      for (;;) {
        const id = pick(logits);
        onToken(id);
        made++;
        if (r.stops.includes(id) || made === r.count || at >= limits.context) break;
        logits = await feed([id]);
      }
      return {
        promptTokens: r.ids.length,
        promptSeconds: (prompt - start) / 1000,
        decodeTokens: made - 1,
        decodeSeconds: (performance.now() - prompt) / 1000,
      };
    },
    bandwidth: async () => null,
    taps: async () => {},
    values: async (s, names) =>
      new Map([...reference.step(s, [...names, 'logits'])].flatMap(([name, v]) => (names.includes(name) ? [[name, v.data] as const] : []))),
    async close() {
      reference.dispose();
      for (const fd of open.values()) closeSync(fd);
    },
  };
}

/** Greedy, or by temperature and top-p with a seeded xorshift; lower index on ties. */
function chooser(r: GenerateRequest): (logits: Float32Array) => number {
  let state = (BigInt(r.seed) * 0x9e3779b97f4a7c15n + 1n) & 0xffffffffffffffffn;
  const unit = (): number => {
    state ^= state >> 12n;
    state ^= (state << 25n) & 0xffffffffffffffffn;
    state ^= state >> 27n;
    return Number(((state * 2685821657736338717n) & 0xffffffffffffffffn) >> 11n) / 2 ** 53;
  };
  return logits => {
    let best = 0;
    logits.forEach((v, i) => {
      if (v > logits[best]!) best = i;
    });
    if (r.temperature <= 0) return best;
    const all = [...logits].map((v, i) => ({ i, p: Math.exp((v - logits[best]!) / r.temperature) })).sort((a, b) => b.p - a.p || a.i - b.i);
    const total = all.reduce((n, c) => n + c.p, 0);
    let kept = 0;
    let count = 0;
    while (count < all.length && kept < r.topP * total) kept += all[count++]!.p;
    let at = unit() * kept;
    for (const c of all.slice(0, count)) if ((at -= c.p) < 0) return c.i;
    return all[count - 1]!.i;
  };
}
