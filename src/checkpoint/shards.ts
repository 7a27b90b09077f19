// A checkpoint directory: config.json, one model.safetensors or shards with an index. Headers are the truth; the index is checked against them.
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { type Problem, Refusal } from '../../ir/problem.js';
import { type ModelConfig, parseConfig } from './config.js';
import { JsonError, type JsonNode, lineAt, parseJson } from './json.js';
import * as problems from './problems.js';
import { type Header, readHeader, type TensorEntry } from './safetensors.js';

export type { TensorEntry } from './safetensors.js';

export interface Checkpoint {
  readonly dir: string;
  readonly config: ModelConfig;
  /** By the name in the file; empty where only a config.json was named. */
  readonly tensors: ReadonlyMap<string, TensorEntry>;
  /** Shards in order of their names. */
  readonly files: readonly string[];
  /** True where shards hold no data, or there are none: good for inspection only. */
  readonly headersOnly: boolean;
  /** Things worth saying that are no errors. */
  readonly notes: readonly string[];
}
export interface OpenOptions {
  /** Accept shards without data, and a bare config.json. */
  readonly headersOnly?: boolean;
  /** Accept index keys that no shard holds; they become notes. */
  readonly allowPhantomKeys?: boolean;
}

const indexName = 'model.safetensors.index.json';
const numbered = /^(.*?)-(\d+)-of-(\d+)\.safetensors$/;

/** Open a checkpoint directory, or with headersOnly a config.json. Throws a Refusal with all that is wrong. */
export function openCheckpoint(path: string, options: OpenOptions = {}): Checkpoint {
  const isFile = statSync(path).isFile();
  if (isFile && !(options.headersOnly && path.endsWith('.json'))) throw new Refusal([problems.noDirectory(path)]);
  const dir = isFile ? dirname(path) : path;
  const configFile = isFile ? basename(path) : 'config.json';
  if (!existsSync(join(dir, configFile))) throw new Refusal([problems.noConfig(dir)]);
  for (const f of [configFile, indexName])
    if (existsSync(join(dir, f)) && !statSync(join(dir, f)).isFile()) throw new Refusal([problems.notRegular(f)]);
  const config = parseConfig(readFileSync(join(dir, configFile), 'utf8'), configFile);
  if (isFile) return { dir, config, tensors: new Map(), files: [], headersOnly: true, notes: [] };
  const present = readdirSync(dir)
    .filter(f => f.endsWith('.safetensors'))
    .sort();
  const notes: string[] = [];
  const indexed = existsSync(join(dir, indexName));
  const files = indexed ? indexedFiles(dir) : { map: null, files: looseFiles(dir, present), total: null };
  const headers = readAll(dir, files.files, options.headersOnly === true);
  const tensors = merge(headers);
  if (files.map) {
    notes.push(...checkIndex(files.map, tensors, options.allowPhantomKeys === true));
    const stored = [...tensors.values()].reduce((n, t) => n + t.bytes[1] - t.bytes[0], 0);
    if (files.total !== null && files.total !== stored)
      notes.push(`${indexName} says total_size ${files.total}; the shards hold ${stored} bytes of tensors.`);
    const extra = present.filter(f => !files.files.includes(f));
    if (extra.length)
      notes.push(
        `${extra.join(', ')} ${extra.length === 1 ? 'is' : 'are'} not in the index and ${extra.length === 1 ? 'was' : 'were'} not read.`,
      );
  }
  return { dir, config, tensors, files: files.files, headersOnly: headers.some(h => h.headerOnly), notes };
}

function looseFiles(dir: string, present: readonly string[]): readonly string[] {
  if (present.includes('model.safetensors')) {
    if (present.length > 1) throw new Refusal([problems.ambiguousShards(dir, present)]);
    return present;
  }
  if (present.length === 0) throw new Refusal([problems.noWeights(dir)]);
  const parts = present.map(f => numbered.exec(f));
  const first = parts[0];
  if (!first || parts.some(p => !p || p[1] !== first[1] || p[3] !== first[3])) {
    if (present.length === 1) return present;
    throw new Refusal([problems.ambiguousShards(dir, present)]);
  }
  const total = Number(first[3]);
  const have = new Set(parts.map(p => Number(p![2])));
  const digits = first[2]!.length;
  const missing = Array.from({ length: Math.min(total, 100_000) }, (_, i) => i + 1)
    .filter(i => !have.has(i))
    .map(i => `${first[1]}-${String(i).padStart(digits, '0')}-of-${first[3]}.safetensors`);
  if (missing.length) throw new Refusal([problems.shardsIncomplete(dir, missing)]);
  return present;
}

interface IndexEntry {
  readonly file: string;
  readonly line: number;
}
interface Index {
  readonly map: ReadonlyMap<string, IndexEntry>;
  readonly files: readonly string[];
  readonly total: number | null;
}

