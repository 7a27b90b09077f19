// Makes values in order with their types by rule, so that a graph cannot be built wrong silently.
import type { Graph, Limits, Origin, Type, Value, ValueOf } from './graph.js';
import { type OpName, type Ops, typeOf } from './ops.js';

/** A graph under construction. Names must be unique; the type follows from ops.ts, or is declared for input-like ops. */
export class Builder {
  readonly #values: Value[] = [];
  readonly #names = new Set<string>();

  /** Add a value whose type follows from its inputs. Throws where the row's type rule objects: that is a bug of the caller. */
  add<K extends OpName>(
    op: K,
    name: string,
    inputs: Ops[K]['inputs'],
    attributes: Ops[K]['attributes'],
    origin: Partial<Origin> = {},
  ): ValueOf<K> {
    const type = typeOf(op, inputs as Readonly<Record<string, Value>>, attributes);
    if (typeof type === 'string') throw new Error(`${op} ${name}: ${type}`);
    return this.declare(op, name, type, inputs, attributes, origin);
  }

  /** Add a value that says its own type: weight, state. */
  declare<K extends OpName>(
    op: K,
    name: string,
    type: Type,
    inputs: Ops[K]['inputs'],
    attributes: Ops[K]['attributes'],
    origin: Partial<Origin> = {},
  ): ValueOf<K> {
    if (this.#names.has(name)) throw new Error(`two values are called ${name}`);
    this.#names.add(name);
    const value = {
      op,
      name,
      type,
      inputs,
      attributes,
      origin: { role: name, layer: -1, parts: [], passes: [], ...origin },
    } as unknown as ValueOf<K>;
    this.#values.push(value as unknown as Value);
    return value;
  }

  finish(name: string, limits: Limits, outputs: Readonly<Record<string, Value>>): Graph {
    return { name, limits, values: [...this.#values], outputs };
  }
}
