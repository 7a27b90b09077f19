// Chips as data: one JSON file a chip, `chips/NAME.json` beside its target, read here and held against chips.schema.json by test/chips.test.ts.
import { readdirSync, readFileSync } from 'node:fs';
import type { Chip } from './target.js';

/**
 * The chips of a target: every file of `chips/` beside it, so that a chip is added by its file alone. `first` come in that order, the very first being
 * what `-t TARGET` alone means; the others follow by name. `here` is the target's import.meta.url.
 */
export function chipsOf(here: string, first: readonly string[]): readonly Chip[] {
  const files = readdirSync(new URL('chips/', here)).filter(f => f.endsWith('.json'));
  const others = files.map(f => f.slice(0, -'.json'.length)).filter(n => !first.includes(n));
  return [...first, ...others.sort()].map(n => JSON.parse(readFileSync(new URL(`chips/${n}.json`, here), 'utf8')) as Chip);
}

/** The chip whose engines, formats and refusals a chip shares; its own name where it has no such chip. */
export const familyOf = (chips: readonly Chip[], name: string): string => chips.find(c => c.name === name)?.family ?? name;

/** As much of JSON Schema as chips.schema.json uses. */
export interface Schema {
  readonly type?: 'object' | 'array' | 'string' | 'number' | 'null' | 'boolean';
  readonly const?: unknown;
  readonly required?: readonly string[];
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly additionalProperties?: false | Schema;
  readonly items?: Schema;
  readonly anyOf?: readonly Schema[];
  readonly minLength?: number;
  readonly exclusiveMinimum?: number;
  readonly pattern?: string;
  readonly description?: string;
  readonly $ref?: string;
  readonly $defs?: Readonly<Record<string, Schema>>;
}
const kindOf = (v: unknown): string => (v === null ? 'null' : Array.isArray(v) ? 'array' : typeof v);
const article = (kind: string): string => (kind === 'null' ? 'null' : /^[aeiou]/.test(kind) ? `an ${kind}` : `a ${kind}`);

/** What is wrong with a value, each with the path of its field: `device.memory.source is missing`. Empty where it fits. */
export function faultsOf(value: unknown, schema: Schema, root: Schema = schema, path = ''): readonly string[] {
  if (schema.$ref !== undefined) {
    const name = schema.$ref.replace('#/$defs/', '');
    const named = root.$defs?.[name];
    if (!named) throw new Error(`the schema has no ${name}`);
    return faultsOf(value, named, root, path);
  }
  const at = path === '' ? 'the file' : path;
  const kind = kindOf(value);
  if (schema.anyOf) {
    const tried = schema.anyOf.map(s => faultsOf(value, s, root, path));
    if (tried.some(t => t.length === 0)) return [];
    // the alternative of the value's own kind says more than that none fits
    const other = `${at} is ${article(kind)}, not `;
    return tried.find(t => !t[0]?.startsWith(other)) ?? [other + tried.map(t => t[0]?.slice(other.length)).join(' or ')];
  }
  if (schema.const !== undefined && value !== schema.const)
    return [`${at} is ${JSON.stringify(value)}, not ${JSON.stringify(schema.const)}`];
  if (schema.type !== undefined && schema.type !== kind) return [`${at} is ${article(kind)}, not ${article(schema.type)}`];
  const within = (key: string): string => (path === '' ? key : `${path}.${key}`);
  switch (kind) {
    case 'string': {
      const s = value as string;
      if (schema.minLength !== undefined && s.trim().length < schema.minLength) return [`${at} is empty`];
      return schema.pattern !== undefined && !new RegExp(schema.pattern).test(s)
        ? [`${at} is ${JSON.stringify(s)}, not as ${schema.pattern}`]
        : [];
    }
    case 'number':
      return schema.exclusiveMinimum !== undefined && !((value as number) > schema.exclusiveMinimum)
        ? [`${at} is ${value}, not above ${schema.exclusiveMinimum}`]
        : [];
    case 'array':
      return (value as readonly unknown[]).flatMap((v, i) => (schema.items ? faultsOf(v, schema.items, root, `${at}[${i}]`) : []));
    case 'object':
      return [
        ...(schema.required ?? []).filter(k => !Object.hasOwn(value as object, k)).map(k => `${within(k)} is missing`),
        ...Object.entries(value as object).flatMap(([k, v]) => {
          const known = schema.properties && Object.hasOwn(schema.properties, k) ? schema.properties[k] : schema.additionalProperties;
          if (known === false) return [`${within(k)} is no field`];
          return known ? faultsOf(v, known, root, within(k)) : [];
        }),
      ];
    default:
      return [];
  }
}
