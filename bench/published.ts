// Published measurements beside what a plan estimates for the same model, devices and way to spread. bench/published.json has where each is from.
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Assumptions, usual } from '../src/plan/assumptions.js';
import type { KvStorage } from '../src/plan/cache.js';
import { rankBytes } from '../src/plan/shard.js';
import { type Drafts, estimate, ratesOf } from '../src/plan/time.js';
import { type Described, describeModel, type ModelShape, resolveTarget, shapeOf } from '../src/plan.js';
import type { Parallel } from '../targets/launch.js';

export interface Published {
  readonly id: string;
  readonly model: string;
  readonly checkpointForm: string;
  readonly chip: string;
  readonly devices: number;
  readonly nodes: number;
  readonly parallel: { readonly tp: number; readonly dp: number; readonly pp: number; readonly ep: number } | null;
  readonly engine: string;
  readonly phase: 'prefill' | 'decode';
  /** Sequences at once a device. */
  readonly batchPerDevice: number | null;
  readonly contextTokens: number | null;
  readonly inputTokens: number | null;
  readonly value: number;
  readonly unit: 'tokens/s/device' | 'tokens/s/user' | 'ms/token' | 'tokens/s';
  readonly mtp: boolean | null;
  readonly confidence: string;
  readonly source: string;
  readonly note: string;
}
/** What a measurement is compared with: tokens a second, of a device, a user or all; of a time it is one over it. */
export interface Compared {
  readonly of: Published;
  /** In the unit of the measurement. */
  readonly estimated: number;
  /** Estimated over measured speed: above 1 is too fast. */
  readonly ratio: number;
}
export interface Skipped {
  readonly of: Published;
  readonly why: string;
}

/** Recipes of ours for the forms of the measurements: the same, or the nearest, which is then said. */
const forms: Readonly<Record<string, string>> = {
  fp8: 'none',
  bf16: 'none',
  w8a8: 'w8a8',
  'mxfp8-mxfp4': 'mxfp4',
  'awq-int4': 'w4a16-all',
  w4a16: 'w4a16-all',
  nvfp4: 'mxfp4',
};
const words: Readonly<Record<string, number>> = { one: 1, two: 2, three: 3 };
/** Drafts as the note says them; null where it does not. */
function draftsOf(r: Published): Drafts | null {
  const m = /(one|two|three) drafts? a step, (?:taken with|of which) (\d+(?:\.\d+)?)/.exec(r.note);
  if (m) return { proposed: words[m[1] as string] as number, taken: Number(m[2]) };
  // 128 requests give 256 tokens a step
  return /drafts are simulated/.test(r.note) ? { proposed: 1, taken: 1 } : null;
}
/** Tokens in and out of a request, where prompts are read between the steps that were measured. */
function mixOf(r: Published): { readonly prompt: number; readonly out: number } | null {
  const m = /([\d,]+)(K?) in and ([\d,]+)(K?) out/.exec(r.note);
  if (!m || !/prompts are read in between/.test(r.note)) return null;
  const n = (text: string, kilo: string): number => Number(text.replaceAll(',', '')) * (kilo ? 1024 : 1);
  return { prompt: n(m[1] as string, m[2] as string), out: n(m[3] as string, m[4] as string) };
}

export class Bench {
  readonly #configs: string;
  readonly #models = new Map<string, Described>();
  readonly #shapes = new Map<string, ModelShape>();
  readonly rows: readonly Published[];
  constructor(root: string) {
    this.#configs = join(root, 'fixtures/configs');
    this.rows = JSON.parse(readFileSync(join(root, 'bench/published.json'), 'utf8')) as readonly Published[];
  }
  #shape(r: Published): ModelShape {
    const key = `${r.model} ${r.chip} ${r.checkpointForm}`;
    const there = this.#shapes.get(key);
    if (there) return there;
    const d = this.#models.get(r.model) ?? describeModel(join(this.#configs, `${r.model}.json`));
    this.#models.set(r.model, d);
    const made = shapeOf(d, { target: r.chip, quantise: forms[r.checkpointForm] as string, format: null, runtime: null, mtp: null }).shape;
    this.#shapes.set(key, made);
    return made;
  }
  /** The estimate for one measurement, or why there is none. */
  compare(r: Published, assumed: Assumptions = usual): Compared | Skipped {
    const skip = (why: string): Skipped => ({ of: r, why });
    if (r.parallel === null) return skip('one process, not spread');
    if (forms[r.checkpointForm] === undefined) return skip(`${r.checkpointForm} is no form of ours`);
    if (!existsSync(join(this.#configs, `${r.model}.json`))) return skip('its config is not here');
    const { tp, dp, pp, ep } = r.parallel;
    if (ep !== 1 && ep !== tp * dp) return skip(`experts on ${ep} of ${tp * dp} ranks, each cut besides, are no way of ours`);
    const drafts = draftsOf(r);
    if (r.mtp === true && !drafts) return skip('how many drafts are taken is not said');
    const context = r.contextTokens ?? r.inputTokens;
    if (context === null) return skip('its lengths are not said');
    if (r.phase === 'decode' && r.batchPerDevice === null) return skip('requests at once are not said');
    const m = this.#shape(r);
    const { target, chip } = resolveTarget(r.chip);
    const device = chip.device;
    if (!device) return skip(`nothing is known of ${target.name}:${chip.name}`);
    const redundant = ep > 1 && m.routed ? (ep - (m.routed.experts % ep)) % ep : 0;
    const p: Parallel = { tp, dp, pp, ep, redundant, nodes: r.nodes, devicesPerNode: r.devices / r.nodes };
    const { rates, missing } = ratesOf(device, m, p, r.chip);
    if (!rates) return skip(`not known: ${missing.join(', ')}`);
    const kv: KvStorage = /cache in (FP8|8 bits)/.test(r.note) ? 'fp8' : 'bf16';
    const stages = rankBytes(m, p, kv, context, drafts !== null, assumed).map(b => b.stage);
    const mix = mixOf(r);
    const batch = Math.max(1, Math.round((r.batchPerDevice ?? 1) * r.devices));
    const balanced = /balanced|chosen at random/.test(r.note);
    const e = estimate({ model: m, parallel: p, kv, rates, assumed: balanced ? { ...assumed, imbalance: 1 } : assumed }, stages, {
      batch,
      context: Math.round(context),
      prompt: mix?.prompt ?? Math.round(r.inputTokens ?? context),
      drafts,
    });
    if (r.phase === 'prefill') {
      const rate = e.prefill / r.devices;
      return { of: r, estimated: rate, ratio: rate / r.value };
    }
    // time of a token, with the share of its request's prompt where prompts are read in between
    const token = e.token + (mix ? (batch * mix.prompt) / mix.out / e.prefill : 0);
    const estimated = {
      'tokens/s/device': batch / token / r.devices,
      'tokens/s/user': 1 / token,
      'ms/token': token * 1e3,
      'tokens/s': batch / token,
    }[r.unit];
    return { of: r, estimated, ratio: r.unit === 'ms/token' ? r.value / estimated : estimated / r.value };
  }
}
export const median = (list: readonly number[]): number => {
  const sorted = [...list].sort((a, b) => a - b);
  const half = sorted.length / 2;
  return ((sorted[Math.floor(half - 0.5)] as number) + (sorted[Math.floor(half)] as number)) / 2;
};
/** How far off, as a factor of 1 or more. */
export const off = (c: Compared): number => Math.max(c.ratio, 1 / c.ratio);
