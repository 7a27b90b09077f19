// Text in, text out: a bundle or a checkpoint, its tokenizer, and a session that takes steps.
import { existsSync, mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Graph } from '../ir/graph.js';
import { type Problem, problem, Refusal } from '../ir/problem.js';
import { bf16, f16, f32, matrixBytes } from '../ir/storage.js';
import { targets } from '../targets/index.js';
import { buildNative } from './build.js';
import { writeText } from './bundle/directory.js';
import { type Manifest, readManifest } from './bundle/manifest.js';
import { hasTemplate, type Message, renderChat } from './checkpoint/prompt.js';
import { openCheckpoint } from './checkpoint/shards.js';
import { loadTokenizer, type Tokenizer } from './checkpoint/tokenizer.js';
import { buildOptions, plan, weightFiles } from './compile.js';
import { compiler } from './doctor.js';
import { type BuildOptions, buildModel } from './models/index.js';
import { openNative, openReference, type Session } from './session.js';

const notRunnable = (target: string): Problem =>
  problem('HK4301', `a bundle for ${target} does not run on this machine by itself`, { next: 'Run it on its chip, or compile for cpu.' });
const promptTooLong = (tokens: number, context: number): Problem =>
  problem('HK2301', `the prompt has ${tokens} tokens, but a sequence holds ${context}`, {
    next: 'Say less, or compile with a larger --context.',
  });
const emptyPrompt = (): Problem => problem('HK2302', 'there is nothing to say', { next: 'Give a prompt as an argument or on stdin.' });

/** A model on disk that can be opened: where its weights are, and what its program was or would be made with. */
export interface Runnable {
  readonly path: string;
  readonly engineDir: string;
  readonly manifest: Manifest | null;
  readonly options: BuildOptions;
  /** The native sources; printed to a temporary directory for a checkpoint. */
  nativeDir(): string;
  dispose(): void;
}

/** Look at a path: a bundle's cpu target, or a checkpoint with limits of its own. */
export function findRunnable(path: string): Runnable {
  if (statSync(path).isDirectory() && existsSync(join(path, 'bundle.json'))) {
    const manifest = readManifest(path);
    const entry = manifest.targets.find(t => t.target === 'cpu');
    if (!entry) throw new Refusal([notRunnable(manifest.targets.map(t => t.directory).join(', '))]);
    const { recipe, limits } = manifest;
    const state = { f32, bf16, f16 }[recipe.state as 'f32' | 'bf16' | 'f16'] ?? f32;
    const options: BuildOptions = {
      limits: { tokens: limits.tokens!, wanted: limits.wanted!, sequences: limits.sequences!, context: limits.context! },
      mtp: recipe.mtp !== 'drop',
      state,
      fakeQuant: false,
    };
    const base = join(path, entry.directory);
    return { path, engineDir: join(base, 'engine'), manifest, options, nativeDir: () => join(base, 'native'), dispose: () => {} };
  }
  const { config } = openCheckpoint(path);
  const asked = { sequences: 4, chunk: 128, mtp: 'keep', state: 'f32' } as const;
  let printed: string | null = null;
  return {
    path,
    engineDir: path,
    manifest: null,
    options: buildOptions(config, asked),
    nativeDir() {
      if (printed !== null) return printed;
      printed = mkdtempSync(join(tmpdir(), 'hkgai-native-'));
      const program = plan(path, { ...asked, allowPhantomKeys: false });
      for (const f of targets.cpu!.native!(program, weightFiles(path, program), targets.cpu!.chips[0]!))
        writeText(printed, f.path, f.text, f.executable === true);
      return printed;
    },
    dispose() {
      if (printed !== null) rmSync(printed, { recursive: true, force: true });
    },
  };
}

export interface Opened {
  readonly session: Session;
  /** What a person should know of how it runs; empty where nothing is unusual. */
  readonly note: string;
}
/** Open with the native program, or the reference where it is asked for or no compiler is here. `flags` are the compiler's. */
export async function openSession(
  r: Runnable,
  engine: 'auto' | 'native' | 'reference',
  threads: number,
  say: (text: string) => void,
  flags = '',
): Promise<Opened> {
  if (engine === 'reference' || (engine === 'auto' && compiler() === null)) {
    const note = engine === 'reference' ? '' : 'No C compiler here: the reference interpreter runs the model, which is slow.';
    return { session: await openReference(r.engineDir, r.options), note };
  }
  say('build the native program');
  const built = await buildNative(r.nativeDir(), flags);
  return { session: await openNative(built.program, r.engineDir, threads), note: '' };
}

