// engine/: the weights as an engine loads them, with config, index and tokenizer; the ledger beside it; checked as the engine would check it.
import { closeSync, copyFileSync, existsSync, openSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { cpus } from 'node:os';
import { join, resolve } from 'node:path';
import { type Problem, problem, Refusal } from '../ir/problem.js';
import type { Companions, EngineDirectory, EngineFormat, EngineModel, Finding, Runtime } from '../targets/engine.js';
import type { Cache, Lead, Result } from './bundle/cache.js';
import { linkOrCopy, writePieces, writeText } from './bundle/directory.js';
import { type Figures, type OutputLine, type SourceLine, type Totals, writeLedger } from './bundle/ledger.js';
import { Unfinished, type Work } from './bundle/work.js';
import type { Family } from './checkpoint/config.js';
import { identity } from './checkpoint/identity.js';
import { canonicalName } from './checkpoint/names.js';
import { notRegular } from './checkpoint/problems.js';
import { readAt, readHeader, type TensorEntry } from './checkpoint/safetensors.js';
import type { Checkpoint } from './checkpoint/shards.js';
import { contentOf, type Known, statisticsDigests, stepSources } from './content.js';
import { isFigures, type Knowledge, piecesOf, tensorsIn, withEarlier } from './earlier.js';
import { consumersOf, type EnginePlan, outputsOf, workingSet } from './engine-plan.js';
import { plain, runPool } from './numeric/pool.js';
import { type FileResult, type FileWork, Interrupted } from './numeric/steps.js';
import type { Resolution } from './recipe.js';
import { Digests, FigureTable, type PackedResult, packResult, unpackResult } from './results.js';

const badNumbers = (name: string, nan: number, infinite: number, file: string, bytes: readonly [number, number]): Problem =>
  problem('HK3601', `${name} holds ${nan} NaN and ${infinite} values that are infinite or too large for what it is to be`, {
    places: [{ file, bytes }],
    why: 'They would be other values in the output; the file is damaged, the training went wrong, or the form has too small a range.',
    next: 'Get the shard again and run the same command, or choose a form with a wider range and begin anew with --restart.',
  });
const sourceChanged = (file: string): Problem =>
  problem('HK3602', `${file} changed while it was read`, {
    places: [{ file }],
    why: 'What was made of it would be of two versions. Files that were finished before are kept beside the output.',
    next: 'Wait until the checkpoint is complete, then run the same command again.',
  });
const notJson = (file: string, why: string): Problem =>
  problem('HK3022', `${file} cannot be read: ${why}`, { places: [{ file }], next: 'Get the file again.' });
const tooLittleMemory = (asked: number, least: number): Problem =>
  problem('HK5101', `--max-memory ${Math.floor(asked / 2 ** 20)}M is less than this compile needs`, {
    why: `One thread takes ${Math.ceil(least / 2 ** 20)} MiB with its largest piece.`,
    next: `Give it at least ${Math.ceil(least / 2 ** 20)}M.`,
  });
const broken = (f: Finding): Problem =>
  problem('HK6501', `Rule ${f.rule}: ${f.what}`, {
    places: [{ file: f.where }],
    why: 'The engine would refuse the directory or misread it.',
    next: 'Compile it again; if it was just compiled, report it.',
  });

/** What Node, the graph and the headers take before a thread begins, and a thread beside its pieces. Measured: bench/stream. */
export const baseMemory = 96 << 20;
export const threadMemory = 20 << 20;
/** Of each tensor that is read or written: header, plan, hashes, figures, ledger. Measured on V3's 91,991 tensors, with experts renumbered 455 MB in all. */
export const tensorMemory = 1536;
export const pieceBytes = 1 << 19;

export interface EngineOptions {
  readonly jobs: number | null;
  readonly maxMemory: number | null;
  /** Read or written by the whole run. */
  readonly tensors: number;
  readonly statistics: Readonly<Record<string, Float32Array>>;
  readonly weights: 'auto' | 'link' | 'copy';
  readonly cache: Cache | null;
  /** Of the source files, from before their headers were read. */
  readonly identities: ReadonlyMap<string, string>;
  readonly signal: AbortSignal;
}
export interface Watch {
  step(text: string): void;
  at(done: number, total: number): void;
}
/** Threads and the size of a piece under a bound of memory. */
export function threadsFor(
  files: readonly FileWork[],
  jobs: number | null,
  maxMemory: number | null,
  tensors: number,
): { readonly jobs: number; readonly piece: number; readonly peak: number } {
  const source = files.reduce((n, f) => n + f.source, 0);
  const wanted = jobs ?? (source < 64 << 20 ? 0 : Math.min(cpus().length, 16));
  const each = (piece: number): number => threadMemory + workingSet(files, piece);
  const peak = (n: number, piece: number): number =>
    baseMemory + tensors * tensorMemory + Math.max(1, n) * each(piece) - (n === 0 ? threadMemory : 0);
  if (maxMemory === null) return { jobs: wanted, piece: pieceBytes, peak: peak(Math.min(wanted, files.length), pieceBytes) };
  for (const piece of [pieceBytes, 1 << 17, 1 << 15])
    for (let n = wanted; n >= (piece === 1 << 15 ? 0 : 1); n--)
      if (peak(n, piece) <= maxMemory) return { jobs: n, piece, peak: peak(n, piece) };
  throw new Refusal([tooLittleMemory(maxMemory, peak(0, 1 << 15))]);
}

/** Identities of the weight files in a directory. */
export const sourceIdentities = (dir: string): ReadonlyMap<string, string> =>
  new Map(
    (statSync(dir).isDirectory() ? readdirSync(dir) : [])
      .filter(f => f.endsWith('.safetensors') && existsSync(join(dir, f)))
      .map(f => [f, identity(join(dir, f))]),
  );
const allNumbers = (x: unknown): boolean => typeof x === 'object' && x !== null && Object.values(x).every(v => typeof v === 'number');
/** A result as it was read from a disk, of as many steps as the file has that read something. */
function isResult(r: unknown, f: FileWork): r is FileResult {
  const { steps, sha256, bytes, seconds } = r as Partial<FileResult>;
  return (
    typeof sha256 === 'string' &&
    typeof bytes === 'number' &&
    allNumbers(seconds) &&
    Array.isArray(steps) &&
    steps.length === f.steps.filter(x => stepSources(x).length > 0).length &&
    steps.every(
      s =>
        Array.isArray(s?.sources) &&
        s.sources.every((x: unknown) => Array.isArray(x) && x.length === 2 && x.every(t => typeof t === 'string')) &&
        (s.name === null || typeof s.name === 'string') &&
        (s.figures === null || isFigures(s.figures)),
    )
  );
}
const plainResult = ({ index, path, sha256, bytes, steps, seconds }: FileResult): FileResult => ({
  index,
  path,
  sha256,
  bytes,
  steps,
  seconds,
});

export interface Written {
  readonly results: ReadonlyMap<string, PackedResult>;
  /** Files that an earlier run of the same command finished, and those that were made before of the same content. */
  readonly resumed: number;
  readonly cached: number;
  /** Tensors that were made before of the same content, in those files and in others. */
  readonly taken: number;
}
/** Write all weight files of a plan into `directory` of the work's tree, with what is known from before. */
export async function writeWeights(
  c: Checkpoint,
  plan: EnginePlan,
  work: Work,
  directory: string,
  recipe: string,
  o: EngineOptions,
  watch: Watch,
): Promise<Written> {
  const to = join(work.tree, directory);
  /** A source file is still the one whose header was read. */
  const same = (file: string): boolean => {
    try {
      return identity(join(c.dir, file)) === o.identities.get(file);
    } catch {
      return false;
    }
  };
  const check = (file: string): void => {
    if (!same(file)) throw new Unfinished([sourceChanged(file)]);
  };
  for (const f of c.files) check(f);
  // devices are numbered anew when they are mounted again: a finished file is still good then
  const here = (file: string): string => (o.identities.get(file) as string).replace(/^\d+:/, '');
  const sourcesOf = (f: FileWork): readonly string[] => [
    ...new Set(f.link ? [f.path] : f.steps.flatMap(s => stepSources(s).map(([file]) => file))),
  ];
  const record = (f: FileWork, r: FileResult): void =>
    work.record({ ...plainResult(r), directory, path: f.path, sources: Object.fromEntries(sourcesOf(f).map(s => [s, here(s)])) });
  const known = new Map(c.files.map(f => [f, o.cache?.source(join(c.dir, f)) ?? null]));
  const knownTensor: Known = (file, name) => known.get(file)?.tensors[name] ?? null;
  const results = new Map<string, PackedResult>();
  const todo: FileWork[] = [];
  let resumed = 0;
  let cached = 0;
  let taken = 0;
  const total = plan.files.reduce((n, f) => n + f.source, 0);
  let before = 0;
  const reuse = (f: FileWork, r: FileResult): void => {
    results.set(f.path, packResult(f, r));
    before += f.source;
  };
  for (const f of plan.files) {
    await new Promise(resolve => setImmediate(resolve));
    if (o.signal.aborted) throw new Interrupted();
    const done = work.finished.get(`${directory}/${f.path}`);
    if (done && isResult(done, f) && done.bytes === f.size && sourcesOf(f).every(s => done.sources[s] === here(s))) {
      reuse(f, { ...plainResult(done), index: f.index });
      resumed++;
      continue;
    }
    if (f.link) {
      const d = known.get(f.path);
      await linkOrCopy(join(c.dir, f.path), join(to, f.path), o.weights);
      check(f.path);
      if (d?.sha256 && f.steps.every(s => s.kind === 'digest' && d.tensors[s.source.tensor] !== undefined)) {
        const r: FileResult = {
          index: f.index,
          path: f.path,
          sha256: d.sha256,
          bytes: f.size,
          steps: f.steps.map(s => ({
            sources: s.kind === 'digest' ? [[s.source.tensor, d.tensors[s.source.tensor] as string]] : [],
            name: null,
            figures: null,
          })),
          seconds: { read: 0, convert: 0, hash: 0, write: 0 },
        };
        reuse(f, r);
        record(f, r);
        cached++;
        continue;
      }
    } else {
      const content = contentOf(f, knownTensor, recipe);
      const made = content === null ? null : (o.cache?.made(content) ?? null);
      const was: unknown = made?.result;
      if (made && isResult(was, f) && was.bytes === f.size && (await takeMade(made.path, join(to, f.path), o.weights))) {
        const r = { ...plainResult(was), index: f.index, path: f.path };
        reuse(f, r);
        record(f, r);
        cached++;
        taken += tensorsIn(f);
        continue;
      }
    }
    todo.push(f);
  }
  if (todo.length) {
    const { jobs, piece } = threadsFor(todo, o.jobs, o.maxMemory, o.tensors);
    const sizes = new Map(plan.files.map(f => [f.path, f]));
    const { cache } = o;
    const knowledge: Knowledge | null = cache && {
      cache,
      source: file => known.get(file) ?? null,
      known: knownTensor,
      statistics: statisticsDigests(o.statistics),
    };
    watch.at(before, total);
    await runPool(todo, {
      from: c.dir,
      to,
      jobs,
      statistics: o.statistics,
      piece,
      signal: o.signal,
      ready: f => (knowledge && !f.link ? withEarlier(f, knowledge) : plain(f)),
      progress: n => watch.at(Math.min(total, before + n), total),
      finished: r => {
        const f = sizes.get(r.path) as FileWork;
        const bad = r.steps.find(s => s.figures !== null && s.figures.nan + unheld(f, s.name as string, s.figures) > 0);
        if (bad) {
          const step = f.steps.find(s => s.kind === 'matrix' && s.name === bad.name);
          const part = step?.kind === 'matrix' ? step.part : null;
          throw new Unfinished([
            badNumbers(
              bad.name as string,
              bad.figures!.nan,
              unheld(f, bad.name as string, bad.figures!),
              part?.file ?? f.path,
              part?.bytes ?? [0, 0],
            ),
          ]);
        }
        for (const s of sourcesOf(f)) check(s);
        taken += r.taken ?? 0;
        results.set(r.path, packResult(f, r));
        record(f, r);
      },
    }).catch(e => {
      throw e instanceof Refusal && !(e instanceof Unfinished) ? new Unfinished(e.problems) : e;
    });
  }
  // what was read is known now
  if (o.cache && todo.length) {
    const digests = new Digests();
    for (const f of plan.files) digests.add(f.steps, results.get(f.path) as PackedResult);
    const inFile = new Map<string, TensorEntry[]>(c.files.map(f => [f, []]));
    for (const t of c.tensors.values()) inFile.get(t.file)?.push(t);
    for (const f of c.files) {
      const here = (inFile.get(f) ?? []).map(t => [t.name, digests.get(t.name) ?? knownTensor(f, t.name)] as const);
      if (here.every(([, sha]) => sha !== null)) {
        const all = Object.fromEntries(here as readonly (readonly [string, string])[]);
        const whole = plan.linked ? (results.get(f)?.sha256 ?? null) : (known.get(f)?.sha256 ?? null);
        o.cache.keepSource(join(c.dir, f), o.identities.get(f) as string, { sha256: whole, tensors: all });
      }
    }
  }
  return { results, resumed, cached, taken };
}
/** Bring a file that was made before; false where it changed or went meanwhile. */
async function takeMade(path: string, to: string, how: EngineOptions['weights']): Promise<boolean> {
  try {
    const was = identity(path);
    await linkOrCopy(path, to, how === 'copy' ? 'copy' : 'auto');
    return identity(path) === was;
  } catch (e) {
    if ((e as NodeJS.ErrnoException).code === 'ENOENT') return false;
    throw e;
  }
}
/** Values that the written form cannot hold: infinite ones, and those that a cast sends to infinity. Codes that are cut at their range are none. */
const unheld = (f: FileWork, name: string, x: Figures): number =>
  x.infinite + (f.steps.some(s => s.kind === 'matrix' && s.name === name && s.form.kind === 'plain') ? x.saturated : 0);

/** Remember what the files of a finished bundle were made of, and the tensors in them. */
export function rememberMade(
  c: Checkpoint,
  plan: EnginePlan,
  dir: string,
  recipe: string,
  statistics: EngineOptions['statistics'],
  results: ReadonlyMap<string, PackedResult>,
  cache: Cache,
): void {
  if (plan.linked) return;
  const sources = new Map(c.files.map(f => [f, cache.source(join(c.dir, f))]));
  const known: Known = (file, t) => sources.get(file)?.tensors[t] ?? null;
  const knowledge: Knowledge = { cache, source: file => sources.get(file) ?? null, known, statistics: statisticsDigests(statistics) };
  const at = resolve(dir); // found again from any working directory
  const leads = new Map<string, Lead[]>();
  for (const f of plan.files) {
    const content = contentOf(f, known, recipe);
    const r = results.get(f.path);
    if (content === null || !r) continue;
    const kept = piecesOf(f, knowledge);
    cache.keepMade(content, join(at, f.path), unpackResult(f, r) as FileResult & Result, kept.pieces);
    for (const [file, keys] of kept.leads) leads.set(file, [...(leads.get(file) ?? []), { content, keys }]);
  }
  for (const [file, list] of leads) {
    const source = sources.get(file);
    if (source) cache.keepLeads(source, list);
  }
}

/** Files that belong to a model beside config, weights and index: tokenizer, prompts, code that `auto_map` names, licences. */
const companion =
  /^(generation_config\.json|tokenizer.*|special_tokens_map\.json|added_tokens\.json|vocab\.json|merges\.txt|preprocessor_config\.json|chat_template\..*|.*\.(tiktoken|jinja|py)|(LICEN[CS]E|NOTICE)([-.].*)?)$/;
/** A directory whose name has no ending, as tokenizer/, belongs to something else; all else that is no file is refused, a pipe above all. */
const companionsIn = (dir: string): readonly string[] =>
  readdirSync(dir)
    .filter(f => companion.test(f) && (isRegular(dir, f) || f.includes('.')))
    .map(f => regular(dir, f))
    .sort();
const isRegular = (dir: string, f: string): boolean => statSync(join(dir, f)).isFile();
function regular(dir: string, f: string): string {
  if (!isRegular(dir, f)) throw new Refusal([notRegular(f)]);
  return f;
}
export const indexName = 'model.safetensors.index.json';

/** config.json without what was said of the old storage, MTP counted as it is. */
export function bareConfig(source: string, keepQuantisation: boolean, noMtp: boolean): Record<string, unknown> {
  const c = JSON.parse(source) as Record<string, unknown>;
  for (const o of [c, c.text_config as Record<string, unknown> | undefined]) {
    if (typeof o !== 'object' || o === null) continue;
    if (!keepQuantisation) {
      delete o.quantization_config;
      delete o.compression_config;
    }
    if (noMtp && 'num_nextn_predict_layers' in o) o.num_nextn_predict_layers = 0;
  }
  return c;
}

/** The JSON files beside a checkpoint's weights. Refuses those that are none, and any companion that cannot be copied. */
export function companionsOf(dir: string): Companions {
  companionsIn(dir);
  const text = (f: string): string | null => (existsSync(join(dir, f)) ? readFileSync(join(dir, regular(dir, f)), 'utf8') : null);
  const json = (f: string): unknown => {
    const t = text(f);
    if (t === null) return null;
    try {
      return JSON.parse(t);
    } catch (e) {
      throw new Refusal([notJson(f, (e as Error).message)]);
    }
  };
  return {
    config: json('config.json') as Record<string, unknown>,
    tokenizer: json('tokenizer.json'),
    tokenizerConfig: json('tokenizer_config.json'),
    generationConfig: json('generation_config.json'),
    chatTemplate: text('chat_template.jinja'),
  };
}
/** config.json of a directory whose weights are not passed on whole, and the engine's further files. */
export function writtenConfig(
  c: Checkpoint,
  r: Resolution,
  format: EngineFormat,
  recipe: Parameters<EngineFormat['files']>[2],
): ReturnType<EngineFormat['files']> {
  const source = readFileSync(join(c.dir, 'config.json'), 'utf8');
  const stillCoded = r.chosen.some(x => x.form.kind === 'keep' && x.source.storage.kind === 'scaled');
  // where no matrix was touched, what the source says of its codes still holds
  const untouched = r.chosen.every(x => x.form.kind === 'keep' || !x.tensor.matrix);
  const bare = bareConfig(source, stillCoded && (format.name === 'safetensors' || untouched), recipe.mtp === 'drop');
  return format.files(bare, r.chosen, recipe, c.config.family);
}
/** Everything of an engine directory but its weights. */
export function writeCompanions(
  c: Checkpoint,
  plan: EnginePlan,
  r: Resolution,
  format: EngineFormat,
  dir: string,
  o: { readonly recipe: Parameters<EngineFormat['files']>[2]; readonly allowPhantomKeys: boolean },
): void {
  if (format.pack) return; // a container holds config and tokenizer itself
  for (const f of companionsIn(c.dir)) copyFileSync(join(c.dir, f), join(dir, f));
  const source = readFileSync(join(c.dir, 'config.json'), 'utf8');
  if (plan.linked) {
    writeText(dir, 'config.json', source);
    if (existsSync(join(c.dir, indexName))) {
      const text = readFileSync(join(c.dir, indexName), 'utf8');
      writeText(dir, indexName, o.allowPhantomKeys ? indexWithout(text, c.tensors) : text);
    }
    return;
  }
  const { config, extra } = writtenConfig(c, r, format, o.recipe);
  writeText(dir, 'config.json', `${JSON.stringify(config, null, 2)}\n`);
  for (const f of extra) writePieces(dir, f.path, typeof f.text === 'string' ? [f.text] : f.text);
  if (plan.files.length > 1) {
    writePieces(dir, indexName, indexPieces(plan));
  }
}
function* indexPieces(plan: EnginePlan): Generator<string> {
  const names: string[] = [];
  const files = new Map<string, string>();
  let total = 0;
  for (const t of outputsOf(plan)) {
    names.push(t.name);
    files.set(t.name, t.file);
    total += t.size;
  }
  names.sort((a, b) => (a < b ? -1 : 1));
  yield `{\n  "metadata": {\n    "total_size": ${total}\n  },\n  "weight_map": {`;
  let comma = '';
  for (const name of names) {
    yield `${comma}\n    ${JSON.stringify(name)}: ${JSON.stringify(files.get(name))}`;
    comma = ',';
  }
  yield '\n  }\n}\n';
}
/** An index without the keys that no shard holds: the bundle does not promise what it does not have. */
function indexWithout(source: string, tensors: ReadonlyMap<string, unknown>): string {
  const index = JSON.parse(source) as { weight_map: Record<string, string> };
  return `${JSON.stringify({ ...index, weight_map: Object.fromEntries(Object.entries(index.weight_map).filter(([k]) => tensors.has(k))) }, null, 2)}\n`;
}

/** The ledger of a written directory. */
export function account(
  c: Checkpoint,
  plan: EnginePlan,
  results: ReadonlyMap<string, PackedResult>,
  path: string,
): { readonly totals: Totals['totals']; readonly figures: FigureTable } {
  const digests = new Digests();
  const figures = new FigureTable();
  const consumers = consumersOf(plan, f => {
    const p = results.get(f.path) as PackedResult;
    digests.add(f.steps, p);
    figures.add(f.steps, p);
  });
  const lost = new Map(plan.dropped.map(d => [d.tensor.name, d.reason]));
  const nowhere: readonly string[] = [];
  // made line by line, as often as they are asked for
  function* sources(): Generator<SourceLine> {
    for (const t of c.tensors.values()) {
      const line: SourceLine = {
        source: t.name,
        file: t.file,
        bytes: t.bytes,
        dtype: t.dtype,
        shape: t.shape,
        sha256: digests.get(t.name) ?? '',
        to: consumers.get(t.name) ?? nowhere,
      };
      const dropped = lost.get(t.name);
      yield dropped === undefined ? line : { ...line, dropped };
    }
  }
  function* outputs(): Generator<OutputLine> {
    for (const t of outputsOf(plan)) {
      const line: OutputLine = {
        output: t.name,
        file: t.file,
        bytes: [t.at, t.at + t.size],
        dtype: t.dtype,
        shape: t.shape,
        from: t.from,
        recipe: t.rule,
      };
      const f = t.matrix === null ? undefined : figures.get(t.matrix);
      yield f ? { ...line, figures: f } : line;
    }
  }
  const { totals } = writeLedger(
    path,
    { [Symbol.iterator]: sources },
    { [Symbol.iterator]: outputs },
    {
      sources: c.tensors,
      files: new Map(plan.files.map(f => [f.path, f.size])),
      ...(plan.files.some(f => f.path.endsWith('.gguf')) ? { alignment: 32 } : {}),
    },
  );
  return { totals, figures };
}

/** A directory as an engine finds it; headers are read, bytes when asked for. */
export function openEngineDirectory(dir: string, sampled = false): EngineDirectory & { close(): void } {
  const files = readdirSync(dir).filter(f => statSync(join(dir, f)).isFile());
  const tensors = new Map<
    string,
    {
      readonly name: string;
      readonly dtype: string;
      readonly shape: readonly number[];
      readonly file: string;
      readonly bytes: readonly [number, number];
    }
  >();
  for (const f of files.filter(n => n.endsWith('.safetensors')).sort())
    for (const t of readHeader(join(dir, f), f).tensors.values()) tensors.set(t.name, t);
  const open = new Map<string, number>();
  let buffer = new Uint8Array(1 << 16);
  return {
    files,
    tensors,
    json(file) {
      if (!files.includes(file)) return undefined;
      try {
        return JSON.parse(readFileSync(join(dir, file), 'utf8'));
      } catch {
        return null;
      }
    },
    read(t, from, to) {
      let fd = open.get(t.file);
      if (fd === undefined) {
        fd = openSync(join(dir, t.file), 'r');
        open.set(t.file, fd);
      }
      if (buffer.length < to - from) buffer = new Uint8Array(to - from);
      const bytes = buffer.subarray(0, to - from);
      readAt(fd, bytes, t.bytes[0] + from);
      return bytes;
    },
    sampled,
    file(name) {
      let fd = open.get(name);
      if (fd === undefined) {
        fd = openSync(join(dir, name), 'r');
        open.set(name, fd);
      }
      const from = fd;
      return {
        size: statSync(join(dir, name)).size,
        read(at, to) {
          const bytes = new Uint8Array(to - at);
          readAt(from, bytes, at);
          return bytes;
        },
      };
    },
    close() {
      for (const fd of open.values()) closeSync(fd);
    },
  };
}
/** Hold a directory against its engine's rules. */
export function checkEngine(
  dir: string,
  format: EngineFormat,
  model: EngineModel,
  chip: string,
  runtime: Runtime | null,
  sampled: boolean,
): readonly Problem[] {
  const d = openEngineDirectory(dir, sampled);
  try {
    // what may be absent and is, is not asked for
    let tensors = model.tensors;
    if (tensors.some(t => t.optional)) {
      const names = new Set<string>();
      for (const n of d.tensors.keys()) names.add(canonicalName(n, model.modelType as Family).replace(/\.weight_packed$/, '.weight'));
      tensors = tensors.filter(t => !t.optional || names.has(t.name));
    }
    return format.check(d, { ...model, tensors }, chip, runtime).map(broken);
  } finally {
    d.close();
  }
}
