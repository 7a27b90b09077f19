// Activation statistics as a file: what a compile gathered and what another one may be given in place of a text, so that the same bytes come
// out on any machine. Safetensors, all F32: a matrix's name, the mean square of each of its input columns; `gram:` and its name, [columns, columns],
// the mean of x x^T. Matrices that meet the same rows are written once; `same` in the metadata says who reads whose.
import { closeSync, fstatSync, openSync, writeSync } from 'node:fs';
import { basename } from 'node:path';
import { type Form, formName } from '../ir/form.js';
import { type Problem, problem, Refusal } from '../ir/problem.js';
import type { Chosen, Rule } from '../targets/engine.js';
import { type Header, readAt, readHeader } from './checkpoint/safetensors.js';

const wants = (sentences: readonly string[]): Problem =>
  problem('HK4502', 'gptq cannot round to what the recipe asks for', {
    why: sentences.join(' '),
    next: 'Take --search mse, or give rules of the recipe a search of their own.',
  });
const noCalibration = (first: string, more: number): Problem =>
  problem('HK2611', `gptq needs --calibration (${first}${more > 0 ? ` and ${more} more` : ''})`, {
    why: 'It moves errors to the columns that follow by the second moments of what comes in; without a text there are none.',
    next: 'Name a text with --calibration, or take --search mse.',
  });
const wrongStatistics = (file: string, sentences: readonly string[]): Problem =>
  problem('HK3611', `${basename(file)} does not hold the activation statistics of this model`, {
    places: [{ file: basename(file) }],
    why: sentences.slice(0, 4).join(' ') + (sentences.length > 4 ? ` And ${sentences.length - 4} more.` : ''),
    next: 'Name the calibration.safetensors of a bundle of this model, or a text.',
  });

export interface Statistics {
  /** Mean square of each input column by matrix; with gptq also `gram:NAME`, [columns, columns]. Equal ones are one array. */
  readonly statistics: Readonly<Record<string, Float32Array>>;
  readonly notes: readonly string[];
}
/** A matrix that may be rounded, and how wide its rows are. */
export interface Wanted {
  readonly name: string;
  readonly columns: number;
}
const kind = 'hkgai-calibration-1';

/** Refuse gptq where a form is none that it rounds to, whatever the tensors' shapes make of it later. */
export function refuseGptqForms(rules: readonly Rule[], roles: ReadonlySet<string>, form: (r: Rule) => Form): void {
  const not = new Set<string>();
  for (const r of rules) {
    if (r.search !== 'gptq' || (r.roles && !r.roles.some(x => roles.has(x)))) continue;
    const f = form(r);
    if (f.kind === 'keep' || f.kind === 'plain') continue;
    const sound = f.kind === 'coded' && (f.element === 'i8' || f.element === 'i4') && !f.zero && f.layout === 'packed' && f.block[0] === 1;
    if (!sound) not.add(`${formName(f)} is asked for ${r.roles ? r.roles.join(', ') : r.tensors}`);
  }
  if (not.size)
    throw new Refusal([
      wants(['It rounds to symmetric int8 and int4 with a scale a row or a group of columns.', ...[...not].map(n => `${n}.`)]),
    ]);
}
/** Refuse gptq where there is nothing to go by. */
export function refuseGptqAlone(chosen: readonly Chosen[], calibration: string | null): void {
  const asked = chosen.filter(x => x.form.kind === 'coded' && x.form.search === 'gptq');
  if (asked.length && calibration === null) throw new Refusal([noCalibration(asked[0]!.tensor.name, asked.length - 1)]);
}

/** Whether a file holds statistics: a header's length and a brace, which no text begins with. */
export function holdsStatistics(file: string): boolean {
  const fd = openSync(file, 'r');
  try {
    const head = new Uint8Array(9);
    if (!readAt(fd, head, 0)) return false;
    return head[8] === 0x7b && new DataView(head.buffer).getBigUint64(0, true) <= BigInt(fstatSync(fd).size - 8);
  } finally {
    closeSync(fd);
  }
}

