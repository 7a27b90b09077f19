// --budget: which role gets which storage, so that all linears together take no more than so many bits a weight and lose the least.
// Losses are measured on rows of some matrices of each role, bytes counted as they are written; then the step that costs the least loss for each bit
// saved is taken until the budget holds. The steps do not depend on the budget, so a larger one stops earlier and never loses more.
import { type Form, formName, ggufRow } from '../ir/form.js';
import { type Problem, problem, Refusal } from '../ir/problem.js';
import { elements, matrixBytes } from '../ir/storage.js';
import { dtypeBytes, type EngineFormat, linearRoles, type Recipe, type Role, type Rule, type Runtime } from '../targets/engine.js';
import type { Target } from '../targets/target.js';
import type { Checkpoint } from './checkpoint/shards.js';
import { passesOn } from './engine-plan.js';
import type { Sources, SourceTensor } from './logical.js';
import { Sample } from './numeric/sample.js';

const tooSmall = (asked: number, least: number): Problem =>
  problem('HK5103', `--budget ${asked} is less than ${least.toFixed(2)} bits a weight, the least that this format has for this model`, {
    next: `Ask for at least ${Math.ceil(least * 100) / 100}.`,
  });

/** Matrices of a role that are measured: the first, the middle and the last. */
const sample = <T>(list: readonly T[]): readonly T[] =>
  list.length <= 3 ? list : [list[0] as T, list[list.length >> 1] as T, list[list.length - 1] as T];

interface Option {
  readonly rule: Rule | null;
  readonly form: Form;
  /** Bits a weight over all matrices of the role, scales, zero points and shapes included. */
  readonly bits: number;
  /** Squared error over squared values. */
  readonly loss: number;
}
interface RoleChoice {
  readonly role: Role;
  readonly weights: number;
  /** Fewer bits and more loss each. */
  readonly options: readonly Option[];
}
const forms: readonly Omit<Rule, 'roles' | 'tensors'>[] = [
  { to: 'int8' },
  { to: 'fp8' },
  { to: 'mxfp8' },
  { to: 'q8_0' },
  { to: 'int4', group: 32, search: 'mse' },
  { to: 'int4', group: 128, search: 'mse' },
  { to: 'int4', group: 0, search: 'mse' },
  { to: 'q4_0', search: 'mse' },
  { to: 'mxfp4', search: 'mse' },
];
const shapeOf = (s: SourceTensor): readonly [number, number] => s.logical.shape as readonly [number, number];

/** Bytes of what a matrix becomes. */
export function writtenBytes(s: SourceTensor, form: Form, format: EngineFormat, modelType: string): number {
  const [rows, columns] = shapeOf(s);
  if (form.kind === 'plain') return (rows * columns * elements[form.element].bits) / 8;
  if (form.kind === 'gguf') return rows * ggufRow(form.type, columns);
  if (form.kind === 'coded')
    return format
      .stored(s.logical, form, modelType)
      .reduce((n, p) => n + p.shape.reduce((a, b) => a * b, 1) * (dtypeBytes[p.dtype] as number), 0);
  if (format.pack && s.storage.kind === 'scaled')
    return s.storage.element === 'f4e2m1' ? rows * ggufRow('MXFP4', columns) : rows * columns * 2;
  const { codes, scales } = matrixBytes(s.storage, rows, columns);
  return codes + scales + s.with.filter(w => w.name !== s.part.scale?.tensor).reduce((n, w) => n + w.bytes[1] - w.bytes[0], 0);
}

