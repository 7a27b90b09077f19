// What a program is tested with where it is built: a made-up prompt, a few single steps, and what the reference says of the same weights, layer by
// layer. Larger models are not run here; their test then holds the program against itself alone (targets/runtime/hkgai_selftest.h).
import type { BuildOptions } from './models/index.js';

/** Parameters up to which the reference is asked: a second of work. */
const smallEnough = 8_000_000;
const tolerance = 2e-4;

/** Values that a layer ends with, and what the head reads. */
const shown = (name: string): boolean => /^layers\.\d+\.out$/.test(name) || name === 'final_norm';
/** Seven digits: an f32 and no more, so that the text says what the value is. */
const digits = (v: number): string => String(Number(v.toPrecision(7)));
const line = (values: ArrayLike<number>): string => Array.from(values, digits).join(' ');

/** The text of selftest.txt. `values` are the names that the program can show. */
export async function selfTest(
  engine: string,
  options: BuildOptions,
  model: { readonly parameters: number; readonly vocabulary: number },
  values: readonly string[],
): Promise<string> {
  const { tokens, context } = options.limits;
  const prompt = Math.max(1, Math.min(12, tokens, context - 3));
  const steps = Math.max(0, Math.min(3, context - prompt));
  const ids: number[] = [];
  for (let i = 0, x = 12345; i < prompt + steps; i++) {
    x = (Math.imul(x, 1103515245) + 12345) >>> 0;
    ids.push(Math.floor((x / 2 ** 32) * model.vocabulary));
  }
  const head = ['hkgai self-test 1', `tolerance ${tolerance}`, `prompt ${prompt} steps ${steps}`, ids.join(' ')];
  if (model.parameters > smallEnough) return `${[...head, 'end'].join('\n')}\n`;
  const { openReference } = await import('./session.js');
  const plain = await openReference(engine, { ...options, mtp: false });
  try {
    const at = (from: number, to: number) => ({
      ids: ids.slice(from, to),
      positions: ids.slice(from, to).map((_, i) => from + i),
      sequences: ids.slice(from, to).map(() => 0),
      wanted: [to - from - 1],
    });
    const names = values.filter(shown);
    const got = plain.reference.step(at(0, prompt), [...names, 'logits']);
    const last = (name: string): string => {
      const { shape, data } = got.get(name)!;
      return `values ${name} ${shape[1]} ${line(data.subarray((shape[0] - 1) * shape[1]))}`;
    };
    const lines = [...head, ...names.map(last), `logits 0 ${model.vocabulary} ${line(got.get('logits')!.data)}`];
    for (let i = 0; i < steps; i++) {
      const { logits } = await plain.step(at(prompt + i, prompt + i + 1));
      lines.push(`logits ${i + 1} ${model.vocabulary} ${line(logits)}`);
    }
    return `${[...lines, 'end'].join('\n')}\n`;
  } finally {
    await plain.close();
  }
}
