// A graph that gives token numbers instead of logits: the largest logit of each row that is asked for, the lower number of equals. What greedy
// decoding needs; the head's rows are then never written.
import type { Graph, Value } from '../../ir/graph.js';
import { typeOf } from '../../ir/ops.js';

/** `next` i32 [wanted, 1] in the place of `logits`; outputs of multi-token prediction blocks likewise. */
export function bestToken(graph: Graph): Graph {
  const values = [...graph.values];
  const outputs = Object.entries(graph.outputs).map(([name, scores]): [string, Value] => {
    const next = name.replace(/logits$/, 'next');
    const type = typeOf('top_indices', { scores }, { k: 1 });
    if (next === name || typeof type === 'string') throw new Error(`${name} is no output of logits: ${String(type)}`);
    const origin = { ...scores.origin, role: next, parts: [], passes: [...scores.origin.passes, 'best-token'] };
    const value: Value = { op: 'top_indices', name: next, type, inputs: { scores }, attributes: { k: 1 }, origin };
    values.push(value);
    return [next, value];
  });
  return { ...graph, values, outputs: Object.fromEntries(outputs) };
}
