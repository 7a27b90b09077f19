// Rewriting: a rule gives the values that stand for one, the others follow with their inputs pointed at the new ones.
import { type Graph, inputsOf, type Value } from '../../ir/graph.js';

/** `null`: does not apply. Otherwise the values in order; the last one takes the place, and should keep the name, of the old one. */
export type Rule = (value: Value) => readonly [...Value[], Value] | null;

/** A new graph with the rule applied once to every value. Values that nothing changed are the same objects. */
export function replace(graph: Graph, rule: Rule): Graph {
  const now = new Map<Value, Value>();
  const values: Value[] = [];
  for (const old of graph.values) {
    const inputs = inputsOf(old).map(([name, v]) => [name, now.get(v) ?? v] as const);
    const moved = inputsOf(old).some(([, v]) => now.has(v)) ? ({ ...old, inputs: Object.fromEntries(inputs) } as unknown as Value) : old;
    const given = rule(moved) ?? [moved];
    values.push(...given);
    const end = given[given.length - 1] as Value;
    if (end !== old) now.set(old, end);
  }
  const outputs = Object.fromEntries(Object.entries(graph.outputs).map(([name, v]) => [name, now.get(v) ?? v]));
  return now.size === 0 ? graph : { ...graph, values, outputs };
}
