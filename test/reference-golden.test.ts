import { join } from 'node:path';
import { describe, expect, it } from '@jest/globals';
import { coded } from '../ir/form.js';
import type { ValueOf } from '../ir/graph.js';
import { openCheckpoint } from '../src/checkpoint/shards.js';
import { buildModel, defaultOptions } from '../src/models/index.js';
import { decodeMatrix } from '../src/numeric/decode.js';
import { createReference, type Reference } from '../src/reference/index.js';
import { fixtures, recorded, tinyCases, weightsOf, worst } from './golden-cases.js';
import { encode } from './numeric-definition.js';

const rowsFrom = (ids: readonly number[], from: number, to: number) => ({
  ids: ids.slice(from, to),
  positions: Array.from({ length: to - from }, (_, i) => from + i),
  sequences: Array<number>(to - from).fill(0),
});

/** The rounding that the cases' README says: 2-D weights but embeddings, heads, gates, the index's weights_proj and eh_proj. */
function rounded(
  form: 'int8' | 'int4',
  read: (v: ValueOf<'weight'>) => Float32Array | Int32Array,
): (v: ValueOf<'weight'>) => Float32Array | Int32Array {
  return v => {
    const numbers = read(v);
    const shape = v.type.shape as readonly number[];
    const tensor = v.origin.parts[0]!.tensor;
    if (
      shape.length < 2 ||
      !tensor.endsWith('.weight') ||
      /(^|\.)(embed_tokens|embed|lm_head|head|gate|weights_proj|eh_proj)\.weight$/.test(tensor) ||
      numbers instanceof Int32Array
    )
      return numbers;
    const [rows, columns] = shape.slice(-2) as [number, number];
    const all = (shape.length === 3 ? (shape[0] as number) : 1) * rows;
    // int4 codes come in eights; a row of another width is padded with zeros first
    const wide = Math.ceil(columns / 8) * 8;
    const padded = new Float32Array(all * wide);
    for (let r = 0; r < all; r++) padded.set(numbers.subarray(r * columns, (r + 1) * columns), r * wide);
    const q = encode(padded, all, wide, form === 'int8' ? coded('i8', [1, 0], 'f32') : coded('i4', [1, 32], 'f32'));
    const back = decodeMatrix(
      { kind: 'scaled', element: form === 'int8' ? 'i8' : 'i4', block: [1, form === 'int8' ? 0 : 32], scale: 'f32' },
      q.codes,
      q.scales,
      all,
      wide,
    );
    const out = new Float32Array(all * columns);
    for (let r = 0; r < all; r++) out.set(back.subarray(r * wide, r * wide + columns), r * columns);
    return out;
  };
}

describe('the reference against the official results', () => {
  for (const name of tinyCases)
    it(name, async () => {
      const dir = join(fixtures, 'tiny', name);
      const golden = recorded(join(dir, 'golden.safetensors'));
      const c = openCheckpoint(dir);
      const { graph } = buildModel(c.config, c.tensors, {
        ...defaultOptions(c.config),
        limits: { tokens: 256, wanted: 256, sequences: 1, context: 512 },
      });
      const reference = await createReference(graph, weightsOf(dir));
      const ids = (s: string): readonly number[] => [...golden.get(`${s}.input_ids`)!.data];

      for (const s of ['seq0', 'seq1', 'seq2']) {
        reference.reset();
        const got = reference.step(rowsFrom(ids(s), 0, ids(s).length), ['logits']);
        expect(worst(got.get('logits')!.data, golden.get(`${s}.logits`)!.data)).toBeLessThan(2e-4);
      }
      // prompt, then token by token
      const first = ids('seq0');
      const prompt = Math.max(5, Math.floor(first.length / 3));
      reference.reset();
      const steps = [
        rowsFrom(first, 0, prompt),
        ...Array.from({ length: first.length - prompt }, (_, i) => rowsFrom(first, prompt + i, prompt + i + 1)),
      ];
      const decoded = steps.flatMap(step => [...reference.step(step, ['logits']).get('logits')!.data]);
      expect(worst(decoded, golden.get('seq0.logits')!.data)).toBeLessThan(2e-4);

      await layerByLayer(
        graph.values.map(v => v.name),
        reference,
        golden,
        first,
      );
      for (const [column, form] of [
        ['int8_pc', 'int8'],
        ['int4_g32', 'int4'],
      ] as const) {
        const want = golden.get(`seq0.logits.${column}`);
        if (!want) continue;
        const other = await createReference(graph, rounded(form, weightsOf(dir)));
        expect(worst(other.step(rowsFrom(first, 0, first.length), ['logits']).get('logits')!.data, want.data)).toBeLessThan(2e-4);
        other.dispose();
      }
      reference.dispose();
    });
});

async function layerByLayer(
  names: readonly string[],
  reference: Reference,
  golden: ReturnType<typeof recorded>,
  ids: readonly number[],
): Promise<void> {
  const taps = new Map<string, string>([
    [names.includes('embedded') && golden.get('seq0.hidden.0')!.shape.length === 2 ? 'embedded' : 'embedding', 'seq0.hidden.0'],
    ['final_norm', 'seq0.final_norm'],
  ]);
  for (let l = 0; golden.has(`seq0.hidden.${l + 1}`); l++) {
    taps.set(`layers.${l}.out`, `seq0.hidden.${l + 1}`);
    taps.set(`layers.${l}.attn_out`, `seq0.attn_out.${l}`);
    if (golden.has(`seq0.router.${l}.logits`)) taps.set(`layers.${l}.router_logits`, `seq0.router.${l}.logits`);
  }
  const present = [...taps].filter(([tap, g]) => names.includes(tap) && golden.has(g));
  expect(present.length).toBeGreaterThan(4);
  reference.reset();
  const routed = present.flatMap(([tap]) =>
    tap.endsWith('router_logits') ? [tap.replace('router_logits', 'indices'), tap.replace('router_logits', 'expert_weights')] : [],
  );
  const mtp = golden.get('seq0.mtp_logits');
  const next = [...ids.slice(1), 0];
  const got = reference.step({ ...rowsFrom(ids, 0, ids.length), nextIds: next }, [
    ...present.map(([tap]) => tap),
    ...routed,
    ...(mtp ? ['mtp.0.logits'] : []),
  ]);
  for (const [tap, g] of present) expect([tap, worst(got.get(tap)!.data, golden.get(g)!.data) <= 5e-4]).toEqual([tap, true]);
  for (const tap of routed.filter(t => t.endsWith('indices'))) {
    const l = /layers\.(\d+)/.exec(tap)![1];
    const { data, shape } = got.get(tap)!;
    const weights = got.get(tap.replace('indices', 'expert_weights'))!.data;
    const k = shape[1];
    const sorted = Array.from({ length: shape[0] }, (_, t) =>
      Array.from({ length: k }, (_, j) => [data[t * k + j]!, weights[t * k + j]!] as const).sort((a, b) => a[0] - b[0]),
    );
    expect(sorted.flat().map(p => p[0])).toEqual([...golden.get(`seq0.router.${l}.indices`)!.data]);
    expect(
      worst(
        sorted.flat().map(p => p[1]),
        golden.get(`seq0.router.${l}.weights`)!.data,
      ),
    ).toBeLessThan(1e-4); // V2 scales them by 16
  }
  if (mtp) expect(worst(got.get('mtp.0.logits')!.data.subarray(0, mtp.data.length), mtp.data)).toBeLessThan(2e-4);
}