/** Line numbers of many offsets in rising order. */
function lines(text: string): (at: number) => number {
  let line = 1;
  let seen = 0;
  const after = (from: number): number => {
    const i = text.indexOf('\n', from);
    return i === -1 ? text.length : i;
  };
  let next = after(0); // kept: an index may be one line of megabytes
  return at => {
    if (at < seen) return lineAt(text, at).line;
    while (next < at) {
      line++;
      seen = next + 1;
      next = after(seen);
    }
    return line;
  };
}

function indexedFiles(dir: string): Index {
  const text = readFileSync(join(dir, indexName), 'utf8');
  let root: JsonNode;
  try {
    root = parseJson(text);
  } catch (e) {
    if (!(e instanceof JsonError)) throw e;
    const { line, shows } = lineAt(text, e.at);
    throw new Refusal([problems.indexNotJson(indexName, e.message, line, shows)]);
  }
  const malformed = (what: string, node: JsonNode): never => {
    const { line, shows } = lineAt(text, node.at);
    throw new Refusal([problems.indexMalformed(indexName, what, line, shows)]);
  };
  if (!(root.value instanceof Map)) malformed('it is not an object', root);
  const top = root.value as ReadonlyMap<string, JsonNode>;
  const weights = top.get('weight_map');
  if (!weights || !(weights.value instanceof Map)) return malformed('weight_map is missing or not an object', weights ?? root);
  const meta = top.get('metadata')?.value;
  const size = meta instanceof Map ? (meta as ReadonlyMap<string, JsonNode>).get('total_size')?.value : undefined;
  const map = new Map<string, IndexEntry>();
  // a few names for a hundred thousand tensors, each a string of its own: one that was cut out of the text would hold all of it
  const names = new Map<string, string>();
  const own = (name: string): string => {
    const there = names.get(name);
    if (there !== undefined) return there;
    const made = Buffer.from(name).toString();
    names.set(made, made);
    return made;
  };
  const found: Problem[] = [];
  const lineOf = lines(text);
  for (const [tensor, node] of weights.value as ReadonlyMap<string, JsonNode>) {
    if (typeof node.value !== 'string') return malformed(`${JSON.stringify(tensor)} is not sent to a file`, node);
    const line = lineOf(node.key ?? node.at);
    if (!/^[^/\\\0]+$/.test(node.value) || node.value === '.' || node.value === '..' || /^[A-Za-z]:/.test(node.value))
      found.push(problems.unsafeName(indexName, node.value, tensor, line));
    else if (!node.value.endsWith('.safetensors'))
      found.push(
        problems.indexMalformed(
          indexName,
          `${tensor} is sent to ${JSON.stringify(node.value)}, which is not a safetensors file`,
          line,
          lineAt(text, node.at).shows,
        ),
      );
    map.set(tensor, { file: own(node.value), line });
  }
  if (found.length) throw new Refusal(found);
  const files = [...new Set([...map.values()].map(e => e.file))].sort();
  if (files.length === 0) return malformed('weight_map is empty', weights);
  const gone = files.filter(f => !existsSync(join(dir, f)));
  if (gone.length)
    throw new Refusal(gone.map(f => problems.shardMissing(indexName, f, [...map.values()].filter(e => e.file === f).length)));
  return { map, files, total: typeof size === 'number' ? size : null };
}

function readAll(dir: string, files: readonly string[], headersOnly: boolean): readonly Header[] {
  const found: Problem[] = [];
  const headers: Header[] = [];
  for (const f of files) {
    try {
      headers.push(readHeader(join(dir, f), f, headersOnly));
    } catch (e) {
      if (!(e instanceof Refusal)) throw e;
      found.push(...e.problems);
    }
  }
  if (found.length) throw new Refusal(found);
  return headers;
}

function merge(headers: readonly Header[]): ReadonlyMap<string, TensorEntry> {
  const tensors = new Map<string, TensorEntry>();
  const found: Problem[] = [];
  for (const h of headers)
    for (const t of h.tensors.values()) {
      const other = tensors.get(t.name);
      if (other) found.push(problems.twice(t.name, other.file, t.file));
      else tensors.set(t.name, t);
    }
  if (found.length) throw new Refusal(found);
  return tensors;
}

function checkIndex(
  map: ReadonlyMap<string, IndexEntry>,
  tensors: ReadonlyMap<string, TensorEntry>,
  allowPhantomKeys: boolean,
): readonly string[] {
  const found: Problem[] = [];
  const notes: string[] = [];
  for (const [name, { file, line }] of map) {
    const t = tensors.get(name);
    if (!t) {
      if (allowPhantomKeys) notes.push(`${name} is in the index but in no shard (allowed).`);
      else found.push(problems.phantomKey(indexName, name, file, line));
    } else if (t.file !== file) found.push(problems.contradicted(indexName, name, file, t.file, line));
  }
  for (const t of tensors.values()) if (!map.has(t.name)) found.push(problems.notInIndex(indexName, t.name, t.file, t.bytes));
  if (found.length) throw new Refusal(found);
  return notes;
}
