// --budget: which role gets which storage, so that all linears together take no more than so many bits a weight and lose the least.
// Errors are measured on a sample of each role's matrices, then the cheapest step down is taken until the budget holds.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { bitsPerWeight, type Form, formName } from '../ir/form.js';
import { type Problem, problem, Refusal } from '../ir/problem.js';
import { elements, matrixBytes } from '../ir/storage.js';
import { type EngineFormat, linearRoles, type Recipe, type Role, type Rule, type Runtime } from '../targets/engine.js';
import type { Target } from '../targets/target.js';
import type { Checkpoint } from './checkpoint/shards.js';
import type { Sources, SourceTensor } from './logical.js';
import { Stream } from './numeric/stream.js';

const tooSmall = (asked: number, least: number): Problem =>
  problem('HK5103', `--budget ${asked} is less than ${least.toFixed(2)} bits a weight, the least that this format has`, {
    next: `Ask for at least ${Math.ceil(least * 100) / 100}.`,
  });

/** Matrices of a role that are measured: the first, the middle and the last. */
const sample = <T>(list: readonly T[]): readonly T[] =>
  list.length <= 3 ? list : [list[0] as T, list[list.length >> 1] as T, list[list.length - 1] as T];

export interface RoleChoice {
  readonly role: Role;
  readonly weights: number;
  /** Best first. */
  readonly options: readonly { readonly rule: Rule | null; readonly form: Form; readonly bits: number; readonly error: number }[];
}
/** Squared relative error of a form on a matrix, written to a place that is thrown away. */
async function measure(c: Checkpoint, s: SourceTensor, form: Form): Promise<number> {
  const work = mkdtempSync(join(tmpdir(), 'hkgai-budget-'));
  const stream = new Stream({ from: c.dir, to: work, statistics: () => null, stop: () => false, progress: () => {} });
  const [rows, columns] = s.logical.shape as readonly [number, number];
  try {
    const size = rows * columns * 4 + rows * 64;
    const r = await stream.file({
      index: 0,
      path: 'sample',
      size: 4 * size,
      source: 0,
      steps: [
        {
          kind: 'matrix',
          part: s.part,
          storage: s.storage,
          rows,
          columns,
          take: null,
          turn: 'none',
          form,
          regions: { codes: 0, scales: size, zeros: 2 * size, sums: null },
          name: s.logical.name,
          statistics: null,
        },
      ],
    });
    return (r.steps[0]?.figures?.relative ?? 0) ** 2;
  } finally {
    stream.close();
    rmSync(work, { recursive: true, force: true });
  }
}
const candidates = (role: Role, search: 'absmax' | 'mse'): readonly Rule[] => [
  { roles: [role], to: 'int8' },
  { roles: [role], to: 'int4', group: 32, search },
  { roles: [role], to: 'mxfp4', search },
  { roles: [role], to: 'int4', group: 128, search },
];

/** The recipe with rules chosen for the budget. */
export async function budgeted(
  c: Checkpoint,
  sources: Sources,
  target: Target,
  chip: string,
  format: EngineFormat,
  recipe: Recipe,
  runtime: Runtime | null,
  budget: number,
): Promise<Recipe> {
  const choices: RoleChoice[] = [];
  for (const role of linearRoles) {
    const all = sources.tensors.filter(t => t.logical.role === role && t.logical.matrix && !t.logical.mtp);
    if (all.length === 0) continue;
    const weights = all.reduce((n, t) => n + (t.logical.shape[0] as number) * (t.logical.shape[1] as number), 0);
    const some = sample(all);
    const first = some[0] as SourceTensor;
    const [rows, columns] = first.logical.shape as readonly [number, number];
    const bytes = matrixBytes(first.storage, rows, columns);
    const source =
      first.storage.kind === 'plain' ? elements[first.storage.element].bits : (8 * (bytes.codes + bytes.scales)) / (rows * columns);
    const options: { rule: Rule | null; form: Form; bits: number; error: number }[] = [
      { rule: null, form: { kind: 'keep' }, bits: recipe.otherwise === 'keep' ? source : 16, error: 0 },
    ];
    for (const rule of candidates(role, 'mse')) {
      const form = format.form(rule);
      if (all.some(t => format.objection(t.logical, form, chip, recipe, runtime) !== null)) continue;
      let error = 0;
      for (const s of some) error += (await measure(c, s, form)) / some.length;
      options.push({ rule, form, bits: bitsPerWeight(form, rows, columns, source), error });
    }
    // keep what is better than everything cheaper
    const useful = options
      .sort((a, b) => b.bits - a.bits || a.error - b.error)
      .filter(
        (x, i, list) =>
          !list.some((y, j) => j !== i && y.bits <= x.bits && y.error < x.error) && !list.slice(0, i).some(y => y.bits === x.bits),
      );
    choices.push({ role, weights, options: useful });
  }
  const total = choices.reduce((n, r) => n + r.weights, 0);
  const at = choices.map(() => 0);
  const bits = (): number => choices.reduce((n, r, i) => n + r.weights * r.options[at[i]!]!.bits, 0) / total;
  while (bits() > budget) {
    let best = -1;
    let to = 0;
    let cost = Number.POSITIVE_INFINITY;
    choices.forEach((r, i) => {
      const now = r.options[at[i]!]!;
      for (let k = at[i]! + 1; k < r.options.length; k++) {
        const next = r.options[k]!;
        const price = (next.error - now.error) / (now.bits - next.bits);
        if (price < cost) [best, to, cost] = [i, k, price];
      }
    });
    if (best < 0) throw new Refusal([tooSmall(budget, bits())]);
    at[best] = to;
  }
  const rules = choices.flatMap((r, i) => r.options[at[i]!]!.rule ?? []);
  return {
    ...recipe,
    name: `${budget} bits a weight (${choices.map((r, i) => `${r.role} ${formName(r.options[at[i]!]!.form)}`).join(', ')})`,
    rules,
    activations: target.name === 'cpu' ? recipe.activations : 'none',
  };
}