/** Names in order, each array once. Equal statistics give equal bytes. */
export function writeStatistics(path: string, s: Statistics): void {
  const owner = new Map<Float32Array, string>();
  const same: Record<string, string> = {};
  const own: string[] = [];
  for (const name of Object.keys(s.statistics).sort()) {
    const data = s.statistics[name] as Float32Array;
    const first = owner.get(data);
    if (first !== undefined) same[name] = first;
    else {
      owner.set(data, name);
      own.push(name);
    }
  }
  const entries: Record<string, unknown> = {
    __metadata__: { format: kind, notes: JSON.stringify(s.notes), same: JSON.stringify(same) },
  };
  let at = 0;
  for (const name of own) {
    const { length } = s.statistics[name] as Float32Array;
    const side = Math.round(Math.sqrt(length));
    entries[name] = {
      dtype: 'F32',
      shape: name.startsWith('gram:') ? [side, side] : [length],
      data_offsets: [at, (at += 4 * length)],
    };
  }
  const json = new TextEncoder().encode(JSON.stringify(entries));
  const header = new Uint8Array(8 + Math.ceil(json.length / 8) * 8).fill(0x20, 8);
  new DataView(header.buffer).setBigUint64(0, BigInt(header.length - 8), true);
  header.set(json, 8);
  const fd = openSync(path, 'wx');
  const put = (bytes: Uint8Array): void => {
    for (let done = 0; done < bytes.length; ) done += writeSync(fd, bytes, done, Math.min(bytes.length - done, 1 << 30));
  };
  try {
    put(header);
    for (const name of own) {
      const { buffer, byteOffset, byteLength } = s.statistics[name] as Float32Array;
      put(new Uint8Array(buffer, byteOffset, byteLength));
    }
  } finally {
    closeSync(fd);
  }
}

/** Read back, and hold against the model: names, widths, and numbers that means of squares can be. */
export function readStatistics(file: string, wanted: readonly Wanted[], gram: boolean): Statistics {
  const header = readHeader(file, basename(file));
  const same = textOf<Readonly<Record<string, string>>>(header, 'same');
  const notes = textOf<readonly string[]>(header, 'notes');
  if (header.metadata.get('format') !== kind || same === null || !Array.isArray(notes))
    throw new Refusal([wrongStatistics(file, [`Its metadata does not say ${kind}.`])]);
  const wrong: string[] = [];
  const out: Record<string, Float32Array> = Object.create(null);
  const fd = openSync(file, 'r');
  try {
    const read = new Map<string, Float32Array>();
    const take = (name: string, shape: readonly number[]): void => {
      const own = Object.hasOwn(same, name) ? String(same[name]) : name;
      const t = header.tensors.get(own);
      if (!t) return void wrong.push(`There is nothing for ${name}.`);
      if (t.dtype !== 'F32' || t.shape.join() !== shape.join())
        return void wrong.push(`${own} is ${t.dtype} [${t.shape.join(', ')}], not F32 [${shape.join(', ')}].`);
      const known = read.get(own);
      const data = known ?? new Float32Array(new SharedArrayBuffer(t.bytes[1] - t.bytes[0]));
      out[name] = data;
      if (known) return;
      read.set(own, data);
      const bytes = new Uint8Array(t.bytes[1] - t.bytes[0]);
      readAt(fd, bytes, t.bytes[0]);
      new Uint8Array(data.buffer).set(bytes);
      const squares = !own.startsWith('gram:');
      const side = shape[0] as number;
      for (let i = 0; i < data.length; i++) {
        const v = data[i] as number;
        if (!Number.isFinite(v) || (v < 0 && (squares || i % (side + 1) === 0)))
          return void wrong.push(`${own} holds ${v}, which no mean of squares is.`);
      }
    };
    const names = new Set<string>();
    for (const w of wanted) {
      take(w.name, [w.columns]);
      names.add(w.name).add(`gram:${w.name}`);
      if (gram) take(`gram:${w.name}`, [w.columns, w.columns]);
    }
    const strange = [...header.tensors.keys(), ...Object.keys(same)].filter(n => !names.has(n));
    if (strange.length) wrong.push(`The model has no ${strange[0]}${strange.length > 1 ? ` (and ${strange.length - 1} more)` : ''}.`);
  } finally {
    closeSync(fd);
  }
  if (wrong.length) throw new Refusal([wrongStatistics(file, [...new Set(wrong)])]);
  return { statistics: out, notes: notes.map(String) };
}
function textOf<T>(h: Header, key: string): T | null {
  try {
    const v = JSON.parse(h.metadata.get(key) ?? 'null') as T | null;
    return typeof v === 'object' ? v : null;
  } catch {
    return null;
  }
}