/** The recipe with rules chosen for the budget. */
export function budgeted(
  c: Checkpoint,
  sources: Sources,
  target: Target,
  chip: string,
  format: EngineFormat,
  asked: Recipe,
  runtime: Runtime | null,
  budget: number,
): Recipe {
  const model = { modelType: c.config.family, layers: c.config.layers, tensors: sources.tensors.map(t => t.logical) };
  const allowed = (all: readonly SourceTensor[], form: Form, rule: Rule): boolean => {
    const r: Recipe = { ...asked, rules: [rule], activations: activationsFor([rule], target, format, asked) };
    return (
      format.refuses(r, model, chip, runtime) === null &&
      all.every(t => format.objection(t.logical, form, chip, r, runtime, t.storage) === null)
    );
  };
  const measured = new Sample(c.dir);
  const choices: RoleChoice[] = [];
  for (const role of linearRoles) {
    const all = sources.tensors.filter(t => t.logical.role === role && t.logical.matrix && (!t.logical.mtp || asked.mtp === 'quantise'));
    if (all.length === 0) continue;
    const weights = all.reduce((n, t) => n + shapeOf(t)[0] * shapeOf(t)[1], 0);
    const bits = (form: Form | null): number =>
      (8 * all.reduce((n, t) => n + writtenBytes(t, form ?? plainOf(t, asked), format, model.modelType), 0)) / weights;
    const options: Option[] = [{ rule: null, form: plainOf(all[0] as SourceTensor, asked), bits: bits(null), loss: 0 }];
    for (const one of forms) {
      const rule: Rule = { roles: [role], ...one };
      const form = format.form(rule);
      if (!allowed(all, form, rule) || (form.kind !== 'coded' && form.kind !== 'gguf')) continue;
      let loss = 0;
      const some = sample(all);
      for (const s of some) if (!passesOn(s, form)) loss += measured.loss(s.part, s.storage, ...shapeOf(s), form) / some.length;
      options.push({ rule, form, bits: bits(form), loss });
    }
    // each with fewer bits than the one before it and less loss than all that are smaller
    options.sort((a, b) => b.bits - a.bits || a.loss - b.loss);
    const useful = options.filter(
      x => !options.some(y => y !== x && y.bits <= x.bits && (y.loss < x.loss || (y.loss === x.loss && y.bits < x.bits))),
    );
    choices.push({ role, weights, options: useful.filter((x, i) => i === 0 || x.bits < (useful[i - 1] as Option).bits) });
  }
  const total = choices.reduce((n, r) => n + r.weights, 0);
  const at = choices.map(() => 0);
  const chosen = (i: number): Option => choices[i]!.options[at[i]!]!;
  const bits = (): number => choices.reduce((n, r, i) => n + r.weights * chosen(i).bits, 0) / total;
  while (bits() > budget) {
    let [best, to, cost] = [-1, 0, Number.POSITIVE_INFINITY];
    choices.forEach((r, i) => {
      const now = chosen(i);
      for (let k = at[i]! + 1; k < r.options.length; k++) {
        const next = r.options[k]!;
        const price = (next.loss - now.loss) / (now.bits - next.bits);
        if (price < cost) [best, to, cost] = [i, k, price];
      }
    });
    if (best < 0) throw new Refusal([tooSmall(budget, bits())]);
    at[best] = to;
  }
  const rules = choices.flatMap((_, i) => chosen(i).rule ?? []);
  return {
    ...asked,
    name: `${budget} bits a weight (${choices.map((r, i) => `${r.role} ${formName(chosen(i).form)}`).join(', ')})`,
    rules,
    activations: activationsFor(rules, target, format, asked),
  };
}
/** What engines do to activations where they have such rules: as the target's own recipes of this format say. */
function activationsFor(rules: readonly Rule[], target: Target, format: EngineFormat, asked: Recipe): Recipe['activations'] {
  const { recipes, formatOf, formats } = target.engines;
  const said = rules.map(
    rule =>
      Object.entries(recipes).find(
        ([name, r]) => (formatOf[name] ?? formats[0]?.name) === format.name && r.rules.some(x => x.to === rule.to),
      )?.[1].activations ?? asked.activations,
  );
  return said.includes('int8') ? 'int8' : said.includes('fp8') ? 'fp8' : asked.activations;
}
/** What stands where no rule is. */
const plainOf = (s: SourceTensor, r: Recipe): Form =>
  r.otherwise === 'keep' || (s.storage.kind === 'plain' && s.storage.element === r.otherwise)
    ? { kind: 'keep' }
    : { kind: 'plain', element: r.otherwise };
