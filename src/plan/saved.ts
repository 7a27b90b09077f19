// A saved plan and its rows: which model it is of, and the way to spread it that a row says.
import { createHash } from 'node:crypto';
import { closeSync, existsSync, openSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { notThere, Refusal } from '../../ir/problem.js';
import type { Parallel } from '../../targets/launch.js';
import { JsonError, lineAt, parseJson, plainValue } from '../checkpoint/json.js';
import { readAt } from '../checkpoint/safetensors.js';
import { mostDevices, type ParallelWish, parallelOf } from './parallel.js';
import * as problems from './problems.js';

/** What a plan is of: SHA-256 of config.json, and of all headers in the order of their files; null where config.json alone was there. */
export interface ModelDigest {
  readonly config: string;
  readonly headers: string | null;
}
/** SHA-256 over config.json, and over names and headers of the shards. */
export function digestOf(dir: string, configFile: string, files: readonly string[]): ModelDigest {
  const config = createHash('sha256')
    .update(readFileSync(join(dir, configFile)))
    .digest('hex');
  if (files.length === 0) return { config, headers: null };
  const hash = createHash('sha256');
  for (const f of files) {
    const fd = openSync(join(dir, f), 'r');
    try {
      const length = new Uint8Array(8);
      readAt(fd, length, 0);
      const header = new Uint8Array(Number(new DataView(length.buffer).getBigUint64(0, true)));
      readAt(fd, header, 8);
      hash.update(`${f}\0`).update(length).update(header);
    } finally {
      closeSync(fd);
    }
  }
  return { config, headers: hash.digest('hex') };
}

/** What --parallel says: numbers, or `PLAN.json#2`, the second row of a plan of this very checkpoint. */
export function parallelAsked(text: string, digest: () => ModelDigest): ParallelWish {
  const m = /^(.+\.json)(?:#(.*))?$/.exec(text);
  return m ? savedRow(m[1] as string, m[2] ?? '1', digest()) : parallelOf(text);
}
function savedRow(file: string, row: string, digest: ModelDigest): ParallelWish {
  if (!existsSync(file)) throw new Refusal([notThere(file)]);
  const text = readFileSync(file, 'utf8');
  let saved: unknown;
  try {
    saved = plainValue(parseJson(text));
  } catch (e) {
    if (!(e instanceof JsonError)) throw e;
    throw new Refusal([problems.planUnreadable(file, e.message, lineAt(text, e.at))]);
  }
  const plan = saved as {
    readonly target?: unknown;
    readonly context?: unknown;
    readonly format?: unknown;
    readonly model?: { readonly digest?: Partial<ModelDigest> };
    readonly rows?: unknown;
  };
  if (typeof saved !== 'object' || saved === null || plan.format !== 'hkgai-plan-1')
    throw new Refusal([problems.planUnreadable(file, 'its format is not "hkgai-plan-1"')]);
  const rows = plan.rows;
  if (!Array.isArray(rows)) throw new Refusal([problems.planUnreadable(file, 'it has no rows')]);
  const of = plan.model?.digest;
  if (typeof of?.config !== 'string') throw new Refusal([problems.planUnreadable(file, 'it does not say which model it is of')]);
  if (of.config !== digest.config) throw new Refusal([problems.planOfAnother(file, 'its config.json is another')]);
  if (of.headers && digest.headers && of.headers !== digest.headers)
    throw new Refusal([problems.planOfAnother(file, 'its shards have other headers')]);
  const { target, context } = plan;
  if (typeof target !== 'string' || /\p{Cc}/u.test(target))
    throw new Refusal([problems.planUnreadable(file, 'it does not say which target it is for')]);
  if (!Number.isSafeInteger(context) || (context as number) < 1)
    throw new Refusal([problems.planUnreadable(file, 'its context is no whole number above 0')]);
  const chosen: unknown = /^[1-9]\d*$/.test(row) ? rows[Number(row) - 1] : undefined;
  if (chosen === undefined) throw new Refusal([problems.noSuchRow(file, row, rows.length)]);
  const p = (chosen as { readonly parallel?: Partial<Record<keyof Parallel, unknown>> } | null)?.parallel;
  const n = (k: keyof Parallel, least = 1): number => {
    const v = p?.[k];
    if (Number.isSafeInteger(v) && (v as number) >= least && (v as number) <= mostDevices) return v as number;
    throw new Refusal([problems.planUnreadable(file, `${k} of row ${row} is no whole number from ${least} to ${mostDevices}`)]);
  };
  return {
    tp: n('tp'),
    dp: n('dp'),
    pp: n('pp'),
    ep: n('ep'),
    redundant: n('redundant', 0),
    nodes: n('nodes'),
    plan: { target, context: context as number },
  };
}