/** Bytes of weights that one token reads: all of the layers, of experts those that it meets. */
export function activeBytes(graph: Graph): number {
  const chosen = new Map<string, number>();
  for (const v of graph.values)
    if (v.op === 'experts')
      for (const w of [v.inputs.gate, v.inputs.up, v.inputs.down]) chosen.set(w.name, v.inputs.indices.type.shape[1] as number);
  const tables = new Set(graph.values.flatMap(v => (v.op === 'gather' ? [v.inputs.table.name] : [])));
  const multiplied = new Set(
    graph.values.flatMap(v =>
      v.op === 'gather' ? [] : Object.values(v.inputs as Readonly<Record<string, { readonly name: string }>>).map(i => i.name),
    ),
  );
  return graph.values.reduce((n, v) => {
    if (v.op !== 'weight' || (tables.has(v.name) && !multiplied.has(v.name))) return n;
    const shape = v.type.shape as readonly number[];
    const { codes, scales } = matrixBytes(v.type.storage, shape.length < 2 ? 1 : shape.at(-2)!, shape.at(-1)!);
    return n + (codes + scales) * (shape.length === 3 ? (chosen.get(v.name) ?? shape[0]!) : 1);
  }, 0);
}
/** Bytes a decoded token reads, MTP left out. */
export function activeBytesOf(r: Runnable): number {
  const c = openCheckpoint(r.engineDir);
  return activeBytes(buildModel(c.config, c.tensors, { ...r.options, mtp: false }).graph);
}

export interface Sampling {
  readonly maxTokens: number;
  readonly temperature: number;
  readonly topP: number;
  readonly seed: number;
}
export interface Answer {
  readonly text: string;
  readonly ids: readonly number[];
  readonly promptIds: readonly number[];
  readonly stopped: boolean;
  readonly timing: import('./session.js').Timing;
}

/** One conversation on one sequence: what was fed stays in the caches. */
export class Conversation {
  readonly #r: Runnable;
  readonly #session: Session;
  readonly #tokenizer: Tokenizer;
  #fed: readonly number[] = [];
  readonly messages: Message[] = [];
  private constructor(r: Runnable, session: Session, tokenizer: Tokenizer) {
    this.#r = r;
    this.#session = session;
    this.#tokenizer = tokenizer;
  }
  static async open(r: Runnable, session: Session): Promise<Conversation> {
    return new Conversation(r, session, await loadTokenizer(r.engineDir));
  }
  get canChat(): boolean {
    return hasTemplate(this.#r.engineDir);
  }

  /** Continue a text as it is, after the begin-of-sentence token. */
  async continue(text: string, s: Sampling, onText: (piece: string) => void): Promise<Answer> {
    const bos = this.#tokenizer.bos === null ? null : this.#tokenizer.idOf(this.#tokenizer.bos);
    return this.#generate([...(bos === null ? [] : [bos]), ...this.#tokenizer.encode(text)], s, onText);
  }
  /** Say something and let the model answer; both are added to the messages. */
  async say(content: string, s: Sampling, onText: (piece: string) => void, thinking?: boolean): Promise<Answer> {
    if (content.trim() === '') throw new Refusal([emptyPrompt()]);
    this.messages.push({ role: 'user', content });
    const prompt = await renderChat(this.#r.engineDir, this.messages, this.#tokenizer, {
      addGenerationPrompt: true,
      ...(thinking === undefined ? {} : { thinking }),
    });
    const answer = await this.#generate(this.#tokenizer.encode(prompt), s, onText);
    this.messages.push({ role: 'assistant', content: answer.text });
    return answer;
  }

  async #generate(ids: readonly number[], s: Sampling, onText: (piece: string) => void): Promise<Answer> {
    const { context } = this.#session;
    if (ids.length === 0) throw new Refusal([emptyPrompt()]);
    if (ids.length > context) throw new Refusal([promptTooLong(ids.length, context)]);
    // what is in the caches already need not be fed again; at least one token must be
    let same = 0;
    while (same < this.#fed.length && same < ids.length - 1 && this.#fed[same] === ids[same]) same++;
    const made: number[] = [];
    const stream = this.#tokenizer.stream();
    let text = '';
    const give = (piece: string): void => {
      text += piece;
      if (piece !== '') onText(piece);
    };
    const stops = this.#tokenizer.stops;
    const timing = await this.#session.generate(
      {
        sequence: 0,
        position: same,
        ids: ids.slice(same),
        count: s.maxTokens,
        temperature: s.temperature,
        topP: s.topP,
        seed: s.seed,
        stops,
      },
      id => {
        made.push(id);
        if (!stops.includes(id)) give(stream.push(id));
      },
    );
    give(stream.end());
    this.#fed = [...ids, ...made.slice(0, -1)];
    return { text, ids: made, promptIds: ids, stopped: stops.includes(made.at(-1) as number), timing };
  }
}
