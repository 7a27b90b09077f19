// YAML of the plain kind that manifests need: mappings, lists, text, numbers, booleans. No anchors, no tags, no folded text.
export type Yaml = string | number | boolean | readonly Yaml[] | { readonly [key: string]: Yaml | undefined };

/** Words that some reader takes for something else than text. */
const taken = /^(?:true|false|yes|no|on|off|null|y|n)$/i;
/** Text that every reader takes for text stands as it is; other text in double quotes, as JSON writes it. */
const text = (s: string): string => (/^[A-Za-z][A-Za-z0-9_./-]*$/.test(s) && !taken.test(s) ? s : JSON.stringify(s));
const isList = (v: Yaml): v is readonly Yaml[] => Array.isArray(v);

function lines(v: Yaml): readonly string[] {
  if (typeof v === 'string') return [text(v)];
  if (typeof v !== 'object') return [String(v)];
  if (isList(v)) return v.length ? v.flatMap(x => lines(x).map((l, i) => (i === 0 ? `- ${l}` : `  ${l}`))) : ['[]'];
  const rows = Object.entries(v).flatMap(([k, x]) => {
    if (x === undefined) return [];
    const inner = lines(x);
    const opens = typeof x === 'object' && inner[0] !== '[]' && inner[0] !== '{}';
    return opens ? [`${text(k)}:`, ...inner.map(l => `  ${l}`)] : [`${text(k)}: ${inner[0] as string}`];
  });
  return rows.length ? rows : ['{}'];
}
/** Documents one after another; `head` are lines of comment before the first. */
export const yaml = (head: readonly string[], documents: readonly Yaml[]): string =>
  `${head.map(h => `# ${h}\n`).join('')}${documents.map(d => `${lines(d).join('\n')}\n`).join('---\n')}`;
