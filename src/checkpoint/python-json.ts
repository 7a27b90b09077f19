// JSON as Python's json.dumps(ensure_ascii=False) writes it: ", " and ": " between, floats as repr() has them. DeepSeek's encoders write with it,
// so a model has never seen another spelling.
import type { JsonNode } from './json.js';

/** repr() of a float: the shortest digits that read back, an exponent below 1e-4 and from 1e16, ".0" where there would be no point. */
export function pythonFloat(x: number): string {
  if (Number.isNaN(x)) return 'NaN';
  if (!Number.isFinite(x)) return x > 0 ? 'Infinity' : '-Infinity';
  if (x === 0) return Object.is(x, -0) ? '-0.0' : '0.0';
  const [, sign, first, rest = '', power] = /^(-?)(\d)(?:\.(\d+))?e([+-]\d+)$/.exec(x.toExponential()) as unknown as [
    string,
    string,
    string,
    string | undefined,
    string,
  ];
  const e = Number(power);
  const digits = first + rest;
  if (e < -4 || e >= 16) {
    const size = String(Math.abs(e)).padStart(2, '0');
    return `${sign}${first}${rest === '' ? '' : `.${rest}`}e${e < 0 ? '-' : '+'}${size}`;
  }
  if (e < 0) return `${sign}0.${'0'.repeat(-e - 1)}${digits}`;
  return `${sign}${digits.slice(0, e + 1).padEnd(e + 1, '0')}.${digits.slice(e + 1) || '0'}`;
}

/** A parsed value; `source` is the text it was parsed from, for the number's own writing: 5 stays 5, 5.0 stays 5.0, 1e2 is 100.0. */
export function pythonJson(node: JsonNode, source: string): string {
  const v = node.value;
  if (typeof v === 'number') {
    const written = source.slice(node.at, node.end);
    return /[.eE]/.test(written) ? pythonFloat(v) : written === '-0' ? '0' : written;
  }
  if (v instanceof Map)
    return `{${[...(v as ReadonlyMap<string, JsonNode>)].map(([k, n]) => `${JSON.stringify(k)}: ${pythonJson(n, source)}`).join(', ')}}`;
  if (Array.isArray(v)) return `[${(v as readonly JsonNode[]).map(n => pythonJson(n, source)).join(', ')}]`;
  return JSON.stringify(v);
}
